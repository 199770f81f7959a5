"""Updates: the bank grows by what is new, scores are those of a slow recount."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

import reconpatch
from conftest import GOOD_PHOTOS, RGB, SMALL_FIT, fill, save, scratch_mask, scratched, textured
from reconpatch.cli.main import app
from reconpatch.errors import NotEnoughPhotosError, SettingsError, UpdateRefusedError
from reconpatch.fitting.update import covering_radius, update
from reconpatch.method.calibration import conformal_threshold
from reconpatch.method.coreset import extend_coreset
from reconpatch.method.scoring import score_patches
from reconpatch.model.difference import check_update, diff
from reconpatch.model.ensemble import Ensemble
from reconpatch.model.good_photos import groups_of_rows
from reconpatch.model.model import Inspector, Model
from reconpatch.photos.images import Photo, read_photo
from reconpatch.photos.listing import list_photos

Floats = npt.NDArray[np.float32]


def photos(pixels: Sequence[RGB], name: str = "new") -> list[Photo]:
    return [read_photo(p, name=f"folder/{name}{i}.png") for i, p in enumerate(pixels)]


def dark(seed: int) -> RGB:
    """A good part with a patch that no part of the fit has."""
    photo = textured(seed)
    photo[:32, :32] //= 3
    return photo


def worn(seed: int) -> RGB:
    """A good part that a model of clean ones calls anomalous: a smudge, a scratch's lesser kin."""
    photo = textured(seed)
    photo[60:80, 60:80] = 255 - photo[60:80, 60:80]
    return photo


@pytest.fixture(scope="module")
def good() -> list[Photo]:
    return photos([dark(seed) for seed in range(100, 104)])


@pytest.fixture(scope="module")
def updated(small_model: Model, good: list[Photo]) -> Model:
    return update(small_model, good)  # type: ignore[return-value]  # a model of a model


@pytest.fixture(scope="module")
def ensemble(good_folder: Path) -> Ensemble:
    fit = SMALL_FIT | {"method": "patchcore", "size": [64, 96]}
    fitted = reconpatch.fit(good_folder, **fit)
    assert isinstance(fitted, Ensemble)
    return fitted


# --- The greedy selection goes on -----------------------------------------------------------------


def slow_picks(features: Floats, centres: Floats, radius: float, most: int | None) -> list[int]:
    picks: list[int] = []
    while most is None or len(picks) < most:
        around = np.concatenate([centres, features[picks]])
        nearest = np.linalg.norm(features[:, None] - around[None], axis=2).min(axis=1)
        if nearest.max() <= radius:
            break
        picks.append(int(nearest.argmax()))
    return picks


@pytest.mark.parametrize("most", [None, 7])
@pytest.mark.parametrize("radius", [0.5, 1.5, 100.0])
def test_picks_are_those_of_the_textbook_loop(radius: float, most: int | None) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(50, 1, (150, 4)).astype(np.float32)
    centres = rng.normal(50, 1, (5, 4)).astype(np.float32)
    nearest = np.linalg.norm(features[:, None] - centres[None], axis=2).min(axis=1)
    picks = extend_coreset(features, nearest, radius, most=most)
    assert picks.tolist() == slow_picks(features, centres, radius, most)


def test_nothing_is_picked_from_nothing() -> None:
    none = np.empty((0, 4), dtype=np.float32)
    assert len(extend_coreset(none, np.empty(0, dtype=np.float32), 1.0)) == 0


# --- The bank ------------------------------------------------------------------------------------


def test_the_old_rows_stay_and_new_photos_are_covered(
    small_model: Model, updated: Model, good: list[Photo]
) -> None:
    old = len(small_model.bank)
    np.testing.assert_array_equal(updated.bank.rows[:old], small_model.bank.rows)
    radius = covering_radius(small_model)
    before = max(small_model.bank.nearest(small_model.represent(p))[0].max() for p in good)
    after = max(updated.bank.nearest(updated.represent(p))[0].max() for p in good)
    assert before > radius >= after
    assert updated.provenance["updated"]["rows"] == len(updated.bank) - old > 0


