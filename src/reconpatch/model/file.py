"""Read and write a model as one safetensors file whose header carries a JSON record.

Arrays, the backbone's ONNX graph and the thumbnails are tensors; everything else is JSON. No
pickle, no code, no paths but names relative to the folder of the fit. Any safetensors reader opens
it. A SHA-256 over the record and every tensor stands in the header; a file whose contents do not
have it is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from reconpatch.engine.engines import DEFAULT_ENGINE, StoredGraph, check_engine, check_threads
from reconpatch.errors import ModelFileError
from reconpatch.files import atomic_write, open_regular
from reconpatch.method.calibration import Calibration
from reconpatch.method.composition import Composition
from reconpatch.method.defect_kinds import DefectKinds
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.settings import RENAMED, RENAMED_INIT, FitSettings
from reconpatch.model.check import check_ensemble, check_model
from reconpatch.model.contents import (
    Contents,
    EnsembleContents,
    ModelContents,
    Scale,
    scales_to_dict,
)
from reconpatch.model.good_photos import GoodScores, TrainingPhoto, groups_of_composition
from reconpatch.model.sample import Agreement, Measured, Sample
from reconpatch.photos.preprocessing import Preprocessing

FORMAT = 2
_LONGEST_HEADER = 100_000_000  # as of the safetensors format
Tensors = Mapping[str, npt.NDArray[Any]]


def write(contents: Contents, path: Path) -> None:
    """Write a model or an ensemble; the file is there whole or not at all."""
    from safetensors.numpy import save as to_bytes

    tensors, record = _tensors(contents), _record(contents)
    header = {"format": FORMAT, "sha256": _digest(record, tensors), "record": record}
    metadata = {"reconpatch": json.dumps(header)}
    content = to_bytes({name: np.ascontiguousarray(t) for name, t in tensors.items()}, metadata)
    with atomic_write(path) as file:
        file.write(content)


def read(
    path: Path, *, threads: int = 0, engine: str = DEFAULT_ENGINE
) -> ModelContents | EnsembleContents:
    """Read the contents of a model or an ensemble back, and check that they can be.

    Raises:
        SettingsError: there is no such engine, or it cannot have so many threads.
        ModelFileError: the file is missing, not a model, of a newer format, truncated or altered.
    """
    check_engine(engine)
    check_threads(threads)
    record, tensors = _read(path)
    with made_up(path):
        photos = [TrainingPhoto(**photo) for photo in record["photos"]]
        thumbnails = _split(tensors, "thumbnails")
        models = [
            _model(part, tensors, f"{i}.", photos, thumbnails, threads, engine)
            for i, part in enumerate(record["members"])
        ]
        for model in models:
            check_model(model)
        if "ensemble" not in record:
            return models[0]
        return _ensemble(record["ensemble"], tensors, models)


@contextlib.contextmanager
def made_up(path: Path) -> Iterator[None]:
    """Raise ModelFileError where a file has the right checksum and unusable parts."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path} is not a complete model ({type(error).__name__}: {error}): fit it again, or "
            "take a copy that works"
        ) from error


def fingerprint(contents: Contents) -> str:
    """Hash all that decides a verdict, and nothing that does not (times, versions): SHA-256.

    A setting at its default counts for nothing, so that one that a later version adds leaves the
    fingerprints of models without it as they were.
    """
    return _fingerprint(_record(contents), _tensors(contents))


def scoring_fingerprint(model: ModelContents) -> str:
    """Hash all that decides a score, as `fingerprint` without the calibration: SHA-256."""
    record = _record(model)
    for member in record["members"]:
        member.pop("calibration")
    tensors = _tensors(model)
    return _fingerprint(record, {k: v for k, v in tensors.items() if ".calibration." not in k})


