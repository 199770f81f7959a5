"""Drift: alarms no more often than promised, shifts found, state that survives a restart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from reconpatch.errors import SettingsError
from reconpatch.method.calibration import Calibration
from reconpatch.station.drift import DriftMonitor, coarse

MEAN, SD = 20.0, 2.0


def calibration_of(scores: np.ndarray, by_hand: float | None = None) -> Calibration:
    return Calibration(scores, scores, 0.01, "a test", by_hand)


def monitor(rng: np.random.Generator, photos: int, **options: float) -> DriftMonitor:
    return DriftMonitor(calibration_of(rng.normal(MEAN, SD, photos)), **options)


def alarms_in(watch: DriftMonitor, scores: np.ndarray) -> list[int]:
    """Which photos, from 1, raised an alarm."""
    return [i for i, score in enumerate(scores, start=1) if watch.add(float(score)) is not None]


def first_alarm(watch: DriftMonitor, scores: np.ndarray) -> int:
    return next(i for i, score in enumerate(scores, start=1) if watch.add(float(score)))


# --- The promise ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("photos", "defective"), [(10, 0.0), (60, 0.0), (200, 0.08)])
def test_false_alarms_are_no_more_than_promised(photos: int, defective: float) -> None:
    """At a promise of 20 in 10,000, on 20 streams of 500 photos, some with real defects."""
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        watch = monitor(rng, photos, per_10000=20, seed=seed)
        scores = rng.normal(MEAN, SD, 500)
        defects = rng.random(500) < defective
        alarms += len(alarms_in(watch, np.where(defects, 10 * MEAN, scores)))
    assert alarms <= 20


def test_scores_of_few_values_are_no_drift() -> None:
    rng = np.random.default_rng(0)
    watch = DriftMonitor(calibration_of(rng.integers(1, 6, 200).astype(float)), per_10000=20)
    assert len(alarms_in(watch, rng.integers(1, 6, 1000).astype(float))) <= 2


@pytest.mark.parametrize(
    ("shift", "within", "direction"),
    [(1.0, 120, "higher"), (-1.0, 80, "lower"), (2.0, 40, "higher"), (6.0, 15, "flagged")],
)
@pytest.mark.parametrize("before", [0, 300])
def test_a_shift_is_found(shift: float, within: int, direction: str, before: int) -> None:
    """In standard deviations of the score, by a monitor of 200 photos, on ten streams."""
    directions = []
    for seed in range(10):
        rng = np.random.default_rng(100 + seed)
        watch = monitor(rng, 200, seed=seed)
        assert alarms_in(watch, rng.normal(MEAN, SD, before)) == []
        for score in rng.normal(MEAN + shift * SD, SD, within):
            if alarm := watch.add(score):
                directions.append(alarm.direction)
                break
    assert len(directions) == 10
    assert directions.count(direction) >= 7  # type: ignore[arg-type]  # one of the literals


def test_many_defects_are_found_where_all_that_pass_look_alike() -> None:
    rng = np.random.default_rng(5)
    watch = monitor(rng, 300)
    flagged = rng.random(400) < 0.5
    assert first_alarm(watch, np.where(flagged, 100.0, rng.normal(MEAN, SD, 400))) < 100


# --- The statistic -------------------------------------------------------------------------------


def test_an_alarm_begins_anew_and_says_when() -> None:
    rng = np.random.default_rng(1)
    watch = monitor(rng, 100)
    assert watch.level == 0
    alarm = None
    while alarm is None:
        alarm = watch.add(1000.0)
        assert 0 < watch.level < 1 or alarm is not None
    seen = watch.photos
    assert 2 < seen < 20
    assert (alarm.photo, alarm.direction, watch.alarms) == (seen, "flagged", 1)
    assert watch.level == 0
    assert alarm.message.startswith("More photos are flagged than good parts and")
    assert f"Photo {seen} made it certain enough" in alarm.message
    assert "at most 0.1 times in 10,000 photos" in alarm.message


def test_the_first_step_by_hand() -> None:
    """99 scores 1 to 99, all below the largest, 99: ranks among 98. A flagged photo, no rank."""
    watch = DriftMonitor(calibration_of(np.arange(1.0, 100.0)), per_10000=100, defects=0.0)
    allowed = 1 - 0.001 ** (1 / 99)  # 99.9 % quantile of Beta(1, 99)
    watch.add(99.0)
    bets = [allowed ** (power - 1) for power in (1 / 2, 1 / 8)]
    assert watch.level == pytest.approx(sum(bets) / 2 / 2 / 100, rel=1e-6)


def test_a_rank_is_among_all_scores_before() -> None:
    watch = DriftMonitor(calibration_of(np.arange(1.0, 101.0)), per_10000=100)
    ranks = [watch._p_value(score) for score in (50.0, 50.5, 50.25)]
    # Below the cap, 100, are 99 scores. 49 are higher than 50; then 49 than 50.5, then 50.
    assert 49 / 100 <= ranks[0] <= 51 / 100
    assert 49 / 101 <= ranks[1] <= 50 / 101
    assert 50 / 102 <= ranks[2] <= 51 / 102


def test_coarse_scores_are_near_and_in_order() -> None:
    scores = np.sort(np.random.default_rng(0).normal(0, 3, 2000))
    rounded = [coarse(float(score)) for score in scores]
    assert rounded == sorted(rounded)
    np.testing.assert_allclose(rounded, scores, rtol=2**-9)
    assert coarse(0.0) == 0.0
    assert coarse(-1.5) == -1.5


def test_a_threshold_set_by_hand_is_the_cap() -> None:
    scores = np.arange(1.0, 101.0)
    watch = DriftMonitor(calibration_of(scores, by_hand=50.0))
    assert watch.to_dict()["cap"] == math.nextafter(50.0, math.inf)
    assert len(watch.to_dict()["counts"]) == 50


# --- State ---------------------------------------------------------------------------------------


def test_it_goes_on_after_a_restart_as_if_there_had_been_none() -> None:
    rng = np.random.default_rng(2)
    whole = monitor(rng, 200, seed=3)
    cut = DriftMonitor.from_dict(json.loads(json.dumps(whole.to_dict())))
    scores = rng.normal(MEAN + SD, SD, 400)
    expected = alarms_in(whole, scores)
    found = []
    for i, score in enumerate(scores, start=1):
        cut = DriftMonitor.from_dict(json.loads(json.dumps(cut.to_dict())))
        if cut.add(score) is not None:
            found.append(i)
    assert found == expected != []
    assert cut.to_dict() == whole.to_dict()


def test_the_state_stays_small() -> None:
    rng = np.random.default_rng(3)
    watch = monitor(rng, 200)
    alarms_in(watch, rng.normal(MEAN, SD, 5000))
    # 10 bits of scores between about 12 and 25: no more than 1,300 different ones.
    assert len(watch.to_dict()["counts"]) < 1300
    assert len(json.dumps(watch.to_dict())) < 30_000


@pytest.mark.parametrize(
    "options", [{"per_10000": 0}, {"per_10000": -1}, {"defects": 1.0}, {"defects": -0.1}]
)
def test_refusals(options: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="give a number"):
        monitor(np.random.default_rng(0), 10, **options)
