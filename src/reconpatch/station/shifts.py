"""The shifts of a plant: names and starting times on its own clock.

    [shifts]
    zone = "Europe/Berlin"
    starts = {early = "06:00", late = "14:00", night = "22:00"}

Each shift lasts until the next one starts, and belongs to the day on which it starts. Without the
table there is one, the whole day in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

_DAY = timedelta(days=1)
_APART = 60  # minutes: a clock that is put forward by an hour leaves each shift its time
_QUARTER = 15


@dataclass(frozen=True)
class Shift:
    """One shift of one day.

    Attributes:
        name: of the shift.
        day: on which it starts, by the plant's clock.
        since: when it starts.
        until: when the next one starts.
    """

    name: str
    day: date
    since: datetime
    until: datetime


class Shifts(BaseModel):
    """When which shift starts; `[shifts]` of the station's file.

    Attributes:
        zone: name of the plant's time zone.
        starts: of each shift by its name, the time of day, on a quarter of an hour.
    """

    model_config = ConfigDict(frozen=True)

    zone: str = "UTC"
    starts: Mapping[str, time] = Field(default_factory=lambda: {"day": time(0)})

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        _zone(zone)
        return zone

    @field_validator("starts", mode="before")
    @classmethod
    def _times(cls, given: object) -> dict[str, time]:
        if not isinstance(given, Mapping) or not given or len(given) > 24:
            raise ValueError('give a table of 1 to 24 shifts, such as {early = "06:00"}')
        starts: dict[str, time] = {}
        for name, text in given.items():
            if not (isinstance(name, str) and 0 < len(name) <= 40 and name.isprintable()):
                raise ValueError("give each shift a name of 1 to 40 characters")
            starts[name] = _clock(name, text)
        minutes = sorted(60 * start.hour + start.minute for start in starts.values())
        if any(b - a < _APART for a, b in pairwise([*minutes, minutes[0] + 24 * 60])):
            raise ValueError("give starts that are an hour apart or more")
        return starts

    @property
    def clock(self) -> tzinfo:
        """The plant's time zone."""
        return _zone(self.zone)

    @property
    def names(self) -> list[str]:
        """Names of the shifts in the order of the day."""
        return sorted(self.starts, key=lambda name: self.starts[name])

    def of(self, day: date) -> list[Shift]:
        """The shifts that start on a day, in their order."""
        begin = [self._at(day, self.starts[name]) for name in self.names]
        begin.append(self._at(day + _DAY, self.starts[self.names[0]]))
        return [
            Shift(name, day, since, until)
            for name, (since, until) in zip(self.names, pairwise(begin), strict=True)
        ]

    def between(self, since: datetime, until: datetime) -> list[Shift]:
        """All shifts that have a part in the time from `since` to before `until`, in their order.

        Args:
            since: with a zone.
            until: with a zone.
        """
        return [s for s in self._days(since, until) if s.since < until and s.until > since]

    def day_of(self, when: datetime) -> date:
        """The day of the shift that a time lies in."""
        return self.between(when, when + timedelta(microseconds=1))[0].day

    def _days(self, since: datetime, until: datetime) -> Iterator[Shift]:
        day = since.astimezone(self.clock).date() - _DAY
        while day <= until.astimezone(self.clock).date():
            yield from self.of(day)
            day += _DAY

    def _at(self, day: date, start: time) -> datetime:
        return datetime.combine(day, start, self.clock).astimezone(UTC)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # also where the system knows no zones
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("give the name of a time zone, such as Europe/Berlin or UTC") from None


def _clock(name: str, text: object) -> time:
    if isinstance(text, time):
        start = text
    else:
        try:
            start = time.fromisoformat(str(text))
        except ValueError:
            raise ValueError(f'give {name} a time of day, such as "06:00"') from None
    if start.tzinfo or start.second or start.microsecond or start.minute % _QUARTER:
        raise ValueError(f'give {name} a time of day on a quarter of an hour, such as "06:15"')
    return start
