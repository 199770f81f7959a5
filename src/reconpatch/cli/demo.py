"""The demonstration: real solar cells, from good photos to a report, in one call.

The photos are those of the PyPI package elpv-dataset (2,624 electroluminescence photos of solar
cells, CC BY-NC-SA 4.0; Buerhop-Lux et al. 2018, Deitsch et al. 2019 and 2021). They are read where
the package lies and never copied into a model but as small thumbnails.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import reconpatch
from reconpatch.errors import MissingExtraError, PhotoError
from reconpatch.evaluation.datasets import GOOD, LabelledPhoto

if TYPE_CHECKING:
    from reconpatch.fitting.options import Progress
    from reconpatch.photos.images import Photo
    from reconpatch.result import Result


@dataclass(frozen=True)
class DemoPhotos:
    """Which cells the demonstration takes.

    Attributes:
        train: functional cells to learn from.
        good: other functional cells.
        defective: defective cells.
    """

    train: Sequence[Path]
    good: Sequence[Path]
    defective: Sequence[Path]


def demo_photos(kind: str = "mono", train: int = 200, test: int = 40) -> DemoPhotos:
    """Choose cells by the hash of their file names, so that nobody's eye chose them.

    Args:
        kind: "mono" or "poly": mono- or polycrystalline cells.
        train: functional cells to learn from.
        test: functional cells, and as many defective ones, to inspect.

    Raises:
        MissingExtraError: the extra "demo" is not installed.
    """
    folder = _data_folder()
    cells = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    of_kind = [(folder / name, float(p)) for name, p, made in cells if made == kind]
    functional = _shuffled([path for path, probability in of_kind if probability == 0.0])
    defective = _shuffled([path for path, probability in of_kind if probability == 1.0])
    if len(functional) < train + test or len(defective) < test:
        raise PhotoError(
            f"elpv-dataset holds {len(functional)} functional and {len(defective)} defective "
            f"{kind} cells, fewer than the {train + test} and {test} that were asked for"
        )
    return DemoPhotos(
        sorted(functional[:train]),
        sorted(functional[train : train + test]),
        sorted(defective[:test]),
    )


def _data_folder() -> Path:
    # Found without importing the package, whose own import asks for more packages.
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("the demonstration", "demo")
    return Path(found.submodule_search_locations[0]) / "data"


def _shuffled(paths: Sequence[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).hexdigest())


@dataclass(frozen=True)
class DemoOutcome:
    """What the demonstration found.

    Attributes:
        model, report: the files it wrote.
        auroc: image AUROC on the unseen cells, in 0 to 1.
        text: the figures in plain words.
    """

    model: Path
    report: Path
    auroc: float
    text: str


def run_demo(
    folder: Path, *, train: int, test: int, seed: int, progress: Progress | None = None
) -> DemoOutcome:
    """Fit on functional cells, inspect unseen functional and defective ones, write the report.

    Args:
        folder: where the model and the report go; earlier ones are replaced.
        train: functional cells to learn from.
        test: functional cells, and as many defective ones, to inspect.
        seed: of the fit.
        progress: see `reconpatch.fitting.options.Progress`.

    Raises:
        MissingExtraError: the extra "demo" is not installed.
    """
    from reconpatch.evaluation.evaluate import evaluate
    from reconpatch.files import check_writable
    from reconpatch.report.report import ReportWriter, context_of

    photos = demo_photos(train=train, test=test)
    path = folder / "solar-cells.rcp"
    check_writable(path, overwrite=True)
    model = reconpatch.fit(photos.train, seed=seed, progress=progress)
    model.save(path, overwrite=True)

    report = ReportWriter(folder, context_of(model, "Solar cells, unseen by the model", path.name))

    def keep(photo: Photo, result: Result, labelled: LabelledPhoto) -> None:
        name = labelled.path.name  # the folder is that of a package
        report.add(photo.rgb8(model.white_level), replace(result, name=name), labelled.label)

    labelled = [LabelledPhoto(path, GOOD) for path in photos.good]
    labelled += [LabelledPhoto(path, "defective") for path in photos.defective]
    figures = evaluate(model, labelled, progress=progress, keep=keep)
    page = report.close()

    found, _ = figures.detected["defective"]
    area = figures.metrics["image_auroc"]
    assert area is not None  # there are both kinds of photos
    false = figures.false_alarms
    text = (
        f"Learned from {len(model.photos)} functional cells in "
        f"{sum(model.provenance['seconds'].values()):.0f} s.\n"
        f"Of {len(photos.defective)} unseen defective cells, {found} were found; of "
        f"{len(photos.good)} unseen functional cells, {false} were flagged by mistake.\n"
        f"Image AUROC {100 * area:.1f} %: how well the score alone tells the two apart.\n"
        f"{model.calibration.promise}\n"
        f"Report: {page}\nModel:  {path}\n"
        f"Next:   reconpatch fit GOOD -o part.rcp, then reconpatch inspect part.rcp PHOTO -o DIR"
    )
    return DemoOutcome(path, page, area, text)
