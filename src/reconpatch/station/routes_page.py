"""The route that tells the page how it is set up."""

from __future__ import annotations

from fastapi import APIRouter, Request

from reconpatch.station.guard import API
from reconpatch.station.page_settings import PageSettings, languages
from reconpatch.station.routes import PROBLEMS

router = APIRouter(prefix=API, responses=PROBLEMS)


class PageOut(PageSettings):
    """How the page is set up.

    Attributes:
        languages: those that there are, by code, as each calls itself.
    """

    languages: dict[str, str]


@router.get("/page")
def page(request: Request) -> PageOut:
    """How this station's page is set up, and the languages that it knows."""
    settings: PageSettings = request.app.state.page
    return PageOut(**settings.model_dump(), languages=languages())
