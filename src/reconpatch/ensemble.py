"""Ensembles: members' scores and maps brought to one scale and averaged (the paper's ensemble).

    s̄ = (s - median) / (1.4826 MAD) of each member, then the mean over the members

The paper takes median and MAD (median absolute deviation) over the training set. A bank
that holds a photo's own patches makes its score small, so by default they are taken over the good
photos scored as if they were new, the rule of the threshold. The paper's rule is an option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from reconpatch.calibration import Calibration
from reconpatch.errors import SettingsError
from reconpatch.images import Photo
from reconpatch.memory_bank import Floats
from reconpatch.model import Inspector, Judgement, Model
from reconpatch.scoring import anomaly_map

if TYPE_CHECKING:
    from reconpatch.fitting import FitOptions, GoodSource, Progress
    from reconpatch.settings import FitSettings

# Makes the MAD of a normal distribution its standard deviation.
MAD_TO_STD = 1.4826

Statistics = Literal["as_new", "training"]


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
        """The scale of some values.

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
class Ensemble(Inspector):
    """Several models of the same good photos with one verdict.

    Attributes:
        models: of different backbones, fitted on the same photos with the same input size.
        score_scales: of each member's image scores.
        map_scales: of each member's maps: median and MAD over the distances of all patches of all
            good photos.
        calibration: of the combined scores.
        provenance: of the ensemble; each member has its own.
    """

    models: Sequence[Model]
    score_scales: Sequence[Scale]
    map_scales: Sequence[Scale]
    calibration: Calibration
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        _check_together(self.models)

    @property
    def members(self) -> Sequence[Model]:
        """The models at work."""
        return self.models

    @property
    def photos(self) -> Any:  # type: ignore[override]  # read from the first member, not stored
        """The good photos of the fit."""
        return self.models[0].photos

    def __repr__(self) -> str:
        names = ", ".join(model.settings.backbone for model in self.models)
        return f"Ensemble({names}, threshold {self.threshold:.4g})"

    def judge(self, photo: Photo, *, as_new: bool = False) -> Judgement:
        """See `Inspector.judge`; the most alarmed member tells why."""
        judged = [model.judge(photo, as_new=as_new) for model in self.models]
        scores = [scale(j.score) for scale, j in zip(self.score_scales, judged, strict=True)]
        maps = [scale(j.anomaly_map) for scale, j in zip(self.map_scales, judged, strict=True)]
        most_alarmed = judged[int(np.argmax(scores))]
        return Judgement(
            score=float(np.mean(scores)),
            anomaly_map=np.mean(maps, axis=0, dtype=np.float32),
            model=most_alarmed.model,
            scores=most_alarmed.scores,
        )

    def with_calibration(self, calibration: Calibration) -> Self:
        """See `Inspector.with_calibration`."""
        return replace(self, calibration=calibration)


def combine(models: Sequence[Model], training_scores: Sequence[Values] | None = None) -> Ensemble:
    """An ensemble of models fitted on the same photos, calibrated on the combined scores.

    Args:
        models: two or more.
        training_scores: image scores and patch distances of the good photos that the scales are
            taken from, for each model; None takes those of the photos scored as if new.
    """
    _check_together(models)
    values = training_scores or [Values(m.good.image_scores, m.good.distances) for m in models]
    score_scales = [Scale.of(v.image_scores) for v in values]
    map_scales = [Scale.of(v.distances) for v in values]
    scores = [s(m.good.image_scores) for s, m in zip(score_scales, models, strict=True)]
    calibration = Calibration(
        scores=np.mean(scores, axis=0),
        map_maxima=_map_maxima(models, map_scales),
        rate=models[0].calibration.rate,
        source="the good photos of the fit, each scored as if it were new by every member",
    )
    first = models[0].provenance
    provenance = {
        **{key: first[key] for key in ("created", "folder", "data_sha256", "versions", "notes")},
        "seconds": {
            f"{step}, {m.settings.backbone}": value
            for m in models
            for step, value in m.provenance["seconds"].items()
        },
        "weights": [m.provenance["weights"] for m in models],
        "scales": "training set" if training_scores else "good photos scored as if they were new",
    }
    return Ensemble(tuple(models), score_scales, map_scales, calibration, provenance)


def _check_together(models: Sequence[Model]) -> None:
    kinds = {(m.preprocessing, tuple(photo.sha256 for photo in m.photos)) for m in models}
    if len(models) < 2 or len(kinds) > 1:
        raise SettingsError(
            f"an ensemble of {len(models)} models was given: give two or more that were fitted on "
            "the same photos with the same input size"
        )


@dataclass(frozen=True, eq=False)
class Values:
    """What a member's scales are taken from: (n,) image scores and (n, P) patch distances."""

    image_scores: npt.NDArray[np.float64]
    distances: Floats


def _map_maxima(models: Sequence[Model], scales: Sequence[Scale]) -> npt.NDArray[np.float64]:
    """(n,) largest value of each good photo's combined map, the photo as if it were new."""
    maxima = []
    for i in range(len(models[0].photos)):
        maps = [
            scale(
                anomaly_map(
                    m.good.distances[i], m.extractor.grid, m.settings.size, m.settings.scoring.blur
                )
            )
            for scale, m in zip(scales, models, strict=True)
        ]
        maxima.append(float(np.mean(maps, axis=0, dtype=np.float32).max()))
    return np.array(maxima)


def fit_ensemble(
    good: GoodSource,
    settings: Sequence[FitSettings],
    options: FitOptions,
    statistics: Statistics = "as_new",
) -> Ensemble:
    """Fit one member for each of the settings, on the same photos, and combine them.

    Args:
        good: see `reconpatch.fitting.fit`.
        settings: of each member; they differ in the backbone, say.
        options: see `reconpatch.fitting.FitOptions`; `weights` must be None or "random".
        statistics: "as_new" takes the scales from the good photos scored as if they were new;
            "training", the paper's rule, from their scores against the whole bank.
    """
    from reconpatch.fitting import fit_model, read_good

    if options.weights not in (None, "random"):
        raise SettingsError(
            "--weights names one file, and an ensemble needs one for each backbone: install them "
            "or let timm find them"
        )
    models: list[Model] = []
    for member in settings:
        own = replace(
            options,
            # One set of thumbnails is enough: that of the first member.
            thumbnails=options.thumbnails and not models,
            progress=_named(member.backbone, options.progress),
        )
        models.append(fit_model(good, member, own))
    thumbnails = models[0].thumbnails
    models = [replace(model, thumbnails=thumbnails) for model in models]
    if statistics == "as_new":
        return combine(models)
    # Photo by photo, so that no more than one decoded photo is held at a time.
    scored = [[model.score(photo) for model in models] for photo in read_good(good, options)]
    values = [
        Values(np.array([s.image_score for s in scores]), np.stack([s.distances for s in scores]))
        for scores in zip(*scored, strict=True)
    ]
    return combine(models, values)


def _named(backbone: str, progress: Progress | None) -> Progress | None:
    """Progress whose steps say which member is at work."""
    if progress is None:
        return None
    return lambda step, done, total: progress(f"{backbone}: {step}", done, total)


def scales_to_dict(ensemble: Ensemble) -> dict[str, Any]:
    """The scales as JSON-ready values."""
    return {
        "scores": [asdict(scale) for scale in ensemble.score_scales],
        "maps": [asdict(scale) for scale in ensemble.map_scales],
    }
