"""A hard day in minutes: a station under load while all that it stands on is taken down in turn.

Four clients send photos of two products, more come in a folder, and an RTSP camera takes one a
second. Every few seconds the service, the database, the broker (all without a shutdown), the
receiver of the webhook or the camera goes and comes back. Afterwards every answered verdict has to
be in the records, each file of the folder once, every record's message has to have arrived by
webhook and by MQTT, those that came twice have to say so, OPC UA has to show the last record, and
the audit trail has to be unbroken. What a broker had taken and lost with its own life, or repeats
by itself, is counted and no fault here. For the last third the service is left alone, and its
memory compared.

The database is PostgreSQL where it is installed, else SQLite.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import queue
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from day_parts import (
    Camera,
    Hook,
    Memory,
    OpcUaClient,
    Part,
    Postgres,
    Program,
    Told,
    is_healthy,
    subscribed,
    until,
)
from outputs import free_port
from PIL import Image
from serving import photo, small_model

CLIENTS = 4
SIDE = 128
PRODUCTS = ("part", "ring")
# One file for so many photos that are sent.
A_FILE_FOR = 10


class Day:
    """What was sent, answered and lost."""

    def __init__(self, url: str, photos: int, incoming: Path) -> None:
        self.url, self.photos, self._incoming = url, photos, incoming
        self._work: queue.Queue[int] = queue.Queue()
        for number in range(photos):
            self._work.put(number)
        self._files = [photo(seed, SIDE) for seed in range(8)]
        self.answered: list[int] = []
        self.lost: list[int] = []
        self.files: list[str] = []
        self.threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    @property
    def left(self) -> int:
        return self._work.qsize()

    def _send(self) -> None:
        while True:
            try:
                number = self._work.get_nowait()
            except queue.Empty:
                return
            if number % A_FILE_FOR == 0:
                self._put(number)
            self._inspect(number)

    def _put(self, number: int) -> None:
        name = f"file{number}.png"
        half = self._incoming / f"{name}.part"
        half.write_bytes(self._files[number % 8])
        half.rename(self._incoming / name)
        self.files.append(name)

    def _inspect(self, number: int) -> None:
        product = PRODUCTS[number % 2]
        path = f"{self.url}/api/v1/inspect?product={product}&name=photo{number}.png"
        while True:
            try:
                asked = urllib.request.Request(path, self._files[number % 8], method="POST")
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    self.answered.append(json.load(answer)["id"])
                return
            except (http.client.HTTPException, OSError, ValueError):
                self.lost.append(number)
                time.sleep(0.5)


def pixels_of(seed: int) -> Any:
    return np.asarray(Image.open(io.BytesIO(photo(seed, SIDE))))


def mosquitto_at(folder: Path) -> tuple[Program, int]:
    """A broker that writes down what it has taken, and its port."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        raise SystemExit("there is no mosquitto: on Debian, apt-get install mosquitto")
    port = free_port()
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"persistence true\npersistence_location {folder}/\n"
        "autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n"
    )
    command = [program, "-c", folder / "mosquitto.conf"]
    return Program(command, port, folder / "broker.log"), port


