"""The drift monitor of a version in service: its state is on the disk, its photos in the records.

DATA/drift/PRODUCT@0003.json    the state of version 3, and the last record that it knows of

Each version has its own, so that one which is put back into service goes on where it was. Alarms
are kept in the records until somebody acknowledges them; see `StationLog`.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconpatch.errors import ReconPatchError
from reconpatch.files import atomic_write, make_folder
from reconpatch.station.drift import DriftAlarm, DriftMonitor
from reconpatch.station.records import Filter, Record, Records
from reconpatch.station.versions import Served

log = logging.getLogger("reconpatch.station")


class VersionDrift:
    """The drift monitor of a version, whose state is on the disk and catches up with the records.

    Args:
        file: of the state.
        served: the version and its model.
        records: of which those of this version count.

    Attributes:
        version: the version that is watched.
        monitor: what was seen so far.
        missed_alarms: of photos that were recorded after the state was saved.
        last_alarm: the last one that was told, if any.
    """

    def __init__(self, file: Path, served: Served, records: Records) -> None:
        self._file, self.version, self._log = file, served.version, records.log
        self._untold: list[dict[str, Any]] = []
        self.monitor, self._last = self._load() or (DriftMonitor(served.inspector.calibration), 0)
        self._saved = self._last
        self.last_alarm: DriftAlarm | None = None
        # What was recorded after the state was saved, or by a service, in the order of the photos.
        wanted = Filter(product=self.version.product, version=self.version.number)
        missed = []
        for record in records.export(wanted):
            if record.id <= self._last:
                break
            missed.append((record.id, record.score))  # whole records would be too many to hold
        alarms = [self._add(number, score) for number, score in reversed(missed)]
        self.missed_alarms = tuple(alarm for alarm in alarms if alarm is not None)

    def add(self, record: Record) -> DriftAlarm | None:
        """One more record of this version, in the order of their numbers; a known one is none."""
        return self._add(record.id, record.score) if record.id > self._last else None

    def _add(self, number: int, score: float) -> DriftAlarm | None:
        self._last = number
        alarm = self.monitor.add(score)
        self.last_alarm = alarm or self.last_alarm
        if alarm is not None:
            self._untold.append(
                {
                    "time": datetime.now(UTC),
                    "product": self.version.product,
                    "version": self.version.number,
                    "record": number,
                    "photo": alarm.photo,
                    "direction": alarm.direction,
                    "message": alarm.message,
                }
            )
            self._tell()
        return alarm

    def _tell(self) -> None:
        """Keep alarms in the records; a database that is away gets them later."""
        try:
            while self._untold:
                self._log.add_alarm(self._untold[0])
                del self._untold[0]
        except ReconPatchError as error:
            log.warning("a drift alarm could not be kept yet: %s", error)

    def save(self) -> None:
        """Write the state where it has changed."""
        self._tell()
        if self._untold:
            return  # the state would say that they were told
        if self._last == self._saved:
            return
        state = {
            "fingerprint": self.version.fingerprint,
            "record": self._last,
            "monitor": self.monitor.to_dict(),
        }
        make_folder(self._file.parent)
        with atomic_write(self._file) as file:
            file.write(json.dumps(state).encode())
        self._saved = self._last

    def _load(self) -> tuple[DriftMonitor, int] | None:
        """The monitor of this very version and its last record, if they can be read."""
        earlier = self._file.with_name(f"{self.version.product}.json")  # of all its versions
        try:
            state = json.loads((self._file if self._file.exists() else earlier).read_bytes())
            if state["fingerprint"] != self.version.fingerprint:
                return None
            return DriftMonitor.from_dict(state["monitor"]), int(state["record"])
        except (OSError, ValueError, LookupError, TypeError):
            return None  # the records have it all
