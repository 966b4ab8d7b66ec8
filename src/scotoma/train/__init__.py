"""Training of the models that ship with Scotoma, and of users' own."""
