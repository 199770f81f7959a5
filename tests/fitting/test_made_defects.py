"""Made defects: what changes, where, by how much, and what it follows from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from conftest import textured
from reconpatch.errors import PhotoError, SettingsError
from reconpatch.fitting.made_defects import (
    FINE_WIDTH,
    JUDGED_KINDS,
    KINDS,
    SIZES,
    STRENGTHS,
    Kind,
    MadeDefect,
    _block_means,
    _distance_to_chain,
    _draw_line,
    _Edges,
    _inside,
    _Look,
    _polygon,
    _sampled,
    _shaded,
    _smooth_noise,
    _Window,
    made_defects,
    make_defect,
)

RGB = npt.NDArray[np.uint8]

ALL_KINDS = [*KINDS, *JUDGED_KINDS]


def flat(level: int, height: int = 64, width: int = 64) -> RGB:
    return np.full((height, width, 3), level, np.uint8)


def noise(seed: int, height: int, width: int, *, grey: bool = False) -> RGB:
    """Blocks of 4 x 4 pixels of random levels: texture that a warp shows on."""
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 210, (-(-height // 4), -(-width // 4), 1 if grey else 3))
    blocks = small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width].astype(np.uint8)
    return np.broadcast_to(blocks, (height, width, 3)).copy()


def made(kind: Kind, photo: RGB, count: int, donor: RGB | None = None) -> Iterator[MadeDefect]:
    """Defects of one kind on one photo, by other seeds."""
    for seed in range(count):
        yield make_defect(
            photo, photo if donor is None else donor, kind, np.random.default_rng(seed)
        )


# --- What every defect keeps to -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("shape", [(96, 128), (200, 40), (8, 8), (9, 31)])
def test_a_defect_changes_its_mask_and_nothing_else(kind: Kind, shape: tuple[int, int]) -> None:
    photo, donor = noise(0, *shape), noise(1, 50, 70)
    before = photo.copy()
    for defect in made(kind, photo, 20, donor):
        assert (defect.pixels.dtype, defect.pixels.shape) == (np.uint8, photo.shape)
        assert (defect.mask.dtype, defect.mask.shape) == (np.bool_, shape)
        changed = (defect.pixels != photo).any(axis=2)
        assert not (changed & ~defect.mask).any()
        change = (defect.pixels.astype(float) - photo)[defect.mask]
        assert np.sqrt((np.abs(change).max(axis=1) ** 2).mean()) >= 2
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_size_and_strength_lie_in_the_documented_ranges(kind: Kind) -> None:
    for defect in made(kind, noise(2, 300, 400), 40):
        assert defect.kind == kind
        assert SIZES[kind][0] <= defect.size <= SIZES[kind][1]
        assert STRENGTHS[kind][0] <= defect.strength <= STRENGTHS[kind][1]
        rows, columns = (np.flatnonzero(defect.mask.any(axis=axis)) for axis in (1, 0))
        across = np.hypot(np.ptp(rows), np.ptp(columns))
        # An outline is up to √2 times as long as its mean diameter, its box's diagonal √2 more.
        assert across <= 2 * max(defect.size * 300, 3) + 4


@pytest.mark.parametrize("kind", ["spot", "smear", "warp"])
def test_a_round_defect_covers_the_disc_of_its_diameter(kind: Kind) -> None:
    inside = 0
    for defect in made(kind, noise(2, 600, 600), 40):
        edges = (defect.mask[0], defect.mask[-1], defect.mask[:, 0], defect.mask[:, -1])
        if defect.kind == kind and defect.size > 0.03 and not np.concatenate(edges).any():
            disc = np.pi / 4 * (defect.size * 600) ** 2
            assert defect.mask.sum() == pytest.approx(disc, rel=0.05)
            inside += 1
    assert inside >= 10


def test_sizes_and_strengths_are_log_uniform() -> None:
    """Where there is texture nearly every spot shows, so hardly any is drawn again."""
    drawn = list(made("spot", noise(3, 128, 128), 300))
    for values, (low, high) in (
        (np.array([d.size for d in drawn]), SIZES["spot"]),
        (np.array([d.strength for d in drawn]), STRENGTHS["spot"]),
    ):
        share = np.log(values / low) / np.log(high / low)
        np.testing.assert_allclose(
            np.quantile(share, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.1
        )


def test_places_lie_all_over_the_photo() -> None:
    quarters = set()
    for defect in made("spot", noise(4, 80, 120), 60):
        y, x = (int(where.mean()) for where in np.nonzero(defect.mask))
        quarters.add((y // 20, x // 30))
    assert len(quarters) == 16


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_grey_photo_stays_grey(kind: Kind) -> None:
    photo = noise(5, 90, 90, grey=True)
    for defect in made(kind, photo, 20):
        assert (np.ptp(defect.pixels, axis=2) == 0).all()


def test_a_spot_on_a_photo_in_colour_is_sometimes_tinted() -> None:
    photo = noise(6, 90, 90)
    tinted = 0
    for defect in made("spot", photo, 40):
        change = (defect.pixels.astype(int) - photo)[defect.mask].mean(axis=0)
        tinted += np.ptp(change) > 0.5 * np.abs(change).max()
    assert 5 <= tinted <= 35


# --- Photos on which little can change ------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 130, 255])
@pytest.mark.parametrize("side", [8, 64])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_on_a_constant_photo_only_drawn_defects_show(kind: Kind, side: int, level: int) -> None:
    photo = flat(level, side, side)
    for defect in made(kind, photo, 10):
        of_the_photos_own = ("paste", "smear", "warp", "chip")  # which shows nothing here
        assert defect.kind == ("spot" if kind in of_the_photos_own else kind)
        change = defect.pixels.astype(int) - photo
        assert np.abs(change).max() >= 2
        # There is room on one side only.
        assert level != 0 or (change >= 0).all()
        assert level != 255 or (change <= 0).all()


@pytest.mark.parametrize("kind", ["scratch", "spot", "crack", "stain", "pits", "fibre"])
def test_a_drawn_defect_takes_the_side_that_has_room(kind: Kind) -> None:
    """So nothing is drawn again on white or black that would have done on grey."""
    on = {level: list(made(kind, flat(level), 20)) for level in (0, 128, 255)}
    for level in (0, 255):
        assert [d.strength for d in on[level]] == [d.strength for d in on[128]]


def test_on_a_mostly_flat_photo_texture_is_damaged_where_there_is_some() -> None:
    photo = flat(255, 120, 120)
    photo[30:90, 30:90] = noise(7, 60, 60)
    for kind in ("smear", "warp"):
        found = list(made(kind, photo, 20))  # type: ignore[arg-type]
        assert sum(defect.kind == kind for defect in found) >= 15
        assert all(defect.mask[24:96, 24:96].any() for defect in found if defect.kind == kind)


def test_grain_pasted_on_the_same_grain_is_no_defect() -> None:
    """Every pixel changes, by more than the grain itself varies, and nothing can be seen."""
    rng = np.random.default_rng(8)
    photo = np.clip(rng.normal(128, 10, (400, 400, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    for defect in made("paste", photo, 20):
        change = (defect.pixels.astype(float) - photo)[defect.mask].mean()
        # What is left are pastes of a few pixels, each brighter or darker than what it covers.
        assert defect.kind == "spot" or defect.mask.sum() < 250 or abs(change) > 1


# --- The kinds ------------------------------------------------------------------------------------


def test_a_paste_is_as_opaque_as_its_strength() -> None:
    for defect in made("paste", flat(0), 20, donor=flat(200)):
        assert defect.kind == "paste"
        assert defect.pixels.max() == round(200 * defect.strength)


def test_a_paste_comes_from_another_place() -> None:
    """The donor's red level tells the column, its green one the row."""
    side = 200
    donor = np.zeros((side, side, 3), np.uint8)
    donor[:, :, 0], donor[:, :, 1] = np.mgrid[:side, :side][::-1]
    donor[:, :, 2] = 250
    for defect in made("paste", flat(0, side, side), 60, donor=donor):
        middle = np.unravel_index(defect.pixels[:, :, 2].argmax(), defect.mask.shape)
        from_x, from_y = defect.pixels[middle][:2] / defect.strength
        moved = abs(middle[0] - from_y), abs(middle[1] - from_x)
        # A quarter of the side, less what keeps the cut on the donor.
        slack = 0.9 * defect.size * side + 4
        assert all(0.25 * side - slack < m < 0.75 * side + slack for m in moved)


