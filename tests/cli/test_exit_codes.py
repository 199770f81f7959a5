"""Exit codes 0 and 1 are verdicts: of an inspection that was finished, and of no error."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import reconpatch
from conftest import RGB, save
from reconpatch.cli.main import app
from test_cli import console, contents, refusal, run

posix = pytest.mark.skipif(os.name != "posix", reason="streams are closed by a shell")

COMMAND = [sys.executable, "-m", "reconpatch.cli"]


@pytest.fixture
def photos(tmp_path: Path, good_photo: RGB, defective_photo: RGB) -> list[Path]:
    """A good part and a defective one."""
    names = ("good.png", "defective.png")
    pairs = zip((good_photo, defective_photo), names, strict=True)
    return [save(pixels, tmp_path / name) for pixels, name in pairs]


# --- Streams that are missing or closed -----------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("closed", "code"), [(">&-", 0), (">&-", 1), ("2>&-", 1), ("<&- >&- 2>&-", 0)]
)
def test_a_verdict_needs_no_stream(
    closed: str, code: int, small_model_file: Path, photos: list[Path]
) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "inspect"]
    done = subprocess.run([*shell, small_model_file, photos[code]], check=False, timeout=120)
    assert done.returncode == code


@posix
def test_no_file_gets_the_number_of_a_closed_stream(small_model_file: Path, tmp_path: Path) -> None:
    """What is printed then, here or by a library, would end up in the model."""
    code = """
import os, sys
from reconpatch.cli import main as cli
from reconpatch import files
write = files.atomic_write
def printing(path):
    os.write(1, b"of a library"), os.write(2, b"of a library")
    return write(path)
files.atomic_write = printing
import reconpatch.model.file
reconpatch.model.file.atomic_write = printing
cli.main()
"""
    output = tmp_path / "new.rcp"
    arguments = ["calibrate", small_model_file, "--threshold", "5", "-o", output]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, *arguments]
    assert subprocess.run(shell, check=False, timeout=120).returncode == 0
    assert reconpatch.load(output).threshold == 5


@pytest.mark.parametrize(
    ("state", "code"), [("None", 0), ("None", 1), ("io.StringIO(); sys.stdout.close()", 1)]
)
def test_python_without_a_console_gives_verdicts(
    state: str, code: int, small_model_file: Path, photos: list[Path]
) -> None:
    script = f"import io, sys; sys.stdout = {state}; from reconpatch.cli.main import main; main()"
    command = [sys.executable, "-c", script, "inspect", small_model_file, photos[code]]
    done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (code, b"")


def unread(stream: str, *arguments: object) -> tuple[int, str]:
    """The exit code, and what the other stream said, where nobody reads one."""
    reading, writing = os.pipe()
    os.close(reading)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams[stream] = writing
    try:
        command = [*COMMAND, *map(str, arguments)]
        done = subprocess.run(command, check=False, encoding="utf-8", timeout=120, **streams)
    finally:
        os.close(writing)
    return done.returncode, (done.stderr if stream == "stdout" else done.stdout)


def test_an_inspection_that_nobody_reads_is_not_done(
    small_model_file: Path, photos: list[Path]
) -> None:
    for arguments in (["inspect", small_model_file, *photos], ["info", small_model_file]):
        code, said = unread("stdout", *arguments)
        assert code == 2
        assert said.startswith("Error: whoever read the output closed it before its end")
        assert len(said.splitlines()) == 1
    assert unread("stdout", "--version")[0] == 2


def test_a_mistake_that_nobody_reads_is_no_verdict(
    small_model_file: Path, photos: list[Path], tmp_path: Path
) -> None:
    for arguments in (["inspect"], ["--nothing"], ["inspect", tmp_path / "missing.rcp", photos[0]]):
        assert unread("stderr", *arguments) == (2, "")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert unread("stderr", "inspect", small_model_file, photos[1], text)[0] == 2


# --- Errors that nobody foresaw -------------------------------------------------------------------


def raising(error: BaseException) -> Callable[..., Any]:
    def instead(*_: object, **__: object) -> Any:
        raise error

    return instead


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("a\nb"), r"something unforeseen happened (KeyError: 'a\nb')"),
        (RuntimeError("two\nlines"), "something unforeseen happened (RuntimeError: two lines)"),
        (AssertionError(), "something unforeseen happened (AssertionError: no reason given)"),
        (EOFError("at the end"), "something unforeseen happened (EOFError: at the end)"),
        (RecursionError("too deep"), "something unforeseen happened (RecursionError: too deep)"),
        (MemoryError(), "memory ran out (MemoryError: no reason given)"),
        (RuntimeError("std::bad_alloc"), "memory ran out (RuntimeError: std::bad_alloc)"),
        (OSError(12, "Cannot allocate memory"), "memory ran out (OSError: [Errno 12] Cannot"),
        (
            ImportError("x.so: failed to map segment from shared object"),
            "memory ran out (ImportError: x.so: failed to map segment",
        ),
        (OSError(5, "Input/output error"), "the operating system refused a step ([Errno 5]"),
    ],
)
def test_whatever_is_raised_is_a_sentence(
    error: Exception, said: str, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconpatch, "load", raising(error))
    assert refusal(run("inspect", "part.rcp", photos[0])).startswith(said)


@pytest.mark.parametrize(("given", "code"), [(1, 2), (7, 2), ("text", 2), (None, 0), (0, 0)])
def test_a_library_that_ends_the_program_gives_no_verdict(
    given: object, code: int, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconpatch, "load", raising(SystemExit(given)))
    assert run("inspect", "part.rcp", photos[0]).exit_code == code


def test_the_traceback_is_shown_where_it_is_asked_for(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconpatch, "load", raising(KeyError("deep inside")))
    arguments = ["inspect", "part.rcp", str(photos[0])]
    for options, variables, shown in (
        ([], {}, False),
        (["--debug"], {}, True),
        ([], {"RECONPATCH_DEBUG": "1"}, True),
        ([], {"RECONPATCH_DEBUG": "0"}, False),
    ):
        result = CliRunner().invoke(app, [*options, *arguments], env={**variables})
        assert result.exit_code == 2
        assert ("Traceback" in result.stderr) == shown
        assert ("raise error" in result.stderr) == shown
        assert result.stderr.splitlines()[-1].startswith("Error: something unforeseen happened")


def test_memory_that_runs_out_after_some_photos_is_no_verdict(
    small_model_file: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reconpatch.model.model import Model

    inspect = Model.inspect

    def second_time(self: Model, photo: Any, **options: Any) -> Any:
        if "defective" in photo.name:
            raise MemoryError
        return inspect(self, photo, **options)

    monkeypatch.setattr(Model, "inspect", second_time)
    result = run("inspect", small_model_file, *photos)
    assert result.exit_code == 2
    assert "memory ran out" in result.stderr
    assert result.stdout.splitlines()[0].startswith("good")


@posix
def test_ctrl_c_is_told_from_a_verdict(
    small_model_file: Path, photos: list[Path], tmp_path: Path
) -> None:
    code = """
