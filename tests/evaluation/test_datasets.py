"""Every data set on a miniature tree in its published layout, and what is refused of each."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from reconpatch.errors import PhotoError
from reconpatch.evaluation.datasets import (
    DATASETS,
    PRIVATE_SPLITS,
    Category,
    LabelledPhoto,
    Saturation,
    duplicates,
    load_dataset,
    read_defects,
    read_mask,
)

SIDE = 32
Mask = npt.NDArray[np.uint8]


def draw(path: Path, seed: int | None = None) -> Path:
    """A photo of 32 x 32, grey noise that differs by its path, or by a seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(map(ord, path.as_posix())) if seed is None else seed)
    Image.fromarray(rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8)).save(path)
    return path


def draw_mask(path: Path, value: int = 255, rows: slice = slice(4, 8), side: int = SIDE) -> Path:
    """A mask of side x side that holds the value in the given rows and 0 elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stripe(rows, side).astype(np.uint8) * np.uint8(value)).save(path)
    return path


def stripe(rows: slice = slice(4, 8), side: int = SIDE) -> npt.NDArray[np.bool_]:
    mask = np.zeros((side, side), dtype=bool)
    mask[rows] = True
    return mask


def draw_all(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        draw(folder / name)


def one(root: Path, kind: str) -> Category:
    (category,) = load_dataset(root, kind)
    return category


def counted(category: Category) -> dict[str, int]:
    """The number of photos by split, of those to test on by label, and of those with masks."""
    return {
        "train": len(category.train),
        "validation": len(category.validation),
        **Counter(photo.label for photo in category.test),
        "masked": sum(bool(photo.masks) for photo in category.test),
        **{split: len(photos) for split, photos in category.unlabelled.items()},
    }


def names(paths: Iterable[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def rows_of(category: Category, root: Path) -> list[tuple[str, str, list[str]]]:
    return [(p.label, names([p.path], root)[0], names(p.masks, root)) for p in category.test]


# --- The trees ------------------------------------------------------------------------------------


def mvtec(root: Path, name: str = "bottle") -> Path:
    folder = root / name
    draw_all(folder / "train" / "good", ["000.png", "001.png", "002.png"])
    draw_all(folder / "test" / "good", ["000.png", "001.png"])
    draw_all(folder / "test" / "crack", ["000.png", "001.png"])
    draw_all(folder / "test" / "stain", ["000.png"])
    for mask in ("crack/000_mask.png", "crack/001_mask.png", "stain/000_mask.png"):
        draw_mask(folder / "ground_truth" / mask)
    return folder


def mvtec2(root: Path) -> Path:
    folder = root / "can"
    draw_all(folder / "train" / "good", ["000_regular.png", "001_regular.png"])
    draw_all(folder / "validation" / "good", ["000_regular.png"])
    draw_all(folder / "test_public" / "good", ["000_regular.png"])
    draw_all(folder / "test_public" / "bad", ["000_regular.png", "000_overexposed.png"])
    for light in ("regular", "overexposed"):
        draw_mask(folder / "test_public" / "ground_truth" / "bad" / f"000_{light}_mask.png")
    draw_all(folder / "test_private", ["000_regular.png", "001_regular.png"])
    draw_all(folder / "test_private_mixed", ["000_mixed.png"])
    return folder


LOCO_DEFECTS = [
    {
        "defect_name": "2_bolts",
        "pixel_value": 255,
        "saturation_threshold": 40,
        "relative_saturation": False,
    },
    {
        "defect_name": "scratch",
        "pixel_value": 1,
        "saturation_threshold": 0.5,
        "relative_saturation": True,
    },
]


def loco(root: Path) -> Path:
    folder = root / "screw_bag"
    for split in ("train/good", "validation/good", "test/good"):
        draw_all(folder / split, ["000.png", "001.png"])
    draw_all(folder / "test" / "logical_anomalies", ["000.png"])
    draw_all(folder / "test" / "structural_anomalies", ["000.png"])
    truth = folder / "ground_truth"
    draw_mask(truth / "logical_anomalies" / "000" / "000.png", 255, slice(0, 8))
    draw_mask(truth / "logical_anomalies" / "000" / "001.png", 1, slice(6, 10))
    draw_mask(truth / "structural_anomalies" / "000" / "000.png", 1, slice(20, 22))
    (folder / "defects_config.json").write_text(json.dumps(LOCO_DEFECTS), encoding="utf-8")
    return folder


def btad(root: Path) -> Path:
    # 01: bmp photos with png masks; 02: all png; 03: all bmp, as published.
    for name, photo, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        draw_all(root / name / "train" / "ok", [f"0000.{photo}", f"0001.{photo}"])
        draw_all(root / name / "test" / "ok", [f"0000.{photo}"])
        draw_all(root / name / "test" / "ko", [f"0000.{photo}", f"0001.{photo}"])
        for stem in ("0000", "0001"):
            draw_mask(root / name / "ground_truth" / "ko" / f"{stem}.{mask}")
    return root


VISA_ROWS = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,train,normal,candle/Data/Images/Normal/0001.JPG,
pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0002.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/Data/Masks/Anomaly/000.png
"""


