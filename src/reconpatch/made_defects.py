"""Defects made on good photos: to choose between models and to estimate, never to train.

A fit has no defective photo. What it can do is damage its own good photos in ways that belong to
no product in particular, from barely visible to obvious, and see how many of them it would catch.

Each defect lives in a window of the photo and has a coverage there, 0 to 1: what of a pixel is
taken from the damaged window. It is 0 beyond the soft edge, so a defect changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from reconpatch.errors import PhotoError, SettingsError

Kind = Literal["paste", "scratch", "spot", "smear", "warp"]
"""What a made defect looks like.

- paste: an ellipse or rectangle from another place, of this photo or another, turned by any angle.
- scratch: a thin, slightly bent line, brighter or darker than what it crosses.
- spot: a blob, darker, brighter or, on photos in colour, tinted; more or less opaque.
- smear: texture lost to blur.
- warp: texture pulled to one side.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

SIZES: dict[Kind, tuple[float, float]] = {
    "paste": (0.03, 0.3),
    "scratch": (0.08, 0.6),
    "spot": (0.03, 0.25),
    "smear": (0.06, 0.3),
    "warp": (0.06, 0.3),
}
"""Smallest and largest size, as shares of the photo's shorter side: the length of a scratch, else
the mean diameter. On tiny photos a defect is 3 pixels at least."""

STRENGTHS: dict[Kind, tuple[float, float]] = {
    "paste": (0.4, 1.0),
    "scratch": (1.0, 6.0),
    "spot": (0.8, 5.0),
    "smear": (0.15, 0.5),
    "warp": (0.15, 0.4),
}
"""Weakest and strongest: opacity of a paste; change of level of a scratch or a spot, in local
contrasts; standard deviation of a smear's blur and pull of a warp, in diameters."""

SCRATCH_WIDTH = 0.02
"""The widest scratch, as a share of the shorter side; the thinnest is 1 pixel."""

SMALLEST_SIDE = 8
"""Pixels that a photo's shorter side must have."""

# Levels change by multiples of the local contrast, the standard deviation of the grey levels around
# the place. On a flat background it is taken as this share of what varies over the whole photo, and
# as this many levels at least; on the part's own outline, as this many at most.
_FLAT_SHARE = 0.1
_CONTRAST_LEVELS = (5.0, 32.0)

# A defect differs when its pixels change by this many levels, root mean square; one that is made of
# the photo's own texture also by this share of the local contrast, or nobody would see it.
_LEAST_LEVELS = 2.0
_LEAST_SHARE = 1 / 3
_TRIES = 16

# The smallest diameter in pixels: its middle pixel is fully covered.
_LEAST_DIAMETER = 3.0

RGB = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MadeDefect:
    """A good photo with one defect.

    Attributes:
        pixels: (H, W, 3) uint8.
        mask: (H, W) bool, where the defect is, its soft edge included: all else is as it was.
        kind: what was made; a spot where the kind asked for would have changed nothing.
        size: as a share of the photo's shorter side, as `SIZES`.
        strength: in the unit of `STRENGTHS`.
    """

    pixels: RGB
    mask: npt.NDArray[np.bool_]
    kind: Kind
    size: float
    strength: float


def made_defects(photos: Iterable[RGB], seed: int) -> Iterator[MadeDefect]:
    """One defect on each photo, the kinds in turn, photo by photo.

    A defect follows from the seed, the photo's place in the order, the photo and the one before it
    (from which half of the pastes come): photos appended later change none.

    Args:
        photos: each (H, W, 3) uint8, of any sizes; read one at a time.
        seed: 0 or more.

    Raises:
        PhotoError: as `make_defect`.
        SettingsError: the seed is negative.
    """
    if seed < 0:
        raise SettingsError(f"the seed is {seed}: give a whole number, 0 or more")
    before: RGB | None = None
    for index, photo in enumerate(photos):
        rng = np.random.default_rng([seed, index])
        donor = photo if before is None or rng.random() < 0.5 else before
        yield make_defect(photo, donor, KINDS[index % len(KINDS)], rng)
        before = photo


