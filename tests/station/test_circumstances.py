"""Full disks, read-only folders, a clock that goes backwards, and two programs at one thing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import reconpatch
from conftest import WAIT, fill, save, textured
from reconpatch import files
from reconpatch.cli.main import app
from reconpatch.errors import OutputError, ReconPatchError
from reconpatch.files import atomic_write, check_writable, sweep_leftovers
from reconpatch.model.model import Model
from reconpatch.station import photo_store, records, watch
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.station import Limits, Station
from test_station import inspect
from test_watch import Line, tree


class Disks:
    """Small disks in memory; a test is skipped where none can be mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mounted: list[Path] = []

    def add(self, size: str) -> Path:
        """The folder of a new disk."""
        disk = self._folder / f"disk{len(self._mounted)}"
        disk.mkdir()
        self._mount(f"size={size}", disk)
        self._mounted.append(disk)
        return disk

    def make_read_only(self, disk: Path) -> None:
        self._mount("remount,ro", disk)

    def remove(self) -> None:
        for disk in self._mounted:
            subprocess.run(["umount", "-l", disk], check=False)

    def _mount(self, options: str, disk: Path) -> None:
        if shutil.which("mount") is None:
            pytest.skip("no disk can be mounted here: there is no `mount`")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    made = Disks(tmp_path)
    yield made
    made.remove()


@pytest.fixture
def line(tmp_path: Path, small_model_file: Path) -> Iterator[Line]:
    line = Line(tmp_path, small_model_file)
    yield line
    line.records.close()


def fill_up(folder: Path) -> Path:
    """A file that takes all the room that is left on a disk."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def inspect_all(station: Station, seeds: Sequence[int]) -> None:
    for seed in seeds:
        inspect(station, textured(seed))


def refusal(*arguments: object) -> str:
    """The one line of an error of a command."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 2, result.output
    [message] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return message


# --- A full disk ---------------------------------------------------------------------------------


def test_a_model_on_a_full_disk_is_not_written(disks: Disks, small_model_file: Path) -> None:
    disk = disks.add("64k")
    output = disk / "part.rcp"
    said = refusal("calibrate", small_model_file, "--threshold", 3, "-o", output)
    assert "part.rcp could not be written: the disk is full; nothing was changed" in said
    assert list(disk.iterdir()) == []


def test_a_report_on_a_full_disk_is_not_written(
    disks: Disks, small_model_file: Path, tmp_path: Path
) -> None:
    disk = disks.add("16k")
    photos = fill(tmp_path / "in", range(2))
    said = refusal("inspect", small_model_file, photos, "-o", disk / "report")
    assert "the disk is full" in said
    assert not [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".png"]


def test_a_station_on_a_full_disk_answers_nothing_and_goes_on_when_there_is_room(
    disks: Disks, small_model_file: Path
) -> None:
    disk = disks.add("40m")
    limits = Limits(reserve_bytes=0)
    files = DataFolder(disk / "data")
    with Station(files, [small_model_file], limits=limits, threads=1) as station:
        kept = inspect(station, textured(1))
        filler = fill_up(disk)
        with pytest.raises(ReconPatchError, match="disk"):
            inspect_all(station, range(2, 200))  # SQLite has some room left in its own files
        filler.unlink()
        after = inspect(station, textured(1_000))
        numbers = [record.id for record in station.records.export()]
        assert numbers == sorted(numbers, reverse=True)
        assert {kept.id, after.id} <= set(numbers)
        assert not list((disk / "data").rglob("*.part"))
        for record in station.records.export():
            station.photo(record)


