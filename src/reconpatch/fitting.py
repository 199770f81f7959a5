"""From a folder of good photos to a model: the method's steps, in order, each timed.

    good photos ── preprocessing ── patch features p ── f (1-8) ── r = f(p) ── coreset ── bank
                                   ── each photo scored as if it were new ── thresholds

All features of a fit are held in memory until the thresholds are set.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reconpatch.backbones import load_backbone, spec
from reconpatch.calibration import Calibration
from reconpatch.coreset import bank_rows, greedy_coreset, random_projection
from reconpatch.errors import (
    MissingExtraError,
    NotEnoughPhotosError,
    PhotoError,
    SettingsError,
)
from reconpatch.features import Engine, Extractor, FeatureExtractor
from reconpatch.good_photos import (
    GoodScores,
    TrainingPhoto,
    assign_groups,
    leave_one_out,
    with_stand_ins,
)
from reconpatch.images import (
    MAX_PIXELS,
    Photo,
    PhotoSource,
    Preprocessing,
    list_photos,
    read_photo,
    shorter_side,
    white_level_for,
)
from reconpatch.memory_bank import Floats, MemoryBank
from reconpatch.model import Inspector, Model
from reconpatch.representation import Representation, make_representation
from reconpatch.settings import (
    AUTOMATIC,
    FitSettings,
    automatic_size,
    ensemble_settings_for,
    settings_for,
)
from reconpatch.trial import Defects, Trial, guard, make_defects, try_on

Progress = Callable[[str, int, int], None]
"""Called with the name of the step at work, what is done of it, and what there is to do."""

GoodSource = str | os.PathLike[str] | Sequence[PhotoSource]

_BATCH = 16  # photos through the backbone at a time
THUMBNAIL_SIDE = 256  # pixels of the longer side


@dataclass
class FitOptions:
    """What a fit needs besides the settings that decide its result.

    Attributes:
        weights: a file with the backbone's weights; None looks in weight packages, then in
            timm's cache, then downloads; "random" takes random ones (for tests).
        group: regular expression whose brackets name the part in a file name; see
            `reconpatch.good_photos.assign_groups`.
        thumbnails: whether small pictures of the good photos go into the model.
        skip_unreadable: leave out photos that cannot be read, instead of refusing to fit.
        max_pixels: larger photos are refused.
        white_level: the 16-bit value that becomes white; 0 takes the smallest 2^b - 1 that covers
            the good photos.
        device: "cpu" or "cuda".
        threads: of the inference engine; 0 takes OMP_NUM_THREADS or all cores.
        progress: see `Progress`.
        engine: opens a graph for a number of threads; a benchmark's remembers features.
        timer: seconds by the clock that the steps are timed with.
    """

    weights: str | Path | None = None
    group: str | None = None
    thumbnails: bool = True
    skip_unreadable: bool = False
    max_pixels: int = MAX_PIXELS
    white_level: int = 0
    device: str = "cpu"
    threads: int = 0
    progress: Progress | None = None
    engine: Engine = FeatureExtractor
    timer: Callable[[], float] = time.perf_counter


def fit(good: GoodSource, *, recipe: str = "default", **options: Any) -> Inspector:
    """Fit a model on photos of good parts.

    Args:
        good: a folder (searched in depth, photos taken in the order of their names), or a
            sequence of paths, arrays and PIL images.
        recipe: "default", or "paper" for the paper's own settings.
        options: fields of `FitOptions`, and settings to change by name (see
            `reconpatch.settings.settings_for`): `fit("good/", seed=1, method="patchcore")`. A list
            of backbones or of sizes gives an ensemble of them: `fit("good/", size=[224, 448])`;
            lists of both are taken in pairs. `quality` is "fast", "balanced" or "best": see
            `reconpatch.settings.QUALITIES`.

    Raises:
        PhotoError: a photo or the folder cannot be used.
        NotEnoughPhotosError: fewer than two different good photos.
        WeightsError: the backbone's weights are missing or do not fit.
        SettingsError: a setting is unknown or out of its range.
        MissingExtraError: the extra "train" is not installed.
    """
    names = FitOptions.__dataclass_fields__
    chosen = FitOptions(**{name: options.pop(name) for name in list(options) if name in names})
    from reconpatch.ensemble import fit_ensemble, members_of

    own: dict[str, Any] = {"backbone": None, "size": None}
    own |= {name: options.pop(name) for name in (*own, "quality") if name in options}
    members = members_of(**own, recipe=recipe, taken=options)
    if len(members) == 1:
        return fit_model(good, settings_for(recipe, **options, **members[0]), chosen)
    return fit_ensemble(good, ensemble_settings_for(recipe, members, **options), chosen)


def fit_model(good: GoodSource, settings: FitSettings, options: FitOptions) -> Model:
    """Fit with settings and options that are put together already; see `fit`."""
    _require_training_packages()
    _check_device(options.device)
    sources, names, folder = _sources(good)
    if settings.size == AUTOMATIC:
        side = _shorter_side(sources, names)
        settings = replace(settings, size=automatic_size(side, settings.size_limit))
    clock = Clock(options.timer)
    threads = options.threads or default_threads()

    report = _report(options, "load the backbone") or _silent
    with clock.step("load the backbone"):
        report(0, 1)
        graph, extractor, weights = _backbone(settings, options, threads)
        report(1, 1)
    with clock.step("extract features"):
        read = _extract(sources, names, settings, extractor, options)
    _check_enough(read.photos)  # `--group` needs a name to show
    photos, notes = assign_groups(read.photos, options.group)
    notes = read.notes + notes
    _check_enough(photos)
    p = np.concatenate(read.features)  # (n, P, C)
    read.features.clear()
    with clock.step("make defects"):
        defects = make_defects(read.prepared, settings.seed, extractor)
    read.prepared.clear()

    with clock.step("train f"):
        f, log = make_representation(
            p.reshape(-1, p.shape[-1]), settings.method, settings.training, seed=settings.seed,
            parts=np.repeat([photo.group for photo in photos], p.shape[1]),
            device=options.device, progress=_report(options, "train f"),
        )  # fmt: skip
    fitted = _with_bank(f, p, photos, defects, settings, extractor.grid, clock, options)
    guarded = None
    if settings.guard and settings.method == "reconpatch" and fitted.trial and len(defects) > 1:
        identity = _with_bank(
            Representation(), p, photos, defects, settings, extractor.grid, clock, options,
            prefix="identity: ",
        )  # fmt: skip
        guarded = identity.trial and guard(fitted.trial, identity.trial)
        if guarded and guarded.kept == "identity":
            fitted = identity
            notes.append(guarded.sentence())
    elif settings.guard and settings.method == "reconpatch":
        notes.append("The guard had fewer than two made defects to compare on: f is unguarded.")
    provenance = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "folder": folder,
        "weights": weights,
        "engine": f"{type(extractor).__name__}, {threads} threads",
        "versions": _versions(),
        "data_sha256": _data_fingerprint(photos),
        "seconds": clock.seconds,
        "coreset_radius": fitted.radius,
        "training": log.to_dict() if log else None,
        "quality": fitted.trial.quality.to_dict() if fitted.trial else None,
        "guard": guarded.to_dict() if guarded else None,
        "notes": notes,
    }
    return Model(
        settings, read.preprocessing, graph, fitted.f, fitted.bank, photos, fitted.scores,
        fitted.calibration, provenance, read.thumbnails, threads, options.engine,
    )  # fmt: skip


@dataclass(frozen=True)
class _Fitted:
    """A representation with its bank, and what the good photos and the made defects are by it."""

    f: Representation
    bank: MemoryBank
    radius: float
    scores: GoodScores
    calibration: Calibration
    trial: Trial | None = None


def _with_bank(
    f: Representation,
    p: Floats,
    photos: Sequence[TrainingPhoto],
    defects: Defects,
    settings: FitSettings,
    grid: tuple[int, int],
    clock: Clock,
    options: FitOptions,
    *,
    prefix: str = "",
) -> _Fitted:
    """The bank of a representation, calibrated, and tried on the made defects."""
    with clock.step(f"{prefix}build the memory bank"):
        bank, radius = build_bank(
            f(p.reshape(-1, p.shape[-1])), p.shape[1], settings,
            progress=_report(options, f"{prefix}build the memory bank"),
        )  # fmt: skip
        bank = with_stand_ins(
            bank, lambda i: f(p[i]), photos,
            progress=_report(options, f"{prefix}mend for each photo"),
        )  # fmt: skip
    with clock.step(f"{prefix}calibrate"):
        scores = leave_one_out(
            lambda i: f(p[i]), photos, bank, settings.scoring,
            grid=grid, size=settings.size, progress=_report(options, f"{prefix}calibrate"),
        )  # fmt: skip
        calibration = Calibration(
            scores.image_scores,
            scores.map_maxima,
            settings.false_alarm_rate,
            "the good photos of the fit, each scored as if it were new",
        )
    fitted = _Fitted(f, bank, radius, scores, calibration)
    if not len(defects):
        return fitted
    trial = try_on(
        defects, f, bank, photos, scores, settings.scoring,
        threshold=calibration.image_threshold.value, grid=grid, size=settings.size,
    )  # fmt: skip
    return replace(fitted, trial=trial)


def build_bank(
    r: Floats,
    patches_per_photo: int,
    settings: FitSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[MemoryBank, float]:
    """The memory bank of represented patches, and its coreset's radius over the candidates.

    Its stand-ins are yet to be chosen: see `reconpatch.good_photos.with_stand_ins`.

    Args:
        r: (n * P, D) represented patches of all photos, photo by photo.
        patches_per_photo: P.
        settings: size of the bank, projection and seed.
        progress: called with (rows picked, rows).
    """
    rng = np.random.default_rng(settings.seed)
    rows = bank_rows(settings.bank, len(r))
    candidates, space = np.arange(len(r)), r
    if 0 < settings.candidates < len(r):
        candidates = np.sort(rng.permutation(len(r))[: max(settings.candidates, rows)])
        space = r[candidates]
    if settings.projection:
        space = random_projection(space, settings.projection, rng)
    first = int(rng.integers(len(space)))
    coreset = greedy_coreset(space, rows, first=first, progress=progress)
    picked = candidates[coreset.indices]
    kept = r[picked]
    bank = MemoryBank(kept, picked // patches_per_photo, picked % patches_per_photo, kept)
    return bank, coreset.radius


def default_threads() -> int:
    """Threads of the inference engine: OMP_NUM_THREADS, or the number of cores."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return int(stated) if stated.isdecimal() and int(stated) > 0 else os.cpu_count() or 1


