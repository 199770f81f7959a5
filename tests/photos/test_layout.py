"""Tiles: each place of a photo counts once, a seam is nowhere, and whole photos are as before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reconpatch
from conftest import SMALL_FIT, fill, save, textured
from reconpatch.errors import PhotoError, SettingsError
from reconpatch.method.scoring import ScoringSettings, anomaly_map, draw, top_score
from reconpatch.method.settings import automatic_tile, settings_for
from reconpatch.photos.images import read_photo
from reconpatch.photos.layout import Layout, cells_in
from reconpatch.photos.preprocessing import Preprocessing

# --- The lattice ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    height=st.integers(16, 400),
    width=st.integers(16, 400),
    n=st.sampled_from([4, 6, 7, 8, 12]),
    cell=st.sampled_from([1, 4, 8]),
    overlap=st.integers(0, 40),
)
def test_every_place_of_a_photo_is_answered_for_once(height, width, n, cell, overlap):
    tile = n * cell
    layout = Layout.tiled((height, width), tile, min(overlap, tile // 2), (n, n))
    assert layout.grid == (-(-height // cell), -(-width // cell))
    counted = np.zeros(layout.places, int)
    for view in layout.views:
        np.add.at(counted, view.places, 1)
        # Where a view's own cell lies is where the photo's place lies.
        y, x = np.divmod(view.cells, n)
        place = (view.y + y) * layout.grid[1] + view.x + x
        np.testing.assert_array_equal(layout.cell_of[view.places], place)
    np.testing.assert_array_equal(counted, 1)
    assert layout.places == layout.grid[0] * layout.grid[1]


def test_a_row_of_tiles_by_hand():
    # 26 cells, tiles of 8, of which 2 at least are shared: starts 0, 4, 8, 12, 16 and, to reach
    # the end, 20, two cells beyond the photo. Of cells that two tiles see, each has half.
    layout = Layout.tiled((8, 26), 8, 2, (8, 8))
    assert [view.x for view in layout.views] == [0, 4, 8, 12, 16, 20]
    owned = [sorted({int(p) % 26 for p in view.places}) for view in layout.views]
    assert [(own[0], own[-1]) for own in owned] == [
        (0, 5), (6, 9), (10, 13), (14, 17), (18, 21), (22, 25),
    ]  # fmt: skip


def test_what_overlaps_counts_where_it_is_further_from_the_edge():
    layout = Layout.tiled((64, 200), 64, 16, (8, 8))
    for view in layout.views:
        x = view.cells % 8
        inner = [view.x > 0 and x.min() == 0, view.x + 8 < layout.grid[1] and x.max() == 7]
        assert not any(inner)


def test_views_are_put_together_as_one_grid():
    layout = Layout.tiled((40, 56), 32, 8, (8, 8))
    photo = np.arange(10 * 14, dtype=np.float32).reshape(10, 14)
    padded = np.pad(photo, ((0, 8), (0, 8)))
    parts = [padded[v.y : v.y + 8, v.x : v.x + 8].reshape(64, 1) for v in layout.views]
    np.testing.assert_array_equal(layout.joined(parts)[:, 0], photo.ravel())
    np.testing.assert_array_equal(layout.on_grid(photo.ravel()), photo)


def test_only_cells_with_a_pixel_of_the_region_have_a_patch():
    region = np.zeros((40, 56), bool)
    region[9, 20] = region[30:, :8] = True
    layout = Layout.tiled((40, 56), 32, 8, (8, 8), region=region)
    assert layout.inspected is not None
    expected = {(2, 5), *((y, x) for y in (7, 8, 9) for x in (0, 1))}
    assert {tuple(at) for at in np.argwhere(layout.inspected).tolist()} == expected
    assert layout.places == 7
    on_grid = layout.on_grid(np.arange(1, 8, dtype=np.float32), elsewhere=-1)
    assert on_grid[2, 5] == 1
    assert on_grid.max() == 7
    assert (on_grid == -1).sum() == 140 - 7


def test_cells_of_a_photo_that_is_seen_at_once():
    region = np.zeros((100, 60), bool)
    region[99, 0] = region[0, 59] = True
    np.testing.assert_array_equal(cells_in(region, (2, 3)), [[0, 0, 1], [1, 0, 0]])


# --- Scores and maps -----------------------------------------------------------------------------


def test_a_large_map_is_drawn_in_parts_as_in_one():
    values = np.random.default_rng(0).random((90, 70)).astype(np.float32)
    whole = anomaly_map(values.ravel(), (90, 70), (90, 70), 0)
    np.testing.assert_array_equal(whole, values)
    large = anomaly_map(values.ravel(), (90, 70), (1080, 560), 6.0)
    for y, x in [(0, 0), (500, 500), (511, 100), (512, 100), (1079, 559), (700, 513)]:
        rows = _row_of_weights(90, 1080, 6.0, y)
        columns = _row_of_weights(70, 560, 6.0, x)
        assert large[y, x] == pytest.approx(rows @ values @ columns, rel=1e-5)


def _row_of_weights(cells, pixels, sigma, at):
    """Slowly: how much each cell has of the pixel `at` along one axis."""
    weights = np.zeros(cells)
    offsets = np.arange(-24, 25)
    gauss = np.exp(-0.5 * (offsets / sigma) ** 2)
    for offset, share in zip(offsets, gauss / gauss.sum(), strict=True):
        pixel = at + offset
        pixel = -1 - pixel if pixel < 0 else 2 * pixels - 1 - pixel if pixel >= pixels else pixel
        centre = min(max((pixel + 0.5) * cells / pixels - 0.5, 0), cells - 1)
        low = min(int(centre), cells - 2)
        weights[low] += share * (1 - (centre - low))
        weights[low + 1] += share * (centre - low)
    return weights


def test_what_is_not_inspected_has_no_weight_in_scores_and_maps():
    inspected = np.zeros((8, 8), bool)
    inspected[:, :4] = True
    layout = Layout.whole((8, 8), (64, 64), inspected)
    flat = np.full(layout.places, 3.0, np.float32)
    drawn = draw(flat, layout, 4.0)
    np.testing.assert_allclose(drawn[:, :32], 3.0, rtol=1e-5)  # to the very edge of the region
    assert top_score(flat, ScoringSettings(top=0.1, smooth=1.0), layout) == pytest.approx(3.0)


def test_the_top_of_a_photo_in_tiles_is_as_many_patches_as_of_one_tile():
    layout = Layout.tiled((64, 640), 64, 0, (8, 8))  # 10 tiles of 64 patches
    distances = np.zeros(layout.places, np.float32)
    distances[[5, 100, 300]] = 9.0, 8.0, 7.0
    assert top_score(distances, ScoringSettings(top=2 / 64), layout) == pytest.approx(8.5)


# --- A model that looks at tiles -----------------------------------------------------------------

TILED = {**SMALL_FIT, "size": (64, 64), "tile": 64, "overlap": 32, "bank": 400, "defects": 4}
LARGE = (160, 224)


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "good"
    for seed in range(5):
        save(textured(seed, *LARGE), folder / f"part{seed}.png")
    return folder


@pytest.fixture(scope="module")
def tiled(large_folder):
    return reconpatch.fit(large_folder, **TILED)


def spot(photo, y, x, side=12):
    spotted = photo.copy()
    spotted[y : y + side, x : x + side] = (250, 20, 20)
    return spotted


def test_a_photo_in_tiles_is_judged_in_its_own_pixels(tiled):
    assert tiled.layout.grid == (20, 28)
    good, bad = textured(50, *LARGE), spot(textured(50, *LARGE), 100, 180)
    found = tiled.inspect(bad)
    assert found.heatmap.shape == LARGE
    assert np.isfinite(found.heatmap).all()
    assert found.anomalous
    assert not tiled.inspect(good).anomalous
    x, y = found.regions[0].peak
    assert abs(y - 106) < 16
    assert abs(x - 186) < 16
    x0, y0, x1, y1 = found.closest.patch_box
    assert x0 < 200
    assert x1 > 172
    assert y0 < 120
    assert y1 > 92


def test_a_defect_on_a_seam_scores_as_one_in_the_middle(tiled):
    """Within a tenth of the score: what a tile's edge, 16 pixels away, makes of a feature."""
    photo = np.full((*LARGE, 3), 120, np.uint8)  # nothing but the spot differs from place to place
    seams = sorted({int(v.places.max() % 28) for v in tiled.layout.views})[:-1]
    seam = (seams[1] + 1) * 8
    middle = seam - 16
    at_seam = tiled.judge([read_photo(spot(photo, 74, seam - 6))])[0].scores.distances
    in_middle = tiled.judge([read_photo(spot(photo, 74, middle - 6))])[0].scores.distances
    assert at_seam.max() == pytest.approx(in_middle.max(), rel=0.1)