def test_a_watch_on_a_full_disk_says_so_and_inspects_each_photo_once_afterwards(
    disks: Disks, small_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = disks.add("40m")
    photos = fill(tmp_path / "in", range(40))
    command = ["watch", small_model_file, photos, "--data", disk / "data", "-o", tmp_path / "out",
               "--move", "--once", "--poll", "0.01", "--threads", "1"]  # fmt: skip
    add, calls = photo_store.PhotoStore.add, [0]

    def add_until_it_is_full(self: Any, content: bytes) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            fill_up(disk)
        return add(self, content)

    with monkeypatch.context() as filling:
        filling.setattr(photo_store.PhotoStore, "add", add_until_it_is_full)
        assert "disk" in refusal(*command)
    (disk / "filler").unlink()
    assert CliRunner().invoke(app, [*map(str, command)]).exit_code in (0, 1)
    assert tree(photos) == []
    with DataFolder(disk / "data") as data:
        opened = records.Records(data.database, data.station)
        names = sorted(record.name for record in opened.export())
        opened.close()
    assert names == [f"part{seed:03}.png" for seed in range(40)]


# --- A folder that can only be read --------------------------------------------------------------


def test_a_read_only_folder_takes_nothing_and_says_so(disks: Disks, small_model_file: Path) -> None:
    disk = disks.add("8m")
    model = Path(shutil.copy(small_model_file, disk / "part.rcp"))
    photos = fill(disk / "in", range(2))
    disks.make_read_only(disk)
    before = tree(disk)
    for command in (
        ("calibrate", model, "--threshold", 3),
        ("calibrate", model, "--threshold", 3, "-o", disk / "new.rcp"),
        ("inspect", model, photos, "-o", disk / "report"),
        ("watch", model, photos, "--data", disk / "data", "--once"),
        ("serve", model, "--data", disk / "data", "--port", 0),
        ("update", model, photos, "-o", disk / "new.rcp"),
        ("export", model, "-o", disk / "export"),
    ):
        said = refusal(*command)
        assert "Read-only file system" in said, command
    assert tree(disk) == before
    inspected = CliRunner().invoke(app, ["inspect", str(model), str(photos)])
    assert inspected.exit_code in (0, 1), inspected.output


def test_photos_that_cannot_be_moved_away_are_kept_and_told(
    disks: Disks, small_model_file: Path, tmp_path: Path
) -> None:
    disk = disks.add("8m")
    save(textured(1), disk / "in" / "a.png")
    disks.make_read_only(disk)
    command = ["watch", small_model_file, disk / "in", "--data", tmp_path / "data",
               "-o", tmp_path / "out", "--once", "--poll", "0.01"]  # fmt: skip
    for _ in range(2):
        assert "cannot be removed from where it was (Read-only" in refusal(*command, "--move")
    linked = CliRunner().invoke(app, [*map(str, command), "--link"])
    assert linked.exit_code in (0, 1), linked.output
    assert [name.partition("/")[2] for name in tree(tmp_path / "out")] == ["a.png"]
    with DataFolder(tmp_path / "data") as data:
        opened = records.Records(data.database, data.station)
        assert opened.count() == 1
        opened.close()


# --- A clock that goes backwards -----------------------------------------------------------------


class BackwardClock(datetime):
    """Each look at it is a day before the last one."""

    days = 0

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        cls.days += 1
        return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=cls.days)


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "datetime", BackwardClock)
    monkeypatch.setattr(photo_store, "datetime", BackwardClock)


@pytest.mark.usefixtures("backwards")
def test_a_station_keeps_the_order_of_its_records_whatever_the_clock_says(
    small_model_file: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for life in range(2):
        with Station(DataFolder(data), [small_model_file], threads=1) as station:
            kept = [inspect(station, textured(100 * life + seed)) for seed in range(3)]
            version = station.set_threshold("small", score=2.0 + life)
            assert [r.id for r in station.records.export()][:3] == [r.id for r in kept][::-1]
            assert kept[0].time > kept[-1].time
            served = station.records.services(version.product)
            assert served[0].number == version.number == station.product("small").version.number
            assert station.photos.prune(keep_days=365) == []
    with Station(DataFolder(data), threads=1) as station:
        assert station.product("small").version.number == 3
        assert station.records.count() == 6


@pytest.mark.usefixtures("backwards")
def test_watch_inspects_files_of_any_time_once(line: Line) -> None:
    for seed, when in enumerate((0, 2_000_000_000, 4_000_000_000, 1_000_000_000)):
        os.utime(line.put(f"{seed}.png", textured(seed)), (when, when))
    watcher = line.watcher()
    assert len([*watcher.look(), *watcher.look()]) == 4
    again = line.watcher()
    assert [*again.look(), *again.look()] == []
    assert line.records.count() == 4


# --- Two programs at one thing -------------------------------------------------------------------


def test_two_fits_to_one_file_leave_one_whole_model(small_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "part.rcp"
    others = [small_model.with_threshold(value) for value in (2.0, 3.0)]
    failed: list[BaseException] = []

    def write(model: Model) -> None:
        try:
            for _ in range(5):
                model.save(path, overwrite=True)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(model,)) for model in others]
    others[0].save(path)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert reconpatch.load(path).threshold in (2.0, 3.0)
    assert failed == []
    assert list(tmp_path.iterdir()) == [path]


