"""The station's configuration: one TOML file, for what does not fit into options.

    [outputs.NAME]      where verdicts go; see `station/outputs/settings.py`
    [page]              its language; see `station/page_settings.py`
    [shifts]            names and starting times; see `station/shifts.py`

Every error names the file, the key, what was given and what is allowed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from reconpatch.errors import SettingsError
from reconpatch.station.outputs.settings import KINDS, NAME, OutputSettings
from reconpatch.station.page_settings import PageSettings
from reconpatch.station.shifts import Shifts

Table = TypeVar("Table", bound=BaseModel)


@dataclass(frozen=True)
class Config:
    """What a station's file says.

    Attributes:
        outputs: the outputs to the line, by their names.
        page: how the page is set up.
        shifts: of the plant.
        path: of the file, or None.
    """

    outputs: Mapping[str, OutputSettings] = field(default_factory=dict)
    page: PageSettings = field(default_factory=PageSettings)
    shifts: Shifts = field(default_factory=Shifts)
    path: Path | None = None


def read_config(path: Path) -> Config:
    """Read a station's file.

    Raises:
        SettingsError: it cannot be read, or something in it is unknown or out of range.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(
            f"the configuration {path} cannot be read ({error.strerror}): give a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML ({error}): mend the file") from error
    _check_keys(values, ["outputs", "page", "shifts"], f"{path}")
    outputs = {}
    for name, table in _tables(values.get("outputs", {}), f"{path}: outputs").items():
        if not NAME.fullmatch(name):
            raise SettingsError(
                f"{path}: outputs has the name {name!r}: give 1 to 40 letters a to z, digits, - "
                "and _, the first a letter or digit"
            )
        outputs[name] = _output(table, f"{path}: outputs.{name}", path.parent)
    return Config(
        outputs,
        _one(PageSettings, values, "page", path),
        _one(Shifts, values, "shifts", path),
        path,
    )


def _one(model: type[Table], values: Mapping[str, Any], name: str, path: Path) -> Table:
    """A table of the file that there is once, as its model."""
    where, table = f"{path}: {name}", values.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{where} is {table!r}: write it as a table, [{name}]")
    return checked(model, table, where, path.parent)


def _output(table: Mapping[str, Any], where: str, folder: Path) -> OutputSettings:
    values = dict(table)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        given = "missing" if kind is None else repr(kind)
        raise SettingsError(f"{where}.kind is {given}: give {_either(sorted(KINDS))}")
    return checked(KINDS[kind], values, where, folder)


def checked(model: type[Table], values: Mapping[str, Any], where: str, folder: Path) -> Table:
    """A table of the file as its model.

    Args:
        model: what it is to hold.
        values: the table.
        where: the file and the table's name, for messages.
        folder: which paths in the table are relative to.
    """
    _check_keys(values, list(model.model_fields), where)
    try:
        return model.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *map(str, first["loc"])])
        if first["type"] == "missing":
            raise SettingsError(f"{place} is missing: give it") from None
        allowed = first["msg"].removeprefix("Value error, ").replace("Input should be", "give")
        given = "" if isinstance(first["input"], dict) else f" is {first['input']!r}"
        raise SettingsError(f"{place}{given}: {allowed}") from None


def _tables(value: Any, where: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise SettingsError(f"{where} is no table of tables: write it as [outputs.NAME]")
    return value


def _check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingsError(
            f"{where} has the key {unknown[0]!r}, which is not known there: give {_either(known)}"
        )


def _either(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
