"""How much memory the process takes, and sizes of memory as people write them."""

from __future__ import annotations

import re
from pathlib import Path

from reconpatch.errors import SettingsError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """A size such as 2GiB, 512M or 1500000000; units are powers of 1,024.

    Raises:
        SettingsError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"the memory is {text!r}: give a size such as 2GiB or 800MiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def resident_bytes() -> int:
    """Memory that the process takes now; where that is not told, the most it took so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        import resource

        return pages * resource.getpagesize()
    except (OSError, ImportError):
        return peak_bytes()


def physical_bytes() -> int:
    """The machine's memory; a great deal where the system does not tell."""
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**62


def peak_bytes() -> int:
    """The most memory that the process took so far; 0 where the system does not tell."""
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
