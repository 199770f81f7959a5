"""The memory bank: represented good patches, where each comes from, and the nearest of them (eq. 9).

One search serves fitting, calibration and inspection: a matrix product proposes, the distance to
the proposed row is then computed again directly, since the product's form cancels near zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Distances held at a time: 2 ** 24 float32 are 64 MB, whatever the sizes of bank and query.
_BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class MemoryBank:
    """The rows M that a patch is compared with.

    Attributes:
        rows: (M, D) float32, r = f(p) of the chosen good patches.
        photo: (M,) int64, index of the training photo that each row comes from.
        place: (M,) int64, index of the patch in that photo's grid, in raster order.
    """

    rows: Floats
    photo: Ints
    place: Ints
    norms: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms", np.einsum("md,md->m", self.rows, self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(
        self, queries: Floats, *, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Floats, Ints]:
        """r* and D(f(p), r*) for each query (eq. 9): exact, Euclidean.

        Args:
            queries: (Q, D) float32.
            allowed: (M,) boolean, the rows that may be found; all by default. Leaving out a
                photo's own rows scores it as if it were new.

        Returns:
            (Q,) float32 distances, 0 or more, and (Q,) int64 indices into the rows.
        """
        rows, norms = self.rows, self.norms
        if allowed is not None:
            if not allowed.any():
                raise SettingsError(
                    "no row of the memory bank is left to compare with: every row comes from the "
                    "photo (or group) that is left out; use more photos or a larger bank"
                )
            # Masking by a huge norm costs nothing beside copying the rows that are left.
            norms = np.where(allowed, norms, np.float32(np.inf))
        indices = np.empty(len(queries), dtype=np.int64)
        block = max(1, _BLOCK_ELEMENTS // len(rows))
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            # ||q||^2 is the same for all rows, so it cannot change which is nearest.
            indices[part] = (norms - 2.0 * (queries[part] @ rows.T)).argmin(axis=1)
        return distances(queries, rows[indices]), indices

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
    return np.sqrt(np.einsum("qd,qd->q", difference, difference))
