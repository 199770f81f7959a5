"""The memory bank: represented good patches, where each is from, and the nearest of them (eq. 9).

One search serves fitting, calibration and inspection: a matrix product proposes, the distance to
the proposed row is then computed again directly, since the product's form cancels near zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

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
        stand_ins: (M, D) float32, the row of another photo that takes each row's place when the
            row's own photo is left out; see `reconpatch.good_photos`.
    """

    rows: Floats
    photo: Ints
    place: Ints
    stand_ins: Floats

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

    def without(self, left_out: npt.NDArray[np.bool_]) -> MemoryBank:
        """The bank as it would be without some photos: stand-ins in place of their rows.

        Args:
            left_out: (M,) boolean, the rows of the photos that are left out.
        """
        if not left_out.any():
            return self
        return replace(self, rows=np.where(left_out[:, None], self.stand_ins, self.rows))

    def nearest(self, queries: Floats) -> tuple[Floats, Ints]:
        """r* and D(f(p), r*) for each query (eq. 9): exact, Euclidean.

        Args:
            queries: (Q, D) float32.

        Returns:
            (Q,) float32 distances, 0 or more, and (Q,) int64 indices into the rows.
        """
        centre, centred, norms = self._centred
        indices = np.empty(len(queries), dtype=np.int64)
        block = max(1, _BLOCK_ELEMENTS // len(self.rows))
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            squared = (-2.0 * (queries[part] - centre)) @ centred.T
            squared += norms  # up to ||q||^2, which is the same for all rows
            indices[part] = squared.argmin(axis=1)
        return distances(queries, self.rows[indices]), indices

    def neighbours_of(self, row: int, b: int) -> Ints:
        """N_b(r*): indices of the b rows nearest to a row of the bank, itself first (eq. 10)."""
        to_row = np.linalg.norm(self.rows - self.rows[row], axis=1)
        to_row[row] = -1.0  # itself first, even among duplicates
        b = min(b, len(self.rows))
        closest = np.argpartition(to_row, b - 1)[:b]
        return closest[np.argsort(to_row[closest], kind="stable")]


def distances(a: Floats, b: Floats) -> Floats:
    """Euclidean distances between the rows of two (Q, D) arrays, subtracted before squaring."""
    difference = a - b
    squared: Floats = np.einsum("qd,qd->q", difference, difference)
    return np.sqrt(squared)