def test_a_scratch_is_long_and_thin() -> None:
    photo = flat(128, 500, 500)
    for defect in made("scratch", photo, 30):
        rows, columns = np.nonzero(defect.mask)
        points = np.stack([rows, columns], axis=1).astype(float)
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
        assert spread[1] > 3 * spread[0]
        # 1 to 5 pixels wide, and a pixel of soft edge; up to 1.1 times as long as its chord.
        assert defect.mask.sum() <= 7 * (1.1 * defect.size * 500 + 7)


def test_a_smear_takes_texture_and_leaves_the_mean() -> None:
    photo = noise(9, 200, 200)
    for defect in made("smear", photo, 20):
        good, smeared = (pixels[defect.mask].astype(float) for pixels in (photo, defect.pixels))
        assert (smeared.std(axis=0) < good.std(axis=0)).all()
        np.testing.assert_allclose(smeared.mean(axis=0), good.mean(axis=0), atol=25)


def test_a_warp_invents_no_level() -> None:
    """A step between two levels stays one: pixels move across it, or lie between the two."""
    photo = flat(60, 100, 100)
    photo[:, 50:] = 180
    for defect in made("warp", photo, 20):
        if defect.kind == "warp":
            assert defect.mask[:, 45:55].any()
            assert defect.pixels.min() == 60
            assert defect.pixels.max() == 180


