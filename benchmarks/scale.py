"""What a million photos cost, and what gives out first with 10, 100 and 1,000 workers: arithmetic.

    python benchmarks/scale.py

Nothing here runs a cluster. `Assumed` holds every number that goes in, each with where it is from;
what can be measured in a second on this machine (the bytes of a row of scores, what the process
that writes does for a portion) is measured first. The tables of docs/scale.md are what it prints.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from reconpatch.scale.score_table import SCHEMA, ScoreTable
from reconpatch.scale.sources import PORTION, list_source

MILLION = 1_000_000
WORKERS = (10, 100, 1_000)


@dataclass(frozen=True)
class Assumed:
    # Measured (docs/results.md), quality fast, 224 pixels, one core of a server CPU.
    core_ms: float = 2_000 / 49.5  # 49.5 photos a second are read and inspected on two cores
    photo_kb: float = 211  # bottle: 450 x 450 PNG, mean
    model_mb: float = 10.7
    dim: int = 152
    places: int = 784
    decode_ms: float = 5.1  # and prepared
    extract_core_ms: float = 25  # 2.6 s for 209 photos on two threads
    gflops: float = 30  # of a core in a matrix product of float32
    # Assumed: orders of magnitude that providers and projects state; put your own in.
    requests_a_second: float = 5_500  # of an object store, for one prefix
    store_gbit: float = 100  # of an object store, for one account and region
    disk_gbit: float = 10  # of a shared file server
    node_gbit: float = 10  # network of a node
    node_cores: int = 32  # of a node, one worker each
    tasks_a_second: float = 500  # that the driver of Ray Data hands out
    actors_a_second: float = 50  # that a head node starts
    core_hour: float = 0.04  # price
    thousand_requests: float = 0.0004  # price


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    assumed = Assumed()
    row_bytes, writer_ms = measured_rows()
    listing_us, listed_bytes = measured_listing()
    print(
        f"measured here: {row_bytes:.0f} bytes a row of scores, {writer_ms:.2f} ms to take and "
        f"write a portion of {PORTION}, {listing_us:.1f} us and {listed_bytes:.0f} bytes to list "
        "a photo\n"
    )
    print(cost_of_a_million(assumed, row_bytes, listing_us, listed_bytes), end="\n\n")
    print(first_to_give_out(assumed, writer_ms), end="\n\n")
    print(fit_by_workers(assumed), end="\n\n")
    print(bank_growth(assumed))


# --- Measured here -------------------------------------------------------------------------------


def portion(rng: np.random.Generator, first: int) -> pa.Table:
    """Scores as they are: digests that do not compress, scores with all their digits."""
    rows = [
        {
            "id": f"line3/2026-11-26/{first + i:08}.png", "sha256": rng.bytes(32).hex(),
            "path": f"s3://photos/line3/2026-11-26/{first + i:08}.png",
            "score": rng.normal(20, 2), "threshold": 21.7, "anomalous": False,
            "p_value": rng.integers(1, 210) / 210, "peak": rng.normal(20, 2),
            "map_threshold": 22.8, "model": "0" * 64, "seconds": rng.normal(0.04, 0.01),
        }
        for i in range(PORTION)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMA)


def measured_rows(portions: int = 80) -> tuple[float, float]:
    """Bytes of a row on disk, and milliseconds of the writing process for a portion."""
    rng = np.random.default_rng(0)
    tables = [portion(rng, i * PORTION) for i in range(portions)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        with ScoreTable(Path(folder), {}) as table:
            for rows in tables:
                table.add(rows)
        spent = time.process_time() - start
        size = sum(path.stat().st_size for path in Path(folder).glob("*.parquet"))
    return size / (portions * PORTION), 1_000 * spent / portions


def measured_listing(photos: int = 20_000) -> tuple[float, float]:
    """Microseconds and bytes to list a photo of a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.txt"
        path.write_text(
            "".join(f"s3://photos/line3/2026-11-26/{i:08}.png\n" for i in range(photos))
        )
        start = time.process_time()
        source = list_source(str(path))
        spent = time.process_time() - start
    size = sum(p.rows.nbytes + p.digests.nbytes for p in source.portions)
    return 1e6 * spent / photos, size / photos


# --- Tables --------------------------------------------------------------------------------------


