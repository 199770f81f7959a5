"""The README and the pages of docs/: their examples run, their options and links are there.

Every fenced block of `bash` or `python` on a page is run, block after block, in a folder that holds
what the pages name (`workplace`). A block that would take hours, or what no test has, follows the
comment `<!-- parsed only: WHY -->`; its lines are parsed by the command line and not run. A block
of `toml` is the file that its first line names.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import reconpatch
from conftest import REPOSITORY, WAIT, fill, save, scratched, textured
from reconpatch.cli.main import app
from reconpatch.engine.engines import OnnxRuntimeEngine, Output, StoredGraph
from reconpatch.method import settings
from test_cli_station import serving

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in REPOSITORY.glob("docs/*.md")),
]
PACKAGE = REPOSITORY / "src" / "reconpatch"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost "
    "-keyout key.pem -out cert.pem"
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and whether it is only parsed."""

    language: str
    text: str
    parsed_only: bool

    def lines(self) -> list[str]:
        """Its commands, continued lines joined, comments left out."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in joined if shlex.split(line, comments=True)]


def read(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """The blocks of a page that are to be run, in their order."""
    found = re.finditer(
        r"^(<!-- parsed only: [^>]+ -->\n+)?```(bash|python|toml)\n(.*?)^```",
        read(page),
        re.M | re.S,
    )
    return [Block(match[2], match[3], match[1] is not None) for match in found]


@pytest.fixture
def workplace(tmp_path: Path, small_model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the files that the pages name; fits there take a second.

    The README's fit is left as it is.
    """
    fill(tmp_path / "good", range(6))
    fill(tmp_path / "good-of-this-week", [700, 701])
    fill(tmp_path / "new-good", [800, 801])
    fill(tmp_path / "new", [1000])
    fill(tmp_path / "bottle" / "good", range(4))
    fill(tmp_path / "bottle" / "test" / "good", [900])
    save(scratched(textured(901)), tmp_path / "bottle" / "test" / "scratch" / "a.png")
    fill(tmp_path / "cap", range(10, 14))
    fill(tmp_path / "test" / "good", [900, 901])
    Image.new("L", (96, 96), 255).save(tmp_path / "roi.png")
    for name in ("new/scratched.png", "test/scratch/a.png", "defects/b.png", "incoming/c.png"):
        save(scratched(textured(len(name))), tmp_path / name)
    save(scratched(textured(1001)), tmp_path / "part.png")
    smudged = textured(802)
    smudged[60:80, 60:80] = 255 - smudged[60:80, 60:80]
    save(smudged, tmp_path / "false-alarms" / "a.png")
    (tmp_path / "photos.csv").write_text("id,path\n7,new/part1000.png\n")
    shutil.copy(small_model_file, tmp_path / "part.rcp")
    if shutil.which("openssl"):
        subprocess.run(CERTIFICATE.split(), cwd=tmp_path, capture_output=True, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = replace(
        settings.RECIPES["default"], size=(64, 64), bank=0.2, bank_least=0, defects=0, guard=False
    )
    monkeypatch.setitem(settings.RECIPES, "default", quick)
    monkeypatch.setitem(settings.QUALITIES, "fast", [{}])


class Reader:
    """Does what a page says, a block at a time; what it serves runs until it serves again."""

    def __init__(self, page: str, served: contextlib.ExitStack) -> None:
        self.page, self.served = page, served
        self.names: dict[str, Any] = {}
        self.url = ""

    def follow(self, block: Block) -> None:
        if block.language == "toml":
            Path(block.text.splitlines()[0].removeprefix("# ")).write_text(block.text, "utf-8")
            return
        if block.language == "python":
            code = compile(block.text, self.page, "exec")
            if not block.parsed_only:
                exec(code, self.names)
            return
        for line in block.lines():
            words = shlex.split(line, comments=True)
            check(words)
            if not block.parsed_only:
                self.run(words, line)

    def run(self, words: list[str], line: str) -> None:
        if words[0] == "curl" and shutil.which("curl"):
            asked = [word.replace("http://127.0.0.1:8000", self.url) for word in words]
            done = subprocess.run(asked, capture_output=True, check=True, timeout=WAIT)
            kept = Path(asked[asked.index("-o") + 1]).read_bytes() if "-o" in asked else b""
            assert b'"anomalous"' in done.stdout + kept
        elif words[0] == "openssl" and shutil.which("openssl"):
            subprocess.run(line, shell=True, capture_output=True, check=True, timeout=WAIT)
        elif words[:2] == ["reconpatch", "serve"]:
            if "--tls-cert" not in words or Path("cert.pem").exists():
                self.served.close()  # one at a time has the folder
                self.url = self.served.enter_context(serving(*words[2:], "--port", 0))[1]
        elif words[0] == "reconpatch":
            once = ["--once"] * (words[1] == "watch")  # without it, watch runs until Ctrl-C
            done = CliRunner().invoke(app, [*words[1:], *once])
            found = [1] * (words[1] in ("inspect", "score", "watch"))  # an anomalous photo
            assert done.exit_code in [0, *found], done.output


def check(words: list[str]) -> None:
    """Whether a line can be given as it is: its program, script, options and extras are there."""
    program, rest = words[0], words[1:]
    if program == "reconpatch":
        COMMANDS[rest[0]].make_context(rest[0], rest[1:])
    elif program.startswith("scripts/"):
        assert os.access(REPOSITORY / program, os.X_OK), program
    elif program.endswith("pip"):
        check_pip(rest)
    elif re.search(r"(^|/)python3?$", program) and rest[0] != "-m":
        script = REPOSITORY / rest[0]
        assert script.is_file(), rest[0]
        options = {word for word in rest if word.startswith("--")}
        assert {o for o in options if f'"{o}"' not in script.read_text("utf-8")} == set()
    elif rest[:2] == ["-m", "pytest"]:
        assert [word for word in rest if "/" in word and not (REPOSITORY / word).is_file()] == []
    else:
        assert program in ("curl", "docker", "openssl", "python3"), (
            f"no test knows how to run {program}"
        )


def check_pip(words: list[str]) -> None:
    """Whether the extras and the file of requirements that `pip install` names are there."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    for word in words:
        if extras := re.fullmatch(r"(?:\.|reconpatch)\[([\w,]+)\]", word):
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
        if word.endswith(".txt"):
            assert (REPOSITORY / word).is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_examples(
    page: str, workplace: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page != "README.md":
        request.getfixturevalue("quick_fits")
    if any("--on ray" in block.text and not block.parsed_only for block in blocks(page)):
        request.getfixturevalue("ray_cluster")
    if re.search(r"fit \S+ -o part\.rcp", read(page)):
        (workplace / "part.rcp").unlink()  # which is then the page's own
    with contextlib.ExitStack() as served:
        reader = Reader(page, served)
        for block in blocks(page):
            reader.follow(block)


def test_no_block_is_left_out() -> None:
    kinds = {
        (page, kind)
        for page in PAGES
        for kind in re.findall(r"^```(\S*)\n(?:.*?)^```$", read(page), re.M | re.S)
    }
    shown = {
        "",
        "bash",
        "json",
        "python",
        "toml",
        "{command-line}",
        "{eval-rst}",
        "{include}",
        "{toctree}",
    }
    assert {found for found in kinds if found[1] not in shown} == set()
    commands = re.compile(r"^    (reconpatch|python|pip) ", re.M)
    assert [page for page in PAGES if commands.search(read(page))] == []


def test_the_readme_begins_with_what_to_run() -> None:
    first, second = (
        [shlex.split(line, comments=True)[0] for line in block.lines()]
        for block in blocks("README.md")[:2]
    )
    assert first == ["pip", "reconpatch", "reconpatch"]
    assert second == ["scripts/demo", "scripts/test", "scripts/docs"]


def test_every_command_is_in_the_readme() -> None:
    rows = "".join(re.findall(r"^\|.*$", read("README.md"), re.M))
    assert {name for name in COMMANDS if f"`{name}`" not in rows} == set()


@pytest.fixture(scope="module")
def options() -> set[str]:
    """All options of all commands and of the scripts in benchmarks/."""
    whole = typer.main.get_command(app)
    parameters = [p for command in (whole, *COMMANDS.values()) for p in command.params]
    scripts = "".join(path.read_text("utf-8") for path in REPOSITORY.glob("benchmarks/**/*.py"))
    return {
        *(name for p in parameters for name in (*p.opts, *p.secondary_opts)),
        *re.findall(r'"(--[a-z][\w-]+)"', scripts),
        "--help",
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_option_named_exists(page: str, options: set[str]) -> None:
    of_ours = re.sub(r"(pip install|ray start) [^`\n]*", "", read(page))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", of_ours))
    assert named - options == set()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", read(page))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    folder = (REPOSITORY / page).parent
    assert [target for target in local if target and not (folder / target).exists()] == []


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/method.md", "docs/glossary.md"]
)
def test_modules_and_functions_named_exist(page: str) -> None:
    named = re.findall(r"`((?:tests/)?[\w/]+/)?(\w+\.py)?(?:: ([\w.]+))?`", read(page))
    places = [(folder + file, name) for folder, file, name in named if folder]
    assert len(places) > 5
    for path, name in places:
        assert (PACKAGE / path).exists() or (REPOSITORY / path).exists(), path
        if name:
            part_of(path, name)


def part_of(path: str, name: str) -> Any:
    """What a page names as `method/loss.py: distances`."""
    module = importlib.import_module("reconpatch." + path.removesuffix(".py").replace("/", "."))
    return operator.attrgetter(name)(module)


def test_each_equation_is_where_the_page_says() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| `(\S+): (\S+)` \|$", read("docs/method.md"), re.M)
    assert [int(number) for number, _, _ in rows] == list(range(1, 11))
    for number, path, name in rows:
        said = re.findall(r"\(eq\. ([^)]+)\)", part_of(path, name).__doc__)
        assert number in re.findall(r"\d+", " ".join(said)), f"{path}: {name}"


def test_the_names_of_the_glossary_exist() -> None:
    rows = re.findall(r"^\| .* \| (`.*) \|$", read("docs/glossary.md"), re.M)
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert len(named) > 15
    source = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    for name in named:
        kind, _, attribute = name.partition(".")
        body = re.search(rf"^class {kind}\b.*?(?=^\S|\Z)", source, re.M | re.S)
        assert body, name
        assert re.search(rf"\b{attribute}\b", body[0]), name


def test_the_way_to_a_distance_is_as_short_as_the_page_says(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [said] = re.findall(
        r"From the command to a distance[^.]*?:(.*?)\n\n", read("docs/architecture.md"), re.S
    )
    seen: list[list[str]] = []

    def run(_: StoredGraph, *given: Any) -> Output:
        frames = [frame.filename for frame in traceback.extract_stack()[:-1]]
        ours = [
            Path(f).relative_to(PACKAGE).as_posix() for f in frames if f.startswith(str(PACKAGE))
        ]
        seen.append([path for path, _ in itertools.groupby(ours)])
        return OnnxRuntimeEngine(graph)(*given)

    graph = reconpatch.load("part.rcp").members[0].engine.graph
    monkeypatch.setattr(StoredGraph, "__call__", run)
    assert CliRunner().invoke(app, ["inspect", "part.rcp", "part.png"]).exit_code == 1
    assert [path for path in seen[0] if "__" not in path] == re.findall(r"`(\w+/\w+\.py)", said)[:2]


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, "-b", "html", "-d", tmp_path / "trees", REPOSITORY / "docs", tmp_path / "site"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr
    assert "First model in five minutes" in (tmp_path / "site" / "index.html").read_text("utf-8")
