"""Search of the records by number, name, score and place; each beside a search of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconpatch.errors import SettingsError
from reconpatch.result import Region
from reconpatch.station.records import Filter, Record, Records, Verdict
from reconpatch.station.search import Search, place_of
from test_records import VERDICT, database, postgresql  # noqa: F401  (fixtures)


@pytest.fixture
def records(database: str | Path) -> Iterator[Records]:  # noqa: F811
    """Records of 40 photos; every fifth has a region, whose peak goes from corner to corner."""
    opened = Records(database, "station")
    opened.add([_numbered(i) for i in range(40)])
    yield opened
    opened.close()


def _numbered(i: int) -> Verdict:
    at = (2 * i, i)
    region = Region((at[0], at[1], at[0] + 1, at[1] + 1), 1, at, 2.0)
    return replace(
        VERDICT,
        name=f"Part_{i}%.png", score=float(i), width=80, height=40,
        anomalous=i % 5 == 0, regions=(region,) if i % 5 == 0 else (),
    )  # fmt: skip


SEARCHES: list[tuple[Search, Callable[[Record], bool]]] = [
    (Search(id=7), lambda one: one.id == 7),
    (Search(name="part_1"), lambda one: "part_1" in one.name.lower()),
    (Search(name="_3%"), lambda one: "_3%" in one.name),
    (Search(score_least=10, score_most=12), lambda one: 10 <= one.score <= 12),
    (Search(place=place_of("0,0,0.5,0.5")), lambda one: bool(one.regions) and one.score < 20),
    (Search(place=place_of("0.5,0.5,1,1"), name="Part_3"), lambda one: one.score in (30, 35)),
    (Search(place=place_of("0.5,0,1,0.5")), lambda _: False),
]


@pytest.mark.parametrize(("search", "fits"), SEARCHES)
@pytest.mark.parametrize("anomalous", [None, True])
def test_a_search_finds_what_a_look_at_every_record_finds(
    records: Records, search: Search, fits: Callable[[Record], bool], anomalous: bool | None
) -> None:
    wanted = Filter(search=search, anomalous=anomalous)
    every = [one for one in records.export() if anomalous in (None, one.anomalous)]
    expected = [one.id for one in every if fits(one)]
    assert [one.id for one in records.export(wanted)] == expected
    assert records.count(wanted) == len(expected)
    if expected[2:]:
        page = records.page(wanted, limit=2)
        rest = records.page(wanted, limit=100, before=page.cursor)
        assert [one.id for one in [*page.records, *rest.records]] == expected


def test_a_search_goes_through_the_narrow_index_alone(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.sqlite", "station")
    wanted = Filter(product="bottle", search=Search(name="part_1", score_most=30))
    query = records._matching(wanted).order_by(sa.text("inspections.id DESC")).limit(50)
    with records._reading() as connection:
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        [plan] = connection.execute(sa.text(f"EXPLAIN QUERY PLAN {compiled}")).all()
    records.close()
    assert "inspections_by_search" in plan.detail


def test_records_of_before_are_searched_by_place(
    records: Records,
    database: str | Path,  # noqa: F811
) -> None:
    columns = "peak_x, peak_y FROM inspections ORDER BY id"
    with records._changing() as connection:
        before = connection.execute(sa.text(f"SELECT {columns}")).all()
        connection.execute(sa.text("DROP INDEX inspections_by_search"))
        old = "CREATE INDEX inspections_by_station ON inspections (station, id)"
        connection.execute(sa.text(old))
        for column in ("peak_x", "peak_y", "whole"):
            connection.execute(sa.text(f"ALTER TABLE inspections DROP COLUMN {column}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0006'"))
    records.close()
    opened = Records(database, "station")
    with opened._reading() as connection:
        assert connection.execute(sa.text(f"SELECT {columns}")).all() == before
    opened.close()
    assert before[5] == pytest.approx((10.5 / 80, 5.5 / 40))
    assert before[1] == (None, None)


@pytest.mark.parametrize("text", ["0,0,1", "a,b,c,d", "0,0,0,1", "0,0,2,1", "nan,0,1,1", ""])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="give left, top, right and bottom in shares"):
        place_of(text)
