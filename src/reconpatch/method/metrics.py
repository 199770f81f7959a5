"""Compute image and pixel metrics exactly: AUROC, AP, F1-max, AUPRO, sPRO.

Everything here follows from one curve: lower a threshold over all distinct scores, from the
highest down, and count at each what scores as high. No threshold is sampled and no score is binned;
equal scores are one point.

The curve only turns where a defective item has the score: between two such scores it runs level.
So the good items are kept as bare codes, 32-bit integers that rise as the score falls, of which
only ranks are asked; the defective ones as 64-bit keys, the code in the high half and the number of
their region in the low half. Both are sorted in runs, and the runs merged, so that what does not
fit in memory is read from a temporary file in order.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest
from typing import Self

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError
from reconpatch.method.sorted_runs import SortedRuns, chunks
from reconpatch.photos.regions import label

PRO_LIMIT = 0.3
"""The false positive rate up to which MVTec AD integrates the per-region overlap."""

STRICT_PRO_LIMIT = 0.05
"""The false positive rate up to which MVTec LOCO and MVTec AD 2 integrate it."""

MEMORY_LIMIT = 2**30
"""Bytes of codes and keys that are held before they go to a temporary file."""

_CODE_SHIFT = np.uint64(32)
_REGION_BITS = np.uint64(0xFFFF_FFFF)

Codes = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]
Doubles = npt.NDArray[np.float64]


METRICS: Mapping[str, str] = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO at 0.3",
    "aupro_005": "AUPRO at 0.05",
    "auspro_005": "sPRO at 0.05",
    "auspro": "sPRO at 0.3",
    "image_ap": "image AP",
    "pixel_ap": "pixel AP",
    "image_f1_max_oracle": "image F1-max (oracle)",
    "pixel_f1_max_oracle": "pixel F1-max (oracle)",
}
"""Titles of the metrics by name, in the order of the tables; higher is better in all."""


def image_metrics(
    labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> dict[str, float | None]:
    """Compute image AUROC, AP and F1-max by the names of `METRICS`; None without both kinds.

    Args:
        labels: (n,) bool, True for defective.
        scores: (n,) float, higher for more anomalous; infinities are allowed.

    Raises:
        SettingsError: the lengths differ, or a score is NaN.
    """
    if np.all(labels) or not np.any(labels):
        return dict.fromkeys(("image_auroc", "image_ap", "image_f1_max_oracle"))
    return {
        "image_auroc": auroc(labels, scores),
        "image_ap": average_precision(labels, scores),
        "image_f1_max_oracle": f1_max(labels, scores),
    }


def auroc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Compute the area under the ROC curve: how often a defective item outscores a good one.

    Args:
        labels: (n,) bool, True for defective.
        scores: (n,) float, higher for more anomalous; infinities are allowed.

    Returns:
        0 to 1; 0.5 for scores that say nothing.

    Raises:
        SettingsError: the lengths differ, a score is NaN, or the labels hold one class only.
    """
    totals, curve = _item_curve(labels, scores)
    return sum(map(_twice_roc_area, curve)) / (2 * totals.defective * totals.good)


