from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from reconpatch.errors import SettingsError
from reconpatch.method import scoring
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.scoring import (
    ScoringSettings,
    anomaly_map,
    reweighted_score,
    score_nearest,
    score_patches,
    top_count,
    weighted_distances,
)
from reconpatch.photos.layout import Layout

ONE_ROW = Layout.whole((1, 1), (1, 1))

E1 = math.e


def bank_of(rows):
    rows = np.asarray(rows, np.float32)
    return MemoryBank(rows, np.zeros(len(rows), np.int64), np.arange(len(rows)), rows)


def normal(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def equation_10(patch, rows, b):
    """s_t as it is written, in float64, for distances that do not overflow."""
    to_patch = [distance(patch, row) for row in rows]
    star = to_patch.index(min(to_patch))
    if b == 1:
        return to_patch[star]
    around = sorted(
        range(len(rows)), key=lambda j: -1.0 if j == star else distance(rows[j], rows[star])
    )
    total = sum(math.exp(to_patch[j]) for j in around[:b])
    return (1 - math.exp(to_patch[star]) / total) * to_patch[star]


def bilinear(grid_map, size):
    """Half-pixel centres, edges repeated, one pixel at a time."""
    h, w = grid_map.shape
    picture = np.empty(size)
    for y in range(size[0]):
        for x in range(size[1]):
            cy = min(max((y + 0.5) * h / size[0] - 0.5, 0), h - 1)
            cx = min(max((x + 0.5) * w / size[1] - 0.5, 0), w - 1)
            top, left = int(cy), int(cx)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            fy, fx = cy - top, cx - left
            picture[y, x] = (1 - fy) * (
                (1 - fx) * grid_map[top, left] + fx * grid_map[top, right]
            ) + fy * ((1 - fx) * grid_map[bottom, left] + fx * grid_map[bottom, right])
    return picture


# equation 10


def test_equation_10_by_hand():
    # D to the rows: 1, 2, 4; the nearest is the first.
    bank, patch = bank_of([[1], [2], [4]]), np.zeros(1, np.float32)
    assert reweighted_score(patch, 0, bank, 1) == 1.0
    assert reweighted_score(patch, 0, bank, 2) == pytest.approx(1 - 1 / (1 + E1), rel=1e-6)
    assert reweighted_score(patch, 0, bank, 3) == pytest.approx(
        1 - E1 / (E1 + E1**2 + E1**4), rel=1e-6
    )


def test_the_neighbours_are_those_of_the_nearest_row_not_of_the_patch():
    # -1.5 is nearer to the patch at 0, but 3 is nearer to the nearest row, 1.
    bank, patch = bank_of([[1], [3], [-1.5]]), np.zeros(1, np.float32)
    assert reweighted_score(patch, 0, bank, 2) == pytest.approx(1 - 1 / (1 + E1**2), rel=1e-6)


@pytest.mark.parametrize("b", [1, 2, 3, 9, 25, 26])
def test_reweighting_is_equation_10_as_it_is_written(b):
    rows, patches = normal((25, 4), seed=0), normal((30, 4), seed=1) * 2
    bank = bank_of(rows)
    _, nearest = bank.nearest(patches)
    for patch, row in zip(patches, nearest, strict=True):
        expected = equation_10(patch, rows, b)
        assert reweighted_score(patch, int(row), bank, b) == pytest.approx(expected, rel=1e-5)


def test_large_distances_do_not_overflow():
    # exp(10000) has no float64; distances 10000 and 10001 differ by exactly 1.
    bank, patch = bank_of([[10_000], [10_001]]), np.zeros(1, np.float32)
    with np.errstate(over="raise", invalid="raise"):
        found = reweighted_score(patch, 0, bank, 2)
    assert found == pytest.approx(10_000 * (1 - 1 / (1 + E1)), rel=1e-6)


def test_a_bank_of_a_single_row_gives_the_distance_itself():
    patch = np.zeros(1, np.float32)
    assert reweighted_score(patch, 0, bank_of([[3]]), 9) == 3.0


def test_copies_of_the_nearest_row_share_its_weight():
    bank, patch = bank_of([[2], [2], [2], [2]]), np.zeros(1, np.float32)
    assert reweighted_score(patch, 0, bank, 4) == pytest.approx(2 * (1 - 1 / 4))


# score_patches


# Patch 0 is further away, but from a dense place of the bank; patch 1 from a sparse one.
TWO_PLACES = [[0, 0], [0, 0], [100, 0]]
TWO_PATCHES = np.array([[10, 0], [100, 9]], np.float32)


def test_largest_weighs_one_patch_and_every_weighs_each():
    bank = bank_of(TWO_PLACES)
    plain = score_patches(TWO_PATCHES, bank, ScoringSettings(), ONE_ROW)
    assert (plain.image_score, plain.worst) == (10.0, 0)
    largest = score_patches(TWO_PATCHES, bank, ScoringSettings(b=2, reweight="largest"), ONE_ROW)
    assert (largest.image_score, largest.worst) == (pytest.approx(5.0), 0)
    every = score_patches(TWO_PATCHES, bank, ScoringSettings(b=2, reweight="every"), ONE_ROW)
    assert (every.image_score, every.worst) == (pytest.approx(9.0), 1)
    for scores in (plain, largest, every):
        assert scores.distances.tolist() == [10.0, 9.0]
        assert scores.nearest.tolist() == [0, 2]


@pytest.mark.parametrize("b", [1, 3, 9, 99])
def test_the_image_score_is_the_largest_weighted_patch(b):
    rows, patches = normal((40, 5), seed=4), normal((30, 5), seed=5)
    raw = [equation_10(patch, rows, 1) for patch in patches]
    weighted = [equation_10(patch, rows, b) for patch in patches]

    every = score_patches(patches, bank_of(rows), ScoringSettings(b, "every"), ONE_ROW)
    assert every.image_score == pytest.approx(max(weighted), rel=1e-5)
    assert every.worst == int(np.argmax(weighted))
    np.testing.assert_allclose(every.distances, raw, rtol=1e-6)

    largest = score_patches(patches, bank_of(rows), ScoringSettings(b, "largest"), ONE_ROW)
    assert largest.worst == int(np.argmax(raw))
    assert largest.image_score == pytest.approx(weighted[largest.worst], rel=1e-5)


def clumped(seed):
    """A bank of tight clumps and lone rows, and patches around it: weights differ widely."""
    rng = np.random.default_rng(seed)
    clumps = np.repeat(rng.normal(0, 5, (6, 3)), 6, axis=0) + rng.normal(0, 0.05, (36, 3))
    lone = rng.normal(0, 5, (6, 3))
    return np.float32(np.concatenate([clumps, lone])), np.float32(rng.normal(0, 4, (50, 3)))


@pytest.mark.parametrize("b", [2, 3, 6, 20])
@pytest.mark.parametrize("seed", range(10))
def test_the_early_stop_of_every_finds_what_the_loop_over_all_patches_finds(b, seed):
    rows, patches = clumped(seed)
    bank = bank_of(rows)
    found = score_patches(patches, bank, ScoringSettings(b, "every"), ONE_ROW)
    scores = [
        reweighted_score(patch, int(row), bank, b)
        for patch, row in zip(patches, bank.nearest(patches)[1], strict=True)
    ]
    assert found.image_score == max(scores)
    assert found.worst == int(np.argmax(scores))


def test_some_clumped_photos_are_decided_by_a_patch_that_is_not_the_most_distant():
    others = 0
    for seed in range(10):
        rows, patches = clumped(seed)
        found = score_patches(patches, bank_of(rows), ScoringSettings(3, "every"), ONE_ROW)
        others += found.worst != int(found.distances.argmax())
    assert others >= 2, "or the test of the early stop above would test nothing"


def test_every_weighs_no_patch_that_is_too_near_to_matter(monkeypatch):
    # Distances 10, 9, 8 and 4; weighed 5 (dense), 9 (sparse): the last two cannot exceed 9.
    weighed = []

    def counted(patch, *rest):
        weighed.append(patch.tolist())
        return reweighted_score(patch, *rest)

    monkeypatch.setattr(scoring, "reweighted_score", counted)
    patches = np.array([[4, 0], [100, 8], [10, 0], [100, 9]], np.float32)
    found = score_patches(patches, bank_of(TWO_PLACES), ScoringSettings(2, "every"), ONE_ROW)
    assert (found.image_score, found.worst) == (pytest.approx(9.0), 3)
    assert weighed == [[10, 0], [100, 9]]


def test_a_good_patch_that_is_in_the_bank_scores_zero():
    rows = normal((10, 4), seed=0)
    for settings in (ScoringSettings(), ScoringSettings(3, "every"), ScoringSettings(3)):
        assert score_patches(rows[2:3], bank_of(rows), settings, ONE_ROW).image_score == 0.0


# contrast


def test_weighted_distances_by_hand():
    # Differences (3, 4) and (0, 2): contrast 2 makes the second numbers 8 and 4.
    bank, patches = bank_of([[0, 0], [9, 9]]), np.array([[3, 4], [9, 11]], np.float32)
    found, nearest = bank.nearest(patches)
    assert (found.tolist(), nearest.tolist()) == ([5, 2], [0, 1])
    settings = ScoringSettings(principal=1, contrast=2.0)
    weighted = weighted_distances(patches, found, nearest, bank, settings)
    np.testing.assert_allclose(weighted, [math.sqrt(73), 4], rtol=1e-6)
    assert weighted.dtype == np.float32
    assert patches.tolist() == [[3, 4], [9, 11]], "the patches stay as they were"
    none = weighted_distances(patches, found, nearest, bank, ScoringSettings(contrast=0.0))
    assert none.tolist() == [0, 0]
    assert weighted_distances(patches, found, nearest, bank, ScoringSettings()) is found


@pytest.mark.parametrize("top", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("contrast", [0.5, 3.0])
def test_contrast_changes_the_image_score_and_neither_search_nor_map(contrast, top):
    rows, patches = normal((25, 5), seed=0), normal((30, 5), seed=1)
    weights = [1, 1] + [contrast] * 3
    nearest = [min(range(25), key=lambda j: distance(p, rows[j])) for p in patches]
    weighted = [
        distance(np.multiply(p, weights), np.multiply(rows[j], weights))
        for p, j in zip(patches, nearest, strict=True)
    ]
    layout = Layout.whole((5, 6), (5, 6))
    settings = ScoringSettings(top=top, principal=2, contrast=contrast)
    found = score_patches(patches, bank_of(rows), settings, layout)
    count = max(1, round(top * 30))
    assert found.image_score == pytest.approx(np.mean(sorted(weighted)[-count:]), rel=1e-5)
    assert found.worst == int(np.argmax(weighted))
    assert found.nearest.tolist() == nearest
    plain = [distance(p, rows[j]) for p, j in zip(patches, nearest, strict=True)]
    np.testing.assert_allclose(found.distances, plain, rtol=1e-5)
    # With the weighted distances the patches themselves are not needed.
    given = (found.distances, found.nearest, bank_of(rows), settings, layout)
    again = score_nearest(None, *given, np.float32(weighted))
    assert (again.image_score, again.worst) == (pytest.approx(found.image_score), found.worst)


# The mean of all distances beside that of the most distant ones


def test_a_little_wrong_everywhere_outscores_noise_by_hand():
    layout = Layout.whole((2, 4), (2, 4))
    noise, worn = np.float32([4, 0, 0, 0, 0, 0, 0, 0]), np.float32([3] * 8)
    of = {
        overall: [
            scoring.mean_score(x, ScoringSettings(top=0.125, overall=overall), layout)
            for x in (noise, worn)
        ]
        for overall in (0.0, 2.0)
    }
    assert of == {0.0: [4.0, 3.0], 2.0: [4.0 + 2 * 0.5, 3.0 + 2 * 3.0]}


def test_the_mean_is_of_all_distances_as_they_are_weighted_and_not_smoothed():
    layout = Layout.whole((3, 3), (3, 3))
    rows, patches = normal((12, 4), seed=5), normal((9, 4), seed=6)
    one, two = (
        score_patches(
            patches,
            bank_of(rows),
            ScoringSettings(top=0.2, smooth=1.0, overall=o, principal=2, contrast=3.0),
            layout,
        )
        for o in (0.0, 1.5)
    )
    nearest = [min(rows, key=lambda row, p=p: distance(p, row)) for p in patches]
    weights = [1, 1, 3, 3]
    mean = (
        sum(
            distance(np.multiply(p, weights), np.multiply(row, weights))
            for p, row in zip(patches, nearest, strict=True)
        )
        / 9
    )
    assert two.image_score - one.image_score == pytest.approx(1.5 * mean, rel=1e-5)


def test_the_weight_of_the_mean_evens_out_how_much_both_vary():
    top, overall = np.array([1.0, 5.0]), np.array([3.0, 4.0])  # they vary by 2 and 0.5
    assert scoring.overall_weight(top, overall, 0.5, 50) == 0.5 * 0.5 * 2.0 / 0.5
    assert scoring.overall_weight(top, overall, 0.5, 150) == 0.75 * 0.5 * 2.0 / 0.5
    assert scoring.overall_weight(top, np.array([3.0, 3.001]), 0.5, 50) == scoring.LARGEST_RATIO / 2
    assert scoring.overall_weight(top, np.array([3.0, 3.0]), 0.5, 50) == 0.0
    assert scoring.overall_weight(np.array([1.0, 1.0]), overall, 0.5, 50) == 0.0


# ScoringSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"b": 0}, "b is 0: give 1"),
        ({"b": -3}, "b is -3"),
        ({"reweight": "all"}, "reweight is 'all': give 'largest' or 'every'"),
        ({"principal": -1}, "principal is -1: give 0 or more dimensions of r"),
        ({"contrast": -1.0}, "contrast is -1.0: give 0 to 100, 1 for no difference"),
        ({"contrast": 101.0}, "contrast is 101.0"),
        ({"contrast": math.nan}, "contrast is nan"),
        ({"contrast": 3.0, "b": 2}, "contrast is 3.0 and b is 2: .* give one of contrast=1"),
        ({"overall": -1.0, "top": 0.1}, "overall is -1.0: give 0 to 10"),
        ({"overall": 10.5, "top": 0.1}, "overall is 10.5"),
        ({"overall": math.nan, "top": 0.1}, "overall is nan"),
        ({"overall": 1.0}, "overall is 1.0 and top is 0: .* give a top above 0"),
        ({"blur": -0.1}, "blur is -0.1: give 0 to 100"),
        ({"blur": 100.5}, "blur is 100.5"),
        ({"blur": math.nan}, "blur is nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        ScoringSettings(**settings)


def test_settings_become_a_dictionary_and_come_back():
    settings = ScoringSettings(b=9, reweight="every", blur=2.5)
    assert settings.to_dict() == {
        "b": 9,
        "reweight": "every",
        "top": 0.0,
        "smooth": 0.0,
        "overall": 0.0,
        "blur": 2.5,
        "principal": 0,
        "contrast": 1.0,
        "density": 0.0,
        "likeness": 0.0,
        "composition": 0.0,
    }
    assert ScoringSettings(**settings.to_dict()) == settings
    assert ScoringSettings().to_dict() == {
        "b": 1,
        "reweight": "largest",
        "top": 0.0,
        "smooth": 0.0,
        "overall": 0.0,
        "blur": 4.0,
        "principal": 0,
        "contrast": 1.0,
        "density": 0.0,
        "likeness": 0.0,
        "composition": 0.0,
    }


# anomaly_map


def test_upsampling_by_hand():
    found = anomaly_map(np.array([0, 1], np.float32), (1, 2), (1, 4), 0)
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]], atol=1e-7)


