"""The command `fit-all`: a model for each product of a manifest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconpatch.cli import parts

if TYPE_CHECKING:
    from reconpatch.scale.outcome import Row

FAILED = 3


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(fit_all)


def fit_all(
    manifest: Annotated[
        Path, typer.Argument(help="TOML file that names the products.", metavar="MANIFEST")
    ],
    output: Annotated[Path, parts.written("Folder for models and summary.")],
    on: parts.On = None,
    as_json: parts.Json = False,
    threads: parts.Threads = 0,
    overwrite: parts.Overwrite = False,
) -> None:
    """Fit a model for each product of a manifest; a page that sums it up.

    Models of products whose settings and photos have not changed are kept. Exit code 3: a product
    could not be fitted or tested; the others were.
    """
    from reconpatch.evaluation.evaluate import LabelledFolder
    from reconpatch.scale.products import PAGE, SUMMARY, load_manifest
    from reconpatch.scale.products import fit_all as run

    products = load_manifest(manifest)
    with parts.show_progress() as progress:
        outcome = run(
            products,
            output,
            labelled=LabelledFolder,
            on=on,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
            # A log needs a line a product; whoever looks on wants to see how far the fit is.
            steps=progress if sys.stderr.isatty() else None,
            finished=lambda row: parts.note(_line(row), warn=row.failed),
        )
    if as_json:
        print((outcome.folder / SUMMARY).read_text(encoding="utf-8"), end="")
    else:
        fitted = len(outcome.rows) - sum(row.error is not None for row in outcome.rows)
        kept = sum(row.status == "kept" for row in outcome.rows)
        print(f"{fitted} of {len(outcome.rows)} products have a model, {kept} of them kept")
        print(outcome.folder / PAGE)
    raise typer.Exit(FAILED if outcome.failures else 0)


def _line(row: Row) -> str:
    """A product in one line."""
    if row.error is not None:
        return f"{row.name}: failed: {row.error}"
    said = [f"{row.photos} photos"]
    said += ["kept as it was"] if row.status == "kept" else [f"{row.seconds:.1f} s"]
    if quality := row.quality:
        said.append(f"made defects {quality['auroc']:.1%}")
    said.append(f"threshold {row.threshold:.4g} for {row.promised_rate:.2g} false alarms")
    if row.test:
        said.append(
            f"{row.test['false_alarms']} of {row.test['photos']['good']} good test photos flagged"
        )
    if row.test_error is not None:
        said.append(f"not tested: {row.test_error}")
    return f"{row.name}: {', '.join(said)}"
