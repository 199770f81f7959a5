"""What a station says of itself from memory, at once, whatever its disk and database are at.

`LiveState` has the last verdict and the last failure of each product, so that a page shows no
verdict that is not fresh. `Readiness` says whether the next photo could be stored.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from reconpatch.errors import OutputError, ReconPatchError
from reconpatch.files import temporary_name
from reconpatch.station.log import Failure
from reconpatch.station.records import Record

log = logging.getLogger("reconpatch.station")

State = Literal["ok", "failed", "stale", "none", "out"]

# Below this nothing of use can be stored.
_LEAST_FREE = 50_000_000
# A look at the disk and the database is asked for no more often, and overdue after so long.
_CHECK_SECONDS = 1.0
_OVERDUE_SECONDS = 5.0


# --- Verdicts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LastVerdict:
    """The last verdict of a product.

    Attributes:
        id: of its record.
        time: when, in UTC.
        age: seconds since then, by a clock that cannot be set.
        anomalous: the verdict.
    """

    id: int
    time: datetime
    age: float
    anomalous: bool


@dataclass(frozen=True)
class ProductState:
    """What there is to say of a product instead of a verdict, if anything.

    Attributes:
        name: of the product.
        state: "ok": the last thing that happened is a fresh verdict; "failed": a photo without one
            came after it; "stale": no photo came for a while; "none": none yet; "out": its model
            cannot be used.
        reason: why it is not "ok", in one sentence.
        since: since when.
        last: the last verdict.
        failure: what failed after it.
        drift: drift alarms that nobody has acknowledged.
        etag: names what is in service; None where nothing is.
        busy: what is being changed at the moment, such as "threshold"; None where nothing is.
        serial: number that was scanned for the next part; None where none was.
    """

    name: str
    state: State
    reason: str | None
    since: datetime | None
    last: LastVerdict | None
    failure: Failure | None
    drift: int
    etag: str | None
    busy: str | None
    serial: str | None


class LiveState:
    """Follows the verdicts and failures of all products; safe to use from several threads.

    Args:
        stale_after: seconds after which a verdict is no longer fresh; None: never.
        clock: seconds that only rise.
    """

    def __init__(
        self, stale_after: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stale_after = stale_after
        self._clock = clock
        self._began = datetime.now(UTC)
        self._lock = threading.Lock()
        self._verdicts: dict[str, tuple[Record, float]] = {}
        self._failures: dict[str, Failure] = {}

    def restore(self, record: Record | None, failure: Failure | None) -> None:
        """Go on from what the records tell of a product."""
        if record is not None:
            age = max(0.0, (datetime.now(UTC) - record.time).total_seconds())
            self._verdicts[record.product] = record, self._clock() - age
        if failure is not None and (record is None or failure.time > record.time):
            self._failures[failure.product] = failure

    def verdict(self, record: Record) -> None:
        """A photo has its verdict."""
        with self._lock:
            self._verdicts[record.product] = record, self._clock()
            self._failures.pop(record.product, None)

    def failed(self, failure: Failure) -> None:
        """A photo has none."""
        with self._lock:
            self._failures[failure.product] = failure

    def numbered(self, failure: Failure) -> None:
        """A failure has got its number, unless another came after it."""
        with self._lock:
            now = self._failures.get(failure.product)
            if now is not None and now == replace(failure, id=None):
                self._failures[failure.product] = failure

    def of(
        self,
        product: str,
        *,
        out: str | None = None,
        drift: int = 0,
        etag: str | None = None,
        busy: str | None = None,
        serial: str | None = None,
    ) -> ProductState:
        """What there is to say of a product.

        Args:
            product: its name.
            out: why its model cannot be used, or None.
            drift: open alarms.
            etag: what is in service.
            busy: what is being changed.
            serial: that waits for a photo.
        """
        with self._lock:
            seen, failure = self._verdicts.get(product), self._failures.get(product)
        last = None
        if seen is not None:
            record, at = seen
            last = LastVerdict(record.id, record.time, self._clock() - at, record.anomalous)
        state, reason, since = self._judged(last, failure, out)
        return ProductState(product, state, reason, since, last, failure, drift, etag, busy, serial)

    def _judged(
        self, last: LastVerdict | None, failure: Failure | None, out: str | None
    ) -> tuple[State, str | None, datetime | None]:
        if out is not None:
            return "out", out, self._began
        if failure is not None:
            return "failed", failure.error, failure.time
        if last is None:
            return "none", "no photo of this product has been inspected yet", self._began
        if self.stale_after is not None and last.age >= self.stale_after:
            reason = f"no photo has come for more than {self.stale_after:g} s"
            return "stale", reason, last.time + timedelta(seconds=self.stale_after)
        return "ok", None, None


# --- The disk and the database -------------------------------------------------------------------


class Readiness:
    """Whether the next photo could be stored; asked at any time, it answers from memory.

    Args:
        folder: on the disk that is written to.
        check_database: raises ReconPatchError where the database does not answer.
        reserve: bytes of the disk that are to stay free.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        folder: Path,
        check_database: Callable[[], None],
        reserve: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._check_database = folder, check_database
        self._reserve, self._clock = reserve, clock
        self._pool = ThreadPoolExecutor(1, "readiness")
        self._lock = threading.Lock()
        self._looking: Future[None] | None = None
        self._asked = clock() - _CHECK_SECONDS
        self._found: dict[str, str] = {}
        self._warned: dict[str, str] = {}
        self._size = 0

    def not_stored(self, reason: str, size: int) -> None:
        """A photo of so many bytes could not be stored, or its verdict not be kept."""
        with self._lock:
            self._found["stored"] = reason
            self._size = max(self._size, size)

    def stored(self) -> None:
        """A photo and its verdict were stored."""
        with self._lock:
            self._found.pop("stored", None)
            self._size = 0

    @property
    def reasons(self) -> list[str]:
        """Why the next photo could not be stored; none where it could, as far as is known."""
        with self._lock:
            found = list(dict.fromkeys(self._found.values()))
            late = self._looking is not None and not self._looking.done()
        if late and self._clock() - self._asked > _OVERDUE_SECONDS:
            found.append("the disk or the records' database does not answer")
        return found

    @property
    def warnings(self) -> list[str]:
        """What will become a reason if nobody looks after it."""
        with self._lock:
            return list(self._warned.values())

    def look(self) -> Future[None]:
        """Look at the disk and the database in the background, unless that was done just now."""
        with self._lock:
            looking, now = self._looking, self._clock()
            if looking is None or (looking.done() and now - self._asked >= _CHECK_SECONDS):
                self._asked = now
                self._looking = looking = self._pool.submit(self._look)
            return looking

    def close(self) -> None:
        """Look no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        try:
            self._note("database", self._database())
            self._note("disk", self._disk())
            if "stored" in self._found and self._can_write():
                self.stored()
        except Exception:
            log.exception("the state of the station could not be found out")

    def _note(self, what: str, reason: str | None) -> None:
        with self._lock:
            if reason is None:
                self._found.pop(what, None)
            else:
                self._found[what] = reason

    def _database(self) -> str | None:
        try:
            self._check_database()
        except ReconPatchError as error:
            log.error("the records' database does not answer: %s", error)
            return "the records' database does not answer or cannot be written"
        return None

    def _disk(self) -> str | None:
        free = shutil.disk_usage(self._folder).free
        with self._lock:
            self._warned.clear()
            if free < self._reserve:
                self._warned["disk"] = (
                    f"the disk has {free / 1e9:.1f} GB left, less than the reserve of "
                    f"{self._reserve / 1e9:.1f} GB: free some room"
                )
        if free < _LEAST_FREE:
            return f"the disk is full: {free / 1e6:.0f} MB are left"
        return None

    def _can_write(self) -> bool:
        """Whether a file as large as the one that could not be stored can be written now."""
        probe = temporary_name(self._folder / "probe")
        try:
            with probe.open("xb") as file:
                file.write(bytes(max(1, self._size)))
            return "database" not in self._found
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)


def plain_reason(error: Exception) -> str:
    """Why a photo could not be stored, without any path of the machine."""
    if isinstance(error, OutputError):
        cause = error.__cause__
        why = getattr(cause, "strerror", None) or "the disk refused it"
        return f"a photo could not be stored ({why})"
    if isinstance(error, OSError):
        return f"a photo could not be stored ({error.strerror or type(error).__name__})"
    return "a verdict could not be kept: the records' database refused it"
