"""Training and measuring one architecture: repeatable, resumable, and honest about divergence."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import SpecError
from archsearch.exercise import Unexercised
from archsearch.measurement import Measurement
from archsearch.registry import Registry
from archsearch.tasks import Task, resolve_task
from archsearch.training import Evaluation, Recipe, evaluate, measurement_key
from archsearch.training.fit import schedule

SMALL = {"steps": 6, "batch_size": 8, "eval_every": 3, "learning_rates": [1e-3, 1e-2]}


@pytest.fixture(scope="module")
def arch(registry: Registry) -> ArchSpec:
    model = ModelSpec.read({"d_model": 16, "n_heads": 2, "channel_mixer": "none", "short_conv": 4})
    return ArchSpec.parse("kda sliding(window=8)", registry, model)


@pytest.fixture(scope="module")
def task(registry: Registry) -> Task:
    return resolve_task("mqar:easy", registry)


def test_equal_inputs_give_equal_results(arch: ArchSpec, task: Task, registry: Registry) -> None:
    first, second = (evaluate(arch, task, Recipe.read(SMALL), 3, registry=registry) for _ in range(2))
    for name in ("validation", "test", "curve", "learning_rate", "key", "digest"):
        assert getattr(first, name) == getattr(second, name)
    other = evaluate(arch, task, Recipe.read(SMALL), 4, registry=registry)
    assert other.curve != first.curve
    assert other.key != first.key


def test_the_measurement_is_plain_data(arch: ArchSpec, task: Task, registry: Registry) -> None:
    measurement = evaluate(arch, task, Recipe.read(SMALL), 0, registry=registry)
    assert measurement.status == "complete"
    assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement
    assert [entry["learning_rate"] for entry in measurement.sweep] == [1e-3, 1e-2]
    best = max(measurement.sweep, key=lambda entry: entry["validation"]["accuracy"])
    assert measurement.learning_rate == best["learning_rate"]
    assert measurement.validation == best["validation"]
    assert [point["step"] for point in measurement.curve] == [3, 6]
    assert measurement.tokens_per_second > 0
    assert measurement.peak_memory_bytes > 0
    assert {"torch", "python", "device", "mixer:linear", "mixer:sliding", "task:mqar"} <= set(measurement.versions)
    assert measurement.costs["context"] == task.seq_len


def test_an_interrupted_evaluation_goes_on_exactly(
    arch: ArchSpec, task: Task, registry: Registry, tmp_path: Path
) -> None:
    recipe = Recipe.read({**SMALL, "checkpoint_seconds": 1e-9})
    whole = evaluate(arch, task, recipe, 0, registry=registry)
    file = tmp_path / "trial.pt"
    for _ in range(40):
        evaluation = Evaluation(arch, task, recipe, 0, registry=registry, checkpoint=file)
        if evaluation.progress.step >= 11:
            break
        evaluation.advance(0)
    assert file.exists()
    while not evaluation.done:
        evaluation.advance(0)
    resumed = evaluation.measurement()
    for name in ("validation", "test", "curve", "learning_rate", "steps"):
        assert getattr(resumed, name) == getattr(whole, name)
    evaluation.discard()
    assert not file.exists()


def test_a_checkpoint_of_another_evaluation_is_not_taken(
    arch: ArchSpec, task: Task, registry: Registry, tmp_path: Path
) -> None:
    recipe = Recipe.read({**SMALL, "checkpoint_seconds": 1e-9})
    file = tmp_path / "trial.pt"
    Evaluation(arch, task, recipe, 0, registry=registry, checkpoint=file).advance(0)
    assert Evaluation(arch, task, recipe, 0, registry=registry, checkpoint=file).progress.step == 1
    assert Evaluation(arch, task, recipe, 1, registry=registry, checkpoint=file).progress.step == 0


def test_a_rate_that_diverges_is_reported_with_its_step(arch: ArchSpec, task: Task, registry: Registry) -> None:
    recipe = Recipe.read({**SMALL, "learning_rates": [1e30], "steps": 20})
    measurement = evaluate(arch, task, recipe, 0, registry=registry)
    assert measurement.status == "diverged"
    assert "not finite at step" in (measurement.reason or "")
    assert measurement.learning_rate is None
    assert not measurement.test


def test_a_rate_that_diverges_does_not_spoil_the_sweep(arch: ArchSpec, task: Task, registry: Registry) -> None:
    recipe = Recipe.read({**SMALL, "learning_rates": [1e30, 1e-3]})
    measurement = evaluate(arch, task, recipe, 0, registry=registry)
    assert measurement.status == "complete"
    assert measurement.learning_rate == 1e-3
    assert [entry["status"] for entry in measurement.sweep] == ["diverged", "complete"]


def test_a_solved_task_stops_early(arch: ArchSpec, task: Task, registry: Registry) -> None:
    recipe = Recipe.read({**SMALL, "stop_at": 1e-9, "learning_rates": [1e-2], "steps": 300})
    measurement = evaluate(arch, task, recipe, 0, registry=registry)
    assert measurement.solved_at == measurement.steps < 300


def test_sparsity_that_cannot_act_is_marked(task: Task, registry: Registry) -> None:
    model = ModelSpec.read({"d_model": 16, "n_heads": 2, "channel_mixer": "none"})
    recipe = Recipe.read({**SMALL, "steps": 1, "learning_rates": [1e-3]})
    wide = evaluate(ArchSpec.parse("sliding(window=64) kda", registry, model), task, recipe, 0, registry=registry)
    narrow = evaluate(ArchSpec.parse("sliding(window=63) kda", registry, model), task, recipe, 0, registry=registry)
    assert not wide.exercised
    assert [(found.dense_up_to, found.seq_len) for found in wide.unexercised] == [(64, 64)]
    assert str(wide.unexercised[0]).startswith("sliding(window=64")
    assert narrow.exercised


def test_the_key_knows_what_a_result_depends_on(arch: ArchSpec, task: Task, registry: Registry) -> None:
    def key(recipe: dict[str, object], seed: int = 0, task: Task = task) -> str:
        return measurement_key(arch, task, Recipe.read(recipe), seed, registry, device="cpu", form="auto")

    base = key({"steps": 5})
    assert key({"steps": 5, "seeds": 3, "device": "cpu", "checkpoint_seconds": 5}) == base
    for other in ({"steps": 6}, {"steps": 5, "learning_rates": [1e-3]}, {"steps": 5, "batch_size": 8}):
        assert key(other) != base
    assert key({"steps": 5}, seed=1) != base
    assert key({"steps": 5}, task=resolve_task("mqar:noisy_update", registry)) != base


def test_the_schedule_warms_up_and_falls_to_its_end() -> None:
    recipe = Recipe.read({"warmup": 0.1, "final_learning_rate": 0.1})
    shares = [schedule(step, 100, recipe) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == pytest.approx(1.0)
    assert shares.index(max(shares)) in (9, 10)
    assert shares[-1] == pytest.approx(0.1, abs=0.01)
    assert all(math.isfinite(share) for share in shares)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"step": 5}, 'did you mean "steps"'),
        ({"steps": 0}, "recipe.steps = 0"),
        ({"learning_rates": []}, "learning_rates"),
        ({"learning_rates": [0.1, -1]}, "-1"),
        ({"learning_rates": [0.1, 0.1]}, "twice"),
        ({"dtype": "int4"}, "dtype"),
        ({"warmup": 2}, "warmup"),
        ({"learning_rates": [math.inf]}, r"recipe.learning_rates.0 = inf: .*finite"),
        ({"learning_rates": [math.nan]}, r"recipe.learning_rates.0 = nan: .*finite"),
        ({"betas": [0.9, 1.0]}, r"recipe.betas.1 = 1.0: .*less than 1"),
        ({"betas": [-0.1, 0.9]}, r"recipe.betas.0 = -0.1: .*greater than or equal to 0"),
        ({"betas": [0.9, math.nan]}, r"recipe.betas.1 = nan: .*finite"),
        ({"betas": [0.9]}, "betas"),
        ({"weight_decay": math.inf}, "weight_decay = inf: .*finite"),
        ({"clip": math.nan}, "clip = nan: .*finite"),
        ({"clip": math.inf}, "clip = inf: .*finite"),
        ({"stop_at": math.nan}, "stop_at = nan: .*finite"),
        ({"warmup": math.nan}, "warmup = nan: .*finite"),
        ({"final_learning_rate": math.nan}, "final_learning_rate = nan: .*finite"),
        ({"checkpoint_seconds": math.inf}, "checkpoint_seconds = inf: .*finite"),
        ({"checkpoint_seconds": 1e10}, "checkpoint_seconds = .*1000000000"),
        ({"threads": 100_000}, "threads = 100000: .*512"),
        ({"steps": 100_000_001}, "steps = 100000001: .*100000000"),
        ({"eval_every": 100_000_001}, "eval_every = 100000001: .*100000000"),
        ({"batch_size": 1_048_577}, "batch_size = 1048577: .*1048576"),
        ({"seeds": 1001}, "seeds = 1001: .*1000"),
        ({"tokens": 10**16}, "tokens = .*1000000000000000"),
    ],
)
def test_a_bad_recipe_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Recipe.read(values)


def test_tokens_instead_of_steps() -> None:
    assert Recipe.read({"tokens": 64 * 100 * 7, "batch_size": 64}).steps_for(100) == 7
    with pytest.raises(SpecError, match=r"recipe.tokens = 10+ is 10+ steps of 1 sequences of 10 tokens, .*batch_size"):
        Recipe.read({"tokens": 10**15, "batch_size": 1}).steps_for(10)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no CUDA device")
def test_a_device_that_is_not_there(arch: ArchSpec, task: Task, registry: Registry) -> None:
    with pytest.raises(SpecError, match="CUDA"):
        evaluate(arch, task, Recipe.read({**SMALL, "device": "cuda"}), 0, registry=registry)


def test_measurement_defaults() -> None:
    names = {"key", "digest", "pattern", "task"}
    measurement = Measurement(
        **dict.fromkeys(names, "x"),
        arch={},
        task_options={},
        metric="accuracy",
        direction="maximize",
        recall=True,
        chance=0.0,
        recipe={},
        seed=0,
        status="complete",
    )
    assert measurement.exercised
    assert not replace(
        measurement, unexercised=(Unexercised(layer="sliding", task="x", seq_len=4, dense_up_to=4),)
    ).exercised
