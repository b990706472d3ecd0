"""Whether a sparse choice learns from scratch: through the output, or distilled from attention in three ways.

    python benchmarks/distillation.py docs/results/distillation.csv

Trains two layers of `dsa`, which see 4 tokens of 64, on `mqar:noisy_update` in four ways, each with three seeds, and
writes one row for each. Takes about 15 minutes of one core.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.registry import load_registry
from archsearch.tasks import resolve_task
from archsearch.training import Evaluation, Recipe

TASK, STEPS, SEEDS = "mqar:noisy_update", 300, (0, 1, 2)
WAYS: dict[str, tuple[str, str | None]] = {
    "through the output": ("dsa(top_k=4, learn=gates)", None),
    "own layer, sparse from the start": ("dsa(top_k=4)", None),
    'teacher = "self"': ("dsa(top_k=4)", "self"),
    'teacher = "full"': ("dsa(top_k=4)", "full(rope=0.5)"),
}
"""The layer and the recipe's teacher of each way to learn the choice."""
COLUMNS = ("way", "layer", "teacher", "seed", "accuracy", "chance", "steps", "seconds", "teacher_found", "curve")


def measured(layer: str, teacher: str | None, seed: int, folder: Path) -> dict[str, object]:
    """One training: its accuracy on test, steps, seconds, and what validation saw on the way (step:accuracy)."""
    registry = load_registry()
    arch = ArchSpec.parse(f"{layer} {layer}", registry, ModelSpec(channel_mixer="none", short_conv=4))
    recipe = Recipe.read({"steps": STEPS, "device": "cpu", **({} if teacher is None else {"teacher": teacher})})
    task = resolve_task(TASK, registry)
    evaluation = Evaluation(arch, task, recipe, seed, registry=registry, checkpoint=folder / "trial.pt")
    while not evaluation.done:
        evaluation.advance(5.0)
    found = evaluation.measurement()
    evaluation.discard()
    return {
        "layer": layer,
        "teacher": teacher or "",
        "seed": seed,
        "accuracy": f"{found.test['accuracy']:.4f}",
        "chance": f"{found.chance:.4f}",
        "steps": found.steps,
        "seconds": f"{found.train_seconds:.0f}",
        "teacher_found": found.versions.get("teacher", ""),
        "curve": " ".join(f"{point['step']:.0f}:{point['accuracy']:.3f}" for point in found.curve),
    }


def main(file: Path) -> None:
    """Writes all rows, one after the other."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out, tempfile.TemporaryDirectory() as folder:
        rows = csv.DictWriter(out, COLUMNS)
        rows.writeheader()
        for seed in SEEDS:
            for way, (layer, teacher) in reversed(WAYS.items()):
                rows.writerow({"way": way, **measured(layer, teacher, seed, Path(folder))})
                out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
