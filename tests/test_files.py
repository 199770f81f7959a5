from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import stat
import tempfile
import unicodedata
from pathlib import Path

import pytest

from reconpatch.errors import OutputError
from reconpatch.files import (
    atomic_write,
    check_writable,
    open_regular,
    plain_name,
    read_sums,
    remove_if_still,
    sums_of,
    sweep_leftovers,
    write_sums,
)


class FullDisk(io.RawIOBase):
    """A file that takes 8 bytes, then finds the disk full."""

    room = 8

    def writable(self):
        return True

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = min(len(data), self.room)
        self.room -= written
        return written


@pytest.fixture
def full_disk(monkeypatch):
    def open_on_a_full_disk(path, mode):
        path.touch(exist_ok=False)
        return io.BufferedWriter(FullDisk(), buffer_size=4)

    monkeypatch.setattr(Path, "open", open_on_a_full_disk)


@pytest.fixture(params=["new", "existing"])
def target(request, tmp_path):
    path = tmp_path / "part.rcp"
    if request.param == "existing":
        path.write_bytes(b"old")
    return path


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# atomic_write


def test_the_content_appears_whole_and_alone(target):
    with atomic_write(target) as handle:
        handle.write(b"new ")
        handle.write(b"content")
    assert files_in(target.parent) == {"part.rcp": b"new content"}


def test_until_the_end_the_old_file_is_as_it_was(target):
    before = files_in(target.parent)
    with atomic_write(target) as handle:
        handle.write(b"x" * 100_000)
        handle.flush()
        during = files_in(target.parent)
    assert {name: data for name, data in during.items() if not name.endswith(".part")} == before
    assert len(during) == len(before) + 1
    assert len(target.read_bytes()) == 100_000


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_stops_the_writing_leaves_the_old_file_and_nothing_else(target, stop):
    def write_half():
        with atomic_write(target) as handle:
            handle.write(b"half")
            raise stop("enough")

    before = files_in(target.parent)
    with pytest.raises(stop, match="enough"):
        write_half()
    assert files_in(target.parent) == before


def test_a_full_disk_is_said_to_be_full_and_changes_nothing(target, full_disk):
    before = {path.name for path in target.parent.iterdir()}
    with (
        pytest.raises(OutputError, match=r"part\.rcp could not be written: the disk is full"),
        atomic_write(target) as handle,
    ):
        handle.write(b"more than eight bytes")
    assert {path.name for path in target.parent.iterdir()} == before


def test_a_disk_that_is_full_only_when_the_data_reach_it_is_full_all_the_same(target, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files_in(target.parent)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="the disk is full"), atomic_write(target) as handle:
        handle.write(b"new")
    assert files_in(target.parent) == before


def test_a_file_that_cannot_take_the_name_leaves_nothing(tmp_path):
    folder = tmp_path / "part.rcp"
    folder.mkdir()
    with pytest.raises(OutputError, match="could not be written"), atomic_write(folder) as handle:
        handle.write(b"new")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_folder_that_is_none_is_an_output_error(tmp_path, parent):
    (tmp_path / "file").write_bytes(b"a file")
    path = tmp_path / parent / "part.rcp"
    with pytest.raises(OutputError, match="could not be written") as refusal:
        atomic_write(path).__enter__()
    assert str(path) in str(refusal.value)
    assert files_in(tmp_path) == {"file": b"a file"}


def test_a_cleanup_that_fails_does_not_hide_what_went_wrong(tmp_path, monkeypatch):
    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OutputError, match="Read-only file system"):
        atomic_write(tmp_path / "part.rcp").__enter__()


# check_writable


def test_a_new_name_is_fine_and_leaves_no_trace(tmp_path):
    check_writable(tmp_path / "part.rcp", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "part.rcp"
    check_writable(path, overwrite=False)
    assert path.parent.is_dir()
    assert not path.exists()


def test_a_file_that_exists_is_refused_unless_it_may_be_overwritten(tmp_path):
    path = tmp_path / "part.rcp"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"exists already and is left as it is.*--overwrite"):
        check_writable(path, overwrite=False)
    check_writable(path, overwrite=True)
    assert files_in(tmp_path) == {"part.rcp": b"old"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_refused(tmp_path, overwrite):
    with pytest.raises(OutputError, match="is a folder: give the name of a file"):
        check_writable(tmp_path, overwrite=overwrite)


@pytest.mark.parametrize("below", ["part.rcp", "deeper/part.rcp"])
def test_a_name_below_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_bytes(b"a file")
    with pytest.raises(OutputError, match="could not be written"):
        check_writable(tmp_path / "file" / below, overwrite=False)
    assert files_in(tmp_path) == {"file": b"a file"}


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EACCES, r"\(no entry\); nothing was changed"), (errno.ENOSPC, "the disk is full")],
)
def test_a_folder_that_takes_no_file_is_refused(tmp_path, monkeypatch, number, message):
    def refuse(**kwargs):
        raise OSError(number, "no entry")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match=message):
        check_writable(tmp_path / "part.rcp", overwrite=False)


