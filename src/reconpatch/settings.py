"""The settings of a fit, and two recipes: the paper's own, and the default for two cores."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

from reconpatch.calibration import DEFAULT_FALSE_ALARM_RATE, check_rate
from reconpatch.coreset import bank_rows
from reconpatch.errors import SettingsError
from reconpatch.representation import METHODS, Method, TrainingSettings
from reconpatch.scoring import ScoringSettings


@dataclass(frozen=True)
class FitSettings:
    """Everything that decides what a fit makes of a folder of photos.

    Attributes:
        recipe: the recipe that the settings started from.
        method: "reconpatch" (f trained), "untrained" (f before its first step) or "patchcore"
            (f the identity).
        backbone: see `reconpatch.backbones`.
        levels: the backbone's levels in use, finest first; empty takes the backbone's own.
        size: height and width of the model's input in pixels.
        resize: 0 resizes the whole photo to `size`; else its shorter side is resized to this and
            the centre is cropped to `size`, as the paper does.
        neighbourhood: s, the side of the neighbourhood that patch features are averaged over.
        bank: rows of the memory bank: a share of all patches below 1, else a number of rows.
        projection: dimensions of the random projection for the coreset's selection; 0 for none.
        false_alarm_rate: see `reconpatch.calibration`.
        seed: decides every random step.
        training: see `reconpatch.representation.TrainingSettings`.
        scoring: see `reconpatch.scoring.ScoringSettings`.
    """

    recipe: str = "default"
    method: Method = "reconpatch"
    backbone: str = "tf_efficientnet_lite0"
    levels: tuple[int, ...] = ()
    size: tuple[int, int] = (224, 224)
    resize: int = 0
    neighbourhood: int = 3
    bank: float = 0.01
    projection: int = 128
    false_alarm_rate: float = DEFAULT_FALSE_ALARM_RATE
    seed: int = 0
    training: TrainingSettings = field(default_factory=TrainingSettings)
    scoring: ScoringSettings = field(default_factory=ScoringSettings)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"method is {self.method!r}: give one of {', '.join(METHODS)}")
        if min(self.size) < 32 or max(self.size) > 4096:
            raise SettingsError(
                f"the input size is {self.size[0]} x {self.size[1]} (height x width): give 32 to "
                "4096 pixels for each"
            )
        if self.resize and self.resize < max(self.size):
            raise SettingsError(
                f"resize is {self.resize}, smaller than the crop of {self.size[0]} x "
                f"{self.size[1]}: give at least {max(self.size)}, or 0 for the whole photo"
            )
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise SettingsError(
                f"the neighbourhood is {self.neighbourhood}: give an odd number such as 3"
            )
        if self.projection < 0:
            raise SettingsError(
                f"projection is {self.projection}: give 0 (none) or more dimensions"
            )
        if self.seed < 0:
            raise SettingsError(f"the seed is {self.seed}: give a whole number, 0 or more")
        bank_rows(self.bank, available=1)  # refuses a size that is neither a share nor a number
        check_rate(self.false_alarm_rate)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FitSettings:
        """The settings that `to_dict` gave.

        Raises:
            SettingsError: a value is of another type than its setting, or out of its range.
        """
        from pydantic import TypeAdapter, ValidationError

        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise SettingsError(f"there is no setting {min(unknown)!r}")
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, SettingsError):
                raise cause from None
            name = ([part for part in first["loc"] if isinstance(part, str)] or ["settings"])[-1]
            allowed = first["msg"].replace("Input should be ", "give ")
            raise SettingsError(f"{name} is {first['input']!r}: {allowed}") from None


_PAPER = FitSettings(
    recipe="paper",
    backbone="wide_resnet50_2",
    size=(224, 224),
    resize=256,
    bank=0.01,
    training=TrainingSettings(),  # its defaults are the paper's values where the paper gives one
    scoring=ScoringSettings(),
)

# Chosen for a machine of two cores; why each value is as it is stands in docs/method.md.
_DEFAULT = FitSettings(
    recipe="default",
    training=TrainingSettings(
        dim=0,
        init="identity",
        steps=200,
        batch_size=512,
        batches="neighbours",
        companions=15,
        learning_rate=3e-4,
        scale="mean",
    ),
)

RECIPES = {"default": _DEFAULT, "paper": _PAPER}


def settings_for(recipe: str = "default", **changes: Any) -> FitSettings:
    """A recipe with changes by name.

    Names are the fields of `FitSettings`, and for short also those of its `training` and `scoring`
    settings: `settings_for("paper", seed=1, alpha=0.3, b=3)`.

    Raises:
        SettingsError: an unknown recipe or name (with the nearest known one), or a value out of
            its range.
    """
    if recipe not in RECIPES:
        raise SettingsError(f"the recipe is {recipe!r}: give one of {', '.join(RECIPES)}")
    values = RECIPES[recipe].to_dict()
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # whoever says how many passes means them to count
    if isinstance(changes.get("size"), int):
        changes["size"] = (changes["size"], changes["size"])
    for name, value in changes.items():
        part = next((values[p] for p in ("training", "scoring") if name in values[p]), values)
        if name not in part:
            raise SettingsError(f"there is no setting {name!r}{_suggestion(name, _names())}")
        part[name] = asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
    return FitSettings.from_dict(values)


def ensemble_settings_for(
    recipe: str, backbones: Sequence[str], **changes: Any
) -> list[FitSettings]:
    """The settings of each member of an ensemble: one for each backbone.

    Under the recipe "paper" the members take what the paper gives for them: f of 384 dimensions,
    60 epochs at a learning rate of 1e-6. Changes by name come after that.
    """
    members = {"dim": 384, "epochs": 60, "learning_rate": 1e-6} if recipe == "paper" else {}
    return [
        settings_for(recipe, **{**members, **changes, "backbone": backbone})
        for backbone in backbones
    ]


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` strings for training and scoring settings, each value in its setting's type."""
    types = {
        **typing.get_type_hints(TrainingSettings),
        **typing.get_type_hints(ScoringSettings),
        "neighbourhood": int,
        "projection": int,
    }
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in types:
            raise SettingsError(
                f"--set takes NAME=VALUE with the name of a setting, and {assignment!r} was given"
                f"{_suggestion(name, list(types))}"
            )
        values[name] = _parse(name, text, types[name])
    return values


def _parse(name: str, text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise SettingsError(f"{name} is {text!r}: give true or false")
        return text.lower() == "true"
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name} is {text!r}: give {wanted}") from None


def _names() -> list[str]:
    kinds = (FitSettings, TrainingSettings, ScoringSettings)
    return [f.name for kind in kinds for f in fields(kind)]


def _suggestion(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else f": known are {', '.join(names)}"
