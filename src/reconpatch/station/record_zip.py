"""Records with their photos and overlays as one ZIP file, made while it is sent.

    photos/812-part.png       as it was sent; stored, since photos are compressed already
    overlays/812-part.jpg     under its heat map
    records.csv               all of them
    manifest.json             of what, when and by which program, and what is missing
    SHA256SUMS                of each file, as `sha256sum -c` takes it

Memory holds one photo at a time and some hundred bytes a file; the table waits in a temporary file.
The directory of a ZIP file stands at its end, so one that was cut off cannot be opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Literal

import reconpatch
from reconpatch.errors import BusyError, NotFoundError, PhotoError
from reconpatch.station.record_table import RecordTable

if TYPE_CHECKING:
    from reconpatch.station.pictures import Pictures
    from reconpatch.station.records import Record
    from reconpatch.station.station import Station

Which = Literal["all", "anomalous", "none"]

_CHUNK = 1 << 20
_SUFFIXES = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif",
}  # fmt: skip
_TRIES, _PAUSE = 30, 2.0  # while others have pictures drawn


class RecordZips:
    """Makes ZIP files of a station's records.

    Args:
        station: whose records they are.
        pictures: draws overlays.
    """

    def __init__(self, station: Station, pictures: Pictures) -> None:
        self._station, self._pictures = station, pictures
        # Of the few overlays that are drawn at once, people at the page keep the others.
        self._drawing = threading.Lock()

    def chunks(
        self,
        records: Iterable[Record],
        *,
        photos: Which = "all",
        overlays: Which = "anomalous",
        told: dict[str, Any] | None = None,
    ) -> Iterator[bytes]:
        """The bytes of the file, some at a time.

        Args:
            records: in the order of the table.
            photos: of which records the photo goes in; the manifest counts those that are no
                longer stored.
            overlays: of which records it goes in; each is an inspection once more.
            told: what was asked for, for the manifest.
        """
        out = _Out()
        kept = _Kept()
        with (
            tempfile.SpooledTemporaryFile(_CHUNK) as table,
            tempfile.SpooledTemporaryFile(_CHUNK) as sums,
            zipfile.ZipFile(out, "w") as archive,
        ):
            writing = _Files(archive, sums)
            lines = RecordTable()
            for record in records:
                lines.add(record)
                table.write(lines.taken().encode())
                kept.records += 1
                for name, content in self._of(record, photos, overlays, kept):
                    writing.add(name, content, record.time)
                    yield out.taken()
            table.write(lines.taken().encode())  # its head, where there is no record
            now = datetime.now(UTC)
            for _ in writing.copy("records.csv", table, now):
                yield out.taken()
            manifest = {
                "station": self._station.data.station, "made": now.isoformat(timespec="seconds"),
                "program": f"reconpatch {reconpatch.__version__}", "asked": told or {},
                **vars(kept),
            }  # fmt: skip
            writing.add("manifest.json", json.dumps(manifest, indent=1).encode(), now)
            for _ in writing.copy("SHA256SUMS", sums, now):
                yield out.taken()
        yield out.taken()

    def _of(
        self, record: Record, photos: Which, overlays: Which, kept: _Kept
    ) -> Iterator[tuple[str, bytes]]:
        """The files of a record."""
        content = None
        if _wants(photos, record) or _wants(overlays, record):
            try:
                content = self._station.photos.read(record.photo)
            except NotFoundError:
                kept.photos_missing += 1
                return
        if content is not None and _wants(photos, record):
            kept.photos += 1
            yield f"photos/{_name(record, content)}", content
        if _wants(overlays, record):
            drawn = self._overlay(record)
            if drawn is None:
                kept.overlays_missing += 1
                return
            kept.overlays += 1
            yield f"overlays/{_name(record, b'').rsplit('.', 1)[0]}.jpg", drawn

    def _overlay(self, record: Record) -> bytes | None:
        """The overlay; None where the version that judged is gone, or cannot read the photo."""
        for left in reversed(range(_TRIES)):
            try:
                with self._drawing:
                    return self._pictures.overlay(record).content
            except (NotFoundError, PhotoError):
                return None
            except BusyError:
                if not left:
                    raise
            time.sleep(_PAUSE)
        return None


@dataclass
class _Kept:
    """What went in, and what could not: photos that are no longer stored, and pictures of them."""

    records: int = 0
    photos: int = 0
    overlays: int = 0
    photos_missing: int = 0
    overlays_missing: int = 0


class _Out(io.RawIOBase):
    """What was written since it was last taken; a file without a place to go back to."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._waiting += content
        return len(content)

    def taken(self) -> bytes:
        content = bytes(self._waiting)
        self._waiting.clear()
        return content


class _Files:
    """Adds files to an archive, and their sums to a list."""

    def __init__(self, archive: zipfile.ZipFile, sums: IO[bytes]) -> None:
        self._archive, self._sums = archive, sums

    def add(self, name: str, content: bytes, when: datetime) -> None:
        self._archive.writestr(_info(name, when), content)
        self._sum(name, hashlib.sha256(content))

    def copy(self, name: str, source: IO[bytes], when: datetime) -> Iterator[None]:
        """Add what is in a temporary file, a part of it with each step."""
        info = _info(name, when)
        info.compress_type = zipfile.ZIP_DEFLATED
        sha256 = hashlib.sha256()
        source.seek(0)
        with self._archive.open(info, "w", force_zip64=True) as target:
            while content := source.read(_CHUNK):
                target.write(content)
                sha256.update(content)
                yield
        if name != "SHA256SUMS":
            self._sum(name, sha256)

    def _sum(self, name: str, sha256: Any) -> None:
        self._sums.write(f"{sha256.hexdigest()}  {name}\n".encode())


def _wants(which: Which, record: Record) -> bool:
    return which == "all" or (which == "anomalous" and record.anomalous)


def _name(record: Record, content: bytes) -> str:
    """A name that every system takes and no other record has."""
    name = re.sub(r"[^\w.-]+", "_", record.name, flags=re.ASCII)[-80:].strip("._")
    known = (suffix for start, suffix in _SUFFIXES.items() if content.startswith(start))
    if "." not in name:
        name += next(known, "")
    return f"{record.id}-{name or 'photo'}"


def _info(name: str, when: datetime) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, when.timetuple()[:6])
    info.external_attr = 0o644 << 16
    return info
