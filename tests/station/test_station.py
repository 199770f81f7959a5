"""The station: what is in service, the queue, and what stays of each verdict."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import unicodedata
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reconpatch
from conftest import WAIT, scratched, textured
from reconpatch.errors import (
    BusyError,
    ChangedError,
    ConfirmError,
    ModelFileError,
    NotFoundError,
    OutputError,
    PhotoError,
    RecordsError,
    SettingsError,
)
from reconpatch.model.model import Inspector
from reconpatch.photos.images import read_photo
from reconpatch.station import station as station_module
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.drift import DriftAlarm, DriftMonitor
from reconpatch.station.records import Filter
from reconpatch.station.station import Asked, Limits, Station

ALARM = DriftAlarm(photo=40, direction="higher", per_10000=1.0)


def png(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def model_file(small_model_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))


@pytest.fixture
def start(tmp_path: Path):
    """Start stations on one folder; closed at the end."""
    opened = []

    def start_one(*models: Path, data: Path = tmp_path / "data", **options) -> Station:
        station = Station(DataFolder(data), models, threads=1, **options)
        opened.append(station)
        return station

    yield start_one
    for station in opened:
        station.close()


@pytest.fixture
def station(start, model_file: Path) -> Station:
    return start(model_file)


class Gate:
    """Holds the worker before it inspects, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.batches: list[int] = []
        inspect = Inspector.inspect_batch

        def held(inspector, photos, **options):
            self.batches.append(len(photos))
            self.reached.set()
            assert self.open.wait(WAIT)
            return inspect(inspector, photos, **options)

        monkeypatch.setattr(Inspector, "inspect_batch", held)


def inspect(station: Station, pixels: np.ndarray, **options):
    return station.submit(png(pixels), name="part.png", **options).result(WAIT)


# --- A verdict -----------------------------------------------------------------------------------


def test_a_verdict_is_that_of_the_model_and_is_kept(station, small_model, defective_photo):
    content = png(defective_photo)
    record = station.submit(content, name="part.png").result(WAIT)
    alone = small_model.inspect(defective_photo)
    assert record.score == pytest.approx(alone.score, rel=1e-4)
    assert (record.anomalous, record.product, record.version) == (True, "disc", 1)
    assert record.fingerprint == small_model.fingerprint
    assert record.photo == hashlib.sha256(content).hexdigest()
    assert station.records.get(record.id) == record
    assert station.photos.read(record.photo) == content
    np.testing.assert_array_equal(station.photo(record).pixels, defective_photo)
    assert station.judge_of(record) is station.product("disc").inspector


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"no photo at all", "part.png"), (png(np.zeros((8, 8), np.uint8)), "16")],
)
def test_what_is_no_photo_is_refused_and_not_kept(station, content, said, tmp_path):
    with pytest.raises(PhotoError, match=said):
        station.submit(content, name="part.png").result(WAIT)
    assert station.records.count() == 0
    assert not (tmp_path / "data" / "photos").exists()


def test_a_photo_with_too_many_pixels_is_refused(start, model_file, good_photo):
    station = start(model_file, limits=Limits(max_pixels=9_000))
    with pytest.raises(PhotoError, match="over the limit of 9,000"):
        inspect(station, good_photo)


def test_one_photo_that_cannot_be_read_does_not_cost_the_others(station, monkeypatch):
    gate = Gate(monkeypatch)
    first = station.submit(png(textured(1)), name="first")
    assert gate.reached.wait(WAIT)
    contents = [png(textured(2)), b"damaged", png(textured(3))]
    answers = [station.submit(content, name="part") for content in contents]
    gate.open.set()
    assert gate.batches[0] == 1
    assert not first.result(WAIT).anomalous
    good, damaged, another = answers
    assert good.result(WAIT).id < another.result(WAIT).id
    assert isinstance(damaged.exception(WAIT), PhotoError)
    assert gate.batches == [1, 2]  # what came in the meantime is one batch


def test_one_photo_that_cannot_be_inspected_does_not_cost_the_others(station, monkeypatch):
    inspect_batch = Inspector.inspect_batch

    def refuse(inspector, photos, **options):
        if any(photo.name == "odd" for photo in photos):
            raise PhotoError("odd: cannot be inspected")
        return inspect_batch(inspector, photos, **options)

    gate = Gate(monkeypatch)
    station.submit(png(textured(1)), name="first")
    assert gate.reached.wait(WAIT)
    monkeypatch.setattr(Inspector, "inspect_batch", refuse)
    answers = [station.submit(png(textured(2)), name=name) for name in ("a", "odd", "b")]
    gate.open.set()
    assert [answer.exception(WAIT) is None for answer in answers] == [True, False, True]


