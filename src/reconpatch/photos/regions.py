"""Connected areas of an anomaly map or of a ground-truth mask.

A mask is read as runs, the unbroken stretches of a row. Runs of neighbouring rows that touch are
joined, all of them at once, so that even noise is labelled without a loop over pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconpatch.result import Region

_STRIP = 2**22  # pixels of a mask whose runs are looked for at a time

FALLBACK_SHARE = 0.95
"""Where `find_regions` cuts a map that stays below its threshold: 0 is its minimum, 1 its peak."""


@dataclass(frozen=True)
class _Runs:
    """The runs of a mask in raster order: pixels start to end (exclusive) of a row."""

    row: npt.NDArray[np.intp]
    start: npt.NDArray[np.intp]
    end: npt.NDArray[np.intp]

    @property
    def length(self) -> npt.NDArray[np.intp]:
        """How many pixels each has."""
        return self.end - self.start


def label(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], int]:
    """Number the 8-connected components of a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        (H, W) int32, 0 for the background and 1 to n for the components, in raster order of their
        first pixels; and n.
    """
    runs = _runs_of(mask)
    component, n = _components(runs, mask.shape[1])
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(component + 1, runs.length)
    return labels, n


def find_regions(
    heatmap: npt.NDArray[np.float32], map_threshold: float, *, at_least_one: bool = False
) -> tuple[Region, ...]:
    """Find the 8-connected areas of an anomaly map that lie above its threshold.

    Args:
        heatmap: (H, W) float32; NaN where the photo was not inspected.
        map_threshold: a pixel belongs to a region if it is greater, compared in float64, so that
            `region.peak_value > map_threshold` holds for every region.
        at_least_one: where no pixel is greater, cut the map at 95 % of the way from its minimum to
            its peak instead and return the one area that holds the peak. A constant map singles
            out nothing, and its area is all that was inspected.

    Returns:
        The regions, highest peak first, equal peaks in raster order. The peak of a plateau is its
        first pixel in raster order. Empty, whatever `at_least_one` says, for a map of NaN only.
    """
    regions = _measure(heatmap, heatmap > _exactly(map_threshold))
    return regions or (_around_peak(heatmap) if at_least_one else ())


def _runs_of(mask: npt.NDArray[np.bool_]) -> _Runs:
    """The runs of an (H, W) mask, some rows at a time: a large one is not held several times."""
    rows = max(1, _STRIP // max(1, mask.shape[1]))
    strips = [_runs_of_strip(mask, y, y + rows) for y in range(0, max(1, len(mask)), rows)]
    return _Runs(*(np.concatenate(parts) for parts in zip(*strips, strict=True)))


def _runs_of_strip(
    mask: npt.NDArray[np.bool_], top: int, bottom: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row, start and end of the runs in rows top to bottom (exclusive)."""
    strip = mask[top:bottom]
    padded = np.zeros((strip.shape[0], strip.shape[1] + 2), np.bool_)
    padded[:, 1:-1] = strip
    changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])  # ten times as fast as nonzero
    row, column = np.divmod(changes, strip.shape[1] + 1)
    return row[::2] + top, column[::2], column[1::2]


def _components(runs: _Runs, width: int) -> tuple[npt.NDArray[np.intp], int]:
    """The component of each run, 0 to n - 1 in raster order of their first runs; and n."""
    first_run = _smallest_connected(runs.row.size, *_touching(runs, width))
    distinct, component = np.unique(first_run, return_inverse=True)
    return component, distinct.size


