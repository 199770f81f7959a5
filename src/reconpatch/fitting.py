"""From a folder of good photos to a model: the method's steps, in order, each timed.

    good photos ── preprocessing ── patch features p ── f (1-8) ── r = f(p) ── coreset ── bank
                                   ── each photo scored as if it were new ── thresholds
                                   ── one graph of it all ── engines compared ── model

Features are extracted once and kept, in memory or on disk (`reconpatch.patch_store`); r takes the
place of p.
"""

from __future__ import annotations

import copy
import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from reconpatch.backbones import load_backbone, spec
from reconpatch.calibration import Calibration
from reconpatch.coreset import bank_rows, greedy_coreset, random_projection
from reconpatch.engines import NumpyEngine, StoredGraph
from reconpatch.errors import (
    MissingExtraError,
    NotEnoughPhotosError,
    PhotoError,
    SettingsError,
)
from reconpatch.features import Extractor, FeatureEngine, FeatureExtractor
from reconpatch.good_photos import (
    CALIBRATED,
    Covering,
    GoodScores,
    TrainingPhoto,
    assign_groups,
    cover,
    leave_one_out,
    with_stand_ins,
)
from reconpatch.images import (
    MAX_PIXELS,
    Bytes,
    Photo,
    PhotoSource,
    as_bytes,
    list_photos,
    photo_size,
    read_photo,
    white_level_for,
)
from reconpatch.layout import Layout, View
from reconpatch.memory import physical_bytes, resident_bytes
from reconpatch.memory_bank import Floats, MemoryBank
from reconpatch.model import Inspector, Model
from reconpatch.parity import SAMPLE_PHOTOS, Sample, checked_sample
from reconpatch.patch_store import PatchStore
from reconpatch.preprocessing import Preprocessing
from reconpatch.read_ahead import read_ahead
from reconpatch.region_of_interest import RegionOfInterest
from reconpatch.registration import Registration
from reconpatch.representation import Representation, make_representation
from reconpatch.settings import (
    FitSettings,
    automatic_tile,
    ensemble_settings_for,
)
from reconpatch.trial import Defects, Guard, Trial, guard, make_defects, try_on

if TYPE_CHECKING:
    from reconpatch.patch_features import PatchFeatures

Progress = Callable[[str, int, int], None]
"""Called with the name of the step at work, what is done of it, and what there is to do."""

GoodSource = str | os.PathLike[str] | Sequence[PhotoSource]

_BATCH = 4  # photos through the backbone at a time: more take more memory and no less time
_ENGINE_BYTES = 300 * 2**20  # what the engine and decoded photos take beside the features
_LEAST_BYTES = 100 * 2**20
TILED_ROWS = 8000
"""Most rows that a share of the patches of photos in tiles comes to."""
TILED_CANDIDATES = 400_000
"""Patches, drawn at random, among which the bank of photos in tiles is picked."""
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
        roi: the region of interest: a file as `reconpatch.region_of_interest` reads it, or an
            (H, W) bool array, True where photos are inspected; None: everywhere.
        memory_limit: bytes that the process may take; features beyond go to a temporary file, and
            the bank is a coreset of coresets. 0 for no limit.
        on: where the photos are read; None for this process, else see
            `reconpatch.workers.check_on`.
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
    engine: FeatureEngine = FeatureExtractor
    timer: Callable[[], float] = time.perf_counter
    memory_limit: int = 0
    on: str | None = None
    roi: str | Path | npt.NDArray[np.bool_] | None = None


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
    from reconpatch.ensemble import fit_members

    return fit_members(good, *parts_of(recipe, options))


def parts_of(recipe: str, options: Mapping[str, Any]) -> tuple[list[FitSettings], FitOptions]:
    """What `fit` takes by name, put together: the settings of each model to fit, and the options.

    Raises:
        SettingsError: a setting is unknown or out of its range.
    """
    from reconpatch.ensemble import members_of

    rest = dict(options)
    names = FitOptions.__dataclass_fields__
    chosen = FitOptions(**{name: rest.pop(name) for name in options if name in names})
    own: dict[str, Any] = {"backbone": None, "size": None}
    own |= {name: rest.pop(name) for name in (*own, "quality") if name in rest}
    members = members_of(**own, recipe=recipe, taken=rest)
    return ensemble_settings_for(recipe, members, **rest), chosen


