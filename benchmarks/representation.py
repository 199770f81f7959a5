"""The experiment bench: what makes the representation better, on features that are frozen anyway.

    python benchmarks/representation.py run DATA --variants "patchcore;default" --seeds 0,1,2 \
        --records records.jsonl --cache CACHE
    python benchmarks/representation.py table records.jsonl --against patchcore
    python benchmarks/representation.py guard DATA --seeds 0,1,2 --records guard.jsonl --cache CACHE

Patch features are extracted once for each category, backbone and input size and kept in CACHE; a
run is then f, the bank and the scores: seconds. Every run is a line of the records, with its
settings; a run whose line is there is not done again. `table` prints means over the seeds, and the
ratio of mean errors (100 - image AUROC) to another variant with each category left out in turn, and
what each would get that the other categories choose for. `guard` decides as a fit does between the
learned f and the identity, on made defects, and says which was better on the test photos.

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from residual_steps import ResidualSettings, residual_f

from reconpatch.datasets import LabelledPhoto, load_dataset, read_mask
from reconpatch.ensemble import Scale
from reconpatch.features import FeatureExtractor
from reconpatch.fitting import build_bank
from reconpatch.good_photos import TrainingPhoto, leave_one_out, with_stand_ins
from reconpatch.images import as_bytes, read_photo
from reconpatch.layout import Layout
from reconpatch.memory_bank import MemoryBank
from reconpatch.metrics import auroc, pixel_metrics
from reconpatch.patch_features import export_onnx, load_patch_features
from reconpatch.patch_store import PatchStore
from reconpatch.preprocessing import Preprocessing
from reconpatch.representation import Representation, batches, initial_weight, make_representation
from reconpatch.scoring import anomaly_map, score_patches, top_score
from reconpatch.settings import FitSettings, settings_for
from reconpatch.trial import Defects, Trial, guard, make_defects, try_on

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
IDENTITY = {"dim": 0, "init": "identity", "steps": 0, "epochs": 0, "top": 0.005}
COARSE = {"levels": [3], "bank": 0.04, "smooth": 0.375}
KIN = {"dim": 0, "init": "kin", "steps": 0, "epochs": 0}
SHIPPED = {"kin_power": 0.25, "smooth": 0.75, "bank_least": 4000}

# What is tried: changes by name to what `member` starts from. A list makes an ensemble.
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
    # The automatic size of a fit, its bank and its blur: bottle and cookie take 320.
    "patchcore, 320, bank 1 %": {"method": "patchcore", "size": 320},
    "patchcore, 448, bank 1 %": {"method": "patchcore", "size": 448},
    "kin 0.5, 320, bank 1 %": KIN | {"top": 0.005, "size": 320},
    "kin 0.5, 448, bank 1 %": KIN | {"top": 0.005, "size": 448},
    # Milder kin.
    "kin 0.5, shrink 0.1, top 0.5 %": KIN | {"kin_shrink": 0.1, "top": 0.005},
    # Distances smoothed before the image score, in places of the grid; a bank three times as large.
    "patchcore, smooth": {"method": "patchcore", "smooth": 0.75},
    "kin 0.25, smooth": KIN | {"kin_power": 0.25, "smooth": 0.75},
    "kin 0.5, smooth": KIN | {"smooth": 0.75},
    "patchcore, bank 3 %": {"method": "patchcore", "bank": 0.03},
    "patchcore, bank 3 %, smooth": {"method": "patchcore", "bank": 0.03, "smooth": 0.75},
    "kin 0.5, bank 3 %": KIN | {"bank": 0.03},
    "kin 0.5, bank 3 %, smooth": KIN | {"bank": 0.03, "smooth": 0.75},
    # Other levels of Lite0, a bank of as many rows; scores of several sets of levels averaged.
    "kin 0.5, level 3": KIN | COARSE,
    "kin 0.5, levels 3+4": KIN | COARSE | {"levels": [3, 4]},
    "kin 0.5, levels 2+3 and 3": [KIN | {"smooth": 0.75}, KIN | COARSE],
    "kin 0.5, levels 2+3 and 3+4": [KIN | {"smooth": 0.75}, KIN | COARSE | {"levels": [3, 4]}],
    "kin 0.5, level 2 and level 3": [
        KIN | {"smooth": 0.75, "levels": [2]},
        KIN | COARSE,
    ],
    # Steps on a residual, see residual_steps.py: what is under "residual" are its settings.
    "residual": IDENTITY | {"residual": {}},
    "residual, decay 20": IDENTITY | {"residual": {"decay": 20.0}},
    "residual, kth": IDENTITY | {"residual": {"sigma": "kth", "k": 16}},
    "residual, contextual": IDENTITY | {"residual": {"alpha": 0.0, "k": 16}},
    "residual, decay 20, N 16384": IDENTITY
    | {"residual": {"decay": 20.0, "graph": 16384, "refresh": 200}},
    "residual, decay 20, N 512": IDENTITY
    | {"residual": {"decay": 20.0, "graph": 512, "refresh": 1}},
    "residual, any part": IDENTITY | {"residual": {"other_parts": False}},
    "residual, rate 0.01": IDENTITY | {"residual": {"rate": 0.01}},
    "residual, margin 0.5": IDENTITY | {"residual": {"margin": 0.5}},
    "kin 0.5, residual": KIN | {"top": 0.005, "residual": {}},
    "kin 0.5, residual, decay 20": KIN | {"top": 0.005, "residual": {"decay": 20.0}},
    "kin 0.5, residual, margin 0.5": KIN | {"top": 0.005, "residual": {"margin": 0.5}},
    # The default as a fit takes it, without its guard, and PatchCore with as many rows.
    "default": SHIPPED,
    "patchcore, rows of the default": SHIPPED | {"method": "patchcore", "top": 0.0, "smooth": 0.0},
    "patchcore, rows and score of the default": SHIPPED | {"method": "patchcore"},
    "kin 0.5, rows and score of the default": SHIPPED | {"kin_power": 0.5},
    "kin 0.25, rows of the default, top 0.5 %": SHIPPED | {"smooth": 0.0},
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
    engine = extractor(settings)
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


def extractor(settings: FitSettings) -> FeatureExtractor:
    """The frozen backbone as a fit exports it."""
    module, _ = load_patch_features(settings, None)
    return FeatureExtractor(export_onnx(module, settings.size), 1)


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
    height: int  # of the model's input, whose pixels the blur is in


@dataclass(frozen=True)
class Member:
    """What one model is made by: a fit's settings, and steps that no fit takes."""

    settings: FitSettings
    residual: ResidualSettings | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the records hold it."""
        settings = json.loads(json.dumps(self.settings.to_dict()))
        residual = {"residual": asdict(self.residual)} if self.residual else {}
        return settings | residual


def run(found: Features, member: Member) -> tuple[Scored, dict[str, Any]]:
    """Make f and the bank, score the test photos; also what there is to say of the training."""
    settings = member.settings
    n, per_photo, channels = found.fit.shape
    patches = found.fit.reshape(-1, channels)
    start = time.perf_counter()
    f, training = learned(patches, np.repeat(np.arange(n), per_photo), member)
    seconds = {"f": time.perf_counter() - start}
    bank = build_bank(PatchStore.of(f(found.fit)), settings)
    scored = scored_by(found, f, bank, settings)
    seconds["all"] = time.perf_counter() - start
    return scored, {"seconds": seconds, "rows": len(bank), **training}


def learned(
    patches: np.ndarray, parts: np.ndarray, member: Member
) -> tuple[Representation, dict[str, Any]]:
    """f, and what there is to say of its training."""
    settings = member.settings
    if member.residual is not None:
        weight = initial_weight(patches, settings.training, parts, seed=settings.seed)
        assert weight is not None, "a residual f starts from its patches"
        f, log = residual_f(patches, parts, weight, member.residual, settings.seed)
        return f, {"training": log}
    f, steps = make_representation(
        patches, settings.method, settings.training, seed=settings.seed, parts=parts
    )
    if steps is None or not steps.steps:
        return f, {}
    return f, {
        "training": steps.to_dict(),
        "true_neighbours": true_neighbours(patches, settings),
    }


def scored_by(
    found: Features,
    f: Representation,
    bank: MemoryBank,
    settings: FitSettings,
) -> Scored:
    """The test photos' scores by f and its bank, and the scales of both."""
    scoring = settings.scoring
    layout = Layout.whole(found.grid, settings.size)
    scored = [score_patches(f(p), bank, scoring, layout) for p in found.test]
    n = len(found.fit)
    new = [as_new(f(found.fit[i]), i, bank) for i in range(0, n, max(1, n // 40))]
    of_new = [top_score(d, scoring, layout) if scoring.top > 0 else float(d.max()) for d in new]
    return Scored(
        np.array([s.image_score for s in scored]),
        np.stack([s.distances for s in scored]),
        Scale.of(np.array(of_new)),
        Scale.of(np.stack(new)),
        scoring.blur,
        settings.size[0],
    )


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


def members_of(variant: str, seed: int) -> list[Member]:
    chosen = VARIANTS[variant]
    return [member(own, seed) for own in (chosen if isinstance(chosen, list) else [chosen])]


def member(own: dict[str, Any], seed: int) -> Member:
    """The recipe that the search for a default began with, at 224, with changes."""
    began = {"size": 224, "smooth": 0.0, "kin_power": 0.5, "bank_least": 0}
    changes = {**began, "seed": seed, **own}
    residual = changes.pop("residual", None)
    settings = settings_for("default", **changes)
    steps = None if residual is None else ResidualSettings(**residual)
    return Member(settings, steps)


def drawn(member: Features, of: Scored, i: int, size: tuple[int, int], alone: bool) -> np.ndarray:
    """A member's map of the i-th test photo, its blur the same share of the photo at any size."""
    distances = of.distances[i] if alone else of.map_scale(of.distances[i])
    return anomaly_map(distances, member.grid, size, of.blur * size[0] / of.height)


def record(category: str, variant: str, seed: int, data: Path, cache: Path) -> dict[str, Any]:
    members = []
    for made_by in members_of(variant, seed):
        found = features_of(category, made_by.settings, data, cache)
        scored, said = run(found, made_by)
        members.append((found, scored, said | {"settings": made_by.to_dict()}))
    return {
        "category": category,
        "variant": variant,
        "seed": seed,
        "metrics": figures(members[0][0], [(f, s) for f, s, _ in members]),
        "members": [said for _, _, said in members],
    }


# --- The guard ------------------------------------------------------------------------------------


def guard_record(
    category: str, seed: int, data: Path, cache: Path, *, size: int = 224
) -> dict[str, Any]:
    """The guard's decision as a fit of the default takes it, and what the test photos say."""
    settings = settings_for("default", size=size, seed=seed)
    found = features_of(category, settings, data, cache)
    defects = defects_of(category, settings, data)
    parts = np.repeat(np.arange(len(found.fit)), found.fit.shape[1])
    patches = found.fit.reshape(len(parts), -1)
    by_name = {
        "learned": learned(patches, parts, Member(settings))[0],
        "identity": Representation(),
    }
    trials, true = {}, {}
    for name, f in by_name.items():
        trials[name], scored = tried(found, f, defects, settings)
        true[name] = figures(found, [(found, scored)])
    decision = guard(trials["learned"], trials["identity"]).to_dict()
    return {"category": category, "seed": seed, "size": size, "guard": decision, "true": true}


def defects_of(category: str, settings: FitSettings, data: Path) -> Defects:
    """Defects on as many of the good photos as a fit makes, evenly over their names."""
    fit, _ = photos_of(category, data)
    evenly = np.linspace(0, len(fit) - 1, min(settings.defects, len(fit)))
    preprocessing = Preprocessing(*settings.size)
    chosen = sorted(set(np.rint(evenly).astype(int).tolist()))
    engine = extractor(settings)
    (whole,) = Layout.whole(engine.grid, settings.size).views
    prepared = {i: (whole, as_bytes(preprocessing(read_photo(fit[i])))) for i in chosen}
    return make_defects(prepared, settings.seed, engine)


def tried(
    found: Features, f: Representation, defects: Defects, settings: FitSettings
) -> tuple[Trial, Scored]:
    """f with its bank on the made defects, as a fit tries it, and on the test photos."""
    photos = [TrainingPhoto(str(i), str(i), *settings.size, group=i) for i in range(len(found.fit))]
    bank = build_bank(PatchStore.of(f(found.fit)), settings)
    bank = with_stand_ins(bank, lambda i: f(found.fit[i]), photos)
    grid, scoring = found.grid, settings.scoring
    layout = Layout.whole(grid, settings.size)
    good = leave_one_out(lambda i: f(found.fit[i]), photos, bank, scoring, layout)
    trial = try_on(defects, f, bank, photos, good, scoring, layout, threshold=np.inf, grid=grid)
    return trial, scored_by(found, f, bank, settings)


def print_guard(records: Sequence[dict[str, Any]]) -> None:
    """A row for each category: what the guard saw, what was true, how often it was right."""
    print(
        "| category | made defects, image AUROC: learned, identity | pixel AP | kept the learned f "
        "| test photos, image AUROC: learned, identity | pixel AP | right by image AUROC "
        "| right by pixel AP |\n|---|---|---|---|---|---|---|---|"
    )
    for category in CATEGORIES:
        of = [r for r in records if r["category"] == category]
        if of:
            print(f"| {category} | {' | '.join(guard_cells(of))} |")


def guard_cells(records: Sequence[dict[str, Any]]) -> list[str]:
    """Means over the seeds; right is keeping one that the other does not beat."""
    made = [{name: r["guard"][name] for name in ("learned", "identity")} for r in records]
    true = [r["true"] for r in records]
    kept = [r["guard"]["kept"] for r in records]

    def pair(of: Sequence[dict[str, Any]], figure: str, unit: float) -> str:
        if any(figure not in each["learned"] for each in of):
            return ""
        means = [unit * np.mean([each[f][figure] for each in of]) for f in ("learned", "identity")]
        return f"{means[0]:.2f}, {means[1]:.2f}"

    def right(figure: str) -> str:
        if any(figure not in each["learned"] for each in true):
            return ""
        best = [each[k][figure] >= max(f[figure] for f in each.values())
                for k, each in zip(kept, true, strict=True)]  # fmt: skip
        return f"{sum(best)} of {len(best)}"

    return [
        pair(made, "image_auroc", 100), pair(made, "pixel_ap", 100),
        f"{kept.count('learned')} of {len(kept)}",
        pair(true, "image_auroc", 1), pair(true, "pixel_ap", 1),
        right("image_auroc"), right("pixel_ap"),
    ]  # fmt: skip


# --- Commands -------------------------------------------------------------------------------------


def run_all(given: argparse.Namespace) -> None:
    records = read_records(given.records)
    # A line counts only while its variant still means the same.
    done = {
        (r["category"], r["variant"], r["seed"])
        for r in records
        if r["variant"] in VARIANTS
        and [said["settings"] for said in r["members"]]
        == [made_by.to_dict() for made_by in members_of(r["variant"], r["seed"])]
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


def guard_all(given: argparse.Namespace) -> None:
    records = [r for r in read_records(given.records) if r["size"] == given.size]
    done = {(r["category"], r["seed"]) for r in records}
    for category, seed in itertools.product(
        given.categories.split(","), map(int, given.seeds.split(","))
    ):
        if (category, seed) in done:
            continue
        records.append(guard_record(category, seed, given.data, given.cache, size=given.size))
        with given.records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(f"{category} | seed {seed} | kept {records[-1]['guard']['kept']}", flush=True)
    print_guard(records)


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
    print_left_out(values, variants, given.against, categories)


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
    runs.add_argument("--cache", type=Path, default=Path("cache"))
    runs.set_defaults(do=run_all)
    guards = commands.add_parser("guard", help="what the guard decides, and whether it is right")
    guards.add_argument("data", type=Path)
    guards.add_argument("--categories", default=",".join(CATEGORIES))
    guards.add_argument("--seeds", default="0,1,2")
    guards.add_argument("--size", type=int, default=224)
    guards.add_argument("--records", type=Path, default=Path("guard.jsonl"))
    guards.add_argument("--cache", type=Path, default=Path("cache"))
    guards.set_defaults(do=guard_all)
    table = commands.add_parser("table", help="print what the records say")
    table.add_argument("records", type=Path)
    table.add_argument("--against", default="patchcore")
    table.set_defaults(do=print_table)
    given = parser.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
