"""The whole inspection as one graph: from prepared photos and a bank to scores and maps.

    photos ── patch features ── r = f(p) ── nearest rows of the bank (9) ── score (10), map
                                                └── bank, norms, mask: inputs, no constants

It is written once per model and run by any engine (`reconpatch.engine.engines`).

    B photos, H x W pixels, P = h * w places, D channels of r, M rows of the bank
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reconpatch.engine.engines import (
    COMPOSITIONS,
    DEFECTS,
    DISCRIMINANT,
    GRAPH_OUTPUTS,
    SCALES,
    UNITS,
    WHITENING,
)
from reconpatch.features.feature_graph import FeatureSteps
from reconpatch.features.graph_builder import INDICES, BackboneGraph
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import (
    LIKENESS_RANGE,
    NO_DISTANCE,
    TOWARDS_RANGE,
    TOWARDS_UNIT,
    ScoringSettings,
    resize_and_blur_matrix,
    top_count,
)

# Distances held at a time by a graph: 2 ** 24 float32 are 64 MB for one photo.
_BLOCK_ELEMENTS = 2**24
# Stands for the norm of a row that does not take part; far from overflow when it is added to.
_NOWHERE = 1e30


def inspection_graph(
    backbone: BackboneGraph,
    neighbourhood: int,
    f: Representation,
    scoring: ScoringSettings,
    rows: int,
    *,
    f_first: bool | None = None,
) -> bytes:
    """The graph of the whole inspection; equal arguments give equal bytes.

    Beside "photos" (batch, 3, H, W) float32 in 0 to 1 it takes "bank" (M, D) float32, "norms" (M,)
    float32, squared norms of the rows, "mask" (M,) bool, the rows that take part, and with
    `density` "scales" (M,) float32, how sparse the bank is around each row, and with `likeness`
    "defects" (K, D) float32, patches of confirmed defects, and "discriminant" (D + 1,) float32;
    with `composition` "compositions" (n, D), "whitening" (D, D) and "units" (4,) float32, see
    `reconpatch.method.composition`. What it gives: see `reconpatch.engine.engines.Output`.

    Args:
        backbone: from photos to levels.
        neighbourhood: s, the side of the square a feature is averaged over; odd, 1 for none.
        f: the representation.
        scoring: how distances become a score and a map.
        rows: how many rows the bank has now; it may grow, which takes more memory.
        f_first: whether f is applied to each level; None: where that is cheaper.
    """
    steps = _Steps(backbone, neighbourhood, f, f_first)
    steps.inspected(scoring, rows)
    return steps.written()


class _Steps(FeatureSteps):
    """Writes the steps from represented patches to scores and maps."""

    # --- Eq. 9 ---------------------------------------------------------------------------------

    def inspected(self, scoring: ScoringSettings, rows: int) -> None:
        """All outputs, from the represented patches (B, P, D) and the bank."""
        r = self.represented()
        bank = self.takes("bank", ("rows", self.dim))
        norms = self.takes("norms", ("rows",))
        mask = self.takes("mask", ("rows",), np.bool_)
        norms = self.node("Where", mask, norms, self.constant("nowhere", _NOWHERE))
        nearest = self.search(r, bank, norms, max(1, _BLOCK_ELEMENTS // rows), to="nearest")
        # The product cancels near zero: the distance to the winner is taken directly.
        difference = self.node("Sub", r, self.node("Gather", bank, nearest))  # (B, P, D)
        distances = weighted = self.length(difference, to="distances")
        weights = ""
        if scoring.contrast != 1:
            weights = self.constant("contrast", scoring.weights(self.dim))
            weighted = self.length(self.node("Mul", difference, weights))
        likely = self.likeness(scoring, r, weights, weighted) if scoring.likeness > 0 else ""
        if scoring.density > 0:
            scales = self.takes(SCALES, ("rows",))
            weighted = self.node("Div", weighted, self.node("Gather", scales, nearest))
        if likely:
            weighted = self.node("Mul", weighted, likely)
        name = "" if scoring.composition > 0 else "score"
        found = self.score(scoring, r, weighted, nearest, bank, norms, min(scoring.b, rows), name)
        if scoring.composition > 0:
            self.join(found, r, to="score")
        self.draw(distances, scoring.blur)
        places = ("batch", self.places)
        shapes = (
            ("batch",),
            ("batch", *self.size),
            places,
            places,
            ("batch",),
            (*places, self.dim),
        )
        for name, shape in zip(GRAPH_OUTPUTS, shapes, strict=True):
            self.gives(name, shape, np.int64 if name in ("nearest", "worst") else np.float32)

    def search(self, r: str, bank: str, norms: str, block: int, to: str = "") -> str:
        """The row nearest to each patch: (B, P) int64; so many places are searched at a time."""
        blocks = []
        for start in range(0, self.places, block):
            end = min(start + block, self.places)
            part = r
            if (start, end) != (0, self.places):
                bounds = self.integers(start), self.integers(end), self.integers(1)
                part = self.node("Slice", r, *bounds)
            flat = self.node("Reshape", part, self.integers(-1, self.dim))
            # ||q||² is the same for all rows, so it cannot change which is nearest.
            squared = self.node("Gemm", flat, bank, norms, alpha=-2.0, transB=1)
            found = self.node("ArgMin", squared, axis=1, keepdims=0)
            blocks.append(self.node("Reshape", found, self.integers(-1, end - start)))
        return self.node("Concat", *blocks, axis=1, to=to)

    def likeness(self, scoring: ScoringSettings, r: str, weights: str, to_good: str) -> str:
        """What distances (B, P) are multiplied by for being near to confirmed defects: (B, P)."""
        towards = self.towards(r)
        defects = self.takes(DEFECTS, ("defects", self.dim))
        if weights:
            defects, r = self.node("Mul", defects, weights), self.node("Mul", r, weights)
        squares = self.node("Mul", defects, defects)
        norms = self.node("ReduceSum", squares, self.integers(1), keepdims=0)
        nearest = self.search(r, defects, norms, self.places)
        to_defect = self.length(self.node("Sub", r, self.node("Gather", defects, nearest)))
        least = self.constant("no_distance", NO_DISTANCE)
        ratio = self.node("Div", to_good, self.node("Max", to_defect, least))
        low, high = (self.constant(f"likeness.{x}", x) for x in LIKENESS_RANGE)
        like = self.node("Mul", self.node("Clip", ratio, low, high), towards)
        return self.node("Pow", like, self.constant("likeness", scoring.likeness))

    def towards(self, r: str) -> str:
        """What likeness is multiplied by for the side on which a patch lies: (B, P)."""
        given = self.takes(DISCRIMINANT, (self.dim + 1,))
        w = self.node("Slice", given, self.integers(0), self.integers(self.dim))
        offset = self.node("Slice", given, self.integers(self.dim), self.integers(self.dim + 1))
        projected = self.node("ReduceSum", self.node("Mul", r, w), self.integers(2), keepdims=0)
        low, high = (self.constant(f"towards.{x}", x) for x in TOWARDS_RANGE)
        held = self.node("Clip", self.node("Add", projected, offset), low, high)
        return self.node("Exp", self.node("Div", held, self.constant("unit", TOWARDS_UNIT)))

    def length(self, x: str, to: str = "") -> str:
        """Euclidean norm over the last of three axes."""
        squared = self.node("Mul", x, x)
        total = self.node("ReduceSum", squared, self.integers(2), keepdims=0)
        return self.node("Sqrt", total, to=to)

    # --- Eq. 10 --------------------------------------------------------------------------------

    def score(
        self,
        scoring: ScoringSettings,
        r: str,
        weighted: str,
        nearest: str,
        bank: str,
        norms: str,
        b: int,
        to: str,
    ) -> str:
        """The image score by patches and the patch that gave it: (B,), and (B,) int64 "worst"."""
        if b > 1 and scoring.reweight == "every":
            flat = self.node("Reshape", r, self.integers(-1, self.dim))
            rows = self.node("Reshape", nearest, self.integers(-1))
            s = self._reweighted(flat, rows, bank, norms, b)
            s = self.node("Reshape", s, self.integers(-1, self.places))
            self.node("ArgMax", s, axis=1, keepdims=0, to="worst")
            return self.node("ReduceMax", s, axes=[1], keepdims=0, to=to)
        worst = self.node("ArgMax", weighted, axis=1, keepdims=0, to="worst")
        if scoring.top > 0:
            count = self.integers(top_count(scoring.top, self.places))
            largest = self.node("TopK", self.smooth(weighted, scoring.smooth), count, axis=1)
            if scoring.overall == 0:
                return self.node("ReduceMean", largest, axes=[1], keepdims=0, to=to)
            top = self.node("ReduceMean", largest, axes=[1], keepdims=0)
            mean = self.node("ReduceMean", weighted, axes=[1], keepdims=0)
            weight = self.constant("overall", scoring.overall)
            return self.node("Add", top, self.node("Mul", mean, weight), to=to)
        if b == 1:
            return self.node("ReduceMax", weighted, axes=[1], keepdims=0, to=to)
        index = self.node("Unsqueeze", worst, self.integers(1))
        patch = self.node("GatherND", r, index, batch_dims=1)  # (B, D)
        row = self.node("GatherND", nearest, index, batch_dims=1)  # (B,)
        return self._reweighted(patch, row, bank, norms, b, to=to)

    def join(self, score: str, r: str, to: str) -> str:
        """The image score by patches (B,) joined with that of the composition: (B,)."""
        rows = self.takes(COMPOSITIONS, ("good_photos", self.dim))
        whitening = self.takes(WHITENING, (self.dim, self.dim))
        units = self.takes(UNITS, (4,))
        mean, deviation, mean_c, deviation_c = (
            self.node("Slice", units, self.integers(i), self.integers(i + 1)) for i in range(4)
        )
        whole = self.node("ReduceMean", r, axes=[1], keepdims=1)  # (B, 1, D)
        between = self.node("Sub", self.node("MatMul", whole, whitening), rows)  # (B, n, D)
        c = self.node("ReduceMin", self.length(between), axes=[1], keepdims=0)
        by_patches = self.node("Div", self.node("Sub", score, mean), deviation)
        by_whole = self.node("Div", self.node("Sub", c, mean_c), deviation_c)
        # log(exp(a) + exp(b)) with the larger of both taken out, so that neither overflows.
        larger = self.node("Max", by_patches, by_whole)
        apart = self.node("Abs", self.node("Sub", by_patches, by_whole))
        one = self.constant("1.0", 1.0)
        rest = self.node("Log", self.node("Add", one, self.node("Exp", self.node("Neg", apart))))
        joined = self.node("Mul", self.node("Add", larger, rest), deviation)
        return self.node("Add", joined, mean, to=to)

    def _reweighted(self, patch: str, row: str, bank: str, norms: str, b: int, to: str = "") -> str:
        """s_t of (Q, D) patches whose nearest rows are (Q,): (Q,)."""
        of_rows = self.node("Gather", bank, row)
        between = self.node("Gemm", of_rows, bank, norms, alpha=-2.0, transB=1)  # up to ||r*||²
        # r* itself comes first, even among its copies.
        count = self.node("Squeeze", self.node("Shape", bank, start=0, end=1))
        zero, one = self.constant("0", 0, np.int64), self.constant("1", 1, np.int64)
        numbers = self.node("Unsqueeze", self.node("Range", zero, count, one), self.integers(0))
        itself = self.node("Equal", numbers, self.node("Unsqueeze", row, self.integers(1)))
        between = self.node("Where", itself, self.constant("first", -_NOWHERE), between)
        nearest = self.node("TopK", between, self.integers(b), axis=1, largest=0) + INDICES
        patches = self.node("Unsqueeze", patch, self.integers(1))
        to_rows = self.length(self.node("Sub", patches, self.node("Gather", bank, nearest)))
        share = self.node("Gather", self.node("Softmax", to_rows, axis=1), zero, axis=1)
        weight = self.node("Sub", self.constant("1.0", 1.0), share)
        return self.node("Mul", weight, self.node("Gather", to_rows, zero, axis=1), to=to)

    def smooth(self, distances: str, sigma: float) -> str:
        """Patch distances (B, P) blurred on their grid: (B, P)."""
        if sigma == 0:
            return distances
        smooth = self._resized_and_blurred(distances, self.grid, sigma, "smooth")
        return self.node("Reshape", smooth, self.integers(-1, self.places))

    # --- Map -----------------------------------------------------------------------------------

    def draw(self, distances: str, blur: float) -> None:
        """Anomaly maps (B, H, W) of patch distances (B, P): bilinear upsampling, then blur."""
        self._resized_and_blurred(distances, self.size, blur, "draw", to="map")

    def _resized_and_blurred(
        self, x: str, size: Sequence[int], sigma: float, name: str, to: str = ""
    ) -> str:
        down, across = (
            resize_and_blur_matrix(cells, pixels, sigma)
            for cells, pixels in zip(self.grid, size, strict=True)
        )
        x = self.node("Reshape", x, self.integers(-1, *self.grid))
        x = self.node("MatMul", self.constant(f"{name}.down", down), x)
        return self.node("MatMul", x, self.constant(f"{name}.across", across.T), to=to)
