"""False alarms on good test photos against what was promised, at several rates and seeds.

    python benchmarks/false_alarms.py DATA/magnetic_tile/tile --seeds 0,1,2

The interval counts both samples: 95 % of all fits with this many good photos, tried on this many
new ones, lie inside it while the promise holds (beta-binomial).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import reconpatch
from reconpatch.method.calibration import beta_binomial_interval, shift_test
from reconpatch.photos.images import list_photos

RATES = (0.01, 0.05, 0.10)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("category", type=Path)
    arguments.add_argument("--seeds", default="0,1,2")
    given = arguments.parse_args()

    print("| seed | rate | above | of | share | 95 % interval | looks different? |")
    print("|---|---|---|---|---|---|---|")
    for seed in given.seeds.split(","):
        model = reconpatch.fit(given.category / "train" / "good", seed=int(seed))
        photos = list_photos(given.category / "test" / "good")
        scores = np.array([result.score for result in model.inspect_many(photos)])
        for rate in RATES:
            calibration = model.with_false_alarm_rate(rate).calibration
            threshold = calibration.image_threshold
            n, k, m = threshold.photos, threshold.rank, len(scores)
            low, high = beta_binomial_interval(m, n + 1 - k, k)
            above = int((scores > threshold.value).sum())
            shift = shift_test(calibration.scores, scores, threshold)
            print(
                f"| {seed} | {rate:g} | {above} | {m} | {above / m:.1%} | {low} to {high} | "
                f"{'yes' if shift.different else 'no'} (p exceed {shift.p_exceed:.2g}, "
                f"p rank {shift.p_rank:.2g}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
