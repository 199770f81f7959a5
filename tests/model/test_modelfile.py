from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import pickle
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import reconpatch
from conftest import SMALL_FIT
from reconpatch.engine.engines import StoredGraph
from reconpatch.errors import ModelFileError, OutputError
from reconpatch.memory import peak_bytes
from reconpatch.method.calibration import Calibration
from reconpatch.method.defect_kinds import DefectKinds
from reconpatch.method.memory_bank import MemoryBank
from reconpatch.method.representation import Representation
from reconpatch.method.settings import FitSettings, settings_for
from reconpatch.model import file as modelfile
from reconpatch.model.good_photos import GoodScores, TrainingPhoto
from reconpatch.model.model import Model
from reconpatch.photos.preprocessing import Preprocessing

NAMES = ["a.png", "sub/böß 部品.png", "caf\udce9.png"]  # the last is no Unicode: a lone surrogate


def jpeg(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def tiny_model(**changes):
    """Every field filled with something of its own; the graph is none, as no test here runs it."""
    rng = np.random.default_rng(0)

    def floats(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    values = {
        "settings": settings_for(size=(32, 64), levels=(2, 3), bank=0.25, b=3, seed=5),
        "preprocessing": Preprocessing(32, 64, resize=70, white_level=4095),
        "representation": Representation(floats(3, 4), floats(3)),
        "bank": MemoryBank(floats(5, 3), np.arange(5) % 3, np.arange(5) * 2, floats(5, 3)),
        "photos": [TrainingPhoto(name, f"{i:064}", 30 + i, 40, i) for i, name in enumerate(NAMES)],
        "good": GoodScores(
            np.arange(3),
            rng.random(3),
            rng.random(3),
            floats(3, 9),
            np.int32([[1, 2]] * 3),
            floats(3, 2, 3),
            floats(3, 9),
        ),
        "calibration": Calibration(rng.random(3), rng.random(3), 0.05, "generated", 0.125),
        "provenance": {
            "created": "today",
            "weights": {"location": "a"},
            "notes": ["ä", "caf\udce9"],
            "seconds": {"fit": 0.5},
        },
        "thumbnails": [jpeg(0), jpeg(90), jpeg(255)],
        "engine": StoredGraph(bytes(range(256))),
    }
    return Model(**(values | changes))


def defect_kinds(**changes):
    rows = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    values = {
        "names": ("dent", "böß"), "rows": rows, "kind": np.array([0, 1, 0]), "near": (0.5, 0.25),
    }  # fmt: skip
    return DefectKinds(**(values | changes))


def same(a, b):
    """Whether two values of a model are the same, dtypes and bits of arrays included."""
    if isinstance(a, StoredGraph):
        return a.graph == b.graph
    if dataclasses.is_dataclass(a):
        fields = dataclasses.fields(a)
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields
        )
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape, a.tobytes()) == (
            b.dtype, b.shape, b.tobytes(),
        )  # fmt: skip
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):  # JSON has one kind of sequence
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def saved(model, folder, name="part.rcp"):
    path = folder / name
    model.save(path)
    return path


def header_of(content):
    """The JSON header of a safetensors file, and where its tensors begin."""
    begin = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:begin]), begin


def record_of(content):
    return stated_of(content)["record"]


def stated_of(content):
    """What the header states: the format, the checksum and the record."""
    return json.loads(header_of(content)[0]["__metadata__"]["reconpatch"])


