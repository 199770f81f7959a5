"""Kinds of defects: similarity, which kind is named, and what near means; numbers by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reconpatch.method.defect_kinds import (
    LEAST_NEAR,
    LEAST_PARTS,
    ROWS,
    WORST,
    DefectKinds,
    Shown,
    learn_kinds,
    similarity,
    telling,
    worst_patches,
)


def floats(*values: Any) -> Any:
    return np.array(values, dtype=np.float32)


def test_similarity_is_how_much_nearer_patches_are_to_the_kind_than_to_the_bank() -> None:
    rows = floats([0, 0], [3, 1])
    # Nearest rows at 1 and 0, the bank at 4 and 2: 1 - 0.5 / 3.
    patches, distances = floats([3, 2], [0, 0]), floats(4, 2)
    assert similarity(patches, distances, rows) == pytest.approx(1 - 0.5 / 3)
    assert similarity(patches[1:], distances[1:], rows) == 1.0
    assert similarity(patches, floats(0.1, 0.1), rows) == 0.0  # nearer to the bank
    assert similarity(patches, floats(0, 0), rows) == 0.0


def test_the_worst_patches_are_the_most_distant_and_of_equals_the_first() -> None:
    distances = np.zeros(100, np.float32)
    distances[[70, 3, 50]] = 2, 5, 2
    assert worst_patches(distances).tolist() == [3, 50, 70, *range(3), *range(4, 14)]
    assert len(worst_patches(distances)) == WORST
    assert worst_patches(floats(1, 2)).tolist() == [1, 0]


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 3), (2.0, 2), (4.5, 1), (9.0, 1)])
def test_a_verdict_is_about_patches_above_the_threshold_or_the_worst_alone(
    threshold: float, count: int
) -> None:
    distances = floats(5, 4, 2)
    assert distances[telling(distances, threshold)].tolist() == distances[:count].tolist()


def test_the_most_similar_of_the_near_kinds_is_named_or_none_of_them() -> None:
    kinds = DefectKinds(("dent", "scratch"), floats([0], [10]), np.array([0, 1]), (0.9, 0.5))
    # At 7, the bank 8 away: dent 1 - 7/8, scratch 1 - 3/8.
    found = kinds.most_similar(floats([7]), floats(8))
    assert (found.name, found.similarity, found.near) == ("scratch", 0.625, True)
    assert (found.label, str(found)) == ("scratch", "scratch (similarity 0.62)")
    # At 3, the bank 8 away: dent 0.625 is most similar, and below its limit; scratch 0.125 too.
    none = kinds.most_similar(floats([3]), floats(8))
    assert (none.name, none.similarity, none.near) == ("dent", 0.625, False)
    assert none.label == "none of these"
    assert str(none) == "none of these (most similar: dent, 0.62)"
    assert none.to_dict() == {"name": "dent", "similarity": 0.625, "near": False}
    # At 4.8, the bank 12 away: dent 0.6 is more similar, and not near; scratch 0.567 is near.
    assert kinds.most_similar(floats([4.8]), floats(12)).label == "scratch"


def shown(kind: str, part: int, at: float, bank: float = 0.0) -> Shown:
    """A defect of one patch on a line."""
    patch = floats([at])
    return Shown(kind, part, patch, patch, floats(abs(at - bank)))


def test_what_is_near_is_learned_with_each_part_left_out() -> None:
    defects = [shown("dent", i, 10.0) for i in range(4)] + [shown("dent", 4, 12.0)]
    defects += [shown("scratch", 5 + i, -10.0) for i in range(LEAST_PARTS)]
    defects += [shown("rare", 20, 99.0), *(shown("", 30 + i, 50.0) for i in range(9))]
    found = learn_kinds(defects)
    assert found is not None
    kinds, learned = found
    assert kinds.names == ("dent", "scratch")
    assert kinds.rows[:, 0].tolist() == [10, 10, 10, 10, 12] + 5 * [-10]
    assert kinds.kind.tolist() == 5 * [0] + 5 * [1]
    # The dent at 12 is 2 from the others and 12 from the bank; one of 5 + 1 falls below the lowest.
    assert kinds.near == pytest.approx((1 - 2 / 12, 1.0))
    assert learned.missed == pytest.approx({"dent": 1 / 6, "scratch": 1 / 6})
    assert learned.parts == {"dent": 5, "scratch": 5}
    assert (learned.own, learned.another, learned.none, learned.strangers) == (10, 0, 0, 0)
    assert learned.sentence() == (
        "Verdicts name kinds of defects: dent (5 parts), scratch (5 parts). Of their 10 confirmed "
        "defects, each compared without its own part, 10 get their own kind, 0 another and 0 none "
        "of these; were their own kind not known, 0 would get another."
    )
    assert learned.to_dict()["kinds"]["scratch"] == {
        "parts": 5, "near": 1.0, "missed": pytest.approx(1 / 6),
    }  # fmt: skip


def test_of_many_parts_a_tenth_may_fall_below_the_limit() -> None:
    # Of 19, each 0.1 from its neighbour but for two far ones: k = 0.1 * 20 = 2, the second lowest.
    places = [10 + i / 10 for i in range(17)] + [20.0, 30.0]
    found = learn_kinds([shown("dent", i, at) for i, at in enumerate(places)])
    assert found is not None
    # 20 is 8.4 from 11.6; 30 is 10 from 20: similarities 0.58 and 0.667.
    assert found[0].near == pytest.approx((1 - 10 / 30,), abs=1e-6)
    assert found[1].missed["dent"] == pytest.approx(2 / 20)
    assert (found[1].own, found[1].none) == (18, 1)


def test_a_kind_whose_defects_are_not_alike_is_hardly_ever_named() -> None:
    defects = []
    for i in range(LEAST_PARTS):
        patch = np.zeros((1, LEAST_PARTS), np.float32)
        patch[0, i] = 1.0  # sqrt(2) from each other, 1 from the bank
        defects.append(Shown("odd", i, patch, patch, floats(1.0)))
    found = learn_kinds(defects)
    assert found is not None
    assert found[0].near == (LEAST_NEAR,)
    assert found[1].missed == {"odd": 1.0}
    assert (found[1].own, found[1].none) == (0, LEAST_PARTS)


def test_another_kind_as_near_is_counted() -> None:
    defects = [shown("a", i, 10.0) for i in range(5)] + [shown("b", 5 + i, 10.0) for i in range(5)]
    found = learn_kinds(defects)
    assert found is not None
    assert (found[1].own, found[1].another, found[1].strangers) == (5, 5, 10)


def test_photos_of_one_part_count_once_and_are_left_out_together() -> None:
    assert learn_kinds([shown("dent", i // 2, 10.0) for i in range(2 * LEAST_PARTS - 2)]) is None
    # The last part's two photos are alike, and unlike the others: they do not speak for each other.
    defects = [shown("dent", i, 10.0) for i in range(4)] + 2 * [shown("dent", 4, 20.0)]
    found = learn_kinds(defects)
    assert found is not None
    assert found[0].near == pytest.approx((0.5,))
    assert learn_kinds([]) is None


def test_many_patches_are_kept_as_a_coreset() -> None:
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(5, 100, 3)).astype(np.float32)
    found = learn_kinds([Shown("dent", i, p, p[:1], floats(9)) for i, p in enumerate(patches)])
    assert found is not None
    kinds = found[0]
    assert kinds.rows.shape == (ROWS, 3)
    every = patches.reshape(-1, 3)
    assert (kinds.rows[:, None] == every).all(axis=2).any(axis=1).all()
    nearest = np.linalg.norm(every[:, None] - kinds.rows, axis=2).min(axis=1)
    some = np.linalg.norm(every[:, None] - every[:ROWS], axis=2).min(axis=1)
    assert nearest.max() < some.max()  # it covers them better than any would
