"""Encrypt: pictures that only the right model can read."""
