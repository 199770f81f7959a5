"""How well scores and anomaly maps tell good from defective, computed exactly.

Everything here follows from one curve: lower a threshold over all distinct scores, from the
highest down, and count at each what scores as high. No threshold is sampled and no score is binned;
equal scores are one point.

The curve comes from sorted keys, one 64-bit integer per score: the high half is a code that rises
as the score falls, the low half is 0 for a good item and the number of its region for a defective
one. One sort of the keys in place serves all the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError
from reconpatch.regions import label

PRO_LIMIT = 0.3
"""The false positive rate up to which MVTec integrates the per-region overlap."""

_BLOCK = 1 << 20
"""How many keys are unpacked at a time."""

_CODE_SHIFT = np.uint64(32)
_REGION_BITS = np.uint64(0xFFFF_FFFF)

Keys = npt.NDArray[np.uint64]


def auroc(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> float:
    """Area under the ROC curve: how often a defective item outscores a good one, ties half.

    Args:
        labels: (n,) bool, True for defective.
        scores: (n,) float, higher for more anomalous; infinities are allowed.

    Returns:
        0 to 1; 0.5 for scores that say nothing.

    Raises:
        SettingsError: the lengths differ, a score is NaN, or the labels hold one class only.
    """
    keys, totals = _item_keys(labels, scores)
    return sum(_roc_area(piece, totals) for piece in _curve(keys, totals))


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
    keys, totals = _item_keys(labels, scores)
    return min(sum(_precision_area(piece, totals) for piece in _curve(keys, totals)), 1.0)


def f1_max(labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]) -> tuple[float, float]:
    """The best F1 that any threshold reaches, and that threshold: an oracle.

    The threshold is chosen by looking at the labels it is then judged by. The figure is an upper
    bound to compare methods with, not what a threshold set from good photos alone will reach.

    Args:
        labels: (n,) bool, True for defective.
        scores: (n,) float, higher for more anomalous; infinities are allowed.

    Returns:
        F1 in 0 to 1; and the threshold, items with a greater score being called defective. It lies
        midway between two scores, or just below the lowest; of equally good ones it is the highest.

    Raises:
        SettingsError: the lengths differ, a score is NaN, or the labels hold one class only.
    """
    keys, totals = _item_keys(labels, scores)
    f1 = np.concatenate([_f1(piece, totals)[1:] for piece in _curve(keys, totals)])
    best = int(f1.argmax())
    falling = np.unique(np.asarray(scores, np.float64))[::-1].tolist()
    falling.append(math.nextafter(falling[-1], -math.inf))
    return float(f1[best]), _between(falling[best + 1], falling[best])


def aupro(
    masks: Iterable[npt.NDArray[np.bool_]],
    maps: Iterable[npt.NDArray[np.float32]],
    limit: float = PRO_LIMIT,
) -> float:
    """Area under the per-region overlap curve, as MVTec defines it.

    The false positive rate is taken over all good pixels of all photos, the overlap is the share of
    a region that is found, averaged over all regions: a small defect counts as much as a large one.
    The regions are the 8-connected components of the masks. The curve starts at a false positive
    rate of 0, is joined by straight lines, is cut at the limit and divided by it.

    Both arguments are read once, so generators will do. Held at a time: 8 bytes per inspected
    pixel (up to 16 for a moment, while the photos are joined) and one photo.

    Args:
        masks: (H, W) bool for each photo, True for defective; all False for a good photo.
        maps: (H, W) float32 for each photo (wider types are rounded to it), as large as its mask;
            photos may differ in size. NaN marks a pixel as not inspected: it counts neither as good
            nor as part of its region, and a region without an inspected pixel does not count.
        limit: the false positive rate to stop at, above 0 and up to 1.

    Returns:
        0 to 1; `limit / 2` for maps that say nothing.

    Raises:
        SettingsError: the limit is out of range, the numbers or sizes of masks and maps differ, a
            mask is not bool, or there is no defective or no good pixel among the inspected ones.

    Source:
        Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021.
    """
    if not 0 < limit <= 1:
        raise SettingsError(f"limit is {limit}: give a rate above 0 and up to 1, such as 0.3.")
    keys, totals = _pixel_keys(masks, maps)
    area = sum(_overlap_area(piece, totals, limit) for piece in _curve(keys, totals))
    return min(area / limit, 1.0)


def pixel_metrics(
    masks: Iterable[npt.NDArray[np.bool_]], maps: Iterable[npt.NDArray[np.float32]]
) -> dict[str, float]:
    """AUROC and average precision over all pixels, and AUPRO at the usual limit, from one sort.

    Args:
        masks: (H, W) bool for each photo, as for `aupro`.
        maps: (H, W) float32 for each photo, as for `aupro`; pixels with NaN are left out.

    Returns:
        "pixel_auroc", "pixel_ap" and "aupro", each in 0 to 1.

    Raises:
        SettingsError: as for `aupro`.
    """
    keys, totals = _pixel_keys(masks, maps)
    roc = precision = overlap = 0.0
    for piece in _curve(keys, totals):
        roc += _roc_area(piece, totals)
        precision += _precision_area(piece, totals)
        overlap += _overlap_area(piece, totals, PRO_LIMIT)
    return {
        "pixel_auroc": roc,
        "pixel_ap": min(precision, 1.0),
        "aupro": min(overlap / PRO_LIMIT, 1.0),
    }


@dataclass(frozen=True)
class _Totals:
    """What the shares of the curve are shares of.

    Attributes:
        region_sizes: (R + 1,) number of items, of the good ones at 0 and of each region after it.
    """

    region_sizes: npt.NDArray[np.int64]

    @property
    def negatives(self) -> int:
        """Number of good items."""
        return int(self.region_sizes[0])

    @property
    def positives(self) -> int:
        """Number of defective items."""
        return int(self.region_sizes[1:].sum())

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(R + 1,) what one item adds to the overlap: 1 / (regions that count * region size)."""
        sizes = self.region_sizes.copy()
        sizes[0] = 0
        scale = np.count_nonzero(sizes) * sizes.astype(np.float64)
        return np.divide(1.0, scale, out=np.zeros_like(scale), where=sizes > 0)


