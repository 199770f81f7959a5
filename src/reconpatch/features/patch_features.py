"""Patch features p in torch: what a fit on another device than the CPU extracts.

photo -> feature maps of the levels in use -> each averaged over s x s -> coarser ones resized to
the first one's grid -> side by side -> one row per place. On a CPU, and in every inspection, the
same steps are a graph (`reconpatch.features.feature_graph`). Imports torch.

    B photos, H x W pixels, h x w places, C channels
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.errors import MissingExtraError, SettingsError
from reconpatch.features.backbones import load_backbone, spec
from reconpatch.features.extractor import check_photos
from reconpatch.method.representation import Representation
from reconpatch.method.settings import FitSettings

try:
    import torch
    import torch.nn.functional as F  # noqa: N812 - torch's own name for it
except ModuleNotFoundError as error:
    raise MissingExtraError("a fit on another device", "torch") from error


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
        blank = torch.zeros(1, 3, *input_size, device=self.mean.device)
        _, channels, height, width = self.maps(blank).shape
        return channels, height, width


def load_patch_features(settings: FitSettings, weights: str | Path | None) -> PatchFeatures:
    """The frozen backbone of a fit as a module from photos to p.

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
    return PatchFeatures(backbone.module, backbone.mean, backbone.std, settings.neighbourhood)


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
