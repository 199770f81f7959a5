from __future__ import annotations

import numpy as np
import pytest

from reconpatch import good_photos
from reconpatch.errors import SettingsError
from reconpatch.good_photos import TrainingPhoto, assign_groups, leave_one_out, rescore
from reconpatch.memory_bank import MemoryBank
from reconpatch.scoring import ScoringSettings, anomaly_map, score_patches

GRID, SIZE, DIM = (5, 6), (20, 24), 4
PATCHES = GRID[0] * GRID[1]
SETTINGS = [
    ScoringSettings(),
    ScoringSettings(b=3, reweight="largest", blur=0),
    ScoringSettings(b=3, reweight="every", blur=2),
]


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
        "c.png and a.png are the same picture",
        "d.png and a.png are the same picture",
    ]


def test_a_chain_of_copies_joins_the_parts_it_runs_through():
    # Parts 1 and 2 share a picture, parts 2 and 3 share another, part 4 none.
    names = ["p3_a", "p4_a", "p1_a", "p2_a", "p2_b", "p1_b", "p3_b"]
    hashes = ["x", "lone", "y", "y", "x", "other", "more"]
    groups, notes = groups_of(names, r"p(\d)", hashes)
    assert groups == [0, 1, 0, 0, 0, 0, 0]
    assert len(notes) == 2


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
    assert len(notes) == len(hashes) - len(set(hashes))


def test_a_photo_becomes_a_record():
    record = photo("a.png", "f00", 3).to_dict()
    assert record == {"name": "a.png", "sha256": "f00", "height": 10, "width": 12, "group": 3}


# leave_one_out and rescore


def some_photos(groups, seed=0):
    """Photos and their represented patches; one patch of each stands out a little."""
    rng = np.random.default_rng(seed)
    patches = rng.standard_normal((len(groups), PATCHES, DIM)).astype(np.float32)
    patches[:, 7] *= 3
    return [photo(f"{i}.png", group=g) for i, g in enumerate(groups)], patches


def bank_from(patches, share=0.3, seed=1):
    n = len(patches)
    chosen = np.random.default_rng(seed).permutation(n * PATCHES)[: int(share * n * PATCHES)]
    return MemoryBank(patches.reshape(-1, DIM)[chosen], chosen // PATCHES, chosen % PATCHES)


def grown(bank, patches, photo_index, rows):
    return MemoryBank(
        np.concatenate([bank.rows, patches[photo_index][:rows]]),
        np.concatenate([bank.photo, np.full(rows, photo_index)]),
        np.concatenate([bank.place, np.arange(rows)]),
    )


def score_all(patches, photos, bank, scoring, **options):
    return leave_one_out(
        lambda i: patches[i], photos, bank, scoring, grid=GRID, size=SIZE, **options
    )


def rescore_all(good, photos, bank, scoring):
    return rescore(good, photos, bank, scoring, grid=GRID, size=SIZE)


@pytest.mark.parametrize("scoring", SETTINGS)
@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1]])
def test_each_photo_is_scored_against_a_bank_without_its_group(groups, scoring):
    photos, patches = some_photos(groups)
    bank = bank_from(patches)
    good = score_all(patches, photos, bank, scoring)
    for i, own in enumerate(groups):
        others = [row for row in range(len(bank)) if groups[bank.photo[row]] != own]
        rest = MemoryBank(bank.rows[others], bank.photo[others], bank.place[others])
        expected = score_patches(patches[i], rest, scoring)
        assert good.image_scores[i] == pytest.approx(expected.image_score, rel=1e-6)
        np.testing.assert_allclose(good.distances[i], expected.distances, rtol=1e-6)
        highest = anomaly_map(expected.distances, GRID, SIZE, scoring.blur).max()
        assert good.map_maxima[i] == pytest.approx(highest, rel=1e-6)


def test_leave_one_out_by_hand():
    # Two photos of one patch each on a line, and both in the bank: each meets only the other.
    patches = np.array([[[1.0]], [[4.0]]], np.float32)
    photos = [photo("a", group=0), photo("b", group=1)]
    bank = MemoryBank(patches.reshape(2, 1), np.array([0, 1]), np.array([0, 0]))
    good = leave_one_out(
        lambda i: patches[i], photos, bank, ScoringSettings(), grid=(1, 1), size=(3, 3)
    )
    assert good.image_scores.tolist() == [3.0, 3.0]
    np.testing.assert_allclose(good.map_maxima, [3.0, 3.0], rtol=1e-6)
    assert good.features.tolist() == [[[1.0]], [[4.0]]]
    assert good.witnesses.tolist() == [[0], [0]]


