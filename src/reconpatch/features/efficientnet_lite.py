"""EfficientNet-Lite as an ONNX graph, written from a table of its stages, without torch.

    photos ── stem ── stage 0 ── 1 ── 2 ── 3 ── 4 ── 5 ── 6
                         │       │    │         │         │
                level    0       1    2         3         4     (strides 2, 4, 8, 16, 32)

Only what leads to the levels in use is written. Batch normalisation is folded into the convolutions
before it, and the photos' standard deviation into the first.

Reference: Tan and Le, EfficientNet, ICML 2019 (the scaling); the Lite variants of
tensorflow/tpu/models/official/efficientnet/lite (ReLU6, no squeeze-and-excitation, stem and head
not scaled). Names of tensors are timm's, to whose features the graph is held by a test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.features.graph_builder import BACKBONE, PHOTOS, BackboneGraph, GraphBuilder, Level

Floats = npt.NDArray[np.float32]
State = Mapping[str, npt.NDArray[Any]]
"""Tensors of a network by name, in the order of its layers."""

MEAN = STD = 0.5
"""Of each colour, of photos in 0 to 1, as the weights were trained with."""
LEVELS = (0, 1, 2, 4, 6)
"""The stages whose outputs are the levels 0 to 4: the last ones at their strides."""

_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_EPSILON = 1e-3  # of batch normalisation, TensorFlow's
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Stage:
    """A row of the table of EfficientNet-B0: blocks in a row.

    Attributes:
        repeats: blocks, before scaling.
        kernel: side of the depthwise convolutions.
        stride: of the first block.
        expansion: by how much a block widens its input.
        channels: of the output, before scaling.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
SCALES = {
    "tf_efficientnet_lite0": (1.0, 1.0),
    "tf_efficientnet_lite1": (1.0, 1.1),
    "tf_efficientnet_lite2": (1.1, 1.2),
}
"""How much wider and deeper than that table each network is."""


@dataclass(frozen=True)
class Block:
    """An inverted residual block; without an expansion, a depthwise separable one.

    Attributes:
        name: timm's.
        inputs, wide, outputs: channels before, inside and after.
        kernel, stride: of the depthwise convolution.
    """

    name: str
    inputs: int
    wide: int
    outputs: int
    kernel: int
    stride: int

    @property
    def expands(self) -> bool:
        """Whether it widens its input."""
        return self.wide != self.inputs

    @property
    def convolutions(self) -> tuple[str, str, str]:
        """Names of the convolutions that expand ("" for none), filter and project."""
        return ("conv_pw", "conv_dw", "conv_pwl") if self.expands else ("", "conv_dw", "conv_pw")


def stages(name: str) -> list[list[Block]]:
    """The blocks of each stage of a network.

    Args:
        name: one of `SCALES`.
    """
    width, depth = SCALES[name]
    found, inputs = [], _STEM
    for number, stage in enumerate(STAGES):
        ends = number in (0, len(STAGES) - 1)  # the Lite variants leave their depth as it is
        repeats = stage.repeats if ends else math.ceil(stage.repeats * depth)
        blocks, outputs = [], _scaled(stage.channels, width)
        for i in range(repeats):
            stride = stage.stride if i == 0 else 1
            wide = inputs * stage.expansion
            blocks.append(
                Block(f"blocks.{number}.{i}", inputs, wide, outputs, stage.kernel, stride)
            )
            inputs = outputs
        found.append(blocks)
    return found


