"""Learn f in closed form from good patches alone: relevant component analysis.

The contrastive loss pulls similar patches together and pushes others apart (eq. 7). Its pull has a
closed-form solution: of all linear f of one volume, the inverse square root of the covariance of
the differences between similar patches brings them closest together (relevant component analysis,
Bar-Hillel et al., ICML 2003). Here a pair of similar patches is a patch and the nearest patch on
another part. Their difference is variation between good parts, which f suppresses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reconpatch.method.memory_bank import Floats

Doubles = npt.NDArray[np.float64]

# The nearest patches of this many are searched among that many: more of either changes no result
# by more than another seed does (docs/research.md).
QUERIES = 4096
POOL = 65536
_BLOCK = 64  # queries at a time: 16 MiB of distances


def relevant_components(
    patches: Floats,
    parts: npt.NDArray[np.int64],
    *,
    dim: int,
    power: float,
    shrink: float,
    rng: np.random.Generator,
) -> Floats:
    """Compute the weight of f that whitens the differences between nearest patches of two parts.

    Args:
        patches: (P, C) float32 patch features of the good photos.
        parts: (P,) the part that each patch is of, two different ones at least.
        dim: D, rows to return, at most C: the directions in which good patches differ most after
            the change, leading ones first. D = C returns a symmetric matrix.
        power: 0 leaves p as it is, 1 whitens the differences; between, each standard deviation is
            divided by its own power.
        shrink: share of the identity that is mixed into the covariance, of the same trace.
        rng: draws the patches.

    Returns:
        (D, C) float32.
    """
    weight = inverse_power(covariance(nearest_differences(patches, parts, rng)), power, shrink)
    if dim < patches.shape[1]:
        weight = _leading(patches, weight, dim)
    return weight.astype(np.float32)


def nearest_differences(
    patches: Floats, parts: npt.NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Compute (Q, C) differences between patches and the nearest patch of another part.

    Args:
        patches: (P, C) float32.
        parts: (P,) the part that each patch is of, two different ones at least.
        rng: draws the patches.
    """
    queries = rng.permutation(len(patches))[:QUERIES]
    pool = rng.permutation(len(patches))[:POOL]
    if len(np.unique(parts[pool])) == 1:  # every patch needs one of another part in the pool
        pool = np.append(pool, np.flatnonzero(parts != parts[pool[0]])[:1])
    pooled = patches[pool]
    # Far from the origin the product's form would lose the digits that tell patches apart.
    centre = pooled.mean(axis=0)
    pooled -= centre
    norms = np.einsum("pc,pc->p", pooled, pooled)
    found = []
    for start in range(0, len(queries), _BLOCK):
        q = queries[start : start + _BLOCK]
        squared = (-2.0 * (patches[q] - centre)) @ pooled.T
        squared += norms  # up to ||q||^2, which is the same for all
        squared[parts[q][:, None] == parts[pool][None, :]] = np.inf
        found.append(patches[q] - patches[pool[squared.argmin(axis=1)]])
    return np.concatenate(found)


def covariance(differences: Floats) -> Doubles:
    """Compute the (C, C) mean outer product of (Q, C) differences, whose mean is 0 by symmetry."""
    x = differences.astype(np.float64)
    product: Doubles = x.T @ x / len(x)
    return product


def inverse_power(matrix: Doubles, power: float, shrink: float) -> Doubles:
    """((1 - shrink) K / (tr K / C) + shrink I) ^ (-power / 2) of a covariance K: (C, C).

    Where K is 0, as all such patches are the same, there is nothing to undo: the identity.
    """
    identity = np.eye(len(matrix))
    scale = np.trace(matrix) / len(matrix)
    if not scale > 0:
        return identity
    values, vectors = np.linalg.eigh((1.0 - shrink) * matrix / scale + shrink * identity)
    # Rounding makes the smallest eigenvalues of a matrix without full rank negative.
    values = np.maximum(values, 1e-9)
    result: Doubles = (vectors * values ** (-power / 2.0)) @ vectors.T
    return result


def _leading(patches: Floats, weight: Doubles, dim: int) -> Doubles:
    """The `dim` directions of largest variance of the patches after a (C, C) weight."""
    centred = (patches - patches.mean(axis=0)).astype(np.float32)
    spread = weight @ ((centred.T @ centred).astype(np.float64) / len(centred)) @ weight.T
    _, vectors = np.linalg.eigh(spread)  # ascending
    directions: Doubles = vectors[:, ::-1][:, :dim].T @ weight
    return directions


def signed(rows: Doubles) -> Doubles:
    """Make the largest entry of each row positive: an eigenvector's sign is arbitrary."""
    largest = np.abs(rows).argmax(axis=1)
    signed: Doubles = rows * np.sign(rows[np.arange(len(rows)), largest])[:, None]
    return signed
