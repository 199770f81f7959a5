"""The closest good photo on the page is the one that the verdict was compared with."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reconpatch
from conftest import SMALL_FIT, WAIT, save, scratched, textured
from reconpatch.errors import NotFoundError
from reconpatch.fitting.update import update
from reconpatch.model.model import Inspector
from reconpatch.photos.images import read_photo
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.pictures import Pictures
from reconpatch.station.records import Record
from reconpatch.station.station import Station
from test_station import png


def dark(seed: int) -> np.ndarray:
    """A good part that looks unlike the others, so that a photo like it is closest to it."""
    return (textured(seed) // 3).astype(np.uint8)


@pytest.fixture(scope="module")
def by_day(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    """A model of files of one name in two folders of each other's depth, light and dark."""
    good = tmp_path_factory.mktemp("good")
    for i in range(3):
        save(textured(i), good / "day1" / f"part{i}.png")
        save(dark(10 + i), good / "day2" / f"part{i}.png")
    model = reconpatch.fit(good, **SMALL_FIT)
    # As after an update, which keeps no folders in names.
    (member,) = model.members
    photos = [replace(photo, name=Path(photo.name).name) for photo in member.photos]
    return replace(member, photos=photos)


def shown(model: Inspector, pixels: np.ndarray, folder: Path, **changes: object) -> Image.Image:
    """The picture of the good photo that a station shows beside a verdict on a photo."""
    path = folder / "disc.rcp"
    model.save(path, overwrite=True)
    with Station(DataFolder(folder / "data"), [path], threads=1) as station:
        record: Record = station.submit(png(pixels), name="part.png").result(WAIT)
        assert record.closest.sha256
        stored = station.records.get(record.id)
        assert stored.closest == record.closest
        stored = replace(stored, closest=replace(stored.closest, **changes))  # type: ignore[arg-type]
        picture = Pictures(station).closest(stored)
    return Image.open(io.BytesIO(picture.content))


@pytest.mark.parametrize("is_dark", [False, True])
def test_of_photos_of_one_name_it_is_the_one_that_was_compared(
    is_dark: bool, by_day: Inspector, tmp_path: Path
) -> None:
    photo = dark(50) if is_dark else textured(50)
    assert len({p.name for p in by_day.photos}) == 3 < len(by_day.photos)
    assert (np.asarray(shown(by_day, photo, tmp_path)).mean() < 70) == is_dark


def test_after_an_update_with_a_photo_of_the_same_name(
    small_model: Inspector, tmp_path: Path
) -> None:
    """Another folder's part000.png, learned as good: it is not the part000.png of the fit."""
    first = small_model.photos[0].name
    new = [read_photo(dark(20 + i)) for i in range(2)]
    named = [replace(photo, name=f"monday/{first}") for photo in new]
    updated = update(small_model, named)
    assert [photo.name for photo in updated.photos].count(first) == 3
    picture = shown(updated, dark(60), tmp_path)
    assert np.asarray(picture).mean() < 70


def test_a_record_of_before_tells_only_where_its_name_does(
    by_day: Inspector, small_model: Inspector, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="or several of its name"):
        shown(by_day, textured(50), tmp_path / "a", sha256="")
    picture = shown(small_model, scratched(textured(50)), tmp_path / "b", sha256="")
    assert picture.size == (96, 96)
    with pytest.raises(NotFoundError, match="holds no picture"):
        shown(small_model, textured(50), tmp_path / "c", sha256="0" * 64)
