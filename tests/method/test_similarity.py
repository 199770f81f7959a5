"""Eq. 1 to 6 against loops and sets straight from the paper, and against numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reconpatch.method.similarity import (
    Ints,
    Reals,
    contextual_similarity,
    membership,
    mixed_similarity,
    neighbourhoods,
    pairwise_similarity,
    reciprocal_neighbours,
    shared_neighbours,
    squared_distances,
)

# Only results are judged here, not how long they take.
any_time = settings(deadline=None)

# Four patches on a line: 0, 1, 3 and 7.
LINE = np.array([[0.0], [1.0], [3.0], [7.0]])

# Whole numbers near each other: squared distances without rounding, many ties and duplicates.
PATCHES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 9), st.integers(1, 3)),
    elements=st.integers(-2, 2).map(float),
)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Reals, int, int, bool]:
    """Patches with k, k/2 (any size up to k) and whether a patch counts among its own k."""
    z = draw(PATCHES)
    include_self = draw(st.booleans())
    k = draw(st.integers(1, len(z) if include_self else len(z) - 1))
    return z, k, draw(st.integers(1, k)), include_self


def squared_by_loops(z: Reals) -> list[list[float]]:
    rows = z.tolist()
    return [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]


def sets_of(neighbours: Ints) -> list[set[int]]:
    return [set(row) for row in neighbours.tolist()]


def closest_sets(squared: list[list[float]], places: int) -> list[set[int]]:
    """N(i) = {j : d_ij <= d_il}, l being the patch in the last of the places, i in the first."""
    everyone = range(len(squared))
    return [{j for j in everyone if row[j] <= sorted(row)[places - 1]} for row in squared]


def reciprocal_sets(near: list[set[int]]) -> list[set[int]]:
    """R(i) = {j : j in N(i) and i in N(j)} (eq. 3)."""
    everyone = range(len(near))
    return [{j for j in everyone if j in near[i] and i in near[j]} for i in everyone]


def shared_by_sets(near: list[set[int]], i: int, j: int) -> float:
    """w~(i, j) (eq. 2)."""
    return len(near[i] & near[j]) / len(near[i]) if j in near[i] else 0.0


def contextual_by_sets(near: list[set[int]], nearest: list[set[int]]) -> npt.NDArray[np.float64]:
    """w_ctx (eq. 2 to 5) of N_k and N_{k/2}, entry by entry."""
    everyone = range(len(near))
    reciprocal = reciprocal_sets(nearest)

    def expanded(i: int, j: int) -> float:  # eq. 4
        shared = [shared_by_sets(near, one, j) for one in reciprocal[i]]
        return sum(shared) / len(shared)

    return np.array([[(expanded(i, j) + expanded(j, i)) / 2 for j in everyone] for i in everyone])


def contextual_by_matrices(near: Ints, nearest: Ints) -> Reals:
    """w_ctx in the textbook's dense form: membership matrices and their N x N x N products."""
    member = membership(near).astype(np.float64)
    shared = (member @ member.T) / member.sum(axis=1, keepdims=True) * member
    reciprocal = (membership(nearest) & membership(nearest).T).astype(np.float64)
    expanded: Reals = reciprocal @ shared / reciprocal.sum(axis=1, keepdims=True)
    return (expanded + expanded.T) / 2


def random_patches(seed: int, n: int, d: int = 4) -> Reals:
    return np.random.default_rng(seed).normal(size=(n, d))


# squared distances


def test_squared_distances_on_a_line() -> None:
    expected = [[0, 1, 9, 49], [1, 0, 4, 36], [9, 4, 0, 16], [49, 36, 16, 0]]
    assert squared_distances(LINE).tolist() == expected


@any_time
@given(PATCHES)
def test_squared_distances_against_loops(patches: npt.NDArray[np.float64]) -> None:
    assert squared_distances(patches).tolist() == squared_by_loops(patches)


def test_squared_distances_of_float32_duplicates_are_never_negative() -> None:
    z = np.tile(random_patches(0, 20, 100).astype(np.float32), (3, 1)) * 30
    squared = squared_distances(z)
    assert squared.min() >= 0.0
    assert not squared.diagonal().any()
    assert squared.dtype == np.float32
    np.testing.assert_array_equal(squared, squared.T)
    rounding = np.square(z).sum(axis=1).max() * 1e-5
    assert squared[:20, 20:40].diagonal().max() <= rounding


# eq. 1


def test_pairwise_similarity_by_hand() -> None:
    w = pairwise_similarity(squared_distances(LINE), sigma=2.0)
    expected = [math.exp(-0.5), math.exp(-4.5), math.exp(-24.5)]
    assert w[0, 1:].tolist() == pytest.approx(expected, rel=1e-12)
    assert w.diagonal().tolist() == [1.0] * 4


@any_time
@given(PATCHES, st.floats(0.5, 10.0))
def test_pairwise_similarity_against_loops(patches: npt.NDArray[np.float64], sigma: float) -> None:
    w = pairwise_similarity(squared_distances(patches), sigma)
    expected = [[math.exp(-d / sigma) for d in row] for row in squared_by_loops(patches)]
    np.testing.assert_allclose(w, expected, rtol=1e-12)
    np.testing.assert_array_equal(w, w.T)
    assert w.min() > 0.0
    assert w.max() <= 1.0