# What is no file


def link_to_a_file(path):
    path.with_name("kept").write_bytes(b"kept")
    path.symlink_to("kept")


def device(path):
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices are made by root alone")


def listening_socket(path):
    os.chdir(path.parent)  # its name may have 100 bytes at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


SPECIAL = {
    "a link to a file": link_to_a_file,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder": lambda path: path.symlink_to("."),
    "a pipe": os.mkfifo if os.name == "posix" else None,
    "a socket": listening_socket,
    "a device": device,
}


@pytest.fixture(params=SPECIAL)
def special(request, tmp_path, monkeypatch):
    if os.name != "posix":
        pytest.skip("only POSIX systems have all of these")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "part.rcp"
    SPECIAL[request.param](path)
    return path


def identities(folder):
    found = {path.name: path.lstat() for path in folder.iterdir()}
    return {name: (f.st_ino, f.st_mode, f.st_mtime_ns) for name, f in found.items()}


def test_only_files_are_replaced(special):
    before = identities(special.parent)
    what = "is a (link|pipe|socket|device) and is left as it is|is a folder"
    with pytest.raises(OutputError, match=what):
        check_writable(special, overwrite=True)
    with pytest.raises(OutputError, match=what), atomic_write(special) as file:
        file.write(b"new")
    assert identities(special.parent) == before


def test_what_takes_the_name_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "part.rcp"

    def write_meanwhile():
        with atomic_write(path) as file:
            file.write(b"new")
            path.symlink_to("elsewhere")

    with pytest.raises(OutputError, match="is a link"):
        write_meanwhile()
    assert [found.name for found in tmp_path.iterdir()] == ["part.rcp"]
    assert path.is_symlink()


def test_only_files_are_opened(special):
    if special.exists() and special.resolve().is_file():
        with open_regular(special) as file:
            assert file.read() == b"kept"
        return
    with pytest.raises(OSError, match=r"part\.rcp"):
        open_regular(special)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_is_called_like_a_leftover_stays(tmp_path):
    pipe = tmp_path / ".part.rcp.0123abcd.part"
    os.mkfifo(pipe)
    os.utime(pipe, (0, 0))
    assert sweep_leftovers(tmp_path) == 0
    assert pipe.exists()


# Lists of checksums


def test_a_list_tells_what_was_written(tmp_path):
    (tmp_path / "sub folder").mkdir()
    for name in ("a.png", "sub folder/two  blanks.png", "sub folder/ü\x85.png"):
        (tmp_path / name).write_bytes(name.encode())
    sums = sums_of(tmp_path)
    assert sums["a.png"] == hashlib.sha256(b"a.png").hexdigest()
    write_sums(tmp_path / "list", sums)
    assert read_sums(tmp_path / "list") == sums
    assert read_sums(tmp_path / "none") == {}
    (tmp_path / "list").write_bytes(b"\xff")
    assert read_sums(tmp_path / "list") == {}


def test_only_what_is_still_as_it_was_written_goes(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    digest = hashlib.sha256(b"mine").hexdigest()
    for path in (folder / "sub" / "a", folder / "b", folder / "c", outside / "d"):
        path.write_bytes(b"mine")
    (folder / "b").write_bytes(b"changed")
    (folder / "link").symlink_to("c")
    (folder / "away").symlink_to(outside)
    for name in ("sub/a", "b", "link", "away/d", "../out/d", "missing", str(outside / "d")):
        remove_if_still(folder, name, digest)
    assert sorted(path.name for path in folder.iterdir()) == ["away", "b", "c", "link"]
    assert (outside / "d").exists()


# plain_name


@pytest.mark.parametrize(
    "name", ["disc", "Flasche-grün", "瓶子", "part (1)", "болт 7", "ขวด", "ß", "قنينة", "a" * 64]
)
def test_names_in_any_script(name):
    assert plain_name(name) == name
    assert plain_name(unicodedata.normalize("NFD", name)) == name


@pytest.mark.parametrize(
    "name", ["", ".a", "a.", "a ", "a/b", "a\\b", "a:b", "a\n", "\u202ea", "a" * 65, "😀", "(1)",
             "\u0301a", "𠀀" * 63, "a*", "a?", "½"]
)  # fmt: skip
def test_names_that_no_file_should_have(name):
    assert plain_name(name) is None
