"""The command `score`: millions of photos, in this process or by many workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconpatch.cli import parts
from reconpatch.errors import SettingsError


def register(app: typer.Typer) -> None:
    """Give the command line the command of this module."""
    app.command()(score)


def score(
    model_file: parts.ModelFile,
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of photos; a list of them (.txt, .csv or .tsv); or Parquet, a file or a "
            "folder, of photos or of paths. A path, or a URL such as s3://BUCKET/FOLDER.",
            metavar="SOURCE",
        ),
    ],
    output: Annotated[Path, parts.written("Folder for the scores.")] = Path("results"),
    on: parts.On = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Workers on Ray, at most; 0: as many as the cluster has room for.", min=0
        ),
    ] = 0,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Score photos again that could not be inspected."),
    ] = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    engine: parts.Engine = "onnxruntime",
    threads: parts.Threads = 0,
) -> None:
    """Score very many photos, and write the scores as Parquet files.

    Stopped in whatever way and started again, it goes on with what is not scored yet. Exit codes
    are those of inspect, of all photos in DIR.
    """
    from reconpatch.scale.score_many import score_photos

    if workers and on is None:
        raise SettingsError("--workers says how many there are on Ray: give it with --on ray")
    with parts.show_progress() as progress:
        scored = score_photos(
            model_file, source, output, on=on, workers=workers, engine=engine, threads=threads,
            max_pixels=max_pixels, retry_errors=retry_errors, progress=progress,
        )  # fmt: skip
    if scored.left_out:
        parts.note(scored.left_out, warn=True)
    parts.note(f"{output}: {scored}")
    counts = scored.counts
    raise typer.Exit(parts.verdict_code(counts.anomalous, counts.unreadable))
