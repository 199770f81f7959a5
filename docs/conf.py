"""How `scripts/docs` builds the site: Sphinx reads the Markdown pages and the docstrings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import reconpatch
from reconpatch.cli.main import app as command_line

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "ReConPatch"
author = "The ReConPatch maintainers"
version = release = reconpatch.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3

# Docstrings name code in single backticks, and types are clearer where they are described.
default_role = "code"
smartquotes_action = "D"  # dashes between a name and what it is; quotes stay as they are
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_ivar = True

html_theme = "furo"
html_title = "ReConPatch"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


class CommandLine(SphinxDirective):
    """All commands of the command line with their arguments and options, as `--help` has them."""

    def run(self) -> list[nodes.Node]:
        """The commands as sections."""
        group = typer.main.get_command(command_line)
        lines: list[str] = []
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            lines += [f"## reconpatch {name}", "", _text(command.help), ""]
            rows = [row for parameter in command.params if (row := _row(parameter))]
            lines += ["| | | |", "|---|---|---|", *rows, ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _row(parameter: Any) -> str:
    """An argument or option as a row: its name, what it is, and its default."""
    if getattr(parameter, "hidden", False):
        return ""
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.show_default if isinstance(parameter.show_default, str) else ""
    if not default and not callable(parameter.default) and not getattr(parameter, "is_flag", False):
        default = "" if parameter.default in (None, ()) else str(parameter.default)
    return f"| {names} | {_text(parameter.help)} | {default or '*needed*' * parameter.required} |"


def _text(help_: str | None) -> str:
    """Help as Markdown: what the terminal wraps itself is one line here, and | is no border."""
    text = re.sub(r"(?<!\n)\n(?!\n)", " ", help_ or "")
    text = re.sub(r"(?<![\w`-])(--[a-z][\w-]*)", r"`\1`", text)
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def lead_into_the_site(_app: Sphinx, _page: str, source: list[str]) -> None:
    """A link to the file of changes, which a reader of the repository has, leads to its page."""
    source[0] = source[0].replace("](../CHANGELOG.md)", "](changes.md)")


def setup(app: Sphinx) -> None:
    """Tell Sphinx what is added here."""
    app.add_directive("command-line", CommandLine)
    app.connect("source-read", lead_into_the_site)
