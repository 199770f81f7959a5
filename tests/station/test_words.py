"""The page's catalogues of words: whole, used, and alike in all languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reconpatch.errors import SettingsError
from reconpatch.station.config import read_config
from reconpatch.station.login_page import language_of, login_page
from reconpatch.station.page_settings import WORDS, PageSettings, languages

CATALOGUES = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in WORDS.glob("*.json")
}
USE = re.compile(
    r"(?:(?<=\.\.\.)|(?<![\w.]))(?:t|rich)\(\s*(?:\"([\w.]+)\"|`([\w.]+\.)\$\{[^`]*\}`)"
)
IN_HTML = re.compile(r'data-t(?:-title|-label)?="([^"]+)"')
LOGIN = WORDS.parents[1] / "login_page.py"
IN_MODULE = {"language.name", "language.tag"}  # read by words.js, and by the station


def used() -> tuple[set[str], set[str]]:
    """The keys of the page's files, and what the keys begin with that a value completes."""
    keys, beginnings = set(IN_MODULE), set()
    for file in WORDS.parent.glob("*.js"):
        for key, beginning in USE.findall(file.read_text(encoding="utf-8")):
            keys |= {key} if key else set()
            beginnings |= {beginning} if beginning else set()
    keys |= set(re.findall(r'text\["([^"]+)"\]', LOGIN.read_text(encoding="utf-8")))
    html = (WORDS.parent / "index.html").read_text(encoding="utf-8")
    return keys | set(IN_HTML.findall(html)), beginnings


def placeholders(text: str | dict[str, str]) -> set[str]:
    """The names in braces, of all plural forms together."""
    forms = [text] if isinstance(text, str) else text.values()
    return {name for form in forms for name in re.findall(r"\{(\w+)\}", form)}


def test_there_are_english_and_german() -> None:
    assert {"en", "de"} <= set(CATALOGUES)
    assert languages()["de"] == "Deutsch"


@pytest.mark.parametrize("code", CATALOGUES)
def test_each_key_that_is_used_is_in_the_catalogue_and_none_is_unused(code: str) -> None:
    keys, beginnings = used()
    there = set(CATALOGUES[code])
    assert keys - there == set()
    unused = {key for key in there - keys if not key.startswith(tuple(beginnings))}
    assert unused == set()
    assert [one for one in beginnings if not any(key.startswith(one) for key in there)] == []


@pytest.mark.parametrize("code", CATALOGUES)
def test_a_catalogue_has_the_keys_and_placeholders_of_the_english_one(code: str) -> None:
    english, here = CATALOGUES["en"], CATALOGUES[code]
    assert set(here) == set(english)
    assert list(here) == list(english)  # in the same order, so that two files can be compared
    wrong = [key for key in english if placeholders(here[key]) != placeholders(english[key])]
    assert wrong == []
    plural = [key for key, text in here.items() if isinstance(text, dict) and "other" not in text]
    assert plural == []
    empty = [key for key, text in here.items() if not text or text == {}]
    assert empty == []


def test_a_language_that_there_is_none_of_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "station.toml"
    file.write_text('[page]\nlanguage = "de"\n', encoding="utf-8")
    assert read_config(file).page == PageSettings(language="de")
    file.write_text('[page]\nlanguage = "xx"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"page\.language is 'xx': give de or en"):
        read_config(file)
    file.write_text("page = 3\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"page is 3: write it as a table"):
        read_config(file)


@pytest.mark.parametrize(
    ("station", "accepted", "language"),
    [
        ("de", "en-US,en;q=0.9", "de"), (None, "de-AT,de;q=0.9,en;q=0.8", "de"),
        (None, "fr,de;q=0.5", "de"), (None, "fr", "en"), (None, "", "en"),
    ],
)  # fmt: skip
def test_a_login_is_asked_for_in_the_language_of_the_station_or_the_browser(
    station: str | None, accepted: str, language: str
) -> None:
    assert language_of(station, accepted) == language
    page = login_page(language, prefix="", address="/", names=True, said="", wrong_token=False)
    assert f'<html lang="{language}">' in page
    assert CATALOGUES[language]["login.password"] in page
