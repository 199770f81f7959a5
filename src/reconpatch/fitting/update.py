"""Teach a fitted model new good photos, without a fit: its bank grows, f stays.

    new good photos, confirmed false alarms ── r = f(p) ── what is further from the bank than the
    covering radius becomes a row, and of each its composition ── good photos scored again ──
    thresholds

The photos of a model stand in this order: those that the thresholds are calibrated on (of the fit,
and `good` photos of updates), then confirmed false alarms, which were picked by their verdict and
would break the false-alarm rate. `GoodScores` has the scores of the first kind only. What the
update promises, and why the radius is what it is: docs/teach.md.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from reconpatch.errors import NotEnoughPhotosError
from reconpatch.fitting.options import Progress, counted
from reconpatch.fitting.reading import thumbnail
from reconpatch.method.composition import Composition, halved
from reconpatch.method.coreset import extend_coreset
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.model.difference import Comparison, Difference, PhotoChange, check_update, diff
from reconpatch.model.ensemble import Ensemble, recombine
from reconpatch.model.good_photos import (
    GoodScores,
    TrainingPhoto,
    assign_groups,
    bare_bank,
    by_part,
    counted_once,
    groups_of_composition,
    groups_of_rows,
    leave_one_out,
    pattern_for,
    rescore,
    with_scales,
)
from reconpatch.model.model import Inspector, Model
from reconpatch.photos.copies import Alike, Signature, alike, known_photos, signature
from reconpatch.photos.images import Photo
from reconpatch.photos.kind import KindsSeen

__all__ = [
    "Comparison",
    "Difference",
    "PhotoChange",
    "check_update",
    "covering_radius",
    "diff",
    "update",
]


def update(
    model: Inspector,
    good: Iterable[Photo],
    *,
    confirmed: Iterable[Photo] = (),
    group: str | None = None,
    progress: Progress | None = None,
) -> Inspector:
    """Return a new version of a model that knows more good photos; the model does not change.

    Args:
        model: a model, or an ensemble, of which every member is updated.
        good: good photos as `read_photo` gives them, chosen without regard to their verdict: they
            enter the bank, and the thresholds are calibrated on them and on those of the fit.
        confirmed: false alarms, picked because of their verdict: they enter the bank only. A photo
            that is also among `good`, now or later, counts as one of those.
        group: regular expression whose brackets name the part in a new photo's name, for several
            shots of one part; see `reconpatch.model.good_photos.assign_groups`. None: as in the
            fit, where that names the part of any new photo.
        progress: called with the step at work, what is done of it, and what there is to do.

    Returns:
        The new version: `provenance["parent"]` is the fingerprint of `model`, and
        `provenance["updated"]` says when, and how many photos and rows were added.

    Raises:
        NotEnoughPhotosError: no photo is given that the model does not know already.
        SettingsError: `group` is no regular expression, or matches no new photo's name.
    """
    report = progress or (lambda *_: None)
    new = _read(model, good, confirmed, report)
    if not (new.photos or new.promoted):
        raise NotEnoughPhotosError(
            "the model knows all the photos that were given, or none was given: give at least one "
            "good photo or confirmed false alarm that is new to it"
        )
    names = [photo.name for photo in new.photos]
    pattern = pattern_for(names, group, model.members[0].provenance.get("group"))
    photos, notes = _grouped(new, model.photos, pattern)
    new = replace(new, photos=photos)
    if new.copies:
        notes.append(
            f"{len(new.copies)} of the new photos, such as {new.copies[0]}, add nothing: they are "
            "copies, saved anew, of photos that the model holds."
        )
    members = [_updated(m, new, i, report) for i, m in enumerate(model.members)]
    members = [replace(m, provenance=_with_notes(m, notes)) for m in members]
    if not isinstance(model, Ensemble):
        return members[0]
    combined = recombine(model, members, members[0].calibration.source)
    rows = sum(len(m.bank) for m in members) - sum(len(m.bank) for m in model.members)
    combined = replace(combined, provenance=_provenance(model, new, rows, radius=None))
    return replace(combined, provenance=_with_notes(combined, notes))


def _with_notes(model: Inspector, notes: Sequence[str]) -> dict[str, Any]:
    return {**model.provenance, "notes": [*model.provenance["notes"], *notes]}


_ANOTHER_KIND = "The update learned photos of another kind than those of the fit: {}"

# --- Photos --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _NewPhotos:
    """What is new to a model.

    Attributes:
        photos: new good photos, then confirmed false alarms.
        good: how many of them are the former.
        copies: names of good photos that were left out, as copies of photos that are known.
        alike: which of the new photos are one picture.
        promoted: indices of the model's photos that entered as confirmed and are now among `good`.
        promoted_patches: of each member, (P, D) represented patches of each of those.
        patches: of each member, (P, D) represented patches of each new photo.
        thumbnails: of each new photo, where the model has any.
        kinds: what sets photos apart from those of the fit, with their number.
    """

    photos: Sequence[TrainingPhoto]
    good: int
    copies: Sequence[str]
    alike: Alike
    promoted: Sequence[int]
    promoted_patches: Sequence[Sequence[Floats]]
    patches: Sequence[Sequence[Floats]]
    thumbnails: Sequence[bytes]
    kinds: Sequence[str] = ()


def _read(
    model: Inspector, good: Iterable[Photo], confirmed: Iterable[Photo], report: Progress
) -> _NewPhotos:
    """Look at each photo once; those that are known add nothing."""
    of_hash = {photo.sha256: i for i, photo in enumerate(model.photos)}
    first_confirmed = calibrating(model.members[0])
    photos: list[TrainingPhoto] = []
    promoted: list[int] = []
    members = model.members
    patches: list[list[Floats]] = [[] for _ in members]
    promoted_patches: list[list[Floats]] = [[] for _ in members]
    thumbnails: list[bytes] = []
    seen: set[str] = set()
    kinds = KindsSeen()
    copies: list[str] = []
    signatures: list[Signature] = []
    pictures: list[int] = []
    held = known_photos(members[0].thumbnails, [photo.group for photo in model.photos])

    def is_copy(photo: Photo) -> bool:
        small = signature(members[0].preprocessing.registered(photo), model.white_level)
        at = held.find(small, min(photo.height, photo.width))
        if at is not None and at < len(model.photos):
            return True
        held.add(small)
        signatures.append(small)
        pictures.append(len(pictures) if at is None else pictures[at - len(model.photos)])
        return False

    for photo in kinds.through(counted(good, "look at good photos", report), model):
        if photo.sha256 in seen:
            continue
        seen.add(photo.sha256)
        known = of_hash.get(photo.sha256)
        if known is None and is_copy(photo):
            copies.append(PurePath(photo.name).name)
        elif known is None:
            _add(photo, members, photos, patches, thumbnails)
        elif known is not None and known >= first_confirmed:
            promoted.append(known)
            for own, member in zip(promoted_patches, members, strict=True):
                own.append(member.represent(photo))
    new_good = len(photos)
    for photo in kinds.through(counted(confirmed, "look at false alarms", report), model):
        if photo.sha256 not in seen and photo.sha256 not in of_hash:
            seen.add(photo.sha256)
            _add(photo, members, photos, patches, thumbnails)
    sides = [min(photo.height, photo.width) for photo in photos[:new_good]]
    of_good = alike(signatures, [photo.name for photo in photos[:new_good]], sides)
    of_good = of_good.joined(pictures)
    lone = np.arange(new_good, len(photos))  # each confirmed one is by itself
    found = replace(of_good, picture=np.concatenate([of_good.picture, lone]))
    return _NewPhotos(
        photos, new_good, copies, found, promoted, promoted_patches, patches, thumbnails,
        kinds.sentences(),
    )  # fmt: skip


def _add(
    photo: Photo,
    members: Sequence[Model],
    photos: list[TrainingPhoto],
    patches: Sequence[list[Floats]],
    thumbnails: list[bytes],
) -> None:
    photo = members[0].preprocessing.registered(photo)  # once for all members
    # A model file names no folders of the machine that it was made on.
    name = PurePath(photo.name).name
    photos.append(TrainingPhoto(name, photo.sha256, photo.height, photo.width, len(photos)))
    for own, member in zip(patches, members, strict=True):
        own.append(member.represent(photo))
    if members[0].thumbnails:
        thumbnails.append(thumbnail(photo, members[0].white_level))


def _grouped(
    new: _NewPhotos, known: Sequence[TrainingPhoto], pattern: str | None
) -> tuple[list[TrainingPhoto], list[str]]:
    """The new photos in groups that none of the known ones is in; and notes."""
    if not new.photos:
        return [], []
    first = 1 + max(photo.group for photo in known)
    photos, notes = assign_groups(new.photos, pattern, new.alike)
    return [replace(photo, group=first + photo.group) for photo in photos], notes


# --- One member ----------------------------------------------------------------------------------


def _updated(model: Model, new: _NewPhotos, member: int, report: Progress) -> Model:
    patches = new.patches[member]
    radius = covering_radius(model)
    report("add to the memory bank", 0, 1)
    good, confirmed = patches[: new.good], patches[new.good :]
    added = _new_rows(model.bank, good, confirmed, radius, min(radius, _own_threshold(model)))
    order = _order(len(model.photos), calibrating(model), new)
    photos = [[*model.photos, *new.photos][i] for i in order]
    thumbnails = [*model.thumbnails, *new.thumbnails]
    bank = _grown(model.bank, patches, added, len(model.photos), order)
    bank = with_scales(bank, photos, model.settings.scoring)
    bank = _mended(bank, len(model.bank), patches, new.photos, photos, radius)
    report("add to the memory bank", 1, 1)
    scores = _scores(model, bank, photos, [*new.promoted_patches[member], *good], report)
    composition = _composition(model, scores, photos, new.promoted, confirmed)
    bank = replace(bank, composition=composition)
    scores = scores.with_composition(composition)
    parts = by_part(scores.image_scores, photos, scores.photos)
    calibration = replace(
        model.calibration,
        scores=parts,
        map_maxima=by_part(scores.map_maxima, photos, scores.photos),
        source=_source(len(scores.image_scores), len(parts)),
    )
    return replace(
        model,
        bank=bank,
        photos=photos,
        good=scores,
        calibration=calibration,
        thumbnails=[thumbnails[i] for i in order] if thumbnails else (),
        provenance=_provenance(model, new, len(bank) - len(model.bank), radius),
    )


def calibration_notes(model: Inspector) -> list[str]:
    """A note where a model's thresholds came from photos that it does not hold."""
    own = [m.good.image_scores for m in model.members]
    if isinstance(model, Ensemble):
        scaled = [scale(s) for scale, s in zip(model.score_scales, own, strict=True)]
        own = [np.mean(scaled, axis=0)]
    # Versions before this one counted photos, not parts.
    same = own[0], by_part(own[0], model.photos, model.members[0].good.photos)
    if any(np.array_equal(scores, model.calibration.scores) for scores in same):
        return []
    return [
        f"The thresholds came from {model.calibration.source}; since the update they come from "
        "the good photos of the fit and of updates. If those look different, calibrate again."
    ]


