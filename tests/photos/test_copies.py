"""Which photos are one picture, and which only look alike."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from conftest import RGB, textured
from reconpatch.photos.copies import KnownPhotos, alike, signature
from reconpatch.photos.images import Photo, read_photo

SIDE = 320


def part(seed: int) -> RGB:
    """A part of its own: soft blobs, with some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 215, (9, 9, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
    return np.clip(soft + rng.normal(0, 2, soft.shape), 0, 255).astype(np.uint8)


def saved(pixels: RGB, kind: str, **options: int) -> RGB:
    """The pixels after they were saved in a format that loses some."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return np.asarray(Image.open(file).convert("RGB"))


def pictures(photos: Sequence[RGB], names: Sequence[str] | None = None) -> list[int]:
    """The number of each one's picture."""
    read = [read_photo(pixels) for pixels in photos]
    names = names or [f"{i}.png" for i in range(len(read))]
    sides = [min(photo.height, photo.width) for photo in read]
    return alike([signature(p, 65535) for p in read], names, sides).picture.tolist()


@pytest.mark.parametrize("quality", [95, 75, 40])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_copies_saved_anew_are_one_picture(kind: str, quality: int) -> None:
    parts = [part(seed) for seed in range(6)]
    copies = [saved(pixels, kind, quality=quality) for pixels in parts]
    assert pictures([*parts, *copies]) == [*range(6), *range(6)]


def test_smaller_and_deeper_copies_are_one_picture() -> None:
    parts = [part(seed) for seed in range(4)]
    half = [
        np.asarray(Image.fromarray(p).resize((SIDE // 2,) * 2, Image.Resampling.BOX)) for p in parts
    ]
    deep = [p.astype(np.uint16) * np.uint16(257) for p in parts]
    assert pictures([*parts, *half, *deep]) == [0, 1, 2, 3] * 3


def test_many_qualities_of_few_pictures() -> None:
    parts = [part(seed) for seed in range(3)]
    copies = [saved(p, "JPEG", quality=q) for p in parts for q in range(40, 95, 5)]
    assert len(set(pictures(copies))) == 3


def test_a_touched_pixel_is_no_other_picture() -> None:
    photos = [part(1) for _ in range(5)]
    for i, pixels in enumerate(photos):
        pixels[100, 100] += np.uint8(i)
    assert set(pictures(photos)) == {0}


def test_frames_that_differ_in_brightness_alone_are_one_picture() -> None:
    dark = np.minimum(part(1), 250)
    assert set(pictures([dark, dark + np.uint8(1), dark + np.uint8(2)])) == {0}


def test_distinct_parts_are_distinct_pictures() -> None:
    assert pictures([part(seed) for seed in range(12)]) == [*range(12)]
    assert pictures([textured(seed) for seed in range(8)]) == [*range(8)]  # alike but for the grain


def test_still_parts_that_look_alike_are_not_taken_for_copies() -> None:
    """A fixture that moves nothing: only the noise of the shots tells them apart."""
    rng = np.random.default_rng(0)
    shots = [
        np.clip(part(0) + rng.normal(0, 6, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        for _ in range(12)
    ]
    assert pictures(shots) == [*range(12)]
    others = [part(seed) for seed in range(1, 14)]
    assert pictures([*shots, *others]) == [*range(25)]
    read = [read_photo(p) for p in (*shots, *others)]
    found = alike([signature(p, 255) for p in read], [f"{i}" for i in range(25)], [SIDE] * 25)
    assert set(found.near.tolist()) == set(range(12))  # worth a word all the same


def test_files_of_one_stem_are_one_picture_though_all_photos_are_near() -> None:
    rng = np.random.default_rng(0)
    shots = [
        np.clip(part(0) + rng.normal(0, 6, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        for _ in range(6)
    ]
    jpegs = [saved(p, "JPEG", quality=75) for p in shots]
    names = [f"x/{i}.bmp" for i in range(6)] + [f"x/{i}.jpg" for i in range(6)]
    assert pictures([*shots, *jpegs], names) == [*range(6), *range(6)]
    # The same name does not make one picture of two.
    assert pictures([part(1), part(2), part(3)], ["a.png", "a.jpg", "b.png"]) == [0, 1, 2]


def test_a_signature_of_a_small_photo() -> None:
    tiny = read_photo(textured(1, 16, 20))
    assert signature(tiny, 255).shape == (32, 32)
    assert alike([signature(tiny, 255)], ["a.png"], [16]).picture.tolist() == [0]


def test_a_copy_is_found_among_known_photos() -> None:
    read: list[Photo] = [read_photo(part(seed)) for seed in range(5)]
    known = KnownPhotos([signature(p, 255) for p in read] + [None], [*range(6)])
    copy = read_photo(saved(part(3), "JPEG", quality=60))
    assert known.find(signature(copy, 255), SIDE) == 3
    assert known.find(signature(read_photo(part(9)), 255), SIDE) is None
    assert KnownPhotos([None], [0]).find(signature(copy, 255), SIDE) is None
