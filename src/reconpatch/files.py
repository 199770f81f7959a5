"""Files that are either whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar

from reconpatch.errors import OutputError

if TYPE_CHECKING:
    import numpy.typing as npt

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
        OutputError: the file cannot be written, with the reason and the way out; or what has its
            name is no file: see `check_replaceable`.
    """
    check_replaceable(path)
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as handle:
            with contextlib.suppress(OSError):  # some network file systems have no locks
                lock(handle)
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        check_replaceable(path)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # What stopped the writing (a read-only disk) may stop this too, and is the one to report.
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of what is not one.

    A device or a pipe would be gone for every program that uses it, and a link would lead to the
    new file while the one that it led to stays as it is.

    Raises:
        OutputError: the name is that of a device, pipe, socket or link.
    """
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):  # whatever is wrong with the name, writing tells
        return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # writing fails on a folder, and says so
        return
    what = next((word for test, word in _SPECIAL if test(mode)), "no regular file")
    raise OutputError(
        f"{path} is {what} and is left as it is, with --overwrite too: give the name of a file"
    )


_SPECIAL = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read it.

    Raises:
        OSError: it is missing or may not be read, or it is a folder, a device or a pipe, which has
            no end to wait for.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    number = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(number, "rb")


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
        found = temporary.lstat()
        if found.st_mtime > newest or not stat.S_ISREG(found.st_mode):
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
        OutputError: the file exists (unless it may be overwritten), is a folder, device, pipe or
            link, or nothing can be written in its folder, which is made where it is missing.
    """
    check_replaceable(path)
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


NAMES = "letters and digits of any script, blanks and . _ + - ( )"
_LONGEST_NAME = 64


def plain_name(name: str) -> str | None:
    """A name that a file may have on any system, in the one form of its letters; or None.

    It is 1 to 64 characters of `NAMES`, begins with a letter or digit, and ends with neither a dot
    nor a blank. Systems differ in how they keep a letter with its accent: here it is one character.
    """
    name = unicodedata.normalize("NFC", name)
    # Letters, digits, and the marks that scripts such as Devanagari or Thai write words with.
    allowed = all(
        unicodedata.category(c)[0] in "LM" or c.isdecimal() or c in " ._+-()" for c in name
    )
    fits = allowed and name[:1].isalnum() and name[-1] not in ". " and len(name) <= _LONGEST_NAME
    # Of 255 bytes that file systems take, some are for endings and for names while writing.
    return name if fits and len(name.encode()) <= 200 else None


def read_into(file: IO[bytes], start: int, array: npt.NDArray[Any]) -> None:
    """Fill an array with the bytes of an unbuffered file from `start` on.

    A system hands over about 2 GiB at most at a time, and may hand over less.

    Raises:
        OutputError: the file ends before the array is full.
    """
    if not array.size:
        return
    left = array.data.cast("B")
    file.seek(start)
    while left:
        count = file.readinto(left)  # type: ignore[attr-defined]  # of a raw file
        if not count:
            raise OutputError(
                f"a temporary file ends {len(left):,} bytes early: another program cut it off, or "
                "its disk fails; start again, with another folder in the environment variable "
                "TMPDIR"
            )
        left = left[count:]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 by name of every file in a folder and below; "" of what is none, such as a link.

    Names are relative to the folder, with forward slashes.
    """
    below = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return {
        path.relative_to(folder).as_posix(): sha256_of(path) if _is_regular(path) else ""
        for path in sorted(below)
    }


def read_sums(path: Path) -> dict[str, str]:
    """What a list as `sha256sum` makes it says: SHA-256 by name; nothing where there is no list."""
    try:
        lines = path.read_text("utf-8").split("\n") if _is_regular(path) else []
    except (OSError, ValueError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def write_sums(path: Path, sums: Mapping[str, str]) -> None:
    """Write such a list; OutputError where it cannot be written."""
    with atomic_write(path) as file:
        file.writelines(f"{digest}  {name}\n".encode() for name, digest in sums.items())


def add_sum(path: Path, name: str, sha256: str) -> None:
    """Add a line to such a list; OutputError where it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{sha256}  {name}\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_if_still(folder: Path, name: str, sha256: str) -> None:
    """Remove a file that has the contents that it was written with, by its name on a list.

    A name that leads out of the folder, over ``..`` or a link, is of no list that was written here.
    """
    path = folder / name
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    if not inside or path.parent.resolve() != folder.resolve() / Path(name).parent:
        return
    if is_still(path, sha256):
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()  # unless it holds more


def is_still(path: Path, sha256: str) -> bool:
    """Whether a regular file has the contents that it was written with."""
    return _is_regular(path) and sha256_of(path) == sha256


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


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
