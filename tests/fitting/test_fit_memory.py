"""What a fit takes, where it keeps its features, and what it approximates."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import reconpatch
from conftest import REPOSITORY, SMALL_FIT, fill
from reconpatch.cli.main import app
from reconpatch.errors import SettingsError
from reconpatch.features import store as patch_store
from reconpatch.fitting import memory as fit_memory
from reconpatch.fitting.memory import ENGINE_BYTES, GIB, MIB, Fit, open_store
from reconpatch.method.settings import settings_for
from reconpatch.model.model import Model

LITE, WIDE = 384, 1536  # of the default, principal directions; of levels 2 and 3
LIBRARIES = 250 * MIB
TORCH = 700 * MIB  # which writes the graph of the paper's backbone


def sized(photos: int, places: int, channels: int, **changes: Any) -> Fit:
    recipe = changes.pop("recipe", "default")
    return Fit(settings_for(recipe, **changes), photos, places, channels, photos)


def paper_480(photos: int) -> Fit:
    return sized(photos, 60 * 60, WIDE, recipe="paper", size=480, resize=548)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of every store that is opened, which then holds one photo."""
    found: list[dict[str, Any]] = []

    def store(photos: int, places: int, channels: int, **options: Any) -> patch_store.PatchStore:
        found.append(options)
        return patch_store.PatchStore(1, places, channels, **options)

    monkeypatch.setattr(fit_memory, "PatchStore", store)
    monkeypatch.setattr(fit_memory, "resident_bytes", lambda: LIBRARIES)
    monkeypatch.setattr(fit_memory, "_check_disk", lambda *_: None)
    return found


