"""The routes of the service, all under /api/v1.

Each asks the station for one thing and gives what comes of it, in the shape that
`station/schemas.py` says. No value of a request becomes a path: products are looked up by name,
photos by their record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote, unquote

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import reconpatch
from reconpatch.errors import BusyError, PhotoError
from reconpatch.station.cameras.cameras import Cameras
from reconpatch.station.drawing import Stroke
from reconpatch.station.fit_jobs import FitJobs
from reconpatch.station.guard import API, TooLargeError
from reconpatch.station.log import known_product
from reconpatch.station.metrics import Metrics
from reconpatch.station.outputs.dispatch import Outputs
from reconpatch.station.permissions import Person
from reconpatch.station.pictures import Picture, Pictures
from reconpatch.station.record_table import csv_lines
from reconpatch.station.records import Page, Record, Version
from reconpatch.station.schemas import (
    AcknowledgeIn,
    AlarmsOut,
    BatchItem,
    BatchOut,
    ChangesOut,
    DefectsOut,
    DriftOut,
    FailuresOut,
    FeedbackIn,
    FitIn,
    FitOut,
    FitServiceIn,
    HealthOut,
    KindOut,
    LearnIn,
    Number,
    OrphansOut,
    Problem,
    ProductNotServed,
    ProductOut,
    ProductsOut,
    Question,
    Rate,
    RecordFilter,
    RecordId,
    RecordQuery,
    RescoredItem,
    RescoredOut,
    RollbackIn,
    Score,
    ScoresOut,
    StateOut,
    ThresholdIn,
    Time,
    UpdateOut,
    VersionDetail,
    VersionOut,
    VersionsOut,
)
from reconpatch.station.station import Asked, NamedBytes, Preview, Station

if TYPE_CHECKING:
    from reconpatch.station.people import People

MAX_FILES = 64
"""Photos of one batch."""

# Pictures that are drawn or wait for their turn in threads of their own: all others would wait too.
_PICTURE_THREADS = 4
_PENDING_PICTURES = 200
# Seconds that a probe of the service's health waits for the disk and the database at most.
_HEALTH_SECONDS = 0.5
_LONGEST_OPERATOR = 80
# What a photo's pictures show never changes.
_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}

_SAID = {
    400: "The request asks for what cannot be done.",
    401: "A token is needed.",
    403: "The request comes from another site's page.",
    404: "There is no such product, version, record or photo.",
    409: "A confirmed defect would be missed; nothing was changed.",
    412: "It has been changed since it had the ETag of If-Match; nothing was changed.",
    413: "The request is larger than the limit.",
    421: "The service is not known by the name in Host.",
    422: "A value or a photo cannot be used.",
    503: "Too many photos are waiting (ask again after Retry-After), or nothing can be written.",
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def _body(content: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """The body of a route that reads it by itself, for OpenAPI."""
    return {"requestBody": {"required": required, "content": content}}


def _form(field: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """A form with one field, for OpenAPI."""
    form = {"type": "object", "properties": {field: schema}}
    return {"multipart/form-data": {"schema": form | ({"required": [field]} if required else {})}}


def _file(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """An answer that is a file, for OpenAPI."""
    return {200: {"content": dict.fromkeys(media_types, _BINARY)}}


_RAW = {"application/octet-stream": _BINARY, "image/*": _BINARY}
_ONE_PHOTO = _body(_form("file", _BINARY["schema"], required=True) | _RAW)
_PHOTOS = {"type": "array", "items": _BINARY["schema"]}
PICTURE = _file("image/png", "image/jpeg")
"""What a route answers that draws a picture, for OpenAPI."""

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": said} for status, said in _SAID.items()
}
"""What every route may answer instead, for OpenAPI."""

router = APIRouter(prefix=API, responses=PROBLEMS)


class Service:
    """What the routes work with; one for each app.

    Args:
        station: what inspects and keeps.
        fits: where the page's fits are done.
        outputs: who else is told of verdicts.
        cameras: where photos come from by themselves.
        max_bytes: larger files of photos are refused.
        people: who may ask; None: there are no users.
    """

    def __init__(
        self,
        station: Station,
        fits: FitJobs,
        outputs: Outputs,
        cameras: Cameras,
        max_bytes: int,
        people: People | None = None,
    ) -> None:
        self.station, self.fits, self.outputs, self.people = station, fits, outputs, people
        self.cameras = cameras
        self.metrics = Metrics(station, outputs, cameras)
        self.pictures = Pictures(station)
        self._max_bytes = max_bytes
        self._open = 0
        self._drawing = 0
        self._artists = anyio.CapacityLimiter(_PICTURE_THREADS)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Refuse an upload before it is read, where too many are under way already."""
        if self._open >= 2 * self.station.limits.queue:
            raise BusyError(self._open, 1)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def content(self, file: UploadFile) -> bytes:
        """The bytes of a file of a form."""
        if file.size is not None and file.size > self._max_bytes:
            raise HTTPException(413, f"the photo is larger than {self._max_bytes:,} bytes")
        return await file.read()

    async def drawn(
        self, draw: Callable[[], Picture], headers: Mapping[str, str] = _KEPT
    ) -> Response:
        """A picture, drawn beside everything else."""
        if self._drawing >= _PENDING_PICTURES:
            raise BusyError(self._drawing, 2, "pictures wait to be drawn: ask")
        self._drawing += 1
        try:
            picture = await anyio.to_thread.run_sync(draw, limiter=self._artists)
        finally:
            self._drawing -= 1
        return Response(picture.content, media_type=picture.media_type, headers={**headers})

    def lost(self, request: Request, sentence: str) -> None:
        """Keep that an upload was refused for its size before it was read."""
        if request.url.path.endswith("/inspect"):
            given = request.query_params
            name = given.get("name") or "photo"
            product = given.get("product")
            asyncio.get_running_loop().run_in_executor(
                None, self.station.no_photo, product, name, sentence, "upload"
            )


