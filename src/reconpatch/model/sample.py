"""The parity sample: photos that a model file carries, and what engines said of them.

What compares engines on it is `reconpatch.model.parity`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.method.memory_bank import Floats
from reconpatch.photos.images import Bytes
from reconpatch.photos.stored_picture import stored_picture

TOLERANCE = 1e-4
"""Largest difference between engines, as a share of the threshold of the score or the map."""
SAMPLE_PHOTOS = 16
"""Most photos that engines are compared on and that the file keeps, half of them made defects."""


@dataclass(frozen=True)
class Agreement:
    """How far an engine is from the reference on a sample.

    Attributes:
        engine: its name.
        photos: how many photos were compared.
        score_difference: largest difference of image scores, as a share of the threshold (of the
            `resolution` where that is larger).
        map_difference: largest difference of maps at any pixel, as a share of the map's threshold.
        near_ties: patches whose nearest row is another one, which is about as near.
        close_calls: photos whose score is the threshold itself up to `ROUNDING`, as that of the
            calibration photo is that the threshold came from: either verdict is right on them.
        verdicts: other photos on which the two disagree.
    """

    engine: str
    photos: int
    score_difference: float
    map_difference: float
    near_ties: int
    close_calls: int
    verdicts: int

    def joined(self, other: Agreement) -> Agreement:
        """The same of both samples together."""
        return Agreement(
            self.engine,
            self.photos + other.photos,
            max(self.score_difference, other.score_difference),
            max(self.map_difference, other.map_difference),
            self.near_ties + other.near_ties,
            self.close_calls + other.close_calls,
            self.verdicts + other.verdicts,
        )

    @property
    def holds(self) -> bool:
        """Whether the engine may stand for the reference."""
        return self.verdicts == 0 and max(self.score_difference, self.map_difference) <= TOLERANCE

    def sentence(self) -> str:
        """The figures in plain words."""
        return (
            f"{self.engine}: {self.verdicts} of {self.photos} verdicts differ; largest difference "
            f"of a score {self.score_difference:.1e} of the threshold, of a map "
            f"{self.map_difference:.1e}; {self.near_ties} patches with another row as near, "
            f"{self.close_calls} photos with the threshold itself as score"
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Sample:
    """Photos that a model file carries, with what the engines said of them.

    Attributes:
        pictures: PNG files of prepared photos, the model's input as 8-bit RGB.
        good: how many of them, the first ones, are good photos; the others are made defects.
        scores: (n,) float64 image scores by the reference when the file was written, or empty.
        distances: (n, P) float32 patch distances likewise.
        agreements: of the engines that were there then.
        fingerprint: of the model that they are about.
    """

    pictures: Sequence[bytes]
    good: int
    scores: npt.NDArray[np.float64]
    distances: Floats
    agreements: Sequence[Agreement] = ()
    fingerprint: str = ""

    @classmethod
    def of(cls, good: Sequence[Bytes], defects: Sequence[Bytes]) -> Sample:
        """A sample of (3, H, W) uint8 prepared photos."""
        pictures = [_png(photo) for photo in (*good, *defects)]
        return cls(pictures, len(good), np.empty(0), np.empty((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.pictures)

    def photos(self) -> list[Bytes]:
        """The photos, (3, H, W) uint8 each."""
        return [_pixels(picture) for picture in self.pictures]


def _png(photo: Bytes) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(photo.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _pixels(picture: bytes) -> Bytes:
    return np.asarray(stored_picture(picture, "PNG")).transpose(2, 0, 1)
