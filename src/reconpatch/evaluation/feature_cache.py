"""Patch features that several fits of the same photos share: extracted once, then read back.

    photos (B, 3, H, W) + graph ──> SHA-256 ──> in the file? ── yes ──> the features from there
                                                            └── no ───> extract and keep them

The backbone is frozen, so features depend on neither method nor seed. What is looked up is the
very array that the engine gets, prepared and in its batch: what comes back is bit for bit what the
engine would give.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from reconpatch.features.extractor import Extractor
from reconpatch.files import cannot_write, read_into
from reconpatch.method.memory_bank import Floats

DISK_LIMIT = 16 * 2**30
"""Bytes of features that are kept at most, on a disk of which half is left free."""


class _Entry(NamedTuple):
    """Where features are in the file, their shape, and the seconds it took to extract them."""

    start: int
    shape: tuple[int, ...]
    seconds: float


class FeatureCache:
    """Features in a temporary file; a context manager, and the file goes with it.

    What does not fit is extracted each time.

    Args:
        folder: where the file is; it has no name there and outlives no process.
        limit: bytes that are kept at most; 0 for none.

    Raises:
        OutputError: there can be no file in the folder.
    """

    def __init__(self, folder: Path, limit: int = DISK_LIMIT) -> None:
        try:
            # Unbuffered: after a full disk, a buffer would try again with every step.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            self._room = min(limit, shutil.disk_usage(folder).free // 2)
        except OSError as error:
            raise cannot_write(folder, error) from error
        self._entries: dict[bytes, _Entry] = {}
        self._end = 0
        self._spared = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._room = 0
        self._entries.clear()
        self._file.close()

    def remember(self, extractor: Extractor, graph: bytes) -> Extractor:
        """The extractor, but for photos that it or another one of its graph and kind has seen."""
        kind = f"{type(extractor).__name__} ".encode()
        return _RememberingExtractor(extractor, hashlib.sha256(kind + graph).digest(), self)

    def timer(self) -> float:
        """Seconds that go by as if every photo were extracted: for a fair account of time."""
        return time.perf_counter() + self._spared

    def features(
        self, photos: Floats, graph_sha256: bytes, extract: Callable[[Floats], Floats]
    ) -> Floats:
        """What `extract`, which runs the graph, gives for the photos; from the file if it can."""
        asked = time.perf_counter()
        key = hashlib.sha256(graph_sha256 + repr(photos.shape).encode())
        key.update(np.ascontiguousarray(photos).data)
        entry = self._entries.get(key.digest())
        if entry is not None:
            p, seconds = self._read(entry), entry.seconds
        else:
            start = time.perf_counter()
            p = extract(photos)
            seconds = time.perf_counter() - start
            self._keep(key.digest(), p, seconds)
        self._spared += seconds - (time.perf_counter() - asked)
        return p

    def _read(self, entry: _Entry) -> Floats:
        p = np.empty(entry.shape, np.float32)
        read_into(self._file, entry.start, p)
        return p

    def _keep(self, key: bytes, p: Floats, seconds: float) -> None:
        if p.nbytes > self._room:
            return
        try:
            self._file.seek(self._end)
            written = self._file.write(np.ascontiguousarray(p).data)
        except OSError:
            written = 0
        if written < p.nbytes:  # the disk is full, and the results need what is left of it
            self._room = 0
            return
        self._entries[key] = _Entry(self._end, p.shape, seconds)
        self._end += p.nbytes
        self._room -= p.nbytes


class _RememberingExtractor:
    """An `Extractor` whose photos are looked up first."""

    def __init__(self, extractor: Extractor, key: bytes, cache: FeatureCache) -> None:
        self._extractor, self._key, self._cache = extractor, key, cache
        self.input_size, self.grid = extractor.input_size, extractor.grid
        self.channels = extractor.channels

    def __call__(self, photos: Floats, /) -> Floats:
        """See `Extractor`."""
        return self._cache.features(photos, self._key, self._extractor)
