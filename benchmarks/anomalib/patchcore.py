"""anomalib's PatchCore on the same photos, weights, input and bank size, as a baseline.

Run in an environment of its own (see requirements.txt):

    python benchmarks/anomalib/patchcore.py DATA/mvtec_ad/bottle --seeds 0,1,2 --output FILE.json
    reconpatch benchmark DATA/mvtec_ad --categories bottle --beside FILE.json -o tables/

The model, its coreset and its scores are anomalib's own (anomalib.models.image.patchcore), run with
its defaults (9 neighbours). Shared with this project are what is held equal: the weights of
EfficientNet-Lite0, the photos as the preprocessing reads them (whole photo), and a bank of 1 %. Its
scores and maps are measured twice: by this project's metrics at the photos' own pixels, and by
anomalib's own at the model's pixels, masks resized to the nearest pixel.

The file is written after every record, and records that are there already are not made again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from anomalib.metrics import AUPRO, AUROC
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from lightning.pytorch import seed_everything

from reconpatch.evaluation.datasets import labelled_photos, read_mask
from reconpatch.evaluation.other_programs import (
    OtherRecord,
    OtherResults,
    PhotoCounts,
    read_other_results,
    write_other_results,
)
from reconpatch.features.backbones import WEIGHT_PACKAGES, match_by_order, spec
from reconpatch.features.efficientnet_lite import tensor_shapes
from reconpatch.method.metrics import image_metrics, pixel_metrics
from reconpatch.photos.images import read_photo
from reconpatch.photos.listing import list_photos
from reconpatch.photos.preprocessing import Preprocessing

BACKBONE = "tf_efficientnet_lite0"
BANK, BATCH = 0.01, 16


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("categories", nargs="+", type=Path)
    arguments.add_argument("--seeds", default="0", help="such as 0,1,2")
    arguments.add_argument("--size", type=int, default=224, help="side of the input, in pixels")
    arguments.add_argument("--output", type=Path, required=True, help="the JSON file to keep up")
    given = arguments.parse_args()
    results = opened(given.output, settings_in_words(given.size))
    for category in given.categories:
        for seed in map(int, given.seeds.split(",")):
            name = category.resolve().name
            record = next((r for r in results.of(name) if r.seed == seed), None)
            if record is None:
                record = measured(category, name, seed, given.size)
                results = replace(results, records=(*results.records, record))
                write_other_results(results, given.output)
            print(as_line(record), flush=True)


def settings_in_words(size: int) -> str:
    return (
        f"{BACKBONE} with the same weights, levels blocks.2 and blocks.4, {size} x {size} pixels, "
        f"the whole photo, a bank of {BANK:.0%}, all else as it comes; its own metrics are taken "
        f"at {size} x {size} pixels, masks resized to the nearest pixel"
    )


def opened(path: Path, settings: str) -> OtherResults:
    """The results so far, or none yet; a file of other settings or another version is refused."""
    new = OtherResults("anomalib", importlib.metadata.version("anomalib"), "PatchCore", settings)
    if not path.exists():
        return new
    found = read_other_results(path)
    if replace(found, records=()) != new:
        raise SystemExit(f"{path} holds results of other settings or versions: give another file")
    return found


def as_line(record: OtherRecord) -> str:
    figures = [f"{name} {100 * (value or 0):.2f}" for name, value in record.metrics.items()]
    own = [f"own {name} {100 * (value or 0):.2f}" for name, value in record.own.items()]
    times = f"fit {record.fit_seconds:.1f} s, {record.ms_per_photo:.1f} ms a photo"
    return ", ".join([f"{record.category} seed {record.seed}: {times}", *figures, *own])


@torch.inference_mode()
def measured(category: Path, name: str, seed: int, size: int) -> OtherRecord:
    seed_everything(seed, verbose=False)  # its coreset draws from numpy as well as torch
    preprocessing = Preprocessing(size, size)
    good = list_photos(category / "train" / "good")
    start = time.perf_counter()
    model = fitted(good, preprocessing)
    fit_seconds = time.perf_counter() - start

    photos = labelled_photos(category)[0]
    scores, maps, masks, small_maps, seconds = [], [], [], [], []
    for photo in photos:
        picture = read_photo(photo.path)
        start = time.perf_counter()
        result = model(normalised([preprocessing(picture)]))
        seconds.append(time.perf_counter() - start)
        small = result.anomaly_map[0, 0].numpy()
        geometry = preprocessing.geometry(picture.height, picture.width)
        scores.append(float(result.pred_score[0]))
        small_maps.append(small)
        maps.append(geometry.map_to_photo(small))
        masks.append(read_mask(photo, picture.height, picture.width))
    labels = np.array([photo.defective for photo in photos])
    small_masks = torch.stack([nearest(mask, size) for mask in masks])
    return OtherRecord(
        category=name,
        seed=seed,
        photos=PhotoCounts(len(good), int((~labels).sum()), int(labels.sum())),
        metrics=our_metrics(labels, np.array(scores), masks, maps),
        own=own_metrics(labels, scores, small_masks, torch.from_numpy(np.stack(small_maps))),
        fit_seconds=fit_seconds,
        ms_per_photo=1000 * float(np.mean(seconds)),
    )


def our_metrics(
    labels: np.ndarray, scores: np.ndarray, masks: list[np.ndarray], maps: list[np.ndarray]
) -> dict[str, float]:
    figures = image_metrics(labels, scores)
    if any(mask.any() for mask in masks):
        figures |= pixel_metrics(masks, maps)
    return figures


def fitted(paths: list[Path], preprocessing: Preprocessing) -> PatchcoreModel:
    model = PatchcoreModel(layers=["blocks.2", "blocks.4"], backbone=BACKBONE, pre_trained=False)
    load_weights(model.feature_extractor.feature_extractor)
    model.train()
    model.feature_extractor.eval()
    for first in range(0, len(paths), BATCH):
        batch = [preprocessing(read_photo(path)) for path in paths[first : first + BATCH]]
        model(normalised(batch))
    model.subsample_embedding(BANK)
    return model.eval()


def load_weights(extractor: torch.nn.Module) -> None:
    """The weights of this project's default, into the part of the network that anomalib keeps."""
    package = WEIGHT_PACKAGES[spec(BACKBONE).timm_name]
    files = importlib.metadata.files(package.distribution) or []
    path = next(Path(file.locate()) for file in files if file.suffix == ".pth")
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = match_by_order(state, tensor_shapes(BACKBONE))
    kept = extractor.state_dict()
    missing = set(kept) - set(state)
    if missing:
        raise SystemExit(f"weights are missing for {sorted(missing)[:3]}")
    extractor.load_state_dict({name: state[name] for name in kept})


