"""Where millions of photos are: in a folder, a list, or Parquet files, on a disk or in a store.

    folder, manifest, Parquet of paths ── (id, path) ────────────────────┐
                                                                         ├──> what is to be scored
    Parquet of bytes ── (id, file, row group, row) ── read_rows: bytes ──┘

What is listed is names alone, in tables of a few hundred rows: those are the portions of the work.
Photos are read when their turn comes. Paths may be URLs of any store that fsspec knows.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reconpatch.errors import MissingExtraError, PhotoError, ReconPatchError, SettingsError
from reconpatch.photos.listing import PHOTO_SUFFIXES, Disk, Names, Tree, scan

try:
    import fsspec
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise MissingExtraError("scoring many photos", "score") from None

PORTION = 256
"""Rows of a portion: some seconds of work, which are lost with a worker that dies."""
BYTES_AT_A_TIME = 32
"""Photos of a Parquet file that are in memory at a time."""

_MANIFESTS = {".txt": "", ".csv": ",", ".tsv": "\t"}

Digests = npt.NDArray[np.bytes_]
"""(n,) of 16 bytes each: what an id is known by, in a tenth of the memory of text."""


@dataclass(frozen=True, eq=False)
class Portion:
    """Some photos of a source.

    Attributes:
        rows: a table with the columns `id` and `path`, or `id`, `file`, `row_group` and `row`.
        digests: (n,) of the ids.
    """

    rows: pa.Table
    digests: Digests

    def without(self, done: Digests) -> Portion:
        """The photos whose ids are not among sorted digests."""
        left = ~among(self.digests, done)
        return Portion(self.rows.filter(pa.array(left)), self.digests[left])


@dataclass(frozen=True, eq=False)
class Source:
    """Photos by their names.

    Attributes:
        url: where they are: an absolute path, or a URL.
        kind: "paths" where each photo is a file; "bytes" where they are in Parquet files.
        portions: what there is, or is left.
        left_out: what was left out of a folder, in one line, or "".
    """

    url: str
    kind: Literal["paths", "bytes"]
    portions: Sequence[Portion]
    left_out: str = ""

    def __len__(self) -> int:
        return sum(len(portion.rows) for portion in self.portions)

    def without(self, done: Digests) -> Source:
        """What is left when the photos whose ids are among sorted digests are done."""
        left = [portion.without(done) for portion in self.portions]
        return replace(self, portions=[portion for portion in left if len(portion.rows)])


def list_source(text: str) -> Source:
    """The photos of a folder, a manifest or Parquet files.

    - A folder: all photos in it and below, as `reconpatch.photos.listing` lists them; their ids are
      the paths in it.
    - A manifest: `.txt` with a path a line, or `.csv` or `.tsv` with a column `path` and, if there
      is one, `id`. Paths are relative to the manifest's folder.
    - Parquet: a file, or a folder of them, with a column `bytes` (a photo's file) or `path`, and,
      if there is one, `id` (text or whole numbers).

    Args:
        text: a path, or a URL such as s3://BUCKET/FOLDER.

    Raises:
        PhotoError: it is missing, unreadable, empty, of another kind, or ids repeat.
        SettingsError: no installed package knows such a URL.
    """
    with _store_errors(text):
        fs, root = _file_system(text)
        if fs.isdir(root):
            source = _list_folder(fs, root, text)
        elif fs.isfile(root):
            source = _list_file(fs, root, text)
        else:
            raise PhotoError(f"{text}: does not exist; check the path.")
    if not len(source):
        raise PhotoError(f"{text}: lists no photo; give a source with at least one.")
    _check_unique(source, text)
    return source


def read_bytes(path: str) -> bytes:
    """A file of a photo, from a disk or a store.

    Raises:
        PhotoError: it cannot be read.
    """
    with _store_errors(path):
        fs, inside = _file_system(path)
        # Of a pipe or the like there would be no end.
        if _is_local(path) and Path(inside).exists() and not fs.isfile(inside):
            raise PhotoError(f"{path}: is not a regular file; give a photo.")
        content: bytes = fs.cat_file(inside)
        return content


def read_rows(rows: pa.Table) -> Iterator[pa.Table]:
    """The photos of rows of Parquet files, a few at a time.

    Args:
        rows: with the columns `id`, `file`, `row_group` and `row`, the latter in their order.

    Yields:
        Tables with the columns `id`, `path` (null where there is none), `bytes`, and `error`: of
        rows that cannot be read, why, in place of the bytes.
    """
    keys = list(zip(rows["file"].to_pylist(), rows["row_group"].to_pylist(), strict=True))
    start = 0
    for (file, group), run in itertools.groupby(keys):
        end = start + sum(1 for _ in run)
        try:
            for table in _read_group(file, group, rows.slice(start, end - start)):
                yield table
                start += len(table)
        except PhotoError as error:
            yield _photo_table(rows["id"].slice(start, end - start), error=str(error))
        start = end


def _photo_table(ids: Any, path: Any = None, content: Any = None, error: str | None = None) -> Any:
    """A table of photos' files, columns that are not given null."""
    columns = {
        "path": (path, pa.string()),
        "bytes": (content, pa.large_binary()),
        "error": (pa.array([error] * len(ids), pa.string()), pa.string()),
    }
    given = {
        name: pa.nulls(len(ids), kind) if column is None else column.cast(kind)
        for name, (column, kind) in columns.items()
    }
    return pa.table({"id": ids, **given})


def _read_group(file: str, group: int, rows: pa.Table) -> Iterator[pa.Table]:
    """Rows of one row group, which is never in memory as a whole."""
    wanted = rows["row"].to_numpy()
    with _store_errors(file), _opened_parquet(file) as parquet:
        columns = [name for name in ("bytes", "path") if name in parquet.schema_arrow.names]
        batches = parquet.iter_batches(BYTES_AT_A_TIME, row_groups=[group], columns=columns)
        first = taken = 0
        for batch in batches:
            end = taken + int(np.searchsorted(wanted[taken:], first + len(batch)))
            if end > taken:
                part = pa.Table.from_batches([batch]).take(pa.array(wanted[taken:end] - first))
                path = part["path"] if "path" in columns else None
                ids = rows["id"].slice(taken, end - taken)
                yield _photo_table(ids, path, part["bytes"])
            first, taken = first + len(batch), end
            if taken == len(wanted):
                return


# --- Ids -----------------------------------------------------------------------------------------


def digests_of(ids: Iterable[str]) -> Digests:
    """(n,) 16 bytes for each id."""
    return np.array([hashlib.blake2b(i.encode(), digest_size=16).digest() for i in ids], "S16")


def among(some: Digests, known: Digests) -> npt.NDArray[np.bool_]:
    """(n,) which of some digests are among sorted ones."""
    if not len(known):
        return np.zeros(len(some), np.bool_)
    at = np.minimum(np.searchsorted(known, some), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[at] == some
    return found


def _check_unique(source: Source, text: str) -> None:
    every = np.sort(np.concatenate([portion.digests for portion in source.portions]))
    twice = every[1:][every[1:] == every[:-1]]
    if len(twice):
        first = next(p for p in source.portions if among(p.digests, twice[:1]).any())
        name = first.rows["id"][int(among(first.digests, twice[:1]).argmax())].as_py()
        raise PhotoError(
            f"{text}: {len(twice):,} ids are there more than once, such as {name!r}; give every "
            "photo an id of its own."
        )


# --- Lists ---------------------------------------------------------------------------------------


def _list_folder(fs: Any, root: str, text: str) -> Source:
    tree: Tree = (
        Disk(Path(root))
        if _is_local(text)
        else Names([_relative(path, root) for path in fs.find(root)])
    )
    found = scan(text, tree, suffixes=PHOTO_SUFFIXES | {".parquet"})
    inside = {f"{root.rstrip('/')}/{name}": name for name in found.names}
    photos = [path for path in inside if not path.lower().endswith(".parquet")]
    tables = [path for path in inside if path.lower().endswith(".parquet")]
    if photos and tables:
        raise PhotoError(
            f"{text}: holds photos ({inside[photos[0]]}) and Parquet files ({inside[tables[0]]}); "
            "give a folder of one or the other."
        )
    if tables:
        of_tables = {path: inside[path] for path in tables}
        source = _list_parquet(fs, of_tables, _url(fs, root), text)
        return replace(source, left_out=found.sentence)
    if not photos:
        raise PhotoError(
            f"{text}: no photo and no Parquet file in this folder or below; files ending in "
            f"{', '.join(sorted(PHOTO_SUFFIXES))} and .parquet count."
            f"{f' {found.sentence}' if found.sentence else ''}"
        )
    names = ((inside[path], _url(fs, path)) for path in photos)
    return Source(_url(fs, root), "paths", list(_portions(names, text)), found.sentence)


def _list_file(fs: Any, path: str, text: str) -> Source:
    suffix = PurePosixPath(path).suffix.lower()
    url = _url(fs, path)
    if suffix == ".parquet":
        return _list_parquet(fs, {path: posixpath.basename(path)}, url, text)
    if suffix not in _MANIFESTS:
        raise PhotoError(
            f"{text}: is neither a list of photos nor a folder of them; give a folder, or a file "
            "ending in .txt, .csv, .tsv or .parquet."
        )
    with fs.open(path, "rb") as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        try:
            names = _manifest(lines, _MANIFESTS[suffix], text)
            located = ((name, _located(where, url)) for name, where in names)
            return Source(url, "paths", list(_portions(located, text)))
        except (UnicodeDecodeError, csv.Error) as error:
            raise PhotoError(f"{text}: is no text in UTF-8 ({error}); save it as such.") from error


def _manifest(lines: Iterable[str], separator: str, text: str) -> Iterator[tuple[str, str]]:
    """The id and the path of each photo of a manifest."""
    if not separator:
        paths = (line.strip() for line in lines)
        yield from ((path, path) for path in paths if path)
        return
    table = csv.DictReader(lines, delimiter=separator)
    if "path" not in (table.fieldnames or ()):
        found = ", ".join(map(repr, table.fieldnames or ())) or "none"
        raise PhotoError(
            f"{text}: its first line names the columns {found}, and there has to be 'path'."
        )
    for row in table:
        if not row["path"]:
            raise PhotoError(f"{text}: line {table.line_num} has no path; give it one.")
        yield row.get("id") or row["path"], row["path"]


def _list_parquet(fs: Any, files: dict[str, str], url: str, text: str) -> Source:
    kinds: set[Literal["paths", "bytes"]] = set()
    portions: list[Portion] = []
    for path, name in files.items():
        file = _url(fs, path)
        with _opened_parquet(file) as parquet:
            columns = parquet.schema_arrow.names
            if not {"bytes", "path"} & set(columns):
                raise PhotoError(
                    f"{file}: has the columns {', '.join(columns)}, and there has to be 'bytes' "
                    "(a photo's file) or 'path'."
                )
            kinds.add("bytes" if "bytes" in columns else "paths")
            for group in range(parquet.num_row_groups):
                if "bytes" in columns:
                    portions.append(_portion_of_bytes(parquet, group, file, name))
                else:
                    portions += _portions_of_paths(parquet, group, file, text)
    if len(kinds) > 1:
        raise PhotoError(f"{text}: some of the Parquet files have 'bytes', others only 'path'.")
    return Source(url, kinds.pop(), [portion for portion in portions if len(portion.rows)])


def _portion_of_bytes(parquet: pq.ParquetFile, group: int, file: str, name: str) -> Portion:
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(group + 1)]
    if "id" in parquet.schema_arrow.names:
        ids = _texts(parquet.read_row_group(group, ["id"])["id"], "id", file)
    else:
        ids = [f"{name}#{sum(sizes[:-1]) + row}" for row in range(sizes[-1])]
    rows = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "file": pa.array([file] * len(ids), pa.string()),
            "row_group": np.full(len(ids), group, np.int32),
            "row": np.arange(len(ids), dtype=np.int64),
        }
    )
    return Portion(rows, digests_of(ids))