# N_k


def test_neighbourhoods_on_a_line() -> None:
    squared = squared_distances(LINE)
    counted = neighbourhoods(squared, 2, include_self=True)
    assert counted.tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]
    others = neighbourhoods(squared, 2, include_self=False)
    assert others.tolist() == [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 2, 1]]


@any_time
@given(batches())
def test_neighbourhoods_hold_the_closest_and_the_patch_first(
    batch: tuple[Reals, int, int, bool],
) -> None:
    z, k, _, include_self = batch
    squared = squared_by_loops(z)
    near = neighbourhoods(squared_distances(z), k, include_self=include_self).tolist()
    for i, row in enumerate(near):
        assert row[0] == i
        assert len(set(row)) == k + (not include_self)
        distances = [squared[i][j] for j in row]
        assert distances == sorted(squared[i])[: len(row)]


@any_time
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.booleans(), st.data())
def test_neighbourhoods_are_the_papers_sets_where_no_distances_tie(
    seed: int, n: int, include_self: bool, data: st.DataObject
) -> None:
    z = random_patches(seed, n)
    k = data.draw(st.integers(1, n - 1))
    near = neighbourhoods(squared_distances(z), k, include_self=include_self)
    assert sets_of(near) == closest_sets(squared_by_loops(z), k if include_self else k + 1)


def test_a_patch_is_its_own_nearest_even_among_duplicates() -> None:
    squared = squared_distances(np.ones((6, 2)))
    assert neighbourhoods(squared, 3, include_self=True)[:, 0].tolist() == list(range(6))
    everyone = neighbourhoods(squared, 6, include_self=True).tolist()
    assert everyone == [[i, *(j for j in range(6) if j != i)] for i in range(6)]


def test_k_neighbours_besides_itself_are_k_plus_one_with_itself() -> None:
    squared = squared_distances(random_patches(3, 10))
    besides = neighbourhoods(squared, 4, include_self=False)
    np.testing.assert_array_equal(besides, neighbourhoods(squared, 5, include_self=True))


@any_time
@given(batches())
def test_membership_is_the_set_as_a_matrix(batch: tuple[Reals, int, int, bool]) -> None:
    z, k, _, include_self = batch
    near = neighbourhoods(squared_distances(z), k, include_self=include_self)
    sets = sets_of(near)
    expected = [[j in sets[i] for j in range(len(z))] for i in range(len(z))]
    assert membership(near).tolist() == expected


# eq. 2 and 3


def test_shared_neighbours_on_a_line() -> None:
    near = neighbourhoods(squared_distances(LINE), 2, include_self=True)
    # {0,1}, {1,0}, {3,1}, {7,3}: 3 and 1 share one of two, so do 7 and 3.
    assert shared_neighbours(near).tolist() == [[1.0, 1.0], [1.0, 1.0], [1.0, 0.5], [1.0, 0.5]]


def test_reciprocal_neighbours_on_a_line() -> None:
    near = neighbourhoods(squared_distances(LINE), 2, include_self=True)
    # 1 is among the nearest of 3, but 3 is not among those of 1.
    assert reciprocal_neighbours(near).tolist() == [
        [True, True],
        [True, True],
        [True, False],
        [True, False],
    ]


@any_time
@given(batches())
def test_shared_neighbours_against_sets(batch: tuple[Reals, int, int, bool]) -> None:
    z, k, _, include_self = batch
    near = neighbourhoods(squared_distances(z), k, include_self=include_self)
    sets = sets_of(near)
    expected = [[shared_by_sets(sets, i, j) for j in row] for i, row in enumerate(near.tolist())]
    shared = shared_neighbours(near)
    np.testing.assert_allclose(shared, expected, rtol=1e-12)
    assert shared.min() >= 1.0 / near.shape[1]


@any_time
@given(batches())
def test_reciprocal_neighbours_against_sets(batch: tuple[Reals, int, int, bool]) -> None:
    z, k, _, include_self = batch
    near = neighbourhoods(squared_distances(z), k, include_self=include_self)
    reciprocal = reciprocal_sets(sets_of(near))
    expected = [[j in reciprocal[i] for j in row] for i, row in enumerate(near.tolist())]
    assert reciprocal_neighbours(near).tolist() == expected


# eq. 4 and 5


def test_contextual_similarity_by_hand_where_each_is_its_own_reciprocal_neighbour() -> None:
    w = contextual_similarity(squared_distances(LINE), 2, k_reciprocal=1, include_self=True)
    assert w.tolist() == [
        [1.0, 1.0, 0.0, 0.0],
        [1.0, 1.0, 0.25, 0.0],
        [0.0, 0.25, 1.0, 0.25],
        [0.0, 0.0, 0.25, 1.0],
    ]