def texts_in(value):
    """All strings in a JSON value, keys included."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.fixture
def tiny_file(tmp_path):
    return saved(tiny_model(), tmp_path)


# Round trips


def test_models_that_differ_anywhere_are_not_the_same():
    assert same(tiny_model(), tiny_model())
    others = [
        {"settings": settings_for(seed=6)},
        {"engine": StoredGraph(bytes(255))},
        {"representation": Representation(None)},
        {"thumbnails": ()},
        {"provenance": {}},
    ]
    for changes in others:
        assert not same(tiny_model(), tiny_model(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"representation": Representation(np.ones((3, 4), np.float32))},
        {"representation": Representation()},
        {"thumbnails": ()},
        {"calibration": Calibration(np.ones(1), np.zeros(1), 0.01, "one")},
        {"preprocessing": Preprocessing(64, 32)},
        {"settings": settings_for("paper", bank=20_000, method="patchcore")},
        {"defect_kinds": defect_kinds()},
    ],
)
def test_every_field_comes_back(tmp_path, changes):
    model = tiny_model(**changes)
    loaded = reconpatch.load(saved(model, tmp_path))
    assert same(loaded, model)
    assert loaded.fingerprint == model.fingerprint


def test_a_fitted_model_comes_back_and_gives_the_same_verdict(
    small_model, small_model_file, defective_photo
):
    loaded = reconpatch.load(small_model_file, threads=1)
    assert same(loaded.with_samples([None]), small_model.with_samples([None]))
    assert same(loaded.sample.pictures, small_model.sample.pictures)
    assert loaded.fingerprint == small_model.fingerprint
    assert same(loaded.inspect(defective_photo), small_model.inspect(defective_photo))


def test_what_was_loaded_and_saved_again_is_the_same_file(tmp_path, tiny_file):
    again = saved(reconpatch.load(tiny_file), tmp_path, "again.rcp").read_bytes()
    assert again == tiny_file.read_bytes()


def test_arrays_that_are_views_in_another_order_come_back(tmp_path):
    rows = np.arange(30, dtype=np.float32).reshape(3, 10).T[::2]
    model = tiny_model(bank=MemoryBank(rows, np.zeros(5, int), np.zeros(5, int), rows[::-1]))
    loaded = reconpatch.load(saved(model, tmp_path))
    np.testing.assert_array_equal(loaded.bank.rows, rows)
    np.testing.assert_array_equal(loaded.bank.replacements, rows[::-1])


def test_the_threads_are_those_of_the_machine_that_loads(tiny_file):
    assert reconpatch.load(tiny_file).engine.threads == 0
    assert reconpatch.load(tiny_file, threads=3).engine.threads == 3


def test_names_that_are_not_ascii_or_no_unicode_at_all_come_back(tiny_file):
    loaded = reconpatch.load(tiny_file)
    assert [photo.name for photo in loaded.photos] == NAMES
    assert os.fsencode(loaded.photos[2].name) == os.fsencode("caf\udce9.png")
    assert loaded.provenance["notes"] == ["ä", "caf\udce9"]


def test_without_thumbnails_there_are_none(tmp_path, good_folder, small_model, defective_photo):
    model = reconpatch.fit(good_folder, **SMALL_FIT, thumbnails=False)
    path = saved(model, tmp_path)
    header, _ = header_of(path.read_bytes())
    assert not [name for name in header if "thumbnails" in name]
    loaded = reconpatch.load(path, threads=1)
    assert not loaded.thumbnails
    closest = loaded.inspect(defective_photo).closest
    assert (closest.thumbnail, closest.thumbnail_box) == (None, None)
    assert loaded.fingerprint == small_model.fingerprint, "they decide no verdict"


# Fingerprints


def test_the_same_seed_gives_the_same_fingerprint_and_another_seed_another(
    good_folder, small_model
):
    again, other = (reconpatch.fit(good_folder, **SMALL_FIT, seed=seed) for seed in (0, 1))
    assert again.fingerprint == small_model.fingerprint
    assert other.fingerprint != small_model.fingerprint
    assert not np.array_equal(other.bank.rows, small_model.bank.rows)


def changed_calibration(**changes):
    return {"calibration": dataclasses.replace(tiny_model().calibration, **changes)}


@pytest.mark.parametrize(
    "changes",
    [
        changed_calibration(set_by_hand=0.25),
        changed_calibration(set_by_hand=None),
        changed_calibration(rate=0.06),
        changed_calibration(scores=np.ones(3)),
        {"settings": settings_for(size=(32, 64), levels=(2, 3), bank=0.25, b=3, seed=6)},
        {"engine": StoredGraph(bytes(range(255)) + b"\0")},
        {"representation": Representation()},
        {"preprocessing": Preprocessing(32, 64, resize=70, white_level=1023)},
        {"photos": tiny_model().photos[::-1]},
        {"defect_kinds": defect_kinds()},
    ],
)
def test_what_decides_a_verdict_changes_the_fingerprint(changes):
    assert tiny_model(**changes).fingerprint != tiny_model().fingerprint


def test_thresholds_change_the_fingerprint_and_change_it_back():
    model = tiny_model()
    changed = model.with_threshold(3.0)
    assert changed.fingerprint != model.fingerprint
    assert changed.with_threshold(0.125).fingerprint == model.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": {}},
        {"thumbnails": ()},
        {"engine": StoredGraph(bytes(range(256)), "openvino", 4)},
    ],
)
def test_what_decides_no_verdict_leaves_the_fingerprint(changes):
    assert tiny_model(**changes).fingerprint == tiny_model().fingerprint


def test_settings_that_did_not_exist_yet_leave_the_fingerprint(monkeypatch):
    model = tiny_model()
    now = model.fingerprint
    known = FitSettings.to_dict

    def later(settings):
        values = known(settings)
        return values | {"later": 0, "training": values["training"] | {"later": "no"}}

    monkeypatch.setattr(FitSettings, "to_dict", later)
    assert model.fingerprint == now


# What is in the file


def test_any_safetensors_reader_opens_it(tiny_file):
    model = tiny_model()
    with safe_open(tiny_file, framework="np") as file:
        assert json.loads(file.metadata()["reconpatch"])["format"] == 2
        np.testing.assert_array_equal(file.get_tensor("0.bank.rows"), model.bank.rows)
        assert file.get_tensor("0.graph").tobytes() == model.engine.graph


def test_it_is_json_and_plain_numbers_to_the_last_byte(small_model, small_model_file):
    content = small_model_file.read_bytes()
    header, begin = header_of(content)
    record_of(content)
    del header["__metadata__"]
    spans = sorted(tuple(tensor["data_offsets"]) for tensor in header.values())
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert begin + spans[-1][1] == len(content)
    assert {tensor["dtype"] for tensor in header.values()} == {"F32", "F64", "I32", "I64", "U8"}
    # Bytes of a format of their own are the graph and the pictures, and nothing else.
    blobs = {name for name, tensor in header.items() if tensor["dtype"] == "U8"}
    assert blobs == {"0.graph", "0.sample.pictures", "thumbnails"}
    for picture in small_model.sample.pictures:
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "PNG"
    for thumbnail in small_model.thumbnails:
        with Image.open(io.BytesIO(thumbnail)) as image:
            assert image.format == "JPEG"


def test_no_pickle_is_written_or_read(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle was asked for")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(np.lib.format, "read_array", refuse)
    model = tiny_model()
    assert same(reconpatch.load(saved(model, tmp_path)), model)


def test_no_path_of_the_machine_occurs_in_it(small_model_file, good_folder):
    content = small_model_file.read_bytes()
    texts = texts_in(record_of(content))
    assert "part003.png" in texts
    for text in texts:
        assert not PurePosixPath(text).is_absolute(), text
        assert not PureWindowsPath(text).is_absolute(), text
    for folder in (good_folder, small_model_file.parent):
        assert str(folder).encode() not in content


# Damage


def refused(path):
    """Whether a file is refused with one clear sentence; a file that loads must be undamaged."""
    try:
        loaded = reconpatch.load(path)
    except ModelFileError as error:
        sentence = str(error)
    else:
        assert same(loaded, tiny_model())
        return False
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    return True


def place_of_format(content):
    """Where the digit of the format's version stands."""
    key = rb"\"format\": "
    return content.index(key) + len(key)


