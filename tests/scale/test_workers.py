"""Many workers: what `--on` may say, and that no task is lost with its worker."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path

import pytest

from reconpatch.errors import MissingExtraError, PhotoError, SettingsError, WorkersError
from reconpatch.scale.workers import LOCAL, as_finished, check_on, on_ray


@pytest.mark.parametrize(
    ("text", "address"),
    [("ray", LOCAL), ("ray://auto", "auto"), ("ray://head.line3:6379", "head.line3:6379")],
)
def test_where_it_runs(text: str, address: str) -> None:
    assert check_on(text) == address


@pytest.mark.parametrize(
    "text", ["", "Ray", "ray://", "ray:", "dask", "ray://host", "spark://host:7077", "auto"]
)
def test_anywhere_else_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="give ray for a cluster of this machine's cores") as e:
        check_on(text)
    assert repr(text) in str(e.value)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"reconpatch\[ray\]"), on_ray("ray"):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_where_no_cluster_answers(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    # Another test's cluster is not the one that is asked for here.
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(WorkersError, match=f"could not be reached at {address}"):  # noqa: SIM117
        with on_ray(f"ray://{address}"):
            pass


def test_a_missing_extra_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("fit", "train")))
    assert str(error) == str(MissingExtraError("fit", "train"))


def squared(x: int) -> int:
    return x * x


def dying_once(mark: Path) -> str:
    """Die the first time, after a trace of it is left; live the second time."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def always_dying(x: int) -> int:
    if x == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def refusing(x: int) -> int:
    raise PhotoError(f"photo {x} cannot be read")


@pytest.mark.usefixtures("ray_cluster")
class TestOnACluster:
    def test_every_task_is_done_once(self) -> None:
        done = list(as_finished(squared, range(20)))
        assert sorted(done) == [(i, i * i) for i in range(20)]
        assert list(as_finished(squared, [])) == []

    def test_a_task_whose_worker_died_is_done_by_another(self, tmp_path: Path) -> None:
        marks = [tmp_path / name for name in "abc"]
        assert sorted(as_finished(dying_once, marks)) == [(i, "done") for i in range(3)]

    def test_a_task_that_kills_every_worker_costs_no_other(self) -> None:
        done = dict(as_finished(always_dying, range(3), retries=1))
        assert (done[0], done[2]) == (0, 2)
        assert isinstance(done[1], WorkersError)
        assert str(done[1]).startswith("each of the 2 workers that tried this died")

    def test_a_refusal_is_raised_as_it_was(self) -> None:
        with pytest.raises(PhotoError, match=r"^photo 7 cannot be read$"):
            list(as_finished(refusing, [7]))

    def test_a_connection_is_used_and_kept(self) -> None:
        with on_ray("ray"):
            assert list(as_finished(squared, [3])) == [(0, 9)]
        assert list(as_finished(squared, [3])) == [(0, 9)]
