from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reconpatch.errors import NotEnoughPhotosError, SettingsError
from reconpatch.method.calibration import (
    SHIFT_TEST_LEVEL,
    Calibration,
    beta_binomial_interval,
    beta_binomial_tail,
    beta_cdf,
    beta_quantile,
    check_rate,
    conformal_threshold,
    p_value,
    photos_needed,
    promise,
    rank_sum_p_value,
    shift_test,
    threshold_at,
)

# Few distinct values make ties; halves of the sums of all of them are exact.
SCORE = st.one_of(st.integers(0, 5).map(float), st.floats(0, 1000, width=16))
SCORES = st.lists(SCORE, min_size=1, max_size=60).map(np.array)
# Rates as people write them; those of three decimals compare exactly with every p-value.
RATES = st.integers(1, 999).map(lambda thousandths: thousandths / 1000)


def counting_up(n):
    """Scores 1 to n, so that the k-th smallest is k."""
    return np.arange(1.0, n + 1)


# photos_needed and the rate


@pytest.mark.parametrize(
    ("rate", "photos"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1), (0.03, 33), (0.001, 999)]
)
def test_photos_needed_by_hand(rate, photos):
    assert photos_needed(rate) == photos


@given(RATES)
def test_photos_needed_is_the_fewest_whose_smallest_p_value_is_the_rate(rate):
    n, exact = photos_needed(rate), Fraction(str(rate))
    assert Fraction(1, n + 1) <= exact
    assert n == 0 or Fraction(1, n) > exact


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_a_rate_that_is_no_share_is_refused(rate):
    for refuse in (check_rate, lambda r: conformal_threshold(counting_up(9), r)):
        with pytest.raises(SettingsError, match="the false-alarm rate is"):
            refuse(rate)


# conformal_threshold


@pytest.mark.parametrize(
    ("n", "rate", "rank", "value", "stated"),
    [
        (99, 0.01, 99, 99.0, 1 / 100),  # ceil(100 * 0.99) = 99: the largest
        (100, 0.01, 100, 100.0, 1 / 101),  # ceil(101 * 0.99 = 99.99) = 100
        (198, 0.01, 198, 198.0, 1 / 199),  # ceil(199 * 0.99 = 197.01) = 198
        (199, 0.01, 198, 198.5, 2 / 200),  # 200 * 0.99 = 198, on the dot
        (200, 0.01, 199, 199.5, 2 / 201),  # ceil(201 * 0.99 = 198.99) = 199
        (19, 0.05, 19, 19.0, 1 / 20),
        (39, 0.05, 38, 38.5, 2 / 40),
        (9, 0.1, 9, 9.0, 1 / 10),  # in binary, 0.1 is a little more than a tenth
        (29, 0.1, 27, 27.5, 3 / 30),
        (1, 0.5, 1, 1.0, 1 / 2),
        (3, 0.5, 2, 2.5, 2 / 4),
    ],
)
def test_thresholds_worked_out_by_hand(n, rate, rank, value, stated):
    scores = np.random.default_rng(n).permutation(counting_up(n))
    found = conformal_threshold(scores, rate)
    assert (found.rank, found.value, found.photos) == (rank, value, n)
    assert found.stated_rate == pytest.approx(stated, rel=1e-15)
    assert found.asked_rate == rate
    assert found.enough_photos


@pytest.mark.parametrize(("n", "rate"), [(1, 0.01), (98, 0.01), (18, 0.05), (1, 0.499)])
def test_too_few_photos_give_the_largest_score_and_say_what_it_promises(n, rate):
    found = conformal_threshold(counting_up(n), rate)
    assert (found.value, found.rank, found.photos) == (n, n, n)
    assert found.stated_rate == 1 / (n + 1) > rate
    assert not found.enough_photos


