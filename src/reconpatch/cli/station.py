"""The commands `serve`, from its options to a service that listens, and `orphans`."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

import reconpatch
from reconpatch.cli.parts import (
    MAX_PIXELS,
    Data,
    Database,
    Json,
    MaxPixels,
    Threads,
    need_extra,
    note,
    say,
    say_json,
)
from reconpatch.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from types import FrameType

    import uvicorn

    from reconpatch.station.connections import BoundedListener
    from reconpatch.station.guard import Access
    from reconpatch.station.station import Station

# The same numbers as in reconpatch.station.service and station, which --help must not wait for; a
# test compares.
MAX_BYTES = 50_000_000
QUEUE = 64
KEEP_GB = 50.0
RESERVE_GB = 1.0
STALE_AFTER = 60.0

_PACKAGES = (
    "alembic", "argon2", "fastapi", "prometheus_client", "python_multipart", "sqlalchemy",
    "uvicorn",
)  # fmt: skip
# Seconds that a stopping service waits for requests under way, such as an upload that hangs.
_LAST_ANSWERS = 30
# Files that `orphans` names without --json.
_NAMED = 20


def register(app: typer.Typer) -> None:
    """Give the command line the commands of this module."""
    app.command()(serve)
    app.command()(orphans)


def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Model files; each is a product of the file's name. None: those of DATA go on.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file: cameras, outputs to the line, shifts, how the page is set up.",
            metavar="FILE",
            show_default="none",
        ),
    ] = None,
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of good photos that the page can fit on; may be given several times.",
            metavar="DIR",
            show_default="those dropped on the page",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine with --token-file only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that is asked for.", metavar="FILE")
    ] = None,
    users: Annotated[
        bool,
        typer.Option("--users", help="Ask everybody who they are; see the command `users`."),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate (PEM) for https.", metavar="FILE")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Private key (PEM) for https.", metavar="FILE")
    ] = None,
    keep_days: Annotated[
        float | None,
        typer.Option(
            help="Remove photos that are older; records stay, and photos with feedback.",
            min=0,
            show_default="any age",
        ),
    ] = None,
    keep_gb: Annotated[
        float, typer.Option(help="Remove the oldest photos when all take more.", min=0)
    ] = KEEP_GB,
    keep_photos: Annotated[
        int | None,
        typer.Option(
            help="Remove the oldest photos when there are more.", min=0, show_default="any number"
        ),
    ] = None,
    reserve_gb: Annotated[
        float, typer.Option(help="Remove the oldest photos when less of the disk is free.", min=0)
    ] = RESERVE_GB,
    stale_after: Annotated[
        float,
        typer.Option(
            help="Seconds after which the page shows a verdict no longer; 0: never.", min=0
        ),
    ] = STALE_AFTER,
    public_url: Annotated[
        str | None,
        typer.Option(
            help="Where a reverse proxy shows the page, such as https://line.example/station3; "
            "with --token-file only.",
            metavar="URL",
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a reverse proxy whose X-Forwarded-For and -Proto are believed; may "
            "be given several times.",
            show_default="none",
            metavar="ADDRESS",
        ),
    ] = None,
    queue: Annotated[int, typer.Option(help="Photos that may wait for inspection.", min=1)] = QUEUE,
    max_bytes: Annotated[
        int, typer.Option(help="Refuse files of photos that are larger.", min=1)
    ] = MAX_BYTES,
    max_pixels: MaxPixels = MAX_PIXELS,
    threads: Threads = 0,
) -> None:
    """Inspect photos over HTTP, keep every verdict, and show them on a page.

    Stops with Ctrl-C, once the photos that wait have their verdict.
    """
    need_extra("serve", "serve", *_PACKAGES)
    from reconpatch.memory import bound_heaps
    from reconpatch.station.cameras.cameras import Cameras
    from reconpatch.station.config import Config, read_config
    from reconpatch.station.connections import BoundedListener, most_connections
    from reconpatch.station.data_folder import DataFolder
    from reconpatch.station.fit_jobs import FitJobs, check_folders
    from reconpatch.station.service import create_app, outputs_of
    from reconpatch.station.station import Limits, Station

    access = _access(host, token_file, public_url, secure=tls_cert is not None, users=users)
    limits = Limits(
        queue=queue,
        max_pixels=max_pixels,
        keep_days=keep_days,
        keep_bytes=int(keep_gb * 1e9),
        keep_photos=keep_photos,
        reserve_bytes=int(reserve_gb * 1e9),
        stale_after=stale_after or None,
    )
    told = Config() if config is None else read_config(config)
    tls = _tls(tls_cert, tls_key)
    proxies = [_address(one) for one in proxy or ()]
    check_folders(photos or ())
    listening = BoundedListener.of(_listen(host, port), most_connections())
    with listening, DataFolder(data) as folder:
        _log_to_stderr()
        bound_heaps()
        station = Station(folder, models or (), database=database, limits=limits, threads=threads)
        with station:
            if users:
                access = _with_people(access, station)
            fits = FitJobs(station, photos or ())
            outputs = outputs_of(station, told.outputs)
            cameras = Cameras(told.cameras, station)
            now = {
                "program": reconpatch.__version__, "users": users, "outputs": outputs.names,
                "cameras": cameras.names,
            }  # fmt: skip
            station.records.audit.add("start", folder.station, after=now)
            application = create_app(
                station,
                access=access,
                fits=fits,
                outputs=outputs,
                cameras=cameras,
                page=told.page,
                shifts=told.shifts,
                max_bytes=max_bytes,
            )
            server = _server(application, listening, tls, proxies)
            for product, served in sorted(station.products.items()):
                say(f"{product}: version {served.version.number}")
            for product, reason in sorted(station.out.items()):
                note(f"{product} is out of service: {reason}", warn=True)
            for product in station.retired:
                note(f"{product} is retired")
            say(f"Listening: {_url(listening, host, tls)}")
            server.run(sockets=[listening])


def orphans(
    data: Data = Path("reconpatch-data"),
    database: Database = None,
    move: Annotated[
        Path | None,
        typer.Option(help="Move them there, out of DATA.", metavar="DIR"),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove photos and fits for good.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List photos and fits in DATA that its records do not know; move or remove them.

    They are left over from a service that was killed, or belong to another database. Files that no
    station has put there are listed and left alone. Stop the service first.
    """
    need_extra("orphans", "serve", "alembic", "sqlalchemy")
    from reconpatch.station import orphans as found_files
    from reconpatch.station.data_folder import DataFolder
    from reconpatch.station.records import Records

    if move is not None and remove:
        raise SettingsError("--move keeps the files and --remove does not: give one of the two")
    if not (data / "station.txt").is_file():
        raise SettingsError(f"{data} is no folder of a station: give it with --data")
    with DataFolder(data) as folder:
        if database is None and not folder.database.is_file():
            found = list(found_files.each_file(data, None))
        else:
            with closing(Records(database or folder.database, folder.station)) as records:
                found = list(found_files.each_file(data, records))
        own = [path for path, kind in found if kind in ("photo", "fit")]
        foreign = [path for path, kind in found if kind == "foreign"]
        if as_json:
            say_json({"orphans": [*map(str, own)], "foreign": [*map(str, foreign)]})
        else:
            _list("unknown to the records", own)
            _list("not put there by a station, and left alone", foreign)
        if move is not None:
            note(f"Moved: {found_files.move(own, data, move)} files to {move}")
        elif remove:
            photos, known = (sum(kind == of for _, kind in found) for of in ("photo", "known"))
            found_files.check_database(found_files.Orphans(photos=photos, known=known))
            count, left = found_files.remove(own)
            note(f"Removed: {count} files")
            for path in left:
                note(f"Left: {path} is not the photo that its name says", warn=True)


