"""Inspect files as they arrive in a folder, keep every verdict, and sort the files by it.

    file appears ── same size and time at two looks, and it decodes ── inspect ── record committed
                 ── moved or linked to DIR/good, DIR/anomalous or DIR/error

The record names the file (path, size, time of change), and is committed before the file is moved.
So a process that was killed anywhere in between inspects nothing twice: it finds the record and
only moves the file. Folders are looked through at intervals, which works on network shares, where
notifications do not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from reconpatch.errors import OutputError, PhotoError, SettingsError
from reconpatch.files import cannot_write, sha256_of, sweep_leftovers, temporary_name
from reconpatch.photos.images import MAX_PIXELS, read_photo_bytes
from reconpatch.photos.listing import Disk, Listing, mark_sorted, scan
from reconpatch.station.drift import DriftAlarm
from reconpatch.station.log import Failure
from reconpatch.station.photo_store import PhotoStore
from reconpatch.station.records import FileKey, Record, Records
from reconpatch.station.version_drift import VersionDrift
from reconpatch.station.versions import Served

Sorting = Literal["move", "link"]
Inspected = tuple[Record, DriftAlarm | None, tuple[str, ...]]
"""A record, what the drift monitor said to it, and what sets the photo apart; see `Watched`."""

# Where a link cannot be made at all: another device, or a file system without links.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_LONGEST_NAME = 255
# Seconds; no file system keeps times more coarsely.
_CLOCK_STEP = 2.0


@dataclass(frozen=True)
class Watched:
    """What became of one file.

    Attributes:
        path: where it was found.
        record: its verdict, or None where it could not be inspected.
        error: why it could not be inspected, or "".
        sorted_to: where it was moved or linked, or None.
        inspected_before: it had its record from before, and was only moved or linked now.
        alarm: what the drift monitor said to it, if anything.
        notes: what sets the photo apart from those of the fit; see `Result.notes`.
    """

    path: Path
    record: Record | None
    error: str = ""
    sorted_to: Path | None = None
    inspected_before: bool = False
    alarm: DriftAlarm | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON-ready values."""
        values: dict[str, Any] = {"path": str(self.path)}
        if self.record is None:
            values["error"] = self.error
        else:
            record = self.record
            names = ("id", "version", "score", "threshold", "anomalous", "p_value")
            values |= {name: getattr(record, name) for name in names}
            values["regions"] = [region.to_dict() for region in record.regions]
            values["kind"] = record.kind and record.kind.to_dict()
            values["whole"] = record.whole
            values["inspected_before"] = self.inspected_before
            values["notes"] = list(self.notes)
        values["sorted_to"] = None if self.sorted_to is None else str(self.sorted_to)
        if self.alarm is not None:
            values["drift"] = self.alarm.message
        return values


