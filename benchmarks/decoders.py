"""May a faster decoder take Pillow's place? Milliseconds, and what it changes of inputs and scores.

    python benchmarks/decoders.py MODEL DATA/aws_cookie/cookie/test/good --photos 12 --enlarge 4

Three ways to decode each file, one after the other, on one thread: Pillow as `read_photo` does it;
Pillow with a JPEG decoded at a reduced size (the least power of two that stays above twice the
model's input); OpenCV (extra `register`). Medians over the photos. With --enlarge 4 the photos are
written anew as JPEGs of four times their side, as larger cameras would.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import reconpatch
from reconpatch.model.model import Inspector
from reconpatch.photos.images import Photo, list_photos, read_photo


def by_pillow(path: Path, _: int) -> np.ndarray:
    return read_photo(path).pixels


def reduced(path: Path, side: int) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("RGB", (2 * side, 2 * side))
        return np.asarray(image.convert("RGB"))


def by_opencv(path: Path, _: int) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


WAYS = {"Pillow": by_pillow, "Pillow, reduced": reduced, "OpenCV": by_opencv}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--enlarge", type=int, default=1)
    asked = parser.parse_args()
    model = reconpatch.load(asked.model, threads=1)
    side = model.preprocessing.height
    with tempfile.TemporaryDirectory() as folder:
        paths = list_photos(asked.folder)[: asked.photos]
        if asked.enlarge > 1:
            paths = [enlarged(path, asked.enlarge, Path(folder)) for path in paths]
        report(measured(model, paths, side), model.threshold)


def enlarged(path: Path, factor: int, folder: Path) -> Path:
    with Image.open(path) as image:
        size = image.width * factor, image.height * factor
        image.convert("RGB").resize(size).save(folder / f"{path.stem}.jpg", quality=92)
    return folder / f"{path.stem}.jpg"


def measured(model: Inspector, paths: list[Path], side: int) -> dict[str, list]:
    """Seconds, levels of the input and share of the score that differ, of each way and photo."""
    rows: dict[str, list] = {name: [] for name in WAYS}
    for path in paths:
        expected = None
        for name, way in WAYS.items():
            way(path, side)  # the file is in memory from here on
            start = time.perf_counter()
            pixels = way(path, side)
            seconds = time.perf_counter() - start
            photo = Photo(path.name, pixels)
            found = model.preprocessing(photo), model.judge([photo])[0].score
            expected = expected or found
            differs = float(np.abs(found[0] - expected[0]).max()) * 255
            rows[name].append((seconds, differs, abs(found[1] - expected[1])))
    return rows


def report(rows: dict[str, list], threshold: float) -> None:
    print("way              ms   levels of the input   score, of the threshold (largest)")
    for name, of_photos in rows.items():
        seconds, levels, scores = np.array(of_photos).T
        ms, score = 1000 * np.median(seconds), scores.max() / threshold
        print(f"{name:16} {ms:5.1f} {levels.max():9.1f} {score:25.4f}")


if __name__ == "__main__":
    main()
