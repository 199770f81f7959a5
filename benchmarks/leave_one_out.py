"""How well the scores that set the threshold stand for those of new photos.

    python benchmarks/leave_one_out.py DATA/mvtec_ad/bottle/train/good --folds 10

One fit on all good photos gives each a score as if it were new (stand-ins in place of its rows),
and for comparison a score against the bank with its rows only deleted. The truth comes from refits:
each fold is scored by a whole fit (f, coreset and all) without it. Printed are medians and high
quantiles of the three, and how many held-out photos lie above the thresholds of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import reconpatch
from reconpatch.method.calibration import conformal_threshold
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.scoring import score_patches
from reconpatch.model.good_photos import groups_of_rows
from reconpatch.model.model import Model
from reconpatch.photos.images import list_photos, read_photo

RATES = (0.01, 0.05, 0.10)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("good", type=Path)
    arguments.add_argument("--folds", type=int, default=10)
    arguments.add_argument("--method", default="reconpatch")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()

    paths = list_photos(given.good)
    model = reconpatch.fit(given.good, method=given.method, seed=given.seed)
    scores = {
        "refit without": refitted(paths, given.folds, given.method, given.seed),
        "stand-ins": model.calibration.scores,
        "only deleted": deleted(model, paths),
    }
    truth = scores["refit without"]
    rates = " | ".join(f"above its {rate:.0%} threshold" for rate in RATES)
    print(f"| scores | median | 90 % | 99 % | {rates} |")
    print(f"|---|---|---|---|{'---|' * len(RATES)}")
    for name, values in scores.items():
        quantiles = " | ".join(f"{np.quantile(values, q):.2f}" for q in (0.5, 0.9, 0.99))
        above = [truth > conformal_threshold(values, rate).value for rate in RATES]
        shares = " | ".join(f"{100 * share.mean():.1f} %" for share in above)
        print(f"| {name} | {quantiles} | {shares} |")


def refitted(paths: list[Path], folds: int, method: str, seed: int) -> np.ndarray:
    """Each photo's score by a fit that never saw its fold."""
    fold = np.random.default_rng(seed).permutation(len(paths)) % folds
    scores = np.empty(len(paths))
    for number in range(folds):
        kept = [path for path, its in zip(paths, fold, strict=True) if its != number]
        model = reconpatch.fit(kept, method=method, seed=seed, thumbnails=False)
        for i in np.flatnonzero(fold == number):
            scores[i] = model.score_as_new(read_photo(paths[i])).image_score
    return scores


def deleted(model: Model, paths: list[Path]) -> np.ndarray:
    """Each photo's score against the bank with its own rows deleted and nothing in their place."""
    groups = groups_of_rows(model.bank, model.photos)
    bank, scores = model.bank, []
    for photo, path in zip(model.photos, paths, strict=True):
        kept = groups != photo.group
        rest = MemoryBank(bank.rows[kept], bank.photo[kept], bank.place[kept], bank.stand_ins[kept])
        patches = model.represent(read_photo(path))
        scores.append(
            score_patches(patches, rest, model.settings.scoring, model.layout).image_score
        )
    return np.array(scores)


if __name__ == "__main__":
    main()
