"""How long after a verdict its message arrives, by output: webhook, MQTT, Modbus, OPC UA.

The time of the record, taken when the inspection ended and before it was committed, is compared
with the clock when the message has arrived at a receiver of this process. The broker is mosquitto.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import socketserver
import statistics
import struct
import subprocess
import tempfile
import threading
import time
import urllib.request
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from asyncua.sync import Client
from serving import photo, serving, small_model

Arrivals = dict[str, dict[int, float]]
arrived: Arrivals = {name: {} for name in ("webhook", "mqtt", "modbus", "opcua")}


def note(output: str, number: int) -> None:
    """Keep when a record's message arrived first."""
    arrived[output].setdefault(number, time.time())


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        note("webhook", json.loads(body)["id"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Device(socketserver.StreamRequestHandler):
    """Modbus TCP: answers each write with itself; 9 is the register with the record's number."""

    number = 0

    def handle(self) -> None:
        while header := self.rfile.read(7):
            pdu = self.rfile.read(struct.unpack(">HHHB", header)[2] - 1)
            self.wfile.write(header + pdu)
            function, address, value = struct.unpack(">BHH", pdu)
            if (function, address) == (6, 9):
                self.number = value
            elif (function, value) == (5, 0xFF00) and address in (0, 1):
                note("modbus", self.number)


class Values:
    """A subscriber of OPC UA."""

    def datachange_notification(self, _: Any, value: int, __: Any) -> None:
        note("opcua", value)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def until(asked: Any) -> None:
    """Wait up to a minute until something is so."""
    end = time.monotonic() + 60
    while not asked():
        if time.monotonic() > end:
            raise SystemExit("it did not come within a minute")
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def configuration(folder: Path, hook: int, broker: int, device: int, plant: int) -> Path:
    path = folder / "station.toml"
    path.write_text(
        f"""
        [outputs.webhook]
        kind = "webhook"
        url = "http://127.0.0.1:{hook}/"
        [outputs.mqtt]
        kind = "mqtt"
        host = "127.0.0.1"
        port = {broker}
        [outputs.modbus]
        kind = "modbus"
        host = "127.0.0.1"
        port = {device}
        ok = 0
        ng = 1
        number = 9
        [outputs.opcua]
        kind = "opcua"
        endpoint = "opc.tcp://127.0.0.1:{plant}/reconpatch"
        """
    )
    return path


def subscribed(broker: int) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _, __, message: note("mqtt", json.loads(message.payload)["id"])
    client.connect("127.0.0.1", broker)
    client.subscribe("reconpatch/+/verdict/#", qos=1)
    client.loop_start()
    return client


def measure(url: str, photos: int, pause: float, side: int) -> tuple[dict[int, float], list[float]]:
    """The time of each record by its number, and the seconds from its time to its answer."""
    times, answers = {}, []
    files = [photo(seed, side) for seed in range(16)]
    for i in range(photos):
        asked = urllib.request.Request(f"{url}/api/v1/inspect", files[i % 16], method="POST")
        with urllib.request.urlopen(asked, timeout=60) as answer:
            record = json.load(answer)
        times[record["id"]] = datetime.fromisoformat(record["time"]).timestamp()
        answers.append(time.time() - times[record["id"]])
        time.sleep(pause)
    return times, answers


def row(name: str, seconds: list[float], photos: int) -> str:
    ms = sorted(1000 * s for s in seconds)
    cuts = statistics.quantiles(ms, n=100, method="inclusive")
    return f"{name:8} {len(ms):6} of {photos}   {cuts[49]:6.1f} {cuts[98]:6.1f} {ms[-1]:6.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two")
    parser.add_argument("--side", type=int, default=256, help="of a photo, in pixels")
    given = parser.parse_args()
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if mosquitto is None:
        raise SystemExit("there is no mosquitto: on Debian, apt-get install mosquitto")
    hook = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    device = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Device)
    device.daemon_threads = True
    for server in (hook, device):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    broker, plant = free_port(), free_port()
    process = subprocess.Popen([mosquitto, "-p", str(broker)], stderr=subprocess.DEVNULL)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            small_model(folder / "part.rcp", given.side)
            config = configuration(
                folder, hook.server_port, broker, device.server_address[1], plant
            )
            until(lambda: listens(broker))
            options = ("--data", folder / "data", "--port", 0, "--config", config)
            with serving(folder / "part.rcp", *options, log=folder / "log") as (_, url):
                until(lambda: listens(plant))
                client = subscribed(broker)
                with Client(f"opc.tcp://127.0.0.1:{plant}/reconpatch") as values:
                    space = values.get_namespace_index("urn:reconpatch")
                    node = values.get_node(f"ns={space};s=ReConPatch/part/Id")
                    subscription = values.create_subscription(1, Values())
                    subscription.subscribe_data_change(node, queuesize=1_000)
                    times, answers = measure(url, given.photos, given.pause, given.side)
                    until(lambda: all(set(times) <= set(got) for got in arrived.values()))
                client.loop_stop()
    finally:
        process.kill()
    print(f"{'':8} {'arrived':>6}      50 % and 99 % below, most: milliseconds after the verdict")
    for output, got in arrived.items():
        late = [got[number] - at for number, at in times.items()]
        print(row(output, late, given.photos))
    print(row("answer", answers, given.photos))


if __name__ == "__main__":
    main()
