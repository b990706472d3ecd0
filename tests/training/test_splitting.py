"""How a step is computed changes its cost and not its loss: in parts, in bfloat16, compiled, computed twice."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from splitting_samples import MOE, AddsMeans, Counts, Draws, Shares, begun, check_same, finished
from training_samples import MODEL, RECIPE, Echo, Tasks, arch_of, registry_of

from archsearch.arch import ArchSpec, digest_of
from archsearch.errors import SpecError
from archsearch.recipe import Recipe
from archsearch.registry import load_registry
from archsearch.tasks import resolve_task
from archsearch.testing.toy_layer import RunningMean
from archsearch.training import Evaluation
from archsearch.training.group import Group
from archsearch.training.memory import needs
from archsearch.training.parts import parts_of


@pytest.mark.parametrize(
    ("layer", "pattern", "more"),
    [
        pytest.param(RunningMean, "full linear sliding", {}, id="builtin"),
        pytest.param(AddsMeans, "toy full", {}, id="added-losses"),
        pytest.param(RunningMean, "toy full", {"task": "uneven"}, id="parts-without-targets"),
        pytest.param(RunningMean, "toy full", {"clip": 1e-2}, id="clipped"),
        pytest.param(RunningMean, "toy", {"batch_size": 7}, id="uneven-parts"),
    ],
)
def test_a_batch_in_parts_gives_the_loss_of_the_whole(layer: Any, pattern: str, more: Any) -> None:
    whole = finished(begun(layer, pattern, **more))
    for accumulate in (3, 4):
        check_same(finished(begun(layer, pattern, accumulate=accumulate, **more)), whole)


def test_random_numbers_of_a_part_are_its_own() -> None:
    one, again = (finished(begun(Draws, accumulate=2)) for _ in range(2))
    assert one["curve"] == again["curve"]
    assert one["curve"] != finished(begun(Draws))["curve"]


def test_bfloat16_gives_the_loss_within_a_hundredth() -> None:
    """Of the same weights; how roundings add up over steps is another thing on each machine."""
    pattern = "full linear sliding"
    losses = [
        torch.tensor([entry["loss"] for entry in finished(begun(RunningMean, pattern, dtype=dtype))["curve"]])
        for dtype in ("float32", "bfloat16")
    ]
    torch.testing.assert_close(*(loss[:1] for loss in losses), rtol=1e-2, atol=0)
    torch.testing.assert_close(*losses, rtol=2e-2, atol=0)


SMALL = MODEL.model_copy(update={"channel_mixer": "swiglu"})
REAL = ("full", "deltanet", "sliding", "moba", "nsa")


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("layer", "model"),
    [
        pytest.param(Draws, MODEL, id="random"),
        pytest.param(AddsMeans, MODEL, id="added-losses"),
        pytest.param(Shares, MODEL, id="shared-values"),
        pytest.param(RunningMean, MOE, id="experts"),
    ],
)
def test_activations_computed_twice_change_no_bit(layer: Any, model: Any, accumulate: int) -> None:
    run = partial(begun, layer, "toy toy toy", model=model, accumulate=accumulate)
    plain, twice = finished(run()), finished(run(checkpoint_activations=True))
    assert twice["curve"] == plain["curve"]
    check_same(twice, plain, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_of_the_builtin_mixers_computed_twice_change_no_bit(dtype: str) -> None:
    registry = load_registry([Tasks(Echo)])
    arch = ArchSpec.parse(" ".join(REAL), registry, SMALL)
    curves = []
    for twice in (False, True):
        recipe = Recipe.read({**RECIPE, "eval_every": 1, "dtype": dtype, "checkpoint_activations": twice})
        evaluation = Evaluation(arch, resolve_task("echo", registry), recipe, 0, registry=registry)
        curves.append(finished(evaluation)["curve"])
    assert curves[0] == curves[1]


def test_activations_are_computed_twice_and_not_kept() -> None:
    calls = []

    class Looks(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            calls.append(torch.is_grad_enabled())
            return super().forward(x, state=state, ctx=ctx)

    for twice, wanted in ((False, 2), (True, 4)):
        evaluation = begun(Looks, eval_every=100, checkpoint_activations=twice)
        calls.clear()
        evaluation.advance(0)
        assert calls == [True] * wanted


def aot(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Compiles without a compiler, by the backend that only traces; the functions that were compiled."""
    compiled, compile_ = [], torch.compile

    def traced(function: Any) -> Any:
        compiled.append(function)
        return compile_(function, backend="aot_eager")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", traced)
    return compiled


