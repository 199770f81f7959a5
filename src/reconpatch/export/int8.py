"""A graph whose backbone computes in 8 bits, and what that costs in verdicts.

    graph ── ranges on good photos ── 8-bit backbone ── gate

From the resolution of the patches on, the backbone's convolutions, with the activations and sums
between them, take and give whole numbers of 8 bits; the finer layers before, f, the search, the
score and the map stay float32. Scores of good photos shift with it,
so the thresholds are set anew, on good photos that the 8-bit graph scores itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reconpatch.engine.engines import StoredGraph
from reconpatch.errors import ModelFileError, ParityError
from reconpatch.features.extractor import GRID_KEY, parse_grid
from reconpatch.features.graph_contents import parsed_graph
from reconpatch.fitting.made_defects import made_defects
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.metrics import auroc
from reconpatch.model.model import Inspector, Model, known_as
from reconpatch.model.sample import ROUNDING
from reconpatch.photos.images import Photo

INT8_PHOTOS = 64
"""Most photos that the ranges of the activations are taken from, and that the gate looks at."""
MOST_VERDICTS = 0.01
"""Share of verdicts that 8 bits may change: one photo on 64 good photos and 64 made defects.

It is the share of good photos that the usual threshold flags by mistake: a change of rounding has
to cost less than what the threshold allows anyway.
"""
MOST_AUROC_LOST = 0.005
"""By how much the AUROC on made defects may fall: a quarter of a usual interval's half width."""

_SEED = 0
_BACKBONE = "/backbone/"
_IN_8_BITS = ("Conv", "Clip", "Relu", "Add")

Some = TypeVar("Some", bound=Inspector)
Nodes = list[Any]
Feed = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Int8Check:
    """What 8 bits change on good photos and on defects made on them.

    Attributes:
        photos: good photos that were compared; as many defects were made on them.
        false_alarms: good photos above the threshold, before and after.
        caught: made defects above the threshold, before and after.
        changed: verdicts that differ, of both.
        auroc: on made defects against the good photos, before and after, 0 to 1.
        score_difference: the largest difference of a score, as a share of the float threshold.
        threshold: before and after.
    """

    photos: int
    false_alarms: tuple[int, int]
    caught: tuple[int, int]
    changed: int
    auroc: tuple[float, float]
    score_difference: float
    threshold: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether the 8-bit graph may go out."""
        lost = self.auroc[0] - self.auroc[1]
        return self.changed <= MOST_VERDICTS * 2 * self.photos and lost <= MOST_AUROC_LOST

    def sentence(self) -> str:
        """The figures in plain words."""
        return (
            f"int8: {self.changed} of {2 * self.photos} verdicts change (false alarms "
            f"{self.false_alarms[0]} -> {self.false_alarms[1]} of {self.photos}, made defects "
            f"caught {self.caught[0]} -> {self.caught[1]}); AUROC on made defects "
            f"{self.auroc[0]:.4f} -> {self.auroc[1]:.4f}; largest difference of a score "
            f"{self.score_difference:.1%} of the threshold, which goes from "
            f"{self.threshold[0]:.4g} to {self.threshold[1]:.4g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures and the bounds they were held to, as JSON-ready values."""
        bounds = {"verdicts": MOST_VERDICTS, "auroc_lost": MOST_AUROC_LOST}
        return {**asdict(self), "bounds": bounds}


def in_8_bits(inspector: Inspector, photos: Sequence[Photo], engine: str) -> Inspector:
    """The same inspector with 8-bit backbones, its thresholds set anew on good photos.

    A threshold set by hand stays where it is. The ranges come from at most `INT8_PHOTOS` of the
    photos, evenly chosen; the thresholds from all of them, photos of the fit as if they were new.

    Args:
        inspector: a model or an ensemble.
        photos: good photos, one at least.
        engine: the one that will run the graphs; the thresholds are its scores'.
    """
    from reconpatch.model.ensemble import Ensemble

    chosen = evenly(photos)
    members = [
        _calibrated(_member_in_8_bits(model, chosen, engine), photos) for model in inspector.members
    ]
    if isinstance(inspector, Ensemble):
        return _calibrated(replace(inspector, models=tuple(members)), photos)
    return members[0]


def _calibrated(inspector: Some, photos: Sequence[Photo]) -> Some:
    """Its thresholds from other good photos; one that was set by hand stays."""
    by_hand = inspector.calibration.set_by_hand
    new = inspector.calibrated_on(photos)
    return new.with_calibration(replace(new.calibration, set_by_hand=by_hand))


def evenly(photos: Sequence[Photo]) -> list[Photo]:
    """At most `INT8_PHOTOS` of the photos, evenly chosen, the first and last among them."""
    count = min(len(photos), INT8_PHOTOS)
    chosen = np.linspace(0, len(photos) - 1, count).round().astype(int)
    return [photos[int(i)] for i in chosen]


def require(check: Int8Check) -> None:
    """Raise ParityError unless the check holds."""
    if not check.holds:
        raise ParityError(
            f"in 8 bits the model is another one, so nothing is written ({check.sentence()}; "
            f"allowed are {MOST_VERDICTS:.0%} of the verdicts and {MOST_AUROC_LOST} of AUROC): "
            "export it without --int8, or give more good photos with --photos"
        )


