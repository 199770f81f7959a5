"""Quarter turns in the bank: where a copy's patches lie, which are picked, and when it pays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reconpatch.fitting.turns import Turned, TurnsDecision, bank_with, decide, turned
from reconpatch.method.coreset import greedy_coreset
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings
from reconpatch.model.good_photos import TrainingPhoto
from reconpatch.photos.images import as_unit
from reconpatch.photos.layout import Layout


class Cells:
    """An extractor whose patch features are the mean colours of cells of 4 x 4 pixels."""

    channels = 3

    def __init__(self, grid):
        self.grid = grid
        self.input_size = (4 * grid[0], 4 * grid[1])

    def __call__(self, photos):
        h, w = self.grid
        means = photos.reshape(len(photos), 3, h, 4, w, 4).mean(axis=(3, 5))
        return means.reshape(len(photos), 3, h * w).transpose(0, 2, 1).astype(np.float32)


def prepared(grid, numbers=(0, 3), seed=0):
    draw = np.random.default_rng(seed)
    size = (4 * grid[0], 4 * grid[1])
    view = Layout.whole(grid, size).views[0]
    return {i: (view, draw.integers(0, 256, (3, *size), dtype=np.uint8)) for i in numbers}


def turned_once(grid):
    """The places of a photo's patches after a quarter turn to the left, one at a time."""
    h, w = len(grid), len(grid[0])
    return [[grid[y][w - 1 - x] for y in range(h)] for x in range(w)]


def pick(r, rows):
    return greedy_coreset(r, rows).indices


# turned


@pytest.mark.parametrize(
    ("grid", "quarters"), [((3, 3), (1, 2, 3)), ((2, 5), (2,)), ((1, 4), (2,))]
)
def test_the_places_of_a_copy_are_those_of_the_loop(grid, quarters):
    copies = turned(prepared(grid), Cells(grid), Representation())
    h, w = grid
    assert copies.photo.tolist() == [i for i in (0, 3) for _ in quarters]
    assert copies.place.dtype == copies.photo.dtype == np.int64
    expected = []
    for quarter in quarters:
        places = [[y * w + x for x in range(w)] for y in range(h)]
        for _ in range(quarter):
            places = turned_once(places)
        expected.append([place for row in places for place in row])
    assert copies.place.tolist() == expected * 2


