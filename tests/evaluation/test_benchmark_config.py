"""The configs of the package, and one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconpatch.errors import SettingsError
from reconpatch.evaluation.config import config_names, load_config

PAPER_CONFIGS = (
    "paper-wrn50-224",
    "paper-wrn101-480",
    "paper-ensemble-480",
    "paper-ensemble-320",
    "paper-btad",
)


def test_every_config_loads() -> None:
    names = config_names()
    assert set(PAPER_CONFIGS) < set(names)
    assert {"default", "paper-robustness", "paper-s5-levels123", "paper-dim-64"} < set(names)
    for name in names:
        config = load_config(name)
        assert config.name == name
        assert (config.recipe == "paper") == name.startswith("paper-")


def test_the_configs_are_the_papers_settings() -> None:
    (single,) = load_config("paper-wrn50-224").fit_settings("reconpatch", 3)
    assert (single.backbone, single.size, single.resize) == ("wide_resnet50_2", (224, 224), 256)
    assert (single.training.dim, single.training.epochs, single.seed) == (512, 120, 3)
    (large,) = load_config("paper-wrn101-480").fit_settings("patchcore", 0)
    assert (large.backbone, large.size, large.resize) == ("wide_resnet101_2", (480, 480), 548)
    members = load_config("paper-ensemble-320").fit_settings("reconpatch", 0)
    assert [m.backbone for m in members] == ["wide_resnet101_2", "resnext101_32x8d", "densenet201"]
    assert {(m.size, m.resize) for m in members} == {((320, 320), 366)}
    assert {(m.training.dim, m.training.epochs, m.training.learning_rate) for m in members} == {
        (384, 60, 1e-6)
    }
    assert load_config("paper-ensemble-480").statistics == "training"
    assert load_config("paper-coreset-25").fit_settings("reconpatch", 0)[0].bank == 0.25
    deep = load_config("paper-s5-levels123").fit_settings("reconpatch", 0)[0]
    assert (deep.neighbourhood, deep.levels) == (5, (1, 2, 3))


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('title = "x"\nsize = 3\n', "has the key 'size'.*below \\[settings\\]"),
        ('title = "x"\n[settings]\nsizes = 3\n', "there is no setting 'sizes'"),
        ('title = "x"\n[settings]\nneighbourhood = 4\n', "the neighbourhood is 4"),
        ('title = "x"\nrecipe = "fast"\n', "the recipe is 'fast'"),
        ('title = "x"\ncompare = ["rival"]\n', "nothing is published as 'rival'"),
        ('title = "x"\n[robustness]\nzoom = 1\n', "has the key 'zoom'"),
        ('title = "x"\n[robustness]\nshift = 7\n', "shift is 7.0: give 0 to 1"),
        ('title = "x"\nstatistics = "both"\n', "statistics is 'both': give 'as_new' or 'training'"),
        ('title = "x"\nquality = "finest"\n', "quality is 'finest'"),
        (
            'title = "x"\nmembers = ["resnet18", "resnet34"]\nquality = "best"\n',
            "backbones and sizes of its own",
        ),
        ('recipe = "paper"\n', "title"),
        ("title = \n", "is not TOML"),
    ],
)
def test_a_config_of_ones_own_is_checked(toml: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(SettingsError, match=f"(?s)mine.toml.*{said}"):
        load_config(path)


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        ("default", {"seed": 1}, "seed is no setting to give here: give --seeds"),
        ("default", {"method": "patchcore"}, "method is no setting .*give --methods"),
        ("default", {"recipe": "paper"}, "recipe is no setting .*top of a config"),
        ("paper-ensemble-320", {"backbone": "resnet18"}, "backbone is no setting .*members"),
    ],
)
def test_what_is_decided_elsewhere_is_no_change(
    config: str, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        load_config(config).fit_settings("reconpatch", 0, changes)


# --- Qualities ------------------------------------------------------------------------------------


def test_best_is_its_two_members() -> None:
    first, second = load_config("best").fit_settings("reconpatch", 0)
    assert (first.backbone, first.size_limit) == ("tf_efficientnet_lite0", 320)
    assert (second.backbone, second.size_limit) == ("tf_efficientnet_lite2", 448)
    for member in load_config("best").fit_settings("reconpatch", 0, {"bank": 0.02}):
        assert member.bank == 0.02


def test_fast_gives_way_to_what_is_set() -> None:
    (fast,) = load_config("fast").fit_settings("patchcore", 1)
    assert (fast.size_limit, fast.bank, fast.training.made) == (224, 0.005, 256)
    (changed,) = load_config("fast").fit_settings("patchcore", 1, {"bank": 0.02})
    assert (changed.size_limit, changed.bank) == (224, 0.02)
