"""Data sets as people have them on disk: photos to fit on, photos to test on, and masks.

    load_dataset(root, kind) ──> Category: train, validation, test (labels, masks), unlabelled
                                              └── read_mask, read_defects: a mask in pixels

A loader reads names only, but for the two Kolektor sets, where the mask tells good from defective.
It refuses what does not fit its layout; what it left out, split or could not find is in the notes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reconpatch.errors import PhotoError
from reconpatch.photos.images import MAX_PIXELS, read_photo
from reconpatch.photos.listing import GOOD_NAMES, PHOTO_SUFFIXES, Disk, bare_name, list_photos, scan
from reconpatch.photos.masks import check_size, read_numbers, read_white

GOOD = "good"
"""The label of a photo without a defect, whatever its folder is called."""

FOLDER_FIT_SHARE = 0.8
"""Share of the good photos of a plain folder that a model is fitted on; the others are tested."""

KOLEKTOR_FIT_SHARE = 0.5
"""Share of KolektorSDD's items whose good photos a model is fitted on; the others are tested."""

PRIVATE_SPLITS = ("test_private", "test_private_mixed")
"""The splits of MVTec AD 2 whose labels only the benchmark's server knows."""

# What a folder of good photos may be called as well, as `bare_name` has it.
_SAYS_GOOD = GOOD_NAMES | {"normal", "pass", "passed", "accepted", "nominal", "faultless"}

# KolektorSDD shows these items twice under two numbers: the repeat, and the item it repeats.
_KOLEKTOR_REPEATS = {26: 1, 34: 27}


class Saturation(NamedTuple):
    """How much of a defect of MVTec LOCO has to be found for it to count as found in full.

    Attributes:
        threshold: a share of the defect's area in (0, 1] if relative, else 1 pixel or more.
        relative: whether the threshold is a share.
    """

    threshold: float
    relative: bool

    def pixels(self, area: int) -> int:
        """The same in pixels of a defect of this area, 1 to area.

        A share is rounded down, as the data set's own evaluation does it.
        """
        if self.relative:
            return max(int(self.threshold * area), 1)
        return min(int(self.threshold), area)


@dataclass(frozen=True)
class LabelledPhoto:
    """A test photo.

    Attributes:
        path: the file.
        label: "good", or the kind of defect.
        masks: the files with its defects; empty for a good photo and where there are no masks.
        nonzero_masks: how a mask is read: every value above 0 is a defect (True), or every value
            above half of white (False).
    """

    path: Path
    label: str
    masks: tuple[Path, ...] = ()
    nonzero_masks: bool = False

    @property
    def defective(self) -> bool:
        """Whether the photo shows a defect."""
        return self.label != GOOD


@dataclass(frozen=True)
class Category:
    """The photos of one kind of part, and what each of them is for.

    Attributes:
        name: the folder's name, or the data set's own name of the part.
        train: good photos to fit on.
        test: good and defective photos to test on.
        validation: further good photos (MVTec AD 2 and LOCO).
        unlabelled: photos by split whose labels nobody here knows (MVTec AD 2).
        saturation: by pixel value of a mask (MVTec LOCO), else None.
        notes: what was found and used, and what to know about it, a sentence each.
    """

    name: str
    train: Sequence[Path]
    test: Sequence[LabelledPhoto]
    validation: Sequence[Path] = ()
    unlabelled: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    saturation: Mapping[int, Saturation] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Dataset:
    """A data set's way of laying out its files.

    Attributes:
        layout: the layout in words, for messages and help.
        is_category: whether a folder looks like one category of it.
        load: the category of a name in a folder.
    """

    layout: str
    is_category: Callable[[Path], bool]
    load: Callable[[str, Path], Category]


