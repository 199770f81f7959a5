"""Where the patches of a photo lie: one grid, whether the photo is seen whole or tile by tile.

    photo ── views ── graph ── distances of each view ── put ──> (P,) distances of the photo
             (tiles)           only those it answers for             │
                                                      on_grid ──> (h, w), for smoothing and maps

Tiles overlap, and of the places that two of them see each counts once, in the tile in which it lies
further from the edge: a network sees nothing beyond the edge of a tile. What is put together is one
grid, so that all that follows (smoothing, image score, map, regions) knows nothing of tiles.
Places outside of the region of interest have no patch at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class View:
    """One run of the graph: a part of the photo, and the patches that it answers for.

    Attributes:
        y, x: the view's first cell in the photo's grid.
        cells: (k,) int64, the patches that count, in the view's own grid in raster order.
        places: (k,) int64, which of the photo's P patches they are.
    """

    y: int
    x: int
    cells: Ints
    places: Ints


@dataclass(frozen=True, eq=False)
class Layout:
    """The P patches of a photo.

    Attributes:
        grid: h, w; cells of the whole photo.
        covered: height and width of what the grid covers, in pixels of the map.
        size: height and width of the map: those of the model's input, or of a photo in tiles, where
            the last cells may reach beyond the photo.
        views: runs of the graph that together answer for every patch once.
        counted: patches of a whole view, which the scoring setting `top` is a share of.
        scale: pixels of the map for one pixel of the model's input.
        inspected: (h, w) bool, cells that have a patch; None: all of them.
        in_tiles: whether the views are tiles, and the map is in pixels of the photo.
    """

    grid: tuple[int, int]
    covered: tuple[int, int]
    size: tuple[int, int]
    views: Sequence[View]
    counted: int
    scale: float = 1.0
    inspected: Bools | None = field(default=None, repr=False)
    in_tiles: bool = False

    @classmethod
    def whole(
        cls, grid: tuple[int, int], size: tuple[int, int], inspected: Bools | None = None
    ) -> Layout:
        """A photo that is seen at once.

        Args:
            grid: h, w of the graph's patches.
            size: height and width of the model's input.
            inspected: (h, w) bool, cells that have a patch; None: all of them.
        """
        cells = np.arange(grid[0] * grid[1]) if inspected is None else np.flatnonzero(inspected)
        view = View(0, 0, cells, np.arange(len(cells)))
        return cls(grid, size, size, [view], len(cells), 1.0, inspected)

    @classmethod
    def tiled(
        cls,
        size: tuple[int, int],
        tile: int,
        overlap: int,
        grid: tuple[int, int],
        scale: float = 1.0,
        region: Bools | None = None,
    ) -> Layout:
        """A photo that is seen tile by tile.

        Args:
            size: height and width of the photo.
            tile: side of a tile in pixels of the photo, a multiple of `grid`.
            overlap: pixels that neighbouring tiles share at least; below `tile`.
            grid: n, n; patches of a tile.
            scale: pixels of the photo for one pixel of the model's input.
            region: (H, W) bool, the pixels to inspect; None: all of them.
        """
        n = grid[0]
        cell = tile // n
        # Coarser levels of the backbone have wider cells, and tiles start where those do.
        unit = math.gcd(n, 4)
        step = max(unit, (n - -(-overlap // cell)) // unit * unit)
        height, width = (-(-pixels // cell) for pixels in size)
        inspected = None if region is None else _cells_in(region, cell)
        number = np.arange(height * width).reshape(height, width)
        if inspected is not None:
            number = np.where(inspected, inspected.cumsum().reshape(height, width) - 1, -1)
        views = []
        for y, top, bottom in _lattice(height, n, step, unit):
            for x, left, right in _lattice(width, n, step, unit):
                places = number[top:bottom, left:right]
                rows, columns = np.nonzero(places >= 0)
                cells = (rows + top - y) * n + columns + left - x
                if len(cells):
                    views.append(View(y, x, cells, places[rows, columns]))
        covered = (height * cell, width * cell)
        counted = min(n * n, height * width)
        return cls((height, width), covered, size, views, counted, scale, inspected, True)

    @property
    def plain(self) -> bool:
        """Whether the graph's own score and map are those of the photo."""
        return not self.in_tiles and self.inspected is None

    @cached_property
    def places(self) -> int:
        """P, the patches of a photo."""
        return sum(len(view.places) for view in self.views)

    @cached_property
    def cell_of(self) -> Ints:
        """(P,) the cell of the photo's grid, in raster order, that each patch lies in."""
        if self.inspected is None:
            return np.arange(self.places)
        return np.flatnonzero(self.inspected)

    @property
    def cell_size(self) -> tuple[float, float]:
        """Height and width of a cell in pixels of the map."""
        return self.covered[0] / self.grid[0], self.covered[1] / self.grid[1]

    def on_grid(self, values: Floats, elsewhere: float = 0.0) -> Floats:
        """(P,) values as (h, w) float32, something else where there is no patch."""
        if self.inspected is None:
            return values.reshape(self.grid)
        whole = np.full(self.grid, elsewhere, np.float32)
        whole[self.inspected] = values
        return whole

    def joined(self, parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """(P, ...) values of a photo from those of its views, (n, ...) each and in their order."""
        whole: npt.NDArray[Any] | None = None
        for view, part in zip(self.views, parts, strict=True):
            if whole is None:
                whole = np.empty((self.places, *part.shape[1:]), part.dtype)
            whole[view.places] = part[view.cells]
        assert whole is not None  # a layout has a view
        return whole


def _lattice(cells: int, n: int, step: int, unit: int) -> list[tuple[int, int, int]]:
    """Tiles along one axis: the first cell of each, and the range of cells that it answers for.

    Args:
        cells: of the photo; the last tile may reach beyond them.
        n: cells of a tile.
        step: from one tile to the next, but for the last, a multiple of `unit`.
        unit: tiles start at multiples of this.
    """
    last = max(0, -(-(cells - n) // unit) * unit)
    starts = [*range(0, last, step), last]
    # The middle of what two tiles share.
    ends = [(start + n + following) // 2 for start, following in pairwise(starts)]
    return list(zip(starts, [0, *ends], [*ends, cells], strict=True))


def _cells_in(region: Bools, cell: int) -> Bools:
    """(h, w) bool: cells of `cell` x `cell` pixels that hold a pixel of an (H, W) region."""
    height, width = (-(-pixels // cell) for pixels in region.shape)
    padded = np.zeros((height * cell, width * cell), np.bool_)
    padded[: region.shape[0], : region.shape[1]] = region
    return np.asarray(padded.reshape(height, cell, width, cell).any(axis=(1, 3)))


def cells_in(region: Bools, grid: tuple[int, int]) -> Bools:
    """(h, w) bool: cells of a grid over all of an (H, W) region that hold a pixel of it."""
    rows, columns = (
        np.arange(cells) * pixels // cells for cells, pixels in zip(grid, region.shape, strict=True)
    )
    down = np.logical_or.reduceat(region, rows, axis=0)
    return np.asarray(np.logical_or.reduceat(down, columns, axis=1))