def test_the_map_is_in_raster_order_height_first():
    found = anomaly_map(np.arange(6, dtype=np.float32), (2, 3), (2, 3), 0)
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])
    assert found.dtype == np.float32


def test_blurring_by_hand():
    # Sigma 0.25 reaches one pixel; an edge pixel is mirrored, so it keeps its neighbour's share.
    side = math.exp(-8) / (1 + 2 * math.exp(-8))
    found = anomaly_map(np.array([0, 1, 0, 0], np.float32), (1, 4), (1, 4), 0.25)
    np.testing.assert_allclose(found, [[side, 1 - 2 * side, side, 0]], rtol=1e-6)
    found = anomaly_map(np.array([1, 0, 0, 0], np.float32), (1, 4), (1, 4), 0.25)
    np.testing.assert_allclose(found, [[1 - side, side, 0, 0]], rtol=1e-6)


# Blurs whose 4 sigma is a whole number, where the two ways of rounding the reach agree.
@pytest.mark.parametrize("blur", [0, 1, 2.5, 4, 8])
@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((28, 28), (64, 64)),
        ((5, 7), (40, 21)),
        ((1, 1), (9, 5)),
        ((3, 2), (3, 2)),
        ((9, 9), (4, 6)),
    ],
)
def test_the_map_is_a_bilinear_picture_blurred_by_a_gaussian_filter(blur, grid, size):
    values = np.random.default_rng(0).random(grid, dtype=np.float32) * 10
    expected = bilinear(values, size)
    if blur:
        expected = gaussian_filter(expected, blur, mode="reflect", truncate=4.0)
    found = anomaly_map(values.ravel(), grid, size, blur)
    assert found.shape == size
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blur", [0.3, 1.7, 4.1, 100])
def test_the_blur_reaches_at_least_four_sigma_also_beyond_the_picture(blur):
    values = np.random.default_rng(1).random((4, 5), dtype=np.float32)
    reach = math.ceil(4 * blur)
    expected = gaussian_filter(bilinear(values, (12, 10)), blur, mode="reflect", radius=reach)
    np.testing.assert_allclose(anomaly_map(values.ravel(), (4, 5), (12, 10), blur), expected, 1e-5)