def visa(root: Path, table: str = VISA_ROWS) -> Path:
    draw_all(root / "candle/Data/Images/Normal", ["0000.JPG", "0001.JPG", "0002.JPG"])
    draw_all(root / "pcb1/Data/Images/Normal", ["0000.JPG"])
    for name, value in (("candle", 2), ("pcb1", 1)):
        draw(root / name / "Data/Images/Anomaly/000.JPG")
        draw_mask(root / name / "Data/Masks/Anomaly/000.png", value)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text(table, encoding="utf-8", newline="\r\n")
    return root


def visa_converted(root: Path) -> Path:
    folder = root / "candle"
    draw_all(folder / "train" / "good", ["0000.JPG"])
    draw_all(folder / "test" / "good", ["0002.JPG"])
    draw_all(folder / "test" / "bad", ["000.JPG"])
    draw_mask(folder / "ground_truth" / "bad" / "000.png", 3)
    return folder


def kolektor(root: Path, defects: Mapping[int, int], items: Iterable[int]) -> Path:
    """Items of two shots; `defects` tells which shot of an item is defective."""
    folder = root / "KolektorSDD"
    for item in items:
        for part in range(2):
            stem = folder / f"kos{item:02}" / f"Part{part}"
            draw(stem.with_suffix(".jpg"), seed=10 * item + part)
            value = 255 if defects.get(item) == part else 0
            draw_mask(stem.with_name(f"{stem.name}_label.bmp"), value)
    return folder


def kolektor2(root: Path) -> Path:
    folder = root / "KolektorSDD2"
    for split, defective in (("train", {10001}), ("test", {20002})):
        first = 10000 if split == "train" else 20000
        for number in range(first, first + 3):
            draw(folder / split / f"{number}.png")
            draw_mask(folder / split / f"{number}_GT.png", 255 if number in defective else 0)
    # The two stray files of the published archive.
    draw(folder / "train" / "10002 (copy).png")
    draw_mask(folder / "train" / "10002_GT (copy).png", 255)
    return folder


def plain_folder(root: Path) -> Path:
    folder = root / "cookies"
    draw_all(folder / "good", [f"{i}.png" for i in range(10)])
    draw_all(folder / "crack", ["a.png", "b.png"])
    draw_all(folder / "crumb", ["a.jpg"])
    return folder


TREES: Mapping[str, Callable[[Path], Path]] = {
    "mvtec": mvtec,
    "mvtec2": mvtec2,
    "loco": loco,
    "btad": btad,
    "visa": visa,
    "kolektor": lambda root: kolektor(root, {1: 0, 2: 1}, [1, 2]),
    "kolektor2": kolektor2,
    "folder": plain_folder,
}


# --- All data sets --------------------------------------------------------------------------------


def test_there_is_a_tree_for_every_data_set() -> None:
    assert TREES.keys() == DATASETS.keys()


@pytest.mark.parametrize("kind", TREES)
def test_no_test_photo_is_fitted_on_and_every_photo_is_there(kind: str, tmp_path: Path) -> None:
    TREES[kind](tmp_path)
    for category in load_dataset(tmp_path, kind):
        tested = [photo.path for photo in category.test]
        everything = [*category.train, *category.validation, *tested]
        everything += [path for paths in category.unlabelled.values() for path in paths]
        assert len(set(everything)) == len(everything)
        masks = [mask for photo in category.test for mask in photo.masks]
        assert all(path.is_file() for path in [*everything, *masks])
        assert category.train
        assert any(photo.defective for photo in category.test)


@pytest.mark.parametrize("kind", TREES)
def test_a_category_given_directly_is_the_same(kind: str, tmp_path: Path) -> None:
    TREES[kind](tmp_path)
    for category in load_dataset(tmp_path, kind):
        assert load_dataset(tmp_path / category.name, kind) == [category]


@pytest.mark.parametrize("kind", TREES)
def test_the_working_directory_can_be_the_category(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TREES[kind](tmp_path)
    category = load_dataset(tmp_path, kind)[0]
    monkeypatch.chdir(tmp_path / category.name)
    here = one(Path(), kind)
    assert here.name == category.name
    assert [path.resolve() for path in here.train] == [path.resolve() for path in category.train]


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"'mvtec3' is no data set .* btad, folder, kolektor"):
        load_dataset(tmp_path, "mvtec3")


