"""The route that tells the page how it is set up."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from reconpatch.station.guard import API
from reconpatch.station.page_settings import PageSettings, languages
from reconpatch.station.routes import PROBLEMS

router = APIRouter(prefix=API, responses=PROBLEMS)


class PageOut(BaseModel):
    """How the page is set up.

    Attributes:
        language: code of the language of this station; null: the browser's.
        languages: those that there are, by code, as each calls itself.
    """

    language: str | None
    languages: dict[str, str]


@router.get("/page")
def page(request: Request) -> PageOut:
    """The language of this station's page, and those that it knows."""
    settings: PageSettings = request.app.state.page
    return PageOut(**settings.model_dump(), languages=languages())