def test_the_witnesses_are_the_most_distant_patches_in_order():
    photos, patches = some_photos([0, 1, 2])
    good = score_all(patches, photos, bank_from(patches), ScoringSettings())
    assert good.witnesses.shape == (3, good_photos.WITNESSES)
    assert good.witnesses.dtype == np.int32
    assert good.features.shape == (3, good_photos.WITNESSES, DIM)
    for i in range(3):
        expected = sorted(range(PATCHES), key=lambda t, i=i: -good.distances[i, t])
        assert good.witnesses[i].tolist() == expected[: good_photos.WITNESSES]
        np.testing.assert_array_equal(good.features[i], patches[i][good.witnesses[i]])
    assert good.image_scores.dtype == good.map_maxima.dtype == np.float64
    assert good.distances.shape == (3, PATCHES)


def test_progress_counts_the_photos():
    photos, patches = some_photos([0, 1, 2])
    seen = []
    bank = bank_from(patches)
    score_all(patches, photos, bank, SETTINGS[0], progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_single_group_leaves_nothing_to_compare_with():
    photos, patches = some_photos([0, 0])
    with pytest.raises(SettingsError, match="no row of the memory bank is left"):
        score_all(patches, photos, bank_from(patches), ScoringSettings())


@pytest.mark.parametrize("scoring", SETTINGS)
def test_with_every_patch_a_witness_rescoring_is_scoring_anew(monkeypatch, scoring):
    monkeypatch.setattr(good_photos, "WITNESSES", PATCHES)
    photos, patches = some_photos([0, 1, 1, 2, 3])
    bank = bank_from(patches[:4])
    larger = grown(bank, patches, photo_index=4, rows=25)
    before = score_all(patches[:4], photos[:4], bank, scoring)
    found = rescore_all(before, photos, larger, scoring)
    anew = score_all(patches, photos, larger, scoring)
    assert (anew.distances[:4] < before.distances).any(), "the growth must matter"
    np.testing.assert_allclose(found.image_scores, anew.image_scores[:4], rtol=1e-6)
    np.testing.assert_allclose(found.map_maxima, anew.map_maxima[:4], rtol=1e-6)
    np.testing.assert_allclose(found.distances, anew.distances[:4], rtol=1e-6)


@pytest.mark.parametrize("scoring", SETTINGS)
@pytest.mark.parametrize("witnesses", [1, 3, 16])
def test_with_few_witnesses_rescoring_is_never_too_low(monkeypatch, witnesses, scoring):
    monkeypatch.setattr(good_photos, "WITNESSES", witnesses)
    looser = 0
    for seed in range(8):
        photos, patches = some_photos([0, 1, 1, 2, 3], seed)
        bank = bank_from(patches[:4])
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
@pytest.mark.parametrize("witnesses", [1, 16])
def test_a_bank_that_did_not_grow_changes_no_score(monkeypatch, witnesses, scoring):
    monkeypatch.setattr(good_photos, "WITNESSES", witnesses)
    photos, patches = some_photos([0, 1, 2, 3])
    patches[:, 7] /= 3
    bank = bank_from(patches)
    before = score_all(patches, photos, bank, scoring)
    if scoring.b > 1 and witnesses == 1:
        second = np.sort(before.distances, axis=1)[:, -2]
        assert (second > before.image_scores).any(), "eq. 10 must weigh more than the ranks differ"
    after = rescore_all(before, photos, bank, scoring)
    np.testing.assert_allclose(after.image_scores, before.image_scores, rtol=1e-6)
    np.testing.assert_allclose(after.map_maxima, before.map_maxima, rtol=1e-6)
    np.testing.assert_array_equal(after.witnesses, before.witnesses)


def test_rescoring_leaves_the_old_scores_as_they_were():
    photos, patches = some_photos([0, 1, 2, 3])
    bank = bank_from(patches[:3])
    before = score_all(patches[:3], photos[:3], bank, ScoringSettings())
    kept = before.distances.copy()
    rescore_all(before, photos, grown(bank, patches, 3, PATCHES), ScoringSettings())
    np.testing.assert_array_equal(before.distances, kept)
