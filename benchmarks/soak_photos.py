"""Photos that are damaged in every way: a verdict or one sentence, no hang, no growing memory.

Files of every format and kind that is read (8 and 16 bits, palette, alpha, CMYK, several frames,
EXIF, every compression) are changed by seeded mutations; PNG chunks get their checksum mended, so
that decoders look behind it.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import random
import struct
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from soak_models import Count

from reconpatch.errors import PhotoError
from reconpatch.photos.images import read_photo

LONGEST = 60.0
"""Seconds that one photo may take on a machine that does other things as well."""

# Numbers that decoders trip over.
_NUMBERS = [0, 1, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@cache
def seeds() -> tuple[bytes, ...]:
    """A small file of each kind."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    grey16 = Image.fromarray(rng.integers(0, 65536, (48, 64), np.uint16))
    unit = Image.fromarray(rng.random((48, 64), np.float32))
    frames = [rgb.rotate(angle) for angle in (90, 180)]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    exif[0x010E] = "a part"
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "PNG", {}), (rgb.convert("L"), "PNG", {}), (grey16, "PNG", {}),
        (palette, "PNG", {"transparency": 3}), (rgb.convert("1"), "PNG", {}),
        (rgb.convert("LA"), "PNG", {}), (rgb.convert("RGBA"), "PNG", {"exif": exif}),
        (rgb, "PNG", {"save_all": True, "append_images": frames}),
        (rgb, "JPEG", {}), (rgb.convert("L"), "JPEG", {}), (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "JPEG", {"progressive": True, "exif": exif}), (rgb, "JPEG", {"subsampling": 2}),
        (rgb, "BMP", {}), (palette, "BMP", {}), (rgb.convert("1"), "BMP", {}),
        (rgb, "TIFF", {}), (grey16, "TIFF", {}), (unit, "TIFF", {}),
        (rgb.convert("CMYK"), "TIFF", {}), (palette, "TIFF", {"compression": "packbits"}),
        *((rgb, "TIFF", {"compression": f"tiff_{c}"}) for c in ("lzw", "adobe_deflate")),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb, "TIFF", {"save_all": True, "append_images": frames, "exif": exif}),
        (rgb, "WEBP", {}), (rgb.convert("RGBA"), "WEBP", {"lossless": True, "exif": exif}),
        (rgb, "WEBP", {"save_all": True, "append_images": frames}),
    ]  # fmt: skip
    files = [_saved(image, kind, options) for image, kind, options in kinds]
    return (
        *files,
        *(_png16(rng, colour, channels) for colour, channels in ((2, 3), (4, 2), (6, 4))),
    )


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png16(rng: np.random.Generator, colour: int, channels: int) -> bytes:
    """A PNG of several 16-bit channels, which Pillow does not write."""
    rows = rng.integers(0, 256, (32, 1 + 40 * channels * 2), np.uint8)
    rows[:, 0] %= 5  # the filter of each row
    header = struct.pack(">IIBBBBB", 40, 32, 16, colour, 0, 0, 0)
    data = zlib.compress(rows.tobytes())
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# --- Mutations -----------------------------------------------------------------------------------


def mutated(count: int, seed: int) -> Iterator[bytes]:
    """Damaged files, the same for the same seed."""
    rng = random.Random(seed)
    for i in range(count):
        content = bytearray(seeds()[i % len(seeds())])
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            rng.choice(_MUTATIONS)(content, rng)
        yield _mended(bytes(content)) if rng.random() < 0.7 else bytes(content)


def _place(content: bytearray, rng: random.Random) -> int:
    """A place, half of the time among the first bytes, where the header is."""
    most = min(len(content), 120) if rng.random() < 0.5 else len(content)
    return rng.randrange(max(1, most))


def _flip(content: bytearray, rng: random.Random) -> None:
    if content:
        content[_place(content, rng)] ^= 1 << rng.randrange(8)


def _bytes(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 20)):
        if content:
            content[_place(content, rng)] = rng.randrange(256)


def _number(content: bytearray, rng: random.Random) -> None:
    size, order = rng.choice([1, 2, 4]), rng.choice(["big", "little"])
    value = rng.choice(_NUMBERS) % 256**size
    at = _place(content, rng)
    content[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _drop(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    del content[at : at + rng.randrange(1, 64)]


def _repeat(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    content[at:at] = content[at : at + rng.randrange(1, 64)] * rng.choice([1, 2, 50])


def _noise(content: bytearray, rng: random.Random) -> None:
    at = _place(content, rng)
    content[at : at + rng.choice([1, 16, 256])] = rng.randbytes(rng.choice([1, 16, 256]))


def _graft(content: bytearray, rng: random.Random) -> None:
    other = rng.choice(seeds())
    content[_place(content, rng) :] = other[rng.randrange(len(other)) :]


_MUTATIONS = (_flip, _bytes, _number, _number, _cut, _drop, _repeat, _noise, _graft)


def _mended(content: bytes) -> bytes:
    """A PNG whose chunks have the right checksums; any other file as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    out, at = [content[:8]], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        if at + 12 + length > len(content):
            break
        body = content[at + 4 : at + 8 + length]
        out += [content[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*out, content[at:]])


# --- In this process, as the command line does it ------------------------------------------------


def inspected(model: Any, photos: Iterator[bytes], folder: Path, count: Count) -> float:
    """Read and inspect each; the longest time that one took, in seconds."""
    longest = 0.0
    path = folder / "photo.png"
    for i, content in enumerate(photos):
        path.write_bytes(content)
        faulthandler.dump_traceback_later(10 * LONGEST, exit=True)  # where it hangs, if it does
        began = time.perf_counter()
        outcome = _inspected(model, path)
        seconds = time.perf_counter() - began
        longest = max(longest, seconds)
        count.add(f"photo {i}", outcome if seconds < LONGEST else f"took {seconds:.0f} s")
    faulthandler.cancel_dump_traceback_later()
    return longest


def _inspected(model: Any, path: Path) -> str:
    try:
        model.inspect(read_photo(path)).to_dict()
    except PhotoError as error:
        return "refused" if "\n" not in str(error) else f"in several lines: {error}"
    except Exception:
        return traceback.format_exc()
    return "harmless"


def through_command_line(model: Path, photos: Iterator[bytes], folder: Path, count: Count) -> None:
    """`reconpatch inspect --json` on a folder of them: one line each and no traceback."""
    folder.mkdir()
    many = 0
    for many, content in enumerate(photos, start=1):
        (folder / f"{many:05}.png").write_bytes(content)
    command = [sys.executable, "-m", "reconpatch.cli", "inspect", str(model), str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if len(lines) != many or done.returncode not in (0, 1, 3) or "Traceback" in done.stderr:
        count.wrong.append(f"exit code {done.returncode}, {len(lines)} of {many}: {done.stderr}")
    for line in lines:
        count.add(str(line), "refused" if "error" in line else "harmless")


# --- Memory --------------------------------------------------------------------------------------


def resident() -> float:
    """Resident memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20
