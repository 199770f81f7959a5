"""Whether the image score asks what a photo is made of as a whole: pieces doubled on photos decide.

    good photo's patches r ── a window of them copied over another ── c, beside c of good photos

What is copied are patches, not pixels: every one of them is a good patch, there is no edge to give
the copy away, and only the whole is wrong. Where good photos are made of the same, as sets and
aligned parts are, the composition tells it; where they vary by more, as textures and lots do, it
does not, and would add its noise to the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reconpatch.method.composition import Composition
from reconpatch.method.memory_bank import Floats
from reconpatch.method.metrics import image_metrics
from reconpatch.model.good_photos import GoodScores, TrainingPhoto, evenly_spread

LEAST_AUROC = 0.75
"""From which on doubled pieces are told from good photos well enough: on products 0.84 to 1.00 or
0.53 to 0.62, and where it is less, the composition costs up to 2.5 points (docs/research.md)."""
LEAST_PARTS = 20
"""Different good parts that it takes to know what they are made of."""
LEAST_GRID = 4
"""Places along a side that it takes to copy a piece over another."""
TRIED = 200
"""Most good photos on which a piece is doubled."""
SIDES = 0.15, 0.35
"""Shortest and longest side of a doubled piece, as shares of the grid's shorter one."""


@dataclass(frozen=True)
class CompositionDecision:
    """Whether the composition counts, and what decided.

    Attributes:
        taken: whether.
        auroc: doubled pieces told from good photos by c alone, 0 to 1.
        photos: how many of each.
    """

    taken: bool
    auroc: float
    photos: int

    def sentence(self) -> str:
        """The decision in plain words."""
        what = "counts beside" if self.taken else "does not count beside"
        return (
            f"What a photo is made of as a whole {what} its patches: by it alone {self.photos} "
            f"good photos with a piece doubled are told from good ones with an image AUROC of "
            f"{self.auroc:.1%}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON-ready values."""
        return {
            "taken": self.taken,
            "auroc": self.auroc,
            "photos": self.photos,
            "sentence": self.sentence(),
        }


def decide(
    photo: Callable[[int], Floats],
    photos: Sequence[TrainingPhoto],
    good: GoodScores,
    grid: tuple[int, int],
    weight: float,
    rng: np.random.Generator,
) -> tuple[Composition | None, CompositionDecision | None]:
    """Make the composition of good photos, and decide whether it counts.

    Args:
        photo: gives the (P, D) represented patches of the i-th photo, in raster order.
        photos: the good photos.
        good: their scores by patches alone.
        grid: h, w of the patches.
        weight: how much the composition counts beside patches.
        rng: draws the pieces.

    Returns:
        The composition, None where it does not count, and the decision; None where the parts are
        too few, or all alike.
    """
    assert good.means is not None, "scores of leave_one_out have them"
    groups = np.array([photos[i].group for i in good.photos], np.int64)
    if len(np.unique(groups)) < LEAST_PARTS or min(grid) < LEAST_GRID:
        return None, None
    made = Composition.of(good.means, groups, good.image_scores, weight)
    if made is None:
        return None, None
    tried = evenly_spread(len(groups), TRIED)
    doubled = []
    for k in tried:
        mean = double(photo(int(good.photos[k])), grid, rng).mean(axis=0, keepdims=True)
        doubled.append(made.without(int(groups[k])).distances(mean)[0])
    scores = np.concatenate([made.leave_one_out[tried], doubled])
    auroc = image_metrics(np.arange(len(scores)) >= len(tried), scores)["image_auroc"] or 0.0
    taken = auroc >= LEAST_AUROC
    return (made if taken else None), CompositionDecision(taken, float(auroc), len(tried))


def double(patches: Floats, grid: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Copy a window of (P, D) patches over another that it does not overlap, of one size."""
    h, w = grid
    shorter = min(grid)
    low, high = (max(1, round(share * shorter)) for share in SIDES)
    down, across = rng.integers(low, high + 1, 2).tolist()
    while True:  # sides of 35 % leave room for two
        y, x, to_y, to_x = (
            int(rng.integers(side - size + 1)) for side, size in ((h, down), (w, across)) * 2
        )
        if abs(y - to_y) >= down or abs(x - to_x) >= across:
            break
    found = patches.reshape(h, w, -1).copy()
    found[to_y : to_y + down, to_x : to_x + across] = found[y : y + down, x : x + across]
    return found.reshape(patches.shape)
