"""The routes of cameras."""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as InPath
from PIL import Image
from pydantic import BaseModel

from reconpatch.errors import NotFoundError
from reconpatch.photos.images import Photo
from reconpatch.station.cameras.camera import CameraState
from reconpatch.station.cameras.live import png
from reconpatch.station.cameras.source import Frame
from reconpatch.station.guard import API
from reconpatch.station.records import Record
from reconpatch.station.routes import PICTURE, PROBLEMS, Here, Kind, Serial, Service, Size, Who

Name = Annotated[str, InPath(max_length=40, description="Name of a camera.")]

router = APIRouter(prefix=f"{API}/cameras", responses=PROBLEMS)

# Of 16-bit frames, where no model says what is white.
_WHITE = 65_535
_JPEG_QUALITY = 85


class CamerasOut(BaseModel):
    """All cameras."""

    cameras: list[CameraState]


@router.get("")
def cameras(here: Here) -> CamerasOut:
    """How each camera is, and how its photos went."""
    return CamerasOut(cameras=here.cameras.states())


@router.post("/{name}/trigger")
def trigger(
    name: Name,
    here: Here,
    serial: Serial = None,
) -> Record:
    """Take a photo and inspect it; the answer comes once the verdict is on the disk."""
    return here.cameras.get(name).shoot(serial or "").result()


@router.get("/{name}/frame", response_class=Response, responses=PICTURE)
def frame(name: Name, here: Here, size: Size = None, kind: Kind = "jpeg") -> Response:
    """A frame of now, which is not inspected; of a lost camera its last one.

    As a PNG it is the photo that would be inspected, whole.
    """
    camera = here.cameras.get(name)
    if kind == "png":
        content = png(camera.picture())
    else:
        content = _shown(camera.picture(), _white_level(here, camera.state().product), size)
    headers = {"Cache-Control": "no-store"}
    return Response(content, media_type=f"image/{kind}", headers=headers)


@router.post("/{name}/pause")
def pause(name: Name, here: Here, asked: Who) -> CameraState:
    """Take no photos until it is to go on; the camera is still read."""
    return here.cameras.pause(name, asked.by)


@router.post("/{name}/resume")
def resume(name: Name, here: Here, asked: Who) -> CameraState:
    """Take photos again."""
    return here.cameras.resume(name, asked.by)


def _white_level(here: Service, product: str | None) -> int:
    try:
        return here.station.product(product).inspector.white_level
    except NotFoundError:
        return _WHITE


def _shown(pixels: Frame, white_level: int, size: int | None) -> bytes:
    """A JPEG for a browser, its longer side of so many pixels at most."""
    image = Image.fromarray(Photo("frame", pixels).rgb8(white_level))
    if size is not None:
        image.thumbnail((size, size))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()
