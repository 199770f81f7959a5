"""Folders of confirmed defects: kinds, masks wherever they may lie, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import save, scratch_mask, scratched, textured
from reconpatch.errors import PhotoError
from reconpatch.photos.defect_folder import DefectPhoto, list_defects, read_place

MASK = scratch_mask().astype(np.uint8) * np.uint8(255)


def photo(path: Path, seed: int = 0) -> Path:
    return save(scratched(textured(seed)), path)


def masks(found: list[DefectPhoto], folder: Path) -> dict[str, str | None]:
    return {
        f.path.relative_to(folder).as_posix(): f.mask and f.mask.relative_to(folder).as_posix()
        for f in found
    }


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("a.png", "masks/a.png"),
        ("a.png", "mask/a_mask.png"),
        ("a.png", "ground_truth/a.png"),
        ("a.png", "a_mask.png"),
        ("a.jpg", "a_GT.png"),
        ("scratch/a.png", "ground_truth/scratch/a_mask.png"),
        ("scratch/a.png", "scratch/masks/a.png"),
        ("scratch/a.png", "scratch/a_mask.png"),
        ("a_mask.png", "masks/a_mask_mask.png"),
    ],
)
def test_a_mask_is_found_wherever_it_may_lie(tmp_path: Path, name: str, mask: str) -> None:
    photo(tmp_path / name)
    photo(tmp_path / "z.png")
    save(MASK, tmp_path / mask)
    assert masks(list_defects(tmp_path), tmp_path) == {name: mask, "z.png": None}


@pytest.mark.parametrize("test", ["test/", ""])
def test_masks_of_a_data_set_are_found_for_one_of_its_kinds(tmp_path: Path, test: str) -> None:
    name, mask = f"{test}crack/1.png", "ground_truth/crack/1_mask.png"
    photo(tmp_path / name)
    save(MASK, tmp_path / mask)
    found = list_defects(tmp_path / test / "crack")
    assert masks(found, tmp_path) == {name: mask}
    assert [f.kind for f in found] == ["crack"]


def test_folders_name_the_kinds_and_a_photo_may_be_given_itself(tmp_path: Path) -> None:
    one, other = photo(tmp_path / "scratch" / "1.png"), photo(tmp_path / "dents" / "deep" / "2.png")
    found = list_defects([tmp_path / "scratch", str(other)])
    assert found == [DefectPhoto(one, "scratch"), DefectPhoto(other, "deep")]


def test_a_mask_is_read_where_its_photo_is_defective(tmp_path: Path) -> None:
    path, mask = photo(tmp_path / "a.png"), save(MASK, tmp_path / "masks" / "a.png")
    (listed,) = list_defects(tmp_path)
    place = read_place(listed, 96, 96)
    assert place is not None
    np.testing.assert_array_equal(place, scratch_mask())
    assert read_place(DefectPhoto(path, "a"), 96, 96) is None
    with pytest.raises(PhotoError, match=r"a\.png has 96 x 96 pixels and its photo .* has 90 x 96"):
        read_place(listed, 96, 90)
    save(np.zeros((96, 96), np.uint8), mask)
    with pytest.raises(PhotoError, match=r"is black, and .*paint the defect white"):
        read_place(listed, 96, 96)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no photo in this folder"),
        (["a.png", "masks/b.png"], r"1 mask, such as .*b\.png, would be of no photo"),
        (["k/a.png", "masks/a.png"], r"1 mask, such as .*a\.png, would be of no photo"),
        (["a.png", "masks/a.png", "a_mask.png"], "are masks of one photo, which has one"),
        (["Dry joint/a.png", "dry_joint/b.png"], "spell one kind of defect in two ways"),
        (["scratch/a.png", "good/b.png"], "named as a folder of good photos is"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    folder = tmp_path / "defects"
    folder.mkdir()
    for i, name in enumerate(files):
        photo(folder / name, i)
    with pytest.raises(PhotoError, match=message):
        list_defects(folder)


def test_kinds_are_spelled_one_way_over_several_folders(tmp_path: Path) -> None:
    for name in ("a/Scratch/1.png", "b/scratch/2.png"):
        photo(tmp_path / name)
    with pytest.raises(PhotoError, match="give both one name"):
        list_defects([tmp_path / "a", tmp_path / "b"])


def test_photos_that_are_known_already_bring_their_names_kinds_and_drawings(tmp_path: Path) -> None:
    known = [
        DefectPhoto(
            photo(tmp_path / f"{i}.png"), kind, lambda h, w: np.eye(h, w, dtype=np.bool_), name
        )
        for i, (kind, name) in enumerate([("dent", "part 1"), ("", "part 2")])
    ]
    assert list_defects(known) == known
    assert (known[0].called, known[0].mask_called) == ("part 1", "the drawing on part 1")
    np.testing.assert_array_equal(read_place(known[0], 3, 4), np.eye(3, 4))
    other = replace(known[1], kind="Dent")
    with pytest.raises(PhotoError, match="'dent' of part 1 and 'Dent' of part 2 spell one kind"):
        list_defects([known[0], other])


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(PhotoError, match="no confirmed defect is given"):
        list_defects([])
