"""Outputs to the line: their configuration, who is told what, and that none holds up another."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from conftest import WAIT, textured
from reconpatch.errors import (
    LineError,
    MissingExtraError,
    NotFoundError,
    RefusedError,
    SettingsError,
)
from reconpatch.station.config import read_config
from reconpatch.station.outputs import dispatch
from reconpatch.station.outputs.dispatch import Outputs, OutputState
from reconpatch.station.outputs.message import Message, Status
from reconpatch.station.outputs.settings import (
    ModbusSettings,
    MqttSettings,
    OpcUaSettings,
    OutputSettings,
    WebhookSettings,
)
from reconpatch.station.records import Record, Records
from test_cli_station import refusal, serving
from test_outbox import FAILED
from test_records import GOOD, VERDICT
from test_station import png

SECRET = "0123456789abcdef"
READY = Status([], ["bottle"], 0)


# --- The configuration ---------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    path = folder / "station.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_names_the_outputs(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    config = read_config(
        write(
            tmp_path,
            """
            [outputs.erp]
            kind = "webhook"
            url = "https://me:password@erp.example:8443/verdicts?key=1"
            secret_file = "secret"
            only = "anomalous"
            products = ["bottle"]

            [outputs.broker]
            kind = "mqtt"
            host = "broker.example"
            tls = true
            port = 8883

            [outputs.lamp]
            kind = "modbus"
            host = "10.0.0.7"
            ok = 0
            ng = 1
            number = 5

            [outputs.plant]
            kind = "opcua"
            """,
        )
    )
    assert list(config.outputs) == ["erp", "broker", "lamp", "plant"]
    erp, broker, lamp, plant = config.outputs.values()
    assert isinstance(erp, WebhookSettings)
    assert erp.secret_file == tmp_path / "secret"
    assert (erp.kind, erp.address) == ("webhook", "https://erp.example:8443/verdicts")
    assert (erp.heartbeat, erp.timeout) == (0, 10)
    assert isinstance(broker, MqttSettings)
    assert (broker.address, broker.heartbeat) == ("mqtts://broker.example:8883/reconpatch", 5)
    assert isinstance(lamp, ModbusSettings)
    assert (lamp.coils, lamp.number) == ({"ok": 0, "ng": 1}, 5)
    assert (lamp.address, lamp.pulse) == ("modbus://10.0.0.7:502/1", 0.5)
    assert isinstance(plant, OpcUaSettings)
    assert plant.address == "opc.tcp://127.0.0.1:4840/reconpatch"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("outputs = 3", "outputs is no table of tables: write it as [outputs.NAME]"),
        (
            "inputs = 3",
            "has the key 'inputs', which is not known there: give cameras, outputs, page",
        ),
        ("[outputs.ERP]\nkind='mqtt'", "outputs has the name 'ERP': give 1 to 40 letters a to z"),
        ("[outputs.a]\nurl='x'", "outputs.a.kind is missing: give modbus, mqtt, opcua or webhook"),
        ("[outputs.a]\nkind='fax'", "outputs.a.kind is 'fax': give modbus, mqtt, opcua or webhook"),
        ("[outputs.a]\nkind='webhook'", "outputs.a.url is missing: give it"),
        ("[outputs.a]\nkind='webhook'\nurl='ftp://x'",
         "outputs.a.url is 'ftp://x': give an address that begins with http:// or https://"),
        ("[outputs.a]\nkind='webhook'\nulr='x'", "outputs.a has the key 'ulr'"),
        ("[outputs.a]\nkind='webhook'\nurl='http://x'\nsecret_file='none'",
         "outputs.a.secret_file is 'none': give a file that there is"),
        ("[outputs.a]\nkind='webhook'\nurl='http://x'\nsecret_file='short'",
         "outputs.a.secret_file is 'short': give a file with 16 or more characters"),
        ("[outputs.a]\nkind='mqtt'\nhost='x'\nport=0", "outputs.a.port is 0: give greater than"),
        ("[outputs.a]\nkind='mqtt'\nhost='x'\ntopic='a/#'", "outputs.a.topic is 'a/#'"),
        ("[outputs.a]\nkind='mqtt'\nhost='x'\npassword_file='lines'",
         "outputs.a.password_file is 'lines': give a file with one line, the secret"),
        ("[outputs.a]\nkind='mqtt'\nhost='x'\nonly='bad'",
         "outputs.a.only is 'bad': give 'all' or 'anomalous'"),
        ("[outputs.a]\nkind='modbus'\nhost='x'", "outputs.a: give the address of a coil"),
        ("[outputs.a]\nkind='modbus'\nhost='x'\nok=1\nng=1", "two coils have one address"),
        ("[outputs.a]\nkind='opcua'\nendpoint='http://x'",
         "outputs.a.endpoint is 'http://x': give an address such as opc.tcp://"),
        ("[outputs.a]\nkind='opcua'\nkey='short'", "a certificate needs its key: give both"),
        ("[outputs", "is not TOML"),
    ],
)  # fmt: skip
def test_an_error_names_file_key_what_was_given_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "short").write_text("123456789012345")
    (tmp_path / "lines").write_text("two\nlines")
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        read_config(path)
    assert said in str(raised.value)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml cannot be read .*give a TOML file"):
        read_config(tmp_path / "none.toml")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> Any:
        raise ModuleNotFoundError

    monkeypatch.setattr(dispatch, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"'reconpatch\[opcua\]'"):
        dispatch._maker("opcua")


# --- A receiver of webhooks ----------------------------------------------------------------------


class Receiver:
    """A web server that keeps what it is sent, and answers what it is told to."""

    def __init__(self) -> None:
        self.got: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.answers.pop(0) if receiver.answers else 204
                receiver.got.put(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def next(self) -> dict[str, Any]:
        """The next message; waits for it."""
        values: dict[str, Any] = json.loads(self.got.get(timeout=WAIT)[1])
        return values

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(tmp_path / "records.sqlite", "line-1")
    yield opened
    opened.close()


Opened = Callable[..., Outputs]


@pytest.fixture
def opened(records: Records, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens outputs, which are closed at the end; one that fails is tried again at once."""
    monkeypatch.setattr(dispatch, "_LONGEST_WAIT", 0.01)
    made: list[Outputs] = []

    def open_(status: Callable[[], Status] = lambda: READY, **settings: OutputSettings) -> Outputs:
        outputs = Outputs(settings, records, status)
        made.append(outputs)
        return outputs

    yield open_
    for outputs in made:
        outputs.close()


