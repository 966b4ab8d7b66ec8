"""Pictures split between owner and attacker: never shared, and people apart."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.evaluation import write_groups

from scotoma.core.errors import FileError, SettingsError
from scotoma.evaluate.data import DataSettings, open_pictures


@pytest.fixture
def settings(tmp_path: Path) -> DataSettings:
    return DataSettings(write_groups(tmp_path / "p", 6, 4), 9, 8, (32, 32))


def test_no_picture_is_on_both_sides(settings: DataSettings) -> None:
    pictures = open_pictures(settings)
    assert (len(pictures.attacked), len(pictures.auxiliary), pictures.gallery) == (9, 8, ())
    assert not set(pictures.attacked) & set(pictures.auxiliary)
    more = open_pictures(replace(settings, pictures=12))
    assert more.attacked[:9] == pictures.attacked
    assert more.auxiliary == pictures.auxiliary
    assert open_pictures(settings, seed=1).attacked != pictures.attacked


def test_attackers_know_other_people_and_one_more_picture_of_each(settings: DataSettings) -> None:
    pictures = open_pictures(replace(settings, identities=True))
    people = [
        {pictures.labels[place] for place in places}
        for places in (pictures.attacked, pictures.auxiliary, pictures.gallery)
    ]
    assert not people[0] & people[1]
    assert people[0] <= people[2]
    assert len(pictures.gallery) == len(people[2]), "one of each"
    assert not set(pictures.gallery) & {*pictures.attacked, *pictures.auxiliary}


def test_pictures_come_as_they_are_in_batches(settings: DataSettings) -> None:
    pictures = open_pictures(settings)
    images, labels = pictures.load(pictures.attacked)
    assert images.shape == (9, 3, 32, 32)
    for place, image, label in zip(pictures.attacked, images, labels.tolist(), strict=True):
        entry = pictures.found.entries[place]
        assert pictures.found.groups[label] == entry.group
        with Image.open(entry.path) as picture:
            expected = torch.tensor(list(picture.tobytes())).view(32, 32, 3).permute(2, 0, 1)
        assert torch.equal((image * 255).round().long(), expected)


def test_a_zip_and_a_table_are_the_folder(settings: DataSettings, tmp_path: Path) -> None:
    files = sorted(settings.path.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(settings.path))
    rows = [f"{path.relative_to(settings.path)},{int(path.parent.name[1:])}" for path in files]
    (tmp_path / "p.csv").write_text("file,label\n" + "\n".join(rows))
    whole = open_pictures(settings)
    expected = whole.load(whole.attacked)
    for name in ("z.zip", "p.csv"):
        found = open_pictures(replace(settings, path=tmp_path / name))
        images, labels = found.load(found.attacked)
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])


def test_labels_are_the_models_or_unknown(settings: DataSettings) -> None:
    names = ["other", *(f"g{number:02d}" for number in range(6))]
    found = open_pictures(settings, classes=names)
    assert all(
        names[label] == entry.group
        for label, entry in zip(found.labels, found.found.entries, strict=True)
    )
    assert set(open_pictures(settings, classes=["cat", "dog"]).labels) == {-1}


def test_what_cannot_be_split_is_refused(settings: DataSettings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected size"):
        open_pictures(replace(settings, size=None))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="found none"):
        open_pictures(replace(settings, path=tmp_path / "empty"))
    one = write_groups(tmp_path / "one", 1, 3)
    with pytest.raises(SettingsError, match="at least 2 identities"):
        open_pictures(replace(settings, path=one, identities=True))
