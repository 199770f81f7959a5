"""Confirmed defects in a fit and an update, small: judged unseen, refused in a sentence each."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import reconpatch
from conftest import GOOD_PHOTOS, RGB, TEACHABLE_FIT, save, scratch_mask, scratched, textured
from reconpatch.cli.main import app
from reconpatch.errors import PhotoError, SettingsError, UpdateRefusedError
from reconpatch.fitting.confirmed import (
    DEFECT_ROWS,
    FOLDS,
    ConfirmedDefect,
    Learned,
    Verdict,
    fold_of,
    is_worth_it,
    place_of,
    with_defects,
)
from reconpatch.fitting.ensemble import fit_members, parts_of
from reconpatch.fitting.model import fit_model
from reconpatch.fitting.options import FitOptions
from reconpatch.fitting.refit import compare_unseen, refit
from reconpatch.fitting.update import update
from reconpatch.method.calibration import Calibration
from reconpatch.method.contrastive_components import NO_PART, DefectPatches
from reconpatch.method.discriminant import discriminant
from reconpatch.method.memory_bank import MemoryBank, nearest_distance
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings, score_patches
from reconpatch.model.check import check_model
from reconpatch.model.ensemble import Ensemble, said_by_members
from reconpatch.model.good_photos import bare_bank
from reconpatch.model.model import Model
from reconpatch.photos.defect_folder import DefectPhoto
from reconpatch.photos.images import Photo, read_photo
from reconpatch.photos.layout import Layout
from reconpatch.photos.listing import list_photos

OPTIONS = FitOptions(weights="random", threads=1)
DEFECTS = 5


def fit(good: Path, **changes: Any) -> Model:
    model = reconpatch.fit(good, **TEACHABLE_FIT | changes)
    assert isinstance(model, Model)
    return model


def read(folder: Path) -> list[Photo]:
    return [read_photo(path) for path in list_photos(folder)]


@pytest.fixture(scope="module")
def defects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scratched parts of two kinds, one of them with its mask; not to be changed."""
    folder = tmp_path_factory.mktemp("confirmed") / "defects"
    for i in range(DEFECTS):
        kind = "scratch" if i < 3 else "dent"
        save(scratched(textured(500 + i)), folder / kind / f"{i}.png")
    mask = scratch_mask().astype(np.uint8) * np.uint8(255)
    save(mask, folder / "ground_truth" / "scratch" / "1_mask.png")
    return folder


@pytest.fixture(scope="module")
def made_alone(good_folder: Path) -> Model:
    return fit(good_folder)


@pytest.fixture(scope="module")
def taught(good_folder: Path, defects: Path) -> Model:
    return fit(good_folder, confirmed=defects)


# --- A fit ---------------------------------------------------------------------------------------


def test_f_is_another_one_and_the_file_says_what_decided(
    made_alone: Model, taught: Model, tmp_path: Path
) -> None:
    learned = taught.provenance["confirmed_defects"]
    assert made_alone.provenance["confirmed_defects"] is None
    assert learned["count"] == DEFECTS
    assert learned["kept"]
    assert learned["share"] == pytest.approx(DEFECTS / (DEFECTS + 8))
    assert learned["auroc_unseen"] >= learned["auroc_alone"]
    assert learned["found_unseen"] == sum(photo["unseen"] > 1 for photo in learned["photos"])
    assert {photo["name"]: photo["place"] for photo in learned["photos"]} == {
        f"{i}.png": "mask" if i == 1 else "map" for i in range(DEFECTS)
    }
    ours, theirs = taught.representation.weight, made_alone.representation.weight
    assert ours is not None
    assert theirs is not None
    np.testing.assert_array_equal(ours[:64], theirs[:64])  # the principal half is that of before
    assert np.abs(ours[64:] - theirs[64:]).max() > 1e-3 * np.abs(theirs[64:]).max()
    taught.save(tmp_path / "taught.rcp")
    assert reconpatch.load(tmp_path / "taught.rcp").fingerprint == taught.fingerprint


