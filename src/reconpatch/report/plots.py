"""Histograms in the units of an SVG: bins with the threshold on an edge, counts stacked in bars."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

# x threshold; scores beyond go into the last bar, or one wild photo squeezes the rest
_CUT_AT = 4.0


@dataclass(frozen=True)
class Bar:
    """A bar, the series that its colour is of, and what it counts."""

    x: float
    y: float
    width: float
    height: float
    series: str
    tip: str


@dataclass(frozen=True)
class Bins:
    """Equal bins from x `left` to `right`: bin i holds (edge(i), edge(i + 1)], edge(0) the cut."""

    threshold: float
    step: float
    first: int
    last: int
    left: float
    right: float

    @classmethod
    def over(cls, scores: Doubles, threshold: float, count: int, left: float, right: float) -> Self:
        """About `count` bins over the scores and the threshold, and a spare one below."""
        ends = np.append(scores[np.isfinite(scores)], threshold)
        low, high = float(ends.min()), float(ends.max())
        if threshold > 0:
            high = min(high, _CUT_AT * threshold)
        step = (high - low) / count or max(abs(threshold), 1.0) / count
        first = math.floor((low - threshold) / step) - 1
        last = max(0, math.ceil((high - threshold) / step))
        return cls(threshold, step, first, last, left, right)

    def edge(self, i: int) -> float:
        """The score at the lower end of a bin."""
        return self.threshold + i * self.step

    @property
    def ends(self) -> tuple[float, float]:
        """The scores at `left` and at `right`."""
        return self.edge(self.first), self.edge(self.last + 1)

    def of(self, scores: Doubles) -> npt.NDArray[np.int64]:
        """Bin of each score; scores beyond the ends go into the first or last bin."""
        i = np.ceil((scores - self.threshold) / self.step) - 1
        inside: npt.NDArray[np.int64] = np.clip(i, self.first, self.last).astype(np.int64)
        return inside

    def x(self, value: float) -> float:
        """Where a score is."""
        low, high = self.ends
        share = (value - low) / (high - low)
        return round(self.left + share * (self.right - self.left), 2)


def stacked(
    series: Sequence[tuple[str, Doubles]], bins: Bins, base: float, height: float
) -> tuple[tuple[Bar, ...], int]:
    """The bars of series (key, scores) upon each other, and the most photos of a bin.

    They stand on y = `base`, and the highest bin is of that `height`.
    """
    counts = {key: Counter(bins.of(scores).tolist()) for key, scores in series}
    totals = sum(counts.values(), Counter[int]())
    highest = max(totals.values(), default=0)
    unit = height / max(1, highest)
    bars = []
    for i in sorted(totals):
        x, width = bins.x(bins.edge(i)), bins.x(bins.edge(i + 1)) - bins.x(bins.edge(i)) - 1
        tip = f"{photos(totals[i])}, score {bins.edge(i):.4g} to {bins.edge(i + 1):.4g}"
        below = 0
        for key, of_series in counts.items():
            if of_series[i]:
                below += of_series[i]
                bars.append(Bar(x, base - below * unit, width, of_series[i] * unit, key, tip))
    return tuple(bars), highest


def photos(count: int) -> str:
    """Such as 1 photo or 1,200 photos."""
    return f"{count:,} photo" if count == 1 else f"{count:,} photos"
