"""Fits that a station's page starts: one at a time, each in a process of its own.

    start ──> running ──> ready ──> in service
                 └── failed, cancelled

A fit learns from a folder that was named when the service was started, or from photos that were
dropped on the page. One that learns makes the model in service anew, from its good photos and from
the defects that operators confirmed. It is compared with the model in service on the photos of the
recent past, and then waits: only a person puts it into service. `station/fit_process.py` is the
process.

    fits/dropped/0001.png, ...    photos that were dropped; they outlive a restart
    fits/fit-1f3c5a7e.rcp         what a fit came to, until it is in service or thrown away

Nothing else in the folder is touched, and nothing of a process that was killed is removed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from reconpatch.errors import (
    ChangedError,
    NotFoundError,
    PhotoError,
    SettingsError,
    UpdateRefusedError,
)
from reconpatch.files import atomic_write, make_folder, sweep_leftovers
from reconpatch.method.settings import Quality
from reconpatch.model.difference import PhotoChange
from reconpatch.photos.images import read_photo_bytes
from reconpatch.photos.listing import list_photos
from reconpatch.station.orphans import FIT_MODEL
from reconpatch.station.records import Feedback, Filter, Record, Version
from reconpatch.station.station import Asked

if TYPE_CHECKING:
    from reconpatch.station.station import Station

log = logging.getLogger("reconpatch.fits")

State = Literal["running", "ready", "failed", "cancelled", "in service"]

WAIT = "wait until no more photos arrive"
"""The first step, where photos are still being copied into the folder."""
DROPPED = "dropped photos"
"""What a fit's source is called that is no folder."""
MOST_DROPPED = 2_000
"""Photos that can be dropped for one fit."""
MOST_DROPPED_BYTES = 10_000_000_000
"""Bytes of their files together, so that they leave the records some disk."""

# Options of fits that count for one that learns, too.
_OF_REFITS = ("weights", "threads", "device", "memory_limit")
# Photos that a comparison takes besides all those with feedback.
_RECENT = 200
_SHOWN_CHANGES = 50
_SUFFIXES = ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"BM", ".bmp"), (b"RIFF", ".webp"))
_OWN_DROPPED = re.compile(r"[0-9]{4,}\.(png|jpg|bmp|webp|tif)")
# Seconds without a change after which a folder is whole.
QUIET_SECONDS = 3.0
# Seconds between two walks through the folders, and how many times as long as the walk took.
_WALK_SECONDS, _WALK_SHARE = 5.0, 10.0


@dataclass(frozen=True)
class Change(PhotoChange):
    """What the two models say of the photo of a record."""

    record: int
    feedback: Feedback | None


@dataclass(frozen=True)
class FitComparison:
    """A new model beside the one in service, on the same photos.

    Attributes:
        photos: how many were looked at.
        anomalous: how many of them each calls anomalous, (old, new).
        goods: photos that an operator called good.
        false_alarms: how many of these each calls anomalous, (old, new).
        defects: photos that an operator called defects.
        found: how many of these each calls anomalous, (old, new).
        missed: defects that the old one finds and the new one does not.
        changed: photos of which they say different things, those with feedback first; 50 at most.
        good_parts: parts that the thresholds of each follow from, (old, new).
        good_flagged: how many of these each flags, scored as if they were new, (old, new).
        unseen: of confirmed defects that the new one has learned from, what versions that have not
            seen them say; empty for a fit that did not learn.
        unseen_found: how many of these each calls anomalous, (old, new).
        unseen_missed: those that the old one finds and the new one does not, unseen.
    """

    photos: int
    anomalous: tuple[int, int]
    goods: int
    false_alarms: tuple[int, int]
    defects: int
    found: tuple[int, int]
    missed: int
    changed: tuple[Change, ...]
    good_parts: tuple[int, int] = (0, 0)
    good_flagged: tuple[int, int] = (0, 0)
    unseen: tuple[Change, ...] = ()
    unseen_found: tuple[int, int] = (0, 0)
    unseen_missed: int = 0

    @property
    def lost(self) -> str | None:
        """Which confirmed defects would be missed that are found now, or None."""
        if self.missed:
            return (
                f"would miss {self.missed} of {self.defects} confirmed defects, which the model in "
                "service finds"
            )
        if self.unseen_missed:
            return (
                f"has learned from {len(self.unseen)} confirmed defects, and would miss "
                f"{self.unseen_missed} that the model in service finds, had it not seen them"
            )
        return None


