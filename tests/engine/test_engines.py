"""One graph, several engines: the steps of the method in numpy are what each is held to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import reconpatch
from conftest import textured
from reconpatch.engine import engines
from reconpatch.engine.engines import (
    ENGINES,
    Engine,
    NumpyEngine,
    OnnxRuntimeEngine,
    OpenVinoEngine,
    StoredGraph,
    check_threads,
    engines_present,
    scored_in_numpy,
)
from reconpatch.engine.graph import inspection_graph
from reconpatch.errors import (
    MissingExtraError,
    ModelFileError,
    ParityError,
    PhotoError,
    SettingsError,
)
from reconpatch.features.backbones import load_graph, spec
from reconpatch.features.extractor import FeatureExtractor
from reconpatch.features.feature_graph import f_comes_first, feature_graph
from reconpatch.features.graph_builder import BackboneGraph, Level
from reconpatch.fitting.options import FitOptions, default_threads
from reconpatch.method.composition import Composition
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings
from reconpatch.model import parity
from reconpatch.model.file import scoring_fingerprint
from reconpatch.model.model import Model
from reconpatch.model.parity import (
    checked_sample,
    compare,
    on_engines,
    own_reference,
    require,
    verify_photos,
    verify_sample,
)
from reconpatch.model.sample import Agreement, Measured
from reconpatch.photos.images import as_unit, read_photo

SIZE = (96, 64)  # not square, so that a swap of the axes shows
PLACES, CHANNELS, ROWS = 12 * 8, 152, 40
S = 3  # side of the neighbourhood
SCORINGS = [
    ScoringSettings(top=0.05, smooth=0.75),
    ScoringSettings(),
    ScoringSettings(top=0.05),
    ScoringSettings(b=3),
    ScoringSettings(b=5, reweight="every", blur=0.0),
    ScoringSettings(top=0.05, smooth=0.75, principal=8, contrast=3.0),
    ScoringSettings(principal=8, contrast=0.25),
    ScoringSettings(top=0.05, smooth=0.75, principal=8, contrast=3.0, density=1.0),
    ScoringSettings(top=0.05, smooth=0.75, principal=8, contrast=3.0, density=1.0, overall=1.5),
    ScoringSettings(density=0.5),
    ScoringSettings(top=0.05, principal=8, contrast=3.0, density=1.0, likeness=0.5),
    ScoringSettings(likeness=1.0),
    ScoringSettings(top=0.05, smooth=0.75, overall=1.5, composition=0.8),
    ScoringSettings(composition=1.0),
    ScoringSettings(b=3, composition=0.5),
    ScoringSettings(b=5, reweight="every", composition=1.0),
]


@pytest.fixture(scope="module")
def backbone() -> BackboneGraph:
    return load_graph(spec("tf_efficientnet_lite0"), weights="random", input_size=SIZE)[0]


@pytest.fixture(scope="module")
def extractor(backbone: BackboneGraph) -> FeatureExtractor:
    return FeatureExtractor(feature_graph(backbone, S), 1)


def photos(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((count, 3, *SIZE), dtype=np.float32)


def f_of(dim: int | None, extractor: FeatureExtractor) -> Representation:
    """A random f whose features lie around the origin, as a fit chooses its bias."""
    mean = extractor(photos(4)).reshape(-1, CHANNELS).mean(axis=0)
    if dim is None:
        return Representation(None, -mean)
    rng = np.random.default_rng(dim)
    weight = rng.normal(size=(dim, CHANNELS)).astype(np.float32)
    return Representation(weight, -(weight @ mean))


def bank_for(f: Representation, extractor: FeatureExtractor, rows: int = ROWS) -> MemoryBank:
    r = f(extractor(photos(6, seed=1))).reshape(-1, f_dim(f))
    rng = np.random.default_rng(2)
    chosen = r[rng.permutation(len(r))[:rows]]
    scale = np.float32(0.05 * chosen.std())
    chosen = chosen + scale * rng.normal(size=chosen.shape).astype(np.float32)
    nowhere = np.zeros(rows, np.int64)
    return MemoryBank(chosen, nowhere, nowhere, chosen)


def composition_for(
    f: Representation, extractor: FeatureExtractor, scoring: ScoringSettings, bank: MemoryBank
) -> Composition:
    """That of ten photos, in units by which it and the patches count about the same."""
    r = f(extractor(photos(10, seed=3)))
    plain = scored_in_numpy(r, bank, scoring, extractor.grid, SIZE).score.astype(np.float64)
    made = Composition.of(r.mean(axis=1), np.arange(10), plain, scoring.composition)
    assert made is not None
    return made


def f_dim(f: Representation) -> int:
    return CHANNELS if f.weight is None else len(f.weight)


def check_same(engine: Engine, reference: NumpyEngine, bank: MemoryBank, count: int = 3) -> None:
    given = photos(count, seed=5)
    found, expected = engine(given, bank), reference(given, bank)
    norm = np.linalg.norm(expected.features, axis=-1).max()
    np.testing.assert_allclose(found.features, expected.features, atol=1e-5 * norm)
    # An exact search says how near the row that was found really is.
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-4, atol=1e-5 * norm)
    rows = bank.rows[found.nearest]
    direct = np.linalg.norm(expected.features - rows, axis=-1)
    np.testing.assert_allclose(found.distances, direct, rtol=1e-4, atol=1e-5 * norm)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-4, atol=1e-5 * norm)
    assert found.nearest.dtype == expected.nearest.dtype == np.int64
    assert found.worst.tolist() == expected.worst.tolist()
    assert found.map.shape == (count, *SIZE)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_every_engine_does_the_steps_of_the_method(
    name: str, scoring: ScoringSettings, backbone: BackboneGraph, extractor: FeatureExtractor
) -> None:
    if name not in engines_present():
        pytest.skip(f"{name} is not installed")
    f = f_of(20, extractor)
    bank = bank_for(f, extractor)
    if scoring.density:
        rng = np.random.default_rng(4)
        bank = replace(bank, scales=rng.uniform(0.2, 3.0, len(bank)).astype(np.float32))
    if scoring.likeness:
        spread = bank.rows.std()
        side = np.random.default_rng(6).normal(size=f_dim(f) + 1).astype(np.float32)
        bank = replace(
            bank,
            defects=bank_for(f, extractor, 7).rows + np.float32(0.5 * spread),
            discriminant=side / np.float32(3 * spread),
        )
    if scoring.composition:
        bank = replace(bank, composition=composition_for(f, extractor, scoring, bank))
    graph = inspection_graph(backbone, S, f, scoring, len(bank))
    check_same(StoredGraph(graph, name, 1), NumpyEngine(extractor, f, scoring), bank)


@pytest.mark.parametrize("dim", [None, 3, 100, 152, 300])
def test_f_may_come_before_or_after_the_levels_are_joined(
    dim: int | None, backbone: BackboneGraph, extractor: FeatureExtractor
) -> None:
    f, scoring = f_of(dim, extractor), ScoringSettings()
    bank = bank_for(f, extractor)
    reference = NumpyEngine(extractor, f, scoring)
    for first in (True, False) if dim else (False,):
        graph = inspection_graph(backbone, S, f, scoring, len(bank), f_first=first)
        check_same(OnnxRuntimeEngine(graph, 1), reference, bank)


def test_what_comes_first_is_what_takes_fewer_multiplications() -> None:
    lite = [Level(40, 28, 28), Level(112, 14, 14)]
    wide = [Level(512, 28, 28), Level(1024, 14, 14)]
    assert f_comes_first(wide, 512, 3)
    assert f_comes_first(lite, 64, 3)
    assert not f_comes_first(
        [Level(4, 10, 10), Level(4, 10, 10)], 500, 3
    )  # f widens, nothing is saved
    # By hand, 100 places of 2 and 25 of 6 channels, D = 4, s = 1: 3,300 on each level, that is
    # 1,000 and 700 and 1,600 for the resizing; 5,950 on the joined levels.
    assert f_comes_first([Level(2, 10, 10), Level(6, 5, 5)], 4, 1)


@pytest.mark.parametrize("elements", [1, 7 * ROWS, 10**9])
def test_a_large_bank_is_searched_in_blocks(
    elements: int,
    backbone: BackboneGraph,
    extractor: FeatureExtractor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reconpatch.engine.graph._BLOCK_ELEMENTS", elements)
    monkeypatch.setattr(engines, "_CALL_ELEMENTS", max(elements, PLACES * ROWS * 2))
    f, scoring = f_of(8, extractor), ScoringSettings()
    bank = bank_for(f, extractor)
    graph = inspection_graph(backbone, S, f, scoring, ROWS)
    check_same(OnnxRuntimeEngine(graph, 1), NumpyEngine(extractor, f, scoring), bank, count=5)


@pytest.mark.parametrize("name", ENGINES)
def test_the_bank_is_an_input_and_may_grow_shrink_and_leave_rows_out(
    name: str, backbone: BackboneGraph, extractor: FeatureExtractor
) -> None:
    if name not in engines_present():
        pytest.skip(f"{name} is not installed")
    f, scoring = f_of(8, extractor), ScoringSettings()
    graph = inspection_graph(backbone, S, f, scoring, ROWS)
    engine, reference = StoredGraph(graph, name, 1), NumpyEngine(extractor, f, scoring)
    for rows in (1, ROWS, 3 * ROWS):
        check_same(engine, reference, bank_for(f, extractor, rows), count=1)
    bank = bank_for(f, extractor)
    kept = np.arange(ROWS) % 3 == 0
    # A bank's mask lets every row take part; another one leaves rows out.
    bank.__dict__["everyone"] = kept
    found = engine(photos(2), bank)
    expected = reference(
        photos(2), replace(bank, rows=bank.rows[kept], replacements=bank.rows[kept])
    )
    np.testing.assert_array_equal(found.nearest, np.flatnonzero(kept)[expected.nearest])
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)


def test_a_row_itself_is_at_distance_zero_though_the_product_cancels(
    backbone: BackboneGraph, extractor: FeatureExtractor
) -> None:
    f = f_of(152, extractor)
    graph = inspection_graph(backbone, S, f, ScoringSettings(), PLACES)
    engine = OnnxRuntimeEngine(graph, 1)
    rows = engine(photos(1), bank_for(f, extractor)).features[0]
    nowhere = np.zeros(PLACES, np.int64)
    found = engine(photos(1), MemoryBank(rows, nowhere, nowhere, rows))
    assert found.score.tolist() == [0.0]
    assert not found.map.any()


def test_the_graph_is_valid_the_same_every_time_and_holds_no_bank(
    backbone: BackboneGraph, extractor: FeatureExtractor
) -> None:
    f = f_of(20, extractor)
    graph = inspection_graph(backbone, S, f, ScoringSettings(), 10**6)
    model = onnx.load_model_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    given = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert given == {
        "photos": ["batch", 3, 96, 64],
        "bank": ["rows", 20],
        "norms": ["rows"],
        "mask": ["rows"],
        "score": ["batch"],
        "map": ["batch", 96, 64],
        "distances": ["batch", PLACES],
        "nearest": ["batch", PLACES],
        "worst": ["batch"],
        "features": ["batch", PLACES, 20],
    }
    assert len(graph) < 4e6
    assert inspection_graph(backbone, S, f, ScoringSettings(), 10**6) == graph


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_no_graph_is_refused(name: str, extractor: FeatureExtractor) -> None:
    if name not in engines_present():
        pytest.skip(f"{name} is not installed")
    with pytest.raises(ModelFileError, match="cannot be read"):
        StoredGraph(b"no graph", name).grid  # noqa: B018 - opens it


@pytest.mark.parametrize(
    "threads", [-1, 65 + 4 * (os.cpu_count() or 1), 100_000, 2**70, "2", 1.5, None]
)
def test_threads_that_no_engine_should_have(threads: Any, small_model_file: Path) -> None:
    # No engine is opened: thousands of threads would stop the machine that runs this.
    for name in ENGINES:
        with pytest.raises(SettingsError, match=r"threads is .*: give a whole number from 1 to"):
            StoredGraph(b"", name, threads)
        with pytest.raises(SettingsError, match="or 0 for all cores"):
            reconpatch.load(small_model_file, threads=threads, engine=name)
    with pytest.raises(SettingsError, match="or 0 for all cores"):
        FitOptions(threads=threads)


@pytest.mark.parametrize("threads", [0, 1, 64, np.int64(2), np.uint8(3)])
def test_threads_that_an_engine_may_have(threads: Any) -> None:
    found = StoredGraph(b"", threads=threads).threads
    assert (found, type(found)) == (int(threads), int)


def test_a_variable_asks_for_no_more_threads_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stated in ("100000", "3", "0", "-1", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
        assert check_threads(default_threads()) >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert default_threads() == 1


def test_a_graph_of_another_kind_is_refused(backbone: BackboneGraph) -> None:
    with pytest.raises(ModelFileError, match="was not written by this package"):
        OnnxRuntimeEngine(feature_graph(backbone, S))


@pytest.mark.parametrize("name", ENGINES)
def test_photos_of_another_size_are_refused(name: str, small_model: Model) -> None:
    if name not in engines_present():
        pytest.skip(f"{name} is not installed")
    with pytest.raises(PhotoError, match="this model takes float32 of shape"):
        small_model.engine.on(name)(np.zeros((1, 3, 8, 8), np.float32), small_model.bank)


def test_an_unknown_engine_is_refused(small_model_file: Path) -> None:
    with pytest.raises(SettingsError, match="is 'abacus': give one of onnxruntime, openvino"):
        reconpatch.load(small_model_file, engine="abacus")


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'reconpatch\[openvino\]'"):
        OpenVinoEngine(b"")


@pytest.mark.parametrize("name", ENGINES)
def test_a_model_gives_one_verdict_on_every_engine_one_by_one_and_in_batches(
    name: str, small_model: Model, small_model_file: Path, defective_photo: Floats
) -> None:
    if name not in engines_present():
        pytest.skip(f"{name} is not installed")
    model = reconpatch.load(small_model_file, engine=name)
    pictures = [textured(seed) for seed in (1000, 1001)] + [defective_photo]
    batch = model.inspect_batch(pictures)
    for picture, found in zip(pictures, batch, strict=True):
        expected, alone = small_model.inspect(picture), model.inspect(picture)
        for result in (found, alone):
            assert result.anomalous == expected.anomalous
            assert result.score == pytest.approx(expected.score, rel=1e-4)
            assert len(result.regions) == len(expected.regions)
    assert model.inspect_batch([]) == []


# --- The gate -------------------------------------------------------------------------------------


def output_of(small_model: Model) -> engines.Output:
    assert small_model.sample is not None
    prepared = as_unit(np.stack(small_model.sample.photos()))
    return small_model.engine(prepared, small_model.bank)


def test_differences_are_counted_by_hand(small_model: Model) -> None:
    a = output_of(small_model)._replace(
        score=np.float32([1.0, 2.0, 4.0]),
        map=np.float32([[[0, 1]], [[2, 3]], [[4, 5]]]),
        nearest=np.array([[0, 1], [2, 3], [4, 5]]),
    )
    b = a._replace(
        score=np.float32([1.0, 2.5, 3.0]),
        map=np.float32([[[0, 1]], [[2, 3.5]], [[4, 5]]]),
        nearest=np.array([[0, 1], [2, 9], [9, 5]]),
    )
    found, same = Measured.of("x", b, a), Measured.of("x", a, a)
    assert found.at(2.0, 5.0) == Agreement("x", 3, 0.5, 0.1, 2, close_calls=1, verdicts=0)
    assert found.at(2.2, 5.0).verdicts == 1
    assert Measured.of("x", b, a, resolution=5.0).at(2.0, 5.0).score_difference == 0.1
    assert same.at(0.0, 0.0).score_difference == 0.0
    joined = same.joined(found).joined(found)
    assert joined.at(2.0, 5.0) == Agreement("x", 9, 0.5, 0.1, 4, close_calls=3, verdicts=0)
    assert joined.at(2.2, 5.0).verdicts == 2
    assert Measured.from_dict(found.to_dict()) == found
    for wrong in ({"scores": [1.0]}, {"expected": [1.0, 2.0, np.inf]}, {"near_ties": "many"}):
        with pytest.raises(ValueError, match="said of the samples is incomplete"):
            Measured.from_dict({**found.to_dict(), **wrong})


@pytest.mark.parametrize(
    ("figures", "holds"),
    [
        ((1e-4, 1e-4, 99, 99, 0), True),
        ((2e-4, 0.0, 0, 0, 0), False),
        ((0.0, 2e-4, 0, 0, 0), False),
        ((0.0, 0.0, 0, 0, 1), False),
    ],
)
def test_the_gate(figures: Sequence[float], holds: bool) -> None:
    found = Agreement("x", 10, *figures)  # type: ignore[arg-type]
    assert found.holds == holds
    if holds:
        require([found])
    else:
        with pytest.raises(ParityError, match="the engine x does not agree with the calibration"):
            require([found, found])


def test_a_fit_compares_every_engine_with_its_own_steps(small_model: Model) -> None:
    assert small_model.sample is not None
    assert [found.engine for found in small_model.sample.agreements] == engines_present()
    # Eight good photos and eight made defects.
    assert {found.photos for found in small_model.sample.agreements} == {16}
    assert small_model.sample.fingerprint == scoring_fingerprint(small_model)


def no_engine(*_: object) -> engines.Output:
    raise AssertionError("an engine was run")


def test_engines_are_run_again_only_when_what_scores_changed(
    small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked_sample(small_model) is small_model.sample
    assert small_model.sample is not None
    fewer = replace(
        small_model, bank=small_model.bank.without(np.arange(len(small_model.bank)) < 1)
    )
    elsewhere = [replace(found, where="other") for found in small_model.sample.measured]
    moved = small_model.with_samples([replace(small_model.sample, measured=elsewhere)])
    for engine in (OnnxRuntimeEngine, OpenVinoEngine):
        monkeypatch.setattr(engine, "__call__", no_engine)
    again = checked_sample(small_model.with_threshold(1.0))
    assert again is not None
    assert again.measured is small_model.sample.measured
    for changed in (fewer, moved):
        with pytest.raises(AssertionError, match="an engine was run"):
            checked_sample(changed)
    monkeypatch.setattr(parity, "engines_present", lambda: ["onnxruntime", "another"])
    with pytest.raises(SettingsError, match="the engine is 'another'"):
        checked_sample(small_model)


def test_a_file_carries_a_sample_that_any_machine_can_check(small_model_file: Path) -> None:
    model = reconpatch.load(small_model_file)
    assert isinstance(model, Model)
    sample = model.sample
    assert sample is not None
    assert (len(sample), sample.good) == (16, 8)
    assert [found.engine for found in sample.agreements] == engines_present()
    np.testing.assert_allclose(sample.scores, output_of(model).score, rtol=1e-5)
    now = verify_sample(model)
    assert [found.engine for found in now] == engines_present()
    assert all(found.holds and found.photos == 16 for found in now)
    # Against other figures than were written, no engine holds.
    wrong = model.with_samples([replace(sample, scores=sample.scores * 1.01)])
    assert not any(found.holds for found in verify_sample(wrong))
    # The good photos come first, and what was made on them scores higher on the whole.
    assert np.mean(sample.scores[:8]) < np.mean(sample.scores[8:])


@pytest.mark.parametrize("threshold", [0.0, 1e-3, 0.5, 3.0, 1e3])
def test_what_was_measured_says_of_any_threshold_what_a_run_says(
    small_model: Model, threshold: float
) -> None:
    assert small_model.sample is not None
    bare = small_model.with_samples([replace(small_model.sample, measured=())])
    once = checked_sample(bare)
    assert once is not None
    changed = small_model.with_samples([once]).with_threshold(threshold)
    kept = checked_sample(changed)
    assert kept is not None
    run = compare(changed, once.photos(), lambda x: own_reference(changed, x), on_engines(changed))
    for found, slow in zip(kept.agreements, run, strict=True):
        assert found.score_difference == pytest.approx(slow.score_difference, rel=0.01, abs=1e-6)
        assert found.map_difference == pytest.approx(slow.map_difference, rel=0.01, abs=1e-6)
        assert (found.photos, found.verdicts) == (slow.photos, slow.verdicts)


def test_a_threshold_between_an_engine_and_the_reference_is_refused_without_a_run(
    small_model: Model, tmp_path: Path
) -> None:
    assert small_model.sample is not None
    kept = small_model.sample.measured[0]
    # Within the tolerance, and more than rounding.
    off = replace(kept, scores=(kept.expected[0] * (1 + 5e-5), *kept.scores[1:]))
    sample = replace(small_model.sample, measured=[off, *small_model.sample.measured[1:]])
    model = small_model.with_samples([sample])
    with pytest.raises(ParityError, match="1 of 16 verdicts differ"):
        model.with_threshold(kept.expected[0] * (1 + 2.5e-5)).save(tmp_path / "between.rcp")
    assert not list(tmp_path.iterdir())
    model.with_threshold(kept.expected[0] * (1 + 4e-4)).save(tmp_path / "above.rcp")
    again = reconpatch.load(tmp_path / "above.rcp")
    assert again.members[0].sample is not None
    assert list(again.members[0].sample.measured) == sample.measured


def test_no_file_is_written_where_an_engine_disagrees(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small_model.sample is not None
    unmeasured = small_model.with_samples([replace(small_model.sample, measured=())])
    right = OnnxRuntimeEngine.__call__

    def off(self: OnnxRuntimeEngine, given: Floats, bank: MemoryBank) -> engines.Output:
        found = right(self, given, bank)
        return found._replace(score=found.score * np.float32(1.01))

    path = tmp_path / "part.rcp"
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeEngine, "__call__", off)
        with pytest.raises(ParityError, match="onnxruntime does not agree"):
            unmeasured.with_threshold(1.0).save(path)
    assert not list(tmp_path.iterdir())
    unmeasured.with_threshold(1.0).save(path)
    assert path.exists()


def test_a_model_without_a_sample_has_nothing_to_check(small_model: Model) -> None:
    bare = small_model.with_samples([None])
    assert checked_sample(bare) is None
    with pytest.raises(ParityError, match="carries no sample"):
        verify_sample(bare)


def test_engines_are_compared_on_photos_of_the_user(small_model: Model) -> None:
    photos = [read_photo(textured(seed)) for seed in range(1000, 1006)]
    found = verify_photos(small_model, photos, ["onnxruntime"])
    assert [(f.engine, f.photos, f.holds) for f in found] == [("onnxruntime", 6, True)]
