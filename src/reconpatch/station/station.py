"""A station: the models in service, one queue of photos, and what is kept of each verdict.

    submit ──> queue (bounded) ──> worker: micro-batch ──> read ──> inspect ──> photo on the disk,
      │                                                                         row committed
      └──────────────────────────── Future[Record] <─────────────────────────────────┘

One worker takes what has come in the meantime as one batch, so that a batch costs one commit, and
under load more photos share it. A verdict is answered once its row is on the disk, and a photo
without a verdict leaves a record of its failure. A model is swapped between two batches: no photo
is dropped, and each record says which version judged.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from reconpatch.errors import (
    BusyError,
    ChangedError,
    ConfirmError,
    ModelFileError,
    NotFoundError,
    OutputError,
    PhotoError,
    ReconPatchError,
    RecordsError,
    SettingsError,
)
from reconpatch.fitting.update import update
from reconpatch.model.difference import Comparison, check_update, diff
from reconpatch.photos.images import (
    MAX_PIXELS,
    Photo,
    PhotosInTurn,
    header_pixels,
    read_photo_bytes,
)
from reconpatch.photos.kind import KindsSeen
from reconpatch.station import orphans
from reconpatch.station.budget import Budget
from reconpatch.station.clock import SteadyClock
from reconpatch.station.confirmed import Confirmed, Scale, confirmed
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.log import Failure, FailureKind, What, known_product
from reconpatch.station.next_parts import NextParts
from reconpatch.station.orphans import Orphans
from reconpatch.station.photo_store import PhotoStore
from reconpatch.station.records import (
    Feedback,
    FileKey,
    Filter,
    Part,
    Record,
    Records,
    Told,
    Version,
)
from reconpatch.station.state import LiveState, ProductState, Readiness, plain_reason
from reconpatch.station.thumbnails import Thumbnails
from reconpatch.station.version_drift import VersionDrift
from reconpatch.station.versions import ModelVersions, Served

if TYPE_CHECKING:
    from reconpatch.model.model import Inspector
    from reconpatch.result import Result

log = logging.getLogger("reconpatch.station")

NamedBytes = tuple[bytes, str]
"""The bytes of a photo's file, and what it is called."""
RECENT = 1_000
"""Photos of the recent past that a preview of a threshold looks at."""

# What the audit trail calls the ways of a version into service.
_PUTS_INTO_SERVICE = ("model", "fit", "update", "threshold", "rollback")

