"""The graphs of a fit, written by torch: in a process of its own that then gives its memory back.

    settings, weights ── write ─┬─ photos -> p
                                ├─ photos -> p in some principal basis ── with_f, for the fit
                                └─ the whole inspection, by some f and by the identity ── with_f

torch and timm take 700 MB once they are imported, more than all else in a fit, and a fit whose f
has a closed form needs them for nothing but this. So the graphs of the inspection are written
before f is known, with other numbers in its place, and f is put in when it is.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from reconpatch.errors import ReconPatchError, WorkersError
from reconpatch.memory import peak_bytes
from reconpatch.method.coreset import bank_rows
from reconpatch.method.memory_bank import Floats
from reconpatch.method.representation import Representation
from reconpatch.method.settings import FitSettings

_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc gives back at once what is free


@dataclass(frozen=True)
class Graphs:
    """What a fit needs of torch.

    Attributes:
        features: photos to patch features p; see `reconpatch.features.patch_features.export_onnx`.
        reduced: photos to p in some principal basis; None where a fit works on p itself.
        blocks: channels of p in order, and whether they are outputs of a level; see
            `reconpatch.method.contrastive_components.principal_basis`.
        learned: the inspection with some weight and bias; None where no f is learned.
        identity: the inspection with some bias; None where it cannot come to that.
        b: neighbours in eq. 10 of both, fewer than asked for if the bank has fewer rows.
        weights: the record of the backbone's weights.
        peak: bytes that the process which wrote them took; 0 if it was this one.
    """

    features: bytes
    reduced: bytes | None
    blocks: tuple[tuple[int, bool], ...]
    learned: bytes | None
    identity: bytes | None
    b: int
    weights: dict[str, str]
    peak: int = 0

    def inspection(self, f: Representation) -> bytes:
        """The graph of the whole inspection by f, for `reconpatch.engine.engines`."""
        graph = self.identity if f.weight is None else self.learned
        assert graph is not None
        return with_f(graph, f)


def write(
    settings: FitSettings, weights: str | Path | None, photos: int, threads: int = 0
) -> Graphs:
    """Write the graphs for a fit.

    A process that has torch already writes them itself, and so does one that cannot start another.

    Args:
        settings: of the fit, with the size of the input.
        weights: of the backbone; see `FitOptions.weights`.
        photos: how many good photos there are, for the size of the bank.
        threads: of torch; 0 leaves them to it.

    Raises:
        WeightsError: the weights are missing or do not fit.
        SettingsError: the backbone is unknown or does not take photos of that size.
        WorkersError: the other process ended without an answer.
    """
    if _stays_here():
        with torch_threads(threads):
            return write_here(settings, weights, photos)
    bound = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
        check=False,
        input=pickle.dumps((settings, weights, photos)),
        stdout=subprocess.PIPE,
        env={**os.environ, **_ENVIRONMENT, **bound, "PYTHONPATH": path},
    )
    if ran.returncode:
        raise WorkersError(
            f"the process that writes the model's graphs ended with code {ran.returncode} and "
            "without an answer: what it said stands above; -9 means that memory ran out"
        )
    answer: Graphs | ReconPatchError = pickle.loads(ran.stdout)
    if isinstance(answer, ReconPatchError):
        raise answer
    return answer


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch take so many threads inside the `with`; 0 leaves them to it."""
    if not threads:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def stay_here() -> None:
    """Have the fits of this process write their graphs in it: for one that makes many."""
    with suppress(ImportError):  # the fit itself says what is missing
        import torch  # noqa: F401


def _stays_here() -> bool:
    # Where Python is part of another program, `sys.executable` may be that program.
    is_python = Path(sys.executable or "").name.lower().startswith("python")
    return "torch" in sys.modules or not is_python


def write_here(settings: FitSettings, weights: str | Path | None, photos: int) -> Graphs:
    """`write` in this process."""
    from reconpatch.engine.graph import InspectionGraph, RepresentedPatches
    from reconpatch.features.patch_features import export_onnx, load_patch_features

    module, record = load_patch_features(settings, weights)
    channels, height, width = module.shape(settings.size)
    settings = settings.fitted_to(channels)
    rows = bank_rows(settings.bank, max(photos, 1) * height * width, settings.bank_least)
    basis = settings.training.basis
    dim = settings.training.dim or channels
    if settings.training.init == "contrastive" and settings.method == "untrained":
        dim = settings.training.principal
    learns = settings.method != "patchcore"
    falls_back = not learns or (settings.method == "reconpatch" and settings.guard)
    some = np.random.default_rng(0)  # no zeros: the exporter takes arrays that are alike for one
    weight = some.standard_normal((dim, channels), np.float32)
    biases = some.standard_normal(dim, np.float32), some.standard_normal(channels, np.float32)
    reduced = None
    if basis:
        onto = some.standard_normal((basis, channels), np.float32)
        f = Representation(onto, some.standard_normal(basis, np.float32))
        reduced = RepresentedPatches(module, f, settings.size).to_onnx()
    learned, identity = (
        InspectionGraph(module, f, settings.scoring, settings.size, rows).to_onnx()
        if wanted
        else None
        for wanted, f in (
            (learns, Representation(weight, biases[0])),
            (falls_back, Representation(None, biases[1])),
        )
    )
    features, b = export_onnx(module, settings.size), min(settings.scoring.b, rows)
    blocks = module.blocks(settings.size)
    return Graphs(features, reduced, blocks, learned, identity, b, record.to_dict())


def with_f(graph: bytes, f: Representation) -> bytes:
    """A graph of the inspection with the numbers of f in the place of those that it has.

    Args:
        graph: what `InspectionGraph.to_onnx` gave for an f of the same shape.
        f: the representation.
    """
    import onnx

    model = onnx.load_model_from_string(graph)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def put(name: str, values: Floats) -> None:
        assert tuple(stored[name].dims) == values.shape, name
        stored[name].CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))

    if f.bias is not None:
        put("bias", f.bias)
    if f.weight is not None:
        start = 0
        for i in count():  # one part for each level, or a single one
            if f"weight_{i}" not in stored:
                break
            end = start + stored[f"weight_{i}"].dims[1]
            put(f"weight_{i}", f.weight[:, start:end, None, None])
            start = end
        assert start == f.weight.shape[1]
    return bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Answer the one request on stdin, as the process that `write` starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asked is told, and ends this one
    with os.fdopen(os.dup(1), "wb") as out, redirect_stdout(sys.stderr):
        try:
            graphs = write_here(*pickle.load(sys.stdin.buffer))
            answer: Graphs | ReconPatchError = replace(graphs, peak=peak_bytes())
        except ReconPatchError as error:
            answer = error
        pickle.dump(answer, out)
    os._exit(0)  # torch takes half a second to leave in order
