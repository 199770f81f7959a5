"""Small pictures that a model file carries, thumbnails and samples, read within a bound.

A few bytes can say that they are a picture of any size, so the size is looked at before anything
is decoded.
"""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image

from reconpatch.errors import ModelFileError

Format = Literal["JPEG", "PNG"]

LONGEST_SIDE = 4096
"""Of a picture, in pixels; the largest input of a model, and far more than a thumbnail has."""


def stored_size(content: bytes, kind: Format = "JPEG") -> tuple[int, int]:
    """Width and height by the picture's header, in pixels.

    Raises:
        ModelFileError: it is no picture of this format, or too large.
    """
    return _opened(content, kind).size


def stored_picture(content: bytes, kind: Format = "JPEG") -> Image.Image:
    """The picture, decoded, RGB.

    Raises:
        ModelFileError: it is no picture of this format, or too large, or damaged.
    """
    image = _opened(content, kind)
    try:
        return image.convert("RGB")
    except Exception as error:  # decoders raise nearly anything
        raise _no_picture(kind) from error


def _opened(content: bytes, kind: Format) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=(kind,))
    except Exception as error:  # decoders raise nearly anything
        raise _no_picture(kind) from error
    if max(image.size) > LONGEST_SIDE:
        raise _no_picture(kind)
    return image


def _no_picture(kind: Format) -> ModelFileError:
    return ModelFileError(
        f"A picture in the model file is not a {kind} of at most {LONGEST_SIDE} x {LONGEST_SIDE} "
        "pixels that can be read: the file was not written by this package; fit the model again."
    )
