"""The station's configuration: one TOML file, for what does not fit into options.

    [cameras.NAME]      where photos come from; see `station/cameras/settings.py`
    [outputs.NAME]      where verdicts go; see `station/outputs/settings.py`
    [page]              its language; see `station/page_settings.py`
    [shifts]            names and starting times; see `station/shifts.py`

Every error names the file, the key, what was given and what is allowed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from reconpatch.errors import SettingsError
from reconpatch.station.cameras.settings import KINDS as CAMERAS
from reconpatch.station.cameras.settings import CameraSettings
from reconpatch.station.outputs.settings import KINDS as OUTPUTS
from reconpatch.station.outputs.settings import NAME, OutputSettings
from reconpatch.station.page_settings import PageSettings
from reconpatch.station.shifts import Shifts

Table = TypeVar("Table", bound=BaseModel)


@dataclass(frozen=True)
class Config:
    """What a station's file says.

    Attributes:
        outputs: the outputs to the line, by their names.
        cameras: where photos come from, by their names.
        page: how the page is set up.
        shifts: of the plant.
        path: of the file, or None.
    """

    outputs: Mapping[str, OutputSettings] = field(default_factory=dict)
    cameras: Mapping[str, CameraSettings] = field(default_factory=dict)
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
    _check_keys(values, ["cameras", "outputs", "page", "shifts"], f"{path}")
    return Config(
        outputs=_entries(values, "outputs", OUTPUTS, path),
        cameras=_entries(values, "cameras", CAMERAS, path),
        page=_one(PageSettings, values, "page", path),
        shifts=_one(Shifts, values, "shifts", path),
        path=path,
    )


def _one(model: type[Table], values: Mapping[str, Any], name: str, path: Path) -> Table:
    """A table of the file that there is once, as its model."""
    where, table = f"{path}: {name}", values.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{where} is {table!r}: write it as a table, [{name}]")
    return checked(model, table, where, path.parent)


def _entries(
    values: Mapping[str, Any], what: str, kinds: Mapping[str, type[Table]], path: Path
) -> dict[str, Table]:
    """The tables [what.NAME] of a file, each as the model of its kind."""
    found = {}
    for name, table in _tables(values.get(what, {}), path, what).items():
        if not NAME.fullmatch(name):
            raise SettingsError(
                f"{path}: {what} has the name {name!r}: give 1 to 40 letters a to z, digits, - "
                "and _, the first a letter or digit"
            )
        where, rest = f"{path}: {what}.{name}", dict(table)
        kind = rest.pop("kind", None)
        if kind not in kinds:
            given = "missing" if kind is None else repr(kind)
            raise SettingsError(f"{where}.kind is {given}: give {_either(sorted(kinds))}")
        found[name] = checked(kinds[kind], rest, where, path.parent)
    return found


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
        if first["type"] == "extra_forbidden":  # of a table in the table
            raise SettingsError(f"{place} is not known there: leave it out") from None
        allowed = first["msg"].removeprefix("Value error, ").replace("Input should be", "give")
        given = "" if isinstance(first["input"], dict) else f" is {_shown(first['input'])}"
        raise SettingsError(f"{place}{given}: {allowed}") from None


def _shown(given: Any) -> str:
    """What was given, without the name, password and query of an address."""
    if isinstance(given, str) and "://" in given:
        given = re.sub(r"://[^/?#]*@", "://***@", given)
        given = re.sub(r"[?].*", "?***", given, flags=re.S)
    return repr(given)


def _tables(value: Any, path: Path, what: str) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise SettingsError(f"{path}: {what} is no table of tables: write it as [{what}.NAME]")
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