@pytest.mark.parametrize("kind", ["scratch", "spot"])
def test_a_drawn_defect_is_as_strong_as_the_texture_around_it(kind: Kind) -> None:
    """Half the contrast of the photo halves the change."""
    photo = np.rint(128 + (noise(10, 120, 120).astype(float) - 125) * 0.4).astype(np.uint8)
    weaker = np.rint(128 + (photo.astype(float) - 128) / 2).astype(np.uint8)
    for seed in range(20):
        changes = []
        for pixels in (photo, weaker):
            defect = make_defect(pixels, pixels, kind, np.random.default_rng(seed))
            changes.append(np.abs(defect.pixels.astype(float) - pixels)[defect.mask].mean())
        if changes[1] > 4:  # else the weaker one may have been drawn again
            assert changes[1] == pytest.approx(changes[0] / 2, rel=0.15)


# --- Kinds that lie on the part -------------------------------------------------------------------


def thinned(mask: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.bool_]:
    """The pixels around which a square of an odd side is marked."""
    marked = Image.fromarray(mask.astype(np.uint8))
    return np.asarray(marked.filter(ImageFilter.MinFilter(side))).astype(bool)


def test_no_kind_both_teaches_and_judges() -> None:
    assert not set(KINDS) & set(JUDGED_KINDS)
    assert set(SIZES) == set(STRENGTHS) == set(ALL_KINDS)


@pytest.mark.parametrize("kind", ["crack", "fibre"])
def test_cracks_and_fibres_are_thin(kind: Kind) -> None:
    side = 400
    # A fifth wider at places, and a soft edge half as wide as the line on either side.
    widest = 2 * int(2.2 * FINE_WIDTH * side / 2) + 3
    for defect in made(kind, flat(128, side, side), 12):
        assert not thinned(defect.mask, widest).any()
        assert defect.mask.sum() > 0.5 * min(defect.size, 0.1) * side


def test_the_box_of_a_crack_has_its_size_as_diagonal() -> None:
    inside = 0
    for defect in made("crack", flat(128, 300, 300), 30):
        edges = (defect.mask[0], defect.mask[-1], defect.mask[:, 0], defect.mask[:, -1])
        if not np.concatenate(edges).any():
            across = [np.ptp(where) for where in np.nonzero(defect.mask)]
            assert np.hypot(*across) == pytest.approx(defect.size * 300, abs=8)
            inside += 1
    assert inside >= 10


