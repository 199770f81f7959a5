"""The relaxed contrastive loss (eq. 7): similar patches are pulled, dissimilar ones pushed.

Its gradient is written out; docs/method.md derives it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reconpatch.method.similarity import Reals, squared_distances

# Patches closer than this coincide: the gradient of a square root is unbounded near 0.
_SMALLEST_SQUARED_DISTANCE = 1e-12


class ContrastiveLoss(NamedTuple):
    """L_RC, as its two parts, and its gradient.

    Attributes:
        pull, push: the parts that similar and dissimilar patches have in it.
        gradient: (N, D) ∂L/∂z, of z's dtype.
    """

    pull: float
    push: float
    gradient: Reals

    @property
    def total(self) -> float:
        """L_RC of eq. 7."""
        return self.pull + self.push


class Distances(NamedTuple):
    """Distances in a batch, of z's dtype.

    Attributes:
        absolute: (N, N) d_ij = ||z_i - z_j||, 0 where two patches coincide.
        means: (N, 1) μ_i = (1/N) Σ_n d_in; n = i counts.
        relative: (N, N) δ_ij = d_ij / μ_i, which does not depend on the scale of z and is not
            symmetric.
    """

    absolute: Reals
    means: Reals
    relative: Reals


def distances(z: Reals) -> Distances:
    """The distances between the patches of a batch (N, D)."""
    d = squared_distances(z)
    d[d <= _SMALLEST_SQUARED_DISTANCE] = 0.0
    np.sqrt(d, out=d)
    means = d.mean(axis=1, keepdims=True)
    # All patches of a batch the same: nothing to compare, and no division by zero.
    np.maximum(means, _SMALLEST_SQUARED_DISTANCE, out=means)
    return Distances(d, means, d / means)


def relaxed_contrastive_loss(z: Reals, w: Reals, margin: float) -> ContrastiveLoss:
    """L_RC = (1/N) Σ_i Σ_j [w_ij δ_ij^2 + (1 - w_ij) max(m - δ_ij, 0)^2], over j != i (eq. 7).

    The diagonal is left out: δ_ii = 0 whatever f does, so it carries no information. The gradient
    flows through the means that δ is relative to, and none where two patches coincide.

    Args:
        z: (N, D) projected patches g(f(p)), float32 or float64.
        w: (N, N) similarities of eq. 6 in [0, 1], taken as given (no gradient), of z's dtype.
        margin: m > 0, in units of the mean distance; dissimilar patches further apart than that
            are left alone.
    """
    n = len(z)
    d, means, delta = distances(z)
    short = margin - delta
    np.maximum(short, 0.0, out=short)
    np.fill_diagonal(short, 0.0)
    pushed = (1.0 - w) * short
    push = np.vdot(pushed, short) / n
    G = w * delta
    pull = np.vdot(G, delta) / n

    # The letters of docs/method.md; matrices that are done with hold the next.
    G -= pushed
    G *= 2.0 / n  # ∂L/∂δ
    A = np.subtract(G, np.einsum("ij,ij->i", G, delta)[:, None] / n, out=G)
    A /= means  # ∂L/∂d
    S = np.add(A, A.T, out=pushed)
    d[d == 0.0] = np.inf  # no gradient where two patches coincide
    S /= d
    return ContrastiveLoss(float(pull), float(push), S.sum(axis=1, keepdims=True) * z - S @ z)
