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

EVERY = 0.1  # seconds between two looks at the memory


class Watched(NamedTuple):
    """What a process came to.

    Attributes:
        code: its exit code.
        seconds: from its start to its exit.
        peak: bytes that it and all its children took together, at most: what they share counts
            once, and it is looked at every 0.1 s; never less than the largest resident set of one.
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
            most = max(most, sum(map(proportional, descendants(root))))

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


def proportional(process: int) -> int:
    """Bytes of its proportional set: a page that n processes share counts 1 / n; 0 if it ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