def load_dataset(root: Path, kind: str, categories: Sequence[str] | None = None) -> list[Category]:
    """The categories of a data set.

    Args:
        root: the folder of the data set, or of one category of it.
        kind: one of DATASETS.
        categories: names of those wanted, in the order wanted; None: all, by name.

    Raises:
        PhotoError: the kind or a category is unknown, or the files do not fit the layout: a missing
            or empty split, masks for some defective photos and none for others, a mask that belongs
            to two photos, a table that names a missing file.
    """
    if kind not in DATASETS:
        raise PhotoError(
            f"{kind!r} is no data set known here: give one of {', '.join(sorted(DATASETS))}."
        )
    folders = _find_categories(root, kind, DATASETS[kind])
    names = list(folders) if categories is None else list(categories)
    for name in names:
        if name not in folders:
            raise PhotoError(
                f"{root} has no category {name!r} in the layout of {kind}: "
                f"it has {', '.join(folders)}."
            )
    return [DATASETS[kind].load(name, folders[name]) for name in names]


def _find_categories(root: Path, kind: str, dataset: Dataset) -> dict[str, Path]:
    """Folders of the categories by name, sorted: the root alone if it is one itself."""
    subfolders = _subfolders(root)
    if dataset.is_category(root):
        return {root.resolve().name: root}
    folders = {folder.name: folder for folder in subfolders if dataset.is_category(folder)}
    if not folders:
        raise PhotoError(
            f"{root}: neither this folder nor one in it is a category of {kind}; "
            f"lay its files out as {dataset.layout}."
        )
    return folders


# --- Masks ----------------------------------------------------------------------------------------


def read_mask(
    photo: LabelledPhoto, height: int, width: int, *, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.bool_]:
    """Where a photo is defective: (height, width) bool, the union of its masks.

    A pixel of a mask counts

    - above half of white (127 of 255) in MVTec AD, MVTec AD 2, BTAD and plain folders, whose masks
      are black and white;
    - above 0 in VisA and MVTec LOCO, whose masks hold a number for each kind of defect, and in
      KolektorSDD and KolektorSDD2, whose loaders tell good photos by masks of nothing but 0. The
      numbers of a palette file are its indices.

    A photo without masks gives an empty one.

    Args:
        photo: the photo.
        height: the photo's height in pixels.
        width: the photo's width in pixels.
        max_pixels: larger masks are refused.

    Raises:
        PhotoError: a mask cannot be read, has another size than the photo, or is not black and
            white where it should be.
    """
    union = np.zeros((height, width), dtype=bool)
    for path in photo.masks:
        if photo.nonzero_masks:
            mask = read_numbers(path, max_pixels=max_pixels) > 0
        else:
            mask = read_white(path, max_pixels=max_pixels)
        check_size(mask, path, photo.path, (height, width))
        union |= mask
    return union


def read_defects(
    photo: LabelledPhoto, height: int, width: int, *, max_pixels: int = MAX_PIXELS
) -> list[tuple[npt.NDArray[np.bool_], int]]:
    """The defects of a photo of MVTec LOCO, one for each mask file NNN.png, in the files' order.

    The parts of one defect need not be connected, and defects may overlap.

    Args:
        photo: the photo.
        height: the photo's height in pixels.
        width: the photo's width in pixels.
        max_pixels: larger masks are refused.

    Returns:
        For each defect its (height, width) bool mask and its pixel value in 1..255, the key of
        Category.saturation.

    Raises:
        PhotoError: a mask cannot be read, has another size than the photo, or holds not exactly one
            value beside 0.
    """
    defects = []
    for path in photo.masks:
        values = read_numbers(path, max_pixels=max_pixels)
        check_size(values, path, photo.path, (height, width))
        present = np.unique(values[values > 0])
        if len(present) != 1:
            raise PhotoError(
                f"{path} holds {len(present)} values beside 0, and a mask of MVTec LOCO holds one, "
                "the kind of its defect: unpack the data set again."
            )
        defects.append((values > 0, int(present[0])))
    return defects


# --- The same picture twice -----------------------------------------------------------------------


