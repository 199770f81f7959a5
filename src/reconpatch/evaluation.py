"""How well a model does on labelled photos, laid out as MVTec AD lays them out.

    TESTDIR/good/*, TESTDIR/<defect>/*, and beside TESTDIR: ground_truth/<defect>/<stem>_mask.png

Nothing here is chosen on the test photos but the oracle F1-max, which says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.calibration import Calibration, ShiftTest, beta_binomial_interval, shift_test
from reconpatch.datasets import GOOD, LabelledPhoto, check_all_masked_or_none, read_mask
from reconpatch.errors import PhotoError
from reconpatch.images import MAX_PIXELS, list_photos
from reconpatch.metrics import PixelMetrics, auroc, average_precision, f1_max
from reconpatch.model import Inspector
from reconpatch.result import Result


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one set of labelled photos. Rates and areas are in 0 to 1.

    Attributes:
        good, defective: photos of each kind.
        detected: photos flagged and photos in all, for each kind of defect.
        false_alarms: good photos above the threshold.
        false_alarm_interval: how many of them 95 % of all fits and test sets would show, were the
            promise kept (beta-binomial: both samples counted).
        shift: whether the good test photos look different from those of the calibration.
        image_auroc, image_ap: of the image score; None without both kinds of photos.
        image_f1_max: the best F1 over all thresholds: an oracle, it looks at the labels.
        pixel: "pixel_auroc", "pixel_ap", "pixel_f1_max" (an oracle), "aupro" (limit 0.3) and
            "aupro_005" (limit 0.05) at the photos' own pixels, masks above half of white; None
            where there are no masks.
        masks: photos with a mask.
        milliseconds: median per photo, from file to verdict.
    """

    good: int
    defective: int
    detected: dict[str, tuple[int, int]]
    false_alarms: int
    false_alarm_interval: tuple[int, int]
    shift: ShiftTest | None
    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    pixel: dict[str, float] | None
    masks: int
    milliseconds: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        shift, pixel = self.shift, self.pixel or {}
        return {
            "photos": {"good": self.good, "defective": self.defective, "masks": self.masks},
            "image_auroc": self.image_auroc,
            "image_ap": self.image_ap,
            "image_f1_max_oracle": self.image_f1_max,
            "pixel_auroc": pixel.get("pixel_auroc"),
            "pixel_ap": pixel.get("pixel_ap"),
            "pixel_f1_max_oracle": pixel.get("pixel_f1_max"),
            "aupro": pixel.get("aupro"),
            "aupro_005": pixel.get("aupro_005"),
            "false_alarms": self.false_alarms,
            "false_alarm_interval_95": list(self.false_alarm_interval),
            "detected": {k: {"flagged": f, "photos": n} for k, (f, n) in self.detected.items()},
            "good_photos_look_different": shift.different if shift else None,
            "good_photos_message": shift.message if shift else None,
            "milliseconds_per_photo": self.milliseconds,
            "pixel_resolution": "the photos' own pixels; a mask's pixel counts above half of white",
        }


def find_test_photos(folder: Path) -> list[LabelledPhoto]:
    """The labelled photos of a test folder, or of the category folder that holds it.

    Raises:
        PhotoError: the layout does not fit, with the path and the reason.
    """
    if (folder / "test").is_dir():
        folder = folder / "test"
    truth = folder.parent / "ground_truth"
    photos = []
    for path in list_photos(folder):
        label = path.relative_to(folder).parts[0]
        if label == path.name:
            raise PhotoError(
                f"{path} lies beside the folders of {folder}: a test folder holds one folder for "
                "the good photos, named good, and one for each kind of defect"
            )
        photos.append(LabelledPhoto(path, label, _masks_of(path, label, truth)))
    check_all_masked_or_none(photos, truth)
    return photos


def _masks_of(path: Path, label: str, truth: Path) -> tuple[Path, ...]:
    mask = truth / label / f"{path.stem}_mask.png"
    return (mask,) if label != GOOD and mask.is_file() else ()


def evaluate(
    model: Inspector,
    folder: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[str, int, int], None] | None = None,
    keep: Callable[[Result, LabelledPhoto], None] | None = None,
) -> Evaluation:
    """Inspect all labelled photos below a folder and work out the figures.

    Args:
        model: the model.
        folder: a test folder in MVTec's layout, or the category folder that holds it.
        max_pixels: larger photos are refused.
        progress: called with (step, photos done, photos).
        keep: called with every result, for a report.

    Raises:
        PhotoError: the layout does not fit, or a photo or mask cannot be used.
    """
    import time

    photos = find_test_photos(Path(folder))
    masked = any(photo.masks for photo in photos)
    shown = False
    scores, seconds = [], []
    with PixelMetrics() as pixels:
        for i, photo in enumerate(photos):
            start = time.perf_counter()
            result = model.inspect(photo.path, max_pixels=max_pixels)
            seconds.append(time.perf_counter() - start)
            scores.append(result.score)
            if masked:
                mask = _mask(photo, result, max_pixels)
                shown |= bool(mask.any())
                pixels.add(mask, result.heatmap)
            if keep is not None:
                keep(result, photo)
            if progress is not None:
                progress("inspect", i + 1, len(photos))
        pixel = pixels.result() if shown else None
    return _figures(
        photos, np.array(scores), pixel, model.calibration, float(np.median(seconds)) * 1000
    )


def _mask(photo: LabelledPhoto, result: Result, max_pixels: int) -> npt.NDArray[np.bool_]:
    """Where the defect is, of the size of the map; nowhere in a good photo."""
    if not photo.masks:
        return np.zeros(result.heatmap.shape, dtype=bool)
    return read_mask(photo, *result.heatmap.shape, max_pixels=max_pixels)


def _figures(
    photos: Sequence[LabelledPhoto],
    scores: npt.NDArray[np.float64],
    pixel: dict[str, float] | None,
    calibration: Calibration,
    milliseconds: float,
) -> Evaluation:
    threshold = calibration.image_threshold
    labels = np.array([photo.defective for photo in photos])
    good, defective = scores[~labels], scores[labels]
    totals = Counter(photo.label for photo in photos if photo.defective)
    flagged = Counter(
        photo.label
        for photo, score in zip(photos, scores, strict=True)
        if photo.defective and score > threshold.value
    )
    both = len(good) > 0 and len(defective) > 0
    n, k = threshold.photos, threshold.rank
    return Evaluation(
        good=len(good),
        defective=len(defective),
        detected={label: (flagged[label], totals[label]) for label in sorted(totals)},
        false_alarms=int((good > threshold.value).sum()),
        false_alarm_interval=beta_binomial_interval(len(good), n + 1 - k, k),
        shift=shift_test(calibration.scores, good, threshold) if len(good) else None,
        image_auroc=auroc(labels, scores) if both else None,
        image_ap=average_precision(labels, scores) if both else None,
        image_f1_max=f1_max(labels, scores)[0] if both else None,
        pixel=pixel,
        masks=sum(bool(photo.masks) for photo in photos),
        milliseconds=milliseconds,
    )