def test_large_photos_are_inspected_in_parts(station, monkeypatch):
    monkeypatch.setattr(station_module, "_BATCH_PIXELS", 2 * 96 * 96)
    gate = Gate(monkeypatch)
    first = [station.submit(png(textured(1)), name="first")]
    assert gate.reached.wait(WAIT)
    rest = [station.submit(png(textured(i)), name="part") for i in range(5)]
    gate.open.set()
    assert len({answer.result(WAIT).id for answer in first + rest}) == 6
    assert gate.batches == [1, 2, 2, 1]


# --- The queue -----------------------------------------------------------------------------------


def test_past_its_bound_the_queue_says_when_to_come_again(start, model_file, monkeypatch):
    station = start(model_file, limits=Limits(queue=2))
    gate = Gate(monkeypatch)
    answers = [station.submit(png(textured(0)), name="part")]
    assert gate.reached.wait(WAIT)
    answers += [station.submit(png(textured(i)), name="part") for i in (1, 2)]
    assert station.waiting == 2
    with pytest.raises(BusyError, match="2 photos are waiting") as caught:
        station.submit(png(textured(3)), name="part")
    assert caught.value.seconds >= 1
    gate.open.set()
    assert all(not answer.result(WAIT).anomalous for answer in answers)
    assert station.records.count() == 3


def test_the_queue_is_bounded_in_bytes_too(start, model_file, monkeypatch):
    content = png(textured(0))
    station = start(model_file, limits=Limits(queue_bytes=len(content) + 10))
    gate = Gate(monkeypatch)
    answers = [station.submit(content, name="part")]
    assert gate.reached.wait(WAIT)
    answers.append(station.submit(content, name="part"))
    with pytest.raises(BusyError):
        station.submit(content, name="part")
    gate.open.set()
    for answer in answers:
        answer.result(WAIT)


def test_batches_are_no_larger_than_allowed(start, model_file, monkeypatch):
    station = start(model_file, limits=Limits(batch=2))
    gate = Gate(monkeypatch)
    answers = [station.submit(png(textured(0)), name="part")]
    assert gate.reached.wait(WAIT)
    answers += [station.submit(png(textured(i)), name="part") for i in range(5)]
    gate.open.set()
    ids = [answer.result(WAIT).id for answer in answers]
    assert ids == sorted(ids)  # in the order in which they came
    assert gate.batches == [1, 2, 2, 1]


def test_a_photo_that_nobody_waits_for_is_not_inspected(station, monkeypatch):
    gate = Gate(monkeypatch)
    station.submit(png(textured(0)), name="part")
    assert gate.reached.wait(WAIT)
    gone = station.submit(png(textured(1)), name="gone")
    last = station.submit(png(textured(2)), name="last")
    assert gone.cancel()
    gate.open.set()
    last.result(WAIT)
    assert {record.name for record in station.records.export()} == {"part", "last"}


def test_closing_inspects_what_waits_and_takes_no_more(start, model_file, monkeypatch):
    station = start(model_file)
    gate = Gate(monkeypatch)
    answers = [station.submit(png(textured(i)), name="part") for i in range(4)]
    assert gate.reached.wait(WAIT)
    closing = threading.Thread(target=station.close)
    closing.start()
    gate.open.set()
    closing.join(WAIT)
    assert all(answer.result(0).version == 1 for answer in answers)
    with pytest.raises(BusyError):
        station.submit(png(textured(9)), name="part")


def test_a_verdict_that_cannot_be_kept_is_not_answered(station, monkeypatch, good_photo):
    def refuse(*_, **__):
        raise RecordsError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(station.records, "add", refuse)
        with pytest.raises(RecordsError, match="disk is full"):
            inspect(station, good_photo)
    assert not inspect(station, good_photo).anomalous  # and the worker goes on


def test_an_error_of_the_program_is_answered_and_the_worker_goes_on(
    station, monkeypatch, good_photo
):
    def fail(*_, **__):
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(Inspector, "inspect_batch", fail)
        with pytest.raises(ZeroDivisionError):
            inspect(station, good_photo)
    assert not inspect(station, good_photo).anomalous


# --- Products and versions -----------------------------------------------------------------------


def test_products_are_told_by_name(start, model_file, small_model, good_photo, tmp_path):
    other = tmp_path / "ring 2.rcp"
    small_model.with_threshold(0.0).save(other)
    station = start(model_file, other)
    assert sorted(station.products) == ["disc", "ring 2"]
    assert not inspect(station, good_photo, product="disc").anomalous
    assert inspect(station, good_photo, product="ring 2").anomalous
    for name in ("bolt", "../disc"):
        with pytest.raises(NotFoundError, match="give one of disc, ring 2"):
            station.submit(b"", name="part", product=name)


