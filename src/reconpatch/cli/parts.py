"""What the commands share: options, files from arguments, messages and progress on stderr."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reconpatch.fitting.options import Progress
    from reconpatch.photos.images import PhotosInTurn
    from reconpatch.result import Result
    from reconpatch.station.records import Record

# The same number as reconpatch.photos.images.MAX_PIXELS, which --help must not wait for; a test
# compares.
MAX_PIXELS = 80_000_000


def written(what: str, metavar: str | None = "DIR") -> Any:
    """The option of a command that says where what it writes goes."""
    return typer.Option("--output", "-o", help=what, metavar=metavar)


ModelFile = Annotated[Path, typer.Argument(help="A model file that fit wrote.", metavar="MODEL")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Threads = Annotated[int, typer.Option(help="Threads of the inference engine; 0: all cores.", min=0)]
Data = Annotated[Path, typer.Option(help="Folder for records, photos and versions of models.")]
Database = Annotated[
    str | None,
    typer.Option(
        help="PostgreSQL for the records: postgresql://USER@HOST/NAME. With a password, give it "
        "by the variable: who lists the processes reads what stands here.",
        show_default="SQLite in DATA",
        envvar="RECONPATCH_DATABASE",
        show_envvar=True,
    ),
]
Device = Annotated[str, typer.Option(help="cpu or cuda (not measured).")]
Engine = Annotated[str, typer.Option(help="onnxruntime, or openvino (extra openvino).")]
Group = Annotated[
    str | None,
    typer.Option(
        help="Regular expression whose brackets name the part in a file name, for several shots of "
        "one part: 'part(\\d+)'.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Where it runs: ray for workers on all cores of this machine, ray://ADDRESS for a Ray "
        "cluster that is there already (extra ray).",
        metavar="ray[://ADDRESS]",
        show_default="this process",
    ),
]
ANOMALOUS, ERROR, UNREADABLE, INTERRUPTED = 1, 2, 3, 130
"""Exit codes; 0 where all photos are good, or the command did what it was asked."""

# C0 and C1 controls, ends of lines and paragraphs, and what turns the direction of text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

MaxPixels = Annotated[
    int, typer.Option(help="Refuse photos with more pixels than this (height x width).", min=1)
]
ReportFolder = Annotated[Path | None, written("Folder for overlays and a report.")]
Weights = Annotated[
    str | None, typer.Option(help="File with the backbone's weights.", metavar="FILE")
]


def need_extra(what: str, extra: str, *packages: str) -> None:
    """Find out before anything starts whether the packages of an extra are there.

    Raises:
        MissingExtraError: one of them is not.
    """
    from reconpatch.errors import MissingExtraError

    try:
        for package in packages:
            import_module(package)
    except ImportError as error:
        raise MissingExtraError(what, extra) from error


def expand(photos: Sequence[Path], *, good: bool = False) -> list[Path]:
    """Folders stand for all photos in them; files are taken as they are.

    What is left out of a folder is told on stderr.

    Args:
        photos: files and folders.
        good: whether they are to show good parts: a labelled data set is refused then.
    """
    from reconpatch.photos.listing import list_folder, list_good

    paths: list[Path] = []
    for given in photos:
        if not given.is_dir():
            paths.append(given)
            continue
        found = list_good(given) if good else list_folder(given)
        if found.sentence:
            note(found.sentence, warn=True)
        paths += found.paths
    return paths


def photo_files(photos: Sequence[Path], max_pixels: int, *, good: bool = False) -> PhotosInTurn:
    """The photos of files and folders, each read when it is asked for; see `expand`."""
    from reconpatch.photos.images import PhotosInTurn, read_photo

    paths = expand(photos, good=good)
    return PhotosInTurn([partial(read_photo, path, max_pixels=max_pixels) for path in paths])


def shown(text: object) -> str:
    """A text as it may stand in a line of a terminal: control characters are escaped.

    A file's name may hold any: a line break would make two lines of one, and a terminal obeys
    others.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def say(text: object) -> None:
    """A line on stdout, at once, so that a program that reads them can act on each."""
    print(shown(text), flush=True)


def say_json(value: Any) -> None:
    """A line of JSON on stdout that strict readers take too.

    Python stands for the bytes of a name that is no UTF-8 by halves of surrogates, which JSON in
    UTF-8 cannot hold: they are escaped, as they are in records.
    """
    print(json.dumps(_of_unicode(value)), flush=True)


def _of_unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_of_unicode(key): _of_unicode(inner) for key, inner in value.items()}
    return [_of_unicode(inner) for inner in value] if isinstance(value, list | tuple) else value


def note(text: str, *, warn: bool = False) -> None:
    """A line on stderr."""
    typer.secho(shown(text), err=True, fg="yellow" if warn else None)


def settings_by_name(assignments: Sequence[str] | None, apart: Collection[str] = ()) -> Any:
    """The settings of `--set NAME=VALUE`; a line on stderr says which have a new name."""
    from reconpatch.method.settings import parse_assignments

    with warnings.catch_warnings(record=True) as renamed:
        warnings.simplefilter("always", DeprecationWarning)
        values = parse_assignments(assignments or [], apart)
    for warning in renamed:
        note(f"Note: {warning.message}", warn=True)
    return values


def say_kinds(sentences: Iterable[str]) -> None:
    """What sets the photos of a run apart from those of the fit, on stderr."""
    from reconpatch.photos.kind import ANOTHER_KIND

    for sentence in sentences:
        note(f"{ANOTHER_KIND}: {sentence}", warn=True)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A bar with the time left for each step on stderr; a line a step where that is a file."""
    if not sys.stderr.isatty():
        yield _report_line
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        # Where stdout is a file, results must not end up among the bars.
        redirect_stdout=sys.stdout.isatty(),
    ) as bars:
        tasks: dict[str, Any] = {}

        def update(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step)
            bars.update(tasks[step], completed=done, total=total)

        yield update


def verdict_line(judged: Result | Record) -> str:
    """The verdict on a photo as a line of text."""
    verdict = "ANOMALOUS" if judged.anomalous else "good     "
    return f"{verdict}  {judged.score:8.3f}  p = {judged.p_value:.3f}  {judged.name}"


def what_is_wrong(judged: Result | Record) -> str:
    """What is said after a verdict of the photo as a whole and of the kind of its defect."""
    whole = "  as a whole" if judged.whole else ""
    return whole + (f"  kind: {judged.kind}" if judged.kind else "")


def verdict_code(anomalous: int, unreadable: int) -> int:
    """The exit code after so many anomalous photos and so many that could not be inspected."""
    return UNREADABLE if unreadable else ANOMALOUS if anomalous else 0


def _report_line(step: str, done: int, total: int) -> None:
    """A line when a step is done; nothing in between, so that logs stay short."""
    if done == total and step != "inspect":
        note(f"{step}: {total} of {total}")