def test_an_unknown_category_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    mvtec(tmp_path, "bottle")
    mvtec(tmp_path, "screw")
    with pytest.raises(PhotoError, match=r"no category 'nut' .*: it has bottle, screw"):
        load_dataset(tmp_path, "mvtec", ["screw", "nut"])


def test_only_the_categories_asked_for_are_read_in_that_order(tmp_path: Path) -> None:
    for name in ("bottle", "cable", "screw"):
        mvtec(tmp_path, name)
    (tmp_path / "cable" / "ground_truth" / "stain" / "000_mask.png").unlink()  # cable is unfit
    found = load_dataset(tmp_path, "mvtec", ["screw", "bottle"])
    assert [category.name for category in found] == ["screw", "bottle"]
    with pytest.raises(PhotoError, match="cable"):
        load_dataset(tmp_path, "mvtec")


@pytest.mark.parametrize("kind", TREES)
def test_a_folder_of_something_else_is_refused_with_the_layout(kind: str, tmp_path: Path) -> None:
    draw(tmp_path / "holiday" / "beach.png")
    with pytest.raises(PhotoError, match="is a category of " + kind) as refusal:
        load_dataset(tmp_path, kind)
    assert DATASETS[kind].layout in str(refusal.value)


def test_a_missing_root_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="nowhere: does not exist"):
        load_dataset(tmp_path / "nowhere", "mvtec")
    with pytest.raises(PhotoError, match="cannot be read as a folder"):
        load_dataset(draw(tmp_path / "photo.png"), "mvtec")


