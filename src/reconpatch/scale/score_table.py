"""Scores of many photos on disk: a folder of Parquet files that only ever grows by whole files.

DIR/scores-000001.parquet   up to 10,000 rows each, or a minute's; see `SCHEMA`
DIR/_scores.json            what all the scores have in common: the model, the source
DIR/_lock                   locked while a program writes

Readers of Parquet pass over names that begin with "_", so they take the folder as one table.
What is in a finished file is done: a run that was stopped, in whatever way, goes on with the rest.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from reconpatch.errors import MissingExtraError, OutputError
from reconpatch.files import atomic_write, cannot_write, lock, make_folder
from reconpatch.scale.sources import Digests, digests_of

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise MissingExtraError("scoring many photos", "score") from None

FILE_ROWS = 10_000
FILE_SECONDS = 60.0
"""A file is written when it has so many rows, or when its first row has waited so long."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sha256", pa.string()),
        ("path", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("anomalous", pa.bool_()),
        ("p_value", pa.float64()),
        ("x0", pa.int32()),
        ("y0", pa.int32()),
        ("x1", pa.int32()),
        ("y1", pa.int32()),
        ("peak", pa.float64()),
        ("map_threshold", pa.float64()),
        ("kind", pa.string()),
        ("similarity", pa.float64()),
        ("whole", pa.bool_()),
        ("model", pa.string()),
        ("seconds", pa.float32()),
        ("error", pa.string()),
    ]
)
"""Columns of the files.

id: of the source. sha256: of the photo's file. path: of the photo, or null where it is in a Parquet
file that names none. score, threshold, anomalous, p_value: as in `reconpatch.result.Result`.
x0, y0, x1, y1: box of the worst region, in pixels of the photo; null where there is none. peak: the
largest value of the photo's map. map_threshold: above it a region begins. kind, similarity: of the
confirmed defects that an anomalous photo is most like (`reconpatch.result.SimilarKind`); null where
the model knows none. whole: as in `Result`. model: fingerprint. seconds: of one worker, for reading
and inspecting. error: why a photo could not be inspected, and all but id, path, model (and sha256
where it could be read) are null; else null.
"""

_LATER = ("kind", "similarity", "whole")  # files of earlier versions have none

_FILE = re.compile(r"scores-(\d{6,})\.parquet")


@dataclass(frozen=True)
class Counts:
    """Photos in a folder of scores.

    Attributes:
        photos: of all runs.
        anomalous: of them.
        unreadable: of them, those that could not be inspected.
    """

    photos: int
    anomalous: int
    unreadable: int


class ScoreTable:
    """A folder of scores, locked; a context manager that writes what it still holds at its end.

    Attributes:
        done: (n,) sorted digests of the ids that were there when it was opened.

    Args:
        folder: made where it is missing.
        common: what all its scores have in common, JSON-ready; a folder of others is refused.
        retry_errors: take out the rows of photos that could not be inspected, so that they are not
            done.
        clock: seconds.

    Raises:
        OutputError: the folder holds scores with other things in common, is in use, or cannot be
            read or written.
    """

    def __init__(
        self,
        folder: Path,
        common: Mapping[str, Any],
        *,
        retry_errors: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._clock = folder, clock
        self._waiting: list[pa.Table] = []
        self._since = 0.0
        self._counts: Counter[str] = Counter()
        self._lock = _locked(folder)
        try:
            _check_common(folder, common)
            files = _files(folder)
            self._next = 1 + max(files, default=0)
            self.done = self._read(files.values(), retry_errors)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write()
        finally:
            self._lock.close()

    @property
    def counts(self) -> Counts:
        """Of all rows, those that are yet to be written among them."""
        return Counts(*(self._counts[name] for name in ("photos", "anomalous", "unreadable")))

    def add(self, rows: pa.Table) -> None:
        """Keep rows of `SCHEMA`, and write a file when it is time."""
        self._count(rows)
        if not self._waiting:
            self._since = self._clock()
        self._waiting.append(rows)
        waited = self._clock() - self._since
        if sum(map(len, self._waiting)) >= FILE_ROWS or waited >= FILE_SECONDS:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            rows = pa.concat_tables(self._waiting)
            _write_file(self._folder / f"scores-{self._next:06}.parquet", rows)
            self._next += 1
            self._waiting = []

    def _read(self, files: Any, retry_errors: bool) -> Digests:
        """Digests of the ids in finished files, which are counted."""
        digests = [digests_of(())]
        for path in files:
            rows = _read_file(path)
            if retry_errors and rows["error"].null_count < len(rows):
                rows = rows.filter(pc.is_null(rows["error"]))
                _write_file(path, rows)
            self._count(rows)
            digests.append(digests_of(rows["id"].to_pylist()))
        return np.sort(np.concatenate(digests))

    def _count(self, rows: pa.Table) -> None:
        self._counts["photos"] += len(rows)
        self._counts["anomalous"] += pc.sum(rows["anomalous"]).as_py() or 0
        self._counts["unreadable"] += len(rows) - rows["error"].null_count


def _locked(folder: Path) -> Any:
    make_folder(folder)
    try:
        file = (folder / "_lock").open("a+b")
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        lock(file)
    except OSError:
        file.close()
        raise OutputError(
            f"{folder} is in use by another program: wait for it, or give another folder with -o"
        ) from None
    return file


def _check_common(folder: Path, common: Mapping[str, Any]) -> None:
    """Note what the scores have in common; refuse a folder where that is something else."""
    path = folder / "_scores.json"
    if not path.exists():
        if _files(folder):
            raise OutputError(
                f"{folder} has scores and no _scores.json that says of what: give another folder "
                "with -o"
            )
        with atomic_write(path) as file:
            file.write(json.dumps(common, indent=1).encode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [
            f"{name} {found.get(name)!r}" for name in common if found.get(name) != common[name]
        ]
    except (OSError, ValueError, AttributeError) as error:
        raise OutputError(
            f"{path} cannot be read ({error}): give another folder with -o"
        ) from error
    if other:
        raise OutputError(
            f"{folder} has scores of another run, with {', '.join(other)}: scores of two kinds do "
            "not go into one folder, so give another with -o, or what that run was given"
        )


def _files(folder: Path) -> dict[int, Path]:
    """Finished files by their number, in its order."""
    found = {
        int(match[1]): path for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))
    }
    return dict(sorted(found.items()))


def _read_file(path: Path) -> pa.Table:
    try:
        found = pq.read_table(path)
        for name in _LATER:
            if name not in found.column_names:
                found = found.append_column(
                    SCHEMA.field(name), [pa.nulls(len(found), SCHEMA.field(name).type)]
                )
        return found.select(SCHEMA.names)
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise OutputError(
            f"{path} is no whole file of scores ({reason}): remove it, and its photos are scored "
            "again, or give another folder with -o"
        ) from error


def _write_file(path: Path, rows: pa.Table) -> None:
    content = io.BytesIO()
    pq.write_table(rows, content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())
