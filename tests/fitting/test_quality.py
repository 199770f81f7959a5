"""The quality estimate by hand, by a slow reference and by simulation."""

from __future__ import annotations

import json
import math
from itertools import product
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from reconpatch.errors import ModelFileError, NotEnoughPhotosError, SettingsError
from reconpatch.fitting.quality import (
    Comparison,
    QualityEstimate,
    Z,
    _placements,
    compare,
    estimate_quality,
)

Scores = npt.NDArray[np.float64]

# Of the 8 pairs 6 are in order: the defect at 2.5 outscores two good photos of four.
GOOD, DEFECTIVE = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.5, 5.0])
PERFECT = np.array([5.0, 6.0])


def estimate(good: Scores, defective: Scores, threshold: float = 0.0) -> QualityEstimate:
    return estimate_quality(good, defective, ["spot"] * len(defective), threshold)


def normal_scores(
    rng: np.random.Generator, n: int, m: int, area: float, spread: float = 1.0
) -> tuple[Scores, Scores]:
    """Scores whose true AUROC is `area`, the defects' of another standard deviation."""
    mean = NormalDist().inv_cdf(area) * math.hypot(1, spread)
    return rng.normal(0, 1, n), rng.normal(mean, spread, m)


def slow_wins(good: Scores, defective: Scores) -> Scores:
    """(m, n) 1 where the defect outscores the good photo, 1/2 where they tie."""
    wins = np.zeros((len(defective), len(good)))
    for i, j in product(range(len(defective)), range(len(good))):
        wins[i, j] = 1 if defective[i] > good[j] else 0.5 if defective[i] == good[j] else 0
    return wins


# --- The estimate ---------------------------------------------------------------------------------


def test_an_estimate_by_hand() -> None:
    found = estimate_quality(GOOD, DEFECTIVE, ["paste", "spot"], 4.0)
    assert (found.auroc, found.caught) == (0.75, 0.5)
    assert (found.good, found.defects) == (4, 2)
    assert found.by_kind == {"paste": (0, 1), "spot": (1, 1)}
    # V10 = 1/2, 1 and V01 = 1, 1, 1/2, 1/2: DeLong's variance is 1/16 + 1/48 = 1/12, so there are
    # (3/16) / (1/12) = 2.25 tosses. Hanley and McNeil: 8 / (1 + 2 (1/5 + 3/7)) = 3.54, which is
    # more. Wilson's interval of 3/4 of 2.25 tosses:
    assert found.low == pytest.approx(0.214057, abs=1e-6)
    assert found.high == pytest.approx(0.970627, abs=1e-6)


