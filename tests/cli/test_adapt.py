"""``scotoma adapt`` and ``classify``: a server that reads releases and never sees a picture."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from support.commands import Result, here, scotoma
from support.keys import assert_no_secret, write_keys
from support.tiny_models import CLASSES, write_pictures

COUNT = 6
MODEL = ("--model", "scotoma:m.safetensors")
KEY = ("--key", "k.key")
BLOCK = ("--block", "8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with pictures, a model, releases, and the model adapted to them."""
    folder = tmp_path_factory.mktemp("adapt")
    write_pictures(folder / "in", COUNT)
    shutil.copy(tiny_files[1], folder / "m.safetensors")
    write_keys(folder)
    words = ("--scheme", "orthogonal", *KEY, *MODEL, *BLOCK)
    assert scotoma("encrypt", "in", "-o", "rel", *words, cwd=folder).code == 0
    assert scotoma("adapt", "-o", "a.safetensors", *words, cwd=folder).code == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """Return a copy to change at will."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def adapt(place: Path, *words: object, out: str = "b.safetensors") -> Result:
    result = scotoma("adapt", "-o", out, *words, cwd=place)
    assert_no_secret(place, result.out, result.err)
    assert "Traceback" not in result.err
    return result


def verdicts(place: Path, *words: object, code: int = 0) -> dict[str, Any]:
    result = scotoma("classify", *words, "--json", cwd=place)
    assert "Traceback" not in result.err
    assert (result.code, result.err) == (code, "")
    return {Path(v["input"]).stem: v for v in json.loads(result.out)["verdicts"]}


def answers(found: dict[str, Any]) -> dict[str, list[tuple[str, float]]]:
    return {
        name: [(answer["name"], round(answer["score"], 3)) for answer in verdict["answers"]]
        for name, verdict in found.items()
    }


def test_the_adapted_model_says_of_releases_what_the_plain_one_says_of_pictures(
    place: Path,
) -> None:
    plain = verdicts(place, "in", *MODEL, "--top", "3")
    adapted = verdicts(place, "rel", "--model", "scotoma:a.safetensors", "--top", "3")
    assert answers(plain) == answers(adapted)
    assert {v["kind"] for v in adapted.values()} == {"release"}
    assert len({found[0][0] for found in answers(plain).values()}) > 1
    assert {name for found in answers(plain).values() for name, _ in found} <= set(CLASSES)


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("permute", ("--format", "png")),
        ("orthogonal", ("--dataset", "b", "--block", "4")),
    ],
)
def test_schemes_and_labels_go_with_their_own_releases_only(
    place: Path, scheme: str, words: tuple[str, ...]
) -> None:
    common = ("--scheme", scheme, *KEY, *MODEL, *BLOCK)
    assert scotoma("encrypt", "in", "-o", "own", *common, *words, cwd=place).code == 0
    rest = [word for word in words if word not in ("--format", "png")]
    result = adapt(place, *common, *rest)
    assert (result.code, result.err) == (0, "")
    model = ("--model", "scotoma:b.safetensors")
    own = verdicts(place, "own", *model)
    plain = verdicts(place, "in", *MODEL)
    assert {n: a[0][0] for n, a in answers(own).items()} == {
        n: a[0][0] for n, a in answers(plain).items()
    }
    other = verdicts(place, "rel", *model, code=3)
    assert all("expected a release of" in v["error"] for v in other.values())


def test_what_is_said_of_an_adaptation_is_what_was_measured(place: Path) -> None:
    words = ("--scheme", "orthogonal", *KEY, *MODEL, *BLOCK)
    result = adapt(place, *words)
    assert (result.code, result.err) == (0, "")
    first, second = result.out.splitlines()
    assert re.fullmatch(
        r"scotoma:m\.safetensors -> b\.safetensors, reads scheme 'orthogonal' under key [0-9a-f]+",
        first,
    )
    assert re.search(r"at most \d\.\de-\d\d of the greatest", second)
    assert second.endswith("0 of 4 decisions on random pictures change")
    assert stat.S_IMODE((place / "b.safetensors").stat().st_mode) == 0o600
    said = json.loads(adapt(place, *words, "--json").out)
    assert 0 < said["agreement"]["max_difference"] <= 1e-5
    assert said["agreement"]["logit_spread"] > 0.1
    assert said["reads"]["shape"] == [3, 32, 32]


def test_every_wrong_pair_is_refused_with_both_names(place: Path) -> None:
    words = ("--scheme", "orthogonal", "--key", "other.key", *MODEL, *BLOCK)
    assert adapt(place, *words).code == 0
    ids = [
        json.loads((place / "rel/summary.json").read_text("utf-8"))["key_id"],
        json.loads(adapt(place, *words, "--json").out)["reads"]["key_id"],
    ]
    found = verdicts(place, "rel", "--model", "scotoma:b.safetensors", code=3)
    assert all(each in v["error"] for v in found.values() for each in ids)
    found = verdicts(place, "in", "--model", "scotoma:a.safetensors", code=3)
    assert all("got a picture" in v["error"] for v in found.values())
    found = verdicts(place, "rel", *MODEL, code=3)
    assert all("scotoma adapt" in v["error"] for v in found.values())
    (place / "rel/000.safetensors").write_bytes(b"short")
    found = verdicts(place, "rel", "--model", "scotoma:a.safetensors", code=3)
    assert [name for name, v in found.items() if v["error"]] == ["000"]
    result = scotoma("classify", "rel", "--model", "scotoma:a.safetensors", cwd=place)
    assert result.code == 3
    assert len(result.out.splitlines()) == COUNT - 1
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("failed: ")


def test_an_adapted_model_reads_no_pictures_anywhere(place: Path) -> None:
    words = ("anonymize", "in", "-o", "out", "--model", "scotoma:a.safetensors")
    result = scotoma(*words, "--regions", "center:0.3", cwd=place)
    assert result.code in (1, 3)
    assert "encrypt it first" in result.err
    assert not list((place / "out").glob("*.png"))
    result = adapt(
        *(place, "--scheme", "orthogonal", *KEY, *BLOCK, "--model", "scotoma:a.safetensors")
    )
    assert result.code == 1
    assert "already" in result.err


MISTAKES = {
    "no key": (["--scheme", "orthogonal", *MODEL], "scotoma keygen KEYFILE"),
    "key for none": (["--scheme", "shuffle", *KEY, *MODEL], "leave it out"),
    "untrained": (["--scheme", "shuffle", *MODEL], "trained to read"),
    "block": (["--scheme", "orthogonal", *KEY, *MODEL, "--block", "6"], "block"),
    "positions": (["--scheme", "block-shuffle", *KEY, *MODEL, *BLOCK], "keeps blocks in place"),
    "scheme": (["--scheme", "permut", *KEY, *MODEL], "did you mean 'permute'?"),
    "model": (["--scheme", "permute", *KEY, "--model", "embeded"], "did you mean 'embedded'?"),
    "no scheme": ([*KEY, *MODEL], "--scheme"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_nothing_is_written(place: Path, mistake: str) -> None:
    words, fragment = MISTAKES[mistake]
    before = set(place.rglob("*"))
    result = here("adapt", "-o", "b.safetensors", *words, cwd=place)
    assert_no_secret(place, result.out, result.err)
    assert (result.code, result.out) == (1, "")
    assert fragment in result.err
    assert set(place.rglob("*")) == before


def test_nothing_but_an_adapted_model_is_replaced(place: Path) -> None:
    words = ("--scheme", "orthogonal", *KEY, *MODEL, *BLOCK)
    plain = (place / "m.safetensors").read_bytes()
    (place / "notes.safetensors").write_bytes(b"somebody's")
    for out, fragment in (
        ("m.safetensors", "did not write"),
        ("notes.safetensors", "did not write"),
        ("model.pt", "ending in .safetensors"),
        ("no/such.safetensors", "existing folder"),
    ):
        result = here("adapt", "-o", out, *words, cwd=place)
        assert result.code == 1
        assert fragment in result.err
    assert (place / "m.safetensors").read_bytes() == plain
    assert (place / "notes.safetensors").read_bytes() == b"somebody's"
    assert adapt(place, *words, out="a.safetensors").code == 0


def test_onnx_answers_alike_and_says_what_it_reads(place: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason="needs the onnx extra")
    words = ("--scheme", "orthogonal", *KEY, *MODEL, *BLOCK, "--onnx")
    result = adapt(place, *words)
    assert (result.code, result.err) == (0, "")
    assert "b.onnx in onnxruntime: logits differ by at most" in result.out
    plain = verdicts(place, "in", *MODEL)
    exported = verdicts(place, "rel", "--model", "onnx:b.onnx")
    assert answers(plain) == answers(exported)
    refused = verdicts(place, "in", "--model", "onnx:b.onnx", code=3)
    assert all("got a picture" in v["error"] for v in refused.values())

    # The exporter notes stack traces; they name folders of the machine that made the file.
    data = (place / "b.onnx").read_bytes()
    assert b".py" not in data
    assert b"stack_trace" not in data

    # As a server runs it: onnxruntime, the numbers of the release, nothing of ours.
    import onnxruntime
    from safetensors.numpy import load_file

    session = onnxruntime.InferenceSession(str(place / "b.onnx"))
    numbers = load_file(place / "rel/000.safetensors")["release"]
    (logits,) = session.run(["logits"], {"release": numbers})
    assert CLASSES[int(logits[0].argmax())] == answers(plain)["000"][0][0]

    (place / "c.onnx").write_bytes(b"somebody's")
    assert adapt(place, *words, out="c.safetensors").code == 1
    assert (place / "c.onnx").read_bytes() == b"somebody's"
    assert not (place / "c.safetensors").exists()


# -- lists --------------------------------------------------------------------------------------


def test_protections_are_listed_with_whom_they_fit(place: Path) -> None:
    result = scotoma("list", "protections", cwd=place)
    assert (result.code, result.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert {"orthogonal", "permute", "block-shuffle", "shuffle", "mix"} <= set(rows)
    assert all("; fits " in text for text in rows.values())
    assert "without a key" in rows["shuffle"]
    assert "with a key" in rows["orthogonal"]


def test_adaptable_models_are_told_with_their_reasons(place: Path) -> None:
    result = scotoma("list", "models", "--adaptable", cwd=place)
    assert (result.code, result.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert rows["embedded"].startswith("yes, blocks 2, 4, 8, 12")
    assert rows["onnx:FILE"].startswith("no: ")

    names = ("resnet18", "vit_tiny_patch16_224", "scotoma:m.safetensors")
    words = ("list", "models", *names, "--adaptable", "--json")
    found = json.loads(scotoma(*words, cwd=place).out)
    assert set(found) == set(names)
    assert found["resnet18"]["blocks"][:3] == [2, 4, 6]
    assert "conv1 reads 7×7 by 2" in found["resnet18"]["reason"]
    per_block = json.loads(scotoma(*words, "--scheme", "orthogonal-per-block", cwd=place).out)
    assert per_block["vit_tiny_patch16_224"]["blocks"] == [16, 32, 48, 64]
    # BEiT's relative positions count, though an untrained one's are all zero.
    words = ("list", "models", "beit_base_patch16_224", "--adaptable")
    beit = scotoma(*words, "--scheme", "block-shuffle", cwd=place).out
    assert "no: expected a network whose only knowledge of positions" in beit
    keyless = scotoma("list", "models", "resnet18", "--adaptable", "--scheme", "mix", cwd=place)
    assert keyless.out == "resnet18  no: not trained to read 'mix' releases\n"


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["models", "resnet81", "--adaptable"], "resnet"),
        (["models", "resnet18"], "--adaptable"),
        (["fills", "--adaptable"], "--adaptable"),
        (["models", "resnet18", "--adaptable", "--scheme", "mixx"], "did you mean 'mix'?"),
        (["protection"], "did you mean 'protections'?"),
    ],
)
def test_mistakes_in_lists_are_named(place: Path, words: list[str], fragment: str) -> None:
    result = here("list", *words, cwd=place)
    assert (result.code, result.out) == (1, "")
    assert fragment in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["nowhere"], "nowhere, which does not exist"),
        (["in", "--top", "0"], "top"),
        (["in", "--batch-size", "0"], "batch_size"),
        (["in", "--model", "embeded"], "did you mean 'embedded'?"),
    ],
)
def test_mistakes_in_asking_are_named(place: Path, words: list[str], fragment: str) -> None:
    result = here("classify", *words, cwd=place)
    assert (result.code, result.out) == (1, "")
    assert fragment in result.err