@pytest.mark.parametrize("stem", [".hidden", "a" * 65, "tab\t", "dot.", "#1"])
def test_names_that_no_product_can_have(start, model_file, stem):
    file = model_file.rename(model_file.with_name(f"{stem}.rcp"))
    with pytest.raises(SettingsError, match="the product is called"):
        start(file)


@pytest.mark.parametrize("name", ["瓶子", "Flasche-grün", "part (1)", "болт"])
def test_products_are_named_in_any_script(start, model_file, good_photo, name):
    # As some systems store a name: a letter, and its accent after it.
    stored = unicodedata.normalize("NFD", name)
    station = start(model_file.rename(model_file.with_name(f"{stored}.rcp")))
    assert list(station.products) == [name]
    assert not inspect(station, good_photo, product=name).anomalous


def test_products_that_some_systems_would_take_for_one(station, small_model, tmp_path):
    kept = tmp_path / "data" / "models" / "disc" / "0001.rcp"
    before = kept.read_bytes()
    with pytest.raises(SettingsError, match="upper and lower case"):
        station.put_into_service("Disc", small_model, note="fitted")
    assert sorted(station.products) == ["disc"]
    assert kept.read_bytes() == before
    assert not kept.parents[1].joinpath("Disc").exists()


def test_two_models_of_one_name_are_refused(start, model_file):
    with pytest.raises(SettingsError, match="several model files are called disc"):
        start(model_file, model_file)


def test_a_folder_without_a_product_needs_a_model(start):
    with pytest.raises(SettingsError, match="no product yet"):
        start()


def test_another_threshold_is_another_version_with_a_parent(station, small_model, good_photo):
    assert not inspect(station, good_photo).anomalous
    second = station.set_threshold("disc", score=0.0)
    assert (second.number, second.parent, second.scores_as) == (2, 1, 1)
    assert second.note == "threshold 0, set by hand"
    record = inspect(station, good_photo)
    assert (record.anomalous, record.version, record.threshold) == (True, 2, 0.0)
    third = station.set_threshold("disc", rate=0.25)
    assert (third.number, third.parent, third.scores_as) == (3, 2, 1)
    assert third.threshold == small_model.with_false_alarm_rate(0.25).threshold
    first = station.versions.get("disc", 1)
    assert [v.number for v in station.records.versions("disc")] == [1, 2, 3]
    assert station.versions.path(first).read_bytes()[:8] != b""
    for given in ({}, {"score": 1.0, "rate": 0.1}):
        with pytest.raises(SettingsError, match="one of the two"):
            station.set_threshold("disc", **given)
    with pytest.raises(SettingsError, match="give a score of 0 or more"):
        station.set_threshold("disc", score=-1.0)
    assert len(station.records.versions("disc")) == 3


def test_old_records_are_judged_by_the_model_of_their_time(station, good_photo):
    record = inspect(station, good_photo)
    station.set_threshold("disc", score=0.0)
    assert station.judge_of(record).threshold == record.threshold
    assert station.judge_of(record) is not station.product("disc").inspector


def test_a_version_that_a_kill_left_untold_is_told_once_at_the_next_start(station, start):
    ways = ("model", "threshold", "rollback")
    station.set_threshold("disc", score=9.0)
    told = station.records.audit.last("disc", ways)
    assert (told.what, told.after["version"]) == ("threshold", 2)
    station.records.put_in_service("disc", 1)  # of a rollback, and here comes the kill
    station.close()
    for _ in range(2):
        again = start()
        found = again.records.audit.last("disc", ways)
        assert (found.what, found.before["version"], found.after["version"]) == ("model", 2, 1)
        assert "stopped before it could say why" in found.why
        again.close()
    entries = again.records.audit.page(limit=100)
    assert sum(one.what == "model" for one in entries) == 2  # the model given, and this


def test_roll_back_goes_to_the_parent_or_to_a_number(station, good_photo):
    station.set_threshold("disc", score=0.0)
    station.set_threshold("disc", score=1000.0)
    assert station.roll_back("disc").number == 2
    assert inspect(station, good_photo).version == 2
    assert station.roll_back("disc").number == 1
    with pytest.raises(NotFoundError, match="made from no other"):
        station.roll_back("disc")
    assert station.roll_back("disc", 3).number == 3
    with pytest.raises(NotFoundError, match="no version 9"):
        station.roll_back("disc", 9)
    assert [s.number for s in station.records.services("disc")] == [3, 1, 2, 3, 2, 1]


