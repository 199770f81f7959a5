"""Engines: what runs the inspection graph. The same graph and bank, the same answer from each.

    prepared photos (B, 3, H, W) + bank ── engine ── Output: score, map, distances, nearest, r

ONNX Runtime is in the base install and is the default everywhere; OpenVINO comes with an extra and
is used where it is asked for by name. Which one runs is never decided by a timing. The third is
numpy: the steps of the method as the fit takes them, one after the other. It is what the others are
measured against (`reconpatch.model.parity`).
"""

from __future__ import annotations

import importlib.util
import operator
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from reconpatch.errors import MissingExtraError, ModelFileError, SettingsError
from reconpatch.features.extractor import (
    GRID_KEY,
    Extractor,
    check_photos,
    open_session,
    parse_grid,
)
from reconpatch.features.graph_contents import checked_graph
from reconpatch.method.memory_bank import Floats, Ints, MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import PatchScores, ScoringSettings, anomaly_map, score_patches
from reconpatch.photos.layout import Layout

GRAPH_INPUTS = ("photos", "bank", "norms", "mask")
SCALES, DEFECTS, DISCRIMINANT = "scales", "defects", "discriminant"
COMPOSITIONS, WHITENING, UNITS = "compositions", "whitening", "units"
FURTHER_INPUTS = (SCALES, DEFECTS, DISCRIMINANT, COMPOSITIONS, WHITENING, UNITS)
"""Further inputs of graphs whose image score asks how dense the bank is, for likeness, or for the
composition."""
GRAPH_OUTPUTS = ("score", "map", "distances", "nearest", "worst", "features")
"""Names in the graph, in order; the outputs are the fields of `Output`."""

DEFAULT_ENGINE = "onnxruntime"

# Distances to the bank that one call may hold at a time: 2 ** 25 float32 are 128 MB.
_CALL_ELEMENTS = 2**25


class Output(NamedTuple):
    """What an engine says of B photos.

    Attributes:
        score: (B,) float32 image scores.
        map: (B, H, W) float32 anomaly maps, at the pixels of the model's input.
        distances: (B, P) float32, of each patch to its nearest row of the bank (eq. 9).
        nearest: (B, P) int64, that row.
        worst: (B,) int64, the patch that gave the score, or the largest part of it.
        features: (B, P, D) float32, r = f(p).
    """

    score: Floats
    map: Floats
    distances: Floats
    nearest: Ints
    worst: Ints
    features: Floats

    def patch_scores(self, i: int) -> PatchScores:
        """The i-th photo's patches against the bank."""
        return PatchScores(
            self.distances[i], self.nearest[i], float(self.score[i]), int(self.worst[i])
        )


