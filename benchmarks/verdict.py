"""Draws docs/verdict.png: a generated part with a scratch, its heat map, the closest good part.

python benchmarks/verdict.py docs/verdict.png
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import reconpatch
from reconpatch.report.overlay import outline, overlay

SIDE, GAP = 256, 8


def part(seed: int) -> Image.Image:
    """A turned disc with four holes on a grey belt, (SIDE, SIDE); grain and position by seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5 + rng.normal(0, 0.004, (2, 1, 1))
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    photo = np.full((SIDE, SIDE), 92.0) + 4 * np.sin(90 * (x + y))
    disc = radius < 0.4
    photo[disc] = (168 + 10 * np.sin(260 * radius) + 14 * np.cos(2 * angle))[disc]
    for hole in np.arange(4) * np.pi / 2 + 0.4:
        photo[np.hypot(y - 0.26 * np.sin(hole), x - 0.26 * np.cos(hole)) < 0.05] = 45
    photo[radius < 0.1] = 60
    photo = photo[:, :, None] * (1.0, 0.98, 0.94) + rng.normal(0, 4, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(photo, 0, 255).astype(np.uint8))


def scratched(picture: Image.Image) -> Image.Image:
    """The same with a thin bright scratch."""
    pixels = np.array(picture)
    for step in np.linspace(0, 1, 200):
        y, x = int(70 + 40 * step), int(120 + 55 * step + 6 * step**2)
        pixels[y : y + 2, x : x + 2] = 226
    return Image.fromarray(pixels)


def main() -> None:
    """Fit on 40 good parts, and draw the verdict on one with a scratch."""
    model = reconpatch.fit([part(seed) for seed in range(40)], size=256)
    photo = scratched(part(1000))
    result = model.inspect(photo)
    closest = result.closest
    good = Image.open(io.BytesIO(closest.thumbnail)).convert("RGB")
    outline(good, closest.thumbnail_box)
    found = overlay(np.array(photo), result.heatmap, result.map_threshold, result.regions[:1])
    panels = [photo, found, good]
    picture = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE), "white")
    for i, panel in enumerate(panels):
        picture.paste(panel.resize((SIDE, SIDE)), (i * (SIDE + GAP), 0))
    picture.quantize(128).save(Path(sys.argv[1]), optimize=True)
    print(f"anomalous {result.anomalous}, score {result.score:.1f} > {result.threshold:.1f}")


if __name__ == "__main__":
    main()
