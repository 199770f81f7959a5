"""What a threshold or version would have decided on all parts of which people said what they were.

Scores of versions with another memory bank cannot be compared: such parts are scored once more by
the version that is asked about, and what comes of it is kept, so that it is done once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reconpatch.errors import NotFoundError, PhotoError
from reconpatch.station.log import StationLog
from reconpatch.station.records import Told

# Parts that are named, of those that would be missed.
_NAMED = 20
# Scores that are kept at once.
_SOME = 50


@dataclass(frozen=True)
class Missed:
    """A confirmed defect that would be called good."""

    record: int
    name: str
    score: float


@dataclass(frozen=True)
class Confirmed:
    """What would be decided on all parts with feedback, each photo counted once.

    Attributes:
        defects: parts that were called defects.
        missed_now: of these, called good by the version in service.
        missed_then: of these, called good by what is asked about.
        goods: parts that were called good.
        false_alarms_now: of these, called anomalous by the version in service.
        false_alarms_then: of these, called anomalous by what is asked about.
        unscored: parts that have yet to be scored once more; they count as nothing else.
        gone: parts whose photo is no longer stored, so that they cannot be scored.
        missed: the first of those that would be missed, the newest first.
    """

    defects: int
    missed_now: int
    missed_then: int
    goods: int
    false_alarms_now: int
    false_alarms_then: int
    unscored: int
    gone: int
    missed: tuple[Missed, ...]

    @property
    def asks(self) -> bool:
        """Whether somebody has to confirm the change: defects are missed, or may be."""
        return self.unscored > 0 or (self.missed_then > 0 and self.missed_then >= self.missed_now)

    @property
    def sentence(self) -> str:
        """Why it has to be confirmed."""
        if self.missed_then:
            return (
                f"{self.missed_then} of {self.defects} confirmed defects would be called good "
                f"({self.missed_now} are now): choose another one, or confirm it"
            )
        return (
            f"{self.unscored} confirmed parts have not been scored by this version yet, so that "
            "nobody knows whether defects would be missed: wait until they are, or confirm it"
        )


@dataclass(frozen=True)
class Scale:
    """Whose scores are meant.

    Attributes:
        versions: numbers of the versions that score alike.
        scores_as: see `Version`.
        threshold: photos that score more are anomalous.
    """

    versions: frozenset[int]
    scores_as: int
    threshold: float


def confirmed(
    told: Sequence[Told],
    product: str,
    now: Scale | None,
    then: Scale,
    log: StationLog,
    score: Callable[[Told], float],
    seconds: float,
) -> Confirmed:
    """Look at all parts with feedback.

    Args:
        told: the parts, newest first.
        product: name of their product.
        now: of the version in service, or None.
        then: of what is asked about.
        log: where scores are kept.
        score: inspects a part once more with what is asked about; a NotFoundError or PhotoError
            where its photo is gone.
        seconds: how long parts may be scored; the others count as unscored.
    """
    parts: dict[str, Told] = {}
    for part in told:
        parts.setdefault(part.photo, part)
    own = list(parts.values())
    scored, gone = _scores(own, product, then, log, score, seconds)
    before = {} if now is None else _known(own, product, now, log)
    counts = {"defect": [0, 0, 0], "good": [0, 0, 0]}  # all, anomalous now, anomalous then
    missed = []
    for part in own:
        count = counts[part.feedback]
        count[0] += 1
        known = before.get(part.photo)
        count[1] += part.anomalous if known is None or now is None else known > now.threshold
        value = scored.get(part.photo)
        if value is not None:
            count[2] += value > then.threshold
            if part.feedback == "defect" and value <= then.threshold:
                missed.append(Missed(part.id, part.name, value))
    defects, goods = counts["defect"], counts["good"]
    return Confirmed(
        defects=defects[0],
        missed_now=defects[0] - defects[1],
        missed_then=len(missed),
        goods=goods[0],
        false_alarms_now=goods[1],
        false_alarms_then=goods[2],
        unscored=len(own) - len(scored) - gone,
        gone=gone,
        missed=tuple(missed[:_NAMED]),
    )


def _known(parts: Sequence[Told], product: str, scale: Scale, log: StationLog) -> dict[str, float]:
    """Scores that need no inspection, by photo."""
    scores = {part.photo: part.score for part in parts if part.version in scale.versions}
    others = [part.photo for part in parts if part.photo not in scores]
    return scores | (log.scores(product, scale.scores_as, others) if others else {})


def _scores(
    parts: Sequence[Told],
    product: str,
    scale: Scale,
    log: StationLog,
    score: Callable[[Told], float],
    seconds: float,
) -> tuple[dict[str, float], int]:
    """Scores by photo, and how many photos are gone."""
    scores = _known(parts, product, scale, log)
    end = time.monotonic() + seconds
    new: dict[str, float] = {}
    gone = 0
    # Defects first: they are what has to be known.
    for part in sorted(parts, key=lambda part: part.feedback != "defect"):
        if part.photo in scores or time.monotonic() > end:
            continue
        try:
            new[part.photo] = score(part)
        except (NotFoundError, PhotoError):
            gone += 1
        if len(new) >= _SOME:
            log.add_scores(product, scale.scores_as, new)
            scores, new = scores | new, {}
    log.add_scores(product, scale.scores_as, new)
    return scores | new, gone
