"""Fits that the page starts: their process, what they are compared on, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import reconpatch
from conftest import MONDAY, SMALL_FIT, WAIT, checkered, fill, scratched, textured
from reconpatch.errors import (
    ChangedError,
    NotFoundError,
    PhotoError,
    SettingsError,
    UpdateRefusedError,
)
from reconpatch.fitting.options import FitOptions
from reconpatch.fitting.refit import refit
from reconpatch.photos.defect_folder import DefectPhoto
from reconpatch.photos.images import read_photo
from reconpatch.station import fit_jobs, fit_process
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.drawing import Stroke, mask
from reconpatch.station.fit_jobs import FitComparison, FitJob, FitJobs
from reconpatch.station.records import Closest, Record
from reconpatch.station.service import create_app
from reconpatch.station.station import Station
from test_service import API, HERE, problem
from test_station import png


@pytest.fixture
def station(tmp_path: Path, small_model_file: Path) -> Iterator[Station]:
    model = Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))
    with Station(DataFolder(tmp_path / "data"), [model], threads=1) as opened:
        yield opened


@pytest.fixture
def fits(station: Station, tmp_path: Path) -> Iterator[FitJobs]:
    opened = FitJobs(station, [fill(tmp_path / "monday", range(20, 26))], options=SMALL_FIT)
    yield opened
    opened.close()


def finished(fits: FitJobs) -> FitJob:
    """The fit, once its process has ended."""
    thread = fits._thread
    assert thread is not None
    thread.join(WAIT)
    assert not thread.is_alive()
    job = fits.job
    assert job is not None
    return job


# --- Fits ----------------------------------------------------------------------------------------


def test_a_fit_becomes_the_next_version_and_says_the_same_as_one_by_hand(
    fits: FitJobs, station: Station, tmp_path: Path
) -> None:
    scratch = station.submit(png(scratched(textured(1))), name="s.png").result(WAIT)
    station.submit(png(textured(2)), name="g.png").result(WAIT)
    station.records.feedback(scratch.id, "defect")
    fits.start("disc", "monday")
    with pytest.raises(SettingsError, match="one at a time"):
        fits.start("disc", "monday")
    station.submit(png(textured(3)), name="meanwhile.png").result(WAIT)
    job = finished(fits)
    assert (job.state, job.good_photos, job.error) == ("ready", 6, None)
    by_hand = reconpatch.fit(tmp_path / "monday", **SMALL_FIT)
    assert job.threshold == by_hand.threshold
    assert job.comparison is not None
    assert (job.comparison.defects, job.comparison.found, job.comparison.missed) == (1, (1, 1), 0)
    assert job.comparison.photos >= 2  # and the third, if it came before the comparison
    version = fits.put_into_service()
    assert (version.number, version.parent, version.scores_as) == (2, 1, 2)
    assert version.note == "fitted on 6 photos: monday"
    assert station.product("disc").inspector.fingerprint == by_hand.fingerprint
    after = fits.job
    assert after is not None
    assert (after.state, after.version) == ("in service", 2)
    with pytest.raises(NotFoundError, match="no fit is ready"):
        fits.put_into_service()


def test_photos_that_were_dropped_make_a_new_product(fits: FitJobs, station: Station) -> None:
    for seed in range(3):
        assert fits.drop(png(textured(seed)), name="../../evil.png") == seed + 1
    files = sorted(path.name for path in (station.data.path / "fits").rglob("*.*"))
    assert files == ["0001.png", "0002.png", "0003.png"]
    fits.start("plate", None)
    job = finished(fits)
    assert (job.state, job.source, job.comparison) == ("ready", "dropped photos", None)
    version = fits.put_into_service()
    assert (version.product, version.number, version.parent) == ("plate", 1, None)
    assert fits.dropped == 0
    assert set(station.products) == {"disc", "plate"}


def test_a_fit_that_is_cancelled_leaves_no_process(fits: FitJobs) -> None:
    fits.start("disc", "monday")
    process = fits._process
    assert process is not None
    job = fits.cancel()
    assert job is not None
    assert job.state == "cancelled"
    assert process.poll() is not None
    fits.start("disc", "monday")  # and there is room for another
    fits.cancel()


def test_a_fit_that_is_ready_can_be_thrown_away(fits: FitJobs, station: Station) -> None:
    fits.start("disc", "monday")
    assert finished(fits).state == "ready"
    job = fits.cancel()
    assert job is not None
    assert job.state == "cancelled"
    with pytest.raises(NotFoundError):
        fits.put_into_service(force=True)
    assert station.product("disc").version.number == 1


def test_what_a_fit_refuses_is_told(fits: FitJobs) -> None:
    fits.drop(png(textured(1)), name="only one.png")
    fits.start("disc", None)
    job = finished(fits)
    assert job.state == "failed"
    assert job.error is not None
    assert "photo" in job.error


def test_a_fit_takes_photos_as_large_as_its_station(fits: FitJobs, station: Station) -> None:
    station.limits = replace(station.limits, max_pixels=9_000)
    fits.start("disc", "monday")
    job = finished(fits)
    assert job.error is not None
    assert "over the limit of 9,000" in job.error


def test_a_comparison_takes_photos_as_large_as_its_station(small_model_file: Path) -> None:
    told: list[dict[str, Any]] = []
    photo = small_model_file.with_name("photo.png")
    photo.write_bytes(png(textured(1)))
    model = str(small_model_file)
    for most in (9_215, 9_216):
        fit_process.compare(
            lambda **values: told.append(values),
            new=model, old=model, photos=[(str(photo), "a.png")], max_pixels=most,
        )  # fmt: skip
    unread, read = (values["compared"]["scores"] for values in told if "compared" in values)
    assert unread == [None]
    assert read != [None]


def test_a_process_that_is_killed_is_told(fits: FitJobs) -> None:
    fits.start("disc", "monday")
    assert fits._process is not None
    fits._process.kill()
    job = finished(fits)
    assert job.state == "failed"
    assert job.error is not None
    assert "out of memory" in job.error


def test_the_end_of_one_fit_is_not_that_of_the_next(fits: FitJobs) -> None:
    """A fit may begin when another is ready, and the process of that one not quite at its end."""
    fits.start("disc", "monday")
    process = fits._process
    assert process is not None
    fits.cancel()
    fits._job = FitJob("disc", "monday", "fast")
    fits._process = following = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        encoding="utf-8",
    )
    fits._follow(process, FitJob("disc", "monday", "fast"), {}, [])
    assert fits.job is not None
    assert fits.job.state == "running"
    fits.close()
    assert following.wait(WAIT) != 0


def test_closing_ends_the_process(fits: FitJobs) -> None:
    fits.start("disc", "monday")
    process = fits._process
    assert process is not None
    fits.close()
    assert process.poll() is not None


def test_the_process_ends_when_nobody_asks_any_more() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "reconpatch.station.fit_process"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = process.communicate(b"", timeout=WAIT)
    assert (process.returncode, out) == (1, b"")


@pytest.mark.skipif(not hasattr(os, "nice"), reason="this system has no nice")
def test_the_process_lets_inspection_go_first() -> None:
    code = """