def test_some_cracks_have_branches() -> None:
    """A line crosses a circle around its middle twice, a branch crosses it once more."""
    y, x = np.mgrid[:300, :300]
    most = 0
    for defect in made("crack", flat(128, 300, 300), 20):
        rows, columns = np.nonzero(defect.mask)
        distance = np.hypot(y - rows.mean(), x - columns.mean())
        for radius in np.linspace(0.1, 0.4, 7) * defect.size * 300:
            ring = (np.abs(distance - radius) < 1.5) & defect.mask
            angles = np.sort(np.arctan2(*(np.argwhere(ring) - [rows.mean(), columns.mean()]).T))
            gaps = np.diff(angles, append=angles[:1] + 2 * np.pi)
            most = max(most, int((gaps * radius > 15).sum()))
    assert most >= 3


def test_a_fibre_is_longer_than_a_scratch_and_bent() -> None:
    assert SIZES["fibre"][1] > SIZES["scratch"][1]
    shorter = 0
    for defect in made("fibre", flat(128, 400, 400), 30):
        edges = (defect.mask[0], defect.mask[-1], defect.mask[:, 0], defect.mask[:, -1])
        if not np.concatenate(edges).any():
            across = np.hypot(*[np.ptp(where) for where in np.nonzero(defect.mask)])
            assert across < defect.size * 400 + 12
            shorter += across < 0.9 * defect.size * 400
    assert shorter >= 5


def test_a_fibre_has_one_tone() -> None:
    """It hides most of what it crosses: stripes 20 levels apart nearly vanish in its middle."""
    photo = flat(110, 500, 500)
    photo[:, ::2] = 130
    seen = 0
    for defect in made("fibre", photo, 12):
        rows, columns = np.nonzero(thinned(defect.mask, 5))
        if len(rows) > 100:
            even = columns % 2 == 0
            bright, dark = (defect.pixels[rows[at], columns[at]].mean() for at in (even, ~even))
            assert abs(bright - dark) < 10
            seen += 1
    assert seen >= 3


def test_a_stain_shades_what_is_under_it() -> None:
    photo = noise(11, 200, 200, grey=True)
    darker = 0
    for defect in made("stain", photo, 40):
        before, after = (p[defect.mask][:, 0].astype(float) for p in (photo, defect.pixels))
        change = after - before
        assert (change <= 0).all() or (change >= 0).all()
        darker += change.mean() < 0
        if len(before) > 500:  # the texture is still there
            assert np.corrcoef(before, after)[0, 1] > 0.4
    assert 24 <= darker <= 39


def test_pits_are_small_and_lit_from_one_side() -> None:
    lit = 0
    for defect in made("pits", flat(128, 400, 400), 30):
        change = defect.pixels[:, :, 0].astype(int) - 128
        deep, high = sorted((abs(change.min()), abs(change.max())), reverse=True)
        assert deep > high
        lit += high > 0
        assert defect.mask.sum() < 1.2 * np.pi / 4 * (max(defect.size * 400, 3) + 4) ** 2
    assert lit >= 15


def test_a_chip_lies_on_an_edge_and_on_one_side_of_it() -> None:
    photo = flat(60, 100, 100)
    photo[:, 50:] = 180
    sides = set()
    for defect in made("chip", photo, 30):
        assert defect.kind == "chip"
        columns = np.nonzero(defect.mask)[1]
        assert columns.min() >= 46 or columns.max() <= 53
        assert defect.mask[:, 46:54].any()
        # It is filled with what is around: the other side, or shades between the two.
        assert (defect.pixels.min(), defect.pixels.max()) == (60, 180)
        sides.add(columns.mean() > 50)
    assert len(sides) == 2


def test_judging_defects_lie_more_often_where_there_is_something() -> None:
    photo = flat(200, 128, 128)
    photo[:64, :64] = noise(12, 64, 64)
    on_part = 0
    for defect in made("pits", photo, 60):
        y, x = (where.mean() for where in np.nonzero(defect.mask))
        on_part += y < 66 and x < 66
    # A quarter of the photo; five eighths of the draws.
    assert 26 <= on_part <= 50


# --- Many photos ----------------------------------------------------------------------------------


def same(a: MadeDefect, b: MadeDefect) -> bool:
    return (
        np.array_equal(a.pixels, b.pixels)
        and np.array_equal(a.mask, b.mask)
        and (a.kind, a.size, a.strength) == (b.kind, b.size, b.strength)
    )


