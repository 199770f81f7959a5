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
take most of a fit's time, are not made. What the fits of a category have in common is done once
then: they run inside of one fit, where it comes to decide on its confirmed defects, and all test
photos are given as such, so that their features are at hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from representation import CATEGORIES, photos_of, read_records

import reconpatch
from reconpatch.evaluation.datasets import LabelledPhoto
from reconpatch.evaluation.feature_cache import FeatureCache
from reconpatch.features.store import PatchStore
from reconpatch.fitting import model as fitting
from reconpatch.fitting.confirmed import (
    Banked,
    BankOf,
    ConfirmedDefect,
    patches_of,
    score_of,
    versions_of,
)
from reconpatch.method.calibration import Calibration
from reconpatch.method.contrastive_components import Contrast, confirmed_share
from reconpatch.method.memory_bank import Floats
from reconpatch.method.metrics import image_metrics
from reconpatch.method.settings import FitSettings
from reconpatch.model.model import Inspector
from reconpatch.photos.layout import Layout

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
        kind = photo.label if photo.defective else "no_defect"
        path = folder / kind / f"{i}{photo.path.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo.path, path)
        for mask in photo.masks if masks else ():
            path = folder / "ground_truth" / photo.label / f"{i}_mask{mask.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(mask, path)
    return folder


def scored(model: Inspector, photos: Sequence[LabelledPhoto]) -> npt.NDArray[np.float64]:
    """Image scores."""
    return np.array([model.inspect(photo.path).score for photo in photos])


def figures(
    calibration: Calibration,
    scores: npt.NDArray[np.float64],
    photos: Sequence[LabelledPhoto],
    chosen: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    """What a model makes of the chosen test photos."""
    labels = np.array([photo.defective for photo in photos])[chosen]
    scores = scores[chosen]
    above = {
        f"{rate:g}": scores > replace(calibration, rate=rate).image_threshold.value
        for rate in RATES
    }
    return {
        "image_auroc": 100 * (image_metrics(labels, scores)["image_auroc"] or 0.0),
        "found": int((scores > calibration.image_threshold.value)[labels].sum()),
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
        keep = _Records(category, given, test, len(fit))
        if given.unjudged:
            _run_inside(fit, test, defects, wanted, keep, options)
            return
        base = reconpatch.fit(fit, **options)
        base_scores = scored(base, test)
        for draw, count in wanted:
            confirmed = drawn(defects, draw)[:count]
            with tempfile.TemporaryDirectory() as folder:
                taught = reconpatch.fit(
                    fit, confirmed=lay_out(confirmed, Path(folder), given.masks), **options
                )
            keep(
                draw, confirmed, base.calibration, base_scores, taught.calibration,
                scored(taught, test), taught.members[0].provenance["confirmed_defects"],
            )  # fmt: skip


class _Records:
    """Writes a line for each run of a category."""

    def __init__(
        self, category: str, given: argparse.Namespace, test: Sequence[LabelledPhoto], fit: int
    ) -> None:
        self.category, self.given, self.test, self.fit = category, given, test, fit

    def __call__(
        self,
        draw: int,
        confirmed: Sequence[LabelledPhoto],
        before: Calibration,
        scores_before: npt.NDArray[np.float64],
        after: Calibration,
        scores_after: npt.NDArray[np.float64],
        learned: dict[str, Any],
    ) -> None:
        chosen = np.array([photo not in confirmed for photo in self.test])
        record = {
            "category": self.category,
            "draw": draw,
            "count": len(confirmed),
            "masks": self.given.masks,
            "unjudged": self.given.unjudged,
            "fit": self.fit,
            "without": figures(before, scores_before, self.test, chosen),
            "with": figures(after, scores_after, self.test, chosen),
            "learned": {k: v for k, v in learned.items() if k != "photos"},
        }
        with self.given.records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        found = (record[side]["image_auroc"] for side in ("without", "with"))
        said = " -> ".join(f"{auroc:.2f}" for auroc in found)
        print(f"{self.category} | draw {draw} | {len(confirmed)} | {said}", flush=True)


class _DoneError(Exception):
    """Ends the fit that the runs went on in."""


def _run_inside(
    fit: Sequence[Path],
    test: Sequence[LabelledPhoto],
    defects: Sequence[LabelledPhoto],
    wanted: Sequence[tuple[int, int]],
    keep: _Records,
    options: dict[str, Any],
) -> None:
    """All runs of a category, where a fit would decide whether f learns from its defects."""

    def runs(
        given: Sequence[ConfirmedDefect],
        contrast: Contrast,
        patches: PatchStore,
        p: Floats,
        parts: npt.NDArray[np.int64],
        settings: FitSettings,
        layout: Layout,
        bank_of: BankOf,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        del progress
        of = {int(Path(one.name).stem): one for one in given}
        assert len(of) == len(test), "two test photos are one picture"
        version = versions_of(patches, p, parts, settings, bank_of)

        def scores(by: Banked) -> npt.NDArray[np.float64]:
            return np.array([score_of(of[i], by, layout).image_score for i in range(len(test))])

        alone = version(contrast, "", True)
        by_alone = scores(alone)
        for draw, count in wanted:
            confirmed = drawn(defects, draw)[:count]
            ones = [of[test.index(photo)] for photo in confirmed]
            to_learn = [
                patches_of(one, score_of(one, alone, layout), alone, alone.scoring, layout)
                for one in ones
            ]
            learned = [patches for patches in to_learn if patches is not None]
            taught = version(replace(contrast, confirmed=learned), "", alone.turned)
            keep(
                draw, confirmed, alone.calibration, by_alone, taught.calibration, scores(taught),
                {"kept": True, "share": confirmed_share(len(learned))},
            )  # fmt: skip
        raise _DoneError

    whole, fitting.learn = fitting.learn, runs
    try:
        with tempfile.TemporaryDirectory() as folder:
            given = lay_out(test, Path(folder), keep.given.masks)
            reconpatch.fit(fit, confirmed=given, **options)
    except _DoneError:
        pass
    finally:
        fitting.learn = whole


def run_all(given: argparse.Namespace) -> None:
    """All categories."""
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
