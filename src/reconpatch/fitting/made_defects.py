"""Make defects on good photos: f learns from some kinds, others judge what it learned.

A fit has no defective photo. What it can do is damage its own good photos in ways that belong to
no product in particular, from barely visible to obvious, and see how many of them it would catch.
That says little about kinds that f learned from, so the kinds that judge are never learned from.
They are drawn to look like real defects: on measured ones of metal, glass, food and paper the mean
level is 2 to 7 times the grain around away from it, darker in four of five.

Each defect lives in a window of the photo and has a coverage there, 0 to 1: what of a pixel is
taken from the damaged window. It is 0 beyond the soft edge, so a defect changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from reconpatch.errors import PhotoError, SettingsError

Kind = Literal[
    "paste", "scratch", "spot", "smear", "warp", "crack", "stain", "chip", "pits", "fibre"
]
"""What a made defect looks like.

- paste: an ellipse or rectangle from another place, of this photo or another, turned by any angle.
- scratch: a thin, slightly bent line, brighter or darker than what it crosses.
- spot: a blob, darker, brighter or, on photos in colour, tinted; more or less opaque.
- smear: texture lost to blur.
- warp: texture pulled to one side.

- crack: a jagged line with branches, widest somewhere along it, thin at the tips, here fainter and
  there clearer: cracks of castings, tiles and solar cells.
- chip: an irregular polygon on an edge of the part: what lies across the edge reaches in (a piece
  is missing, or stands out), or a surface of fracture in shades found around it.
- pits: one to sixteen small hollows in a cluster, dark, one side of each rim lit: blowholes,
  corrosion.

A paste is CutPaste's (Li et al., CVPR 2021), its soft edge is in the spirit of NSA (Schlüter et
al., ECCV 2022), which blends what it pastes. For judging only:

- stain: an irregular cloud that shades what is under it, its outline and density smooth noise, at
  times with the darker rim of a dried drop: DRAEM's masks of Perlin noise (Zavrtanik et al., ICCV
  2021) with a photo's own shades instead of a foreign texture.
- fibre: a long, smoothly curved hair of one tone, sharp or out of focus.
"""

KINDS: tuple[Kind, ...] = (
    "paste", "scratch", "spot", "smear", "warp", "crack", "chip", "pits",
)  # fmt: skip
"""The kinds that f learns from."""

JUDGED_KINDS: tuple[Kind, ...] = ("stain", "fibre")
"""The kinds that judge a model; f never learns from them."""

_ON_THE_PART: tuple[Kind, ...] = ("crack", "chip", "pits", "stain", "fibre")
"""The kinds that lie where the photo shows something, a part's edge or its surface; others lie
anywhere."""

SIZES: dict[Kind, tuple[float, float]] = {
    "paste": (0.03, 0.3),
    "scratch": (0.08, 0.6),
    "spot": (0.03, 0.25),
    "smear": (0.06, 0.3),
    "warp": (0.06, 0.3),
    "crack": (0.08, 0.8),
    "stain": (0.06, 0.5),
    "chip": (0.06, 0.3),
    "pits": (0.03, 0.25),
    "fibre": (0.3, 1.5),
}
"""Smallest and largest size, as shares of the photo's shorter side: the length of a scratch or
along a fibre, the diagonal of a crack's box, else the mean diameter. On tiny photos a defect is 3
pixels at least."""

STRENGTHS: dict[Kind, tuple[float, float]] = {
    "paste": (0.4, 1.0),
    "scratch": (1.0, 6.0),
    "spot": (0.8, 5.0),
    "smear": (0.15, 0.5),
    "warp": (0.15, 0.4),
    "crack": (2.0, 12.0),
    "stain": (1.5, 8.0),
    "chip": (0.6, 1.0),
    "pits": (2.5, 14.0),
    "fibre": (2.0, 12.0),
}
"""Weakest and strongest: opacity of a paste or a chip; change of level of a scratch or a spot, in
local contrasts, and of a crack, a stain, pits or a fibre, in grains, the contrast within small
blocks; standard deviation of a smear's blur and pull of a warp, in diameters."""

SCRATCH_WIDTH = 0.02
"""The widest scratch, as a share of the shorter side; the thinnest is 1 pixel."""

FINE_WIDTH = 0.01
"""The widest crack or fibre, likewise."""

