"""The HTTP service of a station, and the page of it.

The routes are in `station/routes.py`; who may ask is in `station/guard.py`, what is taken and given
in `station/schemas.py`; what is done, in `station/station.py`. The page is the files of `web/`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import reconpatch
from reconpatch.errors import (
    AccessError,
    BusyError,
    CameraError,
    ChangedError,
    ConfirmError,
    LineError,
    NotFoundError,
    OutputError,
    PhotoError,
    ReconPatchError,
    RecordsError,
    UpdateRefusedError,
)
from reconpatch.station.cameras.cameras import Cameras
from reconpatch.station.fit_jobs import FitJobs
from reconpatch.station.guard import API, COOKIE, Access, Guard
from reconpatch.station.outputs.dispatch import Outputs
from reconpatch.station.outputs.message import Status
from reconpatch.station.page_settings import PageSettings
from reconpatch.station.record_zip import RecordZips
from reconpatch.station.routes import Service, router
from reconpatch.station.routes_cameras import router as cameras_router
from reconpatch.station.routes_outputs import router as outputs_router
from reconpatch.station.routes_page import router as page_router
from reconpatch.station.routes_people import router as people_router
from reconpatch.station.routes_reports import router as reports_router
from reconpatch.station.routes_shifts import router as shifts_router
from reconpatch.station.shifts import Shifts
from reconpatch.station.station import Station

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from reconpatch.station.outputs.settings import OutputSettings

log = logging.getLogger("reconpatch.service")

WEB = Path(__file__).parent / "web"
MAX_BYTES = 50_000_000
"""The largest file of a photo, by default."""

# A batch has many files and an update has some; neither has as many of the largest.
_FILES_WORTH = 8
_ENVELOPE = 65_536
_JSON_BYTES = 65_536

_STATUS: tuple[tuple[type[ReconPatchError], int], ...] = (
    (NotFoundError, 404),
    (UpdateRefusedError, 409),
    (ChangedError, 412),
    (PhotoError, 422),
    (BusyError, 503),
    (CameraError, 503),
    (LineError, 503),
    (AccessError, 403),
    (RecordsError, 503),
    (OutputError, 503),
    (ReconPatchError, 400),
)


def create_app(
    station: Station,
    *,
    access: Access | None = None,
    fits: FitJobs | None = None,
    outputs: Outputs | None = None,
    cameras: Cameras | None = None,
    page: PageSettings | None = None,
    shifts: Shifts | None = None,
    max_bytes: int = MAX_BYTES,
    web: Path = WEB,
) -> FastAPI:
    """The service of a station, which is closed when the service ends.

    Args:
        station: what inspects and keeps.
        access: who may ask; by default programs and the page on this machine.
        fits: where the page's fits are done; by default without folders to choose from.
        outputs: who else is told of verdicts; closed with the station. By default nobody.
        cameras: where photos come from by themselves; begun and ended with the service. By default
            none.
        page: how the page is set up; by default in the language of the browser.
        shifts: of the plant; by default the days of UTC.
        max_bytes: larger files of photos are refused.
        web: folder of the page's files; without an index.html in it there is no page.
    """
    fits = fits if fits is not None else FitJobs(station)
    outputs = outputs if outputs is not None else outputs_of(station, {})
    cameras = cameras if cameras is not None else Cameras({}, station)
    access = replace(access or Access(), language=page.language if page else None)
    if access.cookie_name == COOKIE:  # ports do not part cookies; stations have their own names
        own = re.sub("[^A-Za-z0-9-]", "-", station.data.station)
        access = replace(access, cookie_name=f"{COOKIE}-{own}")

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        cameras.start()
        yield
        app.state.stopping.set()
        await run_in_threadpool(cameras.close)
        await run_in_threadpool(fits.close)
        await run_in_threadpool(station.close)

    app = FastAPI(
        title="ReConPatch",
        version=reconpatch.__version__,
        description="Inspects photos, keeps every verdict, learns from feedback.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # their scripts would come from another host
        redoc_url=None,
        lifespan=lifespan,
        servers=[{"url": access.prefix}] if access.prefix else None,
    )
    # Set by whoever stops the service, before it waits for requests under way.
    app.state.stopping = threading.Event()
    app.state.shifts = shifts or Shifts()
    app.state.service = service = Service(station, fits, outputs, cameras, max_bytes, access.people)
    app.state.page = page or PageSettings()
    app.state.zips = RecordZips(station, service.pictures)
    app.add_middleware(
        Guard,
        access=access,
        most_bytes=lambda path: _most_bytes(path, max_bytes),
        count=service.metrics.count_request,
        lost=service.lost,
        held_bytes=2 * station.limits.queue_bytes,
        stopping=app.state.stopping.is_set,
    )
    _handle_errors(app)
    app.include_router(router)
    app.include_router(outputs_router)
    app.include_router(cameras_router)
    app.include_router(people_router)
    app.include_router(page_router)
    app.include_router(reports_router)
    app.include_router(shifts_router)
    if (web / "index.html").is_file():
        # Not mounted at "/", where it would answer for a route that is asked by a wrong method.
        app.router.default = partial(_page, StaticFiles(directory=web, html=True))
    return app


def outputs_of(station: Station, settings: Mapping[str, OutputSettings]) -> Outputs:
    """The outputs of a station, which end with it."""

    def status() -> Status:
        station.readiness.look()
        return Status(station.unable, sorted(station.products), station.waiting)

    outputs = Outputs(settings, station.records, status)
    station.closing.append(outputs.close)
    return outputs


async def _page(files: StaticFiles, scope: Scope, receive: Receive, send: Send) -> None:
    """A file of the page; errors are handled where those of routes are."""
    if scope["type"] != "http":
        return
    await files(scope, receive, send)


def _most_bytes(path: str, max_bytes: int) -> int:
    """The bound of a request's body."""
    if path in (f"{API}/inspect", f"{API}/fit/photos"):
        return max_bytes + _ENVELOPE
    if path == f"{API}/inspect-batch" or path.endswith("/update"):
        return _FILES_WORTH * max_bytes + _ENVELOPE
    return _JSON_BYTES


