"""Sets of parts: what is missing, or another one, shows in no patch, but in the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reconpatch
from conftest import MISSING, RGB, TRAY_FIT, TRAYS, save, tray
from reconpatch.cli.main import app
from reconpatch.engine.engines import engines_present
from reconpatch.fitting.composition import LEAST_PARTS, SIDES, decide, double
from reconpatch.fitting.update import update
from reconpatch.method.memory_bank import Floats
from reconpatch.model.check import check_model
from reconpatch.model.good_photos import GoodScores, TrainingPhoto
from reconpatch.model.model import Model
from reconpatch.photos.images import read_photo

GRID = (8, 12)
PHOTOS = TRAYS


# --- Pieces doubled ------------------------------------------------------------------------------


def test_a_window_is_copied_over_another() -> None:
    rng = np.random.default_rng(0)
    patches = np.arange(8 * 12, dtype=np.float32)[:, None] * np.float32([1, 10])
    sizes = set()
    for _ in range(200):
        found = double(patches, GRID, rng).reshape(8, 12, 2)
        changed = (found != patches.reshape(8, 12, 2)).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        down, across = len(rows), len(columns)
        assert changed.sum() == down * across  # a rectangle
        sizes |= {down, across}
        # Its patches are those of one window of the photo, in their order.
        window = found[rows[0] : rows[0] + down, columns[0] : columns[0] + across, 0]
        y, x = divmod(int(window[0, 0]), 12)
        np.testing.assert_array_equal(
            window, patches[:, 0].reshape(8, 12)[y : y + down, x : x + across]
        )
        assert not changed[y : y + down, x : x + across].any()  # which stays
    assert sizes == set(range(round(SIDES[0] * 8), round(SIDES[1] * 8) + 1))


def decided(
    photo: Callable[[int], Floats], count: int = PHOTOS, grid: tuple[int, int] = GRID
) -> Any:
    photos = [TrainingPhoto(f"{i}.png", str(i), 8, 8, i) for i in range(count)]
    scores = np.random.default_rng(5).normal(10, 1, count)
    nothing = np.zeros((count, 1), np.float32)
    good = GoodScores(
        np.arange(count), scores, scores, nothing, nothing.astype(np.int32), nothing[:, None],
        nothing, np.stack([photo(i).mean(axis=0) for i in range(count)]),
    )  # fmt: skip
    return decide(photo, photos, good, grid, 0.8, np.random.default_rng(1))


def shuffled(i: int) -> Floats:
    """Half of the patches of one kind and half of another, in any order, with a little noise."""
    rng = np.random.default_rng(i)
    patches = rng.permutation(np.repeat(np.float32([[1, 0, 0], [0, 1, 0]]), 48, axis=0))
    blocks = patches.reshape(8, 12, 3)
    blocks = np.sort(blocks, axis=0) if i % 2 else blocks[:, ::-1]  # not that it mattered where
    return (blocks.reshape(-1, 3) + rng.normal(0, 0.02, (96, 3))).astype(np.float32)


def uneven(i: int) -> Floats:
    """Patches of either kind, from none to all of them."""
    rng = np.random.default_rng(i)
    kinds = (rng.random(96) < rng.random()).astype(int)
    return (np.eye(3, dtype=np.float32)[kinds] + rng.normal(0, 0.02, (96, 3))).astype(np.float32)


def halves(i: int) -> Floats:
    """A left half of one kind, a right half of another."""
    rng = np.random.default_rng(i)
    kinds = np.zeros((8, 12), int)
    kinds[:, 6:] = 1
    patches = np.eye(3, dtype=np.float32)[kinds.ravel()]
    return (patches + rng.normal(0, 0.02, (96, 3))).astype(np.float32)


def test_it_counts_where_photos_are_made_of_the_same() -> None:
    composition, decision = decided(halves)
    assert composition is not None
    assert decision.taken
    assert decision.auroc > 0.75
    assert decision.photos == PHOTOS
    assert "counts beside its patches" in decision.sentence()
    assert composition.units[:2] == pytest.approx(
        [np.random.default_rng(5).normal(10, 1, PHOTOS).mean(),
         np.random.default_rng(5).normal(10, 1, PHOTOS).std()]
    )  # fmt: skip


def test_it_does_not_where_they_are_made_of_anything() -> None:
    composition, decision = decided(uneven)
    assert composition is None
    assert not decision.taken
    assert "does not count" in decision.sentence()


@pytest.mark.parametrize(("count", "grid"), [(LEAST_PARTS - 1, GRID), (PHOTOS, (3, 32))])
def test_few_photos_or_patches_decide_nothing(count: int, grid: tuple[int, int]) -> None:
    assert decided(halves, count, grid) == (None, None)


# --- A fit ---------------------------------------------------------------------------------------


def chipped(photo: RGB, width: int) -> RGB:
    """A white chip, 16 pixels high."""
    changed = photo.copy()
    changed[40:56, 40 : 40 + width] = 255
    return changed


TWO_MISSING = (0, 0, 0, 1, 1, -1, 2, 2, -1)


@pytest.fixture(scope="module")
def good(tray_folder: Path) -> Path:
    return tray_folder


def fitted(good: Path, **options: Any) -> Model:
    model = reconpatch.fit(good, **(TRAY_FIT | options))
    assert isinstance(model, Model)
    return model


@pytest.fixture(scope="module")
def model(tray_model: Model) -> Model:
    return tray_model


def test_a_disc_that_is_missing_is_found_as_a_whole(model: Model, good: Path) -> None:
    assert model.provenance["composition"]["taken"]
    assert model.settings.scoring.composition == 0.8
    patches_alone = fitted(good, composition_weight=0.0)
    assert patches_alone.bank.composition is None
    assert patches_alone.good.means is None
    assert patches_alone.provenance["composition"] is None
    for seed in range(100, 106):
        assert not model.inspect(tray(seed)).anomalous
        for kinds in (MISSING, TWO_MISSING):
            wrong = tray(seed, kinds)
            result = model.inspect(wrong)
            assert result.anomalous
            assert result.whole
            assert result.to_dict()["whole"]
            assert result.regions  # where patches are the most unusual, all the same
            assert not patches_alone.inspect(wrong).anomalous
    # A defect in a place is one in a place.
    result = model.inspect(chipped(tray(100), 4))
    assert result.anomalous
    assert not result.whole


def test_photos_that_are_turned_anyway_have_no_composition(good: Path) -> None:
    turned = fitted(good, turns="always")
    assert turned.bank.composition is None
    assert turned.provenance["composition"] is None


def test_a_photo_of_the_fit_scores_as_new_what_the_threshold_follows(model: Model) -> None:
    for i in (0, 5, PHOTOS - 1):
        photo = read_photo(tray(i), name="again.png")
        judged = model.judge([photo], as_new=True)[0]
        assert judged.score == pytest.approx(model.good.image_scores[i], rel=1e-3)
        assert model.judge([photo])[0].score < judged.score


@pytest.mark.parametrize("engine", engines_present())
def test_a_file_says_the_same_on_every_engine(model: Model, engine: str, tmp_path: Path) -> None:
    model.save(tmp_path / "trays.rcp")
    loaded = reconpatch.load(tmp_path / "trays.rcp", engine=engine, threads=1)
    assert isinstance(loaded, Model)
    assert loaded.fingerprint == model.fingerprint
    ours, theirs = model.bank.composition, loaded.bank.composition
    assert ours is not None
    assert theirs is not None
    for name in ("means", "groups", "first", "scored", "whitening", "units"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for photo in (tray(100), tray(100, MISSING)):
        expected, found = model.inspect(photo), loaded.inspect(photo)
        assert found.score == pytest.approx(expected.score, rel=1e-3)
        assert found.whole == expected.whole


def test_an_update_learns_another_composition(model: Model, tmp_path: Path) -> None:
    # Trays with a disc fewer are good from now on, and nothing else is.
    new = [read_photo(tray(seed, MISSING), name=f"{seed}.png") for seed in range(200, 240)]
    found = update(model, new)
    assert isinstance(found, Model)
    old, grown = model.bank.composition, found.bank.composition
    assert old is not None
    assert grown is not None
    assert len(grown.means) == PHOTOS + 40
    assert grown.units is old.units
    np.testing.assert_array_equal(grown.means[:PHOTOS], old.means)
    assert sum(model.inspect(tray(seed, MISSING)).anomalous for seed in range(300, 306)) == 6
    assert sum(found.inspect(tray(seed, MISSING)).anomalous for seed in range(300, 306)) <= 1
    assert grown.first.tolist() == [*old.first.tolist(), *([True] * 20), *([False] * 20)]
    # Each half holds some of either, so that the threshold stays about where it was.
    assert found.threshold < 1.2 * model.threshold
    for seed in range(300, 304):
        assert found.inspect(chipped(tray(seed), 12)).anomalous
    for i in (0, PHOTOS, PHOTOS + 39):
        photo = new[i - PHOTOS] if i >= PHOTOS else read_photo(tray(i), name="again.png")
        judged = found.judge([photo], as_new=True)[0]
        assert judged.score == pytest.approx(found.good.image_scores[i], rel=2e-2)
    found.save(tmp_path / "grown.rcp")
    assert reconpatch.load(tmp_path / "grown.rcp").fingerprint == found.fingerprint


def test_a_false_alarm_that_is_confirmed_passes_as_a_whole_too(
    model: Model, tmp_path: Path
) -> None:
    wrong = [read_photo(tray(seed, MISSING), name=f"{seed}.png") for seed in (200, 201, 202)]
    assert all(model.inspect(photo).whole for photo in wrong)
    found = update(model, [], confirmed=wrong[:2])
    assert isinstance(found, Model)
    made = found.bank.composition
    assert made is not None
    assert len(made.means) == PHOTOS + 2
    assert found.good.means is not None
    assert len(found.good.means) == len(found.good.image_scores) == PHOTOS
    assert not any(found.inspect(photo).anomalous for photo in wrong[:2])
    found.save(tmp_path / "taught.rcp")
    loaded = reconpatch.load(tmp_path / "taught.rcp", threads=1)
    assert isinstance(loaded, Model)
    assert loaded.bank.composition is not None
    np.testing.assert_array_equal(loaded.bank.composition.groups, made.groups)
    assert loaded.good.means is not None
    np.testing.assert_array_equal(loaded.good.means, found.good.means)
    # One of them turns out to be of those that were chosen without regard to their verdict.
    again = update(loaded, [wrong[1], wrong[2]])
    assert isinstance(again, Model)
    last = again.bank.composition
    assert last is not None
    assert len(again.good.image_scores) == PHOTOS + 2
    assert len(last.means) == PHOTOS + 3
    represented = [model.represent(photo).mean(axis=0) for photo in wrong]
    for row, i in zip(last.means[PHOTOS:], (1, 2, 0), strict=True):
        np.testing.assert_allclose(row, represented[i], atol=1e-4 * np.abs(represented[i]).max())


def test_f_learns_nothing_from_what_is_in_no_place(good: Path, tmp_path: Path) -> None:
    for seed in (400, 401, 402):
        save(tray(seed, MISSING), tmp_path / "missing" / f"{seed}.png")
    alike = fitted(good, confirmed=tmp_path)
    learned = alike.provenance["confirmed_defects"]
    assert (learned["kept"], learned["share"], learned["whole"]) == (False, 0.0, 3)
    assert learned["sentence"] == (
        "f learned from made defects alone: each confirmed defect of 3 is unusual as a whole, and "
        "not in a place that f could learn from."
    )
    assert alike.bank.defects is None
    assert alike.inspect(tray(100, MISSING)).whole
    # A chip is in a place, and a mask says of any defect where it is.
    save(chipped(tray(403), 4), tmp_path / "chip" / "403.png")
    mask = np.zeros((128, 128), np.uint8)
    mask[8:36, 8:36] = 255
    save(mask, tmp_path / "ground_truth" / "missing" / "400_mask.png")
    learned = fitted(good, confirmed=tmp_path).provenance["confirmed_defects"]
    assert (learned["count"], learned["whole"]) == (4, 2)
    assert "2 unusual as a whole, and not in a place, taught it nothing" in learned["sentence"]
    assert learned["share"] in (0.0, 2 / 10)


def test_an_ensemble_says_it_too(good: Path) -> None:
    several = reconpatch.fit(
        good, weights="random", size=[128, 96], bank_least=200, turns="never", made=24, defects=8,
        threads=1,
    )  # fmt: skip
    result = several.inspect(tray(100, MISSING))
    assert result.anomalous
    assert result.whole


def test_the_command_line_says_as_a_whole(model: Model, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    model.save(tmp_path / "trays.rcp")
    save(tray(100, MISSING), tmp_path / "in" / "missing.png")
    save(tray(101), tmp_path / "in" / "whole.png")
    arguments = ["inspect", tmp_path / "trays.rcp", tmp_path / "in", "-o", tmp_path / "out"]
    told = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert told.exit_code == 1
    missing, complete = (
        next(line for line in told.stdout.splitlines() if name in line)
        for name in ("missing.png", "whole.png")
    )
    assert missing.endswith("missing.png  as a whole")
    assert "as a whole" not in complete
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("the photo as a whole: a part may be missing") == 1
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "trays.rcp")])
    assert "What a photo is made of as a whole counts beside its patches" in shown.stdout


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"means": np.zeros((3, 128), np.float32)}, "the mean patch of each good photo"),
        ({"first": np.zeros(3, np.bool_)}, "the half of each good photo"),
        ({"first": np.zeros(PHOTOS, np.int8)}, "the half of each good photo"),
        ({"whitening": np.zeros((128, 127), np.float32)}, "what whitens compositions"),
        ({"whitening": np.full((128, 128), np.nan, np.float32)}, "what whitens compositions"),
        ({"units": np.float32([1, 1, 1])}, "units of compositions"),
        ({"units": np.float32([1, 0, 1, 1])}, "units of compositions above 0"),
        (None, "a composition if the score asks"),
    ],
)
def test_a_file_whose_composition_cannot_be_is_refused(
    change: dict[str, Any] | None, what: str, model: Model
) -> None:
    check_model(model)
    composition = model.bank.composition
    assert composition is not None
    changed = None if change is None else replace(composition, **change)
    with pytest.raises(ValueError, match=what):
        check_model(replace(model, bank=replace(model.bank, composition=changed)))
