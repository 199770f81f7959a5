from __future__ import annotations

import numpy as np
import pytest

from reconpatch.errors import SettingsError
from reconpatch.memory import parse_bytes, peak_bytes, resident_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GiB", 2 * 2**30),
        ("2 gb", 2 * 2**30),
        ("1.5G", 3 * 2**29),
        ("800MiB", 800 * 2**20),
        ("64k", 65536),
        ("1234", 1234),
        (" 10 B ", 10),
    ],
)
def test_sizes_by_hand(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1G", "2 PB", "1,5G", "GiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="give a size such as 2GiB"):
        parse_bytes(text)


def test_memory_that_is_taken_counts() -> None:
    before = resident_bytes()
    block = np.ones(2**24)  # 128 MiB, written to
    assert resident_bytes() - before > 0.9 * block.nbytes
    assert peak_bytes() >= resident_bytes() - 2**20
