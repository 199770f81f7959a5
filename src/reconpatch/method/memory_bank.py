"""The memory bank: represented good patches, where each is from, and the nearest of them (eq. 9).

One search serves fitting, calibration and inspection: a matrix product proposes, the distance to
the proposed row is then computed again directly, since the product's form cancels near zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.method.composition import Composition

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Distances held at a time: 2 ** 22 float32 are 16 MB, whatever the sizes of bank and query.
_BLOCK_ELEMENTS = 2**22


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """The rows M that a patch is compared with.

    Attributes:
        rows: (M, D) float32, r = f(p) of the chosen good patches.
        photo: (M,) int64, index of the training photo that each row comes from.
        place: (M,) int64, index of the patch in that photo's grid, in raster order.
        replacements: (M, D) float32, the row of another photo that takes each row's place when the
            row's own photo is left out; see `reconpatch.model.good_photos`.
        scales: (M,) float32, how sparse the bank is around each row, about 1; see `row_scales`.
            None where the image score does not ask.
        defects: (K, D) float32, r = f(p) of patches of confirmed defects, one at least; see
            `reconpatch.method.scoring.likeness`. None where the image score does not ask.
        discriminant: (D + 1,) float32, on which side confirmed defects lie; see
            `reconpatch.method.discriminant`. None without defects, and in older files.
        composition: what good photos are made of as a whole; see `reconpatch.method.composition`.
            None where the image score does not ask.
    """

    rows: Floats
    photo: Ints
    place: Ints
    replacements: Floats
    scales: Floats | None = None
    defects: Floats | None = None
    discriminant: Floats | None = None
    composition: Composition | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def norms(self) -> Floats:
        """(M,) float32, squared norms of the rows."""
        norms: Floats = np.einsum("md,md->m", self.rows, self.rows)
        return norms

    @cached_property
    def _centred(self) -> tuple[Floats, Floats, Floats]:
        """The mean of the rows, the rows around it, and their squared norms.

        Far from the origin the product's form would lose the digits that tell rows apart.
        """
        centre = self.rows.mean(axis=0)
        centred = self.rows - centre
        return centre, centred, np.einsum("md,md->m", centred, centred)

    @cached_property
    def everyone(self) -> npt.NDArray[np.bool_]:
        """(M,) boolean, the mask by which every row takes part."""
        return np.ones(len(self.rows), dtype=np.bool_)

    @property
    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """The bank as an inspection graph takes it, by the names of its inputs."""
        given = {"bank": self.rows, "norms": self.norms, "mask": self.everyone}
        further = {
            "scales": self.scales,
            "defects": self.defects,
            "discriminant": self.discriminant,
        }
        if self.composition is not None:
            further["compositions"] = self.composition.rows
            further["whitening"] = self.composition.whitening
            further["units"] = self.composition.units
        return given | {name: x for name, x in further.items() if x is not None}

    def without(self, left_out: npt.NDArray[np.bool_], group: int | None = None) -> MemoryBank:
        """Return the bank without some photos: replacement rows take the place of their rows.

        Args:
            left_out: (M,) boolean, the rows of the photos that are left out.
            group: of those photos, which the composition is to do without; None leaves it.
        """
        bank = self
        if self.composition is not None and group is not None:
            bank = replace(bank, composition=self.composition.without(group))
        if not left_out.any():
            return bank
        return replace(bank, rows=np.where(left_out[:, None], self.replacements, self.rows))

    def nearest(self, queries: Floats) -> tuple[Floats, Ints]:
        """Find r* and D(f(p), r*) for each query (eq. 9), exact and Euclidean.

        Args:
            queries: (Q, D) float32.

        Returns:
            (Q,) float32 distances, 0 or more, and (Q,) int64 indices into the rows.
        """
        indices = _nearest_rows(queries, *self._centred)
        return distances(queries, self.rows[indices]), indices

    def neighbours_of(self, row: int, b: int) -> Ints:
        """Find N_b(r*), the indices of the b rows nearest to a row, itself first (eq. 10)."""
        to_row = np.linalg.norm(self.rows - self.rows[row], axis=1)
        to_row[row] = -1.0  # itself first, even among duplicates
        b = min(b, len(self.rows))
        closest = np.argpartition(to_row, b - 1)[:b]
        return closest[np.argsort(to_row[closest], kind="stable")]


NEIGHBOURS = 3
"""Rows of other parts that tell how sparse the bank is around a row."""
_LEAST_SCALE = 0.1


def row_scales(rows: Floats, parts: Ints, power: float) -> Floats:
    """Measure how sparse the bank is around each row: (M,) float32, about 1.

    The mean distance of a row to the nearest rows of other parts, as a share of that of all rows,
    to a power. Where good parts vary, a patch must be further away to be as odd (local outlier
    factor, Breunig et al., SIGMOD 2000).

    Args:
        rows: (M, D) float32.
        parts: (M,) the part that each row comes from.
        power: 0 makes all scales 1.
    """
    norms = np.einsum("md,md->m", rows, rows)
    sparse = np.empty(len(rows), np.float64)
    block = max(1, _BLOCK_ELEMENTS // len(rows))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        squared = (-2.0 * rows[part]) @ rows.T
        squared += norms + norms[part, None]
        squared[parts[part][:, None] == parts[None, :]] = np.inf
        count = min(NEIGHBOURS, len(rows))
        nearest = np.sqrt(np.maximum(np.partition(squared, count - 1, axis=1)[:, :count], 0.0))
        found = np.isfinite(nearest)
        sums = np.where(found, nearest, 0.0).sum(axis=1, dtype=np.float64)
        sparse[part] = np.where(found.any(axis=1), sums / np.maximum(found.sum(axis=1), 1), np.nan)
    mean = float(np.nanmean(sparse)) if np.isfinite(sparse).any() else 0.0
    if not mean > 0:  # all of one part, or all alike
        scales = np.ones(len(rows))
    else:
        relative = np.where(np.isfinite(sparse), sparse / mean, 1.0)
        scales = np.maximum(relative, _LEAST_SCALE) ** power
    result: Floats = scales.astype(np.float32)
    return result


def nearest_distance(queries: Floats, rows: Floats) -> Floats:
    """(Q,) float32 distance of (Q, D) queries to the nearest of (M, D) rows, exact."""
    centre = rows.mean(axis=0)
    centred = rows - centre
    norms = np.einsum("md,md->m", centred, centred)
    return distances(queries, rows[_nearest_rows(queries, centre, centred, norms)])


def _nearest_rows(queries: Floats, centre: Floats, centred: Floats, norms: Floats) -> Ints:
    """(Q,) index of the nearest row; the rows are given around their centre."""
    indices = np.empty(len(queries), dtype=np.int64)
    block = max(1, _BLOCK_ELEMENTS // len(centred))
    for start in range(0, len(queries), block):
        part = slice(start, start + block)
        squared = (-2.0 * (queries[part] - centre)) @ centred.T
        squared += norms  # up to ||q||^2, which is the same for all rows
        indices[part] = squared.argmin(axis=1)
    return indices


def distances(a: Floats, b: Floats) -> Floats:
    """Euclidean distances between the rows of two (Q, D) arrays, subtracted before squaring."""
    difference = a - b
    squared: Floats = np.einsum("qd,qd->q", difference, difference)
    return np.sqrt(squared)
