"""Where an operator drew a defect: strokes of a round brush on the photo, and their mask."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reconpatch.errors import SettingsError

MOST_STROKES, MOST_POINTS = 200, 2_000
"""Of a drawing, the points of all strokes together: it is part of its record."""


@dataclass(frozen=True)
class Stroke:
    """A line of a round brush.

    Attributes:
        width: of the brush, in pixels of the photo.
        points: x, y of its corners, in pixels of the photo; a single one is a dot.
    """

    width: float
    points: tuple[tuple[float, float], ...]


def checked(strokes: Iterable[Stroke], height: int, width: int) -> tuple[Stroke, ...] | None:
    """Strokes on a photo of so many pixels, rounded to tenths; None where there is none.

    Raises:
        SettingsError: there are too many, or they lie beside the photo.
    """
    given = tuple(strokes)
    if not given:
        return None
    points = [point for stroke in given for point in stroke.points]
    values = [value for point in points for value in point] + [stroke.width for stroke in given]
    empty = not all(stroke.points for stroke in given)
    if empty or len(given) > MOST_STROKES or len(points) > MOST_POINTS:
        raise SettingsError(
            f"a drawing has up to {MOST_STROKES} strokes of 1 or more points, {MOST_POINTS:,} "
            f"together, and this one has {len(given)} of {len(points):,}: give fewer strokes and "
            "points, and none without a point"
        )
    within = any(0 <= x < width and 0 <= y < height for x, y in points)
    longest = 4 * max(height, width)
    if not (within and all(map(math.isfinite, values)) and max(map(abs, values)) <= longest):
        raise SettingsError(
            f"the drawing lies beside the photo, which has {width} x {height} pixels: give points "
            "on it"
        )
    if min(stroke.width for stroke in given) < 1:
        raise SettingsError("a stroke of the drawing is thinner than a pixel: give 1 or more")
    return tuple(
        Stroke(round(s.width, 1), tuple((round(x, 1), round(y, 1)) for x, y in s.points))
        for s in given
    )


def mask(strokes: Iterable[Stroke], height: int, width: int) -> npt.NDArray[np.bool_]:
    """(height, width) bool: what the strokes cover."""
    image = Image.new("1", (width, height))
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        r = stroke.width / 2
        pen.line(stroke.points, fill=1, width=max(1, round(stroke.width)))
        for x, y in stroke.points:  # round ends and joints
            pen.ellipse((x - r, y - r, x + r, y + r), fill=1)
    return np.asarray(image, dtype=np.bool_)
