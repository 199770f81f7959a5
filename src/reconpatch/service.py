"""The HTTP service of a station, and the page of it.

Every route is under /api/v1 but the page itself, which is the files of `web/`. Who may ask is in
`service_guard.py`, what is taken and given in `service_models.py`; what is done, in `station.py`.
No value of a request becomes a path: products are looked up by name, photos by their record.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import reconpatch
from reconpatch.errors import (
    BusyError,
    NotFoundError,
    OutputError,
    PhotoError,
    ReconPatchError,
    RecordsError,
    UpdateRefusedError,
)
from reconpatch.fit_jobs import FitJobs
from reconpatch.pictures import Picture, Pictures
from reconpatch.records import COLUMNS, Filter, Record, Version, as_rows
from reconpatch.service_fit import fit_router
from reconpatch.service_guard import API, Access, Guard
from reconpatch.service_metrics import Metrics
from reconpatch.service_models import (
    BatchItem,
    BatchOut,
    DriftOut,
    FeedbackIn,
    HealthOut,
    PreviewOut,
    Problem,
    ProductOut,
    ProductsOut,
    Rate,
    RecordFilter,
    RecordId,
    RecordOut,
    RecordQuery,
    RecordsOut,
    RescoredItem,
    RescoredOut,
    RollbackIn,
    Score,
    ScoreOut,
    ScoresOut,
    ThresholdIn,
    UpdateOut,
    VersionDetail,
    VersionOut,
    VersionsOut,
)
from reconpatch.station import Station

log = logging.getLogger("reconpatch.service")

WEB = Path(__file__).parent / "web"
MAX_BYTES = 50_000_000
"""The largest file of a photo, by default."""
MAX_FILES = 64
"""Photos of one batch."""

# A batch has many files and an update has some; neither has as many of the largest.
_FILES_WORTH = 8
_ENVELOPE = 65_536
_JSON_BYTES = 65_536

_STATUS: tuple[tuple[type[ReconPatchError], int], ...] = (
    (NotFoundError, 404),
    (UpdateRefusedError, 409),
    (PhotoError, 422),
    (BusyError, 503),
    (RecordsError, 503),
    (OutputError, 503),
    (ReconPatchError, 400),
)
_SAID = {
    400: "The request asks for what cannot be done.",
    401: "A token is needed.",
    403: "The request comes from another site's page.",
    404: "There is no such product, version, record or photo.",
    409: "A confirmed defect would be missed; nothing was changed.",
    413: "The request is larger than the limit.",
    421: "The service is not known by the name in Host.",
    422: "A value or a photo cannot be used.",
    503: "Too many photos are waiting (ask again after Retry-After), or nothing can be written.",
}
_SAID_AS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text} for status, text in _SAID.items()
}

Product = Annotated[str, InPath(max_length=64, description="Name of a product.")]
ProductName = Annotated[
    str | None, Query(max_length=64, description="Name of a product; not needed for a single one.")
]
RecordNumber = Annotated[RecordId, InPath(description="Number of a record.")]
Size = Annotated[
    int | None, Query(ge=16, le=16_384, description="The picture's longer side in pixels, at most.")
]
Kind = Annotated[Literal["jpeg", "png"], Query(description="Format of the picture.")]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ONE_PHOTO = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": _BINARY,
            "image/*": _BINARY,
        },
    }
}


def _several(field: str, *, required: bool) -> dict[str, Any]:
    """The body of a route that takes several photos, for OpenAPI."""
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    schema = {"type": "object", "properties": {field: files}}
    if required:
        schema["required"] = [field]
    return {
        "requestBody": {
            "required": required,
            "content": {"multipart/form-data": {"schema": schema}},
        }
    }


def create_app(
    station: Station,
    *,
    access: Access | None = None,
    fits: FitJobs | None = None,
    max_bytes: int = MAX_BYTES,
    web: Path = WEB,
) -> FastAPI:
    """The service of a station, which is closed when the service ends.

    Args:
        station: what inspects and keeps.
        access: who may ask; by default programs and the page on this machine.
        fits: where the page's fits are done; by default without folders to choose from.
        max_bytes: larger files of photos are refused.
        web: folder of the page's files; without an index.html in it there is no page.
    """
    fits = fits if fits is not None else FitJobs(station)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
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
    )
    metrics = Metrics(station)
    app.add_middleware(
        Guard,
        access=access or Access(),
        most_bytes=lambda path: _most_bytes(path, max_bytes),
        count=metrics.count_request,
    )
    _handle_errors(app)
    service = _Service(station, metrics, max_bytes)
    app.include_router(service.router())
    app.include_router(fit_router(fits, service.version_out, _SAID_AS))
    if (web / "index.html").is_file():
        app.mount("/", StaticFiles(directory=web, html=True), name="page")
    return app


def _most_bytes(path: str, max_bytes: int) -> int:
    """The bound of a request's body."""
    if path in (f"{API}/inspect", f"{API}/fit/photos"):
        return max_bytes + _ENVELOPE
    if path == f"{API}/inspect-batch" or path.endswith("/update"):
        return _FILES_WORTH * max_bytes + _ENVELOPE
    return _JSON_BYTES


