"""Exports: what a program in another language is given has the model's own answers in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from PIL import Image

from conftest import command, textured
from reconpatch.engine.engines import GRAPH_INPUTS, GRAPH_OUTPUTS, OnnxRuntimeEngine
from reconpatch.errors import (
    MissingExtraError,
    ModelFileError,
    NotEnoughPhotosError,
    OutputError,
    ParityError,
    SettingsError,
)
from reconpatch.export import export as exporting
from reconpatch.export import graph as exported_graph
from reconpatch.export import int8
from reconpatch.export.export import check_folder, export
from reconpatch.export.graph import with_bank
from reconpatch.export.int8 import evenly, measure
from reconpatch.model import parity
from reconpatch.model.ensemble import combine
from reconpatch.model.model import Model
from reconpatch.photos.images import read_photo
from reconpatch.photos.preprocessing import Preprocessing

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def exported(small_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_model` for ONNX Runtime; not to be changed."""
    folder = tmp_path_factory.mktemp("export") / "onnx"
    export(small_model, folder, name="small")
    return folder


@pytest.fixture(scope="module")
def cropping(small_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of a model that looks at the middle of a photo."""
    folder = tmp_path_factory.mktemp("export") / "crop"
    export(replace(small_model, preprocessing=Preprocessing(64, 64, resize=73)), folder)
    return folder


@pytest.fixture(scope="module")
def in_8_bits(small_model: Model, good_folder: Path) -> Model:
    photos = [read_photo(path) for path in sorted(good_folder.iterdir())]
    found = int8.in_8_bits(small_model, photos, "onnxruntime")
    assert isinstance(found, Model)
    return found


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# --- The graph -----------------------------------------------------------------------------------


def test_the_graph_takes_photos_alone_and_gives_what_the_model_gives(
    exported: Path, small_model: Model
) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    assert [given.name for given in session.get_inputs()] == ["photos"]
    assert {g.name for g in session.get_overridable_initializers()} == set(GRAPH_INPUTS[1:])
    prepared = np.stack([small_model.preprocessing(read_photo(textured(s))) for s in range(3)])
    found = session.run(list(GRAPH_OUTPUTS), {"photos": prepared})
    for value, expected in zip(found, small_model.engine(prepared, small_model.bank), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_program_may_give_a_bank_of_its_own(exported: Path, small_model: Model) -> None:
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    prepared = small_model.preprocessing(read_photo(textured(50)))[None]
    bank = small_model.bank
    mask = bank.everyone.copy()
    mask[:-5] = False
    nearest = session.run(["nearest"], {"photos": prepared, "mask": mask})[0]
    assert nearest.min() >= len(bank) - 5
    grown = np.concatenate([bank.rows, bank.rows])
    given = {
        "bank": grown,
        "norms": np.square(grown).sum(axis=1),
        "mask": np.ones(len(grown), bool),
    }
    score = session.run(["score"], {"photos": prepared, **given})[0]
    assert score == pytest.approx(small_model.engine(prepared, small_model.bank).score, rel=1e-4)


def test_a_fixed_bank_is_no_input(small_model: Model) -> None:
    graph = onnx.load_model_from_string(
        with_bank(small_model.engine.graph, small_model.bank, fixed=True)
    )
    assert [given.name for given in graph.graph.input] == ["photos"]
    onnx.checker.check_model(graph)


def test_openvino_reads_what_is_written_for_it(small_model: Model, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    export(small_model, tmp_path / "out", to="openvino")
    folder = tmp_path / "out"
    assert {p.name for p in folder.iterdir()} == {
        "model.xml", "model.bin", "model.json", "README.md", "sample", "files.sha256",
    }  # fmt: skip
    # The page's own advice: without it some CPUs compute in bfloat16.
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    assert all(
        word in (folder / "README.md").read_text() for pair in config.items() for word in pair
    )
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", config)
    prepared = np.fromfile(folder / "sample" / "prepared.f32", "<f4").reshape(1, 3, 64, 64)
    score = compiled({"photos": prepared})["score"][0]
    assert score == pytest.approx(read(folder / "sample" / "expected.json")["score"], rel=1e-4)
    assert read(folder / "model.json")["optional_inputs"] == {}


# --- What stands beside it -----------------------------------------------------------------------


def test_numbers_are_those_of_the_model(exported: Path, small_model: Model) -> None:
    record = read(exported / "model.json")
    calibration = small_model.calibration
    assert record["threshold"] == small_model.threshold
    assert record["map_threshold"] == calibration.map_threshold.value
    assert record["fingerprint"] == small_model.fingerprint
    assert record["grid"] == list(small_model.engine.grid)
    assert record["good_scores"] == sorted(calibration.scores.tolist())
    assert record["false_alarm_rate"]["stated"] == calibration.image_threshold.stated_rate
    assert record["gate"]["verdicts"] == 0
    assert record["int8"] is None
    graph = onnxruntime.InferenceSession(exported / "model.onnx")
    assert set(record["outputs"]) == {o.name for o in graph.get_outputs()}
    for output in graph.get_outputs():
        stated = record["outputs"][output.name]["shape"]
        assert [s for s in stated if s != "batch"] == [s for s in output.shape if s != "batch"]


def test_the_sample_is_what_the_model_says_of_its_photo(exported: Path, small_model: Model) -> None:
    sample, expected = exported / "sample", read(exported / "sample" / "expected.json")
    result = small_model.inspect(sample / "photo.png")
    assert expected["score"] == result.score
    assert expected["anomalous"] == result.anomalous
    photo = read_photo(sample / "photo.png")
    assert min(photo.height, photo.width) > 64  # so that preparing it takes a resize
    with Image.open(sample / "photo.ppm") as image:
        np.testing.assert_array_equal(np.asarray(image), photo.pixels)
    prepared = np.fromfile(sample / "prepared.f32", "<f4").reshape(3, 64, 64)
    np.testing.assert_array_equal(prepared, small_model.preprocessing(photo))
    anomaly_map = small_model.judge([photo])[0].anomaly_map
    assert expected["map_largest"] == anomaly_map.max()
    assert anomaly_map[expected["map_y"], expected["map_x"]] == anomaly_map.max()


def test_the_page_says_the_numbers(exported: Path, small_model: Model) -> None:
    page = (exported / "README.md").read_text(encoding="utf-8")
    for value in (small_model.threshold, small_model.calibration.map_threshold.value):
        assert f"> {value}" in page
    assert "(batch, 3, 64, 64)" in page
    assert "its box (x0, y0, x1, y1) is (0, 0, photo width, photo height)" in page
    assert "## 8 bits" not in page
    assert "ensemble" not in page


def test_the_page_of_a_cropping_model_tells_the_crop(cropping: Path, small_model: Model) -> None:
    page = (cropping / "README.md").read_text(encoding="utf-8")
    assert "With r = 73" in page
    assert page.count(f"{small_model.threshold} 73\n") == 1  # the programs' fourth argument


# --- The page's words about a resize, as code ----------------------------------------------------


def page_taps(n: int, start: float, end: float, m: int) -> list[tuple[int, list[int]]]:
    """Step 3 of the page along one axis: the first input pixel, and weights of 2^-22."""
    start, end = np.float32(start), np.float32(end)  # type: ignore[assignment]
    scale = float(end - start) / m
    reach = max(scale, 1.0)
    found = []
    for i in range(m):
        centre = float(start) + (i + 0.5) * scale
        first = max(int(centre - reach + 0.5), 0)
        last = min(int(centre + reach + 0.5), n)
        weights = [max(0.0, 1 - abs((x - centre + 0.5) / reach)) for x in range(first, last)]
        total = sum(weights)
        found.append((first, [int(w / total * 2**22 + 0.5) for w in weights]))
    return found


def page_pass(
    pixels: npt.NDArray[np.uint8], start: float, end: float, m: int
) -> npt.NDArray[np.uint8]:
    """One pass along the first axis, rounded to 8 bits."""
    rows = []
    for first, weights in page_taps(len(pixels), start, end, m):
        part = pixels[first : first + len(weights)].astype(np.int64)
        total = sum(w * row for w, row in zip(weights, part, strict=True))
        rows.append(np.clip((total + 2**21) >> 22, 0, 255))
    return np.array(rows, np.uint8)


def page_resize(
    pixels: npt.NDArray[np.uint8], height: int, width: int, box: tuple[float, ...]
) -> npt.NDArray[np.uint8]:
    x0, y0, x1, y1 = box
    across = page_pass(pixels.swapaxes(0, 1), x0, x1, width).swapaxes(0, 1)
    return page_pass(across, y0, y1, height)


@pytest.mark.parametrize(
    ("height", "width", "preprocessing"),
    [
        (97, 140, Preprocessing(32, 48)),  # shrinks by 3
        (20, 33, Preprocessing(48, 40)),  # enlarges
        (50, 300, Preprocessing(64, 64)),  # enlarges down and shrinks across
        (64, 64, Preprocessing(64, 64)),
        (100, 81, Preprocessing(32, 32, resize=41)),  # a crop whose box has fractions
        (33, 71, Preprocessing(30, 24, resize=37)),
    ],
)
def test_the_page_describes_the_preprocessing_to_the_bit(
    height: int, width: int, preprocessing: Preprocessing
) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    box: tuple[float, ...] = (0, 0, width, height)
    if r := preprocessing.resize:
        s = min(height, width)
        h, w = r * height // s, r * width // s
        top, left = round((h - preprocessing.height) / 2), round((w - preprocessing.width) / 2)
        x1, y1 = left + preprocessing.width, top + preprocessing.height
        box = (left * width / w, top * height / h, x1 * width / w, y1 * height / h)
    small = page_resize(pixels, preprocessing.height, preprocessing.width, box)
    by_page = small.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(preprocessing(read_photo(pixels)), by_page)


def along_first_axis(values: Array, m: int) -> Array:
    """One pass over a whole axis in floating point."""
    rows = []
    for first, weights in page_taps(len(values), 0, len(values), m):
        w = np.array(weights) / 2**22
        rows.append((w[:, None] * values[first : first + len(w)]).sum(axis=0) / w.sum())
    return np.array(rows)


def test_16_bits_are_prepared_as_the_page_says() -> None:
    pixels = np.random.default_rng(0).integers(0, 5000, (60, 90), np.uint16)
    given = Preprocessing(20, 30, white_level=4095)
    unit = np.minimum(pixels, 4095) / np.float32(4095)
    narrow = along_first_axis(unit.astype(np.float64).T, 30).T.astype(np.float32)
    by_page = along_first_axis(narrow.astype(np.float64), 20)
    np.testing.assert_allclose(given(read_photo(pixels))[1], by_page, atol=1e-6)


def test_maps_come_to_the_photo_as_the_page_says() -> None:
    anomaly_map = np.random.default_rng(1).random((20, 30), np.float32)
    height, width = 47, 25  # enlarged down, shrunk across
    values = anomaly_map.astype(np.float64)
    across = along_first_axis(values.T, width).T.astype(np.float32)
    by_page = along_first_axis(across.astype(np.float64), height)
    found = Preprocessing(20, 30).geometry(height, width).map_to_photo(anomaly_map)
    np.testing.assert_allclose(found, by_page, atol=1e-6)


# --- Programs ------------------------------------------------------------------------------------


def check_program(command: list[str], folder: Path) -> None:
    """Both inputs of the sample give what is expected, the photo with the program's own resize."""
    expected = read(folder / "sample" / "expected.json")
    record = read(folder / "model.json")
    threshold, preprocessing = str(record["threshold"]), record["preprocessing"]
    for name in ("photo.ppm", "prepared.f32"):
        arguments = [str(folder / "model.onnx"), str(folder / "sample" / name), threshold]
        if resize := preprocessing["resize"]:
            arguments.append(str(resize))
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        score, peak, verdict = done.stdout.splitlines()
        assert float(score.removeprefix("score ")) == pytest.approx(expected["score"], rel=1e-4)
        _, value, _, _, x, _, y = peak.split()
        assert float(value) == pytest.approx(expected["map_largest"], rel=1e-4)
        assert (int(x), int(y)) == (expected["map_x"], expected["map_y"])
        assert (verdict == "anomalous") == expected["anomalous"]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "usage" in wrong.stderr


def test_the_cpp_program_gives_what_is_expected(
    exported: Path, cropping: Path, tmp_path: Path
) -> None:
    """ONNXRUNTIME_HOME names a folder with ONNX Runtime's include/ and lib/."""
    home = os.environ.get("ONNXRUNTIME_HOME")
    if home is None or shutil.which("g++") is None:
        pytest.skip("needs g++, and ONNX Runtime's headers and library in ONNXRUNTIME_HOME")
    program = tmp_path / "inspect"
    include, library = Path(home) / "include", Path(home) / "lib"
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", str(exported / "inspect.cpp"),
         "-isystem", str(include), "-L", str(library), "-lonnxruntime", f"-Wl,-rpath,{library}",
         "-o", str(program)],
        check=True,
    )  # fmt: skip
    check_program([str(program)], exported)
    check_program([str(program)], cropping)


