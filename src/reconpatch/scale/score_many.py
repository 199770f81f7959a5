"""Score millions of photos: source, batch function, table; in this process or by many workers.

    source ── portions ──> PhotoScorer: read ── Model.inspect_batch ──> rows ── table (Parquet)
                           └─ in this process, or in actors of Ray Data ─┘

Rows come in the order of their arrival. Only this process writes; what it has not written when it
ends, in whatever way, the next run scores. A worker that dies loses the portion at hand, which Ray
gives to another one.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import reconpatch
from reconpatch.engine.engines import DEFAULT_ENGINE
from reconpatch.errors import MissingExtraError, PhotoError, ReconPatchError, WorkersError
from reconpatch.model.model import Inspector
from reconpatch.photos.images import MAX_PIXELS, Photo, read_photo_bytes
from reconpatch.photos.kind import ANOTHER_KIND, KindsSeen
from reconpatch.photos.read_ahead import read_ahead
from reconpatch.result import Result
from reconpatch.scale.score_table import SCHEMA, Counts, ScoreTable
from reconpatch.scale.sources import Source, list_source, read_bytes, read_rows
from reconpatch.scale.workers import RETRIES, check_on, on_ray

try:
    import pyarrow as pa
except ImportError:
    raise MissingExtraError("scoring many photos", "score") from None

if TYPE_CHECKING:
    from reconpatch.fitting.options import Progress

log = logging.getLogger("reconpatch.score")

FORMAT = 1
_BATCH = 4  # photos in the engine at a time: more take more memory and no less time
_READERS = 2  # threads that fetch and decode ahead of it


@dataclass(frozen=True)
class Scored:
    """What a run came to.

    Attributes:
        counts: of all photos in the folder.
        new: photos that this run scored.
        seconds: that it took to score them.
        left_out: what was left out of the source's folder, in one line, or "".
    """

    counts: Counts
    new: int
    seconds: float
    left_out: str = ""

    def __str__(self) -> str:
        counts, before = self.counts, self.counts.photos - self.new
        parts = [
            f"{counts.photos:,} photos: {counts.anomalous:,} anomalous",
            f"{counts.unreadable:,} could not be inspected",
            *([f"{before:,} were there already"] if before else []),
        ]
        rate = f" ({self.new / self.seconds:.1f} photos a second)" if self.new else ""
        return f"{', '.join(parts)}; {self.new:,} scored in {self.seconds:.1f} s{rate}"


def score_photos(
    model_file: Path,
    source: str,
    output: Path,
    *,
    on: str | None = None,
    workers: int = 0,
    engine: str = DEFAULT_ENGINE,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    retry_errors: bool = False,
    progress: Progress | None = None,
) -> Scored:
    """Score the photos of a source that are not scored yet, and write their scores.

    Args:
        model_file: of a model or an ensemble.
        source: see `reconpatch.scale.sources.list_source`.
        output: folder of the scores; see `reconpatch.scale.score_table`.
        on: where; None for this process, else see `reconpatch.scale.workers.check_on`.
        workers: of Ray, at most; 0 for as many as the cluster has room for.
        engine: see `reconpatch.load`.
        threads: of the engine of each worker; 0 takes one on Ray, and all cores of this process.
        max_pixels: larger photos are not inspected.
        retry_errors: score photos again that could not be inspected.
        progress: called with ("score", photos done, photos).

    Raises:
        ReconPatchError: the model, the source or the folder cannot be used, or the workers died.
    """
    if on is not None:
        check_on(on)
    model = reconpatch.load(model_file, threads=threads, engine=engine)
    found = list_source(source)
    common = {
        "format": FORMAT,
        "model": model.fingerprint,
        "source": found.url,
        "engine": engine,
        "max_pixels": max_pixels,
    }
    start = time.perf_counter()
    with ScoreTable(output, common, retry_errors=retry_errors) as table:
        left = found.without(table.done)
        new = 0
        if on is None:
            scored = _in_this_process(PhotoScorer(model, max_pixels), left)
        else:
            worker = {"engine": engine, "threads": threads or 1, "max_pixels": max_pixels}
            scored = _on_ray(on, model_file.read_bytes(), worker, left, workers)
        with closing(scored):
            for rows in scored:
                table.add(rows)
                new += len(rows)
                if progress is not None:
                    progress("score", new, len(left))
    return Scored(table.counts, new, time.perf_counter() - start, found.left_out)


def _in_this_process(score: PhotoScorer, source: Source) -> Generator[pa.Table, None, None]:
    for portion in source.portions:
        tables = [portion.rows] if source.kind == "paths" else read_rows(portion.rows)
        for table in tables:
            yield from score(table)


# --- The batch function --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """A photo of a row, or why there is none."""

    id: str
    path: str | None
    sha256: str | None
    photo: Photo | None
    error: str | None
    seconds: float


class PhotoScorer:
    """From rows of names or files to rows of scores; the same wherever it runs.

    Args:
        model: a model or an ensemble.
        max_pixels: larger photos are not inspected.
    """

    def __init__(self, model: Inspector, max_pixels: int = MAX_PIXELS) -> None:
        self._model, self._max_pixels = model, max_pixels
        self._fingerprint = model.fingerprint
        self._kinds = KindsSeen()

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Scores of a table with the columns `id`, `path`, and `bytes` where they are read already.

        Yields:
            Tables of `score_table.SCHEMA`, a few rows each, in the order of the rows.
        """
        # Photos are fetched and decoded while the engine is at work on those before.
        read = read_ahead(self._read, rows.to_pylist(), _READERS)
        while some := list(islice(read, _BATCH)):
            yield pa.Table.from_pylist(self._score(some), SCHEMA)

    def _read(self, row: dict[str, Any]) -> _Read:
        start = time.perf_counter()
        path, content, sha256 = row["path"], row.get("bytes"), None
        photo, error = None, row.get("error")
        try:
            if error is None:
                if content is None and "bytes" in row:
                    raise PhotoError(f"{row['id']}: has no bytes; give the photo's file.")
                if content is None:
                    content = read_bytes(path)
                sha256 = hashlib.sha256(content).hexdigest()
                name = path or row["id"]
                photo = read_photo_bytes(content, name=name, max_pixels=self._max_pixels)
        except PhotoError as refused:
            error = str(refused)
        return _Read(row["id"], path, sha256, photo, error, time.perf_counter() - start)

    def _score(self, some: Sequence[_Read]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        photos = [read.photo for read in some if read.photo is not None]
        results = iter(self._inspect(photos))
        each = (time.perf_counter() - start) / max(1, len(photos))
        rows = []
        for read in some:
            row: dict[str, Any] = {"id": read.id, "path": read.path, "sha256": read.sha256}
            row |= {"model": self._fingerprint, "seconds": read.seconds, "error": read.error}
            if read.photo is not None:
                result = next(results)
                row["seconds"] += each
                row |= {"error": str(result)} if isinstance(result, PhotoError) else _row(result)
                self._say_kind(result)
            rows.append(row)
        return rows

    def _say_kind(self, result: Result | PhotoError) -> None:
        """What sets a photo apart from those of the fit, the first time that it is seen."""
        if not isinstance(result, PhotoError):
            for text in self._kinds.add(result.notes):
                log.warning("%s: %s: %s", ANOTHER_KIND, result.name, text)

    def _inspect(self, photos: Sequence[Photo]) -> Sequence[Result | PhotoError]:
        """A result for each photo; one that the model refuses costs no other its own."""
        try:
            return self._model.inspect_batch(photos)
        except PhotoError as error:
            if len(photos) == 1:
                return [error]
            return [result for photo in photos for result in self._inspect([photo])]


def _row(result: Result) -> dict[str, Any]:
    """The columns of a verdict."""
    box = result.regions[0].box if result.regions else (None,) * 4
    return {
        "score": result.score,
        "threshold": result.threshold,
        "anomalous": bool(result.anomalous),
        "p_value": result.p_value,
        **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)),
        "peak": float(np.nanmax(result.heatmap)),
        "map_threshold": result.map_threshold,
        "kind": result.kind.label if result.kind else None,
        "similarity": result.kind.similarity if result.kind else None,
        "whole": result.whole,
    }


