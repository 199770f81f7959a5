"""The parity sample: photos in a model file, and the figures of engines on them.

What compares engines on it is `reconpatch.model.parity`.
"""

from __future__ import annotations

import importlib.metadata
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.engine.engines import Output
from reconpatch.method.memory_bank import Floats
from reconpatch.photos.images import Bytes
from reconpatch.photos.stored_picture import stored_picture

TOLERANCE = 1e-4
"""Largest difference between engines, as a share of the threshold of the score or the map."""
ROUNDING = 1e-5
"""Up to this share of the threshold, a score is the threshold."""
NEAR_ZERO = 0.1
"""What a distance near 0 is known to, as a share of the resolution.

The nearest row is found by squared distances, |q|² - 2 q·r + |r|², whose rounding is some 1e-6 of
the features' norm squared: among rows that lie this near it picks one or the other.
"""
SAMPLE_PHOTOS = 16
"""Most photos that engines are compared on and that the file keeps, half of them made defects."""


@dataclass(frozen=True)
class Agreement:
    """Differences between an engine and the reference on a sample.

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


@dataclass(frozen=True)
class Measured:
    """Differences between an engine and the reference on B photos, before any threshold.

    Attributes:
        engine: its name.
        where: its version and the processor, see `engine_here`; another of either is measured anew.
        scores: (B,) its image scores.
        expected: (B,) those of the reference.
        map_differences: (B,) largest difference of maps at any pixel, in the map's units.
        resolutions: (B,) see `reconpatch.model.parity.resolution`.
        near_ties: see `Agreement`.
    """

    engine: str
    where: str
    scores: tuple[float, ...]
    expected: tuple[float, ...]
    map_differences: tuple[float, ...]
    resolutions: tuple[float, ...]
    near_ties: int

    __pydantic_config__ = {"allow_inf_nan": False}  # noqa: RUF012

    @classmethod
    def of(
        cls, engine: str, found: Output, reference: Output, resolution: float = 0.0, where: str = ""
    ) -> Measured:
        """Measure what an engine found against the reference.

        Where a threshold is smaller than the resolution, differences are shares of that instead.
        """
        off = np.abs(found.map - reference.map)
        return cls(
            engine,
            where,
            tuple(found.score.astype(np.float64).tolist()),
            tuple(reference.score.astype(np.float64).tolist()),
            tuple(off.reshape(len(off), -1).max(axis=1).astype(np.float64).tolist()),
            (resolution,) * len(off),
            int((found.nearest != reference.nearest).sum()),
        )

    def joined(self, other: Measured) -> Measured:
        """The same of both samples together."""
        return Measured(
            self.engine,
            self.where,
            self.scores + other.scores,
            self.expected + other.expected,
            self.map_differences + other.map_differences,
            self.resolutions + other.resolutions,
            self.near_ties + other.near_ties,
        )

    def at(self, threshold: float, map_threshold: float) -> Agreement:
        """How far the engine is from the reference at these thresholds."""
        scores, expected, resolutions = map(
            np.array, (self.scores, self.expected, self.resolutions)
        )
        scale = np.maximum(abs(threshold), resolutions)
        scale[scale == 0] = 1.0
        too_small = abs(threshold) < resolutions
        rounding = np.where(too_small, NEAR_ZERO * resolutions, ROUNDING * scale)
        difference = np.abs(scores - expected)
        difference = np.where(too_small, np.maximum(difference - rounding, 0.0), difference)
        off = np.array(self.map_differences)
        map_scale = np.maximum(abs(map_threshold), resolutions)
        map_scale[map_scale == 0] = 1.0
        too_small = abs(map_threshold) < resolutions
        off = np.where(too_small, np.maximum(off - NEAR_ZERO * resolutions, 0.0), off)
        close = np.abs(expected - threshold) <= rounding
        differ = (scores > threshold) != (expected > threshold)
        return Agreement(
            engine=self.engine,
            photos=len(expected),
            score_difference=float((difference / scale).max(initial=0.0)),
            map_difference=float((off / map_scale).max(initial=0.0)),
            near_ties=self.near_ties,
            close_calls=int(close.sum()),
            verdicts=int((differ & ~close).sum()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measured:
        """What `to_dict` gave.

        Raises:
            ValueError: it is not.
        """
        from pydantic import TypeAdapter

        try:
            found = TypeAdapter(cls).validate_python(values)
            columns = found.scores, found.expected, found.map_differences, found.resolutions
            [_] = {len(column) for column in columns}
        except ValueError as error:  # that of pydantic, too
            raise ValueError("what its engines said of the samples is incomplete") from error
        return found


@dataclass(frozen=True, eq=False)
class Sample:
    """Photos that a model file carries, with what the engines said of them.

    Attributes:
        pictures: PNG files of prepared photos, the model's input as 8-bit RGB.
        good: how many of them, the first ones, are good photos; the others are made defects.
        scores: (n,) float64 image scores by the reference when the file was written, or empty.
        distances: (n, P) float32 patch distances likewise.
        agreements: of the engines that were there then, at the model's thresholds.
        fingerprint: of the model that they are about, its thresholds apart; see
            `reconpatch.model.file.scoring_fingerprint`.
        measured: what the agreements follow from.
    """

    pictures: Sequence[bytes]
    good: int
    scores: npt.NDArray[np.float64]
    distances: Floats
    agreements: Sequence[Agreement] = ()
    fingerprint: str = ""
    measured: Sequence[Measured] = ()

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


@cache
def engine_here(name: str) -> str:
    """An engine's version and the processor that it runs on: what its figures may depend on."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return f"{version} on {_processor()}"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):  # a system without it
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _png(photo: Bytes) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(photo.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _pixels(picture: bytes) -> Bytes:
    return np.asarray(stored_picture(picture, "PNG")).transpose(2, 0, 1)
