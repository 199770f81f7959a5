"""Confirmed defects: what people found on real parts, for f to learn from beside the made ones.

    photos of defects ── patch features, and the place: a mask, or
         │               where the map of made defects alone is highest
         │
    each fold of them left out in turn ── f of the others ── bank ── threshold of the good photos
         │                                                   └── are those left out found?
         └── not clearly worse told than by made defects alone ──> f learns from all of them

A defect that f has learned from is found by it, and proves nothing. So the figures are of defects
that were left out, and they decide whether f learns from confirmed ones at all. The thresholds come
from the good photos alone, as in any fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from reconpatch.errors import PhotoError, SettingsError
from reconpatch.features.store import PatchStore
from reconpatch.fitting.options import FitOptions
from reconpatch.fitting.trial import LEARNT_COVERAGE, coverage
from reconpatch.method.calibration import Calibration
from reconpatch.method.contrastive_components import (
    NO_PART,
    Contrast,
    ContrastiveComponents,
    DefectPatches,
    confirmed_share,
)
from reconpatch.method.coreset import greedy_coreset
from reconpatch.method.defect_kinds import Shown, telling, worst_patches
from reconpatch.method.discriminant import discriminant
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.representation import Representation, TrainingSettings
from reconpatch.method.scoring import (
    PatchScores,
    Scores,
    ScoringSettings,
    draw,
    score_patches,
    top_count,
)
from reconpatch.method.settings import FitSettings
from reconpatch.model.good_photos import TrainingPhoto, assign_groups
from reconpatch.photos.copies import alike, signature
from reconpatch.photos.defect_folder import DefectPhoto, list_defects, read_place
from reconpatch.photos.images import Photo, read_photo
from reconpatch.photos.layout import Layout
from reconpatch.photos.preprocessing import Preprocessing
from reconpatch.photos.registration import RegisteredPhoto

Bools = npt.NDArray[np.bool_]

FOLDS = 4
"""Parts that confirmed defects are left out in, or each by itself where there are fewer."""
_TOP = 0.005  # share of the patches that a defect without a mask has, where the map shows none


@dataclass(frozen=True, eq=False)
class ConfirmedDefect:
    """A confirmed defect as f sees it.

    Attributes:
        name: of its file.
        kind: the name of its folder; empty where nobody named one.
        sha256: of its pixels.
        group: defects of one group are left out together.
        features: (P, K) float32 patch features of the whole photo.
        covered: (P,) bool, the patches that the defect covers by its mask; None without one.
    """

    name: str
    kind: str
    sha256: str
    group: int
    features: Floats
    covered: Bools | None

    def patches(self, place: Bools) -> DefectPatches:
        """What f learns from: the (P,) bool patches of a place."""
        return DefectPatches(self.features[place], NO_PART)


def check_learns(settings: FitSettings, options: FitOptions) -> None:
    """Refuse confirmed defects where f could not learn from them.

    Raises:
        SettingsError: f has no such closed form, or workers read the photos.
    """
    training = settings.training
    closed = training.init == "contrastive" and not training.steps and not training.epochs
    if settings.method != "reconpatch" or not closed:
        raise SettingsError(
            "confirmed defects teach the f of the default recipe, and the fit has method "
            f"{settings.method}, init {training.init}, steps {training.steps} and epochs "
            f"{training.epochs}: give reconpatch, contrastive, 0 and 0, or no defects"
        )
    if options.on is not None:
        raise SettingsError(
            f"confirmed defects are learned in one process, and --on is {options.on}: leave out "
            "one of the two"
        )


# --- Photos --------------------------------------------------------------------------------------


def read_confirmed(
    given: Any,
    good: Sequence[TrainingPhoto],
    features: Callable[[Photo], Floats],
    preprocessing: Preprocessing,
    layout: Layout,
    grid: tuple[int, int],
    options: FitOptions,
) -> list[ConfirmedDefect]:
    """Read confirmed defects; the same picture twice counts once.

    Args:
        given: what `list_defects` takes.
        good: the good photos, among which none of the defects may be.
        features: gives the (P, K) patch features of a photo.
        preprocessing: of the fit.
        layout: where the P patches lie.
        grid: h, w of the patches of a view.
        options: `max_pixels`, `group`.

    Raises:
        PhotoError: a photo or mask cannot be used, or a photo is among the good ones as well.
    """
    good_name = {photo.sha256: photo.name for photo in good}
    found: dict[str, ConfirmedDefect] = {}
    records, signatures = [], []
    for listed in list_defects(given):
        photo = read_photo(listed.path, name=listed.called, max_pixels=options.max_pixels)
        if photo.sha256 in good_name:
            raise PhotoError(
                f"{listed.called} is given as a confirmed defect, and the same picture is the good "
                f"photo {good_name[photo.sha256]}: remove it from one of the two folders"
            )
        if photo.sha256 in found:
            continue
        place = read_place(listed, photo.height, photo.width)
        registered = preprocessing.registered(photo)
        if place is not None and isinstance(registered, RegisteredPhoto):
            place = registered.brought(place)
        covered = None if place is None else _covered(place, listed, preprocessing, layout, grid)
        group = len(found)
        found[photo.sha256] = ConfirmedDefect(
            PurePath(photo.name).name, listed.kind, photo.sha256, group, features(registered),
            covered,
        )  # fmt: skip
        records.append(TrainingPhoto(photo.name, photo.sha256, photo.height, photo.width, group))
        signatures.append(signature(registered, preprocessing.white_level))
    sides = [min(record.height, record.width) for record in records]
    copies = alike(signatures, [record.name for record in records], sides)
    try:
        grouped, _ = assign_groups(records, options.group, copies)
    except SettingsError:  # the names of defects need not have what those of good photos have
        grouped, _ = assign_groups(records, None, copies)
    return [
        replace(defect, group=record.group)
        for defect, record in zip(found.values(), grouped, strict=True)
    ]


def _covered(
    place: Bools,
    listed: DefectPhoto,
    preprocessing: Preprocessing,
    layout: Layout,
    grid: tuple[int, int],
) -> Bools:
    """(P,) bool: the patches that an (H, W) mask covers, or covers most of all."""
    picture = Photo(listed.mask_called, place.astype(np.uint8) * np.uint8(255))
    as_drawn = replace(preprocessing, region=None, registration=None)
    views = as_drawn.views(picture, layout)
    covered = layout.joined(coverage(view[0], grid) for view in views)
    if not covered.any():
        raise PhotoError(
            f"{listed.mask_called} shows a defect where the model does not look: leave "
            f"{listed.called} out, or mend the mask"
        )
    return np.asarray(covered > min(LEARNT_COVERAGE, 0.999 * float(covered.max())))


# --- Learning ------------------------------------------------------------------------------------


class Banked(Protocol):
    """A representation with its bank and calibration, as a fit makes them."""

    @property
    def f(self) -> Representation:
        """The representation."""

    @property
    def bank(self) -> MemoryBank:
        """Its bank."""

    @property
    def calibration(self) -> Calibration:
        """Its thresholds, by the good photos."""

    @property
    def scoring(self) -> ScoringSettings:
        """How distances become a score."""

    @property
    def turned(self) -> bool:
        """Whether turned copies of good photos are in the bank."""


BankOf = Callable[[Representation, PatchStore, str, bool, Sequence[DefectPatches]], Banked]
"""Builds and calibrates the bank of an f from represented patches; the text goes before the names
of its steps, then comes whether turned copies are to be tried, and what f has learned from."""

MOST_LIKENESS = 0.5
"""The highest power of the likeness, that of eight defects: with more of them a higher one costs
tiles and cells more than ball screws gain by it (docs/teach.md)."""
DEFECT_ROWS = 64
"""Patches of a confirmed defect that the bank keeps at most."""


def with_defects(
    bank: MemoryBank,
    f: Representation,
    defects: Sequence[DefectPatches],
    scoring: ScoringSettings,
    good: Callable[[], Iterable[Floats]],
) -> tuple[MemoryBank, ScoringSettings]:
    """Let the image score ask for likeness to confirmed defects, as much as f is theirs.

    Of each defect the bank keeps a greedy coreset of its patches, `DEFECT_ROWS` at most, and of all
    their discriminant.

    Args:
        bank: the memory bank.
        f: what it is represented by.
        defects: the confirmed ones that f has learned from.
        scoring: how distances become scores.
        good: gives the represented patches of the good photos, see `discriminant`.

    Returns:
        The bank with their patches, and the settings with `likeness`, the share of
        `confirmed_share` up to `MOST_LIKENESS`; both as they are without a patch, or where the
        score is re-weighted.
    """
    patches = [f(defect.features) for defect in defects if len(defect.features)]
    if not patches or scoring.b > 1:
        return bank, scoring
    kept = [r[greedy_coreset(r, min(DEFECT_ROWS, len(r))).indices] for r in patches]
    likeness = min(confirmed_share(len(defects)), MOST_LIKENESS)
    found = discriminant(good(), patches)
    if found is None:  # no side: of no patch more than of another
        found = np.zeros(patches[0].shape[1] + 1, np.float32)
    taught = replace(bank, defects=np.concatenate(kept), discriminant=found)
    return taught, replace(scoring, likeness=likeness)


@dataclass(frozen=True)
class Verdict:
    """What versions that have not seen a confirmed defect say of it.

    Attributes:
        name, kind, sha256: of the photo.
        place: "mask" where one says where the defect is, else "map".
        alone: image score by made defects alone, as a ratio to that version's threshold.
        unseen: the same by made and the other confirmed defects.
    """

    name: str
    kind: str
    sha256: str
    place: str
    alone: float
    unseen: float


@dataclass(frozen=True)
class Learned:
    """What confirmed defects come to in a fit.

    Attributes:
        kept: whether f learned from them.
        share: of C_d, that they have.
        verdicts: on each of them, by versions that have not seen it.
        auroc_alone, auroc_unseen: the defects told from the good photos, 0 to 1, each left out.
        whole: how many are anomalous as a whole, in no place that f could learn from.
    """

    kept: bool
    share: float
    verdicts: Sequence[Verdict]
    auroc_alone: float
    auroc_unseen: float
    whole: int = 0

    @property
    def found_alone(self) -> int:
        """How many made defects alone find."""
        return sum(verdict.alone > 1 for verdict in self.verdicts)

    @property
    def found_unseen(self) -> int:
        """How many are found by versions that learned from the others."""
        return sum(verdict.unseen > 1 for verdict in self.verdicts)

    def sentence(self) -> str:
        """The decision in plain words."""
        count = len(self.verdicts)
        if self.whole == count:
            return (
                f"f learned from made defects alone: {'the' if count == 1 else 'each'} confirmed "
                f"defect{'' if count == 1 else f' of {count}'} is unusual as a whole, and not in a "
                "place that f could learn from."
            )
        apart = (
            f"; {self.whole} unusual as a whole, and not in a place, taught it nothing"
            if self.whole
            else ""
        )
        if count == 1:  # nothing is left to learn from where it is left out
            finds = "find" if self.found_alone else "do not find"
            return f"f learned from 1 confirmed defect beside made ones, which alone {finds} it."
        figures = (
            f"of {count} confirmed defects, each left out when f was learned, {self.found_unseen} "
            f"{'is' if self.found_unseen == 1 else 'are'} found (image AUROC "
            f"{self.auroc_unseen:.1%}), and {self.found_alone} by made defects alone (image AUROC "
            f"{self.auroc_alone:.1%})"
        )
        if self.kept:
            return f"f learned from confirmed defects beside made ones: {figures}{apart}."
        return f"f learned from made defects alone, which is clearly better: {figures}{apart}."

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON-ready values."""
        return {
            "kept": self.kept,
            "count": len(self.verdicts),
            "share": self.share,
            "found_alone": self.found_alone,
            "found_unseen": self.found_unseen,
            "auroc_alone": self.auroc_alone,
            "auroc_unseen": self.auroc_unseen,
            "whole": self.whole,
            "photos": [asdict(verdict) for verdict in self.verdicts],
            "sentence": self.sentence(),
        }