def _source(photos: int, parts: int) -> str:
    return (
        f"{photos} good photos of the fit and of updates, each scored as if it were new"
        f"{counted_once(photos, parts)}; confirmed false alarms are not among them"
    )


def _provenance(
    parent: Inspector, new: _NewPhotos, rows: int, radius: float | None
) -> dict[str, Any]:
    updated = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "good_photos": new.good,
        "confirmed_false_alarms": len(new.photos) - new.good,
        "confirmed_now_good": len(new.promoted),
        "rows": rows,
        "radius": radius,
    }
    return {
        **parent.provenance,
        "notes": [
            *parent.provenance["notes"],
            *calibration_notes(parent),
            *map(_ANOTHER_KIND.format, new.kinds),
        ],
        "parent": parent.fingerprint,
        "updated": updated,
    }


def covering_radius(model: Model) -> float:
    """The distance within which the bank covers what it was made from, in the space of r.

    A bank that was updated covers as before: whatever was further away became a row.
    """
    updated = model.provenance.get("updated")
    return float(updated["radius"] if updated else model.provenance["coreset_radius"])


def _own_threshold(model: Model) -> float:
    """The member's own threshold by its good photos; an ensemble's is on another scale."""
    return replace(model.calibration, set_by_hand=None).image_threshold.value


