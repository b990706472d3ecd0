"""Searches to be compared: a list on several tasks, and a sweep over sizes of state and numbers of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dashboard_samples import (
    OBJECTIVES,
    PLUGINS,
    SPEC,
    SPLITS,
    add_trial,
    arch_of,
    costs_of,
    measured,
    new_search,
)

from archsearch.arch import ArchSpec
from archsearch.storage import Driver, NewTrial, Store

TASKS = ("mqar", "niah", "multihop", "copying")
LISTED = ("full*3", "kda(key_dim=4)*3", "deltanet(key_dim=4)*3", "kda(key_dim=4)*2 full", "gla*3")
SCORES: dict[str, tuple[float | None, ...]] = {
    LISTED[0]: (0.90, 0.91, 0.92),
    LISTED[1]: (0.50, 0.52, 0.51),
    LISTED[2]: (0.88, 0.93, 0.91),
    LISTED[3]: (0.96, 0.972, 0.98),
}


def listed(store: Store, name: str = "listed", **changes: Any) -> int:
    """Five architectures on two tasks, the last of which is not begun."""
    spec = {"space": {"pattern": "listed", "architectures": list(LISTED)}, "compare": {"baseline": None}, **changes}
    search = new_search(store, name, **spec)
    for pattern, values in SCORES.items():
        add_trial(store, search, pattern, values, tasks=TASKS[:2])
    store.set_search_state(search, "complete")
    return search


MATCHED = {
    "sliding(window=8)": ("sliding(window=8)*3", (0.70, 0.72, 0.71)),
    "full": ("full*3", (0.90, 0.91, 0.92)),
    "kda": ("kda(key_dim=4)*3", (0.80, 0.83, 0.82)),
    "gla": ("gla(key_dim=4)*3", (0.60, 0.64, 0.61)),
}
"""By the text of the list: what each became, and what it has in accuracy with each seed."""


def matched(store: Store, name: str = "matched") -> int:
    """Architectures matched by what they read, on two tasks, of which one is asked for on longer sequences too and how
    soon it is learnt."""
    spec = {
        **SPEC,
        "name": name,
        "space": {"pattern": "listed", "architectures": list(MATCHED)},
        "compare": {"baseline": None, "match": "state_read"},
    }
    objectives = [
        *OBJECTIVES,
        {"name": "niah.accuracy@2x", "direction": "maximize"},
        {"name": "mqar.tokens_to_half", "direction": "minimize", "budget": 300 * 64 * 48.0},
    ]
    search = store.create_search(name, spec, objectives, plugins=PLUGINS)
    for asked, (pattern, values) in MATCHED.items():
        made = replace(_new(arch_of(pattern), pattern, costs_of(pattern)), params={"architecture": asked})
        trial = store.add_trial(search, replace(made, seeds=[0, 1, 2]))
        for seed, value in enumerate(values):
            for task in TASKS[:2]:
                data = measured(pattern, seed, value, task)
                twice = {"accuracy@2x": value**2} if task == "niah" else {}
                data = {**data, "test": {**data["test"], **twice}}
                named = {split: {f"{task}.{key}": number for key, number in data[split].items()} for split in SPLITS}
                store.add_measurement(trial, data, named, task=task)
        store.set_trial_state(trial, "running")
        store.set_trial_state(trial, "complete")
    store.set_search_state(search, "complete")
    return search


def many(store: Store, name: str = "many", count: int = 40) -> int:
    """`count` architectures on four tasks, one of which has a seed that diverged, in a search that runs."""
    search = new_search(store, name, driver=Driver.here())
    for index in range(count):
        pattern = f"kda(key_dim={index + 4})*2 full"
        values = [0.5 + 0.01 * ((index * 7) % count) + 0.004 * ((index + seed) % 3) for seed in range(3)]
        diverged: list[float | None] = [values[0], None, values[2]]
        gone = index == 5
        add_trial(
            store,
            search,
            pattern,
            diverged if gone else values,
            tasks=TASKS,
            state="diverged" if gone else "complete",
        )
    add_trial(store, search, "gla(key_dim=4)*3", (), state="running")
    return search


def swept(store: Store, name: str = "swept", width: int = 64, layers: Sequence[str] | None = None) -> int:
    """Mixers at several sizes of state and 4 and 12 pairs; what they recall grows with the state."""
    search = new_search(store, name)
    sized = {
        "full": 0.99,
        "sliding(window=4)": 0.2,
        "sliding(window=12)": 0.4,
        "sliding(window=36)": 0.85,
        "gated-deltanet(key_dim=4)": 0.3,
        "gated-deltanet(key_dim=12)": 0.7,
        "gated-deltanet(key_dim=36)": 0.97,
    }
    for layer in layers or sized:
        arch = ArchSpec(model=arch_of("full").model.changed({"d_model": width}), layers=arch_of(layer).layers * 2)
        trial = store.add_trial(search, _new(arch, f"{layer}*2", costs_of(f"{layer}*2")))
        for pairs in (4, 12):
            for seed in (0, 1):
                task = f"mqar:compact(pairs={pairs})"
                value = min(1.0, sized[layer] * (1.2 if pairs == 4 else 0.9) + 0.02 * seed * len(layer) / 25)
                options = {"name": "mqar", "setting": "compact", "options": {"pairs": pairs, "seq_len": 48}}
                data = measured(f"{layer}*2", seed, value, key=f"{name}/{layer}/{seed}/{pairs}", task_options=options)
                named = {split: {f"{task}.{key}": number for key, number in data[split].items()} for split in SPLITS}
                store.add_measurement(trial, data, named, task=task)
        store.set_trial_state(trial, "running")
        store.set_trial_state(trial, "complete")
    store.set_search_state(search, "complete")
    return search


def _new(arch: ArchSpec, pattern: str, costs: Any) -> NewTrial:
    return NewTrial(
        kind="search",
        state="queued",
        digest=arch.digest,
        pattern=pattern,
        seeds=[0, 1],
        params={},
        arch=arch.to_json(),
        costs=dict(costs),
        violations={},
        parent=None,
        unexercised=[],
    )