SMALLEST_SIDE = 8
"""Pixels that a photo's shorter side must have."""

# Levels change by multiples of the local contrast, the standard deviation of the grey levels around
# the place. On a flat background it is taken as this share of what varies over the whole photo, and
# as this many levels at least; on the part's own outline, as this many at most.
_FLAT_SHARE = 0.1
_CONTRAST_LEVELS = (5.0, 32.0)

# The grain is measured in blocks of this share of the shorter side.
_GRAIN_SHARE = 1 / 40

# Real defects are darker than what is around them in about four of five.
_DARKER = 0.8

# A defect differs when its pixels change by this many levels, root mean square; one that is made of
# the photo's own texture also by this share of the local contrast, or nobody would see it.
_LEAST_LEVELS = 2.0
_LEAST_SHARE = 1 / 3
_TRIES = 16

# The smallest diameter in pixels: its middle pixel is fully covered.
_LEAST_DIAMETER = 3.0

RGB = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MadeDefect:
    """A good photo with one defect.

    Attributes:
        pixels: (H, W, 3) uint8.
        mask: (H, W) bool, where the defect is, its soft edge included: all else is as it was.
        kind: what was made; where the kind asked for would have changed nothing, a spot, or of
            `JUDGED_KINDS` a stain.
        size: as a share of the photo's shorter side, as `SIZES`.
        strength: in the unit of `STRENGTHS`.
    """

    pixels: RGB
    mask: npt.NDArray[np.bool_]
    kind: Kind
    size: float
    strength: float


def made_defects(
    photos: Iterable[RGB], seed: int, kinds: Sequence[Kind] = KINDS
) -> Iterator[MadeDefect]:
    """Make one defect on each photo, the kinds in turn.

    A defect follows from the seed, the photo's place in the order, the photo and the one before it
    (from which half of the pastes come): photos appended later change none.

    Args:
        photos: each (H, W, 3) uint8, of any sizes; read one at a time.
        seed: 0 or more.
        kinds: one or more, such as `KINDS` or `JUDGED_KINDS`.

    Raises:
        PhotoError: as `make_defect`.
        SettingsError: the seed is negative, there are no kinds, or one is unknown.
    """
    if seed < 0:
        raise SettingsError(f"the seed is {seed}: give a whole number, 0 or more")
    if not kinds:
        raise SettingsError(f"no kinds of defects: give one or more of {', '.join(_MAKERS)}")
    before: RGB | None = None
    for index, photo in enumerate(photos):
        rng = np.random.default_rng([seed, index])
        donor = photo if before is None or rng.random() < 0.5 else before
        yield make_defect(photo, donor, kinds[index % len(kinds)], rng)
        before = photo


def make_defect(pixels: RGB, donor: RGB, kind: Kind, rng: np.random.Generator) -> MadeDefect:
    """Make one defect anywhere on a good photo, its size and strength drawn log-uniformly.

    Where it would not show (flat texture smeared is as flat), size, strength and place are drawn
    again a few times; after that the defect is a spot, or of `JUDGED_KINDS` a stain, which show
    everywhere.

    Args:
        pixels: (H, W, 3) uint8, sides of 8 pixels or more; it is not changed.
        donor: (H, W, 3) uint8 of any size from 8 pixels, what a paste is cut from: the same photo
            or another good one.
        kind: one of `KINDS` or `JUDGED_KINDS`.
        rng: what is drawn comes from here.

    Raises:
        PhotoError: a photo is of another shape or type, or too small.
        SettingsError: the kind is unknown.
    """
    _check_photo("pixels", pixels)
    _check_photo("donor", donor)
    if kind not in _MAKERS:
        raise SettingsError(f"the kind of defect is {kind!r}: give one of {', '.join(_MAKERS)}")
    look = _Look.of(pixels)
    shows: Kind = "stain" if kind in JUDGED_KINDS else "spot"
    tries: list[Kind] = [kind] * _TRIES + [shows] * _TRIES
    for tried in tries:
        size, strength = _log_uniform(rng, *SIZES[tried]), _log_uniform(rng, *STRENGTHS[tried])
        made = _made(pixels, donor, look, tried, size, strength, rng)
        if _differs(pixels, made, look):
            return made
    return _made(pixels, donor, look, shows, SIZES[shows][1], STRENGTHS[shows][1], rng)


