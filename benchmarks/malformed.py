"""Malformed requests to the service: none may end in a 500, and memory has to stay flat.

    python benchmarks/malformed.py                  # 2,000 requests
    python benchmarks/malformed.py --requests 200

schemathesis reads the service's own description and makes requests that break it in every place,
and some that keep it; beside them go photos that are damaged, forms that break off, and bytes that
are no HTTP at all. Prints how many answers there were of each status, what the service's memory was
before, in the middle and at the end, and which requests, if any, had an answer that they must not
have. Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hypothesis
import requests
import schemathesis
from serving import megabytes, photo, serving, small_model
from soak_photos import mutated

API = "/api/v1"
Check = Callable[[str, int, str], None]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=2_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_model(folder / "part.rcp", 96)
        wrong, _ = served(folder / "part.rcp", folder, given.requests, given.seed)
    for line in wrong:
        print("WRONG", line)
    sys.exit(1 if wrong else 0)


def served(model: Path, folder: Path, count: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Send the requests to a service of a model; what was wrong, and the answers by status."""
    log = folder / "log"
    options = ("--data", folder / "data", "--port", 0, "--max-bytes", 1_000_000)
    with serving(model, *options, log=log) as (process, url):
        wrong, statuses = run(url, count, seed, lambda: megabytes(process))
        assert requests.get(f"{url}{API}/health", timeout=60).json()["status"] == "ok"
    if "Traceback" in (said := log.read_text()):
        wrong.append(f"there is a traceback in the log: {said[said.index('Traceback') :][:5_000]}")
    return wrong, statuses


def run(
    url: str, count: int, seed: int, memory: Callable[[], float]
) -> tuple[list[str], Counter[str]]:
    """Send the requests; what was wrong, and the answers by status."""
    wrong: list[str] = []
    statuses: Counter[str] = Counter()

    def check(what: str, status: int, text: str) -> None:
        statuses[f"{status}"] += 1
        if status >= 500 and status != 503:
            wrong.append(f"{status} {what}: {text[:200]}")

    content = photo(1, 96)
    for _ in range(50):  # what is opened once is open before memory is read
        requests.post(f"{url}{API}/inspect", data=content, timeout=60).raise_for_status()
    seen = [memory()]
    for half in (0, 1):
        described(url, count * 4 // 10, seed + half, check)
        damaged(url, mutated(count // 20, seed + half), check)
        raw(url, count // 20, random.Random(seed + half), check)
        seen.append(memory())
    print("answers:", ", ".join(f"{n} x {status}" for status, n in sorted(statuses.items())))
    print(f"in all {sum(statuses.values())}, other than 503 and from 500 on: {len(wrong)}")
    print("memory, MB:", " -> ".join(f"{value:.0f}" for value in seen))
    return wrong, statuses


def described(url: str, count: int, seed: int, check: Check) -> None:
    """Requests made from the service's description: three in four break it."""
    schema = schemathesis.openapi.from_url(f"{url}{API}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    modes = schemathesis.GenerationMode
    each = max(1, count // (4 * len(operations)))
    for operation in operations:
        for mode, some in ((modes.NEGATIVE, 3 * each), (modes.POSITIVE, each)):
            for case in generated(operation, mode, some, seed):
                answer = case.call(base_url=url, timeout=60)
                check(
                    f"{case.method} {case.formatted_path}",
                    answer.status_code,
                    str(answer.content[:200]),
                )


def generated(operation: Any, mode: Any, count: int, seed: int) -> Iterator[Any]:
    """Requests of one route, the same for the same seed."""
    cases: list[Any] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        cases.append(case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            collect()
        except (hypothesis.errors.Unsatisfiable, schemathesis.errors.SchemathesisError):
            return  # a route without anything to break
    yield from cases[:count]


def damaged(url: str, photos: Iterable[bytes], check: Check) -> None:
    """Damaged photos, as raw bytes and, every third, in forms."""
    for i, broken in enumerate(photos):
        if i % 3:
            answer = requests.post(f"{url}{API}/inspect", data=broken, timeout=600)
        else:
            files = [("files", (f"{i}\n\x00.png", broken))] * (1 + i % 4)
            answer = requests.post(f"{url}{API}/inspect-batch", files=files, timeout=600)
        check(f"damaged photo {i}", answer.status_code, str(answer.content[:200]))


def raw(url: str, count: int, rng: random.Random, check: Check) -> None:
    """Bytes on the wire: forms that break off, lengths that lie, and noise."""
    split = urlsplit(url)
    host = f"Host: {split.netloc}\r\n"
    form = "Content-Type: multipart/form-data; boundary=b\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    requests_ = [
        f"POST {API}/inspect HTTP/1.1\r\n{host}{form}Content-Length: 500\r\n\r\n{part}",
        f"POST {API}/inspect HTTP/1.1\r\n{host}{form}Content-Length: 5\r\n\r\n--b--",
        f"POST {API}/inspect HTTP/1.1\r\n{host}{form}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        f"POST {API}/inspect HTTP/1.1\r\n{host}Content-Length: -5\r\n\r\n",
        f"POST {API}/inspect HTTP/1.1\r\n{host}Content-Length: 99999999999999999999\r\n\r\n",
        f"GET {API}/records/%00%ff%0a HTTP/1.1\r\n{host}\r\n",
        f"GET {API}/records?product=%00&cursor=%f0%28 HTTP/1.1\r\n{host}\r\n",
        f"GET {API}/products/%ed%a0%80/scores HTTP/1.1\r\n{host}\r\n",
        f"POST {API}/inspect?name=%00%ed%a0%80 HTTP/1.1\r\n{host}Content-Length: 1\r\n\r\nx",
        f"GET /../../../etc/passwd HTTP/1.1\r\n{host}\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\n{host}{'X: y' * 30_000}\r\n\r\n",
    ]
    for _ in range(count):
        sent = bytearray(rng.choice(requests_).encode())
        for _ in range(rng.choice([0, 0, 1, 3])):
            sent[rng.randrange(len(sent))] = rng.randrange(256)
        with socket.create_connection((split.hostname, split.port), timeout=60) as wire:
            answer = b""
            try:
                wire.sendall(sent)
                wire.shutdown(socket.SHUT_WR)
                answer = wire.recv(65_536)
            except OSError:
                pass  # hung up on, as noise may be
        status = answer.split(b" ", 2)[1:2]
        if status and status[0].isdigit():
            check(repr(bytes(sent[:80])), int(status[0]), answer.decode("latin-1"))


if __name__ == "__main__":
    main()
