"""The command line. Results go to stdout, progress and messages to stderr.

Exit codes: 0 all photos are good (or the command did what it was asked); 1 at least one photo is
anomalous; 2 an error, foreseen or not: the command is not done; 3 done, but at least one photo
could not be inspected, or one product or part of a benchmark not be done; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

import reconpatch
from reconpatch.cli import (
    engine,
    export,
    operate,
    parts,
    people,
    products,
    score,
    station,
    submission,
    update,
    watch,
)
from reconpatch.errors import PhotoError, ReconPatchError, SettingsError

if TYPE_CHECKING:
    from reconpatch.model.model import Inspector, Model
    from reconpatch.photos.images import Photo
    from reconpatch.report.report import ReportWriter
    from reconpatch.result import Result

DEBUG = "RECONPATCH_DEBUG"
"""Environment variable that shows tracebacks, as --debug does."""

_NO_MEMORY = re.compile("bad_alloc|allocate memory|unable to allocate|failed to map segment", re.I)

# The same as in reconpatch.fitting.ensemble and reconpatch.method.settings, which --help must not
# wait for.
Statistics = Literal["as_new", "training"]
Quality = Literal["fast", "balanced", "best"]


class _Commands(TyperGroup):
    """The commands; whatever stops one is a sentence and an exit code, and no verdict."""

    _verdict = 0  # of the command, once it is done

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            # rich ends with 1 where what it prints, such as a mistake in the arguments, is not read
            sys.exit(parts.ERROR if end.code == 1 != self._verdict else end.code)
        except Exception as error:
            sys.exit(_told(error))

    def make_context(self, info_name: Any, args: list[str], *more: Any, **kwargs: Any) -> Any:
        try:
            _check_given(args)
            return super().make_context(info_name, args, *more, **kwargs)
        except Exception as error:
            raise typer.Exit(_told(error)) from error

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # what cannot be written is to be found out here, not at exit
        except typer.Exit as end:
            self._verdict = end.exit_code
            raise
        except SystemExit as end:  # of a library: its code is no verdict
            raise typer.Exit(parts.ERROR if end.code else 0) from end
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(_told(error, debug=ctx.params.get("debug", False))) from error


def _check_given(arguments: Sequence[str]) -> None:
    """Refuse empty arguments: an empty path would be the folder that the program runs in."""
    for argument in arguments:
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            raise SettingsError(
                f"the argument {argument!r} is empty, as of a variable that is not set: give a "
                "value, or leave it out"
            )


def _told(error: BaseException, *, debug: bool = False) -> int:
    """Say in a sentence on stderr what stopped a command; the exit code.

    What the command line itself raises (a mistake in the arguments, an exit) is raised again.
    """
    if hasattr(error, "exit_code"):
        raise error
    if debug or os.environ.get(DEBUG, "0") not in ("", "0"):
        _complain("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, KeyboardInterrupt):
        _complain("Stopped. Nothing half-written was left behind.", fg="yellow")
    else:
        _complain(f"Error: {parts.shown(_sentence(error))}", fg="red")
    for stream in (sys.stdout, sys.stderr):
        _let_go(stream)
    return parts.INTERRUPTED if isinstance(error, KeyboardInterrupt) else parts.ERROR


def _sentence(error: BaseException) -> str:
    reason = " ".join(str(error).split())[:300] or "no reason given"
    if isinstance(error, ReconPatchError):
        return str(error)
    if isinstance(error, MemoryError) or _NO_MEMORY.search(reason):
        return (
            f"memory ran out ({type(error).__name__}: {reason}), so the command is not done: give "
            "it more memory, smaller photos, or fewer --threads"
        )
    if isinstance(error, BrokenPipeError):
        return (
            "whoever read the output closed it before its end, so the command is not done: let it "
            "be read to the end, or write to a file"
        )
    if isinstance(error, OSError):
        return (
            f"the operating system refused a step ({error}): check that the disk has room and that "
            "the files may be read and written"
        )
    return (
        f"something unforeseen happened ({type(error).__name__}: {reason}), so the command is not "
        f"done: please report it, with what `reconpatch --debug` and the same command show"
    )


def _complain(text: str, **style: Any) -> None:
    with suppress(OSError, ValueError):  # nobody may be there to hear it
        typer.secho(text, err=True, **style)


def _let_go(stream: Any) -> None:
    """Let what cannot be written go nowhere, or Python would complain of it at exit."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # a stand-in in memory has no number
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


