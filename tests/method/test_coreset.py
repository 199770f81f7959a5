from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconpatch.errors import SettingsError
from reconpatch.method import coreset
from reconpatch.method.coreset import bank_rows, greedy_coreset, random_projection

# Whole numbers this small make every product and sum exact in float32, in any order of the work:
# what holds here does not depend on the machine's matrix product.
EXACT = 1000


def whole_features(n, dim, seed, high=EXACT):
    """Whole numbers whose mean is whole too: the selection subtracts it."""
    features = np.random.default_rng(seed).integers(0, high, (n, dim))
    features[-1] -= features.sum(axis=0) % n
    return features.astype(np.float32)


def squared_distances(features, row):
    return ((features.astype(np.float64) - features[row]) ** 2).sum(axis=1)


def textbook_picks(features, rows, first=0):
    """One pass over all patches for each pick; also whether any pick was a choice among equals."""
    picked, tie = [first], False
    nearest = squared_distances(features, first)
    while len(picked) < rows and nearest.max() > 0:
        tie = tie or (nearest == nearest.max()).sum() > 1
        picked.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, squared_distances(features, picked[-1]))
    return picked, tie


def covering_radius(features, picks):
    return math.sqrt(max(min(((p - features[i]) ** 2).sum() for i in picks) for p in features))


def is_greedy(features, picks):
    """Whether each pick was as far from the picks before it as any patch was."""
    nearest = squared_distances(features, picks[0])
    for pick in picks[1:]:
        if nearest[pick] != nearest.max():
            return False
        nearest = np.minimum(nearest, squared_distances(features, pick))
    return True


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(coreset, "_CANDIDATES", 7)
    monkeypatch.setattr(coreset, "_BLOCK", 10)


# greedy_coreset


def test_the_picks_on_a_line_are_those_worked_out_by_hand():
    # From 0 the furthest is 9; then 4 and 5 are both 4 from it all, and 4 comes first; 2, then 5.
    features = np.array([[0], [2], [4], [5], [9]], np.float32)
    assert greedy_coreset(features, 5).indices.tolist() == [0, 4, 2, 1, 3]
    assert greedy_coreset(features, 3).radius == 2.0


@pytest.mark.parametrize("candidates", [1, 2, 7, 64, 599, 600])
@pytest.mark.parametrize("first", [0, 123])
def test_the_picks_are_those_of_the_textbook_loop(monkeypatch, candidates, first):
    monkeypatch.setattr(coreset, "_CANDIDATES", candidates)
    monkeypatch.setattr(coreset, "_BLOCK", 37)
    features = whole_features(600, 4, seed=5)
    expected, tie = textbook_picks(features, 150, first)
    assert not tie, "the data must be generic for the order to be unique"
    found = greedy_coreset(features, 150, first=first)
    assert found.indices.tolist() == expected
    assert found.indices.dtype == np.int64


def test_more_patches_than_candidates_need_several_rounds_and_as_many_picks(small_blocks):
    seen = []
    features = whole_features(300, 4, seed=1)
    greedy_coreset(features, 100, progress=lambda done, of: seen.append((done, of)))
    done = [d for d, _ in seen]
    assert len(done) > 10
    assert done == sorted(set(done))
    assert seen[-1] == (100, 100)
    assert all(of == 100 for _, of in seen)


def test_real_valued_features_give_the_textbook_picks_too(small_blocks):
    features = np.random.default_rng(3).standard_normal((400, 12)).astype(np.float32)
    assert greedy_coreset(features, 40).indices.tolist() == textbook_picks(features, 40)[0]


@pytest.mark.parametrize("offset", [1000, -1000])
def test_an_offset_changes_no_pick(small_blocks, offset):
    features = whole_features(600, 4, seed=5)
    here, there = greedy_coreset(features, 150), greedy_coreset(features + offset, 150)
    assert there.indices.tolist() == here.indices.tolist()
    assert there.radius == here.radius


def test_real_valued_features_far_from_the_origin_give_the_textbook_picks_too(small_blocks):
    features = np.random.default_rng(3).standard_normal((400, 12)).astype(np.float32) + 1000
    found = greedy_coreset(features, 40)
    assert found.indices.tolist() == textbook_picks(features, 40)[0]
    assert found.radius == pytest.approx(covering_radius(features, found.indices), rel=1e-5)


def test_without_subtracting_the_mean_the_offset_would_drown_the_distances():
    # One square of 1000 has an ulp of 1/16, the squared distances here are below 1/100.
    features = np.random.default_rng(3).random((100, 1), dtype=np.float32) / 10 + 1000
    norms = np.einsum("nd,nd->n", features, features)
    product_form = norms + norms[0] - 2 * (features @ features[0])
    exact = squared_distances(features, 0)
    assert product_form.argmax() != exact.argmax()
    assert greedy_coreset(features, 2).indices.tolist() == [0, exact.argmax()]


def test_equal_distances_go_to_the_lower_index():
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1], [0, 0]], np.float32)
    picks = greedy_coreset(corners, 4).indices.tolist()
    assert picks == textbook_picks(corners, 4)[0] == [0, 3, 1, 2]


