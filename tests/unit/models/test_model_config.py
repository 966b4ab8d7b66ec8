from __future__ import annotations

from pathlib import Path

import pytest

from scotoma.core.errors import ModelError
from scotoma.models.config import (
    class_names,
    find_config,
    imagenet_names,
    read_config,
    require_config,
)


@pytest.mark.parametrize("key", ["classes", "label_names", "labels"])
def test_names_come_from_lists(key: str) -> None:
    assert class_names({key: ["cat", "dog, hot"]}, 2) == ("cat", "dog, hot")
    assert class_names({"pretrained_cfg": {key: ["cat", "dog"]}}, 2) == ("cat", "dog")


def test_names_come_from_mappings_in_numeric_order() -> None:
    labels = {str(i): f"c{i}" for i in reversed(range(11))}
    assert class_names({"labels": labels}, 11) == tuple(f"c{i}" for i in range(11))


def test_descriptions_give_the_first_synonym() -> None:
    config = {"label_names": ["n1", "n2"], "label_descriptions": {"n1": "tench, Tinca tinca"}}
    assert class_names(config, 2) == ("tench", "n2")


def test_a_thousand_unnamed_classes_are_imagenet() -> None:
    names = class_names({}, 1000)
    assert names == imagenet_names()
    assert names is not None
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")
    assert class_names({}, 7) is None


@pytest.mark.parametrize("names", [["cat"], {"x": "cat", "y": "dog"}, "ab"])
def test_refuses_names_that_do_not_match(names: object) -> None:
    with pytest.raises(ModelError, match="class names"):
        class_names({"classes": names}, 2)


def test_a_models_own_json_goes_before_its_folders(tmp_path: Path) -> None:
    model = tmp_path / "a.pt2"
    assert find_config(model) is None
    for name in ("config.json", "a.pt2.json", "a.json"):
        (tmp_path / name).write_text("{}")
        assert find_config(model) == tmp_path / name


def test_a_missing_json_comes_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'a\.json or config\.json .*"input_size"'):
        require_config(tmp_path / "a.onnx")


@pytest.mark.parametrize("content", ["{", "[1, 2]", '"text"', "\x00"])
def test_refuses_other_json(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match="JSON object"):
        read_config(tmp_path / "config.json")


@pytest.mark.shared
def test_imagenet_names_are_the_first_of_the_published_ones(shared: Path) -> None:
    lines = (shared / "data" / "imagenet" / "classes.txt").read_text("utf-8").splitlines()
    published = [line.split(",")[0].strip() for line in lines]
    same = sum(a.lower() == b.lower() for a, b in zip(imagenet_names(), published, strict=True))
    assert same >= 990
