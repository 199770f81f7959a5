"""Strokes on a photo: what they cover, pixel by pixel, and which are refused."""

from __future__ import annotations

import numpy as np
import pytest

from reconpatch.errors import SettingsError
from reconpatch.station.drawing import MOST_POINTS, MOST_STROKES, Stroke, checked, mask


def test_strokes_cover_what_is_within_half_their_width() -> None:
    strokes = [Stroke(9, ((10, 12), (40, 12), (40, 30))), Stroke(5, ((60.0, 8.0),))]
    drawn = mask(strokes, 50, 80)
    y, x = np.mgrid[:50, :80]
    along = np.hypot(x - np.clip(x, 10, 40), y - 12)
    down = np.hypot(x - 40, y - np.clip(y, 12, 30))
    dot = np.hypot(x - 60, y - 8)
    inside = (along < 3.5) | (down < 3.5) | (dot < 1.5)
    outside = (along > 5.5) & (down > 5.5) & (dot > 3.5)
    assert drawn[inside].all()
    assert not drawn[outside].any()


def test_a_drawing_may_go_over_the_edge_and_is_rounded() -> None:
    assert checked([], 50, 80) is None
    over = Stroke(3.04, ((70.126, 10.0), (95.0, 10.0)))
    assert checked([over], 50, 80) == (Stroke(3.0, ((70.1, 10.0), (95.0, 10.0))),)
    assert mask([over], 50, 80)[10, 72:].all()


@pytest.mark.parametrize(
    ("strokes", "said"),
    [
        ([Stroke(5, ((-3, 10),))], "beside the photo, which has 80 x 50 pixels"),
        ([Stroke(5, ((10, 50),))], "beside the photo"),
        ([Stroke(5, ((10, 10), (1e5, 10)))], "beside the photo"),
        ([Stroke(5, ((10, 10), (float("nan"), 10)))], "beside the photo"),
        ([Stroke(0.5, ((10, 10),))], "thinner than a pixel"),
        ([Stroke(5, ())], "this one has 1 of 0: give fewer strokes"),
        ([Stroke(5, ((10, 10),) * (MOST_POINTS + 1))], "this one has 1 of 2,001"),
        ([Stroke(5, ((10, 10),) * 20)] * 101, "this one has 101 of 2,020"),
        ([Stroke(5, ((10, 10),))] * (MOST_STROKES + 1), "this one has 201 of 201"),
    ],
)
def test_what_is_no_drawing_of_a_photo_is_refused(strokes: list[Stroke], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        checked(strokes, 50, 80)