def on_machine(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    monkeypatch.setattr(fit_memory, "machine_bytes", lambda: int(gib * GIB))


# --- Equal settings, equal models -----------------------------------------------------------------


@pytest.mark.parametrize(
    "fit",
    [
        sized(209, 1600, LITE),
        sized(20_000, 1600, LITE, bank=1600),
        sized(12_701, 1600, LITE, bank=1600, steps=100),
        sized(3_000, 12_000, LITE, bank=8000.0, candidates=400_000),
        sized(1_000, 784, WIDE, recipe="paper"),
        paper_480(391),
    ],
)
def test_8_and_64_gib_approximate_the_same(
    fit: Fit, opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = []
    for gib in (8, 64):
        on_machine(monkeypatch, gib)
        stores.append(open_store(fit, 0))
    small, large = stores
    assert small.at_hand == large.at_hand == patch_store.MOST_AT_HAND
    assert small.addressable
    assert large.addressable


def test_what_does_not_fit_in_memory_is_in_a_file(
    opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for gib, mapped in ((64, False), (12, False), (11, True), (8, True)):
        on_machine(monkeypatch, gib)
        assert open_store(paper_480(391), 0).in_memory is not mapped


def test_a_model_is_the_same_wherever_its_features_were(
    good_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory and in a mapped file, in one piece and in parts."""
    for most in (2**22, 200):
        monkeypatch.setattr(patch_store, "MOST_AT_HAND", most)
        models = []
        for share in (1.0, 0.0):
            monkeypatch.setattr(fit_memory, "MACHINE_SHARE", share)
            models.append(reconpatch.fit(good_folder, **{**SMALL_FIT, "guard": True, "defects": 4}))
        here, there = models
        assert isinstance(here, Model)
        assert isinstance(there, Model)
        assert here.fingerprint == there.fingerprint
        assert here.threshold == there.threshold
        np.testing.assert_array_equal(here.bank.rows, there.bank.rows)
        assert here.provenance["notes"] == there.provenance["notes"]
        in_parts = [note for note in here.provenance["notes"] if "coreset of coresets" in note]
        assert len(in_parts) == (most == 200)


@pytest.mark.parametrize("resident", [200 * MIB, 1200 * MIB])
def test_a_limit_means_the_same_whatever_the_process_holds(
    resident: int, opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_memory, "resident_bytes", lambda: resident)
    store = open_store(sized(20_000, 1600, LITE, bank=1600), 4 * GIB)
    assert store.at_hand == 4 * GIB // 5 // (LITE * 4)


def test_what_is_approximated_is_in_the_output_in_info_and_in_the_file(
    good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_store, "MOST_AT_HAND", 300)
    model = tmp_path / "part.rcp"
    options = ["--weights", "random", "--size", "64", "--method", "patchcore", "--bank", "50"]
    done = CliRunner().invoke(app, ["fit", str(good_folder), "-o", str(model), *options])
    assert done.exit_code == 0, done.output
    said = "it was picked among 512 patches in parts of 300 at most"
    assert said in " ".join(done.output.split())
    assert said in " ".join(CliRunner().invoke(app, ["info", str(model)]).output.split())
    assert any(said in note for note in reconpatch.load(model).provenance["notes"])


@pytest.mark.parametrize(
    ("patches", "at_hand", "addressable", "changes", "said"),
    [
        (2**22, 2**22, True, {}, []),
        (2**22 + 1, 2**22, True, {}, ["in parts of 4,194,304 at most"]),
        (
            2**22 + 1,
            2**22,
            True,
            {"candidates": 1000, "bank": 10},
            ["among 1,000 of the 4,194,305"],
        ),
        (900, 500, False, {}, ["learned from 500 of the 900", "900 patches in parts of 500"]),
        (900, 500, False, {"method": "patchcore"}, ["900 patches in parts of 500"]),
        (400, 500, False, {}, []),
    ],
)
def test_what_is_approximated(
    patches: int, at_hand: int, addressable: bool, changes: dict[str, Any], said: list[str]
) -> None:
    store: Any = SimpleNamespace(patches=patches, at_hand=at_hand, addressable=addressable)
    notes = list(fit_memory.approximations(store, settings_for(**changes)))
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


def test_candidates_are_said(good_folder: Path) -> None:
    model = reconpatch.fit(good_folder, **{**SMALL_FIT, "candidates": 100, "bank": 20})
    [note] = model.provenance["notes"]
    assert note == "The bank was picked among 100 of the 512 patches, drawn at random."


# --- What does not fit ----------------------------------------------------------------------------


def test_the_largest_category_of_the_paper_at_480_by_hand() -> None:
    fit = paper_480(391)
    p, r = 391 * 3600 * 1536 * 4, 391 * 3600 * 512 * 4
    assert fit.feature_bytes == p == 8_648_294_400
    # r takes the place of p, and of a bank of 1 % little is beside it: most is taken before that.
    assert fit.memory("memory") == p + 2**13 * (1536 + 512) * 4
    total = fit.memory("memory") + LIBRARIES + ENGINE_BYTES + TORCH
    assert total / GIB == pytest.approx(9.3, abs=0.1)
    assert fit.disk("mapped") == p + r
    assert fit.disk("memory") == 0
    # In a file, the projection of all patches is what has to be in memory.
    assert fit.memory("mapped") < 1.5 * GIB


def test_a_fit_that_is_too_large_for_the_machine_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = fill(tmp_path / "good", range(4))
    on_machine(monkeypatch, 0.2)
    options = ["--weights", "random", "--size", "64", "--method", "patchcore"]
    done = CliRunner().invoke(app, ["fit", str(good), "-o", str(tmp_path / "a.rcp"), *options])
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert re.search(r"Error: the fit takes about \S+ [MG]iB of memory for 4 photos", said)
    assert "this machine or its container has 205 MiB" in said
    assert not (tmp_path / "a.rcp").exists()


def test_a_large_bank_does_not_fit_either(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, 6)
    with pytest.raises(SettingsError, match="a smaller --size or --bank"):
        open_store(sized(2_000, 1600, LITE, bank=0.9), 0)


def test_temporary_files_that_do_not_fit_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, 8)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=GIB))
    with pytest.raises(SettingsError, match=r"take 10\.7 GiB in temporary files, .* 1\.0 GiB free"):
        open_store(paper_480(391), 0)
    with pytest.raises(SettingsError, match=r"take 10\.7 GiB in temporary files"):
        open_store(paper_480(391), 6 * GIB)


@pytest.mark.parametrize("fit", [sized(400, 1600, LITE), sized(20_000, 1600, LITE), paper_480(391)])
def test_the_limit_that_is_asked_for_is_enough(
    fit: Fit, opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="the memory limit is 1 MiB") as caught:
        open_store(fit, MIB)
    asked = re.search(r"give (\d+) MiB or more", str(caught.value))
    assert asked is not None
    least = int(asked[1]) * MIB
    open_store(fit, least)
    with pytest.raises(SettingsError, match="the memory limit is"):
        open_store(fit, least // 2)


# --- docs/limits.md -------------------------------------------------------------------------------

ROWS = {
    "default, 224": sized(1, 28 * 28, LITE, size=224),
    "default, 320": sized(1, 40 * 40, LITE, size=320),
    "default, 448": sized(1, 56 * 56, LITE, size=448),
    "paper, 224": sized(1, 28 * 28, WIDE, recipe="paper"),
    "paper, 480": paper_480(1),
}


def test_the_table_of_memory_is_what_is_worked_out() -> None:
    page = (REPOSITORY / "docs" / "limits.md").read_text("utf-8")
    found = {
        cells[0]: cells[1:]
        for line in page.splitlines()
        if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0] in ROWS
    }
    assert found.keys() == ROWS.keys()
    for name, one in ROWS.items():
        libraries = LIBRARIES + ENGINE_BYTES + TORCH * name.startswith("paper")
        expected = [f"{one.feature_bytes / 1e6:.1f} MB"]
        for photos in (100, 400, 1000, 10_000):
            fit = replace(one, photos=photos, kept=photos)
            here, file = (libraries + fit.memory(where) for where in ("memory", "mapped"))
            expected.append(f"{here / 1e9:.1f}; {file / 1e9:.1f} + {fit.disk('mapped') / 1e9:.1f}")
        assert found[name] == expected, name
