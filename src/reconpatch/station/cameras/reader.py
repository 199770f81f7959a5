"""Reads a camera all the time, so that a frame that is asked for is one of now.

Frames are grabbed as they come and mostly thrown away; one that was asked for is decoded. A camera
that is lost is opened again after 1, 2, 4, 8, and then every 15 seconds.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from reconpatch.errors import CameraError
from reconpatch.station.cameras.contact import Contact
from reconpatch.station.cameras.settings import LiveSettings
from reconpatch.station.cameras.source import Frame, Opener, Source


@dataclass(frozen=True, eq=False)
class Taken:
    """A frame that was asked for.

    Attributes:
        pixels: see `Frame`.
        time: when it came, in UTC.
        moment: the same by a clock that cannot be set.
    """

    pixels: Frame
    time: datetime
    moment: float


class FrameReader(threading.Thread):
    """Reads one camera; others may ask for frames from any thread.

    Attributes:
        contact: whether the camera is there.

    Args:
        name: of the camera.
        settings: of the camera.
        open_source: opens it.
    """

    def __init__(self, name: str, settings: LiveSettings, open_source: Opener) -> None:
        # A driver that hangs must not keep the service from ending.
        super().__init__(name=f"camera-{name}", daemon=True)
        self._camera, self._settings, self._open = name, settings, open_source
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._asked = self._answered = self._losses = 0
        self.contact = Contact(name)
        self._last: Taken | None = None
        self._came: float | None = None

    # --- Asked by others -----------------------------------------------------------------------

    @property
    def age(self) -> float | None:
        """Seconds since the last frame came, or None."""
        came = self._came
        return None if came is None else time.monotonic() - came

    @property
    def last(self) -> Taken | None:
        """The frame that was asked for last, however old."""
        return self._last

    def frame(self, max_age: float = 0) -> Taken:
        """The first frame that is waited for after this call.

        Args:
            max_age: one that was asked for before will do that is not older, in seconds.

        Raises:
            CameraError: the camera is lost, or gives no frame in time.
        """
        with self._changed:
            last, oldest = self._last, time.monotonic() - max_age
            if last is not None and self.contact.state == "ok" and last.moment >= oldest:
                return last
            if self.contact.state == "lost":
                raise self._gone()
            self._asked += 1
            asked, losses = self._asked, self._losses
            self._changed.wait_for(
                lambda: self._answered >= asked or self._losses > losses, 2 * self._settings.timeout
            )
            if self._answered >= asked and self._last is not None:
                return self._last
            raise self._gone()

    def _gone(self) -> CameraError:
        why = self.contact.error or f"none came in {2 * self._settings.timeout:g} s"
        return CameraError(f"the camera {self._camera} gives no frames: {why}")

    def stop(self) -> None:
        """End soon; who waits for a frame is told."""
        self._stopping.set()
        with self._changed:
            self._losses += 1
            self.contact.error = self.contact.error or "the service stops"
            self._changed.notify_all()

    # --- The thread ----------------------------------------------------------------------------

    def run(self) -> None:
        """Read the camera until it is to end."""
        while not self._stopping.is_set():
            try:
                source = self._open(self._settings)
                try:
                    self._read(source)
                finally:
                    source.close()
            except Exception as error:
                if self._stopping.is_set():
                    return
                with self._changed:
                    self._losses += 1
                    self.contact.is_lost(error)
                    self._changed.notify_all()
                self._stopping.wait(self.contact.pause)

    def _read(self, source: Source) -> None:
        known = False
        while not self._stopping.is_set():
            asked = self._asked  # before the frame is waited for
            source.grab()
            now, self._came = datetime.now(UTC), time.monotonic()
            if known and asked == self._answered:
                continue
            taken = Taken(source.pixels(), now, self._came)
            with self._changed:
                self._last, self._answered, known = taken, asked, True
                self.contact.works()
                self._changed.notify_all()
