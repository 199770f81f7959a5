"""Drift: do the scores of a stream of photos still look like those of the calibration?

Each score becomes a conformal p-value, its rank among the scores of the calibration and of all
photos before it; bets against their being uniform are added up in Shiryaev-Roberts statistics. The
expected number of false alarms in N photos is at most N times the promised rate, however often and
whenever one looks, and for a calibration of any size. The derivation, and what is assumed, is in
docs/drift.md.

Reference: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2nd ed., 2022, part
III; Shiryaev, "On optimum methods in quickest detection problems", 1963.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, Self

import numpy as np

from reconpatch.errors import SettingsError
from reconpatch.method.calibration import Calibration

Direction = Literal["higher", "lower", "flagged"]

# False alarms in 10,000 photos, at most, on average; and the share of defective parts that is no
# drift yet.
PER_10000 = 0.1
DEFECTS = 0.1
# Of all fits, the share whose false-alarm rate is looked for in this range.
_COVERAGE = 0.998
_MOST_FLAGGED = 0.99

# Shifts of the score that are bet on, in standard deviations of a normal score.
_SHIFTS = (0.5, 1.0, 2.0, -0.5, -1.0, -2.0)
# Shares of flagged photos that are bet on, as powers of the share that is allowed.
_POWERS = (1 / 2, 1 / 8)
# Digits of a score that are kept, in bits: 0.1 to 0.2 % of the score.
_BITS = 10
_SMALLEST_P = 1e-12

_SENTENCES: dict[Direction, str] = {
    "higher": "Photos that pass as good score higher than those of the calibration did.",
    "lower": "Photos score lower than those of the calibration did.",
    "flagged": "More photos are flagged than good parts and the usual defects explain.",
}


@dataclass(frozen=True)
class DriftAlarm:
    """The scores no longer look like those of the calibration.

    Attributes:
        photo: how many photos had been seen, the one that raised the alarm included.
        direction: what speaks for it most.
        per_10000: false alarms in 10,000 photos, at most, on average.
    """

    photo: int
    direction: Direction
    per_10000: float

    @property
    def message(self) -> str:
        """The alarm in plain words."""
        return (
            f"{_SENTENCES[self.direction]} Photo {self.photo:,} made it certain enough for an "
            f"alarm that comes by mistake at most {self.per_10000:g} times in 10,000 photos. Check "
            "light, focus, position and the parts; if good parts look like this now, update the "
            "model with new good photos."
        )


class DriftMonitor:
    """Watches the scores of a stream; it is told one after the other, in the order of the photos.

    Args:
        calibration: of the model that scores; its scores are where "as before" begins.
        per_10000: false alarms in 10,000 photos, at most, on average; above 0.
        defects: share of defective parts that is no drift yet; 0 or more, below 1.
        seed: of the ranks among equal scores.

    Attributes:
        photos: how many were seen.
        alarms: how many there were.

    Raises:
        SettingsError: `per_10000` or `defects` is out of its range.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        per_10000: float = PER_10000,
        defects: float = DEFECTS,
        seed: int = 0,
    ) -> None:
        if not 0 < per_10000 <= 10_000:
            raise SettingsError(
                f"the drift alarm's rate is {per_10000:g} in 10,000 photos: give a number above 0"
            )
        if not 0 <= defects < 1:
            raise SettingsError(
                f"the share of defective parts is {defects:g}: give a number from 0 to below 1"
            )
        self._per_10000, self._seed = float(per_10000), seed
        by_mistake = calibration.image_threshold.rate_range(_COVERAGE)[1]
        self._flagged = min(defects + by_mistake, _MOST_FLAGGED)
        self._cap = _cap(calibration)
        below = calibration.scores[calibration.scores < self._cap]
        self._counts = Counter(coarse(float(score)) for score in below)
        self.photos = self.alarms = 0
        self._shifts = [0.0] * len(_SHIFTS)
        self._shares = [0.0] * len(_POWERS)

    @property
    def level(self) -> float:
        """How near the next alarm is: 0 at the start and after an alarm, alarm at 1."""
        return self._statistic() * self._per_10000 / 10_000

    def add(self, score: float) -> DriftAlarm | None:
        """Take in the score of the next photo.

        Args:
            score: image score, anomalous or not, by the model of the calibration.

        Returns:
            An alarm, after which the statistic begins again at 0, or None.
        """
        self.photos += 1
        flagged = score >= self._cap
        self._shares = [
            (1 + r) * _bet_on_share(flagged, self._flagged, power)
            for r, power in zip(self._shares, _POWERS, strict=True)
        ]
        if not flagged:
            z = -NormalDist().inv_cdf(self._p_value(coarse(score)))
            self._shifts = [
                (1 + r) * math.exp(shift * z - shift**2 / 2)
                for r, shift in zip(self._shifts, _SHIFTS, strict=True)
            ]
        if self.level < 1:
            return None
        alarm = DriftAlarm(self.photos, self._direction(), self._per_10000)
        self.alarms += 1
        self._shifts, self._shares = [0.0] * len(_SHIFTS), [0.0] * len(_POWERS)
        return alarm

    def _p_value(self, score: float) -> float:
        """The share of higher scores, of equal ones a random part; the score joins the others."""
        self._counts[score] += 1
        higher = sum(count for other, count in self._counts.items() if other > score)
        part = random.Random(f"{self._seed} {self.photos}").random()
        p = (higher + part * self._counts[score]) / self._counts.total()
        return min(max(p, _SMALLEST_P), 1 - _SMALLEST_P)

    def _statistic(self) -> float:
        """The mean of both kinds of Shiryaev-Roberts statistics, each the mean of its bets."""
        return float(np.mean(self._shifts) + np.mean(self._shares)) / 2

    def _direction(self) -> Direction:
        higher = max(r for r, shift in zip(self._shifts, _SHIFTS, strict=True) if shift > 0)
        lower = max(r for r, shift in zip(self._shifts, _SHIFTS, strict=True) if shift < 0)
        if float(np.mean(self._shares)) > float(np.mean(self._shifts)):
            return "flagged"
        return "higher" if higher > lower else "lower"

    # --- State ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All it takes to go on after a restart, as JSON-ready values: some kilobytes."""
        return {
            "per_10000": self._per_10000,
            "flagged": self._flagged,
            "seed": self._seed,
            "cap": self._cap,
            "counts": sorted([score, count] for score, count in self._counts.items()),
            "photos": self.photos,
            "alarms": self.alarms,
            "shifts": self._shifts,
            "shares": self._shares,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """A monitor that goes on where the one that `to_dict` was asked of left off."""
        monitor = cls.__new__(cls)
        monitor._per_10000, monitor._flagged = state["per_10000"], state["flagged"]
        monitor._seed, monitor._cap = state["seed"], state["cap"]
        monitor._counts = Counter(dict(state["counts"]))
        monitor.photos, monitor.alarms = state["photos"], state["alarms"]
        monitor._shifts, monitor._shares = list(state["shifts"]), list(state["shares"])
        return monitor


def _cap(calibration: Calibration) -> float:
    """From which score on a photo counts as flagged: the lowest good score above the threshold.

    The scores below an order statistic are alike among themselves, whatever its value; below the
    threshold itself, which lies beside one, they are not quite. Without a score above it the
    largest is the cap. A threshold set by hand depends on no score and is its own.
    """
    threshold = calibration.image_threshold.value
    if calibration.set_by_hand is not None:
        return math.nextafter(threshold, math.inf)
    above = calibration.scores[calibration.scores > threshold]
    return float(above.min() if len(above) else calibration.scores.max())


def coarse(score: float) -> float:
    """A score with its first digits alone, so that few different ones are to be remembered.

    The rule knows nothing of any photo, so scores that were alike in distribution still are.
    """
    mantissa, exponent = math.frexp(score)
    return math.ldexp(math.floor(mantissa * 2**_BITS), exponent - _BITS)


def _bet_on_share(flagged: bool, allowed: float, power: float) -> float:
    """A bet that pays 1 on average where the allowed share is flagged, and less where fewer are."""
    share = math.pow(allowed, power)
    return share / allowed if flagged else (1 - share) / (1 - allowed)
