"""What is behind a shift's numbers: how scores went, where defects are, and of which kinds.

The chart of scores is one of individual values, its limits 2.66 mean moving ranges from the mean
(ISO 7870-2:2013; NIST/SEMATECH e-Handbook, 6.3.2.2): what scores do from one hour to the next is
usual, and limits by the spread within an hour would not allow for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import mean
from typing import Any

import sqlalchemy as sa

from reconpatch.result import SimilarKind
from reconpatch.station.counters import between, quarter_of, time_of
from reconpatch.station.records import Filter, Records
from reconpatch.station.shift_numbers import check_time
from reconpatch.station.tables import counters, versions

MOST_PLACES = 1_000
"""Newest anomalous records that places and kinds are told of."""

_LIMITS = 2.66  # mean moving ranges: 3 / d2 of two values
_FEWEST_PHOTOS, _FEWEST_POINTS = 10, 10
_HOUR, _DAY = 4, 96  # in quarters of an hour
_HOURLY = timedelta(days=14)  # longer times are told by the day
_OF = counters.c
_COLUMNS = (
    "id", "width", "height", "regions", "kind", "feedback", "feedback_kind", "feedback_place",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """The mean score of an hour or a day.

    Attributes:
        since: when it begins.
        until: when it ends.
        photos: how many passed in it.
        mean: of their scores.
        outside: whether it lies outside of the control limits.
    """

    since: datetime
    until: datetime
    photos: int
    mean: float
    outside: bool


@dataclass(frozen=True)
class Segment:
    """Mean scores that can be compared, and their control limits.

    Attributes:
        scores_as: see `Version`.
        points: in their order; those of fewer than 10 photos are left out.
        center: mean of the points; None of fewer than 10 points, as are the limits.
        low: lower control limit.
        high: upper control limit.
    """

    scores_as: int
    points: list[Point]
    center: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Place:
    """Where a defect is.

    Attributes:
        record: id of the record.
        x: in shares of the photo's width, 0 to 1.
        y: in shares of its height, 0 to 1.
    """

    record: int
    x: float
    y: float


@dataclass(frozen=True)
class KindCount:
    """How often a kind of defects was seen.

    Attributes:
        name: of the kind.
        said: whether operators named it; else verdicts did.
        count: how many records.
        records: their ids, newest first.
    """

    name: str
    said: bool
    count: int
    records: list[int]


@dataclass(frozen=True)
class Places:
    """Where on the part the defects are, and of which kinds.

    Attributes:
        records: how many it is told of: anomalous ones that nobody called good, and misses.
        more: whether there are older anomalous ones that it is not told of.
        places: the peak of each region, or the middle of each stroke that was drawn.
        kinds: the most frequent first.
    """

    records: int
    more: bool
    places: list[Place]
    kinds: list[KindCount]


def trend(
    records: Records, product: str, since: datetime, until: datetime, *, lot: str | None = None
) -> list[Segment]:
    """Mean scores of photos that passed, by the hour or, of more than 14 days, by the day.

    Args:
        records: of the station.
        product: name of the product.
        since: see `numbers`.
        until: see `numbers`.
        lot: see `numbers`.

    Returns:
        One segment for each stretch of versions whose scores can be compared, oldest first.
    """
    check_time(since, until)
    passed = sa.func.sum(_OF.inspected - _OF.anomalous).label("photos")
    query = sa.select(
        _OF.quarter, _OF.version, passed, sa.func.sum(_OF.passed_sum).label("total")
    ).where(
        records.counters.own(), _OF.product == product, _OF.inspected > 0,
        *between(since, until), *([_OF.lot == lot] if lot is not None else []),
    )  # fmt: skip
    query = query.group_by(_OF.quarter, _OF.version).order_by(_OF.quarter, _OF.version)
    alike = sa.select(versions.c.number, versions.c.scores_as).where(
        versions.c.station == records.station, versions.c.product == product
    )
    with records.counters.reading() as connection:
        rows = connection.execute(query).all()
        scale = {row.number: row.scores_as for row in connection.execute(alike)}
    step = _HOUR if until - since <= _HOURLY else _DAY
    first = quarter_of(since)
    stretches: dict[int, dict[int, list[Any]]] = {}
    for row in rows:
        of = stretches.setdefault(scale.get(row.version, row.version), {})
        of.setdefault((row.quarter - first) // step, []).append(row)
    return [_segment(scores_as, bins, first, step) for scores_as, bins in sorted(stretches.items())]


def places(
    records: Records, product: str, since: datetime, until: datetime, *, lot: str | None = None
) -> Places:
    """Where on the part the defects are, and of which kinds.

    Args:
        records: of the station.
        product: name of the product.
        since: see `numbers`.
        until: see `numbers`.
        lot: see `numbers`.
    """
    check_time(since, until)
    shared = {"product": product, "since": since, "until": until, "lot": lot or None}
    flagged = _newest(records, anomalous=True, **shared)
    missed = _newest(records, anomalous=False, feedback="defect", **shared)
    found = [record for record in (*flagged, *missed) if record.feedback != "good"]
    kinds: dict[tuple[str, bool], list[int]] = {}
    for record in found:
        if record.feedback_kind:
            kinds.setdefault((record.feedback_kind, True), []).append(record.id)
        elif record.kind is not None:
            label = SimilarKind(**record.kind).label
            kinds.setdefault((label, False), []).append(record.id)
    return Places(
        records=len(found),
        more=len(flagged) >= MOST_PLACES,
        places=[Place(record.id, *at) for record in found for at in _places(record)],
        kinds=[
            KindCount(name, said, len(ids), ids)
            for (name, said), ids in sorted(kinds.items(), key=lambda one: -len(one[1]))
        ],
    )


def _newest(records: Records, **wanted: Any) -> list[sa.Row[Any]]:
    return records.values(Filter(**wanted), _COLUMNS, limit=MOST_PLACES)


def _segment(scores_as: int, bins: dict[int, list[Any]], first: int, step: int) -> Segment:
    means = []
    for number, rows in sorted(bins.items()):
        photos = sum(int(row.photos) for row in rows)
        if photos >= _FEWEST_PHOTOS:
            means.append((number, photos, sum(float(row.total) for row in rows) / photos))
    center = low = high = None
    if len(means) >= _FEWEST_POINTS:
        center = mean(value for _, _, value in means)
        reach = _LIMITS * mean(abs(b[2] - a[2]) for a, b in pairwise(means))
        low, high = center - reach, center + reach
    points = [
        Point(
            time_of(first + number * step), time_of(first + (number + 1) * step), photos, value,
            low is not None and high is not None and not low <= value <= high,
        )
        for number, photos, value in means
    ]  # fmt: skip
    return Segment(scores_as, points, center, low, high)


def _places(record: sa.Row[Any]) -> Iterable[tuple[float, float]]:
    """Where a record's defects are, in shares of the photo."""
    if record.feedback_place:
        found = [
            (mean(x for x, _ in stroke["points"]), mean(y for _, y in stroke["points"]))
            for stroke in record.feedback_place
        ]
    else:
        found = [(x + 0.5, y + 0.5) for x, y in (region["peak"] for region in record.regions)]
    return [(min(max(x / record.width, 0), 1), min(max(y / record.height, 0), 1)) for x, y in found]
