"""Patches that changed places are put back together, and mixed ones taken apart."""
