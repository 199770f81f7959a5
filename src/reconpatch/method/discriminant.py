"""Fisher's linear discriminant: on which side of the good patches confirmed defects lie.

    w = (S + S_d / 2 + shrink tr(S) / D I)^-1 (m_d - m),   scaled to w' S w = 1

with the mean m and covariance S of good patches, the mean m_d of the defects' means, so that a
large defect counts no more than a small one, and S_d the mean covariance within a defect (Fisher,
"The use of multiple measurements in taxonomic problems", 1936; shrunk towards a sphere, since a few
defects have fewer patches than there are dimensions).

Distances are alike in all directions. The discriminant is not: a patch that is as far from the
good ones as another, and on the side of the defects, is the more likely defect.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from reconpatch.method.contrastive_components import Moments
from reconpatch.method.memory_bank import Floats
from reconpatch.method.relevant_components import covariance

SHRINK = 0.5
"""Share of the mean variance of good patches that is added in every direction: 0.01 to 1 find
development categories' defects alike (docs/research.md)."""


def discriminant(good: Iterable[Floats], defects: Sequence[Floats]) -> Floats | None:
    """Compute the discriminant of confirmed defects.

    Args:
        good: (b, P, D) float32 represented patches of good photos, a block at a time.
        defects: (k, D) float32 represented patches of each confirmed defect, one or more of each.

    Returns:
        (D + 1,) float32: w, then -w m. With them r w - w m is how far a patch r lies towards the
        defects, in standard deviations of good patches. None where good patches do not vary, or
        the defects' mean is theirs.
    """
    moments: Moments | None = None
    for block in good:
        moments = moments or Moments(block.shape[-1])
        moments.add(block)
    assert moments is not None, "a block of good patches at least"
    mean, spread = moments.mean, moments.covariance
    within = np.mean([covariance(r - r.mean(axis=0)) for r in defects], axis=0)
    towards = np.mean([r.mean(axis=0, dtype=np.float64) for r in defects], axis=0) - mean
    scale = np.trace(spread) / len(spread)
    if not scale > 0:
        return None
    w = np.linalg.solve(spread + within / 2 + SHRINK * scale * np.eye(len(spread)), towards)
    deviation = float(np.sqrt(w @ spread @ w))
    if not deviation > 0:
        return None
    w /= deviation
    return np.append(w, -(w @ mean)).astype(np.float32)
