"""What the line is told, and what tells it.

A message is a JSON object: `event`, `station`, and `id` of what it is about. With `event` "verdict"
the rest is the record as the service gives it, with "failure" the photo without a verdict. It may
come twice, after a crash or a lost answer: then `event` and `id` are the same, and `sent_before` is
true where it may have been sent before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, Protocol

from pydantic import TypeAdapter

from reconpatch.station.log import Failure
from reconpatch.station.records import Record

Event = Literal["verdict", "failure", "test", "heartbeat", "not_ready"]

_RECORD, _FAILURE = TypeAdapter(Record), TypeAdapter(Failure)


@dataclass(frozen=True)
class Status:
    """Whether verdicts can be given.

    Attributes:
        reasons: why none can, or none.
        products: names of the products in service.
        waiting: photos in the queue.
    """

    reasons: Sequence[str]
    products: Sequence[str]
    waiting: int

    @property
    def ready(self) -> bool:
        """Whether they can."""
        return not self.reasons


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        event: what happened.
        key: names it; a message that is sent again has the same.
        time: of what it is about, in UTC.
        product: name of the product, or None.
        values: the JSON object.
    """

    event: Event
    key: str
    time: datetime
    product: str | None
    values: dict[str, Any]

    @cached_property
    def body(self) -> bytes:
        """The JSON object in UTF-8."""
        return json.dumps(self.values, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def verdict(self) -> str:
        """What was judged: "good", "anomalous", or "none" where nothing was."""
        if self.event != "verdict":
            return "none"
        return "anomalous" if self.values["anomalous"] else "good"


def about(subject: Record | Failure, station: str, *, sent_before: bool = False) -> Message:
    """The message about a record or a failed photo."""
    event: Event = "verdict" if isinstance(subject, Record) else "failure"
    told = _RECORD if isinstance(subject, Record) else _FAILURE
    values = {"event": event, "station": station, "sent_before": sent_before}
    values |= told.dump_python(subject, mode="json")  # type: ignore[arg-type]
    key = f"{station}-{event}-{subject.id}"
    return Message(event, key, subject.time, subject.product, values)


def of_status(event: Event, station: str, status: Status, number: int) -> Message:
    """A heartbeat, that verdicts cannot be given, or a test; numbered in memory alone."""
    now = datetime.now(UTC)
    values = {
        "event": event, "station": station, "id": number, "time": now.isoformat(),
        "ready": status.ready, "reasons": list(status.reasons),
        "products": list(status.products), "waiting": status.waiting,
    }  # fmt: skip
    return Message(event, f"{station}-{event}-{now.timestamp():.6f}", now, None, values)


class Sender(Protocol):
    """Speaks one protocol with one receiver; used by one thread, opened when it is made.

    Every method raises LineError where the receiver is away; the sender is then closed, and
    another is made.

    """

    def send(self, message: Message) -> None:
        """Send a message; it has been taken when this returns.

        Raises:
            RefusedError: this very message will never be taken.
        """

    def idle(self) -> float | None:
        """Do what is due by itself; seconds until there is more to do, or None."""

    def close(self) -> None:
        """Let go of the receiver; raises nothing."""


class Maker(Protocol):
    """The class of a sender.

    Attributes:
        keeps: whether messages are kept in the outbox until they are taken. One that shows the
            present state alone is told what happens while it is there.
        fresh: seconds after which such a one is not told any more; None: however late.
    """

    @property
    def keeps(self) -> bool:
        """See above."""

    @property
    def fresh(self) -> float | None:
        """See above."""

    def __call__(self, settings: Any, station: str, /) -> Sender:
        """Open one."""
