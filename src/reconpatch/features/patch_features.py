"""Patch features p in torch: what a backbone sees at each place of a photo, and its ONNX graph.

photo -> feature maps of the levels in use -> each averaged over s x s -> coarser ones resized to
the first one's grid -> side by side -> one row per place. Used once per model, to write the graph
that extracts the features of every photo afterwards (`reconpatch.features.extractor`); imports
torch.

    B photos, H x W pixels, h x w places, C channels
"""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.errors import MissingExtraError, SettingsError
from reconpatch.features.backbones import WeightSource, load_backbone, spec
from reconpatch.features.extractor import (
    GRID_KEY,
    INPUT_NAME,
    OUTPUT_NAME,
    check_photos,
    format_grid,
)
from reconpatch.features.graph_contents import first_refused
from reconpatch.method.representation import Representation
from reconpatch.method.settings import FitSettings

try:
    import onnx
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own name for it
except ModuleNotFoundError as error:
    raise MissingExtraError("fit", "train") from error

OPSET = 17
"""ONNX operator set of the graph: the first with layer normalisation, known to any runtime."""


class PatchFeatures(torch.nn.Module):
    """Photos in, patch features p out (the paper's p_1 ... p_hw of each photo).

    Args:
        backbone: returns the feature maps [(B, C_l, H_l, W_l)] of normalised photos, the level
            with the finest grid first.
        mean: per colour, in the photos' range 0 to 1; what the backbone was trained with.
        std: likewise.
        neighbourhood: s, the side of the square a feature is averaged over; odd, 1 for none.

    Raises:
        SettingsError: the neighbourhood is not an odd number of 1 or more.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: torch.nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        neighbourhood: int = 3,
    ) -> None:
        super().__init__()
        if neighbourhood < 1 or neighbourhood % 2 == 0:
            raise SettingsError(
                f"A neighbourhood of {neighbourhood} was given, but a patch has a middle only if "
                "its side is an odd number: choose 1, 3, 5 or 7."
            )
        self.backbone = backbone
        self.neighbourhood = neighbourhood
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.eval()

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Patch features (B, h*w, C) float32 in raster order; photos (B, 3, H, W) in 0 to 1."""
        p = self.maps(photos)  # (B, C, h, w)
        return p.flatten(2).transpose(1, 2)  # (B, h*w, C)

    def maps(self, photos: torch.Tensor) -> torch.Tensor:
        """The same features as a picture, (B, C, h, w)."""
        s = self.neighbourhood
        return join_levels([average_neighbourhood(level, s) for level in self.levels(photos)])

    def levels(self, photos: torch.Tensor) -> list[torch.Tensor]:
        """The backbone's maps [(B, C_l, H_l, W_l)], as they are before any averaging."""
        maps: list[torch.Tensor] = self.backbone((photos - self.mean) / self.std)
        return maps

    @torch.inference_mode()
    def shape(self, input_size: tuple[int, int]) -> tuple[int, int, int]:
        """C, h and w of the features of photos of (H, W) pixels, by a dry run."""
        _, channels, height, width = self.maps(self._blank(1, input_size)).shape
        return channels, height, width

    @torch.inference_mode()
    def level_shapes(self, input_size: tuple[int, int]) -> list[tuple[int, int, int]]:
        """(C_l, H_l, W_l) of each level for photos of (H, W) pixels, by a dry run."""
        maps = self.levels(self._blank(1, input_size))
        return [(int(m.shape[1]), int(m.shape[2]), int(m.shape[3])) for m in maps]

    @torch.inference_mode()
    def blocks(self, input_size: tuple[int, int]) -> tuple[tuple[int, bool], ...]:
        """The channels of p in order: how many, and whether they are outputs of a level."""
        shapes = self.level_shapes(input_size)
        expanded = getattr(self.backbone, "expanded_channels", (0,) * len(shapes))
        found: list[tuple[int, bool]] = []
        for (channels, _, _), wide in zip(shapes, expanded, strict=True):
            found += [(wide, False)] * (wide > 0) + [(channels - wide, True)]
        return tuple(found)

    def _blank(self, count: int, input_size: tuple[int, int]) -> torch.Tensor:
        return torch.zeros(count, 3, *input_size, device=self.mean.device)


def load_patch_features(
    settings: FitSettings, weights: str | Path | None
) -> tuple[PatchFeatures, WeightSource]:
    """The frozen backbone of a fit as a module from photos to p, and where its weights are from.

    Raises:
        WeightsError: there are no weights, or they do not fit the backbone.
        SettingsError: the backbone is unknown, lacks a level or does not take photos of that size.
    """
    backbone = load_backbone(
        spec(settings.backbone, settings.levels or None),
        weights=weights,
        input_size=settings.size,
        seed=settings.seed,
        expanded=settings.expanded,
    )
    module = PatchFeatures(backbone.module, backbone.mean, backbone.std, settings.neighbourhood)
    return module, backbone.source