def test_two_watches_of_one_folder_lose_no_photo(line: Line, tmp_path: Path) -> None:
    """Each with its own data: each keeps its verdicts, and the first to move a photo has it."""
    other = Line.__new__(Line)
    other.__dict__ |= line.__dict__ | {"data": tmp_path / "data2"}
    other.records = records.Records(other.data / "records.sqlite", "other")
    fill(line.folder, range(6))
    watchers = [
        one.watcher(tmp_path / f"out{i}", sorting="move") for i, one in enumerate((line, other))
    ]
    looks = [watcher.look() for _ in range(2) for watcher in watchers]
    while looks:  # by turns, one photo at a time
        looks = [look for look in looks if next(look, None) is not None]
    for watcher in watchers:
        list(watcher.look())
    other.records.close()
    assert tree(line.folder) == []
    sorted_names = [Path(n).name for i in range(2) for n in tree(tmp_path / f"out{i}")]
    assert sorted(sorted_names) == [f"part{seed:03}.png" for seed in range(6)]


@pytest.mark.parametrize("move", [True, False])
def test_a_photo_that_another_program_took_is_left_to_it(tmp_path: Path, move: bool) -> None:
    target = tmp_path / "out" / "a.png"
    assert watch.sort_file(tmp_path / "in" / "a.png", target, "0" * 64, move=move) is None
    assert not target.exists()


def test_two_watches_with_one_data_folder_are_refused(
    small_model_file: Path, tmp_path: Path
) -> None:
    photos = fill(tmp_path / "in", [1])
    with DataFolder(tmp_path / "data"):
        said = refusal("watch", small_model_file, photos, "--data", tmp_path / "data", "--once")
    assert "is in use by another program" in said


# --- What a killed writer leaves -----------------------------------------------------------------


def old(path: Path, content: bytes = b"half") -> Path:
    """A file of an hour ago."""
    path.write_bytes(content)
    os.utime(path, (time.time() - 3_600,) * 2)
    return path


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    old(tmp_path / ".part.rcp.0123abcd.part")
    others = [".part.rcp.xyz.part", "a.0123abcd.part", ".part", ".hidden"]
    for name in others:
        old(tmp_path / name)
    check_writable(tmp_path / "part.rcp", overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_what_another_program_is_writing_stays(tmp_path: Path) -> None:
    code = """
import os, sys, time
from pathlib import Path
from reconpatch.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print(flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, tmp_path / "part.rcp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        [half] = tmp_path.iterdir()
        os.utime(half, (time.time() - 3_600,) * 2)
        assert sweep_leftovers(tmp_path) == 0
        writer.kill()
        writer.communicate(timeout=WAIT)
    assert sweep_leftovers(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_this_moment_stays(tmp_path: Path) -> None:
    (tmp_path / ".part.rcp.0123abcd.part").write_bytes(b"its writer is about to lock it")
    assert sweep_leftovers(tmp_path) == 0


def test_without_locks_files_are_written_and_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(files, "lock", refuse)
    old(tmp_path / ".part.rcp.0123abcd.part")
    with atomic_write(tmp_path / "part.rcp") as file:
        file.write(b"whole")
    assert sweep_leftovers(tmp_path) == 0
    assert (tmp_path / "part.rcp").read_bytes() == b"whole"


def test_a_folder_that_is_not_there_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep_leftovers(tmp_path / "missing") == 0


def test_a_data_folder_is_swept_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "drift").mkdir()
    left = [old(tmp_path / ".station.txt.0123abcd.part"),
            old(tmp_path / "drift" / ".part.json.0123abcd.part")]  # fmt: skip
    DataFolder(tmp_path).close()
    assert not any(path.exists() for path in left)


def test_a_folder_that_another_program_holds_stays_as_it_is(tmp_path: Path) -> None:
    with DataFolder(tmp_path), pytest.raises(OutputError, match="in use by another program"):
        DataFolder(tmp_path)
