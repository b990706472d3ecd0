"""Metrics: what Prometheus may ask of a driver: its search's trials by state, the queue, rates, the heartbeat."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsearch.analysis.running_front import FrontPoint
from archsearch.errors import ArchsearchError, SpecError, StorageError
from archsearch.search.ledger import TrialOrder
from archsearch.search.progress import Progress
from archsearch.search.view import Briefing, TrialProgress, View
from archsearch.storage import Reader
from archsearch.storage.records import SEARCH_STATES, TRIAL_STATES

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOPBACK = "127.0.0.1"
TRIAL_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
"""Bounds of the histogram of how long trials take."""

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:]+\]|[^\s:\[\]]+):)?(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?\Z")


@dataclass(frozen=True, kw_only=True)
class MetricsAddress:
    """Where metrics are served: `host`, and the first free port from `first` to `last`."""

    host: str
    first: int
    last: int

    @classmethod
    def read(cls, text: str) -> MetricsAddress:
        """``[HOST:]PORT[-LAST]``; without a host the loopback one. Raises `SpecError` for anything else."""
        found = _ADDRESS.match(text.strip())
        if found is not None:
            first, last = int(found["first"]), int(found["last"] or found["first"])
            if 1 <= first <= last <= 65535:
                return cls(host=(found["host"] or LOOPBACK).strip("[]"), first=first, last=last)
        raise SpecError(
            f'"{text}" is no address to serve metrics at: write a port (9464), HOST:PORT, or a range of ports of which '
            "the first free one is taken (9464-9473)"
        )

    def at(self, port: int | str) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    def __str__(self) -> str:
        return self.at(self.first if self.first == self.last else f"{self.first}-{self.last}")


class SearchMetrics(View):
    """The metrics of one search, from what the driver hears and from the store, which is asked at every scrape."""

    def __init__(self, store: Reader, search: str) -> None:
        """Raises `ArchsearchError` where prometheus-client is not installed."""
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError:
            raise ArchsearchError(
                "metrics need prometheus-client: pip install 'archsearch[metrics]', or leave --metrics and "
                "ARCHSEARCH_METRICS out"
            ) from None
        self._store, self._search = store, search
        self._begun: dict[int, float] = {}
        self._steps: dict[tuple[int, str, int], int] = {}
        self.registry = registry = CollectorRegistry()
        named = ("search",)
        self._ended = Counter(
            "archsearch_trials_ended", "Trials that ended under this driver.", (*named, "state"), registry=registry
        )
        self._took = Histogram(
            "archsearch_trial_seconds", "From its start to its end.", named, buckets=TRIAL_SECONDS, registry=registry
        )
        self._trained = Counter("archsearch_steps", "Training steps that workers reported.", named, registry=registry)
        self._running = Gauge("archsearch_trials_running", "Trials that workers have.", named, registry=registry)
        self._planned = Gauge("archsearch_trials_planned", "Trials to be trained.", named, registry=registry)
        self._slots = Gauge("archsearch_concurrency", "Trials that may run at once.", named, registry=registry)
        self._front = Gauge("archsearch_front_size", "Candidates on the front so far.", named, registry=registry)
        self.registry.register(_FromTheStore(store, search))

    def begun(self, briefing: Briefing) -> None:
        """What is planned."""
        self._planned.labels(self._search).set(briefing.planned)
        self._slots.labels(self._search).set(briefing.concurrency)

    def trial_started(self, order: TrialOrder) -> None:
        """One more runs."""
        self._begun[order.trial] = time.monotonic()
        self._running.labels(self._search).set(len(self._begun))

    def trial_progressed(self, order: TrialOrder, progress: TrialProgress) -> None:
        """The steps since the last report of this run."""
        run = (order.trial, progress.task, progress.seed)
        self._trained.labels(self._search).inc(max(0, progress.step - self._steps.get(run, 0)))
        self._steps[run] = progress.step

    def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
        """One fewer runs."""
        begun = self._begun.pop(order.trial, None)
        if begun is not None:
            self._took.labels(self._search).observe(time.monotonic() - begun)
        self._steps = {run: step for run, step in self._steps.items() if run[0] != order.trial}
        self._ended.labels(self._search, state).inc()
        self._running.labels(self._search).set(len(self._begun))

    def advanced(self, progress: Progress, front: Sequence[FrontPoint]) -> None:
        """Counts that change while it runs."""
        self._planned.labels(self._search).set(progress.planned)
        self._front.labels(self._search).set(len(front))

    def ended(self, state: str, reason: str) -> None:
        """Nothing runs any more."""
        self._begun.clear()
        self._running.labels(self._search).set(0)


class _FromTheStore:
    """What the store has of a search, read at a scrape: earlier drivers' trials count too."""

    def __init__(self, store: Reader, search: str) -> None:
        self._store, self._search = store, search

    def describe(self) -> Iterator[Metric]:
        """Nothing is read to register."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The state, trials by state, and signs of life; of a store that does not answer, only that it does not."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        up = GaugeMetricFamily("archsearch_store_up", "Whether the database answered.", labels=["search"])
        try:
            record = self._store.search(self._search)
            counts = self._store.trial_counts(record.id)
        except StorageError:
            up.add_metric([self._search], 0)
            yield up
            return
        up.add_metric([self._search], 1)
        yield up
        state = GaugeMetricFamily(
            "archsearch_search_state", "1 for the state that the search is in.", labels=["search", "state"]
        )
        for name in SEARCH_STATES:
            state.add_metric([self._search, name], float(name == record.state))
        yield state
        trials = GaugeMetricFamily("archsearch_trials", "Trials by state.", labels=["search", "state"])
        for name in TRIAL_STATES:
            trials.add_metric([self._search, name], counts.get(name, 0))
        yield trials
        age = GaugeMetricFamily(
            "archsearch_heartbeat_age_seconds", "Since the driver's last sign of life in the store.", labels=["search"]
        )
        age.add_metric([self._search], record.age)
        yield age
        beats = CounterMetricFamily(
            "archsearch_heartbeats", "Signs of life in the store: of a driver that lives they grow.", labels=["search"]
        )
        beats.add_metric([self._search], record.beats)
        yield beats


@contextmanager
def served(metrics: SearchMetrics, address: MetricsAddress) -> Iterator[int]:
    """Serves metrics over HTTP while inside; gives the port. Raises `ArchsearchError` where no port can be had."""
    from prometheus_client import start_http_server

    refused: OSError | None = None
    for port in range(address.first, address.last + 1):
        try:
            server, thread = start_http_server(port, addr=address.host, registry=metrics.registry)
        except (OSError, socket.gaierror) as error:
            refused = error
            continue
        break
    else:
        why = (refused.strerror if refused is not None else None) or str(refused)
        raise ArchsearchError(f"metrics cannot be served at {address} ({why}): name another --metrics [HOST:]PORT")
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
