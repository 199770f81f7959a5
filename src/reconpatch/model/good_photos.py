"""The good photos of a fit, and their leave-one-out scores.

A good photo scored against a bank that holds its own patches looks better than any new photo will;
against a bank from which they are only deleted it looks worse, since a coreset without it would
have covered the gap with patches of other photos. So each photo is scored against a mended bank:
replacement rows, which the greedy selection would have picked from the other photos, take the place
of its own. f did see the photo: what all that leaves of an error is measured in docs/results.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError
from reconpatch.method.composition import Composition
from reconpatch.method.memory_bank import Floats, Ints, MemoryBank, distances, row_scales
from reconpatch.method.scoring import (
    PatchScores,
    ScoringSettings,
    draw,
    mean_score,
    score_nearest,
    weighted_distances,
)
from reconpatch.photos.copies import Alike, connected
from reconpatch.photos.layout import Layout

# Most distant patches kept of each photo, to score it again when the bank has grown.
MOST_DISTANT = 16


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


def pattern_for(names: Iterable[str], given: str | None, of_fit: str | None) -> str | None:
    """Choose the pattern of `assign_groups`: the one given, or that of the fit where it fits.

    Args:
        names: of the photos to be grouped.
        given: what was asked for; it is used in any case.
        of_fit: the pattern by which a model's photos were grouped, which names no part of photos
            from elsewhere.
    """
    if given is not None or of_fit is None:
        return given
    return of_fit if any(_part_of(name, of_fit) for name in names) else None


def assign_groups(
    photos: Sequence[TrainingPhoto], pattern: str | None, alike: Alike | None = None
) -> tuple[list[TrainingPhoto], list[str]]:
    """Assign one group to photos of one part and to copies of one photo.

    Args:
        photos: in the order of the fit.
        pattern: regular expression searched in the name; what its first pair of brackets matches
            (the whole match without brackets) names the part, unless it is empty. None: every photo
            is its own part.
        alike: which of the photos are one picture though their pixels differ; None: none.

    Returns:
        The photos with their groups, and notes in plain words: how many are copies, and how many
        lie so near together that they may be shots of one part.

    Raises:
        SettingsError: the pattern is not a regular expression, or names no part.
    """
    # Several arrays have one name, which is no part's.
    keys: list[Hashable] = [(i, "photo") for i in range(len(photos))]
    if pattern is not None:
        parts = [_part_of(photo.name, pattern) for photo in photos]
        keys = [part or key for part, key in zip(parts, keys, strict=True)]
        if not any(parts):
            raise SettingsError(
                f"--group {pattern!r} matches no file name, such as {photos[0].name!r}: give a "
                "regular expression whose brackets hold the part's number, like 'part(\\d+)'"
            )
    alike = alike or Alike.none(len(photos))
    first: dict[Hashable, int] = {}  # photo of each part, picture and hash, which cannot be equal
    pairs: list[tuple[int, int]] = []
    copies: list[tuple[str, str]] = []  # the name of each, and of which it is one
    seen: dict[Hashable, str] = {}
    triples = zip(photos, keys, alike.picture.tolist(), strict=True)
    for i, (photo, key, picture) in enumerate(triples):
        pairs += [(first.setdefault(node, i), i) for node in (key, (picture,), (photo.sha256,))]
        root = _picture_of(seen, photo, picture)
        if root is not None:
            copies.append((photo.name, root))
    groups = connected(len(photos), pairs).tolist()
    grouped = [replace(photo, group=group) for photo, group in zip(photos, groups, strict=True)]
    return grouped, _notes_on(grouped, copies, alike, pattern)


def _picture_of(seen: dict[Hashable, str], photo: TrainingPhoto, picture: int) -> str | None:
    """The first photo that this one is a copy of; it is noted as seen."""
    known = seen.get(picture, seen.get(photo.sha256))
    for key in (picture, photo.sha256):
        seen.setdefault(key, known or photo.name)
    return known


def _notes_on(
    photos: Sequence[TrainingPhoto],
    copies: Sequence[tuple[str, str]],
    alike: Alike,
    pattern: str | None,
) -> list[str]:
    notes = []
    if copies:
        copy, of = copies[0]
        are = "is a copy of another" if len(copies) == 1 else "are copies of others"
        notes.append(
            f"{len(copies)} of {len(photos)} photos {are}, such as {copy} of {of}: one "
            "picture counts once in the threshold and what it promises, also where it was saved "
            "anew"
        )
    near = [photos[i] for i in alike.near]
    if len({photo.group for photo in near}) > 1:
        how = "mend --group" if pattern else "join them with --group"
        notes.append(
            f"{len(near)} photos are far nearer to another one than the rest are, such as "
            f"{near[0].name}: if they are several shots of one part, {how}, or the promise counts "
            "them as several parts"
        )
    return notes


def by_part(
    values: npt.NDArray[np.float64], photos: Sequence[TrainingPhoto], of: Ints
) -> npt.NDArray[np.float64]:
    """Take the largest value of each part's photos, parts in the order of their first photos.

    A part is flagged if one of its photos is, and only parts are independent of each other; what
    is set on n parts promises what n independent scores can.

    Args:
        values: (n,) of photos.
        photos: all good photos.
        of: (n,) which of them the values are of.
    """
    largest: dict[int, float] = {}
    for value, i in zip(values.tolist(), of.tolist(), strict=True):
        group = photos[i].group
        largest[group] = max(value, largest.get(group, value))
    return np.array(list(largest.values()), np.float64)


def _part_of(name: str, pattern: str) -> str | None:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise SettingsError(
            f"--group {pattern!r} is not a regular expression ({error}): give one such as "
            "'part(\\d+)'"
        ) from None
    part = match and match.group(1 if match.re.groups else 0)
    return part or None


def counted_once(photos: int, parts: int) -> str:
    """Say that photos of one part were counted once, if there are any."""
    return "" if parts == photos else f"; {parts} different parts, each counted once"


def groups_of_rows(bank: MemoryBank, photos: Sequence[TrainingPhoto]) -> npt.NDArray[np.int64]:
    """Look up the group of the photo that each row of the bank comes from: (M,)."""
    return np.array([photo.group for photo in photos], dtype=np.int64)[bank.photo]


def with_scales(
    bank: MemoryBank, photos: Sequence[TrainingPhoto], scoring: ScoringSettings
) -> MemoryBank:
    """Add `row_scales` to the bank, from the differences that the image score sees.

    A bank that has grown keeps the scales of its first rows: by them the photos were scored.
    """
    if not scoring.density:
        return bank
    rows = bank.rows * scoring.weights(bank.rows.shape[1])
    scales = row_scales(rows, groups_of_rows(bank, photos), scoring.density)
    if bank.scales is not None:
        scales[: len(bank.scales)] = bank.scales
    return replace(bank, scales=scales)


CALIBRATED = 2000
"""Most photos that are scored as if they were new: a rate of 1 % takes 99 of them."""


def calibrated_photos(photos: int) -> npt.NDArray[np.int64]:
    """Choose the photos that get a leave-one-out score: all, or evenly spread ones."""
    return evenly_spread(photos, CALIBRATED)


def evenly_spread(photos: int, most: int) -> npt.NDArray[np.int64]:
    """Choose that many photos at most, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, photos - 1, min(photos, most)).round().astype(np.int64))


