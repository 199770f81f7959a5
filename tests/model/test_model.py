from __future__ import annotations

import copy
import dataclasses
import io
import math
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reconpatch
from conftest import SMALL_FIT, is_at_scratch, save, scratch_mask, scratched, textured
from reconpatch.errors import NotEnoughPhotosError, PhotoError, SettingsError
from reconpatch.method.calibration import conformal_threshold, p_value, threshold_at
from reconpatch.method.scoring import PatchScores, anomaly_map, score_patches
from reconpatch.model.ensemble import combine
from reconpatch.model.good_photos import TrainingPhoto, rescore
from reconpatch.model.model import _scaled_box
from reconpatch.photos.images import read_photo
from reconpatch.photos.listing import list_photos
from reconpatch.photos.preprocessing import Preprocessing
from reconpatch.result import Region

SIZES = [(96, 96), (50, 120), (120, 50), (64, 64), (33, 47), (16, 300), (201, 97)]
ROUNDING = 1e-4  # the network's, between photos in a batch and one by one


@pytest.fixture(scope="module")
def full_model(good_folder):
    """A model whose bank holds every patch of its photos."""
    return reconpatch.fit(good_folder, **{**SMALL_FIT, "bank": 1_000_000})


@pytest.fixture(scope="module")
def cropping_model(small_model):
    """The same with the paper's crop: the shorter side to 80, the 64 x 64 in the centre."""
    return dataclasses.replace(small_model, preprocessing=Preprocessing(64, 64, resize=80))


@pytest.fixture(scope="module")
def good_photos(good_folder):
    """The photos of the fit."""
    return [read_photo(path) for path in list_photos(good_folder)]


def assert_same_verdict(a, b):
    """Two results agree in every value, bit by bit, whatever the photo is called."""
    np.testing.assert_array_equal(a.heatmap, b.heatmap)
    for field in dataclasses.fields(a):
        if field.name not in ("name", "heatmap"):
            assert getattr(a, field.name) == getattr(b, field.name), field.name


def is_inside(box, outer):
    x0, y0, x1, y1 = box
    return outer[0] <= x0 < x1 <= outer[2] and outer[1] <= y0 < y1 <= outer[3]


def whole(height, width):
    return (0, 0, width, height)


# What inspection takes and gives


@pytest.mark.parametrize("protocol", [*range(pickle.HIGHEST_PROTOCOL + 1), "deepcopy", "copy"])
@pytest.mark.parametrize("worked", [False, True])
def test_a_model_can_be_copied_and_sent_to_another_process(
    small_model, small_model_file, defective_photo, protocol, worked
):
    model = reconpatch.load(small_model_file, threads=1)
    if worked:
        model.inspect(defective_photo)
    if isinstance(protocol, int):
        copied = pickle.loads(pickle.dumps(model, protocol))
    else:
        copied = getattr(copy, protocol)(model)
    assert copied.fingerprint == model.fingerprint
    assert (copied.engine.name, copied.engine.threads) == ("onnxruntime", 1)
    assert_same_verdict(copied.inspect(defective_photo), model.inspect(defective_photo))


def test_an_ensemble_can_be_copied(small_model, defective_photo):
    ensemble = combine([small_model, dataclasses.replace(small_model)])
    expected = ensemble.inspect(defective_photo)
    for copied in (pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(ensemble)):
        assert_same_verdict(copied.inspect(defective_photo), expected)


def test_a_process_that_starts_afresh_takes_a_model_at_work(small_model, defective_photo):
    """As pools of processes, Spark and data loaders send it."""
    expected = small_model.inspect(defective_photo).score
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(small_model.inspect, defective_photo).result(120).score == expected


@pytest.mark.parametrize(
    "single",
    ["a.png", b"a.png", Path("a.png"), np.zeros((64, 64), np.uint8), Image.new("L", (64, 64)),
     np.zeros((64, 64, 3), np.uint8), None, 7],
    ids=lambda given: type(given).__name__,
)  # fmt: skip
def test_a_single_photo_is_not_taken_for_several(small_model, single):
    calls = (small_model.inspect_batch, small_model.calibrated_on,
             lambda given: list(small_model.inspect_many(given)))  # fmt: skip
    for call in calls:
        with pytest.raises(PhotoError, match=r"Several photos are asked for, and .* was given"):
            call(single)


