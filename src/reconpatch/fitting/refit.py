"""A new version of a model that has learned from confirmed defects: f, bank and thresholds anew.

An update adds rows to the bank and leaves f as it is (`reconpatch.fitting.update`). What defects
look like is a matter of f, and f is made from the good photos' patches, which are not in a model
file: so the photos of the fit have to be there again, and are known by their pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from reconpatch.errors import PhotoError, SettingsError, UpdateRefusedError
from reconpatch.fitting.confirmed import check_learns
from reconpatch.fitting.ensemble import fit_members
from reconpatch.fitting.options import FitOptions
from reconpatch.fitting.reading import GoodSource, Sources, sources_of
from reconpatch.fitting.update import calibrating, calibration_notes, update
from reconpatch.model.difference import Comparison, PhotoChange
from reconpatch.model.ensemble import TRAINING_SET, Ensemble
from reconpatch.model.good_photos import TrainingPhoto, pattern_for
from reconpatch.model.model import Inspector, Model
from reconpatch.photos.defect_folder import DefectSource, list_defects
from reconpatch.photos.images import Photo, read_photo


def refit(
    model: Inspector,
    good: GoodSource,
    defects: DefectSource,
    options: FitOptions | None = None,
    *,
    new_good: Sequence[Photo] = (),
    confirmed: Sequence[Photo] = (),
) -> Inspector:
    """Fit a model anew, with its settings, on its good photos and on confirmed defects.

    Args:
        model: a single model, or an ensemble, of which every member learns; it does not change.
        good: the good photos of its fit and of its updates, all of them; others that are there
            are learned as if they were.
        defects: confirmed defects; see `reconpatch.photos.defect_folder`.
        options: `weights`, `group`, `device`, `threads`, `progress`, `memory_limit` and
            `max_pixels` count; None: as usual. Without a `group`, photos are grouped as in the fit.
        new_good: new good photos, which the new version is then taught by
            `reconpatch.fitting.update.update`.
        confirmed: likewise false alarms: all that the model was taught, and new ones.

    Returns:
        The new version: `provenance["parent"]` is the fingerprint of `model`, and of each member
        `provenance["confirmed_defects"]` says what the defects came to.

    Raises:
        SettingsError: an f of the model is none that learns from defects.
        PhotoError: a good photo of the model is not among those given, a defect is among the good
            ones, or a photo or mask cannot be used.
    """
    options = options or FitOptions()
    for member in model.members:
        check_learns(member.settings, options)
    defects = list_defects(defects)
    names = {_sha256(photo.path, options): photo.called for photo in defects}
    sources = sources_of(good)
    _check_known(model, sources, names, options)
    first = model.members[0]
    asked = options.group
    pattern = pattern_for(sources.names, asked, first.provenance.get("group"))
    options = replace(options, group=pattern)
    given = set()
    for photo in chain(new_good, confirmed):  # one at a time, as they may be many
        if photo.sha256 in names:
            raise PhotoError(_in_both(names[photo.sha256], photo.name))
        given.add(photo.sha256)
    _check_confirmed(model, given)
    region = model.preprocessing.region
    new = fit_members(
        good,
        [
            replace(member.settings, false_alarm_rate=model.calibration.rate)
            for member in model.members
        ],
        replace(
            options,
            confirmed=defects,
            thumbnails=bool(first.thumbnails),
            white_level=model.preprocessing.white_level,
            roi=None if region is None else region.at(region.height, region.width),
        ),
        "training" if model.provenance.get("scales") == TRAINING_SET else "as_new",
    )
    _check_parts(model.photos, new.photos)
    notes = [*new.provenance["notes"], *calibration_notes(model)]
    if new.provenance["weights"] != model.provenance["weights"]:
        notes.append(
            "The weights of the backbone are recorded otherwise than those of the version before: "
            f"{_location(model)}, and now {_location(new)}."
        )
    if model.calibration.set_by_hand is not None:
        notes.append(
            f"The threshold {model.calibration.set_by_hand:.4g} was set by hand, in units of the f "
            "before: it follows from the good photos again, so set it anew where that is wanted."
        )
    new.provenance["notes"] = notes
    found = new
    if new_good or confirmed:
        found = update(new, new_good, confirmed=confirmed, group=asked, progress=options.progress)
    found.provenance["parent"] = model.fingerprint
    return found


def _location(model: Inspector) -> str:
    return " and ".join(str(m.provenance["weights"]["location"]) for m in model.members)


def _sha256(path: Path, options: FitOptions) -> str:
    return read_photo(path, max_pixels=options.max_pixels).sha256


def _check_known(
    model: Inspector, good: Sources, defects: dict[str, str], options: FitOptions
) -> None:
    """Refuse good photos among which one of the model's is missing, or one of the defects."""
    given = {}
    for source, name in zip(good.photos, good.names, strict=True):
        photo = read_photo(source, name=name, max_pixels=options.max_pixels)
        given[photo.sha256] = name
        if photo.sha256 in defects:
            raise PhotoError(_in_both(defects[photo.sha256], name))
    for known in model.photos:
        if known.sha256 in defects:
            raise PhotoError(
                f"{defects[known.sha256]} is given as a confirmed defect, and the same picture is "
                f"{known.name}, a good photo of the model: remove it from the defects, or fit "
                "again without it among the good ones"
            )
    learned = model.photos[: calibrating(model)]
    missing = [photo.name for photo in learned if photo.sha256 not in given]
    if missing:
        raise PhotoError(
            f"{len(missing)} of the {len(learned)} good photos of the model, such as "
            f"{missing[0]}, are not among the good photos given, and f is made anew from all of "
            "them: give the folder of the fit, with those of updates in it"
        )


