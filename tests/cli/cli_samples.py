"""A database with one finished search, written through the store as a search would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from archsearch.exercise import Unexercised
from archsearch.storage import MetricValue, NewTrial, Store

OBJECTIVES = [
    {"name": "recall", "direction": "maximize", "unit": "", "metric": "recall"},
    {"name": "state_bytes", "direction": "minimize", "unit": "bytes", "metric": "state_bytes@32768"},
    {"name": "decode_flops", "direction": "minimize", "unit": "FLOP", "metric": "decode_flops@32768"},
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
MODEL = {
    "d_model": 64,
    "n_heads": 2,
    "n_kv_heads": 2,
    "head_dim": 32,
    "channel_mixer": "none",
    "ffn_dim": 176,
    "n_experts": 8,
    "experts_per_token": 2,
    "shared_experts": 1,
    "expert_dim": 88,
    "dtype": "bfloat16",
}
SPEC = {
    "name": "quick",
    "seed": 0,
    "model": {**MODEL, "n_layers": 2},
    "space": {"mixers": ["full", "linear"]},
    "tasks": [{"name": "mqar", "setting": "capacity", "options": {}}],
    "recipe": RECIPE,
    "objectives": {
        "maximize": ["recall"],
        "minimize": ["state_bytes", "decode_flops"],
        "context": 32768,
    },
    "budget": {"state_bytes": "9 MiB"},
}


def layer(text: str) -> dict[str, Any]:
    """``"linear(update=delta)"`` as a stored layer, its options as text."""
    name, _, rest = text.partition("(")
    options = dict(part.split("=") for part in rest.rstrip(")").split(",") if part)
    return {"mixer": name, "options": options}


def payload(pattern: str, seed: int, accuracy: float | None, **changes: Any) -> dict[str, Any]:
    """`Measurement.to_json()` of a run; an accuracy of None is one that diverged."""
    complete = accuracy is not None
    values = {"accuracy": accuracy} if complete else {}
    return {
        "key": f"{pattern}/{seed}",
        "digest": pattern,
        "pattern": pattern,
        "arch": {"model": {**MODEL, "vocab_size": 64}, "layers": [layer(part) for part in pattern.split()]},
        "task": "mqar:capacity",
        "task_options": {"name": "mqar", "setting": "capacity", "options": {}},
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
        "sweep": [
            {"learning_rate": 0.01, "status": "complete", "steps": 300, "validation": values, "seconds": 2.0},
            {"learning_rate": 0.003, "status": "complete", "steps": 300, "validation": values, "seconds": 2.0},
        ],
        "curve": [
            {"step": float(step), "loss": 4.0 - step / 100, "accuracy": step / 300 * (accuracy or 0.0)}
            for step in range(50, 301, 50)
        ],
        "unexercised": [],
        "seq_len": 64,
        "params": 12345,
        "costs": {},
        "tokens_per_second": 9000.0,
        "train_seconds": 4.0,
        "peak_memory_bytes": 10**8,
        "versions": {"archsearch": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "device": "cpu x86_64"},
        **changes,
    }


def add_trial(
    store: Store,
    search_id: int,
    pattern: str,
    *,
    costs: Sequence[float],
    accuracies: Sequence[float | None] = (),
    kind: str = "search",
    state: str = "complete",
    reason: str = "",
    first_seed: int = 0,
    parent: int | None = None,
    violations: dict[str, float] | None = None,
    unexercised: Sequence[Unexercised] = (),
) -> int:
    """One trial with a measurement a seed."""
    seeds = [first_seed + index for index in range(len(accuracies))]
    trial = store.add_trial(
        search_id,
        NewTrial(
            kind=kind,
            state="queued",
            digest=f"digest-{pattern}",
            pattern=pattern,
            params={},
            seeds=seeds,
            arch={"model": {**MODEL, "vocab_size": 64}, "layers": [layer(part) for part in pattern.split()]},
            costs=dict(zip(("state_bytes@32768", "decode_flops@32768"), costs, strict=True)),
            violations=violations or {},
            parent=parent,
            unexercised=[found.to_json() for found in unexercised],
        ),
    )
    for seed, accuracy in zip(seeds, accuracies, strict=True):
        measured = payload(pattern, seed, accuracy)
        named = {split: {f"mqar.{key}": value for key, value in measured[split].items()} for split in SPLITS}
        store.add_measurement(trial, measured, named, task="mqar")
        if accuracy is not None:
            store.add_metrics(
                trial, [MetricValue(name="recall", split=split, value=accuracy, seed=seed) for split in SPLITS]
            )
    store.set_trial_state(trial, state, reason)
    return trial


FLAT = Unexercised(layer="sliding(window=64)", task="mqar:capacity", seq_len=64, dense_up_to=64)
SPLITS = ("validation", "test")
MIB = 2.0**20


def fill(store: Store) -> dict[str, int]:
    """The search "quick": trials by a short name."""
    search = store.create_search("quick", SPEC, OBJECTIVES, plugins=[("full", "archsearch", "0.1.0")])
    trials = {
        "all-full": add_trial(
            store,
            search,
            "full full",
            costs=(16 * MIB, 4.4e6),
            accuracies=(0.99, 1.0),
            kind="reference",
            violations={"state_bytes@32768": 0.8},
        ),
        "pure-linear": add_trial(
            store, search, "linear linear", costs=(0.03 * MIB, 3.1e4), accuracies=(0.31, 0.29), kind="reference"
        ),
        "mixed": add_trial(store, search, "linear(update=delta) full", costs=(8 * MIB, 2.2e6), accuracies=(0.95, 0.9)),
        "worse": add_trial(store, search, "full linear", costs=(8 * MIB, 2.2e6), accuracies=(0.7, 0.72)),
        "delta": add_trial(
            store,
            search,
            "linear(update=delta) linear(update=delta)",
            costs=(0.06 * MIB, 4.4e4),
            accuracies=(0.6, 0.64),
        ),
        "infeasible": add_trial(
            store,
            search,
            "full full full",
            costs=(24 * MIB, 6e6),
            state="infeasible",
            reason="state_bytes@32768 = 24 MiB exceeds 9 MiB",
            violations={"state_bytes@32768": 1.7},
        ),
        "diverged": add_trial(
            store,
            search,
            "linear full linear",
            costs=(8.1 * MIB, 2.3e6),
            accuracies=(None,),
            state="diverged",
            reason="mqar, seed 0: loss was nan at step 12",
        ),
        "flat": add_trial(
            store,
            search,
            "linear sliding(window=64)",
            costs=(0.05 * MIB, 4e4),
            accuracies=(0.8,),
            unexercised=[FLAT],
        ),
    }
    trials["confirm"] = add_trial(
        store,
        search,
        "linear(update=delta) full",
        costs=(8 * MIB, 2.2e6),
        accuracies=(0.93, 0.91),
        kind="confirm",
        first_seed=1_000_000,
        parent=trials["mixed"],
    )
    store.set_search_state(search, "complete", "16 candidates were trained")
    return trials
