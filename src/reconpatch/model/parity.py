"""Compare engines on a sample: all have to agree before a model file is written.

    sample ──┬── reference ────────┐
             └── engine, engine ───┴── Agreement: scores, maps, nearest rows, verdicts

Peers validate a model with one engine and deploy it with another; where the two disagree, nobody
notices before the line does. Here a model goes out only if every engine that is installed gives the
verdicts of the reference and scores within `TOLERANCE`; the sample goes out with it, so that any
other machine can ask the same of its own engine (`reconpatch verify`). What was measured is kept
without a threshold, so that another threshold is held to it without a run of any engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from reconpatch.engine.engines import Engine, Output, engines_present, scored_in_numpy
from reconpatch.errors import ParityError
from reconpatch.method.memory_bank import Floats, Ints, distances
from reconpatch.method.scoring import anomaly_map, score_nearest, with_composition
from reconpatch.model.contents import ModelContents
from reconpatch.model.file import scoring_fingerprint
from reconpatch.model.sample import Agreement, Measured, Sample, engine_here
from reconpatch.photos.images import Bytes, Photo, as_bytes, as_unit
from reconpatch.photos.layout import Layout

RESOLUTION = 0.01
"""Share of the features' norm below which a threshold is too small to compare engines by."""

_BATCH = 4

Run = Callable[[Floats], Output]
"""What inspects (B, 3, H, W) float32 prepared photos: an engine with a bank, or a reference."""


def on_engines(model: ModelContents, names: Sequence[str] | None = None) -> dict[str, Run]:
    """Runs of the model's graph with its bank, by engine; None takes all that are installed."""

    def run(engine: Engine) -> Run:
        return lambda prepared: engine(prepared, model.bank)

    names = engines_present() if names is None else names
    return {name: run(model.engine.on(name)) for name in names}


def resolution(model: ModelContents, output: Output) -> float:
    """The smallest threshold that float32 lets engines agree on, for represented patches.

    A distance is a difference of features, so it is no better known than they are: where good
    photos hardly differ at all, two engines differ by more than a small share of their distance.
    """
    bias = model.representation.bias
    features = output.features if bias is None else output.features - bias
    return RESOLUTION * float(np.sqrt(np.square(features).sum(axis=-1).max()))


def require(agreements: Iterable[Agreement]) -> None:
    """Raise ParityError unless all of them hold."""
    for found in agreements:
        if not found.holds:
            raise ParityError(
                f"the engine {found.engine} does not agree with the calibration, so no model file "
                f"is written ({found.sentence()}): remove or update that package, or report it"
            )


def measure(
    model: ModelContents,
    photos: Sequence[Bytes],
    reference: Run,
    runs: Mapping[str, Run],
) -> list[Measured]:
    """Measure each engine on photos against a reference.

    Args:
        model: what they run; its representation tells the resolution.
        photos: (3, H, W) uint8 prepared photos.
        reference: what should be said of them.
        runs: what is said of them, by the engine that says it.
    """
    found: dict[str, Measured] = {}
    for prepared in _batches(photos):
        expected = reference(prepared)
        smallest = resolution(model, expected)
        for name, run in runs.items():
            output = run(prepared)
            own = expected._replace(score=_score_by(output.nearest, expected, model))
            part = Measured.of(name, output, own, smallest, engine_here(name))
            found[name] = found[name].joined(part) if name in found else part
    return list(found.values())


def _score_by(nearest: Ints, expected: Output, model: ModelContents) -> Floats:
    """(B,) float32 reference scores, where a patch has two rows as near by the one that is given.

    Either is right, and what the image score makes of a difference is not the same for both. Where
    the other row is not as near, the map says so.
    """
    scores, scoring = expected.score.copy(), model.settings.scoring
    layout = Layout.whole(model.engine.grid, model.engine.input_size)
    for i in np.flatnonzero((nearest != expected.nearest).any(axis=1)):
        r = expected.features[i]
        to_rows = distances(r, model.bank.rows[nearest[i]])
        found = score_nearest(r, to_rows, nearest[i], model.bank, scoring, layout)
        scores[i] = with_composition(found, r, model.bank).image_score
    return scores


def _batches(photos: Sequence[Bytes]) -> Iterator[Floats]:
    for start in range(0, len(photos), _BATCH):
        yield as_unit(np.stack(photos[start : start + _BATCH]))


