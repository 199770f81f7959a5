"""The commands `update` and `diff`: teach a model new good photos, and say what that changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import reconpatch
from reconpatch.cli import parts
from reconpatch.errors import SettingsError

if TYPE_CHECKING:
    from reconpatch.model.difference import Comparison, PhotoChange


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(update)
    app.command()(diff)


def update(
    model_file: parts.ModelFile,
    output: Annotated[Path, parts.written("The new version to write.", "NEW")],
    good: Annotated[
        list[Path] | None,
        typer.Argument(
            help="New photos of good parts, or folders of them, chosen without regard to their "
            "verdict.",
            metavar="GOOD",
        ),
    ] = None,
    confirmed: Annotated[
        list[Path] | None,
        typer.Option(
            help="A false alarm that a person confirmed, or a folder of them; may be repeated. The "
            "threshold is not calibrated on it.",
            metavar="PHOTO",
        ),
    ] = None,
    defects: Annotated[
        list[Path] | None,
        typer.Option(
            help="A confirmed defect that must not be missed, or a folder of them; may be "
            "repeated. With --good, f learns from it.",
            metavar="PHOTO",
        ),
    ] = None,
    of_fit: Annotated[
        list[Path] | None,
        typer.Option(
            "--good",
            help="The folder of the good photos that MODEL was fitted on (and of those that it was "
            "updated with; may be repeated): f, bank and threshold are made anew, and f learns "
            "from --defects.",
            metavar="FOLDER",
        ),
    ] = None,
    weights: parts.Weights = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the new version though it misses defects.")
    ] = False,
    group: parts.Group = None,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    threads: parts.Threads = 0,
    overwrite: parts.Overwrite = False,
) -> None:
    """Teach a model new good photos and confirmed false alarms; write a new version of it.

    Nothing is trained, unless --good is given: then f learns from --defects. The new version is
    refused (exit code 2) when it would miss a defect of --defects that MODEL finds.
    """
    from reconpatch.files import check_writable
    from reconpatch.fitting.options import FitOptions
    from reconpatch.fitting.refit import compare_unseen, refit
    from reconpatch.fitting.update import update as run
    from reconpatch.model.difference import check_update
    from reconpatch.model.difference import diff as compare
    from reconpatch.model.ensemble import said_by_members
    from reconpatch.photos.defect_folder import list_defects

    if of_fit and not defects:
        raise SettingsError(
            "--good names the photos of the fit, and there are no defects to learn from: give them "
            "with --defects; new good photos stand beside MODEL"
        )
    if not good and not confirmed and not of_fit:
        raise SettingsError(
            "there is nothing to learn: give good photos, or confirmed false alarms with "
            "--confirmed, or, for f to learn from --defects, the good photos of the fit with --good"
        )
    old = reconpatch.load(model_file, threads=threads)
    check_writable(output, overwrite=overwrite)
    new_good = parts.photo_files(good or [], max_pixels, good=True)
    alarms = parts.photo_files(confirmed or [], max_pixels)
    if of_fit:
        listed = [photo.path for photo in list_defects(defects or ())]
        faults = parts.photo_files(listed, max_pixels)  # without their masks
    else:
        faults = parts.photo_files(defects or [], max_pixels)
    unseen = None
    with parts.show_progress() as progress:
        if of_fit:
            options = FitOptions(
                weights=weights, group=group, max_pixels=max_pixels, threads=threads,
                progress=progress,
            )  # fmt: skip
            source = of_fit[0] if len(of_fit) == 1 else parts.expand(of_fit, good=True)
            new = refit(old, source, defects or (), options, new_good=new_good, confirmed=alarms)
            unseen = compare_unseen(old, new, faults, force=force)
        else:
            new = run(old, new_good, confirmed=alarms, group=group, progress=progress)
        comparison = check_update(old, new, [*new_good, *alarms], faults, force=force)
    new.save(output, overwrite=overwrite)
    difference = compare(old, new)
    for text in new.provenance["notes"][len(old.provenance["notes"]) :]:
        parts.note(f"Note: {text}", warn=True)
    if comparison.missed:
        parts.note(f"Missed from now on: {', '.join(comparison.missed)}", warn=True)
    if as_json:
        answer = {**difference.to_dict(), "feedback": comparison.to_dict()}
        if unseen:
            told = [
                {name: m.provenance[name] for name in ("confirmed_defects", "defect_kinds")}
                for m in new.members
            ]
            answer |= told[0] if len(told) == 1 else {"members": told}
            answer |= {"unseen": unseen.to_dict()}
        parts.say_json(answer)
        return
    parts.say(f"{output}  ({output.stat().st_size / 1e6:.1f} MB)")
    if unseen:
        for sentence in said_by_members(new, ("confirmed_defects", "defect_kinds")):
            parts.say(sentence)
        for line in _unseen_lines(unseen):
            parts.say(line)
    for sentence in [*difference.sentences(), *comparison.sentences(), new.calibration.promise]:
        parts.say(sentence)


def _unseen_lines(unseen: Comparison) -> list[str]:
    """What two versions say of defects that neither has learned from."""
    before = sum(change.old_anomalous for change in unseen.defects)
    after = sum(change.new_anomalous for change in unseen.defects)
    lines = [
        f"Of {len(unseen.defects)} confirmed defects, MODEL finds {before}; versions of the new "
        f"one that have not seen them find {after}."
    ]
    for what, names in (("newly found", unseen.newly_found), ("newly missed", unseen.missed)):
        if names:
            lines.append(f"Unseen, {what}: {', '.join(names)}.")
    return lines


def diff(
    old_file: Annotated[Path, typer.Argument(help="A model file.", metavar="OLD")],
    new_file: Annotated[Path, typer.Argument(help="Another version of it.", metavar="NEW")],
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photos, or folders of them, to compare on.", metavar="PHOTO"),
    ] = None,
    as_json: parts.Json = False,
    max_pixels: parts.MaxPixels = parts.MAX_PIXELS,
    threads: parts.Threads = 0,
) -> None:
    """Say what changed from one version of a model to another."""
    from reconpatch.model.difference import diff as compare

    old, new = (reconpatch.load(file, threads=threads) for file in (old_file, new_file))
    difference = compare(old, new, parts.photo_files(photos or [], max_pixels))
    if as_json:
        parts.say_json(difference.to_dict())
        return
    for sentence in difference.sentences():
        parts.say(sentence)
    for change in difference.verdicts:
        parts.say(_line(change))
    if difference.verdicts:
        changed = len(difference.changed_verdicts)
        print(f"{changed} of {len(difference.verdicts)} verdicts changed")


def _line(change: PhotoChange) -> str:
    words = {True: "ANOMALOUS", False: "good"}
    before, after = words[change.old_anomalous], words[change.new_anomalous]
    verdict = before if before == after else f"{before} -> {after}"
    return f"{verdict:<21}  {change.old_score:8.3f} -> {change.new_score:8.3f}  {change.name}"