def make_defect(pixels: RGB, donor: RGB, kind: Kind, rng: np.random.Generator) -> MadeDefect:
    """Make one defect anywhere on a good photo, its size and strength drawn log-uniformly.

    Where it would not show (flat texture smeared is as flat), size, strength and place are drawn
    again a few times; after that the defect is a spot, which shows everywhere.

    Args:
        pixels: (H, W, 3) uint8, sides of 8 pixels or more; it is not changed.
        donor: (H, W, 3) uint8 of any size from 8 pixels, what a paste is cut from: the same photo
            or another good one.
        kind: one of `KINDS`.
        rng: what is drawn comes from here.

    Raises:
        PhotoError: a photo is of another shape or type, or too small.
        SettingsError: the kind is unknown.
    """
    _check_photo("pixels", pixels)
    _check_photo("donor", donor)
    if kind not in KINDS:
        raise SettingsError(f"the kind of defect is {kind!r}: give one of {', '.join(KINDS)}")
    look = _Look.of(pixels)
    tries: list[Kind] = [kind] * _TRIES + ["spot"] * _TRIES
    for tried in tries:
        size, strength = _log_uniform(rng, *SIZES[tried]), _log_uniform(rng, *STRENGTHS[tried])
        made = _made(pixels, donor, look, tried, size, strength, rng)
        if _differs(pixels, made, look):
            return made
    return _made(pixels, donor, look, "spot", SIZES["spot"][1], STRENGTHS["spot"][1], rng)


