"""GenICam cameras, through harvesters and the simulated producer that comes with `genicam`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconpatch.errors import CameraError
from reconpatch.station.cameras.reader import FrameReader
from reconpatch.station.cameras.settings import GenicamSettings
from reconpatch.station.cameras.source import opener_of

genicam = pytest.importorskip("genicam", reason="GenICam comes with the extra 'genicam'")
pytest.importorskip("harvesters", reason="GenICam comes with the extra 'genicam'")

from reconpatch.station.cameras.genicam import frame_of, open_camera  # noqa: E402

PRODUCER = Path(genicam.__file__).parent / "viky.cti"
if not PRODUCER.is_file():
    pytest.skip("no GenICam camera: this genicam has no simulated one", allow_module_level=True)


def settings(**given: Any) -> GenicamSettings:
    return GenicamSettings(producer=PRODUCER, timeout=10, **given)


@pytest.fixture
def reader() -> Iterator[FrameReader]:
    one = settings(serial="1")
    made = FrameReader("top", one, opener_of(one))
    made.start()
    yield made
    made.stop()
    made.join()


def test_frames_come_from_a_camera(reader: FrameReader) -> None:
    first, second = reader.frame(), reader.frame()
    assert first.pixels.shape == (400, 400, 3)
    assert first.pixels.dtype == np.uint8
    assert second.moment > first.moment
    # The simulated camera shows a ball that moves on white, in the colour of its name: green.
    assert (first.pixels == 255).mean() > 0.5
    moved = (first.pixels != second.pixels).any(axis=2)
    assert moved.any()
    ball = (first.pixels != 255).any(axis=2)
    red, green, blue = first.pixels[ball].mean(axis=0)
    assert green > max(red, blue)


def test_a_camera_that_is_not_there_is_told() -> None:
    with pytest.raises(CameraError, match=r"viky.cti finds no camera 77: give one of 0, 1, 2"):
        open_camera(settings(serial="77"))
    with pytest.raises(CameraError, match=r"viky.cti finds 3 cameras: give the serial of one of"):
        open_camera(settings())


def test_a_file_that_is_no_producer_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.cti").write_text("nothing")
    with pytest.raises(CameraError, match=r"no.cti"):
        open_camera(GenicamSettings(producer=tmp_path / "no.cti"))


@pytest.mark.parametrize(
    ("kind", "samples", "pixels"),
    [
        ("Mono8", np.array([1, 2], np.uint8), [[1, 2]]),
        ("Mono12", np.array([1, 4095], np.uint16), [[1, 4095]]),
        ("RGB8", np.arange(6, dtype=np.uint8), [[[0, 1, 2], [3, 4, 5]]]),
        ("BGR8", np.arange(6, dtype=np.uint8), [[[2, 1, 0], [5, 4, 3]]]),
        ("RGBa8", np.arange(8, dtype=np.uint8), [[[0, 1, 2], [4, 5, 6]]]),
        ("BGRa8", np.arange(8, dtype=np.uint8), [[[2, 1, 0], [6, 5, 4]]]),
    ],
)
def test_pixel_formats(kind: str, samples: Any, pixels: Any) -> None:
    frame = frame_of(samples, kind, 1, 2)
    assert frame.tolist() == pixels
    assert frame.dtype == samples.dtype
    assert not np.shares_memory(frame, samples)  # the camera fills the buffer again


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(CameraError, match="frames are BayerRG8: give the camera a PixelFormat of"):
        frame_of(np.zeros(2, np.uint8), "BayerRG8", 1, 2)
    with pytest.raises(CameraError, match="a frame did not come whole"):
        frame_of(np.zeros(5, np.uint8), "RGB8", 1, 2)
