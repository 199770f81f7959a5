"""`score`: the same scores as `inspect`, each photo once, whatever stops a run or a worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import reconpatch
from conftest import REPOSITORY, command, fill, save, scratched, textured
from reconpatch.errors import MissingExtraError, OutputError, PhotoError, WorkersError
from reconpatch.model.model import Model
from reconpatch.result import SimilarKind

pa = pytest.importorskip("pyarrow", reason="the extra 'score' is not installed")
import pyarrow.parquet as pq  # noqa: E402

from reconpatch.scale import distributed_fit, score_many, score_table, sources  # noqa: E402
from reconpatch.scale.score_many import PhotoScorer, _explained, score_photos  # noqa: E402
from reconpatch.scale.score_table import SCHEMA, Counts, ScoreTable  # noqa: E402

STOPPED = 9


run = partial(command, "score")


def rows(folder: Path) -> list[dict[str, Any]]:
    """All scores of a folder, in the order of their ids; it reads as one table."""
    found: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return sorted(found, key=lambda row: row["id"])


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [row | {"seconds": None} for row in rows(folder)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 good parts, a scratched one and a file that is no photo."""
    folder = fill(tmp_path_factory.mktemp("source") / "new", range(12))
    save(scratched(textured(312)), folder / "scratched.png")
    (folder / "torn.png").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path, small_model_file: Path, tmp_path_factory: Any) -> Path:
    """The scores of `photos`, by one process."""
    output: Path = tmp_path_factory.mktemp("expected") / "results"
    assert run(small_model_file, photos, "-o", output, "--threads", 1).exit_code == 3
    return output


