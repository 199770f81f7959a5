from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import save
from reconpatch.errors import OutputError, PhotoError
from reconpatch.method.calibration import promise
from reconpatch.report import report
from reconpatch.report.plots import Bins
from reconpatch.report.report import (
    ReportContext,
    ReportWriter,
    context_of,
    headline,
    multiple,
    safe_name,
    unique_name,
)
from reconpatch.result import ClosestPatch, Region, Result, SimilarKind

THRESHOLD = 2.0


def context(**changes) -> ReportContext:
    values = {
        "title": "Covers",
        "model_name": "cover.rcp",
        "threshold": THRESHOLD,
        "map_threshold": 1.5,
        "promise": "About 1 in 100 is flagged by mistake.",
        "calibration_scores": np.linspace(0.5, 1.9, 200),
        "facts": {"backbone": "tf_efficientnet_lite0"},
        "notes": [],
    }
    return ReportContext(**(values | changes))


def thumbnail(size=(40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (60, 90, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


def verdict(name: str, score: float, shape=(60, 80), with_thumbnail=True) -> Result:
    anomalous = score > THRESHOLD
    return Result(
        name=name,
        score=score,
        threshold=THRESHOLD,
        anomalous=anomalous,
        p_value=1 / 201 if anomalous else 0.5,
        heatmap=np.full(shape, 0.5, dtype=np.float32),
        map_threshold=1.5,
        regions=(Region((10, 10, 30, 25), 200, (20, 20), 3.0),) if anomalous else (),
        closest=ClosestPatch(
            photo="good/<b>7</b>.png",
            box=(16, 16, 24, 24),
            patch_box=(16, 16, 24, 24),
            distance=score,
            thumbnail=thumbnail() if with_thumbnail else None,
            thumbnail_box=(8, 8, 12, 12) if with_thumbnail else None,
        ),
        inspected=(0, 0, shape[1], shape[0]),
    )


def photo(shape=(60, 80)) -> np.ndarray:
    return np.full((*shape, 3), 120, dtype=np.uint8)


class Page(HTMLParser):
    """Tags, texts and attributes of a page; fails on tags that are not closed in order."""

    VOID = frozenset({"meta", "img", "input", "br", "line"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.text.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def pictures(self) -> list[dict[str, str | None]]:
        return [image for image in self.attributes("img") if "src" in image]


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def write(folder: Path, scores=(3.0, 1.0), labels=None, **changes) -> Page:
    writer = ReportWriter(folder, context(**changes))
    for i, score in enumerate(scores):
        writer.add(photo(), verdict(f"parts/{i:03}.png", score), labels[i] if labels else None)
    return page_of(writer.close())


# --- the page ---


def test_the_page_is_one_file_that_asks_no_host(tmp_path):
    page = write(tmp_path, labels=["scratch", "good"])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""https?://|(?:src|href)=["']?//|@import|url\(""", html)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.pictures)
    assert not page.attributes("link")
    assert all("src" not in script for script in page.attributes("script"))


def test_the_top_line_says_how_many(tmp_path):
    page = write(tmp_path, scores=(3.0, 1.0, 1.5))
    assert "1 of 3 photos is anomalous" in page.words
    assert "About 1 in 100 is flagged by mistake." in page.words
    assert "threshold of 2 ." in page.words


def test_what_the_page_says_about_a_fitted_model(tmp_path, small_model):
    about = context_of(small_model, "Parts", "part.rcp")
    calibration = small_model.calibration
    assert (about.title, about.model_name) == ("Parts", "part.rcp")
    assert about.threshold == small_model.threshold
    assert about.map_threshold == calibration.map_threshold.value
    assert about.promise == promise(1 / 9, calibration.image_threshold.rate_range(), 8)
    np.testing.assert_array_equal(about.calibration_scores, calibration.scores)
    assert about.facts["good photos"] == "8"
    assert about.facts["input"] == "64 x 64 pixels"
    assert about.facts["memory bank"] == f"{len(small_model.bank)} rows of 16 numbers"
    assert small_model.fingerprint.startswith(about.facts["fingerprint"])
    assert about.notes == [*calibration.notes, *small_model.provenance["notes"]]
    assert len(calibration.notes) == 1, "8 photos are too few for the rate"

    page = page_of(ReportWriter(tmp_path, about).close())
    for words in (about.promise, *about.notes, *about.facts, *about.facts.values()):
        assert page.words.count(words) >= 1
    assert page.words.count(calibration.notes[0]) == 1
    # A score is the mean over several patches by default, and combined in an ensemble.
    assert "how far the most unusual patches of the photo are" in page.words


def test_a_threshold_set_by_hand_is_noted_on_the_page(small_model):
    about = context_of(small_model.with_threshold(0.0), "Parts", "part.rcp")
    assert about.threshold == 0.0
    assert about.promise == promise(1.0, (1.0, 1.0), 8)
    assert "The threshold was set by hand." in about.notes


def test_the_kind_of_a_defect_stands_beside_it_and_is_escaped(tmp_path):
    without = write(tmp_path / "without")
    assert "kind of defect" not in without.words
    writer = ReportWriter(tmp_path / "with", context())
    for name, kind in (("a.png", SimilarKind("<b>", 0.5, True)), ("b.png", None)):
        writer.add(photo(), replace(verdict(name, 3.0), kind=kind))
    writer.add(photo(), replace(verdict("c.png", 3.0), kind=SimilarKind("dent", 0.25, False)))
    words = page_of(writer.close()).words
    assert words.count("<b> (similarity 0.50)") == 2  # with its picture and in the table
    assert words.count("none of these (most similar: dent, 0.25)") == 2
    assert "kind of defect" in words


def test_names_labels_notes_and_messages_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    name = f"x/{evil}'\"&.png"
    writer = ReportWriter(
        tmp_path, context(title=evil, model_name=evil, facts={evil: evil}, notes=[evil])
    )
    writer.add(photo(), verdict(name, 3.0), evil)
    writer.add(photo(), verdict(name, 1.0), evil)
    writer.add_error(evil, evil)
    page = page_of(writer.close())
    assert len(page.attributes("script")) == 1
    assert "good/<b>7</b>.png" in page.words
    assert page.words.count(name) == 4, "card, tile and twice in the table"
    assert [i["data-name"] for i in page.pictures] == [name] * 6


def test_an_anomalous_photo_is_shown_with_its_closest_good_patch(tmp_path):
    page = write(tmp_path, scores=(4.6,))
    assert [image["data-what"] for image in page.pictures] == [
        "heat map",
        "photo",
        "worst place",
        "closest good patch",
    ]
    assert "2.3 × threshold" in page.words
    assert "score 4.6" in page.words
    assert "p-value 0.00498" in page.words
    assert "closest good patch: photo good/<b>7</b>.png" in page.words
    assert "x 10–30, y 10–25" in page.words


def test_without_thumbnails_the_page_names_the_closest_photo(tmp_path):
    writer = ReportWriter(tmp_path, context())
    writer.add(photo(), verdict("a.png", 3.0, with_thumbnail=False))
    page = page_of(writer.close())
    assert len(page.pictures) == 3
    assert "holds no thumbnails" in page.words
    assert "closest good patch: photo good/<b>7</b>.png" in page.words


def test_verdicts_are_in_words(tmp_path):
    words = write(tmp_path, scores=(3.0, 1.0)).words
    assert words.count("▲ anomalous") == 2
    assert words.count("✓ good") == 2


def test_photos_are_sorted_by_score(tmp_path):
    page = write(tmp_path, scores=(1.0, 5.0, 1.5, 3.0))
    rows = [a["data-name"] for a in page.attributes("tr") if "data-name" in a]
    cards = [a["data-name"] for a in page.attributes("article")]
    assert rows == cards == [f"parts/{i:03}.png" for i in (1, 3, 2, 0)]


def test_links_lead_to_the_overlays(tmp_path):
    writer = ReportWriter(tmp_path, context())
    writer.add(photo(), verdict("parts/50% #1.png", 3.0))
    page = page_of(writer.close())
    links = {a["href"] for a in page.attributes("a")} - {None, "#"}
    overlay_links = {link for link in links if link.startswith("overlays/")}
    assert overlay_links == {"overlays/parts/50%25%20%231.png"}
    assert (tmp_path / "overlays" / "parts" / "50% #1.png").is_file()


def test_unreadable_photos_are_listed(tmp_path):
    writer = ReportWriter(tmp_path, context())
    writer.add_error("broken.jpg", "the file ends too early.")
    words = page_of(writer.close()).words
    assert "No photo was inspected" in words
    assert "1 photo could not be inspected" in words
    assert "broken.jpg : the file ends too early." in words


def test_notes_are_shown(tmp_path):
    assert "1/32" in write(tmp_path, notes=["With 31 photos it is 1/32"]).words


def test_labels_are_counted(tmp_path):
    scores, labels = (3.0, 1.0, 1.2, 2.5), ["scratch", "scratch", "good", "good"]
    words = write(tmp_path, scores=scores, labels=labels).words
    assert "label photos flagged good 2 1 (50 %) scratch 2 1 (50 %)" in words


def test_without_labels_there_is_no_table_of_labels(tmp_path):
    assert "By label" not in write(tmp_path).words


def test_a_name_that_is_not_unicode_does_not_cost_the_page(tmp_path):
    writer = ReportWriter(tmp_path, context())
    writer.add(photo(), verdict("caf\udce9.png", 3.0))
    assert r"caf\udce9.png" in page_of(writer.close()).words


# --- pictures ---


def test_pictures_are_small(tmp_path):
    writer = ReportWriter(tmp_path, context())
    writer.add(photo((900, 300)), verdict("a.png", 3.0, (900, 300)))
    for image in page_of(writer.close()).pictures:
        data = base64.b64decode(image["src"].partition(",")[2])
        assert max(Image.open(io.BytesIO(data)).size) <= 480


def test_overlays_have_the_size_of_the_photo(tmp_path):
    writer = ReportWriter(tmp_path, context())
    writer.add(photo((90, 300)), verdict("a.jpg", 1.0, (90, 300)))
    with Image.open(tmp_path / "overlays" / "a.png") as image:
        assert image.size == (300, 90)
        assert image.getpixel((0, 0)) == (120, 120, 120)


def test_crops_show_the_same_place_at_the_same_magnification():
    # The photo and the thumbnail hold the same picture: white left of x = 1/4, black beyond.
    pixels = np.zeros((400, 400, 3), dtype=np.uint8)
    pixels[:, :100] = 255
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.resize((200, 200)).save(buffer, "JPEG", quality=95)
    base = verdict("a.png", 3.0, (400, 400))
    result = Result(
        **(
            vars(base)
            | {
                "regions": (),
                "closest": ClosestPatch(
                    "g.png",
                    (92, 192, 108, 208),
                    (92, 192, 108, 208),
                    3.0,
                    buffer.getvalue(),
                    (46, 96, 54, 104),
                ),
            }
        )
    )
    worst, closest = report._comparison(image, result)
    # A window of 400 / 4 = 100 pixels around the patch, whose centre is the edge at x = 100.
    assert worst.size == closest.size == (320, 320)
    for crop in (worst, closest):
        row = np.asarray(crop)[40, :, 0]
        assert row[:150].min() > 230
        assert row[170:].max() < 25


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-5, 2, 5, 12), (0, 2, 10, 12)),
        ((95, 45, 105, 55), (90, 40, 100, 50)),
        ((-10, 0, 200, 70), (0, 0, 100, 50)),
        ((100, 50, 100, 50), (99, 49, 100, 50)),
    ],
)
def test_windows_are_shifted_inside(box, expected):
    assert report._shift_inside(box, (100, 50)) == expected


def test_only_the_highest_scores_keep_their_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PICTURES_SHOWN", 3)
    writer = ReportWriter(tmp_path, context())
    scores = [2.5, 1.0, 3.0, 1.0, 2.2, 9.0, 2.2, 0.5]
    for i, score in enumerate(scores):
        writer.add(photo(), verdict(f"{i}.png", score))
        kept = sorted(writer._pictures)
        by_score = sorted(range(i + 1), key=lambda n: (-scores[n], n))
        assert kept == sorted(by_score[:3])
        assert len(writer._lowest_shown) == len(kept)
    page = page_of(writer.close())
    assert {image["data-name"] for image in page.pictures} == {"5.png", "2.png", "0.png"}
    assert "Pictures of the 3 highest scores are shown; all 8 photos are in the table" in page.words
    assert sum("data-name" in row for row in page.attributes("tr")) == 8
    assert len(list((tmp_path / "overlays").iterdir())) == 8


def test_photo_and_map_that_do_not_fit_leave_no_trace(tmp_path):
    writer = ReportWriter(tmp_path, context())
    with pytest.raises(PhotoError):
        writer.add(photo((10, 10)), verdict("a.png", 3.0))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert "No photo was inspected" in page_of(writer.close()).words


# --- files ---


def test_nothing_is_written_before_close(tmp_path):
    writer = ReportWriter(tmp_path / "out", context())
    writer.add(photo(), verdict("a.png", 3.0))
    assert not list((tmp_path / "out").glob("*.html*"))


def test_a_failure_while_rendering_leaves_the_old_page(tmp_path, monkeypatch):
    write(tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def fails_halfway(*_):
        yield b"<!doctype html>"
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_render", fails_halfway)
    with pytest.raises(KeyboardInterrupt):
        ReportWriter(tmp_path, context()).close()
    assert (tmp_path / "report.html").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"overlays", "report.html", report.SUMS}


def overlays_in(folder):
    return {p.relative_to(folder).as_posix() for p in (folder / "overlays").rglob("*.png")}


def write_of(folder, *names, close=True):
    writer = ReportWriter(folder, context())
    for name in names:
        writer.add(photo(), verdict(name, 3.0))
    if close:
        writer.close()


def test_overlays_of_the_report_before_go_and_files_of_others_stay(tmp_path):
    write_of(tmp_path, "a.png", "lot 1/b.png", "lot 2/c.png", "d.png")
    mine = save(photo(), tmp_path / "overlays" / "mine.png")
    noted = tmp_path / "overlays" / "d.png"
    noted.write_bytes(noted.read_bytes() + b"with a note of mine")
    before = {path: path.read_bytes() for path in (mine, noted)}
    write_of(tmp_path, "b.png", "lot 1/b.png", "mine.png", "d.png", close=False)  # killed
    write_of(tmp_path, "a.png", "mine.png", "d.png")
    assert overlays_in(tmp_path) == {
        f"overlays/{name}" for name in ("a.png", "mine.png", "mine-2.png", "d.png", "d-2.png")
    }
    assert {path: path.read_bytes() for path in before} == before
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "overlays/mine-2.png" in page
    assert "overlays/mine.png" not in page


def test_a_list_that_leads_elsewhere_removes_nothing(tmp_path):
    folder = tmp_path / "out"
    write_of(folder, "a.png")
    kept = save(photo(), tmp_path / "kept.png")
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    with (folder / report.SUMS).open("a") as file:
        for name in ("../kept.png", str(kept), "overlays/../../kept.png", "report.html"):
            file.write(f"{digest}  {name}\n")
    write_of(folder, "b.png")
    assert kept.exists()
    assert overlays_in(folder) == {"overlays/b.png"}


@pytest.mark.parametrize("name", ["report.html", report.SUMS])
def test_a_page_is_not_put_in_the_place_of_a_link(tmp_path, name):
    (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(OutputError, match="is a link and is left as it is"):
        ReportWriter(tmp_path, context())


def test_a_full_disk_is_one_clear_sentence(tmp_path, monkeypatch):
    writer = ReportWriter(tmp_path, context())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"report\.html could not be written: the disk is full"):
        writer.close()
    with pytest.raises(OutputError, match=r"a\.png could not be written"):
        writer.add(photo(), verdict("a.png", 3.0))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_file_in_the_way_is_refused_at_once(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out could not be written"):
        ReportWriter(tmp_path / "out", context())
    assert (tmp_path / "out").read_text() == "mine"


def test_photos_of_the_same_name_do_not_overwrite_each_other(tmp_path):
    writer = ReportWriter(tmp_path, context())
    names = ["a/1.png", "b/1.png", "x/a/1.png", "a/1.jpg", "A/1.PNG", "1.png", "1.png/1.png"]
    for name in names:
        writer.add(photo(), verdict(name, 3.0))
    written = [p for p in (tmp_path / "overlays").rglob("*.png") if p.is_file()]
    assert len(written) == len(names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a.png"),
        ("scratch/003.jpg", "scratch/003.png"),
        ("/data/photos/scratch/003.jpg", "scratch/003.png"),
        (r"C:\data\scratch\003.bmp", "scratch/003.png"),
        ("C:003.bmp", "C_003.png"),
        ("../../etc/passwd", "etc/passwd.png"),
        ("../x.png", "x.png"),
        ("..", "photo.png"),
        ("", "photo.png"),
        ("<array>", "_array_.png"),
        ('what? "a|b*".png', "what_ _a_b__.png"),
        ("con.png", "_con.png"),
        ("AUX/lpt1.tar.png", "_AUX/_lpt1.tar.png"),
        ("trailing. /dot. .png", "trailing_/dot.png"),
        ("2024.05.01/a.b.png", "2024_05_01/a.b.png"),
        (".hidden", "hidden.png"),
        ("caf\udce9\n.png", "caf__.png"),
        ("x" * 300 + "_042.png", "x" * 46 + "_042.png"),
    ],
)
def test_names_made_safe(name, expected):
    assert safe_name(name) == expected


def test_unique_names():
    taken: set[str] = set()
    names = ["a.png", "A.png", "a-2.png", "a.png"]
    assert [unique_name(name, taken) for name in names] == [
        "a.png",
        "A-2.png",
        "a-2-2.png",
        "a-3.png",
    ]


# --- histogram ---


def entries_of(folder: Path, scores, labels=None):
    writer = ReportWriter(folder, context())
    for i, score in enumerate(scores):
        writer.add(photo(), verdict(f"{i}.png", score), labels[i] if labels else None)
    return writer._entries


def test_no_bin_straddles_the_threshold():
    scores = np.array([0.3, 1.9, 2.0, np.nextafter(2.0, 3.0), 2.1, 5.0])
    bins = Bins.over(scores, 2.0, 40, 0, 1)
    assert (bins.of(scores) >= 0).tolist() == [False, False, False, True, True, True]


def test_bins_hold_what_a_slow_count_finds():
    scores = np.random.default_rng(0).gamma(9.0, 0.2, 300)
    bins = Bins.over(scores, 2.0, 40, 0, 1)
    counts = np.bincount(bins.of(scores) - bins.first)
    for i, count in enumerate(counts, start=bins.first):
        assert count == sum(bins.edge(i) < score <= bins.edge(i + 1) for score in scores)
    assert counts.sum() == 300


def test_a_wild_score_goes_into_the_last_bar(tmp_path):
    histogram = report._histogram(context(), entries_of(tmp_path, [1.0, 500.0]))
    # The axis ends at 4 x threshold = 8, and the last bar is a 40th of 0.5 to 8 wide.
    assert histogram.cut_at == pytest.approx(8.0 - 7.5 / 40, abs=7.5 / 40)
    assert max(bar.x + bar.width for bar in histogram.panels[1].bars) <= histogram.right


def test_bars_add_up_and_stay_inside(tmp_path):
    scores = [1.0, 1.0, 1.0, 3.0]
    histogram = report._histogram(context(), entries_of(tmp_path, scores))
    lower = histogram.panels[1]
    heights = sorted(bar.height for bar in lower.bars)
    assert lower.highest == 3
    assert heights == pytest.approx([heights[1] / 3, heights[1]])
    for panel in histogram.panels:
        for bar in panel.bars:
            assert panel.top - 1e-9 <= bar.y
            assert bar.y + bar.height <= panel.base + 1e-9
            assert histogram.left <= bar.x < histogram.right
    good, anomalous = (next(b for b in lower.bars if b.series == s) for s in ("good", "anomalous"))
    assert good.x + good.width <= histogram.threshold_x <= anomalous.x


def test_labels_colour_the_bars_and_the_rest_is_other(tmp_path):
    labels = [f"l{i}" for i in range(8)] + ["good"]
    entries = entries_of(tmp_path, [1.0 + i / 10 for i in range(9)], labels)
    legend = dict(report._histogram(context(), entries).legend)
    assert legend["label-0"] == "good"
    assert legend["label-1"] == "l0"
    assert legend["label-other"] == "other labels"
    bars = report._histogram(context(), entries).panels[1].bars
    assert {bar.series for bar in bars} == set(legend) - {"calibration"}


@pytest.mark.parametrize(
    ("scores", "threshold"), [([], 2.0), ([2.0, 2.0], 2.0), ([0.0], 0.0), ([1e-9], 1e-9)]
)
def test_degenerate_scores_still_make_a_histogram(scores, threshold):
    changed = context(threshold=threshold, calibration_scores=np.array(scores))
    histogram = report._histogram(changed, [])
    assert histogram.left < histogram.threshold_x <= histogram.right
    assert histogram.ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 6.0, [0, 1, 2, 3, 4, 5, 6]),
        (0.9, 2.8, [1.0, 1.5, 2.0, 2.5]),
        (-0.1, 0.1, [-0.1, -0.05, 0.0, 0.05, 0.1]),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert report._nice_ticks(low, high) == pytest.approx(ticks)


