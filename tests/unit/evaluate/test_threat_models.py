"""What attackers are granted, and what they cannot reach: the key."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.evaluation import make_unit_images
from torch import Generator, nn

from scotoma.core.errors import (
    CipherKeyError,
    ImageError,
    NotApplicableError,
    NotGrantedError,
    SecretError,
    SettingsError,
    UnknownNameError,
)
from scotoma.core.keys import Key
from scotoma.core.protocols import GRANTS, Knowledge
from scotoma.evaluate.subjects import open_subject
from scotoma.evaluate.threat_models import (
    ThreatModel,
    draw_key,
    grant,
    open_threat_model,
    threat_models,
)
from scotoma.protections.encrypt.maps import BlockMaps

KEY = Key.from_bytes(bytes(range(32)))
ALL = ThreatModel("all", "everything there is", frozenset(GRANTS), pairs=2)
SECRETS = (Key, BlockMaps)


def granted(threat_model: ThreatModel, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "auxiliary": make_unit_images(4),
        "adapted_model": lambda: nn.Identity(),
        "public_model": nn.Identity(),
        "generator": Generator().manual_seed(0),
        **changes,
    }
    return grant(threat_model, open_subject("orthogonal", {"block": 8}), KEY, **values)


@pytest.mark.parametrize("name", threat_models.names())
def test_what_is_granted_is_there_and_nothing_else(name: str) -> None:
    model = threat_models.get(name)
    with granted(model) as knowledge:
        assert knowledge.granted == model.grants
        for other in set(GRANTS) - model.grants:
            with pytest.raises(NotGrantedError):
                getattr(knowledge, other)


def test_every_threat_model_knows_the_algorithm() -> None:
    for name in threat_models.names():
        assert {"simulate", "auxiliary"} <= threat_models.get(name).grants


def test_pairs_and_oracle_are_of_the_attacked_key_and_simulations_are_not() -> None:
    owner, images = open_subject("orthogonal", {"block": 8}), make_unit_images(3, first=50)
    attacked = owner.protect(images, KEY).data
    with granted(ALL) as knowledge:
        assert torch.equal(knowledge.protect(images).data, attacked)
        pictures, release = knowledge.pairs
        assert torch.equal(pictures, make_unit_images(4)[:2])
        assert torch.equal(release.data, owner.protect(pictures, KEY).data)
        simulated = knowledge.simulate(images, Generator().manual_seed(1))
        again = knowledge.simulate(images, Generator().manual_seed(1))
        other = knowledge.simulate(images, Generator().manual_seed(2))
        assert torch.equal(simulated.data, again.data)
        assert simulated.metadata["key_id"] not in (KEY.key_id, other.metadata["key_id"])


def attributes(thing: object) -> Iterator[object]:
    """Yield all that a curious attack reaches from a thing by Python's own means."""
    if isinstance(thing, dict):
        yield from (*thing.keys(), *thing.values())
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from thing
    elif isinstance(thing, types.FunctionType):
        yield from (cell.cell_contents for cell in thing.__closure__ or ())
        yield from (*(thing.__defaults__ or ()), thing.__dict__)
    elif isinstance(thing, functools.partial):
        yield from (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, types.GeneratorType):
        yield thing.gi_frame and thing.gi_frame.f_locals
    else:
        slots = [getattr(kind, "__slots__", ()) for kind in type(thing).__mro__]
        names = [name for one in slots for name in ([one] if isinstance(one, str) else one)]
        for name in ("__dict__", *names):
            try:
                yield object.__getattribute__(thing, name)
            except AttributeError:
                continue


def referents(thing: object) -> Iterator[object]:
    """Yield all that the garbage collector sees a thing refer to, modules' globals left out."""
    for one in gc.get_referents(thing):
        if not (isinstance(one, dict) and "__builtins__" in one):
            yield one


def reachable(start: object, step: Any) -> Iterator[object]:
    seen, waiting = {id(start)}, [start]
    keep = []  # so that no id is given to another object meanwhile
    while waiting and len(seen) < 200_000:
        thing = waiting.pop()
        yield thing
        if isinstance(thing, types.ModuleType | type | types.BuiltinFunctionType | torch.dtype):
            continue
        for one in step(thing):
            if id(one) not in seen:
                seen.add(id(one))
                keep.append(one)
                waiting.append(one)


