"""What the paper reports, in per cent, to stand beside figures of our own.

Source: Hyun et al., "ReConPatch: Contrastive Patch Representation Learning for Industrial Anomaly
Detection", WACV 2024, arXiv 2305.16713; PatchCore's figures are those it cites or reproduces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from reconpatch.errors import SettingsError

IMAGE, PIXEL = "image_auroc", "pixel_auroc"

_MVTEC: tuple[str, ...] = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
_BTAD: tuple[str, ...] = ("01", "02", "03")
_CATEGORIES: Mapping[str, tuple[str, ...]] = {"mvtec": _MVTEC, "btad": _BTAD}


@dataclass(frozen=True)
class Published:
    """One column of a published table.

    Attributes:
        title: heading of the column.
        dataset: the data set's name, as `reconpatch.evaluation.datasets.DATASETS` has it.
        means: by metric, the mean over all categories as it was published.
        figures: by metric, the figure of each category; empty where only the mean is given.
        note: what to know before comparing with it, or nothing.
    """

    title: str
    dataset: str
    means: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    note: str = ""

    def has(self, metric: str) -> bool:
        """Whether anything is published under this metric."""
        return metric in self.means or metric in self.figures

    def figure(self, metric: str, category: str) -> float | None:
        """The figure of a category in per cent, if it is published."""
        return self.figures.get(metric, {}).get(category)

    def mean(self, metric: str, categories: Sequence[str]) -> float | None:
        """The unweighted mean over these categories in per cent, as far as it can be told.

        Over all of them it is the published one; over some it is worked out from their figures.
        """
        if metric in self.means and sorted(categories) == sorted(_CATEGORIES[self.dataset]):
            return self.means[metric]
        known = [self.figure(metric, category) for category in categories]
        figures = [value for value in known if value is not None]
        complete = len(figures) == len(known) > 0
        return sum(figures) / len(figures) if complete else None


def published(key: str) -> Published:
    """One column of PUBLISHED.

    Raises:
        SettingsError: there is no such column.
    """
    if key not in PUBLISHED:
        raise SettingsError(f"nothing is published as {key!r}: give one of {', '.join(PUBLISHED)}")
    return PUBLISHED[key]


_WRN50_IMAGE = (
    100, 99.83, 98.8, 99.6, 100, 100, 100, 100, 97.49, 98.52, 99.78, 100, 100, 99.65, 99.76,
)  # fmt: skip
_WRN101_IMAGE = (
    100, 99.66, 99.76, 100, 99.5, 100, 100, 100, 96.21, 99.84, 100, 100, 100, 99.47, 99.89,
)  # fmt: skip
_WRN101_PIXEL = (
    98.78, 98.86, 99.24, 99.29, 98.73, 99.07, 99.48, 99.29, 98.66, 99.59, 97.15, 99.16, 96.18,
    95.16, 99.25,
)  # fmt: skip
_PATCHCORE_IMAGE = (
    100, 99.5, 98.1, 98.7, 98.2, 100, 100, 100, 96.6, 98.1, 98.7, 100, 100, 99.2, 99.4,
)  # fmt: skip
_PATCHCORE_PIXEL = (
    98.6, 98.4, 98.8, 99.0, 98.7, 98.7, 99.3, 98.4, 97.4, 99.4, 95.6, 98.7, 96.3, 95.0, 98.8,
)  # fmt: skip

_TABLES = {
    "reconpatch-wrn50-224": Published(
        "paper: ReConPatch, WRN-50, 224",
        "mvtec",
        {IMAGE: 99.56, PIXEL: 98.07},
        {IMAGE: dict(zip(_MVTEC, _WRN50_IMAGE, strict=True))},
        "Of the paper's pixel AUROC for WRN-50 only the mean is shown: its column of single "
        "categories looks scrambled and is not used.",
    ),
    "reconpatch-wrn101-480": Published(
        "paper: ReConPatch, WRN-101, 480",
        "mvtec",
        {IMAGE: 99.62, PIXEL: 98.53},
        {
            IMAGE: dict(zip(_MVTEC, _WRN101_IMAGE, strict=True)),
            PIXEL: dict(zip(_MVTEC, _WRN101_PIXEL, strict=True)),
        },
    ),
    "patchcore-wrn50-224": Published(
        "paper: PatchCore, WRN-50, 224",
        "mvtec",
        figures={
            IMAGE: dict(zip(_MVTEC, _PATCHCORE_IMAGE, strict=True)),
            PIXEL: dict(zip(_MVTEC, _PATCHCORE_PIXEL, strict=True)),
        },
    ),
    "reconpatch-ensemble-480": Published(
        "paper: ReConPatch, ensemble, 480", "mvtec", {IMAGE: 99.72, PIXEL: 98.67}
    ),
    "reconpatch-ensemble-320": Published(
        "paper: ReConPatch, ensemble, 320", "mvtec", {IMAGE: 99.67, PIXEL: 98.36}
    ),
    "reconpatch-btad": Published(
        "paper: ReConPatch, WRN-101, 480",
        "btad",
        {IMAGE: 95.8, PIXEL: 97.5},
        {
            IMAGE: dict(zip(_BTAD, (99.7, 87.7, 100), strict=True)),
            PIXEL: dict(zip(_BTAD, (96.8, 96.6, 99.0), strict=True)),
        },
    ),
    "patchcore-btad": Published("paper: PatchCore", "btad", {IMAGE: 93.1, PIXEL: 97.3}),
    "reconpatch-s5": Published(
        "paper: ReConPatch, s = 5", "mvtec", {IMAGE: 98.84, PIXEL: 97.82}
    ),
    "reconpatch-s5-levels123": Published(
        "paper: ReConPatch, s = 5, levels 1+2+3", "mvtec", {IMAGE: 98.70, PIXEL: 98.18}
    ),
    "reconpatch-robustness": Published(
        "paper: ReConPatch, disturbed",
        "mvtec",
        {IMAGE: 98.56},
        note="Undisturbed the paper has 99.56; how much it disturbed the photos is not known.",
    ),
    "patchcore-robustness": Published(
        "paper: PatchCore, disturbed",
        "mvtec",
        {IMAGE: 95.48},
        note="Undisturbed the paper has 99.10 for PatchCore.",
    ),
}  # fmt: skip

# Dimensions of f: image AUROC of ReConPatch and of PatchCore.
_DIMENSIONS = {
    1024: (99.49, 99.10),
    512: (99.56, 98.66),
    256: (99.53, 98.45),
    128: (99.52, 98.54),
    64: (99.14, 97.75),
}
_PATCHCORE_DIMENSIONS = (
    "The paper's PatchCore has features of {} dimensions here, and does not say how they came to "
    "that; patchcore in these tables keeps all that the backbone's levels have (1,536 of WRN-50)."
)
_CORESETS = {25: 99.24, 10: 99.27, 1: 99.49}

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    _TABLES
    | {
        f"{method}-dim-{dim}": Published(
            f"paper: {title}, {dim}-d",
            "mvtec",
            {IMAGE: figures[i]},
            note=_PATCHCORE_DIMENSIONS.format(dim) if method == "patchcore" else "",
        )
        for dim, figures in _DIMENSIONS.items()
        for i, (method, title) in enumerate(
            [("reconpatch", "ReConPatch"), ("patchcore", "PatchCore")]
        )
    }
    | {
        f"reconpatch-coreset-{share}": Published(
            f"paper: ReConPatch, coreset {share} %", "mvtec", {IMAGE: image}
        )
        for share, image in _CORESETS.items()
    }
)
"""All published columns by key; the configs name those to compare with."""
