"""How much memory the process takes and keeps, and sizes of memory as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

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


def machine_bytes(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Memory that the process may take: the machine's, or less where a cgroup limits it.

    Containers and services have their limits from cgroups, of version 1 or 2.

    Args:
        membership: the groups of the process, as the kernel lists them.
        root: where the tree of groups is mounted.
    """
    return min([physical_bytes(), *_cgroup_limits(membership, root)])


def _cgroup_limits(membership: Path, root: Path) -> Iterator[int]:
    """The limits of the process's groups and of those above them."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)  # "0::/a/b" of version 2, "4:memory:/a/b" of 1
        if not controllers:
            trees, name = [root, root / "unified"], "memory.max"
        elif "memory" in controllers.split(","):
            trees, name = [root / "memory", root / controllers], "memory.limit_in_bytes"
        else:
            continue
        # A container may see its own group as the root, whatever path the kernel tells of it.
        places = [PurePosixPath(group.lstrip("/")), *PurePosixPath(group.lstrip("/")).parents]
        for folder in (tree / place for tree in dict.fromkeys(trees) for place in places):
            with suppress(OSError, ValueError):  # "max", or no such group here
                yield int((folder / name).read_text())


def peak_bytes() -> int:
    """The most memory that the process took so far; 0 where the system does not tell."""
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def bound_heaps() -> None:
    """Keep little of what is freed, where the C library is glibc; before threads are started.

    By itself glibc gives threads heaps of their own, up to eight for each core, and comes to take
    buffers of up to 32 MB from them, as those of photos are. What is freed there stays with the
    process, more of it the more the sizes of photos differ. Of two heaps and buffers below 8 MB,
    that is little; larger buffers go back to the system.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1  # as malloc.h numbers them
    mallopt(arena_max, 2)
    mallopt(mmap_threshold, 8 * 2**20)
    mallopt(trim_threshold, 16 * 2**20)
