"""Very many trials in a database, inserted in bulk: what a year of searches leaves behind."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

from dashboard_samples import CONTEXT, MODEL, OBJECTIVES, PLUGINS, SPEC, TERMS, arch_of, measured, registry

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.layer import LayerSpec
from archsearch.storage import Store, upgrade
from archsearch.units import parse_quantity

LAYERS, CURVE_STEPS = 12, 6
BULK_BUDGET = "50 MiB"
MIXERS = (
    "full(rope=0.0)",
    "sliding(window=8)",
    "linear(key_dim=4)",
    "deltanet(key_dim=4)",
    "retnet(key_dim=4)",
    "kda(key_dim=4)",
    "gla(key_dim=4)",
    "moba(block_size=8)",
)
_GAINS = dict(zip(MIXERS, (1.0, 0.35, 0.1, 0.3, 0.15, 0.45, 0.2, 0.7), strict=True))
_TRIAL = (
    "INSERT INTO trial (id, search_id, number, kind, state, reason, arch, digest, pattern, params, seeds, violations, "
    "unexercised, parent_id, created_at, started_at, finished_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_METRIC = "INSERT INTO metric (trial_id, name, split, task, seed, step, value) VALUES (?,?,?,?,?,?,?)"
_MEASUREMENT = (
    "INSERT INTO measurement (trial_id, key, task, seed, status, payload, reused_from, created_at) "
    "VALUES (?,?,?,?,?,?,?,?)"
)


def fill_many(path: str, *, trials: int = 50_000, searches: int = 3, seed: int = 0) -> list[str]:
    """`trials` trials in `searches` finished searches of the SQLite file at `path`; the searches' names."""
    names = [f"large-{index}" for index in range(searches)]
    spec = {**SPEC, "budget": {"state_bytes": BULK_BUDGET}, "model": {**SPEC["model"], "n_layers": LAYERS}}
    with Store.open(f"sqlite:///{path}") as store:
        ids = [store.create_search(name, {**spec, "name": name}, OBJECTIVES, plugins=PLUGINS) for name in names]
    rng = random.Random(seed)
    with sqlite3.connect(path) as database:
        first = 1
        for search in ids:
            count = trials // searches
            _fill_search(database, search, first, count, rng)
            first += count
    database.close()
    with Store.open(f"sqlite:///{path}") as store:
        for search in ids:
            store.set_search_state(search, "complete")
    return names


def _fill_search(database: sqlite3.Connection, search: int, first: int, count: int, rng: random.Random) -> None:
    layers = {name: arch_of(name).layers[0] for name in MIXERS}
    costs = {name: _costs(layers[name]) for name in MIXERS}
    payload = json.dumps(measured("deltanet(key_dim=4)*12", 0, 0.5))
    budget = parse_quantity(BULK_BUDGET, unit="bytes")
    begun = datetime.now(UTC) - timedelta(days=2)
    for trial in range(first, first + count):
        chosen = [rng.choice(MIXERS) for _ in range(LAYERS)]
        total = [sum(costs[name][part] for name in chosen) for part in (0, 1)]
        excess = total[0] / budget - 1
        state = "infeasible" if excess > 0 else rng.choices(("complete", "diverged", "failed"), (96, 3, 1))[0]
        seeds = [] if state == "infeasible" else [0]
        when = (begun + timedelta(seconds=trial)).isoformat(sep=" ").removesuffix("+00:00")
        arch = ArchSpec(model=ModelSpec(**MODEL), layers=tuple(layers[name] for name in chosen))
        database.execute(
            _TRIAL,
            (
                trial,
                search,
                trial - first,
                "search",
                state,
                "over budget" if excess > 0 else "",
                json.dumps(arch.to_json()),
                f"{search:02x}{trial:014x}",
                " ".join(chosen),
                json.dumps({f"layer{index}.mixer": name.partition("(")[0] for index, name in enumerate(chosen)}),
                json.dumps(seeds),
                json.dumps({TERMS[0]: excess} if excess > 0 else {}),
                "[]",
                None,
                when,
                when,
                when,
            ),
        )
        metrics = [(trial, term, "cost", None, None, None, value) for term, value in zip(TERMS, total, strict=True)]
        if state == "complete":
            gain = sum(_GAINS[name] for name in chosen) / LAYERS
            accuracy = min(0.999, max(0.03, 1 - math.exp(-3 * gain) + rng.gauss(0, 0.04)))
            metrics += _measured_metrics(trial, accuracy)
        if seeds:
            status = "complete" if state == "complete" else "diverged"
            database.execute(_MEASUREMENT, (trial, f"key-{trial}", "mqar", 0, status, payload, None, when))
        database.executemany(_METRIC, metrics)


def copy_into_postgres(path: str, url: str) -> None:
    """Every row of the SQLite file at `path` into the PostgreSQL database at `url`, which gets its tables."""
    import psycopg
    from sqlalchemy.engine import make_url

    upgrade(url)
    place = make_url(url).translate_connect_args(username="user", database="dbname")
    with sqlite3.connect(path) as source, psycopg.connect(**place) as target:
        for table in ("search", "plugin_version", "part", "trial", "measurement", "metric"):
            rows = source.execute(f"SELECT * FROM {table} ORDER BY id")
            names = ", ".join(column[0] for column in rows.description)
            with target.cursor().copy(f"COPY {table} ({names}) FROM STDIN".encode()) as copy:
                for row in rows:
                    copy.write_row(row)
        target.execute("ANALYZE")
    source.close()


def _measured_metrics(trial: int, accuracy: float) -> list[tuple[Any, ...]]:
    named = [
        (trial, name, split, task, 0, None, accuracy)
        for split in ("validation", "test")
        for name, task in (("mqar.accuracy", "mqar"), ("recall", None))
    ]
    curve = [
        (trial, f"mqar.{name}", "progress", "mqar", 0, 50 * step, value * step / CURVE_STEPS)
        for step in range(1, CURVE_STEPS + 1)
        for name, value in (("loss", 3.0), ("accuracy", accuracy))
    ]
    return named + curve


def _costs(layer: LayerSpec) -> tuple[float, float]:
    cost = CostModel(registry()).cost(ArchSpec(model=ModelSpec(**MODEL), layers=(layer,)), CONTEXT)
    return float(cost.state_bytes), float(cost.decode_flops)
