"""anomalib's side of `benchmarks/vs_anomalib.py`, run in anomalib's own environment.

    side.py fit --good FOLDER --work FOLDER ...      one whole process: Engine.fit, its checkpoint
    side.py inspect --work FOLDER --photos FILE...   milliseconds of each way to inspect, as JSON
    side.py first --work FOLDER --photos FILE        loads the checkpoint, inspects one photo

All is anomalib's own: `Engine`, `Folder`, `Patchcore`, its checkpoint. Where it offers a choice, it
gets the cheaper one: nothing is validated, drawn or evaluated, no threshold is set. Every photo of
the folder is fitted on. It needs nothing of this project but a file of weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

BATCH = 32  # its default

# Layers of strides 8 and 16, and what the photos are normalised with.
BACKBONES = {
    "tf_efficientnet_lite0": (["blocks.2", "blocks.4"], ([0.5] * 3, [0.5] * 3)),
    "wide_resnet50_2": (
        ["layer2", "layer3"],
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("what", choices=["fit", "inspect", "first"])
    arguments.add_argument("--work", type=Path, required=True, help="its checkpoint's folder")
    arguments.add_argument("--good", type=Path, help="the good photos to fit on")
    arguments.add_argument("--photos", type=Path, nargs="*", default=[], help="to inspect")
    arguments.add_argument("--backbone", choices=BACKBONES, required=True)
    arguments.add_argument("--weights", type=Path, help="of the backbone; random ones without")
    arguments.add_argument("--bank", type=float, default=0.01)
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=3, help="over the photos")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    with redirect_stdout(sys.stderr):  # stdout is for the result alone
        result = {"fit": fit, "inspect": inspect, "first": first}[given.what](given)
    print(json.dumps(result))


def fit(given: argparse.Namespace) -> dict[str, float]:
    from anomalib.data import Folder

    start = time.perf_counter()
    model = built(given)
    data = Folder(
        name="photos",
        normal_dir=given.good,
        train_batch_size=BATCH,
        num_workers=given.threads,
        test_split_mode="none",
        val_split_mode="none",
    )
    # Without photos to validate on its data module fails unless validation is switched off here.
    engine = Engine(default_root_dir=given.work, accelerator="cpu", limit_val_batches=0)
    engine.fit(model=model, datamodule=data)
    return {
        "fit_seconds": time.perf_counter() - start,
        "bank_rows": len(model.model.memory_bank),
        "photos": len(data.train_data),
    }


def built(given: argparse.Namespace) -> Patchcore:
    layers, (mean, std) = BACKBONES[given.backbone]
    side = (given.size, given.size)
    model = Patchcore(
        backbone=given.backbone,
        layers=layers,
        pre_trained=False,
        coreset_sampling_ratio=given.bank,
        pre_processor=PreProcessor(Compose([Resize(side, antialias=True), Normalize(mean, std)])),
        visualizer=False,
        evaluator=False,
    )
    if given.weights:
        extractor = model.model.feature_extractor.feature_extractor
        state = torch.load(given.weights, weights_only=True)
        extractor.load_state_dict({name: state[name] for name in extractor.state_dict()})
    return model


def loaded(given: argparse.Namespace) -> Patchcore:
    """The model of the newest checkpoint, as anomalib reads it back."""
    checkpoints = sorted(given.work.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise SystemExit(f"there is no checkpoint in {given.work}: run fit first")
    fresh = built(given)
    state = torch.load(checkpoints[-1], weights_only=False, map_location="cpu")["state_dict"]
    fresh.load_state_dict(state)
    return fresh.eval()


@torch.inference_mode()
def inspect(given: argparse.Namespace) -> dict[str, object]:
    """Milliseconds of each way, one figure a photo and round; `engine` one figure a round.

    engine: `Engine.predict` over a folder of the photos, its documented call, by the photo;
    file: read with anomalib's `read_image`, then the model's own forward, which prepares the
        photo, scores it and post-processes; nothing of Lightning;
    memory: the same from a decoded float tensor of the photo's size;
    prepared: from a tensor of the model's input: network, bank and post-processor;
    backbone: the network's levels alone.
    """
    from anomalib.data.utils import read_image

    model = loaded(given)
    decoded = {path: read_image(path, as_tensor=True)[None] for path in given.photos}
    ready = {path: model.pre_processor(image) for path, image in decoded.items()}
    extractor = model.model.feature_extractor
    steps: dict[str, Callable[[Path], object]] = {
        "decode": lambda path: read_image(path, as_tensor=True),
        "file": lambda path: model(read_image(path, as_tensor=True)[None]),
        "memory": lambda path: model(decoded[path]),
        "prepared": lambda path: model.post_processor(model.model(ready[path])),
        "backbone": lambda path: extractor(ready[path]),
    }
    times = timed(steps, given.photos, given.rounds)
    times["engine"] = engine_times(model, given.photos, given.rounds)
    return {"milliseconds": times, "bank_rows": len(model.model.memory_bank)}


def timed(
    steps: dict[str, Callable[[Path], object]], photos: Sequence[Path], rounds: int
) -> dict[str, list[float]]:
    """Every step on every photo in each round; a round before the first is not counted.

    The steps of a photo follow one another, so that what slows the machine slows them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for photo in photos:
            for name, step in steps.items():
                start = time.perf_counter()
                step(photo)
                if round_:
                    times[name].append(1000 * (time.perf_counter() - start))
    return times


def engine_times(model: Patchcore, photos: Sequence[Path], rounds: int) -> list[float]:
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for i, photo in enumerate(photos):
            (Path(folder) / f"{i:04}{photo.suffix}").symlink_to(photo.resolve())
        engine = Engine(default_root_dir=folder, accelerator="cpu")
        for _ in range(rounds + 1):
            start = time.perf_counter()
            engine.predict(model=model, data_path=folder)
            times.append(1000 * (time.perf_counter() - start) / len(photos))
    return times[1:]


@torch.inference_mode()
def first(given: argparse.Namespace) -> dict[str, float]:
    from anomalib.data.utils import read_image

    model = loaded(given)
    return {"score": float(model(read_image(given.photos[0], as_tensor=True)[None]).pred_score)}


if __name__ == "__main__":
    main()
