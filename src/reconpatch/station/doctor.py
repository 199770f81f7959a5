"""What a station needs, looked at from outside, with its service running or not.

Every check is a sentence and changes nothing. One that breaks is told like one that fails, and
stops no other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import sqlalchemy as sa

import reconpatch
from reconpatch.errors import OutputError, ReconPatchError
from reconpatch.files import temporary_name
from reconpatch.station.audit import verify
from reconpatch.station.cameras.settings import (
    CameraSettings,
    FolderSettings,
    LiveSettings,
    StreamSettings,
)
from reconpatch.station.cameras.source import Frame, opener_of
from reconpatch.station.config import read_config
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.outputs.settings import (
    ModbusSettings,
    MqttSettings,
    OutputSettings,
    WebhookSettings,
)
from reconpatch.station.photo_store import PhotoStore
from reconpatch.station.records import Records, check_current
from reconpatch.station.tables import inspections, photos
from reconpatch.station.versions import ModelVersions

State = Literal["ok", "look", "fails"]

_PROBE_BYTES = 4_000_000
_SLOW_WRITE, _SLOW_COMMIT = 1.0, 0.2
_NEWEST_PHOTOS = 100
# SQLite reads the whole file to check it.
_LARGEST_CHECKED = 2_000_000_000
_CONNECT_SECONDS = 3.0


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: what was looked at.
        state: "ok"; "look": somebody should look at it; "fails": the station does not work so.
        sentence: what was found, and what to do.
    """

    check: str
    state: State
    sentence: str


Found = Iterator[tuple[State, str]]


def examine(
    data: Path, *, database: str | None = None, config: Path | None = None, reserve: int = 0
) -> Iterator[Finding]:
    """Look at a station.

    Args:
        data: its folder.
        database: as of `Records`; None takes SQLite in the folder.
        config: its TOML file, or None.
        reserve: bytes of the disk that are to stay free.
    """
    where = database or data / "records.sqlite"
    checks: dict[str, Callable[[], Found]] = {
        "program": _program,
        "folder": lambda: _folder(data),
        "disk": lambda: _disk(data, reserve),
        "clock": _clock,
        "configuration": lambda: _configuration(config, data),
    }
    yield from _told(checks)
    if not (data / "station.txt").is_file():
        return
    station = (data / "station.txt").read_text(encoding="utf-8").strip()
    if database is None and not (data / "records.sqlite").is_file():
        yield Finding("records", "fails", "there is no records.sqlite: start the service once")
        return
    if database is None:
        yield from _told({"records' file": lambda: _sqlite(data / "records.sqlite")})
    try:
        check_current(where)
        records = Records(where, station)
    except ReconPatchError as error:
        yield Finding("records", "fails", str(error))
        return
    with closing(records):
        yield from _told(
            {
                "records": lambda: _records(records),
                "photos": lambda: _photos(data, records),
                "models": lambda: _models(data, records),
                "messages": lambda: _messages(records),
                "audit": lambda: _audit(records),
            }
        )


def _told(checks: dict[str, Callable[[], Found]]) -> Iterator[Finding]:
    for name, check in checks.items():
        try:
            for state, sentence in check():
                yield Finding(name, state, sentence)
        except Exception as error:  # a check that breaks has found something
            said = str(error) if isinstance(error, ReconPatchError) else repr(error)
            yield Finding(name, "fails", said)


def _program() -> Found:
    python = ".".join(map(str, sys.version_info[:3]))
    yield "ok", f"reconpatch {reconpatch.__version__}, Python {python}, {os.cpu_count()} cores"


def _folder(data: Path) -> Found:
    if not data.is_dir():
        yield "fails", f"{data} is no folder: give the station's with --data"
        return
    if not (data / "station.txt").is_file():
        yield "fails", f"{data} is no folder of a station: start the service on it once"
        return
    if _in_use(data):
        yield "ok", "in use by a service"
    else:
        yield "look", "in use by nobody: the service does not run"


def _in_use(data: Path) -> bool:
    if not (data / "station.txt").is_file():
        return False
    try:
        DataFolder(data).close()
    except OutputError:
        return True
    return False


