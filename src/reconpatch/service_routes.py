"""The routes of the service, all under /api/v1.

Each asks the station for one thing and gives what comes of it, in the shape that
`service_models.py` says. No value of a request becomes a path: products are looked up by name,
photos by their record.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

import reconpatch
from reconpatch.errors import BusyError, PhotoError
from reconpatch.fit_jobs import FitJobs
from reconpatch.pictures import Picture, Pictures
from reconpatch.records import COLUMNS, Page, Record, Version, as_rows
from reconpatch.service_guard import API
from reconpatch.service_metrics import Metrics
from reconpatch.service_models import (
    BatchItem,
    BatchOut,
    DriftOut,
    FeedbackIn,
    FitIn,
    FitOut,
    FitServiceIn,
    HealthOut,
    Number,
    Problem,
    ProductOut,
    ProductsOut,
    Rate,
    RecordFilter,
    RecordId,
    RecordQuery,
    RescoredItem,
    RescoredOut,
    RollbackIn,
    Score,
    ScoresOut,
    ThresholdIn,
    UpdateOut,
    VersionDetail,
    VersionOut,
    VersionsOut,
)
from reconpatch.station import NamedBytes, Preview, Station

MAX_FILES = 64
"""Photos of one batch."""

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
_PICTURE = _file("image/png", "image/jpeg")

router = APIRouter(
    prefix=API,
    responses={status: {"model": Problem, "description": said} for status, said in _SAID.items()},
)


class Service:
    """What the routes work with; one for each app.

    Args:
        station: what inspects and keeps.
        fits: where the page's fits are done.
        max_bytes: larger files of photos are refused.
    """

    def __init__(self, station: Station, fits: FitJobs, max_bytes: int) -> None:
        self.station, self.fits = station, fits
        self.metrics = Metrics(station)
        self.pictures = Pictures(station)
        self._max_bytes = max_bytes
        self._open = 0

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

    def counted(self, record: Record) -> Record:
        """The same record, counted for `metrics`."""
        self.metrics.count_verdict(record)
        return record


# --- What routes are given -----------------------------------------------------------------------


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(_service)]
Product = Annotated[str, InPath(max_length=64, description="Name of a product.")]
ProductName = Annotated[
    str | None, Query(max_length=64, description="Name of a product; not needed for a single one.")
]
VersionNumber = Annotated[Number, InPath()]
RecordNumber = Annotated[RecordId, InPath(description="Number of a record.")]
Size = Annotated[
    int | None, Query(ge=16, le=16_384, description="The picture's longer side in pixels, at most.")
]
Kind = Annotated[Literal["jpeg", "png"], Query(description="Format of the picture.")]


async def _known(product: Product, here: Here) -> str:
    return here.station.product(product).version.product


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
Found = Annotated[Record, Depends(_found)]
"""The record of a number."""


# --- Inspect -------------------------------------------------------------------------------------


@router.post("/inspect", openapi_extra=_ONE_PHOTO)
async def inspect(
    request: Request,
    here: Here,
    product: ProductName = None,
    name: Annotated[str | None, Query(max_length=255, description="For raw bytes.")] = None,
) -> Record:
    """Inspect a photo: the file `file` of a form, or the body itself.

    The answer comes once the verdict is on the disk.
    """
    here.station.product(product)  # before megabytes are read
    with here.admitted(), here.metrics.timed():
        async with _files(request, "file", most=1) as files:
            if files is None:
                content, name = await request.body(), name or "photo"
            else:
                [file] = files
                content, name = await here.content(file), _name_of(file)
        answer = here.station.submit(content, name=name, product=product)
        return here.counted(await asyncio.wrap_future(answer))


@router.post(
    "/inspect-batch", openapi_extra=_body(_form("files", _PHOTOS, required=True), required=True)
)
async def inspect_batch(request: Request, here: Here, product: ProductName = None) -> BatchOut:
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
                items += await asyncio.gather(*(_item(here, file, product) for file in some))
            return BatchOut(items=items)


async def _item(here: Service, file: UploadFile, product: str | None) -> BatchItem:
    name = _name_of(file)
    try:
        record = await _inspected(here, await here.content(file), name, product)
    except PhotoError as error:
        return BatchItem(name=name, error=str(error))
    except HTTPException as error:
        return BatchItem(name=name, error=str(error.detail))
    return BatchItem(name=name, record=record)


async def _inspected(here: Service, content: bytes, name: str, product: str | None) -> Record:
    """The record of a photo of a batch that has begun, and so is finished, when there is room."""
    while True:
        try:
            answer = here.station.submit(content, name=name, product=product)
        except BusyError:
            await asyncio.sleep(0.05)
        else:
            return here.counted(await asyncio.wrap_future(answer))


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
    rows = as_rows(here.station.records.export(query.wanted()))
    headers = {"Content-Disposition": 'attachment; filename="records.csv"'}
    return StreamingResponse(_csv(rows), media_type="text/csv", headers=headers)


def _csv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lines of a CSV file, some at a time."""
    out = io.StringIO()
    out.write(
        "\ufeff"
    )  # a byte order mark, or Excel takes the letters of other scripts for its own
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


@router.get("/records/{record}")
def record(record: Found) -> Record:
    """One record."""
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


@router.get("/records/{record}/picture", response_class=Response, responses=_PICTURE)
def picture(record: Found, here: Here, size: Size = None, kind: Kind = "jpeg") -> Response:
    """The photo as a browser shows it: upright, 8 bits."""
    return _drawn(here.pictures.photo(record, size, kind))


