"""What outputs say on the wire: to a real MQTT broker, a Modbus device, and OPC UA clients."""

from __future__ import annotations

import json
import queue
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import WAIT
from reconpatch.errors import LineError
from reconpatch.station.outputs import dispatch
from reconpatch.station.outputs.message import about, of_status
from reconpatch.station.outputs.settings import ModbusSettings, MqttSettings, OpcUaSettings
from reconpatch.station.records import Record, Records
from test_outbox import FAILED
from test_outputs import READY, Opened, Status, opened, records, state, until  # noqa: F401
from test_records import GOOD, VERDICT

STOPPED = Status(["the disk is full"], ["bottle"], 0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def record(number: int, *, anomalous: bool) -> Record:
    verdict = VERDICT if anomalous else GOOD
    return Record(**vars(verdict), id=number, feedback=None, feedback_time=None)


# --- MQTT ----------------------------------------------------------------------------------------

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Broker:
    """A mosquitto of our own, which knows one user; killed and started again as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        users = folder / "users"
        users.write_text("line:0123456789\n")
        subprocess.run(["mosquitto_passwd", "-U", users], check=True, timeout=WAIT)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\n"
            "user root\n"
        )
        (folder / "password").write_text("0123456789\n")
        self.settings = MqttSettings(
            host="127.0.0.1", port=self.port, topic="plant/7", username="line", timeout=30,
            password_file=folder / "password", heartbeat=0,
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        command = [MOSQUITTO, "-c", self._config]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip("no MQTT broker: on Debian, apt-get install mosquitto")
    made = Broker(tmp_path)
    yield made
    made.kill()


class Subscriber:
    """A client of the broker that hears everything below a topic."""

    def __init__(self, broker: Broker) -> None:
        import paho.mqtt.client as mqtt

        self.got: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        there = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)  # type: ignore[attr-defined]
        self.client.username_pw_set("line", "0123456789")
        self.client.on_message = lambda _, __, m: self.got.put((m.topic, m.payload, m.retain))
        self.client.on_subscribe = lambda *_: there.set()
        self.client.connect("127.0.0.1", broker.port)
        self.client.subscribe("plant/7/#", qos=1)
        self.client.loop_start()
        assert there.wait(WAIT)

    def next(self) -> tuple[str, bytes]:
        topic, body, _ = self.got.get(timeout=WAIT)
        return topic, body

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    made = Subscriber(broker)
    yield made
    made.close()


def test_verdicts_are_published_by_product(
    records: Records,  # noqa: F811
    opened: Opened,  # noqa: F811
    broker: Broker,
    subscriber: Subscriber,
) -> None:
    outputs = opened(broker=broker.settings)
    [added] = records.add([VERDICT])
    topic, body = subscriber.next()
    assert topic == "plant/7/line-1/verdict/bottle"
    assert (json.loads(body)["id"], json.loads(body)["anomalous"]) == (added.id, True)
    records.log.add_failures([FAILED])
    assert subscriber.next()[0] == "plant/7/line-1/failure/bottle"
    assert outputs.test("broker") > 0
    assert subscriber.next()[0] == "plant/7/line-1/test"


def test_the_broker_says_whether_the_station_is_ready(broker: Broker) -> None:
    from reconpatch.station.outputs.mqtt import Mqtt

    def said() -> tuple[str, bytes, bool]:
        late = Subscriber(broker)  # what a broker keeps is told to whoever comes later
        found = late.got.get(timeout=WAIT)
        late.close()
        return found

    status = "plant/7/line-1/status"
    sender = Mqtt(broker.settings, "line-1")
    sender.send(of_status("heartbeat", "line-1", READY, 1))
    assert said() == (status, b"ready", True)
    sender.send(of_status("not_ready", "line-1", STOPPED, 1))
    assert said() == (status, b"not ready", True)
    sender.send(of_status("heartbeat", "line-1", READY, 2))
    assert sender.idle() is not None
    watching = Subscriber(broker)
    assert watching.got.get(timeout=WAIT)[1] == b"ready"
    sender._client.socket().shutdown(socket.SHUT_RDWR)  # the station's power goes
    sender._client.loop_stop()
    assert watching.next() == (status, b"gone")
    watching.close()
    sender = Mqtt(broker.settings, "line-1")
    sender.send(of_status("heartbeat", "line-1", READY, 1))
    sender.close()
    assert said() == (status, b"gone", True)


def test_a_broker_that_was_killed_gets_everything_when_it_is_back(
    records: Records,  # noqa: F811
    opened: Opened,  # noqa: F811
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "_LONGEST_WAIT", 1e6)
    outputs = opened(broker=broker.settings)
    records.add([VERDICT])
    until(lambda: state(outputs, "broker").sent == 1)
    broker.kill()
    added = records.add([GOOD] * 20)
    until(lambda: "broker" in outputs.failing())
    assert "the broker" in outputs.failing()["broker"]
    broker.start()
    listening = Subscriber(broker)
    outputs.send_again("broker")
    got = [json.loads(listening.next()[1])["id"] for _ in added]
    assert got == [one.id for one in added]
    listening.close()
    until(lambda: state(outputs, "broker").waiting == 0)
    assert outputs.failing() == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"username": "other"}, "does not let the station in"),
        ({"port": 1}, "the broker does not answer"),
        ({"tls": True}, "the broker does not answer"),
    ],
)
def test_a_broker_that_cannot_be_used(broker: Broker, change: dict[str, Any], said: str) -> None:
    from reconpatch.station.outputs.mqtt import Mqtt

    before = threading.active_count()
    with pytest.raises(LineError, match=said):
        Mqtt(broker.settings.model_copy(update=change), "line-1")
    until(lambda: threading.active_count() <= before)


# --- Modbus --------------------------------------------------------------------------------------


class Device:
    """A Modbus TCP device of 16 coils and 16 registers, as the specification says, by hand.

    A request is a header (transaction, 0, length, unit) and a PDU (function, address, value); the
    answer to a write is the request itself, or its function + 128 and the code of an error.
    """

    def __init__(self) -> None:
        self.writes: queue.Queue[tuple[str, int, int]] = queue.Queue()
        self.refuses: set[int] = set()
        device = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while header := self.rfile.read(7):
                    transaction, _, length, unit = struct.unpack(">HHHB", header)
                    pdu = self.rfile.read(length - 1)
                    function, address, value = struct.unpack(">BHH", pdu)
                    assert (unit, function in (5, 6)) == (3, True)
                    if address in device.refuses:
                        pdu = bytes([function + 128, 2])  # there is no such address
                    elif function == 5:
                        device.writes.put(("coil", address, value))
                    else:
                        device.writes.put(("register", address, value))
                    answer = struct.pack(">HHHB", transaction, 0, 1 + len(pdu), unit) + pdu
                    self.wfile.write(answer)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def next(self, count: int) -> list[tuple[str, int, int]]:
        """The next writes: what, its address and the value."""
        return [self.writes.get(timeout=WAIT) for _ in range(count)]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device()
    yield made
    made.stop()


ON, OFF = 0xFF00, 0
CLEARED = [("coil", 0, OFF), ("coil", 1, OFF), ("coil", 2, OFF)]


def lamp(device: Device, **options: Any) -> ModbusSettings:
    given = {"ok": 0, "ng": 1, "no_verdict": 2, "ready": 3, "alive": 4, "number": 9, "pulse": 0}
    given |= {"heartbeat": 0, "timeout": 30, **options}
    return ModbusSettings(host="127.0.0.1", port=device.port, unit=3, **given)


def test_coils_say_ok_ng_no_verdict_and_ready(device: Device) -> None:
    from reconpatch.station.outputs.modbus import Modbus

    sender = Modbus(lamp(device), "line-1")
    assert device.next(3) == CLEARED
    sender.send(about(record(5, anomalous=True), "line-1"))
    assert device.next(5) == [*CLEARED, ("register", 9, 5), ("coil", 1, ON)]
    sender.send(about(record(65_536 + 6, anomalous=False), "line-1"))
    assert device.next(5) == [*CLEARED, ("register", 9, 6), ("coil", 0, ON)]
    assert sender.idle() is None  # it stays until the next
    sender.send(about(replace(FAILED, id=1), "line-1"))
    assert device.next(4) == [*CLEARED, ("coil", 2, ON)]
    for value in (ON, OFF, ON):
        sender.send(of_status("heartbeat", "line-1", READY, 1))
        assert device.next(2) == [("coil", 3, ON), ("coil", 4, value)]
    sender.send(of_status("not_ready", "line-1", STOPPED, 1))
    assert device.next(4) == [*CLEARED, ("coil", 3, OFF)]
    sender.close()
    assert device.writes.empty()


def test_a_pulse_ends_by_itself(
    records: Records,  # noqa: F811
    opened: Opened,  # noqa: F811
    device: Device,
) -> None:
    opened(lamp=lamp(device, pulse=0.001, ready=None, alive=None, number=None))
    records.add([GOOD])
    assert device.next(10) == [*CLEARED, *CLEARED, ("coil", 0, ON), *CLEARED]


def test_a_device_that_is_away_and_comes_back_is_not_told_what_is_past(
    records: Records,  # noqa: F811
    opened: Opened,  # noqa: F811
    device: Device,
) -> None:
    outputs = opened(lamp=lamp(device))
    device.refuses = {0}
    records.add([GOOD])
    until(lambda: "lamp" in outputs.failing())
    assert "the device refused address 0" in outputs.failing()["lamp"]
    device.refuses = set()
    assert outputs.test("lamp") > 0
    assert device.next(5) == [*CLEARED, ("coil", 3, ON), ("coil", 4, ON)]
    assert state(outputs, "lamp").skipped == 1


def test_a_device_that_is_not_there(device: Device) -> None:
    from reconpatch.station.outputs.modbus import Modbus

    settings = lamp(device)
    with pytest.raises(LineError, match="the device does not answer"):
        Modbus(settings.model_copy(update={"port": free_port()}), "line-1")


# --- OPC UA --------------------------------------------------------------------------------------


@pytest.fixture
def plant() -> OpcUaSettings:
    endpoint = f"opc.tcp://127.0.0.1:{free_port()}/reconpatch"
    return OpcUaSettings(endpoint=endpoint, heartbeat=0, timeout=WAIT)


def read(client: Any, *names: str) -> list[Any]:
    space = client.get_namespace_index("urn:reconpatch")
    nodes = [client.get_node(f"ns={space};s=ReConPatch/{name}") for name in names]
    return [node.read_value() for node in nodes]


def test_a_client_reads_and_hears_the_newest_verdict(plant: OpcUaSettings) -> None:
    from asyncua.sync import Client
    from asyncua.ua import UaStatusCodeError

    from reconpatch.station.outputs.opcua import OpcUa

    heard: queue.Queue[int] = queue.Queue()

    class Handler:
        def datachange_notification(self, _: Any, value: int, __: Any) -> None:
            heard.put(value)

    sender = OpcUa(plant, "line-1")
    sender.send(of_status("heartbeat", "line-1", READY, 1))
    with Client(plant.endpoint, timeout=WAIT) as client:
        assert read(client, "Ready", "Heartbeat", "bottle/Verdict") == [True, 1, "none"]
        space = client.get_namespace_index("urn:reconpatch")
        number = client.get_node(f"ns={space};s=ReConPatch/bottle/Id")
        subscription = client.create_subscription(10, Handler())
        subscription.subscribe_data_change(number, queuesize=100)
        assert heard.get(timeout=WAIT) == 0
        for i in (5, 6, 7):
            message = about(record(i, anomalous=i == 7), "line-1")
            sender.send(message)
        assert [heard.get(timeout=WAIT) for _ in range(3)] == [5, 6, 7]
        names = [f"bottle/{name}" for name in (
            "Verdict", "Score", "Threshold", "PValue", "Name", "Version", "Inspected", "Anomalous",
            "Failed", "Message",
        )]  # fmt: skip
        assert read(client, *names) == [
            "anomalous", 3.25, 2.5, 0.125, "part001.png", 1, 3, 1, 0, message.body.decode(),
        ]  # fmt: skip
        sender.send(about(replace(FAILED, id=1), "line-1"))
        assert read(client, "bottle/Verdict", "bottle/Failed", "bottle/Id") == ["none", 1, 7]
        sender.send(of_status("not_ready", "line-1", STOPPED, 1))
        assert read(client, "Ready", "Reasons", "Heartbeat") == [False, "the disk is full", 1]
        with pytest.raises(UaStatusCodeError, match="does not have permission"):
            number.write_value(9)
    sender.close()


def test_an_endpoint_that_is_taken_is_tried_again(
    records: Records,  # noqa: F811
    opened: Opened,  # noqa: F811
    plant: OpcUaSettings,
) -> None:
    from asyncua.sync import Client

    port = int(plant.endpoint.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        outputs = opened(plant=plant)
        records.add([VERDICT])
        until(lambda: "cannot listen" in outputs.failing().get("plant", ""))
    [added] = records.add([GOOD])
    until(lambda: not outputs.failing() and state(outputs, "plant").sent > 0)
    with Client(plant.endpoint, timeout=WAIT) as client:
        assert read(client, "bottle/Id", "bottle/Verdict") == [added.id, "good"]


def test_with_a_certificate_only_encrypted_connections_are_taken(
    plant: OpcUaSettings, tmp_path: Path
) -> None:
    from asyncua.sync import Client
    from asyncua.ua import UaError

    from reconpatch.station.outputs.opcua import OpcUa

    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no certificate can be made: there is no openssl")
    make = (
        "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=line -keyout key.pem -out cert.pem "
        "-addext subjectAltName=URI:urn:test:client,DNS:localhost"
    )
    subprocess.run([openssl, *make.split()], check=True, cwd=tmp_path, capture_output=True)
    pair = {"certificate": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    sender = OpcUa(plant.model_copy(update=pair), "line-1")
    with pytest.raises(UaError), Client(plant.endpoint, timeout=WAIT):
        pass
    client = Client(plant.endpoint, timeout=WAIT)
    client.application_uri = "urn:test:client"
    client.set_security_string(
        f"Basic256Sha256,SignAndEncrypt,{tmp_path / 'cert.pem'},{tmp_path / 'key.pem'}"
    )
    with client:
        assert read(client, "Ready") == [False]
    sender.close()
