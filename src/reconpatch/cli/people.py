"""The commands `users`, `tokens` and `audit`: who may do what at a station, and who did what."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconpatch.cli.parts import Data, Database, Json, need_extra, note, say, say_json
from reconpatch.errors import SettingsError

if TYPE_CHECKING:
    from reconpatch.station.records import Records

_PACKAGES = ("alembic", "argon2", "sqlalchemy")


def register(app: typer.Typer) -> None:
    """Give the command line the commands of this module."""
    for command in (users, tokens, audit):
        app.command()(command)


def users(
    name: Annotated[
        str | None,
        typer.Argument(help="A user to add or change. None: list all.", show_default=False),
    ] = None,
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    role: Annotated[
        str | None,
        typer.Option(help="viewer, operator, engineer or admin.", show_default="as it is"),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the password.",
            metavar="FILE",
            show_default="asked for where the user is new",
        ),
    ] = None,
    new_password: Annotated[
        bool, typer.Option("--new-password", help="Ask for another password.")
    ] = False,
    disable: Annotated[
        bool | None,
        typer.Option("--disable/--enable", help="Whether they may not log in.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the users of a station, add one, or change one; also while its service runs.

    A station has users when it is served with --users. What is changed is kept in the audit trail.
    """
    with _records("users", data, database) as records:
        people = records.people()
        if name is not None:
            there = name in [one.name for one in people.users()]
            password = None if password_file is None else _password_of(password_file)
            if password is None and (new_password or not there):
                password = _asked(name)
            people.set_user(name, role=role, password=password, disabled=disable, by=_me())
        found = [one for one in people.users() if name is None or one.name == name]
    if as_json:
        for one in found:
            times = {"created": str(one.created), "disabled": one.disabled and str(one.disabled)}
            say_json({**asdict(one), **times})
        return
    for one in found:
        say(f"{one.name}: {one.role}{', disabled' if one.disabled else ''}")


def tokens(
    name: Annotated[
        str | None,
        typer.Argument(help="What a new token is for. None: list all.", show_default=False),
    ] = None,
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may do: read, inspect, feedback, change or admin; may be given several "
            "times.",
            show_default="none",
        ),
    ] = None,
    days: Annotated[float | None, typer.Option(help="Until it ends.", show_default="never")] = None,
    revoke: Annotated[
        int | None, typer.Option(help="Take this one back.", metavar="ID", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the tokens of programs, make one, or take one back; also while the service runs.

    A new token is printed once, as the only line on stdout. With --revoke it counts no more after
    5 seconds.
    """
    with _records("tokens", data, database) as records:
        people = records.people()
        if name is not None:
            made, secret = people.make_token(name, scope or (), days=days, by=_me())
            note(f"Token {made.id}: {', '.join(made.scopes)}")
            say_json({"id": made.id, "token": secret}) if as_json else say(secret)
            return
        if revoke is not None:
            people.revoke(revoke, by=_me())
        found = people.tokens()
    for one in found:
        now = datetime.now(UTC)
        ended = one.revoked or (one.expires if one.expires and one.expires <= now else None)
        if as_json:
            say_json({"id": one.id, "name": one.name, "scopes": one.scopes, "valid": not ended})
            continue
        state = f"ended {ended:%Y-%m-%d}" if ended else "valid"
        until = f" until {one.expires:%Y-%m-%d}" if one.expires and not ended else ""
        say(f"{one.id}: {one.name}, {' '.join(one.scopes)}, {state}{until}")


def audit(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="An export to check. None: the trail of DATA.", metavar="FILE", show_default=False
        ),
    ] = None,
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the export there.", metavar="FILE"),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="Hash that was noted before; it has to be there.", show_default="none"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove that the audit trail of a station is unbroken, and write it as an export.

    Each entry holds the hash of the one before. Note the head, the hash of the last one, elsewhere:
    with it a later check also finds entries that are missing at the end.
    """
    from reconpatch.files import atomic_write

    if file is not None and output is not None:
        raise SettingsError("an export is checked as it is: give a file, or --output")
    need_extra("audit", "serve", *_PACKAGES)
    from reconpatch.station.audit import verify

    if file is not None:
        try:
            with file.open(encoding="utf-8") as lines:
                found = verify(lines, head=head)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file} cannot be read ({error}): give an export") from error
    else:
        with _records("audit", data, database) as records:
            if output is None:
                found = verify(records.audit.export(), head=head)
            else:
                with atomic_write(output) as written:
                    found = verify(_written(records.audit.export(), written), head=head)
    if as_json:
        say_json({"entries": found.entries, "head": found.head})
    else:
        say(f"Unbroken: {found.entries:,} entries, head {found.head}")


def _written(lines: Iterator[str], file: object) -> Iterator[str]:
    for line in lines:
        file.write(f"{line}\n".encode())  # type: ignore[attr-defined]
        yield line


@contextmanager
def _records(command: str, data: Path, database: str | None) -> Iterator[Records]:
    """The records of a station's folder, which a service may be using."""
    need_extra(command, "serve", *_PACKAGES)
    from reconpatch.station.data_folder import DataFolder
    from reconpatch.station.records import Records, check_current

    if not (data / "station.txt").is_file():
        DataFolder(data).close()  # makes it
    station = (data / "station.txt").read_text(encoding="utf-8").strip()
    check_current(database or data / "records.sqlite")
    with closing(Records(database or data / "records.sqlite", station)) as records:
        yield records


def _me() -> str:
    """Who is at the command line, as far as the system knows."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # an account without a name, as in a container
        return "command line"


def _password_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the password file {file} cannot be read ({error}): check it"
        ) from error


def _asked(name: str) -> str:
    password = str(typer.prompt(f"Password for {name}", hide_input=True, err=True))
    again = str(typer.prompt("The same again", hide_input=True, err=True))
    if password != again:
        raise SettingsError("the two passwords differ: give the same twice")
    return password