def normalised(photos: list[np.ndarray]) -> torch.Tensor:
    """Mean and standard deviation 0.5, as the weights were trained with."""
    return (torch.from_numpy(np.stack(photos)) - 0.5) / 0.5


def nearest(mask: np.ndarray, size: int) -> torch.Tensor:
    tensor = torch.from_numpy(mask)[None, None].float()
    return torch.nn.functional.interpolate(tensor, size=(size, size), mode="nearest")[0, 0].bool()


def own_metrics(
    labels: np.ndarray, scores: list[float], masks: torch.Tensor, maps: torch.Tensor
) -> dict[str, float]:
    from anomalib.data import ImageBatch

    # Its AUROC takes what is not in 0 to 1 for logits; anomalib, too, scales before it measures.
    batch = ImageBatch(
        image=torch.zeros(len(maps), 3, *maps.shape[1:]),
        gt_label=torch.from_numpy(labels),
        gt_mask=masks,
        pred_score=to_unit(torch.tensor(scores)),
        anomaly_map=to_unit(maps),
    )
    wanted = {"image_auroc": AUROC(fields=["pred_score", "gt_label"])}
    if masks.any():
        wanted["pixel_auroc"] = AUROC(fields=["anomaly_map", "gt_mask"])
        wanted["aupro"] = AUPRO(fields=["anomaly_map", "gt_mask"])
    for metric in wanted.values():
        metric.update(batch)
    # In float32 a sum of shares may end a hair above 1.
    return {name: min(float(metric.compute()), 1.0) for name, metric in wanted.items()}


def to_unit(values: torch.Tensor) -> torch.Tensor:
    return (values - values.min()) / (values.max() - values.min())


if __name__ == "__main__":
    main()
