"""A model as files for programs in other languages: the graph, how to feed it, how to read it.

    model ── graph with its bank ── read back, compared on the model's own sample ── folder
                                      └── beyond TOLERANCE nothing is written

The folder holds the graph, its numbers (model.json), a page for people (README.md), a sample with
what is expected of it, and small programs that read it. An ensemble is a folder of such folders and
the formula that joins them.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reconpatch.errors import NotEnoughPhotosError, OutputError, ParityError, SettingsError
from reconpatch.export.graph import (
    FILES,
    FORMATS,
    check_bytes,
    check_format,
    open_graph,
    write_graph,
)
from reconpatch.export.int8 import Int8Check, check, in_8_bits, require
from reconpatch.files import cannot_write, check_replaceable, read_sums, sums_of, write_sums
from reconpatch.method.memory_bank import Floats
from reconpatch.model.contents import MAD_TO_STD
from reconpatch.model.ensemble import Ensemble, member_names
from reconpatch.model.model import Inspector, Model
from reconpatch.model.parity import Run, compare, own_reference
from reconpatch.model.sample import Agreement
from reconpatch.photos.images import Photo
from reconpatch.photos.listing import EXPORT_SUMS
from reconpatch.photos.preprocessing import Preprocessing
from reconpatch.report.pages import plain_text

MARK = "reconpatch_export"
"""Key of model.json and ensemble.json that tells an export from any other folder; its format."""
FORMAT = 1

SUMS = EXPORT_SUMS
"""List of all other files of an export, as `sha256sum` makes it: whatever differs is not its."""

_PROGRAMS = {"onnx": ("inspect.cpp", "Inspect.cs", "inspect.mjs"), "openvino": ()}
_ENLARGED = 7 / 4


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    Attributes:
        agreements: of each member's file, read back, with the model.
        int8: what 8 bits changed, or None.
        calibration: of the exported graph, in plain words.
    """

    agreements: Sequence[Agreement]
    int8: Int8Check | None
    calibration: str

    def sentences(self) -> list[str]:
        """The figures in plain words."""
        checked = [self.int8.sentence()] if self.int8 else []
        return [*(found.sentence() for found in self.agreements), *checked, self.calibration]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return {
            "agreements": [found.to_dict() for found in self.agreements],
            "int8": self.int8.to_dict() if self.int8 else None,
        }


def export(
    inspector: Inspector,
    folder: Path,
    *,
    to: str = "onnx",
    int8: Sequence[Photo] | None = None,
    name: str = "model",
    overwrite: bool = False,
) -> Exported:
    """Write a model or an ensemble for other programs; the folder is there whole or not at all.

    Args:
        inspector: what to write.
        folder: where; it is made.
        to: "onnx" (for ONNX Runtime) or "openvino".
        int8: good photos, to bring the backbone to 8 bits by; None leaves it in float32.
        name: what the page calls it.
        overwrite: take the place of an export of that name, as it was written.

    Raises:
        MissingExtraError: openvino is not installed.
        SettingsError: the format is unknown, or does not go with 8 bits.
        OutputError: the folder cannot be written, or the graph is too large for its file.
        ParityError: what was written disagrees with the model; nothing is left of it.
    """
    _check_asked(to, int8)
    _check_plain(inspector)
    check_folder(folder, overwrite=overwrite)
    for model in inspector.members:
        check_bytes(model.engine.graph, model.bank)
    fingerprint = inspector.fingerprint
    with _whole_folder(folder, overwrite=overwrite) as part:
        written, checked = inspector.on_engine(FORMATS[to]), None
        if int8 is not None:
            before, written = written, in_8_bits(written, int8, FORMATS[to])
            checked = check(before, written, int8)
            require(checked)
        exported = _write(written, part, _About(name, to, fingerprint, checked))
        write_sums(part / SUMS, sums_of(part))
    return exported


@dataclass(frozen=True)
class _About:
    """What all files of an export say alike."""

    name: str
    to: str
    fingerprint: str
    int8: Int8Check | None
    member: bool = False

    def to_dict(self) -> dict[str, Any]:
        import reconpatch

        return {
            MARK: FORMAT,
            "reconpatch": reconpatch.__version__,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "int8": self.int8.to_dict() if self.int8 else None,
        }


def _check_asked(to: str, int8: Sequence[Photo] | None) -> None:
    check_format(to)
    if int8 is None:
        return
    if to != "onnx":
        raise SettingsError(
            f"8 bits were asked for in the format {to!r}, which computes such graphs otherwise "
            "than they were checked: export them with --to onnx, or leave out --int8"
        )
    if not len(int8):
        raise NotEnoughPhotosError(
            "there is no good photo to bring the graph to 8 bits by: give some with --photos"
        )


def _check_plain(inspector: Inspector) -> None:
    """Refuse what the graph knows nothing of."""
    of = inspector.preprocessing
    beside_the_graph = {
        "looks at photos in tiles": of.tile,
        "has a region of interest": of.region,
        "registers photos": of.registration,
    }
    for what, has in beside_the_graph.items():
        if has:
            raise SettingsError(
                f"the model {what}, which the bare graph knows nothing of: call it with "
                "`reconpatch inspect` or `serve`, or fit one without for the export"
            )


