"""The benchmark on miniature data sets with random weights, its configs, and the paper's tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from threadpoolctl import threadpool_limits

from conftest import fill, kill_workers_at_work, save, scratch_mask, scratched, textured
from reconpatch.errors import OutputError, PhotoError, SettingsError, WeightsError
from reconpatch.evaluation import benchmark
from reconpatch.evaluation import tables as benchmark_report
from reconpatch.evaluation.benchmark import run_benchmark
from reconpatch.evaluation.config import load_config
from reconpatch.evaluation.datasets import LabelledPhoto
from reconpatch.evaluation.other_programs import (
    OtherRecord,
    OtherResults,
    PhotoCounts,
    write_other_results,
)
from reconpatch.evaluation.published import PUBLISHED, published
from reconpatch.evaluation.tables import (
    PICTURES_EACH,
    BenchmarkOutcome,
    Gallery,
    Record,
    metric_tables,
    roc_points,
    write_tables,
)
from reconpatch.features.extractor import FeatureExtractor
from reconpatch.result import ClosestPatch, Result
from test_benchmark_config import PAPER_CONFIGS

SMALL: dict[str, Any] = {
    "size": 64, "bank": 0.2, "steps": 3, "batch_size": 64, "dim": 16, "made": 10,
}  # fmt: skip
# Methods that learn from the same features: PatchCore has no expanded activations.
ALIKE = SMALL | {"init": "relevant_components", "turns": "never"}


def make_category(folder: Path, first: int, good: str = "good", bad: str = "scratch") -> Path:
    """MVTec's layout: 5 photos to fit on; 3 good and 3 scratched ones to test on, with masks."""
    fill(folder / "train" / good, range(first, first + 5))
    fill(folder / "test" / good, range(first + 10, first + 13))
    for seed in range(first + 20, first + 23):
        save(scratched(textured(seed)), folder / "test" / bad / f"{seed}.png")
        mask = scratch_mask().astype(np.uint8) * 255
        save(mask, folder / "ground_truth" / bad / f"{seed}{'_mask' * (bad != 'ko')}.png")
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories, "bottle" and "screw"; not to be changed."""
    root = tmp_path_factory.mktemp("mvtec")
    for i, name in enumerate(("bottle", "screw")):
        make_category(root / name, 100 * i)
    return root


def run(root: Path, folder: Path, **given: Any) -> BenchmarkOutcome:
    """The benchmark with small settings and random weights, unless told otherwise."""
    chosen: dict[str, Any] = {
        "dataset": "mvtec", "methods": ["patchcore"], "weights": "random", "threads": 1,
        "changes": SMALL,
    }  # fmt: skip
    return run_benchmark(root, folder=folder, **{**chosen, **given})


def stored(folder: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())["records"]
    return records


def measured(folder: Path) -> str:
    """The tables in Markdown, but for what a clock says."""
    return (folder / "results.md").read_text("utf-8").partition("## Time and memory")[0]


def same_tables(one: Path, other: Path) -> bool:
    """Whether two runs measured the same, but for rounding of the last digit that is shown."""
    number = re.compile(r"\d+\.\d+")
    left, right = measured(one), measured(other)
    if number.sub("#", left) != number.sub("#", right):
        return False
    pairs = zip(number.findall(left), number.findall(right), strict=True)
    return all(abs(float(a) - float(b)) < 1.5 * 10.0 ** -len(a.partition(".")[2]) for a, b in pairs)


# --- End to end -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchmarkOutcome:
    """Both categories, two methods and two seeds; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    return run(tree, folder, methods=["reconpatch", "patchcore"], seeds=[0, 1])


def test_there_is_a_record_for_each_category_method_and_seed(whole: BenchmarkOutcome) -> None:
    made = [(r.category, r.method, r.seed) for r in whole.records]
    assert made == [
        (category, method, seed)
        for category in ("bottle", "screw")
        for method in ("reconpatch", "patchcore")
        for seed in (0, 1)
    ]
    assert whole.errors == []
    assert whole.reused == 0
    assert len(stored(whole.folder)) == 8


def test_a_record_says_what_was_measured_and_how(whole: BenchmarkOutcome, tree: Path) -> None:
    record = whole.records[0]
    assert record.counts == {"fit": 5, "good": 3, "defective": 3, "masked": 3}
    assert [settings["method"] for settings in record.settings] == ["reconpatch"]
    assert record.settings[0]["size"] == (64, 64)
    assert set(record.hashes) == {"files", "good photos", "model"}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in record.hashes.values())
    assert {"extract features", "train f", "inspect", "read", "metrics"} <= set(record.seconds)
    assert {"python", "torch", "reconpatch", "machine"} <= set(record.versions)
    assert any("photos' own resolution" in said for said in record.protocol)
    assert any("above half of white" in said for said in record.protocol)
    assert [name for name, _, _ in record.photos][:2] == [
        "bottle/test/good/part010.png",
        "bottle/test/good/part011.png",
    ]
    assert str(tree) not in (whole.folder / "results.json").read_text()


