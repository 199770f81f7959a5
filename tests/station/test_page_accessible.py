"""The page against WCAG 2.2 AA by axe, in each language; states told without colour; roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import scratched, textured
from reconpatch.station.cameras.settings import FolderSettings, StreamSettings
from reconpatch.station.outputs.settings import WebhookSettings
from reconpatch.station.page_settings import languages
from reconpatch.station.station import Station
from test_page import PATIENCE, Line, browser, line, outputs, shown, sync_api  # noqa: F401  (fixtures)
from test_page_people import entered, served  # noqa: F401  (a fixture)
from test_people import PASSWORD, quick_hashes  # noqa: F401  (a fixture)

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
THREE_METRES = 57
"""CSS pixels of a capital that is 15 mm high: 3 m divided by 200, as signs are sized."""


def violations(page: Any) -> list[str]:
    """What axe finds wrong with the page as it is: the rule and the element."""
    found = axe.Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {node['target']}" for one in found for node in one["nodes"]]


VIEWS = {
    "live": ".verdict.anomalous", "threshold": ".handle[aria-valuenow]", "history": "td.name",
    "fit": "#fit-folder option", "models": "tr.current", "outputs": "tbody tr",
    "cameras": ".camera .pill.failed",
}  # fmt: skip


@pytest.mark.parametrize(("colours", "width"), [("light", 1280), ("dark", 360)])
def test_no_view_breaks_a_rule_in_any_language(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    small_model_file: Path,
    colours: str,
    width: int,
) -> None:
    told = {"erp": WebhookSettings(url="http://127.0.0.1:1/")}
    cameras = {
        "top": StreamSettings(url="rtsp://127.0.0.1:1/live"),
        "files": FolderSettings(path=tmp_path),
    }
    with shown(browser, tmp_path, small_model_file, {}, told, cameras=cameras) as one:
        page = one.page
        one.station.live.stale_after = 3600.0  # however long all views take
        page.emulate_media(color_scheme=colours)
        page.set_viewport_size({"width": width, "height": 800})
        one.inspect("part.png", textured(1))
        one.inspect("scratch.png", scratched(textured(2)))
        one.ask("POST", "records/2/feedback", json={"feedback": "defect", "kind": "scratch"})
        wrong: dict[str, list[str]] = {}
        for code in languages():
            page.evaluate("code => localStorage.setItem('language', code)", code)
            page.reload()
            sync_api.expect(page.locator("html")).to_have_attribute("lang", code)
            for view, ready in VIEWS.items():
                one.go(view)
                page.wait_for_selector(ready, state="attached")
                wrong[f"{code} {view}"] = violations(page)
                assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            one.go("live")
            page.wait_for_selector(".verdict.anomalous")
            page.keyboard.press("k")
            page.wait_for_selector("dialog.comparing canvas[data-view]")
            wrong[f"{code} comparison"] = violations(page)
            page.keyboard.press("Escape")
            page.keyboard.press("?")
            wrong[f"{code} settings"] = violations(page)
            page.keyboard.press("Escape")
            page.keyboard.press("w")
            wrong[f"{code} wall"] = violations(page)
            page.keyboard.press("Escape")
        assert {view: found for view, found in wrong.items() if found} == {}


STATES = ("good", "anomalous", "none", "stale", "unready")


@pytest.mark.parametrize("code", ["en", "de"])
def test_each_state_is_told_by_its_shape_and_its_word_from_three_metres(
    line: Line,  # noqa: F811
    code: str,
) -> None:
    page, expect = line.page, sync_api.expect
    page.evaluate("code => localStorage.setItem('language', code)", code)
    page.reload()
    page.wait_for_selector("#verdict")
    page.set_viewport_size({"width": 1280, "height": 720})
    verdict, seen = page.locator("#verdict"), {}

    def told(state: str) -> None:
        expect(verdict.locator(f"svg[data-shape={state}]")).to_be_visible()
        outline = verdict.locator("svg .outline").get_attribute("d")
        height = float(verdict.evaluate("one => parseFloat(getComputedStyle(one).fontSize)"))
        assert verdict.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
        assert page.locator(".wall").count() == 1
        assert 0.7 * height >= THREE_METRES  # what a capital is high of the font's size
        seen[state] = outline, verdict.inner_text()

    page.keyboard.press("w")
    line.inspect("part.png", textured(1))
    told("good")
    line.inspect("scratch.png", scratched(textured(2)))
    told("anomalous")
    line.station.live.stale_after = 0.0
    told("stale")
    line.station.live.stale_after = None
    with pytest.raises(AssertionError, match="422"):
        line.inspect("none.png", np.zeros((3, 3, 3), np.uint8))
    told("none")
    problem = {"ready": False, "reasons": ["the disk is full"]}

    def answer(route: Any) -> None:
        route.fulfill(json=route.fetch().json() | problem)

    page.route("**/api/v1/state", answer)
    told("unready")
    assert set(seen) == set(STATES)
    assert len({outline for outline, _ in seen.values()}) == len(STATES)
    assert len({word for _, word in seen.values()}) == len(STATES)


SOUNDS = """() => {
  window.sounds = 0;
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...given) {
    window.sounds += 1;
    return start.apply(this, given);
  };
}"""


def test_words_sound_and_light_are_chosen(line: Line) -> None:  # noqa: F811
    page, expect = line.page, sync_api.expect
    line.inspect("first.png", textured(1))
    line.expect_verdict("first.png", "GOOD")
    page.click("#open-help")
    page.select_option("#verdicts", "ok-ng")  # loads the page anew
    expect(page.locator("#verdict")).to_have_text("OK")
    page.evaluate(SOUNDS)
    page.click("#open-help")
    page.select_option("#light", "all")
    page.select_option("#sound", "ng")
    assert page.evaluate("window.sounds") == 2  # as it will sound
    page.keyboard.press("Escape")
    line.inspect("second.png", textured(2))
    line.expect_verdict("second.png", "OK")
    expect(page.locator("body.flash-good")).to_have_count(1)
    assert page.evaluate("window.sounds") == 2
    line.inspect("third.png", scratched(textured(3)))
    line.expect_verdict("third.png", "NG")
    expect(page.locator("body.flash-anomalous")).to_have_count(1)
    assert page.evaluate("window.sounds") == 4
    line.go("history")
    expect(page.locator("tbody")).to_contain_text("✕ NG")


@pytest.mark.parametrize("code", ["en", "de"])
def test_a_role_is_told_what_it_may_not_do_and_an_admin_lets_others_in(
    browser: Any,  # noqa: F811
    served: tuple[Station, str],  # noqa: F811
    code: str,
) -> None:
    station, url = served
    expect = sync_api.expect
    context = browser.new_context(viewport={"width": 768, "height": 1024}, locale=code)
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))

    entered(page, url, "Vic")
    good = page.locator(".say.good")
    expect(good).to_have_attribute("aria-disabled", "true")
    needs = {"en": "This takes the role operator", "de": "Dafür ist die Rolle Bediener nötig"}[code]
    good.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".toast.error")).to_contain_text(needs)
    assert station.records.get(1).feedback is None
    assert violations(page) == []
    page.goto(f"{url}/#people")
    expect(page.locator("section")).to_have_count(1)  # one's own password
    page.goto("about:blank")  # or the page would ask to log in by itself, in the midst of it
    context.clear_cookies()

    entered(page, url, "Ada")
    page.goto(f"{url}/#people")
    users, tokens = (
        page.locator(".sections > section").nth(0),
        page.locator(".sections > section").nth(1),
    )
    users.locator("[name=name]").fill("Eve")
    users.locator("[name=password]").fill(PASSWORD)
    users.locator("form button").click()
    expect(users.locator("tbody tr")).to_have_count(4)
    users.locator("tr", has_text="Eve").locator("select").select_option("engineer")
    changed = {"en": "Eve was changed", "de": "Eve wurde geändert"}[code]
    expect(page.locator(".toast")).to_contain_text(changed)
    people = station.records.people()
    assert next(one.role for one in people.users() if one.name == "Eve") == "engineer"
    users.locator("tr", has_text="Eve").locator("button").nth(1).click()
    page.click("dialog.ask button[value=yes]")
    expect(users.locator("tr", has_text="Eve").locator("button")).to_have_count(2)
    page.wait_for_function("document.querySelectorAll('dialog.ask').length === 0")
    tokens.locator("[name=name]").fill("camera-1")
    tokens.locator("form button").click()
    secret = page.locator(".secret").input_value()
    assert people.who(secret).scopes == {"inspect"}
    tokens.locator("tbody button").click()
    page.click("dialog.ask button[value=yes]")
    expect(tokens.locator("tbody button")).to_have_count(0)
    assert violations(page) == []
    assert [one.revoked is not None for one in people.tokens()] == [True]
    assert next(one.disabled for one in people.users() if one.name == "Eve") is not None
    context.close()
    assert wrong == []
