"""The files that the server of MVTec AD 2 takes for the splits whose labels only it knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.errors import OutputError, PhotoError
from reconpatch.evaluation.datasets import load_dataset
from reconpatch.files import atomic_write, make_folder
from reconpatch.photos.images import MAX_PIXELS

if TYPE_CHECKING:
    from reconpatch.fitting.options import Progress
    from reconpatch.model.model import Inspector

_FLOAT16_MAX = float(np.finfo(np.float16).max)


def submit(
    model: Inspector,
    category: Path,
    folder: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> int:
    """Inspect the private photos of a category, and write what the server takes of each.

    Args:
        model: fitted on the category's good photos.
        category: the category's folder, laid out as published.
        folder: see `write_submission`.
        max_pixels: larger photos are refused.
        progress: called with ("inspect", photos done, photos).

    Returns:
        How many photos there were.

    Raises:
        PhotoError: the folder is not one category of MVTec AD 2, has no private photos, or one of
            them cannot be used.
        OutputError: see `write_submission`.
    """
    found = load_dataset(category, "mvtec2")
    if len(found) > 1 or not found[0].unlabelled:
        raise PhotoError(
            f"{category} is not one category of MVTec AD 2 with its private photos: give the "
            "folder that holds test_private and test_private_mixed"
        )
    photos = [(split, path) for split, paths in found[0].unlabelled.items() for path in paths]
    threshold = model.calibration.map_threshold.value
    for i, (split, path) in enumerate(photos):
        heatmap = model.inspect(path, max_pixels=max_pixels).heatmap
        write_submission(folder, found[0].name, split, path, heatmap, threshold)
        if progress is not None:
            progress("inspect", i + 1, len(photos))
    return len(photos)


def write_submission(
    folder: Path,
    category: str,
    split: str,
    photo: Path,
    anomaly_map: npt.NDArray[np.float32],
    threshold: float,
) -> list[Path]:
    """Write the files of one photo that the server of MVTec AD 2 takes.

    FOLDER/anomaly_images/CATEGORY/SPLIT/STEM.tiff is the map, an uncompressed TIFF of one float16
    channel. FOLDER/anomaly_images_thresholded/CATEGORY/SPLIT/STEM.png is a PNG of one 8-bit
    channel, 255 where the map is above the threshold and 0 elsewhere; the threshold is applied
    before the map is rounded to float16, which keeps 11 significant bits. The server takes the
    folder packed as .tar.gz, with both private splits of all eight categories and nothing else in
    it; the second tree may be left out as a whole, and then only figures without a threshold are
    worked out.

    Source: the checking script that the data set's authors publish with it.

    Args:
        folder: the folder to hand in; folders in it are made.
        category: the category's name.
        split: the photo's, one of `reconpatch.evaluation.datasets.PRIVATE_SPLITS`.
        photo: the photo.
        anomaly_map: (H, W) in pixels of the photo. NaN, where a model did not look, is written as
            the smallest value of the map: the server knows no such pixels.
        threshold: of the map.

    Returns:
        The files written.

    Raises:
        OutputError: a file cannot be written, or the map holds values that float16 cannot, beyond
            ±65504.
    """
    place = Path(category, split)
    map_path = folder / "anomaly_images" / place / f"{photo.stem}.tiff"
    thresholded_path = folder / "anomaly_images_thresholded" / place / f"{photo.stem}.png"
    _write_image(_float16_image(anomaly_map, photo), map_path, "TIFF", tiffinfo=_FLOAT_SAMPLES)
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