def test_metrics_are_those_of_the_scores(whole: BenchmarkOutcome) -> None:
    for record in whole.records:
        labels = [label != "good" for _, label, _ in record.photos]
        scores = [score for _, _, score in record.photos]
        area, precision = record.metrics["image_auroc"], record.metrics["image_ap"]
        assert area == pytest.approx(roc_auc_score(labels, scores))
        assert precision == pytest.approx(average_precision_score(labels, scores))
        flagged = [score > record.threshold["value"] for score in scores]
        assert record.threshold["detected"] == sum(flagged[3:])
        assert record.threshold["false_alarms"] == sum(flagged[:3])


def test_pixel_metrics_are_those_of_the_maps(tree: Path, tmp_path: Path) -> None:
    record = run(tree, tmp_path, categories=["bottle"]).records[0]
    import reconpatch

    photos = sorted((tree / "bottle" / "train" / "good").iterdir())
    model = reconpatch.fit(photos, method="patchcore", weights="random", threads=1, **SMALL)
    assert model.fingerprint == record.hashes["model"]
    truth, heat = [], []
    for path in sorted((tree / "bottle" / "test").glob("*/*.png")):
        heat.append(model.inspect(path).heatmap.ravel())
        empty = np.zeros(96 * 96, bool)
        truth.append(scratch_mask().ravel() if path.parent.name == "scratch" else empty)
    labels, values = np.concatenate(truth), np.concatenate(heat)
    assert record.metrics["pixel_auroc"] == pytest.approx(roc_auc_score(labels, values))
    assert record.metrics["pixel_ap"] == pytest.approx(average_precision_score(labels, values))


def test_the_tables_show_mean_and_spread_over_seeds(whole: BenchmarkOutcome) -> None:
    text = (whole.folder / "results.md").read_text("utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| bottle |"))
    values = [100 * (r.metrics["image_auroc"] or 0) for r in whole.records[:2]]
    low, high = min(values), max(values)
    assert row.split(" | ")[1] == f"{sum(values) / 2:.2f} ({low:.2f}–{high:.2f})"
    # 100 for bottle in both papers' columns; the mean is over the categories of this run.
    assert row.endswith("| 100.00 | 100.00 |")
    mean = next(line for line in text.splitlines() if line.startswith("| mean of 2 |"))
    assert mean.endswith(f"| {(100 + 98.52) / 2:.2f} | {(100 + 98.1) / 2:.2f} |")


def test_the_pages_say_how_the_figures_came_about(whole: BenchmarkOutcome) -> None:
    for name in ("results.md", "results.html"):
        text = (whole.folder / name).read_text("utf-8")
        for said in (
            "Nothing is chosen on test photos",
            "image F1-max (oracle)",
            "upper bound",
            "Changed from the config: size = 64",
            "random weights",
            "64 x 64 pixels, the whole photo",
            "is not used",
        ):
            assert said in text, (name, said)


