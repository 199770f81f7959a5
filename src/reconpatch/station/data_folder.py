"""The folder in which a station keeps everything, and the lock that only one program can hold.

DATA/station.txt           name of the station in the records; made once, goes with the folder
DATA/lock                  locked while a program uses the folder
DATA/records.sqlite        the records, unless they are in another database
DATA/photos/               see `station/photo_store.py`
DATA/models/PRODUCT/       see `station/versions.py`
DATA/thumbnails/           see `station/thumbnails.py`
DATA/drift/                see `station/version_drift.py`
DATA/fits/                 what a fit is at work on; see `station/fit_jobs.py`
"""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path
from typing import Self

from reconpatch.errors import OutputError
from reconpatch.files import atomic_write, cannot_write, lock, sweep_leftovers


class DataFolder:
    """A station's folder, locked; free again at `close`, or when the process ends in any way.

    Args:
        path: the folder, made where it is missing.

    Attributes:
        station: the station's name in the records.
        database: where the records are, unless they are in another database.
        photos: folder of the inspected photos.
        models: folder of the products' folders.

    Raises:
        OutputError: another program uses the folder, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database, self.photos, self.models = (
            path / name for name in ("records.sqlite", "photos", "models")
        )
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "lock").open("a+b")
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            lock(self._lock)
        except OSError:
            self._lock.close()
            raise OutputError(
                f"{path} is in use by another program (`serve` and `watch` cannot share one): stop "
                "that one, or give another folder with --data"
            ) from None
        for folder in (path, path / "drift"):
            sweep_leftovers(folder)
        self.station = _station_name(path / "station.txt")

    def drift(self, product: str, version: int) -> Path:
        """File of the state of the drift monitor of a product's version."""
        return self.path / "drift" / f"{product}@{version:04}.json"

    def close(self) -> None:
        """Let another program use the folder."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _station_name(path: Path) -> str:
    """The name in a file; where there is none, the machine's with a few random digits."""
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    machine = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:40]
    name = f"{machine}-{secrets.token_hex(3)}"
    with atomic_write(path) as file:
        file.write(f"{name}\n".encode())
    return name
