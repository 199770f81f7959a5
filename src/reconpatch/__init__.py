"""Learn what good parts look like from photos of good parts only; find the defects in new ones.

    import reconpatch

    model = reconpatch.fit("good/")
    model.save("part.rcp")
    model = reconpatch.load("part.rcp")
    result = model.inspect("part.png")

The method is ReConPatch (Hyun et al., WACV 2024); docs/architecture.md shows the way data takes.
Other backbones of timm, the paper's among them, and a GPU need the extra "torch".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconpatch.errors import (
    MissingExtraError,
    ModelFileError,
    NotEnoughPhotosError,
    OutputError,
    ParityError,
    PhotoError,
    ReconPatchError,
    ReconPatchWarning,
    SettingsError,
    WeightsError,
)

if TYPE_CHECKING:
    from reconpatch.fitting.reading import GoodSource
    from reconpatch.model.model import Inspector

__version__ = "0.1.0"

__all__ = [
    "MissingExtraError",
    "ModelFileError",
    "NotEnoughPhotosError",
    "OutputError",
    "ParityError",
    "PhotoError",
    "ReconPatchError",
    "ReconPatchWarning",
    "SettingsError",
    "WeightsError",
    "__version__",
    "fit",
    "load",
]


def fit(good: GoodSource, *, recipe: str = "default", **options: Any) -> Inspector:
    """Fit a model on photos of good parts.

    Args:
        good: a folder (searched in depth, links followed, photos taken in the order of their
            names; see `reconpatch.photos.listing`), or paths, arrays and PIL images, also from a
            generator. The channels of arrays are red, green and blue: OpenCV's frames are
            `frame[:, :, ::-1]`.
        recipe: "default", or "paper" for the paper's own settings.
        options: fields of `FitOptions`, and settings to change by name (see
            `reconpatch.method.settings.settings_for`): `fit("good/", seed=1, method="patchcore")`.
            A list of backbones or of sizes gives an ensemble of them:
            `fit("good/", size=[224, 448])`; lists of both are taken in pairs. `quality` is "fast",
            "balanced" or "best": see `reconpatch.method.settings.QUALITIES`.

    Raises:
        PhotoError: a photo or the folder cannot be used.
        NotEnoughPhotosError: fewer than two different good photos.
        WeightsError: the backbone's weights are missing or do not fit.
        SettingsError: a setting is unknown or out of its range.
        MissingExtraError: the backbone or device needs the extra "torch", which is not installed.
    """
    from reconpatch.fitting.ensemble import fit_members, parts_of
    from reconpatch.fitting.reading import photos_given
    from reconpatch.scale.distributed_fit import steps_of

    good = photos_given(good)  # members and steps go through the photos again
    return fit_members(good, *parts_of(recipe, options), steps_of=steps_of)


def load(path: str | Path, *, threads: int = 0, engine: str = "onnxruntime") -> Inspector:
    """Read a model (or an ensemble) that `Model.save` or `reconpatch fit` wrote.

    Args:
        path: the model file.
        threads: threads of the inference engine; 0 lets it take all cores.
        engine: "onnxruntime", or "openvino" (extra "openvino").

    Returns:
        The model. It can be pickled and copied, at work too: a copy opens an engine of its own.

    Raises:
        SettingsError: there is no such engine, or it cannot have so many threads.
        ModelFileError: the file is missing, damaged, not a model, or of a newer format.
    """
    from reconpatch.model.loading import load

    return load(Path(path), threads=threads, engine=engine)
