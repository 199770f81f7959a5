from __future__ import annotations

import errno
import math
import tempfile
import tracemalloc
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from reconpatch.errors import OutputError, SettingsError
from reconpatch.method import metrics, sorted_runs
from reconpatch.method.metrics import (
    PixelMetrics,
    auroc,
    average_precision,
    f1_max,
    pixel_metrics,
)

NAN = np.nan
CLOSE = 1e-12

# Few distinct values make ties; the wide range brings in signs, zeros of both and rounding.
SCORES = st.one_of(
    st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0]),
    st.floats(-1e6, 1e6, width=32),
)

# Bytes held, pixels sorted at a time and pixels merged at a time: from all at once to one by one.
PIECES = st.tuples(
    st.sampled_from([0, 30, 2**30]),
    st.sampled_from([1, 4, 1 << 22]),
    st.sampled_from([1, 2, 5, 1 << 20]),
)


def aupro(masks, maps, limit=0.3):
    """Area under the per-region overlap curve, up to any limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PRO_LIMIT", limit)
        return pixel_metrics(masks, maps)["aupro"]


@st.composite
def labelled_scores(draw):
    pairs = draw(st.lists(st.tuples(st.booleans(), SCORES), min_size=2, max_size=40))
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    assume(labels.any() and not labels.all())
    return labels, scores


@st.composite
def photos(draw):
    """One to three small masks with maps, good and defective inspected pixels among them."""
    masks, maps = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6))
        masks.append(draw(hnp.arrays(np.bool_, shape)))
        values = st.one_of(SCORES, st.just(NAN))
        maps.append(draw(hnp.arrays(np.float32, shape, elements=values)))
    good, defective = inspected_pixels(masks, maps)
    assume(good and defective)
    return masks, maps


def inspected_pixels(masks, maps):
    good, defective = [], []
    for mask, heatmap in zip(masks, maps, strict=True):
        for is_defective, value in zip(mask.flat, heatmap.flat, strict=True):
            if not math.isnan(value):
                (defective if is_defective else good).append(float(value))
    return good, defective


def regions_of(mask):
    """Lists of (y, x): 8-connected components by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        front, region = [left.pop()], []
        while front:
            y, x = front.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front.extend(near)
        found.append(region)
    return found