app = typer.Typer(
    name="reconpatch",
    cls=_Commands,
    help="Learn what good parts look like from photos of good parts; find defects in new ones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"reconpatch {reconpatch.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help=f"Show the traceback of an error, as {DEBUG}=1 in the environment does."
        ),
    ] = False,
) -> None:
    """Learn what good parts look like from photos of good parts only; find defects in new ones."""


@app.command()
def fit(
    good: Annotated[Path, typer.Argument(help="Folder of photos of good parts.", metavar="GOOD")],
    output: Annotated[Path, parts.written("The model file to write.", None)],
    recipe: Annotated[
        str, typer.Option(help="default, or paper for the paper's own settings.")
    ] = "default",
    quality: Annotated[
        Quality,
        typer.Option(
            help="fast (as many pixels as 224 x 224, a smaller bank), balanced, or best (two "
            "backbones at two sizes): fewer milliseconds a photo or better maps."
        ),
    ] = "balanced",
    method: Annotated[
        str | None,
        typer.Option(
            help="reconpatch (f is trained), untrained (f as it starts), or patchcore (no f).",
            show_default="reconpatch",
        ),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="Backbone; any timm model with --levels. Given several times: an ensemble.",
            show_default="by recipe",
        ),
    ] = None,
    scales: Annotated[
        Statistics,
        typer.Option(
            help="Of an ensemble: where the median and MAD of each member come from: as_new (good "
            "photos scored as if they were new), or training (the paper's rule)."
        ),
    ] = "as_new",
    levels: Annotated[
        str | None,
        typer.Option(help="Levels of the backbone, such as 2,3.", show_default="its own"),
    ] = None,
    weights: parts.Weights = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="Input size in pixels: 224, HEIGHTxWIDTH, or auto (the photos' shape, with as "
            "many pixels as 320 x 320 where their shorter side has 320, else as 224 x 224; as 448 "
            "x 448 where it has those and defects made on good photos show that it pays). Given "
            "several times: an ensemble, in pairs with backbones.",
            show_default="auto",
        ),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            help="Look at large photos in square tiles of this many pixels, or auto (with "
            "--smallest-defect). All photos then have one size.",
            metavar="PIXELS",
            show_default="no tiles",
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            help="Pixels that neighbouring tiles share at least.", min=0, show_default="64"
        ),
    ] = None,
    smallest_defect: Annotated[
        int | None,
        typer.Option(
            help="Diameter, in pixels of the photo, of the smallest defect that matters: what "
            "--tile auto goes by.",
            min=1,
        ),
    ] = None,
    register: Annotated[
        bool,
        typer.Option(
            "--register",
            help="Bring parts that lie shifted or turned to where the first good photo has its "
            "part (needs the extra register, also where the model inspects).",
        ),
    ] = False,
    roi: Annotated[
        Path | None,
        typer.Option(
            help="Region of interest: a picture, white where photos are inspected, or a JSON file "
            "of polygons. What lies outside changes no verdict.",
            metavar="FILE",
        ),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(
            help="Resize the shorter side to this and crop the centre to --size, as the paper "
            "does. What is cut off is not inspected. 0: the whole photo.",
            show_default="by recipe",
        ),
    ] = None,
    bank: Annotated[
        float | None,
        typer.Option(
            help="Size of the memory bank: a share of all patches (0.01), or rows (20000).",
            show_default="0.01, and 4,000 at least of few photos",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of new good photos that may be flagged by mistake.", show_default="0.01"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of every random step.", show_default="0")
    ] = None,
    group: parts.Group = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting, such as alpha=0.3; may be repeated."),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option(help="Keep small pictures of the good photos in the model.")
    ] = True,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out photos that cannot be read.")
    ] = False,
    white_level: Annotated[
        int,
        typer.Option(
            help="16-bit value that counts as white; 0: from the photos.", min=0, max=65535
        ),
    ] = 0,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    device: parts.Device = "cpu",
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="Memory that the process may take, such as 2GiB: patches that do not fit are "
            "taken in parts, which the fit says.",
            metavar="SIZE",
            show_default="none",
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            help="A PNG to write: made defects beside their maps by principal directions alone and "
            "by f; of an ensemble, by its first member.",
            metavar="FILE",
        ),
    ] = None,
    defects: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of confirmed defects that f learns from beside made ones; may be "
            "repeated. Masks in its folder ground_truth or masks say where they are.",
            metavar="FOLDER",
        ),
    ] = None,
    on: parts.On = None,
    threads: parts.Threads = 0,
    overwrite: parts.Overwrite = False,
) -> None:
    """Learn from photos of good parts and write a model file."""
    from reconpatch.files import check_writable
    from reconpatch.fitting.ensemble import fit_members, members_of
    from reconpatch.fitting.options import FitOptions
    from reconpatch.memory import parse_bytes
    from reconpatch.method.settings import ensemble_settings_for, parse_setting
    from reconpatch.scale.distributed_fit import steps_of

    changes = {
        "method": method,
        "levels": None if levels is None else parse_setting("levels", levels),
        "tile": None if tile is None else parse_setting("tile", tile),
        "overlap": overlap,
        "smallest_defect": smallest_defect,
        "register": register or None,
        "resize": resize,
        "bank": bank,
        "false_alarm_rate": false_alarm_rate,
        "seed": seed,
    }
    chosen = {name: value for name, value in changes.items() if value is not None}
    chosen |= parts.settings_by_name(assignments, apart=(*changes, "recipe", "backbone", "size"))
    sizes = [parse_setting("size", text) for text in size or []]
    members = members_of(
        backbone or None, sizes or None, quality, recipe=recipe, taken=chosen,
    )  # fmt: skip
    settings = ensemble_settings_for(recipe, members, **chosen)
    check_writable(output, overwrite=overwrite)
    if explain is not None:
        check_writable(explain, overwrite=overwrite)
    with parts.show_progress() as progress:
        options = FitOptions(
            weights=weights, group=group, thumbnails=thumbnails, skip_unreadable=skip_unreadable,
            max_pixels=max_pixels, white_level=white_level, device=device, threads=threads,
            progress=progress, memory_limit=parse_bytes(memory_limit) if memory_limit else 0,
            roi=roi, explain=explain, on=on, confirmed=defects or None,
        )  # fmt: skip
        model = fit_members(good, settings, options, scales, steps_of)
    model.save(output, overwrite=overwrite)
    _say_fitted(model, output)


