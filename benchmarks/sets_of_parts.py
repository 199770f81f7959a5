"""Logical defects: parts missing, moved, doubled or of another kind, with and without composition.

    python benchmarks/sets_of_parts.py DATA FOLDER

Makes photos in FOLDER out of those of DATA and fits the default recipe at 224 on them, with what a
photo is made of in the image score where the fit takes it, and without (`composition_weight=0`):
image AUROC by kind, and what is flagged and found at the threshold of 1 %.

- sets: bottles, castings, cookies and pieces of ball screws, cut out as discs and laid on a grey
  table in 4 x 4 places, some empty: always alike ("fixed"), or each part anywhere ("anywhere").
  Sixty good ones. A part is missing, is of another kind, or two change places. Nothing has an edge
  that good photos do not have.
- windows: on good test photos of bottles, boards and cookies a window of 15 to 35 % of the side is
  copied over another ("doubled"), or two are exchanged ("moved"), with soft edges.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from representation import photos_of

import reconpatch
from reconpatch.evaluation.datasets import LabelledPhoto, load_dataset
from reconpatch.method.metrics import image_metrics

PART, GAP, SIDE = 110, 60, 4
GOOD, TEST_GOOD, WRONG = 60, 40, 30
FIXED = tuple("bckssbck..cbkksc")
ANYWHERE = tuple("bbbbcccckkksss..")
EMPTY = "."
WINDOWS = ("bottle", "board", "cookie")

Layout = list[str]


def parts_of(data: Path, rng: random.Random) -> dict[str, list[Image.Image]]:
    """Sixty pictures of each kind of part, PART pixels wide."""
    found = {}
    for kind, category in (("b", "bottle"), ("c", "impeller"), ("k", "cookie"), ("s", "ballscrew")):
        pictures = []
        for path in photos_of(category, data)[0][:60]:
            photo = Image.open(path).convert("RGB")
            side = int(min(photo.size) * (0.8 if kind == "s" else 1.0))
            x, y = ((full - side) // 2 for full in photo.size)
            pictures.append(photo.crop((x, y, x + side, y + side)).resize((PART, PART)))
        rng.shuffle(pictures)
        found[kind] = pictures
    return found


def laid_out(
    layout: Layout, parts: dict[str, list[Image.Image]], rng: random.Random
) -> Image.Image:
    """A table with parts in their places, give or take 8 pixels; each in its own light."""
    side = SIDE * (PART + GAP) + GAP
    grain = np.random.default_rng(rng.randrange(2**32)).normal(
        rng.gauss(120, 2), 3, (side, side, 3)
    )
    table = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
    disc = Image.new("L", (PART, PART), 0)
    ImageDraw.Draw(disc).ellipse((2, 2, PART - 2, PART - 2), fill=255)
    for at, kind in enumerate(layout):
        if kind != EMPTY:
            part = rng.choice(parts[kind])
            light = rng.uniform(0.95, 1.05)
            y, x = (GAP + place * (PART + GAP) + rng.randint(-8, 8) for place in divmod(at, SIDE))
            table.paste(
                part.point(lambda value, light=light: min(255, value * light)), (x, y), disc
            )
    return table


def missing(layout: Layout, rng: random.Random) -> Layout:
    """One part fewer."""
    at = rng.choice([i for i, kind in enumerate(layout) if kind != EMPTY])
    return [*layout[:at], EMPTY, *layout[at + 1 :]]


def another(layout: Layout, rng: random.Random) -> Layout:
    """One part of another kind."""
    at = rng.choice([i for i, kind in enumerate(layout) if kind != EMPTY])
    kind = rng.choice([kind for kind in "bcks" if kind != layout[at]])
    return [*layout[:at], kind, *layout[at + 1 :]]


def exchanged(layout: Layout, rng: random.Random) -> Layout:
    """Two parts of different kinds in each other's places."""
    while True:
        i, k = rng.sample(range(len(layout)), 2)
        if layout[i] != layout[k]:
            changed = layout.copy()
            changed[i], changed[k] = layout[k], layout[i]
            return changed