# Photos that are read at the same time: more would wait for each other on the machines meant.
_READERS = 2
# Pixels of a batch that are in memory at once, unless one photo alone has more.
_BATCH_PIXELS = 32_000_000
# What a photo takes while it is read, inspected or drawn, the model apart: measured, 27 for 16-bit
# colours with alpha, and 16 to 19 for all others.
_BYTES_A_PIXEL = 32
# Seconds for which a preview, and a change, score confirmed parts that have no comparable score.
_PREVIEW_SECONDS, _CHANGE_SECONDS = 2.0, 0.5
# The newest photos are kept whatever their age.
_KEEP_NEWEST = 1_000
_UNWRITTEN = 10_000
_LONGEST_NAME, _LONGEST_ERROR = 255, 500
_HOUSEKEEPING_SECONDS = 60.0
# A batch that takes longer will hardly come to an end.
_STUCK_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """How much a station takes and keeps.

    Attributes:
        queue: photos that may wait.
        queue_bytes: bytes of their files together.
        batch: photos of one micro-batch, at most.
        max_pixels: larger photos are refused.
        keep_days: photos are removed when they get older; None keeps any age.
        keep_bytes: the oldest photos are removed when all take more; None keeps any amount.
        keep_photos: the oldest photos are removed when there are more; None keeps any number.
        reserve_bytes: the oldest photos are removed when less of the disk is free.
        decoded_bytes: memory for photos that are decoded, all requests together; a photo that
            takes more is decoded alone.
        stale_after: seconds after which a verdict is no longer fresh; None: never.
    """

    queue: int = 64
    queue_bytes: int = 256_000_000
    batch: int = 8
    max_pixels: int = MAX_PIXELS
    keep_days: float | None = None
    keep_bytes: int | None = None
    keep_photos: int | None = None
    reserve_bytes: int = 1_000_000_000
    decoded_bytes: int = 2_000_000_000
    stale_after: float | None = 60.0

    def __post_init__(self) -> None:
        for name in ("queue", "queue_bytes", "batch", "max_pixels", "decoded_bytes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}: give 1 or more")
        for name in ("keep_days", "keep_bytes", "keep_photos", "reserve_bytes", "stale_after"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise SettingsError(f"{name} is {value}: give 0 or more")


@dataclass(frozen=True)
class Preview:
    """What a threshold would do.

    Attributes:
        threshold: the threshold of the image score.
        photos: photos of the recent past with comparable scores.
        anomalous_now: how many of them were judged anomalous.
        anomalous_then: how many of them score more than the threshold.
        false_alarm_rate: share of good photos expected above it, by the calibration.
        false_alarm_range: 5 % and 95 % quantile of that share over fits.
        promise: the same in plain words.
        confirmed: what it would decide on all parts with feedback, however old.
    """

    threshold: float
    photos: int
    anomalous_now: int
    anomalous_then: int
    false_alarm_rate: float
    false_alarm_range: tuple[float, float]
    promise: str
    confirmed: Confirmed


@dataclass(frozen=True)
class Asked:
    """Who asks for a change, and what they know.

    Attributes:
        expected: the product's `Station.etag` that they saw; None takes any.
        by: who it is, as far as they say.
        confirm: they know that confirmed defects would be missed.
    """

    expected: str | None = None
    by: str | None = None
    confirm: bool = False


@dataclass(frozen=True, eq=False)
class _Job:
    product: str
    content: bytes
    name: str
    answer: Future[Record]
    part: Part
    bound: str | None  # the serial number, where it was scanned for this photo
    file: FileKey | None


class Station:
    """Models in service, and the worker that inspects with them; safe to use from many threads.

    Args:
        data: the station's folder, locked; closed with the station.
        models: model files to take in; see `ModelVersions.adopt`. One that cannot be used leaves
            its product out of service, and stops nothing else.
        database: URL of the records' database; None takes SQLite in the folder.
        limits: see there.
        threads: of the inference engine; 0 lets it take all cores.

    Attributes:
        live: the last verdicts and failures.
        readiness: whether the next photo could be stored.
        decoding: bytes of memory for photos that are decoded.
        orphans: files that the records did not know at start.
        closing: called when the last photo has been inspected, before the records are closed.

    Raises:
        SettingsError: neither a file is given nor has the folder a product.
        ReconPatchError: the folder, the database or all models cannot be used.
    """

    def __init__(
        self,
        data: DataFolder,
        models: Sequence[Path] = (),
        *,
        database: str | None = None,
        limits: Limits | None = None,
        threads: int = 0,
    ) -> None:
        _check_names(models)
        self.limits = limits or Limits()
        self.data = data
        self.records = Records(database or data.database, data.station)
        self.photos = PhotoStore(data.photos, self.records)
        self.thumbnails = Thumbnails(data.path / "thumbnails")
        self.versions = ModelVersions(data.models, self.records, threads=threads)
        self.live = LiveState(self.limits.stale_after)
        self.decoding = Budget(self.limits.decoded_bytes)
        self.orphans = Orphans()
        self.closing: list[Callable[[], None]] = []
        self._out: dict[str, str] = {}
        self._busy: dict[str, What] = {}
        self._tags: dict[str, str] = {}
        try:
            self._served = self._load(models)
            self._drifts = {name: self._drift_of(served) for name, served in self._served.items()}
            self._open_alarms = {name: len(self._alarms(name)) for name in self._all_products}
            self._restore_live()
        except BaseException:
            self.records.close()
            raise
        self.readiness = Readiness(data.path, self.records.check, self.limits.reserve_bytes)
        self._clock = SteadyClock()
        self.next_parts = NextParts()
        self._queue = _Queue(self.limits.queue, self.limits.queue_bytes)
        self._changing = threading.RLock()
        self._drifting = threading.Lock()
        self._unwritten: deque[Failure] = deque(maxlen=_UNWRITTEN)
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._seconds_a_photo = 0.1
        self._batch_began: float | None = None
        self._kinds: dict[tuple[str, int], KindsSeen] = {}
        self._readers = ThreadPoolExecutor(_READERS, "read")
        self._threads = [
            threading.Thread(target=self._work, name="inspect"),
            threading.Thread(target=self._keep_house, name="housekeeping"),
        ]
        for thread in self._threads:
            thread.start()

    def _load(self, models: Sequence[Path]) -> dict[str, Served]:
        """What can be in service; what cannot is noted, and stops nothing else."""
        errors: list[ReconPatchError] = []
        for file in models:
            try:
                self.versions.adopt(file)
            except ReconPatchError as error:
                log.error("a model cannot be used: %s", str(error))
                errors.append(error)
                if isinstance(error, ModelFileError):
                    self._out[file.stem] = str(error)
        self._order = self.records.products()
        named = self.records.log.products()
        self._retired = {name for name in self._order if name in named.retired}
        self._default = named.default
        served = {}
        for product in self._order:
            if product in self._retired:
                continue
            try:
                one = self.versions.serve(product)
                _warm(one.inspector)
            except ReconPatchError as error:
                log.error("a model cannot be used: %s", str(error))
                errors.append(error)
                self._out[product] = str(error)
            else:
                self._tell_unwritten(one)
                served[product] = one
                self._tags[product] = self._tag_of(one.version)
                self._out.pop(product, None)  # the version from before goes on
        try:
            if errors and not served:
                raise errors[0]
        finally:
            errors.clear()  # or the error would hold on to all that it went through
        if not self._order:
            raise SettingsError(
                f"{self.data.path} has no product yet: give a model file that `fit` wrote"
            )
        return served

    def _tell_unwritten(self, served: Served) -> None:
        """Tell the audit trail what is in service, where a kill came before that was told."""
        product = served.version.product
        last = self.records.audit.last(product, _PUTS_INTO_SERVICE)
        was = last.after if last is not None else None
        if was is None or was["version"] != served.version.number:
            self.records.audit.add(
                "model", product, before=was, after=_in_service(served),
                why="found in service at start: the service was stopped before it could say why",
            )  # fmt: skip

    def _restore_live(self) -> None:
        for name in self._all_products:
            last = self.records.page(Filter(product=name), limit=1).records
            failed, _ = self.records.log.failures(name, limit=1)
            self.live.restore(last[0] if last else None, failed[0] if failed else None)

    def close(self) -> None:
        """Take no more photos, inspect those that wait, and let go of everything."""
        self._stopping.set()
        self._queue.close()
        for thread in self._threads:
            thread.join()
        self._readers.shutdown()
        with contextlib.suppress(ReconPatchError):
            self._write_failures()
        for close in self.closing:
            close()
        self.thumbnails.close()
        self.readiness.close()
        self._save_drift()
        self.records.close()
        self.data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Inspect -------------------------------------------------------------------------------

    @property
    def products(self) -> dict[str, Served]:
        """What is in service, by the products' names."""
        return dict(self._served)

    @property
    def _all_products(self) -> list[str]:
        """Names of the products that are in service or should be."""
        return [*self._served, *(name for name in self._out if name not in self._served)]

    @property
    def out(self) -> dict[str, str]:
        """Why a product that should be in service is not, by the products' names."""
        return dict(self._out)

    @property
    def retired(self) -> list[str]:
        """Products that were taken out of service for good, sorted."""
        return sorted(self._retired)

    @property
    def default(self) -> str | None:
        """The product that is meant where none is named: the first, until another is named."""
        names = self._all_products
        if self._default in names:
            return self._default
        return next((name for name in (*self._order, *names) if name in names), None)

    def etag(self, product: str) -> str | None:
        """Names what is in service; it changes with each version that is put into service."""
        return self._tags.get(product)

    def _tag_of(self, version: Version) -> str:
        since = self.records.services(version.product)[0].since
        return f'"{version.number}-{int(1e6 * since.timestamp())}"'

    @property
    def waiting(self) -> int:
        """Photos in the queue."""
        return len(self._queue)

    @property
    def unable(self) -> list[str]:
        """Why no verdict can be given now; none where one can, as far as is known."""
        reasons = self.readiness.reasons
        if not self._served:
            reasons.append("no product is in service")
        began = self._batch_began
        if began is not None and time.perf_counter() - began > _STUCK_SECONDS:
            reasons.append("the photos at work have come to nothing for more than a minute")
        if not self._threads[0].is_alive():
            reasons.append("the service stops")
        return reasons

    def product(self, name: str | None) -> Served:
        """A product by its name; None is the default.

        Raises:
            NotFoundError: there is no such product, or its model cannot be used.
        """
        served = self._served
        name = self.default if name is None else name
        if name in self._out:
            raise NotFoundError(f"{name} is out of service: {self._out[name]}")
        if name is None or name not in served:
            raise NotFoundError(
                f"there is no product {name!r}: give one of {', '.join(sorted(served))}"
            )
        return served[name]

    def state(self) -> list[ProductState]:
        """What there is to say of each product instead of a verdict, from memory."""
        return [
            self.live.of(
                name,
                out=self._out.get(name),
                drift=self._open_alarms.get(name, 0),
                etag=self.etag(name),
                busy=self._busy.get(name),
                serial=self.next_parts.of(name),
            )
            for name in self._all_products
        ]

    def submit(
        self,
        content: bytes,
        *,
        name: str,
        product: str | None = None,
        lot: str | None = None,
        serial: str | None = None,
        file: FileKey | None = None,
    ) -> Future[Record]:
        """Queue a photo for inspection.

        Args:
            content: the bytes of its file.
            name: what it is called.
            product: name of the product; None is the default.
            lot: see `Part`.
            serial: see `Part`; None: what was scanned for the next part, see `NextParts`.
            file: that it was found in, to be known again; see `Records.find_file`.

        Returns:
            The record, once it is on the disk; or the reason why there is none, a
            ReconPatchError.

        Raises:
            BusyError: too many photos are waiting.
            NotFoundError: there is no such product.
        """
        answer: Future[Record] = Future()
        named = self.product(product).version.product
        part = Part.of(lot, serial)
        taken = self.next_parts.take(named, part)
        bound = taken.serial if part.serial is None else None
        if not self._queue.put(_Job(named, content, name, answer, taken, bound, file)):
            self.next_parts.give_back(named, bound)
            waiting = len(self._queue)
            raise BusyError(waiting, max(1, round(waiting * self._seconds_a_photo)))
        return answer

    def _work(self) -> None:
        while jobs := self._queue.take(self.limits.batch):
            began = self._batch_began = time.perf_counter()
            # Whoever sent a photo and went away is not owed a verdict.
            jobs = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            for product in dict.fromkeys(job.product for job in jobs):
                self._inspect(product, [j for j in jobs if j.product == product])
            self._batch_began = None
            if jobs:
                seconds = (time.perf_counter() - began) / len(jobs)
                self._seconds_a_photo += 0.2 * (seconds - self._seconds_a_photo)

    def _inspect(self, product: str, jobs: Sequence[_Job]) -> None:
        """Answer every job: with its record, or with what went wrong."""
        try:
            served = self.product(product)  # it may have been retired since
            for some in self._in_parts(jobs):
                with self.decoding.take(_BYTES_A_PIXEL * sum(pixels for _, pixels in some)):
                    self._judge(served, *self._read([job for job, _ in some]))
        except Exception as error:
            if not isinstance(error, ReconPatchError):
                log.exception("a batch could not be inspected")
            self._refuse([job for job in jobs if not job.answer.done()], error)

    def _refuse(self, jobs: Sequence[_Job], error: Exception) -> None:
        """Answer jobs with what went wrong, and keep that."""
        kind: FailureKind = "photo" if isinstance(error, PhotoError) else "other"
        said = str(error) if isinstance(error, ReconPatchError) else ""
        if isinstance(error, (OutputError, RecordsError, OSError)):
            kind, said = "storage", plain_reason(error)
            if jobs:
                self.readiness.not_stored(said, max(len(job.content) for job in jobs))
        said = said or "the photo could not be inspected: the service's log says why"
        self.failed(*(self._failure(job.product, job.name, kind, said) for job in jobs))
        for job in jobs:
            self.next_parts.give_back(job.product, job.bound)
            job.answer.set_exception(error)

    def _judge(self, served: Served, jobs: Sequence[_Job], photos: Sequence[Photo]) -> None:
        if not jobs:
            return
        try:
            results = served.inspector.inspect_batch(photos)
        except PhotoError as error:
            if len(jobs) == 1:
                self._refuse(jobs, error)
                return
            for i in range(len(jobs)):  # one photo must not cost the others their verdict
                self._judge(served, jobs[i : i + 1], photos[i : i + 1])
            return
        # Only what is stored and committed is answered.
        contents = [job.content for job in jobs]
        inspected = list(zip(contents, results, strict=True))
        parts, files = [job.part for job in jobs], [job.file for job in jobs]
        records = self.photos.keep(served.version, inspected, files=files, parts=parts)
        self.readiness.stored()
        for job, record in zip(jobs, records, strict=True):
            self.live.verdict(record)
            job.answer.set_result(record)
        if not len(self._queue):  # under load, who looks at a photo has it made small
            pairs = [(photo, record.photo) for photo, record in zip(photos, records, strict=True)]
            self.thumbnails.make_later(pairs, served.inspector.white_level)
        self._watch_drift(served, records)
        self._say_kinds(served, results)

    def _say_kinds(self, served: Served, results: Sequence[Result]) -> None:
        """What sets photos apart from those of the fit, the first time that it is seen."""
        name, number = served.version.product, served.version.number
        for result in results:
            for text in self._kinds.setdefault((name, number), KindsSeen()).add(result.notes):
                log.warning("%s: %s is of another kind than the fit's: %s", name, result.name, text)

    def _in_parts(self, jobs: Sequence[_Job]) -> Iterator[list[tuple[_Job, int]]]:
        """Jobs with the pixels of their photos, in parts that fit in memory."""
        part: list[tuple[_Job, int]] = []
        for job in jobs:
            pixels = min(header_pixels(job.content), self.limits.max_pixels)
            if part and sum(pixels for _, pixels in part) + pixels > _BATCH_PIXELS:
                yield part
                part = []
            part.append((job, pixels))
        if part:
            yield part

    def _read(self, jobs: Sequence[_Job]) -> tuple[list[_Job], list[Photo]]:
        """The photos that can be read; the others are answered."""
        read = zip(jobs, self._readers.map(self._read_one, jobs), strict=True)
        found = [(job, photo) for job, photo in read]
        for job, photo in found:
            if isinstance(photo, PhotoError):
                self._refuse([job], photo)
        kept = [(job, photo) for job, photo in found if isinstance(photo, Photo)]
        return [job for job, _ in kept], [photo for _, photo in kept]

    def _read_one(self, job: _Job) -> Photo | PhotoError:
        try:
            return read_photo_bytes(job.content, name=job.name, max_pixels=self.limits.max_pixels)
        except PhotoError as error:
            return error

    # --- Photos that fail ----------------------------------------------------------------------

    def no_photo(self, product: str | None, name: str, error: str, kind: FailureKind) -> None:
        """Keep that a photo did not arrive, or not whole."""
        named = self.default if product is None else product
        if named in self._all_products:
            self.failed(self._failure(str(named), name, kind, error))

    def failed(self, *failures: Failure) -> None:
        """Keep photos without a verdict; where the database is away, as soon as it is back."""
        for failure in failures:
            self.live.failed(failure)
            self._unwritten.append(failure)
        try:
            self._write_failures()
        except ReconPatchError as error:
            log.warning("failed photos could not be kept yet: %s", error)

    def _failure(self, product: str, name: str, kind: FailureKind, error: str) -> Failure:
        name = name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        return Failure(
            None, datetime.now(UTC), product, name[-_LONGEST_NAME:], kind, error[:_LONGEST_ERROR]
        )

    def _write_failures(self) -> None:
        with self._writing:
            waiting = list(self._unwritten)
            for failure in self.records.log.add_failures(waiting):
                self._unwritten.popleft()
                self.live.numbered(failure)

    # --- Look back -----------------------------------------------------------------------------

    def photo(self, record: Record | Told) -> Photo:
        """The photo of a record.

        Raises:
            NotFoundError: it is no longer stored.
        """
        content = self.photos.read(record.photo)
        # The limit may have been lowered since; what was inspected once can be shown.
        pixels = max(self.limits.max_pixels, record.width * record.height)
        return read_photo_bytes(content, name=record.name, max_pixels=pixels)

    @contextlib.contextmanager
    def decoded(self, record: Record | Told, patience: float | None = None) -> Iterator[None]:
        """Hold the memory that the photo of a record takes while it is worked with.

        Raises:
            BusyError: it did not come free in time.
        """
        pixels = record.width * record.height
        with self.decoding.take(_BYTES_A_PIXEL * pixels, patience=patience):
            yield

    def judge_of(self, record: Record) -> Inspector:
        """The model that judged a record."""
        served = self._served.get(record.product)
        if served is not None and served.version.number == record.version:
            return served.inspector
        return self.versions.inspector(record.product, record.version)

    def stored(self, records: Iterable[Record]) -> list[Record]:
        """Those of the records whose photo is still stored, each photo once: its first record."""
        found: dict[str, Record] = {}
        for record in records:
            found.setdefault(record.photo, record)
        kept = self.records.kept_photos(list(found))
        return [record for photo, record in found.items() if photo in kept]

    # --- Change what is in service -------------------------------------------------------------

    def preview(
        self, product: str, *, score: float | None = None, rate: float | None = None
    ) -> Preview:
        """What another threshold would have done to the recent past, and would do to good photos.

        Args:
            product: name of the product.
            score: the threshold as an image score; or
            rate: the false-alarm rate that it is to follow from. Neither: the present one.
        """
        served = self.product(product)
        model = served.inspector
        if score is not None or rate is not None:
            model = _with_threshold(model, score, rate)
        return self._preview(served, served.version, model, _PREVIEW_SECONDS)

    def preview_version(self, product: str, number: int) -> Preview:
        """What putting a version into service would do; see `preview`."""
        version = self.versions.get(product, number)
        inspector = self.versions.inspector(product, number)
        return self._preview(self._served.get(product), version, inspector, _PREVIEW_SECONDS)

    def _preview(
        self, served: Served | None, scored_by: Version, model: Inspector, seconds: float
    ) -> Preview:
        """What a model that scores as a version does would do.

        Args:
            served: what is in service, or None.
            scored_by: the version whose scores it has.
            model: the model.
            seconds: for which parts are scored that have no score of its.
        """
        recent = self.recent(scored_by)
        threshold = model.calibration.image_threshold
        return Preview(
            threshold=threshold.value,
            photos=len(recent),
            anomalous_now=sum(record.anomalous for record in recent),
            anomalous_then=sum(record.score > threshold.value for record in recent),
            false_alarm_rate=threshold.stated_rate,
            false_alarm_range=threshold.rate_range(),
            promise=model.calibration.promise,
            confirmed=self._confirmed(served, scored_by, model, seconds),
        )

    def _confirmed(
        self, served: Served | None, scored_by: Version, model: Inspector, seconds: float
    ) -> Confirmed:
        product = scored_by.product
        versions = self.records.versions(product)

        def scale(version: Version, threshold: float) -> Scale:
            alike = [v.number for v in versions if v.scores_as == version.scores_as]
            return Scale(frozenset(alike), version.scores_as, threshold)

        def score(part: Told) -> float:
            with self.decoded(part):
                return model.judge([self.photo(part)])[0].score

        return confirmed(
            self.records.told(product), product,
            None if served is None else scale(served.version, served.inspector.threshold),
            scale(scored_by, model.threshold), self.records.log, score, seconds,
        )  # fmt: skip

    def recent(self, version: Version) -> list[Record]:
        """The last records whose scores can be compared with a version's, newest first."""
        return self.records.recent_scores(version.product, version.scores_as, RECENT)

    def set_threshold(
        self,
        product: str,
        *,
        score: float | None = None,
        rate: float | None = None,
        asked: Asked | None = None,
    ) -> Version:
        """Put a version with another threshold into service; see `preview`.

        Raises:
            ChangedError: another version is in service than who asks has seen.
            ConfirmError: confirmed defects would be missed, and that is not confirmed.
        """
        asked = asked or Asked()
        with self._changing, self._at_work(product, "threshold"):
            served = self.product(product)
            self._check_expected(product, asked)
            model = _with_threshold(served.inspector, score, rate)
            figures = self._check_missed(served, served.version, model, asked)
            how = f"for a false-alarm rate of {rate:g}" if rate is not None else "set by hand"
            note = f"threshold {model.threshold:.4g}, {how}"
            added = self.versions.add(product, model, note=note, threshold_of=served.version)
            return self._swap(added, "threshold", asked, figures)

    def roll_back(
        self, product: str, number: int | None = None, *, asked: Asked | None = None
    ) -> Version:
        """Put an older version back into service.

        Args:
            product: name of the product.
            number: of the version; None takes the parent of the one in service.
            asked: who asks for it.

        Raises:
            NotFoundError: there is no such version.
            ChangedError: another version is in service than who asks has seen.
            ConfirmError: confirmed defects would be missed, and that is not confirmed.
        """
        asked = asked or Asked()
        with self._changing, self._at_work(product, "rollback"):
            known_product(product, self._all_products)
            self._check_expected(product, asked)
            now = self.versions.in_service(product)
            number = now.parent if number is None else number
            if number is None:
                raise NotFoundError(
                    f"version {now.number} of {product} was made from no other: give the number "
                    "of a version"
                )
            version = self.versions.get(product, number)
            inspector = _warm(self.versions.inspector(product, number))
            figures = self._check_missed(self._served.get(product), version, inspector, asked)
            self.records.put_in_service(product, number)
            return self._swap(Served(version, inspector), "rollback", asked, figures)

    @contextlib.contextmanager
    def _at_work(self, product: str, what: What) -> Iterator[None]:
        """Say in the block what is being changed; engines are asked, which takes seconds."""
        self._busy = {**self._busy, product: what}
        try:
            yield
        finally:
            self._busy = {name: one for name, one in self._busy.items() if name != product}

    def _check_expected(self, product: str, asked: Asked) -> None:
        """Raise ChangedError where another version is in service than the one that was seen."""
        now = self._tags.get(product, "")
        if asked.expected is None or asked.expected == now:
            return
        version = self.versions.in_service(product)
        told, _ = self.records.log.changes(product, limit=1)
        who = f" by {told[0].by}" if told and told[0].by else ""
        since = self.records.services(product)[0].since
        raise ChangedError(
            f"version {version.number} of {product} was put into service{who} at "
            f"{since:%Y-%m-%d %H:%M:%S} UTC ({version.note}): look at it, and decide again",
            etag=now,
        )

    def _check_missed(
        self, served: Served | None, scored_by: Version, model: Inspector, asked: Asked
    ) -> dict[str, Any]:
        """What confirmed parts say of a change, for the audit trail.

        Raises:
            ConfirmError: confirmed defects would be missed, and that is not confirmed.
        """
        found = self._confirmed(served, scored_by, model, _CHANGE_SECONDS)
        figures = {"threshold": model.threshold, "confirmed": asdict(found)}
        if found.asks and not asked.confirm:
            raise ConfirmError(found.sentence, figures=figures)
        return figures | {"asked": found.asks}

    # --- Products ------------------------------------------------------------------------------

    def name_default(self, product: str, *, asked: Asked | None = None) -> None:
        """From now on this product is meant where none is named.

        Raises:
            NotFoundError: there is no such product in service.
            ChangedError: see `set_threshold`.
        """
        with self._changing:
            self.product(product)
            self._check_expected(product, asked or Asked())
            before = self.default
            self.records.log.set_default(product)
            self._default = product
            self._tell_change(
                product, "default", "meant where no product is named", asked,
                before=before, after=product,
            )  # fmt: skip

    def retire(self, product: str, *, asked: Asked | None = None) -> None:
        """Take a product out of service for good; its records, photos and models stay.

        Raises:
            NotFoundError: there is no such product.
            SettingsError: it is the default.
            ChangedError: see `set_threshold`.
        """
        with self._changing:
            known_product(product, self._all_products)
            self._check_expected(product, asked or Asked())
            if product == self.default:
                raise SettingsError(
                    f"{product} is the product that is meant where none is named: name another "
                    "one for that first"
                )
            self.records.log.set_retired(product, retired=True)
            self._save_drift()
            self._retired.add(product)
            self._out.pop(product, None)
            self._tags.pop(product, None)
            self._served = {n: one for n, one in self._served.items() if n != product}
            self._tell_change(product, "retire", "taken out of service", asked)

    def restore(self, product: str, *, asked: Asked | None = None) -> None:
        """Take a retired product up again, with the version that was in service last.

        Raises:
            NotFoundError: no product of this name is retired.
            ModelFileError: its model cannot be used.
        """
        with self._changing:
            known_product(product, self._retired)
            served = self.versions.serve(product)
            _warm(served.inspector)
            self._swap(served, "restore", asked or Asked())

    def _tell_change(
        self,
        product: str,
        what: What,
        note: str,
        asked: Asked | None,
        figures: dict[str, Any] | None = None,
        before: Any = None,
        after: Any = None,
    ) -> None:
        by = asked.by if asked is not None else None
        self.records.log.add_change(
            product, what, note, by=by, figures=figures, before=before, after=after
        )

    def put_into_service(
        self,
        product: str,
        model: Inspector,
        *,
        note: str,
        parent: Version | None = None,
        asked: Asked | None = None,
    ) -> Version:
        """Put a model into service as a new version; a product of a new name is a new product."""
        with self._changing, self._at_work(product, "fit"):
            added = self.versions.add(product, _warm(model), note=note, parent=parent)
            return self._swap(added, "fit", asked or Asked())

    def update(
        self,
        product: str,
        good: Sequence[NamedBytes] = (),
        *,
        force: bool = False,
        asked: Asked | None = None,
    ) -> tuple[Version, Comparison]:
        """Let the model learn from feedback, and put what comes of it into service.

        Photos that were flagged and that an operator called good enter the bank. The threshold is
        set anew on photos that were chosen without regard to their verdict only: those of the fit
        and `good`.

        Args:
            product: name of the product.
            good: files of other new good photos, not picked by their verdict.
            force: also when the new version would miss a defect that an operator confirmed.
            asked: who asks for it.

        Returns:
            The new version, and how it compares with the old one on the photos with feedback.

        Raises:
            UpdateRefusedError: a confirmed defect would be missed; nothing was changed.
            SettingsError: there is nothing to learn from.
            NotEnoughPhotosError: the model knows all of it already.
            ChangedError: see `set_threshold`.
        """
        asked = asked or Asked()
        with self._changing, self._at_work(product, "update"):
            served = self.product(product)
            self._check_expected(product, asked)
            new, comparison, note = self._learned(served, good, force=force)
            added = self.versions.add(product, new, note=note, parent=served.version)
            figures = {"comparison": comparison.to_dict(), "forced": force}
            return self._swap(added, "update", asked, figures), comparison

    def try_update(self, product: str, good: Sequence[NamedBytes] = ()) -> dict[str, Any]:
        """What `update` would change; nothing is changed.

        A missed defect is told, not refused.

        Raises:
            SettingsError: there is nothing to learn from.
        """
        served = self.product(product)
        new, comparison, _ = self._learned(served, good, force=True)
        changes = [*comparison.sentences(), *diff(served.inspector, new).sentences()]
        return {**comparison.to_dict(), "changes": changes}

    def _learned(
        self, served: Served, good: Sequence[NamedBytes], *, force: bool
    ) -> tuple[Inspector, Comparison, str]:
        """A model that knows more, how it compares with the one in service, and a note on it."""
        name = served.version.product
        goods = self._told(name, "good")
        defects = self._told(name, "defect")
        if not good and not goods:
            raise SettingsError(
                f"{name} has nothing to learn from: say of flagged photos that they were good, "
                "or give good photos"
            )
        read = partial(read_photo_bytes, max_pixels=self.limits.max_pixels)
        given = PhotosInTurn([partial(read, content, name=file) for content, file in good])
        new = update(served.inspector, given, confirmed=goods)
        comparison = check_update(served.inspector, new, goods, defects, force=force)
        note = f"learned {len(goods)} confirmed good photos and {len(good)} new ones"
        return new, comparison, note

    def _told(self, product: str, said: Feedback) -> PhotosInTurn:
        """The stored photos of which an operator said this, each once; of good ones the flagged."""
        wanted = Filter(product=product, feedback=said, anomalous=True if said == "good" else None)
        records = self.stored(self.records.export(wanted))
        return PhotosInTurn([partial(self.photo, record) for record in records])

    def _swap(
        self, served: Served, what: What, asked: Asked, figures: dict[str, Any] | None = None
    ) -> Version:
        version, name = served.version, served.version.product
        was = self._served.get(name)
        with contextlib.suppress(ReconPatchError):  # the records have it all
            self._save_drift()
        drift = self._drift_of(served)
        with self._drifting:
            self._drifts = {**self._drifts, name: drift}
        self._tags = {**self._tags, name: self._tag_of(version)}
        self._served = {**self._served, name: served}
        if name not in self._order:
            self._order = [*self._order, name]
        self._out.pop(name, None)
        if name in self._retired:
            self.records.log.set_retired(name, retired=False)
            self._retired.discard(name)
        log.info("%s: version %d in service", name, version.number)
        self._tell_change(
            name, what, f"version {version.number}: {version.note}", asked, figures,
            before=None if was is None else _in_service(was), after=_in_service(served),
        )  # fmt: skip
        return version

    def rescore(
        self, product: str, number: int, *, limit: int, before: int | None = None
    ) -> tuple[list[tuple[Record, Result]], int | None]:
        """What a version says of photos of the recent past, whichever version judged them.

        Args:
            product: name of the product.
            number: of the version.
            limit: of the records that are looked at.
            before: the cursor of the call before.

        Returns:
            One for each record whose photo is still stored, newest first, and the cursor for the
            next call, None at the end.
        """
        inspector = self.versions.inspector(product, number)
        page = self.records.page(Filter(product=product), limit=limit, before=before)
        found = []
        for record in page.records:
            try:
                with self.decoded(record):
                    found.append((record, inspector.inspect(self.photo(record))))
            except NotFoundError:
                continue
        return found, page.cursor

    # --- Drift ---------------------------------------------------------------------------------

    def drift(self, product: str) -> VersionDrift:
        """Whether the scores of the version in service still look like those of its calibration."""
        return self._drifts[self.product(product).version.product]

    def acknowledge(
        self, product: str, *, by: str, note: str = "", up_to: int | None = None
    ) -> None:
        """Acknowledge the open drift alarms of a product; see `StationLog.acknowledge`."""
        known_product(product, self._all_products)
        count = self.records.log.acknowledge(product, by=by, note=note, up_to=up_to)
        self._open_alarms[product] = len(self._alarms(product))
        said = f"{count} drift alarms{f': {note}' if note else ''}"
        self.records.log.add_change(product, "acknowledge", said, by=by)

    def _alarms(self, product: str) -> list[Any]:
        return list(self.records.log.open_alarms(product))

    def _drift_of(self, served: Served) -> VersionDrift:
        name = served.version.product
        file = self.data.drift(name, served.version.number)
        drift = VersionDrift(file, served, self.records)
        for alarm in drift.missed_alarms:
            log.warning("%s: %s", name, alarm.message)
        return drift

    def _watch_drift(self, served: Served, records: Sequence[Record]) -> None:
        name = served.version.product
        with self._drifting:
            drift = self._drifts[name]
            if drift.version != served.version:
                return  # swapped while the batch was inspected
            for record in records:
                if alarm := drift.add(record):
                    self._open_alarms[name] = self._open_alarms.get(name, 0) + 1
                    log.warning("%s: %s", name, alarm.message)

    def _save_drift(self) -> None:
        with self._drifting:
            for drift in self._drifts.values():
                drift.save()

    # --- Housekeeping --------------------------------------------------------------------------

    def _keep_house(self) -> None:
        self._tidy(first=True)
        while not self._stopping.wait(_HOUSEKEEPING_SECONDS):
            self._tidy()

    def _tidy(self, *, first: bool = False) -> None:
        try:
            if first:
                self.photos.sweep()
                self._count_orphans()
            self._write_failures()
            self._save_drift()
            self._prune()
        except (ReconPatchError, OSError):
            log.exception("the station could not be tidied; this is tried again")

    def _count_orphans(self) -> None:
        self.orphans = orphans.count(self.data.path, self.records)
        if said := self.orphans.sentence:
            log.warning("%s.", said)

    def _prune(self) -> None:
        """Remove photos that are too old or too many, or whose room the disk needs."""
        limits, now = self.limits, self._clock.now()
        newest = self.records.newest_photo(now + timedelta(minutes=10))
        trusted = self._clock.is_trusted(newest)
        keep_bytes = limits.keep_bytes
        lacking = limits.reserve_bytes - shutil.disk_usage(self.data.path).free
        if lacking > 0:
            left = max(0, self.records.photo_bytes() - lacking)
            keep_bytes = left if keep_bytes is None else min(keep_bytes, left)
        gone = self.photos.prune(
            keep_days=limits.keep_days if trusted else None,
            keep_bytes=keep_bytes,
            keep_photos=limits.keep_photos,
            keep_newest=_KEEP_NEWEST,
            now=now,
        )
        self.thumbnails.remove(gone)
        if lacking > 0:
            log.warning(
                "less than %.1f GB of the disk were free; %d photos were removed",
                limits.reserve_bytes / 1e9, len(gone),
            )  # fmt: skip


def _in_service(served: Served) -> dict[str, Any]:
    """What is in service, as the audit trail names it."""
    number, fingerprint = served.version.number, served.version.fingerprint
    return {
        "version": number, "threshold": served.inspector.threshold, "fingerprint": fingerprint,
    }  # fmt: skip


def _with_threshold(model: Inspector, score: float | None, rate: float | None) -> Inspector:
    if (score is None) == (rate is None):
        raise SettingsError("a threshold is a score or follows from a rate: give one of the two")
    if score is not None:
        return model.with_threshold(score)
    assert rate is not None
    return model.with_false_alarm_rate(rate)


def _warm(inspector: Inspector) -> Inspector:
    """The same with its engine started: what fails does so here, and no photo waits for it."""
    inspector.inspect(np.full((64, 64), 128, dtype=np.uint8))
    return inspector


def _check_names(models: Sequence[Path]) -> None:
    stems = [file.stem for file in models]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise SettingsError(
            f"several model files are called {twice[0]}: the name is that of the product, so give "
            "each its own"
        )


class _Queue:
    """Jobs in the order in which they came, as many and as large as the bounds allow."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._jobs: deque[_Job] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: _Job) -> bool:
        """Append a job; False where it is full, True where it was taken."""
        with self._changed:
            full = self._closed or len(self._jobs) >= self._most
            # One photo is always taken, however large.
            if full or (self._jobs and self._bytes + len(job.content) > self._most_bytes):
                return False
            self._jobs.append(job)
            self._bytes += len(job.content)
            self._changed.notify()
            return True

    def take(self, most: int) -> list[_Job]:
        """Wait for jobs and take up to so many; nothing once it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            jobs = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
            self._bytes -= sum(len(job.content) for job in jobs)
            return jobs

    def close(self) -> None:
        """Take no more jobs."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
