"""Records as the CSV file that spreadsheets take."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from reconpatch.station.records import COLUMNS, Record, as_rows

_CHUNK = 65_536
# What people or other programs wrote.
_FREE = ("name", "lot", "serial", "feedback_kind")


class RecordTable:
    """Writes the lines of a CSV file: UTF-8 with a byte order mark, as spreadsheets need it."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        self._writer = csv.DictWriter(self._out, COLUMNS)
        self._out.write("\ufeff")
        self._writer.writeheader()

    def add(self, record: Record) -> None:
        """Write the line of a record."""
        [row] = as_rows([record])
        self._writer.writerow(row | {name: _harmless(row[name]) for name in _FREE if row[name]})

    @property
    def waiting(self) -> int:
        """Characters that were not taken."""
        return self._out.tell()

    def taken(self) -> str:
        """What was written since it was last taken."""
        text = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return text


def csv_lines(records: Iterable[Record]) -> Iterator[str]:
    """Lines of the file, some at a time."""
    table = RecordTable()
    for record in records:
        table.add(record)
        if table.waiting > _CHUNK:
            yield table.taken()
    yield table.taken()


def _harmless(cell: str) -> str:
    """A cell that a spreadsheet does not run as a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
