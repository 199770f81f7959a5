"""The command `serve`: from its options to a service that listens."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconpatch.cli_parts import MAX_PIXELS, Data, Database, MaxPixels, Threads, need_extra
from reconpatch.errors import OutputError, SettingsError

if TYPE_CHECKING:
    import uvicorn

    from reconpatch.service_guard import Access

# The same numbers as in reconpatch.service and station, which --help must not wait for; a test
# compares.
MAX_BYTES = 50_000_000
QUEUE = 64
KEEP_GB = 50.0

_PACKAGES = (
    "alembic", "fastapi", "prometheus_client", "python_multipart", "sqlalchemy", "uvicorn",
)  # fmt: skip
# Seconds that a stopping service waits for requests under way, such as an upload that hangs.
_LAST_ANSWERS = 30


def register(app: typer.Typer) -> None:
    """Give the command line the command of this module."""
    app.command()(serve)


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
    from reconpatch.data_folder import DataFolder
    from reconpatch.fit_jobs import FitJobs, check_folders
    from reconpatch.memory import bound_heaps
    from reconpatch.service import create_app
    from reconpatch.station import Limits, Station

    access = _access(host, token_file, secure=tls_cert is not None)
    limits = Limits(
        queue=queue, max_pixels=max_pixels, keep_days=keep_days, keep_bytes=int(keep_gb * 1e9)
    )
    tls = _tls(tls_cert, tls_key)
    check_folders(photos or ())
    listening = _listen(host, port)
    with listening, DataFolder(data) as folder:
        _log_to_stderr()
        bound_heaps()
        station = Station(folder, models or (), database=database, limits=limits, threads=threads)
        with station:
            fits = FitJobs(station, photos or ())
            application = create_app(station, access=access, fits=fits, max_bytes=max_bytes)
            server = _server(application, tls)
            for product, served in sorted(station.products.items()):
                print(f"{product}: version {served.version.number}")
            print(f"Listening: {_url(listening, host, tls)}", flush=True)
            server.run(sockets=[listening])


def _access(host: str, token_file: Path | None, *, secure: bool) -> Access:
    """Who may ask: beyond this machine, only who has the token."""
    from reconpatch.service_guard import Access, is_loopback

    token = None if token_file is None else _token(token_file)
    if is_loopback(host):
        return Access(token=token, secure=secure)
    if token is None:
        raise SettingsError(
            f"with --host {host} other machines reach the service: give --token-file with a token "
            "that they have to send, and --tls-cert and --tls-key so that nobody reads it"
        )
    return Access(any_host=True, token=token, secure=secure)


def _token(path: Path) -> str:
    from reconpatch.service_guard import SHORTEST_TOKEN

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


def _server(app: Any, tls: dict[str, Any]) -> uvicorn.Server:
    import uvicorn

    # Lines of requests come from the guard, without their queries.
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_LAST_ANSWERS,
        **tls,
    )
    return uvicorn.Server(config)


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in ("alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