# --- Errors --------------------------------------------------------------------------------------


def _handle_errors(app: FastAPI) -> None:
    """Every error is one JSON sentence."""

    @app.exception_handler(ReconPatchError)
    async def _refused(_: Request, error: ReconPatchError) -> JSONResponse:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        if isinstance(error, ConfirmError):
            return JSONResponse({"error": str(error), **error.figures}, status)
        headers = {}
        if isinstance(error, BusyError):
            headers["Retry-After"] = str(error.seconds)
        if isinstance(error, ChangedError) and error.etag:
            headers["ETag"] = error.etag
        return _problem(status, str(error), headers)

    @app.exception_handler(OSError)
    async def _no_disk(_: Request, error: OSError) -> JSONResponse:
        log.error("the system refused a step of a request", exc_info=error)
        reason = error.strerror or type(error).__name__
        return _problem(503, f"the station's disk or system refused a step ({reason}): see its log")

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _problem(422, "; ".join(_said(problem) for problem in error.errors()[:3]))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        sentence = str(error.detail)
        allowed = (error.headers or {}).get("Allow", "GET, HEAD")
        if error.status_code == 405:
            sentence = f"{request.method} is no method of this address: use {allowed}"
        elif error.status_code == 404 and sentence == "Not Found":
            sentence = "there is nothing at this address: docs/station.md has those there are"
        return _problem(error.status_code, sentence, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        return _problem(400, "the request broke off: send it again")

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> JSONResponse:
        log.error("a request failed unexpectedly", exc_info=error)
        return _problem(500, "an unexpected error happened; what it was is in the service's log")


def _problem(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, headers)


def _said(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"][1:]) or "the request"
    return f"{where}: {problem['msg']}"
