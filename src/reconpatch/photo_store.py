"""Inspected photos on the disk, each under the hash of its bytes.

    photos/3f/3f2c...   SHA-256 of the file, no suffix: the same photo twice is one file

A file is there whole or not at all. What is stored is also a row of the records; photos are given
up by age and by total size there first, so a file without a row is left over from a process that
was killed, and `sweep` removes it.
"""

from __future__ import annotations

import hashlib
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from reconpatch.errors import NotFoundError
from reconpatch.files import atomic_write, cannot_write

if TYPE_CHECKING:
    from reconpatch.records import Records

HASH = re.compile(r"[0-9a-f]{64}")


class PhotoStore:
    """Photos in a folder under their hashes; safe to use from several threads of one process.

    Args:
        folder: made with the first photo.

    Attributes:
        keeping: held from `add` until the record of the photo is written, so that the photo is not
            removed in between.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.keeping = threading.RLock()

    def add(self, content: bytes) -> str:
        """Store a photo's file unless it is there; its SHA-256.

        Raises:
            OutputError: it cannot be written.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.path(sha256)
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from error
            with atomic_write(path) as file:
                file.write(content)
        return sha256

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
        self, records: Records, *, keep_days: float | None = None, keep_bytes: int | None = None
    ) -> int:
        """Remove photos that are too old or too many, oldest first; records stay.

        Photos of a record with feedback are never removed.

        Args:
            records: where the photos' rows are.
            keep_days: remove what was last stored longer ago than this; None keeps any age.
            keep_bytes: remove until no more than this is left; None keeps any amount.

        Returns:
            How many were removed.
        """
        before = None if keep_days is None else datetime.now(UTC) - timedelta(days=keep_days)
        removed = 0
        while True:
            with self.keeping:
                gone = records.give_up_photos(stored_before=before, until_bytes=keep_bytes)
                for sha256 in gone:
                    self.path(sha256).unlink(missing_ok=True)
            removed += len(gone)
            if not gone:
                return removed

    def sweep(self, records: Records) -> int:
        """Remove files that no row knows, which a killed process left; how many."""
        swept = 0
        for folder in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            with self.keeping:  # folder by folder, so that inspections wait for a moment only
                names = [path.name for path in folder.iterdir()]
                kept = records.kept_photos([name for name in names if HASH.fullmatch(name)])
                for name in names:
                    if name not in kept:
                        (folder / name).unlink(missing_ok=True)
                        swept += 1
        return swept

    def path(self, sha256: str) -> Path:
        """Where a photo is, given by its SHA-256, or would be."""
        return self._folder / sha256[:2] / sha256