@app.command()
def inspect(
    model_file: parts.ModelFile,
    photos: Annotated[
        list[Path], typer.Argument(help="Photos, or folders of photos.", metavar="PHOTO")
    ],
    output: parts.ReportFolder = None,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    engine: parts.Engine = "onnxruntime",
    threads: parts.Threads = 0,
    overwrite: parts.Overwrite = False,
) -> None:
    """Say of each photo whether it is anomalous, and where.

    Exit code 0: all good; 1: something is anomalous; 2: an error; 3: a photo could not be read.
    """
    from reconpatch.photos.kind import KindsSeen
    from reconpatch.photos.read_ahead import read_ahead

    model = reconpatch.load(model_file, threads=threads, engine=engine)
    paths = parts.expand(photos)
    report = _open_report(output, model, model_file, overwrite) if output else None
    anomalous = unreadable = 0
    seen = KindsSeen()
    with parts.show_progress() as progress:
        # The next photo is decoded while the engine is at work on this one.
        read = read_ahead(lambda path: _read_or_error(path, max_pixels), paths, threads=1)
        for i, (path, photo) in enumerate(zip(paths, read, strict=True)):
            if isinstance(photo, PhotoError):
                unreadable += 1
                _say_unreadable(path, photo, as_json)
                if report is not None:
                    report.add_error(str(path), str(photo))
            else:
                result = model.inspect(photo)
                anomalous += result.anomalous
                seen.add(result.notes)
                # Flushed line by line, so that a program that reads them can act on each at once.
                parts.say_json(result.to_dict()) if as_json else parts.say(_line(result))
                if report is not None:
                    report.add(photo.rgb8(model.white_level), result)
            progress("inspect", i + 1, len(paths))
    page = report.close() if report is not None else None
    if not as_json:
        print(_summary(len(paths), anomalous, unreadable))
    parts.say_kinds(seen.sentences())
    if page is not None:
        parts.note(f"Report: {page}")
    raise typer.Exit(parts.verdict_code(anomalous, unreadable))


