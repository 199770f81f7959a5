"""A folder that a camera or another program writes photos into, looked through at intervals.

Files are told apart as by `watch`: each is inspected once, also where the service was killed in
between, and may be linked or moved by its verdict.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime

from reconpatch.errors import BusyError, CameraError, PhotoError, ReconPatchError
from reconpatch.photos.images import read_photo_bytes
from reconpatch.station.cameras.camera import Camera, Health, State, pause_after
from reconpatch.station.cameras.settings import FolderSettings
from reconpatch.station.cameras.source import Frame
from reconpatch.station.records import FileKey, Record
from reconpatch.station.station import Station
from reconpatch.station.watch import FolderWatch, Inspected, KeptError, NotYetError

log = logging.getLogger("reconpatch.cameras")


class FolderCamera(Camera):
    """See above; a folder that is away is looked for again after 1, 2, 4, 8, then 15 seconds.

    Args:
        name: of the camera.
        settings: of the folder.
        station: that inspects its photos.
    """

    def __init__(self, name: str, settings: FolderSettings, station: Station) -> None:
        super().__init__(name, settings, station)
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"camera-{name}", daemon=True)
        self._state: State = "starting"
        self._error: str | None = None
        self._since = datetime.now(UTC)
        self._failures = 0
        self._came: float | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def health(self) -> Health:
        """Whether it is there."""
        age = None if self._came is None else time.monotonic() - self._came
        return Health(self._state, self._since, self._error, age)

    def shoot(self, serial: str = "") -> Future[Record]:  # noqa: ARG002
        """Refuse; see `Camera.shoot`."""
        raise CameraError(
            f"the camera {self.name} is a folder, whose photos are inspected as they arrive: put "
            "one there"
        )

    def picture(self) -> Frame:
        """Refuse; see `Camera.picture`."""
        raise CameraError(
            f"the camera {self.name} is a folder: put a photo into it, and it is inspected"
        )

    # --- The thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        watch: _Watch | None = None
        while not self._stopping.is_set():
            try:
                if watch is None:
                    watch = _Watch(self._settings, self._station)
                if not self._settings.path.is_dir():
                    raise CameraError(f"the folder {self._settings.path} is not there: put it back")
                self._look(watch)
                self._works()
                wait = self._settings.every
            except Exception as error:
                watch = None
                self._is_lost(error)
                wait = pause_after(self._failures)
            self._stopping.wait(wait)

    def _look(self, watch: _Watch) -> None:
        if self.pause:
            return
        for seen in watch.look():
            self._came = time.monotonic()
            if not seen.inspected_before:
                self._count(PhotoError(seen.error) if seen.error else None)
            if self.pause or self._stopping.is_set():
                return

    def _works(self) -> None:
        self._failures = 0
        if self._state != "ok":
            self._state, self._error, self._since = "ok", None, datetime.now(UTC)

    def _is_lost(self, error: Exception) -> None:
        if isinstance(error, (ReconPatchError, OSError)):
            said = str(error)
        else:
            log.exception("the camera %s failed unexpectedly", self.name)
            said = "it fails: see the service's log"
        self._failures += 1
        if self._error != said:
            log.warning("the camera %s is lost: %s", self.name, said)
        if self._state != "lost":
            self._state, self._since = "lost", datetime.now(UTC)
        self._error = said


class _Watch(FolderWatch):
    """Has the station inspect what arrives."""

    def __init__(self, settings: FolderSettings, station: Station) -> None:
        super().__init__(
            settings.path, station.records, output=settings.output, sorting=settings.sorting,
            patience=settings.patience,
        )  # fmt: skip
        self._station, self._product = station, settings.product

    def _inspect(self, content: bytes, name: str, key: FileKey) -> Inspected:
        # A file that is still being written is none that failed, which it would be to the station.
        read_photo_bytes(content, name=name, max_pixels=self._station.limits.max_pixels)
        try:
            answer = self._station.submit(content, name=name, product=self._product, file=key)
        except BusyError as error:
            raise NotYetError from error
        try:
            return answer.result(), None, ()
        except PhotoError as error:  # of the model: it decodes
            raise KeptError(str(error)) from error

    def _failed(self, name: str, error: str) -> None:
        product = self._product or self._station.default
        if product is None or not self._station.records.log.has_failure(product, name, error):
            self._station.no_photo(product, name, error, "photo")