@dataclass(frozen=True)
class _Piece:
    """Consecutive points of the curve, thresholds falling; the first was the last one before.

    Attributes:
        hits: (k,) int64, defective items at or above each threshold.
        alarms: (k,) int64, good items at or above each threshold.
        overlap: (k,) float64, share of a region at or above each threshold, averaged over regions.
    """

    hits: npt.NDArray[np.int64]
    alarms: npt.NDArray[np.int64]
    overlap: npt.NDArray[np.float64]


def _curve(keys: Keys, totals: _Totals) -> Iterator[_Piece]:
    """The curve over all distinct scores of sorted keys, from nothing found to everything.

    It comes in pieces so that a curve of many millions of points is never held as a whole; the area
    under it is the sum of the areas under its pieces.
    """
    weights = totals.weights
    hits, overlap = 0, 0.0
    piece = _Piece(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1))
    for start in range(0, keys.size, _BLOCK):
        region = (keys[start : start + _BLOCK] & _REGION_BITS).astype(np.intp)
        running_hits = hits + np.cumsum(region > 0, dtype=np.int64)
        running_overlap = overlap + np.cumsum(weights[region])
        hits, overlap = int(running_hits[-1]), float(running_overlap[-1])
        ends = _ends_of_ties(keys, start)
        alarms = start + ends + 1 - running_hits[ends]
        piece = _Piece(
            hits=np.append(piece.hits[-1:], running_hits[ends]),
            alarms=np.append(piece.alarms[-1:], alarms),
            overlap=np.append(piece.overlap[-1:], running_overlap[ends]),
        )
        yield piece


def _ends_of_ties(keys: Keys, start: int) -> npt.NDArray[np.intp]:
    """Where in the block from start the last key of each score is; a tie may end in a later one."""
    codes = keys[start : start + _BLOCK + 1] >> _CODE_SHIFT
    ends = np.flatnonzero(codes[1:] != codes[:-1])
    is_last_block = codes.size <= _BLOCK
    return np.append(ends, codes.size - 1) if is_last_block else ends


def _roc_area(piece: _Piece, totals: _Totals) -> float:
    """The piece's part of the area under hit rate over false positive rate."""
    # Whole numbers, so that a perfect ranking gives 1 and not nearly 1.
    twice = int(np.dot(np.diff(piece.alarms), piece.hits[1:] + piece.hits[:-1]))
    return twice / (2 * totals.positives * totals.negatives)


def _precision_area(piece: _Piece, totals: _Totals) -> float:
    """The piece's part of the sum of precision times step of the recall."""
    hits, alarms = piece.hits[1:], piece.alarms[1:]
    return float(np.dot(hits / (hits + alarms), np.diff(piece.hits))) / totals.positives


