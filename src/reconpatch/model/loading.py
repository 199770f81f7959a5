"""Load a model file as what inspects."""

from __future__ import annotations

from pathlib import Path

from reconpatch.engine.engines import DEFAULT_ENGINE
from reconpatch.model.contents import ModelContents
from reconpatch.model.ensemble import Ensemble
from reconpatch.model.file import made_up, read
from reconpatch.model.model import Inspector, Model


def load(path: Path, *, threads: int = 0, engine: str = DEFAULT_ENGINE) -> Inspector:
    """Read a model or an ensemble back; see `reconpatch.load`.

    Raises:
        SettingsError: there is no such engine, or it cannot have so many threads.
        ModelFileError: the file is missing, not a model, of a newer format, truncated or altered.
    """
    contents = read(path, threads=threads, engine=engine)
    if isinstance(contents, ModelContents):
        return Model.of(contents)
    with made_up(path):
        return Ensemble.of(contents)
