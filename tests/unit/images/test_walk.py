from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scotoma.core.errors import FileError, UnreadableImageError, UnsafePathError
from scotoma.images.read import read_picture
from scotoma.images.walk import Found, _crowded, find_pictures, output_path


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def relatives(*inputs: Path, exclude: Path | None = None) -> list[str]:
    return [str(found.relative) for found in find_pictures(inputs, exclude=exclude)]


def test_a_folder_is_walked_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.png", "a/z.JPG", "a/b/c.webp", "c.txt", "a.tiff", "d", "e.heic", "f.GIF")
    assert relatives(tmp_path) == ["a/b/c.webp", "a/z.JPG", "a.tiff", "b.png", "e.heic", "f.GIF"]


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, ".a.png", ".thumbnails/b.png", "c.png", ".d.png.part")
    assert relatives(tmp_path) == ["c.png"]


def test_a_named_file_always_counts(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt", ".hidden.png", "plain")
    named = [tmp_path / name for name in ("plain", "notes.txt", ".hidden.png")]
    assert relatives(*named) == ["plain", "notes.txt", ".hidden.png"]


def test_a_missing_input_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    with pytest.raises(FileError, match=r"got .*missing.png, which does not exist"):
        find_pictures([tmp_path / "a.png", tmp_path / "missing.png"])


def test_the_output_folder_is_left_out_even_if_it_appears_later(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "z.png")
    out = tmp_path / "out"
    walk = find_pictures([tmp_path], exclude=out)
    names = []
    for found in walk:
        make(out, "a.png", "b/c.png")
        names.append(found.relative.name)
    assert names == ["a.png", "z.png"]
    (tmp_path / "zlink").symlink_to(out)
    assert relatives(tmp_path, exclude=out) == ["a.png", "z.png"]
    with pytest.raises(UnsafePathError, match="as both; choose another"):
        find_pictures([out], exclude=tmp_path / "zlink")


def test_several_inputs_keep_their_places(tmp_path: Path) -> None:
    make(tmp_path, "x/pics/a.png", "y/pics/a.png", "y/b.png")
    x, y = tmp_path / "x", tmp_path / "y"
    assert relatives(x / "pics", y / "pics") == ["x/pics/a.png", "y/pics/a.png"]
    assert relatives(x / "pics" / "a.png", y / "b.png") == ["x/pics/a.png", "y/b.png"]
    assert relatives(x / "pics" / "a.png") == ["a.png"]
    assert relatives(x) == ["pics/a.png"]


def test_inputs_that_overlap_come_once(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b/c.png", "b/d.png")
    found = relatives(tmp_path / "b" / "d.png", tmp_path, tmp_path / "b", tmp_path / "b" / "d.png")
    assert sorted(found) == ["a.png", "b/c.png", "b/d.png"]


def test_relative_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/b.png")
    monkeypatch.chdir(tmp_path / "a")
    assert relatives(Path()) == ["b.png"]
    assert relatives(Path("../a")) == ["b.png"]
    assert relatives() == []


def test_links_lead_out_once_and_never_in_a_circle(tmp_path: Path) -> None:
    tree = make(tmp_path / "in", "a/b.png", "c.png")
    outside = make(tmp_path / "outside", "d.png", "deep/e.png")
    (tree / "a" / "up").symlink_to(tree)
    (tree / "all").symlink_to(tmp_path)
    (tree / "self.png").symlink_to(tree / "self.png")
    (tree / "m").symlink_to(outside)
    (tree / "n").symlink_to(outside)
    (tree / "o").symlink_to(outside / "deep")
    (outside / "back").symlink_to(tree)
    (tree / "z.png").symlink_to(outside / "d.png")
    (tree / "gone.png").symlink_to(tmp_path / "nowhere.png")
    expected = ["a/b.png", "c.png", "gone.png", "m/d.png", "m/deep/e.png", "self.png", "z.png"]
    assert relatives(tree) == expected
    for name in ("gone.png", "self.png"):
        with pytest.raises(UnreadableImageError, match="a file that can be opened"):
            read_picture(tree / name)


def test_a_linked_folder_that_is_named_is_followed(tmp_path: Path) -> None:
    make(tmp_path / "real", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert relatives(tmp_path / "link") == ["a.png"]


def test_a_folder_that_cannot_be_listed_becomes_an_input_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a.png", "closed/b.png", "d.png")
    scan = os.scandir

    def refuse(path: Path) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = list(find_pictures([tmp_path]))
    assert [str(each.relative) for each in found] == ["a.png", "closed", "d.png"]
    with pytest.raises(UnreadableImageError, match="got a folder"):
        read_picture(found[1].path)


def test_the_walk_is_lazy_and_its_memory_flat(tmp_path: Path) -> None:
    for folder in range(100):
        make(tmp_path, *(f"{folder:03}/{file:02}.png" for file in range(20)))
    next(iter(find_pictures([tmp_path])))
    tracemalloc.start()
    for count, _ in enumerate(find_pictures([tmp_path]), start=1):
        if count == 200:
            early = tracemalloc.get_traced_memory()[0]
    late = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert count == 2000
    assert late - early < 50_000


# --- where outputs go -----------------------------------------------------------------------


def outputs(folder: Path) -> dict[str, str]:
    return {
        str(found.relative): str(output_path(found, Path("out"), ".png").relative_to("out"))
        for found in find_pictures([folder])
    }


def test_outputs_mirror_the_tree(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "b/c.tar.webp", "d.png", "person/e.jpg", "person.jpg")
    assert outputs(tmp_path) == {
        "a.jpg": "a.png",
        "b/c.tar.webp": "b/c.tar.png",
        "d.png": "d.png",
        "person/e.jpg": "person/e.png",
        "person.jpg": "person.png",
    }


def test_names_that_would_collide_keep_their_suffix(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "a.png", "A.tif", "a.jpg.png", "b.jpg", "c.png/x.jpg", "c.jpg")
    assert outputs(tmp_path) == {
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
        "A.tif": "A.tif.png",
        "a.jpg.png": "a.jpg.png.png",
        "b.jpg": "b.png",
        "c.png/x.jpg": "c.png/x.png",
        "c.jpg": "c.jpg.png",
    }


def test_named_files_collide_too(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "a.png", "b.png")
    found = list(find_pictures([tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "b.png"]))
    assert [each.crowded for each in found] == [True, True, False]
    alone = next(iter(find_pictures([tmp_path / "a.jpg"])))
    assert output_path(alone, Path("out"), ".png") == Path("out/a.png")


NAMES = st.lists(
    st.lists(st.sampled_from(["a", "B", "b", ".jpg", ".png", ".PNG"]), min_size=1, max_size=4)
    .map("".join)
    .filter(lambda name: not name.startswith(".")),
    unique=True,
    max_size=8,
)


@given(NAMES, st.sampled_from([".png", ".jpg", ".avif"]))
def test_no_two_names_share_an_output(names: list[str], suffix: str) -> None:
    crowded = _crowded(names)
    written = [
        output_path(Found(Path(name), Path(name), name in crowded), Path("out"), suffix)
        for name in names
    ]
    assert len(set(written)) == len(names)
    assert _crowded(reversed(names)) == crowded, "the order in which they are found does not count"
