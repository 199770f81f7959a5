"""The good photos of a fit: which they were, and each scored as if it were new.

A good photo scored against a bank that holds its own patches looks better than any new photo will;
against a bank from which they are only deleted it looks worse, since a coreset without it would
have covered the gap with patches of other photos. So each photo is scored against the bank mended:
its rows give way to stand-ins, which the greedy selection would have picked from the other photos.
f did see the photo: what all that leaves of an error is measured in benchmarks/leave_one_out.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError
from reconpatch.memory_bank import Floats, MemoryBank
from reconpatch.scoring import (
    PatchScores,
    ScoringSettings,
    anomaly_map,
    score_patches,
    top_mean,
)

# Most distant patches kept of each photo, to score it again when the bank has grown.
WITNESSES = 16


@dataclass(frozen=True)
class TrainingPhoto:
    """One good photo of the fit.

    Attributes:
        name: path relative to the folder of the fit, with forward slashes.
        sha256: of its pixels, so that it is known again under any name or lossless format.
        height, width: in pixels.
        group: photos of one group (shots of one part) are left out together.
    """

    name: str
    sha256: str
    height: int
    width: int
    group: int

    def to_dict(self) -> dict[str, Any]:
        """The photo's record as JSON-ready values."""
        return asdict(self)


def assign_groups(
    photos: Sequence[TrainingPhoto], pattern: str | None
) -> tuple[list[TrainingPhoto], list[str]]:
    """Give photos of one part, and copies of one photo, a group in common.

    Args:
        photos: in the order of the fit.
        pattern: regular expression searched in the name; what its first pair of brackets matches
            (the whole match without brackets) names the part, unless it is empty. None: every photo
            is its own part.

    Returns:
        The photos with their groups, and a note in plain words for each pair of copies.

    Raises:
        SettingsError: the pattern is not a regular expression, or names no part.
    """
    keys = [photo.name for photo in photos]
    if pattern is not None:
        keys = [_part_of(photo.name, pattern) or photo.name for photo in photos]
        if keys == [photo.name for photo in photos]:
            raise SettingsError(
                f"--group {pattern!r} matches no file name, such as {photos[0].name!r}: give a "
                "regular expression whose brackets hold the part's number, like 'part(\\d+)'"
            )
    notes = []
    key_of_hash: dict[str, str] = {}
    first_with_hash: dict[str, str] = {}
    merged: dict[str, str] = {}
    for photo, key in zip(photos, keys, strict=True):
        if photo.sha256 in first_with_hash:
            notes.append(
                f"{photo.name} and {first_with_hash[photo.sha256]} are the same picture: they are "
                "left out together when one of them is scored"
            )
        first_with_hash.setdefault(photo.sha256, photo.name)
        _merge(merged, key, key_of_hash.setdefault(photo.sha256, key))
    roots = [_root(merged, key) for key in keys]
    number = {root: i for i, root in enumerate(dict.fromkeys(roots))}
    return [replace(p, group=number[r]) for p, r in zip(photos, roots, strict=True)], notes


def _part_of(name: str, pattern: str) -> str | None:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise SettingsError(
            f"--group {pattern!r} is not a regular expression ({error}): give one such as "
            "'part(\\d+)'"
        ) from None
    part = match and match.group(1 if match.re.groups else 0)
    # A part's key must not collide with the name of an unmatched photo: no relative path starts so.
    return f"/{part}" if part else None


def _root(merged: dict[str, str], key: str) -> str:
    while merged.get(key, key) != key:
        key = merged[key]
    return key


def _merge(merged: dict[str, str], a: str, b: str) -> None:
    merged[_root(merged, a)] = _root(merged, b)


def groups_of_rows(bank: MemoryBank, photos: Sequence[TrainingPhoto]) -> npt.NDArray[np.int64]:
    """(M,) the group of the photo that each row of the bank comes from."""
    return np.array([photo.group for photo in photos], dtype=np.int64)[bank.photo]


