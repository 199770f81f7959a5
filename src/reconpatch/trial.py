"""A model on trial: what it makes of defects made on its own good photos, and the guard.

    prepared good photos ── a defect on each ── patch features ── scored without their photo
                                                                  └── quality, pixel AP, guard

There are no defective photos at a fit. Defects made on good ones tell little about how hard the
real ones will be, but which of two representations finds more of them tells something about which
finds more of the real ones (docs/research.md). So training has to show on them that it did no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reconpatch.features import Extractor
from reconpatch.good_photos import GoodScores, TrainingPhoto, groups_of_rows
from reconpatch.images import Bytes, as_unit
from reconpatch.made_defects import made_defects
from reconpatch.memory_bank import Floats, MemoryBank
from reconpatch.metrics import pixel_metrics
from reconpatch.quality import QualityEstimate, compare, estimate_quality
from reconpatch.representation import Representation
from reconpatch.scoring import ScoringSettings, anomaly_map, score_patches


@dataclass(frozen=True)
class Defects:
    """Defects made on good photos.

    Attributes:
        photos: index of the good photo that each is made on.
        kinds: see `reconpatch.made_defects.KINDS`.
        masks: (H, W) bool each, at the model's pixels.
        features: (P, C) float32 patch features each.
        pixels: (3, H, W) uint8 each, the photo with its defect.
    """

    photos: list[int]
    kinds: list[str] = field(default_factory=list)
    masks: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    features: list[Floats] = field(default_factory=list)
    pixels: list[Bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.photos)


def make_defects(prepared: Mapping[int, Bytes], seed: int, extractor: Extractor) -> Defects:
    """A defect on each of the (3, H, W) uint8 prepared photos, by their index."""
    found = Defects(list(prepared))
    for made in made_defects((x.transpose(1, 2, 0) for x in prepared.values()), seed):
        pixels = made.pixels.transpose(2, 0, 1)
        found.kinds.append(made.kind)
        found.masks.append(made.mask)
        found.features.append(extractor(as_unit(pixels[None]))[0])
        found.pixels.append(pixels)
    return found


@dataclass(frozen=True, eq=False)
class Trial:
    """What a representation with its bank makes of made defects.

    Attributes:
        good: (n,) float64 image scores of the good photos as if they were new.
        defective: (m,) float64 image scores of the made defects, their photos left out likewise.
        quality: see `reconpatch.quality`.
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


def try_on(
    defects: Defects,
    f: Representation,
    bank: MemoryBank,
    photos: Sequence[TrainingPhoto],
    good: GoodScores,
    scoring: ScoringSettings,
    *,
    threshold: float,
    grid: tuple[int, int],
    size: tuple[int, int],
) -> Trial:
    """Score the made defects as their photos are scored: against the bank without that photo.

    Args:
        defects: one at least.
        f: the representation.
        bank: of `f`.
        photos: the good photos; `bank.photo` and `defects.photos` count them.
        good: their scores as if they were new.
        scoring: how distances become scores.
        threshold: of the image score; a defect above it is caught.
        grid: h, w of the patches.
        size: height and width of the model's input.
    """
    group_of_row = groups_of_rows(bank, photos)
    scored = [
        score_patches(f(features), bank.without(group_of_row == photos[i].group), scoring, grid)
        for i, features in zip(defects.photos, defects.features, strict=True)
    ]
    scores = np.array([s.image_score for s in scored])
    maps = [anomaly_map(s.distances, grid, size, scoring.blur) for s in scored]
    return Trial(
        good.image_scores,
        scores,
        estimate_quality(good.image_scores, scores, defects.kinds, threshold),
        pixel_metrics(defects.masks, maps)["pixel_ap"],
    )


@dataclass(frozen=True)
class Guard:
    """Whether the learned f was kept.

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
