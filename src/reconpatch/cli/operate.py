"""The commands `doctor`, `backup` and `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconpatch.cli.parts import Data, Database, Json, need_extra, say, say_json, show_progress

if TYPE_CHECKING:
    from reconpatch.station.backup import Backup

FAILS = 1

_PACKAGES = ("alembic", "argon2", "sqlalchemy")


def register(app: typer.Typer) -> None:
    """Give the command line the commands of this module."""
    for command in (doctor, backup, restore):
        app.command()(command)


def doctor(
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    config: Annotated[
        Path | None,
        typer.Option(help="The TOML file of `serve`.", metavar="FILE", show_default="none"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at a station: folder, disk, clock, outputs, records, photos, models, audit trail.

    Nothing is changed or sent, and its service may be running. Exit code 0: all is well, or worth a
    look; 1: something fails.
    """
    need_extra("doctor", "serve", *_PACKAGES)
    from reconpatch.station.doctor import examine

    failed = False
    for found in examine(data, database=database, config=config):
        failed |= found.state == "fails"
        if as_json:
            say_json(vars(found))
        else:
            state = {"ok": "ok   ", "look": "look ", "fails": "FAILS"}[found.state]
            say(f"{state}  {found.check}: {found.sentence}")
    raise typer.Exit(FAILS if failed else 0)


def backup(
    to: Annotated[
        Path, typer.Argument(help="Folder of the backup; an older one is brought up to date.")
    ],
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Back up a station while its service runs: records, photos, models.

    The records are those of one moment; photos and models are copied where they are new.
    """
    need_extra("backup", "serve", *_PACKAGES)
    from reconpatch.station.backup import back_up

    with show_progress() as progress:
        made = back_up(data, to, database=database, progress=progress)
    _say(made, as_json)


def restore(
    backup: Annotated[Path, typer.Argument(help="Folder of a backup.")],
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Make the folder of a station from a backup; DATA has to be empty or missing."""
    need_extra("restore", "serve", *_PACKAGES)
    from reconpatch.station import backup as station_backup

    with show_progress() as progress:
        made = station_backup.restore(backup, data, database=database, progress=progress)
    _say(made, as_json)


def _say(made: Backup, as_json: bool) -> None:
    if as_json:
        say_json(vars(made))
        return
    gone = f"; {made.missing:,} were gone or damaged" if made.missing else ""
    say(
        f"{made.station} as of {made.time}: {len(made.models)} models, {made.photos:,} photos{gone}"
    )
