"""Graphs written node by node with `onnx.helper`, and the form that every backbone has as one.

    photos (batch, 3, H, W) in 0 to 1 ── backbone graph ── each level's map (batch, C_l, H_l, W_l)

A backbone is this graph, whatever wrote it: `efficientnet_lite` from a table of stages, or
`patch_features` by torch's exporter. `feature_graph` puts the steps of the method on top of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

OPSET = 17
"""ONNX operator set: the first with layer normalisation, known to any runtime."""
IR_VERSION = 8
"""The file format that belongs to it."""
BACKBONE = "/backbone/"
"""Names of a backbone's nodes start with this."""
PHOTOS = "photos"
"""The input of every graph."""
INDICES = "_indices"
"""TopK gives two things: what comes after the name of the values in that of their places."""


@dataclass(frozen=True)
class Level:
    """The map of a level.

    Attributes:
        channels: C_l.
        height: H_l.
        width: W_l.
        expanded: how many of the channels, the first ones, are the expanded activations of the
            level's last block; the others are its output.
    """

    channels: int
    height: int
    width: int
    expanded: int = 0

    @property
    def blocks(self) -> list[tuple[int, bool]]:
        """The channels in order: how many, and whether they are the level's output."""
        output = (self.channels - self.expanded, True)
        return [(self.expanded, False), output] if self.expanded else [output]


@dataclass(frozen=True, eq=False)
class BackboneGraph:
    """A frozen backbone as a graph.

    Attributes:
        graph: a serialised `onnx.ModelProto` from `PHOTOS` to the levels' maps, its outputs in
            order; its nodes' names start with `BACKBONE`.
        size: (H, W) of the photos, in pixels.
        levels: finest grid first.
    """

    graph: bytes
    size: tuple[int, int]
    levels: tuple[Level, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), the places of a photo that have a feature."""
        return self.levels[0].height, self.levels[0].width

    @property
    def channels(self) -> int:
        """C, the length of a feature of all levels."""
        return sum(level.channels for level in self.levels)

    @property
    def blocks(self) -> tuple[tuple[int, bool], ...]:
        """The channels of all levels in order: how many, and whether they are outputs."""
        return tuple(block for level in self.levels for block in level.blocks)


class GraphBuilder:
    """A graph to which nodes are added; tensors are known by their names.

    Attributes:
        model: an `onnx.ModelProto`, so far.
        given: what the model that it goes on from gave.

    Args:
        prefix: of the names of nodes and of what they give.
        on: a serialised model to go on from; its outputs are none of the new one.
    """

    def __init__(self, prefix: str, on: bytes | None = None) -> None:
        import onnx

        self._helper: Any = onnx.helper
        self._to_tensor: Any = onnx.numpy_helper.from_array
        self.model = onnx.ModelProto() if on is None else onnx.ModelProto.FromString(on)
        self.given = [output.name for output in self.model.graph.output]
        del self.model.graph.output[:]
        self._prefix = prefix
        self._names: set[str] = set()

    def constant(self, name: str, values: npt.ArrayLike, dtype: Any = np.float32) -> str:
        """A tensor of fixed numbers; one name, one tensor."""
        name = f"{self._prefix}{name}"
        if name not in self._names:
            self._names.add(name)
            array = np.array(values, dtype=dtype, order="C")
            self.model.graph.initializer.append(self._to_tensor(array, name))
        return name

    def integers(self, *values: int) -> str:
        """A 1-dimensional tensor of fixed whole numbers, for shapes and axes."""
        return self.constant("_".join(["int", *map(str, values)]), values, np.int64)

    def node(self, kind: str, *inputs: str, name: str = "", to: str = "", **attributes: Any) -> str:
        """Add an operator; the name of what it gives.

        Args:
            kind: the operator.
            inputs: names of tensors; "" for one that is left out.
            name: of the node, after the prefix; by default of the operator and a number.
            to: what the result is called; by default after the node.
            attributes: of the operator.
        """
        unique = base = f"{self._prefix}{name or kind}"
        number = 1
        while unique in self._names:
            unique = f"{base}_{number}"
            number += 1
        self._names.add(unique)
        result = to or f"{unique}_output"
        results = [result, f"{result}{INDICES}"] if kind == "TopK" else [result]
        self.model.graph.node.append(
            self._helper.make_node(kind, inputs, results, name=unique, **attributes)
        )
        return result

    def takes(self, name: str, shape: Sequence[int | str], dtype: Any = np.float32) -> str:
        """Declare an input; axes that are free are named."""
        self.model.graph.input.append(self._value(name, shape, dtype))
        return name

    def gives(self, name: str, shape: Sequence[int | str], dtype: Any = np.float32) -> None:
        """Declare an output."""
        self.model.graph.output.append(self._value(name, shape, dtype))

    def serialised(self, **metadata: str) -> bytes:
        """The graph; equal steps give equal bytes."""
        helper = self._helper
        self.model.ir_version = IR_VERSION
        self.model.producer_name = "reconpatch"
        self.model.producer_version = ""
        self.model.graph.name = "reconpatch"
        del self.model.opset_import[:]
        self.model.opset_import.append(helper.make_opsetid("", OPSET))
        helper.set_model_props(self.model, metadata)
        return bytes(self.model.SerializeToString(deterministic=True))

    def _value(self, name: str, shape: Sequence[int | str], dtype: Any) -> Any:
        kind = self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._helper.make_tensor_value_info(name, kind, list(shape))
