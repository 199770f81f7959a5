"""The paper's tables by one command: every category, method and seed, fitted, tested, recorded.

    config (TOML) ─┐
    data set ──────┴─> jobs ── fit ── inspect the test photos ── metrics ──> record ──> results.json
                        └── a job whose record is there already is not done again

Nothing is chosen on test photos: settings stand in the config, the threshold comes from the good
photos of the fit. Only the two F1-max figures look at the labels, and say so.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.errors import (
    MissingExtraError,
    OutputError,
    PhotoError,
    SettingsError,
    WeightsError,
    WorkersError,
)
from reconpatch.evaluation.config import Config, load_config
from reconpatch.evaluation.datasets import (
    GOOD,
    Category,
    LabelledPhoto,
    duplicates,
    load_dataset,
    read_defects,
    read_mask,
)
from reconpatch.evaluation.disturbance import Disturbance
from reconpatch.evaluation.feature_cache import DISK_LIMIT, FeatureCache
from reconpatch.evaluation.other_programs import OtherResults, PhotoCounts, read_other_results
from reconpatch.evaluation.tables import (
    BenchmarkOutcome,
    Gallery,
    Picture,
    Record,
    write_tables,
)
from reconpatch.features.backbones import RANDOM
from reconpatch.files import make_folder, read_rows, sha256_of, write_rows
from reconpatch.memory import peak_bytes
from reconpatch.method.metrics import (
    MEMORY_LIMIT,
    METRICS,
    PixelMetrics,
    SaturatedOverlap,
    auroc,
    image_metrics,
)
from reconpatch.method.representation import METHODS, Method
from reconpatch.method.scoring import ScoringSettings
from reconpatch.method.settings import FitSettings
from reconpatch.photos.images import MAX_PIXELS, Photo, read_photo
from reconpatch.scale.workers import as_finished, check_on, on_ray

if TYPE_CHECKING:
    from reconpatch.fitting.model import Clock
    from reconpatch.fitting.options import FitOptions, Progress
    from reconpatch.model.model import Inspector

Masks = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

FORMAT = 1  # of results.json; another number, and nothing in it is reused
CURVE_POINTS = 128

# What concerns every record alike ends the run instead of being noted again and again.
_ENDS_THE_RUN = (MissingExtraError, WeightsError, OutputError)


# --- Records --------------------------------------------------------------------------------------


class _Results:
    """results.json: read once, written whole after every record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        records = read_rows(path, "records", FORMAT, _record)
        self._records = {_identity(record): record for record in records}

    def get(self, job: _Job) -> Record | None:
        """The record of a job, if what decided it is what would decide it now."""
        record = self._records.get(_identity(job))
        usable = record is not None and record.key == job.key and record.error is None
        return record if usable else None

    def put(self, record: Record) -> None:
        """Take a record in the place of an older one of the same job, and write the file."""
        self._records[_identity(record)] = record
        rows = (record.to_dict() for record in self._records.values())
        write_rows(self._path, {"format": FORMAT}, "records", rows)


def _identity(of: Record | _Job) -> tuple[Any, ...]:
    return of.config, of.dataset, of.category, of.method, of.seed


def _record(values: Mapping[str, Any]) -> Record:
    pictures = tuple(Picture(**picture) for picture in values["pictures"])
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    photos = tuple((name, label, score) for name, label, score in values["photos"])
    return Record(**{**values, **lists, "pictures": pictures, "photos": photos})


# --- The run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """One record to make."""

    config: str
    dataset: str
    photos: Category
    method: Method
    seed: int
    settings: Sequence[FitSettings]
    files_sha256: str
    key: str

    @property
    def category(self) -> str:
        return self.photos.name