def _list(what: str, paths: list[Path]) -> None:
    say(f"{len(paths):,} files {what}{':' if paths else ''}")
    for path in paths[:_NAMED]:
        say(f"  {path}")
    if len(paths) > _NAMED:
        say(f"  and {len(paths) - _NAMED:,} more: --json lists all")


def _access(
    host: str, token_file: Path | None, public_url: str | None, *, secure: bool, users: bool = False
) -> Access:
    """Who may ask: beyond this machine, only who has the token or is a user."""
    from reconpatch.station.guard import Access, is_loopback

    token = None if token_file is None else _token(token_file)
    if users and token is not None:
        raise SettingsError(
            "with --users programs have tokens of their own, which `reconpatch tokens` makes: "
            "leave --token-file out"
        )
    if public_url is not None and token is None and not users:
        raise SettingsError(
            "with --public-url others reach the service through the proxy: give --token-file with "
            "a token that they have to send, or --users"
        )
    origin, prefix = _public(public_url)
    secure = secure or (origin or "").startswith("https:")
    if is_loopback(host):
        return Access(token=token, secure=secure, origin=origin, prefix=prefix)
    if token is None and not users:
        raise SettingsError(
            f"with --host {host} other machines reach the service: give --token-file with a token "
            "that they have to send, or --users, and --tls-cert and --tls-key so that nobody reads "
            "it"
        )
    return Access(any_host=True, token=token, secure=secure, origin=origin, prefix=prefix)


