"""Classifiers: how they are named, loaded and fed."""