def test_a_preview_counts_as_a_loop_would(station, small_model):
    for seed in range(4):
        inspect(station, textured(100 + seed))
    inspect(station, scratched(textured(105)))
    judged = list(station.records.export())
    scores = [record.score for record in judged]
    threshold = sorted(scores)[2]
    shown = station.preview("disc", score=threshold)
    now = sum(record.score > small_model.threshold for record in judged)
    assert (shown.photos, shown.anomalous_now) == (5, now)
    assert shown.anomalous_then == sum(score > threshold for score in scores) == 2
    calibrated = small_model.with_threshold(threshold).calibration
    assert shown.false_alarm_rate == calibrated.image_threshold.stated_rate
    assert shown.promise == calibrated.promise
    assert station.preview("disc").threshold == small_model.threshold
    assert station.preview("disc", rate=0.5).false_alarm_rate <= 0.5
    station.set_threshold("disc", score=threshold)
    assert station.preview("disc").photos == 5  # scores stay comparable
    station.put_into_service("disc", small_model, note="fitted anew")
    assert station.preview("disc").photos == 0  # those of another fit are not


def test_models_are_swapped_without_dropping_a_photo(station):
    """Photos stream in from two threads while the threshold changes: each gets one verdict."""
    answers: list[Future] = []
    lock = threading.Lock()

    def stream(first: int) -> None:
        for i in range(12):
            answer = station.submit(png(textured(first + i)), name=f"part{first + i}")
            with lock:
                answers.append(answer)
            answer.result(WAIT)

    threads = [threading.Thread(target=stream, args=(100 * k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for score in (0.0, 1000.0, 0.0):
        station.set_threshold("disc", score=score)
    for thread in threads:
        thread.join(WAIT)
    records = [answer.result(0) for answer in answers]
    assert len({record.id for record in records}) == 24
    thresholds = {v.number: v.threshold for v in station.records.versions("disc")}
    for record in records:
        assert record.threshold == thresholds[record.version]
        assert record.anomalous == (record.score > record.threshold)


# --- Starting again ------------------------------------------------------------------------------


def test_what_was_in_service_goes_on(start, model_file, good_photo):
    first = start(model_file)
    first.set_threshold("disc", score=0.0)
    inspect(first, good_photo)
    first.close()
    for models in ((), (model_file,)):  # the file was taken in before: nothing changes
        again = start(*models)
        assert again.product(None).version.number == 2
        assert inspect(again, good_photo).anomalous
        again.close()


def test_a_new_file_becomes_a_version_in_service(start, model_file, small_model):
    start(model_file).close()
    model_file.unlink()
    small_model.with_threshold(5.0).save(model_file)
    again = start(model_file)
    served = again.product("disc")
    assert (served.version.number, served.version.parent, served.version.scores_as) == (2, None, 2)
    assert served.inspector.threshold == 5.0


def test_a_model_file_that_was_changed_is_refused(start, model_file, small_model, tmp_path):
    start(model_file).close()
    kept = tmp_path / "data" / "models" / "disc" / "0001.rcp"
    assert kept.read_bytes() == model_file.read_bytes()
    small_model.with_threshold(5.0).save(kept, overwrite=True)
    with pytest.raises(ModelFileError, match="not the model that the records tell of"):
        start()
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match="damaged"):
        start()


def test_a_file_that_a_killed_process_left_is_no_version(start, model_file, tmp_path):
    station = start(model_file)
    (tmp_path / "data" / "models" / "disc" / "0002.rcp").write_bytes(b"half a mod")
    assert station.set_threshold("disc", score=1.0).number == 3
    station.close()
    assert start().product(None).inspector.threshold == 1.0
    assert (tmp_path / "data" / "models" / "disc" / "0002.rcp").read_bytes() == b"half a mod"


def test_a_missing_model_is_named(start, tmp_path):
    with pytest.raises(ModelFileError, match=r"no model file .*missing\.rcp"):
        start(tmp_path / "missing.rcp")


def test_a_folder_is_used_by_one_program_at_a_time(tmp_path):
    data = tmp_path / "data"
    code = """
import sys; from pathlib import Path; from reconpatch.station.data_folder import DataFolder
DataFolder(Path(sys.argv[1]))
"""

    def another() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, data], check=False, capture_output=True, encoding="utf-8"
        )

    with DataFolder(data) as folder:
        station = folder.station
        done = another()
        assert done.returncode == 1
        assert "is in use by another program" in done.stderr
    assert another().returncode == 0
    with DataFolder(data) as folder:
        assert folder.station == station  # the name stays with the folder


def test_a_data_folder_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        DataFolder(tmp_path / "data")


