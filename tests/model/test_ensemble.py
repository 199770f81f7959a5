"""Ensembles: scales by hand, combination against plain loops, one file, one verdict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

import reconpatch
from conftest import RGB, SMALL_FIT, scratch_mask, scratched, textured
from reconpatch.errors import SettingsError, WeightsError
from reconpatch.fitting.ensemble import members_of
from reconpatch.method.settings import AUTOMATIC, ensemble_settings_for
from reconpatch.model.contents import MAD_TO_STD, Scale
from reconpatch.model.ensemble import Ensemble, combine, member_names
from reconpatch.model.model import Model
from reconpatch.photos.images import Photo, read_photo
from reconpatch.photos.listing import list_photos
from reconpatch.photos.preprocessing import Preprocessing

BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1")
FIT = SMALL_FIT | {"method": "patchcore", "backbone": BACKBONES}


@pytest.fixture(scope="module")
def ensemble(good_folder: Path) -> Ensemble:
    fitted = reconpatch.fit(good_folder, **FIT)
    assert isinstance(fitted, Ensemble)
    return fitted


@pytest.fixture(scope="module")
def two_sizes(good_folder: Path) -> Ensemble:
    """Members of one backbone at 64 x 64 and at 96 x 96 pixels."""
    fitted = reconpatch.fit(good_folder, **(FIT | {"backbone": BACKBONES[0], "size": [64, 96]}))
    assert isinstance(fitted, Ensemble)
    return fitted


@pytest.fixture(scope="module")
def wide_photo() -> Photo:
    """A scratched part of 120 x 200 pixels, the size of neither member nor any good photo."""
    return read_photo(scratched(textured(1000, 120, 200)))


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
    from reconpatch.fitting.ensemble import AGAIN, fit_ensemble
    from reconpatch.fitting.options import FitOptions

    small = {k: v for k, v in FIT.items() if k not in ("weights", "threads", "backbone")}
    members = ensemble_settings_for("default", BACKBONES, **small)
    seen: list[tuple[int, int]] = []
    options = FitOptions(
        weights="random", threads=1,
        progress=lambda step, done, total: seen.append((done, total)) if step == AGAIN else None,
    )  # fmt: skip
    paper = fit_ensemble(good_folder, members, options, "training")
    # It takes a pass over the photos of its own, which is told.
    assert seen == [(done, 8) for done in range(1, 9)]
    assert paper.provenance["seconds"][AGAIN] > 0
    assert AGAIN not in ensemble.provenance["seconds"]
    photos = [read_photo(path) for path in list_photos(good_folder)]
    for model, scale, other in zip(
        paper.members, paper.score_scales, ensemble.score_scales, strict=True
    ):
        scores = np.array([model.judge([photo])[0].scores.image_score for photo in photos])
        assert scale == Scale.of(scores)
        # A bank that holds the photo knows it too well.
        assert scores.mean() < model.good.image_scores.mean()
        assert scale != other


def test_members_take_the_papers_ensemble_settings_unless_told_otherwise() -> None:
    members = ensemble_settings_for("paper", ["wide_resnet101_2", "densenet201"], seed=3)
    assert [m.backbone for m in members] == ["wide_resnet101_2", "densenet201"]
    assert {(m.training.dim, m.training.epochs, m.training.learning_rate) for m in members} == {
        (384, 60, 1e-6)
    }
    assert {m.seed for m in members} == {3}
    assert ensemble_settings_for("paper", ["densenet201"], dim=64)[0].training.dim == 64


def test_members_own_settings_go_before_those_of_all() -> None:
    members = ensemble_settings_for(
        "default", ["resnet18", {"size": 448, "seed": 2}], seed=1, backbone="densenet201"
    )
    assert [(m.backbone, m.size, m.seed) for m in members] == [
        ("resnet18", AUTOMATIC, 1),
        ("densenet201", (448, 448), 2),
    ]


def test_models_that_do_not_belong_together_are_refused(
    ensemble: Ensemble, good_folder: Path
) -> None:
    with pytest.raises(SettingsError, match="an ensemble of 1 models was given: give two or more"):
        combine(ensemble.members[:1])
    other = reconpatch.fit(list_photos(good_folder)[:5], **(FIT | {"backbone": BACKBONES[0]}))
    with pytest.raises(SettingsError, match="not fitted on the same photos"):
        combine([ensemble.members[0], other.members[0]])
    brighter = replace(ensemble.members[0], preprocessing=Preprocessing(64, 64, white_level=4095))
    with pytest.raises(SettingsError, match="white levels 4095, 65535: fit them with one"):
        combine([ensemble.members[0], brighter])
    with pytest.raises(SettingsError, match="--weights names one file"):
        reconpatch.fit(good_folder, **(FIT | {"weights": "one.pth"}))


@pytest.mark.parametrize(
    ("one", "other", "given"),
    [
        (Preprocessing(64, 64), Preprocessing(64, 64, 80), "64 with resize 0, 64 with resize 80"),
        (Preprocessing(64, 64, 96), Preprocessing(64, 64, 80), "64 with resize 96"),
        (Preprocessing(64, 64, 96), Preprocessing(64, 96, 96), "64 x 96 with resize 96"),
    ],
)
def test_members_that_see_different_parts_of_a_photo_are_refused(
    one: Preprocessing, other: Preprocessing, given: str, ensemble: Ensemble
) -> None:
    first, second = ensemble.members
    with pytest.raises(SettingsError, match=rf"different parts of a photo \(.*{given}.*resize 0"):
        combine([replace(first, preprocessing=one), replace(second, preprocessing=other)])


def test_different_parts_of_a_photo_are_refused_before_the_fit(
    good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit_model(*_: object) -> None:
        raise AssertionError("a member was fitted")

    monkeypatch.setattr("reconpatch.fitting.ensemble.fit_model", fit_model)
    with pytest.raises(SettingsError, match="different parts of a photo"):
        reconpatch.fit(good_folder, size=[64, 96], resize=96)


def test_one_file_of_weights_serves_all_sizes_of_a_backbone(good_folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file missing\.pth"):
        reconpatch.fit(good_folder, size=[64, 96], weights="missing.pth")


# --- Which members --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "size", "expected"),
    [
        (None, None, [{}]),
        ("a", None, [{"backbone": "a"}]),
        ("a", (64, 96), [{"backbone": "a", "size": (64, 96)}]),
        (["a"], [64], [{"backbone": "a", "size": 64}]),
        (("a", "b"), None, [{"backbone": "a"}, {"backbone": "b"}]),
        (None, [64, (64, 96)], [{"size": 64}, {"size": (64, 96)}]),
        ("a", [64, 96], [{"backbone": "a", "size": 64}, {"backbone": "a", "size": 96}]),
        (["a", "b"], 64, [{"backbone": "a", "size": 64}, {"backbone": "b", "size": 64}]),
        (["a", "b"], [64, 96], [{"backbone": "a", "size": 64}, {"backbone": "b", "size": 96}]),
    ],
)
def test_members_by_backbone_and_size(
    backbone: Any, size: Any, expected: list[dict[str, Any]]
) -> None:
    assert members_of(backbone, size) == expected


@pytest.mark.parametrize(
    ("backbone", "size", "given"),
    [
        (["a", "b"], [64, 96, 128], "2 backbones and 3 sizes were given: give as many"),
        (["a", "b"], [], "2 backbones and 0 sizes"),
        (None, [], "0 sizes were given"),
        ([], 64, "0 backbones and 1 size were given"),
    ],
)
def test_backbones_and_sizes_that_do_not_go_together_are_refused(
    backbone: Any, size: Any, given: str
) -> None:
    with pytest.raises(SettingsError, match=given):
        members_of(backbone, size)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ([{"size": 64}, {"size": (64, 96)}, {}], ["x at 64", "x at 64 x 96", "x at auto"]),
        ([{"seed": 0}, {"seed": 1}], ["x (1)", "x (2)"]),
    ],
)
def test_no_two_members_have_one_name(members: list[Any], expected: list[str]) -> None:
    assert member_names(ensemble_settings_for("default", members, backbone="x")) == expected


def test_each_member_has_its_steps(two_sizes: Ensemble) -> None:
    names = [f"{BACKBONES[0]} at {side}" for side in (64, 96)]
    seconds = two_sizes.provenance["seconds"]
    for name, model in zip(names, two_sizes.members, strict=True):
        own = model.provenance["seconds"]
        assert {step: seconds[f"{step}, {name}"] for step in own} == own
    assert len(seconds) == sum(len(model.provenance["seconds"]) for model in two_sizes.members)
    assert names[0] in repr(two_sizes)
    assert names[1] in repr(two_sizes)


# --- Members of different sizes -------------------------------------------------------------------


def enlarged_along(values: npt.NDArray[Any], axis: int, pixels: int) -> npt.NDArray[Any]:
    """Linear interpolation between the centres of cells along one axis, edges repeated."""
    cells = values.shape[axis]
    centres = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    return np.apply_along_axis(
        lambda line: np.interp(centres, np.arange(cells), line), axis, values
    )


def slow_map(model: Model, distances: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Distances on the member's grid, enlarged to a size and blurred by as much of it."""
    grid = distances.reshape(model.engine.grid).astype(np.float64)
    enlarged = enlarged_along(enlarged_along(grid, 0, size[0]), 1, size[1])
    blur, own = model.settings.scoring.blur, model.settings.size
    sigma = [blur * size[axis] / own[axis] for axis in (0, 1)]
    reach = [math.ceil(4 * s) for s in sigma]
    return gaussian_filter(enlarged, sigma, mode="reflect", radius=reach)


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (80, 128)])
def test_a_member_draws_at_any_size_with_the_same_share_blurred(
    size: tuple[int, int], two_sizes: Ensemble
) -> None:
    model = two_sizes.members[0]
    distances = model.good.distances[0]
    found = model.draw(distances, size)
    assert found.shape == size
    np.testing.assert_allclose(found, slow_map(model, distances, size), rtol=1e-5)


