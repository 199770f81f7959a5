"""Learn what good parts look like from photos of good parts only; find the defects in new ones.

    import reconpatch

    model = reconpatch.fit("good/")
    model.save("part.rcp")
    model = reconpatch.load("part.rcp")
    result = model.inspect("part.png")

The method is ReConPatch (Hyun et al., WACV 2024); docs/architecture.md shows the way data takes.
Fitting needs the extra "train" (torch); loading and inspecting do not.
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
    """Fit a model on a folder (or a sequence) of photos of good parts.

    See `reconpatch.fitting.model.fit` for the options; needs the extra "train".
    """
    from reconpatch.fitting.model import fit

    return fit(good, recipe=recipe, **options)


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
    from reconpatch.model.file import load

    return load(Path(path), threads=threads, engine=engine)
