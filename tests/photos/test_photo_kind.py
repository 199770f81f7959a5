"""Photos of another kind than those of the fit are told, once a run; those of its kind never."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import reconpatch
from conftest import SIDE, SMALL_FIT, command, save, scratched, textured
from reconpatch.errors import ModelFileError
from reconpatch.fitting.update import update
from reconpatch.model.model import Inspector
from reconpatch.photos.images import read_photo
from reconpatch.photos.kind import Kind, KindsSeen, Look, kind_notes

Array = npt.NDArray[Any]
GREY = "The photo is grey, and those of the fit are in colour."
COLOUR = "The photo is in colour, and those of the fit are grey."
BGR = "The photo's red and blue seem to be swapped: arrays are RGB, and OpenCV reads BGR"
DEEP = "The photo has 16 bits a channel, and those of the fit have 8 bits."


def brown(seed: int, height: int = SIDE, width: int = SIDE) -> npt.NDArray[np.uint8]:
    """A good part whose texture is brown, (height, width, 3) uint8."""
    tint = np.array([1.0, 0.9, 0.7])
    return (textured(seed, height, width) * tint).astype(np.uint8)


def faint(seed: int) -> npt.NDArray[np.uint8]:
    """A part nearly without colour: the disc is bluish by 6 levels, all else yellowish by 6."""
    grey = textured(seed).mean(axis=2)[:, :, None]
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    bluish = np.where(np.hypot(y - 0.5, x - 0.5) < 0.3, 6, -6)[:, :, None]
    return np.clip(grey + bluish * [-0.5, 0, 0.5], 0, 255).astype(np.uint8)


def grey(photo: Array) -> Array:
    return photo.mean(axis=2).astype(np.uint8)


def looks(photos: Sequence[Array]) -> list[Look]:
    return [Look.at(read_photo(photo), 65535) for photo in photos]


def told(fitted: Sequence[Array], photo: Array) -> tuple[str, ...]:
    """What is said of a photo by a fit on some."""
    of_fit = looks(fitted)
    return Kind.of(of_fit).differences(looks([photo])[0], [o.width / o.height for o in of_fit])


BROWN = [brown(i) for i in range(6)]
FAINT = [faint(i) for i in range(6)]


@pytest.mark.parametrize("fitted", [BROWN, FAINT, [grey(photo) for photo in BROWN]])
def test_a_photo_of_the_kind_is_not_told(fitted: list[Array]) -> None:
    new = {id(BROWN): brown, id(FAINT): faint}.get(id(fitted), lambda i: grey(brown(i)))
    for photo in (new(50), scratched(new(51)) if new(51).ndim == 3 else new(51)):
        assert told(fitted, photo) == ()
        assert told(fitted, (photo / 255).astype(np.float32)) == ()


def test_grey_and_colour() -> None:
    assert told(BROWN, grey(brown(50))) == (GREY,)
    assert told(BROWN, np.repeat(grey(brown(50))[:, :, None], 3, axis=2)) == (GREY,)
    greys = [grey(photo) for photo in BROWN]
    assert told(greys, brown(50)) == (COLOUR,)
    equal = [np.repeat(photo[:, :, None], 3, axis=2) for photo in greys]
    assert told(equal, brown(50)) == (COLOUR,)
    assert told(equal, grey(brown(50))) == ()  # one channel or three equal ones


@pytest.mark.parametrize("fitted", [BROWN, FAINT])
def test_red_and_blue_swapped(fitted: list[Array]) -> None:
    photo = (brown if fitted is BROWN else faint)(50)
    [said] = told(fitted, photo[:, :, ::-1])
    assert said.startswith(BGR)


def test_where_colours_tell_nothing_no_swap_is_told() -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8) for i in range(6)]
    assert told(noise[:5], noise[5][:, :, ::-1]) == ()


def test_depth() -> None:
    deep = brown(50).astype(np.uint16) * 257
    assert told(BROWN, deep) == (DEEP,)
    assert told([photo.astype(np.uint16) * 257 for photo in BROWN], deep) == ()
    assert told([*BROWN, deep], deep) == ()


@pytest.mark.parametrize(
    ("fitted", "size", "said"),
    [
        ([(96, 128)], (128, 96), "turned: it is higher than wide, and those of the fit are wider"),
        ([(128, 96)], (96, 128), "turned: it is wider than high, and those of the fit are higher"),
        ([(96, 128)], (192, 256), ""),
        ([(96, 128)], (96, 126), ""),  # a cropped row
        ([(96, 128), (128, 96)], (96, 96), ""),  # between those of the fit
        (
            [(96, 128)],
            (96, 96),
            r"another shape than those of the fit (1.33 times as wide as high)",
        ),
        ([(96, 96), (96, 128)], (96, 200), "shape than those of the fit (1.00 to 1.33 times"),
    ],
)
def test_shapes(fitted: list[tuple[int, int]], size: tuple[int, int], said: str) -> None:
    notes = told([brown(i, *shape) for i, shape in enumerate(fitted)], brown(50, *size))
    assert [said in note for note in notes] == ([True] if said else [])


def test_a_fit_on_photos_of_several_kinds_says_so() -> None:
    assert kind_notes(looks(BROWN)) == []
    [note] = kind_notes(looks([*BROWN, grey(brown(9))]))
    assert note.startswith("1 of the 7 good photos are grey and 6 in colour: a model for each")
    [note] = kind_notes(looks([*BROWN, brown(9).astype(np.uint16) * 257]))
    assert note.startswith("Of the 7 good photos 1 have 16 bits and 6 have 8 bits a channel:")
    [note] = kind_notes(looks([brown(1, 96, 128), brown(2, 96, 128), brown(3, 128, 96)]))
    assert note.startswith(
        "2 of the 3 good photos are wider than high and 1 higher than wide (0.75"
    )


def test_kinds_are_said_once_with_their_numbers() -> None:
    seen = KindsSeen()
    assert seen.add([GREY]) == [GREY]
    assert seen.add([]) == []
    assert seen.add([GREY, DEEP]) == [DEEP]
    assert seen.sentences() == [f"2 of 3 photos: {GREY}", f"1 of 3 photos: {DEEP}"]


# --- Model, file, command line -------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for i, photo in enumerate(BROWN):
        save(photo, folder / "good" / f"{i}.png")
        save(grey(brown(10 + i)), folder / "grey" / f"{i}.png")
        save(brown(10 + i), folder / "new" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Inspector:
    reconpatch.fit(folder / "good", **SMALL_FIT).save(folder / "brown.rcp")
    return reconpatch.load(folder / "brown.rcp", threads=1)


def test_a_result_says_it_and_the_file_keeps_it(model: Inspector, tmp_path: Path) -> None:
    assert model.provenance["notes"] == []
    assert model.inspect(brown(50)).notes == ()
    assert model.inspect(brown(50)[:, :, ::-1]).to_dict()["notes"][0].startswith(BGR)
    assert json.loads(json.dumps(model.provenance["kind"])) == model.provenance["kind"]


def test_an_update_on_photos_of_another_kind_says_so(model: Inspector) -> None:
    photos = [read_photo(grey(brown(60))), read_photo(brown(61))]
    [note] = update(model, photos, confirmed=[read_photo(grey(brown(62)))]).provenance["notes"]
    assert note.startswith("The update learned photos of another kind than those of the fit: ")
    assert note.endswith(f"2 of 3 photos: {GREY}")
    assert update(model, photos[1:]).provenance["notes"] == []


def test_a_file_without_kinds_says_nothing(folder: Path) -> None:
    old = reconpatch.load(folder / "brown.rcp", threads=1)
    fingerprint = old.fingerprint
    del old.provenance["kind"]
    assert old.inspect(grey(brown(50))).notes == ()
    assert old.fingerprint == fingerprint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chroma", [1]), ("depths", []), ("red_less_blue", [0.0] * 63), ("alike", "x"),
        ("red_less_blue", [float("nan")] * 64), ("chroma", [1, float("inf")]),
    ],
)  # fmt: skip
def test_a_made_up_kind_is_refused(model: Inspector, tmp_path: Path, name: str, value: Any) -> None:
    made_up = reconpatch.load(model_file(model, tmp_path), threads=1)
    made_up.provenance["kind"][name] = value
    made_up.save(tmp_path / "made-up.rcp")
    with pytest.raises(ModelFileError, match="lacks the kind of its photos"):
        reconpatch.load(tmp_path / "made-up.rcp")


def model_file(model: Inspector, folder: Path) -> Path:
    model.save(folder / "model.rcp")
    return folder / "model.rcp"


def run(*arguments: object) -> tuple[int, str, str]:
    done = command(*arguments)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.usefixtures("model")
def test_a_run_says_it_once_on_stderr(folder: Path, tmp_path: Path) -> None:
    said = f"Another kind than the photos of the fit: 6 of 6 photos: {GREY}"
    code, out, err = run("inspect", folder / "brown.rcp", folder / "grey", "--json")
    assert code in (0, 1)
    assert err.splitlines() == [said]
    assert all(json.loads(line)["notes"] == [GREY] for line in out.splitlines())
    _, _, err = run("inspect", folder / "brown.rcp", folder / "grey", folder / "new")
    assert err.splitlines() == [said.replace("6 of 6", "6 of 12")]
    _, _, err = run("inspect", folder / "brown.rcp", folder / "new")
    assert err == ""
    _, _, err = run("calibrate", folder / "brown.rcp", folder / "grey", "-o", tmp_path / "b.rcp")
    assert err.splitlines().count(said) == 1
    for i in range(2):
        save(scratched(np.dstack([grey(brown(20 + i))] * 3)), tmp_path / "t" / "cut" / f"{i}.png")
        save(brown(20 + i), tmp_path / "t" / "good" / f"{i}.png")
    _, out, err = run("evaluate", folder / "brown.rcp", tmp_path / "t", "--json")
    assert f"2 of 4 photos: {GREY}" in err
    assert json.loads(out)["notes"] == [
        f"Another kind than the photos of the fit: 2 of 4 photos: {GREY}"
    ]
