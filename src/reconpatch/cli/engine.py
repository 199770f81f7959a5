"""The commands `verify` and `bench`: what the engines of this machine answer, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import reconpatch
from reconpatch.cli import parts

if TYPE_CHECKING:
    from reconpatch.export.timing import EngineTimes
    from reconpatch.model.model import Inspector
    from reconpatch.model.sample import Agreement
    from reconpatch.photos.images import Photo

DISAGREE = 1

Photos = Annotated[
    list[Path] | None, typer.Argument(help="Photos, or folders of photos.", metavar="PHOTO")
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        help="onnxruntime or openvino; may be repeated.",
        show_default="all that are installed",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(verify)
    app.command()(bench)


def verify(
    model_file: parts.ModelFile,
    photos: Photos = None,
    engine: Engines = None,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    threads: parts.Threads = 0,
) -> None:
    """Check that the engines of this machine give the verdicts that the model was written with.

    Without photos, on the sample that the file carries. Exit code 0: they do; 1: one does not.
    """
    model = reconpatch.load(model_file, threads=threads)
    names = _engines(engine)
    found = _agreements(model, parts.photo_files(photos or [], max_pixels), names)
    if as_json:
        figures = {who: [a.to_dict() for a in each] for who, each in found.items()}
        parts.say_json(figures)
    else:
        for who, each in found.items():
            for agreement in each:
                verdict = "agrees   " if agreement.holds else "DISAGREES"
                parts.say(
                    f"{verdict}  {f'{who}, ' if len(found) > 1 else ''}{agreement.sentence()}"
                )
    raise typer.Exit(0 if all(a.holds for each in found.values() for a in each) else DISAGREE)


def _agreements(
    model: Inspector, photos: Sequence[Photo], engines: Sequence[str]
) -> dict[str, list[Agreement]]:
    """What each engine says, by the name of the member."""
    from reconpatch.model.ensemble import member_names
    from reconpatch.model.parity import verify_photos, verify_sample

    names = member_names([member.settings for member in model.members])
    return {
        name: verify_photos(member, photos, engines) if photos else verify_sample(member, engines)
        for name, member in zip(names, model.members, strict=True)
    }


def _engines(given: Sequence[str] | None) -> list[str]:
    from reconpatch.engine.engines import check_engine, engines_present

    for name in given or []:
        check_engine(name)
    return list(given) if given else engines_present()


def bench(
    model_file: parts.ModelFile,
    photos: Photos = None,
    engine: Engines = None,
    rounds: Annotated[int, typer.Option(help="How often each photo is inspected.", min=1)] = 20,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    threads: parts.Threads = 0,
) -> None:
    """Measure milliseconds a photo, by step, and photos a second, on the engines of this machine.

    Without photos, on those that the file carries, which have the size of the model's input.
    """
    from reconpatch.export.timing import time_engines
    from reconpatch.fitting.options import default_threads

    model = reconpatch.load(model_file, threads=threads)
    with parts.show_progress() as progress:
        times = time_engines(
            model, parts.expand(photos) if photos else [], _engines(engine), rounds=rounds,
            threads=threads or default_threads(), max_pixels=max_pixels, progress=progress,
        )  # fmt: skip
    if as_json:
        parts.say_json([of_engine.to_dict() for of_engine in times])
    else:
        _print_times(times)


def _print_times(times: Sequence[EngineTimes]) -> None:
    from rich.console import Console
    from rich.table import Table

    counted = f"{times[0].photos} photos, {times[0].rounds} times each"
    print(f"Milliseconds a photo, median (99th percentile); {counted}")
    table = Table(box=None)
    table.add_column("")
    for of_engine in times:
        table.add_column(of_engine.engine, justify="right")
    rows = {step: [of.steps[step] for of in times] for step in times[0].steps}
    rows["whole, from memory"] = [of.from_memory for of in times]
    rows["whole, from file"] = [of.from_file for of in times]
    for name, values in rows.items():
        table.add_row(name, *(f"{v.median:.1f} ({v.p99:.1f})" for v in values))
    for size in times[0].photos_a_second:
        values_ = [f"{of.photos_a_second[size]:.1f}" for of in times]
        table.add_row(f"photos a second, {size} at a time", *values_)
    table.add_row("peak memory so far, MB", *(f"{of.peak_memory / 1e6:.0f}" for of in times))
    Console(highlight=False).print(table)
