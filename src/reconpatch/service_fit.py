"""The routes of fits that the page starts; what they do is in `fit_jobs.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from reconpatch.fit_jobs import FitJobs
from reconpatch.records import Version
from reconpatch.service_guard import API
from reconpatch.service_models import FitIn, FitJobOut, FitOut, FitServiceIn, VersionOut

_ONE_PHOTO = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("application/octet-stream", "image/*")
        },
    }
}


def fit_router(
    fits: FitJobs,
    version_out: Callable[[Version], VersionOut],
    said: dict[int | str, dict[str, Any]],
) -> APIRouter:
    """All routes under /fit.

    Args:
        fits: of the station.
        version_out: a version as the service gives it.
        said: the answers to what goes wrong, for OpenAPI.
    """
    router = APIRouter(prefix=f"{API}/fit", responses=said)

    def now() -> FitOut:
        job = fits.job
        return FitOut.model_validate(
            {
                "unavailable": fits.unavailable,
                "folders": fits.folders(),
                "dropped": fits.dropped,
                "job": FitJobOut.model_validate(job) if job is not None else None,
            },
            from_attributes=True,
        )

    @router.get("")
    def fit_state() -> FitOut:
        """What fits can learn from, and the fit at work or the last one."""
        return now()

    @router.post("")
    def start_fit(given: FitIn) -> FitOut:
        """Begin a fit; there is one at a time."""
        fits.start(given.product, given.folder, given.quality)
        return now()

    @router.post("/photos", openapi_extra=_ONE_PHOTO)
    async def drop_photo(
        request: Request, name: Annotated[str, Query(max_length=255)] = "photo"
    ) -> FitOut:
        """Keep a photo of a good part for the next fit: the body, as raw bytes."""
        content = await request.body()
        await run_in_threadpool(fits.drop, content, name=name)
        return await run_in_threadpool(now)

    @router.delete("/photos")
    def clear_photos() -> FitOut:
        """Forget the photos that were dropped."""
        fits.clear()
        return now()

    @router.post("/cancel")
    def cancel_fit() -> FitOut:
        """Stop a fit, or throw away what came of it."""
        fits.cancel()
        return now()

    @router.post("/service")
    def put_fit_into_service(given: FitServiceIn | None = None) -> VersionOut:
        """Put the model that is ready into service, as the next version of its product."""
        version = fits.put_into_service(force=given is not None and given.force)
        return version_out(version)

    return router
