"""Pages of one file: the package's HTML templates, filled in piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def rendered(
    template: str, filters: Mapping[str, Callable[..., Any]], **values: Any
) -> Iterator[bytes]:
    """A page piece by piece, so that its pictures are never all in memory as text.

    Args:
        template: the name of a file in `templates/`.
        filters: what the template calls, by name.
        values: what it shows; a name that it asks for and does not get is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reconpatch", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    for piece in environment.get_template(template).generate(**values):
        # A file name that is not valid Unicode must not cost the whole page.
        yield piece.encode("utf-8", "backslashreplace")
