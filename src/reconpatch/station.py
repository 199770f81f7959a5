"""A station: the models in service, one queue of photos, and what is kept of each verdict.

    submit ──> queue (bounded) ──> worker: micro-batch ──> read ──> inspect ──> photo on the disk,
      │                                                                         row committed
      └──────────────────────────── Future[Record] <─────────────────────────────────┘

One worker takes what has come in the meantime as one batch, so that a batch costs one commit, and
under load more photos share it. A verdict is answered once its row is on the disk. A model is
swapped between two batches: no photo is dropped, and each record says which version judged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from reconpatch.data_folder import DataFolder
from reconpatch.difference import Comparison, check_update, diff
from reconpatch.errors import (
    BusyError,
    NotFoundError,
    PhotoError,
    ReconPatchError,
    SettingsError,
)
from reconpatch.images import MAX_PIXELS, Photo, PhotosInTurn, read_photo_bytes
from reconpatch.model_versions import ModelVersions, Served
from reconpatch.photo_kind import KindsSeen
from reconpatch.photo_store import PhotoStore
from reconpatch.records import Feedback, Filter, Record, Records, Version
from reconpatch.update import update
from reconpatch.version_drift import VersionDrift

if TYPE_CHECKING:
    from reconpatch.model import Inspector
    from reconpatch.result import Result

log = logging.getLogger("reconpatch.station")

NamedBytes = tuple[bytes, str]
"""The bytes of a photo's file, and what it is called."""
RECENT = 1_000
"""Photos of the recent past that a preview of a threshold looks at."""

# Photos that are read at the same time: more would wait for each other on the machines meant.
_READERS = 2
# Pixels of a batch that are in memory at once, unless one photo alone has more.
_BATCH_PIXELS = 32_000_000
_HOUSEKEEPING_SECONDS = 60.0


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
    """

    queue: int = 64
    queue_bytes: int = 256_000_000
    batch: int = 8
    max_pixels: int = MAX_PIXELS
    keep_days: float | None = None
    keep_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("queue", "queue_bytes", "batch", "max_pixels"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}: give 1 or more")
        for name in ("keep_days", "keep_bytes"):
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
    """

    threshold: float
    photos: int
    anomalous_now: int
    anomalous_then: int
    false_alarm_rate: float
    false_alarm_range: tuple[float, float]
    promise: str


@dataclass(frozen=True, eq=False)
class _Job:
    product: str
    content: bytes
    name: str
    answer: Future[Record]