def database_at(folder: Path) -> tuple[Postgres | None, str]:
    """A PostgreSQL of our own and its URL, or SQLite in the station's folder."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        return None, f"sqlite:///{folder / 'data' / 'records.sqlite'}"
    server = Postgres(programs[-1].parent, folder / "postgres")
    return server, server.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--every", type=float, default=15, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database has an account of its own
        for model in PRODUCTS:
            small_model(folder / f"{model}.rcp", SIDE)
        if not day(folder, given.photos, given.every, given.seed):
            print((folder / "service.log").read_text()[-3_000:], file=sys.stderr)
            raise SystemExit("something was lost")


def day(folder: Path, photos: int, every: float, seed: int) -> bool:
    """Live through it; whether nothing was lost."""
    database, database_url = database_at(folder)
    broker, broker_port = mosquitto_at(folder)
    hook, port, opcua_port = Hook(), free_port(), free_port()
    frames = [pixels_of(one) for one in range(8)]
    camera = Camera(lambda number: frames[number % 8])
    (folder / "incoming").mkdir()
    (folder / "station.toml").write_text(
        f"[outputs.hook]\nkind = 'webhook'\nurl = 'http://127.0.0.1:{hook.port}/'\n"
        f"[outputs.broker]\nkind = 'mqtt'\nhost = '127.0.0.1'\nport = {broker_port}\n"
        "[outputs.scada]\nkind = 'opcua'\n"
        f"endpoint = 'opc.tcp://127.0.0.1:{opcua_port}/reconpatch'\n"
        f"[cameras.top]\nkind = 'stream'\nurl = '{camera.url}'\nevery = 1\nproduct = 'part'\n"
        "[cameras.files]\nkind = 'folder'\npath = 'incoming'\nproduct = 'ring'\n"
    )
    by_mqtt: list[Told] = []
    listener = subscribed(broker_port, by_mqtt)
    data = ["--data", folder / "data"]
    if database is not None:
        data += ["--database", database_url]
    serve = [sys.executable, "-m", "reconpatch.cli", "serve"]
    serve += [folder / f"{model}.rcp" for model in PRODUCTS]
    serve += [*data, "--port", port, "--config", folder / "station.toml"]
    service = Program(serve, port, folder / "service.log", is_healthy)
    memory = Memory(service)
    memory.start()
    opcua = OpcUaClient(opcua_port, PRODUCTS)
    opcua.start()
    life = Day(f"http://127.0.0.1:{port}", photos, folder / "incoming")
    parts: dict[str, Part] = {
        "service": service, "broker": broker, "receiver": hook, "camera": camera,
    }  # fmt: skip
    if database is not None:
        parts["database"] = database
    began = time.monotonic()
    for thread in life.threads:
        thread.start()
    rng = random.Random(seed)
    turns: list[str] = []
    while any(thread.is_alive() for thread in life.threads):
        time.sleep(every)
        turns = turns or rng.sample(sorted(parts), len(parts))
        if (turn := turns.pop()) != "service" or life.left > photos / 3:
            parts[turn].kill()
    took = time.monotonic() - began

    engine = sa.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))

    def rows(query: str) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(query)).all())

    def files_left() -> bool:
        kept = {name for (name,) in rows("SELECT name FROM inspections")}
        return not set(life.files) - kept

    done = until(files_left, 180)
    camera.switch_off()
    time.sleep(3)
    done = until(lambda: rows("SELECT count(*) FROM outbox") == [(0,)], 180) and done
    time.sleep(2)
    listener.loop_stop()
    stored = rows("SELECT id, name, product FROM inspections")
    failed = rows("SELECT kind, count(*) FROM failures GROUP BY kind ORDER BY kind")
    engine.dispose()
    service.process.terminate()
    service.process.wait()
    audit = [sys.executable, "-m", "reconpatch.cli", "audit", *data]
    trail = subprocess.run(
        [*map(str, audit)], capture_output=True, encoding="utf-8", check=False
    )  # fmt: skip
    broker.process.kill()
    broker.process.wait()
    if database is not None:
        database.stop()
    kills = ", ".join(f"{name} {part.kills}" for name, part in sorted(parts.items()))
    print(f"{photos} photos in {took:.0f} s on {os.cpu_count()} cores, "
          f"{'PostgreSQL' if database else 'SQLite'}; taken down: {kills}")  # fmt: skip
    wrong = report_records(life, stored, failed)
    numbers = {number for number, _, _ in stored}
    wrong += report_messages("webhook", hook.got, numbers)
    report_messages("mqtt", by_mqtt, numbers)
    wrong += report_opcua(opcua, stored)
    report_memory(memory)
    print(f"audit: {trail.stdout.strip() or trail.stderr.strip()}")
    return done and not wrong and trail.returncode == 0


def report_records(life: Day, stored: Sequence[Any], failed: Sequence[Any]) -> int:
    """Print what became of verdicts; how many were lost or came twice that may not."""
    numbers = {number for number, _, _ in stored}
    names = Counter(name for _, name, _ in stored)
    missing = len(set(life.answered) - numbers)
    twice = len(life.answered) - len(set(life.answered))
    print(f"sent: answered {len(life.answered)}, sent again {len(life.lost)}; answered and not "
          f"stored {missing}, one number for two {twice}")  # fmt: skip
    more = sum(names[f"photo{number}.png"] - 1 for number in range(life.photos))
    never = sum(not names[f"photo{number}.png"] for number in range(life.photos))
    print(f"stored {len(stored)}: photos without a record {never}, more than one because the "
          f"answer was lost {more}")  # fmt: skip
    files = Counter(names[name] for name in life.files)
    print(f"folder: {len(life.files)} files, once in the records {files[1]}")
    print(f"camera: {sum(name.startswith('top-') for name in names)} photos; without a verdict: "
          f"{', '.join(f'{kind} {count}' for kind, count in failed) or 'none'}")  # fmt: skip
    return missing + twice + never + len(life.files) - files[1] + max(0, more - len(life.lost))


def report_messages(output: str, got: Sequence[Told], numbers: set[int]) -> int:
    """Print what arrived; how much never did, or came twice without saying so."""
    verdicts = Counter(number for event, number, _ in got if event == "verdict")
    never = len(numbers - set(verdicts))
    again = sum(count - 1 for count in verdicts.values())
    seen: set[int] = set()
    unsaid = 0
    for event, number, sent_before in got:
        if event == "verdict":
            unsaid += number in seen and not sent_before
            seen.add(number)
    print(f"{output}: never arrived {never} of {len(numbers)}, arrived again {again}, without "
          f"saying so {unsaid}")  # fmt: skip
    return never + unsaid


def report_opcua(client: OpcUaClient, stored: Sequence[Any]) -> int:
    """Print what OPC UA shows in the end; for how many products it is not the last record."""
    last = {
        product: max(number for number, _, one in stored if one == product) for product in PRODUCTS
    }
    wrong = sum(client.last.get(product) != last[product] for product in PRODUCTS)
    print(f"opcua: {client.values} values read in {client.connections} connections; shows the last "
          f"record of {len(PRODUCTS) - wrong} of {len(PRODUCTS)} products")  # fmt: skip
    return wrong


def report_memory(memory: Memory) -> None:
    """Print the memory of the life of the service that was longest."""
    seconds = max(memory.megabytes.values(), key=len)
    third = max(1, len(seconds) // 3)
    print(f"memory of the service in its longest life, {len(seconds)} s: "
          f"{statistics.median(seconds[third : 2 * third]):.0f} MB in the second third, "
          f"{statistics.median(seconds[-third:]):.0f} MB in the last, at most "
          f"{max(seconds):.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
