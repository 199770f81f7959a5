"""Ensembles: scales by hand, combination against plain loops, one file, one verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import reconpatch
from conftest import SMALL_FIT
from reconpatch.ensemble import MAD_TO_STD, Ensemble, Scale, combine
from reconpatch.errors import SettingsError
from reconpatch.images import list_photos, read_photo
from reconpatch.settings import ensemble_settings_for

BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1")
FIT = SMALL_FIT | {"method": "patchcore", "backbone": BACKBONES}


@pytest.fixture(scope="module")
def ensemble(good_folder: Path) -> Ensemble:
    fitted = reconpatch.fit(good_folder, **FIT)
    assert isinstance(fitted, Ensemble)
    return fitted


def test_scale_by_hand() -> None:
    scale = Scale.of(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert (scale.median, scale.mad) == (3.0, 1.0)  # deviations 2 1 0 1 97
    assert scale(3.0 + MAD_TO_STD) == pytest.approx(1.0)


def test_scale_of_a_normal_sample_is_its_mean_and_standard_deviation() -> None:
    sample = np.random.default_rng(0).normal(5.0, 2.0, 100_000)
    scale = Scale.of(sample)
    assert scale.median == pytest.approx(5.0, abs=0.03)
    assert MAD_TO_STD * scale.mad == pytest.approx(2.0, abs=0.03)


def test_scale_where_most_values_are_equal_takes_the_mean_deviation() -> None:
    values = np.array([1.0, 1.0, 1.0, 1.0, 6.0])
    scale = Scale.of(values)
    assert scale.median == 1.0
    assert scale.mad == pytest.approx(1.0 * 0.6745 / 0.7979)  # mean of 0 0 0 0 5


def test_scale_where_all_values_are_equal_only_shifts() -> None:
    assert Scale.of(np.full(7, 4.0))(6.5) == pytest.approx(2.5)


def test_score_is_the_mean_of_the_members_modified_z_scores(
    ensemble: Ensemble, defective_photo: Path
) -> None:
    expected = []
    for model in ensemble.members:
        scores = model.good.image_scores
        median = float(np.median(scores))
        mad = float(np.median([abs(s - median) for s in scores]))
        expected.append((model.inspect(defective_photo).score - median) / (1.4826 * mad))
    assert ensemble.inspect(defective_photo).score == pytest.approx(np.mean(expected), rel=1e-6)


def test_map_is_the_mean_of_the_members_modified_z_maps(
    ensemble: Ensemble, defective_photo: Path
) -> None:
    expected = []
    for model in ensemble.members:
        distances = np.concatenate(list(model.good.distances)).astype(np.float64)
        median = np.median(distances)
        mad = np.median(np.abs(distances - median))
        expected.append((model.inspect(defective_photo).heatmap - median) / (1.4826 * mad))
    found = ensemble.inspect(defective_photo).heatmap
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-4, atol=1e-4)


def test_calibration_is_that_of_the_combined_scores(ensemble: Ensemble, good_folder: Path) -> None:
    photos = [read_photo(path) for path in list_photos(good_folder)]
    again = ensemble.calibrated_on(photos).calibration
    np.testing.assert_allclose(again.scores, ensemble.calibration.scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        again.map_maxima, ensemble.calibration.map_maxima, rtol=1e-4, atol=1e-4
    )


def test_a_defect_is_found_and_explained(
    ensemble: Ensemble, good_photo: Path, defective_photo: Path
) -> None:
    result = ensemble.inspect(defective_photo)
    assert result.anomalous
    assert result.regions
    assert result.closest.thumbnail is not None
    assert not ensemble.inspect(good_photo).anomalous


def test_one_file_holds_it_all(ensemble: Ensemble, tmp_path: Path, defective_photo: Path) -> None:
    ensemble.save(tmp_path / "part.rcp")
    loaded = reconpatch.load(tmp_path / "part.rcp", threads=1)
    assert isinstance(loaded, Ensemble)
    assert loaded.fingerprint == ensemble.fingerprint
    ours, theirs = ensemble.inspect(defective_photo), loaded.inspect(defective_photo)
    assert ours.to_dict() == theirs.to_dict()
    np.testing.assert_array_equal(ours.heatmap, theirs.heatmap)
    assert (
        loaded.with_false_alarm_rate(0.2).threshold == ensemble.with_false_alarm_rate(0.2).threshold
    )


def test_the_papers_rule_takes_scores_against_the_whole_bank(
    ensemble: Ensemble, good_folder: Path
) -> None:
    from reconpatch.ensemble import fit_ensemble
    from reconpatch.fitting import FitOptions

    small = {k: v for k, v in FIT.items() if k not in ("weights", "threads", "backbone")}
    members = ensemble_settings_for("default", BACKBONES, **small)
    options = FitOptions(weights="random", threads=1)
    paper = fit_ensemble(good_folder, members, options, "training")
    photos = [read_photo(path) for path in list_photos(good_folder)]
    for model, scale, other in zip(
        paper.members, paper.score_scales, ensemble.score_scales, strict=True
    ):
        scores = np.array([model.score(photo).image_score for photo in photos])
        assert scale == Scale.of(scores)
        assert scale.median < other.median  # a bank that holds the photo knows it too well


def test_members_take_the_papers_ensemble_settings_unless_told_otherwise() -> None:
    members = ensemble_settings_for("paper", ["wide_resnet101_2", "densenet201"], seed=3)
    assert [m.backbone for m in members] == ["wide_resnet101_2", "densenet201"]
    assert {(m.training.dim, m.training.epochs, m.training.learning_rate) for m in members} == {
        (384, 60, 1e-6)
    }
    assert {m.seed for m in members} == {3}
    assert ensemble_settings_for("paper", ["densenet201"], dim=64)[0].training.dim == 64


def test_models_that_do_not_belong_together_are_refused(
    ensemble: Ensemble, good_folder: Path
) -> None:
    with pytest.raises(SettingsError, match="an ensemble of 1 models was given: give two or more"):
        combine(ensemble.members[:1])
    other = reconpatch.fit(list_photos(good_folder)[:5], **(FIT | {"backbone": BACKBONES[0]}))
    with pytest.raises(SettingsError, match="same photos with the same input size"):
        combine([ensemble.members[0], other.members[0]])
    with pytest.raises(SettingsError, match="--weights names one file"):
        reconpatch.fit(good_folder, **(FIT | {"weights": "one.pth"}))