@pytest.mark.parametrize("blur", [0, 4, 30])
def test_a_constant_stays_constant(blur):
    found = anomaly_map(np.full(12, 7.25, np.float32), (3, 4), (33, 50), blur)
    np.testing.assert_allclose(found, 7.25, rtol=1e-6)


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.sampled_from([0.0, 0.5, 1.3, 4.0]),
    st.integers(0, 99),
)
def test_no_value_of_the_map_leaves_the_range_of_the_distances(grid, size, blur, seed):
    values = np.random.default_rng(seed).exponential(size=grid).astype(np.float32)
    found = anomaly_map(values.ravel(), grid, size, blur)
    assert found.max() <= values.max() * (1 + 1e-6)
    assert found.min() >= values.min() * (1 - 1e-6)


# the mean of the most distant patches


def test_the_top_of_a_photo_by_hand():
    # Of 8 patches a share of 0.3 are 2.4, so 2: the mean of 9 and 7.
    far = np.array([1, 9, 2, 3, 7, 0, 4, 5], np.float32)
    assert scoring.top_mean(far, top_count(0.3, len(far))) == 8.0
    assert scoring.top_mean(far, top_count(0.001, len(far))) == 9.0  # at least one
    assert scoring.top_mean(far, len(far)) == far.mean()


