"""What `benchmarks/vs_anomalib.py` makes of its measurements."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import REPOSITORY, save, textured
from reconpatch.fitting.ensemble import parts_of
from reconpatch.fitting.options import FitOptions
from reconpatch.memory import peak_bytes


def script(name: str) -> ModuleType:
    folder = REPOSITORY / "benchmarks"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # scripts import each other by their names
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def watched() -> ModuleType:
    return script("watched")


@pytest.fixture(scope="module")
def versus() -> ModuleType:
    return script("vs_anomalib")


@pytest.fixture(scope="module")
def side() -> ModuleType:
    return script("side")


def plan(versus: ModuleType, folder: Path, **changes: Any) -> Any:
    values = {
        "photos": folder / "part", "pythons": dict.fromkeys(("anomalib", "reconpatch"),
        sys.executable), "output": folder / "out.json", "size": 224, "threads": 1, "count": 3,
        "rounds": 1, "fit_options": (), "anomalib_env": {},
    }  # fmt: skip
    return versus.Plan(**(values | changes))


# --- The comparison -------------------------------------------------------------------------------


def test_sides_take_turns_and_change_who_is_first(versus: ModuleType) -> None:
    keys = versus.wanted(["fit", "size"], ["lite0-1"], 2)
    assert [(key.part, key.side, key.repeat) for key in keys] == [
        ("fit", "anomalib", 0), ("fit", "reconpatch", 0),
        ("fit", "reconpatch", 1), ("fit", "anomalib", 1),
        ("size", "anomalib", 0), ("size", "reconpatch", 0),
    ]  # fmt: skip


def test_unknown_row_is_refused(versus: ModuleType) -> None:
    with pytest.raises(SystemExit, match="lite9 is none of fit, inspect"):
        versus.wanted(["fit"], ["lite9"], 1)


def test_table_has_medians_spread_and_share(versus: ModuleType) -> None:
    records = {
        versus.Key("fit", "lite0-1", side, i): {"seconds": s, "peak_megabytes": 10.0 * s}
        for side, times in {"anomalib": [100, 80, 120], "reconpatch": [8, 10, 12]}.items()
        for i, s in enumerate(times)
    }
    table = versus.as_table(records).splitlines()
    assert table[2] == "| fit, s | lite0-1 | 100 (80 to 120) | 10 (8 to 12) | 0.100 | 3, 3 |"
    assert table[3].startswith("| fit, peak MB | lite0-1 | 1000 (800 to 1200) | 100 ")


def test_table_counts_in_bare_backbones(versus: ModuleType) -> None:
    ours = {"backbone": [4.0, 4.0, 9.0], "prepared": [8.0], "memory": [12.0], "file": [20.0],
            "decode": [6.0], "prepare": [1.0]}  # fmt: skip
    theirs = {step: [40.0] for step in (*ours, "engine")}
    records = {
        versus.Key("inspect", "lite0-1", side, 0): {"milliseconds": times, "peak_megabytes": 1.0}
        for side, times in (("anomalib", theirs), ("reconpatch", ours))
    }
    table = versus.as_table(records)
    assert "| prepared, in bare backbones | lite0-1 | | 2 | | 1 |" in table
    assert "| from file, ms (Engine.predict) | lite0-1 | 40 | 20 | 0.500 | 1, 1 |" in table


def test_half_a_comparison_gives_no_line(versus: ModuleType) -> None:
    records = {
        versus.Key("fit", "lite0-1", "reconpatch", 0): {"seconds": 1.0, "peak_megabytes": 1.0}
    }
    assert len(versus.as_table(records).splitlines()) == 2


def test_file_is_read_back_and_other_settings_are_refused(
    versus: ModuleType, tmp_path: Path
) -> None:
    key = versus.Key("import", "", "anomalib", 0)
    versus.write(plan(versus, tmp_path), {key: {"seconds": 2.5}})
    assert versus.opened(plan(versus, tmp_path)) == {key: {"seconds": 2.5}}
    with pytest.raises(SystemExit, match="other settings"):
        versus.opened(plan(versus, tmp_path, threads=2))


def test_process_is_timed_with_its_peak_memory(versus: ModuleType, tmp_path: Path) -> None:
    ran = versus.run(
        plan(versus, tmp_path), "reconpatch",
        ["-c", "import os; b = bytes(100_000_000) + b'1'; print(os.environ['OMP_NUM_THREADS'])"],
    )  # fmt: skip
    assert ran.output == "1\n"
    # A process that is started counts what the one that starts it takes, until it is on its own.
    assert 100 < ran.peak_megabytes < max(1000, 1.01 * peak_bytes() / 1e6)
    assert ran.seconds > 0


def test_failure_of_a_side_is_told_with_what_it_said(versus: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"ended with 3:\nno such luck"):
        versus.run(
            plan(versus, tmp_path), "anomalib",
            ["-c", "import sys; print('no such luck', file=sys.stderr); sys.exit(3)"],
        )  # fmt: skip


def test_photos_inspected_are_spread_over_the_test_folder(
    versus: ModuleType, tmp_path: Path
) -> None:
    for i in range(7):
        save(textured(i, 32, 32), tmp_path / "part" / "test" / "good" / f"{i}.png")
    assert [path.name for path in plan(versus, tmp_path).to_inspect()] == [
        "0.png",
        "2.png",
        "4.png",
    ]


def test_first_round_is_not_counted(side: ModuleType) -> None:
    order: list[tuple[str, str]] = []
    steps = {name: lambda photo, name=name: order.append((name, photo.name)) for name in "ab"}
    times = side.timed(steps, [Path("x"), Path("y")], rounds=2)
    assert order == 3 * [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")]
    assert {name: len(found) for name, found in times.items()} == {"a": 4, "b": 4}


def test_what_a_package_needs_is_followed_through_extras(side: ModuleType) -> None:
    bare, train = side.needed("reconpatch"), side.needed("reconpatch[train]")
    assert {"reconpatch", "numpy", "onnxruntime", "pydantic-core"} <= bare
    assert "torch" not in bare
    assert bare | {"torch", "timm"} <= train


def test_footprint_of_an_editable_install_counts_the_package(side: ModuleType) -> None:
    source = REPOSITORY / "src" / "reconpatch"
    least = sum(path.stat().st_size for path in source.rglob("*.py")) / 1e6
    assert side.footprint({"reconpatch"})["megabytes"] >= 0.9 * least


def test_the_memory_of_a_process_counts_those_it_starts(
    watched: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both processes hold their memory until the child's was looked at."""
    seen = tmp_path / "seen"
    child = (
        "import os, sys, time; held = bytearray(60_000_000)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)"
    )
    parent = (
        "import subprocess, sys; held = bytearray(80_000_000); child = [sys.executable, '-c', "
        f"{child!r}, sys.argv[1]]; sys.exit(subprocess.run(child).returncode + 3)"
    )
    proportional, looked_at = watched.proportional, []

    def looked(process: int) -> int:
        looked_at.append(process)
        found = proportional(process)
        if process != looked_at[0] and found > 60_000_000:
            seen.touch()
        return found

    monkeypatch.setattr(watched, "proportional", looked)
    ran = watched.watch(
        [sys.executable, "-c", parent, str(seen)],
        subprocess.DEVNULL, subprocess.DEVNULL, os.environ,
    )  # fmt: skip
    assert ran.code == 3
    assert ran.peak > 140_000_000
    assert ran.seconds > watched.EVERY  # it was looked at


# --- The experiment bench -------------------------------------------------------------------------


def test_every_variant_of_the_bench_is_a_fit_that_can_be_made() -> None:
    bench = script("representation")
    for variant in bench.VARIANTS:
        members, options = parts_of("default", bench.settings_of(variant, 7))
        assert {member.seed for member in members} == {7}, variant
        assert options == FitOptions(), variant
        assert len(members) == (2 if variant == "best" else 1)
