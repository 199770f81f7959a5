"""Many products: what a manifest may say, what is kept, what fails alone; and on workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import reconpatch
from conftest import REPOSITORY, command, fill, kill_workers_at_work, save, scratched, textured
from reconpatch.errors import MissingExtraError, SettingsError
from reconpatch.evaluation.evaluate import LabelledFolder
from reconpatch.model.model import Model
from reconpatch.scale import products
from reconpatch.scale.outcome import Fitted, Row
from reconpatch.scale.products import Product, load_manifest
from reconpatch.scale.products_page import duration

fit_all = partial(products.fit_all, labelled=LabelledFolder)

DEFAULTS = """
[defaults]
weights = "random"
size = 64
bank = 0.2
init = "identity"
steps = 5
batch_size = 64
dim = 16
defects = 6
"""


def manifest(folder: Path, text: str, defaults: str = DEFAULTS) -> Path:
    path = folder / "products.toml"
    path.write_text(defaults + text, encoding="utf-8")
    return path


# --- The manifest ---------------------------------------------------------------------------------


def test_defaults_hold_for_every_product_and_its_own_come_first(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        '[products.cap]\ngood = "cap"\nseed = 3\nsize = "96x64"\n'
        '[products."wide label"]\ngood = "label/good"\ntest = "label/test"\ngroup = "(\\\\d+)"\n',
    )
    cap, label = load_manifest(path)
    assert (cap.name, cap.good, cap.test) == ("cap", tmp_path / "cap", None)
    assert (cap.settings[0].seed, cap.settings[0].size, cap.settings[0].bank) == (3, (96, 64), 0.2)
    assert (label.settings[0].seed, label.settings[0].size) == (0, (64, 64))
    assert label.test == tmp_path / "label" / "test"
    assert cap.options == {"weights": "random"}
    assert label.options == {"weights": "random", "group": "(\\d+)"}


def test_values_are_those_of_fit(tmp_path: Path) -> None:
    (product,) = load_manifest(
        manifest(
            tmp_path,
            '[products.cap]\ngood = "cap"\nmemory_limit = "2GiB"\nlevels = [2, 3]\nalpha = 0.3\n'
            'backbone = "resnet18"\nweights = "net.pth"\nsize = [224, "320x256"]\n',
            defaults="",
        )
    )
    assert product.options == {"memory_limit": 2 * 2**30, "weights": tmp_path / "net.pth"}
    assert [s.size for s in product.settings] == [(224, 224), (320, 256)]
    assert {(s.backbone, s.levels, s.training.alpha) for s in product.settings} == {
        ("resnet18", (2, 3), 0.3)
    }


def test_a_recipe_and_a_quality(tmp_path: Path) -> None:
    paper, best = load_manifest(
        manifest(
            tmp_path,
            '[products.a]\ngood = "a"\nrecipe = "paper"\n'
            '[products.b]\ngood = "b"\nquality = "best"\n',
            defaults="",
        )
    )
    assert [settings.recipe for settings in paper.settings] == ["paper"]
    assert len(best.settings) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[product.cap]", "has the key 'product', which is not known there: did you mean products"),
        ("", "names no product"),
        ("[products.cap]\n", r"\[products\.cap\] has no good"),
        ("[products]\ncap = 3", r"\[products\.cap\] is 3: give a table"),
        ('[products.cap]\ngood = "a"\nsead = 1', "'sead', which is not known there: did you mean"),
        ('[products.cap]\ngood = "a"\nxyzzy = 1', "'xyzzy', which is not known there: give good,"),
        ('[products.cap]\ngood = "a"\nseed = -1', r"\[products\.cap\]: the seed is -1"),
        ('[products.cap]\ngood = "a"\nsize = "big"', r"\[products\.cap\]: size is 'big'"),
        ('[products.cap]\ngood = "a"\nthumbnails = "no"', "thumbnails is 'no': give a valid bool"),
        ('[products.cap]\ngood = "a"\nthreads = 2', "has the key 'threads'"),
        ('[products.cap]\ngood = "a"\non = "ray"', "has the key 'on'"),
        ('[products.cap]\ngood = "a"\nquality = "good"', "the quality is 'good'"),
        ("[products.cap]\ngood = 3", "good is 3: give the path of a folder"),
        ('[products."../cap"]\ngood = "a"', "a product is named with up to 64 letters"),
        ('[products.cap]\ngood = "a"\n[products.Cap]\ngood = "b"', "but for capitals"),
        ("good = ", "is not TOML"),
    ],
)
def test_what_a_manifest_may_not_say(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said) as error:
        load_manifest(manifest(tmp_path, text, defaults=""))
    assert "\n" not in str(error.value)


def test_a_default_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\[defaults\] has the key 'good'"):
        load_manifest(manifest(tmp_path, "[defaults]\ngood = 'a'", defaults=""))


def test_there_has_to_be_a_manifest(tmp_path: Path) -> None:
    done = command("fit-all", tmp_path / "no.toml", "-o", tmp_path)
    assert done.exit_code == 2
    assert "no.toml is no file: give the path of a TOML file" in done.stderr


def test_every_key_that_the_page_names_is_known() -> None:
    page = (REPOSITORY / "docs" / "products.md").read_text(encoding="utf-8")
    keys = page.partition("- **Keys** are")[2].partition("**A failure")[0]
    named, known = set(re.findall(r"`([a-z_]+)`", keys)), set(products._known())
    assert named - {"good", "test"} <= known
    assert known >= {"alpha", "seed", "bank", *named} - {"good", "test"}


# --- A run ----------------------------------------------------------------------------------------

PRODUCTS = """
[products.cap]
good = "cap/good"
test = "cap/test"

