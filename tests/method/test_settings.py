"""The two recipes, changes by name, and what is refused in plain words."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconpatch.errors import SettingsError
from reconpatch.method.representation import TrainingSettings
from reconpatch.method.scoring import ScoringSettings
from reconpatch.method.settings import (
    AUTOMATIC,
    AUTOMATIC_SIZES,
    QUALITIES,
    RECIPES,
    FitSettings,
    automatic_size,
    automatic_tile,
    in_shape,
    parse_assignments,
    settings_for,
    squeeze_note,
)

# Only results are judged here, not how long they take.
any_time = settings(deadline=None)


def names_of(kind: Any) -> set[str]:
    return {f.name for f in fields(kind)}


# recipes


def test_the_paper_recipe_has_the_papers_values() -> None:
    paper = settings_for("paper")
    assert paper.recipe == "paper"
    assert paper.method == "reconpatch"
    assert (paper.backbone, paper.size, paper.resize) == ("wide_resnet50_2", (224, 224), 256)
    assert (paper.neighbourhood, paper.bank) == (3, 0.01)
    training = paper.training
    assert (training.dim, training.epochs, training.steps) == (512, 120, 0)
    assert (training.learning_rate, training.weight_decay) == (1e-5, 1e-2)
    assert (training.k, training.alpha, training.margin) == (5, 0.5, 1.0)
    assert paper.scoring.blur == 4.0


def test_the_default_recipe_is_the_one_that_needs_no_network() -> None:
    default = settings_for()
    assert default == RECIPES["default"]
    assert default.recipe == "default"
    assert default.backbone == "tf_efficientnet_lite0"
    assert default.resize == 0  # nothing is cropped
    assert default.size == AUTOMATIC
    assert (default.training.init, default.training.total_steps(10**6)) == ("contrastive", 0)


@pytest.mark.parametrize(
    ("photo", "limit", "size"),
    [
        ((100, 100), 320, (224, 224)),  # never fewer pixels than the smallest
        ((319, 330), 320, (224, 224)),  # no photo is enlarged
        ((320, 320), 320, (320, 320)),
        ((900, 1000), 320, (320, 320)),
        ((447, 447), 448, (320, 320)),
        ((448, 448), 448, (448, 448)),
        ((5000, 5000), 1000, (448, 448)),
        ((5000, 5000), 224, (224, 224)),
        ((1280, 1600), 320, (320, 320)),  # 1.25 : 1 is square enough
        ((480, 640), 224, (192, 256)),  # 224 / sqrt(4/3) = 194, 224 * sqrt(4/3) = 259
        ((640, 480), 224, (256, 192)),
        ((850, 1700), 320, (224, 448)),  # 226, 453
        ((1200, 400), 224, (384, 128)),  # 388, 129
        ((200, 8000), 320, (64, 768)),  # 64 at least, and 224² / 64 = 784 at most
        ((8000, 400), 320, (1440, 64)),  # 320 * sqrt(20) = 1431, 320² / 64 = 1600 at most
    ],
)
def test_the_automatic_size_by_hand(
    photo: tuple[int, int], limit: int, size: tuple[int, int]
) -> None:
    assert automatic_size(photo, limit) == size


@given(
    side=st.sampled_from(AUTOMATIC_SIZES),
    shorter=st.integers(16, 4000),
    ratio=st.floats(1, 60),
)
def test_an_automatic_size_has_the_photos_shape_and_the_squares_pixels(
    side: int, shorter: int, ratio: float
) -> None:
    photo = shorter, round(shorter * ratio)
    short, long = in_shape(side, photo)
    assert in_shape(side, photo[::-1]) == (long, short)
    assert short % 32 == long % 32 == 0
    assert 64 <= short <= long
    assert 0.75 <= short * long / side**2 <= 1.25
    real = photo[1] / photo[0]
    if real <= side**2 / 64**2:
        assert 1 / 1.3 < (long / short) / real < 1.3
    else:
        assert short == 64


def test_a_photo_shown_far_from_its_shape_is_told() -> None:
    fast = settings_for(**QUALITIES["fast"][0])
    for photo, said in (((200, 8000), "3.3 times"), ((1000, 1600), ""), ((200, 2400), "")):
        notes = squeeze_note(automatic_tile(fast, photo), photo)
        assert [said in note for note in notes] == ([True] if said else [])
    [note] = squeeze_note(settings_for(size=224), (100, 400))
    assert "Photos of 400 x 100 pixels" in note
    assert "4.0 times" in note
    assert squeeze_note(settings_for(size=224, tile=256), (100, 400)) == []
    assert squeeze_note(settings_for("paper"), (100, 400)) == []


@pytest.mark.parametrize(
    ("channels", "basis", "dim", "principal"),
    [(1064, 384, 128, 64), (384, 384, 128, 64), (200, 200, 128, 64), (101, 101, 101, 50)],
)
def test_no_more_directions_than_channels(
    channels: int, basis: int, dim: int, principal: int
) -> None:
    fitted = settings_for().fitted_to(channels)
    assert (fitted.training.basis, fitted.training.dim) == (basis, dim)
    assert fitted.training.principal == fitted.scoring.principal == principal
    assert fitted.fitted_to(channels) == fitted


def test_settings_without_a_basis_fit_any_features() -> None:
    for recipe in (settings_for("paper"), settings_for(method="patchcore")):
        assert recipe.fitted_to(3) is recipe
    of_p = settings_for(init="pca", basis=50, dim=20, contrast=3.0).fitted_to(152)
    assert of_p.scoring.principal == 20  # none of them is a contrastive one


def test_no_made_defects_means_no_guard() -> None:
    kin = {"init": "relevant_components", "guard": True}
    assert settings_for(**kin).guard
    with pytest.raises(SettingsError, match="guard is on and defects is 0"):
        settings_for(**kin, defects=0)


@pytest.mark.parametrize(("b", "top"), [(1, 0.005), (3, 0.0)])
def test_reweighting_takes_the_largest_distance(b: int, top: float) -> None:
    assert settings_for(b=b).scoring.top == top
    assert settings_for(**parse_assignments([f"b={b}"])).scoring.top == top


@pytest.mark.parametrize("top", ["top=0", "top=0.0"])
def test_the_largest_distance_is_not_smoothed(top: str) -> None:
    assert settings_for(**parse_assignments([top])).scoring.smooth == 0.0


def test_auto_is_the_automatic_size() -> None:
    assert settings_for(size="auto").size == AUTOMATIC


def test_a_file_from_before_the_guard_had_none() -> None:
    values = settings_for(guard=False, defects=0, top=0.0).to_dict()
    for name in ("guard", "defects", "candidates", "size_limit"):
        del values[name]
    del values["scoring"]["top"]
    old = FitSettings.from_dict(values)
    assert (old.guard, old.defects, old.candidates, old.scoring.top) == (False, 0, 0, 0.0)


def test_recipes_are_named_as_they_are_kept() -> None:
    assert {name: recipe.recipe for name, recipe in RECIPES.items()} == {
        "default": "default",
        "paper": "paper",
    }


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(SettingsError, match="'fast': give one of default, paper"):
        settings_for("fast")


# changes by name


def test_changes_reach_all_three_kinds_of_settings_and_nothing_else() -> None:
    changed = settings_for("paper", seed=1, alpha=0.3, dim=64, b=3, bank=20000)
    assert (changed.seed, changed.bank) == (1, 20000)
    assert (changed.training.alpha, changed.training.dim) == (0.3, 64)
    assert changed.scoring.b == 3

    expected = settings_for("paper").to_dict()
    expected.update(seed=1, bank=20000)
    expected["training"].update(alpha=0.3, dim=64)
    expected["scoring"].update(b=3)
    assert changed.to_dict() == expected
    assert settings_for("paper").training.alpha == 0.5  # the recipe itself stays


def test_a_name_goes_into_whole_settings_given_beside_it() -> None:
    changed = settings_for(training=TrainingSettings(dim=7, k=2), alpha=0.1)
    assert changed.training == TrainingSettings(dim=7, k=2, alpha=0.1)
    assert settings_for(scoring=ScoringSettings(b=4)).scoring.b == 4


def test_no_name_means_two_things() -> None:
    for one, other in combinations((FitSettings, TrainingSettings, ScoringSettings), 2):
        assert not names_of(one) & names_of(other)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("alhpa", "alpha"), ("sede", "seed"), ("blurr", "blur"), ("false_alarm", "false_alarm_rate")],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_for(recipe="default", **{name: 1})
    assert f"there is no setting {name!r} (did you mean " in str(caught.value)
    assert meant in str(caught.value)


def test_a_name_like_no_other_is_refused_with_all_known_ones() -> None:
    with pytest.raises(SettingsError, match="no setting 'xyzzy': known are ") as caught:
        settings_for(xyzzy=1)
    for kind in (FitSettings, TrainingSettings, ScoringSettings):
        for name in names_of(kind):
            assert name in str(caught.value)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        settings_for().seed = 3  # type: ignore[misc]


# ranges


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "method is 'magic': give 'reconpatch', 'untrained' or 'patchcore'"),
        ({"size": (31, 224)}, "31 x 224 (height x width): give 32 to 4096"),
        ({"size": (224, 4097)}, "224 x 4097 (height x width): give 32 to 4096"),
        ({"size": (0, 224)}, "0 x 224 (height x width): give 32 to 4096"),
        ({"size_limit": 223}, "size_limit is 223: give 224"),
        ({"resize": 256}, "the input size is left to the photos: give the size"),
        ({"candidates": -1}, "candidates is -1: give 0 (all) or more"),
        ({"defects": -1, "guard": False}, "defects is -1: give 0 (no estimate)"),
        (
            {"init": "relevant_components", "defects": 0, "guard": True},
            "guard is on and defects is 0",
        ),
        (
            {"init": "relevant_components", "guard": True, "defects": 1},
            "guard is on and defects is 1",
        ),
        ({"guard": True}, "guard is on and basis is 384"),
        ({"turns": "sometimes"}, "turns is 'sometimes': give 'never', 'auto' or 'always'"),
        (
            {"resize": 200, "size": 224},
            "resize is 200, smaller than the crop of 224 x 224: give at least 224",
        ),
        ({"resize": -1}, "resize is -1"),
        ({"resize": 300, "size": (64, 320)}, "give at least 320, or 0"),
        ({"neighbourhood": 2}, "neighbourhood is 2: give an odd number"),
        ({"neighbourhood": 0}, "neighbourhood is 0: give an odd number"),
        ({"neighbourhood": -1}, "neighbourhood is -1: give an odd number"),
        ({"projection": -1}, "projection is -1: give 0 (none) or more"),
        ({"seed": -1}, "seed is -1: give a whole number, 0 or more"),
        ({"bank": 0}, "memory bank's size is 0.0: give a share"),
        ({"bank": -0.5}, "memory bank's size is -0.5: give a share"),
        ({"bank": 1.5}, "memory bank's size is 1.5: give a share"),
        ({"bank": math.nan}, "memory bank's size is nan: give a share"),
        ({"false_alarm_rate": 0.0}, "false-alarm rate is 0: give a number between 0 and 1"),
        ({"false_alarm_rate": 1.0}, "false-alarm rate is 1: give a number between 0 and 1"),
        ({"false_alarm_rate": math.nan}, "false-alarm rate is nan"),
        ({"alpha": 1.5}, "alpha is 1.5: give 0 to 1"),
        ({"learning_rate": 0}, "learning_rate is 0.0: give a number above 0"),
        ({"b": 0}, "b is 0: give 1"),
        ({"reweight": "all"}, "reweight is 'all': give 'largest' or 'every'"),
        ({"blur": -1.0}, "blur is -1.0: give 0 to 100"),
    ],
)
def test_a_value_out_of_its_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_for(**change)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"size": (32, 4096)},
        {"size_limit": 224},
        {"candidates": 0},
        {"defects": 0},
        {"neighbourhood": 1},
        {"projection": 0},
        {"seed": 0},
        {"bank": 1},
        {"bank": 1e-9},
        {"bank": 20000.0},
        {"false_alarm_rate": 0.999},
        {"method": "patchcore"},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(change: dict[str, Any]) -> None:
    (name,) = change
    assert getattr(settings_for(**change), name) == change[name]


# assignments


def test_assignments_take_the_type_of_their_setting() -> None:
    values = parse_assignments(
        [
            "k=7",
            "alpha=0.25",
            "learning_rate=1e-4",
            "include_self=False",
            "bias=true",
            "init=pca",
            "b=9",
            "reweight=every",
            "neighbourhood=5",
            "projection=0",
            "margin=2",
        ]
    )
    assert values == {
        "k": 7,
        "alpha": 0.25,
        "learning_rate": 1e-4,
        "include_self": False,
        "bias": True,
        "init": "pca",
        "b": 9,
        "reweight": "every",
        "neighbourhood": 5,
        "projection": 0,
        "margin": 2.0,
    }
    types = {name: type(value) for name, value in values.items()}
    assert (types["k"], types["margin"], types["include_self"]) == (int, float, bool)
    assert settings_for("paper", **values).training.init == "pca"


def test_of_two_assignments_the_last_counts_and_none_is_none() -> None:
    assert parse_assignments(["k=3", "k=4"]) == {"k": 4}
    assert parse_assignments([]) == {}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("k=five", "k is 'five': give a whole number"),
        ("k=5.0", "k is '5.0': give a whole number"),
        ("k=", "k is '': give a whole number"),
        ("alpha=half", "alpha is 'half': give a number"),
        ("bias=yes", "bias is 'yes': give true or false"),
        ("alpha", "--set takes NAME=VALUE with the name of a setting, and 'alpha' was given"),
        ("=3", "and '=3' was given"),
        ("alhpa=0.3", "and 'alhpa=0.3' was given (did you mean alpha"),
    ],
)
def test_an_assignment_that_says_nothing_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_assignments(["k=3", assignment])
    assert message in str(caught.value)


def test_a_setting_with_an_option_of_its_own_is_not_suggested_as_an_assignment() -> None:
    with pytest.raises(SettingsError, match="'backbone=x' was given: known are ") as caught:
        parse_assignments(["backbone=x"], apart=["backbone", "false_alarm_rate"])
    assert "false_alarm_rate" not in str(caught.value)
    assert "neighbourhood" in str(caught.value)


def test_an_assigned_value_out_of_its_range_is_refused_when_it_is_used() -> None:
    for assignment in ("sigma=nan", "sigma=inf", "scale=max"):
        values = parse_assignments([assignment])
        with pytest.raises(SettingsError, match=r"is .*: give "):
            settings_for(**values)


@any_time
@given(st.floats(1e-6, 1e6), st.integers(1, 500), st.booleans())
def test_values_survive_being_written_as_assignments(sigma: float, k: int, bias: bool) -> None:
    values = parse_assignments([f"sigma={sigma!r}", f"k={k}", f"bias={bias}"])
    assert values == {"sigma": sigma, "k": k, "bias": bias}


# numbers of numpy, and text


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (np.int64(224), (224, 224)), (np.uint16(96), (96, 96)), ("224", (224, 224)),
        ("64x96", (64, 96)), ("auto", (0, 0)), ((np.int32(64), np.int64(96)), (64, 96)),
        ([64, 96], (64, 96)), (np.array([64, 96]), (64, 96)), (("64", "96"), (64, 96)),
    ],
)  # fmt: skip
def test_a_size_in_any_form(given: Any, size: tuple[int, int]) -> None:
    found = settings_for(size=given).size
    assert found == size
    assert {type(side) for side in found} == {int}


def test_numbers_of_numpy_and_text_become_plain() -> None:
    found = settings_for(
        seed=np.int64(3), bank=np.float32(0.5), levels=np.array([2, 3]), k=np.int8(7),
        alpha="0.25", guard=np.bool_(False),
    )  # fmt: skip
    assert found == settings_for(seed=3, bank=0.5, levels=(2, 3), k=7, alpha=0.25, guard=False)
    json.dumps(found.to_dict())
    assert settings_for(levels="2,3").levels == (2, 3)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("size", "big", "size is 'big': give pixels such as 224"),
        ("size", 224.5, r"size is 224.5: give pixels such as 224, \(256, 512\)"),
        ("size", None, "size is None: give pixels such as 224"),
        ("levels", 2, "levels is 2: give whole numbers such as"),
        ("seed", "one", "seed is 'one': give a whole number"),
        ("k", np.float64(2.5), "k is 2.5: give a valid integer"),
    ],
)
def test_a_value_of_another_kind_is_told_what_is_wanted(name: str, given: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings_for(**{name: given})


# round trip


@pytest.mark.parametrize(
    "fit_settings",
    [
        settings_for("default"),
        settings_for("paper"),
        settings_for("paper", levels=(1, 2), size=(320, 480), resize=0, bank=500, b=3, gamma=0.5),
        settings_for("default", method="untrained", include_self=False, false_alarm_rate=0.05),
    ],
)
def test_settings_come_back_from_json_as_they_were(fit_settings: FitSettings) -> None:
    written = json.dumps(fit_settings.to_dict())
    back = FitSettings.from_dict(json.loads(written))
    assert back == fit_settings
    assert type(back.size) is type(back.levels) is tuple
    assert FitSettings.from_dict(fit_settings.to_dict()) == fit_settings


def test_every_setting_is_in_the_dictionary() -> None:
    values = settings_for().to_dict()
    assert set(values) == names_of(FitSettings)
    assert set(values["training"]) == names_of(TrainingSettings)
    assert set(values["scoring"]) == names_of(ScoringSettings)


def test_a_dictionary_with_a_value_out_of_its_range_is_refused() -> None:
    values = settings_for().to_dict()
    values["training"]["k"] = 0
    with pytest.raises(SettingsError, match="k is 0: give 1 to batch_size - 1"):
        FitSettings.from_dict(values)


def test_settings_need_no_torch() -> None:
    code = (
        "import sys, reconpatch.method.settings, reconpatch.method.representation\n"
        "print([m for m in ('torch', 'timm', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- Settings with a new name ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "now"),
    [
        ({"init": "kin"}, {"init": "relevant_components"}),
        ({"kin_power": 0.3}, {"relevant_power": 0.3}),
        ({"kin_shrink": "0.1"}, {"relevant_shrink": 0.1}),
    ],
)
def test_a_former_name_means_the_present_one_and_warns(given: Any, now: Any) -> None:
    [name] = now
    with pytest.warns(DeprecationWarning, match=f"is now {name}"):
        assert settings_for(**given) == settings_for(**now)
    assignment = "=".join(str(part) for part in next(iter(given.items())))
    with pytest.warns(DeprecationWarning, match=f"is now {name}"):
        assert parse_assignments([assignment]) == now


def test_settings_are_read_under_their_former_names() -> None:
    now = settings_for(init="relevant_components", relevant_power=0.3, relevant_shrink=0.1)
    values = now.to_dict()
    training = values["training"]
    training |= {"init": "kin", "kin_power": training.pop("relevant_power")}
    training["kin_shrink"] = training.pop("relevant_shrink")
    assert FitSettings.from_dict(values) == now
