"""A fit whose photos are read by many workers: the steps of `fitting.Steps`, on Ray.

    shares of the photos ── read ──────> records, a sample of all patches ─────────────> f
                         ── read, f ───> a coreset of each share ── merged ────────────> bank
                         ── read, f ───> the patch furthest from the bank ── largest ──> radius

A task of a worker is a share of the photos and depends on no other: one that died with its worker
is done again elsewhere. Features stay where they were made and are not kept, since those of a
million photos fill no machine: a share is read once for each line above.

The features of up to `CALIBRATED` photos come to this process, which scores those as if they were
new and finds the replacements of the bank among their patches; so does a fit in one process. Where
those are all photos, they tell the radius too, and the third line is not needed.

The coreset of a share has as many rows as the bank, or 8 times its share of the bank's rows where
that is less. No patch is further from the bank than its share's covering radius and that of the
merging together; what is reported is not that sum but the radius of the bank itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError, WorkersError
from reconpatch.features.extractor import Extractor, FeatureExtractor
from reconpatch.features.store import PatchStore
from reconpatch.fitting.model import Steps, in_this_process, pick
from reconpatch.fitting.options import FitOptions, report_to
from reconpatch.fitting.reading import Read, Reading, kept_views, readable, signed
from reconpatch.method.coreset import bank_rows
from reconpatch.method.memory_bank import Floats, Ints, MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.settings import FitSettings
from reconpatch.model.good_photos import (
    CALIBRATED,
    Covering,
    TrainingPhoto,
    calibrated_photos,
    cover,
)
from reconpatch.photos.images import PhotoSource, white_level_for
from reconpatch.scale.workers import as_finished, on_ray

Task = TypeVar("Task")
Value = TypeVar("Value")
Report = Callable[[int, int], None] | None

SHARE = 64
"""Photos of a share: their features are some 50 MB, and what a dead worker loses some seconds."""
SAMPLE = 2**18
"""Patches that f is trained on: all of a few hundred photos, and a random sample of more."""
SPARE = 8
"""How many times more rows than its part of the bank a share's coreset may have."""


def steps_of(options: FitOptions) -> AbstractContextManager[Steps]:
    """The steps of a fit in this process, or by workers where `options.on` names some."""
    return in_this_process(options) if options.on is None else by_workers(options)


@contextmanager
def by_workers(options: FitOptions) -> Iterator[Steps]:
    """The steps of a fit on the cluster that `options.on` names, connected inside the `with`.

    Raises:
        SettingsError: the device is not "cpu", or `on` is neither ray nor ray://ADDRESS.
        MissingExtraError: the extra "ray" is not installed.
        WorkersError: no cluster answers there.
    """
    if options.device != "cpu":
        raise SettingsError(
            f"the device is {options.device!r} and workers extract features on CPUs: leave out one "
            "of --device and --on"
        )
    assert options.on is not None
    with on_ray(options.on):
        yield StepsByWorkers(options)