[products.disc]
good = "disc"
seed = 1

[products.missing]
good = "nowhere"
"""


def photos(folder: Path) -> Path:
    """The photos that PRODUCTS speaks of, in a folder beside which a manifest fits."""
    fill(folder / "cap" / "good", range(6))
    fill(folder / "cap" / "test" / "good", [20, 21])
    save(scratched(textured(22)), folder / "cap" / "test" / "scratch" / "a.png")
    fill(folder / "disc", range(30, 35))
    return manifest(folder, PRODUCTS)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted]:
    """A manifest and what came of it in this process; not to be changed."""
    path = photos(tmp_path_factory.mktemp("products"))
    return path, fit_all(load_manifest(path), path.parent / "models", threads=1)


@pytest.fixture
def count_fits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders that are fitted on from now on."""
    fits: list[Path] = []
    fit = products.fit_members

    def counted(good: Any, *rest: Any) -> Any:
        fits.append(good)
        return fit(good, *rest)

    monkeypatch.setattr(products, "fit_members", counted)
    return fits


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((folder / "summary.json").read_text("utf-8"))["products"]
    return {row["name"]: row for row in rows}


def test_each_product_has_its_model(here: tuple[Path, Fitted]) -> None:
    path, outcome = here
    cap, disc, missing = outcome.rows
    assert [row.status for row in outcome.rows] == ["fitted", "fitted", "failed"]
    assert "nowhere" in str(missing.error)
    assert outcome.failures == [missing]
    assert sorted(file.name for file in outcome.folder.iterdir()) == [
        "cap.rcp", "disc.rcp", "summary.html", "summary.json",
    ]  # fmt: skip
    for row, count in ((cap, 6), (disc, 5)):
        model = reconpatch.load(outcome.folder / str(row.model))
        assert (row.photos, row.fingerprint) == (count, model.fingerprint)
        assert row.threshold == model.threshold
        assert row.promised_rate == pytest.approx(1 / (count + 1))
        assert row.quality == model.members[0].provenance["quality"]
    alone = reconpatch.fit(
        path.parent / "disc", seed=1, weights="random", size=64, bank=0.2, init="identity",
        steps=5, batch_size=64, dim=16, defects=6, threads=1,
    )  # fmt: skip
    assert disc.fingerprint == alone.fingerprint