class TestScores:
    def test_are_those_of_inspect(
        self, photos: Path, expected: Path, small_model_file: Path
    ) -> None:
        model = reconpatch.load(small_model_file, threads=1)
        *found, torn = rows(expected)
        for row in found:
            result = model.inspect(row["path"])
            assert row["path"] == str(photos / row["id"])
            assert row["score"] == pytest.approx(result.score, rel=1e-5)
            assert (row["anomalous"], row["p_value"]) == (result.anomalous, result.p_value)
            box = result.regions[0].box if result.regions else (None,) * 4
            assert tuple(row[side] for side in ("x0", "y0", "x1", "y1")) == box
            assert row["peak"] == pytest.approx(float(result.heatmap.max()), rel=1e-5)
            assert (row["threshold"], row["map_threshold"]) == (
                model.threshold,
                result.map_threshold,
            )
            assert (row["model"], row["error"]) == (model.fingerprint, None)
            assert row["seconds"] > 0
        assert [row["id"] for row in found if row["anomalous"]][-1] == "scratched.png"
        assert "torn.png: is not a" in torn["error"]
        assert (torn["score"], torn["anomalous"], torn["model"]) == (None, None, model.fingerprint)

    def test_hash_the_file(self, photos: Path, expected: Path) -> None:
        import hashlib

        for row in rows(expected):
            content = (photos / row["id"]).read_bytes()
            assert row["sha256"] == hashlib.sha256(content).hexdigest()

    def test_beside_the_photos_are_no_photos_of_the_next_run(
        self, small_model_file: Path, tmp_path: Path
    ) -> None:
        folder = fill(tmp_path / "in", range(2))
        fill(tmp_path / "there", range(2, 4))
        (folder / "linked").symlink_to(tmp_path / "there")
        first = run(small_model_file, folder, "-o", folder / "results", "--threads", 1)
        assert (first.exit_code, "4 photos:" in first.stderr) == (0, True)
        again = run(small_model_file, folder, "-o", folder / "results", "--threads", 1)
        assert again.exit_code == 0
        assert f"Left out of {folder}: written by reconpatch: 1 (results/scores-" in again.stderr
        assert "4 were there already; 0 scored" in again.stderr

    def test_come_with_a_summary_and_an_exit_code(
        self, photos: Path, small_model_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "good.txt").write_text(str(photos / "part000.png"))
        good = run(small_model_file, tmp_path / "good.txt", "-o", tmp_path / "good")
        (tmp_path / "bad.csv").write_text(f"id,path\nn1,{photos / 'scratched.png'}\n")
        bad = run(small_model_file, tmp_path / "bad.csv", "-o", tmp_path / "bad")
        assert (good.exit_code, bad.exit_code) == (0, 1)
        assert (good.stdout, bad.stdout) == ("", "")
        assert "good: 1 photos: 0 anomalous, 0 could not be inspected; 1 scored in" in good.stderr
        assert "score: 1 of 1" in bad.stderr
        assert rows(tmp_path / "bad")[0]["id"] == "n1"

    def test_of_parquet_are_those_of_its_files(
        self, photos: Path, expected: Path, small_model_file: Path, tmp_path: Path
    ) -> None:
        names = [row["id"] for row in rows(expected)]
        contents = [(photos / name).read_bytes() for name in names]
        table = pa.table({"id": names, "bytes": contents, "path": [f"{photos}/{n}" for n in names]})
        pq.write_table(table, tmp_path / "new.parquet", row_group_size=5)
        source = tmp_path / "new.parquet"
        done = run(small_model_file, source, "-o", tmp_path / "results", "--threads", 1)
        assert done.exit_code == 3
        assert timeless(tmp_path / "results") == timeless(expected)

    def test_of_a_photo_without_bytes_are_an_error(self, small_model: Model) -> None:
        given = pa.table({"id": ["a"], "path": ["a.png"], "bytes": pa.array([None], pa.binary())})
        (found,) = PhotoScorer(small_model)(given)
        assert found["error"].to_pylist() == ["a: has no bytes; give the photo's file."]

    def test_a_photo_that_the_model_refuses_costs_no_other_its_own(
        self, photos: Path, small_model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = Model.inspect_batch

        def picky(self: Model, given: Any, **options: Any) -> Any:
            if any("part001" in photo.name for photo in given):
                raise PhotoError("part001: refused")
            return right(self, given, **options)

        monkeypatch.setattr(Model, "inspect_batch", picky)
        source = sources.list_source(str(photos))
        found = pa.concat_tables(PhotoScorer(small_model)(source.portions[0].rows)).to_pylist()
        errors = {row["id"]: row["error"] for row in found if row["error"]}
        assert len(found) == 14
        assert errors.pop("part001.png") == "part001: refused"
        assert list(errors) == ["torn.png"]


# Scores as the command does, in files of 4 rows, and ends at once after 6, as a kill would.
KILLED = f"""
import os, sys
from pathlib import Path
from reconpatch.scale import score_table
from reconpatch.scale import sources
from reconpatch.scale.score_many import score_photos
score_table.FILE_ROWS = 4
score_photos(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), threads=1,
             progress=lambda step, done, total: os._exit({STOPPED}) if done >= 8 else None)
"""


class TestAStoppedRun:
    def test_goes_on_with_what_is_not_written(
        self, photos: Path, expected: Path, small_model_file: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "results"
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, small_model_file, photos, output], check=False
        )
        assert killed.returncode == STOPPED
        before = rows(output)
        assert len(before) == 8
        done = run(small_model_file, photos, "-o", output, "--threads", 1)
        assert done.exit_code == 3
        assert "8 were there already; 6 scored in" in done.stderr
        assert timeless(output) == timeless(expected)
        assert [row for row in rows(output) if row in before] == before

    def test_writes_what_it_has_when_it_is_told_to_stop(
        self, photos: Path, small_model_file: Path, tmp_path: Path
    ) -> None:
        def stop(step: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            score_photos(small_model_file, str(photos), tmp_path, threads=1, progress=stop)
        assert len(rows(tmp_path)) == 4

    def test_that_was_complete_has_nothing_to_do(
        self, photos: Path, expected: Path, small_model_file: Path
    ) -> None:
        before = sorted(path.name for path in expected.iterdir())
        done = run(small_model_file, photos, "-o", expected)
        assert done.exit_code == 3
        assert "14 were there already; 0 scored in" in done.stderr
        assert sorted(path.name for path in expected.iterdir()) == before

    def test_tries_again_what_could_not_be_inspected(
        self, photos: Path, small_model_file: Path, tmp_path: Path
    ) -> None:
        folder = fill(tmp_path / "new", [0])
        (folder / "late.png").write_bytes(b"half of it")
        assert run(small_model_file, folder, "-o", tmp_path / "results").exit_code == 3
        save(textured(1), folder / "late.png")
        assert run(small_model_file, folder, "-o", tmp_path / "results").exit_code == 3
        done = run(small_model_file, folder, "-o", tmp_path / "results", "--retry-errors")
        assert done.exit_code == 0
        assert "2 photos: 0 anomalous, 0 could not" in done.stderr
        assert [row["id"] for row in rows(tmp_path / "results")] == ["late.png", "part000.png"]

    def test_of_another_model_or_source_is_not_continued(
        self, photos: Path, small_model: Model, small_model_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "list.txt").write_text(str(photos / "part000.png"))
        output = tmp_path / "results"
        assert run(small_model_file, tmp_path / "list.txt", "-o", output).exit_code == 0
        other = small_model.with_threshold(1.0)
        other.save(tmp_path / "other.rcp")
        refused = [
            run(tmp_path / "other.rcp", tmp_path / "list.txt", "-o", output),
            run(small_model_file, photos, "-o", output),
            run(small_model_file, tmp_path / "list.txt", "-o", output, "--max-pixels", 100),
        ]
        for done, what in zip(refused, ("model", "source", "max_pixels 80000000"), strict=True):
            assert done.exit_code == 2
            assert f"has scores of another run, with {what}" in done.stderr
        assert len(rows(output)) == 1


def test_a_row_names_the_kind_of_defect(small_model: Any) -> None:
    result = small_model.inspect(textured(0))
    for kind, cells in (
        (None, (None, None)),
        (SimilarKind("dent", 0.75, True), ("dent", 0.75)),
        (SimilarKind("dent", 0.25, False), ("none of these", 0.25)),
    ):
        row = score_many._row(replace(result, kind=kind))
        assert (row["kind"], row["similarity"]) == cells


class TestTheTable:
    @pytest.fixture
    def one(self) -> Any:
        """A row."""
        return pa.Table.from_pylist([{"id": "a", "anomalous": False}], SCHEMA)

    def test_files_from_before_there_were_kinds_are_gone_on_with(
        self, tmp_path: Path, one: Any
    ) -> None:
        with ScoreTable(tmp_path, {}) as table:
            table.add(one)
        path = tmp_path / "scores-000001.parquet"
        pq.write_table(one.drop_columns(["kind", "similarity"]), path)
        with ScoreTable(tmp_path, {}) as table:
            assert table.counts == Counts(1, 0, 0)
            table.add(one)
        pq.write_table(one.drop_columns(["peak"]), path)
        with pytest.raises(OutputError, match="is no whole file of scores"):
            ScoreTable(tmp_path, {}).__enter__()

    def test_a_file_is_written_when_it_is_full_or_old(
        self, tmp_path: Path, one: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(score_table, "FILE_ROWS", 3)
        now = 0.0
        with ScoreTable(tmp_path, {}, clock=lambda: now) as table:
            for _ in range(4):
                table.add(one)
            assert len(pq.read_table(tmp_path)) == 3
            now = 59.0
            table.add(one)
            assert len(pq.read_table(tmp_path)) == 3
            now = 60.0
            table.add(one)
            assert len(pq.read_table(tmp_path)) == 6
            table.add(one)
            assert table.counts == Counts(7, 0, 0)
        assert sorted(path.name for path in tmp_path.glob("*.parquet")) == [
            f"scores-{i:06}.parquet" for i in (1, 2, 3)
        ]
        with ScoreTable(tmp_path, {}) as table:
            table.add(one)
        assert (tmp_path / "scores-000004.parquet").is_file()

    def test_one_program_writes_at_a_time(self, tmp_path: Path) -> None:
        with (
            ScoreTable(tmp_path, {}),
            pytest.raises(OutputError, match="is in use by another program"),
        ):
            ScoreTable(tmp_path, {})
        ScoreTable(tmp_path, {}).__exit__()

    def test_a_damaged_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "scores-000001.parquet").write_bytes(b"PAR1")
        with pytest.raises(OutputError, match=r"no _scores\.json that says of what"):
            ScoreTable(tmp_path, {})
        (tmp_path / "_scores.json").write_text("{}")
        with pytest.raises(OutputError, match="is no whole file of scores"):
            ScoreTable(tmp_path, {})
        (tmp_path / "_scores.json").write_text("{")
        with pytest.raises(OutputError, match="cannot be read"):
            ScoreTable(tmp_path, {})


@pytest.mark.usefixtures("ray_cluster")
class TestOnRay:
    def test_the_scores_are_the_same(
        self, photos: Path, expected: Path, small_model_file: Path, tmp_path: Path
    ) -> None:
        done = run(small_model_file, photos, "-o", tmp_path / "results", "--on", "ray")
        assert done.exit_code == 3, done.output
        assert timeless(tmp_path / "results") == [row | {"seconds": None} for row in rows(expected)]

    def test_a_worker_that_dies_costs_no_photo(
        self,
        photos: Path,
        expected: Path,
        small_model_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        names = [row["id"] for row in rows(expected)]
        contents = [(photos / name).read_bytes() for name in names]
        table = pa.table({"id": names, "bytes": contents, "path": [f"{photos}/{n}" for n in names]})
        pq.write_table(table, tmp_path / "new.parquet", row_group_size=2)
        killed: list[int] = []

        def kill(step: str, done: int, total: int) -> None:
            if not killed:
                killed.extend(workers()[:1])
                os.kill(killed[0], signal.SIGKILL)

        scored = score_photos(
            small_model_file,
            str(tmp_path / "new.parquet"),
            tmp_path / "results",
            on="ray",
            workers=2,
            progress=kill,
        )
        assert killed
        assert (scored.counts, scored.new) == (Counts(14, scored.counts.anomalous, 1), 14)
        assert timeless(tmp_path / "results") == timeless(expected)

    def test_workers_are_of_ray(self, photos: Path, small_model_file: Path, tmp_path: Path) -> None:
        done = run(small_model_file, photos, "-o", tmp_path, "--workers", 2)
        assert done.exit_code == 2
        assert "give it with --on ray" in done.stderr
        done = run(small_model_file, photos, "-o", tmp_path, "--on", "spark")
        assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])