def test_new_rows_are_the_greedy_picks_and_know_where_they_are_from(
    small_model: Model, updated: Model, good: list[Photo]
) -> None:
    old, r = len(small_model.bank), [small_model.represent(p) for p in good]
    radius = covering_radius(small_model)
    picks = slow_picks(np.concatenate(r), small_model.bank.rows, radius, None)
    rows = updated.bank.rows[old:]
    np.testing.assert_array_equal(rows, np.concatenate(r)[picks])
    for row, photo, place in zip(
        rows, updated.bank.photo[old:], updated.bank.place[old:], strict=True
    ):
        np.testing.assert_array_equal(row, r[photo - GOOD_PHOTOS][place])
    # Each was further from all rows before it than the radius.
    for i in range(old, len(updated.bank)):
        assert np.linalg.norm(updated.bank.rows[:i] - updated.bank.rows[i], axis=1).min() > radius


def test_photos_that_hold_nothing_new_add_no_rows(small_model: Model) -> None:
    wide = replace(small_model, provenance={**small_model.provenance, "updated": {"radius": 1e6}})
    new = update(wide, photos([textured(300)]))
    assert len(new.members[0].bank) == len(small_model.bank)
    assert len(new.photos) == GOOD_PHOTOS + 1
    assert len(new.calibration.scores) == GOOD_PHOTOS + 1


def test_the_radius_is_kept_by_updates(small_model: Model, updated: Model) -> None:
    again = update(updated, photos([worn(200)]))
    assert covering_radius(updated) == covering_radius(again.members[0])
    assert covering_radius(updated) == covering_radius(small_model)


def test_an_unprojected_coreset_has_recorded_its_radius(small_model: Model) -> None:
    settings = replace(small_model.settings, projection=0)
    provenance = {**small_model.provenance, "coreset_radius": 1.25}
    assert covering_radius(replace(small_model, settings=settings, provenance=provenance)) == 1.25


# --- Scores and thresholds -----------------------------------------------------------------------


def test_scores_of_new_photos_are_those_of_a_recount(updated: Model, good: list[Photo]) -> None:
    groups = groups_of_rows(updated.bank, updated.photos)
    for i, photo in enumerate(good, start=GOOD_PHOTOS):
        own = groups == updated.photos[i].group
        rows = np.where(own[:, None], updated.bank.replacements, updated.bank.rows)
        bank = replace(updated.bank, rows=rows)
        scores = score_patches(
            updated.represent(photo), bank, updated.settings.scoring, updated.layout
        )
        assert updated.good.image_scores[i] == pytest.approx(scores.image_score, rel=1e-5)
        np.testing.assert_allclose(updated.good.distances[i], scores.distances, rtol=1e-5)
        drawn = updated.draw(scores.distances).max()
        assert updated.good.map_maxima[i] == pytest.approx(float(drawn), rel=1e-5)
        assert updated.judge([photo], as_new=True)[0].score == pytest.approx(scores.image_score)


def test_a_new_photo_is_not_scored_against_itself(updated: Model, good: list[Photo]) -> None:
    mine = updated.bank.photo == GOOD_PHOTOS
    assert mine.any()
    replacements, own = updated.bank.replacements[mine], updated.represent(good[0])
    apart = np.linalg.norm(replacements[:, None] - own[None], axis=2)
    assert apart.min() > 0


def test_the_threshold_follows_from_all_good_photos(updated: Model) -> None:
    assert len(updated.calibration.scores) == GOOD_PHOTOS + 4
    np.testing.assert_array_equal(updated.calibration.scores, updated.good.image_scores)
    expected = conformal_threshold(updated.good.image_scores, updated.calibration.rate).value
    assert updated.threshold == expected


def test_a_threshold_set_by_hand_stays(small_model: Model, good: list[Photo]) -> None:
    assert update(small_model.with_threshold(7.5), good).threshold == 7.5


def test_a_note_says_where_another_calibration_is_given_up(
    small_model: Model, updated: Model, good: list[Photo]
) -> None:
    assert updated.provenance["notes"] == small_model.provenance["notes"]
    elsewhere = small_model.calibrated_on(photos([textured(s) for s in (400, 401)]))
    *_, note = update(elsewhere, good).provenance["notes"]
    assert note.startswith("The thresholds came from 2 good photos given to calibrate")


# --- False alarms that a person confirmed --------------------------------------------------------


def test_a_confirmed_false_alarm_is_gone_and_sets_no_threshold(small_model: Model) -> None:
    alarm = photos([worn(500)], "alarm")
    assert small_model.judge([alarm[0]])[0].score > small_model.threshold
    new = update(small_model, [], confirmed=alarm).members[0]
    assert new.judge([alarm[0]])[0].score <= new.threshold
    assert len(new.photos) == GOOD_PHOTOS + 1
    assert len(new.calibration.scores) == len(new.good.image_scores) == GOOD_PHOTOS
    reach = min(covering_radius(small_model), small_model.threshold)
    distance, _ = small_model.bank.nearest(small_model.represent(alarm[0]))
    assert len(new.bank) - len(small_model.bank) == (distance > reach).sum()


