"""What a few confirmed defects are worth: a curve over how many f has learned from.

    python benchmarks/few_defects.py run DATA --categories ballscrew,elpv_poly --records few.jsonl
    python benchmarks/few_defects.py table few.jsonl

A run is a fit by the default recipe at 224 on a category's good photos and on some of its defective
test photos, drawn at random, and its scores of the other test photos: a line of the records; a run
whose line is there is not done again. The photos are those of `benchmarks/representation.py`, and
the first N defects of a draw are among its first M > N. Beside each run stand the scores of a fit
without confirmed defects on the same test photos: what is compared differs in nothing else.

With `--masks` f is shown where a confirmed defect is, if the data have masks; without, it looks at
where the map of made defects alone is highest, as for an operator who only says "defective".

With `--unjudged` f learns from them whatever versions that have not seen them say, and those, which
take most of a fit's time, are not made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from representation import CATEGORIES, photos_of, read_records

import reconpatch
from reconpatch.evaluation.datasets import LabelledPhoto
from reconpatch.evaluation.feature_cache import FeatureCache
from reconpatch.fitting import confirmed as confirmed_defects
from reconpatch.fitting.confirmed import ConfirmedDefect
from reconpatch.method.metrics import image_metrics
from reconpatch.model.model import Inspector

COUNTS = (2, 4, 8, 16, 32)
LEAST_LEFT = 15
"""Defects that have to be left to judge by."""
RATES = (0.01, 0.05, 0.1)


def drawn(defects: Sequence[LabelledPhoto], draw: int) -> list[LabelledPhoto]:
    """The defects in the order in which a draw takes them."""
    return [defects[i] for i in np.random.default_rng([20, draw]).permutation(len(defects))]


def lay_out(defects: Sequence[LabelledPhoto], folder: Path, masks: bool) -> Path:
    """A folder of confirmed defects as an operator's, each photo under its number."""
    for i, photo in enumerate(defects):
        path = folder / photo.label / f"{i}{photo.path.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo.path, path)
        for mask in photo.masks if masks else ():
            path = folder / "ground_truth" / photo.label / f"{i}_mask{mask.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(mask, path)
    return folder


def in_one_fold(defects: Sequence[ConfirmedDefect], seed: int) -> list[int]:
    """Takes the place of `fold_of` where no defect is to be left out."""
    del seed
    return [0] * len(defects)


def scored(model: Inspector, photos: Sequence[LabelledPhoto]) -> npt.NDArray[np.float64]:
    """Image scores as ratios to the threshold."""
    return np.array([model.inspect(photo.path).score / model.threshold for photo in photos])