class _Service:
    """The routes, around one station."""

    def __init__(self, station: Station, metrics: Metrics, max_bytes: int) -> None:
        self._station = station
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._pictures = Pictures(station)
        self._open = 0

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(prefix=API, responses=_SAID_AS)
        get, post, put = router.get, router.post, router.put
        product, record = "/products/{product}", "/records/{record}"

        post("/inspect", openapi_extra=_ONE_PHOTO)(self.inspect)
        post("/inspect-batch", openapi_extra=_several("files", required=True))(self.inspect_batch)

        get("/records")(self.records)
        get("/records.csv", response_class=StreamingResponse, responses=_file("text/csv"))(
            self.export
        )
        get(record)(self.record)
        get(
            f"{record}/photo", response_class=Response, responses=_file("application/octet-stream")
        )(self.photo)
        for name, draw in (
            ("picture", self.picture), ("overlay", self.overlay), ("heatmap", self.heatmap),
            ("closest", self.closest),
        ):  # fmt: skip
            responses = _file("image/png", "image/jpeg")
            get(f"{record}/{name}", response_class=Response, responses=responses)(draw)
        post(f"{record}/feedback")(self.feedback)

        get("/products")(self.products)
        get(f"{product}/scores")(self.scores)
        get(f"{product}/drift")(self.drift)
        get(f"{product}/threshold")(self.preview)
        put(f"{product}/threshold")(self.set_threshold)
        get(f"{product}/versions")(self.versions)
        get(product + "/versions/{number}")(self.version)
        get(product + "/versions/{number}/rescored")(self.rescored)
        post(f"{product}/rollback")(self.roll_back)
        post(f"{product}/update", openapi_extra=_several("good", required=False))(self.update)

        get("/health")(self.health)
        get("/metrics", response_class=Response, responses=_file("text/plain"))(self.show_metrics)
        return router

    # --- Inspect -------------------------------------------------------------------------------

    async def inspect(
        self,
        request: Request,
        product: ProductName = None,
        name: Annotated[str | None, Query(max_length=255, description="For raw bytes.")] = None,
    ) -> RecordOut:
        """Inspect a photo: the file `file` of a form, or the body itself.

        The answer comes once the verdict is on the disk.
        """
        self._station.product(product)  # before megabytes are read
        with self._admitted(), self._metrics.timed():
            async with self._files(request, "file", 1) as files:
                if files is None:
                    content, name = await request.body(), name or "photo"
                else:
                    [file] = files
                    content, name = await self._content(file), _name_of(file)
            answer = self._station.submit(content, name=name, product=product)
            return RecordOut.model_validate(self._counted(await _wait(answer)))

    async def inspect_batch(self, request: Request, product: ProductName = None) -> BatchOut:
        """Inspect up to 64 photos: the files `files` of a form.

        What cannot be inspected has an error in its place; the others have their records.
        """
        self._station.product(product)
        with self._admitted():
            async with self._files(request, "files", MAX_FILES) as files:
                if files is None:
                    raise HTTPException(422, "a batch is a form with photos in 'files': send one")
                items: list[BatchItem] = []
                step = self._station.limits.batch
                for first in range(0, len(files), step):
                    some = files[first : first + step]
                    items += await asyncio.gather(*(self._item(f, product) for f in some))
                return BatchOut(items=items)

    async def _item(self, file: UploadFile, product: str | None) -> BatchItem:
        name = _name_of(file)
        try:
            content = await self._content(file)
            answer = await self._submit_patiently(content, name, product)
            record = self._counted(await _wait(answer))
        except PhotoError as error:
            return BatchItem(name=name, error=str(error))
        except HTTPException as error:
            return BatchItem(name=name, error=str(error.detail))
        return BatchItem(name=name, record=RecordOut.model_validate(record))

    async def _submit_patiently(
        self, content: bytes, name: str, product: str | None
    ) -> Future[Record]:
        """Queue a photo of a batch that has begun, and so is finished, when there is room."""
        while True:
            try:
                return self._station.submit(content, name=name, product=product)
            except BusyError:
                await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        """Refuse an upload before it is read, where too many are under way already."""
        if self._open >= 2 * self._station.limits.queue:
            raise BusyError(self._open, 1)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    @contextlib.asynccontextmanager
    async def _files(
        self, request: Request, field: str, most: int
    ) -> AsyncIterator[list[UploadFile] | None]:
        """The files of a form under one name, 1 to `most`; None where the body is no form."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            yield None
            return
        async with request.form(max_files=most, max_fields=8) as form:
            files = [value for value in form.getlist(field) if isinstance(value, UploadFile)]
            if not files:
                raise HTTPException(
                    422, f"the form has no file {field!r}: send photos by this name"
                )
            yield files

    async def _content(self, file: UploadFile) -> bytes:
        if file.size is not None and file.size > self._max_bytes:
            raise HTTPException(413, f"the photo is larger than {self._max_bytes:,} bytes")
        return await file.read()

    def _counted(self, record: Record) -> Record:
        self._metrics.count_verdict(record)
        return record

    # --- Records -------------------------------------------------------------------------------

    def records(self, query: Annotated[RecordQuery, Query()]) -> RecordsOut:
        """Records, newest first."""
        page = self._station.records.page(_filter(query), limit=query.limit, before=query.cursor)
        records = [RecordOut.model_validate(record) for record in page.records]
        return RecordsOut(records=records, cursor=page.cursor)

    def export(self, query: Annotated[RecordFilter, Query()]) -> StreamingResponse:
        """Records as CSV, newest first."""
        rows = as_rows(self._station.records.export(_filter(query)))
        headers = {"Content-Disposition": 'attachment; filename="records.csv"'}
        return StreamingResponse(_csv(rows), media_type="text/csv", headers=headers)

    def record(self, record: RecordNumber) -> RecordOut:
        """One record."""
        return RecordOut.model_validate(self._station.records.get(record))

    def photo(self, record: RecordNumber) -> Response:
        """The photo's file, byte for byte as it was sent."""
        found = self._station.records.get(record)
        content = self._station.photos.read(found.photo)
        headers = {"Content-Disposition": f'attachment; filename="{found.photo[:16]}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    def picture(self, record: RecordNumber, size: Size = None, kind: Kind = "jpeg") -> Response:
        """The photo as a browser shows it: upright, 8 bits."""
        return self._drawn(self._pictures.photo(self._station.records.get(record), size, kind))

    def overlay(self, record: RecordNumber, size: Size = None, kind: Kind = "jpeg") -> Response:
        """The photo under its heat map, regions framed; one scale of colours for all photos."""
        return self._drawn(self._pictures.overlay(self._station.records.get(record), size, kind))

    def heatmap(
        self,
        record: RecordNumber,
        size: Size = None,
        scale: Annotated[
            Literal["colour", "grey"],
            Query(description="colour: RGBA; grey: 16 bits, 65535 is twice the map's threshold."),
        ] = "colour",
    ) -> Response:
        """The heat map alone as PNG, to be laid over the picture."""
        return self._drawn(self._pictures.heatmap(self._station.records.get(record), size, scale))

    def closest(self, record: RecordNumber) -> Response:
        """The good photo that the worst patch was compared with, the closest patch framed."""
        return self._drawn(self._pictures.closest(self._station.records.get(record)))

    def _drawn(self, picture: Picture) -> Response:
        return Response(picture.content, media_type=picture.media_type)

    def feedback(self, record: RecordNumber, said: FeedbackIn) -> RecordOut:
        """Say what the part was."""
        return RecordOut.model_validate(self._station.records.feedback(record, said.feedback))

    # --- Products ------------------------------------------------------------------------------

    def products(self) -> ProductsOut:
        """All products and what is in service."""
        return ProductsOut(products=[self._product(name) for name in self._station.products])

    def _product(self, name: str) -> ProductOut:
        served = self._station.product(name)
        calibration = served.inspector.calibration
        return ProductOut(
            name=name,
            version=served.version.number,
            threshold=served.inspector.threshold,
            map_threshold=calibration.map_threshold.value,
            false_alarm_rate=calibration.image_threshold.stated_rate,
            promise=calibration.promise,
            good_photos=len(served.inspector.photos),
            in_service_since=self._station.records.services(name)[0].since,
        )

    def scores(self, product: Product) -> ScoresOut:
        """Scores of the recent past and of the calibration, for a histogram."""
        served = self._station.product(product)
        return ScoresOut(
            threshold=served.inspector.threshold,
            recent=[
                ScoreOut(id=r.id, score=r.score, anomalous=r.anomalous, feedback=r.feedback)
                for r in self._station.recent(served.version)
            ],
            calibration=served.inspector.calibration.scores.tolist(),
        )

    def drift(self, product: Product) -> DriftOut:
        """Whether scores still look like those of the calibration."""
        drift = self._station.drift(product)
        monitor, alarm = drift.monitor, drift.last_alarm
        return DriftOut(
            photos=monitor.photos, alarms=monitor.alarms, level=monitor.level,
            last=alarm.message if alarm else None,
        )  # fmt: skip

    def preview(
        self,
        product: Product,
        score: Annotated[Score | None, Query()] = None,
        false_alarm_rate: Annotated[Rate | None, Query()] = None,
    ) -> PreviewOut:
        """What another threshold would do; without one, what the present one does."""
        preview = self._station.preview(product, score=score, rate=false_alarm_rate)
        return PreviewOut.model_validate(preview)

    def set_threshold(self, product: Product, given: ThresholdIn) -> VersionOut:
        """Put a version with another threshold into service."""
        version = self._station.set_threshold(
            product, score=given.score, rate=given.false_alarm_rate
        )
        return self.version_out(version)

    def versions(self, product: Product) -> VersionsOut:
        """All versions of a product, oldest first."""
        self._station.product(product)
        found = self._station.records.versions(product)
        return VersionsOut(versions=[self.version_out(version) for version in found])

    def version(
        self, product: Product, number: Annotated[int, InPath(ge=1, le=2**31 - 1)]
    ) -> VersionDetail:
        """One version, and where it comes from."""
        self._station.product(product)
        version = self._station.versions.get(product, number)
        model = self._station.versions.inspector(product, number)
        return VersionDetail(
            **self.version_out(version).model_dump(),
            promise=model.calibration.promise,
            good_photos=len(model.photos),
            provenance=model.provenance,
            settings=[member.settings.to_dict() for member in model.members],
        )

    def rescored(
        self,
        product: Product,
        number: Annotated[int, InPath(ge=1, le=2**31 - 1)],
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Annotated[RecordId | None, Query(description="From the call before.")] = None,
    ) -> RescoredOut:
        """What a version says of photos of the recent past: each is inspected once more."""
        found, after = self._station.rescore(product, number, limit=limit, before=cursor)
        items = [
            RescoredItem(
                id=one.record.id,
                score=one.record.score,
                anomalous=one.record.anomalous,
                rescored=one.score,
                rescored_anomalous=one.anomalous,
                feedback=one.record.feedback,
            )
            for one in found
        ]
        return RescoredOut(items=items, cursor=after)

    def roll_back(self, product: Product, given: RollbackIn | None = None) -> VersionOut:
        """Put an older version back into service."""
        number = given.number if given is not None else None
        return self.version_out(self._station.roll_back(product, number))

    async def update(
        self,
        request: Request,
        product: Product,
        force: Annotated[
            bool, Query(description="Also when a confirmed defect would be missed.")
        ] = False,
        dry: Annotated[
            bool, Query(description="Only say what would change; `version` is null.")
        ] = False,
    ) -> UpdateOut:
        """Learn from feedback, and from the photos `good` of a form; into service if it is safe.

        Flagged photos that an operator called good enter the bank. Photos of the form are to be
        new good ones that were not picked by their verdict.
        """
        self._station.product(product)
        photos = []
        async with self._files(request, "good", MAX_FILES) as files:
            for file in files or ():
                photos.append((await self._content(file), _name_of(file)))
        if dry:
            return UpdateOut(
                version=None,
                comparison=await run_in_threadpool(self._station.try_update, product, photos),
            )
        version, comparison = await run_in_threadpool(
            self._station.update, product, photos, force=force
        )
        return UpdateOut(
            version=await run_in_threadpool(self.version_out, version),
            comparison=comparison.to_dict(),
        )

    def version_out(self, version: Version) -> VersionOut:
        """A version, and whether it is in service."""
        services = self._station.records.services(version.product)
        since = next((s.since for s in services if s.number == version.number), None)
        served = self._station.product(version.product).version.number == version.number
        return VersionOut(**asdict(version), in_service=served, in_service_since=since)

    # --- The service itself --------------------------------------------------------------------

    def health(self) -> HealthOut:
        """Whether the service and its database answer."""
        self._station.records.check()
        return HealthOut(status="ok", version=reconpatch.__version__, waiting=self._station.waiting)

    def show_metrics(self) -> Response:
        """Figures for Prometheus."""
        content, media_type = self._metrics.text()
        return Response(content, media_type=media_type)


def _file(*media_types: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": dict.fromkeys(media_types, _BINARY)}}


async def _wait(answer: Future[Record]) -> Record:
    return await asyncio.wrap_future(answer)


def _name_of(file: UploadFile) -> str:
    """What a file was called, without the folders that some browsers send along."""
    return (file.filename or "photo").replace("\\", "/").rsplit("/", 1)[-1] or "photo"


def _filter(query: RecordFilter) -> Filter:
    anomalous = None if query.verdict is None else query.verdict == "anomalous"
    return Filter(
        product=query.product,
        version=query.version,
        anomalous=anomalous,
        feedback=query.feedback,
        since=_time(query.since),
        until=_time(query.until),
        photo=query.photo,
    )


def _time(given: datetime | None) -> datetime | None:
    """In UTC, within the years that every database knows."""
    if given is None:
        return None
    try:
        utc = given.astimezone(UTC)
    except OverflowError:
        utc = (
            datetime.max.replace(tzinfo=UTC) if given.year > 1 else datetime.min.replace(tzinfo=UTC)
        )
    return max(datetime(1970, 1, 1, tzinfo=UTC), min(utc, datetime(9000, 1, 1, tzinfo=UTC)))


def _csv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lines of a CSV file, some at a time."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "name": _harmless(row["name"])})
        if out.tell() > 65_536:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def _harmless(cell: str) -> str:
    """A cell that a spreadsheet does not run as a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


# --- Errors --------------------------------------------------------------------------------------


def _handle_errors(app: FastAPI) -> None:
    """Every error is one JSON sentence."""

    @app.exception_handler(ReconPatchError)
    async def _refused(_: Request, error: ReconPatchError) -> JSONResponse:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        headers = {"Retry-After": str(error.seconds)} if isinstance(error, BusyError) else None
        return _problem(status, str(error), headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _problem(422, "; ".join(_said(problem) for problem in error.errors()[:3]))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail), error.headers)

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
