"""What an inspection says of one photo: plain values over numpy, in the pixels of that photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x to the right, y down; x1 and y1 are exclusive."""


@dataclass(frozen=True)
class Region:
    """A connected area of the photo whose anomaly map lies above the map's threshold.

    Attributes:
        box: the smallest upright box around the area, in pixels of the photo.
        area: number of pixels.
        peak: x, y of the pixel with the highest value.
        peak_value: the anomaly map there, the same unit as the map (a feature distance).
    """

    box: Box
    area: int
    peak: tuple[int, int]
    peak_value: float

    def to_dict(self) -> dict[str, Any]:
        """The region as JSON-ready values."""
        return {
            "box": list(self.box),
            "area": self.area,
            "peak": list(self.peak),
            "peak_value": self.peak_value,
        }


@dataclass(frozen=True)
class ClosestPatch:
    """The good patch in the memory bank that the worst patch of a photo was compared with (eq. 9).

    Attributes:
        photo: the training photo, as a path relative to the folder of the fit.
        box: where the good patch is, in pixels of the training photo.
        patch_box: where the patch that was compared with it is, in pixels of the inspected photo.
        distance: D(f(p), r*), the distance between the two.
        thumbnail: JPEG bytes of the whole training photo, or None in a file without thumbnails.
        thumbnail_box: where the good patch is, in pixels of the thumbnail.
        sha256: of the training photo's pixels: names may repeat once a model was updated.
    """

    photo: str
    box: Box
    patch_box: Box
    distance: float
    thumbnail: bytes | None = None
    thumbnail_box: Box | None = None
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Which photo, where, and how far, as JSON-ready values (without the picture)."""
        return {
            "photo": self.photo,
            "box": list(self.box),
            "patch_box": list(self.patch_box),
            "distance": self.distance,
        }


NONE_OF_THESE = "none of these"
"""What stands for a kind's name where a defect is like none that the model knows."""


@dataclass(frozen=True)
class SimilarKind:
    """The kind of confirmed defects that an anomalous photo is most similar to.

    Attributes:
        name: of the kind.
        similarity: 0 to 1: 1 where the worst patches are those of a confirmed defect, 0 where they
            are no nearer to one than to good patches.
        near: whether that is as much as defects of the kind have among themselves. If not, the
            photo shows none of the kinds that the model knows, and `name` is the most similar.
    """

    name: str
    similarity: float
    near: bool

    @property
    def label(self) -> str:
        """The kind's name, or `NONE_OF_THESE`."""
        return self.name if self.near else NONE_OF_THESE

    def __str__(self) -> str:
        if self.near:
            return f"{self.name} (similarity {self.similarity:.2f})"
        return f"{NONE_OF_THESE} (most similar: {self.name}, {self.similarity:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """The kind as JSON-ready values."""
        return {"name": self.name, "similarity": self.similarity, "near": self.near}


@dataclass(frozen=True, eq=False)
class Result:
    """The verdict on one photo.

    Attributes:
        name: path of the photo as it was given, or "<array>" and the like.
        score: image score, max over patches of s_t (eq. 10); a distance, 0 or more, no upper end.
        threshold: the image score above which a photo is anomalous.
        anomalous: score > threshold.
        p_value: share of good photos that look at least this unusual, in (0, 1];
            (1 + number of calibration scores >= score) / (1 + number of calibration scores).
        heatmap: (H, W) float32 anomaly map in pixels of the photo; NaN where not inspected.
        map_threshold: value of the map above which a pixel belongs to a region.
        regions: the anomalous regions, highest peak first; empty for a photo that is not anomalous,
            at least one for a photo that is.
        closest: the good patch nearest to the photo's worst patch.
        inspected: the part of the photo that was looked at.
        notes: what sets the photo apart from those of the fit, a sentence each: grey or colour,
            red and blue swapped, depth, shape. Its score may tell of that alone.
        kind: the most similar kind of confirmed defects; None of a photo that is not anomalous, and
            of a model that knows no kinds.
        whole: whether an anomalous photo is so as a whole: what it is made of makes most of its
            score, as where a part is missing, one too many or another one. Its regions are where
            patches are the most unusual, which need not be what is wrong.
    """

    name: str
    score: float
    threshold: float
    anomalous: bool
    p_value: float
    heatmap: npt.NDArray[np.float32]
    map_threshold: float
    regions: tuple[Region, ...]
    closest: ClosestPatch
    inspected: Box
    notes: tuple[str, ...] = ()
    kind: SimilarKind | None = None
    whole: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON-ready values, without the map."""
        height, width = self.heatmap.shape
        return {
            "path": self.name,
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "p_value": self.p_value,
            "width": width,
            "height": height,
            "inspected": list(self.inspected),
            "regions": [region.to_dict() for region in self.regions],
            "closest": self.closest.to_dict(),
            "notes": list(self.notes),
            "kind": self.kind and self.kind.to_dict(),
            "whole": self.whole,
        }