def test_several_photos_in_any_form(small_model, good_folder, good_photos):
    expected = [result.score for result in small_model.inspect_batch(good_photos)]
    stack = np.stack([photo.pixels for photo in good_photos])
    paths = list_photos(good_folder)
    for given in (iter(good_photos), stack, paths, map(str, paths), (path for path in paths)):
        found = [result.score for result in small_model.inspect_batch(given)]
        assert found == expected
    found = [result.score for result in small_model.inspect_many(map(str, paths))]
    assert found == pytest.approx(expected, rel=ROUNDING)
    by_photo = small_model.calibrated_on(good_photos)
    for given in (map(str, paths), stack):
        assert small_model.calibrated_on(given).threshold == by_photo.threshold
    with pytest.raises(PhotoError, match="over the limit"):
        small_model.calibrated_on(paths, max_pixels=100)


def test_a_path_an_array_and_a_picture_give_the_same_verdict(
    small_model, defective_photo, tmp_path
):
    path = save(defective_photo, tmp_path / "part.png")
    by_path = small_model.inspect(path)
    with Image.open(path) as picture:
        others = [defective_photo, picture.copy(), str(path), read_photo(path)]
    for other in others:
        assert_same_verdict(small_model.inspect(other), by_path)
    assert by_path.name == str(path)
    assert small_model.inspect(defective_photo).name == "<array>"


def test_inspecting_twice_gives_identical_bits(small_model, defective_photo, good_photo):
    first = small_model.inspect(defective_photo)
    small_model.inspect(good_photo)
    assert_same_verdict(small_model.inspect(defective_photo), first)


def test_many_photos_are_inspected_one_by_one_as_they_are_asked_for(small_model, good_photo):
    def photos():
        yield good_photo
        raise AssertionError("the second photo was not asked for")

    results = small_model.inspect_many(photos())
    assert_same_verdict(next(results), small_model.inspect(good_photo))


def test_a_photo_that_is_too_large_or_none_is_refused(small_model, good_photo, tmp_path):
    with pytest.raises(PhotoError, match="over the limit of 9,000"):
        small_model.inspect(good_photo, max_pixels=9_000)
    with pytest.raises(PhotoError, match="over the limit of 9,000"):
        next(small_model.inspect_many([good_photo], max_pixels=9_000))
    with pytest.raises(PhotoError, match=r"missing\.png"):
        small_model.inspect(tmp_path / "missing.png")


def test_the_verdict_is_put_together_from_the_steps_of_the_method(small_model, defective_photo):
    found = small_model.inspect(defective_photo)
    photo = read_photo(defective_photo)
    scores = score_patches(
        small_model.represent(photo),
        small_model.bank,
        small_model.settings.scoring,
        small_model.layout,
    )
    assert found.score == pytest.approx(scores.image_score, rel=1e-6)
    assert found.threshold == small_model.threshold
    assert found.anomalous == (found.score > found.threshold)
    assert found.p_value == p_value(found.score, small_model.calibration.scores)
    assert found.map_threshold == small_model.calibration.map_threshold.value
    input_map = anomaly_map(scores.distances, (8, 8), (64, 64), small_model.settings.scoring.blur)
    expected = small_model.preprocessing.geometry(96, 96).map_to_photo(input_map)
    np.testing.assert_allclose(found.heatmap, expected, rtol=1e-5)


def test_a_scratch_is_found_where_it_is(small_model, defective_photo):
    found = small_model.inspect(defective_photo)
    assert found.anomalous
    assert found.p_value == 1 / 9
    inside, outside = found.heatmap[scratch_mask()], found.heatmap[~scratch_mask()]
    assert inside.mean() > 1.5 * outside.mean()
    x, y = found.regions[0].peak
    assert is_at_scratch(x, y)