def _touching(runs: _Runs, width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """All pairs of runs of neighbouring rows that touch, by a side or a corner, as two arrays."""
    # A run touches an unbroken range of the runs above it: from the first that does not end left of
    # it to the last that does not start right of it.
    stride = width + 2
    above = (runs.row - 1) * stride
    begin = np.searchsorted(runs.row * stride + runs.end, above + runs.start, side="left")
    stop = np.searchsorted(runs.row * stride + runs.start, above + runs.end, side="right")
    count = stop - begin
    lower = np.repeat(np.arange(count.size), count)
    upper = np.arange(lower.size) + np.repeat(begin - (np.cumsum(count) - count), count)
    return upper, lower


def _smallest_connected(
    size: int, one: npt.NDArray[np.intp], other: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """For each node 0 to size - 1 the smallest node that the edges (one, other) connect it with."""
    parent = np.arange(size)
    while one.size:
        one, other = parent[one], parent[other]
        low, high = np.minimum(one, other), np.maximum(one, other)
        apart = low < high
        one, other = low[apart], high[apart]
        # Every root hangs below its smallest neighbour; a parent is always smaller: no cycles.
        np.minimum.at(parent, other, one)
        parent = _flattened(parent)
    return parent


def _flattened(parent: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """A forest in which each node's parent is the root of its tree."""
    while True:
        grandparent = parent[parent]
        if np.array_equal(grandparent, parent):
            return parent
        parent = grandparent


def _exactly(level: float) -> npt.NDArray[np.float64]:
    """A level to compare float32 values with, in float64."""
    # A bare float would be rounded to float32 first, and might then lie on the other side of a
    # pixel.
    return np.array([level], np.float64)


def _around_peak(heatmap: npt.NDArray[np.float32]) -> tuple[Region, ...]:
    """The area around the peak of a map, cut at FALLBACK_SHARE; empty for a map of NaN only."""
    low, high = (float(find.reduce(heatmap, axis=None)) for find in (np.fmin, np.fmax))
    if math.isnan(low):
        return ()
    level = low + FALLBACK_SHARE * (high - low)
    return _measure(heatmap, heatmap >= _exactly(level))[:1]


def _measure(heatmap: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> tuple[Region, ...]:
    """The regions of a mask, measured on the map, highest peak first."""
    runs = _runs_of(mask)
    owner, n = _components(runs, mask.shape[1])
    if not n:
        return ()
    area = np.zeros(n, np.intp)
    np.add.at(area, owner, runs.length)
    left, top = _smallest_of_each(owner, runs.start, n), _smallest_of_each(owner, runs.row, n)
    right, bottom = -_smallest_of_each(owner, -runs.end, n), -_smallest_of_each(owner, -runs.row, n)
    peak_of_run = _peaks(heatmap, mask, runs)
    best = _first_peak_of_each(owner, peak_of_run, n)
    row, value = runs.row[best], peak_of_run[best]
    column = [
        start + int(heatmap[y, start:end].argmax())
        for y, start, end in zip(row, runs.start[best], runs.end[best], strict=True)
    ]
    return tuple(
        Region(
            box=(int(left[i]), int(top[i]), int(right[i]), int(bottom[i]) + 1),
            area=int(area[i]),
            peak=(int(column[i]), int(row[i])),
            peak_value=float(value[i]),
        )
        for i in np.lexsort((best, -value))
    )


def _peaks(
    heatmap: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_], runs: _Runs
) -> npt.NDArray[np.float32]:
    """The largest value of each run of a mask, some rows of the map at a time."""
    peaks = np.empty(runs.row.size, np.float32)
    rows = max(1, _STRIP // mask.shape[1])
    for top in range(0, len(mask), rows):
        first, last = np.searchsorted(runs.row, (top, top + rows))
        if first < last:
            length = runs.length[first:last]
            values = heatmap[top : top + rows][mask[top : top + rows]]  # run after run
            peaks[first:last] = np.maximum.reduceat(values, np.cumsum(length) - length)
    return peaks


def _smallest_of_each(
    owner: npt.NDArray[np.intp], values: npt.NDArray[np.intp], n: int
) -> npt.NDArray[np.intp]:
    """(n,) the smallest value of each owner 0 to n - 1; every owner has a value."""
    smallest = np.full(n, np.iinfo(np.intp).max)
    np.minimum.at(smallest, owner, values)
    return smallest


def _first_peak_of_each(
    owner: npt.NDArray[np.intp], values: npt.NDArray[np.float32], n: int
) -> npt.NDArray[np.intp]:
    """(n,) where the largest value of each owner 0 to n - 1 stands first."""
    largest = np.full(n, -np.inf, np.float32)
    np.maximum.at(largest, owner, values)
    at_peak = np.flatnonzero(values == largest[owner])
    _, first = np.unique(owner[at_peak], return_index=True)
    return at_peak[first]