def test_a_test_folder_is_measured(here: tuple[Path, Fitted]) -> None:
    cap, disc, _ = here[1].rows
    assert cap.test
    assert cap.test["photos"] == {"good": 2, "defective": 1, "masks": 0}
    assert disc.test is None


def test_the_summary_is_what_came_of_it(here: tuple[Path, Fitted]) -> None:
    assert stored(here[1].folder) == {
        row.name: json.loads(json.dumps(row.to_dict())) for row in here[1].rows
    }


def test_the_page_shows_failures_first_and_stands_alone(here: tuple[Path, Fitted]) -> None:
    text = (here[1].folder / "summary.html").read_text("utf-8")
    assert "2 of 3 products have a model" in text
    assert text.index("<b>missing</b>") < text.index("<b>disc</b>")
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []
    assert text.count("data:image/jpeg;base64,") == 2
    assert "cannot promise less than" not in text.partition("</style>")[0]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("on", [[], ["--on", "ray"]])
def test_what_has_not_changed_is_kept(
    here: tuple[Path, Fitted], count_fits: list[Path], tmp_path: Path, on: list[str]
) -> None:
    path, before = here
    for file in before.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    done = command("fit-all", path, "-o", tmp_path, "--threads", 1, *on)
    assert done.exit_code == 3, done.output
    assert "cap: 6 photos, kept as it was" in done.stderr
    assert "missing: failed: " in done.stderr
    assert done.stdout.startswith("2 of 3 products have a model, 2 of them kept\n")
    assert count_fits == []
    for name, row in stored(tmp_path).items():
        old = stored(before.folder)[name]
        assert row == {**old, "status": "failed" if old["error"] else "kept"}


def test_what_has_changed_is_fitted_again(tmp_path: Path, count_fits: list[Path]) -> None:
    path, models = photos(tmp_path), tmp_path / "models"
    fit_all(load_manifest(path), models, threads=1)
    manifest(tmp_path, PRODUCTS.replace("seed = 1", "seed = 2"))
    changed = fit_all(load_manifest(path), models, threads=1)
    assert [row.status for row in changed.rows] == ["kept", "fitted", "failed"]
    fill(tmp_path / "cap" / "good", [6])
    fill(tmp_path / "nowhere", range(50, 53))
    changed = fit_all(load_manifest(path), models, threads=1)
    assert [row.status for row in changed.rows] == ["fitted", "kept", "fitted"]
    assert changed.rows[0].photos == 7
    assert [good.name for good in count_fits] == ["good", "disc", "disc", "good", "nowhere"]
    assert changed.failures == []


