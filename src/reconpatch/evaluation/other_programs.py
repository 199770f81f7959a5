"""Another program's results, which the benchmark puts beside its own: one JSON file of each.

    {"format": 1, "program": "anomalib", "version": "2.7.0", "method": "PatchCore",
     "settings": "in words",
     "records": [{"category": "bottle", "seed": 0,
                  "photos": {"fit": 209, "good": 20, "defective": 63},
                  "metrics": {"image_auroc": 0.99}, "own": {"image_auroc": 0.99},
                  "fit_seconds": 60.0, "ms_per_photo": 30.0}]}

"metrics" are this project's metrics of the other program's scores and maps, "own" are what the
program's own metrics make of them; both by the names of `METRICS`, in 0 to 1, null where there is
nothing to measure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from reconpatch.errors import SettingsError
from reconpatch.files import write_rows
from reconpatch.method.metrics import METRICS

FORMAT = 1
"""Of the file; another number is refused."""

# A key that is not known is a mistake, and not to be passed over.
_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class PhotoCounts:
    """Photos that a model was fitted on, and good and defective ones that it was tested on."""

    fit: int
    good: int
    defective: int

    __pydantic_config__ = _STRICT

    def __str__(self) -> str:
        return f"{self.fit} photos to fit on, {self.good} good and {self.defective} defective ones"


@dataclass(frozen=True)
class OtherRecord:
    """What came of one category and seed.

    Attributes:
        category, seed: which it is.
        photos: how many there were; a benchmark on other photos refuses the record.
        metrics: by this project's metrics; see `METRICS`.
        own: by the program's own metrics, under the same names.
        fit_seconds: from the first training photo to a model.
        ms_per_photo: mean, from a photo that is read already to its score and map.
    """

    category: str
    seed: int
    photos: PhotoCounts
    metrics: Mapping[str, float | None]
    own: Mapping[str, float | None] = field(default_factory=dict)
    fit_seconds: float | None = None
    ms_per_photo: float | None = None

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        for name, value in [*self.metrics.items(), *self.own.items()]:
            if name not in METRICS:
                raise SettingsError(f"the metric {name!r} is not one of {', '.join(METRICS)}")
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"{name} is {value}, and a metric is in 0 to 1")
        for name in ("fit_seconds", "ms_per_photo"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise SettingsError(f"{name} is {value}, and a time is 0 or more")


@dataclass(frozen=True)
class OtherResults:
    """All records of one method of another program.

    Attributes:
        program, version, method: such as "anomalib", "2.7.0" and "PatchCore".
        settings: in words: backbone, input, bank, and how its own metrics measure.
        records: one for each category and seed.
    """

    program: str
    version: str
    method: str
    settings: str
    records: Sequence[OtherRecord] = ()

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        seen = set()
        for record in self.records:
            which = record.category, record.seed
            if which in seen:
                raise SettingsError(f"{which[0]} with seed {which[1]} is there twice")
            seen.add(which)

    @property
    def title(self) -> str:
        """Such as "anomalib 2.7.0 PatchCore"."""
        return f"{self.program} {self.version} {self.method}"

    def of(self, category: str) -> list[OtherRecord]:
        """The records of a category, one for each seed."""
        return [record for record in self.records if record.category == category]

    def only(self, categories: Sequence[str]) -> OtherResults:
        """The same without the records of other categories."""
        return replace(self, records=tuple(r for c in categories for r in self.of(c)))


def read_other_results(path: Path) -> OtherResults:
    """Another program's results from their file.

    Raises:
        SettingsError: there is no such file, or it is malformed: with the first thing that is.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        reason = error.strerror
        raise SettingsError(f"{path} cannot be read ({reason}): check the path") from error
    except ValueError as error:
        raise _malformed(path, f"it is not JSON: {error}") from error
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise _malformed(path, f'it has no "format": {FORMAT}')
    try:
        return TypeAdapter(OtherResults).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        cause = first.get("ctx", {}).get("error", first["msg"])
        raise _malformed(path, f"{place}: {cause}" if place else str(cause)) from None


def _malformed(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"{path} does not hold another program's results ({why}): write it as docs/reproduce.md "
        "says"
    )


def write_other_results(results: OtherResults, path: Path) -> None:
    """Write the file that `read_other_results` reads, a record a line; whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    head = {"format": FORMAT, **asdict(replace(results, records=()))}
    del head["records"]
    write_rows(path, head, "records", map(asdict, results.records))