def test_no_photo_sits_on_the_threshold_even_among_ties():
    # k = ceil(10 * 0.5) = 5: the fifth smallest is 2, and the next larger value is 6.
    scores = np.array([1, 1, 2, 2, 2, 2, 2, 6, 7], float)
    assert conformal_threshold(scores, 0.5).value == 4.0
    assert conformal_threshold(scores, 0.3).value == 4.0  # k = 7
    assert conformal_threshold(scores, 0.2).value == 6.5  # k = 8


def test_a_tie_at_the_top_leaves_the_largest_score():
    found = conformal_threshold(np.array([1.0, 5.0, 5.0, 5.0]), 0.5)
    assert (found.value, found.rank, found.stated_rate) == (5.0, 3, 2 / 5)


def test_no_score_at_all_is_refused():
    with pytest.raises(NotEnoughPhotosError, match=r"at least one, and 99 for .* 0\.01"):
        conformal_threshold(np.array([]), 0.01)


def test_the_default_rate_is_one_in_a_hundred():
    assert conformal_threshold(counting_up(99)).asked_rate == 0.01


@given(SCORES, RATES)
def test_few_enough_good_photos_lie_above_the_threshold(scores, rate):
    found = conformal_threshold(scores, rate)
    assert ((scores > found.value).sum() + 1) / (len(scores) + 1) <= found.stated_rate + 1e-12
    assert found.stated_rate <= max(rate, 1 / (len(scores) + 1))
    assert found.enough_photos == (len(scores) >= photos_needed(rate))


# p-values and verdicts


def test_p_values_by_hand():
    scores = np.array([1.0, 2.0, 2.0, 5.0])
    assert [p_value(s, scores) for s in (0, 1, 2, 3, 5, 6)] == [1, 1, 0.8, 0.4, 0.4, 0.2]


@given(SCORES, RATES, SCORE)
def test_an_anomalous_photo_has_a_p_value_of_at_most_the_stated_rate(scores, rate, score):
    found = conformal_threshold(scores, rate)
    p = p_value(score, scores)
    assert 0 < p <= 1
    if score > found.value:
        assert p <= found.stated_rate
        assert p <= rate or not found.enough_photos


@given(SCORES, RATES)
def test_for_a_score_that_occurred_verdict_and_p_value_agree_both_ways(scores, rate):
    found = conformal_threshold(scores, rate)
    for score in scores:
        assert (score > found.value) == (p_value(score, scores) <= found.stated_rate)


@given(SCORES, RATES)
def test_a_small_p_value_is_a_verdict_but_for_the_gap_that_the_midpoint_halves(scores, rate):
    found = conformal_threshold(scores, rate)
    bar = rate if found.enough_photos else found.stated_rate
    ordered = np.sort(scores)
    reached = ordered[found.rank - 1]
    next_larger = min(ordered[ordered > reached], default=reached)
    for score in [*scores, *(scores + 0.25), *(scores + 100), reached + 1e-6]:
        assert (p_value(score, scores) <= bar) == (score > reached)
        if score > reached:
            assert score > found.value or score < next_larger


# What is promised, on average and for one fit, in simulated fits


@pytest.fixture(scope="module")
def fits():
    """Thresholds of 4000 fits; scores are uniform, so a fit's true rate is 1 - threshold."""
    rng = np.random.default_rng(0)

    def simulate(n, rate):
        found = [conformal_threshold(rng.random(n), rate) for _ in range(4000)]
        return np.array([1.0 - t.value for t in found]), found[0]

    return simulate


@pytest.mark.parametrize(
    # Midway between the order statistics k and k + 1 of n uniform scores: (n + 1/2 - k) / (n + 1).
    ("n", "rate", "mean"),
    [
        (99, 0.05, 0.045),
        (199, 0.01, 0.0075),
        (99, 0.01, 0.01),
        (20, 0.01, 1 / 21),
        (150, 0.1, None),
    ],
)
def test_the_rate_holds_on_average_over_fits(fits, n, rate, mean):
    rates, threshold = fits(n, rate)
    spread = rates.std() / math.sqrt(len(rates))
    assert rates.mean() <= threshold.stated_rate + 4 * spread
    if mean is not None:
        assert rates.mean() == pytest.approx(mean, abs=4 * spread)


