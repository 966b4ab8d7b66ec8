"""Ways to protect pictures; each is a package of its own and imports none of the others."""
