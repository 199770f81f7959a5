"""A bound on what several threads hold at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconpatch.errors import BusyError
from reconpatch.station.budget import Budget

WAIT = 60


def test_no_more_is_held_than_there_is() -> None:
    budget = Budget(10)
    most, lock = 0, threading.Lock()

    def hold(size: int) -> None:
        nonlocal most
        with budget.take(size), lock:
            most = max(most, budget.held)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, [4, 3, 6, 1, 10, 2, 9, 5] * 20))
    assert 0 < most <= 10
    assert budget.held == 0


def test_what_is_larger_than_all_of_it_is_let_in_alone() -> None:
    budget = Budget(10)
    with budget.take(25):
        assert budget.held == 25
        with pytest.raises(BusyError, match="wait for memory"), budget.take(1, patience=0):
            pass
    with budget.take(1):
        assert budget.held == 1


def test_a_large_one_is_not_overtaken_for_ever() -> None:
    budget = Budget(10)
    order: list[str] = []
    entered = threading.Event()

    def large() -> None:
        entered.set()
        with budget.take(10):
            order.append("large")

    def small() -> None:
        with budget.take(1):
            order.append("small")

    with budget.take(5):
        first = threading.Thread(target=large)
        first.start()
        assert entered.wait(WAIT)
        while not budget._line:  # it stands in the line once it has asked
            pass
        second = threading.Thread(target=small)
        second.start()
        with pytest.raises(BusyError), budget.take(1, patience=0.01):
            pass
    for thread in (first, second):
        thread.join(WAIT)
    assert order == ["large", "small"]


def test_an_error_gives_back_what_was_held() -> None:
    budget = Budget(10)
    with pytest.raises(ZeroDivisionError), budget.take(10):
        raise ZeroDivisionError
    assert budget.held == 0
