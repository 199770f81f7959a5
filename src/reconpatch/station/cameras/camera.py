"""What a camera is to the station: where photos come from, and how that goes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from reconpatch.errors import CameraError
from reconpatch.station.cameras.settings import CameraSettings
from reconpatch.station.cameras.source import Frame
from reconpatch.station.records import Record
from reconpatch.station.station import Station

State = Literal["ok", "lost", "starting"]


@dataclass(frozen=True)
class Health:
    """Whether a camera is there.

    Attributes:
        state: "ok": frames come, or the folder can be read; "lost"; "starting": not known yet.
        since: since when it is in this state, in UTC.
        error: why it is lost, in one sentence, or None.
        age: seconds since the last frame or file came; None: none came yet.
        size: width and height of the last frame that was looked at, in pixels, or None.
        trigger_error: why no messages can have photos taken, or None.
    """

    state: State
    since: datetime
    error: str | None = None
    age: float | None = None
    size: tuple[int, int] | None = None
    trigger_error: str | None = None


@dataclass(frozen=True)
class Pause:
    """That a camera takes no photos, because somebody said so.

    Attributes:
        camera: its name.
        product: that its photos are inspected as; None: no product is in service.
        since: since when, in UTC.
        by: who paused it, as far as they said.
    """

    camera: str
    product: str | None
    since: datetime
    by: str | None


@dataclass(frozen=True)
class CameraState(Health):
    """How a camera is.

    Attributes:
        name: of the camera.
        kind: of the camera.
        address: what it is or where, without anything secret.
        product: that its photos are inspected as; None: the default.
        pause: that it takes no photos, or None.
        every: seconds between two photos, or looks into the folder; 0: none is taken by itself.
        trigger: where messages come from that have photos taken, or None.
        taken: photos that got a verdict, since the service started.
        failed: those that got none.
        failure: why the last photo got none; None where it got one.
    """

    name: str = ""
    kind: str = ""
    address: str = ""
    product: str | None = None
    pause: Pause | None = None
    every: float = 0.0
    trigger: str | None = None
    taken: int = 0
    failed: int = 0
    failure: str | None = None


class Camera(ABC):
    """One camera; safe to use from many threads.

    Args:
        name: of the camera.
        settings: of the camera.
        station: that inspects its photos.
    """

    def __init__(self, name: str, settings: CameraSettings, station: Station) -> None:
        self.name, self._station, self._about = name, station, settings
        self._pause: tuple[datetime, str | None] | None = None
        self._taken = self._failed = 0
        self._failure: str | None = None
        self._counting = threading.Lock()

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def stop(self) -> None:
        """End soon; whoever waits for a photo is told."""

    @abstractmethod
    def join(self) -> None:
        """Wait for the end."""

    @abstractmethod
    def health(self) -> Health:
        """Whether it is there; from memory."""

    @abstractmethod
    def shoot(self, serial: str = "") -> Future[Record]:
        """Take a photo and have it inspected; what came to nothing is kept and counted.

        Args:
            serial: of the part; "": what was scanned for the next part, if anything.

        Raises:
            CameraError: there is no photo.
            ReconPatchError: it is not inspected; see `Station.submit`.
        """

    @abstractmethod
    def picture(self) -> Frame:
        """A frame for people to look at; of a lost camera its last one.

        Raises:
            CameraError: there is none.
        """

    def state(self) -> CameraState:
        """How it is; from memory."""
        about = self._about
        trigger = getattr(about, "trigger", None)
        return CameraState(
            **vars(self.health()), name=self.name, kind=about.kind, address=about.address,
            product=about.product, pause=self.pause,
            every=about.every, trigger=trigger and trigger.address, taken=self._taken,
            failed=self._failed, failure=self._failure,
        )  # fmt: skip

    @property
    def pause(self) -> Pause | None:
        """That it takes no photos, or None."""
        if self._pause is None:
            return None
        return Pause(self.name, self._about.product or self._station.default, *self._pause)

    def set_pause(self, since: datetime, by: str | None = None) -> None:
        """Take no photos until it is to go on; the camera is still read."""
        self._pause = since, by

    def resume(self) -> None:
        """Take photos again."""
        self._pause = None

    def _check_paused(self) -> None:
        if (pause := self.pause) is not None:
            who = f" by {pause.by}" if pause.by else ""
            raise CameraError(
                f"the camera {self.name} was paused{who}: resume it on the page to take photos"
            )

    def _count(self, error: BaseException | None) -> None:
        """One more photo got its verdict, or got none for a reason."""
        with self._counting:
            self._taken += error is None
            self._failed += error is not None
            self._failure = None if error is None else str(error)
