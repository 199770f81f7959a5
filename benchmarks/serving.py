"""`reconpatch serve` as a process of its own, for the measurements of the service."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

import reconpatch


@contextlib.contextmanager
def serving(*arguments: object, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its URL; what it says goes to the end of a file."""
    command = [sys.executable, "-m", "reconpatch.cli", "serve", *map(str, arguments)]
    with log.open("a") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, encoding="utf-8")
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.fullmatch(r"Listening: (\S+)\n", line):
                    yield process, found[1]
                    return
            raise SystemExit(f"the service did not start: {log.read_text()[-2000:]}")
        finally:
            process.terminate()
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def megabytes(process: subprocess.Popen[str]) -> float:
    """Resident memory of a process (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def photo(seed: int, side: int) -> bytes:
    """A generated part as PNG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    weave = 110 + 25 * np.sin(40 * x) * np.sin(40 * y) + 50 * (np.hypot(y - 0.5, x - 0.5) < 0.3)
    pixels = np.clip(weave[:, :, None] + rng.normal(0, 6, (side, side, 3)), 0, 255)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def small_model(path: Path, side: int) -> None:
    """A model of generated parts with random weights, for what does not hang on the model."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(12):
            (Path(folder) / f"{seed}.png").write_bytes(photo(seed, side))
        model = reconpatch.fit(
            folder, weights="random", size=(64, 64), bank=0.2, init="identity", steps=5,
            guard=False, batch_size=64, dim=16,
        )  # fmt: skip
    model.save(path)