import os, reconpatch.station.fit_process as process
process.fit = lambda tell: tell(nice=os.nice(0))
process.main()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"{}\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline())
        process.stdin.close()
    assert told["nice"] >= min(19, os.nice(0) + 10)


# --- Refusals ------------------------------------------------------------------------------------


def test_sources_that_are_none(fits: FitJobs) -> None:
    with pytest.raises(NotFoundError, match="there are: monday"):
        fits.start("disc", "../monday")
    with pytest.raises(SettingsError, match="no photos were dropped"):
        fits.start("disc", None)
    with pytest.raises(SettingsError, match="product is called"):
        fits.start("../disc", "monday")
    with pytest.raises(PhotoError, match=r"no\.png"):
        fits.drop(b"no photo", name="no.png")
    assert fits.job is None


def test_photos_are_dropped_up_to_a_bound(fits: FitJobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_jobs, "MOST_DROPPED", 1)
    fits.drop(png(textured(1)), name="a.png")
    with pytest.raises(SettingsError, match="which is the most"):
        fits.drop(png(textured(2)), name="b.png")
    fits.clear()
    assert fits.drop(png(textured(2)), name="b.png") == 1


def test_a_fit_that_would_miss_a_defect_needs_force(fits: FitJobs, station: Station) -> None:
    fits.start("disc", "monday")
    ready = finished(fits)
    missed = FitComparison(3, (1, 0), 0, (0, 0), 1, (1, 0), 1, ())
    fits._job = replace(ready, comparison=missed)
    with pytest.raises(UpdateRefusedError, match="1 of 1 confirmed defects"):
        fits.put_into_service()
    assert station.product("disc").version.number == 1
    assert fits.put_into_service(force=True).number == 2