def test_equal_distances_among_the_candidates_go_to_the_lower_index(monkeypatch):
    monkeypatch.setattr(coreset, "_CANDIDATES", 8)
    circle = [[x, y] for a, b in ((6, 8), (8, 6)) for x in (-a, a) for y in (-b, b)]
    inner = np.random.default_rng(0).integers(-1, 2, (26, 2))
    features = np.zeros((61, 2), np.float32)  # the first is 0, and so is the mean
    at_circle = np.arange(61) % 7 == 5
    features[at_circle] = circle
    features[1:][~at_circle[1:]] = np.concatenate([inner, -inner])
    assert not features.sum(axis=0).any()
    expected, tie = textbook_picks(features, 8)
    assert tie
    assert greedy_coreset(features, 8).indices.tolist() == expected


@given(
    st.integers(1, 60),
    st.integers(1, 3),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(0, 99),
)
def test_every_pick_is_a_furthest_patch_even_among_ties_and_copies(n, dim, rows, limit, seed):
    features = whole_features(n, dim, seed, high=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "_CANDIDATES", limit)
        patch.setattr(coreset, "_BLOCK", limit)
        found = greedy_coreset(features, min(rows, n))
    picks = found.indices.tolist()
    assert is_greedy(features, picks)
    assert len(set(picks)) == len(picks)
    assert len(picks) == min(rows, len(np.unique(features, axis=0)))
    assert found.radius == pytest.approx(covering_radius(features, picks), rel=1e-7)


@pytest.mark.parametrize("rows", [1, 5, 60])
def test_the_radius_covers_every_patch(small_blocks, rows):
    features = np.random.default_rng(0).random((80, 9), dtype=np.float32)
    found = greedy_coreset(features, rows)
    assert found.radius == pytest.approx(covering_radius(features, found.indices), rel=1e-5)


def test_copies_are_not_picked_twice_and_the_radius_is_then_zero(small_blocks):
    features = np.repeat(whole_features(20, 3, seed=2), 4, axis=0)
    found = greedy_coreset(features, 70)
    assert len(found.indices) == 20
    assert len(np.unique(features[found.indices], axis=0)) == 20
    assert found.radius == 0.0


def test_rounding_never_picks_a_row_twice(small_blocks):
    # Real-valued copies far from the origin: their distances are rounding errors of both signs.
    features = np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32) + 1000
    picks = greedy_coreset(np.repeat(features, 4, axis=0), 160).indices.tolist()
    assert len(set(picks)) == len(picks)


def test_all_rows_are_a_cover_of_radius_zero(small_blocks):
    features = whole_features(50, 3, seed=4)
    found = greedy_coreset(features, 50)
    assert sorted(found.indices) == list(range(50))
    assert found.radius == 0.0


def test_one_row_is_the_first_pick():
    found = greedy_coreset(whole_features(9, 2, seed=0), 1, first=4)
    assert found.indices.tolist() == [4]


def test_the_features_are_left_as_they_were(small_blocks):
    features = whole_features(30, 3, seed=0)
    before = features.copy()
    greedy_coreset(features, 10)
    np.testing.assert_array_equal(features, before)


# bank_rows


@pytest.mark.parametrize(
    ("bank", "available", "rows"),
    [
        (0.01, 20_000, 200),
        (0.25, 10, 2),
        (0.01, 10, 1),
        (1, 500, 1),
        (20_000, 30_000, 20_000),
        (20_000, 500, 500),
        (300.0, 500, 300),
    ],
)
def test_a_bank_is_a_share_below_one_and_a_number_of_rows_from_one_on(bank, available, rows):
    assert bank_rows(bank, available) == rows


@pytest.mark.parametrize(
    ("available", "least", "rows"),
    [(100_000, 4000, 4000), (1_000_000, 4000, 10_000), (20_000, 4000, 2000), (9, 4000, 1)],
)
def test_a_bank_of_few_photos_is_more_than_a_share(available: int, least: int, rows: int) -> None:
    assert bank_rows(0.01, available, least) == rows


@pytest.mark.parametrize("bank", [0, -1, -0.5, 2.5, math.nan, math.inf])
def test_a_bank_of_any_other_size_is_refused(bank):
    with pytest.raises(SettingsError, match="memory bank's size") as refusal:
        bank_rows(bank, 100)
    assert str(bank) in str(refusal.value)


# random_projection


def test_a_projection_keeps_squared_distances_on_average():
    features = np.random.default_rng(0).standard_normal((60, 400)).astype(np.float32)
    projected = random_projection(features, 128, np.random.default_rng(1))
    assert projected.shape == (60, 128)
    assert projected.dtype == np.float32
    pairs = np.triu_indices(60, 1)
    before = ((features[pairs[0]] - features[pairs[1]]) ** 2).sum(axis=1)
    after = ((projected[pairs[0]] - projected[pairs[1]]) ** 2).sum(axis=1)
    # A chi-squared with 128 degrees of freedom: relative spread sqrt(2 / 128) = 0.125 a pair.
    assert np.mean(after / before) == pytest.approx(1.0, abs=0.05)
    assert np.std(after / before) == pytest.approx(0.125, abs=0.04)


def test_the_same_seed_gives_the_same_projection():
    features = np.random.default_rng(0).random((5, 30), dtype=np.float32)
    a, b, c = (random_projection(features, 8, np.random.default_rng(s)) for s in (7, 7, 8))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("dim", [30, 31])
def test_few_columns_are_returned_as_they_are(dim):
    features = np.random.default_rng(0).random((5, 30), dtype=np.float32)
    assert random_projection(features, dim, np.random.default_rng(0)) is features
