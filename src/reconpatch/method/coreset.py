"""Greedy coreset: the few patches that cover all the others best (k-center, as in PatchCore).

Each pick is the patch furthest from all picked before. The picks are exactly those of the textbook
loop over all patches; only the order of the work differs, see `greedy_coreset`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError

Features = npt.NDArray[np.float32]

# Rows re-ranked between two passes over all patches, and rows of one block of such a pass: few, so
# that their distances stay in the processor's cache.
_CANDIDATES = 4096
_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Coreset:
    """The picked rows.

    Attributes:
        indices: (M,) int64 into the features, in the order of picking.
        radius: the covering radius: the largest distance of any patch to its nearest pick, in the
            space that the selection used (the projected one, where there is a projection).
    """

    indices: npt.NDArray[np.int64]
    radius: float


def bank_rows(bank: float | int, available: int, least: int = 0) -> int:
    """Convert a bank size to rows: below 1 a share of all patches, from 1 on a number of rows.

    Never more than there are patches, and at least 1 row.

    Args:
        bank: the share, or the number.
        available: patches.
        least: rows that a bank has at least where they are no more than a tenth of the patches;
            where they are more, it has that tenth.
    """
    if not math.isfinite(bank) or bank <= 0 or (bank > 1 and bank != int(bank)):
        raise SettingsError(
            f"the memory bank's size is {bank}: give a share of all patches between 0 and 1 "
            "(0.01) or a whole number of rows (20000)"
        )
    rows = round(bank * available) if bank < 1 else int(bank)
    return min(max(rows, 1, min(least, available // 10)), available)


def random_projection(features: Features, dim: int, rng: np.random.Generator) -> Features:
    """Project (N, D) features to (N, dim) with a Gaussian matrix that keeps distances on average.

    For the selection only, as PatchCore does; the bank keeps the features themselves. Features of
    `dim` or fewer columns are returned as they are.
    """
    columns = features.shape[1]
    if columns <= dim:
        return features
    matrix = rng.standard_normal((columns, dim), dtype=np.float32) / np.float32(math.sqrt(dim))
    return features @ matrix


def greedy_coreset(
    features: Features,
    rows: int,
    *,
    first: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Coreset:
    """Pick `rows` of the (N, D) features so that the furthest of all is as near as greedy gets it.

    The distance of every patch to its nearest pick only ever falls. So the patches that are
    furthest now stay the only candidates as long as one of them is at least as far as the best
    patch outside of them was: until then the greedy choice is made among the candidates alone, and
    all others are brought up to date by one matrix product for the whole run of picks.

    Args:
        features: (N, D) float32.
        rows: picks, 1 to N. Fewer are returned only where every other patch coincides with a pick.
        first: index of the first pick.
        progress: called with (picks so far, rows).

    Returns:
        The picks, in order, and the covering radius they reach.
    """
    norms = np.einsum("nd,nd->n", features, features)
    centre = features.mean(axis=0, dtype=np.float64)
    if float(centre @ centre) > 0.5 * float(norms.mean(dtype=np.float64)):
        # Far from the origin the squared norms would drown the distances.
        features = features - centre.astype(np.float32)
        norms = np.einsum("nd,nd->n", features, features)
    nearest = np.full(len(features), np.inf, dtype=np.float32)
    picked = [first]
    _update(nearest, features, norms, picked)
    while len(picked) < rows and nearest.max() > 0.0:
        run = _run_of_picks(features, norms, nearest, rows - len(picked))
        _update(nearest, features, norms, run)
        picked += run
        if progress is not None:
            progress(len(picked), rows)
    radius = math.sqrt(float(nearest.max()))
    return Coreset(np.array(picked, dtype=np.int64), radius)


def extend_coreset(
    features: Features, nearest: Features, radius: float, *, most: int | None = None
) -> npt.NDArray[np.int64]:
    """Continue the greedy selection from existing centres until all is covered within a radius.

    Args:
        features: (N, D) float32.
        nearest: (N,) float32, the distance of each to the nearest centre.
        radius: picking ends when no feature is further than this from the centres and the picks.
        most: picking ends after so many; None for any number.

    Returns:
        (K,) indices of the picks, in order, K from 0.
    """
    # A feature that is near enough is never picked, so it may as well be left out.
    left = np.flatnonzero(nearest > radius)
    if not len(left):
        return left
    subset = features[left] - features[left].mean(axis=0)
    norms = np.einsum("nd,nd->n", subset, subset)
    squared = nearest[left] ** 2
    picks: list[int] = []
    while squared.max(initial=0.0) > radius**2 and (most is None or len(picks) < most):
        best = int(squared.argmax())
        picks.append(int(left[best]))
        np.minimum(squared, norms + (norms[best] - 2.0 * (subset @ subset[best])), out=squared)
        squared[best] = 0.0
        beyond = squared > radius**2
        if 2 * beyond.sum() < len(left):  # seldom, since leaving out copies what stays
            left, subset, norms = left[beyond], subset[beyond], norms[beyond]
            squared = squared[beyond]
    return np.array(picks, dtype=np.int64)


def _run_of_picks(features: Features, norms: Features, nearest: Features, most: int) -> list[int]:
    """Pick as many rows as the present candidates can decide, at least one."""
    if len(features) > _CANDIDATES:
        candidates = np.argpartition(nearest, -_CANDIDATES)[-_CANDIDATES:]
        candidates.sort()  # equal distances go to the lower index, as in the textbook loop
        outside = np.delete(nearest, candidates).max()
    else:
        candidates = np.arange(len(features))
        outside = np.float32(0.0)
    subset, subset_norms = features[candidates], norms[candidates]
    distance = nearest[candidates]

    run: list[int] = []
    while len(run) < most:
        best = int(distance.argmax())
        # An outsider as far as the best candidate may come first: look again at all of them.
        if run and (distance[best] <= outside or distance[best] == 0.0):
            break
        run.append(int(candidates[best]))
        to_best = subset_norms + subset_norms[best] - 2.0 * (subset @ subset[best])
        np.minimum(distance, to_best, out=distance)
        distance[best] = 0.0
    return run


def _update(nearest: Features, features: Features, norms: Features, picks: list[int]) -> None:
    """Lower the squared distances to the nearest pick in place, for picks that are new."""
    twice, centre_norms = -2.0 * features[picks].T, norms[picks]
    for start in range(0, len(features), _BLOCK):
        rows = slice(start, start + _BLOCK)
        squared = features[rows] @ twice
        squared += centre_norms
        np.minimum(nearest[rows], norms[rows] + squared.min(axis=1), out=nearest[rows])
    np.maximum(nearest, 0.0, out=nearest)
    nearest[picks] = 0.0