def test_the_image_score_asks_for_likeness_to_the_defects(
    made_alone: Model, taught: Model, defects: Path, good_folder: Path, tmp_path: Path
) -> None:
    assert (made_alone.bank.defects, made_alone.settings.scoring.likeness) == (None, 0)
    rows = taught.bank.defects
    assert rows is not None
    assert taught.settings.scoring.likeness == pytest.approx(DEFECTS / (DEFECTS + 8))
    assert (made_alone.bank.discriminant, taught.bank.discriminant.shape) == (None, (129,))
    # They are patches of the defects, by the f of the model.
    patches = np.concatenate([taught.represent(photo) for photo in read(defects)])
    assert nearest_distance(rows, patches).max() < 1e-2 * np.linalg.norm(patches, axis=1).mean()
    assert DEFECTS <= len(rows) <= DEFECTS * DEFECT_ROWS

    taught.save(tmp_path / "taught.rcp")
    loaded = reconpatch.load(tmp_path / "taught.rcp")
    assert isinstance(loaded, Model)
    assert loaded.bank.defects is not None
    np.testing.assert_array_equal(loaded.bank.defects, rows)
    np.testing.assert_array_equal(loaded.bank.discriminant, taught.bank.discriminant)
    photo = read(defects)[0]
    asked = taught.inspect(photo).score
    assert loaded.inspect(photo).score == asked
    unasked = replace(taught.settings.scoring, likeness=0.0)
    found = score_patches(taught.represent(photo), taught.bank, unasked, taught.layout)
    assert asked > found.image_score

    # An update goes on asking, and a fit without defects does not, whatever its settings say.
    updated = update(taught, [read_photo(textured(950), name="new.png")])
    assert isinstance(updated, Model)
    assert updated.bank.defects is rows
    assert updated.bank.discriminant is taught.bank.discriminant
    again = fit_model(good_folder, taught.settings, OPTIONS)
    assert (again.bank.defects, again.settings.scoring.likeness) == (None, 0)


@pytest.mark.parametrize(
    ("patches", "what"),
    [
        (None, "if the score asks"),
        (np.zeros((3, 5), np.float32), "as long as the bank's rows"),
        (np.empty((0, 128), np.float32), "as long as the bank's rows"),
        (np.full((3, 128), np.nan, np.float32), "that are finite"),
    ],
)
def test_a_file_whose_patches_of_defects_cannot_be_is_refused(
    patches: Any, what: str, taught: Model
) -> None:
    assert taught.bank.rows.shape[1] == 128
    check_model(taught)
    with pytest.raises(ValueError, match=what):
        check_model(replace(taught, bank=replace(taught.bank, defects=patches)))


@pytest.mark.parametrize(
    ("side", "what"),
    [
        (np.zeros(128, np.float32), "a discriminant of the defects"),
        (np.zeros(129), "a discriminant of the defects"),
        (np.full(129, np.inf, np.float32), "that is finite"),
    ],
)
def test_a_file_whose_discriminant_cannot_be_is_refused(
    side: Any, what: str, taught: Model
) -> None:
    with pytest.raises(ValueError, match=what):
        check_model(replace(taught, bank=replace(taught.bank, discriminant=side)))


@pytest.mark.parametrize(
    ("before", "after", "worth"),
    [
        ([0.9], [0.9], True),
        ([0.9], [0.8], False),
        ([0.9, 0.8], [0.9, 0.9], True),
        ([0.9, 0.9, 0.9], [0.8, 0.8, 0.8], False),  # each alike: no chance
        # Mean -0.01, standard deviation 0.1, of 4 a standard error of 0.05.
        ([0.9] * 4, [0.9 - 0.01 + x for x in (-0.0866, -0.0866, 0.0866, 0.0866)], True),
        # Mean -0.09 is less than two of them, and -0.11 more.
        ([0.9] * 4, [0.9 - 0.09 + x for x in (-0.0866, -0.0866, 0.0866, 0.0866)], True),
        ([0.9] * 4, [0.9 - 0.11 + x for x in (-0.0866, -0.0866, 0.0866, 0.0866)], False),
    ],
)
def test_f_learns_unless_that_is_clearly_worse(
    before: list[float], after: list[float], worth: bool
) -> None:
    assert is_worth_it(np.array(before), np.array(after)) is worth


