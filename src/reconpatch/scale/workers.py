"""Many workers, by Ray: the one place that knows about `--on`.

    --on ray             a cluster of this machine's cores, which starts and ends with the command
    --on ray://ADDRESS   one that is there already; ADDRESS is what `ray.init` takes: HOST:PORT of
                         its head, or auto for the cluster that this machine is a node of

What is done there is cut into tasks that know nothing of each other. Ray hands them out, runs the
tasks of a worker that died on another one, and is not imported before it is asked for. A task takes
one core unless it is given more, and should keep its engine to as many threads.

Of a cluster of several machines, each needs this package in the same version, and the photos and
results under the same paths.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from reconpatch.errors import MissingExtraError, ReconPatchError, SettingsError, WorkersError

if TYPE_CHECKING:
    from types import ModuleType

Task = TypeVar("Task")
Value = TypeVar("Value")

LOCAL, AUTO = "local", "auto"
RETRIES = 3
"""How often a task is tried again whose worker died."""

_SECONDS_TO_ANSWER = 10

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Whether a task without a GPU sees one is a warning of every start, and concerns no task here.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray would try a task for ever that takes more memory than there is.
    "RAY_task_oom_retries": str(RETRIES),
    # What goes wrong is raised; beside it, Ray would print concerns of its own among our lines.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def check_on(text: str) -> str:
    """The address that `ray.init` takes for what `--on` says: "local" for a cluster of its own.

    Raises:
        SettingsError: it is neither ray nor ray://ADDRESS.
    """
    if text == "ray":
        return LOCAL
    scheme, _, address = text.partition("://")
    if scheme != "ray" or not (address == AUTO or re.fullmatch(r"[^/]+:\d+", address)):
        raise SettingsError(
            f"--on is {text!r}: give ray for a cluster of this machine's cores, or ray://ADDRESS "
            "for one that is there already, such as ray://HOST:6379 or ray://auto"
        )
    return address


@contextmanager
def on_ray(on: str) -> Iterator[None]:
    """Be connected to a Ray cluster inside the `with`; what was started for it is ended after it.

    A program that is connected already keeps its connection, and it is used.

    Args:
        on: what `--on` says; see `check_on`.

    Raises:
        SettingsError: `on` is neither ray nor ray://ADDRESS.
        MissingExtraError: the extra "ray" is not installed.
        WorkersError: no cluster answers there, or none can be started.
    """
    address = check_on(on)
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    try:
        if address not in (LOCAL, AUTO):  # Ray itself would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
        ray.init(
            address=address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # a node that does not start is a bare one
        reason = " ".join(str(error).split()) or type(error).__name__
        where = "start on this machine" if address == LOCAL else f"be reached at {address}"
        raise WorkersError(
            f"a Ray cluster could not {where} ({reason}): see that it runs with this version of "
            "Ray and Python, or give --on ray for one on this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def as_finished(
    work: Callable[[Task], Value],
    tasks: Sequence[Task],
    *,
    cpus: int = 1,
    retries: int = RETRIES,
) -> Generator[tuple[int, Value | WorkersError], None, None]:
    """Run a function on every task, on the cluster that `on_ray` connected to.

    What is still running when the iterator is left (Ctrl-C, an error) is stopped.

    Args:
        work: a function of a module, which the workers import. It may be run again for a task
            whose worker died, so it leaves nothing half-done behind.
        tasks: what to run it on; they and the values go through pickle.
        cpus: cores that each task takes.
        retries: how often a task is tried again whose worker died.

    Yields:
        The index of each task and its value, as they finish; or a WorkersError in its place where
        every worker that tried it died.

    Raises:
        ReconPatchError: `work` raised it.
    """
    ray = _ray()
    remote = ray.remote(num_cpus=cpus, max_retries=retries)(_guarded)
    index = {remote.remote(work, task): i for i, task in enumerate(tasks)}
    try:
        while index:
            (done,), _ = ray.wait(list(index), num_returns=1)
            yield index.pop(done), _value(ray, done, retries)
    finally:
        if ray.is_initialized():  # or ray.cancel would start a cluster of its own
            for reference in index:
                ray.cancel(reference, force=True)


def _guarded(work: Callable[[Task], Value], task: Task) -> Value | ReconPatchError:
    """What a worker runs: errors of this package come back as values, without Ray's traceback."""
    try:
        return work(task)
    except ReconPatchError as error:
        return error


def _value(ray: ModuleType, reference: Any, retries: int) -> Any:
    try:
        value = ray.get(reference)
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
    ) as error:
        return WorkersError(
            f"each of the {retries + 1} workers that tried this died ({type(error).__name__}): the "
            "memory is the likely reason; give tasks more of it, with fewer workers or smaller "
            "settings, and run the command again"
        )
    except ray.exceptions.RaySystemError as error:
        reason = str(error).strip().splitlines()[-1]
        raise WorkersError(
            f"the workers cannot run what they were given ({reason}): every machine of the cluster "
            "needs this version of reconpatch, with the extra that the command needs"
        ) from error
    if isinstance(value, ReconPatchError):
        raise value
    return value


def _ray() -> ModuleType:
    for name, value in _QUIET.items():  # read when ray is imported, and by what it starts
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--on ray", "ray") from None
    return ray