# Maps and regions


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_maps_have_the_size_of_the_photo(small_model, height, width):
    found = small_model.inspect(textured(3, height, width))
    assert found.heatmap.shape == (height, width)
    assert found.heatmap.dtype == np.float32
    assert np.isfinite(found.heatmap).all()
    assert found.heatmap.min() >= 0
    assert found.inspected == whole(height, width)
    assert found.to_dict()["width"] == width


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_the_crop_cuts_off_is_marked_as_not_inspected(cropping_model, height, width):
    found = cropping_model.inspect(scratched(textured(3, height, width)))
    assert found.heatmap.shape == (height, width)
    x0, y0, x1, y1 = found.inspected
    # Of the shorter side, 64 of 80 pixels are seen: a fifth of it is cut off, half at each end.
    assert min(x1 - x0, y1 - y0) == pytest.approx(0.8 * min(height, width), abs=1)
    assert (x0 + x1, y0 + y1) == pytest.approx((width, height), abs=2)
    seen = np.zeros((height, width), bool)
    seen[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(np.isnan(found.heatmap), ~seen)
    for region in cropping_model.with_threshold(0).inspect(textured(3, height, width)).regions:
        assert is_inside(region.box, found.inspected)
    assert is_inside(found.closest.patch_box, found.inspected)


@pytest.mark.parametrize("model", ["small_model", "cropping_model"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_an_anomalous_photo_has_a_region_and_a_good_one_has_none(request, model, height, width):
    model = request.getfixturevalue(model)
    photo = read_photo(scratched(textured(5, height, width)))
    score = model.inspect(photo).score
    for factor in (0.0, 0.1, 0.5, 0.9, 0.999999, 1.0, 1.000001, 2.0):
        found = model.with_threshold(factor * score).inspect(photo)
        assert found.anomalous == (factor < 1)
        assert (len(found.regions) > 0) == found.anomalous
        for region in found.regions:
            assert is_inside(region.box, found.inspected)
            x, y = region.peak
            assert is_inside((x, y, x + 1, y + 1), region.box)
            assert region.peak_value == found.heatmap[y, x]


def test_a_photo_over_its_threshold_has_a_region_though_its_map_stays_below_the_maps(
    small_model, defective_photo
):
    maxima = np.full(8, 1e6)
    changed = dataclasses.replace(small_model.calibration, map_maxima=maxima)
    found = dataclasses.replace(small_model, calibration=changed).inspect(defective_photo)
    assert found.anomalous
    assert found.map_threshold == 1e6
    assert len(found.regions) == 1
    assert found.regions[0].peak_value == found.heatmap.max()


# The closest good patch


@pytest.mark.parametrize("model", ["small_model", "cropping_model"])
@pytest.mark.parametrize("threshold", [0.0, 1e6])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_closest_patch_is_a_place_in_a_photo_of_the_fit(
    request, model, threshold, height, width
):
    model = request.getfixturevalue(model).with_threshold(threshold)
    found = model.inspect(scratched(textured(6, height, width)))
    closest = found.closest
    names = [photo.name for photo in model.photos]
    assert closest.photo in names
    assert is_inside(closest.box, model.preprocessing.geometry(96, 96).inspected)
    assert is_inside(closest.patch_box, found.inspected)
    assert closest.thumbnail == model.thumbnails[names.index(closest.photo)]
    with Image.open(io.BytesIO(closest.thumbnail)) as thumbnail:
        assert is_inside(closest.thumbnail_box, whole(thumbnail.height, thumbnail.width))
    scored = model.judge([read_photo(scratched(textured(6, height, width)))])[0].scores
    assert 0 < closest.distance <= scored.distances.max()


def test_the_boxes_of_patches_by_hand(full_model):
    # A grid of 8 x 8 over 96 x 96: cells of 12 pixels, and a neighbourhood of 3 x 3 of them.
    geometry = full_model.preprocessing.geometry(96, 96)
    assert full_model._cell_box(0, geometry) == (0, 0, 12, 12)
    assert full_model._patch_box(0, geometry) == (0, 0, 24, 24)
    assert full_model._patch_box(8 + 2, geometry) == (12, 0, 48, 36)
    assert full_model._patch_box(63, geometry) == (72, 72, 96, 96)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 100, 100), (0, 0, 10, 20)),
        ((20, 30, 40, 60), (2, 6, 4, 12)),
        ((51, 51, 52, 52), (5, 10, 6, 11)),  # never less than a pixel
        ((99, 99, 100, 100), (9, 19, 10, 20)),
    ],
)
def test_a_box_in_a_thumbnail_is_the_same_share_of_the_picture(box, expected):
    buffer = io.BytesIO()
    Image.new("RGB", (10, 20)).save(buffer, "JPEG")
    photo = TrainingPhoto("a.png", "", height=100, width=100, group=0)
    assert _scaled_box(box, photo, buffer.getvalue()) == expected


