"""Model files that are damaged or made up: refused with one sentence, or harmless.

Damage is every bit of positions spread over a file's parts (the safetensors header, the JSON
record, the checksum, the graph, the other tensors), and the file cut short. What is made up has the
right checksum and a hostile content. Harmless is a file that loads and gives the very same verdict
(damage), or that is used to the end without anything happening beside it (made up).
"""

from __future__ import annotations

import copy
import io
import json
import struct
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

import reconpatch
from reconpatch.errors import ReconPatchError
from reconpatch.model import file as modelfile

Change = Callable[[dict[str, Any], dict[str, Any]], None]

# What no file may lead to. (Settings are checked by their annotations, which Python evaluates.)
_FORBIDDEN = (
    "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn",
    "ctypes.dlopen", "socket.connect", "socket.getaddrinfo",
)  # fmt: skip


@dataclass
class Count:
    """How many were tried, and what became of them."""

    tried: int = 0
    refused: int = 0
    harmless: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, what: str, outcome: str) -> None:
        self.tried += 1
        self.refused += outcome == "refused"
        self.harmless += outcome == "harmless"
        if outcome not in ("refused", "harmless"):
            self.wrong.append(f"{what}: {outcome}")

    def row(self, name: str) -> str:
        figures = (self.tried, self.refused, self.harmless, len(self.wrong))
        return f"| {name} | " + " | ".join(f"{n:,}" for n in figures) + " |"


class Hook:
    """Notes what Python itself reports of forbidden events, while it is told to."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, _: object) -> None:
        if self._on and event in _FORBIDDEN:
            self.seen.append(event)

    def __enter__(self) -> None:
        self.seen, self._on = [], True

    def __exit__(self, *_: object) -> None:
        self._on = False


hook = Hook()


# --- Damage --------------------------------------------------------------------------------------


def parts(content: bytes) -> dict[str, range]:
    """Where the parts of a model file are, by name."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    stated = json.loads(header["__metadata__"]["reconpatch"])["sha256"].encode()
    checksum, record = content.index(stated), content.index(rb"\"record\"")
    start, end = header["0.graph"]["data_offsets"]
    # The record is the only long text of the header; around it are the tensors' names and places.
    record_end = content.index(b'"}', record) + 1
    return {
        "length": range(8),
        "header": range(8, begin),
        "checksum": range(checksum, checksum + len(stated)),
        "record": range(record, record_end),
        "graph": range(begin + start, begin + end),
        "tensors": range(begin, len(content)),
    }


def flips(content: bytes, positions: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """The file with one bit flipped: each of the eight bits at positions in every part."""
    by_part = parts(content)
    for name, places in by_part.items():
        count = min(len(places), positions // len(by_part))
        for place in sorted(rng.choice(places, count, replace=False).tolist()):
            for bit in range(8):
                damaged = bytearray(content)
                damaged[place] ^= 1 << bit
                yield f"bit {bit} of byte {place} ({name})", bytes(damaged)


def truncations(
    content: bytes, lengths: int, rng: np.random.Generator
) -> Iterator[tuple[str, bytes]]:
    """The file cut short: at every length around its borders, and at a sample of all others."""
    edges = {edge for places in parts(content).values() for edge in (places.start, places.stop)}
    near = {n for edge in edges for n in range(edge - 3, edge + 4) if 0 <= n < len(content)}
    others = rng.choice(len(content), min(lengths, len(content)), replace=False).tolist()
    for length in sorted({*near, *others}):
        yield f"cut at {length}", content[:length]


def damaged_file(content: bytes, photo: Any, expected: bytes, path: Path) -> str:
    """What becomes of a damaged file: "refused", "harmless" or what is wrong."""
    path.write_bytes(content)
    try:
        with hook:
            model = reconpatch.load(path, threads=1)
        if hook.seen:
            return f"loading it did {hook.seen}"
        return "harmless" if verdict(model, photo) == expected else "another verdict"
    except ReconPatchError as error:
        return "refused" if "\n" not in str(error) else f"refused in several lines: {error}"
    except Exception:
        return traceback.format_exc()


def verdict(model: Any, photo: Any) -> bytes:
    """All that a verdict says, as bytes."""
    result = model.inspect(photo)
    return json.dumps(result.to_dict()).encode() + result.heatmap.tobytes()


# --- Made up -------------------------------------------------------------------------------------


def rewritten(content: bytes, change: Change) -> bytes:
    """The file with another record and other tensors, and the checksum of those."""
    begin = 8 + int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8:begin])["__metadata__"]["reconpatch"]
    record = copy.deepcopy(json.loads(metadata)["record"])
    tensors = dict(from_bytes(content))
    change(record, tensors)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    header = {"format": modelfile.FORMAT, "record": record}
    header["sha256"] = modelfile._digest(record, tensors)
    return to_bytes(tensors, {"reconpatch": json.dumps(header)})


