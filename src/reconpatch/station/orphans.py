"""Files in a station's folder that its records do not know, and what may be done about them.

They are left over from a process that was killed, or they belong to another database: one that was
moved, restored from a backup, or replaced. Which of the two cannot be known from here, so that a
station counts them and removes nothing; a person does, with `reconpatch orphans`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reconpatch.errors import OutputError
from reconpatch.files import cannot_write, sha256_of
from reconpatch.station.photo_store import HASH
from reconpatch.station.records import Records
from reconpatch.station.watch import sort_file

Kind = Literal["photo", "foreign", "fit", "known"]

FIT_MODEL = re.compile(r"fit-[0-9a-f]{8}\.rcp")
"""What a fit writes until it is in service."""


@dataclass(frozen=True)
class Orphans:
    """How many files the records do not know.

    Attributes:
        photos: files under the hash of a photo.
        bytes: of them together.
        foreign: files and folders among the photos that no station has put there.
        fits: models of fits that were never put into service.
        known: photos that the records do know.
    """

    photos: int = 0
    bytes: int = 0
    foreign: int = 0
    fits: int = 0
    known: int = 0

    @property
    def sentence(self) -> str | None:
        """What is to be said of them, or None where there is none."""
        counted = [
            f"{self.photos:,} photos ({self.bytes / 1e6:.1f} MB)" if self.photos else "",
            f"{self.foreign:,} foreign files" if self.foreign else "",
            f"{self.fits:,} fits that were not put into service" if self.fits else "",
        ]
        if not any(counted):
            return None
        database = (
            "; they know none of the photos there, so look whether this is the right database"
            if self.photos and not self.known
            else ""
        )
        return (
            f"The data folder holds {', '.join(filter(None, counted))} that the records do not "
            f"know{database}. Nothing was removed: `reconpatch orphans` lists them, and moves or "
            "removes them"
        )


def each_file(data: Path, records: Records | None) -> Iterator[tuple[Path, Kind]]:
    """Every file among the photos and fits of a station's folder, and what it is.

    Args:
        data: the folder.
        records: what they are looked up in; None knows none.
    """
    photos = data / "photos"
    for entry in _entries(photos):
        if not (entry.is_dir() and re.fullmatch("[0-9a-f]{2}", entry.name)):
            yield entry, "foreign"
            continue
        inside = _entries(entry)
        own = [path for path in inside if _is_photo(path)]
        kept = records.kept_photos([path.name for path in own]) if records is not None else set()
        for path in inside:
            if path not in own:
                yield path, "foreign"
            else:
                yield path, "known" if path.name in kept else "photo"
    for entry in _entries(data / "fits"):
        if entry.is_file() and FIT_MODEL.fullmatch(entry.name):
            yield entry, "fit"


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_photo(path: Path) -> bool:
    own = HASH.fullmatch(path.name) and path.name[:2] == path.parent.name
    return bool(own) and path.is_file() and not path.is_symlink()


def count(data: Path, records: Records | None) -> Orphans:
    """How many files the records do not know."""
    numbers: dict[Kind, int] = {"photo": 0, "foreign": 0, "fit": 0, "known": 0}
    size = 0
    for path, kind in each_file(data, records):
        numbers[kind] += 1
        size += path.stat().st_size if kind == "photo" else 0
    return Orphans(numbers["photo"], size, numbers["foreign"], numbers["fit"], numbers["known"])


def move(paths: Sequence[Path], data: Path, to: Path) -> int:
    """Move files out of a station's folder, under the names that they have in it; how many.

    Raises:
        OutputError: one cannot be moved.
    """
    return sum(
        sort_file(path, to / path.relative_to(data), sha256_of(path), move=True) is not None
        for path in paths
        if path.is_file()
    )


def remove(paths: Sequence[Path]) -> tuple[int, list[Path]]:
    """Remove photos and fits for good; how many, and those that were left.

    A photo whose bytes are not what its name says was changed by somebody, and is left.

    Raises:
        OutputError: one cannot be removed.
    """
    left = []
    for path in paths:
        if HASH.fullmatch(path.name) and sha256_of(path) != path.name:
            left.append(path)
            continue
        try:
            path.unlink()
        except OSError as error:
            raise cannot_write(path, error) from error
    return len(paths) - len(left), left


def check_database(found: Orphans) -> None:
    """Refuse to remove photos by records that know fewer of them than not.

    Orphans are what a killed process left over: few. Where they are most of what is there, the
    database may be another station's, or older than the photos.

    Raises:
        OutputError: the records know fewer of the photos than they do not.
    """
    if found.photos > found.known:
        known = f"only {found.known:,}" if found.known else "none"
        raise OutputError(
            f"the records know {known} of the {found.photos + found.known:,} photos in this "
            "folder, so this may not be its database, or an older one: give the right one with "
            "--database, or move the photos aside with --move DIR"
        )