def average_precision(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Average precision: each step of the recall times the precision there, not interpolated.

    Args:
        labels: (n,) bool, True for defective.
        scores: (n,) float, higher for more anomalous; infinities are allowed.

    Returns:
        0 to 1; about the share of defective items for scores that say nothing.

    Raises:
        SettingsError: the lengths differ, a score is NaN, or the labels hold one class only.
    """
    totals, curve = _item_curve(labels, scores)
    return min(sum(map(_precision_area, curve)) / totals.defective, 1.0)


def f1_max(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Compute the best F1 that any threshold reaches.

    The threshold is chosen by looking at the labels it is then judged by. The figure is an upper
    bound to compare methods with, not what a threshold set from good photos alone will reach.

    Args:
        labels: (n,) bool, True for defective.
        scores: (n,) float, higher for more anomalous; infinities are allowed.

    Returns:
        0 to 1.

    Raises:
        SettingsError: the lengths differ, a score is NaN, or the labels hold one class only.
    """
    totals, curve = _item_curve(labels, scores)
    return max(_best_f1(piece, totals) for piece in curve)


def pixel_metrics(
    masks: Iterable[npt.NDArray[np.bool_]], maps: Iterable[npt.NDArray[np.float32]]
) -> dict[str, float]:
    """Compute the pixel metrics of all photos at once, as `PixelMetrics.result`.

    Both arguments are read once, side by side, so generators will do.

    Args:
        masks: (H, W) bool for each photo, as for `PixelMetrics.add`.
        maps: (H, W) float32 for each photo, as for `PixelMetrics.add`.

    Returns:
        See `PixelMetrics.result`.

    Raises:
        SettingsError: as for `PixelMetrics`, or there are more masks than maps or the reverse.
        OutputError: the temporary file cannot be written.
    """
    with _filled(masks, maps) as pixels:
        return pixels.result()


class _PhotoByPhoto:
    """Pixels of photos that come one by one; a context manager that removes its temporary file."""

    def __init__(self, *, memory_limit: int = MEMORY_LIMIT) -> None:
        if memory_limit < 0:
            raise SettingsError(
                f"memory_limit is {memory_limit}: give a number of bytes, 0 or more."
            )
        self._memory_limit = memory_limit
        self._good: SortedRuns[np.uint32] = SortedRuns(np.uint32)
        self._defective: SortedRuns[np.uint64] = SortedRuns(np.uint64)
        self._region_sizes = array("q")
        self._photos = 0

    def close(self) -> None:
        """Remove the temporary file, if there is one, and forget all photos."""
        self._good.clear()
        self._defective.clear()
        del self._region_sizes[:]
        self._photos = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, good: Codes, defective: Keys, region_sizes: Sequence[int]) -> None:
        """Take the pixels of one photo, its regions numbered from where the last photo's ended."""
        self._good.add(good)
        self._defective.add(defective)
        self._region_sizes.extend(region_sizes)
        self._photos += 1
        if self._good.nbytes + self._defective.nbytes > self._memory_limit:
            self._good.spill()
            self._defective.spill()

    def _totals(self) -> _Totals:
        totals = _Totals(self._good.size, self._defective.size)
        if totals.defective == 0 or totals.good == 0:
            raise SettingsError(
                f"The masks mark {totals.defective} of the inspected pixels as defective and "
                f"{totals.good} as good: give at least one of each."
            )
        return totals

    def _curve(self, saturation: Sequence[float] | None = None) -> Iterator[_Piece]:
        gains = _Gains(
            np.array(self._region_sizes, np.int64),
            None if saturation is None else np.array(saturation, np.float64),
        )
        return _curve(self._good.blocks(), self._defective.blocks(), gains, self._good.size)