def average_neighbourhood(level: torch.Tensor, s: int) -> torch.Tensor:
    """Mean over the s x s places around each place of a map (B, C, h, w); shape unchanged.

    s is odd; places outside the map count as zeros, as in PatchCore's code, so a feature at the
    border is smaller than the mean of what is there.
    """
    return F.avg_pool2d(level, s, stride=1, padding=s // 2, count_include_pad=True)


def join_levels(levels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps (B, C_l, H_l, W_l) as one map (B, sum of C_l, H_0, W_0) on the first one's grid.

    Bilinear; a place is an area, so that the maps' outer edges coincide (align_corners=False).
    """
    first, *others = levels
    grid = first.shape[-2:]
    resized = [F.interpolate(o, size=grid, mode="bilinear", align_corners=False) for o in others]
    return torch.cat([first, *resized], dim=1)


def export_onnx(module: PatchFeatures, input_size: tuple[int, int]) -> bytes:
    """The module as an ONNX graph, weights inside; equal modules give equal bytes.

    Input "photos" (batch, 3, H, W) float32 in 0 to 1, output "features" (batch, h*w, C) float32;
    the batch is free, H and W are those of input_size. The grid is in the graph's metadata.
    """
    _, height, width = module.shape(input_size)
    free = {name: {0: "batch"} for name in (INPUT_NAME, OUTPUT_NAME)}
    example = (module._blank(2, input_size),)
    grid = format_grid((height, width))
    return to_onnx(module, example, [INPUT_NAME], [OUTPUT_NAME], free, grid)


def to_onnx(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
    grid: str,
) -> bytes:
    """A module as an ONNX graph, weights inside; equal modules give equal bytes.

    torch's TorchScript exporter is used: its graphs are the same on every run and it takes a third
    of the time of the newer one, which gains nothing here (no control flow).

    Args:
        module: to be traced.
        example: inputs to trace it with.
        inputs: their names.
        outputs: their names.
        free: names of the axes that are free, by input or output and number.
        grid: for the graph's metadata, as `format_grid` gives it.

    Raises:
        SettingsError: the module has an operator that no model file may hold.
    """
    with torch.inference_mode():
        shapes = [tuple(output.shape) for output in _as_tuple(module(*example))]
    model = onnx.load_model_from_string(_trace(module, example, inputs, outputs, free))
    for value, shape in zip(model.graph.output, shapes, strict=True):
        for i, (axis, size) in enumerate(zip(value.type.tensor_type.shape.dim, shape, strict=True)):
            if i not in free[value.name]:  # the exporter does not work all of them out
                axis.dim_value = size
    if found := first_refused(model):
        raise SettingsError(
            f"the backbone's network holds {found}, which no model file may: choose another "
            "backbone, or other levels"
        )
    onnx.helper.set_model_props(model, {GRID_KEY: grid})
    return bytes(model.SerializeToString(deterministic=True))


def _as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _trace(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]],
) -> bytes:
    buffer: Any = io.BytesIO()  # taken by the exporter, though its annotation says paths only
    with warnings.catch_warnings():
        # Tracing warns of each Python number it fixes: with H and W fixed they are constants. The
        # exporter warns that it is the older one: `export_onnx` says why it is used.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            example,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in free.items()},
        )
    return bytes(buffer.getvalue())


class TorchFeatureExtractor:
    """Extracts patch features with torch, on any of its devices; otherwise a `FeatureExtractor`.

    Attributes:
        input_size: (H, W) of the photos, in pixels.
        grid: (h, w) of the places.
        channels: C, the length of a feature.

    Args:
        module: left on the device.
        input_size: (H, W) of the photos, in pixels.
        device: "cpu", "cuda", "cuda:1", ...
        onto: a representation that follows, such as a principal basis; None for p itself.

    Raises:
        SettingsError: torch has no such device here.
    """

    def __init__(
        self,
        module: PatchFeatures,
        input_size: tuple[int, int],
        device: str = "cpu",
        onto: Representation | None = None,
    ) -> None:
        self.input_size = input_size
        self._module = _move(module, device)
        self._onto = onto
        self.channels, height, width = module.shape(input_size)
        if onto is not None and onto.weight is not None:
            self.channels = len(onto.weight)
        self.grid = (height, width)

    @torch.inference_mode()
    def __call__(self, photos: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Patch features (B, h*w, C) float32; photos (B, 3, H, W) float32 in 0 to 1."""
        check_photos(photos, self.input_size)
        with exact_float32():
            p = self._module(torch.from_numpy(photos).to(self._module.mean.device))
        features: npt.NDArray[np.float32] = p.cpu().numpy()
        return features if self._onto is None else self._onto(features)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions and products in whole float32 inside the `with`, the same on every run.

    On NVIDIA's cards since Ampere torch convolves in TF32 by default, of 10 bits. Features like
    that are a hundred times further from those of the engines that inspect than parity allows.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    options: dict[str, Any] = {"allow_tf32": False}
    name: str = "allow_tf32"
    exact: Any = False
    if "fp32_precision" in inspect.signature(cudnn.flags).parameters:  # newer versions of torch
        name, exact = "fp32_precision", "ieee"
        options[name] = exact
    before = getattr(matmul, name)
    with cudnn.flags(enabled=cudnn.enabled, deterministic=True, **options):
        setattr(matmul, name, exact)
        try:
            yield
        finally:
            setattr(matmul, name, before)


def _move(module: PatchFeatures, device: str) -> PatchFeatures:
    try:
        return module.to(torch.device(device))
    except (AssertionError, RuntimeError) as error:
        raise SettingsError(
            f"The device '{device}' was given, but torch cannot use it here: choose cpu, or "
            "install the torch build and the driver for that device."
        ) from error
