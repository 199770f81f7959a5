"""Masks and regions of interest as files: white where something is, or a number for each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.errors import PhotoError
from reconpatch.photos.images import MAX_PIXELS, read_drawing


def read_white(path: Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.bool_]:
    """(H, W) bool: where the brightest channel of a picture is above half of white.

    Raises:
        PhotoError: it cannot be read, or is neither black nor has any white.
    """
    levels = read_drawing(path, max_pixels=max_pixels).rgb8(65535).max(axis=2)
    white: npt.NDArray[np.bool_] = levels > 127
    if levels.any() and not white.any():
        raise PhotoError(
            f"{path} holds values up to {levels.max()} of 255, and only those above 127 count: "
            "save the mask with 255 where the defect is and 0 elsewhere."
        )
    return white


def check_size(mask: npt.NDArray[Any], path: Path, photo: Path, size: tuple[int, int]) -> None:
    """Raise PhotoError unless a mask has its photo's (height, width)."""
    if mask.shape != size:
        raise PhotoError(
            f"{path} has {mask.shape[1]} x {mask.shape[0]} pixels and its photo {photo} has "
            f"{size[1]} x {size[0]}: give a mask of the photo's size."
        )


def read_numbers(path: Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[Any]:
    """(H, W) numbers as they are stored: indices of a palette, of colours the brightest channel.

    Colours of a palette are for looking at: a defect may be painted black.

    Raises:
        PhotoError: it cannot be read.
    """
    pixels = read_drawing(path, max_pixels=max_pixels, indices=True).pixels
    return pixels if pixels.ndim == 2 else pixels.max(axis=2)
