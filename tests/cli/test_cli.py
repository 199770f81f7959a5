"""The command line, by exit code, output and what it leaves on the disk."""

from __future__ import annotations

import errno
import json
import operator
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reconpatch
from conftest import (
    GOOD_PHOTOS,
    RGB,
    WAIT,
    fill,
    is_at_scratch,
    save,
    scratch_mask,
    scratched,
    textured,
)
from conftest import command as run
from reconpatch.errors import SettingsError
from reconpatch.evaluation import benchmark
from reconpatch.evaluation.config import load_config
from reconpatch.model.model import Model

# A fit of a second: small photos, few steps, random weights.
QUICK = [
    "--weights", "random", "--bank", "0.2", "--threads", "1",
    "--set", "steps=5", "--set", "batch_size=64", "--set", "dim=16", "--set", "init=identity",
    "--set", "guard=false",
]  # fmt: skip


def fit(folder: Path, output: Path, *arguments: object) -> Any:
    size = [] if "--size" in arguments else ["--size", "64"]
    return run("fit", folder, "-o", output, *QUICK, *size, *arguments)


def console(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "reconpatch.cli", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, encoding="utf-8", timeout=WAIT, **options
    )


def refusal(result: Any) -> str:
    """The one line of an error; nothing else may have come of the command."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)  # no other exception got out
    lines: list[str] = result.stderr.splitlines()
    *progress, message = lines
    assert message.startswith("Error: ")
    assert not [line for line in progress if not re.fullmatch(r"[\w ]+: \d+ of \d+", line)]
    return message.removeprefix("Error: ")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden files included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refuse_to_work(*arguments: object, **options: object) -> None:
    raise AssertionError("work began before the refusal")


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def model_file(small_model_file: Path, tmp_path: Path) -> Path:
    """A copy of the small model's file that a test may change."""
    return Path(shutil.copy(small_model_file, tmp_path / "part.rcp"))


@pytest.fixture
def new_photos(tmp_path: Path, good_photo: RGB, defective_photo: RGB) -> Path:
    """A folder with one defective and one good photo, in this order."""
    save(defective_photo, tmp_path / "new" / "a.png")
    save(good_photo, tmp_path / "new" / "b.png")
    return tmp_path / "new"


# --- Photos that cannot be used -------------------------------------------------------------------


def text_named_png(path: Path) -> None:
    path.write_text("not a picture")


@pytest.fixture
def with_broken(tmp_path: Path) -> Path:
    """A folder of three good photos and a text file named broken.png."""
    folder = fill(tmp_path / "photos", range(3))
    text_named_png(folder / "broken.png")
    return folder


# --- Usage ----------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("fit", "inspect", "evaluate", "calibrate", "info", "demo"):
        assert re.search(rf"\b{command}\b", result.stdout)


