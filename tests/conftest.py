"""Generated photos, a small model fitted on them, and the folder of real photos where there is one.

Photos are generated from seeds and stored nowhere; models have random weights unless a test says
otherwise, so that nothing is looked for or downloaded.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from typer.testing import CliRunner

import reconpatch
from reconpatch.cli.main import app
from reconpatch.errors import WorkersError
from reconpatch.scale.workers import on_ray

if TYPE_CHECKING:
    from reconpatch.model.model import Model

RGB = npt.NDArray[np.uint8]

SIDE = 96
GOOD_PHOTOS = 8
REPOSITORY = Path(__file__).parents[1]

WAIT = 600
"""Seconds that a test waits at most for an event: so many that only one that never comes takes
them, however busy the machine is."""

# How long an example takes says nothing on a busy machine.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A fit of a second: small photos, few steps, random weights.
SMALL_FIT: dict[str, Any] = {
    "weights": "random",
    "size": (64, 64),
    "bank": 0.2,
    "init": "identity",
    "steps": 5,
    "guard": False,
    "batch_size": 64,
    "dim": 16,
    "threads": 1,
}


# A fit of a few seconds by the default recipe, whose f learns from confirmed defects.
TEACHABLE_FIT: dict[str, Any] = {
    "weights": "random",
    "size": (64, 64),
    "bank_least": 60,
    "defects": 4,
    "made": 12,
    "turns": "never",
    "threads": 1,
    "seed": 3,  # by which few good parts score near the threshold
    "overall_share": 0.0,  # by the mean of all distances it would find them as it is
}
MONDAY = range(20, 26)
"""Seeds of the good parts that `teachable_model_file` is fitted on."""


TRAYS = 40
TRAY_FIT: dict[str, Any] = {
    "weights": "random",
    "size": 128,
    "bank_least": 200,
    "turns": "never",
    "made": 24,
    "defects": 8,
    "threads": 1,
}
"""A fit of a few seconds on trays, whose image score asks what they are made of."""
MISSING = (0, 0, 0, 1, 1, 1, 2, 2, -1)


def tray(seed: int, kinds: tuple[int, ...] = (0, 0, 0, 1, 1, 1, 2, 2, 2)) -> RGB:
    """Nine discs of three colours in any order, (128, 128, 3) uint8; -1 leaves one out."""
    rng = np.random.default_rng(seed)
    photo = np.full((128, 128, 3), 120.0)
    y, x = np.mgrid[:128, :128]
    for at, kind in enumerate(rng.permutation(kinds)):
        if kind >= 0:
            down, across = 22 + 42 * np.array(divmod(at, 3))
            photo[np.hypot(y - down, x - across) < 15] = np.roll([200, 60, 60], kind)
    noisy: RGB = np.clip(photo + rng.normal(0, 3, photo.shape), 0, 255).astype(np.uint8)
    return noisy


def textured(seed: int, height: int = SIDE, width: int = SIDE) -> RGB:
    """A good part: a disc on a woven texture, (height, width, 3) uint8; grain differs by seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / min(height, width)
    weave = 110 + 25 * np.sin(40 * x) * np.sin(40 * y)
    disc = 50 * (np.hypot(y - 0.5, x - 0.5) < 0.3)
    grain = rng.normal(0, 6, (height, width, 3))
    photo: RGB = np.clip((weave + disc)[:, :, None] + grain, 0, 255).astype(np.uint8)
    return photo


def scratched(photo: RGB) -> RGB:
    """The same part with a bright scratch, over the pixels that `scratch_mask` tells."""
    return np.where(scratch_mask(*photo.shape[:2])[:, :, None], np.uint8(255), photo)


def scratch_mask(height: int = SIDE, width: int = SIDE) -> npt.NDArray[np.bool_]:
    """Where the scratch is: (height, width) bool, a bar of a sixth by two thirds of the photo."""
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 3 : height // 2, width // 6 : width * 5 // 6] = True
    return mask


