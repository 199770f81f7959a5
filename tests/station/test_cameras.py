"""Cameras: their configuration, photos of now, and that a broken one stops nothing."""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from conftest import RGB, SIDE, WAIT, save, textured
from reconpatch.errors import (
    CameraError,
    MissingExtraError,
    NotFoundError,
    PhotoError,
    SettingsError,
)
from reconpatch.photos.images import read_photo_bytes
from reconpatch.station.cameras import cameras as all_cameras
from reconpatch.station.cameras import live
from reconpatch.station.cameras.cameras import Cameras
from reconpatch.station.cameras.settings import (
    CameraSettings,
    FolderSettings,
    StreamSettings,
    TriggerSettings,
    UsbSettings,
)
from reconpatch.station.config import read_config
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.doctor import examine
from reconpatch.station.records import Record
from reconpatch.station.station import Station
from streams import NAME, MjpegCamera, NetworkCamera, RtspCamera
from test_line_protocols import Broker, broker, free_port  # noqa: F401  (a fixture)
from test_outputs import until, write
from test_service import start  # noqa: F401  (a fixture)
from test_station import png

PASSWORD = "S3cret:/@?word"
DEVICE = UsbSettings(device=0, timeout=1)


# --- The configuration ---------------------------------------------------------------------------


def test_a_file_names_the_cameras(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    config = read_config(
        write(
            tmp_path,
            """
            [cameras.top]
            kind = "stream"
            url = "rtsp://camera.example/live?channel=1"
            username = "line"
            password_file = "password"
            product = "bottle"
            every = 2.5

            [cameras.side]
            kind = "usb"
            device = "/dev/v4l/by-id/usb-7"
            width = 1280
            height = 720
            pixel_format = "MJPG"
            [cameras.side.trigger]
            host = "broker.example"
            topic = "plant/7/side"

            [cameras.files]
            kind = "folder"
            path = "incoming"
            """,
        )
    )
    assert list(config.cameras) == ["top", "side", "files"]
    top, side, files = config.cameras.values()
    assert isinstance(top, StreamSettings)
    assert (top.kind, top.address, top.every) == ("stream", "rtsp://camera.example/live", 2.5)
    assert top.place == ("camera.example", 554)
    assert top.secret_url() == ("rtsp://line:S3cret%3A%2F%40%3Fword@camera.example/live?channel=1")
    assert PASSWORD not in repr(top)
    assert isinstance(side, UsbSettings)
    assert side.trigger is not None
    assert side.trigger.address == "mqtt://broker.example:1883/plant/7/side"
    assert isinstance(files, FolderSettings)
    assert (files.path, files.every) == (tmp_path / "incoming", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cameras = 3", "cameras is no table of tables: write it as [cameras.NAME]"),
        ("[cameras.top]", "cameras.top.kind is missing: give folder, genicam, stream or usb"),
        ('[cameras."T 1"]\nkind="usb"', "cameras has the name 'T 1': give 1 to 40 letters"),
        ("[cameras.top]\nkind='usb'", "cameras.top.device is missing: give it"),
        ("[cameras.top]\nkind='usb'\ndevice=-1", "cameras.top.device"),
        ("[cameras.top]\nkind='usb'\ndevice=0\nevery=-1", "cameras.top.every is -1: give"),
        (
            "[cameras.top]\nkind='usb'\ndevice=0\nwidth=640",
            "cameras.top: a size is a width and a height: give both, or none of the two",
        ),
        (
            "[cameras.top]\nkind='usb'\ndevice=0\nwidht=640",
            "cameras.top has the key 'widht', which is not known there: give product",
        ),
        (
            "[cameras.top]\nkind='usb'\ndevice=0\n[cameras.top.trigger]\nhost='b'",
            "cameras.top.trigger.topic is missing: give it",
        ),
        (
            "[cameras.top]\nkind='usb'\ndevice=0\n[cameras.top.trigger]\nhost='b'\ntopic='t'\nx=1",
            "cameras.top.trigger.x is not known there: leave it out",
        ),
        (
            "[cameras.top]\nkind='stream'\nurl='rtps://line:hunter2@c/live?pw=hunter2'",
            "cameras.top.url is 'rtps://***@c/live?***': give an address that begins with rtsp://",
        ),
        (
            "[cameras.top]\nkind='stream'\nurl='rtsp://line:hunter2@c/live'",
            "cameras.top.url is 'rtsp://***@c/live': leave the name and the password out",
        ),
        (
            "[cameras.top]\nkind='stream'\nurl='rtsp://c/live'\npassword_file='none'",
            "give a file that there is",
        ),
        (
            "[cameras.top]\nkind='stream'\nurl='rtsp://c/live'\npassword_file='word'",
            "cameras.top: a password needs a name: give username too",
        ),
        ("[cameras.top]\nkind='genicam'\nproducer='none.cti'", "give a file that there is"),
        ("[cameras.top]\nkind='folder'", "cameras.top.path is missing: give it"),
    ],
)
def test_an_error_names_file_key_what_was_given_and_what_is_allowed(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "word").write_text("hunter2\n")
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        read_config(path)
    assert str(raised.value).startswith(f"{path}: cameras")
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "module", "extra"),
    [
        (DEVICE, "cv2", "camera"),
        (
            DEVICE.model_copy(update={"trigger": TriggerSettings(host="b", topic="t")}),
            "reconpatch.station.outputs.mqtt",
            "mqtt",
        ),
    ],
)
def test_a_package_that_is_missing_is_named(
    settings: CameraSettings, module: str, extra: str, monkeypatch: pytest.MonkeyPatch,
    station: Station,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"reconpatch\[{extra}\]"):
        Cameras({"top": settings}, station)