def test_a_run_that_is_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: tuple[Path, Fitted]
) -> None:
    path, models = photos(tmp_path), tmp_path / "models"
    with monkeypatch.context() as patched:
        patched.setattr("reconpatch.model.file.atomic_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit_all(load_manifest(path), models, threads=1)
    assert list(models.iterdir()) == []

    def stop(row: Row) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_all(load_manifest(path), models, threads=1, finished=stop)
    assert list(stored(models)) == ["cap"]
    outcome = fit_all(load_manifest(path), models, threads=1)
    assert [row.status for row in outcome.rows] == ["kept", "fitted", "failed"]
    assert [r.fingerprint for r in outcome.rows] == [r.fingerprint for r in here[1].rows]


def stopped(path: Path) -> Any:
    raise KeyboardInterrupt


def test_a_model_of_another_command_is_not_replaced(tmp_path: Path, small_model_file: Path) -> None:
    path, models = photos(tmp_path), tmp_path / "models"
    models.mkdir()
    (models / "disc.rcp").write_bytes(small_model_file.read_bytes())
    (models / "cap.rcp").write_bytes(b"no model")
    arguments = "fit-all", path, "-o", models, "--threads", 1, "--json"
    done = command(*arguments)
    assert done.exit_code == 3
    rows = {row["name"]: row for row in json.loads(done.stdout)["products"]}
    assert "is there already and is of another command" in rows["disc"]["error"]
    assert "cap.rcp" in rows["cap"]["error"]
    assert (models / "disc.rcp").read_bytes() == small_model_file.read_bytes()
    done = command(*arguments, "--overwrite")
    assert [row["status"] for row in json.loads(done.stdout)["products"]] == [
        "fitted", "fitted", "failed",
    ]  # fmt: skip


def test_a_test_folder_that_does_not_fit_costs_no_model(tmp_path: Path) -> None:
    path = photos(tmp_path)
    fill(tmp_path / "cap" / "test", [90])
    outcome = fit_all(load_manifest(path)[:1], tmp_path / "models", threads=1)
    (row,) = outcome.rows
    assert row.status == "fitted"
    assert "lies beside the folders of" in str(row.test_error)
    assert outcome.failures == [row]
    assert "Not measured on test photos" in (outcome.folder / "summary.html").read_text("utf-8")


def test_a_kept_model_with_pictures_that_are_none_stops_no_other(tmp_path: Path) -> None:
    wanted = load_manifest(photos(tmp_path))[:1]
    fit_all(wanted, tmp_path / "models", threads=1)
    file = tmp_path / "models" / "cap.rcp"
    model = reconpatch.load(file)
    assert isinstance(model, Model)
    replace(model, thumbnails=(b"nothing",) * len(model.photos)).save(file, overwrite=True)
    (row,) = fit_all(wanted, tmp_path / "models", threads=1).rows
    assert row.status == "failed"
    assert "A picture in the model file is not a JPEG" in str(row.error)


def test_an_error_that_nobody_foresaw_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise MemoryError

    path = photos(tmp_path)
    monkeypatch.setattr(products, "fit_members", fail)
    outcome = fit_all(load_manifest(path), tmp_path / "models")
    assert [row.error for row in outcome.rows[:2]] == ["MemoryError: no reason given"] * 2


def test_without_the_extra_nothing_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise MissingExtraError("fit", "train")

    monkeypatch.setattr(products, "fit_members", fail)
    with pytest.raises(MissingExtraError):
        fit_all(load_manifest(photos(tmp_path)), tmp_path / "models")


def test_a_summary_of_something_else_is_refused(tmp_path: Path) -> None:
    path = photos(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    done = command("fit-all", path, "-o", tmp_path)
    assert done.exit_code == 2
    assert "is not a file that this command wrote" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- On many workers ------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray_cluster")
def test_workers_make_the_models_of_one_process(here: tuple[Path, Fitted]) -> None:
    """The worker at work is killed when the first product is done; nothing is lost by it."""
    path, alone = here
    killed: list[int] = []

    def kill(row: Row) -> None:
        killed.extend(kill_workers_at_work(wait=not killed))

    products_ = [Product("first", path.parent / "nowhere", None, [], {}), *load_manifest(path)]
    outcome = fit_all(products_, path.parent / "on workers", on="ray", finished=kill)
    assert killed
    assert [row.name for row in outcome.rows] == ["first", "cap", "disc", "missing"]
    for row, same in zip(outcome.rows[1:], alone.rows, strict=True):
        # A worker that dies with the file written, but before it says so, leaves one to be kept.
        assert row.status in (same.status, "kept" if same.status == "fitted" else same.status)
        assert (row.error, row.photos) == (same.error, same.photos)
        assert row.fingerprint == same.fingerprint
        assert row.quality == same.quality
    assert sorted(file.name for file in outcome.folder.iterdir()) == sorted(
        file.name for file in alone.folder.iterdir()
    )