def with_header(content: bytes, old: bytes, new: bytes) -> bytes:
    """The file with other bytes in its header, whose length follows."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = content[8:begin].replace(old, new, 1)
    return len(header).to_bytes(8, "little") + header + content[begin:]


def hostile(content: bytes) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files that somebody made up: what is hostile about each, and what makes it."""
    for name, change in _changes():
        yield name, partial(rewritten, content, change)
    for name, graph in _graphs(bytes(from_bytes(content)["0.graph"])):
        tensor = _tensor("0.graph", np.frombuffer(graph, np.uint8))
        yield name, partial(rewritten, content, tensor)
    for name, old, new in _headers():
        yield name, partial(with_header, content, old, new)
    for length in (2**63 - 1, 2**64 - 1, len(content), 2**27):
        yield f"a header of {length} bytes", partial(_with_length, content, length)


def _with_length(content: bytes, length: int) -> bytes:
    """The file with another length of its header stated."""
    return length.to_bytes(8, "little") + content[8:]


def _headers() -> Iterator[tuple[str, bytes, bytes]]:
    """What stands in a header, and what is put in its place."""
    for depth in (500, 900, 990, 1_000, 5_000, 100_000):
        nested = b"[" * depth + b"]" * depth
        key = rb"\"photos\": "
        yield f"record nested {depth} deep", key, key + nested + rb", \"p\": "
    for version in ("1e999", "-1e999", "NaN", "1" + "0" * 5_000, "true", "null"):
        key = rb"\"format\": "
        yield f"format {version[:9]}", key, key + version.encode() + rb", \"f\": "
    yield "a record twice", rb"\"record\"", rb"\"record\": 1, \"record\""
    metadata = b'"__metadata__"'
    yield "metadata twice", metadata, metadata + b':{"reconpatch":"{}"},' + metadata
    rows = b'"0.bank.rows"'
    tensor = b':{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
    yield "a tensor twice", rows, rows + tensor + rows
    shape = b'"dtype":"F32","shape":['
    yield "a tensor of any size", shape, shape + b"9223372036854775807,"