@dataclass(frozen=True, eq=False)
class Covering:
    """The nearest rows of the good photos' patches, searched once for all later steps.

    Attributes:
        photos: (k,) int64, which photos; the sequences have an array for each of them.
        nearest: (P,) int64 each, the nearest row of each patch.
        distances: (P,) float32 each, to it.
        others: (P,) int64 each, the nearest row of another group than that row's; -1 where all
            rows are of one group.
        other_distances: (P,) float32 each, to it; infinite where there is none.
        radius: the largest distance of any patch of any photo to its nearest row.
    """

    photos: npt.NDArray[np.int64]
    nearest: Sequence[Ints]
    distances: Sequence[Floats]
    others: Sequence[Ints]
    other_distances: Sequence[Floats]
    radius: float


def cover(
    bank: MemoryBank,
    patches: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    *,
    of: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Covering:
    """Search the bank for every patch of good photos, and keep what leave-one-out scores need.

    Args:
        bank: the memory bank.
        patches: gives the (P, D) represented patches of the i-th photo.
        photos: the good photos; `bank.photo` counts them.
        of: which photos are searched for and kept; None searches for all, for the radius, and
            keeps `calibrated_photos`.
        progress: called with (photos done, photos).
    """
    search = _SearchByGroup(bank, groups_of_rows(bank, photos))
    chosen = calibrated_photos(len(photos)) if of is None else np.array(of, np.int64)
    searched = range(len(photos)) if of is None else of
    kept = set(chosen.tolist())
    found, radius = [], 0.0
    for done, i in enumerate(searched, start=1):
        r = patches(i)
        if i in kept:
            found.append(search(r))
            radius = max(radius, float(found[-1][1].max()))
        else:
            radius = max(radius, float(bank.nearest(r)[0].max()))
        if progress is not None:
            progress(done, len(searched))
    nearest, to_nearest, others, to_others = zip(*found, strict=True)
    return Covering(chosen, nearest, to_nearest, others, to_others, radius)


class _SearchByGroup:
    """The nearest row of each patch, and the nearest of any other group, from one product."""

    def __init__(self, bank: MemoryBank, group_of_row: npt.NDArray[np.int64]) -> None:
        # Rows of a group side by side, so that a group is a range of columns.
        self.order = np.argsort(group_of_row, kind="stable")
        self.rows = bank.rows[self.order]
        self.centre = self.rows.mean(axis=0)
        self.centred = self.rows - self.centre
        self.norms = np.einsum("md,md->m", self.centred, self.centred)
        groups = group_of_row[self.order]
        self.start = np.searchsorted(groups, groups, side="left")
        self.length = np.searchsorted(groups, groups, side="right") - self.start
        self.block = max(1, 2**22 // len(self.rows))

    def __call__(self, r: Floats) -> tuple[Ints, Floats, Ints, Floats]:
        """Of (P, D) patches: nearest, distances, others, other_distances; see `Covering`."""
        first = np.empty(len(r), np.int64)
        second = np.empty(len(r), np.int64)
        for start in range(0, len(r), self.block):
            part = slice(start, start + self.block)
            squared = (-2.0 * (r[part] - self.centre)) @ self.centred.T
            squared += self.norms  # up to ||q||^2, which is the same for all rows
            first[part] = squared.argmin(axis=1)
            self._strike_out(squared, first[part])
            second[part] = squared.argmin(axis=1)
        to_second = distances(r, self.rows[second])
        none = self.length[first] == len(self.rows)
        to_second[none] = np.inf
        others = np.where(none, -1, self.order[second])
        return self.order[first], distances(r, self.rows[first]), others, to_second

    def _strike_out(self, squared: Floats, first: Ints) -> None:
        """Make the rows of the nearest row's group infinitely far, in place."""
        length = self.length[first]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        columns = np.repeat(self.start[first], length) + within
        squared[np.repeat(np.arange(len(first)), length), columns] = np.inf


def with_replacements(
    bank: MemoryBank,
    patches: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    covering: Covering | None = None,
) -> MemoryBank:
    """Choose for every row of the bank the row that replaces it when its group is left out.

    Without a group's rows, the patches of other photos that they covered are uncovered. The greedy
    selection goes on among the uncovered patches until as many are picked as rows were taken away.
    Of more photos than `CALIBRATED`, only the patches of those that are scored can be uncovered.

    Args:
        bank: the memory bank.
        patches: gives the (P, D) represented patches of the i-th photo.
        photos: the good photos, of two groups at least.
        covering: of the bank, where it is known.
    """
    covering = covering or cover(bank, patches, photos)
    group_of_row = groups_of_rows(bank, photos)
    replacements = bank.rows.copy()
    for group, uncovered in _uncovered(covering, group_of_row, photos).items():
        mine = group_of_row == group
        replacements[mine] = _mend(
            [patches(int(covering.photos[k]))[places] for k, places in uncovered],
            [covering.other_distances[k][places] for k, places in uncovered],
            int(mine.sum()),
            instead=bank.rows[~mine][:1],
        )
    return replace(bank, replacements=replacements)


def _uncovered(
    covering: Covering, group_of_row: npt.NDArray[np.int64], photos: Sequence[TrainingPhoto]
) -> dict[int, list[tuple[int, Ints]]]:
    """Locate, for each group with rows, the patches of other groups that its rows cover.

    As pairs of the covering's number of a photo and the places in it.
    """
    found: dict[int, list[tuple[int, Ints]]] = {int(g): [] for g in np.unique(group_of_row)}
    for k, i in enumerate(covering.photos):
        covered_by = group_of_row[covering.nearest[k]]
        order = np.argsort(covered_by, kind="stable")
        groups, starts = np.unique(covered_by[order], return_index=True)
        for group, places in zip(groups.tolist(), np.split(order, starts[1:]), strict=True):
            if group != photos[i].group:
                found[group].append((k, places))
    return found


def _mend(
    uncovered: Sequence[Floats], to_rest: Sequence[Floats], count: int, instead: Floats
) -> Floats:
    """Pick `count` uncovered patches greedily, the furthest from the rest of the bank first.

    Where too few of them differ, a row that is there already fills the place.

    Args:
        uncovered: (K, D) patches that the rows which were taken away covered, from each photo.
        to_rest: (K,) the distance of each to the rest of the bank.
        count: picks.
        instead: (1, D) that row, where there are no uncovered patches at all.
    """
    if not uncovered:
        return np.repeat(instead, count, axis=0)
    among, nearest = np.concatenate(uncovered), np.concatenate(to_rest)
    picks: list[int] = []
    for _ in range(count):
        picks.append(int(nearest.argmax()))
        to_pick = distances(among, np.broadcast_to(among[picks[-1]], among.shape))
        nearest = np.minimum(nearest, to_pick)
    return among[picks]


@dataclass(frozen=True, eq=False)
class GoodScores:
    """Leave-one-out scores of the good photos, and what it takes to compute them again.

    Of more than `CALIBRATED` photos, n are chosen.

    Attributes:
        photos: (n,) int64, which photos of the fit.
        image_scores: (n,) float64.
        map_maxima: (n,) float64, the largest value of each photo's anomaly map.
        distances: (n, P) float32, of every patch to its nearest row, as if the photo were new.
        most_distant: (n, K) int32, the K patches of each photo that are most distant to the image
            score, most distant first.
        features: (n, K, D) float32, those patches represented.
        weighted: (n, P) float32, the distances as the image score takes them; the very array of
            `distances` where nothing is weighted.
        means: (n, D) float32, the mean represented patch of each photo, what the composition is
            made of; None where the image score does not ask.
    """

    photos: npt.NDArray[np.int64]
    image_scores: npt.NDArray[np.float64]
    map_maxima: npt.NDArray[np.float64]
    distances: Floats
    most_distant: npt.NDArray[np.int32]
    features: Floats
    weighted: Floats
    means: Floats | None = None

    def with_overall(self, overall: float) -> GoodScores:
        """These scores, made without `ScoringSettings.overall`, with it."""
        scores = self.image_scores + overall * self.overall
        return replace(self, image_scores=scores)

    def with_composition(self, composition: Composition | None) -> GoodScores:
        """These scores, by patches alone, joined with the composition of the photos."""
        if composition is None:
            return replace(self, means=None)
        joined = composition.joined(self.image_scores, composition.leave_one_out)
        return replace(self, image_scores=joined)

    @property
    def overall(self) -> npt.NDArray[np.float64]:
        """(n,) means of all of a photo's distances as the image score takes them."""
        means: npt.NDArray[np.float64] = self.weighted.mean(axis=1, dtype=np.float64)
        return means


def groups_of_composition(
    good: GoodScores, photos: Sequence[TrainingPhoto]
) -> npt.NDArray[np.int64]:
    """(n,) groups of the photos in `Composition.means`: those of `good`, then all after the last.

    Behind the photos that calibrate stand confirmed false alarms.
    """
    groups = np.array([photo.group for photo in photos], np.int64)
    return np.concatenate([groups[good.photos], groups[good.photos[-1] + 1 :]])


ODD_GAP = 1.25
"""From a good photo's score to the next lower one, as a ratio, for it to stand apart."""
ODD_PHOTOS = 3
"""Most good photos that may stand apart, and of four one at most: more are a kind of their own."""


def odd_photos_note(scores: GoodScores, photos: Sequence[TrainingPhoto]) -> str | None:
    """Name good photos that score far above all others; None where there are none.

    One defective photo among the good ones hides every defect like it, and where there are few
    photos it sets the threshold as well: more than one good photo in a hundred has to be wrong for
    a threshold of 1 % to follow it, but one of thirty does.
    """
    order = np.argsort(-scores.image_scores, kind="stable")
    ordered = scores.image_scores[order]
    for apart in range(min(ODD_PHOTOS, len(ordered) // 4), 0, -1):
        lowest, next_lower = float(ordered[apart - 1]), float(ordered[apart])
        if next_lower > 0 and lowest >= ODD_GAP * next_lower:
            names = [photos[int(scores.photos[i])].name for i in order[:apart]]
            score, them = ("scores", "it") if apart == 1 else ("score", "them")
            return (
                f"{_listed(names)} {score} at least {lowest / next_lower:.2f} times as high as all "
                f"other good photos: look at {them}; what is not a good part hides defects like "
                "it, so leave it out and fit again"
            )
    return None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def leave_one_out(
    patches: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    bank: MemoryBank,
    scoring: ScoringSettings,
    layout: Layout,
    *,
    of: Sequence[int] | None = None,
    covering: Covering | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GoodScores:
    """Score good photos by their patches against the bank without the rows of their groups, mended.

    Args:
        patches: gives the (P, D) represented patches of the i-th photo.
        photos: the good photos; `bank.photo` counts them.
        bank: the memory bank.
        scoring: how distances become scores.
        layout: where the P patches lie.
        of: which photos are scored; None takes `calibrated_photos`.
        covering: of the bank, where it is known; its photos are scored.
        progress: called with (photos done, photos).
    """
    covering = covering or cover(bank, patches, photos, of=of)
    group_of_row = groups_of_rows(bank, photos)
    scored, weights, kept, means = [], [], [], []
    for k, i in enumerate(covering.photos):
        r = patches(int(i))
        own = group_of_row == photos[i].group
        found, nearest = _without_own(r, k, own, bank, covering)
        others = bank.without(own)
        weighted = weighted_distances(r, found, nearest, others, scoring)
        scored.append(score_nearest(r, found, nearest, others, scoring, layout, weighted))
        weights.append(weighted)
        order = np.argsort(-weighted, kind="stable")[:MOST_DISTANT]
        kept.append((order, r[order]))
        means.append(r.mean(axis=0, dtype=np.float64))
        if progress is not None:
            progress(k + 1, len(covering.photos))
    distances = np.stack([s.distances for s in scored])
    return GoodScores(
        photos=covering.photos,
        image_scores=np.array([s.image_score for s in scored]),
        map_maxima=np.array([float(draw(s.distances, layout, scoring.blur).max()) for s in scored]),
        distances=distances,
        weighted=distances if not scoring.weighs else np.stack(weights),
        most_distant=np.stack([order for order, _ in kept]).astype(np.int32),
        features=np.stack([features for _, features in kept]),
        means=np.stack(means).astype(np.float32),
    )


def _without_own(
    r: Floats, k: int, own: npt.NDArray[np.bool_], bank: MemoryBank, covering: Covering
) -> tuple[Floats, Ints]:
    """Distances and nearest rows of the k-th photo's patches, its own rows replaced.

    Only the replacements have to be searched: the nearest of the other rows is known.
    """
    mine = own[covering.nearest[k]]
    nearest = np.where(mine, covering.others[k], covering.nearest[k])
    to_nearest = np.where(mine, covering.other_distances[k], covering.distances[k])
    rows = np.flatnonzero(own)
    if not len(rows):
        return to_nearest, nearest
    to_replacement, replacement = bare_bank(bank.replacements[rows]).nearest(r)
    closer = to_replacement < to_nearest
    return np.where(closer, to_replacement, to_nearest), np.where(
        closer, rows[replacement], nearest
    )


def bare_bank(rows: Floats) -> MemoryBank:
    """Build a bank for a search alone, whose rows come from no photo."""
    nowhere = np.zeros(len(rows), dtype=np.int64)
    return MemoryBank(rows, nowhere, nowhere, rows)


def rescore(
    good: GoodScores,
    photos: Sequence[TrainingPhoto],
    bank: MemoryBank,
    scoring: ScoringSettings,
    layout: Layout,
) -> GoodScores:
    """Score the good photos by their patches again, after rows were added to the bank.

    The most distant patches decide a photo's score, and those are kept. The distances of all others
    are left as they were: never too small, so a threshold is never set too low by it. Where the
    image score weighs them, that holds for the map alone: a patch's new nearest row
    may be further away by the weighted distance.

    Args:
        good: the scores against the bank as it was.
        photos: all photos that `bank.photo` counts, those of `good` first.
        bank: the bank with its new rows.
        scoring: how distances become scores.
        layout: where the patches lie.
    """
    group_of_row = groups_of_rows(bank, photos)
    alone = replace(scoring, smooth=0.0)  # the most distant patches are no grid
    row = Layout.whole((1, good.features.shape[1]), (1, good.features.shape[1]))
    same = good.weighted is good.distances
    patch_distances = good.distances.copy()
    weighted = patch_distances if same else good.weighted.copy()
    image_scores, map_maxima = [], []
    for i in range(len(good.image_scores)):
        own = group_of_row == photos[good.photos[i]].group
        others_bank = bank.without(own)
        nearest = others_bank.nearest(good.features[i])
        rescored = score_nearest(good.features[i], *nearest, others_bank, alone, row)
        patch_distances[i, good.most_distant[i]] = rescored.distances
        if not same:
            weighted[i, good.most_distant[i]] = weighted_distances(
                good.features[i], rescored.distances, rescored.nearest, others_bank, scoring
            )
        if scoring.top > 0:
            image_scores.append(mean_score(weighted[i], scoring, layout))
        else:
            image_scores.append(_score_again(weighted[i], good.most_distant[i], rescored, scoring))
        map_maxima.append(float(draw(patch_distances[i], layout, scoring.blur).max()))
    return replace(
        good,
        image_scores=np.array(image_scores),
        map_maxima=np.array(map_maxima),
        distances=patch_distances,
        weighted=weighted,
    )


def _score_again(
    distances: Floats,
    most_distant: npt.NDArray[np.int32],
    rescored: PatchScores,
    scoring: ScoringSettings,
) -> float:
    """Compute a photo's score from its (P,) distances, the most distant patches scored again."""
    others = np.delete(distances, most_distant)
    ceiling = float(others.max()) if len(others) else 0.0
    # The largest distance is that of one of the most distant, so eq. 10 weighs no other patch.
    exact = scoring.b > 1 and scoring.reweight == "largest" and rescored.distances.max() > ceiling
    return rescored.image_score if exact else max(rescored.image_score, ceiling)