def aupro_at_every_threshold(masks, maps, limit):
    """The definition, one threshold and one region at a time."""
    good, defective = inspected_pixels(masks, maps)
    regions = []
    for mask, heatmap in zip(masks, maps, strict=True):
        for region in regions_of(mask):
            values = [float(heatmap[p]) for p in region if not math.isnan(heatmap[p])]
            if values:
                regions.append(values)
    curve = [(0.0, 0.0)]
    for threshold in sorted({*good, *defective}, reverse=True):
        rate = sum(v >= threshold for v in good) / len(good)
        found = [sum(v >= threshold for v in values) / len(values) for values in regions]
        curve.append((rate, sum(found) / len(found)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < limit and x1 > x0:
            x = min(x1, limit)
            y = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
            area += (x - x0) * (y0 + y) / 2
    return area / limit


def f1_at_every_threshold(labels, scores):
    found = [scores >= at for at in np.unique(scores)]
    return max(f1_score(labels, flagged, zero_division=0) for flagged in found)


@contextmanager
def cut_into(pieces):
    """Pixel metrics that hold so many bytes, sort so many pixels and work through so many."""
    memory_limit, run, block = pieces
    with (
        pytest.MonkeyPatch.context() as patch,
        PixelMetrics(memory_limit=memory_limit) as pixels,
    ):
        patch.setattr(sorted_runs, "_RUN", run)
        patch.setattr(sorted_runs, "BLOCK", block)
        yield pixels


def flat(masks, maps):
    good, defective = inspected_pixels(masks, maps)
    return np.arange(len(good) + len(defective)) >= len(good), np.array(good + defective)


def photo(mask, heatmap):
    return [np.array(mask, bool)], [np.array(heatmap, np.float32)]


# Image metrics


def test_auroc_by_hand():
    # Of the 2 x 3 pairs the defective item wins 4 and ties 1: 4.5 / 6.
    labels = np.array([True, False, False, True, False])
    scores = np.array([0.9, 0.8, 0.3, 0.3, 0.1])
    assert auroc(labels, scores) == pytest.approx(4.5 / 6, abs=CLOSE)


def test_average_precision_by_hand():
    # At 0.9: recall 1/2, precision 1. At 0.3, a tie: recall 2/2, precision 2/4.
    labels = np.array([True, False, False, True, False])
    scores = np.array([0.9, 0.8, 0.3, 0.3, 0.1])
    assert average_precision(labels, scores) == pytest.approx(0.5 + 0.25, abs=CLOSE)


def test_f1_max_by_hand():
    # At 4: P 1, R 1/3, F1 0.5. At 3: 0.4. At 2: 4/6. At 1: P 3/4, R 1, F1 6/7. At 0: 6/8.
    labels = np.array([True, False, True, True, False])
    scores = np.array([4.0, 3.0, 2.0, 1.0, 0.0])
    assert f1_max(labels, scores) == pytest.approx(6 / 7, abs=CLOSE)
    # All equal, one of three good: P 2/3, R 1.
    assert f1_max(np.array([True, True, False]), np.full(3, 2.0)) == pytest.approx(0.8, abs=CLOSE)


@pytest.mark.parametrize("metric", [auroc, average_precision])
def test_a_perfect_ranking_is_exactly_one(metric):
    scores = np.linspace(0, 1, 31)
    assert metric(scores > 0.33, scores) == 1.0


def test_an_inverted_ranking_is_exactly_zero_and_a_constant_one_half():
    labels = np.arange(10) < 3
    assert auroc(labels, np.arange(10.0)) == 0.0
    assert auroc(labels, np.ones(10)) == 0.5
    assert average_precision(labels, np.ones(10)) == pytest.approx(0.3, abs=CLOSE)


def test_infinite_scores_are_scores():
    labels = np.array([True, False, True, False])
    scores = np.array([np.inf, 1.0, 0.0, -np.inf])
    assert auroc(labels, scores) == 0.75


def test_image_scores_are_told_apart_in_double_precision():
    assert auroc(np.array([True, False]), np.array([1.0 + 1e-12, 1.0])) == 1.0


@given(labelled_scores(), st.sampled_from([1, 2, 3, 1 << 20]))
def test_image_metrics_agree_with_scikit_learn(drawn, block):
    labels, scores = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_runs, "BLOCK", block)
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=CLOSE)
        expected = average_precision_score(labels, scores)
        assert average_precision(labels, scores) == pytest.approx(expected, abs=CLOSE)
        best = f1_max(labels, scores)
    assert best == pytest.approx(f1_at_every_threshold(labels, scores), abs=CLOSE)


# Pixel metrics


def test_aupro_by_hand():
    # Regions {8, 4} and {6}; good {7, 5, 3, 1}. False positive rate and overlap:
    # 0 and 1/4 at 8, 1/4 and 1/4 at 7, 1/4 and 3/4 at 6, 1/2 and 3/4 at 5, 1/2 and 1 at 4.
    masks, maps = photo([[1, 1, 0, 1], [0, 0, 0, 0]], [[8, 4, 7, 6], [5, 3, 1, NAN]])
    # Up to 0.3: 0.25 * 0.25 + 0.05 * 0.75 = 0.1.
    assert aupro(masks, maps) == pytest.approx(0.1 / 0.3, abs=CLOSE)
    # Up to 1: 0.0625 + 0.25 * 0.75 + 0.5 * 1 = 0.75.
    assert aupro(masks, maps, limit=1.0) == pytest.approx(0.75, abs=CLOSE)


def test_the_limit_cuts_a_slanted_line():
    # A tie of both classes: the curve is (0, 0), (1/2, 1), (1, 1). Up to 0.3 it is a triangle.
    masks, maps = photo([[1, 0, 0]], [[2, 2, 1]])
    assert aupro(masks, maps) == pytest.approx(0.3 * 0.6 / 2 / 0.3, abs=CLOSE)