class PixelMetrics(_PhotoByPhoto):
    """Pixel metrics of photos of any size that come one by one, exact and bounded in memory.

    Of a photo are kept 4 bytes for each inspected good pixel, 8 for each defective one and 8 for
    each region, and nothing else. Beyond the limit the pixels go to a temporary file as a sorted
    run, and the runs are merged as they are read, a few blocks of a million pixels at a time. The
    counts are the same wherever the pixels are; only the order in which fractions are summed up
    may differ.

    Close it, or use it in a `with`, to remove the temporary file at once; else it goes with the
    object.

        with PixelMetrics() as pixels:
            for mask, anomaly_map in photos:
                pixels.add(mask, anomaly_map)
            print(pixels.result())

    Args:
        memory_limit: bytes of pixels to hold; one photo more is held whatever the limit.

    Raises:
        SettingsError: the limit is negative.
    """

    def add(self, mask: npt.NDArray[np.bool_], anomaly_map: npt.NDArray[np.float32]) -> None:
        """Take one more photo.

        Args:
            mask: (H, W) bool, True for defective; all False for a good photo. The regions are its
                8-connected components.
            anomaly_map: (H, W) float32, wider types are rounded to it; higher for more anomalous,
                infinities are allowed. NaN marks a pixel as not inspected: it counts neither as
                good nor as part of its region, and a region without an inspected pixel does not
                count.

        Raises:
            SettingsError: the sizes differ, or the mask is not bool.
            OutputError: the temporary file cannot be written.
        """
        _check_pair(self._photos, mask, anomaly_map)
        regions, n_regions = label(mask)
        inspected = ~np.isnan(anomaly_map)
        found = mask & inspected
        region = regions[found] - 1
        self._keep(
            good=_codes(anomaly_map[inspected & ~mask]),
            defective=_pack(_codes(anomaly_map[found]), region + len(self._region_sizes)),
            region_sizes=np.bincount(region, minlength=n_regions).tolist(),
        )

    def result(self) -> dict[str, float]:
        """The figures of the photos so far, from one pass over their pixels.

        AUPRO is the area under the per-region overlap curve, as MVTec defines it: the false
        positive rate is taken over all good pixels of all photos, the overlap is the share of a
        region that is found, averaged over all regions, so that a small defect counts as much as a
        large one. The curve starts at a false positive rate of 0, is joined by straight lines, is
        cut at the limit and divided by it; maps that say nothing get half of the limit.

        Returns:
            Each in 0 to 1: "pixel_auroc"; "pixel_ap", average precision by steps;
            "pixel_f1_max_oracle", the best F1 of any threshold, which looks at the labels; "aupro"
            and "aupro_005", up to a false positive rate of 0.3 and of 0.05.

        Raises:
            SettingsError: there is no defective or no good pixel among the inspected ones.

        Source:
            Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021 (AUPRO).
        """
        totals = self._totals()
        twice_roc, precision, f1, wide, strict = 0, 0.0, 0.0, 0.0, 0.0
        for piece in self._curve():
            twice_roc += _twice_roc_area(piece)
            precision += _precision_area(piece)
            f1 = max(f1, _best_f1(piece, totals))
            wide += _overlap_area(piece, totals, PRO_LIMIT)
            strict += _overlap_area(piece, totals, STRICT_PRO_LIMIT)
        return {
            "pixel_auroc": twice_roc / (2 * totals.defective * totals.good),
            "pixel_ap": min(precision / totals.defective, 1.0),
            "pixel_f1_max_oracle": f1,
            "aupro": min(wide / PRO_LIMIT, 1.0),
            "aupro_005": min(strict / STRICT_PRO_LIMIT, 1.0),
        }

    def curves(self, points: int = 512) -> dict[str, Doubles]:
        """The ROC and the PRO curve, thinned: for plots, and for no figure.

        Args:
            points: the most that a curve may have, 3 or more.

        Returns:
            "roc" and "pro", each (n, 2) float64, n at most `points`, both columns in 0 to 1 and
            never falling: the false positive rate, and the share of defective pixels found or the
            mean overlap. All are points of the curve, and the straight lines between them are
            nowhere further than 2 / (points - 2) from it.

        Raises:
            SettingsError: too few points, or no defective or no good pixel.
        """
        totals = self._totals()
        roc, pro = _Thinned(points), _Thinned(points)
        for piece in self._curve():
            rate = piece.alarms_at_corners() / totals.good
            roc.add(rate, _at_corners(piece.hits / totals.defective))
            pro.add(rate, _at_corners(piece.overlap))
        return {"roc": roc.curve(), "pro": pro.curve()}