@dataclass(frozen=True)
class _Run:
    """What all jobs have in common."""

    config: Config
    root: Path
    folder: Path
    options: FitOptions
    _copies: dict[str, list[str]] = field(default_factory=dict)

    def copies(self, category: Category) -> list[str]:
        """A note for each test photo that is also a training photo; looked for once."""
        if category.name not in self._copies:
            self._copies[category.name] = [
                f"{self.name(train)} (fit) and {self.name(test)} (test) are the same picture"
                for train, test in duplicates(category, max_pixels=self.options.max_pixels)
            ]
        return self._copies[category.name]

    def name(self, path: Path) -> str:
        """A photo's name: its path below the root, with forward slashes."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def read(self, path: Path) -> Photo:
        """A photo as the models get it: disturbed, if the config says so."""
        photo = read_photo(path, name=self.name(path), max_pixels=self.options.max_pixels)
        return photo if (how := self.disturbance(path)) is None else how.photo(photo)

    def disturbance(self, path: Path) -> Disturbance | None:
        """What is done to a photo, or None."""
        amounts = self.config.robustness
        return None if amounts is None else Disturbance.draw(amounts, self.name(path))


def run_benchmark(
    root: Path,
    *,
    dataset: str,
    folder: Path,
    categories: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0,),
    config: str | Path = "default",
    changes: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    beside: Sequence[Path] = (),
    on: str | None = None,
    progress: Progress | None = None,
) -> BenchmarkOutcome:
    """Fit and test every category with every method and seed, and write the tables.

    What is in the folder from an earlier run with the same photos, settings and versions is not
    done again. A record that fails is kept with its error, and tried again by the next run.

    Args:
        root: the folder of the data set, or of one category of it.
        dataset: one of `reconpatch.evaluation.datasets.DATASETS`.
        folder: where results.json, results.md, results.html and pictures/ go; made if missing.
        categories: names; None: all.
        methods: of `reconpatch.method.representation.METHODS`.
        seeds: whole numbers, 0 or more.
        config: the name of a config of the package, or the path of a TOML file.
        changes: settings to change from the config, by the names of `settings_for`; the tables say
            so.
        weights: see `reconpatch.fitting.options.FitOptions`, as for the next three.
        device: "cpu" or "cuda".
        threads: of the inference engine; 0 takes OMP_NUM_THREADS or all cores.
        max_pixels: larger photos are refused.
        beside: files of other programs' results to put into the tables; see
            `reconpatch.evaluation.other_programs`.
        on: workers to run on, see `reconpatch.scale.workers`; None: this process. There each fit
            extracts its features itself, and `threads` of 0 is one, so that every core runs a fit.
        progress: called with ("benchmark", records done, records) and with the steps of each fit.

    Raises:
        SettingsError: config, methods, seeds or a change are unknown or out of range; the device
            is not here, or not one of workers; or other results are malformed, or of other photos.
        PhotoError: the data set does not fit its layout.
        WeightsError, MissingExtraError: no model can be fitted at all.
        WorkersError: no Ray cluster answers.
        OutputError: the folder cannot be written, or holds a results.json of something else.
    """
    from reconpatch.fitting.model import check_device
    from reconpatch.fitting.options import FitOptions

    if on is not None:
        check_on(on)
        if device != "cpu":
            raise SettingsError(
                f"the device is {device!r} and workers extract features on CPUs: leave out one of "
                "--device and --on"
            )
        root, folder = root.absolute(), folder.absolute()  # where a worker runs is another matter
        weights = _absolute(weights)
    check_device(device)
    chosen, changed = load_config(config), dict(changes or {})
    wanted = [_method(name) for name in _distinct(methods, "methods")]
    numbers = _distinct(seeds, "seeds")
    options = FitOptions(
        weights=weights, thumbnails=False, max_pixels=max_pixels, device=device, threads=threads,
        progress=progress,
    )  # fmt: skip
    run = _Run(chosen, root, folder, options)
    settings = {
        (method, seed): chosen.fit_settings(method, seed, changed)
        for seed in numbers
        for method in wanted
    }
    others = [read_other_results(path) for path in beside]
    photos = load_dataset(root, dataset, categories)
    others = [_of_these_photos(other, photos) for other in others]
    for made in (folder, folder / "pictures"):  # which of them is in the way is told
        make_folder(made)
    results = _Results(folder / "results.json")
    records = list(_records(run, _jobs(run, dataset, photos, settings), results, on))
    order: list[tuple[str, str, int]] = [
        (category.name, method, seed)
        for category in photos
        for method in wanted
        for seed in numbers
    ]
    records.sort(key=lambda pair: order.index((pair[0].category, pair[0].method, pair[0].seed)))
    outcome = BenchmarkOutcome(
        chosen, dataset, changed, weights == RANDOM, [record for record, _ in records],
        sum(reused for _, reused in records), folder, others,
    )  # fmt: skip
    write_tables(outcome)
    return outcome


def _distinct(values: Sequence[Any], what: str) -> list[Any]:
    if not values:
        raise SettingsError(f"no {what} are given: give at least one")
    return list(dict.fromkeys(values))


def _method(name: str) -> Method:
    if name not in METHODS:
        raise SettingsError(f"the method is {name!r}: give one of {', '.join(METHODS)}")
    return name


def _of_these_photos(other: OtherResults, photos: Sequence[Category]) -> OtherResults:
    """Another program's results of these categories; refused if it saw other photos of them."""
    for category in photos:
        defective = sum(photo.defective for photo in category.test)
        here = PhotoCounts(len(category.train), len(category.test) - defective, defective)
        for record in other.of(category.name):
            if record.photos != here:
                raise SettingsError(
                    f"{other.title} saw other photos of {category.name} than there are here "
                    f"({record.photos}, not {here}): measure it again on this data set"
                )
    names = [category.name for category in photos]
    if not other.only(names).records:
        raise SettingsError(
            f"{other.title} has no record of {', '.join(names)}: leave its file out, or measure it"
        )
    return other.only(names)


