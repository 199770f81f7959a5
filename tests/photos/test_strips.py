"""A large photo is worked on in strips, with the bits of all of it at once and less memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from reconpatch.photos import images, preprocessing, regions
from reconpatch.photos.images import read_photo
from reconpatch.photos.preprocessing import Preprocessing
from reconpatch.photos.region_of_interest import RegionOfInterest
from reconpatch.report import overlay


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(params=[1, 100, 700])
def strip(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many pixels at a time, of pictures of some thousand."""
    for module in (images, overlay, preprocessing, regions):
        monkeypatch.setattr(module, "_STRIP", request.param)
    return int(request.param)


def in_one(work: Callable[[], Any]) -> Any:
    """What comes of it where no strip ends."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (images, overlay, preprocessing, regions):
            patch.setattr(module, "_STRIP", 2**30)
        return work()


def at_once(prepare: Preprocessing, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The model's input by one call of Pillow, without a region and not in tiles."""
    if pixels.dtype == np.uint16:
        pixels = np.minimum(pixels, prepare.white_level) / np.float32(prepare.white_level)
    parts = [pixels] if pixels.dtype == np.uint8 else list(np.atleast_3d(pixels).transpose(2, 0, 1))
    box, size = prepare._source(*pixels.shape[:2]), (prepare.width, prepare.height)
    small = [np.asarray(Image.fromarray(p).resize(size, 2, box=box)) for p in parts]
    whole = small[0] if len(small) == 1 else np.stack(small, axis=2)
    whole = np.broadcast_to(np.atleast_3d(whole), (*whole.shape[:2], 3)).transpose(2, 0, 1)
    return whole / np.float32(255) if whole.dtype == np.uint8 else whole


PHOTOS = [
    noise(61, 83),
    noise(61, 83, 3),
    noise(61, 83, 3).astype(np.uint16) * 200,
    noise(83, 61).astype(np.float32) / 255,
    noise(17, 300, 3),
    noise(300, 17, 3),
    np.asfortranarray(noise(40, 60, 3))[::-1, ::2],
]


@pytest.mark.parametrize("pixels", PHOTOS, ids=lambda p: f"{p.shape} {p.dtype}")
@pytest.mark.parametrize(
    "prepare",
    [
        Preprocessing(32, 32),
        Preprocessing(400, 20, white_level=4095),
        Preprocessing(20, 400),
        Preprocessing(20, 24, resize=37),
    ],
    ids=["whole", "tall", "wide", "crop"],
)
def test_channels_one_by_one_give_the_bits_of_one_call(
    pixels: npt.NDArray[Any], prepare: Preprocessing
) -> None:
    np.testing.assert_array_equal(prepare(read_photo(pixels)), at_once(prepare, pixels))


@pytest.mark.parametrize("pixels", PHOTOS[:4], ids=lambda p: f"{p.shape} {p.dtype}")
@pytest.mark.parametrize("tile", [0, 48])
def test_what_is_outside_of_a_region_is_grey_before_it_is_resized(
    pixels: npt.NDArray[Any], tile: int
) -> None:
    photo = read_photo(pixels)
    drawn = np.zeros((photo.height, photo.width), np.bool_)
    drawn[5:-4, 3:-7] = True
    plain = Preprocessing(24, 24, tile=tile, white_level=65535)
    prepare = replace(plain, region=RegionOfInterest.of(drawn))
    layout = prepare.layout((6, 6), (photo.height, photo.width))
    greyed = pixels.copy()
    greyed[~drawn] = 128 if pixels.dtype == np.uint8 else 0.5 if pixels.dtype.kind == "f" else 32768
    views = list(prepare.views(photo, layout))
    for view, found in zip(layout.views, views, strict=True):
        slow = plain.view(read_photo(greyed), replace(layout, inspected=None), view)
        # 16 bits have no middle: 32768 is half of a level above it.
        np.testing.assert_allclose(found, slow, rtol=0, atol=1e-5 if greyed.itemsize == 2 else 0)


@pytest.mark.parametrize("shape", [(61, 83), (61, 83, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strips_are_shown_as_all_at_once(strip: int, shape: tuple[int, ...], dtype: Any) -> None:
    photo = read_photo(noise(*shape).astype(dtype))
    np.testing.assert_array_equal(photo.rgb8(200), in_one(lambda: photo.rgb8(200)))


@pytest.mark.parametrize("size", [(61, 83), (300, 20), (20, 300), (12, 9)])
@pytest.mark.parametrize("resize", [None, 40])
def test_strips_of_a_map_give_the_map_of_all_at_once(
    strip: int, size: tuple[int, int], resize: int | None
) -> None:
    small = np.random.default_rng(3).random((24, 20)).astype(np.float32)
    geometry = Preprocessing(24, 20, resize=resize).geometry(*size)
    whole = in_one(lambda: geometry.map_to_photo(small))
    np.testing.assert_allclose(geometry.map_to_photo(small), whole, rtol=3e-7)


@pytest.mark.parametrize("size", [(61, 83), (300, 20), (20, 300)])
@pytest.mark.parametrize("uninspected", [0, 7, 300])
def test_strips_of_a_map_have_the_regions_and_colours_of_all_at_once(
    strip: int, size: tuple[int, int], uninspected: int
) -> None:
    field = np.random.default_rng(4).random(size).astype(np.float32)
    field[:uninspected] = np.nan
    photo = noise(*size, 3)

    def drawn() -> tuple[Any, ...]:
        found = regions.find_regions(field, 0.6)
        around = regions.find_regions(field, 2.0, at_least_one=True)
        laid = np.asarray(overlay.overlay(photo, field, 0.5, found))
        return found, around, overlay.colourise(field, 0.5), laid

    for part, once in zip(drawn(), in_one(drawn), strict=True):
        np.testing.assert_array_equal(part, once)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_strips_of_a_file_give_the_pixels_of_all_at_once(
    strip: int, mode: str, tmp_path: Path
) -> None:
    picture = Image.fromarray(noise(40, 50, 4), "RGBA" if mode in {"RGBA", "LA"} else "CMYK")
    ending = "tif" if mode == "CMYK" else "png"
    path = tmp_path / f"a.{ending}"
    (picture if picture.mode == mode else picture.convert("RGB").convert(mode)).save(path)
    found = read_photo(path).pixels
    with Image.open(path) as slow:
        if mode not in {"RGBA", "LA"}:
            kind = "L" if mode in {"1", "L"} else "RGB"
            np.testing.assert_array_equal(found, np.asarray(slow.convert(kind)))
    np.testing.assert_array_equal(found, in_one(lambda: read_photo(path).pixels))


_HELD = """
import sys
import numpy as np
import reconpatch
from reconpatch.memory import peak_bytes
model = reconpatch.load(sys.argv[1], threads=1)
model.inspect(np.full((64, 64, 3), 128, np.uint8))
before = peak_bytes()
model = model.with_threshold(float(sys.argv[3]))
assert model.inspect(sys.argv[2]).anomalous == (sys.argv[3] == "0")
print(peak_bytes() - before)
"""


@pytest.mark.parametrize("threshold", ["0", "1e6"])
def test_an_inspection_holds_a_photo_its_map_and_little_more(
    small_model_file: Path, tmp_path: Path, threshold: str
) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (6000, 4000), (90, 100, 110)).save(path, compress_level=1)
    arguments = [sys.executable, "-c", _HELD, str(small_model_file), str(path), threshold]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    # 3 bytes a pixel are the photo, 4 its map, 1 the mask of regions; with copies it was 18.
    assert int(done.stdout) < 13 * 6000 * 4000
