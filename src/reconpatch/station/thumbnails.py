"""Small pictures of inspected photos, made once and kept beside them.

    thumbnails/3f/3f2c...jpg         of a photo of 8 bits, by the SHA-256 of its file
    thumbnails/3f/3f2c...-4095.jpg   of one of more bits, by the level that is shown as white

They are made at the inspection, when the photo is decoded anyway, unless more photos are coming.
"""

from __future__ import annotations

import contextlib
import io
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from reconpatch.errors import ReconPatchError
from reconpatch.files import atomic_write, make_folder
from reconpatch.photos.images import Photo

log = logging.getLogger("reconpatch.station")

SIDE = 320
"""The longer side of a kept picture, in pixels."""
# Photos that are not much larger are drawn as fast.
_WORTH = 2 * SIDE
# Photos that may wait to be made small; with more, they are made when they are first looked at.
_WAITING = 4
_QUALITY = 85


class Thumbnails:
    """The small pictures in a folder; safe to use from several threads.

    Args:
        folder: made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, "thumbnails")
        self._free = threading.BoundedSemaphore(_WAITING)

    def find(self, sha256: str, white_level: int | None = None) -> bytes | None:
        """The picture of a photo as JPEG, or None where it was not made.

        Args:
            sha256: of the photo's file.
            white_level: of the model, for a photo of more than 8 bits.
        """
        try:
            return self._path(sha256, white_level).read_bytes()
        except OSError:
            return None

    def make(self, photo: Photo, sha256: str, white_level: int) -> None:
        """Make and keep the picture of a photo, if it is large enough to be worth it."""
        if not is_worth(photo.width, photo.height):
            return
        path = self._path(sha256, None if photo.pixels.dtype == np.uint8 else white_level)
        if path.exists():
            return
        make_folder(path.parent)
        with atomic_write(path) as file:
            file.write(small(photo, white_level))

    def make_later(self, photos: Sequence[tuple[Photo, str]], white_level: int) -> None:
        """The same in the background, for as many as do not have to wait long."""
        for photo, sha256 in photos:
            if is_worth(photo.width, photo.height) and self._free.acquire(blocking=False):
                self._pool.submit(self._made, photo, sha256, white_level)

    def _made(self, photo: Photo, sha256: str, white_level: int) -> None:
        try:
            self.make(photo, sha256, white_level)
        except (ReconPatchError, OSError) as error:  # it is made when somebody looks at it
            log.info("a thumbnail could not be made: %s", error)
        finally:
            self._free.release()

    def remove(self, gone: Sequence[str]) -> None:
        """Remove the pictures of photos that were removed."""
        for sha256 in gone:
            folder = self._folder / sha256[:2]
            for path in (self._path(sha256, None), *folder.glob(f"{sha256}-*.jpg")):
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """Make no more."""
        self._pool.shutdown(cancel_futures=True)

    def _path(self, sha256: str, white_level: int | None) -> Path:
        level = "" if white_level is None else f"-{white_level}"
        return self._folder / sha256[:2] / f"{sha256}{level}.jpg"


def is_worth(width: int, height: int) -> bool:
    """Whether a photo is so large that a small picture of it is kept."""
    return max(width, height) > _WORTH


def small(photo: Photo, white_level: int) -> bytes:
    """A photo as a JPEG file whose longer side is `SIDE`."""
    # Rows and columns left out first: of a large photo, all that is copied is what is looked at.
    step = max(1, max(photo.width, photo.height) // (4 * SIDE))
    coarse = Photo(photo.name, photo.pixels[::step, ::step])
    image = Image.fromarray(coarse.rgb8(white_level))
    share = SIDE / max(image.size)
    if share < 1:
        shape = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(shape, Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