def cost_of_a_million(a: Assumed, row_bytes: float, listing_us: float, listed_bytes: float) -> str:
    hours = MILLION * a.core_ms / 3.6e6
    requests = MILLION / 1_000 * a.thousand_requests
    return table(
        ("a million photos", "arithmetic", "comes to"),
        [
            ("core-hours", f"10^6 x {a.core_ms:.1f} ms", f"{hours:.1f} h"),
            ("read", f"10^6 x {a.photo_kb:.0f} kB", f"{MILLION * a.photo_kb / 1e6:,.0f} GB"),
            ("written", f"10^6 x {row_bytes:.0f} B", f"{MILLION * row_bytes / 1e6:.0f} MB"),
            ("listed", f"10^6 x {listing_us:.1f} us", f"{MILLION * listing_us / 1e6:.0f} s"),
            ("names in memory", f"10^6 x {listed_bytes:.0f} B",
             f"{MILLION * listed_bytes / 1e6:.0f} MB"),
            ("cores, at 0.04 an hour", f"{hours:.1f} x {a.core_hour}",
             f"{hours * a.core_hour:.2f}"),
            ("requests, at 0.0004 a thousand", f"10^3 x {a.thousand_requests}", f"{requests:.2f}"),
        ],
    )  # fmt: skip


def first_to_give_out(a: Assumed, writer_ms: float) -> str:
    """For each number of workers: how much of each part's limit is used, in per cent."""
    lines = []
    for workers in WORKERS:
        rate = workers * 1_000 / a.core_ms  # photos a second, were there no limit but the workers
        gbit = rate * a.photo_kb * 8e-6
        on_node = min(workers, a.node_cores) * 1_000 / a.core_ms * a.photo_kb * 8e-6
        portions = rate / PORTION
        shares = {
            "store, one request a photo, one prefix": rate / a.requests_a_second,
            "store, bandwidth": gbit / a.store_gbit,
            "shared disk": gbit / a.disk_gbit,
            "network of a node": on_node / a.node_gbit,
            "driver, tasks": portions / a.tasks_a_second,
            "driver, writing": portions * writer_ms / 1_000,
        }
        files = max(rate / 10_000, 1 / 60) * 3_600
        start = workers / a.actors_a_second
        lines.append((workers, rate, files, start, shares))
    names = list(lines[0][-1])
    header = ("workers", "photos/s", "a million takes", "files an hour", "actors start in", *names)
    return table(
        header,
        [
            (f"{workers:,}", f"{rate:,.0f}", duration(MILLION / rate), f"{files:,.0f}",
             f"{start:.0f} s", *(f"{shares[name]:.1%}" for name in names))
            for workers, rate, files, start, shares in lines
        ],
    )  # fmt: skip


def fit_by_workers(a: Assumed, rows: int = 1_600) -> str:
    """Core-milliseconds of a photo in a fit by workers, by step, for a bank of a number of rows."""
    read = a.decode_ms + a.extract_core_ms
    product = a.places * rows * a.dim * 2 / (a.gflops * 1e6)
    steps = {
        "read for records and the sample": read,
        "read and a coreset of the share": read + product,
        "read and the radius (more than 2,000 photos)": read + product,
    }
    whole = sum(steps.values())
    return table(
        (f"fit by workers, {rows:,} rows", "core-ms a photo", "a million photos, core-hours"),
        [
            *((name, f"{ms:.0f}", f"{MILLION * ms / 3.6e6:.1f}") for name, ms in steps.items()),
            ("together", f"{whole:.0f}", f"{MILLION * whole / 3.6e6:.1f}"),
        ],
    )


def bank_growth(a: Assumed) -> str:
    """Rows, memory and search of a bank by the number of photos: of 1 %, and of 1,600 rows."""
    lines = []
    for photos in (2_000, 20_000, 200_000, MILLION):
        for name, rows in (("1,600 rows", 1_600), ("1 %", round(0.01 * photos * a.places))):
            size = 2 * rows * a.dim * 4 / 1e6  # with its stand-ins
            search = a.places * rows * a.dim * 2 / (a.gflops * 1e6)
            select = photos * a.places * rows * a.dim * 2 / (a.gflops * 1e9) / 3_600
            lines.append((f"{photos:,}", name, f"{rows:,}", f"{size:,.0f}", f"{search:,.0f}",
                          f"{select:,.2f}"))  # fmt: skip
    header = ("photos", "bank", "rows", "MB, stand-ins too", "search, core-ms a photo",
              "selection in one piece, core-hours")  # fmt: skip
    return table(header, lines)


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def duration(seconds: float) -> str:
    return f"{seconds / 3_600:.1f} h" if seconds >= 3_600 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    main()