class FolderWatch(ABC):
    """Looks through a folder again and again; a restarted one goes on where the last one was.

    Args:
        folder: where files arrive, subfolders included.
        records: where verdicts are kept.
        output: files are moved or linked to folders in here; None leaves them.
        sorting: which of the two.
        patience: seconds for which a file that does not decode may be half-written.
        clock: seconds that only rise.

    Attributes:
        listing: what the last look found, and left out.

    Raises:
        PhotoError: there is no such folder.
        SettingsError: `output` is the folder itself.
    """

    def __init__(
        self,
        folder: Path,
        records: Records,
        *,
        output: Path | None = None,
        sorting: Sorting = "link",
        patience: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A file keeps its record however the folder is named the next time.
        self._folder = folder.resolve()
        if not self._folder.is_dir():
            raise PhotoError(f"{folder} is no folder: give the folder in which photos arrive")
        self._output = None if output is None else output.resolve()
        if self._output == self._folder:
            raise SettingsError(
                f"{output} is the folder that is watched: give another one for the sorted photos"
            )
        self._records, self._sorting, self._patience = records, sorting, patience
        self._clock = clock
        self._first_seen: dict[FileKey, float] = {}
        self._done: set[FileKey] = set()
        self.listing = Listing(str(self._folder), ())

    @property
    def waiting(self) -> int:
        """Files seen at the last look that are neither inspected nor given up yet."""
        return len(self._first_seen)

    @abstractmethod
    def _inspect(self, content: bytes, name: str, key: FileKey) -> Inspected:
        """Inspect a file and commit its record.

        Raises:
            PhotoError: it does not decode, and may be half-written.
            NotYetError: it has to wait.
            KeptError: it has no verdict, and that has been kept.
        """

    @abstractmethod
    def _failed(self, name: str, error: str) -> None:
        """Keep that a file was given up, unless that was kept before."""

    def look(self) -> Iterator[Watched]:
        """Look through the folder once; what became of each file that is done with, as it is."""
        keys = list(self._files())
        self._done &= set(keys)
        seen_before, self._first_seen = self._first_seen, {}
        for key in keys:
            if key in self._done:
                continue
            outcome = self._take(key, seen_before.get(key))
            if outcome is None:
                self._first_seen[key] = seen_before.get(key, self._clock())
            else:
                self._done.add(key)
                if outcome.error or not outcome.inspected_before or outcome.sorted_to:
                    yield outcome

    def _files(self) -> Iterator[FileKey]:
        """All photos, by name, but those in the output folder; what is left out is kept."""
        apart = set()
        if self._output is not None and self._output.is_relative_to(self._folder):
            apart.add(self._output.relative_to(self._folder).as_posix())
        # A share that is away for a moment, or a folder that is just being removed, is no error.
        self.listing = scan(str(self._folder), Disk(self._folder), lenient=True, apart=apart)
        for path in self.listing.paths:
            with contextlib.suppress(OSError):  # it has gone again
                if key := _key(path):
                    yield key

    def _take(self, key: FileKey, first_seen: float | None) -> Watched | None:
        """What became of a file; None where it has to wait."""
        path = Path(key.path)
        known = self._records.find_file(key)
        if known is not None:
            target = self._sort(path, _name_of(known), known.photo)
            return Watched(path, known, sorted_to=target, inspected_before=True)
        if first_seen is None:
            return None
        try:
            content = _read(key)
            record, alarm, notes = self._inspect(content, self._relative(path), key)
        except NotYetError:
            return None
        except KeptError as error:
            return self._give_up(key, str(error))
        except PhotoError as error:
            if self._clock() - first_seen < self._patience:
                return None
            name = self._relative(path)[-_LONGEST_NAME:]
            self._failed(name.encode("utf-8", "backslashreplace").decode(), str(error))
            return self._give_up(key, str(error))
        target = self._sort(path, _name_of(record), record.photo)
        return Watched(path, record, sorted_to=target, alarm=alarm, notes=notes)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _give_up(self, key: FileKey, error: str) -> Watched:
        path, target = Path(key.path), None
        if self._output is not None:
            with contextlib.suppress(OSError):
                target = self._sort(path, "error", sha256_of(path))
        return Watched(path, None, error=error, sorted_to=target)

    def _sort(self, path: Path, verdict: str, sha256: str) -> Path | None:
        if self._output is None:
            return None
        target = self._output / verdict / path.relative_to(self._folder)
        with contextlib.suppress(OSError, OutputError):  # a full disk may still take a link
            (self._output / verdict).mkdir(parents=True, exist_ok=True)
            mark_sorted(self._output / verdict)
        return sort_file(path, target, sha256, move=self._sorting == "move")


class Watcher(FolderWatch):
    """A folder whose photos one model inspects, without a station.

    Args:
        folder: see `FolderWatch`, as are the others that are not named here.
        served: the model that inspects, and its version.
        records: where verdicts are kept.
        photos: where photos are kept.
        drift_file: where the drift monitor's state is kept.
        max_pixels: larger photos are errors.
        options: see `FolderWatch`.

    Attributes:
        drift: the monitor of the version.
    """

    def __init__(
        self,
        folder: Path,
        served: Served,
        records: Records,
        photos: PhotoStore,
        drift_file: Path,
        *,
        max_pixels: int = MAX_PIXELS,
        **options: Any,
    ) -> None:
        super().__init__(folder, records, **options)
        self._served, self._photos, self._max_pixels = served, photos, max_pixels
        self.drift = VersionDrift(drift_file, served, records)

    def look(self) -> Iterator[Watched]:
        """See `FolderWatch.look`."""
        yield from super().look()
        self.drift.save()

    def _inspect(self, content: bytes, name: str, key: FileKey) -> Inspected:
        photo = read_photo_bytes(content, name=name, max_pixels=self._max_pixels)
        result = self._served.inspector.inspect(photo)
        [record] = self._photos.keep(self._served.version, [(content, result)], files=[key])
        return record, self.drift.add(record), result.notes

    def _failed(self, name: str, error: str) -> None:
        product, log = self._served.version.product, self._records.log
        if not log.has_failure(product, name, error):  # a restarted watch finds it again
            log.add_failures([Failure(None, datetime.now(UTC), product, name, "photo", error)])


class KeptError(Exception):
    """A file has no verdict, and that has been kept."""


class NotYetError(Exception):
    """A file has to wait: it is still being written, or has gone, or cannot be taken now."""


def _key(path: Path) -> FileKey | None:
    """What a file is known by; None of a pipe and the like, which would be read for ever."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        return None
    return FileKey(str(path), state.st_size, state.st_mtime_ns)


def _read(key: FileKey) -> bytes:
    """The bytes of a file that is as it was at both looks, before and after reading."""
    path = Path(key.path)
    try:
        content = path.read_bytes()
        if _key(path) == key and len(content) == key.size:
            return content
    except FileNotFoundError as error:
        raise NotYetError from error
    except OSError as error:
        raise PhotoError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    raise NotYetError


def _name_of(record: Record) -> str:
    return "anomalous" if record.anomalous else "good"


# --- Files ---------------------------------------------------------------------------------------


def sort_file(path: Path, target: Path, sha256: str, *, move: bool) -> Path | None:
    """Move or link a file, in one step that overwrites nothing.

    Where the target's name is taken by another photo, a number is added to it; where it is taken
    by this very photo, a process that was killed had got so far. A link is a hard one where the
    file system allows, else a symbolic one.

    Args:
        path: the file.
        target: where it is to be.
        sha256: of its bytes.
        move: whether the file goes from where it is.

    Returns:
        Where it is now, or None where it had been linked before or has gone.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        final, made = _place(path, target, sha256, move=move)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.exists():
            return None  # another program that watches the folder has it
        raise cannot_write(target, error) from error
    if not move:
        return final if made else None
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} is in {final} as well now and cannot be removed from where it was "
            f"({error.strerror or error}): check the rights of its folder, or sort with --link"
        ) from error
    return final


