"""Patch features of all good photos while a model is fitted: in memory, or on disk beyond a limit.

    photos, batch by batch ── add ──> [n, P, C] ──┬── photo(i), take(rows), blocks()
                                                  └── represent(f): p gives way to r = f(p)

Frozen features never change, so they are extracted once and read as often as it takes. Whatever
reads them goes photo by photo or block by block, so that no step needs them all at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from reconpatch.files import cannot_write
from reconpatch.memory_bank import Floats
from reconpatch.representation import Representation

_ITEM = 4  # bytes of a float32


class PatchStore:
    """(n, P, C) float32 patch features of n photos; a context manager, and its file goes with it.

    Attributes:
        places: P, patches of a photo.
        channels: C, or D once they are represented.
        at_hand: patches that may be in memory at a time.

    Args:
        photos: how many will be added at most.
        places: P.
        channels: C.
        memory: bytes that the features may take; None for no limit.
        folder: where the file is that takes what is beyond the limit; None takes the system's
            folder for temporary files. It has no name there and outlives no process.

    Raises:
        OutputError: the file cannot be made or written.
    """

    def __init__(
        self,
        photos: int,
        places: int,
        channels: int,
        *,
        memory: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.places, self.channels = places, channels
        self._count = 0
        self._folder = folder
        self._file: BinaryIO | None = None
        self._array = np.empty((0, places, channels), np.float32)
        total = photos * places
        self.at_hand = total
        if memory is None or total * channels * _ITEM <= memory:
            self._array = np.empty((photos, places, channels), np.float32)
        else:
            self.at_hand = max(places, memory // (channels * _ITEM))
            self._file = self._new_file()

    def __enter__(self) -> PatchStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return self._count

    @property
    def patches(self) -> int:
        """n P, patches of all photos."""
        return self._count * self.places

    @property
    def flat(self) -> Floats:
        """(n P, C) features of all photos; only where they are in memory."""
        return self._array[: self._count].reshape(-1, self.channels)

    @property
    def in_memory(self) -> bool:
        """Whether all features are in memory."""
        return self._file is None

    def add(self, features: Floats) -> None:
        """Add the (B, P, C) features of B photos."""
        end = self._count + len(features)
        if self._file is None:
            self._array[self._count : end] = features
        else:
            self._write(self._file, self._count, features)
        self._count = end

    def photo(self, i: int) -> Floats:
        """(P, C) features of the i-th photo; not to be changed."""
        features: Floats = self.some(i, i + 1)[0]
        return features

    def some(self, start: int, end: int) -> Floats:
        """(end - start, P, C) features of photos in a row; not to be changed."""
        if self._file is None:
            part: Floats = self._array[start:end]
            return part
        size = self.places * self.channels * _ITEM
        self._file.seek(start * size)
        data = np.empty((end - start, self.places, self.channels), np.float32)
        self._file.readinto(data.data)  # type: ignore[attr-defined]  # of a raw file
        return data

    @classmethod
    def of(cls, features: Floats) -> PatchStore:
        """A store in memory of (n, P, C) features."""
        store = cls(*features.shape)
        store.add(features)
        return store

    def blocks(self, patches: int | None = None) -> Iterator[tuple[int, Floats]]:
        """The number of the first photo and the (b, P, C) features, photos in a row at a time.

        Args:
            patches: how many there may be in a block; None takes `at_hand`.
        """
        step = max(1, (patches or self.at_hand) // self.places)
        for start in range(0, self._count, step):
            yield start, self.some(start, min(start + step, self._count))

    def take(self, patches: npt.NDArray[np.int64]) -> Floats:
        """(K, C) features of patches, counted through all photos, in the order given."""
        if self._file is None:
            return self._array.reshape(-1, self.channels)[patches]
        found = np.empty((len(patches), self.channels), np.float32)
        for i in np.argsort(patches, kind="stable"):  # forward through the file
            self._file.seek(int(patches[i]) * self.channels * _ITEM)
            self._file.readinto(found[i].data)  # type: ignore[attr-defined]  # of a raw file
        return found

    def mean(self) -> npt.NDArray[np.float64]:
        """(C,) mean over all patches."""
        total = np.zeros(self.channels)
        for _, block in self.blocks(2**16):
            total += block.sum(axis=(0, 1), dtype=np.float64)
        mean: npt.NDArray[np.float64] = total / self.patches
        return mean

    def represent(self, f: Representation) -> None:
        """Replace every p by r = f(p); p is not needed any more."""
        dim = self.channels if f.weight is None else len(f.weight)
        if dim == self.channels:  # in its own place
            for start, block in self.blocks(2**16):
                self._replace(start, f(block))
            return
        changed = PatchStore(
            self._count,
            self.places,
            dim,
            memory=None if self._file is None else 0,
            folder=self._folder,
        )
        for _, block in self.blocks(2**16):
            changed.add(f(block))
        self.__exit__()
        self._file, self._array, self.channels = changed._file, changed._array, dim

    def _replace(self, start: int, features: Floats) -> None:
        if self._file is None:
            self._array[start : start + len(features)] = features
        else:
            self._write(self._file, start, features)

    def _new_file(self) -> BinaryIO:
        try:
            # Unbuffered: a raw file reads straight into an array.
            return tempfile.TemporaryFile(dir=self._folder, buffering=0)
        except OSError as error:
            raise cannot_write(self._folder or Path(tempfile.gettempdir()), error) from error

    def _write(self, file: BinaryIO, start: int, features: Floats) -> None:
        data = np.ascontiguousarray(features).data.cast("B")
        file.seek(start * self.places * self.channels * _ITEM)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            raise cannot_write(self._folder or Path(tempfile.gettempdir()), error) from error
