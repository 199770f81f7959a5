"""The photo as a whole: what it is made of, wherever that lies.

Of a set with a part missing, doubled or of another kind each patch may look good: what is wrong is
how much there is of what. The composition of a photo is the mean of its represented patches, and it
is compared as patches are, with the nearest good one:

    c = min_j || (mean_t r_t - mean_t r_t^j) W ||,   W W' = S^-1

S is the covariance of the good photos' compositions, shrunk towards a sphere as far as their number
asks (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
Journal of Multivariate Analysis 2004). What varies among good photos counts for less.

Both scores in standard deviations of good photos, each as if it were new, from their mean, the
image score becomes their smooth maximum:

    s' = mean_s + sd_s log(exp((s - mean_s) / sd_s) + exp(weight (c - mean_c) / sd_c))

    n good photos, D dimensions of r
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Composition:
    """The compositions of good photos, and how one becomes part of the image score.

    Attributes:
        means: (n, D) float32, of the good photos that are scored as if they were new, then of
            confirmed false alarms.
        groups: (n,) int64, the part that each is of.
        first: (n,) bool, which of two halves each is in; a part is in one.
        scored: how many are of the former: W is made by them alone, for a false alarm that was
            chosen by its verdict would stretch it along what is wrong with its like.
        whitening: (D, D) float32, W.
        units: (4,) float32: mean and standard deviation of the good photos' scores by patches
            alone, and of their c; the latter divided by the weight.
    """

    means: Floats
    groups: Ints
    first: Bools
    scored: int
    whitening: Floats
    units: Floats

    @classmethod
    def of(cls, means: Floats, groups: Ints, scores: Scores, weight: float) -> Composition | None:
        """The composition of good photos.

        Args:
            means: (n, D) float32, of two groups at least.
            groups: (n,) int64.
            scores: (n,) image scores by patches alone, each photo as if it were new.
            weight: how much it counts beside patches.

        Returns:
            None where one of the scores does not vary.
        """
        nothing = np.zeros(4, np.float32)
        bare = cls(means, groups, halved(groups), len(means), whitening_of(means), nothing)
        own = bare.leave_one_out
        if not (_varies(scores) and _varies(own)):
            return None
        units = scores.mean(), scores.std(), own.mean(), own.std() / weight
        return replace(bare, units=np.array(units, np.float32))

    def with_photos(self, means: Floats, groups: Ints, first: Bools, scored: int) -> Composition:
        """That of other photos, in the same units: scores before and after compare."""
        whitening = whitening_of(means[:scored])
        return Composition(means, groups, first, scored, whitening, self.units)

    @cached_property
    def rows(self) -> Floats:
        """(n, D) float32, the whitened means."""
        rows: Floats = self.means @ self.whitening
        return rows

    def distances(self, means: Floats) -> Floats:
        """(m,) float32, c of (m, D) means."""
        whitened = means @ self.whitening
        return np.array([np.linalg.norm(self.rows - one, axis=1).min() for one in whitened])

    @cached_property
    def halves(self) -> tuple[Composition, Composition]:
        """That of the first half, and that of the other."""
        return self._some(self.first), self._some(~self.first)

    def _some(self, chosen: Bools) -> Composition:
        if not chosen[: self.scored].any():  # a single part
            chosen = np.ones(len(self.means), np.bool_)
        scored = int(chosen[: self.scored].sum())
        of = self.means[chosen], self.groups[chosen], self.first[chosen]
        return self.with_photos(*of, scored)

    def without(self, group: int) -> Composition:
        """That of the half that a group is not in; all of it for a group that it does not know.

        A photo that W was made with is near to all by it, and a new one is not; so W is made
        without it, and of half of the photos once instead of all but one each time.
        """
        its = np.flatnonzero(self.groups == group)
        if not len(its):
            return self
        return self.halves[1 if self.first[its[0]] else 0]

    @cached_property
    def leave_one_out(self) -> Scores:
        """(scored,) float64, c of each good photo as if it were new, by the half it is not in.

        By half of the photos it is rather too large: a threshold is never set too low by that.
        """
        found = np.empty(self.scored)
        first = self.first[: self.scored]
        for half, chosen in zip(self.halves, (~first, first), strict=True):
            found[chosen] = half.distances(self.means[: self.scored][chosen])
        return found

    def joined(self, scores: Scores, c: Scores) -> Scores:
        """Join (m,) scores by patches alone with (m,) c to s'."""
        by_patches, whole = self._standard(scores, c)
        mean, deviation = self.units[:2].astype(np.float64)
        joined: Scores = mean + deviation * np.logaddexp(by_patches, whole)
        return joined

    def _standard(self, scores: Scores, c: Scores) -> tuple[Scores, Scores]:
        """Both in standard deviations of good photos from their mean, c times the weight."""
        mean, deviation, mean_c, deviation_c = self.units.astype(np.float64)
        return (scores - mean) / deviation, (c - mean_c) / deviation_c

    def share(self, joined: Scores, c: Scores) -> Scores:
        """How much of (m,) s' is the composition's, 0 to 1: exp(its term) of the sum of both."""
        together, whole = self._standard(joined, c)
        share: Scores = np.exp(np.minimum(whole - together, 0.0))
        return share

    def of_patches(self, patches: Floats) -> Scores:
        """(1,) c of a photo's (P, D) patches."""
        mean = patches.mean(axis=0, dtype=np.float64, keepdims=True)
        return self.distances(mean.astype(np.float32)).astype(np.float64)


def halved(groups: Ints) -> Bools:
    """(n,) bool: whether the group of each photo is in the first half of the (n,) groups.

    Photos that were taken one after the other are alike: drawn at random, or taken in turn, each
    would have its neighbours in the other half, and a new photo has none.
    """
    different, number = np.unique(groups, return_inverse=True)
    first: Bools = number < (len(different) + 1) // 2
    return first


def _varies(scores: Scores) -> bool:
    """Whether scores differ by more than rounding."""
    return bool(scores.std() > 1e-6 * np.abs(scores).mean())


def whitening_of(means: Floats) -> Floats:
    """(D, D) float32: the W that (n, D) means are whitened by, their covariance shrunk."""
    values, vectors = np.linalg.eigh(shrunk_covariance(means))  # ascending
    # Where no mean varies there is nothing to undo, and without any variance nothing to scale by.
    least = 1e-9 * values[-1] if values[-1] > 0 else 1.0
    whitening: Floats = (vectors / np.sqrt(np.maximum(values, least))).astype(np.float32)
    return whitening


def shrunk_covariance(means: Floats) -> Doubles:
    """Compute the (D, D) Ledoit-Wolf covariance of (n, D) means.

    (1 - b) S + b tr(S) / D I, where b is the expected squared error of S as a share of the squared
    distance of S from the sphere, both estimated from the means: few of them give a sphere.
    """
    x = means.astype(np.float64) - means.mean(axis=0, dtype=np.float64)
    n, dim = x.shape
    spread: Doubles = x.T @ x / n
    sphere = np.trace(spread) / dim * np.eye(dim)
    off = ((spread - sphere) ** 2).sum()
    if not off > 0:
        return spread
    fourth = ((x**2).sum(axis=1) ** 2).sum() / n
    error = max((fourth - (spread**2).sum()) / n, 0.0)
    share = min(error / off, 1.0)
    shrunk: Doubles = (1.0 - share) * spread + share * sphere
    return shrunk
