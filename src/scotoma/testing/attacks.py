"""What every attack owes whoever judges it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from torch import Generator, Tensor, nn

from scotoma.core.errors import NotApplicableError, NotGrantedError, ScotomaError
from scotoma.core.keys import Key
from scotoma.core.protocols import (
    GRANTS,
    Attack,
    Knowledge,
    Protection,
    Release,
    TrainableAttack,
)
from scotoma.evaluate.judge import check_guesses
from scotoma.evaluate.subjects import open_subject
from scotoma.evaluate.threat_models import ThreatModel, grant
from scotoma.models.preprocessing import Preprocessing
from scotoma.testing.findings import KEYS, ConformanceError, Findings, is_frozen, protect

__all__ = ["check_attack"]


def check_attack(
    attack: Attack | TrainableAttack,
    *,
    protections: Sequence[Protection] | None = None,
    size: tuple[int, int] = (32, 32),
) -> None:
    """Check an attack against what whoever judges it relies on.

    It is a frozen dataclass that names what it reads, and reads that and nothing else; the
    same generator gives the same guesses, of the right shape, finite, in [0, 1]; releases,
    pictures and torch's global randomness stay as they are; of a release on which it has no
    hold it says so with :class:`~scotoma.core.errors.NotApplicableError`; one that learns can
    do so anew from its checkpoint.

    Args:
        attack: To check, with a small budget if it learns.
        protections: Of which it must have a hold on one; by default a rotation, shuffled and
            mixed patches, a blurred region, and nothing at all; then a permutation, moved blocks
            and ``hardened``.
        size: Height and width of the pictures to try.

    Raises:
        ConformanceError: Violations, all of them.
    """
    findings = Findings(attack)
    # Whoever calls may not have read the types.
    is_attack = isinstance(cast("object", attack), Attack | TrainableAttack)
    findings.expect(is_attack, "has neither run nor fit, or no needs")
    needs = frozenset(getattr(attack, "needs", ()))
    findings.expect(needs <= frozenset(GRANTS), f"needs what nobody grants: {sorted(needs)}")
    findings.expect(is_frozen(attack), "is no frozen dataclass")
    if is_attack and needs <= frozenset(GRANTS):
        tried = list(protections or _default_protections())
        # A list: each is tried, for what one shows another hides.
        holds = [_try_attack(findings, attack, protection, size) for protection in tried]
        further = () if protections else _further_protections(size)
        is_held = any(holds) or any(_try_attack(findings, attack, p, size) for p in further)
        findings.expect(is_held, "has a hold on none of the protections it was tried on")
    findings.close()


def _default_protections() -> Iterator[Protection]:
    yield open_subject("orthogonal", {"block": 4})
    yield open_subject("shuffle", {"block": 8})
    yield open_subject("mix", {"block": 8})
    yield open_subject("blur", {"regions": "center:0.4"})
    yield open_subject("none")


def _further_protections(size: tuple[int, int]) -> Iterator[Protection]:
    """Yield those that few attacks are made for; tried where none of the others will do."""
    yield open_subject("permute", {"block": 4})
    yield open_subject("block-shuffle", {"block": 8, "inner": "permute"})
    # Its adapted model is made for one size, which the preprocessing tells.
    yield open_subject("hardened", {"block": 8}, preprocessing=Preprocessing((3, *size)))


def _try_attack(
    findings: Findings,
    attack: Attack | TrainableAttack,
    protection: Protection,
    size: tuple[int, int],
) -> bool:
    """Whether the attack has a hold on a protection; what it does wrong is noted."""
    draw = Generator().manual_seed(2)
    images, auxiliary = (torch.rand(n, 3, *size, generator=draw) for n in (4, 24))
    key = KEYS[0] if protection.keyed else None
    release = protect(protection, images, key)
    where = f"on {protection!r}"
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.LazyLinear(5))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model(images)

    @contextmanager
    def open_knowledge(names: Iterable[str]) -> Iterator[Knowledge]:
        """Yield the same knowledge each time: an oracle's fresh randomness begins anew."""
        with grant(
            ThreatModel("everything", "", frozenset(GRANTS), pairs=8),
            protection,
            key,
            auxiliary=auxiliary,
            adapted_model=lambda: _adapt_or_not(protection, model, key),
            public_model=model,
            generator=Generator().manual_seed(3),
        ) as knowledge:
            yield Knowledge(**{name: getattr(knowledge, name) for name in names})

    kept = [value.clone() for value in (release.data, auxiliary)]
    state = torch.get_rng_state()
    try:
        guesses = _run(attack, release, lambda: open_knowledge(attack.needs))
    except NotApplicableError:
        return False
    except Exception as error:  # as above
        findings.expect(False, f"{where}: {type(error).__name__}: {error}")
        return False
    same = torch.equal(torch.get_rng_state(), state)
    findings.expect(same, f"{where}: draws from global randomness, not from the generator")
    unchanged = torch.equal(kept[0], release.data) and torch.equal(kept[1], auxiliary)
    findings.expect(unchanged, f"{where}: changes what it is given")
    findings.attempt(where, lambda: check_guesses(guesses, images))
    again = findings.attempt(
        where, lambda: _run(attack, release, lambda: open_knowledge(attack.needs))
    )
    if again is not None:
        findings.expect(torch.equal(again, guesses), f"{where}: same seed, other guesses")
    for name in attack.needs:
        findings.expect_error(
            NotGrantedError,
            f"{where} without {name}",
            lambda name=name: _run(  # type: ignore[misc]
                attack, release, lambda: open_knowledge(attack.needs - {name})
            ),
        )
    return True


def _run(
    attack: Attack | TrainableAttack,
    release: Release,
    open_knowledge: Callable[[], AbstractContextManager[Knowledge]],
) -> Tensor:
    """Run an attack, after it has learned; once more from its checkpoint must be the same."""
    if not isinstance(attack, TrainableAttack):
        with open_knowledge() as knowledge:
            return attack.run(release, knowledge, generator=Generator().manual_seed(4))
    with TemporaryDirectory() as folder:
        steps: list[int] = []
        for _ in range(2):
            generator = Generator().manual_seed(4)
            with open_knowledge() as knowledge:
                fitted = attack.fit(
                    knowledge,
                    generator=generator,
                    checkpoint=Path(folder, "state.pt"),
                    on_step=lambda done, total: steps.append(done),  # noqa: ARG005
                )
        if not steps:
            raise ConformanceError("fit tells nobody of its steps")
        with open_knowledge() as knowledge:
            return fitted.run(release, knowledge, generator=generator)


def _adapt_or_not(protection: Protection, model: nn.Module, key: Key | None) -> nn.Module:
    try:
        return protection.adapt(copy.deepcopy(model), key)
    except ScotomaError:
        return model  # for key-less schemes a model is trained; any one serves here
