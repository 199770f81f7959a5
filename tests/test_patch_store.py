from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconpatch.errors import OutputError
from reconpatch.patch_store import PatchStore
from reconpatch.representation import Representation

PHOTOS, PLACES, CHANNELS = 7, 6, 4
F = np.random.default_rng(1).normal(size=(PHOTOS, PLACES, CHANNELS)).astype(np.float32)


def filled(memory: int | None, photos: int = PHOTOS) -> PatchStore:
    store = PatchStore(photos, PLACES, CHANNELS, memory=memory)
    for start in range(0, PHOTOS, 3):
        store.add(F[start : start + 3])
    return store


@pytest.fixture(params=[None, 0, 300], ids=["in memory", "on disk", "on disk, two photos at hand"])
def store(request: pytest.FixtureRequest) -> Any:
    with filled(request.param) as store:
        yield store


def test_what_went_in_comes_out(store: PatchStore) -> None:
    assert (len(store), store.patches) == (PHOTOS, PHOTOS * PLACES)
    for i in range(PHOTOS):
        np.testing.assert_array_equal(store.photo(i), F[i])
    np.testing.assert_array_equal(store.some(2, 5), F[2:5])
    chosen = np.array([41, 0, 7, 7, 23])
    np.testing.assert_array_equal(store.take(chosen), F.reshape(-1, CHANNELS)[chosen])
    np.testing.assert_allclose(store.mean(), F.mean(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize("patches", [None, 1, 13, 1000])
def test_blocks_are_the_whole_in_order(store: PatchStore, patches: int | None) -> None:
    blocks = list(store.blocks(patches))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), F)
    ends = np.cumsum([len(block) for _, block in blocks])
    assert [start for start, _ in blocks] == [0, *ends[:-1]]


@pytest.mark.parametrize("dim", [CHANNELS, 2, 9])
def test_r_takes_the_place_of_p(store: PatchStore, dim: int) -> None:
    rng = np.random.default_rng(dim)
    f = Representation(
        rng.normal(size=(dim, CHANNELS)).astype(np.float32), rng.random(dim, dtype=np.float32)
    )
    store.represent(f)
    assert store.channels == dim
    for i in range(PHOTOS):
        np.testing.assert_allclose(store.photo(i), F[i] @ f.weight.T + f.bias, atol=1e-5)


def test_fewer_photos_than_there_was_room_for() -> None:
    store = filled(None, photos=20)
    assert store.flat.shape == (PHOTOS * PLACES, CHANNELS)
    np.testing.assert_array_equal(PatchStore.of(F).flat, store.flat)


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    with PatchStore(PHOTOS, PLACES, CHANNELS, memory=0, folder=tmp_path) as store:
        store.add(F)
        assert not store.in_memory
        assert not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, _: int) -> None:
            return

        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            return

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(OutputError, match="the disk is full"):
        filled(0)


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        PatchStore(PHOTOS, PLACES, CHANNELS, memory=0, folder=tmp_path / "missing")
