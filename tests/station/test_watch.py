"""Watching a folder: half-written files, sorting, restarts, kills; nothing is inspected twice."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")

from conftest import RGB, fill, save, scratched, textured
from reconpatch.cli.main import app
from reconpatch.errors import OutputError, PhotoError, SettingsError
from reconpatch.model.model import Model
from reconpatch.photos.listing import SORTED_MARK
from reconpatch.station import watch
from reconpatch.station.drift import DriftMonitor
from reconpatch.station.photo_store import PhotoStore
from reconpatch.station.records import Records
from reconpatch.station.versions import ModelVersions, Served
from reconpatch.station.watch import Watched, Watcher, sort_file


def png(pixels: RGB) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Line:
    """A folder that is watched, with all that belongs to it; the clock is told the time."""

    def __init__(self, tmp_path: Path, model_file: Path) -> None:
        self.folder, self.data, self.out = (tmp_path / n for n in ("in", "data", "out"))
        self.folder.mkdir()
        self.now = 0.0
        self.records = Records(self.data / "records.sqlite", "station")
        versions = ModelVersions(self.data / "models", self.records, threads=1)
        self.served: Served = versions.serve(versions.adopt(model_file))

    def watcher(self, output: Path | None = None, **options: Any) -> Watcher:
        store = PhotoStore(self.data / "photos", self.records)
        drift = self.data / "drift.json"
        return Watcher(
            self.folder, self.served, self.records, store, drift, output=output,
            clock=lambda: self.now, **options,
        )  # fmt: skip

    def put(self, name: str, pixels: RGB) -> Path:
        return save(pixels, self.folder / name)


@pytest.fixture
def line(tmp_path: Path, small_model_file: Path) -> Iterator[Line]:
    line = Line(tmp_path, small_model_file)
    yield line
    line.records.close()


def two_looks(watcher: Watcher) -> list[Watched]:
    return [*watcher.look(), *watcher.look()]


def tree(folder: Path) -> list[str]:
    """Files but the mark of a folder that was sorted into."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != SORTED_MARK)
    return sorted(p.relative_to(folder).as_posix() for p in found)


# --- What is inspected, and when -----------------------------------------------------------------


def test_a_file_is_inspected_at_the_second_look_that_finds_it_unchanged(line: Line) -> None:
    watcher = line.watcher()
    path = line.put("a.png", textured(1000))
    assert list(watcher.look()) == []
    assert watcher.waiting == 1
    (seen,) = watcher.look()
    assert (seen.path, seen.error, seen.sorted_to) == (path.resolve(), "", None)
    assert seen.record is not None
    assert seen.record.name == "a.png"
    assert seen.record.score == line.served.inspector.inspect(path).score
    assert seen.record.photo == hashlib.sha256(path.read_bytes()).hexdigest()
    assert watcher.waiting == 0
    assert list(watcher.look()) == []
    assert line.records.count() == 1


def test_a_file_that_grows_is_waited_for(line: Line) -> None:
    watcher, content = line.watcher(patience=0.0), png(textured(1000))
    path = line.folder / "a.png"
    for size in (100, 1000, len(content)):  # at each look it is another file
        path.write_bytes(content[:size])
        assert list(watcher.look()) == []
    (seen,) = watcher.look()
    assert seen.record is not None


def test_a_half_written_file_that_pauses_is_waited_for(line: Line) -> None:
    watcher, content = line.watcher(patience=30.0), png(textured(1000))
    path = line.folder / "a.png"
    path.write_bytes(content[:1000])
    for line.now in (0.0, 1.0, 29.0):
        assert list(watcher.look()) == []
    path.write_bytes(content)
    assert [seen.error for seen in two_looks(watcher)] == [""]


def test_a_file_that_never_decodes_ends_as_an_error(line: Line) -> None:
    watcher = line.watcher(line.out, sorting="move", patience=30.0)
    (line.folder / "a.png").write_bytes(b"no picture")
    for line.now in (0.0, 1.0, 29.9):
        assert list(watcher.look()) == []
    line.now = 30.0
    (seen,) = watcher.look()
    assert seen.record is None
    assert "a.png" in seen.error
    assert tree(line.out) == ["error/a.png"]
    assert tree(line.folder) == []
    assert list(watcher.look()) == []
    assert line.records.count() == 0