def test_maps_of_two_sizes_are_combined_at_the_finer_one(
    two_sizes: Ensemble, wide_photo: Photo
) -> None:
    small, large = two_sizes.members
    assert [m.engine.grid for m in (small, large)] == [(8, 8), (12, 12)]
    expected = np.zeros((96, 96))
    for model in (small, large):
        median = np.median(model.good.distances.astype(np.float64))
        mad = np.median(np.abs(model.good.distances - median))
        own = slow_map(model, model.judge([wide_photo])[0].scores.distances, (96, 96))
        expected += (own - median) / (1.4826 * mad) / 2
    found = two_sizes.judge([wide_photo])[0].anomaly_map
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_finer_member_may_stand_anywhere(
    order: tuple[int, int], two_sizes: Ensemble, wide_photo: Photo
) -> None:
    turned = combine([two_sizes.members[i] for i in order])
    assert turned.preprocessing == Preprocessing(96, 96)
    expected, found = two_sizes.inspect(wide_photo), turned.inspect(wide_photo)
    assert found.score == pytest.approx(expected.score, rel=1e-6)
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=1e-5, atol=1e-5)


def test_regions_of_two_sizes_are_in_pixels_of_the_photo(
    two_sizes: Ensemble, wide_photo: Photo
) -> None:
    result = two_sizes.inspect(wide_photo)
    assert result.heatmap.shape == (120, 200)
    assert result.inspected == (0, 0, 200, 120)
    assert result.anomalous
    judged = two_sizes.judge([wide_photo])[0]
    by_hand = enlarged_along(enlarged_along(judged.anomaly_map, 0, 120), 1, 200)
    np.testing.assert_allclose(result.heatmap, by_hand, rtol=1e-3, atol=1e-3)
    x, y = result.regions[0].peak
    assert result.regions[0].peak_value == result.heatmap[y, x] == result.heatmap.max()
    x0, y0, x1, y1 = result.regions[0].box
    assert scratch_mask(120, 200)[y0:y1, x0:x1].any()


