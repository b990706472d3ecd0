"""Linear attention's kernels on the card against the recurrence in float64: sequences and one token."""

from __future__ import annotations

import itertools

import pytest
import torch
from archsearch_plugins.linear.triton.launch import step as launch_step
from archsearch_plugins.linear.triton.table import STEP_TABLE, TABLE
from gpu_checks import LONG, MANY, PACKED, Op, check, check_past, few, on_card, rows_of, uneven
from linear_cases import attend, step
from test_linear_kernels import DECAYS, RULES, make_inputs
from torch import Tensor

from archsearch.kernels import Key

KINDS = list(itertools.product(RULES, DECAYS))
MIXED = [("delta", "channel"), ("hebbian", "head")]
LOW = ("q", "k", "v")
LENGTHS = [1, 15, 63, 64, 65, 100, 256, 1000]

rows = pytest.mark.parametrize("key", rows_of(TABLE))
mixed = pytest.mark.parametrize(("rule", "decay"), MIXED)
step_rows = pytest.mark.parametrize("key", rows_of(STEP_TABLE))


def op(impl: str, bounds: Tensor | None = None) -> Op:
    def run(inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return attend(inputs, impl=impl, cu_seqlens=bounds)

    return run  # type: ignore[return-value]


def check_row(key: Key, inputs: dict[str, Tensor], *, bounds: Tensor | None = None, exact: str = "reference") -> None:
    held, bounds = on_card(inputs, LOW), None if bounds is None else bounds.to(inputs_device())
    with TABLE.forced(key):
        check(op("triton", bounds), op(exact, bounds), held, trained=list(held))


def inputs_device() -> torch.device:
    return on_card({"x": torch.zeros(1)}, ())["x"].device


@pytest.mark.sample(rule="delta", decay="constant")
@rows
@pytest.mark.proves(TABLE)
@pytest.mark.parametrize(("rule", "decay"), KINDS)
def test_every_kind(key: Key, rule: str, decay: str) -> None:
    check_row(key, make_inputs(decay, rule, T=few(150, 70), B=2, K=key[1]))


@rows
@mixed
@pytest.mark.proves(TABLE)
def test_narrower_heads(key: Key, rule: str, decay: str) -> None:
    check_row(key, make_inputs(decay, rule, T=70, K=key[1] - 4))


@pytest.mark.sample(tokens=65)
@rows
@mixed
@pytest.mark.proves(TABLE)
@pytest.mark.parametrize("tokens", LENGTHS)
def test_lengths(key: Key, rule: str, decay: str, tokens: int) -> None:
    check_row(key, make_inputs(decay, rule, T=tokens, B=2, K=key[1]))


@rows
@pytest.mark.proves(TABLE)
@pytest.mark.parametrize(("rule", "decay"), KINDS)
def test_more_tokens_than_16_bits_count(key: Key, rule: str, decay: str) -> None:
    check_row(key, make_inputs(decay, rule, T=LONG, K=key[1]), exact="chunkwise")


@rows
@mixed
@pytest.mark.proves(TABLE)
def test_many_packed_sequences(key: Key, rule: str, decay: str) -> None:
    inputs = make_inputs(decay, rule, T=PACKED, K=key[1])
    inputs["initial_state"] = torch.randn(MANY, 2, key[1], key[1], generator=torch.Generator().manual_seed(2))
    check_row(key, inputs, bounds=uneven(PACKED, MANY), exact="chunkwise")


@rows
@pytest.mark.proves(TABLE)
@pytest.mark.parametrize("decay", ["head", "channel"])
def test_gates_that_forget_all_and_nothing(key: Key, decay: str) -> None:
    inputs = make_inputs(decay, "delta", T=90, K=key[1])
    inputs["log_decay"][:, 3] = -1000.0
    inputs["log_decay"][:, 20:60] = 0.0
    check_row(key, inputs)


@rows
@mixed
@pytest.mark.proves(TABLE)
def test_the_past_does_not_see_the_future(key: Key, rule: str, decay: str) -> None:
    inputs = on_card(make_inputs(decay, rule, T=few(150, 90), K=key[1]), LOW)
    with TABLE.forced(key):
        check_past(op("triton"), inputs, inputs.keys() - {"initial_state"}, 77)


@pytest.mark.sample(rule="delta", decay="channel")
@step_rows
@pytest.mark.proves(STEP_TABLE)
@pytest.mark.parametrize("crowd", [1, 10**6], ids=["wide", "narrow"])
@pytest.mark.parametrize(("rule", "decay"), KINDS)
def test_step(key: Key, rule: str, decay: str, crowd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_step, "STEP_CROWD", crowd)
    inputs = make_inputs(decay, rule, T=1, B=3, HV=4, H=2, K=key[1])
    token = {name: x if name == "initial_state" or x.dim() == 1 else x[:, 0] for name, x in inputs.items()}
    token["state"] = token.pop("initial_state")
    held = on_card(token, LOW)

    def stepping(impl: str, in_place: bool = False) -> Op:
        return lambda x: step(x, impl=impl, in_place=in_place)  # type: ignore[return-value]

    with STEP_TABLE.forced(key):
        check(stepping("triton"), stepping("reference"), held)
        check(stepping("triton", in_place=True), stepping("reference"), held)
