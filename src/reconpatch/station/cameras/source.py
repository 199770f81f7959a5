"""A camera as its driver knows it: opened, read, closed, by one thread."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reconpatch.errors import MissingExtraError
from reconpatch.station.cameras.settings import LiveSettings

Frame = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(H, W) mono or (H, W, 3) red, green, blue."""

_SOURCES = {
    "usb": ("opencv", "camera", ("cv2",)),
    "stream": ("opencv", "camera", ("cv2",)),
    "genicam": ("genicam", "genicam", ("harvesters", "genicam")),
}


class Source(Protocol):
    """A camera that is open; where it fails, it is closed and another is opened."""

    def grab(self) -> None:
        """Wait for the next frame; the one before is gone.

        Raises:
            CameraError: none came in time.
        """

    def pixels(self) -> Frame:
        """The frame that was grabbed last.

        Raises:
            CameraError: it cannot be decoded.
        """

    def close(self) -> None:
        """Let go of the camera; raises nothing."""


Opener = Callable[[Any], Source]


def opener_of(settings: LiveSettings) -> Opener:
    """What opens a camera; found out before anything starts.

    Raises:
        MissingExtraError: the packages of its kind are not installed.
    """
    module, extra, packages = _SOURCES[settings.kind]
    try:
        for package in packages:
            import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"a camera of the kind '{settings.kind}'", extra) from error
    found: Opener = import_module(f"reconpatch.station.cameras.{module}").open_camera
    return found
