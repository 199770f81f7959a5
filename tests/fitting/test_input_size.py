"""Whether a larger input pays, by made defects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reconpatch
from conftest import save, textured
from reconpatch.errors import PhotoError, SettingsError
from reconpatch.fitting.input_size import (
    LEAST_PHOTOS,
    MOST_PHOTOS,
    PHOTOS,
    SizeDecision,
    larger_size,
    try_larger,
)
from reconpatch.fitting.options import FitOptions
from reconpatch.fitting.quality import QualityEstimate
from reconpatch.fitting.reading import Sources
from reconpatch.fitting.trial import Trial
from reconpatch.method.settings import FitSettings, automatic_tile, settings_for
from reconpatch.model.model import Model

PHOTO = (600, 640)
NONE = np.empty(0)


def settings(**changes: Any) -> FitSettings:
    return automatic_tile(settings_for(**changes), PHOTO)


def sources(count: int) -> Sources:
    return Sources([f"{i}.png" for i in range(count)], [str(i) for i in range(count)])


class Tried:
    """A fit that makes of each size the AUROC that is given, and notes what it was asked for."""

    def __init__(self, auroc: dict[int, float | Exception]) -> None:
        self.auroc = auroc
        self.asked: list[tuple[Sources, FitSettings, FitOptions]] = []

    def __call__(self, good: Sources, of: FitSettings, options: FitOptions) -> Trial:
        self.asked.append((good, of, options))
        auroc = self.auroc[of.size[0]]
        if isinstance(auroc, Exception):
            raise auroc
        return Trial(NONE, NONE, QualityEstimate(auroc, 0.0, 1.0, 0.5, {}, 9, 9), 0.5)


def tried_on(
    tried: Tried, of: FitSettings, photos: int, photo: tuple[int, int] = PHOTO, **options: Any
) -> SizeDecision | None:
    """As a fit goes about it."""
    given = FitOptions(**options)
    large = larger_size(of, photo, photos, given)
    return None if large is None else try_larger(of, large, sources(photos), given, tried)


@pytest.mark.parametrize(
    ("before", "after", "side"),
    [
        (0.80, 0.851, 448),  # less than 0.75 of the error is left
        (0.80, 0.849, 320),
        (0.80, 0.75, 320),
        (0.99, 1.0, 448),
        (1.0, 1.0, 320),  # nothing to gain
    ],
)
def test_the_larger_input_is_taken_where_it_leaves_at_most_three_quarters_of_the_error(
    before: float, after: float, side: int
) -> None:
    tried = Tried({320: before, 448: after})
    found = tried_on(tried, settings(), 100)
    assert found is not None
    assert found.size == (side, side)
    assert found.tried == {"320 x 320": before, "448 x 448": after}
    said = found.sentence()
    assert f"The input is {side} x {side} pixels" in said
    assert f"{before:.1%} at 320 x 320 and {after:.1%} at 448 x 448" in said
    assert found.to_dict() == {
        "size": [side, side], "photos": PHOTOS, "tried": found.tried, "sentence": said,
    }  # fmt: skip


def test_both_sizes_are_tried_on_the_same_photos_spread_over_all() -> None:
    steps: list[str] = []
    tried = Tried({320: 0.8, 448: 0.8})
    tried_on(
        tried, settings(seed=5), 200, confirmed=["there"], explain="x.png", on="ray", group="(.)",
        progress=lambda step, _done, _total: steps.append(step),
    )  # fmt: skip
    (some, small, own), (again, large, _) = tried.asked
    assert some == again
    assert (some.names[0], some.names[-1], len(some.names)) == ("0", "199", PHOTOS)
    assert np.diff([int(name) for name in some.names]).max() <= 6
    assert (small.size, large.size) == ((320, 320), (448, 448))
    assert replace(small, size=large.size) == large
    assert (small.seed, small.turns, small.bank) == (5, "never", 2000)
    # Workers, confirmed defects and pictures are for the fit itself.
    assert (own.confirmed, own.explain, own.on, own.thumbnails) == (None, None, None, False)
    assert own.group == "(.)"
    assert own.progress is not None
    own.progress("train f", 1, 1)
    assert steps == ["try 320 x 320: train f"]


@pytest.mark.parametrize(
    ("changes", "photos", "photo", "options"),
    [
        ({}, 100, (400, 700), {}),  # no pixels for it
        ({}, LEAST_PHOTOS - 1, PHOTO, {}),
        ({}, MOST_PHOTOS + 1, PHOTO, {}),
        ({}, 100, PHOTO, {"memory_limit": 2**31}),
        ({"size_tried": 0}, 100, PHOTO, {}),
        ({"size_limit": 448}, 100, PHOTO, {}),  # taken without question
        ({"method": "patchcore"}, 100, PHOTO, {}),
        ({"method": "untrained"}, 100, PHOTO, {}),
        ({"defects": 0}, 100, PHOTO, {}),
    ],
)
def test_where_there_is_nothing_to_try_nothing_is(
    changes: dict[str, Any], photos: int, photo: tuple[int, int], options: dict[str, Any]
) -> None:
    tried = Tried({})
    of = automatic_tile(settings_for(**changes), photo)
    assert tried_on(tried, of, photos, photo, **options) is None
    assert tried.asked == []


@pytest.mark.parametrize("side", [320, 448])
def test_a_trial_that_cannot_be_made_leaves_the_size_as_it_is(side: int) -> None:
    auroc: dict[int, float | Exception] = {320: 0.8, 448: 0.9, side: PhotoError("unreadable")}
    tried = Tried(auroc)
    assert tried_on(tried, settings(), 100) is None


def test_long_photos_are_tried_in_their_shape() -> None:
    photo = (500, 2000)
    tried = Tried({160: 0.8, 224: 0.9})
    of = automatic_tile(settings_for(), photo)
    found = tried_on(tried, of, 100, photo)
    assert found is not None
    assert found.size == (224, 896)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "good"
    for i in range(LEAST_PHOTOS):
        save(textured(i, 448, 448), folder / f"{i}.png")
    return folder


QUICK: dict[str, Any] = {
    "weights": "random", "threads": 1, "bank": 20, "bank_least": 0, "made": 4,
    "defects": LEAST_PHOTOS, "turns": "never",
}  # fmt: skip


def test_a_fit_tries_the_larger_input_and_says_what_came_of_it(large: Path) -> None:
    model = reconpatch.fit(large, **QUICK)
    assert isinstance(model, Model)
    decision = model.provenance["input_size"]
    assert list(model.settings.size) == decision["size"]
    assert list(decision["tried"]) == ["320 x 320", "448 x 448"]
    small, best = decision["tried"].values()
    assert (decision["size"] == [448, 448]) == (1 - best <= 0.75 * (1 - small) and best > small)
    assert "try a larger input" in model.provenance["seconds"]
    assert not any("try" in note for note in model.provenance["notes"])


def test_a_size_that_is_given_is_taken_as_it_is(large: Path) -> None:
    model = reconpatch.fit(large, size=64, **QUICK)
    assert isinstance(model, Model)
    assert model.settings.size == (64, 64)
    assert model.provenance["input_size"] is None
    assert "try a larger input" not in model.provenance["seconds"]


def test_a_size_to_try_below_the_least_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"size_tried is 200: give 224 pixels or more, or 0"):
        settings_for(size_tried=200)