def test_folders_of_one_name_are_told_apart(station: Station, tmp_path: Path) -> None:
    for line in ("line 1", "line 2"):
        fill(tmp_path / line / "good", range(2))
    fits = FitJobs(station, [tmp_path / "line 1" / "good", tmp_path / "line 2" / "good"])
    assert [(f.name, f.photos) for f in fits.folders] == [("good", 2), ("line 2/good", 2)]
    with pytest.raises(PhotoError, match="is no folder"):
        fit_jobs.check_folders([tmp_path / "missing"])


# --- The comparison ------------------------------------------------------------------------------


def record(number: int, feedback: Any = None) -> Record:
    return Record(
        time=datetime.now(UTC), product="disc", version=1, fingerprint="", name=f"{number}.png",
        photo=f"{number:064}", width=1, height=1, score=0.0, threshold=0.0, map_threshold=0.0,
        p_value=1.0, anomalous=False, inspected=(0, 0, 1, 1), regions=(),
        closest=Closest("", (0, 0, 1, 1), 0.0), id=number,
        feedback=feedback, feedback_time=None,
    )  # fmt: skip


def test_a_comparison_by_hand() -> None:
    records = [record(1), record(2, "good"), record(3, "defect"), record(4, "defect"), record(5)]
    #         good, good   alarm, good   found, missed   missed, found   not read
    scores = [[0.5, 1.5], [2.0, 1.0], [3.0, 2.0], [1.0, 9.0], None]
    found = fit_jobs._comparison(records, scores, [1.0, 2.0], [(1, 8), (0, 9)])
    assert (found.good_flagged, found.good_parts) == ((1, 0), (8, 9))
    assert (found.photos, found.anomalous) == (4, (2, 1))
    assert (found.goods, found.false_alarms) == (1, (1, 0))
    assert (found.defects, found.found, found.missed) == (2, (1, 1), 1)
    assert [change.record for change in found.changed] == [2, 3, 4]


def test_defects_that_were_not_seen_are_compared_and_lost_ones_asked_about() -> None:
    none = FitComparison(3, (0, 0), 0, (0, 0), 3, (0, 0), 0, ())
    records = [record(i, "defect") for i in range(4)]
    #         found, missed   missed, found   one picture   found, found
    scores = [(3.0, 1.0), (0.5, 9.0), None, (2.0, 3.0)]
    found = fit_jobs._with_unseen(none, list(zip(records, scores, strict=True)), [1.0, 2.0])
    assert [change.record for change in found.unseen] == [0, 1, 3]
    assert (found.unseen_found, found.unseen_missed) == ((2, 2), 1)
    assert found.lost == (
        "has learned from 3 confirmed defects, and would miss 1 that the model in service finds, "
        "had it not seen them"
    )
    assert none.lost is None
    assert (replace(found, missed=2).lost or "").startswith("would miss 2 of 3 confirmed defects")


# --- Learning ------------------------------------------------------------------------------------

CHECKS = [(39, 29), (26, 16), (5, 5)]
"""Where parts have a faint pattern that `teachable_model_file` does not find."""


@pytest.fixture
def taught(tmp_path: Path, teachable_model_file: Path) -> Iterator[FitJobs]:
    model = Path(shutil.copy(teachable_model_file, tmp_path / "disc.rcp"))
    good = fill(tmp_path / "monday", MONDAY)
    with Station(DataFolder(tmp_path / "data"), [model], threads=1) as station:
        options = {"weights": "random", "threads": 1, "size": (64, 64)}
        opened = FitJobs(station, [good], options=options)
        yield opened
        opened.close()


def inspected(station: Station, name: str, pixels: Any) -> Record:
    return station.submit(png(pixels), name=name).result(WAIT)


