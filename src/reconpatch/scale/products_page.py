"""The summary of many products as one self-contained page: what failed first, then the worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconpatch.report.pages import rendered
from reconpatch.scale.outcome import Fitted, Row

BAR_FROM = 0.5
"""AUROC at the left end of a bar: no better than chance. The right end is 1."""


@dataclass(frozen=True)
class Line:
    """A product as the page shows it.

    Attributes:
        row: what came of it.
        quality: the expected quality, or None.
        bar: left end, right end and point of its interval, 0 to 1 along the bar.
        f: what became of the learned f: "learned", "identity", or a dash.
        test: figures on test photos as (name, text).
    """

    row: Row
    quality: Mapping[str, Any] | None
    bar: tuple[float, float, float]
    f: str
    test: tuple[tuple[str, str], ...]


def page(outcome: Fitted) -> Iterator[bytes]:
    """The page, piece by piece."""
    rows = sorted(outcome.rows, key=_rank)
    statuses = [row.status for row in rows]
    return rendered(
        "products.html.j2",
        {"percent": percent, "duration": duration},
        lines=[_line(row) for row in rows if row.error is None],
        failed=[row for row in rows if row.error is not None],
        untested=[row for row in rows if row.test_error is not None],
        counts={status: statuses.count(status) for status in ("fitted", "kept", "failed")},
        seconds=outcome.seconds,
        tested=any(row.test for row in rows),
        threshold_note=any(row.promised_rate > row.rate for row in rows if not row.error),
    )


def _rank(row: Row) -> tuple[bool, float, str]:
    """What failed, then from the least expected quality to the highest; those without it last."""
    return row.error is None, row.quality["auroc"] if row.quality else 2.0, row.name


def _line(row: Row) -> Line:
    quality = row.quality
    ends = [quality[name] for name in ("low", "high", "auroc")] if quality else [BAR_FROM] * 3
    low, high, point = (max(0.0, (value - BAR_FROM) / (1 - BAR_FROM)) for value in ends)
    kept = {member["guard"]["kept"] for member in row.members if member["guard"]}
    return Line(row, quality, (low, high, point), " + ".join(sorted(kept)) or "–", _test(row))


def _test(row: Row) -> tuple[tuple[str, str], ...]:
    if row.test is None:
        return ()
    photos, detected = row.test["photos"], row.test["detected"].values()
    found = sum(kind["flagged"] for kind in detected)
    named = {"image AUROC": row.test["image_auroc"], "AUPRO": row.test["aupro"]}
    return (
        ("found", f"{found} of {photos['defective']} defects found"),
        ("false", f"{row.test['false_alarms']} of {photos['good']} good photos flagged"),
        *((name, percent(value)) for name, value in named.items() if value is not None),
    )


def percent(share: float) -> str:
    """Such as 97.3 %."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Such as 8 s, 3 min 5 s or 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