@router.get("/records/{record}/overlay", response_class=Response, responses=_PICTURE)
def overlay(record: Found, here: Here, size: Size = None, kind: Kind = "jpeg") -> Response:
    """The photo under its heat map, regions framed; one scale of colours for all photos."""
    return _drawn(here.pictures.overlay(record, size, kind))


@router.get("/records/{record}/heatmap", response_class=Response, responses=_PICTURE)
def heatmap(
    record: Found,
    here: Here,
    size: Size = None,
    scale: Annotated[
        Literal["colour", "grey"],
        Query(description="colour: RGBA; grey: 16 bits, 65535 is twice the map's threshold."),
    ] = "colour",
) -> Response:
    """The heat map alone as PNG, to be laid over the picture."""
    return _drawn(here.pictures.heatmap(record, size, scale))


@router.get("/records/{record}/closest", response_class=Response, responses=_PICTURE)
def closest(record: Found, here: Here) -> Response:
    """The good photo that the worst patch was compared with, the closest patch framed."""
    return _drawn(here.pictures.closest(record))


def _drawn(picture: Picture) -> Response:
    return Response(picture.content, media_type=picture.media_type)


@router.post("/records/{record}/feedback")
def feedback(record: RecordNumber, said: FeedbackIn, here: Here) -> Record:
    """Say what the part was."""
    return here.station.records.feedback(record, said.feedback)


# --- Products ------------------------------------------------------------------------------------


@router.get("/products")
def products(here: Here) -> ProductsOut:
    """All products and what is in service."""
    return ProductsOut(products=[_product(here.station, name) for name in here.station.products])


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


@router.get("/products/{product}/drift")
def drift(product: Product, here: Here) -> DriftOut:
    """Whether scores still look like those of the calibration."""
    drift = here.station.drift(product)
    seen = drift.monitor
    last = drift.last_alarm.message if drift.last_alarm else None
    return DriftOut(photos=seen.photos, alarms=seen.alarms, level=seen.level, last=last)


@router.get("/products/{product}/threshold")
def preview(
    product: Product,
    here: Here,
    score: Annotated[Score | None, Query()] = None,
    false_alarm_rate: Annotated[Rate | None, Query()] = None,
) -> Preview:
    """What another threshold would do; without one, what the present one does."""
    return here.station.preview(product, score=score, rate=false_alarm_rate)


@router.put("/products/{product}/threshold")
def set_threshold(product: Product, given: ThresholdIn, here: Here) -> VersionOut:
    """Put a version with another threshold into service."""
    version = here.station.set_threshold(product, score=given.score, rate=given.false_alarm_rate)
    return _told(here.station, version)[0]


@router.get("/products/{product}/versions")
def versions(product: Known, here: Here) -> VersionsOut:
    """All versions of a product, oldest first."""
    found = here.station.records.versions(product)
    return VersionsOut(versions=_told(here.station, *found))


@router.get("/products/{product}/versions/{number}")
def version(product: Known, number: VersionNumber, here: Here) -> VersionDetail:
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
    now = station.product(product).version.number
    return [
        VersionOut(
            **asdict(version),
            in_service=version.number == now,
            in_service_since=since.get(version.number),
        )
        for version in versions
    ]


@router.get("/products/{product}/versions/{number}/rescored")
def rescored(
    product: Known,
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


@router.post("/products/{product}/rollback")
def roll_back(product: Product, here: Here, given: RollbackIn | None = None) -> VersionOut:
    """Put an older version back into service."""
    number = given.number if given is not None else None
    return _told(here.station, here.station.roll_back(product, number))[0]


@router.post(
    "/products/{product}/update",
    openapi_extra=_body(_form("good", _PHOTOS, required=False), required=False),
)
def update(
    product: Known,
    good: Annotated[list[NamedBytes], Depends(_good)],
    here: Here,
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
    version, comparison = here.station.update(product, good, force=force)
    return UpdateOut(version=_told(here.station, version)[0], comparison=comparison.to_dict())


# --- Fits ----------------------------------------------------------------------------------------


@router.get("/fit", response_model=FitOut)
def fit_state(here: Here) -> FitJobs:
    """What fits can learn from, and the fit at work or the last one."""
    return here.fits


@router.post("/fit", response_model=FitOut)
def start_fit(given: FitIn, here: Here) -> FitJobs:
    """Begin a fit; there is one at a time."""
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
def clear_photos(here: Here) -> FitJobs:
    """Forget the photos that were dropped."""
    here.fits.clear()
    return here.fits


@router.post("/fit/cancel", response_model=FitOut)
def cancel_fit(here: Here) -> FitJobs:
    """Stop a fit, or throw away what came of it."""
    here.fits.cancel()
    return here.fits


@router.post("/fit/service")
def put_fit_into_service(here: Here, given: FitServiceIn | None = None) -> VersionOut:
    """Put the model that is ready into service, as the next version of its product."""
    version = here.fits.put_into_service(force=given is not None and given.force)
    return _told(here.station, version)[0]


# --- The service itself --------------------------------------------------------------------------


@router.get("/health")
def health(here: Here) -> HealthOut:
    """Whether the service and its database answer."""
    here.station.records.check()
    return HealthOut(status="ok", version=reconpatch.__version__, waiting=here.station.waiting)


@router.get("/metrics", response_class=Response, responses=_file("text/plain"))
def show_metrics(here: Here) -> Response:
    """Figures for Prometheus."""
    content, media_type = here.metrics.text()
    return Response(content, media_type=media_type)