def learn(
    defects: Sequence[ConfirmedDefect],
    contrast: Contrast,
    patches: PatchStore,
    p: Floats,
    parts: npt.NDArray[np.int64],
    settings: FitSettings,
    layout: Layout,
    bank_of: BankOf,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Contrast, Learned, Banked]:
    """Decide whether f learns from confirmed defects, by versions that have not seen them.

    Args:
        defects: one at least.
        contrast: the made defects.
        patches: of the good photos, p; they stay.
        p: (N, K) float32, those that f is learned from.
        parts: (N,), of each.
        settings: of the fit.
        layout: where the patches of a photo lie.
        bank_of: see `BankOf`.
        progress: called with (versions made, versions).

    Returns:
        What f is to be learned against, what decided, and the version of made defects alone.
    """
    scoring = settings.scoring
    folds = fold_of(defects, settings.seed)
    versions = 1 + (max(folds) + 1 if len(set(folds)) > 1 else 0)

    version = versions_of(patches, p, parts, settings, bank_of)

    def scored(by: Banked, of: Iterable[int]) -> dict[int, float]:
        return {i: score_of(defects[i], by, layout).image_score for i in of}

    alone = version(contrast, "made defects alone: ", True)
    first = [score_of(defect, alone, layout) for defect in defects]
    by_alone = {i: its.image_score for i, its in enumerate(first)}
    to_learn = [
        patches_of(defect, its, alone, scoring, layout)
        for defect, its in zip(defects, first, strict=True)
    ]
    taught = [patches for patches in to_learn if patches is not None]
    _tell(progress, 1, versions)
    judged = {i: (score, alone) for i, score in by_alone.items()}  # of a single defect
    if versions > 1:
        for fold in range(versions - 1):
            left_out = [i for i, its in enumerate(folds) if its == fold]
            others = [
                patches
                for patches, its in zip(to_learn, folds, strict=True)
                if its != fold and patches is not None
            ]
            by = version(replace(contrast, confirmed=others), "some left out: ", alone.turned)
            judged |= {i: (score, by) for i, score in scored(by, left_out).items()}
            _tell(progress, 2 + fold, versions)
    verdicts = [
        Verdict(
            defect.name, defect.kind, defect.sha256, "map" if defect.covered is None else "mask",
            by_alone[i] / _threshold(alone), judged[i][0] / _threshold(judged[i][1]),
        )
        for i, defect in enumerate(defects)
    ]  # fmt: skip
    before = _placements([(by_alone[i], alone) for i in range(len(defects))])
    after = _placements([judged[i] for i in range(len(defects))])
    auroc_alone, auroc_unseen = float(before.mean()), float(after.mean())
    kept = bool(taught) and is_worth_it(before, after)
    share = confirmed_share(len(taught)) if kept else 0.0
    whole = len(defects) - len(taught)
    learned = Learned(kept, share, verdicts, auroc_alone, auroc_unseen, whole)
    return (replace(contrast, confirmed=taught) if kept else contrast), learned, alone


