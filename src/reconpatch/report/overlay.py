"""The anomaly map as colours: one fixed scale tied to the threshold, the same for every photo."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reconpatch.errors import PhotoError, SettingsError
from reconpatch.result import Box, Region

TRANSPARENT_BELOW = 0.75
"""Share of the threshold below which nothing is painted, so that good photos do not glow."""

SATURATED_AT = 2.0
"""Multiple of the threshold from which on the colour stays the same."""

# Multiple of the threshold, then red, green, blue, alpha. Lightness falls from the first to the
# last, so the order can be read without telling the hues apart.
_STOPS = (
    (TRANSPARENT_BELOW, 255, 225, 40, 0),
    (1.0, 255, 225, 40, 165),
    (1.3, 255, 150, 20, 190),
    (1.6, 228, 60, 20, 205),
    (SATURATED_AT, 140, 0, 25, 220),
)
_STRIP = 2**21  # pixels that are painted at a time
# 255 steps from 0.75 to 2 put the threshold itself exactly on step 51.
_STEPS = 256
_NOT_INSPECTED = (150, 150, 150, 185)
_HATCH = (55, 55, 55, 225)
_DARK, _LIGHT = (20, 20, 20), (255, 255, 255)


def colourise(heatmap: npt.NDArray[np.float32], map_threshold: float) -> npt.NDArray[np.uint8]:
    """Paints an anomaly map on the fixed colour scale.

    Transparent below 0.75 x threshold, yellow at the threshold, deep red at 2 x threshold and
    beyond. Equal values get equal colours in every photo.

    Args:
        heatmap: (H, W) float32 anomaly map, NaN where the photo was not inspected.
        map_threshold: value of the map above which a pixel is anomalous, finite, 0 or more.

    Returns:
        (H, W, 4) uint8 RGBA; grey with diagonal hatching where the map is NaN.

    Raises:
        SettingsError: the threshold is negative or not finite.
    """
    painted = np.empty((*heatmap.shape, 4), np.uint8)
    for rows in _strips(heatmap):
        painted[rows] = _painted(heatmap, rows, map_threshold)
    return painted


def _painted(
    heatmap: npt.NDArray[np.float32], rows: slice, map_threshold: float
) -> npt.NDArray[np.uint8]:
    """Some rows of `colourise`."""
    part = heatmap[rows]
    not_inspected = np.isnan(part)
    painted = _scale()[_steps(np.where(not_inspected, 0, part), map_threshold)]
    if not_inspected.any():
        hatched = _hatching(heatmap.shape[0], heatmap.shape[1], rows)
        painted[not_inspected] = _NOT_INSPECTED
        painted[not_inspected & hatched] = _HATCH
    return painted


def _strips(heatmap: npt.NDArray[np.float32]) -> Iterator[slice]:
    """Rows of a map that are painted at a time: colours take several times its memory."""
    rows = max(1, _STRIP // max(1, heatmap.shape[1]))
    return (slice(top, top + rows) for top in range(0, len(heatmap), rows))


def overlay(
    rgb: npt.NDArray[np.uint8],
    heatmap: npt.NDArray[np.float32],
    map_threshold: float,
    regions: Sequence[Region] = (),
) -> Image.Image:
    """Lays the colours of an anomaly map over its photo and frames the regions.

    Args:
        rgb: (H, W, 3) uint8 photo.
        heatmap: (H, W) float32 anomaly map, NaN where the photo was not inspected.
        map_threshold: value of the map above which a pixel is anomalous, finite, 0 or more.
        regions: areas to frame, in pixels of the photo.

    Returns:
        An RGB image of the photo's size; unpainted pixels are those of the photo.

    Raises:
        PhotoError: the photo is not (H, W, 3) uint8, or photo and map differ in size.
        SettingsError: the threshold is negative or not finite.
    """
    _check_sizes(rgb, heatmap)
    image = Image.new("RGB", (rgb.shape[1], rgb.shape[0]))
    for rows in _strips(heatmap):
        image.paste(_laid_over(rgb[rows], _painted(heatmap, rows, map_threshold)), (0, rows.start))
    for region in reversed(regions):
        outline(image, region.box)
    return image


def _laid_over(rgb: npt.NDArray[np.uint8], painted: npt.NDArray[np.uint8]) -> Image.Image:
    """(H, W, 4) colours over an (H, W, 3) photo."""
    opacity = Image.fromarray(painted[..., 3])
    photo = Image.fromarray(rgb)
    # Colour drains from the photo where it is painted, so that yellow on a yellow part still shows.
    muted = Image.composite(
        photo.convert("L").convert("RGB"),
        photo,
        opacity.point([min(255, 2 * a) for a in range(256)]),
    )
    return Image.composite(Image.fromarray(painted[..., :3].copy()), muted, opacity)


def outline(image: Image.Image, box: Box, line: int | None = None) -> None:
    """Frames a box with a dark and a light line, visible on any photo.

    The frame lies just outside the box where the image has room for it.

    Args:
        image: an RGB image, drawn on in place.
        box: x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive.
        line: width of each line in pixels; by default a 300th of the image's longer side.
    """
    line = line or max(1, round(max(image.size) / 300))
    x0, y0, x1, y1 = box
    frame = (
        max(0, x0 - 2 * line),
        max(0, y0 - 2 * line),
        min(image.width, x1 + 2 * line) - 1,
        min(image.height, y1 + 2 * line) - 1,
    )
    draw = ImageDraw.Draw(image)
    for colour, inset in ((_DARK, 0), (_LIGHT, line)):
        left, top, right, bottom = (
            *(v + inset for v in frame[:2]),
            *(v - inset for v in frame[2:]),
        )
        if left <= right and top <= bottom:
            draw.rectangle((left, top, right, bottom), outline=colour, width=line)


def css_gradient() -> str:
    """The colour scale from 0 to 2 x threshold, left to right, as a CSS ``linear-gradient``.

    The threshold sits at 50 %; the transparent part shows what lies beneath.
    """
    values = np.linspace(0.0, SATURATED_AT, 41, dtype=np.float32)
    stops = (
        f"rgba({red},{green},{blue},{alpha / 255:.3f}) {100 * value / SATURATED_AT:g}%"
        for value, (red, green, blue, alpha) in zip(
            values.tolist(), colourise(values[None], 1.0)[0].tolist(), strict=True
        )
    )
    return f"linear-gradient(to right,{','.join(stops)})"


@lru_cache(maxsize=1)
def _scale() -> npt.NDArray[np.uint8]:
    """(256, 4) RGBA colours from 0.75 to 2 x threshold."""
    at, *channels = np.array(_STOPS, dtype=np.float64).T
    values = np.linspace(TRANSPARENT_BELOW, SATURATED_AT, _STEPS)
    scale = np.empty((_STEPS, 4), dtype=np.uint8)
    for i, channel in enumerate(channels):
        scale[:, i] = np.rint(np.interp(values, at, channel))
    return scale


def _steps(heatmap: npt.NDArray[np.float32], map_threshold: float) -> npt.NDArray[np.uint8]:
    """Row of the colour scale for each pixel of a map without NaN."""
    if not (math.isfinite(map_threshold) and map_threshold >= 0):
        raise SettingsError(
            f"The map threshold is {map_threshold}; it has to be a finite number, 0 or more."
        )
    # A threshold of 0 still orders the map: 0 is transparent, anything above is saturated.
    unit = np.float32(max(map_threshold, float(np.finfo(np.float32).tiny)))
    with np.errstate(over="ignore"):
        relative = np.clip(heatmap / unit, TRANSPARENT_BELOW, SATURATED_AT)
    share = (relative - TRANSPARENT_BELOW) / (SATURATED_AT - TRANSPARENT_BELOW)
    steps: npt.NDArray[np.uint8] = np.rint(share * (_STEPS - 1)).astype(np.uint8)
    return steps


def _hatching(height: int, width: int, rows: slice) -> npt.NDArray[np.bool_]:
    """Some rows of diagonal lines, few enough (24 along the longer side) to survive in copies."""
    period = max(6, round(max(height, width) / 24))
    diagonal = np.arange(height)[rows, None] + np.arange(width)[None, :]
    return diagonal % period < period // 4


def _check_sizes(rgb: npt.NDArray[np.uint8], heatmap: npt.NDArray[np.float32]) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise PhotoError(
            f"The photo is an array of shape {rgb.shape} and type {rgb.dtype}; "
            "give (height, width, 3) of type uint8."
        )
    if heatmap.shape != rgb.shape[:2]:
        raise PhotoError(
            f"The anomaly map has the shape {heatmap.shape} and the photo {rgb.shape[:2]}; "
            "give the map in the pixels of its photo."
        )
