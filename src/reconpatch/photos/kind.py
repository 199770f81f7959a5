"""Of what kind photos are, and whether those inspected are of the kind of those of the fit.

A model compares patches, and takes what another camera setting did to them for a defect. Colour,
depth and shape are looked at in a few thousand pixels of each photo: grey or coloured, red and blue
swapped, 8 or 16 bits, lying or upright.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from reconpatch.photos.images import Photo, in_unit

Doubles = npt.NDArray[np.float64]

ANOTHER_KIND = "Another kind than the photos of the fit"
"""What stands before a note on photos that differ from those of the fit."""

_SAMPLED, _BLOCKS = 64, 8  # pixels along each side that are looked at, and means of them
# Chroma is the mean of largest less smallest channel, in levels of 255: a photo without colour has
# 0, one of a colourless part 5 and more.
_GREY, _COLOURED = 1.0, 4.0
_FADED = 4.0  # times less or more chroma than any photo of the fit
_ALIKE = 0.5  # agreement on red less blue, from which photos have the same colours
_SHAPE = 1.05  # ratio of ratios of sides
_MIXED_SHAPES = 1.5


class Comparing(Protocol):
    """What tells how a photo differs from those of the fit: a model."""

    def differences(self, photo: Photo) -> tuple[str, ...]:
        """What sets a photo apart, a sentence each."""


@dataclass(frozen=True, eq=False)
class Look:
    """What is looked at of one photo.

    Attributes:
        height, width: in pixels.
        depth: "8 bits", "16 bits" or "floats".
        chroma: mean over pixels of the largest less the smallest channel, in levels of 0 to 255.
        red_less_blue: (64,) red less blue of 8 x 8 parts of the photo, in the same levels.
    """

    height: int
    width: int
    depth: str
    chroma: float
    red_less_blue: Doubles

    @classmethod
    def at(cls, photo: Photo, white_level: int) -> Self:
        """Look at a photo whose 16-bit values are white at white_level."""
        rows, columns = (
            ((np.arange(_SAMPLED) + 0.5) * side / _SAMPLED).astype(int)
            for side in (photo.height, photo.width)
        )
        pixels = photo.pixels[np.ix_(rows, columns)]
        depth = {1: "8 bits", 2: "16 bits"}.get(pixels.dtype.itemsize, "floats")
        if pixels.ndim == 2:
            return cls(photo.height, photo.width, depth, 0.0, np.zeros(_BLOCKS**2))
        if pixels.dtype != np.uint8:
            pixels = in_unit(pixels, white_level) * np.float32(255)
        levels = pixels.astype(np.float64)
        chroma = float((levels.max(axis=2) - levels.min(axis=2)).mean())
        side = _SAMPLED // _BLOCKS
        parts = (levels[:, :, 0] - levels[:, :, 2]).reshape(_BLOCKS, side, _BLOCKS, side)
        return cls(photo.height, photo.width, depth, chroma, parts.mean(axis=(1, 3)).ravel())


@dataclass(frozen=True)
class Kind:
    """Of what kind the photos of a fit are.

    Attributes:
        chroma: the least and the most of any photo, in levels of 0 to 255.
        depths: number of photos of each depth.
        red_less_blue: 64 means over all photos; see `Look`.
        alike: the least agreement of a photo's red less blue with those, -1 to 1.
    """

    chroma: tuple[float, float]
    depths: Mapping[str, int]
    red_less_blue: tuple[float, ...]
    alike: float

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Self:
        """The kind of one photo or more."""
        chroma = [look.chroma for look in looks]
        mean = np.mean([look.red_less_blue for look in looks], axis=0)
        alike = min(_agreement(look.red_less_blue, mean) for look in looks)
        depths = dict(Counter(look.depth for look in looks))
        return cls((min(chroma), max(chroma)), depths, tuple(mean.tolist()), alike)

    def to_dict(self) -> dict[str, Any]:
        """The kind as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The kind that `to_dict` gave.

        Raises:
            ValueError: it is none.
        """
        try:
            low, high = (float(value) for value in values["chroma"])
            mean = tuple(float(value) for value in values["red_less_blue"])
            depths = {str(name): int(count) for name, count in values["depths"].items()}
            found = cls((low, high), depths, mean, float(values["alike"]))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError("it lacks the kind of its photos") from error
        if len(mean) != _BLOCKS**2 or not all(map(math.isfinite, (low, high, found.alike, *mean))):
            raise ValueError("it lacks the kind of its photos")
        return found

    def differences(self, look: Look, ratios: Sequence[float]) -> tuple[str, ...]:
        """What sets a photo apart from those of the fit, a sentence each, the same for all like it.

        Args:
            look: at the photo.
            ratios: of width to height, of those of the fit.
        """
        return (*self._of_colour(look), *self._of_depth(look), *_of_shape(look, ratios))

    def _of_colour(self, look: Look) -> Iterable[str]:
        low, high = self.chroma
        if look.chroma < low / _FADED and low > _GREY:
            yield "The photo is grey, and those of the fit are in colour."
        elif look.chroma > max(_COLOURED, high * _FADED):
            yield "The photo is in colour, and those of the fit are grey."
        elif (
            low > _GREY
            and self.alike > _ALIKE
            and _agreement(look.red_less_blue, np.array(self.red_less_blue)) < -_ALIKE
        ):
            yield (
                "The photo's red and blue seem to be swapped: arrays are RGB, and OpenCV reads "
                "BGR, which array[:, :, ::-1] turns."
            )

    def _of_depth(self, look: Look) -> Iterable[str]:
        # Doubles are what anybody may have made of either.
        if {look.depth, *self.depths} == {"8 bits", "16 bits"} and look.depth not in self.depths:
            [depth] = self.depths
            yield f"The photo has {look.depth} a channel, and those of the fit have {depth}."


def kind_notes(looks: Sequence[Look]) -> list[str]:
    """Notes on a fit whose photos are not of one kind."""
    notes = []
    grey = sum(look.chroma < _GREY for look in looks)
    coloured = sum(look.chroma > _COLOURED for look in looks)
    if grey and coloured:
        notes.append(f"{grey} of the {len(looks)} good photos are grey and {coloured} in colour")
    depths = Counter(look.depth for look in looks)
    if {"8 bits", "16 bits"} <= set(depths):
        counts = " and ".join(f"{count} have {depth}" for depth, count in sorted(depths.items()))
        notes.append(f"Of the {len(looks)} good photos {counts} a channel")
    ratios = [look.width / look.height for look in looks]
    lying, upright = (sum(r > _SHAPE for r in rs) for rs in (ratios, [1 / r for r in ratios]))
    if max(ratios) > _MIXED_SHAPES * min(ratios):
        notes.append(
            f"{lying} of the {len(looks)} good photos are wider than high and {upright} higher "
            f"than wide ({_shapes(ratios)}), and all are shown to the model in one shape"
        )
    return [f"{note}: a model for each kind has fewer misses." for note in notes]


def _of_shape(look: Look, ratios: Sequence[float]) -> Iterable[str]:
    ratio, low, high = look.width / look.height, min(ratios), max(ratios)
    if low / _SHAPE <= ratio <= high * _SHAPE:
        return
    if low / _SHAPE <= 1 / ratio <= high * _SHAPE:
        yield (
            "The photo is turned: it is wider than high, and those of the fit are higher than wide."
            if ratio > 1
            else "The photo is turned: it is higher than wide, and those of the fit are wider than "
            "high."
        )
        return
    yield f"The photo has another shape than those of the fit ({_shapes(ratios)})."


def _shapes(ratios: Sequence[float]) -> str:
    low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    return f"{low if low == high else f'{low} to {high}'} times as wide as high"


def _agreement(values: Doubles, mean: Doubles) -> float:
    """Of what the mean says in all parts, how much the values have with its sign, -1 to 1.

    By signs, since one coloured defect must not outweigh all other parts.
    """
    said = float(np.abs(mean).sum())
    return float(np.sign(values) @ mean) / said if said else 0.0


class KindsSeen:
    """What sets the photos of a run apart from those of the fit: said once, with their number."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._photos = 0

    def add(self, notes: Iterable[str]) -> list[str]:
        """Count the notes on one photo; those that are seen for the first time."""
        self._photos += 1
        new = [note for note in notes if note not in self._counts]
        self._counts.update(notes)
        return new

    def through(self, photos: Iterable[Photo], model: Comparing) -> Iterator[Photo]:
        """The photos, each counted on its way to something else."""
        for photo in photos:
            self.add(model.differences(photo))
            yield photo

    def sentences(self) -> list[str]:
        """Each note once, with the number of photos that it is on."""
        return [f"{n} of {self._photos} photos: {note}" for note, n in self._counts.items()]