def _in_both(defect: str, good: str) -> str:
    return (
        f"{defect} is given as a confirmed defect, and the same picture is the good photo {good}: "
        "remove it from one of the two folders"
    )


def _check_confirmed(model: Inspector, given: set[str]) -> None:
    """Refuse to forget false alarms that the model was taught."""
    taught = model.photos[calibrating(model) :]
    missing = [photo.name for photo in taught if photo.sha256 not in given]
    if missing:
        raise PhotoError(
            f"the model was taught {len(taught)} confirmed false alarms, and {len(missing)} of "
            f"them, such as {missing[0]}, are not given: give them with --confirmed, or the new "
            "version would not know them"
        )


def _check_parts(before: Sequence[TrainingPhoto], after: Sequence[TrainingPhoto]) -> None:
    """Refuse a fit that takes several shots of one part for several parts."""
    group = {photo.sha256: photo.group for photo in after}
    first: dict[int, TrainingPhoto] = {}
    for photo in before:
        other = first.setdefault(photo.group, photo)
        if photo.sha256 in group and group[photo.sha256] != group[other.sha256]:
            raise SettingsError(
                f"{photo.name} and {other.name} show one part in the model, and count as two "
                "without --group: give the --group of the fit"
            )


# --- Never worse on what it has not seen ------------------------------------------------------


def compare_unseen(
    old: Inspector, new: Inspector, defects: Iterable[Photo], *, force: bool = False
) -> Comparison:
    """What two versions say of confirmed defects that neither has learned from.

    The new version has learned from them, so versions of its fit that were made without each speak
    for it; likewise of the old version where it learned from the same defect. Scores are brought
    to the units of the version that they stand for.

    Args:
        old: the version in service.
        new: what `refit` made of it.
        defects: the photos that it was given.
        force: give the comparison even where fewer defects would be found.

    Raises:
        UpdateRefusedError: `new` finds fewer of the defects, unless forced.
    """
    before, after = _unseen(old), _unseen(new)
    changes: dict[str, PhotoChange] = {}
    for photo in defects:
        if photo.sha256 not in after or photo.sha256 in changes:
            continue
        score, was = after[photo.sha256], before.get(photo.sha256)
        if was is None:
            was = old.judge([photo])[0].score
        changes[photo.sha256] = PhotoChange(
            photo.name, was, score, was > old.threshold, score > new.threshold
        )
    comparison = Comparison((), tuple(changes.values()))
    lost = len(comparison.missed) - len(comparison.newly_found)
    if lost > 0 and not force:
        raise UpdateRefusedError(
            f"versions that have not seen them find {lost} fewer of {len(changes)} confirmed "
            f"defects than the model does (they miss {', '.join(comparison.missed[:3])}), so the "
            "update was refused: give more defects, or force it"
        )
    return comparison


def _unseen(model: Inspector) -> dict[str, float]:
    """Of the defects that a model learned from, their scores by versions that had not seen them.

    In the model's units, by the hash of the photo.
    """
    by_member = [_unseen_by(member) for member in model.members]
    if not isinstance(model, Ensemble):
        return by_member[0]
    return {
        photo: float(
            np.mean([s(of[photo]) for s, of in zip(model.score_scales, by_member, strict=True)])
        )
        for photo in by_member[0]
    }


def _unseen_by(model: Model) -> dict[str, float]:
    learned: dict[str, Any] = model.provenance.get("confirmed_defects") or {}
    by = "unseen" if learned.get("kept") else "alone"
    return {p["sha256"]: float(p[by]) * model.threshold for p in learned.get("photos", ())}
