"""Measurements that back what Scotoma says of itself; run with ``python -m benchmarks``.

::

    __main__      picks benchmarks, runs what is missing, renders the page
     ├── decisions, speed, memory, faults, cells     each a BENCHMARK: jobs and their tables
     ├── rival_job  the same job from files to files, with
     │    └── rivals  torchattacks and foolbox
     ├── floor      the passes that a run needed, at the networks' own speed
     ├── kills      runs that are killed and resumed
     ├── generated  pictures and a model out of a seed
     ├── pictures   the pictures and models in ../shared
     ├── reader     decisions read from files, without any of Scotoma's code
     ├── jobs       one run of the library, or of its command in a process of its own
     ├── record     rows of results/NAME.json: fingerprint, environment, resume
     ├── figures    rates with their intervals, medians
     └── page       docs/benchmarks.md out of the rows
"""
