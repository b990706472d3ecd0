"""Watching: how a running search is seen: live or as lines, as JSON logs, and by Prometheus."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.logs import LogFormat, choose_format
from archsearch.cli.output import quiet_console

if TYPE_CHECKING:
    from archsearch.search.view import View
    from archsearch.storage import Store

METRICS_VARIABLE = "ARCHSEARCH_METRICS"

MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="[HOST:]PORT[-LAST]",
        help="Serve metrics for Prometheus, on the loopback address unless HOST says otherwise, at the first free port "
        f"of a range; else {METRICS_VARIABLE}, else none.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What was asked for: `json` says that stdout belongs to JSON, ``metrics`` where to serve them."""

    json: bool = False
    log_format: LogFormat | None = None
    metrics: str | None = None

    @contextmanager
    def view(self, store: Store, search: str) -> Iterator[View]:
        """The view of a search, while it runs. Raises `SpecError` or `ArchsearchError` where metrics cannot be
        served."""
        shown = self._shown(store, search)
        address = self.metrics or os.environ.get(METRICS_VARIABLE)
        if not address:
            yield shown
            return
        from archsearch.search.metrics import MetricsAddress, SearchMetrics, served
        from archsearch.search.view import Views

        counted, where = SearchMetrics(store, search), MetricsAddress.read(address)
        with served(counted, where) as port:
            shown.noted(f"metrics at http://{where.at(port)}/metrics")
            yield Views(shown, counted)

    def _shown(self, store: Store, search: str) -> View:
        if choose_format(self.log_format) is LogFormat.json:
            from archsearch.cli.events import EventView

            return EventView(store, search)
        from archsearch.cli.live import make_view

        return make_view(quiet_console(stderr=self.json))