class Station:
    """Models in service, and the worker that inspects with them; safe to use from many threads.

    Args:
        data: the station's folder, locked; closed with the station.
        models: model files to take in; see `ModelVersions.adopt`.
        database: URL of the records' database; None takes SQLite in the folder.
        limits: see there.
        threads: of the inference engine; 0 lets it take all cores.

    Raises:
        SettingsError: neither a file is given nor has the folder a product.
        ReconPatchError: the folder, the database or a model cannot be used.
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
        self.versions = ModelVersions(data.models, self.records, threads=threads)
        try:
            self._served = self._load(models)
            self._drifts = {name: self._drift_of(served) for name, served in self._served.items()}
        except BaseException:
            self.records.close()
            raise
        self._queue = _Queue(self.limits.queue, self.limits.queue_bytes)
        self._changing = threading.RLock()
        self._drifting = threading.Lock()
        self._stopping = threading.Event()
        self._seconds_a_photo = 0.1
        self._kinds: dict[tuple[str, int], KindsSeen] = {}
        self._readers = ThreadPoolExecutor(_READERS, "read")
        self._threads = [
            threading.Thread(target=self._work, name="inspect"),
            threading.Thread(target=self._keep_house, name="housekeeping"),
        ]
        for thread in self._threads:
            thread.start()

    def _load(self, models: Sequence[Path]) -> dict[str, Served]:
        for file in models:
            self.versions.adopt(file)
        products = self.records.products()
        if not products:
            raise SettingsError(
                f"{self.data.path} has no product yet: give a model file that `fit` wrote"
            )
        served = {product: self.versions.serve(product) for product in products}
        for one in served.values():
            _warm(one.inspector)
        return served

    def close(self) -> None:
        """Take no more photos, inspect those that wait, and let go of everything."""
        self._stopping.set()
        self._queue.close()
        for thread in self._threads:
            thread.join()
        self._readers.shutdown()
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
    def waiting(self) -> int:
        """Photos in the queue."""
        return len(self._queue)

    def product(self, name: str | None) -> Served:
        """A product by its name; None is the only one.

        Raises:
            NotFoundError: there is no such product, or several and no name.
        """
        served = self._served
        if name is None and len(served) == 1:
            return next(iter(served.values()))
        if name is None or name not in served:
            given = "no product is named" if name is None else f"there is no product {name!r}"
            raise NotFoundError(f"{given}: give one of {', '.join(sorted(served))}")
        return served[name]

    def submit(self, content: bytes, *, name: str, product: str | None = None) -> Future[Record]:
        """Queue a photo for inspection.

        Args:
            content: the bytes of its file.
            name: what it is called.
            product: name of the product; None is the only one.

        Returns:
            The record, once it is on the disk; or the reason why there is none, a
            ReconPatchError.

        Raises:
            BusyError: too many photos are waiting.
            NotFoundError: there is no such product.
        """
        answer: Future[Record] = Future()
        job = _Job(self.product(product).version.product, content, name, answer)
        if not self._queue.put(job):
            waiting = len(self._queue)
            raise BusyError(waiting, max(1, round(waiting * self._seconds_a_photo)))
        return answer

    def _work(self) -> None:
        while jobs := self._queue.take(self.limits.batch):
            began = time.perf_counter()
            # Whoever sent a photo and went away is not owed a verdict.
            jobs = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            for product in dict.fromkeys(job.product for job in jobs):
                self._inspect(self._served[product], [j for j in jobs if j.product == product])
            if jobs:
                seconds = (time.perf_counter() - began) / len(jobs)
                self._seconds_a_photo += 0.2 * (seconds - self._seconds_a_photo)

    def _inspect(self, served: Served, jobs: Sequence[_Job]) -> None:
        """Answer every job: with its record, or with what went wrong."""
        try:
            for some, photos in self._read(jobs):
                self._judge(served, some, photos)
        except Exception as error:
            if not isinstance(error, ReconPatchError):
                log.exception("a batch could not be inspected")
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)

    def _judge(self, served: Served, jobs: Sequence[_Job], photos: Sequence[Photo]) -> None:
        try:
            results = served.inspector.inspect_batch(photos)
        except PhotoError as error:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
                return
            for i in range(len(jobs)):  # one photo must not cost the others their verdict
                self._judge(served, jobs[i : i + 1], photos[i : i + 1])
            return
        # Only what is stored and committed is answered.
        contents = [job.content for job in jobs]
        records = self.photos.keep(served.version, list(zip(contents, results, strict=True)))
        for job, record in zip(jobs, records, strict=True):
            job.answer.set_result(record)
        self._watch_drift(served, records)
        self._say_kinds(served, results)

    def _say_kinds(self, served: Served, results: Sequence[Result]) -> None:
        """What sets photos apart from those of the fit, the first time that it is seen."""
        name, number = served.version.product, served.version.number
        for result in results:
            for text in self._kinds.setdefault((name, number), KindsSeen()).add(result.notes):
                log.warning("%s: %s is of another kind than the fit's: %s", name, result.name, text)

    def _read(self, jobs: Sequence[_Job]) -> Iterator[tuple[list[_Job], list[Photo]]]:
        """The photos that can be read, in parts that fit in memory; the others are answered."""
        some: list[_Job] = []
        photos: list[Photo] = []
        for first in range(0, len(jobs), _READERS):
            pair = jobs[first : first + _READERS]
            for job, photo in zip(pair, self._readers.map(self._read_one, pair), strict=True):
                if isinstance(photo, PhotoError):
                    job.answer.set_exception(photo)
                    continue
                some.append(job)
                photos.append(photo)
            if sum(photo.height * photo.width for photo in photos) > _BATCH_PIXELS:
                yield some, photos
                some, photos = [], []
        if photos:
            yield some, photos

    def _read_one(self, job: _Job) -> Photo | PhotoError:
        try:
            return read_photo_bytes(job.content, name=job.name, max_pixels=self.limits.max_pixels)
        except PhotoError as error:
            return error

    # --- Look back -----------------------------------------------------------------------------

    def photo(self, record: Record) -> Photo:
        """The photo of a record.

        Raises:
            NotFoundError: it is no longer stored.
        """
        content = self.photos.read(record.photo)
        # The limit may have been lowered since; what was inspected once can be shown.
        pixels = max(self.limits.max_pixels, record.width * record.height)
        return read_photo_bytes(content, name=record.name, max_pixels=pixels)

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
        recent = self.recent(served.version)
        threshold = model.calibration.image_threshold
        return Preview(
            threshold=threshold.value,
            photos=len(recent),
            anomalous_now=sum(record.anomalous for record in recent),
            anomalous_then=sum(record.score > threshold.value for record in recent),
            false_alarm_rate=threshold.stated_rate,
            false_alarm_range=threshold.rate_range(),
            promise=model.calibration.promise,
        )

    def recent(self, version: Version) -> list[Record]:
        """The last records whose scores can be compared with a version's, newest first."""
        return self.records.recent_scores(version.product, version.scores_as, RECENT)

    def set_threshold(
        self, product: str, *, score: float | None = None, rate: float | None = None
    ) -> Version:
        """Put a version with another threshold into service; see `preview`."""
        with self._changing:
            served = self.product(product)
            model = _with_threshold(served.inspector, score, rate)
            how = f"for a false-alarm rate of {rate:g}" if rate is not None else "set by hand"
            note = f"threshold {model.threshold:.4g}, {how}"
            return self._swap(
                self.versions.add(product, model, note=note, threshold_of=served.version)
            )

    def roll_back(self, product: str, number: int | None = None) -> Version:
        """Put an older version back into service.

        Args:
            product: name of the product.
            number: of the version; None takes the parent of the one in service.

        Raises:
            NotFoundError: there is no such version.
        """
        with self._changing:
            now = self.product(product).version
            number = now.parent if number is None else number
            if number is None:
                raise NotFoundError(
                    f"version {now.number} of {product} was made from no other: give the number "
                    "of a version"
                )
            version = self.versions.get(product, number)
            inspector = _warm(self.versions.inspector(product, number))
            self.records.put_in_service(product, number)
            return self._swap(Served(version, inspector))

    def put_into_service(
        self, product: str, model: Inspector, *, note: str, parent: Version | None = None
    ) -> Version:
        """Put a model into service as a new version; a product of a new name is a new product."""
        with self._changing:
            return self._swap(self.versions.add(product, _warm(model), note=note, parent=parent))

    def update(
        self, product: str, good: Sequence[NamedBytes] = (), *, force: bool = False
    ) -> tuple[Version, Comparison]:
        """Let the model learn from feedback, and put what comes of it into service.

        Photos that were flagged and that an operator called good enter the bank. The threshold is
        set anew on photos that were chosen without regard to their verdict only: those of the fit
        and `good`.

        Args:
            product: name of the product.
            good: files of other new good photos, not picked by their verdict.
            force: also when the new version would miss a defect that an operator confirmed.

        Returns:
            The new version, and how it compares with the old one on the photos with feedback.

        Raises:
            UpdateRefusedError: a confirmed defect would be missed; nothing was changed.
            SettingsError: there is nothing to learn from.
            NotEnoughPhotosError: the model knows all of it already.
        """
        with self._changing:
            served = self.product(product)
            new, comparison, note = self._learned(served, good, force=force)
            added = self.versions.add(product, new, note=note, parent=served.version)
            return self._swap(added), comparison

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

    def _swap(self, served: Served) -> Version:
        name = served.version.product
        drift = self._drift_of(served)
        with self._drifting:
            self._drifts = {**self._drifts, name: drift}
        self._served = {**self._served, name: served}
        log.info("%s: version %d in service", name, served.version.number)
        return served.version

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
                found.append((record, inspector.inspect(self.photo(record))))
            except NotFoundError:
                continue
        return found, page.cursor

    # --- Drift ---------------------------------------------------------------------------------

    def drift(self, product: str) -> VersionDrift:
        """Whether the scores of the version in service still look like those of its calibration."""
        return self._drifts[self.product(product).version.product]

    def _drift_of(self, served: Served) -> VersionDrift:
        name = served.version.product
        drift = VersionDrift(self.data.drift(name), served, self.records)
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
                    log.warning("%s: %s", name, alarm.message)

    def _save_drift(self) -> None:
        with self._drifting:
            for drift in self._drifts.values():
                drift.save()

    # --- Housekeeping --------------------------------------------------------------------------

    def _keep_house(self) -> None:
        self._tidy(sweep=True)
        while not self._stopping.wait(_HOUSEKEEPING_SECONDS):
            self._tidy()

    def _tidy(self, *, sweep: bool = False) -> None:
        limits = self.limits
        try:
            if sweep:
                self.photos.sweep()
            self._save_drift()
            self.photos.prune(keep_days=limits.keep_days, keep_bytes=limits.keep_bytes)
        except (ReconPatchError, OSError):
            log.exception("the station could not be tidied; this is tried again")


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