# --- Gate ----------------------------------------------------------------------------------------


def check(before: Inspector, after: Inspector, photos: Sequence[Photo]) -> Int8Check:
    """Compare two inspectors on good photos and on a defect made on each of them.

    Every photo is scored as if it, or the photo its defect was made on, were new.
    """
    chosen = evenly(photos)
    level = before.white_level
    made = made_defects((photo.rgb8(level) for photo in chosen), _SEED)
    scores: list[list[list[float]]] = []  # of each photo: good and defective, before and after
    for photo, defect in zip(chosen, made, strict=True):
        pair = (photo, known_as(Photo(photo.name, defect.pixels), photo.sha256))
        scores.append([[i.judge([p], as_new=True)[0].score for i in (before, after)] for p in pair])
    return measure(np.array(scores), (before.threshold, after.threshold))


def measure(scores: npt.NDArray[np.float64], thresholds: tuple[float, float]) -> Int8Check:
    """The figures of (n, 2, 2) scores: photo; good, defective; before, after."""
    # The photo that a threshold came from scores it, up to rounding, and is not flagged.
    flagged = scores - thresholds > ROUNDING * np.abs(thresholds)
    false_alarms, caught = flagged.sum(axis=0).tolist()
    labels = np.repeat([False, True], len(scores))
    before, after = (auroc(labels, scores[:, :, i].T.ravel()) for i in range(2))
    difference = np.abs(scores[:, :, 1] - scores[:, :, 0]).max()
    return Int8Check(
        photos=len(scores),
        false_alarms=(false_alarms[0], false_alarms[1]),
        caught=(caught[0], caught[1]),
        changed=int((flagged[:, :, 0] != flagged[:, :, 1]).sum()),
        auroc=(before, after),
        score_difference=float(difference) / (abs(thresholds[0]) or 1.0),
        threshold=thresholds,
    )


# --- Graph ---------------------------------------------------------------------------------------


def _member_in_8_bits(model: Model, photos: Sequence[Photo], engine: str) -> Model:
    prepared = (model.preprocessing(photo)[None] for photo in photos)
    graph = quantised(model.engine.graph, prepared, model.bank)
    return replace(model, engine=StoredGraph(graph, engine, model.engine.threads))


def quantised(graph: bytes, prepared: Iterator[Floats], bank: MemoryBank) -> bytes:
    """A graph whose backbone computes in 8 bits, weights by channel, ranges from photos.

    Weights take all 8 bits. CPUs without VNNI add two products up in 16 bits, which may not hold
    them; 7 bits would fit, at more than twice the difference of scores (4.1 % of the threshold
    instead of 1.6 %, on MVTec bottle). So the export is to be run on the kind of machine that will
    inspect.

    Args:
        graph: what `inspection_graph` wrote.
        prepared: (1, 3, H, W) float32 good photos, one at least.
        bank: any bank of the graph.

    Raises:
        ModelFileError: the graph holds no backbone as this package writes it.
    """
    import onnx
    from onnxruntime import quantization

    feeds = ({"photos": photos, **bank.inputs} for photos in prepared)
    model = parsed_graph(graph)
    _own_weights(model)
    names = _names_in_8_bits(model)
    if not names:
        raise ModelFileError(
            "the network of this model has no backbone that can be told from the rest, so it "
            "cannot be brought to 8 bits: fit the model again, or export it without --int8"
        )

    # What ONNX Runtime asks to be done first is done, and it would say so on stderr otherwise.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def get_next(self) -> Feed | None:
            return next(feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            model,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=names,
        )
        written = onnx.load_model(path)
    _remove_unused(written.graph)  # an engine would warn of each
    return bytes(written.SerializeToString(deterministic=True))


def _names_in_8_bits(model: Any) -> list[str]:
    """Nodes of the backbone that give no more pixels than there are places, and so take 8 bits.

    What comes before, at a finer resolution, stays in float32: there a faint defect is a small
    difference of few pixels, and less than a step of 8 bits. On EfficientNet-Lite0 the first
    layers alone cost 2 points of AUROC on made defects, and all the others none.
    """
    import onnx

    (grid,) = (prop.value for prop in model.metadata_props if prop.key == GRID_KEY)
    height, width = parse_grid(grid)
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    return [
        node.name
        for node in model.graph.node
        if node.name.startswith(_BACKBONE)
        and node.op_type in _IN_8_BITS
        and 0 < int(np.prod(shapes.get(node.output[0], [0])[2:])) <= height * width
    ]


def _own_weights(model: Any) -> None:
    """Make weights that the exporter found twice and shared each node's own."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    shared = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Identity" and node.input[0] in stored
    }
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = shared.get(name, name)
    _remove_unused(graph)


def _remove_unused(graph: Any) -> None:
    """Drop the nodes and weights that no output depends on."""
    needed = {output.name for output in graph.output}
    kept: Nodes = []
    for node in reversed(graph.node):  # in order of computation
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
