"""A fit in a process of its own: told what to do, and telling how it goes, in lines of JSON.

    stdin    {"good": folder, "output": file, "options": {...}}      what to fit
    stdout   {"step": name, "done": n, "total": n}                   whenever that changes
    stdout   {"fitted": number of good photos}                       the model's file is written
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
from pathlib import Path
from typing import IO, Any

from reconpatch.errors import PhotoError, ReconPatchError

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


def fit(tell: Tell, *, good: str, output: str, options: dict[str, Any]) -> None:
    """Fit a model on a folder of good photos and write its file."""
    import reconpatch

    told: tuple[str, int] = ("", -1)

    def progress(step: str, done: int, total: int) -> None:
        nonlocal told
        percent = 100 * done // max(1, total)
        if (step, percent) != told:
            told = (step, percent)
            tell(step=step, done=done, total=total)

    model = reconpatch.fit(good, progress=progress, **_restored(options))
    model.save(Path(output), overwrite=True)
    tell(fitted=len(model.photos))


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
