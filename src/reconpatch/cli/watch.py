"""The command `watch`: inspect files as they arrive in a folder."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconpatch.cli import parts
from reconpatch.errors import SettingsError

if TYPE_CHECKING:
    from reconpatch.station.watch import Sorting, Watched, Watcher


def register(app: typer.Typer) -> None:
    """Give the command line the command of this module."""
    app.command()(watch)


def watch(
    model_file: parts.ModelFile,
    folder: Annotated[
        Path, typer.Argument(help="Folder in which photos arrive.", metavar="FOLDER")
    ],
    output: Annotated[
        Path | None, parts.written("Move or link photos to DIR/good, DIR/anomalous and DIR/error.")
    ] = None,
    move: Annotated[
        bool | None,
        typer.Option("--move/--link", help="How photos get to DIR.", show_default="--link"),
    ] = None,
    data: parts.Data = Path("reconpatch-data"),
    database: parts.Database = None,
    poll: Annotated[
        float, typer.Option(help="Seconds between two looks into the folder.", min=0.01)
    ] = 1.0,
    patience: Annotated[
        float,
        typer.Option(help="Seconds for which a file that does not decode is waited for.", min=0),
    ] = 30.0,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when all files that are there are inspected.")
    ] = False,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    threads: parts.Threads = 0,
) -> None:
    """Inspect photos as they arrive in a folder, and keep every verdict in DATA.

    Runs until Ctrl-C; started again, it inspects nothing twice. With --once the exit codes are
    those of inspect. DATA is used by one program at a time: give `serve` another one.
    """
    parts.need_extra("watch", "serve", "alembic", "sqlalchemy")
    from reconpatch.station.data_folder import DataFolder
    from reconpatch.station.photo_store import PhotoStore
    from reconpatch.station.records import Records
    from reconpatch.station.versions import ModelVersions
    from reconpatch.station.watch import Watcher

    if move is not None and output is None:
        raise SettingsError("--move and --link say how photos get to a folder: give it with -o DIR")
    sorting: Sorting = "move" if move else "link"
    with (
        DataFolder(data) as station,
        closing(Records(database or station.database, station.station)) as records,
    ):
        versions = ModelVersions(station.models, records, threads=threads)
        product = versions.adopt(model_file)
        served = versions.serve(product)
        watcher = Watcher(
            folder, served, records, PhotoStore(station.photos, records),
            station.drift(product, served.version.number), output=output, sorting=sorting,
            patience=patience, max_pixels=max_pixels,
        )  # fmt: skip
        parts.note(f"{product}: version {served.version.number}; watching {folder}")
        for alarm in watcher.drift.missed_alarms:
            parts.note(f"Drift: {alarm.message}", warn=True)
        code = _run(watcher, folder, poll, once=once, as_json=as_json)
    raise typer.Exit(code)


def _run(watcher: Watcher, folder: Path, poll: float, *, once: bool, as_json: bool) -> int:
    from reconpatch.photos.kind import KindsSeen

    anomalous = unreadable = 0
    reachable = True
    kinds = KindsSeen()
    reasons: set[str] = set()
    while True:
        for seen in watcher.look():
            anomalous += seen.record is not None and seen.record.anomalous
            unreadable += seen.record is None
            _say(seen, as_json)
            parts.say_kinds(kinds.add(seen.notes))
        if not reasons.issuperset(watcher.listing.left_out):  # counts alone may change all day
            reasons.update(watcher.listing.left_out)
            parts.note(watcher.listing.sentence, warn=True)
        if once and not watcher.waiting:
            return parts.verdict_code(anomalous, unreadable)
        if folder.is_dir() != reachable:  # a network share comes and goes
            reachable = not reachable
            parts.note(f"{folder} is {'there again' if reachable else 'gone; waiting'}", warn=True)
        time.sleep(poll)


def _say(seen: Watched, as_json: bool) -> None:
    """One line a file, flushed, so that a program that reads them can act on each at once."""
    if as_json:
        parts.say_json(seen.to_dict())
    elif seen.record is not None:
        parts.say(parts.verdict_line(seen.record) + parts.what_is_wrong(seen.record))
    if seen.error:
        parts.note(f"Not inspected: {seen.error}", warn=True)
    if seen.alarm is not None:
        parts.note(f"Drift: {seen.alarm.message}", warn=True)
