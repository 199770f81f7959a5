from __future__ import annotations

import numpy as np
import pytest

from reconpatch.method import memory_bank
from reconpatch.method.memory_bank import NEIGHBOURS, MemoryBank, distances, row_scales


def bank_of(rows, replacements=None):
    rows = np.asarray(rows, np.float32)
    replacements = rows if replacements is None else np.asarray(replacements, np.float32)
    return MemoryBank(rows, np.zeros(len(rows), np.int64), np.arange(len(rows)), replacements)


def normal(shape, seed, offset=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + offset).astype(np.float32)


def all_distances(queries, rows):
    """(Q, M) float64, one pair at a time."""
    return np.array([[np.sqrt(((q - r) ** 2).sum()) for r in rows] for q in np.float64(queries)])


def nearest_one_by_one(queries, rows):
    table = all_distances(queries, rows)
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


def test_equally_near_rows_give_the_lower_index():
    bank = bank_of([[9, 9], [1, 0], [0, 1], [1, 0]])
    assert bank.nearest(np.zeros((1, 2), np.float32))[1].tolist() == [1]


@pytest.mark.parametrize("offset", [100.0, 1000.0, -1000.0])
def test_far_from_the_origin_the_nearest_row_is_found_all_the_same(offset):
    rows, asked = normal((200, 16), 0, offset), normal((50, 16), 1, offset)
    found, indices = bank_of(rows).nearest(asked)
    expected, expected_indices = nearest_one_by_one(asked, rows)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rows_are_told_apart_whose_difference_the_squares_of_their_norms_cannot_hold():
    # Two squares of 1000 are rounded to a multiple of 1/8, and 0.01 squared is 1/10000.
    bank = bank_of([[1000.00, 1000.0], [1000.01, 1000.0], [1000.02, 1000.0]])
    asked = bank.rows + np.float32(0.001)
    assert bank.nearest(asked)[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("queries", [1, 9])
def test_a_query_far_from_all_rows_finds_the_nearest(queries):
    rows, asked = normal((40, 6), seed=0), normal((queries, 6), seed=1, offset=50)
    found, indices = bank_of(rows).nearest(asked)
    expected, expected_indices = nearest_one_by_one(asked, rows)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_row_of_the_bank_far_from_the_origin_has_distance_zero_to_itself():
    rows = normal((50, 16), 0, 1000.0) * np.float32(10)
    found, indices = bank_of(rows).nearest(rows[:5])
    table = all_distances(rows[:5], rows)
    assert table[np.arange(5), indices] == pytest.approx(np.zeros(5), abs=1e-9)
    assert found.tolist() == [0.0] * 5


# without


def test_the_rows_left_out_give_way_to_their_replacements():
    bank = bank_of([[0], [10], [20]], replacements=[[1], [11], [21]])
    mended = bank.without(np.array([True, False, True]))
    assert mended.rows.tolist() == [[1], [10], [21]]
    assert mended.nearest(np.array([[0], [20]], np.float32))[0].tolist() == [1.0, 1.0]
    assert mended.neighbours_of(0, 3).tolist() == [0, 1, 2]
    assert len(mended) == 3


def test_a_mended_bank_keeps_places_and_replacements_and_can_be_mended_again():
    bank = bank_of([[0], [10], [20]], replacements=[[1], [11], [21]])
    once = bank.without(np.array([True, False, False]))
    np.testing.assert_array_equal(once.place, bank.place)
    np.testing.assert_array_equal(once.photo, bank.photo)
    np.testing.assert_array_equal(once.replacements, bank.replacements)
    assert once.without(np.array([False, False, True])).rows.tolist() == [[1], [10], [21]]


def test_mending_leaves_the_bank_itself_as_it_was():
    bank = bank_of([[0], [10]], replacements=[[5], [6]])
    bank.without(np.array([True, True]))
    assert bank.rows.tolist() == [[0], [10]]
    assert bank.nearest(np.zeros((1, 1), np.float32))[0].tolist() == [0.0]


def test_with_nothing_left_out_the_bank_is_its_own():
    bank = bank_of([[0], [10]], replacements=[[5], [6]])
    assert bank.without(np.zeros(2, bool)) is bank


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_mended_bank_searches_its_replacements_and_no_row_left_out(seed, offset):
    rows, asked = normal((30, 4), seed, offset), normal((20, 4), seed + 100, offset)
    replacements = normal((30, 4), seed + 200, offset)
    left_out = np.random.default_rng(seed).random(30) < 0.4
    found, indices = bank_of(rows, replacements).without(left_out).nearest(asked)
    mended = [replacements[i] if left_out[i] else rows[i] for i in range(30)]
    expected, expected_indices = nearest_one_by_one(asked, mended)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_banks_are_equal_only_to_themselves():
    # Comparing arrays element by element would make == fail, not answer.
    bank = bank_of([[0], [10]])
    assert bank in [bank]
    assert bank_of([[0], [10]]) not in [bank]


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


# row_scales


def scales_one_by_one(rows, parts, power):
    """Mean distance to the nearest three rows of other parts, by loops; rows without are as all."""
    sparse = []
    for i, row in enumerate(np.float64(rows)):
        others = [
            np.sqrt(((row - other) ** 2).sum())
            for j, other in enumerate(np.float64(rows))
            if parts[j] != parts[i]
        ]
        sparse.append(np.mean(sorted(others)[:NEIGHBOURS]) if others else np.nan)
    mean = np.nanmean(sparse)
    return np.maximum(np.where(np.isnan(sparse), mean, sparse) / mean, 0.1) ** power


def test_scales_by_hand():
    # On a line: 0 and 1 of part 0, 2 of part 1, 10 of part 2. The mean distances to other parts:
    # (2 + 10) / 2 = 6, (1 + 9) / 2 = 5, (2 + 1 + 8) / 3, (10 + 9 + 8) / 3 = 9; in the mean 71 / 12.
    rows = np.float32([[0], [1], [2], [10]])
    found = row_scales(rows, np.array([0, 0, 1, 2]), 1.0)
    mean = 71 / 12
    np.testing.assert_allclose(found, [6 / mean, 5 / mean, 11 / 3 / mean, 9 / mean], rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("elements", [1, 40 * 7, 2**24])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_scales_are_those_of_the_loop(monkeypatch, elements, power):
    monkeypatch.setattr(memory_bank, "_BLOCK_ELEMENTS", elements)
    rows = normal((40, 6), seed=0, offset=2.0)
    parts = np.random.default_rng(1).integers(0, 5, 40)
    found = row_scales(rows, parts, power)
    np.testing.assert_allclose(found, scales_one_by_one(rows, parts, power), rtol=1e-4)


def test_rows_that_are_copies_of_other_parts_have_the_smallest_scale():
    rows = np.float32([[0, 0]] * 5 + [[9, 9], [20, 0]])
    found = row_scales(rows, np.arange(7), 1.0)
    np.testing.assert_allclose(found[:5], 0.1, rtol=1e-6)
    assert found[5:].min() > 1


@pytest.mark.parametrize("rows", [[[0, 0], [3, 4]], [[1, 1]], [[2, 2], [2, 2]]])
def test_a_bank_of_one_part_or_of_one_row_has_scales_of_1(rows):
    rows = np.float32(rows)
    assert row_scales(rows, np.zeros(len(rows), np.int64), 1.0).tolist() == [1.0] * len(rows)


def test_rows_that_are_all_alike_have_scales_of_1():
    assert row_scales(np.ones((4, 2), np.float32), np.arange(4), 1.0).tolist() == [1.0] * 4


def test_a_graph_is_given_scales_only_where_there_are_some():
    bank = bank_of([[0, 0], [3, 4]])
    assert set(bank.inputs) == {"bank", "norms", "mask"}
    scaled = MemoryBank(bank.rows, bank.photo, bank.place, bank.replacements, np.float32([1, 2]))
    assert scaled.inputs["scales"].tolist() == [1, 2]
    assert scaled.without(np.array([True, False])).scales.tolist() == [1, 2]
