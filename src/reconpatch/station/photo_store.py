"""Inspected photos on the disk, each under the hash of its bytes.

    photos/3f/3f2c...   SHA-256 of the file, no suffix: the same photo twice is one file

A file is there whole or not at all. What is stored is also a row of the records; photos are given
up by age and by total size there first. A file without a row may be left over from a process that
was killed, or belong to another database: it is never removed unasked; see `station/orphans.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from reconpatch.errors import NotFoundError
from reconpatch.files import atomic_write, make_folder, sweep_leftovers
from reconpatch.station.records import FileKey, Part, Record, Records, Verdict, Version

if TYPE_CHECKING:
    from reconpatch.result import Result

HASH = re.compile(r"[0-9a-f]{64}")
_ANY_TIME = datetime(9999, 1, 1, tzinfo=UTC)


class PhotoStore:
    """Photos in a folder under their hashes; safe to use from several threads of one process.

    Args:
        folder: made with the first photo.
        records: where the photos' rows are.
    """

    def __init__(self, folder: Path, records: Records) -> None:
        self._folder = folder
        self._records = records
        # Held until the record of a photo is written, so that it is not removed in between.
        self._keeping = threading.Lock()

    def keep(
        self,
        version: Version,
        inspected: Sequence[tuple[bytes, Result]],
        files: Sequence[FileKey | None] = (),
        parts: Sequence[Part] = (),
    ) -> list[Record]:
        """Store photos and commit their verdicts; both are on the disk when this returns.

        Where the verdicts cannot be committed, photos that were new are removed again: a database
        that is away for a night must not fill the disk.

        Args:
            version: which judged.
            inspected: the bytes of each photo's file, and what the inspection came to.
            files: of each photo, the file it was found in; see `Records.add`.
            parts: of each photo, which part it shows; none: of no photo is it known.

        Raises:
            OutputError: a photo cannot be written.
            RecordsError: the verdicts cannot be committed.
        """
        verdicts: list[Verdict] = []
        new: list[str] = []
        with self._keeping:
            try:
                for (content, result), part in zip_longest(inspected, parts):
                    sha256, is_new = self.add(content)
                    if is_new:
                        new.append(sha256)
                    verdicts.append(Verdict.of(result, version, sha256, part))
                sizes = [len(content) for content, _ in inspected]
                return self._records.add(verdicts, files=files, photo_bytes=sizes)
            except BaseException:
                for sha256 in new:
                    with contextlib.suppress(OSError):
                        self.path(sha256).unlink()
                raise

    def add(self, content: bytes) -> tuple[str, bool]:
        """Store a photo's file unless it is there; its SHA-256, and whether it is new.

        Raises:
            OutputError: it cannot be written.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.path(sha256)
        if path.exists():
            return sha256, False
        make_folder(path.parent)
        with atomic_write(path) as file:
            file.write(content)
        return sha256, True

    def read(self, sha256: str) -> bytes:
        """The bytes of a photo's file.

        Raises:
            NotFoundError: it is not stored (any more).
        """
        if HASH.fullmatch(sha256) is None:
            raise NotFoundError("a photo is named by 64 hexadecimal digits: give its SHA-256")
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"the photo {sha256[:12]}... is no longer stored: only its record was kept"
            ) from None

    def prune(
        self,
        *,
        keep_days: float | None = None,
        keep_bytes: int | None = None,
        keep_photos: int | None = None,
        keep_newest: int = 0,
        now: datetime | None = None,
    ) -> list[str]:
        """Remove photos that are too old or too many, oldest first; records stay.

        Photos of a record with feedback are never removed.

        Args:
            keep_days: remove what was last stored longer ago than this; None keeps any age.
            keep_bytes: remove until no more than this is left; None keeps any amount.
            keep_photos: remove until no more than so many are left; None keeps any number.
            keep_newest: so many of the newest are kept whatever their age.
            now: the time; None asks the clock.

        Returns:
            SHA-256 of each that was removed.
        """
        before = None
        if keep_days is not None:
            now = now or datetime.now(UTC)
            before = now - timedelta(days=keep_days)
            if keep_newest:
                newest = self._records.newest_photo(_ANY_TIME, skip=keep_newest - 1)
                before = None if newest is None else min(before, newest)
        removed: list[str] = []
        while True:
            with self._keeping:
                gone = self._records.give_up_photos(
                    stored_before=before, until_bytes=keep_bytes, until_photos=keep_photos
                )
                for sha256 in gone:
                    self.path(sha256).unlink(missing_ok=True)
            removed += gone
            if not gone:
                return removed

    def sweep(self) -> int:
        """Remove the temporary files that a killed process left while it wrote photos; how many."""
        return sum(sweep_leftovers(folder, HASH) for folder in self.folders())

    def folders(self) -> list[Path]:
        """The folders that photos are in."""
        return sorted(self._folder.glob("[0-9a-f][0-9a-f]"))

    def path(self, sha256: str) -> Path:
        """Where a photo is, given by its SHA-256, or would be."""
        return self._folder / sha256[:2] / sha256