@pytest.mark.parametrize("twice", [False, True], ids=["kept", "computed-twice"])
@pytest.mark.parametrize(
    ("layer", "pattern"),
    [pytest.param(AddsMeans, "toy sliding", id="added-losses"), pytest.param(Shares, "toy toy", id="shared-values")],
)
def test_a_compiled_block_gives_the_same_loss(
    layer: Any, pattern: str, twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = finished(begun(layer, pattern))
    compiled = aot(monkeypatch)
    found = finished(begun(layer, pattern, compile=True, checkpoint_activations=twice))
    check_same(found, plain)
    assert len({function.__code__ for function in compiled} | {id(function) for function in compiled}) >= 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler imports what torch deprecates
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_blocks_compiled_for_the_cpu_give_the_same_loss() -> None:
    torch._dynamo.reset()
    run = partial(begun, RunningMean, "full sliding", model=SMALL, accumulate=2, steps=2)
    check_same(finished(run(compile=True, checkpoint_activations=True)), finished(run()), rtol=1e-3)


def test_without_a_compiler_a_compiled_recipe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SpecError, match=r"recipe.compile = true needs a C\+\+ compiler, and no-such-compiler is not"):
        begun(compile=True)
    assert begun().device.type == "cpu"


def test_a_recipe_without_the_new_keys_is_digested_as_before() -> None:
    """Else every stored measurement would be lost."""
    assert digest_of(Recipe().trained()) == "bbf2158aa12f4718"
    said = {"steps": 40, "batch_size": 32, "dtype": "bfloat16", "learning_rates": [1e-3, 1e-2]}
    assert digest_of(Recipe.read(said).trained()) == "ddb40c3e773808e8"


def test_what_changes_a_result_is_in_the_key() -> None:
    plain = Recipe().trained()
    assert Recipe.read({"accumulate": 2}).trained() == {**plain, "accumulate": 2}
    assert Recipe.read({"compile": True}).trained() == {**plain, "compile": True}
    assert Recipe.read({"checkpoint_activations": True}).trained() == plain


def test_workers_share_the_parts_of_a_batch() -> None:
    recipe = Recipe.read({"batch_size": 8})
    assert recipe.for_workers(1) == recipe
    assert recipe.for_workers(2).accumulate == 2
    assert Recipe.read({"batch_size": 8, "accumulate": 4}).for_workers(2).accumulate == 4
    for told, workers in (({"batch_size": 8, "accumulate": 4}, 3), ({"batch_size": 2}, 3)):
        with pytest.raises(SpecError, match=r"cannot be shared by 3 workers: make it a multiple of 3"):
            Recipe.read(told).for_workers(workers)
    with pytest.raises(SpecError, match=r"accumulate: 9 parts of batch_size = 8 sequences"):
        Recipe.read({"batch_size": 8, "accumulate": 9})


def test_every_row_is_in_one_part() -> None:
    batch = Echo.make().train_batch(seed=0, step=0, batch_size=11)
    recipe = Recipe.read({"batch_size": 11, "accumulate": 4})
    parts = [part for rank in range(2) for part in parts_of(batch, recipe, Group(rank=rank, size=2))]
    assert [part.index for part in parts] == [0, 1, 2, 3]
    assert max(len(part.batch.tokens) for part in parts) == recipe.rows == 3
    assert sum(part.rows for part in parts) == pytest.approx(1)
    assert sum(int(part.batch.scored.sum()) for part in parts) == parts[0].scored


def test_a_batch_in_parts_needs_less_memory() -> None:
    registry = registry_of(Tasks(Echo))
    arch, task = arch_of("full full", registry), resolve_task("echo", registry)
    whole, split = (needs(arch, task, Recipe.read({**RECIPE, "accumulate": n}), registry) for n in (1, 4))
    assert split < whole


def test_what_forward_writes_is_seen_by_every_part() -> None:
    evaluation = begun(Counts, more_params=4, accumulate=2)
    evaluation.advance(0)
    fit = evaluation._fit
    assert fit is not None
    seen = [buffer for name, buffer in fit.model.named_buffers() if name.endswith("seen")]
    assert len(seen) == 2
    assert all(buffer > 0 for buffer in seen)
