"""Many photos by many workers, beside one process: the same answers, and nothing lost.

    python benchmarks/many.py score DATA/mvtec_ad/bottle --photos 5000 --workers 2
    python benchmarks/many.py fit DATA/mvtec_ad/bottle DATA/magnetic_tile/tile

`score` fits a model of the category (`--quality fast`), lists its photos over and over under ids of
their own, and scores the list in one process, by Ray workers, and by Ray workers of which one is
killed with -9 when a third of the photos is done. `fit` fits each category in one process and by
workers, and measures both on its test photos. Each run is a new process of `reconpatch`; psutil is
needed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from reconpatch.photos.images import list_photos


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = arguments.add_subparsers(required=True)
    score = commands.add_parser("score")
    score.add_argument("category", type=Path)
    score.add_argument("--photos", type=int, default=5_000)
    score.add_argument("--workers", type=int, default=2)
    score.set_defaults(run=compare_scores)
    fit = commands.add_parser("fit")
    fit.add_argument("categories", type=Path, nargs="+")
    fit.add_argument(
        "--option", action="append", default=[], help="of reconpatch fit: --option=--x"
    )
    fit.set_defaults(run=compare_fits)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given.run(given, Path(folder))


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "reconpatch.cli", *map(str, words)]


def run(*words: object) -> float:
    """Run a command to its end; its seconds."""
    start = time.perf_counter()
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{words} ended with {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - start


# --- Scores ---------------------------------------------------------------------------------------


def compare_scores(given: argparse.Namespace, folder: Path) -> None:
    model, listing = folder / "fast.rcp", folder / "photos.csv"
    run("fit", given.category / "train" / "good", "-o", model, "--quality", "fast")
    photos = islice(cycle(list_photos(given.category / "test")), given.photos)
    lines = ["id,path", *(f"{i:07},{path.absolute()}" for i, path in enumerate(photos))]
    listing.write_text("\n".join(lines))
    on_ray = ("--on", "ray", "--workers", given.workers)
    threads = ("--threads", given.workers)  # as many cores as the workers have together
    seconds = {"one process": run("score", model, listing, "-o", folder / "one", *threads)}
    seconds["workers"] = run("score", model, listing, "-o", folder / "ray", *on_ray)
    seconds["workers, one killed"] = score_and_kill(
        command("score", model, listing, "-o", folder / "killed", *on_ray),
        folder / "killed",
        given.photos // 3 / given.photos * seconds["workers"],
    )
    expected = scores(folder / "one")
    print("| run | seconds | photos | ids twice | rows that differ |\n|---|---|---|---|---|")
    for name, results in zip(seconds, ("one", "ray", "killed"), strict=True):
        found = scores(folder / results)
        rows = pq.read_table(folder / results).num_rows
        differ = sum(expected[i] != found.get(i) for i in expected)
        print(f"| {name} | {seconds[name]:.1f} | {rows:,} | {rows - len(found)} | {differ} |")


def score_and_kill(words: list[str], results: Path, after: float) -> float:
    """Score, and kill a worker some seconds after the first worker is there; the seconds of all."""
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed = None
    while process.poll() is None:
        workers = scoring(process.pid)
        if killed is None and workers and time.perf_counter() - start > after:
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.5)
    if killed is None:
        raise SystemExit(f"no worker was there to be killed: {results}")
    return time.perf_counter() - start


def scoring(pid: int) -> list[int]:
    """The actors that score, of a process that has a cluster of its own."""
    found = []
    with suppress(psutil.Error):  # one that ended just now
        for child in psutil.Process(pid).children(recursive=True):
            if "ray::MapWorker" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def scores(folder: Path) -> dict[str, dict[str, object]]:
    """All columns but the time, by id."""
    rows = pq.read_table(folder).drop_columns(["seconds"]).to_pylist()
    return {row["id"]: row for row in rows}


# --- Fits -----------------------------------------------------------------------------------------


def compare_fits(given: argparse.Namespace, folder: Path) -> None:
    print("| photos | fit | seconds | rows | covering radius | image AUROC | pixel AP |")
    print("|---|---|---|---|---|---|---|")
    for category in given.categories:
        for name, options in (("one process", ()), ("by workers", ("--on", "ray"))):
            model = folder / f"{category.name}-{name[:2]}.rcp"
            good = category / "train" / "good"
            seconds = run("fit", good, "-o", model, "--quality", "fast", *given.option, *options)
            print(f"| {category.name} | {name} | {seconds:.0f} | {figures(model, category)} |")


def figures(model: Path, category: Path) -> str:
    """Rows, covering radius, image AUROC and pixel AP of a model."""
    import reconpatch

    (member,) = reconpatch.load(model).members
    words = command("evaluate", model, category / "test", "--json")
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = json.loads(said)
    radius = member.provenance["coreset_radius"]
    image, pixel = found["image_auroc"], found["pixel_ap"]
    return f"{len(member.bank):,} | {radius:.2f} | {image:.2%} | {pixel:.2%}"


if __name__ == "__main__":
    main()
