"""The command `submission`: the files that MVTec AD 2's server takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import reconpatch
from reconpatch.cli.parts import (
    MAX_PIXELS,
    Engine,
    MaxPixels,
    ModelFile,
    Threads,
    show_progress,
    written,
)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(submission)


def submission(
    model_file: ModelFile,
    category: Annotated[
        Path, typer.Argument(help="Folder of one category of MVTec AD 2.", metavar="CATEGORY")
    ],
    output: Annotated[Path, written("The folder to hand in.")],
    max_pixels: MaxPixels = MAX_PIXELS,
    engine: Engine = "onnxruntime",
    threads: Threads = 0,
) -> None:
    """Inspect the private photos of MVTec AD 2, and write the maps that its server takes.

    Categories go into one DIR, one after the other; files that are there are replaced.
    """
    from reconpatch.evaluation.submission import submit

    model = reconpatch.load(model_file, threads=threads, engine=engine)
    with show_progress() as progress:
        photos = submit(model, category, output, max_pixels=max_pixels, progress=progress)
    print(f"{photos} maps in {output}")
