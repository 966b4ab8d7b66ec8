"""Fractional filters: how near they come to trained kernels, by what search, and at what price."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.fractional_measures import (
    measure_answers,
    measure_bits,
    measure_choice,
    measure_fit,
    measure_network,
)
from benchmarks.page import number, percent, table
from benchmarks.record import Benchmark, Job, Options, Row

__all__ = ["BENCHMARK"]

_SMALLEST = "cifar10_resnet20"
_FAMILIES = {
    "cifar10_resnet20": "3×3, ResNet-20",
    "mobilenetv2": "3×3 depthwise, MobileNetV2",
    "face embedder": "7×6 depthwise, MobileFaceNet",
}
_METHODS: tuple[dict[str, Any], ...] = (
    {"method": "table", "starts": 1, "steps": 100},
    {"method": "gradient", "starts": 10, "steps": 100},
    *(
        {"method": name, "budget": 1000}
        for name in ("fda-lines", "fda", "cma-es", "de", "pso", "random")
    ),
)
_WHOLE_METHODS = ("table", "gradient", "fda-lines", "cma-es")
_WHOLE = {"starts": 1, "steps": 60, "budget": 120}
_SLOW = "cma-es"
"""Takes a millisecond for an evaluation: large networks get its first form alone."""
_A_KERNEL = {"sharing": "kernel", "atoms": 1}
_A_FILTER = {"sharing": "filter", "atoms": 1}
_FORMS: dict[str, tuple[dict[str, Any], ...]] = {
    _SMALLEST: (_A_FILTER, {**_A_FILTER, "atoms": 2}, {**_A_FILTER, "atoms": 4}),
    "cifar10_resnet32": (_A_FILTER, {**_A_FILTER, "atoms": 4}),
    "cifar10_resnet56": (_A_FILTER, {**_A_FILTER, "atoms": 4}),
    "mobilenetv2": (_A_KERNEL, {**_A_KERNEL, "atoms": 2}),
}
_FITS: dict[str, tuple[tuple[dict[str, Any], str], ...]] = {
    "cifar10": (
        (_A_KERNEL, "weights"),
        (_A_KERNEL, "outputs"),
        (_A_KERNEL, "answers"),
        ({**_A_FILTER, "atoms": 4}, "answers"),
    ),
    "mobilenetv2": ((_A_KERNEL, "outputs"), (_A_KERNEL, "answers")),
}
_ANSWERS = ("gradient", "fda-lines", "fda", "cma-es", "random")
_CHOICES = ("threshold", "fda-lines", "cma-es", "random")


def _jobs(options: Options) -> Iterator[Job]:
    yield from _kernel_jobs(options)
    yield from _network_jobs(options)
    yield from _answer_jobs(options)
    yield from _choice_jobs(options)


def _kernel_jobs(options: Options) -> Iterator[Job]:
    count = options.count(100, 6)
    for family, what in _FAMILIES.items():
        for settings in _METHODS:
            chosen = (
                {**settings, "budget": 60} if options.quick and "budget" in settings else settings
            )
            chosen = {**chosen, "seed": options.seed}
            config = {"measure": "fit", "family": family, "kernels": count, "settings": chosen}
            measure = partial(measure_fit, family, count, chosen)
            yield Job(f"fit of {what} by {settings['method']}", config, measure)
        many = options.count(1000, 20)
        config = {"measure": "bits", "family": family, "kernels": many}
        yield Job(f"bits of {what}", config, partial(measure_bits, family, many))


def _network_jobs(options: Options) -> Iterator[Job]:
    pictures = {
        "moments": options.count(512, 40),
        "fitting": options.count(2048, 40),
        "test": options.count(5000, 40),
        "steps": options.count(200, 2),
    }
    for name, forms in _FORMS.items():
        kind = name.partition("_")[0]
        counts = {**pictures, "test": 325} if kind == "mobilenetv2" else pictures
        for form in forms:
            for method in _WHOLE_METHODS:
                if method == _SLOW and name != _SMALLEST and form is not forms[0]:
                    continue
                yield _network_job(name, {**form, "method": method}, "weights", counts)
        for form, fit in _FITS[kind]:
            yield _network_job(name, {**form, "method": "table"}, fit, counts)


def _network_job(name: str, form: dict[str, Any], fit: str, pictures: dict[str, int]) -> Job:
    settings = {**_WHOLE, **form}
    config = {"measure": "network", "network": name, "settings": settings, "fit": fit, **pictures}
    what = f"{name}, {form['atoms']} a {form['sharing']} by {form['method']}, to {fit}"
    return Job(what, config, partial(measure_network, name, settings, fit, pictures))


def _answer_jobs(options: Options) -> Iterator[Job]:
    pictures = {"fitting": options.count(256, 20), "test": options.count(1000, 20)}
    name, layer = "cifar10_resnet20", "layer1.0.conv1"
    for method in _ANSWERS:
        settings: dict[str, Any] = {"method": method, "seed": options.seed}
        passes = options.count(400, 4)
        # A step of the gradient sees a quarter of the pictures, and a pass back costs two more.
        settings["budget"] = passes * 4 // 3 if method == "gradient" else passes
        settings["reach"] = 0.05
        config: dict[str, Any] = {"measure": "answers", "network": name, "layer": layer}
        config |= {"settings": settings, **pictures}
        measure = partial(measure_answers, name, layer, settings, pictures)
        yield Job(f"answers of {name}, {layer}, by {method}", config, measure)


def _choice_jobs(options: Options) -> Iterator[Job]:
    pictures = {"fitting": options.count(2000, 40), "test": options.count(5000, 40)}
    budget, lost = options.count(80, 3), 1.0
    for method in _CHOICES:
        name = "cifar10_resnet20"
        config = {"measure": "choice", "network": name, "method": method, "budget": budget}
        config |= {"lost": lost, **pictures}
        measure = partial(measure_choice, name, method, budget, lost, pictures)
        yield Job(f"choice in {name} by {method}", config, measure)


def _render(rows: Sequence[Row]) -> str:
    parts = ["## Fractional filters", "", _HEAD, ""]
    for name, render in _TABLES.items():
        chosen = [row for row in rows if row["config"]["measure"] == name]
        if chosen:
            parts += [render(chosen), ""]
    return "\n".join(parts).rstrip() + "\n"


_HEAD = (
    "A fractional filter stands for a kernel of any size by six numbers. It is a row times a "
    "column, so the best product of a free row and a free column bounds what any fit can reach "
    "(*floor*); of a 3×3 kernel that product itself has five free numbers."
)


def _render_fit(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        values, config = row["values"], row["config"]
        lines.append(
            [
                _FAMILIES[config["family"]],
                config["settings"]["method"],
                str(row["n"]),
                f"{values['mean']:.4f}",
                f"{values['median']:.4f}",
                f"{values['floor']:.4f}",
                number(values["evaluations"], 0),
                number(values["ms_per_kernel"]),
            ]
        )
    head = ["kernels", "method", "n", "energy left, mean", "median", "floor"]
    return "\n".join(
        [
            "**Fits of single kernels by the error of their weights.** Amplitudes follow by "
            "projection; five numbers are searched. `table`: the best of a table of filters, then "
            "gradient steps; an evaluation of `table` and `gradient` is a step with its gradient, "
            "and the table itself is not counted but timed.",
            "",
            table([*head, "evaluations a kernel", "ms a kernel"], lines),
        ]
    )


def _render_bits(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        for atoms in (1, 2):
            values = row["values"][f"atoms_{atoms}"]
            lines.append(
                [
                    _FAMILIES[row["config"]["family"]],
                    str(atoms),
                    str(row["n"]),
                    f"{values['error']:.4f}",
                    number(values["bits"]),
                    number(values["plain_bits"]),
                ]
            )
    head = ["kernels", "filters a kernel", "n", "energy left", "bits a kernel, as filters"]
    return "\n".join(
        [
            "**Bits at equal error.** Rounded filters next to rounded weights (one step for all, "
            "each weight the integer of least error plus price) at the price whose error is the "
            "same (between two prices: by the logarithm of the error); bits by each number's own "
            "histogram.",
            "",
            table([*head, "as weights"], lines),
        ]
    )


def _render_network(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        values, settings = row["values"], row["config"]["settings"]
        lines.append(
            [
                row["config"]["network"],
                f"{settings['atoms']} a {settings['sharing']}",
                settings["method"],
                row["config"]["fit"],
                f"{100 * values['numbers']:.1f} %",
                f"{values['divergence']:.3f}",
                percent(values["accuracy"]),
                percent(values["plain"], interval=False),
            ]
        )
    head = [
        "network",
        "shapes",
        "search",
        "fitted to",
        "numbers kept",
        "divergence, nats",
        "accuracy",
    ]
    return "\n".join(
        [
            "**Whole networks, all kernels of 3×3 but the first layer's, no labels used.** "
            "*Numbers kept*: of these kernels' weights, unrounded. A filter's shapes are shared by "
            f"all kernels of an output channel. Searches have {_WHOLE['budget']} evaluations for "
            f"each, gradients {_WHOLE['steps']} steps. `outputs` reads 512 pictures; `answers` "
            "starts from it and takes 200 gradient steps on 2048, all layers at once.",
            "",
            table([*head, "accuracy", "as it was"], lines),
        ]
    )


def _render_answers(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        values = row["values"]
        lines.append(
            [
                row["config"]["settings"]["method"],
                str(values["numbers"]),
                number(values["passes"], 0),
                f"{values['before']:.4f}",
                f"{values['after']:.4f}",
                f"{values['test_before']:.4f}",
                f"{values['test_after']:.4f}",
                number(values["fit_seconds"], 0),
            ]
        )
    head = ["method", "numbers", "passes", "before", "after", "test pictures, before", "after", "s"]
    return "\n".join(
        [
            "**One layer fitted to the network's answers** (ResNet-20, `layer1.0.conv1`, 256 "
            "kernels of six numbers, from the fit of its weights): divergence in nats a picture, "
            "by search from scores alone and by gradient. A pass reads all 256 pictures.",
            "",
            table(head, lines),
        ]
    )


def _render_choice(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        values = row["values"]
        lines.append(
            [
                row["config"]["method"],
                str(values["measured"]),
                f"{100 * values['fractional']:.1f} %",
                f"{100 * values['numbers']:.1f} %",
                f"{values['held_out_lost']:.2f}",
                percent(values["accuracy"]),
                percent(values["plain"], interval=False),
            ]
        )
    head = ["method", "measurements", "kernels made fractional", "numbers kept"]
    head += ["points lost, held out", "accuracy, test", "as it was"]
    return "\n".join(
        [
            "**Which kernels, within 1 point of accuracy** (ResNet-20, six numbers a kernel, "
            "fitted to outputs, nothing tuned): each layer's share of kernels is searched against "
            "the accuracy on held-out pictures; `threshold` is one limit of harm for all layers.",
            "",
            table(head, lines),
        ]
    )


_TABLES = {
    "fit": _render_fit,
    "bits": _render_bits,
    "network": _render_network,
    "answers": _render_answers,
    "choice": _render_choice,
}

BENCHMARK = Benchmark("fractional", _jobs, _render)