class SaturatedOverlap(_PhotoByPhoto):
    """Area under the saturated per-region overlap (sPRO) of MVTec LOCO, exact.

    A logical anomaly has no sure outline: a missing pushpin may be marked anywhere in an empty
    box. So a defect is fully found once its saturation threshold, a number of pixels, is found in
    it. At each distinct score, sPRO is min(found pixels / saturation, 1) averaged over all defects
    of all photos; the false positive rate is taken over the pixels that are in no defect at all.

    What is kept of a photo is as for `PixelMetrics`, 8 bytes for each defect that a pixel is in.
    MVTec LOCO's own figure is the mean of two: one over the good and the logical test photos, one
    over the good and the structural ones.

    Args:
        memory_limit: bytes of pixels to hold; one photo more is held whatever the limit.

    Raises:
        SettingsError: the limit is negative.

    Source:
        Bergmann et al., Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly
        Detection and Localization, IJCV 2022.
    """

    def __init__(self, *, memory_limit: int = MEMORY_LIMIT) -> None:
        super().__init__(memory_limit=memory_limit)
        self._saturation: list[float] = []

    def close(self) -> None:
        """Remove the temporary file, if there is one, and forget all photos."""
        super().close()
        self._saturation.clear()

    def add(
        self,
        defects: Sequence[tuple[npt.NDArray[np.bool_], float]],
        anomaly_map: npt.NDArray[np.float32],
    ) -> None:
        """Take one more photo.

        Args:
            defects: for each annotated defect its mask, (H, W) bool, and its saturation threshold
                in pixels; empty for a good photo. A mask is one defect
                whether it is connected or not, and masks may overlap: a pixel counts in each. A
                threshold above the number of inspected pixels of the defect is lowered to it, and a
                defect without one does not count.
            anomaly_map: (H, W) float32, as for `PixelMetrics.add`.

        Raises:
            SettingsError: the sizes differ, a mask is not bool, or a saturation threshold is not a
                number above 0.
            OutputError: the temporary file cannot be written.
        """
        if anomaly_map.ndim != 2:
            raise SettingsError(
                f"Map number {self._photos} has the shape {anomaly_map.shape}: give it as (H, W)."
            )
        for mask, saturation in defects:
            _check_pair(self._photos, mask, anomaly_map)
            if not 0 < saturation < math.inf:
                raise SettingsError(
                    f"The saturation threshold of a defect is {saturation}: give a number of "
                    "pixels above 0."
                )
        inspected = ~np.isnan(anomaly_map)
        in_none, keys = inspected.copy(), [np.empty(0, np.uint64)]
        for number, (mask, _) in enumerate(defects, start=len(self._region_sizes)):
            keys.append(_pack(_codes(anomaly_map[mask & inspected]), np.uint64(number)))
            in_none &= ~mask
        self._saturation.extend(saturation for _, saturation in defects)
        self._keep(
            good=_codes(anomaly_map[in_none]),
            defective=np.concatenate(keys),
            region_sizes=[part.size for part in keys[1:]],
        )

    def result(self) -> dict[str, float]:
        """The figures of the photos so far, from one pass over their pixels.

        Returns:
            "auspro" and "auspro_005", the area up to a false positive rate of 0.3 and of 0.05,
            divided by it, each in 0 to 1.

        Raises:
            SettingsError: there is no defective or no good pixel among the inspected ones.
        """
        totals = self._totals()
        wide = strict = 0.0
        for piece in self._curve(self._saturation):
            wide += _overlap_area(piece, totals, PRO_LIMIT)
            strict += _overlap_area(piece, totals, STRICT_PRO_LIMIT)
        return {
            "auspro": min(wide / PRO_LIMIT, 1.0),
            "auspro_005": min(strict / STRICT_PRO_LIMIT, 1.0),
        }


@dataclass(frozen=True)
class _Totals:
    """What the shares of the curve are shares of: numbers of good and of defective items."""

    good: int
    defective: int


