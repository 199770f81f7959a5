"""Records with photos, overlays and table as one ZIP file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import scratched, textured
from reconpatch.errors import RecordsError
from reconpatch.station import routes_reports
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.pictures import Pictures
from reconpatch.station.record_zip import RecordZips
from reconpatch.station.station import Station
from test_service import API, problem, start  # noqa: F401  (a fixture)
from test_station import png


def opened(content: bytes) -> zipfile.ZipFile:
    """The archive, each file of which is as its sum says."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    sums = dict(line.split("  ")[::-1] for line in archive.read("SHA256SUMS").decode().splitlines())
    names = set(archive.namelist()) - {"SHA256SUMS"}
    assert set(sums) == names
    for name in names:
        assert hashlib.sha256(archive.read(name)).hexdigest() == sums[name]
    return archive


def test_a_zip_holds_photos_overlays_and_table(start: Any) -> None:  # noqa: F811
    client = start()
    good, bad = png(textured(1)), png(scratched(textured(2)))
    client.post(f"{API}/inspect", params={"name": "../ä b.png", "lot": "L1"}, content=good)
    client.post(f"{API}/inspect", params={"name": "bad", "lot": "L1"}, content=bad)
    client.post(f"{API}/inspect", content=good)
    answer = client.get(f"{API}/records.zip", params={"lot": "L1"})
    assert answer.headers["content-type"] == "application/zip"
    archive = opened(answer.content)
    assert set(archive.namelist()) == {
        "photos/1-b.png", "photos/2-bad.png", "overlays/2-bad.jpg", "records.csv",
        "manifest.json", "SHA256SUMS",
    }  # fmt: skip
    assert archive.read("photos/1-b.png") == good
    assert archive.read("photos/2-bad.png") == bad
    with Image.open(io.BytesIO(archive.read("overlays/2-bad.jpg"))) as image:
        assert image.size == (96, 96)
    table = archive.read("records.csv").decode("utf-8-sig")
    asked = client.get(f"{API}/records.csv", params={"lot": "L1"}).content.decode("utf-8-sig")
    assert table == asked
    assert [row["id"] for row in csv.DictReader(io.StringIO(table))] == ["2", "1"]
    told = json.loads(archive.read("manifest.json"))
    assert told["asked"] == {"lot": "L1", "photos": "all", "overlays": "anomalous"}
    counts = ("records", "photos", "overlays", "photos_missing", "overlays_missing")
    assert [told[name] for name in counts] == [2, 2, 1, 0, 0]

    some = {"photos": "anomalous", "overlays": "none"}
    archive = opened(client.get(f"{API}/records.zip", params=some).content)
    assert [name for name in archive.namelist() if "/" in name] == ["photos/2-bad.png"]
    one = opened(client.get(f"{API}/records/1/zip").content)
    assert [name for name in one.namelist() if "/" in name] == [
        "photos/1-b.png", "overlays/1-b.jpg"
    ]  # fmt: skip
    none = opened(client.get(f"{API}/records.zip", params={"lot": "none"}).content)
    assert none.read("records.csv").decode("utf-8-sig").startswith("id,time,product")
    assert "there is no record 9" in problem(client.get(f"{API}/records/9/zip"), 404)


def test_what_is_no_longer_stored_is_told_and_too_much_is_refused(
    start: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = start()
    record = client.post(f"{API}/inspect", content=png(scratched(textured(1)))).json()
    client.post(f"{API}/inspect", content=png(scratched(textured(2))))
    station = client.app.state.service.station
    station.photos.path(record["photo"]).unlink()
    told = json.loads(opened(client.get(f"{API}/records.zip").content).read("manifest.json"))
    assert (told["records"], told["photos"], told["photos_missing"]) == (2, 1, 1)
    monkeypatch.setattr(routes_reports, "MOST_ZIPPED", 1)
    assert "more than 1 records fit" in problem(client.get(f"{API}/records.zip"), 400)


def test_a_zip_that_breaks_off_cannot_be_opened(small_model_file: Path, tmp_path: Path) -> None:
    with Station(DataFolder(tmp_path / "data"), [small_model_file], threads=1) as station:
        station.submit(png(textured(1)), name="part.png").result(60)

        def broken() -> Any:
            yield from station.records.page().records
            raise RecordsError("the database is away")

        received = io.BytesIO()
        chunks = RecordZips(station, Pictures(station)).chunks(broken())
        with pytest.raises(RecordsError):
            received.writelines(chunks)
        assert b"photos/" in received.getvalue()
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(received)
