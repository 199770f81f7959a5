"""The service over HTTP: states instead of verdicts, changes by several people, proxies, health."""

from __future__ import annotations

import asyncio
import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from conftest import RGB, scratched, textured
from reconpatch.errors import OutputError
from reconpatch.station import guard as service_guard
from reconpatch.station.guard import Access
from reconpatch.station.pictures import Picture
from reconpatch.station.station import Limits
from test_service import API, TOKEN, inspect, picture, problem, start  # noqa: F401 - a fixture
from test_station import png

WAIT = 60


@pytest.fixture
def client(start: Any) -> TestClient:  # noqa: F811
    opened: TestClient = start()
    return opened


# --- Instead of a verdict ------------------------------------------------------------------------


def live(client: TestClient, product: str = "disc") -> Any:
    found = client.get(f"{API}/state").json()
    return next(one for one in found["products"] if one["name"] == product)


def test_the_state_follows_verdicts_and_failures(client: TestClient, good_photo: RGB) -> None:
    assert live(client)["state"] == "none"
    record = inspect(client, good_photo)
    now = live(client)
    assert (now["state"], now["last"]["id"], now["failure"]) == ("ok", record["id"], None)
    assert 0 <= now["last"]["age"] < 60
    cut = png(good_photo)[:-40]
    client.post(f"{API}/inspect", content=cut, params={"name": "cut.png"})
    now = live(client)
    assert (now["state"], now["failure"]["name"]) == ("failed", "cut.png")
    [failed] = client.get(f"{API}/failures", params={"product": "disc"}).json()["failures"]
    assert failed == now["failure"]
    assert failed["kind"] == "photo"
    state = client.get(f"{API}/state").json()
    assert (state["ready"], state["reasons"], state["stale_after"]) == (True, [], 60.0)


@pytest.mark.parametrize("kind", ["declared", "streamed", "form", "broken"])
def test_an_upload_that_comes_to_nothing_is_a_failure(start: Any, kind: str) -> None:  # noqa: F811
    client = start(max_bytes=1_000)
    told = threading.Event()
    failed = client.station.failed
    client.station.failed = lambda *given: (failed(*given), told.set())
    path = f"{API}/inspect"
    if kind == "declared":
        answer = client.post(path, content=b"x", headers={"Content-Length": "100000"})
    elif kind == "streamed":
        answer = client.post(path, content=(b"x" * 1_000 for _ in range(100)))
    elif kind == "form":
        answer = client.post(path, files={"file": ("large.png", b"x" * 1_001)})
    else:
        form = {"Content-Type": "multipart/form-data; boundary=y"}
        answer = client.post(path, content=b"--x", headers=form)
    assert answer.status_code in (400, 413)
    assert told.wait(WAIT)  # written beside the answer
    [found] = client.get(f"{API}/failures").json()["failures"]
    assert found["kind"] == "upload"
    assert live(client)["state"] == "failed"


def test_failures_of_a_batch_are_kept(client: TestClient, good_photo: RGB) -> None:
    files = [("files", ("a.png", png(good_photo))), ("files", ("b.png", b"no photo"))]
    client.post(f"{API}/inspect-batch", files=files)
    [failed] = client.get(f"{API}/failures").json()["failures"]
    assert failed["name"] == "b.png"


# --- Health --------------------------------------------------------------------------------------


def test_health_says_why_it_is_not_ready(client: TestClient, monkeypatch: Any) -> None:
    path = f"{API}/health"
    ready = client.get(path).json()
    assert (ready["status"], ready["reasons"]) == ("ok", [])
    full = OutputError("/secret/photos/3f could not be written: the disk is full")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/secret/photos/3f")
    with monkeypatch.context() as patched:
        patched.setattr(client.station.photos, "keep", lambda *_, **__: (_ for _ in ()).throw(full))
        patched.setattr(client.station.readiness, "_can_write", lambda: False)
        client.post(f"{API}/inspect", content=png(textured(1)))
        told = client.get(path)
        assert told.status_code == 503
        assert "No space left" in told.json()["error"]
        assert "/" not in "".join(told.json()["reasons"])
        assert client.head(path).status_code == 503
        assert not client.get(f"{API}/state").json()["ready"]
    inspect(client, textured(1))
    assert client.get(path).json()["status"] == "ok"


