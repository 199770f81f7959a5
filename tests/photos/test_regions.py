from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from reconpatch.photos.regions import find_regions, label
from reconpatch.result import Region

NAN = np.nan
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
# Few distinct values, so that plateaus and equal peaks are common; NaN is not inspected.
MAPS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, NAN]),
)


def as_map(rows):
    return np.array(rows, np.float32)


def as_mask(drawing):
    return np.array([[c == "#" for c in row] for row in drawing.split()])


def scipy_label(mask):
    return ndimage.label(mask, structure=np.ones((3, 3)))


def regions_one_by_one(heatmap, threshold):
    """Each component measured alone, pixel by pixel, with Python's own comparisons."""
    height, width = heatmap.shape
    above = np.array([[float(v) > threshold for v in row] for row in heatmap])
    labels, n = scipy_label(above.reshape(height, width))
    found = []
    for i in range(1, n + 1):
        pixels = [(y, x) for y in range(height) for x in range(width) if labels[y, x] == i]
        rows, columns = zip(*pixels, strict=True)
        peak_value, y, x = max((float(heatmap[y, x]), -y, -x) for y, x in pixels)
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        found.append(Region(box, len(pixels), (-x, -y), peak_value))
    return tuple(sorted(found, key=lambda r: (-r.peak_value, r.peak[1], r.peak[0])))


# label


def test_components_are_numbered_in_raster_order_and_join_at_corners():
    labels, n = label(as_mask("..#.# #...# .#..#"))
    assert n == 3
    assert labels.dtype == np.int32
    assert labels.tolist() == [[0, 0, 1, 0, 2], [3, 0, 0, 0, 2], [0, 3, 0, 0, 2]]


def test_a_component_is_numbered_by_its_first_pixel_even_if_it_joins_later():
    labels, n = label(as_mask("#...# #.#.# #...# #####"))
    assert n == 2
    assert labels.tolist() == [[1, 0, 0, 0, 1], [1, 0, 2, 0, 1], [1, 0, 0, 0, 1], [1] * 5]


def test_the_end_of_a_row_does_not_touch_the_start_of_the_next():
    assert label(as_mask("...# #... ...#"))[1] == 3


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (3, 5)])
def test_an_empty_mask_has_no_component(shape):
    labels, n = label(np.zeros(shape, bool))
    assert n == 0
    assert labels.shape == shape
    assert not labels.any()


def test_a_full_mask_is_one_component():
    labels, n = label(np.ones((3, 5), bool))
    assert n == 1
    assert (labels == 1).all()


@given(MASKS)
def test_label_agrees_with_scipy(mask):
    labels, n = label(mask)
    expected, expected_n = scipy_label(mask)
    assert n == expected_n
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("density", [0.2, 0.35, 0.41, 0.5, 0.8])
def test_label_agrees_with_scipy_on_noise(density):
    mask = np.random.default_rng(7).random((200, 200)) < density
    labels, n = label(mask)
    expected, expected_n = scipy_label(mask)
    assert n == expected_n
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_label_follows_a_winding_path(transposed):
    mask = np.zeros((41, 41), bool)
    mask[::2] = True
    mask[1::4, -1] = True
    mask[3::4, 0] = True
    labels, n = label(mask.T if transposed else mask)
    assert n == 1
    assert np.count_nonzero(labels) == 21 * 41 + 20


# find_regions


def test_regions_by_hand():
    heatmap = as_map(
        [
            [NAN, NAN, NAN, NAN, NAN, NAN],
            [NAN, 3.0, 0.0, 0.0, 5.0, NAN],
            [NAN, 0.0, 4.0, 0.0, 0.0, NAN],
            [NAN, 0.0, 0.0, 0.0, 2.0, NAN],
        ]
    )
    assert find_regions(heatmap, 2.0) == (
        Region(box=(4, 1, 5, 2), area=1, peak=(4, 1), peak_value=5.0),
        Region(box=(1, 1, 3, 3), area=2, peak=(2, 2), peak_value=4.0),
    )


def test_equal_peaks_come_in_raster_order_and_a_plateau_peaks_at_its_first_pixel():
    heatmap = as_map([[0, 0, 0, 7], [7, 7, 0, 0], [7, 7, 0, 7]])
    assert [(r.peak, r.area) for r in find_regions(heatmap, 1.0)] == [
        ((3, 0), 1),
        ((0, 1), 4),
        ((3, 2), 1),
    ]


