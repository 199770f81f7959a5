"""Many more numbers than fit in memory, read back in order: runs are sorted, spilled and merged."""

from __future__ import annotations

import contextlib
import errno
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from reconpatch.errors import OutputError

BLOCK = 1 << 20
"""How many values are merged and worked through at a time."""

_RUN = 1 << 22
"""How many values are sorted at a time."""

Unsigned = TypeVar("Unsigned", np.uint32, np.uint64)


class SortedRuns(Generic[Unsigned]):
    """Unsigned integers in sorted runs, in memory or in a temporary file, read back in order.

    Args:
        dtype: their type.
    """

    def __init__(self, dtype: type[Unsigned]) -> None:
        self._dtype: np.dtype[Unsigned] = np.dtype(dtype)
        self._parts: list[npt.NDArray[Unsigned]] = []
        self._unsorted = 0
        self._runs: list[npt.NDArray[Unsigned]] = []
        self._file: _TemporaryFile | None = None
        self.size = 0
        self.nbytes = 0
        """Bytes held in memory."""

    def add(self, values: npt.NDArray[Unsigned]) -> None:
        """Take (n,) values; they must not be changed afterwards."""
        if not values.size:
            return
        self._parts.append(values)
        self._unsorted += values.size
        self.size += values.size
        self.nbytes += values.nbytes
        if self._unsorted >= _RUN:
            self._sort()

    def blocks(self) -> Iterator[npt.NDArray[Unsigned]]:
        """All values in rising order, in blocks that are not empty and not to be written to."""
        self._sort()
        stored = self._file.runs if self._file else []
        length = max(BLOCK // max(len(stored) + len(self._runs), 1), 1)
        held = [chunks(run, length) for run in self._runs]
        return _merged(held + [self._read(*run, length) for run in stored])

    def spill(self) -> None:
        """Move what is held in memory to the file, as one run."""
        if not self._runs and not self._parts:
            return
        self._sort()
        length = max(BLOCK // len(self._runs), 1)
        blocks = _merged([chunks(run, length) for run in self._runs])
        self._file = self._file or _TemporaryFile()
        self._file.append(blocks)
        self._runs.clear()
        self.nbytes = 0

    def clear(self) -> None:
        """Forget all values and remove the file."""
        self._parts.clear()
        self._runs.clear()
        self.size = self.nbytes = self._unsorted = 0
        if self._file:
            self._file.close()
            self._file = None

    def _sort(self) -> None:
        if self._parts:
            run = np.concatenate(self._parts)
            self._parts.clear()
            self._unsorted = 0
            run.sort()
            self._runs.append(run)

    def _read(self, start: int, end: int, length: int) -> Iterator[npt.NDArray[Unsigned]]:
        """The run in the bytes start to end of the file, in chunks of so many values."""
        assert self._file is not None
        step = length * self._dtype.itemsize
        for at in range(start, end, step):
            yield np.frombuffer(self._file.read(at, min(step, end - at)), self._dtype)


def chunks(
    run: npt.NDArray[Unsigned], length: int | None = None
) -> Iterator[npt.NDArray[Unsigned]]:
    """The run in chunks of so many values, by default `BLOCK`."""
    length = length or BLOCK
    return (run[at : at + length] for at in range(0, run.size, length))


def _merged(runs: Sequence[Iterator[npt.NDArray[Unsigned]]]) -> Iterator[npt.NDArray[Unsigned]]:
    """One sorted stream of blocks from many, one chunk of each being held at a time."""
    heads = [(chunk, run) for run in runs for chunk in [next(run, None)] if chunk is not None]
    while len(heads) > 1:
        # No run can still bring a value below the end of its chunk.
        bound = min(chunk[-1] for chunk, _ in heads)
        cuts = [int(np.searchsorted(chunk, bound, side="right")) for chunk, _ in heads]
        block = np.concatenate([chunk[:cut] for (chunk, _), cut in zip(heads, cuts, strict=True)])
        block.sort()
        yield block
        rest = [(chunk[cut:], run) for (chunk, run), cut in zip(heads, cuts, strict=True)]
        filled = [(chunk if chunk.size else next(run, None), run) for chunk, run in rest]
        heads = [(chunk, run) for chunk, run in filled if chunk is not None]
    for chunk, run in heads:
        yield chunk
        yield from run


class _TemporaryFile:
    """Runs of bytes in a file that goes when it is closed or forgotten, on all systems."""

    def __init__(self) -> None:
        try:
            # Buffered: a bare file may write a part only, without an error.
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _remove
        except OSError as error:
            raise _no_temporary_file(error) from error
        self._remove = weakref.finalize(self, _close, self._file)
        self.runs: list[tuple[int, int]] = []
        """First byte of each run, and the byte after its last."""

    def append(self, blocks: Iterable[npt.NDArray[np.unsignedinteger]]) -> None:
        """Write one more run.

        Raises:
            OutputError: the disk is full, or the file cannot be written for another reason.
        """
        start = end = self.runs[-1][1] if self.runs else 0
        try:
            self._file.seek(start)
            for block in blocks:
                end += self._file.write(block.tobytes())
            self._file.flush()
        except OSError as error:
            raise _no_temporary_file(error) from error
        self.runs.append((start, end))

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from the start given.

        Raises:
            OutputError: the file ends before.
        """
        self._file.seek(start)
        content = self._file.read(length)  # buffered: all of them, unless the file ends
        if len(content) < length:
            raise _no_temporary_file(OSError(errno.EIO, "it ends early"))
        return content

    def close(self) -> None:
        """Remove the file."""
        self._remove()


def _close(file: IO[bytes]) -> None:
    # After a full disk, closing tries once more to write the rest, and nobody needs it.
    with contextlib.suppress(OSError):
        file.close()


def _no_temporary_file(error: OSError) -> OutputError:
    """One sentence for the ways in which a temporary file fails."""
    reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return OutputError(
        f"A temporary file for the pixels of the anomaly maps could not be written ({reason}). "
        "Free some room, name another folder in the environment variable TMPDIR, or raise "
        "memory_limit."
    )
