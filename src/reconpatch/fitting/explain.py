"""Draw what f has learned: made defects beside their maps without and with f."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from reconpatch.files import atomic_write
from reconpatch.fitting.trial import Defects
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.scoring import ScoringSettings, anomaly_map
from reconpatch.model.good_photos import TrainingPhoto, bare_bank, groups_of_rows
from reconpatch.report.overlay import colourise

SHOWN = 8
"""Most made defects on a sheet."""
_SIDE, _GAP, _HEAD = 224, 6, 18  # pixels of a picture's longer side, between two, above them
_COLUMNS = ("made defect", "where it is", "principal directions alone", "f")


def explain(
    path: Path,
    defects: Defects,
    f: Representation,
    bank: MemoryBank,
    photos: Sequence[TrainingPhoto],
    scoring: ScoringSettings,
    grid: tuple[int, int],
) -> None:
    """Write a sheet of made defects: photo, mask, map by the principal half of f, map by f.

    Each photo is compared with the bank without its own rows. Yellow is the highest value beside
    the defects, median over the sheet, so what is red stands out.

    Args:
        path: a PNG, written whole or not at all.
        defects: one at least.
        f: the representation.
        bank: of `f`.
        photos: the good photos; `bank.photo` and `defects.photos` count them.
        scoring: `principal` says which dimensions are principal directions; 0 for none, and that
            column is left out.
        grid: h, w of the patches of a view.

    Raises:
        OutputError: the file cannot be written.
    """
    chosen = np.unique(np.linspace(0, len(defects) - 1, min(SHOWN, len(defects))).astype(int))
    group_of_row = groups_of_rows(bank, photos)
    kinds = [len(bank.rows[0])]
    if 0 < scoring.principal < kinds[0]:
        kinds.insert(0, scoring.principal)
    maps: list[list[Floats]] = [[] for _ in kinds]
    for k in chosen:
        rows = bank.rows[group_of_row != photos[defects.photos[k]].group]
        r = defects.represented(k, f)
        for found, dims in zip(maps, kinds, strict=True):
            distances, _ = bare_bank(rows[:, :dims]).nearest(r[:, :dims])
            found.append(anomaly_map(distances, grid, defects.masks[k].shape, scoring.blur))
    masks = [defects.masks[k] for k in chosen]
    levels = [_level_beside(found, masks) for found in maps]
    cells = [
        [
            Image.fromarray(defects.pixels[k].transpose(1, 2, 0)),
            Image.fromarray(masks[i]).convert("RGB"),
            *(
                _painted(defects.pixels[k], of[i], level)
                for of, level in zip(maps, levels, strict=True)
            ),
        ]
        for i, k in enumerate(chosen)
    ]
    names = [f"{defects.kinds[k]}, {photos[defects.photos[k]].name}" for k in chosen]
    columns = _COLUMNS if len(kinds) == 2 else (*_COLUMNS[:2], _COLUMNS[3])
    with atomic_write(path) as file:
        _sheet(cells, columns, names).save(file, "PNG")


def _level_beside(maps: Sequence[Floats], masks: Sequence[npt.NDArray[np.bool_]]) -> float:
    """The highest value of a map beside its defect, median over the maps."""
    beside = [float(m[~mask].max()) for m, mask in zip(maps, masks, strict=True) if not mask.all()]
    return float(np.median(beside)) if beside else 1.0


def _painted(pixels: npt.NDArray[np.uint8], heatmap: Floats, level: float) -> Image.Image:
    photo = Image.fromarray(pixels.transpose(1, 2, 0)).convert("RGBA")
    return Image.alpha_composite(photo, Image.fromarray(colourise(heatmap, level))).convert("RGB")


def _sheet(
    cells: Sequence[Sequence[Image.Image]], columns: Sequence[str], names: Sequence[str]
) -> Image.Image:
    width, height = cells[0][0].size
    scale = _SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step = size[0] + _GAP, size[1] + _GAP + _HEAD
    whole = Image.new(
        "RGB", (step[0] * len(columns) + _GAP, step[1] * len(cells) + _HEAD + _GAP), "white"
    )
    draw = ImageDraw.Draw(whole)
    for x, title in enumerate(columns):
        draw.text((_GAP + x * step[0], 3), title, fill="black")
    for y, (row, name) in enumerate(zip(cells, names, strict=True)):
        top = _HEAD + y * step[1]
        draw.text((_GAP, top + 3), name, fill=(90, 90, 90))
        for x, cell in enumerate(row):
            whole.paste(cell.resize(size), (_GAP + x * step[0], top + _HEAD))
    return whole