def workers() -> list[int]:
    """The actors that score, of the clusters of this process."""
    psutil = pytest.importorskip("psutil", reason="needed to find the workers")
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ended just now
            if "ray::MapWorker" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def test_what_stops_the_workers_is_told_in_a_sentence() -> None:
    inner = MissingExtraError("the engine openvino", "openvino")
    outer = RuntimeError("task failed")
    outer.__cause__ = inner
    assert _explained(outer) is inner
    told = _explained(RuntimeError("first\n  last"))
    assert isinstance(told, WorkersError)
    assert str(told).startswith(
        "the workers stopped (RuntimeError: last); what is written is whole"
    )


# --- What docs/scale.md says of columns and numbers; test_docs.py runs it -------------------------

PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")


def test_every_column_is_described() -> None:
    table = PAGE[PAGE.index("| column | |") : PAGE.index("A file is written whole")]
    columns = " ".join(row.split("|")[1] for row in table.splitlines()[2:] if row)
    assert set(re.findall(r"`(\w+)`", columns)) == set(SCHEMA.names)


def test_the_models_numbers_are_those_of_the_code() -> None:
    for number in (
        f"shares of {distributed_fit.SHARE}",
        f"{distributed_fit.SPARE} times the share's part",
        f"{score_table.FILE_ROWS:,} rows or a minute",
        f"up to {sources.PORTION} photos it was at",
    ):
        assert number in PAGE
    assert (distributed_fit.SAMPLE, score_table.FILE_SECONDS) == (2**18, 60)
