"""The photos of a folder: one listing for every command that takes folders.

    folder, store ── walked, links followed ──┬── photos, by name
                                              └── what is left out, and why: one line with counts

A photo is a file whose name ends as those of photos do, in the folder or in one below it. Left out
are what is hidden, what this package wrote (the overlays of a report, scores, what `watch` sorted,
a station's data), and masks of labelled data sets. A folder that is given itself is always looked
into.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from reconpatch.errors import PhotoError
from reconpatch.files import atomic_write

PHOTO_SUFFIXES: frozenset[str] = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
)

OVERLAY = "reconpatch overlay"
"""What the metadata of each overlay of a report says, as its `Software`."""
OVERLAY_SUMS = "overlays.sha256"
"""Name of a report's list of its overlays."""
EXPORT_SUMS = "files.sha256"
"""Name of an export's list of its files."""
SORTED_MARK = ".reconpatch-sorted"
"""Name of a file in a folder that `watch` sorts photos into."""

HIDDEN = "hidden (their names begin with a dot)"
OWN = "written by reconpatch"
MASKS = "masks of a labelled data set"
LISTED = "links to folders that are listed already"
NOWHERE = "links to what is not there"
UNREADABLE = "folders that cannot be read"
OTHER = "no photos by their endings"

_SHOWN = 3  # names and endings in a line
_REPORT = b"--bar-calibration"  # in the head of every report, also of earlier versions
_EXPORT = b"reconpatch_export"  # as `export.MARK`
_SYSTEM = {"thumbs.db", "desktop.ini", "@eadir"}
_MAPS = {"anomaly_images", "anomaly_images_thresholded"}  # what `submission` writes
_SCORES = re.compile(r"scores-\d{6,}\.parquet|_scores\.json|_lock")
_MASK_FILE = re.compile(r"(.+)(_mask|_GT|_label)")

# Names of folders, lower case, without "_", "-" and blanks.
GOOD_NAMES = frozenset({"good", "ok", "io"})
"""Folders of good photos in labelled data sets."""
_TRAIN = frozenset({"train", "training"})
_TEST = frozenset({"test", "tests", "testing", "testpublic", "testprivate", "testprivatemixed"})
_TRUTH = frozenset({"groundtruth"})
_TRUTH_BESIDE = frozenset({"masks", "mask"})  # only beside one of the others: parts may be masks
_DEFECTS = frozenset(
    {"bad", "ng", "nok", "nio", "ko", "defect", "defects", "defective", "anomaly", "anomalies"}
    | {"anomalous", "abnormal", "reject", "rejects", "rejected", "broken", "faulty"}
)


def bare_name(name: str) -> str:
    """A folder's name as the sets of names above have it."""
    return re.sub(r"[\s_-]", "", name).casefold()