def _overlap_area(piece: _Piece, totals: _Totals, limit: float) -> float:
    """The piece's part of the area under mean overlap over false positive rate, up to the limit."""
    rate, overlap = piece.alarms / totals.negatives, piece.overlap
    inside = int(np.searchsorted(rate, limit, side="right"))
    if inside == 0:
        return 0.0
    if inside < rate.size:
        at_limit = np.interp(limit, rate, overlap)
        rate, overlap = np.append(rate[:inside], limit), np.append(overlap[:inside], at_limit)
    return float(np.dot(np.diff(rate), overlap[1:] + overlap[:-1])) / 2


def _f1(piece: _Piece, totals: _Totals) -> npt.NDArray[np.float64]:
    """F1 at each point of the piece."""
    f1: npt.NDArray[np.float64] = 2 * piece.hits / (piece.hits + piece.alarms + totals.positives)
    return f1


def _between(lower: float, upper: float) -> float:
    """A threshold that upper exceeds and lower does not, midway where floats allow."""
    middle = lower + (upper - lower) / 2
    return middle if middle < upper else lower


def _item_keys(
    labels: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> tuple[Keys, _Totals]:
    """Sorted keys of labelled scores, all defective items being one region."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    _check_items(labels, scores)
    _, rank = np.unique(-scores, return_inverse=True)
    keys = _pack(rank, labels)
    keys.sort()
    return keys, _Totals(np.bincount(labels))


def _pixel_keys(
    masks: Iterable[npt.NDArray[np.bool_]], maps: Iterable[npt.NDArray[np.float32]]
) -> tuple[Keys, _Totals]:
    """Sorted keys of all inspected pixels of all photos, regions numbered through."""
    parts: list[Keys] = []
    sizes = [np.zeros(1, np.int64)]
    n_regions = 0
    for index, (mask, heatmap) in enumerate(zip_longest(masks, maps)):
        _check_pair(index, mask, heatmap)
        regions, n = label(mask)
        inspected = ~np.isnan(heatmap)
        regions = regions[inspected]
        counts = np.bincount(regions, minlength=n + 1)
        regions[regions > 0] += n_regions
        parts.append(_pack(_codes(heatmap[inspected]), regions))
        sizes[0] += counts[0]
        sizes.append(counts[1:])
        n_regions += n
    totals = _Totals(np.concatenate(sizes))
    _check_pixels(totals)
    keys = _joined(parts)
    keys.sort()
    return keys, totals


def _codes(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Codes that rise as float32 scores fall, equal for equal scores."""
    # Read as integers, positive floats rise with their value and negative ones, which come after
    # them, with their magnitude: only the order of the positive ones must be turned round.
    # Adding 0 makes -0.0 the same as 0.0.
    bits = (scores.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, bits, bits ^ 0x7FFF_FFFF)


def _pack(codes: npt.NDArray[np.integer], regions: npt.NDArray[np.generic]) -> Keys:
    """One key per item: the code in the high half, the region in the low half."""
    return (codes.astype(np.uint64) << _CODE_SHIFT) | regions.astype(np.uint64)


def _joined(parts: list[Keys]) -> Keys:
    """The parts as one array; empties the list, so that a part is let go once it is copied."""
    joined = np.empty(sum(part.size for part in parts), np.uint64)
    end = joined.size
    while parts:
        part = parts.pop()
        joined[end - part.size : end] = part
        end -= part.size
    return joined


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
    index: int,
    mask: npt.NDArray[np.bool_] | None,
    heatmap: npt.NDArray[np.float32] | None,
) -> None:
    """Refuse a mask and a map that do not belong together."""
    if mask is None or heatmap is None:
        missing, given = ("mask", "map") if mask is None else ("map", "mask")
        raise SettingsError(
            f"There is no {missing} number {index}, but a {given}: give one mask for each map."
        )
    if mask.ndim != 2 or mask.shape != heatmap.shape:
        raise SettingsError(
            f"Mask number {index} has the shape {mask.shape} and its map {heatmap.shape}: "
            "give both as (H, W), of the same size."
        )
    _check_bool(f"mask number {index}", mask)


def _check_pixels(totals: _Totals) -> None:
    """Refuse pixels of one class only."""
    if totals.positives == 0 or totals.negatives == 0:
        raise SettingsError(
            f"The masks mark {totals.positives} of the inspected pixels as defective and "
            f"{totals.negatives} as good: give at least one of each."
        )
