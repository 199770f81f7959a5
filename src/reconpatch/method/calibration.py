"""Set a threshold at a promised false-alarm rate from good photos alone (split conformal).

The promise: if a new good photo looks like the good photos of the calibration (in statistics:
exchangeable with them), it is flagged with a probability of at most the promised rate, averaged
over fits. What one particular fit will show is spread around that as a beta distribution, which
`rate_range` gives. No more than that is promised: not for photos that look different, not for one
fit, and nothing about how many defects are found.

Reference: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; for the beta
distribution, Vovk, "Conditional validity of inductive conformal predictors", 2012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from reconpatch.errors import NotEnoughPhotosError, SettingsError

Scores = npt.NDArray[np.float64]

DEFAULT_FALSE_ALARM_RATE = 0.01
# Level of the test for good photos that look different from those of the calibration.
SHIFT_TEST_LEVEL = 0.01


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it promises.

    Attributes:
        value: photos that score more than this are anomalous.
        asked_rate: the false-alarm rate that was asked for.
        stated_rate: the rate that this many photos can promise: at most the one asked for where
            there are enough photos, else 1 / (n + 1).
        photos: n, the number of calibration scores.
        rank: k, the order statistic (1-based, ascending) that the threshold follows.
    """

    value: float
    asked_rate: float
    stated_rate: float
    photos: int
    rank: int

    @property
    def enough_photos(self) -> bool:
        """Whether the rate asked for can be promised with this many photos."""
        return self.stated_rate <= self.asked_rate

    def rate_range(self, coverage: float = 0.90) -> tuple[float, float]:
        """The central range of the true false-alarm rate over fits with this many photos.

        The rate of one fit is distributed as Beta(n + 1 - k, k); `coverage` of all fits lie between
        the two values returned.
        """
        a, b = self.photos + 1 - self.rank, self.rank
        if b == 0:  # a threshold set by hand below every good score
            return 1.0, 1.0
        tail = (1.0 - coverage) / 2.0
        return beta_quantile(tail, a, b), beta_quantile(1.0 - tail, a, b)


def photos_needed(rate: float) -> int:
    """Return the smallest number of good photos that can promise a rate: 99 for 0.01."""
    return math.ceil(1 / _exact(rate)) - 1


def conformal_threshold(scores: Scores, rate: float = DEFAULT_FALSE_ALARM_RATE) -> Threshold:
    """Compute the threshold at a false-alarm rate from the scores of good photos.

    k = ceil((n + 1)(1 - rate)) of n scores, the finite-sample quantile of split conformal
    prediction; the value lies midway between the k-th smallest score and the next larger one, so
    that no photo sits on it. With too few photos for the rate it is the largest score.

    Args:
        scores: (n,) image scores of good photos, each as if the photo were new; n >= 1.
        rate: between 0 and 1, both excluded.

    Raises:
        SettingsError: the rate is not between 0 and 1.
        NotEnoughPhotosError: there is no score.
    """
    check_rate(rate)
    n = len(scores)
    if n == 0:
        raise NotEnoughPhotosError(
            "no good photo was scored, so no threshold can be set: give at least one, "
            f"and {photos_needed(rate)} for a false-alarm rate of {rate:g}"
        )
    return _threshold_of_rank(scores, min(math.ceil((n + 1) * (1 - _exact(rate))), n), rate)


def _threshold_of_rank(scores: Scores, k: int, rate: float) -> Threshold:
    """Return the middle of the k-th smallest score and the next larger one, if there is one."""
    n = len(scores)
    ordered = np.sort(scores)
    larger = ordered[ordered > ordered[k - 1]]
    value = (ordered[k - 1] + larger[0]) / 2 if len(larger) else ordered[-1]
    return Threshold(float(value), rate, (n + 1 - k) / (n + 1), n, k)


def threshold_at(scores: Scores, value: float) -> Threshold:
    """Compute what a threshold set by hand promises: (1 + #{scores > value}) / (n + 1)."""
    n = len(scores)
    rank = int((scores <= value).sum())
    rate = (n + 1 - rank) / (n + 1)
    return Threshold(value, rate, rate, n, rank)


def check_rate(rate: float) -> None:
    """Refuse a false-alarm rate outside of the open interval from 0 to 1."""
    if not 0.0 < rate < 1.0:
        raise SettingsError(
            f"the false-alarm rate is {rate:g}: give a number between 0 and 1, "
            "such as 0.01 for one good photo in a hundred"
        )


