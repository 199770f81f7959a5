"""The learned representation beside its baselines: figures of every method, category and seed.

    python benchmarks/baselines.py DATA/mvtec_ad/bottle DATA/magnetic_tile/tile --seeds 0,1,2

Each folder is a category in MVTec AD's layout. Prints a Markdown table: mean over the seeds, with
the lowest and highest in brackets, and the seconds of the fit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import reconpatch
from reconpatch.evaluation.datasets import find_test_photos
from reconpatch.evaluation.evaluate import evaluate
from reconpatch.method.representation import METHODS

FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("categories", nargs="+", type=Path)
    arguments.add_argument("--seeds", default="0,1,2")
    arguments.add_argument("--methods", default=",".join(METHODS))
    arguments.add_argument("--recipe", default="default")
    arguments.add_argument("--json", type=Path, help="also write every run to this file")
    given = arguments.parse_args()

    runs = []
    print(f"| category | method | {' | '.join(FIGURES.values())} | fit s |")
    print(f"|---|---|{'---|' * (len(FIGURES) + 1)}")
    for category in given.categories:
        for method in given.methods.split(","):
            mine = []
            for seed in given.seeds.split(","):
                model = reconpatch.fit(
                    category / "train" / "good", recipe=given.recipe, method=method, seed=int(seed)
                )
                figures = evaluate(model, find_test_photos(category)).to_dict()
                seconds = model.provenance["seconds"]
                mine.append(
                    {"category": category.name, "method": method, "seed": int(seed), **figures}
                    | {"seconds": seconds, "training": model.provenance["training"]}
                )
            runs += mine
            cells = [spread([run[key] for run in mine]) for key in FIGURES]
            fit_seconds = np.mean([sum(run["seconds"].values()) for run in mine])
            print(
                f"| {category.name} | {method} | {' | '.join(cells)} | {fit_seconds:.0f} |",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps(runs, indent=1))


def spread(values: list[float | None]) -> str:
    """Mean, lowest and highest in per cent."""
    known = [100 * value for value in values if value is not None]
    return f"{np.mean(known):.2f} ({min(known):.2f}-{max(known):.2f})" if known else "-"


if __name__ == "__main__":
    main()
