"""What the commands share: options, files from arguments, messages and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reconpatch.fit_options import Progress
    from reconpatch.images import PhotosInTurn
    from reconpatch.records import Record
    from reconpatch.result import Result

# The same number as reconpatch.images.MAX_PIXELS, which --help must not wait for; a test compares.
MAX_PIXELS = 80_000_000

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

MaxPixels = Annotated[
    int, typer.Option(help="Refuse photos with more pixels than this (height x width).", min=1)
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for overlays and a report.", metavar="DIR"),
]
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


def expand(photos: Sequence[Path]) -> list[Path]:
    """Folders stand for all photos in them; files are taken as they are."""
    from reconpatch.images import list_photos

    return [
        path for given in photos for path in (list_photos(given) if given.is_dir() else [given])
    ]


def photo_files(photos: Sequence[Path], max_pixels: int) -> PhotosInTurn:
    """The photos of files and folders, each read when it is asked for."""
    from reconpatch.images import PhotosInTurn, read_photo

    return PhotosInTurn([partial(read_photo, p, max_pixels=max_pixels) for p in expand(photos)])


def note(text: str, *, warn: bool = False) -> None:
    """A line on stderr."""
    typer.secho(text, err=True, fg="yellow" if warn else None)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A bar with the time left for each step on stderr; a line a step where that is a file."""
    if not sys.stderr.isatty():
        yield _LineProgress()
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


def verdict_code(anomalous: int, unreadable: int) -> int:
    """The exit code after so many anomalous photos and so many that could not be inspected."""
    return UNREADABLE if unreadable else ANOMALOUS if anomalous else 0


class _LineProgress:
    """A line when a step is done; nothing in between, so that logs stay short."""

    def __call__(self, step: str, done: int, total: int) -> None:
        if done == total and step != "inspect":
            note(f"{step}: {total} of {total}")
