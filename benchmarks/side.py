"""This project's side of `benchmarks/vs_anomalib.py`, run in this project's environment.

    side.py weights --backbone NAME --output FILE    the backbone's weights, for the other side
    side.py bare --backbone NAME --output FILE       nothing but the backbone's levels, as ONNX
    side.py inspect --model FILE --bare FILE --photos FILE...
                                                     milliseconds of each way to inspect, as JSON
    side.py size --of reconpatch                     packages and megabytes that an install takes

Fitting needs no script: the comparison calls `reconpatch fit`. `size` runs in either environment
and needs nothing but the packages' own metadata.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Run = Callable[[Any], object]
"""Takes a prepared batch, (1, 3, H, W) float32."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("what", choices=["weights", "bare", "inspect", "size"])
    arguments.add_argument("--model", type=Path, help="the model file to inspect with")
    arguments.add_argument("--photos", type=Path, nargs="*", default=[], help="to inspect")
    arguments.add_argument("--bare", type=Path, help="what `bare` wrote")
    arguments.add_argument("--backbone", default="tf_efficientnet_lite0")
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--output", type=Path, help="the file to write")
    arguments.add_argument("--of", nargs="*", default=[], help="package or package[extra]")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=3, help="over the photos")
    given = arguments.parse_args()
    commands = {"weights": weights, "bare": bare, "inspect": inspect, "size": size}
    print(json.dumps(commands[given.what](given)))


def weights(given: argparse.Namespace) -> dict[str, str]:
    """All weights of a backbone whose package is installed, by timm's names.

    anomalib keeps later stages of the network as well, so those of the levels would not do.
    """
    import importlib.metadata

    import torch

    from reconpatch.features.backbones import WEIGHT_PACKAGES, match_by_order, spec
    from reconpatch.features.efficientnet_lite import tensor_shapes

    name = WEIGHT_PACKAGES[spec(given.backbone).timm_name].distribution
    files = importlib.metadata.files(name) or []
    path = next(Path(str(file.locate())) for file in files if file.suffix == ".pth")
    state = torch.load(path, weights_only=True, map_location="cpu")
    torch.save(match_by_order(state, tensor_shapes(given.backbone)), given.output)
    return {"weights": name}


def bare(given: argparse.Namespace) -> dict[str, int]:
    """The backbone's levels as an ONNX graph; its weights are random, which takes as long."""
    from reconpatch.features.backbones import load_graph, spec

    side = (given.size, given.size)
    backbone, _ = load_graph(spec(given.backbone), weights="random", input_size=side)
    given.output.write_bytes(backbone.graph)
    return {"bytes": given.output.stat().st_size}


# --- Inspect --------------------------------------------------------------------------------------


def inspect(given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of each way, one figure a photo and round.

    file: `model.inspect(path)`;
    memory: `model.inspect(array)`, from the decoded photo's uint8 pixels, to the verdict, regions
        and map in the photo's pixels;
    decode, prepare: the steps of these that read the photo, and resize it to the model's input;
    prepared: the graph alone from a prepared tensor: score, map at the input's pixels, neighbours;
    backbone: the bare levels of the backbone in ONNX Runtime, the limit.
    """
    import reconpatch
    from reconpatch.photos.images import read_photo

    model = reconpatch.load(given.model, threads=given.threads)
    read = {path: read_photo(path) for path in given.photos}
    ready = {path: model.preprocessing(photo)[None] for path, photo in read.items()}
    graph, backbone, rows = inside(model, given.bare, given.threads)
    steps: dict[str, Callable[[Path], object]] = {
        "decode": read_photo,
        "prepare": lambda path: model.preprocessing(read[path]),
        "file": model.inspect,
        "memory": lambda path: model.inspect(read[path].pixels),
        "prepared": lambda path: graph(ready[path]),
        "backbone": lambda path: backbone(ready[path]),
    }
    return {"milliseconds": timed(steps, given.photos, given.rounds), "bank_rows": rows}


def inside(model: Any, bare: Path, threads: int) -> tuple[Run, Run, int]:
    """The graph from a prepared batch, the bare backbone likewise, and the rows of the bank.

    All that the comparison knows of the package beyond its public calls.
    """
    from reconpatch.features.extractor import open_session

    (member,) = model.members
    session = open_session(bare.read_bytes(), threads)  # with the options that inspection has
    name = session.get_inputs()[0].name
    return (
        lambda photos: member.engine(photos, member.bank),
        lambda photos: session.run(None, {name: photos}),
        len(member.bank),
    )


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


# --- Size -----------------------------------------------------------------------------------------


def size(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each package what it and all it needs take on the disk, as installed here."""
    return {name: footprint(needed(name)) for name in given.of}


def needed(requirement: str) -> set[str]:
    """Names of the installed packages that a requirement such as "reconpatch[torch]" pulls in."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(requirement)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            further = map(Requirement, requires(name) or [])
            waiting += [r for r in further if not r.marker or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def footprint(names: set[str]) -> dict[str, float]:
    """Packages and megabytes (10^6), and how much of it is there for a GPU alone."""
    megabytes = {name: sum(map(file_size, files_of(name))) / 1e6 for name in names}
    gpu = [name for name in names if name.startswith(("nvidia-", "cuda-")) or name == "triton"]
    return {
        "packages": len(names),
        "megabytes": round(sum(megabytes.values()), 1),
        "gpu_packages": len(gpu),
        "gpu_megabytes": round(sum(megabytes[name] for name in gpu), 1),
    }


def files_of(name: str) -> list[Path]:
    """Files as installed, compiled ones apart; of an editable install those of the package."""
    import importlib.metadata
    import importlib.util

    files = [Path(str(f.locate())) for f in importlib.metadata.files(name) or []]
    if any(path.suffix == ".pth" for path in files) and len(files) < 20:
        spec = importlib.util.find_spec(name)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            files += [path for path in Path(folder).rglob("*") if path.is_file()]
    return [path for path in files if "__pycache__" not in path.parts]


def file_size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    main()