@app.command()
def evaluate(
    model_file: parts.ModelFile,
    folder: Annotated[
        Path,
        typer.Argument(
            help="Test photos as MVTec AD lays them out: good/, one folder for each kind of "
            "defect, and ground_truth/ beside it.",
            metavar="TESTDIR",
        ),
    ],
    output: parts.ReportFolder = None,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    engine: parts.Engine = "onnxruntime",
    threads: parts.Threads = 0,
    overwrite: parts.Overwrite = False,
) -> None:
    """Measure a model on labelled photos."""
    from reconpatch.evaluation.datasets import LabelledPhoto, labelled_photos
    from reconpatch.evaluation.evaluate import evaluate as run

    model = reconpatch.load(model_file, threads=threads, engine=engine)
    photos, notes = labelled_photos(folder)
    for text in notes:
        parts.note(f"Note: {text}", warn=True)
    report = _open_report(output, model, model_file, overwrite) if output else None

    def keep(photo: Photo, result: Result, labelled: LabelledPhoto) -> None:
        if report is not None:
            report.add(photo.rgb8(model.white_level), result, labelled.label)

    with parts.show_progress() as progress:
        figures = run(model, photos, max_pixels=max_pixels, progress=progress, keep=keep)
    page = report.close() if report is not None else None
    if as_json:
        found = figures.to_dict()
        parts.say_json({**found, "notes": [*notes, *found["notes"]]})
    else:
        _print_figures(figures)
    for text in figures.notes:
        parts.note(f"Note: {text}", warn=True)
    if page is not None:
        parts.note(f"Report: {page}")


@app.command()
def benchmark(
    root: Annotated[
        Path, typer.Argument(help="The data set's folder, or one category of it.", metavar="ROOT")
    ],
    output: Annotated[Path, parts.written("Folder for results.")],
    dataset: Annotated[
        str,
        typer.Option(
            help="mvtec, mvtec2, loco, btad, visa, kolektor, kolektor2, or folder (any labelled "
            "photos)."
        ),
    ] = "mvtec",
    categories: Annotated[
        str | None, typer.Option(help="Names, such as bottle,screw.", show_default="all")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Of reconpatch, untrained, patchcore.")
    ] = "reconpatch,untrained,patchcore",
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2.")] = "0",
    config: Annotated[
        str, typer.Option(help="A config of the package, such as paper-wrn50-224, or a TOML file.")
    ] = "default",
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting of the config, such as size=320 or alpha=0.3; may be repeated, "
            "and the tables say so.",
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="JSON file of another program's results, for the tables; may be repeated.",
            metavar="FILE",
        ),
    ] = None,
    weights: parts.Weights = None,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    device: parts.Device = "cpu",
    on: parts.On = None,
    threads: parts.Threads = 0,
) -> None:
    """Fit and test every category with every method and seed; tables beside the paper's.

    What an interrupted run left in DIR is not computed again. Exit code 3: a part failed.
    """
    from reconpatch.evaluation.benchmark import run_benchmark

    with parts.show_progress() as progress:
        outcome = run_benchmark(
            root, dataset=dataset, folder=output,
            categories=categories.split(",") if categories else None, methods=methods.split(","),
            seeds=_seeds(seeds), config=config, changes=parts.settings_by_name(assignments),
            weights=weights, device=device, threads=threads, max_pixels=max_pixels,
            beside=beside or [], on=on, progress=progress,
        )  # fmt: skip
    print((outcome.folder / "results.md").read_text(encoding="utf-8"))
    parts.note(f"{outcome.reused} of {len(outcome.records)} parts were there before")
    parts.note(f"Tables: {outcome.folder / 'results.html'}")
    for record in outcome.errors:
        parts.note(f"Failed: {record.category}, {record.method}, seed {record.seed}", warn=True)
    raise typer.Exit(parts.UNREADABLE if outcome.errors else 0)


@app.command()
def calibrate(
    model_file: parts.ModelFile,
    good: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Other photos of good parts, or folders of them; none: only the rate or "
            "threshold changes.",
            metavar="GOOD",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            help="Share of new good photos that may be flagged by mistake.",
            show_default="the model's",
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Set the threshold of the score by hand.")
    ] = None,
    output: Annotated[
        Path | None, parts.written("Write here and leave MODEL as it is.", "NEW")
    ] = None,
    group: parts.Group = None,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    threads: parts.Threads = 0,
    overwrite: parts.Overwrite = False,
) -> None:
    """Set the threshold anew, without fitting: on other good photos, for another rate, or by hand.

    Photos of the fit are recognised and never compared with their own patches.
    """
    from reconpatch.files import check_writable
    from reconpatch.fitting.options import counted
    from reconpatch.method.calibration import shift_test
    from reconpatch.photos.kind import KindsSeen

    if threshold is not None and (good or false_alarm_rate is not None):
        raise SettingsError(
            "--threshold sets the threshold by hand, and photos or --false-alarm-rate set it by "
            "calibration: give one or the other"
        )
    if not good and false_alarm_rate is None and threshold is None:
        raise SettingsError(
            "there is nothing to do: give good photos, --false-alarm-rate or --threshold"
        )
    before = reconpatch.load(model_file, threads=threads)
    target, replaces = output or model_file, overwrite or output is None
    check_writable(target, overwrite=replaces)
    model = before
    if threshold is not None:
        model = before.with_threshold(threshold)
    elif good:
        with parts.show_progress() as progress:
            photos = counted(parts.photo_files(good, max_pixels, good=True), "calibrate", progress)
            kinds = KindsSeen()
            seen = kinds.through(photos, before)
            model = before.calibrated_on(seen, false_alarm_rate, group=group)
        parts.say_kinds(kinds.sentences())
        old = before.calibration
        shift = shift_test(old.scores, model.calibration.scores, old.image_threshold)
        parts.note(shift.message, warn=shift.different)
    elif false_alarm_rate is not None:
        model = before.with_false_alarm_rate(false_alarm_rate)
    model.save(target, overwrite=replaces)
    parts.say(f"threshold {before.threshold:.4g} -> {model.threshold:.4g} in {target}")
    if good:
        parts.say(f"calibrated on {model.calibration.source}")
    print(model.calibration.promise)


