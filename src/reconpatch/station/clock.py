"""Whether the clock of the machine may be trusted with the age of photos.

A clock that is set 400 days ahead for a moment, or a machine that starts before it has asked for
the time, must not make every photo too old to be kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

log = logging.getLogger("reconpatch.station")

# A clock that is corrected in smaller steps has not jumped.
_JUMP = timedelta(minutes=10)
# So long it has to run evenly after a jump, or after a start that follows no recent photo.
_PROBATION = timedelta(days=1)


def _now() -> datetime:
    return datetime.now(UTC)


class SteadyClock:
    """Compares the clock with one that cannot be set, each time it is asked.

    Args:
        wall: the time of day, which may be set by anybody.
        steady: seconds that only rise, evenly.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = _now,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._last = wall(), steady()
        self._even_since = self._last[1]
        self._jumped = False

    def now(self) -> datetime:
        """The time of day, trusted or not."""
        return self._wall()

    def is_trusted(self, newest: datetime | None) -> bool:
        """Whether the clock has run evenly for a day, or goes on from a photo of the last day.

        Args:
            newest: when the newest photo was stored that is not of the future, or None.
        """
        wall, steady = self._wall(), self._steady()
        gone_wall = wall - self._last[0]
        gone_steady = timedelta(seconds=steady - self._last[1])
        self._last = wall, steady
        if abs(gone_wall - gone_steady) > _JUMP:
            self._even_since, self._jumped = steady, True
            log.warning(
                "the clock jumped by %s: no photo is removed for its age before it has run evenly "
                "for a day",
                gone_wall - gone_steady,
            )
        if timedelta(seconds=steady - self._even_since) >= _PROBATION:
            return True
        follows = newest is not None and newest - _JUMP <= wall <= newest + _PROBATION
        return follows and not self._jumped