def test_defects_that_operators_confirmed_are_learned(taught: FitJobs, tmp_path: Path) -> None:
    station = taught._station
    missed = [
        inspected(station, f"missed {i}.png", checkered(textured(700 + i), *at))
        for i, at in enumerate(CHECKS)
    ]
    assert not any(record.anomalous for record in missed)
    drawn = [Stroke(40.0, ((48.0, 38.0),))]
    for record, kind, place in zip(
        missed, ("checks", "checks", None), (drawn, (), ()), strict=True
    ):
        station.records.feedback(record.id, "defect", kind=kind, place=place)
    alarm = inspected(station, "alarm.png", scratched(textured(710)))
    station.records.feedback(alarm.id, "good")
    old = station.product("disc").inspector
    taught.learn("disc", "monday")
    job = finished(taught)
    assert job.error is None
    assert (job.state, job.source, job.quality, job.parent) == ("ready", "monday", None, 1)
    assert job.learned[0].startswith("f learned from confirmed defects beside made ones: of 3 ")

    def photo(record: Record) -> Path:
        return station.photos.path(record.photo)

    given = [
        DefectPhoto(photo(missed[2]), "", None, "missed 2.png"),
        DefectPhoto(photo(missed[1]), "checks", None, "missed 1.png"),
        DefectPhoto(photo(missed[0]), "checks", partial(mask, drawn), "missed 0.png"),
    ]
    options = FitOptions(weights="random", threads=1)
    with_alarm = [read_photo(photo(alarm), name="alarm.png")]
    by_hand = refit(old, tmp_path / "monday", given, options, confirmed=with_alarm)
    compared = job.comparison
    assert compared is not None
    assert (compared.defects, compared.found[0], compared.missed) == (3, 0, 0)
    unseen = {p["name"]: p["unseen"] for p in by_hand.provenance["confirmed_defects"]["photos"]}
    for change in compared.unseen:
        assert change.new_score == pytest.approx(unseen[change.name] * by_hand.threshold, rel=1e-4)
        assert change.record in {record.id for record in missed}
    assert compared.unseen_found == (0, sum(ratio > 1 for ratio in unseen.values()))
    assert compared.good_parts == (6, 6)
    version = taught.put_into_service()
    assert (version.number, version.parent) == (2, 1)
    assert version.note == "learned from confirmed defects of version 1, fitted on 7 photos: monday"
    assert station.product("disc").inspector.fingerprint == by_hand.fingerprint
    new = inspected(station, "next.png", checkered(textured(708), 38, 40))
    assert new.anomalous


def test_there_must_be_something_to_learn_and_its_good_photos(taught: FitJobs) -> None:
    station = taught._station
    with pytest.raises(SettingsError, match="disc has no confirmed defects to learn from: say on"):
        taught.learn("disc", "monday")
    good = inspected(station, "good.png", textured(MONDAY[0]))
    station.records.feedback(good.id, "defect")
    with pytest.raises(NotFoundError, match="there is no folder 'tuesday'"):
        taught.learn("disc", "tuesday")
    with pytest.raises(NotFoundError, match="there is no product"):
        taught.learn("ring", "monday")
    taught.learn("disc", "monday")
    job = finished(taught)
    assert job.state == "failed"
    assert job.error == (
        "good.png is given as a confirmed defect, and the same picture is the good photo "
        "part020.png: remove it from one of the two folders"
    )
    assert station.product("disc").version.number == 1


def test_what_was_learned_follows_the_version_that_it_was_learned_for(taught: FitJobs) -> None:
    station = taught._station
    taught._job = FitJob("disc", "monday", None, state="ready", parent=1)
    taught._output = station.data.path / "fits" / "fit-00000000.rcp"
    station.set_threshold("disc", score=1.0)
    with pytest.raises(ChangedError, match="version 2 of disc is in service, and what was learned"):
        taught.put_into_service()
    assert station.product("disc").version.number == 2


def test_photos_with_feedback_are_compared_once_and_only_while_stored(
    fits: FitJobs, station: Station
) -> None:
    first = station.submit(png(textured(1)), name="first.png").result(WAIT)
    station.records.feedback(first.id, "good")
    station.submit(png(textured(1)), name="again.png").result(WAIT)
    station.submit(png(textured(2)), name="other.png").result(WAIT)
    assert [r.name for r in fits._to_compare("disc")] == ["first.png", "other.png"]
    station.records.give_up_photos(until_bytes=0)
    assert [r.name for r in fits._to_compare("disc")] == ["first.png"]


# --- Over HTTP -----------------------------------------------------------------------------------


