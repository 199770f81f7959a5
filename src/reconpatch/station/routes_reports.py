"""The routes of reports: records with photos, overlays and table as one file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from reconpatch.errors import SettingsError
from reconpatch.station.guard import API
from reconpatch.station.record_zip import RecordZips, Which
from reconpatch.station.records import Record
from reconpatch.station.routes import PROBLEMS, Found, Here
from reconpatch.station.schemas import RecordFilter

MOST_ZIPPED = 20_000
"""Records of one ZIP file."""

_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}
}

router = APIRouter(prefix=f"{API}/records", responses=PROBLEMS)


async def _zips(request: Request) -> RecordZips:
    zips: RecordZips = request.app.state.zips
    return zips


Zips = Annotated[RecordZips, Depends(_zips)]


class ZipQuery(RecordFilter):
    """Which records are asked for, and what goes in of them."""

    photos: Which = "all"
    overlays: Which = "anomalous"


def _answer(
    name: str, zips: RecordZips, records: Iterable[Record], **what: Any
) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    content = zips.chunks(records, **what)
    return StreamingResponse(content, media_type="application/zip", headers=headers)


@router.get(".zip", response_class=StreamingResponse, responses=_ZIP)
def records_zip(query: Annotated[ZipQuery, Query()], here: Here, zips: Zips) -> StreamingResponse:
    """Records with their photos, overlays of the anomalous ones, and CSV; 20,000 at most."""
    wanted = query.wanted()
    ids = here.station.records.values(wanted, ("id",), limit=MOST_ZIPPED + 1)
    if len(ids) > MOST_ZIPPED:
        raise SettingsError(
            f"more than {MOST_ZIPPED:,} records fit, which one ZIP file does not take: give a "
            "shorter time, or one product, lot or verdict"
        )
    told = query.model_dump(mode="json", exclude_none=True)
    found = here.station.records.export(wanted)
    return _answer(
        "records.zip", zips, found, photos=query.photos, overlays=query.overlays, told=told
    )


@router.get("/{record}/zip", response_class=StreamingResponse, responses=_ZIP)
def record_zip(record: Found, zips: Zips) -> StreamingResponse:
    """One record with its photo, its overlay, and CSV."""
    return _answer(
        f"record-{record.id}.zip", zips, [record], overlays="all", told={"record": record.id}
    )
