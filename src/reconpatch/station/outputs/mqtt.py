"""Messages to an MQTT broker (3.1.1), each with QoS 1: the broker has said that it has it.

TOPIC/STATION/verdict/PRODUCT     a verdict
TOPIC/STATION/failure/PRODUCT     a photo without a verdict
TOPIC/STATION/heartbeat           while verdicts can be given
TOPIC/STATION/test                a test
TOPIC/STATION/status              kept by the broker: "ready", "not ready", or "gone", which the
                                  broker says by itself when the station does not answer it
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from reconpatch.errors import LineError
from reconpatch.station.outputs.message import Message
from reconpatch.station.outputs.settings import BrokerSettings, MqttSettings, read_secret

READY, NOT_READY, GONE = b"ready", b"not ready", b"gone"
# Seconds without a word after which the broker holds the station for gone, times 1.5.
_KEEP_ALIVE = 10


def client_of(settings: BrokerSettings) -> mqtt.Client:
    """A client that is not connected yet.

    Raises:
        OSError, ValueError: its certificates cannot be used.
    """
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    if settings.username is not None:
        file = settings.password_file
        client.username_pw_set(settings.username, None if file is None else read_secret(file))
    if settings.tls:
        ca = None if settings.ca_file is None else str(settings.ca_file)
        client.tls_set_context(ssl.create_default_context(cafile=ca))
    return client


class Mqtt:
    """A connection to a broker.

    Raises:
        LineError: it cannot be reached, or does not let the station in.
    """

    keeps, fresh = True, None

    def __init__(self, settings: MqttSettings, station: str) -> None:
        self._settings = settings
        self._topic = f"{settings.topic}/{station}"
        self._answered = threading.Event()
        self._refused: str | None = None
        self._said = b""
        try:
            self._client = client = client_of(settings)
            client.connect_timeout = settings.timeout
            client.on_connect = self._connected
            client.will_set(f"{self._topic}/status", GONE, qos=1, retain=True)
            client.connect(settings.host, settings.port, keepalive=_KEEP_ALIVE)
        except (OSError, ValueError) as error:
            raise LineError(
                f"the broker does not answer ({error}): check that it runs, and its address"
            ) from error
        client.loop_start()
        if not self._answered.wait(settings.timeout) or self._refused is not None:
            self._stop()
            why = self._refused or "it said nothing"
            raise LineError(f"the broker does not let the station in ({why}): check its log")

    def _connected(self, _: Any, __: Any, ___: Any, reason: Any, *____: Any) -> None:
        if reason.is_failure:
            self._refused = str(reason)
        self._answered.set()

    def send(self, message: Message) -> None:
        """Publish it, and wait until the broker has it."""
        if message.event in ("verdict", "failure"):
            self._publish(f"{message.event}/{message.product}", message.body)
            return
        if message.event == "not_ready":
            self._say(NOT_READY)
            return
        if message.event == "heartbeat":
            self._say(READY)
        self._publish(message.event, message.body)

    def _say(self, status: bytes) -> None:
        if status != self._said:
            self._publish("status", status, retain=True)
            self._said = status

    def _publish(self, topic: str, body: bytes, *, retain: bool = False) -> None:
        taken = self._client.publish(f"{self._topic}/{topic}", body, qos=1, retain=retain)
        with contextlib.suppress(RuntimeError, ValueError):
            if taken.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                taken.wait_for_publish(self._settings.timeout)
        if taken.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or not taken.is_published():
            raise LineError(
                f"the broker did not take a message in {self._settings.timeout:g} s: check that "
                "it runs"
            )

    def idle(self) -> float | None:
        """Find out whether the broker is still there."""
        if not self._client.is_connected():
            raise LineError("the broker has gone: check that it runs")
        return 1.0

    def close(self) -> None:
        """Say goodbye; whoever asks the broker learns that the station has gone."""
        with contextlib.suppress(LineError):
            if self._client.is_connected():
                self._say(GONE)
        self._stop()

    def _stop(self) -> None:
        # Before the thread, or it would connect once more and send what was not taken.
        self._client.disconnect()
        self._client.loop_stop()