def versions_of(
    patches: PatchStore,
    p: Floats,
    parts: npt.NDArray[np.int64],
    settings: FitSettings,
    bank_of: BankOf,
) -> Callable[[Contrast, str, bool], Banked]:
    """What makes a version of f against a contrast, with its bank; see `learn` and `BankOf`."""
    components = _components(p, parts, settings.training, settings.seed)
    mean = patches.mean()

    def version(against: Contrast, what: str, turns: bool) -> Banked:
        weight = components(against)
        f = Representation(weight, (-(weight @ mean)).astype(np.float32))
        with patches.represented(f) as r:
            return bank_of(f, r, what, turns, against.confirmed)

    return version


def score_of(defect: ConfirmedDefect, by: Banked, layout: Layout) -> PatchScores:
    """What a version says of a confirmed defect."""
    return score_patches(by.f(defect.features), by.bank, by.scoring, layout)


def patches_of(
    defect: ConfirmedDefect,
    scored: PatchScores,
    by: Banked,
    scoring: ScoringSettings,
    layout: Layout,
) -> DefectPatches | None:
    """What f learns from a confirmed defect: its patches by its mask, else by the map.

    None where it has no mask and is unusual as a whole: a part that is missing is in no place, and
    what the map shows instead would teach f that good patches are defects.

    Args:
        defect: the defect.
        scored: what the version says of it.
        by: the version of made defects alone.
        scoring: of the fit.
        layout: where the patches lie.
    """
    if defect.covered is not None:
        return defect.patches(defect.covered)
    if scored.whole:
        return None
    return defect.patches(place_of(defect, by, scoring, layout))


