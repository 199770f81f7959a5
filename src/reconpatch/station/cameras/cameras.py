"""All cameras of a station, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from reconpatch.errors import NotFoundError
from reconpatch.station.cameras.camera import Camera, CameraState, Pause
from reconpatch.station.cameras.folder import FolderCamera
from reconpatch.station.cameras.live import LiveCamera
from reconpatch.station.cameras.settings import CameraSettings, FolderSettings, LiveSettings
from reconpatch.station.cameras.source import opener_of
from reconpatch.station.station import Station

_PAUSE, _RESUME = "camera pause", "camera resume"


class Cameras:
    """All cameras of a station; safe to use from many threads.

    A camera that was paused before the service ended is paused when it starts again: the audit
    trail says so.

    Args:
        settings: of each camera, by its name.
        station: that inspects their photos.

    Raises:
        MissingExtraError: the packages of a camera are not installed.
    """

    def __init__(self, settings: Mapping[str, CameraSettings], station: Station) -> None:
        self._audit = station.records.audit
        self._all = {name: _made(name, one, station) for name, one in settings.items()}
        for name, camera in self._all.items():
            last = self._audit.last(name, (_PAUSE, _RESUME))
            if last is not None and last.what == _PAUSE:
                camera.set_pause(last.time, last.who)

    def start(self) -> None:
        """Begin to take photos."""
        for camera in self._all.values():
            camera.start()

    def close(self) -> None:
        """Take no more photos; those that are taken are inspected."""
        for camera in self._all.values():
            camera.stop()
        for camera in self._all.values():
            camera.join()

    @property
    def names(self) -> list[str]:
        """Of all cameras, in the order of the configuration."""
        return list(self._all)

    def states(self) -> list[CameraState]:
        """How each camera is, from memory."""
        return [camera.state() for camera in self._all.values()]

    def lost(self) -> dict[str, str]:
        """Why cameras are lost, by their names; from memory."""
        return {one.name: one.error or "" for one in self.states() if one.state == "lost"}

    def pauses(self) -> list[Pause]:
        """Of the cameras that are paused; from memory."""
        return [pause for camera in self._all.values() if (pause := camera.pause) is not None]

    def get(self, name: str) -> Camera:
        """A camera by its name.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self._all:
            names = ", ".join(self._all) or "none, for the configuration has no cameras"
            raise NotFoundError(f"there is no camera {name!r}: give one of {names}")
        return self._all[name]

    def pause(self, name: str, by: str | None = None) -> CameraState:
        """Take no photos until it is to go on, also after another start; the camera is still read.

        Raises:
            NotFoundError: there is no such camera.
        """
        camera = self.get(name)
        self._audit.add(_PAUSE, name, who=by)
        camera.set_pause(datetime.now(UTC), by)
        return camera.state()

    def resume(self, name: str, by: str | None = None) -> CameraState:
        """Take photos again.

        Raises:
            NotFoundError: there is no such camera.
        """
        camera = self.get(name)
        self._audit.add(_RESUME, name, who=by)
        camera.resume()
        return camera.state()


def _made(name: str, settings: CameraSettings, station: Station) -> Camera:
    if isinstance(settings, FolderSettings):
        return FolderCamera(name, settings, station)
    assert isinstance(settings, LiveSettings)
    return LiveCamera(name, settings, station, opener_of(settings))
