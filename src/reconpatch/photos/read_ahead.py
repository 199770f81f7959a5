"""Work on a few things ahead, in threads, while what comes first is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`map`, with up to `threads` items worked on ahead; an error comes where its item would.

    Decoding and resizing let go of Python's lock, so they go on beside the engine. No more than
    twice as many results as threads wait at any time, so photos do not pile up.

    Args:
        work: what to do with an item.
        items: taken one after the other, as there is room.
        threads: 1 or more.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, "read-ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever stops listening does not wait for what is not begun
            for future in waiting:
                future.cancel()
