"""Inspects with the kept model files and fits, as an installed package does, with no other one.

scripts/smoke runs this in an environment in which nothing else is installed:

    python smoke.py FOLDER          the folder of the kept model files and what they have to say
    python smoke.py FOLDER small    and nothing is installed but what that takes
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import reconpatch

DATA = Path(__file__).parent / "data"
MOST_PACKAGES, MOST_BYTES = 26, 290e6  # of a base installation, this one included

TOLERANCE = 1e-3
"""By what share a score may differ between processors and between versions of the engine."""


def pictures(model: Any) -> list[Image.Image]:
    """The good photos that a model file carries, and the same with a white bar across them."""
    sample = model.members[0].sample
    good = [Image.open(io.BytesIO(png)) for png in sample.pictures[: sample.good]]
    barred = [picture.copy() for picture in good]
    for picture in barred:
        picture.paste((255, 255, 255), (8, 24, 56, 32))
    return good + barred


def sayings(model: Any) -> dict[str, Any]:
    """What is to stay as it is: the fingerprint, the threshold, and the verdict on each picture."""
    results = [model.inspect(picture) for picture in pictures(model)]
    return {
        "fingerprint": model.fingerprint,
        "threshold": model.threshold,
        "scores": [result.score for result in results],
        "anomalous": [result.anomalous for result in results],
    }


def differences(said: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of what is not as it was."""
    most = TOLERANCE * expected["threshold"]
    return [name for name, value in expected.items() if not _close(said[name], value, most)]


def _close(a: Any, b: Any, most: float) -> bool:
    if isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b, [most] * len(b)))
    if isinstance(b, float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=most)
    return bool(a == b)


def kept(folder: Path = DATA) -> list[Path]:
    """The kept model files; beside each stands a JSON file of the same name."""
    return sorted(folder.glob("format-*.rcp"))


def expected(file: Path) -> dict[str, Any]:
    """What a kept model file has to say."""
    values: dict[str, Any] = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return values


def command_line(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`reconpatch` with these arguments."""
    return subprocess.run(
        [Path(sys.executable).with_name("reconpatch"), *arguments],
        check=False,
        capture_output=True,
        encoding="utf-8",
    )


def check(file: Path) -> None:
    """One kept model file from Python and from the command line; ends the run where it differs."""
    model, wanted = reconpatch.load(file), expected(file)
    if found := differences(sayings(model), wanted):
        sys.exit(f"{file.name}: not as expected: {', '.join(found)}")
    with tempfile.TemporaryDirectory() as folder:
        photo, report = Path(folder, "photo.png"), Path(folder, "report")
        pictures(model)[-1].save(photo)
        done = command_line("inspect", file, photo, "--json", "-o", report)
        if done.returncode != 1 or not (report / "report.html").is_file():
            sys.exit(f"{file.name}: inspect ended with {done.returncode}: {done.stderr}")
        score = json.loads(done.stdout)["score"]
        if not _close(score, wanted["scores"][-1], TOLERANCE * wanted["threshold"]):
            sys.exit(f"{file.name}: inspect said a score of {score}")
    for command in ("info", "verify"):
        done = command_line(command, file)
        if done.returncode:
            sys.exit(f"{file.name}: {command} ended with {done.returncode}: {done.stderr}")
    print(f"{file.name}: as expected, from Python and from the command line")


def check_fit(file: Path) -> None:
    """A fit of the default recipe on the pictures of a kept model file, each with other grain."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        good, part = Path(folder, "good"), Path(folder, "part.rcp")
        good.mkdir()
        for i, picture in enumerate(pictures(reconpatch.load(file))[:3]):
            grain = rng.normal(0, 4, (*picture.size[::-1], 3))
            pixels = np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(good / f"{i}.png")
        done = command_line("fit", good, "-o", part, "--size", "64")
        if done.returncode:
            sys.exit(f"fit ended with {done.returncode}: {done.stderr}")
        done = command_line("inspect", part, good)
        if done.returncode not in (0, 1):
            sys.exit(f"inspect of what was fitted ended with {done.returncode}: {done.stderr}")
    if importlib.util.find_spec("torch") is None:
        print("fits without torch")


def main() -> None:
    """Every kept model file, a fit, and whether the installation is as small as it is to be."""
    print(f"reconpatch {reconpatch.__version__} in {Path(reconpatch.__file__).parent}")
    files = kept(Path(sys.argv[1]))
    if not files:
        sys.exit(f"{sys.argv[1]} holds no kept model file")
    for file in files:
        check(file)
    check_fit(files[0])
    tools = {"pip", "setuptools", "wheel"}
    installed = {d.name.lower(): d for d in metadata.distributions() if d.name not in tools}
    sizes = [f.locate().stat().st_size for d in installed.values() for f in d.files or ()]
    print(f"{len(installed)} packages, {sum(sizes) / 1e6:.0f} MB: {' '.join(sorted(installed))}")
    if sys.argv[2:] == ["small"] and (len(installed) > MOST_PACKAGES or sum(sizes) > MOST_BYTES):
        sys.exit(
            f"the base install may take {MOST_PACKAGES} packages and {MOST_BYTES / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