def with_stand_ins(
    bank: MemoryBank,
    patches: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> MemoryBank:
    """Give every row of the bank the row that takes its place when its group is left out.

    Without a group's rows, the patches of other photos that were covered by them are orphans; the
    greedy selection goes on among the orphans until as many are picked as rows were taken away.

    Args:
        bank: the memory bank.
        patches: gives the (P, D) represented patches of the i-th photo.
        photos: the good photos, of two groups at least.
        progress: called with (photos done, photos).
    """
    group_of_row = groups_of_rows(bank, photos)
    orphans: dict[int, list[Floats]] = {int(group): [] for group in np.unique(group_of_row)}
    for i, photo in enumerate(photos):
        r = patches(i)
        covered_by = group_of_row[bank.nearest(r)[1]]
        for group in np.unique(covered_by[covered_by != photo.group]):
            orphans[int(group)].append(r[covered_by == group])
        if progress is not None:
            progress(i + 1, len(photos))
    stand_ins = bank.rows.copy()
    for group, parts in orphans.items():
        mine = group_of_row == group
        stand_ins[mine] = _mend(bank.rows[~mine], parts, int(mine.sum()))
    return replace(bank, stand_ins=stand_ins)


def _mend(rest: Floats, orphans: Sequence[Floats], count: int) -> Floats:
    """`count` greedy picks among the orphans, the furthest from the rest of the bank first.

    Where there are too few different orphans, a row that is there already fills the place.
    """
    from_all = np.concatenate([*orphans, rest[:1]])
    nearest = np.full(len(from_all), np.inf, dtype=np.float32)
    if len(rest):
        nearest, _ = bare_bank(rest).nearest(from_all)
    picks = []
    for _ in range(count):
        picks.append(int(nearest.argmax()))
        to_pick = np.linalg.norm(from_all - from_all[picks[-1]], axis=1)
        nearest = np.minimum(nearest, to_pick)
    return from_all[picks]


def bare_bank(rows: Floats) -> MemoryBank:
    """A bank for a search alone: rows from nowhere."""
    nowhere = np.zeros(len(rows), dtype=np.int64)
    return MemoryBank(rows, nowhere, nowhere, rows)


@dataclass(frozen=True, eq=False)
class GoodScores:
    """Every good photo scored without its own rows, and what it takes to do that again.

    Attributes:
        image_scores: (n,) float64.
        map_maxima: (n,) float64, the largest value of each photo's anomaly map.
        distances: (n, P) float32, of every patch to its nearest row, as if the photo were new.
        witnesses: (n, K) int32, the K most distant patches of each photo, most distant first.
        features: (n, K, D) float32, those patches represented.
    """

    image_scores: npt.NDArray[np.float64]
    map_maxima: npt.NDArray[np.float64]
    distances: Floats
    witnesses: npt.NDArray[np.int32]
    features: Floats


def leave_one_out(
    patches: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    bank: MemoryBank,
    scoring: ScoringSettings,
    *,
    grid: tuple[int, int],
    size: tuple[int, int],
    of: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GoodScores:
    """Score good photos against the bank without the rows of their own group.

    Args:
        patches: gives the (P, D) represented patches of the i-th photo.
        photos: the good photos; `bank.photo` counts them.
        bank: the memory bank.
        scoring: how distances become scores.
        grid: h, w of the patches, P = h * w.
        size: height and width of the model's input.
        of: which photos are scored, one or more; None takes all.
        progress: called with (photos done, photos).
    """
    group_of_row = groups_of_rows(bank, photos)
    of = range(len(photos)) if of is None else of
    scored, kept = [], []
    for done, i in enumerate(of, start=1):
        r = patches(i)
        scores = score_patches(r, bank.without(group_of_row == photos[i].group), scoring)
        order = np.argsort(-scores.distances, kind="stable")[:WITNESSES]
        scored.append(scores)
        kept.append((order, r[order]))
        if progress is not None:
            progress(done, len(of))
    return GoodScores(
        image_scores=np.array([s.image_score for s in scored]),
        map_maxima=np.array([_map_maximum(s, grid, size, scoring.blur) for s in scored]),
        distances=np.stack([s.distances for s in scored]),
        witnesses=np.stack([order for order, _ in kept]).astype(np.int32),
        features=np.stack([features for _, features in kept]),
    )


def rescore(
    good: GoodScores,
    photos: Sequence[TrainingPhoto],
    bank: MemoryBank,
    scoring: ScoringSettings,
    *,
    grid: tuple[int, int],
    size: tuple[int, int],
) -> GoodScores:
    """The scores of the good photos after rows were added to the bank, without the photos.

    The most distant patches decide a photo's score, and those are kept. The distances of all others
    are left as they were: never too small, so a threshold is never set too low by it.

    Args:
        good: the scores against the bank as it was.
        photos: all photos that `bank.photo` counts, those of `good` first.
        bank: the bank with its new rows.
        scoring: how distances become scores.
        grid: h, w of the patches.
        size: height and width of the model's input.
    """
    group_of_row = groups_of_rows(bank, photos)
    distances = good.distances.copy()
    image_scores, map_maxima = [], []
    for i in range(len(good.image_scores)):
        others_bank = bank.without(group_of_row == photos[i].group)
        witness = score_patches(good.features[i], others_bank, scoring)
        distances[i, good.witnesses[i]] = witness.distances
        image_scores.append(_score_again(distances[i], good.witnesses[i], witness, scoring))
        map_maxima.append(float(anomaly_map(distances[i], grid, size, scoring.blur).max()))
    return replace(
        good,
        image_scores=np.array(image_scores),
        map_maxima=np.array(map_maxima),
        distances=distances,
    )


def _score_again(
    distances: Floats,
    witnesses: npt.NDArray[np.int32],
    witness: PatchScores,
    scoring: ScoringSettings,
) -> float:
    """A photo's score from its (P,) distances, those of the witnesses scored again."""
    if scoring.top > 0:
        return top_mean(distances, scoring.top)
    others = np.delete(distances, witnesses)
    ceiling = float(others.max()) if len(others) else 0.0
    # The largest distance is that of a witness, so eq. 10 weighs no other patch.
    exact = scoring.reweight == "largest" and witness.distances.max() > ceiling
    return witness.image_score if exact else max(witness.image_score, ceiling)


def _map_maximum(
    scores: PatchScores, grid: tuple[int, int], size: tuple[int, int], blur: float
) -> float:
    return float(anomaly_map(scores.distances, grid, size, blur).max())
