from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scotoma.core.errors import FileError
from scotoma.models.preprocessing import Preprocessing
from scotoma.train.data import load_class_folders
from scotoma.train.hardware import Share
from scotoma.train.sources import FileSource

READ = Preprocessing((3, 16, 16), interpolation="bilinear", crop_pct=1.0)


def write(folder: Path) -> Path:
    """Three pictures of two classes, one of them gray, none of the size that is read."""
    rng = np.random.default_rng(0)
    for name in ("dog/1.png", "cat/b.bmp", "cat/a.PNG"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    Image.open(folder / "cat/b.bmp").convert("L").save(folder / "cat/b.bmp")
    (folder / "cat/notes.txt").write_text("no picture")
    return folder


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, Path("data") / path.relative_to(folder))
    return target


def test_pictures_are_read_as_the_model_reads_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    made = load_class_folders(folder, READ)
    assert made.classes == ("cat", "dog")
    assert made.labels.tolist() == [0, 0, 1]
    assert made.images.dtype == torch.uint8
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (READ.mean, READ.std))
    for image, name in zip(made.images, ("cat/a.PNG", "cat/b.bmp", "dog/1.png"), strict=True):
        with Image.open(folder / name) as picture:
            expected = READ.transform(picture.convert("RGB"))
        assert torch.allclose((image / 255 - mean) / std, expected, atol=1e-6)


def test_a_zip_is_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    expected = load_class_folders(folder, READ)
    made = load_class_folders(zipped(folder, tmp_path / "data.zip"), READ)
    assert made.classes == expected.classes
    assert torch.equal(made.labels, expected.labels)
    assert torch.equal(made.images, expected.images)


def test_without_labels_pictures_may_lie_anywhere_and_are_read_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "data")
    (folder / "loose.png").write_bytes((folder / "dog" / "1.png").read_bytes())
    boxed = Preprocessing((3, 32, 32), (0.0,) * 3, (1.0,) * 3, "bilinear", 1.0, "letterbox")
    made = load_class_folders(folder, boxed, labelled=False)
    assert (len(made.labels), made.classes) == (4, ("picture",))
    grey = torch.tensor(114, dtype=torch.uint8)
    assert (made.images[:, :, :2] == grey).all()  # 24 × 20 pixels lie in the middle
    assert (made.images[:, :, 3:28].float().std((2, 3)) > 0).all()
    source = FileSource(
        folder, boxed, auto_augment="rand-m5-mstd0.5-inc1", workers=0, labelled=False
    )
    ((images, labels),) = source.training(0, 4, 0, Share())
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [0] * 4
    plain = [images for images, _ in source.evaluation(Share())]
    assert torch.allclose(torch.cat(plain).sort(0)[0], (made.images / 255).sort(0)[0], atol=1e-6)
    with pytest.raises(FileError, match="absent"):
        load_class_folders(tmp_path / "data" / "absent", boxed, labelled=False)


def test_progress_ends_at_all(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_class_folders(
        write(tmp_path / "data"), READ, on_progress=lambda done, count: calls.append((done, count))
    )
    assert calls[-1] == (3, 3)


def test_refuses_what_holds_no_classes(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"expected a folder or \.zip"):
        load_class_folders(tmp_path / "none", READ)
    with pytest.raises(FileError, match="expected a zip"):
        load_class_folders(tmp_path / "none.zip", READ)
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(FileError, match="expected a zip"):
        load_class_folders(tmp_path / "bad.zip", READ)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="found none"):
        load_class_folders(tmp_path / "empty", READ)
    write(tmp_path / "data")
    (tmp_path / "data/dog/1.png").unlink()
    with pytest.raises(FileError, match="at least two class folders"):
        load_class_folders(tmp_path / "data", READ)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_names_the_picture_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    folder = write(tmp_path / "data")
    path = folder / "dog/1.png"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(FileError, match=r"cannot read .*1\.png"):
        load_class_folders(folder, READ)


def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "data")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(FileError, match=r"cannot read .*a\.PNG"):
        load_class_folders(folder, READ)