def test_kinds_come_in_turn_and_repeat_by_seed() -> None:
    photos = [noise(seed, 64, 80) for seed in range(len(KINDS) + 2)]
    defects = list(made_defects(photos, seed=3))
    assert [defect.kind for defect in defects] == [*KINDS, *KINDS[:2]]
    again, other = list(made_defects(photos, seed=3)), list(made_defects(photos, seed=4))
    assert all(map(same, defects, again))
    assert not any(map(same, defects, other))


def test_the_kinds_can_be_chosen() -> None:
    photos = [noise(seed, 64, 80) for seed in range(7)]
    judging = list(made_defects(photos[:3], 3, JUDGED_KINDS))
    assert [defect.kind for defect in judging] == [*JUDGED_KINDS, JUDGED_KINDS[0]]
    assert all(map(same, judging, made_defects(photos[:3], 3, JUDGED_KINDS)))
    one = list(made_defects(photos, 3, ("spot",)))
    assert [defect.kind for defect in one] == ["spot"] * 7
    assert all(map(same, made_defects(photos, 3), made_defects(photos, 3, KINDS)))


def test_photos_that_come_later_change_nothing() -> None:
    photos = [textured(seed) for seed in range(8)]
    assert all(map(same, made_defects(photos[:5], 0), made_defects(photos, 0)))


def test_photos_are_read_one_at_a_time() -> None:
    def endless() -> Iterator[RGB]:
        while True:
            yield noise(0, 16, 16)

    assert next(made_defects(endless(), 0)).kind == "paste"


def test_pastes_come_from_the_photo_before_too() -> None:
    """What is pasted into is black: what is not on it was cut from the white ones between."""
    kinds = len(KINDS)
    photos = [flat(0) if index % kinds == 0 else flat(255) for index in range(20 * kinds)]
    made = list(made_defects(photos, 0))
    pasted = [made[i] for i in range(0, len(made), kinds) if made[i].kind == "paste"]
    assert 4 <= len(pasted) <= 16  # of 19 with a photo before, by the toss of a coin


# --- Parts ----------------------------------------------------------------------------------------


def test_the_distance_to_a_chain_against_many_points_of_it() -> None:
    corners_y, corners_x = np.array([0.0, 4.0, 3.0]), np.array([0.0, 3.0, 9.0])
    y, x = np.mgrid[-3:8, -3:13].astype(float)
    on_it = np.concatenate(
        [
            np.linspace((corners_y[i], corners_x[i]), (corners_y[i + 1], corners_x[i + 1]), 2001)
            for i in (0, 1)
        ]
    )
    slow = np.array(
        [np.hypot(*(on_it - point).T).min() for point in zip(y.ravel(), x.ravel(), strict=True)]
    )
    found = _distance_to_chain(y, x, corners_y, corners_x)
    np.testing.assert_allclose(found.ravel(), slow, atol=2e-3)


def test_a_photo_between_its_pixels() -> None:
    photo = np.zeros((2, 2, 3), np.uint8)
    photo[:, :, 0] = [[0, 100], [40, 200]]
    y, x = np.array([[0.0, 0.5, 0.25, 9.0]]), np.array([[0.5, 0.5, 0.0, -3.0]])
    # (0 + 100) / 2; the mean of all; a quarter of the way from 0 to 40; the lower left corner.
    np.testing.assert_allclose(_sampled(photo, y, x)[0, :, 0], [50, 85, 10, 40])


def test_block_means_by_hand() -> None:
    values = np.array([[1.0, 3.0, 8.0], [5.0, 7.0, 4.0], [2.0, 6.0, 12.0]])[:, :, None]
    # Beyond the edge there are zeros: (8 + 4) / 4, (2 + 6) / 4 and 12 / 4.
    np.testing.assert_array_equal(_block_means(values, 2)[:, :, 0], [[4, 3], [2, 3]])


def test_a_cut_is_kept_on_the_photo() -> None:
    assert [_inside(place, 3.0, 21) for place in (0.5, 10.0, 20.5)] == [3.0, 10.0, 17.0]
    assert _inside(0.5, 30.0, 21) == 10.0


def around(far: int) -> _Window:
    dy, dx = np.mgrid[-far : far + 1, -far : far + 1].astype(float)
    return _Window(slice(0, 2 * far + 1), slice(0, 2 * far + 1), dy, dx)


