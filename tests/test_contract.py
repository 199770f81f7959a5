"""What a version promises: names, signatures, errors, files that stay readable, whole packages.

A name or a parameter may be added; what stands here may go only with a new first number of the
version (docs/contract.md).
"""

from __future__ import annotations

import ast
import inspect
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import reconpatch
import smoke
from conftest import REPOSITORY
from reconpatch import errors
from reconpatch.cli import main as cli
from reconpatch.fitting.options import FitOptions
from reconpatch.model.file import FORMAT
from reconpatch.model.model import Inspector
from reconpatch.result import ClosestPatch, Region, Result, SimilarKind

PACKAGE = REPOSITORY / "src" / "reconpatch"

# --- Names and signatures -------------------------------------------------------------------------

SIGNATURES = {
    reconpatch.fit: "(good, *, recipe='default', **options)",
    reconpatch.load: "(path, *, threads=0, engine='onnxruntime')",
    Inspector.inspect: "(self, photo, *, max_pixels=80000000)",
    Inspector.inspect_batch: "(self, photos, *, max_pixels=80000000)",
    Inspector.inspect_many: "(self, photos, *, max_pixels=80000000)",
    Inspector.with_false_alarm_rate: "(self, rate)",
    Inspector.with_threshold: "(self, value)",
    Inspector.calibrated_on: "(self, photos, rate=None, *, group=None, max_pixels=80000000)",
    Inspector.save: "(self, path, *, overwrite=False)",
    Result.to_dict: "(self)",
}
ATTRIBUTES = {
    FitOptions: "weights group thumbnails skip_unreadable max_pixels white_level device threads "
    "progress memory_limit on roi",
    Result: "name score threshold anomalous p_value heatmap map_threshold regions closest "
    "inspected notes kind whole",
    Region: "box area peak peak_value",
    SimilarKind: "name similarity near",
    ClosestPatch: "photo box patch_box distance thumbnail thumbnail_box",
}
COMMANDS = {
    "bench": "--engine --rounds --json --max-pixels --threads",
    "benchmark": "--output --dataset --categories --methods --seeds --config --set --beside "
    "--weights --max-pixels --device --threads --on",
    "calibrate": "--false-alarm-rate --threshold --output --max-pixels --threads --overwrite",
    "demo": "--output --train --test --seed",
    "diff": "--json --max-pixels --threads",
    "evaluate": "--output --json --max-pixels --engine --threads --overwrite",
    "export": "--output --to --int8 --photos --json --max-pixels --threads --overwrite",
    "fit-all": "--output --on --json --threads --overwrite",
    "fit": "--output --recipe --quality --method --backbone --scales --levels --weights --size "
    "--tile --overlap --smallest-defect --register --roi "
    "--resize --bank --false-alarm-rate --seed --group --set --thumbnails --no-thumbnails "
    "--skip-unreadable --white-level --max-pixels --device --memory-limit --threads "
    "--overwrite --on",
    "info": "--json",
    "inspect": "--output --json --max-pixels --engine --threads --overwrite",
    "score": "--output --on --workers --retry-errors --max-pixels --engine --threads",
    "serve": "--data --database --photos --host --port --token-file --tls-cert --tls-key "
    "--keep-days --keep-gb --queue --max-bytes --max-pixels --threads",
    "submission": "--output --max-pixels --engine --threads",
    "update": "--output --confirmed --defects --force --group --json --max-pixels --threads "
    "--overwrite",
    "verify": "--engine --json --max-pixels --threads",
    "watch": "--output --move --link --data --database --poll --patience --once --json "
    "--max-pixels --threads",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_public_functions_take_what_they_took(function: Any) -> None:
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    now = signature.replace(parameters=bare, return_annotation=signature.empty)
    assert str(now) == SIGNATURES[function]


@pytest.mark.parametrize("kind", ATTRIBUTES, ids=lambda kind: kind.__name__)
def test_public_values_have_the_attributes_that_they_had(kind: Any) -> None:
    assert set(ATTRIBUTES[kind].split()) <= {f.name for f in fields(kind)}


def test_models_tell_what_they_told() -> None:
    told = {"preprocessing", "photos", "calibration", "provenance"}
    assert told <= Inspector.__annotations__.keys()
    for name in ("threshold", "white_level", "members", "fingerprint"):
        assert isinstance(inspect.getattr_static(Inspector, name), property)


def test_commands_have_the_options_that_they_had() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert commands.keys() >= COMMANDS.keys()
    for name, promised in COMMANDS.items():
        options = [o for p in commands[name].params for o in (*p.opts, *p.secondary_opts)]
        assert set(promised.split()) <= set(options), name


# --- Errors ---------------------------------------------------------------------------------------

TREE = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.ReconPatchError)
}