def read_good(good: GoodSource, options: FitOptions) -> Iterator[Photo]:
    """The good photos as a fit reads them: in its order, under its names."""
    sources, names, _ = _sources(good)
    return _readable(sources, names, options)


# --- Steps ---------------------------------------------------------------------------------------


def _shorter_side(sources: Sequence[PhotoSource], names: Sequence[str]) -> int:
    """The median of the photos' shorter sides; what cannot be read is told of when it is read."""
    sides = []
    for source, name in zip(sources, names, strict=True):
        with suppress(PhotoError):
            sides.append(shorter_side(source, name=name))
    return int(np.median(sides)) if sides else 0


def _require_training_packages() -> None:
    try:
        import onnx  # noqa: F401
        import timm  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("fit", "train") from None


def _check_device(device: str) -> None:
    import torch

    if device == "cpu":
        return
    if device.partition(":")[0] != "cuda":
        raise SettingsError(f"--device is {device!r}: give cpu or cuda")
    if not torch.cuda.is_available():
        raise SettingsError(
            f"--device is {device!r}, and torch finds no CUDA device on this machine: give cpu, or "
            "install a driver and a build of torch that fit the card"
        )


def _sources(good: GoodSource) -> tuple[list[PhotoSource], list[str], str]:
    """The photos, what to call each, and the name of the folder, where there is one."""
    if isinstance(good, str | os.PathLike):
        folder = Path(good)
        paths = list_photos(folder)
        names = [path.relative_to(folder).as_posix() for path in paths]
        return list(paths), names, folder.resolve().name
    short = _short_names([Path(p) for p in good if isinstance(p, str | os.PathLike)])
    names = [
        short[Path(photo)] if isinstance(photo, str | os.PathLike) else f"<photo {i}>"
        for i, photo in enumerate(good)
    ]
    return list(good), names, ""


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """As many of the last parts of each path as it takes to tell the paths apart."""
    names: dict[Path, str] = {}
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = {path: Path(*path.parts[-depth:]).as_posix() for path in paths}
        if len(set(names.values())) == len(names):
            break
    return names


