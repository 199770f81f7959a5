"""Weights without torch: what torch saved is read to the bit, and nothing else is."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconpatch.features.pth_file import read_pth

torch = pytest.importorskip("torch", reason="torch writes the files that are read")

KINDS = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32]


def saved(state: Any, *, archive: bool) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


def state() -> dict[str, Any]:
    """Tensors of every kind; shared and turned ones, an empty one and a single number."""
    generator = torch.Generator().manual_seed(0)
    found = {
        f"of {kind}": (100 * torch.randn(3, 5, generator=generator)).to(kind) for kind in KINDS
    }
    whole = torch.randn(6, 4, generator=generator)
    found["turned"] = whole.t()
    found["a part"] = whole[1:5:2, 1:]
    found["one"] = torch.tensor(7)
    found["none"] = torch.zeros(2, 0, 3)
    return OrderedDict(found)


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
def test_what_torch_saved_is_read_to_the_bit(archive: bool) -> None:
    expected = state()
    found = read_pth(saved(expected, archive=archive))
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
def test_a_whole_network_is_read(archive: bool) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    expected = network.state_dict()  # with torch's own notes on its layers
    found = read_pth(saved(expected, archive=archive))
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


class Calls:
    """Pickled, it asks whoever reads it to call something."""

    def __init__(self, function: Callable[..., Any], *given: Any) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.given


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
@pytest.mark.parametrize("function", [Path.touch, eval, exec, getattr, open, np.array])
def test_nothing_is_called_that_a_file_names(
    function: Callable[..., Any], archive: bool, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    hostile = saved({"weight": torch.ones(2), "more": Calls(function, never)}, archive=archive)
    with pytest.raises(ValueError, match="which no state dict needs"):
        read_pth(hostile)
    assert not never.exists()


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "is no state dict"),
        ([torch.ones(2)], "is no state dict"),
        ({"weight": torch.ones(2), "epoch": 3}, "holds more than tensors"),
        ({"state_dict": {"weight": torch.ones(2)}}, "holds more than tensors"),
        ({7: torch.ones(2)}, "a name that is no text"),
        ({"weight": torch.ones(2, dtype=torch.bfloat16)}, r"torch\.BFloat16Storage"),
        ({"weight": torch.ones(2, 2).to_sparse()}, "no state dict needs"),
        ({"weight": 0.5}, "BINFLOAT"),
    ],
    ids=str,
)
def test_what_is_no_state_dict_is_refused(given: Any, reason: str, archive: bool) -> None:
    with pytest.raises(ValueError, match=reason):
        read_pth(saved(given, archive=archive))


# --- Pickles that torch does not write ------------------------------------------------------------


def stream(pickled: bytes, keys: Sequence[str], *storages: tuple[int, bytes]) -> bytes:
    """A file of the old kind around any pickle."""
    start = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    parts = [*(pickle.dumps(part, 2) for part in start), pickled, pickle.dumps(list(keys), 2)]
    return b"".join([*parts, *(struct.pack("<q", count) + data for count, data in storages)])


def tensor(shape: str, strides: str, offset: str = "K\x00", count: str = "K\x04") -> bytes:
    """A pickle of one tensor "w" of a storage "0", its numbers as opcodes."""
    text = (
        "\x80\x02}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        "(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        f"{count}NtQ{offset}{shape}{strides}\x89ccollections\nOrderedDict\n)RtRu."
    )
    return text.encode("latin-1")


FOUR = np.arange(4, dtype="<f4").tobytes()


def test_a_pickle_by_hand_is_read() -> None:
    found = read_pth(stream(tensor("(K\x02K\x02t", "(K\x02K\x01t"), "0", (4, FOUR)))
    np.testing.assert_array_equal(found["w"], [[0, 1], [2, 3]])
    found = read_pth(stream(tensor("(K\x02t", "(K\x02t", offset="K\x01"), "0", (4, FOUR)))
    np.testing.assert_array_equal(found["w"], [1, 3])


BILLIONS = "\x8a\x05\x00\x00\x00\x00\x10"
BEYOND = "\x8a\x0a" + 9 * "\x00" + "\x10"  # 2 ** 76


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ("(K\x05t", "(K\x01t", "K\x00"),  # one number too many
        ("(K\x02t", "(K\x04t", "K\x00"),  # a step too far
        ("(K\x04t", "(K\x01t", "K\x01"),  # begins too late
        (f"({BILLIONS}t", "(K\x00t", "K\x00"),  # the same number for ever
        (f"({BILLIONS}{BILLIONS}t", "(K\x00K\x00t", "K\x00"),
        ("(K\x02t", "(K\x01K\x01t", "K\x00"),  # a stride too many
        ("(J\xff\xff\xff\xfft", "(K\x01t", "K\x00"),  # minus one
        ("(K\x02t", "(J\xff\xff\xff\xfft", "K\x03"),
        ("(K\x02t", "(K\x01t", "J\xff\xff\xff\xff"),
        ("(\x88t", "(K\x01t", "K\x00"),  # True
        ("(X\x01\x00\x00\x002t", "(K\x01t", "K\x00"),
        ("K\x04", "(K\x01t", "K\x00"),  # no tuple
        (f"(K\x00{BILLIONS}{BILLIONS}t", "(K\x01K\x01K\x01t", "K\x00"),  # no numbers, of vast sides
        (f"(K\x00{BEYOND}t", "(K\x01K\x01t", "K\x00"),
        (f"({BEYOND}t", "(K\x01t", "K\x00"),
        ("(K\x02t", f"({BEYOND}t", "K\x00"),
        ("(K\x02t", "(K\x01t", BEYOND),
    ],
)
def test_a_tensor_reaches_no_further_than_its_storage(
    shape: str, strides: str, offset: str
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of the checks it is does not count
        read_pth(stream(tensor(shape, strides, offset), "0", (4, FOUR)))


@pytest.mark.parametrize(
    ("keys", "storages"),
    [
        ("", []),
        ("01", [(4, FOUR), (4, FOUR)]),
        ("1", [(4, FOUR)]),
        ("00", [(4, FOUR), (4, FOUR)]),
        ("0", []),
        ("0", [(4, FOUR[:15])]),
        ("0", [(2**60, FOUR)]),
        ("0", [(-1, FOUR)]),
    ],
)
def test_storages_have_to_be_those_of_the_tensors(
    keys: str, storages: list[tuple[int, bytes]]
) -> None:
    with pytest.raises(ValueError, match="storage"):
        read_pth(stream(tensor("(K\x02t", "(K\x01t"), keys, *storages))


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"\x80\x02.",
        b"\x80\x02u.",
        b"\x80\x02(u.",
        b"\x80\x02(}u.",
        b"\x80\x02}(Nu.",
        b"\x80\x02R.",
        b"\x80\x02NNR.",
        b"\x80\x02)b.",
        b"\x80\x02NQ.",
        b"\x80\x02)Q.",
        b"\x80\x02h\x05.",
        b"\x80\x02q\x05.",
        b"\x80\x02(\x85.",
        b"\x80\x02\x87.",
        b"\x80\x02]]s.",
        b"\x80\x02}Na.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x02\x8a\xff.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02ccollections\nOrderedDict\n}R.",
        b"\x80\x02ccollections\nOrderedDict\n(Nt\x85R.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}.",
        b"\x80\x02(cos\nsystem\no.",
        b"(S'echo'\nios\nsystem\n.",
        b"\x82\x01.",
        b"\x80\x02c__builtin__\neval\n.",
    ],
)
def test_a_pickle_of_any_other_kind_is_refused(pickled: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of the checks it is does not count
        read_pth(stream(pickled, ""))


def test_an_index_of_the_memo_takes_no_memory() -> None:
    # Python's own machine makes room for as many as the index says, here 32 GiB.
    vast = b"\x80\x02}r\xff\xff\xff\xff" + tensor("(K\x02t", "(K\x01t")[2:]
    assert read_pth(stream(vast, "0", (4, FOUR)))["w"].shape == (2,)


# --- Archives that torch does not write -----------------------------------------------------------


def archive(*, compression: int = zipfile.ZIP_STORED, **changes: bytes | None) -> bytes:
    files = {
        "data.pkl": tensor("(K\x02t", "(K\x01t"),
        "byteorder": b"little",
        "data/0": FOUR,
    } | changes
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in files.items():
            if content is not None:
                file.writestr(f"w/{name}", content)
    return buffer.getvalue()


def test_an_archive_by_hand_is_read() -> None:
    np.testing.assert_array_equal(read_pth(archive())["w"], [0, 1])
    np.testing.assert_array_equal(read_pth(archive(byteorder=None))["w"], [0, 1])


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        (archive(compression=zipfile.ZIP_DEFLATED), "compressed"),
        (archive(byteorder=b"big"), "another byte order"),
        (archive(**{"data/0": None}), "damaged"),
        (archive(**{"data/0": FOUR[:8]}), "another length"),
        (archive(**{"data.pkl": None}), "damaged"),
        (archive(**{"more/data.pkl": b"."}), "damaged"),
    ],
)
def test_an_archive_of_another_kind_is_refused(hostile: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_pth(hostile)


def test_an_archive_of_entries_that_lie_over_one_another_is_refused() -> None:
    content = archive()
    # The last entry's length, in both of its headers, is made that of a terabyte.
    vast = content.replace(struct.pack("<LL", 16, 16), struct.pack("<LL", 2**30, 2**30))
    assert vast != content
    with pytest.raises(ValueError, match="claims to hold more"):
        read_pth(vast)


# --- Damage ---------------------------------------------------------------------------------------


@given(kind=st.booleans(), at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_damage_is_refused_or_read_as_arrays(kind: bool, at: float, byte: int) -> None:
    content = bytearray(archive() if kind else stream(tensor("(K\x02t", "(K\x01t"), "0", (4, FOUR)))
    content[int(at * len(content))] = byte
    try:
        found = read_pth(bytes(content))
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) and array.size <= 4 for array in found.values())


@given(share=st.floats(0, 1, exclude_max=True), kind=st.booleans())
def test_a_file_that_ends_early_is_refused(share: float, kind: bool) -> None:
    content = archive() if kind else stream(tensor("(K\x02t", "(K\x01t"), "0", (4, FOUR))
    with pytest.raises(ValueError):  # noqa: PT011 - which of the checks it is does not count
        read_pth(content[: int(share * len(content))])