class StepsByWorkers(Steps):
    """See `reconpatch.fitting.model.Steps`.

    Args:
        options: of the fit.
    """

    def __init__(self, options: FitOptions) -> None:
        self._options = options
        self._shares: list[Share] = []
        self._first_photo: list[int] = []  # number of each share's first photo that was read
        self._row: dict[int, int] = {}  # of the kept photos, in the store
        self._photos = 0
        self._sample: Floats | None = None
        self._sample_photo = np.empty(0, np.int64)

    def kept_photos(self, photos: int) -> int:
        """See `Steps`."""
        return min(photos, CALIBRATED)

    def extract(
        self,
        reading: Reading,
        graph: bytes,
        extractor: Extractor,
        patches: PatchStore,
        threads: int,
    ) -> Read:
        """See `Steps`."""
        del extractor, threads  # workers have their own
        graph = _put(graph)
        report = report_to(self._options, "extract features")
        self._shares = _shares(reading, graph)
        found = _run(read_share, self._shares, report)
        if any(part.read.preprocessing != reading.preprocessing for part in found):
            # Photos of 16 bits, and no share knows the largest value of them all.
            level = white_level_for(max(_run(largest_value, self._shares, None)))
            self._shares = _shares(_with_white_level(reading, level), graph)
            found = _run(read_share, self._shares, report)
        return self._merged(found, patches)

    def _merged(self, found: Sequence[ShareRead], patches: PatchStore) -> Read:
        """What the shares gave, as if one process had read them all."""
        whole = Read(self._shares[0].reading.preprocessing)
        sample_photo = []
        for share, part in zip(self._shares, found, strict=True):
            n = len(whole.photos)
            self._first_photo.append(n)
            whole.photos += [replace(photo, group=n + photo.group) for photo in part.read.photos]
            whole.sources += [share.first + i for i in part.read.sources]
            whole.thumbnails += part.read.thumbnails
            whole.notes += part.read.notes
            whole.looks += part.read.looks
            whole.signatures |= {n + i: s for i, s in part.read.signatures.items()}
            whole.prepared |= {n + i: view for i, view in part.read.prepared.items()}
            self._row |= {n + i: len(patches) + k for k, i in enumerate(part.kept.tolist())}
            if len(part.kept):
                patches.add(part.features)
            sample_photo.append(n + part.sample_photo)
        self._photos = len(whole.photos)
        self._sample = np.concatenate([part.sample for part in found])
        self._sample_photo = np.concatenate(sample_photo)
        return whole

    def approximations(self, patches: PatchStore, settings: FitSettings) -> list[str]:
        """See `Steps`."""
        assert self._sample is not None
        total = self._photos * patches.places
        learned = f"f was learned from {len(self._sample):,} of the {total:,} patches, and "
        some = len(self._sample) < total and settings.method != "patchcore"
        return [
            f"The photos were read by workers in {len(self._shares)} shares; "
            f"{learned if some else ''}the bank is a coreset of their coresets."
        ]

    def training_patches(
        self, patches: PatchStore, photos: Sequence[TrainingPhoto], settings: FitSettings
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """See `Steps`: a random sample of the patches of all photos."""
        del patches, settings
        assert self._sample is not None
        sample, self._sample = self._sample, None
        return sample, np.array([photo.group for photo in photos])[self._sample_photo]

    def photo(self, patches: PatchStore) -> Callable[[int], Floats]:
        """See `Steps`."""
        return lambda i: patches.photo(self._row[i])

    def at_hand(self, photos: Sequence[int]) -> list[int]:
        """See `Steps`."""
        return [i for i in photos if i in self._row]

    def bank(
        self, f: Representation, patches: PatchStore, settings: FitSettings, progress: Report
    ) -> MemoryBank:
        """See `Steps`: a coreset of the shares' coresets."""
        total = self._photos * patches.places
        rows = bank_rows(settings.bank, total, settings.bank_least)
        work = partial(coreset_of_share, f=f, rows=rows, total=total)
        picks, of_shares = zip(*_run(work, self._shares, progress), strict=True)
        r = np.concatenate(of_shares)
        pairs = zip(picks, self._first_photo, strict=True)
        number = np.concatenate([picked + first * patches.places for picked, first in pairs])
        if len(r) > rows:
            picked = pick(r, rows, settings, np.random.default_rng(settings.seed))
            r, number = r[picked], number[picked]
        return MemoryBank(r, number // patches.places, number % patches.places, r)

    def cover(
        self,
        f: Representation,
        bank: MemoryBank,
        patches: PatchStore,
        photos: Sequence[TrainingPhoto],
        progress: Report,
    ) -> Covering:
        """See `Steps`: of the photos kept here, and the radius of all."""
        own = progress if len(self._row) == len(photos) else None
        covering = cover(bank, self.photo(patches), photos, of=sorted(self._row), progress=own)
        if len(self._row) == len(photos):
            return covering
        work = partial(radius_of_share, f=f, bank=_put(bank))
        return replace(covering, radius=max(_run(work, self._shares, progress)))


# --- What workers do -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """Photos that one worker reads.

    Attributes:
        first: number of the first among all sources.
        reading: of these photos alone.
        graph: reference to the graph of the patch features.
        kept: of these photos, those whose features go to the driver.
        sampled: share of the patches that f is trained on, up to 1.
    """

    first: int
    reading: Reading
    graph: Any
    kept: frozenset[int]
    sampled: float

    def features(self) -> tuple[Read, PatchStore]:
        """Read the photos; their records and patch features."""
        extractor = _extractor(self.graph)
        layout = self.reading.layout
        patches = PatchStore(len(self.reading.sources), layout.places, extractor.channels)
        return self.reading.extract(extractor, patches, 1), patches


@dataclass(frozen=True)
class ShareRead:
    """What the reading of a share leaves.

    Attributes:
        read: records, thumbnails and notes, numbered from 0.
        kept: (k,) photos whose features go to the driver.
        features: (k, P, C) of these.
        sample: (s, C) random patches.
        sample_photo: (s,) int64, the photo of each.
    """

    read: Read
    kept: Ints
    features: Floats
    sample: Floats
    sample_photo: Ints


def read_share(share: Share) -> ShareRead:
    """Read a share for the first time."""
    read, patches = share.features()
    kept = np.array([n for n, i in enumerate(read.sources) if i in share.kept], np.int64)
    rng = np.random.default_rng([share.reading.settings.seed, share.first])
    count = round(share.sampled * patches.patches)
    chosen = np.sort(rng.permutation(patches.patches)[:count])
    whole = patches.some(0, len(patches))
    return ShareRead(read, kept, whole[kept], patches.take(chosen), chosen // patches.places)


def largest_value(share: Share) -> int:
    """The largest value of a share's photos of 16 bits; 0 where there are none."""
    reading = share.reading
    photos = readable(reading.sources, reading.names, reading.options)
    return max((int(p.pixels.max()) for p in photos if p.pixels.dtype == np.uint16), default=0)


def coreset_of_share(share: Share, f: Representation, rows: int, total: int) -> tuple[Ints, Floats]:
    """The coreset of a share's represented patches.

    Args:
        share: the photos.
        f: the representation.
        rows: of the bank.
        total: patches of all shares.

    Returns:
        (k,) patches, counted through the share's photos, and their (k, D) rows r = f(p).
    """
    _, patches = share.features()
    patches.represent(f)
    settings = share.reading.settings
    part = -(-SPARE * rows * patches.patches // total)
    rng = np.random.default_rng([settings.seed, share.first])
    if patches.patches > min(rows, part):
        picked = pick(patches.flat, min(rows, part), settings, rng)
    else:
        picked = np.arange(patches.patches, dtype=np.int64)
    return picked, patches.take(picked)


def radius_of_share(share: Share, f: Representation, bank: Any) -> float:
    """The distance of the share's patch that is furthest from the bank, given by reference."""
    rows: MemoryBank = _get(bank)
    _, patches = share.features()
    patches.represent(f)
    return max(
        (float(rows.nearest(patches.photo(i))[0].max()) for i in range(len(patches))), default=0.0
    )


@lru_cache(maxsize=1)
def _extractor(graph: Any) -> FeatureExtractor:
    """The extractor of a worker, opened once."""
    return FeatureExtractor(_get(graph), 1)


# --- From here to there --------------------------------------------------------------------------


def _shares(reading: Reading, graph: Any) -> list[Share]:
    count = len(reading.sources)
    kept = frozenset(calibrated_photos(count).tolist())
    views = kept_views(reading.settings, count)
    signatures = signed(count)
    sampled = min(1.0, SAMPLE / (count * reading.layout.places))
    options = replace(
        reading.options,
        progress=None,
        thumbnails=reading.options.thumbnails and count <= CALIBRATED,
    )
    shares = []
    for first in range(0, count, SHARE):
        these = slice(first, min(first + SHARE, count))
        inside = range(these.start, these.stop)
        own = replace(
            reading,
            sources=[_absolute(source) for source in reading.sources[these]],
            names=reading.names[these],
            options=options,
            views=frozenset(i - first for i in inside if i in views),
            signed=frozenset(i - first for i in inside if i in signatures),
        )
        of_share = frozenset(i - first for i in inside if i in kept)
        shares.append(Share(first, own, graph, of_share, sampled))
    return shares


def _absolute(source: PhotoSource) -> PhotoSource:
    return Path(source).absolute() if isinstance(source, str | os.PathLike) else source


def _with_white_level(reading: Reading, level: int) -> Reading:
    return replace(
        reading,
        preprocessing=replace(reading.preprocessing, white_level=level),
        options=replace(reading.options, white_level=level),
    )


def _run(work: Callable[[Task], Value], tasks: Sequence[Task], report: Report) -> list[Value]:
    """The values of all tasks, in their order.

    Raises:
        WorkersError: the workers of a task died, each of them.
    """
    found: dict[int, Value] = {}
    for i, value in as_finished(work, tasks):
        if isinstance(value, WorkersError):
            raise value
        found[i] = value
        if report is not None:
            report(len(found), len(tasks))
    return [found[i] for i in range(len(tasks))]


def _put(value: Any) -> Any:
    import ray

    return ray.put(value)


def _get(reference: Any) -> Any:
    import ray

    return ray.get(reference)
