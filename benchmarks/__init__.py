"""Measurements that back what Scotoma says of itself; run with ``python -m benchmarks``.

::

    __main__      picks benchmarks, runs what is missing, renders the page
     ├── decisions, speed, memory, faults, cells     each a BENCHMARK: jobs and their tables
     ├── rivals     the same job written with torchattacks and foolbox
     ├── pictures   the pictures and models in ../shared
     ├── reader     decisions read from files, without any of Scotoma's code
     ├── jobs       one run of the library, or of its command in a process of its own
     ├── record     rows of results/NAME.json: fingerprint, environment, resume
     ├── figures    rates with their intervals, medians
     └── page       docs/benchmarks.md out of the rows
"""
