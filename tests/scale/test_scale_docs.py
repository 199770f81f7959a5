"""What docs/scale.md says of columns and numbers is what the code has; test_docs.py runs it."""

from __future__ import annotations

import re

import pytest

from conftest import REPOSITORY

pytest.importorskip("pyarrow", reason="the extra 'score' is not installed")
from reconpatch.scale.score_table import SCHEMA

PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")


def test_every_column_is_described() -> None:
    table = PAGE[PAGE.index("| column | |") : PAGE.index("A file is written whole")]
    named = set(
        re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()[2:] if row))
    )
    assert named == set(SCHEMA.names)


def test_the_models_numbers_are_those_of_the_code() -> None:
    from reconpatch.scale import distributed_fit, score_table, sources

    for number in (
        f"shares of {distributed_fit.SHARE}",
        f"{distributed_fit.SPARE} times the share's part",
        f"{score_table.FILE_ROWS:,} rows or a minute",
        f"up to {sources.PORTION} photos it was at",
    ):
        assert number in PAGE
    assert (distributed_fit.SAMPLE, score_table.FILE_SECONDS) == (2**18, 60)
