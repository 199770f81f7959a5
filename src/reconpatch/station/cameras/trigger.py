"""Messages of an MQTT topic, each of which has a photo taken.

The text of a message is the serial number of the part, or nothing. A message that the
broker has kept (retained) says nothing of now and is passed over, and so is what was sent while the
station was away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from reconpatch.errors import MissingExtraError, SettingsError
from reconpatch.station.cameras.settings import TriggerSettings

log = logging.getLogger("reconpatch.cameras")

_KEEP_ALIVE = 10
_LONGEST_PAUSE = 15


class MqttTrigger:
    """Listens to a topic; a broker that is away is tried again by itself.

    Args:
        settings: of the broker and the topic.
        camera: name of the camera.
        heard: called for each message with its text; it is not to wait.

    Attributes:
        error: why no message can come, or None.

    Raises:
        MissingExtraError: the extra mqtt is not installed.
        SettingsError: its certificates cannot be used.
    """

    def __init__(
        self, settings: TriggerSettings, camera: str, heard: Callable[[str], None]
    ) -> None:
        try:
            from reconpatch.station.outputs.mqtt import client_of
        except ModuleNotFoundError as error:
            raise MissingExtraError("a trigger by message", "mqtt") from error
        self._settings, self._camera, self._heard = settings, camera, heard
        self.error: str | None = f"the broker {settings.broker} has not answered yet"
        try:
            self._client = client = client_of(settings)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"the trigger of the camera {camera} cannot use TLS ({error}): check its ca_file"
            ) from error
        client.on_connect = self._connected
        client.on_connect_fail = self._away
        client.on_disconnect = self._away
        client.on_subscribe = self._subscribed
        client.on_message = self._message
        client.reconnect_delay_set(1, _LONGEST_PAUSE)

    def start(self) -> None:
        """Begin to listen."""
        self._client.connect_async(self._settings.host, self._settings.port, _KEEP_ALIVE)
        self._client.loop_start()

    def close(self) -> None:
        """Listen no more."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: Any, _: Any, __: Any, reason: Any, *___: Any) -> None:
        if reason.is_failure:
            self._fails(
                f"the broker {self._settings.broker} does not let the station in ({reason})"
            )
            return
        client.subscribe(self._settings.topic, qos=1)

    def _subscribed(self, _: Any, __: Any, ___: Any, reasons: Any, *____: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._fails(f"the broker {self._settings.broker} refuses the topic: check its rights")
        else:
            self.error = None

    def _away(self, *_: Any) -> None:
        self._fails(f"the broker {self._settings.broker} does not answer: check that it runs")

    def _fails(self, why: str) -> None:
        if self.error != why:
            log.warning("the trigger of the camera %s fails: %s", self._camera, why)
        self.error = why

    def _message(self, _: Any, __: Any, message: Any) -> None:
        if not message.retain:
            self._heard(message.payload.decode("utf-8", "replace"))