def make_set(name: str, data: Path, folder: Path) -> None:
    """Photos of a set in the layout of MVTec AD."""
    rng = random.Random(name)
    parts = parts_of(data, rng)
    wrongs: dict[str, Callable[[Layout, random.Random], Layout]]
    wrongs = {"missing": missing, "another": another}
    if name == "fixed":
        wrongs["exchanged"] = exchanged

    def layout() -> Layout:
        return list(FIXED) if name == "fixed" else rng.sample(ANYWHERE, len(ANYWHERE))

    for path, count, wrong in (
        (folder / name / "train" / "good", GOOD, None),
        (folder / name / "test" / "good", TEST_GOOD, None),
        *((folder / name / "test" / kind, WRONG, wrong) for kind, wrong in wrongs.items()),
    ):
        path.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            kinds = layout() if wrong is None else wrong(layout(), rng)
            laid_out(kinds, parts, rng).save(path / f"{i:03}.png")


def with_window(photo: Image.Image, moved: bool, rng: random.Random) -> Image.Image:
    """A photo with a window of it copied over another that differs, or both exchanged."""
    while True:
        width, height = (int(min(photo.size) * rng.uniform(0.15, 0.35)) for _ in range(2))
        (x, y), (to_x, to_y) = (
            (rng.randrange(photo.width - width), rng.randrange(photo.height - height))
            for _ in range(2)
        )
        if abs(x - to_x) < width and abs(y - to_y) < height:
            continue
        own = photo.crop((x, y, x + width, y + height))
        other = photo.crop((to_x, to_y, to_x + width, to_y + height))
        if np.abs(np.asarray(own, float) - np.asarray(other, float)).mean() < 12:
            continue
        edge = max(2, min(width, height) // 12)
        soft = Image.new("L", (width, height), 0)
        ImageDraw.Draw(soft).rectangle((edge, edge, width - edge, height - edge), fill=255)
        soft = soft.filter(ImageFilter.GaussianBlur(edge / 2))
        changed = photo.copy()
        changed.paste(own, (to_x, to_y), soft)
        if moved:
            changed.paste(other, (x, y), soft)
        return changed


def make_windows(category: str, data: Path, folder: Path) -> list[LabelledPhoto]:
    """Good test photos, and forty of each kind of window on them in turn."""
    good = [photo for photo in photos_of(category, data)[1] if not photo.defective]
    rng, found = random.Random(category), list(good)
    for kind in ("doubled", "moved"):
        for i in range(40):
            path = folder / category / kind / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            original = Image.open(good[i % len(good)].path).convert("RGB")
            with_window(original, kind == "moved", rng).save(path)
            found.append(LabelledPhoto(path, kind))
    return found


def measure(name: str, fit: list[Path], test: list[LabelledPhoto]) -> None:
    """Lines of the table: with and without."""
    kinds = np.array([photo.label for photo in test])
    wrong = np.array([photo.defective for photo in test])
    for weight in (0.0, None):
        options = {} if weight is None else {"composition_weight": weight}
        model = reconpatch.fit(fit, size=224, **options)
        results = [model.inspect(photo.path) for photo in test]
        scores = np.array([result.score for result in results])
        flagged = np.array([result.anomalous for result in results])
        decision = model.provenance["composition"]
        taken = "without" if weight == 0 else "taken" if decision and decision["taken"] else "left"
        cells = []
        for kind in dict.fromkeys(kinds[wrong].tolist()):
            some = ~wrong | (kinds == kind)
            auroc = image_metrics(wrong[some], scores[some])["image_auroc"] or 0.0
            cells.append(f"{kind} {100 * auroc:.1f}")
        counts = (
            f"{flagged[~wrong].sum()} of {(~wrong).sum()} | {flagged[wrong].sum()} of {wrong.sum()}"
        )
        print(f"| {name} | {taken} | {', '.join(cells)} | {counts} |", flush=True)


def main() -> None:
    """Make the photos and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path, help="for the photos that are made")
    given = parser.parse_args()
    print(
        "| photos | composition | image AUROC | good flagged | wrong found |\n|---|---|---|---|---|"
    )
    for name in ("fixed", "anywhere"):
        make_set(name, given.data, given.folder)
        (made,) = load_dataset(given.folder, "mvtec", [name])
        measure(name, list(made.train), list(made.test))
    for category in WINDOWS:
        test = make_windows(category, given.data, given.folder / "windows")
        measure(category, photos_of(category, given.data)[0], test)


if __name__ == "__main__":
    main()