def checkered(photo: RGB, x: int, y: int, side: int = 44) -> RGB:
    """The same part with a faint pattern of checks at x, y, which few models find unasked."""
    rows, columns = np.mgrid[: photo.shape[0], : photo.shape[1]]
    signs = ((columns // 4 + rows // 4) % 2 * 2 - 1)[y : y + side, x : x + side, None]
    changed = photo.astype(np.int64)
    changed[y : y + side, x : x + side] += 20 * signs
    return np.clip(changed, 0, 255).astype(np.uint8)


def is_at_scratch(x: int, y: int) -> bool:
    """Whether a pixel of a photo lies on the scratch, or within a place of the grid of it."""
    place = SIDE // 8
    rows, columns = (slice(max(0, at - place), at + place + 1) for at in (y, x))
    return bool(scratch_mask()[rows, columns].any())


def save(pixels: npt.NDArray[Any], path: Path) -> Path:
    """Write an array as an image file, its folders made; the path again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def command(*arguments: object) -> Any:
    """What the command line makes of arguments: exit code, output, and what is on stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fill(folder: Path, seeds: Sequence[int]) -> Path:
    """A folder of good parts, part000.png and so on by seed."""
    for seed in seeds:
        save(textured(seed), folder / f"part{seed:03}.png")
    return folder


QUICK = (
    "tests/method",
    "tests/photos",
    "tests/model/test_good_photos.py",
    "tests/cli/test_exit_codes.py",
    "tests/test_files.py",
    "tests/test_memory.py",
    "tests/test_troubleshooting.py",
)
"""Folders and files of `-m quick`: for the inner loop, in under two minutes on idle cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests, by where they lie."""
    quick = tuple(REPOSITORY / place for place in QUICK)
    for item in items:
        if any(item.path.is_relative_to(place) for place in quick):
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 photos of good parts, 96 x 96 PNG; not to be changed."""
    return fill(tmp_path_factory.mktemp("photos") / "good", range(GOOD_PHOTOS))


@pytest.fixture(scope="session")
def small_model(good_folder: Path) -> Model:
    """A model of `good_folder`; models do not change."""
    return reconpatch.fit(good_folder, **SMALL_FIT)


@pytest.fixture(scope="session")
def small_model_file(small_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `small_model`; not to be changed."""
    path = tmp_path_factory.mktemp("models") / "small.rcp"
    small_model.save(path)
    return path


@pytest.fixture(scope="session")
def teachable_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a model of the parts of `MONDAY` that learns from defects; not to be changed."""
    folder = tmp_path_factory.mktemp("teachable")
    model = reconpatch.fit(fill(folder / "good", MONDAY), **TEACHABLE_FIT)
    model.save(folder / "teachable.rcp")
    return folder / "teachable.rcp"


@pytest.fixture(scope="session")
def tray_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of good trays; not to be changed."""
    folder = tmp_path_factory.mktemp("trays")
    for seed in range(TRAYS):
        save(tray(seed), folder / f"{seed:02}.png")
    return folder


@pytest.fixture(scope="session")
def tray_model(tray_folder: Path) -> Model:
    """A model of `tray_folder`, by which a tray with a disc missing is anomalous as a whole."""
    return reconpatch.fit(tray_folder, **TRAY_FIT)


@pytest.fixture(scope="session")
def good_photo() -> RGB:
    """A good part that is not among those of `good_folder`."""
    return textured(1000)


@pytest.fixture(scope="session")
def defective_photo(good_photo: RGB) -> RGB:
    """The same part with a bright scratch."""
    return scratched(good_photo)


def kill_workers_at_work(*, wait: bool = True) -> list[int]:
    """Kill every worker of this process's cluster that is at a task; their process ids.

    Args:
        wait: until one is at a task, which may be between two when it is looked for.
    """
    psutil = pytest.importorskip("psutil", reason="needed to find the workers")
    killed: list[int] = []
    end = time.monotonic() + WAIT
    while not killed:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "".join(process.cmdline()).startswith("ray::_guarded"):
                    process.kill()
                    killed.append(process.pid)
        if not wait or time.monotonic() > end:
            break
    return killed


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Two workers on this machine; this process is connected to them until the last test."""
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with pytest.MonkeyPatch.context() as patched:
        # Workers unpickle functions of the tests, which they have to find.
        patched.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "tests"), *sys.path]))
        patched.setattr(ray, "init", partial(ray.init, num_cpus=2, object_store_memory=10**8))
        with ExitStack() as stack:
            for last in (False, False, False, True):
                try:
                    stack.enter_context(on_ray("ray"))
                    break
                except WorkersError:  # Ray itself gives a start 30 seconds, and no option for more
                    ray.shutdown()
                    if last:
                        raise
            yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("RECONPATCH_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real photos: {folder} is no folder, and RECONPATCH_DATA names no other")
    return folder
