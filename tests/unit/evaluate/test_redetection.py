"""Found again, or something else found: only the first counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from scotoma.core.errors import ModelError, UnknownNameError
from scotoma.evaluate.redetection import Redetection, is_found, open_detector, open_detectors
from scotoma.images.regions import Region


class Bright:
    """Finds the box around all white pixels."""

    def find(self, pixels: NDArray[np.uint8], relative: Path) -> list[Region]:
        rows, columns = np.nonzero(pixels.min(2) == 255)
        if len(rows) == 0:
            return []
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return [Region(tuple(int(side) for side in box))]  # type: ignore[arg-type]


def with_box(*box: int) -> torch.Tensor:
    image = torch.zeros(3, 20, 20)
    x0, y0, x1, y1 = box
    image[:, y0:y1, x0:x1] = 1
    return image


ORIGINALS = torch.stack([with_box(2, 2, 8, 8), with_box(2, 2, 8, 8), with_box(0, 0, 0, 0)])


@pytest.mark.parametrize(
    ("guesses", "value"),
    [
        ((with_box(2, 2, 8, 8), with_box(3, 2, 8, 8)), 1.0),
        ((with_box(2, 2, 8, 8), with_box(10, 10, 16, 16)), 0.5),
        ((with_box(0, 0, 20, 20), with_box(0, 0, 0, 0)), 0.0),
    ],
    ids=["same and nearly", "elsewhere", "everything and nothing"],
)
def test_only_the_same_object_counts(guesses: tuple[torch.Tensor, ...], value: float) -> None:
    judge = Redetection(Bright())
    # The third original has nothing in it that could be found again.
    judge.add(torch.stack([*guesses, with_box(2, 2, 8, 8)]), ORIGINALS, torch.zeros(3))
    figure = judge.figures()["redetection"]
    assert (figure.value, figure.n) == (value, 2)
    assert figure.low <= value <= figure.high


def test_of_several_detectors_each_object_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scotoma.evaluate.redetection.open_detector", lambda spec: Bright())
    judge = Redetection(open_detectors(["one", "other"]))
    judge.add(ORIGINALS[:1], ORIGINALS[:1], torch.zeros(1))
    assert judge.figures()["redetection"].n == 1


def test_nothing_to_find_is_no_figure() -> None:
    judge = Redetection(Bright())
    judge.add(ORIGINALS[2:], ORIGINALS[2:], torch.zeros(1))
    assert judge.figures() == {}


def test_half_an_overlap_is_found() -> None:
    wanted = Region((0, 0, 10, 10))
    assert is_found(wanted, [Region((50, 50, 60, 60)), Region((0, 0, 10, 5))])
    assert not is_found(wanted, [Region((0, 0, 10, 4))])
    assert not is_found(wanted, [])


def test_unknown_detectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'faces'"):
        open_detector("face")
    with pytest.raises(ModelError, match="no such file"):
        open_detector(f"onnx:{tmp_path / 'none.onnx'}")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["faces", "face_detector_rfb320.onnx"])
def test_real_detectors_find_real_faces_and_not_their_mosaics(shared: Path, name: str) -> None:
    folder = shared / "data" / "faces" / "orl"
    pixels = [
        np.asarray(Image.open(person / "1.png").convert("RGB"))
        for person in sorted(folder.iterdir())[:6]
    ]
    faces = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    faces = F.interpolate(faces, (224, 184), mode="bilinear")
    mosaics = F.interpolate(F.avg_pool2d(faces, 16), faces.shape[2:])
    detector = open_detector(name if name == "faces" else f"onnx:{shared / 'models' / name}")
    found = {}
    for kind, guesses in {"clear": faces, "mosaic": mosaics}.items():
        judge = Redetection(detector)
        judge.add(guesses, faces, torch.zeros(6))
        found[kind] = judge.figures()["redetection"]
    assert found["clear"].value == 1.0
    assert found["clear"].n >= 5
    assert found["mosaic"].value <= 0.2
