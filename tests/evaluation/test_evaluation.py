"""The figures of a model on labelled photos, against figures counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from conftest import fill, save, scratch_mask, scratched, textured
from reconpatch.errors import PhotoError
from reconpatch.evaluation.datasets import LabelledPhoto, labelled_photos
from reconpatch.evaluation.evaluate import Evaluation, evaluate
from reconpatch.method.calibration import Calibration
from reconpatch.model.model import Model
from reconpatch.result import Result


@pytest.fixture
def category(tmp_path: Path) -> Path:
    """MVTec's layout: 4 good photos, 2 with a scratch, 1 with half of one; masks for the three."""
    fill(tmp_path / "test" / "good", range(2000, 2004))
    for seed, kind in ((2004, "scratch"), (2005, "scratch"), (2006, "notch")):
        whole = scratch_mask()
        mask = whole & (np.arange(96) < 48) if kind == "notch" else whole
        photo = np.where(mask[:, :, None], scratched(textured(seed)), textured(seed))
        save(photo, tmp_path / "test" / kind / f"{seed}.png")
        white = mask.astype(np.uint8) * 255
        save(white, tmp_path / "ground_truth" / kind / f"{seed}_mask.png")
    return tmp_path


def figures_of(model: Model, category: Path) -> Evaluation:
    return evaluate(model, labelled_photos(category)[0])


def with_scores(model: Model, scores: list[float], rate: float = 0.01) -> Model:
    """The model as if its good photos had had these scores."""
    numbers = np.array(scores)
    return replace(model, calibration=Calibration(numbers, numbers, rate, "made up"))


# --- Layout ---------------------------------------------------------------------------------------


def test_photos_are_labelled_by_their_folders(category: Path) -> None:
    photos = labelled_photos(category / "test")[0]
    assert [(p.label, p.path.name, p.masks[0].name if p.masks else None) for p in photos] == [
        ("good", "part2000.png", None),
        ("good", "part2001.png", None),
        ("good", "part2002.png", None),
        ("good", "part2003.png", None),
        ("notch", "2006.png", "2006_mask.png"),
        ("scratch", "2004.png", "2004_mask.png"),
        ("scratch", "2005.png", "2005_mask.png"),
    ]
    assert [photo.defective for photo in photos] == [False] * 4 + [True] * 3


def test_the_folder_of_the_category_will_do(category: Path) -> None:
    assert labelled_photos(category)[0] == labelled_photos(category / "test")[0]


def test_masks_are_found_from_within_the_folder(
    category: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(category / "test")
    assert sum(bool(photo.masks) for photo in labelled_photos(Path())[0]) == 3


def test_a_mask_of_another_size_is_refused(category: Path, small_model: Model) -> None:
    mask = category / "ground_truth" / "notch" / "2006_mask.png"
    save(np.zeros((96, 48), np.uint8), mask)
    with pytest.raises(PhotoError, match=r"2006_mask\.png has 48 x 96 pixels .* has 96 x 96"):
        figures_of(small_model, category)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="does not exist"):
        labelled_photos(tmp_path / "missing")


