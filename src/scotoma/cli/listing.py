"""``scotoma list``: what there is to choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from scotoma.cli.console import print_json, progress_bar

__all__ = ["HELP", "command"]

HELP = """List models, protections, fills, detectors, codecs, attacks, metrics or splits.

Also threat-models, what an attacker may be granted.

With --adaptable: which models can read encrypted pictures, and why others cannot. Name SPECs,
or patterns of timm's architectures; each is looked at on the spot.

splits: the points at which --model can be cut in two, what is sent there for one picture, and
the share of the multiply-adds that are done before.

Example: scotoma list models 'resnet*' 'vit_*_224' --adaptable --scheme orthogonal
Example: scotoma list splits --model timm:mobilenetv2_100
"""

_SCHEME = "orthogonal"


def _models() -> list[tuple[str, str]]:
    from scotoma.models.spec import list_models

    return list(list_models())


def _protections() -> list[tuple[str, str]]:
    from scotoma.protections.encrypt.schemes import schemes

    rows = []
    for name in schemes.names():
        scheme = schemes.get(name)
        key = "with a key" if scheme.keyed else "without a key, not to be undone"
        rows.append((name, f"encrypts {key}: {scheme.summary}; fits {scheme.fits}"))
    return rows


def _fills() -> list[tuple[str, str]]:
    from scotoma.ops.fills import fills

    rows = []
    for name in fills.names():
        fill = fills.get(name)
        reads = "reads the background only" if fill.background_only else "reads the region itself"
        rows.append((name, f"{fill.summary} ({reads})"))
    return rows


def _detectors() -> list[tuple[str, str]]:
    from scotoma.images.detectors import detectors

    return [(name, _first_line(detectors.get(name))) for name in detectors.names()]


def _attacks() -> list[tuple[str, str]]:
    from scotoma.attacks.registry import ENTRIES, attacks

    rows = []
    for name in attacks.names():
        if name in ENTRIES:
            rows.append((name, f"{ENTRIES[name].summary} ({ENTRIES[name].source})"))
        else:
            rows.append((name, _first_line(attacks.get(name))))
    return rows


def _metrics() -> list[tuple[str, str]]:
    from scotoma.evaluate.metrics.registry import MEASURES, metrics

    known = {**MEASURES, **{name: metrics.get(name) for name in metrics.names()}}
    rows = []
    for name, metric in sorted(known.items()):
        unit = f", in {metric.unit}" if metric.unit else ""
        rows.append((name, f"{metric.summary}{unit}; {metric.better} is better ({metric.source})"))
    return rows


def _threat_models() -> list[tuple[str, str]]:
    from scotoma.evaluate.threat_models import threat_models

    rows = []
    for name in threat_models.names():
        model = threat_models.get(name)
        rows.append((name, f"{model.summary}; granted: {', '.join(sorted(model.grants))}"))
    return rows


def _codecs() -> list[tuple[str, str]]:
    from scotoma.images.bitstream import codecs

    rows = []
    for name in codecs.names():
        kind = codecs.get(name)
        span = kind.quantizers
        lossy = f"quantizers {span[0]} to {span[1]}" if span else "lossless only"
        rows.append((name, f"{kind.summary}; {lossy}{'' if kind.is_here() else '; not here'}"))
    return rows


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


_KINDS = {
    "attacks": _attacks,
    "metrics": _metrics,
    "threat-models": _threat_models,
    "models": _models,
    "protections": _protections,
    "fills": _fills,
    "detectors": _detectors,
    "codecs": _codecs,
}


def command(
    kind: Annotated[
        str, typer.Argument(help="models, protections, fills, detectors, attacks, ...")
    ],
    patterns: Annotated[
        list[str] | None, typer.Argument(help="With --adaptable: SPECs or timm names, as vit_*.")
    ] = None,
    adaptable: Annotated[
        bool, typer.Option("--adaptable", help="Say which models read encrypted pictures.")
    ] = False,
    scheme: Annotated[
        str | None, typer.Option(help="With --adaptable: the scheme; orthogonal by default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="SPEC", help="With splits: the model.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="With splits: also where further values cross.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Print names and one line on each."""
    from scotoma.core.errors import SettingsError, UnknownNameError

    if kind not in {*_KINDS, "splits"}:
        raise UnknownNameError("listing", kind, [*_KINDS, "splits"])
    if (kind == "splits") != (model is not None) or (every and kind != "splits"):
        raise SettingsError(
            "expected --model SPEC with splits, and --model and --all with nothing else; "
            "write for example: scotoma list splits --model timm:resnet18"
        )
    if adaptable and kind == "models":
        _list_adaptable(patterns or [], scheme or _SCHEME, json=json)
        return
    if patterns or scheme or adaptable:
        raise SettingsError(
            "expected names and --scheme only with: scotoma list models --adaptable; got them "
            f"with {kind}; leave them out or add --adaptable"
        )
    if model is not None:
        _list_splits(model, every=every, json=json)
        return
    _print_rows(_KINDS[kind](), json=json)


def _list_splits(spec: str, *, every: bool, json: bool) -> None:
    from scotoma.models.networks import find_network
    from scotoma.models.splits import list_splits

    network, size = find_network(spec)
    points = list_splits(network, size, clean=not every)
    if json:
        print_json(
            {"model": spec, "input_size": size, "points": [point.to_config() for point in points]}
        )
        return
    rows = [("the picture", _sides(size), f"{math.prod(size):,}", "", "", "")]
    for point in points:
        crossing = f"crossed by {', '.join(point.crossing)}" if point.crossing else ""
        shares = (f"{point.bytes:,} bytes", f"{point.share:.1%}", crossing)
        rows.append((point.name, _sides(point.shape), f"{point.values:,}", *shares))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for name, sides, values, size_bytes, share, crossing in rows:
        cells = (values, size_bytes, share)
        numbers = "  ".join(c.rjust(w) for c, w in zip(cells, widths[2:5], strict=True))
        line = f"{name:<{widths[0]}}  {sides:<{widths[1]}}  {numbers}  {crossing}"
        typer.echo(line.rstrip())


def _sides(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _list_adaptable(patterns: Sequence[str], scheme: str, *, json: bool) -> None:
    from scotoma.run.adaptability import find_adaptable, list_forms

    if not patterns:
        _print_rows(list(list_forms(scheme)), json=json)
        return
    found: dict[str, Any] = {}
    adapts = 0
    with progress_bar("looking", unit="models") as bar:
        for count, verdict in enumerate(find_adaptable(patterns, scheme), start=1):
            adapts += verdict.adapts
            found[verdict.name] = {
                "adapts": verdict.adapts,
                "blocks": list(verdict.blocks),
                "reason": verdict.reason,
            }
            if not json:
                typer.echo(f"{verdict.name}  {verdict}")
            bar.update(count, None, verdict.name)
    if json:
        print_json(found)
    elif len(found) > 1:
        typer.echo(f"{adapts} of {len(found)} adapt to {scheme}")


def _print_rows(rows: Sequence[tuple[str, str]], *, json: bool) -> None:
    if json:
        print_json(dict(rows))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {text}")
