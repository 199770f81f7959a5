"""Files of other programs' results: what is read back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY
from reconpatch.errors import SettingsError
from reconpatch.evaluation.other_programs import (
    OtherRecord,
    OtherResults,
    PhotoCounts,
    read_other_results,
    write_other_results,
)

RECORD = OtherRecord(
    "bottle", 0, PhotoCounts(209, 20, 63),
    metrics={"image_auroc": 0.75, "aupro": None}, own={"image_auroc": 0.5},
    fit_seconds=60.5, ms_per_photo=30.25,
)  # fmt: skip
RESULTS = OtherResults("anomalib", "2.7.0", "PatchCore", "in words", (RECORD,))


def content(**changes: Any) -> dict[str, Any]:
    """What a file holds, with changes to its one record, or without what is None."""
    record = {
        "category": "bottle", "seed": 0, "photos": {"fit": 209, "good": 20, "defective": 63},
        "metrics": {"image_auroc": 0.75, "aupro": None}, "own": {"image_auroc": 0.5},
        "fit_seconds": 60.5, "ms_per_photo": 30.25,
    }  # fmt: skip
    record = {name: value for name, value in (record | changes).items() if value is not None}
    return {
        "format": 1, "program": "anomalib", "version": "2.7.0", "method": "PatchCore",
        "settings": "in words", "records": [record],
    }  # fmt: skip


def write(tmp_path: Path, what: object) -> Path:
    path = tmp_path / "other.json"
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return path


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    results = read_other_results(write(tmp_path, content()))
    assert replace(results, records=tuple(results.records)) == RESULTS
    assert results.title == "anomalib 2.7.0 PatchCore"


def test_the_example_of_the_documentation_is_such_a_file(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "reproduce.md").read_text("utf-8")
    example = text.partition("```json\n")[2].partition("```")[0]
    (record,) = read_other_results(write(tmp_path, example)).records
    assert record.photos == PhotoCounts(209, 20, 63)


def test_what_is_written_is_that_file(tmp_path: Path) -> None:
    write_other_results(RESULTS, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == content()
    empty = replace(RESULTS, records=())
    write_other_results(empty, tmp_path / "b.json")
    assert list(read_other_results(tmp_path / "b.json").records) == []


def test_times_and_own_metrics_may_be_missing(tmp_path: Path) -> None:
    given = content(own=None, fit_seconds=None, ms_per_photo=None)
    (record,) = read_other_results(write(tmp_path, given)).records
    assert (record.own, record.fit_seconds, record.ms_per_photo) == ({}, None, None)


def test_records_are_found_by_category() -> None:
    records = tuple(replace(RECORD, category=c, seed=s) for s in (0, 1) for c in ("tile", "wood"))
    results = replace(RESULTS, records=records)
    assert results.of("wood") == [records[1], records[3]]
    assert results.only(["wood", "pill"]).records == (records[1], records[3])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("{", "it is not JSON"),
        ("[]", 'it has no "format": 1'),
        ({**content(), "format": 2}, 'it has no "format": 1'),
        ({**content(), "speed": 3}, "speed: "),
        ({k: v for k, v in content().items() if k != "settings"}, "settings: "),
        (content(seed="first"), "records.0.seed: "),
        (content(category=None), "records.0.category: "),
        (content(photos={"fit": 3}), "records.0.photos.good: "),
        (content(photos={"fit": 3, "good": 1, "bad": 1}), "records.0.photos"),
        (content(auroc=0.5), "records.0.auroc: "),
        (content(metrics={"auroc": 0.5}), "the metric 'auroc' is not one of image_auroc, "),
        (content(metrics={"image_auroc": 99.1}), "image_auroc is 99.1, and a metric is in 0 to 1"),
        (content(own={"aupro": -0.5}), "aupro is -0.5, and a metric is in 0 to 1"),
        (content(metrics={"image_auroc": float("nan")}), "image_auroc is nan"),
        (content(ms_per_photo=-1), "ms_per_photo is -1.0, and a time is 0 or more"),
        ({**content(), "records": 2 * content()["records"]}, "bottle with seed 0 is there twice"),
    ],
)
def test_what_is_malformed_is_told_in_one_sentence(what: object, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, what)
    with pytest.raises(SettingsError) as caught:
        read_other_results(path)
    message = str(caught.value)
    assert message.startswith(f"{path} does not hold another program's results (")
    assert said in message
    assert message.endswith("): write it as docs/reproduce.md says")
    assert "\n" not in message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none.json cannot be read \(No such file"):
        read_other_results(tmp_path / "none.json")