@dataclass(frozen=True, eq=False)
class _Piece:
    """Consecutive points of the curve, scores falling; the first was the last one before.

    From one point to the next the curve runs level, over the good items that score between the two,
    then straight up or aslant, over all items that tie at the score.

    Attributes:
        hits: (k + 1,) int64, defective items at or above each score.
        alarms: (k + 1,) int64, good items at or above each score.
        overlap: (k + 1,) float64, share of a region at or above each score, averaged over regions.
        above: (k,) int64, good items strictly above each score but the first.
    """

    hits: npt.NDArray[np.int64]
    alarms: npt.NDArray[np.int64]
    overlap: Doubles
    above: npt.NDArray[np.int64]

    def alarms_at_corners(self) -> npt.NDArray[np.int64]:
        """(2 k + 1,) int64, the alarms at the points and where the level lines end."""
        corners = np.repeat(self.alarms, 2)[:-1]
        corners[1::2] = self.above
        return corners


def _at_corners(height: Doubles) -> Doubles:
    """(2 k + 1,) the heights at `_Piece.alarms_at_corners`, from the (k + 1,) at the points."""
    return np.repeat(height, 2)[:-1]


def _curve(
    good: Iterable[Codes], defective: Iterable[Keys], gains: _Gains, n_good: int
) -> Iterator[_Piece]:
    """The curve over all distinct scores, from nothing found to everything.

    It comes in pieces so that a curve of many millions of points is never held as a whole; the area
    under it is the sum of the areas under its pieces.

    Args:
        good: the sorted codes of the good items, in blocks.
        defective: the sorted keys of the defective items, in blocks that are not empty.
        gains: what each defective item adds to the overlap.
        n_good: number of good items.
    """
    ranks = _Ranks(good)
    hits, alarms, overlap = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1)
    seen, covered = 0, 0.0
    for keys, following in pairwise(chain(defective, [np.empty(0, np.uint64)])):
        running = covered + np.cumsum(gains.of((keys & _REGION_BITS).astype(np.intp)))
        codes = keys >> _CODE_SHIFT
        ends = _ends_of_ties(codes, following[:1] >> _CODE_SHIFT)
        # Codes are whole numbers: what is below the next code ties with this one or is above it.
        below = ranks.below(np.stack([codes[ends], codes[ends] + 1], axis=1).ravel())
        hits = np.append(hits[-1:], seen + ends + 1)
        alarms = np.append(alarms[-1:], below[1::2])
        overlap = np.append(overlap[-1:], running[ends])
        yield _Piece(hits, alarms, overlap, above=below[0::2])
        seen, covered = seen + keys.size, float(running[-1])
    # Last, the good items that score below all defective ones.
    yield _Piece(
        hits=hits[[-1, -1]],
        alarms=np.append(alarms[-1:], n_good),
        overlap=overlap[[-1, -1]],
        above=np.array([n_good]),
    )


def _ends_of_ties(codes: Keys, following: Keys) -> npt.NDArray[np.intp]:
    """Where in a block the last item of each score is; a tie may end in a following block."""
    after = np.append(codes[1:], following)
    ends = np.flatnonzero(after != codes[: after.size])
    return ends if following.size else np.append(ends, codes.size - 1)


class _Ranks:
    """Counts of the good items that score higher than given ones, from their sorted blocks."""

    def __init__(self, blocks: Iterable[Codes]) -> None:
        self._blocks = iter(blocks)
        self._block = np.empty(0, np.uint32)
        self._passed = 0

    def below(self, codes: Keys) -> npt.NDArray[np.int64]:
        """(n,) int64, how many items have a lower code; codes never fall, from call to call too."""
        counts = np.empty(codes.size, np.int64)
        done = 0
        while True:
            # All that is lower than a code lies in this block or before it if the block ends at
            # the code or behind.
            last = self._block[-1:].astype(np.uint64)
            end = int(np.searchsorted(codes, last[0], side="right")) if last.size else 0
            asked = codes[done:end].astype(np.uint32)
            counts[done:end] = self._passed + np.searchsorted(self._block, asked)
            done = end
            if done == codes.size or not self._advance():
                break
        counts[done:] = self._passed
        return counts

    def _advance(self) -> bool:
        self._passed += self._block.size
        self._block = next(self._blocks, np.empty(0, np.uint32))
        return self._block.size > 0