def duplicates(category: Category, *, max_pixels: int = MAX_PIXELS) -> list[tuple[Path, Path]]:
    """Test photos that are also training photos, pixel by pixel, as (train, test).

    Every photo is read, which takes a while; of several equal training photos the first is named.

    Raises:
        PhotoError: a photo cannot be read.
    """
    train: dict[str, Path] = {}
    for path in category.train:
        train.setdefault(read_photo(path, max_pixels=max_pixels).sha256, path)
    hashes = [read_photo(photo.path, max_pixels=max_pixels).sha256 for photo in category.test]
    return [
        (train[sha256], photo.path)
        for sha256, photo in zip(hashes, category.test, strict=True)
        if sha256 in train
    ]


# --- Files and folders ----------------------------------------------------------------------------

_MaskIndex = Mapping[str, tuple[Path, ...]]


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without what is hidden."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except FileNotFoundError as error:
        raise PhotoError(f"{folder}: does not exist; check the path.") from error
    except OSError as error:
        raise PhotoError(
            f"{folder}: cannot be read as a folder ({error.strerror}); give a folder of photos."
        ) from error
    return [path for path in entries if not path.name.startswith(".")]


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()


def _holds_photos(folder: Path) -> bool:
    return folder.is_dir() and bool(scan(str(folder), Disk(folder), masks=True).names)


def _present(folder: Path, layout: str) -> Path:
    """The folder of a split; refuses a missing one."""
    if not folder.is_dir():
        raise PhotoError(f"{folder}: this split is missing; lay the files out as {layout}.")
    return folder


def _photos(folder: Path, layout: str) -> tuple[Path, ...]:
    """The photos of a split; refuses a missing and an empty one."""
    return tuple(list_photos(_present(folder, layout), masks=True))


def _key(path: Path, folder: Path) -> str:
    """What a photo and its mask have in common: the path in the folder without the ending."""
    return path.relative_to(folder).with_suffix("").as_posix()


def _mask_per_photo(folder: Path) -> _MaskIndex:
    """The masks below a folder, <stem>_mask.* or <stem>.*, by the key of their photo."""
    index: dict[str, tuple[Path, ...]] = {}
    for path in list_photos(folder, masks=True):
        key = _key(path, folder).removesuffix("_mask")
        if key in index:
            raise PhotoError(
                f"{index[key][0]} and {path} are masks of one photo, which has one: remove one."
            )
        index[key] = (path,)
    return index


def _masks_per_photo(folder: Path) -> _MaskIndex:
    """The masks below a folder, <stem>/NNN.png, by the key of their photo."""
    index: dict[str, tuple[Path, ...]] = {}
    for path in list_photos(folder, masks=True):
        key = path.parent.relative_to(folder).as_posix()
        index[key] = (*index.get(key, ()), path)
    return index


