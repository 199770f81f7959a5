"""The command `export`: a model as files for programs in other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import reconpatch
from reconpatch.cli import parts
from reconpatch.errors import SettingsError

# The same as in reconpatch.export.graph, which --help must not wait for.
Format = Literal["onnx", "openvino"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(export)


def export(
    model_file: parts.ModelFile,
    output: Annotated[Path, parts.written("The folder to make.")],
    to: Annotated[Format, typer.Option("--to", help="The library that will run it.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Bring the backbone to 8 bits; takes --photos.")
    ] = False,
    photos: Annotated[
        list[Path] | None,
        typer.Option(
            help="A good photo, or a folder of them, for --int8; may be repeated. The threshold is "
            "set anew on all of them.",
            metavar="GOOD",
        ),
    ] = None,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    threads: parts.Threads = 0,
    overwrite: parts.Overwrite = False,
) -> None:
    """Write a model for programs in C++, C# or JavaScript: graph, numbers, page, sample.

    What was written is read back and compared with the model. Where the two disagree, nothing is
    left of it (exit code 2).
    """
    from reconpatch.export.export import export as run

    if int8 and not photos:
        raise SettingsError(
            "--int8 takes good photos to choose the 8 bits by: give them with --photos GOOD"
        )
    if photos and not int8:
        raise SettingsError("--photos is for --int8 alone: add --int8, or leave it out")
    model = reconpatch.load(model_file, threads=threads)
    good = parts.photo_files(photos or [], max_pixels) if int8 else None
    exported = run(model, output, to=to, int8=good, name=model_file.stem, overwrite=overwrite)
    if as_json:
        parts.say_json({"folder": str(output), **exported.to_dict()})
        return
    parts.say(output)
    for sentence in exported.sentences():
        parts.say(sentence)
