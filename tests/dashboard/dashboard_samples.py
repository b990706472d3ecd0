"""A database with a search of every kind, written through the store as searches write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from heartbeats import beat
from streamlit.testing.v1 import AppTest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.exercise import Unexercised
from archsearch.measurement import Measurement
from archsearch.registry import Registry, load_registry
from archsearch.storage import Driver, MetricValue, NewTrial, Store
from archsearch.units import format_quantity

CONTEXT, MIB = 32768, 2.0**20
TERMS = (f"state_bytes@{CONTEXT}", f"decode_flops@{CONTEXT}")
OBJECTIVES = [
    {"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"},
    {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": TERMS[0]},
    {"name": "decode_flops", "direction": "minimize", "unit": "FLOP", "metric": TERMS[1]},
]
RECIPE = {
    "steps": 300,
    "tokens": None,
    "batch_size": 64,
    "learning_rates": [0.01, 0.003],
    "warmup": 0.1,
    "final_learning_rate": 0.0,
    "betas": [0.9, 0.95],
    "weight_decay": 0.1,
    "clip": 1.0,
    "dtype": "float32",
    "stop_at": 0.995,
    "eval_every": 50,
    "seeds": 2,
    "threads": 1,
    "device": "auto",
    "checkpoint_seconds": 30.0,
}
MODEL = {"d_model": 64, "n_heads": 2, "short_conv": 4, "channel_mixer": "none"}
BUDGET = 18 * MIB
SPEC = {
    "seed": 0,
    "model": {**ModelSpec(**MODEL).model_dump(mode="json"), "n_layers": 3},
    "space": {"mixers": ["full", "sliding", "linear", "moba", "nsa"]},
    "tasks": [{"name": "mqar", "setting": "compact", "options": {}}],
    "recipe": RECIPE,
    "objectives": {"maximize": ["recall"], "minimize": ["state_bytes", "decode_flops"], "context": CONTEXT},
    "budget": {"state_bytes": "18 MiB"},
    "search": {"trials": 16, "sampler": "nsga2", "confirm_seeds": 2, "references": True},
}
SPLITS = ("validation", "test")
PLUGINS = [("full", "archsearch", "0.1.0"), ("linear", "archsearch", "0.1.0"), ("sliding", "archsearch", "0.1.0")]
FLAT = Unexercised(layer="sliding(window=64)", task="mqar", seq_len=48, dense_up_to=64)
HTML_NAME = "<b>bold</b> <script>alert('seen')</script> & *stars* [link](http://example.org)"
LONG_NAME = "a very long name " * 11 + "and its end"
LONG_PATTERN = "[kda gated-deltanet mamba2 retnet sliding(window=8) moba(block_size=8) nsa(block_size=8) full]*12"


@cache
def registry() -> Registry:
    """The built-in plugins."""
    return load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,tasks"})


@cache
def arch_of(pattern: str) -> ArchSpec:
    """The architecture of a pattern on the samples' backbone."""
    return ArchSpec.parse(pattern, registry(), ModelSpec(**MODEL))


@cache
def costs_of(pattern: str) -> Mapping[str, float]:
    """What the samples' objectives and budget need of it."""
    cost = CostModel(registry()).cost(arch_of(pattern), CONTEXT)
    return {TERMS[0]: float(cost.state_bytes), TERMS[1]: float(cost.decode_flops)}


def violations_of(pattern: str) -> dict[str, float]:
    """The excess over the samples' budget."""
    excess = costs_of(pattern)[TERMS[0]] / BUDGET - 1
    return {TERMS[0]: excess} if excess > 0 else {}


def measured(pattern: str, seed: int, accuracy: float | None, task: str = "mqar", **changes: Any) -> dict[str, Any]:
    """`Measurement.to_json()` of a run; an accuracy of None is one that diverged."""
    complete = accuracy is not None
    values = {"accuracy": accuracy} if complete else {}
    sweep = [
        {
            "learning_rate": rate,
            "status": "complete" if complete else "diverged",
            "steps": 300,
            "seconds": 2.0,
            "validation": {"accuracy": accuracy * share} if complete else {},
        }
        for rate, share in ((0.01, 1.0), (0.003, 0.8))
    ]
    curve = [
        {
            "step": float(step),
            "loss": 4.0 * math.exp(-step / 150),
            "accuracy": (1 - math.exp(-step / 80)) * (accuracy or 0.0),
        }
        for step in range(50, 301, 50)
    ]
    arch = arch_of(pattern)
    data: dict[str, Any] = {
        "key": f"{pattern}/{seed}/{task}",
        "digest": arch.digest,
        "pattern": pattern,
        "arch": arch.to_json(),
        "task": f"{task}:compact",
        "task_options": {"name": task, "setting": "compact", "options": {}},
        "metric": "accuracy",
        "direction": "maximize",
        "recall": True,
        "chance": 0.03,
        "recipe": RECIPE,
        "seed": seed,
        "status": "complete" if complete else "diverged",
        "reason": None if complete else "loss was nan at step 12",
        "learning_rate": 0.01 if complete else None,
        "steps": 300,
        "solved_at": None,
        "validation": values,
        "test": values,
        "sweep": tuple(sweep),
        "curve": tuple(curve),
        "unexercised": (),
        "seq_len": 48,
        "params": 12345,
        "tokens_per_second": 9000.0,
        "train_seconds": 4.0,
        "peak_memory_bytes": 10**8,
        "versions": {"archsearch": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "device": "cpu x86_64"},
        **changes,
    }
    return Measurement(**data).to_json()


