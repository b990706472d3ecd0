"""A mixer whose decoding differs from its forward pass is judged by decoding, and is told the training's progress."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from training_samples import RECIPE, Echo, Tasks, arch_of, plugin_of, registry_of

from archsearch.errors import SpecError
from archsearch.laws import untrainable
from archsearch.measurement import Measurement
from archsearch.tasks import IGNORE, Batch, CheckedTask, resolve_task
from archsearch.testing.toy_layer import RunningMean
from archsearch.training import Evaluation, Recipe, evaluate
from archsearch.training.judge import Judge

EVICTS = {"step": "keeps one token"}


class Once(Echo):
    """One token that is not 0 stands among zeros, and is asked at the end."""

    name = "once"

    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        answers = rng.integers(1, 16, size=count)
        tokens = np.zeros((count, self.seq_len), dtype=np.int64)
        tokens[np.arange(count), rng.integers(self.seq_len - 1, size=count)] = answers
        targets = np.full_like(tokens, IGNORE)
        targets[:, -1] = answers
        return Batch(tokens, targets)


class OneToken(RunningMean):
    """Its forward pass sees every token; decoding has forgotten all but the one it reads."""

    def step(self, x_t: Any, *, state: Any, ctx: Any) -> Any:
        fresh = replace(state, tensors={"total": torch.zeros_like(state.tensors["total"])})
        y, _ = super().step(x_t, state=replace(fresh, lengths=torch.zeros_like(state.lengths)), ctx=ctx)
        return y, state.after(state.tensors, 1)


class Recorder(RunningMean):
    """Writes down what progress each call is told."""

    seen: list[tuple[str, bool, float]]

    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        Recorder.seen.append(("prefill" if state is not None else "forward", self.training, ctx.progress))
        return super().forward(x, state=state, ctx=ctx)

    def step(self, x_t: Any, *, state: Any, ctx: Any) -> Any:
        Recorder.seen.append(("step", self.training, ctx.progress))
        y, after = RunningMean.forward(self, x_t[:, None], state=state, ctx=ctx)
        return y[:, 0], after


def measured(layer: type[RunningMean], broken: Any, task: str, pattern: str = "toy full", **recipe: Any) -> Measurement:
    registry = registry_of(plugin_of(layer, broken), Tasks(Echo, Once))
    arch = arch_of(pattern, registry)
    return evaluate(arch, resolve_task(task, registry), Recipe.read({**RECIPE, **recipe}), 0, registry=registry)


CASES = [
    ("step", "echo", "float32"),
    ("split", "echo", "float32"),
    ("step", "copying:easy(seq_len=16, items=4)", "float32"),
    ("step", "text:short(seq_len=6)", "float32"),
    ("step", "echo", "bfloat16"),
]


@pytest.mark.parametrize(("law", "task", "dtype"), CASES, ids=[" ".join(case) for case in CASES])
def test_a_mixer_that_keeps_its_laws_has_the_same_numbers_both_ways(law: str, task: str, dtype: str) -> None:
    whole = measured(RunningMean, {}, task, dtype=dtype, batch_size=128)
    stepped = measured(RunningMean, {law: "only says so"}, task, dtype=dtype, batch_size=128)
    assert (whole.judged, whole.judged_reason) == ("forward", None)
    assert stepped.judged == "steps"
    assert stepped.judged_reason == f'mixer "toy" breaks the law "{law}": only says so'
    near = 1e-5 if dtype == "float32" else 0.02
    for found, wanted in ((stepped.validation, whole.validation), (stepped.test, whole.test)):
        assert found.keys() == wanted.keys()
        assert found == pytest.approx(wanted, abs=near)
    assert [point["accuracy"] for point in stepped.curve if "accuracy" in point] == pytest.approx(
        [point["accuracy"] for point in whole.curve if "accuracy" in point], abs=near
    )


@pytest.mark.parametrize("pattern", ["toy full", "toy sliding(window=4)", "kda toy"])
def test_the_laws_of_one_layer_have_all_layers_step(pattern: str) -> None:
    whole = measured(RunningMean, {}, "echo", pattern)
    stepped = measured(RunningMean, {"step": "only says so"}, "echo", pattern)
    assert stepped.test == pytest.approx(whole.test, abs=1e-6)


def test_a_mixer_that_forgets_while_decoding_is_found_out() -> None:
    hard: dict[str, Any] = {"steps": 150, "eval_every": 50, "batch_size": 32, "learning_rates": [3e-2]}
    untold = measured(OneToken, {}, "once", "toy", **hard)
    told = measured(OneToken, EVICTS, "once", "toy", **hard)
    assert untold.test["accuracy"] > 0.9
    assert told.test["accuracy"] < 0.4
    assert told.curve[-1]["accuracy"] < 0.4
    assert told.judged_reason == 'mixer "toy" breaks the law "step": keeps one token'


def test_every_scored_position_is_read_by_a_step_in_its_order() -> None:
    registry = registry_of(plugin_of(RunningMean), Tasks(Echo))
    task = CheckedTask.of(resolve_task("mqar:easy", registry))
    recipe = Recipe.read({**RECIPE, "batch_size": 200})
    evaluation = Evaluation(arch_of("toy", registry), task.task, recipe, 0, registry=registry)
    model = evaluation._fit_at(1e-2).model
    judges = [Judge(task=task, recipe=recipe, device=torch.device("cpu"), by=by) for by in ("forward", "steps")]  # type: ignore[arg-type]
    batch = task.evaluation("validation")[""]
    with torch.no_grad():
        whole, stepped = (judge.scores(model, batch, "validation", 0.0) for judge in judges)
    torch.testing.assert_close(torch.from_numpy(stepped[0]), torch.from_numpy(whole[0]), atol=1e-5, rtol=1e-4)
    assert (stepped[1] == whole[1]).mean() > 0.999
    assert ((stepped[1] >= 0) == batch.scored).all()


@pytest.mark.parametrize("broken", [{}, EVICTS], ids=["forward", "steps"])
def test_evaluations_are_told_the_progress_of_the_training(broken: Any) -> None:
    Recorder.seen = []
    measured(Recorder, broken, "echo", "toy", steps=4, eval_every=2, stop_at=0)
    trained = [progress for _, training, progress in Recorder.seen if training]
    looks = [(call, progress) for call, training, progress in Recorder.seen if not training]
    assert trained == [0.0, 0.25, 0.5, 0.75]
    assert sorted({progress for _, progress in looks}) == [0.5, 1.0]
    assert [progress for _, progress in looks] == sorted(progress for _, progress in looks)
    assert {call for call, _ in looks} == ({"prefill", "step"} if broken else {"forward"})


def test_the_test_is_told_where_the_chosen_rate_ended() -> None:
    Recorder.seen = []
    done = measured(Recorder, {}, "echo", "toy", steps=200, eval_every=1, stop_at=1e-9, learning_rates=[1e-3, 1e-2])
    assert done.steps < 200
    assert Recorder.seen[-1] == ("forward", False, done.steps / 200)


def test_a_mixer_that_sees_the_future_is_refused() -> None:
    registry = registry_of(plugin_of(RunningMean, {"causal": "reads both ways"}))
    arch = arch_of("full toy", registry)
    said = 'mixer "toy" breaks the law "causal": reads both ways: it sees the tokens .*, so leave "toy" out'
    with pytest.raises(SpecError, match=said):
        evaluate(arch, resolve_task("mqar:easy", registry), Recipe.read(RECIPE), 0, registry=registry)
    assert untrainable(arch_of("full", registry), registry) is None


def test_packed_sequences_ask_for_nothing() -> None:
    assert measured(RunningMean, {"packed": "averages over all"}, "echo", steps=1).judged == "forward"


def test_old_measurements_were_judged_by_the_forward_pass() -> None:
    found = measured(RunningMean, EVICTS, "echo", steps=1)
    data = json.loads(json.dumps(found.to_json()))
    assert Measurement.from_json(data) == found
    del data["judged"], data["judged_reason"]
    assert Measurement.from_json(data).judged == "forward"
