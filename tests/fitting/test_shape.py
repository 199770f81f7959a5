"""Photos far from a square: the default input has their shape, and all that follows bears it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reconpatch
from conftest import SMALL_FIT, save, textured
from reconpatch.fitting.ensemble import fit_ensemble
from reconpatch.fitting.options import FitOptions
from reconpatch.method.settings import settings_for
from reconpatch.model.ensemble import Ensemble
from reconpatch.report.overlay import overlay

HEIGHT, WIDTH = 336, 1344
SMALL: dict[str, Any] = {n: v for n, v in SMALL_FIT.items() if n not in ("size", "weights")}
SMALL = {n: v for n, v in SMALL.items() if n != "threads"} | {"bank": 200, "defects": 2}


def marked(x: int, y: int, side: int = 24) -> np.ndarray[Any, Any]:
    """A good part with a black square."""
    photo = textured(50, HEIGHT, WIDTH)
    photo[y : y + side, x : x + side] = 0
    return photo


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "good"
    for i in range(5):
        save(textured(i, HEIGHT, WIDTH), folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def ensemble(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    """Two members of their own sizes, read back from their file, with a region of interest."""
    inside = np.ones((HEIGHT, WIDTH), np.bool_)
    inside[:, 1200:] = False
    members = [settings_for(size_limit=limit, **SMALL) for limit in (224, 320)]
    options = FitOptions(weights="random", threads=1, roi=inside)
    file = tmp_path_factory.mktemp("models") / "long.rcp"
    fit_ensemble(good, members, options).save(file)
    loaded = reconpatch.load(file, threads=1)
    assert isinstance(loaded, Ensemble)
    return loaded


def test_each_member_has_the_shape_of_the_photos(ensemble: Ensemble) -> None:
    # 4 : 1, so 224 / 2 and 224 * 2, 320 / 2 and 320 * 2, in multiples of 32
    assert [member.settings.size for member in ensemble.members] == [(128, 448), (160, 640)]
    assert [m.engine.grid for m in ensemble.members] == [(16, 56), (20, 80)]
    assert not any("times smaller" in note for note in ensemble.provenance["notes"])


@pytest.mark.parametrize(("x", "y"), [(40, 280), (700, 20), (1130, 160)])
def test_a_small_defect_is_found_where_it_is(ensemble: Ensemble, x: int, y: int) -> None:
    found = ensemble.inspect(marked(x, y))
    assert found.anomalous
    assert found.heatmap.shape == (HEIGHT, WIDTH)
    peak = found.regions[0].peak
    assert abs(peak[0] - x - 12) < 30
    assert abs(peak[1] - y - 12) < 30
    drawn = overlay(marked(x, y), found.heatmap, found.map_threshold, found.regions)
    assert drawn.size == (WIDTH, HEIGHT)


def test_what_lies_outside_of_the_region_changes_nothing(ensemble: Ensemble) -> None:
    good_part, outside = textured(50, HEIGHT, WIDTH), marked(1250, 100)
    assert ensemble.inspect(outside).score == ensemble.inspect(good_part).score
    assert np.isnan(ensemble.inspect(outside).heatmap[:, 1200:]).all()


def test_a_line_scan_longer_than_the_input_can_be_is_squeezed_and_says_so(tmp_path: Path) -> None:
    for i in range(4):
        save(textured(i, 64, 2048), tmp_path / f"{i}.png")
    model = reconpatch.fit(tmp_path, quality="fast", weights="random", threads=1, **SMALL)
    assert model.settings.size == (64, 768)
    assert [n[:36] for n in model.provenance["notes"]] == ["Photos of 2048 x 64 pixels (width x "]
    photo = textured(50, 64, 2048)
    photo[20:44, 1500:1524] = 0
    found = model.inspect(Image.fromarray(photo))
    assert found.anomalous
    assert abs(found.regions[0].peak[0] - 1512) < 30