class _Gains:
    """What each defective item adds to the mean overlap, items taken in falling order of score.

    A region of which s items saturate gains 1 / (regions that count * s) from each of its first s
    items and nothing from the others. Which of the items that tie come first makes no difference
    where the tie ends, and the curve has no point before.

    Args:
        sizes: (R,) int64, number of items of each region; a region of none does not count.
        saturation: (R,) float64 above 0, items that saturate each region; by default all of them.
    """

    def __init__(self, sizes: npt.NDArray[np.int64], saturation: Doubles | None = None) -> None:
        self._saturation = np.minimum(sizes if saturation is None else saturation, sizes)
        self._saturates = bool(np.any(self._saturation < sizes))
        self._found = np.zeros(sizes.size, np.int64)
        scale = np.count_nonzero(sizes) * self._saturation.astype(np.float64)
        self._weights = np.divide(1.0, scale, out=np.zeros_like(scale), where=sizes > 0)

    def of(self, regions: npt.NDArray[np.intp]) -> Doubles:
        """(n,) float64, what the next n items add, by the (n,) numbers of their regions."""
        gains: Doubles = self._weights[regions]
        if self._saturates:
            # Where the saturation is no whole number, the last item counts by what is left of it.
            left = self._saturation[regions] - self._found[regions] - _occurrence(regions)
            gains *= np.clip(left, 0, 1)
            self._found += np.bincount(regions, minlength=self._found.size)
        return gains


