from __future__ import annotations

import platform
import re
import subprocess
import sys

import numpy as np
import pytest

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
