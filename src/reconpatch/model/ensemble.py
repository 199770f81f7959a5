"""Ensembles: members' scores and maps brought to one scale and averaged (the paper's ensemble).

    s̄ = (s - median) / (1.4826 MAD) of each member, then the mean over the members

The paper takes median and MAD (median absolute deviation) over the training set. A bank
that holds a photo's own patches makes its score small, so by default they are taken over the good
photos scored as if they were new, the rule of the threshold. The paper's rule is an option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError
from reconpatch.method.calibration import Calibration
from reconpatch.method.memory_bank import Floats
from reconpatch.method.scoring import PatchScores
from reconpatch.method.settings import AUTOMATIC, FitSettings
from reconpatch.model.contents import EnsembleContents, Scale
from reconpatch.model.good_photos import by_part, counted_once
from reconpatch.model.model import Inspector, Judgement, Model, patch_scores
from reconpatch.model.sample import Sample
from reconpatch.photos.images import Photo
from reconpatch.photos.preprocessing import Preprocessing

TRAINING_SET = "training set"
"""What `provenance["scales"]` says of the paper's rule."""


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble(Inspector, EnsembleContents):
    """Several models of the same good photos with one verdict.

    Members that see the whole photo may do so at different sizes. Maps are made at the size of the
    finest, the one with the most pixels; a verdict is explained by the most alarmed member, on its
    own grid.
    """

    models: Sequence[Model]

    @classmethod
    def of(cls, contents: EnsembleContents) -> Self:
        """Build the ensemble from the contents of a file."""
        return cls(
            [Model.of(model) for model in contents.models],
            contents.score_scales,
            contents.map_scales,
            contents.calibration,
            contents.provenance,
        )

    def __post_init__(self) -> None:
        _check_together(self.models)

    @property
    def members(self) -> Sequence[Model]:
        """The models at work."""
        return self.models

    @property
    def preprocessing(self) -> Preprocessing:  # type: ignore[override]  # as `photos`
        """That of the finest member, which maps are made at; of equals the first."""
        return _finest(self.models).preprocessing

    @property
    def photos(self) -> Any:  # type: ignore[override]  # read from the first member, not stored
        """The good photos of the fit."""
        return self.models[0].photos

    def __repr__(self) -> str:
        names = ", ".join(member_names([model.settings for model in self.models]))
        return f"Ensemble({names}, threshold {self.threshold:.4g})"

    def judge(self, photos: Sequence[Photo], *, as_new: bool = False) -> list[Judgement]:
        """See `Inspector.judge`; the most alarmed member tells why."""
        if as_new:
            return [
                self._judge(score_members(self.models, [photo], as_new=True), 0) for photo in photos
            ]
        by_member = score_members(self.models, photos)
        return [self._judge(by_member, i) for i in range(len(photos))]

    def _judge(self, by_member: Sequence[Sequence[PatchScores]], i: int) -> Judgement:
        """Combine the members' scores of the i-th photo."""
        scored = [of_photos[i] for of_photos in by_member]
        scores = [scale(s.image_score) for scale, s in zip(self.score_scales, scored, strict=True)]
        most_alarmed = int(np.argmax(scores))
        return Judgement(
            score=float(np.mean(scores)),
            anomaly_map=_combined_map(self.models, self.map_scales, [s.distances for s in scored]),
            model=self.models[most_alarmed],
            scores=scored[most_alarmed],
        )

    def with_calibration(self, calibration: Calibration) -> Self:
        """See `Inspector.with_calibration`."""
        return replace(self, calibration=calibration)

    def with_samples(self, samples: Sequence[Sample | None]) -> Self:
        """See `Inspector.with_samples`."""
        pairs = zip(self.models, samples, strict=True)
        return replace(self, models=tuple(replace(m, sample=sample) for m, sample in pairs))

    def on_engine(self, name: str) -> Self:
        """See `Inspector.on_engine`."""
        return replace(self, models=tuple(model.on_engine(name) for model in self.models))


