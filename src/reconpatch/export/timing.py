"""How long an inspection takes, by step, engine and batch: what `reconpatch bench` prints.

    file ── decode ── prepare ── graph ── verdict (map in the photo's pixels, regions, closest)

Every photo goes through all steps, one after the other, several times; medians and 99th percentiles
are over all of them. The first round, in which engines set themselves up, is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError
from reconpatch.memory import peak_bytes
from reconpatch.model.model import Inspector
from reconpatch.photos.images import MAX_PIXELS, Photo, read_photo, read_photo_bytes
from reconpatch.photos.read_ahead import read_ahead

STEPS = ("decode", "prepare", "graph", "verdict")
BATCHES = (1, 4, 16)

Read = Callable[[], Photo]


@dataclass(frozen=True)
class Timing:
    """Milliseconds a photo.

    Attributes:
        median: over all photos and rounds.
        p99: 99th percentile.
    """

    median: float
    p99: float

    @classmethod
    def of(cls, seconds: npt.NDArray[np.float64]) -> Timing:
        """From seconds a photo."""
        return cls(float(np.median(seconds)) * 1e3, float(np.quantile(seconds, 0.99)) * 1e3)


@dataclass(frozen=True)
class EngineTimes:
    """What one engine takes.

    Attributes:
        engine: its name.
        photos: how many photos.
        rounds: how often each.
        steps: of each of `STEPS`, as parts of one call; those of all members of an ensemble
            together.
        from_file: a whole `inspect` of a file.
        from_memory: a whole `inspect` of decoded pixels.
        photos_a_second: by the number of photos in a batch, decoding by threads beside the engine.
        peak_memory: highest resident size of the process so far, in bytes; 0 where not told.
    """

    engine: str
    photos: int
    rounds: int
    steps: Mapping[str, Timing]
    from_file: Timing
    from_memory: Timing
    photos_a_second: Mapping[int, float]
    peak_memory: int

    def to_dict(self) -> dict[str, Any]:
        """The times as JSON-ready values."""
        return asdict(self)


def time_engines(
    model: Inspector,
    paths: Sequence[Path],
    engines: Sequence[str],
    *,
    rounds: int = 5,
    threads: int = 2,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[EngineTimes]:
    """Time inspections on each engine.

    Args:
        model: a model or an ensemble.
        paths: photos; none takes the good photos of the sample that the model file carries, which
            have the size of the model's input.
        engines: names of engines.
        rounds: how often each photo is inspected, 1 or more.
        threads: that decode beside the engine when photos come in batches.
        max_pixels: larger photos are refused.
        progress: called with (engine, rounds done, rounds).
    """
    if rounds < 1:
        raise SettingsError(f"there are {rounds} rounds: give 1 or more")
    reads: list[Read] = [partial(read_photo, path, max_pixels=max_pixels) for path in paths]
    if not reads:
        sample = model.members[0].sample
        if sample is None:
            raise SettingsError("the model file carries no photos to time: give some")
        own = partial(read_photo_bytes, name="<sample>", max_pixels=max_pixels)
        reads = [partial(own, picture) for picture in sample.pictures[: sample.good]]
    return [
        _time_engine(model.on_engine(name), reads, rounds, threads, progress) for name in engines
    ]


def _time_engine(
    model: Inspector,
    reads: Sequence[Read],
    rounds: int,
    threads: int,
    progress: Callable[[str, int, int], None] | None,
) -> EngineTimes:
    seconds: list[list[float]] = []
    whole: list[tuple[float, float]] = []
    name = model.members[0].engine.name
    for number in range(rounds + 1):
        for read in reads:
            steps, both = _time_photo(model, read)
            if number:
                seconds.append(steps)
                whole.append(both)
        if progress is not None:
            progress(name, number, rounds)
    table, both_ways = np.array(seconds), np.array(whole)
    return EngineTimes(
        engine=name,
        photos=len(reads),
        rounds=rounds,
        steps={step: Timing.of(table[:, i]) for i, step in enumerate(STEPS)},
        from_file=Timing.of(both_ways[:, 0]),
        from_memory=Timing.of(both_ways[:, 1]),
        photos_a_second={
            size: _photos_a_second(model, [*reads] * rounds, size, threads) for size in BATCHES
        },
        peak_memory=peak_bytes(),
    )


def _time_photo(model: Inspector, read: Read) -> tuple[list[float], tuple[float, float]]:
    """Seconds of each step of one inspection, and of whole ones from file and from memory."""
    clock = time.perf_counter
    start = clock()
    photo = read()
    decoded = clock()
    prepared = [list(m.preprocessing.views(photo, m.layout)) for m in model.members]
    ready = clock()
    for member, views in zip(model.members, prepared, strict=True):
        for x in views:
            member.engine(x[None], member.bank)
    ran = clock()
    model.inspect(read())
    from_file = clock() - ran
    start_again = clock()
    model.inspect(photo)
    from_memory = clock() - start_again
    verdict = max(from_memory - (ready - decoded) - (ran - ready), 0.0)
    return [decoded - start, ready - decoded, ran - ready, verdict], (from_file, from_memory)


def _photos_a_second(model: Inspector, reads: Sequence[Read], size: int, threads: int) -> float:
    start = time.perf_counter()
    batch: list[Photo] = []
    for photo in read_ahead(lambda read: read(), reads, threads):
        batch.append(photo)
        if len(batch) == size:
            model.inspect_batch(batch)
            batch.clear()
    model.inspect_batch(batch)
    return len(reads) / (time.perf_counter() - start)
