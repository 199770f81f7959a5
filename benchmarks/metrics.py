"""How exact the metrics are, and what they cost.

    python benchmarks/metrics.py                  # 100 maps of 1024 x 1024: about a minute
    python benchmarks/metrics.py --maps 10 --side 256

First table: the largest difference of each figure to a reference over sets of small maps, with and
without ties, and with a memory limit that sends the pixels of every photo to a temporary file. The
reference of AUROC, AP and F1-max is scikit-learn (`roc_auc_score`, `average_precision_score`,
`precision_recall_curve`), that of the overlaps is the definition in exact fractions, threshold by
threshold and region by region. Second table: seconds and peak memory on large maps, each row in a
process of its own. The peak is what Python and numpy had allocated at most, above what they had
before the first map; it is taken in a run apart from the one that is timed. Of scikit-learn a tenth
of the maps is measured: of all of them it would need some 8 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from reconpatch.method.metrics import PixelMetrics, SaturatedOverlap
from reconpatch.photos.regions import label

Photo = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]

SETS = 40
LIMITS = {"": Fraction(3, 10), "_005": Fraction(1, 20)}
SCIKIT_LEARN = "scikit-learn, AUROC and AP only, a tenth of the maps"
METHODS = {
    "all in memory": 2**30,
    "64 MiB in memory": 2**26,
    "saturated overlap": 2**30,
    SCIKIT_LEARN: 0,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--maps", type=int, default=100)
    arguments.add_argument("--side", type=int, default=1024)
    arguments.add_argument("--one", choices=METHODS, help="measure one method in this process")
    arguments.add_argument("--trace", action="store_true", help="of it the memory, not the time")
    given = arguments.parse_args()
    if given.one:
        print(measured(given.one, given.maps, given.side, given.trace))
        return
    print_differences()
    print_costs(given.maps, given.side)


def print_differences() -> None:
    print("| figure | reference | largest difference |\n|---|---|---|")
    largest: dict[str, float] = {}
    for seed in range(SETS):
        photos = list(small_photos(seed))
        wanted = references(photos)
        for memory_limit in (0, 2**30):
            got = figures(photos, memory_limit)
            for name, value in wanted.items():
                largest[name] = max(largest.get(name, 0.0), abs(got[name] - value))
    for name, difference in largest.items():
        reference = "definition" if "pro" in name else "scikit-learn"
        print(f"| {name} | {reference} | {difference:.1e} |")


def print_costs(maps: int, side: int) -> None:
    print(f"\n| {maps} maps of {side} x {side} | seconds | peak memory, MiB | bytes a pixel |")
    print("|---|---|---|---|")
    for method in METHODS:
        command = [sys.executable, __file__, "--maps", str(maps), "--side", str(side)]
        command += ["--one", method]
        runs = [[*command], [*command, "--trace"]]
        seconds, peak = (
            float(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
            for run in runs
        )
        per_pixel = peak / (measured_maps(method, maps) * side * side)
        print(f"| {method} | {seconds:.1f} | {peak / 2**20:.0f} | {per_pixel:.1f} |", flush=True)


def measured_maps(method: str, maps: int) -> int:
    return max(maps // 10, 2) if method == SCIKIT_LEARN else maps


def measured(method: str, maps: int, side: int, trace: bool) -> float:
    """Seconds without the making of the maps, or bytes of memory at the peak."""
    if method == SCIKIT_LEARN:
        import sklearn.metrics  # noqa: F401 - not part of what is measured
    if trace:
        tracemalloc.start()
    clock = Clock(large_photos(measured_maps(method, maps), side))
    start = time.perf_counter()
    if method == SCIKIT_LEARN:
        scikit_learn(clock)
    elif method == "saturated overlap":
        saturated(clock)
    else:
        with PixelMetrics(memory_limit=METHODS[method]) as pixels:
            for mask, heatmap in clock:
                pixels.add(mask, heatmap)
            pixels.result()
    seconds = time.perf_counter() - start - clock.seconds
    return tracemalloc.get_traced_memory()[1] if trace else seconds


class Clock:
    """The photos, and the seconds that it took to make them."""

    def __init__(self, photos: Iterator[Photo]) -> None:
        self.seconds = 0.0
        self._photos = photos

    def __iter__(self) -> Iterator[Photo]:
        while True:
            start = time.perf_counter()
            photo = next(self._photos, None)
            self.seconds += time.perf_counter() - start
            if photo is None:
                return
            yield photo


def large_photos(maps: int, side: int) -> Iterator[Photo]:
    """Two of three with defects on about 3 % of their pixels, continuous values."""
    rng = np.random.default_rng(0)
    for number in range(maps):
        mask = np.zeros((side, side), bool)
        if number % 3:
            mask[side // 8 : side // 4, side // 8 : side // 3] = True
            mask[side // 2 : side // 2 + side // 16, side // 2 :: 8] = True
        heatmap = rng.random(mask.shape, dtype=np.float32)
        heatmap[mask] += np.float32(0.3)
        yield mask, heatmap


def scikit_learn(photos: Clock) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    pairs = [(mask.ravel(), heatmap.ravel()) for mask, heatmap in photos]
    labels = np.concatenate([mask for mask, _ in pairs])
    scores = np.concatenate([heatmap for _, heatmap in pairs])
    del pairs
    roc_auc_score(labels, scores)
    average_precision_score(labels, scores)


def saturated(photos: Clock) -> None:
    with SaturatedOverlap() as overlap:
        for mask, heatmap in photos:
            pixels = np.count_nonzero(mask)
            overlap.add([(mask, pixels / 3)] if pixels else [], heatmap)
        overlap.result()


def small_photos(seed: int) -> Iterator[Photo]:
    """Maps with ties in every second set, one of them constant in every fourth, NaN in a third."""
    rng = np.random.default_rng(seed)
    for number in range(4):
        mask = rng.random((14, 17)) < (0.0, 0.05, 0.3, 0.1)[number]
        heatmap = (rng.normal(0, 1, mask.shape) + mask).astype(np.float32)
        if seed % 2:
            heatmap = np.round(heatmap * 4) / 4
        if seed % 4 == 3 and number == 1:
            heatmap[:] = 0.5
        if seed % 3 == 0:
            heatmap[rng.random(mask.shape) < 0.1] = np.nan
        yield mask, heatmap


def figures(photos: list[Photo], memory_limit: int) -> dict[str, float]:
    with (
        PixelMetrics(memory_limit=memory_limit) as pixels,
        SaturatedOverlap(memory_limit=memory_limit) as overlap,
    ):
        for mask, heatmap in photos:
            pixels.add(mask, heatmap)
            overlap.add([(mask, max(np.count_nonzero(mask) // 3, 1))], heatmap)
        return pixels.result() | overlap.result()


def references(photos: list[Photo]) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    labels = np.concatenate([mask[~np.isnan(heatmap)] for mask, heatmap in photos])
    scores = np.concatenate([heatmap[~np.isnan(heatmap)] for _, heatmap in photos])
    precision, recall, _ = precision_recall_curve(labels, scores)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    regions = [
        heatmap[labels == i] for labels, n, heatmap in parts(photos) for i in range(1, n + 1)
    ]
    defects = [(heatmap[mask], np.count_nonzero(mask) // 3) for mask, heatmap in photos]
    good = scores[~labels]
    wanted = {
        "pixel_auroc": float(roc_auc_score(labels, scores)),
        "pixel_ap": float(average_precision_score(labels, scores)),
        "pixel_f1_max_oracle": float(f1.max()),
    }
    for suffix, limit in LIMITS.items():
        wanted[f"aupro{suffix}"] = area(good, [(values, values.size) for values in regions], limit)
        wanted[f"auspro{suffix}"] = area(good, defects, limit)
    return wanted


def parts(photos: list[Photo]) -> Iterator[tuple[npt.NDArray[np.int32], int, np.ndarray]]:
    for mask, heatmap in photos:
        regions, n = label(mask)
        yield regions, n, heatmap


def area(good: np.ndarray, regions: list[tuple[np.ndarray, int]], limit: Fraction) -> float:
    """The definition in exact fractions: one threshold and one region at a time."""
    seen = [(values[~np.isnan(values)], saturation) for values, saturation in regions]
    counted = [(v, min(max(saturation, 1), v.size)) for v, saturation in seen if v.size]
    curve = [(Fraction(0), Fraction(0))]
    for threshold in np.unique(np.concatenate([good, *(v for v, _ in counted)]))[::-1]:
        rate = Fraction(int((good >= threshold).sum()), good.size)
        found = [Fraction(min(int((v >= threshold).sum()), s), s) for v, s in counted]
        curve.append((rate, sum(found) / len(found)))
    total = Fraction(0)
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < limit and x1 > x0:
            x = min(x1, limit)
            total += (x - x0) * (y0 + y0 + (y1 - y0) * (x - x0) / (x1 - x0)) / 2
    return float(total / limit)


if __name__ == "__main__":
    main()
