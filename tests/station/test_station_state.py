"""What a station says of itself from memory."""

from __future__ import annotations

import threading
from collections import namedtuple
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconpatch.errors import OutputError, RecordsError
from reconpatch.station.log import Failure
from reconpatch.station.records import Record
from reconpatch.station.state import LiveState, Readiness, plain_reason
from test_records import VERDICT

WAIT = 60
Usage = namedtuple("Usage", "total used free")


def record(product: str = "disc", **values: Any) -> Record:
    made = {**vars(replace(VERDICT, product=product)), **values}
    return Record(**made, id=7, feedback=None, feedback_time=None)


def failure(product: str = "disc", **values: Any) -> Failure:
    made = Failure(None, datetime.now(UTC), product, "a.png", "photo", "it is cut off")
    return replace(made, **values)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_verdict_is_ok_until_it_is_stale_or_a_photo_fails() -> None:
    clock = Clock()
    live = LiveState(60.0, clock)
    assert live.of("disc").state == "none"
    live.verdict(record())
    clock.seconds = 59.9
    fresh = live.of("disc")
    assert (fresh.state, fresh.reason, fresh.since) == ("ok", None, None)
    assert fresh.last is not None
    assert (fresh.last.id, fresh.last.age) == (7, 59.9)
    clock.seconds = 60.0
    stale = live.of("disc")
    assert stale.state == "stale"
    assert stale.since == VERDICT.time + timedelta(seconds=60)
    assert "60 s" in str(stale.reason)
    live.failed(failure(error="the disk is full"))
    failed = live.of("disc")  # what failed outweighs what is merely old
    assert (failed.state, failed.reason) == ("failed", "the disk is full")
    assert live.of("ring").state == "none"  # another product has its own
    live.verdict(record())
    assert live.of("disc").state == "ok"
    assert live.of("disc", out="damaged").state == "out"


def test_without_a_limit_no_verdict_is_stale() -> None:
    clock = Clock()
    live = LiveState(None, clock)
    live.verdict(record())
    clock.seconds = 1e9
    assert live.of("disc").state == "ok"


def test_a_restart_goes_on_with_what_the_records_tell() -> None:
    clock = Clock()
    now = datetime.now(UTC)
    live = LiveState(60.0, clock)
    live.restore(record(time=now - timedelta(hours=1)), None)
    assert live.of("disc").state == "stale"
    live.restore(record(time=now), failure(time=now - timedelta(seconds=5)))
    assert live.of("disc").state == "ok"
    live.restore(record(time=now), failure(time=now + timedelta(seconds=5)))
    assert live.of("disc").state == "failed"
    later = LiveState(60.0, clock)  # the clock was set back since the last photo
    later.restore(record(time=now + timedelta(days=400)), None)
    last = later.of("disc").last
    assert last is not None
    assert last.age == 0


def test_a_failure_gets_its_number_unless_another_came() -> None:
    live = LiveState(60.0)
    first, second = failure(name="1"), failure(name="2")
    live.failed(first)
    live.numbered(replace(first, id=3))
    assert live.of("disc").failure == replace(first, id=3)
    live.failed(second)
    live.numbered(replace(first, id=3))
    assert live.of("disc").failure == second


# --- Readiness -----------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    found = {"bytes": 10**12}
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**12, 0, found["bytes"]))
    return found


def looked(ready: Readiness) -> list[str]:
    ready._asked = -1e9
    ready.look().result(WAIT)
    return ready.reasons


def test_a_full_disk_and_a_reserve(tmp_path: Path, free: dict[str, int]) -> None:
    ready = Readiness(tmp_path, lambda: None, reserve=10**9)
    assert looked(ready) == ready.warnings == []
    free["bytes"] = 900_000_000
    assert looked(ready) == []
    assert "less than the reserve of 1.0 GB" in ready.warnings[0]
    free["bytes"] = 1_000
    assert "the disk is full" in looked(ready)[0]
    free["bytes"] = 10**12
    assert looked(ready) == ready.warnings == []


def test_a_photo_that_could_not_be_stored_counts_until_as_much_can_be_written(
    tmp_path: Path, free: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Readiness(tmp_path, lambda: None)
    ready.not_stored("a photo could not be stored (full)", 5_000)
    assert ready.reasons == ["a photo could not be stored (full)"]
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
        assert looked(ready) == ["a photo could not be stored (full)"]

    assert looked(ready) == []
    assert list(tmp_path.iterdir()) == []
    ready.not_stored("again", 1)
    ready.stored()
    assert ready.reasons == []


def test_a_database_that_does_not_answer(tmp_path: Path, free: dict[str, int]) -> None:
    def away() -> None:
        raise RecordsError("no server on /var/run/postgresql/.s.PGSQL.5432")

    [reason] = looked(Readiness(tmp_path, away))
    assert "database" in reason
    assert "/" not in reason


def test_a_look_that_hangs_is_told_of_and_holds_up_nobody(tmp_path: Path) -> None:
    clock, let_go = Clock(), threading.Event()
    ready = Readiness(tmp_path, lambda: let_go.wait(WAIT) and None, clock=clock)
    try:
        ready.look()
        assert ready.reasons == []
        clock.seconds = 10
        assert ready.look() is ready.look()
        assert "does not answer" in ready.reasons[0]
    finally:
        let_go.set()
    ready.look().result(WAIT)
    ready.close()


def test_reasons_have_no_paths() -> None:
    error = OutputError("/secret/photos could not be written: the disk is full")
    error.__cause__ = OSError(28, "No space left on device", "/secret/photos")
    assert plain_reason(error) == "a photo could not be stored (No space left on device)"
    for other in (RecordsError("/var/run/x"), OSError(5, "Input/output error", "/secret")):
        assert "/secret" not in plain_reason(other)
        assert "/var" not in plain_reason(other)