def test_a_file_that_changes_while_it_is_read_waits(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, path = line.watcher(), line.put("a.png", textured(1000))
    list(watcher.look())
    read = Path.read_bytes

    def and_write(self: Path) -> bytes:
        content = read(self)
        if self.name == "a.png":
            self.write_bytes(content + b"more")
        return content

    monkeypatch.setattr(Path, "read_bytes", and_write)
    assert list(watcher.look()) == []
    monkeypatch.undo()
    path.write_bytes(png(textured(1000)))
    assert len(two_looks(watcher)) == 1


def test_a_file_that_goes_away_is_no_error(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, path = line.watcher(), line.put("a.png", textured(1000))
    list(watcher.look())
    files = watcher._files
    monkeypatch.setattr(
        watcher, "_files", lambda: [list(files()), path.unlink()][0]
    )  # gone between the listing and the reading
    assert list(watcher.look()) == []


def test_other_files_hidden_ones_and_the_output_are_left_alone(line: Line) -> None:
    for name in ("a.txt", ".b.png", ".hidden/c.png", "out/good/d.png"):
        (line.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (line.folder / name).write_bytes(png(textured(1)))
    line.put("sub/e.png", textured(1000))
    seen = two_looks(line.watcher(line.folder / "out", sorting="move"))
    assert [s.record and s.record.name for s in seen] == ["sub/e.png"]
    assert (line.folder / "out" / "good" / "sub" / "e.png").is_file()


def test_links_are_followed_and_a_station_in_the_folder_is_left_alone(line: Line) -> None:
    there = line.folder.parent / "there"
    there.mkdir()
    Image.fromarray(textured(1000)).save(there / "a.png")
    (line.folder / "day1").symlink_to(there)
    (line.folder / "day1-again").symlink_to(there)
    line.put("b.png", textured(1001))
    (line.folder / "data" / "photos").mkdir(parents=True)
    (line.folder / "data" / "station.txt").write_text("here")
    line.put("data/photos/c.png", textured(1002))
    watcher = line.watcher()
    assert sorted(seen.path.name for seen in two_looks(watcher)) == ["a.png", "b.png"]
    assert watcher.listing.left_out == {
        "written by reconpatch": ["data/photos/c.png"],
        "links to folders that are listed already": ["day1-again"],
    }
    assert "data" in watcher.listing.sentence


def test_a_new_file_under_an_old_name_is_inspected(line: Line) -> None:
    watcher, path = line.watcher(), line.put("a.png", textured(1000))
    assert len(two_looks(watcher)) == 1
    os.utime(path, ns=(0, 0))
    assert len(two_looks(watcher)) == 1
    assert line.records.count() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode on this system")
def test_a_name_that_is_no_unicode(line: Line) -> None:
    path = line.folder / os.fsdecode(b"part \xff.png")
    path.write_bytes(png(textured(1000)))
    (seen,) = two_looks(line.watcher())
    assert seen.record is not None
    assert seen.record.name == "part \\udcff.png"
    (again,) = line.watcher(line.out, sorting="move").look()
    assert again.inspected_before
    assert (line.out / "good" / path.name).is_file()
    assert line.records.count() == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_is_called_a_photo_is_not_waited_for(line: Line) -> None:
    os.mkfifo(line.folder / "a.png")
    watcher = line.watcher()
    assert list(watcher.look()) == []
    assert watcher.waiting == 0  # to read it would last until somebody writes


# --- Sorting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sorting", ["move", "link"])
def test_files_are_sorted_by_verdict(line: Line, sorting: watch.Sorting) -> None:
    good, bad = line.put("x/a.png", textured(1000)), line.put("b.png", scratched(textured(1000)))
    inodes = {good.stat().st_ino, bad.stat().st_ino}
    seen = two_looks(line.watcher(line.out, sorting=sorting))
    assert tree(line.out) == ["anomalous/b.png", "good/x/a.png"]
    assert {s.sorted_to for s in seen} == {line.out / n for n in tree(line.out)}
    assert {(line.out / n).stat().st_ino for n in tree(line.out)} == inodes
    assert tree(line.folder) == ([] if sorting == "move" else ["b.png", "x/a.png"])


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "a.png"
        path.write_bytes(b"%d" % number)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        sort_file(path, tmp_path / "out" / "a.png", sha256, move=True)
    contents = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert contents == {"a.png": b"0", "a-2.png": b"1", "a-3.png": b"2"}


def test_a_camera_that_gives_all_its_files_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thousands of files that have the name already are not read for each new one."""
    path, out = tmp_path / "a.png", tmp_path / "out"
    read: list[str] = []
    monkeypatch.setattr(watch, "sha256_of", lambda p: read.append(p.name) or "1")
    for number in range(4):
        path.write_bytes(b"%04d" % number)  # of one size, as those of a format without compression
        os.utime(path, (10 * number, 10 * number))
        sort_file(path, out / "a.png", "0", move=True)
    assert len(tree(out)) == 4
    assert read == []


def test_a_link_is_sorted_as_the_photo_that_it_stands_for(tmp_path: Path) -> None:
    save(textured(1000), tmp_path / "elsewhere" / "a.png")
    link = tmp_path / "in" / "a.png"
    link.parent.mkdir()
    link.symlink_to(Path("..", "elsewhere", "a.png"))
    content = link.read_bytes()
    target = tmp_path / "out" / "good" / "a.png"
    sort_file(link, target, hashlib.sha256(content).hexdigest(), move=True)
    assert target.read_bytes() == content
    assert not link.exists()
    assert (tmp_path / "elsewhere" / "a.png").exists()


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("links", [True, False])
def test_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: bool, links: bool
) -> None:
    """A hard link from elsewhere is refused, or every one is, as on some network shares."""
    link, path = os.link, tmp_path / "in" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"photo")
    os.utime(path, ns=(5, 7))

    def refuse(source: Path, target: Path) -> None:
        if not links or Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "another device", str(source))
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "out" / "a.png"
    sha256 = hashlib.sha256(b"photo").hexdigest()
    assert sort_file(path, target, sha256, move=move) == target
    assert target.read_bytes() == b"photo"
    assert path.exists() is not move
    assert target.is_symlink() is not move
    assert target.stat().st_mtime_ns == 7
    assert [p.name for p in target.parent.iterdir()] == ["a.png"]
    path.write_bytes(b"other")
    target.is_symlink() and target.unlink()
    target.write_bytes(b"photo")
    sha256 = hashlib.sha256(b"other").hexdigest()
    assert sort_file(path, target, sha256, move=move) == target.with_name("a-2.png")
    assert target.read_bytes() == b"photo"


def test_a_copy_that_fails_leaves_both_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = tmp_path / "a.png", tmp_path / "out" / "a.png"
    path.write_bytes(b"photo")

    def elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "link", elsewhere)
    monkeypatch.setattr(watch.shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match="the disk is full"):
        sort_file(path, target, "0", move=True)
    assert path.read_bytes() == b"photo"
    assert list(target.parent.iterdir()) == []


# --- Restarts ------------------------------------------------------------------------------------


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a photo was inspected twice")


@pytest.mark.parametrize("sorting", ["move", "link"])
def test_a_file_with_a_record_is_only_moved(
    line: Line, sorting: watch.Sorting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between the record's commit and the move."""
    line.put("a.png", textured(1000))
    (before,) = two_looks(line.watcher())
    monkeypatch.setattr(Model, "inspect", refuse)
    (seen,) = line.watcher(line.out, sorting=sorting).look()
    assert seen.inspected_before
    assert seen.record == before.record
    assert tree(line.out) == ["good/a.png"]
    assert list(line.watcher(line.out, sorting=sorting).look()) == []
    assert line.records.count() == 1


def test_a_move_that_was_cut_short_after_its_copy_is_finished(line: Line) -> None:
    path = line.put("a.png", textured(1000))
    (before,) = two_looks(line.watcher())
    assert before.record is not None
    (line.out / "good").mkdir(parents=True)
    shutil.copy2(path, line.out / "good" / "a.png")
    (seen,) = line.watcher(line.out, sorting="move").look()
    assert tree(line.out) == ["good/a.png"]
    assert not path.exists()
    assert seen.sorted_to == line.out / "good" / "a.png"


def command(folder: Path, model: Path, *options: str) -> list[str]:
    return ["watch", str(model), str(folder / "in"), "--data", str(folder / "data"),
            "-o", str(folder / "out"), "--threads", "1", "--poll", "0.02", "--json",
            *options]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_killed_and_started_again_it_inspects_every_photo_once(
    tmp_path: Path, small_model_file: Path
) -> None:
    photos = 30
    fill(tmp_path / "in", range(2000, 2000 + photos))
    for lines in (1, 6, 3):
        arguments = command(tmp_path, small_model_file, "--move")
        process = subprocess.Popen(
            [sys.executable, "-m", "reconpatch.cli", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    ended = CliRunner().invoke(app, command(tmp_path, small_model_file, "--move", "--once"))
    assert ended.exit_code in (0, 1), ended.output
    assert tree(tmp_path / "in") == []
    assert len(tree(tmp_path / "out")) == photos
    station = (tmp_path / "data" / "station.txt").read_text().strip()
    records = Records(tmp_path / "data" / "records.sqlite", station)
    names = [record.name for record in records.export()]
    assert sorted(names) == [f"part{seed:03}.png" for seed in range(2000, 2000 + photos)]
    state = json.loads((tmp_path / "data" / "drift" / "small@0001.json").read_text())
    assert state["monitor"]["photos"] == photos
    records.close()


# --- Drift ---------------------------------------------------------------------------------------


def test_drift_is_told_and_goes_on_from_the_records(line: Line) -> None:
    rng = np.random.default_rng(0)
    watcher, alarms, shown = line.watcher(), [], 0
    while not alarms:
        shown += 1
        assert shown < 40
        line.put(f"{shown}.png", rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        alarms = [seen.alarm for seen in two_looks(watcher) if seen.alarm]
    assert alarms[0].photo == shown
    assert alarms[0].direction == "flagged"
    # A state from before the last photo catches up with the records, alarm included.
    fresh = line.watcher()
    assert fresh.drift.missed_alarms == ()
    (line.data / "drift.json").unlink()
    assert line.watcher().drift.missed_alarms == tuple(alarms)


def test_a_state_of_another_version_is_not_gone_on_with(line: Line) -> None:
    state = {"fingerprint": "other", "record": 99, "monitor": {}}
    (line.data / "drift.json").write_text(json.dumps(state))
    line.put("a.png", textured(1000))
    two_looks(line.watcher())
    state = json.loads((line.data / "drift.json").read_text())
    assert state["fingerprint"] == line.served.version.fingerprint
    assert DriftMonitor.from_dict(state["monitor"]).photos == 1


@pytest.mark.parametrize("damaged", ["null", "[]", "{}", '"a"', "own", "no monitor"])
def test_a_state_that_is_damaged_is_made_anew_from_the_records(line: Line, damaged: str) -> None:
    line.put("a.png", textured(1000))
    two_looks(line.watcher())
    state = json.loads((line.data / "drift.json").read_text())
    own = {"fingerprint": state["fingerprint"]}
    made = {"own": json.dumps(own), "no monitor": json.dumps({**own, "record": 1, "monitor": {}})}
    (line.data / "drift.json").write_text(made.get(damaged, damaged))
    drift = line.watcher().drift
    assert (drift.monitor.photos, drift.monitor.to_dict()) == (1, state["monitor"])


def test_a_record_that_is_told_twice_counts_once(line: Line) -> None:
    """As when a version comes back into service while its last batch is still being committed."""
    line.put("a.png", textured(1000))
    watcher = line.watcher()
    (seen,) = two_looks(watcher)
    assert seen.record is not None
    watcher.drift.add(seen.record)
    assert watcher.drift.monitor.photos == 1


# --- The command line ----------------------------------------------------------------------------


def test_once_on_the_command_line(tmp_path: Path, small_model_file: Path) -> None:
    save(scratched(textured(1000)), tmp_path / "in" / "a.png")
    save(textured(1000), tmp_path / "in" / "b.png")
    arguments = command(tmp_path, small_model_file, "--link", "--once", "--patience", "0")
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 1, first.output
    lines = [json.loads(text) for text in first.stdout.splitlines()]
    assert [line["anomalous"] for line in lines] == [True, False]
    assert [line["id"] for line in lines] == [1, 2]
    assert lines[0]["sorted_to"] == str(tmp_path / "out" / "anomalous" / "a.png")
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, again.stdout) == (0, "")
    (tmp_path / "in" / "c.png").write_bytes(b"no picture")
    third = CliRunner().invoke(app, [*arguments])
    assert third.exit_code == 3
    assert "Not inspected:" in third.stderr
    assert "c.png" in json.loads(third.stdout)["error"]
    assert tree(tmp_path / "out") == ["anomalous/a.png", "error/c.png", "good/b.png"]


def test_the_text_of_a_line(tmp_path: Path, small_model_file: Path) -> None:
    save(scratched(textured(1000)), tmp_path / "in" / "a.png")
    arguments = command(tmp_path, small_model_file, "--once")
    arguments.remove("--json")
    shown = CliRunner().invoke(app, arguments)
    assert shown.stdout.startswith("ANOMALOUS  ")
    assert shown.stdout.endswith("a.png\n")
    assert "small: version 1; watching" in shown.stderr


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("missing", [], "is no folder"),
        ("in", ["-o", "in"], "is the folder that is watched"),
        ("in", ["--move"], "give it with -o DIR"),
    ],
)
def test_refusals(
    tmp_path: Path,
    small_model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["watch", str(small_model_file), folder, *options])
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_the_watcher_itself_refuses(line: Line) -> None:
    with pytest.raises(SettingsError):
        line.watcher(line.folder)
    line.folder.rmdir()
    with pytest.raises(PhotoError):
        line.watcher()
