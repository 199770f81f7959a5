"""The composition of photos: by hand, beside slow references and another library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from reconpatch.method.composition import (
    Composition,
    Floats,
    halved,
    shrunk_covariance,
    whitening_of,
)
from reconpatch.method.memory_bank import MemoryBank


def plain(means: Floats, groups: list[int], units: tuple[float, ...] = (0, 1, 0, 1)) -> Composition:
    """A composition whose distances are Euclidean."""
    dim = means.shape[1]
    whitening = np.eye(dim, dtype=np.float32)
    of = np.array(groups)
    return Composition(means, of, halved(of), len(means), whitening, np.float32(units))


def means_of(photos: int, dim: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(photos, dim)) @ rng.normal(size=(dim, dim)) + 3).astype(np.float32)


@pytest.mark.parametrize(("photos", "dim"), [(200, 5), (20, 5), (8, 30), (3, 4)])
def test_the_covariance_is_that_of_another_library(photos: int, dim: int) -> None:
    means = means_of(photos, dim)
    theirs = LedoitWolf().fit(means.astype(np.float64)).covariance_
    np.testing.assert_allclose(shrunk_covariance(means), theirs, rtol=1e-6, atol=1e-9)


def test_many_means_are_whitened() -> None:
    means = means_of(50_000, 4)
    whitened = means.astype(np.float64) @ whitening_of(means)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=0.02)


def test_means_that_do_not_vary_are_left_as_they_are() -> None:
    np.testing.assert_allclose(
        whitening_of(np.ones((4, 3), np.float32)) @ whitening_of(np.ones((4, 3), np.float32)).T,
        np.eye(3),
        atol=1e-6,
    )


def test_c_is_the_distance_to_the_nearest_good_photo() -> None:
    given = plain(np.float32([[0, 0], [10, 0]]), [0, 1])
    assert given.distances(np.float32([[3, 4], [10, 1], [10, 0]])).tolist() == [5, 1, 0]
    stretched = replace(given, whitening=np.float32([[2, 0], [0, 1]]))
    assert stretched.distances(np.float32([[3, 0]])).tolist() == [6]


def test_scores_are_joined_in_standard_deviations() -> None:
    # Good photos: 10 +- 2 by patches, and c 5 +- 1, which the weight made 1.25 of.
    given = plain(np.float32([[0, 0], [3, 4]]), [0, 1], (10, 2, 5, 1.25))
    # Both one standard deviation above: 10 + 2 (1 + ln 2).
    both = given.joined(np.array([12.0]), np.array([6.25]))
    assert both[0] == pytest.approx(12 + 2 * np.log(2))
    # Where one is far above, the other says nothing, and no exponential overflows.
    far = given.joined(np.array([2000.0, 10.0]), np.array([5.0, 5 + 1.25 * 1000]))
    assert far.tolist() == pytest.approx([2000, 2010])


@pytest.mark.parametrize(("at", "score", "share"), [(5, 10, 0.5), (5, 4, 0.9526), (0, 10, 0.018)])
def test_the_share_is_what_the_composition_adds(at: float, score: float, share: float) -> None:
    given = plain(np.float32([[0, 0]]), [0], (10, 2, 5, 1.25))
    patches = np.float32([[at, 1], [at, -1]])  # around (at, 0), c = at
    c = given.of_patches(patches)
    assert c == pytest.approx([at])
    joined = given.joined(np.array([score]), c)
    assert given.share(joined, c) == pytest.approx([share], abs=1e-3)


def test_each_photo_is_judged_by_the_half_it_is_not_in() -> None:
    means = means_of(11, 3)
    groups = np.array([5, 5, 1, 1, 2, 9, 9, 3, 4, 4, 4])  # sorted: 1 2 3 4 | 5 9
    first = np.isin(groups, [1, 2, 3])
    made = Composition.of(means, groups, np.arange(11.0), 0.5)
    assert made is not None
    for i, group in enumerate(groups):
        others = means[~first] if group in (1, 2, 3) else means[first]
        whitening = whitening_of(others).astype(np.float64)
        slow = min(np.linalg.norm((means[i] - other) @ whitening) for other in others)
        assert made.leave_one_out[i] == pytest.approx(slow, rel=1e-4)
        assert made.without(int(group)).distances(means[i][None])[0] == pytest.approx(
            slow, rel=1e-4
        )
    own = made.leave_one_out
    assert made.units == pytest.approx(
        [np.arange(11).mean(), np.arange(11).std(), own.mean(), own.std() / 0.5]
    )
    assert made.without(77) is made  # a group that it does not know is in no half


def test_a_bank_does_without_a_group_in_both() -> None:
    rows = np.float32([[0, 0], [1, 1]])
    nowhere = np.zeros(2, np.int64)
    composition = Composition.of(means_of(6, 2), np.arange(6), np.arange(6.0), 0.8)
    bank = MemoryBank(rows, nowhere, nowhere, rows, composition=composition)
    none = np.zeros(2, np.bool_)
    assert bank.without(none) is bank
    mine = bank.without(none, 1).composition
    assert composition is not None
    assert mine is not None
    assert mine.groups.tolist() == [3, 4, 5]
    assert {"compositions", "whitening", "units"} <= set(bank.inputs)


def test_where_nothing_varies_there_is_no_composition() -> None:
    means, groups = means_of(6, 2), np.arange(6)
    assert Composition.of(means, groups, np.ones(6), 0.8) is None
    assert np.full(30, 8.3).std() > 0  # by rounding alone
    assert Composition.of(means_of(30, 2), np.arange(30), np.full(30, 8.3), 0.8) is None
    assert Composition.of(np.ones((6, 2), np.float32), groups, np.arange(6.0), 0.8) is None


def test_other_photos_keep_the_units() -> None:
    made = Composition.of(means_of(6, 2), np.arange(6), np.arange(6.0), 0.8)
    assert made is not None
    means, groups = means_of(9, 2, seed=1), np.arange(9)
    more = made.with_photos(means, groups, halved(groups), 9)
    assert more.units is made.units
    np.testing.assert_array_equal(more.whitening, whitening_of(means))


def test_false_alarms_are_rows_and_no_more() -> None:
    means, groups = means_of(8, 3), np.arange(8)
    made = Composition.of(means, groups, np.arange(8.0), 0.8)
    assert made is not None
    false_alarm = means[:1] + 50
    more = made.with_photos(
        np.concatenate([means, false_alarm]), np.arange(9), np.append(made.first, True), 8
    )
    np.testing.assert_array_equal(more.whitening, made.whitening)
    assert len(more.leave_one_out) == 8
    assert more.distances(false_alarm)[0] == pytest.approx(0, abs=1e-3)
    assert made.distances(false_alarm)[0] > 5
    first, second = more.halves
    assert (len(first.means), first.scored, len(second.means)) == (5, 4, 4)
    np.testing.assert_array_equal(first.whitening, whitening_of(means[:4]))
    # As if it were new, it is judged by the half that it is not in.
    assert more.without(8) is second
