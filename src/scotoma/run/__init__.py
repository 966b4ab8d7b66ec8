"""Runs over whole folders: one line per picture, a summary, and a rerun that repeats nothing."""