# --- What routes are given -----------------------------------------------------------------------


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]
Product = Annotated[str, InPath(max_length=64, description="Name of a product.")]
ProductName = Annotated[
    str | None, Query(max_length=64, description="Name of a product; without it, the default.")
]
Lot = Annotated[str | None, Query(max_length=100, description="The lot that the part belongs to.")]
Serial = Annotated[str | None, Query(max_length=100, description="The part's serial number.")]
VersionNumber = Annotated[Number, InPath()]
RecordNumber = Annotated[RecordId, InPath(description="Number of a record.")]
Size = Annotated[
    int | None, Query(ge=16, le=16_384, description="The picture's longer side in pixels, at most.")
]
Kind = Annotated[Literal["jpeg", "png"], Query(description="Format of the picture.")]


async def _known(product: Product, here: Here) -> str:
    return here.station.product(product).version.product


def _named(product: Product, here: Here) -> str:
    known_product(product, here.station.records.products())
    return product


def _asked(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(max_length=200, description="The ETag that this follows from; without it, any."),
    ] = None,
    x_operator: Annotated[
        str | None,
        Header(max_length=500, description="Who asks, for the audit trail; of a user their name."),
    ] = None,
) -> Asked:
    person: Person | None = request.scope.get("person")
    if person is not None:
        x_operator = quote(person.name)
    by = "".join(c for c in unquote(x_operator or "") if c.isprintable()).strip()
    expected = None if if_match is None or if_match.strip() == "*" else if_match.strip()
    return Asked(expected, by[:_LONGEST_OPERATOR] or None)


def _found(record: RecordNumber, here: Here) -> Record:
    return here.station.records.get(record)


async def _raw(request: Request, here: Here) -> AsyncIterator[bytes]:
    with here.admitted():
        yield await request.body()


async def _good(request: Request, _: Known, here: Here) -> AsyncIterator[list[NamedBytes]]:
    with here.admitted():
        async with _files(request, "good") as files:
            yield [(await here.content(file), _name_of(file)) for file in files or ()]


Known = Annotated[str, Depends(_known)]
"""Name of a product that there is, found out before a body is read."""
Named = Annotated[str, Depends(_named)]
"""Name of a product that there is, in service or not."""
Found = Annotated[Record, Depends(_found)]
"""The record of a number."""
Who = Annotated[Asked, Depends(_asked)]
"""Who asks for a change, and what they know."""
Limit = Annotated[int, Query(ge=1, le=1_000)]
Cursor = Annotated[RecordId | None, Query(description="From the page before.")]
_ASKS: dict[int | str, dict[str, Any]] = {409: {"model": Question, "description": _SAID[409]}}


