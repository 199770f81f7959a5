from __future__ import annotations

import numpy as np
import pytest

from reconpatch.method import relevant_components as module
from reconpatch.method.relevant_components import (
    covariance,
    inverse_power,
    nearest_differences,
    relevant_components,
)
from reconpatch.method.representation import TrainingSettings, initial_weight, make_representation


def rng(seed=0):
    return np.random.default_rng(seed)


def slow_kin(patches, parts):
    """The difference to the nearest patch of another part, patch by patch."""
    found = []
    for i, p in enumerate(patches):
        others = [j for j in range(len(patches)) if parts[j] != parts[i]]
        nearest = min(others, key=lambda j: float(((p - patches[j]) ** 2).sum()))
        found.append(p - patches[nearest])
    return np.array(found)


def by_rows(array):
    return array[np.lexsort(array.T)]


def test_differences_by_hand():
    # Part 0 has 0 and 1, part 1 has 3 and 7: the nearest of the other part are 3, 3, 1, 1.
    patches = np.array([[0], [1], [3], [7]], np.float32)
    found = nearest_differences(patches, np.array([0, 0, 1, 1]), rng())
    assert sorted(found.ravel().tolist()) == [-3, -2, 2, 6]


@pytest.mark.parametrize("block", [1, 7, 512])
def test_differences_are_to_the_nearest_patch_of_another_part(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    patches = rng(1).standard_normal((60, 4)).astype(np.float32)
    parts = rng(2).integers(0, 5, 60)
    found = nearest_differences(patches, parts, rng(3))
    np.testing.assert_allclose(by_rows(found), by_rows(slow_kin(patches, parts)), atol=1e-6)


def test_a_pool_of_one_part_is_given_one_patch_of_another(monkeypatch):
    monkeypatch.setattr(module, "POOL", 1)
    patches = np.array([[0.0], [5.0]], np.float32)
    found = nearest_differences(patches, np.array([0, 1]), rng())
    assert sorted(found.ravel().tolist()) == [-5, 5]


def test_the_covariance_is_the_mean_outer_product():
    differences = np.array([[1, 2], [-3, 0]], np.float32)
    np.testing.assert_array_equal(covariance(differences), [[5, 1], [1, 2]])


def test_an_inverse_power_by_hand():
    # The trace of diag(1, 9) is 10, its mean 5: 0.2 and 1.8 whitened are 0.2^-0.5 and 1.8^-0.5.
    found = inverse_power(np.diag([1.0, 9.0]), power=1, shrink=0)
    np.testing.assert_allclose(found, np.diag([0.2**-0.5, 1.8**-0.5]))
    half = inverse_power(np.diag([1.0, 9.0]), power=1, shrink=0.5)
    np.testing.assert_allclose(half, np.diag([0.6**-0.5, 1.4**-0.5]))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_an_inverse_power_undoes_as_much_as_it_says(power):
    a = rng(4).standard_normal((6, 6))
    matrix = a @ a.T
    weight = inverse_power(matrix, power, shrink=0.0)
    left = weight @ matrix @ weight.T
    values = np.linalg.eigvalsh(matrix)
    scale = np.trace(matrix) / 6
    expected = np.sort(values * (values / scale) ** -power)
    np.testing.assert_allclose(np.linalg.eigvalsh(left), expected, rtol=1e-8)


def test_patches_that_are_the_same_leave_everything_as_it_is():
    np.testing.assert_array_equal(inverse_power(np.zeros((3, 3)), 1.0, 0.1), np.eye(3))


def noisy_pairs(n=400, seed=5):
    """Patches of two parts that differ in the last of three dimensions, and only there."""
    draw = rng(seed)
    shared = 1000 * draw.standard_normal((n, 2))
    return np.concatenate([np.c_[shared, 5 * draw.standard_normal(n)] for _ in range(2)]).astype(
        np.float32
    ), np.repeat([0, 1], n)


def test_what_parts_differ_in_is_made_small():
    patches, parts = noisy_pairs()
    weight = relevant_components(patches, parts, dim=3, power=1.0, shrink=0.0, rng=rng())
    gain = np.linalg.norm(weight, axis=0)
    assert gain[2] < 0.3 * min(gain[0], gain[1])


def test_fewer_dimensions_are_those_of_largest_spread_after_the_change():
    patches, parts = noisy_pairs()
    whole = relevant_components(patches, parts, dim=3, power=1.0, shrink=0.0, rng=rng(1))
    two = relevant_components(patches, parts, dim=2, power=1.0, shrink=0.0, rng=rng(1))
    spread = np.linalg.eigvalsh(np.cov((patches @ whole.T).T))[::-1]
    np.testing.assert_allclose(np.var(patches @ two.T, axis=0, ddof=1), spread[:2], rtol=1e-3)


def test_no_power_is_patchcore():
    patches, parts = noisy_pairs(50)
    weight = relevant_components(patches, parts, dim=3, power=0.0, shrink=0.1, rng=rng())
    np.testing.assert_allclose(weight, np.eye(3), atol=1e-6)


def test_a_fit_without_steps_is_its_start_and_repeats_by_seed():
    patches, parts = noisy_pairs()
    settings = TrainingSettings(dim=0, init="relevant_components", steps=0, epochs=0, bias=False)
    f, _ = make_representation(patches, "reconpatch", settings, seed=3, parts=parts)
    expected = relevant_components(patches, parts, dim=3, power=0.5, shrink=0.02, rng=rng(3))
    np.testing.assert_array_equal(f.weight, expected)


def test_more_dimensions_than_features_are_left_at_zero():
    patches, parts = noisy_pairs(50)
    weight = initial_weight(patches, TrainingSettings(dim=5, init="relevant_components"), parts)
    assert weight.shape == (5, 3)
    assert not weight[3:].any()
    assert weight[:3].any()