def test_regions_that_cross_tiles_are_one(tiled):
    photo = textured(51, *LARGE)
    photo[70:82, 20:200] = 250  # a scratch over all tiles of a row
    found = tiled.inspect(photo)
    widest = max(found.regions, key=lambda region: region.area)
    assert widest.box[2] - widest.box[0] > 160


def test_a_tiled_model_lasts_in_its_file(tiled, tmp_path):
    tiled.save(tmp_path / "tiled.rcp")
    again = reconpatch.load(tmp_path / "tiled.rcp")
    bad = spot(textured(52, *LARGE), 30, 30)
    assert again.inspect(bad).score == tiled.inspect(bad).score
    assert again.fingerprint == tiled.fingerprint


def test_good_photos_are_scored_as_the_inspection_scores_them(tiled):
    name = tiled.photos[2].name
    photo = read_photo(textured(2, *LARGE), name=name)
    as_new = tiled.judge([photo], as_new=True)[0]
    assert as_new.score == pytest.approx(tiled.good.image_scores[2], rel=1e-4)
    assert as_new.anomaly_map.max() == pytest.approx(tiled.good.map_maxima[2], rel=1e-4)


def test_a_tiled_model_learns_and_is_checked_like_others(tiled):
    from reconpatch.fitting.update import update
    from reconpatch.model.parity import verify_photos

    new = [read_photo(textured(60 + i, *LARGE), name=f"new{i}.png") for i in range(2)]
    taught = update(tiled, new)
    assert len(taught.good.image_scores) == 7
    assert taught.judge([new[0]], as_new=True)[0].score == pytest.approx(
        taught.good.image_scores[5], rel=1e-4
    )
    for found in verify_photos(tiled, new):
        assert found.holds
        assert found.photos == 2 * len(tiled.layout.views)