@dataclass(frozen=True)
class _Look:
    """What of a photo decides how a defect must look on it.

    Attributes:
        pixels: the photo.
        least_contrast: in grey levels, what a flat background counts as.
        coloured: whether any pixel is not grey: a spot on photos of a grey camera has no tint.
    """

    pixels: RGB
    least_contrast: float
    coloured: bool

    @classmethod
    def of(cls, pixels: RGB) -> _Look:
        step = -(-min(pixels.shape[:2]) // 256)  # a glance is enough: at most about 256 rows
        glance = pixels[::step, ::step]
        return cls(
            pixels=pixels,
            least_contrast=_FLAT_SHARE * float(glance.mean(axis=2).std()),
            coloured=bool(np.ptp(glance, axis=2).any()),
        )

    def contrast(self, part: npt.NDArray[np.uint8] | Doubles) -> float:
        """The local contrast of an (h, w, 3) part of the photo, in grey levels."""
        local = max(float(part.mean(axis=2).std()), self.least_contrast)
        return float(np.clip(local, *_CONTRAST_LEVELS))

    def grain(self, part: Doubles, coverage: Doubles) -> float:
        """The contrast within small blocks that a defect covers, the median, in grey levels.

        Unlike the local contrast it does not grow where a long defect crosses an outline.
        """
        side = max(round(_GRAIN_SHARE * min(self.pixels.shape[:2])), 2)
        side = min(side, *part.shape[:2])
        height, width = (n - n % side for n in part.shape[:2])
        grey = _grey(part[:height, :width])[:, :, None]
        variance = _block_means(grey**2, side) - _block_means(grey, side) ** 2
        covered = _block_means(coverage[:height, :width, None], side) > 0
        inner = variance[covered] if covered.any() else variance
        local = max(float(np.sqrt(np.median(inner).clip(0))), self.least_contrast / 2)
        return float(np.clip(local, *_CONTRAST_LEVELS))

    @cached_property
    def edges(self) -> _Edges:
        """Where the levels change."""
        return _Edges.of(self.pixels)


@dataclass(frozen=True)
class _Edges:
    """How much the levels change, in cells of a grid over the photo.

    Attributes:
        side: of a cell, in pixels.
        slope: (rows, columns) float64, grey levels from cell to cell.
    """

    side: int
    slope: Doubles

    @classmethod
    def of(cls, pixels: RGB) -> _Edges:
        """In about 64 cells along the shorter side."""
        side = -(-min(pixels.shape[:2]) // 64)
        height, width = (n - n % side for n in pixels.shape[:2])
        grey = _grey(pixels[:height, :width])[:, :, None]
        along = np.gradient(_block_means(grey, side)[:, :, 0])
        return cls(side, np.hypot(*along))

    def place(self, rng: np.random.Generator, *, on_edges: bool) -> tuple[int, int]:
        """A pixel on an edge, or else anywhere, but more often where the levels change.

        What is inspected is the part, not the plain background that it lies on.
        """
        weights = self.slope**2 if on_edges else self.slope + self.slope.mean()
        total = np.cumsum(weights + 1e-6)
        cell = int(np.searchsorted(total, rng.uniform(0, total[-1])))
        row, column = divmod(min(cell, weights.size - 1), weights.shape[1])
        down, across = rng.integers(self.side, size=2)
        return row * self.side + int(down), column * self.side + int(across)


@dataclass(frozen=True)
class _Window:
    """The part of a photo around a defect's middle, cut off at the photo's edges.

    Attributes:
        rows, columns: where it is, h rows and w columns.
        dy, dx: (h, w) float64, pixels from the middle.
    """

    rows: slice
    columns: slice
    dy: Doubles
    dx: Doubles

    def of(self, pixels: RGB) -> Doubles:
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


Damage = tuple[_Window, Doubles, Doubles]
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
    if kind in _ON_THE_PART:
        y, x = look.edges.place(rng, on_edges=kind == "chip")
    else:
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
    """Whether the defect is visible, if only barely."""
    if not made.mask.any():
        return False
    box = _box_of(made.mask)
    good, mask = pixels[box], made.mask[box].astype(np.float64)
    change = made.pixels[box].astype(np.float64) - good
    least = _LEAST_LEVELS
    if made.kind in ("paste", "smear", "warp", "chip"):
        least = max(least, _LEAST_SHARE * look.contrast(good))
    if made.kind in ("paste", "warp", "chip"):
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


def _block_means(values: Doubles, side: int) -> Doubles:
    """(h, w, C) as (ceil(h / side), ceil(w / side), C) means of blocks, zeros beyond the edge."""
    height, width, channels = values.shape
    padded = np.pad(values, ((0, -height % side), (0, -width % side), (0, 0)))
    blocks = padded.reshape(-(-height // side), side, -(-width // side), side, channels)
    means: Doubles = blocks.mean(axis=(1, 3))
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


# --- Kinds that lie on the part -------------------------------------------------------------------


def _crack(task: _Task, rng: np.random.Generator) -> Damage:
    lines = _branching_lines(int(np.clip(task.size / 4, 8, 64)), rng)
    corners = np.concatenate([line[:, :2] for line in lines])
    scale = task.size / np.hypot(*np.ptp(corners, axis=0))
    widest = max(FINE_WIDTH * min(task.pixels.shape[:2]), 1.0)
    width = _log_uniform(rng, 1.0, widest)
    window = task.window(scale * np.hypot(*corners.T).max() + width)
    coverage = np.zeros_like(window.dy)
    for line in lines:
        clear = rng.uniform(0.5, 1.0, len(line) // 4 + 2)
        clear = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(clear)), clear)
        ragged = width * line[:, 2] * rng.uniform(0.5, 1.2, len(line))
        _draw_line(coverage, window, scale * line[:, :2], ragged, clear)
    good = window.of(task.pixels)
    return window, coverage, _shaded(good, _shade(task, good, coverage, rng))


def _branching_lines(pieces: int, rng: np.random.Generator) -> list[Doubles]:
    """A random walk and up to three branches of it.

    Each is (corners, 3): y, x and width, 1 at the widest. The walk's middle is at 0, 0.
    """
    start = rng.uniform(0, 2 * np.pi)

    def walk(heading: float, steps: int) -> Doubles:
        turned = np.zeros(steps)
        for i in range(1, steps):
            turned[i] = 0.7 * turned[i - 1] + rng.normal(0, 0.4)
        pace, angle = rng.uniform(0.5, 1.5, steps), heading + turned
        moves = np.stack([pace * np.sin(angle), pace * np.cos(angle)], axis=1)
        corners: Doubles = np.cumsum(np.concatenate([np.zeros((1, 2)), moves]), axis=0)
        return corners

    trunk = walk(start, pieces)
    trunk -= trunk[pieces // 2]
    width = np.interp(np.linspace(0, 1, pieces + 1), [0, rng.uniform(), 1], [0.3, 1.0, 0.3])
    lines = [np.column_stack([trunk, width])]
    for _ in range(rng.integers(0, 4)):
        fork = int(rng.integers(1, pieces))
        steps = int(rng.integers(max(pieces // 8, 2), max(pieces // 2, 3)))
        branch = trunk[fork] + walk(start + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2), steps)
        lines.append(np.column_stack([branch, np.linspace(0.7 * width[fork], 0.2, steps + 1)]))
    return lines


def _fibre(task: _Task, rng: np.random.Generator) -> Damage:
    pieces = 48
    t = np.linspace(0, 1, pieces)
    # A bend all along, and a wave of half to two turns in it.
    turn, waves, swing = rng.uniform(-4, 4), rng.uniform(0.5, 2), rng.uniform(0, 1.2)
    heading = rng.uniform(0, 2 * np.pi) + turn * t + swing * np.sin(2 * np.pi * (waves * t))
    moves = np.stack([np.sin(heading), np.cos(heading)], axis=1) * task.size / pieces
    corners = np.cumsum(np.concatenate([np.zeros((1, 2)), moves]), axis=0)
    corners -= corners[pieces // 2]
    widest = max(FINE_WIDTH * min(task.pixels.shape[:2]), 1.0)
    width = _log_uniform(rng, 1.0, widest)
    softness = rng.uniform(0.5, max(width / 2, 0.5))
    window = task.window(np.hypot(*corners.T).max() + width / 2 + softness)
    coverage = np.zeros_like(window.dy)
    _draw_line(
        coverage,
        window,
        corners,
        np.full(pieces + 1, width),
        np.full(pieces + 1, rng.uniform(0.7, 1.0)),
        softness,
    )
    good = window.of(task.pixels)
    tone = np.broadcast_to(good[coverage > 0].mean(axis=0), good.shape)
    return window, coverage, _shaded(tone, _shade(task, good, coverage, rng, tinted=0.5))


def _stain(task: _Task, rng: np.random.Generator) -> Damage:
    outline = _Outline.draw(task.size, rng, square=False)
    window = task.window(outline.reach)
    shape = window.dy.shape
    eaten = 1 + rng.uniform(0.3, 1.0) * _smooth_noise(shape, task.size / 4, rng)
    depth = 1 - outline.radius(window) * eaten  # 1 in the middle, 0 on the outline
    coverage = _smooth_step(depth / rng.uniform(0.15, 0.7))
    density = 1 - 0.5 * _smooth_noise(shape, task.size / 8, rng)
    if rng.random() < 0.3:
        density *= 0.3 + 0.7 * _smooth_step(1 - np.abs(depth - 0.15) / 0.15)
    good = window.of(task.pixels)
    # Texture shows through it, however strong it is.
    shade = np.clip(_shade(task, good, coverage, rng, tinted=0.5), -0.7, 0.7)
    return window, coverage, _shaded(good, density[:, :, None] * shade)


def _pits(task: _Task, rng: np.random.Generator) -> Damage:
    count = round(_log_uniform(rng, 1, 16))
    spread = _Outline.draw(task.size, rng, square=False)
    window = task.window(1.4 * spread.reach)
    rough = 1 + _smooth_noise(window.dy.shape, max(task.size / 10, 2.0), rng)
    light = rng.uniform(0, 2 * np.pi)
    dark, lit = np.zeros_like(window.dy), np.zeros_like(window.dy)
    for i in range(count):
        share = 0.6 if count == 1 else _log_uniform(rng, 0.12, 0.5)
        pit = _Outline.draw(max(share * task.size, 2.0), rng, square=False)
        # The first one is in the middle, the others are around it, within the cluster's outline.
        away = 0.0 if i == 0 else (1 - share) * rng.uniform(0.2, 1.0)
        angle = rng.uniform(0, 2 * np.pi)
        across, along = away * np.sin(angle) * spread.across, away * np.cos(angle) * spread.along
        dy, dx = _turned(np.array(across), np.array(along), -spread.angle)
        around = replace(window, dy=window.dy - dy, dx=window.dx - dx)
        radius = pit.radius(around) * rough
        dark = np.maximum(dark, _smooth_step((1.3 - radius) / 0.5))
        facing = np.cos(np.arctan2(around.dy, around.dx) - light).clip(0)
        lit = np.maximum(lit, facing * _smooth_step(1 - np.abs(radius - 1.3) / 0.3))
    good = window.of(task.pixels)
    coverage = np.maximum(dark, lit)
    shade = _shade(task, good, coverage, rng)
    lit *= (1 - dark) * rng.uniform(0, 0.4)
    change = (dark * (1.5 - rough / 2) - lit)[:, :, None] * shade
    return window, (coverage > 0).astype(np.float64), _shaded(good, change)


def _chip(task: _Task, rng: np.random.Generator) -> Damage:
    window = task.window(task.size)
    good = window.of(task.pixels)
    grey = _grey(good)
    # Across the edge: from the middle to where the levels rise, or the other way.
    near = np.hypot(window.dy, window.dx) <= task.size / 2
    rise = (grey - grey[near].mean()) * near
    sign = rng.choice([-1.0, 1.0])
    angle = np.arctan2((rise * window.dy).sum(), (rise * window.dx).sum())
    to_y, to_x = sign * np.sin(angle), sign * np.cos(angle)
    # Where the levels change most on the way is the edge.
    way = np.arange(-np.ceil(task.size / 2), np.ceil(task.size / 2) + 1)
    levels = _sampled(task.pixels, task.y + way[:, None] * to_y, task.x + way[:, None] * to_x).mean(
        axis=(1, 2)
    )
    between = way[:-1] + 0.5
    change = np.abs(np.diff(levels)) + 1e-6  # on a flat photo the edge is in the middle
    edge = between[(change * (1 - np.abs(between) / (2 * task.size))).argmax()]
    depth = window.dy * to_y + window.dx * to_x - edge  # pixels beyond the edge
    around = replace(window, dy=window.dy - edge * to_y, dx=window.dx - edge * to_x)
    ragged = 0.15 * task.size * _smooth_noise(grey.shape, max(task.size / 8, 2.0), rng)
    coverage = _polygon(around, task.size / 2 - ragged, rng) * np.clip(depth + 1, 0, 1)
    if rng.random() < 0.6:
        # What lies before the edge, as in a mirror on it; from a little further away, since no
        # edge is sharp.
        back = 2 * depth + 0.2 * task.size + 1
        damaged = _sampled(
            task.pixels, task.y + window.dy - back * to_y, task.x + window.dx - back * to_x
        )
    else:
        low, high = np.quantile(good[near], [0.05, 0.95], axis=0)
        facets = _smooth_noise(grey.shape, max(task.size / 6, 2.0), rng)[:, :, None]
        damaged = low + _smooth_step(1.5 * facets - 0.25) * (high - low)
    return window, task.strength * coverage, damaged


_MAKERS: dict[Kind, Callable[[_Task, np.random.Generator], Damage]] = {
    "paste": _paste,
    "scratch": _scratch,
    "spot": _spot,
    "smear": _smear,
    "warp": _warp,
    "crack": _crack,
    "stain": _stain,
    "chip": _chip,
    "pits": _pits,
    "fibre": _fibre,
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

    def radius(self, window: _Window) -> Doubles:
        """(h, w) 0 in the middle, 1 on the outline."""
        across, along = _turned(window.dy, window.dx, self.angle)
        sides = (
            np.abs(across / self.across) ** self.power + np.abs(along / self.along) ** self.power
        )
        radius: Doubles = sides ** (1 / self.power)
        return radius

    def coverage(self, window: _Window, softness: float) -> Doubles:
        """(h, w) from 1 within to 0 on the outline, over an edge of this share of the radius."""
        return _smooth_step((1 - self.radius(window)) / softness)


def _smooth_step(t: Doubles) -> Doubles:
    """From 0 at 0 to 1 at 1, level at both."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _turned(dy: Doubles, dx: Doubles, angle: float) -> tuple[Doubles, Doubles]:
    """Offsets in axes turned by an angle."""
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * dy - sin * dx, sin * dy + cos * dx


def _distance_to_chain(y: Doubles, x: Doubles, corners_y: Doubles, corners_x: Doubles) -> Doubles:
    """(h, w) distance of (h, w) points to the nearest of the straight pieces between corners."""
    nearest = np.full(y.shape, np.inf)
    for i in range(len(corners_y) - 1):
        to_y, to_x = corners_y[i + 1] - corners_y[i], corners_x[i + 1] - corners_x[i]
        dy, dx = y - corners_y[i], x - corners_x[i]
        share = np.clip((dy * to_y + dx * to_x) / (to_y**2 + to_x**2), 0, 1)
        nearest = np.minimum(nearest, np.hypot(dy - share * to_y, dx - share * to_x))
    return nearest


def _draw_line(
    coverage: Doubles,
    window: _Window,
    corners: Doubles,
    widths: Doubles,
    clear: Doubles,
    softness: float = 0.5,
) -> None:
    """Raise the (h, w) coverage to that of a line through (n, 2) corners.

    Args:
        coverage: changed in place.
        window: where it lies.
        corners: y, x in pixels from the window's middle.
        widths: (n,) in pixels, at the corners.
        clear: (n,) coverage of the line itself, 0 to 1.
        softness: pixels from half to no coverage at its sides.
    """
    start = np.array([window.dy[0, 0], window.dx[0, 0]])
    for i in range(len(corners) - 1):
        ends = corners[i : i + 2]
        width = widths[i : i + 2].mean()
        reach = width / 2 + softness
        (top, left), (bottom, right) = (
            np.floor(ends.min(axis=0) - reach - start).clip(0).astype(int),
            np.ceil(ends.max(axis=0) + reach - start + 1).clip(0).astype(int),
        )
        box = slice(top, bottom), slice(left, right)
        distance = _distance_to_chain(window.dy[box], window.dx[box], *ends.T)
        drawn = clear[i : i + 2].mean() * np.clip((reach - distance) / (2 * softness), 0, 1)
        coverage[box] = np.maximum(coverage[box], drawn)


def _polygon(window: _Window, radius: Doubles, rng: np.random.Generator) -> Doubles:
    """(h, w) coverage by a polygon around the middle, its corners within the (h, w) radius."""
    count = int(rng.integers(6, 11))
    angles = np.sort(2 * np.pi * (np.arange(count) + rng.uniform(0, 0.9, count)) / count)
    corners = rng.uniform(0.5, 1.0, count)
    angle = np.arctan2(window.dy, window.dx) % (2 * np.pi)
    before = np.searchsorted(angles, angle) - 1  # -1 is the last one
    after = (before + 1) % count
    turn, turned = (angles[after] - angles[before]) % (2 * np.pi), (angle - angles[before])
    turned %= 2 * np.pi
    side = (
        corners[before]
        * corners[after]
        * np.sin(turn)
        / (corners[before] * np.sin(turned) + corners[after] * np.sin(turn - turned))
    )
    covered: Doubles = np.clip(radius * side - np.hypot(window.dy, window.dx) + 0.5, 0, 1)
    return covered


def _smooth_noise(shape: tuple[int, ...], cell: float, rng: np.random.Generator) -> Doubles:
    """(h, w) 0 to 1: random levels cells apart and half as strong ones half as far, smoothed."""
    height, width = shape
    noise = np.zeros((height, width))
    for share, side in ((1.0, cell), (0.5, cell / 2)):
        cells = (int(height / max(side, 1)) + 2, int(width / max(side, 1)) + 2)
        levels = Image.fromarray(rng.standard_normal(cells).astype(np.float32))
        noise += share * np.asarray(levels.resize((width, height), Image.Resampling.BICUBIC))
    noise -= noise.min()
    smooth: Doubles = noise / max(noise.max(), 1e-6)
    return smooth


def _shade(
    task: _Task, good: Doubles, coverage: Doubles, rng: np.random.Generator, tinted: float = 0.0
) -> Doubles:
    """(3,) how much darker (to -1, black) or brighter (to 1, white): strength times grain.

    On photos in colour the tinted share has another shade in each channel.
    """
    direction = np.full(3, -1.0 if rng.random() < _DARKER else 1.0)
    if task.look.coloured and rng.random() < tinted:
        direction = 0.75 * direction + rng.uniform(-0.25, 0.25, 3)
    step = task.strength * task.look.grain(good, coverage)
    level = float(good[coverage > 0].mean())
    if (level if direction.mean() < 0 else 255 - level) < min(step / 2, 127.5):
        direction = -direction
    room = np.where(direction < 0, level, 255 - level)
    shade: Doubles = np.clip(step * direction / np.maximum(room, 1), -1, 1)
    return shade


def _grey(pixels: RGB | Doubles) -> Doubles:
    """(h, w) mean of the three channels, several times faster than numpy's."""
    red, green, blue = np.moveaxis(pixels.astype(np.float64), 2, 0)
    grey: Doubles = (red + green + blue) / 3
    return grey


def _shaded(good: Doubles, shade: Doubles) -> Doubles:
    """(h, w, 3) levels moved by a share of the way to black or white: what is dark stays dark."""
    shaded: Doubles = good + np.abs(shade) * (np.where(shade < 0, 0.0, 255.0) - good)
    return shaded


def _step(task: _Task, good: Doubles, coverage: Doubles, direction: Doubles) -> Doubles:
    """(3,) levels to add: strength times local contrast, turned round where there is more room."""
    step: Doubles = task.strength * task.look.contrast(good) * direction
    level = good[coverage > 0].mean(axis=0)
    up, down = (np.abs((level + s).clip(0, 255) - level).sum() for s in (step, -step))
    return -step if down > up else step


def _sampled(pixels: RGB, y: Doubles, x: Doubles) -> Doubles:
    """(h, w, 3) the photo at fractional places, bilinear; beyond its edge, what is on the edge."""
    height, width = pixels.shape[:2]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (y - top)[:, :, None], (x - left)[:, :, None]
    upper = (1 - across) * pixels[top, left] + across * pixels[top, right]
    lower = (1 - across) * pixels[bottom, left] + across * pixels[bottom, right]
    sampled: Doubles = (1 - down) * upper + down * lower
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
