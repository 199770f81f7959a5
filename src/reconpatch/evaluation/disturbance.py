"""Photos turned, shifted, jittered and blurred at random, masks with them (the paper's Table 4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from reconpatch.errors import PhotoError, SettingsError
from reconpatch.photos.images import Photo

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Robustness:
    """How far photos are disturbed (the paper's Table 4); the amounts are not said there.

    Attributes:
        rotation: largest angle either way, in degrees, 0 to 180.
        shift: largest shift either way, as a share of width and height, 0 to 1.
        brightness: largest deviation of the factor from 1, below 1.
        contrast: the same, about the mean of the photo.
        blur: largest standard deviation of the Gaussian blur, in pixels of the photo.
    """

    rotation: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        largest = {"rotation": 180, "shift": 1, "brightness": 0.99, "contrast": 0.99, "blur": 100}
        for name, most in largest.items():
            if not 0 <= getattr(self, name) <= most:
                raise SettingsError(f"{name} is {getattr(self, name)}: give 0 to {most}")


@dataclass(frozen=True)
class Disturbance:
    """What is done to one photo: turned by `angle` degrees, shifted by shares of its size, ...

    Attributes:
        angle: in degrees, clockwise.
        shift: shares of width and height, to the right and down.
        brightness, contrast: factors; the contrast's is about the mean of the photo.
        blur: standard deviation of the Gaussian blur, in pixels.
    """

    angle: float
    shift: tuple[float, float]
    brightness: float
    contrast: float
    blur: float

    @classmethod
    def draw(cls, amounts: Robustness, name: str) -> Self:
        """The disturbance of the photo of this name: the same in every run, method and seed."""
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        either_way = rng.uniform(-1, 1, 5).tolist()
        return cls(
            angle=amounts.rotation * either_way[0],
            shift=(amounts.shift * either_way[1], amounts.shift * either_way[2]),
            brightness=1 + amounts.brightness * either_way[3],
            contrast=1 + amounts.contrast * either_way[4],
            blur=amounts.blur * float(rng.uniform()),
        )

    def photo(self, photo: Photo) -> Photo:
        """The photo disturbed; what comes in at its edges is its mirror image.

        Raises:
            PhotoError: the photo is not of 8 bits.
        """
        if photo.pixels.dtype != np.uint8:
            raise PhotoError(
                f"{photo.name} is of type {photo.pixels.dtype}, and only photos of 8 bits are "
                "disturbed: give such photos, or a config without [robustness]"
            )
        moved = Image.fromarray(self._move(photo.pixels, Image.Resampling.BILINEAR))
        if self.blur:
            moved = moved.filter(ImageFilter.GaussianBlur(self.blur))
        levels = np.asarray(moved, np.float32)
        mean = levels.mean()
        levels = ((levels - mean) * self.contrast + mean) * self.brightness
        return Photo(photo.name, np.rint(levels).clip(0, 255).astype(np.uint8))

    def mask(self, mask: Masks) -> Masks:
        """The (H, W) bool mask, moved as its photo was."""
        moved: Masks = self._move(mask.astype(np.uint8), Image.Resampling.NEAREST) > 0
        return moved

    def _move(
        self, pixels: npt.NDArray[np.uint8], resampling: Image.Resampling
    ) -> npt.NDArray[np.uint8]:
        height, width = pixels.shape[:2]
        # A rotation about the centre moves a corner furthest: by 2 sin(angle / 2) of its distance.
        turn = np.hypot(height, width) * abs(np.sin(np.radians(self.angle) / 2))
        dx, dy = self.shift[0] * width, self.shift[1] * height
        margin = int(np.ceil(turn + np.hypot(dx, dy))) + 1
        around = [(margin, margin)] * 2 + [(0, 0)] * (pixels.ndim - 2)
        padded = Image.fromarray(np.pad(pixels, around, mode="symmetric"))
        # From a pixel of the result back to the photo: R (x - centre - shift) + centre + margin.
        cos, sin = np.cos(np.radians(self.angle)), np.sin(np.radians(self.angle))
        x, y = width / 2 + dx, height / 2 + dy
        back = (
            cos, sin, width / 2 + margin - cos * x - sin * y,
            -sin, cos, height / 2 + margin + sin * x - cos * y,
        )  # fmt: skip
        return np.asarray(
            padded.transform((width, height), Image.Transform.AFFINE, back, resample=resampling)
        )
