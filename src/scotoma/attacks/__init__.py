"""What an attacker tries on a release; ``evaluate`` judges what comes out."""