def test_every_truncation_is_refused(tmp_path, tiny_file):
    content = tiny_file.read_bytes()
    cut = tmp_path / "cut.rcp"
    begin = header_of(content)[1]
    borders = {n for edge in (0, 8, begin, len(content)) for n in range(edge - 3, edge + 4)}
    for length in sorted({*borders, *range(0, len(content), 41)}):
        if 0 <= length < len(content):
            cut.write_bytes(content[:length])
            assert refused(cut), length


def test_bytes_too_many_are_refused(tmp_path, tiny_file):
    longer = tmp_path / "longer.rcp"
    for extra in (b"\0", b" ", b"more" * 100):
        longer.write_bytes(tiny_file.read_bytes() + extra)
        assert refused(longer)


def test_flipped_bits_are_refused_or_harmless(tmp_path, tiny_file):
    content = tiny_file.read_bytes()
    flipped = tmp_path / "flipped.rcp"
    begin = header_of(content)[1]
    rng = np.random.default_rng(0)
    # The header is where a flip may pass for something else, so half of the sample is there.
    places = [*range(8), *rng.integers(8, begin, 150), *rng.integers(begin, len(content), 150)]
    harmless = []
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        flipped.write_bytes(damaged)
        if not refused(flipped):
            harmless.append(place)
    assert harmless == []


