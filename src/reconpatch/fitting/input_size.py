"""Choose between two automatic sizes of the input by defects made on good photos.

    some of the good photos ─┬─ fit at the size without question ── AUROC on made defects ─┐
                             └─ fit at the larger size ──────────── AUROC on made defects ─┴─ size

A larger input shows smaller defects, at twice the milliseconds a photo and with less of a large
defect in each patch. On most products it tells made defects no better from good photos, and then
real ones neither; where it does (thin tracks of a circuit board, say), real defects are found that
the smaller one cannot show (docs/research.md). So it is taken where it leaves clearly less of the
error. Only photos that have as many pixels are tried: there is nothing to see in pixels that were
made up.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from reconpatch.errors import ReconPatchError
from reconpatch.fitting.options import FitOptions, naming
from reconpatch.fitting.reading import Sources
from reconpatch.fitting.trial import Trial
from reconpatch.method.settings import FitSettings, automatic_size
from reconpatch.model.good_photos import evenly_spread

TRY_SIZES = "try a larger input"
"""The step of a fit that chooses the size."""

PHOTOS = 40
"""Good photos that both sizes are tried on, evenly spread."""
ROUNDS = 3
"""Made defects on each of them that judge a size: by one alone the difference is half noise."""
LEAST_PHOTOS = 16
"""Fewer tell nothing about a size."""
MOST_PHOTOS = 1000
"""More photos are not tried: their features at the larger size take gigabytes."""
MADE, ROWS = 192, 2000
"""Made defects that f learns from in a trial, and rows of its bank."""
LEFT = 0.75
"""The larger size is taken where it leaves at most this share of the error, which is 1 - AUROC.
Measured: 0.2 to 0.71 where it pays, and 0.77 to 1.4 elsewhere."""

Try = Callable[[Sources, FitSettings, FitOptions], Trial | None]
"""A fit on some photos, and what it comes to on made defects."""


@dataclass(frozen=True)
class SizeDecision:
    """Which size was taken, and what decided.

    Attributes:
        size: height and width in pixels.
        photos: good photos that both sizes were tried on.
        tried: image AUROC on made defects, 0 to 1, by "HEIGHTxWIDTH", the smaller size first.
    """

    size: tuple[int, int]
    photos: int
    tried: dict[str, float]

    def sentence(self) -> str:
        """The decision in plain words."""
        (small, before), (large, after) = self.tried.items()
        return (
            f"The input is {_named(self.size)} pixels (height x width): on {self.photos} good "
            f"photos, image AUROC on made defects is {before:.1%} at {small} and {after:.1%} at "
            f"{large}, which is taken where it leaves at most {LEFT:.0%} of the error."
        )

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON-ready values."""
        return asdict(self) | {"size": list(self.size), "sentence": self.sentence()}


def larger_size(
    settings: FitSettings, photo: tuple[int, int], photos: int, options: FitOptions
) -> tuple[int, int] | None:
    """Choose the larger automatic size that is worth a trial.

    Args:
        settings: of the fit, with the size that is taken without question.
        photo: median height and width of the photos, in pixels.
        photos: how many good photos there are.
        options: of the fit.

    Returns:
        None where there is nothing to try: photos without so many pixels, too few or too many of
        them, a memory limit, or settings without made defects to learn from and to judge by.
    """
    large = automatic_size(photo, max(settings.size_tried, settings.size_limit))
    learns = settings.method == "reconpatch" and settings.training.init == "contrastive"
    judged = settings.defects >= LEAST_PHOTOS and LEAST_PHOTOS <= photos <= MOST_PHOTOS
    if large == settings.size or not (learns and judged) or options.memory_limit:
        return None
    return large


def try_larger(
    settings: FitSettings,
    large: tuple[int, int],
    sources: Sources,
    options: FitOptions,
    fit: Try,
) -> SizeDecision | None:
    """Try a larger input beside the one of the settings; None where one of them cannot be tried.

    Args:
        settings: of the fit, with the size that is taken without question.
        large: see `larger_size`.
        sources: the good photos.
        options: of the fit.
        fit: tries one size.
    """
    some = evenly_spread(len(sources.photos), PHOTOS).tolist()
    sources = Sources([sources.photos[i] for i in some], [sources.names[i] for i in some])
    made = min(settings.training.made, MADE)
    settings = replace(
        settings,
        turns="never",
        bank=min(settings.bank, ROWS) if settings.bank >= 1 else ROWS,
        bank_least=0,
        training=replace(settings.training, made=made),
    )
    found: list[Trial] = []
    for size in (settings.size, large):
        own = replace(
            options, thumbnails=False, explain=None, confirmed=None, on=None,
            progress=naming(f"try {_named(size)}", options.progress),
        )  # fmt: skip
        # What is wrong with a photo is said when all of them are read.
        with suppress(ReconPatchError):
            trial = fit(sources, replace(settings, size=size), own)
            found += [] if trial is None else [trial]
    if len(found) < 2:
        return None
    before, after = (trial.quality.auroc for trial in found)
    pays = 1.0 - after <= LEFT * (1.0 - before) and after > before
    return SizeDecision(
        large if pays else settings.size,
        len(some),
        {_named(settings.size): before, _named(large): after},
    )


def _named(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