@pytest.mark.parametrize(("n", "rate"), [(99, 0.01), (99, 0.05), (199, 0.1), (30, 0.01)])
def test_nine_in_ten_fits_lie_in_the_range_that_is_stated(fits, n, rate):
    rates, threshold = fits(n, rate)
    low, high = threshold.rate_range()
    assert 0.86 <= ((rates >= low) & (rates <= high)).mean() <= 0.93
    assert (rates > high).mean() <= 0.06


def test_the_range_of_one_rank_by_hand():
    # Rank n: the rate is Beta(1, n), whose quantile is 1 - (1 - q) ** (1 / n).
    found = conformal_threshold(counting_up(99), 0.01)
    assert found.rate_range() == pytest.approx((1 - 0.95 ** (1 / 99), 1 - 0.05 ** (1 / 99)))
    assert found.rate_range(0.5) == pytest.approx((1 - 0.75 ** (1 / 99), 1 - 0.25 ** (1 / 99)))


# threshold_at


@pytest.mark.parametrize(
    ("value", "rank", "rate"),
    [(0.0, 0, 1.0), (1.0, 1, 4 / 5), (2.5, 2, 3 / 5), (4.0, 4, 1 / 5), (9.0, 4, 1 / 5)],
)
def test_a_threshold_set_by_hand_promises_what_the_scores_say(value, rank, rate):
    found = threshold_at(np.array([3.0, 1.0, 4.0, 2.0]), value)
    assert (found.value, found.rank, found.photos) == (value, rank, 4)
    assert found.stated_rate == found.asked_rate == pytest.approx(rate)
    low, high = found.rate_range()
    assert low <= rate <= high


def test_a_threshold_below_every_good_score_promises_nothing():
    assert threshold_at(counting_up(4), 0.0).rate_range() == (1.0, 1.0)


@given(SCORES, SCORE)
def test_a_threshold_set_by_hand_never_lacks_photos_for_its_own_rate(scores, value):
    assert threshold_at(scores, value).enough_photos


# Calibration


def calibration(n=199, rate=0.01, **changes):
    return Calibration(counting_up(n), counting_up(n) * 10, rate, "the fit", **changes)


def test_both_thresholds_follow_the_rate_each_from_its_own_scores():
    found = calibration()
    assert found.image_threshold == conformal_threshold(found.scores, 0.01)
    assert found.image_threshold.value == 198.5
    assert found.map_threshold.value == 1985.0
    assert calibration(rate=0.1).image_threshold.value == 180.5
    assert calibration(rate=0.1).map_threshold.value == 1805.0


def test_a_threshold_set_by_hand_replaces_the_calibrated_one():
    found = calibration(set_by_hand=150.25)
    assert found.image_threshold == threshold_at(found.scores, 150.25)
    assert found.image_threshold.stated_rate == 50 / 200


@pytest.mark.parametrize("n", [2, 5, 6, 199])
def test_the_map_threshold_keeps_to_the_rank_of_the_one_set_by_hand(n):
    for rank in range(1, n):
        found = calibration(n, set_by_hand=rank + 0.25)
        assert found.map_threshold.value == 10 * rank + 5
        assert found.map_threshold.stated_rate == found.image_threshold.stated_rate
    assert calibration(n, set_by_hand=n + 7.0).map_threshold.value == 10 * n


def test_a_threshold_set_by_hand_below_every_score_still_has_a_map_threshold():
    found = calibration(9, set_by_hand=0.0)
    assert found.image_threshold.rank == 0
    assert found.map_threshold.value == 15.0
    assert found.promise == (
        "Out of 100 new good photos that look like the 9 of the calibration, about 100 will be "
        "flagged by mistake (90 % range over fits with as many photos: 100 to 100). "
        "The threshold was set by hand."
    )


# Notes and the promise


def test_enough_photos_leave_nothing_to_note():
    assert calibration(99).notes == calibration(199).notes == []


