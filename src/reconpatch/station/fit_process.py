"""A fit in a process of its own: told what to do, and telling how it goes, in lines of JSON.

    stdin    {"good": folder, "output": file, "options": {...},
              "taught": what is to be learned, or null}              what to fit
    stdout   {"step": name, "done": n, "total": n}                   whenever that changes
    stdout   {"fitted": number of good photos, "learned": {...}}     the model's file is written
    stdin    {"new": file, "old": file or null,
              "photos": [[file, name], ...], "max_pixels": n}        what to compare, and on what
    stdout   {"step": ...}, then {"compared": {...}}                 and the process ends
    stdout   {"error": sentence}                                     instead of any of these

It runs at a low priority, so that inspection goes first, and ends when stdin is closed: a service
that is killed leaves no fit behind. `station/fit_jobs.py` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from reconpatch.errors import PhotoError, ReconPatchError
from reconpatch.fitting.options import FitOptions
from reconpatch.model.model import Inspector

COMPARE = "compare with the model in service"
"""Name of the last step."""

_NICENESS = 10

Tell = Callable[..., None]


def main() -> None:
    """Serve one fit on stdin and stdout."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    asked = _lines(sys.stdin)
    with _telling() as tell:
        try:
            fit(tell, **next(asked))
            compare(tell, **next(asked))
        except ReconPatchError as error:
            tell(error=str(error))
    # Threads of the engines must not delay the end.
    os._exit(0)


def fit(
    tell: Tell,
    *,
    good: str,
    output: str,
    options: dict[str, Any],
    taught: dict[str, Any] | None = None,
) -> None:
    """Fit a model on a folder of good photos and write its file.

    Args:
        tell: says how far it is.
        good: the folder.
        output: the file.
        options: of `reconpatch.fit`, or of `reconpatch.fitting.refit.refit`.
        taught: "model", a file that is made anew and learns from "defects" ("file", "name", "kind",
            and "place", the strokes of a drawing), knowing of the false alarms "confirmed" (file
            and name). Null for a model that is none of another.
    """
    import reconpatch

    told: tuple[str, int] = ("", -1)

    def progress(step: str, done: int, total: int) -> None:
        nonlocal told
        percent = 100 * done // max(1, total)
        if (step, percent) != told:
            told = (step, percent)
            tell(step=step, done=done, total=total)

    learned = None
    if taught is None:
        model: Inspector = reconpatch.fit(good, progress=progress, **_restored(options))
    else:
        model, learned = _learn(good, FitOptions(progress=progress, **options), **taught)
    model.save(Path(output), overwrite=True)
    tell(fitted=len(model.photos), learned=learned)


def _learn(
    good: str,
    options: FitOptions,
    *,
    model: str,
    defects: list[dict[str, Any]],
    confirmed: list[tuple[str, str]],
) -> tuple[Inspector, dict[str, Any]]:
    """A new version that learned from confirmed defects, and what came of it.

    That is "sentences", "notes", and "unseen": of each defect the scores of the old version and of
    versions of the new one that have not seen it, or null where it is another one's picture.
    """
    import reconpatch
    from reconpatch.fitting.refit import compare_unseen, refit
    from reconpatch.model.ensemble import said_by_members
    from reconpatch.photos.defect_folder import DefectPhoto
    from reconpatch.photos.images import PhotosInTurn, read_photo
    from reconpatch.station.drawing import Stroke, mask

    def drawn(place: list[dict[str, Any]] | None) -> Any:
        return place and partial(mask, [Stroke(**stroke) for stroke in place])

    def in_turn(photos: list[tuple[str, str]]) -> PhotosInTurn:
        read = partial(read_photo, max_pixels=options.max_pixels)
        return PhotosInTurn([partial(read, Path(file), name=name) for file, name in photos])

    old = reconpatch.load(Path(model), threads=options.threads)
    given = [
        DefectPhoto(Path(one["file"]), one["kind"] or "", drawn(one["place"]), one["name"])
        for one in defects
    ]
    new = refit(old, good, given, options, confirmed=in_turn(confirmed))
    unseen: list[tuple[float, float] | None] = []
    seen: set[str] = set()
    for photo in in_turn([(one["file"], one["name"]) for one in defects]):
        changes = (
            () if photo.sha256 in seen else compare_unseen(old, new, [photo], force=True).defects
        )
        seen.add(photo.sha256)
        unseen.append((changes[0].old_score, changes[0].new_score) if changes else None)
    before = set(old.provenance["notes"])
    return new, {
        "sentences": said_by_members(new, ("confirmed_defects", "defect_kinds")),
        "notes": [note for note in new.provenance["notes"] if note not in before],
        "unseen": unseen,
    }


def compare(
    tell: Tell, *, new: str, old: str | None, photos: list[tuple[str, str]], max_pixels: int
) -> None:
    """Score photos with the new model and the old one; null where a photo cannot be read."""
    import reconpatch
    from reconpatch.photos.images import read_photo

    models = [reconpatch.load(Path(file)) for file in (old, new) if file is not None]
    scores: list[list[float] | None] = []
    for done, (file, name) in enumerate(photos, start=1):
        try:
            photo = read_photo(Path(file), name=name, max_pixels=max_pixels)
            scores.append([model.judge([photo])[0].score for model in models])
        except PhotoError:
            scores.append(None)  # removed in the meantime
        tell(step=COMPARE, done=done, total=len(photos))
    new_model = models[-1]
    tell(
        compared={
            "scores": scores,
            "thresholds": [model.threshold for model in models],
            "promise": new_model.calibration.promise,
            "good": [
                (int((m.calibration.scores > m.threshold).sum()), len(m.calibration.scores))
                for m in models
            ],
        }
    )


def _restored(options: dict[str, Any]) -> dict[str, Any]:
    """Options as they were before JSON, which has no tuples; lists would mean ensembles."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


@contextlib.contextmanager
def _telling() -> Iterator[Tell]:
    """Lines of JSON to what was stdout; whatever else prints goes to stderr from here on."""
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):

        def tell(**values: Any) -> None:
            print(json.dumps(values), file=out, flush=True)

        yield tell


def _lines(stdin: IO[str]) -> Iterator[dict[str, Any]]:
    """What is asked, line by line; the process ends when there is nobody left to ask."""
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in stdin:
            asked.put(json.loads(line))
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield asked.get()


if __name__ == "__main__":
    main()
