"""Many products: a model for each, as one manifest says it, in this process or on many workers.

    [defaults]                     settings of every product
    [products.bottle]              a product, which its model file is named after
    good = "bottle/good"           its good photos, from the manifest's own folder
    test = "bottle/test"           labelled photos to measure the model on, if there are any
    quality = "fast"               any setting or option that `reconpatch.fit` takes

A product's model file says what it was made of. Where that is what the manifest and the photos say
now, the file is kept; so a run that was stopped, or changed in part, goes on where it has to.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import time
import tomllib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from reconpatch.errors import (
    MissingExtraError,
    ModelFileError,
    OutputError,
    PhotoError,
    ReconPatchError,
    SettingsError,
    WorkersError,
)
from reconpatch.features.backbones import RANDOM
from reconpatch.files import (
    NAMES,
    atomic_write,
    make_folder,
    plain_name,
    read_rows,
    write_rows,
)
from reconpatch.fitting.ensemble import fit_members, parts_of
from reconpatch.fitting.options import FitOptions
from reconpatch.memory import parse_bytes
from reconpatch.method.settings import FitSettings, parse_setting, setting_names
from reconpatch.model.ensemble import member_names
from reconpatch.model.loading import load
from reconpatch.model.model import Inspector
from reconpatch.photos.images import MAX_PIXELS
from reconpatch.photos.listing import list_photos
from reconpatch.photos.stored_picture import stored_picture
from reconpatch.report.report import small_jpeg
from reconpatch.scale.outcome import Fitted, Row, Status
from reconpatch.scale.products_page import page
from reconpatch.scale.workers import as_finished, on_ray

if TYPE_CHECKING:
    from reconpatch.fitting.options import Progress

FORMAT = 1  # of summary.json; another number, and nothing in it is used
SUMMARY, PAGE = "summary.json", "summary.html"

_KEY = "fit-all"  # in the provenance of a model: what it was made of
_OWN = ("good", "test")  # what a product has, and no default says
_APART = ("recipe", "quality", "backbone", "size")  # of `fit`, beside settings and options
_NOT_THERE = ("progress", "remember", "timer", "threads", "on")  # a run decides these, no product
_PICTURE_SIDE = 96


# --- The manifest ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """What a manifest says of a product.

    Attributes:
        name: of the product and, with .rcp, of its model's file.
        good: folder of good photos.
        test: folder of labelled photos in MVTec AD's layout, or None.
        settings: of each model to fit; several make an ensemble.
        options: what else the fit takes, by the names of `FitOptions`.
    """

    name: str
    good: Path
    test: Path | None
    settings: Sequence[FitSettings]
    options: Mapping[str, Any]


def load_manifest(path: Path) -> list[Product]:
    """The products that a TOML file names, in its order.

    Raises:
        SettingsError: the file is none, names no product, or has a key or value that is unknown or
            out of range, with the nearest known one.
    """
    if not path.is_file():
        raise SettingsError(f"the manifest {path} is no file: give the path of a TOML file")
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML ({error}): mend the file") from error
    _check_keys(content, ["defaults", "products"], str(path))
    defaults = _table(content.get("defaults", {}), f"{path}, [defaults]")
    _check_keys(defaults, _known(), f"{path}, [defaults]")
    products = _table(content.get("products", {}), f"{path}, [products]")
    if not products:
        raise SettingsError(f"{path} names no product: give a table such as [products.bottle]")
    folder = path.absolute().parent
    found = [_product(name, values, defaults, folder, path) for name, values in products.items()]
    folded = [product.name.casefold() for product in found]
    for product in found:
        if folded.count(product.name.casefold()) > 1:
            raise SettingsError(
                f"{path} has two products named {product.name!r} but for capitals, whose files "
                "would be one on some systems: give other names"
            )
    return found


def _product(
    name: str, values: Any, defaults: Mapping[str, Any], folder: Path, path: Path
) -> Product:
    where = f"{path}, [products.{name}]"
    plain = plain_name(name)
    if plain is None:
        raise SettingsError(
            f"{where}: a product is named with up to 64 {NAMES}, and begins with a letter or a "
            "digit, since its file is named after it"
        )
    own = _table(values, where)
    _check_keys(own, [*_OWN, *_known()], where)
    if "good" not in own:
        raise SettingsError(f"{where} has no good: give the folder of its good photos")
    good, test = (_path(own, key, folder, where) for key in _OWN)
    assert good is not None
    chosen = {k: v for k, v in {**defaults, **own}.items() if k not in _OWN}
    recipe = chosen.pop("recipe", "default")
    try:
        options = {key: _value(key, value, folder) for key, value in chosen.items()}
        settings, _ = parts_of(recipe, options)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None
    return Product(
        plain, good, test, settings, {k: v for k, v in options.items() if k in _option_types()}
    )


def _table(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise SettingsError(f"{where} is {values!r}: give a table of keys and values")
    return values


def _check_keys(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"give {', '.join(known)}"
            raise SettingsError(f"{where} has the key {key!r}, which is not known there: {hint}")


def _path(values: Mapping[str, Any], key: str, folder: Path, where: str) -> Path | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise SettingsError(f"{where}: {key} is {value!r}: give the path of a folder")
    return None if value is None else folder / value


@cache
def _option_types() -> dict[str, Any]:
    """The type of each option of a fit that a product may have."""
    types = get_type_hints(FitOptions)
    return {name: kind for name, kind in types.items() if name not in _NOT_THERE}


def _known() -> list[str]:
    return list(dict.fromkeys([*_APART, *_option_types(), *setting_names()]))


def _value(key: str, value: Any, folder: Path) -> Any:
    """A value of TOML as `reconpatch.fit` takes it; paths are from the manifest's folder."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if key in ("quality", "backbone"):
        return value
    if key not in _option_types():
        if isinstance(value, list):  # sizes are several members; anything else is one value
            several = [_value(key, each, folder) for each in value]
            return several if key == "size" else tuple(several)
        return parse_setting(key, value) if isinstance(value, str) else value
    if key == "memory_limit" and isinstance(value, str):
        return parse_bytes(value)
    kind = _option_types()[key]
    if isinstance(value, str) and Path in getattr(kind, "__args__", ()) and value != RANDOM:
        return folder / value
    try:
        config = ConfigDict(arbitrary_types_allowed=True, strict=True)
        return TypeAdapter(kind, config=config).validate_python(value)
    except ValidationError as error:
        allowed = error.errors()[0]["msg"].replace("Input should be", "give")
        raise SettingsError(f"{key} is {value!r}: {allowed}") from None