def test_too_few_photos_are_noted_with_how_many_it_takes():
    assert calibration(20).notes == [
        "A false-alarm rate of 0.01 was asked for; 20 good photos cannot promise less than 4.76%, "
        "it takes 99. The threshold is the largest score of a good photo."
    ]


@pytest.mark.parametrize("n", [20, 199])
def test_a_threshold_set_by_hand_is_noted_and_lacks_no_photos(n):
    assert calibration(n, set_by_hand=9.5).notes == ["The threshold was set by hand."]


@pytest.mark.parametrize("changes", [{}, {"n": 20}, {"set_by_hand": 150.5}])
def test_the_promise_of_a_calibration_is_that_of_its_image_threshold_then_the_notes(changes):
    found = calibration(**changes)
    threshold = found.image_threshold
    sentence = promise(threshold.stated_rate, threshold.rate_range(), threshold.photos)
    assert found.promise == " ".join([sentence, *found.notes])


def test_the_promise_in_full():
    # k = 198 of 199 scores: the rate is 2 / 200 on average, and Beta(2, 198) over fits.
    low, high = stats.beta.ppf([0.05, 0.95], 2, 198) * 100
    assert (round(low, 1), round(high, 1)) == (0.2, 2.4)
    assert calibration().promise == (
        "Out of 100 new good photos that look like the 199 of the calibration, about 1 will be "
        "flagged by mistake (90 % range over fits with as many photos: 0.2 to 2.4)."
    )


@pytest.mark.parametrize(
    ("rate", "rate_range", "n", "out_of", "like", "expected", "low_to_high"),
    [
        (0.01, (0.0, 0.03), 200, "100", "200", "1", "0 to 3"),
        (1 / 32, (0.0017, 0.092), 31, "100", "31", "3.1", "0.2 to 9.2"),
        (0.001, (0.0002, 0.0124), 2000, "1,000", "2,000", "1", "0.2 to 12"),
        (0.0095, (0.0, 0.03), 200, "100", "200", "0.9", "0 to 3"),
        (0.0094, (0.0, 0.03), 200, "1,000", "200", "9.4", "0 to 30"),
        (0.25, (0.0994, 0.0996), 3, "100", "3", "25", "9.9 to 10"),
        (1.0, (1.0, 1.0), 5, "100", "5", "100", "100 to 100"),
        (1e-9, (0.0, 1e-7), 5, "1,000,000", "5", "0", "0 to 0.1"),
    ],
)
def test_rates_are_promised_as_counts_of_photos(
    rate, rate_range, n, out_of, like, expected, low_to_high
):
    assert promise(rate, rate_range, n) == (
        f"Out of {out_of} new good photos that look like the {like} of the calibration, about "
        f"{expected} will be flagged by mistake (90 % range over fits with as many photos: "
        f"{low_to_high})."
    )


# shift_test


def test_one_test_of_a_shift_by_hand():
    # Above the threshold, the second largest of 3: later scores 5 and 9 of 2, 5, 9.
    found = shift_test(counting_up(3), np.array([2.0, 5.0, 9.0]), threshold_at(counting_up(3), 2.0))
    assert (found.photos, found.above, found.expected) == (3, 2, 1.5)
    # K >= 2 in the 20 orders of 3 + 3: P(0) = 4/20, P(1) = 6/20, P(2) = 6/20, P(3) = 4/20.
    assert found.p_exceed == pytest.approx(10 / 20)
    assert not found.different
    assert "2 of 3 good photos (66.7%)" in found.message
    assert "1.5 expected: no sign" in found.message


@pytest.mark.parametrize("by", [0.6, 3.0])
def test_a_shifted_sample_is_noticed(by):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(200)
    found = shift_test(scores, rng.standard_normal(100) + by, conformal_threshold(scores, 0.05))
    assert found.different
    assert found.level == SHIFT_TEST_LEVEL
    assert "look different from those that set the threshold" in found.message
    assert f"{found.above} of 100 good photos" in found.message


