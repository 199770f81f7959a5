"""A promise counts distinct parts wherever a threshold is set; folders, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import reconpatch
from conftest import SMALL_FIT, fill, save, scratched, textured
from reconpatch.cli.main import app
from reconpatch.errors import NotEnoughPhotosError, PhotoError
from reconpatch.evaluation.datasets import labelled_photos
from reconpatch.evaluation.evaluate import evaluate
from reconpatch.fitting.update import update
from reconpatch.model.model import Model
from reconpatch.photos.images import read_photo


def blobs(seed: int) -> np.ndarray:
    """A part that looks like no other, 96 x 96."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 215, (7, 7, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((96, 96), Image.Resampling.BICUBIC))


def saved_anew(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.open(source).convert("RGB").save(target, quality=90)
    return target


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 parts; not to be changed."""
    folder = tmp_path_factory.mktemp("parts")
    for seed in range(6):
        save(blobs(seed), folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def model(parts: Path) -> Model:
    """A model of `parts`."""
    return reconpatch.fit(parts, **SMALL_FIT)


def test_a_fit_counts_copies_once(parts: Path, tmp_path: Path) -> None:
    """Each part as PNG and as JPEG, one of them a third time under another name."""
    folder = tmp_path / "twice"
    for path in parts.iterdir():
        save(np.asarray(Image.open(path)), folder / path.name)
        saved_anew(path, folder / f"{path.stem}.jpg")
    saved_anew(parts / "3.png", folder / "again" / "x.webp")
    result = CliRunner().invoke(
        app,
        ["fit", str(folder), "-o", str(tmp_path / "m.rcp"), "--weights", "random", "--size", "64",
         "--set", "steps=2", "--set", "guard=false", "--set", "defects=4", "--threads", "1"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Note: 7 of 13 photos are copies of others" in result.stderr
    assert "13 good photos of 6 different parts" in result.stdout
    assert "look like the 6 of the calibration" in result.stdout
    threshold = reconpatch.load(tmp_path / "m.rcp").calibration.image_threshold
    assert (threshold.photos, threshold.stated_rate) == (6, pytest.approx(1 / 7))


def test_an_ensemble_counts_copies_once(parts: Path, tmp_path: Path) -> None:
    photos = [*sorted(parts.iterdir())[:4]]
    photos.append(saved_anew(photos[0], tmp_path / "copy.jpg"))
    both = reconpatch.fit(photos, **{**SMALL_FIT, "size": [(64, 64), (96, 96)]})
    assert len(both.photos) == 5
    assert len(both.calibration.scores) == len(both.calibration.map_maxima) == 4
    assert "4 different parts" in both.calibration.source


def test_calibrate_counts_copies_once_and_knows_those_of_the_fit(
    model: Model, parts: Path, tmp_path: Path
) -> None:
    new = [save(blobs(seed), tmp_path / f"{seed}.png") for seed in range(10, 14)]
    copies = [saved_anew(path, tmp_path / "copies" / f"{path.stem}.jpg") for path in new]
    once, twice = model.calibrated_on(new), model.calibrated_on([*new, *copies])
    assert (once.calibration.image_threshold.photos, len(twice.calibration.scores)) == (4, 4)
    assert "8 good photos given to calibrate" in twice.calibration.source
    assert "4 different parts" in twice.calibration.source
    # A copy of a photo of the fit is scored without that photo, as the photo itself is.
    known = parts / "2.png"
    of_fit = model.calibrated_on([known]).calibration.scores[0]
    anew = saved_anew(known, tmp_path / "known.jpg")
    assert model.calibrated_on([anew]).calibration.scores[0] > 0.9 * of_fit
    assert model.inspect(anew).score < 0.9 * of_fit


def test_calibrate_joins_shots_by_their_names(model: Model, tmp_path: Path) -> None:
    shots = [save(blobs(20 + i), tmp_path / f"part{i // 2}_{i}.png") for i in range(6)]
    assert len(model.calibrated_on(shots, group=r"part(\d)").calibration.scores) == 3


def test_an_update_passes_over_copies_of_what_the_model_holds(
    model: Model, parts: Path, tmp_path: Path
) -> None:
    old = read_photo(saved_anew(parts / "1.png", tmp_path / "old.jpg"))
    with pytest.raises(NotEnoughPhotosError, match="the model knows all the photos"):
        update(model, [old])
    new = save(blobs(30), tmp_path / "new.png")
    copy = saved_anew(new, tmp_path / "other" / "anew.jpg")
    updated = update(model, [read_photo(path) for path in (new, copy)] + [old])
    assert len(updated.photos) == 8
    assert len(updated.calibration.scores) == 7
    notes = updated.provenance["notes"]
    assert any("1 of 2 photos is a copy of another" in note for note in notes)
    assert any("1 of the new photos, such as old.jpg, add nothing" in note for note in notes)


def test_photos_that_are_all_one_picture_are_refused_before_the_work(tmp_path: Path) -> None:
    for i in range(5):
        pixels = blobs(1).copy()
        pixels[40, 40] = 100 + i
        save(pixels, tmp_path / f"{i}.png")
    with pytest.raises(NotEnoughPhotosError, match="the 5 good photos are all nearly the same"):
        reconpatch.fit(tmp_path, **SMALL_FIT)


def test_photos_that_hardly_differ_give_a_model(tmp_path: Path) -> None:
    """Their threshold is about 0, and engines are not held to a share of that."""
    for i in range(5):
        pixels = blobs(1).copy()
        pixels[20 * i : 20 * i + 3, 40:43] ^= 8
        save(pixels, tmp_path / f"{i}.png")
    assert len(reconpatch.fit(tmp_path, **SMALL_FIT).calibration.scores) == 5


def test_good_photos_from_a_generator(parts: Path) -> None:
    fitted = reconpatch.fit((path for path in sorted(parts.iterdir())), **SMALL_FIT)
    assert len(fitted.photos) == 6


@pytest.mark.parametrize("good", [blobs(1), Image.new("RGB", (64, 64)), None, 3, b"good"])
def test_what_is_no_folder_and_not_several_photos(good: object) -> None:
    with pytest.raises(PhotoError, match=r"cannot be read from one \w+: give a folder, or several"):
        reconpatch.fit(good, **SMALL_FIT)  # type: ignore[arg-type]


def test_one_path_is_no_list(model: Model, parts: Path) -> None:
    for one in (str(parts / "1.png"), parts / "1.png"):
        with pytest.raises(PhotoError, match="give a list of paths"):
            model.inspect_batch(one)  # type: ignore[arg-type]
        with pytest.raises(PhotoError, match="give a list of paths"):
            model.calibrated_on(one)  # type: ignore[arg-type]


# evaluate


def test_evaluate_says_what_the_model_was_fitted_on(
    small_model: Model, good_folder: Path, tmp_path: Path
) -> None:
    known = sorted(good_folder.iterdir())
    for name in ("0.png", "1.png"):
        save(np.asarray(Image.open(known[int(name[0])])), tmp_path / "test" / "good" / name)
    save(textured(50), tmp_path / "test" / "good" / "2.png")
    save(textured(50), tmp_path / "test" / "cut" / "same.png")
    save(scratched(textured(51)), tmp_path / "test" / "cut" / "b.png")
    figures = evaluate(small_model, labelled_photos(tmp_path)[0])
    assert figures.of_the_fit == 2
    assert [Path(name).name for pair in figures.both for name in pair] == ["2.png", "same.png"]
    assert figures.notes[0].startswith("2 of 3 good photos are of the fit")


@pytest.mark.parametrize("name", ["OK", "Good", "pass", "Normal"])
def test_a_folder_that_says_good_is_that_of_the_good_photos(
    name: str, small_model_file: Path, tmp_path: Path
) -> None:
    save(textured(50), tmp_path / "test" / name / "a.png")
    save(scratched(textured(51)), tmp_path / "test" / "NG" / "b.png")
    result = CliRunner().invoke(
        app, ["evaluate", str(small_model_file), str(tmp_path / "test"), "--json"]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["photos"] == {"good": 1, "defective": 1, "masks": 0}
    assert f"{name} counts as the folder of the good photos" in figures["notes"][0]
    assert figures["notes"][0] in result.stderr
    (tmp_path / "test" / "accepted").mkdir()
    save(textured(52), tmp_path / "test" / "accepted" / "c.png")
    with pytest.raises(PhotoError, match="may both hold the good photos"):
        labelled_photos(tmp_path / "test")


# inspect, fit, score


def test_a_report_beside_the_photos_is_not_inspected(
    small_model_file: Path, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "in", [1, 2])
    asked = ["inspect", str(small_model_file), str(folder), "-o", str(folder / "report")]
    first = CliRunner().invoke(app, asked)
    again = CliRunner().invoke(app, [*asked, "--overwrite"])
    assert [r.stdout.splitlines()[-1][-20:] for r in (first, again)] == [
        "2 photos are anomalous"[-20:]
    ] * 2
    assert f"Left out of {folder}: written by reconpatch: 2 (report/overlays)." in again.stderr


def test_a_linked_folder_is_inspected(small_model_file: Path, tmp_path: Path) -> None:
    fill(tmp_path / "there", [1, 2, 3])
    folder = fill(tmp_path / "in", [4])
    (folder / "day1").symlink_to(tmp_path / "there")
    result = CliRunner().invoke(app, ["inspect", str(small_model_file), str(folder)])
    assert "of 4 photos" in result.stdout
    assert "Left out" not in result.stderr


def test_fit_refuses_a_labelled_data_set(tmp_path: Path) -> None:
    fill(tmp_path / "root" / "train" / "good", range(3))
    save(scratched(textured(9)), tmp_path / "root" / "test" / "broken" / "a.png")
    result = CliRunner().invoke(app, ["fit", str(tmp_path / "root"), "-o", str(tmp_path / "m.rcp")])
    assert result.exit_code == 2
    assert f"such as {tmp_path / 'root'}/train/good" in result.stderr.replace("\n", "")
    assert not (tmp_path / "m.rcp").exists()