# --- Cameras on the network ----------------------------------------------------------------------


def numbered(number: int) -> RGB:
    """A frame that holds its number in its colours, which JPEG hardly changes."""
    frame = np.empty((SIDE, SIDE, 3), np.uint8)
    frame[:] = (number // 25 % 25 * 10, number % 25 * 10, 128)
    return frame


def number_of(pixels: RGB) -> int:
    red, green, _ = np.rint(pixels.reshape(-1, 3).mean(axis=0) / 10).astype(int)
    return int(red * 25 + green)


@pytest.fixture(params=[MjpegCamera, RtspCamera])
def network(request: pytest.FixtureRequest) -> Iterator[NetworkCamera]:
    made = request.param(numbered, PASSWORD)
    yield made
    made.switch_off()


@pytest.fixture
def settings(network: NetworkCamera, tmp_path: Path) -> StreamSettings:
    (tmp_path / "password").write_text(PASSWORD)
    return StreamSettings(
        url=network.url, username=NAME, password_file=tmp_path / "password", timeout=2
    )


@pytest.fixture
def station(small_model_file: Path, tmp_path: Path) -> Iterator[Station]:
    model = Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))
    with Station(DataFolder(tmp_path / "line"), (model,), threads=1) as made:
        yield made


Run = Callable[..., Cameras]


@pytest.fixture
def run(station: Station) -> Iterator[Run]:
    """Start cameras at the station."""
    running: list[Cameras] = []

    def run_some(**settings: CameraSettings) -> Cameras:
        cameras = Cameras(settings, station)
        cameras.start()
        running.append(cameras)
        return cameras

    yield run_some
    for cameras in running:
        cameras.close()


def state(cameras: Cameras, name: str = "top") -> Any:
    [found] = [one for one in cameras.states() if one.name == name]
    return found


def test_a_photo_is_of_now_and_a_lost_camera_comes_back(
    network: NetworkCamera, settings: StreamSettings, run: Run, station: Station, capfd: Any
) -> None:
    cameras = run(top=settings)
    camera = cameras.get("top")
    for _ in range(2):
        until(lambda: state(cameras).state == "ok")
        # Whoever reads a stream only when a photo is wanted gets the oldest of those that wait.
        before = network.sent + 30
        until(lambda before=before: network.sent >= before)
        record = camera.shoot("SN 7\n").result(WAIT)
        assert record.serial == "SN 7"
        assert record.name.startswith("top-2")
        assert record.name.endswith("Z.png")
        assert (record.product, record.width, record.height) == ("disc", SIDE, SIDE)
        taken = read_photo_bytes(station.photos.read(record.photo), name="").pixels
        assert before - 3 <= number_of(taken) <= network.sent  # some may be on their way
        assert state(cameras).size == (SIDE, SIDE)
        network.switch_off()
        until(lambda: state(cameras).state == "lost")
        assert "top" in cameras.lost()
        with pytest.raises(CameraError, match="the camera top gives no frames: "):
            camera.shoot("SN 8")
        assert "the camera top gives no frames" in state(cameras).failure
        assert camera.picture().shape == (SIDE, SIDE, 3)  # its last one
        network.switch_on()
    failed, _ = station.records.log.failures("disc")
    assert [(one.kind, one.name[:8]) for one in failed] == [("camera", "SN 8 top")] * 2
    until(lambda: state(cameras).state == "ok")
    assert (state(cameras).taken, state(cameras).failed) == (2, 2)
    assert PASSWORD not in (told := "".join(capfd.readouterr()))
    assert "S3cret" not in told


