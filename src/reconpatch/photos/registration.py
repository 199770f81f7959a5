"""Registration: shifted or turned parts brought to where the first good photo has its part.

    photo ── rotation and shift to the reference (ECC) ── registered photo ── model
      ^                                                                        │
      └──────────── heat map, regions and boxes in its own pixels ─────────────┘

A part that lies elsewhere in each photo looks different at every place; registered, the model sees
it as the fit did. The motion is found on small grey pictures by OpenCV: the best of a few rotations
with the shift of a phase correlation each, refined by maximising the enhanced correlation
coefficient (Evangelidis and Psarakis, TPAMI 2008).
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.errors import MissingExtraError, PhotoError
from reconpatch.photos.images import Photo
from reconpatch.photos.regions import find_regions
from reconpatch.photos.stored_picture import stored_picture
from reconpatch.result import Box, Result

if TYPE_CHECKING:
    Floats = npt.NDArray[np.float32]
    Motion = npt.NDArray[np.float64]

_SIDE = 256  # longest side of the pictures that motion is found on, in pixels
_ANGLES = (0.0, -3.0, 3.0, -6.0, 6.0, -9.0, 9.0, -12.0, 12.0)  # degrees to begin with
_STEPS, _PRECISION = 100, 1e-5  # of the refinement
_SMOOTHING = 5  # side of the Gaussian that the refinement blurs with, in pixels


@dataclass(frozen=True)
class Registration:
    """What photos are registered to.

    Attributes:
        height, width: of the reference and of all photos, in pixels.
        png: the reference as a small grey PNG.
    """

    height: int
    width: int
    png: bytes

    @classmethod
    def to(cls, photo: Photo) -> Self:
        """Registration to a photo.

        Raises:
            MissingExtraError: OpenCV is not installed.
        """
        buffer = io.BytesIO()
        Image.fromarray(np.rint(_small(photo) * 255).astype(np.uint8)).save(buffer, "PNG")
        return cls(photo.height, photo.width, buffer.getvalue())

    def __call__(self, photo: Photo) -> RegisteredPhoto:
        """The photo with its part where the reference has it; beyond its edges they go on.

        Raises:
            PhotoError: the photo is of another size than the reference.
            MissingExtraError: OpenCV is not installed.
        """
        if isinstance(photo, RegisteredPhoto):
            return photo
        if (photo.height, photo.width) != (self.height, self.width):
            raise PhotoError(
                f"{photo.name}: {photo.width} x {photo.height} pixels, and this model registers "
                f"photos of {self.width} x {self.height}: give photos of that size"
            )
        motion = _at_full_size(_motion(self._reference, _small(photo)), _factor(photo))
        cv2 = _opencv()
        pixels = cv2.warpAffine(
            photo.pixels, motion, (self.width, self.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        pixels.flags.writeable = False
        return RegisteredPhoto(photo.name, pixels, photo, motion)

    @cached_property
    def _reference(self) -> Floats:
        grey = np.asarray(stored_picture(self.png, "PNG"))[:, :, 0]  # its channels are equal
        return grey.astype(np.float32) / np.float32(255)

    def to_dict(self) -> dict[str, Any]:
        """The reference as JSON-ready values."""
        png = base64.b64encode(self.png).decode()
        return {"height": self.height, "width": self.width, "png": png}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The registration that `to_dict` gave.

        Raises:
            ModelFileError: its picture cannot be read.
            ValueError: it is too large.
        """
        found = cls(int(values["height"]), int(values["width"]), base64.b64decode(values["png"]))
        if max(found._reference.shape) > _SIDE:
            raise ValueError("its reference for registration is too large")
        return found


