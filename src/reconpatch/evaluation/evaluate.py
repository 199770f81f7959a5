"""How well a model does on labelled photos.

Nothing here is chosen on the test photos but the oracle F1-max, which says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reconpatch.evaluation.datasets import LabelledPhoto, labelled_photos, read_mask
from reconpatch.method.calibration import ShiftTest, beta_binomial_interval, shift_test
from reconpatch.method.metrics import METRICS, PixelMetrics, image_metrics
from reconpatch.model.model import Inspector
from reconpatch.photos.images import MAX_PIXELS, Photo, read_photo
from reconpatch.photos.kind import ANOTHER_KIND, KindsSeen
from reconpatch.result import Result

if TYPE_CHECKING:
    from reconpatch.fitting.options import Progress


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
        metrics: by the names of `reconpatch.method.metrics.METRICS`: of the image score, None
            without both kinds of photos; of the photos' own pixels, masks above half of white, only
            where there are masks.
        masks: photos with a mask.
        of_the_fit: good photos that the model was fitted on or taught, by their pixels.
        both: pairs of names of a good and a defective photo that are one picture.
        milliseconds: median per photo, from file to verdict.
        kinds: what sets photos apart from those of the fit; see `Result.notes`.
    """

    good: int
    defective: int
    detected: dict[str, tuple[int, int]]
    false_alarms: int
    false_alarm_interval: tuple[int, int]
    shift: ShiftTest | None
    metrics: Mapping[str, float | None]
    masks: int
    milliseconds: float
    of_the_fit: int = 0
    both: Sequence[tuple[str, str]] = ()
    kinds: Sequence[str] = ()

    @property
    def notes(self) -> list[str]:
        """Why the figures may be better or worse than those of new photos, in plain words."""
        notes = []
        if self.of_the_fit:
            notes.append(
                f"{self.of_the_fit} of {self.good} good photos are of the fit, so their scores are "
                "lower than those of new photos, and so is the number of false alarms: test on "
                "photos that the model has not seen"
            )
        if self.both:
            good, defective = self.both[0]
            notes.append(
                f"{len(self.both)} pictures are among the good and the defective photos, such as "
                f"{good} and {defective}: one of the two labels is wrong"
            )
        return [*notes, *(f"{ANOTHER_KIND}: {kind}" for kind in self.kinds)]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        shift = self.shift
        return {
            "photos": {"good": self.good, "defective": self.defective, "masks": self.masks},
            **{name: self.metrics.get(name) for name in METRICS if not name.startswith("auspro")},
            "false_alarms": self.false_alarms,
            "false_alarm_interval_95": list(self.false_alarm_interval),
            "detected": {k: {"flagged": f, "photos": n} for k, (f, n) in self.detected.items()},
            "good_photos_look_different": shift.different if shift else None,
            "good_photos_message": shift.message if shift else None,
            "good_photos_of_the_fit": self.of_the_fit,
            "notes": self.notes,
            "milliseconds_per_photo": self.milliseconds,
            "pixel_resolution": "the photos' own pixels; a mask's pixel counts above half of white",
        }


def evaluate(
    model: Inspector,
    photos: Sequence[LabelledPhoto],
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
    keep: Callable[[Photo, Result, LabelledPhoto], None] | None = None,
) -> Evaluation:
    """Inspect labelled photos and work out the figures.

    Args:
        model: the model.
        photos: one or more; see `reconpatch.evaluation.datasets.labelled_photos`.
        max_pixels: larger photos are refused.
        progress: called with ("inspect", photos done, photos).
        keep: called with every photo, its result and its label, for a report.

    Raises:
        PhotoError: a photo or mask cannot be used.
    """
    masked = any(photo.masks for photo in photos)
    shown, seen = False, KindsSeen()
    scores, seconds, pictures = [], [], []
    with PixelMetrics() as pixels:
        for i, labelled in enumerate(photos):
            start = time.perf_counter()
            photo = read_photo(labelled.path, max_pixels=max_pixels)
            result = model.inspect(photo)
            seconds.append(time.perf_counter() - start)
            scores.append(result.score)
            seen.add(result.notes)
            pictures.append(photo.sha256)
            if masked:
                mask = read_mask(labelled, *result.heatmap.shape, max_pixels=max_pixels)
                shown |= bool(mask.any())
                pixels.add(mask, result.heatmap)
            if keep is not None:
                keep(photo, result, labelled)
            if progress is not None:
                progress("inspect", i + 1, len(photos))
        pixel = pixels.result() if shown else {}
    defective = np.array([photo.defective for photo in photos])
    threshold, of_all = model.calibration.image_threshold, np.array(scores)
    flagged, of_good = of_all > threshold.value, of_all[~defective]
    totals = Counter(photo.label for photo in photos if photo.defective)
    found = Counter(photo.label for photo, above in zip(photos, flagged, strict=True) if above)
    n, k = threshold.photos, threshold.rank
    known = {photo.sha256 for photo in model.photos}
    named = [(sha256, str(photo.path)) for sha256, photo in zip(pictures, photos, strict=True)]
    good = dict(pair for pair, bad in zip(named, defective, strict=True) if not bad)
    return Evaluation(
        good=len(of_good),
        defective=totals.total(),
        detected={label: (found[label], totals[label]) for label in sorted(totals)},
        false_alarms=int((flagged & ~defective).sum()),
        false_alarm_interval=beta_binomial_interval(len(of_good), n + 1 - k, k),
        shift=shift_test(model.calibration.scores, of_good, threshold) if len(of_good) else None,
        metrics={**image_metrics(defective, of_all), **pixel},
        masks=sum(bool(photo.masks) for photo in photos),
        milliseconds=float(np.median(seconds)) * 1000,
        of_the_fit=sum(s in known for s, bad in zip(pictures, defective, strict=True) if not bad),
        both=[
            (good[sha256], name)
            for (sha256, name), bad in zip(named, defective, strict=True)
            if bad and sha256 in good
        ],
        kinds=seen.sentences(),
    )


class LabelledFolder:
    """A folder of labelled photos that models are tested on, such as those of `fit-all`.

    Args:
        folder: in one of the layouts that `labelled_photos` knows.

    Raises:
        PhotoError: it is in none of them.
    """

    def __init__(self, folder: Path) -> None:
        self.photos, self.notes = labelled_photos(folder)

    @property
    def files(self) -> Sequence[Path]:
        """The photos and their masks."""
        return [file for photo in self.photos for file in (photo.path, *photo.masks)]

    def figures(self, model: Inspector, *, max_pixels: int) -> dict[str, Any]:
        """What `evaluate` finds, JSON-ready, with what was noted of the folder first."""
        figures = evaluate(model, self.photos, max_pixels=max_pixels).to_dict()
        return figures | {"notes": [*self.notes, *figures["notes"]]}
