from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from reconpatch.errors import PhotoError, SettingsError
from reconpatch.report.overlay import colourise, css_gradient, outline, overlay
from reconpatch.result import Region

YELLOW = [255, 225, 40, 165]
DEEP_RED = [140, 0, 25, 220]


def heatmap(*rows: list[float]) -> npt.NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def lightness(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Relative luminance of sRGB, as in WCAG 2."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ [0.2126, 0.7152, 0.0722])


def test_colours_at_the_marks_of_the_scale():
    painted = colourise(heatmap([0.0, 1.0, 1.5, 2.0, 4.0, 40.0]), map_threshold=2.0)
    assert painted.shape == (1, 6, 4)
    assert painted.dtype == np.uint8
    assert painted[0, :3, 3].tolist() == [0, 0, 0]
    assert painted[0, 3:].tolist() == [YELLOW, DEEP_RED, DEEP_RED]


def test_just_above_three_quarters_begins_to_show():
    assert 0 < colourise(heatmap([0.80]), 1.0)[0, 0, 3] < 60


def test_higher_values_are_darker_and_more_opaque():
    painted = colourise(np.linspace(0.75, 2.0, 100, dtype=np.float32)[None], 1.0)[0]
    assert (np.diff(painted[:, 3].astype(int)) >= 0).all()
    assert (np.diff(lightness(painted[:, :3])) <= 1e-12).all()
    assert lightness(painted[:1, :3])[0] > 10 * lightness(painted[-1:, :3])[0]


def test_colours_follow_a_scale_interpolated_value_by_value():
    stops = {0.75: (255, 225, 40, 0), 1.0: YELLOW, 1.3: (255, 150, 20, 190)}
    for value in (0.8, 0.9, 1.0, 1.1, 1.25):
        low, high = (0.75, 1.0) if value < 1 else (1.0, 1.3)
        share = (value - low) / (high - low)
        slow = [a + share * (b - a) for a, b in zip(stops[low], stops[high], strict=True)]
        assert np.abs(colourise(heatmap([3 * value]), 3.0)[0, 0] - slow).max() <= 3


def test_a_value_has_the_same_colour_in_every_photo():
    calm = heatmap([0.1, 1.4], [0.2, 0.3])
    wild = heatmap([90.0, 7.0, 1.4])
    assert (colourise(calm, 1.1)[0, 1] == colourise(wild, 1.1)[0, 2]).all()


def test_not_inspected_is_grey_hatched_and_never_coloured():
    field = np.zeros((48, 48), dtype=np.float32)
    field[:, :24] = np.nan
    painted = colourise(field, 1.0)
    left, right = painted[:, :24], painted[:, 24:]
    assert (right[..., 3] == 0).all()
    assert (left[..., 3] > 0).all()
    assert (left[..., 0] == left[..., 1]).all()
    assert (left[..., 1] == left[..., 2]).all()
    assert len(np.unique(left[..., 0])) == 2
    assert (painted[0, 1] == painted[1, 0]).all(), "the hatching runs diagonally"


def test_all_of_a_map_may_be_not_inspected():
    assert (colourise(np.full((3, 4), np.nan, dtype=np.float32), 1.0)[..., 3] > 0).all()


def test_a_threshold_of_zero_paints_whatever_is_above_it():
    assert colourise(heatmap([0.0, 1e-3, 1e30]), 0.0)[0].tolist()[1:] == [DEEP_RED, DEEP_RED]
    assert colourise(heatmap([0.0]), 0.0)[0, 0, 3] == 0


@pytest.mark.parametrize("threshold", [-1.0, float("nan"), float("inf")])
def test_an_impossible_threshold_is_refused(threshold):
    with pytest.raises(SettingsError, match="map threshold is"):
        colourise(heatmap([1.0]), threshold)


def test_a_photo_without_anomaly_stays_as_it_is():
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = overlay(rgb, np.full((20, 30), 0.7, dtype=np.float32), 1.0)
    assert image.mode == "RGB"
    assert (np.asarray(image) == rgb).all()


def test_overlay_mixes_photo_and_colour_by_opacity():
    rgb = np.full((1, 2, 3), 100, dtype=np.uint8)
    pixels = np.asarray(overlay(rgb, heatmap([0.0, 1.0]), 1.0)).astype(int)
    opacity = YELLOW[3] / 255
    expected = [opacity * c + (1 - opacity) * 100 for c in YELLOW[:3]]
    assert pixels[0, 0].tolist() == [100, 100, 100]
    assert np.abs(pixels[0, 1] - expected).max() <= 1


def test_colour_of_the_photo_drains_where_it_is_painted():
    yellow_part = np.full((1, 1, 3), (250, 220, 0), dtype=np.uint8)
    grey_part = np.full((1, 1, 3), 204, dtype=np.uint8)  # 0.299 * 250 + 0.587 * 220
    at_two = heatmap([2.0])
    assert overlay(yellow_part, at_two, 1.0).getpixel((0, 0)) == overlay(
        grey_part, at_two, 1.0
    ).getpixel((0, 0))


def test_regions_are_framed_outside_their_box():
    rgb = np.full((100, 100, 3), 128, dtype=np.uint8)
    region = Region((40, 30, 60, 50), 400, (45, 35), 0.5)
    pixels = np.asarray(overlay(rgb, np.zeros((100, 100), np.float32), 1.0, [region]))
    changed = (pixels != 128).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (38, 28, 61, 51)
    assert not changed[30:50, 40:60].any()
    assert pixels[35, 38].max() < 60
    assert pixels[35, 39].min() > 200


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 50)])
def test_a_frame_around_the_whole_photo_fits_any_photo(size):
    image = Image.new("RGB", size, (128, 128, 128))
    outline(image, (0, 0, *size))
    assert image.getpixel((0, 0)) == (20, 20, 20)


def test_the_line_grows_with_the_photo():
    image = Image.new("RGB", (1500, 300))
    outline(image, (500, 100, 600, 200))
    row = np.asarray(image)[150, :, 0]
    assert (row == 255).sum() == 2 * 1500 // 300


def test_photo_and_map_must_have_one_size():
    with pytest.raises(PhotoError, match=r"\(4, 5\).*\(5, 4\)"):
        overlay(np.zeros((5, 4, 3), np.uint8), np.zeros((4, 5), np.float32), 1.0)


@pytest.mark.parametrize(
    "photo", [np.zeros((5, 4), np.uint8), np.zeros((5, 4, 3), float), np.zeros((5, 4, 4), np.uint8)]
)
def test_only_rgb_photos_are_taken(photo):
    with pytest.raises(PhotoError, match=r"\(height, width, 3\) of type uint8"):
        overlay(photo, np.zeros((5, 4), np.float32), 1.0)


def test_the_legend_shows_the_same_colours():
    stops = re.findall(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\) ([\d.]+)%", css_gradient())
    at = {float(place): [int(r), int(g), int(b), float(a)] for r, g, b, a, place in stops}
    assert at[0.0][3] == 0
    assert at[35.0][3] == 0
    assert at[50.0] == pytest.approx([*YELLOW[:3], YELLOW[3] / 255], abs=1e-3)
    assert at[100.0] == pytest.approx([*DEEP_RED[:3], DEEP_RED[3] / 255], abs=1e-3)