def _jobs(
    run: _Run,
    dataset: str,
    photos: Sequence[Category],
    settings: Mapping[tuple[Method, int], Sequence[FitSettings]],
) -> list[_Job]:
    """All records to make: each category with all its seeds and methods, one after the other."""
    common = {
        "format": FORMAT,
        "dataset": dataset,
        "weights": _weights_sha256(run.options.weights),
        "versions": _versions(),
        "device": run.options.device,
        "statistics": run.config.statistics,
        "robustness": asdict(run.config.robustness) if run.config.robustness else None,
    }
    jobs = []
    for category in photos:
        files = _files_sha256(category, run)
        for (method, seed), members in settings.items():
            decides = {**common, "files": files, "settings": [s.to_dict() for s in members]}
            key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
            jobs.append(_Job(run.config.name, dataset, category, method, seed, members, files, key))
    return jobs


def _absolute(weights: str | Path | None) -> str | Path | None:
    if weights is None or not Path(weights).is_file():
        return weights
    return Path(weights).absolute()


def _weights_sha256(weights: str | Path | None) -> str:
    if weights is None or weights == RANDOM:
        return str(weights)
    return _file_sha256(Path(weights)) if Path(weights).is_file() else str(weights)


def _versions() -> dict[str, str]:
    """Of what decides a figure."""
    packages = ("reconpatch", "numpy", "pillow", "onnxruntime", "torch", "timm")
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):  # of the extra "torch"
            found[name] = importlib.metadata.version(name)
    return found


def _files_sha256(category: Category, run: _Run) -> str:
    """SHA-256 over what each file is for, its name and its bytes, and what is said about masks."""
    digest = hashlib.sha256(repr(sorted((category.saturation or {}).items())).encode())
    roles = [("train", path) for path in category.train]
    for photo in category.test:
        roles += [(photo.label, photo.path), *(("mask", mask) for mask in photo.masks)]
    for role, path in roles:
        line = f"{role} {run.name(path)} {_file_sha256(path)}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise PhotoError(f"{path} cannot be read ({error.strerror}): check its rights") from error


def _records(
    run: _Run, jobs: Sequence[_Job], results: _Results, on: str | None
) -> Iterator[tuple[Record, bool]]:
    """The record of each job, and whether it was there before; written as soon as it is made."""
    progress = run.options.progress
    made = _made_on_workers(run, jobs, results, on) if on else _made_here(run, jobs, results)
    with closing(made):  # whatever stops the run stops the workers at once
        for done, (record, before) in enumerate(made, start=1):
            if not before:
                results.put(record)
            if progress is not None:
                progress("benchmark", done, len(jobs))
            yield record, before