def test_flips_in_the_stated_checksum_and_format_are_refused(tmp_path, tiny_file):
    content = tiny_file.read_bytes()
    flipped = tmp_path / "flipped.rcp"
    checksum = content.index(stated_of(content)["sha256"].encode())
    for place in [*range(checksum, checksum + 64, 9), place_of_format(content)]:
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            flipped.write_bytes(damaged)
            assert refused(flipped), (place, bit)


def test_damage_is_called_damage(tmp_path, tiny_file):
    damaged = bytearray(tiny_file.read_bytes())
    damaged[-1] ^= 1
    tiny_file.write_bytes(damaged)
    with pytest.raises(ModelFileError, match=r"is damaged \(truncated or altered.*copy it again"):
        reconpatch.load(tiny_file)


# Foreign files


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        png(),
        b"",
        b"12345678",
        b"not a model, just some words\n" * 20,
        b"\xff" * 64,
        b"{}",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0[]",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        pickle.dumps({"weights": [1, 2, 3]}),
    ],
    ids=[
        "png", "empty", "eight-bytes", "text", "ones", "json", "no-metadata", "list", "deep",
        "pickle",
    ],
)  # fmt: skip
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "part.rcp"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"part\.rcp is not a reconpatch model.*fit"):
        reconpatch.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"reconpatch": "{}", "sha256": "0"}])
def test_a_safetensors_file_of_another_kind_is_refused(tmp_path, metadata):
    path = tmp_path / "part.rcp"
    save_file({"weight": np.zeros(4, np.float32)}, path, metadata)
    with pytest.raises(ModelFileError, match="is not a reconpatch model"):
        reconpatch.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"there is no model file .*part\.rcp: check the name"):
        reconpatch.load(tmp_path / "part.rcp")
    with pytest.raises(ModelFileError, match="is a folder: give the model file"):
        reconpatch.load(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="files have no holes, and there are no pipes")
@pytest.mark.parametrize("size", [2**40, 2**33])
def test_of_a_file_far_too_large_the_beginning_is_read(tmp_path, tiny_file, size):
    empty = tmp_path / "empty.rcp"
    empty.touch()
    long_header = tmp_path / "header.rcp"
    long_header.write_bytes(b"\xff" * 7 + b"\x00")
    for path, said in (
        (tiny_file, "is damaged"), (empty, "not a reconpatch"), (long_header, "not a reconpatch")
    ):  # fmt: skip
        os.truncate(path, size)
        before = peak_bytes()
        with pytest.raises(ModelFileError, match=said):
            reconpatch.load(path)
        assert peak_bytes() - before < 2**30


