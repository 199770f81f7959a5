"""What can be scored: folders, lists and Parquet files, on a disk and in a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import fill
from reconpatch.errors import PhotoError, SettingsError

pa = pytest.importorskip("pyarrow", reason="the extra 'score' is not installed")
import fsspec  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from reconpatch.scale import sources  # noqa: E402
from reconpatch.scale.sources import Source, among, digests_of, list_source, read_rows  # noqa: E402


def names(source: Source) -> dict[str, str]:
    """The path of each id."""
    rows = pa.concat_tables([portion.rows for portion in source.portions]).to_pylist()
    return {row["id"]: row["path"] for row in rows}


def files(source: Source) -> list[dict[str, Any]]:
    """All rows as `read_rows` gives them."""
    tables = [table for portion in source.portions for table in read_rows(portion.rows)]
    return [row for table in tables for row in table.to_pylist()]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """3 photos, one in a subfolder, and files that are none."""
    folder = fill(tmp_path / "new", [0, 1])
    fill(folder / "late", [2])
    (folder / "notes.txt").write_text("none")
    fill(folder / ".hidden", [3])
    return folder


@pytest.fixture
def store() -> Iterator[Any]:
    """A store in memory, emptied afterwards."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()


class TestAFolder:
    def test_its_photos_are_known_by_their_paths_in_it(self, photos: Path) -> None:
        source = list_source(str(photos))
        assert source.kind == "paths"
        inside = ("late/part002.png", "part000.png", "part001.png")
        assert names(source) == {name: str(photos / name) for name in inside}

    def test_in_a_store_paths_are_urls(self, photos: Path, store: Any) -> None:
        store.put(str(photos / "part000.png"), "/line/a.png")
        source = list_source("memory://line")
        assert names(source) == {"a.png": "memory:///line/a.png"}
        assert sources.read_bytes("memory:///line/a.png") == store.cat("/line/a.png")

    def test_work_is_cut_into_portions(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "PORTION", 2)
        source = list_source(str(photos))
        assert [len(portion.rows) for portion in source.portions] == [2, 1]
        left = source.without(np.sort(digests_of(["part000.png", "part001.png"])))
        assert (len(source), len(left), list(names(left))) == (3, 1, ["late/part002.png"])
        assert len(left.without(digests_of(["late/part002.png"])).portions) == 0

    def test_without_photos_it_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PhotoError, match="no photo and no Parquet file"):
            list_source(str(tmp_path))

    def test_photos_beside_parquet_are_refused(self, photos: Path) -> None:
        pq.write_table(pa.table({"path": ["a.png"]}), photos / "list.parquet")
        with pytest.raises(PhotoError, match=r"holds photos \(late/part002.png\) and Parquet"):
            list_source(str(photos))


class TestAManifest:
    def test_a_path_a_line(self, photos: Path) -> None:
        (photos / "list.txt").write_text(f"part000.png\n\n{photos}/part001.png\ns3://b/c.png\n")
        assert names(list_source(str(photos / "list.txt"))) == {
            "part000.png": f"{photos}/part000.png",
            f"{photos}/part001.png": f"{photos}/part001.png",
            "s3://b/c.png": "s3://b/c.png",
        }

    @pytest.mark.parametrize(("suffix", "comma"), [(".csv", ","), (".tsv", "\t")])
    def test_columns_path_and_id(self, photos: Path, suffix: str, comma: str) -> None:
        lines = [["station", "id", "path"], ["3", "n1", "part000.png"], ["3", "", "part001.png"]]
        text = "\r\n".join(comma.join(line) for line in lines)
        (photos / f"list{suffix}").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert names(list_source(str(photos / f"list{suffix}"))) == {
            "n1": f"{photos}/part000.png",
            "part001.png": f"{photos}/part001.png",
        }

    def test_in_a_store_paths_are_beside_it(self, store: Any) -> None:
        store.pipe("/line/list.csv", b"path\na.png\n")
        assert names(list_source("memory://line/list.csv")) == {"a.png": "memory:///line/a.png"}

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("list.csv", b"file\na.png\n", "the columns 'file', and there has to be 'path'"),
            ("list.csv", b"", "the columns none"),
            ("list.csv", b"id,path\n1,a.png\n2,\n", "line 3 has no path"),
            ("list.txt", b"\xff\xfe\n", "is no text in UTF-8"),
            ("list.txt", b"\n\n", "lists no photo"),
            ("list.txt", b"a.png\nb.png\na.png\n", "1 ids are there more than once, such as 'a"),
            ("list.json", b"{}", "is neither a list of photos nor a folder"),
            ("list.parquet", b"PAR1", "cannot be read"),
        ],
    )
    def test_another_content_is_refused(
        self, name: str, content: bytes, message: str, tmp_path: Path
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PhotoError, match=message):
            list_source(str(tmp_path / name))