def _with_people(access: Access, station: Station) -> Access:
    """The same for the users of a station."""
    people = station.records.people()
    if not people.has_admin():
        raise SettingsError(
            "with --users somebody has to be admin: make one with `reconpatch users NAME --role "
            "admin --data DATA`"
        )
    return replace(access, people=people)


def _public(url: str | None) -> tuple[str | None, str]:
    """The origin and the path of the address under which a reverse proxy shows the page."""
    if url is None:
        return None, ""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        named = False
    if not named or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise SettingsError(
            f"--public-url is {url!r}: give the address of the page as the proxy shows it, such as "
            "https://line.example/station3"
        )
    return f"{parts.scheme}://{parts.netloc}".lower(), parts.path.rstrip("/")


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise SettingsError(
            f"--proxy is {text!r}: give the address of the proxy, such as 127.0.0.1"
        ) from None


def _token(path: Path) -> str:
    from reconpatch.station.guard import SHORTEST_TOKEN

    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the token file {path} cannot be read ({error}): check it") from error
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise SettingsError(
            f"the token in {path} is not one line of {SHORTEST_TOKEN} or more plain characters: "
            "make one, such as with `openssl rand -hex 32`"
        )
    return token


def _tls(cert: Path | None, key: Path | None) -> dict[str, Any]:
    """What uvicorn is told of TLS; found out to work before anything starts."""
    import ssl

    if cert is None and key is None:
        return {}
    if cert is None or key is None:
        raise SettingsError("https needs a certificate and its key: give --tls-cert and --tls-key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except OSError as error:
        raise SettingsError(
            f"the certificate {cert} and the key {key} cannot be used ({error}): give PEM files "
            "that belong together"
        ) from error
    return {"ssl_certfile": str(cert), "ssl_keyfile": str(key)}


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise OutputError(
            f"the service cannot listen on {host}, port {port} ({error.strerror or error}): give "
            "another --port or --host"
        ) from error


def _url(listening: socket.socket, host: str, tls: dict[str, Any]) -> str:
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{'https' if tls else 'http'}://{name}:{listening.getsockname()[1]}"


def _server(
    app: Any, listening: BoundedListener, tls: dict[str, Any], proxies: list[str]
) -> uvicorn.Server:
    import uvicorn

    from reconpatch.station.connections import protocol_for

    class Server(uvicorn.Server):
        """Waits for no more bytes of an upload once it is told to stop."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.stopping.set()
            super().handle_exit(sig, frame)

    # Lines of requests come from the guard, without their queries.
    config = uvicorn.Config(
        app,
        http=protocol_for(listening),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        ws="none",
        timeout_graceful_shutdown=_LAST_ANSWERS,
        **tls,
    )
    return Server(config)


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in ("alembic", "uvicorn", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("asyncua", "pymodbus"):  # what fails is told by the outputs, once
        logging.getLogger(name).setLevel(logging.CRITICAL)
