"""What a station's configuration says of an output to the line."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
SHORTEST_SECRET = 16

Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=3_600)]
Address = Annotated[int, Field(ge=0, le=65_535)]


def _file(path: Path, info: ValidationInfo) -> Path:
    found: Path = (info.context or {}).get("folder", Path()) / path
    if not found.is_file():
        raise ValueError("give a file that there is")
    return found


File = Annotated[Path, AfterValidator(_file)]
"""A file, relative to the configuration's folder."""


def read_secret(path: Path) -> str:
    """The secret in a file, without the end of its line."""
    return path.read_text(encoding="utf-8").strip()


def _secret(path: Path, info: ValidationInfo) -> Path:
    found = _file(path, info)
    try:
        secret = read_secret(found)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"it cannot be read ({error}): give a file with the secret") from error
    if not secret or "\n" in secret:
        raise ValueError("give a file with one line, the secret")
    return found


Secret = Annotated[Path, AfterValidator(_secret)]


def _long_secret(path: Path) -> Path:
    if len(read_secret(path)) < SHORTEST_SECRET:
        raise ValueError(
            f"give a file with {SHORTEST_SECRET} or more characters, such as of "
            "`openssl rand -hex 32`"
        )
    return path


def _web(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give an address that begins with http:// or https://")
    return url


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "opc.tcp" or not parts.hostname or not parts.port:
        raise ValueError("give an address such as opc.tcp://127.0.0.1:4840/reconpatch")
    return url


class OutputSettings(BaseModel, ABC):
    """What all outputs have.

    Attributes:
        products: of which it is told; none named: of all.
        only: "all" verdicts, or those that are "anomalous"; photos that failed are told with both.
        heartbeat: seconds between two heartbeats; 0: none.
        timeout: seconds that a receiver has to answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    products: tuple[str, ...] = ()
    only: Literal["all", "anomalous"] = "all"
    heartbeat: Annotated[float, Field(ge=0, le=3_600)] = 5.0
    timeout: Seconds = 10.0

    @property
    def kind(self) -> str:
        """What the configuration calls it."""
        return next(name for name, model in KINDS.items() if type(self) is model)

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it goes to, without anything secret."""

    def wants(self, event: str, subject: Any) -> bool:
        """Whether it is told of a record (`event` "verdict") or a failure."""
        if self.products and subject.product not in self.products:
            return False
        return event != "verdict" or self.only == "all" or bool(subject.anomalous)


class WebhookSettings(OutputSettings):
    """A program that is sent each message by HTTP POST, in order; see `webhook.py`.

    Attributes:
        url: where to.
        secret_file: file with the secret that messages are signed with; none: they are not signed.
        ca_file: certificates (PEM) that the receiver's is signed by; none: those of certifi.
        headers: that are sent along.
    """

    url: Annotated[str, AfterValidator(_web)]
    secret_file: Annotated[Secret, AfterValidator(_long_secret)] | None = None
    ca_file: File | None = None
    headers: dict[str, str] = {}
    heartbeat: Annotated[float, Field(ge=0, le=3_600)] = 0.0

    @property
    def address(self) -> str:
        """The address without user, password and query."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


class BrokerSettings(BaseModel):
    """Where an MQTT broker is, and how it lets the station in.

    Attributes:
        host: of the broker.
        port: of the broker.
        username: at the broker.
        password_file: file with the password.
        tls: whether to speak TLS.
        ca_file: certificates (PEM) that the broker's is signed by; none: those of the system.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: Annotated[str, Field(min_length=1)]
    port: Port = 1883
    username: str | None = None
    password_file: Secret | None = None
    tls: bool = False
    ca_file: File | None = None

    @property
    def broker(self) -> str:
        """The address of the broker."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.host}:{self.port}"


class MqttSettings(BrokerSettings, OutputSettings):
    """An MQTT broker that each message is published to, in order; see `mqtt.py`.

    Attributes:
        topic: what topics begin with.
    """

    topic: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^+#\x00]+$")] = (
        "reconpatch"
    )

    @property
    def address(self) -> str:
        """The broker and the topic."""
        return f"{self.broker}/{self.topic}"


class ModbusSettings(OutputSettings):
    """Coils of a Modbus TCP device; see `modbus.py`.

    Attributes:
        host: of the device.
        port: of the device.
        unit: number of the device behind a gateway.
        ok: address of the coil for a good part.
        ng: of the one for an anomalous part.
        no_verdict: of the one for a photo without a verdict.
        ready: of the one that is on while verdicts can be given.
        alive: of the one that changes with each heartbeat.
        number: of a holding register for the number of the record, its last 16 bits.
        pulse: seconds that ok, ng or no_verdict stays on; 0: until the next photo.
    """

    host: Annotated[str, Field(min_length=1)]
    port: Port = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    ok: Address | None = None
    ng: Address | None = None
    no_verdict: Address | None = None
    ready: Address | None = None
    alive: Address | None = None
    number: Address | None = None
    pulse: Annotated[float, Field(ge=0, le=60)] = 0.5
    heartbeat: Annotated[float, Field(ge=0, le=3_600)] = 1.0
    timeout: Seconds = 2.0

    @model_validator(mode="after")
    def _coils(self) -> ModbusSettings:
        given = list(self.coils.values())
        if not given:
            raise ValueError("give the address of a coil: ok, ng, no_verdict, ready or alive")
        if len(set(given)) < len(given):
            raise ValueError("two coils have one address: give each its own")
        return self

    @property
    def coils(self) -> dict[str, int]:
        """The addresses of the coils that there are, by their names."""
        names = ("ok", "ng", "no_verdict", "ready", "alive")
        return {name: at for name in names if (at := getattr(self, name)) is not None}

    @property
    def address(self) -> str:
        """The device."""
        return f"modbus://{self.host}:{self.port}/{self.unit}"


class OpcUaSettings(OutputSettings):
    """An OPC UA server that shows the newest verdict of each product; see `opcua.py`.

    Attributes:
        endpoint: on which it listens.
        certificate: (DER or PEM) of the server; with it and the key only signed and encrypted
            connections are taken.
        key: its private key (PEM).
    """

    endpoint: Annotated[str, AfterValidator(_endpoint)] = "opc.tcp://127.0.0.1:4840/reconpatch"
    certificate: File | None = None
    key: File | None = None
    heartbeat: Annotated[float, Field(ge=0, le=3_600)] = 1.0

    @model_validator(mode="after")
    def _pair(self) -> OpcUaSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate needs its key: give both, or none of the two")
        return self

    @property
    def address(self) -> str:
        """The endpoint."""
        return self.endpoint


KINDS: dict[str, type[OutputSettings]] = {
    "webhook": WebhookSettings,
    "mqtt": MqttSettings,
    "modbus": ModbusSettings,
    "opcua": OpcUaSettings,
}
