"""Tensors of a `.pth` file, read without torch and without running anything in it.

    file ──┬── zip archive:  data.pkl, data/0, data/1, ...   (torch 1.6 and later)
           └── one stream:   five pickles, then the storages (before)
                                   │
       opcodes of a plain list ────┴──> name -> NumPy array

A pickle is a program for a small stack machine, and Python's own runs whatever it names. The
machine here knows the opcodes that a saved state dict consists of, and three names: an ordered
dictionary, "make a tensor of a storage", and the storages of plain numbers. What is on no list here
is refused. Reading takes memory in proportion to the file, whatever it says.

Reference: torch/serialization.py and torch/_utils.py of PyTorch; pickletools.py of Python.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Tensors = dict[str, npt.NDArray[Any]]

_MAGIC = 0x1950A86A20F9469CFC6C  # of the one stream
_STREAM_VERSION = 1001
_STORAGES: Mapping[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
}
_MARK = object()


def read_pth(content: bytes) -> Tensors:
    """The tensors of a state dict that torch saved, by name, in the order of the file.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: it is damaged, or holds anything but named tensors of plain numbers.
    """
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            named, storages = _read_archive(content)
        else:
            named, storages = _read_stream(content)
        return {name: tensor.of(storages[tensor.storage.key]) for name, tensor in named.items()}
    except _RefusedError:
        raise
    except (ValueError, LookupError, TypeError, ArithmeticError, EOFError) as error:
        raise _RefusedError("is no state dict, or is damaged") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise _RefusedError("is an archive of a kind that torch does not write") from error


class _RefusedError(ValueError):
    """What a file is or holds, to go after "the file"."""


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The tensor, of the numbers of its storage; a copy.

        Raises:
            ValueError: it reaches beyond them, or repeats some.
        """
        count = math.prod(self.shape)
        spans = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        if count > len(values) or (count and self.offset + sum(spans) >= len(values)):
            raise _RefusedError("holds a tensor that is larger than its storage")
        if not count:
            return np.zeros(self.shape, values.dtype)
        strides = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides).copy()


# --- The two kinds of file ------------------------------------------------------------------------


def _read_stream(content: bytes) -> tuple[Mapping[str, _Tensor], dict[str, npt.NDArray[Any]]]:
    file = io.BytesIO(content)
    magic, version, system = (_Machine().run(file) for _ in range(3))
    if magic != _MAGIC or version != _STREAM_VERSION or system["little_endian"] is not True:
        raise _RefusedError("is none that torch saved")
    machine = _Machine()
    named = _named_tensors(machine.run(file))
    keys = _Machine().run(file)
    if not isinstance(keys, list) or sorted(keys) != sorted(machine.storages):
        raise _RefusedError("lacks storages, or has some that no tensor uses")
    storages = {}
    for key in keys:
        storage = machine.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise _RefusedError("has a storage of another length than it says")
        storages[key] = _numbers(storage, file.read(storage.count * storage.dtype.itemsize))
    return named, storages


def _read_archive(content: bytes) -> tuple[Mapping[str, _Tensor], dict[str, npt.NDArray[Any]]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        # Entries that are compressed, or lie over one another, come to more than the file has.
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise _RefusedError("is a compressed archive, which torch does not write")
        if sum(entry.file_size for entry in entries) > len(content):
            raise _RefusedError("is an archive that claims to hold more than its own length")
        (pickled,) = (e.filename for e in entries if e.filename.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise _RefusedError("was saved by a machine of another byte order")
        machine = _Machine()
        named = _named_tensors(machine.run(io.BytesIO(archive.read(pickled))))
        storages = {
            key: _numbers(storage, archive.read(f"{folder}data/{key}"))
            for key, storage in machine.storages.items()
        }
    return named, storages


def _named_tensors(found: Any) -> dict[str, _Tensor]:
    if not isinstance(found, dict) or not found:
        raise _RefusedError("is no state dict")
    for value in found.values():
        if not isinstance(value, _Tensor):
            raise _RefusedError("holds more than tensors")
    return found


def _numbers(storage: _Storage, data: bytes) -> npt.NDArray[Any]:
    if len(data) != storage.count * storage.dtype.itemsize:
        raise _RefusedError("has a storage of another length than it says")
    return np.frombuffer(data, storage.dtype)


# --- The stack machine ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Name:
    """Something that a pickle names, "module name"."""

    text: str


class _Machine:
    """Runs one pickle.

    Attributes:
        storages: those that it named, by their keys.
    """

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: io.BytesIO) -> Any:
        """What the pickle that starts here makes; the file is left after its end.

        Raises:
            ValueError: it does anything that a saved state dict does not need.
        """
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self._stack.pop()
            step = _STEPS.get(opcode.name)
            if step is None:
                raise _RefusedError(f"has the opcode {opcode.name}, which no state dict needs")
            step(self, argument)
        raise _RefusedError("ends too early")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def name(self, text: str) -> None:
        if text not in _STORAGES and text not in _MAKERS:
            raise _RefusedError(f"names {text.replace(' ', '.')!r}, which no state dict needs")
        self._stack.append(_Name(text))

    def tuple_of(self, count: int) -> None:
        values = tuple(self._stack[len(self._stack) - count :])
        if len(values) != count or any(value is _MARK for value in values):
            raise IndexError(count)
        del self._stack[len(self._stack) - count :]
        self._stack.append(values)

    def since_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def put(self, pairs: Sequence[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise TypeError(target)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):
                raise _RefusedError("has a name that is no text")
            target[key] = value

    def append(self, values: Sequence[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError(target)
        target.extend(values)

    def call(self) -> None:
        arguments, maker = self._stack.pop(), self._stack.pop()
        if not isinstance(maker, _Name) or not isinstance(arguments, tuple):
            raise TypeError(maker)
        self._stack.append(_MAKERS[maker.text](*arguments))

    def leave_state(self) -> None:
        """Of an ordered dictionary, notes of torch's on versions of layers: not needed."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise TypeError(self._stack[-1])

    def storage(self) -> None:
        kind, name, key, _, count, *view = self._stack.pop()
        if kind != "storage" or not isinstance(name, _Name) or view not in ([], [None]):
            raise TypeError(kind)
        dtype: np.dtype[Any] = _STORAGES[name.text]
        found = _Storage(_text(key), dtype, _count(count))
        if self.storages.setdefault(found.key, found) != found:
            raise _RefusedError("says different things of one storage")
        self._stack.append(found)


def _ordered_dictionary() -> dict[str, Any]:
    return {}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise TypeError(storage)
    return _Tensor(storage, _count(offset), tuple(map(_count, shape)), tuple(map(_count, strides)))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


_MAKERS: Mapping[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dictionary,
    "torch._utils _rebuild_tensor_v2": _tensor,
}

_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda *_: None,
    "GLOBAL": _Machine.name,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.leave_state(),
    "BINPERSID": lambda machine, _: machine.storage(),
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "MARK": lambda machine, _: machine.push(_MARK),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.put([machine._stack.pop(-2), machine._stack.pop()]),
    "SETITEMS": lambda machine, _: machine.put(machine.since_mark()),
    "BINUNICODE": _Machine.push,
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "NONE": _Machine.push,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
}
