"""The drift alarm on real photos: the good test photos as they are, then lit otherwise.

    python benchmarks/drift.py                              (normal scores)
    python benchmarks/drift.py DATA/magnetic_tile/tile

Without photos, shifts of normal scores: the median and the largest number of photos until the
alarm, and the false alarms at a promise of 10 in 10,000. With photos, good test photos come in
random order, --photos of them (with repetition), then the same with one change each; the table says
at which photo after the change the alarm came.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import reconpatch
from reconpatch.method.calibration import Calibration
from reconpatch.photos.images import list_photos
from reconpatch.station.drift import DriftMonitor

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "5 % darker": lambda image: image.point(lambda v: round(0.95 * v)),
    "10 % darker": lambda image: image.point(lambda v: round(0.9 * v)),
    "20 % darker": lambda image: image.point(lambda v: round(0.8 * v)),
    "blurred, 1 pixel": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "noise of 5": lambda image: Image.fromarray(
        np.clip(
            np.asarray(image, dtype=float)
            + np.random.default_rng(0).normal(0, 5, np.asarray(image).shape),
            0,
            255,
        ).astype(np.uint8)
    ),
}


def monitor_of(photos: int, rng: np.random.Generator, **options: float) -> DriftMonitor:
    scores = rng.normal(20, 2, photos)
    return DriftMonitor(Calibration(scores, scores, 0.01, "simulated"), **options)


def simulate(streams: int = 20, photos: int = 3000) -> None:
    for calibrated in (10, 50, 200, 1000):
        alarms = 0
        for stream in range(streams):
            rng = np.random.default_rng(stream)
            monitor = monitor_of(calibrated, rng, per_10000=10, seed=stream)
            alarms += sum(monitor.add(s) is not None for s in rng.normal(20, 2, photos))
        rate = alarms / (streams * photos) * 10_000
        print(f"{calibrated} calibration photos: {rate:.1f} false alarms in 10,000", flush=True)
    print("| calibration photos | photos before | shift | median | largest |")
    print("|---|---|---|---|---|")
    for calibrated in (50, 200, 1000):
        for before in (0, 500):
            for shift in (0.5, 1, -1, 2, 4):
                delays = []
                for stream in range(streams):
                    rng = np.random.default_rng(1000 + stream)
                    monitor = monitor_of(calibrated, rng, seed=stream)
                    for score in rng.normal(20, 2, before):
                        monitor.add(score)
                    later = rng.normal(20 + 2 * shift, 2, 1000)
                    found = (i for i, s in enumerate(later, start=1) if monitor.add(s))
                    delays.append(next(found, np.inf))
                median, most = np.median(delays), max(delays)
                print(f"| {calibrated} | {before} | {shift} | {median:.0f} | {most} |", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("category", type=Path, nargs="?")
    arguments.add_argument("--photos", type=int, default=500)
    arguments.add_argument("--orders", type=int, default=10)
    given = arguments.parse_args()
    if given.category is None:
        simulate()
        return
    model = reconpatch.fit(given.category / "train" / "good")
    paths = list_photos(given.category / "test" / "good")
    scores = {
        name: np.array([model.inspect(change(Image.open(p).convert("RGB"))).score for p in paths])
        for name, change in CHANGES.items()
    }
    print("| change | median score | flagged | alarms before | photos until the alarm |")
    print("|---|---|---|---|---|")
    for name, changed in scores.items():
        before, delays = 0, []
        for order in range(given.orders):
            rng = np.random.default_rng(order)
            monitor = DriftMonitor(model.calibration, seed=order)
            for score in rng.choice(scores["none"], given.photos):
                before += monitor.add(score) is not None
            later = rng.choice(changed, given.photos)
            delay = next((i for i, s in enumerate(later, start=1) if monitor.add(s)), None)
            delays.append("-" if delay is None else str(delay))
        flagged = int((changed > model.threshold).sum())
        print(
            f"| {name} | {np.median(changed):.2f} | {flagged} of {len(changed)} | {before} | "
            f"{' '.join(delays)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
