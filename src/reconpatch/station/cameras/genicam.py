"""GenICam cameras through harvesters and the GenTL producer of the camera's maker.

The camera runs as its own settings say (its default user set), freely: without a trigger of its
own.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
from genicam.gentl import GenericException, TimeoutException
from harvesters.core import Harvester

from reconpatch.errors import CameraError
from reconpatch.station.cameras.settings import GenicamSettings
from reconpatch.station.cameras.source import Frame

# Of a pixel format: its channels, and in which of them red, green and blue are.
_FORMATS: dict[str, tuple[int, slice | None]] = {
    "Mono8": (1, None),
    "Mono10": (1, None),
    "Mono12": (1, None),
    "Mono14": (1, None),
    "Mono16": (1, None),
    "RGB8": (3, slice(0, 3)),
    "RGBa8": (4, slice(0, 3)),
    "BGR8": (3, slice(2, None, -1)),
    "BGRa8": (4, slice(2, None, -1)),
}


def open_camera(settings: GenicamSettings) -> Genicam:
    """Open a camera.

    Raises:
        CameraError: it cannot be opened.
    """
    return Genicam(settings)


class Genicam:
    """A camera that harvesters has opened.

    Raises:
        CameraError: the producer cannot be used, or there is no such camera.
    """

    def __init__(self, settings: GenicamSettings) -> None:
        self._timeout = settings.timeout
        self._buffer: Any = None
        self._acquirer: Any = None
        self._harvester = harvester = Harvester()
        try:
            harvester.add_file(str(settings.producer))
            harvester.update()
            self._acquirer = self._opened(settings)
            self._acquirer.start()
        except BaseException as error:
            self.close()
            if isinstance(error, (GenericException, OSError, ValueError)):
                raise CameraError(
                    f"the camera {settings.address} cannot be opened ({_reason(error)}): check "
                    "that it is on, and that no other program uses it"
                ) from error
            raise

    def _opened(self, settings: GenicamSettings) -> Any:
        found = [str(device.serial_number) for device in self._harvester.device_info_list]
        if not found:
            raise CameraError(
                f"{settings.producer.name} finds no camera: check the cable, the network and power"
            )
        if settings.serial is None and len(found) > 1:
            raise CameraError(
                f"{settings.producer.name} finds {len(found)} cameras: give the serial of one of "
                f"{', '.join(found)}"
            )
        if settings.serial is None:
            return self._harvester.create(0)
        if settings.serial not in found:
            raise CameraError(
                f"{settings.producer.name} finds no camera {settings.serial}: give one of "
                f"{', '.join(found)}"
            )
        return self._harvester.create({"serial_number": settings.serial})

    def grab(self) -> None:
        """Wait for the next frame."""
        self._let_go()
        try:
            self._buffer = self._acquirer.fetch(timeout=self._timeout)
        except TimeoutException as error:
            raise CameraError(
                f"no frame came in {self._timeout:g} s: check the camera, and that it runs without "
                "a trigger of its own"
            ) from error
        except GenericException as error:
            raise CameraError(f"the camera fails ({_reason(error)}): check its cable") from error

    def pixels(self) -> Frame:
        """The frame that was grabbed last, a copy, red first."""
        component = self._buffer.payload.components[0]
        height, width = int(component.height), int(component.width)
        return frame_of(component.data, str(component.data_format), height, width)

    def close(self) -> None:
        """Let go of the camera."""
        with contextlib.suppress(Exception):
            self._let_go()
        if self._acquirer is not None:
            with contextlib.suppress(Exception):
                self._acquirer.stop()
            with contextlib.suppress(Exception):
                self._acquirer.destroy()
        with contextlib.suppress(Exception):
            self._harvester.reset()

    def _let_go(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.queue()


def frame_of(data: npt.NDArray[np.generic], kind: str, height: int, width: int) -> Frame:
    """A copy of what a camera has sent.

    Args:
        data: its samples, row by row.
        kind: its pixel format, as GenICam names it.
        height: of the frame.
        width: of the frame.

    Raises:
        CameraError: the format is another than those that are read, or the frame is not whole.
    """
    if kind not in _FORMATS:
        raise CameraError(
            f"frames are {kind}: give the camera a PixelFormat of {', '.join(_FORMATS)}"
        )
    channels, colours = _FORMATS[kind]
    if data.size != height * width * channels:
        raise CameraError("a frame did not come whole: check the cable or the network")
    if colours is None:
        return np.array(data.reshape(height, width))
    return np.array(data.reshape(height, width, channels)[:, :, colours], order="C")


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