# --- words ---


@pytest.mark.parametrize(
    ("anomalous", "inspected", "words"),
    [
        (7, 40, "7 of 40 photos are anomalous"),
        (1, 1200, "1 of 1,200 photos is anomalous"),
        (0, 40, "None of 40 photos is anomalous"),
        (1, 1, "The photo is anomalous"),
        (0, 1, "The photo is good"),
        (0, 0, "No photo was inspected"),
    ],
)
def test_headline(anomalous, inspected, words):
    assert headline(anomalous, inspected) == words


@pytest.mark.parametrize(
    ("value", "threshold", "words"),
    [
        (4.6, 2.0, "2.3 × threshold"),
        (2.02, 2.0, "1.01 × threshold"),
        (0.5, 2.0, "0.2 × threshold"),
        (0.5, 0.0, "0.5"),
    ],
)
def test_multiple(value, threshold, words):
    assert multiple(value, threshold) == words


def test_the_heat_map_legend_carries_its_numbers(tmp_path):
    assert "0 threshold (1.5) 2 × (3)" in write(tmp_path).words


def test_every_picture_of_every_photo_has_a_text(tmp_path):
    page = write(tmp_path, scores=(3.0, 1.0))
    texts = [image["alt"] for image in page.pictures]
    assert all(texts)
    assert all(a != b for a, b in itertools.pairwise(texts))
