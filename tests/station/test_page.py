"""The page in a real browser: Chromium without a window, against a service in this process."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from conftest import (
    MISSING,
    MONDAY,
    RGB,
    SMALL_FIT,
    WAIT,
    checkered,
    scratched,
    textured,
    tray,
)
from reconpatch.method.defect_kinds import DefectKinds
from reconpatch.photos.images import read_photo
from reconpatch.station.cameras.cameras import Cameras
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.fit_jobs import Change, FitComparison, FitJob, FitJobs
from reconpatch.station.guard import Access
from reconpatch.station.page_settings import PageSettings
from reconpatch.station.service import create_app, outputs_of
from reconpatch.station.station import Station
from test_station import png

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the page is not tested: playwright is not installed"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("the page is not tested: there is no Chromium", allow_module_level=True)

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
PATIENCE = 1000 * WAIT  # milliseconds


def stained(photo: RGB) -> RGB:
    """The same part with a dark stain, which does not matter on this product."""
    dark = photo.copy()
    dark[8:30, 8:30] = (dark[8:30, 8:30] * 0.45).astype(np.uint8)
    return dark


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Line:
    """A station, its service, and a page that shows it."""

    def __init__(
        self,
        station: Station,
        url: str,
        page: Any,
        stop: Callable[[], None] = lambda: None,
        fits: FitJobs | None = None,
    ) -> None:
        self.station, self.url, self.page, self.stop = station, url, page, stop
        self.fits = fits

    def go(self, view: str) -> None:
        self.page.click(f"nav a[data-view={view}]")

    def drop(self, name: str, pixels: RGB, *, onto: str = "main") -> None:
        """Drop a photo's file onto the page."""
        transfer = self.page.evaluate_handle(
            """([name, bytes]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
                return transfer;
            }""",
            [name, list(png(pixels))],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event(onto, event, {"dataTransfer": transfer})

    def expect_verdict(self, name: str, verdict: str) -> None:
        """Wait until the page shows a photo of this name, and see what it says of it."""
        sync_api.expect(self.page.locator(".facts .name")).to_have_text(name)
        sync_api.expect(self.page.locator("#verdict")).to_contain_text(verdict)

    def inspect(self, name: str, pixels: RGB) -> None:
        answer = httpx.post(
            f"{self.url}/api/v1/inspect", content=png(pixels), params={"name": name}, timeout=WAIT
        )
        assert answer.status_code == 200, answer.text

    def ask(self, method: str, path: str, **given: Any) -> Any:
        """Ask the service as another program does, or somebody at another page."""
        answer = httpx.request(method, f"{self.url}/api/v1/{path}", timeout=WAIT, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def said(self) -> list[str | None]:
        """What was said of the records, newest first."""
        return [record.feedback for record in self.station.records.page().records]

    def expect_no_verdict(self, why: str, word: str = "NO VERDICT") -> None:
        """Wait until the page says large that there is none, and why."""
        sync_api.expect(self.page.locator("#verdict.trouble")).to_have_text(word)
        sync_api.expect(self.page.locator("#reason")).to_contain_text(why)
        assert self.page.locator("#verdict.good, #verdict.anomalous").count() == 0

    @property
    def served(self) -> Any:
        return self.station.product("disc")


def _is_wrong(told: Any) -> bool:
    """Whether a line of the console is an error, other than a status that the page speaks of."""
    return told.type == "error" and not told.text.startswith("Failed to load resource")


@pytest.fixture
def outputs() -> dict[str, Any]:
    """The settings of outputs, which a module of tests may have of its own."""
    return {}


@pytest.fixture
def line(
    browser: Any, tmp_path: Path, small_model_file: Path, outputs: dict[str, Any]
) -> Iterator[Line]:
    options = {name: value for name, value in SMALL_FIT.items() if name != "size"}
    options["size"] = SMALL_FIT["size"]
    with shown(browser, tmp_path, small_model_file, options, outputs) as one:
        yield one


@contextmanager
def shown(
    browser: Any,
    tmp_path: Path,
    model: Path,
    options: dict[str, Any],
    outputs: dict[str, Any] | None = None,
    settings: PageSettings | None = None,
    cameras: dict[str, Any] | None = None,
) -> Iterator[Line]:
    """A station of one product, disc, with a folder of the good parts of `MONDAY`."""
    model = Path(shutil.copy(model, tmp_path / "disc.rcp"))
    good = tmp_path / "monday"
    good.mkdir()
    for seed in MONDAY:
        (good / f"{seed}.png").write_bytes(png(textured(seed)))
    station = Station(DataFolder(tmp_path / "data"), [model], threads=1)
    fits = FitJobs(station, [good], options=options)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(
                station,
                fits=fits,
                outputs=outputs_of(station, outputs or {}),
                cameras=Cameras(cameras or {}, station),
                page=settings,
            ),
            log_config=None,
            ws="none",
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    sync_api.expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if _is_wrong(told) else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((url, "blob:", "data:")) else wrong.append(asked.url)
        ),
    )
    page.goto(url)
    page.wait_for_selector("#verdict")

    def stop() -> None:
        server.should_exit = True
        thread.join()
        listening.close()

    try:
        yield Line(station, url, page, stop, fits)
    finally:
        context.close()
        stop()
    # Neither an error of a script, nor anything refused or loaded from elsewhere.
    assert wrong == []


