"""Patch features p of photos, with ONNX Runtime: what a fit learns from.

The graph, written by `reconpatch.features.feature_graph`, lasts as long as the fit.
What inspects afterwards is one graph of all steps (`reconpatch.engine.engines`), compared with this
one before a model is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from reconpatch.errors import ModelFileError, PhotoError

if TYPE_CHECKING:
    import onnxruntime

INPUT_NAME = "photos"
OUTPUT_NAME = "features"
GRID_KEY = "grid"
"""Key of the graph's metadata that holds the grid: h*w alone does not tell h from w."""


class Extractor(Protocol):
    """What turns photos into patch features, whichever engine does the work.

    Attributes:
        input_size: (H, W) of the photos, in pixels.
        grid: (h, w), the places of a photo that have a feature.
        channels: C, the length of a feature.
    """

    input_size: tuple[int, int]
    grid: tuple[int, int]
    channels: int

    def __call__(self, photos: npt.NDArray[np.float32], /) -> npt.NDArray[np.float32]:
        """Patch features (B, h*w, C) in raster order; photos (B, 3, H, W) in 0 to 1."""
        ...


class FeatureExtractor:
    """Extracts patch features on the CPU with ONNX Runtime.

    Attributes:
        input_size: (H, W) of the photos, in pixels.
        grid: (h, w), the places of a photo that have a feature.
        channels: C, the length of a feature.

    Args:
        graph: what `feature_graph` returned.
        threads: number of threads; None lets ONNX Runtime take one per physical core.

    Raises:
        ModelFileError: the graph is damaged or was not written by `feature_graph`.
    """

    def __init__(self, graph: bytes, threads: int | None = None) -> None:
        self._session = open_session(graph, threads)
        self.input_size, self.grid, self.channels = _read_sizes(self._session)

    def __call__(self, photos: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Patch features (B, h*w, C) float32 in raster order; photos (B, 3, H, W) in 0 to 1.

        Raises:
            PhotoError: the photos are of another shape or type than the graph takes.
        """
        check_photos(photos, self.input_size)
        p: npt.NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: photos})[0]
        return p


def check_photos(photos: npt.NDArray[np.float32], input_size: tuple[int, int]) -> None:
    """Raise PhotoError unless photos is (B, 3, H, W) float32 with B > 0, (H, W) = input_size."""
    fits = photos.ndim == 4 and len(photos) > 0 and photos.shape[1:] == (3, *input_size)
    if not fits or photos.dtype != np.float32:
        height, width = input_size
        raise PhotoError(
            f"An array of shape {photos.shape} and type {photos.dtype} was given, but this model "
            f"takes float32 of shape (1 or more, 3, {height}, {width}): prepare photos with the "
            "model's own preprocessing."
        )


def format_grid(grid: tuple[int, int]) -> str:
    """The grid as it is written in the graph's metadata, "28x28"."""
    return "{}x{}".format(*grid)


def parse_grid(text: str) -> tuple[int, int]:
    """The grid from the graph's metadata; ValueError unless it is like "28x28"."""
    height, width = text.split("x")
    return int(height), int(width)


def open_session(graph: bytes, threads: int | None) -> onnxruntime.InferenceSession:
    """A graph in ONNX Runtime; raises ModelFileError if it is damaged."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where a build has any, nothing is told to anybody
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # Threads wait for the next operation in a loop, which saves a tenth of a run, but not for the
    # next run: between two runs the cores are numpy's.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Whatever goes wrong is raised as well; the log would only print it a second time.
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base of their own
        raise ModelFileError(
            "The network in the model file cannot be read by ONNX Runtime "
            f"({type(error).__name__}): the file is damaged; take a fresh copy or fit it again."
        ) from error


def _read_sizes(
    session: onnxruntime.InferenceSession,
) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Input size (H, W), grid (h, w) and channels of a graph that `feature_graph` wrote."""
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    try:
        _, _, height, width = session.get_inputs()[0].shape
        _, places, channels = session.get_outputs()[0].shape
        grid = parse_grid(metadata[GRID_KEY])
        if grid[0] * grid[1] != places:
            raise ValueError(places)
    except (KeyError, ValueError) as error:
        raise ModelFileError(
            "The network in the model file lacks the sizes of its photos and features: it was not "
            "written by this package; fit the model again."
        ) from error
    return (height, width), grid, channels
