"""Every message of the package's errors says what to do, or docs/troubleshooting.md does.

An entry there says more than its message does; messages that suffice have none.

Messages are read from the source: every call of a `ReconPatchError` subclass (or of the station's
`Refusal`) with its text, in which … stands for what is filled in. An entry is the first cell of a
row, below a line that begins with the class; it is a beginning of the messages that it is for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from conftest import REPOSITORY
from reconpatch import errors

SOURCE = REPOSITORY / "src" / "reconpatch"
PAGE = REPOSITORY / "docs" / "troubleshooting.md"
FILLED = "…"
ADVICE = re.compile(
    r"\b(add|ask|call|check|choose|copy|cut|drop|export|fit|free|give|inspect|install|lay|leave|"
    r"make|move|name|pass|put|remove|rename|roll|run|save|say|send|start|stop|take|unpack|use|wait|"
    r"write)\b"
)
"""Verbs that tell somebody what to do, as messages have them."""


class Message(NamedTuple):
    """What an error says, by its class, and where it is raised."""

    kind: str
    text: str
    where: str


class Entry(NamedTuple):
    """A row of the page."""

    kind: str
    text: str
    way_out: str


@cache
def kinds() -> set[str]:
    """The names of all errors, and the answers of the station before a request is read."""
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.ReconPatchError)
    }
    return {*tree - {"ReconPatchError"}, "Refusal"}


def composed() -> dict[str, ast.Call]:
    """Errors that put their message together themselves, with the call that does."""
    tree = ast.parse((SOURCE / "errors.py").read_text("utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        node.name: call
        for node in classes
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__"
    }


@cache
def messages() -> list[Message]:
    """Every message in the source, in the order of files and lines."""
    own = composed()
    found = [Message(kind, text, "errors.py") for kind, c in own.items() for text in texts(c, {})]
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = {
            node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kind = node.func.id
                if kind in kinds() - set(own):
                    where = f"{path.name}:{node.lineno}"
                    found += [Message(kind, text, where) for text in texts(node, functions)]
    return found


def texts(call: ast.Call, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """What a call may say; its last argument is the message."""
    for text in filled(call.args[-1], functions):
        if re.search(r"[^\W\d_]", text):  # else it is another error's message as a whole
            yield plain(text)


def filled(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> list[str]:
    """All texts that an expression may be, … for what is not known here."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            each = [filled(part, functions) for part in parts]
            return ["".join(chosen) for chosen in product(*each)]
        case ast.Call(func=ast.Name(id=name)) if name in functions:
            ends = [n.value for n in ast.walk(functions[name]) if isinstance(n, ast.Return)]
            return [text for end in ends if end for text in filled(end, functions)]
    return [FILLED]


def plain(text: str) -> str:
    """A text as entries have it: no marks of code, no two … in a row."""
    text = text.replace("`", "").replace("\\|", "|")
    return re.sub(f"{FILLED}(?:[ ]?{FILLED})+", FILLED, text)


@cache
def entries() -> list[Entry]:
    """The rows of the page below the lines that name a class."""
    found, kind = [], ""
    for line in PAGE.read_text("utf-8").splitlines():
        if named := re.match(r"`(\w+)`|## ", line):
            kind = named[1] or ""
        if kind and (row := re.fullmatch(r"\| `+ ?(.+?) ?`+ \| (.+) \|", line)):
            found.append(Entry(kind, plain(row[1]), row[2]))
    return found


def stands_for(entry: Entry, message: Message) -> bool:
    return entry.kind == message.kind and message.text.startswith(entry.text)


def advises(message: Message) -> bool:
    """Whether it says what to do: behind the first stop of the sentence there is an imperative."""
    return bool(ADVICE.search(re.split(r"[:;,.]", message.text, maxsplit=1)[-1]))


def new_words(entry: Entry, message: Message) -> int:
    """How many words of the way out the message does not have; of each its first five letters."""

    def stems(text: str) -> set[str]:
        return {word[:5].lower() for word in re.findall(r"[^\W\d_]{4,}", text)}

    return len(stems(re.sub(r"\]\([^)]*\)", "", entry.way_out)) - stems(message.text))


def test_every_message_says_what_to_do_or_has_an_entry() -> None:
    missing = [
        m for m in messages() if not advises(m) and not any(stands_for(e, m) for e in entries())
    ]
    assert missing == [], "\n" + "\n".join(
        f"{m.where}: say in the message what to do, or below a line that begins with `{m.kind}`, "
        f"add | `{m.text}` | way out |"
        for m in missing
    )


def test_an_entry_says_more_than_its_message() -> None:
    of = {e: [m for m in messages() if stands_for(e, m)] for e in entries()}
    repeats = [
        e.text for e, those in of.items() if all(advises(m) and new_words(e, m) < 2 for m in those)
    ]
    assert repeats == []


def test_every_entry_is_of_a_message() -> None:
    assert [e for e in entries() if not any(stands_for(e, m) for m in messages())] == []


def test_an_entry_says_enough_and_has_a_way_out() -> None:
    assert [e for e in entries() if not re.search(r"[^\W\d_]", e.text)] == []
    assert [e for e in entries() if len(e.way_out.split()) < 2] == []
    rows = [(e.kind, e.text) for e in entries()]
    assert len(set(rows)) == len(rows)


def test_every_error_has_a_line_that_says_what_it_is() -> None:
    lines = re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.M)
    assert set(lines) >= kinds() - {"Refusal"}


def test_messages_are_read_from_the_source(tmp_path: Path) -> None:
    code = 'def why(x):\n    return f"no {x} is here"\nraise PhotoError(why(1))\n'
    tree = ast.parse(code)
    [call] = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise)]
    assert isinstance(call, ast.Call)
    [function] = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    assert list(texts(call, {"why": function})) == ["no … is here"]
    assert plain("… …: `a` … b") == "…: a … b"
