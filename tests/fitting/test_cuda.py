"""A fit and a benchmark on CUDA, emulated: the device is this processor, and rounds as TF32 does.

No card has run this: what is tested is that TF32 is off where features are made, that features on a
device go the way of all others, that torch takes the steps of f, and what is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import reconpatch  # noqa: E402
from conftest import SMALL_FIT  # noqa: E402
from reconpatch.cli.main import app  # noqa: E402
from reconpatch.errors import ParityError, SettingsError  # noqa: E402
from reconpatch.features import patch_features  # noqa: E402
from reconpatch.features.patch_features import PatchFeatures, TorchFeatureExtractor  # noqa: E402
from reconpatch.method import torch_training  # noqa: E402
from test_benchmark import ALIKE, run, stored, tree  # noqa: E402, F401

FIT: dict[str, Any] = {**SMALL_FIT, "method": "patchcore", "device": "cuda"}


def in_tf32(x: torch.Tensor) -> torch.Tensor:
    """float32 with 10 bits of mantissa, the nearest."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device "cuda" that convolves in TF32 wherever torch allows it, as Ampere and later do."""
    convolve = torch.nn.functional.conv2d

    def conv2d(x: Any, weight: Any, *rest: Any, **options: Any) -> Any:
        if torch.backends.cudnn.allow_tf32 and not torch.jit.is_tracing():
            x, weight = in_tf32(x), in_tf32(weight)
        return convolve(x, weight, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(patch_features, "_move", lambda module, device: module)


@pytest.mark.usefixtures("cuda")
def test_f_is_trained_by_torch_there(good_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, asked = torch_training.train, []

    def on_this_processor(*given: Any, device: str, **more: Any) -> Any:
        asked.append(device)
        return train(*given, device="cpu", **more)

    monkeypatch.setattr(torch_training, "train", on_this_processor)
    models = [reconpatch.fit(good_folder, **SMALL_FIT, device=name) for name in ("cuda", "cpu")]
    assert asked == ["cuda"]
    one, two = models
    # Features of two engines, whose roundings five steps amplify.
    assert one.threshold == pytest.approx(two.threshold, rel=1e-2)


@contextmanager
def nothing() -> Iterator[None]:
    yield


@pytest.mark.usefixtures("cuda")
def test_a_fit_agrees_with_the_engines(good_folder: Path) -> None:
    """Features in TF32 would be a reference that no engine on a processor agrees with."""
    assert torch.backends.cudnn.allow_tf32  # as torch comes
    model = reconpatch.fit(good_folder, **FIT)
    assert model.members[0].provenance["features"].startswith("TorchFeatureExtractor")
    here = reconpatch.fit(good_folder, **{**FIT, "device": "cpu"})
    assert model.threshold == pytest.approx(here.threshold, rel=1e-4)
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("cuda")
def test_the_emulation_shows_what_tf32_would_do(
    good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_features, "exact_float32", nothing)
    with pytest.raises(ParityError):
        reconpatch.fit(good_folder, **FIT)


class Precision(torch.nn.Module):
    """A backbone that notes in what precision it would work on a card."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.seen.append(precision())
        return [x]


def precision() -> tuple[Any, ...]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    new = hasattr(cudnn, "conv")
    return (
        cudnn.allow_tf32,
        cudnn.deterministic,
        cudnn.conv.fp32_precision if new else None,
        matmul.fp32_precision if new else matmul.allow_tf32,
    )


@pytest.mark.parametrize("everywhere", [False, True])
def test_what_the_program_had_chosen_is_restored(everywhere: bool) -> None:
    """TF32 allowed by torch's default, or by the program for convolutions and products alike."""
    new = hasattr(torch.backends, "fp32_precision")
    if everywhere and not new:
        pytest.skip("this torch has no precision for all")
    if everywhere:
        torch.backends.fp32_precision = "tf32"
    try:
        before, backbone = precision(), Precision()
        module = PatchFeatures(backbone, (0, 0, 0), (1, 1, 1), 1)
        extract = TorchFeatureExtractor(module, (4, 4))
        backbone.seen.clear()
        extract(np.zeros((1, 3, 4, 4), np.float32))
        exact = "ieee" if new else None
        assert backbone.seen == [(False, True, exact, "ieee" if new else False)]
        assert precision() == before
    finally:
        if new:
            torch.backends.fp32_precision = "none"


# --- The benchmark --------------------------------------------------------------------------------


@pytest.mark.usefixtures("cuda")
def test_photos_are_extracted_once_and_tested_alike_whatever_the_number_of_methods(
    tree: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extracted: list[int] = []
    extract = TorchFeatureExtractor.__call__

    def counted(self: Any, photos: Any) -> Any:
        extracted.append(len(photos))
        return extract(self, photos)

    monkeypatch.setattr(TorchFeatureExtractor, "__call__", counted)
    counts, records = [], []
    for methods in (["patchcore"], ["patchcore", "untrained"]):
        extracted.clear()
        folder = tmp_path / str(len(methods))
        run(tree / "bottle", folder, methods=methods, changes=ALIKE, device="cuda")
        counts.append(sum(extracted))
        records.append(stored(folder))
    one, two = counts
    photos = sum(records[0][0]["counts"][name] for name in ("fit", "good", "defective"))
    assert two < 1.5 * one  # the second method reads back what the first extracted
    assert one >= photos  # those of the test too, and not by another engine
    alone, beside = records[0][0], records[1][0]
    assert [score for *_, score in alone["photos"]] == [score for *_, score in beside["photos"]]
    assert (
        "Features of all photos, of the fit and of the test, are torch's on cuda."
        in (alone["protocol"])
    )


def test_workers_have_no_card(tree: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(SettingsError, match="leave out one of --device and --on"):
        run(tree, tmp_path / "out", on="ray", device="cuda")
    assert not (tmp_path / "out").exists()
    asked = ["benchmark", str(tree), "--dataset", "mvtec", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*asked, "--on", "ray", "--device", "cuda"])
    assert done.exit_code == 2
    assert "workers extract features on CPUs" in " ".join(done.stderr.split())


@pytest.mark.parametrize("device", ["abacus", "cuda"])
def test_a_device_that_is_not_here_ends_the_benchmark_at_once(
    device: str,
    tree: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=f"--device is '{device}'"):
        run(tree, tmp_path / "out", device=device)
    assert not (tmp_path / "out").exists()