def webhook(receiver: Receiver, **options: Any) -> WebhookSettings:
    return WebhookSettings(url=receiver.url, **options)


def until(asked: Callable[[], bool]) -> None:
    """Wait until something is so."""
    pause = threading.Event()
    for _ in range(100 * WAIT):
        if asked():
            return
        pause.wait(0.01)
    raise AssertionError("it never came")


def state(outputs: Outputs, name: str) -> OutputState:
    [found] = [one for one in outputs.states() if one.name == name]
    return found


def test_a_verdict_is_told_with_its_record_and_signed(
    records: Records, receiver: Receiver, opened: Opened, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    outputs = opened(erp=webhook(receiver, secret_file=secret, headers={"x-plant": "7"}))
    [record] = records.add([VERDICT])
    headers, body = receiver.got.get(timeout=WAIT)
    values = json.loads(body)
    told = TypeAdapter(Record).dump_python(record, mode="json")
    assert values == {"event": "verdict", "station": "line-1", "sent_before": False, **told}
    assert headers["webhook-id"] == f"line-1-verdict-{record.id}"
    assert (headers["content-type"], headers["x-plant"]) == ("application/json", "7")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{right}"
    until(lambda: state(outputs, "erp").waiting == 0)
    assert (state(outputs, "erp").sent, state(outputs, "erp").state) == (1, "ok")


def test_a_photo_without_a_verdict_is_told_too(
    records: Records, receiver: Receiver, opened: Opened
) -> None:
    opened(erp=webhook(receiver))
    records.log.add_failures([FAILED])
    values = receiver.next()
    assert (values["event"], values["name"]) == ("failure", "cut.png")
    assert values["error"] == "the upload broke off"


def test_only_what_is_wanted_is_told(records: Records, receiver: Receiver, opened: Opened) -> None:
    opened(erp=webhook(receiver, only="anomalous", products=("bottle",)))
    from dataclasses import replace

    records.add([GOOD, replace(VERDICT, product="cap"), VERDICT])
    values = receiver.next()
    assert (values["product"], values["anomalous"]) == ("bottle", True)
    assert receiver.got.empty()
    assert records.outbox.waiting("erp", 10)[1:] == []


def test_a_receiver_that_was_away_is_told_everything_in_order(
    records: Records, receiver: Receiver, opened: Opened
) -> None:
    receiver.answers = [500, 404, 429, 302]
    outputs = opened(erp=webhook(receiver))
    first, second = records.add([VERDICT, GOOD])
    got = [receiver.next() for _ in range(6)]
    assert [one["id"] for one in got] == [first.id] * 5 + [second.id]
    assert [one["sent_before"] for one in got] == [False, True, True, True, True, False]
    until(lambda: state(outputs, "erp").state == "ok" and state(outputs, "erp").waiting == 0)


def test_a_failing_receiver_is_named_and_what_waits_is_counted(
    records: Records, receiver: Receiver, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_LONGEST_WAIT", 1e6)
    receiver.answers = [503, 503]
    outputs = opened(erp=webhook(receiver))
    records.add([VERDICT, GOOD])
    until(lambda: bool(outputs.failing()))
    assert "the receiver answered 503" in outputs.failing()["erp"]
    told = state(outputs, "erp")
    assert (told.state, told.waiting, told.sent) == ("failing", 2, 0)
    assert told.error == outputs.failing()["erp"]
    receiver.answers = []  # it is well again, but is not asked for a long time
    assert outputs.send_again("erp") == 0
    until(lambda: state(outputs, "erp").waiting == 0)
    assert outputs.failing() == {}


def test_a_refused_message_holds_up_no_other_and_is_sent_again_when_somebody_says_so(
    records: Records, receiver: Receiver, opened: Opened
) -> None:
    receiver.answers = [422]
    outputs = opened(erp=webhook(receiver))
    first, second = records.add([VERDICT, GOOD])
    assert [receiver.next()["id"] for _ in range(2)] == [first.id, second.id]
    until(lambda: state(outputs, "erp").waiting == 0)
    told = state(outputs, "erp")
    assert (told.state, told.refused, told.sent) == ("ok", 1, 1)
    assert "the receiver answered 422" in (told.reason or "")
    assert outputs.send_again("erp") == 1
    assert receiver.next()["id"] == first.id
    until(lambda: state(outputs, "erp").refused + state(outputs, "erp").waiting == 0)


def test_a_record_that_somebody_removed_by_hand_holds_up_no_other(
    records: Records, receiver: Receiver, opened: Opened
) -> None:
    records.outbox.outputs = {"erp": lambda *_: True}
    first, second = records.add([VERDICT, GOOD])
    with records._changing() as connection:
        connection.exec_driver_sql(f"DELETE FROM inspections WHERE id = {first.id}")
    outputs = opened(erp=webhook(receiver))
    assert receiver.next()["id"] == second.id
    until(lambda: state(outputs, "erp").waiting == 0)
    assert f"there is no record {first.id}" in (state(outputs, "erp").reason or "")


def test_one_broken_output_stops_no_other(
    records: Records, receiver: Receiver, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Stuck:
        keeps, fresh = True, None

        def __init__(self, *_: Any) -> None:
            reached.set()
            assert go_on.wait(WAIT)
            raise ZeroDivisionError

    maker = dispatch._maker
    monkeypatch.setattr(dispatch, "_maker", lambda kind: Stuck if kind == "mqtt" else maker(kind))
    outputs = opened(
        a=MqttSettings(host="x"),
        b=webhook(receiver),
        c=WebhookSettings(url="http://127.0.0.1:1/"),
    )
    assert reached.wait(WAIT)
    [record] = records.add([VERDICT])
    assert receiver.next()["id"] == record.id
    until(lambda: "does not answer" in outputs.failing().get("c", ""))
    assert state(outputs, "a").waiting == 1
    go_on.set()
    until(lambda: outputs.failing().get("a") == "see the service's log")


def test_what_was_not_written_down_is_sent_once_more_and_says_so(
    records: Records, receiver: Receiver, opened: Opened
) -> None:
    records.outbox.outputs = {"erp": lambda *_: True}
    [first] = records.add([VERDICT])  # by a process that was killed after it had sent it
    outputs = opened(erp=webhook(receiver))
    values = receiver.next()
    assert (values["id"], values["sent_before"]) == (first.id, True)
    [second] = records.add([GOOD])
    values = receiver.next()
    assert (values["id"], values["sent_before"]) == (second.id, False)
    outputs.close()
    assert records.outbox.waiting("erp", 10) == []


def test_what_waits_is_sent_when_the_service_stops(
    records: Records, receiver: Receiver, opened: Opened
) -> None:
    outputs = opened(erp=webhook(receiver))
    added = records.add([VERDICT] * 250)
    outputs.close()
    assert [receiver.next()["id"] for _ in added] == [one.id for one in added]
    assert receiver.got.empty()
    assert records.outbox.backlog() == {}


def test_messages_for_an_output_that_was_removed_are_told_and_can_be_forgotten(
    records: Records, opened: Opened, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    records.outbox.outputs = {"old": lambda *_: True}
    records.add([VERDICT])
    outputs = opened(erp=webhook(receiver))
    assert "1 messages wait for the output old" in caplog.text
    assert (state(outputs, "old").state, state(outputs, "old").waiting) == ("removed", 1)
    assert outputs.discard("old") == 1
    with pytest.raises(NotFoundError, match="no output 'old': give one of erp"):
        outputs.discard("old")


# --- Tests and heartbeats ------------------------------------------------------------------------


def test_a_test_is_sent_also_while_the_output_waits(
    records: Records, receiver: Receiver, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_LONGEST_WAIT", 1e6)
    outputs = opened(erp=webhook(receiver))
    receiver.answers = [503]
    with pytest.raises(LineError, match="the receiver answered 503"):
        outputs.test("erp")
    assert receiver.next()["event"] == "test"
    assert outputs.test("erp") > 0
    values = receiver.next()
    assert (values["event"], values["ready"], values["products"]) == ("test", True, ["bottle"])
    receiver.answers = [422]
    with pytest.raises(RefusedError, match="422"):
        outputs.test("erp")
    with pytest.raises(NotFoundError, match="no output 'x': give one of erp"):
        outputs.test("x")
    outputs.close()
    with pytest.raises(LineError, match="the service stops"):
        outputs.test("erp")


def test_a_heartbeat_stops_while_no_verdict_can_be_given(
    records: Records, receiver: Receiver, opened: Opened
) -> None:
    reasons: list[str] = []
    outputs = opened(
        lambda: Status(list(reasons), ["bottle"], 0), erp=webhook(receiver, heartbeat=0.01)
    )
    one, two = receiver.next(), receiver.next()
    assert [one["event"], two["event"]] == ["heartbeat", "heartbeat"]
    assert two["id"] == one["id"] + 1
    reasons.append("the disk is full")
    while (values := receiver.next())["event"] == "heartbeat":
        pass
    assert (values["event"], values["reasons"]) == ("not_ready", ["the disk is full"])
    records.add([VERDICT])  # thereafter no heartbeat came, but what there is to say is said
    assert receiver.next()["event"] == "verdict"
    reasons.clear()
    assert receiver.next()["event"] == "heartbeat"
    outputs.close()
    while (values := receiver.next())["event"] == "heartbeat":
        pass
    assert values["reasons"] == ["the service stops"]


# --- Outputs that show the present state ---------------------------------------------------------


class Shown:
    """Shows what it is told, unless it is broken."""

    keeps = False
    fresh: float | None = None
    broken = False
    told: queue.Queue[Message]

    def __init__(self, *_: Any) -> None:
        if type(self).broken:
            raise LineError("it is broken: mend it")

    def send(self, message: Message) -> None:
        self.told.put(message)

    def idle(self) -> None:
        return None

    def close(self) -> None:
        pass


@pytest.mark.parametrize("fresh", [None, 0.0])
def test_an_output_that_keeps_nothing_is_not_told_what_is_past(
    records: Records, opened: Opened, monkeypatch: pytest.MonkeyPatch, fresh: float | None
) -> None:
    monkeypatch.setattr(Shown, "told", queue.Queue(), raising=False)
    monkeypatch.setattr(Shown, "broken", True)
    monkeypatch.setattr(dispatch, "_LONGEST_WAIT", 1e6)
    monkeypatch.setattr(dispatch, "_maker", lambda _: Shown)
    outputs = opened(lamp=ModbusSettings(host="x", ok=0, heartbeat=0))
    records.add([VERDICT])
    until(lambda: outputs.failing() == {"lamp": "it is broken: mend it"})
    outputs._threads["lamp"]._fresh = fresh
    records.add([GOOD, GOOD])
    monkeypatch.setattr(Shown, "broken", False)
    outputs.send_again("lamp")
    until(lambda: state(outputs, "lamp").skipped + state(outputs, "lamp").sent == 3)
    # The first was lost on the way; the others were too old for one, and for the other not.
    assert state(outputs, "lamp").skipped == (1 if fresh is None else 3)
    assert Shown.told.qsize() == (2 if fresh is None else 0)
    assert records.outbox.backlog() == {}
    with suppress(queue.Empty):
        assert Shown.told.get_nowait().verdict == "good"


# --- The service ---------------------------------------------------------------------------------


def test_the_command_reads_the_file_and_tells_of_each_verdict(
    small_model_file: Path, receiver: Receiver, tmp_path: Path
) -> None:
    model = shutil.copy(small_model_file, tmp_path / "disc.rcp")
    config = write(tmp_path, f"[outputs.erp]\nkind='webhook'\nurl='{receiver.url}'")
    options = ("--data", tmp_path / "data", "--port", 0, "--threads", 1, "--config", config)
    with serving(model, *options) as (process, url):
        answer = httpx.post(f"{url}/api/v1/inspect", content=png(textured(1)), timeout=WAIT)
        assert receiver.next()["id"] == answer.json()["id"]
        lost = httpx.post(f"{url}/api/v1/inspect", content=b"no photo", timeout=WAIT)
        assert lost.status_code == 422
        assert receiver.next()["event"] == "failure"
        failed = httpx.post(f"{url}/api/v1/outputs/lamp/test", timeout=WAIT)
        assert (failed.status_code, failed.json()) == (
            404, {"error": "there is no output 'lamp': give one of erp"},
        )  # fmt: skip
        assert httpx.get(f"{url}/api/v1/health", timeout=WAIT).json()["status"] == "ok"
        process.terminate()
        process.communicate(timeout=WAIT)
    with Records(tmp_path / "data" / "records.sqlite", "x")._reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM outbox").scalar() == 0


def test_the_command_refuses_a_file_that_is_wrong(tmp_path: Path) -> None:
    config = write(tmp_path, "[outputs.erp]\nkind='fax'")
    assert "outputs.erp.kind is 'fax': give" in refusal("--config", config)
    assert not (tmp_path / "reconpatch-data").exists()
