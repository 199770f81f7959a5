"""The bare graph as a file for other programs, with the bank in it, and what runs that file here.

    graph + bank ──┬── model.onnx            bank, norms, mask: defaults that a caller may replace
                   └── model.xml, model.bin  bank, norms, mask: constants

A program in another language feeds photos alone. What is written is read back and run from the
file, by the same library that the other program will use.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from reconpatch.engine.engines import GRAPH_OUTPUTS, Output
from reconpatch.errors import MissingExtraError, OutputError, SettingsError
from reconpatch.features.graph_contents import parsed_graph
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.model.parity import Run

FORMATS = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Formats that a graph is written in, and the engine that each is for."""
FILES = {"onnx": "model.onnx", "openvino": "model.xml"}
"""The file that a program opens."""
MOST_BYTES = 2**31 - 2**20
"""A file of this kind (a protobuf message) holds less than 2 GiB; some room is for its frame."""


def check_format(to: str) -> None:
    """Refuse a format that is unknown, or whose packages are not installed.

    Raises:
        SettingsError: there is no such format.
        MissingExtraError: openvino is not installed.
    """
    if to not in FORMATS:
        raise SettingsError(f"the format is {to!r}: give one of {', '.join(FORMATS)}")
    if to == "openvino" and importlib.util.find_spec("openvino") is None:
        raise MissingExtraError("export --to openvino", "openvino")


def check_bytes(graph: bytes, bank: MemoryBank) -> None:
    """Refuse a graph that would be too large for its file with its bank.

    Raises:
        OutputError: it would be over `MOST_BYTES`.
    """
    size = len(graph) + sum(value.nbytes for value in bank.inputs.values())
    if size > MOST_BYTES:
        raise OutputError(
            f"the graph and its bank of {len(bank):,} rows take {size / 2**30:.1f} GiB, and a file "
            "of this kind holds less than 2 GiB: fit with a smaller --bank or --dim"
        )


def write_graph(graph: bytes, bank: MemoryBank, folder: Path, to: str) -> None:
    """Write a graph with its bank into a folder.

    Args:
        graph: what `inspection_graph` wrote, or `int8.quantised` made of it.
        bank: the memory bank.
        folder: where; it exists.
        to: "onnx" or "openvino".

    Raises:
        OutputError: the file would be too large.
    """
    check_bytes(graph, bank)
    if to == "onnx":
        (folder / FILES[to]).write_bytes(with_bank(graph, bank, fixed=False))
        return
    import openvino

    model = openvino.Core().read_model(model=with_bank(graph, bank, fixed=True))
    openvino.save_model(model, folder / FILES[to], compress_to_fp16=False)


def with_bank(graph: bytes, bank: MemoryBank, *, fixed: bool) -> bytes:
    """The graph with the bank inside.

    Args:
        graph: takes them as inputs.
        bank: the memory bank.
        fixed: they are constants; else defaults of inputs, which a caller may replace.
    """
    from onnx import numpy_helper

    model = parsed_graph(graph)
    values = bank.inputs
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()
    )
    if fixed:
        photos = [given for given in model.graph.input if given.name not in values]
        del model.graph.input[:]
        model.graph.input.extend(photos)
    return bytes(model.SerializeToString(deterministic=True))


def open_graph(folder: Path, to: str, threads: int = 0) -> Run:
    """What runs the file that `write_graph` wrote, fed with photos alone."""
    return _open_onnx(folder, threads) if to == "onnx" else _open_openvino(folder, threads)


def _open_onnx(folder: Path, threads: int) -> Run:
    from reconpatch.features.extractor import open_session

    session = open_session((folder / FILES["onnx"]).read_bytes(), threads or None)
    return lambda photos: Output(*session.run(list(GRAPH_OUTPUTS), {"photos": photos}))


def _open_openvino(folder: Path, threads: int) -> Run:
    import openvino

    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(folder / FILES["openvino"], "CPU", config)

    def run(photos: Floats) -> Output:
        found = compiled({"photos": photos})
        return Output(*(np.array(found[name]) for name in GRAPH_OUTPUTS))

    return run
