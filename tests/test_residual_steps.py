"""The bench's sparse contextual similarity against the dense one, and what its steps promise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reconpatch.similarity import contextual_similarity, squared_distances

FILE = Path(__file__).parent.parent / "benchmarks" / "residual_steps.py"


@pytest.fixture(scope="module")
def steps() -> Any:
    spec = importlib.util.spec_from_file_location("residual_steps", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["residual_steps"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 5)).astype(np.float32)


@pytest.mark.parametrize("k", [5, 8])
def test_sparse_contextual_similarity_is_the_dense_one(steps: Any, k: int) -> None:
    z = points(200)
    settings = steps.ResidualSettings(k=k, other_parts=False)
    graph = steps.contextual_graph(z, np.arange(200), np.arange(200), settings)
    members = np.random.default_rng(1).permutation(200)[:120]
    squared = squared_distances(torch.from_numpy(z).double())
    dense = contextual_similarity(squared, k, k_reciprocal=k // 2, include_self=True).numpy()
    found = steps.within(graph, members)
    np.testing.assert_allclose(found, dense[np.ix_(members, members)], atol=1e-6)
    assert found.max() == pytest.approx(1.0)


def test_neighbours_are_of_other_parts(steps: Any) -> None:
    z, parts = points(90), np.repeat(np.arange(30), 3)
    near, squared = steps.nearest(z, parts, 4)
    assert (near[:, 0] == np.arange(90)).all()
    assert (parts[near[:, 1:]] != parts[:, None]).all()
    direct = ((z[near] - z[:, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared, direct, atol=1e-5)
    assert (np.diff(squared, axis=1) >= 0).all()


def test_sigma_is_the_median_to_the_nearest_as_a_share_of_the_mean(steps: Any) -> None:
    z = np.array([[0.0], [1.0], [4.0], [6.0]], np.float32)  # nearest squared: 1, 1, 4, 4
    settings = steps.ResidualSettings(k=2, other_parts=False)
    graph = steps.contextual_graph(z, np.arange(4), np.arange(4), settings)
    mean = ((z - z.T) ** 2).mean()  # over all pairs, each with itself as well
    assert graph.sigma == pytest.approx(2.5 / mean)


def test_no_step_leaves_f_at_its_start(steps: Any) -> None:
    start = np.diag([1.0, 2.0, 3.0, 4.0, 5.0]).astype(np.float32)
    settings = steps.ResidualSettings(graph=64, batch=32, steps=1, rate=0.0)
    f, log = steps.residual_f(points(80), np.arange(80), start, settings, 0)
    np.testing.assert_array_equal(f.weight, start)
    assert log["movement"] == 0.0


def test_decay_bounds_the_residual(steps: Any) -> None:
    start = np.eye(5, dtype=np.float32)
    moved = [
        steps.residual_f(
            points(80),
            np.arange(80),
            start,
            steps.ResidualSettings(graph=64, batch=32, steps=40, rate=0.05, decay=decay),
            0,
        )[1]["movement"]
        for decay in (0.0, 10.0)
    ]
    assert moved[0] > 0.1 > moved[1] > 0.0
