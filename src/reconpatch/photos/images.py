"""Photos: reading them, from files of many kinds, arrays and PIL images, as they were stored."""

from __future__ import annotations

import hashlib
import io
import math
import numbers
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from reconpatch.errors import PhotoError, SettingsError
from reconpatch.photos.picture_file import (
    MAX_SIDE,
    check_samples,
    check_single,
    prepared,
    white_value,
)

MAX_PIXELS = 80_000_000
"""The largest photo read by default, below the size from which Pillow warns."""
MIN_SIDE = 16
"""The shortest side of a photo, in pixels."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
PhotoSource: TypeAlias = str | os.PathLike[str] | npt.NDArray[Any] | Image.Image

_Drawn = Literal["no", "colours", "indices"]
"""Whether a picture is no photo but was drawn, and what of a palette file counts then."""

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
# Pixels at a time, where a step takes several times the memory of its pixels.
_STRIP = 2**22
_FLOAT_SLACK = 1e-6  # rounding of the caller's own arithmetic, not a wrong range

# Pillow's names for files of several 16-bit channels, of which it decodes 8 bits each.
_COLOUR16_RAWMODE = re.compile(r"(RGBA|RGBa|RGBX|RGB|LA|CMYK);16[BLN]")
_OPPOSITE_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_pillow_globals = threading.Lock()


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo in memory, upright, as it was stored.

    Attributes:
        name: the path as it was given, or "<array>" or "<image>".
        pixels: (H, W) mono or (H, W, 3) RGB; uint8, uint16, or float32 in 0..1; read-only.
    """

    name: str
    pixels: npt.NDArray[Any]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @cached_property
    def sha256(self) -> str:
        """Hash of shape, dtype and pixels, the same whatever lossless format the photo is in."""
        little_endian = self.pixels.astype(self.pixels.dtype.newbyteorder("<"), copy=False)
        digest = hashlib.sha256(f"{little_endian.dtype.str} {self.pixels.shape} ".encode())
        digest.update(np.ascontiguousarray(little_endian).data)
        return digest.hexdigest()

    def rgb8(self, white_level: int) -> npt.NDArray[np.uint8]:
        """The photo for display: (H, W, 3) uint8, 16-bit values from white_level up are white."""
        shown = np.empty((self.height, self.width, 3), np.uint8)
        for strip in _strips(self.height, self.width):
            part = self.pixels[strip]
            if part.dtype != np.uint8:
                part = np.rint(in_unit(part, white_level) * 255).astype(np.uint8)
            shown[strip] = np.atleast_3d(part)
        return shown