def test_a_region_holds_plain_python_values():
    (region,) = find_regions(as_map([[0, 2]]), 1.0)
    values = [*region.box, *region.peak, region.area]
    assert {type(value) for value in values} == {int}
    assert type(region.peak_value) is float


def test_the_threshold_is_compared_in_double_precision():
    pixel = np.float32(0.1)  # 0.100000001490...
    heatmap = np.full((1, 1), pixel)
    assert len(find_regions(heatmap, 0.1)) == 1
    assert find_regions(heatmap, float(pixel)) == ()
    heatmap = np.full((1, 1), np.float32(0.7))  # 0.699999988079...
    assert find_regions(heatmap, 0.7) == ()


@given(MAPS, st.sampled_from([-1.0, 0.0, 0.5, 0.75, 2.0]))
def test_regions_agree_with_measuring_one_by_one(heatmap, threshold):
    assert find_regions(heatmap, threshold) == regions_one_by_one(heatmap, threshold)


def test_no_region_below_the_threshold_unless_one_is_asked_for():
    heatmap = as_map([[0, 0, 0], [0, 10, 9.6], [9.4, 0, 0], [0, 0, 9.9]])
    assert find_regions(heatmap, 10.0) == ()
    # Cut at 0 + 0.95 * 10 = 9.5: 9.6 belongs to the peak, 9.4 does not, 9.9 is apart.
    assert find_regions(heatmap, 10.0, at_least_one=True) == (
        Region(box=(1, 1, 3, 2), area=2, peak=(1, 1), peak_value=10.0),
    )


def test_the_cut_starts_from_the_minimum_of_the_map():
    # 100 + 0.95 * 20 = 119, where 0.95 * 120 = 114 would take in the first pixel.
    heatmap = as_map([[118, 119, 120, 100]])
    (region,) = find_regions(heatmap, 200.0, at_least_one=True)
    assert region.box == (1, 0, 3, 1)


def test_asking_for_one_changes_nothing_where_there_are_regions():
    heatmap = as_map([[3, 0, 5, 0, 4]])
    assert find_regions(heatmap, 1.0, at_least_one=True) == find_regions(heatmap, 1.0)


def test_a_constant_map_gives_the_inspected_area():
    heatmap = np.full((5, 6), NAN, np.float32)
    heatmap[1:4, 2:6] = 3.25
    assert find_regions(heatmap, 4.0, at_least_one=True) == (
        Region(box=(2, 1, 6, 4), area=12, peak=(2, 1), peak_value=3.25),
    )


@given(MAPS)
def test_there_is_a_region_around_the_peak_unless_nothing_was_inspected(heatmap):
    regions = find_regions(heatmap, 2.0, at_least_one=True)
    if np.isnan(heatmap).all():
        assert regions == ()
    else:
        (region,) = regions
        x, y = region.peak
        assert region.peak_value == heatmap[y, x] == np.nanmax(heatmap)


def test_a_map_of_nan_only_has_no_region_and_raises_no_warning():
    heatmap = np.full((3, 3), NAN, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_regions(heatmap, 0.0) == ()
        assert find_regions(heatmap, 0.0, at_least_one=True) == ()


def test_nan_borders_raise_no_warning():
    heatmap = np.full((4, 4), NAN, np.float32)
    heatmap[1:3, 1:3] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(find_regions(heatmap, 0.5)) == 1
        assert len(find_regions(heatmap, 5.0, at_least_one=True)) == 1


def test_the_worst_region_is_the_first():
    heatmap = as_map([[3, 0, 5, 0, 4]])
    assert [region.peak_value for region in find_regions(heatmap, 1.0)] == [5, 4, 3]
    at_peak = Region((2, 0, 3, 1), 1, (2, 0), 5.0)
    assert find_regions(heatmap, 9.0, at_least_one=True) == (at_peak,)


def test_runs_are_the_same_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((40, 30)) < 0.4
    whole, n = label(mask)
    monkeypatch.setattr("reconpatch.photos.regions._STRIP", 90)  # three rows at a time
    strips, m = label(mask)
    assert n == m
    np.testing.assert_array_equal(whole, strips)
