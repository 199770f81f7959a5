from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from reconpatch.errors import SettingsError
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.scoring import ScoringSettings, anomaly_map, score_patches
from reconpatch.model import good_photos
from reconpatch.model.good_photos import (
    GoodScores,
    TrainingPhoto,
    assign_groups,
    by_part,
    cover,
    groups_of_rows,
    leave_one_out,
    odd_photos_note,
    rescore,
    with_replacements,
)
from reconpatch.photos.copies import Alike
from reconpatch.photos.layout import Layout

GRID, SIZE, DIM = (5, 6), (20, 24), 4
LAYOUT = Layout.whole(GRID, SIZE)
PATCHES = GRID[0] * GRID[1]
SETTINGS = [
    ScoringSettings(),
    ScoringSettings(b=3, reweight="largest", blur=0),
    ScoringSettings(b=3, reweight="every", blur=2),
    ScoringSettings(top=0.1),
    ScoringSettings(top=0.1, smooth=0.75, principal=1, contrast=3.0),
    ScoringSettings(principal=2, contrast=0.5),
]
# By these a patch that is nearer to a new row is nearer to it by every distance.
MONOTONE = [scoring for scoring in SETTINGS if scoring.contrast == 1]


def photo(name, sha256=None, group=0):
    return TrainingPhoto(name, sha256 or name, 10, 12, group)


def groups_of(names, pattern=None, hashes=None):
    photos = [photo(name, h) for name, h in zip(names, hashes or names, strict=True)]
    grouped, notes = assign_groups(photos, pattern)
    assert [(p.name, p.sha256) for p in grouped] == [(p.name, p.sha256) for p in photos]
    return [p.group for p in grouped], notes


# assign_groups


def test_every_photo_is_its_own_part_without_a_pattern():
    assert groups_of(["b.png", "a.png", "c.png"]) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"part(\d+)", [0, 0, 1, 2, 0]),
        (r"part\d+", [0, 0, 1, 2, 0]),  # without brackets, the whole match
        (r"(part)\d+", [0, 0, 0, 1, 0]),
        (r"part(\d+)?", [0, 0, 1, 2, 0]),
        (r"part(\d)\d*_(\w)", [0, 0, 1, 2, 0]),  # the first pair of brackets counts
        (r"_(\w)\.png$", [0, 1, 0, 2, 3]),
    ],
)
def test_photos_are_grouped_by_what_the_brackets_match(pattern, groups):
    names = ["part1_a.png", "part1_b.png", "part2_a.png", "lone.png", "x/part1_c.png"]
    assert groups_of(names, pattern) == (groups, [])


def test_a_match_that_is_empty_or_left_out_names_no_part():
    names = ["part1.png", "part1b.png", "part.png", "partx.png"]
    for pattern in (r"part(\d+)?", r"part(\d*)", r"(?<=part)\d*"):
        assert groups_of(names, pattern)[0] == [0, 0, 1, 2]


def test_a_part_is_not_mistaken_for_a_photo_of_that_name():
    assert groups_of(["part/1.png", "part/2.png"], r"part/(.*)")[0] == [0, 1]
    assert groups_of(["a-part/1", "part/1", "b-part/1"], r"-(part/1)")[0] == [0, 1, 0]
    assert groups_of(["a1.png", "part/1.png"], r"^a(.*)")[0] == [0, 1]


@pytest.mark.parametrize("pattern", [r"nothing(\d+)", r"\d{9}", r"x*", ""])
def test_a_pattern_that_names_no_part_is_refused(pattern):
    with pytest.raises(SettingsError, match=r"matches no file name, such as 'b\.png'"):
        groups_of(["b.png", "a.png"], pattern)


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(SettingsError, match="is not a regular expression") as refusal:
        groups_of(["a.png"], "part(")
    assert "'part('" in str(refusal.value)


def test_copies_of_one_picture_are_left_out_together_and_reported():
    groups, notes = groups_of(["a.png", "b.png", "c.png", "d.png"], hashes=["1", "2", "1", "1"])
    assert groups == [0, 1, 0, 0]
    assert [note.split(":")[0] for note in notes] == [
        "2 of 4 photos are copies of others, such as c.png of a.png"
    ]


