"""Serial numbers that were scanned for the next part of each product, until its photo comes.

They are held in memory: after a restart nobody knows which part lies there, so it is scanned again.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from reconpatch.station.records import Part


class NextParts:
    """The serial number of the next part of each product; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serials: dict[str, str] = {}

    def bind(self, product: str, serial: str | None) -> None:
        """The next photo of a product shows the part of this serial number; None: of none."""
        kept = Part.of(None, serial).serial
        with self._lock:
            if kept is None:
                self._serials.pop(product, None)
            else:
                self._serials[product] = kept

    def of(self, product: str) -> str | None:
        """The serial number that waits for a photo of a product."""
        with self._lock:
            return self._serials.get(product)

    def take(self, product: str, part: Part) -> Part:
        """The part of a photo that has come, with what was scanned if it brings no number."""
        with self._lock:
            if part.serial is not None or product not in self._serials:
                return part
            return replace(part, serial=self._serials.pop(product))

    def give_back(self, product: str, serial: str | None) -> None:
        """The photo came to no verdict: the number waits for another one, unless one is scanned."""
        if serial is not None:
            with self._lock:
                self._serials.setdefault(product, serial)