def test_the_page_stands_alone(whole: BenchmarkOutcome) -> None:
    page = (whole.folder / "results.html").read_text("utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert not re.search("https?:|@import|url\\(", page)
    assert page.count("<svg viewBox") >= 2 * 5  # three curves and two histograms a category
    assert page.count("<polyline") >= 2 * 3 * 2
    assert "prefers-color-scheme: dark" in page
    shown = [p for r in whole.records if r.seed == 0 for p in r.pictures]
    assert page.count("data:image/jpeg;base64,") == len(shown)


def test_pictures_of_wrong_verdicts_are_kept(whole: BenchmarkOutcome) -> None:
    for record in whole.records:
        wrong = {
            ("miss" if label != "good" else "false alarm", name)
            for name, label, score in record.photos
            if (score > record.threshold["value"]) != (label != "good")
        }
        assert {(p.kind, p.photo) for p in record.pictures} == wrong  # there are three at most
        for picture in record.pictures:
            with Image.open(whole.folder / picture.file) as image:
                assert image.size == (2 * 96 + 4, 96)


# --- Interruption ---------------------------------------------------------------------------------


def count_fits(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[int]:
    """Counts the fits from now on; the one with that number is interrupted."""
    fits: list[int] = []
    fit = benchmark._fit

    def counted(*given: Any) -> Any:
        fits.append(len(fits) + 1)
        if len(fits) == stop_at:
            raise KeyboardInterrupt
        return fit(*given)

    monkeypatch.setattr(benchmark, "_fit", counted)
    return fits


def test_an_interrupted_run_goes_on_where_it_stopped(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_one_go = run(tree, tmp_path / "in one go")
    folder = tmp_path / "interrupted"
    fits = count_fits(monkeypatch, stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        run(tree, folder)
    assert [r["category"] for r in stored(folder)] == ["bottle"]
    first = stored(folder)[0]
    assert not (folder / "results.md").exists()

    calls: list[tuple[str, int, int]] = []
    outcome = run(tree, folder, progress=lambda *call: calls.append(call))
    assert len(fits) == 3  # one before, one that was stopped, one now
    assert [c for c in calls if c[0] == "benchmark"] == [("benchmark", n, 2) for n in (1, 2)]
    assert calls[0] == ("benchmark", 1, 2)  # nothing is done for the record that is there
    assert [r.category for r in outcome.records] == ["bottle", "screw"]
    assert outcome.reused == 1
    assert stored(folder)[0] == first
    assert measured(folder) == measured(in_one_go.folder)

    again = run(tree, folder)
    assert len(fits) == 3
    assert again.reused == 2


def test_what_decides_a_record_is_part_of_its_key(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    make_category(root / "bottle", 0)
    folder = tmp_path / "out"
    fits = count_fits(monkeypatch)
    run(root, folder)
    run(root, folder, seeds=[0, 1])
    assert len(fits) == 2  # another seed is another record
    run(root, folder, changes={**SMALL, "neighbourhood": 1})
    assert len(fits) == 3
    save(textured(77), root / "bottle" / "test" / "good" / "part010.png")
    run(root, folder, changes={**SMALL, "neighbourhood": 1})
    assert len(fits) == 4
    monkeypatch.setattr(benchmark, "_versions", lambda: {"reconpatch": "9"})
    run(root, folder, changes={**SMALL, "neighbourhood": 1})
    assert len(fits) == 5
    # Of one category, method and seed the last record stays; that of the other seed is untouched.
    assert sorted(r["seed"] for r in stored(folder)) == [0, 1]


def test_a_results_file_of_something_else_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"records": 1}')
    with pytest.raises(OutputError, match="is not a file that this command wrote"):
        run(tree, tmp_path)
    assert (tmp_path / "results.json").read_text() == '{"records": 1}'


# --- Shared features ------------------------------------------------------------------------------


def test_features_are_extracted_once_and_change_nothing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    extract = FeatureExtractor.__call__

    def counted(engine: FeatureExtractor, photos: Any) -> Any:
        seen.append(len(photos))
        return extract(engine, photos)

    monkeypatch.setattr(FeatureExtractor, "__call__", counted)
    methods = ["reconpatch", "untrained", "patchcore"]
    given: dict[str, Any] = {"methods": methods, "changes": ALIKE}
    shared = run(tree, tmp_path / "shared", **given)
    # Two categories: 5 photos to fit on, as many made defects, 6 to test on; and 6 of the first
    # two kinds once more, in other batches, to compare engines on.
    assert sum(seen) == 2 * (5 + 5 + 6 + 6)
    left = {path.name for path in shared.folder.iterdir()}
    assert left == {"results.json", "results.md", "results.html", "pictures"}

    seen.clear()
    monkeypatch.setattr(benchmark, "DISK_LIMIT", 0)
    each = run(tree, tmp_path / "each", **given)
    assert sum(seen) == 3 * 2 * (5 + 5 + 10 + 6)  # nothing can be kept
    for one, other in zip(shared.records, each.records, strict=True):
        assert (one.category, one.method, one.seed) == (other.category, other.method, other.seed)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-4)
        scores = [[score for *_, score in record.photos] for record in (one, other)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-5)


# --- Failures -------------------------------------------------------------------------------------


def test_a_category_that_fails_is_recorded_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    for i, name in enumerate(("bottle", "screw")):
        make_category(root / name, 100 * i)
    mask = root / "bottle" / "ground_truth" / "scratch" / "20_mask.png"
    save(np.zeros((40, 40), np.uint8), mask)
    fits = count_fits(monkeypatch)
    outcome = run(root, tmp_path / "out", seeds=[0, 1])
    assert len(fits) == 3  # the photos of bottle are not tried a second time
    assert [(r.category, r.seed) for r in outcome.errors] == [("bottle", 0), ("bottle", 1)]
    for record in outcome.errors:
        assert record.error is not None
        assert record.error.startswith("bottle/ground_truth/scratch/20_mask.png has 40 x 40")
        assert record.metrics == {}
    for name in ("results.md", "results.html"):
        text = (outcome.folder / name).read_text("utf-8")
        assert "bottle, patchcore, seed 0: bottle/ground_truth" in text
    table = metric_tables(outcome)[0]
    assert table.rows[0][:2] == ("bottle", "error")
    assert table.rows[1][1].startswith(
        f"{100 * (outcome.records[2].metrics['image_auroc'] or 0):.2f}"
    )
    assert table.rows[2][:2] == ("mean of 2", "–")  # no mean over the half that worked

    save(scratch_mask().astype(np.uint8) * 255, mask)
    assert run(root, tmp_path / "out", seeds=[0, 1]).errors == []
    assert len(fits) == 5


def test_other_errors_are_recorded_with_their_type(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(benchmark, "_fit", fail)
    outcome = run(tree, tmp_path)
    assert [r.error for r in outcome.records] == ["MemoryError: no reason given"] * 2


def test_what_concerns_every_record_ends_the_run(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        run(tree, tmp_path, weights=tmp_path / "missing.safetensors")
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["padim"]}, "the method is 'padim'"),
        ({"methods": []}, "no methods are given"),
        ({"seeds": []}, "no seeds are given"),
        ({"config": "paper-wrn18"}, "which is no file.*paper-wrn50-224"),
        ({"changes": {"sizes": 3}}, "there is no setting 'sizes'"),
        ({"seeds": [-1]}, "the seed is -1"),
    ],
)
def test_what_is_unknown_is_refused_before_anything_is_done(
    given: dict[str, Any], said: str, tree: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        run(tree, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_a_data_set_that_does_not_fit_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no category 'cable'"):
        run(tree, tmp_path / "out", categories=["cable"])
    assert not (tmp_path / "out").exists()


# --- Other data sets ------------------------------------------------------------------------------


def test_loco_is_measured_by_kind(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "box"
    make_category(folder, 0, bad="logical_anomalies")
    fill(folder / "validation" / "good", [50])
    truth = folder / "ground_truth"
    for old in list(truth.glob("*/*.png")):
        old.unlink()
    save(scratched(textured(60)), folder / "test" / "structural_anomalies" / "060.png")
    seen = [("logical_anomalies", str(s)) for s in (20, 21, 22)] + [("structural_anomalies", "060")]
    for kind, stem in seen:
        value = 200 if kind.startswith("logical") else 100
        save(scratch_mask().astype(np.uint8) * np.uint8(value), truth / kind / stem / "000.png")
    entries = [
        {"pixel_value": value, "saturation_threshold": share, "relative_saturation": True}
        for value, share in ((200, 0.5), (100, 1))
    ]
    (folder / "defects_config.json").write_text(json.dumps(entries))
    record = run(tmp_path / "data", tmp_path / "out", dataset="loco").records[0]
    assert record.error is None
    assert set(record.by_kind) == {"logical_anomalies", "structural_anomalies"}
    for name in ("image_auroc", "auspro", "auspro_005"):
        kinds = [figures[name] for figures in record.by_kind.values()]
        assert record.metrics[name] == pytest.approx(sum(kinds) / 2)
    assert any("mean of two" in said for said in record.protocol)
    assert "1 photos of validation are not used" in record.notes


def test_a_folder_without_masks_has_image_figures_only(tmp_path: Path) -> None:
    root = tmp_path / "parts"
    fill(root / "good", range(8))
    save(scratched(textured(60)), root / "bent" / "a.png")
    outcome = run(root, tmp_path / "out", dataset="folder")
    assert outcome.errors == []
    assert set(outcome.records[0].metrics) == {"image_auroc", "image_ap", "image_f1_max_oracle"}
    assert outcome.records[0].curves == {}


def test_a_photo_on_both_sides_is_noted(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_category(root / "bottle", 0)
    save(textured(1), root / "bottle" / "test" / "good" / "copy.png")
    record = run(root, tmp_path / "out").records[0]
    assert any("part001.png (fit) and bottle/test/good/copy.png (test)" in n for n in record.notes)


# --- Configs --------------------------------------------------------------------------------------


def test_a_config_of_ones_own_runs(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "mine"\n[settings]\nsize = [64, 32]\nbank = 0.2\n')
    outcome = run(tree, tmp_path / "out", config=path, changes={}, categories=["screw"])
    assert outcome.records[0].config == "mine"
    assert outcome.records[0].settings[0]["size"] == (64, 32)
    assert "Changed from the config" not in (outcome.folder / "results.md").read_text()


@pytest.mark.parametrize("config", PAPER_CONFIGS)
def test_the_papers_configs_run_end_to_end(config: str, tree: Path, tmp_path: Path) -> None:
    # All but these four: the size of the input, the epochs, the bank and the batch.
    small = {"size": 32, "resize": 36, "steps": 2, "bank": 0.5, "batch_size": 32}
    root, dataset = tree, "mvtec"
    if config == "paper-btad":
        root, dataset = tmp_path / "btad", "btad"
        make_category(root / "01", 0, good="ok", bad="ko")
    outcome = run(
        root, tmp_path / "out", dataset=dataset, config=config, changes=small,
        methods=["reconpatch"], categories=[sorted(p.name for p in root.iterdir())[0]],
    )  # fmt: skip
    assert [record.error for record in outcome.records] == [None]
    record = outcome.records[0]
    assert len(record.settings) == (3 if "ensemble" in config else 1)
    assert record.metrics["image_auroc"] is not None
    assert record.metrics["aupro"] is not None
    text = (outcome.folder / "results.md").read_text()
    assert "Changed from the config: size = 32, resize = 36, steps = 2" in text
    assert "paper: ReConPatch" in text or "ensemble" in config  # which have means only


# --- Disturbed photos -----------------------------------------------------------------------------


def test_disturbed_photos_are_fitted_on_and_tested(tree: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"categories": ["bottle"]}
    changes = {**SMALL, "backbone": "tf_efficientnet_lite0", "resize": 0}
    path = tmp_path / "still.toml"
    path.write_text('title = "still"\n[robustness]\nrotation = 0\n')
    still = run(tree, tmp_path / "a", config=path, **given).records[0]
    plain = run(tree, tmp_path / "b", **given).records[0]
    disturbed = run(tree, tmp_path / "c", config="paper-robustness", **given, changes=changes)
    # Photos that went through files, undisturbed, give the very same scores.
    assert still.photos == plain.photos
    assert still.metrics == plain.metrics
    record = disturbed.records[0]
    assert record.error is None
    assert record.hashes["files"] == plain.hashes["files"]
    assert record.hashes["good photos"] != plain.hashes["good photos"]
    assert record.photos != plain.photos
    assert any("disturbed by up to: rotation 10" in said for said in record.protocol)


# --- Published figures ----------------------------------------------------------------------------


def test_the_tables_say_whether_equation_10_ran(tree: Path, tmp_path: Path) -> None:
    """The recipe has b = 1, which re-weights nothing; with b the scores are others."""
    config = tmp_path / "papers.toml"
    config.write_text(
        'title = "t"\nrecipe = "paper"\n[settings]\nbackbone = "tf_efficientnet_lite0"\n'
        "size = 64\nresize = 0\nbank = 50\n"
    )
    scores = []
    for b, said in ((1, "is not applied, as in PatchCore's code (b = 1)"), (3, "with b = 3")):
        changes = {"defects": 0, "b": b}
        outcome = run(tree / "bottle", tmp_path / str(b), config=config, changes=changes)
        [record] = outcome.records
        assert record.error is None
        assert sum(said in line for line in record.protocol) == 1
        assert said in " ".join((outcome.folder / "results.md").read_text("utf-8").split())
        scores.append([score for *_, score in record.photos])
    assert all(0 < weighted < plain for plain, weighted in zip(*scores, strict=True))
    other = run(tree / "bottle", tmp_path / "default")
    assert not any("equation 10" in line for line in other.records[0].protocol)


@pytest.mark.parametrize("dim", [64, 1024])
def test_patchcore_of_fewer_dimensions_is_not_what_stands_beside_it(dim: int) -> None:
    assert f"features of {dim} dimensions" in published(f"patchcore-dim-{dim}").note
    assert "1,536 of WRN-50" in published(f"patchcore-dim-{dim}").note
    assert published(f"reconpatch-dim-{dim}").note == ""


def test_published_figures_are_the_papers() -> None:
    wrn50, wrn101 = published("reconpatch-wrn50-224"), published("reconpatch-wrn101-480")
    assert wrn50.figure("image_auroc", "pill") == 97.49
    assert wrn50.figure("image_auroc", "zipper") == 99.76
    assert wrn50.figure("pixel_auroc", "pill") is None
    assert wrn101.figure("image_auroc", "screw") == 99.84
    assert wrn101.figure("pixel_auroc", "wood") == 95.16
    assert published("patchcore-wrn50-224").figure("pixel_auroc", "tile") == 95.6
    assert published("reconpatch-btad").figure("image_auroc", "02") == 87.7
    assert published("patchcore-dim-64").means == {"image_auroc": 97.75}
    assert published("reconpatch-coreset-25").means == {"image_auroc": 99.24}
    assert published("reconpatch-robustness").means == {"image_auroc": 98.56}


@pytest.mark.parametrize("key", sorted(PUBLISHED))
def test_published_means_are_those_of_the_published_figures(key: str) -> None:
    column = PUBLISHED[key]
    for metric, figures in column.figures.items():
        assert len(figures) == {"mvtec": 15, "btad": 3}[column.dataset]
        mean = sum(figures.values()) / len(figures)
        # Means are published to one or two digits.
        assert column.mean(metric, list(figures)) == pytest.approx(mean, abs=0.05)


def test_a_mean_over_some_categories_is_worked_out_from_theirs() -> None:
    wrn50 = published("reconpatch-wrn50-224")
    assert wrn50.mean("image_auroc", ["pill", "screw"]) == pytest.approx((97.49 + 98.52) / 2)
    assert wrn50.mean("pixel_auroc", ["pill", "screw"]) is None
    all_of_them = list(wrn50.figures["image_auroc"])
    assert wrn50.mean("pixel_auroc", all_of_them) == 98.07
    assert wrn50.mean("image_auroc", ["pill", "gear"]) is None


# --- Tables and plots -----------------------------------------------------------------------------


def record(category: str, seed: int, area: float | None, error: str | None = None) -> Record:
    return Record(
        "default", "mvtec", category, "patchcore", seed, key="", created="",
        error=error, metrics={} if error else {"image_auroc": area},
    )  # fmt: skip


def outcome_of(*records: Record) -> BenchmarkOutcome:
    config = replace(load_config("default"), compare=())
    return BenchmarkOutcome(config, "mvtec", {}, False, records, 0, Path())


def test_a_table_by_hand() -> None:
    (table,) = metric_tables(
        outcome_of(
            record("a", 0, 0.9), record("a", 1, 0.8), record("b", 0, 0.7), record("b", 1, 0.4)
        )
    )
    # Seed 0: (90 + 70) / 2 = 80; seed 1: (80 + 40) / 2 = 60.
    assert table.rows == (
        ("a", "85.00 (80.00–90.00)"),
        ("b", "55.00 (40.00–70.00)"),
        ("mean of 2", "70.00 (60.00–80.00)"),
    )
    assert table.markdown().splitlines() == [
        "## image AUROC, %",
        "",
        "| category | patchcore |",
        "|---|---:|",
        "| a | 85.00 (80.00–90.00) |",
        "| b | 55.00 (40.00–70.00) |",
        "| mean of 2 | 70.00 (60.00–80.00) |",
    ]


def test_a_figure_that_is_missing_is_never_averaged_away() -> None:
    (table,) = metric_tables(
        outcome_of(
            record("a", 0, 0.9), record("a", 1, None, error="bad"),
            record("b", 0, 0.7), record("b", 1, 0.5),
        )
    )  # fmt: skip
    assert table.rows == (
        ("a", "90.00, 1 of 2 failed"),
        ("b", "60.00 (50.00–70.00)"),
        ("mean of 2", "–"),
    )


def other(category: str, seed: int, area: float | None, own: float | None = None) -> OtherRecord:
    own_metrics = {} if own is None else {"image_auroc": own}
    return OtherRecord(
        category, seed, PhotoCounts(5, 3, 3), {"image_auroc": area}, own_metrics,
        fit_seconds=10.0 + seed, ms_per_photo=20.0,
    )  # fmt: skip


def test_another_program_stands_beside_the_methods() -> None:
    records = (
        other("a", 0, 0.9, own=0.5), other("a", 1, 0.8, own=0.6),
        other("b", 0, 0.7, own=0.7), other("b", 1, 0.4, own=0.8),
    )  # fmt: skip
    rival = OtherResults("rival", "1.2", "PatchCore", "256 x 256 pixels", records)
    outcome = replace(outcome_of(record("a", 0, 1.0), record("b", 0, 0.5)), beside=[rival])
    (table,) = metric_tables(outcome)
    # Its means over the categories: 80 and 60 by this project's metrics, 60 and 70 by its own.
    assert table.columns == (
        "category", "patchcore", "rival 1.2 PatchCore", "rival 1.2 PatchCore, by its own metrics"
    )  # fmt: skip
    assert table.rows == (
        ("a", "100.00", "85.00 (80.00–90.00)", "55.00 (50.00–60.00)"),
        ("b", "50.00", "55.00 (40.00–70.00)", "75.00 (70.00–80.00)"),
        ("mean of 2", "75.00", "70.00 (60.00–80.00)", "65.00 (60.00–70.00)"),
    )
    assert table.quoted == 1
    assert benchmark_report._other_costs(rival) == ("10.5", "20.0", "–", "–")


def test_what_another_program_did_not_measure_is_a_dash() -> None:
    rival = OtherResults("rival", "1.2", "X", "", (other("a", 0, 0.9), other("a", 1, None)))
    outcome = replace(outcome_of(record("a", 0, 1.0), record("b", 0, 0.5)), beside=[rival])
    (table,) = metric_tables(outcome)
    assert table.columns == ("category", "patchcore", "rival 1.2 X")  # no metrics of its own
    assert [row[2] for row in table.rows] == ["–", "–", "–"]


def test_another_programs_file_goes_into_the_tables(tree: Path, tmp_path: Path) -> None:
    path = tmp_path / "rival.json"
    records = (other("bottle", 0, 0.9, own=0.5), other("tile", 0, 0.1))
    write_other_results(OtherResults("rival", "1.2", "X", "in words", records), path)
    outcome = run(tree, tmp_path / "out", beside=[path])
    for name in ("results.md", "results.html"):
        text = (outcome.folder / name).read_text("utf-8")
        assert "rival 1.2 X, by its own metrics" in text
        assert "rival 1.2 X (seeds 0): in words." in text
    text = (outcome.folder / "results.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| bottle |")]
    assert rows[0][2:4] == ["90.00", "50.00"]
    assert "| rival 1.2 X | 10.0 | 20.0 | – | – |" in text


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (replace(other("bottle", 0, 0.9), photos=PhotoCounts(9, 3, 3)), "saw other photos of bot"),
        (other("tile", 0, 0.9), "rival 1.2 X has no record of bottle, screw"),
    ],
)
def test_results_of_other_photos_are_refused(
    beside: OtherRecord, said: str, tree: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rival.json"
    write_other_results(OtherResults("rival", "1.2", "X", "in words", (beside,)), path)
    with pytest.raises(SettingsError, match=said):
        run(tree, tmp_path / "out", beside=[path])
    assert not (tmp_path / "out").exists()


def test_tables_are_written_when_nothing_worked(tmp_path: Path) -> None:
    nothing = replace(outcome_of(record("a", 0, None, error="<b>bad</b>")), folder=tmp_path)
    write_tables(nothing)
    assert "a, patchcore, seed 0: <b>bad</b>" in (tmp_path / "results.md").read_text()
    assert "&lt;b&gt;bad" in (tmp_path / "results.html").read_text()


def test_roc_points_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = np.append(rng.random(30) < 0.4, [True, False])
        scores = rng.integers(0, 8, 32).astype(float)
        rate, found, _ = roc_curve(labels, scores, drop_intermediate=False)
        np.testing.assert_allclose(roc_points(labels, scores), np.stack([rate, found], axis=1))


def test_a_curve_is_cut_on_its_own_line() -> None:
    plot = benchmark_report.curve_plot("t", "x", [(0, "m", np.array([(0, 0), (0.4, 0.8)]))], 0.2)
    first, last = ([float(v) for v in p.split(",")] for p in plot.lines[0].points.split(" "))
    # At 0.2 the line is at 0.4: the right edge of the plot, two fifths of its height.
    bottom, top = plot.y_ticks[0][0], plot.y_ticks[-1][0]
    assert first == [plot.x_ticks[0][0], bottom]
    assert last == pytest.approx([plot.x_ticks[-1][0], bottom + 0.4 * (top - bottom)], abs=0.1)


def test_a_histogram_counts_every_photo(whole: BenchmarkOutcome) -> None:
    photos = tuple((f"{i}", label, s) for i, (label, s) in enumerate(
        [("good", 1.0), ("good", 1.0), ("bent", 1.0), ("bent", 2.0), ("bent", 900.0)]
    ))  # fmt: skip
    made = replace(whole.records[0], photos=photos, threshold={"value": 1.5})
    plot = benchmark_report.histogram("t", made)
    most, unit = 3, plot.bars[0].height / 2  # two good photos, one bent upon them
    assert plot.y_ticks[-1][1] == str(most)
    heights = {(b.series, round(b.height / unit)) for b in plot.bars}
    assert heights == {("good", 2), ("defective", 1)}
    assert sum(round(bar.height / unit) for bar in plot.bars) == 5
    assert max(bar.x + bar.width for bar in plot.bars) <= plot.x_ticks[-1][0]


def wrong_verdict(score: float, name: str) -> Result:
    heatmap = np.zeros((40, 80), np.float32)
    return Result(
        name, score, 2.0, score > 2.0, 0.5, heatmap, 1.0, (),
        ClosestPatch("g", (0, 0, 1, 1), (0, 0, 1, 1), 1.0), (0, 0, 80, 40),
    )  # fmt: skip


def test_the_gallery_keeps_the_worst_of_each_kind(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    gallery = Gallery()
    bent, good = LabelledPhoto(Path("a"), "bent"), LabelledPhoto(Path("b"), "good")
    rgb = np.zeros((40, 80, 3), np.uint8)
    for score in (1.0, 0.2, 1.9, 0.5, 0.3):
        gallery.offer(bent, wrong_verdict(score, f"bent{score}"), rgb, [])
    for score in (3.0, 9.0, 5.0, 4.0):
        gallery.offer(good, wrong_verdict(score, f"good{score}"), rgb, [])
    pictures = list(gallery.write(tmp_path, "k" * 64))
    assert [(p.kind, p.score) for p in pictures] == [
        ("miss", 0.2), ("miss", 0.3), ("miss", 0.5),
        ("false alarm", 9.0), ("false alarm", 5.0), ("false alarm", 4.0),
    ]  # fmt: skip
    assert len(pictures) == 2 * PICTURES_EACH
    assert len({p.file for p in pictures}) == len(list((tmp_path / "pictures").iterdir())) == 6


def test_a_missed_defect_is_framed(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    mask = np.zeros((40, 80), bool)
    mask[10:20, 30:50] = True
    gallery = Gallery()
    bent = LabelledPhoto(Path("a"), "bent")
    gallery.offer(
        bent, wrong_verdict(1.0, "a"), np.full((40, 80, 3), 120, np.uint8), [mask, ~mask & mask]
    )
    (picture,) = gallery.write(tmp_path, "k" * 64)
    with Image.open(tmp_path / picture.file) as image:
        levels = np.asarray(image.convert("L")).astype(int)
    off = np.abs(levels[:, :80] - 120) > 40
    y, x = np.nonzero(off)
    # Two lines of one pixel each just outside the box; JPEG may blur by a few pixels.
    assert (abs(x.min() - 28), abs(x.max() - 51), abs(y.min() - 8), abs(y.max() - 21)) < (3,) * 4
    assert not off[13:17, 33:47].any()


# --- On many workers ------------------------------------------------------------------------------


def figures(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The stored records by what they are of, without what a clock says."""
    # Which points of a curve are kept to be drawn hangs on its last digits.
    left_out = ("created", "seconds", "peak_memory", "curves")
    found = {
        (r["category"], r["method"], r["seed"]): {k: v for k, v in r.items() if k not in left_out}
        for r in stored(folder)
    }
    for record in found.values():
        record["hashes"].pop("model")  # over the bits of numbers that are alike up to rounding
    assert len(found) == len(stored(folder))
    return found


def differing(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two records differ by more than rounding."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for k in one for d in differing(one[k], other[k], f"{where}/{k}")]
    if isinstance(one, list | tuple) and len(one) == len(other):
        pairs = zip(one, other, strict=True)
        return [d for i, (a, b) in enumerate(pairs) for d in differing(a, b, f"{where}/{i}")]
    expected = pytest.approx(other, rel=1e-4, abs=1e-4) if type(one) is float else other
    return [] if one == expected else [f"{where}: {one} and {other}"]


@pytest.mark.usefixtures("ray_cluster")
def test_workers_give_the_figures_of_one_process_even_when_they_die(
    tree: Path, tmp_path: Path
) -> None:
    """Every worker at work is killed when the first record is there; then the run is stopped."""
    chosen: dict[str, Any] = {"methods": ["patchcore", "untrained"], "seeds": [1, 0]}
    with threadpool_limits(limits=1):  # as in workers: how many threads share a sum is in its bits
        here = run(tree, tmp_path / "here", **chosen)
    killed: list[int] = []

    def kill_then_stop(step: str, done: int, _: int) -> None:
        assert step == "benchmark"  # workers tell none of their steps
        if done == 1:
            killed.extend(kill_workers_at_work())
        if done == 3:
            raise KeyboardInterrupt

    folder = tmp_path / "workers"
    with pytest.raises(KeyboardInterrupt):
        run(tree, folder, on="ray", progress=kill_then_stop, **chosen)
    assert killed
    assert len(stored(folder)) == 3

    outcome = run(tree, folder, on="ray", **chosen)
    assert (outcome.reused, len(outcome.records), outcome.errors) == (3, 8, [])
    assert differing(figures(folder), figures(tmp_path / "here")) == []
    assert same_tables(folder, here.folder)
    assert [(r.category, r.method, r.seed) for r in outcome.records] == [
        (r.category, r.method, r.seed) for r in here.records
    ]
    assert list((folder / "pictures").iterdir())


@pytest.mark.usefixtures("ray_cluster")
def test_a_category_that_fails_on_workers_says_the_same(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "mvtec"
    make_category(root / "bottle", 0)
    make_category(root / "screw", 50)
    (root / "screw" / "test" / "good" / "part060.png").write_bytes(b"no photo")
    here, there = (run(root, tmp_path / str(on), on=on) for on in (None, "ray"))
    assert len(here.errors) == 1
    assert [r.error for r in there.errors] == [r.error for r in here.errors]
    assert same_tables(there.folder, here.folder)