def test_a_line_by_hand() -> None:
    window, corners = around(4), np.array([[0.0, -9.0], [0.0, 9.0]])
    coverage = np.zeros_like(window.dy)
    _draw_line(coverage, window, corners, np.full(2, 2.0), np.full(2, 0.8))
    # 2 pixels wide: the middle row is within, half of each neighbour.
    np.testing.assert_allclose(coverage[:, 0], [0, 0, 0, 0.4, 0.8, 0.4, 0, 0, 0])
    np.testing.assert_allclose(coverage, np.broadcast_to(coverage[:, :1], coverage.shape))


def test_a_line_off_the_window_covers_nothing() -> None:
    window, corners = around(4), np.array([[-30.0, -9.0], [-20.0, 50.0]])
    coverage = np.zeros_like(window.dy)
    _draw_line(coverage, window, corners, np.full(2, 2.0), np.ones(2))
    assert not coverage.any()


def test_a_polygon_lies_between_two_circles() -> None:
    window = around(30)
    distance = np.hypot(window.dy, window.dx)
    for seed in range(20):
        covered = _polygon(window, np.full_like(distance, 20.0), np.random.default_rng(seed))
        assert not covered[distance > 20.5].any()
        assert covered[30, 30] == 1
        # Its corners are at least 10 from the middle, at most a third of the way round apart.
        assert (covered[distance < 10 * np.cos(np.pi / 3) - 1] > 0).all()


def test_smooth_noise_fills_its_range_and_is_smooth() -> None:
    rough, smooth = (_smooth_noise((60, 90), cell, np.random.default_rng(0)) for cell in (2, 20))
    for values in (rough, smooth):
        assert (values.shape, values.min(), values.max()) == ((60, 90), 0, 1)
    steps = [np.abs(np.diff(values, axis=1)).mean() for values in (rough, smooth)]
    assert steps[1] < steps[0] / 3


def test_shades_by_hand() -> None:
    good = np.full((1, 1, 3), 100.0)
    # A fifth of the way to black, none, a tenth of the way to white.
    np.testing.assert_allclose(_shaded(good, np.array([-0.2, 0, 0.1])), [[[80, 100, 115.5]]])


def test_the_grain_is_the_contrast_within_blocks() -> None:
    """Stripes of 90 and 110 have a deviation of 10; a step from 0 to 200 elsewhere adds nothing."""
    photo = flat(90, 160, 160)
    photo[:, ::2] = 110
    photo[:, 81:] = 255
    look, coverage = _Look.of(photo), np.zeros((160, 160))
    coverage[40:120, :80] = 1
    assert look.grain(photo.astype(float), coverage) == pytest.approx(10)


def test_places_on_edges_are_where_the_levels_change() -> None:
    photo = flat(0, 128, 192)
    photo[:, 96:] = 200
    rng = np.random.default_rng(0)
    places = [_Edges.of(photo).place(rng, on_edges=True) for _ in range(40)]
    assert all(92 <= x < 100 for _, x in places)
    assert np.ptp([y for y, _ in places]) > 90


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((20, 20), np.uint8), r"shape \(20, 20\)"),
        (np.zeros((20, 20, 4), np.uint8), r"shape \(20, 20, 4\)"),
        (np.zeros((20, 20, 3), np.uint16), "type uint16"),
        (np.zeros((20, 7, 3), np.uint8), "7 x 20 pixels"),
    ],
)
def test_what_is_no_photo_is_refused(pixels: Any, message: str) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(PhotoError, match=f"pixels is .*{message}"):
        make_defect(pixels, flat(0), "spot", rng)
    with pytest.raises(PhotoError, match=f"donor is .*{message}"):
        make_defect(flat(0), pixels, "spot", rng)


def test_unknown_kinds_and_seeds_are_refused() -> None:
    with pytest.raises(SettingsError, match="'dent': give one of paste, scratch"):
        make_defect(flat(0), flat(0), "dent", np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="seed is -1"):
        next(made_defects([flat(0)], -1))
    with pytest.raises(SettingsError, match="no kinds of defects: give one or more of paste"):
        next(made_defects([flat(0)], 0, ()))
