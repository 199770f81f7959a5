"""What came of the products of a manifest: a row each, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["fitted", "kept", "failed"]


@dataclass(frozen=True)
class Row:
    """What came of one product; of one that failed, why.

    Attributes:
        name: of the product.
        status: "fitted", "kept" (the file was there and nothing has changed) or "failed".
        error: why there is no model, in one sentence.
        model: name of the model's file.
        megabytes: its size.
        fingerprint: of the model.
        photos: good photos of the fit.
        seconds: that the fit took.
        threshold: of the image score.
        rate: the false-alarm rate that was asked for.
        promised_rate: the one that so many photos can promise.
        promise: the same in plain words.
        members: of each model: its name, the quality that made defects let expect, and the guard's
            decision; see `reconpatch.fitting.quality` and `reconpatch.fitting.trial`.
        notes: warnings of the fit, in plain words.
        test: figures on the test photos; see `reconpatch.evaluation.evaluate`.
        test_error: why there are none, in one sentence.
        test_key: what the figures were measured on.
        picture: a small JPEG of a good photo, or nothing.
    """

    name: str
    status: Status
    error: str | None = None
    model: str | None = None
    megabytes: float = 0.0
    fingerprint: str = ""
    photos: int = 0
    seconds: float = 0.0
    threshold: float = 0.0
    rate: float = 0.0
    promised_rate: float = 0.0
    promise: str = ""
    members: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    test: Mapping[str, Any] | None = None
    test_error: str | None = None
    test_key: str = ""
    picture: bytes = field(default=b"", repr=False)

    @property
    def quality(self) -> Mapping[str, Any] | None:
        """The expected quality; of an ensemble that of the member of which least is expected."""
        known = [member["quality"] for member in self.members if member["quality"]]
        return min(known, key=lambda quality: quality["auroc"], default=None)

    @property
    def failed(self) -> bool:
        """Whether something that was asked for is not there."""
        return self.error is not None or self.test_error is not None

    def to_dict(self) -> dict[str, Any]:
        """All but the picture as JSON-ready values."""
        values = asdict(self)
        del values["picture"]
        return values


@dataclass(frozen=True)
class Fitted:
    """What came of a manifest.

    Attributes:
        rows: of each product, in the manifest's order.
        folder: where models and summary are.
        seconds: from the first product to the last.
    """

    rows: Sequence[Row]
    folder: Path
    seconds: float

    @property
    def failures(self) -> list[Row]:
        """Products of which something is not there."""
        return [row for row in self.rows if row.failed]
