"""What an operator does at the page beside looking: many photos at once, undo, comparing, kinds."""

from __future__ import annotations

from typing import Any

from conftest import scratched, textured
from test_page import Line, browser, line, outputs, sync_api  # noqa: F401  (fixtures)
from test_station import png


def _file(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def test_many_photos_each_with_its_own_result_can_be_stopped_and_gone_on_with(
    line: Line,  # noqa: F811
) -> None:
    page, expect = line.page, sync_api.expect
    photos = [_file(f"{i}.png", png(textured(i))) for i in range(8)]
    photos[1] = _file("1.png", png(scratched(textured(1))))
    photos[2] = _file("broken.png", b"no photo")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/api/v1/inspect?*", hold)
    page.set_input_files("#file", photos)
    rows, title = page.locator(".uploads li"), page.locator(".uploads h2")
    expect(page.locator(".uploads li.sending")).to_have_count(3)
    expect(title).to_have_text("0 of 8 photos")
    page.get_by_role("button", name="Stop").click()
    for route in held:
        route.continue_()
    expect(title).to_have_text("3 of 8 photos")  # what was under way is finished, and no more
    expect(page.locator(".uploads li.waiting")).to_have_count(5)
    page.unroute("**/api/v1/inspect?*")
    assert line.station.records.count() == 2
    expect(rows.nth(1)).to_contain_text("1.png ✕ anomalous")
    expect(rows.nth(2)).to_contain_text("broken.png Is not a PNG")
    page.get_by_role("button", name="Go on").click()
    expect(title).to_have_text("Done: 7 of 8 photos have a verdict")
    assert sorted(one.name for one in line.station.records.page().records) == [
        f"{i}.png" for i in (0, 1, 3, 4, 5, 6, 7)
    ]
    page.get_by_role("button", name="Try those that failed again").click()
    expect(title).to_have_text("Done: 7 of 8 photos have a verdict")
    rows.nth(1).locator("a").click()
    line.expect_verdict("1.png", "ANOMALOUS")
    page.locator(".uploads").get_by_role("button", name="Close").click()
    expect(page.locator(".uploads")).to_be_hidden()


def test_what_was_done_is_undone_in_one_place_and_a_part_is_compared(
    line: Line,  # noqa: F811
) -> None:
    page, expect = line.page, sync_api.expect
    line.inspect("first.png", scratched(textured(1)))
    line.ask("POST", "records/1/feedback", json={"feedback": "defect", "kind": "scratch"})
    line.inspect("second.png", scratched(textured(2)))
    line.expect_verdict("second.png", "ANOMALOUS")
    undo = page.locator("#undo")
    expect(undo).to_be_disabled()
    page.click(".say.defect")
    expect(page.locator(".said")).to_contain_text("Called a defect")
    page.click("[data-kind=scratch]")
    page.click("#keep")
    expect(page.locator(".said")).to_contain_text("Called a defect (scratch)")
    line.go("history")  # from wherever one is by then
    expect(undo).to_have_attribute("title", "Undo: second.png: called a defect.")
    undo.click()
    expect(page.locator(".toast")).to_contain_text("second.png: called a defect.")
    undo.click()
    expect(undo).to_be_disabled()
    expect(page.locator(".toast")).to_contain_text("nothing is said of it any more")
    records = line.station.records.page().records
    assert [(one.feedback, one.feedback_kind) for one in records] == [
        (None, None), ("defect", "scratch"),
    ]  # fmt: skip

    line.go("live")
    line.expect_verdict("second.png", "ANOMALOUS")
    page.keyboard.press("k")
    panes = page.locator("dialog.comparing canvas")
    expect(panes.first).to_have_attribute("data-view", "4.000 0.000 0.000")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    for pane in (0, 1):  # both move as one
        expect(panes.nth(pane)).to_have_attribute("data-view", "3.077 0.308 0.000")
    box = panes.first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.mouse.up()
    expect(panes.nth(1)).to_have_attribute("data-view", "3.077 1.077 0.000")
    page.keyboard.press("0")
    expect(panes.nth(1)).to_have_attribute("data-view", "4.000 0.000 0.000")
    page.keyboard.press("Escape")
    expect(page.locator("dialog.comparing")).to_have_count(0)