def fit_model(good: GoodSource, settings: FitSettings, options: FitOptions) -> Model:
    """Fit with settings and options that are put together already; see `fit`."""
    if options.on is None:
        return _fit_model(good, settings, options, Steps())
    from reconpatch.distributed_fit import by_workers

    with by_workers(options) as steps:
        return _fit_model(good, settings, options, steps)


class Steps:
    """The steps that go over all photos, in this process; `distributed_fit` has others."""

    def kept_photos(self, photos: int) -> int:
        """Of how many photos the features are kept here."""
        return photos

    def extract(
        self,
        reading: Reading,
        module: PatchFeatures,  # noqa: ARG002 - for workers
        extractor: Extractor,
        patches: PatchStore,
        threads: int,
    ) -> Read:
        """Read every photo, and keep the features."""
        return reading.extract(extractor, patches, threads)

    def training_patches(
        self, patches: PatchStore, photos: Sequence[TrainingPhoto], settings: FitSettings
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """(N, C) features that f is trained on, and the (N,) groups of their photos.

        Of those that are not in memory, as many as may be.
        """
        groups = np.array([photo.group for photo in photos])
        if patches.in_memory:
            return patches.flat, np.repeat(groups, patches.places)
        rng = np.random.default_rng(settings.seed)
        chosen = np.sort(rng.choice(patches.patches, patches.at_hand, replace=False))
        return patches.take(chosen), groups[chosen // patches.places]

    def photo(self, patches: PatchStore) -> Callable[[int], Floats]:
        """What gives the (P, D) represented patches of a photo whose features are kept."""
        return patches.photo

    def bank(
        self,
        f: Representation,  # noqa: ARG002 - for workers
        patches: PatchStore,
        settings: FitSettings,
        progress: Callable[[int, int], None] | None,
    ) -> MemoryBank:
        """The memory bank of f; `patches` are represented already."""
        return build_bank(patches, settings, progress=progress)

    def cover(
        self,
        f: Representation,  # noqa: ARG002 - for workers
        bank: MemoryBank,
        patches: PatchStore,
        photos: Sequence[TrainingPhoto],
        progress: Callable[[int, int], None] | None,
    ) -> Covering:
        """How the bank covers the patches of all photos."""
        return cover(bank, patches.photo, photos, progress=progress)


def _fit_model(good: GoodSource, settings: FitSettings, options: FitOptions, steps: Steps) -> Model:
    _require_training_packages()
    _check_device(options.device)
    sources, names, folder = _sources(good)
    sizes = _sizes(sources, names)
    settings = automatic_tile(settings, sizes.median)
    preprocessing = _preprocessing(settings, options, sources, names)
    clock = Clock(options.timer)
    threads = options.threads or default_threads()
    report = _report(options, "load the backbone") or _silent
    with clock.step("load the backbone"):
        report(0, 1)
        module, extractor, weights = _backbone(settings, options, threads)
        report(1, 1)
    layout = preprocessing.layout(extractor.grid, sizes.first)
    settings = _bounded_bank(settings, layout, len(sources))
    kept = steps.kept_photos(len(sources))
    with _store_for(kept, layout.places, extractor, options) as patches:
        with clock.step("extract features"):
            reading = Reading(sources, names, settings, preprocessing, layout, options)
            read = steps.extract(reading, module, extractor, patches, threads)
        _check_enough(read.photos)  # `--group` needs a name to show
        photos, notes = assign_groups(read.photos, options.group)
        notes = read.notes + notes
        _check_enough(photos)
        with clock.step("make defects"):
            chosen = dict(islice(read.prepared.items(), settings.defects))
            defects = make_defects(chosen, settings.seed, extractor)
        with clock.step("train f"):
            p, parts = steps.training_patches(patches, photos, settings)
            f, log = make_representation(
                p, settings.method, settings.training, seed=settings.seed, parts=parts,
                device=options.device, progress=_report(options, "train f"),
            )  # fmt: skip
            del p
        fit = _Fit(photos, defects, settings, layout, extractor.grid, clock, options, steps)
        fitted, guarded = fit.with_banks(f, patches)
    with clock.step("write the graph"):
        graph = _graph(module, fitted, settings)
        del module  # with the weights, which are in the graph now
        engine = _engine(graph, extractor, fitted.f, settings, threads, options)
    if guarded and guarded.kept == "identity":
        notes.append(guarded.sentence())
    elif settings.guard and settings.method == "reconpatch" and not guarded:
        notes.append("The guard had fewer than two made defects to compare on: f is unguarded.")
    provenance = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "folder": folder,
        "weights": weights,
        "features": f"{type(extractor).__name__}, {threads} threads",
        "versions": _versions(),
        "data_sha256": _data_fingerprint(photos),
        "seconds": clock.seconds,
        "coreset_radius": fitted.radius,
        "training": log.to_dict() if log else None,
        "quality": fitted.trial.quality.to_dict() if fitted.trial else None,
        "guard": guarded.to_dict() if guarded else None,
        "notes": notes,
    }
    thumbnails = read.thumbnails or _thumbnails_of(fitted.bank, sources, read, options)
    half = slice(SAMPLE_PHOTOS // 2)
    good_views = [pixels for _, pixels in read.prepared.values()]
    sample = Sample.of(good_views[half], defects.pixels[half])
    model = Model(
        settings, read.preprocessing, fitted.f, fitted.bank, photos, fitted.scores,
        fitted.calibration, provenance, engine, thumbnails, sample,
    )  # fmt: skip
    with clock.step("compare engines"):
        reference = NumpyEngine(extractor, fitted.f, settings.scoring)
        checked = checked_sample(model, lambda x: reference(x, fitted.bank))
    return model.with_samples([checked])


@dataclass(frozen=True)
class _Fitted:
    """A representation with its bank, and what the good photos and the made defects are by it."""

    f: Representation
    bank: MemoryBank
    radius: float
    scores: GoodScores
    calibration: Calibration
    trial: Trial | None = None


@dataclass(frozen=True)
class _Fit:
    """What all banks of a fit have in common."""

    photos: Sequence[TrainingPhoto]
    defects: Defects
    settings: FitSettings
    layout: Layout
    grid: tuple[int, int]  # of a view
    clock: Clock
    options: FitOptions
    steps: Steps

    def with_banks(self, f: Representation, patches: PatchStore) -> tuple[_Fitted, Guard | None]:
        """The bank of f, or that of the identity where the guard prefers it; p gives way to r.

        No distance depends on the bias of f, so it is chosen: the good patches' mean becomes the
        origin, where squared distances lose the fewest digits.
        """
        mean = patches.mean()
        centred = Representation(None, (-mean).astype(np.float32))
        patches.represent(centred)
        settings = self.settings
        guarded = settings.guard and settings.method == "reconpatch" and len(self.defects) > 1
        identity = None
        if f.weight is None or guarded:
            prefix = "" if f.weight is None else "identity: "
            identity = self.with_bank(centred, patches, prefix)
        if f.weight is None and identity:
            return identity, None
        assert f.weight is not None
        learned = Representation(f.weight, (-(f.weight @ mean)).astype(np.float32))
        patches.represent(Representation(f.weight))
        fitted = self.with_bank(learned, patches)
        if not (identity and identity.trial and fitted.trial):
            return fitted, None
        decision = guard(fitted.trial, identity.trial)
        return (identity if decision.kept == "identity" else fitted), decision

    def with_bank(self, f: Representation, patches: PatchStore, prefix: str = "") -> _Fitted:
        """The bank of represented patches, calibrated, and tried on the made defects."""
        settings, photos, steps = self.settings, self.photos, self.steps
        photo = steps.photo(patches)
        with self.clock.step(f"{prefix}build the memory bank"):
            report = self._report(f"{prefix}build the memory bank")
            bank = steps.bank(f, patches, settings, report)
        with self.clock.step(f"{prefix}calibrate"):
            report = self._report(f"{prefix}search for each photo")
            covering = steps.cover(f, bank, patches, photos, report)
            bank = with_stand_ins(bank, photo, photos, covering)
            scores = leave_one_out(
                photo, photos, bank, settings.scoring, self.layout, covering=covering,
                progress=self._report(f"{prefix}calibrate"),
            )  # fmt: skip
            calibration = Calibration(
                scores.image_scores,
                scores.map_maxima,
                settings.false_alarm_rate,
                _calibrated_on(len(scores.photos), len(photos)),
            )
        fitted = _Fitted(f, bank, covering.radius, scores, calibration)
        if not len(self.defects):
            return fitted
        with self.clock.step(f"{prefix}try on made defects"):
            trial = try_on(
                self.defects, f, bank, photos, scores, settings.scoring, self.layout,
                threshold=calibration.image_threshold.value, grid=self.grid,
            )  # fmt: skip
        return replace(fitted, trial=trial)

    def _report(self, step: str) -> Callable[[int, int], None] | None:
        return _report(self.options, step)


def _calibrated_on(scored: int, photos: int) -> str:
    which = "the good photos" if scored == photos else f"{scored} of the {photos} good photos"
    return f"{which} of the fit, each scored as if it were new"


def _graph(module: PatchFeatures, fitted: _Fitted, settings: FitSettings) -> bytes:
    from reconpatch.inspection_graph import InspectionGraph

    rows = len(fitted.bank)
    graph = InspectionGraph(module.cpu(), fitted.f, settings.scoring, settings.size, rows)
    return graph.to_onnx()


def _engine(
    graph: bytes,
    extractor: Extractor,
    f: Representation,
    settings: FitSettings,
    threads: int,
    options: FitOptions,
) -> StoredGraph:
    """The default engine; where features are remembered, one that goes on remembering them."""
    if options.engine is FeatureExtractor:
        return StoredGraph(graph, threads=threads)
    return StoredGraph(graph, threads=threads, opened=NumpyEngine(extractor, f, settings.scoring))


def build_bank(
    patches: PatchStore,
    settings: FitSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> MemoryBank:
    """The memory bank of represented patches.

    Its stand-ins are yet to be chosen: see `reconpatch.good_photos.with_stand_ins`.

    Args:
        patches: of all good photos.
        settings: size of the bank, candidates, projection and seed.
        progress: called with (rows picked, rows).
    """
    rng = np.random.default_rng(settings.seed)
    rows = bank_rows(settings.bank, patches.patches, settings.bank_least)
    if 0 < settings.candidates < patches.patches:
        count = max(settings.candidates, rows)
        candidates = np.sort(rng.permutation(patches.patches)[:count])
        picked = candidates[pick(patches.take(candidates), rows, settings, rng, progress)]
    elif patches.in_memory:
        picked = pick(patches.flat, rows, settings, rng, progress)
    else:
        picked = _picked_by_merging(patches, rows, settings, rng, progress)
    kept = patches.take(picked)
    return MemoryBank(kept, picked // patches.places, picked % patches.places, kept)


def pick(
    r: Floats,
    rows: int,
    settings: FitSettings,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.int64]:
    """The greedy coreset of (N, D) patches, in a projection where that has far fewer dimensions."""
    space = r
    if 0 < 2 * settings.projection <= r.shape[1]:
        space = random_projection(r, settings.projection, rng)
    first = int(rng.integers(len(space)))
    return greedy_coreset(space, rows, first=first, progress=progress).indices


def _picked_by_merging(
    patches: PatchStore,
    rows: int,
    settings: FitSettings,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> npt.NDArray[np.int64]:
    """A coreset of coresets: that of each part that fits in memory, then that of them all.

    No patch is further from the bank than the two covering radii together.
    """
    picked = np.empty(0, np.int64)
    at_hand = max(patches.at_hand - 2 * rows, patches.at_hand // 2)
    for start, block in patches.blocks(at_hand):
        r = block.reshape(-1, patches.channels)
        mine = pick(r, rows, settings, rng) if len(r) > rows else np.arange(len(r))
        picked = np.concatenate([picked, mine + start * patches.places])
        if len(picked) > max(2 * rows, at_hand // 2):
            picked = picked[pick(patches.take(picked), rows, settings, rng)]
        if progress is not None:
            progress(min(rows, rows * (start + len(block)) // len(patches)), rows)
    if len(picked) > rows:
        picked = picked[pick(patches.take(picked), rows, settings, rng)]
    return picked


def default_threads() -> int:
    """Threads of the inference engine: OMP_NUM_THREADS, or the number of cores."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return int(stated) if stated.isdecimal() and int(stated) > 0 else os.cpu_count() or 1


def read_good(good: GoodSource, options: FitOptions) -> Iterator[Photo]:
    """The good photos as a fit reads them: in its order, under its names."""
    sources, names, _ = _sources(good)
    return readable(sources, names, options)


# --- Steps ---------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """Height and width of the photos: those of the first, and the median of each."""

    first: tuple[int, int]
    median: tuple[int, int]


def _sizes(sources: Sequence[PhotoSource], names: Sequence[str]) -> _Sizes:
    """The photos' sizes; what cannot be read is told of when it is read."""
    sizes = []
    for source, name in zip(sources, names, strict=True):
        with suppress(PhotoError):
            sizes.append(photo_size(source, name=name))
    if not sizes:
        return _Sizes((1, 1), (1, 1))
    height, width = np.median(sizes, axis=0)
    return _Sizes(sizes[0], (int(height), int(width)))


def _preprocessing(
    settings: FitSettings,
    options: FitOptions,
    sources: Sequence[PhotoSource],
    names: Sequence[str],
) -> Preprocessing:
    region, registration = None, None
    if settings.register:
        registration = Registration.to(next(readable(sources, names, options)))
    if isinstance(options.roi, np.ndarray):
        region = RegionOfInterest.of(options.roi)
    elif options.roi is not None:
        region = RegionOfInterest.read(options.roi)
    if region and settings.resize:
        raise SettingsError(
            f"resize is {settings.resize} and a region of interest is given, which says already "
            "what of a photo is inspected: give one of the two"
        )
    return Preprocessing(
        *settings.size,
        settings.resize or None,
        options.white_level or 65535,
        settings.tile,
        settings.overlap if settings.tile else 0,
        region,
        registration,
    )


def _bounded_bank(settings: FitSettings, layout: Layout, photos: int) -> FitSettings:
    """The settings with a bank and candidates that photos in tiles can bear.

    A share of all patches of large photos would be more rows than can be searched, and a greedy
    selection among all of them would take hours: a number of rows that was given stays as it is.
    """
    if not layout.in_tiles:
        return settings
    patches = photos * layout.places
    rows = bank_rows(settings.bank, patches, settings.bank_least)
    if settings.bank < 1 and rows > TILED_ROWS:
        settings = replace(settings, bank=float(TILED_ROWS), bank_least=0)
    if not settings.candidates and patches > TILED_CANDIDATES:
        settings = replace(settings, candidates=TILED_CANDIDATES)
    return settings


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
) -> tuple[PatchFeatures, Extractor, dict[str, str]]:
    """The frozen backbone, what extracts the training features, and the weights' record.

    The rule, whatever is faster somewhere: ONNX Runtime on a CPU, torch on any other device.
    """
    from reconpatch.patch_features import PatchFeatures, TorchFeatureExtractor, export_onnx

    backbone = load_backbone(
        spec(settings.backbone, settings.levels or None),
        weights=options.weights,
        input_size=settings.size,
        seed=settings.seed,
    )
    module = PatchFeatures(backbone.module, backbone.mean, backbone.std, settings.neighbourhood)
    extractor: Extractor
    if options.device == "cpu":
        extractor = options.engine(export_onnx(module, settings.size), threads)
    else:  # of its own, since the module is traced on the CPU later
        own = copy.deepcopy(module)
        extractor = TorchFeatureExtractor(own, settings.size, options.device)
    return module, extractor, backbone.source.to_dict()


def _white_level(sources: Sequence[PhotoSource], names: Sequence[str], options: FitOptions) -> int:
    """The white level that covers all photos of 16 bits."""
    photos = readable(sources, names, options)
    return white_level_for(
        max(int(photo.pixels.max()) for photo in photos if photo.pixels.dtype == np.uint16)
    )


def readable(
    sources: Iterable[PhotoSource],
    names: Sequence[str],
    options: FitOptions,
) -> Iterator[Photo]:
    """The photos one by one; those that cannot be read are refused, or skipped."""
    for source, name in zip(sources, names, strict=True):
        try:
            yield read_photo(source, name=name, max_pixels=options.max_pixels)
        except PhotoError as error:
            _refuse_or_note(error, options)


def _refuse_or_note(error: PhotoError, options: FitOptions) -> str:
    """A note on a photo that is left out; raises PhotoError unless that was asked for."""
    if not options.skip_unreadable:
        raise PhotoError(
            f"{error} Nothing was fitted: mend or remove the photo, or pass "
            "--skip-unreadable to fit without it."
        ) from error
    return f"left out: {error}"


@dataclass
class Read:
    """What one pass over the photos leaves behind, apart from their features."""

    preprocessing: Preprocessing
    photos: list[TrainingPhoto] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)  # which source each photo came from
    thumbnails: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # The part of some photos to make a defect on, prepared.
    prepared: dict[int, tuple[View, Bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """One pass over the photos: of each its record, its thumbnail and its patch features."""

    sources: Sequence[PhotoSource]
    names: Sequence[str]
    settings: FitSettings
    preprocessing: Preprocessing
    layout: Layout
    options: FitOptions
    views: frozenset[int] | None = None  # photos to keep a view of; None: see `kept_views`

    def extract(self, extractor: Extractor, patches: PatchStore, threads: int) -> Read:
        """Read every photo once.

        Photos are decoded, and prepared where they are seen at once, by threads while the engine
        is at work on others. Only where there are photos of 16 bits are they all read once more,
        for the white level.
        """
        sources, options = self.sources, self.options
        level = options.white_level
        read = Read(self.preprocessing)
        report = _report(options, "extract features") or _silent
        kept = kept_views(self.settings, len(sources)) if self.views is None else self.views
        waiting: list[Floats] = []

        def flush() -> None:
            if waiting:
                patches.add(self._of_whole_photos(extractor(np.stack(waiting))))
                waiting.clear()

        for i, decoded in enumerate(read_ahead(self._decode, range(len(sources)), threads)):
            report(i + 1, len(sources))
            if isinstance(decoded, PhotoError):
                read.notes.append(_refuse_or_note(decoded, options))
                continue
            photo = decoded.photo
            if photo.pixels.dtype == np.uint16 and not level:
                level = _white_level(sources, self.names, options)
                read.preprocessing = replace(read.preprocessing, white_level=level)
            if photo.pixels.dtype == np.uint16:  # those read ahead did not know the level
                decoded = self._prepare(photo, read.preprocessing)
            n = len(read.photos)
            read.photos.append(
                TrainingPhoto(photo.name, photo.sha256, photo.height, photo.width, n)
            )
            read.sources.append(i)
            if self._thumbnails:
                read.thumbnails.append(decoded.thumbnail)
            if self.layout.in_tiles:
                _check_same_size(photo, self.layout)
                patches.add(self._of_tiles(photo, read.preprocessing, extractor))
            else:
                waiting.append(decoded.prepared)
            if n in kept:
                read.prepared[n] = self._kept_view(n, decoded, read.preprocessing)
            if len(waiting) == _BATCH:
                flush()
        flush()
        return read

    def _of_whole_photos(self, features: Floats) -> Floats:
        """(B, P, C) features of the inspected patches of photos that are seen at once."""
        (view,) = self.layout.views
        return features if self.layout.plain else features[:, view.cells]

    def _of_tiles(self, photo: Photo, preprocessing: Preprocessing, extractor: Extractor) -> Floats:
        """(1, P, C) features of a photo that is seen in tiles."""
        views = preprocessing.views(photo, self.layout)
        features: Floats = self.layout.joined(extractor(view[None])[0] for view in views)
        return features[None]

    def _kept_view(
        self, n: int, decoded: _Decoded, preprocessing: Preprocessing
    ) -> tuple[View, Bytes]:
        """The n-th photo, or the tile of it that is kept: one that is not mostly uninspected."""
        views = self.layout.views
        if not self.layout.in_tiles:
            return views[0], as_bytes(decoded.prepared)
        most = max(len(view.places) for view in views)
        worthy = [view for view in views if 2 * len(view.places) >= most]
        rng = np.random.default_rng([self.settings.seed, n])
        view = worthy[rng.integers(len(worthy))]
        return view, as_bytes(preprocessing.view(decoded.photo, self.layout, view))

    def _decode(self, i: int) -> _Decoded | PhotoError:
        limit = self.options.max_pixels
        try:
            photo = read_photo(self.sources[i], name=self.names[i], max_pixels=limit)
            _ = photo.sha256  # by the thread that reads
            return self._prepare(self.preprocessing.registered(photo), self.preprocessing)
        except PhotoError as error:
            return error

    def _prepare(self, photo: Photo, preprocessing: Preprocessing) -> _Decoded:
        small = thumbnail(photo, preprocessing.white_level) if self._thumbnails else b""
        if self.layout.in_tiles:  # a tile at a time, when its turn comes
            return _Decoded(photo, np.empty(0, np.float32), small)
        return _Decoded(photo, preprocessing(photo), small)

    @property
    def _thumbnails(self) -> bool:
        return self.options.thumbnails and len(self.sources) <= CALIBRATED


def kept_views(settings: FitSettings, photos: int) -> frozenset[int]:
    """Photos that are kept prepared: for made defects, and for the sample of the file."""
    count = max(settings.defects, SAMPLE_PHOTOS // 2)
    evenly = np.linspace(0, photos - 1, min(count, photos))
    return frozenset(np.rint(evenly).astype(int).tolist())


class _Decoded(NamedTuple):
    """A photo, prepared for the model unless it is seen in tiles, and its thumbnail."""

    photo: Photo
    prepared: Floats
    thumbnail: bytes


def _check_same_size(photo: Photo, layout: Layout) -> None:
    height, width = layout.size
    if (photo.height, photo.width) != (height, width):
        raise PhotoError(
            f"{photo.name}: {photo.width} x {photo.height} pixels, and the first good photo has "
            f"{width} x {height}: photos that are seen in tiles have one size, so leave out or "
            "crop those of another"
        )


def _thumbnails_of(
    bank: MemoryBank, sources: Sequence[PhotoSource], read: Read, options: FitOptions
) -> list[bytes]:
    """Thumbnails of the photos that the bank has rows of; of the others of very many, none."""
    if not options.thumbnails:
        return []
    thumbnails = [b""] * len(read.photos)
    for i in np.unique(bank.photo):
        source = sources[read.sources[i]]
        photo = read_photo(source, name=read.photos[i].name, max_pixels=options.max_pixels)
        photo = read.preprocessing.registered(photo)  # boxes are in that frame
        thumbnails[i] = thumbnail(photo, read.preprocessing.white_level)
    return thumbnails


def _store_for(photos: int, places: int, extractor: Extractor, options: FitOptions) -> PatchStore:
    """Where the features go; beside them a third of their memory each goes to blocks and copies.

    Without a limit they may take half of the machine's memory, which only large photos or very many
    do.
    """
    memory = _room(options.memory_limit) // 3 if options.memory_limit else physical_bytes() // 2
    return PatchStore(photos, places, extractor.channels, memory=memory)


def _room(limit: int) -> int:
    """Bytes that features and what is made of them may take within a limit of the whole process.

    Raises:
        SettingsError: the libraries alone take so much that nothing is left.
    """
    taken = resident_bytes() + _ENGINE_BYTES
    if limit - taken < _LEAST_BYTES:
        least = -(-(taken + _LEAST_BYTES) // 2**20)
        raise SettingsError(
            f"the memory limit is {limit / 2**20:.0f} MiB, and the libraries and the engine need "
            f"{taken / 2**20:.0f} MiB before the first photo: give {least} MiB or more"
        )
    return limit - taken


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