def _portions_of_paths(
    parquet: pq.ParquetFile, group: int, file: str, text: str
) -> Iterator[Portion]:
    columns = [name for name in ("path", "id") if name in parquet.schema_arrow.names]
    table = parquet.read_row_group(group, columns)
    paths = _texts(table["path"], "path", file)
    ids = _texts(table["id"], "id", file) if "id" in columns else paths
    located = [_located(path, file) for path in paths]
    return _portions(zip(ids, located, strict=True), text)


def _texts(column: pa.ChunkedArray, name: str, file: str) -> list[str]:
    if column.null_count:
        raise PhotoError(f"{file}: {column.null_count:,} rows have no {name}; give each one.")
    texts: list[str] = pc.cast(column, pa.string()).to_pylist()
    return texts


def _portions(names: Iterable[tuple[str, str]], text: str) -> Iterator[Portion]:
    """Tables of ids and paths."""
    names = iter(names)
    while some := list(itertools.islice(names, PORTION)):
        try:
            ids, paths = (pa.array(column, pa.string()) for column in zip(*some, strict=True))
        except UnicodeEncodeError as error:
            raise PhotoError(
                f"{text}: a name is not UTF-8 ({error.object!r}); rename that photo."
            ) from error
        yield Portion(pa.table({"id": ids, "path": paths}), digests_of(i for i, _ in some))


