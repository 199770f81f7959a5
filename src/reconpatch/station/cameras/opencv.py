"""USB cameras and streams, through OpenCV."""

from __future__ import annotations

import contextlib
from typing import Any

import cv2
import numpy as np

from reconpatch.errors import CameraError
from reconpatch.station.cameras.settings import StreamSettings, UsbSettings
from reconpatch.station.cameras.source import Frame

# What OpenCV would say of a camera that is away, the station says itself.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


def open_camera(settings: UsbSettings | StreamSettings) -> OpenCv:
    """Open a camera.

    Raises:
        CameraError: it cannot be opened.
    """
    if isinstance(settings, StreamSettings):
        return OpenCv(_stream(settings))
    return OpenCv(_usb(settings))


def _stream(settings: StreamSettings) -> Any:
    patience = int(1000 * settings.timeout)
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience]
    # Several threads of the decoder would each hold back a frame.
    options += [cv2.CAP_PROP_N_THREADS, 1]
    capture = cv2.VideoCapture(settings.secret_url(), cv2.CAP_FFMPEG, options)
    if not capture.isOpened():
        raise CameraError(
            f"{settings.address} gives no stream: check that the camera is on, its address, name "
            "and password"
        )
    return capture


def _usb(settings: UsbSettings) -> Any:
    by_path = isinstance(settings.device, str)
    capture = cv2.VideoCapture(settings.device, cv2.CAP_V4L2 if by_path else cv2.CAP_ANY)
    if not capture.isOpened():
        raise CameraError(
            f"the camera {settings.address} cannot be opened: check that it is plugged in, that no "
            "other program uses it, and that the service may (on Linux, the group video)"
        )
    if settings.pixel_format is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.pixel_format))
    if settings.width is not None and settings.height is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.height)
        given = [
            int(capture.get(at)) for at in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        ]
        if given != [settings.width, settings.height]:
            capture.release()
            raise CameraError(
                f"the camera {settings.address} gives frames of {given[0]} x {given[1]} pixels and "
                f"not {settings.width} x {settings.height}: give a size that it has"
            )
    return capture


class OpenCv:
    """A camera that OpenCV has opened."""

    def __init__(self, capture: Any) -> None:
        self._capture = capture

    def grab(self) -> None:
        """Wait for the next frame."""
        if not self._capture.grab():
            raise CameraError("no frame comes any more: check the camera, its cable and its power")

    def pixels(self) -> Frame:
        """The frame that was grabbed last, red first."""
        came, frame = self._capture.retrieve()
        if not came or frame is None:
            raise CameraError("a frame cannot be decoded: check the cable or the network")
        if frame.ndim == 3 and frame.shape[2] == 3:
            return np.ascontiguousarray(frame[:, :, ::-1])
        return np.ascontiguousarray(frame.squeeze())

    def close(self) -> None:
        """Let go of the camera."""
        with contextlib.suppress(cv2.error):
            self._capture.release()
