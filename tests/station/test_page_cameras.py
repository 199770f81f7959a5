"""Cameras on the page: what they see, a photo by hand, paused, lost and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import SIDE, scratched, textured
from reconpatch.station.cameras.settings import FolderSettings, StreamSettings
from streams import MjpegCamera
from test_page import Line, browser, shown, sync_api  # noqa: F401  (a fixture)


@pytest.fixture
def network() -> Iterator[MjpegCamera]:
    made = MjpegCamera(lambda number: scratched(textured(number % 7)))
    yield made
    made.switch_off()


@pytest.fixture
def line(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    small_model_file: Path,
    network: MjpegCamera,
) -> Iterator[Line]:
    cameras = {
        "top": StreamSettings(url=network.url, timeout=2),
        "files": FolderSettings(path=tmp_path / "incoming"),
    }
    with shown(browser, tmp_path, small_model_file, {}, cameras=cameras) as one:
        yield one


def test_a_camera_is_seen_asked_paused_lost_and_comes_back(
    line: Line, network: MjpegCamera, tmp_path: Path
) -> None:
    page, expect = line.page, sync_api.expect
    line.go("cameras")
    top, files = (page.locator("section.camera", has_text=name) for name in ("top", "files"))
    expect(top.locator(".pill")).to_have_text("frames come")
    expect(top.locator("dl")).to_contain_text(f"Size in pixels{SIDE} × {SIDE}")
    expect(top.locator("dl")).to_contain_text("Last frame0.")
    expect(top.locator("img")).to_have_js_property("naturalWidth", SIDE)
    expect(files.locator(".pill")).to_have_text("lost")
    expect(files).to_contain_text("incoming is no folder: give the folder in which photos arrive.")
    expect(page.locator("#lost")).to_have_text("Lost: files")
    (tmp_path / "incoming").mkdir()

    page.click("button[aria-label='Inspect a frame: top']")
    expect(page.locator(".toast")).to_contain_text("Z.png: anomalous.")
    expect(top.locator("dl")).to_contain_text("1 with a verdict, 0 without")

    page.click("button[aria-label='Pause: top']")
    expect(top.locator(".pill")).to_have_text("paused")
    expect(top.locator("button", has_text="Inspect a frame")).to_be_disabled()
    expect(top.locator("dl")).to_contain_text("Last frame0.")  # it is still read
    line.go("live")
    expect(page.locator("#verdict")).to_contain_text("PAUSED")
    expect(page.locator("#reason")).to_contain_text("The camera top is paused.")
    line.inspect("part.png", textured(1))  # from elsewhere
    line.expect_verdict("part.png", "GOOD")
    line.go("cameras")
    page.click("button[aria-label='Resume: top']")
    expect(top.locator(".pill")).to_have_text("frames come")
    assert [entry.what for entry in line.station.records.audit.page(limit=2)] == [
        "camera resume", "camera pause",
    ]  # fmt: skip

    expect(page.locator("#lost")).to_be_hidden()  # the folder came
    network.switch_off()
    expect(top.locator(".pill")).to_have_text("lost")
    expect(top).to_contain_text("Lost since")
    expect(page.locator("#lost")).to_have_text("Lost: top")
    network.switch_on()
    expect(top.locator(".pill")).to_have_text("frames come")
    expect(page.locator("#lost")).to_be_hidden()
