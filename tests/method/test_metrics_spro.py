from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reconpatch.errors import SettingsError
from reconpatch.method import sorted_runs
from reconpatch.method.metrics import SaturatedOverlap, pixel_metrics

NAN = np.nan
CLOSE = 1e-12
VALUES = st.one_of(
    st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, NAN]), st.floats(-1e3, 1e3, width=32)
)
SATURATION = st.one_of(st.integers(1, 40), st.floats(0.125, 40))


@st.composite
def photos(draw):
    """One to three small maps, each with up to three defects that may overlap."""
    drawn = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5))
        masks = draw(st.lists(hnp.arrays(np.bool_, shape), max_size=3))
        defects = [(mask, draw(SATURATION)) for mask in masks]
        drawn.append((defects, draw(hnp.arrays(np.float32, shape, elements=VALUES))))
    good, found = values_of(drawn)
    assume(good and found)
    return drawn


def values_of(drawn):
    """The values of the pixels in no defect, and of each defect that counts with its saturation."""
    good, found = [], []
    for defects, heatmap in drawn:
        for place, value in np.ndenumerate(heatmap):
            if not math.isnan(value) and not any(mask[place] for mask, _ in defects):
                good.append(float(value))
        for mask, saturation in defects:
            values = [float(v) for v in heatmap[mask] if not math.isnan(v)]
            if values:
                found.append((values, min(saturation, len(values))))
    return good, found


