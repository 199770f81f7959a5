"""Patch features of all good photos while a model is fitted: in memory, or in a temporary file.

    photos, batch by batch ── add ──> [n, P, C] ──┬── photo(i), take(rows), blocks()
                                                  └── represent(f): p gives way to r = f(p)

Frozen features never change, so they are extracted once and read as often as it takes. Whatever
reads them goes photo by photo or block by block, so that no step needs them all at once.

Coordinates in a principal basis may be kept in half precision, which is half of a fit's memory:
they are rounded by 2^-12 at most, where neighbours differ by a tenth or more. r = f(p) is float32.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from reconpatch.files import cannot_write, read_into
from reconpatch.method.memory_bank import Floats
from reconpatch.method.representation import Representation

MOST_AT_HAND = 2**22
"""Patches that a bank is picked among at once: of more, in parts. A number, and never the memory of
the machine, so that equal settings give equal models everywhere: 2,600 photos at 320 pixels."""


BLOCK = 2**13
"""Patches that are represented at a time: their float32 copies are soon the peak of a fit."""


class PatchStore:
    """(n, P, C) patch features of n photos; a context manager, and they go with it.

    Whatever gives some of them gives float32.

    Attributes:
        places: P, patches of a photo.
        channels: C, or D once they are represented.
        at_hand: patches that a step may hold at a time, `MOST_AT_HAND` or what `memory` leaves.

    Args:
        photos: how many will be added at most.
        places: P.
        channels: C.
        memory: bytes that the features may take; beyond it they go to a file, which is read in
            parts. None for no limit.
        mapped: keep them in a file in any case, and let the system hold in memory what of it there
            is room for. All steps see the same arrays as if they were in memory.
        half: keep p in half precision.
        folder: where the file is; None takes the system's folder for temporary files. It has no
            name there and outlives no process.

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
        mapped: bool = False,
        half: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.places, self.channels = places, channels
        self._dtype = np.dtype(np.float16 if half else np.float32)
        self._count = 0
        self._folder = folder
        self._file: BinaryIO | None = None
        self._mapped = mapped
        self.at_hand = MOST_AT_HAND
        size = photos * places * self._patch_bytes
        if memory is not None:
            self.at_hand = max(places, min(MOST_AT_HAND, memory // (channels * 4)))  # float32
        if mapped and size:
            self._file = self._new_file()
            self._array = self._map(self._file, size).reshape(photos, places, channels)
        elif memory is None or size <= memory:
            self._array = np.empty((photos, places, channels), self._dtype)
        else:
            self._array = np.empty((0, places, channels), self._dtype)
            self._file = self._new_file()

    def __enter__(self) -> PatchStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._array = np.empty((0, self.places, self.channels), self._dtype)
        self._count = 0
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
        """(n P, C) features of all photos, not to be changed; only where they are `addressable`.

        As they are kept, so perhaps in half precision: to be converted a part at a time.
        """
        return self._array[: self._count].reshape(-1, self.channels)

    @property
    def in_memory(self) -> bool:
        """Whether all features are in memory."""
        return self._file is None

    @property
    def addressable(self) -> bool:
        """Whether all features are one array: in memory, or in a file that is mapped."""
        return self._file is None or self._mapped

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
        if self._file is None or self._mapped:
            return self._array[start:end].astype(np.float32, copy=False)
        data = np.empty((end - start, self.places, self.channels), self._dtype)
        read_into(self._file, start * self.places * self._patch_bytes, data)
        return data.astype(np.float32, copy=False)

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
        if self._file is None or self._mapped:
            chosen = self._array.reshape(-1, self.channels)[patches]
            return chosen.astype(np.float32, copy=False)
        found = np.empty((len(patches), self.channels), self._dtype)
        for i in np.argsort(patches, kind="stable"):  # forward through the file
            read_into(self._file, int(patches[i]) * self._patch_bytes, found[i])
        return found.astype(np.float32, copy=False)

    def mean(self) -> npt.NDArray[np.float64]:
        """(C,) mean over all patches."""
        total = np.zeros(self.channels)
        for _, block in self.blocks(BLOCK):
            total += block.sum(axis=(0, 1), dtype=np.float64)
        mean: npt.NDArray[np.float64] = total / self.patches
        return mean

    def represent(self, f: Representation) -> None:
        """Replace every p by r = f(p); p is not needed any more.

        In memory r takes the place of p where it is no longer, and the rest is given back.
        """
        dim = self.channels if f.weight is None else len(f.weight)
        if self._file is None and dim * 4 <= self._patch_bytes:
            self._represent_in_place(f, dim)
            return
        if self._file is not None and dim == self.channels and self._dtype == np.float32:
            for start, block in self.blocks(BLOCK):
                self._write(self._file, start, f(block))
            return
        changed = self.represented(f)
        self.__exit__()
        self._file, self._array, self._dtype = changed._file, changed._array, changed._dtype
        self._count, self.channels = changed._count, dim

    def _represent_in_place(self, f: Representation, dim: int) -> None:
        self._overwrite(f, dim)
        # Gives back what lies behind r; where something still looks at p, numpy refuses to.
        with suppress(ValueError):
            self._array.resize(self._count * self.places * dim * 4 // self._dtype.itemsize)
        self._array = self._as_singles(dim).reshape(self._count, self.places, dim)
        self._dtype, self.channels = np.dtype(np.float32), dim

    def _overwrite(self, f: Representation, dim: int) -> None:
        kept, at = self._as_singles(dim), 0
        for _, block in self.blocks(BLOCK):  # no r ends beyond the p that it is of
            r = f(block).ravel()
            kept[at : at + len(r)] = r
            at += len(r)

    def _as_singles(self, dim: int) -> Floats:
        """The first bytes of the array as float32, dim of them for each patch."""
        size = self._count * self.places * dim * 4
        singles: Floats = self._array.reshape(-1).view(np.uint8)[:size].view(np.float32)
        return singles

    def represented(self, f: Representation) -> PatchStore:
        """A store of r = f(p) of every patch, in memory where this one is; p stays."""
        changed = PatchStore(
            self._count,
            self.places,
            self.channels if f.weight is None else len(f.weight),
            memory=None if self.addressable else 0,
            mapped=self._mapped,
            folder=self._folder,
        )
        changed.at_hand = self.at_hand
        for _, block in self.blocks(BLOCK):
            changed.add(f(block))
        return changed

    @property
    def _patch_bytes(self) -> int:
        return self.channels * self._dtype.itemsize

    def _new_file(self) -> BinaryIO:
        try:
            # Unbuffered: a raw file reads straight into an array.
            return tempfile.TemporaryFile(dir=self._folder, buffering=0)
        except OSError as error:
            raise cannot_write(self._folder or Path(tempfile.gettempdir()), error) from error

    def _map(self, file: BinaryIO, size: int) -> Floats:
        """The file as a flat array that is read alone: what is written goes through the file.

        A full disk is an error of the writing, and would end the process in an array.
        """
        try:
            file.truncate(size)
            mapping = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise cannot_write(self._folder or Path(tempfile.gettempdir()), error) from error
        return np.frombuffer(mapping, self._dtype)

    def _write(self, file: BinaryIO, start: int, features: Floats) -> None:
        data = np.ascontiguousarray(features, self._dtype).data.cast("B")
        file.seek(start * self.places * self._patch_bytes)
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            raise cannot_write(self._folder or Path(tempfile.gettempdir()), error) from error
