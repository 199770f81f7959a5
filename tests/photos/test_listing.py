"""One listing of folders: what counts as a photo, what is left out, and what is said of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from conftest import textured
from reconpatch.errors import PhotoError
from reconpatch.photos.listing import (
    HIDDEN,
    LISTED,
    MASKS,
    NOWHERE,
    OTHER,
    OWN,
    SORTED_MARK,
    UNREADABLE,
    Disk,
    Names,
    list_folder,
    list_good,
    list_photos,
    mark_sorted,
    scan,
)
from reconpatch.report.report import ReportContext, ReportWriter
from reconpatch.result import ClosestPatch, Result


def touch(folder: Path, *names: str) -> Path:
    """Empty files in a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write_report(folder: Path, *, closed: bool) -> None:
    """A report of one photo, or one whose run was stopped before its page was written."""
    context = ReportContext("title", "model", 1.0, 1.0, "promise", np.ones(3), {})
    writer = ReportWriter(folder, context)
    closest = ClosestPatch("good.png", (0, 0, 8, 8), (0, 0, 8, 8), 1.0)
    heatmap = np.zeros((96, 96), np.float32)
    writer.add(
        textured(1),
        Result("cut/a.png", 0.5, 1.0, False, 0.5, heatmap, 1.0, (), closest, (0, 0, 96, 96)),
    )
    if closed:
        writer.close()


# Links


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "b.png", "deep/c.png")
    folder = touch(tmp_path / "in", "a.png", "sub/d.png")
    (folder / "day1").symlink_to(tmp_path / "elsewhere")
    (folder / "sub" / "up").symlink_to(folder)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path)  # holds the folder itself
    found = list_folder(folder)
    assert list(found.names) == ["a.png", "day1/b.png", "day1/deep/c.png", "sub/d.png"]
    assert found.left_out == {LISTED: ["sub/up", "day1/back"]}
    assert "links to folders that are listed already: 2 (sub/up, day1/back)" in found.sentence


def test_a_folder_is_listed_once_and_by_its_own_name(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "z/a.png")
    for link in ("a-link", "y-link"):
        (folder / link).symlink_to(folder / "z")
    found = list_folder(folder)
    assert list(found.names) == ["z/a.png"]
    assert found.left_out == {LISTED: ["a-link", "y-link"]}


def test_a_folder_of_nothing_but_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "there", "a.png")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "there")
    assert list_photos(folder) == [folder / "link" / "a.png"]
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    assert list_folder(folder).left_out == {NOWHERE: ["gone"]}


# What is left out