# --- Bank ----------------------------------------------------------------------------------------


def _new_rows(
    bank: MemoryBank,
    good: Sequence[Floats],
    confirmed: Sequence[Floats],
    radius: float,
    radius_confirmed: float,
) -> list[tuple[int, int]]:
    """Choose the patches that become rows: the index of their photo, their place in its grid.

    Greedy picks of the good photos down to the radius, then all that is new in false alarms. Of a
    false alarm that a person confirmed every patch enters that is further away: picks alone would
    leave it as far from the bank as the radius.
    """
    of_good = _picks(bank, good, radius)
    grown = bare_bank(np.concatenate([bank.rows, *(good[i][[place]] for i, place in of_good)]))
    of_confirmed = [
        (len(good) + i, int(place))
        for i, r in enumerate(confirmed)
        for place in np.flatnonzero(grown.nearest(r)[0] > radius_confirmed)
    ]
    return [*of_good, *of_confirmed]


def _picks(bank: MemoryBank, patches: Sequence[Floats], radius: float) -> list[tuple[int, int]]:
    """Photo and place of the greedy picks."""
    beyond = []
    for photo, r in enumerate(patches):
        distance, _ = bank.nearest(r)
        beyond += [
            (photo, int(place), distance[place]) for place in np.flatnonzero(distance > radius)
        ]
    if not beyond:
        return []
    features = np.stack([patches[photo][place] for photo, place, _ in beyond])
    nearest = np.array([distance for _, _, distance in beyond], dtype=np.float32)
    return [beyond[i][:2] for i in extend_coreset(features, nearest, radius)]