def test_a_few_far_outliers_are_noticed_by_the_threshold_alone():
    # Evenly spread like the others, but for seven that were already high; 398.5 is the eighth.
    scores, later = counting_up(400), np.arange(2.5, 400, 4)
    later[85:92] += 1000
    found = shift_test(scores, later, conformal_threshold(scores, 0.01))
    assert found.above == 8
    assert found.p_rank > 0.1
    assert found.p_exceed < 0.001
    assert found.different


def test_photos_that_score_lower_are_no_reason_to_warn():
    scores = counting_up(200)
    found = shift_test(scores, scores[:50] / 2, conformal_threshold(scores, 0.05))
    assert (found.above, found.p_exceed) == (0, pytest.approx(1.0))
    assert found.p_rank > 0.999
    assert not found.different


def test_a_threshold_below_every_score_is_exceeded_by_all_and_proves_nothing():
    found = shift_test(counting_up(9), counting_up(4), threshold_at(counting_up(9), 0.5))
    assert (found.above, found.expected, found.p_exceed) == (4, 4.0, 1.0)
    assert not found.different


@pytest.mark.parametrize(("n", "m", "rate"), [(60, 40, 0.05), (20, 3, 0.2), (8, 50, 0.01)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_test_fires_no_more_often_than_its_level_when_nothing_changed(n, m, rate, ties):
    rng = np.random.default_rng(7)
    fired = 0
    for _ in range(1000):
        both = rng.integers(0, 12, n + m).astype(float) if ties else rng.exponential(size=n + m)
        threshold = conformal_threshold(both[:n], rate)
        fired += shift_test(both[:n], both[n:], threshold, level=0.1).different
    # The standard deviation of a tenth of 1000 is 9.5.
    assert fired <= 100 + 30


# Distributions


def test_beta_distributions_by_hand():
    # Beta(1, 1) is uniform, Beta(2, 1) has the distribution function x ** 2, Beta(1, 2) its mirror.
    for x in (0.0, 0.25, 0.5, 1.0):
        assert beta_cdf(x, 1, 1) == pytest.approx(x)
        assert beta_cdf(x, 2, 1) == pytest.approx(x**2)
        assert beta_cdf(x, 1, 2) == pytest.approx(1 - (1 - x) ** 2)
    assert beta_quantile(0.25, 2, 1) == pytest.approx(0.5)
    assert (beta_cdf(-0.5, 2, 3), beta_cdf(1.5, 2, 3)) == (0.0, 1.0)


BETAS = [(1, 99), (2, 198), (5, 95), (1, 1), (40, 3), (50, 50), (1, 2000), (100, 9900)]


@pytest.mark.parametrize(("a", "b"), BETAS)
def test_beta_distributions_are_those_of_scipy(a, b):
    for x in (1e-6, 0.001, 0.01, 0.05, 0.3, 0.5, 0.9, 0.999):
        assert beta_cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-9, abs=1e-9)
    for q in (0.005, 0.05, 0.5, 0.95, 0.995):
        assert beta_quantile(q, a, b) == pytest.approx(stats.beta.ppf(q, a, b), rel=1e-7)


def exceedances_by_counting(n, m, k, above):
    """Of all orders of n + m scores: those with `above` or more later ones beyond the k-th old."""
    orders = list(combinations(range(n + m), m))
    hits = 0
    for later in orders:
        old = [place for place in range(n + m) if place not in later]
        hits += sum(place > old[k - 1] for place in later) >= above
    return hits / len(orders)


@pytest.mark.parametrize(("n", "m", "k"), [(4, 3, 3), (5, 4, 5), (3, 5, 1), (6, 2, 4)])
def test_exceedances_are_those_counted_over_all_orders(n, m, k):
    for above in range(m + 2):
        expected = exceedances_by_counting(n, m, k, above)
        assert beta_binomial_tail(above, m, n + 1 - k, k) == pytest.approx(expected)


BETA_BINOMIALS = [(1, 1, 99), (40, 2, 198), (115, 5, 95), (200, 10, 90), (30, 60, 4), (7, 1, 1)]


@pytest.mark.parametrize(("m", "a", "b"), BETA_BINOMIALS)
def test_exceedances_are_those_of_scipy(m, a, b):
    known = stats.betabinom(m, a, b)
    for above in range(m + 1):
        assert beta_binomial_tail(above, m, a, b) == pytest.approx(known.sf(above - 1), abs=1e-10)
    assert beta_binomial_interval(m, a, b) == tuple(known.interval(0.95))
    assert beta_binomial_interval(m, a, b, 0.8) == tuple(known.interval(0.8))


def test_exceedances_by_hand():
    # Beta-binomial(m, 1, 1) is uniform on 0 to m.
    assert [beta_binomial_tail(j, 3, 1, 1) for j in range(5)] == pytest.approx(
        [1, 3 / 4, 1 / 2, 1 / 4, 0]
    )
    # b = 0, a threshold below every score: all of them exceed it.
    assert [beta_binomial_tail(j, 3, 4, 0) for j in (0, 3, 4)] == [1.0, 1.0, 0.0]
    assert beta_binomial_interval(3, 4, 0) == (3, 3)


def interval_one_tail_at_a_time(m, a, b, coverage):
    """The same definition with each tail summed on its own: quadratic in m."""
    tail = (1 - coverage) / 2
    known = stats.betabinom(m, a, b).pmf(np.arange(m + 1))
    at_least = [math.fsum(known[j:]) for j in range(m + 2)]
    low = max(j for j in range(m + 1) if at_least[j] >= 1 - tail)
    return low, min(j for j in range(m + 1) if at_least[j + 1] <= tail)


@pytest.mark.parametrize(("m", "a", "b"), BETA_BINOMIALS)
@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95, 0.999])
def test_the_interval_is_that_of_its_definition(m, a, b, coverage):
    expected = interval_one_tail_at_a_time(m, a, b, coverage)
    assert beta_binomial_interval(m, a, b, coverage) == expected