# --- Layouts with a folder for each label ---------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """A category with a folder for each split, and in the test split one for each label.

    Attributes:
        text: the layout in words.
        train, validation, test: folders of the splits; validation may be None.
        good: the name of the folder of good photos in the test split.
        truth: where the folders of masks may be.
        index: finds the masks in the folder of one label.
        nonzero_masks: as in LabelledPhoto.
    """

    text: str
    train: str = "train/good"
    validation: str | None = None
    test: str = "test"
    good: str = GOOD
    truth: tuple[str, ...] = ("ground_truth",)
    index: Callable[[Path], _MaskIndex] = _mask_per_photo
    nonzero_masks: bool = False

    def is_category(self, folder: Path) -> bool:
        """Whether one of the splits is there; a loader says which is missing."""
        return (folder / self.test).is_dir() or (folder / Path(self.train).parts[0]).is_dir()

    def load(self, name: str, folder: Path) -> Category:
        """The category of a name in a folder.

        Raises:
            PhotoError: the files do not fit the layout.
        """
        train_folder = folder / self.train
        train = _photos(train_folder, self.text)
        validation = () if self.validation is None else _photos(folder / self.validation, self.text)
        test_folder = _present(folder / self.test, self.text)
        test, notes = self.test_split(test_folder, self.find_truth(folder))
        unused = [path for path in _subfolders(train_folder.parent) if path != train_folder]
        notes += [f"{path} is not used: a model is fitted on good photos only" for path in unused]
        return Category(name, train, test, validation, notes=tuple(notes))

    def test_split(
        self, folder: Path, truth: Path | None
    ) -> tuple[tuple[LabelledPhoto, ...], list[str]]:
        """The photos of a test folder, with their masks; and notes."""
        labels = [label for label in self.label_folders(folder) if label != truth]
        if not labels:
            raise PhotoError(f"{folder}: this split is empty; lay it out as {self.text}.")
        return self.label_photos(labels, truth)

    def find_truth(self, folder: Path) -> Path | None:
        """The folder of masks of a category, if there is one; refuses two."""
        found = [folder / name for name in self.truth if _holds_photos(folder / name)]
        if len(found) > 1:
            raise PhotoError(f"{found[0]} and {found[1]} may both hold the masks: remove one.")
        return found[0] if found else None

    def label_folders(self, folder: Path) -> list[Path]:
        """A folder for each label that there are photos of; refuses photos that lie beside them."""
        stray = next((path for path in _entries(folder) if _is_photo(path)), None)
        if stray is not None:
            raise PhotoError(
                f"{stray} lies beside the folders of {folder}, which name what their photos show: "
                f"move it into the folder of the good photos, named {self.good}, or into that of "
                "its defect."
            )
        found = scan(str(folder), Disk(folder)).names  # a report among them holds none
        holding = {name.partition("/")[0] for name in found}
        return [label for label in _subfolders(folder) if label.name in holding]

    def label_photos(
        self, labels: Iterable[Path], truth: Path | None
    ) -> tuple[tuple[LabelledPhoto, ...], list[str]]:
        """The photos in the folders of the labels, with their masks; and notes."""
        labels = list(labels)
        good, notes = self._good_of(labels)
        photos = tuple(photo for label in labels for photo in self._of_label(label, truth, good))
        _check_masks(photos, truth)
        notes += [] if truth is None else self._leftover_masks(photos, truth)
        return photos, [*notes, *_one_sided(photos, f"; no folder is named {self.good}")]

    def _good_of(self, labels: Sequence[Path]) -> tuple[str, list[str]]:
        """The name of the folder of good photos among those of the labels; and a note.

        Where there is none of the layout's name, one that is called OK or Good, say, is meant.
        """
        names = [label.name for label in labels]
        if self.good in names:
            return self.good, []
        meant = [label for label in labels if bare_name(label.name) in _SAYS_GOOD]
        if len(meant) > 1:
            raise PhotoError(
                f"{meant[0]} and {meant[1]} may both hold the good photos, and there is no folder "
                f"named {self.good}: give the one of the good photos that name."
            )
        if meant:
            return meant[0].name, [
                f"{meant[0]} counts as the folder of the good photos, since there is none named "
                f"{self.good}"
            ]
        return self.good, []

    def _of_label(self, folder: Path, truth: Path | None, good: str) -> list[LabelledPhoto]:
        paths = list_photos(folder)
        if folder.name == good:
            return [LabelledPhoto(path, GOOD) for path in paths]
        index = {} if truth is None else self._masks_of_label(truth, folder.name)
        return [
            LabelledPhoto(path, folder.name, index.get(_key(path, folder), ()), self.nonzero_masks)
            for path in paths
        ]

    def _masks_of_label(self, truth: Path, label: str) -> _MaskIndex:
        if _holds_photos(truth / label):
            return self.index(truth / label)
        return {} if _subfolders(truth) else self.index(truth)

    def _leftover_masks(self, photos: Sequence[LabelledPhoto], truth: Path) -> list[str]:
        """A note on masks that fit no photo; refuses where none fits a defective one."""
        used = {mask for photo in photos for mask in photo.masks}
        found = list_photos(truth, masks=True)
        masks = [path for path in found if truth / self.good not in path.parents]
        left = [path for path in masks if path not in used]
        if left and not used and any(photo.defective for photo in photos):
            raise PhotoError(
                f"{truth}: none of its {len(left)} masks, such as {left[0].name}, fits a defective "
                f"photo; name them as in {self.text}."
            )
        return [f"masks that fit no photo: {len(left)}, such as {left[0]}"] if left else []


def _check_masks(photos: Sequence[LabelledPhoto], truth: Path | None) -> None:
    """Refuses masks for some defective photos only, and one mask for two photos."""
    defective = [photo for photo in photos if photo.defective]
    without = [photo for photo in defective if not photo.masks]
    if without and len(without) < len(defective):
        raise PhotoError(
            f"{len(defective) - len(without)} of {len(defective)} defective photos have a mask in "
            f"{truth} and {without[0].path} has none: give all of them one, or none."
        )
    owner: dict[Path, LabelledPhoto] = {}
    for photo in defective:
        for mask in photo.masks:
            if owner.setdefault(mask, photo) is not photo:
                raise PhotoError(
                    f"{mask} would be the mask of both {owner[mask].path} and {photo.path}: "
                    "give each photo a name of its own, or the masks a folder for each defect."
                )


def _one_sided(photos: Sequence[LabelledPhoto], why: str = "") -> list[str]:
    """A note where good or defective photos are missing among those to test on."""
    there = {photo.defective for photo in photos}
    return [
        f"there are no {kind} photos to test on: figures that compare good with defective photos "
        f"cannot be worked out{'' if defective else why}"
        for kind, defective in (("good", False), ("defective", True))
        if defective not in there
    ]


# --- MVTec AD, BTAD -------------------------------------------------------------------------------

_MVTEC = _Layout(
    "CATEGORY/train/good, CATEGORY/test/{good,DEFECT}, CATEGORY/ground_truth/DEFECT/STEM_mask.png"
)
_BTAD = _Layout(
    "CATEGORY/train/ok, CATEGORY/test/{ok,ko}, CATEGORY/ground_truth/ko/STEM.{png,bmp}",
    train="train/ok",
    good="ok",
)


def labelled_photos(folder: Path) -> tuple[tuple[LabelledPhoto, ...], list[str]]:
    """The labelled photos of a test folder in MVTec AD's layout, or of the category that holds it.

    Returns:
        The photos, and what there is to say of them: a folder taken for that of the good photos,
        masks that fit no photo, a kind of photos that is missing.

    Raises:
        PhotoError: the layout does not fit, with the path and the reason.
    """
    if (folder / "test").is_dir():
        folder = folder / "test"
    # A folder given as "." does not tell its parent.
    truth = _MVTEC.find_truth(folder.absolute().parent)
    photos, notes = _MVTEC.test_split(folder, truth)
    left_out = scan(str(folder), Disk(folder)).sentence
    return photos, [*([left_out] if left_out else []), *notes]


# --- MVTec LOCO AD --------------------------------------------------------------------------------

_LOCO = _Layout(
    "CATEGORY/train/good, CATEGORY/validation/good, "
    "CATEGORY/test/{good,logical_anomalies,structural_anomalies}, "
    "CATEGORY/ground_truth/DEFECT/STEM/NNN.png, CATEGORY/defects_config.json",
    validation="validation/good",
    index=_masks_per_photo,
    nonzero_masks=True,
)


def _load_loco(name: str, folder: Path) -> Category:
    category = _LOCO.load(name, folder)
    config = folder / "defects_config.json"
    if not config.is_file():
        note = f"{config} is not there: sPRO, which takes its saturation, cannot be worked out"
        return replace(category, notes=(*category.notes, note))
    return replace(category, saturation=_read_saturation(config))


def _read_saturation(config: Path) -> dict[int, Saturation]:
    try:
        entries = json.loads(config.read_text(encoding="utf-8"))
        return {int(entry["pixel_value"]): _saturation(entry) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PhotoError(
            f"{config} is not MVTec LOCO's list of pixel_value, saturation_threshold and "
            f"relative_saturation ({error!r}): unpack the data set again."
        ) from error


def _saturation(entry: Mapping[str, Any]) -> Saturation:
    threshold, relative = float(entry["saturation_threshold"]), bool(entry["relative_saturation"])
    if not 1 <= int(entry["pixel_value"]) <= 255:
        raise ValueError(f"pixel_value {entry['pixel_value']} is not in 1..255")
    if not (0 < threshold <= 1 if relative else 1 <= threshold < math.inf):
        raise ValueError(f"saturation_threshold {threshold:g} is out of its range")
    return Saturation(threshold, relative)


# --- MVTec AD 2 -----------------------------------------------------------------------------------

_MVTEC2 = _Layout(
    "CATEGORY/train/good, CATEGORY/validation/good, CATEGORY/test_public/{good,bad}, "
    "CATEGORY/test_public/ground_truth/bad/STEM_mask.png, "
    "CATEGORY/{test_private,test_private_mixed}",
    validation="validation/good",
    test="test_public",
    truth=("test_public/ground_truth",),
)


def _load_mvtec2(name: str, folder: Path) -> Category:
    category = _MVTEC2.load(name, folder)
    present = [split for split in PRIVATE_SPLITS if (folder / split).is_dir()]
    unlabelled = {split: _photos(folder / split, _MVTEC2.text) for split in present}
    notes = [
        f"{folder / split} is not there: nothing can be handed in for it"
        for split in PRIVATE_SPLITS
        if split not in present
    ]
    return replace(category, unlabelled=unlabelled, notes=(*category.notes, *notes))


# --- VisA -----------------------------------------------------------------------------------------

_VISA_ORIGINAL = "split_csv/1cls.csv (object,split,label,image,mask) and CATEGORY/Data"
_VISA_CONVERTED = _Layout(
    "CATEGORY/train/good, CATEGORY/test/{good,bad}, CATEGORY/ground_truth/bad/STEM.png",
    nonzero_masks=True,
)


def _is_visa(folder: Path) -> bool:
    return (folder / "Data").is_dir() or _VISA_CONVERTED.is_category(folder)


def _load_visa(name: str, folder: Path) -> Category:
    if not (folder / "Data").is_dir():
        return _VISA_CONVERTED.load(name, folder)
    # A folder given as "." does not tell its parent.
    root = folder.parent if folder.name == name else folder.resolve().parent
    table = root / "split_csv" / "1cls.csv"
    train: list[Path] = []
    test: list[LabelledPhoto] = []
    for line, row in _visa_rows(table, name):
        photo = _visa_photo(table, line, row, root)
        if row["split"] == "test":
            test.append(photo)
        elif row["split"] == "train" and not photo.defective:
            train.append(photo.path)
        else:
            raise PhotoError(
                f"{table}, line {line}: {row['label']!r} in split {row['split']!r} does not fit: "
                "the train split holds normal photos and all others are in test."
            )
    for split, found in (("train", train), ("test", test)):
        if not found:
            raise PhotoError(
                f"{table}: names no photo of {name} in split {split}; take the table as published."
            )
    _check_masks(test, table)
    notes = (f"split by {table}", *_one_sided(test))
    return Category(name, tuple(train), tuple(test), notes=notes)


def _visa_rows(table: Path, name: str) -> list[tuple[int, dict[str, str]]]:
    """The rows of one category, each with its line in the file."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            missing = {"object", "split", "label", "image", "mask"}.difference(
                rows.fieldnames or ()
            )
            if missing:
                raise PhotoError(
                    f"{table}: the column {min(missing)} is missing; "
                    "the first line is object,split,label,image,mask."
                )
            return [(rows.line_num, row) for row in rows if row["object"] == name]
    except FileNotFoundError as error:
        raise PhotoError(
            f"{table}: does not exist, and it says how VisA is split; lay the files out as "
            f"{_VISA_ORIGINAL}."
        ) from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise PhotoError(f"{table}: cannot be read ({error}); take it as published.") from error


