"""A small, seeded sample of what `scripts/soak` does with large counts; see docs/hardening.md."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

import reconpatch
from conftest import REPOSITORY, SMALL_FIT, WAIT, save, scratched, textured
from reconpatch.engine import engines
from reconpatch.errors import ModelFileError
from reconpatch.features.graph_contents import OPERATORS, checked_graph
from reconpatch.model.model import Model


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the soak."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module(name)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("soak_models", monkeypatch)


@pytest.fixture
def damaged_photos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("soak_photos", monkeypatch)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A good part and a defective one."""
    good = textured(1000)
    return [save(good, tmp_path / "a.png"), save(scratched(good), tmp_path / "b.png")]


# --- Model files ---------------------------------------------------------------------------------


def test_damaged_model_files_are_refused_or_harmless(
    models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    content, rng = small_model_file.read_bytes(), np.random.default_rng(0)
    expected = models.verdict(reconpatch.load(small_model_file, threads=1), pictures[0])
    count = models.Count()
    for name, damaged in (*models.flips(content, 30, rng), *models.truncations(content, 0, rng)):
        path = tmp_path / "part.rcp"
        count.add(name, models.damaged_file(damaged, pictures[0], expected, path))
    assert count.wrong == []
    assert count.refused > 0.95 * count.tried > 200


def test_an_undamaged_file_is_not_taken_for_a_damaged_one(
    models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    content = small_model_file.read_bytes()
    expected = models.verdict(reconpatch.load(small_model_file, threads=1), pictures[0])
    other = models.rewritten(
        content, models._record("members", 0, "calibration", "rate", value=0.4)
    )
    path = tmp_path / "part.rcp"
    assert models.damaged_file(content, pictures[0], expected, path) == "harmless"
    assert models.damaged_file(other, pictures[0], expected, path) == "another verdict"
    assert models.made_up_file(models.rewritten(content, lambda *_: None), pictures, tmp_path) == (
        "harmless"
    )


def test_made_up_model_files_are_refused_or_harmless(
    models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    count = models.Count()
    files = dict(models.hostile(small_model_file.read_bytes()))
    graphs = [name for name in files if "graph" in name]
    others = sorted(files.keys() - set(graphs))
    for name in graphs + others[::15]:
        count.add(name, models.made_up_file(files[name](), pictures, tmp_path))
    assert count.wrong == []
    assert count.refused > 20


@pytest.mark.parametrize(
    "name", ["../../../escaped.png", "/escaped.png", "<script>alert(1)</script>"]
)
def test_no_name_in_a_model_reaches_a_file_or_a_page(
    name: str, models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    content = models.rewritten(
        small_model_file.read_bytes(),
        lambda record, _: [photo.update(name=name) for photo in record["photos"]],
    )
    assert models.made_up_file(content, pictures, tmp_path) == "harmless"


def changed(graph: bytes, change: Callable[[Any], object]) -> bytes:
    """A graph that somebody changed."""
    model = onnx.load_model_from_string(graph)
    change(model)
    return bytes(model.SerializeToString())


def with_node(op: str, **attributes: Any) -> Callable[[Any], object]:
    node = onnx.helper.make_node(op, ["photos"], ["more"], **attributes)
    return lambda model: model.graph.node.append(node)


def test_what_a_graph_must_not_hold_is_named(models: ModuleType, small_model: Model) -> None:
    own = small_model.engine.graph
    assert onnx.load_model_from_string(checked_graph(own)) == onnx.load_model_from_string(own)
    graphs = dict(models._graphs(own))
    body = onnx.helper.make_graph([], "body", [], [])
    sparse = onnx.SparseTensorProto(dims=[1])
    others = {
        "a branch": (with_node("If", then_branch=body, else_branch=body), "holds control flow"),
        "a branch without branches": (with_node("If"), "holds the operator 'If'"),
        "a body in a harmless node": (with_node("Relu", own=body), "holds control flow"),
        "a scan": (with_node("Scan", body=body, num_scan_inputs=1), "holds control flow"),
        "text": (with_node("StringNormalizer"), "holds the operator 'StringNormalizer'"),
        "a domain": (with_node("Conv", domain="ai.onnx.ml"), "the domain 'ai.onnx.ml'"),
        "sparse weights": (lambda m: m.graph.sparse_initializer.append(sparse), "sparse tensors"),
        "training": (lambda m: m.training_info.add(), "holds training steps"),
        "data in a constant": (
            with_node("Constant", value=onnx.TensorProto(external_data=[{}], data_type=1)),
            "holds data in another file",
        ),
        "an input that is a sequence": (
            lambda m: m.graph.input[0].type.sequence_type.elem_type.tensor_type.SetInParent(),
            "holds TypeProto.sequence_type",
        ),
        "very many nodes": (
            lambda m: m.graph.node.extend([onnx.helper.make_node("Relu", ["a"], ["b"])] * 20_001),
            "operators",
        ),
    }  # fmt: skip
    made = {name: (changed(own, change), said) for name, (change, said) in others.items()}
    for name, said in (
        ("graph with an endless loop", "holds control flow"),
        ("graph with functions", "holds functions"),
        ("graph with data in /etc/passwd", "holds data in another file"),
        ("graph with an operator of its own", "holds an operator of the domain 'evil'"),
        ("a graph of noise", "cannot be read"),
        ("an empty graph", "cannot be read"),
    ):
        made[name] = graphs[name], said
    for graph, said in made.values():
        with pytest.raises(ModelFileError, match=said):
            checked_graph(graph)


@pytest.mark.parametrize("above", [0, 1 << 32, 1 << 33, 1 << 34])
def test_an_engine_gets_nothing_that_onnx_did_not_understand(
    above: int, small_model: Model
) -> None:
    """Parsers differ in what they make of a tag with bits above 32: one may read functions."""
    graph = small_model.engine.graph
    number = 25 if above else 4_000  # functions, or a field that there is not
    hidden = varint(number << 3 | 2 | above) + b"\x02\x0a\x00"
    try:
        given = checked_graph(graph + hidden)
    except ModelFileError:
        return
    assert given == checked_graph(graph)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    more = value >> 7
    return bytes([value & 127 | 128]) + varint(more) if more else bytes([value])


def test_no_operator_on_the_list_holds_a_graph() -> None:
    graphs = {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}
    for name in OPERATORS:
        schema = onnx.defs.get_schema(name)
        assert not graphs & {attribute.type for attribute in schema.attributes.values()}, name


def test_the_engine_runs_what_was_checked(
    small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bytes] = []
    monkeypatch.setitem(engines._OPENERS, "onnxruntime", lambda graph, threads: given.append(graph))
    stored = small_model.engine.graph + varint(4_000 << 3) + b"\1"
    assert engines.StoredGraph(stored).engine is None
    assert given == [checked_graph(small_model.engine.graph)]


# --- Photos --------------------------------------------------------------------------------------


def test_damaged_photos_are_inspected_or_refused(
    damaged_photos: ModuleType, models: ModuleType, small_model: Model, tmp_path: Path
) -> None:
    count = models.Count()
    many = 6 * len(damaged_photos.seeds())
    damaged_photos.inspected(small_model, damaged_photos.mutated(many, 0), tmp_path, count)
    assert count.wrong == []
    assert count.tried == many
    assert min(count.refused, count.harmless) > 0.1 * many


def test_every_seed_is_a_photo_and_mutations_follow_their_seed(
    damaged_photos: ModuleType, models: ModuleType, small_model: Model, tmp_path: Path
) -> None:
    count = models.Count()
    damaged_photos.inspected(small_model, iter(damaged_photos.seeds()), tmp_path, count)
    several = 3  # a PNG, a TIFF and a WebP of several pictures are refused as they are
    assert (count.wrong, count.refused) == ([], several)
    assert count.harmless == len(damaged_photos.seeds()) - several
    first, again, other = (list(damaged_photos.mutated(40, seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_damaged_photos_on_the_command_line(
    damaged_photos: ModuleType, models: ModuleType, small_model_file: Path, tmp_path: Path
) -> None:
    count = models.Count()
    mutated = damaged_photos.mutated(64, 1)
    damaged_photos.through_command_line(small_model_file, mutated, tmp_path / "in", count)
    assert count.wrong == []
    assert count.tried == 64


# --- A fit that is killed ------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_fit_killed_while_it_writes_leaves_what_was_there(
    good_folder: Path, small_model_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "models" / "part.rcp"
    output.parent.mkdir()
    output.write_bytes(small_model_file.read_bytes())
    code = """
import os, signal, sys
import reconpatch, reconpatch.files
reconpatch.files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
reconpatch.fit(sys.argv[1], **eval(sys.argv[3])).save(sys.argv[2], overwrite=True)
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, good_folder, output, repr(SMALL_FIT)],
        env={**os.environ, "TMPDIR": str(temporary)}, check=False, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert output.read_bytes() == small_model_file.read_bytes()
    assert len(list(output.parent.glob(".part.rcp.*.part"))) == 1
    # ONNX Runtime writes a file of its own when it is imported.
    assert {path.name for path in temporary.iterdir()} <= {".ses"}
    for path in output.parent.iterdir():
        os.utime(path, (0, 0))  # long ago
    reconpatch.load(output).save(output, overwrite=True)
    assert list(output.parent.iterdir()) == [output]