def test_a_small_region_counts_as_much_as_a_large_one():
    mask = np.zeros((10, 10), bool)
    mask[:6, :6] = True
    mask[9, 9] = True
    heatmap = np.zeros((10, 10), np.float32)
    heatmap[9, 9] = 2.0
    heatmap[mask == 0] = 1.0
    assert aupro([mask], [heatmap]) == pytest.approx(0.5, abs=CLOSE)


def test_regions_touching_by_a_corner_are_one():
    # Found are {9, 9} and not {1}: one of two regions. Without corners it would be two of three.
    masks, maps = photo([[1, 0, 0, 0], [0, 1, 0, 1]], [[9, 2, 2, 2], [2, 9, 2, 1]])
    assert aupro(masks, maps) == pytest.approx(0.5, abs=CLOSE)


def test_a_perfect_map_gives_one_and_an_inverted_map_zero():
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:11] = True
    mask[15, 20:27] = True
    heatmap = mask + np.random.default_rng(0).random(mask.shape).astype(np.float32) / 2
    perfect = pixel_metrics([mask], [heatmap])
    names = ("pixel_auroc", "pixel_ap", "pixel_f1_max_oracle", "aupro", "aupro_005")
    assert perfect == pytest.approx(dict.fromkeys(names, 1.0), abs=CLOSE)
    assert perfect["pixel_auroc"] == perfect["pixel_f1_max_oracle"] == 1.0
    inverted = pixel_metrics([mask], [-heatmap])
    assert inverted["pixel_auroc"] == 0.0
    assert inverted["aupro"] == inverted["aupro_005"] == 0.0


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_a_constant_map_gives_half_the_limit(limit):
    mask = np.arange(12).reshape(3, 4) < 5
    heatmap = np.full((3, 4), 0.7, np.float32)
    assert aupro([mask], [heatmap], limit) == pytest.approx(limit / 2, abs=CLOSE)


def test_zeros_of_both_signs_tie():
    masks, maps = photo([[1, 0]], [[0.0, -0.0]])
    assert pixel_metrics(masks, maps)["pixel_auroc"] == 0.5


def test_pixels_that_were_not_inspected_count_in_no_sum():
    masks, maps = photo([[1, 1, 0, 0]], [[3, 1, 2, 0]])
    framed_mask, framed_map = photo(np.ones((3, 6)), np.full((3, 6), NAN))
    framed_mask[0][1, 1:5], framed_map[0][1, 1:5] = masks[0][0], maps[0][0]
    assert pixel_metrics(framed_mask, framed_map) == pixel_metrics(masks, maps)


def test_a_region_without_inspected_pixels_is_dropped():
    masks, maps = photo([[1, 0, 0, 0, 1, 1]], [[2, 1, 1, 0, NAN, NAN]])
    assert aupro(masks, maps) == pytest.approx(1.0, abs=CLOSE)


def test_a_region_cut_in_two_by_uninspected_pixels_stays_one():
    # Two regions found, {9, 1} and {9}: 3/4 of the overlap. Three would give 2/3.
    masks, maps = photo([[1, 1, 1, 0, 1, 0]], [[9, NAN, 1, 5, 9, 5]])
    assert aupro(masks, maps) == pytest.approx(0.75, abs=CLOSE)


def test_photos_may_differ_in_size_and_come_from_generators():
    rng = np.random.default_rng(3)
    shapes = [(4, 7), (1, 1), (9, 2)]
    masks = [rng.random(shape) < 0.4 for shape in shapes]
    maps = [rng.random(shape).astype(np.float32) for shape in shapes]
    assert pixel_metrics(iter(masks), iter(maps)) == pixel_metrics(masks, maps)
    expected = aupro_at_every_threshold(masks, maps, 0.3)
    assert aupro(iter(masks), iter(maps)) == pytest.approx(expected, abs=CLOSE)


