"""Remembered features: the same bits, extracted once, in a file that leaves nothing behind."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import reconpatch
from conftest import SMALL_FIT, save, textured
from reconpatch.errors import OutputError
from reconpatch.evaluation import feature_cache
from reconpatch.evaluation.feature_cache import FeatureCache
from reconpatch.model.model import Model

Floats = npt.NDArray[np.float32]
GRAPH, OTHER_GRAPH = b"g" * 32, b"h" * 32


def photos(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((count, 3, 8, 8), dtype=np.float32)


class Engine:
    """Doubles the photos, and counts those it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, batch: Floats) -> Floats:
        self.seen += len(batch)
        return 2 * batch.reshape(len(batch), 64, 3)


def test_what_was_extracted_comes_from_the_file(tmp_path: Path) -> None:
    engine = Engine()
    with FeatureCache(tmp_path) as cache:
        first = [cache.features(photos(n, n), GRAPH, engine) for n in (4, 1, 2)]
        assert engine.seen == 7
        again = [cache.features(photos(n, n), GRAPH, engine) for n in (1, 2, 4)]
        assert engine.seen == 7
    for n, p in zip((1, 2, 4), again, strict=True):
        np.testing.assert_array_equal(p, Engine()(photos(n, n)))
        assert p.dtype == np.float32
    np.testing.assert_array_equal(first[0], again[2])


@pytest.mark.parametrize(
    ("batch", "graph"),
    [
        (photos(4, seed=1), GRAPH),
        (photos(4), OTHER_GRAPH),
        (photos(4)[:3], GRAPH),  # an engine may round differently in another batch
        (photos(4).reshape(4, 3, 4, 16), GRAPH),
    ],
    ids=["photos", "graph", "batch", "shape"],
)
def test_anything_else_is_extracted(batch: Floats, graph: bytes, tmp_path: Path) -> None:
    engine = Engine()
    with FeatureCache(tmp_path) as cache:
        cache.features(photos(4), GRAPH, engine)
        p = cache.features(batch, graph, engine)
    assert engine.seen == 4 + len(batch)
    np.testing.assert_array_equal(p, Engine()(batch))


def test_what_does_not_fit_is_extracted_each_time(tmp_path: Path) -> None:
    engine = Engine()
    nbytes = Engine()(photos(2)).nbytes
    with FeatureCache(tmp_path, limit=nbytes) as cache:
        for _ in range(2):
            cache.features(photos(2, seed=1), GRAPH, engine)
            cache.features(photos(2, seed=2), GRAPH, engine)
    assert engine.seen == 2 + 2 + 2


class FullDisk:
    """A file on which the second write fails, or stops halfway."""

    def __init__(self, file: Any, error: OSError | None) -> None:
        self.file, self.error, self.writes = file, error, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: memoryview) -> int:
        self.writes += 1
        if self.writes == 1:
            return int(self.file.write(content))
        if self.error is not None:
            raise self.error
        return int(self.file.write(content.cast("B")[: content.nbytes // 2]))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), None], ids=["error", "halfway"])
def test_a_full_disk_is_no_obstacle(error: OSError | None, tmp_path: Path) -> None:
    engine = Engine()
    with FeatureCache(tmp_path) as cache:
        cache._file = full = FullDisk(cache._file, error)  # type: ignore[assignment]
        for seed in (1, 2, 3, 1, 2):
            p = cache.features(photos(2, seed), GRAPH, engine)
            np.testing.assert_array_equal(p, Engine()(photos(2, seed)))
    assert full.writes == 2  # what is left of the disk is for the results
    assert engine.seen == 2 * 4  # the first pair was kept, the second and third were not


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with FeatureCache(tmp_path) as cache:
            cache.features(photos(2), GRAPH, Engine())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_cache_remembers_nothing_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    engine = Engine()
    with FeatureCache(tmp_path) as cache:
        cache.features(photos(2), GRAPH, engine)
    np.testing.assert_array_equal(
        cache.features(photos(2), GRAPH, engine), cache.features(photos(2), GRAPH, engine)
    )
    assert engine.seen == 6


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="missing could not be written"):
        FeatureCache(tmp_path / "missing")


def test_time_goes_by_as_if_everything_were_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(feature_cache, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    with FeatureCache(tmp_path) as cache:

        def slow(batch: Floats) -> Floats:
            now[0] += 7.0
            return Engine()(batch)

        for _ in range(3):
            start = cache.timer()
            cache.features(photos(2), GRAPH, slow)
            assert cache.timer() - start == 7.0
        assert now[0] == 107.0
        now[0] += 1.0
        assert cache.timer() - start == 8.0


def test_a_model_fitted_with_it_gives_the_verdicts_of_one_without(
    good_folder: Path, small_model: Model, tmp_path: Path
) -> None:
    path = save(textured(500), tmp_path / "photos" / "a.png")
    plain = small_model.inspect(path)
    with FeatureCache(tmp_path) as cache:
        model = reconpatch.fit(good_folder, **SMALL_FIT, remember=cache.remember)
        assert model.fingerprint == small_model.fingerprint
        fitted = len(cache._entries)
        for _ in range(2):
            result = model.inspect(path)
            assert result.score == pytest.approx(plain.score, rel=1e-5)
            np.testing.assert_allclose(result.heatmap, plain.heatmap, rtol=1e-4)
        assert len(cache._entries) == fitted + 1