class TestParquet:
    def test_of_paths(self, photos: Path) -> None:
        pq.write_table(pa.table({"path": ["part000.png"], "id": [7]}), photos / "list.parquet")
        source = list_source(str(photos / "list.parquet"))
        assert names(source) == {"7": f"{photos}/part000.png"}

    def test_of_bytes_rows_are_read_group_by_group(self, tmp_path: Path) -> None:
        contents = [bytes([i]) * 9 for i in range(100)]
        table = pa.table({"bytes": contents, "path": [f"{i}.png" for i in range(100)]})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=40)
        pq.write_table(table.slice(0, 5), tmp_path / "b.parquet")
        source = list_source(str(tmp_path))
        assert (source.kind, [len(p.rows) for p in source.portions]) == ("bytes", [40, 40, 20, 5])
        every = [*enumerate(["a.parquet"] * 100), *enumerate(["b.parquet"] * 5)]
        assert files(source) == [
            {"id": f"{file}#{i}", "path": f"{i}.png", "bytes": contents[i], "error": None}
            for i, file in every
        ]
        done = [f"a.parquet#{i}" for i in range(39)] + ["a.parquet#45", "a.parquet#99"]
        left = source.without(np.sort(digests_of(done)))
        assert [row["id"] for row in files(left)] == [
            f"{file}#{i}" for i, file in every if f"{file}#{i}" not in done
        ]

    def test_of_bytes_with_ids_and_without_paths(self, tmp_path: Path, store: Any) -> None:
        pq.write_table(pa.table({"id": ["x"], "bytes": [b"1"]}), tmp_path / "a.parquet")
        store.put(str(tmp_path / "a.parquet"), "/line/a.parquet")
        (row,) = files(list_source("memory://line/a.parquet"))
        assert row == {"id": "x", "path": None, "bytes": b"1", "error": None}

    def test_rows_that_cannot_be_read_say_so(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"bytes": [b"1", b"2"]}), tmp_path / "a.parquet")
        source = list_source(str(tmp_path))
        (tmp_path / "a.parquet").unlink()
        assert [(row["id"], row["bytes"]) for row in files(source)] == [
            ("a.parquet#0", None),
            ("a.parquet#1", None),
        ]
        assert "a.parquet: does not exist" in files(source)[0]["error"]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"image": ["a"]}, "has the columns image, and there has to be 'bytes'"),
            ({"path": ["a", None]}, "1 rows have no path"),
            ({"bytes": [b"1"], "id": pa.array([None], pa.string())}, "1 rows have no id"),
            ({"bytes": [b"1", b"2"], "id": [5, 5]}, "1 ids are there more than once, such as '5'"),
        ],
    )
    def test_other_columns_are_refused(
        self, columns: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(PhotoError, match=message):
            list_source(str(tmp_path / "a.parquet"))

    def test_two_kinds_are_refused(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"bytes": [b"1"]}), tmp_path / "a.parquet")
        pq.write_table(pa.table({"path": ["1"]}), tmp_path / "b.parquet")
        with pytest.raises(PhotoError, match="some of the Parquet files have 'bytes'"):
            list_source(str(tmp_path))


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="does not exist"):
        list_source(str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="no installed package reads such a URL"):
        list_source("floppy://a")
    with pytest.raises(PhotoError, match="does not exist"):
        sources.read_bytes(str(tmp_path / "nowhere.png"))
    with pytest.raises(PhotoError, match="is not a regular file"):
        sources.read_bytes(str(tmp_path))


def test_digests_against_plain_sets() -> None:
    rng = np.random.default_rng(0)
    some, known = ([str(i) for i in rng.integers(0, 500, 300)] for _ in range(2))
    found = among(digests_of(some), np.sort(digests_of(known)))
    assert found.tolist() == [name in set(known) for name in some]
    assert not among(digests_of(some), digests_of([])).any()
