"""Errors, registries and protocols that every other room stands on."""
