"""The service over HTTP: what it answers, whom it refuses, and that it never breaks."""

from __future__ import annotations

import asyncio
import csv
import errno
import io
import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import reconpatch
from conftest import REPOSITORY, RGB, scratched, textured
from reconpatch.errors import BusyError
from reconpatch.model.model import Inspector
from reconpatch.report.overlay import colourise, overlay
from reconpatch.station import guard as service_guard
from reconpatch.station.cameras.cameras import Cameras
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.guard import Access, is_loopback, refusal
from reconpatch.station.service import create_app
from reconpatch.station.station import Limits, Station
from test_station import png

API = "/api/v1"
HERE = "http://127.0.0.1:8000"
TOKEN = "0123456789abcdef-token"


@pytest.fixture
def start(tmp_path: Path, small_model_file: Path) -> Iterator[Any]:
    """Start services, each with a folder of its own; clients that have entered them."""
    opened: list[TestClient] = []

    def start_one(
        *models: Path,
        limits: Limits | None = None,
        base_url: str = HERE,
        camera_settings: Any = None,
        **options: Any,
    ) -> TestClient:
        if not models:
            models = (Path(shutil.copy(small_model_file, tmp_path / "disc.rcp")),)
        data = DataFolder(tmp_path / f"data{len(opened)}")
        station = Station(data, models, limits=limits, threads=1)
        options["cameras"] = Cameras(camera_settings or {}, station)
        client = TestClient(
            create_app(station, **options), base_url=base_url, raise_server_exceptions=False,
            follow_redirects=False,
        )  # fmt: skip
        client.__enter__()
        client.station = station
        opened.append(client)
        return client

    yield start_one
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start: Any) -> TestClient:
    return start()


def inspect(client: TestClient, pixels: Any, name: str = "part.png", **query: Any) -> Any:
    answer = client.post(f"{API}/inspect", files={"file": (name, png(pixels))}, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer: httpx.Response, status: int) -> str:
    """The one sentence of an error; nothing else is in the answer."""
    assert answer.status_code == status, answer.text
    values = answer.json()
    assert list(values) == ["error"]
    assert "Traceback" not in values["error"]
    sentence: str = values["error"]
    return sentence


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == f"image/{image.format.lower()}"
    return image


# --- Inspect -------------------------------------------------------------------------------------


def test_a_photo_is_inspected_as_a_form_and_as_raw_bytes(
    client: TestClient, small_model: Any, defective_photo: RGB
) -> None:
    alone, good = small_model.inspect(defective_photo), len(small_model.photos)
    by_form = inspect(client, defective_photo, "C:\\line\\part 7.png", product="disc")
    raw = client.post(
        f"{API}/inspect", content=png(defective_photo), params={"name": "raw.png"},
        headers={"Content-Type": "image/png"},
    ).json()  # fmt: skip
    for record, name in ((by_form, "part 7.png"), (raw, "raw.png")):
        assert record["score"] == pytest.approx(alone.score, rel=1e-4)
        assert (record["anomalous"], record["p_value"]) == (True, 1 / (1 + good))
        assert (record["name"], record["product"], record["version"]) == (name, "disc", 1)
        assert record["closest"]["photo"] == alone.closest.photo
        assert len(record["regions"]) == len(alone.regions)
        assert client.get(f"{API}/records/{record['id']}").json() == record
    assert by_form["id"] < raw["id"]


def test_a_batch_has_a_record_or_an_error_for_each_photo(client: TestClient) -> None:
    files = [("files", (f"{i}.png", png(textured(i)))) for i in range(10)]
    files.insert(3, ("files", ("damaged.png", b"no photo")))
    answer = client.post(f"{API}/inspect-batch", files=files)
    items = answer.json()["items"]
    assert [item["name"] for item in items] == [name for _, (name, _) in files]
    assert items[3]["record"] is None
    assert "damaged.png" in items[3]["error"]
    assert all(i["record"]["name"] == i["name"] for i in items if i["error"] is None)
    assert client.station.records.count() == 10


def test_a_batch_that_has_begun_is_finished(start: Any) -> None:
    client = start(limits=Limits(queue=1, batch=8))
    files = [("files", (f"{i}.png", png(textured(i)))) for i in range(6)]
    items = client.post(f"{API}/inspect-batch", files=files).json()["items"]
    assert [item["error"] for item in items] == [None] * 6


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"content": b""}, 422, "is empty"),
        ({"content": b"no photo"}, 422, "photo"),
        ({"files": {"file": ("x.png", b"no photo")}}, 422, "x.png"),
        ({"files": {"other": ("x.png", b"no photo")}}, 422, "no file 'file'"),
        ({"content": b"--", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "params": {"product": "bolt"}}, 404, "give one of disc"),
        ({"content": b"x", "params": {"product": "../disc"}}, 404, "give one of disc"),
        ({"content": b"x", "params": {"name": "x" * 256}}, 422, "name"),
    ],
)
def test_what_cannot_be_inspected(
    client: TestClient, request_: dict[str, Any], status: int, said: str
) -> None:
    assert said in problem(client.post(f"{API}/inspect", **request_), status)
    assert client.station.records.count() == 0