def _made_here(
    run: _Run, jobs: Sequence[_Job], results: _Results
) -> Generator[tuple[Record, bool], None, None]:
    """One job after the other; those of a category share their features."""
    refused: dict[str, PhotoError] = {}
    for _, of_category in groupby(jobs, key=lambda job: job.category):
        group = list(of_category)
        with _remembering(run, run.folder, DISK_LIMIT if len(group) > 1 else 0) as sharing:
            for job in group:
                before = results.get(job)
                yield before or _attempt(sharing, job, refused), before is not None


def _made_on_workers(
    run: _Run, jobs: Sequence[_Job], results: _Results, on: str
) -> Generator[tuple[Record, bool], None, None]:
    """Each job as a task of its own, in the order in which they finish."""
    missing = []
    for job in jobs:
        if before := results.get(job):
            yield before, True
        else:
            missing.append(job)
    if not missing:
        return
    options = replace(run.options, progress=None, threads=run.options.threads or 1)
    tasks = [(replace(run, options=options), job) for job in missing]
    with on_ray(on), closing(as_finished(_task, tasks, cpus=options.threads)) as finished:
        for i, record in finished:
            if isinstance(record, WorkersError):
                record = replace(_blank(missing[i]), error=str(record))
            yield record, False


def _task(run_and_job: tuple[_Run, _Job]) -> Record:
    run, job = run_and_job
    with _remembering(run, Path(tempfile.gettempdir()), 0) as alone:
        return _attempt(alone, job, refused={})


@contextmanager
def _remembering(run: _Run, folder: Path, limit: int) -> Iterator[_Run]:
    """The run, but that the features of a photo are extracted once for all its jobs.

    Where nothing may be kept, photos are tested in the same way all the same: how must not hang on
    the number of methods, on the device or on the workers.
    """
    with FeatureCache(folder, limit) as cache:
        options = replace(run.options, remember=cache.remember, timer=cache.timer)
        yield replace(run, options=options)


def _attempt(run: _Run, job: _Job, refused: dict[str, PhotoError]) -> Record:
    """The record of a job, or one that says why there is none.

    Args:
        run: what all jobs have in common.
        job: the job.
        refused: by category, why its photos cannot be used. Another method or seed would meet the
            same photo again, hours later perhaps, and is not tried.
    """
    try:
        if job.category in refused:
            raise refused[job.category]
        return _measure(run, job)
    except _ENDS_THE_RUN:
        raise
    except Exception as error:
        if isinstance(error, PhotoError):
            refused[job.category] = error
        reason = str(error) or "no reason given"
        if not isinstance(error, SettingsError | PhotoError):
            reason = f"{type(error).__name__}: {reason}"
        return replace(_blank(job), error=_without_root(reason, run.root))


def _blank(job: _Job) -> Record:
    return Record(
        job.config, job.dataset, job.category, job.method, job.seed, job.key,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        settings=tuple(settings.to_dict() for settings in job.settings),
        versions={**_versions(), "machine": f"{platform.system()} {platform.machine()}"},
        hashes={"files": job.files_sha256},
    )  # fmt: skip


def _without_root(text: str, root: Path) -> str:
    """The text with paths below the data set's folder as names in it."""
    return text.replace(f"{root}{os.sep}", "").replace(str(root), "the data set's folder")


# --- One record -----------------------------------------------------------------------------------


def _measure(run: _Run, job: _Job) -> Record:
    """Fit, inspect every test photo, and work out the figures."""
    from reconpatch.fitting.model import Clock

    model, test = _fit(run, job), job.photos.test
    defective = np.array([photo.defective for photo in test])
    clock = Clock(run.options.timer)
    with _Pixels(job.photos) as pixels:
        scores, gallery = _inspect(run, job, model, pixels, clock)
        with clock.step("metrics"):
            by_kind = _by_kind(job.photos, scores, pixels)
            image = image_metrics(defective, scores)
            metrics = {**image, **pixels.metrics(), **_means(by_kind)}
            curves = pixels.curves()
    provenance, flagged = model.provenance, scores > model.threshold
    notes = [
        *job.photos.notes,
        *run.copies(job.photos),
        *_unused(job.photos),
        *provenance["notes"],
    ]
    return replace(
        _blank(job),
        settings=tuple(member.settings.to_dict() for member in model.members),
        metrics={name: metrics[name] for name in METRICS if name in metrics},
        by_kind=by_kind,
        counts={
            "fit": len(model.photos),
            "good": int((~defective).sum()),
            "defective": int(defective.sum()),
            "masked": sum(bool(photo.masks) for photo in test),
        },
        threshold={
            "value": model.threshold,
            "false_alarms": int((flagged & ~defective).sum()),
            "detected": int((flagged & defective).sum()),
        },
        protocol=tuple(
            _protocol(job.photos, run.config, job.settings[0].scoring, run.options.device)
        ),
        notes=tuple(_without_root(note, run.root) for note in notes),
        seconds={**provenance["seconds"], **clock.seconds},
        peak_memory=peak_bytes() or None,
        hashes={
            "files": job.files_sha256,
            "good photos": provenance["data_sha256"],
            "model": model.fingerprint,
        },
        photos=tuple(
            (run.name(photo.path), photo.label, score)
            for photo, score in zip(test, scores.tolist(), strict=True)
        ),
        curves=curves,
        pictures=tuple(gallery.write(run.folder, job.key)),
    )