@app.command()
def info(model_file: parts.ModelFile, as_json: parts.Json = False) -> None:
    """Show what a model file holds: settings, thresholds, provenance, fingerprint."""
    model = reconpatch.load(model_file)
    facts = _facts(model, model_file)
    if as_json:
        parts.say_json(facts)
        return
    for section, values in facts.items():
        parts.say(section)
        for name, value in values.items():
            if value not in (None, "", [], {}):
                parts.say(f"  {name:<22} {_plain(value)}")


@app.command()
def demo(
    output: Annotated[Path, parts.written("Folder for the model and the report.", None)] = Path(
        "reconpatch-demo"
    ),
    train: Annotated[int, typer.Option(help="Functional cells to learn from.", min=2)] = 200,
    test: Annotated[
        int, typer.Option(help="Functional and defective cells to inspect.", min=1)
    ] = 40,
    seed: Annotated[int, typer.Option(help="Seed of every random step.")] = 0,
) -> None:
    """Fit on photos of functional solar cells and inspect unseen functional and defective ones."""
    from reconpatch.cli.demo import run_demo

    with parts.show_progress() as progress:
        outcome = run_demo(output, train=train, test=test, seed=seed, progress=progress)
    print(outcome.text)


for commands in (
    engine,
    export,
    score,
    station,
    submission,
    update,
    watch,
    products,
    people,
    operate,
):
    commands.register(app)


# --- Arguments -----------------------------------------------------------------------------------


def _seeds(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise SettingsError(f"--seeds is {text!r}: give whole numbers such as 0,1,2")
    return [int(number) for number in numbers]


def _read_or_error(path: Path, max_pixels: int) -> Photo | PhotoError:
    from reconpatch.photos.images import read_photo

    try:
        return read_photo(path, max_pixels=max_pixels)
    except PhotoError as error:
        return error


# --- Output --------------------------------------------------------------------------------------


def _open_report(folder: Path, model: Inspector, model_file: Path, overwrite: bool) -> ReportWriter:
    from reconpatch.errors import OutputError
    from reconpatch.report.report import ReportWriter, context_of

    if (folder / "report.html").exists() and not overwrite:
        raise OutputError(
            f"{folder} holds a report already, which is left as it is: give another folder, or "
            "--overwrite"
        )
    return ReportWriter(folder, context_of(model, "Inspection report", model_file.name))


def _line(result: Result) -> str:
    line = parts.verdict_line(result)
    if result.regions and not result.whole:
        worst = result.regions[0]
        line += f"  at x {worst.peak[0]}, y {worst.peak[1]}"
    return line + parts.what_is_wrong(result)


def _summary(photos: int, anomalous: int, unreadable: int) -> str:
    inspected = photos - unreadable
    text = f"{anomalous} of {inspected} photos {'is' if anomalous == 1 else 'are'} anomalous"
    return text + (f"; {unreadable} could not be inspected" if unreadable else "")


def _say_unreadable(path: Path, error: PhotoError, as_json: bool) -> None:
    if as_json:
        parts.say_json({"path": str(path), "error": str(error)})
    parts.note(f"Not inspected: {error}", warn=True)


def _say_fitted(model: Inspector, path: Path) -> None:
    from reconpatch.files import NAMES, plain_name
    from reconpatch.fitting.quality import QualityEstimate
    from reconpatch.model.ensemble import member_names

    seconds = model.provenance["seconds"]
    for text in model.provenance["notes"]:
        parts.note(f"Note: {text}", warn=True)
    if plain_name(path.stem) is None:
        parts.note(
            f"Note: watch and serve take models by their files' names, of {NAMES}: rename "
            f"{path.name} before they get it",
            warn=True,
        )
    steps = ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items())
    parts.say(f"{path}  ({path.stat().st_size / 1e6:.1f} MB)")
    banks = " + ".join(_bank(member) for member in model.members)
    different = len({photo.group for photo in model.photos})
    of_parts = "" if different == len(model.photos) else f" of {different} different parts"
    taken = f"{sum(seconds.values()):.1f} s: {steps}"
    print(f"{len(model.photos)} good photos{of_parts}, bank {banks}, {taken}")
    print(f"threshold {model.threshold:.4g}. {model.calibration.promise}")
    names = member_names([member.settings for member in model.members])
    for name, member in zip(names, model.members, strict=True):
        who = f"{name}: " if len(names) > 1 else ""
        if quality := member.provenance.get("quality"):
            print(who + QualityEstimate.from_dict(quality).sentence())
        parts.say(who + member.settings.of_f())
        for decision in (
            "input_size",
            "guard",
            "turns",
            "composition",
            "confirmed_defects",
            "defect_kinds",
        ):
            if found := member.provenance.get(decision):
                parts.say(who + found["sentence"])