def _scaled(channels: int, width: float) -> int:
    """Channels times a width, to the nearest multiple of 8 that takes no tenth away."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def tensor_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a network by timm's names, in timm's order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(convolution: str, shape: tuple[int, ...], norm: str) -> None:
        shapes[f"{convolution}.weight"] = shape
        shapes.update({f"{norm}.{part}": shape[:1] for part in _NORM})
        shapes[f"{norm}.num_batches_tracked"] = ()

    layer("conv_stem", (_STEM, 3, 3, 3), "bn1")
    last = _STEM
    for block in (block for blocks in stages(name) for block in blocks):
        expand, depthwise, project = block.convolutions
        if expand:
            layer(f"{block.name}.{expand}", (block.wide, block.inputs, 1, 1), f"{block.name}.bn1")
        kernel = (block.kernel, block.kernel)
        norms = (2, 3) if expand else (1, 2)
        layer(f"{block.name}.{depthwise}", (block.wide, 1, *kernel), f"{block.name}.bn{norms[0]}")
        wide = (block.outputs, block.wide, 1, 1)
        layer(f"{block.name}.{project}", wide, f"{block.name}.bn{norms[1]}")
        last = block.outputs
    layer("conv_head", (_HEAD, last, 1, 1), "bn2")
    shapes["classifier.weight"] = (_CLASSES, _HEAD)
    shapes["classifier.bias"] = (_CLASSES,)
    return shapes


def random_state(name: str, seed: int) -> dict[str, Floats]:
    """Random weights as the networks are trained from (He et al., fan-out); for tests."""
    rng = np.random.default_rng(seed)
    state = {}
    for tensor, shape in tensor_shapes(name).items():
        if len(shape) == 4:
            depthwise = shape[1] == 1
            fan_out = math.prod(shape[2:]) * (1 if depthwise else shape[0])
            deviation = np.float32(math.sqrt(2.0 / fan_out))
            state[tensor] = deviation * rng.standard_normal(shape, np.float32)
        else:
            ones = tensor.endswith(("running_var", "weight"))
            state[tensor] = np.full(shape, float(ones), np.float32)
    return state


def backbone_graph(
    name: str,
    state: State,
    levels: Sequence[int],
    size: tuple[int, int],
    *,
    expanded: bool = False,
) -> BackboneGraph:
    """The graph from photos to the maps of some levels.

    Args:
        name: one of `SCALES`.
        state: all tensors by timm's names.
        levels: some of 0 to 4, ascending.
        size: (H, W) of the photos, in pixels.
        expanded: whether a level's map also has the expanded activations of its last block, its
            output after them; the first stage expands nothing.
    """
    writer = _Writer(state, size)
    maps = list(writer.levels(stages(name), levels, expanded))
    for tensor, level in maps:
        writer.builder.gives(tensor, ("batch", level.channels, level.height, level.width))
    return BackboneGraph(writer.builder.serialised(), size, tuple(level for _, level in maps))


class _Writer:
    """Writes layers one after the other, and knows the size of the map that they have come to."""

    def __init__(self, state: State, size: tuple[int, int]) -> None:
        self.builder = GraphBuilder(BACKBONE)
        self.state = state
        self.size = size  # of the map that the last convolution gave

    def levels(
        self, stages: Sequence[Sequence[Block]], levels: Sequence[int], expanded: bool
    ) -> Iterator[tuple[str, Level]]:
        """The tensor of each level, and what it is."""
        builder = self.builder
        x = builder.takes(PHOTOS, ("batch", 3, *self.size))
        mean = builder.constant("mean", np.full((1, 3, 1, 1), MEAN))
        x = builder.node("Sub", x, mean, name="normalise")
        x = self.layer(x, "conv_stem", "bn1", stride=2, times=1.0 / STD)
        wanted = [LEVELS[level] for level in levels]
        for number, blocks in enumerate(stages[: wanted[-1] + 1]):
            for block in blocks:
                x, wide = self.block(x, block)
            if number in wanted:
                last = blocks[-1]
                extra = last.wide if expanded and last.expands else 0
                level = Level(last.outputs + extra, *self.size, extra)
                yield (builder.node("Concat", wide, x, axis=1) if extra else x), level

    def block(self, x: str, block: Block) -> tuple[str, str]:
        """What a block gives, and the expanded activations that it projects."""
        expand, depthwise, project = (f"{block.name}.{part}" for part in block.convolutions)
        norms = iter(range(1, 4))
        wide = x
        if block.expands:
            wide = self.layer(wide, expand, f"{block.name}.bn{next(norms)}")
        norm = f"{block.name}.bn{next(norms)}"
        wide = self.layer(wide, depthwise, norm, stride=block.stride, groups=block.wide)
        y = self.layer(wide, project, f"{block.name}.bn{next(norms)}", active=False)
        if block.stride == 1 and block.inputs == block.outputs:
            y = self.builder.node("Add", y, x, name=f"{block.name}/Add")
        return y, wide

    def layer(
        self,
        x: str,
        convolution: str,
        norm: str,
        *,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
        times: float = 1.0,
    ) -> str:
        """A convolution with its normalisation, and ReLU6 unless it is not active.

        Args:
            x: the tensor that it takes.
            convolution: its name.
            norm: the name of the normalisation.
            stride: in pixels.
            groups: of channels.
            active: whether ReLU6 follows.
            times: what x is multiplied by first.
        """
        weight, bias = self.folded(f"{convolution}.weight", norm, times)
        kernel = weight.shape[2]
        # TensorFlow's padding: as many zeros as a map of n / stride places needs, rounded up; the
        # odd one at the end.
        grid = [math.ceil(n / stride) for n in self.size]
        zeros = [
            max((cells - 1) * stride + kernel - n, 0)
            for cells, n in zip(grid, self.size, strict=True)
        ]
        self.size = grid[0], grid[1]
        builder = self.builder
        y = builder.node(
            "Conv",
            x,
            builder.constant(f"{convolution}.weight", weight),
            builder.constant(f"{convolution}.bias", bias),
            name=convolution,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[*(n // 2 for n in zeros), *(n - n // 2 for n in zeros)],
            group=groups,
        )
        if not active:
            return y
        limits = builder.constant("zero", 0.0), builder.constant("six", 6.0)
        return builder.node("Clip", y, *limits, name=f"{norm}/Clip")

    def folded(self, convolution: str, norm: str, times: float) -> tuple[Floats, Floats]:
        """Weight and bias of a convolution that does its normalisation too; in float64 between."""
        gamma, beta, mean, variance = (
            self.state[f"{norm}.{part}"].astype(np.float64) for part in _NORM[:4]
        )
        scale = gamma / np.sqrt(variance + _EPSILON)
        weight = self.state[convolution] * (times * scale)[:, None, None, None]
        return weight.astype(np.float32), (beta - mean * scale).astype(np.float32)