def test_a_wrong_password_is_told_without_it(
    settings: StreamSettings, run: Run, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "password").write_text("hunter2")
    cameras = run(top=settings)
    until(lambda: state(cameras).state == "lost")
    assert f"{settings.address} gives no stream: check" in state(cameras).error
    assert "hunter2" not in "".join(capfd.readouterr()) + repr(cameras.states())


def test_a_stream_of_ffmpeg(run: Run) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no H.264 stream: on Debian, apt-get install ffmpeg")
    url = f"http://127.0.0.1:{free_port()}/live.ts"
    source = "-f lavfi -i color=red:size=160x96:rate=25 -c:v libx264 -tune zerolatency -g 5"
    command = [ffmpeg, "-v", "quiet", "-re", *source.split(), "-f", "mpegts", "-listen", "1", url]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        cameras = run(top=StreamSettings(url=url, timeout=10))
        until(lambda: state(cameras).state == "ok")
        frame = cameras.get("top").picture()
        assert frame.shape == (96, 160, 3)
        red, green, blue = frame.reshape(-1, 3).mean(axis=0)
        assert red > 200 > 50 > max(green, blue)
    finally:
        process.kill()
        process.wait()
    until(lambda: state(cameras).state == "lost")


# --- What is done with frames: a camera that a test feeds ----------------------------------------


class Fed:
    """A camera that gives the frames that a test puts into it; what is an error, it raises."""

    def __init__(self) -> None:
        self.frames: queue.Queue[Any] = queue.Queue()
        self.opened = self.closed = 0
        self.grabbed = 0
        self._now: Any = None

    def __call__(self, _: Any) -> Fed:
        self.opened += 1
        return self

    def grab(self) -> None:
        self._now = self.frames.get(timeout=WAIT)
        if isinstance(self._now, Exception):
            raise self._now
        self.grabbed += 1

    def pixels(self) -> Any:
        return self._now

    def close(self) -> None:
        self.closed += 1


class Endless(Fed):
    """Gives one frame for ever, a hundred times a second."""

    def __init__(self, frame: Any) -> None:
        super().__init__()
        self._now = frame

    def grab(self) -> None:
        threading.Event().wait(0.01)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fed], None]:
    def use(source: Fed) -> None:
        monkeypatch.setattr(all_cameras, "opener_of", lambda _: source)

    return use


def test_a_frame_of_another_size_is_refused(fed: Any, run: Run, station: Station) -> None:
    fed(Endless(textured(1, SIDE, 2 * SIDE)))
    cameras = run(top=DEVICE)
    with pytest.raises(CameraError) as raised:
        cameras.get("top").shoot()
    assert str(raised.value) == (
        f"the camera top gives {2 * SIDE} x {SIDE} pixels, and disc was fitted on photos of "
        f"{SIDE} x {SIDE}: set the camera to that size, or fit on photos of this camera"
    )
    [failed], _ = station.records.log.failures("disc")
    assert (failed.kind, failed.error) == ("camera", str(raised.value))
    assert state(cameras).state == "ok"


