"""Writes a model file and an ensemble's of the present format, small, to be kept for good.

    python tests/keep_model_files.py

Run once for each format, before it is released. What a released version wrote has to be read by all
later ones, so a file that is there is never written again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import reconpatch
from conftest import SMALL_FIT, fill
from reconpatch.model.file import FORMAT
from smoke import DATA, sayings

# timm's backbone for tests: 0.2 MB.
TINY: dict[str, Any] = SMALL_FIT | {"backbone": "test_efficientnet", "bank": 0.05, "defects": 2}

FITS: dict[str, dict[str, Any]] = {
    "": {"levels": (1, 2)},
    "-ensemble": {"levels": (1,), "size": [64, 48], "thumbnails": False},
}


def main() -> None:
    """Fit, save, and write down what the file says."""
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        good = fill(Path(folder), range(4))
        for name, changes in FITS.items():
            file = DATA / f"format-{FORMAT}{name}.rcp"
            reconpatch.fit(good, **TINY | changes).save(file)
            text = json.dumps(sayings(reconpatch.load(file)), indent=1)
            file.with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
