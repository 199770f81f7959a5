"""Large photos in tiles: planted defects of 20 pixels found where they are, and the memory.

    python benchmarks/large.py --good 4 --output large.json

Fits on generated photos of 8,000 x 6,000 and of 800 x 600 pixels with tiles of 512, plants defects
on new ones, and inspects each in a process of its own, whose peak memory is that of the whole
process. Seams: the same defect at every pixel step across a seam, as a share of its score in the
middle of a tile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"8000 x 6000": (6000, 8000), "800 x 600": (600, 800)}
DEFECT = 20  # pixels across


def photo(seed: int, height: int, width: int) -> np.ndarray:
    """A woven surface with grain and slow shading: (height, width) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    weave = 30 * np.sin(y / 5 + rng.uniform(0, 6)) * np.sin(x / 5 + rng.uniform(0, 6))
    shade = 15 * np.sin(x / width * 3 + rng.uniform(0, 6))
    grain = rng.normal(0, 6, (height, width)).astype(np.float32)
    return np.clip(120 + weave + shade + grain, 0, 255).astype(np.uint8)


def plant(pixels: np.ndarray, y: int, x: int) -> None:
    """A round spot of DEFECT pixels around (y, x), darker by two thirds, in place."""
    r = DEFECT // 2
    dy, dx = np.mgrid[-r:r, -r:r] + 0.5
    part = pixels[y - r : y + r, x - r : x + r]
    part[np.hypot(dy, dx) < r] //= 3


def places(height: int, width: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Where defects are planted: in a corner, in the middle of a tile, on seams, at the far end."""
    step = tile - overlap
    seam = step + overlap // 2
    far = (height - 40, width - 40)
    return [(40, 40), (tile // 2, tile // 2), (tile // 2, seam), (seam, seam), far]


def inspected(model: Path, picture: Path) -> dict:
    """One inspection in this process: its result, seconds and the process's peak memory."""
    import reconpatch

    fitted = reconpatch.load(model)
    start = time.perf_counter()
    found = fitted.inspect(picture)
    return {
        "anomalous": found.anomalous,
        "regions": [[*r.peak, *r.box] for r in found.regions],
        "score": found.score,
        "threshold": found.threshold,
        "seconds": time.perf_counter() - start,
        "peak_mb": peak_mb(),
    }


def peak_mb() -> float:
    """Of this program alone: the system's usual figure counts the one that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def measure(name: str, good: int, rows: int, tile: int, overlap: int, folder: Path) -> dict:
    height, width = SIZES[name]
    photos = folder / name.replace(" ", "")
    photos.mkdir()
    for seed in range(good):
        Image.fromarray(photo(seed, height, width)).save(photos / f"{seed}.png", compress_level=1)
    model = folder / f"{photos.name}.rcp"
    start = time.perf_counter()
    command = [
        str(Path(sys.executable).with_name("reconpatch")), "fit", str(photos), "-o", str(model),
        "--tile", str(tile), "--overlap", str(overlap), "--bank", str(rows), "--set", "guard=false",
        "--set", "defects=0",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    clean = photo(1000, height, width)
    defective = clean.copy()
    planted = places(height, width, tile, overlap)
    for y, x in planted:
        plant(defective, y, x)
    found = {}
    for kind, pixels in (("good", clean), ("defective", defective)):
        picture = folder / f"{kind}.png"
        Image.fromarray(pixels).save(picture, compress_level=1)
        run = subprocess.run(
            [sys.executable, __file__, "--inspect", str(model), str(picture)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found[kind] = json.loads(run.stdout)
    peaks = [(y, x) for x, y, *_ in found["defective"]["regions"]]
    hit = [any(np.hypot(y - py, x - px) <= DEFECT for py, px in peaks) for y, x in planted]
    stray = [p for p in peaks if all(np.hypot(p[0] - y, p[1] - x) > 2 * DEFECT for y, x in planted)]
    return {
        "photo": name,
        "good_photos": good,
        "fit_seconds": seconds,
        "planted": len(planted),
        "found_at_their_places": sum(hit),
        "regions_elsewhere": len(stray),
        "good_photo_flagged": found["good"]["anomalous"],
        **{f"inspect_{k}": found["defective"][k] for k in ("seconds", "peak_mb")},
        "decoded_and_map_mb": height * width * 5 / 2**20,
        "file_mb": model.stat().st_size / 2**20,
        "model": str(model),
    }


def across_a_seam(model: Path, tile: int, overlap: int) -> dict:
    """The image score of one defect, planted at each of 32 places across a seam."""
    import reconpatch

    fitted = reconpatch.load(model)
    height, width = SIZES["800 x 600"]
    clean = photo(1000, height, width)
    seam = tile - overlap + overlap // 2
    scores = {}
    for x in [tile // 2 + d for d in range(0, 16, 2)] + [seam + d for d in range(-16, 17, 2)]:
        pixels = clean.copy()
        plant(pixels, 200, x)
        scores[x] = fitted.inspect(pixels).score
    middle = [s for x, s in scores.items() if x < tile // 2 + 16]
    at_seam = [s for x, s in scores.items() if x >= seam - 16]
    return {
        "in_the_middle": [min(middle), float(np.mean(middle)), max(middle)],
        "at_the_seam": [min(at_seam), float(np.mean(at_seam)), max(at_seam)],
        "threshold": fitted.threshold,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inspect", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--good", type=int, default=4, help="good photos of each size")
    parser.add_argument("--rows", type=int, default=2000, help="of the bank")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--sizes", default=",".join(SIZES), help="of " + ", ".join(SIZES))
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    if asked.inspect:
        print(json.dumps(inspected(*asked.inspect)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(name, asked.good, asked.rows, asked.tile, asked.overlap, Path(folder))
            for name in asked.sizes.split(",")
        ]
        small = next((row for row in rows if row["photo"] == "800 x 600"), None)
        seam = across_a_seam(Path(small["model"]), asked.tile, asked.overlap) if small else None
    for row in rows:
        del row["model"]
    record = {"photos": rows, "seam": seam}
    text = json.dumps(record, indent=2)
    print(text)
    if asked.output:
        asked.output.write_text(text)


if __name__ == "__main__":
    main()
