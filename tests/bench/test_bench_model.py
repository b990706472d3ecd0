"""Whole models are measured beside the cost model, on the CPU at tiny sizes."""

from __future__ import annotations

import os

import pytest
import torch
from bench_samples import CPU, RATES, ScriptedClock

from archsearch.arch import ModelSpec
from archsearch.bench import model as bench_model
from archsearch.bench.model import LARGE, ModelBench, Plan, bench_pattern, plan_for
from archsearch.bench.results.schema import ModelRow
from archsearch.costs import CostModel
from archsearch.model import HybridLM
from archsearch.registry import Registry

PLAN = Plan(train=(16,), prefill=(16, 40), decode=(40,), batch=2)


def bench(registry: Registry, dtype: torch.dtype = torch.float32) -> ModelBench:
    name = str(dtype).removeprefix("torch.")
    spec = ModelSpec.read({"d_model": 32, "n_heads": 2, "vocab_size": 16, "dtype": name})
    return ModelBench(
        device=CPU, dtype=dtype, clock=ScriptedClock(0.5), ceilings=RATES, spec=spec, registry=registry, seconds=0.0
    )


def rows_of(registry: Registry, pattern: str, dtype: torch.dtype = torch.float32) -> list[ModelRow]:
    return list(bench_pattern(pattern, PLAN, bench(registry, dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pattern", ["full", "[kda full]", "[sliding(window=8) moba(block_size=8) nsa(block_size=8)]"])
def test_every_quantity_is_measured(pattern: str, dtype: torch.dtype, registry: Registry) -> None:
    rows = rows_of(registry, pattern, dtype)
    assert [(row.quantity, row.batch, row.context, row.status) for row in rows] == [
        ("training", 1, 16, "measured"),
        ("prefill", 1, 16, "measured"),
        ("prefill", 1, 40, "measured"),
        ("decode", 2, 40, "measured"),
        ("state", 2, 40, "measured"),
    ]
    assert {row.measured for row in rows[:4]} == {0.5}
    assert rows[3].reason == "no CUDA graph on a CPU"
    assert rows[4].ratio == 1.0


def test_predictions_are_the_cost_models_at_the_ceilings(registry: Registry) -> None:
    training, prefill, _, decode, _ = rows_of(registry, "[kda full]")
    made = bench(registry)
    arch = bench_model.ArchSpec.parse("[kda full]", registry, made.spec)
    cost = CostModel(registry).cost(arch, 16)
    assert training.predicted == pytest.approx(cost.train_flops / 1e12)
    assert prefill.predicted == pytest.approx(
        max(cost.prefill_flops / 1e12, (cost.weight_bytes + cost.state_bytes) / 1e9)
    )
    cost = CostModel(registry).cost(arch, 40)
    moved = cost.weight_bytes + 2 * (cost.decode_read_bytes + cost.decode_written_bytes)
    assert decode.predicted == pytest.approx(moved / 1e9)


def test_training_leaves_the_weights_and_no_gradient(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[HybridLM] = []

    def build(*args: object) -> HybridLM:
        made.append(HybridLM(*args))  # type: ignore[arg-type]
        made.append(HybridLM(*args))  # type: ignore[arg-type]
        made[1].load_state_dict(made[0].state_dict())
        return made[0]

    monkeypatch.setattr(bench_model, "HybridLM", build)
    rows_of(registry, "kda")
    for trained, untouched in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(trained, untouched)
        assert trained.grad is None


def test_a_model_whose_logits_are_wrong_gets_no_figure(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = HybridLM.advance

    def wrong(self: HybridLM, *args: object, **options: object) -> object:
        logits, states = genuine(self, *args, **options)  # type: ignore[arg-type]
        return 1.2 * logits, states

    monkeypatch.setattr(HybridLM, "advance", wrong)
    found = {row.quantity: row for row in rows_of(registry, "full")}
    assert found["prefill"].status == "measured"
    assert (found["decode"].status, found["decode"].measured) == ("wrong", None)
    assert "off by 0.2" in found["decode"].reason


def test_no_room_and_failures_are_rows(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench_model, "measure", full)
    assert {row.status for row in rows_of(registry, "full")} == {"out of memory"}


def test_the_environment_is_left_as_it_was(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    rows_of(registry, "full")
    assert os.environ["ARCHSEARCH_IMPL"] == "reference"


def test_a_card_has_the_long_contexts() -> None:
    assert plan_for(torch.device("cuda"), train=[], prefill=[], decode=[5], batch=3) == Plan(
        train=LARGE.train, prefill=LARGE.prefill, decode=[5], batch=3
    )
    assert LARGE.decode[-1] == 2**20