import os, signal
# A shell that starts the suite with & leaves it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from reconpatch.cli import main as cli
from reconpatch.photos import read_ahead
def instead(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)
    yield from ()
read_ahead.read_ahead = instead
cli.main()
"""
    command = [sys.executable, "-c", code, "inspect", small_model_file, photos[0]]
    done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr == b"Stopped. Nothing half-written was left behind.\n"


# --- Arguments and names --------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["inspect", "MODEL", ""], ["inspect", "", "PHOTO"],
                                       ["inspect", "MODEL", "PHOTO", "--output="],
                                       ["fit", "", "-o", "x.rcp"]])  # fmt: skip
def test_an_empty_argument_is_not_the_folder_at_hand(
    arguments: list[str], small_model_file: Path, photos: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    paths = {"MODEL": str(small_model_file), "PHOTO": str(photos[0])}
    before = contents(tmp_path)
    result = run(*(paths.get(argument, argument) for argument in arguments))
    assert "is empty, as of a variable that is not set" in refusal(result)
    assert contents(tmp_path) == before


HARD_NAMES = ["two\nlines.png", "red\x1b[31m.png", "back\rward.png", "turned\u202egnp.png",
              "c1\x9b31m.png", "line\u2028.png"]  # fmt: skip


@posix
@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_name_is_one_line_and_no_command(
    name: str, small_model_file: Path, good_photo: RGB, tmp_path: Path
) -> None:
    good = save(good_photo, tmp_path / name)
    result = run("inspect", small_model_file, good)
    first, summary = result.stdout.split("\n")[:2]
    assert first.endswith(name.encode("unicode_escape").decode())
    assert summary == "0 of 1 photos are anomalous"
    assert not set(result.stdout) & set("\x1b\r\u202e\x9b\u2028")
    good.write_text("no picture")
    failed = run("inspect", small_model_file, good)
    assert failed.exit_code == 3
    assert len(failed.stderr.splitlines()) == 1
    assert name.encode("unicode_escape").decode() in failed.stderr
    missing = run("info", tmp_path / f"{name}.rcp")
    assert name.encode("unicode_escape").decode() in refusal(missing)


@pytest.mark.skipif(sys.platform != "linux", reason="names there are bytes")
def test_json_of_any_name_is_unicode(
    small_model_file: Path, good_photo: RGB, tmp_path: Path
) -> None:
    named = tmp_path / os.fsdecode(b"caf\xe9 \xf0\x9f\x98.png")
    content = io.BytesIO(save(good_photo, tmp_path / "plain.png").read_bytes())
    named.write_bytes(content.getvalue())
    broken = tmp_path / os.fsdecode(b"broken\xff.png")
    broken.write_text("no picture")
    done = console("inspect", small_model_file, named, broken, "--json")
    for line, name in zip(done.stdout.splitlines(), (r"caf\udce9", r"broken\udcff"), strict=True):
        found = json.loads(line)
        assert name in found["path"]
        assert list(halves(found)) == []


def halves(value: Any) -> Iterator[str]:
    """Texts that are no Unicode."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from halves(inner)
