"""A database of a million records: how long what the page asks of it takes.

    python benchmarks/million.py                  # 1,000,000 records of 100 days, SQLite
    python benchmarks/million.py --days 1         # all of one day
    python benchmarks/million.py --database postgresql://postgres@/bench?host=/tmp/pg
    python benchmarks/million.py --keep DATA      # keeps the database, and uses it the next time

Makes the records directly, without photos: four products, six lots of each a day, 1 % anomalous,
some of them with feedback. Then asks what the page asks, each question five times, and prints in
milliseconds the median, the slowest, and the median of the processor's time, which is what counts
where other programs keep the machine busy; and what it costs to keep a verdict.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import sqlalchemy as sa

from reconpatch.result import Region, SimilarKind
from reconpatch.station.records import Closest, Filter, Records, Verdict, Version, as_rows
from reconpatch.station.search import Search
from reconpatch.station.shift_details import places, trend
from reconpatch.station.shift_numbers import numbers
from reconpatch.station.shifts import Shifts
from reconpatch.station.tables import inspections

PRODUCTS = ("bottle", "cap", "disc", "seal")
NOW = datetime(2026, 3, 1, 22, tzinfo=UTC)
SHIFTS = Shifts(zone="Europe/Berlin", starts={"early": "06:00", "late": "14:00", "night": "22:00"})
TIMES = 5
_PART = 5_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--records", type=int, default=1_000_000)
    arguments.add_argument("--days", type=float, default=100)
    arguments.add_argument("--database", help="URL of an empty database; none: SQLite")
    arguments.add_argument("--keep", type=Path, help="folder for the SQLite file")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = given.keep or Path(name)
        with closing(Records(given.database or folder / "records.sqlite", "line 1")) as records:
            if not records.page(limit=1).records:
                began = time.perf_counter()
                fill(records, given.records, given.days)
                took = time.perf_counter() - began
                print(f"{given.records:,} records of {given.days:g} days made in {took:.0f} s")
            ask_all(records, given.days)


def fill(records: Records, count: int, days: float) -> None:
    """Make the records: their rows, and the counters as `Records.add` keeps them."""
    for product in PRODUCTS:
        records.add_version(
            Version(product, 1, "0001.rcp", "c" * 64, "f" * 64, 25.0, None, 1, NOW, "given")
        )
    made = made_rows(count, days)
    for first in range(0, count, _PART):
        rows = [next(made) for _ in range(min(_PART, count - first))]
        with records._changing() as connection:
            connection.execute(sa.insert(inspections), rows)
            parts = [SimpleNamespace(**row | {"feedback": None}) for row in rows]
            records.counters.add(connection, parts)
            for part, row in zip(parts, rows, strict=True):
                if row["feedback"]:
                    records.counters.change(connection, part, SimpleNamespace(**row))
        print(f"\r{first + len(rows):,}", end="", file=sys.stderr)
    print(file=sys.stderr)
    if records._engine.dialect.name == "postgresql":
        with records._changing() as connection:  # as the server does by itself, some time later
            connection.exec_driver_sql("ANALYZE")
            last = f"SELECT setval('inspections_id_seq', {count})"
            connection.exec_driver_sql(last)


def made_rows(count: int, days: float) -> Iterator[dict[str, Any]]:
    """Rows one after the other, at even times, the last of them now."""
    rng = np.random.default_rng(0)
    scores = rng.normal(18, 2, count).clip(5)
    anomalous = rng.random(count) < 0.01
    told = rng.random(count)
    places = rng.random((count, 2))
    step = timedelta(days=days) / count
    closest = asdict(Closest("good/part000.png", (0, 0, 8, 8), 1.0))
    for i in range(count):
        x, y = (int(96 * place) for place in places[i])
        when = NOW - step * (count - i)
        flagged = bool(anomalous[i])
        score = float(scores[i]) + 12 * flagged
        feedback = None
        if flagged and told[i] < 0.5:
            feedback = "good" if told[i] < 0.1 else "defect"
        elif not flagged and told[i] < 0.0002:
            feedback = "defect"
        region = Region((x, y, x + 4, y + 4), 16, (x, y), score)
        kind = SimilarKind(("scratch", "chip", "stain")[i % 3], 0.8, True)
        yield {
            "station": "line 1", "time": when, "product": PRODUCTS[i % 4], "version": 1,
            "fingerprint": "f" * 64, "name": f"part{i:07}.png", "photo": f"{i:064x}",
            "width": 100, "height": 100, "score": score, "threshold": 25.0,
            "map_threshold": 25.0, "p_value": 0.5, "anomalous": flagged,
            "inspected": (0, 0, 100, 100), "regions": [asdict(region)] if flagged else [],
            "closest": closest, "kind": asdict(kind) if flagged else None,
            "peak_x": (x + 0.5) / 100 if flagged else None,
            "peak_y": (y + 0.5) / 100 if flagged else None,
            "lot": f"{when:%y%m%d}-{when.hour // 4}", "serial": f"S{i:08}",
            "id": i + 1, "feedback": feedback, "feedback_time": when if feedback else None,
        }  # fmt: skip


def ask_all(records: Records, days: float) -> None:
    shift = {"since": NOW - timedelta(hours=8), "until": NOW}
    old = {"since": NOW - timedelta(days=days / 2), "until": NOW - timedelta(days=days / 2.1)}
    history: dict[str, dict[str, Any]] = {
        "the newest": {},
        "of a product": {"product": "disc"},
        "anomalous": {"anomalous": True},
        "anomalous of a product": {"product": "disc", "anomalous": True},
        "a shift's": shift,
        "a shift's anomalous of a product": shift | {"product": "disc", "anomalous": True},
        "of an old time": old,
        "anomalous of an old time": old | {"anomalous": True},
        "before all": {"until": NOW - timedelta(days=days + 1)},
        "after all": {"since": NOW},
        "of a lot": {"lot": f"{NOW - timedelta(days=days / 2):%y%m%d}-1"},
        "of a lot that is not": {"lot": "none"},
        "of a serial number": {"serial": "S00500000"},
        "of a product that is not": {"product": "none"},
        "of a version that is not": {"version": 9},
        "with feedback": {"feedback": "any"},
        "with feedback, of a product": {"product": "disc", "feedback": "any"},
        "false alarms": {"anomalous": True, "feedback": "good"},
        "misses": {"anomalous": False, "feedback": "defect"},
        "misses of a product": {"product": "cap", "anomalous": False, "feedback": "defect"},
        "called good, not anomalous: none": {"anomalous": False, "feedback": "good"},
    }
    for what, given in history.items():
        timed(f"history: {what}", lambda given=given: records.page(Filter(**given), limit=51))
    searches = {
        "a name": Search(name="part0500000"),
        "a name that is not": Search(name="no such name"),
        "a number": Search(id=500_000),
        "scores that are not": Search(score_least=1e6),
        "a place that is not": Search(place=(0.97, 0.97, 1.0, 1.0)),
    }
    for what, search in searches.items():
        timed(f"search: {what}",
              lambda search=search: records.page(Filter(search=search), limit=51))  # fmt: skip
    week = {"since": NOW - timedelta(days=min(7, days)), "until": NOW}
    month = {"since": NOW - timedelta(days=min(30, days)), "until": NOW}
    for what, span in {"a shift": shift, "7 days": week, "30 days": month}.items():
        for by in ("product", "shift", "lot"):
            timed(f"numbers of {what} by {by}",
                  lambda by=by, span=span: numbers(records, SHIFTS, by, **span))  # fmt: skip
        timed(f"scores of {what}", lambda span=span: trend(records, "disc", **span))
        timed(f"places and kinds of {what}", lambda span=span: places(records, "disc", **span))
    for what, given in {"a shift's": shift, "anomalous of all": {"anomalous": True}}.items():
        timed(f"CSV: {what}", lambda given=given: sum(1 for _ in as_rows(
            records.export(Filter(**given)))), once=True)  # fmt: skip
    verdict = {k: v for k, v in vars(records.get(1)).items() if k in Verdict.__dataclass_fields__}
    timed("keep a verdict", lambda: records.add([Verdict(**verdict | {"time": NOW})]))


def timed(what: str, question: Callable[[], Any], *, once: bool = False) -> None:
    """Ask a question some times, and say how long it took."""
    took, worked = [], []
    for _ in range(1 if once else TIMES):
        began, before = time.perf_counter(), time.process_time()
        answer = question()
        took.append(1000 * (time.perf_counter() - began))
        worked.append(1000 * (time.process_time() - before))
    told = f"{answer:,} rows" if isinstance(answer, int) else ""
    figures = (statistics.median(took), max(took), statistics.median(worked))
    print(f"{what:45}", *(f"{figure:8.1f}" for figure in figures), told)


if __name__ == "__main__":
    main()