def test_a_station_without_its_drift_frees_its_database(start, model_file, monkeypatch):
    closed = []

    def refuse(*_):
        raise RecordsError("the database is away")

    monkeypatch.setattr(station_module, "VersionDrift", refuse)
    monkeypatch.setattr(station_module.Records, "close", lambda _: closed.append(True))
    with pytest.raises(RecordsError):
        start(model_file)
    assert closed == [True]


def test_a_station_that_cannot_start_frees_its_database(start, model_file, tmp_path):
    with pytest.raises(SettingsError):
        start()
    assert start(model_file, data=tmp_path / "other").product(None).version.number == 1


# --- Drift ---------------------------------------------------------------------------------------


def monitored(station: Station) -> tuple[int, int]:
    drift = station.drift("disc")
    return drift.monitor.photos, drift.monitor.alarms


def test_drift_is_watched_over_restarts_and_versions(start, model_file, small_model, tmp_path):
    first = start(model_file)
    for seed in range(3):
        inspect(first, textured(seed))
    first.close()  # the worker has ended, so it has told the monitor of all
    assert monitored(first) == (3, 0)
    state = tmp_path / "data" / "drift" / "disc@0001.json"
    saved = state.read_bytes()
    again = start()
    inspect(again, textured(3))
    again.close()
    assert monitored(again) == (4, 0)
    state.write_bytes(saved)  # as if killed before the state was saved: the records tell
    third = start()
    assert monitored(third) == (4, 0)
    third.set_threshold("disc", score=1.0)
    assert monitored(third) == (0, 0)
    third.roll_back("disc")
    assert monitored(third) == (4, 0)
    expected = DriftMonitor(small_model.calibration)
    for record in reversed(list(third.records.export())):
        expected.add(record.score)
    assert third.drift("disc").monitor.level == expected.level


def test_an_alarm_of_drift_is_kept_and_logged(start, model_file, monkeypatch, caplog):
    monkeypatch.setattr("reconpatch.station.version_drift.DriftMonitor.add", lambda *_: ALARM)
    station = start(model_file)
    inspect(station, textured(1))
    station.close()
    assert station.drift("disc").last_alarm == ALARM
    assert f"disc: {ALARM.message}" in caplog.text


# --- Feedback and housekeeping -------------------------------------------------------------------


def test_feedback_is_kept(station, good_photo):
    record = inspect(station, good_photo)
    assert station.records.feedback(record.id, "good").feedback == "good"
    assert station.records.count(Filter(feedback="good")) == 1


@pytest.mark.parametrize("limits", [{"keep_bytes": 0}, {"keep_photos": 1}])
def test_photos_past_the_limits_are_removed(start, model_file, limits):
    station = start(model_file, limits=Limits(**limits))
    first = inspect(station, textured(1))
    second = inspect(station, textured(2))
    station.records.feedback(second.id, "defect")
    station._tidy()
    with pytest.raises(NotFoundError, match="no longer stored"):
        station.photo(first)
    assert station.photo(second).height == 96


@pytest.mark.parametrize(
    "wrong", [{"queue": 0}, {"batch": 0}, {"keep_days": -1}, {"keep_photos": -1}]
)
def test_limits_that_make_no_sense(wrong):
    with pytest.raises(SettingsError, match=rf"{next(iter(wrong))} is"):
        Limits(**wrong)


def test_a_station_reads_what_a_model_reads(station):
    """16 bits survive the way through the station."""
    pixels = (textured(1)[:, :, 0].astype(np.uint16) << 8) + 17
    record = inspect(station, pixels)
    np.testing.assert_array_equal(station.photo(record).pixels, read_photo(pixels).pixels)


def test_a_station_says_why_it_can_give_no_verdict(start, model_file, monkeypatch):
    gate = Gate(monkeypatch)
    gate.open.set()
    station = start(model_file)
    assert station.unable == []
    gate.reached.clear()
    gate.open.clear()
    answer = station.submit(png(textured(1)), name="part.png")
    assert gate.reached.wait(WAIT)
    assert station.unable == []
    monkeypatch.setattr(station_module, "_STUCK_SECONDS", 0)
    assert station.unable == ["the photos at work have come to nothing for more than a minute"]
    gate.open.set()
    answer.result(WAIT)
    station.close()
    assert station.unable == ["the service stops"]


# --- What is said instead of a verdict -----------------------------------------------------------


def state(station: Station, product: str = "disc"):
    return next(one for one in station.state() if one.name == product)