class Engine(Protocol):
    """What runs a model's graph.

    Attributes:
        name: "onnxruntime", "openvino", "torch" or "numpy".
        input_size: (H, W) of the photos, in pixels.
        grid: (h, w), the places of a photo that have a feature.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the attributes

    @property
    def input_size(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def grid(self) -> tuple[int, int]: ...  # noqa: D102

    def __call__(self, photos: Floats, bank: MemoryBank, /) -> Output:
        """Inspect (B, 3, H, W) float32 photos in 0 to 1 with a bank.

        Raises:
            PhotoError: the photos are of another shape or type than the graph takes.
        """
        ...


class _GraphEngine(ABC):
    """Runs a stored graph, as many photos at a time as memory allows."""

    input_size: tuple[int, int]
    grid: tuple[int, int]

    @abstractmethod
    def _run(self, given: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The outputs of the graph, in the order of `GRAPH_OUTPUTS`."""

    def __call__(self, photos: Floats, bank: MemoryBank) -> Output:
        """See `Engine`."""
        check_photos(photos, self.input_size)
        held = self.grid[0] * self.grid[1] * len(bank)
        if bank.composition is not None:
            held = max(held, bank.composition.rows.size)
        most = max(1, _CALL_ELEMENTS // held)
        starts = range(0, len(photos), most)
        parts = [self._part(photos[start : start + most], bank) for start in starts]
        if len(parts) == 1:
            return parts[0]
        return Output(*(np.concatenate(outputs) for outputs in zip(*parts, strict=True)))

    def _part(self, photos: Floats, bank: MemoryBank) -> Output:
        """What the engine gives; its errors, which have no common base, become one."""
        try:
            output = Output(*self._run({"photos": photos, **bank.inputs}))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(
                f"The network in the model file cannot be run ({type(error).__name__}: {reason}): "
                "unless memory ran out, it was not written by this package; fit the model again."
            ) from error
        return _checked(output, photos.shape, self.grid, bank)


class OnnxRuntimeEngine(_GraphEngine):
    """Runs the graph on the CPU with ONNX Runtime.

    Args:
        graph: what `inspection_graph` gave.
        threads: number of threads; 0 lets ONNX Runtime take one per physical core.

    Raises:
        ModelFileError: the graph is damaged or was not written by this package.
    """

    name = "onnxruntime"

    def __init__(self, graph: bytes, threads: int = 0) -> None:
        self._session = open_session(graph, threads or None)
        metadata = self._session.get_modelmeta().custom_metadata_map
        shape = {given.name: given.shape for given in self._session.get_inputs()}
        self.input_size, self.grid = _read_sizes(shape, metadata)

    def _run(self, given: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        outputs: list[npt.NDArray[Any]] = self._session.run(list(GRAPH_OUTPUTS), given)
        return outputs


class OpenVinoEngine(_GraphEngine):
    """Runs the graph on the CPU with OpenVINO, in float32.

    Args:
        graph: what `inspection_graph` gave.
        threads: number of threads; 0 lets OpenVINO decide.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        ModelFileError: the graph is damaged or was not written by this package.
    """

    name = "openvino"

    def __init__(self, graph: bytes, threads: int = 0) -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise MissingExtraError("the engine openvino", "openvino") from error
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",  # some CPUs would take bfloat16
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        try:
            model = core.read_model(model=graph)
            metadata = _openvino_metadata(model)
            self._compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise ModelFileError(
                f"The network in the model file cannot be read by OpenVINO ({error}): the file is "
                "damaged; take a fresh copy or fit it again."
            ) from error
        shape = {
            given.get_any_name(): [
                axis.get_length() if axis.is_static else None for axis in given.get_partial_shape()
            ]
            for given in self._compiled.inputs
        }
        self.input_size, self.grid = _read_sizes(shape, metadata)
        # A request holds the memory of one run: one for each thread that asks.
        self._requests = threading.local()

    def _run(self, given: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        results = self._requests.own.infer(given, share_inputs=True)
        return [np.array(results[name]) for name in GRAPH_OUTPUTS]


@dataclass(frozen=True, eq=False)
class NumpyEngine:
    """The steps of the method one after the other, as the fit takes them.

    Attributes:
        extractor: from photos to patch features p.
        f: the representation.
        scoring: how distances become scores and maps.
    """

    extractor: Extractor
    f: Representation
    scoring: ScoringSettings
    name: str = "numpy"

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of the photos, in pixels."""
        return self.extractor.input_size

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), the places of a photo that have a feature."""
        return self.extractor.grid

    def __call__(self, photos: Floats, bank: MemoryBank) -> Output:
        """See `Engine`."""
        r = self.f(self.extractor(photos))  # (B, P, D)
        return scored_in_numpy(r, bank, self.scoring, self.grid, self.input_size)


def scored_in_numpy(
    r: Floats,
    bank: MemoryBank,
    scoring: ScoringSettings,
    grid: tuple[int, int],
    size: tuple[int, int],
) -> Output:
    """(B, P, D) represented patches searched, scored and drawn by the routines of the fit."""
    layout = Layout.whole(grid, size)
    scores = [score_patches(patches, bank, scoring, layout) for patches in r]
    return Output(
        score=np.array([s.image_score for s in scores], np.float32),
        map=np.stack([anomaly_map(s.distances, grid, size, scoring.blur) for s in scores]),
        distances=np.stack([s.distances for s in scores]),
        nearest=np.stack([s.nearest for s in scores]),
        worst=np.array([s.worst for s in scores]),
        features=r,
    )


_OPENERS: Mapping[str, Callable[[bytes, int], Engine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
}
ENGINES = tuple(_OPENERS)
"""Engines that run a stored graph, by name."""


def check_engine(name: str) -> None:
    """Raise SettingsError unless there is an engine of that name."""
    if name not in _OPENERS:
        raise SettingsError(f"the engine is {name!r}: give one of {', '.join(ENGINES)}")


def check_threads(threads: int) -> int:
    """A number of threads as a plain int; 0 leaves it to the engine.

    Raises:
        SettingsError: it is no whole number, or is below 0 or far above the number of cores: all
            of them would wait for each other in loops.
    """
    most = max(64, 4 * (os.cpu_count() or 1))
    try:
        number = operator.index(threads)
    except TypeError:
        number = -1
    if not 0 <= number <= most:
        raise SettingsError(
            f"threads is {threads!r}: give a whole number from 1 to {most}, or 0 for all cores"
        )
    return number


def engines_present() -> list[str]:
    """Names of the engines that are installed here, the default first."""
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]


class StoredGraph:
    """A graph and the engine that runs it, opened at the first photo; otherwise an `Engine`.

    Models that differ in their bank or threshold alone share one. It can be pickled and copied.

    Args:
        graph: what `inspection_graph` gave.
        name: of the engine.
        threads: of the engine; 0 lets it decide.
        opened: an engine that takes the graph's place; None opens the one of that name.
    """

    def __init__(
        self,
        graph: bytes,
        name: str = DEFAULT_ENGINE,
        threads: int = 0,
        opened: Engine | None = None,
    ) -> None:
        check_engine(name)
        self.graph = graph
        self.threads = check_threads(threads)
        self.name = opened.name if opened else name
        self._engine = opened
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        return f"StoredGraph({len(self.graph)} bytes, {self.name}, {self.threads} threads)"

    def __reduce__(self) -> tuple[type[StoredGraph], tuple[bytes, str, int]]:
        # An engine at work is of its process: a copy, here or in another, opens one of its own.
        name = self.name if self.name in _OPENERS else DEFAULT_ENGINE
        return StoredGraph, (self.graph, name, self.threads)

    @property
    def engine(self) -> Engine:
        """The engine at work."""
        with self._opening:
            if self._engine is None:
                graph = checked_graph(self.graph)
                self._engine = _OPENERS[self.name](graph, self.threads)
            return self._engine

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) of the photos, in pixels."""
        return self.engine.input_size

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), the places of a photo that have a feature."""
        return self.engine.grid

    def __call__(self, photos: Floats, bank: MemoryBank) -> Output:
        """See `Engine`."""
        return self.engine(photos, bank)

    def on(self, name: str) -> StoredGraph:
        """The same graph on another engine."""
        return StoredGraph(self.graph, name, self.threads)


def _checked(
    output: Output, photos: tuple[int, ...], grid: tuple[int, int], bank: MemoryBank
) -> Output:
    """What an engine gave for photos of a shape; ModelFileError where no inspection can give it.

    A graph may be made up. Everything behind relies on shapes, and on indices being some.
    """
    count, _, height, width = photos
    places, (rows, dim) = grid[0] * grid[1], bank.rows.shape
    shapes = (
        (count,), (count, height, width), (count, places), (count, places), (count,),
        (count, places, dim),
    )  # fmt: skip
    given: Sequence[npt.NDArray[Any]] = output
    fits = [array.shape for array in given] == list(shapes)
    fits = fits and all(
        indices.dtype.kind == "i" and indices.min() >= 0 and indices.max() < below
        for indices, below in ((output.nearest, rows), (output.worst, places))
    )
    if not fits or not (np.isfinite(output.score).all() and np.isfinite(output.map).all()):
        raise ModelFileError(
            "The network in the model file gives what no inspection can give: it was not written "
            "by this package, or its bank is another one's; fit the model again."
        )
    return output


def _read_sizes(
    shapes: Mapping[str, Any], metadata: Mapping[str, str]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Input size (H, W) and grid (h, w) of a graph that `inspection_graph` wrote."""
    try:
        _, _, height, width = shapes["photos"]
        if set(shapes) - set(FURTHER_INPUTS) != set(GRAPH_INPUTS):
            raise ValueError(set(shapes))
        size, grid = (int(height), int(width)), parse_grid(metadata[GRID_KEY])
        if min(grid) < 1 or any(g > s for g, s in zip(grid, size, strict=True)):
            raise ValueError(size, grid)
        return size, grid
    except (KeyError, ValueError, TypeError) as error:
        raise ModelFileError(
            "The network in the model file lacks the sizes of its photos and features, or is of "
            "another kind: it was not written by this package; fit the model again."
        ) from error


def _openvino_metadata(model: Any) -> dict[str, str]:
    """The graph's own metadata, which OpenVINO keeps under a key of its own."""
    path = ["framework", GRID_KEY]
    return {GRID_KEY: model.get_rt_info(path).astype(str)} if model.has_rt_info(path) else {}