def test_confirmed_photos_come_last_through_any_number_of_updates(
    small_model: Model, good: list[Photo]
) -> None:
    first = update(small_model, good[:1], confirmed=photos([worn(500)], "alarm"))
    second = update(first, good[1:2], confirmed=photos([worn(501)], "later")).members[0]
    names = [photo.name for photo in second.photos]
    assert names[GOOD_PHOTOS:] == ["new0.png", "new1.png", "alarm0.png", "later0.png"]
    assert len(second.good.image_scores) == GOOD_PHOTOS + 2
    for pixels, name in ((dark(101), "new1.png"), (worn(501), "later0.png")):
        photo = read_photo(pixels)
        nearest = second.bank.nearest(second.represent(photo))
        exact = nearest[1][nearest[0] < 1e-3]
        own = [second.photos[i].name for i in second.bank.photo[exact]]
        assert name in own
    assert len(second.thumbnails) == len(second.photos)


def test_a_confirmed_photo_counts_once_it_is_among_unpicked_ones(small_model: Model) -> None:
    alarm, other = photos([worn(500), worn(501)])
    picked = update(small_model, [], confirmed=[alarm, other])
    both = update(picked, [other]).members[0]
    assert both.provenance["updated"]["confirmed_now_good"] == 1
    assert len(both.photos) == GOOD_PHOTOS + 2
    assert both.photos[GOOD_PHOTOS].sha256 == other.sha256
    assert len(both.bank) == len(picked.members[0].bank)
    expected = both.judge([other], as_new=True)[0].score
    assert both.calibration.scores[GOOD_PHOTOS:] == pytest.approx([expected])


def test_a_photo_among_good_and_confirmed_counts_as_good(small_model: Model) -> None:
    alarm = photos([worn(500)])
    new = update(small_model, alarm, confirmed=alarm)
    assert len(new.photos) == len(new.calibration.scores) == GOOD_PHOTOS + 1


# --- Photos that are known -----------------------------------------------------------------------


def test_known_photos_add_nothing(
    small_model: Model, updated: Model, good: list[Photo], good_folder: Path
) -> None:
    known = [read_photo(path) for path in list_photos(good_folder)]
    again = update(small_model, [*good, *known, *good])
    assert again.fingerprint == updated.fingerprint


@pytest.mark.parametrize("known", [0, 3])
def test_an_update_with_nothing_new_is_refused(
    small_model: Model, good_folder: Path, known: int
) -> None:
    with pytest.raises(NotEnoughPhotosError, match="knows all the photos"):
        update(small_model, [read_photo(p) for p in list_photos(good_folder)[:known]])


def test_shots_of_one_new_part_are_left_out_together(small_model: Model) -> None:
    shots = [
        replace(photo, name=f"part{i // 2}_{i}.png")
        for i, photo in enumerate(photos([dark(seed) for seed in range(4)]))
    ]
    new = update(small_model, shots, group=r"part(\d+)")
    groups = [photo.group for photo in new.photos]
    assert groups == [*range(GOOD_PHOTOS), 8, 8, 9, 9]
    with pytest.raises(SettingsError, match="matches no file name"):
        update(small_model, shots, group=r"cell(\d+)")


# --- What an update leaves alone -----------------------------------------------------------------


def test_the_model_itself_does_not_change(small_model: Model, good: list[Photo]) -> None:
    before = small_model.fingerprint
    new = update(small_model, good)
    assert small_model.fingerprint == before == new.provenance["parent"] != new.fingerprint
    assert new.members[0].engine.graph == small_model.engine.graph
    assert new.members[0].settings == small_model.settings


def test_an_update_is_saved_and_loaded_and_gives_the_same_verdicts(
    updated: Model, tmp_path: Path, defective_photo: RGB
) -> None:
    updated.save(tmp_path / "new.rcp")
    loaded = reconpatch.load(tmp_path / "new.rcp", threads=1)
    assert loaded.fingerprint == updated.fingerprint
    assert loaded.provenance["updated"] == updated.provenance["updated"]
    assert loaded.inspect(defective_photo).score == updated.inspect(defective_photo).score
    assert loaded.inspect(dark(100)).closest.photo.startswith("new")
    assert loaded.inspect(defective_photo).closest.thumbnail is not None


