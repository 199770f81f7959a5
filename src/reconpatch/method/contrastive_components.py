"""Learn f in closed form against made defects: contrastive components of patch features.

The contrastive loss pulls near good patches together and pushes others apart (eq. 7). Here the pull
is between a good patch and its nearest good patch on another part, whose differences have the
second moment C_g, and the push is between a patch of a made defect and its nearest good patch,
with the second moment C_d. A linear f should make the first small and keep the second:

    maximise  tr(F C_d F')  subject to  F C_g^(2p) F' = I

is solved by the leading eigenvectors of L C_d L with L = C_g^(-p): the generalised eigenvectors of
C_d against C_g for p = 1/2 (Fisher's discriminant; generalised contrastive PCA, Abid et al.,
Nature Communications 2018; the Fukunaga-Koontz transform), whitened less for a smaller p. With
C_d = I it is relevant component analysis (`reconpatch.method.relevant_components`).

Defects that a person has confirmed stand beside the made ones: C_d is a mixture of the two means,
the share of the confirmed growing with their number (`confirmed_share`).

    N patches, K dimensions of the principal basis, D of f
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reconpatch.method.coreset import greedy_coreset
from reconpatch.method.memory_bank import Floats
from reconpatch.method.relevant_components import Doubles, covariance, inverse_power, signed

PATCHES = 65536
"""Good patches, drawn at random, that the pull is taken from."""
ROWS = 2000
"""Rows of the coreset of those in which the nearest good patch is searched."""
SEARCHED = 128
"""Leading principal directions in which it is searched: those with nearly all of the variance."""
CONFIRMED_HALF = 8
"""Confirmed defects that count as much as all made ones together; see `confirmed_share`."""
_BLOCK = 1024  # queries at a time


class Moments:
    """Accumulate mean and second moment of patch features, photo by photo, for a principal basis.

    Takes the place of a `reconpatch.features.store.PatchStore` in a pass over photos.
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._shift = np.zeros(channels, np.float32)
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))

    def add(self, features: Floats) -> None:
        """Add the (B, P, C) features of B photos."""
        flat = features.reshape(-1, features.shape[-1])
        if not self._count:  # far from the origin the products would drown what patches differ in
            self._shift = flat[0].copy()
        flat = flat - self._shift
        self._count += len(flat)
        self._sum += flat.sum(axis=0, dtype=np.float64)
        self._products += flat.T @ flat

    @property
    def mean(self) -> Doubles:
        """(C,) mean."""
        mean: Doubles = self._shift + self._sum / max(self._count, 1)
        return mean

    @property
    def covariance(self) -> Doubles:
        """(C, C) covariance."""
        count = max(self._count, 1)
        mean = self._sum / count  # less the shift
        found: Doubles = self._products / count - np.outer(mean, mean)
        return found


class PrincipalBasis(NamedTuple):
    """The leading principal directions of p, levels and kinds of activations on one scale.

    Attributes:
        weight: (K, C) from p to its coordinates.
        bias: (K,), with which the good mean is at the origin.
        outputs: (d, K), the leading principal directions of the levels' outputs alone, what
            PatchCore compares, in those coordinates.
    """

    weight: Floats
    bias: Floats
    outputs: Floats


def principal_basis(
    moments: Moments, blocks: Sequence[tuple[int, bool]], dim: int, outputs: int
) -> PrincipalBasis:
    """Compute the principal basis of patch features.

    Each block of channels, one kind of activations of one level, is scaled to the same variance in
    all: a level must not count more because its numbers are larger or more of them.

    Args:
        moments: of the features of some good photos.
        blocks: channels in order, and whether they are outputs of a level.
        dim: K, directions to keep, at most C.
        outputs: d, directions to keep of the outputs alone; where those have fewer channels, the
            others are zero.
    """
    covariance = moments.covariance
    scale, is_output = np.empty(len(covariance)), np.empty(len(covariance), bool)
    start = 0
    for channels, output in blocks:
        block = slice(start, start := start + channels)
        variance = float(np.trace(covariance[block, block]))
        scale[block] = 1.0 / np.sqrt(variance) if variance > 0 else 0.0
        is_output[block] = output
    scaled = covariance * np.outer(scale, scale)
    directions = _leading(scaled, dim)  # (K, C)
    narrow = np.zeros((outputs, len(covariance)))
    found = _leading(scaled[np.ix_(is_output, is_output)], outputs)
    narrow[: len(found), is_output] = found
    weight = directions * scale
    bias = -(weight @ moments.mean)
    return PrincipalBasis(
        weight.astype(np.float32),
        bias.astype(np.float32),
        (narrow @ directions.T).astype(np.float32),
    )


