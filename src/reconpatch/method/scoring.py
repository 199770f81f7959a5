"""Turn patch distances into an image score (eq. 10) and an anomaly map."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reconpatch.errors import SettingsError
from reconpatch.method.composition import Composition
from reconpatch.method.memory_bank import Floats, Ints, MemoryBank, distances, nearest_distance
from reconpatch.photos.layout import Layout

Reweight = Literal["largest", "every"]
Scores = npt.NDArray[np.float64]

MOST_OVERALL = 10.0
"""The largest `ScoringSettings.overall`."""

_BLOCK = 512  # side of the parts that a large map is drawn in, in pixels
_NO_WEIGHT = 1e-6  # of an average: nothing that is inspected is near


@dataclass(frozen=True)
class ScoringSettings:
    """How patch distances become an image score and a map.

    Attributes:
        b: rows in N_b(r*) of eq. 10, r* included; 1 means no re-weighting. The paper does not say;
            anomalib takes 9, the PatchCore paper 3, PatchCore's own code 1.
        reweight: "every" weighs each patch before the maximum, as eq. 10 is written; "largest"
            weighs only the patch with the largest distance, as PatchCore's paper does.
        top: share of a photo's patches, the most distant ones, whose mean is the image score; 0
            takes the largest alone, as the paper does. At least one patch; not with b above 1. Of
            a photo in tiles, as many as that share of one tile: a defect is as large in a large
            photo as in a small one.
        smooth: standard deviation, in places of the grid, of a Gaussian blur of the distances
            before that mean is taken: a defect covers more than one place, what is odd by chance
            does not. 0 for none; only with top above 0.
        overall: how much the mean of all of a photo's distances, weighted as they are, counts
            beside that mean of the most distant ones: what is wrong a little everywhere, such as a
            part that is worn, dull or of another lot, is told from noise by it. 0 for not at all;
            only with top above 0. A fit chooses it by the good photos: see
            `FitSettings.overall_share`.
        blur: standard deviation of the Gaussian blur of the map, in pixels of the model's input.
        principal: leading dimensions of r that are principal directions; see
            `reconpatch.method.contrastive_components`. The others are contrastive components.
        contrast: how much more the contrastive components count in the image score than in the
            search and in the map: they answer to small defects, and to the edges of large ones. Not
            with b above 1.
        density: how much the image score makes of how sparse the bank is around the nearest row: a
            distance is divided by that row's scale, see `reconpatch.method.memory_bank.row_scales`,
            of this power; 0 for not at all. The map shows distances as they are. Not with b above
            1.
        likeness: how much the image score makes of how like a patch is to confirmed defects: a
            distance is multiplied by the `likeness` of this power; 0 for not at all. A fit that
            learns from confirmed defects chooses it by their number. Not with b above 1.
        composition: how much what the photo is made of as a whole counts in the image score, beside
            patches; 0 for not at all. A fit chooses it by the good photos: see
            `reconpatch.method.composition`.
    """

    b: int = 1
    reweight: Reweight = "largest"
    top: float = 0.0
    smooth: float = 0.0
    overall: float = 0.0
    blur: float = 4.0
    principal: int = 0
    contrast: float = 1.0
    density: float = 0.0
    likeness: float = 0.0
    composition: float = 0.0

    def __post_init__(self) -> None:
        if self.b < 1:
            raise SettingsError(f"b is {self.b}: give 1 (no re-weighting) or more bank rows")
        if self.reweight not in ("largest", "every"):
            raise SettingsError(f"reweight is {self.reweight!r}: give 'largest' or 'every'")
        if not 0 <= self.top <= 1:
            raise SettingsError(f"top is {self.top}: give a share of the patches, 0 to 1")
        if self.top > 0 and self.b > 1:
            raise SettingsError(
                f"top is {self.top} and b is {self.b}: the mean of the most distant patches is not "
                "re-weighted, so give one of top=0 and b=1"
            )
        if not 0 <= self.smooth <= 10:
            raise SettingsError(f"smooth is {self.smooth}: give 0 to 10 places of the grid")
        if self.smooth > 0 and self.top == 0:
            raise SettingsError(
                f"smooth is {self.smooth} and top is 0: the largest distance alone is not "
                "smoothed, so give a top above 0, such as 0.005, or smooth=0"
            )
        if not 0 <= self.overall <= MOST_OVERALL:
            raise SettingsError(f"overall is {self.overall}: give 0 to {MOST_OVERALL:g}")
        if self.overall > 0 and self.top == 0:
            raise SettingsError(
                f"overall is {self.overall} and top is 0: the largest distance alone is no mean, "
                "so give a top above 0, such as 0.005, or overall=0"
            )
        if self.principal < 0:
            raise SettingsError(f"principal is {self.principal}: give 0 or more dimensions of r")
        if not 0 <= self.contrast <= 100:
            raise SettingsError(f"contrast is {self.contrast}: give 0 to 100, 1 for no difference")
        if self.contrast != 1 and self.b > 1:
            raise SettingsError(
                f"contrast is {self.contrast} and b is {self.b}: re-weighting takes the distances "
                "as they are, so give one of contrast=1 and b=1"
            )
        if not 0 <= self.density <= 4:
            raise SettingsError(f"density is {self.density}: give 0 (no difference) to 4")
        if self.density > 0 and self.b > 1:
            raise SettingsError(
                f"density is {self.density} and b is {self.b}: both weigh by how dense the bank "
                "is, so give one of density=0 and b=1"
            )
        if not 0 <= self.likeness <= 4:
            raise SettingsError(f"likeness is {self.likeness}: give 0 (no difference) to 4")
        if self.likeness > 0 and self.b > 1:
            raise SettingsError(
                f"likeness is {self.likeness} and b is {self.b}: re-weighting takes the distances "
                "as they are, so give one of likeness=0 and b=1"
            )
        if not 0 <= self.composition <= 4:
            raise SettingsError(f"composition is {self.composition}: give 0 (no difference) to 4")
        if not 0 <= self.blur <= 100:
            raise SettingsError(f"blur is {self.blur}: give 0 to 100 pixels of the model's input")

    @property
    def weighs(self) -> bool:
        """Whether the image score takes other distances than the map."""
        return self.contrast != 1 or self.density > 0 or self.likeness > 0

    def weights(self, dim: int) -> Floats:
        """(D,) float32, what each dimension of a difference is multiplied by."""
        found = np.ones(dim, np.float32)
        found[self.principal :] *= np.float32(self.contrast)
        return found

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class PatchScores:
    """One photo against the bank.

    Attributes:
        distances: (P,) float32, D(f(p_t), r*) of each patch; what the map shows.
        nearest: (P,) int64, row r* of the bank for each patch.
        image_score: max_t s_t (eq. 10), or the mean of the largest weighted distances; joined with
            the composition, where the bank has one.
        worst: index of the patch that gave the image score, or the largest part of it.
        whole: whether the composition makes most of the image score.
    """

    distances: Floats
    nearest: Ints
    image_score: float
    worst: int
    whole: bool = False


def score_patches(
    patches: Floats, bank: MemoryBank, settings: ScoringSettings, layout: Layout
) -> PatchScores:
    """Compare the (P, D) represented patches of one photo with the bank (eq. 9 and 10).

    Args:
        patches: (P, D) float32 in raster order.
        bank: the memory bank.
        settings: how distances become a score.
        layout: where the P patches lie.
    """
    scored = score_nearest(patches, *bank.nearest(patches), bank, settings, layout)
    return with_composition(scored, patches, bank)


def with_composition(scored: PatchScores, patches: Floats, bank: MemoryBank) -> PatchScores:
    """Join the score of a photo by its patches alone with that of its composition.

    Args:
        scored: by patches alone.
        patches: (P, D) float32, all of the photo's.
        bank: the memory bank; without a composition the score stays.
    """
    if bank.composition is None:
        return scored
    c = bank.composition.of_patches(patches)
    joined = bank.composition.joined(np.array([scored.image_score]), c)
    return _told(replace(scored, image_score=float(joined[0])), c, bank.composition)


def told_whole(joined: PatchScores, patches: Floats, bank: MemoryBank) -> PatchScores:
    """Say of a joined score whether the composition makes most of it."""
    if bank.composition is None:
        return joined
    return _told(joined, bank.composition.of_patches(patches), bank.composition)


def _told(joined: PatchScores, c: Scores, composition: Composition) -> PatchScores:
    share = composition.share(np.array([joined.image_score]), c)
    return replace(joined, whole=bool(share[0] > 0.5))


def score_nearest(
    patches: Floats | None,
    nearest_distances: Floats,
    nearest: Ints,
    bank: MemoryBank,
    settings: ScoringSettings,
    layout: Layout,
    weighted: Floats | None = None,
) -> PatchScores:
    """Score (P, D) patches by themselves, their (P,) nearest rows and distances known (eq. 10).

    Without re-weighting, b = 1, and with the `weighted_distances`, if they are known already, it
    goes without the patches themselves.
    """
    if weighted is None:
        assert patches is not None
        weighted = weighted_distances(patches, nearest_distances, nearest, bank, settings)
    worst = int(weighted.argmax())
    if settings.top > 0:
        score = mean_score(weighted, settings, layout)
        return PatchScores(nearest_distances, nearest, score, worst)
    if settings.b == 1 or patches is None:
        return PatchScores(nearest_distances, nearest, float(weighted[worst]), worst)
    score = reweighted_score(patches[worst], int(nearest[worst]), bank, settings.b)
    if settings.reweight == "every" and settings.b > 1:
        # s_t never exceeds D_t, so the search by falling distance ends at the first D_t too small.
        for patch in np.argsort(-nearest_distances, kind="stable")[1:]:
            if nearest_distances[patch] <= score:
                break
            s_t = reweighted_score(patches[patch], int(nearest[patch]), bank, settings.b)
            if s_t > score:
                worst, score = int(patch), s_t
    return PatchScores(nearest_distances, nearest, score, worst)


def weighted_distances(
    patches: Floats,
    nearest_distances: Floats,
    nearest: Ints,
    bank: MemoryBank,
    settings: ScoringSettings,
) -> Floats:
    """Weight the (P,) distances to the nearest rows as the image score takes them.

    Args:
        patches: (P, D) float32, represented.
        nearest_distances: (P,) float32, to the nearest rows; returned where nothing is weighted.
        nearest: (P,) int64, those rows.
        bank: the memory bank.
        settings: `principal`, `contrast`, `density` and `likeness`.
    """
    weighted = nearest_distances
    weights = settings.weights(patches.shape[1])
    if settings.contrast != 1:
        difference = (patches - bank.rows[nearest]) * weights
        weighted = np.sqrt(np.einsum("pd,pd->p", difference, difference))
    by_density = weighted if bank.scales is None else weighted / bank.scales[nearest]
    if settings.likeness == 0 or bank.defects is None:
        return by_density
    to_defect = nearest_distance(patches * weights, bank.defects * weights)
    towards = None
    if bank.discriminant is not None:
        towards = patches @ bank.discriminant[:-1] + bank.discriminant[-1]
    like = likeness(weighted, to_defect, towards)
    return by_density * like ** np.float32(settings.likeness)


LIKENESS_RANGE = 0.25, 4.0
"""What the ratio of distances is held to: far from everything, or on a defect itself, it says no
more."""
NO_DISTANCE = 1e-30
"""Stands for a distance of 0 to a defect."""
TOWARDS_RANGE = -5.0, 10.0
"""What the discriminant is held to, in standard deviations of good patches."""
TOWARDS_UNIT = 10.0
"""Standard deviations towards the defects for which likeness grows by a factor of e."""


def likeness(to_good: Floats, to_defect: Floats, towards: Floats | None = None) -> Floats:
    """Tell how like patches are to confirmed defects, rather than to good patches.

    The ratio of both (P,) distances, 1 where a patch is as near to the one as to the other, times
    an exponential of how far it lies towards the defects. Of two nearest-neighbour estimates of a
    density the first is the likelihood ratio up to a power; of two Gaussians the second is.

    Args:
        to_good: (P,) float32, to the nearest good row.
        to_defect: (P,) float32, to the nearest patch of a confirmed defect.
        towards: (P,) float32, see `reconpatch.method.discriminant`; None leaves it out.
    """
    ratio = to_good / np.maximum(to_defect, np.float32(NO_DISTANCE))
    held: Floats = np.clip(ratio, *LIKENESS_RANGE).astype(np.float32, copy=False)
    if towards is None:
        return held
    sided: Floats = held * np.exp(np.clip(towards, *TOWARDS_RANGE) / np.float32(TOWARDS_UNIT))
    return sided


def mean_score(weighted: Floats, settings: ScoringSettings, layout: Layout) -> float:
    """Compute the image score of (P,) `weighted_distances` for `top` above 0.

    `top_score`, and `overall` times the mean of them all.
    """
    score = top_score(weighted, settings, layout)
    if settings.overall > 0:
        score += settings.overall * float(weighted.mean(dtype=np.float64))
    return score


def top_score(patch_distances: Floats, settings: ScoringSettings, layout: Layout) -> float:
    """Average the most distant of (P,) distances for `top` above 0: smooth, then `top_mean`."""
    if settings.smooth > 0:
        smoothed = _averaged(patch_distances, layout, layout.grid, settings.smooth)
        patch_distances = smoothed.ravel()[layout.cell_of]
    count = min(top_count(settings.top, layout.counted), len(patch_distances))
    return top_mean(patch_distances, count)


OVERALL_HALF = 50
"""Good parts of which `overall_weight` takes half of the share."""
LARGEST_RATIO = 3.0
"""By how much the mean is multiplied at most, before that: 1 to 3 on real products. Where good
photos have all but the same mean, f knows them too well, and a new one's is larger for that alone.
"""


def overall_weight(top: Scores, overall: Scores, share: float, parts: int) -> float:
    """Choose `ScoringSettings.overall` by the good photos, each as if it were new.

    Args:
        top: (n,) image scores with overall = 0.
        overall: (n,) means of all distances.
        share: how much the second counts beside the first, each by its standard deviation, of very
            many parts. Few show little of how whole photos vary, in light above all, so it is
            multiplied by parts / (parts + OVERALL_HALF).
        parts: how many different good parts there are.

    Returns:
        Less than `LARGEST_RATIO`; 0 where one of them does not vary.
    """
    spread = float(overall.std())
    ratio = min(share * float(top.std()) / spread, LARGEST_RATIO) if spread > 0 else 0.0
    return ratio * parts / (parts + OVERALL_HALF)


def top_mean(patch_distances: Floats, count: int) -> float:
    """Average the `count` largest of (P,) distances."""
    largest = np.partition(patch_distances, -count)[-count:]
    return float(largest.mean(dtype=np.float64))


def top_count(share: float, patches: int) -> int:
    """Convert a share of the patches to a number, rounded, at least one."""
    return max(1, round(share * patches))


def reweighted_score(patch: Floats, nearest: int, bank: MemoryBank, b: int) -> float:
    """s_t = (1 - exp(s') / Σ_{r in N_b(r*)} exp(D(f(p), r))) s', s' = D(f(p), r*) (eq. 10).

    A nearest row in a sparse part of the bank weighs more than one in a dense part. The fraction is
    a soft-max, taken after the largest exponent is subtracted, so no distance overflows.

    Args:
        patch: (D,) represented patch f(p).
        nearest: row r* of the bank nearest to it.
        bank: the memory bank.
        b: rows in N_b(r*), r* included; 1 returns the distance itself.
    """
    neighbours = bank.neighbours_of(nearest, b)
    to_rows = distances(
        np.broadcast_to(patch, (len(neighbours), len(patch))), bank.rows[neighbours]
    )
    s_prime = float(to_rows[0])
    if len(neighbours) == 1:
        return s_prime
    exponents = np.exp(to_rows - to_rows.max(), dtype=np.float64)
    return float((1.0 - exponents[0] / exponents.sum()) * s_prime)


def draw(
    patch_distances: Floats, layout: Layout, blur: float, size: tuple[int, int] | None = None
) -> Floats:
    """Draw the anomaly map of a photo: bilinear upsampling, then Gaussian blur.

    Args:
        patch_distances: (P,) float32.
        layout: where the patches lie.
        blur: standard deviation in pixels of the model's input; 0 for none.
        size: height and width of the map; None takes those of the layout. The blur stays the same
            share of the photo.

    Returns:
        (height, width) float32; no value exceeds the largest distance. Outside of the inspected
        cells it goes on as it ends at their edge.
    """
    height, width = size or layout.size
    covered = (
        round(layout.covered[0] * height / layout.size[0]),
        round(layout.covered[1] * width / layout.size[1]),
    )
    down, across = height / layout.size[0], width / layout.size[1]
    sigma = (blur * layout.scale * down, blur * layout.scale * across)
    return _averaged(patch_distances, layout, covered, sigma)[:height, :width]


def _averaged(
    patch_distances: Floats,
    layout: Layout,
    size: tuple[int, int],
    blur: float | tuple[float, float],
) -> Floats:
    """Draw `anomaly_map` of the inspected cells alone: the others have no weight."""
    drawn = anomaly_map(layout.on_grid(patch_distances).ravel(), layout.grid, size, blur)
    if layout.inspected is None:
        return drawn
    weight = anomaly_map(layout.inspected.ravel().astype(np.float32), layout.grid, size, blur)
    return np.divide(drawn, weight, out=np.zeros_like(drawn), where=weight > _NO_WEIGHT)


def anomaly_map(
    patch_distances: Floats,
    grid: tuple[int, int],
    size: tuple[int, int],
    blur: float | tuple[float, float],
) -> Floats:
    """Draw patch distances on one grid as a map: bilinear upsampling, then Gaussian blur.

    Args:
        patch_distances: (h * w,) float32 in raster order.
        grid: h, w.
        size: height and width of the map, such as those of the model's input.
        blur: standard deviation in pixels of the map, or one down and one across; 0 for none.

    Returns:
        (height, width) float32. Both steps are averages, so no value exceeds the largest distance.
    """
    grid_map = patch_distances.reshape(grid)
    down, across = blur if isinstance(blur, tuple) else (blur, blur)
    rows = resize_and_blur_matrix(grid[0], size[0], down)
    columns = resize_and_blur_matrix(grid[1], size[1], across)
    if max(size) <= _BLOCK:
        return np.asarray(rows @ grid_map @ columns.T, dtype=np.float32)
    drawn = np.empty(size, np.float32)
    for y in range(0, size[0], _BLOCK):
        part, cells = _used(rows[y : y + _BLOCK])
        strip = part @ grid_map[cells]
        for x in range(0, size[1], _BLOCK):
            part, cells = _used(columns[x : x + _BLOCK])
            drawn[y : y + _BLOCK, x : x + _BLOCK] = strip[:, cells] @ part.T
    return drawn


def _used(rows: Floats) -> tuple[Floats, slice]:
    """The columns of some rows of a matrix that are not all zero, and which those are.

    A pixel is an average of the few cells around it, so of a large map a block needs few.
    """
    used = np.flatnonzero(rows.any(axis=0))
    cells = slice(int(used[0]), int(used[-1]) + 1)
    return rows[:, cells], cells


@lru_cache(maxsize=32)
def resize_and_blur_matrix(cells: int, pixels: int, blur: float) -> Floats:
    """Upsampling and blur along one axis as one (pixels, cells) matrix; each row sums to 1.

    Both are linear and separable, so two small products do the work of two filters. The blur is
    Gaussian, cut off at 4 sigma, edges mirrored (b a | a b c).
    """
    reach = math.ceil(4 * blur)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / blur) ** 2) if blur else np.ones(1)
    source = (np.arange(pixels)[:, None] + offsets) % (2 * pixels)  # (pixels, offsets)
    source = np.where(source < pixels, source, 2 * pixels - 1 - source)
    centres = np.clip((source + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    below = np.minimum(centres.astype(np.int64), max(cells - 2, 0))
    share = (centres - below) * (weights / weights.sum())
    matrix = np.zeros((pixels, cells))
    rows = np.broadcast_to(np.arange(pixels)[:, None], source.shape)
    np.add.at(matrix, (rows, below), weights / weights.sum() - share)
    np.add.at(matrix, (rows, np.minimum(below + 1, cells - 1)), share)
    return matrix.astype(np.float32)
