"""The experiment bench's photos as folders, so that another program can be run on the same split.

    python benchmarks/lay_out.py DATA FOLDER --categories elpv_mono,elpv_poly,tile
    anomalib-env/bin/python benchmarks/anomalib/patchcore.py FOLDER/elpv_mono --output FILE.json

Which photos are fitted and tested on is what `benchmarks/representation.py` says: at most 200 and
300 of a category, by the hash of their names. Each category becomes a folder in MVTec AD's layout,
with masks where there are any; photos are copied as they are.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from representation import CATEGORIES, photos_of

from reconpatch.evaluation.datasets import LabelledPhoto


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", type=Path, help="the folder of the real photos")
    arguments.add_argument("folder", type=Path, help="where the categories' folders are made")
    arguments.add_argument("--categories", default=",".join(CATEGORIES))
    given = arguments.parse_args()
    for category in given.categories.split(","):
        if category not in CATEGORIES:
            arguments.error(f"{category!r} is not one of {', '.join(CATEGORIES)}")
        fit, test = photos_of(category, given.data)
        lay_out(fit, test, given.folder / category)
        bad = sum(photo.defective for photo in test)
        print(f"{given.folder / category}: {len(fit)} to fit on, {len(test) - bad} good, {bad} bad")


def lay_out(fit: Sequence[Path], test: Sequence[LabelledPhoto], folder: Path) -> None:
    """Copy photos and masks to train/good, test/<label> and ground_truth/<label>."""
    for path in fit:
        copy(path, folder / "train" / "good" / path.name)
    for photo in test:
        copy(photo.path, folder / "test" / photo.label / photo.path.name)
        for mask in photo.masks:
            name = f"{photo.path.stem}_mask{mask.suffix}"
            copy(mask, folder / "ground_truth" / photo.label / name)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    main()
