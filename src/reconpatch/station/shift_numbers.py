"""What a time comes to: counters summed by product, shift, day and lot, and rates.

Rates have Wilson's interval at 95 % (Wilson, "Probable inference, the law of succession, and
statistical inference", 1927).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import NormalDist
from typing import Any, Literal

import sqlalchemy as sa

from reconpatch.errors import SettingsError
from reconpatch.station.counters import COUNTS, between, quarter_of, time_of
from reconpatch.station.records import Records
from reconpatch.station.shifts import Shifts
from reconpatch.station.tables import counters

By = Literal["product", "shift", "day", "lot"]

LONGEST = timedelta(days=100)
"""What is asked for at once, at most."""
MOST_LOTS = 500

_COVERAGE = 0.95
_OF = counters.c


@dataclass(frozen=True)
class Rate:
    """A share with its interval.

    Attributes:
        share: as it was counted; None of nothing.
        low: lower end of the interval at 95 %.
        high: upper end.
    """

    share: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Numbers:
    """What some photos came to.

    Attributes:
        product: name of the product.
        shift: name of the shift, where they are told by shift.
        day: of the shift, where they are told by shift or day.
        lot: where they are told by lot; None: of no lot.
        since: when the time begins that they are of.
        until: when it ends.
        inspected: photos with a verdict.
        anomalous: of these, NG.
        false_alarms: of the anomalous ones, called good.
        defects: of the anomalous ones, called a defect.
        goods: of the others, called good.
        misses: of the others, called a defect.
        failed: photos without a verdict, which belong to no lot.
        ng: share of anomalous ones of the inspected.
        false_alarm: share of good parts that were flagged. Its low end takes no anomalous part of
            which nobody said anything for good, its high end all of them.
    """

    product: str
    shift: str | None
    day: date | None
    lot: str | None
    since: datetime
    until: datetime
    inspected: int
    anomalous: int
    false_alarms: int
    defects: int
    goods: int
    misses: int
    failed: int
    ng: Rate
    false_alarm: Rate


def rate_of(count: int, total: int) -> Rate:
    """A share with Wilson's interval; of nothing anything may be so."""
    if total == 0:
        return Rate(None, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + _COVERAGE) / 2)
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total)
    half *= math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low = 0.0 if count == 0 else max(0.0, middle - half)
    return Rate(share, low, 1.0 if count == total else min(1.0, middle + half))


def false_alarm_rate(anomalous: int, false_alarms: int, defects: int, passed: int) -> Rate:
    """The share of good parts that were flagged, see `Numbers`.

    Args:
        anomalous: parts that were flagged.
        false_alarms: of these, called good.
        defects: of these, called a defect.
        passed: parts that were not, without those called a defect.
    """
    unsaid = anomalous - false_alarms - defects
    fewest = rate_of(false_alarms, false_alarms + passed)
    most = rate_of(false_alarms + unsaid, false_alarms + unsaid + passed)
    return Rate(fewest.share, fewest.low, most.high)


def numbers(
    records: Records,
    shifts: Shifts,
    by: By,
    since: datetime,
    until: datetime,
    *,
    product: str | None = None,
    lot: str | None = None,
) -> list[Numbers]:
    """What a time came to; the newest shift, day or lot first.

    Args:
        records: of the station.
        shifts: of the plant.
        by: what there is a row for, of each product.
        since: from this quarter of an hour on.
        until: to the quarter of an hour before this time.
        product: of this alone.
        lot: of this alone; "": of parts of no lot.

    Raises:
        SettingsError: the time is none, or too long.
    """
    check_time(since, until)
    groups = [_OF.product]
    if by in ("shift", "day"):
        groups.append(_OF.quarter)
    elif by == "lot":
        groups.append(_OF.lot)
    wanted = [records.counters.own(), *between(since, until)]
    wanted += [_OF.product == product] if product is not None else []
    wanted += [_OF.lot == lot] if lot is not None else []
    if by == "lot":
        wanted.append(_OF.inspected > 0)
    sums = [sa.func.sum(_OF[name]).label(name) for name in COUNTS]
    first = sa.func.min(_OF.quarter).label("from")
    last = sa.func.max(_OF.quarter).label("to")
    query = sa.select(*groups, *sums, first, last).where(*wanted).group_by(*groups)
    if by == "lot":
        query = query.order_by(last.desc()).limit(MOST_LOTS)
    with records.counters.reading() as connection:
        found = connection.execute(query).all()
    if by in ("shift", "day"):
        return _by_time(shifts, by, found, since, until)
    rows = [row._asdict() for row in found]
    if by == "product":
        rows.sort(key=lambda row: str(row["product"]))
        return [_told(row, since=since, until=until) for row in rows]
    return [
        _told(row, lot=row["lot"] or None, since=time_of(row["from"]), until=time_of(row["to"] + 1))
        for row in rows
    ]


def _by_time(
    shifts: Shifts, by: By, rows: Sequence[Sequence[Any]], since: datetime, until: datetime
) -> list[Numbers]:
    """Rows of product, quarter and counts as sums of shifts or days, the newest first."""
    ends: dict[tuple[date, str | None], list[datetime]] = {}
    place: dict[int, tuple[date, str | None]] = {}
    for shift in shifts.between(since, until):
        key = (shift.day, shift.name if by == "shift" else None)
        ends.setdefault(key, []).extend((shift.since, shift.until))
        place |= dict.fromkeys(range(quarter_of(shift.since), quarter_of(shift.until)), key)
    sums: dict[tuple[date, str | None, str], list[int]] = {}
    for product, quarter, *counts in rows:
        total = sums.setdefault((*place[quarter], product), [0] * len(COUNTS))
        for i in range(len(COUNTS)):
            total[i] += counts[i]
    products = sorted({product for _, _, product in sums})
    return [
        _told({"product": product, **dict(zip(COUNTS, sums[day, shift, product], strict=True))},
              day=day, shift=shift, since=max(since, min(at)), until=min(until, max(at)))
        for (day, shift), at in reversed(ends.items())
        for product in products
        if (day, shift, product) in sums
    ]  # fmt: skip


def check_time(since: datetime, until: datetime) -> None:
    """Refuse a time that is none, or too long to be told at once.

    Raises:
        SettingsError: it is.
    """
    if not timedelta(0) < until - since <= LONGEST:
        raise SettingsError(
            f"the time from {since.isoformat()} to {until.isoformat()} cannot be told: give an "
            f"end after its beginning, and {LONGEST.days} days at most"
        )


def _told(
    row: dict[str, Any],
    *,
    since: datetime,
    until: datetime,
    day: date | None = None,
    shift: str | None = None,
    lot: str | None = None,
) -> Numbers:
    counts = {name: int(row[name]) for name in COUNTS}
    passed = counts["inspected"] - counts["anomalous"] - counts["misses"]
    return Numbers(
        product=row["product"], shift=shift, day=day, lot=lot, since=since, until=until,
        ng=rate_of(counts["anomalous"], counts["inspected"]),
        false_alarm=false_alarm_rate(
            counts["anomalous"], counts["false_alarms"], counts["defects"], passed
        ),
        **counts,
    )  # fmt: skip
