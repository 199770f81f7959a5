"""The experiment bench: what makes the representation better, and whether that holds elsewhere.

    python benchmarks/representation.py run DATA --variants "patchcore;default" --seeds 0,1,2 \
        --records records.jsonl
    python benchmarks/representation.py table records.jsonl --against patchcore

A run is a fit and its scores of a category's test photos, and a line of the records with the
settings that made it; a run whose line is there is not done again. Variants of one input share
their patch features. `table` prints means over the seeds, the forecast beside the truth, and the
ratio of mean errors (100 - image AUROC) to another variant with each category left out in turn, and
what each would get that the other categories choose for.

At most 200 good photos and 300 test photos of a category are used, those whose names have the
lowest SHA-256: what most users have, and small enough for many runs; `benchmarks/lay_out.py` lays
the same photos out for other programs. ELPV comes from the package elpv-dataset: cells of
probability 0 are good, of 1 defective, others unused; of the good ones those whose name's SHA-256
is below 7 modulo 10 are fitted on. The six papers of PIPED count as one category. Figures are at
the photos' own pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import reconpatch
from reconpatch.evaluation.datasets import LabelledPhoto, load_dataset, read_mask
from reconpatch.evaluation.feature_cache import FeatureCache
from reconpatch.method.calibration import beta_binomial_interval, conformal_threshold
from reconpatch.method.metrics import image_metrics, pixel_metrics
from reconpatch.method.settings import settings_for
from reconpatch.photos.images import read_photo

FIT, TEST = 200, 300
RATES = (0.01, 0.05, 0.1)
PAPERS = ("PA_BDP01_TL", "PA_BRG01_RL", "PA_BRG03_TL", "PA_FLR01_TL", "PA_FVN01_TL", "PA_GLA01_TL")
FOLDERS = {
    "bottle": ("mvtec_ad", "bottle"),
    "tile": ("magnetic_tile", "tile"),
    "cookie": ("aws_cookie", "cookie"),
    "ballscrew": ("bsdata", "ballscrew"),
    "impeller": ("casting", "impeller"),
    "board": ("woodscrews", "board"),
    **{paper: ("piped", paper) for paper in PAPERS},
}
CATEGORIES = (*FOLDERS, "elpv_mono", "elpv_poly")
"""Development categories. Beside them stand deeppcb_00041 and the like, groups of DeepPCB: what
chose no default but the larger input."""

# What is tried: changes by name to the default recipe at 224.
VARIANTS: dict[str, dict[str, Any]] = {
    "patchcore": {"method": "patchcore", "top": 0.0, "bank": 0.01},
    "patchcore, rows and score of the default": {"method": "patchcore"},
    "principal directions alone": {"method": "untrained"},
    "relevant components": {
        "init": "relevant_components",
        "relevant_power": 0.25,
        "turns": "never",
    },
    "default": {},
    "default, auto size": {"size": "auto"},
    "size 448": {"size": 448},
    "best": {"size": None, "quality": "best"},  # whose members have sizes of their own
    "without the mean of all distances": {"overall_share": 0.0},
    "no turns": {"turns": "never"},
    "contrastive alone": {"contrast_share": 100.0, "contrast": 1.0},
    "share 1": {"contrast_share": 1.0},
    "share 0.7": {"contrast_share": 0.7, "contrast": 3.0},  # the score weighs as by the default
    "contrast 1": {"contrast": 1.0},
    "contrast 6": {"contrast": 6.0},
    "power 0.5": {"contrast_power": 0.5},
    "outputs alone": {"expanded": False, "basis": 152},
    "basis 768": {"basis": 768},
    "64 dimensions": {"dim": 64},
    "then steps": {"steps": 200},
}


def by_hash(photos: Iterable[Any], count: int) -> list[Any]:
    """The photos whose names have the lowest SHA-256, in the order of their names."""
    paths = sorted(photos, key=lambda photo: _digest(_path(photo)))[:count]
    return sorted(paths, key=lambda photo: str(_path(photo)))


def _path(photo: Any) -> Path:
    return photo.path if isinstance(photo, LabelledPhoto) else photo


def _digest(path: Path) -> str:
    return hashlib.sha256(path.name.encode()).hexdigest()


def photos_of(category: str, data: Path) -> tuple[list[Path], list[LabelledPhoto]]:
    """Photos to fit and to test on; of the latter half are good ones, if there are as many."""
    if category.startswith("elpv"):
        fit, test = _elpv(category.removeprefix("elpv_"))
    elif category.startswith("deeppcb"):
        return _deep_pcb(category.removeprefix("deeppcb_"), data / "DeepPCB" / "PCBData")
    else:
        root, name = FOLDERS[category]
        (found,) = load_dataset(data / root, "mvtec", [name])
        fit, test = list(found.train), list(found.test)
    good = by_hash([photo for photo in test if not photo.defective], TEST // 2)
    bad = by_hash([photo for photo in test if photo.defective], TEST - len(good))
    return by_hash(fit, FIT), good + bad


def _deep_pcb(group: str, data: Path) -> tuple[list[Path], list[LabelledPhoto]]:
    """Templates of six pairs in ten to fit on, and templates and tested boards of the others."""
    folder = data / f"group{group}" / group
    pairs = sorted(path.name.removesuffix("_temp.jpg") for path in folder.glob("*_temp.jpg"))
    random.Random(0).shuffle(pairs)
    count = min(120, len(pairs) * 6 // 10)
    fit, rest = pairs[:count], pairs[count:][:100]
    test = [
        LabelledPhoto(folder / f"{pair}_{name}.jpg", label)
        for label, name in (("good", "temp"), ("defect", "test"))
        for pair in rest
    ]
    return [folder / f"{pair}_temp.jpg" for pair in sorted(fit)], test


def _elpv(kind: str) -> tuple[list[Path], list[LabelledPhoto]]:
    import elpv_dataset

    table = next(Path(elpv_dataset.__file__).parent.rglob("labels.csv"))
    rows = [line.split() for line in table.read_text().splitlines()]
    mine = [(table.parent / name, float(p)) for name, p, module in rows if module == kind]
    good = [path for path, probability in mine if probability == 0]
    fit = [path for path in good if int(_digest(path), 16) % 10 < 7]
    test = [LabelledPhoto(path, "good") for path in good if path not in set(fit)]
    return fit, test + [LabelledPhoto(path, "defect") for path, p in mine if p == 1]


# --- One run --------------------------------------------------------------------------------------


def settings_of(variant: str, seed: int) -> dict[str, Any]:
    return {"size": 224, "seed": seed, **VARIANTS[variant]}


def record(
    category: str, variant: str, seed: int, data: Path, cache: FeatureCache
) -> dict[str, Any]:
    """Fit, score the test photos, measure."""
    fit, test = photos_of(category, data)
    start = time.perf_counter()
    model = reconpatch.fit(fit, remember=cache.remember, **settings_of(variant, seed))
    seconds = time.perf_counter() - start
    labels, scores, masks, maps, flagged = [], [], [], [], []
    for photo in test:
        picture = read_photo(photo.path)
        result = model.inspect(picture.pixels)
        labels.append(photo.defective)
        scores.append(result.score)
        flagged.append(result.anomalous)
        if any(other.masks for other in test):
            masks.append(read_mask(photo, picture.height, picture.width))
            maps.append(result.heatmap)
    truth = np.array(labels)
    found = image_metrics(truth, np.array(scores)) | (pixel_metrics(masks, maps) if maps else {})
    wanted = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")
    quality = model.provenance.get("quality")
    good_scores = np.array(scores)[~truth]
    return {
        "category": category,
        "variant": variant,
        "seed": seed,
        "metrics": {name: 100 * value for name in wanted if (value := found.get(name)) is not None},
        "forecast": 100 * quality["auroc"] if quality else None,
        "flagged_good": int(np.sum(np.array(flagged)[~truth])),
        "flagged_at": {
            f"{rate:g}": flagged_at(model.calibration.scores, good_scores, rate) for rate in RATES
        },
        "good": int((~truth).sum()),
        "found": int(np.sum(np.array(flagged)[truth])),
        "defective": int(truth.sum()),
        "seconds": seconds,
        "settings": _as_json(variant, seed),
    }


def flagged_at(calibration: Any, good: Any, rate: float) -> dict[str, Any]:
    """Good test photos above the threshold of a rate, and how many 95 % of fits would flag."""
    threshold = conformal_threshold(calibration, rate)
    a, b = threshold.photos + 1 - threshold.rank, threshold.rank
    return {
        "flagged": int((good > threshold.value).sum()),
        "interval": list(beta_binomial_interval(len(good), a, b)),
    }


def _as_json(variant: str, seed: int) -> Any:
    given = settings_of(variant, seed)
    if "quality" in given:  # of several members, each with settings of its own
        return given
    return json.loads(json.dumps(settings_for(**given).to_dict()))


# --- Commands -------------------------------------------------------------------------------------


def run_all(given: argparse.Namespace) -> None:
    # A line counts only while its variant still means the same.
    done = {
        (r["category"], r["variant"], r["seed"])
        for r in read_records(given.records)
        if r["variant"] in VARIANTS and r["settings"] == _as_json(r["variant"], r["seed"])
    }
    wanted = itertools.product(
        given.categories.split(","), map(int, given.seeds.split(",")), given.variants.split(";")
    )
    for category, runs in itertools.groupby(wanted, key=lambda run: run[0]):
        with FeatureCache(Path(tempfile.gettempdir())) as cache:
            for _, seed, variant in runs:
                if (category, variant, seed) in done:
                    continue
                made = record(category, variant, seed, given.data, cache)
                with given.records.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(made) + "\n")
                cells = " ".join(f"{name} {value:.2f}" for name, value in made["metrics"].items())
                print(f"{category} | {variant} | seed {seed} | {cells}", flush=True)


def read_records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_table(given: argparse.Namespace) -> None:
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for made in read_records(given.records):
        for name, value in made["metrics"].items():
            values[made["variant"], _group(made["category"]), name].append(value)
    variants = list(dict.fromkeys(variant for variant, _, _ in values))
    categories = [
        c for c in dict.fromkeys(map(_group, CATEGORIES)) if any(key[1] == c for key in values)
    ]
    for name in ("image_auroc", "pixel_ap", "aupro"):
        shown = [c for c in categories if any(key[1:] == (c, name) for key in values)]
        print(f"\n{name}, mean (lowest to highest) over seeds\n")
        print(f"| variant | {' | '.join(shown)} |\n|---|{'---|' * len(shown)}")
        for variant in variants:
            cells = [spread(values.get((variant, c, name), [])) for c in shown]
            if any(cells):
                print(f"| {variant} | {' | '.join(cells)} |")
    print(f"\nratio of mean errors (100 - image AUROC) to {given.against}\n")
    headers = ["all", *(f"without {c}" for c in categories)]
    print(f"| variant | {' | '.join(headers)} |\n|---|{'---|' * len(headers)}")
    for variant in variants:
        ratios = [
            error_ratio(values, variant, given.against, [c for c in categories if c != left_out])
            for left_out in ("", *categories)
        ]
        print(f"| {variant} | {' | '.join(ratios)} |")
    print_left_out(values, variants, given.against, categories)
    print_counts([r for r in read_records(given.records) if "flagged_good" in r])
    print_rates([r for r in read_records(given.records) if "flagged_at" in r])


def _group(category: str) -> str:
    """The six papers are alike: they count as one category."""
    return "papers" if category in PAPERS else category


def print_counts(records: Sequence[dict[str, Any]]) -> None:
    """At the threshold of 1 %: good photos flagged and defective ones found; the forecast."""
    print("\nat the threshold from good photos alone; forecast and true image AUROC\n")
    print("| variant | category | good flagged | defective found | forecast | true |")
    print("|---|---|---|---|---|---|")
    of: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for made in records:
        of[made["variant"], _group(made["category"])].append(made)
    for (variant, category), runs in of.items():
        flagged, good, found, defective = (
            sum(run[name] for run in runs)
            for name in ("flagged_good", "good", "found", "defective")
        )
        forecasts = [run["forecast"] for run in runs if run.get("forecast") is not None]
        forecast = f"{np.mean(forecasts):.1f}" if forecasts else ""
        true = f"{np.mean([run['metrics']['image_auroc'] for run in runs]):.1f}"
        cells = [variant, category, f"{flagged} of {good}", f"{found} of {defective}"]
        print(f"| {' | '.join([*cells, forecast, true])} |")


def print_rates(records: Sequence[dict[str, Any]]) -> None:
    """Good photos flagged at three rates, and how many runs lie in their interval of 95 %."""
    print("\ngood test photos flagged at three promised rates (runs inside of the 95 % interval)\n")
    print(f"| variant | category | good | {' | '.join(f'{rate:.0%}' for rate in RATES)} |")
    print("|---|---|---|---|---|---|")
    of: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for made in records:
        of[made["variant"], _group(made["category"])].append(made)
    for (variant, category), runs in of.items():
        cells = []
        for rate in RATES:
            found = [run["flagged_at"][f"{rate:g}"] for run in runs]
            inside = sum(f["interval"][0] <= f["flagged"] <= f["interval"][1] for f in found)
            cells.append(f"{sum(f['flagged'] for f in found)} ({inside} of {len(found)})")
        good = str(sum(run["good"] for run in runs))
        print(f"| {' | '.join([variant, category, good, *cells])} |")


def print_left_out(
    values: dict[tuple[str, str, str], list[float]],
    variants: Sequence[str],
    against: str,
    categories: Sequence[str],
) -> None:
    """Each category by the variant that has the least mean error on the others."""
    errors = {
        variant: [100 - np.mean(values[variant, c, "image_auroc"]) for c in categories]
        for variant in variants
        if all(values.get((variant, c, "image_auroc")) for c in categories)
    }
    if against not in errors or len(categories) < 2:
        return
    print(f"\nleave one category out, of {len(errors)} variants that have them all\n")
    print(f"| left out | chosen on the others | its error | of {against} |\n|---|---|---|---|")
    chosen = []
    for i, category in enumerate(categories):
        best = min(errors, key=lambda v: sum(errors[v]) - errors[v][i])
        chosen.append(errors[best][i])
        print(f"| {category} | {best} | {chosen[-1]:.2f} | {errors[against][i]:.2f} |")
    mine, theirs = np.mean(chosen), np.mean(errors[against])
    print(f"| mean | | {mine:.2f} | {theirs:.2f} (ratio {mine / theirs:.2f}) |")


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def error_ratio(
    values: dict[tuple[str, str, str], list[float]],
    variant: str,
    against: str,
    categories: Sequence[str],
) -> str:
    pairs = [
        [values.get((v, c, "image_auroc"), []) for v in (variant, against)] for c in categories
    ]
    if not all(mine and theirs for mine, theirs in pairs):
        return ""
    mine, theirs = (sum(100 - np.mean(pair[i]) for pair in pairs) for i in (0, 1))
    return f"{mine / theirs:.2f}" if theirs else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="make the records that are missing")
    runs.add_argument("data", type=Path)
    runs.add_argument("--variants", default="patchcore;default", help="apart by ;")
    runs.add_argument("--categories", default=",".join(CATEGORIES))
    runs.add_argument("--seeds", default="0,1,2")
    runs.add_argument("--records", type=Path, default=Path("records.jsonl"))
    runs.set_defaults(do=run_all)
    table = commands.add_parser("table", help="print what the records say")
    table.add_argument("records", type=Path)
    table.add_argument("--against", default="patchcore")
    table.set_defaults(do=print_table)
    given = parser.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