@dataclass(frozen=True)
class _Look:
    """What of a photo decides how a defect must look on it.

    Attributes:
        least_contrast: in grey levels, what a flat background counts as.
        coloured: whether any pixel is not grey: a spot on photos of a grey camera has no tint.
    """

    least_contrast: float
    coloured: bool

    @classmethod
    def of(cls, pixels: RGB) -> _Look:
        step = -(-min(pixels.shape[:2]) // 256)  # a glance is enough: at most about 256 rows
        glance = pixels[::step, ::step]
        return cls(
            least_contrast=_FLAT_SHARE * float(glance.mean(axis=2).std()),
            coloured=bool(np.ptp(glance, axis=2).any()),
        )

    def contrast(self, part: npt.NDArray[np.uint8] | Floats) -> float:
        """The local contrast of an (h, w, 3) part of the photo, in grey levels."""
        local = max(float(part.mean(axis=2).std()), self.least_contrast)
        return float(np.clip(local, *_CONTRAST_LEVELS))


@dataclass(frozen=True)
class _Window:
    """The part of a photo around a defect's middle, cut off at the photo's edges.

    Attributes:
        rows, columns: where it is, h rows and w columns.
        dy, dx: (h, w) float64, pixels from the middle.
    """

    rows: slice
    columns: slice
    dy: Floats
    dx: Floats

    def of(self, pixels: RGB) -> Floats:
        """(h, w, 3) float64."""
        return pixels[self.rows, self.columns].astype(np.float64)


@dataclass(frozen=True)
class _Task:
    """All that a kind of defect needs to know.

    Attributes:
        pixels, donor: the photos.
        look: of the photo.
        y, x: the middle of the defect, a pixel of the photo.
        size: in pixels.
        strength: in the unit of `STRENGTHS`.
    """

    pixels: RGB
    donor: RGB
    look: _Look
    y: int
    x: int
    size: float
    strength: float

    def window(self, reach: float) -> _Window:
        """What lies within so many pixels of the middle."""
        height, width = self.pixels.shape[:2]
        far = int(np.ceil(reach)) + 1
        rows = slice(max(self.y - far, 0), min(self.y + far + 1, height))
        columns = slice(max(self.x - far, 0), min(self.x + far + 1, width))
        dy, dx = np.mgrid[rows, columns].astype(np.float64)
        return _Window(rows, columns, dy - self.y, dx - self.x)


Damage = tuple[_Window, Floats, Floats]
"""A window, its (h, w) coverage in 0 to 1, and its (h, w, 3) damaged levels, not yet clipped."""


def _made(
    pixels: RGB,
    donor: RGB,
    look: _Look,
    kind: Kind,
    size: float,
    strength: float,
    rng: np.random.Generator,
) -> MadeDefect:
    """The defect of this kind, size and strength, anywhere on the photo."""
    height, width = pixels.shape[:2]
    y, x = int(rng.integers(height)), int(rng.integers(width))
    diameter = max(size * min(height, width), _LEAST_DIAMETER)
    task = _Task(pixels, donor, look, y, x, diameter, strength)
    window, coverage, damaged = _MAKERS[kind](task, rng)
    good = window.of(pixels)
    mixed = good + coverage[:, :, None] * (damaged.clip(0, 255) - good)
    made, mask = pixels.copy(), np.zeros((height, width), dtype=np.bool_)
    made[window.rows, window.columns] = np.rint(mixed)
    mask[window.rows, window.columns] = coverage > 0
    return MadeDefect(made, mask, kind, size, strength)


def _differs(pixels: RGB, made: MadeDefect, look: _Look) -> bool:
    """Whether the defect can be seen: barely will do."""
    box = _box_of(made.mask)
    good, mask = pixels[box], made.mask[box].astype(np.float64)
    change = made.pixels[box].astype(np.float64) - good
    least = _LEAST_LEVELS
    if made.kind in ("paste", "smear", "warp"):
        least = max(least, _LEAST_SHARE * look.contrast(good))
    if made.kind in ("paste", "warp"):
        # Grain in another place changes every pixel and shows nowhere: only what is left of the
        # change in means over a third of the defect counts.
        side = max(min(mask.shape) // 3, 1)
        change, mask = _block_means(change, side), _block_means(mask[:, :, None], side)[:, :, 0]
    most_changed = np.abs(change).max(axis=2)
    return bool(np.sum(most_changed**2) >= least**2 * mask.sum())


def _box_of(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and columns from the first to the last that the mask marks."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _block_means(values: Floats, side: int) -> Floats:
    """(h, w, C) as (ceil(h / side), ceil(w / side), C) means of blocks, zeros beyond the edge."""
    height, width, channels = values.shape
    padded = np.pad(values, ((0, -height % side), (0, -width % side), (0, 0)))
    blocks = padded.reshape(-(-height // side), side, -(-width // side), side, channels)
    means: Floats = blocks.mean(axis=(1, 3))
    return means


# --- The kinds ------------------------------------------------------------------------------------


def _paste(task: _Task, rng: np.random.Generator) -> Damage:
    outline = _Outline.draw(task.size, rng, square=rng.random() < 0.5)
    window = task.window(outline.reach)
    height, width = task.donor.shape[:2]
    # A quarter of the side away at least, round the edge: photos of one product are often aligned,
    # and what is cut from the same place of another one is no defect.
    away_y, away_x = rng.uniform(0.25, 0.75, 2)
    y = _inside((task.y / task.pixels.shape[0] + away_y) % 1 * height, outline.reach, height)
    x = _inside((task.x / task.pixels.shape[1] + away_x) % 1 * width, outline.reach, width)
    across, along = _turned(window.dy, window.dx, rng.uniform(0, 2 * np.pi))
    coverage = task.strength * outline.coverage(window, rng.uniform(0.1, 0.4))
    return window, coverage, _sampled(task.donor, y + across, x + along)


def _scratch(task: _Task, rng: np.random.Generator) -> Damage:
    window = task.window(task.size)
    widest = max(SCRATCH_WIDTH * min(task.pixels.shape[:2]), 1.0)
    width = _log_uniform(rng, 1.0, widest)
    across, along = _turned(window.dy, window.dx, rng.uniform(0, 2 * np.pi))
    # A parabola through the middle, as a chain of 16 straight pieces.
    t = np.linspace(-1, 1, 17)
    bend = rng.uniform(-0.15, 0.15) * task.size
    distance = _distance_to_chain(across, along, bend * t**2, task.size / 2 * t)
    coverage = np.clip(width / 2 + 0.5 - distance, 0, 1)
    good = window.of(task.pixels)
    step = _step(task, good, coverage, np.full(3, rng.choice([-1.0, 1.0])))
    return window, coverage, good + step


def _spot(task: _Task, rng: np.random.Generator) -> Damage:
    outline = _Outline.draw(task.size, rng, square=False)
    window = task.window(outline.reach)
    coverage = outline.coverage(window, rng.uniform(0.1, 0.6))
    direction = np.full(3, rng.choice([-1.0, 1.0]))
    if task.look.coloured and rng.random() < 0.5:
        direction = direction / 2 + rng.uniform(-0.5, 0.5, 3)
    good = window.of(task.pixels)
    flat = np.average(good, axis=(0, 1), weights=np.broadcast_to(coverage[:, :, None], good.shape))
    opacity = rng.uniform()
    step = _step(task, good, coverage, direction)
    return window, coverage, good + opacity * (flat - good) + step


def _smear(task: _Task, rng: np.random.Generator) -> Damage:
    outline = _Outline.draw(task.size, rng, square=False)
    blur = max(task.strength * task.size, 0.5)
    window = task.window(outline.reach + 3 * blur)  # so that blurred pixels have neighbours
    good = Image.fromarray(task.pixels[window.rows, window.columns])
    blurred = np.asarray(good.filter(ImageFilter.GaussianBlur(blur)), np.float64)
    return window, outline.coverage(window, rng.uniform(0.2, 0.6)), blurred


def _warp(task: _Task, rng: np.random.Generator) -> Damage:
    outline = _Outline.draw(task.size, rng, square=False)
    window = task.window(outline.reach)
    radius = outline.radius(window)
    # Its steepest slope, 1.54 per radius, times the widest pull, 0.6 radii, stays below 1 where the
    # outline is round: texture is stretched and squeezed, but not folded.
    pull = task.strength * task.size * np.clip(1 - radius**2, 0, None) ** 2
    angle = rng.uniform(0, 2 * np.pi)
    y, x = task.y + window.dy + pull * np.sin(angle), task.x + window.dx + pull * np.cos(angle)
    return window, (radius < 1).astype(np.float64), _sampled(task.pixels, y, x)


_MAKERS: dict[Kind, Callable[[_Task, np.random.Generator], Damage]] = {
    "paste": _paste,
    "scratch": _scratch,
    "spot": _spot,
    "smear": _smear,
    "warp": _warp,
}


# --- Shapes, levels and places --------------------------------------------------------------------


@dataclass(frozen=True)
class _Outline:
    """An ellipse, or a rectangle with rounded corners.

    Attributes:
        across, along: half axes in pixels.
        angle: of the long axis, in radians.
        power: 2 for an ellipse, more for squarer corners.
    """

    across: float
    along: float
    angle: float
    power: float

    @classmethod
    def draw(cls, diameter: float, rng: np.random.Generator, *, square: bool) -> _Outline:
        """One of this mean diameter, up to twice as long as wide, turned by any angle."""
        stretch = np.sqrt(_log_uniform(rng, 1.0, 2.0))
        return cls(
            across=diameter / 2 / stretch,
            along=diameter / 2 * stretch,
            angle=rng.uniform(0, np.pi),
            power=8.0 if square else 2.0,
        )

    @property
    def reach(self) -> float:
        """Pixels from the middle beyond which nothing is covered."""
        return float(np.hypot(self.across, self.along)) if self.power > 2 else self.along

    def radius(self, window: _Window) -> Floats:
        """(h, w) 0 in the middle, 1 on the outline."""
        across, along = _turned(window.dy, window.dx, self.angle)
        sides = (
            np.abs(across / self.across) ** self.power + np.abs(along / self.along) ** self.power
        )
        radius: Floats = sides ** (1 / self.power)
        return radius

    def coverage(self, window: _Window, softness: float) -> Floats:
        """(h, w) from 1 within to 0 on the outline, over an edge of this share of the radius."""
        return _smooth_step((1 - self.radius(window)) / softness)


def _smooth_step(t: Floats) -> Floats:
    """From 0 at 0 to 1 at 1, level at both."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _turned(dy: Floats, dx: Floats, angle: float) -> tuple[Floats, Floats]:
    """Offsets in axes turned by an angle."""
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * dy - sin * dx, sin * dy + cos * dx


def _distance_to_chain(y: Floats, x: Floats, corners_y: Floats, corners_x: Floats) -> Floats:
    """(h, w) distance of (h, w) points to the nearest of the straight pieces between corners."""
    nearest = np.full(y.shape, np.inf)
    for i in range(len(corners_y) - 1):
        to_y, to_x = corners_y[i + 1] - corners_y[i], corners_x[i + 1] - corners_x[i]
        dy, dx = y - corners_y[i], x - corners_x[i]
        share = np.clip((dy * to_y + dx * to_x) / (to_y**2 + to_x**2), 0, 1)
        nearest = np.minimum(nearest, np.hypot(dy - share * to_y, dx - share * to_x))
    return nearest


def _step(task: _Task, good: Floats, coverage: Floats, direction: Floats) -> Floats:
    """(3,) levels to add: strength times local contrast, turned round where there is more room."""
    step: Floats = task.strength * task.look.contrast(good) * direction
    level = good[coverage > 0].mean(axis=0)
    up, down = (np.abs((level + s).clip(0, 255) - level).sum() for s in (step, -step))
    return -step if down > up else step


def _sampled(pixels: RGB, y: Floats, x: Floats) -> Floats:
    """(h, w, 3) the photo at fractional places, bilinear; beyond its edge, what is on the edge."""
    height, width = pixels.shape[:2]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (y - top)[:, :, None], (x - left)[:, :, None]
    upper = (1 - across) * pixels[top, left] + across * pixels[top, right]
    lower = (1 - across) * pixels[bottom, left] + across * pixels[bottom, right]
    sampled: Floats = (1 - down) * upper + down * lower
    return sampled


def _inside(place: float, reach: float, side: int) -> float:
    """The place moved so that what is within reach lies on the photo; its middle if too small."""
    reach = min(reach, (side - 1) / 2)
    return float(np.clip(place, reach, side - 1 - reach))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _check_photo(name: str, pixels: RGB) -> None:
    """Refuse what is no colour photo of 8 bits, or too small for a defect."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise PhotoError(
            f"{name} is an array of shape {pixels.shape} and type {pixels.dtype}: give (H, W, 3) "
            "uint8; three equal channels for a grey photo"
        )
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        raise PhotoError(
            f"{name} is {pixels.shape[1]} x {pixels.shape[0]} pixels: a defect needs a photo of "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE} at least"
        )
