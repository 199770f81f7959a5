"""The experiment bench: what makes the representation better, on features that are frozen anyway.

    python benchmarks/representation.py run DATA --variants "patchcore;default" --seeds 0,1,2 \
        --records records.jsonl --cache CACHE
    python benchmarks/representation.py table records.jsonl --against patchcore

Patch features are extracted once for each category, backbone and input size and kept in CACHE; a
run is then f, the bank and the scores: seconds. Every run is a line of the records, with its
settings; a run whose line is there is not done again. `table` prints means over the seeds, and the
ratio of mean errors (100 - image AUROC) to another variant with each category left out in turn.

At most 200 good photos and 300 test photos of a category are used, those whose names have the
lowest SHA-256: what most users have, and small enough for many runs. ELPV comes from the package
elpv-dataset: cells of probability 0 are good, of 1 defective, others unused; of the good ones those
whose name's SHA-256 is below 7 modulo 10 are fitted on. Figures are at the model's pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconpatch.backbones import load_backbone, spec
from reconpatch.datasets import LabelledPhoto, load_dataset, read_mask
from reconpatch.ensemble import Scale
from reconpatch.features import FeatureExtractor
from reconpatch.fitting import build_bank
from reconpatch.images import Preprocessing, read_photo
from reconpatch.memory_bank import MemoryBank
from reconpatch.metrics import auroc, pixel_metrics
from reconpatch.patch_features import PatchFeatures, export_onnx
from reconpatch.representation import batches, make_representation
from reconpatch.scoring import anomaly_map, score_patches, top_mean
from reconpatch.settings import FitSettings, settings_for

FIT, TEST = 200, 300
FOLDERS = {
    "bottle": ("mvtec_ad", "bottle"),
    "tile": ("magnetic_tile", "tile"),
    "cookie": ("aws_cookie", "cookie"),
}
CATEGORIES = (*FOLDERS, "elpv_mono", "elpv_poly")

START = {"dim": 0, "steps": 200, "batch_size": 512, "scale": "mean"}
NEAR = START | {"batches": "neighbours", "companions": 15}
STEPS = NEAR | {"init": "identity", "learning_rate": 3e-4}
KIN = {"dim": 0, "init": "kin", "steps": 0, "epochs": 0}

# What is tried: changes to the default recipe by name. A list makes an ensemble of its members.
VARIANTS: dict[str, dict[str, Any] | list[dict[str, Any]]] = {
    "patchcore": {"method": "patchcore", "top": 0.0},
    "patchcore, b 3": {"method": "patchcore", "top": 0.0, "b": 3},
    "patchcore, b 9": {"method": "patchcore", "top": 0.0, "b": 9},
    "patchcore, top 0.5 %": {"method": "patchcore", "top": 0.005},
    "patchcore, top 1 %": {"method": "patchcore", "top": 0.01},
    "patchcore, s 1": {"method": "patchcore", "top": 0.0, "neighbourhood": 1},
    "patchcore, s 5": {"method": "patchcore", "top": 0.0, "neighbourhood": 5},
    "patchcore, bank 10 %": {"method": "patchcore", "top": 0.0, "bank": 0.1},
    # Closed forms.
    "kin 0.25": KIN | {"kin_power": 0.25, "top": 0.0},
    "kin 0.5": KIN | {"top": 0.0},
    "kin 1": KIN | {"kin_power": 1.0, "top": 0.0},
    "kin 0.5, shrink 0.1": KIN | {"kin_shrink": 0.1, "top": 0.0},
    "kin 0.5, 64-d": KIN | {"dim": 64, "top": 0.0},
    "kin 0.25, top 0.5 %": KIN | {"kin_power": 0.25, "top": 0.005},
    "kin 0.5, top 0.5 %": KIN | {"top": 0.005},
    "pca 64-d": {"dim": 64, "init": "pca", "steps": 0, "epochs": 0, "top": 0.0},
    "standardised": {"dim": 0, "init": "pca", "steps": 0, "epochs": 0, "top": 0.0},
    "random 64-d": {"dim": 64, "init": "orthogonal", "steps": 0, "epochs": 0, "top": 0.0},
    # Steps of relaxed contrastive learning.
    "steps": STEPS | {"top": 0.0},
    "steps, sigma 0.1": STEPS | {"sigma": 0.1, "top": 0.0},
    "steps, sigma 0.1, lr 1e-3": STEPS | {"sigma": 0.1, "learning_rate": 1e-3, "top": 0.0},
    "steps, alpha 0, k 16": STEPS | {"alpha": 0.0, "k": 16, "top": 0.0},
    "steps, alpha 1, sigma 0.1": STEPS | {"alpha": 1.0, "sigma": 0.1, "top": 0.0},
    "steps, random batches": STEPS | {"batches": "random", "top": 0.0},
    "steps, unit": STEPS | {"scale": "unit", "top": 0.0},
    "steps, margin 0.5": STEPS | {"margin": 0.5, "sigma": 0.1, "top": 0.0},
    "steps, gamma 0.9": STEPS | {"gamma": 0.9, "sigma": 0.1, "top": 0.0},
    "kin, then steps": STEPS | {"init": "kin", "sigma": 0.1, "k": 16, "top": 0.0},
    "kin 0.25, then steps": STEPS
    | {"init": "kin", "kin_power": 0.25, "sigma": 0.1, "k": 16, "top": 0.0},
    "kin, then steps, sigma 1": STEPS | {"init": "kin", "top": 0.0},
    "kin 64-d, then steps": STEPS | {"init": "kin", "dim": 64, "top": 0.0},
    "pca 64-d, then steps": STEPS | {"init": "pca", "dim": 64, "top": 0.0},
    "random 64-d, then steps": STEPS | {"init": "orthogonal", "dim": 64, "top": 0.0},
    "paper's settings, 500 steps": {
        "dim": 512, "init": "orthogonal", "steps": 500, "batch_size": 1024, "batches": "random",
        "learning_rate": 1e-5, "scale": "unit", "top": 0.0,
    },
    "paper's settings, untrained": {
        "dim": 512, "init": "orthogonal", "steps": 0, "epochs": 0, "top": 0.0,
    },
    # Input size, with a bank of as many rows as 1 % has at 224.
    "patchcore, 320": {"method": "patchcore", "top": 0.0, "size": 320, "bank": 0.0049},
    "patchcore, 448": {"method": "patchcore", "top": 0.0, "size": 448, "bank": 0.0025},
    "kin 0.5, 320": KIN | {"top": 0.005, "size": 320, "bank": 0.0049},
    "kin 0.5, 448": KIN | {"top": 0.005, "size": 448, "bank": 0.0025},
    "kin 0.5, 320 and 224": [
        KIN | {"top": 0.005, "size": 320, "bank": 0.0049}, KIN | {"top": 0.005}
    ],
    "kin 0.5, 448 and 224": [
        KIN | {"top": 0.005, "size": 448, "bank": 0.0025}, KIN | {"top": 0.005}
    ],
    "lite0 and lite2": [
        KIN | {"top": 0.005}, KIN | {"top": 0.005, "backbone": "tf_efficientnet_lite2"}
    ],
    "lite2 at 448, lite0 at 320": [
        KIN | {"top": 0.005, "backbone": "tf_efficientnet_lite2", "size": 448, "bank": 0.0025},
        KIN | {"top": 0.005, "size": 320, "bank": 0.0049},
    ],
    "default": {},
}  # fmt: skip


@dataclass(frozen=True)
class Features:
    """One category at one input size: patch features, labels, masks at the model's pixels."""

    fit: np.ndarray  # (n, P, C) float32
    test: np.ndarray  # (m, P, C) float32
    labels: np.ndarray  # (m,) bool
    masks: np.ndarray | None  # (m, H, W) bool
    grid: tuple[int, int]


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
    else:
        root, name = FOLDERS[category]
        (found,) = load_dataset(data / root, "mvtec", [name])
        fit, test = list(found.train), list(found.test)
    good = by_hash([photo for photo in test if not photo.defective], TEST // 2)
    bad = by_hash([photo for photo in test if photo.defective], TEST - len(good))
    return by_hash(fit, FIT), good + bad


def _elpv(kind: str) -> tuple[list[Path], list[LabelledPhoto]]:
    import elpv_dataset

    table = next(Path(elpv_dataset.__file__).parent.rglob("labels.csv"))
    rows = [line.split() for line in table.read_text().splitlines()]
    mine = [(table.parent / name, float(p)) for name, p, module in rows if module == kind]
    good = [path for path, probability in mine if probability == 0]
    fit = [path for path in good if int(_digest(path), 16) % 10 < 7]
    test = [LabelledPhoto(path, "good") for path in good if path not in set(fit)]
    return fit, test + [LabelledPhoto(path, "defect") for path, p in mine if p == 1]


def features_of(category: str, settings: FitSettings, data: Path, cache: Path) -> Features:
    """The frozen features, from the cache if they are there."""
    fit, test = photos_of(category, data)
    decides = json.dumps([
        [str(path) for path in (*fit, *map(_path, test))],
        [settings.backbone, settings.size, settings.levels, settings.neighbourhood],
    ])  # fmt: skip
    key = hashlib.sha256(decides.encode()).hexdigest()[:12]
    path = cache / f"{category}-{settings.backbone}-{settings.size[0]}-{key}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        arrays = extract(category, settings, data)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        partial.replace(path)
    with np.load(path) as arrays:
        masks = arrays.get("masks", None)
        grid = tuple(arrays["grid"].tolist())
        return Features(arrays["fit"], arrays["test"], arrays["labels"], masks, grid)


def extract(category: str, settings: FitSettings, data: Path) -> dict[str, np.ndarray]:
    fit, test = photos_of(category, data)
    backbone = load_backbone(
        spec(settings.backbone, settings.levels or None), input_size=settings.size
    )
    module = PatchFeatures(backbone.module, backbone.mean, backbone.std, settings.neighbourhood)
    engine = FeatureExtractor(export_onnx(module, settings.size), 1)
    preprocessing = Preprocessing(*settings.size)

    def features(paths: Sequence[Path]) -> np.ndarray:
        return np.concatenate([engine(preprocessing(read_photo(p))[None]) for p in paths])

    arrays = {
        "fit": features(fit),
        "test": features([photo.path for photo in test]),
        "labels": np.array([photo.defective for photo in test]),
        "grid": np.array(engine.grid),
    }
    if any(photo.masks for photo in test):
        arrays["masks"] = np.stack([mask_at(photo, settings.size) for photo in test])
    return arrays


def mask_at(photo: LabelledPhoto, size: tuple[int, int]) -> np.ndarray:
    """The photo's mask at the model's pixels, each the nearest of the photo's."""
    if not photo.masks:
        return np.zeros(size, bool)
    whole = read_photo(photo.path)
    mask = read_mask(photo, whole.height, whole.width)
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


# --- One run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """What one model says of the test photos, and what its maps and scores are scaled by."""

    scores: np.ndarray  # (m,)
    distances: np.ndarray  # (m, P)
    score_scale: Scale
    map_scale: Scale
    blur: float


def run(found: Features, settings: FitSettings) -> tuple[Scored, dict[str, Any]]:
    """Make f and the bank, score the test photos; also what there is to say of the training."""
    n, per_photo, channels = found.fit.shape
    patches = found.fit.reshape(-1, channels)
    start = time.perf_counter()
    f, log = make_representation(
        patches, settings.method, settings.training, seed=settings.seed,
        parts=np.repeat(np.arange(n), per_photo),
    )  # fmt: skip
    seconds = {"f": time.perf_counter() - start}
    bank, radius = build_bank(f(patches), per_photo, settings)
    scored = [score_patches(f(p), bank, settings.scoring) for p in found.test]
    seconds["all"] = time.perf_counter() - start
    said: dict[str, Any] = {"seconds": seconds, "radius": radius, "rows": len(bank)}
    if log is not None and log.steps:
        said["training"] = log.to_dict()
        said["true_neighbours"] = true_neighbours(patches, settings)
    new = [as_new(f(found.fit[i]), i, bank) for i in range(0, n, max(1, n // 40))]
    return Scored(
        np.array([s.image_score for s in scored]),
        np.stack([s.distances for s in scored]),
        Scale.of(np.array([top_mean(d, settings.scoring.top) for d in new])),
        Scale.of(np.stack(new)),
        settings.scoring.blur,
    ), said


def as_new(r: np.ndarray, photo: int, bank: MemoryBank) -> np.ndarray:
    """Distances of a good photo's patches to the rows of other photos."""
    others = bank.photo != photo
    rows = bank.rows[others]
    return MemoryBank(rows, bank.photo[others], bank.place[others], rows).nearest(r)[0]


def true_neighbours(patches: np.ndarray, settings: FitSettings) -> float:
    """Share of patches whose nearest in the batch is among their 10 nearest in a pool."""
    rng = np.random.default_rng(settings.seed)
    batch = next(batches(patches, settings.training, rng))
    pool = np.union1d(batch, rng.permutation(len(patches))[:16384])
    squared = ((patches[pool] ** 2).sum(1)) - 2 * patches[batch] @ patches[pool].T
    squared[np.arange(len(batch)), np.searchsorted(pool, batch)] = np.inf
    tenth = np.partition(squared, 9, axis=1)[:, 9]
    in_batch = squared[:, np.searchsorted(pool, batch)].min(axis=1)
    return float((in_batch <= tenth).mean())


def figures(found: Features, members: Sequence[tuple[Features, Scored]]) -> dict[str, float]:
    """Metrics in per cent, of one model or of several averaged on a common scale."""
    alone = len(members) == 1
    scores = np.mean([s.scores if alone else s.score_scale(s.scores) for _, s in members], axis=0)
    metrics = {"image_auroc": 100 * auroc(found.labels, scores)}
    if found.masks is None:
        return metrics
    size = found.masks.shape[1:]  # that of the first member: list the finest first
    maps = [
        np.mean(
            [drawn(member, s, i, size, alone) for member, s in members], axis=0, dtype=np.float32
        )
        for i in range(len(scores))
    ]
    pixel = pixel_metrics(list(found.masks), maps)
    return metrics | {name: 100 * pixel[name] for name in ("pixel_auroc", "pixel_ap", "aupro")}


def settings_of(variant: str, seed: int) -> list[FitSettings]:
    chosen = VARIANTS[variant]
    members = chosen if isinstance(chosen, list) else [chosen]
    return [settings_for("default", **{"size": 224, "seed": seed} | own) for own in members]


def drawn(member: Features, of: Scored, i: int, size: tuple[int, int], alone: bool) -> np.ndarray:
    """A member's map of the i-th test photo, its blur the same share of the photo at any size."""
    height = member.grid[0] * 8  # of the member's own input: its finest level has stride 8
    distances = of.distances[i] if alone else of.map_scale(of.distances[i])
    return anomaly_map(distances, member.grid, size, of.blur * size[0] / height)


def record(category: str, variant: str, seed: int, data: Path, cache: Path) -> dict[str, Any]:
    members = []
    for settings in settings_of(variant, seed):
        found = features_of(category, settings, data, cache)
        scored, said = run(found, settings)
        members.append((found, scored, said | {"settings": settings.to_dict()}))
    return {
        "category": category,
        "variant": variant,
        "seed": seed,
        "metrics": figures(members[0][0], [(f, s) for f, s, _ in members]),
        "members": [said for _, _, said in members],
    }


# --- Commands -------------------------------------------------------------------------------------


def run_all(given: argparse.Namespace) -> None:
    records = read_records(given.records)
    # A line counts only while its variant still means the same.
    done = {
        (r["category"], r["variant"], r["seed"])
        for r in records
        if r["variant"] in VARIANTS
        and [said["settings"] for said in r["members"]]
        == [json.loads(json.dumps(s.to_dict())) for s in settings_of(r["variant"], r["seed"])]
    }
    wanted = itertools.product(
        given.categories.split(","),
        given.variants.split(";"),
        map(int, given.seeds.split(",")),
    )
    for category, variant, seed in wanted:
        if (category, variant, seed) in done:
            continue
        made = record(category, variant, seed, given.data, given.cache)
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
            values[made["variant"], made["category"], name].append(value)
    variants = list(dict.fromkeys(variant for variant, _, _ in values))
    categories = [c for c in CATEGORIES if any(key[1] == c for key in values)]
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
    runs.add_argument("--cache", type=Path, default=Path("cache"))
    runs.set_defaults(do=run_all)
    table = commands.add_parser("table", help="print what the records say")
    table.add_argument("records", type=Path)
    table.add_argument("--against", default="patchcore")
    table.set_defaults(do=print_table)
    given = parser.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