def test_at_an_interval_photos_are_taken_until_it_is_paused(
    fed: Any, run: Run, station: Station
) -> None:
    fed(Endless(textured(1)))
    cameras = run(top=DEVICE.model_copy(update={"every": 0.01}))
    until(lambda: station.records.count() >= 3)
    cameras.pause("top", "ada")
    [pause] = cameras.pauses()
    assert (pause.camera, pause.product, pause.by) == ("top", "disc", "ada")
    with pytest.raises(CameraError, match="the camera top was paused by ada: resume it"):
        cameras.get("top").shoot()
    until(lambda: state(cameras).age is not None)  # it is still read
    cameras.resume("top", "bob")
    count = station.records.count()
    until(lambda: station.records.count() > count + 1)
    acts = [(one.what, one.subject, one.who) for one in station.records.audit.page(limit=2)]
    assert acts == [("camera resume", "top", "bob"), ("camera pause", "top", "ada")]


def test_a_paused_camera_is_paused_after_another_start(
    fed: Any, run: Run, station: Station
) -> None:
    fed(Endless(textured(1)))
    Cameras({"top": DEVICE, "side": DEVICE}, station).pause("top", "ada")
    cameras = run(top=DEVICE, side=DEVICE)
    assert [(one.camera, one.by) for one in cameras.pauses()] == [("top", "ada")]
    [told] = station.records.audit.page(limit=1)
    assert state(cameras).pause.since == told.time


def test_at_an_interval_a_reason_is_told_once(fed: Any, station: Station) -> None:
    source = Fed()
    fed(source)
    settings = DEVICE.model_copy(update={"every": 3_600.0})
    cameras = Cameras({"top": settings}, station)
    camera: Any = cameras.get("top")
    cameras.start()
    try:
        for error in ("unplugged", "unplugged", "no power"):
            source.frames.put(CameraError(error))
            until(lambda error=error: error in (state(cameras).error or ""))
            camera._by_itself()
            camera._by_itself()
        failed, _ = station.records.log.failures("disc")
        told = [one.error.rpartition(": ")[2] for one in failed]
        assert told == ["no power", "unplugged"]
        assert source.closed == source.opened
    finally:
        source.frames.put(CameraError("the end"))
        cameras.close()


