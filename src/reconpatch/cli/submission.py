"""The command `submission`: the files that MVTec AD 2's server takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import reconpatch
from reconpatch.cli import parts


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(submission)


def submission(
    model_file: parts.ModelFile,
    category: Annotated[
        Path, typer.Argument(help="Folder of one category of MVTec AD 2.", metavar="CATEGORY")
    ],
    output: Annotated[Path, parts.written("The folder to hand in.")],
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    engine: parts.Engine = "onnxruntime",
    threads: parts.Threads = 0,
) -> None:
    """Inspect the private photos of MVTec AD 2, and write the maps that its server takes.

    Categories go into one DIR, one after the other; files that are there are replaced.
    """
    from reconpatch.evaluation.submission import submit

    model = reconpatch.load(model_file, threads=threads, engine=engine)
    with parts.show_progress() as progress:
        photos = submit(model, category, output, max_pixels=max_pixels, progress=progress)
    print(f"{photos} maps in {output}")