@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60),
    st.floats(0.001, 1),
)
def test_the_top_is_the_head_of_the_sorted_distances(values, share):
    far = np.array(values, np.float32)
    head = sorted(map(float, far), reverse=True)[: max(1, round(share * len(far)))]
    assert scoring.top_mean(far, top_count(share, len(far))) == pytest.approx(
        sum(head) / len(head), rel=1e-12
    )


def test_the_image_score_is_the_mean_of_the_top_and_the_worst_patch_its_largest():
    bank, patches = bank_of([[0.0]]), np.array([[1], [5], [3], [2]], np.float32)
    found = score_patches(patches, bank, ScoringSettings(top=0.5), Layout.whole((1, 4), (1, 4)))
    assert (found.image_score, found.worst) == (4.0, 1)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"top": 1.5}, "top is 1.5"), ({"top": 0.1, "b": 3}, "give one of")]
)
def test_a_top_that_cannot_be_is_refused(wrong, said):
    with pytest.raises(SettingsError, match=said):
        ScoringSettings(**wrong)


def test_smoothing_by_hand():
    # One patch stands out by itself, and two beside each other a little less: smoothed, two win.
    alone = np.zeros((16, 16), np.float32)
    alone[7, 7] = 4.0
    pair = np.zeros((16, 16), np.float32)
    pair[8, 7:9] = 3.5
    plain = ScoringSettings(top=0.001)
    smoothed = ScoringSettings(top=0.001, smooth=0.75)
    layout = Layout.whole((16, 16), (64, 64))
    scores = {
        (name, settings.smooth): scoring.top_score(patches.ravel(), settings, layout)
        for name, patches in (("alone", alone), ("pair", pair))
        for settings in (plain, smoothed)
    }
    assert scores["alone", 0.0] == 4.0 > scores["pair", 0.0] == 3.5
    # The blur reaches 3 places; its middle and next weights along one axis, of their sum.
    weights = [math.exp(-0.5 * (i / 0.75) ** 2) for i in range(-3, 4)]
    middle, beside = weights[3] / sum(weights), weights[2] / sum(weights)
    assert scores["alone", 0.75] == pytest.approx(4.0 * middle**2, rel=1e-6)
    assert scores["pair", 0.75] == pytest.approx(3.5 * middle * (middle + beside), rel=1e-6)
    assert scores["pair", 0.75] > scores["alone", 0.75]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smooth": -1.0, "top": 0.1}, "smooth is -1.0: give 0 to 10 places"),
        ({"smooth": 0.75}, "smooth is 0.75 and top is 0"),
    ],
)
def test_smoothing_that_cannot_be_is_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        ScoringSettings(**values)


