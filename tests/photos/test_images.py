from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, TiffImagePlugin

from reconpatch.errors import ModelFileError, PhotoError, SettingsError
from reconpatch.photos.images import (
    MAX_PIXELS,
    MIN_SIDE,
    Photo,
    photo_size,
    read_photo,
    read_photo_bytes,
    white_level_for,
)
from reconpatch.photos.listing import PHOTO_SUFFIXES, list_photos
from reconpatch.photos.preprocessing import Geometry, Preprocessing

Array = npt.NDArray[Any]
HEIGHT, WIDTH = 30, 47
LOSSLESS = ("png", "bmp", "tif", "webp")


def noise(*shape: int, dtype: Any = np.uint8, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """A colour gradient, which JPEG keeps nearly as it is."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [200 * x / width, 200 * y / height, 100 * (x + y) / (width + height)]
    return np.stack(channels, axis=2).astype(np.uint8)


def save(path: Path, image: Image.Image | Array, **options: Any) -> Path:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    if path.suffix == ".webp":
        options = {"lossless": True, "exact": True, **options}
    image.save(path, **options)
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(header: bytes, *rest: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(rest)


def png_header(width: int, height: int, bits: int = 8, colour_type: int = 2) -> bytes:
    return struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)


def png16(pixels: Array, row_filter: int = 0, *chunks: bytes) -> bytes:
    """A 16-bit PNG of 1 to 4 channels, which Pillow cannot write; row filter None, Sub or Up."""
    height, width, channels = pixels.shape
    rows = np.frombuffer(pixels.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    reference = np.zeros_like(rows)
    if row_filter == 1:
        reference[:, 2 * channels :] = rows[:, : -2 * channels]
    elif row_filter == 2:
        reference[1:] = rows[:-1]
    filtered = np.insert(rows - reference, 0, row_filter, axis=1)
    header = png_header(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    data = png_chunk(b"IDAT", zlib.compress(filtered.tobytes()))
    return png_file(header, *chunks, data, png_chunk(b"IEND", b""))


def tiff16(
    pixels: Array,
    *,
    order: str = "<",
    compressed: bool = False,
    extra: int | None = None,
    strip_rows: int | None = None,
    photometric: int = 2,
    planar: bool = False,
    orientation: int = 1,
) -> bytes:
    """A 16-bit colour TIFF, which Pillow cannot write."""
    height, width, channels = pixels.shape
    rows = strip_rows or height
    planes = list(np.moveaxis(pixels, 2, 0)) if planar else [pixels]
    strips = [
        plane[top : top + rows].astype(order + "u2").tobytes()
        for plane in planes
        for top in range(0, height, rows)
    ]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    offsets = [8 + sum(map(len, strips[:n])) for n in range(len(strips))]
    tags: list[tuple[int, str, list[int]]] = [
        (256, "H", [width]),
        (257, "H", [height]),
        (258, "H", [16] * channels),
        (259, "H", [8 if compressed else 1]),
        (262, "H", [photometric]),
        (273, "I", offsets),
        (274, "H", [orientation]),
        (277, "H", [channels]),
        (278, "H", [rows]),
        (279, "I", [len(strip) for strip in strips]),
        (284, "H", [2 if planar else 1]),
    ]
    if extra is not None:
        tags.append((338, "H", [extra]))
    directory = 8 + sum(map(len, strips))
    overflow_at = directory + 2 + 12 * len(tags) + 4
    entries, overflow = b"", b""
    for tag, code, values in tags:
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > 4:
            pointer = struct.pack(f"{order}I", overflow_at + len(overflow))
            value, overflow = pointer, overflow + value
        kind = {"H": 3, "I": 4}[code]
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}H", len(tags))
    start = magic + struct.pack(f"{order}I", directory)
    return start + b"".join(strips) + count + entries + b"\0\0\0\0" + overflow


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bilinear(source: Array, height: int, width: int) -> Array:
    """Bilinear enlargement by the definition: half-pixel centres, the border repeated."""
    rows, columns = source.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = source[top, left] * (1 - x + left) + source[top, right] * (x - left)
            lower = source[bottom, left] * (1 - x + left) + source[bottom, right] * (x - left)
            out[i, j] = upper * (1 - y + top) + lower * (y - top)
    return out


# Formats and modes


DEEP = noise(HEIGHT, WIDTH, dtype=np.uint16)
BITS = noise(HEIGHT, WIDTH) > 127


@pytest.mark.parametrize(
    ("stored", "suffixes", "pixels"),
    [
        (noise(HEIGHT, WIDTH, 3), LOSSLESS, noise(HEIGHT, WIDTH, 3)),
        (noise(HEIGHT, WIDTH), ("png", "bmp", "tif"), noise(HEIGHT, WIDTH)),
        (BITS, ("png",), BITS * np.uint8(255)),
        (DEEP, ("png", "tif"), DEEP),
        (DEEP.astype(np.int32), ("tif",), DEEP),
    ],
)
def test_what_is_lossless_comes_back_as_it_was(
    tmp_path: Path, stored: Array, suffixes: tuple[str, ...], pixels: Array
) -> None:
    for suffix in suffixes:
        path = save(tmp_path / f"a.{suffix}", stored)
        photo = read_photo(path)
        np.testing.assert_array_equal(photo.pixels, pixels, strict=True)
        assert (photo.name, photo.height, photo.width) == (str(path), HEIGHT, WIDTH)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_comes_back_nearly(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", smooth(), quality=95, lossless=False)
    difference = read_photo(path).pixels.astype(int) - smooth()
    assert np.abs(difference).mean() < 4


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(smooth()).quantize(20)
    photo = read_photo(save(tmp_path / "a.png", image))
    np.testing.assert_array_equal(photo.pixels, np.asarray(image.convert("RGB")))


def test_palette_with_a_transparent_colour_turns_it_black(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(0, (0, 0, 16, 32))
    photo = read_photo(save(tmp_path / "a.png", image, transparency=0))
    assert photo.pixels[5, 5].tolist() == [0, 0, 0]
    assert photo.pixels[5, 20].tolist() == [40, 50, 60]


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_composited_over_black(tmp_path: Path, suffix: str) -> None:
    rgba = np.full((20, 20, 4), (200, 100, 51, 255), dtype=np.uint8)
    rgba[:10, :, 3] = 128
    photo = read_photo(save(tmp_path / f"a.{suffix}", rgba))
    assert photo.pixels[15, 0].tolist() == [200, 100, 51]
    # 200 * 128 / 255 = 100.4, 100 * 128 / 255 = 50.2, 51 * 128 / 255 = 25.6
    assert photo.pixels[5, 0].tolist() == [100, 50, 26]
    if suffix == "png":
        mono = read_photo(save(tmp_path / "mono.png", Image.fromarray(rgba[..., [0, 3]], "LA")))
        np.testing.assert_array_equal(mono.pixels, photo.pixels[:, :, 0], strict=True)


def test_transparent_colour_of_rgb_turns_black(tmp_path: Path) -> None:
    pixels = np.full((20, 20, 3), 9, dtype=np.uint8)
    pixels[0, 0] = 200
    photo = read_photo(save(tmp_path / "a.png", pixels, transparency=(200, 200, 200)))
    assert photo.pixels[0, 0].tolist() == [0, 0, 0]
    assert photo.pixels[1, 1].tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("HSV", (0, 0, 70), (70, 70, 70)),
    ],
)
def test_other_colour_modes_become_rgb(
    mode: str, colour: tuple[int, ...], rgb: tuple[int, ...]
) -> None:
    photo = read_photo(Image.new(mode, (20, 20), colour))
    np.testing.assert_array_equal(photo.pixels, np.broadcast_to(np.uint8(rgb), (20, 20, 3)))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_file(tmp_path: Path, suffix: str) -> None:
    image = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    photo = read_photo(save(tmp_path / f"a.{suffix}", image))
    assert np.abs(photo.pixels.astype(int) - [255, 0, 0]).max() <= 3


def test_palette_with_alpha_channel() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert read_photo(image.convert("PA")).pixels[3, 3].tolist() == [40, 50, 60]


@pytest.mark.parametrize("order", ["<", ">"])
def test_mono_16_bit_image_of_either_byte_order(order: str) -> None:
    pixels = noise(HEIGHT, WIDTH, dtype=np.uint16)
    mode = {"<": "I;16", ">": "I;16B"}[order]
    image = Image.frombytes(mode, (WIDTH, HEIGHT), pixels.astype(order + "u2").tobytes())
    photo = read_photo(image)
    assert photo.pixels.dtype == np.uint16
    np.testing.assert_array_equal(photo.pixels, pixels)


@pytest.mark.parametrize("value", [-1, 65536])
def test_int32_image_that_does_not_fit_is_refused(value: int) -> None:
    pixels = np.zeros((20, 20), np.int32)
    pixels[3, 3] = value
    with pytest.raises(PhotoError, match=rf"from -?\d+ to {max(value, 0)}, but 0..65535"):
        read_photo(Image.fromarray(pixels))


def test_float_tiff(tmp_path: Path) -> None:
    pixels = (noise(HEIGHT, WIDTH) / 255).astype(np.float32)
    photo = read_photo(save(tmp_path / "a.tif", pixels))
    assert photo.pixels.dtype == np.float32
    np.testing.assert_array_equal(photo.pixels, pixels)
    with pytest.raises(PhotoError, match=r"b\.tif: float values from 0 to 255, but 0\.\.1"):
        read_photo(save(tmp_path / "b.tif", np.float32(255) * (pixels > 0.5)))


def test_content_decides_not_the_ending(tmp_path: Path) -> None:
    pixels = noise(20, 20, 3)
    path = written(tmp_path / "a.jpg", save(tmp_path / "a.png", pixels).read_bytes())
    np.testing.assert_array_equal(read_photo(path).pixels, pixels)


# 16-bit colour, of which Pillow alone would drop the low byte


@pytest.mark.parametrize("row_filter", [0, 1, 2])
def test_16_bit_rgb_png_keeps_all_bits(tmp_path: Path, row_filter: int) -> None:
    pixels = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    photo = read_photo(written(tmp_path / "a.png", png16(pixels, row_filter)))
    assert photo.pixels.dtype == np.uint16
    np.testing.assert_array_equal(photo.pixels, pixels)


def test_interlaced_16_bit_rgb_png_keeps_all_bits(tmp_path: Path) -> None:
    pixels = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
    passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # first row, first column, their steps
    rows = [row for y, x, dy, dx in passes for row in pixels[y::dy, x::dx]]
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = png_header(WIDTH, HEIGHT, 16)[:-1] + b"\1"
    chunks = png_chunk(b"IDAT", zlib.compress(data)), png_chunk(b"IEND", b"")
    photo = read_photo(written(tmp_path / "a.png", png_file(header, *chunks)))
    np.testing.assert_array_equal(photo.pixels, pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("strip_rows", [None, 7])
def test_16_bit_rgb_tiff_keeps_all_bits(
    tmp_path: Path, order: str, compressed: bool, strip_rows: int | None
) -> None:
    pixels = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    data = tiff16(pixels, order=order, compressed=compressed, strip_rows=strip_rows)
    photo = read_photo(written(tmp_path / "a.tif", data))
    np.testing.assert_array_equal(photo.pixels, pixels)


def alpha16() -> tuple[Array, Array]:
    """RGBA of 16 bits, and its RGB over black by exact integer arithmetic."""
    rgba = noise(HEIGHT, WIDTH, 4, dtype=np.uint16)
    rgba[0, 0] = 65535
    exact = [[[(2 * c * p[3] + 65535) // 131070 for c in p[:3]] for p in r] for r in rgba.tolist()]
    return rgba, np.array(exact, dtype=np.uint16)


def test_16_bit_rgba_png_is_composited_over_black(tmp_path: Path) -> None:
    rgba, over_black = alpha16()
    photo = read_photo(written(tmp_path / "a.png", png16(rgba)))
    np.testing.assert_array_equal(photo.pixels, over_black)
    mono = read_photo(written(tmp_path / "mono.png", png16(rgba[:, :, [0, 3]])))
    np.testing.assert_array_equal(mono.pixels, over_black[:, :, 0], strict=True)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_16_bit_tiff_with_a_fourth_channel(tmp_path: Path, compressed: bool, extra: int) -> None:
    rgba, over_black = alpha16()
    # 0: not alpha; 1: alpha that the colours were multiplied with already; 2: plain alpha
    expected = over_black if extra == 2 else rgba[:, :, :3]
    data = tiff16(rgba, compressed=compressed, extra=extra)
    photo = read_photo(written(tmp_path / "a.tif", data))
    np.testing.assert_array_equal(photo.pixels, expected)


def test_16_bit_colour_is_turned_upright(tmp_path: Path) -> None:
    pixels = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    png = read_photo(written(tmp_path / "a.png", png16(pixels, 0, chunk)))
    tiff = read_photo(written(tmp_path / "a.tif", tiff16(pixels, orientation=6)))
    np.testing.assert_array_equal(png.pixels, np.rot90(pixels, -1))
    np.testing.assert_array_equal(tiff.pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize("compressed", [False, True])
def test_16_bit_colour_that_would_lose_bits_is_refused(tmp_path: Path, compressed: bool) -> None:
    rgb = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    cmyk = noise(HEIGHT, WIDTH, 4, dtype=np.uint16)
    planar = tiff16(rgb, planar=True, compressed=compressed)
    for data in (planar, tiff16(cmyk, photometric=5, compressed=compressed)):
        with pytest.raises(PhotoError, match=r"a\.tif: 16-bit colour stored in this way"):
            read_photo(written(tmp_path / "a.tif", data))


def test_16_bit_colour_file_opened_by_pil_is_refused() -> None:
    image = Image.open(io.BytesIO(png16(noise(20, 20, 3, dtype=np.uint16))))
    with pytest.raises(PhotoError, match="only 8 of the 16 bits of this colour image; pass its"):
        read_photo(image)


# EXIF orientation


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, np.fliplr),
        (3, lambda upright: np.rot90(upright, 2)),
        (4, np.flipud),
        (5, lambda upright: np.swapaxes(upright, 0, 1)),
        (6, lambda upright: np.rot90(upright, 1)),
        (7, lambda upright: np.rot90(np.swapaxes(upright, 0, 1), 2)),
        (8, lambda upright: np.rot90(upright, -1)),
        (9, lambda upright: upright),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_rotated_equals_upright(
    tmp_path: Path, orientation: int, stored: Any, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for upright in [noise(HEIGHT, WIDTH, 3), *([DEEP] if suffix == "png" else [])]:
        image = Image.fromarray(np.ascontiguousarray(stored(upright)))
        path = save(tmp_path / f"a.{suffix}", image, exif=exif)
        np.testing.assert_array_equal(read_photo(path).pixels, upright)
        with Image.open(path) as opened:
            np.testing.assert_array_equal(read_photo(opened).pixels, upright)


def test_exif_rotated_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.ascontiguousarray(np.rot90(smooth(), 1)))
    path = save(tmp_path / "a.jpg", image, exif=exif, quality=95)
    assert np.abs(read_photo(path).pixels.astype(int) - smooth()).mean() < 4


@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\x08\0\0\0\xff\xff\x12\x01"])
def test_damaged_exif_is_passed_over_without_noise(tmp_path: Path, exif: bytes) -> None:
    path = save(tmp_path / "a.jpg", smooth(), exif=b"Exif\0\0" + exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_photo(path).pixels.shape == (HEIGHT, WIDTH, 3)


def test_damaged_tiff_tag_is_passed_over_without_noise(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[65000] = "x" * 40
    path = save(tmp_path / "a.tif", pixels, tiffinfo=info)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<H", 65000))
    data[entry + 8 : entry + 12] = struct.pack("<I", 10_000_000)  # far beyond the end of the file
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="Truncated"), Image.open(path):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_photo(path).pixels, pixels)


def test_a_tiff_that_is_turned_twice_is_read_without_noise(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[0x0112] = 1
    path = save(tmp_path / "a.tif", pixels, tiffinfo=info)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHIH", 0x0112, 3, 1, 1))
    data[entry + 4 : entry + 8] = struct.pack("<I", 2)  # two values, where there is to be one
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_photo(path).pixels, pixels)


# Arrays


@pytest.mark.parametrize(
    ("given_dtype", "kept"),
    [
        (np.uint8, np.uint8),
        (np.uint16, np.uint16),
        (">u2", np.uint16),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float32),
    ],
)
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3)])
def test_arrays(given_dtype: Any, kept: Any, shape: tuple[int, ...]) -> None:
    array = noise(*shape).astype(given_dtype)
    array = array / 255 if array.dtype.kind == "f" else array
    array = array.astype(given_dtype)
    before = array.copy()
    photo = read_photo(array)
    assert photo.name == "<array>"
    assert photo.pixels.dtype == np.dtype(kept)
    assert photo.pixels.dtype.isnative
    np.testing.assert_array_equal(photo.pixels, before.squeeze().astype(kept))
    Preprocessing(8, 8)(photo)
    photo.rgb8(65535)
    np.testing.assert_array_equal(array, before)
    assert array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        photo.pixels[0, 0] = 1


def test_float_rounding_just_outside_is_clipped() -> None:
    array = np.array([[-1e-8, 1 + 1e-7]] * 32).repeat(16, axis=1)
    photo = read_photo(array)
    assert (photo.pixels.min(), photo.pixels.max()) == (0, 1)
    assert array.min() < 0


def test_strided_array_reads_as_its_copy() -> None:
    array = noise(64, 64, 3)[::-2, ::2, ::-1]
    view, copy = read_photo(array), read_photo(array.copy())
    assert view.sha256 == copy.sha256
    np.testing.assert_array_equal(Preprocessing(9, 9)(view), Preprocessing(9, 9)(copy))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((20, 20), np.int64), "dtype int64 is not supported; use uint8, uint16"),
        (np.zeros((20, 20), bool), "dtype bool is not supported"),
        (np.zeros((20, 20), complex), "dtype complex128 is not supported"),
        (np.zeros((20, 20, 4), np.uint8), r"\(20, 20, 4\) .*drop the alpha channel first"),
        (np.zeros((3, 20, 20), np.uint8), r"array\.transpose\(1, 2, 0\)"),
        (np.zeros((20, 20, 2), np.uint8), r"\(20, 20, 2\) is not a photo; pass \(H, W\) or"),
        (np.zeros((2, 20, 20, 3), np.uint8), r"pass \(H, W\) or \(H, W, 3\)\."),
        (np.zeros(20, np.uint8), r"\(20,\) is not a photo"),
        (np.zeros((0, 0), np.uint8), "0 x 0 pixels are too few"),
        (np.zeros((20, 0, 3), np.float32), "0 x 20 pixels are too few"),
        (np.zeros((1, 1, 3), np.uint8), "1 x 1 pixels are too few; .* at least 16 x 16"),
        (np.zeros((15, 400), np.uint8), "400 x 15 pixels are too few"),
        (np.full((20, 20), np.nan), "holds NaN or infinite values"),
        (np.full((20, 20), np.inf, np.float32), "holds NaN or infinite values"),
        (np.where(noise(20, 20, 3) == 7, np.nan, 0.5), "holds NaN or infinite values"),
        (np.full((20, 20), 200.0), "from 200 to 200, but 0..1 .*divide 8-bit values by 255"),
        (np.full((20, 20), -0.1), "from -0.1 to -0.1, but 0..1 is expected"),
    ],
)
def test_refused_arrays(array: Array, message: str) -> None:
    with pytest.raises(PhotoError, match=f"^<array>: .*{message}"):
        read_photo(array)


@pytest.mark.parametrize("source", [None, 3, [[1, 2]], b"a.png"])
def test_other_sources_are_refused(source: Any) -> None:
    with pytest.raises(PhotoError, match=f"from {type(source).__name__}: give a path, a numpy"):
        read_photo(source)


def test_name_can_be_given(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(20, 20))
    assert read_photo(path, name="line 1/a.png").name == "line 1/a.png"
    assert read_photo(noise(20, 20), name="cam").name == "cam"
    assert read_photo(Image.new("L", (20, 20))).name == "<image>"
    with pytest.raises(PhotoError, match=r"^sub/b\.png: does not exist"):
        read_photo(tmp_path / "b.png", name="sub/b.png")


# Files that cannot be used


def gif() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20)).save(stream, format="GIF")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"this is no photo", r"a\.png: is not a PNG, JPEG, BMP, TIFF or WebP file"),
        ("a.png", gif(), "save it anew as 8-bit or 16-bit PNG"),
        ("a.png", b"", r"a\.png: the file is empty"),
        ("a.png", None, r"a\.png: does not exist"),
        ("", None, "is a folder, not a photo"),
        ("a\0b.png", None, "cannot be opened|does not exist"),
    ],
)
def test_a_file_that_is_no_photo(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name if content is None else written(tmp_path / name, content)
    with pytest.raises(PhotoError, match=said):
        read_photo(path)


def test_bytes_are_read_as_the_file_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for mode, suffix in (("RGB", "png"), ("L", "jpg"), ("RGBA", "webp"), ("I;16", "tiff")):
        pixels = rng.integers(0, 255, (20, 24, 4), dtype=np.uint8)
        image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
        path = tmp_path / f"part.{suffix}"
        (image.convert("I;16") if mode == "I;16" else image).save(path)
        by_path, by_bytes = read_photo(path), read_photo_bytes(path.read_bytes(), name="part")
        np.testing.assert_array_equal(by_path.pixels, by_bytes.pixels)
        assert (by_path.pixels.dtype, by_bytes.name) == (by_bytes.pixels.dtype, "part")
        assert not by_bytes.pixels.flags.writeable
        assert by_path.sha256 == by_bytes.sha256
    with pytest.raises(PhotoError, match=r"part: .*over the limit of 100"):
        read_photo_bytes(path.read_bytes(), name="part", max_pixels=100)
    for content, said in ((b"", "the file is empty"), (b"no photo", "part")):
        with pytest.raises(PhotoError, match=said):
            read_photo_bytes(content, name="part")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", noise(20, 20))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PhotoError, match=r"a\.png: may not be read; check its permissions"):
        read_photo(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    with pytest.raises(PhotoError, match="is not a regular file"):
        read_photo(pipe)


def test_an_empty_path_is_not_the_folder_at_hand() -> None:
    with pytest.raises(PhotoError, match=r"The path of a photo is empty; give a file\."):
        read_photo("")


@pytest.mark.parametrize("limit", [None, "80000000", 0, -1, 1e6, float("nan")])
def test_a_limit_that_is_no_number_of_pixels_is_named(limit: Any, tmp_path: Path) -> None:
    pixels = noise(20, 20)
    for source in (save(tmp_path / "a.png", pixels), pixels, Image.fromarray(pixels)):
        with pytest.raises(SettingsError, match=r"max_pixels is .*: give a whole number of pix"):
            read_photo(source, max_pixels=limit)


def test_a_limit_may_be_a_number_of_numpy(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(20, 20))
    assert read_photo(path, max_pixels=np.int64(400)).width == 20
    with pytest.raises(PhotoError, match="over the limit of 399"):
        read_photo(path, max_pixels=np.uint16(399))


def test_memory_that_runs_out_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", noise(20, 20))

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_memory)
    with pytest.raises(PhotoError, match=r"a\.png: memory ran out while it was decoded"):
        read_photo(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "tif", "webp", "deflated.tif"])
@pytest.mark.parametrize("part", [0.02, 0.1, 0.3, 0.5, 0.9])
def test_truncated_file(tmp_path: Path, kind: str, part: float) -> None:
    options = {"compression": "tiff_deflate"} if kind.startswith("deflated") else {}
    data = save(tmp_path / f"whole.{kind}", noise(100, 100, 3), **options).read_bytes()
    path = written(tmp_path / f"cut.{kind}", data[: int(len(data) * part)])
    with pytest.raises(PhotoError, match=r"cut\..*(cannot be decoded|is not a PNG)"):
        read_photo(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@given(position=st.integers(0, 10_000), value=st.integers(0, 255), kind=st.integers(0, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_give_a_photo_or_a_photo_error(
    tmp_path: Path, position: int, value: int, kind: int
) -> None:
    stream = io.BytesIO()
    Image.fromarray(smooth()).save(stream, format=("PNG", "JPEG", "BMP", "TIFF", "WEBP")[kind])
    data = bytearray(stream.getvalue())
    # Headers are where damage hurts: most changes go there.
    data[position % min(len(data), 400)] = value
    path = written(tmp_path / "damaged", bytes(data))
    # Any other exception fails the test.
    with contextlib.suppress(PhotoError):
        assert read_photo(path, max_pixels=1_000_000).pixels.dtype in (np.uint8, np.uint16)


def test_damaged_lazy_image(tmp_path: Path) -> None:
    data = save(tmp_path / "a.png", noise(100, 100, 3)).read_bytes()
    with pytest.raises(PhotoError, match="<image>: cannot be decoded"):
        read_photo(Image.open(io.BytesIO(data[:20_000])))


def test_the_file_is_closed(tmp_path: Path) -> None:
    good = save(tmp_path / "a.tif", noise(40, 40), compression="tiff_deflate")
    deep = written(tmp_path / "b.png", png16(noise(40, 40, 3, dtype=np.uint16)))
    bad = written(tmp_path / "c.png", deep.read_bytes()[:3000])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an unclosed file is a ResourceWarning
        for path in (good, deep, bad):
            try:
                read_photo(path)
            except PhotoError:
                assert path == bad
            path.rename(path.with_suffix(".moved"))  # an open file cannot be moved on Windows


# Pixel limit


def bomb(path: Path, side: int) -> Path:
    """The beginning of a PNG of side x side pixels, and none of them."""
    data = png_chunk(b"IDAT", zlib.compress(b"\0"))
    return written(path, png_file(png_header(side, side), data, png_chunk(b"IEND", b"")))


@pytest.mark.parametrize("side", [8_945, 10_000, 30_000])
def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    # 8,945 squared is just over the limit; at 10,000 Pillow itself would warn, at 30,000 raise
    path = bomb(tmp_path / "bomb.png", side)
    message = (
        rf"bomb\.png.* is {side * side:,} pixels, over the limit of 80,000,000; .*"
        rf"--max-pixels {side * side} \(Python: max_pixels={side * side}\)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PhotoError, match=message):
            read_photo(path)


def test_limit_lies_below_the_size_from_which_pillow_warns() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def test_limit_can_be_raised_over_pillows_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow raises from 200 pixels on
    pixels = noise(40, 50)
    path = save(tmp_path / "a.png", pixels)
    with pytest.raises(PhotoError, match="is 2,000 pixels, over the limit of 90"):
        read_photo(path, max_pixels=90)
    assert Image.MAX_IMAGE_PIXELS == 100
    np.testing.assert_array_equal(read_photo(path, max_pixels=2000).pixels, pixels)
    assert Image.MAX_IMAGE_PIXELS == 2000
    with pytest.raises(PhotoError, match=r"a\.png: 50 x 40 is 2,000 pixels, over .* of 1,999"):
        read_photo(path, max_pixels=1999)
    assert Image.MAX_IMAGE_PIXELS == 2000


def test_limit_holds_for_arrays_and_images() -> None:
    with pytest.raises(PhotoError, match="<array>: 30 x 20 is 600 pixels, over the limit of 599"):
        read_photo(noise(20, 30), max_pixels=599)
    with pytest.raises(PhotoError, match="<image>: 30 x 20 is 600 pixels, over the limit of 599"):
        read_photo(Image.new("RGB", (30, 20)), max_pixels=599)
    assert read_photo(noise(20, 30), max_pixels=600).width == 30


def test_smallest_photo(tmp_path: Path) -> None:
    assert read_photo(noise(MIN_SIDE, MIN_SIDE)).height == MIN_SIDE
    with pytest.raises(PhotoError, match="1 x 1 pixels are too few"):
        read_photo(save(tmp_path / "a.png", noise(1, 1, 3)))


# Photo


def test_hash_is_that_of_the_picture(tmp_path: Path) -> None:
    pixels = noise(HEIGHT, WIDTH, 3)
    hashes = {read_photo(save(tmp_path / f"a.{suffix}", pixels)).sha256 for suffix in LOSSLESS}
    hashes |= {read_photo(pixels).sha256, read_photo(Image.fromarray(pixels)).sha256}
    assert len(hashes) == 1


def test_hash_tells_pixels_shape_and_dtype_apart() -> None:
    pixels = noise(20, 40)
    other = pixels.copy()
    other[3, 3] ^= 1
    variants = [
        pixels,
        other,
        pixels.reshape(40, 20),
        np.repeat(pixels[:, :, None], 3, axis=2),
        pixels.astype(np.uint16),
        pixels.view(np.uint16),
    ]
    assert len({read_photo(variant).sha256 for variant in variants}) == len(variants)


def test_rgb8() -> None:
    mono = noise(20, 30)
    shown = read_photo(mono).rgb8(65535)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, np.stack([mono] * 3, axis=2))
    deep = np.full((20, 20, 3), (0, 2048, 5000), dtype=np.uint16)
    # 2048 / 4095 * 255 = 127.53; 5000 is brighter than white
    assert read_photo(deep).rgb8(4095)[0, 0].tolist() == [0, 128, 255]
    assert read_photo(np.full((20, 20), 0.5)).rgb8(7)[0, 0].tolist() == [128, 128, 128]


def test_rgb8_can_be_drawn_on() -> None:
    pixels = noise(20, 20, 3)
    before = pixels.copy()
    read_photo(pixels).rgb8(65535)[:] = 0
    np.testing.assert_array_equal(pixels, before)


# Folders


def test_list_photos(tmp_path: Path) -> None:
    kept = ["B.PNG", "a.jpeg", "a/z.tif", "a.b/c.webp", "deep/er/x.bmp", "é.jpg", "x.tiff"]
    left_out = [".hidden.png", "._a.jpeg", ".cache/a.png", "a/.git/b.png", "notes.txt", "png"]
    for name in kept + left_out:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    photos = list_photos(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in photos] == sorted(kept)


def test_every_suffix_counts(tmp_path: Path) -> None:
    for suffix in PHOTO_SUFFIXES:
        (tmp_path / f"a{suffix}").touch()
    assert {path.suffix for path in list_photos(tmp_path)} == PHOTO_SUFFIXES


def test_list_photos_in_a_hidden_place(tmp_path: Path) -> None:
    folder = tmp_path / ".data"
    folder.mkdir()
    (folder / "a.png").touch()
    assert list_photos(folder) == [folder / "a.png"]


def test_folders_that_hold_no_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PhotoError, match=r"nowhere: does not exist; give a folder of photos"):
        list_photos(tmp_path / "nowhere")
    file = written(tmp_path / "notes.txt", b"")
    with pytest.raises(PhotoError, match=r"notes\.txt: is a file, not a folder"):
        list_photos(file)
    with pytest.raises(PhotoError, match=r"no photo .*\.bmp, \.jpeg, \.jpg, \.png, \.tif, \.ti"):
        list_photos(tmp_path)

    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PhotoError, match=r"cannot be read \(Permission denied\); check its"):
        list_photos(tmp_path)


# Preprocessing


def test_whole_photo_is_resized_by_default() -> None:
    pixels = noise(100, 60, 3)
    resized = Image.fromarray(pixels).resize((32, 48), Image.Resampling.BILINEAR)
    tensor = Preprocessing(48, 32)(read_photo(pixels))
    assert (tensor.dtype, tensor.shape) == (np.float32, (3, 48, 32))
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, np.moveaxis(np.float32(resized) / 255, 2, 0))


def test_photo_of_the_models_size_is_only_scaled() -> None:
    pixels = noise(32, 48, 3)
    tensor = Preprocessing(32, 48)(read_photo(pixels))
    np.testing.assert_allclose(tensor, pixels.transpose(2, 0, 1) / 255, rtol=1e-6)
    assert (tensor.min(), tensor.max()) == (0, 1)


def test_mono_gives_three_equal_channels() -> None:
    pixels = noise(50, 40)
    mono = Preprocessing(24, 32)(read_photo(pixels))
    colour = Preprocessing(24, 32)(read_photo(np.stack([pixels] * 3, axis=2)))
    np.testing.assert_array_equal(mono, colour)


def test_enlarging_against_the_slow_reference() -> None:
    pixels = (noise(17, 19) / 255).astype(np.float32)
    tensor = Preprocessing(40, 60)(read_photo(pixels))
    np.testing.assert_allclose(tensor[1], bilinear(pixels, 40, 60), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(200, 300), (300, 200), (256, 256), (77, 1000)])
@pytest.mark.parametrize(("crop_height", "crop_width"), [(224, 224), (192, 224)])
def test_resize_and_crop_is_the_papers(
    height: int, width: int, crop_height: int, crop_width: int
) -> None:
    preprocess = Preprocessing(crop_height, crop_width, resize=256)
    short = min(height, width)
    size = int(256 * width / short), int(256 * height / short)
    left, top = (size[0] - crop_width) // 2, (size[1] - crop_height) // 2
    window = (left, top, left + crop_width, top + crop_height)

    floats = noise(height, width).astype(np.float32) / 255
    reference = Image.fromarray(floats).resize(size, Image.Resampling.BILINEAR).crop(window)
    # Pillow keeps the window's edges as float32.
    np.testing.assert_allclose(preprocess(read_photo(floats))[0], reference, atol=5e-5)

    pixels = noise(height, width, 3)
    reference = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).crop(window)
    tensor = preprocess(read_photo(pixels))
    # Pillow rounds to 8 bits between its two directions, whose order depends on the window.
    np.testing.assert_allclose(
        tensor, np.moveaxis(np.asarray(reference), 2, 0) / 255, atol=1.01 / 255
    )


def test_same_picture_by_every_way_in_gives_the_same_input(tmp_path: Path) -> None:
    pixels = noise(60, 90, 3)
    ways: list[Any] = [save(tmp_path / f"a.{suffix}", pixels) for suffix in LOSSLESS]
    ways += [str(ways[0]), pixels, Image.fromarray(pixels)]
    preprocess = Preprocessing(32, 40, resize=48)
    inputs = [preprocess(read_photo(way)) for way in ways]
    for other in inputs[1:]:
        np.testing.assert_array_equal(other, inputs[0])


@pytest.mark.parametrize("shape", [(60, 90), (60, 90, 3)])
def test_all_depths_agree_to_within_rounding(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    preprocess = Preprocessing(32, 40)
    eight = preprocess(read_photo(pixels))
    sixteen = preprocess(read_photo(pixels.astype(np.uint16) * 257))
    floats = preprocess(read_photo(pixels / 255))
    np.testing.assert_allclose(sixteen, floats, atol=1e-6)
    # Pillow rounds to 8 bits after each of its two directions.
    np.testing.assert_allclose(sixteen, eight, atol=1.01 / 255)


def test_white_level_scales_and_clips() -> None:
    pixels = np.full((20, 20), 1023, dtype=np.uint16)
    pixels[:, 10:] = 5000
    tensor = Preprocessing(20, 20, white_level=4095)(read_photo(pixels))
    np.testing.assert_allclose(tensor[:, :, 0], 1023 / 4095, rtol=1e-6)
    np.testing.assert_array_equal(tensor[:, :, -1], 1)


def test_16_bit_colour_file_reaches_the_model_with_all_its_bits(tmp_path: Path) -> None:
    pixels = noise(40, 40, 3, dtype=np.uint16) % 256  # black to whoever keeps the high byte only
    photo = read_photo(written(tmp_path / "a.png", png16(pixels)))
    tensor = Preprocessing(40, 40, white_level=255)(photo)
    np.testing.assert_allclose(tensor, pixels.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_settings_round_trip_through_json() -> None:
    for preprocess in (Preprocessing(224, 320), Preprocessing(64, 48, 72, 4095)):
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    "values", [{}, {"height": 8}, {"height": 8, "width": 8, "x": 1}, {"height": 0, "width": 8}]
)
def test_stored_settings_that_cannot_be_used(values: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match="preprocessing stored in the model cannot be used"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 0, "width": 8}, "cannot be 0 x 8"),
        ({"height": 8, "width": 9, "resize": 8}, "A crop of 8 x 9 .* resize to 9 or more"),
        ({"height": 8, "width": 8, "white_level": 0}, r"1\.\.65535, not 0"),
        ({"height": 8, "width": 8, "white_level": 65536}, r"1\.\.65535, not 65536"),
    ],
)
def test_settings_out_of_range(values: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Preprocessing(**values)


@pytest.mark.parametrize(
    ("largest", "level"),
    [(0, 255), (255, 255), (256, 511), (1023, 1023), (1024, 2047), (4095, 4095), (65535, 65535)],
)
def test_white_level_for(largest: int, level: int) -> None:
    assert white_level_for(largest) == level
    for none in (-1, 65536):
        with pytest.raises(SettingsError, match=f"not {none}"):
            white_level_for(none)


# Geometry


def test_geometry_of_the_whole_photo() -> None:
    assert Preprocessing(48, 32).geometry(200, 300) == Geometry(200, 300, 48, 32, (0, 0, 300, 200))


@pytest.mark.parametrize(
    ("photo_height", "photo_width", "inspected"),
    [
        # resized to 384 x 256 (scale 1.28), cut 80 left and 16 above:
        # 80 / 1.28 = 62.5, 304 / 1.28 = 237.5, 16 / 1.28 = 12.5, 240 / 1.28 = 187.5
        (200, 300, (63, 13, 237, 187)),
        (300, 200, (13, 63, 187, 237)),
        # scale 1/4, cut 16 on each side: 64 .. 960
        (1024, 1024, (64, 64, 960, 960)),
        # scale 256/900, cut 16: 56.25 .. 843.75
        (900, 900, (56, 56, 844, 844)),
    ],
)
def test_geometry_of_the_crop(
    photo_height: int, photo_width: int, inspected: tuple[int, int, int, int]
) -> None:
    geometry = Preprocessing(224, 224, resize=256).geometry(photo_height, photo_width)
    assert geometry == Geometry(photo_height, photo_width, 224, 224, inspected)


def test_map_enlarged_against_the_slow_reference() -> None:
    anomaly_map = np.random.default_rng(0).random((8, 12), dtype=np.float32)
    photo_map = Preprocessing(8, 12).geometry(31, 50).map_to_photo(anomaly_map)
    assert (photo_map.dtype, photo_map.shape) == (np.float32, (31, 50))
    np.testing.assert_allclose(photo_map, bilinear(anomaly_map, 31, 50), atol=1e-6)


def test_map_by_hand() -> None:
    photo_map = Geometry(1, 4, 1, 2, (0, 0, 4, 1)).map_to_photo(np.array([[0, 4]], np.float32))
    # Centres of the photo's pixels lie at 0.25, 0.75, 1.25, 1.75 of the map, its own at 0.5, 1.5.
    np.testing.assert_array_equal(photo_map, [[0, 1, 3, 4]])


@pytest.mark.parametrize("size", [(16, 16), (20, 33), (64, 48), (500, 333)])
@pytest.mark.parametrize("resize", [None, 64])
def test_maps_stay_within_their_range(size: tuple[int, int], resize: int | None) -> None:
    geometry = Preprocessing(48, 56, resize=resize).geometry(*size)
    constant = geometry.map_to_photo(np.full((48, 56), 0.1, np.float32))
    x0, y0, x1, y1 = geometry.inspected
    np.testing.assert_array_equal(constant[y0:y1, x0:x1], np.float32(0.1))
    anomaly_map = np.random.default_rng(0).random((48, 56), dtype=np.float32) + 7
    anomaly_map[10:40, 10:40] = anomaly_map.max()
    photo_map = geometry.map_to_photo(anomaly_map)
    assert np.nanmin(photo_map) >= anomaly_map.min()
    assert np.nanmax(photo_map) == anomaly_map.max()


def test_outside_of_the_crop_is_not_inspected() -> None:
    geometry = Preprocessing(224, 224, resize=256).geometry(200, 300)
    photo_map = geometry.map_to_photo(np.ones((224, 224), np.float32))
    expected = np.full((200, 300), np.nan)
    expected[13:187, 63:237] = 1
    np.testing.assert_array_equal(photo_map, expected)


@pytest.mark.parametrize(
    "preprocess", [Preprocessing(64, 96), Preprocessing(64, 48, resize=80)], ids=["whole", "crop"]
)
@pytest.mark.parametrize("size", [(400, 700), (700, 400), (64, 96)])
@pytest.mark.parametrize("spot", [(0.3, 0.4), (0.6, 0.55)])
def test_a_hot_cell_lands_where_it_came_from(
    preprocess: Preprocessing, size: tuple[int, int], spot: tuple[float, float]
) -> None:
    """A white spot goes through the preprocessing and its map back to its own place."""
    centre = np.array(size) * spot
    distance = np.linalg.norm(np.moveaxis(np.indices(size), 0, 2) - centre, axis=2)
    photo = read_photo((distance < min(size) / 20).astype(np.float32))
    heat = preprocess(photo)[0]
    photo_map = np.nan_to_num(preprocess.geometry(*size).map_to_photo(heat))
    weights = photo_map / photo_map.sum()
    found = np.array([(weights * axis).sum() for axis in np.indices(size)])
    # Half a pixel of the photo at the crop's edge, and the disc is drawn on whole pixels.
    np.testing.assert_allclose(found, centre, atol=0.75)


def test_one_cell_by_hand() -> None:
    # 1024 -> 256 -> 224: a cell of the map is 4 x 4 pixels of the photo, from pixel 64 on.
    geometry = Preprocessing(224, 224, resize=256).geometry(1024, 1024)
    anomaly_map = np.zeros((224, 224), np.float32)
    anomaly_map[10, 200] = 1
    photo_map = np.nan_to_num(geometry.map_to_photo(anomaly_map))
    rows, columns = np.nonzero(photo_map > 0.7)
    # Within 0.125 of the cell's centre in both directions: the 2 x 2 pixels around it.
    assert (set(rows), set(columns)) == ({105, 106}, {865, 866})
    assert geometry.box_to_photo(200, 10, 201, 11) == (864, 104, 868, 108)


def test_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"map of shape \(8, 9\), not \(8, 8\)"):
        Preprocessing(8, 8).geometry(20, 20).map_to_photo(np.zeros((8, 9), np.float32))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 100, 50), (0, 0, 250, 100)),
        ((10, 10, 20, 20), (25, 20, 50, 40)),
        ((10.1, 10.1, 19.9, 19.9), (25, 20, 50, 40)),  # outward
        ((-5, -5, 400, 400), (0, 0, 250, 100)),  # clipped
        ((20, 10, 20, 10), (50, 20, 51, 21)),  # at least one pixel
        ((100, 50, 100, 50), (249, 99, 250, 100)),
    ],
)
def test_box_by_hand(
    box: tuple[float, float, float, float], expected: tuple[int, int, int, int]
) -> None:
    # 2.5 pixels of the photo to one of the input across, 2 down
    assert Preprocessing(50, 100).geometry(100, 250).box_to_photo(*box) == expected


coordinates = st.floats(-50, 400, allow_nan=False)


@given(
    size=st.tuples(st.integers(16, 2000), st.integers(16, 2000)),
    resize=st.sampled_from([None, 224, 256]),
    xs=st.tuples(coordinates, coordinates),
    ys=st.tuples(coordinates, coordinates),
)
def test_box_stays_inside_the_inspected_box(
    size: tuple[int, int],
    resize: int | None,
    xs: tuple[float, float],
    ys: tuple[float, float],
) -> None:
    geometry = Preprocessing(224, 192, resize=resize).geometry(*size)
    left, top, right, bottom = geometry.inspected
    assert 0 <= left < right <= size[1]
    assert 0 <= top < bottom <= size[0]
    x0, y0, x1, y1 = geometry.box_to_photo(min(xs), min(ys), max(xs), max(ys))
    assert left <= x0 < x1 <= right
    assert top <= y0 < y1 <= bottom


@given(size=st.integers(16, 3000), edges=st.lists(st.integers(0, 224), min_size=3, max_size=8))
def test_neighbouring_boxes_leave_no_gap(size: int, edges: list[int]) -> None:
    geometry = Preprocessing(224, 224).geometry(size, size)
    edges = sorted({0, 224, *edges})
    boxes = [geometry.box_to_photo(a, 0, b, 224) for a, b in pairwise(edges)]
    assert boxes[0][0] == 0
    assert boxes[-1][2] == size
    assert all(following[0] <= box[2] for box, following in pairwise(boxes))


# From several threads, and without heavy imports


def test_threads_read_the_same_and_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    photos = [noise(50, 60, 3, seed=seed) for seed in range(8)]
    paths = [save(tmp_path / f"{n}.tif", photo) for n, photo in enumerate(photos)]
    filters = list(warnings.filters)
    start = threading.Barrier(4)

    def read_all(_: int) -> list[Photo]:
        start.wait()
        return [read_photo(path) for path in paths]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(read_all, range(4)):
            for photo, pixels in zip(found, photos, strict=True):
                np.testing.assert_array_equal(photo.pixels, pixels)
    assert warnings.filters == filters


def test_import_loads_no_decoder() -> None:
    code = (
        "import sys, reconpatch.photos.images;"
        "print([m for m in sys.modules if m.endswith('ImagePlugin') or m in ('torch', 'scipy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_slow_reference_itself() -> None:
    assert bilinear(np.array([[0.0, 4.0]]), 1, 4).tolist() == [[0, 1, 3, 4]]
    assert math.isclose(bilinear(np.array([[0.0], [1.0]]), 3, 1)[1, 0], 0.5)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 60)), (3, (40, 60)), (6, (60, 40))])
def test_the_size_of_a_turned_photo_is_that_of_the_upright_one(
    tmp_path: Path, suffix: str, orientation: int, size: tuple[int, int]
) -> None:
    image = Image.new("RGB", (60, 40))
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    image.save(path, exif=exif)
    read = read_photo(path)
    assert photo_size(path) == (read.height, read.width) == size