@given(
    photos(),
    st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0]),
    st.sampled_from([1, 2, 5, 1 << 20]),
)
def test_aupro_agrees_with_the_definition(drawn, limit, block):
    masks, maps = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_runs, "BLOCK", block)
        value = aupro(masks, maps, limit)
    assert value == pytest.approx(aupro_at_every_threshold(masks, maps, limit), abs=1e-9)
    assert 0.0 <= value <= 1.0


@given(photos(), PIECES)
def test_pixel_metrics_agree_with_scikit_learn_and_the_definition(drawn, pieces):
    masks, maps = drawn
    with cut_into(pieces) as pixels:
        for mask, heatmap in zip(masks, maps, strict=True):
            pixels.add(mask, heatmap)
        figures = pixels.result()
    labels, scores = flat(masks, maps)
    assert figures == pytest.approx(
        {
            "pixel_auroc": roc_auc_score(labels, scores),
            "pixel_ap": average_precision_score(labels, scores),
            "pixel_f1_max_oracle": f1_at_every_threshold(labels, scores),
            "aupro": aupro_at_every_threshold(masks, maps, 0.3),
            "aupro_005": aupro_at_every_threshold(masks, maps, 0.05),
        },
        abs=1e-10,
    )


@pytest.mark.parametrize("levels", [3, 50, None])
def test_larger_maps_agree_with_scikit_learn_wherever_they_are_kept(levels):
    rng = np.random.default_rng(5)
    masks = [rng.random((60, 70)) < share for share in (0.0, 0.03, 0.6, 0.0, 0.01)]
    maps = [(rng.normal(0, 1, mask.shape) + mask).astype(np.float32) for mask in masks]
    if levels:
        maps = [np.round(heatmap * levels) / levels for heatmap in maps]
    labels, scores = flat(masks, maps)
    wanted = {
        "pixel_auroc": roc_auc_score(labels, scores),
        "pixel_ap": average_precision_score(labels, scores),
    }
    for pieces in [(0, 7, 4), (20_000, 1000, 100), (2**30, 1 << 22, 1 << 20)]:
        with cut_into(pieces) as pixels:
            for mask, heatmap in zip(masks, maps, strict=True):
                pixels.add(mask, heatmap)
            figures = pixels.result()
        assert {name: figures[name] for name in wanted} == pytest.approx(wanted, abs=CLOSE)
        assert figures["aupro"] == pytest.approx(aupro(masks, maps), abs=CLOSE)


def test_figures_may_be_asked_for_in_between():
    rng = np.random.default_rng(8)
    masks = [rng.random((9, 8)) < 0.3 for _ in range(6)]
    maps = [rng.random((9, 8)).astype(np.float32) for _ in range(6)]
    with PixelMetrics(memory_limit=500) as pixels:
        for n, (mask, heatmap) in enumerate(zip(masks, maps, strict=True), start=1):
            pixels.add(mask, heatmap)
            so_far = pixel_metrics(masks[:n], maps[:n])
            assert pixels.result() == pytest.approx(so_far, abs=CLOSE)


def test_a_constant_map_larger_than_a_block_is_one_tie():
    mask = np.arange(4000).reshape(40, 100) < 1000
    with cut_into((0, 100, 10)) as pixels:
        for _ in range(3):
            pixels.add(mask, np.full(mask.shape, 2.5, np.float32))
        figures = pixels.result()
    assert figures == pytest.approx(
        {
            "pixel_auroc": 0.5,
            "pixel_ap": 0.25,
            "pixel_f1_max_oracle": 2 * 0.25 / 1.25,
            "aupro": 0.15,
            "aupro_005": 0.025,
        },
        abs=1e-10,
    )


def test_infinite_values_are_values():
    masks, maps = photo([[1, 0, 1, 0]], [[np.inf, 1.0, 0.0, -np.inf]])
    assert pixel_metrics(masks, maps)["pixel_auroc"] == 0.75