# --- What a listing is ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """The photos of a folder.

    Attributes:
        folder: as it was given.
        names: of the photos, relative to the folder with forward slashes, sorted.
        left_out: names of what is left out, by the reason; of a folder that is left out as a whole
            those of the photos in it.
        wholes: the folders that are left out as wholes.
    """

    folder: str
    names: Sequence[str]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    wholes: Sequence[str] = ()

    @property
    def paths(self) -> list[Path]:
        """The photos of a folder on a disk."""
        return [Path(self.folder, name) for name in self.names]

    @property
    def sentence(self) -> str:
        """What was left out and why, with counts, in one line; "" where nothing was."""
        parts = [
            f"{reason}: {len(names):,}{self._examples(reason, names)}"
            for reason, names in self.left_out.items()
            if names
        ]
        return f"Left out of {self.folder}: {'; '.join(parts)}." if parts else ""

    def _examples(self, reason: str, names: Sequence[str]) -> str:
        """In brackets: the endings of what is no photo, of all else some names."""
        if reason == HIDDEN:
            return ""
        if reason == OTHER:
            endings = Counter(PurePosixPath(name).suffix.lower() or "none" for name in names)
            shown = [f"{ending} {count:,}" for ending, count in endings.most_common(_SHOWN)]
            more = len(endings) - len(shown)
        else:
            places = dict.fromkeys(self._whole_of(name) for name in names)
            shown = list(places)[:_SHOWN]
            more = len(places) - len(shown)
        return f" ({', '.join(shown)}{', ...' if more else ''})"

    def _whole_of(self, name: str) -> str:
        return next((w for w in self.wholes if name == w or name.startswith(f"{w}/")), name)


class Tree(Protocol):
    """Folders and files by their names, relative to a root whose own name is ""."""

    def entries(self, folder: str) -> tuple[list[tuple[str, bool]], list[str]]:
        """Names in a folder: of folders, each with whether it is a link; and of all else.

        Raises:
            OSError: it cannot be read.
        """

    def real(self, folder: str) -> str:
        """What tells whether two folders are one."""

    def head(self, file: str) -> bytes | None:
        """How a file begins; None in a store, which is not read for a listing."""

    def lost(self, file: str) -> bool:
        """Whether a name is a link to what is not there."""


class Disk:
    """A folder on a disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self, folder: str) -> tuple[list[tuple[str, bool]], list[str]]:
        """See `Tree`."""
        folders, files = [], []
        with os.scandir(self._root / folder) as found:
            for entry in found:
                if entry.is_dir():
                    link = entry.is_symlink() or getattr(entry, "is_junction", bool)()
                    folders.append((entry.name, link))
                else:
                    files.append(entry.name)
        return sorted(folders), sorted(files)

    def real(self, folder: str) -> str:
        """See `Tree`."""
        return os.path.realpath(self._root / folder)

    def head(self, file: str) -> bytes:
        """See `Tree`."""
        path = self._root / file
        if not path.is_file():  # a pipe would be read for ever
            return b""
        with suppress(OSError), path.open("rb") as stream:
            return stream.read(4096)
        return b""

    def lost(self, file: str) -> bool:
        """Whether a name is a link to what is not there."""
        path = self._root / file
        return path.is_symlink() and not path.exists()


class Names:
    """Files of a store by their names alone, relative with forward slashes."""

    def __init__(self, names: Collection[str]) -> None:
        self._folders = _folders_inside(names)
        self._files: dict[str, list[str]] = {}
        for name in names:
            folder, _, file = name.rpartition("/")
            self._files.setdefault(folder, []).append(file)

    def entries(self, folder: str) -> tuple[list[tuple[str, bool]], list[str]]:
        """See `Tree`: a store has no links."""
        folders = sorted(self._folders.get(folder, ()))
        return [(name, False) for name in folders], sorted(self._files.get(folder, ()))

    def real(self, folder: str) -> str:
        """See `Tree`."""
        return folder

    def head(self, file: str) -> None:
        """See `Tree`."""
        del file

    def lost(self, file: str) -> bool:
        """Whether a name is a link to what is not there: a store has none."""
        del file
        return False


# --- The walk -------------------------------------------------------------------------------------