def _fit(run: _Run, job: _Job) -> Inspector:
    from reconpatch.fitting.ensemble import fit_members

    with _good_photos(run, job.photos) as good:
        return fit_members(good, job.settings, run.options, run.config.statistics)


@contextmanager
def _good_photos(run: _Run, category: Category) -> Iterator[list[Path]]:
    """The photos to fit on; disturbed ones as files that go when the fit is done."""
    if run.config.robustness is None:
        yield list(category.train)
        return
    with tempfile.TemporaryDirectory() as folder:
        disturbed = []
        for i, path in enumerate(category.train):
            disturbed.append(Path(folder, f"{i:05}-{path.stem}.png"))
            Image.fromarray(run.read(path).pixels).save(disturbed[-1], compress_level=1)
        yield disturbed


def _inspect(
    run: _Run, job: _Job, model: Inspector, pixels: _Pixels, clock: Clock
) -> tuple[Doubles, Gallery]:
    """Inspect the test photos one by one: (n,) their scores, and pictures of the worst verdicts."""
    progress, test = run.options.progress, job.photos.test
    scores, gallery = np.empty(len(test)), Gallery()
    for i, labelled in enumerate(test):
        with clock.step("read"):
            photo = run.read(labelled.path)
        with clock.step("inspect"):
            result = model.inspect(photo)
        with clock.step("metrics"):
            defects = _defects(job.photos, labelled, photo, run)
            pixels.add(labelled, defects, result.heatmap)
        scores[i] = result.score
        if result.anomalous != labelled.defective:
            masks = [mask for mask, _ in defects]
            gallery.offer(labelled, result, photo.rgb8(model.white_level), masks)
        if progress is not None:
            progress("inspect", i + 1, len(test))
    return scores, gallery


def _defects(
    category: Category, labelled: LabelledPhoto, photo: Photo, run: _Run
) -> list[tuple[Masks, float]]:
    """The masks of a photo, moved with it, and of MVTec LOCO's what saturates each, in pixels."""
    if not labelled.masks:
        return []
    height, width, limit = photo.height, photo.width, run.options.max_pixels
    how = run.disturbance(labelled.path)
    move = (lambda mask: mask) if how is None else how.mask
    if category.saturation is None:
        return [(move(read_mask(labelled, height, width, max_pixels=limit)), 1.0)]
    defects: list[tuple[Masks, float]] = []
    for mask, value in read_defects(labelled, height, width, max_pixels=limit):
        if value not in category.saturation:
            raise PhotoError(
                f"{labelled.path} has a defect of pixel value {value}, which defects_config.json "
                "does not name: unpack the data set again"
            )
        saturation = category.saturation[value].pixels(int(np.count_nonzero(mask)))
        defects.append((move(mask), saturation))
    return defects


