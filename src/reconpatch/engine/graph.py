"""The whole inspection as one graph, in torch: from prepared photos and a bank to scores and maps.

    photos ── patch features ── r = f(p) ── nearest rows of the bank (9) ── score (10), map
                                                └── bank, norms, mask: inputs, no constants

It is written once per model and run by any engine (`reconpatch.engine.engines`). f, the mean over s
x s and the bilinear resizing of the levels are all linear, so f may be applied to each level before
the levels are joined, at the level's own resolution; it is where that takes fewer multiplications.

    B photos, H x W pixels, P = h * w places, C channels of p, D of r, M rows of the bank
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from reconpatch.engine.engines import BATCH_INPUTS, GRAPH_OUTPUTS, SCALES
from reconpatch.features.extractor import INPUT_NAME, OUTPUT_NAME, format_grid
from reconpatch.features.patch_features import (
    PatchFeatures,
    average_neighbourhood,
    join_levels,
    to_onnx,
)
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings, resize_and_blur_matrix, top_count

# Distances held at a time by a graph: 2 ** 24 float32 are 64 MB for one photo.
_BLOCK_ELEMENTS = 2**24
# Stands for the norm of a row that does not take part; far from overflow when it is added to.
_NOWHERE = 1e30


class Outputs(NamedTuple):
    """What the graph gives, in the order of `GRAPH_OUTPUTS`; see `engines.Output`."""

    score: torch.Tensor  # (B,)
    map: torch.Tensor  # (B, H, W)
    distances: torch.Tensor  # (B, P)
    nearest: torch.Tensor  # (B, P)
    worst: torch.Tensor  # (B,)
    features: torch.Tensor  # (B, P, D)


class RepresentedPatches(torch.nn.Module):
    """Photos in, represented patches r = f(p) out.

    Args:
        patch_features: from photos to p.
        f: the representation.
        input_size: (H, W) of the photos, in pixels.
        f_first: whether f is applied to each level; None: where that is cheaper.
    """

    bias: torch.Tensor | None

    def __init__(
        self,
        patch_features: PatchFeatures,
        f: Representation,
        input_size: tuple[int, int],
        *,
        f_first: bool | None = None,
    ) -> None:
        super().__init__()
        self.patch_features = patch_features
        self.input_size = input_size
        self.levels = patch_features.level_shapes(input_size)
        self.grid = height, width = self.levels[0][1:]
        self.places = height * width
        self.dim = sum(shape[0] for shape in self.levels) if f.weight is None else len(f.weight)
        self.register_buffer("bias", None if f.bias is None else torch.from_numpy(f.bias))
        # Convolutions of 1 x 1: that of p, or one for each level; `graph_writing.with_f` finds them
        # by their names.
        self.parts = 0
        self.f_first = False
        if f.weight is not None:
            channels = [shape[0] for shape in self.levels]
            if f_first is None:
                f_first = f_comes_first(self.levels, self.dim, patch_features.neighbourhood)
            self.f_first = f_first
            parts = torch.from_numpy(f.weight)[:, :, None, None].split(
                channels if f_first else sum(channels), dim=1
            )
            self.parts = len(parts)
            for i, part in enumerate(parts):
                self.register_buffer(f"weight_{i}", part.contiguous())
        self.eval()

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Represented patches (B, P, D) of photos (B, 3, H, W) in 0 to 1, in raster order."""
        levels = self.patch_features.levels(photos)
        s = self.patch_features.neighbourhood
        if self.f_first:
            r = self._f_on_each_level(levels, s)
        else:
            p = join_levels([average_neighbourhood(level, s) for level in levels])
            r = F.conv2d(p, self.weights[0]) if self.weights else p
        r = r.reshape(-1, self.dim, self.places).transpose(1, 2)
        # Last of all: the zeros around a level would otherwise take part in the bias.
        return r if self.bias is None else r + self.bias

    @property
    def weights(self) -> list[torch.Tensor]:
        """The weight of f, (D, C, 1, 1), or its part for each level; none of the identity."""
        return [self.get_buffer(f"weight_{i}") for i in range(self.parts)]

    def _f_on_each_level(self, levels: Sequence[torch.Tensor], s: int) -> torch.Tensor:
        """f p as a sum over the levels, each multiplied at its own resolution: (B, D, h, w)."""
        parts = [
            average_neighbourhood(F.conv2d(level, weight), s)
            if len(weight) < weight.shape[1]  # the mean is taken of the fewer channels
            else F.conv2d(average_neighbourhood(level, s), weight)
            for level, weight in zip(levels, self.weights, strict=True)
        ]
        resized = [
            F.interpolate(part, size=self.grid, mode="bilinear", align_corners=False)
            for part in parts[1:]
        ]
        return sum(resized, start=parts[0])

    def to_onnx(self) -> bytes:
        """The graph for an extractor, weights inside; equal modules give equal bytes."""
        free = {name: {0: "batch"} for name in (INPUT_NAME, OUTPUT_NAME)}
        example = (torch.zeros(2, 3, *self.input_size),)
        return to_onnx(self, example, [INPUT_NAME], [OUTPUT_NAME], free, format_grid(self.grid))