def _leading(covariance: Doubles, dim: int) -> Doubles:
    """(D, C) eigenvectors of the largest eigenvalues, largest first; signs are fixed."""
    _, vectors = np.linalg.eigh(covariance)  # ascending
    return signed(vectors[:, ::-1].T[:dim])


@dataclass(frozen=True, eq=False)
class DefectPatches:
    """The patches of one defect.

    Attributes:
        features: (n, K) float32, of the patches that the defect covers.
        part: of the good photo that it was made on; `NO_PART` of a confirmed one.
    """

    features: Floats
    part: int


NO_PART = -1
"""The part of what is on no good photo: its nearest good patch may be on any of them."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """What a contrastive f is learned against.

    Attributes:
        defects: made defects; with none, f is that of relevant components.
        outputs: (d, K), `PrincipalBasis.outputs`.
        confirmed: defects that a person has confirmed, on no good photo.
    """

    defects: Sequence[DefectPatches]
    outputs: Floats
    confirmed: Sequence[DefectPatches] = ()


def confirmed_share(count: int) -> float:
    """What share of C_d that many confirmed defects have, 0 to 1: n / (n + CONFIRMED_HALF).

    A few show a few of the directions that defects take, by chance; the made ones show more, though
    none that is real. So the share grows with their number, as that of observations beside a prior
    worth `CONFIRMED_HALF` of them.
    """
    return count / (count + CONFIRMED_HALF)


def contrastive_components(
    patches: Floats,
    parts: npt.NDArray[np.int64],
    contrast: Contrast,
    *,
    dim: int,
    power: float,
    gain: float,
    shrink: float,
    share: float,
    rng: np.random.Generator,
) -> Floats:
    """Compute the weight of f: principal directions of the outputs, then contrastive components.

    The two halves are brought to one scale, the mean distance of a good patch to its nearest on
    another part: f's distances are those of PatchCore and of the contrastive components together.

    Args:
        patches: (N, K) float32 or float16 good patches in the principal basis, widest direction
            first.
        parts: (N,) the part that each patch is of, two different ones at least.
        contrast: made defects, and the principal directions of the outputs.
        dim: D, at least d; D - d contrastive components are taken.
        power: p above.
        gain: each component is scaled by its eigenvalue, divided by the largest, to this power.
        shrink: share of the identity that is mixed into C_g, of the same trace.
        share: how much the contrastive half counts beside the principal one.
        rng: draws the patches.

    Returns:
        (D, K) float32.
    """
    return ContrastiveComponents(
        patches, parts, dim=dim, power=power, gain=gain, shrink=shrink, share=share, rng=rng
    )(contrast)


class ContrastiveComponents:
    """`contrastive_components` of one set of good patches, against one contrast after the other.

    What good patches differ in is searched once; a moment of defects takes little beside it.
    """

    def __init__(
        self,
        patches: Floats,
        parts: npt.NDArray[np.int64],
        *,
        dim: int,
        power: float,
        gain: float,
        shrink: float,
        share: float,
        rng: np.random.Generator,
    ) -> None:
        drawn = np.sort(rng.permutation(len(patches))[:PATCHES])
        self._search = search = _OtherParts.of(patches, parts, drawn, rng)
        self._good = np.zeros((patches.shape[1],) * 2)
        for start in range(0, len(drawn), _BLOCK):
            block = drawn[start : start + _BLOCK]
            differences = search.differences(_singles(patches[block]), parts[block])
            self._good += (differences.T @ differences) / len(drawn)
        some = drawn[rng.permutation(len(drawn))[: 2 * _BLOCK]]
        self._some = _singles(patches[some]), parts[some]
        self._dim, self._share = dim, share
        self._power, self._gain, self._shrink = power, gain, shrink

    def __call__(self, contrast: Contrast) -> Floats:
        """(D, K) float32, the weight of f against a contrast."""
        pushed = self._pushed(contrast)
        components = _generalised(
            self._good, pushed, self._dim - len(contrast.outputs), self._power, self._gain,
            self._shrink,
        )  # fmt: skip
        halves = [
            weight * (times / self._search.mean_distance(*self._some, weight))
            for weight, times in (
                (contrast.outputs, 1.0),
                (components.astype(np.float32), self._share),
            )
        ]
        return np.concatenate(halves).astype(np.float32)

    def _pushed(self, contrast: Contrast) -> Doubles:
        """(K, K) C_d up to its scale, which does not count.

        Where no defect covers an inspected patch, every direction is worth as much.
        """
        made = sum(self._moments(contrast.defects), np.zeros_like(self._good))
        # Few are confirmed: an obvious one must not drown a faint one, so each has the same energy.
        confirmed = np.zeros_like(self._good)
        for moment in self._moments(contrast.confirmed):
            confirmed += moment / (np.trace(moment) or 1.0)
        if confirmed.any():
            share = confirmed_share(len(contrast.confirmed))
            made *= (1.0 - share) / (np.trace(made) or 1.0)
            made += confirmed * (share / np.trace(confirmed))
        return made if made.any() else np.eye(len(made))

    def _moments(self, defects: Sequence[DefectPatches]) -> Iterator[Doubles]:
        """(K, K) second moment of each defect, however many patches it covers."""
        for defect in defects:
            part = np.full(len(defect.features), defect.part)
            yield covariance(self._search.differences(defect.features, part))


def _generalised(
    good: Doubles, pushed: Doubles, dim: int, power: float, gain: float, shrink: float
) -> Doubles:
    """(dim, K) leading eigenvectors of L C_d L, times L and their eigenvalue's power.

    C_g is divided by the mean of its diagonal: its scale does not count. Where it is zero, as every
    patch has its like on another part, there is nothing to forget, and L is the identity.
    """
    root = inverse_power(good, 2.0 * power, shrink)
    values, vectors = np.linalg.eigh(root @ pushed @ root)  # ascending
    values, vectors = np.maximum(values[::-1][:dim], 0.0), vectors[:, ::-1][:, :dim]
    largest = values[0] if values[0] > 0 else 1.0
    found: Doubles = ((values / largest) ** gain)[:, None] * (signed(vectors.T) @ root)
    return found


def _singles(patches: Floats) -> Floats:
    """Patches in float32, of which some are kept in half precision."""
    return patches.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class _OtherParts:
    """Good patches among which the nearest one on another part is searched."""

    rows: Floats  # (M, K)
    parts: npt.NDArray[np.int64]  # (M,)

    @classmethod
    def of(
        cls,
        patches: Floats,
        parts: npt.NDArray[np.int64],
        drawn: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> _OtherParts:
        """A coreset of those of the (N, K) patches that are drawn, of two parts at least."""
        first = int(rng.integers(len(drawn)))
        count = min(ROWS, len(drawn))
        searched = np.concatenate(
            [_singles(patches[block, :SEARCHED]) for block in np.array_split(drawn, 16)]
        )
        picked = drawn[greedy_coreset(searched, count, first=first).indices]
        if len(np.unique(parts[picked])) == 1:  # every patch needs one of another part
            others = drawn[parts[drawn] != parts[picked[0]]]
            picked = np.append(picked, others[:1])
        return cls(_singles(patches[picked]), parts[picked])

    def differences(self, patches: Floats, parts: npt.NDArray[np.int64]) -> Floats:
        """(N, K) patches less their nearest row of another part."""
        nearest = self._nearest(patches[:, :SEARCHED], parts, self.rows[:, :SEARCHED])[0]
        return patches - self.rows[nearest]

    def mean_distance(self, patches: Floats, parts: npt.NDArray[np.int64], weight: Floats) -> float:
        """Mean distance of (N, K) patches to their nearest row of another part by a (D, K) f."""
        squared = self._nearest(patches @ weight.T, parts, self.rows @ weight.T)[1]
        mean = float(np.sqrt(np.maximum(squared, 0.0)).mean())
        return mean if mean > 0 else 1.0

    def _nearest(
        self, queries: Floats, parts: npt.NDArray[np.int64], rows: Floats
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """(N,) nearest row of another part, and (N,) squared distances to it."""
        norms = np.einsum("md,md->m", rows, rows)
        nearest, squared = np.empty(len(queries), np.int64), np.empty(len(queries), np.float32)
        for start in range(0, len(queries), _BLOCK):
            part = slice(start, start + _BLOCK)
            found = (-2.0 * queries[part]) @ rows.T
            found += norms
            found[parts[part][:, None] == self.parts[None, :]] = np.inf
            nearest[part] = found.argmin(axis=1)
            closest = np.take_along_axis(found, nearest[part][:, None], 1)[:, 0]
            squared[part] = closest + np.einsum("nd,nd->n", queries[part], queries[part])
        return nearest, squared
