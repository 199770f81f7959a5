from __future__ import annotations

import numpy as np
import pytest

from reconpatch.fitting.made_defects import JUDGED_KINDS, KINDS, made_defects, make_defect
from reconpatch.fitting.quality import QualityEstimate
from reconpatch.fitting.trial import (
    Defects,
    Trial,
    coverage,
    defects_to_learn,
    guard,
    judge_on_defects,
    make_defects,
)
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings
from reconpatch.model.good_photos import TrainingPhoto, leave_one_out
from reconpatch.photos.layout import Layout

GRID, SIZE = (4, 4), (32, 32)
LAYOUT = Layout.whole(GRID, SIZE)


class Means:
    """An extractor whose patch features are the mean colours of a 4 x 4 grid."""

    grid = GRID

    def __call__(self, photos):
        blocks = photos.reshape(len(photos), 3, 4, 8, 4, 8).mean(axis=(3, 5))
        return blocks.reshape(len(photos), 3, 16).transpose(0, 2, 1).astype(np.float32)


def prepared(n, seed=0):
    draw = np.random.default_rng(seed)
    whole = LAYOUT.views[0]
    return {2 * i: (whole, draw.integers(0, 256, (3, *SIZE), dtype=np.uint8)) for i in range(n)}


def test_a_defect_is_made_on_each_photo_and_nowhere_else_is_anything_changed():
    seen = []

    class Recording(Means):
        def __call__(self, photos):
            seen.append(photos)
            return super().__call__(photos)

    photos = prepared(6)
    found = make_defects(photos, 3, Recording())
    assert found.photos == [0, 2, 4, 6, 8, 10]
    assert len(found) == 6
    assert set(found.kinds) <= set(JUDGED_KINDS)
    colours_last = [x.transpose(1, 2, 0) for _, x in photos.values()]
    for i, made in enumerate(made_defects(colours_last, 3, JUDGED_KINDS)):
        x, mask, pixels = list(photos.values())[i][1], found.masks[i], found.pixels[i]
        np.testing.assert_array_equal(mask, made.mask)
        np.testing.assert_array_equal(pixels[:, ~mask], x[:, ~mask])
        np.testing.assert_array_equal(pixels[:, mask], made.pixels.transpose(2, 0, 1)[:, mask])
        r = found.represented(i, Representation(np.float32([[2, 0, 0]])))
        np.testing.assert_array_equal(seen[i], pixels[None] / np.float32(255))
        np.testing.assert_allclose(r, 2 * Means()(seen[i])[0][:, :1], rtol=1e-6)
    assert len(seen) == 6


def photo(name, group):
    return TrainingPhoto(name, name, 32, 32, group)


# What f learns from


@pytest.mark.parametrize(
    ("size", "grid"), [((32, 32), (4, 4)), ((17, 23), (3, 5)), ((5, 4), (5, 1))]
)
def test_coverage_is_that_of_the_loop(size, grid):
    mask = np.random.default_rng(0).random(size) < 0.4
    found = coverage(mask, grid)
    assert found.dtype == np.float32
    for place, share in enumerate(found):
        y, x = divmod(place, grid[1])
        cell = mask[
            y * size[0] // grid[0] : (y + 1) * size[0] // grid[0],
            x * size[1] // grid[1] : (x + 1) * size[1] // grid[1],
        ]
        assert share == pytest.approx(cell.mean(), abs=1e-6)


def test_coverage_by_hand():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[:2, 2:] = True
    assert coverage(mask, (2, 2)).tolist() == [0.25, 1, 0, 0]


def pairs_of(made, found):
    """Each two defects of one photo, with what is learnt from them."""
    both = list(zip(made, found, strict=True))
    return zip(both[::2], both[1::2], strict=True)


def test_what_is_learnt_are_the_covered_patches_of_defects_of_all_kinds_and_photos(monkeypatch):
    made = []

    def watched(photo, donor, kind, rng):
        made.append((photo, kind, make_defect(photo, donor, kind, rng)))
        return made[-1][2]

    monkeypatch.setattr("reconpatch.fitting.trial.make_defect", watched)
    photos = prepared(3)  # 0, 2 and 4
    records = [photo(str(i), group=10 * i) for i in range(5)]
    found = defects_to_learn(photos, records, 3 * len(KINDS), 7, Means())
    assert len(found) == len(made) == 3 * len(KINDS)
    by_photo = {bytes(x): i for i, (_, x) in photos.items()}
    pairs = list(pairs_of(made, found))
    on = [by_photo[bytes(original.transpose(2, 0, 1))] for ((original, *_), _), _ in pairs]
    kinds = {(kind, i) for i, pair in zip(on, pairs, strict=True) for (_, kind, _), _ in pair}
    assert kinds == {(kind, i) for kind in KINDS for i in photos}
    for i, (first, second) in zip(on, pairs, strict=True):
        # The second lies beside or across the first.
        np.testing.assert_array_equal(second[0][0], first[0][2].pixels)
        whole = second[0][2].pixels
        features = Means()(np.float32(whole.transpose(2, 0, 1)[None]) / 255)[0]
        for (_, _, defect), learnt in (first, second):
            assert learnt.part == 10 * i
            share = [
                defect.mask[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean()
                for y in range(4)
                for x in range(4)
            ]
            chosen = (
                [s > 0.3 for s in share] if max(share) > 0.301 else [s == max(share) for s in share]
            )
            np.testing.assert_allclose(learnt.features, features[chosen], atol=1e-6)
            assert len(learnt.features)


def test_what_is_learnt_repeats_by_seed_and_asks_for_no_more_than_it_is_told():
    photos, records = prepared(2), [photo(str(i), group=i) for i in range(3)]
    one, same, other = (defects_to_learn(photos, records, 5, seed, Means()) for seed in (1, 1, 2))
    assert len(one) == 5
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a.features, b.features)
    assert any(a.features.shape != b.features.shape or (a.features != b.features).any()
               for a, b in zip(one, other, strict=True))  # fmt: skip
    assert defects_to_learn({}, [], 5, 1, Means()) == []


