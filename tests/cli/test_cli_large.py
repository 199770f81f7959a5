"""Tiles, regions of interest and registration, as the command line has them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from conftest import command as run
from conftest import save, textured

QUICK = ["--weights", "random", "--size", "64", "--bank", "300", "--set", "defects=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli-large")
    for seed in range(4):
        save(textured(seed, 128, 160), folder / "good" / f"{seed}.png")
    bad = textured(1, 128, 160)
    bad[90:104, 120:134] = (255, 0, 0)
    save(bad, folder / "new" / "bad.png")
    save(textured(0, 128, 160), folder / "new" / "good.png")
    region = np.zeros((128, 160), np.uint8)
    region[:, :100] = 255
    Image.fromarray(region).save(folder / "roi.png")
    return folder


def test_tiles_from_fit_to_report(folder, tmp_path):
    fitted = run(
        "fit", folder / "good", "-o", tmp_path / "t.rcp", "--tile", 64, "--overlap", 16, *QUICK
    )
    assert fitted.exit_code == 0, fitted.output
    found = run("inspect", tmp_path / "t.rcp", folder / "new", "--json", "-o", tmp_path / "report")
    assert found.exit_code == 1, found.output
    bad, good = (json.loads(line) for line in found.stdout.splitlines())
    assert (bad["anomalous"], good["anomalous"]) == (True, False)
    assert (bad["width"], bad["height"]) == (160, 128)
    x, y = bad["regions"][0]["peak"]
    assert abs(x - 127) < 14
    assert abs(y - 97) < 14
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "64 x 64 pixels, for each tile of 64 pixels" in page
    said = run("info", tmp_path / "t.rcp").stdout
    assert "tile                   64" in said
    assert "overlap                16" in said


def test_a_region_hides_what_lies_outside(folder, tmp_path):
    model = tmp_path / "r.rcp"
    fitted = run("fit", folder / "good", "-o", model, "--roi", folder / "roi.png", *QUICK)
    assert fitted.exit_code == 0, fitted.output
    assert run("inspect", model, folder / "new", "-o", tmp_path / "report").exit_code == 0
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "64 x 64 pixels, 62% of the photo" in page
    said = run("info", model).stdout
    assert "62.5% of 160 x 128 pixels" in said
    assert "base64" not in said


def test_registration_is_asked_for_by_one_word(folder, tmp_path):
    model = tmp_path / "m.rcp"
    fitted = run("fit", folder / "good", "-o", model, "--register", *QUICK)
    assert fitted.exit_code == 0, fitted.output
    assert "to a good photo of 160 x 128 pixels" in run("info", model).stdout


def test_an_automatic_tile_follows_the_smallest_defect(folder, tmp_path):
    arguments = [a for a in QUICK if a not in ("--size", "64")]
    fitted = run(
        "fit", folder / "good", "-o", tmp_path / "a.rcp", "--tile", "auto",
        "--smallest-defect", 12, *arguments,
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    # 12 pixels are enough at the photo's own scale, at which 224 hold all of it: no tiles.
    facts = json.loads(run("info", tmp_path / "a.rcp", "--json").stdout)
    assert (facts["settings"]["tile"], facts["settings"]["size"]) == (0, [224, 224])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tile", "big"], "give a whole number"),
        (["--tile", "auto"], "--smallest-defect 20"),
        (["--tile", 64, "--overlap", 60], "give 0 to half of the tile"),
        (["--roi", "none.png"], "none.png cannot be read"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(folder, tmp_path, arguments, said):
    refused = run("fit", folder / "good", "-o", tmp_path / "x.rcp", *QUICK, *arguments)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert not (tmp_path / "x.rcp").exists()
