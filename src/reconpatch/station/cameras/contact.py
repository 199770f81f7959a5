"""Whether a camera is there, since when, and why not; the log is told of each change."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from reconpatch.errors import ReconPatchError
from reconpatch.station.cameras.camera import State

log = logging.getLogger("reconpatch.cameras")

_LONGEST_WAIT = 15.0


class Contact:
    """Written by the thread that reads the camera; others may look.

    Attributes:
        state: see `reconpatch.station.cameras.camera.Health`.
        error: why it is lost, in one sentence, or None.
        since: since when it is in this state, in UTC.
        pause: seconds until it is tried again: 1, 2, 4, 8, then 15, by how often it has failed.

    Args:
        camera: its name.
    """

    def __init__(self, camera: str) -> None:
        self._camera, self._failures = camera, 0
        self.state: State = "starting"
        self.error: str | None = None
        self.since = datetime.now(UTC)

    @property
    def pause(self) -> float:  # noqa: D102 - see the attributes
        return min(_LONGEST_WAIT, 2.0 ** min(self._failures - 1, 10))

    def works(self) -> None:
        """Note that it is there."""
        self._failures = 0
        if self.state != "ok":
            if self.state == "lost":
                log.info("the camera %s is back", self._camera)
            self.state, self.error, self.since = "ok", None, datetime.now(UTC)

    def is_lost(self, error: Exception) -> None:
        """Note that it is not, in an `except` clause; what nobody foresaw is logged whole."""
        if isinstance(error, (ReconPatchError, OSError)):
            said = str(error)
        else:
            log.exception("the camera %s failed unexpectedly", self._camera)
            said = "it fails: see the service's log"
        self._failures += 1
        if self.state != "lost" or self.error != said:
            log.warning("the camera %s is lost: %s", self._camera, said)
        if self.state != "lost":
            self.state, self.since = "lost", datetime.now(UTC)
        self.error = said
