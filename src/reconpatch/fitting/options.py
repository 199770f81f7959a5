"""Options of a fit that do not decide its result, and progress reporting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from reconpatch.engine.engines import check_threads
from reconpatch.features.extractor import Extractor
from reconpatch.photos.defect_folder import DefectSource
from reconpatch.photos.images import MAX_PIXELS

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with the name of the step at work, what is done of it, and what there is to do."""


@dataclass
class FitOptions:
    """Options of a fit, besides the settings that decide its result.

    Attributes:
        weights: a file with the backbone's weights; None looks in weight packages, then in
            timm's cache, then downloads; "random" takes random ones (for tests).
        group: regular expression whose brackets name the part in a file name; see
            `reconpatch.model.good_photos.assign_groups`.
        thumbnails: whether small pictures of the good photos go into the model.
        skip_unreadable: leave out photos that cannot be read, instead of refusing to fit.
        max_pixels: larger photos are refused.
        white_level: the 16-bit value that becomes white; 0 takes the smallest 2^b - 1 that covers
            the good photos.
        device: "cpu" or "cuda".
        threads: of the inference engine; 0 takes OMP_NUM_THREADS or all cores.
        progress: see `Progress`.
        remember: makes an extractor, which runs the graph that is given too, one that remembers
            features, for a benchmark; None for as it is.
        timer: seconds by the clock that the steps are timed with.
        confirmed: confirmed defects that f learns from beside made ones: a folder, or several
            folders and photos; see `reconpatch.photos.defect_folder`. None for none.
        roi: the region of interest: a file as `reconpatch.photos.region_of_interest` reads it, or
            an (H, W) bool array, True where photos are inspected; None: everywhere.
        memory_limit: bytes that the process may take, which decides in what parts patches are
            taken; 0 for no limit. See `reconpatch.fitting.memory`.
        explain: a PNG to write: made defects beside their maps; see `reconpatch.fitting.explain`.
            None for none.
        on: where the photos are read; None for this process, else see
            `reconpatch.scale.workers.check_on`.
    """

    weights: str | Path | None = None
    group: str | None = None
    thumbnails: bool = True
    skip_unreadable: bool = False
    max_pixels: int = MAX_PIXELS
    white_level: int = 0
    device: str = "cpu"
    threads: int = 0
    progress: Progress | None = None
    remember: Callable[[Extractor, bytes], Extractor] | None = None
    timer: Callable[[], float] = time.perf_counter
    memory_limit: int = 0
    explain: str | Path | None = None
    on: str | None = None
    confirmed: DefectSource | None = None
    roi: str | Path | npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        check_threads(self.threads)


def default_threads() -> int:
    """Threads of the inference engine: OMP_NUM_THREADS, or the number of cores."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    cores = os.cpu_count() or 1
    return min(int(stated), 4 * cores) if stated.isdecimal() and int(stated) > 0 else cores


def counted(items: Iterable[T], step: str, progress: Progress) -> Iterator[T]:
    """Yield the items and report progress after each, for streams of unknown length."""
    total = len(items) if isinstance(items, Sized) else 0
    for done, item in enumerate(items, start=1):
        yield item
        if total:
            progress(step, done, total)


def naming(what: str, progress: Progress | None) -> Progress | None:
    """Wrap progress so that its steps name what is at work: a member, say, or a trial."""
    if progress is None:
        return None
    return lambda step, done, total: progress(f"{what}: {step}", done, total)


def silent(done: int, total: int) -> None:
    """Report to nobody."""


def report_to(options: FitOptions, step: str) -> Callable[[int, int], None] | None:
    """Return what a step reports (done, total) to; None where nobody listens."""
    progress = options.progress
    if progress is None:
        return None
    return lambda done, total: progress(step, done, total)
