"""Add quarter turns of good photos to the bank where the good photos prove that they help.

Parts that lie turned as they fall, round ones above all, are rare in any one position: a bank of a
hundred photos lacks much of what the next good photo shows. Copies turned by 90, 180 and 270
degrees fill some of that. On parts that always lie alike they only take rows away, and every good
photo comes to lie further from the bank. So copies and photos share a bank of as many rows, and the
copies are taken where the good photos, each left out in turn, lie as near to it as without, and
their scores spread no more. Elsewhere they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.features.extractor import Extractor
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings, top_score, weighted_distances
from reconpatch.model.good_photos import TrainingPhoto, cover, groups_of_rows
from reconpatch.photos.images import Bytes, as_unit
from reconpatch.photos.layout import Layout, View

HIGHER = 1.03
"""Copies are taken where the mean score of the good photos is below this multiple of that without.
Measured: 1.01 where parts turn (castings, biscuits, paper), 1.05 to 1.28 elsewhere."""


@dataclass(frozen=True, eq=False)
class Turned:
    """Represented patches of good photos turned by quarters.

    Attributes:
        r: (k, P, D) float32, of each copy.
        photo: (k,) int64, the good photo that each is a copy of.
        place: (k, P) int64, where each patch of a copy lies in the photo itself.
    """

    r: Floats
    photo: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]


def turned(
    prepared: Mapping[int, tuple[View, Bytes]], extractor: Extractor, f: Representation
) -> Turned:
    """Copies of the (3, H, W) uint8 prepared photos, by the photo's index, each seen whole.

    By 90, 180 and 270 degrees where the input is square, else by 180 degrees.
    """
    height, width = extractor.grid
    quarters = (1, 2, 3) if extractor.input_size[0] == extractor.input_size[1] else (2,)
    numbers = np.arange(height * width).reshape(height, width)
    copies = [(i, k) for i in prepared for k in quarters]
    dim = extractor.channels if f.weight is None else len(f.weight)
    r = np.empty((len(copies), height * width, dim), np.float32)
    for copy, (i, k) in enumerate(copies):
        pixels = np.ascontiguousarray(np.rot90(prepared[i][1], k, (1, 2)))
        r[copy] = f(extractor(as_unit(pixels[None]))[0])
    places = {k: np.rot90(numbers, k).ravel() for k in quarters}
    return Turned(
        r,
        np.array([i for i, _ in copies], np.int64),
        np.stack([places[k] for _, k in copies]),
    )


def bank_with(
    bank: MemoryBank,
    copies: Turned,
    pick: Callable[[Floats, int], npt.NDArray[np.int64]],
) -> MemoryBank:
    """Pick a bank of the same size among its rows and as many of the turned copies.

    Args:
        bank: of the good photos as they are.
        copies: of good photos.
        pick: the greedy coreset of (N, D) patches, of a number of rows.
    """
    r = copies.r.reshape(-1, bank.rows.shape[1])
    own = pick(r, min(len(bank), len(r)))
    rows = np.concatenate([bank.rows, r[own]])
    photo = np.concatenate([bank.photo, copies.photo[own // copies.place.shape[1]]])
    place = np.concatenate([bank.place, copies.place.ravel()[own]])
    picked = pick(rows, len(bank))
    return MemoryBank(rows[picked], photo[picked], place[picked], rows[picked])


@dataclass(frozen=True)
class TurnsDecision:
    """Whether turned copies were taken, and what decided.

    Attributes:
        taken: whether.
        spread: standard deviation of the good photos' scores, divided by their mean, with the
            copies, as a share of the same without.
        mean: mean score with the copies as a share of that without.
        photos: how many were compared.
    """

    taken: bool
    spread: float
    mean: float
    photos: int

    def sentence(self) -> str:
        """The decision in plain words."""
        what = "holds" if self.taken else "does not hold"
        return (
            f"The bank {what} turned copies of good photos: with them the scores of {self.photos} "
            f"good photos, each left out in turn, are {self.mean:.2f} times as high and spread "
            f"{self.spread:.2f} times as much."
        )

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON-ready values."""
        return {
            "taken": self.taken,
            "spread": self.spread,
            "mean": self.mean,
            "photos": self.photos,
            "sentence": self.sentence(),
        }


def decide(
    plain: MemoryBank,
    with_copies: MemoryBank,
    patches: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    of: Sequence[int],
    scoring: ScoringSettings,
    layout: Layout,
) -> TurnsDecision:
    """Compare the scores of good photos against two banks, the photos' own rows left out.

    A photo whose part has all rows of a bank has no score by it, and is not compared.
    """
    if not of:
        return TurnsDecision(False, 1.0, 1.0, 0)
    before, after = (
        _scores_without_own(bank, patches, photos, of, scoring, layout)
        for bank in (plain, with_copies)
    )
    scored = np.isfinite(before) & np.isfinite(after)
    before, after = before[scored], after[scored]
    if not len(before):
        return TurnsDecision(False, 1.0, 1.0, 0)
    means = float(before.mean()), float(after.mean())
    mean = means[1] / means[0] if means[0] > 0 else 1.0
    spread = float(after.std() / before.std()) / mean if before.std() > 0 < mean else 1.0
    return TurnsDecision(mean < HIGHER and spread < 1.0, spread, mean, len(before))


def _scores_without_own(
    bank: MemoryBank,
    patches: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    of: Sequence[int],
    scoring: ScoringSettings,
    layout: Layout,
) -> npt.NDArray[np.float64]:
    group_of_row = groups_of_rows(bank, photos)
    covering = cover(bank, patches, photos, of=of)
    scores = np.empty(len(of))
    for k, i in enumerate(of):
        own = group_of_row[covering.nearest[k]] == photos[i].group
        nearest = np.where(own, covering.others[k], covering.nearest[k])
        distances = np.where(own, covering.other_distances[k], covering.distances[k])
        weighted = weighted_distances(patches(i), distances, nearest, bank, scoring)
        scores[k] = top_score(weighted, scoring, layout) if (nearest >= 0).all() else np.inf
    return scores