def test_a_failed_photo_has_a_record_and_takes_the_verdict_away(start, model_file, good_photo):
    station = start(model_file)
    assert state(station).state == "none"
    record = inspect(station, good_photo)
    assert (state(station).state, state(station).last.id) == ("ok", record.id)
    cut = png(good_photo)[:-50]
    with pytest.raises(PhotoError):
        station.submit(cut, name="cut.png").result(WAIT)
    now = state(station)
    assert (now.state, now.last.id) == ("failed", record.id)
    [failed], _ = station.records.log.failures()
    assert (failed.name, failed.kind, failed) == ("cut.png", "photo", now.failure)
    assert "cut.png" in now.reason
    station.close()
    again = start()
    assert (state(again).state, state(again).failure) == ("failed", failed)
    inspect(again, good_photo)
    assert state(again).state == "ok"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (OutputError("/secret/photo could not be written: the disk is full"), "not be stored"),
        (RecordsError("no server on /var/run/.s.PGSQL"), "database"),
        (OSError(28, "No space left on device", "/secret"), "No space left on device"),
        (ZeroDivisionError("secret"), "log says why"),
    ],
)
def test_a_photo_that_cannot_be_stored_is_told_and_makes_the_station_not_ready(
    station, monkeypatch, good_photo, broken, said
):
    with monkeypatch.context() as patched:
        patched.setattr(station.photos, "keep", lambda *_, **__: (_ for _ in ()).throw(broken))
        with pytest.raises(type(broken)):
            inspect(station, good_photo)
    now = state(station)
    assert (now.state, now.failure.kind != "photo") == ("failed", True)
    assert said in now.reason
    assert "/" not in now.reason
    stored = isinstance(broken, ZeroDivisionError)
    assert (station.readiness.reasons == []) == stored
    inspect(station, good_photo)
    assert (state(station).state, station.readiness.reasons) == ("ok", [])


