"""Pages of one file: the package's templates, filled in; HTML piece by piece, Markdown as text."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def rendered(
    template: str, filters: Mapping[str, Callable[..., Any]], **values: Any
) -> Iterator[bytes]:
    """A page piece by piece, so that its pictures are never all in memory as text.

    Args:
        template: the name of a file in `templates/`.
        filters: what the template calls beside `data_uri`, by name.
        values: what it shows; a name that it asks for and does not get is an error.
    """
    for piece in _template(template, filters).generate(**values):
        # A file name that is not valid Unicode must not cost the whole page.
        yield piece.encode("utf-8", "backslashreplace")


def plain_text(package: str, template: str, values: Mapping[str, Any]) -> str:
    """A package's template filled in as plain text: Markdown has no HTML to escape."""
    return _template(template, {}, package).render(**values)


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a page holds it; nothing for nothing."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii") if jpeg else ""


def _template(
    name: str, filters: Mapping[str, Callable[..., Any]], package: str = "reconpatch.report"
) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({"data_uri": data_uri, **filters})
    return environment.get_template(name)