def test_a_chain_of_copies_joins_the_parts_it_runs_through():
    # Parts 1 and 2 share a picture, parts 2 and 3 share another, part 4 none.
    names = ["p3_a", "p4_a", "p1_a", "p2_a", "p2_b", "p1_b", "p3_b"]
    hashes = ["x", "lone", "y", "y", "x", "other", "more"]
    groups, notes = groups_of(names, r"p(\d)", hashes)
    assert groups == [0, 1, 0, 0, 0, 0, 0]
    assert notes[0].startswith("2 of 7 photos are copies of others")


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_connected_components_of_equal_parts_and_equal_pictures(seed):
    rng = np.random.default_rng(seed)
    names = [f"part{part}_{i}.png" for i, part in enumerate(rng.integers(0, 9, 15))]
    hashes = [str(h) for h in rng.integers(0, 14, 15)]
    groups, notes = groups_of(names, r"part(\d)", hashes)
    joined = np.array(
        [
            [a[:5] == b[:5] or x == y for b, y in zip(names, hashes, strict=True)]
            for a, x in zip(names, hashes, strict=True)
        ]
    )
    reachable = np.linalg.matrix_power(joined.astype(float), 15) > 0
    assert ((np.array(groups)[:, None] == np.array(groups)) == reachable).all()
    assert groups == [sorted(set(groups), key=groups.index).index(g) for g in groups]
    copies = len(hashes) - len(set(hashes))
    assert len(notes) == (copies > 0)
    assert all(note.startswith(f"{copies} of 15 photos ") for note in notes)


def test_a_photo_becomes_a_record():
    record = photo("a.png", "f00", 3).to_dict()
    assert record == {"name": "a.png", "sha256": "f00", "height": 10, "width": 12, "group": 3}


# with_replacements


def some_photos(groups, seed=0):
    """Photos and their represented patches; one patch of each stands out a little."""
    rng = np.random.default_rng(seed)
    patches = rng.standard_normal((len(groups), PATCHES, DIM)).astype(np.float32)
    patches[:, 7] *= 3
    return [photo(f"{i}.png", group=g) for i, g in enumerate(groups)], patches


def bare_bank(rows, photo_of_row):
    rows = np.asarray(rows, np.float32)
    places = np.zeros(len(rows), np.int64)
    return MemoryBank(rows, np.asarray(photo_of_row), places, rows)