def figures(
    model: Inspector,
    scores: npt.NDArray[np.float64],
    photos: Sequence[LabelledPhoto],
    chosen: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """What a model makes of the chosen test photos."""
    labels = np.array([photo.defective for photo in photos])[chosen]
    scores = scores[chosen]
    above = {
        f"{rate:g}": scores * model.threshold > model.with_false_alarm_rate(rate).threshold
        for rate in RATES
    }
    return {
        "image_auroc": 100 * (image_metrics(labels, scores)["image_auroc"] or 0.0),
        "found": int((scores > 1)[labels].sum()),
        "defective": int(labels.sum()),
        "good": int((~labels).sum()),
        "flagged_at": {rate: int(flagged[~labels].sum()) for rate, flagged in above.items()},
    }


def run_category(category: str, given: argparse.Namespace) -> None:
    """All runs of a category that are not among the records."""
    done = {
        (r["category"], r["draw"], r["count"], r["masks"], r.get("unjudged", False), r["fit"])
        for r in read_records(given.records)
    }
    fit, test = photos_of(category, given.data)
    fit = fit[: given.good] if given.good else fit
    defects = [photo for photo in test if photo.defective]
    counts = [n for n in given.counts if len(defects) - n >= LEAST_LEFT]
    runs = [(draw, n) for draw in range(given.draws) for n in counts]
    kind = (given.masks, given.unjudged, len(fit))
    wanted = [run for run in runs if (category, *run, *kind) not in done]
    if not wanted:
        return
    with FeatureCache(Path(tempfile.gettempdir())) as cache:
        options: dict[str, Any] = {"size": 224, "remember": cache.remember}
        base = reconpatch.fit(fit, **options)
        base_scores = scored(base, test)
        for draw, count in wanted:
            confirmed = drawn(defects, draw)[:count]
            with tempfile.TemporaryDirectory() as folder:
                taught = reconpatch.fit(
                    fit, confirmed=lay_out(confirmed, Path(folder), given.masks), **options
                )
            learned = taught.members[0].provenance["confirmed_defects"]
            chosen = np.array([photo not in confirmed for photo in test])
            record = {
                "category": category,
                "draw": draw,
                "count": count,
                "masks": given.masks,
                "unjudged": given.unjudged,
                "fit": len(fit),
                "without": figures(base, base_scores, test, chosen),
                "with": figures(taught, scored(taught, test), test, chosen),
                "learned": {k: v for k, v in learned.items() if k != "photos"},
                "seconds": taught.provenance["seconds"],
            }
            with given.records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            before, after = record["without"]["image_auroc"], record["with"]["image_auroc"]
            print(f"{category} | draw {draw} | {count} | {before:.2f} -> {after:.2f}", flush=True)


def run_all(given: argparse.Namespace) -> None:
    """All categories."""
    if given.unjudged:  # of a single fold nothing is left out
        confirmed_defects.fold_of = in_one_fold
    for category in given.categories.split(","):
        run_category(category, given)


def print_table(given: argparse.Namespace) -> None:
    """Means over the draws, with the lowest and highest change."""
    of: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for record in read_records(given.records):
        how = ("mask" if record["masks"] else "map") + ", unjudged" * record.get("unjudged", False)
        of[record["category"], how, record["count"]].append(record)
    rates = " | ".join(f"good flagged at {rate:.0%}" for rate in RATES)
    print(f"| category | place | defects | draws | image AUROC | change | found at 1 % | {rates} |")
    print("|---|---|---|---|---|---|---|" + "---|" * len(RATES))
    for (category, how, count), records in of.items():
        before, after = (
            np.array([r[side]["image_auroc"] for r in records]) for side in ("without", "with")
        )
        change = after - before
        cells = [
            category,
            how,
            str(count),
            str(len(records)),
            f"{before.mean():.1f} -> {after.mean():.1f}",
            f"{change.mean():+.1f} ({change.min():+.1f} to {change.max():+.1f})",
            "{} -> {} of {}".format(
                *(sum(r[side]["found"] for r in records) for side in ("without", "with")),
                sum(r["with"]["defective"] for r in records),
            ),
            *(
                "{} -> {} of {}".format(
                    *(
                        sum(r[side]["flagged_at"][f"{rate:g}"] for r in records)
                        for side in ("without", "with")
                    ),
                    sum(r["with"]["good"] for r in records),
                )
                for rate in RATES
            ),
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="make the records that are missing")
    runs.add_argument("data", type=Path)
    runs.add_argument("--categories", default=",".join(CATEGORIES))
    runs.add_argument("--counts", type=lambda t: tuple(map(int, t.split(","))), default=COUNTS)
    runs.add_argument("--draws", type=int, default=10)
    runs.add_argument("--good", type=int, default=0, help="fit on so many at most; 0: on 200")
    runs.add_argument("--masks", action="store_true")
    runs.add_argument("--unjudged", action="store_true")
    runs.add_argument("--records", type=Path, default=Path("few_defects.jsonl"))
    runs.set_defaults(do=run_all)
    table = commands.add_parser("table", help="print what the records say")
    table.add_argument("records", type=Path)
    table.set_defaults(do=print_table)
    given = parser.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