def test_the_routes(fits: FitJobs, station: Station) -> None:
    with TestClient(create_app(station, fits=fits), base_url=HERE) as client:
        state = client.get(f"{API}/fit").json()
        [folder] = state.pop("folders")
        assert (folder["name"], folder["photos"]) == ("monday", 6)
        assert state == {"dropped": 0, "job": None, "etag": '"fit-0-none"'}
        photo = client.post(f"{API}/fit/photos", content=png(textured(1)), params={"name": "a.png"})
        assert photo.json()["dropped"] == 1
        assert problem(client.post(f"{API}/fit/photos", content=b"no photo"), 422)
        assert client.delete(f"{API}/fit/photos").json()["dropped"] == 0
        wrong = {"product": "disc", "folder": "/etc"}
        assert "there is no folder" in problem(client.post(f"{API}/fit", json=wrong), 404)
        assert problem(client.post(f"{API}/fit/service"), 404)
        started = client.post(f"{API}/fit", json={"product": "disc", "folder": "monday"}).json()
        assert started["job"]["state"] == "running"
        assert problem(client.post(f"{API}/fit/photos", content=png(textured(1))), 400)
        finished(fits)
        assert client.get(f"{API}/fit").json()["job"]["state"] == "ready"
        assert client.post(f"{API}/fit/service").json()["number"] == 2
        assert client.post(f"{API}/fit/cancel").json()["job"]["state"] == "in service"


def test_an_update_is_tried_without_changing_anything(station: Station) -> None:
    with TestClient(create_app(station), base_url=HERE) as client:
        path = f"{API}/products/disc/update"
        assert "nothing to learn" in problem(client.post(path, params={"dry": True}), 400)
        alarm = station.submit(png(scratched(textured(1))), name="alarm.png").result(WAIT)
        station.records.feedback(alarm.id, "good")
        tried = client.post(path, params={"dry": True}).json()
        assert tried["version"] is None
        assert tried["comparison"]["vanished"] == ["alarm.png"]
        assert "1 were false alarms and 0 are now" in " ".join(tried["comparison"]["changes"])
        assert station.product("disc").version.number == 1


# --- Folders that are still being filled, and what outlives a restart ----------------------------


class Never:
    """Nobody has stopped the fit; whoever waits sees `then` happen first."""

    def __init__(self, then: Any) -> None:
        self.then, self.waits = then, 0

    def wait(self, _: float) -> bool:
        self.waits += 1
        self.then(self.waits)
        return False

    def set(self) -> None:
        """Told when the fits are closed."""


def test_a_fit_waits_until_no_more_photos_arrive(
    fits: FitJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "monday"
    monkeypatch.setattr(fit_jobs, "QUIET_SECONDS", 1e9)  # whatever was just made still arrives
    steps: list[str] = []
    monkeypatch.setattr(fits, "_change", lambda **told: steps.append(told["step"]))
    fits._stopped = Never(lambda n: fill(folder, [40 + n]) if n < 4 else None)
    fits._wait_for_quiet(folder)
    assert fits._stopped.waits == 4  # three times there was a new photo, then none
    assert steps == [fit_jobs.WAIT]
    monkeypatch.setattr(fit_jobs, "QUIET_SECONDS", -1e9)
    fits._stopped = Never(lambda n: pytest.fail("an old folder is waited for"))
    fits._wait_for_quiet(folder)


def test_polls_share_one_walk_through_the_folders(
    fits: FitJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[Path] = []
    seen = fit_jobs._seen
    monkeypatch.setattr(fit_jobs, "_seen", lambda folder: walked.append(folder) or seen(folder))
    assert [fits.folders for _ in range(20)] == [fits.folders] * 20
    assert len(walked) == 1
    assert fits.folders[0].photos == 6
    assert fits.folders[0].changing == (seen(tmp_path / "monday").quiet_for < 3)


def test_dropped_photos_outlive_a_restart_and_foreign_files_everything(
    station: Station, fits: FitJobs
) -> None:
    assert fits.drop(png(textured(1)), name="a.png") == 1
    folder = station.data.path / "fits"
    (folder / "dropped" / "notes.txt").write_text("mine")
    (folder / "fit-0123abcd.rcp").write_text("of a process that was killed")
    fits.close()
    again = FitJobs(station)
    assert again.dropped == 1
    assert again.drop(png(textured(2)), name="b.png") == 2
    again.clear()
    assert again.dropped == 0
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "fit-0123abcd.rcp"}


def test_a_fit_that_somebody_else_changed_is_left_alone(fits: FitJobs) -> None:
    seen = fits.etag
    fits.drop(png(textured(1)), name="a.png")
    assert fits.etag == seen  # one more photo is no other decision
    with fits.unchanged(seen):
        fits.clear()
    for change in (lambda: fits.cancel(seen), lambda: fits.unchanged(seen).__enter__()):
        with pytest.raises(ChangedError, match="somebody else"):
            change()
    fits.cancel(fits.etag)