def test_the_image_score_is_divided_by_the_scale_of_the_nearest_row():
    # Distances 2 to a row of scale 4 and 1 to one of scale 0.5: 0.5 and 2.
    rows = np.float32([[0, 0], [10, 0]])
    nowhere = np.zeros(2, np.int64)
    bank = MemoryBank(rows, nowhere, nowhere, rows, np.float32([4, 0.5]))
    patches = np.float32([[2, 0], [10, 1]])
    found = score_patches(patches, bank, ScoringSettings(density=1.0), ONE_ROW)
    assert found.image_score == 2.0
    assert found.worst == 1
    assert found.distances.tolist() == [2.0, 1.0]  # the map shows them as they are


@pytest.mark.parametrize("density", [-0.1, 4.1, np.nan])
def test_a_density_out_of_its_range_is_refused(density):
    with pytest.raises(SettingsError, match=r"density is .*: give 0"):
        ScoringSettings(density=density)


def test_density_and_reweighting_are_refused_together():
    with pytest.raises(SettingsError, match=r"density is 1\.0 and b is 3"):
        ScoringSettings(density=1.0, b=3)


LIKE = ScoringSettings(likeness=0.5)


def like_defects(defects, scales=None, rows=((0, 0),)):
    rows = np.float32(rows)
    nowhere = np.zeros(len(rows), np.int64)
    return MemoryBank(rows, nowhere, nowhere, rows, scales, np.float32(defects))