def test_health_waits_neither_for_a_disk_nor_for_pictures(
    client: TestClient, monkeypatch: Any
) -> None:
    record = inspect(client, textured(1))
    let_go = threading.Event()

    def hang(*_: Any) -> Any:
        assert let_go.wait(WAIT)
        return Picture(b"", "image/png")

    monkeypatch.setattr(client.station.readiness, "_check_database", hang)
    monkeypatch.setattr(client.app.state.service.pictures, "photo", hang)
    try:
        with ThreadPoolExecutor(50) as pool:
            path = f"{API}/records/{record['id']}/picture"
            pending = [pool.submit(client.get, path) for _ in range(50)]
            while client.app.state.service._drawing < 50:
                pass
            assert client.get(f"{API}/health").status_code == 200
            assert client.get(f"{API}/records").status_code == 200
            let_go.set()
            assert {answer.result().status_code for answer in pending} == {200}
    finally:
        let_go.set()


def test_past_a_bound_pictures_are_put_off(client: TestClient, good_photo: RGB) -> None:
    record = inspect(client, good_photo)
    client.app.state.service._drawing = 200
    answer = client.get(f"{API}/records/{record['id']}/overlay")
    assert "pictures wait to be drawn" in problem(answer, 503)
    assert answer.headers["retry-after"] == "2"


# --- Methods -------------------------------------------------------------------------------------


def test_head_is_get_without_the_body(client: TestClient, good_photo: RGB) -> None:
    record = inspect(client, good_photo)
    for path in ("health", "records", f"records/{record['id']}/picture", "records.csv", "state"):
        get, head = (client.request(method, f"{API}/{path}") for method in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
    assert client.head(f"{API}/records/999").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "inspect", "POST"), ("DELETE", "health", "GET"), ("POST", "records", "GET"),
        ("GET", "products/disc/retire", "POST"), ("PATCH", "fit", "GET"),
    ],
)  # fmt: skip
def test_a_wrong_method_says_which_is_right(
    client: TestClient, method: str, path: str, allow: str
) -> None:
    assert client.get("/").status_code == 200  # the page would answer for all that is no route
    answer = client.request(method, f"{API}/{path}")
    assert f"use {answer.headers['allow']}" in problem(answer, 405)
    assert allow in answer.headers["allow"]


# --- Changes -------------------------------------------------------------------------------------


def test_a_change_of_what_somebody_else_changed_is_refused(client: TestClient) -> None:
    [seen] = client.get(f"{API}/products").json()["products"]
    path = f"{API}/products/disc"
    given = {"If-Match": seen["etag"], "X-Operator": "J%C3%B6rg%0A"}
    first = client.put(f"{path}/threshold", json={"score": 3.0}, headers=given)
    assert first.status_code == 200
    tag = first.headers["etag"]
    assert tag == live(client)["etag"] == client.get(f"{path}/versions").headers["etag"]
    assert tag == client.get(f"{path}/threshold").headers["etag"] != seen["etag"]
    for method, route, body in (
        ("PUT", "threshold", {"score": 4.0}), ("POST", "rollback", {}), ("POST", "retire", None),
        ("POST", "default", None), ("POST", "update", None),
    ):  # fmt: skip
        answer = client.request(method, f"{path}/{route}", json=body, headers=given)
        assert "by Jörg" in problem(answer, 412), route
        assert answer.headers["etag"] == tag
    assert client.get(f"{API}/products").json()["products"][0]["version"] == 2
    for expected in ("*", None):  # programs may leave it out
        headers = {} if expected is None else {"If-Match": expected}
        answer = client.put(f"{path}/threshold", json={"score": 5.0}, headers=headers)
        assert answer.status_code == 200
    [*_, oldest] = client.get(f"{path}/changes").json()["changes"]
    assert (oldest["what"], oldest["by"]) == ("threshold", "Jörg")


