"""Tells the outputs: a thread for each, so that none waits for another.

An output that keeps its messages takes them from the outbox, in order, and says there what was
taken; one that is away is tried again after 1, 2, 4, ... 60 seconds. What was taken is written down
half a second later at the most, so that many messages cost one commit; a crash within it sends them
once more. An output that shows the present state alone is told what happens while it is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Literal

from reconpatch.errors import (
    LineError,
    MissingExtraError,
    NotFoundError,
    ReconPatchError,
    RefusedError,
)
from reconpatch.station.log import Failure
from reconpatch.station.outbox import Backlog, Event, Waiting
from reconpatch.station.outputs.message import (
    Maker,
    Message,
    Sender,
    Status,
    about,
    of_status,
)
from reconpatch.station.outputs.settings import OutputSettings
from reconpatch.station.records import Record, Records

log = logging.getLogger("reconpatch.outputs")

State = Literal["ok", "failing", "starting", "removed"]

_SENDERS = {
    "webhook": ("webhook", "Webhook"),
    "mqtt": ("mqtt", "Mqtt"),
    "modbus": ("modbus", "Modbus"),
    "opcua": ("opcua", "OpcUa"),
}
_ROWS = 100
_WRITE_DOWN = 0.5
_LONGEST_WAIT = 60.0
# For what waits when the service stops.
_LAST_SECONDS = 5.0
# Messages that an output which keeps none may be behind.
_LIVE = 1_000


@dataclass(frozen=True)
class OutputState:
    """How an output is.

    Attributes:
        name: of the output.
        kind: of the output; "" where the configuration has it no more.
        address: where it goes to.
        state: "ok": the last message was taken; "failing": it was not; "starting": there was none
            yet; "removed": the configuration has it no more, and messages for it wait.
        error: why it fails, in one sentence, or None.
        since: since when it is in this state, in UTC.
        sent: messages that were taken since the service started, heartbeats apart.
        skipped: those that it was not told, for it shows the present state alone.
        waiting: messages that wait to be sent.
        oldest: since when the first of them does, in UTC, or None.
        refused: messages that were refused, and wait for somebody.
        reason: why one of them was refused, or None.
    """

    name: str
    kind: str
    address: str
    state: State
    error: str | None
    since: datetime | None
    sent: int
    skipped: int
    waiting: int
    oldest: datetime | None
    refused: int
    reason: str | None


class Outputs:
    """All outputs of a station; safe to use from many threads.

    Args:
        settings: of each output, by its name.
        records: the station's.
        status: whether verdicts can be given; asked for each heartbeat. It is not to wait.

    Raises:
        MissingExtraError: the package of an output is not installed.
    """

    def __init__(
        self,
        settings: Mapping[str, OutputSettings],
        records: Records,
        status: Callable[[], Status],
    ) -> None:
        self._records, self._settings = records, dict(settings)
        makers = {name: _maker(one.kind) for name, one in settings.items()}
        self._threads = {
            name: _Dispatcher(name, one, makers[name], records, status)
            for name, one in settings.items()
        }
        outbox = records.outbox
        outbox.outputs = {
            name: one.settings.wants for name, one in self._threads.items() if one.keeps
        }
        outbox.listeners.append(self._heard)
        for name, left in outbox.backlog().items():
            if name not in self._threads:
                log.warning(
                    "%d messages wait for the output %s, which the configuration has no more",
                    left.waiting + left.refused, name,
                )  # fmt: skip
        for thread in self._threads.values():
            thread.start()

    def _heard(self, event: Event, subjects: Sequence[Any]) -> None:
        for thread in self._threads.values():
            thread.heard(event, subjects)

    def close(self) -> None:
        """Send what can be sent at once, and end; what is left waits for the next start."""
        listeners = self._records.outbox.listeners
        if self._heard in listeners:
            listeners.remove(self._heard)
        for thread in self._threads.values():
            thread.stop()
        for thread in self._threads.values():
            thread.join()

    @property
    def names(self) -> list[str]:
        """Of all outputs, in the order of the configuration."""
        return list(self._settings)

    def failing(self) -> dict[str, str]:
        """Why outputs fail, by their names; from memory."""
        return {name: why for name, one in self._threads.items() if (why := one.failing)}

    def states(self) -> list[OutputState]:
        """How each output is, also those that the configuration has no more."""
        backlog = self._records.outbox.backlog()
        known = [one.state(backlog.pop(name, Backlog())) for name, one in self._threads.items()]
        return known + [
            OutputState(name, "", "", "removed", None, None, 0, 0, **vars(left))
            for name, left in sorted(backlog.items())
        ]

    def test(self, name: str) -> float:
        """Send a test, also where the output waits to be tried again; the seconds that it took.

        Raises:
            NotFoundError: there is no such output.
            LineError: it was not taken.
        """
        return self._of(name).test()

    def send_again(self, name: str) -> int:
        """Try again at once, and send refused messages once more; how many of those there were.

        Raises:
            NotFoundError: there is no such output.
        """
        thread = self._of(name)
        count = self._records.outbox.send_again(name)
        thread.hurry()
        return count

    def discard(self, name: str) -> int:
        """Forget all messages of an output that were not sent, for good; how many.

        Raises:
            NotFoundError: there is no such output, and no message for one.
        """
        if name not in self._records.outbox.backlog():
            self._of(name)
        return self._records.outbox.discard(name)

    def _of(self, name: str) -> _Dispatcher:
        if name not in self._threads:
            names = ", ".join(self._threads) or "none, for the configuration has no outputs"
            raise NotFoundError(f"there is no output {name!r}: give one of {names}")
        return self._threads[name]


def _maker(kind: str) -> Maker:
    module, name = _SENDERS[kind]
    try:
        made: Maker = getattr(import_module(f"reconpatch.station.outputs.{module}"), name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"an output of the kind '{kind}'", kind) from error
    return made


class _Dispatcher(threading.Thread):
    """Tells one output."""

    def __init__(
        self,
        name: str,
        settings: OutputSettings,
        make: Maker,
        records: Records,
        status: Callable[[], Status],
    ) -> None:
        super().__init__(name=f"output-{name}")
        self.output, self.settings = name, settings
        self._make, self._records, self._status = make, records, status
        self._outbox = records.outbox
        self.keeps, self._fresh = make.keeps, make.fresh
        self._changed = threading.Condition()
        self._live: deque[tuple[float, Message]] = deque(maxlen=_LIVE)
        self._tests: deque[Future[float]] = deque()
        self._news = True
        self._stopping, self._stop_by = False, 0.0
        self._sender: Sender | None = None
        # Messages that were kept by a process before this one, which may have sent them.
        self._before = self._outbox.last(name) if self.keeps else 0
        self._tried: set[int] = set()
        self._taken: list[int] = []
        self._taken_at = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._beat_at = 0.0
        self._beats = 0
        self._was_ready: bool | None = None
        self._state: State = "starting"
        self._since = datetime.now(UTC)
        self._error: str | None = None
        self._sent = self._skipped = 0

    # --- Asked by others -----------------------------------------------------------------------

    def heard(self, event: Event, subjects: Sequence[Any]) -> None:
        """Records or failures have been committed."""
        wanted = [one for one in subjects if self.settings.wants(event, one)]
        if not wanted:
            return
        with self._changed:
            if not self.keeps:
                now = time.monotonic()
                self._live.extend((now, about(one, self._records.station)) for one in wanted)
            self._news = True
            self._changed.notify()

    def test(self) -> float:
        """See `Outputs.test`."""
        asked: Future[float] = Future()
        with self._changed:
            if self._stopping:
                raise LineError("the service stops: ask again when it runs")
            self._tests.append(asked)
            self._changed.notify()
        patience = 3 * self.settings.timeout + 1
        try:
            return asked.result(patience)
        except FutureTimeoutError as error:
            asked.cancel()
            raise LineError(
                f"{self.output} did not answer in {patience:g} s: check that the receiver runs"
            ) from error

    def hurry(self) -> None:
        """Try again at once."""
        with self._changed:
            self._retry_at, self._news = 0.0, True
            self._changed.notify()

    def stop(self) -> None:
        """End soon."""
        with self._changed:
            self._stopping = True
            self._stop_by = time.monotonic() + _LAST_SECONDS
            self._changed.notify()

    @property
    def failing(self) -> str | None:
        """Why the output fails, or None where it does not."""
        return self._error if self._state == "failing" else None

    def state(self, left: Backlog) -> OutputState:
        """How the output is."""
        return OutputState(
            self.output, self.settings.kind, self.settings.address, self._state, self._error,
            self._since, self._sent, self._skipped, **vars(left),
        )  # fmt: skip

    # --- The thread ----------------------------------------------------------------------------

    def run(self) -> None:
        """Tell the output until it is to end."""
        while True:
            try:
                wait = self._step()
            except Exception as error:
                if not isinstance(error, ReconPatchError):
                    log.exception("the output %s failed unexpectedly", self.output)
                self._fails(error)
                wait = self._until_retry()
            with self._changed:
                if self._stopping:
                    break
                if not (self._tests or (self._news and self._may_try())):
                    self._changed.wait(wait)
        self._end()

    def _step(self) -> float | None:
        """Do what is due; seconds until there is more, or None."""
        self._answer_tests()
        if not self._may_try():
            return self._until_retry()
        with self._changed:
            self._news = False
        dues = [self._beat()]
        if self.keeps:
            dues.append(self._send_kept())
        else:
            self._send_live()
        if self._sender is not None:
            dues.append(self._sender.idle())
        return min((due for due in dues if due is not None), default=None)

    def _may_try(self) -> bool:
        return time.monotonic() >= self._retry_at

    def _until_retry(self) -> float:
        return max(0.01, self._retry_at - time.monotonic())

    def _opened(self) -> Sender:
        if self._sender is None:
            self._sender = self._make(self.settings, self._records.station)
        return self._sender

    def _deliver(self, message: Message) -> None:
        """Send a message, and note how the output is."""
        try:
            self._opened().send(message)
        except RefusedError:
            self._works()  # it is there
            raise
        self._works()

    def _works(self) -> None:
        self._failures, self._retry_at = 0, 0.0
        if self._state != "ok":
            if self._state == "failing":
                log.info("the output %s is back", self.output)
            self._state, self._error, self._since = "ok", None, datetime.now(UTC)

    def _fails(self, error: Exception) -> None:
        said = str(error) if isinstance(error, ReconPatchError) else "see the service's log"
        self._close_sender()
        wait = min(_LONGEST_WAIT, 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._retry_at = time.monotonic() + wait
        self._was_ready = None
        if self._state != "failing" or self._error != said:
            log.warning("the output %s fails: %s", self.output, said)
        if self._state != "failing":
            self._state, self._since = "failing", datetime.now(UTC)
        self._error = said

    def _close_sender(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _answer_tests(self) -> None:
        while True:
            with self._changed:
                if not self._tests:
                    return
                asked = self._tests.popleft()
            if not asked.set_running_or_notify_cancel():
                continue
            began = time.perf_counter()
            try:
                self._beats += 1
                message = of_status("test", self._records.station, self._status(), self._beats)
                self._deliver(message)
            except Exception as error:
                if not isinstance(error, RefusedError):
                    self._fails(error)
                asked.set_exception(error)
            else:
                asked.set_result(time.perf_counter() - began)

    # --- Heartbeats ----------------------------------------------------------------------------

    def _beat(self) -> float | None:
        """Say that verdicts can be given; once, that they cannot. Seconds until the next time."""
        every = self.settings.heartbeat
        if not every:
            return None
        left = self._beat_at - time.monotonic()
        if left > 0:
            return left
        self._say(self._status())
        self._beat_at = time.monotonic() + every
        return every

    def _say(self, status: Status) -> None:
        if status.ready:
            self._beats += 1
        if status.ready or self._was_ready is not False:
            event: Literal["heartbeat", "not_ready"] = "heartbeat" if status.ready else "not_ready"
            self._deliver(of_status(event, self._records.station, status, self._beats))
        self._was_ready = status.ready

    # --- Messages that are kept ----------------------------------------------------------------

    def _send_kept(self) -> float | None:
        """Send what waits; seconds until what was taken is to be written down, or None."""
        while True:
            taken = set(self._taken)
            rows = self._outbox.waiting(self.output, _ROWS + len(taken))
            rows = [row for row in rows if row.id not in taken]
            for row in rows:
                if self._stopping and time.monotonic() > self._stop_by:
                    return None
                self._send_row(row)
                if len(self._taken) >= _ROWS or self._overdue() <= 0:
                    self._write_down()
                self._answer_tests()
                if not self._may_try():
                    return self._until_retry()
                self._beat()
            if not rows:
                break
        if not self._taken:
            return None
        if (left := self._overdue()) <= 0:
            self._write_down()
            return None
        return left

    def _send_row(self, row: Waiting) -> None:
        log_, get = self._records.log, self._records.get
        try:
            subject: Record | Failure = (
                get(row.subject) if row.event == "verdict" else log_.failure(row.subject)
            )
        except NotFoundError as error:  # somebody removed it by hand: it must not stop all others
            self._outbox.refuse(row.id, str(error))
            return
        sent_before = row.id <= self._before or row.id in self._tried
        self._tried.add(row.id)
        try:
            self._deliver(about(subject, self._records.station, sent_before=sent_before))
        except RefusedError as error:
            log.error("the output %s refused %s %d: %s", self.output, row.event, row.subject, error)
            self._outbox.refuse(row.id, str(error))
        else:
            if not self._taken:
                self._taken_at = time.monotonic()
            self._taken.append(row.id)
            self._sent += 1
        self._tried.discard(row.id)

    def _overdue(self) -> float:
        """Seconds until what was taken is to be written down."""
        return self._taken_at + _WRITE_DOWN - time.monotonic() if self._taken else _WRITE_DOWN

    def _write_down(self) -> None:
        self._outbox.sent(self._taken)
        self._taken = []

    # --- What happens now ----------------------------------------------------------------------

    def _send_live(self) -> None:
        while True:
            with self._changed:
                if not self._live:
                    return
                heard, message = self._live.popleft()
            if self._fresh is not None and time.monotonic() - heard > self._fresh:
                self._skipped += 1
                continue
            try:
                self._deliver(message)
            except LineError:
                self._skipped += 1
                raise
            self._sent += 1
            self._answer_tests()
            self._beat()

    # --- The end -------------------------------------------------------------------------------

    def _end(self) -> None:
        """Send what waits, say goodbye, and write down what was taken."""
        try:
            for asked in self._tests:
                asked.set_exception(LineError("the service stops: ask again when it runs"))
            if self._may_try():
                self._step()
            if self._sender is not None and self.settings.heartbeat:
                gone = Status(["the service stops"], [], 0)
                self._sender.send(of_status("not_ready", self._records.station, gone, self._beats))
        except Exception:
            log.warning("the output %s could not be told that the service stops", self.output)
        self._close_sender()
        try:
            self._write_down()
        except ReconPatchError:
            log.warning("what %s took could not be written down: it is sent again", self.output)