def _print_figures(figures: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from reconpatch.method.metrics import METRICS

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row(
        "photos", f"{figures.good} good, {figures.defective} defective, {figures.masks} masks"
    )
    for name, title in METRICS.items():
        if (value := figures.metrics.get(name)) is not None:
            table.add_row(title, f"{100 * value:.2f} %")
    low, high = figures.false_alarm_interval
    table.add_row(
        "false alarms", f"{figures.false_alarms} of {figures.good} (95 % of cases: {low} to {high})"
    )
    for label, (flagged, photos) in figures.detected.items():
        table.add_row(f"found: {parts.shown(label)}", f"{flagged} of {photos}")
    table.add_row("time", f"{figures.milliseconds:.0f} ms a photo, from file")
    # A folder may be named like markup: [bold], :warning:
    Console(markup=False, emoji=False, highlight=False).print(table)
    if figures.shift is not None:
        parts.note(figures.shift.message, warn=figures.shift.different)


def _facts(model: Inspector, path: Path) -> dict[str, dict[str, Any]]:
    from reconpatch.model.ensemble import member_names

    calibration = model.calibration
    threshold = calibration.image_threshold
    facts = {
        "model": {
            "file": str(path),
            "megabytes": round(path.stat().st_size / 1e6, 2),
            "fingerprint": model.fingerprint,
            "good photos": len(model.photos),
            "thumbnails": len(model.members[0].thumbnails),
        },
        "threshold": {
            "image score": threshold.value,
            "anomaly map": calibration.map_threshold.value,
            "set by hand": calibration.set_by_hand is not None,
            "false-alarm rate": threshold.stated_rate,
            "calibrated on": calibration.source,
            "promise": calibration.promise,
        },
        "preprocessing": model.preprocessing.described(),
    }
    names = member_names([member.settings for member in model.members])
    several = len(names) > 1
    for name, member in zip(names, model.members, strict=True):
        settings = member.settings.to_dict()
        training, scoring = settings.pop("training"), settings.pop("scoring")
        prefix = f"{name}: " if several else ""
        facts |= {
            f"{prefix}settings": {"memory bank": _bank(member), **settings},
            f"{prefix}training": training,
            f"{prefix}scoring": scoring,
        }
        if member.sample is not None:
            agreements = {a.engine: a.sentence() for a in member.sample.agreements}
            facts[f"{prefix}engines compared"] = agreements
        if several:
            facts[f"{prefix}provenance"] = member.provenance
    return {**facts, "provenance": model.provenance}


def _bank(model: Model) -> str:
    return f"{len(model.bank)} rows of {model.bank.rows.shape[1]} numbers"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# --- Entry ---------------------------------------------------------------------------------------


def main() -> None:
    """Run the command line."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name may hold what a console cannot show
            stream.reconfigure(errors="backslashreplace")
    app()


def _open_streams() -> None:
    """Give what is missing of stdin, stdout and stderr a place where it goes nowhere.

    Services and windows without a console have none. The next file that is opened would get the
    number of one that is closed, and with it what C libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(opened, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None or getattr(sys, name).closed:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the end
