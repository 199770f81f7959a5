"""A fit by workers: the fit of one process, but for the order of its work."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reconpatch
from conftest import SMALL_FIT, command, save, textured
from reconpatch.errors import PhotoError, SettingsError
from reconpatch.model import good_photos
from reconpatch.model.model import Model
from reconpatch.photos.images import read_photo
from reconpatch.photos.listing import list_photos
from reconpatch.scale import distributed_fit


def here(work: Any, tasks: Any, report: Any) -> list[Any]:
    """Stands in for Ray: tasks one after the other, which go through pickle as there."""
    return [pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(task))))) for task in tasks]


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same work in this process, which takes a tenth of the time."""
    monkeypatch.setattr(distributed_fit, "on_ray", lambda on: nullcontext())
    monkeypatch.setattr(distributed_fit, "_put", lambda value: value)
    monkeypatch.setattr(distributed_fit, "_get", lambda value: value)
    monkeypatch.setattr(distributed_fit, "_run", here)


def distances_to(model: Model, photos: Path) -> np.ndarray:
    """(n, P) of every patch of every photo to its nearest row, one after the other."""
    represented = [model.represent(read_photo(path)) for path in list_photos(photos)]
    every = [
        np.linalg.norm(model.bank.rows[None] - r[:, None], axis=2).min(axis=1) for r in represented
    ]
    return np.stack(every)


@pytest.fixture
def three_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 8 good photos in shares of 3, 3 and 2."""
    monkeypatch.setattr(distributed_fit, "SHARE", 3)


@pytest.mark.usefixtures("without_ray")
def test_one_share_is_the_fit_of_one_process(good_folder: Path, small_model: Model) -> None:
    model = reconpatch.fit(good_folder, **SMALL_FIT, on="ray")
    assert isinstance(model, Model)
    assert model.photos == small_model.photos
    assert model.provenance["data_sha256"] == small_model.provenance["data_sha256"]
    np.testing.assert_array_equal(model.representation.weight, small_model.representation.weight)
    assert len(model.bank) == len(small_model.bank)
    assert list(model.thumbnails) == list(small_model.thumbnails)


@pytest.mark.usefixtures("without_ray", "three_shares")
class TestSeveralShares:
    def test_cover_as_one_process_does(self, good_folder: Path, small_model: Model) -> None:
        model = reconpatch.fit(good_folder, **SMALL_FIT, on="ray")
        assert isinstance(model, Model)
        assert model.photos == small_model.photos
        # Photos go through the backbone in other batches, and so perhaps through other kernels:
        # what f learned is the same but for their rounding, which five steps can amplify.
        ours, theirs = model.representation.weight, small_model.representation.weight
        learned = theirs - np.eye(*theirs.shape, dtype=np.float32)
        assert np.linalg.norm(ours - theirs) <= 0.01 * np.linalg.norm(learned)
        # Rows are patches of the photos that they say they are of.
        represented = [model.represent(read_photo(path)) for path in list_photos(good_folder)]
        for row, photo, place in zip(
            model.bank.rows, model.bank.photo, model.bank.place, strict=True
        ):
            np.testing.assert_allclose(row, represented[photo][place], atol=1e-4)
        radius = model.provenance["coreset_radius"]
        assert radius == pytest.approx(distances_to(model, good_folder).max(), rel=1e-4)
        # Greedy selection is within twice the best there is, a coreset of coresets within four.
        assert radius <= 4 * small_model.provenance["coreset_radius"]
        assert any("read by workers in 3 shares" in note for note in model.provenance["notes"])

    def test_of_very_many_photos_some_are_scored_and_all_are_covered(
        self, good_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(distributed_fit, "CALIBRATED", 4)
        monkeypatch.setattr(good_photos, "CALIBRATED", 4)
        monkeypatch.setattr(distributed_fit, "SAMPLE", 100)
        model = reconpatch.fit(good_folder, **SMALL_FIT, on="ray")
        assert isinstance(model, Model)
        assert model.good.photos.tolist() == [0, 2, 5, 7]
        radius = model.provenance["coreset_radius"]
        assert radius == pytest.approx(distances_to(model, good_folder).max(), rel=1e-4)

    def test_the_guard_and_unreadable_photos(self, good_folder: Path, tmp_path: Path) -> None:
        folder = tmp_path / "good"
        for i in range(6):
            save(textured(i), folder / f"part{i}.png")
        (folder / "part1a.png").write_bytes(b"torn")
        given = {**SMALL_FIT, "guard": True, "defects": 4, "skip_unreadable": True}
        model = reconpatch.fit(folder, **given, on="ray")
        assert isinstance(model, Model)
        assert [photo.name for photo in model.photos] == [f"part{i}.png" for i in range(6)]
        assert model.provenance["guard"]["kept"] in ("learned", "identity")
        assert any("part1a.png" in note for note in model.provenance["notes"])
        with pytest.raises(PhotoError, match=r"part1a\.png.*Nothing was fitted"):
            reconpatch.fit(folder, **{**given, "skip_unreadable": False}, on="ray")

    def test_photos_of_16_bits_have_one_white_level(self, tmp_path: Path) -> None:
        for i in range(6):
            wide = textured(i)[:, :, 0].astype(np.uint16) * (4 if i < 5 else 15)
            save(wide, tmp_path / "good" / f"{i}.png")
        here = reconpatch.fit(tmp_path / "good", **SMALL_FIT)
        there = reconpatch.fit(tmp_path / "good", **SMALL_FIT, on="ray")
        assert there.preprocessing == here.preprocessing
        assert here.white_level == 4095


@pytest.mark.usefixtures("ray_cluster", "three_shares")
def test_from_the_command_line(good_folder: Path, tmp_path: Path) -> None:
    options: list[Any] = ["--weights", "random", "--size", "64", "--on", "ray", "--method"]
    model = tmp_path / "part.rcp"
    done = command("fit", good_folder, "-o", model, *options, "patchcore", "--bank", 50)
    assert done.exit_code == 0, done.output
    assert "extract features: 3 of 3" in done.output
    assert len(reconpatch.load(model).members[0].bank) == 50


@pytest.mark.usefixtures("without_ray")
def test_a_device_of_one_machine_is_refused(good_folder: Path) -> None:
    with pytest.raises(SettingsError, match="leave out one of --device and --on"):
        reconpatch.fit(good_folder, **SMALL_FIT, on="ray", device="cuda")
