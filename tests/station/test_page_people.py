"""The page of a station with users, by role, on a wide screen and on a phone."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from conftest import scratched, textured
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.guard import Access
from reconpatch.station.service import create_app
from reconpatch.station.station import Station
from test_page import PATIENCE, browser, sync_api  # noqa: F401  (a fixture)
from test_people import PASSWORD, quick_hashes  # noqa: F401  (a fixture)
from test_station import inspect


@pytest.fixture
def served(small_model_file: Path, tmp_path: Path) -> Iterator[tuple[Station, str]]:
    """A station with one record that asks for names, and its URL; Vic is viewer, Bob operator."""
    model = Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))
    station = Station(DataFolder(tmp_path / "data"), [model], threads=1)
    people = station.records.people()
    for name, role in (("Vic", "viewer"), ("Bob", "operator"), ("Ada", "admin")):
        people.set_user(name, role=role, password=PASSWORD)
    inspect(station, scratched(textured(1)))
    application = create_app(station, access=Access(people=people))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield station, f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


def entered(page: Any, url: str, name: str, password: str = PASSWORD) -> None:
    page.goto(url)
    page.fill("#name", name)
    page.fill("#password", password)
    page.click("button.primary")


@pytest.mark.parametrize("width", [1280, 390])
def test_each_role_does_on_the_page_what_it_may(
    browser: Any,  # noqa: F811
    served: tuple[Station, str],
    width: int,
) -> None:
    station, url = served
    expect = sync_api.expect
    context = browser.new_context(viewport={"width": width, "height": 800})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))

    entered(page, url, "Vic", "a wrong password")
    expect(page.locator("[role=alert]")).to_have_text(
        "The name or the password is wrong: check both."
    )
    entered(page, url, "Vic")
    expect(page.locator("#open-help")).to_have_text("Vic ?")
    expect(page.locator("#verdict")).to_contain_text("ANOMALOUS")
    page.keyboard.press("g")
    expect(page.locator(".toast.error")).to_contain_text(
        "Vic is viewer, and this takes the role operator"
    )
    assert station.records.get(1).feedback is None
    page.click("#open-help")
    expect(page.locator("#me span")).to_have_text("You are Vic (viewer).")
    expect(page.locator("#operator")).to_be_hidden()
    page.click("#me button")
    page.wait_for_selector("#password")

    entered(page, url, "Bob")
    expect(page.locator("#open-help")).to_have_text("Bob ?")
    expect(page.locator("#verdict")).to_contain_text("ANOMALOUS")
    page.keyboard.press("g")
    expect(page.locator(".toast")).to_contain_text("good")
    head = station.records.audit.head()
    assert (head.what, head.who, head.subject) == ("feedback", "Bob", "record 1")
    page.goto("about:blank")
    context.clear_cookies()
    page.goto(url)
    page.wait_for_selector("#password")
    context.close()
    assert wrong == []
