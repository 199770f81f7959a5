"""What a stored graph may hold: its own data and a plain list of operators.

A model file may come from anywhere. Engines refuse operators that they do not know, but one reads
files that a graph names, and a loop in a graph may never end. Graphs of this package have neither,
so a graph that has is refused before an engine opens it. Its protobuf is walked message by message;
weights are stepped over, not copied.

    model ── graph ── node ── attribute ── tensor
                   └─ tensor

Reference: https://protobuf.dev/programming-guides/encoding, and onnx.proto for the fields' numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from reconpatch.errors import ModelFileError

Kind = Literal["model", "graph", "node", "attribute", "tensor"]

# Fields that are messages of their own and are looked into.
_INSIDE: Mapping[Kind, Mapping[int, Kind]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
    "tensor": {},
}
# Fields that no graph of this package has, and what they would be. Of the last one, which says
# where a tensor's data is, 0 stands for the file itself.
_REFUSED: Mapping[Kind, Mapping[int, str]] = {
    "model": {20: "training steps", 25: "functions"},
    "graph": {15: "sparse tensors"},
    "node": {},
    "attribute": {
        6: "control flow",
        11: "control flow",
        22: "sparse tensors",
        23: "sparse tensors",
    },
    "tensor": {13: "data in another file", 14: "data in another file"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_graph(graph: bytes) -> None:
    """Look for what a stored graph must not hold.

    Raises:
        ModelFileError: it is no ONNX graph, or holds control flow, functions, training steps,
            sparse tensors, or data in other files.
    """
    try:
        found = next(_refused(memoryview(graph), "model"), None)
    except (IndexError, ValueError) as error:
        raise ModelFileError(
            "The network in the model file cannot be read: the file is damaged; take a fresh copy "
            "or fit it again."
        ) from error
    if found is not None:
        raise ModelFileError(
            f"The network in the model file holds {found}, which no network of this package does: "
            "do not use a file that you cannot trust; fit the model again."
        )


def _refused(message: memoryview, kind: Kind) -> Iterator[str]:
    """What a message and those inside it hold that is refused."""
    for number, value in _fields(message):
        if number in _REFUSED[kind] and value != 0:
            yield _REFUSED[kind][number]
        inner = _INSIDE[kind].get(number)
        if inner is not None and isinstance(value, memoryview):
            yield from _refused(value, inner)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; IndexError or ValueError where it is no protobuf."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"wire type {wire}")
        length = 8 if wire == _FIXED64 else 4
        if wire == _BYTES:
            length, at = _varint(message, at)
        if at + length > len(message):
            raise ValueError(f"{length} bytes at {at} of {len(message)}")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length and where it ends."""
    value = 0
    for i in range(10):
        byte = message[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number of more than 10 bytes")