# --- Inspect -------------------------------------------------------------------------------------


@router.post("/inspect", openapi_extra=_ONE_PHOTO)
async def inspect(
    request: Request,
    here: Here,
    product: ProductName = None,
    name: Annotated[str | None, Query(max_length=255, description="For raw bytes.")] = None,
    lot: Lot = None,
    serial: Serial = None,
) -> Record:
    """Inspect a photo: the file `file` of a form, or the body itself.

    The answer comes once the verdict is on the disk.
    """
    here.station.product(product)  # before megabytes are read
    name = name or "photo"
    with here.admitted(), here.metrics.timed():
        try:
            async with _files(request, "file", most=1) as files:
                if files is None:
                    content = await request.body()
                else:
                    [file] = files
                    name = _name_of(file)
                    content = await here.content(file)
        except (ClientDisconnect, TooLargeError, HTTPException) as error:
            await run_in_threadpool(here.station.no_photo, product, name, _why(error), "upload")
            raise
        answer = here.station.submit(content, name=name, product=product, lot=lot, serial=serial)
        return await asyncio.wrap_future(answer)


def _why(error: Exception) -> str:
    """Why an upload came to nothing."""
    if isinstance(error, HTTPException):
        return f"the upload could not be used: {error.detail}"
    if isinstance(error, TooLargeError):
        return "the upload was refused: it is too large, or too many are under way"
    return "the upload broke off: the photo did not arrive whole"


@router.post(
    "/inspect-batch", openapi_extra=_body(_form("files", _PHOTOS, required=True), required=True)
)
async def inspect_batch(
    request: Request, here: Here, product: ProductName = None, lot: Lot = None
) -> BatchOut:
    """Inspect up to 64 photos: the files `files` of a form.

    What cannot be inspected has an error in its place; the others have their records.
    """
    here.station.product(product)
    with here.admitted():
        async with _files(request, "files") as files:
            if files is None:
                raise HTTPException(422, "a batch is a form with photos in 'files': send one")
            items: list[BatchItem] = []
            step = here.station.limits.batch
            for first in range(0, len(files), step):
                some = files[first : first + step]
                items += await asyncio.gather(*(_item(here, file, product, lot) for file in some))
            return BatchOut(items=items)


async def _item(here: Service, file: UploadFile, product: str | None, lot: str | None) -> BatchItem:
    name = _name_of(file)
    try:
        record = await _inspected(here, await here.content(file), name, product, lot)
    except PhotoError as error:
        return BatchItem(name=name, error=str(error))
    except HTTPException as error:
        await run_in_threadpool(here.station.no_photo, product, name, _why(error), "upload")
        return BatchItem(name=name, error=str(error.detail))
    return BatchItem(name=name, record=record)


async def _inspected(
    here: Service, content: bytes, name: str, product: str | None, lot: str | None
) -> Record:
    """The record of a photo of a batch that has begun, and so is finished, when there is room."""
    while True:
        try:
            answer = here.station.submit(content, name=name, product=product, lot=lot)
        except BusyError:
            await asyncio.sleep(0.05)
        else:
            return await asyncio.wrap_future(answer)