# --- Tests ----------------------------------------------------------------------------------------


class LabelledPhotos(Protocol):
    """Photos of which it is known whether they are defective, to test a model on."""

    @property
    def files(self) -> Sequence[Path]:
        """The photos and their masks."""

    def figures(self, model: Inspector, *, max_pixels: int) -> dict[str, Any]:
        """What a model makes of them, JSON-ready; larger photos are refused."""


Labelled = Callable[[Path], LabelledPhotos]
"""Gives the labelled photos of a folder; workers get it too, so it is a function of a module.

Raises:
    PhotoError: the folder is not laid out as one of labelled photos is.
"""


# --- Fits -----------------------------------------------------------------------------------------


def fit_all(
    products: Sequence[Product],
    folder: Path,
    *,
    labelled: Labelled,
    on: str | None = None,
    threads: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    steps: Progress | None = None,
    finished: Callable[[Row], None] | None = None,
) -> Fitted:
    """Fit a model for each product, and write a summary; a failure stops no other product.

    Args:
        products: see `load_manifest`.
        folder: where NAME.rcp, summary.json and summary.html go; made if missing.
        labelled: gives the labelled photos of a folder, that a product is tested on.
        on: workers to fit on, see `reconpatch.scale.workers`; None: this process, one after the
            other.
        threads: of the inference engine; 0 takes all cores here, and one for each product on
            workers, which are then as many as there are cores.
        overwrite: replace also model files that no earlier run of this wrote.
        progress: called with ("products", products done, products).
        steps: called with the steps of each fit in this process.
        finished: called with each row, as it comes.

    Raises:
        OutputError: the folder cannot be written, or its summary.json is of something else.
        MissingExtraError: an extra that is needed, "torch" or "ray", is not installed.
        WorkersError: no Ray cluster answers.
    """
    folder = folder.absolute()
    make_folder(folder)
    start = time.monotonic()
    before = dict(read_rows(folder / SUMMARY, "products", FORMAT, lambda row: (row["name"], row)))
    tasks = [
        _Task(p, folder, (threads or 1) if on else threads, overwrite, before.get(p.name), labelled)
        for p in products
    ]
    rows = {p.name: before[p.name] for p in products if p.name in before}
    made: dict[str, Row] = {}
    coming = _on_workers(tasks, on) if on else _here(tasks, steps)
    with closing(coming):  # whatever stops the run stops the workers at once
        for row in coming:
            made[row.name] = row
            rows[row.name] = row.to_dict()
            known = [rows[p.name] for p in products if p.name in rows]
            write_rows(folder / SUMMARY, {"format": FORMAT}, "products", known)
            if finished is not None:
                finished(row)
            if progress is not None:
                progress("products", len(made), len(products))
    outcome = Fitted([made[p.name] for p in products], folder, time.monotonic() - start)
    with atomic_write(folder / PAGE) as file:
        for piece in page(outcome):
            file.write(piece)
    return outcome


# --- One product ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """One product, and what its fit needs to know of the run."""

    product: Product
    folder: Path
    threads: int
    overwrite: bool
    before: Mapping[str, Any] | None  # its row of the run before
    labelled: Labelled


def _here(tasks: Sequence[_Task], steps: Progress | None) -> Generator[Row, None, None]:
    for task in tasks:
        yield _row(task, steps)


