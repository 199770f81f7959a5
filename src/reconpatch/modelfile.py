"""One file for a whole model: a safetensors file whose header carries a JSON record.

Arrays, the backbone's ONNX graph and the thumbnails are tensors; everything else is JSON. No
pickle, no code, no paths but names relative to the folder of the fit. Any safetensors reader opens
it. A SHA-256 over the record and every tensor stands in the header; a file whose contents do not
have it is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reconpatch.calibration import Calibration
from reconpatch.errors import ModelFileError
from reconpatch.files import atomic_write, check_writable
from reconpatch.good_photos import GoodScores, TrainingPhoto
from reconpatch.images import Preprocessing
from reconpatch.memory_bank import MemoryBank
from reconpatch.representation import Representation
from reconpatch.settings import FitSettings

if TYPE_CHECKING:
    from reconpatch.model import Model

FORMAT = 1
Tensors = Mapping[str, npt.NDArray[Any]]


def save(model: Model, path: Path, *, overwrite: bool) -> None:
    """Write a model; the file is there whole or not at all."""
    from safetensors.numpy import save as to_bytes

    check_writable(path, overwrite=overwrite)
    tensors = _tensors(model)
    record = _record(model)
    header = {"format": FORMAT, "sha256": _digest(record, tensors), "record": record}
    metadata = {"reconpatch": json.dumps(header)}
    content = to_bytes({name: np.ascontiguousarray(t) for name, t in tensors.items()}, metadata)
    with atomic_write(path) as file:
        file.write(content)


def load(path: Path, *, threads: int = 0) -> Model:
    """Read a model back.

    Raises:
        ModelFileError: the file is missing, not a model, of a newer format, truncated or altered.
    """
    from reconpatch.model import Model

    record, tensors = _read(path)
    try:
        return Model(
            settings=FitSettings.from_dict(record["settings"]),
            preprocessing=Preprocessing.from_dict(record["preprocessing"]),
            graph=tensors["graph"].tobytes(),
            representation=Representation(tensors.get("f.weight"), tensors.get("f.bias")),
            bank=MemoryBank(
                tensors["bank.rows"],
                tensors["bank.photo"].astype(np.int64),
                tensors["bank.place"].astype(np.int64),
                tensors["bank.stand_ins"],
            ),
            photos=[TrainingPhoto(**photo) for photo in record["photos"]],
            good=GoodScores(**{name: tensors[f"good.{name}"] for name in _GOOD}),
            calibration=Calibration(
                scores=tensors["calibration.scores"],
                map_maxima=tensors["calibration.map_maxima"],
                **record["calibration"],
            ),
            provenance=record["provenance"],
            thumbnails=_split(tensors),
            threads=threads,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path} is not a complete model ({type(error).__name__}: {error}): fit it again, or "
            "take a copy that works"
        ) from error


def fingerprint(model: Model) -> str:
    """SHA-256 over all that decides a verdict, and nothing that does not (times, versions)."""
    tensors = {k: v for k, v in _tensors(model).items() if not k.startswith("thumbnails")}
    record = _record(model)
    decisive = {key: record[key] for key in ("settings", "preprocessing", "calibration", "photos")}
    return _digest(decisive, tensors)


_GOOD = ("image_scores", "map_maxima", "distances", "witnesses", "features")


def _tensors(model: Model) -> dict[str, npt.NDArray[Any]]:
    tensors: dict[str, npt.NDArray[Any]] = {
        "graph": np.frombuffer(model.graph, dtype=np.uint8),
        "bank.rows": model.bank.rows,
        "bank.photo": model.bank.photo.astype(np.int32),
        "bank.place": model.bank.place.astype(np.int32),
        "bank.stand_ins": model.bank.stand_ins,
        "calibration.scores": model.calibration.scores,
        "calibration.map_maxima": model.calibration.map_maxima,
        **{f"good.{name}": getattr(model.good, name) for name in _GOOD},
    }
    if model.representation.weight is not None:
        tensors["f.weight"] = model.representation.weight
    if model.representation.bias is not None:
        tensors["f.bias"] = model.representation.bias
    if model.thumbnails:
        sizes = [len(thumbnail) for thumbnail in model.thumbnails]
        tensors["thumbnails"] = np.frombuffer(b"".join(model.thumbnails), dtype=np.uint8)
        tensors["thumbnails.ends"] = np.cumsum(sizes, dtype=np.int64)
    return tensors


def _split(tensors: Tensors) -> Sequence[bytes]:
    if "thumbnails" not in tensors:
        return ()
    ends = tensors["thumbnails.ends"]
    return [part.tobytes() for part in np.split(tensors["thumbnails"], ends[:-1])]


def _record(model: Model) -> dict[str, Any]:
    calibration = model.calibration
    return {
        "settings": model.settings.to_dict(),
        "preprocessing": model.preprocessing.to_dict(),
        "calibration": {
            "rate": calibration.rate,
            "source": calibration.source,
            "set_by_hand": calibration.set_by_hand,
        },
        "photos": [asdict(photo) for photo in model.photos],
        "provenance": model.provenance,
    }


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
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(
            f"there is no model file {path}: check the name, or make one with "
            "`reconpatch fit GOOD -o MODEL`"
        ) from None
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror or error}): check its rights"
        ) from error
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        header = json.loads(metadata["reconpatch"])
        record, stated, version = header["record"], header["sha256"], int(header["format"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelFileError(
            f"{path} is not a reconpatch model, or it is damaged at the start: give a file that "
            "`reconpatch fit` wrote"
        ) from None
    if version > FORMAT:
        raise ModelFileError(
            f"{path} has format {version}, and this version reads up to {FORMAT}: install a newer "
            "reconpatch"
        )
    try:
        tensors = from_bytes(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path) from error
    if version < 1 or _digest(record, tensors) != stated:
        raise _damaged(path)
    return record, tensors


def _damaged(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path} is damaged (truncated or altered: its contents do not match its checksum): copy "
        "it again from where it was fitted"
    )
