"""Similarities between the patches of a batch: the pseudo-labels of ReConPatch (eq. 1 to 6).

    z̄ ── pairwise_similarity (1) ─────────────────────────────┐
     └── neighbourhoods N_k, R_{k/2} (3) ── contextual (2, 4, 5) ┴── mix (6) ── w

All are functions of z̄, the output of the slowly updated twin, and carry no gradient. N is the
number of patches in the batch; every function returns (N, N) of the input's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(z: Tensor) -> Tensor:
    """||z_i - z_j||^2 for all pairs: (N, D) -> (N, N), 0 or more, exactly 0 on the diagonal."""
    norms = z.square().sum(dim=1)
    distances = norms[:, None] + norms[None, :] - 2.0 * (z @ z.T)
    return distances.clamp(min=0.0).fill_diagonal_(0.0)


def pairwise_similarity(squared: Tensor, sigma: float) -> Tensor:
    """w_pair(i, j) = exp(-||z̄_i - z̄_j||^2 / σ) (eq. 1), in (0, 1].

    Args:
        squared: (N, N) squared distances between the z̄.
        sigma: σ > 0, in squared units of z̄. The paper does not give it; it has a meaning only
            beside a scale, so z̄ is L2-normalised or σ is a multiple of the mean squared distance
            (see `reconpatch.method.representation`).
    """
    return torch.exp(-squared / sigma)


def neighbourhoods(squared: Tensor, k: int, *, include_self: bool) -> Tensor:
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
    # Below every real distance, so that i comes first even among exact duplicates of itself.
    ranked = squared.clone().fill_diagonal_(-1.0)
    return ranked.topk(places, dim=1, largest=False, sorted=True).indices


def membership(neighbours: Tensor) -> Tensor:
    """(N, k) neighbour indices -> (N, N) boolean, True where j is in N_k(i)."""
    n = neighbours.shape[0]
    member = torch.zeros(n, n, dtype=torch.bool, device=neighbours.device)
    return member.scatter_(1, neighbours, True)


def shared_neighbours(neighbours: Tensor) -> Tensor:
    """w~(i, j) for the k neighbours j of each i (eq. 2), the only places where it is not 0.

    w~(i, j) = |N_k(i) ∩ N_k(j)| / |N_k(i)|: (N, k) indices -> (N, k) float32 in [1/k, 1]. Costs
    N k^2 look-ups; no product of N x N matrices is formed.
    """
    k = neighbours.shape[1]
    member = membership(neighbours)
    # theirs[i, a, b] is the b-th neighbour of i's a-th neighbour.
    theirs = neighbours[neighbours]  # (N, k, k)
    rows = torch.arange(len(neighbours), device=neighbours.device)[:, None, None]
    return member[rows, theirs].sum(dim=2).float() / k


def reciprocal_neighbours(neighbours: Tensor) -> Tensor:
    """R(i): which of the k neighbours j of i have i among theirs (eq. 3).

    (N, k) indices -> (N, k) boolean. True in column 0, since i is its own neighbour.
    """
    rows = torch.arange(len(neighbours), device=neighbours.device)[:, None]
    return membership(neighbours)[neighbours, rows]


def contextual_similarity(
    squared: Tensor, k: int, *, k_reciprocal: int, include_self: bool
) -> Tensor:
    """w_ctx, how far two patches share their neighbours (eq. 4 and 5), symmetric, in [0, 1].

    Args:
        squared: (N, N) squared distances between the z̄.
        k: size of the neighbourhoods N_k of eq. 2.
        k_reciprocal: size k/2 of the neighbourhoods that R_{k/2} of eq. 4 is made of.
        include_self: see `neighbourhoods`.
    """
    n = squared.shape[0]
    near = neighbourhoods(squared, k, include_self=include_self)  # (N, k)
    shared = shared_neighbours(near)  # (N, k)
    nearest = neighbourhoods(squared, k_reciprocal, include_self=include_self)  # (N, k/2)
    reciprocal = reciprocal_neighbours(nearest).to(shared.dtype)  # (N, k/2)

    # Eq. 4: the row ŵ(i, ·) is the mean of the sparse rows w~(l, ·) over l in R_{k/2}(i).
    weight = reciprocal / reciprocal.sum(dim=1, keepdim=True)  # (N, k/2)
    columns = near[nearest].flatten(1)  # (N, k/2 * k)
    values = (weight[:, :, None] * shared[nearest]).flatten(1)
    expanded = torch.zeros(n, n, dtype=shared.dtype, device=squared.device)
    expanded.scatter_add_(1, columns, values)
    return ((expanded + expanded.T) / 2).to(squared.dtype)  # eq. 5


def mixed_similarity(pairwise: Tensor, contextual: Tensor, alpha: float) -> Tensor:
    """w_ij = α w_pair(i, j) + (1 - α) w_ctx(i, j) (eq. 6), in [0, 1]; α in [0, 1]."""
    return alpha * pairwise + (1.0 - alpha) * contextual