def _on_workers(tasks: Sequence[_Task], on: str) -> Generator[Row, None, None]:
    cpus = max((task.threads for task in tasks), default=1)
    with on_ray(on), closing(as_finished(_row, tasks, cpus=cpus)) as coming:
        for i, row in coming:
            if isinstance(row, WorkersError):
                row = Row(tasks[i].product.name, "failed", str(row))
            yield row


def _row(task: _Task, steps: Progress | None = None) -> Row:
    """Fit a product and write its model, or keep the one that is there; then measure it."""
    product = task.product
    path = task.folder / f"{product.name}.rcp"
    try:
        key = _key(product)
        model = _kept(path, key, task)
        status: Status = "fitted" if model is None else "kept"
        if model is None:
            options = FitOptions(**product.options, threads=task.threads, progress=steps)
            model = fit_members(product.good, product.settings, options)
            model.provenance[_KEY] = key
            model.save(path, overwrite=True)
        row = replace(_described(product.name, model, path), status=status)
    except MissingExtraError:
        raise  # no product could be fitted
    except Exception as error:
        return Row(product.name, "failed", _sentence(error))
    return _tested(row, model, task)


def _sentence(error: Exception) -> str:
    """What went wrong; of what nobody foresaw also its kind."""
    said = " ".join(str(error).split()) or "no reason given"
    return said if isinstance(error, ReconPatchError) else f"{type(error).__name__}: {said}"


def _kept(path: Path, key: str, task: _Task) -> Inspector | None:
    """The model that is there, if it was made of what it would be made of now.

    Raises:
        OutputError: it may not be replaced, since this command did not write it as it is.
    """
    if not path.exists():
        return None
    try:
        model = load(path, threads=task.threads)
    except ModelFileError:
        if task.overwrite:
            return None
        raise
    made_of = model.provenance.get(_KEY)
    if made_of == key:
        return model
    if task.overwrite or (made_of is not None and "updated" not in model.provenance):
        return None
    came = "has been taught new photos since" if made_of else "is of another command"
    raise OutputError(
        f"{path.name} is there already and {came}, and a fit would replace it: give another "
        "folder, or --overwrite"
    )


def _described(name: str, model: Inspector, path: Path) -> Row:
    threshold = model.calibration.image_threshold
    names = member_names([member.settings for member in model.members])
    return Row(
        name,
        "fitted",
        model=path.name,
        megabytes=round(path.stat().st_size / 1e6, 2),
        fingerprint=model.fingerprint,
        photos=len(model.photos),
        seconds=round(sum(model.provenance["seconds"].values()), 1),
        threshold=threshold.value,
        rate=model.calibration.rate,
        promised_rate=threshold.stated_rate,
        promise=model.calibration.promise,
        members=tuple(
            {
                "name": member_name,
                "size": list(member.settings.size),
                "bank": len(member.bank),
                "quality": member.provenance.get("quality"),
                "guard": member.provenance.get("guard"),
            }
            for member_name, member in zip(names, model.members, strict=True)
        ),
        notes=tuple(model.provenance["notes"]),
        picture=_picture(model),
    )


def _picture(model: Inspector) -> bytes:
    """A small JPEG of the first good photo that the model keeps one of."""
    kept = next((jpeg for jpeg in model.members[0].thumbnails if jpeg), b"")
    return small_jpeg(stored_picture(kept), _PICTURE_SIDE) if kept else b""


def _tested(row: Row, model: Inspector, task: _Task) -> Row:
    """The row with the figures on the test photos, measured anew where something has changed."""
    product, before = task.product, task.before or {}
    if product.test is None:
        return row
    try:
        photos = task.labelled(product.test)
        key = _digest([row.fingerprint, *_listing(photos.files, product.test)])
        if before.get("test_key") == key and before.get("test"):
            return replace(row, test=before["test"], test_key=key)
        limit = product.options.get("max_pixels", MAX_PIXELS)
        figures = photos.figures(model, max_pixels=limit)
        return replace(row, test=figures, test_key=key)
    except (PhotoError, OSError) as error:
        return replace(row, test_error=_sentence(error))


def _key(product: Product) -> str:
    """SHA-256 over what a model is made of: settings, options, and its photos as files."""
    options = {
        name: [str(value), *_listing([value], value.parent)] if isinstance(value, Path) else value
        for name, value in product.options.items()
    }
    decides = {
        "settings": [settings.to_dict() for settings in product.settings],
        "options": options,
        "photos": _listing(list_photos(product.good), product.good),
    }
    return _digest([json.dumps(decides, sort_keys=True)])


def _listing(files: Sequence[Path], folder: Path) -> list[str]:
    """Name, size and time of change of each file; of one that is not there only the name."""
    lines = []
    for file in files:
        name = Path(os.path.relpath(file, folder)).as_posix()
        stat = file.stat() if file.exists() else None
        lines.append(f"{name} {stat.st_size} {stat.st_mtime_ns}" if stat else name)
    return lines


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
