"""From a folder of good photos to a model: the method's steps, in order, each timed.

    good photos ── preprocessing ── patch features p ── f (1-8) ── r = f(p) ── coreset ── bank
                                   ── each photo scored as if it were new ── thresholds
                                   ── one graph of it all ── engines compared ── model

Features are extracted once and kept, in memory or on disk (`reconpatch.features.store`); r takes
the place of p.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reconpatch.engine.engines import NumpyEngine, StoredGraph
from reconpatch.engine.graph import inspection_graph
from reconpatch.errors import (
    MissingExtraError,
    NotEnoughPhotosError,
    SettingsError,
)
from reconpatch.features.backbones import WeightSource, load_graph, spec
from reconpatch.features.extractor import Extractor, FeatureExtractor
from reconpatch.features.feature_graph import feature_graph
from reconpatch.features.graph_builder import BackboneGraph
from reconpatch.features.store import BLOCK, PatchStore
from reconpatch.fitting.composition import CompositionDecision
from reconpatch.fitting.composition import decide as compose
from reconpatch.fitting.confirmed import (
    ConfirmedDefect,
    Learned,
    check_learns,
    learn,
    read_confirmed,
    shown_by,
    with_defects,
)
from reconpatch.fitting.explain import explain
from reconpatch.fitting.input_size import (
    ROUNDS,
    TRY_SIZES,
    SizeDecision,
    larger_size,
    try_larger,
)
from reconpatch.fitting.memory import Fit, approximations, open_store
from reconpatch.fitting.options import FitOptions, default_threads, report_to, silent
from reconpatch.fitting.reading import (
    GoodSource,
    Read,
    Reading,
    Sizes,
    Sources,
    alike_of,
    preprocessing_for,
    sizes_of,
    sources_of,
    thumbnails_of,
)
from reconpatch.fitting.trial import (
    Defects,
    Guard,
    Trial,
    defects_to_learn,
    guard,
    judge_on_defects,
    make_defects,
)
from reconpatch.fitting.turns import TurnsDecision, bank_with, decide, turned
from reconpatch.method.calibration import Calibration
from reconpatch.method.contrastive_components import Contrast, DefectPatches, principal_basis
from reconpatch.method.coreset import bank_rows, greedy_coreset, random_projection
from reconpatch.method.defect_kinds import learn_kinds
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.representation import (
    Representation,
    Trainer,
    TrainingLog,
    make_representation,
)
from reconpatch.method.scoring import ScoringSettings, overall_weight
from reconpatch.method.settings import (
    AUTOMATIC,
    FitSettings,
    automatic_tile,
    squeeze_note,
)
from reconpatch.model.good_photos import (
    Covering,
    GoodScores,
    TrainingPhoto,
    assign_groups,
    by_part,
    counted_once,
    cover,
    leave_one_out,
    odd_photos_note,
    with_replacements,
    with_scales,
)
from reconpatch.model.model import Model
from reconpatch.model.parity import checked_sample
from reconpatch.model.sample import SAMPLE_PHOTOS, Sample
from reconpatch.photos.images import Bytes
from reconpatch.photos.kind import Kind, kind_notes
from reconpatch.photos.layout import Layout, View

TILED_ROWS = 8000
"""Most rows that a share of the patches of photos in tiles comes to."""
TILED_CANDIDATES = 400_000
"""Patches, drawn at random, among which the bank of photos in tiles is picked."""


class Steps:
    """The steps that go over all photos, in this process; workers have others (`StepsOf`)."""

    def kept_photos(self, photos: int) -> int:
        """Of how many photos the features are kept here."""
        return photos

    def extract(
        self,
        reading: Reading,
        graph: bytes,  # noqa: ARG002 - for workers
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

        Within a memory limit, as many as may be in memory.
        """
        groups = np.array([photo.group for photo in photos])
        if patches.addressable:
            return patches.flat, np.repeat(groups, patches.places)
        rng = np.random.default_rng(settings.seed)
        count = min(patches.at_hand, patches.patches)  # photos may have been left out
        chosen = np.sort(rng.choice(patches.patches, count, replace=False))
        return patches.take(chosen), groups[chosen // patches.places]

    def approximations(self, patches: PatchStore, settings: FitSettings) -> list[str]:
        """Notes on what is done with some of the patches, or in parts."""
        return list(approximations(patches, settings))

    def photo(self, patches: PatchStore) -> Callable[[int], Floats]:
        """What gives the (P, D) represented patches of a photo whose features are kept."""
        return patches.photo

    def at_hand(self, photos: Sequence[int]) -> list[int]:
        """Those of some photos whose features are kept."""
        return list(photos)

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


StepsOf = Callable[[FitOptions], AbstractContextManager[Steps]]
"""Gives the steps of a fit by its options, for as long as the fit takes."""


@contextmanager
def in_this_process(options: FitOptions) -> Iterator[Steps]:
    """The steps of a fit that reads its photos itself."""
    assert options.on is None, "the steps of workers are to be given"
    yield Steps()


def fit_model(
    good: GoodSource,
    settings: FitSettings,
    options: FitOptions,
    steps_of: StepsOf = in_this_process,
) -> Model:
    """Fit with settings and options that are put together already; see `reconpatch.fit`."""
    if options.confirmed is not None:  # before workers are started
        check_learns(settings, options)
    with steps_of(options) as steps:
        check_device(options.device)
        sources = sources_of(good)
        sizes = sizes_of(sources.photos, sources.names)
        clock = Clock(options.timer)
        chosen, large, decision = automatic_tile(settings, sizes.median), None, None
        if settings.size == AUTOMATIC and not settings.tile:
            large = larger_size(chosen, sizes.median, len(sources.photos), options)
        if large is not None:
            with clock.step(TRY_SIZES):
                decision = try_larger(chosen, large, sources, options, _trial)
        if decision is not None:
            chosen = replace(chosen, size=decision.size)
        return _model(_learn(sources, sizes, chosen, options, steps, clock), sources, decision)


def _trial(sources: Sources, settings: FitSettings, options: FitOptions) -> Trial | None:
    """What a fit on some of the photos comes to on made defects; always in this process."""
    sizes = sizes_of(sources.photos, sources.names)
    clock = Clock(options.timer)
    return _learn(sources, sizes, settings, options, Steps(), clock, ROUNDS).fitted.trial


@dataclass(frozen=True)
class _Learned:
    """What a fit has learned, before it is put together as a model."""

    fit: _Fit
    read: Read
    backbone: BackboneGraph
    weights: WeightSource
    onto: Representation | None
    notes: list[str]
    log: TrainingLog | None
    fitted: _Fitted
    guarded: Guard | None
    confirmed: Sequence[ConfirmedDefect]
    from_defects: Learned | None


def _learn(
    sources: Sources,
    sizes: Sizes,
    settings: FitSettings,
    options: FitOptions,
    steps: Steps,
    clock: Clock,
    rounds: int = 1,
) -> _Learned:
    """f, its bank and thresholds from good photos, the size of the input decided.

    The model is judged by as many defects on each photo as there are rounds.
    """
    preprocessing = preprocessing_for(settings, options, sources.photos, sources.names)
    threads = options.threads or default_threads()
    report = report_to(options, "load the backbone") or silent
    with clock.step("load the backbone"):
        report(0, 1)
        backbone, weights = load_graph(
            spec(settings.backbone, settings.levels or None),
            weights=options.weights,
            input_size=settings.size,
            seed=settings.seed,
            expanded=settings.expanded,
        )
        features = feature_graph(backbone, settings.neighbourhood)
        extractor = _extractor(features, settings, options, threads)
        report(1, 1)
    layout = preprocessing.layout(extractor.grid, sizes.first)
    settings = _bounded_bank(settings, layout, len(sources.photos)).fitted_to(extractor.channels)
    # Chosen anew, whatever an earlier fit has chosen.
    settings = replace(settings, scoring=replace(settings.scoring, likeness=0.0, composition=0.0))
    if settings.overall_share > 0:
        settings = replace(settings, scoring=replace(settings.scoring, overall=0.0))
    reading = Reading(sources.photos, sources.names, settings, preprocessing, layout, options)
    basis, onto = None, None
    if settings.training.basis:
        with clock.step("find the principal directions"):
            moments, reading = reading.survey(extractor)
            basis = principal_basis(
                moments, backbone.blocks, settings.training.basis, settings.training.principal
            )
            onto = Representation(basis.weight, basis.bias)
            features = feature_graph(backbone, settings.neighbourhood, onto)
            extractor = _extractor(features, settings, options, threads, onto)
    kept = steps.kept_photos(len(sources.photos))
    sizes_of_fit = Fit(settings, len(sources.photos), layout.places, extractor.channels, kept)
    with open_store(sizes_of_fit, options.memory_limit) as patches:
        with clock.step("extract features"):
            read = steps.extract(reading, features, extractor, patches, threads)
        _check_enough(read.photos)  # `--group` needs a name to show
        photos, notes = assign_groups(read.photos, options.group, alike_of(read))
        notes = [
            *([sources.left_out] if sources.left_out else []),
            *squeeze_note(settings, sizes.median),
            *kind_notes(read.looks),
            *read.notes,
            *notes,
            *steps.approximations(patches, settings),
        ]
        _check_enough(photos, options.group)
        with clock.step("make defects"):
            chosen = dict(islice(read.prepared.items(), settings.defects))
            defects = make_defects(chosen, settings.seed, extractor, rounds)
            contrast = None
            if basis is not None and settings.training.init == "contrastive":
                made = settings.training.made if settings.method == "reconpatch" else 0
                contrast = Contrast(
                    defects_to_learn(read.prepared, photos, made, settings.seed, extractor),
                    basis.outputs,
                )
        fit = _Fit(
            photos, defects, settings, layout, extractor, clock, options, steps, read.prepared
        )
        learned = None
        confirmed: list[ConfirmedDefect] = []
        if options.confirmed is not None and contrast is not None:
            with clock.step("read confirmed defects"):
                confirmed = read_confirmed(
                    options.confirmed, photos, reading.features_of(read, extractor),
                    read.preprocessing, layout, extractor.grid, options,
                )  # fmt: skip
            contrast, learned, alone = learn(
                confirmed, contrast, patches, *steps.training_patches(patches, photos, settings),
                settings, layout, fit.unseen, report_to(options, "judge on unseen defects"),
            )  # fmt: skip
            assert isinstance(alone, _Fitted)
            fit = replace(fit, turns=alone.turns)
        with clock.step("train f"):
            p, parts = steps.training_patches(patches, photos, settings)
            f, log = make_representation(
                p, settings.method, settings.training, seed=settings.seed, parts=parts,
                contrast=contrast, trainer=_trainer(options.device),
                progress=report_to(options, "train f"),
            )  # fmt: skip
            del p
            learned_from = contrast.confirmed if contrast else ()
            contrast = None  # neither is needed any more, and both are large
        fitted, guarded = fit.with_banks(f, patches, learned_from)
    return _Learned(
        fit, read, backbone, weights, onto, notes, log, fitted, guarded, confirmed, learned
    )


def _model(learned: _Learned, sources: Sources, size: SizeDecision | None) -> Model:
    """The model of what a fit has learned, its engine compared with the reference."""
    fit, read, fitted, guarded = learned.fit, learned.read, learned.fitted, learned.guarded
    photos, extractor, options, clock = fit.photos, fit.extractor, fit.options, fit.clock
    settings = replace(fit.settings, scoring=fitted.scoring)
    kinds = learn_kinds(shown_by(learned.confirmed, fitted, settings.scoring, fit.layout))
    if options.explain is not None and len(fit.defects):
        explain(
            Path(options.explain), fit.defects, fitted.f, fitted.bank, photos, settings.scoring,
            extractor.grid,
        )  # fmt: skip
    threads = options.threads or default_threads()
    with clock.step("write the graph"):
        whole = fitted.f if learned.onto is None else fitted.f.after(learned.onto)
        graph = inspection_graph(
            learned.backbone, settings.neighbourhood, whole, settings.scoring, len(fitted.bank)
        )
        engine = _engine(graph, extractor, fitted.f, settings, threads, options)
    notes = learned.notes
    if settings.turns == "always" and fitted.turns is None:
        notes.append(
            "No photo was turned, though turns is always: only photos that are seen whole are, "
            "without tiles, a region of interest or registration."
        )
    if guarded and guarded.kept == "identity":
        notes.append(guarded.sentence())
    elif settings.guard and settings.method == "reconpatch" and not guarded:
        notes.append("The guard had fewer than two made defects to compare on: f is unguarded.")
    if odd := odd_photos_note(fitted.scores, photos):
        notes.append(odd)
    decisions = {
        "input_size": size,
        "guard": guarded,
        "turns": fitted.turns,
        "composition": fitted.composed,
        "confirmed_defects": learned.from_defects,
        "defect_kinds": kinds[1] if kinds else None,
    }
    provenance = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "folder": sources.folder,
        "group": options.group,
        "weights": learned.weights.to_dict(),
        "features": f"{type(extractor).__name__}, {threads} threads",
        "versions": _versions(),
        "data_sha256": _data_fingerprint(photos),
        "kind": Kind.of(read.looks).to_dict(),
        "seconds": clock.seconds,
        "coreset_radius": fitted.radius,
        "training": learned.log.to_dict() if learned.log else None,
        "quality": fitted.trial.quality.to_dict() if fitted.trial else None,
        **{name: found.to_dict() if found else None for name, found in decisions.items()},
        "notes": notes,
    }
    thumbnails = read.thumbnails or thumbnails_of(fitted.bank, sources.photos, read, options)
    half = slice(SAMPLE_PHOTOS // 2)
    good_views = [pixels for _, pixels in read.prepared.values()]
    sample = Sample.of(good_views[half], fit.defects.pixels[half])
    model = Model(
        settings, read.preprocessing, whole, fitted.bank, photos, fitted.scores,
        fitted.calibration, provenance, engine, thumbnails, sample,
        kinds[0] if kinds else None,
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
    scoring: ScoringSettings
    trial: Trial | None = None
    turns: TurnsDecision | None = None
    composed: CompositionDecision | None = None

    @property
    def turned(self) -> bool:
        """Whether turned copies are in the bank."""
        return self.turns is not None and self.turns.taken


@dataclass(frozen=True)
class _Fit:
    """What all banks of a fit have in common."""

    photos: Sequence[TrainingPhoto]
    defects: Defects
    settings: FitSettings
    layout: Layout
    extractor: Extractor
    clock: Clock
    options: FitOptions
    steps: Steps
    prepared: Mapping[int, tuple[View, Bytes]]
    turns: TurnsDecision | None = None  # by an f that differs little: not tried again in vain

    def with_banks(
        self, f: Representation, patches: PatchStore, confirmed: Sequence[DefectPatches]
    ) -> tuple[_Fitted, Guard | None]:
        """The bank of f, or that of the identity where the guard prefers it; p gives way to r.

        No distance depends on the bias of f, so it is chosen: the good patches' mean becomes the
        origin, where squared distances lose the fewest digits.
        """
        mean = patches.mean()
        centred = Representation(None, (-mean).astype(np.float32))
        if f.weight is None:
            patches.represent(centred)
            return self.with_bank(centred, patches), None
        learned = Representation(f.weight, (-(f.weight @ mean)).astype(np.float32))
        settings = self.settings
        identity = None
        if settings.guard and settings.method == "reconpatch" and len(self.defects) > 1:
            patches.represent(centred)
            identity = self.with_bank(centred, patches, "identity: ")
        patches.represent(Representation(f.weight) if identity else learned)
        fitted = self.with_bank(learned, patches, confirmed=confirmed)
        if not (identity and identity.trial and fitted.trial):
            return fitted, None
        decision = guard(fitted.trial, identity.trial)
        return (identity if decision.kept == "identity" else fitted), decision

    def unseen(
        self,
        f: Representation,
        patches: PatchStore,
        prefix: str,
        turns: bool,
        confirmed: Sequence[DefectPatches],
    ) -> _Fitted:
        """A version to judge confirmed defects by; turned copies only where they are to be tried.

        Made defects do not judge it, and copies are features that take longer than all else.
        """
        settings = self.settings if turns else replace(self.settings, turns="never")
        bare = replace(self, defects=Defects(self.extractor), settings=settings)
        return bare.with_bank(f, patches, prefix, confirmed)

    def with_bank(
        self,
        f: Representation,
        patches: PatchStore,
        prefix: str = "",
        confirmed: Sequence[DefectPatches] = (),
    ) -> _Fitted:
        """The bank of represented patches, calibrated, and tried on the made defects."""
        settings, photos, steps = self.settings, self.photos, self.steps
        photo = steps.photo(patches)
        with self.clock.step(f"{prefix}build the memory bank"):
            report = self._report(f"{prefix}build the memory bank")
            bank = steps.bank(f, patches, settings, report)
        bank, turns = self._with_turns(bank, f, photo)
        bank = with_scales(bank, photos, settings.scoring)
        bank, scoring = with_defects(
            bank, f, confirmed, settings.scoring,
            lambda: (block for _, block in patches.blocks(BLOCK)),
        )  # fmt: skip
        with self.clock.step(f"{prefix}calibrate"):
            report = self._report(f"{prefix}search for each photo")
            covering = steps.cover(f, bank, patches, photos, report)
            bank = with_replacements(bank, photo, photos, covering)
            scores = leave_one_out(
                photo, photos, bank, scoring, self.layout, covering=covering,
                progress=self._report(f"{prefix}calibrate"),
            )  # fmt: skip
            if settings.overall_share > 0:
                weight = overall_weight(
                    scores.image_scores, scores.overall, settings.overall_share,
                    len({photos[i].group for i in scores.photos}),
                )  # fmt: skip
                scoring, scores = replace(scoring, overall=weight), scores.with_overall(weight)
            bank, scoring, scores, composed = self._with_composition(bank, scoring, scores, photo)
            image_scores = by_part(scores.image_scores, photos, scores.photos)
            calibration = Calibration(
                image_scores,
                by_part(scores.map_maxima, photos, scores.photos),
                settings.false_alarm_rate,
                _calibrated_on(len(scores.photos), len(photos), len(image_scores)),
            )
        fitted = _Fitted(
            f, bank, covering.radius, scores, calibration, scoring, turns=turns, composed=composed
        )
        if not len(self.defects):
            return fitted
        with self.clock.step(f"{prefix}try on made defects"):
            trial = judge_on_defects(
                self.defects, f, bank, photos, scores, scoring, self.layout,
                threshold=calibration.image_threshold.value, grid=self.extractor.grid,
            )  # fmt: skip
        return replace(fitted, trial=trial)

    def _with_composition(
        self,
        bank: MemoryBank,
        scoring: ScoringSettings,
        scores: GoodScores,
        photo: Callable[[int], Floats],
    ) -> tuple[MemoryBank, ScoringSettings, GoodScores, CompositionDecision | None]:
        """What the image score makes of photos as a whole, where that helps, and what decided."""
        settings, composition, decision = self.settings, None, None
        # Copies that are turned anyway are of no photo whose composition is known.
        asked = settings.composition_weight > 0 and settings.turns != "always"
        if asked and self.layout.plain:
            rng = np.random.default_rng([settings.seed, 4])
            composition, decision = compose(
                photo, self.photos, scores, self.layout.grid, settings.composition_weight, rng
            )
        scores = scores.with_composition(composition)
        if composition is not None:
            bank = replace(bank, composition=composition)
            scoring = replace(scoring, composition=settings.composition_weight)
        return bank, scoring, scores, decision

    def _with_turns(
        self, bank: MemoryBank, f: Representation, photo: Callable[[int], Floats]
    ) -> tuple[MemoryBank, TurnsDecision | None]:
        """The bank with turned copies of good photos, where they help, and what decided."""
        settings = self.settings
        if settings.turns == "never" or settings.register or not self.layout.plain:
            return bank, None
        if self.turns is not None and not self.turns.taken:
            return bank, self.turns
        with self.clock.step("try turned copies"):
            rng = np.random.default_rng([settings.seed, 2])
            of = self.steps.at_hand(list(self.prepared))
            copies = turned(self.prepared, self.extractor, f)
            with_copies = bank_with(bank, copies, lambda r, rows: pick(r, rows, settings, rng))
            decision = decide(
                bank, with_copies, photo, self.photos, of, settings.scoring, self.layout
            )
        taken = decision.taken or settings.turns == "always"
        return (with_copies if taken else bank), replace(decision, taken=taken)

    def _report(self, step: str) -> Callable[[int, int], None] | None:
        return report_to(self.options, step)


def _calibrated_on(scored: int, photos: int, parts: int) -> str:
    which = "the good photos" if scored == photos else f"{scored} of the {photos} good photos"
    return f"{which} of the fit, each scored as if it were new{counted_once(scored, parts)}"


def _engine(
    graph: bytes,
    extractor: Extractor,
    f: Representation,
    settings: FitSettings,
    threads: int,
    options: FitOptions,
) -> StoredGraph:
    """The default engine; where features are remembered, one that goes on remembering them."""
    if options.remember is None:
        return StoredGraph(graph, threads=threads)
    return StoredGraph(graph, threads=threads, opened=NumpyEngine(extractor, f, settings.scoring))


def build_bank(
    patches: PatchStore,
    settings: FitSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> MemoryBank:
    """The memory bank of represented patches.

    Its replacements are yet to be chosen: see `reconpatch.model.good_photos.with_replacements`.

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
    elif patches.patches <= patches.at_hand and patches.addressable:
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


# --- Steps ---------------------------------------------------------------------------------------


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


def _trainer(device: str) -> Trainer | None:
    """What takes the steps of f instead of numpy: torch on a GPU."""
    if device == "cpu":
        return None
    from reconpatch.method import torch_training

    return partial(torch_training.train, device=device)


def check_device(device: str) -> None:
    """Refuse a device that is none, or that is not here.

    Raises:
        SettingsError: it is neither "cpu" nor "cuda", or torch finds no such device.
        MissingExtraError: torch is not installed.
    """
    if device == "cpu":
        return
    if device.partition(":")[0] != "cuda":
        raise SettingsError(f"--device is {device!r}: give cpu or cuda")
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(f"--device {device}", "torch")
    import torch

    if not torch.cuda.is_available():
        raise SettingsError(
            f"--device is {device!r}, and torch finds no CUDA device on this machine: give cpu, or "
            "install a driver and a build of torch that fit the card"
        )


def _extractor(
    graph: bytes,
    settings: FitSettings,
    options: FitOptions,
    threads: int,
    onto: Representation | None = None,
) -> Extractor:
    """What extracts the training features: p, or its coordinates in a principal basis.

    The rule, whatever is faster somewhere: ONNX Runtime on a CPU, torch on any other device.
    """
    extractor: Extractor
    if options.device == "cpu":
        extractor = FeatureExtractor(graph, threads)
    else:
        from reconpatch.features.patch_features import TorchFeatureExtractor, load_patch_features

        module = load_patch_features(settings, options.weights)
        extractor = TorchFeatureExtractor(module, settings.size, options.device, onto)
    return options.remember(extractor, graph) if options.remember else extractor


def _check_enough(photos: Sequence[TrainingPhoto], group: str | None = None) -> None:
    different = len({photo.group for photo in photos})
    if different < 2:
        few = {0: "no good photo is left", 1: "there is only one good photo"}
        alike = "of one part" if group else "nearly the same picture"
        what = few.get(len(photos), f"the {len(photos)} good photos are all {alike}")
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


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("reconpatch", "numpy", "pillow", "onnx", "onnxruntime", "torch", "timm"):
        with suppress(importlib.metadata.PackageNotFoundError):  # of the extra "torch"
            found[name] = importlib.metadata.version(name)
    return found


def _data_fingerprint(photos: Sequence[TrainingPhoto]) -> str:
    import hashlib

    listing = "\n".join(f"{photo.sha256} {photo.name}" for photo in photos)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()