def add_trial(
    store: Store,
    search_id: int,
    pattern: str,
    accuracies: Sequence[float | None] = (),
    *,
    kind: str = "search",
    state: str = "complete",
    reason: str = "",
    first_seed: int = 0,
    parent: int | None = None,
    unexercised: Sequence[Unexercised] = (),
    shown: str | None = None,
    tasks: Sequence[str] = ("mqar",),
) -> int:
    """One trial with a measurement a seed and task; NaN is a number that was not finite."""
    seeds = [first_seed + index for index in range(len(accuracies))]
    arch = arch_of(pattern)
    params = {f"layer{index}.mixer": layer.mixer for index, layer in enumerate(arch.layers)}
    trial = store.add_trial(
        search_id,
        NewTrial(
            kind=kind,
            state="queued",
            digest=arch.digest,
            pattern=shown or pattern,
            seeds=seeds,
            params=params if kind == "search" else {},
            arch=arch.to_json(),
            costs=costs_of(pattern),
            violations=violations_of(pattern),
            parent=parent,
            unexercised=[one.to_json() for one in unexercised],
        ),
    )
    for seed, accuracy in zip(seeds, accuracies, strict=True):
        for task in tasks:
            data = measured(pattern, seed, accuracy, task)
            named = {split: {f"{task}.{key}": value for key, value in data[split].items()} for split in SPLITS}
            store.add_measurement(trial, data, named, task=task)
        if accuracy is not None:
            recall = [MetricValue(name="recall", split=split, value=accuracy, seed=seed) for split in SPLITS]
            store.add_metrics(trial, recall)
    if state != "queued":
        store.set_trial_state(trial, "running")
        store.set_trial_state(trial, state, reason)
    return trial


def over_budget(pattern: str) -> str:
    """The reason of an infeasible trial."""
    return f"state_bytes@{CONTEXT} = {format_quantity(costs_of(pattern)[TERMS[0]], unit='bytes')} exceeds 18 MiB"


def new_search(store: Store, name: str, *, driver: Driver | None = None, **changes: Any) -> int:
    """A running search of that name."""
    return store.create_search(name, {**SPEC, "name": name, **changes}, OBJECTIVES, plugins=PLUGINS, driver=driver)


def every_state(store: Store, name: str = "quick") -> dict[str, int]:
    """A finished search with a trial in every state; trials by a short name."""
    search = new_search(store, name)

    def add(pattern: str, accuracies: Sequence[float | None] = (), **changes: Any) -> int:
        return add_trial(store, search, pattern, accuracies, **changes)

    full = "full(rope=0.0)"
    trials = {
        "all-full": add(f"{full}*3", (0.99, 1.0), kind="reference"),
        "pure-linear": add("linear(key_dim=4)*3", (0.21, 0.19), kind="reference"),
        "pure-sliding": add("sliding(window=8)*3", (0.33, 0.37), kind="reference"),
        "delta": add("[deltanet(key_dim=4)]*3", (0.44, 0.52)),
        "window": add("sliding(window=8) deltanet(key_dim=4) sliding(window=8)", (0.61, 0.66)),
        "mixed": add(f"deltanet(key_dim=4) {full} deltanet(key_dim=4)", (0.95, 0.9)),
        "worse": add(f"{full} linear(key_dim=4) linear(key_dim=4)", (0.7, 0.72)),
        "two-full": add(f"{full} deltanet(key_dim=4) {full}", (0.97, 0.96)),
        "sparse": add("moba(block_size=8) deltanet(key_dim=4) sliding(window=8)", (0.8, 0.75)),
        "infeasible": add(
            f"{full}*2 moba(block_size=8)", state="infeasible", reason=over_budget(f"{full}*2 moba(block_size=8)")
        ),
        "diverged": add(
            f"linear(key_dim=4) {full} linear(key_dim=4)",
            (0.5, None),
            state="diverged",
            reason="mqar, seed 1: loss was nan at step 12",
        ),
        "failed": add(
            "nsa(block_size=8) linear(key_dim=4)*2",
            (),
            state="failed",
            reason="RuntimeError: CUDA out of memory. <b>Tried</b> to allocate 20 GiB",
        ),
        "preempted": add("kda(key_dim=4)*3", (), state="preempted", reason="the driver stopped"),
        "cancelled": add("gla(key_dim=4)*3", (), state="cancelled", reason="the search was stopped"),
        "flat": add("linear(key_dim=4) sliding(window=64) linear(key_dim=4)", (0.8, 0.82), unexercised=[FLAT]),
        "nan": add("retnet(key_dim=4)*3", (math.nan, 0.4)),
    }
    for confirmed, values in (("mixed", (0.93, 0.91)), ("window", (0.6, 0.64)), ("delta", (0.45, 0.46))):
        pattern = store.trial(trials[confirmed]).pattern
        trials[f"confirm-{confirmed}"] = add(
            pattern, values, kind="confirm", first_seed=1_000_000, parent=trials[confirmed]
        )
    store.set_search_state(search, "complete", "16 candidates were trained")
    return trials