def _disk(data: Path, reserve: int) -> Found:
    usage = shutil.disk_usage(data)
    free = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.0f} GB are free"
    yield ("look" if usage.free < max(reserve, usage.total // 50) else "ok"), free
    probe = temporary_name(data / "probe")
    try:
        began = time.perf_counter()
        with probe.open("xb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        took = time.perf_counter() - began
    finally:
        probe.unlink(missing_ok=True)
    said = f"{_PROBE_BYTES / 1e6:.0f} MB are on the disk after {1000 * took:.0f} ms"
    yield ("look" if took > _SLOW_WRITE else "ok"), said


def _clock() -> Found:
    program = shutil.which("timedatectl")
    if program is None:
        yield "look", "whether the clock is set by the network cannot be found out here"
        return
    asked = [program, "show", "-p", "NTPSynchronized", "--value"]
    done = subprocess.run(asked, capture_output=True, encoding="utf-8", timeout=10, check=False)
    said = done.stdout.strip()
    if said == "yes":
        yield "ok", "set by the network"
    elif said == "no":
        yield "look", "not set by the network: times of records may be wrong; set up NTP"
    else:
        yield "look", "whether the clock is set by the network cannot be found out here"


def _configuration(config: Path | None, data: Path) -> Found:
    if config is None:
        yield "ok", "none was given (--config)"
        return
    told = read_config(config)
    yield "ok", f"{config} names {len(told.outputs)} outputs and {len(told.cameras)} cameras"
    for name, output in told.outputs.items():
        away = _not_reached(*_place_of(output))
        if away and output.kind == "opcua":  # it is the service itself that listens there
            yield "ok", f"output {name}: {output.address}, where nobody listens now"
        else:
            yield _reached(f"output {name}: {output.address}", away)
    for name, camera in told.cameras.items():
        yield from _camera(f"camera {name}: ", camera, in_use=_in_use(data))


def _reached(what: str, away: str | None) -> tuple[State, str]:
    return ("fails", f"{what} is not reached ({away})") if away else ("ok", f"{what} is reached")


def _not_reached(host: str, port: int) -> str | None:
    """Why nobody listens there, or None where somebody does; nothing is sent."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _camera(said: str, camera: CameraSettings, *, in_use: bool) -> Found:
    """Whether a camera is there; a frame is taken where the service does not have it."""
    if isinstance(camera, FolderSettings):
        there = camera.path.is_dir()
        yield "ok" if there else "fails", f"{said}{camera.path} {'is' if there else 'is not'} there"
    elif isinstance(camera, StreamSettings) and in_use:
        yield _reached(f"{said}{camera.address}", _not_reached(*camera.place))
    elif isinstance(camera, LiveSettings) and in_use:
        yield "ok", f"{said}{camera.address}, which the service has; the page says how it is"
    elif isinstance(camera, LiveSettings):
        try:
            height, width = _frame_of(camera).shape[:2]
            yield "ok", f"{said}{camera.address} gives frames of {width} x {height} pixels"
        except ReconPatchError as error:
            yield "fails", f"{said}{error}"
    if isinstance(camera, LiveSettings) and (trigger := camera.trigger) is not None:
        away = _not_reached(trigger.host, trigger.port)
        yield _reached(f"{said}its trigger {trigger.address}", away)


def _frame_of(camera: LiveSettings) -> Frame:
    with closing(opener_of(camera)(camera)) as source:
        source.grab()
        return source.pixels()


def _place_of(output: OutputSettings) -> tuple[str, int]:
    if isinstance(output, (MqttSettings, ModbusSettings)):
        return output.host, output.port
    parts = urlsplit(output.url if isinstance(output, WebhookSettings) else output.address)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _sqlite(path: Path) -> Found:
    size = path.stat().st_size
    if size > _LARGEST_CHECKED:
        yield "ok", f"{size / 1e9:.1f} GB, too large to be read through here"
        return
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said == "ok":
        yield "ok", f"{size / 1e6:.1f} MB, undamaged"
    else:
        yield "fails", f"damaged ({said}): stop the service and restore a backup"


def _records(records: Records) -> Found:
    began = time.perf_counter()
    with records._changing() as connection:
        connection.execute(sa.select(sa.func.count()).select_from(photos).limit(1))
    took = time.perf_counter() - began
    count, newest = records.count(), records.page(limit=1).records
    last = f", the last of {newest[0].time:%Y-%m-%d %H:%M:%S} UTC" if newest else ""
    yield "ok", f"{count:,} records{last}"
    state: State = "look" if took > _SLOW_COMMIT else "ok"
    yield state, f"a transaction takes {1000 * took:.0f} ms"
    if newest and newest[0].time > datetime.now(UTC) + timedelta(minutes=10):
        yield "look", "the last record is of the future: set the clock"


def _photos(data: Path, records: Records) -> Found:
    store = PhotoStore(data / "photos", records)
    newest = sa.select(inspections.c.photo).where(inspections.c.station == records.station)
    with records._reading() as connection:
        query = newest.order_by(inspections.c.id.desc()).limit(_NEWEST_PHOTOS)
        names = set(connection.execute(query).scalars())
    kept = sorted(records.kept_photos(sorted(names)))
    wrong = [sha256 for sha256 in kept if not _is_there(store.path(sha256), sha256)]
    if wrong:
        yield (
            "fails",
            (
                f"of the newest {len(kept)} photos {len(wrong)} are missing or damaged, such as "
                f"{wrong[0][:12]}...: look at the disk, and restore them from a backup"
            ),
        )
    else:
        yield "ok", f"the newest {len(kept)} that are to be there are, undamaged"


def _is_there(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError:
        return False


def _models(data: Path, records: Records) -> Found:
    from reconpatch.engine.engines import engines_present
    from reconpatch.model.parity import verify_sample

    versions = ModelVersions(data / "models", records)
    retired = records.log.products().retired
    for product in records.products():
        if product in retired:
            continue
        try:
            served = versions.serve(product)
            for member in served.inspector.members:
                for agreement in verify_sample(member, engines_present()):
                    state: State = "ok" if agreement.holds else "fails"
                    yield (
                        state,
                        f"{product}, version {served.version.number}: {agreement.sentence()}",
                    )
        except ReconPatchError as error:
            yield "fails", f"{product}: {error}"


def _messages(records: Records) -> Found:
    backlog = records.outbox.backlog()
    if not backlog:
        yield "ok", "none waits to be sent"
    for name, left in sorted(backlog.items()):
        since = f" since {left.oldest:%Y-%m-%d %H:%M:%S} UTC" if left.oldest else ""
        said = f"output {name}: {left.waiting:,} wait{since}, {left.refused:,} were refused"
        yield ("look" if left.refused or left.waiting > 100 else "ok"), said


def _audit(records: Records) -> Found:
    found = verify(records.audit.export())
    yield "ok", f"unbroken, entries: {found.entries:,}, head {found.head}"
