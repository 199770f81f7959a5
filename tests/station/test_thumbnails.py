"""Small pictures of photos: made once, kept, and gone with their photo."""

from __future__ import annotations

import io
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import textured
from reconpatch.photos.images import Photo
from reconpatch.station.thumbnails import SIDE, Thumbnails, small

A, B = "a" * 64, "b" * 64


@pytest.fixture
def thumbnails(tmp_path: Path):
    made = Thumbnails(tmp_path / "thumbnails")
    yield made
    made.close()


@cache
def large(dtype: type = np.uint8) -> Photo:
    pixels = textured(1, 900, 1200)
    return Photo("large", pixels.astype(dtype) * (257 if dtype == np.uint16 else 1))


def test_a_large_photo_has_a_small_picture(thumbnails) -> None:
    photo = large()
    assert thumbnails.find(A) is None
    thumbnails.make(photo, A, 255)
    found = thumbnails.find(A)
    image = Image.open(io.BytesIO(found))
    assert image.size == (SIDE, SIDE * 3 // 4)
    plain = Image.fromarray(photo.pixels).resize(image.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(image, float) - np.asarray(plain, float)).mean()
    assert difference < 5  # of 255: JPEG, and rows left out


def test_it_is_made_once(thumbnails, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(
        "reconpatch.station.thumbnails.small", lambda *given: made.append(given) or small(*given)
    )
    for _ in range(3):
        thumbnails.make(large(), A, 255)
    assert len(made) == 1


def test_more_bits_have_a_picture_for_each_white_level(thumbnails, tmp_path) -> None:
    photo = large(np.uint16)
    for white in (65535, 4095):
        thumbnails.make(photo, A, white)
    assert thumbnails.find(A) is None
    assert thumbnails.find(A, 65535) != thumbnails.find(A, 4095)
    thumbnails.make(large(), B, 255)
    thumbnails.remove([A])
    left = [path.name for path in (tmp_path / "thumbnails").rglob("*.jpg")]
    assert left == [f"{B}.jpg"]
    thumbnails.remove([B])
    assert thumbnails.find(B) is None


def test_a_small_photo_and_a_narrow_one(thumbnails) -> None:
    thumbnails.make(Photo("small", textured(1)), A, 255)
    assert thumbnails.find(A) is None
    narrow = Photo("narrow", np.zeros((20, 5_000), np.uint8))
    assert Image.open(io.BytesIO(small(narrow, 255))).size == (SIDE, 1)


def test_in_the_background_no_more_wait_than_a_few(thumbnails) -> None:
    open_ = threading.Event()
    thumbnails._pool.submit(open_.wait, 60)
    photo = large()
    thumbnails.make_later([(photo, f"{i:064x}") for i in range(20)], 255)
    open_.set()
    thumbnails._pool.shutdown()
    made = [thumbnails.find(f"{i:064x}") is not None for i in range(20)]
    assert made == [True] * 4 + [False] * 16
