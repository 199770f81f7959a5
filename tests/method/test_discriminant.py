"""Fisher's linear discriminant, by hand and beside another library's."""

from __future__ import annotations

import numpy as np
import pytest

from reconpatch.method.discriminant import SHRINK, discriminant
from reconpatch.method.memory_bank import Floats


def lies(found: Floats, r: list[float]) -> float:
    return float(np.float32(r) @ found[:-1] + found[-1])


def test_it_points_to_the_defects_and_counts_standard_deviations() -> None:
    # Variances 4 and 1 around (1, 1), no covariance; the defect lies at (1, 3), itself a point.
    good = np.float32([[[3, 1], [-1, 1], [1, 1 + 2**0.5], [1, 1 - 2**0.5]]])
    good = np.stack([good[0][:, [0]] * [1, 0] + [0, 1], good[0][:, [1]] * [0, 1] + [1, 0]])
    spread = np.cov(good.reshape(-1, 2).T, bias=True)
    found = discriminant([good.astype(np.float32)], [np.float32([[1, 3], [1, 3]])])
    assert found is not None
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] == pytest.approx(1 / spread[1, 1] ** 0.5)
    assert lies(found, [5, 1]) == pytest.approx(0, abs=1e-5)
    assert lies(found, [1, 3]) == pytest.approx(2 / spread[1, 1] ** 0.5)


def test_every_defect_counts_the_same() -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(size=(4, 500, 3)).astype(np.float32)
    up, right = np.float32([[0, 9, 0]]), np.float32([[9, 0, 0]])
    found = discriminant([good], [np.repeat(up, 900, axis=0), right])
    assert found is not None
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_it_is_the_slow_and_obvious_one() -> None:
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(5, 5))
    good = (rng.normal(size=(6, 50, 5)) @ mix + 1000).astype(np.float32)  # far from the origin
    defects = [
        (rng.normal(size=(n, 5)) @ mix + 1000 + rng.normal(size=5)).astype(np.float32)
        for n in (1, 4, 20)
    ]
    flat = good.reshape(-1, 5).astype(np.float64)
    spread = sum(np.outer(x - flat.mean(0), x - flat.mean(0)) for x in flat) / len(flat)
    within = np.zeros((5, 5))
    for r in defects:
        for x in r.astype(np.float64):
            within += np.outer(x - r.mean(0), x - r.mean(0)) / len(r) / len(defects)
    towards = sum(r.mean(0, dtype=np.float64) for r in defects) / len(defects) - flat.mean(0)
    inverse = np.linalg.inv(spread + within / 2 + SHRINK * np.trace(spread) / 5 * np.eye(5))
    w = inverse @ towards
    w /= (flat @ w).std()
    found = discriminant([good[:2], good[2:]], defects)
    assert found is not None
    np.testing.assert_allclose(found[:-1], w, rtol=1e-2, atol=1e-2 * np.abs(w).max())
    projected = good.reshape(-1, 5).astype(np.float64) @ found[:-1] + found[-1]
    assert projected.std() == pytest.approx(1, rel=1e-3)
    assert projected.mean() == pytest.approx(0, abs=0.02)


def test_where_there_is_no_side_there_is_none() -> None:
    alike = np.ones((2, 3, 4), np.float32)
    assert discriminant([alike], [np.zeros((1, 4), np.float32)]) is None
    good = np.float32([[[0, 1], [0, -1]]])
    assert discriminant([good], [np.float32([[0, 2], [0, -2]])]) is None  # around the same mean
