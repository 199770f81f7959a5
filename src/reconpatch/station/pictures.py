"""Pictures of a record: the photo, its overlay, its heat map, and the closest good patch.

They are drawn when they are asked for, by inspecting the stored photo with the version that judged
it; thresholds and regions are those of the record. The last few maps stay in memory, and small
pictures of photos on the disk.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.errors import BusyError, NotFoundError, ReconPatchError
from reconpatch.photos.stored_picture import stored_picture
from reconpatch.report.overlay import SATURATED_AT, colourise, outline, overlay
from reconpatch.station.drawing import mask
from reconpatch.station.thumbnails import SIDE, is_worth, small

if TYPE_CHECKING:
    from reconpatch.model.model import Inspector
    from reconpatch.photos.images import Photo
    from reconpatch.station.records import Closest, Record
    from reconpatch.station.station import Station

Format = Literal["jpeg", "png"]
Scale = Literal["colour", "grey"]

# Pixels of all maps that stay in memory together: 80 MB.
_KEPT_PIXELS = 20_000_000
_JPEG_QUALITY = 90
# Pictures that are drawn at once, and seconds for which one waits for its turn.
_AT_ONCE = 2
_PATIENCE = 20.0


@dataclass(frozen=True)
class Picture:
    """An image file and its media type."""

    content: bytes
    media_type: str


class Pictures:
    """Draws pictures of a station's records, a few at a time so that inspections go on."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._keeping = threading.Lock()  # never held while anything is drawn
        self._maps: OrderedDict[tuple[str, str, int], npt.NDArray[np.float32]] = OrderedDict()

    @contextlib.contextmanager
    def _drawing(self, record: Record) -> Iterator[None]:
        """One of the places to draw, and the memory that it takes."""
        if not self._places.acquire(timeout=_PATIENCE):
            raise BusyError(_AT_ONCE, 2, "pictures are being drawn and take long: ask")
        try:
            with self._station.decoded(record, _PATIENCE):
                yield
        finally:
            self._places.release()

    def photo(self, record: Record, size: int | None = None, kind: Format = "jpeg") -> Picture:
        """The photo as a browser shows it: upright, 8 bits.

        Args:
            record: of the photo.
            size: the longer side in pixels, for a smaller picture; None leaves it.
            kind: format of the file.

        Raises:
            NotFoundError: the photo is no longer stored.
            BusyError: others are drawn, and it takes long.
        """
        if size is not None and size <= SIDE and is_worth(record.width, record.height):
            return self._thumbnail(record, size, kind)
        with self._drawing(record):
            return _encoded(_smaller(Image.fromarray(self._rgb(record)[0]), size), kind)

    def _thumbnail(self, record: Record, size: int, kind: Format) -> Picture:
        """A small picture from the one that is kept; made and kept where it is not."""
        kept = self._station.thumbnails
        found = kept.find(record.photo)
        if found is None:
            white = self._station.judge_of(record).white_level
            found = kept.find(record.photo, white)
        if found is None:
            with self._drawing(record):
                photo = self._station.photo(record)
                with contextlib.suppress(ReconPatchError, OSError):  # a full disk
                    kept.make(photo, record.photo, white)
                found = small(photo, white)
        if size == SIDE and kind == "jpeg":
            return Picture(found, "image/jpeg")
        with Image.open(io.BytesIO(found), formats=["JPEG"]) as image:
            return _encoded(_smaller(image.convert("RGB"), size), kind)

    def overlay(self, record: Record, size: int | None = None, kind: Format = "jpeg") -> Picture:
        """The photo under the colours of its map, its regions framed; see `photo`."""
        with self._drawing(record):
            rgb, photo = self._rgb(record)
            heatmap = self._map(record, photo)
            drawn = overlay(rgb, heatmap, record.map_threshold, record.regions)
            return _encoded(_smaller(drawn, size), kind)

    def heatmap(self, record: Record, size: int | None = None, scale: Scale = "colour") -> Picture:
        """The map alone as PNG, to be laid over the photo.

        Args:
            record: of the photo.
            size: see `photo`.
            scale: "colour" is RGBA, as `overlay.colourise` paints it; "grey" is 16 bits, 0 to
                twice the map's threshold on 0 to 65535, 0 where the photo was not inspected.
        """
        with self._drawing(record):
            heatmap = self._map(record, None)
            if scale == "colour":
                drawn = Image.fromarray(colourise(heatmap, record.map_threshold))
                return _encoded(_smaller(drawn, size), "png")
            unit = max(record.map_threshold, float(np.finfo(np.float32).tiny)) * SATURATED_AT
            grey = np.empty(heatmap.shape, np.uint16)
            for shown, row in zip(grey, heatmap, strict=True):  # not in floats all at once
                shown[:] = np.rint(np.clip(np.nan_to_num(row) / unit, 0, 1) * 65535)
            picture = Image.fromarray(grey)
            return _encoded(_smaller(picture, size), "png")

    def mask(self, record: Record) -> Picture:
        """Where an operator drew the defect, as PNG: white on black, of the photo's size.

        Raises:
            NotFoundError: nobody has drawn it.
        """
        if not record.feedback_place:
            raise NotFoundError(
                f"nobody has drawn a defect on record {record.id}: give feedback with a place first"
            )
        with self._drawing(record):
            drawn = mask(record.feedback_place, record.height, record.width)
            return _encoded(Image.fromarray(drawn), "png")

    def closest(self, record: Record) -> Picture:
        """The good photo that the worst patch was compared with, the closest patch framed.

        Raises:
            NotFoundError: the model holds no pictures of its good photos.
        """
        model = self._station.judge_of(record)
        box, thumbnail = record.closest.thumbnail_box, _thumbnail(model, record.closest)
        if box is None or not thumbnail:
            raise NotFoundError(
                f"the model of record {record.id} holds no picture of the good photo that it was "
                "compared with, or several of its name: fit with thumbnails, and inspect the photo "
                "again to see it"
            )
        drawn = stored_picture(thumbnail)
        outline(drawn, box, line=1)
        return _encoded(drawn, "jpeg")

    def _rgb(self, record: Record) -> tuple[npt.NDArray[np.uint8], Photo]:
        photo = self._station.photo(record)
        return photo.rgb8(self._station.judge_of(record).white_level), photo

    def _map(self, record: Record, photo: Photo | None) -> npt.NDArray[np.float32]:
        """The anomaly map of a record's photo, made again unless it is still in memory."""
        key = (record.photo, record.product, record.version)
        with self._keeping:
            found = self._maps.get(key)
        if found is None:
            photo = self._station.photo(record) if photo is None else photo
            found = self._station.judge_of(record).inspect(photo).heatmap
        with self._keeping:
            self._maps[key] = found
            self._maps.move_to_end(key)
            while len(self._maps) > 1 and sum(m.size for m in self._maps.values()) > _KEPT_PIXELS:
                self._maps.popitem(last=False)
        return found