def p_value(score: float, scores: Scores) -> float:
    """(1 + #{calibration scores >= score}) / (n + 1), in (0, 1].

    The share of good photos, this one counted among them, that look at least as unusual; a score
    above the threshold of a rate has a p-value of at most that rate (too few photos apart).
    """
    return (1 + int((scores >= score).sum())) / (len(scores) + 1)


def _exact(rate: float) -> Fraction:
    """Convert to the decimal number that was written: 0.1 is a tenth, not the float next to it."""
    return Fraction(str(rate))


@dataclass(frozen=True, eq=False)
class Calibration:
    """The scores of good photos that the thresholds follow, and the thresholds.

    Attributes:
        scores: (n,) float64 image scores, each photo as if it were new.
        map_maxima: (n,) float64, the largest value of each photo's anomaly map.
        rate: the false-alarm rate asked for.
        source: where the scores come from, in plain words.
        set_by_hand: an image threshold that replaces the calibrated one, or None.
    """

    scores: Scores
    map_maxima: Scores
    rate: float
    source: str
    set_by_hand: float | None = None

    @cached_property
    def image_threshold(self) -> Threshold:
        """The threshold of the image score."""
        if self.set_by_hand is not None:
            return threshold_at(self.scores, self.set_by_hand)
        return conformal_threshold(self.scores, self.rate)

    @cached_property
    def map_threshold(self) -> Threshold:
        """The threshold of the anomaly map: exceeded somewhere in as many good photos."""
        if self.set_by_hand is None:
            return conformal_threshold(self.map_maxima, self.rate)
        image = self.image_threshold
        return _threshold_of_rank(self.map_maxima, max(image.rank, 1), image.asked_rate)

    @property
    def promise(self) -> str:
        """What the image threshold promises, and what not, in plain words."""
        threshold = self.image_threshold
        n = threshold.photos
        sentence = promise(threshold.stated_rate, threshold.rate_range(), n)
        return " ".join([sentence, *self.notes])

    @property
    def notes(self) -> list[str]:
        """What stands between the rate asked for and the one promised, if anything does."""
        threshold = self.image_threshold
        if self.set_by_hand is not None:
            return ["The threshold was set by hand."]
        if threshold.enough_photos:
            return []
        return [
            f"A false-alarm rate of {self.rate:g} was asked for; {threshold.photos} good photos "
            f"cannot promise less than {threshold.stated_rate:.2%}, it takes "
            f"{photos_needed(self.rate)}. The threshold is the largest score of a good photo."
        ]


def promise(rate: float, rate_range: tuple[float, float], calibrated_on: int) -> str:
    """What a threshold promises, in one plain sentence.

    Args:
        rate: share of good photos expected above the threshold, in (0, 1].
        rate_range: 5 % and 95 % quantile of that share over fits.
        calibrated_on: number of good photos the threshold was set on.
    """
    out_of = 100
    while rate * out_of < 0.95 and out_of < 1_000_000:
        out_of *= 10
    expected, low, high = (_round_count(share * out_of) for share in (rate, *rate_range))
    return (
        f"Out of {out_of:,} new good photos that look like the {calibrated_on:,} of the "
        f"calibration, about {expected} will be flagged by mistake (90 % range over fits with as "
        f"many photos: {low} to {high})."
    )


def _round_count(count: float) -> str:
    return f"{count:.0f}" if count >= 9.95 else f"{round(count, 1):g}"


# --- Do later good photos look like those of the calibration? ------------------------------------


@dataclass(frozen=True)
class ShiftTest:
    """Whether good photos seen later score higher than the calibration's (one-sided tests).

    Attributes:
        photos: m, the number of later good photos.
        above: how many of them score above the threshold.
        expected: how many were expected to.
        p_exceed: chance of at least `above`, were all photos alike (beta-binomial, both samples
            counted).
        p_rank: chance of ranks this high among all scores, were all photos alike (Mann-Whitney).
        level: chance that the test fires although nothing has changed, at most.
    """

    photos: int
    above: int
    expected: float
    p_exceed: float
    p_rank: float
    level: float

    @property
    def different(self) -> bool:
        """Whether the later photos look different; each of the two tests gets half of the level."""
        return min(self.p_exceed, self.p_rank) <= self.level / 2

    @property
    def message(self) -> str:
        """The outcome in plain words."""
        share = f"{self.above} of {self.photos} good photos ({self.above / self.photos:.1%})"
        if not self.different:
            return (
                f"{share} lie above the threshold, {self.expected:.1f} expected: no sign that "
                "these photos look different from those that set the threshold."
            )
        return (
            f"These good photos look different from those that set the threshold: {share} lie "
            f"above it, {self.expected:.1f} expected (p = {min(self.p_exceed, self.p_rank):.2g}, "
            f"test at level {self.level:g}). The promised false-alarm rate does not hold for them. "
            "Check light, focus, position and the parts themselves; if good parts look like this "
            "now, fit again with such photos among the good ones, or calibrate on them."
        )