def test_a_shift_from_the_first_photo_to_the_roll_back(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    expect(page.locator("#verdict")).to_have_text("No photo yet")

    line.drop("good.png", textured(1000))
    line.expect_verdict("good.png", "GOOD")
    line.drop("stain.png", stained(textured(1001)))
    line.expect_verdict("stain.png", "ANOMALOUS")
    page.keyboard.press("g")
    expect(page.locator(".said")).to_contain_text("Called good")
    line.drop("scratch.png", scratched(textured(1002)))
    line.expect_verdict("scratch.png", "ANOMALOUS")
    expect(page.locator(".frames .region")).not_to_have_count(0)
    expect(page.locator("figure img.closest")).to_have_js_property("complete", True)
    page.click("text=This was a defect")
    expect(page.locator(".said")).to_contain_text("Called a defect")
    assert [r.feedback for r in line.station.records.page().records] == ["defect", "good", None]

    # The threshold: dragged to the right past all scores, it would flag nothing; not applied yet.
    line.go("threshold")
    expect(page.locator(".figure.then")).to_contain_text("2of the last 3 photos anomalous; 2 were")
    for what in ("then", "goods", "defects", "expected"):  # the words below their number
        expect(page.locator(f".figure.{what}")).to_have_css("display", "block")
    box = page.locator(".histogram").bounding_box()
    start = page.locator(".handle line").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(start["x"] + start["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 20, middle, steps=5)
    page.mouse.up()
    moved = float(page.get_attribute(".handle", "aria-valuenow"))
    assert moved > line.served.inspector.threshold
    scores = [record.score for record in line.station.records.page().records]
    above = sum(score > moved for score in scores)
    expect(page.locator(".figure.then b")).to_have_text(str(above))
    expect(page.locator(".figure.expected")).to_contain_text("of good photos flagged by mistake")
    page.locator(".handle").focus()
    page.keyboard.press("ArrowLeft")
    assert float(page.get_attribute(".handle", "aria-valuenow")) < moved
    page.keyboard.press("Home")
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".toast")).to_contain_text("Version 2 is in service")
    assert line.served.version.threshold > line.station.versions.get("disc", 1).threshold

    # Learn: what would change is said before anything does.
    line.go("models")
    page.click("#try")
    expect(page.locator(".changes")).to_contain_text("1 were false alarms and 0 are now")
    expect(page.locator(".result")).to_contain_text("No confirmed defect would be missed")
    assert line.served.version.number == 2
    page.click("#update")
    expect(page.locator("tr.current")).to_contain_text("learned 1 confirmed good photos")
    assert line.served.version.number == 3

    # Its scores are others than before; what it makes of the past is asked for.
    line.go("threshold")
    expect(page.locator(".figure.then")).to_contain_text("of the last 0 photos")
    page.click("#rescore")
    expect(page.locator(".figure.then")).to_contain_text("1of the last 3 photos anomalous; 2 were")
    expect(page.locator(".figure.goods b")).to_have_text("0 of 1")
    expect(page.locator(".figure.defects b")).to_have_text("0 of 1")

    line.go("live")
    line.drop("stain again.png", stained(textured(1001)))
    line.expect_verdict("stain again.png", "GOOD")
    line.drop("scratch again.png", scratched(textured(1002)))
    line.expect_verdict("scratch again.png", "ANOMALOUS")

    line.go("models")
    page.click("button[data-version='2']")
    expect(page.locator("tr.current")).to_contain_text("threshold")
    assert line.served.version.number == 2
    line.go("live")
    line.drop("stain at last.png", stained(textured(1001)))
    line.expect_verdict("stain at last.png", "ANOMALOUS")


def test_misses_are_confirmed_drawn_and_learned_and_the_next_one_is_found(
    browser: Any, tmp_path: Path, teachable_model_file: Path
) -> None:
    options = {"weights": "random", "threads": 1}
    with shown(browser, tmp_path, teachable_model_file, options) as line:
        page, expect = line.page, sync_api.expect
        for i, (x, y) in enumerate([(39, 29), (26, 16), (5, 5)]):
            line.drop(f"missed {i}.png", checkered(textured(700 + i), x, y))
            line.expect_verdict(f"missed {i}.png", "GOOD")
            expect(page.locator(".details")).to_be_hidden()
            page.click("text=This was a defect")
            expect(page.locator(".where")).to_contain_text("Not drawn")
            page.fill("#kind", "checks")
            if i == 1:
                page.click("#draw")
                box = page.locator(".picture").bounding_box()
                left, top, scale = box["x"], box["y"], box["width"] / 96
                page.mouse.move(left + 30 * scale, top + 30 * scale)
                page.mouse.down()
                page.mouse.move(left + 66 * scale, top + 50 * scale, steps=4)
                page.mouse.up()
                expect(page.locator(".drawing polyline")).to_have_count(1)
                expect(page.locator(".where")).to_have_text("Drawn with 1 stroke.")
            page.click("#keep")
            expect(page.locator(".said")).to_contain_text("Called a defect (checks)")
        told = line.station.records.page().records
        assert [record.feedback_kind for record in told] == ["checks"] * 3
        first, drawn, last = (record.feedback_place for record in told)
        assert first is last is None
        assert drawn is not None
        (stroke,) = drawn
        assert stroke.width == pytest.approx(0.04 * 96, abs=0.1)
        assert stroke.points[0] == pytest.approx((30, 30), abs=1)
        assert stroke.points[-1] == pytest.approx((66, 50), abs=1)
        page.click(".strip li:nth-child(2) button")  # looked at again, it is there
        expect(page.locator(".drawing polyline")).to_have_count(1)
        page.keyboard.press("d")  # called a defect once more, it keeps what was said
        expect(page.locator(".toast")).to_contain_text("missed 1.png: called a defect")
        assert line.station.records.page().records[1].feedback_place == drawn

        line.go("models")
        expect(page.locator("main")).to_contain_text("3 photos called a defect, 1 of them drawn")
        page.click("text=Learn from 3 confirmed defects")
        expect(page.locator(".job h2")).to_have_text("disc, from confirmed defects and monday")
        page.wait_for_selector("#fit-serve")
        expect(page.locator(".job")).to_contain_text("F learned from confirmed defects")
        comparison = page.locator(".comparison")
        expect(comparison).to_contain_text("called a defect, and found0 of 33 of 3")
        expect(comparison).to_contain_text("… by versions that had not seen it0 of 3")
        expect(page.locator(".job")).to_contain_text("Newly found: called a defect: 3 photos")
        expect(page.locator(".changed img")).to_have_count(3)
        assert line.served.version.number == 1  # nothing is changed before somebody says so
        page.click("#fit-serve")
        expect(page.locator(".toast")).to_contain_text("version 2 is in service")
        line.go("live")
        line.drop("next.png", checkered(textured(708), 38, 40))
        line.expect_verdict("next.png", "ANOMALOUS")


def test_what_would_be_lost_by_learning_is_asked_about(line: Line, small_model: Any) -> None:
    change = Change("a.png", 3.0, 1.0, True, False, 1, "defect")
    compared = FitComparison(
        1, (1, 1), 0, (0, 0), 1, (1, 1), 0, (), unseen=(change,), unseen_found=(1, 0),
        unseen_missed=1,
    )  # fmt: skip
    line.inspect("a.png", scratched(textured(1)))
    file = line.station.data.path / "fits" / "fit-00000000.rcp"
    small_model.save(file)
    line.fits._output = file
    line.fits._job = FitJob(
        "disc", "monday", None, state="ready", good_photos=6, threshold=1.0, comparison=compared,
        parent=1, learned=("f learned.",), notes=("The threshold was set by hand.",),
    )  # fmt: skip
    page, expect = line.page, sync_api.expect
    line.go("fit")
    expect(page.locator(".job")).to_contain_text("The threshold was set by hand.")
    expect(page.locator(".job")).to_contain_text("Newly missed by versions that had not seen them")
    page.click("#fit-serve")
    expect(page.locator("dialog.ask")).to_contain_text("it would miss 1 confirmed defect")
    page.click("dialog.ask button[value=no]")
    assert line.served.version.number == 1
    page.click("#fit-serve")
    page.click("text=Yes, put it into service")
    expect(page.locator(".toast")).to_contain_text("version 2 is in service")


def test_the_kind_of_a_defect_is_shown(
    browser: Any, tmp_path: Path, small_model: Any, good_photo: RGB
) -> None:
    spoiled = scratched(good_photo)
    rows = small_model.represent(read_photo(spoiled))
    kinds = DefectKinds(("scratch",), rows, np.zeros(len(rows), np.int64), (0.5,))
    replace(small_model, defect_kinds=kinds).save(tmp_path / "kinds.rcp")
    with shown(browser, tmp_path, tmp_path / "kinds.rcp", {}) as line:
        line.drop("scratch.png", spoiled)
        line.expect_verdict("scratch.png", "ANOMALOUS")
        expect = sync_api.expect
        expect(line.page.locator("#kind-of-defect")).to_have_text("scratch (similarity 1.00)")
        line.drop("other.png", 255 - good_photo)
        line.expect_verdict("other.png", "ANOMALOUS")
        expect(line.page.locator("#kind-of-defect")).to_contain_text("none of these")
        line.go("history")
        expect(line.page.locator("tbody")).to_contain_text("scratch (similarity 1.00)")
        line.go("models")
        expect(line.page.locator("main")).to_contain_text("names these kinds: scratch")


def test_what_is_wrong_as_a_whole_is_shown(browser: Any, tmp_path: Path, tray_model: Any) -> None:
    tray_model.save(tmp_path / "trays.rcp")
    with shown(browser, tmp_path, tmp_path / "trays.rcp", {}) as line:
        line.drop("missing.png", tray(100, MISSING))
        line.expect_verdict("missing.png", "ANOMALOUS")
        why = line.page.locator("#as-a-whole")
        sync_api.expect(why).to_contain_text("a part may be missing, one too many or another one")
        scratch = tray(100)
        scratch[40:56, 40:44] = 255
        line.drop("scratch.png", scratch)
        line.expect_verdict("scratch.png", "ANOMALOUS")
        sync_api.expect(why).to_have_count(0)


def test_live_by_keyboard(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.inspect("first.png", textured(1000))
    line.inspect("second.png", scratched(textured(1000)))
    line.expect_verdict("second.png", "ANOMALOUS")  # nobody touched the page
    expect(page.locator("#spoken")).to_contain_text("second.png: anomalous")
    page.keyboard.press("ArrowRight")
    line.expect_verdict("first.png", "GOOD")
    line.inspect("third.png", textured(1001))
    expect(page.locator(".strip li")).to_have_count(3)
    line.expect_verdict("first.png", "GOOD")  # who looks at a photo is left with it
    page.keyboard.press("n")
    line.expect_verdict("third.png", "GOOD")
    page.keyboard.press("d")
    expect(page.locator(".strip .told").first).to_have_text("defect")
    page.keyboard.press("u")
    expect(page.locator(".strip .told").first).to_have_text("")
    page.keyboard.press("h")
    expect(page.locator("#opacity")).to_have_value("0")
    expect(page.locator(".heat")).to_have_css("opacity", "0")
    page.keyboard.press("h")
    expect(page.locator("#opacity")).to_have_value("60")
    page.keyboard.press("r")
    expect(page.locator(".frames")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("3")
    expect(page.locator("h1")).to_have_text("History")


def test_the_webcam_and_files_that_are_no_photos(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    page.set_input_files(
        "#file", {"name": "no.png", "mimeType": "image/png", "buffer": b"no photo"}
    )
    expect(page.locator(".toast.error")).to_contain_text("no.png")
    page.keyboard.press("c")  # Chromium's own moving picture stands in for a camera
    expect(page.locator("video")).to_have_js_property("readyState", 4)
    page.get_by_role("button", name="Inspect this frame").click()
    expect(page.locator(".facts .name")).to_contain_text("webcam-")
    page.keyboard.press("c")
    expect(page.locator("video")).to_be_hidden()
    [record] = line.station.records.page().records
    assert record.name.startswith("webcam-")


def test_without_a_webcam_the_page_says_why(line: Line) -> None:
    page = line.page
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.keyboard.press("c")
    sync_api.expect(page.locator(".webcam .note")).to_contain_text("--tls-cert")


def test_history_is_filtered_and_turned(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    for i in range(51):
        pixels = scratched(textured(i)) if i == 7 else textured(i % 8)
        line.inspect(f"<b>{i}</b>.png", pixels)
    line.go("history")
    names = page.locator("td.name")
    expect(names).to_have_count(50)
    expect(names.first).to_have_text("<b>50</b>.png")  # as text, whatever a photo is called
    page.get_by_role("button", name="Older").click()
    expect(names).to_have_text(["<b>0</b>.png"])
    page.keyboard.press("ArrowLeft")
    expect(names).to_have_count(50)
    page.select_option("#filter-verdict", "anomalous")
    expect(names).to_have_text(["<b>7</b>.png"])
    with page.expect_download() as download:
        page.click("text=CSV of all that fit")
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    page.click(".search summary")
    for field, value in (("name", "7<"), ("id", "8"), ("score_least", "1"), ("serial", "SN-1")):
        page.fill(f"#filter-{field}", value)
        page.keyboard.press("Tab")
        shown = 0 if field == "serial" else 1
        expect(names).to_have_count(shown)
    page.fill("#filter-serial", "")
    page.keyboard.press("Tab")
    expect(names).to_have_count(1)
    worst = line.station.records.get(8).regions[0].peak
    places = (
        ("top", "middle", "bottom")[worst[1] // 32],
        ("left", "centre", "right")[worst[0] // 32],
    )
    words = " ".join(places).replace("middle centre", "in the middle")
    page.select_option("#filter-place", label=words)
    expect(names).to_have_count(1)
    other = "bottom right" if words != "bottom right" else "top left"
    page.select_option("#filter-place", label=other)
    expect(names).to_have_count(0)
    page.select_option("#filter-place", "")
    page.fill("#filter-since", "2099-01-01T00:00")
    expect(page.locator("text=No record fits.")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    page.select_option("#filter-verdict", "anomalous")
    expect(names).to_have_text(["<b>7</b>.png"])
    names.first.locator("a").click()
    line.expect_verdict("<b>7</b>.png", "ANOMALOUS")


def test_a_fit_from_a_folder_is_compared_and_put_into_service(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.drop("scratch.png", scratched(textured(1002)))
    line.expect_verdict("scratch.png", "ANOMALOUS")
    page.keyboard.press("d")
    expect(page.locator(".said")).to_contain_text("defect")
    line.go("fit")
    expect(page.locator("#fit-folder")).to_have_value("monday")
    page.get_by_role("button", name="Fit", exact=True).click()
    expect(page.locator("progress")).to_be_visible()
    line.inspect("meanwhile.png", textured(1))  # inspection goes on
    page.wait_for_selector("#fit-serve")
    expect(page.locator(".job")).to_contain_text("Learned from 6 good photos")
    expect(page.locator(".comparison")).to_contain_text("called a defect, and found1 of 11 of 1")
    assert line.served.version.number == 1
    page.click("#fit-serve")
    expect(page.locator(".job")).to_contain_text("In service as version 2")
    assert line.served.version.parent == 1
    assert "monday" in line.served.version.note


def test_photos_dropped_for_a_fit_and_a_fit_that_is_cancelled(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.go("fit")
    for seed in (1, 2, 3):
        line.drop(f"{seed}.png", textured(seed), onto=".dropzone")
        expect(page.locator(".dropped")).to_contain_text(f"{seed} photo")
    expect(page.locator("#fit-folder option").first).to_have_text("dropped photos (3)")
    page.get_by_role("button", name="Fit", exact=True).click()
    page.click("#fit-cancel")
    expect(page.locator(".job")).to_contain_text("Cancelled")
    page.get_by_role("button", name="Forget them").click()
    expect(page.locator("#fit-folder option")).to_have_text(["monday (6 photos)"])


def test_a_folder_into_which_photos_are_copied_is_told(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, option = line.page.locator("#fit-arriving"), line.page.locator("#fit-folder option")
    monkeypatch.setattr("reconpatch.station.fit_jobs.QUIET_SECONDS", 1e9)
    line.go("fit")
    sync_api.expect(told).to_be_visible()
    sync_api.expect(option).to_have_text(["monday (6 photos, more are arriving)"])
    monkeypatch.setattr("reconpatch.station.fit_jobs.QUIET_SECONDS", 0.0)
    sync_api.expect(told).to_be_hidden()


@pytest.mark.parametrize("width", [360, 768, 3840])
def test_no_view_is_wider_than_the_screen(line: Line, width: int) -> None:
    page = line.page
    page.set_viewport_size({"width": width, "height": 800})
    line.inspect("a-very-long-name-" * 10 + ".png", scratched(textured(1)))
    for view, ready in (
        ("live", ".verdict.anomalous"), ("threshold", ".handle[aria-valuenow]"),
        ("history", "td.name"), ("fit", "#fit-folder option"), ("models", "tr.current"),
    ):  # fmt: skip
        line.go(view)
        page.wait_for_selector(ready, state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    line.go("live")
    page.wait_for_selector(".verdict.anomalous")
    page.keyboard.press("w")
    for state in (".anomalous", ".trouble"):
        verdict = page.locator(f".wall .verdict{state}")
        verdict.wait_for()
        assert verdict.evaluate("shown => shown.scrollWidth - shown.clientWidth") <= 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "wall"
        line.station.live.stale_after = 0.0


def test_undo_goes_back_on_the_product_that_was_changed(line: Line, small_model: Any) -> None:
    line.station.put_into_service("ring", small_model, note="another product")
    page = line.page
    page.reload()
    line.go("threshold")
    page.locator(".handle[aria-valuenow]").press("ArrowRight")
    page.get_by_role("button", name="Apply").click()
    undo = page.locator("#toasts").get_by_role("button", name="Undo")
    undo.wait_for()
    page.select_option("#product", "ring")
    undo.click()
    sync_api.expect(undo).to_have_count(0)
    page.wait_for_function(
        "fetch('/api/v1/products').then(a => a.json()).then(a => a.products[0].version === 1)"
    )
    assert line.station.product("ring").version.number == 1


# --- A verdict holds only while it is fresh -----------------------------------------------------


@pytest.mark.parametrize("key", ["Escape", "w"])
def test_a_dead_service_leaves_no_verdict_on_the_screen(line: Line, key: str) -> None:
    line.inspect("last.png", textured(1000))
    line.expect_verdict("last.png", "GOOD")
    line.page.keyboard.press(key)  # on Live, and on the wall
    line.stop()
    line.expect_no_verdict("does not answer")
    sync_api.expect(line.page.locator("#reason")).to_contain_text("Since")
    sync_api.expect(line.page.locator("#service")).to_contain_text(
        "no answer since", use_inner_text=False
    )


def test_a_service_that_takes_questions_and_gives_no_answer_counts_as_dead(line: Line) -> None:
    line.inspect("last.png", scratched(textured(1000)))
    line.expect_verdict("last.png", "ANOMALOUS")
    line.page.route("**/api/v1/state", lambda route: None)  # as a network whose cable is pulled
    line.expect_no_verdict("does not answer")
    line.page.unroute("**/api/v1/state")
    line.expect_verdict("last.png", "ANOMALOUS")  # by itself, once there is an answer


@pytest.mark.parametrize("body", ["", '{"now": "2026-', "<p>Log in to the guest network</p>"])
def test_half_an_answer_is_none_and_the_page_goes_on_after_it(line: Line, body: str) -> None:
    line.inspect("part.png", textured(1000))
    line.expect_verdict("part.png", "GOOD")
    line.page.route("**/api/v1/state", lambda route: route.fulfill(status=200, body=body))
    line.expect_no_verdict("answer cannot be read")
    line.page.unroute("**/api/v1/state")
    line.expect_verdict("part.png", "GOOD")


def test_a_database_that_stops_leaves_no_verdict(line: Line) -> None:
    line.inspect("last.png", textured(1000))
    line.expect_verdict("last.png", "GOOD")
    problem = {"error": "the records' database does not answer"}
    line.page.route("**/api/v1/state", lambda route: route.fulfill(status=503, json=problem))
    line.expect_no_verdict("The records' database does not answer.")


def test_a_photo_that_fails_stands_in_place_of_the_verdict_until_the_next_one(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.inspect("before.png", textured(1000))
    line.expect_verdict("before.png", "GOOD")
    whole = png(textured(1001))
    answer = httpx.post(
        f"{line.url}/api/v1/inspect", content=whole[: len(whole) // 2],
        params={"name": "<i>cut</i> off.png"}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 422
    line.expect_no_verdict("<i>cut</i> off.png")
    expect(page.locator(".strip li")).to_have_count(2)
    expect(page.locator(".strip .failed .tag")).to_have_text("!")
    expect(page.locator(".feedback")).to_be_hidden()  # of which nothing can be said
    # Who looks back sees a verdict of then, and that there is none now.
    page.keyboard.press("ArrowRight")
    expect(page.locator("#verdict.earlier.good")).to_contain_text("GOOD")
    expect(page.locator("#reason")).to_contain_text("No verdict now")
    page.keyboard.press("n")
    line.expect_no_verdict("<i>cut</i> off.png")
    line.inspect("after.png", textured(1002))
    line.expect_verdict("after.png", "GOOD")

    line.go("history")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("tbody tr").nth(1)).to_contain_text("! no verdict")
    page.select_option("#filter-verdict", "failed")
    expect(page.locator("td.name")).to_have_text(["<i>cut</i> off.png"])
    page.select_option("#filter-verdict", "good")
    expect(page.locator("td.name")).to_have_text(["after.png", "before.png"])


def test_a_station_that_cannot_store_photos_says_so_in_place_of_the_verdict(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.inspect("last.png", textured(1000))
    line.expect_verdict("last.png", "GOOD")
    reasons = ["the disk is full: 3 MB are left"]
    monkeypatch.setattr(type(line.station.readiness), "reasons", property(lambda self: reasons))
    line.expect_no_verdict("The disk is full: 3 MB are left.", "NOT READY")
    reasons.clear()
    line.expect_verdict("last.png", "GOOD")


def test_a_verdict_grows_old(line: Line) -> None:
    line.inspect("last.png", textured(1000))
    line.expect_verdict("last.png", "GOOD")
    sync_api.expect(line.page.locator(".facts")).to_contain_text(" ago)")
    line.station.live.stale_after = 0.5
    line.expect_no_verdict("No photo for", "STALE")
    sync_api.expect(line.page.locator(".live.doubt .stage")).to_be_visible()
    line.station.live.stale_after = None
    line.expect_verdict("last.png", "GOOD")


# --- What a key is about ------------------------------------------------------------------------

# Keys that go down at once one after the other, and which of them the page took for itself.
BURST = """(keys) => keys.map((key) => {
    const event = new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true});
    (document.activeElement || document.body).dispatchEvent(event);
    return event.defaultPrevented;
})"""


@pytest.mark.parametrize(
    ("focus", "text"), [("#main", "SN-D47G2"), (".say.defect", "7hgdw?"), ("#product", "1234 5")]
)
def test_what_a_scan_gun_types_is_text(line: Line, focus: str, text: str) -> None:
    page, expect = line.page, sync_api.expect
    line.inspect("part.png", textured(1000))
    line.expect_verdict("part.png", "GOOD")
    page.focus(focus)
    *_, enter = page.evaluate(BURST, [*text, "Enter"])
    assert enter  # so that it presses no button
    expect(page.locator("#serial")).to_have_value(text)
    assert page.locator("body.wall, dialog[open]").count() == 0
    assert page.evaluate("location.hash") in ("", "#live")
    assert line.said() == [None]
    page.wait_for_function(
        "t => document.querySelector('.toast')?.textContent.includes(t)", arg=text
    )
    line.inspect("photo.png", textured(1001))  # whoever sends the next photo
    line.expect_verdict("photo.png", "GOOD")
    expect(page.locator(".facts")).to_contain_text(f"serial number {text}")
    expect(page.locator("#serial")).to_have_value("")
    newest, before = line.station.records.page().records
    assert (newest.serial, before.serial) == (text, None)


def test_shortcuts_of_single_keys_can_be_switched_off(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    marks: list[str] = []
    page.on("request", lambda asked: marks.append(asked.url) if "feedback" in asked.url else None)
    line.inspect("older.png", textured(1000))
    line.inspect("part.png", textured(1001))
    line.expect_verdict("part.png", "GOOD")
    page.click("#open-help")
    page.uncheck("#use-shortcuts")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.reload()  # it is kept
    line.expect_verdict("part.png", "GOOD")
    for key in "d3w?":
        page.keyboard.press(key)
    page.keyboard.press("ArrowRight")  # no character: it moves on as before
    line.expect_verdict("older.png", "GOOD")
    page.click("#open-help")
    page.check("#use-shortcuts")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.wait_for_timeout(1_000)  # keys in quick succession are a scan gun's
    page.keyboard.press("g")
    expect(page.locator(".said")).to_contain_text("Called good")
    assert len(marks) == 1
    assert line.said() == [None, "good"]


def test_a_key_that_goes_down_as_the_page_goes_on_marks_the_part_before(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.inspect("seen.png", textured(1000))
    line.expect_verdict("seen.png", "GOOD")
    page.evaluate(
        """() => new MutationObserver((_, self) => {
            if (document.querySelector(".facts .name")?.textContent !== "next.png") return;
            self.disconnect();
            document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "d", bubbles: true}));
        }).observe(document.querySelector(".headline"), {childList: true, subtree: true})"""
    )
    line.inspect("next.png", textured(1001))
    line.expect_verdict("next.png", "GOOD")
    told = page.locator(".toast")
    expect(told).to_contain_text("The photo before, seen.png: called a defect.")
    assert line.said() == [None, "defect"]
    told.get_by_role("button", name="It was the one after").click()
    expect(told).to_contain_text("next.png: called a defect.")
    assert line.said() == ["defect", None]
    told.get_by_role("button", name="Undo").click()
    expect(told).to_contain_text("next.png: nothing is said of it any more.")
    assert line.said() == [None, None]
    expect(page.locator(".toast")).to_have_count(1)  # the newest, in one place


def test_a_mark_stays_with_its_part_while_the_next_one_comes(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.inspect("marked.png", scratched(textured(1000)))
    line.expect_verdict("marked.png", "ANOMALOUS")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/feedback", hold)  # a slow network
    page.keyboard.press("g")
    line.inspect("next.png", textured(1001))
    line.expect_verdict("next.png", "GOOD")
    held[0].continue_()
    expect(page.locator(".toast")).to_contain_text("marked.png: called good.")
    expect(page.locator(".said")).to_have_text("")  # of the one that is shown, nothing
    assert line.said() == [None, "good"]


def test_what_somebody_else_said_of_a_part_meanwhile_is_not_written_over(line: Line) -> None:
    line.inspect("part.png", textured(1000))
    line.expect_verdict("part.png", "GOOD")
    [record] = line.station.records.page().records

    def answer(route: Any) -> None:
        line.ask("POST", f"records/{record.id}/feedback", json={"feedback": "defect"})
        route.continue_()

    line.page.route("**/feedback", answer)
    line.page.keyboard.press("g")
    sync_api.expect(line.page.locator(".toast.error")).to_contain_text("was not kept")
    sync_api.expect(line.page.locator(".said")).to_contain_text("Called a defect")
    assert line.said() == ["defect"]


# --- Changes -------------------------------------------------------------------------------------


def test_a_threshold_that_would_miss_confirmed_defects_is_asked_about(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.drop("scratch.png", scratched(textured(1002)))
    line.expect_verdict("scratch.png", "ANOMALOUS")
    page.keyboard.press("d")
    expect(page.locator(".said")).to_contain_text("Called a defect")
    line.go("threshold")
    page.locator(".handle[aria-valuenow]").wait_for(state="attached")
    page.fill("#exact", "900")
    page.keyboard.press("Tab")
    expect(page.locator(".figure.defects b")).to_have_text("1 of 1")
    apply = page.get_by_role("button", name="Apply")
    asked = page.locator("dialog.ask")
    apply.click()
    expect(asked.locator("tr.worse")).to_contain_text("defects missed0 of 11 of 1")
    prevented = page.evaluate(BURST, [*"SN-D47G2", "Enter"])
    assert prevented[-1]  # a scan does not answer for anybody
    page.keyboard.press("Escape")
    expect(asked).to_have_count(0)
    assert line.served.version.number == 1
    apply.click()
    asked.get_by_role("button", name="Yes").click()
    expect(page.locator(".toast")).to_contain_text("Version 2 is in service")
    assert line.served.version.threshold == 900
    # The way back is free: nothing is missed that is not missed now.
    page.locator("#toasts").get_by_role("button", name="Undo").click()
    expect(page.locator(".toast")).to_contain_text("Version 1 is in service again.")
    line.go("models")
    page.click("button[data-version='2']")
    expect(asked).to_contain_text("1 of 1 confirmed defects would be called good")
    asked.get_by_role("button", name="No").click()
    assert line.served.version.number == 1
    page.locator(".trail summary").click()
    expect(page.locator(".trail tbody tr")).not_to_have_count(0)


def test_a_change_of_what_somebody_else_has_changed_is_refused_and_shown(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.go("threshold")
    page.locator(".handle[aria-valuenow]").press("ArrowRight")
    line.ask("PUT", "products/disc/threshold", json={"score": 7.5}, headers={"X-Operator": "Ada"})
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".toast.error")).to_contain_text("Nothing was changed. Version 2")
    expect(page.locator(".toast.error")).to_contain_text("Ada")
    expect(page.locator(".handle")).to_have_attribute("aria-valuenow", "7.5")
    assert line.served.version.number == 2
    # The same for the way back.
    line.go("models")
    page.locator("button[data-version='1']").wait_for()
    line.ask("PUT", "products/disc/threshold", json={"score": 8})
    page.click("button[data-version='1']")
    expect(page.locator(".toast.error")).to_contain_text("Version 3")
    expect(page.locator("tr.current")).to_contain_text("8")
    assert line.served.version.number == 3


def test_products_are_made_the_default_retired_and_restored(line: Line, small_model: Any) -> None:
    line.station.put_into_service("ring", small_model, note="another product")
    page, expect = line.page, sync_api.expect
    line.go("models")
    rows = page.locator(".products")
    expect(rows).to_contain_text("discin service, the default")
    page.click("[data-default=ring]")
    expect(rows).to_contain_text("ringin service, the default")
    page.click("[data-retire=disc]")
    page.locator("dialog.ask").get_by_role("button", name="Retire").click()
    expect(rows).to_contain_text("discretired")
    expect(page.locator("#product option")).to_have_text(["ring"])
    page.click("[data-restore=disc]")
    expect(rows).to_contain_text("discin service")


def test_a_drift_alarm_stays_until_somebody_says_that_it_was_seen(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    line.inspect("part.png", textured(1000))
    [record] = line.station.records.page().records
    line.station.records.log.add_alarm(
        {"time": record.time, "product": "disc", "version": 1, "record": record.id,
         "photo": 120, "direction": "higher", "message": "scores are higher than they were"}
    )  # fmt: skip
    line.station._open_alarms["disc"] = 1
    page.click("#drift")
    expect(page.locator(".alarms")).to_contain_text("scores are higher than they were")
    page.fill("#ack-by", "Grace")
    page.fill("#ack-note", "the lamp was new")
    page.click("#acknowledge")
    expect(page.locator("#drift")).to_be_hidden()
    page.locator(".drifted summary").click()
    expect(page.locator(".drifted")).to_contain_text("Acknowledged by Grace")
    expect(page.locator(".drifted")).to_contain_text("the lamp was new")


# --- Smaller ones --------------------------------------------------------------------------------


def test_messages_have_one_place(line: Line) -> None:
    page, expect = line.page, sync_api.expect
    for name in ("one.png", "two.png", "three.png"):
        line.drop(name, textured(1000))
        line.expect_verdict(name, "GOOD")
        page.keyboard.press("g")
        expect(page.locator(".toast")).to_contain_text(name)
    for name in ("a.png", "b.png"):
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": b"none"})
        expect(page.locator(".toast.error")).to_contain_text(name)
    expect(page.locator(".toast")).to_have_count(2)  # the newest of each kind


def test_a_folder_that_is_dropped_is_told_from_a_photo(line: Line) -> None:
    line.page.evaluate(
        """() => { DataTransferItem.prototype.webkitGetAsEntry = function () {
            return {isDirectory: this.getAsFile().name === "tuesday", name: this.getAsFile().name};
        }; }"""
    )
    line.drop("tuesday", textured(1000))
    told = line.page.locator(".toast.error")
    sync_api.expect(told).to_contain_text("tuesday is a folder")
    line.drop("photo.png", textured(1000))
    line.expect_verdict("photo.png", "GOOD")


def test_a_picture_is_asked_for_again_while_the_service_is_busy(line: Line) -> None:
    busy: list[str] = []

    def answer(route: Any) -> None:
        if len(busy) < 2:  # the picture, and why it did not come
            busy.append(route.request.method)
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"error": "busy"})
        else:
            route.continue_()

    line.page.route("**/picture?size=1600", answer)
    line.inspect("part.png", textured(1000))
    photo = line.page.locator(".photo")
    sync_api.expect(photo).to_be_visible()
    sync_api.expect(line.page.locator(".gone")).to_be_hidden()
    assert len(busy) == 2


def test_a_browser_logs_in_and_is_asked_again_when_its_cookie_is_gone(
    line: Line, browser: Any
) -> None:
    token, expect = "a-token-of-this-test", sync_api.expect
    app = create_app(line.station, access=Access(token=token))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/#history")
        page.fill("#token", "another")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        page.fill("#token", token)
        page.keyboard.press("Enter")
        expect(page.locator("#service.up")).to_be_visible()
        context.clear_cookies()
        expect(page.locator("#token")).to_be_visible()
    finally:
        context.close()
        server.should_exit = True
        thread.join()
        listening.close()


def test_a_page_without_its_token_is_loaded_again_once(line: Line) -> None:
    loaded: list[str] = []
    line.page.on("framenavigated", lambda frame: loaded.append(frame.url))
    problem = {"error": "a token is needed"}
    line.page.route("**/api/v1/**", lambda route: route.fulfill(status=401, json=problem))
    told = line.page.locator(".toast.error")
    sync_api.expect(told).to_contain_text("a token is needed")  # of the page that was loaded
    assert len(loaded) == 1


def test_a_change_at_work_and_a_product_out_of_service_are_seen_from_every_view(line: Line) -> None:
    out = {"name": "ring", "state": "out", "reason": "0002.rcp is damaged", "last": None}

    def answer(route: Any) -> None:
        told = route.fetch().json()
        told["products"][0]["busy"] = "threshold"
        told["products"].append(out)
        route.fulfill(json=told)

    line.page.route("**/api/v1/state", answer)
    line.go("history")
    sync_api.expect(line.page.locator("#others")).to_have_text("Out of service: ring")
    sync_api.expect(line.page.locator("#service")).to_contain_text("changing the threshold")
