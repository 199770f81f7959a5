"""anomalib's PatchCore on the same photos, weights, input and bank size, as a baseline.

Run in an environment of its own (see requirements.txt):

    python benchmarks/anomalib/patchcore.py DATA/mvtec_ad/bottle --seeds 0,1,2

The model, its coreset and its scores are anomalib's own (anomalib.models.image.patchcore), run with
its defaults (9 neighbours). Shared with this project are what is held equal: the weights of
EfficientNet-Lite0, the photos as the preprocessing reads them (whole photo, 224 x 224), and a bank
of 1 %. Its scores and maps are measured twice: by this project's metrics at the photos' own pixels,
and by anomalib's own at the model's pixels, masks resized to the nearest pixel.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from pathlib import Path

import numpy as np
import timm
import torch
from anomalib.metrics import AUPRO, AUROC
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

from reconpatch.backbones import WEIGHT_PACKAGES, match_by_order, spec
from reconpatch.datasets import read_mask
from reconpatch.evaluation import find_test_photos
from reconpatch.images import Preprocessing, list_photos, read_photo
from reconpatch.metrics import auroc, average_precision, pixel_metrics

BACKBONE = "tf_efficientnet_lite0"
SIZE, BANK, BATCH = 224, 0.01, 16


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("categories", nargs="+", type=Path)
    arguments.add_argument("--seeds", default="0")
    given = arguments.parse_args()
    print("| category | seed | image AUROC | image AP | pixel AUROC | pixel AP | AUPRO |", end="")
    print(" image AUROC* | pixel AUROC* | AUPRO* | fit s | ms a photo |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for category in given.categories:
        for seed in map(int, given.seeds.split(",")):
            cells = " | ".join(f"{value:.2f}" for value in measured(category, seed))
            print(f"| {category.name} | {seed} | {cells} |", flush=True)
    print("\n* by anomalib's own metrics, at the model's pixels")


@torch.inference_mode()
def measured(category: Path, seed: int) -> list[float]:
    torch.manual_seed(seed)
    preprocessing = Preprocessing(SIZE, SIZE)
    start = time.perf_counter()
    model = fitted(list_photos(category / "train" / "good"), preprocessing)
    fit_seconds = time.perf_counter() - start

    photos = find_test_photos(category)
    scores, maps, masks, small_maps, small_masks, seconds = [], [], [], [], [], []
    for photo in photos:
        start = time.perf_counter()
        picture = read_photo(photo.path)
        result = model(normalised([preprocessing(picture)]))
        seconds.append(time.perf_counter() - start)
        small = result.anomaly_map[0, 0].numpy()
        geometry = preprocessing.geometry(picture.height, picture.width)
        mask = np.zeros((picture.height, picture.width), dtype=bool)
        if photo.masks:
            mask = read_mask(photo, picture.height, picture.width)
        scores.append(float(result.pred_score[0]))
        maps.append(geometry.map_to_photo(small))
        masks.append(mask)
        small_maps.append(torch.from_numpy(small))
        small_masks.append(nearest(mask))
    labels = np.array([photo.defective for photo in photos])
    ours = pixel_metrics(masks, maps)
    theirs = own_metrics(labels, scores, torch.stack(small_masks), torch.stack(small_maps))
    return [
        100 * auroc(labels, np.array(scores)),
        100 * average_precision(labels, np.array(scores)),
        *(100 * ours[name] for name in ("pixel_auroc", "pixel_ap", "aupro")),
        *(100 * value for value in theirs),
        fit_seconds,
        1000 * float(np.median(seconds)),
    ]


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
    whole = timm.create_model(BACKBONE, pretrained=False)
    state = match_by_order(state, whole.state_dict())
    kept = extractor.state_dict()
    missing = set(kept) - set(state)
    if missing:
        raise SystemExit(f"weights are missing for {sorted(missing)[:3]}")
    extractor.load_state_dict({name: state[name] for name in kept})


def normalised(photos: list[np.ndarray]) -> torch.Tensor:
    """Mean and standard deviation 0.5, as the weights were trained with."""
    return (torch.from_numpy(np.stack(photos)) - 0.5) / 0.5


def nearest(mask: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(mask)[None, None].float()
    return torch.nn.functional.interpolate(tensor, size=(SIZE, SIZE), mode="nearest")[0, 0].bool()


def own_metrics(
    labels: np.ndarray, scores: list[float], masks: torch.Tensor, maps: torch.Tensor
) -> list[float]:
    from anomalib.data import ImageBatch

    # Its AUROC takes what is not in 0 to 1 for logits; anomalib, too, scales before it measures.
    batch = ImageBatch(
        image=torch.zeros(len(maps), 3, *maps.shape[1:]),
        gt_label=torch.from_numpy(labels),
        gt_mask=masks,
        pred_score=to_unit(torch.tensor(scores)),
        anomaly_map=to_unit(maps),
    )
    found = []
    for metric, fields in (
        (AUROC, ["pred_score", "gt_label"]),
        (AUROC, ["anomaly_map", "gt_mask"]),
        (AUPRO, ["anomaly_map", "gt_mask"]),
    ):
        computed = metric(fields=fields)
        computed.update(batch)
        found.append(float(computed.compute()))
    return found


def to_unit(values: torch.Tensor) -> torch.Tensor:
    return (values - values.min()) / (values.max() - values.min())


if __name__ == "__main__":
    main()
