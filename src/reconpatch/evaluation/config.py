"""What a benchmark runs: a config, as a plain TOML file says it.

    title = "..."          recipe = "paper"        members = [...]   statistics = "training"
    compare = ["..."]      [settings] of the fit   [robustness] of the photos

Those that come with the package are in `configs/`, named after what they reproduce.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from reconpatch.errors import SettingsError
from reconpatch.evaluation.disturbance import Robustness
from reconpatch.evaluation.published import published
from reconpatch.fitting.ensemble import Statistics, members_of
from reconpatch.method.representation import Method
from reconpatch.method.settings import FitSettings, Quality, ensemble_settings_for


@dataclass(frozen=True)
class Config:
    """What is benchmarked, as a TOML file says it.

    Attributes:
        title: in a few words.
        recipe: the recipe that the settings start from.
        settings: changes to it, by the names of `settings_for`.
        members: backbones of an ensemble; empty for a single model.
        quality: point of the default recipe; see `reconpatch.method.settings.QUALITIES`.
        statistics: where an ensemble's scales come from; see
            `reconpatch.fitting.ensemble.fit_ensemble`.
        compare: keys of the published columns to stand beside; see
            `reconpatch.evaluation.published`.
        robustness: how photos are disturbed, or None.
        name: of the file, without its ending.
    """

    title: str
    recipe: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    quality: Quality = "balanced"
    statistics: Statistics = "as_new"
    compare: tuple[str, ...] = ()
    robustness: Robustness | None = None
    name: str = ""

    def __post_init__(self) -> None:
        for key in self.compare:
            published(key)
        self.fit_settings("reconpatch", 0)

    def fit_settings(
        self, method: Method, seed: int, changes: Mapping[str, Any] | None = None
    ) -> list[FitSettings]:
        """The settings of each model to fit: one, or those of an ensemble's members.

        Raises:
            SettingsError: a setting is unknown or out of its range, or is not decided there.
        """
        values = {**self.settings, **(changes or {})}
        members = members_of(
            list(self.members) or None, None, self.quality, recipe=self.recipe, taken=values
        )
        several = ["backbone"] if len(members) > 1 else []
        for name in ("recipe", "method", "seed", *several):
            if name in values:
                raise SettingsError(f"{name} is no setting to give here: {_DECIDED_BY[name]}")
        values |= {"method": method, "seed": seed}
        return ensemble_settings_for(self.recipe, members, **values)


_DECIDED_BY = {
    "recipe": "it stands at the top of a config",
    "method": "give --methods",
    "seed": "give --seeds",
    "backbone": "the config names the members of an ensemble, and one of your own may name others",
}


def config_names() -> list[str]:
    """The names of the configs that come with the package."""
    files = resources.files("reconpatch.evaluation").joinpath("configs").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_config(config: str | Path) -> Config:
    """A config of the package by its name, or any other by the path of its TOML file.

    Raises:
        SettingsError: there is no such config, or something in it is unknown or out of range.
    """
    if str(config) in config_names():
        file = resources.files("reconpatch.evaluation").joinpath("configs", f"{config}.toml")
        return _parsed(file.read_bytes(), str(config), str(config))
    path = Path(config)
    if not path.is_file():
        raise SettingsError(
            f"the config is {str(config)!r}, which is no file: give the path of a TOML file, or "
            f"one of {', '.join(config_names())}"
        )
    return _parsed(path.read_bytes(), path.stem, str(path))


def _parsed(content: bytes, name: str, where: str) -> Config:
    from pydantic import TypeAdapter, ValidationError

    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where} is not TOML ({error}): mend the file") from error
    names = [f.name for f in fields(Config) if f.name != "name"]
    _check_keys(values, names, where)
    robustness = values.get("robustness", {})
    if isinstance(robustness, dict):
        _check_keys(robustness, [f.name for f in fields(Robustness)], f"{where}, [robustness]")
    try:
        return TypeAdapter(Config).validate_python({**values, "name": name})
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, SettingsError):
            raise SettingsError(f"{where}: {cause}") from None
        place = ".".join(str(part) for part in first["loc"])
        allowed = first["msg"].replace("Input should be", "give")
        raise SettingsError(f"{where}: {place} is {first['input']!r}: {allowed}") from None


def _check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingsError(
            f"{where} has the key {unknown[0]!r}, which is not known there: give "
            f"{', '.join(known)}; settings of the fit go below [settings]"
        )