def test_thresholds_of_two_sizes_follow_the_combined_maps(
    two_sizes: Ensemble, good_folder: Path
) -> None:
    photos = [read_photo(path) for path in list_photos(good_folder)]
    again = two_sizes.calibrated_on(photos).calibration
    ours = two_sizes.calibration
    np.testing.assert_allclose(again.scores, ours.scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(again.map_maxima, ours.map_maxima, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("member", [0, 1])
def test_the_most_alarmed_member_explains_on_its_own_grid(
    member: int, two_sizes: Ensemble, wide_photo: Photo
) -> None:
    scales = [Scale(0.0, 1.0), Scale(0.0, 1.0)]
    scales[member] = Scale(0.0, 1e-3)  # whose scores become a thousand times larger
    result = replace(two_sizes, score_scales=scales).inspect(wide_photo)
    model = two_sizes.members[member]
    scores = model.judge([wide_photo])[0].scores
    assert result.closest == model.closest(
        scores, model.preprocessing.geometry(120, 200), result.regions
    )
    cells = model.engine.grid[0]
    x0, y0, x1, y1 = result.closest.patch_box
    assert x1 - x0 <= math.ceil(3 * 200 / cells) + 1  # 3 x 3 cells, rounded outward
    assert y1 - y0 <= math.ceil(3 * 120 / cells) + 1
    assert result.closest.distance in scores.distances


def test_two_sizes_in_one_file_give_the_same_verdict(
    two_sizes: Ensemble, wide_photo: Photo, tmp_path: Path
) -> None:
    two_sizes.save(tmp_path / "part.rcp")
    loaded = reconpatch.load(tmp_path / "part.rcp", threads=1)
    assert isinstance(loaded, Ensemble)
    assert [m.settings.size for m in loaded.members] == [(64, 64), (96, 96)]
    assert loaded.fingerprint == two_sizes.fingerprint
    ours, theirs = two_sizes.inspect(wide_photo), loaded.inspect(wide_photo)
    assert ours.to_dict() == theirs.to_dict()
    assert ours.closest == theirs.closest
    np.testing.assert_array_equal(ours.heatmap, theirs.heatmap)


@pytest.mark.parametrize(("kind", "times"), [("ensemble", 1), ("two_sizes", 2)])
def test_a_photo_is_prepared_once_for_each_preprocessing(
    kind: str,
    times: int,
    good_photo: RGB,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inspector: Ensemble = request.getfixturevalue(kind)
    prepared = []
    prepare = Preprocessing.__call__

    def counted(self: Preprocessing, photo: Photo) -> npt.NDArray[np.float32]:
        prepared.append(self)
        return prepare(self, photo)

    monkeypatch.setattr(Preprocessing, "__call__", counted)
    inspector.inspect(good_photo)
    assert len(prepared) == len(set(prepared)) == times


# --- Qualities ------------------------------------------------------------------------------------


def test_the_best_quality_is_an_ensemble_of_two(good_folder: Path) -> None:
    small = {name: value for name, value in SMALL_FIT.items() if name != "size"}
    model = reconpatch.fit(good_folder, quality="best", **small)
    assert [m.settings.backbone for m in model.members] == [
        "tf_efficientnet_lite0", "tf_efficientnet_lite2",
    ]  # fmt: skip
    assert [m.settings.size for m in model.members] == [(224, 224), (224, 224)]  # 96 pixels each


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quality": "fast", "recipe": "paper"}, "qualities are points of the default recipe"),
        ({"quality": "best", "size": 64}, "leave out backbone and size"),
        ({"quality": "quick"}, "the quality is 'quick': give one of fast, balanced, best"),
    ],
)
def test_qualities_that_do_not_go_together_are_refused(
    given: dict[str, Any], said: str, good_folder: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        reconpatch.fit(good_folder, **given)


def test_what_is_set_goes_before_the_quality() -> None:
    (fast,) = members_of(None, None, "fast", taken={"bank"})
    assert fast == {"size_limit": 224, "size_tried": 0, "made": 256}
    assert members_of("resnet18", 96, "fast") == [
        {
            "size": 96,
            "size_limit": 224,
            "size_tried": 0,
            "bank": 0.005,
            "bank_least": 1500,
            "made": 256,
            "backbone": "resnet18",
        }
    ]