class _Pixels:
    """The pixel metrics of a category; a context manager that removes their temporary files."""

    def __init__(self, category: Category) -> None:
        self._masks = any(photo.masks for photo in category.test)
        self._kinds = _kinds(category)
        self._stack = ExitStack()
        limit = MEMORY_LIMIT // (1 + len(self._kinds))
        self._all = self._stack.enter_context(PixelMetrics(memory_limit=limit))
        self._saturated = {
            kind: self._stack.enter_context(SaturatedOverlap(memory_limit=limit))
            for kind in self._kinds
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(
        self,
        photo: LabelledPhoto,
        defects: Sequence[tuple[Masks, float]],
        heatmap: npt.NDArray[np.float32],
    ) -> None:
        """Take one more photo; one of a kind that has no masks at all counts for nothing."""
        if not self._masks or (photo.defective and not photo.masks):
            return
        union = np.zeros(heatmap.shape, dtype=bool)
        for mask, _ in defects:
            union |= mask
        self._all.add(union, heatmap)
        for kind, overlap in self._saturated.items():
            if photo.label in (GOOD, kind):
                # A disturbed photo may have lost a defect over its edge.
                overlap.add([(m, s) for m, s in defects if m.any()], heatmap)

    def metrics(self) -> dict[str, float | None]:
        """The figures of all photos; nothing without masks."""
        return {**self._all.result()} if self._masks else {}

    def saturated(self, kind: str) -> dict[str, float]:
        """sPRO over the good photos and those of one kind."""
        return self._saturated[kind].result()

    def curves(self) -> dict[str, list[list[float]]]:
        """The ROC and the PRO curve of all photos, for plots."""
        if not self._masks:
            return {}
        curves = self._all.curves(CURVE_POINTS)
        return {name: curve.round(5).tolist() for name, curve in curves.items()}


def _kinds(category: Category) -> list[str]:
    """The kinds of anomalies that MVTec LOCO measures apart; none elsewhere."""
    if category.saturation is None:
        return []
    return sorted({photo.label for photo in category.test if photo.defective})


def _by_kind(category: Category, scores: Doubles, pixels: _Pixels) -> dict[str, dict[str, float]]:
    labels = np.array([photo.label for photo in category.test])
    figures = {}
    for kind in _kinds(category):
        inside = (labels == GOOD) | (labels == kind)
        area = auroc((labels != GOOD)[inside], scores[inside])
        figures[kind] = {"image_auroc": area, **pixels.saturated(kind)}
    return figures


def _means(by_kind: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Over the kinds, unweighted."""
    names = next(iter(by_kind.values()), {})
    return {name: float(np.mean([kind[name] for kind in by_kind.values()])) for name in names}


def _unused(category: Category) -> list[str]:
    unlabelled = {split: len(paths) for split, paths in category.unlabelled.items()}
    validation = {"validation": len(category.validation)} if category.validation else {}
    return [
        f"{count} photos of {split} are not used"
        for split, count in (validation | unlabelled).items()
    ]


def _protocol(
    category: Category, config: Config, scoring: ScoringSettings, device: str
) -> list[str]:
    """How it was measured, in plain words."""
    masked = [photo for photo in category.test if photo.masks]
    counts = "above 0" if any(p.nonzero_masks for p in masked) else "above half of white"
    said = ["Image score: the score of the verdict; AUROC counts ties half."]
    if config.recipe == "paper":
        applied = (
            f"applied with b = {scoring.b}"
            if scoring.b > 1
            else "not applied, as in PatchCore's code (b = 1); --set b=3 applies it"
        )
        said.append(
            f"The re-weighting of the paper's equation 10 is {applied}: the paper does not say "
            "over how many rows b it goes."
        )
    if masked:
        said.append(
            "Pixels: at the photos' own resolution, the map enlarged to it; a pixel of a mask is "
            f"defective {counts}; what the model does not see (cropped off) is left out."
        )
        said.append(
            "AUPRO: 8-connected regions, all distinct scores, integrated to a false positive rate "
            "of 0.3 and of 0.05 and divided by it."
        )
    if device != "cpu":
        said.append(f"Features of all photos, of the fit and of the test, are torch's on {device}.")
    if category.saturation is not None:
        said.append(
            "MVTec LOCO: image AUROC and sPRO are the mean of two, one over good photos and "
            "logical anomalies, one over good photos and structural ones; the rest is over all."
        )
    if config.robustness is not None:
        amounts = ", ".join(f"{k} {v:g}" for k, v in asdict(config.robustness).items())
        said.append(
            f"Training and test photos are disturbed by up to: {amounts}; by the name of each "
            "photo, the same for every method and seed; masks are moved with their photos."
        )
    return said
