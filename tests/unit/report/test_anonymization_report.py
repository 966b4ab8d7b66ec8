"""The page: one safe, self-contained, honest file."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scotoma.core.errors import ImageError
from scotoma.report.anonymization import (
    Exhibit,
    Panel,
    headline,
    render_report,
    write_report,
)
from scotoma.report.markup import clean, element
from scotoma.report.names import short_names
from scotoma.report.thumbnails import make_thumbnail
from scotoma.run.manifest import Answer, Decision, Entry, ModelSummary, Summary

EVIL = "<script>alert(1)</script>\"'><img src=http://evil.example/x.png onerror=alert(2)>.jpg"
CAT, DOG = Answer(1, "cat", 0.9), Answer(2, "dog", 0.6)


def make_summary(**changes: object) -> Summary:
    summary = Summary(
        images=14,
        failed=1,
        with_regions=12,
        changed_naive=9,
        changed_after=0,
        per_model={
            "timm:resnet18@nets/a.safetensors": ModelSummary(12, 9, 0, 9, False),
            "checked": ModelSummary(12, 4, 3, 2, True),
        },
        seconds=7,
        seed=5,
        version="9.8.7",
    )
    return replace(summary, **changes)  # type: ignore[arg-type]


def make_entry(name: str = "a.jpg", status: str = "ok") -> Entry:
    decisions = (
        Decision("timm:resnet18@nets/a.safetensors", CAT, DOG, CAT, True),
        Decision("checked", CAT, DOG, DOG, False, checked_only=True),
    )
    error = "expected a whole file, got half" if status == "failed" else None
    return Entry(name, "a.png", status, ((0, 0, 8, 8),), decisions, 3, 0.5, "a", "b", error, "s")


def make_exhibit(entry: Entry) -> Exhibit:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    panels = []
    for caption, moment in (("Original", "before"), ("Fill", "naive"), ("Release", "after")):
        answers = [(d.model, getattr(d, moment)) for d in entry.decisions]
        panels.append(
            Panel(caption, pixels, tuple((m, a, a.label == CAT.label) for m, a in answers))
        )
    return Exhibit(entry, tuple(panels))


def render(
    summary: Summary | None = None,
    exhibits: tuple[Exhibit, ...] = (),
    *,
    title: str = "A run",
    contains_originals: bool = False,
    settings: dict[str, str] | None = None,
    failures: tuple[Entry, ...] = (),
) -> str:
    return render_report(
        summary or make_summary(),
        exhibits,
        title=title,
        contains_originals=contains_originals,
        settings={"fill": "solid", "regions": "faces"} if settings is None else settings,
        failures=failures,
    )


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def test_the_headline_says_the_result_in_plain_words() -> None:
    assert headline(make_summary(failed=0), {"fill": "solid"}) == (
        "12 of 12 pictures: the classifier decides as before. A solid fill alone changes 9 (75 %)."
    )


def test_the_headline_hides_neither_losses_nor_failures() -> None:
    text = headline(make_summary(changed_after=2, failed=1), {"fill": "inpaint"})
    assert text.startswith("10 of 12 pictures:")
    assert "An inpaint fill alone" in text
    assert text.endswith("1 picture failed.")


def test_the_headline_claims_nothing_that_was_not_asked() -> None:
    nothing = make_summary(images=3, with_regions=0, changed_naive=0, failed=0, per_model={})
    assert headline(nothing, {}) == "3 pictures, none of them anonymized."
    checked = {"checked": ModelSummary(12, 4, 3, 2, True)}
    text = headline(make_summary(per_model=checked, failed=0), {"fill": "noise"})
    assert text == "12 pictures covered with a noise fill; no classifier took part."


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = render(exhibits=(make_exhibit(make_entry()),), contains_originals=True)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "a"})
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        if "src" in attributes:
            assert tag == "img"
            assert (attributes["src"] or "").startswith(("data:image/jpeg", "data:image/png"))
    assert "url(" not in text
    assert "@import" not in text
    assert "http:" not in text
    assert "https:" not in text
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    assert len(policies) == 1
    assert (policies[0] or "").startswith("default-src 'none'")


def test_names_that_hold_markup_are_text_everywhere() -> None:
    entry = make_entry(EVIL)
    evil = Answer(1, EVIL, 0.5)
    exhibit = make_exhibit(entry)
    panel = Panel(EVIL, exhibit.panels[0].pixels, ((EVIL, evil, True),))
    page = Page(
        render(
            make_summary(per_model={EVIL: ModelSummary(12, 9, 0, 9, False)}, version=EVIL),
            (Exhibit(entry, (panel, panel)),),
            title=EVIL,
            settings={EVIL: EVIL, "fill": EVIL},
            failures=(replace(make_entry(EVIL, "failed"), error=EVIL),),
        )
    )
    assert {tag for tag, _ in page.tags}.isdisjoint({"script"})
    assert len(page.all("img")) == 2
    assert all(set(image) == {"src", "width", "height", "alt"} for image in page.all("img"))
    assert page.text.count("<script>alert(1)</script>") >= 8


def test_characters_that_deceive_or_cannot_be_written_are_shown_as_escapes(tmp_path: Path) -> None:
    name = "a\u202egpj.exe\udcff\x07\n.jpg"
    assert clean(name) == "a\\u202egpj.exe\\udcff\\x07 .jpg"
    path = tmp_path / "report.html"
    write_report(
        path,
        make_summary(),
        [make_exhibit(make_entry(name))],
        title=name,
        contains_originals=False,
        settings={},
        failures=[],
    )
    assert "\\u202egpj" in path.read_text("utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_attribute_values_cannot_leave_their_quotes() -> None:
    assert element("p", title='" onclick="x') == '<p title="&quot; onclick=&quot;x"></p>'


@pytest.mark.parametrize("contains_originals", [True, False])
def test_a_page_with_originals_warns_and_one_without_says_so(contains_originals: bool) -> None:
    text = Page(
        render(exhibits=(make_exhibit(make_entry()),), contains_originals=contains_originals)
    ).text
    assert ("Contains original pictures: do not publish" in text) is contains_originals
    assert ("hatched over" in text) is not contains_originals


def test_every_model_shows_both_denominators_with_intervals() -> None:
    page = Page(render())
    text = page.text
    assert "checked only" in text
    assert "100 % 12 of 12 75.8–100.0 %" in text  # searched: all pictures
    assert "100 % 9 of 9 70.1–100.0 %" in text  # searched: flipped only
    assert "75 % 9 of 12 46.8–91.1 %" in text  # checked: all pictures
    assert "50 % 2 of 4 15.0–85.0 %" in text  # checked: flipped only
    labels = [cell["data-label"] for cell in page.all("td") if "data-label" in cell]
    assert len(labels) == 2 * 4
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))


def test_marks_tell_agreement_without_colour_and_spare_the_reference() -> None:
    page = Page(render(exhibits=(make_exhibit(make_entry()),)))
    shown = page.text[page.text.index("a.jpg") :]
    assert shown.count("✓ agrees:") == 1  # the release, by the searched model
    assert shown.count("✗ differs:") == 3  # both on the fill, and the checked one on the release
    assert [image["alt"] for image in page.all("img")] == [
        "Original: a.jpg",
        "Fill: a.jpg",
        "Release: a.jpg",
    ]


def test_failures_are_listed_and_a_long_list_says_how_many_more() -> None:
    assert "No picture failed." in Page(render(make_summary(failed=0))).text
    few = Page(render(failures=(make_entry("bad.jpg", "failed"),))).text
    assert "bad.jpg expected a whole file, got half" in few
    assert "more, in manifest.jsonl" not in few
    many = tuple(make_entry(f"bad{i}.jpg", "failed") for i in range(250))
    text = Page(render(make_summary(failed=300), failures=many)).text
    assert "bad199.jpg" in text
    assert "bad200.jpg" not in text
    assert "And 100 more, in manifest.jsonl." in text
    assert "No picture failed" not in Page(render(make_summary(failed=2))).text


def test_an_empty_run_makes_a_page() -> None:
    empty = Summary(0, 0, 0, 0, 0, {}, 0.0, 0, "1")
    text = Page(render(empty, settings={})).text
    assert "0 pictures, none of them anonymized." in text
    assert "nan" not in text


def test_settings_seed_version_and_limits_are_there() -> None:
    text = Page(render()).text
    assert "fill solid regions faces seed 5 version 9.8.7" in text
    assert "What this does not protect against" in text


@pytest.mark.parametrize(("losses", "failed", "mark"), [(0, 0, "✓"), (1, 0, "✗"), (0, 1, "✗")])
def test_the_verdict_is_a_mark_too(losses: int, failed: int, mark: str) -> None:
    text = render(make_summary(changed_after=losses, failed=failed))
    found = re.search(r'class="headline"><span [^>]*>(.)</span>', text)
    assert found is not None
    assert found[1] == mark


def test_same_records_same_bytes() -> None:
    exhibits = (make_exhibit(make_entry()),)
    assert render(exhibits=exhibits) == render(exhibits=exhibits)


def decode(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


@pytest.mark.parametrize("shape", [(1000, 2000), (2000, 10), (480, 481)])
def test_thumbnails_are_never_larger_than_480_pixels(shape: tuple[int, int]) -> None:
    thumbnail = make_thumbnail(np.zeros((*shape, 3), np.uint8))
    with decode(thumbnail.address) as image:
        assert image.size == (thumbnail.width, thumbnail.height)
        assert max(image.size) == 480


def test_a_small_picture_is_shown_exactly_as_it_is() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    thumbnail = make_thumbnail(pixels)
    assert thumbnail.address.startswith("data:image/png")
    with decode(thumbnail.address) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"expected a picture as \(H, W, 3\) uint8"):
        make_thumbnail(pixels)


def test_short_names_lose_folders_unless_two_would_be_alike() -> None:
    assert short_names(["timm:a@x/y.pth", "onnx:x/b.onnx", "embedded"]) == {
        "timm:a@x/y.pth": "timm:a",
        "onnx:x/b.onnx": "b.onnx",
        "embedded": "embedded",
    }
    twins = ["timm:a@x.pth", "timm:a@y.pth"]
    assert short_names(twins) == {name: name for name in twins}
