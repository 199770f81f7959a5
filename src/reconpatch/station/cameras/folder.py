"""A folder that a camera or another program writes photos into, looked through at intervals.

Files are told apart as by `watch`: each is inspected once, also where the service was killed in
between, and may be linked or moved by its verdict.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from reconpatch.errors import BusyError, CameraError, PhotoError
from reconpatch.photos.images import read_photo_bytes
from reconpatch.station.cameras.camera import Camera, Health
from reconpatch.station.cameras.contact import Contact
from reconpatch.station.cameras.settings import FolderSettings
from reconpatch.station.cameras.source import Frame
from reconpatch.station.records import FileKey, Record
from reconpatch.station.station import Station
from reconpatch.station.watch import FolderWatch, Inspected, KeptError, NotYetError


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
        self._contact = Contact(name)
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
        contact = self._contact
        return Health(contact.state, contact.since, contact.error, age)

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
                self._contact.works()
                wait = self._settings.every
            except Exception as error:
                watch = None
                self._contact.is_lost(error)
                wait = self._contact.pause
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
