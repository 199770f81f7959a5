"""The default recipe from photos to a file: f learned against made defects, small and at random."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reconpatch
from conftest import GOOD_PHOTOS, save, scratched, textured
from reconpatch.errors import SettingsError
from reconpatch.features.backbones import load_graph, spec
from reconpatch.features.extractor import FeatureExtractor
from reconpatch.features.feature_graph import feature_graph
from reconpatch.fitting.update import update
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.scoring import anomaly_map, score_nearest, score_patches
from reconpatch.model.model import Model
from reconpatch.model.parity import compare, own_reference, verify_sample
from reconpatch.photos.images import read_photo

# The default recipe at 64 pixels; nothing that f, the bank or the scores depend on is left out.
SMALL: dict[str, Any] = {
    "weights": "random",
    "size": (64, 64),
    "bank_least": 60,
    "defects": 6,
    "made": 24,
    "threads": 1,
}


def fit(good: Any, **changes: Any) -> Model:
    model = reconpatch.fit(good, **(SMALL | changes))
    assert isinstance(model, Model)
    return model


@pytest.fixture(scope="module")
def model(good_folder: Path) -> Model:
    return fit(good_folder)


def test_f_is_half_principal_and_half_contrastive(model: Model) -> None:
    settings = model.settings
    assert (settings.training.init, settings.training.basis) == ("contrastive", 384)
    assert (settings.training.dim, settings.scoring.principal) == (128, 64)
    assert (settings.training.contrast_share, settings.scoring.contrast) == (0.5, 4.2)
    weight = model.representation.weight
    assert weight is not None
    assert weight.shape == (128, 240 + 40 + 672 + 112)  # of p itself, not of a basis
    # What PatchCore compares are the outputs, and so do the principal directions.
    outputs = np.r_[np.zeros(240), np.ones(40), np.zeros(672), np.ones(112)] > 0
    share = (weight[:64, outputs] ** 2).sum(axis=1) / (weight[:64] ** 2).sum(axis=1)
    assert share[:8].min() > 0.5
    assert model.bank.rows.shape == (len(model.bank), 128)
    assert model.provenance["training"]["steps"] == 0
    assert model.provenance["turns"]["photos"] == 8


def test_a_scratch_is_told_from_good(model: Model) -> None:
    scratch = model.inspect(scratched(textured(1000)))
    assert scratch.anomalous
    assert scratch.score > 1.5 * model.inspect(textured(1000)).score


def test_an_inspection_is_f_on_the_patch_features_and_the_bank(model: Model) -> None:
    network = spec(model.settings.backbone)
    backbone, _ = load_graph(network, weights="random", input_size=(64, 64), expanded=True)
    extractor = FeatureExtractor(feature_graph(backbone, 3), 1)
    for pixels in (textured(1000), scratched(textured(1000))):
        photo = read_photo(pixels)
        r = model.representation(extractor(model.preprocessing(photo)[None]))[0]
        expected = score_patches(r, model.bank, model.settings.scoring, model.layout)
        assert model.inspect(pixels).score == pytest.approx(expected.image_score, rel=1e-3)
        np.testing.assert_allclose(model.represent(photo), r, atol=1e-3 * np.abs(r).max())
        # The image score weighs the contrastive half, the map does not.
        assert expected.image_score > np.sort(expected.distances)[-1]


def test_the_mean_of_all_distances_counts_by_what_it_varies_and_the_number_of_parts(
    model: Model,
) -> None:
    weight = model.settings.scoring.overall
    means = np.array([distances.mean() for distances in model.good.weighted])
    top = model.good.image_scores - weight * means
    assert weight == pytest.approx(
        min(0.6 * np.std(top) / np.std(means), 3.0) * 8 / (8 + 50), rel=1e-4
    )


def test_a_mean_of_a_given_weight_is_taken_as_it_is_and_none_is_none(
    good_folder: Path, model: Model
) -> None:
    given = fit(good_folder, overall=0.25, turns="never")
    without = fit(good_folder, overall_share=0.0, turns="never")
    assert (given.settings.scoring.overall, without.settings.scoring.overall) == (0.25, 0.0)
    means = given.good.weighted.mean(axis=1)
    np.testing.assert_allclose(
        given.good.image_scores, without.good.image_scores + 0.25 * means, rtol=1e-5
    )
    # A fit with the settings of a model chooses anew.
    assert model.settings.overall_share == 0.6


def test_every_row_says_which_photo_and_place_it_is_from(model: Model) -> None:
    turned = 0
    for i in range(GOOD_PHOTOS):
        mine = model.bank.photo == i
        r = model.represent(read_photo(textured(i)))[model.bank.place[mine]]
        same = np.abs(model.bank.rows[mine] - r).max(axis=1) < 1e-2 * np.abs(r).max()
        turned += int((~same).sum())
    assert (turned > 0) == model.provenance["turns"]["taken"]


def test_the_file_is_saved_loaded_verified_and_scores_the_same(
    model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "part.rcp"
    model.save(path)
    loaded = reconpatch.load(path, threads=1)
    assert isinstance(loaded, Model)
    assert loaded.fingerprint == model.fingerprint
    assert loaded.settings == model.settings
    np.testing.assert_array_equal(loaded.good.weighted, model.good.weighted)
    assert (loaded.good.weighted > loaded.good.distances).all()
    assert all(found.holds for found in verify_sample(loaded))
    for pixels in (textured(1000), scratched(textured(1000))):
        one, other = model.inspect(pixels), loaded.inspect(pixels)
        assert other.score == pytest.approx(one.score, rel=1e-5)
        assert other.anomalous == one.anomalous
    json.dumps(loaded.provenance, allow_nan=False)
    again = tmp_path / "again.rcp"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_an_engine_may_take_either_of_two_rows_that_are_as_near_and_no_other(
    model: Model,
) -> None:
    bank, sample = model.bank, model.sample
    assert bank.scales is not None
    assert sample is not None
    # Every row a second time, in a part of the bank that is said to be twice as sparse.
    twice = MemoryBank(
        *(np.concatenate([x, x]) for x in (bank.rows, bank.photo, bank.place, bank.replacements)),
        scales=np.concatenate([bank.scales, bank.scales * 2]),
    )
    doubled = replace(model, bank=twice)
    scoring, layout = model.settings.scoring, model.layout

    def reference(prepared: Any) -> Any:
        return own_reference(doubled, prepared)

    def other_rows(step: int) -> Any:
        def run(prepared: Any) -> Any:
            said = reference(prepared)
            nearest = (said.nearest + step) % len(twice)
            scores, maps = said.score.copy(), said.map.copy()
            for i, r in enumerate(said.features):
                away = np.linalg.norm(r - twice.rows[nearest[i]], axis=1)
                scores[i] = score_nearest(r, away, nearest[i], twice, scoring, layout).image_score
                maps[i] = anomaly_map(away, model.engine.grid, said.map.shape[1:], scoring.blur)
            return said._replace(nearest=nearest, score=scores, map=maps)

        return run

    photos = sample.photos()[:4]
    (as_near,) = compare(doubled, photos, reference, {"as near": other_rows(len(bank))})
    assert (as_near.holds, as_near.near_ties) == (True, 4 * 64)
    (further,) = compare(doubled, photos, reference, {"further": other_rows(1)})
    assert not further.holds


def test_the_same_seed_gives_the_same_model(good_folder: Path, model: Model) -> None:
    again = fit(good_folder)
    assert again.fingerprint == model.fingerprint
    assert again.threshold == model.threshold


def test_untrained_is_the_principal_half(good_folder: Path, model: Model) -> None:
    untrained = fit(good_folder, method="untrained")
    weight, learned = untrained.representation.weight, model.representation.weight
    assert weight is not None
    assert learned is not None
    assert weight.shape == (64, 1064)
    ratio = np.linalg.norm(learned[:64]) / np.linalg.norm(weight)  # the halves are on one scale
    np.testing.assert_allclose(learned[:64], weight * ratio, atol=1e-4 * np.abs(learned).max())
    assert untrained.inspect(scratched(textured(1000))).anomalous


def test_patchcore_is_the_identity_on_the_outputs(good_folder: Path) -> None:
    patchcore = fit(good_folder, method="patchcore")
    assert patchcore.representation.weight is None
    assert patchcore.bank.rows.shape[1] == 40 + 112
    assert patchcore.provenance["turns"] is None
    assert patchcore.good.weighted is patchcore.good.distances
    assert patchcore.inspect(scratched(textured(1000))).anomalous


def test_patchcore_has_no_basis() -> None:
    with pytest.raises(SettingsError, match="method is 'patchcore' and basis is 64"):
        fit([textured(0), textured(1)], method="patchcore", basis=64)


@pytest.mark.parametrize("method", ["reconpatch", "untrained"])
def test_a_level_of_few_channels_leaves_directions_at_zero(method: str) -> None:
    one = fit([textured(seed) for seed in range(3)], levels=(2,), method=method, turns="never")
    weight = one.representation.weight
    assert weight is not None
    assert weight[39].any()
    assert not weight[40:64].any()  # the level's output has 40 channels
    assert weight.shape == (128 if method == "reconpatch" else 64, 240 + 40)
    assert np.isfinite(one.inspect(textured(1000)).score)


def test_without_made_defects_f_is_learned_and_photos_turned_all_the_same() -> None:
    bare = fit([textured(seed) for seed in range(4)], defects=0, turns="always")
    assert bare.provenance["quality"] is None
    assert bare.provenance["turns"]["taken"]
    assert bare.provenance["turns"]["photos"] == 4
    assert bare.representation.weight is not None


def test_a_bank_of_one_row_decides_nothing_on_turned_copies() -> None:
    one = fit([textured(seed) for seed in range(3)], bank=1, bank_least=0)
    assert len(one.bank) == 1
    assert not one.provenance["turns"]["taken"]
    json.dumps(one.provenance, allow_nan=False)


# --- 16 bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("surveyed", [40, 2])
def test_photos_of_16_bits_have_one_white_level_in_every_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surveyed: int
) -> None:
    # The photo with the largest value is not among two that are surveyed.
    monkeypatch.setattr("reconpatch.fitting.reading.SURVEYED", surveyed)
    scale = [4, 4, 15, 4, 4]
    for i, times in enumerate(scale):
        save(textured(i)[:, :, 0].astype(np.uint16) * times, tmp_path / f"{i}.png")
    wide = fit(tmp_path, turns="never")
    assert wide.white_level == 4095
    # The same photos as fractions of that level.
    given = [textured(i)[:, :, 0].astype(np.float64) * t / 4095 for i, t in enumerate(scale)]
    assert wide.calibration.scores == pytest.approx(
        fit(given, turns="never").calibration.scores, rel=0.05
    )


def test_a_white_level_that_is_given_is_taken(tmp_path: Path) -> None:
    for i in range(3):
        save(textured(i)[:, :, 0].astype(np.uint16) * 4, tmp_path / f"{i}.png")
    assert fit(tmp_path, white_level=1023, turns="never").white_level == 1023


# --- Updates --------------------------------------------------------------------------------------


def test_an_update_grows_the_bank_and_scores_by_the_contrast(model: Model, tmp_path: Path) -> None:
    dark = [textured(seed) for seed in range(100, 103)]
    for pixels in dark:
        pixels[:32, :32] //= 3
    new = [read_photo(pixels, name=f"new{i}.png") for i, pixels in enumerate(dark)]
    found = update(model, new)
    assert isinstance(found, Model)
    assert len(found.bank) > len(model.bank)
    assert found.representation is model.representation
    assert len(found.calibration.scores) == GOOD_PHOTOS + 3
    assert found.good.weighted.shape == found.good.distances.shape
    for i, photo in enumerate(new, start=GOOD_PHOTOS):
        others = found.bank.without(found.bank.photo == i)
        again = score_patches(model.represent(photo), others, model.settings.scoring, model.layout)
        # Of two rows as near, the last bits of a search decide; weighted, they are not as near.
        assert found.good.image_scores[i] == pytest.approx(again.image_score, rel=5e-3)
    found.save(tmp_path / "updated.rcp")
    loaded = reconpatch.load(tmp_path / "updated.rcp", threads=1)
    assert loaded.inspect(dark[0]).score == pytest.approx(found.inspect(dark[0]).score, rel=1e-5)


def test_an_update_without_contrast_keeps_one_array_of_distances(good_folder: Path) -> None:
    plain = fit(good_folder, method="patchcore", defects=0)
    found = update(plain, [read_photo(textured(100), name="new.png")])
    assert isinstance(found, Model)
    assert found.good.weighted is found.good.distances