def _order(known: int, calibrating: int, new: _NewPhotos) -> list[int]:
    """Indices of known and new photos, in the order in which the new version has them."""
    confirmed = [i for i in range(calibrating, known) if i not in set(new.promoted)]
    added = range(known, known + len(new.photos))
    return [
        *range(calibrating),
        *new.promoted,
        *added[: new.good],
        *confirmed,
        *added[new.good :],
    ]


def _grown(
    bank: MemoryBank,
    patches: Sequence[Floats],
    added: Sequence[tuple[int, int]],
    known: int,
    order: Sequence[int],
) -> MemoryBank:
    """The bank with its new rows, its photos in their new order, replacements yet to be chosen."""
    photo, place = np.array(added, dtype=np.int64).reshape(-1, 2).T
    more = np.concatenate([bank.rows[:0], *(patches[i][[at]] for i, at in added)])
    place_of = np.argsort(np.array(order))
    return MemoryBank(
        rows=np.concatenate([bank.rows, more]),
        photo=place_of[np.concatenate([bank.photo, known + photo])],
        place=np.concatenate([bank.place, place]),
        replacements=np.concatenate([bank.replacements, more]),
        scales=bank.scales,
        defects=bank.defects,
        discriminant=bank.discriminant,
    )


def _mended(
    bank: MemoryBank,
    old: int,
    patches: Sequence[Floats],
    new: Sequence[TrainingPhoto],
    photos: Sequence[TrainingPhoto],
    radius: float,
) -> MemoryBank:
    """Choose replacement rows for all rows: what the bank would hold without their photo.

    Without a group of photos, the patches of the new ones that its rows cover are uncovered. Of the
    group's own update, those further from the rest than the radius would have become rows. Of
    older groups the former replacements are too, and the selection goes on among all of them
    until as many are picked as rows were taken away; that an update would pick some more is left
    out, so a photo's score as if new is rather too large. Where there are too few, a row that is
    there already fills the place.
    """
    group_of_row = groups_of_rows(bank, photos)
    uncovered: dict[int, list[Floats]] = {int(group): [] for group in np.unique(group_of_row)}
    for photo, r in zip(new, patches, strict=True):
        covered_by = group_of_row[bank.nearest(r)[1]]
        for group in np.unique(covered_by[covered_by != photo.group]):
            uncovered[int(group)].append(r[covered_by == group])
    older = set(group_of_row[:old].tolist())
    replacements = bank.replacements.copy()
    for group, parts in uncovered.items():
        mine = group_of_row == group
        if group not in older:
            replacements[mine] = _replacements(bank.rows[~mine], parts, int(mine.sum()), radius)
        elif parts:  # else nothing has become of the old ones
            parts = [bank.replacements[mine], *parts]
            replacements[mine] = _replacements(bank.rows[~mine], parts, int(mine.sum()), 0.0)
    return replace(bank, replacements=replacements)


