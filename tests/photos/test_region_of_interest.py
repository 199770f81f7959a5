"""What lies outside of the region of interest changes nothing; what lies inside counts as ever."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import reconpatch
from conftest import SIDE, SMALL_FIT, fill, save, textured
from reconpatch.errors import PhotoError, SettingsError
from reconpatch.photos.region_of_interest import RegionOfInterest

LEFT = np.zeros((SIDE, SIDE), bool)
LEFT[:, :40] = True


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("roi") / "good", range(6))


@pytest.fixture(scope="module", params=[{}, {"tile": 64, "overlap": 16}], ids=["whole", "tiles"])
def model(request, good):
    return reconpatch.fit(good, roi=LEFT, **SMALL_FIT, **request.param)


def marked(photo, x):
    photo = photo.copy()
    photo[40:56, x : x + 16] = (255, 0, 0)
    return photo


def test_what_lies_outside_cannot_change_a_verdict(model):
    photo = textured(30)
    outside = photo.copy()
    outside[:, 40:] = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE - 40, 3))
    one, other = model.inspect(photo), model.inspect(outside)
    assert one.score == other.score
    np.testing.assert_array_equal(one.heatmap, other.heatmap)
    assert np.isnan(one.heatmap[:, 40:]).all()
    assert np.isfinite(one.heatmap[:, :40]).all()


def test_what_lies_inside_is_found(model):
    found = model.inspect(marked(textured(30), 12))
    assert found.anomalous
    x, y = found.regions[0].peak
    assert abs(x - 20) < 12
    assert abs(y - 48) < 12
    assert found.regions[0].box[2] <= 40


def test_a_defect_outside_raises_no_threshold(model, good, tmp_path):
    """Good photos that are damaged outside of the region give the same model."""
    damaged = tmp_path / "good"
    for i, path in enumerate(sorted(good.iterdir())):
        with Image.open(path) as image:
            save(marked(np.asarray(image), 60 + i), damaged / path.name)
    changes = {"tile": 64, "overlap": 16} if model.layout.in_tiles else {}
    again = reconpatch.fit(damaged, roi=LEFT, **SMALL_FIT, **changes)
    np.testing.assert_array_equal(again.calibration.scores, model.calibration.scores)
    assert again.threshold == model.threshold
    assert again.calibration.map_threshold.value == model.calibration.map_threshold.value


def test_no_row_of_the_bank_lies_outside(model):
    cells = model.layout.cell_of[model.bank.place]
    x = cells % model.layout.grid[1]
    assert (x * model.layout.cell_size[1] * SIDE / model.layout.covered[1]).max() < 40


def test_the_region_lasts_in_the_file(model, tmp_path):
    model.save(tmp_path / "roi.rcp")
    again = reconpatch.load(tmp_path / "roi.rcp")
    assert again.preprocessing == model.preprocessing
    assert again.inspect(marked(textured(31), 12)).score == pytest.approx(
        model.inspect(marked(textured(31), 12)).score
    )


def test_another_region_is_another_model(good):
    whole = reconpatch.fit(good, **SMALL_FIT)
    left = reconpatch.fit(good, roi=LEFT, **SMALL_FIT)
    assert whole.fingerprint != left.fingerprint


# --- Files ---------------------------------------------------------------------------------------


def test_a_picture_is_a_region(tmp_path):
    Image.fromarray(LEFT).save(tmp_path / "roi.png")
    assert RegionOfInterest.read(tmp_path / "roi.png") == RegionOfInterest.of(LEFT)


def test_polygons_are_a_region(tmp_path):
    polygon = {"size": [40, 20], "inspect": [[[0, 0], [19, 0], [19, 19], [0, 19]]]}
    (tmp_path / "roi.json").write_text(json.dumps(polygon))
    mask = RegionOfInterest.read(tmp_path / "roi.json").at(20, 40)
    expected = np.zeros((20, 40), bool)
    expected[:, :20] = True
    np.testing.assert_array_equal(mask, expected)


def test_without_an_area_to_inspect_all_is_but_what_is_ignored(tmp_path):
    ignored = {"size": [40, 20], "ignore": [[[10, 5], [12, 5], [12, 7], [10, 7]]]}
    (tmp_path / "roi.json").write_text(json.dumps(ignored))
    mask = RegionOfInterest.read(tmp_path / "roi.json").at(20, 40)
    assert not mask[5:8, 10:13].any()
    assert mask.sum() == 800 - 9


def test_a_region_grows_with_the_photo():
    mask = RegionOfInterest.of(LEFT).at(2 * SIDE, 2 * SIDE)
    np.testing.assert_array_equal(mask, np.kron(LEFT, np.ones((2, 2), bool)))


def test_a_photo_of_another_shape_does_not_fit(good):
    model = reconpatch.fit(good, roi=LEFT, **SMALL_FIT)
    with pytest.raises(PhotoError, match="drawn on 96 x 96"):
        model.inspect(textured(0, 96, 128))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "does not describe a region"),
        ('{"size": [40, 20], "holes": []}', "does not describe a region"),
        ('{"size": [40, 20], "inspect": []}', "no pixel to inspect"),
        ('{"size": [40, 20], "inspect": [[1, 2]]}', "cannot be drawn"),
        ('{"size": 40, "inspect": []}', "cannot be drawn"),
        ('{"size": [100000, 100000], "ignore": []}', "cannot be drawn .*over the limit of 80,000,"),
        ("[" * 100_000, "cannot be read"),
        ("no json", "cannot be read"),
    ],
)
def test_files_that_are_no_region_are_refused(tmp_path, content, said):
    (tmp_path / "roi.json").write_text(content)
    with pytest.raises(SettingsError, match=said):
        RegionOfInterest.read(tmp_path / "roi.json")


def test_a_black_picture_is_no_region(tmp_path):
    Image.new("L", (40, 20)).save(tmp_path / "roi.png")
    with pytest.raises(SettingsError, match="no pixel to inspect"):
        RegionOfInterest.read(tmp_path / "roi.png")
    with pytest.raises(SettingsError, match="cannot be read"):
        RegionOfInterest.read(tmp_path / "none.png")