def test_contextual_similarity_by_hand_where_three_rows_are_averaged() -> None:
    # w~ has the rows (1, 1, 0, 0) twice, (0, 1/2, 1, 0) and (0, 0, 1/2, 1); R_3 is {0, 1, 3} for
    # each of its three and {7} for 7, so ŵ has (2/3, 5/6, 1/3, 0) three times.
    w = contextual_similarity(squared_distances(LINE), 2, k_reciprocal=3, include_self=True)
    expected = [
        [2 / 3, 3 / 4, 1 / 2, 0.0],
        [3 / 4, 5 / 6, 7 / 12, 0.0],
        [1 / 2, 7 / 12, 1 / 3, 1 / 4],
        [0.0, 0.0, 1 / 4, 1.0],
    ]
    np.testing.assert_allclose(w, expected, atol=1e-7)


def test_contextual_similarity_by_hand_where_the_patch_does_not_count() -> None:
    # N_2 is {0, 1, 3} for each of its three, {7, 3, 1} for 7; R_1 is {0, 1} for 0 and 1.
    w = contextual_similarity(squared_distances(LINE), 2, k_reciprocal=1, include_self=False)
    threefold = [[3, 3, 3, 0], [3, 3, 3, 1], [3, 3, 3, 1], [0, 1, 1, 3]]
    np.testing.assert_allclose(3 * w, threefold, atol=1e-6)


@any_time
@given(batches())
def test_contextual_similarity_against_sets_and_the_dense_form(
    batch: tuple[Reals, int, int, bool],
) -> None:
    z, k, k_reciprocal, include_self = batch
    squared = squared_distances(z)
    near = neighbourhoods(squared, k, include_self=include_self)
    nearest = near[:, : k_reciprocal + (not include_self)]
    w = contextual_similarity(squared, k, k_reciprocal=k_reciprocal, include_self=include_self)
    expected = contextual_by_sets(sets_of(near), sets_of(nearest))
    np.testing.assert_allclose(w, expected, atol=1e-6)
    np.testing.assert_allclose(contextual_by_matrices(near, nearest), expected, atol=1e-12)


@any_time
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.booleans(), st.data())
def test_contextual_similarity_from_the_patches_on_against_the_papers_definitions(
    seed: int, n: int, include_self: bool, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n - 1))
    half = max(1, k // 2)
    z = random_patches(seed, n)
    more = 0 if include_self else 1
    squared = squared_by_loops(z)
    expected = contextual_by_sets(
        closest_sets(squared, k + more), closest_sets(squared, half + more)
    )
    w = contextual_similarity(squared_distances(z), k, k_reciprocal=half, include_self=include_self)
    np.testing.assert_allclose(w, expected, atol=1e-6)


@any_time
@given(batches())
def test_contextual_similarity_is_symmetric_and_between_0_and_1(
    batch: tuple[Reals, int, int, bool],
) -> None:
    z, k, k_reciprocal, include_self = batch
    w = contextual_similarity(
        squared_distances(z), k, k_reciprocal=k_reciprocal, include_self=include_self
    )
    np.testing.assert_array_equal(w, w.T)
    assert w.min() >= 0.0
    assert w.max() <= 1.0 + 1e-6
    assert w.diagonal().min() > 0.0
    assert w.dtype == z.dtype


@pytest.mark.parametrize("include_self", [True, False])
def test_the_smallest_batches(include_self: bool) -> None:
    two = squared_distances(np.array([[0.0], [5.0]]))
    w = contextual_similarity(two, 1, k_reciprocal=1, include_self=include_self)
    # Alone with itself, or with the only other there is.
    assert w.tolist() == ([[1.0, 0.0], [0.0, 1.0]] if include_self else [[1.0, 1.0], [1.0, 1.0]])

    k = 5
    everyone = squared_distances(random_patches(1, k + 1))
    w = contextual_similarity(everyone, k, k_reciprocal=2, include_self=include_self)
    assert w.shape == (k + 1, k + 1)
    if not include_self:  # all are neighbours of all
        np.testing.assert_allclose(w, np.ones((k + 1, k + 1)), atol=1e-6)


# eq. 6


def test_mixed_similarity_by_hand() -> None:
    w = mixed_similarity(np.array([[0.4]]), np.array([[0.8]]), alpha=0.25)
    assert w.item() == pytest.approx(0.7)


@any_time
@given(batches(), st.floats(0.0, 1.0))
def test_mixed_similarity_against_loops(batch: tuple[Reals, int, int, bool], alpha: float) -> None:
    z, k, k_reciprocal, include_self = batch
    squared = squared_distances(z)
    pairwise = pairwise_similarity(squared, 1.5)
    contextual = contextual_similarity(
        squared, k, k_reciprocal=k_reciprocal, include_self=include_self
    )
    w = mixed_similarity(pairwise, contextual, alpha)
    everyone = range(len(z))
    expected = [
        [alpha * pairwise[i, j].item() + (1 - alpha) * contextual[i, j].item() for j in everyone]
        for i in everyone
    ]
    np.testing.assert_allclose(w, expected, atol=1e-12)
    np.testing.assert_array_equal(w, w.T)
    assert w.min() >= 0.0
    assert w.max() <= 1.0 + 1e-6