def scan(
    folder: str,
    tree: Tree,
    *,
    suffixes: Collection[str] = PHOTO_SUFFIXES,
    masks: bool = False,
    lenient: bool = False,
    apart: Collection[str] = (),
) -> Listing:
    """List the photos of a tree.

    Real folders come first and links to folders after them, so that a photo that can be reached
    without a link is named without one; a folder is listed once, whatever leads to it.

    Args:
        folder: what the tree is called in messages.
        tree: the folder.
        suffixes: endings of the files to list, lower case.
        masks: list the masks of data sets as well.
        lenient: leave out folders that cannot be read, instead of raising.
        apart: names of folders that are left out without a word.

    Raises:
        PhotoError: a folder cannot be read.
    """
    walk = _Walk(tree, frozenset(suffixes), masks=masks)
    root = tree.real("")
    seen: set[str] = set()
    folders, links = deque([("", root)]), deque[str]()
    while folders or links:
        if folders:
            name, real = folders.popleft()
        else:
            name = links.popleft()
            real = tree.real(name)
            if _is_above(real, root):
                walk.leave_out(LISTED, name)
                continue
        if real in seen:
            walk.leave_out(LISTED, name)
            continue
        seen.add(real)
        try:
            inside, files = tree.entries(name)
        except OSError as error:
            if not lenient:
                where = f"{folder}/{name}" if name else folder
                raise PhotoError(
                    f"{where}: the folder cannot be read ({error.strerror}); check its permissions."
                ) from error
            if name:
                walk.leave_out(UNREADABLE, name)
            continue
        if name and _is_own_inside(inside, files):
            walk.leave_out_whole(OWN, name)
            continue
        for child, link in walk.enter(name, inside, files):
            path = _join(name, child)
            if path in apart:
                continue
            if link:
                links.append(path)
            else:
                folders.append((path, os.path.join(real, child)))  # noqa: PTH118 - millions of them
    return Listing(folder, sorted(walk.found), walk.left_out, walk.wholes)


def _is_above(real: str, root: str) -> bool:
    """Whether a folder holds the root, so that whoever follows a link to it goes round."""
    return real == root or root.startswith(real.rstrip(os.sep) + os.sep)


def has_overlays(tree: Tree, folder: str) -> bool:
    """Whether the first picture in a folder or one folder below it is an overlay of a report."""
    with suppress(OSError):
        inside, files = tree.entries(folder)
        for file in files:
            if file.endswith(".png"):
                return OVERLAY.encode() in (tree.head(_join(folder, file)) or b"")
        return any(has_overlays(tree, _join(folder, name)) for name, _ in inside[:1])
    return False


def _is_own_inside(inside: Sequence[tuple[str, bool]], files: Collection[str]) -> bool:
    """Whether a folder with these folders and files in it is one that this package wrote."""
    if SORTED_MARK in files:
        return True
    return "station.txt" in files and bool({"photos", "models"} & {name for name, _ in inside})


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


