"""The drift alarm on real photos: the good test photos as they are, then lit otherwise.

    python benchmarks/drift.py DATA/magnetic_tile/tile

Good test photos come in random order, --photos of them (with repetition), then the same with one
change each; the table says at which photo after the change the alarm came.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import reconpatch
from reconpatch.drift import DriftMonitor
from reconpatch.images import list_photos

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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("category", type=Path)
    arguments.add_argument("--photos", type=int, default=500)
    arguments.add_argument("--orders", type=int, default=10)
    given = arguments.parse_args()
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