def test_a_photo_of_the_fit_is_closest_to_itself_where_the_bank_holds_all_patches(
    full_model, good_photos
):
    assert len(full_model.bank) == 8 * 64
    for photo, record in zip(good_photos, full_model.photos, strict=True):
        found = full_model.with_threshold(1e6).inspect(photo)
        assert found.score == pytest.approx(0, abs=ROUNDING)
        assert found.closest.distance == pytest.approx(0, abs=ROUNDING)
        assert found.closest.photo == record.name
        assert found.closest.box == found.closest.patch_box
        assert found.heatmap.max() == pytest.approx(0, abs=ROUNDING)


@pytest.mark.parametrize(
    ("region", "place", "distance"),
    [
        (None, 9, 10.0),
        ((72, 72, 84, 84), 54, 5.0),
        ((24, 24, 36, 36), 18, 1.0),  # next to the cell of patch 9, which ends where it begins
        ((23, 23, 84, 84), 9, 10.0),
    ],
)
def test_the_patch_that_is_explained_is_the_worst_of_the_worst_region(
    small_model, region, place, distance
):
    # Cells of 12 pixels: patch 9 stands out most, at 12 to 24; patch 54 is at 72 to 84.
    distances = np.ones(64, np.float32)
    distances[9], distances[54] = 10, 5
    nearest = np.arange(64) % len(small_model.bank)
    scores = PatchScores(distances, nearest, image_score=10.0, worst=9)
    regions = [Region(region, 9, region[:2], 3.0)] if region else []
    geometry = small_model.preprocessing.geometry(96, 96)
    closest = small_model.closest(scores, geometry, regions)
    assert closest.distance == distance
    assert closest.patch_box == small_model._patch_box(place, geometry)
    row = nearest[place]
    assert closest.photo == small_model.photos[small_model.bank.photo[row]].name
    assert closest.box == small_model._patch_box(small_model.bank.place[row], geometry)


# Thresholds


def test_a_threshold_set_by_hand_changes_the_verdict_and_nothing_else(small_model, good_photo):
    before = small_model.inspect(good_photo)
    for value, anomalous in ((before.score * 0.99, True), (before.score, False), (1e9, False)):
        model = small_model.with_threshold(value)
        found = model.inspect(good_photo)
        assert (found.threshold, found.anomalous) == (value, anomalous)
        assert (found.score, found.p_value) == (before.score, before.p_value)
        np.testing.assert_array_equal(found.heatmap, before.heatmap)
        scores = small_model.calibration.scores
        assert model.calibration.image_threshold == threshold_at(scores, value)
    assert small_model.calibration.set_by_hand is None, "models do not change"


@pytest.mark.parametrize("value", [-0.001, -math.inf, math.inf, math.nan])
def test_a_threshold_that_is_no_score_is_refused(small_model, value):
    with pytest.raises(SettingsError, match=f"the threshold is {value}: give a score of 0 or more"):
        small_model.with_threshold(value)


def test_another_false_alarm_rate_gives_the_threshold_of_that_rate(small_model):
    scores, maxima = small_model.calibration.scores, small_model.calibration.map_maxima
    for rate in (0.2, 0.5, 0.9):
        calibration = small_model.with_false_alarm_rate(rate).calibration
        assert calibration.image_threshold == conformal_threshold(scores, rate)
        assert calibration.map_threshold == conformal_threshold(maxima, rate)
    ordered = np.sort(scores)
    # k = ceil(9 * 0.5) = 5 of 8.
    half = small_model.with_false_alarm_rate(0.5).threshold
    assert half == pytest.approx((ordered[4] + ordered[5]) / 2)


def test_a_false_alarm_rate_takes_the_place_of_a_threshold_set_by_hand(small_model):
    rate = small_model.calibration.rate
    there_and_back = small_model.with_threshold(3.0).with_false_alarm_rate(rate)
    assert there_and_back.threshold == small_model.threshold
    assert there_and_back.fingerprint == small_model.fingerprint


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, math.nan])
def test_a_rate_that_is_no_share_is_refused(small_model, good_photos, rate):
    with pytest.raises(SettingsError, match="the false-alarm rate is"):
        small_model.with_false_alarm_rate(rate)
    with pytest.raises(SettingsError, match="the false-alarm rate is"):
        small_model.calibrated_on(good_photos[:1], rate)


# Calibration on other photos, and scores as if a photo were new