def _backbone(
    settings: FitSettings, options: FitOptions, threads: int
) -> tuple[bytes, Extractor, dict[str, str]]:
    """The backbone as a graph for the model file, the engine of the fit, and the weights' record.

    The engine that inspects also extracts the training features, so that both see the same numbers;
    on a GPU torch does, and the two differ by rounding.
    """
    from reconpatch.patch_features import PatchFeatures, TorchFeatureExtractor, export_onnx

    backbone = load_backbone(
        spec(settings.backbone, settings.levels or None),
        weights=options.weights,
        input_size=settings.size,
        seed=settings.seed,
    )
    module = PatchFeatures(backbone.module, backbone.mean, backbone.std, settings.neighbourhood)
    graph = export_onnx(module, settings.size)
    extractor: Extractor = options.engine(graph, threads)
    if options.device != "cpu":
        extractor = TorchFeatureExtractor(module, settings.size, options.device)
    return graph, extractor, backbone.source.to_dict()


def _white_level(sources: Sequence[PhotoSource], names: Sequence[str], options: FitOptions) -> int:
    """The white level that covers all photos of 16 bits."""
    photos = _readable(sources, names, options)
    return white_level_for(
        max(int(photo.pixels.max()) for photo in photos if photo.pixels.dtype == np.uint16)
    )