def _visa_photo(table: Path, line: int, row: Mapping[str, str], root: Path) -> LabelledPhoto:
    label = GOOD if row["label"] == "normal" else row["label"]
    mask = row["mask"] if label != GOOD else None
    for path in (row["image"] or "", *([mask] if mask else [])):
        if not (root / path).is_file():
            raise PhotoError(
                f"{table}, line {line}: names {path!r}, which is no file in {root}; "
                "unpack the data set again."
            )
    masks = (root / mask,) if mask else ()
    return LabelledPhoto(root / row["image"], label, masks, nonzero_masks=True)


# --- KolektorSDD, KolektorSDD2 --------------------------------------------------------------------

_KOLEKTOR_TEXT = "kosNN/PartM.jpg and kosNN/PartM_label.bmp"
_KOLEKTOR2_TEXT = "train/NNNNN.png, train/NNNNN_GT.png, test/NNNNN.png, test/NNNNN_GT.png"
_KOLEKTOR_ITEM = re.compile(r"kos(\d+)")


def _kolektor_items(folder: Path) -> dict[int, Path]:
    """The folders of the items by number, in the order of the numbers."""
    matches = [(_KOLEKTOR_ITEM.fullmatch(path.name), path) for path in _subfolders(folder)]
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def _load_kolektor(name: str, folder: Path) -> Category:
    """KolektorSDD by items, so that the shots of one item are on one side.

    It has no split of its own. The items without repeats are taken in the order of their numbers:
    of the first half the good photos are fitted on, of the second half all photos are tested. Half
    and not two thirds, since an item has about one defect and there are only 50.
    """
    items = _kolektor_items(folder)
    repeats = [n for n, original in _KOLEKTOR_REPEATS.items() if {n, original} <= items.keys()]
    numbers = [number for number in items if number not in repeats]
    fitted = numbers[: round(len(numbers) * KOLEKTOR_FIT_SHARE)]
    tested = numbers[len(fitted) :]
    known = [photo for n in fitted for photo in _by_masks(items[n], "_label", _KOLEKTOR_TEXT)]
    test = [photo for n in tested for photo in _by_masks(items[n], "_label", _KOLEKTOR_TEXT)]
    train = tuple(photo.path for photo in known if not photo.defective)
    if not (train and test):
        raise PhotoError(
            f"{folder}: its {len(items)} item(s) leave no photos to fit on or none to test on; "
            f"give the whole data set, laid out as {_KOLEKTOR_TEXT}."
        )
    notes = [
        f"KolektorSDD has no split of its own: fitted on the good photos of items {fitted[0]} to "
        f"{fitted[-1]}, tested on all photos of items {tested[0]} to {tested[-1]}",
        *_unused_defects(len(known) - len(train), "those items"),
        *(f"item {n} repeats item {_KOLEKTOR_REPEATS[n]} and is left out" for n in repeats),
        *_one_sided(test),
    ]
    return Category(name, train, tuple(test), notes=tuple(notes))


