from __future__ import annotations

import numpy as np
import pytest

from reconpatch import memory_bank
from reconpatch.errors import SettingsError
from reconpatch.memory_bank import MemoryBank, distances


def bank_of(rows):
    rows = np.asarray(rows, np.float32)
    return MemoryBank(rows, np.zeros(len(rows), np.int64), np.arange(len(rows)))


def normal(shape, seed, offset=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + offset).astype(np.float32)


def all_distances(queries, rows):
    """(Q, M) float64, one pair at a time."""
    return np.array([[np.sqrt(((q - r) ** 2).sum()) for r in rows] for q in np.float64(queries)])


def nearest_one_by_one(queries, rows, allowed=None):
    table = all_distances(queries, rows)
    if allowed is not None:
        table[:, ~allowed] = np.inf
    return table.min(axis=1), table.argmin(axis=1)


# nearest


def test_the_nearest_row_and_its_distance_by_hand():
    bank = bank_of([[0, 0], [3, 4], [10, 0]])
    found, indices = bank.nearest(np.array([[0, 0], [0, 4], [7, 0], [6, 8]], np.float32))
    assert indices.tolist() == [0, 1, 2, 1]
    assert found.tolist() == [0.0, 3.0, 3.0, 5.0]
    assert found.dtype == np.float32
    assert indices.dtype == np.int64
    assert len(bank) == 3


# A product of 40 rows of the bank at a time: less than one query, one, some, and all at once.
@pytest.mark.parametrize("elements", [1, 40, 40 * 7, 40 * 7 + 39, 40 * 25, 2**24])
@pytest.mark.parametrize("queries", [0, 1, 25])
def test_nearest_is_the_brute_force_at_every_block_border(monkeypatch, elements, queries):
    monkeypatch.setattr(memory_bank, "_BLOCK_ELEMENTS", elements)
    rows, asked = normal((40, 6), seed=0), normal((queries, 6), seed=1)
    found, indices = bank_of(rows).nearest(asked)
    assert found.shape == indices.shape == (queries,)
    if queries:
        expected, expected_indices = nearest_one_by_one(asked, rows)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_array_equal(indices, expected_indices)


@pytest.mark.parametrize("seed", range(5))
def test_only_allowed_rows_are_found(seed):
    rows, asked = normal((30, 4), seed), normal((20, 4), seed + 100)
    allowed = np.random.default_rng(seed).random(30) < 0.3
    found, indices = bank_of(rows).nearest(asked, allowed=allowed)
    expected, expected_indices = nearest_one_by_one(asked, rows, allowed)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(indices, expected_indices)
    assert allowed[indices].all()


def test_leaving_rows_out_gives_the_distances_of_a_bank_without_them():
    rows, asked = normal((30, 4), seed=0), normal((20, 4), seed=1)
    allowed = np.arange(30) % 3 != 0
    found, indices = bank_of(rows).nearest(asked, allowed=allowed)
    smaller, smaller_indices = bank_of(rows[allowed]).nearest(asked)
    np.testing.assert_array_equal(found, smaller)
    np.testing.assert_array_equal(indices, np.flatnonzero(allowed)[smaller_indices])


def test_a_bank_with_every_row_left_out_is_refused():
    bank = bank_of(normal((3, 2), seed=0))
    with pytest.raises(SettingsError, match="no row of the memory bank is left"):
        bank.nearest(normal((1, 2), seed=1), allowed=np.zeros(3, bool))


def test_equally_near_rows_give_the_lower_index():
    bank = bank_of([[9, 9], [1, 0], [0, 1], [1, 0]])
    assert bank.nearest(np.zeros((1, 2), np.float32))[1].tolist() == [1]


@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_the_distance_is_right_far_from_the_origin_where_the_product_form_cancels(offset):
    rows, asked = normal((200, 16), 0, offset), normal((50, 16), 1, offset)
    found, indices = bank_of(rows).nearest(asked)
    direct = np.linalg.norm(asked.astype(np.float64) - rows[indices], axis=1)
    np.testing.assert_allclose(found, direct, rtol=1e-5)
    # Which row is proposed is known up to the rounding of the product form, and no worse.
    best, _ = nearest_one_by_one(asked, rows)
    rounding = 16 * np.finfo(np.float32).eps * float((rows**2).sum(axis=1).max())
    assert (found**2 <= best**2 + rounding).all()


def test_a_row_of_the_bank_far_from_the_origin_has_distance_zero_to_itself():
    rows = normal((50, 16), 0, 1000.0) * np.float32(10)
    found, indices = bank_of(rows).nearest(rows[:5])
    table = all_distances(rows[:5], rows)
    assert table[np.arange(5), indices] == pytest.approx(np.zeros(5), abs=1e-9)
    assert found.tolist() == [0.0] * 5


# neighbours_of


def test_the_neighbours_of_a_row_come_nearest_first_and_itself_first_of_all():
    bank = bank_of([[0], [10], [1], [4], [-2]])
    assert bank.neighbours_of(0, 1).tolist() == [0]
    assert bank.neighbours_of(0, 3).tolist() == [0, 2, 4]
    assert bank.neighbours_of(1, 5).tolist() == [1, 3, 2, 0, 4]


def test_more_neighbours_than_rows_are_all_rows():
    assert bank_of([[0], [5], [1]]).neighbours_of(1, 9).tolist() == [1, 2, 0]


@pytest.mark.parametrize("row", [0, 2, 3])
def test_a_row_is_first_among_its_own_copies(row):
    found = bank_of([[1], [9], [1], [1]]).neighbours_of(row, 3).tolist()
    assert found[0] == row
    assert sorted(found) == [0, 2, 3]


@pytest.mark.parametrize("b", [1, 2, 9, 40])
def test_neighbours_are_the_brute_force(b):
    rows = normal((40, 5), seed=3)
    table = all_distances(rows, rows)
    for row in range(40):
        expected = sorted(range(40), key=lambda j, row=row: (table[row, j], j))[:b]
        assert bank_of(rows).neighbours_of(row, b).tolist() == expected


# distances


def test_distances_by_hand():
    a = np.array([[0, 0], [1, 1], [3, 0]], np.float32)
    b = np.array([[3, 4], [1, 1], [0, 0]], np.float32)
    assert distances(a, b).tolist() == [5.0, 0.0, 3.0]