def test_a_file_whose_pattern_of_groups_is_no_text_is_refused(taught: Model) -> None:
    for group, fits in ((None, True), (r"p(\d)", True), (5, False)):
        model = replace(taught, provenance={**taught.provenance, "group": group})
        with nullcontext() if fits else pytest.raises(ValueError, match="a pattern that groups"):
            check_model(model)


def test_of_each_defect_a_coreset_of_its_patches_is_kept() -> None:
    f = Representation(np.float32([[2, 0], [0, 1]]))
    many = np.random.default_rng(1).normal(size=(1000, 2)).astype(np.float32)
    one, none = np.float32([[3, 4]]), np.empty((0, 2), np.float32)
    given = [DefectPatches(x, NO_PART) for x in (many, one, none)]
    plain, scoring = bare_bank(np.float32([[0, 0]])), ScoringSettings(top=0.1)
    good = np.random.default_rng(2).normal(size=(3, 40, 2)).astype(np.float32)
    bank, asks = with_defects(plain, f, given, scoring, lambda: good[:, None])
    assert bank.defects is not None
    assert bank.defects.shape == (DEFECT_ROWS + 1, 2)
    assert bank.defects[-1].tolist() == [6, 4]
    assert asks == replace(scoring, likeness=3 / 11)
    # The coreset covers what is left out.
    assert nearest_distance(f(many), bank.defects).max() < 1.5
    assert bank.discriminant is not None
    np.testing.assert_array_equal(bank.discriminant, discriminant(good[:, None], [f(many), f(one)]))
    assert with_defects(plain, f, given[2:], scoring, lambda: good[:, None]) == (plain, scoring)
    # Good patches that are all alike have no side.
    bank, _ = with_defects(plain, f, given, scoring, lambda: np.ones((1, 5, 2), np.float32)[None])
    assert bank.discriminant is not None
    assert bank.discriminant.tolist() == [0, 0, 0]
    for count, power in ((1, 1 / 9), (8, 0.5), (24, 0.5)):  # n / (n + 8), and a half at most
        _, asks = with_defects(plain, f, given[:1] * count, scoring, lambda: good[:, None])
        assert asks.likeness == pytest.approx(power)
    reweighted = ScoringSettings(b=3)
    assert with_defects(plain, f, given, reweighted, lambda: good[:, None]) == (plain, reweighted)


def test_the_threshold_follows_from_good_photos_alone(taught: Model) -> None:
    assert len(taught.photos) == len(taught.calibration.scores) == GOOD_PHOTOS
    assert all(photo.name.startswith("part") for photo in taught.photos)


def test_by_made_defects_alone_each_is_scored_as_by_a_fit_without_any(
    made_alone: Model, taught: Model, defects: Path
) -> None:
    alone = {p["sha256"]: p["alone"] for p in taught.provenance["confirmed_defects"]["photos"]}
    for photo in read(defects):
        expected = made_alone.inspect(photo).score / made_alone.threshold
        assert alone[photo.sha256] == pytest.approx(expected, rel=1e-3)


