"""``archsearch report``: a search as one HTML file that opens without a network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from archsearch.cli.output import StorageOption, console, writing


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("report")(report)


def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the search, as `archsearch searches` lists it.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write the report.")],
    storage: StorageOption = None,
) -> None:
    """Writes a search as one HTML file.

    Its front with the figure, what it is valid for, the architectures with the commands that measure them again,
    versions, and every candidate; it opens without a network.
    """
    from archsearch.analysis.answer import read_answer
    from archsearch.errors import ArchsearchError
    from archsearch.registry import load_registry
    from archsearch.storage import storage_url

    if find_spec("plotly") is None:
        raise ArchsearchError("the report needs plotly: pip install 'archsearch[dashboard]'")
    from archsearch_dashboard.report.document import report as write  # type: ignore[import-not-found]
    from archsearch_dashboard.report.evidence import evidence_of  # type: ignore[import-not-found]
    from archsearch_dashboard.shown_store import ShownStore  # type: ignore[import-not-found]

    with ShownStore.open(storage_url(storage), read_only=True) as store:
        answer = read_answer(store, name)
        text = write(answer, evidence_of(store, answer, load_registry()))
    with writing(output):
        Path(output).write_text(text, encoding="utf-8")
    console().print(f"written: {output}", soft_wrap=True)