def compare(
    model: ModelContents,
    photos: Sequence[Bytes],
    reference: Run,
    runs: Mapping[str, Run],
) -> list[Agreement]:
    """Compare each engine with a reference at the model's thresholds: see `measure`."""
    return _at_thresholds(measure(model, photos, reference, runs), model)


def _at_thresholds(measured: Iterable[Measured], model: ModelContents) -> list[Agreement]:
    map_threshold = model.calibration.map_threshold.value
    return [found.at(model.threshold, map_threshold) for found in measured]


def checked_sample(model: ModelContents, reference: Run | None = None) -> Sample | None:
    """Measure every installed engine on the model's sample.

    Engines that were measured with this graph and bank, in this version and on this processor, are
    not run again: another threshold is held to what they said then.

    Args:
        model: a model.
        reference: what should be said of (B, 3, H, W) float32 photos; None takes the search, score
            and map as the fit takes them, on the patches as the model's own engine represents them.

    Raises:
        ParityError: an engine disagrees.
    """
    sample = model.sample
    if sample is None:
        return None
    decides = scoring_fingerprint(model)
    here = {name: engine_here(name) for name in engines_present()}
    known = {found.engine: found.where for found in sample.measured}
    if sample.fingerprint == decides and here.items() <= known.items():
        agreements = _at_thresholds(sample.measured, model)
        require(agreements)
        return sample if agreements == sample.agreements else replace(sample, agreements=agreements)
    expect = reference or (lambda prepared: own_reference(model, prepared))
    photos, runs = sample.photos(), on_engines(model)
    outputs = [expect(prepared) for prepared in _batches(photos)]
    measured: list[Measured] = []
    while runs:  # one after the other: each holds a graph of its own
        name, again = next(iter(runs)), iter(outputs)
        measured += measure(model, photos, lambda _: next(again), {name: runs.pop(name)})  # noqa: B023 - used at once
    agreements = _at_thresholds(measured, model)
    require(agreements)
    return replace(
        sample,
        scores=np.concatenate([output.score for output in outputs]).astype(np.float64),
        distances=np.concatenate([output.distances for output in outputs]),
        agreements=agreements,
        fingerprint=decides,
        measured=measured,
    )


def own_reference(model: ModelContents, prepared: Floats) -> Output:
    """Score patches of the model's own engine by the numpy routines of the fit."""
    r = model.engine(prepared, model.bank).features
    engine = model.engine
    return scored_in_numpy(r, model.bank, model.settings.scoring, engine.grid, engine.input_size)


def verify_sample(model: ModelContents, engines: Sequence[str] | None = None) -> list[Agreement]:
    """Compare each installed engine with the reference figures in the file.

    Args:
        model: with a sample.
        engines: names; None takes all that are installed here.

    Raises:
        ParityError: the file carries no sample.
    """
    sample = model.sample
    if sample is None or not len(sample.scores):
        raise ParityError(
            "the model file carries no sample to check engines on: give photos to compare them on"
        )
    place = (model.engine.grid, model.engine.input_size)
    written = iter(zip(sample.scores, sample.distances, strict=True))

    def reference(prepared: Floats) -> Output:
        output = own_reference(model, prepared)
        scores, distances = zip(*islice(written, len(prepared)), strict=True)
        # Which rows were nearest was not written: they are those of now.
        return output._replace(
            score=np.array(scores, np.float32),
            distances=np.stack(distances),
            map=np.stack([anomaly_map(d, *place, model.settings.scoring.blur) for d in distances]),
        )

    return compare(model, sample.photos(), reference, on_engines(model, engines))


def verify_photos(
    model: ModelContents, photos: Iterable[Photo], engines: Sequence[str] | None = None
) -> list[Agreement]:
    """Compare each installed engine with the search, score and map of the fit on given photos.

    The patches are represented by the model's own engine, which is one of those compared.

    Args:
        model: a model.
        photos: as `read_photo` gives them.
        engines: names; None takes all that are installed here.
    """
    prepared = [
        as_bytes(view)
        for photo in photos
        for view in model.preprocessing.views(photo, model.layout)
    ]
    return compare(model, prepared, lambda x: own_reference(model, x), on_engines(model, engines))