def test_an_ensemble_looks_at_tiles_too(large_folder):
    both = reconpatch.fit(large_folder, **{**TILED, "size": [64, 96], "tile": 96})
    found = both.inspect(spot(textured(53, *LARGE), 40, 120))
    assert found.heatmap.shape == LARGE
    assert abs(found.regions[0].peak[0] - 126) < 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tile": 20}, "give 32 to 8192 pixels"),
        ({"overlap": 40}, "half of the tile"),
        ({"tile": 68}, "give a multiple of 8, such as 72"),
        ({"tile": "auto"}, "--smallest-defect"),
        ({"resize": 80}, "not cropped"),
        ({"b": 3}, "give b=1"),
    ],
)
def test_tiles_that_cannot_be_are_refused(large_folder, changes, said):
    with pytest.raises(SettingsError, match=said):
        reconpatch.fit(large_folder, **{**TILED, **changes})


def test_photos_in_tiles_have_one_size(tiled, large_folder, tmp_path):
    with pytest.raises(PhotoError, match="224 x 160 in tiles"):
        tiled.inspect(textured(1, 160, 220))
    mixed = fill(tmp_path / "mixed", range(2))
    save(textured(3, 96, 104), mixed / "wide.png")
    with pytest.raises(PhotoError, match="have one size"):
        reconpatch.fit(mixed, **TILED)


def test_a_tiled_model_is_not_exported_as_a_bare_graph(tiled, tmp_path):
    from reconpatch.export.export import export

    with pytest.raises(SettingsError, match="in tiles"):
        export(tiled, tmp_path / "out")


def test_tiles_beyond_the_photo_are_mirrored():
    pixels = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50).astype(np.uint8)
    preprocessing = Preprocessing(32, 32, tile=32, overlap=8)
    layout = preprocessing.layout((8, 8), (40, 50))
    last = layout.views[-1]
    found = preprocessing.view(read_photo(pixels), layout, last)[0] * 255
    mirrored = np.pad(pixels, ((0, 40), (0, 50)), "symmetric")
    y, x = last.y * 4, last.x * 4
    np.testing.assert_allclose(found, mirrored[y : y + 32, x : x + 32], atol=1e-3)


@pytest.mark.parametrize(
    ("given", "photo", "expected"),
    [
        # The smallest defect that matters shows as 12 pixels of the input.
        ({"tile": "auto", "smallest_defect": 12}, (200, 220), (0, 64, 224)),
        ({"tile": "auto", "smallest_defect": 60}, (1000, 2000), (0, 64, 448)),
        ({"tile": "auto", "smallest_defect": 24}, (6000, 8000), (1024, 128, 512)),
        ({"tile": "auto", "smallest_defect": 6}, (6000, 8000), (512, 64, 512)),
        ({"tile": "auto", "smallest_defect": 24, "size": 320}, (6000, 8000), (640, 128, 320)),
        ({"tile": 512}, (6000, 8000), (512, 64, 512)),
        ({"tile": 2048}, (6000, 8000), (2048, 64, 1024)),
        ({"tile": 512, "size": 256}, (6000, 8000), (512, 64, 256)),
        ({}, (1000, 900), (0, 64, 320)),
    ],
)
def test_what_a_tile_comes_to(given, photo, expected):
    found = automatic_tile(settings_for("default", **given), photo)
    assert (found.tile, found.overlap, found.size) == (*expected[:2], (expected[2], expected[2]))


def test_a_quality_does_not_choose_the_size_of_tiles(large_folder):
    fitted = reconpatch.fit(
        large_folder, quality="fast", tile=64, overlap=16, weights="random", bank=100, defects=0
    )
    assert fitted.settings.size == (64, 64)