# --- By workers ----------------------------------------------------------------------------------


class ScoringWorker:
    """An actor of Ray Data: holds the model, scores portions.

    Args:
        model: a reference to the bytes of the model file, so that workers need not see the driver's
            disk.
        engine: see `reconpatch.load`.
        threads: of the engine, and cores of the worker.
        max_pixels: larger photos are not inspected.
    """

    def __init__(self, model: Any, engine: str, threads: int, max_pixels: int) -> None:
        import ray

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.rcp"
            file.write_bytes(ray.get(model))
            loaded = reconpatch.load(file, threads=threads, engine=engine)
        self._score = PhotoScorer(loaded, max_pixels)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Scores of a portion, as one table."""
        return pa.concat_tables([SCHEMA.empty_table(), *self._score(rows)])


def _on_ray(
    on: str, model: bytes, worker: dict[str, Any], source: Source, workers: int
) -> Generator[pa.Table, None, None]:
    """Scores as they arrive from an autoscaling pool of actors."""
    if not len(source):
        return
    with on_ray(on):
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_arrow_refs
        from ray.exceptions import RayError

        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.max_consecutive_actor_init_deaths = RETRIES  # one that dies at its start, too
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it raises says as much
        cores = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
        room = min(int(cores) // worker["threads"], len(source.portions))
        start = max(1, min(room, workers or room))
        references: list[Any] = [ray.put(portion.rows) for portion in source.portions]
        rows: Any = from_arrow_refs(references)
        if source.kind == "bytes":
            rows = rows.map_batches(read_rows, batch_size=None, batch_format="pyarrow", num_cpus=0)
        scored = rows.map_batches(
            ScoringWorker,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_kwargs={"model": ray.put(model), **worker},
            num_cpus=worker["threads"],
            compute=ActorPoolStrategy(min_size=1, max_size=workers or None, initial_size=start),
        )
        try:
            yield from scored.iter_batches(batch_size=None, batch_format="pyarrow")
        except RayError as error:
            raise _explained(error) from error


def _explained(error: BaseException) -> ReconPatchError:
    """What stopped the workers, as one sentence."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ReconPatchError):
            return cause
        cause = cause.__cause__ or getattr(cause, "cause", None)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return WorkersError(
        f"the workers stopped ({type(error).__name__}: {lines[-1].strip()}); what is written is "
        "whole: run the same command again to go on"
    )