def area_at_every_threshold(drawn, limit):
    """The definition, one threshold and one defect at a time."""
    good, found = values_of(drawn)
    thresholds = {*good, *(v for values, _ in found for v in values)}
    curve = [(0.0, 0.0)]
    for threshold in sorted(thresholds, reverse=True):
        rate = sum(v >= threshold for v in good) / len(good)
        spro = [min(sum(v >= threshold for v in values) / s, 1.0) for values, s in found]
        curve.append((rate, sum(spro) / len(spro)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < limit and x1 > x0:
            x = min(x1, limit)
            y = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
            area += (x - x0) * (y0 + y) / 2
    return area / limit


def figures_of(drawn, memory_limit=2**30):
    with SaturatedOverlap(memory_limit=memory_limit) as overlap:
        for defects, heatmap in drawn:
            overlap.add(defects, heatmap)
        return overlap.result()


def row(*values):
    return np.array([values], np.float32)


def mask_of(*values):
    return np.array([values], bool)


def test_auspro_by_hand():
    # Good {9, 4, 3, 2}. The defect {8, 7, 1} saturates at 2 pixels: sPRO and false positive rate
    # are 0 at 1/4, 1/2 at 1/4 and 1 at 1/4, where its own pixel below all good ones adds nothing.
    drawn = [([(mask_of(0, 1, 1, 0, 0, 0, 1), 2)], row(9, 8, 7, 4, 3, 2, 1))]
    # Up to 0.3: 0 up to 0.25, then 1.
    assert figures_of(drawn)["auspro"] == pytest.approx(0.05 / 0.3, abs=CLOSE)
    assert figures_of(drawn)["auspro_005"] == 0.0


def test_a_tie_that_saturates_half_way_is_joined_by_a_straight_line():
    # All score 1: from (0, 0) to (1, 1), however early the defect saturates within the tie.
    drawn = [([(mask_of(1, 1, 1, 1, 0, 0), 1)], np.ones((1, 6), np.float32))]
    assert figures_of(drawn) == pytest.approx({"auspro": 0.15, "auspro_005": 0.025}, abs=CLOSE)


def test_a_pixel_in_two_defects_counts_in_both_and_is_no_good_one():
    # Before the false alarms the pixel with 5 is found: all of the first, half of the second. The
    # tie of all good pixels then runs level, from (0, 3/4) to (1, 3/4).
    first, second = mask_of(1, 0, 0, 0), mask_of(1, 1, 0, 0)
    drawn = [([(first, 1), (second, 2)], row(5, 1, 3, 3))]
    assert figures_of(drawn)["auspro_005"] == pytest.approx(0.75, abs=CLOSE)


def test_parts_that_are_not_connected_are_one_defect():
    # {9} and {1}: with a saturation of 1 the defect is found by either.
    drawn = [([(mask_of(1, 0, 0, 1), 1)], row(9, 3, 2, 1))]
    assert figures_of(drawn) == {"auspro": 1.0, "auspro_005": 1.0}


def test_a_large_threshold_is_lowered_to_the_inspected_pixels():
    # Of the defect one pixel was inspected: found, it is found as a whole.
    drawn = [([(mask_of(1, 1, 1, 0, 0), 3)], row(9, NAN, NAN, 2, 1))]
    assert figures_of(drawn)["auspro"] == 1.0


def test_a_defect_without_inspected_pixels_and_an_empty_mask_do_not_count():
    seen, unseen, empty = mask_of(1, 0, 0, 0), mask_of(0, 1, 0, 0), mask_of(0, 0, 0, 0)
    drawn = [([(unseen, 5), (seen, 1), (empty, 1)], row(9, NAN, 2, 1))]
    assert figures_of(drawn)["auspro"] == 1.0


def test_half_a_pixel_saturates_at_the_first_pixel():
    drawn = [([(mask_of(1, 1, 0), 0.5)], row(9, 1, 2))]
    assert figures_of(drawn)["auspro"] == 1.0


@pytest.mark.parametrize("limit", ["auspro", "auspro_005"])
def test_without_saturation_it_is_aupro_of_one_region_per_mask(limit):
    rng = np.random.default_rng(4)
    masks = [np.zeros((20, 30), bool) for _ in range(4)]
    masks[0][3:9, 4:11] = True
    masks[1][15, 20:27] = True
    maps = [(rng.random((20, 30)) + 0.4 * mask).astype(np.float32) for mask in masks]
    drawn = [
        ([(mask, np.count_nonzero(mask))] if mask.any() else [], heatmap)
        for mask, heatmap in zip(masks, maps, strict=True)
    ]
    expected = pixel_metrics(masks, maps)[limit.replace("auspro", "aupro")]
    assert figures_of(drawn)[limit] == pytest.approx(expected, abs=CLOSE)


@given(
    photos(),
    st.sampled_from([0, 30, 2**30]),
    st.sampled_from([1, 4, 1 << 22]),
    st.sampled_from([1, 2, 5, 1 << 20]),
)
def test_it_agrees_with_the_definition(drawn, memory_limit, run, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_runs, "_RUN", run)
        patch.setattr(sorted_runs, "BLOCK", block)
        figures = figures_of(drawn, memory_limit)
    wanted = {"auspro": 0.3, "auspro_005": 0.05}
    assert figures == pytest.approx(
        {name: area_at_every_threshold(drawn, limit) for name, limit in wanted.items()}, abs=1e-10
    )
    assert all(0.0 <= value <= 1.0 for value in figures.values())


@given(photos())
def test_the_order_of_the_photos_and_of_the_defects_makes_no_difference(drawn):
    turned = [(defects[::-1], heatmap) for defects, heatmap in reversed(drawn)]
    assert figures_of(turned) == pytest.approx(figures_of(drawn), abs=1e-10)


def test_closing_forgets_the_photos():
    overlap = SaturatedOverlap(memory_limit=0)
    overlap.add([(mask_of(1, 0), 1)], row(0, 1))
    overlap.close()
    overlap.add([(mask_of(1, 0), 1)], row(1, 0))
    assert overlap.result()["auspro"] == 1.0
    overlap.close()


@pytest.mark.parametrize(
    ("defects", "heatmap", "message"),
    [
        ([(np.eye(2, dtype=bool), 1)], np.eye(3), r"Mask number 0 has the shape \(2, 2\)"),
        ([(np.eye(2, dtype=np.uint8), 1)], np.eye(2), "The type of mask number 0 is uint8"),
        ([(np.eye(2, dtype=bool), 0)], np.eye(2), "threshold of a defect is 0: give a number"),
        ([(np.eye(2, dtype=bool), NAN)], np.eye(2), "threshold of a defect is nan: give"),
        ([], np.ones(4), r"Map number 0 has the shape \(4,\): give it as \(H, W\)"),
    ],
)
def test_photos_that_are_refused_leave_nothing_behind(defects, heatmap, message):
    overlap = SaturatedOverlap()
    with pytest.raises(SettingsError, match=message):
        overlap.add(defects, heatmap.astype(np.float32))
    overlap.add([(mask_of(1, 0), 1)], row(1, 0))
    assert overlap.result() == {"auspro": 1.0, "auspro_005": 1.0}


def test_pixels_of_one_class_only_are_refused():
    with pytest.raises(SettingsError, match="mark 0 of the inspected pixels as defective and 2"):
        figures_of([([], row(1, 2))])