def test_failures_wait_for_a_database_that_is_away(station, monkeypatch):
    def away(*_):
        raise RecordsError("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(station.records.log, "add_failures", away)
        for name in ("1.png", "2.png"):
            with pytest.raises(PhotoError):
                station.submit(b"no photo", name=name).result(WAIT)
    assert state(station).failure.id is None
    assert station.records.log.failures() == ([], None)
    station._tidy()
    assert [one.name for one in station.records.log.failures()[0]] == ["2.png", "1.png"]
    assert state(station).failure.id is not None


# --- Several products ----------------------------------------------------------------------------


@pytest.fixture
def two(start, model_file, tmp_path):
    """The files of two products, the second of which calls everything anomalous."""
    other = tmp_path / "ring.rcp"
    reconpatch.load(model_file, threads=1).with_threshold(0.0).save(other)
    return model_file, other


def test_the_first_product_is_meant_until_another_is_named(start, two, good_photo):
    disc, ring = two
    start(disc).close()
    station = start(ring, disc)
    assert station.default == "disc"
    assert inspect(station, good_photo).product == "disc"
    station.name_default("ring", asked=Asked(by="Ada"))
    assert inspect(station, good_photo).product == "ring"
    station.close()
    again = start()
    assert again.default == "ring"
    with pytest.raises(SettingsError, match="name another one"):
        again.retire("ring")
    with pytest.raises(NotFoundError):
        again.name_default("bolt")
    [changed], _ = again.records.log.changes("ring", limit=1)
    assert (changed.what, changed.by) == ("default", "Ada")


def test_a_product_is_retired_and_taken_up_again(start, two, good_photo):
    station = start(*two)
    kept = inspect(station, good_photo, product="ring")
    station.retire("ring")
    with pytest.raises(NotFoundError, match="give one of disc"):
        station.submit(png(good_photo), name="part", product="ring")
    assert (sorted(station.products), station.retired) == (["disc"], ["ring"])
    station.close()
    again = start(*two)  # the file is still named where the service is started
    assert (sorted(again.products), again.retired) == (["disc"], ["ring"])
    assert again.records.get(kept.id) == kept
    again.restore("ring")
    assert inspect(again, good_photo, product="ring").anomalous
    with pytest.raises(NotFoundError):
        again.restore("ring")


def test_photos_that_wait_for_a_retired_product_are_answered(start, two, good_photo, monkeypatch):
    station = start(*two)
    gate = Gate(monkeypatch)
    first = station.submit(png(good_photo), name="part")
    assert gate.reached.wait(WAIT)
    waiting = station.submit(png(good_photo), name="late", product="ring")
    station.retire("ring")
    gate.open.set()
    assert not first.result(WAIT).anomalous
    assert isinstance(waiting.exception(WAIT), NotFoundError)


@pytest.mark.parametrize("kind", ["damaged", "missing", "pipe", "sparse", "foreign"])
def test_a_damaged_model_stops_its_product_alone(start, two, good_photo, tmp_path, kind):
    start(*two).close()
    kept = tmp_path / "data" / "models" / "ring" / "0001.rcp"
    content = kept.read_bytes()
    kept.unlink()
    if kind == "damaged":
        kept.write_bytes(content[: len(content) // 2])
    elif kind == "pipe":
        os.mkfifo(kept)
    elif kind == "sparse":
        with kept.open("wb") as file:
            file.truncate(10**12)
    elif kind == "foreign":
        kept.write_text("a shopping list")
    station = start()
    assert not inspect(station, good_photo).anomalous
    now = state(station, "ring")
    assert (now.state, now.etag) == ("out", None)
    assert "0001.rcp" in now.reason
    with pytest.raises(NotFoundError, match="out of service"):
        station.submit(png(good_photo), name="part", product="ring")
    kept.unlink(missing_ok=True)
    kept.write_bytes(content)
    station.roll_back("ring", 1)
    assert inspect(station, good_photo, product="ring").anomalous
    assert state(station, "ring").state == "ok"


def test_a_damaged_file_among_those_given_stops_its_product_alone(start, two, good_photo):
    disc, ring = two
    ring.write_bytes(b"half")
    station = start(disc, ring)
    assert not inspect(station, good_photo).anomalous
    assert "ring.rcp" in station.out["ring"]
    assert station.default == "disc"


# --- Changes -------------------------------------------------------------------------------------


def told(station: Station, pixels: np.ndarray, said: str):
    record = inspect(station, pixels)
    return station.records.feedback(record.id, said)


def test_a_change_follows_from_what_was_seen(station):
    seen = station.etag("disc")
    version = station.set_threshold("disc", score=3.0, asked=Asked(seen, by="Ada"))
    for change in (
        lambda: station.set_threshold("disc", score=4.0, asked=Asked(seen)),
        lambda: station.roll_back("disc", asked=Asked(seen)),
        lambda: station.update("disc", [(png(textured(50)), "new")], asked=Asked(seen)),
        lambda: station.retire("disc", asked=Asked(seen)),
        lambda: station.name_default("disc", asked=Asked(seen)),
    ):
        with pytest.raises(ChangedError, match=r"by Ada.*threshold 3, set by hand") as caught:
            change()
        assert caught.value.etag == station.etag("disc") != seen
    assert station.product("disc").version == version
    station.roll_back("disc", asked=Asked(station.etag("disc")))
    # The same version again is another state: somebody has decided something in between.
    assert station.etag("disc") != seen


def test_a_threshold_that_would_miss_confirmed_defects_asks(start, model_file, monkeypatch):
    monkeypatch.setattr(station_module, "RECENT", 1)
    station = start(model_file)
    defect = told(station, scratched(textured(1)), "defect")
    told(station, textured(2), "good")
    inspect(station, textured(3))  # the defect is no longer of the recent past
    shown = station.preview("disc", score=1000.0).confirmed
    assert (shown.defects, shown.missed_now, shown.missed_then) == (1, 0, 1)
    with pytest.raises(ConfirmError, match="1 of 1 confirmed defects") as caught:
        station.set_threshold("disc", score=1000.0)
    assert caught.value.figures["confirmed"]["missed"] == (
        {"record": defect.id, "name": "part.png", "score": defect.score},
    )
    assert station.product("disc").version.number == 1
    station.set_threshold("disc", score=1000.0, asked=Asked(by="Ada", confirm=True))
    [kept], _ = station.records.log.changes("disc", limit=1)
    assert (kept.what, kept.by) == ("threshold", "Ada")
    assert kept.figures["asked"]
    assert kept.figures["confirmed"]["missed_then"] == 1
    with pytest.raises(ConfirmError):  # no better than now
        station.set_threshold("disc", score=2000.0)
    station.set_threshold("disc", score=defect.score / 2)  # better: nothing to ask


def test_a_roll_back_that_would_miss_confirmed_defects_asks(start, model_file, small_model):
    station = start(model_file)
    station.set_threshold("disc", score=1000.0)
    station.set_threshold("disc", score=small_model.threshold)
    told(station, scratched(textured(1)), "defect")
    assert station.preview_version("disc", 2).confirmed.missed_then == 1
    with pytest.raises(ConfirmError):
        station.roll_back("disc", 2)
    assert station.product("disc").version.number == 3
    assert station.roll_back("disc", 2, asked=Asked(confirm=True)).number == 2


def test_parts_of_another_bank_are_scored_again_once(start, model_file, monkeypatch):
    station = start(model_file)
    told(station, scratched(textured(1)), "defect")
    station.put_into_service("disc", reconpatch.load(model_file, threads=1), note="another fit")
    judged = []
    judge = type(station.product("disc").inspector).judge
    monkeypatch.setattr(
        type(station.product("disc").inspector), "judge",
        lambda model, photos: judged.append(len(photos)) or judge(model, photos),
    )  # fmt: skip
    monkeypatch.setattr(station_module, "_CHANGE_SECONDS", -1.0)
    with pytest.raises(ConfirmError, match="not been scored"):
        station.set_threshold("disc", score=1000.0)
    for _ in range(2):
        assert station.preview("disc", score=1000.0).confirmed.missed_then == 1
    assert judged == [1]


# --- Drift alarms --------------------------------------------------------------------------------


def test_an_alarm_stands_over_restarts_and_roll_backs(start, model_file, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("reconpatch.station.version_drift.DriftMonitor.add", lambda *_: ALARM)
        station = start(model_file)
        record = inspect(station, textured(1))
        station.set_threshold("disc", score=3.0)
    station.roll_back("disc", 1)
    station.close()
    again = start()
    assert state(again).drift == 1
    [alarm] = again.records.log.open_alarms("disc")
    assert (alarm.record, alarm.version, alarm.message) == (record.id, 1, ALARM.message)
    again.acknowledge("disc", by="Ada", note="new lamp")
    assert state(again).drift == 0
    [kept], _ = again.records.log.alarms("disc")
    assert (kept.acknowledged_by, kept.note) == ("Ada", "new lamp")
    again.close()
    assert state(start()).drift == 0


def test_an_alarm_waits_for_a_database_that_is_away(station, monkeypatch, tmp_path):
    def away(*_):
        raise RecordsError("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr("reconpatch.station.version_drift.DriftMonitor.add", lambda *_: ALARM)
        patched.setattr(station.records.log, "add_alarm", away)
        inspect(station, textured(1))
        station._stopping.wait(0)
        station._save_drift()
    assert not (tmp_path / "data" / "drift" / "disc@0001.json").exists()
    station._save_drift()
    assert len(station.records.log.open_alarms("disc")) == 1


# --- Retention -----------------------------------------------------------------------------------


def test_a_clock_that_jumped_removes_nothing(start, model_file, monkeypatch):
    monkeypatch.setattr(station_module, "_KEEP_NEWEST", 1)
    station = start(model_file, limits=Limits(keep_days=30, reserve_bytes=0))
    first, second = (inspect(station, textured(seed)) for seed in (1, 2))
    later = datetime.now(UTC) + timedelta(days=400)
    monkeypatch.setattr(station._clock, "_wall", lambda: later)
    station._tidy()
    station.photos.read(first.photo)
    # Once the clock has run evenly for a day it is believed; the newest photo stays all the same.
    monkeypatch.setattr(station._clock, "is_trusted", lambda _: True)
    station._tidy()
    with pytest.raises(NotFoundError):
        station.photos.read(first.photo)
    station.photos.read(second.photo)


def test_a_reserve_of_the_disk_is_kept(start, model_file, monkeypatch, caplog):
    station = start(model_file, limits=Limits(reserve_bytes=1_000))
    records = [inspect(station, textured(seed)) for seed in range(3)]
    station.records.feedback(records[0].id, "defect")
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=999))
    station._tidy()
    left = station.records.kept_photos([record.photo for record in records])
    assert left == {records[0].photo, records[2].photo}  # one byte was lacking
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    station._tidy()
    assert station.records.kept_photos([r.photo for r in records]) == {records[0].photo}
    assert "were free; 1 photos were removed" in caplog.text


def test_decoded_photos_are_bounded_for_all_together(start, model_file, monkeypatch):
    pixels = 96 * 96
    station = start(model_file, limits=Limits(decoded_bytes=2 * 32 * pixels))
    held = []
    inspect_batch = Inspector.inspect_batch
    monkeypatch.setattr(
        Inspector, "inspect_batch",
        lambda model, photos, **given: held.append(station.decoding.held)
        or inspect_batch(model, photos, **given),
    )  # fmt: skip
    record = inspect(station, textured(1))
    assert held == [32 * pixels]
    with (
        station.decoded(record), station.decoded(record), pytest.raises(BusyError),
        station.decoded(record, patience=0),
    ):  # fmt: skip
        pass
    assert station.decoding.held == 0


def test_a_change_at_work_is_told(station, monkeypatch):
    told = []
    add = station.versions.add
    monkeypatch.setattr(
        station.versions, "add",
        lambda *given, **options: told.append(state(station).busy) or add(*given, **options),
    )  # fmt: skip
    assert state(station).busy is None
    station.set_threshold("disc", score=3.0)
    with pytest.raises(NotFoundError):
        station.roll_back("disc", 9)
    assert (told, state(station).busy) == (["threshold"], None)