def test_feedback_that_somebody_else_gave_is_not_written_over(
    client: TestClient, good_photo: RGB
) -> None:
    record = inspect(client, good_photo)
    path = f"{API}/records/{record['id']}"
    seen = {"If-Match": client.get(path).headers["etag"]}
    assert seen["If-Match"] == f'"{record["id"]}-none"'
    first = client.post(f"{path}/feedback", json={"feedback": "good"}, headers=seen)
    assert first.headers["etag"] == f'"{record["id"]}-good"'
    second = client.post(f"{path}/feedback", json={"feedback": "defect"}, headers=seen)
    assert "called good" in problem(second, 412)
    assert client.get(path).json()["feedback"] == "good"


def test_a_threshold_that_misses_confirmed_defects_is_asked_about(client: TestClient) -> None:
    defect = inspect(client, scratched(textured(1)), "defect.png")
    client.post(f"{API}/records/{defect['id']}/feedback", json={"feedback": "defect"})
    path = f"{API}/products/disc"
    shown = client.get(f"{path}/threshold", params={"score": 1000.0}).json()["confirmed"]
    assert (shown["defects"], shown["missed_then"]) == (1, 1)
    asked = client.put(f"{path}/threshold", json={"score": 1000.0})
    assert asked.status_code == 409
    told = asked.json()
    assert "1 of 1 confirmed defects" in told["error"]
    assert (told["threshold"], told["confirmed"]) == (1000.0, shown)
    assert shown["missed"][0]["record"] == defect["id"]
    given = {"score": 1000.0, "confirm": True}
    assert client.put(f"{path}/threshold", json=given).json()["number"] == 2
    [change] = client.get(f"{path}/changes").json()["changes"]
    assert change["figures"]["confirmed"]["missed_then"] == 1
    client.put(f"{path}/threshold", json={"score": 0.01})
    assert client.get(f"{path}/versions/2/preview").json()["confirmed"]["missed_then"] == 1
    assert client.post(f"{path}/rollback", json={"number": 2}).status_code == 409
    back = client.post(f"{path}/rollback", json={"number": 2, "confirm": True})
    assert back.json()["number"] == 2


def test_products_come_and_go(start: Any, small_model: Any, tmp_path: Path) -> None:  # noqa: F811
    files = [tmp_path / "disc.rcp", tmp_path / "ring.rcp"]
    for file in files:
        small_model.save(file)
    client = start(*files)
    assert inspect(client, textured(1))["product"] == "disc"
    path = f"{API}/products"
    assert "name another one" in problem(client.post(f"{path}/disc/retire"), 400)
    assert client.post(f"{path}/ring/default").json()["default"] == "ring"
    assert inspect(client, textured(1))["product"] == "ring"
    left = client.post(f"{path}/disc/retire").json()
    assert ([one["name"] for one in left["products"]], left["retired"]) == (["ring"], ["disc"])
    answer = client.post(f"{API}/inspect", content=b"x", params={"product": "disc"})
    assert "give one of ring" in problem(answer, 404)
    assert client.get(f"{path}/disc/versions").status_code == 200  # what was is still there
    assert len(client.post(f"{path}/disc/restore").json()["products"]) == 2
    for route in ("default", "retire", "restore"):
        assert client.post(f"{path}/bolt/{route}").status_code == 404