def _components(
    p: Floats, parts: npt.NDArray[np.int64], training: TrainingSettings, seed: int
) -> ContrastiveComponents:
    """As `reconpatch.method.representation.initial_weight` makes them."""
    return ContrastiveComponents(
        p,
        parts,
        dim=training.dim,
        power=training.contrast_power,
        gain=training.contrast_gain,
        shrink=training.contrast_shrink,
        share=training.contrast_share,
        rng=np.random.default_rng(seed),
    )


def fold_of(defects: Sequence[ConfirmedDefect], seed: int) -> list[int]:
    """In which of at most `FOLDS` folds each defect is left out.

    Those of a group are in one; kinds are spread over the folds, in a random order within a kind.
    """
    kind_of: Mapping[int, str] = {d.group: d.kind for d in reversed(defects)}
    groups = np.random.default_rng([seed, 3]).permutation(sorted(kind_of)).tolist()
    groups.sort(key=lambda group: kind_of[group])
    fold = {group: i % FOLDS for i, group in enumerate(groups)}
    return [fold[defect.group] for defect in defects]


def place_of(
    defect: ConfirmedDefect, by: Banked, scoring: ScoringSettings, layout: Layout
) -> Bools:
    """(P,) bool: where the map of a defect is above its threshold, or at least highest."""
    distances, _ = by.bank.nearest(by.f(defect.features))
    drawn = draw(distances, layout, scoring.blur, layout.grid).ravel()[layout.cell_of]
    least = min(top_count(scoring.top or _TOP, layout.counted), len(drawn))
    highest = np.partition(drawn, -least)[-least]
    threshold: float = by.calibration.map_threshold.value
    return np.asarray(drawn >= min(float(highest), threshold))