def bank_from(photos, patches, share=0.3, seed=1, first=0):
    """A bank of patches drawn from the photos from `first` on, with its replacements."""
    every = np.arange(first * PATCHES, len(photos) * PATCHES)
    chosen = np.random.default_rng(seed).permutation(every)[: int(share * len(every))]
    bank = bare_bank(patches.reshape(-1, DIM)[chosen], chosen // PATCHES)
    return with_replacements(bank, lambda i: patches[i], photos)


def slow_replacements(bank, patches, photos):
    """The greedy selection gone on with, one pair of patches at a time, in float64."""
    rows = bank.rows.tolist()
    group_of_row = [photos[i].group for i in bank.photo]
    replacements = [None] * len(rows)
    for group in set(group_of_row):
        there = [row for row, g in zip(rows, group_of_row, strict=True) if g != group]
        uncovered = []
        for i, photo_i in enumerate(photos):
            for patch in patches[i].tolist():
                to_rows = [math.dist(patch, row) for row in rows]
                cover = group_of_row[to_rows.index(min(to_rows))]
                if photo_i.group != group and cover == group:
                    uncovered.append(patch)
        candidates = uncovered + there[:1]
        for place in [j for j, g in enumerate(group_of_row) if g == group]:
            to_there = [min((math.dist(c, t) for t in there), default=9e9) for c in candidates]
            replacements[place] = candidates[to_there.index(max(to_there))]
            there = [*there, replacements[place]]
    return np.array(replacements, np.float32)


def on_a_line(*values):
    return np.array(values, np.float32)[:, None]


def replacements_on_a_line(rows, photo_of_row, patches):
    photos = [photo(str(i), group=i) for i in range(len(patches))]
    bank = bare_bank(on_a_line(*rows), photo_of_row)
    return with_replacements(bank, lambda i: patches[i], photos).replacements.ravel().tolist()


def test_replacements_by_hand():
    # Without photo 0 the row 30 is left. Nearest to 0 and 10 were 1, 14 and 5.5: 1 is the furthest
    # from 30; then 14, at 13 from 1, before 5.5, at 4.5. Without photo 1 only 25 was nearest to 30.
    patches = [on_a_line(0, 10), on_a_line(1, 14, 30), on_a_line(5.5, 25)]
    assert replacements_on_a_line([0, 10, 30], [0, 0, 1], patches) == [1, 14, 25]


def test_too_few_uncovered_patches_are_filled_up_with_a_row_that_is_there():
    # Without photo 0 only patch 1 is uncovered; without photo 1 none is, and the row 0 is there.
    patches = [on_a_line(0, 10), on_a_line(30, 1)]
    assert replacements_on_a_line([0, 10, 30], [0, 0, 1], patches) == [1, 1, 0]


def test_a_bank_of_one_photo_alone_is_replaced_by_patches_of_the_others():
    # Nothing is there to be far from: the first uncovered patch, then the furthest from it.
    patches = [on_a_line(0, 10), on_a_line(3, 9, 1)]
    assert replacements_on_a_line([0, 10], [0, 0], patches) == [3, 9]


GROUPS = [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [0, 1, 1, 1, 1], [0, 1]]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("share", [0.04, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("first", [0, 1])
def test_replacements_are_those_of_the_slow_selection(groups, share, first):
    photos, patches = some_photos(groups)
    bank = bank_from(photos, patches, share, first=first)
    np.testing.assert_array_equal(bank.replacements, slow_replacements(bank, patches, photos))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", GROUPS)
def test_a_bank_mended_for_a_photo_holds_patches_of_other_groups_only(groups, seed):
    photos, patches = some_photos(groups, seed)
    group_of_patch = {
        tuple(patch): photos[i].group for i in range(len(photos)) for patch in patches[i].tolist()
    }
    bank = bank_from(photos, patches, seed=seed)
    group_of_row = groups_of_rows(bank, photos)
    for row, group in zip(bank.replacements.tolist(), group_of_row, strict=True):
        assert group_of_patch[tuple(row)] != group
    for group in set(groups):
        mended = bank.without(group_of_row == group)
        assert len(mended) == len(bank)
        assert group not in {group_of_patch[tuple(row)] for row in mended.rows.tolist()}


def test_replacements_come_nearer_to_a_photo_than_a_mere_gap_would():
    photos, patches = some_photos([0, 1, 2, 3])
    bank = bank_from(photos, patches)
    nearer = 0
    for i in range(4):
        mine = bank.photo == i
        mended, _ = bank.without(mine).nearest(patches[i])
        with_a_gap, _ = bare_bank(bank.rows[~mine], bank.photo[~mine]).nearest(patches[i])
        assert (mended <= with_a_gap * (1 + 1e-6)).all()
        nearer += (mended < with_a_gap * (1 - 1e-6)).sum()
    assert nearer > 0


def test_choosing_replacements_changes_nothing_else_of_the_bank():
    photos, patches = some_photos([0, 1, 2])
    before = bare_bank(patches[:, :4].reshape(-1, DIM), np.repeat([0, 1, 2], 4))
    after = with_replacements(before, lambda i: patches[i], photos)
    for name in ("rows", "photo", "place"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert before.replacements is before.rows
    assert after.replacements.dtype == np.float32
    assert (after.replacements != before.rows).any(axis=1).all()


def test_covering_counts_the_photos():
    photos, patches = some_photos([0, 1, 2])
    bank, seen = bank_from(photos, patches), []
    cover(bank, lambda i: patches[i], photos, progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_group_of_a_row_is_that_of_its_photo():
    photos = [photo("a", group=4), photo("b", group=2), photo("c", group=4)]
    bank = bare_bank(np.zeros((4, 1)), [2, 1, 0, 1])
    assert groups_of_rows(bank, photos).tolist() == [4, 2, 4, 2]


# leave_one_out and rescore


def grown(bank, patches, photo_index, rows):
    """The bank with rows of one more photo, whose replacements come from the first photo."""
    return MemoryBank(
        np.concatenate([bank.rows, patches[photo_index][:rows]]),
        np.concatenate([bank.photo, np.full(rows, photo_index)]),
        np.concatenate([bank.place, np.arange(rows)]),
        np.concatenate([bank.replacements, patches[0][:rows]]),
    )


def score_all(patches, photos, bank, scoring, **options):
    return leave_one_out(lambda i: patches[i], photos, bank, scoring, LAYOUT, **options)


def rescore_all(good, photos, bank, scoring):
    return rescore(good, photos, bank, scoring, LAYOUT)


@pytest.mark.parametrize("scoring", SETTINGS)
@pytest.mark.parametrize("groups", GROUPS)
def test_each_photo_is_scored_against_a_bank_mended_for_its_group(groups, scoring):
    photos, patches = some_photos(groups)
    bank = bank_from(photos, patches)
    good = score_all(patches, photos, bank, scoring)
    replacements = slow_replacements(bank, patches, photos)
    for i, own in enumerate(groups):
        mended = [
            replacements[j] if groups[bank.photo[j]] == own else bank.rows[j]
            for j in range(len(bank))
        ]
        nearest = [min(math.dist(patch, row) for row in mended) for patch in patches[i]]
        np.testing.assert_allclose(good.distances[i], nearest, rtol=1e-6)
        expected = score_patches(patches[i], bare_bank(mended, bank.photo), scoring, LAYOUT)
        assert good.image_scores[i] == pytest.approx(expected.image_score, rel=1e-6)
        highest = anomaly_map(np.float32(nearest), GRID, SIZE, scoring.blur).max()
        assert good.map_maxima[i] == pytest.approx(highest, rel=1e-6)


def test_leave_one_out_by_hand():
    # Two photos of two patches, one of each in the bank. Without photo 0 the row 1 gives way to 2,
    # the patch of photo 1 it covered; without photo 1 the row 9 gives way to 6.
    patches = np.float32([[[1], [6]], [[9], [2]]])
    photos = [photo("a", group=0), photo("b", group=1)]
    bank = with_replacements(bare_bank([[1], [9]], [0, 1]), lambda i: patches[i], photos)
    assert bank.replacements.tolist() == [[2], [6]]
    good = leave_one_out(
        lambda i: patches[i], photos, bank, ScoringSettings(), Layout.whole((1, 2), (3, 6))
    )
    # Photo 0 against 2 and 9: |1 - 2|, |6 - 9|. Photo 1 against 1 and 6: |9 - 6|, |2 - 1|.
    assert good.distances.tolist() == [[1, 3], [3, 1]]
    assert good.image_scores.tolist() == [3.0, 3.0]
    assert good.most_distant.tolist() == [[1, 0], [0, 1]]
    assert good.features.tolist() == [[[6], [1]], [[9], [2]]]
    assert (good.map_maxima < 3.0).all(), "the blur brings the peak down"


def test_what_is_kept_are_the_most_distant_patches_in_order():
    photos, patches = some_photos([0, 1, 2])
    good = score_all(patches, photos, bank_from(photos, patches), ScoringSettings())
    assert good.most_distant.shape == (3, good_photos.MOST_DISTANT)
    assert good.most_distant.dtype == np.int32
    assert good.features.shape == (3, good_photos.MOST_DISTANT, DIM)
    for i in range(3):
        expected = sorted(range(PATCHES), key=lambda t, i=i: -good.distances[i, t])
        assert good.most_distant[i].tolist() == expected[: good_photos.MOST_DISTANT]
        np.testing.assert_array_equal(good.features[i], patches[i][good.most_distant[i]])
    assert good.image_scores.dtype == good.map_maxima.dtype == np.float64
    assert good.distances.shape == (3, PATCHES)


def test_progress_counts_the_photos():
    photos, patches = some_photos([0, 1, 2])
    seen = []
    bank = bank_from(photos, patches)
    score_all(patches, photos, bank, SETTINGS[0], progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def before_and_after(scoring):
    """Scores against a bank, again by what is kept of them after it has grown, and anew."""
    photos, patches = some_photos([0, 1, 1, 2, 3])
    bank = bank_from(photos[:4], patches)
    larger = grown(bank, patches, photo_index=4, rows=25)
    before = score_all(patches[:4], photos[:4], bank, scoring)
    found = rescore_all(before, photos, larger, scoring)
    anew = score_all(patches, photos, larger, scoring)
    return before, found, anew


@pytest.mark.parametrize("scoring", SETTINGS)
def test_with_every_patch_kept_rescoring_is_scoring_anew(monkeypatch, scoring):
    monkeypatch.setattr(good_photos, "MOST_DISTANT", PATCHES)
    before, found, anew = before_and_after(scoring)
    assert (anew.distances[:4] < before.distances).any(), "the growth must matter"
    np.testing.assert_allclose(found.image_scores, anew.image_scores[:4], rtol=1e-6)
    np.testing.assert_allclose(found.map_maxima, anew.map_maxima[:4], rtol=1e-6)
    np.testing.assert_allclose(found.distances, anew.distances[:4], rtol=1e-6)
    np.testing.assert_allclose(found.weighted, anew.weighted[:4], rtol=1e-6)
    assert (found.weighted is found.distances) == (scoring.contrast == 1)


@pytest.mark.parametrize("most_distant", [1, 3, 16])
@pytest.mark.parametrize("scoring", SETTINGS[4:])
def test_with_a_contrast_rescoring_brings_the_most_distant_patches_up_to_date(
    monkeypatch, scoring, most_distant
):
    monkeypatch.setattr(good_photos, "MOST_DISTANT", most_distant)
    before, found, anew = before_and_after(scoring)
    for i, mine in enumerate(before.most_distant):
        rest = np.setdiff1d(np.arange(PATCHES), mine)
        for name in ("distances", "weighted"):
            now, old, new = (getattr(scores, name)[i] for scores in (found, before, anew))
            np.testing.assert_allclose(now[mine], new[mine], rtol=1e-6)
            np.testing.assert_array_equal(now[rest], old[rest])
        if not scoring.top:
            assert found.image_scores[i] == pytest.approx(found.weighted[i].max(), rel=1e-6)
    slack = 1 + 1e-6
    assert (found.map_maxima * slack >= anew.map_maxima[:4]).all()


@pytest.mark.parametrize("scoring", SETTINGS)
def test_weighted_distances_are_those_of_the_loop(scoring):
    photos, patches = some_photos([0, 1, 2])
    bank = bank_from(photos, patches)
    good = score_all(patches, photos, bank, scoring)
    assert (good.weighted is good.distances) == (scoring.contrast == 1)
    weights = np.where(np.arange(DIM) < scoring.principal, 1.0, scoring.contrast)
    for i, most_distant in enumerate(good.most_distant):
        mended = bank.without(bank.photo == i).rows
        for t, patch in enumerate(patches[i]):
            row = min(mended, key=lambda row, patch=patch: math.dist(patch, row))
            expected = math.dist(patch * weights, row * weights)
            assert good.weighted[i, t] == pytest.approx(expected, rel=1e-5)
        order = sorted(range(PATCHES), key=lambda t, i=i: -good.weighted[i, t])
        assert most_distant.tolist() == order[: good_photos.MOST_DISTANT]


@pytest.mark.parametrize("scoring", MONOTONE)
@pytest.mark.parametrize("most_distant", [1, 3, 16])
def test_with_few_patches_kept_rescoring_is_never_too_low(monkeypatch, most_distant, scoring):
    monkeypatch.setattr(good_photos, "MOST_DISTANT", most_distant)
    looser = 0
    for seed in range(8):
        photos, patches = some_photos([0, 1, 1, 2, 3], seed)
        bank = bank_from(photos[:4], patches)
        larger = grown(bank, patches, photo_index=4, rows=25)
        before = score_all(patches[:4], photos[:4], bank, scoring)
        found = rescore_all(before, photos, larger, scoring)
        anew = score_all(patches, photos, larger, scoring)
        slack = 1 + 1e-6
        assert (found.image_scores * slack >= anew.image_scores[:4]).all()
        assert (found.map_maxima * slack >= anew.map_maxima[:4]).all()
        assert (found.distances * slack >= anew.distances[:4]).all()
        assert (found.distances <= before.distances * slack).all()
        looser += (found.distances > anew.distances[:4] * slack).sum()
    assert looser > 0, "some distance must have been left as it was"


@pytest.mark.parametrize("scoring", SETTINGS[:2])
@pytest.mark.parametrize("most_distant", [1, 16])
def test_a_bank_that_did_not_grow_changes_no_score(monkeypatch, most_distant, scoring):
    monkeypatch.setattr(good_photos, "MOST_DISTANT", most_distant)
    photos, patches = some_photos([0, 1, 2, 3])
    patches[:, 7] /= 3
    bank = bank_from(photos, patches)
    before = score_all(patches, photos, bank, scoring)
    if scoring.b > 1 and most_distant == 1:
        second = np.sort(before.distances, axis=1)[:, -2]
        assert (second > before.image_scores).any(), "eq. 10 must weigh more than the ranks differ"
    after = rescore_all(before, photos, bank, scoring)
    np.testing.assert_allclose(after.image_scores, before.image_scores, rtol=1e-6)
    np.testing.assert_allclose(after.map_maxima, before.map_maxima, rtol=1e-6)
    np.testing.assert_array_equal(after.most_distant, before.most_distant)


def test_rescoring_leaves_the_old_scores_as_they_were():
    photos, patches = some_photos([0, 1, 2, 3])
    bank = bank_from(photos[:3], patches)
    before = score_all(patches[:3], photos[:3], bank, ScoringSettings())
    kept = before.distances.copy()
    rescore_all(before, photos, grown(bank, patches, 3, PATCHES), ScoringSettings())
    np.testing.assert_array_equal(before.distances, kept)


# by_part


def test_a_part_has_one_score_the_largest_of_its_photos():
    photos = [photo(str(i), group=group) for i, group in enumerate([4, 0, 4, 2, 0])]
    of = np.array([4, 0, 2, 3])  # photo 1 was not scored
    assert by_part(np.array([1.0, 5.0, 7.0, 3.0]), photos, of).tolist() == [1.0, 7.0, 3.0]


def test_without_joined_photos_the_scores_are_as_they_were():
    photos = [photo(str(i), group=i) for i in range(5)]
    scores = np.random.default_rng(0).random(5)
    assert (by_part(scores, photos, np.arange(5)) == scores).all()


def test_photos_of_one_picture_are_joined_and_what_lies_near_is_told():
    alike = Alike(np.array([0, 1, 0, 3, 4]), np.array([3, 4]))
    photos = [photo(name) for name in "abcde"]
    grouped, (copies, near) = assign_groups(photos, None, alike)
    assert [p.group for p in grouped] == [0, 1, 0, 2, 3]
    assert copies.startswith("1 of 5 photos is a copy of another, such as c of a")
    assert near.startswith("2 photos are far nearer to another one than the rest are, such as d")
    assert "--group" in near
    # Once they are joined there is nothing to tell.
    assert len(assign_groups([replace(p, name=f"x{p.name}") for p in photos], "x", alike)[1]) == 1


# Good photos that stand apart


def scored(*image_scores):
    """Good photos a.png, b.png, ... with these scores."""
    n = len(image_scores)
    photos = [TrainingPhoto(f"{chr(97 + i)}.png", str(i), 8, 8, i) for i in range(n)]
    nothing = np.zeros((n, 1), np.float32)
    scores = np.array(image_scores, np.float64)
    found = GoodScores(
        np.arange(n), scores, scores, nothing, nothing.astype(np.int32), nothing[..., None], nothing
    )
    return found, photos


def test_a_good_photo_that_stands_apart_is_named_with_how_far():
    note = odd_photos_note(*scored(1.0, 1.1, 2.2, 0.9))
    assert note is not None
    assert note.startswith(
        "c.png scores at least 2.00 times as high as all other good photos: look at it"
    )
    assert "leave it out" in note


def test_two_that_stand_apart_together_are_both_named():
    note = odd_photos_note(*scored(1.0, 3.0, 0.9, 2.9, 1.0, 0.8, 0.9, 0.7))
    assert note is not None
    assert note.startswith("b.png and d.png score at least 2.90 times as high")


@pytest.mark.parametrize(
    "scores",
    [
        (1.0, 1.2, 1.1, 1.3),  # none apart
        (1.0, 1.0, 9.0, 9.0, 9.0, 9.0),  # a kind of their own
        (1.0, 2.0),  # too few for one to be odd
        (0.0, 0.0, 0.0, 1.0),  # nothing to compare with
    ],
)
def test_where_no_few_stand_apart_nothing_is_said(scores):
    assert odd_photos_note(*scored(*scores)) is None