# What is raised on purpose and is no refusal that a caller gets to see: by name, where.
NO_REFUSALS = {
    "typer.Exit": "exit codes of the command line",
    "HTTPException": "answers of the HTTP service",
    "TooLargeError": "station/guard.py catches it",
    "BlockingIOError": "station/connections.py, for asyncio, which waits on it",
    "ClientDisconnect": "Starlette's own word for it, which Starlette catches",
    "KeptError": "station/watch.py catches it",
    "NotYetError": "station/watch.py catches it",
    "_RefusedError": "features/pth_file.py, of which features/backbones.py makes a WeightsError",
    "IndexError": "features/pth_file.py, which makes a _RefusedError of it",
    "TypeError": "features/pth_file.py, which makes a _RefusedError of it",
    "OSError": "files.py, of a file that is none; what reads it tells the user",
    "FileExistsError": "station/watch.py, in the place of os.link, whose error it is",
    "ValueError": "becomes a ModelFileError or a PhotoError (private functions, from_dict), or is "
    "a slip in our own code (map_to_photo, process_bind_param)",
}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"^[ │]+(?:[├└]── )?(\w+Error)\b", errors.__doc__ or "", re.MULTILINE))
    assert drawn == TREE


def raised(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module raises by name: the function that does (or ""), and the name.

    An error that was caught and kept in a variable is raised again, not anew.
    """
    inside = {
        id(node): function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        name = ast.unparse(what)
        if isinstance(node.exc, ast.Call) or name.lstrip("_")[:1].isupper():
            yield inside.get(id(node), ""), name


def test_every_refusal_is_in_the_tree() -> None:
    modules = {path: ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    # A function that makes an error says which.
    makers = {
        node.name: ast.unparse(node.returns)
        for tree in modules.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns is not None
    }
    strange = {
        (path.name, function, name)
        for path, tree in modules.items()
        for function, name in raised(tree)
        if makers.get(name.removeprefix("self."), name) not in TREE
    }
    assert {name for _, _, name in strange} <= NO_REFUSALS.keys()
    internal = {function for _, function, name in strange if name == "ValueError"}
    told = set(re.findall(r"\w+", NO_REFUSALS["ValueError"]))
    assert {function for function in internal if not function.startswith("_")} <= told


# --- Model files ----------------------------------------------------------------------------------


def test_every_format_is_kept() -> None:
    names = {file.name for file in smoke.kept()}
    assert {"format-2.rcp", "format-2-ensemble.rcp", f"format-{FORMAT}.rcp"} <= names


@pytest.mark.parametrize("file", smoke.kept(), ids=lambda file: file.stem)
def test_model_files_of_released_formats_say_what_they_said(file: Path) -> None:
    """Written by tests/keep_model_files.py, once."""
    assert file.stat().st_size < 300_000
    said = smoke.sayings(reconpatch.load(file))
    assert smoke.differences(said, smoke.expected(file)) == []
    assert said["anomalous"] == [False] * 4 + [True] * 4


# --- Packages -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The names of the files in the sdist (below its one folder), and of those in the wheel."""
    backend = pytest.importorskip("hatchling.build", reason="hatchling comes with the extra 'dev'")
    folder = tmp_path_factory.mktemp("packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        sdist = folder / backend.build_sdist(str(folder))
        wheel = folder / backend.build_wheel(str(folder))
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        return inside, set(archive.namelist())


def test_the_packages_are_whole(packages: tuple[set[str], set[str]]) -> None:
    sdist, wheel = packages
    here = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("src", "tests", "docs", "scripts")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here - sdist == set()
    package = {name.removeprefix("src/") for name in here if name.startswith("src/")}
    assert package == {name for name in wheel if ".dist-info/" not in name}
    folders = (
        "report/templates/", "export/templates/", "station/web/", "station/migrations/",
        "evaluation/configs/",
    )  # fmt: skip
    for kind in ("py.typed", *folders):
        assert any(name.startswith(f"reconpatch/{kind}") for name in wheel), kind
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "constraints.txt"):
        assert name in sdist
    version = reconpatch.__version__
    assert f"reconpatch-{version}.dist-info/licenses/LICENSE" in wheel
    assert f"reconpatch-{version}.dist-info/entry_points.txt" in wheel


# --- Versions -------------------------------------------------------------------------------------


def test_the_changelog_has_this_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == reconpatch.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", reconpatch.__version__)
    assert versions == sorted(versions, key=lambda v: [*map(int, v.split("."))], reverse=True)
