"""A database with ladders: one of three rungs with seeds, one whose second rung has just begun, one not climbed yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboard_samples import MODEL, OBJECTIVES, SPEC, SPLITS, TERMS, measured, registry

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.storage import MetricValue, NewTrial, Store

PATTERNS: Mapping[str, tuple[float, float]] = {
    "full(rope=0.0)*3": (0.95, 0.10),
    "deltanet(key_dim=4) full(rope=0.0) deltanet(key_dim=4)": (0.90, 0.14),
    "full(rope=0.0) deltanet(key_dim=4) full(rope=0.0)": (0.93, 0.12),
    "sliding(window=8) deltanet(key_dim=4) sliding(window=8)": (0.61, 0.02),
    "moba(block_size=8) deltanet(key_dim=4) sliding(window=8)": (0.75, 0.5),
    "linear(key_dim=4)*3": (0.40, 0.02),
}
"""Accuracy on the first rung, and the exponent by which what is missing falls with training FLOPs."""

REFERENCES = ("full(rope=0.0)*3", "linear(key_dim=4)*3")
NOISE = (0.04, -0.03, 0.01)
WIDTHS = (64, 128, 256)


def add_ladder(store: Store, name: str, *, rungs: int = 3, seeds: int = 3, planned: int = 3) -> None:
    """A ladder of that name of which `rungs` are begun, of `planned`."""
    tables = [{"keep": 4 - above, "d_model": WIDTHS[above]} for above in range(1, planned)]
    for rung in range(1, rungs + 1):
        patterns = [pattern for pattern in PATTERNS if rung < 3 or not pattern.startswith("sliding")]
        spec: dict[str, Any] = {
            **SPEC,
            "name": _name(name, rung),
            "model": {**SPEC["model"], "d_model": WIDTHS[rung - 1]},
        }
        if rung == 1:
            spec["rung"] = tables
        else:
            spec["climbed"] = {
                "ladder": name,
                "rung": rung,
                "below": _name(name, rung - 1),
                "kept": [_kept(pattern, rung) for pattern in patterns],
                "left": {"kda(key_dim=4)*3": "state_bytes@32768 = 1 MiB exceeds 64 KiB"},
            }
        search = store.create_search(spec["name"], spec, OBJECTIVES)
        for pattern in patterns:
            _add(store, search, pattern, rung, seeds)
        store.set_search_state(search, "complete")


def _name(name: str, rung: int) -> str:
    return name if rung == 1 else f"{name}.rung{rung}"


def _arch(pattern: str, rung: int) -> ArchSpec:
    return ArchSpec.parse(pattern, registry(), ModelSpec.model_validate({**MODEL, "d_model": WIDTHS[rung - 1]}))


def _kept(pattern: str, rung: int) -> dict[str, Any]:
    why = "reference" if pattern in REFERENCES else "front"
    digests = {"digest": _arch(pattern, rung).digest, "below": _arch(pattern, rung - 1).digest}
    return {"pattern": pattern, "unit": 0, "why": why, **digests}


def _add(store: Store, search: int, pattern: str, rung: int, seeds: int) -> None:
    arch, (accuracy, exponent) = _arch(pattern, rung), PATTERNS[pattern]
    flops = 1e6 * WIDTHS[rung - 1] ** 2
    mean = 1 - (1 - accuracy) * (flops / (1e6 * WIDTHS[0] ** 2)) ** -exponent
    trial = store.add_trial(
        search,
        NewTrial(
            kind="reference" if pattern in REFERENCES else "search",
            state="queued",
            digest=arch.digest,
            pattern=pattern,
            seeds=list(range(seeds)),
            params={},
            arch=arch.to_json(),
            costs=dict.fromkeys(TERMS, 1000.0 * accuracy),
            violations={},
        ),
    )
    _measure(store, trial, pattern, [mean + NOISE[seed] * (1 - mean) for seed in range(seeds)], flops)
    store.set_trial_state(trial, "complete")


def _measure(store: Store, trial: int, pattern: str, values: Sequence[float], flops: float) -> None:
    for seed, value in enumerate(values):
        data = measured(pattern, seed, value, costs={"train_flops": flops})
        data["key"] = f"{data['key']}-{trial}"  # of another size, and another training
        named = {split: {f"mqar.{key}": one for key, one in data[split].items()} for split in SPLITS}
        store.add_measurement(trial, data, named, task="mqar")
        store.add_metrics(trial, [MetricValue(name="recall", split=split, value=value, seed=seed) for split in SPLITS])