def test_without_a_command_the_help_is_shown() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "fit",
        "fit good",
        "fit good -o part.rcp --seed x",
        "fit good -o part.rcp --nonsense",
        "fit good -o part.rcp --white-level 70000",
        "inspect part.rcp",
        "info",
        "demo --test 0",
    ],
)
def test_wrong_usage_is_an_error(arguments: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


# --- fit ------------------------------------------------------------------------------------------


def test_fit_writes_a_model_and_says_what_it_promises(good_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder" / "part.rcp"  # neither folder is there yet
    result = fit(good_folder, output)
    assert result.exit_code == 0
    assert contents(output.parent).keys() == {"part.rcp"}
    model = reconpatch.load(output)
    first, second, third, fourth, fifth, sixth = result.stdout.splitlines()
    assert first.startswith(str(output))
    assert second.startswith(
        "8 good photos, bank 102 rows of 16 numbers"
    )  # 0.2 x 8 photos x 64 places
    assert third.startswith(f"threshold {model.threshold:.4g}. Out of 100 new good photos")
    assert fourth.startswith(f"Of {GOOD_PHOTOS} defects made on good photos, ")
    assert fifth == "f starts from identity, then trained by relaxed contrastive learning."
    assert "turned copies of good photos" in sixth
    assert f"extract features: {GOOD_PHOTOS} of {GOOD_PHOTOS}" in result.stderr.splitlines()


def test_fit_is_the_same_from_python(good_folder: Path, tmp_path: Path, small_model: Model) -> None:
    fit(good_folder, tmp_path / "part.rcp")
    assert reconpatch.load(tmp_path / "part.rcp").fingerprint == small_model.fingerprint


def test_fit_refuses_an_existing_output_before_any_work(
    good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconpatch.fitting.ensemble.fit_model", refuse_to_work)
    output = tmp_path / "part.rcp"
    output.write_text("precious")
    assert "--overwrite" in refusal(fit(good_folder, output))
    assert contents(tmp_path) == {"part.rcp": b"precious"}
    assert "is a folder" in refusal(fit(good_folder, tmp_path))


def test_fit_overwrites_when_told_to(good_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "part.rcp"
    output.write_text("an older model")
    assert fit(good_folder, output, "--overwrite").exit_code == 0
    assert len(reconpatch.load(output).photos) == GOOD_PHOTOS


@pytest.mark.parametrize("step", ["fitting.model.make_representation", "files.os.fsync"])
def test_ctrl_c_leaves_nothing_behind(
    step: str, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"reconpatch.{step}", interrupt)
    result = fit(good_folder, tmp_path / "part.rcp")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Stopped.")
    assert contents(tmp_path) == {}


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("reconpatch.files.os.fsync", refuse)


def test_fit_on_a_full_disk_leaves_what_was_there(
    good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch)
    output = tmp_path / "part.rcp"
    output.write_text("an older model")
    message = refusal(fit(good_folder, output, "--overwrite"))
    assert "part.rcp" in message
    assert "the disk is full" in message
    assert contents(tmp_path) == {"part.rcp": b"an older model"}


def test_fit_refuses_a_missing_folder(tmp_path: Path) -> None:
    assert "missing: does not exist" in refusal(fit(tmp_path / "missing", tmp_path / "part.rcp"))
    assert contents(tmp_path) == {}


def test_fit_refuses_a_bad_photo_and_names_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "good", range(2))
    text_named_png(folder / "bad.png")
    before = contents(tmp_path)
    message = refusal(fit(folder, tmp_path / "part.rcp"))
    assert message.startswith("bad.png: is not a PNG, JPEG")
    assert "--skip-unreadable" in message
    assert contents(tmp_path) == before


def test_fit_skips_unreadable_photos_when_told_to(with_broken: Path, tmp_path: Path) -> None:
    output = tmp_path / "part.rcp"
    result = fit(with_broken, output, "--skip-unreadable")
    assert result.exit_code == 0
    assert "Note: left out: broken.png: is not a PNG" in result.stderr
    assert "extract features: 4 of 4" in result.stderr
    assert [photo.name for photo in reconpatch.load(output).photos] == [
        "part000.png",
        "part001.png",
        "part002.png",
    ]
    assert "left out: broken.png" in run("info", output).stdout


@pytest.mark.parametrize("arguments", [[], ["--group", r"part(\d+)"]])
def test_fit_needs_a_photo_that_can_be_read(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    text_named_png(tmp_path / "good" / "broken.png")
    result = fit(tmp_path / "good", tmp_path / "part.rcp", "--skip-unreadable", *arguments)
    assert "at least two different ones are needed" in refusal(result)


def test_fit_needs_two_different_photos(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(textured(0), tmp_path / "good" / name)
    message = refusal(fit(tmp_path / "good", tmp_path / "part.rcp"))
    assert "the 2 good photos are all nearly the same picture" in message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--recipe", "fast"], "default, paper"),
        (["--method", "magic"], "patchcore"),
        (["--size", "big"], "224, 256x512 (height x width), or auto"),
        (["--size", "8"], "32 to 4096"),
        (["--size", "64", "--size", "96", "--resize", "96"], "different parts of a photo"),
        (["--resize", "32"], "at least 64"),
        (["--levels", "two"], "2,3"),
        (["--bank", "1.5"], "share of all patches"),
        (["--false-alarm-rate", "1"], "between 0 and 1"),
        (["--seed", "-1"], "0 or more"),
        (["--set", "alpha=2"], "0 to 1"),
        (["--set", "seed=1"], "NAME=VALUE"),
        (["--device", "abacus"], "cpu"),
        (["--group", "("], "regular expression"),
        (["--group", "nomatch(.)"], "matches no file name"),
        (["--backbone", "efficientnet_lite_0"], "There is no backbone"),
        (["--weights", "missing.pth"], "There is no weights file missing.pth"),
    ],
)
def test_fit_refuses_settings_that_cannot_be(
    arguments: list[str], reason: str, good_folder: Path, tmp_path: Path
) -> None:
    backbone = ["--levels", "2,3"] if "--backbone" in arguments else []
    message = refusal(fit(good_folder, tmp_path / "part.rcp", *arguments, *backbone))
    assert reason in message
    assert contents(tmp_path) == {}


def test_fit_takes_photos_of_mixed_sizes(tmp_path: Path) -> None:
    for seed, (height, width) in enumerate([(96, 96), (50, 120), (200, 64), (16, 16)]):
        save(textured(seed, height, width), tmp_path / "good" / f"{seed}.png")
    output = tmp_path / "part.rcp"
    assert fit(tmp_path / "good", output).exit_code == 0
    photos = reconpatch.load(output).photos
    assert [(p.height, p.width) for p in photos] == [(96, 96), (50, 120), (200, 64), (16, 16)]
    found = json_lines(run("inspect", output, tmp_path / "good", "--json").stdout)
    assert [(line["height"], line["width"]) for line in found] == [
        (96, 96),
        (50, 120),
        (200, 64),
        (16, 16),
    ]


def test_size_is_height_by_width(good_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "part.rcp"
    assert fit(good_folder, output, "--size", "64x96").exit_code == 0
    preprocessing = reconpatch.load(output).preprocessing
    assert (preprocessing.height, preprocessing.width) == (64, 96)


def test_sizes_given_several_times_make_an_ensemble(good_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "part.rcp"
    fitted = fit(good_folder, output, "--size", "64", "--size", "48x96", "--method", "patchcore")
    assert fitted.exit_code == 0
    assert "tf_efficientnet_lite0 at 48 x 96: extract features: 8 of 8" in fitted.stderr
    assert "calibrate, tf_efficientnet_lite0 at 64 " in fitted.stdout
    assert [m.settings.size for m in reconpatch.load(output).members] == [(64, 64), (48, 96)]
    facts = json.loads(run("info", output, "--json").stdout)
    assert facts["tf_efficientnet_lite0 at 64: settings"]["size"] == [64, 64]
    assert facts["tf_efficientnet_lite0 at 48 x 96: settings"]["size"] == [48, 96]
    assert facts["preprocessing"]["height"] == 48  # 48 x 96 are more pixels than 64 x 64
    page = run("inspect", output, good_folder / "part000.png", "-o", tmp_path / "report")
    assert page.exit_code in (0, 1)
    report = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "64 x 64 pixels; 48 x 96 pixels" in report


def test_what_a_crop_cuts_off_is_not_inspected(good_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "part.rcp"
    assert fit(good_folder, output, "--resize", "80").exit_code == 0
    (line,) = json_lines(run("inspect", output, good_folder / "part000.png", "--json").stdout)
    # 96 pixels become 80, of which 8 are cut off on each side: 8 * 96 / 80 = 9.6 pixels.
    assert line["inspected"] == [10, 10, 86, 86]


def test_thumbnails_can_be_left_out(good_folder: Path, small_model: Model, tmp_path: Path) -> None:
    output = tmp_path / "part.rcp"
    assert fit(good_folder, output, "--no-thumbnails").exit_code == 0
    model = reconpatch.load(output)
    assert len(small_model.thumbnails) == GOOD_PHOTOS
    assert model.thumbnails == ()
    assert model.fingerprint == small_model.fingerprint
    report = run("inspect", output, good_folder / "part000.png", "-o", tmp_path / "report")
    assert report.exit_code == 0


def test_groups_keep_the_shots_of_a_part_together(tmp_path: Path) -> None:
    for seed in range(6):
        save(textured(seed), tmp_path / "good" / f"part{seed // 2}_shot{seed % 2}.png")
    output = tmp_path / "part.rcp"
    assert fit(tmp_path / "good", output, "--group", r"part(\d)").exit_code == 0
    assert [photo.group for photo in reconpatch.load(output).photos] == [0, 0, 1, 1, 2, 2]


def test_settings_are_kept_as_they_were_set(good_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "part.rcp"
    changes = (
        "--method untrained --seed 7 --bank 30 --false-alarm-rate 0.2 --set b=3 --set blur=2.5"
    )
    assert fit(good_folder, output, *changes.split()).exit_code == 0
    model = reconpatch.load(output)
    assert (model.settings.method, model.settings.seed, len(model.bank)) == ("untrained", 7, 30)
    assert (model.settings.scoring.b, model.settings.scoring.blur) == (3, 2.5)
    assert model.settings.training.dim == 16
    # k = ceil((8 + 1) * 0.8) = 8 of 8 photos: 1 of 9 is promised.
    assert model.calibration.image_threshold.stated_rate == pytest.approx(1 / 9)


def camera16(seed: int, white: int) -> Any:
    """A photo of 16 bits of which the camera uses those up to `white`, a power of 2 less 1."""
    grey = textured(seed)[:, :, 0].astype(np.uint16)
    scaled: Any = grey * np.uint16((white + 1) // 256)
    scaled[0, 0] = white
    return scaled


@pytest.mark.parametrize(
    "order", [("8", "12", "10"), ("12", "10", "8"), ("10", "8", "12"), ("10", "10", "12")]
)
def test_the_white_level_covers_all_photos_of_16_bits(
    order: tuple[str, ...], tmp_path: Path
) -> None:
    for seed, bits in enumerate(order):
        photo = textured(seed) if bits == "8" else camera16(seed, 2 ** int(bits) - 1)
        save(photo, tmp_path / "good" / f"{seed}.png")
    output = tmp_path / "part.rcp"
    assert fit(tmp_path / "good", output).exit_code == 0
    assert reconpatch.load(output).preprocessing.white_level == 4095


def test_the_white_level_can_be_given(tmp_path: Path) -> None:
    for seed in range(3):
        save(camera16(seed, 4095), tmp_path / "good" / f"{seed}.png")
    output = tmp_path / "part.rcp"
    assert fit(tmp_path / "good", output, "--white-level", 16383).exit_code == 0
    assert reconpatch.load(output).preprocessing.white_level == 16383


# --- inspect --------------------------------------------------------------------------------------


def test_inspect_says_good_by_exit_code_0(small_model_file: Path, new_photos: Path) -> None:
    result = run("inspect", small_model_file, new_photos / "b.png")
    assert result.exit_code == 0
    line, summary = result.stdout.splitlines()
    assert line.startswith("good")
    assert str(new_photos / "b.png") in line
    assert summary == "0 of 1 photos are anomalous"


def test_inspect_says_anomalous_by_exit_code_1(small_model_file: Path, new_photos: Path) -> None:
    result = run("inspect", small_model_file, new_photos)
    assert result.exit_code == 1
    bad, good, summary = result.stdout.splitlines()
    assert bad.startswith("ANOMALOUS")
    assert good.startswith("good")
    assert summary == "1 of 2 photos is anomalous"


def test_inspect_prints_one_json_object_a_line(small_model_file: Path, new_photos: Path) -> None:
    result = run("inspect", small_model_file, new_photos, "--json")
    assert result.exit_code == 1
    bad, good = json_lines(result.stdout)
    for line in (bad, good):
        assert line.keys() == {
            *("path", "score", "threshold", "anomalous", "p_value", "width", "height"),
            *("inspected", "regions", "closest", "notes", "kind", "whole"),
        }
        assert line["closest"].keys() == {"photo", "box", "patch_box", "distance"}
        assert re.fullmatch(r"part00\d\.png", line["closest"]["photo"])
        assert line["inspected"] == [0, 0, 96, 96]
    assert (bad["path"], good["path"]) == (str(new_photos / "a.png"), str(new_photos / "b.png"))
    assert (bad["anomalous"], good["anomalous"]) == (True, False)
    assert bad["score"] > bad["threshold"] > good["score"]
    assert bad["p_value"] == pytest.approx(1 / (GOOD_PHOTOS + 1))
    assert good["regions"] == []
    region = bad["regions"][0]
    assert region.keys() == {"box", "area", "peak", "peak_value"}
    x, y = region["peak"]
    assert is_at_scratch(x, y)


def test_inspect_agrees_with_python(
    small_model_file: Path, new_photos: Path, small_model: Model
) -> None:
    result = run("inspect", small_model_file, new_photos / "a.png", "--json", "--threads", 1)
    expected = small_model.inspect(new_photos / "a.png")
    assert json_lines(result.stdout) == [json.loads(json.dumps(expected.to_dict()))]


def test_inspect_reports_a_bad_photo_and_goes_on(small_model_file: Path, new_photos: Path) -> None:
    text_named_png(new_photos / "aa.png")
    result = run("inspect", small_model_file, new_photos, "--json")
    assert result.exit_code == 3
    bad, broken, good = json_lines(result.stdout)
    assert (bad["anomalous"], good["anomalous"]) == (True, False)
    assert broken["path"] == str(new_photos / "aa.png")
    assert "is not a PNG, JPEG" in broken["error"]
    assert result.stderr == f"Not inspected: {broken['error']}\n"


def test_inspect_counts_the_photos_it_could_not_read(
    small_model_file: Path, with_broken: Path
) -> None:
    result = run("inspect", small_model_file, with_broken, with_broken / "missing.png")
    assert result.exit_code == 3
    assert result.stdout.splitlines()[-1] == (
        "0 of 3 photos are anomalous; 2 could not be inspected"
    )
    assert "missing.png: does not exist" in result.stderr


def test_the_pixel_limit_can_be_lowered_and_raised(
    small_model_file: Path, new_photos: Path
) -> None:
    photo = new_photos / "b.png"
    refused = run("inspect", small_model_file, photo, "--max-pixels", 96 * 96 - 1)
    assert refused.exit_code == 3
    assert "9,216 pixels, over the limit of 9,215" in refused.stderr
    assert run("inspect", small_model_file, photo, "--max-pixels", 96 * 96).exit_code == 0


def test_inspect_writes_overlays_and_a_report(
    small_model_file: Path, new_photos: Path, tmp_path: Path
) -> None:
    text_named_png(new_photos / "c.png")
    folder = tmp_path / "made" / "report"
    result = run("inspect", small_model_file, new_photos, "-o", folder)
    assert result.exit_code == 3
    assert str(folder / "report.html") in result.stderr
    page = (folder / "report.html").read_text(encoding="utf-8")
    for name in ("a.png", "b.png", "c.png"):
        assert name in page
    overlays = [path for path in (folder / "overlays").rglob("*") if path.is_file()]
    assert len(overlays) == 2
    for path in overlays:
        with Image.open(path) as image:
            assert image.size == (96, 96)


def test_inspect_leaves_an_earlier_report_as_it_is(
    small_model_file: Path, new_photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.html").write_text("an earlier report")
    before = contents(folder)
    message = refusal(run("inspect", small_model_file, new_photos, "-o", folder))
    assert "--overwrite" in message
    assert contents(folder) == before
    again = run("inspect", small_model_file, new_photos, "-o", folder, "--overwrite")
    assert again.exit_code == 1
    assert (folder / "report.html").read_text(encoding="utf-8") != "an earlier report"


def test_inspect_refuses_a_folder_without_photos(small_model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("inspect", small_model_file, tmp_path / "empty", "-o", tmp_path / "report")
    assert "no photo in this folder" in refusal(result)
    assert not (tmp_path / "report").exists()


def test_an_error_of_the_operating_system_is_one_sentence(
    small_model_file: Path, new_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("reconpatch.cli.main._read_or_error", fail)
    assert "Input/output error" in refusal(run("inspect", small_model_file, new_photos))


# --- evaluate -------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A category in MVTec's layout: 3 good photos, 2 with a scratch, and their masks."""
    category = tmp_path / "category"
    fill(category / "test" / "good", range(2000, 2003))
    for seed in (2003, 2004):
        save(scratched(textured(seed)), category / "test" / "scratch" / f"{seed}.png")
        mask = scratch_mask().astype(np.uint8) * 255
        save(mask, category / "ground_truth" / "scratch" / f"{seed}_mask.png")
    return category / "test"


def test_evaluate_prints_the_figures(small_model_file: Path, labelled: Path) -> None:
    result = run("evaluate", small_model_file, labelled)
    assert result.exit_code == 0
    rows = {
        name.strip(): value.strip()
        for name, value in (
            re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines()
        )
    }
    assert rows["photos"] == "3 good, 2 defective, 2 masks"
    assert rows["image AUROC"] == rows["image AP"] == rows["image F1-max (oracle)"] == "100.00 %"
    assert rows.keys() >= {"pixel AUROC", "pixel AP", "AUPRO at 0.3", "time"}
    assert rows["false alarms"].startswith("0 of 3 ")
    assert rows["found: scratch"] == "2 of 2"
    assert "no sign that these photos look different" in result.stderr


def test_evaluate_prints_json(small_model_file: Path, labelled: Path) -> None:
    result = run("evaluate", small_model_file, labelled, "--json")
    assert result.exit_code == 0
    (figures,) = json_lines(result.stdout)
    assert figures["photos"] == {"good": 3, "defective": 2, "masks": 2}
    assert figures["image_auroc"] == figures["image_ap"] == figures["image_f1_max_oracle"] == 1.0
    assert figures["detected"] == {"scratch": {"flagged": 2, "photos": 2}}
    assert figures["false_alarms"] == 0
    assert figures["good_photos_look_different"] is False
    for name in ("pixel_auroc", "pixel_ap", "aupro"):
        assert 0 < figures[name] <= 1


def test_evaluate_without_masks_has_no_pixel_figures(
    small_model_file: Path, labelled: Path
) -> None:
    shutil.rmtree(labelled.parent / "ground_truth")
    (figures,) = json_lines(run("evaluate", small_model_file, labelled, "--json").stdout)
    assert figures["image_auroc"] == 1.0
    assert figures["pixel_auroc"] is figures["pixel_ap"] is figures["aupro"] is None
    assert "pixel AUROC" not in run("evaluate", small_model_file, labelled).stdout


def test_evaluate_refuses_masks_for_some_photos_only(
    small_model_file: Path, labelled: Path, tmp_path: Path
) -> None:
    (labelled.parent / "ground_truth" / "scratch" / "2003_mask.png").unlink()
    result = run("evaluate", small_model_file, labelled, "-o", tmp_path / "report")
    assert "1 of 2 defective photos have a mask" in refusal(result)
    assert not (tmp_path / "report").exists()


def test_evaluate_refuses_a_photo_that_cannot_be_read(
    small_model_file: Path, labelled: Path, tmp_path: Path
) -> None:
    text_named_png(labelled / "good" / "z.png")
    result = run("evaluate", small_model_file, labelled, "-o", tmp_path / "report")
    assert "z.png" in refusal(result)
    assert not (tmp_path / "report" / "report.html").exists()


def test_evaluate_writes_a_report(small_model_file: Path, labelled: Path, tmp_path: Path) -> None:
    result = run("evaluate", small_model_file, labelled, "-o", tmp_path / "report")
    assert result.exit_code == 0
    assert "scratch" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    again = run("evaluate", small_model_file, labelled, "-o", tmp_path / "report")
    assert "--overwrite" in refusal(again)


def test_the_name_of_a_defect_is_printed_as_it_is(small_model_file: Path, labelled: Path) -> None:
    shutil.rmtree(labelled.parent / "ground_truth")
    (labelled / "scratch").rename(labelled / "[bold]")
    result = run("evaluate", small_model_file, labelled)
    assert "found: [bold]" in result.stdout


# --- calibrate ------------------------------------------------------------------------------------


def test_calibrate_for_another_rate(model_file: Path, small_model: Model) -> None:
    result = run("calibrate", model_file, "--false-alarm-rate", 0.5)
    assert result.exit_code == 0
    model = reconpatch.load(model_file)
    # k = ceil((8 + 1) * 0.5) = 5: midway between the fifth and the sixth smallest of 8 scores.
    expected = np.sort(small_model.calibration.scores)[4:6].mean()
    assert model.threshold == pytest.approx(expected)
    first, second = result.stdout.splitlines()
    assert first.startswith(f"threshold {small_model.threshold:.4g} -> {expected:.4g}")
    assert second == model.calibration.promise


def test_calibrate_by_hand_into_another_file(
    small_model_file: Path, small_model: Model, tmp_path: Path
) -> None:
    before = small_model_file.read_bytes()
    output = tmp_path / "made" / "new.rcp"
    result = run("calibrate", small_model_file, "--threshold", 3, "-o", output)
    assert result.exit_code == 0
    assert small_model_file.read_bytes() == before
    assert reconpatch.load(output).threshold == 3.0
    assert "set by hand" in result.stdout
    info = json.loads(run("info", output, "--json").stdout)
    assert info["threshold"]["set by hand"] is True


def test_calibrate_on_other_photos(model_file: Path, tmp_path: Path) -> None:
    later = fill(tmp_path / "later", range(3000, 3004))
    one_more = save(textured(3004), tmp_path / "one.png")
    result = run("calibrate", model_file, later, one_more, "--false-alarm-rate", 0.3)
    assert result.exit_code == 0
    model = reconpatch.load(model_file)
    paths = [*sorted(later.iterdir()), one_more]
    assert model.calibration.scores == pytest.approx([model.inspect(path).score for path in paths])
    assert model.calibration.rate == 0.3
    assert (
        model.calibration.source
        == "5 good photos given to calibrate, each scored as if it were new"
    )
    assert "calibrate: 5 of 5" in result.stderr


def test_calibrate_says_when_good_photos_look_different(model_file: Path, tmp_path: Path) -> None:
    for seed in range(8):
        save(scratched(textured(seed + 4000)), tmp_path / "later" / f"{seed}.png")
    result = run("calibrate", model_file, tmp_path / "later")
    assert result.exit_code == 0
    assert "look different from those that set the threshold" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "nothing to do"),
        (["--threshold", "3", "--false-alarm-rate", "0.1"], "one or the other"),
        (["GOOD", "--threshold", "3"], "one or the other"),
        (["--threshold", "-1"], "0 or more"),
        (["--threshold", "nan"], "0 or more"),
        (["--false-alarm-rate", "0"], "between 0 and 1"),
        (["GOOD", "--false-alarm-rate", "2"], "between 0 and 1"),
        (["missing.png"], "does not exist"),
    ],
)
def test_calibrate_refuses(
    arguments: list[str], reason: str, model_file: Path, good_folder: Path
) -> None:
    before = contents(model_file.parent)
    given = [str(good_folder) if argument == "GOOD" else argument for argument in arguments]
    result = run("calibrate", model_file, *given)
    assert reason in refusal(result)
    assert contents(model_file.parent) == before


def test_calibrate_refuses_an_existing_output_before_any_work(
    model_file: Path, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "calibrated_on", refuse_to_work)
    output = tmp_path / "new.rcp"
    output.write_text("precious")
    assert "--overwrite" in refusal(run("calibrate", model_file, good_folder, "-o", output))
    assert output.read_text() == "precious"


# --- info -----------------------------------------------------------------------------------------


def test_info_shows_settings_threshold_and_provenance(
    small_model_file: Path, small_model: Model
) -> None:
    result = run("info", small_model_file)
    assert result.exit_code == 0
    text = result.stdout
    assert small_model.fingerprint in text
    assert small_model.calibration.promise in text
    for words in ("tf_efficientnet_lite0", "random", "Apache-2.0", "data_sha256", "onnxruntime"):
        assert words in text


def test_info_as_json(small_model_file: Path, small_model: Model) -> None:
    result = run("info", small_model_file, "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["model"]["fingerprint"] == small_model.fingerprint
    assert facts["model"]["good photos"] == GOOD_PHOTOS
    assert facts["threshold"]["image score"] == small_model.threshold
    assert facts["settings"]["size"] == [64, 64]
    assert facts["training"]["steps"] == 5
    assert facts["provenance"]["weights"]["kind"] == "random"


# --- Models that cannot be used -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "evaluate", "calibrate", "info"])
@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_model_that_cannot_be_used_is_refused(
    command: str, damage: str, model_file: Path, new_photos: Path
) -> None:
    content = bytearray(model_file.read_bytes())
    model_file.unlink()
    if damage == "altered":
        content[len(content) // 2] ^= 1
        model_file.write_bytes(content)
    before = contents(model_file.parent)
    arguments = {
        "inspect": [new_photos, "-o", model_file.parent / "report"],
        "evaluate": [new_photos, "-o", model_file.parent / "report"],
        "calibrate": ["--threshold", 3],
        "info": [],
    }[command]
    assert "part.rcp" in refusal(run(command, model_file, *arguments))
    assert contents(model_file.parent) == before


# --- demo -----------------------------------------------------------------------------------------


def test_demo_passes_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def stand_in(folder: Path, *, progress: object, **options: Any) -> Any:
        given.update(options, folder=folder)
        return type("Outcome", (), {"text": "what was found"})

    monkeypatch.setattr("reconpatch.cli.demo.run_demo", stand_in)
    result = run("demo", "-o", tmp_path, "--train", 12, "--test", 3, "--seed", 5)
    assert result.exit_code == 0
    assert result.stdout == "what was found\n"
    assert given == {"folder": tmp_path, "train": 12, "test": 3, "seed": 5}


# --- A process of its own -------------------------------------------------------------------------


def test_results_go_to_stdout_and_messages_to_stderr(
    small_model_file: Path, new_photos: Path, tmp_path: Path
) -> None:
    text_named_png(new_photos / "c.png")
    done = console("inspect", small_model_file, new_photos, "--json", "-o", tmp_path / "report")
    assert done.returncode == 3
    assert len(json_lines(done.stdout)) == 3
    first, second = done.stderr.splitlines()
    assert first.startswith("Not inspected: ")
    assert second.startswith("Report: ")


def test_an_error_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = console("info", tmp_path / "missing.rcp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: there is no model file")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_results_that_cannot_be_written_are_an_error(
    unbuffered: str, small_model_file: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reconpatch.cli", "info", str(small_model_file)],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=WAIT,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_any_file_name_can_be_printed(
    small_model_file: Path, tmp_path: Path, good_photo: RGB
) -> None:
    save(good_photo, tmp_path / "Prüfling № 7.png")
    done = console(
        *("inspect", small_model_file, tmp_path / "Prüfling № 7.png"),
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert r"Pr\xfcfling \u2116 7.png" in done.stdout


# --- benchmark ------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `benchmark` asks for, in place of doing it."""
    given: dict[str, Any] = {}

    def stop(root: Path, **options: Any) -> None:
        given.update(options)
        raise SettingsError("that will do")

    monkeypatch.setattr(benchmark, "run_benchmark", stop)
    return given


@pytest.mark.parametrize(
    ("assignment", "setting", "value"),
    [
        ("size=96", "size", (96, 96)),
        ("size=64x96", "size", (64, 96)),
        ("size=auto", "size", (0, 0)),
        ("size_limit=448", "size_limit", 448),
        ("guard=False", "guard", False),
        ("candidates=5000", "candidates", 5000),
        ("levels=2,3", "levels", (2, 3)),
        ("backbone=tf_efficientnet_lite1", "backbone", "tf_efficientnet_lite1"),
        ("bank=0.05", "bank", 0.05),
        ("bank=500", "bank", 500.0),
        ("false_alarm_rate=0.02", "false_alarm_rate", 0.02),
        ("projection=0", "projection", 0),
        ("neighbourhood=5", "neighbourhood", 5),
        ("alpha=0.3", "training.alpha", 0.3),
        ("k=7", "training.k", 7),
        ("epochs=2", "training.steps", 0),
        ("bias=False", "training.bias", False),
        ("init=pca", "training.init", "pca"),
        ("b=9", "scoring.b", 9),
    ],
)
def test_benchmark_sets_whatever_fit_takes(
    assignment: str, setting: str, value: object, asked: dict[str, Any], tmp_path: Path
) -> None:
    run("benchmark", tmp_path, "-o", tmp_path / "out", "--set", assignment)
    (settings,) = load_config("default").fit_settings("reconpatch", 0, asked["changes"])
    found = operator.attrgetter(setting)(settings)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("siez=64", "and 'siez=64' was given (did you mean size or resize?)"),
        ("bank=-1", "the memory bank's size is -1.0"),
        ("seed=1", "give --seeds"),
    ],
)
def test_benchmark_refuses_settings_that_say_nothing(
    assignment: str, said: str, tmp_path: Path
) -> None:
    done = run("benchmark", tmp_path, "-o", tmp_path / "out", "--set", assignment)
    assert said in refusal(done)
    assert not (tmp_path / "out").exists()


def test_benchmark_takes_several_files_to_put_beside(asked: dict[str, Any], tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    beside = "--beside", files[0], "--beside", files[1]
    run("benchmark", tmp_path, "-o", tmp_path / "out", *beside, "--on", "ray")
    assert (asked["beside"], asked["on"]) == (files, "ray")
