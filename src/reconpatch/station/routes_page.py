"""Routes for the page: how it is set up, and the serial number of the next part."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from reconpatch.station.guard import API
from reconpatch.station.page_settings import PageSettings, languages
from reconpatch.station.routes import PROBLEMS, Here, Product

router = APIRouter(prefix=API, responses=PROBLEMS)


class PageOut(PageSettings):
    """How the page is set up.

    Attributes:
        languages: those that there are, by code, as each calls itself.
    """

    languages: dict[str, str]


class NextPart(BaseModel):
    """The part whose photo comes next.

    Attributes:
        serial: number that was scanned; null: none.
    """

    model_config = ConfigDict(extra="forbid")

    serial: Annotated[str, Field(max_length=100)] | None


@router.get("/page")
def page(request: Request) -> PageOut:
    """How this station's page is set up, and the languages that it knows."""
    settings: PageSettings = request.app.state.page
    return PageOut(**settings.model_dump(), languages=languages())


@router.put("/products/{product}/next-part")
def next_part(product: Product, given: NextPart, here: Here) -> NextPart:
    """Bind a serial number to the next photo of a product that brings none itself."""
    named = here.station.product(product).version.product
    here.station.next_parts.bind(named, given.serial)
    return NextPart(serial=here.station.next_parts.of(named))
