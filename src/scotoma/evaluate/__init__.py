"""Protections × attacks × models × pictures: what is kept, and what leaks."""
