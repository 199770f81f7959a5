"""A camera that is asked for frames: by somebody, by a message, or at an interval.

A photo that was asked for and came to nothing is a photo without a verdict, so that the line hears
of it. At an interval it is one once for each reason: a camera that is away at night is told once.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from datetime import UTC, datetime

from PIL import Image

from reconpatch.errors import CameraError, ReconPatchError
from reconpatch.station.cameras.camera import Camera, Health
from reconpatch.station.cameras.reader import FrameReader
from reconpatch.station.cameras.settings import LiveSettings
from reconpatch.station.cameras.source import Frame, Opener
from reconpatch.station.cameras.trigger import MqttTrigger
from reconpatch.station.records import Record
from reconpatch.station.station import Station

log = logging.getLogger("reconpatch.cameras")

# Messages that may wait while a photo is taken.
_MOST_TRIGGERS = 8
# Those who look at the page share a frame for so many seconds.
_SHARED_SECONDS = 0.5
_LONGEST_SERIAL = 100


class LiveCamera(Camera):
    """See above.

    Args:
        name: of the camera.
        settings: of the camera.
        station: that inspects its photos.
        open_source: opens the camera.
    """

    def __init__(
        self, name: str, settings: LiveSettings, station: Station, open_source: Opener
    ) -> None:
        super().__init__(name, settings, station)
        self._settings = settings
        self._reader = FrameReader(name, settings, open_source)
        self._trigger = None
        if settings.trigger is not None:
            self._trigger = MqttTrigger(settings.trigger, name, self._heard)
        self._changed = threading.Condition()
        self._triggers: deque[tuple[float, str]] = deque()
        self._stopping = False
        self._worker = threading.Thread(target=self._work, name=f"photos-{name}", daemon=True)
        self._latest: Future[Record] | None = None
        self._said: str | None = None

    def start(self) -> None:
        """Begin."""
        self._reader.start()
        self._worker.start()
        if self._trigger is not None:
            self._trigger.start()

    def stop(self) -> None:
        """End soon."""
        if self._trigger is not None:
            self._trigger.close()
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._reader.stop()

    def join(self) -> None:
        """Wait for the end, but not for a driver that hangs."""
        for thread in (self._worker, self._reader):
            thread.join(2 * self._settings.timeout)

    def health(self) -> Health:
        """Whether it is there."""
        reader, last = self._reader, self._reader.last
        return Health(
            reader.contact.state, reader.contact.since, reader.contact.error, reader.age,
            None if last is None else _size(last.pixels),
            None if self._trigger is None else self._trigger.error,
        )  # fmt: skip

    # --- Photos --------------------------------------------------------------------------------

    def shoot(self, serial: str = "") -> Future[Record]:
        """Take a photo, the first frame that is waited for now, and have it inspected."""
        try:
            answer = self._photo(serial)
        except ReconPatchError as error:
            self._nothing(serial, error)
            raise
        answer.add_done_callback(self._done)
        return answer

    def _photo(self, serial: str) -> Future[Record]:
        self._check_paused()
        taken = self._reader.frame()
        self._check_size(taken.pixels)
        return self._station.submit(
            png(taken.pixels), name=self._photo_name(taken.time), product=self._about.product,
            serial=_word(serial) or None,
        )  # fmt: skip

    def _photo_name(self, when: datetime) -> str:
        return f"{self.name}-{when:%Y%m%dT%H%M%S}.{when.microsecond // 1000:03}Z.png"

    def _check_size(self, pixels: Frame) -> None:
        served = self._station.product(self._about.product)
        known = {(photo.width, photo.height) for photo in served.inspector.photos}
        if (size := _size(pixels)) not in known:
            sizes = ", ".join(f"{width} x {height}" for width, height in sorted(known)[:3])
            raise CameraError(
                f"the camera {self.name} gives {size[0]} x {size[1]} pixels, and "
                f"{served.version.product} was fitted on photos of {sizes}: set the camera to that "
                "size, or fit on photos of this camera"
            )

    def _nothing(self, serial: str, error: ReconPatchError) -> None:
        """A photo that was asked for has no verdict."""
        self._count(error)
        name = f"{_word(serial)} {self._photo_name(datetime.now(UTC))}".strip()
        self._station.no_photo(self._about.product, name, str(error), "camera")

    def _done(self, answer: Future[Record]) -> None:
        self._count(answer.exception())

    def picture(self) -> Frame:
        """A frame for people to look at; of a lost camera its last one."""
        try:
            return self._reader.frame(_SHARED_SECONDS).pixels
        except CameraError:
            if (last := self._reader.last) is None:
                raise
            return last.pixels

    # --- Messages, and the interval ------------------------------------------------------------

    def _heard(self, serial: str) -> None:
        with self._changed:
            full = len(self._triggers) >= _MOST_TRIGGERS
            if not full:
                self._triggers.append((time.monotonic(), serial))
                self._changed.notify()
        if full:
            self._nothing(serial, CameraError(
                f"messages to the camera {self.name} come faster than it can take photos: send "
                "fewer, or a model that is faster"
            ))  # fmt: skip

    def _work(self) -> None:
        """Take photos until it is to end."""
        every = self._settings.every
        due = time.monotonic() + every if every else None
        while True:
            with self._changed:
                if not self._triggers and not self._stopping:
                    self._changed.wait(None if due is None else max(0.0, due - time.monotonic()))
                if self._stopping:
                    return
                trigger = self._triggers.popleft() if self._triggers else None
            try:
                if trigger is not None:
                    self._by_message(*trigger)
                elif due is not None and time.monotonic() >= due:
                    due = max(due + every, time.monotonic())
                    self._by_itself()
            except Exception:
                log.exception("the camera %s failed unexpectedly", self.name)

    def _by_message(self, heard: float, serial: str) -> None:
        late = time.monotonic() - heard
        try:
            if late > self._settings.timeout:  # the part has gone
                error = CameraError(
                    f"a message to the camera {self.name} waited {late:.0f} s, and the part has "
                    "gone: send fewer at a time, or give the camera a longer timeout"
                )
                self._nothing(serial, error)
            else:
                self.shoot(serial)
        except ReconPatchError as error:
            log.warning("a photo that was asked for by a message was not taken: %s", error)

    def _by_itself(self) -> None:
        """Take a photo, unless it is paused, or the one before still waits."""
        if self.pause or (self._latest is not None and not self._latest.done()):
            return
        try:
            self._latest = self._photo("")
            self._latest.add_done_callback(self._done)
            self._said = None
        except ReconPatchError as error:
            if self._said != str(error):
                self._said = str(error)
                self._nothing("", error)


def _word(serial: str) -> str:
    """A serial number as it was meant, whatever a program has put around it."""
    return "".join(c for c in serial if c.isprintable()).strip()[:_LONGEST_SERIAL]


def _size(pixels: Frame) -> tuple[int, int]:
    return int(pixels.shape[1]), int(pixels.shape[0])


def png(pixels: Frame) -> bytes:
    """A frame as the file of a photo, without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
