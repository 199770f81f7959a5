"""A process of a benchmark with all that it starts: its seconds, and the most memory they took."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

EVERY = 0.02  # seconds between two looks at the memory


class Watched(NamedTuple):
    """What a process came to.

    Attributes:
        code: its exit code.
        seconds: from its start to its exit.
        peak: bytes that it and all its children took together, at most; looked at every 20 ms, and
            never less than the largest resident set of any one of them.
    """

    code: int
    seconds: float
    peak: int


def watch(
    command: Sequence[str], out: IO[bytes], err: IO[bytes] | int, environment: Mapping[str, str]
) -> Watched:
    """Run a command to its end."""
    most, ended = 0, threading.Event()

    def look(root: int) -> None:
        nonlocal most
        while not ended.wait(EVERY):
            most = max(most, sum(map(resident, descendants(root))))

    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
    looking = threading.Thread(target=look, args=(process.pid,))
    looking.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    ended.set()
    looking.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Watched(process.returncode, seconds, max(most, usage.ru_maxrss * 1024))


def descendants(root: int) -> list[int]:
    """A process and all that it has started, as far as they still run."""
    found = [root]
    for process in found:
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def resident(process: int) -> int:
    """Bytes of its resident set; 0 of one that has ended."""
    with suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