def test_a_product_whose_model_is_damaged_is_told(
    start: Any, small_model: Any, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    good, bad = tmp_path / "disc.rcp", tmp_path / "ring.rcp"
    small_model.save(good)
    bad.write_bytes(b"half")
    client = start(good, bad)
    found = client.get(f"{API}/products").json()
    assert [one["name"] for one in found["products"]] == ["disc"]
    [out] = found["out"]
    assert (out["name"], out["version"], "ring.rcp" in out["error"]) == ("ring", None, True)
    assert live(client, "ring")["state"] == "out"
    answer = client.post(f"{API}/inspect", content=b"x", params={"product": "ring"})
    assert "out of service" in problem(answer, 404)


def test_drift_alarms_are_acknowledged(client: TestClient, good_photo: RGB) -> None:
    record = inspect(client, good_photo)
    client.station.records.log.add_alarm(
        {
            "time": datetime.now(UTC), "product": "disc", "version": 1, "record": record["id"],
            "photo": 40, "direction": "higher", "message": "Photos score higher.",
        }
    )  # fmt: skip
    path = f"{API}/products/disc/drift"
    [alarm] = client.get(path).json()["open"]
    assert client.get(path).json()["last"] == alarm["message"] == "Photos score higher."
    given = {"by": "Ada", "note": "new lamp", "up_to": alarm["id"]}
    assert client.post(f"{path}/acknowledge", json=given).json()["open"] == []
    [kept] = client.get(f"{path}/alarms").json()["alarms"]
    assert (kept["acknowledged_by"], kept["note"]) == ("Ada", "new lamp")
    assert problem(client.post(f"{path}/acknowledge", json={"by": ""}), 422)
    [change] = client.get(f"{API}/products/disc/changes").json()["changes"]
    assert (change["what"], change["by"]) == ("acknowledge", "Ada")


def test_orphans_are_told(client: TestClient) -> None:
    folder = client.station.data.photos / "ab"
    folder.mkdir(parents=True)
    (folder / ("ab" * 32)).write_bytes(b"x")
    client.station._tidy(first=True)
    found = client.get(f"{API}/orphans").json()
    assert (found["photos"], "reconpatch orphans" in found["sentence"]) == (1, True)
    assert (folder / ("ab" * 32)).exists()


# --- Uploads and pictures ------------------------------------------------------------------------


def guard_of(client: TestClient) -> service_guard.Guard:
    app = client.app.middleware_stack
    while not isinstance(app, service_guard.Guard):
        app = app.app
    return app


def test_uploads_are_bounded_for_all_together(start: Any) -> None:  # noqa: F811
    """What stands still holds what it has sent; others are put off while there is no room."""
    client = start(limits=Limits(queue_bytes=50_000))  # 100,000 for all
    guard = guard_of(client)
    guard._held = 99_999
    answer = client.post(f"{API}/inspect", content=png(textured(1)))
    assert "too many uploads" in problem(answer, 503)
    assert answer.headers["retry-after"]
    assert guard._held == 99_999  # given back by who was refused
    guard._held = 0
    assert inspect(client, textured(1))
    assert guard._held == 0  # and by who was answered


def test_a_service_that_stops_waits_for_no_more_bytes(client: TestClient) -> None:
    client.app.state.stopping.set()
    told: list[Any] = []

    async def run() -> None:
        async def stalled() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            told.append(message)

        scope = {
            "type": "http", "method": "POST", "path": f"{API}/inspect", "query_string": b"",
            "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"100")], "scheme": "http",
            "http_version": "1.1", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
            "raw_path": b"", "root_path": "",
        }  # fmt: skip
        await asyncio.wait_for(client.app(scope, stalled, send), service_guard.PATIENCE / 2)

    client.portal.call(run)
    assert told[0]["status"] == 400


def test_small_pictures_of_large_photos_are_made_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = inspect(client, textured(1, 700, 900))
    path = f"{API}/records/{record['id']}/picture"
    assert picture(client.get(path, params={"size": 320})).size == (320, 249)
    monkeypatch.setattr(client.station, "photo", None)  # nothing is decoded any more
    for size in (320, 160, 96):
        answer = client.get(path, params={"size": size})
        assert max(picture(answer).size) == size
        assert "immutable" in answer.headers["cache-control"]
    assert picture(client.get(path, params={"size": 64, "kind": "png"})).format == "PNG"


def test_the_csv_says_which_letters_it_uses(client: TestClient, good_photo: RGB) -> None:
    inspect(client, good_photo, "日本 ü.png")
    content = client.get(f"{API}/records.csv").content
    assert content.startswith(b"\xef\xbb\xbf")
    assert "日本 ü.png" in content.decode("utf-8-sig")


# --- Behind a proxy, and the login page ----------------------------------------------------------

PROXIED = Access(token=TOKEN, origin="https://line.example", prefix="/station3", secure=True)
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def remote(start: Any) -> TestClient:  # noqa: F811
    """A service that others reach by its name, with a token."""
    access = Access(any_host=True, token=TOKEN)
    opened: TestClient = start(access=access, base_url="http://station.example:8000")
    return opened


@pytest.mark.parametrize("keeps_prefix", [True, False])
@pytest.mark.parametrize("host", ["line.example", "127.0.0.1:8000"])
def test_behind_a_proxy_the_page_and_its_changes_work(
    start: Any, host: str, keeps_prefix: bool  # noqa: F811
) -> None:  # fmt: skip
    client = start(access=PROXIED)
    prefix = "/station3" if keeps_prefix else ""
    headers = {"Host": host, "Origin": "https://line.example", "Sec-Fetch-Site": "same-origin"}
    visit = client.get(f"{prefix}/", params={"token": TOKEN}, headers=headers)
    assert (visit.status_code, visit.headers["location"]) == (303, "/station3/")
    cookie = visit.headers["set-cookie"]
    assert "Path=/station3/" in cookie
    assert "; Secure" in cookie
    headers["Cookie"] = cookie.partition(";")[0]
    path = f"{prefix}{API}/products/disc/threshold"
    assert client.put(path, json={"score": 3.0}, headers=headers).status_code == 200
    assert client.get(f"{prefix}/style.css", headers=headers).status_code == 200
    for other in ("https://evil.example", "http://line.example", "https://line.example:444"):
        foreign = headers | {"Origin": other}
        assert problem(client.put(path, json={"score": 4.0}, headers=foreign), 403)
    answer = client.get(f"{prefix}/", headers=headers | {"Host": "evil.example"})
    assert problem(answer, 421)


def test_the_prefix_alone_leads_to_the_page(start: Any) -> None:  # noqa: F811
    client = start(access=PROXIED)
    answer = client.get("/station3")
    assert (answer.status_code, answer.headers["location"]) == (308, "/station3/")
    given = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/station33/", headers=given).status_code == 404
    description = client.get(f"{API}/openapi.json", headers=given).json()
    assert description["servers"] == [{"url": "/station3"}]


def test_a_person_without_the_token_is_asked_for_it(remote: TestClient) -> None:
    asked = remote.get("/?view=live", headers=BROWSER)
    assert (asked.status_code, asked.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert 'value="/?view=live"' in asked.text
    assert "default-src 'self'" in asked.headers["content-security-policy"]
    assert remote.get("/style.css").status_code == 200  # what the page is drawn with
    assert problem(remote.get("/app.js"), 401)
    assert problem(remote.post(f"{API}/inspect", content=b"x", headers=BROWSER), 401)
    wrong = remote.post("/login", data={"token": "wrong", "next": '/"><script>'})
    assert wrong.status_code == 401
    assert "not the token" in wrong.text
    assert "<script>" not in wrong.text
    right = remote.post("/login", data={"token": TOKEN, "next": "/?view=live"})
    assert (right.status_code, right.headers["location"]) == (303, "/?view=live")
    assert remote.get(f"{API}/records").status_code == 200
    assert remote.post("/logout").status_code == 303
    assert problem(remote.get(f"{API}/records"), 401)


@pytest.mark.parametrize(
    "address", ["//evil.example", "https://evil.example", "/\\evil.example", ""]
)
def test_the_login_leads_to_its_own_pages_only(remote: TestClient, address: str) -> None:
    answer = remote.post("/login", data={"token": TOKEN, "next": address})
    assert answer.headers["location"] == "/"


def test_a_login_from_another_site_or_of_any_size_is_refused(remote: TestClient) -> None:
    evil = {"Origin": "http://evil.example"}
    assert problem(remote.post("/login", data={"token": TOKEN}, headers=evil), 403)
    assert problem(remote.post("/login", data={"token": "x" * 5_000}), 413)


def test_two_stations_of_one_machine_have_cookies_of_their_own(start: Any) -> None:  # noqa: F811
    access = Access(any_host=True, token=TOKEN)
    names = set()
    for _ in range(2):
        client = start(access=access, base_url="http://station.example:8000")
        visit = client.get("/", params={"token": TOKEN})
        names.add(visit.headers["set-cookie"].partition("=")[0])
    assert len(names) == 2


def test_a_link_from_another_page_finds_who_is_logged_in(remote: TestClient) -> None:
    visit = remote.get("/", params={"token": TOKEN})
    assert "SameSite=lax" in visit.headers["set-cookie"]
    linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", **BROWSER}
    assert remote.get("/", headers=linked).status_code == 200
