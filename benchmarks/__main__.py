"""``python -m benchmarks NAME... [--quick]``: run what is missing, then render the page.

Without a name every benchmark runs. A row that is in its JSON file is not measured again, so
a killed run goes on where it stopped. ``python -m benchmarks render`` only renders.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from benchmarks.architectures_page import LIST, write_list
from benchmarks.page import NAMES, PAGE, write_page
from benchmarks.readme import README, write_readme
from benchmarks.record import CACHE, RESULTS, Benchmark, Book, Job, Options, fingerprint_of
from scotoma.core.errors import ScotomaError, UnknownNameError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run and return the exit code."""
    given = _parse(arguments)
    names = given.names or list(NAMES)
    try:
        if names != ["render"]:
            for name in names:
                if name not in NAMES:
                    raise UnknownNameError("benchmark", name, [*NAMES, "render"])
            options = Options(quick=given.quick, subset=given.subset, seed=given.seed)
            if given.quick:
                options = replace(options, cache=CACHE / "quick")
            for name in names:
                _run(name, options, only=given.only, again=given.again)
    except ScotomaError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    if not given.quick:
        write_page()
        write_readme()
        write_list()
        _say(f"wrote {PAGE.name}, {LIST.name} and the table of {README.name}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} or render")
    parser.add_argument("--quick", action="store_true", help="a few pictures; nothing is kept")
    parser.add_argument("--subset", type=int, default=160, help="pictures in rows with not all")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows that mention TEXT")
    parser.add_argument("--again", action="store_true", help="measure rows that are there too")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def _run(name: str, options: Options, *, only: str, again: bool) -> None:
    benchmark: Benchmark = import_module(f"benchmarks.{name}").BENCHMARK
    folder: Path = options.cache / "results" if options.quick else RESULTS
    book = Book(name, folder)
    jobs = list(benchmark.jobs(options))
    book.arrange(jobs)
    for number, job in enumerate(jobs, 1):
        label = f"{name} {number}/{len(jobs)}: {job.what}"
        if only and only not in job.what:
            continue
        if book.has(job) and not (again or options.quick):
            _say(f"{label}: there already")
            continue
        _say(label)
        _measure(book, job, options)
        book.arrange(jobs)
    if options.quick and book.rows:
        wanted = {fingerprint_of(job.config) for job in jobs}
        print(benchmark.render([row for row in book.rows if row["fingerprint"] in wanted]))


def _measure(book: Book, job: Job, options: Options) -> None:
    begun = time.perf_counter()
    measured = job.measure()
    seconds = time.perf_counter() - begun
    book.enter(job, measured, seed=options.seed, seconds=seconds)
    _say(f"  n = {measured.n}, {seconds:.0f} s")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
