"""The public suites over everything that is registered, and over things that break each rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.evaluation import Ask, Constant
from support.splits import write_split
from torch import Generator, Tensor, nn

from scotoma.attacks.registry import attacks
from scotoma.core.errors import CipherKeyError, ImageError, ScotomaError
from scotoma.core.keys import Key
from scotoma.core.protocols import Knowledge, Release
from scotoma.evaluate.subjects import open_subject, subject_names
from scotoma.ops.fills import fills
from scotoma.protections.encode.split import SCHEME
from scotoma.protections.encrypt.encryption import open_protection
from scotoma.protections.encrypt.schemes import schemes
from scotoma.protections.encrypt.settings import EncryptSettings
from scotoma.testing import ConformanceError, check_attack, check_protection

BUDGET = {"steps": 2, "width": 32, "depth": 1, "batch_size": 4, "queries": 1040}
BLOCK = 8


def embedding() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 12, BLOCK, BLOCK), nn.Flatten(), nn.Linear(192, 5)).eval()


@pytest.mark.parametrize("name", [name for name in subject_names() if name != SCHEME])
def test_every_subject_keeps_its_word(name: str) -> None:
    settings = {"regions": "center:0.4"} if name in fills.names() else {"block": BLOCK}
    subject = open_subject(name, {} if name == "none" else settings)
    reads_anything = name not in schemes.names() or (
        schemes.get(name).keyed and name != "block-shuffle"
    )
    model = embedding() if reads_anything and name not in fills.names() else None
    if model is not None and name in schemes.names():
        model.pretrained_cfg = {"input_size": (3, 32, 32)}  # type: ignore[assignment]
    check_protection(subject, model=model)


def test_a_split_network_keeps_its_word(tiny_files: tuple[Path, Path], tmp_path: Path) -> None:
    file = write_split(tmp_path / "split.safetensors", tiny_files[0])
    check_protection(open_subject(SCHEME, {"file": str(file)}))  # no model: it is not exact


@pytest.mark.parametrize("name", schemes.names())
def test_every_scheme_keeps_its_word(name: str) -> None:
    scheme = schemes.get(name)
    protection = open_protection(EncryptSettings(name, BLOCK))
    check_protection(protection, has_fresh_randomness=scheme.fresh)


@pytest.mark.parametrize("name", attacks.names())
def test_every_attack_keeps_its_word(name: str) -> None:
    attack: Any = attacks.get(name)()
    known = {field.name for field in fields(attack)}
    check_attack(replace(attack, **{k: v for k, v in BUDGET.items() if k in known}))


class Honest:
    """A scheme for tests: adds a key's noise; each test breaks one of its promises."""

    keyed = True

    def protect(
        self, images: Tensor, key: Key | None = None, *, generator: Generator | None = None
    ) -> Release:
        if key is None:
            raise CipherKeyError("expected a key, got none")
        if images.ndim != 4 or not bool(images.isfinite().all()):
            raise ImageError("expected pictures")
        return Release(images + self.noise(key, images), {"key_id": key.key_id})

    def noise(self, key: Key, images: Tensor) -> Tensor:
        seed = int.from_bytes(key.stream("noise", 4), "big")
        return torch.randn(images.shape[1:], generator=Generator().manual_seed(seed))

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        if key is None:
            raise CipherKeyError("expected a key, got none")

        class Adapted(nn.Module):
            def forward(inner, images: Tensor) -> Tensor:  # noqa: N805
                return model(images - self.noise(key, images))  # type: ignore[no-any-return]

        return Adapted()


def broken(**methods: Any) -> Any:
    return type("Broken", (Honest,), methods)()


def _keeps(self: Any, images: Tensor, key: Any = None, *, generator: Any = None) -> Release:
    self.mine = [key]
    return Honest.protect(self, images, key)


def _counts(self: Any, images: Tensor, key: Any = None, *, generator: Any = None) -> Release:
    release = Honest.protect(self, images, key)
    return Release(release.data + len(images), release.metadata)


def _global(self: Any, images: Tensor, key: Any = None, *, generator: Any = None) -> Release:
    release = Honest.protect(self, images, key)
    return Release(release.data + torch.rand(()), release.metadata)


