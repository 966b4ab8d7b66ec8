"""What every protection owes its owner."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from scotoma.core.errors import CipherKeyError, ScotomaError, SecretError
from scotoma.core.keys import Key, export_secret
from scotoma.core.protocols import Protection, Release
from scotoma.testing.findings import KEYS, Findings, is_frozen, protect

__all__ = ["check_protection"]

_TOLERANCE = 1e-4  # of the logit scale, in float32


def check_protection(
    protection: Protection,
    *,
    model: nn.Module | None = None,
    size: tuple[int, int] = (32, 32),
    has_fresh_randomness: bool | None = None,
) -> None:
    """Check a protection against what every owner relies on.

    Same key and generator, same bytes, in any batches; pictures and torch's global randomness
    stay as they are; a missing key, one too many and what is no picture are refused; another
    key gives another release; no secret is in repr, pickle, attributes or metadata; settings
    are frozen. With a model: the adapted one says of releases what the model says of pictures,
    to 1e-4 of the largest logit, and the model itself stays as it is.

    Args:
        protection: To check.
        model: Reads ``(B, 3, H, W)`` pictures of ``size``.
        size: Height and width of the pictures to try.
        has_fresh_randomness: Whether releases differ from call to call; None does not ask.

    Raises:
        ConformanceError: Violations, all of them.
    """
    findings = Findings(protection)
    findings.expect(isinstance(protection, Protection), "has not all methods of a Protection")
    images = torch.rand(5, 3, *size, generator=Generator().manual_seed(1))
    key, other = KEYS if protection.keyed else (None, None)
    before, state = images.clone(), (torch.get_rng_state(), random.getstate())
    release = findings.attempt("protect", lambda: protect(protection, images, key))
    if release is None:
        findings.close()
        return
    findings.expect(torch.equal(images, before), "changes the pictures it is given")
    same = torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    findings.expect(same, "draws from global randomness, not from the generator")
    _check_release(findings, release, len(images), key)
    again = findings.attempt("protect again", lambda: protect(protection, images, key))
    if again is not None:
        findings.expect(
            torch.equal(again.data, release.data), "same key and seed give another release"
        )
    generator = Generator().manual_seed(0)
    parts = findings.attempt(
        "protect in batches",
        lambda: torch.cat(
            [
                protection.protect(part, key, generator=generator).data
                for part in torch.split(images, 2)
            ]
        ),
    )
    if parts is not None:
        findings.expect(torch.equal(parts, release.data), "other batches give another release")
    if has_fresh_randomness is not None:
        moved = not torch.equal(protect(protection, images, key, seed=1).data, release.data)
        findings.expect(moved == has_fresh_randomness, "its fresh randomness is not as announced")
    _check_keys(findings, protection, images, release, other)
    for name, wrong in (("NaN", images * torch.nan), ("(3, H, W)", images[0])):
        findings.expect_error(
            ScotomaError,
            f"protect of {name}",
            lambda wrong=wrong: protect(protection, wrong, key),  # type: ignore[misc]
        )
    _check_secrets(findings, protection, release, key)
    if model is not None:
        _check_adapted(findings, protection, model, images, release, key, other)
    findings.close()


def _check_release(findings: Findings, release: Release, count: int, key: Key | None) -> None:
    data = release.data
    is_whole = data.ndim == 4 and len(data) == count and data.dtype == torch.float32
    findings.expect(is_whole, f"expected ({count}, C, H, W) float32, got {tuple(data.shape)}")
    findings.expect(bool(data.isfinite().all()), "releases values that are not finite")
    expected = None if key is None else key.key_id
    found = release.metadata.get("key_id")
    findings.expect(found == expected, f"expected key_id {expected!r} in metadata, got {found!r}")


def _check_keys(
    findings: Findings,
    protection: Protection,
    images: Tensor,
    release: Release,
    other: Key | None,
) -> None:
    if other is None:
        findings.expect_error(
            CipherKeyError, "a key too many", lambda: protect(protection, images, KEYS[0])
        )
        return
    findings.expect_error(CipherKeyError, "no key", lambda: protect(protection, images, None))
    changed = findings.attempt("another key", lambda: protect(protection, images, other))
    if changed is not None and changed.data.shape == release.data.shape:
        same = float((changed.data == release.data).float().mean())
        findings.expect(same < 0.5, f"another key leaves {same:.0%} of the values as they were")


def _check_secrets(
    findings: Findings, protection: Protection, release: Release, key: Key | None
) -> None:
    settings = getattr(protection, "settings", None)
    if is_dataclass(settings):
        findings.expect(is_frozen(settings), "has settings that are not frozen")
    if key is None:
        return
    secret = export_secret(key)
    shown = f"{protection!r} {protection!s} {release!r} {release.metadata}"
    findings.expect(secret.hex() not in shown and repr(secret) not in shown, "shows its key")
    held = [name for name, value in _parts(vars(protection)) if isinstance(value, Key)]
    findings.expect(not held, f"keeps keys, which are arguments, in {', '.join(held)}")
    try:
        packed = pickle.dumps(protection)
    except (SecretError, pickle.PicklingError, TypeError, AttributeError):
        return
    findings.expect(secret not in packed, "has its key in its pickle")
    fresh = len(pickle.dumps(copy.deepcopy(pickle.loads(packed))))  # noqa: S301 - made above
    findings.expect(len(packed) <= fresh, "pickles what it derived from a key")


def _check_adapted(
    findings: Findings,
    protection: Protection,
    model: nn.Module,
    images: Tensor,
    release: Release,
    key: Key | None,
    other: Key | None,
) -> None:
    before = copy.deepcopy(model.state_dict())
    adapted = findings.attempt("adapt", lambda: protection.adapt(model, key))
    if adapted is None:
        return
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    findings.expect(same, "adapt changes the model it is given")
    with torch.no_grad():
        expected = model(images)
        error = float((adapted(release.data) - expected).abs().max() / expected.abs().max())
        findings.expect(
            error <= _TOLERANCE, f"the adapted model is off by {error:.1e} of the largest logit"
        )
        if other is not None:
            wrong = protection.adapt(model, other)(release.data)
            off = float((wrong - expected).abs().max() / expected.abs().max())
            findings.expect(off > _TOLERANCE, "a model adapted with another key reads it too")


def _parts(holder: Any, name: str = "", depth: int = 4) -> Iterator[tuple[str, object]]:
    """Yield what an object's attributes hold, containers and all, with where it is."""
    if depth == 0:
        return
    if isinstance(holder, dict):
        items = [(f"{name}.{key}".lstrip("."), value) for key, value in holder.items()]
        items += [(f"{name} (a key of it)", key) for key in holder]
    elif isinstance(holder, list | tuple | set | frozenset):
        items = [(name, value) for value in holder]
    elif hasattr(holder, "__dict__") and not isinstance(holder, type | nn.Module):
        items = [(f"{name}.{key}".lstrip("."), value) for key, value in vars(holder).items()]
    else:
        return
    for where, value in items:
        yield where, value
        yield from _parts(value, where, depth - 1)