@dataclass(frozen=True)
class FitJob:
    """A fit, as far as it has got.

    Attributes:
        product: which it is for.
        source: name of the folder, or `DROPPED`.
        quality: see `reconpatch.method.settings.QUALITIES`; None of one that learns, which has the
            settings of the model in service.
        state: see the module.
        step, done, total: what is at work, and how far.
        seconds: since it began, or how long it took.
        good_photos: that it learned from; 0 before that is known.
        threshold: of the new model, and
        promise: what it promises, once it is compared.
        comparison: with the model in service; None before, and for a new product.
        error: why it failed, in one sentence.
        version: the number under which it went into service.
        parent: the version that it learns from what was said of, or None.
        learned: what came of the confirmed defects, in plain words.
        notes: on what is otherwise than in that version.
    """

    product: str
    source: str
    quality: Quality | None
    state: State = "running"
    step: str = "start"
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    good_photos: int = 0
    threshold: float | None = None
    promise: str = ""
    comparison: FitComparison | None = None
    error: str | None = None
    version: int | None = None
    parent: int | None = None
    learned: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FitFolder:
    """A folder that fits can learn from.

    Attributes:
        name: as the page shows it.
        photos: how many it held at the last look, some seconds ago.
        changing: whether photos were still arriving then.
    """

    name: str
    photos: int
    changing: bool = False


