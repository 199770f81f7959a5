"""The routes of shift numbers: what a time came to, and what is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from reconpatch.station.guard import API
from reconpatch.station.log import known_product
from reconpatch.station.routes import PROBLEMS, Here, Lot, Service
from reconpatch.station.schemas import Time
from reconpatch.station.shift_details import Places, Segment, places, trend
from reconpatch.station.shift_numbers import By, Numbers, numbers
from reconpatch.station.shifts import Shift, Shifts

_SHOWN = timedelta(days=8)

router = APIRouter(prefix=f"{API}/shifts", responses=PROBLEMS)


async def _shifts(request: Request) -> Shifts:
    shifts: Shifts = request.app.state.shifts
    return shifts


Plant = Annotated[Shifts, Depends(_shifts)]
Since = Annotated[Time, Query(description="From this quarter of an hour on; with a zone.")]
Until = Annotated[Time, Query(description="To the one before this time; with a zone.")]
ThatProduct = Annotated[
    str | None, Query(max_length=64, description="Name of a product; without it, all.")
]


def _known(
    here: Here, product: Annotated[str, Query(max_length=64, description="Name of a product.")]
) -> str:
    known_product(product, here.station.records.products())
    return product


Known = Annotated[str, Depends(_known)]


class ShiftsOut(BaseModel):
    """The shifts of the plant."""

    zone: str = Field(description="The plant's time zone.")
    names: list[str] = Field(description="Of the shifts, in the order of the day.")
    today: date = Field(description="The day of the shift at work.")
    shifts: list[Shift] = Field(description="Of the last days, the one at work first.")


@dataclass(frozen=True)
class NumbersOfProduct(Numbers):
    """Numbers, see there, and what the product promises.

    Attributes:
        promised: false-alarm rate that the version in service promises; None: none is.
    """

    promised: float | None


class NumbersOut(BaseModel):
    """What a time came to."""

    rows: list[NumbersOfProduct]


class TrendOut(BaseModel):
    """Mean scores of photos that passed."""

    segments: list[Segment]


@router.get("")
def shifts(plant: Plant) -> ShiftsOut:
    """The shifts of the plant, and those of the last days."""
    now = datetime.now(UTC)
    found = plant.between(now - _SHOWN, now + timedelta(microseconds=1))[::-1]
    return ShiftsOut(zone=plant.zone, names=plant.names, today=found[0].day, shifts=found)


@router.get("/numbers")
def shift_numbers(
    here: Here,
    plant: Plant,
    since: Since,
    until: Until,
    by: Annotated[By, Query(description="What there is a row for, of each product.")] = "shift",
    product: ThatProduct = None,
    lot: Lot = None,
) -> NumbersOut:
    """What a time came to by product, shift, day or lot; the newest first."""
    found = numbers(here.station.records, plant, by, since, until, product=product, lot=lot)
    return NumbersOut(
        rows=[NumbersOfProduct(**vars(one), promised=_promised(here, one.product)) for one in found]
    )


def _promised(here: Service, product: str) -> float | None:
    served = here.station.products.get(product)
    if served is None:
        return None
    return served.inspector.calibration.image_threshold.stated_rate


@router.get("/trend")
def score_trend(
    here: Here, product: Known, since: Since, until: Until, lot: Lot = None
) -> TrendOut:
    """Mean scores of photos that passed, with control limits."""
    return TrendOut(segments=trend(here.station.records, product, since, until, lot=lot))


@router.get("/places")
def defect_places(
    here: Here, product: Known, since: Since, until: Until, lot: Lot = None
) -> Places:
    """Where on the part the defects are, and of which kinds; of the newest 1,000."""
    return places(here.station.records, product, since, until, lot=lot)
