"""What the server of MVTec AD 2 takes, file by file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import reconpatch
from conftest import command, fill, save, scratched, textured
from reconpatch.errors import OutputError
from reconpatch.evaluation.submission import write_submission


def tiff_pixels(path: Path) -> npt.NDArray[np.float16]:
    """The pixels of an uncompressed little-endian TIFF of one float16 channel, read by hand."""
    data = path.read_bytes()
    magic, version, directory = struct.unpack_from("<2sHI", data)
    assert (magic, version) == (b"II", 42)
    tags: dict[int, list[int]] = {}
    for i in range(struct.unpack_from("<H", data, directory)[0]):
        tag, kind, count, value = struct.unpack_from("<HHII", data, directory + 2 + 12 * i)
        if kind not in (3, 4):  # SHORT and LONG; the others do not matter here
            continue
        form, size = ("H", 2) if kind == 3 else ("I", 4)
        start = directory + 2 + 12 * i + 8 if count * size <= 4 else value
        tags[tag] = list(struct.unpack_from(f"<{count}{form}", data, start))
    assert tags[259] == [1], "compression"
    assert tags.get(277, [1]) == [1], "samples per pixel"
    assert tags[258] == [16], "bits per sample"
    assert tags[339] == [3], "sample format: floating point"
    strips = zip(tags[273], tags[279], strict=True)
    pixels = b"".join(data[start : start + size] for start, size in strips)
    return np.frombuffer(pixels, dtype="<f2").reshape(tags[257][0], tags[256][0])


def test_submission_files_are_what_the_server_takes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    heat = rng.uniform(0, 60, (300, 201)).astype(np.float32)  # several strips of a TIFF
    photo = Path("data/can/test_private_mixed/007_mixed.png")
    written = write_submission(tmp_path, "can", "test_private_mixed", photo, heat, 30.0)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "anomaly_images/can/test_private_mixed/007_mixed.tiff",
        "anomaly_images_thresholded/can/test_private_mixed/007_mixed.png",
    ]
    np.testing.assert_array_equal(tiff_pixels(written[0]), heat.astype(np.float16))
    with Image.open(written[1]) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), np.where(heat > 30.0, 255, 0))


def test_the_command_writes_the_maps_of_private_photos(
    small_model_file: Path, tmp_path: Path
) -> None:
    category, output = tmp_path / "data" / "can", tmp_path / "out"
    fill(category / "train" / "good", [0])
    fill(category / "validation" / "good", [1])
    fill(category / "test_public" / "good", [2])
    fill(category / "test_private", [3, 4])
    save(scratched(textured(5)), category / "test_private_mixed" / "5.png")
    done = command("submission", small_model_file, category, "-o", output)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"3 maps in {output}\n"
    assert {path.relative_to(output).as_posix() for path in output.rglob("*.*")} == {
        f"anomaly_images{tree}/can/{photo}.{suffix}"
        for tree, suffix in (("", "tiff"), ("_thresholded", "png"))
        for photo in ("test_private/part003", "test_private/part004", "test_private_mixed/5")
    }
    model = reconpatch.load(small_model_file)
    result = model.inspect(category / "test_private_mixed" / "5.png")
    place = "can/test_private_mixed/5"
    np.testing.assert_array_equal(
        tiff_pixels(output / "anomaly_images" / f"{place}.tiff"), result.heatmap.astype(np.float16)
    )
    with Image.open(output / "anomaly_images_thresholded" / f"{place}.png") as image:
        above = np.where(result.heatmap > result.map_threshold, 255, 0)
        np.testing.assert_array_equal(np.asarray(image), above)


def test_the_command_refuses_what_has_no_private_photos(
    small_model_file: Path, tmp_path: Path
) -> None:
    for split in ("train", "validation", "test_public"):
        fill(tmp_path / "can" / split / "good", [0])
    done = command("submission", small_model_file, tmp_path / "can", "-o", tmp_path / "o")
    assert done.exit_code == 2
    assert "give the folder that holds test_private" in " ".join(done.stderr.split())
    assert not (tmp_path / "o").exists()


def test_pixels_not_inspected_become_the_smallest_value(tmp_path: Path) -> None:
    heat = np.array([[np.nan, 2.0], [0.5, np.nan]], np.float32)
    tiff, png = write_submission(tmp_path, "can", "test_private", Path("0.png"), heat, 1.0)
    np.testing.assert_array_equal(tiff_pixels(tiff), [[0.5, 2.0], [0.5, 0.5]])
    with Image.open(png) as image:
        np.testing.assert_array_equal(np.asarray(image), [[0, 255], [0, 0]])


@pytest.mark.parametrize("value", [65520.0, -1e9, np.inf, np.nan])
def test_maps_that_float16_cannot_hold_are_refused(value: float, tmp_path: Path) -> None:
    heat = np.full((2, 2), value, np.float32)
    with pytest.raises(OutputError, match="range of float16"):
        write_submission(tmp_path, "can", "test_private", Path("0.png"), heat, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_submission_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    blocked = tmp_path / "submission"
    blocked.write_text("a file", encoding="utf-8")
    heat = np.ones((2, 2), np.float32)
    with pytest.raises(OutputError, match="could not be written"):
        write_submission(blocked, "can", "test_private", Path("0.png"), heat, 1.0)
