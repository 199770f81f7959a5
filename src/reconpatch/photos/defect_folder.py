"""Folders of confirmed defects: photos, the kind that each shows, and masks where there are some.

    defects/scratch/17.png                        a photo; its folder names the kind
    defects/ground_truth/scratch/17_mask.png      its mask, also 17.png, or in masks/
    defects/scratch/17_mask.png                   or beside it

A folder of one kind is read as well, with masks in it, or as MVTec AD has them: those of
CATEGORY/test/scratch in CATEGORY/ground_truth/scratch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reconpatch.errors import PhotoError
from reconpatch.photos.images import MAX_PIXELS
from reconpatch.photos.listing import GOOD_NAMES, bare_name, list_folder, list_photos
from reconpatch.photos.masks import check_size, read_white

_TRUTH = frozenset({"groundtruth", "masks", "mask"})  # as `bare_name` has them
_MASK_ENDING = re.compile("(_mask|_GT)$")


Drawn = Callable[[int, int], npt.NDArray[np.bool_]]
"""Gives the (height, width) bool mask of a drawing, by height and width."""


@dataclass(frozen=True)
class DefectPhoto:
    """A photo of a confirmed defect.

    Attributes:
        path: the file.
        kind: the name of the folder that it lies in; empty where nobody named a kind.
        mask: the file that shows where the defect is, white on black, or what draws it for a photo
            of so many rows and columns; None where there is neither.
        name: what the photo is called where that is not the name of its file.
    """

    path: Path
    kind: str
    mask: Path | Drawn | None = None
    name: str = ""

    @property
    def called(self) -> str:
        """What the photo is called, in messages and in a model."""
        return self.name or str(self.path)

    @property
    def mask_called(self) -> str:
        """What the mask is called in messages."""
        return str(self.mask) if isinstance(self.mask, Path) else f"the drawing on {self.called}"


DefectSource = Path | str | Iterable[Path | str | DefectPhoto]
"""A folder or a photo, or several; what is known of photos already may be among them."""


def list_defects(given: DefectSource) -> list[DefectPhoto]:
    """The photos of folders and files of confirmed defects, with their masks.

    Args:
        given: where they are. A photo that is given as a file has no mask.

    Raises:
        PhotoError: a folder is missing or holds no photo or good ones, masks fit no photo, or one
            kind is spelled in two ways.
    """
    several = [given] if isinstance(given, str | Path) else list(given)
    found: list[DefectPhoto] = []
    for one in several:
        if isinstance(one, DefectPhoto):
            found.append(one)
            continue
        path = Path(one)
        found += [DefectPhoto(path, _kind(path))] if path.is_file() else _in_folder(path)
    if not found:
        raise PhotoError("no confirmed defect is given: give a folder of them, or photos")
    spelled: dict[str, DefectPhoto] = {}
    for photo in found:
        if bare_name(photo.kind) in GOOD_NAMES:
            raise PhotoError(
                f"{photo.path.parent} is named as a folder of good photos is, and confirmed "
                "defects are asked for: give the folders of the defects alone"
            )
        other = spelled.setdefault(bare_name(photo.kind), photo)
        if other.kind != photo.kind:
            raise PhotoError(
                f"{_spelled(other)} and {_spelled(photo)} spell one kind of defect in two ways: "
                "give both one name"
            )
    return found


def _spelled(photo: DefectPhoto) -> str:
    return f"{photo.kind!r} of {photo.name}" if photo.name else str(photo.path.parent)


def read_place(photo: DefectPhoto, height: int, width: int) -> npt.NDArray[np.bool_] | None:
    """Where a photo of so many pixels is defective: (height, width) bool; None without a mask.

    Raises:
        PhotoError: the mask cannot be read, has another size than the photo, or shows nothing.
    """
    if photo.mask is None:
        return None
    if not isinstance(photo.mask, Path):
        return photo.mask(height, width)
    mask = read_white(photo.mask, max_pixels=max(height * width, MAX_PIXELS))
    check_size(mask, photo.mask, photo.path, (height, width))
    if not mask.any():
        raise PhotoError(
            f"{photo.mask} is black, and {photo.path} is said to show a defect: paint the defect "
            "white, or remove the mask"
        )
    return mask


def _kind(path: Path) -> str:
    return path.absolute().parent.name


def _in_folder(folder: Path) -> list[DefectPhoto]:
    found = list_folder(folder, masks=True)
    keys = {_key(name) for name in found.names}
    photos: dict[str, Path] = {}
    masks: list[tuple[str, Path]] = []  # the key of its photo, and the mask
    for path, name in zip(found.paths, found.names, strict=True):
        parts = name.split("/")
        drawn = [part for part in parts[:-1] if bare_name(part) in _TRUTH]
        key = _photo_key(_key("/".join(part for part in parts if part not in drawn)))
        if drawn or (key != _key(name) and key in keys):
            masks.append((key, path))
        else:
            photos[name] = path
    masks += _masks_of_category(folder)
    of_photo: dict[str, Path] = {}
    for key, path in masks:
        if key in of_photo:
            raise PhotoError(
                f"{of_photo[key]} and {path} are masks of one photo, which has one: remove one."
            )
        of_photo[key] = path
    listed = [
        DefectPhoto(path, _kind(path), of_photo.pop(_key(name), None))
        for name, path in photos.items()
    ]
    if of_photo:
        left = next(iter(of_photo.values()))
        count = "1 mask" if len(of_photo) == 1 else f"{len(of_photo)} masks"
        raise PhotoError(
            f"{folder}: {count}, such as {left}, would be of no photo: name each as its photo, or "
            "as its photo with _mask, in a folder of the same name"
        )
    return listed


def _masks_of_category(folder: Path) -> list[tuple[str, Path]]:
    """The masks that a data set of MVTec AD's layout has for one of its kinds of defects."""
    folder = folder.absolute()
    for above in (folder.parent, folder.parent.parent):
        truth = above / "ground_truth" / folder.name
        if truth.is_dir():
            paths = list_photos(truth, masks=True)
            return [(_photo_key(_key(p.relative_to(truth).as_posix())), p) for p in paths]
    return []


def _key(name: str) -> str:
    """A relative name without its ending."""
    return name.rpartition(".")[0]


def _photo_key(mask: str) -> str:
    """What the photo of a mask is called, by the mask's name without its ending."""
    return _MASK_ENDING.sub("", mask)
