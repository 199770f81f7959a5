from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reconpatch import memory
from reconpatch.errors import SettingsError
from reconpatch.memory import bound_heaps, parse_bytes, peak_bytes, resident_bytes


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


# --- Containers ----------------------------------------------------------------------------------


def groups(tmp_path: Path, lines: str, limits: dict[str, str]) -> tuple[Path, Path]:
    """What the kernel says of a process's groups, and a tree of them with their limits."""
    membership, root = tmp_path / "cgroup", tmp_path / "sys"
    membership.write_text(lines)
    for name, text in limits.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return membership, root


SERVICE = "system.slice/station.service"
V1 = "11:cpu,cpuacct:/a\n4:memory:/docker/abc\n1:name=systemd:/a\n"
NO_LIMIT = "9223372036854771712\n"  # as version 1 says it


@pytest.mark.parametrize(
    ("lines", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "1000\n"}, 1000),
        (f"0::/{SERVICE}\n", {f"{SERVICE}/memory.max": "1000\n"}, 1000),
        (f"0::/{SERVICE}\n", {f"{SERVICE}/memory.max": "max\n"}, 8000),
        # A limit of the group above holds for all below it.
        (
            f"0::/{SERVICE}\n",
            {f"{SERVICE}/memory.max": "3000\n", "system.slice/memory.max": "2000\n"},
            2000,
        ),
        (f"0::/{SERVICE}\n", {f"{SERVICE}/memory.max": "9000\n"}, 8000),
        (f"0::/{SERVICE}\n", {f"{SERVICE}/memory.current": "7\n"}, 8000),
        ("0::/other\n", {f"{SERVICE}/memory.max": "1000\n"}, 8000),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": "1000\n"}, 1000),
        # A container sees its own group as the root of the tree.
        (V1, {"memory/memory.limit_in_bytes": "1000\n"}, 1000),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": NO_LIMIT}, 8000),
        (V1, {"cpu,cpuacct/a/memory.limit_in_bytes": "1000\n"}, 8000),
        ("3:cpu,memory:/x\n", {"cpu,memory/x/memory.limit_in_bytes": "1000\n"}, 1000),
        # Both versions at once: memory is a controller of one of them.
        (f"{V1}0::/x\n", {"memory/docker/memory.limit_in_bytes": "1000\n"}, 1000),
        ("0::/x\n", {"unified/x/memory.max": "1000\n"}, 1000),
        ("", {"memory.max": "1000\n"}, 8000),
    ],
)
def test_a_container_has_the_memory_of_its_group(
    lines: str,
    limits: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "physical_bytes", lambda: 8000)
    assert memory.machine_bytes(*groups(tmp_path, lines, limits)) == expected


def test_without_groups_it_is_the_machine_s(tmp_path: Path) -> None:
    found = memory.machine_bytes(tmp_path / "none", tmp_path)
    assert found == memory.physical_bytes()
    assert memory.machine_bytes() <= found


def test_memory_that_is_taken_counts() -> None:
    before = resident_bytes()
    block = np.ones(2**24)  # 128 MiB, written to
    assert resident_bytes() - before > 0.9 * block.nbytes
    assert peak_bytes() >= resident_bytes() - 2**20


# Twelve threads allocate at once, as those of a service do. Then a buffer of 20 MB is freed, which
# teaches glibc to take such buffers from a heap, and is asked for again.
HEAPS = """
import ctypes, sys, tempfile, threading
from reconpatch.memory import bound_heaps
if sys.argv[1:]:
    bound_heaps()
libc, size = ctypes.CDLL(None), ctypes.c_size_t
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(12)
def work():
    together.wait()
    for _ in range(1_000):
        libc.free(ctypes.c_void_p(libc.malloc(size(10_000))))
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.free(ctypes.c_void_p(libc.malloc(size(20_000_000))))
libc.malloc(size(20_000_000))
with tempfile.TemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fdopen(file.fileno(), b"w"))
    libc.malloc_info(0, stream)
    libc.fflush(stream)
    file.seek(0)
    print(file.read().decode())
"""


def heaps(*arguments: str) -> tuple[int, int]:
    """How many heaps a process has at its end, and how many bytes beside them."""
    done = subprocess.run(
        [sys.executable, "-c", HEAPS, *arguments], check=True, capture_output=True, encoding="utf-8"
    )
    beside = re.search(r'<total type="mmap" count="\d+" size="(\d+)"/>', done.stdout)
    assert beside is not None
    return done.stdout.count("<heap nr="), int(beside[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_heaps_are_few_and_hold_no_large_buffers() -> None:
    many, beside_many = heaps()
    few, beside_few = heaps("bound")
    assert (many > 3, few) == (True, 2)
    assert beside_few >= 20_000_000 > beside_many


def test_other_c_libraries_have_no_heaps_to_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    bound_heaps()