def test_wider_maps_are_rounded_to_float32():
    mask = np.array([[True, False]])
    assert pixel_metrics([mask], [np.array([[1.0 + 1e-12, 1.0]])])["pixel_auroc"] == 0.5


# What is kept


def test_no_more_than_the_pixels_is_kept():
    rng = np.random.default_rng(0)
    mask = np.zeros((256, 256), bool)
    mask[:16] = True
    pixels = PixelMetrics()
    tracemalloc.start()
    for _ in range(16):
        pixels.add(mask, rng.random(mask.shape, dtype=np.float32))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    good, defective = 16 * 240 * 256, 16 * 16 * 256
    assert 4 * good + 8 * defective <= kept < 1.02 * (4 * good + 8 * defective)


def test_memory_is_bounded_by_the_limit():
    rng = np.random.default_rng(0)
    mask = np.zeros((128, 128), bool)
    mask[:4] = True
    n, peaks = 90, []
    for limit in (400_000, 2**30):
        with cut_into((limit, 1 << 16, 1 << 14)) as pixels:
            tracemalloc.start()
            for _ in range(n):
                pixels.add(mask, rng.random(mask.shape, dtype=np.float32))
            pixels.result()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        peaks.append(peak)
    all_pixels = 4 * n * mask.size
    assert peaks[0] < 0.5 * all_pixels
    assert all_pixels < peaks[1] < 1.5 * all_pixels


def test_the_temporary_file_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # With a name it is to be seen in its folder, as it is on Windows.
    monkeypatch.setattr(tempfile, "TemporaryFile", tempfile.NamedTemporaryFile)
    (mask,), (heatmap,) = photo([[1, 0]], [[1, 0]])
    pixels = PixelMetrics(memory_limit=0)
    pixels.add(mask, heatmap)
    assert list(tmp_path.iterdir())
    pixels.close()
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingsError, match="mark 0 of the inspected pixels"):
        pixels.result()
    with PixelMetrics(memory_limit=0) as pixels:
        pixels.add(mask, heatmap)
        assert pixels.result()["pixel_auroc"] == 1.0
    assert not list(tmp_path.iterdir())
    pixels = PixelMetrics(memory_limit=0)
    pixels.add(mask, heatmap)
    del pixels
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(monkeypatch):
    class FullDisk:
        def seek(self, at):
            pass

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", FullDisk)
    (mask,), (heatmap,) = photo([[1, 0]], [[1, 0]])
    with (
        pytest.raises(OutputError, match=r"\(the disk is full\)\. Free some room, name another"),
        PixelMetrics(memory_limit=0) as pixels,
    ):
        pixels.add(mask, heatmap)


