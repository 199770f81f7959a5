"""How the seconds and the memory of a fit grow with the number of good photos.

    python benchmarks/growth.py DATA/mvtec_ad/bottle/train/good --counts 250,500,1000,2000 \
        --threads 2 --output growth.json

The photos given are repeated, each copy shifted by up to 4 pixels, made up to 3 % brighter or
darker and given noise of its own, so that no two are the same; they lie in a temporary folder, or
in that of `--folder`, which keeps them for another run. Each fit is a new process of `reconpatch
fit`, timed from its start to its exit, with its peak memory (it and what it starts together). What
is in the JSON file is not measured again. Beside it a table (.md) and a plot (.svg) are written.

A case is a name and what `reconpatch fit` is given: `--case "1 % bank: --size 224"`, repeated for
more; without any, those of `CASES` are run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from watched import watch

CASES = (
    "bank 1 %: --size 224",
    "bank 1,600 rows: --size 224 --bank 1600",
    "bank 1,600 rows, within 2 GiB: --size 224 --bank 1600 --memory-limit 2GiB",
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # told apart by all eyes

Case = tuple[str, list[str]]


class Key(NamedTuple):
    """Which fit a record is of."""

    case: str
    photos: int
    repeat: int


Records = dict[Key, dict[str, Any]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("good", type=Path, help="a folder of good photos")
    arguments.add_argument("--counts", default="250,500,1000,2000")
    arguments.add_argument("--case", action="append", help='"NAME: OPTIONS of reconpatch fit"')
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--folder", type=Path, help="where the photos are made and stay")
    arguments.add_argument("--repeats", type=int, default=1)
    arguments.add_argument("--python", default=sys.executable, help="of the project's environment")
    arguments.add_argument("--output", type=Path, required=True, help="the JSON file to keep up")
    given = arguments.parse_args()
    cases = [parsed(text) for text in given.case or CASES]
    counts = sorted(map(int, given.counts.split(",")))
    records = opened(given.output, given.threads)
    missing = [
        Key(name, count, repeat)
        for count in counts for repeat in range(given.repeats) for name, _ in cases
        if Key(name, count, repeat) not in records
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for key in missing:
            fill(folder, sorted(given.good.iterdir()), key.photos)
            options = dict(cases)[key.case]
            records[key] = fit(folder, options, given.python, given.threads)
            write(given.output, given.threads, records)
            print(*key, json.dumps(records[key]), flush=True)
    shown = {key: record for key, record in records.items() if key.case in dict(cases)}
    given.output.with_suffix(".md").write_text(as_table(shown))
    given.output.with_suffix(".svg").write_text(as_svg(shown))
    print(as_table(shown))


def parsed(text: str) -> Case:
    name, colon, options = text.partition(":")
    if not colon:
        raise SystemExit(f'--case takes "NAME: OPTIONS", and {text!r} was given')
    return name.strip(), options.split()


# --- Photos ---------------------------------------------------------------------------------------


def fill(folder: Path, sources: Sequence[Path], count: int) -> None:
    """Bring a folder to this many photos; those that are there already are kept."""
    files = [path for path in sources if path.is_file()]
    if not files:
        raise SystemExit("the folder of good photos is empty: give one with photos in it")
    for i, source in zip(range(count), cycle(files), strict=False):
        path = folder / f"{i:06}.png"
        if not path.exists():
            with Image.open(source) as photo:
                pixels = np.asarray(photo.convert("RGB"))
            # Little compression: what is measured is the fit, and writing takes long enough.
            Image.fromarray(perturbed(pixels, i)).save(path, compress_level=1)
    for path in sorted(folder.iterdir())[count:]:
        path.unlink()


def perturbed(pixels: np.ndarray, seed: int) -> np.ndarray:
    """A photo (H, W, 3) uint8 as it might have been taken another time."""
    rng = np.random.default_rng(seed)
    shift = rng.integers(-4, 5, 2)
    gain = rng.uniform(0.97, 1.03)
    noisy = gain * np.roll(pixels, shift, axis=(0, 1)) + rng.normal(0, 2, pixels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


# --- One fit --------------------------------------------------------------------------------------


def fit(folder: Path, options: Sequence[str], python: str, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as elsewhere, tempfile.TemporaryFile() as out:
        model = Path(elsewhere) / "model.rcp"
        command = [
            python, "-m", "reconpatch.cli", "fit", str(folder), "-o", str(model),
            "--threads", str(threads), *options,
        ]  # fmt: skip
        environment = dict(os.environ) | {"OMP_NUM_THREADS": str(threads)}
        load = os.getloadavg()[0]
        ran = watch(command, out, subprocess.STDOUT, environment)
        out.seek(0)
        said = out.read().decode(errors="replace")
        if ran.code:
            raise SystemExit(f"{' '.join(command)} ended with {ran.code}:\n{said}")
        rows = re.search(r"bank ([\d,]+) rows", said)
        return {
            "seconds": round(ran.seconds, 2),
            "peak_megabytes": round(ran.peak / 1e6, 1),
            "bank_rows": int(rows[1].replace(",", "")) if rows else None,
            "radius": round(radius_of(model, python), 3),
            "file_megabytes": round(model.stat().st_size / 1e6, 1),
            "load_before": round(load, 2),
            "said": said,
        }


def radius_of(model: Path, python: str) -> float:
    """The covering radius of the model's bank: no good patch is further from it."""
    script = (
        'import sys, reconpatch; print(reconpatch.load(sys.argv[1]).provenance["coreset_radius"])'
    )
    told = subprocess.run([python, "-c", script, model], check=True, capture_output=True, text=True)
    return float(told.stdout)


