"""A bound on what several threads hold at once, such as the bytes of decoded photos."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from reconpatch.errors import BusyError


class Budget:
    """So much may be held at once, by all together; whoever asks first is served first.

    What is larger than all of it is let in alone, so that nothing waits for ever.

    Args:
        most: how much, in whatever unit is asked for.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def held(self) -> int:
        """How much is held now."""
        return self._held

    @contextlib.contextmanager
    def take(self, size: int, *, patience: float | None = None) -> Iterator[None]:
        """Hold so much in the block.

        Args:
            size: how much.
            patience: seconds that one waits for it; None waits as long as it takes.

        Raises:
            BusyError: it did not come free in time.
        """
        place = object()
        with self._changed:
            self._line.append(place)
            free = self._changed.wait_for(lambda: self._is_next(place, size), patience)
            self._line.remove(place)
            self._changed.notify_all()
            if not free:
                raise BusyError(len(self._line) + 1, 2, "requests wait for memory: ask")
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()

    def _is_next(self, place: object, size: int) -> bool:
        fits = not self._held or self._held + size <= self._most
        return self._line[0] is place and fits
