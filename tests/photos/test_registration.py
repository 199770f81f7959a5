"""Parts that lie shifted or turned: brought to one place, judged there, told of where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import affine_transform

import reconpatch
from conftest import SMALL_FIT, save
from reconpatch.errors import MissingExtraError, PhotoError
from reconpatch.photos.images import Photo, read_photo
from reconpatch.photos.preprocessing import Preprocessing
from reconpatch.photos.registration import RegisteredPhoto, Registration

SIDE = 120


def part(seed: int, degrees: float = 0.0, dy: float = 0.0, dx: float = 0.0, defect=None):
    """A plate with holes on a dark table, (SIDE, SIDE, 3) uint8, turned about the middle, shifted.

    Args:
        seed: of the grain.
        degrees, dy, dx: how the plate lies.
        defect: (y, x) of a bright spot on the plate, where it lies unturned and unshifted.
    """
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    plate = 150.0 * ((abs(y - 60) < 30) & (abs(x - 60) < 42))
    for hole in ((42, 30), (42, 88), (76, 66)):
        plate[np.hypot(y - hole[0], x - hole[1]) < 6] = 20
    if defect is not None:
        plate[np.hypot(y - defect[0], x - defect[1]) < 5] = 255
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.full(2, (SIDE - 1) / 2)
    offset = middle - matrix @ (middle + np.array([dy, dx]))
    moved = affine_transform(plate, matrix, offset, order=1)
    grain = np.random.default_rng(seed).normal(0, 4, moved.shape)
    grey = np.clip(moved + 20 + grain, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.fixture(scope="module")
def to_first():
    return Registration.to(read_photo(part(0)))


@pytest.mark.parametrize(
    ("degrees", "dy", "dx"), [(0, 0, 0), (0, 7, -9), (6, 0, 0), (-10, 4, 6), (3.5, -12, 8)]
)
def test_a_moved_part_is_brought_back(to_first, degrees, dy, dx):
    found = to_first(read_photo(part(1, degrees, dy, dx)))
    error = np.abs(found.pixels.astype(int) - part(2).astype(int))[15:-15, 15:-15]
    assert np.median(error) < 12
    assert (error > 60).mean() < 0.03  # edges, a fraction of a pixel off
    turn = np.rad2deg(np.arctan2(found.motion[1, 0], found.motion[0, 0]))
    assert abs(abs(turn) - abs(degrees)) < 0.7


def test_a_mask_goes_with_its_photo(to_first):
    moved, bare = (part(1, 6, 5, -7, defect=defect) for defect in ((50, 60), None))
    drawn = (np.abs(moved.astype(int) - bare) > 40).any(axis=2)
    brought = to_first(read_photo(moved)).brought(drawn)
    y, x = np.mgrid[:SIDE, :SIDE]
    lies = np.hypot(y - 50, x - 60) < 5
    assert brought.dtype == bool
    assert (brought & lies).sum() > 0.7 * (brought | lies).sum()
    assert (drawn & lies).sum() < 0.5 * (drawn | lies).sum(), "it lay elsewhere"


def test_a_photo_that_lies_as_the_reference_is_left_alone(to_first):
    found = to_first(read_photo(part(0)))
    np.testing.assert_allclose(found.motion, np.eye(2, 3), atol=0.02)


def test_nothing_to_see_is_left_alone(to_first):
    found = to_first(read_photo(np.full((SIDE, SIDE), 80, np.uint8)))
    assert (found.pixels == 80).all()


def test_a_registered_photo_is_known_by_its_original_and_not_registered_twice(to_first):
    photo = read_photo(part(1, 5, 3, 3))
    found = to_first(photo)
    assert isinstance(found, RegisteredPhoto)
    assert found.sha256 == photo.sha256
    assert to_first(found) is found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_kind_of_photo_can_be_registered(to_first, dtype):
    grey = part(1, 0, 5, 5)[:, :, 0]
    scale = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    found = to_first(read_photo((grey.astype(np.float64) * scale).astype(dtype)))
    assert found.pixels.dtype == dtype
    assert found.pixels.shape == (SIDE, SIDE)
    np.testing.assert_allclose(found.motion[:, 2], [5, 5], atol=0.6)


def test_large_photos_are_found_on_small_pictures():
    large = np.kron(part(0)[:, :, 0], np.ones((5, 5), np.uint8))
    moved = np.roll(large, (30, -45), (0, 1))
    found = Registration.to(read_photo(large))(read_photo(moved))
    np.testing.assert_allclose(found.motion[:, 2], [-45, 30], atol=1.5)


def test_photos_have_the_size_of_the_reference(to_first):
    with pytest.raises(PhotoError, match="photos of 120 x 120"):
        to_first(read_photo(np.zeros((90, 120), np.uint8)))


def test_the_registration_lasts_as_json(to_first):
    preprocessing = Preprocessing(64, 64, registration=to_first)
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"reconpatch\[register\]"):
        Registration.to(Photo("a", part(0)))


LYING = [(0, 0, 0), (4, 5, -6), (-5, -7, 4), (8, 2, 9), (-3, -6, -8), (6, 8, 3)]


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved") / "good"
    for seed, lying in enumerate(LYING):
        save(part(seed, *lying), folder / f"{seed}.png")
    return reconpatch.fit(folder, register=True, **{**SMALL_FIT, "bank": 0.5})


def test_a_defect_is_found_where_it_lies_in_the_photo_itself(registered):
    degrees, dy, dx = 7.0, 6.0, -5.0
    bad = part(40, degrees, dy, dx, defect=(60, 84))
    assert not registered.inspect(part(41, degrees, dy, dx)).anomalous
    found = registered.inspect(bad)
    assert found.anomalous
    assert found.heatmap.shape == (SIDE, SIDE)
    brightest = np.argwhere(bad[:, :, 0] > 240).mean(axis=0)
    x, y = found.regions[0].peak
    place = SIDE / 8  # of the grid, in pixels of the photo
    assert np.hypot(y - brightest[0], x - brightest[1]) < place
    x0, y0, x1, y1 = found.closest.patch_box
    assert x0 - 8 <= brightest[1] <= x1 + 8
    assert y0 - 8 <= brightest[0] <= y1 + 8


def test_a_registered_model_lasts_in_its_file(registered, tmp_path):
    registered.save(tmp_path / "r.rcp")
    again = reconpatch.load(tmp_path / "r.rcp")
    bad = part(42, -6, 3, 3, defect=(50, 50))
    assert again.inspect(bad).score == registered.inspect(bad).score


def test_a_registered_model_is_not_exported_as_a_bare_graph(registered, tmp_path):
    from reconpatch.errors import SettingsError
    from reconpatch.export.export import export

    with pytest.raises(SettingsError, match="registers photos"):
        export(registered, tmp_path / "out")
