"""From photos to a model: methods, sources, order, seeds, progress, notes and the record kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import reconpatch
from conftest import GOOD_PHOTOS, SMALL_FIT, fill, save, scratched, textured
from reconpatch.errors import NotEnoughPhotosError, PhotoError, SettingsError
from reconpatch.features.backbones import BACKBONES, load_graph, spec
from reconpatch.features.feature_graph import feature_graph
from reconpatch.features.store import PatchStore
from reconpatch.fitting import memory as fit_memory
from reconpatch.fitting import model as fitting
from reconpatch.fitting import reading
from reconpatch.fitting.model import build_bank
from reconpatch.fitting.options import FitOptions, default_threads
from reconpatch.method.representation import Representation
from reconpatch.method.settings import settings_for
from reconpatch.model.model import Model


def fit(good: Any, **changes: Any) -> Model:
    return reconpatch.fit(good, **(SMALL_FIT | changes))


# --- Methods --------------------------------------------------------------------------------------


def test_the_three_methods_differ(good_folder: Path, small_model: Model) -> None:
    untrained = fit(good_folder, method="untrained")
    patchcore = fit(good_folder, method="patchcore")
    assert patchcore.representation.weight is None
    assert patchcore.bank.rows.shape[1] == 40 + 112  # Lite0's channels at strides 8 and 16
    assert untrained.representation.weight is not None
    assert small_model.representation.weight is not None
    assert untrained.representation.weight.shape == (16, 152)
    assert not np.array_equal(untrained.representation.weight, small_model.representation.weight)
    fingerprints = {model.fingerprint for model in (small_model, untrained, patchcore)}
    assert len(fingerprints) == 3
    assert patchcore.provenance["training"] is None
    assert small_model.provenance["training"]["steps"] == 5


@pytest.mark.parametrize("method", ["reconpatch", "untrained", "patchcore"])
def test_each_method_tells_a_scratch_from_good(method: str, good_folder: Path) -> None:
    model = fit(good_folder, method=method)
    assert not model.inspect(textured(1000)).anomalous
    assert model.inspect(scratched(textured(1000))).anomalous


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_named_backbone_fits(backbone: str, tmp_path: Path) -> None:
    folder = fill(tmp_path / "good", range(2))
    model = fit(folder, backbone=backbone, method="patchcore", bank=8)
    assert model.settings.backbone == backbone
    assert model.engine.grid == (8, 8)  # 64 pixels at stride 8
    assert len(model.bank) == 8
    assert model.provenance["weights"]["kind"] == "random"
    assert np.isfinite(model.inspect(textured(1000)).score)


def test_the_papers_recipe_runs_on_a_small_backbone(tmp_path: Path) -> None:
    model = reconpatch.fit(
        fill(tmp_path / "good", range(2)),
        recipe="paper",
        backbone="tf_efficientnet_lite0",
        weights="random",
        epochs=1,
        batch_size=784,
        threads=1,
    )
    assert model.settings.recipe == "paper"
    assert model.preprocessing.resize == 256
    # Two photos of 28 x 28 places make 1,568 patches: two batches of 784.
    assert model.provenance["training"]["steps"] == 2
    assert model.representation(np.zeros((1, 152), np.float32)).shape == (1, 512)
    assert len(model.bank) == 16  # 1 % of 1,568


def test_weights_are_never_random_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def load(spec: object, *, weights: object, **options: object) -> None:
        asked.append(weights)
        raise reconpatch.WeightsError("none here")

    monkeypatch.setattr("reconpatch.fitting.model.load_graph", load)
    with pytest.raises(reconpatch.WeightsError):
        reconpatch.fit(fill(tmp_path / "good", range(2)))
    assert asked == [None]


# --- The same again -------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_model(good_folder: Path, small_model: Model) -> None:
    again = fit(good_folder)
    assert again.fingerprint == small_model.fingerprint
    assert again.threshold == small_model.threshold
    assert np.array_equal(again.bank.rows, small_model.bank.rows)
    assert fit(good_folder, seed=1).fingerprint != small_model.fingerprint


def test_what_is_kept_for_display_does_not_change_the_fingerprint(
    good_folder: Path, small_model: Model
) -> None:
    without = fit(good_folder, thumbnails=False)
    assert len(small_model.thumbnails) == GOOD_PHOTOS
    assert len(without.thumbnails) == 0
    assert without.fingerprint == small_model.fingerprint


# --- Sources --------------------------------------------------------------------------------------


def test_photos_are_taken_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/2.png", "C.png", "a/10.png"):
        save(textured(len(name)), tmp_path / name)
    model = fit(tmp_path)
    assert [photo.name for photo in model.photos] == ["C.png", "a/10.png", "a/2.png", "b.png"]
    assert model.provenance["folder"] == tmp_path.name


def test_arrays_images_and_files_give_the_same_scores(
    good_folder: Path, small_model: Model
) -> None:
    paths = sorted(good_folder.iterdir())
    arrays = fit([textured(seed) for seed in range(GOOD_PHOTOS)])
    images = fit([Image.fromarray(textured(seed)) for seed in range(GOOD_PHOTOS)])
    files = fit([str(paths[0]), *paths[1:]])
    for model in (arrays, images, files):
        assert np.array_equal(model.calibration.scores, small_model.calibration.scores)
        assert [p.sha256 for p in model.photos] == [p.sha256 for p in small_model.photos]
    assert [photo.name for photo in arrays.photos][:2] == ["<photo 0>", "<photo 1>"]
    assert [photo.name for photo in files.photos] == [path.name for path in paths]
    assert arrays.provenance["folder"] == ""


def test_files_of_one_name_in_two_folders_are_two_parts(tmp_path: Path) -> None:
    paths = [save(textured(seed), tmp_path / f"day{seed}" / "part.png") for seed in (1, 2)]
    model = fit(paths)
    assert [photo.name for photo in model.photos] == ["day1/part.png", "day2/part.png"]
    assert [photo.group for photo in model.photos] == [0, 1]


def test_a_model_holds_no_path_of_the_machine(small_model_file: Path, good_folder: Path) -> None:
    assert str(good_folder.parent).encode() not in small_model_file.read_bytes()


def test_copies_of_a_picture_are_left_out_together(tmp_path: Path) -> None:
    folder = fill(tmp_path, range(3))
    save(textured(0), folder / "copy.bmp")
    model = fit(folder)
    assert [photo.group for photo in model.photos] == [0, 0, 1, 2]
    (note,) = model.provenance["notes"]
    assert note.startswith("1 of 4 photos is a copy of another, such as part000.png of copy.bmp")


def test_groups_are_named_by_a_pattern(tmp_path: Path) -> None:
    for seed in range(4):
        save(textured(seed), tmp_path / f"part{seed % 2}-{seed}.png")
    grouped = fit(tmp_path, group=r"part(\d)")
    single = fit(tmp_path)
    assert [photo.group for photo in grouped.photos] == [0, 0, 1, 1]
    assert [photo.group for photo in single.photos] == [0, 1, 2, 3]
    # With its sister shot away too, a photo can only look less like the rest.
    assert not np.array_equal(grouped.calibration.scores, single.calibration.scores)


@pytest.mark.parametrize("photos", [0, 1])
def test_too_few_photos_are_refused(photos: int) -> None:
    with pytest.raises(NotEnoughPhotosError, match="at least two different ones"):
        fit([textured(seed) for seed in range(photos)])


def test_a_folder_of_one_part_is_refused(tmp_path: Path) -> None:
    for seed in range(2):
        save(textured(seed), tmp_path / f"part7-{seed}.png")
    with pytest.raises(NotEnoughPhotosError, match="the 2 good photos are all of one part"):
        fit(tmp_path, group=r"part(\d)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 1.5])
def test_arrays_with_values_that_cannot_be_are_refused(value: float) -> None:
    bad = np.full((96, 96), 0.5)
    bad[5, 5] = value
    with pytest.raises(PhotoError, match=r"^<photo 1>: .*Nothing was fitted"):
        fit([textured(0), bad])


def test_unreadable_photos_are_skipped_with_a_note_when_told_to() -> None:
    bad = np.full((96, 96), np.nan)
    model = fit([textured(0), bad, textured(1)], skip_unreadable=True)
    assert [photo.name for photo in model.photos] == ["<photo 0>", "<photo 2>"]
    assert [note.startswith("left out: <photo 1>: ") for note in model.provenance["notes"]] == [
        True
    ]


def test_an_unknown_option_is_refused(good_folder: Path) -> None:
    with pytest.raises(SettingsError, match="false_alarm_rate"):
        fit(good_folder, false_alarms=0.01)


def test_more_photos_than_one_batch_of_the_backbone() -> None:
    count = reading._BATCH + 1
    photos = [textured(seed) for seed in range(count)]
    model = fit(photos, method="patchcore", thumbnails=False)
    assert len(model.photos) == len(model.calibration.scores) == count
    # The last photo, alone in its batch, has the features that it has by itself.
    alone = model.represent(reconpatch.photos.images.read_photo(photos[-1]))
    rows = model.bank.rows[model.bank.photo == count - 1]
    places = model.bank.place[model.bank.photo == count - 1]
    assert len(rows)
    assert rows == pytest.approx(alone[places], rel=1e-4, abs=1e-5)


# --- Progress -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unreadable", [False, True])
def test_progress_is_told_of_every_step_to_its_end(unreadable: bool) -> None:
    calls: list[tuple[str, int, int]] = []
    photos = [textured(seed) for seed in range(3)]
    photos += [np.full((96, 96), np.nan)] if unreadable else []
    fit(photos, progress=lambda *call: calls.append(call), skip_unreadable=unreadable)
    steps = list(dict.fromkeys(step for step, _, _ in calls))
    assert {"extract features", "train f", "build the memory bank", "calibrate"} <= set(steps)
    for step in steps:
        done = [done for name, done, _ in calls if name == step]
        totals = {total for name, _, total in calls if name == step}
        assert len(totals) == 1, step
        assert done == sorted(done), step
        assert done[-1] == totals.pop(), step


# --- The bank -------------------------------------------------------------------------------------


def test_every_row_of_the_bank_keeps_its_photo_and_place(small_model: Model) -> None:
    for index in range(GOOD_PHOTOS):
        mine = small_model.bank.photo == index
        r = small_model.represent(reconpatch.photos.images.read_photo(textured(index)))
        assert small_model.bank.rows[mine] == pytest.approx(
            r[small_model.bank.place[mine]], rel=1e-3, abs=1e-4
        )


def test_a_whole_bank_holds_every_patch() -> None:
    r = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    bank = build_bank(PatchStore.of(r.reshape(3, 4, 5)), settings_for(bank=12))
    assert sorted(zip(bank.photo, bank.place, strict=True)) == [
        (photo, place) for photo in range(3) for place in range(4)
    ]
    assert np.array_equal(bank.rows, r[bank.photo * 4 + bank.place])


def test_the_radius_of_the_bank_covers_every_patch(small_model: Model) -> None:
    bank = small_model.bank.rows.astype(np.float64)
    nearest = [
        np.linalg.norm(patch - bank, axis=1).min()
        for i in range(GOOD_PHOTOS)
        for patch in small_model.represent(reconpatch.photos.images.read_photo(textured(i)))
    ]
    assert small_model.provenance["coreset_radius"] == pytest.approx(max(nearest), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "most"),
    [({"memory": 500}, 2**22), ({"memory": 2000}, 2**22), ({"memory": 3900}, 2**22),
     ({}, 30), ({"mapped": True}, 30), ({"mapped": True}, 190)],
)  # fmt: skip
def test_a_bank_of_parts_covers_nearly_as_well_as_one_in_one_piece(
    options: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = np.random.default_rng(0).normal(size=(50, 4, 5)).astype(np.float32)
    settings = settings_for(bank=12)
    whole = build_bank(PatchStore.of(r), settings)
    monkeypatch.setattr("reconpatch.features.store.MOST_AT_HAND", most)
    with PatchStore(50, 4, 5, **options) as store:
        store.add(r)
        assert store.patches > store.at_hand
        merged = build_bank(store, settings)
    assert len(merged) == 12
    assert len({*zip(merged.photo.tolist(), merged.place.tolist(), strict=True)}) == 12
    np.testing.assert_array_equal(merged.rows, r[merged.photo, merged.place])
    radii = [float(bank.nearest(r.reshape(-1, 5))[0].max()) for bank in (whole, merged)]
    # Greedy is within twice the best, of the parts and of their union: 4 times it at most.
    assert radii[1] <= 4 * radii[0]


def test_within_a_memory_limit_the_model_is_nearly_the_same(
    good_folder: Path, small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_memory, "_check_limit", lambda *_: None)
    limited = fit(good_folder, memory_limit=fit_memory.LIMIT_SHARE * 300 * 152 * 4)
    assert limited.provenance["notes"] == [
        "f was learned from 300 of the 512 patches, drawn at random: as many as the memory limit "
        "allows.",
        "The bank is a coreset of coresets: it was picked among 512 patches in parts of 300 at "
        "most.",
    ]
    assert len(limited.bank) == len(small_model.bank)
    assert limited.provenance["coreset_radius"] == pytest.approx(
        small_model.provenance["coreset_radius"], rel=0.5
    )
    assert limited.inspect(scratched(textured(1000))).anomalous
    assert not limited.inspect(textured(1000)).anomalous


def test_photos_that_were_left_out_leave_fewer_patches_than_are_at_hand(
    good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_memory, "_check_limit", lambda *_: None)
    good = fill(tmp_path / "good", range(4))
    for i in range(4):
        (good / f"torn{i}.png").write_bytes(b"torn")
    limit = fit_memory.LIMIT_SHARE * 300 * 152 * 4  # 300 of the 512 patches that 8 photos have
    model = fit(good, memory_limit=limit, skip_unreadable=True)
    assert len(model.photos) == 4
    assert not any("at random" in note for note in model.provenance["notes"])


def test_a_limit_that_leaves_no_room_is_refused(good_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"the memory limit is 1 MiB.*give \d+ MiB or more"):
        fit(good_folder, memory_limit=2**20)


# --- The record -----------------------------------------------------------------------------------


def test_the_provenance_can_be_written_as_json(small_model: Model) -> None:
    record = json.loads(json.dumps(small_model.provenance))
    assert record["weights"] == {
        "kind": "random",
        "location": "seed 0",
        "sha256": "",
        "licence": "Apache-2.0",
    }
    assert record["versions"]["reconpatch"] == reconpatch.__version__
    assert record["features"] == "FeatureExtractor, 1 threads"
    assert all(seconds >= 0 for seconds in record["seconds"].values())
    assert record["notes"] == []


def test_the_fingerprint_of_the_data_follows_names_and_pixels(
    good_folder: Path, small_model: Model, tmp_path: Path
) -> None:
    def of(photos: list[Path]) -> str:
        fingerprint: str = fit(photos).provenance["data_sha256"]
        return fingerprint

    paths = sorted(good_folder.iterdir())
    renamed = save(textured(0), tmp_path / "other.png")
    changed = save(scratched(textured(0)), tmp_path / "part000.png")
    assert of(paths) == small_model.provenance["data_sha256"]
    fingerprints = {of(paths), of([renamed, *paths[1:]]), of([changed, *paths[1:]])}
    assert len(fingerprints) == 3


def test_thumbnails_show_the_photos_in_small() -> None:
    import io

    model = fit([textured(0, 300, 600), textured(1)])
    sizes = [Image.open(io.BytesIO(thumbnail)).size for thumbnail in model.thumbnails]
    assert sizes == [(256, 128), (96, 96)]


# --- Engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "expected"), [("3", 3), ("0", None), ("", None), ("many", None), (None, None)]
)
def test_threads_follow_the_environment(
    stated: str | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert default_threads() == (expected or 6)


def test_another_device_is_served_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def stand_in(module: torch.nn.Module, size: tuple[int, int], device: str, onto: Any) -> str:
        given.extend([size, device, onto])
        return "the engine of that device"

    monkeypatch.setattr("reconpatch.features.patch_features.TorchFeatureExtractor", stand_in)
    settings = settings_for(size=(64, 96))
    options = FitOptions(weights="random", device="cuda")
    extractor = fitting._extractor(b"", settings, options, threads=1)
    assert str(extractor) == "the engine of that device"
    assert given == [(64, 96), "cuda", None]


def test_both_engines_extract_the_same_features() -> None:
    from reconpatch.features.patch_features import TorchFeatureExtractor

    engines: list[Any] = []

    def on_the_cpu(module: Any, size: tuple[int, int], device: str, onto: Any) -> Any:
        engines.append(TorchFeatureExtractor(module, size, "cpu", onto))
        return engines[-1]

    settings = settings_for(size=(64, 64))
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(384, 1064)).astype(np.float32)
    onto = Representation(weight, rng.normal(size=384).astype(np.float32))
    backbone, _ = load_graph(
        spec(settings.backbone), weights="random", input_size=(64, 64), expanded=True
    )
    graph = feature_graph(backbone, settings.neighbourhood, onto)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reconpatch.features.patch_features.TorchFeatureExtractor", on_the_cpu)
        options = FitOptions(weights="random", device="cuda")
        fitting._extractor(graph, settings, options, 1, onto)
    onnx = fitting._extractor(graph, settings, FitOptions(weights="random"), 1, onto)
    photos = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    (engine,) = engines
    assert (engine.grid, engine.channels) == (onnx.grid, onnx.channels)
    found, expected = engine(photos), onnx(photos)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()  # sums of 1,064 terms


@pytest.mark.parametrize("device", ["abacus", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(device: str, good_folder: Path) -> None:
    with pytest.raises(SettingsError, match="cpu"):
        fit(good_folder, device=device)


# the trial on made defects, and the guard


def guarded(folder: Path, **changes: Any) -> Model:
    return fit(
        folder,
        **({"init": "relevant_components", "steps": 0, "epochs": 0, "guard": True} | changes),
    )


def test_the_guard_keeps_the_one_that_ranks_higher_and_says_so(good_folder: Path) -> None:
    model = guarded(good_folder, dim=0)
    found = model.provenance["guard"]
    rank = {name: sum(found[name].values()) for name in ("learned", "identity")}
    identity_is_better = rank["identity"] > rank["learned"]
    assert found["kept"] == ("identity" if identity_is_better else "learned")
    assert (model.representation.weight is None) == identity_is_better
    assert (found["sentence"] in model.provenance["notes"]) == identity_is_better
    seconds = model.provenance["seconds"]
    assert seconds.keys() >= {"build the memory bank", "identity: build the memory bank"}


@pytest.mark.parametrize("better", ["learned", "identity"])
def test_what_the_guard_decides_is_what_is_fitted(
    better: str, good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = {"learned": 0.0, "identity": 0.0} | {better: 1.0}
    order = iter(["identity", "learned"])
    judge_on_defects = fitting.judge_on_defects

    def ranked(*arguments: Any, **options: Any) -> Any:
        trial = judge_on_defects(*arguments, **options)
        return replace(trial, pixel_ap=ranks[next(order)], quality=trial.quality)

    alone = fit(good_folder, method="patchcore") if better == "identity" else None
    monkeypatch.setattr(fitting, "judge_on_defects", ranked)
    model = guarded(good_folder, dim=12, overall_share=0.0)
    assert model.provenance["guard"]["kept"] == better
    if alone is not None:
        assert model.representation.weight is None
        np.testing.assert_array_equal(model.bank.rows, alone.bank.rows)
        np.testing.assert_array_equal(model.calibration.scores, alone.calibration.scores)
    else:
        assert model.representation.weight is not None
        assert model.bank.rows.shape[1] == 12


@pytest.mark.parametrize("changes", [{"guard": False}, {"method": "untrained"}, {"defects": 0}])
def test_without_a_guard_nothing_is_compared(changes: dict[str, Any], good_folder: Path) -> None:
    options = {"guard": True} | changes
    if options.get("defects") == 0:
        options["guard"] = False
    model = guarded(good_folder, **options)
    assert model.provenance["guard"] is None
    assert (model.provenance["quality"] is None) == (options.get("defects") == 0)


def test_the_quality_is_estimated_on_as_many_photos_as_asked_for(good_folder: Path) -> None:
    model = fit(good_folder, defects=3)
    assert model.provenance["quality"]["defects"] == 3
    assert model.provenance["quality"]["good"] == GOOD_PHOTOS


def test_the_size_comes_from_the_photos(tmp_path: Path) -> None:
    for i, side in enumerate((330, 340, 400)):
        save(textured(i, side, 2 * side), tmp_path / "good" / f"{i}.png")
    model = fit(tmp_path / "good", size=(0, 0), bank=10)
    assert model.settings.size == (224, 448)
    small = fit(tmp_path / "good", size=(0, 0), size_limit=300, bank=10)
    assert small.settings.size == (160, 320)


def test_fewer_candidates_pick_among_fewer_patches() -> None:
    r = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    store = PatchStore.of(r.reshape(10, 20, 3))
    everything = build_bank(store, settings_for(bank=9, candidates=0))
    same = build_bank(store, settings_for(bank=9, candidates=200))
    few = build_bank(store, settings_for(bank=9, candidates=9))
    np.testing.assert_array_equal(everything.rows, same.rows)
    assert len(few) == 9
    assert len({(a, b) for a, b in zip(few.photo, few.place, strict=True)}) == 9


def test_of_very_many_photos_some_are_scored_and_those_with_rows_have_thumbnails(
    good_folder: Path, small_model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("reconpatch.model.good_photos.CALIBRATED", 3)
    monkeypatch.setattr(reading, "CALIBRATED", 3)
    model = fit(good_folder, bank=5)
    assert len(model.photos) == GOOD_PHOTOS
    assert model.good.photos.tolist() == [0, 4, 7]  # evenly spread, the last one among them
    assert len(model.calibration.scores) == 3
    assert model.calibration.source.startswith("3 of the 8 good photos of the fit")
    with_rows = set(model.bank.photo.tolist())
    assert {i for i, picture in enumerate(model.thumbnails) if picture} == with_rows
    for i in with_rows:
        assert model.thumbnails[i] == small_model.thumbnails[i]
    model.save(tmp_path / "many.rcp")
    loaded = reconpatch.load(tmp_path / "many.rcp")
    result = loaded.inspect(scratched(textured(1000)))
    assert result.closest.thumbnail == model.thumbnails[int(result.closest.photo[4:7])]


def test_the_radius_counts_photos_that_are_not_scored(
    good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = fit(good_folder, bank=5)
    monkeypatch.setattr("reconpatch.model.good_photos.CALIBRATED", 3)
    some = fit(good_folder, bank=5)
    assert some.provenance["coreset_radius"] == pytest.approx(
        everyone.provenance["coreset_radius"], rel=1e-6
    )
