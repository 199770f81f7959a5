"""Search of the records by what nothing is sorted by: a part of the name, scores, a place.

The index `inspections_by_search` has all of these, newest record last. A search goes through it
from its end and stops when a page is full, so that of a million records few columns are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from reconpatch.errors import SettingsError
from reconpatch.station.tables import inspections

_COLUMNS = inspections.c


@dataclass(frozen=True)
class Search:
    """What is looked for; what is None is not asked about.

    Attributes:
        id: number of the record.
        name: a part of the photo's name, in capitals or not.
        score_least: of the photo, from this on.
        score_most: of the photo, up to this.
        place: (left, top, right, bottom) in shares of the photo, 0 to 1: where the peak of the
            worst anomalous region lies. Photos without such a region have none.
    """

    id: int | None = None
    name: str | None = None
    score_least: float | None = None
    score_most: float | None = None
    place: tuple[float, float, float, float] | None = None

    @property
    def scans(self) -> bool:
        """Whether the narrow index is to be gone through."""
        return self.id is None and self != Search()

    def conditions(self, dialect: str) -> list[sa.ColumnElement[bool]]:
        """The same for a query of the inspections, in the database's dialect."""
        found: list[sa.ColumnElement[bool]] = []
        if self.id is not None:
            found.append(_COLUMNS.id == self.id)
        if self.name is not None:
            # SQLite's LIKE takes no heed of capitals, and is three times as fast without lower().
            plain = dialect == "sqlite"
            contains = _COLUMNS.name.contains if plain else _COLUMNS.name.icontains
            found.append(contains(self.name, autoescape=True))
        if self.score_least is not None:
            found.append(_COLUMNS.score >= self.score_least)
        if self.score_most is not None:
            found.append(_COLUMNS.score <= self.score_most)
        if self.place is not None:
            left, top, right, bottom = self.place
            found += [_COLUMNS.peak_x >= left, _COLUMNS.peak_x < right]
            found += [_COLUMNS.peak_y >= top, _COLUMNS.peak_y < bottom]
        return found


def place_of(text: str) -> tuple[float, float, float, float]:
    """A place as it is given in a query.

    Args:
        text: left, top, right and bottom in shares of the photo, such as "0,0,0.5,0.5".

    Raises:
        SettingsError: it is no place.
    """
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        left = top = right = bottom = -1.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise SettingsError(
            f"the place is {text!r}: give left, top, right and bottom in shares of the photo "
            "from 0 to 1, such as 0,0,0.5,0.5 for its upper left quarter"
        )
    # What lies on the photo's far edges is in its last places.
    return left, top, right + (right == 1), bottom + (bottom == 1)


def peak_of(verdict: Any) -> Mapping[str, float | None]:
    """The columns that a place is found by: the middle of the worst region's peak, in shares.

    Args:
        verdict: with `regions`, the worst first, and the photo's `width` and `height`.
    """
    if not verdict.regions:
        return {"peak_x": None, "peak_y": None}
    x, y = verdict.regions[0].peak
    return {"peak_x": (x + 0.5) / verdict.width, "peak_y": (y + 0.5) / verdict.height}