def read_photo(
    source: PhotoSource, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Photo:
    """Read a photo from a file, a numpy array or a PIL image.

    Files are PNG, JPEG, BMP, TIFF or WebP, told by their content. They may be mono, palette or
    colour, of 8 or 16 bits a channel, or mono float in 0..1. What EXIF says about the camera's
    orientation is applied. Alpha is composited over black; where it is 0 everywhere it is not in
    use, and ignored. A PIL image that was read from a 16-bit colour file has lost the lower 8 bits
    already: give the path instead.

    Args:
        source: a path, a PIL image, or an array of shape (H, W), (H, W, 1) or (H, W, 3) with dtype
            uint8, uint16 or a float in 0..1. Three channels are red, green, blue: what OpenCV
            reads is `array[:, :, ::-1]`. An array is neither copied nor changed.
        name: what to call the photo in messages and results; by default the path as given.
        max_pixels: refuse larger photos, before they are decoded.

    Raises:
        PhotoError: the photo is missing, damaged, too small, too large, of another kind, or one of
            several in a file.
    """
    if not isinstance(source, np.ndarray | Image.Image | str | os.PathLike):
        raise PhotoError(
            f"A photo cannot be read from {type(source).__name__}: "
            "give a path, a numpy array or a PIL image."
        )
    name = name or _name_of(source)
    with _without_pixels():
        if isinstance(source, np.ndarray):
            return _photo(name, _from_array(source, name, max_pixels))
        if isinstance(source, Image.Image):
            return _photo(name, _from_image(source, name, max_pixels))
        with _open_file(Path(source), name) as stream:
            return _photo(name, _from_stream(stream, name, max_pixels))


def read_photo_bytes(content: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo from a file's bytes, which have not to be on a disk; see `read_photo`.

    Raises:
        PhotoError: the photo is empty, damaged, too small, too large, of another kind, or one of
            several in a file.
    """
    if not content:
        raise PhotoError(f"{name}: the file is empty; save or copy it again.")
    with _without_pixels():
        return _photo(name, _from_stream(io.BytesIO(content), name, max_pixels))


def read_drawing(path: Path, *, max_pixels: int = MAX_PIXELS, indices: bool = False) -> Photo:
    """Read a picture that somebody drew: a mask, or a region of interest.

    It is read as a photo is, but for alpha, which is composited over black wherever it is 0:
    drawing programs keep white below what is transparent.

    Args:
        path: the file.
        max_pixels: larger pictures are refused.
        indices: of a palette file take the indices in place of their colours.

    Raises:
        PhotoError: as `read_photo` does.
    """
    name = os.fspath(path)
    with _without_pixels(), _open_file(path, name) as stream:
        drawn: _Drawn = "indices" if indices else "colours"
        return _photo(name, _from_stream(stream, name, max_pixels, drawn))


def _name_of(source: PhotoSource) -> str:
    if isinstance(source, np.ndarray):
        return "<array>"
    return "<image>" if isinstance(source, Image.Image) else str(os.fspath(source))


@contextmanager
def _without_pixels() -> Iterator[None]:
    """An error of the block holds no decoded picture, however long it is kept itself.

    Its traceback holds frames and their variables, in cycles that are collected late.
    """
    try:
        yield
    except PhotoError as error:
        cause: BaseException | None = error
        while cause is not None:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__
        raise


def header_pixels(content: bytes) -> int:
    """Width x height as the header of a photo's file says; 0 where it says none."""
    try:
        stream = prepared(io.BytesIO(content), "", header=True).stream
        image = _open_image(stream, MAX_PIXELS)
    except Exception:  # damaged files make Pillow raise nearly anything
        return 0
    return image.width * image.height


def _photo(name: str, pixels: npt.NDArray[Any]) -> Photo:
    pixels = pixels.view()
    pixels.flags.writeable = False
    return Photo(name, pixels)


def photo_size(source: PhotoSource, *, name: str | None = None) -> tuple[int, int]:
    """Height and width of a photo in pixels, of a file from its header alone.

    Raises:
        PhotoError: the photo is missing, or of another kind. Damage behind the header goes unseen.
    """
    if isinstance(source, np.ndarray):
        colour_or_mono = source[:, :, 0] if source.ndim == 3 and source.shape[2] == 1 else source
        _check_shape(colour_or_mono.shape, name or "<array>")
        return int(source.shape[0]), int(source.shape[1])
    if isinstance(source, Image.Image):
        return source.height, source.width
    name = name or os.fspath(source)
    with _open_file(Path(source), name) as stream, _decoder_errors(name, MAX_PIXELS):
        image = _open_image(prepared(stream, name, header=True).stream, MAX_PIXELS)
        with _quiet_pillow():
            # A PNG file's own method would decode all of it, to look behind the pixels.
            exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
            turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        tags = getattr(image, "tag_v2", {})  # a TIFF file's `size` may be that of the upright photo
        width, height = tags.get(256, image.width), tags.get(257, image.height)
        return (int(width), int(height)) if turned else (int(height), int(width))


class PhotosInTurn(Sequence[Photo]):
    """Photos that are read when it is their turn, so that no more than one is in memory.

    Args:
        reads: reads each.
    """

    def __init__(self, reads: Sequence[Callable[[], Photo]]) -> None:
        self._reads = reads

    def __len__(self) -> int:
        return len(self._reads)

    def __getitem__(self, index: int) -> Photo:  # type: ignore[override]  # nobody cuts them
        return self._reads[index]()


def as_bytes(prepared: npt.NDArray[np.float32]) -> Bytes:
    """Prepared photos, float32 in 0..1, as uint8; photos of 8 bits lose nothing."""
    return np.rint(prepared * 255).astype(np.uint8)


def as_unit(pixels: Bytes) -> npt.NDArray[np.float32]:
    """What `as_bytes` gave, as float32 in 0..1 again: bit for bit what it was, of 8-bit photos."""
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def white_level_for(photos_max: int) -> int:
    """The white level of a camera whose largest 16-bit value seen is photos_max.

    Cameras of 10, 12 or 14 bits store 0..1023, 0..4095 or 0..16383 in 16-bit files: the level is
    the smallest 2**b - 1 that is not below photos_max, b in 8..16.
    """
    if not 0 <= photos_max <= 65535:
        raise SettingsError(f"The largest 16-bit value must be in 0..65535, not {photos_max}.")
    return (1 << max(8, int(photos_max).bit_length())) - 1


def in_unit(pixels: npt.NDArray[Any], white_level: int) -> npt.NDArray[np.float32]:
    """16-bit values as float32 in 0..1; floats are in 0..1 already."""
    if pixels.dtype == np.float32:
        return pixels
    scaled: npt.NDArray[np.float32] = np.minimum(pixels, white_level) / np.float32(white_level)
    return scaled


def _check_limit(max_pixels: Any) -> None:
    if not isinstance(max_pixels, numbers.Integral) or max_pixels < 1:
        raise SettingsError(
            f"max_pixels is {max_pixels!r}: give a whole number of pixels (height x width), 1 or "
            "more"
        )


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    _check_limit(max_pixels)
    if width * height > max_pixels:
        raise _too_large(f"{name}: {width} x {height}", width * height, max_pixels)
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            f"{name}: {width} x {height} pixels are too few; "
            f"a photo needs at least {MIN_SIDE} x {MIN_SIDE}."
        )
    if max(width, height) > MAX_SIDE:
        raise PhotoError(
            f"{name}: {width} x {height} pixels, and a side may have {MAX_SIDE:,} at most; cut the "
            "photo into shorter ones."
        )


def _too_large(what: str, pixels: int, max_pixels: int) -> PhotoError:
    return PhotoError(
        f"{what} is {pixels:,} pixels, over the limit of {max_pixels:,}; if the photo is meant to "
        f"be that large, raise the limit with --max-pixels {pixels} (Python: max_pixels={pixels})."
    )


def _from_array(array: npt.NDArray[Any], name: str, max_pixels: int) -> npt.NDArray[Any]:
    """The array as (H, W) or (H, W, 3) of uint8, uint16 or float32, after all checks."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    _check_shape(array.shape, name)
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    kind = array.dtype.kind, array.dtype.itemsize
    if kind == ("u", 1):
        return array
    if kind == ("u", 2):
        return array.astype(np.uint16, copy=False)
    if kind in {("f", 2), ("f", 4), ("f", 8)}:
        return _unit_floats(array, name)
    raise PhotoError(
        f"{name}: dtype {array.dtype} is not supported; "
        "use uint8, uint16, or a float dtype with values in 0..1."
    )


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3):
        return
    advice = "pass (H, W) or (H, W, 3)"
    if len(shape) == 3 and shape[2] == 4:
        advice += "; composite or drop the alpha channel first"
    elif len(shape) == 3 and shape[0] in (1, 3):
        advice += "; put the channels last with array.transpose(1, 2, 0)"
    raise PhotoError(f"{name}: an array of shape {shape} is not a photo; {advice}.")


def _unit_floats(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.float32]:
    """Floats as float32 in 0..1; refuses others."""
    low, high = float(array.min()), float(array.max())  # NaN if there is any
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PhotoError(f"{name}: holds NaN or infinite values; all must be finite, in 0..1.")
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise PhotoError(
            f"{name}: float values from {low:g} to {high:g}, but 0..1 is expected; "
            "divide 8-bit values by 255, or pass integers as uint8 or uint16."
        )
    floats = array.astype(np.float32, copy=False)
    return floats if low >= 0 and high <= 1 else floats.clip(0, 1)


def _from_image(image: Image.Image, name: str, max_pixels: int) -> npt.NDArray[Any]:
    _check_size(*image.size, name, max_pixels)
    with _decoder_errors(name, max_pixels):
        if _colour16_rawmodes(image):
            raise PhotoError(
                f"{name}: PIL keeps only 8 of the 16 bits of this colour image; pass its path."
            )
        return _pixels(_loaded_upright(image), name)


def _from_stream(
    stream: BinaryIO, name: str, max_pixels: int, drawn: _Drawn = "no"
) -> npt.NDArray[Any]:
    with _decoder_errors(name, max_pixels):
        stream, white_is_zero = prepared(stream, name)
        image = _open_image(stream, max_pixels)
        _check_size(*image.size, name, max_pixels)
        check_samples(image, name)
        with _quiet_pillow():
            check_single(image, stream, name)
        image = _open_image(stream, max_pixels)
        if rawmodes := _colour16_rawmodes(image):
            key = image.info.get("transparency")
            return _colour16_pixels(stream, rawmodes, key, name, max_pixels, drawn)
        white = white_value(image, name) if white_is_zero else None
        return _pixels(_loaded_upright(image), name, drawn, white)


def _open_file(path: Path, name: str) -> BinaryIO:
    if not name:  # and "" would be the folder that the program runs in
        raise PhotoError("The path of a photo is empty; give a file.")
    try:
        if path.is_dir():
            raise PhotoError(f"{name}: is a folder, not a photo; give one of the files in it.")
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise PhotoError(f"{name}: is not a regular file; give a photo.")
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise PhotoError(f"{name}: does not exist; check the path.") from error
    except PermissionError as error:
        raise PhotoError(f"{name}: may not be read; check its permissions.") from error
    except (OSError, ValueError) as error:
        raise PhotoError(f"{name}: cannot be opened ({error}); check the path.") from error
    if os.fstat(stream.fileno()).st_size == 0:
        stream.close()
        raise PhotoError(f"{name}: the file is empty; save or copy it again.")
    return stream


@contextmanager
def _decoder_errors(name: str, max_pixels: int) -> Iterator[None]:
    """Whatever a decoder raises in the block becomes a PhotoError.

    Damaged files make Pillow raise nearly anything: OSError, SyntaxError, ValueError, EOFError,
    struct.error, zlib.error, IndexError.
    """
    _check_limit(max_pixels)
    try:
        yield
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        raise _too_large(name, int(count[0]) if count else max_pixels + 1, max_pixels) from error
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"{name}: is not a PNG, JPEG, BMP, TIFF or WebP file that can be read, whatever its "
            "ending says; save it anew as 8-bit or 16-bit PNG."
        ) from error
    except MemoryError as error:
        raise PhotoError(
            f"{name}: memory ran out while it was decoded; give the process more memory, or a "
            "smaller photo."
        ) from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise PhotoError(
            f"{name}: cannot be decoded ({reason}); the file may be damaged or cut short: "
            "save or copy it again."
        ) from error


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """No warnings in the block: what is wrong with a photo's metadata does not touch its pixels.

    Python's warning filters belong to the whole process, hence the lock; no pixels are decoded
    under it.
    """
    with _pillow_globals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_image(stream: BinaryIO, max_pixels: int) -> Image.Image:
    """Read the header only."""
    stream.seek(0)
    with _quiet_pillow():
        guard = Image.MAX_IMAGE_PIXELS
        if guard is not None and guard < max_pixels:
            # Pillow's guard must not overrule a limit that the user raised.
            Image.MAX_IMAGE_PIXELS = max_pixels
        return Image.open(stream, formats=_FORMATS)


def _loaded_upright(image: Image.Image) -> Image.Image:
    """Decode, and undo the orientation that EXIF tells of."""
    if image.format == "TIFF":
        with _quiet_pillow():
            # Kept by the image, value and all; load() would read it, and warn.
            image.getexif().get(ExifTags.Base.Orientation)
    image.load()
    with _quiet_pillow():
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _pixels(
    image: Image.Image, name: str, drawn: _Drawn = "no", white: int | None = None
) -> npt.NDArray[Any]:
    """The pixels of a decoded image, (H, W) or (H, W, 3); uint8, uint16 or float32.

    Args:
        image: decoded and upright.
        name: of the picture, for messages.
        drawn: see `read_drawing`.
        white: of values in which white is 0, the one that is black; None: 0 is black.
    """
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
        return _keyed(pixels if white is None else white - pixels, image.info.get("transparency"))
    if image.mode == "I":
        return _uint16_of_int32(np.asarray(image), name)
    if image.mode == "F":
        return _unit_floats(np.asarray(image), name)
    if image.mode == "P" and drawn == "indices":
        return np.asarray(image)
    if image.mode == "La":
        image = image.convert("LA")
    mono = image.mode in {"1", "L", "LA"}
    transparent = image.has_transparency_data
    kind = ("L" if mono else "RGB") + ("A" if transparent else "")
    channels = _as_array(image, kind)
    if white is not None:
        colours = channels[:, :, :1] if transparent else channels
        np.subtract(white, colours, out=colours)
    return _over_black(channels, name, drawn) if transparent else channels


def _as_array(image: Image.Image, kind: str) -> npt.NDArray[np.uint8]:
    """A decoded image as an array of its own: (H, W), or (H, W, channels of the mode `kind`)."""
    channels = len(kind)
    shape = (image.height, image.width, channels)[: 2 + (kind != "L")]
    found = np.empty(shape, np.uint8)
    for strip in _strips(image.height, image.width):
        part = image.crop((0, strip.start, image.width, strip.stop))
        found[strip] = np.asarray(part if part.mode == kind else part.convert(kind))
    return found


def _strips(height: int, width: int) -> Iterator[slice]:
    """Ranges of rows that cover a picture, of some million pixels each."""
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _keyed(pixels: npt.NDArray[np.uint16], key: Any) -> npt.NDArray[np.uint16]:
    """16-bit values, 0 where they are the value, mono or colour, that a PNG calls transparent."""
    if not isinstance(key, int | tuple):
        return pixels
    same = pixels == np.array(key, np.uint16)
    pixels[same if pixels.ndim == 2 else same.all(axis=2)] = 0
    return pixels


def _uint16_of_int32(values: npt.NDArray[np.int32], name: str) -> npt.NDArray[np.uint16]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise PhotoError(
            f"{name}: integer values from {low} to {high}, but 0..65535 is expected; "
            "save it with 8 or 16 bits."
        )
    return values.astype(np.uint16)


def _over_black(channels: npt.NDArray[Any], name: str, drawn: _Drawn) -> npt.NDArray[Any]:
    """Composite (H, W, 2) mono or (H, W, 4) RGB with alpha last over black; the dtype stays.

    Of a photo an alpha of 0 everywhere is that of a camera's buffer, in which it means nothing.
    """
    colours, alpha = channels[:, :, :-1], channels[:, :, -1:]
    opaque: npt.NDArray[Any]
    if drawn == "no" and not alpha.any():
        opaque = np.ascontiguousarray(colours)
        if not opaque.any():
            raise PhotoError(
                f"{name}: is transparent everywhere and black below; save it without alpha."
            )
    else:
        white, opaque = np.iinfo(channels.dtype).max, np.empty(colours.shape, channels.dtype)
        for rows in _strips(*channels.shape[:2]):
            if (alpha[rows] == white).all():
                opaque[rows] = colours[rows]
                continue
            wide = colours[rows].astype(np.uint32)  # 65535 * 65535 + 32767 just fits
            opaque[rows] = (wide * alpha[rows] + white // 2) // white
    return opaque[:, :, 0] if opaque.shape[2] == 1 else opaque


def _colour16_rawmodes(image: Image.Image) -> set[str]:
    """Pillow's raw modes of a picture with several 16-bit channels, not yet decoded; else none.

    A TIFF that stores its channels apart has raw modes that do not tell their bits, so its tags do.
    """
    rawmodes = {_rawmode(tile) for tile in getattr(image, "tile", ())}
    tags = getattr(image, "tag_v2", {})
    channels_apart = tags.get(ExifTags.Base.PlanarConfiguration) == 2
    if rawmodes and channels_apart and tags.get(ExifTags.Base.BitsPerSample, ()).count(16) > 1:
        return {"planar"}
    return {rawmode for rawmode in rawmodes if _COLOUR16_RAWMODE.fullmatch(rawmode)}


def _rawmode(tile: Any) -> str:
    arguments = tile[3]
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else ""
    return str(arguments)


def _colour16_pixels(
    stream: BinaryIO, rawmodes: set[str], key: Any, name: str, max_pixels: int, drawn: _Drawn
) -> npt.NDArray[np.uint16]:
    """All 16 bits of each channel of a colour file, (H, W) or (H, W, 3); `key` is transparent.

    Pillow keeps the high byte of each value and drops the low one, without a word. Told that the
    bytes are in the opposite order, it keeps the low one: two passes give both. Mono with alpha has
    no opposite raw mode, but its four bytes can pass as four 8-bit channels.
    """
    kind, _, order = next(iter(rawmodes)).partition(";16")
    if len(rawmodes) > 1 or kind not in {"RGB", "RGBX", "RGBa", "RGBA", "LA"}:
        raise PhotoError(
            f"{name}: 16-bit colour stored in this way cannot be read without losing bits; "
            "save it as 16-bit RGB PNG, as 8-bit, or as one mono file per channel."
        )
    if kind == "LA":
        values = _decode_as(stream, "RGBA", max_pixels).view(">u2").astype(np.uint16)
        return _over_black(values, name, drawn)
    # Premultiplied colours are composited over black already; RGBA leaves them as they are.
    layout = "RGBA" if kind == "RGBa" else kind
    high = _decode_as(stream, f"{layout};16{order}", max_pixels)
    low = _decode_as(stream, f"{layout};16{_OPPOSITE_ORDER[order]}", max_pixels)
    pixels = high.astype(np.uint16) * np.uint16(256) + low
    return _over_black(pixels, name, drawn) if kind == "RGBA" else _keyed(pixels[:, :, :3], key)


def _decode_as(stream: BinaryIO, rawmode: str, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Decode as if the file's bytes were of another of Pillow's raw modes; upright."""
    image: Any = _open_image(stream, max_pixels)
    image.tile = [_with_rawmode(tile, rawmode) for tile in image.tile]
    return np.asarray(_loaded_upright(image))


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    """A copy of a tile; from Pillow 11 on a named tuple, whose type must stay."""
    arguments = (rawmode, *tile[3][1:]) if isinstance(tile[3], tuple) else rawmode
    values = (*tile[:3], arguments)
    return type(tile)(*values) if hasattr(tile, "_fields") else values
