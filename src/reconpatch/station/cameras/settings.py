"""What a station's configuration says of a camera, or of a folder that photos arrive in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from reconpatch.station.outputs.settings import (
    BrokerSettings,
    File,
    Seconds,
    Secret,
    read_secret,
)

Pixels = Annotated[int, Field(ge=16, le=65_500)]
_SCHEMES = {"rtsp": 554, "http": 80, "https": 443}


def _stream(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError("give an address that begins with rtsp://, http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("leave the name and the password out: give username and password_file")
    return url


def _relative(path: Path, info: ValidationInfo) -> Path:
    found: Path = (info.context or {}).get("folder", Path()) / path
    return found


Folder = Annotated[Path, AfterValidator(_relative)]
"""A folder, relative to the configuration's, that need not be there all the time."""


class TriggerSettings(BrokerSettings):
    """An MQTT topic of which each message has a photo taken; see `trigger.py`.

    Attributes:
        topic: that is listened to.
    """

    topic: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]

    @property
    def address(self) -> str:
        """The broker and the topic."""
        return f"{self.broker}/{self.topic}"


class CameraSettings(BaseModel, ABC):
    """What all cameras have.

    Attributes:
        product: that its photos are inspected as; None: the station's default.
        every: seconds between two photos that are taken without being asked for; 0: none is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    product: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    every: Annotated[float, Field(ge=0, le=86_400)] = 0.0

    @property
    def kind(self) -> str:
        """What the configuration calls it."""
        return next(name for name, model in KINDS.items() if type(self) is model)

    @property
    @abstractmethod
    def address(self) -> str:
        """What it is or where, without anything secret."""


class FolderSettings(CameraSettings):
    """A folder that a camera or another program writes photos into; see `folder.py`.

    Attributes:
        path: of the folder; subfolders are looked through too.
        every: seconds between two looks.
        patience: seconds for which a file that does not decode may be half-written.
        output: files are linked or moved to good, anomalous and error in this folder; None leaves
            them where they are.
        sorting: which of the two.
    """

    path: Folder
    every: Seconds = 1.0
    patience: Annotated[float, Field(ge=0, le=3_600)] = 30.0
    output: Folder | None = None
    sorting: Literal["link", "move"] = "link"

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.path)


class LiveSettings(CameraSettings):
    """What all cameras have that are asked for frames.

    Attributes:
        timeout: seconds that the camera has for a frame, and to be opened.
        trigger: an MQTT topic that has photos taken; None: there is none.
    """

    timeout: Annotated[float, Field(gt=0, le=60)] = 5.0
    trigger: TriggerSettings | None = None


class UsbSettings(LiveSettings):
    """A USB or other camera that the operating system knows, through OpenCV.

    Attributes:
        device: its number, or its path, such as those in /dev/v4l/by-id.
        width, height: of the frames that it is asked for; None: what it gives by itself.
        pixel_format: of what it sends, in four letters, such as MJPG; None: what it chooses.
    """

    device: Annotated[int, Field(ge=0, le=255)] | Annotated[str, Field(min_length=1)]
    width: Pixels | None = None
    height: Pixels | None = None
    pixel_format: Annotated[str, Field(pattern=r"^[A-Z0-9 ]{4}$")] | None = None

    @model_validator(mode="after")
    def _size(self) -> UsbSettings:
        if (self.width is None) != (self.height is None):
            raise ValueError("a size is a width and a height: give both, or none of the two")
        return self

    @property
    def address(self) -> str:
        """The device."""
        return str(self.device)


class StreamSettings(LiveSettings):
    """A stream by RTSP, or by HTTP (such as MJPEG), through OpenCV.

    Attributes:
        url: of the stream, without name and password.
        username: at the camera.
        password_file: file with the password.
    """

    url: Annotated[str, AfterValidator(_stream)]
    username: Annotated[str, Field(min_length=1)] | None = None
    password_file: Secret | None = None

    @model_validator(mode="after")
    def _both(self) -> StreamSettings:
        if self.password_file is not None and self.username is None:
            raise ValueError("a password needs a name: give username too")
        return self

    @property
    def address(self) -> str:
        """The address without the query, in which some cameras want a password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    @property
    def place(self) -> tuple[str, int]:
        """The host and the port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or _SCHEMES[parts.scheme]

    def secret_url(self) -> str:
        """The address with name and password; for the camera alone."""
        parts = urlsplit(self.url)
        if self.username is None:
            return self.url
        word = "" if self.password_file is None else read_secret(self.password_file)
        who = f"{quote(self.username, safe='')}:{quote(word, safe='')}"
        return parts._replace(netloc=f"{who}@{parts.netloc}").geturl()


class GenicamSettings(LiveSettings):
    """A GenICam camera (GigE Vision, USB3 Vision) through harvesters; see `genicam.py`.

    Attributes:
        producer: the GenTL producer (.cti) of the camera's maker.
        serial: number of the camera; None: the only one that there is.
    """

    producer: File
    serial: Annotated[str, Field(min_length=1)] | None = None

    @property
    def address(self) -> str:
        """The producer, and the camera's number."""
        return f"{self.producer.name}{f' {self.serial}' if self.serial else ''}"


KINDS: dict[str, type[CameraSettings]] = {
    "folder": FolderSettings,
    "usb": UsbSettings,
    "stream": StreamSettings,
    "genicam": GenicamSettings,
}
