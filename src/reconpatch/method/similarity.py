"""Similarities between the patches of a batch: the pseudo-labels of ReConPatch (eq. 1 to 6).

    z̄ ── pairwise_similarity (1) ─────────────────────────────┐
     └── neighbourhoods N_k, R_{k/2} (3) ── contextual (2, 4, 5) ┴── mix (6) ── w

All are functions of z̄, the output of the slowly updated twin. N is the number of patches in the
batch; every function that returns (N, N) keeps the input's dtype, float32 or float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def squared_distances(z: Reals) -> Reals:
    """||z_i - z_j||^2 for all pairs: (N, D) -> (N, N), 0 or more, exactly 0 on the diagonal."""
    norms = np.einsum("nd,nd->n", z, z)
    squared = z @ z.T
    squared *= -2.0
    squared += np.add.outer(norms, norms)  # one sum for both, or the result is not symmetric
    np.maximum(squared, 0.0, out=squared)
    np.fill_diagonal(squared, 0.0)
    return squared


def pairwise_similarity(squared: Reals, sigma: float) -> Reals:
    """w_pair(i, j) = exp(-||z̄_i - z̄_j||^2 / σ) (eq. 1), in (0, 1].

    Args:
        squared: (N, N) squared distances between the z̄.
        sigma: σ > 0, in squared units of z̄. The paper does not give it; it has a meaning only
            beside a scale, so z̄ is L2-normalised or σ is a multiple of the mean squared distance
            (see `reconpatch.method.representation`).
    """
    w = squared / -sigma
    np.exp(w, out=w)
    return w


def neighbourhoods(squared: Reals, k: int, *, include_self: bool) -> Ints:
    """N_k(i): indices of the k patches closest to each patch i, closest first.

    Args:
        squared: (N, N) squared distances between the z̄.
        k: number of neighbours, 1 to N (to N - 1 where i itself does not count).
        include_self: whether i counts among its k neighbours. The set always holds i itself (the
            paper's condition d_ii = 0 <= d_il); whether i takes one of the k places is not said.

    Returns:
        (N, k) int64, or (N, k + 1) where i does not count; column 0 is i itself. Of several
        patches at the k-th distance as many are taken as there is room for.
    """
    places = k if include_self else k + 1
    ranked = squared.copy()
    # Below every real distance, so that i comes first even among exact duplicates of itself.
    np.fill_diagonal(ranked, -1.0)
    nearest = np.argpartition(ranked, places - 1, axis=1)[:, :places]
    nearest.sort(axis=1)  # equal distances in the order of the batch
    order = np.take_along_axis(ranked, nearest, axis=1).argsort(axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1)


def membership(neighbours: Ints) -> Bools:
    """(N, k) neighbour indices -> (N, N) boolean, True where j is in N_k(i)."""
    n = len(neighbours)
    member = np.zeros((n, n), dtype=np.bool_)
    np.put_along_axis(member, neighbours, True, axis=1)
    return member


def shared_neighbours(neighbours: Ints) -> Reals:
    """w~(i, j) for the k neighbours j of each i (eq. 2), the only places where it is not 0.

    w~(i, j) = |N_k(i) ∩ N_k(j)| / |N_k(i)|: (N, k) indices -> (N, k) float64 in [1/k, 1]. Costs
    N k^2 look-ups; no product of N x N matrices is formed.
    """
    n = len(neighbours)
    # theirs[i, a, b] is the b-th neighbour of i's a-th neighbour.
    theirs = neighbours[neighbours]  # (N, k, k)
    shared: Reals = membership(neighbours)[np.arange(n)[:, None, None], theirs].mean(axis=2)
    return shared


def reciprocal_neighbours(neighbours: Ints) -> Bools:
    """R(i): which of the k neighbours j of i have i among theirs (eq. 3).

    (N, k) indices -> (N, k) boolean. True in column 0, since i is its own neighbour.
    """
    return membership(neighbours)[neighbours, np.arange(len(neighbours))[:, None]]


def contextual_similarity(
    squared: Reals, k: int, *, k_reciprocal: int, include_self: bool
) -> Reals:
    """w_ctx, how far two patches share their neighbours (eq. 4 and 5), symmetric, in [0, 1].

    Args:
        squared: (N, N) squared distances between the z̄.
        k: size of the neighbourhoods N_k of eq. 2.
        k_reciprocal: size k/2 of the neighbourhoods that R_{k/2} of eq. 4 is made of.
        include_self: see `neighbourhoods`.
    """
    n, others = len(squared), 0 if include_self else 1
    closest = neighbourhoods(squared, max(k, k_reciprocal), include_self=include_self)
    near, nearest = closest[:, : k + others], closest[:, : k_reciprocal + others]
    shared = shared_neighbours(near)  # (N, k)
    reciprocal = reciprocal_neighbours(nearest)  # (N, k/2)

    # Eq. 4: the row ŵ(i, ·) is the mean of the sparse rows w~(l, ·) over l in R_{k/2}(i).
    weight = reciprocal / reciprocal.sum(axis=1, keepdims=True)  # (N, k/2)
    places = np.arange(n)[:, None, None] * n + near[nearest]  # (N, k/2, k), in the N x N
    values = weight[:, :, None] * shared[nearest]
    expanded = np.bincount(places.ravel(), values.ravel(), n * n).reshape(n, n)
    expanded = expanded.astype(squared.dtype)
    return (expanded + expanded.T) / 2  # eq. 5


def mixed_similarity(pairwise: Reals, contextual: Reals, alpha: float) -> Reals:
    """w_ij = α w_pair(i, j) + (1 - α) w_ctx(i, j) (eq. 6), in [0, 1]; α in [0, 1]."""
    return alpha * pairwise + (1.0 - alpha) * contextual
