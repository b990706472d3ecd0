"""What is not finite ends a run as diverged, and its reason names the step and the first layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training_samples import RECIPE, Echo, Tasks, arch_of, plugin_of, registry_of

from archsearch.errors import ForeignCodeError
from archsearch.measurement import Measurement
from archsearch.model.foreign import OutOfMemoryError
from archsearch.tasks import resolve_task
from archsearch.testing.toy_layer import RunningMean
from archsearch.training import Evaluation, Recipe, evaluate


def measured(
    layer: type[RunningMean], pattern: str = "full toy full", *, broken: Any = None, more_params: int = 0, **recipe: Any
) -> Measurement:
    """A training on the echo task."""
    registry = registry_of(plugin_of(layer, broken, more_params=more_params), Tasks(Echo))
    task, recipe = resolve_task("echo", registry), {**RECIPE, **recipe}
    return evaluate(arch_of(pattern, registry), task, Recipe.read(recipe), 0, registry=registry)


def scaled(when: Any, factor: float) -> type[RunningMean]:
    """A layer whose output is multiplied by `factor` where `when(layer, ctx)` says so."""

    class Layer(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            y, state = super().forward(x, state=state, ctx=ctx)
            return (y * factor if when(self, ctx) else y), state

    return Layer


class AddsNaN(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        if self.training and ctx.progress >= 0.5:
            ctx.add_loss("balance", x.sum() * torch.nan)
        return super().forward(x, state=state, ctx=ctx)


class NaNGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient * torch.nan


class RaisesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        raise ValueError("no way back")


def through(function: Any) -> type[RunningMean]:
    """A layer whose output passes through `function`."""

    class Layer(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            y, state = super().forward(x, state=state, ctx=ctx)
            return function.apply(y), state

    return Layer


REASONS = [
    (
        scaled(lambda layer, ctx: layer.training and ctx.progress >= 0.5, torch.nan),
        "the loss is not finite at step 4: layer 1 (toy) first gives NaN (learning rate 0.01)",
    ),
    (
        scaled(lambda layer, ctx: layer.training and ctx.progress >= 0.5, torch.inf),
        "the loss is not finite at step 4: layer 1 (toy) first gives",
    ),
    (
        scaled(lambda layer, ctx: not layer.training, torch.nan),
        "the output on validation is not finite at step 3: layer 1 (toy) first gives NaN",
    ),
    (
        AddsNaN,
        'the loss that mixers add is not finite at step 4: layer 1 (toy) first adds NaN to the loss "balance"',
    ),
    (through(NaNGradient), "the gradient is not finite at step 1"),
]


@pytest.mark.parametrize(
    ("layer", "reason"), REASONS, ids=["nan", "infinite", "validation-alone", "added-loss", "gradient"]
)
def test_the_reason_names_the_step_and_the_layer(layer: type[RunningMean], reason: str) -> None:
    found = measured(layer)
    assert found.status == "diverged"
    assert found.reason is not None
    assert found.reason.startswith(reason)
    assert (found.validation, found.test, found.learning_rate) == ({}, {}, None)


def test_weights_that_are_not_finite_though_the_loss_is() -> None:
    class Unused(RunningMean):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.unused = torch.nn.Parameter(torch.full((3,), torch.nan))

    found = measured(Unused, more_params=3)
    assert found.reason is not None
    assert found.reason.startswith("the weights are not finite at step 3: layer 1 (toy) first has weights of NaN")


def test_an_output_that_is_not_finite_on_test_alone() -> None:
    class Counts(RunningMean):
        judged = 0

        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            y, state = super().forward(x, state=state, ctx=ctx)
            Counts.judged += not self.training
            return (y * torch.nan if Counts.judged > 9 else y), state

    found = measured(Counts)  # validation is three batches, looked at twice and once more at the end
    assert found.status == "diverged"
    assert found.reason == "the output on test is not finite: layer 1 (toy) first gives NaN"
    assert found.test == {}


def test_a_step_that_is_not_finite_names_the_layer_and_the_token() -> None:
    class Late(RunningMean):
        def step(self, x_t: Any, *, state: Any, ctx: Any) -> Any:
            late = int(state.lengths[0]) >= 7
            y, state = super().step(x_t, state=state, ctx=ctx)
            return (y * torch.nan if late else y), state

    found = measured(Late, broken={"step": "fails late"})
    assert found.reason == (
        "the output on validation is not finite at step 3: layer 1 (toy) first gives NaN, in the step of token 7 "
        "(learning rate 0.01)"
    )


def test_one_rate_that_diverges_leaves_the_others() -> None:
    found = measured(
        scaled(lambda layer, ctx: layer.down.weight.abs().max() > 1e3, torch.nan), learning_rates=[1e5, 1e-2]
    )
    assert [entry["status"] for entry in found.sweep] == ["diverged", "complete"]
    assert found.sweep[0]["reason"] == "the loss is not finite at step 2: layer 1 (toy) first gives NaN"


def test_an_error_of_the_backward_pass_names_the_mixers() -> None:
    said = r'^mixer "full", mixer "toy": backward raised ValueError: no way back \(.*test_divergence\.py:\d+\)$'
    with pytest.raises(ForeignCodeError, match=said):
        measured(through(RaisesBackward))


def test_an_error_of_a_layer_reaches_the_caller_with_its_layer() -> None:
    class Raises(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            raise RuntimeError("boom")

    with pytest.raises(ForeignCodeError, match=r'^mixer "toy", layer 1: forward raised RuntimeError: boom'):
        measured(Raises)


def test_memory_that_runs_out_is_told_with_the_layer() -> None:
    class Full(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemoryError, match=r'^out of memory in layer 1 \(mixer "toy", forward\): CUDA out'):
        measured(Full)


def test_a_diverged_run_goes_on_from_its_checkpoint_as_diverged(tmp_path: Any) -> None:
    layer = scaled(lambda layer, ctx: layer.training and ctx.progress >= 0.5, torch.nan)
    registry = registry_of(plugin_of(layer), Tasks(Echo))
    arch, task = arch_of("toy", registry), resolve_task("echo", registry)
    recipe = Recipe.read({**RECIPE, "checkpoint_seconds": 1e-9, "learning_rates": [1e-2, 1e-3]})
    file = tmp_path / "trial.pt"
    first = Evaluation(arch, task, recipe, 0, registry=registry, checkpoint=file)
    for _ in range(4):
        first.advance(0)
    second = Evaluation(arch, task, recipe, 0, registry=registry, checkpoint=file)
    assert second.progress.step == 6
    while not second.done:
        second.advance(0)
    assert second.measurement().reason == (
        "the loss is not finite at step 4: layer 0 (toy) first gives NaN (learning rate 0.01); "
        "the loss is not finite at step 4: layer 0 (toy) first gives NaN (learning rate 0.001)"
    )