@pytest.mark.parametrize("step", [attributes, referents], ids=lambda step: step.__name__)
def test_nothing_that_an_attack_reaches_is_the_key(step: Any) -> None:
    with granted(ALL) as knowledge:
        knowledge.protect(make_unit_images(1))  # so that whatever keeps maps has them by now
        found = [thing for thing in reachable(knowledge, step) if isinstance(thing, SECRETS)]
        assert not found
        assert any(thing is knowledge.protect for thing in reachable(knowledge, step))


def test_the_spy_would_find_a_key_that_is_not_hidden() -> None:
    key = Key.from_bytes(bytes(32))
    careless = Knowledge(protect=lambda images: (images, key))  # type: ignore[arg-type, return-value]
    for step in (attributes, referents):
        assert any(isinstance(thing, Key) for thing in reachable(careless, step))


def test_an_oracle_is_not_copied_and_stops_when_its_model_ends() -> None:
    with granted(open_threat_model("chosen-plaintext")) as knowledge:
        oracle = knowledge.protect
        for steal in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(SecretError):
                steal(oracle)


def test_an_oracle_hands_on_errors_without_the_frames_that_hold_the_key() -> None:
    with granted(open_threat_model("chosen-plaintext")) as knowledge:
        with pytest.raises(ImageError) as caught:
            knowledge.protect(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
        trace = caught.value.__traceback__
        while trace is not None:
            values = trace.tb_frame.f_locals.values()
            assert trace.tb_frame.f_code.co_name == (
                test_an_oracle_hands_on_errors_without_the_frames_that_hold_the_key.__name__
            ) or not any(isinstance(value, SECRETS) for value in values)
            trace = trace.tb_next
        assert len(knowledge.protect(make_unit_images(1)).data) == 1, "it goes on"


def test_keys_are_drawn_from_the_generator() -> None:
    one, same = (draw_key(Generator().manual_seed(3)) for _ in range(2))
    assert one == same
    assert one != draw_key(Generator().manual_seed(4))


def test_a_number_says_how_many() -> None:
    assert open_threat_model("known-plaintext:10").pairs == 10
    assert open_threat_model("many-releases:7").pictures_per_key == 7
    assert open_threat_model("one-release").pictures_per_key == 1


@pytest.mark.parametrize(
    ("spec", "kind", "match"),
    [
        ("know-plaintext", UnknownNameError, "did you mean 'known-plaintext'"),
        ("server:3", SettingsError, "without a number"),
        ("known-plaintext:0", SettingsError, "at least 1"),
        ("many-releases:x", SettingsError, "at least 1"),
    ],
)
def test_what_names_no_threat_model_is_refused(
    spec: str, kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        open_threat_model(spec)


def test_contradictory_threat_models_are_refused() -> None:
    with pytest.raises(SettingsError, match="grants out of"):
        ThreatModel("x", "x", frozenset({"key"}))
    with pytest.raises(SettingsError, match="pairs are granted"):
        ThreatModel("x", "x", frozenset({"pairs"}))
    with pytest.raises(SettingsError, match="pairs are granted"):
        ThreatModel("x", "x", pairs=3)


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        ("known-plaintext:9", {}),
        ("insider", {"auxiliary": None}),
        ("server", {"adapted_model": None}),
        ("server-public", {"public_model": None}),
    ],
)
def test_what_is_not_there_cannot_be_granted(spec: str, changes: dict[str, Any]) -> None:
    with pytest.raises(NotApplicableError), granted(open_threat_model(spec), **changes):
        pass


def test_a_wrong_key_is_the_owners_error() -> None:
    with (
        pytest.raises(CipherKeyError),
        grant(
            open_threat_model("insider"),
            open_subject("orthogonal", {"block": 8}),
            None,
            auxiliary=make_unit_images(2),
            generator=Generator(),
        ),
    ):
        pass
