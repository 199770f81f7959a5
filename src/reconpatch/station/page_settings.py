"""What a station's configuration says of its page, and which languages the page knows."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

WORDS = Path(__file__).parent / "web" / "words"
"""The page's catalogues of words: a file for each language, such as de.json."""


@cache
def words(language: str) -> dict[str, Any]:
    """The texts of a language by their keys; one that depends on a number is a table of forms."""
    texts: dict[str, Any] = json.loads((WORDS / f"{language}.json").read_text(encoding="utf-8"))
    return texts


@cache
def languages() -> dict[str, str]:
    """The languages that the page knows: their codes, and what each calls itself."""
    codes = sorted(path.stem for path in WORDS.glob("*.json"))
    return {code: words(code)["language.name"] for code in codes}


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