def combine(models: Sequence[Model], training_scores: Sequence[Values] | None = None) -> Ensemble:
    """Combine models fitted on the same photos, calibrated on the combined scores.

    Args:
        models: two or more.
        training_scores: image scores and patch distances of the good photos that the scales are
            taken from, for each model; None takes those of the photos scored as if new.
    """
    _check_together(models)
    values = training_scores or [Values(m.good.image_scores, m.good.distances) for m in models]
    score_scales = [Scale.of(v.image_scores) for v in values]
    map_scales = [Scale.of(v.distances) for v in values]
    calibration = Calibration(
        scores=combined_scores(models, score_scales),
        map_maxima=_map_maxima(models, map_scales),
        rate=models[0].calibration.rate,
        source="the good photos of the fit, each scored as if it were new by every member"
        + counted_once(len(models[0].good.photos), len(models[0].calibration.scores)),
    )
    first = models[0].provenance
    names = member_names([m.settings for m in models])
    provenance = {
        **{key: first[key] for key in ("created", "folder", "data_sha256", "versions")},
        "notes": _notes(names, models),
        "seconds": {
            f"{step}, {name}": value
            for name, m in zip(names, models, strict=True)
            for step, value in m.provenance["seconds"].items()
        },
        "weights": [m.provenance["weights"] for m in models],
        "scales": TRAINING_SET if training_scores else "good photos scored as if they were new",
    }
    return Ensemble(tuple(models), score_scales, map_scales, calibration, provenance)


def combined_scores(models: Sequence[Model], scales: Sequence[Scale]) -> npt.NDArray[np.float64]:
    """Combine the leave-one-out scores of the members: (n,), one for each part."""
    scores = [scale(m.good.image_scores) for scale, m in zip(scales, models, strict=True)]
    return by_part(np.mean(scores, axis=0), models[0].photos, models[0].good.photos)


def recombine(ensemble: Ensemble, models: Sequence[Model], source: str) -> Ensemble:
    """Combine other versions of the members on the scales of the ensemble.

    The scales stay, so that scores before and after are in one unit; the thresholds follow from
    the members' scores of their good photos.

    Args:
        ensemble: the ensemble as it was.
        models: the members' new versions, in their order.
        source: where the calibration's scores come from, in plain words.
    """
    calibration = replace(
        ensemble.calibration,
        scores=combined_scores(models, ensemble.score_scales),
        map_maxima=_map_maxima(models, ensemble.map_scales),
        source=source,
    )
    return replace(ensemble, models=tuple(models), calibration=calibration)


def _notes(names: Sequence[str], models: Sequence[Model]) -> list[str]:
    """The members' notes; what only some of them say, with their names."""
    said: dict[str, list[str]] = {}
    for name, model in zip(names, models, strict=True):
        for note in model.provenance["notes"]:
            said.setdefault(note, []).append(name)
    return [
        note if len(by) == len(models) else f"{', '.join(by)}: {note}" for note, by in said.items()
    ]


def _check_together(models: Sequence[Model]) -> None:
    check_count(models)
    if len({tuple(photo.sha256 for photo in m.photos) for m in models}) > 1:
        raise SettingsError(
            f"an ensemble of {len(models)} models was given that were not fitted on the same "
            "photos: give models of the same photos, in the same order"
        )
    levels = sorted({m.preprocessing.white_level for m in models})
    if len(levels) > 1:
        raise SettingsError(
            f"the members of an ensemble have the white levels {', '.join(map(str, levels))}: fit "
            "them with one white_level"
        )
    inputs = [m.preprocessing for m in models]
    check_views([((p.height, p.width), p.resize or 0) for p in inputs])
    if len({(p.tile > 0, p.region, p.registration) for p in inputs}) > 1:
        raise SettingsError(
            "the members of an ensemble see different parts of a photo: fit all of them on whole "
            "photos or all in tiles, with one region of interest and one registration"
        )