def _record(*path: Any, value: Any) -> Change:
    """Put a value somewhere in the record."""

    def change(record: dict[str, Any], _: dict[str, Any]) -> None:
        at: Any = record
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def _tensor(name: str, value: Any) -> Change:
    """Put a tensor in another's place, or what a function makes of it."""

    def change(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors[name] = value(tensors[name]) if callable(value) else value

    return change


def _pictures_in(name: str, picture: bytes) -> Change:
    """Put one picture in the place of every one that a tensor holds."""

    def change(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        count = len(tensors[f"{name}.ends"])
        tensors[name] = np.frombuffer(picture * count, np.uint8)
        tensors[f"{name}.ends"] = np.arange(1, count + 1) * len(picture)

    return change


NAMES = (
    "../../../escaped.png", "/escaped.png", "..\\..\\escaped.png", "C:\\escaped.png", "a\0b.png",
    "x" * 10_000, "<script>alert(1)</script>", "\x1b]0;title\x07", "\u202egnp", "{{7*7}}",
    "caf\udce9.png", "", ".", "CON",
)  # fmt: skip
VALUES = (None, -1, 0, 10**30, 1.5, "text", "", [], {}, [[]], True, float("inf"), float("nan"))


def _changes() -> Iterator[tuple[str, Change]]:
    for name in NAMES:
        yield f"photo named {name[:20]!r}", _record("photos", 0, "name", value=name)
    member = ("members", 0)
    places: Sequence[tuple[Any, ...]] = (
        ("photos",), ("members",), ("ensemble",),
        *(("photos", 0, key) for key in ("name", "sha256", "height", "width", "group")),
        *((*member, key) for key in ("settings", "preprocessing", "calibration", "provenance")),
        (*member, "sample"), (*member, "sample", "good"), (*member, "sample", "agreements"),
        *((*member, "preprocessing", k) for k in ("height", "width", "resize", "white_level")),
        *((*member, "calibration", key) for key in ("rate", "source", "set_by_hand")),
        *((*member, "provenance", key) for key in ("created", "notes", "guard", "weights")),
        *((*member, "settings", k) for k in ("size", "seed", "bank", "neighbourhood", "scoring")),
    )  # fmt: skip
    for place in places:
        for value in VALUES:
            yield f"{'.'.join(map(str, place))} = {value!r}", _record(*place, value=value)
    bank = "0.bank.rows"
    yield "rows that are no numbers", _tensor(bank, lambda rows: np.full_like(rows, np.nan))
    for name in (bank, "0.bank.photo", "0.bank.place", "0.bank.stand_ins", "calibration.scores",
                 "0.calibration.scores", "0.good.photos", "0.good.witnesses", "0.good.features",
                 "0.sample.scores", "thumbnails.ends"):  # fmt: skip
        yield f"no {name}", lambda _, tensors, name=name: tensors.pop(name, None)
        for what, made in (
            ("empty", lambda t: t[:0]), ("shorter", lambda t: t[1:]), ("far", lambda t: t + 10**6),
            ("negative", lambda t: -t - 1), ("deeper", lambda t: t[None]),
            ("a number", np.float64(1)), ("of bytes", lambda t: t.astype(np.uint8)),
        ):  # fmt: skip
            yield f"{name} {what}", _if_there(name, made)
    for what, picture in _pictures():
        yield f"thumbnails: {what}", _pictures_in("thumbnails", picture)
        yield f"samples: {what}", _pictures_in("0.sample.pictures", picture)


def _if_there(name: str, made: Any) -> Change:
    def change(_: dict[str, Any], tensors: dict[str, Any]) -> None:
        if name in tensors:
            tensors[name] = made(tensors[name]) if callable(made) else np.array(made)

    return change


def _pictures() -> Iterator[tuple[str, bytes]]:
    """Pictures that are none, or that are small and say that they are large."""
    yield "no picture", b"nothing"
    yield "empty", b""
    for kind in ("PNG", "JPEG", "GIF"):
        out = io.BytesIO()
        Image.new("L", (5_000, 5_000)).save(out, kind)
        yield f"{kind} of 25 million pixels", out.getvalue()
        yield f"{kind} cut short", out.getvalue()[: len(out.getvalue()) // 2]
    yield "PNG of 10 billion pixels", png_header(100_000, 100_000)
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n"


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG file, which says how large it is."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum + b"\0\0\0\4IDAT"


def _graphs(graph: bytes) -> Iterator[tuple[str, bytes]]:
    """Graphs that reach out of the file, never end, or do not fit the model."""
    import onnx
    from onnx import TensorProto, helper

    def changed(change: Callable[[Any], None]) -> bytes:
        model = onnx.load_model_from_string(graph)
        change(model)
        return bytes(model.SerializeToString())

    def outside(location: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            tensor = model.graph.initializer[0]
            for name in ("raw_data", "float_data", "int64_data"):
                tensor.ClearField(name)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0"), ("length", "16")):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value

        return change

    def loop(model: Any) -> None:
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"])], "body",
            [helper.make_tensor_value_info("i", TensorProto.INT64, []),
             helper.make_tensor_value_info("go", TensorProto.BOOL, [])],
            [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
        )  # fmt: skip
        model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
        model.graph.node.insert(0, helper.make_node("Loop", ["", "yes"], [], body=body))

    def replaced(name: str, node: Any) -> Callable[[Any], None]:
        """Another node gives the output of a name."""

        def change(model: Any) -> None:
            for old in model.graph.node:
                for i, output in enumerate(old.output):
                    if output == name:
                        old.output[i] = f"{name}_before"
            node(model)

        return change

    def huge(model: Any) -> None:
        shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2**20, 2**24])
        model.graph.initializer.append(shape)
        model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["score"]))

    def times(name: str, by: float) -> Callable[[Any], None]:
        def node(model: Any) -> None:
            kind = TensorProto.INT64 if name in ("nearest", "worst") else TensorProto.FLOAT
            factor = helper.make_tensor("factor", kind, [], [by])
            model.graph.initializer.append(factor)
            model.graph.node.append(helper.make_node("Mul", [f"{name}_before", "factor"], [name]))

        return replaced(name, node)

    for location in ("/etc/passwd", "../../../etc/passwd", "part.rcp", "http://127.0.0.1/x"):
        yield f"graph with data in {location}", changed(outside(location))
    yield "graph with an endless loop", changed(loop)
    yield (
        "graph with an operator of its own",
        changed(
            lambda model: model.graph.node.append(
                helper.make_node("Run", ["photos"], ["run"], domain="evil", command="touch escaped")
            )
        ),
    )
    yield (
        "graph with functions",
        changed(
            lambda model: model.functions.append(
                helper.make_function("own", "F", [], [], [], [helper.make_opsetid("", 17)])
            )
        ),
    )
    yield "graph that takes 64 TB", changed(replaced("score", huge))
    yield "graph with scores that are no numbers", changed(times("score", float("nan")))
    for name in ("nearest", "worst"):
        yield f"graph with {name} out of range", changed(times(name, -(10**6)))
    for grid in ("0x0", "-1x-1", "99999x99999", "1x1", "1.5x2", ""):
        yield (
            f"graph with a grid of {grid}",
            changed(lambda model, grid=grid: setattr(model.metadata_props[0], "value", grid)),
        )
    yield "an empty graph", b""
    yield "a graph of noise", np.random.default_rng(0).bytes(5_000)