# --- Stores --------------------------------------------------------------------------------------


def _is_local(text: str) -> bool:
    return "://" not in text or text.startswith(("file://", "local://"))


def _file_system(text: str) -> tuple[Any, str]:
    """The store of a path or URL, and the path in it; of the machine's own, an absolute one."""
    if "://" not in text:
        return fsspec.filesystem("file"), str(Path(text).absolute())
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(text)
        return found
    except (ImportError, ValueError) as error:
        raise SettingsError(
            f"{text}: no installed package reads such a URL ({error}): install the one that fsspec "
            "names, such as s3fs for s3:// or gcsfs for gs://"
        ) from error


def _url(fs: Any, path: str) -> str:
    """What a worker opens the path by: a URL, or the path itself on the machine's own disks."""
    protocols = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    return path if "file" in protocols else str(fs.unstrip_protocol(path))


def _relative(path: str, root: str) -> str:
    return path[len(root.rstrip("/")) :].lstrip("/")


def _located(name: str, beside: str) -> str:
    """A path as it stands in a list: as it is where it is whole, else beside the list."""
    if "://" in name or Path(name).is_absolute():
        return name
    folder, _, _ = beside.replace(os.sep, "/").rpartition("/")
    return f"{folder}/{name}"


@contextmanager
def _opened_parquet(file: str) -> Iterator[pq.ParquetFile]:
    fs, path = _file_system(file)
    with fs.open(path, "rb") as stream:
        # Read in pieces: a row group of photos may be far larger than the memory.
        yield pq.ParquetFile(stream, pre_buffer=False, buffer_size=2**20)


@contextmanager
def _store_errors(what: str) -> Iterator[None]:
    """Whatever a store or a Parquet file raises becomes a PhotoError."""
    try:
        yield
    except ReconPatchError:
        raise
    except FileNotFoundError as error:
        raise PhotoError(f"{what}: does not exist; check the path.") from error
    except PermissionError as error:
        raise PhotoError(f"{what}: may not be read; check its permissions.") from error
    except Exception as error:  # the errors of stores have no common base of their own
        reason = " ".join(str(error).split()) or "no reason given"
        raise PhotoError(
            f"{what}: cannot be read ({type(error).__name__}: {reason}); check that it is there, "
            "whole, and may be read."
        ) from error