def test_places_by_hand():
    # 0 1 / 2 3 turned to the left by a quarter is 1 3 / 0 2, by two 3 2 / 1 0, by three 2 0 / 3 1.
    copies = turned(prepared((2, 2), numbers=[7]), Cells((2, 2)), Representation())
    assert copies.place.tolist() == [[1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]
    assert copies.photo.tolist() == [7, 7, 7]


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_a_patch_of_a_copy_shows_the_place_it_names(grid):
    # Means of cells do not change when the photo is turned.
    photos, extractor = prepared(grid), Cells(grid)
    copies = turned(photos, extractor, Representation())
    assert copies.r.dtype == np.float32
    for features, photo, place in zip(copies.r, copies.photo, copies.place, strict=True):
        original = extractor(as_unit(photos[int(photo)][1][None]))[0]
        np.testing.assert_allclose(features, original[place], atol=1e-6)


# bank_with


F = Representation(np.float32([[1, 0, 2], [0, 3, 0]]), np.float32([-0.5, 0.25]))


def a_bank(grid, photos, rows, f=F, seed=1):
    """A bank of rows of these photos as they are."""
    extractor = Cells(grid)
    r = np.stack([f(extractor(as_unit(x[None]))[0]) for _, x in photos.values()])
    numbers = np.repeat(list(photos), r.shape[1])
    places = np.tile(np.arange(r.shape[1]), len(photos))
    chosen = np.random.default_rng(seed).permutation(len(numbers))[:rows]
    kept = r.reshape(-1, r.shape[2])[chosen]
    return MemoryBank(kept, numbers[chosen], places[chosen], kept)


@pytest.mark.parametrize("rows", [1, 5, 18])
def test_a_bank_with_copies_keeps_its_size_and_says_where_its_rows_are_from(rows):
    photos, extractor = prepared((3, 3)), Cells((3, 3))
    copies = turned(photos, extractor, F)
    found = bank_with(a_bank((3, 3), photos, rows), copies, pick)
    assert len(found) == rows
    for row, photo, place in zip(found.rows, found.photo, found.place, strict=True):
        original = extractor(as_unit(photos[int(photo)][1][None]))[0]
        np.testing.assert_allclose(row, F(original[place]), atol=1e-5)
    assert found.rows.dtype == np.float32
    assert found.replacements.shape == found.rows.shape


def test_rows_of_copies_are_picked_where_the_bank_has_nothing():
    # The photo has only been seen as 0 and 1; its copy shows 9 at place 2 and 5 at place 0.
    bank = MemoryBank(np.float32([[0], [1]]), np.array([4, 4]), np.array([1, 3]),
                      np.float32([[0], [1]]))  # fmt: skip
    copies = Turned(np.float32([[[9], [0], [5], [1]]]), np.array([6]), np.array([[2, 3, 0, 1]]))
    found = bank_with(bank, copies, pick)
    # Of the copy 9 and then 0 are picked; of 0, 1, 9, 0 the first and then the furthest, 9.
    assert found.rows.ravel().tolist() == [0, 9]
    assert found.photo.tolist() == [4, 6]
    assert found.place.tolist() == [1, 2]


def test_fewer_patches_of_copies_than_rows_are_all_offered():
    bank = MemoryBank(*(np.arange(6, dtype=np.float32)[:, None], np.zeros(6, np.int64),
                        np.arange(6), np.arange(6, dtype=np.float32)[:, None]))  # fmt: skip
    copies = Turned(np.float32([[[40], [50]]]), np.array([1]), np.array([[1, 0]]))
    found = bank_with(bank, copies, pick)
    assert len(found) == 6
    assert {40.0, 50.0} <= set(found.rows.ravel().tolist())


# decide


GRID = (2, 2)
LAYOUT = Layout.whole(GRID, (8, 8))
LARGEST = ScoringSettings()


def photos_of(groups):
    return [TrainingPhoto(str(i), str(i), 8, 8, g) for i, g in enumerate(groups)]


def bank_on_a_line(*rows):
    """Rows of (value, photo)."""
    values = np.array([[value] for value, _ in rows], np.float32)
    return MemoryBank(values, np.array([photo for _, photo in rows]), np.zeros(len(rows), np.int64),
                      values)  # fmt: skip


def decided(plain, other, patches, groups, scoring=LARGEST, of=None):
    patches = np.float32(patches)[:, :, None] if np.ndim(patches) == 2 else np.float32(patches)
    of = list(range(len(patches))) if of is None else of
    return decide(plain, other, lambda i: patches[i], photos_of(groups), of, scoring, LAYOUT)


PLAIN = bank_on_a_line((0, 0), (10, 1), (20, 2))
PATCHES = [[0, 1, 2, 3], [2, 2, 2, 2], [22, 22, 22, 22]]


def test_scores_without_own_rows_by_hand():
    # Photo 0: row 10, at 10, 9, 8, 7. Photo 1: row 0, at 2. Photo 2: row 10, at 12.
    # With a copy of photo 0 at 21: photo 2 has 1, the others as before.
    other = bank_on_a_line((0, 0), (10, 1), (20, 2), (21, 0))
    found = decided(PLAIN, other, PATCHES, [0, 1, 2])
    before, after = np.array([10, 2, 12]), np.array([10, 2, 1])
    mean = after.mean() / before.mean()
    assert found.mean == pytest.approx(mean)
    assert found.spread == pytest.approx(after.std() / before.std() / mean)
    assert found.photos == 3
    assert not found.taken


def test_copies_that_bring_the_scores_together_are_taken():
    # Photos 1 and 3 are odd: 12 instead of 10 away. With copies of others all are 10 away.
    plain = bank_on_a_line((0, 0), (100, 1))
    patches = [[90] * 4, [12] * 4, [10] * 4, [112] * 4]
    helped = bank_on_a_line((0, 0), (100, 1), (2, 2), (102, 0))
    found = decided(plain, helped, patches, [0, 1, 2, 3])
    assert found.taken
    assert found.spread < 0.92


def test_copies_that_change_nothing_or_take_rows_away_are_left_out():
    plain = bank_on_a_line((0, 0), (100, 1))
    patches = [[90] * 4, [12] * 4, [10] * 4, [112] * 4]
    same = decided(plain, plain, patches, [0, 1, 2, 3])
    assert (same.taken, same.spread, same.mean) == (False, pytest.approx(1.0), pytest.approx(1.0))
    # All are further away and alike, since what was near gave way to a copy of what is far off.
    far = decided(plain, bank_on_a_line((1000, 1), (1000, 0)), patches, [0, 1, 2, 3])
    assert far.spread < 0.92
    assert far.mean > 1.02
    assert not far.taken


def test_copies_of_a_photo_are_left_out_with_it():
    # Turned copies of photo 1 lie on its own patches: they must not make it look good.
    copy = bank_on_a_line((0, 0), (10, 1), (20, 2), (2, 1))
    found = decided(PLAIN, copy, PATCHES, [0, 1, 2])
    before, after = np.array([10, 2, 12]), np.array([2, 2, 12])  # photo 0: from 0 to the copy at 2
    assert found.mean == pytest.approx(after.mean() / before.mean())


def test_shots_of_one_part_are_left_out_together():
    # Photos 0 and 1 are of one part: photo 1, at 2, has the row 20 alone, then the row 29.
    other = bank_on_a_line((0, 0), (10, 1), (29, 2))
    found = decided(PLAIN, other, PATCHES, [0, 0, 2], of=[1])
    assert (found.photos, found.spread, found.mean) == (1, 1.0, pytest.approx(27 / 18))


def test_the_contrast_of_the_image_score_counts():
    plain, other = (
        MemoryBank(rows, np.array([0, 1, 2]), np.zeros(3, np.int64), rows)
        for rows in (np.float32([[0, 0], [0, 0], [0, 0]]), np.float32([[0, 1], [0, 1], [0, 1]]))
    )
    patches = np.float32([[[1, 0]] * 4, [[2, 0]] * 4, [[3, 0]] * 4])
    scoring = ScoringSettings(principal=1, contrast=3.0)
    found = decided(plain, other, patches, [0, 1, 2], scoring)
    before, after = np.array([1, 2, 3]), np.sqrt(np.array([1, 4, 9]) + 9)
    assert found.mean == pytest.approx(after.mean() / before.mean())
    assert found.spread == pytest.approx(after.std() / before.std() / found.mean)


@pytest.mark.parametrize("scoring", [LARGEST, ScoringSettings(top=0.5, smooth=0.75),
                                     ScoringSettings(contrast=3.0)])  # fmt: skip
def test_a_photo_whose_part_has_all_rows_is_not_compared(scoring):
    one_part = bank_on_a_line((0, 0), (1, 0))
    found = decided(one_part, PLAIN, PATCHES, [0, 1, 2], scoring)
    assert found.photos == 2
    assert np.isfinite([found.spread, found.mean]).all()
    alone = decided(one_part, one_part, PATCHES, [0, 0, 0], scoring)
    assert alone == TurnsDecision(False, 1.0, 1.0, 0)


def test_no_photos_decide_nothing():
    assert decided(PLAIN, PLAIN, PATCHES, [0, 1, 2], of=[]) == TurnsDecision(False, 1.0, 1.0, 0)


def test_photos_that_score_zero_decide_nothing():
    bank = bank_on_a_line((0, 0), (0, 1))
    found = decided(bank, bank, [[0] * 4, [0] * 4], [0, 1])
    assert (found.taken, found.spread, found.mean) == (False, 1.0, 1.0)


# TurnsDecision


@pytest.mark.parametrize(("taken", "what"), [(True, "holds turned"), (False, "does not hold")])
def test_a_decision_in_plain_words_and_as_a_dictionary(taken, what):
    decision = TurnsDecision(taken, 0.8512, 0.97, 64)
    assert what in decision.sentence()
    assert "the scores of 64 good photos" in decision.sentence()
    assert "spread 0.85 times as much" in decision.sentence()
    record = decision.to_dict()
    assert json.loads(json.dumps(record)) == {
        "taken": taken,
        "spread": 0.8512,
        "mean": 0.97,
        "photos": 64,
        "sentence": decision.sentence(),
    }