@pytest.mark.skipif(os.name != "posix", reason="there are no pipes with names")
def test_what_is_no_file_is_not_waited_for(tmp_path):
    pipe, devices = tmp_path / "pipe.rcp", Path("/dev/zero")
    os.mkfifo(pipe)
    for path in (pipe, devices):
        with pytest.raises(ModelFileError, match="cannot be read \\(it is not a regular file\\)"):
            reconpatch.load(path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        reconpatch.load("a\0b.rcp")


def test_a_file_that_cannot_be_read_is_refused(tiny_file, monkeypatch):
    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(modelfile, "open_regular", refuse)
    with pytest.raises(ModelFileError, match=r"cannot be read \(Permission denied\): give the"):
        reconpatch.load(tiny_file)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(modelfile, "FORMAT", 3)
        path = saved(tiny_model(), tmp_path)
    with pytest.raises(ModelFileError, match="has format 3, and this version reads format 2: inst"):
        reconpatch.load(path)


@pytest.mark.parametrize(
    "lost", ["0.graph", "0.bank.stand_ins", "0.good.features", "thumbnails.ends"]
)
def test_a_model_that_lacks_a_tensor_is_refused(tmp_path, monkeypatch, lost):
    tensors = modelfile._tensors(tiny_model())
    del tensors[lost]
    monkeypatch.setattr(modelfile, "_tensors", lambda _: tensors)
    path = saved(tiny_model(), tmp_path)
    name = lost.removeprefix("0.")
    with pytest.raises(ModelFileError, match=f"not a complete model .KeyError: '{name}'.: fit it"):
        reconpatch.load(path)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("settings", "method", "another"),
        ("settings", "scoring", {"b": 0}),
        ("calibration", "unheard_of", 1),
        ("preprocessing", "height", 0),
    ],
)
def test_a_model_with_a_value_that_cannot_be_is_refused(tmp_path, monkeypatch, part, name, value):
    record = modelfile._record(tiny_model())
    record["members"][0][part] = {**record["members"][0][part], name: value}
    monkeypatch.setattr(modelfile, "_record", lambda _: record)
    path = saved(tiny_model(), tmp_path)
    with pytest.raises(ModelFileError):
        reconpatch.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ()},
        {"names": ("dent", "dent")},
        {"names": ("dent", "")},
        {"near": (0.5,)},
        {"near": (0.5, 0.0)},
        {"near": (0.5, float("nan"))},
        {"rows": np.float32([[1, 2], [3, 4], [5, 6]])},
        {"rows": np.float32([[1, 2, np.inf]] * 3)},
        {"kind": np.array([0, 1, 2])},
        {"kind": np.array([0, 0, 0])},
    ],
)
def test_kinds_of_defects_that_cannot_be_are_refused(tmp_path, changes):
    path = saved(tiny_model(defect_kinds=defect_kinds(**changes)), tmp_path)
    with pytest.raises(ModelFileError, match="it lacks"):
        reconpatch.load(path)


def test_a_file_without_kinds_is_as_it_was_before_there_were_any(tiny_file):
    (member,) = record_of(tiny_file.read_bytes())["members"]
    assert "kinds" not in member
    assert not [name for name in header_of(tiny_file.read_bytes())[0] if "kinds" in name]


# Writing


def test_an_existing_file_is_left_unless_it_may_be_overwritten(tmp_path):
    path = tmp_path / "part.rcp"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"part\.rcp exists already and is left as it is"):
        tiny_model().save(path)
    assert path.read_bytes() == b"mine"
    tiny_model().save(path, overwrite=True)
    assert same(reconpatch.load(path), tiny_model())
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_may_be_a_string(tmp_path):
    tiny_model().save(str(tmp_path / "part.rcp"))
    assert same(reconpatch.load(str(tmp_path / "part.rcp")), tiny_model())