@pytest.mark.parametrize("model", ["small_model", "full_model"])
def test_calibrating_on_the_photos_of_the_fit_gives_the_scores_of_the_fit(
    request, model, good_photos
):
    model = request.getfixturevalue(model)
    again = model.calibrated_on(good_photos).calibration
    np.testing.assert_allclose(again.scores, model.calibration.scores, rtol=ROUNDING)
    np.testing.assert_allclose(again.map_maxima, model.calibration.map_maxima, rtol=ROUNDING)
    np.testing.assert_allclose(again.scores, model.good.image_scores, rtol=ROUNDING)
    assert again.image_threshold.value == pytest.approx(model.threshold, rel=ROUNDING)


def test_photos_of_one_group_are_scored_without_each_other(good_folder, good_photos, small_model):
    model = reconpatch.fit(good_folder, **SMALL_FIT, group=r"part0(0)[0-3]")
    assert [photo.group for photo in model.photos] == [0, 0, 0, 0, 1, 2, 3, 4]
    again = model.calibrated_on(good_photos).calibration
    np.testing.assert_allclose(again.scores, model.calibration.scores, rtol=ROUNDING)
    alone, scores = (  # the weight of the mean follows from how many parts there are
        one.good.image_scores - one.settings.scoring.overall * one.good.overall
        for one in (small_model, model)
    )
    np.testing.assert_allclose(scores[4:], alone[4:], rtol=ROUNDING)
    assert not np.allclose(scores[:4], alone[:4], rtol=ROUNDING)
    # A part counts once, by its most unusual shot.
    of_photos = model.good.image_scores
    assert model.calibration.scores.tolist() == [of_photos[:4].max(), *of_photos[4:]]


def test_calibrating_on_other_photos_takes_their_scores_as_they_are(small_model):
    others = [textured(seed) for seed in range(50, 56)]
    results = [small_model.inspect(photo) for photo in others]
    model = small_model.calibrated_on((read_photo(photo) for photo in others), rate=0.25)
    calibration = model.calibration
    assert calibration.scores.tolist() == [result.score for result in results]
    # The map is compared in the model's own input, which has fewer pixels than the photo.
    np.testing.assert_allclose(
        calibration.map_maxima, [result.heatmap.max() for result in results], rtol=0.05
    )
    assert calibration.rate == 0.25
    assert calibration.source == "6 good photos given to calibrate, each scored as if it were new"
    assert calibration.image_threshold == conformal_threshold(calibration.scores, 0.25)
    assert model.inspect(others[0]).threshold == model.threshold
    assert small_model.calibrated_on([read_photo(others[0])]).calibration.rate == 0.01


def test_calibrating_drops_a_threshold_set_by_hand(small_model, good_photos):
    assert small_model.with_threshold(5.0).calibrated_on(good_photos).threshold < 5.0


def test_calibrating_on_no_photo_is_refused(small_model):
    with pytest.raises(NotEnoughPhotosError, match="no good photo to calibrate on: give at least"):
        small_model.calibrated_on([])


def test_a_photo_of_the_fit_is_known_by_its_pixels_under_any_name(
    full_model, good_photos, tmp_path
):
    copy = read_photo(save(np.array(good_photos[2].pixels), tmp_path / "another name.bmp"))
    as_new = full_model.judge([copy], as_new=True)[0].scores
    bank = full_model.bank.without(full_model.bank.photo == 2)
    expected = score_patches(
        full_model.represent(copy), bank, full_model.settings.scoring, full_model.layout
    )
    assert as_new.image_score == pytest.approx(expected.image_score, rel=1e-6)
    np.testing.assert_allclose(as_new.distances, expected.distances, rtol=1e-5)
    assert full_model.judge([copy])[0].scores.image_score == pytest.approx(0, abs=ROUNDING)
    assert as_new.image_score > 100 * ROUNDING


def test_a_photo_the_fit_has_not_seen_is_new_as_it_is(small_model, good_photo):
    photo = read_photo(good_photo)
    as_new, scored = (small_model.judge([photo], as_new=new)[0].scores for new in (True, False))
    assert as_new.image_score == scored.image_score
    np.testing.assert_array_equal(as_new.distances, scored.distances)


def test_the_good_scores_of_a_model_are_enough_to_score_its_photos_again(small_model):
    again = rescore(
        small_model.good, small_model.photos, small_model.bank, small_model.settings.scoring,
        small_model.layout,
    )  # fmt: skip
    np.testing.assert_allclose(again.image_scores, small_model.good.image_scores, rtol=1e-6)
    np.testing.assert_allclose(again.map_maxima, small_model.good.map_maxima, rtol=1e-6)
