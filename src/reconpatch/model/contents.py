"""The contents of a model file, for a model and an ensemble: plain data, no inspection.

`check` and `file` know models by these alone; `model` and `ensemble` inspect with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.engine.engines import StoredGraph
from reconpatch.method.calibration import Calibration
from reconpatch.method.defect_kinds import DefectKinds
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.settings import FitSettings
from reconpatch.model.good_photos import GoodScores, TrainingPhoto
from reconpatch.model.sample import Sample
from reconpatch.photos.layout import Layout
from reconpatch.photos.preprocessing import Preprocessing

# Makes the MAD of a normal distribution its standard deviation.
MAD_TO_STD = 1.4826


class Contents(ABC):
    """What a file holds: the contents of a model or of an ensemble.

    Attributes:
        photos: the good photos of the fit.
        calibration: the scores that the thresholds follow, and the thresholds.
        provenance: where it comes from; JSON-ready.
    """

    photos: Sequence[TrainingPhoto]
    calibration: Calibration
    provenance: dict[str, Any]

    @property
    @abstractmethod
    def members(self) -> Sequence[ModelContents]:
        """The models: one, or those of an ensemble."""

    @property
    def threshold(self) -> float:
        """Photos that score more than this are anomalous."""
        return self.calibration.image_threshold.value


@dataclass(frozen=True, eq=False, repr=False)
class ModelContents(Contents):
    """The parts of a model.

    Attributes:
        settings: the settings of the fit.
        preprocessing: from a photo to the model's input, the same for fit and inspection.
        representation: f.
        bank: the memory bank M.
        photos: the good photos of the fit; `bank.photo` counts them.
        good: their scores, each without its own rows.
        calibration: the scores that the thresholds follow, and the thresholds.
        provenance: versions, weights and licences, figures of the fit, notes; JSON-ready.
        thumbnails: a JPEG of each good photo, or nothing.
        engine: runs the graph of the inspection, which is `engine.graph`.
        sample: prepared photos and made defects, which any machine can check its engine on.
        defect_kinds: what confirmed defects look like by kind; None where too few are confirmed.
    """

    settings: FitSettings
    preprocessing: Preprocessing
    representation: Representation
    bank: MemoryBank
    photos: Sequence[TrainingPhoto]
    good: GoodScores
    calibration: Calibration
    provenance: dict[str, Any]
    engine: StoredGraph
    thumbnails: Sequence[bytes] = ()
    sample: Sample | None = None
    defect_kinds: DefectKinds | None = None

    @property
    def members(self) -> Sequence[ModelContents]:
        """The model itself."""
        return (self,)

    @cached_property
    def layout(self) -> Layout:
        """Where the patches of a photo lie; photos in tiles have the size of those of the fit."""
        first = self.photos[0]
        return self.preprocessing.layout(self.engine.grid, (first.height, first.width))


@dataclass(frozen=True)
class Scale:
    """Median and MAD that bring a member's values to a scale of their own.

    Attributes:
        median: of the values.
        mad: median absolute deviation from it, above 0.
    """

    median: float
    mad: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Scale:
        """Take the scale of some values.

        Where more than half of them are equal the MAD is 0; then the mean absolute deviation,
        brought to the same unit, takes its place, and 1 where all values are equal.
        """
        values = values.astype(np.float64).ravel()
        median = float(np.median(values))
        deviations = np.abs(values - median)
        mad = float(np.median(deviations))
        if mad == 0.0:
            # For a normal distribution: mean absolute deviation / MAD = 0.7979 / 0.6745.
            mad = float(deviations.mean()) * 0.6745 / 0.7979
        return cls(median, mad or 1 / MAD_TO_STD)

    def __call__(self, values: Any) -> Any:
        """The modified z-score: (values - median) / (1.4826 MAD)."""
        return (values - self.median) / (MAD_TO_STD * self.mad)


@dataclass(frozen=True, eq=False, repr=False)
class EnsembleContents(Contents):
    """The parts of an ensemble.

    Attributes:
        models: of different backbones or input sizes, fitted on the same photos.
        score_scales: of each member's image scores.
        map_scales: of each member's maps: median and MAD over the distances of all patches of all
            good photos.
        calibration: of the combined scores.
        provenance: of the ensemble; each member has its own.
    """

    models: Sequence[ModelContents]
    score_scales: Sequence[Scale]
    map_scales: Sequence[Scale]
    calibration: Calibration
    provenance: dict[str, Any]

    @property
    def members(self) -> Sequence[ModelContents]:
        """The models at work."""
        return self.models

    @property
    def photos(self) -> Any:  # type: ignore[override]  # read from the first member, not stored
        """The good photos of the fit."""
        return self.models[0].photos


def scales_to_dict(ensemble: EnsembleContents) -> dict[str, Any]:
    """The scales as JSON-ready values."""
    return {
        "scores": [asdict(scale) for scale in ensemble.score_scales],
        "maps": [asdict(scale) for scale in ensemble.map_scales],
    }
