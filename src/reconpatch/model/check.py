"""Check that the contents of a model file fit together.

The checksum tells of damage. It is no signature: a file that somebody made by hand can have the
right one. So whatever an inspection or a report relies on is looked at once, when a file is read.
What the graph gives is looked at when it runs (`reconpatch.engine.engines`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.method.calibration import Calibration, check_rate
from reconpatch.method.composition import Composition
from reconpatch.method.defect_kinds import DefectKinds
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.model.contents import EnsembleContents, ModelContents
from reconpatch.model.good_photos import GoodScores, TrainingPhoto, groups_of_composition
from reconpatch.model.sample import Sample
from reconpatch.photos.kind import Kind
from reconpatch.photos.preprocessing import Preprocessing
from reconpatch.photos.stored_picture import LONGEST_SIDE, stored_size

_MOST_CROPPED = 8


def check_model(model: ModelContents) -> None:
    """Raise ValueError, naming the part, unless the parts of a model fit together."""
    _check_provenance(model.provenance)
    _check_learned(model.provenance)
    _check_photos(model.photos, len(model.thumbnails))
    _check_preprocessing(model.preprocessing)
    _check_good(model.good, len(model.photos), model.bank.rows.shape[-1])
    asked = model.settings.scoring.likeness > 0
    _require((model.bank.defects is not None) == asked, "patches of defects if the score asks")
    _check_bank(model.bank, len(model.photos), model.good.distances.shape[1])
    asked = model.settings.scoring.composition > 0
    _require((model.bank.composition is not None) == asked, "a composition if the score asks")
    if model.bank.composition is not None:
        groups = groups_of_composition(model.good, model.photos)
        _check_composition(model.bank.composition, len(groups), model.bank.rows.shape[1])
    _check_representation(model.representation, model.bank.rows.shape[1])
    _check_calibration(model.calibration)
    if model.defect_kinds is not None:
        _check_kinds(model.defect_kinds, model.bank.rows.shape[1])
    if model.sample is not None:
        _check_sample(model.sample, model.preprocessing)


def check_ensemble(ensemble: EnsembleContents) -> None:
    """Raise ValueError, naming the part, unless the scales of an ensemble fit it."""
    _check_provenance(ensemble.provenance)
    _check_calibration(ensemble.calibration)
    for scales in (ensemble.score_scales, ensemble.map_scales):
        _require(len(scales) == len(ensemble.models), "one scale for each member")
        for scale in scales:
            _require(_is_number(scale.median) and _is_number(scale.mad), "scales that are numbers")
            _require(scale.mad > 0, "a MAD above 0")


def _check_provenance(provenance: Any) -> None:
    _require(isinstance(provenance, dict), "a provenance with names")
    _require(isinstance(provenance.get("created"), str), "a time of the fit")
    notes = provenance.get("notes")
    _require(isinstance(notes, list) and all(isinstance(n, str) for n in notes), "notes in words")


def _check_learned(provenance: dict[str, Any]) -> None:
    """What the provenance of a single model says beyond that of an ensemble."""
    if provenance.get("kind") is not None:
        Kind.from_dict(provenance["kind"])
    group = provenance.get("group")
    _require(group is None or isinstance(group, str), "a pattern that groups photos")
    weights, guard = provenance.get("weights"), provenance.get("guard")
    _require(isinstance(weights, dict) and "location" in weights, "where the weights come from")
    kept = guard.get("kept") if isinstance(guard, dict) else None
    _require(guard is None or isinstance(kept, str), "what the guard kept")
    for decision, what in (
        ("input_size", "what decided on the size of the input"),
        ("turns", "what decided on turned copies"),
        ("composition", "what decided on the composition"),
        ("confirmed_defects", "what confirmed defects came to"),
        ("defect_kinds", "how kinds of defects are told apart"),
    ):
        found = provenance.get(decision)
        said = found.get("sentence") if isinstance(found, dict) else None
        _require(found is None or isinstance(said, str), what)


def _check_photos(photos: Sequence[TrainingPhoto], thumbnails: int) -> None:
    _require(len(photos) > 0, "a good photo")
    for photo in photos:
        _require(isinstance(photo.name, str) and isinstance(photo.sha256, str), "photos' names")
        _require(_is_whole(photo.height, 1) and _is_whole(photo.width, 1), "photos' sizes")
        _require(_is_whole(photo.group, 0), "photos' groups")
    _require(thumbnails in (0, len(photos)), "no thumbnail, or one of each good photo")


def _check_preprocessing(preprocessing: Preprocessing) -> None:
    size = preprocessing.height, preprocessing.width
    _require(all(_is_whole(side, 1, LONGEST_SIDE) for side in size), "an input of a size that can")
    # Of the smallest photo a crop by more would leave nothing to inspect.
    resize, most = preprocessing.resize, _MOST_CROPPED * min(size)
    _require(resize is None or _is_whole(resize, 1, most), "a resize that leaves something")
    _require(_is_whole(preprocessing.white_level, 1, 65535), "a white level")
    for side in (preprocessing.tile, preprocessing.overlap):
        _require(_is_whole(side, 0, LONGEST_SIDE), "tiles of a size that can be")


def _check_bank(bank: MemoryBank, photos: int, places: int) -> None:
    rows = bank.rows
    _require(rows.ndim == 2 and rows.size > 0 and rows.dtype == np.float32, "rows of a bank")
    _require(bool(np.isfinite(rows).all()), "a bank of finite numbers")
    _require(bank.replacements.shape == rows.shape, "a replacement for each row of the bank")
    if bank.scales is not None:
        fits = bank.scales.shape == (len(rows),) and bank.scales.dtype == np.float32
        _require(fits and bool((bank.scales > 0).all()), "a scale above 0 for each row of the bank")
        _require(bool(np.isfinite(bank.scales).all()), "scales that are finite")
    if bank.defects is not None:
        shaped = bank.defects.ndim == 2 and bank.defects.shape[1] == rows.shape[1]
        shaped = shaped and bank.defects.size > 0 and bank.defects.dtype == np.float32
        _require(shaped, "patches of defects as long as the bank's rows")
        _require(bool(np.isfinite(bank.defects).all()), "patches of defects that are finite")
    if bank.discriminant is not None:
        fits = bank.defects is not None and bank.discriminant.shape == (rows.shape[1] + 1,)
        _require(fits and bank.discriminant.dtype == np.float32, "a discriminant of the defects")
        _require(bool(np.isfinite(bank.discriminant).all()), "a discriminant that is finite")
    _require(bank.replacements.dtype == np.float32, "a replacement for each row of the bank")
    _check_indices(bank.photo, (len(rows),), photos, "the photo of each row of the bank")
    _check_indices(bank.place, (len(rows),), places, "the place of each row of the bank")


def _check_composition(composition: Composition, photos: int, dim: int) -> None:
    for given, shape, what in (
        (composition.means, (photos, dim), "the mean patch of each good photo"),
        (composition.whitening, (dim, dim), "what whitens compositions"),
        (composition.units, (4,), "units of compositions"),
    ):
        _require(given.shape == shape and given.dtype == np.float32, what)
        _require(bool(np.isfinite(given).all()), what)
    first = composition.first
    _require(first.shape == (photos,) and first.dtype == np.bool_, "the half of each good photo")
    _require(bool((composition.units[[1, 3]] > 0).all()), "units of compositions above 0")


def _check_representation(f: Representation, dim: int) -> None:
    if f.weight is not None:
        _require(f.weight.ndim == 2 and len(f.weight) == dim, "an f that gives the bank's rows")
    if f.bias is not None:
        _require(f.bias.shape == (dim,), "an f that gives the bank's rows")


def _check_good(good: GoodScores, photos: int, dim: int) -> None:
    n = len(good.photos)
    _check_indices(good.photos, (n,), photos, "the photos of the scores")
    for scores in (good.image_scores, good.map_maxima):
        _check_scores(scores, "a score of each good photo")
        _require(len(scores) == n, "a score of each good photo")
    _require(good.distances.ndim == 2 and len(good.distances) == n, "distances of each photo")
    _require(good.weighted.shape == good.distances.shape, "weighted distances of each photo")
    places = good.distances.shape[1]
    _require(good.most_distant.ndim == 2, "most distant patches of each photo")
    _check_indices(
        good.most_distant,
        (n, good.most_distant.shape[1]),
        places,
        "most distant patches of each photo",
    )
    _require(
        good.features.shape == (*good.most_distant.shape, dim),
        "features of each of the most distant patches",
    )


def _check_calibration(calibration: Calibration) -> None:
    for scores in (calibration.scores, calibration.map_maxima):
        _check_scores(scores, "scores of a calibration")
    check_rate(calibration.rate)
    _require(isinstance(calibration.source, str), "where a calibration comes from")
    by_hand = calibration.set_by_hand
    _require(by_hand is None or _is_number(by_hand), "a threshold that is a number")


def _check_kinds(kinds: DefectKinds, dim: int) -> None:
    named = all(isinstance(name, str) and name for name in kinds.names)
    _require(named and len({*kinds.names}) == len(kinds.names) > 0, "names of kinds of defects")
    _require(len(kinds.near) == len(kinds.names), "a limit of each kind of defects")
    for near in kinds.near:
        _require(_is_number(near) and 0 < near <= 1, "limits of similarity in (0, 1]")
    rows = kinds.rows
    _require(rows.ndim == 2 and rows.shape[1] == dim, "patches of defects as the bank's rows")
    _require(rows.dtype == np.float32 and bool(np.isfinite(rows).all()), "patches of defects")
    _check_indices(kinds.kind, (len(rows),), len(kinds.names), "the kind of each patch of a defect")
    _require(len({*kinds.kind.tolist()}) == len(kinds.names), "a patch of each kind of defects")


def _check_sample(sample: Sample, preprocessing: Preprocessing) -> None:
    size = preprocessing.width, preprocessing.height
    for picture in sample.pictures:
        _require(stored_size(picture, "PNG") == size, "samples of the input's size")
    _require(len(sample.scores) == len(sample.distances), "scores and distances of the samples")
    _require(len(sample.scores) in (0, len(sample)), "scores and distances of the samples")
    for measured in sample.measured:
        whole = len(measured.scores) == len(sample)
        _require(whole, "what its engines said of all samples")


def _check_scores(scores: npt.NDArray[Any], what: str) -> None:
    _require(scores.ndim == 1 and len(scores) > 0 and scores.dtype.kind == "f", what)
    _require(bool(np.isfinite(scores).all()), what)


def _check_indices(
    indices: npt.NDArray[Any], shape: tuple[int, ...], below: int, what: str
) -> None:
    _require(indices.shape == shape and indices.dtype.kind == "i", what)
    _require(bool(((indices >= 0) & (indices < below)).all()), what)


def _is_whole(value: Any, least: int, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"it lacks {what}")
