"""Patch features as steps of a graph, on top of any backbone's: from photos to p, or to r = f(p).

    photos ── backbone ── levels ── s x s mean, f, one grid ── features (B, P, D)

f, the mean over s x s and the bilinear resizing of the levels are all linear, so f may be applied
to each level before the levels are joined, at the level's own resolution; it is where that takes
fewer multiplications. A fit extracts its features by these steps, and `reconpatch.engine.graph`
puts the search, the score and the map after the very same ones.

    B photos, H x W pixels, P = h * w places, C channels of p, D of r
"""

from __future__ import annotations

from collections.abc import Sequence

from reconpatch.features.extractor import GRID_KEY, OUTPUT_NAME, format_grid
from reconpatch.features.graph_builder import BackboneGraph, GraphBuilder, Level
from reconpatch.method.memory_bank import Floats
from reconpatch.method.representation import Representation

_STEPS = "/steps/"


def feature_graph(
    backbone: BackboneGraph, neighbourhood: int, f: Representation | None = None
) -> bytes:
    """The graph from photos to patch features p, or to f(p), for `reconpatch.features.extractor`.

    Input "photos" (batch, 3, H, W) float32 in 0 to 1, output "features" (batch, h*w, C or D)
    float32 in raster order. The grid is in the graph's metadata.

    Args:
        backbone: from photos to levels.
        neighbourhood: s, the side of the square a feature is averaged over; odd, 1 for none.
        f: the representation; None for p itself.
    """
    steps = FeatureSteps(backbone, neighbourhood, f or Representation())
    steps.represented()
    steps.gives(OUTPUT_NAME, ("batch", steps.places, steps.dim))
    return steps.written()


class FeatureSteps(GraphBuilder):
    """Writes the steps from a backbone's levels to represented patches.

    Attributes:
        size: (H, W) of the photos, in pixels.
        grid: (h, w).
        places: P.
        dim: D, or C where f is the identity.

    Args:
        backbone: from photos to levels.
        neighbourhood: s.
        f: the representation.
        f_first: whether f is applied to each level; None: where that is cheaper.
    """

    def __init__(
        self,
        backbone: BackboneGraph,
        neighbourhood: int,
        f: Representation,
        f_first: bool | None = None,
    ) -> None:
        super().__init__(_STEPS, backbone.graph)
        self.levels = list(zip(self.given, backbone.levels, strict=True))
        self.size, self.grid = backbone.size, backbone.grid
        self.places = self.grid[0] * self.grid[1]
        self.neighbourhood = neighbourhood
        self.f = f
        self.dim = backbone.channels if f.weight is None else len(f.weight)
        if f_first is None:
            f_first = f_comes_first(backbone.levels, self.dim, neighbourhood)
        self.f_first = f_first and f.weight is not None

    def written(self) -> bytes:
        """The graph, its grid in the metadata."""
        return self.serialised(**{GRID_KEY: format_grid(self.grid)})

    def represented(self) -> str:
        """Represented patches (B, P, D) of the photos, in raster order."""
        if self.f_first:
            r = self._f_on_each_level()
        else:
            levels = [self.on_the_grid(self.average(x), level) for x, level in self.levels]
            r = levels[0] if len(levels) == 1 else self.node("Concat", *levels, axis=1)
            if self.f.weight is not None:
                r = self.product(r, self.f.weight)
        r = self.node("Reshape", r, self.integers(-1, self.dim, self.places))
        to = OUTPUT_NAME if self.f.bias is None else ""
        r = self.node("Transpose", r, perm=[0, 2, 1], to=to)
        # Last of all: the zeros around a level would otherwise take part in the bias.
        if self.f.bias is not None:
            r = self.node("Add", r, self.constant("f.bias", self.f.bias), to=OUTPUT_NAME)
        return r

    def _f_on_each_level(self) -> str:
        """f p as a sum over the levels, each multiplied at its own resolution: (B, D, h, w)."""
        assert self.f.weight is not None
        total, start = "", 0
        for x, level in self.levels:
            weight = self.f.weight[:, start : (start := start + level.channels)]
            if len(weight) < level.channels:  # the mean is taken of the fewer channels
                part = self.average(self.product(x, weight))
            else:
                part = self.product(self.average(x), weight)
            part = self.on_the_grid(part, Level(len(weight), level.height, level.width))
            total = self.node("Add", total, part) if total else part
        return total

    def product(self, x: str, weight: Floats) -> str:
        """(B, D, h, w) from (B, C, h, w) by a (D, C) weight."""
        name = f"f.weight_{sum('f.weight' in t.name for t in self.model.graph.initializer)}"
        kernel = self.constant(name, weight[:, :, None, None])
        return self.node("Conv", x, kernel, name="f", kernel_shape=[1, 1])

    def average(self, x: str) -> str:
        """Mean over the s x s places around each place of a map; shape unchanged.

        s is odd; places outside the map count as zeros, as in PatchCore's code, so a feature at the
        border is smaller than the mean of what is there.
        """
        s = self.neighbourhood
        if s == 1:
            return x
        pads = [s // 2] * 4
        return self.node("AveragePool", x, kernel_shape=[s, s], pads=pads, count_include_pad=1)

    def on_the_grid(self, x: str, level: Level) -> str:
        """A level's map (B, C_l, H_l, W_l) at (B, C_l, h, w).

        Bilinear; a place is an area, so that the maps' outer edges coincide.
        """
        if (level.height, level.width) == self.grid:
            return x
        batch = self.node("Shape", x, start=0, end=1)
        shape = self.node("Concat", batch, self.integers(level.channels, *self.grid), axis=0)
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", x, "", "", shape, **how)


def f_comes_first(levels: Sequence[Level], dim: int, s: int) -> bool:
    """Whether f on each level takes fewer multiplications than f on the joined levels.

    Counted are f, the mean over s x s (s² a value) and the resizing (4 a value).

    Args:
        levels: finest first.
        dim: D.
        s: side of the neighbourhood.
    """
    finest = levels[0].height * levels[0].width
    each = joined = 0
    for i, level in enumerate(levels):
        places, channels = level.height * level.width, level.channels
        resized = 4 * finest if i else 0
        each += places * (channels * dim + s * s * min(channels, dim)) + resized * dim
        joined += finest * channels * dim + places * channels * s * s + resized * channels
    return each < joined
