"""The region of interest: which pixels of a photo are inspected.

What lies outside cannot change a verdict: its pixels are blanked before the network sees them, its
patches are in no bank and no score, and its map is NaN.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reconpatch.errors import PhotoError, SettingsError
from reconpatch.photos.images import MAX_PIXELS
from reconpatch.photos.masks import read_white

Bools = npt.NDArray[np.bool_]

_ASPECT_SLACK = 0.02
"""Share by which a photo's aspect ratio may differ from the region's."""


@dataclass(frozen=True)
class RegionOfInterest:
    """Pixels to inspect, drawn on a photo of one size and scaled to others of the same shape.

    Attributes:
        height, width: of the photo that it was drawn on, in pixels.
        png: the region as a PNG of one bit a pixel, set where a photo is inspected.
    """

    height: int
    width: int
    png: bytes

    @classmethod
    def of(cls, mask: Bools) -> Self:
        """The region of an (H, W) bool mask, True where a photo is inspected.

        Raises:
            SettingsError: nothing is to be inspected.
        """
        if mask.ndim != 2 or not mask.any():
            raise SettingsError(
                f"the region of interest has no pixel to inspect (shape {mask.shape}): give a "
                "picture that is white where photos are inspected, or polygons that enclose pixels"
            )
        buffer = io.BytesIO()
        Image.fromarray(mask).save(buffer, "PNG")
        return cls(mask.shape[0], mask.shape[1], buffer.getvalue())

    @classmethod
    def read(cls, path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Self:
        """The region in a file.

        A picture, read as masks are (white, or above half of it, is inspected; what is transparent
        is black), or a JSON file of polygons in pixels of a photo:
        `{"size": [WIDTH, HEIGHT], "inspect": [[[x, y], ...], ...], "ignore": [...]}`.
        Without "inspect" all is inspected but what is ignored.

        Raises:
            SettingsError: the file is missing or of another kind.
        """
        path = Path(path)
        try:
            if path.suffix.lower() == ".json":
                return cls.of(_drawn(json.loads(path.read_text()), path, max_pixels))
            return cls.of(read_white(path, max_pixels=max_pixels))
        except SettingsError:
            raise
        except (OSError, ValueError, RecursionError, PhotoError) as error:
            raise SettingsError(
                f"the region of interest {path} cannot be read ({error}): give a picture that is "
                "white where photos are inspected, or a JSON file of polygons"
            ) from error

    def at(self, height: int, width: int) -> Bools:
        """(height, width) bool, the region in pixels of a photo of that size; not to be changed.

        Raises:
            PhotoError: the photo has another shape than the one that the region was drawn on.
        """
        ratio = (height * self.width) / (width * self.height)
        if abs(ratio - 1) > _ASPECT_SLACK:
            raise PhotoError(
                f"a photo of {width} x {height} pixels (width x height) does not fit the model's "
                f"region of interest, which was drawn on {self.width} x {self.height}: give photos "
                "of that shape, or fit a model with another region"
            )
        return _scaled(self, height, width)

    @property
    def share(self) -> float:
        """The share of a photo that is inspected, 0 to 1."""
        return float(self.at(self.height, self.width).mean())

    def to_dict(self) -> dict[str, Any]:
        """The region as JSON-ready values."""
        png = base64.b64encode(self.png).decode()
        return {"height": self.height, "width": self.width, "png": png}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The region that `to_dict` gave; ValueError if it is damaged."""
        region = cls(int(values["height"]), int(values["width"]), base64.b64decode(values["png"]))
        try:
            empty = not region.at(region.height, region.width).any()
        except (OSError, Image.DecompressionBombError, SyntaxError) as error:
            raise ValueError(f"its region of interest is damaged: {error}") from error
        if empty:
            raise ValueError("its region of interest is empty")
        return region


@lru_cache(maxsize=4)
def _scaled(region: RegionOfInterest, height: int, width: int) -> Bools:
    with Image.open(io.BytesIO(region.png), formats=("PNG",)) as stored:
        image: Image.Image = stored
        if image.size != (region.width, region.height):
            raise ValueError("the region of interest is of another size than it says")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.NEAREST)
        mask = np.asarray(image).astype(np.bool_)
    mask.flags.writeable = False
    return mask


def _drawn(record: Any, path: Path, max_pixels: int) -> Bools:
    """Polygons as a mask."""
    known = {"size", "inspect", "ignore"}
    if not isinstance(record, dict) or "size" not in record or set(record) - known:
        raise SettingsError(
            f"{path} does not describe a region of interest: give an object with size, [width, "
            "height], and inspect or ignore or both, each a list of polygons [[x, y], ...]"
        )
    try:
        width, height = (int(side) for side in record["size"])
        if width * height > max_pixels:
            raise ValueError(f"{width} x {height} pixels are over the limit of {max_pixels:,}")
        image = Image.new("1", (width, height), color="inspect" not in record)
        draw = ImageDraw.Draw(image)
        for name, inside in (("inspect", 1), ("ignore", 0)):
            for polygon in record.get(name, ()):
                draw.polygon([(float(x), float(y)) for x, y in polygon], fill=inside)
    except (TypeError, ValueError, MemoryError) as error:
        raise SettingsError(
            f"{path} has a polygon or size that cannot be drawn ({error}): a size is [width, "
            "height] and a polygon [[x, y], [x, y], [x, y], ...] in pixels"
        ) from error
    return np.asarray(image).astype(np.bool_)
