"""Outputs to the line, from the service and from its page."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from conftest import RGB, WAIT
from reconpatch.station.outputs.settings import WebhookSettings
from test_outputs import Receiver, receiver  # noqa: F401  (a fixture)
from test_page import Line, browser, line, sync_api  # noqa: F401  (fixtures)


@pytest.fixture
def outputs(receiver: Receiver) -> dict[str, Any]:  # noqa: F811
    return {
        "erp": WebhookSettings(url=receiver.url),
        "gone": WebhookSettings(url="http://127.0.0.1:1/"),
    }


def test_a_test_is_sent_from_the_page_and_what_waits_is_shown(
    line: Line,  # noqa: F811
    receiver: Receiver,  # noqa: F811
    defective_photo: RGB,
) -> None:
    page, expect = line.page, sync_api.expect
    line.go("outputs")
    erp, gone = (page.locator("tbody tr", has_text=name) for name in ("erp", "gone"))
    expect(erp).to_contain_text("nothing was sent yet")
    page.click("button[aria-label='Send a test: erp']")
    expect(page.locator(".toast")).to_contain_text("erp has taken a test in")
    assert receiver.next()["event"] == "test"
    expect(erp).to_contain_text("is told since")
    page.click("button[aria-label='Send a test: gone']")
    expect(page.locator(".toast.error")).to_contain_text("the receiver does not answer")
    expect(page.locator("#failing")).to_have_text("Not told: gone")
    line.inspect("part.png", defective_photo)
    assert receiver.next()["name"] == "part.png"
    expect(gone.locator("td.n").nth(1)).to_contain_text("1 since")
    page.click("button[aria-label='Send again: gone']")
    expect(page.locator(".toast.info")).to_have_text("gone is tried again.×")
    page.click("button[aria-label='Forget unsent: gone']")
    page.click("dialog button[value=yes]")
    expect(page.locator(".toast.info")).to_have_text("1 message for gone forgotten.×")
    expect(gone.locator("td.n").nth(1)).to_have_text("0")
    [erp_state, gone_state] = line.ask("GET", "outputs")["outputs"]
    assert (erp_state["sent"], erp_state["waiting"], erp_state["state"]) == (1, 0, "ok")
    assert (gone_state["waiting"], gone_state["state"]) == (0, "failing")
    figures = httpx.get(f"{line.url}/api/v1/metrics", timeout=WAIT).text
    assert 'reconpatch_output_up{output="erp"} 1.0' in figures
    assert 'reconpatch_output_sent_total{output="erp"} 1.0' in figures


def test_the_service_says_which_outputs_there_are(
    line: Line,  # noqa: F811
) -> None:
    assert line.ask("GET", "state")["outputs"] == ["erp", "gone"]
