"""A fit that is killed at any moment leaves no broken file and nothing that stays for ever."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from serving import photo
from soak_models import Count

import reconpatch
from reconpatch.errors import ReconPatchError

# A fit of seconds, most of them for the imports.
OPTIONS = (
    "--weights", "random", "--size", "64", "--bank", "0.2", "--quality", "fast", "--overwrite",
    "--set", "init=identity", "--set", "steps=5", "--set", "batch_size=64", "--set", "dim=16",
)  # fmt: skip


def killed_fits(folder: Path, times: int, seed: int, count: Count) -> str:
    """Kill fits to one file at random moments, then let one end; what was left in between.

    A kill leaves the model as it was or the new one, whole, and nothing in the temporary folder.
    What it left of a half-written file goes with the next fit.
    """
    good, output, temporary = (folder / name for name in ("good", "models", "tmp"))
    for made in (good, output, temporary):
        made.mkdir()
    for i in range(6):
        (good / f"{i}.png").write_bytes(photo(i, 96))
    model = output / "part.rcp"
    began = time.monotonic()
    fit(good, model, temporary)
    seconds = time.monotonic() - began
    first = reconpatch.load(model).fingerprint
    rng = random.Random(seed)
    half_written = ended = 0
    for i in range(times):
        # Half of the kills come near the end, where the file is written.
        moment = rng.uniform(0, 1.05) if i % 2 else rng.uniform(0.85, 1.05)
        ended += fit(good, model, temporary, moment * seconds) == 0
        count.add(f"kill {i} at {moment:.2f} of a fit", _state(model, temporary))
        half_written += len(list(output.glob(".*.part")))
        _age(output)
    fit(good, model, temporary)
    remaining = sorted(path.name for path in (*output.iterdir(), *_left_in(temporary)))
    if remaining != ["part.rcp"] or reconpatch.load(model).fingerprint != first:
        count.wrong.append(f"the fit after the last kill left {remaining}, or another model")
    return f"{ended} had ended before; {half_written} left half of a file, which the next removed"


def fit(good: Path, model: Path, temporary: Path, kill_after: float | None = None) -> int:
    """Run a fit as a process, and kill it after so many seconds; its exit code."""
    command = [sys.executable, "-m", "reconpatch.cli", "fit", str(good), "-o", str(model), *OPTIONS]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    if process.returncode > 0:
        raise SystemExit(f"the fit failed: {said.decode()[-2_000:]}")
    return process.returncode


def _left_in(temporary: Path) -> list[Path]:
    """What is left there, but for a file that ONNX Runtime writes when it is imported."""
    return [path for path in temporary.iterdir() if path.name != ".ses"]


def _state(model: Path, temporary: Path) -> str:
    try:
        reconpatch.load(model)
    except ReconPatchError as error:
        return f"a broken file: {error}"
    remaining = _left_in(temporary)
    return f"left in the temporary folder: {remaining}" if remaining else "harmless"


def _age(folder: Path) -> None:
    """Let what is there be old enough to be taken for left behind."""
    for path in folder.iterdir():
        old = path.stat().st_mtime - 3_600
        os.utime(path, (old, old))