def test_a_perfect_ranking_is_not_certain() -> None:
    found = estimate(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    # 4 / (1 + (0 + 1/2)) = 8/3 tosses; Wilson's lower end of all of N is N / (N + z²).
    assert (found.auroc, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx((8 / 3) / (8 / 3 + Z**2), abs=1e-12)


def test_the_interval_turns_with_the_ranking() -> None:
    worst = estimate(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
    assert (worst.auroc, worst.low) == (0.0, 0.0)
    assert worst.high == pytest.approx(1 - (8 / 3) / (8 / 3 + Z**2), abs=1e-12)


def test_more_photos_make_a_perfect_ranking_more_certain() -> None:
    lows = [estimate(np.zeros(n), np.ones(n)).low for n in (1, 2, 5, 20, 100)]
    assert lows == sorted(set(lows))
    assert 0.2 < lows[0] < 0.3
    assert 0.97 < lows[-1] < 1


def test_scores_all_alike_say_nothing() -> None:
    found = estimate(np.ones(5), np.ones(5))
    assert found.auroc == 0.5
    assert found.low == pytest.approx(1 - found.high)
    assert found.low < 0.3


def test_only_a_score_above_the_threshold_is_caught() -> None:
    scores = np.array([1.0, 2.0, 3.0, math.inf])
    found = estimate_quality(GOOD, scores, ["warp", "spot", "warp", "spot"], 2.0)
    assert found.caught == 0.5
    assert list(found.by_kind.items()) == [("warp", (1, 2)), ("spot", (1, 2))]


def test_the_components_against_every_pair() -> None:
    rng = np.random.default_rng(0)
    good, defective = rng.integers(0, 9, 23) / 4, rng.integers(3, 12, 17) / 4  # with many ties
    wins = slow_wins(good, defective)
    by_defect, by_good = _placements(good, defective)
    np.testing.assert_allclose(by_defect, wins.mean(axis=1), atol=1e-15)
    np.testing.assert_allclose(by_good, wins.mean(axis=0), atol=1e-15)
    assert estimate(good, defective).auroc == pytest.approx(wins.mean(), abs=1e-15)


@pytest.mark.parametrize(
    ("n", "m", "area", "spread"),
    [(12, 12, 0.97, 3), (30, 30, 0.995, 1), (60, 60, 0.9, 1), (200, 50, 0.97, 3)],
)
def test_the_interval_holds_the_true_area(n: int, m: int, area: float, spread: float) -> None:
    """Of 400 intervals 380 should; DeLong's on the logit scale holds it in 58 to 95 of 100."""
    rng = np.random.default_rng(1)
    found = [estimate(*normal_scores(rng, n, m, area, spread)) for _ in range(400)]
    assert sum(f.low <= area <= f.high for f in found) >= 0.9 * 400
    assert all(0 <= f.low < f.auroc <= f.high <= 1 for f in found)


def test_the_interval_is_no_wider_than_it_must_be() -> None:
    """DeLong's standard error at 0.9 and 100 photos of a class is 0.021: 0.084 from end to end."""
    rng = np.random.default_rng(2)
    found = [estimate(*normal_scores(rng, 100, 100, 0.9)) for _ in range(100)]
    assert 0.07 < np.mean([f.high - f.low for f in found]) < 0.1


# --- Two representations --------------------------------------------------------------------------


def test_a_comparison_by_hand() -> None:
    found = compare(GOOD, DEFECTIVE, GOOD, PERFECT)
    # The components differ by 1/2, 0 and by 0, 0, 1/2, 1/2: variance 1/16 + 1/48 = 1/12; and half
    # of 8 pairs' one is 1/16.
    reach = Z * math.sqrt(1 / 12) + 1 / 16
    assert found.difference == 0.25
    assert found.low == pytest.approx(0.25 - reach, abs=1e-12)
    assert found.high == pytest.approx(0.25 + reach, abs=1e-12)


def test_a_comparison_turned_round() -> None:
    there, back = (
        compare(GOOD, DEFECTIVE, GOOD, PERFECT),
        compare(GOOD, PERFECT, GOOD, DEFECTIVE),
    )
    assert (back.difference, back.low, back.high) == (-there.difference, -there.high, -there.low)


def test_two_perfect_rankings_differ_by_no_more_than_half_a_pair() -> None:
    assert compare(GOOD, PERFECT, 2 * GOOD, 3 * PERFECT) == Comparison(0.0, -1 / 16, 1 / 16)


def test_a_comparison_stays_in_range() -> None:
    found = compare(np.array([3.0, 4.0]), np.array([1.0, 2.0]), GOOD[:2], np.array([1.5, 9.0]))
    assert found.difference == 0.75
    assert found.high == 1.0


def test_the_variance_of_a_difference_against_every_pair() -> None:
    rng = np.random.default_rng(3)
    good = rng.normal(0, 1, (2, 19)).round(1)
    defective = (rng.normal(1, 1, 31) + rng.normal(0, 0.5, (2, 31))).round(1)
    wins = [slow_wins(good[i], defective[i]) for i in (0, 1)]

    def covariance(a: int, b: int) -> float:
        total = 0.0
        for axis in (0, 1):
            x, y = wins[a].mean(axis=axis), wins[b].mean(axis=axis)
            terms = [(p - wins[a].mean()) * (q - wins[b].mean()) for p, q in zip(x, y, strict=True)]
            total += sum(terms) / (len(x) - 1) / len(x)
        return total

    found = compare(good[0], defective[0], good[1], defective[1])
    variance = covariance(0, 0) + covariance(1, 1) - 2 * covariance(0, 1)
    reach = Z * math.sqrt(variance) + 0.5 / (19 * 31)
    assert found.difference == pytest.approx(wins[1].mean() - wins[0].mean(), abs=1e-12)
    assert found.high - found.difference == pytest.approx(reach, abs=1e-12)
    assert found.difference - found.low == pytest.approx(reach, abs=1e-12)


def test_a_comparison_holds_the_true_difference_and_pairing_shortens_it() -> None:
    rng = np.random.default_rng(4)
    means = [NormalDist().inv_cdf(area) * math.sqrt(2) for area in (0.85, 0.9)]
    held, paired, unpaired = 0, 0.0, 0.0
    for _ in range(300):
        good = rng.normal(0, 0.9, 80) + rng.normal(0, math.sqrt(0.19), (2, 80))
        defective = rng.normal(0, 0.9, 80) + rng.normal(0, math.sqrt(0.19), (2, 80))
        defective += np.array(means)[:, None]
        found = compare(good[0], defective[0], good[1], defective[1])
        held += found.low <= 0.05 <= found.high
        paired += found.high - found.low
        shuffled = compare(good[0], defective[0], good[1][::-1], defective[1][::-1])
        unpaired += shuffled.high - shuffled.low
    assert held >= 0.9 * 300
    assert paired < 0.7 * unpaired


# --- Words and JSON -------------------------------------------------------------------------------


def test_the_estimate_in_words() -> None:
    found = estimate_quality(GOOD, DEFECTIVE, ["paste", "spot"], 4.0)
    assert found.sentence() == (
        "Of 2 defects made on good photos, 1 (50%) would be caught; a made defect outscores a good "
        "photo 75.0% of the time (95 % interval 21.4% to 97.1%, from 4 good photos). "
        "Real defects may be easier or harder."
    )


def test_the_estimate_through_json() -> None:
    found = estimate_quality(GOOD, DEFECTIVE, ["paste", "spot"], 4.0)
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["by_kind"] == {"paste": [0, 1], "spot": [1, 1]}
    assert QualityEstimate.from_dict(stored) == found


@pytest.mark.parametrize(
    "damage",
    [{"by_kind": None}, {"by_kind": {"spot": [1]}}, {"by_kind": {"spot": "xy"}}, {"more": 1}],
)
def test_a_damaged_estimate_is_refused(damage: dict[str, object]) -> None:
    stored = estimate(GOOD, DEFECTIVE).to_dict()
    with pytest.raises(ModelFileError, match="fit the model again"):
        QualityEstimate.from_dict(stored | damage)
    del stored["auroc"]
    with pytest.raises(ModelFileError, match="auroc"):
        QualityEstimate.from_dict(stored)


# --- Refusals -------------------------------------------------------------------------------------


def test_what_cannot_be_estimated_is_refused() -> None:
    nothing, unknown = np.array([]), np.array([1.0, math.nan])
    with pytest.raises(NotEnoughPhotosError, match="good holds 0 scores: give 1"):
        estimate(nothing, DEFECTIVE)
    with pytest.raises(NotEnoughPhotosError, match="defective holds 0 scores"):
        estimate(GOOD, nothing)
    with pytest.raises(SettingsError, match="1 of 2 scores in defective are NaN"):
        estimate(GOOD, unknown)
    with pytest.raises(SettingsError, match="the threshold is NaN"):
        estimate(GOOD, DEFECTIVE, math.nan)
    with pytest.raises(SettingsError, match="1 kinds were given for 2"):
        estimate_quality(GOOD, DEFECTIVE, ["spot"], 1.0)
    with pytest.raises(SettingsError, match=r"good has the shape \(2, 2\)"):
        estimate(GOOD.reshape(2, 2), DEFECTIVE)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(NotEnoughPhotosError, match="good_a holds 1 score: give 2"):
        compare(GOOD[:1], DEFECTIVE, GOOD[:1], DEFECTIVE)
    with pytest.raises(SettingsError, match="scored 4 and 3 good photos"):
        compare(GOOD, DEFECTIVE, GOOD[:3], DEFECTIVE)
    with pytest.raises(SettingsError, match="scored 2 and 4 made defects"):
        compare(GOOD, DEFECTIVE, GOOD, GOOD)
