"""What f has learned, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reconpatch.fitting.explain import explain
from reconpatch.fitting.trial import Defects
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings
from reconpatch.model.good_photos import TrainingPhoto

GRID, SIZE = (4, 6), (32, 48)


def made(count: int, seed: int = 0) -> Defects:
    """Defects in the lower half; their patches are far away by the second dimension alone."""
    rng = np.random.default_rng(seed)

    def extractor(_: Any) -> Any:
        features = rng.normal(scale=0.01, size=(1, 24, 2)).astype(np.float32)
        features[:, 12:, 1] += 5
        return features

    found = Defects(extractor)  # type: ignore[arg-type]  # without sizes
    for i in range(count):
        mask = np.zeros(SIZE, bool)
        mask[16:] = True
        found.photos.append(i % 3)
        found.kinds.append("stain")
        found.masks.append(mask)
        found.pixels.append(np.full((3, *SIZE), 128, np.uint8))
    return found


def sheet(tmp_path: Path, count: int, principal: int) -> Image.Image:
    rows = np.random.default_rng(1).normal(scale=0.01, size=(9, 2)).astype(np.float32)
    bank = MemoryBank(rows, np.arange(9) % 3, np.arange(9), rows)
    photos = [TrainingPhoto(f"{i}.png", f"{i:064}", *SIZE, group=i) for i in range(3)]
    scoring = ScoringSettings(top=0.1, principal=principal, blur=1.0)
    path = tmp_path / "explained.png"
    explain(path, made(count), Representation(), bank, photos, scoring, GRID)
    return Image.open(path).convert("RGB")


def reddish(cell: Image.Image) -> float:
    pixels = np.asarray(cell, np.int64)
    return float((pixels[..., 0] - pixels[..., 2] > 40).mean())


def test_f_marks_what_principal_directions_alone_do_not(tmp_path: Path) -> None:
    whole = sheet(tmp_path, 1, principal=1)
    # Pictures are 224 x 149, 6 pixels apart, below a title of 18 and a name of 18 pixels.
    columns = [whole.crop((6 + x * 230, 36 + 75, 230 + x * 230, 36 + 149)) for x in range(4)]
    assert np.asarray(columns[1]).mean() > 250  # the mask: the lower half
    assert reddish(columns[3]) > 0.9
    assert reddish(columns[2]) < reddish(columns[3])


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (8, 8), (30, 8)])
def test_a_sheet_holds_eight_defects_at_most(tmp_path: Path, count: int, shown: int) -> None:
    whole = sheet(tmp_path, count, principal=1)
    assert whole.size == (4 * 230 + 6, 18 + 6 + shown * (149 + 6 + 18))


def test_without_principal_directions_there_is_one_map(tmp_path: Path) -> None:
    assert sheet(tmp_path, 2, principal=0).size[0] == 3 * 230 + 6
