"""The page of an evaluation: safe, self-contained, and the same figures as the records."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.commands import scotoma
from support.evaluations import (
    BRIGHTNESS,
    attack_record,
    figure,
    utility_record,
    write_evaluation,
)

from scotoma.core.errors import FileError, SettingsError
from scotoma.evaluate.records import Choice, Figure, Paper, Record
from scotoma.report.evaluation import render_evaluation, report_evaluation
from scotoma.report.measures import show_interval, show_value
from scotoma.report.plane import draw_plane
from scotoma.report.standings import choose_metrics, find_standings

EVIL = "<script>alert(1)</script>\"'><img src=http://evil.example/x.png onerror=alert(2)>"
NOWHERE = Path("no-such-folder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("evaluation")
    write_evaluation(place, originals=False)
    report_evaluation(place)
    return place


def render(*records: Record, **options: object) -> str:
    return render_evaluation(records, NOWHERE, title="T", **options)  # type: ignore[arg-type]


class Checker(HTMLParser):
    """Collects tags, and that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker


def test_the_page_is_one_whole_file_that_loads_nothing(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    found = checked(page)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in found.seen)
    addresses = [value for _, attrs in found.seen for key, value in attrs.items() if key == "src"]
    assert addresses
    assert all(str(address).startswith("data:image/") for address in addresses)
    assert not re.search(r"url\(|@import|https?://", page)
    assert not any(key.startswith("on") for _, attrs in found.seen for key in attrs)
    ids = [attrs["id"] for _, attrs in found.seen if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_every_measurement_is_in_the_page(folder: Path) -> None:
    from scotoma.evaluate.records import read_records

    page = (folder / "report.html").read_text("utf-8")
    rows = page.count('<tr role="row"><th scope="row"')
    records = read_records(folder)
    done = sum(record.status == "ok" for record in records)
    assert rows >= done
    for record in records:
        if record.status == "ok" and record.kind == "attack":
            assert show_value(BRIGHTNESS, record.metrics[BRIGHTNESS]) in page
    assert "expected a release of whole patches, got none" in page
    assert "RuntimeError: no memory" in page
    assert "this project&#x27;s notes, Sec. 6" in page


def test_names_with_markup_stay_text() -> None:
    record = attack_record(
        EVIL,
        EVIL,
        data=EVIL,
        threat_model=EVIL,
        model=EVIL,
        notes=(EVIL,),
        paper={BRIGHTNESS: Paper(0.5, EVIL)},
    )
    record = replace(record, protection=Choice("x", {EVIL: EVIL}, EVIL))
    failed = attack_record(EVIL, data=EVIL, model=EVIL, status="failed", reason=EVIL)
    page = render(record, failed, utility_record(EVIL, data=EVIL, model=EVIL))
    tags = {tag for tag, _ in checked(page).seen}
    assert "script" not in tags
    assert "img" not in tags


@pytest.mark.parametrize("originals", [False, True])
def test_originals_are_shown_only_where_they_were_written(tmp_path: Path, originals: bool) -> None:
    write_evaluation(tmp_path, originals=originals)
    page = report_evaluation(tmp_path).read_text("utf-8")
    assert ("do not publish" in page) == originals
    assert ("Original</b>" in page) == originals
    assert ("Originals are not part of this report." in page) == (not originals)
    assert 'alt="Release"' in page


def test_fingerprints_are_no_paths(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "out", originals=True)
    picture = next((tmp_path / "out" / "pictures").iterdir())
    shutil.copytree(picture, tmp_path / "elsewhere")
    record = attack_record(fingerprint="../../elsewhere")
    page = render_evaluation([record], tmp_path / "out", title="T")
    assert "<img" not in page


def test_the_plane_shows_the_strongest_of_each_kind() -> None:
    records = [
        utility_record("a", 0.8),
        attack_record("a", "weak", 0.3),
        attack_record("a", "strong", 0.6),
        attack_record("a", "key", 0.9, threat_model="known-plaintext:1"),
        attack_record("b", "pca", 0.7),
        attack_record("b", "key", 0.4, threat_model="server-public"),
        attack_record("c", "unknown", math.nan),
    ]
    first, second = find_standings(records, BRIGHTNESS)
    assert (first.protection, second.protection) == ("b", "a")
    assert second.alone is not None
    assert second.informed is not None
    assert (second.alone.attack, second.informed.attack) == (Choice("strong"), Choice("key"))
    assert second.kept == figure(0.8, reach=0.0)
    # Knowing more was no use: nothing is drawn for it.
    assert first.informed is None
    assert first.kept is None


def test_lower_is_more_revealing_for_distances() -> None:
    records = [
        attack_record("a", "near", 0.1, metric="lpips"),
        attack_record("a", "far", 0.7, metric="lpips"),
    ]
    (standing,) = find_standings(records, "lpips")
    assert standing.alone is not None
    assert standing.alone.attack == Choice("near")
    page = draw_plane([standing], "lpips", "p")
    assert heights_of(page)[0] < 380 / 2


def heights_of(plane: str) -> list[float]:
    root = ElementTree.fromstring(plane)
    marks = [group for group in root.iter("g") if group.get("class") == "alone"]
    return [float(circle.attrib["cy"]) for group in marks for circle in group.iter("circle")]


def test_places_in_the_plane_follow_the_figures() -> None:
    records = []
    for name, value, kept in (("a", 0.9, 0.6), ("b", 0.5, 0.8), ("c", 0.1, 1.0)):
        records += [attack_record(name, "x", value), utility_record(name, kept)]
    plane = draw_plane(find_standings(records, BRIGHTNESS), BRIGHTNESS, "p")
    root = ElementTree.fromstring(plane)
    found = {}
    for group in root.iter("g"):
        circle, number = group.find("circle"), group.find("text")
        assert circle is not None
        assert number is not None
        found[number.text] = (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
    (ax, ay), (bx, by), (cx, cy) = found["1"], found["2"], found["3"]
    assert cx - bx == pytest.approx(bx - ax, abs=0.3)
    assert cy - by == pytest.approx(by - ay, abs=0.3)
    assert ax < bx
    assert ay < by
    words = [title.text or "" for title in root.iter("title")]
    assert any("a: block brightness 0.90 (0.88–0.92) by x, many-releases" in text for text in words)


def test_marks_do_not_cover_each_other() -> None:
    records = []
    for number in range(9):
        records += [
            attack_record(f"p{number}", "x", 0.97 + 0.001 * number),
            utility_record(f"p{number}", 1.0),
        ]
    root = ElementTree.fromstring(draw_plane(find_standings(records, BRIGHTNESS), BRIGHTNESS, "p"))
    places = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter("circle")]
    assert len(places) == 9
    gaps = [math.dist(a, b) for i, a in enumerate(places) for b in places[:i]]
    assert min(gaps) >= 19
    assert all(0 <= x <= 480 and 0 <= y <= 380 for x, y in places)


def test_figures_beyond_the_axis_still_make_a_page() -> None:
    page = render(
        attack_record("a", "x", math.inf, metric="psnr_db"),
        attack_record("b", "x", 41.0, metric="psnr_db"),
        attack_record("c", "x", math.nan, metric="psnr_db"),
    )
    assert "∞" in page
    assert '="nan"' not in page
    checked(page)


def test_metrics_are_chosen_and_checked() -> None:
    records = [attack_record("a", metric="ssim"), attack_record("b", metric="reid_rank1")]
    assert choose_metrics(records) == ["reid_rank1"]
    assert choose_metrics(records, ["ssim"]) == ["ssim"]
    assert choose_metrics([utility_record()]) == []
    with pytest.raises(SettingsError, match="out of ssim, reid_rank1, got 'psnr'"):
        choose_metrics(records, ["psnr"])


def test_an_evaluation_of_utility_alone_has_a_page() -> None:
    page = render(utility_record("a", 0.5))
    assert "1 protection against 0 attacks." in page
    checked(page)


def test_figures_never_flatter() -> None:
    assert show_value("agreement", Figure(9999 / 10_000, 0.99, 1, 10_000)) == ">99.9 %"
    assert show_value("reid_rank1", Figure(1 / 5000, 0, 0.1, 5000)) == "<0.1 %"
    assert show_value("ssim", Figure(-0.25, -0.3, -0.2, 9)) == "−0.25"
    assert show_value("logit_error", Figure(3.2e-7, 0, 0, 9)) == "3.2e-07"
    assert show_value("psnr_db", Figure(21.347, 20, 22, 9, "dB")) == "21.3 dB"
    assert show_interval("psnr_db", Figure(math.inf, math.nan, math.nan, 9, "dB")) == ""
    assert show_interval("ssim", Figure(0, -0.1, 0.1, 9)) == "−0.10 to 0.10"
    assert show_interval("top1", Figure(0.5, 0.25, 0.75, 9)) == "25.0–75.0 %"


def test_the_command_writes_the_page_and_says_what_it_expects(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "report.html").unlink()
    done = scotoma("report", "out", "--metric", "ssim", "--title", "Ours", cwd=tmp_path)
    assert done.code == 0, done
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "<h1>Ours</h1>" in page
    assert "SSIM under the strongest attack" in page
    (tmp_path / "empty").mkdir()
    refused = scotoma("report", "empty", cwd=tmp_path)
    assert refused.code == 1
    assert "expected records.jsonl" in refused.err
    with pytest.raises(FileError, match=r"expected records\.jsonl"):
        report_evaluation(tmp_path / "empty")