class InspectionGraph(RepresentedPatches):
    """Photos and a bank in, scores and maps out.

    Args:
        patch_features: from photos to p.
        f: the representation.
        scoring: how distances become a score and a map.
        input_size: (H, W) of the photos, in pixels.
        rows: how many rows the bank has now; it may grow, which takes more memory.
        f_first: whether f is applied to each level; None: where that is cheaper.
    """

    down: torch.Tensor
    across: torch.Tensor
    contrast: torch.Tensor
    smooth_rows: torch.Tensor
    smooth_columns: torch.Tensor

    def __init__(
        self,
        patch_features: PatchFeatures,
        f: Representation,
        scoring: ScoringSettings,
        input_size: tuple[int, int],
        rows: int,
        *,
        f_first: bool | None = None,
    ) -> None:
        super().__init__(patch_features, f, input_size, f_first=f_first)
        self.scoring = scoring
        self.b = min(scoring.b, rows)
        self.block = max(1, _BLOCK_ELEMENTS // rows)  # places that are searched at a time
        down, across = (
            resize_and_blur_matrix(cells, pixels, scoring.blur)
            for cells, pixels in zip(self.grid, input_size, strict=True)
        )
        for axis, cells in zip(("rows", "columns"), self.grid, strict=True):
            matrix = resize_and_blur_matrix(cells, cells, scoring.smooth)
            self.register_buffer(f"smooth_{axis}", torch.from_numpy(matrix))
        self.register_buffer("down", torch.from_numpy(down))  # (H, h)
        self.register_buffer("across", torch.from_numpy(across))  # (W, w)
        self.register_buffer("contrast", torch.from_numpy(scoring.weights(self.dim)))  # (D,)
        self.eval()

    def forward(  # type: ignore[override]
        self,
        photos: torch.Tensor,
        bank: torch.Tensor,
        norms: torch.Tensor,
        mask: torch.Tensor,
        scales: torch.Tensor | None = None,
    ) -> Outputs:
        """Inspect (B, 3, H, W) photos in 0 to 1 with the (M, D) rows of a bank.

        Args:
            photos: prepared by the model's preprocessing.
            bank: (M, D) float32.
            norms: (M,) float32, squared norms of the rows.
            mask: (M,) bool, the rows that take part.
            scales: (M,) float32, how sparse the bank is around each row; only with `density`.
        """
        r = super().forward(photos)  # (B, P, D)
        norms = torch.where(mask, norms, torch.tensor(_NOWHERE, device=norms.device))
        nearest = self.search(r, bank, norms)  # (B, P)
        # The product cancels near zero: the distance to the winner is taken directly.
        difference = r - bank[nearest]  # (B, P, D)
        distances = weighted = difference.square().sum(2).sqrt()
        if self.scoring.contrast != 1:
            weighted = (difference * self.contrast).square().sum(2).sqrt()
        if scales is not None:
            weighted = weighted / scales[nearest]
        score, worst = self.score(r, weighted, nearest, bank, norms)
        return Outputs(score, self.draw(distances), distances, nearest, worst, r)

    # --- Eq. 9 ---------------------------------------------------------------------------------

    def search(self, r: torch.Tensor, bank: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
        """The row r* nearest to each patch: (B, P) int64."""
        blocks = []
        for start in range(0, self.places, self.block):
            end = min(start + self.block, self.places)
            flat = r[:, start:end].reshape(-1, self.dim)
            # ||q||² is the same for all rows, so it cannot change which is nearest.
            found = torch.addmm(norms, flat, bank.T, alpha=-2.0).argmin(1)
            blocks.append(found.reshape(-1, end - start))
        return torch.cat(blocks, 1)

    # --- Eq. 10 --------------------------------------------------------------------------------

    def score(
        self,
        r: torch.Tensor,
        distances: torch.Tensor,
        nearest: torch.Tensor,
        bank: torch.Tensor,
        norms: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The image score and the patch that gave it: (B,) and (B,) int64."""
        worst = distances.argmax(1)
        if self.scoring.top > 0:
            count = top_count(self.scoring.top, self.places)
            return self.smooth(distances).topk(count, dim=1).values.mean(1), worst
        if self.b == 1:
            return distances.amax(1), worst
        if self.scoring.reweight == "every":
            flat = self._reweighted(r.reshape(-1, self.dim), nearest.reshape(-1), bank, norms)
            s = flat.reshape(-1, self.places)
            return s.amax(1), s.argmax(1)
        index = worst[:, None]
        patch = torch.gather(r, 1, index[:, :, None].expand(-1, -1, self.dim)).squeeze(1)
        row = torch.gather(nearest, 1, index).squeeze(1)
        return self._reweighted(patch, row, bank, norms), worst

    def _reweighted(
        self, patch: torch.Tensor, row: torch.Tensor, bank: torch.Tensor, norms: torch.Tensor
    ) -> torch.Tensor:
        """s_t of (Q, D) patches whose nearest rows are (Q,): (Q,)."""
        between = torch.addmm(norms, bank[row], bank.T, alpha=-2.0)  # (Q, M), up to ||r*||²
        # r* itself comes first, even among its copies.
        itself = torch.arange(bank.shape[0], device=row.device)[None, :] == row[:, None]
        between = torch.where(itself, torch.tensor(-_NOWHERE, device=row.device), between)
        neighbours = between.topk(self.b, dim=1, largest=False).indices  # (Q, b)
        to_rows = (patch[:, None, :] - bank[neighbours]).square().sum(2).sqrt()
        return (1.0 - to_rows.softmax(1)[:, 0]) * to_rows[:, 0]

    def smooth(self, distances: torch.Tensor) -> torch.Tensor:
        """Patch distances (B, P) blurred on their grid: (B, P)."""
        if self.scoring.smooth == 0:
            return distances
        grids = distances.reshape(-1, *self.grid)
        return (self.smooth_rows @ grids @ self.smooth_columns.T).reshape(-1, self.places)

    # --- Map -----------------------------------------------------------------------------------

    def draw(self, distances: torch.Tensor) -> torch.Tensor:
        """Anomaly maps (B, H, W) of patch distances (B, P): bilinear upsampling, then blur."""
        maps = distances.reshape(-1, *self.grid)
        return self.down @ maps @ self.across.T

    # --- ONNX ----------------------------------------------------------------------------------

    def to_onnx(self) -> bytes:
        """The graph for an engine (`engines`), weights inside; equal modules give equal bytes."""
        given = {
            "photos": torch.zeros(2, 3, *self.input_size),
            "bank": torch.zeros(self.b + 1, self.dim),
            "norms": torch.zeros(self.b + 1),
            "mask": torch.ones(self.b + 1, dtype=torch.bool),
        }
        if self.scoring.density > 0:
            given[SCALES] = torch.ones(self.b + 1)
        free = {name: {0: "rows"} for name in given}
        free |= {name: {0: "batch"} for name in (*BATCH_INPUTS, *GRAPH_OUTPUTS)}
        example, grid = tuple(given.values()), format_grid(self.grid)
        return to_onnx(self, example, list(given), GRAPH_OUTPUTS, free, grid)


def f_comes_first(levels: Sequence[Sequence[int]], dim: int, s: int) -> bool:
    """Whether f on each level takes fewer multiplications than f on the joined levels.

    Counted are f, the mean over s x s (s² a value) and the resizing (4 a value).

    Args:
        levels: (C_l, H_l, W_l) of each, finest first.
        dim: D.
        s: side of the neighbourhood.
    """
    finest = levels[0][1] * levels[0][2]
    each = joined = 0
    for i, (channels, height, width) in enumerate(levels):
        places, resized = height * width, 4 * finest if i else 0
        each += places * (channels * dim + s * s * min(channels, dim)) + resized * dim
        joined += finest * channels * dim + places * channels * s * s + resized * channels
    return each < joined