def _in_place(self: Any, images: Tensor, key: Any = None, *, generator: Any = None) -> Release:
    release = Honest.protect(self, images, key)
    images += 1
    return release


def _unkeyed(self: Any, images: Tensor, key: Any = None, *, generator: Any = None) -> Release:
    return Release(images + 0, {"key_id": key and key.key_id})


def _anonymous(self: Any, images: Tensor, key: Any = None, *, generator: Any = None) -> Release:
    return Release(Honest.protect(self, images, key).data, {})


def test_an_honest_protection_passes() -> None:
    check_protection(Honest(), model=embedding())


@pytest.mark.parametrize(
    ("methods", "violation"),
    [
        ({"protect": _keeps}, "keeps keys, which are arguments, in mine"),
        ({"protect": _counts}, "other batches"),
        ({"protect": _global}, "global randomness"),
        ({"protect": _in_place}, "changes the pictures"),
        ({"protect": _unkeyed}, "no key: expected CipherKeyError"),
        ({"protect": _unkeyed}, "another key leaves 100%"),
        ({"protect": _unkeyed}, "protect of NaN"),
        ({"protect": _anonymous}, "key_id"),
        ({"adapt": lambda self, model, key=None: model}, "off by"),
        ({"__repr__": lambda self: repr(bytes(range(32)))}, "shows its key"),
        ({"protect": lambda self, *a, **k: 1 / 0}, "ZeroDivisionError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_broken_promise_of_a_protection_is_named(
    methods: dict[str, Any], violation: str
) -> None:
    with pytest.raises(ConformanceError, match=violation):
        check_protection(broken(**methods), model=embedding())


def test_all_violations_come_at_once() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_protection(broken(protect=_unkeyed))
    assert str(caught.value).count("\n  - ") >= 3


@dataclass(frozen=True)
class Misbehaved:
    """Does what it is told."""

    act: Callable[[Release, Knowledge, Generator, Tensor], Tensor]
    needs: ClassVar[frozenset[str]] = frozenset()

    def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
        return self.act(
            release, knowledge, generator, torch.full((len(release.data), 3, 32, 32), 0.5)
        )


@dataclass(frozen=True)
class Boastful(Misbehaved):
    """Names what it does not read."""

    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})


def test_honest_attacks_pass() -> None:
    check_attack(Constant())
    check_attack(Ask(), protections=[open_subject("orthogonal", {"block": 4})])


@pytest.mark.parametrize(
    ("attack", "violation"),
    [
        (Misbehaved(lambda r, k, g, x: k.protect(x).data), "NotGrantedError"),
        (Misbehaved(lambda r, k, g, x: x * 3), r"in \[0, 1\]"),
        (Misbehaved(lambda r, k, g, x: x[:1]), "expected guesses"),
        (Misbehaved(lambda r, k, g, x: x * torch.rand(())), "global randomness"),
        (Misbehaved(lambda r, k, g, x: x + 0 * r.data.mul_(0).sum()), "changes what it is given"),
        (Misbehaved(lambda r, k, g, x: {}["x"]), "KeyError"),
        (Boastful(lambda r, k, g, x: x), "without pairs: expected NotGrantedError"),
        (object(), "neither run nor fit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_broken_promise_of_an_attack_is_named(attack: Any, violation: str) -> None:
    with pytest.raises(ConformanceError, match=violation):
        check_attack(attack)


def test_an_attack_that_applies_nowhere_is_named() -> None:
    from scotoma.core.errors import NotApplicableError

    def refuse(*_: Any) -> Tensor:
        raise NotApplicableError("expected something else")

    with pytest.raises(ConformanceError, match="hold on none"):
        check_attack(Misbehaved(refuse))


def test_settings_that_melt_are_named() -> None:
    @dataclass
    class Soft:
        needs: ClassVar[frozenset[str]] = frozenset()

        def run(self, release: Release, knowledge: Knowledge, *, generator: Generator) -> Tensor:
            return Constant().run(release, knowledge, generator=generator)

    with pytest.raises(ConformanceError, match="no frozen dataclass"):
        check_attack(Soft())


def test_conformance_errors_are_assertions_and_no_input_errors() -> None:
    assert issubclass(ConformanceError, AssertionError)
    assert not issubclass(ConformanceError, ScotomaError)
