"""How good a guess is: what attackers get and owners keep, as numbers."""
