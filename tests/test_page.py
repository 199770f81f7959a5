"""The page in a real browser: Chromium without a window, against a service in this process."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from conftest import RGB, SMALL_FIT, WAIT, scratched, textured
from reconpatch.data_folder import DataFolder
from reconpatch.fit_jobs import FitJobs
from reconpatch.service import create_app
from reconpatch.station import Station
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

    def __init__(self, station: Station, url: str, page: Any) -> None:
        self.station, self.url, self.page = station, url, page

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

    @property
    def served(self) -> Any:
        return self.station.product("disc")


def _is_wrong(told: Any) -> bool:
    """Whether a line of the console is an error, other than a status that the page speaks of."""
    return told.type == "error" and not told.text.startswith("Failed to load resource")


@pytest.fixture
def line(browser: Any, tmp_path: Path, small_model_file: Path) -> Iterator[Line]:
    model = Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))
    good = tmp_path / "monday"
    good.mkdir()
    for seed in range(20, 26):
        (good / f"{seed}.png").write_bytes(png(textured(seed)))
    station = Station(DataFolder(tmp_path / "data"), [model], threads=1)
    options = {name: value for name, value in SMALL_FIT.items() if name != "size"}
    fits = FitJobs(station, [good], options={**options, "size": SMALL_FIT["size"]})
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(station, fits=fits), log_config=None, ws="none")
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
    try:
        yield Line(station, url, page)
    finally:
        context.close()
        server.should_exit = True
        thread.join()
        listening.close()
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


def test_where_nothing_can_be_fitted_it_says_what_to_install(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconpatch.fit_jobs.find_spec", lambda name: None)
    line.go("fit")
    note = line.page.locator("#fit-unavailable")
    sync_api.expect(note).to_contain_text("pip install 'reconpatch[train]'")


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
    verdict = page.locator(".wall .verdict")
    assert verdict.evaluate("shown => shown.scrollWidth - shown.clientWidth") <= 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "wall"


def test_undo_goes_back_on_the_product_that_was_changed(line: Line, small_model: Any) -> None:
    line.station.put_into_service("ring", small_model, note="another product")
    page = line.page
    page.reload()
    line.go("threshold")
    page.locator(".handle[aria-valuenow]").press("ArrowRight")
    page.get_by_role("button", name="Apply").click()
    undo = page.get_by_role("button", name="Undo")
    undo.wait_for()
    page.select_option("#product", "ring")
    undo.click()
    sync_api.expect(undo).to_have_count(0)
    page.wait_for_function(
        "fetch('/api/v1/products').then(a => a.json()).then(a => a.products[0].version === 1)"
    )
    assert line.station.product("ring").version.number == 1
