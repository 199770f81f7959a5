"""A service under load, and killed under load: is every answered verdict in the database?

    python benchmarks/station.py MODEL PHOTOS                 # 8 clients, 2,000 photos
    python benchmarks/station.py MODEL PHOTOS --kill 10       # killed ten times in the middle
    python benchmarks/station.py --photos 100                 # generated parts, random weights

Starts `reconpatch serve` as a process. Each client sends one photo after the other and waits for
the verdict; a 503 is obeyed. Prints photos a second, the 50th and 99th percentile of the time to an
answer, the service's memory at the start and the end, and how many answered verdicts are not in the
database as they were answered, which has to be 0. With --kill the process is killed (SIGKILL) at
moments spread over the load and started again on the same folder, while an operator sets one
threshold after the other, so that model files are being written too; then the database's own check,
the checksums of the model files and the last threshold that was answered are looked at. Beside it
stands what the same process manages alone: the photos inspected one after the other from memory.
Exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import random
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from serving import megabytes, photo, serving, small_model

import reconpatch
from reconpatch.photos.images import read_photo_bytes

API = "/api/v1"


@dataclass
class Load:
    """What the clients share."""

    contents: list[bytes]
    url: str = ""
    todo: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    answered: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    again: int = 0
    broken: int = 0
    version: int = 1


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", nargs="?", type=Path, help="none: random weights")
    arguments.add_argument("folder", nargs="?", type=Path, help="photos; none: generated parts")
    arguments.add_argument("--photos", type=int, default=2_000)
    arguments.add_argument("--clients", type=int, default=8)
    arguments.add_argument("--side", type=int, default=256, help="of generated parts")
    arguments.add_argument("--kill", type=int, default=0, metavar="TIMES")
    arguments.add_argument("--threads", type=int, default=0)
    arguments.add_argument("--database", help="URL, for PostgreSQL; not with --kill")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or folder / "part.rcp"
        if given.model is None:
            small_model(model, given.side)
        load = Load(_contents(given.folder, given.side))
        print_alone(model, load.contents, given.threads)
        options: list[object] = [model, "--data", folder / "data", "--port", 0]
        options += ["--threads", given.threads]
        if given.database:
            options += ["--database", given.database]
        lost = run(load, options, given.photos, given.clients, given.kill, folder)
    sys.exit(1 if lost else 0)


def _contents(folder: Path | None, side: int) -> list[bytes]:
    """Photos' files in memory: those of a folder, or generated ones."""
    if folder is None:
        return [photo(seed, side) for seed in range(40)]
    from reconpatch.photos.listing import list_photos

    return [path.read_bytes() for path in list_photos(folder)[:200]]


def print_alone(model: Path, contents: list[bytes], threads: int) -> None:
    """Photos a second without a service, one after the other."""
    inspector = reconpatch.load(model, threads=threads)
    seconds = []
    for content in (contents * 60)[:60]:
        began = time.perf_counter()
        inspector.inspect(read_photo_bytes(content, name="photo"))
        seconds.append(time.perf_counter() - began)
    print(f"alone, read and inspected: {1 / np.median(seconds[10:]):.1f} photos/s")


def run(
    load: Load, options: list[object], photos: int, clients: int, kills: int, folder: Path
) -> int:
    """The load, over as many lives of the service as it takes; how much was lost."""
    for i in range(photos):
        load.todo.put(i)
    rng = random.Random(0)
    for life in range(kills + 1):
        with serving(*options, log=folder / "log") as (process, url):
            load.url = url
            start, began = megabytes(process), time.perf_counter()
            enough = threading.Event()
            # A life ends somewhere in its share of the photos; the last one at the end of all.
            goal = (life + rng.random()) / (kills + 1) * photos if life < kills else photos
            threads = [threading.Thread(target=client, args=(load, enough)) for _ in range(clients)]
            if kills:
                threads.append(threading.Thread(target=operator, args=(load, enough)))
            for thread in threads:
                thread.start()
            if life < kills:
                while len(load.answered) < goal:
                    time.sleep(0.002)
                process.kill()
                enough.set()
            for thread in threads[:clients]:
                thread.join()
            enough.set()
            for thread in threads:
                thread.join()
            if life == kills:
                end = megabytes(process)
                seconds = time.perf_counter() - began
                lost = count_lost(load, url)
    print(f"{len(load.answered)} of {photos} photos answered, {clients} clients, {kills} kills")
    if not kills:
        print(f"{len(load.answered) / seconds:.1f} photos/s")
        p50, p99 = np.percentile(load.seconds, [50, 99]) * 1_000
        print(f"time to an answer: 50 % in {p50:.0f} ms, 99 % in {p99:.0f} ms")
        print(f"memory at the start {start:.0f} MB, at the end {end:.0f} MB")
    print(f"answered 503: {load.again}; broken off by a kill: {load.broken}; lost: {lost}")
    return lost + print_files(folder / "data")


def client(load: Load, enough: threading.Event) -> None:
    """Send photos until there are none; what breaks off is sent again, in this life or the next."""
    with httpx.Client(base_url=load.url, timeout=120) as session:
        while not enough.is_set():
            try:
                number = load.todo.get_nowait()
            except queue.Empty:
                return
            content = load.contents[number % len(load.contents)]
            began = time.perf_counter()
            try:
                answer = session.post(
                    f"{API}/inspect", content=content, params={"name": f"{number}"}
                )
            except httpx.HTTPError:
                load.broken += 1
                load.todo.put(number)
                if not enough.wait(0.05):
                    continue
                return
            if answer.status_code == 503:
                load.again += 1
                load.todo.put(number)
                time.sleep(float(answer.headers.get("retry-after", 1)))
                continue
            answer.raise_for_status()
            load.seconds.append(time.perf_counter() - began)
            load.answered.append(answer.json())


def operator(load: Load, enough: threading.Event) -> None:
    """Set one threshold after the other."""
    # The process may be killed before its first answer here.
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=load.url, timeout=120) as ask:
        [product] = ask.get(f"{API}/products").json()["products"]
        path = f"{API}/products/{product['name']}/threshold"
        while not enough.wait(0.2):
            given = {"score": product["threshold"] * random.uniform(0.9, 1.1)}
            load.version = ask.put(path, json=given).raise_for_status().json()["number"]


def count_lost(load: Load, url: str) -> int:
    """Answered verdicts that the records do not have, or not as they were answered."""
    kept: dict[int, Any] = {}
    with httpx.Client(base_url=url, timeout=120) as session:
        [product] = session.get(f"{API}/products").json()["products"]
        # A version that was written when the kill came may be there without having been answered.
        lost = int(product["version"] < load.version)
        cursor = None
        while True:
            query = {"limit": 1_000} | ({"cursor": cursor} if cursor else {})
            page = session.get(f"{API}/records", params=query).raise_for_status().json()
            kept |= {record["id"]: record for record in page["records"]}
            cursor = page["cursor"]
            if cursor is None:
                break
    return lost + sum(kept.get(record["id"]) != record for record in load.answered)


def print_files(data: Path) -> int:
    """Whether the database and the model files are whole; 1 if not."""
    database = data / "records.sqlite"
    check = "elsewhere"
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            check = connection.execute("PRAGMA integrity_check").fetchone()[0]
    models = sorted((data / "models").rglob("*.rcp"))
    for path in models:
        reconpatch.load(path)
    print(json.dumps({"database": check, "models that open": len(models)}))
    return 0 if check in ("ok", "elsewhere") and models else 1


if __name__ == "__main__":
    main()