def made_up_file(content: bytes, photos: Sequence[Any], folder: Path) -> str:
    """What becomes of a made-up file that is used for all a user would use it for."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        inside = Path(name) / "a" / "b" / "c"
        inside.mkdir(parents=True)
        path = inside / "part.rcp"
        path.write_bytes(content)
        try:
            with hook:
                model = reconpatch.load(path, threads=1)
            if hook.seen:
                return f"loading it did {hook.seen}"
            use(model, photos, inside / "report", path)
        except ReconPatchError as error:
            outcome = "refused" if "\n" not in str(error) else f"in several lines: {error}"
        except Exception:
            outcome = traceback.format_exc()
        else:
            outcome = "harmless"
        outside = [p for p in Path(name).rglob("*") if p.is_file() and inside not in p.parents]
        return f"wrote {outside}" if outside else outcome


def use(model: Any, photos: Sequence[Any], report: Path, path: Path) -> None:
    """Inspect, write a report, describe the model, and check its engine."""
    from reconpatch.cli.main import _facts
    from reconpatch.model.parity import verify_sample
    from reconpatch.photos.images import read_photo
    from reconpatch.report.report import ReportWriter, context_of

    writer = ReportWriter(report, context_of(model, "Report", path.name))
    for source in photos:
        photo = read_photo(source)
        writer.add(photo.rgb8(model.white_level), model.inspect(photo))
    page = writer.close().read_text(encoding="utf-8")
    assert "<script>alert" not in page
    json.dumps(_facts(model, path))
    for member in model.members:
        verify_sample(member, ["onnxruntime"])
