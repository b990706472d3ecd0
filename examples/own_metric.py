"""A metric of one's own as an objective: whether a trained model goes on with what it read, and how soon it learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from archsearch import run
from archsearch.evaluator import Evaluator, Metric, Trained
from archsearch.tasks import IGNORE, Batch, Task, share

if TYPE_CHECKING:
    from archsearch import ArchSpec
    from archsearch.model import HybridLM


class Induction(Evaluator):
    """Random tokens are read twice; in the second round, each must be answered with what followed it in the first."""

    name = "induction"
    version = 1
    summary = "accuracy at the second reading of random tokens"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "induction": Metric(direction="maximize", unit="share", summary="of the tokens of the second round"),
    }

    def evaluate(self, arch: ArchSpec, model: HybridLM, task: Task, trained: Trained) -> Mapping[str, float]:
        rng = np.random.default_rng([trained.seed, trained.split == "test"])
        once = rng.integers(task.vocab_size, size=(256, 24))
        tokens = np.concatenate([once, once], axis=1)
        targets = np.full_like(tokens, IGNORE)
        targets[:, 24:-1] = tokens[:, 25:]
        batch = Batch(tokens, targets)
        _, predictions = trained.scores(batch)
        return {"induction": share(batch, predictions)}


SPEC = {
    "name": "own-metric",
    "model": {"d_model": 32, "n_heads": 2, "n_layers": 2, "channel_mixer": "none"},
    "space": {"mixers": ["full", "sliding"], "sliding": {"window": [8], "sinks": [0]}},
    "tasks": [{"name": "mqar", "setting": "easy"}],
    "metrics": [{"name": "induction", "tasks": ["mqar"]}],
    "objectives": {
        "maximize": ["mqar.induction"],
        "minimize": ["mqar.tokens_to_half", "state_bytes"],
        "context": 4096,
    },
    "recipe": {"steps": 200, "batch_size": 32, "eval_every": 20},
    "search": {"trials": 2, "confirm_seeds": 1, "concurrency": 2},
}

if __name__ == "__main__":
    outcome = run(SPEC, plugins=[Induction()], storage="sqlite:///own-metric.db")
    print(outcome.state)