def test_a_patch_nearer_to_a_confirmed_defect_than_to_good_ones_scores_more():
    # To the good one 3 and 4; to the nearest defect 3 and 1: times the root of 1 and of 4.
    bank = like_defects([[6, 0], [0, 5]])
    patches = np.float32([[3, 0], [0, 4]])
    found = score_patches(patches, bank, LIKE, ONE_ROW)
    assert found.image_score == pytest.approx(4 * 2)
    assert found.worst == 1
    assert found.distances.tolist() == [3.0, 4.0]  # the map shows them as they are
    # The other way round: what is near to good ones and far from all defects scores less.
    far = score_patches(np.float32([[0, 2]]), bank, LIKE, ONE_ROW).image_score
    assert far == pytest.approx(2 * (2 / 3) ** 0.5)


@pytest.mark.parametrize(
    ("patch", "factor"), [([8, 0], 4.0), ([0, 0], 0.25), ([0.1, 0], 0.25), ([7.9, 0], 4.0)]
)
def test_likeness_is_held_to_its_range(patch, factor):
    # Times 4 or a quarter, to the power 1, on the defect itself and far from it.
    bank = like_defects([[8, 0]])
    settings = ScoringSettings(likeness=1.0)
    found = score_patches(np.float32([patch]), bank, settings, ONE_ROW).image_score
    assert found == pytest.approx(factor * patch[0])