def test_a_model_without_thumbnails_gets_none(small_model: Model, good: list[Photo]) -> None:
    assert update(replace(small_model, thumbnails=()), good).members[0].thumbnails == ()


def test_progress_is_told_of_each_step_to_its_end(small_model: Model, good: list[Photo]) -> None:
    told: dict[str, tuple[int, int]] = {}
    alarms = photos([worn(500)])
    update(small_model, good, confirmed=alarms, progress=lambda s, d, t: told.update({s: (d, t)}))
    assert told == {
        "look at good photos": (4, 4),
        "look at false alarms": (1, 1),
        "add to the memory bank": (1, 1),
        "calibrate": (4, 4),
    }


def test_an_ensemble_is_updated_member_by_member(
    ensemble: Ensemble, good: list[Photo], tmp_path: Path
) -> None:
    new = update(ensemble, good, confirmed=photos([worn(500)], "alarm"))
    assert isinstance(new, Ensemble)
    assert new.score_scales == ensemble.score_scales
    alone = [update(member, good, confirmed=photos([worn(500)], "alarm")) for member in
             ensemble.members]  # fmt: skip
    for ours, theirs in zip(new.members, alone, strict=True):
        np.testing.assert_array_equal(ours.bank.rows, theirs.members[0].bank.rows)
    for i, photo in enumerate(good, start=GOOD_PHOTOS):
        score = new.judge([photo], as_new=True)[0].score
        assert new.calibration.scores[i] == pytest.approx(score, abs=1e-4)
    assert new.provenance["parent"] == ensemble.fingerprint
    assert new.provenance["updated"]["rows"] == sum(
        len(a.bank) - len(b.bank) for a, b in zip(new.members, ensemble.members, strict=True)
    )
    new.save(tmp_path / "new.rcp")
    assert reconpatch.load(tmp_path / "new.rcp").fingerprint == new.fingerprint


# --- Differences ---------------------------------------------------------------------------------


def test_a_difference_tells_what_an_update_added(
    small_model: Model, updated: Model, defective_photo: RGB
) -> None:
    shown = photos([defective_photo, dark(100)], "shown")
    found = diff(small_model, updated, shown)
    assert found.relation == "parent"
    assert found.fingerprints == (small_model.fingerprint, updated.fingerprint)
    assert found.settings == {}
    assert not found.network_changed
    assert not found.f_changed
    assert found.photos_added == ("new0.png", "new1.png", "new2.png", "new3.png")
    assert found.photos_removed == ()
    assert (found.rows_added, found.rows_removed) == (
        len(updated.bank) - len(small_model.bank), 0,
    )  # fmt: skip
    assert found.image_threshold == (small_model.threshold, updated.threshold)
    assert found.false_alarm_rate == (1 / 9, 1 / 13)
    assert found.calibrated_on == (8, 12)
    assert [change.verdict_changed for change in found.verdicts] == [False, True]
    assert found.changed_verdicts[0].new_score == updated.judge([shown[1]])[0].score
    assert json.loads(json.dumps(found.to_dict()))["verdicts"][1]["verdict_changed"] is True


def test_relations(small_model: Model, updated: Model, ensemble: Ensemble) -> None:
    sibling = update(small_model, photos([worn(500)]))
    assert diff(updated, small_model).relation == "child"
    assert diff(updated, sibling).relation == "siblings"
    assert diff(updated, updated).relation == "same"
    assert diff(small_model, ensemble).relation == "unrelated"
    assert diff(updated, small_model).rows_removed == len(updated.bank) - len(small_model.bank)


def test_settings_that_differ_are_named(small_model: Model) -> None:
    settings = replace(small_model.settings, seed=7)
    other = replace(small_model, settings=settings).with_threshold(3.0)
    found = diff(small_model, other)
    assert found.settings == {"seed": (0, 7), "threshold set by hand": (None, 3.0)}
    assert "Setting seed: 0 -> 7." in found.sentences()


def scored(small_model: Model, threshold: float) -> Inspector:
    return small_model.with_threshold(threshold)