@contextlib.asynccontextmanager
async def _files(
    request: Request, field: str, most: int = MAX_FILES
) -> AsyncIterator[Sequence[UploadFile] | None]:
    """The files of a form under one name, 1 to `most`; None where the body is no form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        yield None
        return
    async with request.form(max_files=most, max_fields=8) as form:
        files = [value for value in form.getlist(field) if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(422, f"the form has no file {field!r}: send photos by this name")
        yield files


def _name_of(file: UploadFile) -> str:
    """What a file was called, without the folders that some browsers send along."""
    name = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1] or "photo"
    return name.encode("utf-8", "backslashreplace").decode()  # UTF-7 has what no answer can say


# --- Records -------------------------------------------------------------------------------------


@router.get("/records")
def records(query: Annotated[RecordQuery, Query()], here: Here) -> Page:
    """Records, newest first."""
    return here.station.records.page(query.wanted(), limit=query.limit, before=query.cursor)


@router.get("/records.csv", response_class=StreamingResponse, responses=_file("text/csv"))
def export(query: Annotated[RecordFilter, Query()], here: Here) -> StreamingResponse:
    """Records as CSV, newest first."""
    lines = csv_lines(here.station.records.export(query.wanted()))
    headers = {"Content-Disposition": 'attachment; filename="records.csv"'}
    return StreamingResponse(lines, media_type="text/csv", headers=headers)


@router.get("/records/{record}")
def record(record: Found, response: Response) -> Record:
    """One record."""
    response.headers["ETag"] = record.etag
    return record


@router.get(
    "/records/{record}/photo",
    response_class=Response,
    responses=_file("application/octet-stream"),
)
def photo(record: Found, here: Here) -> Response:
    """The photo's file, byte for byte as it was sent."""
    content = here.station.photos.read(record.photo)
    headers = {"Content-Disposition": f'attachment; filename="{record.photo[:16]}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get("/records/{record}/picture", response_class=Response, responses=PICTURE)
async def picture(record: Found, here: Here, size: Size = None, kind: Kind = "jpeg") -> Response:
    """The photo as a browser shows it: upright, 8 bits."""
    return await here.drawn(lambda: here.pictures.photo(record, size, kind))


@router.get("/records/{record}/overlay", response_class=Response, responses=PICTURE)
async def overlay(record: Found, here: Here, size: Size = None, kind: Kind = "jpeg") -> Response:
    """The photo under its heat map, regions framed; one scale of colours for all photos."""
    return await here.drawn(lambda: here.pictures.overlay(record, size, kind))


@router.get("/records/{record}/heatmap", response_class=Response, responses=PICTURE)
async def heatmap(
    record: Found,
    here: Here,
    size: Size = None,
    scale: Annotated[
        Literal["colour", "grey"],
        Query(description="colour: RGBA; grey: 16 bits, 65535 is twice the map's threshold."),
    ] = "colour",
) -> Response:
    """The heat map alone as PNG, to be laid over the picture."""
    return await here.drawn(lambda: here.pictures.heatmap(record, size, scale))


@router.get("/records/{record}/closest", response_class=Response, responses=PICTURE)
async def closest(record: Found, here: Here) -> Response:
    """The good photo that the worst patch was compared with, the closest patch framed."""
    return await here.drawn(lambda: here.pictures.closest(record))


@router.get("/records/{record}/mask", response_class=Response, responses=_file("image/png"))
async def drawn_mask(record: Found, here: Here) -> Response:
    """Where an operator drew the defect: white on black, of the photo's size."""
    return await here.drawn(lambda: here.pictures.mask(record), headers={})  # it may change


@router.post("/records/{record}/feedback")
def feedback(
    record: RecordNumber, said: FeedbackIn, here: Here, asked: Who, response: Response
) -> Record:
    """Say what the part was, in place of what was said before."""
    place = [Stroke(stroke.width, tuple(stroke.points)) for stroke in said.place]
    told = here.station.records.feedback(
        record,
        said.feedback,
        kind=said.kind,
        place=place,
        expected=asked.expected,
        by=asked.by,
    )
    response.headers["ETag"] = told.etag
    return told


@router.get("/failures")
def failures(
    here: Here,
    product: ProductName = None,
    since: Annotated[Time | None, Query(description="From this time on; with a zone.")] = None,
    until: Annotated[Time | None, Query(description="Before this time; with a zone.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> FailuresOut:
    """Photos without a verdict, newest first."""
    found, after = here.station.records.log.failures(
        product, since=since, until=until, limit=limit, before=cursor
    )
    return FailuresOut(failures=found, cursor=after)


# --- Products ------------------------------------------------------------------------------------


@router.get("/products")
def products(here: Here) -> ProductsOut:
    """All products and what is in service."""
    return _products(here.station)


def _products(station: Station) -> ProductsOut:
    out = [
        ProductNotServed(name=name, version=_version_of(station, name), error=error)
        for name, error in station.out.items()
    ]
    return ProductsOut(
        products=[_product(station, name) for name in station.products],
        default=station.default,
        out=out,
        retired=station.retired,
    )


def _version_of(station: Station, product: str) -> int | None:
    services = station.records.services(product)
    return services[0].number if services else None


@router.post("/products/{product}/default")
def name_default(product: Product, here: Here, asked: Who) -> ProductsOut:
    """From now on this product is meant where none is named."""
    here.station.name_default(product, asked=asked)
    return _products(here.station)


@router.post("/products/{product}/retire")
def retire(product: Product, here: Here, asked: Who) -> ProductsOut:
    """Take a product out of service for good; its records, photos and models stay."""
    here.station.retire(product, asked=asked)
    return _products(here.station)


@router.post("/products/{product}/restore")
def restore(product: Product, here: Here, asked: Who) -> ProductsOut:
    """Take a retired product up again."""
    here.station.restore(product, asked=asked)
    return _products(here.station)


def _product(station: Station, name: str) -> ProductOut:
    served = station.product(name)
    calibration = served.inspector.calibration
    return ProductOut(
        name=name,
        version=served.version.number,
        threshold=served.inspector.threshold,
        map_threshold=calibration.map_threshold.value,
        false_alarm_rate=calibration.image_threshold.stated_rate,
        promise=calibration.promise,
        good_photos=len(served.inspector.photos),
        in_service_since=station.records.services(name)[0].since,
        etag=station.etag(name) or "",
    )


@router.get("/products/{product}/scores", response_model=ScoresOut)
def scores(product: Product, here: Here) -> dict[str, Any]:
    """Scores of the recent past and of the calibration, for a histogram."""
    served = here.station.product(product)
    return {
        "threshold": served.inspector.threshold,
        "recent": here.station.recent(served.version),
        "calibration": served.inspector.calibration.scores.tolist(),
    }


@router.get("/products/{product}/defects")
def defects(product: Named, here: Here) -> DefectsOut:
    """What operators confirmed of its defects, and the kinds that they named."""
    found = here.station.records.defects(product)
    counts = Counter(record.feedback_kind for record in found if record.feedback_kind)
    served = here.station.products.get(product)
    known = set[str]()
    for member in served.inspector.members if served is not None else ():
        known.update(member.defect_kinds.names if member.defect_kinds is not None else ())
    return DefectsOut(
        confirmed=len(found),
        drawn=sum(bool(record.feedback_place) for record in found),
        unnamed=sum(record.feedback_kind is None for record in found),
        kinds=[
            KindOut(name=name, confirmed=counts[name], known=name in known)
            for name in sorted({*counts, *known})
        ],
    )


@router.post("/products/{product}/learn", response_model=FitOut)
def learn(product: Known, given: LearnIn, here: Here, asked: Who) -> FitJobs:
    """Begin to make the model in service anew, to learn from the defects that were confirmed.

    It is a fit, at work and put into service like one (`fit`).
    """
    with here.fits.unchanged(asked.expected):
        here.fits.learn(product, given.folder)
    return here.fits


@router.get("/products/{product}/drift")
def drift(product: Product, here: Here) -> DriftOut:
    """Whether scores still look like those of the calibration, and alarms that are open."""
    return _drift(here.station, product)


def _drift(station: Station, product: str) -> DriftOut:
    seen = station.drift(product).monitor
    alarms = station.records.log.open_alarms(product)
    return DriftOut(
        photos=seen.photos,
        alarms=seen.alarms,
        level=seen.level,
        last=alarms[0].message if alarms else None,
        open=alarms,
    )


@router.get("/products/{product}/drift/alarms")
def alarms(product: Known, here: Here, limit: Limit = 100, cursor: Cursor = None) -> AlarmsOut:
    """All alarms, newest first, and who acknowledged each."""
    found, after = here.station.records.log.alarms(product, limit=limit, before=cursor)
    return AlarmsOut(alarms=found, cursor=after)


@router.post("/products/{product}/drift/acknowledge")
def acknowledge(product: Known, given: AcknowledgeIn, here: Here, request: Request) -> DriftOut:
    """Say that the open alarms were seen; of a user their own name counts."""
    person: Person | None = request.scope.get("person")
    by = given.by if person is None else person.name
    here.station.acknowledge(product, by=by, note=given.note, up_to=given.up_to)
    return _drift(here.station, product)


@router.get("/products/{product}/threshold")
def preview(
    product: Product,
    here: Here,
    response: Response,
    score: Annotated[Score | None, Query()] = None,
    false_alarm_rate: Annotated[Rate | None, Query()] = None,
) -> Preview:
    """What another threshold would do; without one, what the present one does."""
    tag = here.station.etag(product)  # before it is looked at: what comes after it is not shown
    found = here.station.preview(product, score=score, rate=false_alarm_rate)
    response.headers["ETag"] = tag or ""
    return found


@router.put("/products/{product}/threshold", responses=_ASKS)
def set_threshold(
    product: Product, given: ThresholdIn, here: Here, asked: Who, response: Response
) -> VersionOut:
    """Put a version with another threshold into service."""
    asked = Asked(asked.expected, asked.by, given.confirm)
    version = here.station.set_threshold(
        product, score=given.score, rate=given.false_alarm_rate, asked=asked
    )
    return _served(here.station, version, response)


def _served(station: Station, version: Version, response: Response) -> VersionOut:
    """A version that has just been put into service, with the new ETag."""
    response.headers["ETag"] = station.etag(version.product) or ""
    return _told(station, version)[0]


@router.get("/products/{product}/changes")
def changes(product: Product, here: Here, limit: Limit = 100, cursor: Cursor = None) -> ChangesOut:
    """Who changed what, newest first."""
    found, after = here.station.records.log.changes(product, limit=limit, before=cursor)
    return ChangesOut(changes=found, cursor=after)


@router.get("/products/{product}/versions")
def versions(product: Named, here: Here, response: Response) -> VersionsOut:
    """All versions of a product, oldest first."""
    response.headers["ETag"] = here.station.etag(product) or ""
    found = here.station.records.versions(product)
    return VersionsOut(versions=_told(here.station, *found))


@router.get("/products/{product}/versions/{number}")
def version(product: Named, number: VersionNumber, here: Here) -> VersionDetail:
    """One version, and where it comes from."""
    model = here.station.versions.inspector(product, number)
    return VersionDetail(
        **vars(_told(here.station, here.station.versions.get(product, number))[0]),
        promise=model.calibration.promise,
        good_photos=len(model.photos),
        provenance=model.provenance,
        settings=[member.settings.to_dict() for member in model.members],
    )


def _told(station: Station, *versions: Version) -> list[VersionOut]:
    """Versions of one product, and which of them is in service."""
    product = versions[0].product
    since = {one.number: one.since for one in reversed(station.records.services(product))}
    now = station.versions.in_service(product).number
    return [
        VersionOut(
            **asdict(version),
            in_service=version.number == now,
            in_service_since=since.get(version.number),
        )
        for version in versions
    ]


@router.get("/products/{product}/versions/{number}/preview")
def preview_version(product: Named, number: VersionNumber, here: Here) -> Preview:
    """What putting this version into service would do."""
    return here.station.preview_version(product, number)


@router.get("/products/{product}/versions/{number}/rescored")
def rescored(
    product: Named,
    number: VersionNumber,
    here: Here,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[RecordId | None, Query(description="From the call before.")] = None,
) -> RescoredOut:
    """What a version says of photos of the recent past: each is inspected once more."""
    found, after = here.station.rescore(product, number, limit=limit, before=cursor)
    items = [
        RescoredItem(
            id=record.id,
            score=record.score,
            anomalous=record.anomalous,
            rescored=result.score,
            rescored_anomalous=result.anomalous,
            feedback=record.feedback,
        )
        for record, result in found
    ]
    return RescoredOut(items=items, cursor=after)


@router.post("/products/{product}/rollback", responses=_ASKS)
def roll_back(
    product: Product, here: Here, asked: Who, response: Response, given: RollbackIn | None = None
) -> VersionOut:
    """Put an older version back into service."""
    given = given or RollbackIn(number=None, confirm=False)
    asked = Asked(asked.expected, asked.by, given.confirm)
    version = here.station.roll_back(product, given.number, asked=asked)
    return _served(here.station, version, response)


@router.post(
    "/products/{product}/update",
    openapi_extra=_body(_form("good", _PHOTOS, required=False), required=False),
)
def update(
    product: Known,
    good: Annotated[list[NamedBytes], Depends(_good)],
    here: Here,
    asked: Who,
    response: Response,
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
    if dry:
        return UpdateOut(version=None, comparison=here.station.try_update(product, good))
    version, comparison = here.station.update(product, good, force=force, asked=asked)
    told = _served(here.station, version, response)
    return UpdateOut(version=told, comparison=comparison.to_dict())


# --- Fits ----------------------------------------------------------------------------------------


@router.get("/fit", response_model=FitOut)
def fit_state(here: Here) -> FitJobs:
    """What fits can learn from, and the fit at work or the last one."""
    return here.fits


@router.post("/fit", response_model=FitOut)
def start_fit(given: FitIn, here: Here, asked: Who) -> FitJobs:
    """Begin a fit; there is one at a time."""
    with here.fits.unchanged(asked.expected):
        here.fits.start(given.product, given.folder, given.quality)
    return here.fits


@router.post("/fit/photos", response_model=FitOut, openapi_extra=_body(_RAW))
def drop_photo(
    content: Annotated[bytes, Depends(_raw)],
    here: Here,
    name: Annotated[str, Query(max_length=255)] = "photo",
) -> FitJobs:
    """Keep a photo of a good part for the next fit: the body, as raw bytes."""
    here.fits.drop(content, name=name)
    return here.fits


@router.delete("/fit/photos", response_model=FitOut)
def clear_photos(here: Here, asked: Who) -> FitJobs:
    """Forget the photos that were dropped."""
    with here.fits.unchanged(asked.expected):
        here.fits.clear()
    return here.fits


@router.post("/fit/cancel", response_model=FitOut)
def cancel_fit(here: Here, asked: Who) -> FitJobs:
    """Stop a fit, or throw away what came of it."""
    here.fits.cancel(asked.expected)
    return here.fits


@router.post("/fit/service")
def put_fit_into_service(
    here: Here, asked: Who, response: Response, given: FitServiceIn | None = None
) -> VersionOut:
    """Put the model that is ready into service, as the next version of its product."""
    force = given is not None and given.force
    with here.fits.unchanged(asked.expected):
        version = here.fits.put_into_service(force=force, by=asked.by)
    return _served(here.station, version, response)


# --- The service itself --------------------------------------------------------------------------


@router.get("/health", responses={503: {"model": HealthOut}})
async def health(here: Here, response: Response) -> HealthOut:
    """Whether the next photo could be inspected and stored; answered within a second."""
    ready = here.station.readiness
    await asyncio.wait([asyncio.wrap_future(ready.look())], timeout=_HEALTH_SECONDS)
    reasons = here.station.unable
    response.status_code = 503 if reasons else 200
    return HealthOut(
        status="not ready" if reasons else "ok",
        version=reconpatch.__version__,
        waiting=here.station.waiting,
        reasons=reasons,
        error="; ".join(reasons) or None,
        lost=sorted(here.cameras.lost()),
    )


@router.get("/state")
async def state(here: Here) -> StateOut:
    """What a page shows instead of a verdict; from memory, whatever the disk is at."""
    station = here.station
    station.readiness.look()
    reasons = station.readiness.reasons
    return StateOut(
        outputs=here.outputs.names,
        failing=here.outputs.failing(),
        cameras=here.cameras.names,
        lost=here.cameras.lost(),
        paused=here.cameras.pauses(),
        now=datetime.now(UTC),
        ready=not reasons,
        reasons=reasons,
        warnings=station.readiness.warnings,
        default=station.default,
        stale_after=station.limits.stale_after,
        products=station.state(),
    )


@router.get("/orphans")
async def orphans(here: Here) -> OrphansOut:
    """Files in the data folder that the records did not know at start; nothing removes them."""
    found = here.station.orphans
    return OrphansOut(
        photos=found.photos,
        bytes=found.bytes,
        foreign=found.foreign,
        fits=found.fits,
        sentence=found.sentence,
    )


@router.get("/metrics", response_class=Response, responses=_file("text/plain"))
def show_metrics(here: Here) -> Response:
    """Figures for Prometheus."""
    content, media_type = here.metrics.text()
    return Response(content, media_type=media_type)