def test_likeness_asks_before_density_and_as_the_contrast_weighs():
    # Differences of 3 and 1 count as 3 and 4: 5 to the good one, and 4 to the defect.
    bank = like_defects([[3, 0]], scales=np.float32([2]))
    settings = ScoringSettings(principal=1, contrast=4.0, density=1.0, likeness=1.0)
    found = score_patches(np.float32([[3, 1]]), bank, settings, ONE_ROW).image_score
    assert found == pytest.approx(5 / 2 * 5 / 4)


@pytest.mark.parametrize(("towards", "factor"), [(2, 0.2), (-3, -0.3), (-9, -0.5), (12, 1.0)])
def test_on_the_side_of_the_defects_a_patch_scores_more(towards, factor):
    # 2 from the good one and from the defect, and `towards` standard deviations to its side.
    bank = replace(like_defects([[0, 4]]), discriminant=np.float32([0, towards / 2, 0]))
    settings = ScoringSettings(likeness=1.0)
    found = score_patches(np.float32([[0, 2]]), bank, settings, ONE_ROW).image_score
    assert found == pytest.approx(2 * np.exp(factor), rel=1e-5)
    offset = replace(bank, discriminant=np.float32([0, 0, towards]))
    assert score_patches(np.float32([[0, 2]]), offset, settings, ONE_ROW).image_score == (
        pytest.approx(found)
    )


def test_patches_of_defects_that_the_score_does_not_ask_for_say_nothing():
    patches = np.float32([[3, 0], [0, 4]])
    found = score_patches(patches, like_defects([[6, 0]]), ScoringSettings(), ONE_ROW)
    assert found.image_score == 4.0


@pytest.mark.parametrize("likeness", [-0.1, 4.1, np.nan])
def test_a_likeness_out_of_its_range_is_refused(likeness):
    with pytest.raises(SettingsError, match=r"likeness is .*: give 0"):
        ScoringSettings(likeness=likeness)


@pytest.mark.parametrize("composition", [-0.1, 4.1, np.nan])
def test_a_composition_out_of_its_range_is_refused(composition):
    with pytest.raises(SettingsError, match=r"composition is .*: give 0"):
        ScoringSettings(composition=composition)


def test_likeness_and_reweighting_are_refused_together():
    with pytest.raises(SettingsError, match=r"likeness is 0\.5 and b is 3"):
        ScoringSettings(likeness=0.5, b=3)