def test_unseen_is_the_score_by_a_fit_on_the_other_folds(
    good_folder: Path, taught: Model, defects: Path, tmp_path: Path
) -> None:
    learned = taught.provenance["confirmed_defects"]["photos"]
    stand_ins = [
        ConfirmedDefect(p["name"], p["kind"], p["sha256"], i, np.zeros((1, 1), np.float32), None)
        for i, p in enumerate(learned)
    ]
    folds = fold_of(stand_ins, taught.settings.seed)
    fold = folds[1]
    others = tmp_path / "others"
    shutil.copytree(defects, others)
    for photo, its in zip(learned, folds, strict=True):
        if its == fold:
            (others / photo["kind"] / photo["name"]).unlink()
            (
                others / "ground_truth" / photo["kind"] / f"{Path(photo['name']).stem}_mask.png"
            ).unlink(missing_ok=True)
    model = fit(good_folder, confirmed=others)
    if not model.provenance["confirmed_defects"]["kept"]:
        pytest.skip("the other folds alone teach nothing here")
    for photo, its in zip(learned, folds, strict=True):
        if its == fold:
            given = read_photo(defects / photo["kind"] / photo["name"])
            expected = model.inspect(given).score / model.threshold
            assert photo["unseen"] == pytest.approx(expected, rel=1e-3)


