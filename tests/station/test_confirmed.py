"""What a threshold would have decided on all confirmed parts, beside a slow obvious count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconpatch.errors import NotFoundError
from reconpatch.station import confirmed as module
from reconpatch.station.confirmed import Scale, confirmed
from reconpatch.station.records import Records, Told


@pytest.fixture
def log(tmp_path: Path) -> Any:
    records = Records(tmp_path / "records.sqlite", "line 1")
    yield records.log
    records.close()


def part(number: int, score: float, feedback: Any = "defect", version: int = 1) -> Told:
    return Told(number, f"{number}.png", f"{number:064}", version, 9, 9, score, score > 5, feedback)


NOW = Scale(frozenset({1, 2}), 1, 5.0)


def never(_: Told) -> float:
    raise AssertionError("this part has a score that can be compared")


def test_defects_that_would_be_missed_are_counted_and_named(log: Any) -> None:
    told = [part(4, 3.0), part(3, 8.0), part(2, 20.0), part(1, 7.0, "good"), part(0, 2.0, "good")]
    found = confirmed(told, "disc", NOW, Scale(NOW.versions, 1, 10.0), log, never, 0)
    assert (found.defects, found.missed_now, found.missed_then) == (3, 1, 2)
    assert (found.goods, found.false_alarms_now, found.false_alarms_then) == (2, 1, 0)
    assert [(one.record, one.name) for one in found.missed] == [(4, "4.png"), (3, "3.png")]
    assert (found.unscored, found.gone) == (0, 0)
    assert found.asks
    assert "2 of 3 confirmed defects" in found.sentence


@pytest.mark.parametrize(
    ("threshold", "asks"), [(1.0, False), (2.5, False), (5.0, True), (9.0, True)]
)
def test_it_asks_unless_fewer_are_missed_than_now(log: Any, threshold: float, asks: bool) -> None:
    told = [part(2, 2.0), part(1, 8.0), part(0, 3.0)]  # two are missed now
    then = Scale(NOW.versions, 1, threshold)
    assert confirmed(told, "disc", NOW, then, log, never, 0).asks == asks


def test_a_photo_counts_once_and_the_last_word_counts(log: Any) -> None:
    first, last = part(1, 8.0), part(2, 8.0, "good")
    last = Told(**{**vars(last), "photo": first.photo})
    found = confirmed([last, first], "disc", NOW, NOW, log, never, 0)
    assert (found.defects, found.goods) == (0, 1)
    assert not found.asks


def test_other_versions_parts_are_scored_once_and_kept(log: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_SOME", 2)
    asked: list[int] = []

    def score(one: Told) -> float:
        asked.append(one.id)
        if one.id == 3:
            raise NotFoundError("the photo is no longer stored")
        return 100.0 * one.id

    told = [part(i, 8.0, "good" if i == 5 else "defect", version=9) for i in range(6)]
    then = Scale(frozenset({7}), 7, 150.0)
    late = confirmed(told, "disc", NOW, then, log, score, -1)
    assert (late.unscored, late.missed_then, asked) == (6, 0, [])
    assert late.asks
    assert "have not been scored" in late.sentence
    found = confirmed(told, "disc", NOW, then, log, score, 60)
    assert sorted(asked) == [0, 1, 2, 3, 4, 5]
    assert asked[-1] == 5  # defects first
    assert (found.unscored, found.gone, found.missed_then) == (0, 1, 2)
    # What the version in service said of them stands in their records.
    assert (found.missed_now, found.false_alarms_now, found.false_alarms_then) == (0, 1, 1)
    asked.clear()
    again = confirmed(told, "disc", NOW, then, log, score, 60)
    assert again == found
    assert asked == [3]


def test_without_feedback_nothing_is_asked(log: Any) -> None:
    found = confirmed([], "disc", None, NOW, log, never, 0)
    assert (found.defects, found.goods, found.asks) == (0, 0, False)