def test_the_node_program_gives_what_is_expected(
    exported: Path, cropping: Path, tmp_path: Path
) -> None:
    """ONNXRUNTIME_NODE names a folder that holds node_modules/onnxruntime-node."""
    home = os.environ.get("ONNXRUNTIME_NODE")
    if home is None or shutil.which("node") is None:
        pytest.skip("needs node, and node_modules/onnxruntime-node in ONNXRUNTIME_NODE")
    shutil.copy(exported / "inspect.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(Path(home) / "node_modules")
    check_program(["node", str(tmp_path / "inspect.mjs")], exported)
    check_program(["node", str(tmp_path / "inspect.mjs")], cropping)


def test_the_csharp_program_gives_what_is_expected(
    exported: Path, cropping: Path, tmp_path: Path
) -> None:
    """ONNXRUNTIME_DOTNET names a project folder that refers to Microsoft.ML.OnnxRuntime."""
    home = os.environ.get("ONNXRUNTIME_DOTNET")
    if home is None or shutil.which("dotnet") is None:
        pytest.skip("needs dotnet, and a project with ONNX Runtime in ONNXRUNTIME_DOTNET")
    project = tmp_path / "inspect"
    shutil.copytree(home, project)
    shutil.copy(exported / "Inspect.cs", project / "Program.cs")
    built = tmp_path / "built"
    subprocess.run(["dotnet", "build", str(project), "-o", str(built)], check=True)
    (program,) = built.glob("*.runtimeconfig.json")
    library = program.with_name(program.name.split(".runtimeconfig")[0] + ".dll")
    check_program(["dotnet", str(library)], exported)
    check_program(["dotnet", str(library)], cropping)


# --- Whole or not at all -------------------------------------------------------------------------


def test_an_export_that_disagrees_is_not_written(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = exporting.open_graph

    def biased(folder: Path, to: str, threads: int = 0) -> exported_graph.Run:
        run = honest(folder, to, threads)

        def off(photos: npt.NDArray[np.float32]) -> parity.Output:  # type: ignore[name-defined]
            found = run(photos)
            return found._replace(score=found.score + np.float32(0.01 * small_model.threshold))

        return off

    monkeypatch.setattr(exporting, "open_graph", biased)
    with pytest.raises(ParityError, match=r"onnxruntime: .*remove or update"):
        export(small_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_sample_is_not_exported(small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="fit it again"):
        export(replace(small_model, sample=None), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_only_an_export_is_overwritten(small_model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(small_model, out)
    with pytest.raises(OutputError, match="exists already"):
        export(small_model, out)
    export(small_model.with_threshold(1.5), out, overwrite=True)
    assert read(out / "model.json")["threshold"] == 1.5
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def identities(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Which file each name is, and when it was changed."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (f.st_ino, f.st_mtime_ns, f.st_size) for path, f in found.items()}


def test_what_an_export_did_not_write_is_kept(small_model: Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(small_model, out)
    own = (out / "model.json").read_bytes()
    changed: list[tuple[str, Callable[[Path], object]]] = [
        ("mine.txt", lambda path: path.write_text("mine")),
        ("inspect.cpp", lambda path: path.write_text("// with a mend of mine")),
        ("sample/of mine.png", lambda path: path.write_bytes(b"mine")),
        ("model.json", lambda path: path.write_bytes(own.replace(b'"threshold"', b'"Threshold"'))),
        ("link", lambda path: path.symlink_to("model.onnx")),
    ]
    for name, change in changed:
        path = out / name
        was = path.read_bytes() if path.exists() else None
        change(path)
        before = identities(out)
        with pytest.raises(OutputError, match=f"holds {name}, which the export there did not"):
            export(small_model.with_threshold(1.5), out, overwrite=True)
        assert identities(out) == before
        path.unlink() if was is None else path.write_bytes(was)
    export(small_model.with_threshold(1.5), out, overwrite=True)
    assert read(out / "model.json")["threshold"] == 1.5


def test_a_link_to_an_export_is_left_alone(small_model: Model, tmp_path: Path) -> None:
    export(small_model, tmp_path / "out")
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(OutputError, match="link is a link and is left as it is"):
        export(small_model, tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()


def test_the_export_before_stays_where_the_new_one_cannot_take_its_name(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename = tmp_path / "out", Path.rename
    export(small_model, out)

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        export(small_model.with_threshold(1.5), out, overwrite=True)
    assert read(out / "model.json")["threshold"] == small_model.threshold
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_other_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", overwrite=False)
    check_folder(tmp_path, overwrite=True)  # empty
    (tmp_path / "model.json").write_text('{"name": "of another program"}')
    with pytest.raises(OutputError, match="no export wrote"):
        check_folder(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        check_folder(tmp_path / "model.json", overwrite=True)


def test_a_folder_that_cannot_be_made_is_a_sentence(small_model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be written"):
        export(small_model, tmp_path / "file" / "out")


def test_a_graph_over_2_gb_is_refused(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(small_model.engine.graph) + small_model.bank.rows.nbytes
    monkeypatch.setattr(exported_graph, "MOST_BYTES", size)
    with pytest.raises(OutputError, match="holds less than 2 GiB: fit with a smaller"):
        export(small_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(
    small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        exported_graph.importlib.util,
        "find_spec",
        lambda name: None if name == "openvino" else name,
    )
    with pytest.raises(MissingExtraError, match=r"reconpatch\[openvino\]"):
        export(small_model, tmp_path / "out", to="openvino")


def test_an_unknown_format_is_refused(small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'tflite': give one of onnx, openvino"):
        export(small_model, tmp_path / "out", to="tflite")


# --- Ensembles -----------------------------------------------------------------------------------


def test_an_ensemble_is_a_folder_of_graphs_and_the_formula(
    small_model: Model, good_folder: Path, tmp_path: Path
) -> None:
    other = replace(small_model, settings=replace(small_model.settings, backbone="another"))
    ensemble = combine([small_model, other])
    out = tmp_path / "out"
    export(ensemble, out)
    record = read(out / "ensemble.json")
    scores = []
    for member in record["members"]:
        folder, scale = out / member["folder"], member["score"]
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        prepared = np.fromfile(folder / "sample" / "prepared.f32", "<f4").reshape(1, 3, 64, 64)
        score = float(session.run(["score"], {"photos": prepared})[0][0])
        assert score == read(folder / "sample" / "expected.json")["score"]
        scores.append((score - scale["median"]) / (1.4826 * scale["mad"]))
    result = ensemble.inspect(out / "sample" / "photo.png")
    assert np.mean(scores) == pytest.approx(result.score)
    assert read(out / "sample" / "expected.json")["score"] == pytest.approx(result.score)
    assert record["threshold"] == ensemble.threshold
    assert (out / "README.md").read_text(encoding="utf-8").count("`member1`") == 2
    export(ensemble, out, overwrite=True)


# --- 8 bits --------------------------------------------------------------------------------------


def test_the_backbone_alone_computes_in_8_bits(in_8_bits: Model, small_model: Model) -> None:
    graph = onnx.load_model_from_string(in_8_bits.engine.graph).graph
    made_by = {output: node for node in graph.node for output in node.output}
    of_8_bits = [
        node.name
        for node in graph.node
        if node.op_type == "Conv"
        and node.input[1] in made_by  # else the weights are stored as float32
        and made_by[node.input[1]].op_type == "DequantizeLinear"
    ]
    assert of_8_bits
    assert all(name.startswith("/backbone/") for name in of_8_bits)
    # From the resolution of the patches on: the stem and the first blocks are finer.
    assert not any("conv_stem" in name or "/blocks.0/" in name for name in of_8_bits)
    assert not any(node.op_type == "Pad" for node in graph.node)
    used = {name for node in graph.node for name in node.input}
    assert {weight.name for weight in graph.initializer} <= used
    assert len(in_8_bits.engine.graph) < 0.6 * len(small_model.engine.graph)


def test_weights_of_their_own_change_nothing(small_model: Model) -> None:
    graph = onnx.load_model_from_string(small_model.engine.graph)
    prepared = small_model.preprocessing(read_photo(textured(9)))[None]
    int8._own_weights(graph)
    assert not any(node.op_type == "Identity" for node in graph.graph.node)
    onnx.checker.check_model(graph)
    found = OnnxRuntimeEngine(graph.SerializeToString(), 1)(prepared, small_model.bank)
    expected = small_model.engine(prepared, small_model.bank)
    # Of two graphs, which the engine may run by different kernels.
    scale = float(np.abs(expected.features).max())
    np.testing.assert_allclose(found.features, expected.features, atol=1e-5 * scale)


def test_thresholds_are_set_anew_as_if_the_photos_were_new(
    in_8_bits: Model, small_model: Model, good_folder: Path
) -> None:
    photos = [read_photo(path) for path in sorted(good_folder.iterdir())]
    as_new = [in_8_bits.judge([photo], as_new=True)[0].score for photo in photos]
    np.testing.assert_allclose(in_8_bits.calibration.scores, as_new)
    assert in_8_bits.threshold == max(as_new)
    assert in_8_bits.calibration.rate == small_model.calibration.rate
    by_hand = int8.in_8_bits(small_model.with_threshold(0.25), photos[:2], "onnxruntime")
    assert by_hand.threshold == 0.25


def test_figures_of_the_gate_by_hand() -> None:
    # good: 1 -> 1, 2 -> 4 (flagged now); defective: 5 -> 5, 2 -> 2 (missed by both)
    scores = np.array([[[1, 1], [5, 5]], [[2, 4], [2, 2]]], np.float64)
    found = measure(scores, (3.0, 3.0))
    assert (found.photos, found.changed) == (2, 1)
    assert found.false_alarms == (0, 1)
    assert found.caught == (1, 1)
    assert found.auroc == (0.875, 0.75)  # 2 = 2 counts half
    assert found.score_difference == pytest.approx(2 / 3)
    assert not found.holds
    with pytest.raises(ParityError, match=r"1 of 4 verdicts change .*without --int8"):
        int8.require(found)
    int8.require(measure(scores[:, :, :1].repeat(2, axis=2), (3.0, 3.0)))


def test_a_photo_that_scores_the_threshold_itself_is_not_flagged() -> None:
    scores = np.array([[[3 + 3e-6, 2.9], [3.1, 3.1]]], np.float64)
    found = measure(scores, (3.0, 3.0))
    assert (found.false_alarms, found.changed) == ((0, 0), 0)


def test_the_bounds_of_the_gate_themselves() -> None:
    within = replace(measure(np.ones((64, 2, 2)), (2.0, 2.0)), changed=1, auroc=(0.9, 0.8951))
    assert within.holds
    assert not replace(within, changed=2).holds
    assert not replace(within, auroc=(0.9, 0.8949)).holds


def test_at_most_64_photos_are_looked_at() -> None:
    photos = [read_photo(np.full((16, 16), i, np.uint8)) for i in range(200)]
    chosen = [int(photo.pixels[0, 0]) for photo in evenly(photos)]
    assert (len(chosen), chosen[0], chosen[-1]) == (64, 0, 199)
    assert evenly(photos[:3]) == photos[:3]


def test_8_bits_beyond_the_bounds_are_not_written(
    small_model: Model, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "MOST_VERDICTS", -1.0)
    photos = [read_photo(path) for path in sorted(good_folder.iterdir())[:3]]
    with pytest.raises(ParityError, match="so nothing is written"):
        export(small_model, tmp_path / "out", int8=photos)
    assert list(tmp_path.iterdir()) == []


def test_8_bits_within_the_bounds_are_written_with_their_figures(
    small_model: Model, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "MOST_VERDICTS", 1.0)  # a model of random weights is no fair test
    monkeypatch.setattr(int8, "MOST_AUROC_LOST", 1.0)
    photos = [read_photo(path) for path in sorted(good_folder.iterdir())]
    found = export(small_model, tmp_path / "out", int8=photos)
    record = read(tmp_path / "out" / "model.json")
    assert found.int8 is not None
    assert record["int8"] == json.loads(json.dumps(found.int8.to_dict()))
    assert record["threshold"] == found.int8.threshold[1]
    assert record["fingerprint"] == small_model.fingerprint  # of the model it comes from
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    sample = tmp_path / "out" / "sample"
    prepared = np.fromfile(sample / "prepared.f32", "<f4").reshape(1, 3, 64, 64)
    score = session.run(["score"], {"photos": prepared})[0][0]
    assert score == read(sample / "expected.json")["score"]
    assert "## 8 bits" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_members_of_an_ensemble_in_8_bits_have_thresholds_of_their_own(
    small_model: Model, good_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "MOST_VERDICTS", 1.0)
    monkeypatch.setattr(int8, "MOST_AUROC_LOST", 1.0)
    other = replace(small_model, settings=replace(small_model.settings, backbone="another"))
    photos = [read_photo(path) for path in sorted(good_folder.iterdir())]
    out = tmp_path / "out"
    found = export(combine([small_model, other]), out, int8=photos)
    alone = int8.in_8_bits(small_model, photos, "onnxruntime")
    assert found.int8 is not None
    assert read(out / "ensemble.json")["threshold"] == found.int8.threshold[1]
    assert read(out / "member1" / "model.json")["threshold"] == alone.threshold
    page = (out / "member0" / "README.md").read_text(encoding="utf-8")
    assert "verdicts of the ensemble changed" in page
    assert "is a member of an ensemble" in page


def test_8_bits_need_photos_and_onnx_runtime(small_model: Model, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughPhotosError, match="--photos"):
        export(small_model, tmp_path / "out", int8=[])
    pytest.importorskip("openvino")
    with pytest.raises(SettingsError, match="--to onnx"):
        export(small_model, tmp_path / "out", to="openvino", int8=[read_photo(textured(0))])


def test_a_graph_without_a_backbone_of_its_own_is_refused(small_model: Model) -> None:
    graph = onnx.load_model_from_string(small_model.engine.graph)
    for node in graph.graph.node:
        node.name = node.name.replace("/backbone/", "/other/")
    prepared = small_model.preprocessing(read_photo(textured(9)))[None]
    with pytest.raises(ModelFileError, match="without --int8"):
        int8.quantised(graph.SerializeToString(), iter([prepared]), small_model.bank)


# --- Command line --------------------------------------------------------------------------------


def test_the_command_writes_and_says_what_it_compared(
    small_model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = command("export", small_model_file, "-o", out)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == str(out)
    assert lines[1].startswith("onnxruntime: 0 of 16 verdicts differ")
    assert (out / "README.md").read_text(encoding="utf-8").startswith("# small: ")
    again = command("export", small_model_file, "-o", out)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    more = command("export", small_model_file, "-o", out, "--overwrite", "--json")
    assert json.loads(more.stdout)["agreements"][0]["verdicts"] == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--int8"], "--photos GOOD"),
        (["--photos", "good"], "add --int8"),
        (["--to", "tflite"], "tflite"),
    ],
)
def test_options_that_do_not_go_together(
    more: list[str], says: str, small_model_file: Path, tmp_path: Path
) -> None:
    done = command("export", small_model_file, "-o", "out", *more)
    assert done.exit_code == 2
    assert says in done.stderr
