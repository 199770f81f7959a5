"""Feature maps of a frozen timm backbone: the levels in use, in torch and as torch writes them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

from reconpatch.errors import MissingExtraError, SettingsError
from reconpatch.features.graph_builder import OPSET, PHOTOS, BackboneGraph, Level
from reconpatch.features.graph_contents import first_refused

try:
    import onnx
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own name for it
except ModuleNotFoundError as error:
    raise MissingExtraError("a backbone of timm", "torch") from error


class FeatureMaps(torch.nn.Module):
    """A frozen timm model that stops after the last level in use and returns the levels' maps.

    An inverted residual block (EfficientNet, MobileNet) widens its input, filters it and projects
    the result onto few channels. What it projects, the expanded activations, tells more than what
    is left, and costs nothing: the backbone computes it anyway.

    Attributes:
        strides: pixels between neighbouring places, one number per level.

    Args:
        model: a timm model with `forward_intermediates`; the stages after the last level are
            removed from it.
        levels: timm's numbers of the levels, ascending.
        expanded: whether a level's map also has the expanded activations of its last block, its
            output after them; a level that ends in another kind of block has its output alone.
    """

    def __init__(self, model: Any, levels: Sequence[int], *, expanded: bool = False) -> None:
        super().__init__()
        self.levels = list(levels)
        self.strides = tuple(int(model.feature_info[level]["reduction"]) for level in levels)
        model.prune_intermediate_layers(self.levels, prune_norm=True)
        self.model = model
        self._expanded: dict[int, torch.Tensor] = {}  # of the photos that are on their way
        self._expanded_channels = (0,) * len(self.levels)
        if expanded:
            for level in self.levels:
                self._keep_expanded(level, str(model.feature_info[level]["module"]))
        self.eval().requires_grad_(False)

    def _keep_expanded(self, level: int, stage: str) -> None:
        blocks = list(self.model.get_submodule(stage).children())
        projection = getattr(blocks[-1], "conv_pwl", None) if blocks else None
        if projection is not None:
            projection.register_forward_pre_hook(
                lambda _, given: self._expanded.update({level: given[0]})
            )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps (B, C_l, H_l, W_l) of the levels, from normalised photos (B, 3, H, W)."""
        maps: list[torch.Tensor] = self.model.forward_intermediates(
            x, indices=self.levels, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        expanded = [self._expanded.pop(level, None) for level in self.levels]
        self._expanded_channels = tuple(0 if e is None else int(e.shape[1]) for e in expanded)
        return [
            output if wide is None else torch.cat([wide, output], 1)
            for wide, output in zip(expanded, maps, strict=True)
        ]

    @property
    def expanded_channels(self) -> tuple[int, ...]:
        """Of each level, how many of the last forward pass's channels were expanded ones."""
        return self._expanded_channels


class PaddedConvolution(torch.nn.Module):
    """A convolution with a fixed number of zeros on each side, which ONNX has and torch has not.

    Args:
        convolution: one that pads nothing by itself; its weights are shared.
        ends: zeros at the left, right, top and bottom.
    """

    def __init__(self, convolution: torch.nn.Conv2d, ends: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.ends = ends
        self.stride: tuple[int, ...] = convolution.stride
        self.dilation: tuple[int, ...] = convolution.dilation
        self.groups = convolution.groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, C', h', w') of maps (B, C, h, w)."""
        y: torch.Tensor = _Padded.apply(
            x, self.weight, self.ends, self.stride, self.dilation, self.groups
        )
        return y if self.bias is None else y + self.bias[:, None, None]


class _Padded(torch.autograd.Function):
    """Tells the exporter that zeros and convolution are one node."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ARG004 - so torch calls it
        x: torch.Tensor,
        weight: torch.Tensor,
        ends: tuple[int, int, int, int],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> torch.Tensor:
        return F.conv2d(F.pad(x, ends), weight, None, stride, 0, dilation, groups)

    @staticmethod
    def symbolic(
        g: Any,
        x: Any,
        weight: Any,
        ends: tuple[int, int, int, int],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Any:
        left, right, top, bottom = ends
        return g.op(
            "Conv",
            x,
            weight,
            strides_i=stride,
            dilations_i=dilation,
            group_i=groups,
            pads_i=[top, left, bottom, right],
        )


def fix_padding(backbone: torch.nn.Module, input_size: tuple[int, int]) -> None:
    """Give TensorFlow's convolutions in a backbone the zeros that photos of (H, W) pixels need.

    They work it out for each photo anew, which leaves dozens of nodes and a copy of the photo in
    the graph. The maps stay the same, but for rounding where another kernel takes the convolution.
    """
    from timm.layers import Conv2dSame, get_same_padding

    found = {name: m for name, m in backbone.named_modules() if type(m) is Conv2dSame}
    sizes: dict[torch.nn.Module, torch.Size] = {}
    hooks = [
        module.register_forward_pre_hook(lambda m, given: sizes.update({m: given[0].shape[2:]}))
        for module in found.values()
    ]
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, *input_size))
    for hook in hooks:
        hook.remove()
    for name, module in found.items():
        if module not in sizes:  # of a stage that is not in use
            continue
        (top, bottom), (left, right) = (
            (total // 2, total - total // 2)
            for total in map(
                get_same_padding, sizes[module], module.kernel_size, module.stride, module.dilation
            )
        )
        parent, _, attribute = name.rpartition(".")
        padded = PaddedConvolution(module, (left, right, top, bottom))
        setattr(backbone.get_submodule(parent), attribute, padded)


class _FromPhotos(torch.nn.Module):
    """A backbone that takes photos in 0 to 1."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, backbone: torch.nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone = backbone  # its nodes are told by this name
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.eval()

    def forward(self, photos: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.backbone((photos - self.mean) / self.std))


def export_maps(
    backbone: torch.nn.Module,
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int],
) -> BackboneGraph:
    """A backbone in torch as a graph, weights inside; equal modules give equal bytes.

    torch's TorchScript exporter is used: its graphs are the same on every run and it takes a third
    of the time of the newer one, which gains nothing here (no control flow).

    Args:
        backbone: returns the feature maps [(B, C_l, H_l, W_l)] of normalised photos, the level
            with the finest grid first; `FeatureMaps`, whose padding is fixed.
        mean: per colour, of photos in 0 to 1; what the backbone was trained with.
        std: likewise.
        size: (H, W) of the photos, in pixels.

    Raises:
        SettingsError: the backbone has an operator that no model file may hold.
    """
    module, example = _FromPhotos(backbone, mean, std), torch.zeros(2, 3, *size)
    with torch.inference_mode():
        shapes = [tuple(map(int, maps.shape)) for maps in module(example)]
    expanded = getattr(backbone, "expanded_channels", (0,) * len(shapes))
    names = [f"level_{i}" for i in range(len(shapes))]
    model = onnx.load_model_from_string(_trace(module, example, names))
    for value, shape in zip(model.graph.output, shapes, strict=True):
        for axis, length in zip(value.type.tensor_type.shape.dim[1:], shape[1:], strict=True):
            axis.dim_value = length  # the exporter does not work all of them out
    if found := first_refused(model):
        raise SettingsError(
            f"the backbone's network holds {found}, which no model file may: choose another "
            "backbone, or other levels"
        )
    levels = tuple(
        Level(channels, height, width, wide)
        for (_, channels, height, width), wide in zip(shapes, expanded, strict=True)
    )
    return BackboneGraph(model.SerializeToString(deterministic=True), size, levels)


def _trace(module: torch.nn.Module, example: torch.Tensor, outputs: list[str]) -> bytes:
    buffer: Any = io.BytesIO()  # taken by the exporter, though its annotation says paths only
    with warnings.catch_warnings():
        # Tracing warns of each Python number it fixes: with H and W fixed they are constants. The
        # exporter warns that it is the older one: `export_maps` says why it is used.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            (example,),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[PHOTOS],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (PHOTOS, *outputs)},
        )
    return bytes(buffer.getvalue())