def _thumbnail(model: Inspector, closest: Closest) -> bytes:
    """The picture of the good photo that a verdict was compared with; empty where there is none.

    Names repeat, in folders within folders and after an update: photos are known by their pixels.
    Old records have a name alone, which tells only where no other photo has it.
    """
    pairs = list(zip(model.photos, model.members[0].thumbnails, strict=False))
    if closest.sha256:
        same = [picture for good, picture in pairs if good.sha256 == closest.sha256 and picture]
        return same[0] if same else b""
    named = {good.sha256: picture for good, picture in pairs if good.name == closest.photo}
    return next(iter(named.values())) if len(named) == 1 else b""


def _smaller(image: Image.Image, size: int | None) -> Image.Image:
    """The image with its longer side no longer than a number of pixels."""
    if size is None or max(image.size) <= size:
        return image
    share = size / max(image.size)
    shape = (max(1, round(image.width * share)), max(1, round(image.height * share)))
    if image.mode == "I;16":  # Pillow has no filter for 16 bits
        return image.resize(shape, Image.Resampling.NEAREST)
    return image.resize(shape, Image.Resampling.BOX)


def _encoded(image: Image.Image, kind: Format) -> Picture:
    out = io.BytesIO()
    if kind == "jpeg":
        image.save(out, "JPEG", quality=_JPEG_QUALITY)
    else:
        image.save(out, "PNG", compress_level=1)
    return Picture(out.getvalue(), f"image/{kind}")