def _fingerprint(record: dict[str, Any], tensors: Tensors) -> str:
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith("thumbnails") and ".sample." not in name
    }
    for part in (record, *record["members"], record.get("ensemble", {})):
        part.pop("provenance", None)
        part.pop("sample", None)
    for member in record["members"]:
        member["settings"] = _unlike(_settings_record(FitSettings()), member["settings"])
        member["preprocessing"] = _unlike(_PREPROCESSING_DEFAULTS, member["preprocessing"])
    return _digest(record, tensors)


_PREPROCESSING_DEFAULTS = {f.name: f.default for f in fields(Preprocessing)}


def _unlike(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not at their defaults, those of records in it likewise."""
    return {
        name: _unlike(default, value) if isinstance(default := defaults[name], dict) else value
        for name, value in values.items()
        if value != defaults[name]
    }


# --- One record for both kinds: the photos once, then one part for each member -------------------


def _record(contents: Contents) -> dict[str, Any]:
    record: dict[str, Any] = {
        "photos": [asdict(photo) for photo in contents.photos],
        "members": [
            {
                "settings": _settings_record(model.settings),
                "preprocessing": model.preprocessing.to_dict(),
                "calibration": _calibration_record(model.calibration),
                "provenance": model.provenance,
                "sample": _sample_record(model.sample),
                **_kinds_record(model.defect_kinds),
            }
            for model in contents.members
        ],
    }
    if isinstance(contents, EnsembleContents):
        record["ensemble"] = {
            "scales": scales_to_dict(contents),
            "calibration": _calibration_record(contents.calibration),
            "provenance": contents.provenance,
        }
    return record


def _settings_record(settings: FitSettings) -> dict[str, Any]:
    """The settings under the names that files have had from the first version on."""
    values = settings.to_dict()
    new_names = {new: old for old, new in RENAMED.items()}
    training = {new_names.get(name, name): value for name, value in values["training"].items()}
    old_inits = {new: old for old, new in RENAMED_INIT.items()}
    training["init"] = old_inits.get(training["init"], training["init"])
    return {**values, "training": training}


def _tensors(contents: Contents) -> dict[str, npt.NDArray[Any]]:
    tensors: dict[str, npt.NDArray[Any]] = {}
    for i, model in enumerate(contents.members):
        tensors |= {f"{i}.{name}": tensor for name, tensor in _model_tensors(model).items()}
    if isinstance(contents, EnsembleContents):
        tensors |= _calibration_tensors(contents.calibration)
    return tensors | _joined("thumbnails", contents.members[0].thumbnails)


def _model(
    record: Mapping[str, Any],
    tensors: Tensors,
    prefix: str,
    photos: Sequence[TrainingPhoto],
    thumbnails: Sequence[bytes],
    threads: int,
    engine: str,
) -> ModelContents:
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    good = GoodScores(
        **{name: own[f"good.{stored}"] for stored, name in _GOOD.items()},
        weighted=own.get("good.weighted", own["good.distances"]),
    )
    composition = _composition(photos, good, own)
    if composition is not None:
        good = replace(good, means=composition.means[: len(good.photos)])
    return ModelContents(
        settings=FitSettings.from_dict(record["settings"]),
        preprocessing=Preprocessing.from_dict(record["preprocessing"]),
        representation=Representation(own.get("f.weight"), own.get("f.bias")),
        bank=MemoryBank(
            own["bank.rows"],
            own["bank.photo"].astype(np.int64),
            own["bank.place"].astype(np.int64),
            own["bank.stand_ins"],
            own.get("bank.scales"),
            own.get("bank.defects"),
            own.get("bank.discriminant"),
            composition,
        ),
        photos=photos,
        good=good,
        calibration=_calibration(record["calibration"], own),
        provenance=record["provenance"],
        engine=StoredGraph(own["graph"].tobytes(), engine, threads),
        thumbnails=thumbnails,
        sample=_sample(record["sample"], own),
        defect_kinds=_kinds(record, own),
    )


def _composition(
    photos: Sequence[TrainingPhoto], good: GoodScores, own: Tensors
) -> Composition | None:
    if "composition.means" not in own:
        return None
    names = ("means", "first", "whitening", "units")
    means, first, whitening, units = (own[f"composition.{name}"] for name in names)
    groups = groups_of_composition(good, photos)
    return Composition(means, groups, first, len(good.photos), whitening, units)


def _ensemble(
    record: Mapping[str, Any], tensors: Tensors, models: Sequence[ModelContents]
) -> EnsembleContents:
    ensemble = EnsembleContents(
        models=models,
        score_scales=[Scale(**scale) for scale in record["scales"]["scores"]],
        map_scales=[Scale(**scale) for scale in record["scales"]["maps"]],
        calibration=_calibration(record["calibration"], tensors),
        provenance=record["provenance"],
    )
    check_ensemble(ensemble)
    return ensemble


_GOOD = {
    "photos": "photos",
    "image_scores": "image_scores",
    "map_maxima": "map_maxima",
    "distances": "distances",
    "witnesses": "most_distant",
    "features": "features",
}
"""What a file calls the arrays of `GoodScores`."""


def _model_tensors(model: ModelContents) -> dict[str, npt.NDArray[Any]]:
    tensors: dict[str, npt.NDArray[Any]] = {
        "graph": np.frombuffer(model.engine.graph, dtype=np.uint8),
        "bank.rows": model.bank.rows,
        "bank.photo": model.bank.photo.astype(np.int32),
        "bank.place": model.bank.place.astype(np.int32),
        "bank.stand_ins": model.bank.replacements,
        **_calibration_tensors(model.calibration),
        **{f"good.{stored}": getattr(model.good, name) for stored, name in _GOOD.items()},
    }
    if model.bank.scales is not None:
        tensors["bank.scales"] = model.bank.scales
    if model.bank.defects is not None:
        tensors["bank.defects"] = model.bank.defects
    if model.bank.discriminant is not None:
        tensors["bank.discriminant"] = model.bank.discriminant
    if model.bank.composition is not None:
        tensors["composition.means"] = model.bank.composition.means
        tensors["composition.first"] = model.bank.composition.first
        tensors["composition.whitening"] = model.bank.composition.whitening
        tensors["composition.units"] = model.bank.composition.units
    if model.good.weighted is not model.good.distances:
        tensors["good.weighted"] = model.good.weighted
    if model.representation.weight is not None:
        tensors["f.weight"] = model.representation.weight
    if model.representation.bias is not None:
        tensors["f.bias"] = model.representation.bias
    if model.defect_kinds is not None:
        tensors["kinds.rows"] = model.defect_kinds.rows
        tensors["kinds.kind"] = model.defect_kinds.kind.astype(np.int32)
    if model.sample is not None:
        tensors |= _joined("sample.pictures", model.sample.pictures)
        tensors["sample.scores"] = model.sample.scores
        tensors["sample.distances"] = model.sample.distances
    return tensors


def _calibration_tensors(calibration: Calibration) -> dict[str, npt.NDArray[Any]]:
    return {
        "calibration.scores": calibration.scores,
        "calibration.map_maxima": calibration.map_maxima,
    }


def _calibration_record(calibration: Calibration) -> dict[str, Any]:
    return {
        "rate": calibration.rate,
        "source": calibration.source,
        "set_by_hand": calibration.set_by_hand,
    }


def _calibration(record: Mapping[str, Any], tensors: Tensors) -> Calibration:
    return Calibration(tensors["calibration.scores"], tensors["calibration.map_maxima"], **record)


def _joined(name: str, files: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    """Several files as two tensors: their bytes, and where each ends."""
    if not files:
        return {}
    ends = np.cumsum([len(file) for file in files], dtype=np.int64)
    return {name: np.frombuffer(b"".join(files), dtype=np.uint8), f"{name}.ends": ends}


def _split(tensors: Tensors, name: str) -> Sequence[bytes]:
    if name not in tensors:
        return ()
    ends = tensors[f"{name}.ends"]
    if np.any(np.diff(ends, prepend=0) < 0) or ends[-1] != len(tensors[name]):
        raise ValueError(f"{name} end elsewhere")
    return [part.tobytes() for part in np.split(tensors[name], ends[:-1])]


def _sample_record(sample: Sample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    agreements = [agreement.to_dict() for agreement in sample.agreements]
    return {
        "good": sample.good,
        "agreements": agreements,
        "fingerprint": sample.fingerprint,
        "measured": [measured.to_dict() for measured in sample.measured],
    }


def _sample(record: Mapping[str, Any] | None, own: Tensors) -> Sample | None:
    if record is None:
        return None
    return Sample(
        _split(own, "sample.pictures"),
        int(record["good"]),
        own["sample.scores"],
        own["sample.distances"],
        [Agreement(**agreement) for agreement in record["agreements"]],
        str(record["fingerprint"]),
        # Files of earlier versions have none; their engines are measured when they are saved anew.
        [Measured.from_dict(measured) for measured in record.get("measured", ())],
    )


def _kinds_record(kinds: DefectKinds | None) -> dict[str, Any]:
    """Nothing where there are none: files without kinds are as they were before there were any."""
    return {} if kinds is None else {"kinds": {"names": [*kinds.names], "near": [*kinds.near]}}


def _kinds(record: Mapping[str, Any], own: Tensors) -> DefectKinds | None:
    if "kinds" not in record:
        return None
    names, near = record["kinds"]["names"], record["kinds"]["near"]
    return DefectKinds(
        tuple(names), own["kinds.rows"], own["kinds.kind"].astype(np.int64), tuple(near)
    )


def _digest(record: Mapping[str, Any], tensors: Tensors) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}\n".encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The verified record and tensors of a file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    if path.is_dir():
        raise ModelFileError(f"{path} is a folder: give the model file that `fit` wrote")
    try:
        with open_regular(path) as file:
            header, size = _start(file, path)
            if size != os.fstat(file.fileno()).st_size:
                raise _damaged(path)
            file.seek(0)
            content = file.read()
    except FileNotFoundError:
        raise ModelFileError(
            f"there is no model file {path}: check the name, or make one with "
            "`reconpatch fit GOOD -o MODEL`"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(
            f"{path} cannot be read ({reason}): give the file that `fit` wrote, "
            "and check its rights"
        ) from error
    record, stated = header["record"], header["sha256"]
    try:
        tensors = from_bytes(content)
        digest = _digest(record, tensors)
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path) from error
    if digest != stated:
        raise _damaged(path)
    return record, tensors


def _start(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int | None]:
    """What a file's beginning says of the model, and how many bytes the whole has by that.

    Of a file of another kind, of whatever size, no more is read.
    """
    length = int.from_bytes(file.read(8), "little")
    try:
        names = json.loads(file.read(min(length, _LONGEST_HEADER)))
        header = json.loads(names.pop("__metadata__")["reconpatch"])
        version = int(header["format"])
        if not {"record", "sha256"} <= header.keys():
            raise ValueError
    except (AttributeError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ModelFileError(
            f"{path} is not a reconpatch model, or it is damaged at the start: give a file that "
            "`reconpatch fit` wrote"
        ) from None
    if version < FORMAT:
        raise ModelFileError(
            f"{path} has format {version}, of a version before the first release, and this one "
            f"reads format {FORMAT}: fit it again"
        )
    if version > FORMAT:
        raise ModelFileError(
            f"{path} has format {version}, and this version reads format {FORMAT}: install a newer "
            "reconpatch"
        )
    try:
        return header, 8 + length + max(int(t["data_offsets"][1]) for t in names.values())
    except (ValueError, KeyError, TypeError, IndexError, OverflowError):
        return header, None


def _damaged(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is damaged (truncated or altered: its contents do not match its checksum): copy "
        "it again from where it was fitted"
    )