def test_a_batch_without_photos(client: TestClient) -> None:
    assert "a form with photos" in problem(client.post(f"{API}/inspect-batch", content=b"x"), 422)
    files = [("files", ("a.png", b"x"))] * 65
    assert "files" in problem(client.post(f"{API}/inspect-batch", files=files), 400).lower()


def test_past_the_queue_the_answer_says_when_to_come_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise BusyError(64, 7)

    monkeypatch.setattr(client.station, "submit", full)
    answer = client.post(f"{API}/inspect", content=png(textured(0)))
    assert "64 photos are waiting" in problem(answer, 503)
    assert answer.headers["retry-after"] == "7"


def test_uploads_are_refused_before_they_are_read(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(max_bytes=1_000)
    most = 1_000 + 65_536
    answer = client.post(f"{API}/inspect", content=b"x", headers={"Content-Length": str(most + 1)})
    assert "larger than 66,536 bytes" in problem(answer, 413)
    for wrong in ("-1", "many", "1" * 5_000):
        answer = client.post(f"{API}/inspect", content=b"x", headers={"Content-Length": wrong})
        assert problem(answer, 413)

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1_000

    assert "larger than" in problem(client.post(f"{API}/inspect", content=endless()), 413)
    files = {"file": ("large.png", b"x" * 1_001)}
    assert "larger than 1,000" in problem(client.post(f"{API}/inspect", files=files), 413)
    threshold = client.put(f"{API}/products/disc/threshold", content=b" " * 70_000)
    assert problem(threshold, 413)


@pytest.mark.parametrize("path", ["inspect", "fit/photos", "products/disc/update"])
def test_past_the_bound_of_uploads_no_more_are_read(client: TestClient, path: str) -> None:
    service = client.app.state.service
    service._open = 2 * client.station.limits.queue
    answer = client.post(f"{API}/{path}", content=png(textured(0)))
    assert "photos are waiting" in problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    service._open = 0
    assert client.post(f"{API}/{path}", content=png(textured(0))).status_code in (200, 400)
    assert service._open == 0


@pytest.mark.parametrize(
    ("path", "field"), [("inspect", "file"), ("inspect-batch", "files"), ("inspect", "none")]
)
def test_names_that_are_no_unicode(client: TestClient, path: str, field: str) -> None:
    """Half a surrogate pair, which UTF-7 lets through and UTF-8 cannot say."""
    body = (
        f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="+2AA-.png"\r\n\r\n'
    ).encode() + b"no photo\r\n--x--\r\n"
    kind = "multipart/form-data; boundary=x; charset=utf-7"
    answer = client.post(f"{API}/{path}", content=body, headers={"Content-Type": kind})
    if path == "inspect":
        assert problem(answer, 422)
    else:
        assert "\\ud800.png" in answer.json()["items"][0]["error"]
    strange = client.put(
        f"{API}/products/disc/threshold", content=b'{"\\ud800": 1}',
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert problem(strange, 422)


def test_an_upload_that_stands_still_is_given_up(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that lost power leaves its connection open; it must not keep its place for ever."""
    monkeypatch.setattr(service_guard, "PATIENCE", 0.05)
    answered: list[Any] = []

    async def receive() -> Any:
        if not answered:
            answered.append(None)
            return {"type": "http.request", "body": b"half a ph", "more_body": True}
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answered.append(message)

    scope = {
        "type": "http", "method": "POST", "path": f"{API}/inspect", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000")], "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    client.portal.call(client.app, scope, receive, send)
    assert answered[1]["status"] == 400
    assert b"broke off" in answered[2]["body"]


def test_photos_with_too_many_pixels_are_refused(start: Any, good_photo: RGB) -> None:
    client = start(limits=Limits(max_pixels=9_000))
    answer = client.post(f"{API}/inspect", content=png(good_photo))
    assert "over the limit of 9,000" in problem(answer, 422)


# --- Records -------------------------------------------------------------------------------------


def test_records_are_listed_filtered_and_paged(client: TestClient) -> None:
    for i in range(5):
        inspect(client, scratched(textured(i)) if i % 2 else textured(i), f"{i}.png")
    everything = client.get(f"{API}/records").json()
    assert [record["name"] for record in everything["records"]] == [
        f"{i}.png" for i in (4, 3, 2, 1, 0)
    ]
    assert everything["cursor"] is None
    first = client.get(f"{API}/records", params={"limit": 3}).json()
    rest = client.get(f"{API}/records", params={"limit": 3, "cursor": first["cursor"]}).json()
    assert first["records"] + rest["records"] == everything["records"]
    now = datetime.now(UTC).isoformat()

    def count(**query: Any) -> int:
        return len(client.get(f"{API}/records", params=query).json()["records"])

    anomalous = sum(record["anomalous"] for record in everything["records"])
    assert count(verdict="anomalous") == anomalous
    assert count(verdict="good") == 5 - anomalous
    assert count(product="disc", version=1) == count(until=now) == count(feedback="none") == 5
    assert count(product="bolt") == count(since=now) == count(feedback="any") == 0
    assert count(photo=everything["records"][0]["photo"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0}, {"limit": 1_001}, {"cursor": 2**63}, {"cursor": "x"}, {"verdict": "bad"},
        {"since": "2026-01-01T00:00:00"}, {"until": "yesterday"}, {"photo": "../../etc/passwd"},
        {"version": 2**31}, {"unknown": 1}, {"product": "x" * 65},
    ],
)  # fmt: skip
def test_filters_that_make_no_sense(client: TestClient, query: dict[str, Any]) -> None:
    assert next(iter(query)) in problem(client.get(f"{API}/records", params=query), 422)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
def test_times_at_the_ends_of_the_calendar(client: TestClient, time: str) -> None:
    inspect(client, textured(1))
    for name in ("since", "until"):
        answer = client.get(f"{API}/records", params={name: time})
        expected = (name == "since") == (time[0] == "0")
        assert len(answer.json()["records"]) == expected


def test_the_export_is_a_table(client: TestClient) -> None:
    inspect(client, textured(1), "=HYPERLINK(1)")
    inspect(client, scratched(textured(2)), "two; words, 日本 ü.png")
    answer = client.get(f"{API}/records.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.content.startswith(b"\xef\xbb\xbfid,")  # or Excel misreads other scripts
    newest, oldest = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
    assert oldest["name"] == "'=HYPERLINK(1)"  # no spreadsheet runs it
    assert (newest["verdict"], newest["name"]) == ("anomalous", "two; words, 日本 ü.png")
    only = client.get(f"{API}/records.csv", params={"verdict": "anomalous"}).text
    assert len(only.splitlines()) == 1 + (newest["verdict"] == "anomalous") + (
        oldest["verdict"] == "anomalous"
    )


@pytest.mark.parametrize("record", ["0", "-1", "x", str(2**63), "1.5"])
def test_numbers_that_no_record_has(client: TestClient, record: str) -> None:
    assert problem(client.get(f"{API}/records/{record}"), 422)


@pytest.mark.parametrize("what", ["", "/photo", "/picture", "/overlay", "/heatmap", "/closest"])
def test_a_record_that_is_not_there(client: TestClient, what: str) -> None:
    assert "no record 7" in problem(client.get(f"{API}/records/7{what}"), 404)


def test_a_defect_has_a_kind_and_a_place(client: TestClient) -> None:
    record = inspect(client, scratched(textured(1)))
    path = f"{API}/records/{record['id']}"
    assert "give feedback with a place first" in problem(client.get(f"{path}/mask"), 404)
    stroke = {"width": 10, "points": [[10, 40], [50, 40]]}
    given = {"feedback": "defect", "kind": " scratch ", "place": [stroke]}
    told = client.post(f"{path}/feedback", json=given).json()
    assert told["feedback_kind"] == "scratch"
    assert told["feedback_place"] == [stroke]
    assert told["feedback_count"] == 1
    mask = np.asarray(picture(client.get(f"{path}/mask"))) > 0
    assert mask.shape == (96, 96)
    y, x = np.nonzero(mask)
    assert (y.min(), y.max(), x.min(), x.max()) == (35, 45, 5, 55)
    assert mask[40, 5:56].all()
    assert not mask[35, :7].any()  # round ends
    found = client.get(f"{API}/products/disc/defects").json()
    assert found == {
        "confirmed": 1, "drawn": 1, "unnamed": 0,
        "kinds": [{"name": "scratch", "confirmed": 1, "known": False}],
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(client.get(f"{API}/records.csv").text)))
    assert (rows[0]["kind"], rows[0]["feedback_kind"], rows[0]["drawn"]) == ("", "scratch", "True")
    again = inspect(client, scratched(textured(1)))  # the same picture, and nothing said of it
    assert client.get(f"{API}/products/disc/defects").json() == found
    for wrong, sentence in (
        ({"feedback": "good", "kind": "scratch"}, "a kind and a place are of defects"),
        ({"feedback": "defect", "kind": "Good"}, "which is what no kind is called"),
        ({"feedback": "defect", "kind": "none of these"}, "which is what no kind is called"),
        ({"feedback": "defect", "kind": "Scra-tch"}, "others of disc are called 'scratch'"),
        ({"feedback": "defect", "kind": "--"}, "give a word of up to 64 characters"),
        ({"feedback": "defect", "place": [{**stroke, "points": [[200, 9]]}]}, "beside the photo"),
    ):
        answer = client.post(f"{API}/records/{again['id']}/feedback", json=wrong)
        assert sentence in problem(answer, 400)
    for malformed in (
        {"feedback": "defect", "place": [{"width": 0, "points": [[1, 1]]}]},
        {"feedback": "defect", "place": [{"width": 3, "points": []}]},
        {"feedback": "defect", "place": [{"width": 3, "points": [[1, 1]] * 2001}]},
        {"feedback": "defect", "place": [stroke] * 201},
        {"feedback": "defect", "kind": "k" * 65},
    ):
        problem(client.post(f"{API}/records/{again['id']}/feedback", json=malformed), 422)
    assert client.get(f"{API}/records/{again['id']}").json() == again


def test_feedback_is_given_changed_and_taken_back(client: TestClient) -> None:
    record = inspect(client, textured(1))
    path = f"{API}/records/{record['id']}/feedback"
    told = client.post(path, json={"feedback": "defect"}).json()
    assert (told["feedback"], told["feedback_time"] is None) == ("defect", False)
    assert client.get(f"{API}/records", params={"feedback": "defect"}).json()["records"] == [told]
    assert client.post(path, json={"feedback": None}).json() == {**record, "feedback_count": 2}
    for wrong in ({}, {"feedback": "perhaps"}, {"feedback": "good", "by": "me"}, [], "good"):
        assert problem(client.post(path, json=wrong), 422)
    assert "no record 99" in problem(
        client.post(f"{API}/records/99/feedback", json={"feedback": "good"}), 404
    )


# --- Pictures ------------------------------------------------------------------------------------


def test_pictures_of_a_record(client: TestClient, small_model: Any, defective_photo: RGB) -> None:
    record = inspect(client, defective_photo)
    path = f"{API}/records/{record['id']}"
    result = small_model.inspect(defective_photo)
    photo = client.get(f"{path}/photo")
    assert photo.content == png(defective_photo)
    assert photo.headers["content-disposition"].startswith("attachment")
    shown = picture(client.get(f"{path}/picture", params={"kind": "png"}))
    np.testing.assert_array_equal(np.asarray(shown), defective_photo)
    drawn = picture(client.get(f"{path}/overlay", params={"kind": "png"}))
    expected = overlay(defective_photo, result.heatmap, result.map_threshold, result.regions)
    assert np.abs(np.asarray(drawn).astype(int) - np.asarray(expected)).mean() < 0.5
    colours = np.asarray(picture(client.get(f"{path}/heatmap")))
    painted = colourise(result.heatmap, result.map_threshold)
    assert np.abs(colours.astype(int) - painted).mean() < 0.5
    grey = np.asarray(picture(client.get(f"{path}/heatmap", params={"scale": "grey"})))
    expected_grey = np.clip(result.heatmap / (2 * result.map_threshold), 0, 1) * 65535
    assert grey.dtype == np.uint16
    np.testing.assert_allclose(grey, expected_grey, atol=30)
    closest = picture(client.get(f"{path}/closest"))
    assert closest.size == (96, 96)
    for what in ("picture", "overlay", "heatmap"):
        small = picture(client.get(f"{path}/{what}", params={"size": 32}))
        assert max(small.size) == 32
        assert problem(client.get(f"{path}/{what}", params={"size": 1}), 422)


def test_maps_are_drawn_once(
    client: TestClient, defective_photo: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = inspect(client, defective_photo)
    model = client.station.product("disc").inspector
    inspect_once, drawn = type(model).inspect, []

    def counted(self: Any, photo: Any) -> Any:
        drawn.append(photo.name)
        return inspect_once(self, photo)

    monkeypatch.setattr(type(model), "inspect", counted)
    for what in ("overlay", "heatmap", "overlay"):
        picture(client.get(f"{API}/records/{record['id']}/{what}"))
    assert drawn == ["part.png"]


def test_pictures_of_the_past_are_those_of_their_version(
    client: TestClient, defective_photo: RGB
) -> None:
    record = inspect(client, defective_photo)
    path = f"{API}/records/{record['id']}/overlay?kind=png"
    before = client.get(path).content
    client.put(f"{API}/products/disc/threshold", json={"score": 1000.0})
    assert client.get(path).content == before


def test_a_photo_that_is_no_longer_stored(client: TestClient, defective_photo: RGB) -> None:
    record = inspect(client, defective_photo)
    client.station.photos.prune(keep_bytes=0)
    for what in ("photo", "picture", "overlay", "heatmap"):
        said = problem(client.get(f"{API}/records/{record['id']}/{what}"), 404)
        assert "no longer stored" in said
    assert client.get(f"{API}/records/{record['id']}").json() == record


# --- Products ------------------------------------------------------------------------------------


def test_products_scores_and_a_preview(client: TestClient, small_model: Any) -> None:
    for i in range(3):
        inspect(client, textured(i))
    [product] = client.get(f"{API}/products").json()["products"]
    assert (product["name"], product["version"]) == ("disc", 1)
    assert product["good_photos"] == len(small_model.photos)
    assert product["threshold"] == small_model.threshold
    assert product["promise"] == small_model.calibration.promise
    scores = client.get(f"{API}/products/disc/scores").json()
    assert scores["calibration"] == small_model.calibration.scores.tolist()
    assert len(scores["recent"]) == 3
    path = f"{API}/products/disc/threshold"
    shown = client.get(path, params={"score": 0}).json()
    assert (shown["photos"], shown["anomalous_then"], shown["false_alarm_rate"]) == (3, 3, 1.0)
    assert client.get(path).json()["threshold"] == small_model.threshold
    rate = client.get(path, params={"false_alarm_rate": 0.25}).json()
    assert rate["threshold"] == small_model.with_false_alarm_rate(0.25).threshold
    for wrong in ({"score": "nan"}, {"score": -1}, {"false_alarm_rate": 1}, {"score": "1e400"}):
        assert problem(client.get(path, params=wrong), 422)
    assert "one of the two" in problem(
        client.get(path, params={"score": 1, "false_alarm_rate": 0.1}), 400
    )


def test_a_threshold_is_set_and_taken_back(client: TestClient, good_photo: RGB) -> None:
    before = inspect(client, good_photo)
    path = f"{API}/products/disc/threshold"
    version = client.put(path, json={"score": 0.0}).json()
    assert (version["number"], version["parent"], version["in_service"]) == (2, 1, True)
    assert inspect(client, good_photo)["anomalous"]
    versions = client.get(f"{API}/products/disc/versions").json()["versions"]
    assert [v["in_service"] for v in versions] == [False, True]
    back = client.post(f"{API}/products/disc/rollback").json()
    assert (back["number"], back["in_service"]) == (1, True)
    assert inspect(client, good_photo)["anomalous"] == before["anomalous"]
    again = client.post(f"{API}/products/disc/rollback", json={"number": 2}).json()
    assert again["number"] == 2
    assert "no version 9" in problem(
        client.post(f"{API}/products/disc/rollback", json={"number": 9}), 404
    )
    for wrong in ({}, {"score": 1, "false_alarm_rate": 0.1}):
        assert "one of the two" in problem(client.put(path, json=wrong), 400)
    for wrong in ({"score": -1}, {"score": "x"}, {"rate": 0.1}, {"false_alarm_rate": 0}):
        assert problem(client.put(path, json=wrong), 422)
    for body, status in (
        (b'{"score": NaN}', 422), (b'{"score": 1e999}', 422), (b"{", 422), (b"\xff", 400),
    ):  # fmt: skip
        headers = {"Content-Type": "application/json"}
        assert problem(client.put(path, content=body, headers=headers), status)


def test_a_version_tells_where_it_comes_from(client: TestClient, small_model: Any) -> None:
    detail = client.get(f"{API}/products/disc/versions/1").json()
    assert detail["fingerprint"] == small_model.fingerprint
    assert detail["provenance"] == json.loads(json.dumps(small_model.provenance))
    assert detail["settings"][0]["backbone"] == small_model.settings.backbone
    assert "no version 5" in problem(client.get(f"{API}/products/disc/versions/5"), 404)


def test_drift_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{API}/products/disc/drift"
    none = {"photos": 0, "alarms": 0, "level": 0.0, "last": None, "open": []}
    assert client.get(path).json() == none
    monitor = SimpleNamespace(photos=50, alarms=1, level=0.25)
    monkeypatch.setattr(client.station, "drift", lambda _: SimpleNamespace(monitor=monitor))
    assert client.get(path).json() == none | {"photos": 50, "alarms": 1, "level": 0.25}


def test_a_version_rescores_the_recent_past(client: TestClient, small_model: Any) -> None:
    records = [inspect(client, marked(seed, 0)) for seed in range(3)]
    gone = inspect(client, textured(9))
    (client.station.data.photos / gone["photo"][:2] / gone["photo"]).unlink()
    client.put(f"{API}/products/disc/threshold", json={"score": 1000.0})
    path = f"{API}/products/disc/versions/2/rescored"
    first = client.get(path, params={"limit": 2}).json()
    rest = client.get(path, params={"limit": 2, "cursor": first["cursor"]}).json()
    assert rest["cursor"] is None
    items = first["items"] + rest["items"]
    assert [item["id"] for item in items] == [record["id"] for record in reversed(records)]
    for item, record in zip(items, reversed(records), strict=True):
        assert (item["score"], item["anomalous"]) == (record["score"], True)
        assert item["rescored"] == pytest.approx(record["score"], rel=1e-4)
        assert not item["rescored_anomalous"]
    assert "no version 9" in problem(client.get(f"{API}/products/disc/versions/9/rescored"), 404)


@pytest.mark.parametrize("what", ["scores", "threshold", "versions", "versions/1", "drift"])
def test_a_product_that_is_not_there(client: TestClient, what: str) -> None:
    assert "give one of disc" in problem(client.get(f"{API}/products/bolt/{what}"), 404)
    odd = client.get(f"{API}/products/..%2F..%2Fdisc/{what}")
    assert odd.status_code == 404


def tell(client: TestClient, record: dict[str, Any], said: str) -> None:
    path = f"{API}/records/{record['id']}/feedback"
    client.post(path, json={"feedback": said}).raise_for_status()


def marked(seed: int, value: int) -> RGB:
    """A part with a small square of one grey."""
    photo = textured(seed)
    photo[10:26, 66:82] = value
    return photo


def test_a_false_alarm_is_learned_and_taken_back(client: TestClient) -> None:
    path = f"{API}/products/disc/update"
    assert "nothing to learn from" in problem(client.post(path), 400)
    alarm = inspect(client, marked(1, 0), "alarm.png")
    defect = inspect(client, scratched(textured(2)), "defect.png")
    assert alarm["anomalous"]
    assert defect["anomalous"]
    tell(client, alarm, "good")
    tell(client, defect, "defect")
    answer = client.post(path).json()
    version, comparison = answer["version"], answer["comparison"]
    assert (version["number"], version["parent"], version["scores_as"]) == (2, 1, 2)
    assert (comparison["vanished"], comparison["missed"]) == (["alarm.png"], [])
    after = inspect(client, marked(1, 0))
    assert after["score"] < alarm["score"]
    assert not after["anomalous"]
    assert inspect(client, scratched(textured(2)))["anomalous"]
    assert problem(client.post(path), 400)  # it knows all of that already
    back = client.post(f"{API}/products/disc/rollback").json()
    assert back["number"] == 1
    assert inspect(client, marked(1, 0))["anomalous"]


def test_the_model_learns_from_photos(client: TestClient, small_model: Any) -> None:
    path = f"{API}/products/disc/update"
    files = [("good", (f"{seed}.png", png(textured(seed)))) for seed in range(20, 23)]
    assert client.post(path, files=files).json()["version"]["number"] == 2
    [product] = client.get(f"{API}/products").json()["products"]
    assert product["good_photos"] == len(small_model.photos) + 3
    assert problem(client.post(path, files=[("good", ("x.png", b"no photo"))]), 422)


def test_an_update_that_would_miss_a_defect_is_refused_unless_forced(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands in for an update that goes wrong: the new version finds nothing any more."""
    monkeypatch.setattr(
        "reconpatch.station.station.update", lambda model, *_, **__: model.with_threshold(1e9)
    )
    defect = inspect(client, scratched(textured(2)), "defect.png")
    tell(client, defect, "defect")
    files = [("good", ("new.png", png(textured(3))))]
    path = f"{API}/products/disc/update"
    assert "miss 1 of 1 confirmed defects" in problem(client.post(path, files=files), 409)
    assert client.get(f"{API}/products").json()["products"][0]["version"] == 1
    assert len(client.get(f"{API}/products/disc/versions").json()["versions"]) == 1
    forced = client.post(path, files=files, params={"force": True}).json()
    assert (forced["version"]["number"], forced["comparison"]["missed"]) == (2, ["defect.png"])


# --- The service itself --------------------------------------------------------------------------


def test_health_and_metrics(client: TestClient, good_photo: RGB) -> None:
    assert client.get(f"{API}/health").json()["status"] == "ok"
    inspect(client, good_photo)
    client.get(f"{API}/records/999")
    client.get("/anything/at/all")
    assert client.post(f"{API}/inspect", content=b"no photo").status_code == 422
    text = client.get(f"{API}/metrics").text
    assert 'reconpatch_failures_total{kind="photo",product="disc"} 1.0' in text
    assert 'reconpatch_version{product="disc"} 1.0' in text
    assert f'reconpatch_program{{version="{reconpatch.__version__}"}} 1.0' in text
    assert "reconpatch_ready 1.0" in text
    figures = dict(
        line.split() for line in text.splitlines() if re.match("reconpatch_[a-z_]+ ", line)
    )
    assert float(figures["reconpatch_disk_free_bytes"]) > 0
    assert float(figures["reconpatch_memory_bytes"]) > 1e7
    verdict = "anomalous" if inspect(client, good_photo)["anomalous"] else "good"
    assert f'reconpatch_verdicts_total{{product="disc",verdict="{verdict}"}} 1.0' in text
    assert 'route="/api/v1/records/{record}",status="404"} 1.0' in text
    assert 'route="other",status="404"} 1.0' in text
    assert "reconpatch_inspect_seconds_count 2.0" in text
    assert "reconpatch_waiting 0.0" in text
    assert 'reconpatch_drift_alarms_total{product="disc"} 0.0' in text
    assert 'reconpatch_drift_level{product="disc"}' in text


def test_the_description_is_whole(client: TestClient) -> None:
    description = client.get(f"{API}/openapi.json").json()
    assert description["openapi"].startswith("3.")
    for path, methods in description["paths"].items():
        assert path.startswith(API)
        for method in methods.values():
            assert method["responses"]["404"]["content"]["application/json"]["schema"]["$ref"] == (
                "#/components/schemas/Problem"
            )
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", f"{API}/records/1", 405), ("TRACE", "/", 405)],
)
def test_other_requests_have_a_sentence_too(
    client: TestClient, method: str, path: str, status: int
) -> None:
    assert problem(client.request(method, path), status)


def test_an_error_of_the_program_stays_in_the_log(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Inspector, "inspect_batch", fail)
    answer = client.post(f"{API}/inspect", content=png(textured(0)))
    assert "secret" not in problem(answer, 500)
    assert "secret" in caplog.text


def test_a_disk_that_refuses_is_told_without_its_paths(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a full one while an upload is put aside."""

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/upload")

    monkeypatch.setattr("starlette.requests.Request.form", full)
    answer = client.post(f"{API}/inspect", files={"file": ("a.png", png(textured(0)))})
    assert problem(answer, 503) == (
        "the station's disk or system refused a step (No space left on device): see its log"
    )
    assert "/secret/upload" in caplog.text


def test_each_request_is_one_line_of_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=service_guard.access_log.name)
    client.get(f"{API}/records", params={"product": "secret"})
    client.get("/a%0Ab c")
    lines = [r.getMessage() for r in caplog.records if r.name == service_guard.access_log.name]
    assert re.fullmatch(rf"testclient GET {API}/records 200 \d+ ms", lines[0])
    assert re.fullmatch(r"testclient GET /a\\nb\\x20c 404 \d+ ms", lines[1])


def test_the_page_is_served_where_there_is_one(start: Any, tmp_path: Path) -> None:
    web = tmp_path / "web"
    web.mkdir()
    (web / "app.js").write_text("1")
    (tmp_path / "secret").write_text("secret")
    assert problem(start(web=web).get("/"), 404)
    (web / "index.html").write_text("<!doctype html>page")
    client = start(web=web)
    page = client.get("/")
    assert page.text == "<!doctype html>page"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert client.get("/app.js").status_code == 200
    for path in ("/../secret", "/%2e%2e/secret", "/..%2fsecret", "/x//secret", "/%2fsecret"):
        assert client.get(path).status_code == 404
    assert client.get(f"{API}/health").headers["cache-control"] == "no-store"


# --- Who may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True), ("localhost", True), ("LOCALHOST:80", True), ("[::1]:8000", True),
        ("evil.example", False), ("127.0.0.1.evil.example", False), ("", False),
        ("evil@127.0.0.1", True), ("127.0.0.1@evil.example", False), ("[::1", False),
        ("192.168.1.5:8000", False), ("127.0.0.2:8000", True), ("127.0.0.1.", False),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(host: str, allowed: bool) -> None:
    refused = refusal(Access(), "GET", "/", {"host": host})
    assert (refused is None) == allowed
    assert refused is None or refused.status == 421


@pytest.mark.parametrize(
    ("method", "headers", "allowed"),
    [
        ("POST", {}, True),  # a program
        ("POST", {"origin": "http://127.0.0.1:8000"}, True),
        ("POST", {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, True),
        ("POST", {"origin": "http://evil.example"}, False),
        ("POST", {"origin": "http://127.0.0.1:9000"}, False),  # another service of this machine
        ("POST", {"origin": "null"}, False),
        ("POST", {"origin": "http://["}, False),
        ("PUT", {"sec-fetch-site": "cross-site"}, False),
        ("POST", {"sec-fetch-site": "same-site"}, False),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        ("GET", {"sec-fetch-site": "none"}, True),
    ],
)
def test_pages_of_other_sites_are_refused(
    method: str, headers: dict[str, str], allowed: bool
) -> None:
    refused = refusal(Access(), method, "/", {"host": "127.0.0.1:8000", **headers})
    assert (refused is None) == allowed
    assert refused is None or refused.status == 403


def test_a_refused_request_changes_nothing(client: TestClient) -> None:
    answer = client.post(
        f"{API}/inspect", content=png(textured(1)), headers={"Origin": "http://evil.example"}
    )
    assert "another site" in problem(answer, 403)
    assert "127.0.0.1" in problem(client.get("/", headers={"Host": "evil.example"}), 421)
    assert client.station.records.count() == 0


def test_with_a_token_only_who_has_it_is_answered(start: Any) -> None:
    client = start(
        access=Access(any_host=True, token=TOKEN), base_url="http://station.example:8000"
    )
    path = f"{API}/records"
    refused = client.get(path)
    assert "Bearer" in problem(refused, 401)
    assert refused.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ", "Bearer \xe9"):
        assert problem(client.get(path, headers={"Authorization": wrong.encode("latin-1")}), 401)
    for scheme in ("Bearer", "bearer"):
        given = {"Authorization": f"{scheme} {TOKEN}"}
        assert client.get(path, headers=given).status_code == 200
    assert client.get(f"{API}/health").status_code == 200
    assert problem(client.post(f"{API}/inspect", content=b"x" * 1_000_000), 401)


def test_the_page_gets_a_cookie_for_the_token_in_its_address(start: Any) -> None:
    client = start(
        access=Access(any_host=True, token=TOKEN), base_url="http://station.example:8000"
    )
    assert problem(client.get("/", params={"token": "wrong"}), 401)
    visit = client.get("/", params={"token": TOKEN})
    assert (visit.status_code, visit.headers["location"]) == (303, "/")
    cookie = visit.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    assert client.get(f"{API}/records").status_code == 200  # the client keeps it
    client.cookies.clear()
    for wrong in ("reconpatch=wrong", "reconpatch=", 'reconpatch="', "\x01=2"):
        assert problem(client.get(f"{API}/records", headers={"Cookie": wrong}), 401)
    secure = start(
        access=Access(any_host=True, token=TOKEN, secure=True), base_url="https://station.example"
    )
    assert "; Secure" in secure.get("/", params={"token": TOKEN}).headers["set-cookie"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True),
        ("localhost", True), ("0.0.0.0", False), ("192.168.0.7", False), ("::", False),
        ("station.example", False),
    ],
)  # fmt: skip
def test_addresses_of_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_the_page_of_the_docs_names_every_route(client: TestClient) -> None:
    text = (REPOSITORY / "docs" / "station.md").read_text(encoding="utf-8")
    for path in client.get(f"{API}/openapi.json").json()["paths"]:
        last = re.sub(r"/\{(\w+)\}", r"/\1", path.removeprefix(f"{API}/")).rsplit("/", 1)[-1]
        assert re.search(rf"\b{last}\b", text, flags=re.IGNORECASE), path


def test_lots_and_serial_numbers_are_kept_and_found(start: Any) -> None:
    client = start()
    photo = png(textured(1))
    for lot, serial in (("L 7", "A1"), (" L 7 ", "A2"), ("=8", None)):
        given = {"lot": lot, "serial": serial} if serial else {"lot": lot}
        client.post(f"{API}/inspect", params=given, content=photo)
    form = [("files", ("a.png", photo, "image/png"))]
    client.post(f"{API}/inspect-batch", params={"lot": "L 7"}, files=form)
    client.post(f"{API}/inspect", params={"lot": " "}, content=photo)

    def found(**given: str) -> list[tuple[str | None, str | None]]:
        records = client.get(f"{API}/records", params=given).json()["records"]
        return [(record["lot"], record["serial"]) for record in records]

    assert found(lot="L 7") == [("L 7", None), ("L 7", "A2"), ("L 7", "A1")]
    assert found(serial="A1") == [("L 7", "A1")]
    assert found(lot="L 9") == found(lot="\0") == []
    assert found()[0] == (None, None)
    rows = list(csv.DictReader(io.StringIO(client.get(f"{API}/records.csv").text)))
    assert [(row["lot"], row["serial"]) for row in rows][1:3] == [("L 7", ""), ("'=8", "")]
