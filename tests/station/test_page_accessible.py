"""Every view of the page against WCAG 2.2 AA by axe, in each language; and states told without colour."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import scratched, textured
from reconpatch.station.outputs.settings import WebhookSettings
from reconpatch.station.page_settings import languages
from test_page import Line, browser, shown, sync_api  # noqa: F401  (a fixture)
from test_page_people import entered, served  # noqa: F401  (a fixture)
from test_people import quick_hashes  # noqa: F401  (a fixture)

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
}  # fmt: skip


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_no_view_breaks_a_rule_in_any_language(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    small_model_file: Path,
    colours: str,
) -> None:
    outputs = {"erp": WebhookSettings(url="http://127.0.0.1:1/")}
    with shown(browser, tmp_path, small_model_file, {}, outputs) as line:
        page = line.page
        page.emulate_media(color_scheme=colours)
        line.inspect("part.png", textured(1))
        line.inspect("scratch.png", scratched(textured(2)))
        line.ask("POST", "records/2/feedback", json={"feedback": "defect", "kind": "scratch"})
        wrong: dict[str, list[str]] = {}
        for code in languages():
            page.evaluate("code => localStorage.setItem('language', code)", code)
            page.goto(line.url)
            for view, ready in VIEWS.items():
                line.go(view)
                page.wait_for_selector(ready, state="attached")
                wrong[f"{code} {view}"] = violations(page)
            line.go("live")
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