def test_what_is_left_out_is_said_in_one_line_with_counts(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", ".b.png", ".git/c.png", "d.gif", "e.gif", "f.txt", "Thumbs.db")
    found = list_folder(tmp_path)
    assert found.left_out == {HIDDEN: [".b.png", ".git"], OTHER: ["d.gif", "e.gif", "f.txt"]}
    assert found.sentence == (f"Left out of {tmp_path}: {HIDDEN}: 2; {OTHER}: 3 (.gif 2, .txt 1).")
    assert list_folder(touch(tmp_path / "clean", "a.png", ".DS_Store")).sentence == ""


def test_a_folder_that_holds_no_photo_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a.heic")
    with pytest.raises(PhotoError, match=r"no photo in this folder.*by their endings: 1 \(\.heic"):
        list_folder(tmp_path)


@pytest.mark.parametrize("closed", [True, False])
def test_the_overlays_of_a_report_are_no_photos(tmp_path: Path, closed: bool) -> None:
    folder = touch(tmp_path / "in", "a.png", "overlays/mine.png", "page/report.html", "page/b.png")
    write_report(folder / "x" / "report", closed=closed)
    found = list_folder(folder)
    assert list(found.names) == ["a.png", "overlays/mine.png", "page/b.png"]
    assert found.left_out[OWN] == ["x/report/overlays/cut/a.png"]
    assert f"{OWN}: 1 (x/report/overlays)" in found.sentence
    assert OTHER not in found.left_out  # its page and its list of overlays need no word
    with pytest.raises(PhotoError, match="holds pictures that reconpatch made of photos"):
        list_folder(folder / "x" / "report" / "overlays")


def test_a_report_of_an_earlier_version_is_known_by_its_page(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "report/overlays/a.png")
    (tmp_path / "report" / "report.html").write_text("<style>--bar-calibration: red</style>")
    assert list_folder(tmp_path).left_out[OWN] == ["report/overlays/a.png"]


def test_overlays_are_known_by_the_list_of_a_report_and_lists_need_no_word(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "report/overlays/a.png", "report/overlays.sha256", "files.sha256")
    found = list_folder(tmp_path)
    assert list(found.names) == ["a.png"]
    assert found.left_out == {OWN: ["report/overlays/a.png"]}


def test_what_watch_sorts_and_a_station_keeps_is_left_out_from_above(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "sorted/good/b.png", "sorted/mine/c.png")
    mark_sorted(tmp_path / "sorted" / "good")
    touch(tmp_path, "data/station.txt", "data/photos/3f/3f", "data/fits/dropped/0001.png")
    found = list_folder(tmp_path)
    assert list(found.names) == ["a.png", "sorted/mine/c.png"]
    assert set(found.left_out[OWN]) == {"sorted/good/b.png", "data/fits/dropped/0001.png"}
    # What is given itself is looked into.
    assert list_photos(tmp_path / "sorted" / "good") == [tmp_path / "sorted" / "good" / "b.png"]
    assert (tmp_path / "sorted" / "good" / SORTED_MARK).is_file()


def test_maps_of_a_submission_and_the_sample_of_an_export(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.png", "sub/anomaly_images/c/x.tiff", "sub/anomaly_images_thresholded/c/x.png"
    )
    touch(tmp_path, "exported/sample/photo.png", "mine/sample/photo.png", "mine/model.json")
    (tmp_path / "exported" / "model.json").write_text('{"reconpatch_export": 1}')
    found = list_folder(tmp_path)
    assert list(found.names) == ["a.png", "mine/sample/photo.png"]
    assert len(found.left_out[OWN]) == 3


def test_scores_are_no_tables_of_photos(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "results/_scores.json", "results/scores-000001.parquet", "b.parquet")
    for tree in (Disk(tmp_path), Names([p.relative_to(tmp_path).as_posix() for p in
                                        tmp_path.rglob("*") if p.is_file()])):  # fmt: skip
        found = scan("in", tree, suffixes={".png", ".parquet"})
        assert list(found.names) == ["a.png", "b.parquet"]
        assert found.left_out == {OWN: ["results/scores-000001.parquet"]}


@pytest.mark.parametrize("truth", ["ground_truth", "Ground-Truth", "groundtruth"])
def test_masks_are_no_photos(tmp_path: Path, truth: str) -> None:
    touch(tmp_path, "test/cut/a.png", f"{truth}/cut/a_mask.png", "test/cut/b.jpg")
    touch(tmp_path, "flat/c.png", "flat/c_mask.png", "flat/d_GT.png", "flat/d.png")
    touch(tmp_path, "kos/e.jpg", "kos/e_label.bmp", "kos/f.png", "kos/f_label.png")
    found = list_folder(tmp_path)
    assert set(found.left_out[MASKS]) == {
        f"{truth}/cut/a_mask.png", "flat/c_mask.png", "flat/d_GT.png", "kos/e_label.bmp",
    }  # fmt: skip
    assert "kos/f_label.png" in found.names  # a photo of a label is one
    assert len(list_photos(tmp_path, masks=True)) == len(found.names) + 4


def test_masks_that_are_parts_are_photos(tmp_path: Path) -> None:
    touch(tmp_path, "masks/a.png", "respirators/b.png")
    assert list_folder(tmp_path).left_out == {}


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "locked/b.png")
    real = os.scandir

    def forbid(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", forbid)
    with pytest.raises(PhotoError, match=r"locked: the folder cannot be read \(Permission denied"):
        list_folder(tmp_path)
    assert scan("in", Disk(tmp_path), lenient=True).left_out == {UNREADABLE: ["locked"]}


# Labelled data sets


@pytest.mark.parametrize(
    ("names", "better"),
    [
        (["train/good/a.png", "test/good/b.png", "ground_truth/cut/c.png"], ["train/good"]),
        (["train/ok/a.png", "test/ok/b.png", "test/ko/c.png"], ["train/ok"]),
        (["x/train/good/a.png", "x/test_public/bad/b.png"], ["x/train/good"]),
        (["c1/train/good/a.png", "c1/test/cut/b.png", "c2/train/good/a.png"],
         ["c1/train/good", "c2/train/good"]),
        (["good/a.png", "scratch/b.png"], ["good"]),
        (["OK/a.png", "NG/b.png"], ["OK"]),
        (["Data/Images/Normal/a.jpg", "Data/Images/Anomaly/b.jpg", "Data/Masks/Anomaly/b.png"], []),
        (["good/a.png", "masks/a.png"], ["good"]),
    ],
)  # fmt: skip
def test_a_labelled_data_set_is_no_folder_of_good_photos(
    names: list[str], better: list[str], tmp_path: Path
) -> None:
    folder = touch(tmp_path / "root", *names)
    with pytest.raises(PhotoError, match="as a labelled data set does") as refusal:
        list_good(folder)
    for name in better:
        assert f"{folder}/{name}" in str(refusal.value)
        assert list_good(folder / name).names  # what is advised is taken


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png"],
        ["monday/a.png", "tuesday/b.png"],
        ["good/a.png"],
        ["good/a.png", "good_2/b.png", "more-good/c.png"],
        ["test/a.png", "line 2/b.png"],
        ["train/good/a.png", "validation/good/b.png"],
    ],
)
def test_folders_of_good_photos_are_taken(names: list[str], tmp_path: Path) -> None:
    assert list(list_good(touch(tmp_path, *names)).names) == sorted(names)