# --- Figures --------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_single_verdicts(category: Path, small_model: Model) -> None:
    kept: list[tuple[Result, LabelledPhoto]] = []
    calls: list[tuple[str, int, int]] = []
    figures = evaluate(
        small_model,
        labelled_photos(category)[0],
        keep=lambda _, result, photo: kept.append((result, photo)),
        progress=lambda *call: calls.append(call),
    )
    labels = [photo.defective for _, photo in kept]
    scores = [small_model.inspect(photo.path).score for _, photo in kept]
    assert scores == [result.score for result, _ in kept]
    assert figures.metrics["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert figures.metrics["image_ap"] == pytest.approx(average_precision_score(labels, scores))
    assert (figures.good, figures.defective, figures.masks) == (4, 3, 3)

    truth = [np.zeros((96, 96), bool) if not photo.masks else scratch_mask() for _, photo in kept]
    truth[4] &= np.arange(96) < 48  # the notch
    flat = np.concatenate([mask.ravel() for mask in truth])
    heat = np.concatenate([result.heatmap.ravel() for result, _ in kept])
    assert figures.metrics["pixel_auroc"] == pytest.approx(roc_auc_score(flat, heat), abs=1e-3)
    assert figures.metrics["pixel_ap"] == pytest.approx(
        average_precision_score(flat, heat), abs=1e-2
    )
    assert 0 < (figures.metrics["aupro"] or 0) <= 1
    assert calls == [("inspect", done, 7) for done in range(1, 8)]
    assert figures.milliseconds > 0


def test_flagged_photos_are_counted_for_each_kind(category: Path, small_model: Model) -> None:
    scores = {p.path.name: small_model.inspect(p.path).score for p in labelled_photos(category)[0]}
    good = sorted(score for name, score in scores.items() if name.startswith("part"))
    # Set by hand between the second and the third good photo: two of four are false alarms.
    figures = figures_of(small_model.with_threshold((good[1] + good[2]) / 2), category)
    assert figures.false_alarms == 2
    assert figures.detected == {"notch": (1, 1), "scratch": (2, 2)}
    # Above everything: nothing is flagged.
    figures = figures_of(small_model.with_threshold(max(scores.values())), category)
    assert figures.false_alarms == 0
    assert figures.detected == {"notch": (0, 1), "scratch": (0, 2)}


def test_the_range_of_false_alarms_counts_both_samples(category: Path, small_model: Model) -> None:
    # One calibration score, the largest: a new photo exceeds it with a chance U uniform in 0 to 1,
    # so 0, 1, 2, 3 and 4 of 4 are equally likely, and 95 % takes all of them.
    figures = figures_of(with_scores(small_model, [1.0]), category)
    assert figures.false_alarm_interval == (0, 4)
    # 999 scores, the largest: each of 4 photos exceeds it once in a thousand fits.
    figures = figures_of(with_scores(small_model, list(np.linspace(1, 2, 999)), 1e-6), category)
    assert figures.false_alarm_interval == (0, 0)


def test_a_threshold_below_every_good_score_flags_everything(
    category: Path, small_model: Model
) -> None:
    figures = figures_of(small_model.with_threshold(0.0), category)
    assert figures.false_alarms == 4
    assert figures.false_alarm_interval == (4, 4)
    assert figures.detected == {"notch": (1, 1), "scratch": (2, 2)}


def test_good_photos_that_look_different_are_noticed(category: Path, small_model: Model) -> None:
    alike = figures_of(small_model, category).shift
    assert alike is not None
    assert not alike.different
    lower = list(np.linspace(1e-6, 2e-6, 200))
    shifted = figures_of(with_scores(small_model, lower), category).shift
    assert shifted is not None
    assert shifted.different
    assert "look different" in shifted.message


def without(category: Path, *kinds: str) -> Path:
    for kind in kinds:
        for path in (category / "test" / kind).iterdir():
            path.unlink()
    return category


def test_good_photos_alone(category: Path, small_model: Model) -> None:
    figures = figures_of(small_model, without(category, "scratch", "notch"))
    assert (figures.good, figures.defective) == (4, 0)
    assert figures.metrics == dict.fromkeys(("image_auroc", "image_ap", "image_f1_max_oracle"))
    assert figures.detected == {}
    assert figures.shift is not None


def test_defective_photos_alone(category: Path, small_model: Model) -> None:
    figures = figures_of(small_model, without(category, "good"))
    assert (figures.good, figures.defective, figures.false_alarms) == (0, 3, 0)
    assert figures.false_alarm_interval == (0, 0)
    assert figures.metrics["image_auroc"] is None
    assert figures.shift is None
    assert figures.metrics["pixel_auroc"] is not None  # the pixels around the defects are good ones
    json.dumps(figures.to_dict())


def test_masks_that_show_nothing_give_no_pixel_figures(category: Path, small_model: Model) -> None:
    for path in category.glob("ground_truth/*/*.png"):
        save(np.zeros((96, 96), np.uint8), path)
    assert "pixel_auroc" not in figures_of(small_model, category).metrics


def test_a_pixel_of_a_mask_counts_above_half_of_white(category: Path, small_model: Model) -> None:
    def save_masks(value: int) -> None:
        for path in category.glob("ground_truth/*/*.png"):
            save(scratch_mask().astype(np.uint8) * np.uint8(value), path)

    save_masks(128)
    assert "pixel_auroc" in figures_of(small_model, category).metrics
    save_masks(127)
    with pytest.raises(PhotoError, match="only those above 127 count"):
        figures_of(small_model, category)


def test_figures_as_json() -> None:
    metrics = {
        "image_auroc": 0.75, "image_ap": 0.5, "image_f1_max_oracle": 0.8, "pixel_auroc": 0.9,
        "pixel_ap": 0.4, "pixel_f1_max_oracle": 0.5, "aupro": 0.7, "aupro_005": 0.6,
    }  # fmt: skip
    figures = Evaluation(
        good=4,
        defective=3,
        detected={"scratch": (2, 3)},
        false_alarms=1,
        false_alarm_interval=(0, 2),
        shift=None,
        metrics=metrics,
        masks=3,
        milliseconds=12.5,
    )
    assert json.loads(json.dumps(figures.to_dict())) == {
        "photos": {"good": 4, "defective": 3, "masks": 3},
        **metrics,
        "false_alarms": 1,
        "false_alarm_interval_95": [0, 2],
        "detected": {"scratch": {"flagged": 2, "photos": 3}},
        "good_photos_look_different": None,
        "good_photos_message": None,
        "good_photos_of_the_fit": 0,
        "notes": [],
        "milliseconds_per_photo": 12.5,
        "pixel_resolution": "the photos' own pixels; a mask's pixel counts above half of white",
    }
