"""Shift numbers and reports on the page, in a real browser."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conftest import scratched, textured
from reconpatch.station.records import Verdict
from test_page import Line, browser, line, outputs, sync_api  # noqa: F401  (fixtures)
from test_page_accessible import violations


@pytest.fixture
def shift(line: Line) -> Line:  # noqa: F811
    """A station with four photos of now, a defect among them, and 120 of the day before."""
    for seed in range(3):
        line.inspect(f"part{seed}.png", textured(seed))
    line.inspect("scratch.png", scratched(textured(4)))
    records = line.station.records
    *_, good = list(records.export())
    names = list(Verdict.__dataclass_fields__)
    past = Verdict(**{name: getattr(good, name) for name in names})
    yesterday = datetime.now(UTC).replace(hour=0, minute=0) - timedelta(days=1)
    records.add(
        [
            replace(past, time=yesterday + timedelta(hours=hour), score=past.score + hour % 2,
                    lot="L1")
            for hour in range(12) for _ in range(10)
        ]
    )  # fmt: skip
    flagged = line.ask("GET", "records", params={"verdict": "anomalous"})["records"][0]
    records.feedback(flagged["id"], "defect", kind="scratch", by="Ada")
    return line


def test_numbers_of_a_shift_lead_to_their_records(shift: Line) -> None:
    page, expect = shift.page, sync_api.expect
    shift.go("shifts")
    overview, own = page.locator("table.numbers").nth(0), page.locator("table.numbers").nth(1)
    expect(overview.locator("tbody tr")).to_have_count(1)
    expect(overview.locator("[data-count=inspected]")).to_have_text("4")
    expect(own.locator("tbody tr")).to_contain_text("day, 00:00–00:00")
    expect(overview.locator(".promise")).to_contain_text("promised")
    overview.locator("[data-count=anomalous]").click()
    expect(page.locator("td.name")).to_have_text(["scratch.png"])
    expect(page.locator("#filter-verdict")).to_have_value("anomalous")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Shifts")

    expect(page.locator(".map button")).not_to_have_count(0)
    page.get_by_role("button", name="1 record of the kind scratch").click()
    expect(page.locator(".listed a")).to_have_count(1)
    assert violations(page) == []
    page.select_option("#shift-time", "yesterday")
    expect(overview.locator("[data-count=inspected]")).to_have_text("120")
    expect(page.locator(".trend .point")).to_have_count(12)
    expect(page.locator(".trend .limit")).to_have_count(2)
    page.select_option("#shift-by", "lot")
    expect(own.locator("tbody th")).to_have_text(["L1"])
    shift.go("live")
    page.fill("#lot", "L3")
    shift.drop("dropped.png", textured(9))
    shift.expect_verdict("dropped.png", "")
    assert shift.station.records.page(limit=1).records[0].lot == "L3"
    page.reload()
    expect(page.locator("#lot")).to_have_value("L3")
    shift.go("shifts")
    page.select_option("#shift-by", "lot")
    page.select_option("#shift-time", "yesterday")
    page.fill("#shift-lot", "L2")
    page.keyboard.press("Tab")
    expect(page.locator(".shifts .note").first).to_have_text("Nothing was inspected in this time.")
    page.fill("#shift-lot", "L1")
    page.select_option("#shift-time", "7")
    expect(own.locator("[data-count=inspected]")).to_have_text("120")
    own.locator("[data-count=inspected]").click()
    expect(page.locator("#filter-lot")).to_have_value("L1")
    expect(page.locator("td.name")).to_have_count(50)


def test_a_drift_alarm_is_acknowledged_beside_the_numbers(shift: Line) -> None:
    page, expect = shift.page, sync_api.expect
    record = shift.station.records.page(limit=1).records[0]
    shift.station.records.log.add_alarm(
        {
            "time": record.time, "product": "disc", "version": 1, "record": record.id, "photo": 9,
            "direction": "higher", "message": "Photos score higher.",
        }
    )  # fmt: skip
    shift.go("shifts")
    expect(page.locator(".alarms")).to_contain_text("Photos score higher.")
    page.fill("#ack-by", "Ada")
    page.fill("#ack-note", "new lamp")
    page.click("#acknowledge")
    expect(page.locator(".drifted [role=status]")).to_contain_text("No open alarm.")
    page.click(".drifted summary")
    expect(page.locator(".drifted .alarms")).to_contain_text("Acknowledged by Ada")
    head = shift.station.records.audit.head()
    assert (head.what, head.who, head.why) == ("acknowledge", "Ada", "1 drift alarms: new lamp")


def test_a_shift_and_a_record_are_printed_and_kept_as_zip(shift: Line, tmp_path: Path) -> None:
    page, expect = shift.page, sync_api.expect
    shift.go("shifts")
    expect(page.locator("#shift-report")).to_have_attribute("href", re.compile("#report/shift/"))
    with page.expect_download() as download:
        page.click("#shift-zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sum(name.startswith("photos/") for name in archive.namelist()) == 4
    page.click("#shift-report")
    expect(page.locator("#print")).to_be_enabled()
    expect(page.locator(".paper h1")).to_have_text("Inspections of disc")
    expect(page.locator(".flagged li")).to_have_count(1)
    assert violations(page) == []
    page.click(".flagged a")
    expect(page.locator(".stamp")).to_have_text("✕ ANOMALOUS")
    expect(page.locator("#print")).to_be_enabled()
    expect(page.locator(".pictures img")).to_have_count(3)
    assert violations(page) == []
    for selector in ("body > header", ".unprinted"):
        expect(page.locator(selector).first).to_be_visible()
    page.emulate_media(media="print")
    for selector in ("body > header", ".unprinted"):
        expect(page.locator(selector).first).to_be_hidden()
    printed = page.pdf(prefer_css_page_size=True)
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") == 1  # of A4
    assert b"/MediaBox [0 0 595 842]" in printed or b"/MediaBox [0 0 594" in printed
    page.emulate_media(media="screen")
    page.goto(f"{shift.url}/#report/99999")
    expect(page.locator(".paper [role=alert]")).to_contain_text("there is no record 99999")
