"""The files that the server of MVTec AD 2 takes for the splits whose labels only it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.datasets import PRIVATE_SPLITS
from reconpatch.errors import OutputError
from reconpatch.files import atomic_write, make_folder

_FLOAT16_MAX = float(np.finfo(np.float16).max)


def submission_paths(folder: Path, category: str, split: str, photo: Path) -> tuple[Path, Path]:
    """Where the server of MVTec AD 2 expects the files of one photo.

    FOLDER/anomaly_images/CATEGORY/SPLIT/STEM.tiff and
    FOLDER/anomaly_images_thresholded/CATEGORY/SPLIT/STEM.png. The server takes the folder packed
    as .tar.gz, with both private splits of all eight categories and nothing else in it; the second
    tree may be left out as a whole, and then only figures without a threshold are worked out.

    Source: the checking script that the data set's authors publish with it.

    Returns:
        The path of the anomaly map and that of the thresholded map.

    Raises:
        OutputError: the split is not a private one.
    """
    if split not in PRIVATE_SPLITS:
        raise OutputError(
            f"{split!r} is not a split the server of MVTec AD 2 scores: "
            f"give one of {', '.join(PRIVATE_SPLITS)}."
        )
    place = Path(category, split)
    return (
        folder / "anomaly_images" / place / f"{photo.stem}.tiff",
        folder / "anomaly_images_thresholded" / place / f"{photo.stem}.png",
    )


def write_submission(
    folder: Path,
    category: str,
    split: str,
    photo: Path,
    anomaly_map: npt.NDArray[np.float32],
    threshold: float | None,
) -> list[Path]:
    """Write the files of one photo that the server of MVTec AD 2 takes; see submission_paths.

    The map is an uncompressed TIFF of one float16 channel, the thresholded map a PNG of one 8-bit
    channel, 255 where the map is above the threshold and 0 elsewhere. The threshold is applied
    before the map is rounded to float16, which keeps 11 significant bits.

    Args:
        folder: the folder to hand in; folders in it are made.
        category: the category's name.
        split: one of PRIVATE_SPLITS.
        photo: the photo.
        anomaly_map: (H, W) in pixels of the photo. NaN, where a model did not look, is written as
            the smallest value of the map: the server knows no such pixels.
        threshold: None writes no thresholded map.

    Returns:
        The files written.

    Raises:
        OutputError: the split is unknown, a file cannot be written, or the map holds values that
            float16 cannot, beyond ±65504.
    """
    map_path, thresholded_path = submission_paths(folder, category, split, photo)
    _write_image(_float16_image(anomaly_map, photo), map_path, "TIFF", tiffinfo=_FLOAT_SAMPLES)
    if threshold is None:
        return [map_path]
    above = np.where(anomaly_map > threshold, np.uint8(255), np.uint8(0))
    _write_image(Image.fromarray(above), thresholded_path, "PNG")
    return [map_path, thresholded_path]


# TIFF's SampleFormat: IEEE floating point.
_FLOAT_SAMPLES = {339: 3}


def _float16_image(anomaly_map: npt.NDArray[np.float32], photo: Path) -> Image.Image:
    """The bits of the map as float16; Pillow knows that type only as 16-bit integers."""
    seen = anomaly_map[~np.isnan(anomaly_map)]
    if seen.size == 0 or np.abs(seen).max() > _FLOAT16_MAX:
        raise OutputError(
            f"The anomaly map of {photo} is empty or leaves -65504 to 65504, the range of float16: "
            "divide all maps and the threshold of the category by one number."
        )
    half = np.where(np.isnan(anomaly_map), seen.min(), anomaly_map).astype("<f2")
    return Image.fromarray(half.view("<u2"))


def _write_image(image: Image.Image, path: Path, kind: str, **options: Any) -> None:
    make_folder(path.parent)
    with atomic_write(path) as handle:
        image.save(handle, format=kind, **options)