def _is_kolektor2(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def _load_kolektor2(name: str, folder: Path) -> Category:
    known = _by_masks(folder / "train", "_GT", _KOLEKTOR2_TEXT)
    test = _by_masks(folder / "test", "_GT", _KOLEKTOR2_TEXT)
    train = tuple(photo.path for photo in known if not photo.defective)
    if not train:
        raise PhotoError(f"{folder / 'train'}: no good photo to fit on; unpack the data set again.")
    copies = [path for split in ("train", "test") for path in _copies(folder / split)]
    notes = [
        *_unused_defects(len(known) - len(train), "the train split"),
        *(f"{path} is a copy that slipped into the published archive: left out" for path in copies),
        *_one_sided(test),
    ]
    return Category(name, train, tuple(test), notes=tuple(notes))


def _by_masks(folder: Path, suffix: str, layout: str) -> list[LabelledPhoto]:
    """The photos of a folder, each beside its mask: a defect is where the mask is not 0."""
    photos = _photos(folder, layout)
    copies = _copies(folder)
    stems = {path.stem: path for path in photos if path.parent == folder and path not in copies}
    labelled = []
    for stem, path in stems.items():
        if stem.endswith(suffix):
            continue
        mask = stems.get(stem + suffix)
        if mask is None:
            raise PhotoError(
                f"{path} has no mask {stem}{suffix} beside it, which says whether it is good; "
                f"lay the files out as {layout}."
            )
        defective = bool(read_numbers(mask).any())
        labelled.append(
            LabelledPhoto(path, "defect", (mask,), nonzero_masks=True)
            if defective
            else LabelledPhoto(path, GOOD)
        )
    return labelled


def _copies(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if _is_photo(path) and "(copy)" in path.name]


def _unused_defects(count: int, where: str) -> list[str]:
    return [f"defective photos of {where}, not used: {count}"] if count else []


# --- Any folder of good and defective photos ------------------------------------------------------

_FOLDER_SPLIT = _Layout(
    "FOLDER/good, FOLDER/DEFECT and FOLDER/{ground_truth,masks}/DEFECT/STEM[_mask].png, "
    "or FOLDER/train/good, FOLDER/test/{good,DEFECT} and FOLDER/{ground_truth,masks}/DEFECT",
    truth=("ground_truth", "masks"),
)


def _is_folder(folder: Path) -> bool:
    return (folder / GOOD).is_dir() or _FOLDER_SPLIT.is_category(folder)


def _load_folder(name: str, folder: Path) -> Category:
    if _FOLDER_SPLIT.is_category(folder):
        return _FOLDER_SPLIT.load(name, folder)
    truth = _FOLDER_SPLIT.find_truth(folder)
    others = {folder / other for other in _FOLDER_SPLIT.truth}
    labels = [label for label in _FOLDER_SPLIT.label_folders(folder) if label not in others]
    photos, notes = _FOLDER_SPLIT.label_photos(labels, truth)
    good = [photo.path for photo in photos if not photo.defective]
    train = _share_by_hash(good, folder / GOOD)
    note = (
        f"{folder} has no split of its own: fitted on {len(train)} of {len(good)} good photos, "
        "chosen by a hash of their names; if several show one part, keep them together with "
        "train/good and test/good instead"
    )
    chosen = set(train)
    test = tuple(photo for photo in photos if photo.path not in chosen)
    return Category(name, train, test, notes=(note, *notes))


def _share_by_hash(paths: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """FOLDER_FIT_SHARE of the photos, in their order.

    Those whose names have the smallest SHA-256: the same on every machine, whatever the clock, the
    file system or the seed; at least one photo is on either side.
    """
    if len(paths) < 2:
        raise PhotoError(
            f"{folder}: photos to fit on and photos to test on make two at least, and it holds "
            f"{len(paths)}; add good photos."
        )

    def name_hash(path: Path) -> str:
        return hashlib.sha256(path.relative_to(folder).as_posix().encode()).hexdigest()

    count = min(max(round(len(paths) * FOLDER_FIT_SHARE), 1), len(paths) - 1)
    chosen = set(sorted(paths, key=name_hash)[:count])
    return tuple(path for path in paths if path in chosen)


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        "mvtec": Dataset(_MVTEC.text, _MVTEC.is_category, _MVTEC.load),
        "mvtec2": Dataset(_MVTEC2.text, _MVTEC2.is_category, _load_mvtec2),
        "loco": Dataset(_LOCO.text, _LOCO.is_category, _load_loco),
        "btad": Dataset(_BTAD.text, _BTAD.is_category, _BTAD.load),
        "visa": Dataset(f"{_VISA_ORIGINAL}, or {_VISA_CONVERTED.text}", _is_visa, _load_visa),
        "kolektor": Dataset(
            _KOLEKTOR_TEXT, lambda folder: bool(_kolektor_items(folder)), _load_kolektor
        ),
        "kolektor2": Dataset(_KOLEKTOR2_TEXT, _is_kolektor2, _load_kolektor2),
        "folder": Dataset(_FOLDER_SPLIT.text, _is_folder, _load_folder),
    }
)
"""The data sets by the name that `load_dataset` takes."""