def _place(path: Path, target: Path, sha256: str, *, move: bool) -> tuple[Path, bool]:
    """Give the photo its new name; the name, and whether it did not have it before."""
    number = 1
    while True:
        name = target if number == 1 else target.with_stem(f"{target.stem}-{number}")
        try:
            _link(path, name, move=move)
        except FileExistsError:
            if _is(name, path, sha256):
                return name, False
            number += 1
        else:
            return name, True


def _link(path: Path, target: Path, *, move: bool) -> None:
    """A new name for a file, or for a copy of it; FileExistsError where the name is taken."""
    try:
        os.link(path.resolve(), target)  # of a link, the photo that it stands for
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not move:
            target.symlink_to(path)
            return
        _copy(path, target)


def _copy(path: Path, target: Path) -> None:
    """A whole copy or none, on another device."""
    sweep_leftovers(target.parent)
    temporary = temporary_name(target)
    try:
        with path.open("rb") as source, temporary.open("xb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
        shutil.copystat(path, temporary)
        try:
            os.link(temporary, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # No links at all: nobody else writes here, so looking first is enough.
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
            temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def _is(name: Path, path: Path, sha256: str) -> bool:
    """Whether a name that is taken stands for this very photo."""
    try:
        there = name.stat()
    except OSError:  # a symbolic link to what has gone
        return False
    here = path.stat()
    if os.path.samestat(there, here):
        return True
    # A copy has the same time of change. Thousands may have one name, and are not all read for it.
    alike = there.st_size == here.st_size and abs(there.st_mtime - here.st_mtime) < _CLOCK_STEP
    return alike and name.is_file() and sha256_of(name) == sha256
