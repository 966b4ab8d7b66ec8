"""What the commands share: bars for terminals alone, JSON, and devices that exist."""

from __future__ import annotations

import io
import json
import sys

import pytest

from scotoma.cli.console import print_json, progress_bar, use_device
from scotoma.core.errors import SettingsError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_shows_rate_and_count_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with progress_bar("anonymizing") as bar:
        for done in range(1, 8):
            bar.update(done, 7, "ok")
    shown = screen.getvalue()
    assert "anonymizing" in shown
    assert "7/7" in shown
    assert "/s" in shown


def test_a_bar_is_silent_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress_bar("anonymizing") as bar:
        bar.update(3, 7, "ok")
    assert pipe.getvalue() == ""
    assert capsys.readouterr().out == ""


def test_json_is_printed_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"images": 3, "per_model": {"näme": 0.5}}
    print_json(value)
    assert json.loads(capsys.readouterr().out) == value


def test_a_device_must_work_here() -> None:
    assert use_device("cpu") == "cpu"
    for name in ("cudaa", "cuda:99", ""):
        with pytest.raises(SettingsError, match="such as cpu"):
            use_device(name)
