"""Hardening, with large counts: whatever is thrown at it is refused with one sentence or harmless.

    scripts/soak                            # all of it, about two hours on two cores
    scripts/soak --only models --scale 0.01 # a part, with fewer

Model files with flipped bits, cut short, and made up; photos damaged in every way, in this process,
through the command line and through the service; malformed requests; fits killed at random moments;
the service killed under load. Prints one row a kind: tried, refused, harmless, wrong. Exit code 1
if anything was wrong. What is promised is in docs/hardening.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import malformed
import numpy as np
from serving import megabytes, photo, serving, small_model
from soak_fits import killed_fits
from soak_models import (
    Count,
    damaged_file,
    flips,
    hostile,
    made_up_file,
    truncations,
    verdict,
)
from soak_photos import inspected, mutated, resident, through_command_line

import reconpatch
import station

SIDE = 96
POSITIONS, LENGTHS, PHOTOS, REQUESTS, FITS = 10_000, 10_000, 10_000, 2_000, 50
"""Of a full run: positions whose eight bits are flipped, lengths, photos, requests, killed fits."""
VERDICTS, KILLS = 6_000, 20
"""Of a full run: verdicts asked of the service, and how often it is killed meanwhile."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--scale", type=float, default=1.0, help="share of the full counts")
    arguments.add_argument("--only", choices=sorted(PARTS), action="append")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--model", type=Path, help="to work on; none: one of random weights")
    given = arguments.parse_args()
    wrong: list[str] = []
    print("| what | tried | refused | harmless | wrong |\n|---|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or folder / "part.rcp"
        if given.model is None:
            small_model(model, SIDE)
        for part in given.only or PARTS:
            work = folder / part
            work.mkdir()
            began = time.monotonic()
            for what, count, said in PARTS[part](model, work, given):
                print(count.row(what), flush=True)
                print(f"  {part}: {said}; {time.monotonic() - began:.0f} s", file=sys.stderr)
                wrong += [f"{what}: {line}" for line in count.wrong]
    for line in wrong[:50]:
        print("WRONG", line[:3_000])
    sys.exit(1 if wrong else 0)


Rows = Iterator[tuple[str, Count, str]]


def models(model: Path, folder: Path, given: argparse.Namespace) -> Rows:
    """Model files that are damaged or made up."""
    content = model.read_bytes()
    photos = [photo(100, SIDE), photo(101, SIDE)]
    paths = [folder / f"{i}.png" for i in range(2)]
    for path, file in zip(paths, photos, strict=True):
        path.write_bytes(file)
    expected = verdict(reconpatch.load(model, threads=1), paths[0])
    rng = np.random.default_rng(given.seed)
    for what, files in (
        ("model file, one bit flipped", flips(content, round(POSITIONS * given.scale), rng)),
        ("model file, cut short", truncations(content, round(LENGTHS * given.scale), rng)),
    ):
        count = Count()
        for name, damaged in files:
            count.add(name, damaged_file(damaged, paths[0], expected, folder / "part.rcp"))
        yield what, count, f"a file of {len(content):,} bytes"
    before, count = resident(), Count()
    for name, make in hostile(content):
        count.add(name, made_up_file(make(), paths, folder))
    yield "model file, made up", count, f"memory {before:.0f} -> {resident():.0f} MB"


def photos(model: Path, folder: Path, given: argparse.Namespace) -> Rows:
    """Damaged photos in this process, through the command line and through the service."""
    many = round(PHOTOS * given.scale)
    inspector, count = reconpatch.load(model, threads=1), Count()
    inspected(inspector, mutated(max(100, many // 20), given.seed), folder, Count())  # warmed up
    memory, longest = [resident()], 0.0
    for half in (1, 2):
        damaged = mutated(many // 2, given.seed + half)
        longest = max(longest, inspected(inspector, damaged, folder, count))
        memory.append(resident())
    yield "photo, damaged", count, f"longest {longest:.1f} s, memory {_flow(memory)}"
    count = Count()
    through_command_line(model, mutated(max(64, many // 20), given.seed + 3), folder / "cli", count)
    yield "photo, damaged, by the command line", count, "in one folder"
    count, memory = Count(), []
    log = folder / "log"

    def check(what: str, status: int, text: str) -> None:
        outcome = "refused" if status < 500 else f"{status}: {text}"
        count.add(what, "harmless" if status == 200 else outcome)

    with serving(model, "--data", folder / "data", "--port", 0, log=log) as (process, url):
        malformed.damaged(url, mutated(max(100, many // 20), given.seed), lambda *_: None)
        for half in (1, 2):
            memory.append(megabytes(process))
            malformed.damaged(url, mutated(many // 2, given.seed + 3 + half), check)
        memory.append(megabytes(process))
    if "Traceback" in (said := log.read_text()):
        count.wrong.append(f"the log has {said[said.index('Traceback') :][:3_000]}")
    yield "photo, damaged, by the service", count, f"memory {_flow(memory)}"


def requests(model: Path, folder: Path, given: argparse.Namespace) -> Rows:
    """Malformed requests; see malformed.py."""
    many = round(REQUESTS * given.scale)
    with contextlib.redirect_stdout(sys.stderr):
        wrong, statuses = malformed.served(model, folder, many, given.seed)
    refused = sum(n for status, n in statuses.items() if status >= "400")
    count = Count(sum(statuses.values()), refused, sum(statuses.values()) - refused, wrong)
    yield "request, malformed", count, "answers of 400 and above count as refused"


def fits(model: Path, folder: Path, given: argparse.Namespace) -> Rows:
    """Fits killed at random moments."""
    del model
    count = Count()
    said = killed_fits(folder, round(FITS * given.scale), given.seed, count)
    yield "fit, killed", count, said


def service(model: Path, folder: Path, given: argparse.Namespace) -> Rows:
    """The service under load, killed at random moments; see station.py."""
    load = station.Load([photo(seed, SIDE) for seed in range(40)])
    options: list[object] = [model, "--data", folder / "data", "--port", 0]
    kills = max(1, round(KILLS * given.scale))
    with contextlib.redirect_stdout(sys.stderr):
        lost = station.run(load, options, round(VERDICTS * given.scale), 4, kills, folder)
    wrong = [f"{lost} answered verdicts, thresholds or files were lost"] if lost else []
    count = Count(len(load.answered), 0, len(load.answered) - lost, wrong)
    yield f"verdict of a service killed {kills} times", count, f"lost {lost}"


def _flow(memory: list[float]) -> str:
    return " -> ".join(f"{value:.0f}" for value in memory) + " MB"


PARTS: dict[str, Callable[[Path, Path, argparse.Namespace], Rows]] = {
    part.__name__: part for part in (models, photos, requests, fits, service)
}


if __name__ == "__main__":
    main()