def _readable(
    sources: Iterable[PhotoSource],
    names: Sequence[str],
    options: FitOptions,
    notes: list[str] | None = None,
) -> Iterator[Photo]:
    """The photos one by one; those that cannot be read are refused, or skipped with a note."""
    for source, name in zip(sources, names, strict=True):
        try:
            yield read_photo(source, name=name, max_pixels=options.max_pixels)
        except PhotoError as error:
            if not options.skip_unreadable:
                raise PhotoError(
                    f"{error} Nothing was fitted: mend or remove the photo, or pass "
                    "--skip-unreadable to fit without it."
                ) from error
            if notes is not None:
                notes.append(f"left out: {error}")


@dataclass
class _Read:
    """What one pass over the photos leaves behind."""

    preprocessing: Preprocessing
    photos: list[TrainingPhoto] = field(default_factory=list)
    features: list[Floats] = field(default_factory=list)  # (B, P, C) each
    thumbnails: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    prepared: dict[int, Floats] = field(default_factory=dict)  # photos to make a defect on


def _extract(
    sources: Sequence[PhotoSource],
    names: Sequence[str],
    settings: FitSettings,
    extractor: Extractor,
    options: FitOptions,
) -> _Read:
    """Read every photo once: its record, its thumbnail and its patch features.

    Only where there are photos of 16 bits are they all read once more, for the white level.
    """
    height, width = settings.size
    level = options.white_level
    read = _Read(Preprocessing(height, width, settings.resize or None, level or 65535))
    report = _report(options, "extract features")
    waiting: list[npt.NDArray[np.float32]] = []
    evenly = np.linspace(0, len(sources) - 1, min(settings.defects, len(sources)))
    for_defects = set(np.rint(evenly).astype(int).tolist())

    def flush() -> None:
        if waiting:
            read.features.append(extractor(np.stack(waiting)))
            waiting.clear()

    for photo in _readable(_counted(sources, report), names, options, read.notes):
        if photo.pixels.dtype == np.uint16 and not level:
            level = _white_level(sources, names, options)
            read.preprocessing = replace(read.preprocessing, white_level=level)
        read.photos.append(
            TrainingPhoto(photo.name, photo.sha256, photo.height, photo.width, len(read.photos))
        )
        if options.thumbnails:
            read.thumbnails.append(thumbnail(photo, read.preprocessing.white_level))
        waiting.append(read.preprocessing(photo))
        if len(read.photos) - 1 in for_defects:
            read.prepared[len(read.photos) - 1] = waiting[-1]
        if len(waiting) == _BATCH:
            flush()
    flush()
    return read


def _counted(
    sources: Sequence[PhotoSource], report: Callable[[int, int], None] | None
) -> Iterator[PhotoSource]:
    """The sources one by one, each reported when the next is asked for, readable or not."""
    for i, source in enumerate(sources):
        yield source
        if report is not None:
            report(i + 1, len(sources))


def thumbnail(photo: Photo, white_level: int) -> bytes:
    """A JPEG of a good photo, its longer side at most THUMBNAIL_SIDE pixels."""
    import io

    from PIL import Image

    image = Image.fromarray(photo.rgb8(white_level))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _check_enough(photos: Sequence[TrainingPhoto]) -> None:
    different = len({photo.group for photo in photos})
    if different < 2:
        few = {0: "no good photo is left", 1: "there is only one good photo"}
        what = few.get(len(photos), f"the {len(photos)} good photos are all of one part")
        raise NotEnoughPhotosError(
            f"{what}, and at least two different ones are needed, so that each can be compared "
            "with another; 100 or more make a threshold that can promise a false-alarm rate of 1 %"
        )


# --- Record --------------------------------------------------------------------------------------


@dataclass
class Clock:
    """Seconds of each step by a timer; a step that comes again adds up."""

    timer: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what is done inside the `with`."""
        start = self.timer()
        yield
        passed = self.timer() - start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + passed, 3)


def _silent(done: int, total: int) -> None:
    """Report to nobody."""


def _report(options: FitOptions, step: str) -> Callable[[int, int], None] | None:
    progress = options.progress
    if progress is None:
        return None
    return lambda done, total: progress(step, done, total)


def _versions() -> dict[str, str]:
    packages = ("reconpatch", "numpy", "pillow", "onnxruntime", "torch", "timm")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def _data_fingerprint(photos: Sequence[TrainingPhoto]) -> str:
    import hashlib

    listing = "\n".join(f"{photo.sha256} {photo.name}" for photo in photos)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()