class _Walk:
    """What the folders of a walk come to, one after the other."""

    def __init__(self, tree: Tree, suffixes: frozenset[str], *, masks: bool) -> None:
        self._tree, self._suffixes, self._masks = tree, suffixes, masks
        self.found: list[str] = []
        self.left_out: dict[str, list[str]] = {}
        self.wholes: list[str] = []

    def leave_out(self, reason: str, *names: str) -> None:
        """Note what is left out."""
        self.left_out.setdefault(reason, []).extend(names)

    def enter(
        self, folder: str, inside: Sequence[tuple[str, bool]], files: Sequence[str]
    ) -> Iterator[tuple[str, bool]]:
        """Take what is in a folder; the folders in it that are to be walked."""
        names = {name for name, _ in inside}
        self._take_files(folder, files)
        beside = {bare_name(name) for name in names}
        labelled = beside & (GOOD_NAMES | _TRAIN | _TEST | {"images"})
        for name, link in inside:
            path = _join(folder, name)
            kind = bare_name(name)
            if name.startswith("."):
                self.leave_out(HIDDEN, path)
            elif name.casefold() in _SYSTEM:
                continue
            elif self._is_own(folder, name, names, files):
                self.leave_out_whole(OWN, path)
            elif not self._masks and (kind in _TRUTH or (kind in _TRUTH_BESIDE and labelled)):
                self.leave_out_whole(MASKS, path)
            else:
                yield name, link

    def _take_files(self, folder: str, files: Sequence[str]) -> None:
        photos = [name for name in files if self._is_wanted(name)]
        own_scores = "_scores.json" in files
        masks = set() if self._masks else _masks_beside(photos)
        for name in files:
            path = _join(folder, name)
            if own_scores and _SCORES.fullmatch(name):
                if name.endswith(".parquet"):
                    self.leave_out(OWN, path)
            elif not self._is_wanted(name):
                self._leave_out_other(path, name)
            elif name.startswith("."):
                self.leave_out(HIDDEN, path)
            elif name in masks:
                self.leave_out(MASKS, path)
            else:
                self.found.append(path)

    def _leave_out_other(self, path: str, name: str) -> None:
        if (
            name.startswith(".")
            or name.casefold() in _SYSTEM
            or name.endswith((".rcp", "report.html"))
            or name in (OVERLAY_SUMS, EXPORT_SUMS)
        ):
            return
        # A name without an ending may be a link to a folder that was taken away.
        self.leave_out(NOWHERE if self._tree.lost(path) else OTHER, path)

    def _is_wanted(self, name: str) -> bool:
        return os.path.splitext(name)[1].lower() in self._suffixes  # noqa: PTH122 - as above

    def _is_own(
        self, folder: str, name: str, beside: Collection[str], files: Collection[str]
    ) -> bool:
        """Whether this package wrote what is in a folder."""
        if name == "overlays":
            report = "report.html" in files and self._says(folder, "report.html", _REPORT)
            return report or OVERLAY_SUMS in files or has_overlays(self._tree, _join(folder, name))
        if name == "sample":
            records = {"model.json", "ensemble.json"} & set(files)
            return any(self._says(folder, record, _EXPORT) for record in records)
        return name in _MAPS and set(beside) >= _MAPS

    def _says(self, folder: str, file: str, what: bytes) -> bool:
        head = self._tree.head(_join(folder, file))
        return head is None or what in head

    def leave_out_whole(self, reason: str, folder: str) -> None:
        """Count the photos of a folder that is left out, without following links."""
        self.wholes.append(folder)
        photos, folders = [], [folder]
        while folders:
            here = folders.pop()
            with suppress(OSError):
                inside, files = self._tree.entries(here)
                photos += [_join(here, name) for name in files if self._is_wanted(name)]
                folders += [_join(here, name) for name, link in inside if not link]
        self.leave_out(reason, *(photos or [folder]))


def _masks_beside(photos: Sequence[str]) -> set[str]:
    """Masks that lie beside their photos: STEM_mask.*, STEM_GT.*, and STEM_label.bmp by a JPEG."""
    stems = {name.rpartition(".")[0]: name for name in photos}
    masks = set()
    for name in photos:
        match = _MASK_FILE.fullmatch(name.rpartition(".")[0])
        if match is None or match[1] not in stems:
            continue
        # A photo of a part's label may well lie beside that of the part.
        if match[2] != "_label" or _ending(name) != _ending(stems[match[1]]):
            masks.add(name)
    return masks


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


# --- Folders on a disk ----------------------------------------------------------------------------


