"""A picture's file before Pillow decodes it: what it may cost, and what would be read wrongly.

    file ── prepared ──> a stream of pixels alone ── Pillow ── (turned round, where white is 0)
                 └── refused: too many scans, several pictures, samples of an unknown meaning

Pillow reads the first of several pages, leaves values of 16 bits in which white is 0 as they are,
refuses a PNG for its metadata, and decodes a JPEG whatever its number of scans: all of it without
a word. So the few bytes that decide this are looked at first.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from reconpatch.errors import PhotoError

MAX_SIDE = 65_535
"""The longest side of a photo, in pixels: that of a JPEG."""
MAX_SCANS = 32
"""Most scans of a JPEG: each takes the time of a whole decoding, and encoders write 18 at most."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_ALONE = {0x01, _SOI, _EOI}  # markers without a length

# Of a PNG's chunks beside the critical ones: transparency, orientation, frames.
_PNG_KEPT = {b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
_PNG_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_PNG_TEXT = 2**20  # bytes of text, unpacked, that Pillow takes

_SUBFILE, _WIDTH, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _OLD_SUBFILE = 254, 256, 258, 262, 339, 255
_REDUCED = 32  # pages of a lower resolution that are looked at


class PictureFile(NamedTuple):
    """A file as Pillow reads it rightly.

    Attributes:
        stream: the file; a copy of it where something had to be left out or put right.
        white_is_zero: the stored values are to be turned round, once they are decoded.
    """

    stream: BinaryIO
    white_is_zero: bool = False


def prepared(stream: BinaryIO, name: str, *, header: bool = False) -> PictureFile:
    """The file without what keeps Pillow from its pixels.

    Args:
        stream: a file of any kind; of others than PNG, JPEG and TIFF it is given back as it is.
        name: of the picture, for messages.
        header: only what stands before the pixels is wanted.

    Raises:
        PhotoError: it has more scans than MAX_SCANS, or does not say what its values mean.
    """
    stream.seek(0)
    magic = stream.read(8)
    stream.seek(0)
    if magic == _PNG:
        return PictureFile(io.BytesIO(b"".join(_pixels_of_png(stream, header=header))))
    if magic[:3] == b"\xff\xd8\xff" and not header:
        _check_scans(stream.read(), name)
    if magic[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _with_black_at_zero(stream, name)
    stream.seek(0)
    return PictureFile(stream)


# --- PNG -----------------------------------------------------------------------------------------


def _pixels_of_png(stream: BinaryIO, *, header: bool) -> Iterator[bytes]:
    """The chunks that decide the pixels and how they are turned; of `header` up to the pixels."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    yield stream.read(8)
    while len(start := stream.read(8)) == 8:
        length, kind = min(int.from_bytes(start[:4], "big"), size), start[4:]
        if kind == b"IDAT" and header:
            yield start
            return
        body = stream.read(length + 4)
        if kind[:1].isupper() or kind in _PNG_KEPT or _tells_orientation(kind, body[:-4]):
            yield start
            yield body
        if kind == b"IEND":
            return
    yield start


def _tells_orientation(kind: bytes, body: bytes) -> bool:
    """Whether a chunk is a text that may say how the photo is turned, and is no bomb."""
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or not body.startswith(_PNG_ORIENTATION):
        return False
    packed = body.partition(b"\0")[2]
    if kind == b"tEXt" or (kind == b"iTXt" and packed[:1] == b"\0"):
        return len(packed) < _PNG_TEXT
    text = packed[1:] if kind == b"zTXt" else packed[2:].partition(b"\0")[2].partition(b"\0")[2]
    try:
        return len(zlib.decompressobj().decompress(text, _PNG_TEXT)) < _PNG_TEXT
    except zlib.error:
        return False


# --- JPEG ----------------------------------------------------------------------------------------


def _check_scans(content: bytes, name: str) -> None:
    """Refuse a JPEG of very many scans; all that follows its end is none of it."""
    scans, at = 0, 0
    while marker := _JPEG_MARKER.search(content, at):
        at, kind = marker.end(), content[marker.end() - 1]
        if kind == _EOI:
            return
        if kind in _ALONE:
            continue
        at += int.from_bytes(content[at : at + 2], "big")
        scans += kind == _SOS
        if scans > MAX_SCANS:
            raise PhotoError(
                f"{name}: a JPEG of more than {MAX_SCANS} scans, each of which takes as long to "
                "decode as the whole photo; save it anew as a JPEG that is not progressive, or as "
                "PNG."
            )


# --- TIFF ----------------------------------------------------------------------------------------


def _with_black_at_zero(stream: BinaryIO, name: str) -> PictureFile:
    """A TIFF in which white is 0 as one in which black is, which Pillow reads at every depth."""
    tags = dict(_first_tags(stream))
    stream.seek(0)
    if not tags:
        return PictureFile(stream)
    if _PHOTOMETRIC not in tags:
        raise PhotoError(
            f"{name}: this TIFF does not say whether 0 is black or white (its tag "
            "PhotometricInterpretation is missing); save it anew as 8-bit or 16-bit PNG."
        )
    tag = tags[_PHOTOMETRIC]
    if tag.value != 0:
        return PictureFile(stream)
    content = bytearray(stream.read())
    content[tag.at : tag.at + tag.size] = struct.pack(tag.form, 1)
    return PictureFile(io.BytesIO(content), white_is_zero=True)


class _Tag(NamedTuple):
    """A whole number in a TIFF's directory: its value, where it stands, and how it is written."""

    value: int
    at: int
    size: int
    form: str


def _first_tags(stream: BinaryIO) -> Iterator[tuple[int, _Tag]]:
    """The tags of a TIFF's first page that hold one number; nothing of a damaged directory."""
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    offset_at, offset, count, width = (8, "Q", "Q", 20) if big else (4, "I", "H", 12)
    try:
        [start] = struct.unpack_from(order + offset, head, offset_at)
        stream.seek(start)
        counted = stream.read(struct.calcsize(order + count))
        [entries] = struct.unpack(order + count, counted)
    except (struct.error, OSError, OverflowError, ValueError):
        return
    start += len(counted)
    directory = stream.read(width * min(entries, 4096))
    for i in range(len(directory) // width):
        tag, kind = struct.unpack_from(order + "HH", directory, i * width)
        form = order + {3: "H", 4: "I"}.get(kind, "")
        if len(form) == 2:
            at = i * width + (12 if big else 8)
            [value] = struct.unpack_from(form, directory, at)
            yield tag, _Tag(value, start + at, struct.calcsize(form), form)


def check_samples(image: Image.Image, name: str) -> None:
    """Refuse a TIFF with channels beyond colour and alpha, or with signed values of 8 bits.

    Raises:
        PhotoError: it is one.
    """
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, ())
    if len(bits) > 4:
        raise PhotoError(
            f"{name}: {len(bits)} channels a pixel, and a photo has 1 or 3, and alpha at most; "
            "save those that count."
        )
    if bits and bits[0] == 8 and 2 in tags.get(_SAMPLE_FORMAT, ()):
        raise PhotoError(
            f"{name}: signed values of 8 bits, and 0..255 is expected; save it anew as 8-bit PNG."
        )


def white_value(image: Image.Image, name: str) -> int:
    """The largest value of a TIFF's whole numbers as decoded, from which they are turned round.

    Raises:
        PhotoError: they have no such value.
    """
    bits: int = image.tag_v2.get(_BITS, (1,))[0]  # type: ignore[attr-defined]
    if image.mode in ("1", "L", "LA"):
        return 255
    if image.mode.startswith("I;16") and bits <= 16:
        return (1 << bits) - 1
    raise PhotoError(
        f"{name}: values of {bits} bits in which 0 is white have no black to count from; save it "
        "anew as 8-bit or 16-bit PNG."
    )


# --- Pages and frames ----------------------------------------------------------------------------


def check_single(image: Image.Image, stream: BinaryIO, name: str) -> None:
    """Refuse a file of several pictures, of which one alone would be looked at.

    What is a smaller version of the first one is no picture of its own: pages of a TIFF that say
    so, and what cameras append to a JPEG (previews, gain maps).

    Args:
        image: opened, not decoded; its pages are gone through, so it can be used for nothing else.
        stream: its file.
        name: of the picture, for messages.

    Raises:
        PhotoError: there are several, or the first page of a TIFF is a smaller version of another.
    """
    if image.format == "TIFF":
        several = _several_pages(image)
    elif image.format == "MPO":
        several = _several_views(image, stream)
    else:
        several = getattr(image, "n_frames", 1) > 1
    if several:
        raise PhotoError(
            f"{name}: this file holds several pictures (pages or frames), and only one would be "
            "looked at; save each as a file of its own."
        )


def _several_pages(image: Image.Image) -> bool:
    full = 0
    for page in range(_REDUCED):
        try:
            image.seek(page)
        except EOFError:
            return False
        except Exception:  # a page of a kind that Pillow does not read, or no page at all
            return _WIDTH in image.tag_v2  # type: ignore[attr-defined]
        tags = image.tag_v2  # type: ignore[attr-defined]
        reduced = bool(tags.get(_SUBFILE, 0) & 1) or tags.get(_OLD_SUBFILE) == 2
        full += not reduced
        if full > 1 or full == 0:
            return True
    return True


def _several_views(image: Image.Image, stream: BinaryIO) -> bool:
    size: tuple[int, int] = image.size
    for n in range(1, image.n_frames):  # type: ignore[attr-defined]
        with suppress(Exception):  # what is appended need not be a JPEG
            image.seek(n)
            stream.seek(image.offset)  # type: ignore[attr-defined]
            if Image.open(io.BytesIO(stream.read()), formats=("JPEG",)).size == size:
                return True
    return False
