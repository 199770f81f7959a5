"""Shifts of a plant, counters of its records, and what is told of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa

from conftest import scratched, textured
from reconpatch.errors import SettingsError
from reconpatch.result import Region, SimilarKind
from reconpatch.station.config import read_config
from reconpatch.station.counters import quarter_of, time_of
from reconpatch.station.drawing import Stroke
from reconpatch.station.log import Failure
from reconpatch.station.records import Filter, Records
from reconpatch.station.shift_details import places, trend
from reconpatch.station.shift_numbers import false_alarm_rate, numbers, rate_of
from reconpatch.station.shifts import Shifts
from reconpatch.station.tables import counters
from test_records import GOOD, NOON, VERDICT, VERSION, database, postgresql, records  # noqa: F401
from test_service import API, problem, start  # noqa: F401  (a fixture)
from test_station import png

BERLIN = Shifts(zone="Europe/Berlin", starts={"early": "06:00", "late": "14:00", "night": "22:00"})
DAY = timedelta(days=1)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Records]:
    """Records in SQLite, for what does not differ between databases."""
    opened = Records(tmp_path / "records.sqlite", "line 1")
    yield opened
    opened.close()


# --- Shifts --------------------------------------------------------------------------------------


def test_shifts_follow_the_clock_of_the_plant() -> None:
    early, late, night = BERLIN.of(date(2026, 3, 28))
    assert (early.since, early.until) == (datetime(2026, 3, 28, 5, tzinfo=UTC), late.since)
    assert (night.name, night.day) == ("night", date(2026, 3, 28))
    assert night.until - night.since == timedelta(hours=7)  # the clock is put forward
    assert BERLIN.of(date(2026, 10, 24))[2].until == datetime(2026, 10, 25, 5, tzinfo=UTC)
    after_midnight = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    [at_work] = BERLIN.between(after_midnight, after_midnight + timedelta(seconds=1))
    assert at_work == night
    assert BERLIN.day_of(after_midnight) == date(2026, 3, 28)
    assert BERLIN.names == ["early", "late", "night"]


def test_without_shifts_a_day_is_one() -> None:
    found = Shifts().between(NOON, NOON + 2 * DAY)
    assert [(shift.name, shift.day.day) for shift in found] == [("day", 1), ("day", 2), ("day", 3)]
    assert found[0].since == datetime(2026, 3, 1, tzinfo=UTC)


def test_shifts_are_read_from_the_file_of_the_station(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text('[shifts]\nzone = "Asia/Kolkata"\nstarts = {A = "06:15", B = 18:00:00}\n')
    shifts = read_config(path).shifts
    assert shifts.starts == {"A": time(6, 15), "B": time(18)}
    assert shifts.of(date(2026, 3, 1))[0].since == datetime(2026, 3, 1, 0, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('shifts = 3', "shifts is 3: write it as a table, [shifts]"),
        ('[shifts]\nzones = "UTC"', "has the key 'zones', which is not known there: give zone or"),
        ('[shifts]\nzone = "Berlin"', "shifts.zone is 'Berlin': give the name of a time zone"),
        ('[shifts]\nzone = "/etc/passwd"', "shifts.zone is '/etc/passwd': give the name of a time"),
        ("[shifts]\nstarts = {}", "shifts.starts: give a table of 1 to 24 shifts, such as"),
        ('[shifts]\nstarts = {A = "6"}', 'give A a time of day, such as "06:00"'),
        ('[shifts]\nstarts = {A = "06:10"}', "give A a time of day on a quarter of an hour, such"),
        ('[shifts]\nstarts = {A = "06:00", B = "06:45"}', "give starts that are an hour apart"),
        ('[shifts]\nstarts = {A = "23:30", B = "00:00"}', "give starts that are an hour apart"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_shifts_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "station.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


# --- Counters ------------------------------------------------------------------------------------


def counted_slowly(records: Records) -> dict[tuple[Any, ...], Counter[str]]:  # noqa: F811
    """The counters as all records and failures say, looked at one by one."""
    found: dict[tuple[Any, ...], Counter[str]] = {}
    for one in records.export():
        key = (quarter_of(one.time), one.product, one.version, one.lot or "")
        row = found.setdefault(key, Counter())
        row["inspected"] += 1
        row["anomalous"] += one.anomalous
        said = {
            (True, "good"): "false_alarms", (True, "defect"): "defects",
            (False, "good"): "goods", (False, "defect"): "misses",
        }.get((one.anomalous, one.feedback))  # fmt: skip
        row.update([said] if said else [])
        row["first"] = min(row["first"] or one.id, one.id)
        row["last"] = max(row["last"], one.id)
    for failed in records.log.failures(limit=1_000)[0]:
        found.setdefault((quarter_of(failed.time), failed.product, 0, ""), Counter())["failed"] += 1
    return found


def counted(records: Records) -> dict[tuple[Any, ...], Counter[str]]:  # noqa: F811
    query = sa.select(counters).where(counters.c.station == records.station)
    with records._reading() as connection:
        rows = [row._asdict() for row in connection.execute(query)]
    found = {}
    for row in rows:
        key = tuple(row.pop(name) for name in ("quarter", "product", "version", "lot"))
        if key[2] == 0:
            row.pop("first")
            row.pop("last")
        del row["station"], row["passed_sum"]
        found[key] = Counter({name: value for name, value in row.items() if value})
    return found


def failure(when: datetime, product: str = "bottle") -> Failure:
    return Failure(None, when, product, "part.png", "photo", "it cannot be read")


def test_counters_say_what_all_records_do(records: Records) -> None:  # noqa: F811
    random = Random(0)
    other = Records(records._engine.url.render_as_string(hide_password=False), "line 2")
    for _ in range(12):
        verdicts = [
            replace(
                random.choice([VERDICT, GOOD]),
                time=NOON + timedelta(minutes=random.randrange(60)),
                product=random.choice(["bottle", "cap"]),
                version=random.choice([1, 2]),
                lot=random.choice([None, "L1", "L2"]),
            )
            for _ in range(random.randrange(1, 9))
        ]
        ids = [record.id for record in records.add(verdicts)]
        records.log.add_failures([failure(NOON), failure(NOON + timedelta(hours=1), "cap")])
        other.add(verdicts)
        for record in random.sample(ids, len(ids) // 2):
            for _ in range(2):
                records.feedback(record, random.choice(["good", "defect", None]))
    other.close()
    slow = counted_slowly(records)
    assert len(slow) > 20
    assert counted(records) == {key: +row for key, row in slow.items()}


def test_records_of_older_programs_are_counted(records: Records) -> None:  # noqa: F811
    from reconpatch.station.migrations.versions.r0006_counters import counting

    late = timedelta(minutes=14, seconds=59, microseconds=999_999)
    made = [replace(VERDICT, time=NOON), replace(GOOD, time=NOON + late), GOOD, VERDICT]
    for record, said in zip(records.add(made), (None, "good", "defect", "good"), strict=True):
        records.feedback(record.id, said)
    records.log.add_failures([failure(NOON), failure(NOON + late)])

    def rows() -> list[Any]:
        with records._reading() as connection:
            return list(connection.execute(sa.select(counters).order_by(counters.c.version)))

    before = rows()
    assert len(before) == 2
    with records._changing() as connection:
        connection.execute(sa.delete(counters))
        for statement in counting(connection.dialect.name):
            connection.execute(sa.text(statement))
    assert rows() == before


def test_a_filter_finds_what_looking_at_each_record_does(records: Records) -> None:  # noqa: F811
    random = Random(1)
    for hour in range(12):
        # Now and then the clock is put back.
        at = NOON + timedelta(hours=hour - 5 * (hour % 4 == 3), minutes=random.randrange(60))
        made = [
            replace(
                random.choice([VERDICT, GOOD]), time=at, version=1 + hour // 6,
                product=random.choice(["bottle", "cap"]), lot=random.choice([None, "L1"]),
            )
            for _ in range(4)
        ]  # fmt: skip
        for record in records.add(made):
            records.feedback(record.id, random.choice(["good", "defect", None]))
        records.log.add_failures([failure(at)])
    everything = list(records.export())
    assert len(everything) == 48
    for _ in range(150):
        wanted = Filter(
            product=random.choice([None, "bottle", "none"]),
            version=random.choice([None, 1, 2]),
            anomalous=random.choice([None, True, False]),
            feedback=random.choice([None, "good", "defect", "any", "none"]),
            since=random.choice([None, NOON + timedelta(minutes=random.randrange(900))]),
            until=random.choice([None, NOON + timedelta(minutes=random.randrange(900))]),
            lot=random.choice([None, "L1", "L2"]),
        )

        def fits(one: Any, wanted: Filter = wanted) -> bool:
            told = one.feedback or "none"
            return (
                all(
                    getattr(wanted, name) in (None, getattr(one, name))
                    for name in ("product", "version", "anomalous", "lot")
                )
                and (wanted.feedback in (None, told)
                     or (wanted.feedback == "any" and told != "none"))
                and (wanted.since is None or one.time >= wanted.since)
                and (wanted.until is None or one.time < wanted.until)
            )  # fmt: skip

        assert list(records.export(wanted)) == [one for one in everything if fits(one)]
    late = NOON + timedelta(hours=3)
    found, _ = records.log.failures("bottle", since=late, until=late + timedelta(hours=2))
    assert found == [
        one for one in records.log.failures(limit=1_000)[0]
        if late <= one.time < late + timedelta(hours=2)
    ]  # fmt: skip
    assert records.log.failures(until=NOON - DAY) == ([], None)


# --- Numbers -------------------------------------------------------------------------------------


def test_rates_have_wilsons_interval() -> None:
    rate = rate_of(3, 50)
    z = 1.959964
    for end in (rate.low, rate.high):  # where the share is z standard errors away
        assert abs(3 / 50 - end) == pytest.approx(z * (end * (1 - end) / 50) ** 0.5, rel=1e-5)
    assert rate.low < rate.share < rate.high
    assert rate_of(0, 0) == replace(rate, share=None, low=0.0, high=1.0)
    assert (rate_of(0, 20).low, rate_of(20, 20).high) == (0, 1)


def test_parts_that_nobody_judged_widen_the_rate_of_false_alarms() -> None:
    judged = false_alarm_rate(5, 2, 3, 198)
    assert judged == rate_of(2, 200)
    unsaid = false_alarm_rate(9, 2, 3, 198)
    assert (unsaid.share, unsaid.low) == (judged.share, judged.low)
    assert unsaid.high == rate_of(6, 204).high


def test_numbers_by_product_shift_day_and_lot(local: Records) -> None:
    early = datetime(2026, 3, 2, 5, tzinfo=UTC)  # 06:00 in Berlin
    ids = [
        one.id
        for one in local.add(
            [
                replace(VERDICT, time=early, lot="L1"),
                replace(VERDICT, time=early, lot="L1"),
                replace(VERDICT, time=early + timedelta(hours=7, minutes=59), lot="L2"),
                replace(GOOD, time=early + timedelta(hours=8), lot="L2"),
                replace(GOOD, time=early + timedelta(hours=23), lot=None),
                replace(GOOD, time=early + timedelta(hours=1), product="cap"),
            ]
        )
    ]
    local.log.add_failures([failure(early + timedelta(hours=20))])
    local.feedback(ids[0], "good")
    local.feedback(ids[1], "defect")
    local.feedback(ids[4], "defect")

    def told(by: Any, *names: str, **given: Any) -> list[tuple[Any, ...]]:
        found = numbers(local, BERLIN, by, early, early + DAY, **given)
        return [tuple(getattr(one, name) for name in names) for one in found]

    counts = ("inspected", "anomalous", "false_alarms", "defects", "misses", "failed")
    assert told("product", "product", *counts) == [
        ("bottle", 5, 3, 1, 1, 1, 1), ("cap", 1, 0, 0, 0, 0, 0)
    ]  # fmt: skip
    assert told("shift", "shift", "inspected", "anomalous", "failed", product="bottle") == [
        ("night", 1, 0, 1), ("late", 1, 0, 0), ("early", 3, 3, 0)
    ]  # fmt: skip
    assert told("day", "day", "product", "inspected") == [
        (date(2026, 3, 2), "bottle", 5), (date(2026, 3, 2), "cap", 1)
    ]  # fmt: skip
    assert told("lot", "lot", "inspected", "anomalous", product="bottle") == [
        (None, 1, 0), ("L2", 2, 1), ("L1", 2, 2)
    ]  # fmt: skip
    assert told("product", "inspected", lot="L2") == [(2,)]
    assert told("shift", "since", "until", lot="L1") == [(early, early + timedelta(hours=8))]
    assert numbers(local, BERLIN, "shift", early + DAY, early + 2 * DAY) == []
    for until in (early, early + timedelta(days=101)):
        with pytest.raises(SettingsError, match="an end after its beginning, and 100 days at most"):
            numbers(local, BERLIN, "shift", early, until)


def test_scores_have_the_limits_of_a_chart_of_individual_values(local: Records) -> None:
    means = [10, 11, 10, 11, 10, 11, 10, 11, 10, 20]
    local.add_version(VERSION)
    local.add_version(replace(VERSION, number=2, scores_as=1))
    local.add_version(replace(VERSION, number=3, scores_as=3))
    for hour, value in enumerate(means):
        at = NOON + timedelta(hours=hour)
        version = 1 if hour < 5 else 2  # on the same scale
        local.add(
            [replace(GOOD, time=at, score=value + d, version=version) for d in (-1, 1) * 5]
            + [replace(VERDICT, time=at, score=99.0)]  # did not pass
        )
    local.add([replace(GOOD, time=NOON, version=3)] * 10)
    local.add([replace(GOOD, time=NOON + timedelta(hours=11))] * 9)  # too few
    first, other = trend(local, "bottle", NOON, NOON + DAY)
    assert [point.mean for point in first.points] == means
    assert first.center == sum(means) / 10
    moving = (8 * 1 + 10) / 9
    assert first.low == pytest.approx(first.center - 2.66 * moving)
    assert first.high == pytest.approx(first.center + 2.66 * moving)
    assert [point.outside for point in first.points] == [False] * 9 + [True]
    assert (first.points[1].since, first.points[1].photos) == (NOON + timedelta(hours=1), 10)
    assert (other.scores_as, len(other.points), other.high) == (3, 1, None)
    [day] = trend(local, "bottle", NOON, NOON + 15 * DAY)[0].points
    assert (day.photos, day.until) == (109, NOON + DAY)


def test_places_and_kinds_are_those_of_defects(local: Records) -> None:
    scratch = SimilarKind("scratch", 0.9, True)
    region = Region(box=(0, 0, 9, 9), area=4, peak=(47, 31), peak_value=3.5)
    verdicts = [
        replace(VERDICT, kind=scratch, regions=(region, *VERDICT.regions)),  # 96 by 64 pixels
        replace(VERDICT, kind=scratch),
        replace(VERDICT, kind=scratch, lot="L1"),
        GOOD,
    ]
    ids = [record.id for record in local.add(verdicts)]
    local.feedback(ids[1], "good")  # no defect
    local.feedback(ids[2], "defect", kind="chip")
    local.feedback(ids[3], "defect", kind="chip", place=[Stroke(2, ((48, 0), (96, 64)))])
    since, until = time_of(quarter_of(NOON)), NOON + DAY
    found = places(local, "bottle", since, until)
    assert (found.records, found.more) == (3, False)
    told = [(place.record, place.x, place.y) for place in found.places]
    corner = (1.5 / 96, 2.5 / 64)
    assert told == [
        (ids[2], *corner), (ids[0], 47.5 / 96, 31.5 / 64), (ids[0], *corner), (ids[3], 0.75, 0.5)
    ]  # fmt: skip
    assert [(one.name, one.said, one.records) for one in found.kinds] == [
        ("chip", True, [ids[2], ids[3]]), ("scratch", False, [ids[0]])
    ]  # fmt: skip
    assert places(local, "bottle", since, until, lot="L1").records == 1


# --- The routes ----------------------------------------------------------------------------------


def test_the_routes_tell_the_numbers_of_a_shift(start: Any) -> None:  # noqa: F811
    client = start(shifts=BERLIN)
    for seed in range(2):
        client.post(f"{API}/inspect", params={"lot": "L1"}, content=png(textured(seed)))
    flagged = client.post(f"{API}/inspect", content=png(scratched(textured(1)))).json()
    client.post(f"{API}/records/{flagged['id']}/feedback", json={"feedback": "good"})
    client.post(f"{API}/inspect", content=b"no photo")
    told = client.get(f"{API}/shifts").json()
    assert (told["zone"], told["names"]) == ("Europe/Berlin", ["early", "late", "night"])
    now = told["shifts"][0]
    time_ = {"since": now["since"], "until": now["until"]}
    [row] = client.get(f"{API}/shifts/numbers", params=time_).json()["rows"]
    assert (row["shift"], row["day"], row["product"]) == (now["name"], told["today"], "disc")
    assert [row[name] for name in ("inspected", "anomalous", "false_alarms", "failed")] == [
        3,
        1,
        1,
        1,
    ]
    served = client.get(f"{API}/products").json()["products"][0]
    assert row["promised"] == served["false_alarm_rate"]
    lots = client.get(f"{API}/shifts/numbers", params=time_ | {"by": "lot"}).json()["rows"]
    assert [(one["lot"], one["inspected"]) for one in lots] == [(None, 1), ("L1", 2)]
    assert client.get(f"{API}/failures", params=time_).json()["failures"]
    of = time_ | {"product": "disc"}
    [segment] = client.get(f"{API}/shifts/trend", params=of).json()["segments"]
    assert segment["points"] == []  # too few
    found = client.get(f"{API}/shifts/places", params=of).json()
    assert found["records"] == 0  # called good
    assert "there is no product 'x'" in problem(
        client.get(f"{API}/shifts/places", params=of | {"product": "x"}), 404
    )
    assert "cannot be told" in problem(
        client.get(f"{API}/shifts/numbers", params=time_ | {"until": now["since"]}), 400
    )
    assert "since" in problem(client.get(f"{API}/shifts/numbers"), 422)
