"""The fair table: every system of the field in every layer, trained alike, with its costs beside.

    python benchmarks/fair.py docs/results/fair.jsonl [--minutes 60] [--workers 2] [--task mqar:capacity]
        [--only kda,full] [--renew]

Trains what the file lacks, as many runs at once as there are workers, and writes each line as it comes: stop it when
you like, and start it again. Lines stay what they are, of the sources that they name, when these move on; with
`--renew` those of other sources than today's are trained again. `make fair` also writes the table of docs/results.md
from it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from archsearch.analysis.catalogue import systems
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import SpecError, listing, nearest
from archsearch.recipe import Recipe
from archsearch.registry import Registry, load_registry
from archsearch.tasks import Task, resolve_task
from archsearch.training import Evaluation
from archsearch.training.key import parts_versions

MODEL = ModelSpec(d_model=64, n_heads=2, channel_mixer="none", short_conv=4)
LAYERS = 2
SEEDS = (0, 1, 2)
TASKS = (
    "mqar:noisy_update",
    "mqar:capacity",
    "niah:passkey",
    "multihop:hop2",
    "copying:easy",
    "state_tracking:parity",
    "state_tracking:s3",
    "state_tracking:s5",
    "state_tracking:a5",
    "text:short",
)
RECIPE = Recipe(steps=300, learning_rates=(3e-3, 1e-2), device="cpu")
SHORT = {
    "sliding": "sliding(window=8, sinks=0, rope=0.0)",
    "sliding-sink": "sliding-sink(window=8, rope=0.0)",
    "hymba": "hymba(a=sliding(window=8, sinks=0))",
    "titans-mag": "titans-mag(a=sliding(window=8, sinks=0))",
    "resona": "resona(b=moba(block_size=8, top_k=2))",
    "csa": "csa(top_k=8)",
    "h2o": "h2o(heavy=8, recent=8)",
    "moba": "moba(block_size=8, top_k=2)",
    "nsa": "nsa(block_size=8, top_k=2, window=8)",
}
"""Systems whose sizes are those of long contexts, in sizes that act on the tasks' tokens."""
PAIRS = {
    "yoco": ("yoco-kv", "yoco"),
    "yoco-kv": ("yoco-kv", "yoco-kv"),
    "indexshare": ("dsa-mla", "indexshare"),
    "indexshare-latents": ("dsa-mla", "indexshare-latents"),
    "reindex": ("dsa-mla", "reindex"),
}
"""Systems that are no repeated layer: the first layer, and what the others are."""


def architectures(registry: Registry, layers: int = LAYERS) -> dict[str, ArchSpec]:
    """The architecture of each system, by its name; one that reads an earlier layer stands behind it."""
    found = {}
    for entry in systems(registry):
        first, other = PAIRS.get(entry.name) or (SHORT.get(entry.name, entry.name),) * 2
        text = " ".join([first, *[other] * (layers - 1)])
        found[entry.name] = ArchSpec.parse(text, registry, MODEL)
    return found


def sources(arch: ArchSpec, task: Task, registry: Registry) -> dict[str, str]:
    """Versions and digests of the mixers and the task, by which `--renew` knows lines of other sources. The core's
    digest is among the versions of the line."""
    return {name: made for name, made in parts_versions(arch, task, registry).items() if name != "source:core"}


registered = cache(load_registry)
"""What is installed, read once by each process."""


def run(name: str, arch: ArchSpec, label: str, seed: int) -> dict[str, Any]:
    """One training over the learning rates, as a line of the file."""
    registry = registered()
    task = resolve_task(label, registry)
    evaluation = Evaluation(arch, task, RECIPE, seed, registry=registry)
    while not evaluation.done:
        evaluation.advance(60.0)
    measured = evaluation.measurement()
    return {
        "name": name,
        "pattern": measured.pattern,
        "digest": measured.digest,
        "task": measured.task,
        "seed": seed,
        "status": measured.status,
        "metric": measured.metric,
        "direction": measured.direction,
        "chance": measured.chance,
        "test": dict(measured.test),
        "sweep": [
            {key: entry[key] for key in ("learning_rate", "status", "steps", "validation")} for entry in measured.sweep
        ],
        "unexercised": [str(found) for found in measured.unexercised],
        "seconds": round(measured.train_seconds, 1),
        "key": measured.key,
        "versions": dict(measured.versions),
        "sources": sources(arch, task, registry),
    }


def wanted(names: list[str], tasks: list[str], registry: Registry) -> Iterator[tuple[str, ArchSpec, Task, int]]:
    """What the table needs, seed by seed and task by task: one that is cut short is of whole columns, and has each
    task before any has a second seed."""
    archs = architectures(registry)
    unknown = [name for name in names if name not in archs]
    if unknown:
        raise SpecError(f'--only names "{unknown[0]}"{nearest(unknown[0], archs)}: known are {listing(archs)}')
    resolved = [resolve_task(label, registry) for label in tasks]
    for seed in SEEDS:
        for task in resolved:
            yield from ((name, archs[name], task, seed) for name in names or archs)


def read_lines(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The lines of a file by digest, task and seed; none of a file that there is not."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(line["digest"], line["task"], line["seed"]): line for line in map(json.loads, lines)}


def write_lines(path: Path, held: dict[tuple[str, str, int], dict[str, Any]]) -> None:
    """All lines, in the place of the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text("".join(f"{json.dumps(line)}\n" for line in held.values()), encoding="utf-8")
    beside.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument(
        "--workers", type=int, default=1, help="runs at once, each of one thread where OMP_NUM_THREADS is 1"
    )
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--only", default="")
    parser.add_argument("--renew", action="store_true", help="also train again what other sources gave")
    given = parser.parse_args()
    registry, end = registered(), time.monotonic() + 60 * given.minutes
    held = read_lines(given.file)
    missing = (
        (name, arch, task.label, seed)
        for name, arch, task, seed in wanted(
            list(filter(None, given.only.split(","))), given.task or list(TASKS), registry
        )
        if (line := held.get((arch.digest, task.label, seed))) is None
        or (given.renew and line["sources"] != sources(arch, task, registry))
    )
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as workers:
        training: set[Future[dict[str, Any]]] = set()
        while True:
            if time.monotonic() < end:
                free = given.workers - len(training)
                training.update(workers.submit(run, *each) for each in islice(missing, free))
            if not training:
                break
            ended, training = wait(training, return_when=FIRST_COMPLETED)
            for line in (future.result() for future in ended):
                held[line["digest"], line["task"], line["seed"]] = line
                write_lines(given.file, held)
                print(f"{line['name']} {line['task']} seed {line['seed']}: {line['test']}", flush=True)


if __name__ == "__main__":
    main()