# --- Folders that are whole or not there ---------------------------------------------------------


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that may not be written to.

    Raises:
        OutputError: it is a file or a link, or it exists (unless it may be overwritten, and holds
            nothing but an export as it was written).
    """
    check_replaceable(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file: give the name of a folder, which will be made")
    if not overwrite:
        raise OutputError(
            f"{folder} exists already and is left as it is: give another name, or --overwrite"
        )
    if any(folder.iterdir()) and not _is_export(folder):
        raise OutputError(
            f"{folder} holds files that no export wrote, so it is not replaced: give another name"
        )
    written = read_sums(folder / SUMS)
    found = {name: digest for name, digest in sums_of(folder).items() if name != SUMS}
    if others := [name for name, digest in found.items() if written.get(name) != digest]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise OutputError(
            f"{folder} holds {', '.join(others[:3])}{more}, which the export there did not write, "
            "or which was changed since, so it is not replaced: move that away, or give another "
            "name"
        )


def _is_export(folder: Path) -> bool:
    for record in (folder / "model.json", folder / "ensemble.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            return MARK in json.loads(record.read_text(encoding="utf-8"))
    return False


@contextlib.contextmanager
def _whole_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder beside `folder` that takes its name when all is done, or is gone."""
    folder = folder.absolute()
    part = _beside(folder, "part")
    try:
        part.mkdir(parents=True)
        yield part
        check_folder(folder, overwrite=overwrite)
        _put_in_place(part, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _beside(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.{end}")


def _put_in_place(part: Path, folder: Path) -> None:
    """Give a folder its name; what had the name before goes once that is done, and not sooner."""
    if not folder.exists():
        part.rename(folder)
        return
    old = folder.rename(_beside(folder, "old"))
    try:
        part.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


# --- What is written -----------------------------------------------------------------------------


def _write(inspector: Inspector, folder: Path, about: _About) -> Exported:
    photo = _sample_photo(inspector)
    if not isinstance(inspector, Ensemble):
        agreements = [_write_model(inspector.members[0], folder, about, photo)[0]]
    else:
        agreements = _write_ensemble(inspector, folder, about, photo)
    return Exported(agreements, about.int8, inspector.calibration.promise)


def _write_ensemble(
    ensemble: Ensemble, folder: Path, about: _About, photo: Photo
) -> list[Agreement]:
    names = member_names([member.settings for member in ensemble.members])
    members, agreements, scores = [], [], []
    for i, (name, model) in enumerate(zip(names, ensemble.members, strict=True)):
        own = replace(about, name=f"{about.name}, member {i}: {name}", member=True)
        (folder / f"member{i}").mkdir()
        found, score = _write_model(model, folder / f"member{i}", own, photo)
        agreements.append(found)
        scores.append(score)
        scales = ensemble.score_scales[i], ensemble.map_scales[i]
        members.append({"folder": f"member{i}", "score": vars(scales[0]), "map": vars(scales[1])})
    finest = ensemble.preprocessing
    record = {
        **about.to_dict(),
        "members": members,
        "mad_to_std": MAD_TO_STD,
        "map_size": [finest.height, finest.width],
        **_thresholds(ensemble),
    }
    _write_json(folder / "ensemble.json", record)
    pairs = zip(ensemble.score_scales, scores, strict=True)
    combined = float(np.mean([scale(score) for scale, score in pairs]))
    (folder / "sample").mkdir()
    _write_photo(photo, folder / "sample")
    _write_json(folder / "sample" / "expected.json", {"score": combined, "members": scores})
    _write_page(folder / "README.md", "ensemble.md.j2", record)
    return agreements


def _write_model(
    model: Model, folder: Path, about: _About, photo: Photo
) -> tuple[Agreement, float]:
    """Write one graph with all that belongs to it; its agreement, and the score of the sample."""
    write_graph(model.engine.graph, model.bank, folder, about.to)
    run = open_graph(folder, about.to, model.engine.threads)
    found = compared(model, run, FORMATS[about.to])
    _require(found)
    record = model_record(model, about.to) | about.to_dict()
    record["gate"] = found.to_dict()
    _write_json(folder / "model.json", record)
    score = _write_sample(model, run, folder / "sample", photo)
    programs = _PROGRAMS[about.to]
    for program in programs:
        source = resources.files("reconpatch.export") / "templates" / program
        (folder / program).write_bytes(source.read_bytes())
    _write_page(
        folder / "README.md",
        "model.md.j2",
        {**record, "programs": programs, "member": about.member},
    )
    return found, score


def compared(model: Model, run: Run, engine: str) -> Agreement:
    """What a written file says of the model's own sample, beside the model.

    Raises:
        ParityError: the model carries no sample.
    """
    if model.sample is None or not len(model.sample):
        raise ParityError(
            "the model carries no photos to compare the export on, so nothing is written: fit it "
            "again"
        )
    photos = model.sample.photos()
    return compare(model, photos, lambda x: own_reference(model, x), {engine: run})[0]


def _require(found: Agreement) -> None:
    if not found.holds:
        raise ParityError(
            f"what was written does not agree with the model, so it was removed "
            f"({found.sentence()}): remove or update the package {found.engine}, or report it"
        )


def _sample_photo(inspector: Inspector) -> Photo:
    """A photo whose preparation takes a real resize: one of the sample, the last, enlarged."""
    sample = inspector.members[0].sample
    if sample is None or not len(sample):
        raise ParityError(
            "the model carries no photos to make a sample of, so nothing is written: fit it again"
        )
    image = Image.fromarray(sample.photos()[-1].transpose(1, 2, 0))
    size = (round(image.width * _ENLARGED) + 1, round(image.height * _ENLARGED))
    return Photo("photo.png", np.asarray(image.resize(size, Image.Resampling.BILINEAR)))


def _write_sample(model: Model, run: Run, folder: Path, photo: Photo) -> float:
    """The sample photo, prepared, and what the written graph says of it; its score."""
    folder.mkdir()
    _write_photo(photo, folder)
    prepared = model.preprocessing(photo)
    (folder / "prepared.f32").write_bytes(prepared.astype("<f4").tobytes())
    output = run(prepared[None])
    expected = _expected(output.score[0], output.map[0], model.threshold)
    _write_json(folder / "expected.json", expected)
    return float(output.score[0])


def _write_photo(photo: Photo, folder: Path) -> None:
    image = Image.fromarray(photo.pixels)
    image.save(folder / "photo.png")
    image.save(folder / "photo.ppm")


def _expected(score: Any, anomaly_map: Floats, threshold: float) -> dict[str, Any]:
    y, x = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    return {
        "score": float(score),
        "anomalous": bool(score > threshold),
        "map_largest": float(anomaly_map[y, x]),
        "map_x": int(x),
        "map_y": int(y),
    }


# --- model.json ----------------------------------------------------------------------------------


def model_record(model: Model, to: str) -> dict[str, Any]:
    """What a program has to know of a model: its input, outputs and thresholds, JSON-ready."""
    height, width = model.preprocessing.height, model.preprocessing.width
    rows, dim = model.bank.rows.shape
    h, w = model.engine.grid
    optional: dict[str, dict[str, Any]] = {
        "bank": {"shape": ["rows", dim], "type": "float32", "default_rows": rows},
        "norms": {"shape": ["rows"], "type": "float32"},
        "mask": {"shape": ["rows"], "type": "bool"},
        "scales": {"shape": ["rows"], "type": "float32"},
        "defects": {"shape": ["defects", dim], "type": "float32"},
        "discriminant": {"shape": [dim + 1], "type": "float32"},
        "compositions": {"shape": ["good_photos", dim], "type": "float32"},
        "whitening": {"shape": [dim, dim], "type": "float32"},
        "units": {"shape": [4], "type": "float32"},
    }
    optional = {name: optional[name] for name in model.bank.inputs}
    return {
        "graph": FILES[to],
        "input": {
            "name": "photos",
            "shape": ["batch", 3, height, width],
            "type": "float32",
            "range": [0.0, 1.0],
            "channels": "RGB",
        },
        "optional_inputs": optional if to == "onnx" else {},
        "outputs": {
            "score": {"shape": ["batch"], "type": "float32"},
            "map": {"shape": ["batch", height, width], "type": "float32"},
            "distances": {"shape": ["batch", h * w], "type": "float32"},
            "nearest": {"shape": ["batch", h * w], "type": "int64"},
            "worst": {"shape": ["batch"], "type": "int64"},
            "features": {"shape": ["batch", h * w, dim], "type": "float32"},
        },
        "grid": [h, w],
        "preprocessing": _preprocessing(model.preprocessing),
        **_thresholds(model),
    }


def _preprocessing(preprocessing: Preprocessing) -> dict[str, Any]:
    return {
        **preprocessing.to_dict(),
        "filter": "triangle, widened by the shrink factor (antialiasing); see README.md",
        "rounding": "to 8 bits after the horizontal and after the vertical pass (8-bit photos)",
        "scale": "divided by 255; the graph subtracts the backbone's mean itself",
    }


def _thresholds(inspector: Inspector) -> dict[str, Any]:
    calibration = inspector.calibration
    image = calibration.image_threshold
    return {
        "threshold": image.value,
        "map_threshold": calibration.map_threshold.value,
        "false_alarm_rate": {
            "asked": image.asked_rate,
            "stated": image.stated_rate,
            "photos": image.photos,
            "source": calibration.source,
            "set_by_hand": calibration.set_by_hand is not None,
            "promise": calibration.promise,
        },
        "good_scores": np.sort(calibration.scores).tolist(),
    }


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    path.write_text(plain_text("reconpatch.export", template, values), encoding="utf-8")
