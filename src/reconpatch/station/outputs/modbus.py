"""Coils of a Modbus TCP device: one for a good part, one for an anomalous one, one for ready.

The coil of a photo goes on, with the number of its record in a register before that, and off again
after the pulse or with the next photo. A photo without a verdict turns both off. `ready` is on and
`alive` changes with each heartbeat while verdicts can be given; a device that sees no change for a
few heartbeats knows that none can, whatever the other coils are. What is past is never shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from reconpatch.errors import LineError
from reconpatch.station.outputs.message import Message
from reconpatch.station.outputs.settings import ModbusSettings

_OF_PHOTO = ("ok", "ng", "no_verdict")
_COIL_OF = {"good": "ok", "anomalous": "ng", "none": "no_verdict"}


class Modbus:
    """A connection to a device; all coils of a photo are off when it begins.

    Raises:
        LineError: it cannot be reached.
    """

    keeps, fresh = False, 2.0

    def __init__(self, settings: ModbusSettings, _: str) -> None:
        self._settings = settings
        self._alive = False
        self._off_at: float | None = None
        self._client = ModbusTcpClient(
            settings.host, port=settings.port, timeout=settings.timeout, retries=0
        )
        try:
            if not self._client.connect():
                raise LineError("the device does not answer: check that it runs, and its address")
            self._off()
        except BaseException:
            self._client.close()
            raise

    def send(self, message: Message) -> None:
        """Show it."""
        if message.event in ("heartbeat", "test"):
            self._alive = not self._alive
            self._set({"ready": message.values["ready"], "alive": self._alive})
        elif message.event == "not_ready":
            self._off()
            self._set({"ready": False})
        else:
            self._off()
            self._show_number(message)
            self._set({_COIL_OF[message.verdict]: True})
            pulse = self._settings.pulse
            self._off_at = time.monotonic() + pulse if pulse else None

    def _show_number(self, message: Message) -> None:
        at = self._settings.number
        if at is not None and message.event == "verdict":
            number = message.values["id"] % 65_536
            self._ask(self._client.write_register, at, number)

    def _off(self) -> None:
        self._off_at = None
        self._set(dict.fromkeys(_OF_PHOTO, False))

    def _set(self, states: Mapping[str, bool]) -> None:
        for name, state in states.items():
            at = self._settings.coils.get(name)
            if at is not None:
                self._ask(self._client.write_coil, at, state)

    def _ask(self, write: Callable[..., Any], address: int, value: int) -> None:
        try:
            answer = write(address, value, device_id=self._settings.unit)
        except (ModbusException, OSError) as error:
            raise LineError(f"the device does not answer ({error}): check that it runs") from error
        if answer.isError():
            raise LineError(
                f"the device refused address {address} ({answer}): check the addresses of the "
                "configuration against its manual"
            )

    def idle(self) -> float | None:
        """End a pulse."""
        if self._off_at is None:
            return None
        left = self._off_at - time.monotonic()
        if left > 0:
            return left
        self._off()
        return None

    def close(self) -> None:
        """Close the connection; the coils stay as they are."""
        self._client.close()