class FitJobs:
    """The fits of a station; safe to use from many threads.

    Args:
        station: whose photos are compared, and which takes the model into service.
        folders: folders of good photos, by the names that the page shows.
        options: of every fit, besides the quality; see `reconpatch.fit`.
    """

    def __init__(
        self,
        station: Station,
        folders: Sequence[Path] = (),
        *,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._station = station
        self._folders = _named(folders)
        self._options = dict(options or {})
        self._scratch = station.data.path / "fits"
        self._lock = threading.RLock()
        self._job: FitJob | None = None
        self._output: Path | None = None
        self._changes = 0
        self._began = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._walks = _Walks(self._folders)
        sweep_leftovers(self._scratch, FIT_MODEL)
        sweep_leftovers(self._dropped, _OWN_DROPPED)
        sizes = {path.name: path.stat().st_size for path in self._own_dropped()}
        self._dropped_count, self._dropped_bytes = len(sizes), sum(sizes.values())
        self._last_number = max((int(name.partition(".")[0]) for name in sizes), default=0)

    @property
    def job(self) -> FitJob | None:
        """The fit at work, or the last one."""
        with self._lock:
            job = self._job
            if job is not None and job.state == "running":
                return replace(job, seconds=time.monotonic() - self._began)
            return job

    @property
    def etag(self) -> str:
        """Names the state of the fit; it changes with each change but a dropped photo."""
        job = self.job
        return f'"fit-{self._changes}-{job.state if job is not None else "none"}"'

    @contextlib.contextmanager
    def unchanged(self, expected: str | None) -> Iterator[None]:
        """Do in the block what follows from a state, and nothing if that has changed.

        Args:
            expected: the `etag` that it follows from; None takes any.

        Raises:
            ChangedError: it has changed.
        """
        with self._lock:
            self._check_expected(expected)
            yield
            self._changes += 1

    def _check_expected(self, expected: str | None) -> None:
        if expected is None or expected == self.etag:
            return
        job = self._job
        now = f"the fit of {job.product} is {job.state}" if job is not None else "there is no fit"
        raise ChangedError(
            f"somebody else did something with the fits in the meantime ({now}): look at it, and "
            "decide again",
            etag=self.etag,
        )

    @property
    def folders(self) -> list[FitFolder]:
        """The folders, and how many photos were in each some seconds ago."""
        return self._walks.folders()

    # --- Dropped photos ------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """How many photos wait for a fit."""
        return self._dropped_count

    @property
    def _dropped(self) -> Path:
        return self._scratch / "dropped"

    def _own_dropped(self) -> list[Path]:
        if not self._dropped.is_dir():
            return []
        return [path for path in self._dropped.iterdir() if _OWN_DROPPED.fullmatch(path.name)]

    def drop(self, content: bytes, *, name: str) -> int:
        """Keep a good photo for the next fit; how many there are now.

        Raises:
            PhotoError: it cannot be read.
            SettingsError: a fit is at work, or there are `MOST_DROPPED` already.
        """
        read_photo_bytes(content, name=name, max_pixels=self._station.limits.max_pixels)
        with self._lock:
            self._check_idle()
            count, size = self._dropped_count, self._dropped_bytes
            if count >= MOST_DROPPED or size + len(content) > MOST_DROPPED_BYTES:
                raise SettingsError(
                    f"{count} photos with {size / 1e9:.1f} GB were dropped, which is the most: "
                    "name a folder with --photos when the service is started"
                )
            path = self._dropped / f"{self._last_number + 1:04}{_suffix(content)}"
            make_folder(path.parent)
            with atomic_write(path) as file:
                file.write(content)
            self._last_number += 1
            self._dropped_count, self._dropped_bytes = count + 1, size + len(content)
            return count + 1

    def clear(self) -> None:
        """Forget the photos that were dropped."""
        with self._lock:
            self._check_idle()
            self._forget_dropped()

    def _forget_dropped(self) -> None:
        for path in self._own_dropped():
            path.unlink(missing_ok=True)
        self._dropped_count = self._dropped_bytes = 0
        for folder in (self._dropped, self._scratch):  # unless there is something else
            with contextlib.suppress(OSError):
                folder.rmdir()

    # --- A fit ---------------------------------------------------------------------------------

    def start(self, product: str, folder: str | None, quality: Quality = "balanced") -> FitJob:
        """Begin a fit.

        Args:
            product: which it is for; a new name is a new product.
            folder: name of one of `folders`; None takes the photos that were dropped.
            quality: see `reconpatch.method.settings.QUALITIES`.

        Raises:
            NotFoundError: there is no such folder.
            SettingsError: a fit is at work already, or the name cannot be a product's.
        """
        product = self._station.versions.check_new(product)
        options = {**self._options, "quality": quality}
        return self._begin(FitJob(product, folder or DROPPED, quality), folder, options)

    def learn(self, product: str, folder: str | None) -> FitJob:
        """Begin to make the model in service anew, to learn from confirmed defects.

        Flagged photos that were called good, which an update taught the model, it is taught again.

        Args:
            product: which it is for.
            folder: name of one of `folders`, where the good photos of the model are; None takes the
                photos that were dropped.

        Raises:
            NotFoundError: there is no such folder or product.
            SettingsError: a fit is at work already, or there is nothing to learn.
        """
        station = self._station
        served = station.product(product)
        told = station.stored(station.records.last_told(product))
        defects = [record for record in told if record.feedback == "defect"]
        if not defects:
            raise SettingsError(
                f"{product} has no confirmed defects to learn from: say on Live of its photos that "
                "they were defects"
            )
        taught = {
            "model": self._file_of(served.version),
            "defects": [
                {
                    "file": self._photo_of(record),
                    "name": record.name,
                    "kind": record.feedback_kind,
                    "place": record.feedback_place and [asdict(s) for s in record.feedback_place],
                }
                for record in defects
            ],
            "confirmed": [
                (self._photo_of(record), record.name)
                for record in told
                if record.feedback == "good" and record.anomalous
            ],
        }
        options = {name: self._options[name] for name in _OF_REFITS if name in self._options}
        job = FitJob(product, folder or DROPPED, None, parent=served.version.number)
        return self._begin(job, folder, options, taught, defects)

    def _file_of(self, version: Version) -> str:
        return str(self._station.versions.path(version).absolute())

    def _photo_of(self, record: Record) -> str:
        return str(self._station.photos.path(record.photo).absolute())

    def _begin(
        self,
        job: FitJob,
        folder: str | None,
        options: Mapping[str, Any],
        taught: dict[str, Any] | None = None,
        defects: Sequence[Record] = (),
    ) -> FitJob:
        """Begin a fit, or an update that learns from defects."""
        good = self._source(folder)
        with self._lock:
            self._check_idle()
            make_folder(self._scratch)
            try:
                self._process = _process()
            except OSError as error:
                raise SettingsError(
                    f"no process could be started for the fit ({error.strerror}): free some "
                    "memory, and try again"
                ) from error
            self._began = time.monotonic()
            self._job = job
            self._throw_away()
            self._output = self._scratch.absolute() / f"fit-{secrets.token_hex(4)}.rcp"
            self._stopped = threading.Event()
            asked = {
                "good": str(good.absolute()),
                "output": str(self._output),
                "options": {"max_pixels": self._station.limits.max_pixels, **options},
                "taught": taught,
            }
            self._thread = threading.Thread(
                target=self._follow, args=(self._process, job, asked, defects), name="fit"
            )
            self._thread.start()
            return self._job

    def cancel(self, expected: str | None = None) -> FitJob | None:
        """Stop a fit, or throw away what came of one; nothing where there is neither.

        Args:
            expected: see `unchanged`.

        Raises:
            ChangedError: it has changed.
        """
        with self._lock:
            self._check_expected(expected)
            self._changes += 1
            if self._job is not None and self._job.state in ("running", "ready"):
                self._job = replace(self._job, state="cancelled", seconds=self._seconds())
        self.close()
        return self.job

    def put_into_service(self, *, force: bool = False, by: str | None = None) -> Version:
        """Make the fit that is ready the next version of its product.

        Args:
            force: also when it would miss a defect that an operator confirmed.
            by: who says so.

        Raises:
            NotFoundError: no fit is ready.
            UpdateRefusedError: it would miss a confirmed defect; nothing was changed.
            ChangedError: it learned from what was said of a version that is in service no more.
        """
        with self._lock:
            job = self._job
            if job is None or job.state != "ready" or self._output is None:
                raise NotFoundError("no fit is ready: start one and wait until it is compared")
            compared = job.comparison
            if compared is not None and compared.lost is not None and not force:
                raise UpdateRefusedError(
                    f"the new model {compared.lost}: fit on other photos, or force it"
                )
            served = self._station.products.get(job.product)
            now = None if served is None else served.version.number
            if job.parent is not None and now != job.parent:
                raise ChangedError(
                    f"version {now} of {job.product} is in service, and what was learned is a "
                    f"successor of version {job.parent}: throw it away, and learn again",
                    etag=self.etag,
                )
            note = f"fitted on {job.good_photos} photos: {job.source}"
            if job.parent is not None:
                note = f"learned from confirmed defects of version {job.parent}, {note}"
            version = self._station.put_into_service(
                job.product,
                self._station.versions.read(self._output),
                note=note,
                parent=served.version if served is not None else None,
                asked=Asked(by=by),
            )
            self._job = replace(job, state="in service", version=version.number)
            self._throw_away()
            if job.source == DROPPED:
                self._forget_dropped()
            return version

    def close(self) -> None:
        """Stop whatever is at work."""
        with self._lock:
            process, thread = self._process, self._thread
            self._stopped.set()
        if process is not None:
            process.kill()
        if thread is not None:
            thread.join()
        with self._lock:
            self._throw_away()

    def _throw_away(self) -> None:
        """Remove what a fit came to, once its process has ended."""
        if self._output is not None:
            with contextlib.suppress(OSError):
                self._output.unlink(missing_ok=True)
            sweep_leftovers(self._scratch, FIT_MODEL)
            with contextlib.suppress(OSError):  # unless there is something else
                self._scratch.rmdir()
            self._output = None

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _check_idle(self) -> None:
        if self._job is not None and self._job.state == "running":
            raise SettingsError(
                f"a fit of {self._job.product} is at work, and there is one at a time: wait for "
                "it, or cancel it"
            )

    def _source(self, folder: str | None) -> Path:
        if folder is None:
            if not self.dropped:
                raise SettingsError("no photos were dropped: drop some, or choose a folder")
            return self._dropped
        if folder not in self._folders:
            names = ", ".join(self._folders) or "none; name some with `serve --photos DIR`"
            raise NotFoundError(f"there is no folder {folder!r} to learn from; there are: {names}")
        return self._folders[folder]

    # --- Its process ---------------------------------------------------------------------------

    def _follow(
        self,
        process: subprocess.Popen[str],
        job: FitJob,
        asked: dict[str, Any],
        defects: Sequence[Record],
    ) -> None:
        """Tell the process what to do and keep what it tells, until it ends."""
        try:
            with process:
                self._converse(process, job, asked, defects)
        except Exception:
            log.exception("a fit could not be followed")
            process.kill()
        with self._lock:
            if self._process is not process:
                return  # the next one has begun
            self._process = None
            if self._job is not None and self._job.state == "running":
                self._change(
                    state="failed",
                    error="the fit's process ended before its work was done: the service's log "
                    "may say why (out of memory is the usual reason)",
                )

    def _converse(
        self,
        process: subprocess.Popen[str],
        job: FitJob,
        asked: dict[str, Any],
        defects: Sequence[Record],
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        records: list[Record] = []
        unseen: list[Any] = []
        if asked["good"] != str(self._dropped.absolute()):
            self._wait_for_quiet(Path(asked["good"]))
        _ask(process.stdin, asked)
        for line in process.stdout:
            told = json.loads(line)
            if "step" in told:
                self._change(**told)
            elif "fitted" in told:
                if (learned := told["learned"]) is not None:
                    self._change(learned=tuple(learned["sentences"]), notes=tuple(learned["notes"]))
                    unseen = learned["unseen"]
                self._change(good_photos=told["fitted"])
                served = self._station.products.get(job.product)
                records = self._to_compare(job.product) if served is not None else []
                photos = [(self._photo_of(record), record.name) for record in records]
                largest = max((r.width * r.height for r in records), default=0)
                _ask(
                    process.stdin,
                    {
                        "new": asked["output"],
                        "old": self._file_of(served.version) if served is not None else None,
                        "photos": photos,
                        "max_pixels": max(self._station.limits.max_pixels, largest),
                    },
                )
            elif "compared" in told:
                self._keep(records, told["compared"], list(zip(defects, unseen, strict=True)))
                return
            else:
                self._change(state="failed", error=told["error"])
                return

    def _wait_for_quiet(self, folder: Path) -> None:
        """Wait while photos are still being copied into a folder."""
        before = _seen(folder)
        if before.quiet_for >= QUIET_SECONDS:
            return
        self._change(step=WAIT)
        while not self._stopped.wait(QUIET_SECONDS):
            now = _seen(folder)
            if now == before:
                return
            before = now

    def _keep(
        self,
        records: Sequence[Record],
        compared: dict[str, Any],
        unseen: Sequence[tuple[Record, tuple[float, float] | None]],
    ) -> None:
        thresholds = compared["thresholds"]
        comparison = None
        if records:
            comparison = _comparison(records, compared["scores"], thresholds, compared["good"])
            comparison = _with_unseen(comparison, unseen, thresholds)
        self._change(
            state="ready", threshold=thresholds[-1], promise=compared["promise"],
            comparison=comparison,
        )  # fmt: skip

    def _change(self, **values: Any) -> None:
        with self._lock:
            if self._job is not None and self._job.state == "running":
                self._job = replace(self._job, **values, seconds=self._seconds())

    def _to_compare(self, product: str) -> list[Record]:
        """Records of stored photos, each photo once: all with feedback, then the last ones."""
        records = self._station.records
        recent = records.page(Filter(product=product), limit=_RECENT).records
        told = records.export(Filter(product=product, feedback="any"))
        return self._station.stored((*told, *recent))


@dataclass(frozen=True)
class _Seen:
    """A folder's photos at one look.

    Attributes:
        photos: how many.
        bytes: of their files together.
        changed: when the last of them was made or written, by the file system's clock.
    """

    photos: int
    bytes: int
    changed: float

    @property
    def quiet_for(self) -> float:
        """Seconds since the last change; below 0 by a clock that is ahead."""
        return time.time() - self.changed


def _seen(folder: Path) -> _Seen:
    count, size, changed = 0, 0, 0.0
    for path in _photos(folder):
        with contextlib.suppress(OSError):  # it has gone again
            state = path.stat()
            # A copy may keep the time of its contents, but not that of its making.
            changed = max(changed, state.st_mtime, state.st_ctime)
            size += state.st_size
            count += 1
    return _Seen(count, size, changed)


class _Walks:
    """What is in folders; walked through now and then beside the requests, never by each."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._found: list[FitFolder] | None = None
        self._next = 0.0
        self._walking = False

    def folders(self) -> list[FitFolder]:
        """The folders as they were at the last walk; the first is waited for."""
        with self._lock:
            found = self._found
            walks = not self._walking and time.monotonic() >= self._next
            self._walking = self._walking or walks
        if found is None and walks:
            return self._walk()
        if walks:
            threading.Thread(target=self._walk, name="walk", daemon=True).start()
        return found or [FitFolder(name, 0, changing=True) for name in self._folders]

    def _walk(self) -> list[FitFolder]:
        began = time.monotonic()
        found = []
        try:
            for name, folder in self._folders.items():
                seen = _seen(folder)
                changing = seen.photos > 0 and seen.quiet_for < QUIET_SECONDS
                found.append(FitFolder(name, seen.photos, changing))
        finally:
            took = time.monotonic() - began
            with self._lock:
                self._found = found
                self._next = began + took + max(_WALK_SECONDS, _WALK_SHARE * took)
                self._walking = False
        return found


def _comparison(
    records: Sequence[Record],
    scores: Sequence[Sequence[float] | None],
    thresholds: Sequence[float],
    good: Sequence[tuple[int, int]],
) -> FitComparison:
    """What two models say of the same photos.

    Args:
        records: of the photos.
        scores: of each photo (old, new), or None where it could not be read.
        thresholds: (old, new).
        good: of each model, how many of the parts that its threshold follows from it flags, and how
            many there are.
    """
    changes = _changes(zip(records, scores, strict=True), thresholds)
    goods = [change for change in changes if change.feedback == "good"]
    defects = [change for change in changes if change.feedback == "defect"]
    changed = [change for change in changes if change.old_anomalous != change.new_anomalous]
    changed.sort(key=lambda change: change.feedback is None)
    return FitComparison(
        photos=len(changes),
        anomalous=_flagged(changes),
        goods=len(goods),
        false_alarms=_flagged(goods),
        defects=len(defects),
        found=_flagged(defects),
        missed=sum(change.old_anomalous and not change.new_anomalous for change in defects),
        changed=tuple(changed[:_SHOWN_CHANGES]),
        good_flagged=(good[0][0], good[-1][0]),
        good_parts=(good[0][1], good[-1][1]),
    )


def _with_unseen(
    comparison: FitComparison,
    unseen: Sequence[tuple[Record, tuple[float, float] | None]],
    thresholds: Sequence[float],
) -> FitComparison:
    """The comparison with what versions say of defects that they have not seen."""
    changes = _changes(unseen, thresholds)
    return replace(
        comparison,
        unseen=tuple(changes),
        unseen_found=_flagged(changes),
        unseen_missed=sum(c.old_anomalous and not c.new_anomalous for c in changes),
    )


def _changes(
    scored: Iterable[tuple[Record, Sequence[float] | None]], thresholds: Sequence[float]
) -> list[Change]:
    """What two models say of records, by their scores (old, new) of each."""
    return [
        Change(
            record.name, both[0], both[1], both[0] > thresholds[0], both[1] > thresholds[1],
            record.id, record.feedback,
        )
        for record, both in scored
        if both is not None
    ]  # fmt: skip


def _flagged(changes: Sequence[Change]) -> tuple[int, int]:
    return sum(c.old_anomalous for c in changes), sum(c.new_anomalous for c in changes)


def _process() -> subprocess.Popen[str]:
    flags = getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0)  # where there is no nice
    return subprocess.Popen(
        [sys.executable, "-m", "reconpatch.station.fit_process"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", creationflags=flags,
    )  # fmt: skip


def _ask(stdin: IO[str], what: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # it was cancelled; stdout ends as well
        stdin.write(json.dumps(what) + "\n")
        stdin.flush()


def check_folders(folders: Sequence[Path]) -> None:
    """Raise PhotoError unless all of them are folders."""
    for folder in folders:
        if not folder.is_dir():
            raise PhotoError(f"{folder} is no folder: give folders of good photos with --photos")


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their names, or by as much of their paths as sets them apart."""
    named: dict[str, Path] = {}
    for folder in folders:
        path = folder.absolute()
        name = next(name for name in _names(path) if named.get(name, path) == path)
        named[name] = path
    return named


def _names(path: Path) -> Iterator[str]:
    for first in range(len(path.parts) - 1, -1, -1):
        yield "/".join(path.parts[first:]).replace("//", "/")


def _photos(folder: Path) -> list[Path]:
    try:
        return list_photos(folder)
    except PhotoError:  # there is none, or no folder
        return []


def _suffix(content: bytes) -> str:
    """The suffix of a photo's format; its own name never reaches the disk."""
    return next((suffix for start, suffix in _SUFFIXES if content.startswith(start)), ".tif")
