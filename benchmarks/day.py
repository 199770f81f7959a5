"""A hard day in minutes: a station under load while it, its broker and a receiver are killed.

Four clients send photos of two products. Every few seconds one of the three is killed (SIGKILL) and
comes back. Afterwards every answered verdict has to be in the records, every record's message has
to have arrived by webhook and by MQTT, those that came twice have to say so, and the audit trail
has to be unbroken. What a broker had taken and lost with its own life, or repeats by itself, is
counted and no fault here.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from outputs import free_port, listens
from serving import photo, small_model

CLIENTS = 4


class Killed:
    """A program that is killed and started again on the same port."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self._command, self._port, self._log = command, port, log
        self.kills = 0
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as said:
            self.process = subprocess.Popen(self._command, stdout=said, stderr=said)
        until(lambda: listens(self._port), 120)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.kills += 1
        time.sleep(1)
        self.start()


class Hook:
    """A receiver of webhooks that can be away."""

    def __init__(self) -> None:
        self.port, self.kills = free_port(), 0
        self.got: list[tuple[str, int, bool]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if "sent_before" in values:
                    hook.got.append((values["event"], values["id"], values["sent_before"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._handler = Handler
        self.start()

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kill(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.kills += 1
        time.sleep(1)
        self.start()


def until(asked: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not asked():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def subscribed(port: int, got: list[tuple[str, int, bool]]) -> mqtt.Client:
    """A subscriber that the broker remembers, and that comes back by itself."""

    def heard(_: Any, __: Any, message: Any) -> None:
        values = json.loads(message.payload)
        # What a broker sends again by itself, it says by the flag `dup`.
        got.append((values["event"], values["id"], values["sent_before"] or message.dup))

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "day", clean_session=False)
    client.on_message = heard
    client.on_connect = lambda c, *_: c.subscribe(
        [("reconpatch/+/verdict/#", 1), ("reconpatch/+/failure/#", 1)]
    )
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def send(url: str, work: queue.Queue[int], answered: list[int], lost: list[int]) -> None:
    files = [photo(seed, 128) for seed in range(8)]
    while True:
        try:
            number = work.get_nowait()
        except queue.Empty:
            return
        product = ("part", "ring")[number % 2]
        while True:
            path = f"{url}/api/v1/inspect?product={product}&name=photo{number}.png"
            try:
                asked = urllib.request.Request(path, files[number % 8], method="POST")
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    answered.append(json.load(answer)["id"])
                break
            except (urllib.error.URLError, OSError, ValueError):
                lost.append(number)
                time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=5_000)
    parser.add_argument("--every", type=float, default=15, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if mosquitto is None:
        raise SystemExit("there is no mosquitto: on Debian, apt-get install mosquitto")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in ("part", "ring"):
            small_model(folder / f"{model}.rcp", 128)
        hook, broker_port, port = Hook(), free_port(), free_port()
        (folder / "mosquitto.conf").write_text(
            f"listener {broker_port} 127.0.0.1\nallow_anonymous true\nuser root\n"
            f"persistence true\npersistence_location {folder}/\n"
            "autosave_interval 1\nautosave_on_changes true\nmax_queued_messages 0\n"
        )
        (folder / "station.toml").write_text(
            f"[outputs.hook]\nkind = 'webhook'\nurl = 'http://127.0.0.1:{hook.port}/'\n"
            f"[outputs.broker]\nkind = 'mqtt'\nhost = '127.0.0.1'\nport = {broker_port}\n"
        )
        broker = Killed(
            [mosquitto, "-c", str(folder / "mosquitto.conf")], broker_port, folder / "broker.log"
        )
        by_mqtt: list[tuple[str, int, bool]] = []
        client = subscribed(broker_port, by_mqtt)
        serve = [sys.executable, "-m", "reconpatch.cli", "serve", str(folder / "part.rcp")]
        serve += [str(folder / "ring.rcp"), "--data", str(folder / "data"), "--port", str(port)]
        serve += ["--config", str(folder / "station.toml")]
        service = Killed(serve, port, folder / "service.log")
        url = f"http://127.0.0.1:{port}"
        work: queue.Queue[int] = queue.Queue()
        for number in range(given.photos):
            work.put(number)
        answered: list[int] = []
        lost: list[int] = []
        threads = [
            threading.Thread(target=send, args=(url, work, answered, lost)) for _ in range(CLIENTS)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        rng = random.Random(given.seed)
        while any(thread.is_alive() for thread in threads):
            time.sleep(given.every)
            rng.choice([service, broker, hook]).kill()
        took = time.monotonic() - began
        database = folder / "data" / "records.sqlite"

        def rows(query: str) -> list[Any]:
            with sqlite3.connect(database, timeout=30) as connection:
                return connection.execute(query).fetchall()

        empty = until(lambda: rows("SELECT count(*) FROM outbox") == [(0,)], 180)
        time.sleep(2)
        client.loop_stop()
        service.process.terminate()
        service.process.wait()
        broker.process.kill()
        stored = [number for (number,) in rows("SELECT id FROM inspections")]
        audit = [sys.executable, "-m", "reconpatch.cli", "audit", "--data", str(folder / "data")]
        trail = subprocess.run(audit, capture_output=True, encoding="utf-8", check=False)
        wrong = report(
            given.photos, took, answered, stored, lost, hook, broker, service, by_mqtt, trail.stdout
        )
        if wrong or not empty or trail.returncode:
            print((folder / "service.log").read_text()[-3_000:], file=sys.stderr)
            raise SystemExit("something was lost")


def report(
    photos: int, took: float, answered: list[int], stored: list[int], lost: list[int], hook: Hook,
    broker: Killed, service: Killed, by_mqtt: list[tuple[str, int, bool]], trail: str,
) -> int:  # fmt: skip
    """Print what came of it; how much was lost that may not be."""
    print(f"{photos} photos in {took:.0f} s; killed: service {service.kills}, "
          f"broker {broker.kills}, receiver {hook.kills} times")  # fmt: skip
    missing = len(set(answered) - set(stored))
    print(f"answered {len(answered)}, sent again {len(lost)}, stored {len(stored)}; "
          f"answered and not stored {missing}")  # fmt: skip
    wrong = missing + len(answered) - len(set(answered))
    for name, got in (("webhook", hook.got), ("mqtt", by_mqtt)):
        verdicts = Counter(number for event, number, _ in got if event == "verdict")
        never = len(set(stored) - set(verdicts))
        again = sum(count - 1 for count in verdicts.values())
        seen: set[int] = set()
        unsaid = 0
        for event, number, sent_before in got:
            if event == "verdict":
                unsaid += number in seen and not sent_before
                seen.add(number)
        print(f"{name}: never arrived {never}, arrived again {again}, without saying so {unsaid}")
        wrong += never + unsaid if name == "webhook" else 0
    print(f"audit: {trail.strip()}")
    return wrong


if __name__ == "__main__":
    main()
