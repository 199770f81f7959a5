from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconpatch.errors import OutputError
from reconpatch.features.store import PatchStore
from reconpatch.method.representation import Representation

PHOTOS, PLACES, CHANNELS = 7, 6, 4
# All of them are numbers of half precision too.
F = np.random.default_rng(1).normal(size=(PHOTOS, PLACES, CHANNELS)).astype(np.float16)
F = F.astype(np.float32)


def filled(memory: int | None, photos: int = PHOTOS, **options: Any) -> PatchStore:
    store = PatchStore(photos, PLACES, CHANNELS, memory=memory, **options)
    for start in range(0, PHOTOS, 3):
        store.add(F[start : start + 3])
    return store


@pytest.fixture(params=["in memory", "on disk", "on disk, two photos at hand", "mapped"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    memory = {"on disk": 0, "on disk, two photos at hand": 300}.get(request.param)
    return {"memory": memory, "mapped": request.param == "mapped"}


@pytest.fixture(params=[False, True], ids=["single", "half"])
def store(request: pytest.FixtureRequest, where: dict[str, Any]) -> Any:
    with filled(**where, half=request.param) as store:
        yield store


def test_half_precision_is_half_of_the_bytes_and_comes_out_single(where: dict[str, Any]) -> None:
    with filled(**where, half=True) as half, filled(**where) as single:
        for store in (half, single):
            given = store.photo(2), store.some(1, 3), store.take(np.array([5])), store.mean()
            assert [x.dtype for x in given] == [np.float32] * 3 + [np.float64]
        if half.addressable:
            assert half.flat.nbytes * 2 == single.flat.nbytes
        third = np.full((1, PLACES, CHANNELS), 1 / 3, np.float32)
        with PatchStore(1, PLACES, CHANNELS, **where, half=True) as store:
            store.add(third)
            found = store.photo(0)
        assert 0 < np.abs(found - third).max() < 2**-12 / 3 * 2


def test_r_is_single_even_where_it_is_no_shorter_than_p() -> None:
    with filled(None, half=True) as store:
        store.represent(Representation(None, np.full(CHANNELS, 1 / 3, np.float32)))
        assert store.flat.dtype == np.float32
        np.testing.assert_allclose(store.photo(3), F[3] + np.float32(1 / 3), rtol=1e-6)


def test_what_is_closed_holds_no_memory() -> None:
    with filled(None) as store:
        held = store.flat.nbytes
    assert (held, store.flat.nbytes, len(store)) == (F.nbytes, 0, 0)


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


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "photos", [PHOTOS, PHOTOS + 3]
)  # of those that were left out there is room
def test_in_memory_r_is_where_p_was_and_the_rest_is_given_back(half: bool, photos: int) -> None:
    f = Representation(np.float32([[1, 0, 0, 0]]))
    with filled(None, photos, half=half) as store:
        before = store.flat.ctypes.data
        store.represent(f)
        base: Any = store.flat
        while base.base is not None:
            base = base.base
        assert (base.ctypes.data, base.nbytes) == (before, PHOTOS * PLACES * 4)
        np.testing.assert_array_equal(store.flat, F.reshape(-1, CHANNELS)[:, :1])


def test_what_still_looks_at_p_keeps_its_memory() -> None:
    with filled(None) as store:
        looking = store.flat
        store.represent(Representation(np.float32([[1, 0, 0, 0]])))
        np.testing.assert_array_equal(store.flat, F.reshape(-1, CHANNELS)[:, :1])
        assert looking.base is not None
        assert looking.base.nbytes == F.nbytes  # what it looks at is r by now, and not freed


def test_an_odd_count_of_half_precision_is_represented() -> None:
    """Whose bytes are no whole number of float32."""
    p = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    with PatchStore(1, 3, 3, half=True) as store:
        store.add(p)
        store.represent(Representation(np.float32([[1, 1, 0]])))
        np.testing.assert_array_equal(store.photo(0), [[1], [7], [13]])


@pytest.mark.parametrize("dim", [2, CHANNELS])
def test_a_store_of_r_beside_that_of_p(store: PatchStore, dim: int) -> None:
    weight = np.random.default_rng(2).normal(size=(dim, CHANNELS)).astype(np.float32)
    with store.represented(Representation(weight)) as r:
        assert (len(r), r.channels, r.in_memory) == (PHOTOS, dim, store.in_memory)
        assert r.at_hand == store.at_hand
        for i in range(PHOTOS):
            np.testing.assert_allclose(r.photo(i), F[i] @ weight.T, rtol=1e-5, atol=1e-6)
    for i in range(PHOTOS):  # p stays, and is read after r is gone
        np.testing.assert_array_equal(store.photo(i), F[i])


@pytest.mark.parametrize("dim", [CHANNELS, 2, 9])
def test_a_mapped_file_gives_the_bits_of_memory(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where features are kept must not show in any figure."""
    rng = np.random.default_rng(dim)
    f = Representation(rng.normal(size=(dim, CHANNELS)).astype(np.float32))
    with filled(None) as here, filled(None, mapped=True) as there:
        assert (here.in_memory, there.in_memory) == (True, False)
        assert here.addressable
        assert there.addressable
        assert here.at_hand == there.at_hand
        for _ in range(2):
            np.testing.assert_array_equal(there.flat, here.flat)
            np.testing.assert_array_equal(there.mean(), here.mean())
            for store in (here, there):
                store.represent(f if store.channels == CHANNELS else Representation())


@pytest.mark.parametrize("most", [1, 5, 16, 1000])
def test_a_read_that_ends_early_goes_on(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux hands over 2 GiB at most at a time, and any system may hand over less."""
    with filled(0) as store:
        assert store._file is not None
        store._file = Partial(store._file, most)
        np.testing.assert_array_equal(store.some(0, PHOTOS), F)
        np.testing.assert_array_equal(store.photo(3), F[3])
        chosen = np.array([41, 0, 7])
        np.testing.assert_array_equal(store.take(chosen), F.reshape(-1, CHANNELS)[chosen])


def test_a_file_that_lost_its_end_is_told() -> None:
    with filled(0) as store:
        assert store._file is not None
        store._file.truncate(F.nbytes - 4)
        np.testing.assert_array_equal(store.some(0, PHOTOS - 1), F[:-1])
        with pytest.raises(OutputError, match="ends 4 bytes early"):
            store.photo(PHOTOS - 1)
        with pytest.raises(OutputError, match="ends 4 bytes early"):
            store.take(np.array([0, PHOTOS * PLACES - 1]))


class Partial:
    """A file that reads a few bytes at most at a time."""

    def __init__(self, file: Any, most: int) -> None:
        self._file, self._most = file, most
        self.seek, self.close = file.seek, file.close

    def readinto(self, data: memoryview) -> int:
        return int(self._file.readinto(data[: self._most]))


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
