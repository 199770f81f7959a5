"""Disturbed photos by hand: what moves where, and masks with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conftest import scratch_mask, textured
from reconpatch.errors import PhotoError
from reconpatch.evaluation.disturbance import Disturbance, Robustness
from reconpatch.photos.images import Photo


def disturbance(**given: Any) -> Disturbance:
    still: dict[str, Any] = {
        "angle": 0.0, "shift": (0.0, 0.0), "brightness": 1.0, "contrast": 1.0, "blur": 0.0
    }  # fmt: skip
    return Disturbance(**{**still, **given})


def mono(pixels: Sequence[Sequence[int]]) -> Photo:
    return Photo("p", np.array(pixels, np.uint8))


def test_nothing_drawn_changes_nothing() -> None:
    photo = Photo("p", textured(0))
    still = Disturbance.draw(Robustness(), "p")
    np.testing.assert_array_equal(still.photo(photo).pixels, photo.pixels)
    np.testing.assert_array_equal(still.mask(scratch_mask()), scratch_mask())


def test_a_shift_moves_right_and_down_and_mirrors_the_edge() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    moved = disturbance(shift=(2 / 8, 1 / 8)).photo(Photo("p", pixels)).pixels
    np.testing.assert_array_equal(moved[1:, 2:], pixels[:-1, :-2])
    np.testing.assert_array_equal(moved[1:, :2], pixels[:-1, [1, 0]])
    np.testing.assert_array_equal(moved[0, 2:], pixels[0, :-2])


def test_a_quarter_turn_is_clockwise() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    moved = disturbance(angle=90.0).photo(Photo("p", pixels)).pixels
    np.testing.assert_array_equal(moved, np.rot90(pixels, -1))
    mask = pixels[:, :, 0] < 10
    np.testing.assert_array_equal(disturbance(angle=90.0).mask(mask), np.rot90(mask, -1))


def test_a_mask_moves_with_its_photo() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 12:30] = True
    for angle, shift in ((7.0, (0.1, -0.05)), (-12.0, (0.0, 0.08))):
        both = disturbance(angle=angle, shift=shift)
        photo = both.photo(Photo("p", mask.astype(np.uint8) * 255)).pixels > 127
        assert np.mean(photo != both.mask(mask)) < 0.01
        assert both.mask(mask).sum() == pytest.approx(mask.sum(), rel=0.1)


def test_brightness_and_contrast_by_hand() -> None:
    photo = mono([[100, 140], [100, 140]])  # mean 120
    assert disturbance(contrast=0.5).photo(photo).pixels.tolist() == [[110, 130], [110, 130]]
    assert disturbance(brightness=1.5).photo(photo).pixels.tolist() == [[150, 210], [150, 210]]
    assert disturbance(brightness=2.0).photo(photo).pixels.tolist() == [[200, 255], [200, 255]]


def test_blur_smooths() -> None:
    photo = Photo("p", textured(0))
    blurred = disturbance(blur=2.0).photo(photo).pixels.astype(float)
    assert (
        np.abs(np.diff(blurred, axis=0)).mean()
        < np.abs(np.diff(textured(0).astype(float), axis=0)).mean() / 2
    )


def test_a_disturbance_goes_by_the_photos_name_and_stays_in_range() -> None:
    amounts = Robustness(rotation=10, shift=0.05, brightness=0.2, contrast=0.1, blur=2)
    drawn = [Disturbance.draw(amounts, f"photo{i}") for i in range(200)]
    assert drawn[7] == Disturbance.draw(amounts, "photo7")
    angles = np.array([d.angle for d in drawn])
    assert len(set(angles.tolist())) == 200
    assert -10 <= angles.min() < -8
    assert 8 < angles.max() <= 10
    assert all(abs(d.shift[0]) <= 0.05 and abs(d.shift[1]) <= 0.05 for d in drawn)
    assert all(0.8 <= d.brightness <= 1.2 and 0.9 <= d.contrast <= 1.1 for d in drawn)
    assert all(0 <= d.blur <= 2 for d in drawn)


def test_photos_of_16_bits_are_not_disturbed() -> None:
    with pytest.raises(PhotoError, match="only photos of 8 bits"):
        disturbance().photo(Photo("p", np.zeros((20, 20), np.uint16)))