# --- The file, the table --------------------------------------------------------------------------


def opened(path: Path, threads: int) -> Records:
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    if found["threads"] != threads:
        raise SystemExit(f"{path} holds fits of {found['threads']} threads: give another file")
    return {Key(**record.pop("key")): record for record in found["fits"]}


def write(path: Path, threads: int, records: Mapping[Key, Mapping[str, Any]]) -> None:
    fits = [{"key": key._asdict(), **record} for key, record in records.items()]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"threads": threads, "fits": fits}, indent=1))
    partial.replace(path)


def as_table(records: Mapping[Key, Mapping[str, Any]]) -> str:
    lines = [
        "| case | photos | bank rows | covering radius | fit, s | peak MB | file, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, points in by_case(records).items():
        for count, found in points.items():
            rows, file, radius = (found[0][n] for n in ("bank_rows", "file_megabytes", "radius"))
            seconds, peak = (middle(found, name) for name in ("seconds", "peak_megabytes"))
            of_bank, of_fit = f"{rows:,} | {radius}", f"{seconds:.1f} | {peak:,.0f}"
            lines.append(f"| {case} | {count:,} | {of_bank} | {of_fit} | {file} |")
    return "\n".join(lines) + "\n"


def by_case(
    records: Mapping[Key, Mapping[str, Any]],
) -> dict[str, dict[int, list[Mapping[str, Any]]]]:
    """Records of each case by the number of photos, ascending."""
    cases: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for key in sorted(records, key=lambda key: key.photos):
        cases.setdefault(key.case, {}).setdefault(key.photos, []).append(records[key])
    return cases


def middle(found: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.median([record[name] for record in found]))


# --- The plot -------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 220, 60, 60, 90  # of a panel and its margins, in pixels


def as_svg(records: Mapping[Key, Mapping[str, Any]]) -> str:
    """Two panels side by side, seconds and peak memory over photos, a line for each case."""
    cases = by_case(records)
    panels = {"fit, seconds": "seconds", "peak memory, MB": "peak_megabytes"}
    parts = []
    for i, (title, name) in enumerate(panels.items()):
        lines = {
            case: [(count, middle(found, name)) for count, found in points.items()]
            for case, points in cases.items()
        }
        parts.append(panel(title, lines, LEFT + i * (WIDTH + GAP)))
    for i, (case, colour) in enumerate(zip(cases, cycle(COLOURS), strict=False)):
        y = TOP + HEIGHT + 60 + 20 * i
        parts.append(f'<path d="M{LEFT} {y - 4}h24" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 32}" y="{y}">{escape(case)}</text>')
    width, height = LEFT + 2 * WIDTH + GAP + 40, TOP + HEIGHT + 60 + 20 * len(cases)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12" fill="#222">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def panel(title: str, lines: Mapping[str, Sequence[tuple[int, float]]], left: int) -> str:
    points = [point for line in lines.values() for point in line]
    right, top = (nice(max(values)) for values in zip(*points, strict=True))

    def at(x: float, y: float) -> str:
        return f"{left + WIDTH * x / right:.1f} {TOP + HEIGHT * (1 - y / top):.1f}"

    parts = [f'<text x="{left}" y="{TOP - 20}" font-size="14">{escape(title)}</text>']
    for i in range(5):
        y, x = TOP + HEIGHT * (1 - i / 4), left + WIDTH * i / 4
        parts.append(f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(text(left - 6, y + 4, "end", f"{top * i / 4:g}"))
        parts.append(text(x, TOP + HEIGHT + 18, "middle", f"{right * i / 4:g}"))
    parts.append(f'<text x="{left}" y="{TOP + HEIGHT + 36}">photos</text>')
    for (_, line), colour in zip(lines.items(), cycle(COLOURS), strict=False):
        path = "L".join(at(x, y) for x, y in line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in line:
            cx, cy = at(x, y).split()
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>')
    return "\n".join(parts)


def text(x: float, y: float, anchor: str, content: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{content}</text>'


def nice(value: float) -> float:
    """The end of an axis: 1, 2, 4 or 8 times a power of ten, at least the value."""
    power = 10 ** np.floor(np.log10(value))
    return float(next(n * power for n in (1, 2, 4, 8, 10) if n * power >= value))


if __name__ == "__main__":
    main()