def check_count(members: Sequence[Any]) -> None:
    """Refuse fewer than two members."""
    if len(members) < 2:
        raise SettingsError(f"an ensemble of {len(members)} models was given: give two or more")


def check_views(inputs: Sequence[tuple[tuple[int, int], int]]) -> None:
    """Refuse inputs, each a size and a `resize`, that show different parts of a photo."""
    if len({(resize, size if resize else None) for size, resize in inputs}) > 1:
        given = ", ".join(
            f"{_text(size)} with resize {resize}" for size, resize in dict.fromkeys(inputs)
        )
        raise SettingsError(
            f"the members of an ensemble see different parts of a photo ({given}): give all of "
            "them resize 0, the whole photo at any size, or the same size and resize"
        )


def _text(size: tuple[int, int]) -> str:
    """A size for people: 224, 224 x 448, or auto where the photos decide."""
    height, width = size
    if size == AUTOMATIC:
        return "auto"
    return str(height) if height == width else f"{height} x {width}"


def member_names(settings: Sequence[FitSettings]) -> list[str]:
    """Name each member uniquely: its backbone, and its size where sizes differ."""
    several = len({s.size for s in settings}) > 1
    names = [f"{s.backbone} at {_text(s.size)}" if several else s.backbone for s in settings]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({i})" for i, name in enumerate(names, start=1)]


def said_by_members(model: Inspector, decisions: Sequence[str]) -> list[str]:
    """Collect what provenance says of decisions, of each member; of several, with their names."""
    names = member_names([member.settings for member in model.members])
    return [
        f"{name}: {found['sentence']}" if len(names) > 1 else found["sentence"]
        for name, member in zip(names, model.members, strict=True)
        for decision in decisions
        if (found := member.provenance.get(decision))
    ]


# --- Scores and maps of the members --------------------------------------------------------------


def score_members(
    models: Sequence[Model], photos: Sequence[Photo], *, as_new: bool = False
) -> list[list[PatchScores]]:
    """Score photos by each member, preparing each photo once per preprocessing.

    As if it were new, only a single photo can be scored: each leaves out rows of its own.
    """
    if not models[0].layout.plain:
        return [[m.score_views(photo, as_new=as_new) for photo in photos] for m in models]
    prepared = {
        p: np.stack([p(photo) for photo in photos]) for p in {m.preprocessing for m in models}
    }
    without = photos[0].sha256 if as_new else None
    banks = [model.bank_without(without) for model in models]
    return [
        [patch_scores(output, i, bank) for i in range(len(photos))]
        for model, bank in zip(models, banks, strict=True)
        for output in [model.engine(prepared[model.preprocessing], bank)]
    ]


def _finest(models: Sequence[Model]) -> Model:
    """The member whose input has the most pixels, the first of equals."""
    return max(models, key=lambda m: m.preprocessing.height * m.preprocessing.width)


def _combined_map(
    models: Sequence[Model], scales: Sequence[Scale], distances: Sequence[Floats]
) -> Floats:
    """The mean of the members' scaled maps, (height, width) float32 of the finest member's input.

    A member's map is drawn at that size from its (P,) distances: a map of its own size, enlarged,
    would be resampled twice.
    """
    size = _finest(models).layout.size
    maps = [scale(m.draw(d, size)) for m, scale, d in zip(models, scales, distances, strict=True)]
    combined: Floats = np.mean(maps, axis=0, dtype=np.float32)
    return combined


@dataclass(frozen=True, eq=False)
class Values:
    """The values of a member's scales: (n,) image scores and (n, P) patch distances."""

    image_scores: npt.NDArray[np.float64]
    distances: Floats


def _map_maxima(models: Sequence[Model], scales: Sequence[Scale]) -> npt.NDArray[np.float64]:
    """Find the largest value of each part's combined maps, leave-one-out: (n,)."""
    of_photos = zip(*(m.good.distances for m in models), strict=True)
    maxima = np.array([float(_combined_map(models, scales, d).max()) for d in of_photos])
    return by_part(maxima, models[0].photos, models[0].good.photos)
