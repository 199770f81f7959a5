"""Files that are either whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

from reconpatch.errors import OutputError

Row = TypeVar("Row")

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.part")
# A file is locked as soon as it is made; no program takes so long in between.
_UNLOCKED_SECONDS = 60.0


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the name `path` only once all of it has reached the disk.

    Whatever stops the writing (a full disk, an error, Ctrl-C), the temporary file is removed and a
    file that had the name before is as it was.

    Raises:
        OutputError: the file cannot be written, with the reason and the way out.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as handle:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                lock(handle)
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # What stopped the writing (a read-only disk) may stop this too, and is the one to report.
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_name(path: Path) -> Path:
    """A name beside a file, of its own, under which it is written until it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def sweep_leftovers(folder: Path, of: re.Pattern[str] | None = None) -> int:
    """Remove the temporary files that processes left which were killed while writing; how many.

    A file that another program is writing is locked and stays, and so does any where locks are
    not to be had.

    Args:
        folder: not those in it.
        of: only those of files whose whole name this matches.
    """
    swept = 0
    newest = time.time() - _UNLOCKED_SECONDS
    with contextlib.suppress(OSError):  # a folder that cannot be read keeps what it has
        for name in os.listdir(folder):  # noqa: PTH208 - names alone, of folders with many files
            if _TEMPORARY.fullmatch(name) and (of is None or of.fullmatch(name[1:-14])):
                swept += _removed(folder / name, newest)
    return swept


def _removed(temporary: Path, newest: float) -> bool:
    """Remove one temporary file unless it is in use."""
    try:
        if temporary.stat().st_mtime > newest:
            return False
        with temporary.open("rb+") as handle:
            lock(handle)
            if os.name == "posix":  # elsewhere a file that is open cannot be removed
                temporary.unlink()
                return True
        temporary.unlink()
    except OSError:
        return False
    return True


if sys.platform == "win32":

    def lock(file: IO[bytes]) -> None:
        """Lock a file until it is closed; OSError where another program has it."""
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:

    def lock(file: IO[bytes]) -> None:
        """Lock a file until it is closed; OSError where another program has it."""
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    """Make a new name last through a loss of power, where a system lets folders be synced."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems refuse
                os.fsync(handle)
        finally:
            os.close(handle)


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Find out before hours of work whether a result can be written at all.

    What killed processes left in its folder is removed.

    Raises:
        OutputError: the file exists (unless it may be overwritten), is a folder, or nothing can be
            written in its folder, which is made where it is missing.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: give the name of a file, such as {path}/part.rcp")
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} exists already and is left as it is: give another name, or --overwrite"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error
    sweep_leftovers(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_rows(path: Path, head: Mapping[str, Any], name: str, rows: Iterable[Any]) -> None:
    """Write JSON with a row a line, so that two files can be compared; whole or not at all.

    Args:
        path: the file.
        head: what stands before the rows; "format" is its version.
        name: the key of the rows.
        rows: JSON-ready.

    Raises:
        OutputError: the file cannot be written.
    """
    lines = ",\n".join(json.dumps(row) for row in rows)
    with atomic_write(path) as file:
        file.write(f'{json.dumps(head)[:-1]}, "{name}": [\n{lines}\n]}}\n'.encode())


def read_rows(path: Path, name: str, version: int, make: Callable[[Any], Row]) -> list[Row]:
    """What `make` makes of each row that `write_rows` wrote; none of another version or no file.

    Raises:
        OutputError: the file is of something else.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text("utf-8"))
        return [make(row) for row in (content[name] if content["format"] == version else [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path} is not a file that this command wrote ({type(error).__name__}): give another "
            "folder, or remove the file"
        ) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """One sentence for the ways in which writing fails."""
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"{path} could not be written: the disk is full; nothing was changed. Free some room, "
            "or write to another disk"
        )
    reason = error.strerror or str(error)
    return OutputError(
        f"{path} could not be written ({reason}); nothing was changed. Check the folder and its "
        "rights, or write somewhere else"
    )