@dataclass(frozen=True, eq=False)
class RegisteredPhoto(Photo):
    """A photo in the frame of the reference.

    Attributes:
        original: as it was taken.
        motion: (2, 3), from a pixel (x, y, 1) of this one to that of the original.
    """

    original: Photo
    motion: Motion

    @cached_property
    def sha256(self) -> str:
        """That of the original, by which a photo of the fit is known."""
        return self.original.sha256

    def brought(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """An (H, W) mask of the original in the frame of the reference, of that frame's size."""
        moved = _opencv().warpAffine(
            mask.astype(np.uint8) * 255, self.motion, (self.width, self.height),
            flags=_opencv().INTER_LINEAR | _opencv().WARP_INVERSE_MAP,
        )  # fmt: skip
        found: npt.NDArray[np.bool_] = moved > 127
        return found

    def on_original(self, result: Result) -> Result:
        """A result in the pixels of the original; what lay beyond the frame was not inspected."""
        cv2 = _opencv()
        height, width = self.original.height, self.original.width
        heatmap = cv2.warpAffine(
            result.heatmap, self.motion, (width, height),
            flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan"),
        )  # fmt: skip
        regions = (
            find_regions(heatmap, result.map_threshold, at_least_one=True)
            if result.anomalous
            else ()
        )
        closest = replace(result.closest, patch_box=self._box(result.closest.patch_box))
        return replace(result, heatmap=heatmap, regions=regions, closest=closest)

    def _box(self, box: Box) -> Box:
        """The upright box around a box of this photo, in pixels of the original."""
        x0, y0, x1, y1 = box
        corners = np.array([[x, y, 1] for x in (x0, x1) for y in (y0, y1)], np.float64)
        moved = corners @ self.motion.T
        low, high = np.floor(moved.min(axis=0)), np.ceil(moved.max(axis=0))
        most = np.array([self.original.width, self.original.height])
        left, top = np.clip(low, 0, most - 1).astype(int).tolist()
        right, bottom = np.clip(high, (left + 1, top + 1), most).astype(int).tolist()
        return left, top, right, bottom


def _motion(reference: Floats, picture: Floats) -> Motion:
    """(2, 3) from a pixel of the small reference to that of a small picture: rotation and shift."""
    cv2 = _opencv()
    starts = [_rotated_and_shifted(reference, picture, angle) for angle in _ANGLES]
    starts.insert(0, np.eye(2, 3))
    start = max(starts, key=lambda motion: _likeness(reference, picture, motion))
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, _PRECISION)
    try:
        _, refined = cv2.findTransformECC(
            reference, picture, start.astype(np.float32), cv2.MOTION_EUCLIDEAN, stop, None,
            _SMOOTHING,
        )  # fmt: skip
    except cv2.error:  # nothing in common, or nothing to see: as it is
        return start
    refined = refined.astype(np.float64)
    return max((refined, start), key=lambda motion: _likeness(reference, picture, motion))


def _rotated_and_shifted(reference: Floats, picture: Floats, degrees: float) -> Motion:
    """The motion of a rotation about the middle, with the shift that then fits best."""
    cv2 = _opencv()
    height, width = reference.shape
    motion = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned = _warped(picture, motion)
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    # Copies: where no padding is needed, OpenCV multiplies its arguments by the window in place.
    (dx, dy), _ = cv2.phaseCorrelate(reference.copy(), turned, window)
    # A pixel of the reference is found that much further in the turned picture.
    motion[:, 2] += motion[:, :2] @ (dx, dy)
    return np.asarray(motion, np.float64)


def _warped(picture: Floats, motion: Motion) -> Floats:
    cv2 = _opencv()
    height, width = picture.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped: Floats = cv2.warpAffine(
        picture, motion, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return warped


def _likeness(reference: Floats, picture: Floats, motion: Motion) -> float:
    """Correlation of the reference with the picture moved onto it, -1 to 1; 0 of flat ones."""
    a, b = reference - reference.mean(), _warped(picture, motion)
    b = b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def _small(photo: Photo) -> Floats:
    """A photo as a small grey picture, float32 in 0 to 1 from its darkest to its brightest."""
    cv2 = _opencv()
    k = _factor(photo)
    rows, columns = photo.height // k, photo.width // k
    pixels = photo.pixels[: rows * k, : columns * k]
    small = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small if small.ndim == 2 else small.mean(axis=2)
    span = float(np.ptp(grey))
    return np.asarray((grey - grey.min()) / (span or 1.0), np.float32)


def _factor(photo: Photo) -> int:
    """By how much a photo is shrunk to find its motion."""
    return -(-max(photo.height, photo.width) // _SIDE)


def _at_full_size(motion: Motion, factor: int) -> Motion:
    """A motion between shrunk pictures as one between the pictures themselves.

    Pixel i of a shrunk picture has its centre at factor * (i + 1/2) - 1/2 of the picture.
    """
    turn, shift = motion[:, :2], motion[:, 2]
    half = np.full(2, 0.5)
    full = turn @ half + factor * (shift + half - turn @ half) - half
    return np.column_stack([turn, full])


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("registration", "register") from error
    return cv2