def list_folder(folder: Path, *, masks: bool = False) -> Listing:
    """The photos in a folder and below it, and what was left out.

    Args:
        folder: on a disk.
        masks: list the masks of data sets as well.

    Raises:
        PhotoError: the folder is missing, not a folder, unreadable, or holds no photo.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise PhotoError(f"{folder}: {problem}; give a folder of photos.")
    if folder.resolve().name == "overlays" and has_overlays(Disk(folder), ""):
        raise PhotoError(
            f"{folder}: holds pictures that reconpatch made of photos; give the folder of the "
            "photos themselves."
        )
    found = scan(str(folder), Disk(folder), masks=masks)
    if not found.names:
        left_out = f" {found.sentence}" if found.sentence else ""
        raise PhotoError(
            f"{folder}: no photo in this folder or below; "
            f"files ending in {', '.join(sorted(PHOTO_SUFFIXES))} count.{left_out}"
        )
    return found


def list_photos(folder: Path, *, masks: bool = False) -> list[Path]:
    """All photos in a folder and below it, sorted by their relative POSIX path; see `list_folder`.

    Raises:
        PhotoError: the folder is missing, not a folder, unreadable, or holds no photo.
    """
    return list_folder(folder, masks=masks).paths


def list_good(folder: Path) -> Listing:
    """The photos of a folder that is to hold photos of good parts alone; see `list_folder`.

    Raises:
        PhotoError: as `list_folder`; or the folder holds a labelled data set, with defective photos
            or masks beside the good ones.
    """
    found = list_folder(folder)
    check_good(found)
    return found


def check_good(listing: Listing) -> None:
    """Refuse a labelled data set where photos of good parts are asked for.

    Raises:
        PhotoError: there are folders of training and of test photos, of good and of other ones, of
            defective ones, or masks.
    """
    holds = _labelled(listing)
    if not holds:
        return
    better = [_join(listing.folder, name) for name in _folders_of_good(listing)]
    give = f", such as {' or '.join(better[:_SHOWN])}" if better else ""
    more = ", ..." if len(holds) > _SHOWN else ""
    raise PhotoError(
        f"{listing.folder}: holds {', '.join(holds[:_SHOWN])}{more}, as a labelled data set does, "
        "and photos of good parts alone are asked for; give the folder of the good ones"
        f"{give}."
    )


def _labelled(listing: Listing) -> list[str]:
    """Folders that tell a labelled data set from photos of good parts; none where it is not one."""
    inside = _folders_inside(listing.names)
    telling: list[str] = []
    for folder, names in inside.items():
        kinds = {name: bare_name(name) for name in names}
        good, train, test, bad = (
            [name for name in names if kinds[name] in known]
            for known in (GOOD_NAMES, _TRAIN, _TEST, _DEFECTS)
        )
        others = [name for name in names if not _names_good(name)]
        if train and test:
            telling += [_join(folder, name) for name in (*train, *test)]
        elif bad:
            telling += [_join(folder, name) for name in (*good, *bad)]
        elif good and others:
            telling += [_join(folder, name) for name in (*good, *others)]
    masks = listing.left_out.get(MASKS, ())
    return telling + [w for w in listing.wholes if any(name.startswith(f"{w}/") for name in masks)]


def _names_good(name: str) -> bool:
    """Whether one of the words of a folder's name says that good photos are in it."""
    return any(word in GOOD_NAMES for word in re.split(r"[\W\d_]+", name.casefold()))


def _folders_inside(names: Collection[str]) -> dict[str, list[str]]:
    """The folders in each folder that hold photos, in the order of their names."""
    found: dict[str, dict[str, None]] = {}
    for folder in dict.fromkeys(name.rpartition("/")[0] for name in names):
        while folder:
            above, _, last = folder.rpartition("/")
            found.setdefault(above, {})[last] = None
            folder = above
    return {above: list(inside) for above, inside in sorted(found.items())}


def _folders_of_good(listing: Listing) -> list[str]:
    """Folders that are likely to hold the good photos to fit on: train/good, else train or good."""
    folders = [
        _join(above, name)
        for above, names in _folders_inside(listing.names).items()
        for name in names
    ]
    kinds = {folder: [bare_name(part) for part in folder.split("/")] for folder in folders}
    for fits in (
        lambda parts: parts[-1] in GOOD_NAMES and _TRAIN & set(parts),
        lambda parts: parts[-1] in _TRAIN,
        lambda parts: parts[-1] in GOOD_NAMES,
    ):
        if found := [folder for folder in folders if fits(kinds[folder])]:
            return found
    return []


# --- What this package writes ---------------------------------------------------------------------


def mark_sorted(folder: Path) -> None:
    """Mark a folder that `watch` sorts into, so that no listing from above takes a photo twice.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / SORTED_MARK
    if path.exists():
        return
    with atomic_write(path) as file:
        file.write(b"reconpatch watch sorts photos into this folder: see its --output.\n")