def test_only_inspected_patches_are_learnt_from():
    inspected = np.zeros(GRID, bool)
    inspected[:2] = True
    (view,) = Layout.whole(GRID, SIZE, inspected).views
    photos = {i: (view, x) for i, (_, x) in prepared(3).items()}
    seen = []

    class Numbered(Means):
        def __call__(self, x):
            seen.append(x)
            return np.arange(16, dtype=np.float32)[None, :, None]

    records = [photo(str(i), group=i) for i in range(5)]
    found = defects_to_learn(photos, records, 40, 7, Numbered())
    assert 0 < len(found) < 40, "some lie where nothing is inspected"
    assert len(found) / 2 <= len(seen) <= len(found), "and photos with none cost nothing"
    assert {int(f) for defect in found for f in defect.features.ravel()} <= set(range(8))


def trial_of(f, scoring):
    """Three photos of 16 patches, one row of each in the bank; a defect on the first two."""
    draw = np.random.default_rng(1)
    p = draw.standard_normal((3, 16, 2)).astype(np.float32)
    photos = [photo("a", 0), photo("b", 1), photo("c", 2)]
    rows = f(p[:, 0])
    replacements = f(p[:, 5])
    bank = MemoryBank(rows, np.arange(3), np.zeros(3, np.int64), replacements)
    good = leave_one_out(lambda i: f(p[i]), photos, bank, scoring, LAYOUT)
    masks = [np.zeros(SIZE, bool) for _ in range(2)]
    for mask in masks:
        mask[8:16, 8:16] = True
    features = [p[0].copy(), p[1].copy()]
    features[0][5] = 50.0
    features[1][5] = -40.0
    pixels = [np.full((3, *SIZE), i, np.uint8) for i in range(2)]
    defects = Defects(
        lambda x: features[round(255 * float(x.max()))][None],
        [0, 1], list(LAYOUT.views) * 2, ["spot", "paste"], masks, pixels,
    )  # fmt: skip
    found = judge_on_defects(
        defects, f, bank, photos, good, scoring, LAYOUT, threshold=20.0, grid=GRID
    )
    return found, rows, replacements, features, good


@pytest.mark.parametrize("scoring", [ScoringSettings(), ScoringSettings(top=0.2)])
def test_a_made_defect_is_scored_without_its_photo(scoring):
    f = Representation(np.float32([[2, 0], [0, 1]]))
    found, rows, replacements, features, good = trial_of(f, scoring)
    for i in range(2):
        others = rows.copy()
        others[i] = replacements[i]
        nearest = [min(float(np.linalg.norm(q - row)) for row in others) for q in f(features[i])]
        count = max(1, round(scoring.top * 16))
        expected = np.mean(sorted(nearest)[-count:])
        assert found.defective[i] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(found.good, good.image_scores)
    assert found.quality.auroc == 1.0
    assert found.quality.by_kind == {"spot": (1, 1), "paste": (1, 1)}
    assert found.pixel_ap > 0.5


def a_trial(good, defective, pixel_ap):
    pairs = [(d > g) + 0.5 * (d == g) for d in defective for g in good]
    quality = QualityEstimate(float(np.mean(pairs)), 0, 1, 0, {}, len(good), len(defective))
    return Trial(np.array(good, float), np.array(defective, float), quality, pixel_ap)


@pytest.mark.parametrize(
    ("learned", "identity", "kept"),
    [
        # Mean of AUROC and pixel AP: 0.75 and 0.5 against 0.75 and 0.6.
        (a_trial([1, 2], [2, 3], 0.5), a_trial([1, 2], [2, 3], 0.6), "identity"),
        # Even: the learned one stays.
        (a_trial([1, 2], [2, 3], 0.5), a_trial([1, 2], [2, 3], 0.5), "learned"),
        # 1.0 and 0.3 against 0.875 and 0.4: 0.65 against 0.6375.
        (a_trial([1, 2], [3, 4], 0.3), a_trial([1, 2], [2, 3], 0.4), "learned"),
    ],
)
def test_the_guard_keeps_the_better_of_the_two(learned, identity, kept):
    found = guard(learned, identity)
    assert found.kept == kept
    assert found.image_auroc_gain[0] == pytest.approx(
        learned.quality.auroc - identity.quality.auroc
    )
    assert found.image_auroc_gain[1] <= found.image_auroc_gain[0] <= found.image_auroc_gain[2]
    said = found.sentence()
    assert ("was kept" in said) == (kept == "learned")
    assert f"{learned.pixel_ap:.1%} against" in said
    assert found.to_dict()["sentence"] == said
