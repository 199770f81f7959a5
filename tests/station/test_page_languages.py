"""The page in another language: the station's, and the one that somebody at it chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import scratched, textured
from reconpatch.station.page_settings import PageSettings
from test_page import browser, shown, sync_api  # noqa: F401  (a fixture)


def test_the_page_speaks_the_language_of_its_station_and_then_the_one_that_is_chosen(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    small_model_file: Path,
) -> None:
    expect = sync_api.expect
    with shown(
        browser, tmp_path, small_model_file, {}, settings=PageSettings(language="de")
    ) as line:
        page = line.page
        line.inspect("part.png", scratched(textured(1)))
        line.expect_verdict("part.png", "AUFFÄLLIG")
        expect(page.locator("html")).to_have_attribute("lang", "de")
        [record] = line.station.records.page().records
        score = page.locator(".facts b").nth(1)
        expect(score).to_contain_text(f"{record.score:.4g}".replace(".", ","))
        page.keyboard.press("d")
        expect(page.locator(".toast")).to_contain_text("part.png: als Fehler gemeldet.")
        line.go("threshold")
        # A field for a number is one in every language; what the service says is marked as English.
        expect(page.locator("#exact")).not_to_have_value("")
        expect(page.locator(".promise [lang=en]")).to_contain_text("good photos")
        page.click("#open-help")
        page.select_option("#language", "en")
        expect(page.locator("nav [aria-current]")).to_have_text("Threshold")
        expect(page.locator("html")).to_have_attribute("lang", "en")
        page.reload()
        expect(page.locator("h1")).to_have_text("Threshold of disc")