def half_finished(store: Store, name: str = "half") -> dict[str, int]:
    """A search whose driver lives, however long the tests take: complete, running and queued trials."""
    search = new_search(store, name, driver=Driver.here())
    trials = {
        "all-full": add_trial(store, search, "full(rope=0.0)*3", (0.99,), kind="reference"),
        "done": add_trial(store, search, "full(rope=0.0) linear(key_dim=4)*2", (0.6,)),
        "running": add_trial(store, search, "kda(key_dim=4)*3", (0.4,), state="running"),
        "queued": add_trial(store, search, "gla(key_dim=4)*3", (), state="queued"),
    }
    return {"search": search, **trials}


def odd_searches(store: Store) -> None:
    """Searches that have little, nothing, or nothing good to show, and names that are hard to show."""
    new_search(store, "empty")
    one = new_search(store, "one-trial")
    add_trial(store, one, "full(rope=0.0) linear(key_dim=4)*2", (0.6,))
    store.set_search_state(one, "complete")
    refused = new_search(store, "all-infeasible")
    for pattern in ("full(rope=0.0)*3", "moba(block_size=8)*3"):
        add_trial(store, refused, pattern, state="infeasible", reason=over_budget(pattern))
    store.set_search_state(refused, "infeasible", "none of 2 candidates meets the budget: raise [budget]")
    failed = new_search(store, "all-failed")
    for pattern in ("linear(key_dim=4)*3", "kda(key_dim=4)*3"):
        add_trial(store, failed, pattern, state="failed", reason="RuntimeError: no space left on device")
    store.set_search_state(failed, "failed", "2 trials failed")
    nan = new_search(store, "all-nan")
    add_trial(store, nan, "linear(key_dim=4)*3", (math.nan,))
    store.set_search_state(nan, "complete")
    html = new_search(store, HTML_NAME)
    add_trial(store, html, "full(rope=0.0)", (0.5,), shown="<img src=x onerror=alert(1)> **full**")
    add_trial(store, html, "linear(key_dim=4)", (0.2,))
    store.set_search_state(html, "complete", "<i>done</i> & *dusted*")
    long = new_search(store, LONG_NAME)
    add_trial(store, long, LONG_PATTERN, (0.7,), shown=arch_of(LONG_PATTERN).pattern(registry()))
    add_trial(store, long, "linear(key_dim=4)", (0.3,))
    store.set_search_state(long, "complete")
    lost = new_search(store, "interrupted")
    add_trial(store, lost, "full(rope=0.0) linear(key_dim=4)*2", (0.6,))
    beat(store, lost, timedelta(hours=-3))


def fill(url: str) -> dict[str, int]:
    """Every search of this file, "quick" the newest; its trials by a short name."""
    with Store.open(url) as store:
        odd_searches(store)
        half_finished(store)
        return every_state(store)


def open_page(slug: str, **query: str | list[str]) -> AppTest:
    """The page of that name with its URL's query, after its first run on the database of ARCHSEARCH_STORAGE."""
    app = AppTest.from_string(f"from archsearch_dashboard.app import main\nmain({slug!r})", default_timeout=60)
    app.query_params.update(query)
    return app.run()


def texts(app: AppTest) -> str:
    """All that the page says in words."""
    kinds = (
        app.title,
        app.markdown,
        app.caption,
        app.info,
        app.warning,
        app.error,
        app.subheader,
        app.metric,
        app.code,
    )
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def well(app: AppTest) -> AppTest:
    """`app`, which must have neither an exception nor an error."""
    assert not app.exception, app.exception
    assert not app.error, app.error
    return app