@pytest.mark.parametrize(
    ("kind", "split"),
    [
        ("mvtec", "bottle/train/good"),
        ("mvtec", "bottle/test"),
        ("mvtec2", "can/train/good"),
        ("mvtec2", "can/validation/good"),
        ("mvtec2", "can/test_public"),
        ("loco", "screw_bag/validation/good"),
        ("btad", "01/train/ok"),
        ("btad", "03/test"),
        ("kolektor2", "KolektorSDD2/train"),
        ("kolektor2", "KolektorSDD2/test"),
    ],
)
def test_missing_and_empty_splits_are_refused(kind: str, split: str, tmp_path: Path) -> None:
    TREES[kind](tmp_path)
    load_dataset(tmp_path, kind)
    elsewhere = tmp_path.with_name(tmp_path.name + "-elsewhere")
    (tmp_path / split).rename(elsewhere)
    where = re.escape(str(tmp_path / split))
    with pytest.raises(PhotoError, match=f"{where}: this split is missing"):
        load_dataset(tmp_path, kind)
    (tmp_path / split).mkdir()
    with pytest.raises(PhotoError, match=f"{where}: (no photo in this folder|this split is empty)"):
        load_dataset(tmp_path, kind)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("mvtec", lambda f: (f / "ground_truth/crack/001_mask.png").unlink(),
         r"2 of 3 defective photos .* and .*bottle/test/crack/001\.png has none"),
        ("mvtec", lambda f: draw_mask(f / "ground_truth/crack/000.png"),
         r"000\.png and .*000_mask\.png are masks of one photo"),
        ("mvtec", lambda f: draw(f / "test/crack/000.jpg"),
         r"would be the mask of both .*000\.jpg and .*000\.png"),
        ("mvtec", lambda f: draw(f / "test/stray.png"), r"stray\.png lies beside the folders of"),
        ("mvtec2", lambda f: (f / "test_private_mixed/000_mixed.png").unlink(),
         "test_private_mixed: no photo"),
        ("visa", lambda f: (f / "split_csv/1cls.csv").unlink(),
         r"1cls\.csv: does not exist, and it says how VisA is spli"),
        ("visa", lambda f: (f / "split_csv/1cls.csv").write_bytes(b"\xff\xfe\x00"),
         r"1cls\.csv: cannot be read"),
        ("kolektor", lambda f: (f / "kos02/Part1_label.bmp").unlink(),
         r"Part1\.jpg has no mask Part1_label beside it"),
        ("kolektor2", lambda f: [draw_mask(f / f"train/{n}_GT.png") for n in range(10000, 10003)],
         "train: no good photo to fit on"),
        ("folder", lambda f: [draw_mask(f / t / "crack/a.png") for t in ("ground_truth", "masks")],
         r"ground_truth and .*masks may both hold the masks"),
    ],
)  # fmt: skip
def test_what_does_not_fit_its_layout_is_refused(
    kind: str, change: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    folder = TREES[kind](tmp_path)
    load_dataset(tmp_path, kind)
    change(folder)
    with pytest.raises(PhotoError, match=said):
        load_dataset(tmp_path, kind)


# --- MVTec AD -------------------------------------------------------------------------------------


def test_mvtec_in_its_published_layout(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    category = one(tmp_path, "mvtec")
    assert names(category.train, folder / "train/good") == ["000.png", "001.png", "002.png"]
    assert rows_of(category, folder) == [
        ("crack", "test/crack/000.png", ["ground_truth/crack/000_mask.png"]),
        ("crack", "test/crack/001.png", ["ground_truth/crack/001_mask.png"]),
        ("good", "test/good/000.png", []),
        ("good", "test/good/001.png", []),
        ("stain", "test/stain/000.png", ["ground_truth/stain/000_mask.png"]),
    ]
    assert [photo.defective for photo in category.test] == [True, True, False, False, True]
    assert (category.validation, category.unlabelled, category.saturation) == ((), {}, None)
    assert category.notes == ()


def test_each_photo_is_in_its_split(tmp_path: Path) -> None:
    mvtec(tmp_path)
    assert counted(one(tmp_path, "mvtec")) == {
        "train": 3, "validation": 0, "good": 2, "crack": 2, "stain": 1, "masked": 3,
    }  # fmt: skip
    mvtec2(tmp_path / "ad2")
    assert counted(one(tmp_path / "ad2", "mvtec2")) == {
        "train": 2, "validation": 1, "good": 1, "bad": 2, "masked": 2,
        "test_private": 2, "test_private_mixed": 1,
    }  # fmt: skip


def test_no_masks_at_all_are_fine(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    (folder / "ground_truth").rename(tmp_path / "elsewhere")
    category = one(folder, "mvtec")
    assert [photo.masks for photo in category.test] == [()] * 5


def test_masks_that_fit_no_photo_are_told(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    stray = draw_mask(folder / "ground_truth/crack/007_mask.png")
    draw_mask(folder / "ground_truth/good/000_mask.png")  # of a good photo: nobody asks for it
    category = one(tmp_path, "mvtec")
    assert category.notes == (f"masks that fit no photo: 1, such as {stray}",)
    assert [photo.masks for photo in category.test if not photo.defective] == [(), ()]


def test_masks_none_of_which_fits_are_refused(tmp_path: Path) -> None:
    loco(tmp_path)  # read with the wrong layout
    with pytest.raises(
        PhotoError, match=r"ground_truth: none of its 3 masks, such as 000\.png, fits"
    ):
        one(tmp_path, "mvtec")


def test_photos_in_subfolders_find_their_masks(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    photo = draw(folder / "test/crack/shift1/000.png")
    mask = draw_mask(folder / "ground_truth/crack/shift1/000_mask.png")
    assert LabelledPhoto(photo, "crack", (mask,)) in one(tmp_path, "mvtec").test


def test_defective_photos_among_the_training_photos_are_told(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    draw(folder / "train" / "crack" / "000.png")
    (note,) = one(tmp_path, "mvtec").notes
    assert note.startswith(f"{folder / 'train' / 'crack'} is not used")


@pytest.mark.parametrize(("kept", "missing"), [("good", "defective"), ("crack", "good")])
def test_a_one_sided_test_split_is_told(kept: str, missing: str, tmp_path: Path) -> None:
    draw(tmp_path / "train/good/0.png")
    draw(tmp_path / "test" / kept / "0.png")
    (note,) = one(tmp_path, "mvtec").notes
    assert note.startswith(f"there are no {missing} photos to test on")


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    before = one(tmp_path, "mvtec")
    draw(folder / "test/.cache/000.png")
    draw(folder / "test/crack/.000.png")
    draw(tmp_path / ".trash/train/good/000.png")
    assert load_dataset(tmp_path, "mvtec") == [before]


# --- MVTec AD 2 -----------------------------------------------------------------------------------


def test_mvtec2_in_its_published_layout(tmp_path: Path) -> None:
    folder = mvtec2(tmp_path)
    category = one(tmp_path, "mvtec2")
    assert names(category.train, folder) == [
        "train/good/000_regular.png",
        "train/good/001_regular.png",
    ]
    assert names(category.validation, folder) == ["validation/good/000_regular.png"]
    truth = "test_public/ground_truth/bad"
    assert rows_of(category, folder) == [
        ("bad", "test_public/bad/000_overexposed.png", [f"{truth}/000_overexposed_mask.png"]),
        ("bad", "test_public/bad/000_regular.png", [f"{truth}/000_regular_mask.png"]),
        ("good", "test_public/good/000_regular.png", []),
    ]
    assert {k: names(v, folder / k) for k, v in category.unlabelled.items()} == {
        "test_private": ["000_regular.png", "001_regular.png"],
        "test_private_mixed": ["000_mixed.png"],
    }
    assert category.notes == ()


def test_mvtec2_without_its_private_splits_says_so(tmp_path: Path) -> None:
    folder = mvtec2(tmp_path)
    for split in PRIVATE_SPLITS:
        (folder / split).rename(tmp_path / f".{split}")
    category = one(tmp_path, "mvtec2")
    assert category.unlabelled == {}
    assert [note.split(" is not there")[0] for note in category.notes] == [
        str(folder / split) for split in PRIVATE_SPLITS
    ]


# --- MVTec LOCO -----------------------------------------------------------------------------------


def test_loco_in_its_published_layout(tmp_path: Path) -> None:
    folder = loco(tmp_path)
    category = one(tmp_path, "loco")
    assert names(category.validation, folder) == [
        "validation/good/000.png",
        "validation/good/001.png",
    ]
    assert rows_of(category, folder) == [
        ("good", "test/good/000.png", []),
        ("good", "test/good/001.png", []),
        (
            "logical_anomalies",
            "test/logical_anomalies/000.png",
            [f"ground_truth/logical_anomalies/000/{i:03}.png" for i in range(2)],
        ),
        (
            "structural_anomalies",
            "test/structural_anomalies/000.png",
            ["ground_truth/structural_anomalies/000/000.png"],
        ),
    ]
    assert category.saturation == {255: Saturation(40, False), 1: Saturation(0.5, True)}
    assert category.saturation[255] == (40.0, False)


def test_each_defect_of_loco_keeps_its_value(tmp_path: Path) -> None:
    loco(tmp_path)
    logical = one(tmp_path, "loco").test[2]
    (first, first_value), (second, second_value) = read_defects(logical, SIDE, SIDE)
    assert (first_value, second_value) == (255, 1)
    np.testing.assert_array_equal(first, stripe(slice(0, 8)))
    np.testing.assert_array_equal(second, stripe(slice(6, 10)))
    # The union: rows 0 to 9, of which 6 and 7 are in both; a value of 1 counts.
    assert read_mask(logical, SIDE, SIDE).sum() == 10 * SIDE


@pytest.mark.parametrize(("values", "count"), [((0, 0), 0), ((1, 255), 2)])
def test_a_loco_mask_of_no_or_two_values_is_refused(
    values: tuple[int, int], count: int, tmp_path: Path
) -> None:
    folder = loco(tmp_path)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:2], mask[2:4] = values
    Image.fromarray(mask).save(folder / "ground_truth/structural_anomalies/000/000.png")
    with pytest.raises(PhotoError, match=f"000.png holds {count} values beside 0"):
        read_defects(one(tmp_path, "loco").test[3], SIDE, SIDE)


def test_loco_without_its_saturation_says_so(tmp_path: Path) -> None:
    (loco(tmp_path) / "defects_config.json").unlink()
    category = one(tmp_path, "loco")
    assert category.saturation is None
    assert "defects_config.json is not there: sPRO" in category.notes[-1]


@pytest.mark.parametrize(
    ("saturation", "area", "pixels"),
    [
        (Saturation(0.5, True), 100, 50),
        (Saturation(0.5, True), 5, 2),
        (Saturation(1.0, True), 5, 5),
        (Saturation(0.1, True), 3, 1),
        (Saturation(30, False), 100, 30),
        (Saturation(30, False), 20, 20),
    ],
)
def test_saturation_in_pixels(saturation: Saturation, area: int, pixels: int) -> None:
    assert saturation.pixels(area) == pixels


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}x",
        '[{"pixel_value": 1}]',
        "[1]",
        '[{"pixel_value": 0, "saturation_threshold": 1, "relative_saturation": true}]',
        '[{"pixel_value": 1, "saturation_threshold": 1.5, "relative_saturation": true}]',
        '[{"pixel_value": 1, "saturation_threshold": 0, "relative_saturation": true}]',
        '[{"pixel_value": 1, "saturation_threshold": 0.5, "relative_saturation": false}]',
        '[{"pixel_value": 1, "saturation_threshold": NaN, "relative_saturation": false}]',
        '[{"pixel_value": 1, "saturation_threshold": Infinity, "relative_saturation": false}]',
    ],
)
def test_a_damaged_saturation_file_is_refused(text: str, tmp_path: Path) -> None:
    (loco(tmp_path) / "defects_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(PhotoError, match=r"defects_config\.json is not MVTec LOCO's list"):
        one(tmp_path, "loco")


# --- BTAD -----------------------------------------------------------------------------------------


def test_btad_matches_masks_by_stem(tmp_path: Path) -> None:
    btad(tmp_path)
    first, second, third = load_dataset(tmp_path, "btad")
    assert [category.name for category in (first, second, third)] == ["01", "02", "03"]
    assert rows_of(first, tmp_path / "01") == [
        ("ko", "test/ko/0000.bmp", ["ground_truth/ko/0000.png"]),
        ("ko", "test/ko/0001.bmp", ["ground_truth/ko/0001.png"]),
        ("good", "test/ok/0000.bmp", []),
    ]
    assert second.test[0].masks == (tmp_path / "02/ground_truth/ko/0000.png",)
    assert third.test[0].masks == (tmp_path / "03/ground_truth/ko/0000.bmp",)
    assert names(third.train, tmp_path / "03/train/ok") == ["0000.bmp", "0001.bmp"]
    assert not third.test[2].defective


# --- VisA -----------------------------------------------------------------------------------------


def test_visa_is_split_by_its_table(tmp_path: Path) -> None:
    visa(tmp_path)
    candle, pcb1 = load_dataset(tmp_path, "visa")
    normal = "candle/Data/Images/Normal"
    assert names(candle.train, tmp_path) == [f"{normal}/0000.JPG", f"{normal}/0001.JPG"]
    assert rows_of(candle, tmp_path) == [
        ("good", f"{normal}/0002.JPG", []),
        ("anomaly", "candle/Data/Images/Anomaly/000.JPG", ["candle/Data/Masks/Anomaly/000.png"]),
    ]
    assert candle.notes == (f"split by {tmp_path / 'split_csv' / '1cls.csv'}",)
    assert pcb1.name == "pcb1"
    assert "no good photos" in pcb1.notes[1]
    np.testing.assert_array_equal(read_mask(candle.test[1], SIDE, SIDE), stripe())


def test_visa_converted_reads_masks_by_stem_and_any_value(tmp_path: Path) -> None:
    folder = visa_converted(tmp_path)
    category = one(tmp_path, "visa")
    assert rows_of(category, folder) == [
        ("bad", "test/bad/000.JPG", ["ground_truth/bad/000.png"]),
        ("good", "test/good/0002.JPG", []),
    ]
    np.testing.assert_array_equal(read_mask(category.test[0], SIDE, SIDE), stripe())


ROW = "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "Normal/0002.JPG",
            "Normal/0009.JPG",
            r"line 5: names '.*Normal/0009\.JPG', which is no f",
        ),
        ("Masks/Anomaly/000", "Masks/Anomaly/1", r"line 6: names '.*Masks/Anomaly/1\.png', which"),
        ("candle/Data/Images/Normal/0002.JPG", "", "line 5: names '', which is no file"),
        ("candle,test,", "candle,val,", "line 5: 'normal' in split 'val' does not fit"),
        ("candle,test,anomaly", "candle,train,anomaly", "line 6: 'anomaly' in split 'train'"),
        ("candle,train", "cookie,train", "names no photo of candle in split train"),
        ("candle,test", "cookie,test", "names no photo of candle in split test"),
        ("label,", "", "the column label is missing"),
        (
            ROW,
            ROW + "candle,test,anomaly,candle/Data/Images/Normal/0001.JPG,\n",
            r"1 of 2 defective photos have a mask in .*1cls\.csv and .*0001\.JPG has none",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    assert before in VISA_ROWS
    visa(tmp_path, VISA_ROWS.replace(before, after))
    with pytest.raises(PhotoError, match=message):
        load_dataset(tmp_path, "visa", ["candle"])


# --- KolektorSDD and KolektorSDD2 -----------------------------------------------------------------


def test_kolektor_keeps_the_shots_of_an_item_together(tmp_path: Path) -> None:
    folder = kolektor(tmp_path, {1: 0, 3: 1, 10: 1}, [1, 2, 3, 10])
    category = one(tmp_path, "kolektor")
    assert names(category.train, folder) == [
        "kos01/Part1.jpg",
        "kos02/Part0.jpg",
        "kos02/Part1.jpg",
    ]
    assert rows_of(category, folder) == [
        ("good", "kos03/Part0.jpg", []),
        ("defect", "kos03/Part1.jpg", ["kos03/Part1_label.bmp"]),
        ("good", "kos10/Part0.jpg", []),
        ("defect", "kos10/Part1.jpg", ["kos10/Part1_label.bmp"]),
    ]
    assert category.notes == (
        "KolektorSDD has no split of its own: fitted on the good photos of items 1 to 2, tested on "
        "all photos of items 3 to 10",
        "defective photos of those items, not used: 1",
    )


def test_the_whole_kolektor_leaves_its_repeats_out(tmp_path: Path) -> None:
    folder = kolektor(tmp_path, dict.fromkeys(range(1, 51), 0), range(1, 51))
    category = one(folder, "kolektor")
    fitted = {path.parent.name for path in category.train}
    tested = {photo.path.parent.name for photo in category.test}
    assert fitted == {f"kos{i:02}" for i in range(1, 25)}
    assert tested == {f"kos{i:02}" for i in range(25, 51) if i not in (26, 34)}
    assert category.notes[2:] == (
        "item 26 repeats item 1 and is left out",
        "item 34 repeats item 27 and is left out",
    )
    assert counted(category) == {
        "train": 24, "validation": 0, "good": 24, "defect": 24, "masked": 24,
    }  # fmt: skip


def test_a_repeat_without_its_original_is_kept(tmp_path: Path) -> None:
    folder = kolektor(tmp_path, {34: 0}, [33, 34])
    assert one(folder, "kolektor").test[0].path == folder / "kos34" / "Part0.jpg"


def test_a_single_kolektor_item_is_refused(tmp_path: Path) -> None:
    folder = kolektor(tmp_path, {}, [7])
    with pytest.raises(
        PhotoError, match=r"its 1 item\(s\) leave no photos to fit on or none to test on"
    ):
        one(folder, "kolektor")


def test_kolektor2_in_its_published_layout(tmp_path: Path) -> None:
    folder = kolektor2(tmp_path)
    category = one(tmp_path, "kolektor2")
    assert names(category.train, folder) == ["train/10000.png", "train/10002.png"]
    assert rows_of(category, folder) == [
        ("good", "test/20000.png", []),
        ("good", "test/20001.png", []),
        ("defect", "test/20002.png", ["test/20002_GT.png"]),
    ]
    copies = [folder / "train" / f"10002{name} (copy).png" for name in ("", "_GT")]
    assert category.notes == (
        "defective photos of the train split, not used: 1",
        *(f"{path} is a copy that slipped into the published archive: left out" for path in copies),
    )


# --- Any folder -----------------------------------------------------------------------------------


def test_a_plain_folder_is_split_by_its_names(tmp_path: Path) -> None:
    category = one(plain_folder(tmp_path), "folder")
    assert len(category.train) == 8
    labels = [photo.label for photo in category.test]
    assert labels == ["crack", "crack", "crumb", "good", "good"]
    assert category.notes[0].startswith(
        f"{tmp_path / 'cookies'} has no split of its own: fitted on"
    )
    assert "8 of 10 good photos" in category.notes[0]


def test_the_split_depends_on_names_alone(tmp_path: Path) -> None:
    here = one(plain_folder(tmp_path / "here"), "folder")
    there = tmp_path / "there" / "cookies"
    for i in reversed(range(10)):
        draw(there / "good" / f"{i}.png", seed=i)
    draw(there / "crack" / "a.png")
    expected = [path.name for path in here.train]
    assert [path.name for path in one(there, "folder").train] == expected
    # As sha256sum tells: 5.png (ed93...) and 9.png (d387...) have the largest hashes of the ten.
    assert expected == [f"{i}.png" for i in range(10) if i not in (5, 9)]


def test_two_good_photos_are_enough_and_one_is_not(tmp_path: Path) -> None:
    draw_all(tmp_path / "good", ["a.png", "b.png"])
    draw(tmp_path / "crack" / "a.png")
    category = one(tmp_path, "folder")
    assert len(category.train) == 1
    assert sum(not photo.defective for photo in category.test) == 1
    (tmp_path / "good" / "a.png").unlink()
    with pytest.raises(PhotoError, match="make two at least, and it holds 1; add good"):
        one(tmp_path, "folder")


@pytest.mark.parametrize("truth", ["ground_truth", "masks"])
@pytest.mark.parametrize("ending", [".png", "_mask.png", ".bmp"])
def test_masks_of_a_plain_folder(truth: str, ending: str, tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    for name in ("crack/a", "crack/b", "crumb/a"):
        draw_mask(folder / truth / f"{name}{ending}")
    assert rows_of(one(folder, "folder"), folder)[:3] == [
        ("crack", "crack/a.png", [f"{truth}/crack/a{ending}"]),
        ("crack", "crack/b.png", [f"{truth}/crack/b{ending}"]),
        ("crumb", "crumb/a.jpg", [f"{truth}/crumb/a{ending}"]),
    ]


def test_masks_in_one_folder_do_for_photos_of_different_names(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    for name in ("a", "b"):
        draw_mask(folder / "masks" / f"{name}.png")
    with pytest.raises(PhotoError, match=r"a\.png would be the mask of both .*crack.* and .*crumb"):
        one(folder, "folder")
    (folder / "crumb" / "a.jpg").rename(folder / "crumb" / "c.jpg")
    draw_mask(folder / "masks" / "c.png")
    category = one(folder, "folder")
    assert names((p.masks[0] for p in category.test[:3]), folder / "masks") == [
        "a.png",
        "b.png",
        "c.png",
    ]


def test_a_folder_with_a_split_keeps_it(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    (folder / "ground_truth").rename(folder / "masks")
    category = one(folder, "folder")
    assert len(category.train) == 3
    assert category.test[0].masks == (folder / "masks/crack/000_mask.png",)
    assert category.notes == ()


def test_a_folder_without_good_photos_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "crack" / "a.png")
    with pytest.raises(PhotoError, match="is a category of folder"):
        load_dataset(tmp_path, "folder")


# --- Masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonzero", [False, True])
def test_a_mask_counts_above_half_of_white_or_above_zero(nonzero: bool, tmp_path: Path) -> None:
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[0, :5] = [1, 127, 128, 254, 255]
    Image.fromarray(values).save(tmp_path / "mask.png")
    photo = LabelledPhoto(Path("photo.png"), "crack", (tmp_path / "mask.png",), nonzero)
    mask = read_mask(photo, SIDE, SIDE)
    assert mask.dtype == np.bool_
    assert mask[0, :6].tolist() == [nonzero, nonzero, True, True, True, False]
    assert not mask[1:].any()


def test_a_photo_without_masks_has_an_empty_one() -> None:
    mask = read_mask(LabelledPhoto(Path("photo.png"), "good"), 20, 30)
    assert mask.shape == (20, 30)
    assert not mask.any()


@pytest.mark.parametrize("read", [read_mask, read_defects])
def test_a_mask_of_another_size_is_refused(
    read: Callable[[LabelledPhoto, int, int], object], tmp_path: Path
) -> None:
    path = draw_mask(tmp_path / "mask.png", side=40)
    photo = LabelledPhoto(tmp_path / "photo.png", "crack", (path,))
    with pytest.raises(PhotoError, match=r"mask\.png has 40 x 40 .*photo\.png has 24 x 32"):
        read(photo, 32, 24)


def test_a_mask_of_small_numbers_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    photo = LabelledPhoto(Path("photo.png"), "crack", (draw_mask(tmp_path / "mask.png", 1),))
    with pytest.raises(PhotoError, match=r"mask\.png holds values up to 1 of 255, and only those"):
        read_mask(photo, SIDE, SIDE)


def test_a_black_mask_is_an_empty_one(tmp_path: Path) -> None:
    photo = LabelledPhoto(Path("photo.png"), "crack", (draw_mask(tmp_path / "mask.png", 0),))
    assert not read_mask(photo, SIDE, SIDE).any()


def test_the_numbers_of_a_palette_mask_are_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(stripe().astype(np.uint8))
    image.putpalette([200, 200, 200, 0, 0, 0])  # the defect, 1, is painted black
    image.save(tmp_path / "mask.png")
    photo = LabelledPhoto(Path("photo.png"), "bad", (tmp_path / "mask.png",), nonzero_masks=True)
    np.testing.assert_array_equal(read_mask(photo, SIDE, SIDE), stripe())
    ((mask, value),) = read_defects(photo, SIDE, SIDE)
    assert value == 1
    np.testing.assert_array_equal(mask, stripe())


@pytest.mark.parametrize("nonzero", [False, True])
@pytest.mark.parametrize("mode", ["1", "RGB", "I;16"])
def test_masks_of_other_modes_are_read(mode: str, nonzero: bool, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(stripe().astype(np.uint16) * np.uint16(65535))
    else:
        image = Image.fromarray(stripe().astype(np.uint8) * np.uint8(255)).convert(mode)
    image.save(tmp_path / "mask.png")
    photo = LabelledPhoto(Path("photo.png"), "bad", (tmp_path / "mask.png",), nonzero)
    np.testing.assert_array_equal(read_mask(photo, SIDE, SIDE), stripe())


def test_a_mask_over_the_pixel_limit_is_refused(tmp_path: Path) -> None:
    photo = LabelledPhoto(Path("photo.png"), "bad", (draw_mask(tmp_path / "mask.png"),))
    with pytest.raises(PhotoError, match="over the limit of 1,000"):
        read_mask(photo, SIDE, SIDE, max_pixels=1000)


# --- The same picture twice -----------------------------------------------------------------------


def test_a_picture_in_train_and_test_is_found_whatever_its_format(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    category = one(folder, "mvtec")
    assert duplicates(category) == []

    with Image.open(folder / "train/good/001.png") as image:
        image.save(folder / "test/crack/001.png", compress_level=0)
        image.save(folder / "test/good/002.bmp")
    category = one(folder, "mvtec")
    train = folder / "train/good/001.png"
    pairs = [(train, folder / "test/crack/001.png"), (train, folder / "test/good/002.bmp")]
    assert duplicates(category) == pairs


def test_of_equal_training_photos_the_first_is_named(tmp_path: Path) -> None:
    paths = [draw(tmp_path / name, seed=1) for name in ("a.png", "b.png", "c.png")]
    category = Category("part", paths[:2], [LabelledPhoto(paths[2], "good")])
    assert duplicates(category) == [(paths[0], paths[2])]
