"""What a station's configuration says of its page, and which languages the page knows."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

WORDS = Path(__file__).parent / "web" / "words"
"""The page's catalogues of words: a file for each language, such as de.json."""


@cache
def languages() -> dict[str, str]:
    """The languages that the page knows: their codes, and what each calls itself."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))["language.name"]
        for path in sorted(WORDS.glob("*.json"))
    }


def _known(code: str) -> str:
    if code not in languages():
        raise ValueError(f"give {' or '.join(languages())}")
    return code


Signals = Literal["off", "ng", "all"]


class PageSettings(BaseModel):
    """The table [page] of a station's file: what holds where nobody at the page chose otherwise.

    Attributes:
        language: none: the browser's.
        verdicts: the words for a verdict, GOOD and ANOMALOUS or OK and NG.
        sound: at which verdicts there is a sound; "ng": at all that is not good.
        light: at which the edge of the screen lights up, likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Annotated[str, AfterValidator(_known)] | None = None
    verdicts: Literal["good-anomalous", "ok-ng"] = "good-anomalous"
    sound: Signals = "off"
    light: Signals = "off"
