"""Defects made on the good photos of a fit: some for f to learn from, others to judge the model by.

    prepared good photos ─┬─ defects of some kinds ── patches that they cover ── f
                          └─ a defect of other kinds on each ── scored without their photo
                                                                └── quality, pixel AP, guard

There are no defective photos at a fit. Defects made on good ones tell little about how hard the
real ones will be. What f has learned from cannot judge it, so the kinds that judge are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reconpatch.features.extractor import Extractor
from reconpatch.fitting.made_defects import (
    JUDGED_KINDS,
    KINDS,
    MadeDefect,
    made_defects,
    make_defect,
)
from reconpatch.fitting.quality import QualityEstimate, compare, estimate_quality
from reconpatch.method.contrastive_components import DefectPatches
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.metrics import pixel_metrics
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import (
    ScoringSettings,
    anomaly_map,
    score_nearest,
    weighted_distances,
    with_composition,
)
from reconpatch.model.good_photos import GoodScores, TrainingPhoto, by_part, groups_of_rows
from reconpatch.photos.images import Bytes, as_unit
from reconpatch.photos.layout import Layout, View
from reconpatch.photos.read_ahead import read_ahead

LEARNT_COVERAGE = 0.3
"""Share of a patch that a made defect must cover for f to learn from it, or the most it covers."""

DEFECTS_A_PHOTO = 2
"""Defects on one damaged photo that f learns from. Four together teach castings two points less."""


@dataclass(frozen=True)
class Defects:
    """Defects made on good photos.

    Attributes:
        extractor: from photos to patch features.
        photos: index of the good photo that each is made on.
        kinds: see `reconpatch.fitting.made_defects.JUDGED_KINDS`: none that f learns from.
        views: the part of the photo that each is made on.
        masks: (H, W) bool each, at the model's pixels.
        pixels: (3, H, W) uint8 each, the view with its defect.
    """

    extractor: Extractor
    photos: list[int] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    masks: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    pixels: list[Bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.photos)

    def represented(self, k: int, f: Representation) -> Floats:
        """(p, D) float32 r = f(p) of the k-th defect's view, whose p is extracted for it.

        p of all defects would be a tenth of a fit's memory, and is asked for once.
        """
        return f(self.extractor(as_unit(self.pixels[k][None]))[0])


def make_defects(
    prepared: Mapping[int, tuple[View, Bytes]],
    seed: int,
    extractor: Extractor,
    rounds: int = 1,
) -> Defects:
    """Make a defect on each of the (3, H, W) uint8 prepared photos or tiles, by photo index.

    In several rounds each photo gets as many, every one on the photo as it was. Where a part of a
    view is not inspected it stays as it was; a defect that would lie there alone is left out.
    """
    found = Defects(extractor)
    views = list(prepared.items()) * rounds
    pictures = (x.transpose(1, 2, 0) for _, (_, x) in views)
    made_on = zip(views, made_defects(pictures, seed, JUDGED_KINDS), strict=True)
    for (photo, (view, original)), made in made_on:
        pixels, mask = _inspected(made, view, original, extractor.grid)
        if not mask.any():
            continue
        found.photos.append(photo)
        found.views.append(view)
        found.kinds.append(made.kind)
        found.masks.append(mask)
        found.pixels.append(pixels)
    return found


def defects_to_learn(
    prepared: Mapping[int, tuple[View, Bytes]],
    photos: Sequence[TrainingPhoto],
    count: int,
    seed: int,
    extractor: Extractor,
) -> list[DefectPatches]:
    """Make defects on the prepared photos or tiles, kinds and photos in turn, for f to learn.

    Each damaged photo has `DEFECTS_A_PHOTO` of them: its features are what takes the time.

    Args:
        prepared: (3, H, W) uint8 by the photo's index.
        photos: the good photos, for their groups.
        count: defects to make; one that covers no inspected patch is left out.
        seed: decides what they look like.
        extractor: from photos to patch features.
    """
    numbers = list(prepared)

    def damaged(first: int) -> tuple[int, Bytes, list[Floats]]:
        """A photo, its pixels with defects, and which share of each patch each of them covers."""
        turn, n = divmod(first // DEFECTS_A_PHOTO, len(numbers))
        view, original = prepared[numbers[n]]
        pixels, shares = original, []
        for k in range(first, min(first + DEFECTS_A_PHOTO, count)):
            rng = np.random.default_rng([seed, 1, k])
            _, donor = prepared[numbers[rng.integers(len(numbers))]] if k % 2 else (view, original)
            kind = KINDS[(n + turn * DEFECTS_A_PHOTO + k - first) % len(KINDS)]
            made = make_defect(pixels.transpose(1, 2, 0), donor.transpose(1, 2, 0), kind, rng)
            pixels, mask = _inspected(made, view, original, extractor.grid)
            covered = coverage(mask, extractor.grid)[view.cells]
            if covered.any():
                shares.append(covered)
        return numbers[n], pixels, shares

    found = []
    firsts = range(0, count if numbers else 0, DEFECTS_A_PHOTO)
    for i, pixels, shares in read_ahead(damaged, firsts, 1):
        if not shares:
            continue
        features = extractor(as_unit(pixels[None]))[0][prepared[i][0].cells]
        for covered in shares:
            chosen = covered > min(LEARNT_COVERAGE, 0.999 * float(covered.max()))
            found.append(DefectPatches(features[chosen], photos[i].group))
    return found


def coverage(mask: npt.NDArray[np.bool_] | Floats, grid: tuple[int, int]) -> Floats:
    """(h * w,) share of each place of the grid that an (H, W) mask covers, in raster order.

    A mask of floats says of each pixel which share of it is covered, 0 to 1.
    """
    rows, columns = (
        np.arange(n + 1) * pixels // n for n, pixels in zip(grid, mask.shape, strict=True)
    )
    sums = np.add.reduceat(mask.astype(np.float32), rows[:-1], axis=0)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    share: Floats = (sums / np.outer(np.diff(rows), np.diff(columns))).ravel().astype(np.float32)
    return share


def _inspected(
    made: MadeDefect, view: View, original: Bytes, grid: tuple[int, int]
) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """(3, H, W) pixels and (H, W) mask of a defect; what is not inspected is as it was."""
    pixels, mask = made.pixels.transpose(2, 0, 1), made.mask
    inside = _inspected_pixels(view, grid, mask.shape)
    if inside is None:
        return pixels, mask
    return np.where(inside, pixels, original), mask & inside


def _inspected_pixels(
    view: View, grid: tuple[int, int], size: tuple[int, ...]
) -> npt.NDArray[np.bool_] | None:
    """(H, W) bool, the pixels of the cells that a view answers for; None: all of them."""
    if len(view.cells) == grid[0] * grid[1]:
        return None
    cells = np.zeros(grid, np.bool_)
    cells.ravel()[view.cells] = True
    rows, columns = (np.arange(side) * n // side for side, n in zip(size, grid, strict=True))
    return cells[np.ix_(rows, columns)]


@dataclass(frozen=True, eq=False)
class Trial:
    """Figures of a representation and its bank on made defects.

    Attributes:
        good: (n,) float64 image scores of the good parts as if they were new.
        defective: (m,) float64 image scores of the made defects, their photos left out likewise.
        quality: see `reconpatch.fitting.quality`.
        pixel_ap: of the maps of the made defects, 0 to 1.
    """

    good: npt.NDArray[np.float64]
    defective: npt.NDArray[np.float64]
    quality: QualityEstimate
    pixel_ap: float

    @property
    def rank(self) -> float:
        """What the guard goes by: defects told from good photos, and shown in the right place."""
        return (self.quality.auroc + self.pixel_ap) / 2

    def to_dict(self) -> dict[str, float]:
        """The two figures of the rank as JSON-ready values."""
        return {"image_auroc": self.quality.auroc, "pixel_ap": self.pixel_ap}

    def __str__(self) -> str:
        return f"image AUROC {self.quality.auroc:.1%}, pixel AP {self.pixel_ap:.1%}"


def judge_on_defects(
    defects: Defects,
    f: Representation,
    bank: MemoryBank,
    photos: Sequence[TrainingPhoto],
    good: GoodScores,
    scoring: ScoringSettings,
    layout: Layout,
    *,
    threshold: float,
    grid: tuple[int, int],
) -> Trial:
    """Score the made defects as their photos are scored: against the bank without that photo.

    Of a photo in tiles only the tile with the defect is compared; the other patches are as far away
    as they were. The maps are those of the tiles.

    Args:
        defects: one at least.
        f: the representation.
        bank: of `f`.
        photos: the good photos; `bank.photo` and `defects.photos` count them.
        good: their scores as if they were new.
        scoring: how distances become scores.
        layout: where the patches of a photo lie.
        threshold: of the image score; a defect above it is caught.
        grid: h, w of the patches of a view.
    """
    group_of_row = groups_of_rows(bank, photos)
    row_of_photo = {int(photo): row for row, photo in enumerate(good.photos)}
    scores, maps = np.empty(len(defects)), []
    for k, (i, view) in enumerate(zip(defects.photos, defects.views, strict=True)):
        others = bank.without(group_of_row == photos[i].group, photos[i].group)
        r = defects.represented(k, f)
        distances, nearest = others.nearest(r)
        if layout.in_tiles:
            # Zeros: of a photo that was not scored itself.
            whole, weighted = np.zeros((2, layout.places), np.float32)
            if i in row_of_photo:
                row = row_of_photo[i]
                whole[:], weighted[:] = good.distances[row], good.weighted[row]
            of_tile = weighted_distances(r, distances, nearest, others, scoring)
            whole[view.places], weighted[view.places] = distances[view.cells], of_tile[view.cells]
            scored = score_nearest(None, whole, nearest, others, scoring, layout, weighted)
        else:
            cells = view.cells
            scored = score_nearest(
                r[cells], distances[cells], nearest[cells], others, scoring, layout
            )
            scored = with_composition(scored, r[cells], others)
        scores[k] = scored.image_score
        maps.append(anomaly_map(distances, grid, defects.masks[k].shape, scoring.blur))
    parts = by_part(good.image_scores, photos, good.photos)
    return Trial(
        parts,
        scores,
        estimate_quality(parts, scores, defects.kinds, threshold),
        pixel_metrics(defects.masks, maps)["pixel_ap"],
    )


@dataclass(frozen=True)
class Guard:
    """The decision whether the learned f is kept.

    Attributes:
        kept: "identity" where its mean of the two figures is higher, else "learned".
        learned, identity: image AUROC and pixel AP on the made defects, 0 to 1.
        image_auroc_gain: of the learned f over the identity, and its 95 % interval.
    """

    kept: Literal["learned", "identity"]
    learned: Mapping[str, float]
    identity: Mapping[str, float]
    image_auroc_gain: tuple[float, float, float]

    def sentence(self) -> str:
        """The decision in plain words."""
        verdict = (
            "was kept: on defects made on the good photos its mean of image AUROC and pixel AP is "
            "not below the identity's"
            if self.kept == "learned"
            else "did worse than the identity on defects made on the good photos, by the mean of "
            "image AUROC and pixel AP, so the identity took its place"
        )
        figures = " against ".join(
            f"image AUROC {of['image_auroc']:.1%} and pixel AP {of['pixel_ap']:.1%}"
            for of in (self.learned, self.identity)
        )
        return f"The learned f {verdict}: {figures}."

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON-ready values."""
        return {
            "kept": self.kept,
            "learned": dict(self.learned),
            "identity": dict(self.identity),
            "image_auroc_gain": list(self.image_auroc_gain),
            "sentence": self.sentence(),
        }


def guard(learned: Trial, identity: Trial) -> Guard:
    """Keep the learned f unless the identity did better on the same made defects."""
    gain = compare(identity.good, identity.defective, learned.good, learned.defective)
    return Guard(
        "identity" if identity.rank > learned.rank else "learned",
        learned.to_dict(),
        identity.to_dict(),
        (gain.difference, gain.low, gain.high),
    )
