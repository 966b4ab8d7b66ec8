from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.endpoint import Served, serve

from scotoma.core.errors import ModelError, SettingsError, SilentModelError, UnknownNameError
from scotoma.models.http_scores import Endpoint
from scotoma.models.spec import load_classifier

CONFIG: dict[str, Any] = {
    "input_size": [3, 6, 8],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "crop_pct": 1.0,
    "classes": ["red", "green", "blue"],
}


def means(pictures: NDArray[np.uint8]) -> list[list[float]]:
    return pictures.mean((1, 2)).tolist()


@pytest.fixture
def served() -> Iterator[Served]:
    with serve(means) as endpoint:
        yield endpoint


def spec(served: Served, folder: Path, **changes: Any) -> str:
    endpoint = {"pause_s": 0.01, "retries": 2, **changes.pop("endpoint", {})}
    path = folder / "remote.json"
    path.write_text(json.dumps({**CONFIG, "endpoint": endpoint, **changes}))
    return f"{served.url}@{path}"


def normalized(pixels: NDArray[np.uint8]) -> torch.Tensor:
    shape = (3, 1, 1)
    mean, std = (torch.tensor(CONFIG[name]).view(shape) for name in ("mean", "std"))
    return (torch.tensor(pixels.transpose(0, 3, 1, 2)) / 255 - mean) / std


def test_the_endpoint_sees_the_very_pixels(served: Served, tmp_path: Path) -> None:
    model = load_classifier(spec(served, tmp_path, endpoint={"batch": 4}))
    assert not model.differentiable
    assert model.classes == ("red", "green", "blue")
    pixels = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), dtype=np.uint8)
    served.batches.clear()
    logits = model.logits(normalized(pixels))
    assert torch.allclose(logits, torch.tensor(means(pixels)))
    assert served.batches == [4, 4, 2]


@pytest.mark.parametrize("state", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(served: Served, tmp_path: Path, state: int) -> None:
    model = load_classifier(spec(served, tmp_path))
    served.troubles = [(state, "busy"), (state, "busy")]
    assert model.logits(torch.zeros(1, 3, 6, 8)).shape == (1, 3)
    assert served.troubles == []


def test_an_endpoint_that_stays_busy_is_given_up(served: Served, tmp_path: Path) -> None:
    model = load_classifier(spec(served, tmp_path))
    served.troubles = [(503, "busy")] * 4
    with pytest.raises(SilentModelError, match="status 503 busy after 3 tries"):
        model.logits(torch.zeros(1, 3, 6, 8))
    assert len(served.troubles) == 1


def test_a_slow_endpoint_times_out(served: Served, tmp_path: Path) -> None:
    model = load_classifier(spec(served, tmp_path, endpoint={"timeout_s": 0.2, "retries": 1}))
    served.delay_s = 0.6
    with pytest.raises(SilentModelError, match=r"no answer within 0\.2 s after 2 tries"):
        model.logits(torch.zeros(1, 3, 6, 8))


def test_nobody_there(tmp_path: Path) -> None:
    with serve(means) as gone:
        named = spec(gone, tmp_path)
    with pytest.raises(SilentModelError, match="refused"):
        load_classifier(named)


def test_a_refusal_is_not_repeated_and_tells_no_secret(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_TOKEN", "very-secret")
    headers = {"Authorization": "Bearer $ENDPOINT_TOKEN"}
    model = load_classifier(spec(served, tmp_path, endpoint={"headers": headers}))
    assert served.headers[0]["Authorization"] == "Bearer very-secret"
    served.troubles = [(401, "who are you?"), (500, "later")]
    with pytest.raises(ModelError, match="status 401 who are you") as caught:
        model.logits(torch.zeros(1, 3, 6, 8))
    assert len(served.troubles) == 1
    assert "very-secret" not in str(caught.value) + repr(model) + repr(Endpoint(headers=headers))


def test_secrets_and_pictures_follow_no_redirection(served: Served, tmp_path: Path) -> None:
    model = load_classifier(spec(served, tmp_path))
    with serve(means) as other:
        served.troubles = [(302, other.url)]
        with pytest.raises(ModelError, match="status 302"):
            model.logits(torch.zeros(1, 3, 6, 8))
        assert other.headers == []


def test_a_missing_secret_is_named(served: Served, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="NOT_SET_ANYWHERE"):
        load_classifier(spec(served, tmp_path, endpoint={"headers": {"A": "$NOT_SET_ANYWHERE"}}))


def test_a_secret_of_several_lines_is_not_shown(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDPOINT_TOKEN", "first\nsecond")
    with pytest.raises(SettingsError) as caught:
        load_classifier(spec(served, tmp_path, endpoint={"headers": {"A": "$ENDPOINT_TOKEN"}}))
    assert "second" not in str(caught.value)


def test_the_rate_is_kept(served: Served, tmp_path: Path) -> None:
    model = load_classifier(spec(served, tmp_path, endpoint={"per_second": 10, "batch": 1}))
    served.times.clear()
    model.logits(torch.zeros(4, 3, 6, 8))
    gaps = np.diff(served.times)
    assert len(gaps) == 3
    assert gaps.sum() >= 0.25


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda pictures: [[1.0, 2.0, 3.0]] * (len(pictures) + 1), "rows of scores"),
        (lambda pictures: "no", "rows of scores"),
        (lambda pictures: [["a", "b", "c"]] * len(pictures), "numbers"),
        (lambda pictures: [[float("nan")] * 3] * len(pictures), "finite"),
        (lambda pictures: [[1.0, 2.0]] * len(pictures), "class names"),
    ],
)
def test_answers_of_another_form(score: Any, message: str, tmp_path: Path) -> None:
    with serve(score) as endpoint, pytest.raises(ModelError, match=message):
        load_classifier(spec(endpoint, tmp_path))


def test_an_answer_that_is_no_json(served: Served, tmp_path: Path) -> None:
    served.troubles = [(200, "<html>")]
    with pytest.raises(ModelError, match="<html>"):
        load_classifier(spec(served, tmp_path))


def test_labels_alone(tmp_path: Path) -> None:
    with serve(lambda pictures: pictures.mean((1, 2)).argmax(1).tolist()) as endpoint:
        model = load_classifier(spec(endpoint, tmp_path, answers="labels"))
        assert model.labels_only
        pixels = np.zeros((2, 6, 8, 3), np.uint8)
        pixels[0, ..., 2] = pixels[1, ..., 1] = 200
        assert model.logits(normalized(pixels)).argmax(1).tolist() == [2, 1]


@pytest.mark.parametrize("setting", [{"batch": 0}, {"timeout_s": 0}, {"per_second": -1}])
def test_settings_out_of_range(served: Served, tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(setting))):
        load_classifier(spec(served, tmp_path, endpoint=setting))


def test_an_unknown_setting_suggests_the_nearest(served: Served, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="timeout_s"):
        load_classifier(spec(served, tmp_path, endpoint={"timeout": 3}))


@pytest.mark.parametrize("named", ["http://127.0.0.1:9/score", "http:score@remote.json"])
def test_how_an_endpoint_is_named(named: str) -> None:
    with pytest.raises(SettingsError, match=r"http://HOST/PATH@FILE\.json"):
        load_classifier(named)
