"""From a photo of any size to the model's input, and from its map back to the photo's pixels.

    Photo ── Preprocessing ──> (3, height, width), of the whole photo or of each tile ── model
      ^                                                                                   │
      └────────────────────────── Geometry <── anomaly map ───────────────────────────────┘

Fit, inspect and all else use this preprocessing and no other, so that a model never sees two
versions of one photo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.errors import ModelFileError, SettingsError
from reconpatch.photos.images import Photo, in_unit
from reconpatch.photos.layout import Layout, View, cells_in
from reconpatch.photos.region_of_interest import RegionOfInterest
from reconpatch.photos.registration import Registration
from reconpatch.result import Box

_BILINEAR = Image.Resampling.BILINEAR
_STRIP = 2**22  # pixels of a map that are drawn at a time


@dataclass(frozen=True)
class Preprocessing:
    """From a photo of any size to the model's input, the same for every photo of a model.

    Resizing is Pillow's bilinear filter, which averages where it shrinks.

    Attributes:
        height: height of the model's input.
        width: width of the model's input.
        resize: None resizes the whole photo to (height, width). A number resizes its shorter side
            to that and takes the (height, width) in the centre, as the paper does (256 -> 224);
            what is cut off is not inspected.
        white_level: the 16-bit value that becomes 1.0; brighter values are clipped.
        tile: 0 shows the model the photo at once; else it sees squares of this many pixels of the
            photo, each resized to (height, width), and photos have one size.
        overlap: pixels of the photo that neighbouring tiles share at least.
        region: pixels to inspect; None: all of them.
        registration: brings the part to where the fit had it; None: it always lies there.
    """

    height: int
    width: int
    resize: int | None = None
    white_level: int = 65535
    tile: int = 0
    overlap: int = 0
    region: RegionOfInterest | None = None
    registration: Registration | None = None

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise SettingsError(
                f"The model's input cannot be {self.height} x {self.width}; "
                "height and width are 1 or more."
            )
        if self.resize is not None and self.resize < max(self.height, self.width):
            raise SettingsError(
                f"A crop of {self.height} x {self.width} does not fit in photos resized to "
                f"{self.resize}; resize to {max(self.height, self.width)} or more."
            )
        if not 1 <= self.white_level <= 65535:
            raise SettingsError(f"white_level must be in 1..65535, not {self.white_level}.")
        if self.tile and (self.height != self.width or not 0 <= self.overlap < self.tile):
            raise SettingsError(
                f"Tiles of {self.tile} pixels with an overlap of {self.overlap} cannot be shown at "
                f"{self.height} x {self.width}; tiles are square and overlap by less than a tile."
            )

    # --- To the model --------------------------------------------------------------------------

    def registered(self, photo: Photo) -> Photo:
        """The photo in the frame that the model knows; one that is there already, as it is."""
        return photo if self.registration is None else self.registration(photo)

    def layout(self, grid: tuple[int, int], photo_size: tuple[int, int]) -> Layout:
        """Where the patches of a photo lie.

        Args:
            grid: h, w of the patches of one run of the graph.
            photo_size: height and width of the photo; matters only to tiles and regions.

        Raises:
            SettingsError: a tile cannot be divided into the graph's cells.
            PhotoError: the photo has not the shape of the region of interest.
        """
        region = self.region.at(*photo_size) if self.region else None
        if not self.tile:
            inspected = None if region is None else cells_in(region, grid)
            return Layout.whole(grid, (self.height, self.width), inspected)
        if grid[0] != grid[1] or self.tile % grid[0]:
            raise SettingsError(
                f"the tile is {self.tile} pixels, and the model has {grid[0]} x {grid[1]} patches "
                f"of it: give a multiple of {grid[0]}, such as {-(-self.tile // grid[0]) * grid[0]}"
            )
        scale = self.tile / self.height
        return Layout.tiled(photo_size, self.tile, self.overlap, grid, scale, region)

    def __call__(self, photo: Photo) -> npt.NDArray[np.float32]:
        """The model's input, the photo at once: (3, height, width) float32 in 0..1, contiguous."""
        photo = self.registered(photo)
        inside = self.region.at(photo.height, photo.width) if self.region else None
        return self._to_input(photo.pixels, inside, self._source(photo.height, photo.width))

    def views(self, photo: Photo, layout: Layout) -> Iterator[npt.NDArray[np.float32]]:
        """The model's input for each view of a photo, one at a time: (3, height, width) each."""
        photo = self.registered(photo)
        for view in layout.views:
            yield self.view(photo, layout, view)

    def view(self, photo: Photo, layout: Layout, view: View) -> npt.NDArray[np.float32]:
        """The model's input for one view of a photo: (3, height, width) float32 in 0..1."""
        if not layout.in_tiles:
            return self(photo)
        photo = self.registered(photo)
        cell = round(layout.cell_size[0])
        rows, columns = (slice(at * cell, at * cell + self.tile) for at in (view.y, view.x))
        pixels = photo.pixels[rows, columns]
        inside = self.region.at(photo.height, photo.width)[rows, columns] if self.region else None
        below, right = self.tile - pixels.shape[0], self.tile - pixels.shape[1]
        if below or right:  # beyond the photo's edge it is mirrored
            beyond = ((0, below), (0, right), (0, 0))
            pixels = np.pad(pixels, beyond[: pixels.ndim], "symmetric")
            inside = None if inside is None else np.pad(inside, beyond[:2], "symmetric")
        return self._to_input(pixels, inside, (0.0, 0.0, float(self.tile), float(self.tile)))

    def _to_input(
        self,
        pixels: npt.NDArray[Any],
        inside: npt.NDArray[np.bool_] | None,
        source: tuple[float, float, float, float],
    ) -> npt.NDArray[np.float32]:
        """A part of (H, W) or (H, W, 3) pixels as the model's input, grey outside of a region."""

        def channel(index: int) -> npt.NDArray[Any]:
            part, grey = np.atleast_3d(pixels)[:, :, index], 128.0
            if part.dtype != np.uint8:
                part, grey = in_unit(part, self.white_level), 0.5
            return part if inside is None else np.where(inside, part, part.dtype.type(grey))

        depth = 1 if pixels.ndim == 2 else 3
        # Pillow resamples each channel by itself, so this gives the bits of one call without a copy
        # of a whole photo, of which Pillow's would have four bytes for each three.
        size = self.height, self.width
        resized = np.stack([_resampled(channel(c), *size, source) for c in range(depth)], axis=2)
        # Mono becomes RGB only here, which gives the same as before the resize for less work.
        channels = np.broadcast_to(resized, (*size, 3))
        turned = np.ascontiguousarray(channels.transpose(2, 0, 1))
        prepared: npt.NDArray[np.float32] = turned
        return prepared / np.float32(255) if turned.dtype == np.uint8 else prepared

    # --- Back to the photo ---------------------------------------------------------------------

    def geometry(self, photo_height: int, photo_width: int) -> Geometry:
        """Where the anomaly map lies in a photo of this size.

        A pixel counts as inspected when more than half of it is, along each axis.
        """
        x0, y0, x1, y1 = self._source(photo_height, photo_width)
        inspected = (_round_up(x0), _round_up(y0), _round_down(x1), _round_down(y1))
        size = (photo_height, photo_width) if self.tile else (self.height, self.width)
        return Geometry(photo_height, photo_width, *size, inspected, self.region)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return {
            **asdict(self),
            "region": self.region and self.region.to_dict(),
            "registration": self.registration and self.registration.to_dict(),
        }

    def described(self) -> dict[str, Any]:
        """The settings for people, with what a picture shows in place of the picture."""
        region, to = self.region, self.registration
        return {
            **self.to_dict(),
            "region": region and f"{region.share:.1%} of {region.width} x {region.height} pixels",
            "registration": to and f"to a good photo of {to.width} x {to.height} pixels",
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The preprocessing that to_dict described.

        Raises:
            ModelFileError: a value is missing, unknown or out of its range.
        """
        try:
            region, to = values.get("region"), values.get("registration")
            parts = {
                "region": region and RegionOfInterest.from_dict(region),
                "registration": to and Registration.from_dict(to),
            }
            return cls(**{**values, **parts})
        except (KeyError, TypeError, ValueError, SettingsError) as error:
            raise ModelFileError(
                f"The preprocessing stored in the model cannot be used: {error}"
            ) from error

    def _source(self, photo_height: int, photo_width: int) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the part of the photo that becomes the model's input."""
        if self.resize is None:
            return 0.0, 0.0, float(photo_width), float(photo_height)
        short = min(photo_height, photo_width)
        resized_height = self.resize * photo_height // short
        resized_width = self.resize * photo_width // short
        top = round((resized_height - self.height) / 2)
        left = round((resized_width - self.width) / 2)
        return (
            left * photo_width / resized_width,
            top * photo_height / resized_height,
            (left + self.width) * photo_width / resized_width,
            (top + self.height) * photo_height / resized_height,
        )


@dataclass(frozen=True)
class Geometry:
    """The way from the anomaly map back to the pixels of a photo.

    Attributes:
        photo_height: height of the photo.
        photo_width: width of the photo.
        height: height of the map: that of the model's input, or of a photo in tiles.
        width: width of the map.
        inspected: the part of the photo that the model sees, in pixels of the photo.
        region: what of it is inspected; None: all of it.
    """

    photo_height: int
    photo_width: int
    height: int
    width: int
    inspected: Box
    region: RegionOfInterest | None = None

    def map_to_photo(self, anomaly_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring a (height, width) map to (photo_height, photo_width) float32.

        Bilinear between the centres of pixels, within the smallest and largest value of the map;
        NaN outside the inspected part.
        """
        if anomaly_map.shape != (self.height, self.width):
            raise ValueError(f"map of shape {anomaly_map.shape}, not {(self.height, self.width)}")
        photo_map = self._resized(anomaly_map.astype(np.float32, copy=False))
        if self.region is not None:
            mask = self.region.at(self.photo_height, self.photo_width)
            photo_map = photo_map.copy() if photo_map is anomaly_map else photo_map
            np.copyto(photo_map, np.float32(np.nan), where=~mask)
        return photo_map

    def _resized(self, anomaly_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if anomaly_map.shape == (self.photo_height, self.photo_width) and self.inspected == (
            0, 0, self.photo_width, self.photo_height,
        ):  # fmt: skip
            return anomaly_map
        x0, y0, x1, y1 = self.inspected
        photo_map = np.full((self.photo_height, self.photo_width), np.nan, dtype=np.float32)
        # Pillow sums in float64, whose rounding float32 does not see: no value leaves the range.
        _enlarge(anomaly_map, photo_map[y0:y1, x0:x1])
        return photo_map

    def box_to_photo(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        """Bring a box in pixels of the model's input to pixels of the photo.

        The box is rounded outward, clipped to the inspected part, and at least 1 x 1.
        """
        left, top, right, bottom = self.inspected
        photo_x0, photo_x1 = _scaled_interval(x0, x1, self.width, left, right)
        photo_y0, photo_y1 = _scaled_interval(y0, y1, self.height, top, bottom)
        return photo_x0, photo_y0, photo_x1, photo_y1


def _scaled_interval(
    start: float, stop: float, length: int, low: int, high: int
) -> tuple[int, int]:
    """Map start..stop within 0..length onto low..high, outward to whole pixels."""
    first = math.floor(low + start * (high - low) / length)
    last = math.ceil(low + stop * (high - low) / length)
    first = min(max(first, low), high - 1)
    return first, min(max(last, first + 1), high)


def _round_up(value: float) -> int:
    """To the nearest whole number, halves upward."""
    return math.floor(value + 0.5)


def _round_down(value: float) -> int:
    """To the nearest whole number, halves downward."""
    return math.ceil(value - 0.5)


def _enlarge(small: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    """Resize an (h, w) map to an (H, W) one, in strips where that is large.

    Bilinear between a few values is the same, but for float32's last bit, whichever axis is first.
    """
    height, width = out.shape
    tall = len(small)
    whole = (0.0, 0.0, float(small.shape[1]), float(tall))
    if out.size <= _STRIP:
        out[:] = _resampled(small, height, width, whole)
        return
    across = _resampled(small, tall, width, whole)
    columns = max(1, _STRIP // height)
    for left in range(0, width, columns):
        strip = across[:, left : left + columns]
        box = (0.0, 0.0, float(strip.shape[1]), float(tall))
        out[:, left : left + columns] = _resampled(strip, height, strip.shape[1], box)


def _resampled(
    pixels: npt.NDArray[Any], height: int, width: int, source: tuple[float, float, float, float]
) -> npt.NDArray[Any]:
    """Resize the source box of an (H, W) array, uint8 or float32, to (height, width)."""
    pixels = np.ascontiguousarray(pixels)
    if pixels.dtype == np.uint8:  # seen by Pillow where it is
        size = pixels.shape[1], pixels.shape[0]
        image = Image.frombuffer("L", size, pixels, "raw", "L", 0, 1)
    else:
        image = Image.fromarray(pixels)
    return np.asarray(image.resize((width, height), _BILINEAR, box=source))