def test_a_broken_camera_stops_no_other(
    run: Run, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(settings: Any) -> Any:
        if settings.device == 1:
            raise RuntimeError("a driver's bug")
        return Endless(textured(1))

    monkeypatch.setattr(all_cameras, "opener_of", lambda _: opened)
    cameras = run(top=DEVICE, broken=UsbSettings(device=1))
    until(lambda: state(cameras, "broken").state == "lost")
    assert state(cameras, "broken").error == "it fails: see the service's log"
    assert isinstance(cameras.get("top").shoot().result(WAIT), Record)
    with pytest.raises(NotFoundError, match="there is no camera 'left': give one of top, broken"):
        cameras.get("left")


def test_frames_that_nobody_asked_for_are_not_decoded(
    fed: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Fed()
    decoded: list[Any] = []
    monkeypatch.setattr(source, "pixels", lambda: decoded.append(source._now) or source._now)
    fed(source)
    run(top=DEVICE)
    for seed in range(5):
        source.frames.put(textured(seed))
    until(lambda: source.grabbed == 5 and len(decoded) == 1)  # the first says that it works
    source.frames.put(CameraError("the end"))


def test_messages_that_come_too_fast_are_photos_without_a_verdict(
    fed: Any, station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed(Endless(textured(1)))
    monkeypatch.setattr(live, "_MOST_TRIGGERS", 1)
    camera: Any = Cameras({"top": DEVICE}, station).get("top")  # not started: it takes none
    camera._heard("SN 1")
    camera._heard("SN 2")
    [failed], _ = station.records.log.failures("disc")
    assert "messages to the camera top come faster than it can take photos" in failed.error
    assert failed.name.startswith("SN 2 top-")


def test_a_message_has_a_photo_taken(
    fed: Any, run: Run, station: Station, broker: Broker  # noqa: F811
) -> None:  # fmt: skip
    import paho.mqtt.client as mqtt

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)  # type: ignore[attr-defined]
    client.username_pw_set("line", "0123456789")
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        client.publish("plant/7/top", "SN 0", qos=1, retain=True).wait_for_publish(WAIT)
        fed(Endless(textured(1)))
        trigger = TriggerSettings(
            **broker.settings.model_dump(include={"host", "port", "username", "password_file"}),
            topic="plant/7/top",
        )
        cameras = run(top=DEVICE.model_copy(update={"trigger": trigger}))
        for serial in ("SN 1", "SN 2"):
            until(lambda: state(cameras).trigger_error is None)
            client.publish("plant/7/top", serial, qos=1).wait_for_publish(WAIT)
            until(lambda serial=serial: serial in _serials(station))
            broker.kill()
            until(lambda: state(cameras).trigger_error is not None)
            assert "does not answer" in state(cameras).trigger_error
            broker.start()
            until(client.is_connected)
        assert station.records.count() == 2  # not of the one that was kept
    finally:
        client.disconnect()
        client.loop_stop()


def _serials(station: Station) -> list[str | None]:
    return [record.serial for record in station.records.page().records]


def _newest(station: Station) -> str:
    return next((record.name for record in station.records.page().records), "")


def test_a_usb_camera_is_asked_for_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with the extra 'camera'")
    from reconpatch.station.cameras.opencv import open_camera

    class Device:
        """An operating system's camera of 640 x 480 pixels, blue."""

        def __init__(self, *_: Any) -> None:
            self.released = False
            devices.append(self)

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def set(self, *_: Any) -> bool:
            return False

        def get(self, what: int) -> float:
            return 640.0 if what == cv2.CAP_PROP_FRAME_WIDTH else 480.0

        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, Any]:
            return True, np.full((480, 640, 3), (255, 0, 0), np.uint8)

        def release(self) -> None:
            self.released = True

    devices: list[Device] = []
    monkeypatch.setattr(cv2, "VideoCapture", Device)
    with pytest.raises(CameraError, match="gives frames of 640 x 480 pixels and not 1920 x 1080"):
        open_camera(UsbSettings(device=0, width=1920, height=1080))
    assert devices[0].released
    camera = open_camera(UsbSettings(device=0, width=640, height=480, pixel_format="MJPG"))
    camera.grab()
    assert camera.pixels()[0, 0].tolist() == [0, 0, 255]
    monkeypatch.undo()
    with pytest.raises(CameraError, match="the camera /dev/none cannot be opened: check"):
        open_camera(UsbSettings(device="/dev/none"))


# --- Folders -------------------------------------------------------------------------------------


def test_photos_of_a_folder_are_inspected_once(run: Run, station: Station, tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    settings = FolderSettings(
        path=folder, every=0.01, patience=0, output=tmp_path / "sorted", sorting="link"
    )
    cameras = run(top=settings)
    until(lambda: state(cameras).state == "lost")
    assert f"{folder} is no folder" in state(cameras).error
    save(textured(1), folder / "lot 7" / "part.png")
    (folder / "damaged.png").write_bytes(png(textured(2))[:500])
    until(lambda: (state(cameras).taken, state(cameras).failed) == (1, 1))
    assert _newest(station) == "lot 7/part.png"
    [failed], _ = station.records.log.failures("disc")
    assert (failed.name, failed.kind) == ("damaged.png", "photo")
    assert len(list((tmp_path / "sorted").glob("*/lot 7/part.png"))) == 1
    assert (tmp_path / "sorted" / "error" / "damaged.png").is_file()
    cameras.pause("top")
    save(textured(3), folder / "later.png")
    with pytest.raises(CameraError, match="the camera top is a folder"):
        cameras.get("top").shoot()
    cameras.close()

    again = run(top=settings)
    again.resume("top")
    until(lambda: state(again).taken == 1)
    assert station.records.count() == 2
    assert len(station.records.log.failures("disc")[0]) == 1
    shutil.rmtree(folder)
    until(lambda: state(again).state == "lost")
    save(textured(4), folder / "new.png")
    until(lambda: _newest(station) == "new.png")


def test_a_photo_that_the_model_refuses_is_told_once(
    run: Run, station: Station, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise PhotoError("it is no disc")

    inspector = station.product("disc").inspector
    monkeypatch.setattr(type(inspector), "inspect_batch", refuse)
    save(textured(1), tmp_path / "incoming" / "part.png")
    cameras = run(top=FolderSettings(path=tmp_path / "incoming", every=0.01, patience=600))
    until(lambda: state(cameras).failed == 1)
    save(textured(2), tmp_path / "incoming" / "part 2.png")
    until(lambda: state(cameras).failed == 2)
    failed, _ = station.records.log.failures("disc")
    assert [(one.name, one.error) for one in failed] == [
        ("part 2.png", "it is no disc"), ("part.png", "it is no disc"),
    ]  # fmt: skip


# --- The service ---------------------------------------------------------------------------------


def test_the_service_takes_pauses_and_tells(
    start: Any, fed: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    source = Endless(textured(1))
    fed(source)
    client: TestClient = start(camera_settings={"top": DEVICE})
    root = "/api/v1/cameras"
    assert client.get("/api/v1/state").json()["cameras"] == ["top"]
    record = client.post(f"{root}/top/trigger", params={"serial": "SN 7"}).json()
    assert (record["serial"], record["name"][:5]) == ("SN 7", "top-2")
    shown = client.get(f"{root}/top/frame", params={"size": 32})
    assert shown.headers["content-type"] == "image/jpeg"
    assert read_photo_bytes(shown.content, name="").width == 32
    whole = client.get(f"{root}/top/frame", params={"kind": "png"})
    assert (read_photo_bytes(whole.content, name="").pixels == textured(1)).all()
    paused = client.post(f"{root}/top/pause", headers={"X-Operator": "ada"}).json()
    assert (paused["pause"]["by"], paused["taken"]) == ("ada", 1)
    assert client.get("/api/v1/state").json()["paused"] == [paused["pause"]]
    refused = client.post(f"{root}/top/trigger")
    assert refused.status_code == 503
    assert (
        refused.json()["error"]
        == "the camera top was paused by ada: resume it on the page to take photos"
    )
    figures = client.get("/api/v1/metrics").text
    for line in (
        'reconpatch_camera_up{camera="top"} 1.0',
        'reconpatch_camera_paused{camera="top"} 1.0',
        'reconpatch_camera_photos_total{camera="top",outcome="verdict"} 1.0',
        'reconpatch_camera_photos_total{camera="top",outcome="none"} 1.0',
        'reconpatch_failures_total{kind="camera",product="disc"} 1.0',
    ):
        assert line in figures
    assert client.post(f"{root}/top/resume").json()["pause"] is None
    monkeypatch.setattr(source, "grab", Fed().grab)
    source.grab = lambda: (_ for _ in ()).throw(CameraError("it was unplugged"))  # type: ignore[method-assign]
    until(lambda: client.get("/api/v1/health").json()["lost"] == ["top"])
    assert client.get("/api/v1/health").status_code == 200  # other photos get their verdict
    assert client.get("/api/v1/state").json()["lost"] == {"top": "it was unplugged"}
    assert client.get(f"{root}/left/frame").status_code == 404


def test_the_doctor_looks_at_cameras(tmp_path: Path) -> None:
    network = MjpegCamera(numbered)
    data, config = tmp_path / "data", tmp_path / "station.toml"
    config.write_text(
        f"""
        [cameras.top]
        kind = "stream"
        url = "{network.url}"
        [cameras.top.trigger]
        host = "127.0.0.1"
        port = 1
        topic = "t"
        [cameras.away]
        kind = "usb"
        device = "/dev/none"
        [cameras.files]
        kind = "folder"
        path = "incoming"
        """
    )

    def said() -> list[tuple[str, str]]:
        found = [one for one in examine(data, config=config) if one.check == "configuration"]
        return [(one.state, one.sentence) for one in found]

    with DataFolder(data):  # as of a service, which has the cameras
        states = [state for state, _ in said()]
        assert states == ["ok", "ok", "fails", "ok", "fails"]
        assert said()[1][1] == f"camera top: {network.url} is reached"
    (tmp_path / "incoming").mkdir()
    assert said() == [
        ("ok", f"{config} names 0 outputs and 3 cameras"),
        ("ok", f"camera top: {network.url} gives frames of {SIDE} x {SIDE} pixels"),
        (
            "fails",
            "camera top: its trigger mqtt://127.0.0.1:1/t is not reached (Connection refused)",
        ),
        (
            "fails",
            "camera away: the camera /dev/none cannot be opened: check that it is plugged in, "
            "that no other program uses it, and that the service may (on Linux, the group video)",
        ),
        ("ok", f"camera files: {tmp_path / 'incoming'} is there"),
    ]
    network.switch_off()