def test_no_folder_for_temporary_files_is_told(monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    (mask,), (heatmap,) = photo([[1, 0]], [[1, 0]])
    with pytest.raises(OutputError, match="No usable temporary directory found"):
        PixelMetrics(memory_limit=0).add(mask, heatmap)


# Curves for plots


def test_curves_by_hand():
    # Regions {8, 4} and {6}; good {7, 5, 3, 1}, as above.
    (mask,), (heatmap,) = photo([[1, 1, 0, 1], [0, 0, 0, 0]], [[8, 4, 7, 6], [5, 3, 1, NAN]])
    with PixelMetrics() as pixels:
        pixels.add(mask, heatmap)
        curves = pixels.curves()
    x = [0, 0, 0.25, 0.25, 0.5, 0.5, 1]
    assert curves["roc"] == pytest.approx(
        np.column_stack([x, np.array([0, 1, 1, 2, 2, 3, 3]) / 3]), abs=CLOSE
    )
    assert curves["pro"] == pytest.approx(
        np.column_stack([x, [0, 0.25, 0.25, 0.75, 0.75, 1, 1]]), abs=CLOSE
    )


@pytest.mark.parametrize("points", [3, 20, 512])
def test_thinned_curves_stay_near_the_curve(points):
    rng = np.random.default_rng(2)
    mask = rng.random((60, 60)) < 0.1
    heatmap = (rng.random((60, 60)) ** 3 + 0.3 * mask).astype(np.float32)
    with cut_into((2**30, 1 << 22, 50)) as pixels:
        pixels.add(mask, heatmap)
        thin = pixels.curves(points)["roc"]
        whole = pixels.curves(10**6)["roc"]
    assert len(thin) <= points
    assert (np.diff(thin, axis=0) >= 0).all()
    assert thin[0].tolist() == [0, 0]
    assert thin[-1].tolist() == [1, 1]
    assert {*map(tuple, thin)} <= {*map(tuple, whole)}
    # Of two falling lines through the same sum of both columns, one point of each.
    along = whole.sum(axis=1)
    on_thin = np.interp(along, thin.sum(axis=1), thin[:, 0])
    assert np.abs(on_thin - whole[:, 0]).max() <= 2 / (points - 2)


def test_too_few_points_for_a_curve_are_refused():
    (mask,), (heatmap,) = photo([[1, 0]], [[1, 0]])
    with PixelMetrics() as pixels:
        pixels.add(mask, heatmap)
        with pytest.raises(SettingsError, match="points is 2: give 3 or more"):
            pixels.curves(2)


def test_the_inputs_are_left_as_they_were():
    masks, maps = photo([[1, 0, 1]], [[-1.0, NAN, 2.0]])
    masks.append(np.zeros((1, 2), bool))
    maps.append(np.zeros((1, 2), np.float32))
    before = [array.copy() for array in masks + maps]
    pixel_metrics(masks, maps)
    for array, copy in zip(masks + maps, before, strict=True):
        np.testing.assert_array_equal(array, copy)


# What is refused


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max])
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([True, False], [1.0], r"\(2,\) and scores \(1,\): give two flat arrays"),
        ([[True, False]], [[1.0, 0.0]], r"\(1, 2\) and scores \(1, 2\)"),
        ([True, True], [1.0, 0.0], "2 of 2 labels are True: give at least one"),
        ([False, False], [1.0, 0.0], "0 of 2 labels are True"),
        ([], [], "0 of 0 labels are True"),
        (np.array([1, 0], np.int64), [1.0, 0.0], "The type of labels is int64: give bool"),
        ([True, False], [NAN, 0.0], "1 of 2 scores are NaN"),
    ],
)
def test_labels_and_scores_that_are_refused(metric, labels, scores, message):
    with pytest.raises(SettingsError, match=message):
        metric(np.array(labels), np.array(scores))


@pytest.mark.parametrize(
    ("masks", "maps", "message"),
    [
        ([np.eye(2, dtype=bool)] * 2, [np.eye(2)], "There is no map number 1, but a mask"),
        ([np.eye(2, dtype=bool)], [np.eye(2)] * 2, "There is no mask number 1, but a map"),
        ([np.eye(2, dtype=bool)], [np.eye(3)], r"Mask number 0 has the shape \(2, 2\)"),
        ([np.ones(3, bool)], [np.ones(3)], r"give both as \(H, W\)"),
        ([np.eye(2, dtype=np.uint8)], [np.eye(2)], "The type of mask number 0 is uint8: give bool"),
        ([np.zeros((2, 2), bool)], [np.eye(2)], "mark 0 of the inspected pixels as defective"),
        ([np.ones((2, 2), bool)], [np.eye(2)], "defective and 0 as good"),
        ([np.eye(2, dtype=bool)], [np.where(np.eye(2), NAN, 1)], "mark 0 of the inspected"),
        ([], [], "mark 0 of the inspected pixels as defective and 0 as good"),
    ],
)
def test_masks_and_maps_that_are_refused(masks, maps, message):
    with pytest.raises(SettingsError, match=message):
        pixel_metrics(masks, [heatmap.astype(np.float32) for heatmap in maps])


def test_a_negative_memory_limit_is_refused():
    with pytest.raises(SettingsError, match="memory_limit is -1: give a number of bytes, 0 or"):
        PixelMetrics(memory_limit=-1)
