"""`verify` and `bench` by exit code and output; times are checked for sense, not for speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import reconpatch
from conftest import SMALL_FIT, fill, save, textured
from conftest import command as run
from reconpatch.engine.engines import OnnxRuntimeEngine, engines_present
from reconpatch.errors import SettingsError
from reconpatch.export.timing import BATCHES, STEPS, time_engines
from reconpatch.model.model import Model


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("new") / "photos", range(200, 203))


def test_every_engine_is_verified_on_the_files_own_sample(small_model_file: Path) -> None:
    result = run("verify", small_model_file)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == len(engines_present())
    for line, name in zip(lines, engines_present(), strict=True):
        assert line.startswith(f"agrees     {name}: 0 of 16 verdicts differ")


def test_photos_of_the_user_are_compared(small_model_file: Path, photos: Path) -> None:
    result = run("verify", small_model_file, photos, "--engine", "onnxruntime", "--json")
    assert result.exit_code == 0
    (figures,) = json.loads(result.output).values()
    assert [(f["engine"], f["photos"], f["verdicts"]) for f in figures] == [("onnxruntime", 3, 0)]


def test_an_engine_that_disagrees_is_told(
    small_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OnnxRuntimeEngine.__call__

    def off(self: OnnxRuntimeEngine, given: Any, bank: Any) -> Any:
        found = right(self, given, bank)
        return found._replace(map=found.map * 1.01)

    monkeypatch.setattr(OnnxRuntimeEngine, "__call__", off)
    result = run("verify", small_model_file, "--engine", "onnxruntime")
    assert result.exit_code == 1
    assert result.output.startswith("DISAGREES  onnxruntime: 0 of 16 verdicts differ")


def test_each_member_of_an_ensemble_is_verified(tmp_path: Path) -> None:
    good = fill(tmp_path / "good", range(4))
    reconpatch.fit(good, **(SMALL_FIT | {"size": [(64, 64), (96, 96)]})).save(tmp_path / "two.rcp")
    result = run("verify", tmp_path / "two.rcp", "--engine", "onnxruntime")
    assert result.exit_code == 0
    assert [line.split(",")[0] for line in result.output.splitlines()] == [
        "agrees     tf_efficientnet_lite0 at 64",
        "agrees     tf_efficientnet_lite0 at 96",
    ]


def test_an_unknown_engine_is_an_error(small_model_file: Path) -> None:
    for command in ("verify", "bench", "inspect", "evaluate"):
        more = [small_model_file.parent] if command in ("inspect", "evaluate") else []
        result = run(command, small_model_file, *more, "--engine", "abacus")
        assert result.exit_code == 2
        assert "the engine is 'abacus': give one of onnxruntime, openvino" in result.output


def test_bench_prints_every_step_on_every_engine(small_model_file: Path, photos: Path) -> None:
    result = run("bench", small_model_file, photos, "--rounds", 1)
    assert result.exit_code == 0
    for text in (*STEPS, *engines_present(), "whole, from file", "photos a second, 16 at a time"):
        assert text in result.output
    assert "3 photos, 1 times each" in result.output


def test_bench_as_json_on_the_files_own_photos(small_model_file: Path) -> None:
    result = run("bench", small_model_file, "--rounds", 2, "--engine", "onnxruntime", "--json")
    assert result.exit_code == 0
    (times,) = json.loads(result.stdout.splitlines()[-1])
    assert (times["engine"], times["photos"], times["rounds"]) == ("onnxruntime", 8, 2)
    assert set(times["steps"]) == set(STEPS)
    assert 0 < times["steps"]["graph"]["median"] <= times["steps"]["graph"]["p99"]
    assert times["from_memory"]["median"] > times["steps"]["graph"]["median"] / 10
    assert {int(size) for size in times["photos_a_second"]} == set(BATCHES)
    assert all(speed > 0 for speed in times["photos_a_second"].values())


def test_a_model_without_photos_needs_some_to_be_timed(small_model: Model, tmp_path: Path) -> None:
    bare = small_model.with_samples([None])
    with pytest.raises(SettingsError, match="carries no photos to time: give some"):
        time_engines(bare, [], ["onnxruntime"])
    path = save(textured(300), tmp_path / "a.png")
    (times,) = time_engines(bare, [path], ["onnxruntime"], rounds=1)
    assert times.photos == 1
    with pytest.raises(SettingsError, match="give 1 or more"):
        time_engines(bare, [path], ["onnxruntime"], rounds=0)


def test_a_memory_limit_is_a_size(tmp_path: Path) -> None:
    good = fill(tmp_path / "good", range(2))
    result = run("fit", good, "-o", tmp_path / "a.rcp", "--memory-limit", "plenty")
    assert result.exit_code == 2
    assert "give a size such as 2GiB" in result.output
    result = run("fit", good, "-o", tmp_path / "a.rcp", "--memory-limit", "10MiB")
    assert result.exit_code == 2
    assert "the memory limit is 10 MiB" in result.output
    assert not (tmp_path / "a.rcp").exists()
