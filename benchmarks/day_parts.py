"""What stands around a station in `day.py`, and can be taken down and come back."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import pwd
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import paho.mqtt.client as mqtt
from asyncua.sync import Client
from outputs import free_port, listens

sys.path.append(str(Path(__file__).parents[1] / "tests" / "station"))
from streams import RtspCamera

# What it says of a server that is away.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)

# Seconds for which what was taken down is away.
AWAY = 1.0

Told = tuple[str, int, bool]
"""Of a message: its event, the number of its record, and whether it says that it comes again."""


def until(asked: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not asked():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Part(Protocol):
    """Something that can be taken down."""

    kills: int

    def kill(self) -> None:
        """Take it down, and bring it back."""


class Program:
    """A program that is killed (SIGKILL) and started again on the same port."""

    def __init__(
        self,
        command: Sequence[object],
        port: int,
        log: Path,
        answers: Callable[[int], bool] = listens,
    ) -> None:
        self._command, self._port, self._log = [*map(str, command)], port, log
        self._answers = answers
        self.kills = 0
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as said:
            self.process = subprocess.Popen(self._command, stdout=said, stderr=said)
        until(lambda: self._answers(self._port), 300)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.kills += 1
        time.sleep(AWAY)
        self.start()


def is_healthy(port: int) -> bool:
    """Whether a station listens and is ready: it listens before it has read its models."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=5):
            return True
    except (OSError, http.client.HTTPException):
        return False


class Memory(threading.Thread):
    """Notes the memory of a program, whichever process it is, every second."""

    def __init__(self, program: Program) -> None:
        super().__init__(daemon=True)
        self._program = program
        self.megabytes: dict[int, list[float]] = {}

    def run(self) -> None:
        while True:
            pid = self._program.process.pid
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        self.megabytes.setdefault(pid, []).append(int(line.split()[1]) / 1024)
            time.sleep(1)


class Postgres:
    """A server of our own, which is taken down without a shutdown: it recovers from its log."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self.kills = 0
        folder.mkdir()
        self._account: dict[str, Any] = {}
        if os.getuid() == 0:  # it refuses to run as root
            who = pwd.getpwnam("postgres")
            os.chown(folder, who.pw_uid, who.pw_gid)
            self._account = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
        self._call("initdb", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C")
        self._start()
        self.url = f"postgresql://postgres@/postgres?host={folder}"

    def _call(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, "-D", self._folder / "data", *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, cwd=self._folder, **quiet, **self._account)

    def _start(self) -> None:
        local = f"-k {self._folder} -c listen_addresses="
        self._call("pg_ctl", "start", "-w", "-l", str(self._folder / "log"), "-o", local)

    def kill(self) -> None:
        self.stop()
        self.kills += 1
        time.sleep(AWAY)
        self._start()

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "-m", "immediate")


class Camera(RtspCamera):
    """An RTSP camera that can be switched off."""

    def __init__(self, frame: Callable[[int], npt.NDArray[np.uint8]]) -> None:
        self.kills = 0
        super().__init__(frame)

    def kill(self) -> None:
        self.switch_off()
        self.kills += 1
        time.sleep(AWAY)
        self.switch_on()


class Hook:
    """A receiver of webhooks that can be away."""

    def __init__(self) -> None:
        self.port, self.kills = free_port(), 0
        self.got: list[Told] = []
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
        self._server.handle_error = lambda *_: None  # a station that was killed hangs up
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kill(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.kills += 1
        time.sleep(AWAY)
        self.start()


def subscribed(port: int, got: list[Told]) -> mqtt.Client:
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


class OpcUaClient(threading.Thread):
    """Reads the newest record of each product five times a second, and connects again."""

    def __init__(self, port: int, products: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._port, self._products = port, products
        self.last: dict[str, int] = {}
        self.values = self.connections = 0

    def run(self) -> None:
        while True:
            address = f"opc.tcp://127.0.0.1:{self._port}/reconpatch"
            with contextlib.suppress(Exception), Client(address) as client:  # it comes back
                self.connections += 1
                self._read(client)
            time.sleep(0.5)

    def _read(self, client: Client) -> None:
        space = client.get_namespace_index("urn:reconpatch")
        nodes = {
            name: client.get_node(f"ns={space};s=ReConPatch/{name}/Id") for name in self._products
        }
        while True:
            for name, node in nodes.items():
                if (number := int(node.read_value())) != self.last.get(name):
                    self.last[name], self.values = number, self.values + 1
            time.sleep(0.2)