def _replacements(rest: Floats, uncovered: Sequence[Floats], count: int, radius: float) -> Floats:
    filled = np.repeat(rest[:1], count, axis=0)
    if uncovered:
        candidates = np.concatenate(uncovered)
        nearest, _ = bare_bank(rest).nearest(candidates)
        picks = extend_coreset(candidates, nearest, radius, most=count)
        filled[: len(picks)] = candidates[picks]
    return filled


# --- Scores --------------------------------------------------------------------------------------


def _scores(
    model: Model,
    bank: MemoryBank,
    photos: Sequence[TrainingPhoto],
    patches: Sequence[Floats],
    report: Progress,
) -> GoodScores:
    """Score the calibrating photos: old ones from kept patches, new ones in full.

    Args:
        model: the model before the update.
        bank: the bank after it.
        photos: all photos, in their new order.
        patches: of the photos that calibrate from now on.
        report: progress.
    """
    scoring, layout = model.settings.scoring, model.layout
    old = calibrating(model)
    again = rescore(model.good, photos, bank, scoring, layout)
    if not patches:
        return again
    new = leave_one_out(
        lambda i: patches[i - old], photos, bank, scoring, layout,
        of=range(old, old + len(patches)),
        progress=lambda done, total: report("calibrate", done, total),
    )  # fmt: skip
    joined = {
        name: np.concatenate([getattr(again, name), getattr(new, name)])
        for name in GoodScores.__dataclass_fields__
        if getattr(again, name) is not None
    }
    if not scoring.weighs:
        joined["weighted"] = joined["distances"]
    return GoodScores(**joined)


def _composition(
    model: Model,
    scores: GoodScores,
    photos: Sequence[TrainingPhoto],
    promoted: Sequence[int],
    confirmed: Sequence[Floats],
) -> Composition | None:
    """The model's composition with the new photos, false alarms among them; None if it has none.

    Args:
        model: the model before the update.
        scores: of the photos that calibrate from now on.
        photos: all photos, in their new order.
        promoted: indices of the model's photos that entered as confirmed and now calibrate.
        confirmed: (P, D) represented patches of each new false alarm.
    """
    composition = model.bank.composition
    if composition is None or scores.means is None:
        return None
    known, scored = composition.scored, len(scores.photos)
    was_confirmed = np.arange(calibrating(model), len(model.photos))
    stay = ~np.isin(was_confirmed, promoted)
    promoted_rows = known + np.array(promoted, np.int64) - calibrating(model)
    false_alarms = composition.means[known:][stay]
    new = [r.mean(axis=0, keepdims=True, dtype=np.float64) for r in confirmed]
    means = np.concatenate([scores.means, false_alarms, *new]).astype(np.float32)
    groups = groups_of_composition(scores, photos)
    # Known parts stay in their half, and new ones are halved among themselves: a new lot in one
    # half alone would be judged by the other without its like.
    added = groups[known + len(promoted) : scored]
    first = np.concatenate(
        [
            composition.first[:known], composition.first[promoted_rows], halved(added),
            composition.first[known:][stay], halved(groups[len(groups) - len(new) :]),
        ]
    )  # fmt: skip
    return composition.with_photos(means, groups, first, scored)


def calibrating(model: Inspector) -> int:
    """How many photos, the first ones, were chosen without regard to their verdict.

    The last of them is always among those that are scored.
    """
    return int(model.members[0].good.photos[-1]) + 1
