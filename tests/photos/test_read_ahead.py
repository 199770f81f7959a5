from __future__ import annotations

import threading

import pytest

from conftest import WAIT
from reconpatch.photos.read_ahead import read_ahead


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("items", [0, 1, 5, 40])
def test_it_is_map(items: int, threads: int) -> None:
    assert list(read_ahead(lambda i: i * i, range(items), threads)) == [i * i for i in range(items)]


def test_an_error_comes_where_its_result_would() -> None:
    def work(i: int) -> int:
        if i == 2:
            raise ValueError(i)
        return i

    results = read_ahead(work, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)


def test_no_more_is_begun_than_fits() -> None:
    begun: list[int] = []
    results = read_ahead(lambda i: begun.append(i) or i, range(100), 2)
    assert next(results) == 0
    assert len(begun) <= 5  # 2 threads: 4 wait, and one was taken
    results.close()
    assert len(begun) <= 5


def test_items_are_worked_on_side_by_side() -> None:
    both = threading.Barrier(2, timeout=WAIT)
    assert list(read_ahead(lambda i: both.wait() * 0 + i, range(2), 2)) == [0, 1]