def test_an_update_is_checked_on_feedback(small_model: Model) -> None:
    low, mid, high = photos([textured(600), worn(600), scratched(textured(600))])
    scores = [small_model.judge([photo])[0].score for photo in (low, mid, high)]
    assert scores == sorted(scores)
    strict = scored(small_model, scores[0] / 2)
    loose = scored(small_model, (scores[1] + scores[2]) / 2)
    comparison = check_update(strict, loose, [low, mid], [high])
    assert comparison.vanished == (low.name, mid.name)
    assert comparison.missed == ()
    assert comparison.to_dict()["vanished"] == [low.name, mid.name]
    back = check_update(loose, strict, [low], [mid])
    assert (back.new_false_alarms, back.newly_found) == ((low.name,), (mid.name,))
    blind = check_update(loose, loose, [], [mid])  # it was missed before: no reason to refuse
    assert blind.missed_by_both == (mid.name,)


def test_an_update_that_would_miss_a_defect_is_refused_unless_forced(small_model: Model) -> None:
    defects = photos([scratched(textured(seed)) for seed in range(700, 704)], "scratch")
    strict, blind = scored(small_model, 0.0), scored(small_model, 1e9)
    with pytest.raises(UpdateRefusedError, match=r"would miss 4 of 4 .* and 1 more"):
        check_update(strict, blind, [], defects)
    forced = check_update(strict, blind, [], defects, force=True)
    assert forced.missed == tuple(photo.name for photo in defects)


# --- The command line ----------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def shop(tmp_path: Path, small_model_file: Path) -> Path:
    """A folder with a model, new good photos, a false alarm and a defect."""
    (tmp_path / "part.rcp").write_bytes(small_model_file.read_bytes())
    fill(tmp_path / "good", [800, 801])
    save(worn(802), tmp_path / "alarm.png")
    save(scratched(textured(803)), tmp_path / "defects" / "scratch.png")
    return tmp_path


def test_update_and_diff_on_the_command_line(shop: Path) -> None:
    done = run(
        "update", shop / "part.rcp", shop / "good", "-o", shop / "new.rcp", "--confirmed",
        shop / "alarm.png", "--defects", shop / "defects", "--threads", "1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Good photos: 8 -> 11 (3 added, 0 removed)." in done.stdout
    assert "Of 3 good photos, " in done.stdout
    assert "Of 1 defects, 1 are found." in done.stdout
    assert run("inspect", shop / "new.rcp", shop / "alarm.png").exit_code == 0
    assert run("inspect", shop / "new.rcp", shop / "defects").exit_code == 1
    shown = run("diff", shop / "part.rcp", shop / "new.rcp", shop / "alarm.png", "--threads", "1")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("The new version was made from the old one by an update.")
    assert shown.stdout.endswith("1 of 1 verdicts changed\n")
    as_json = run("diff", shop / "part.rcp", shop / "new.rcp", shop / "alarm.png", "--json")
    (line,) = as_json.stdout.splitlines()
    assert json.loads(line)["verdicts"][0]["new_anomalous"] is False
    facts = json.loads(run("info", shop / "new.rcp", "--json").stdout)["provenance"]
    assert facts["updated"]["good_photos"] == 2
    assert facts["parent"] == json.loads(line)["fingerprints"][0]


def test_a_refused_update_writes_nothing_unless_forced(shop: Path) -> None:
    defect = shop / "defects" / "scratch.png"
    command = ("update", shop / "part.rcp", "-o", shop / "new.rcp", "--confirmed", defect,
               "--defects", defect)  # fmt: skip
    refused = run(*command)
    assert refused.exit_code == 2
    assert "would miss 1 of 1 confirmed defects" in refused.stderr
    assert refused.stdout == ""
    assert not (shop / "new.rcp").exists()
    forced = run(*command, "--force", "--json")
    assert forced.exit_code == 0
    assert json.loads(forced.stdout)["feedback"]["missed"] == [str(defect)]
    assert f"Missed from now on: {defect}" in forced.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "new.rcp"], "there is nothing to learn"),
        (["missing.png", "-o", "new.rcp"], "missing.png"),
        (["good", "-o", "part.rcp"], "exists already"),
    ],
)
def test_refusals(
    shop: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(shop)
    refused = run("update", "part.rcp", *arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not (shop / "new.rcp").exists()


def test_what_the_scratch_and_the_smudge_have_in_common() -> None:
    """The smudge is a change that a part of the fit does not have, and smaller than a scratch."""
    assert 0 < (worn(0) != textured(0)).any(axis=2).sum() < scratch_mask().sum()