@pytest.mark.parametrize(("m", "a", "b"), [*BETA_BINOMIALS, (3000, 30, 2970)])
def test_tails_of_exceedances_fall_from_exactly_one_to_exactly_zero(m, a, b):
    tails = [beta_binomial_tail(j, m, a, b) for j in range(0, m + 2, max(1, m // 50))]
    assert tails == sorted(tails, reverse=True)
    assert tails[0] == 1.0
    assert beta_binomial_tail(m + 1, m, a, b) == 0.0


def test_many_photos_are_no_trouble():
    # Mean 200, standard deviation 40 over fits and 14 in the sample: about 121 to 288.
    low, high = beta_binomial_interval(20_000, 20, 1980)
    assert (low, high) == tuple(stats.betabinom(20_000, 20, 1980).interval(0.95))


# rank_sum_p_value


def test_rank_sums_by_hand():
    # U = 4 of 4, mean 2, variance 2 * 2 * 5 / 12; half a step of continuity.
    z = (4 - 2 - 0.5) / math.sqrt(5 / 3)
    found = rank_sum_p_value(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert found == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)))


@pytest.mark.parametrize("distinct", [2, 5, 10_000])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 8), (50, 20), (7, 200)])
def test_rank_sums_are_those_of_scipy_ties_included(n, m, distinct):
    rng = np.random.default_rng(distinct + n)
    for shift in (0, 1, 4):
        old = rng.integers(0, distinct, n).astype(float)
        new = (rng.integers(0, distinct, m) + shift).astype(float)
        if len(np.unique([*old, *new])) == 1:
            continue
        known = stats.mannwhitneyu(
            new, old, alternative="greater", method="asymptotic", use_continuity=True
        )
        assert rank_sum_p_value(old, new) == pytest.approx(known.pvalue, rel=1e-9)


def test_equal_scores_everywhere_are_no_sign_of_anything():
    assert rank_sum_p_value(np.ones(5), np.ones(3)) == 1.0
