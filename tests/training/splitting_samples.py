"""Mixers and trainings by which splitting a batch is tested: in parts, on workers, compiled, computed twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from training_samples import MODEL, RECIPE, Echo, Tasks, arch_of, plugin_of, registry_of

from archsearch.arch import ModelSpec
from archsearch.registry import Registry
from archsearch.tasks import IGNORE, Batch, resolve_task
from archsearch.testing.toy_layer import RunningMean
from archsearch.training import Evaluation, Recipe
from archsearch.training.group import ALONE, Group

MOE = ModelSpec.read(
    {
        "d_model": 16,
        "n_heads": 2,
        "channel_mixer": "moe",
        "n_experts": 16,
        "experts_per_token": 1,
        "expert_dim": 8,
        "shared_experts": 0,
    }
)


class Uneven(Echo):
    """Half of the sequences have no position that is scored, so that parts weigh differently, some nothing."""

    name = "uneven"

    def draw(self, rng: Any, count: int, *, split: Any, label: str) -> Batch:
        batch = super().draw(rng, count, split=split, label=label)
        unscored = batch.tokens[:, :1] % 2 == 1
        return Batch(batch.tokens, batch.targets * ~unscored + IGNORE * unscored)


class AddsMeans(RunningMean):
    """A loss that is a mean over sequences."""

    def forward(self, x: Tensor, *, state: Any = None, ctx: Any) -> Any:
        if self.training:
            ctx.add_loss("size", 0.5 * x.square().mean())
        return super().forward(x, state=state, ctx=ctx)


class Asks(RunningMean):
    """Learns the norm of what its teacher's layer gives, and attends to nothing while the dense stage is on."""

    def forward(self, x: Tensor, *, state: Any = None, ctx: Any) -> Any:
        y, state = super().forward(x, state=state, ctx=ctx)
        if self.training and ctx.teacher is not None:
            ctx.add_loss("taught", (y - ctx.teacher.output(self.layer.index)).square().mean())
            y = 0 * y if ctx.teacher.dense else y
        return y, state


class Draws(RunningMean):
    """Dropout of the output, and a loss of the batch as a whole."""

    def forward(self, x: Tensor, *, state: Any = None, ctx: Any) -> Any:
        y, state = super().forward(x, state=state, ctx=ctx)
        if self.training:
            ctx.add_loss("balance", x.mean((0, 1)).square().sum())
        return nn.functional.dropout(y, 0.3, self.training), state


class Shares(RunningMean):
    """Each layer adds to its output what the layer before it shared."""

    def forward(self, x: Tensor, *, state: Any = None, ctx: Any) -> Any:
        y, state = super().forward(x, state=state, ctx=ctx)
        own = y * x
        ctx.share(self.layer, "values", own)
        return y + (ctx.shared_by(self.layer.index - 1, "values") if self.layer.index else own), state


class Counts(RunningMean):
    """A buffer that training writes to, and that the output depends on; two weights that nothing uses."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("seen", torch.zeros(()))
        self.unused = nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Tensor, *, state: Any = None, ctx: Any) -> Any:
        y, state = super().forward(x, state=state, ctx=ctx)
        if self.training:
            self.seen += 0.1 * x.detach().abs().mean()
        return y * (1 + self.seen), state


class Spoils(RunningMean):
    """Gives NaN in the second half of training."""

    spoils: ClassVar[bool] = True

    def forward(self, x: Tensor, *, state: Any = None, ctx: Any) -> Any:
        y, state = super().forward(x, state=state, ctx=ctx)
        return y * torch.nan if ctx.progress >= 0.5 and self.training == self.spoils else y, state


class SpoilsValidation(Spoils):
    """Gives NaN where it is judged."""

    spoils = False


def registry_with(layer: type[RunningMean], more_params: int = 0, broken: Mapping[Any, str] | None = None) -> Registry:
    """With a mixer "toy" of that layer, and the tasks."""
    return registry_of(plugin_of(layer, broken, more_params=more_params), Tasks(Echo, Uneven))


def begun(
    layer: type[RunningMean] = RunningMean,
    pattern: str = "toy toy",
    *,
    task: str = "echo",
    model: ModelSpec = MODEL,
    more_params: int = 0,
    broken: Mapping[Any, str] | None = None,
    checkpoint: Path | None = None,
    group: Group = ALONE,
    **recipe: Any,
) -> Evaluation:
    """A training that looks at validation after every step."""
    registry = registry_with(layer, more_params, broken)
    values = {**RECIPE, "eval_every": 1, "stop_at": 0.0, "weight_decay": 1.0, **recipe}
    arch = arch_of(pattern, registry, model)
    return Evaluation(
        arch,
        resolve_task(task, registry),
        Recipe.read(values),
        0,
        registry=registry,
        checkpoint=checkpoint,
        group=group,
    )


def finished(evaluation: Evaluation) -> dict[str, Any]:
    """What is measured in the end, and the weights that were best."""
    while not evaluation.done:
        evaluation.advance(0)
    measured = evaluation.measurement()
    told = ("status", "reason", "learning_rate", "steps", "curve", "validation", "test", "judged")
    weights = evaluation._best["model"] if evaluation._best else {}
    rates = [(entry["learning_rate"], entry["status"], entry["reason"]) for entry in measured.sweep]
    return {**{name: getattr(measured, name) for name in told}, "weights": weights, "rates": rates}


def check_same(found: dict[str, Any], wanted: dict[str, Any], *, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Raises where two trainings are not the same within rounding."""
    for name in ("status", "learning_rate", "steps", "judged", "rates"):
        assert found[name] == wanted[name]
    losses = [[entry["loss"] for entry in result["curve"]] for result in (found, wanted)]
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=rtol, atol=atol)
    for name, weights in wanted["weights"].items():
        torch.testing.assert_close(found["weights"][name], weights, rtol=rtol, atol=100 * atol)
    assert found["weights"].keys() == wanted["weights"].keys()
