"""Pictures of a record: the photo, its overlay, its heat map, and the closest good patch.

They are drawn when they are asked for, by inspecting the stored photo with the version that judged
it; thresholds and regions are those of the record. The last few maps stay in memory.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.errors import NotFoundError
from reconpatch.overlay import SATURATED_AT, colourise, outline, overlay
from reconpatch.stored_picture import stored_picture

if TYPE_CHECKING:
    from reconpatch.images import Photo
    from reconpatch.model import Inspector
    from reconpatch.records import Closest, Record
    from reconpatch.station import Station

Format = Literal["jpeg", "png"]
Scale = Literal["colour", "grey"]

# Pixels of all maps that stay in memory together: 80 MB.
_KEPT_PIXELS = 20_000_000
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Picture:
    """An image file and its media type."""

    content: bytes
    media_type: str


class Pictures:
    """Draws pictures of a station's records, one at a time so that inspections go on."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._drawing = threading.Lock()
        self._maps: OrderedDict[tuple[str, str, int], npt.NDArray[np.float32]] = OrderedDict()

    def photo(self, record: Record, size: int | None = None, kind: Format = "jpeg") -> Picture:
        """The photo as a browser shows it: upright, 8 bits.

        Args:
            record: of the photo.
            size: the longer side in pixels, for a smaller picture; None leaves it.
            kind: format of the file.

        Raises:
            NotFoundError: the photo is no longer stored.
        """
        with self._drawing:
            return _encoded(_smaller(Image.fromarray(self._rgb(record)[0]), size), kind)

    def overlay(self, record: Record, size: int | None = None, kind: Format = "jpeg") -> Picture:
        """The photo under the colours of its map, its regions framed; see `photo`."""
        with self._drawing:
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
        with self._drawing:
            heatmap = self._map(record, self._station.photo(record))
        if scale == "colour":
            drawn = Image.fromarray(colourise(heatmap, record.map_threshold))
            return _encoded(_smaller(drawn, size), "png")
        unit = max(record.map_threshold, float(np.finfo(np.float32).tiny)) * SATURATED_AT
        grey = np.clip(np.nan_to_num(heatmap) / unit, 0, 1) * 65535
        picture = Image.fromarray(np.rint(grey).astype(np.uint16))
        return _encoded(_smaller(picture, size), "png")

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

    def _map(self, record: Record, photo: Photo) -> npt.NDArray[np.float32]:
        """The anomaly map of a record's photo, drawn again unless it is still in memory."""
        key = (record.photo, record.product, record.version)
        found = self._maps.pop(key, None)
        if found is None:
            found = self._station.judge_of(record).inspect(photo).heatmap
        self._maps[key] = found
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