def shown_by(
    defects: Sequence[ConfirmedDefect], by: Banked, scoring: ScoringSettings, layout: Layout
) -> list[Shown]:
    """What a version sees of confirmed defects, to learn their kinds from."""
    found = []
    for defect in defects:
        r = by.f(defect.features)
        distances, _ = by.bank.nearest(r)
        worst = worst_patches(distances)
        worst = worst[telling(distances[worst], by.calibration.map_threshold.value)]
        place = defect.covered
        if place is None:
            place = place_of(defect, by, scoring, layout)
        found.append(Shown(defect.kind, defect.group, r[place], r[worst], distances[worst]))
    return found


def _threshold(by: Banked) -> float:
    return by.calibration.image_threshold.value or 1.0


def is_worth_it(before: Scores, after: Scores) -> bool:
    """Decide whether f learns from confirmed defects, by the AUROC of each, left out.

    Unless that is worse by more than two standard errors of the difference: a few defects say
    little, and on most products it pays (docs/teach.md).

    Args:
        before: (n,) share of the good parts that score below each defect, by made defects alone.
        after: (n,) by made and the other confirmed defects.
    """
    gains = after - before
    error = float(gains.std(ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return float(gains.mean()) + 2.0 * error >= 0.0


def _placements(judged: Sequence[tuple[float, Banked]]) -> Scores:
    """(n,) share of the good parts that score below each defect, ties by half."""
    shares = []
    for score, by in judged:
        good = by.calibration.scores
        shares.append(float((good < score).mean() + (good == score).mean() / 2))
    return np.array(shares)


def _tell(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
