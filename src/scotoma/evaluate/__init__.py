"""Protections × attacks × models × pictures: what is kept, and what leaks.

::

    threat_models   what an attacker sees and is granted, by name
    subjects        what is evaluated: schemes, fills, nothing at all
    loop            protect, attack, judge: one Record for a cell
    judge           guesses against originals, and against the trivial guess
    data            pictures from folders, zips and tables, split for owner and attacker
    config, run     a whole table of cells from a TOML file, resumable
"""