def test_defects_of_a_group_are_left_out_together_and_kinds_are_spread() -> None:
    nothing = np.zeros((1, 1), np.float32)
    many = [
        ConfirmedDefect(str(i), "ab"[i % 2], str(i), i // 2 if i < 4 else i, nothing, None)
        for i in range(20)
    ]
    folds = fold_of(many, seed=0)
    assert folds[0] == folds[1]
    assert folds[2] == folds[3]
    assert set(folds) == set(range(FOLDS))
    for kind in "ab":
        of_kind = [fold for fold, d in zip(folds, many, strict=True) if d.kind == kind]
        assert set(of_kind) == set(range(FOLDS))
    assert fold_of(many, seed=0) == folds != fold_of(many, seed=1)
    assert fold_of(many[4:5], seed=0) == [0]


@dataclass
class Version:
    """What `place_of` needs of a version: f is the identity, and the bank one row at the origin."""

    map_threshold: float
    f: Representation = field(default_factory=Representation)
    bank: MemoryBank = field(default_factory=lambda: bare_bank(np.zeros((1, 1), np.float32)))
    turned: bool = False

    @property
    def calibration(self) -> Calibration:
        # Of a single map, the threshold is its maximum.
        one = np.array([self.map_threshold])
        return Calibration(one, one, 0.01, "a map")


@pytest.mark.parametrize("inspected", [False, True])
def test_a_place_is_where_the_map_is_above_its_threshold_or_highest(inspected: bool) -> None:
    distances = np.zeros((20, 20), np.float32)
    distances[3:6, 10:14] = 5.0
    distances[15, 2] = 3.0
    mask = np.ones((20, 20), bool)
    if inspected:
        mask[:, :2] = False
    layout = Layout.whole((20, 20), (160, 160), mask if inspected else None)
    scoring = ScoringSettings(top=0.005, blur=0.0)
    features = distances[mask][:, None]
    defect = ConfirmedDefect("a", "k", "", 0, features, None)
    for threshold, expected in ((2.0, 13), (4.0, 12), (100.0, 12), (0.0, int(mask.sum()))):
        place = place_of(defect, Version(threshold), scoring, layout)
        assert place.shape == (len(features),)
        assert place.sum() == expected
        assert place[features[:, 0] == 5.0].all()
    # Of a map that is above nowhere, as many as the image score is the mean of, ties with them.
    rising = replace(defect, features=np.arange(len(features), dtype=np.float32)[:, None])
    place = place_of(rising, Version(1e6), scoring, layout)
    assert np.flatnonzero(place).tolist() == [len(features) - 2, len(features) - 1]


def test_the_sentence_says_what_was_found_unseen() -> None:
    verdicts = [Verdict(f"{i}", "k", f"{i}", "map", alone=0.5, unseen=1.5) for i in range(2)]
    kept = Learned(True, 0.2, verdicts, 0.75, 0.875)
    assert kept.sentence() == (
        "f learned from confirmed defects beside made ones: of 2 confirmed defects, each left out "
        "when f was learned, 2 are found (image AUROC 87.5%), and 0 by made defects alone (image "
        "AUROC 75.0%)."
    )
    single = Learned(True, 1 / 9, verdicts[:1], 0.75, 0.75).sentence()
    assert single.endswith("1 confirmed defect beside made ones, which alone do not find it.")
    assert replace(kept, kept=False).sentence().startswith("f learned from made defects alone")


def test_a_fit_whose_f_cannot_learn_from_defects_is_refused(
    good_folder: Path, defects: Path
) -> None:
    for changes in ({"method": "patchcore"}, {"init": "relevant_components"}, {"steps": 3}):
        with pytest.raises(SettingsError, match="teach the f of the default recipe"):
            fit(good_folder, confirmed=defects, **changes)
    with pytest.raises(SettingsError, match="learned in one process"):
        fit(good_folder, confirmed=defects, on="ray")
    one_cannot = {"recipe": "paper", "size": [64, 96], "confirmed": defects}
    with pytest.raises(SettingsError, match="teach the f of the default recipe"):
        reconpatch.fit(good_folder, weights="random", **one_cannot)


def test_a_good_photo_among_the_defects_is_refused(
    good_folder: Path, defects: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(defects, wrong)
    shutil.copy(good_folder / "part003.png", wrong / "dent" / "x.png")
    with pytest.raises(PhotoError, match=r"x\.png is given as a confirmed defect.*part003\.png"):
        fit(good_folder, confirmed=wrong)


# --- Kinds ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_kinds(good_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of five scratched parts, five with a dark spot, and three of no kind."""
    folder = tmp_path_factory.mktemp("kinds")
    given: list[DefectPhoto] = []
    for i in range(13):
        part = textured(600 + i)
        kind = "scratch" if i < 5 else "spot" if i < 10 else ""
        pixels = spotted(part, 4 * i) if kind == "spot" else scratched_at(part, 6 * i - 20)
        given.append(DefectPhoto(save(pixels, folder / f"{i}.png"), kind, name=f"part {i}"))
    return fit(good_folder, confirmed=given)


def spotted(photo: RGB, at: int = 28) -> RGB:
    dark = photo.copy()
    dark[60:80, at : at + 20] = 0
    return dark


def scratched_at(photo: RGB, down: int = 0) -> RGB:
    mask = np.roll(scratch_mask(), down, axis=0)
    return np.where(mask[:, :, None], np.uint8(255), photo)


def test_a_verdict_names_the_kind_of_confirmed_defect_that_it_is_like(of_kinds: Model) -> None:
    said = of_kinds.provenance["defect_kinds"]
    assert {name: kind["parts"] for name, kind in said["kinds"].items()} == {
        "scratch": 5,
        "spot": 5,
    }
    assert (said["own"], said["another"]) == (10 - said["none"], 0)
    assert "part 11" in [p["name"] for p in of_kinds.provenance["confirmed_defects"]["photos"]]
    for paint, name in ((scratched, "scratch"), (spotted, "spot")):
        results = [of_kinds.inspect(paint(textured(seed))) for seed in range(650, 655)]
        kinds = [result.kind for result in results]
        assert [kind and kind.name for kind in kinds] == [name] * 5
        assert sum(kind is not None and kind.near for kind in kinds) >= 3  # by a limit of 5 parts
        for result, kind in zip(results, kinds, strict=True):
            assert kind is not None
            assert result.to_dict()["kind"] == kind.to_dict()
            assert kind.similarity <= 1
            assert kind.similarity > 0.1 or not kind.near
    other = textured(651)
    other[20:76, 20:76] = [255, 0, 255]
    unlike = of_kinds.inspect(other).kind
    assert unlike is not None
    assert unlike.label == "none of these"
    photos = (of_kinds.inspect(textured(seed)) for seed in range(652, 672))
    good = next(photo for photo in photos if not photo.anomalous)  # of 8 photos' threshold
    assert good.kind is None


def test_similarity_is_that_of_the_photos_worst_patches(of_kinds: Model) -> None:
    photo = read_photo(scratched(textured(650)))
    r, kinds = of_kinds.represent(photo), of_kinds.defect_kinds
    assert kinds is not None
    distances, _ = of_kinds.bank.nearest(r)
    worst = np.argsort(-distances, kind="stable")[:16]
    worst = worst[distances[worst] > of_kinds.calibration.map_threshold.value]
    to_kind = [
        np.linalg.norm(kinds.rows[kinds.kind == 0] - r[i], axis=1).min() for i in worst
    ]  # scratch
    result = of_kinds.inspect(photo)
    assert result.kind is not None
    expected = 1 - np.mean(to_kind) / distances[worst].mean()
    assert result.kind.similarity == pytest.approx(expected, abs=1e-4)


def test_kinds_stay_with_the_model(of_kinds: Model, tmp_path: Path) -> None:
    photo = scratched(textured(650))
    expected = of_kinds.inspect(photo).kind
    of_kinds.save(tmp_path / "part.rcp")
    assert reconpatch.load(tmp_path / "part.rcp").inspect(photo).kind == expected
    updated = update(of_kinds, [], confirmed=[read_photo(textured(700))]).with_threshold(1.0)
    assert updated.inspect(photo).kind is not None
    printed = CliRunner().invoke(
        app, ["inspect", str(tmp_path / "part.rcp"), str(save(photo, tmp_path / "x.png"))]
    )
    assert f"  kind: {expected}" in printed.stdout


def test_of_tiles_the_worst_patches_are_those_of_the_whole_photo(
    good_folder: Path, of_kinds: Model
) -> None:
    tiled = fit(good_folder, tile=64, overlap=16, method="patchcore")
    kinds = of_kinds.defect_kinds
    rows = tiled.bank.rows[:2]
    assert kinds is not None
    tiled = replace(tiled, defect_kinds=replace(kinds, rows=rows, kind=np.array([0, 1])))
    photo = read_photo(scratched(textured(650)))
    (judged,) = tiled.judge([photo])
    assert judged.worst is not None
    found, _ = tiled.bank.nearest(judged.worst)
    np.testing.assert_allclose(found, np.sort(judged.scores.distances)[::-1][:16], rtol=1e-3)


# --- An update -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_file(made_alone: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "part.rcp"
    made_alone.save(path)
    return path


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["update", *map(str, arguments), "--weights", "random"])


def test_an_update_is_the_fit_that_learns_from_them(
    model_file: Path, made_alone: Model, taught: Model, good_folder: Path, defects: Path
) -> None:
    new = model_file.with_name("new.rcp")
    ran = run(
        model_file, "--good", good_folder, "--defects", defects, "-o", new, "--threads", 1, "--json"
    )
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["relation"] == "parent"
    assert said["f_changed"]
    assert said["confirmed_defects"]["count"] == DEFECTS
    of_each = {change["name"].rpartition("/")[2]: change for change in said["unseen"]["defects"]}
    assert of_each.keys() == {f"{i}.png" for i in range(DEFECTS)}  # the mask is no photo
    for photo in said["confirmed_defects"]["photos"]:
        change = of_each[photo["name"]]
        assert change["new_anomalous"] == (photo["unseen"] > 1)
        assert change["old_anomalous"] == (photo["alone"] > 1)
    updated = reconpatch.load(new)
    assert updated.fingerprint == taught.fingerprint
    assert updated.provenance["parent"] == made_alone.fingerprint
    again = run(
        model_file, "--good", good_folder, "--defects", defects, "-o", new, "--overwrite",
        "--threads", 1,
    )  # fmt: skip
    assert f"Of {DEFECTS} confirmed defects, MODEL finds" in again.stdout


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a good photo is missing", "1 of the 8 good photos of the model, such as part003.png"),
        ("a good photo is a defect", "the same picture is the good photo part003.png"),
        ("a defect is good", "0.png is given as a confirmed defect, and the same picture is the"),
        ("no defects", "there are no defects to learn from"),
        ("no good photos", "give good photos, or confirmed false alarms with --confirmed, or"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_and_nothing_is_written(
    model_file: Path, good_folder: Path, defects: Path, tmp_path: Path, wrong: str, message: str
) -> None:
    good, bad, new = tmp_path / "fit", tmp_path / "defects", tmp_path / "new.rcp"
    shutil.copytree(good_folder, good)
    shutil.copytree(defects, bad)
    if wrong == "a good photo is missing":
        (good / "part003.png").unlink()
    if wrong == "a good photo is a defect":
        shutil.copy(good / "part003.png", bad / "dent")
    if wrong == "a defect is good":
        shutil.copy(bad / "scratch" / "0.png", good / "part900.png")
    options = ["--good", good, "--defects", bad]
    if wrong == "no defects":
        options = options[:2]
    if wrong == "no good photos":
        options = options[2:]
    ran = run(model_file, *options, "-o", new)
    assert ran.exit_code == 2
    assert message in " ".join(ran.output.split())
    assert not new.exists()


def test_false_alarms_that_were_taught_are_asked_for(
    made_alone: Model, good_folder: Path, defects: Path
) -> None:
    alarm = read_photo(textured(700), name="alarm.png")
    model = update(made_alone, [], confirmed=[alarm]).with_threshold(7.0)
    with pytest.raises(PhotoError, match=r"such as alarm\.png, are not given: give them with --co"):
        refit(model, good_folder, defects, OPTIONS)
    new = refit(model, good_folder, defects, OPTIONS, confirmed=[alarm])
    assert [photo.name for photo in new.photos][-1] == "alarm.png"
    assert new.calibration.set_by_hand is None
    assert any("7 was set by hand, in units of the f before" in n for n in new.provenance["notes"])
    assert len(new.calibration.scores) == GOOD_PHOTOS
    assert new.provenance["parent"] == model.fingerprint
    assert new.provenance["confirmed_defects"]["count"] == DEFECTS


@pytest.mark.parametrize("scales", ["as_new", "training"])
def test_every_member_of_an_ensemble_learns(scales: Any, good_folder: Path, defects: Path) -> None:
    def ensemble(confirmed: Path | None = None) -> Ensemble:
        named = TEACHABLE_FIT | {"size": [64, 96], "confirmed": confirmed}
        found = fit_members(good_folder, *parts_of("default", named), scales)
        assert isinstance(found, Ensemble)
        return found

    before, at_once = ensemble(), ensemble(defects)
    new = refit(before, good_folder, defects, OPTIONS)
    assert isinstance(new, Ensemble)
    assert new.provenance["parent"] == before.fingerprint
    assert new.fingerprint == at_once.fingerprint != before.fingerprint
    assert [m.provenance["confirmed_defects"]["count"] for m in new.members] == [DEFECTS] * 2
    assert len(said_by_members(new, ["confirmed_defects"])) == 2

    # An unseen score is the mean of the members' scaled ones, as of any photo.
    photos = read(defects)
    comparison = compare_unseen(before, new, photos, force=True)
    for photo, change in zip(photos, comparison.defects, strict=True):
        of_members = []
        for member, scale in zip(new.members, new.score_scales, strict=True):
            told = member.provenance["confirmed_defects"]
            (one,) = (p for p in told["photos"] if p["sha256"] == photo.sha256)
            ratio = one["unseen" if told["kept"] else "alone"]
            of_members.append((ratio * member.threshold - scale.median) / (1.4826 * scale.mad))
        assert change.new_score == pytest.approx(sum(of_members) / 2)
        assert change.old_score == pytest.approx(before.judge([photo])[0].score)


SHOTS = r"^p(\d+)_"


def shots(folder: Path, name: str) -> Path:
    """The parts of `good_folder`, each two called as shots of one part by the name's pattern."""
    for i in range(GOOD_PHOTOS):
        save(textured(i), folder / name.format(i // 2, i % 2))
    return folder


def test_shots_of_one_part_stay_together_by_the_pattern_of_the_fit(
    tmp_path: Path, defects: Path
) -> None:
    good = shots(tmp_path / "good", "p{}_{}.png")
    model = fit(good, group=SHOTS)
    assert [photo.group for photo in model.photos] == [0, 0, 1, 1, 2, 2, 3, 3]
    new = refit(model, good, defects, OPTIONS)
    assert [photo.group for photo in new.photos] == [photo.group for photo in model.photos]
    assert len(new.calibration.scores) == GOOD_PHOTOS // 2

    renamed = shots(tmp_path / "renamed", "part {}{}.png")
    with pytest.raises(SettingsError, match="give the --group of the fit"):
        refit(model, renamed, defects, OPTIONS)
    by_hand = refit(model, renamed, defects, replace(OPTIONS, group=r"part (\d)\d"))
    assert [photo.group for photo in by_hand.photos] == [photo.group for photo in model.photos]


@pytest.mark.parametrize(("name", "parts"), [("p7_{}.png", 1), ("monday {}.png", 2)])
def test_an_update_groups_by_the_pattern_of_the_fit_where_it_names_a_part(
    name: str, parts: int, tmp_path: Path
) -> None:
    model = fit(shots(tmp_path, "p{}_{}.png"), group=SHOTS)
    new = [read_photo(textured(900 + i), name=name.format(i)) for i in range(2)]
    groups = [photo.group for photo in update(model, new).photos[GOOD_PHOTOS:]]
    assert len(set(groups)) == parts
    assert min(groups) > max(photo.group for photo in model.photos)


# --- Never worse unseen ---------------------------------------------------------------------------


def saying(model: Model, photos: list[Photo], unseen: list[float], **of_model: Any) -> Model:
    """A version whose record says how it scores photos that it had not seen."""
    verdicts = [
        {"sha256": photo.sha256, "unseen": ratio, "alone": 0.0}
        for photo, ratio in zip(photos, unseen, strict=True)
    ]
    learned = {"kept": True, "photos": verdicts, "sentence": ""}
    return replace(model, provenance={**model.provenance, "confirmed_defects": learned}, **of_model)


def test_versions_that_have_not_seen_them_speak_for_the_new_one(made_alone: Model) -> None:
    good, bad = read_photo(textured(900)), read_photo(scratched(textured(901)))
    before = made_alone.inspect(bad)
    assert before.anomalous
    found = compare_unseen(made_alone, saying(made_alone, [good, bad], [1.5, 1.1]), [good, bad])
    assert [(c.old_anomalous, c.new_anomalous) for c in found.defects] == [
        (made_alone.inspect(good).anomalous, True),
        (True, True),
    ]
    assert found.defects[1].old_score == before.score
    assert found.defects[1].new_score == pytest.approx(1.1 * made_alone.threshold)


def test_an_old_version_that_learned_from_a_defect_is_judged_unseen_as_well(
    made_alone: Model,
) -> None:
    bad = read_photo(scratched(textured(901)))
    old = saying(made_alone, [bad], [0.5])
    (change,) = compare_unseen(old, saying(made_alone, [bad], [0.9]), [bad]).defects
    assert not change.old_anomalous
    assert change.old_score == pytest.approx(0.5 * made_alone.threshold)


def test_a_version_that_finds_fewer_unseen_is_refused_unless_forced(made_alone: Model) -> None:
    photos = [read_photo(scratched(textured(901 + i))) for i in range(3)]
    old = saying(made_alone, photos, [1.2, 1.2, 0.8])
    swapped = saying(made_alone, photos, [1.2, 0.9, 1.1])
    comparison = compare_unseen(old, swapped, photos)
    assert len(comparison.missed) == len(comparison.newly_found) == 1
    worse = saying(made_alone, photos, [1.2, 0.9, 0.8])
    with pytest.raises(UpdateRefusedError, match="find 1 fewer of 3 confirmed defects"):
        compare_unseen(old, worse, photos)
    assert len(compare_unseen(old, worse, photos, force=True).missed) == 1
