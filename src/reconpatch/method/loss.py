"""The relaxed contrastive loss (eq. 7): similar patches are pulled, dissimilar ones pushed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reconpatch.method.similarity import squared_distances

# Patches closer than this coincide: the gradient of a square root is unbounded near 0.
_SMALLEST_SQUARED_DISTANCE = 1e-12


class ContrastiveLoss(NamedTuple):
    """L_RC and its two parts, each a scalar tensor: total = pull + push."""

    pull: Tensor
    push: Tensor

    @property
    def total(self) -> Tensor:
        """L_RC of eq. 7."""
        return self.pull + self.push


def relative_distances(z: Tensor) -> Tensor:
    """δ_ij = ||z_i - z_j|| / ((1/N) Σ_n ||z_i - z_n||): (N, D) -> (N, N), 0 or more.

    Each row is divided by its own mean, so the result does not depend on the scale of z and is
    not symmetric. The gradient flows through the mean, and the sum runs over n = i as well. Where
    two patches coincide, δ is 0 and no gradient flows.
    """
    squared = squared_distances(z)
    apart = squared > _SMALLEST_SQUARED_DISTANCE  # False on the diagonal
    distances = torch.where(apart, squared, 1.0).sqrt() * apart
    mean = distances.mean(dim=1, keepdim=True)
    # All patches of a batch the same: nothing to compare, and no division by zero.
    return distances / mean.clamp(min=_SMALLEST_SQUARED_DISTANCE)


def off_diagonal(matrix: Tensor) -> Tensor:
    """(N, N) of ones with zeros on the diagonal, of the dtype and device of `matrix`."""
    return torch.ones_like(matrix).fill_diagonal_(0.0)


def relaxed_contrastive_loss(z: Tensor, w: Tensor, margin: float) -> ContrastiveLoss:
    """L_RC = (1/N) Σ_i Σ_j [w_ij δ_ij^2 + (1 - w_ij) max(m - δ_ij, 0)^2], over j != i (eq. 7).

    The diagonal is left out: δ_ii = 0 whatever f does, so it carries no information.

    Args:
        z: (N, D) projected patches g(f(p)); gradients flow into them.
        w: (N, N) similarities of eq. 6 in [0, 1], taken as given (no gradient).
        margin: m > 0, in units of the mean distance; dissimilar patches further apart than that
            are left alone.
    """
    delta = relative_distances(z)
    w = w.detach()
    others = off_diagonal(delta)
    pull = (w * delta.square() * others).sum() / len(z)
    push = ((1.0 - w) * (margin - delta).clamp(min=0.0).square() * others).sum() / len(z)
    return ContrastiveLoss(pull, push)