def shift_test(
    calibration: Scores, later: Scores, threshold: Threshold, level: float = SHIFT_TEST_LEVEL
) -> ShiftTest:
    """Test whether later good photos score higher than the calibration's.

    Two questions, each at half of the level (Bonferroni): do more of them lie above the threshold
    than both samples' sizes allow, and do they rank higher as a whole?

    Args:
        calibration: (n,) scores that set the threshold.
        later: (m,) scores of other good photos, m >= 1.
        threshold: the threshold in force.
        level: chance of a false report, at most.
    """
    above = int((later > threshold.value).sum())
    n, m, k = threshold.photos, len(later), threshold.rank
    return ShiftTest(
        photos=m,
        above=above,
        expected=m * (n + 1 - k) / (n + 1),
        p_exceed=beta_binomial_tail(above, m, n + 1 - k, k),
        p_rank=rank_sum_p_value(calibration, later),
        level=level,
    )


def rank_sum_p_value(calibration: Scores, later: Scores) -> float:
    """One-sided Mann-Whitney test that `later` is higher: normal approximation, ties corrected."""
    n, m = len(calibration), len(later)
    both = np.concatenate([calibration, later])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    # The mean rank of each group of equal values.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    u = ranks[n:].sum() - m * (m + 1) / 2
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    z = (u - n * m / 2 - 0.5) / math.sqrt(variance)
    return 0.5 * math.erfc(z / math.sqrt(2))


# --- Distributions, for whole-numbered parameters ------------------------------------------------


def beta_quantile(q: float, a: int, b: int) -> float:
    """The q-quantile of Beta(a, b), by bisection on its distribution function."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < q else (low, middle)
    return (low + high) / 2


def beta_cdf(x: float, a: int, b: int) -> float:
    """P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    n = a + b - 1
    # The shorter of the two tails, in logarithms so that nothing overflows.
    if a <= b:
        return 1.0 - sum(_binomial(j, n, x) for j in range(a))
    return sum(_binomial(j, n, x) for j in range(a, n + 1))


def _binomial(j: int, n: int, x: float) -> float:
    return math.exp(_log_choose(n, j) + j * math.log(x) + (n - j) * math.log1p(-x))


def beta_binomial_tail(above: int, m: int, a: int, b: int) -> float:
    """P(K >= above) for K ~ BetaBinomial(m, a, b): exceedances among m new photos, over fits.

    b = 0 is the limit where all m exceed: a threshold set by hand below every good score.

    Args:
        above: 0 to m + 1.
        m: number of new photos.
        a: parameter of the rate's beta distribution, n + 1 - k.
        b: the other parameter, k.
    """
    return _beta_binomial_tails(m, a, b)[above]


def beta_binomial_interval(m: int, a: int, b: int, coverage: float = 0.95) -> tuple[int, int]:
    """The central range of K ~ BetaBinomial(m, a, b): exceedances among m new photos, over fits."""
    tail = (1.0 - coverage) / 2.0
    at_least = _beta_binomial_tails(m, a, b)
    low = max(j for j in range(m + 1) if at_least[j] >= 1.0 - tail)
    high = min(j for j in range(m + 1) if at_least[j + 1] <= tail)
    return low, high


def _beta_binomial_tails(m: int, a: int, b: int) -> list[float]:
    """P(K >= j) for j = 0 to m + 1."""
    if b == 0:
        return [1.0] * (m + 1) + [0.0]
    log_beta = _log_beta(a, b)
    probabilities = (
        math.exp(_log_choose(m, j) + _log_beta(a + j, b + m - j) - log_beta)
        for j in range(m, -1, -1)
    )
    *rising, _ = accumulate(probabilities, initial=0.0)
    # P(K >= 0) is certain; its sum is 1 only up to rounding.
    return [1.0, *(min(1.0, total) for total in reversed(rising))]


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