def _occurrence(values: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """(n,) how many equal values stand before each of the (n,) values."""
    order = np.argsort(values, kind="stable")
    _, first, count = np.unique(values[order], return_index=True, return_counts=True)
    occurrence = np.empty(values.size, np.intp)
    occurrence[order] = np.arange(values.size) - np.repeat(first, count)
    return occurrence


def _twice_roc_area(piece: _Piece) -> int:
    """Twice the piece's part of the area under hits over alarms."""
    # Whole numbers, so that a perfect ranking gives 1 and not nearly 1.
    level = np.dot(piece.above - piece.alarms[:-1], piece.hits[:-1])
    aslant = np.dot(piece.alarms[1:] - piece.above, piece.hits[1:] + piece.hits[:-1])
    return 2 * int(level) + int(aslant)


def _precision_area(piece: _Piece) -> float:
    """The piece's part of the sum of precision times step of the hits."""
    hits, alarms = piece.hits[1:], piece.alarms[1:]
    return float(np.dot(hits / (hits + alarms), np.diff(piece.hits)))


def _overlap_area(piece: _Piece, totals: _Totals, limit: float) -> float:
    """The piece's part of the area under mean overlap over false positive rate, up to the limit."""
    rate, overlap = piece.alarms_at_corners() / totals.good, _at_corners(piece.overlap)
    inside = int(np.searchsorted(rate, limit, side="right"))
    if inside == 0:
        return 0.0
    if inside < rate.size:
        at_limit = np.interp(limit, rate, overlap)
        rate, overlap = np.append(rate[:inside], limit), np.append(overlap[:inside], at_limit)
    return float(np.dot(np.diff(rate), overlap[1:] + overlap[:-1])) / 2


def _best_f1(piece: _Piece, totals: _Totals) -> float:
    """The best F1 at the piece's points but the first; 0 for none."""
    hits, alarms = piece.hits[1:], piece.alarms[1:]
    return float((2 * hits / (hits + alarms + totals.defective)).max(initial=0.0))


class _Thinned:
    """A curve of at most so many of its own points, taken at even steps along it.

    Args:
        points: the most it may have, 3 or more.
    """

    def __init__(self, points: int) -> None:
        if points < 3:
            raise SettingsError(f"points is {points}: give 3 or more for a curve.")
        self._steps = points - 2
        self._kept = [np.zeros((1, 2))]
        self._last = np.zeros((1, 2))

    def add(self, x: Doubles, y: Doubles) -> None:
        """Take (n,) more points, the first of which was the last one before; neither ever falls."""
        step = ((x + np.minimum(y, 1.0)) / 2 * self._steps).astype(np.int64)
        points = np.minimum(np.stack([x, y], axis=1), 1.0)
        self._kept.append(points[:-1][np.diff(step) > 0])
        self._last = points[-1:]

    def curve(self) -> Doubles:
        """(n, 2) the points that were kept, from the first to the last."""
        return np.unique(np.concatenate([*self._kept, self._last]), axis=0)


def _item_curve(
    labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> tuple[_Totals, Iterator[_Piece]]:
    """The curve of labelled scores, all defective items being one region."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    _check_items(labels, scores)
    _, rank = np.unique(-scores, return_inverse=True)
    rank = rank.astype(np.uint32)
    good, defective = np.sort(rank[~labels]), np.sort(rank[labels])
    blocks = chunks(_pack(defective, np.uint64(0)))
    curve = _curve(chunks(good), blocks, _Gains(np.array([defective.size])), good.size)
    return _Totals(good.size, defective.size), curve


def _filled(
    masks: Iterable[npt.NDArray[np.bool_]], maps: Iterable[npt.NDArray[np.float32]]
) -> PixelMetrics:
    """The metrics of all photos."""
    pixels = PixelMetrics()
    for index, (mask, anomaly_map) in enumerate(zip_longest(masks, maps)):
        if mask is None or anomaly_map is None:
            missing, given = ("mask", "map") if mask is None else ("map", "mask")
            raise SettingsError(
                f"There is no {missing} number {index}, but a {given}: give one mask for each map."
            )
        pixels.add(mask, anomaly_map)
    return pixels


def _codes(scores: npt.NDArray[np.float32]) -> Codes:
    """Codes that rise as float32 scores fall, equal for equal scores."""
    # Read as integers, positive floats rise with their value and negative ones, which come after
    # them, with their magnitude: only the order of the positive ones must be turned round.
    # Adding 0 makes -0.0 the same as 0.0.
    bits = (scores.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, bits, bits ^ 0x7FFF_FFFF)


def _pack(codes: Codes, regions: npt.NDArray[np.integer] | np.uint64) -> Keys:
    """One key per item: the code in the high half, the region in the low half."""
    return (codes.astype(np.uint64) << _CODE_SHIFT) | regions.astype(np.uint64)


def _check_items(labels: npt.NDArray[np.generic], scores: npt.NDArray[np.generic]) -> None:
    """Refuse labels and scores of which there are no image metrics."""
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise SettingsError(
            f"labels have the shape {labels.shape} and scores {scores.shape}: "
            "give two flat arrays of the same length, one label for each score."
        )
    positives = np.count_nonzero(labels)
    if positives in (0, labels.size):
        raise SettingsError(
            f"{positives} of {labels.size} labels are True: "
            "give at least one defective (True) and one good (False) item."
        )
    _check_bool("labels", labels)
    if np.isnan(scores).any():
        raise SettingsError(
            f"{np.count_nonzero(np.isnan(scores))} of {scores.size} scores are NaN: "
            "leave out the items that have no score."
        )


def _check_bool(name: str, values: npt.NDArray[np.generic]) -> None:
    """Refuse labels that are not plainly true or false."""
    if values.dtype != np.bool_:
        raise SettingsError(
            f"The type of {name} is {values.dtype}: give bool, True for defective "
            "(of a mask with 0 and 255: mask > 0)."
        )


def _check_pair(
    index: int, mask: npt.NDArray[np.bool_], anomaly_map: npt.NDArray[np.float32]
) -> None:
    """Refuse a mask and a map that do not belong together."""
    if mask.ndim != 2 or mask.shape != anomaly_map.shape:
        raise SettingsError(
            f"Mask number {index} has the shape {mask.shape} and its map {anomaly_map.shape}: "
            "give both as (H, W), of the same size."
        )
    _check_bool(f"mask number {index}", mask)
