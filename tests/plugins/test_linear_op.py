"""Linear attention: the chunkwise form and the step against the recurrence in float64, and what the op refuses."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
import torch
from archsearch_plugins.linear.chunk import form, gate_sums
from archsearch_plugins.linear.ops import linear_attention, linear_attention_step
from archsearch_plugins.linear.tokens import Tokens
from linear_cases import DECAYS, RULES, assert_near, attend, make_inputs, results, step
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.ops import impl as impl_choice
from archsearch.ops.softmax import ShapeError

NAMES = ("q", "k", "v", "log_decay", "beta", "initial_state")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [1, 15, 65, 150])
def test_chunkwise_in_float32_equals_the_recurrence_in_float64(T: int, decay: str, rule: str) -> None:
    inputs = make_inputs(T=T, decay=decay, rule=rule)
    expected = results(inputs, dtype=torch.float64, impl="reference")
    assert_near(results(inputs, dtype=torch.float32, impl="chunkwise"), expected, 1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", ["head", "channel"])
@pytest.mark.parametrize("low", [-1.0, -0.01, 0.0])
def test_slow_decays_keep_their_precision(low: float, decay: str, rule: str) -> None:
    inputs = make_inputs(T=130, decay=decay, rule=rule, low=low)
    expected = results(inputs, dtype=torch.float64, impl="reference")
    assert_near(results(inputs, dtype=torch.float32, impl="chunkwise"), expected, 1e-5)


@pytest.mark.parametrize("gate", [-1000.0, -torch.inf], ids=["-1000", "-inf"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", ["constant", "head", "channel"])
def test_closed_gates_among_open_ones(decay: str, rule: str, gate: float) -> None:
    inputs = make_inputs(T=150, decay=decay, rule=rule, low=-1.0, HV=4)
    decays = inputs["log_decay"]
    assert decays is not None
    kind = torch.randint(8, decays.shape, generator=torch.Generator().manual_seed(2))
    decays[kind == 0], decays[kind == 1] = gate, 0.0
    expected = results(inputs, dtype=torch.float64, impl="reference")
    assert_near(results(inputs, dtype=torch.float32, impl="chunkwise"), expected, 1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("chunk_size", [1, 7, 16, 64, 200])
def test_any_chunk_size_without_a_first_state_and_with_grouped_heads(chunk_size: int, decay: str, rule: str) -> None:
    inputs = make_inputs(T=70, decay=decay, rule=rule, HV=6, state=False)
    expected = results(inputs, dtype=torch.float64, impl="reference")
    actual = results(inputs, dtype=torch.float64, impl="chunkwise", chunk_size=chunk_size)
    assert_near(actual, expected, 1e-9)


def test_query_head_serves_adjacent_value_heads() -> None:
    inputs = make_inputs(T=9, decay="head", rule="delta", HV=4)
    o, state = attend(inputs)
    apart = dict(inputs, q=inputs["q"].repeat_interleave(2, 2), k=inputs["k"].repeat_interleave(2, 2))  # type: ignore[union-attr]
    wanted, wanted_state = attend(apart)
    assert_close(o, wanted)
    assert_close(state, wanted_state)


@pytest.mark.parametrize("impl", ["reference", "chunkwise"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_recurrence_by_hand(decay: str, rule: str, impl: str) -> None:
    inputs = make_inputs(T=5, B=1, H=1, HV=1, decay=decay, rule=rule, low=-2.0)
    q, k, v = (inputs[name][0, :, 0] for name in "qkv")  # type: ignore[index]
    state = inputs["initial_state"][0, 0].clone()  # type: ignore[index]
    for t in range(5):
        if decay != "none":
            gate = inputs["log_decay"].expand(1, 5, 1) if decay == "constant" else inputs["log_decay"]  # type: ignore[union-attr]
            state *= gate[0, t, 0].exp().reshape(-1, 1)
        written = v[t]
        if rule == "delta":
            written = inputs["beta"][0, t, 0] * (v[t] - state.T @ k[t])  # type: ignore[index]
        state += torch.outer(k[t], written)
    o, last = attend(inputs, scale=0.3, impl=impl)
    assert_close(last[0, 0], state)
    assert_close(o[0, -1, 0], 0.3 * state.T @ q[-1])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_steps_equal_the_sequence(decay: str, rule: str) -> None:
    inputs = make_inputs(T=12, decay=decay, rule=rule, HV=4)
    state = inputs.pop("initial_state")
    o, last = attend(inputs, initial_state=state)
    outputs = []
    for t in range(12):
        token = {name: x if x is None or x.dim() == 1 else x[:, t] for name, x in inputs.items()}
        o_t, state = step({**token, "state": state})
        outputs.append(o_t)
    assert_close(torch.stack(outputs, 1), o)
    assert_close(state, last)


@pytest.mark.parametrize("impl", ["reference", "chunkwise"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("lengths", [[3, 0, 70, 1], [0, 0], []], ids=["uneven", "all-empty", "none"])
def test_packed_sequences_equal_each_apart(lengths: list[int], decay: str, rule: str, impl: str) -> None:
    inputs = make_inputs(T=sum(lengths), B=1, decay=decay, rule=rule)
    states = torch.randn(len(lengths), 2, 16, 12, dtype=torch.float64)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    inputs["initial_state"] = states
    o, last = attend(inputs, cu_seqlens=bounds, impl=impl)
    assert o.shape == inputs["v"].shape  # type: ignore[union-attr]
    assert last.shape == states.shape
    for index, (start, end) in enumerate(itertools.pairwise(bounds)):
        one = {name: x if x is None or x.dim() == 1 else x[:, start:end] for name, x in inputs.items()}
        one["initial_state"] = states[index : index + 1]
        wanted, wanted_state = attend(one, impl="reference")
        assert_close(o[:, start:end], wanted)
        assert_close(last[index : index + 1], wanted_state)


@pytest.mark.parametrize("impl", ["reference", "chunkwise"])
def test_no_tokens_leave_the_state(impl: str) -> None:
    inputs = make_inputs(T=0, decay="channel", rule="delta")
    o, last = attend(inputs, impl=impl)
    assert o.shape == (2, 0, 2, 12)
    assert_close(last, inputs["initial_state"])
    assert not attend(dict(inputs, initial_state=None), impl=impl)[1].any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_a_batch_of_no_rows(decay: str, rule: str) -> None:
    found = results(make_inputs(T=20, B=0, decay=decay, rule=rule), dtype=torch.float32, impl="chunkwise")
    assert found["o"].shape == (0, 20, 2, 12)
    assert found["state"].shape == (0, 2, 16, 12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", ["constant", "head", "channel"])
@pytest.mark.parametrize("low", [-1.0, -200.0])
def test_gates_that_are_no_numbers_show(low: float, decay: str, rule: str) -> None:
    inputs = make_inputs(T=70, decay=decay, rule=rule, low=low)
    gates = inputs["log_decay"]
    assert gates is not None
    gates[..., :1] = torch.nan
    o, state = attend(inputs)
    assert o[:, -1, 0].isnan().all()
    assert state[:, 0].isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_dtypes_of_output_and_state(dtype: torch.dtype) -> None:
    inputs = make_inputs(T=20, decay="head", rule="delta", state=False)
    given = {name: None if x is None else x.to(dtype) for name, x in inputs.items()}
    given["log_decay"] = inputs["log_decay"].float()  # type: ignore[union-attr]
    o, state = attend(given)
    assert o.dtype == dtype
    assert state.dtype == torch.promote_types(dtype, torch.float32)
    rounded = {name: None if x is None else x.double() for name, x in given.items()}
    expected, _ = attend(rounded, impl="reference")
    assert_close(o.double(), expected, rtol=2e-2, atol=2e-2)


def test_autocast_does_not_lower_the_precision() -> None:
    inputs = {
        name: None if x is None else x.float() for name, x in make_inputs(T=70, decay="head", rule="delta").items()
    }
    plain, _ = attend(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, _ = attend(inputs)
    assert torch.equal(plain, cast)


@pytest.mark.parametrize("T", [64, 100])
@pytest.mark.parametrize("rule", RULES)
def test_without_the_state_the_output_is_the_same(rule: str, T: int) -> None:
    inputs = make_inputs(T=T, decay="channel", rule=rule, state=False)
    o, _ = attend(inputs)
    alone, state = attend(inputs, want_state=False)
    assert_close(o, alone)
    assert state.numel() == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_training_after_inference_mode(decay: str, rule: str) -> None:
    inputs = make_inputs(T=33, decay=decay, rule=rule)
    gate_sums.triangles.cache_clear()
    with torch.inference_mode():
        attend(inputs)
    assert results(inputs, dtype=torch.float64)["d_q"].any()


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("q", (2, 7, 2), r"q is \[2, 7, 2\] float64: expected \[B, T, H, K\]"),
        ("k", (2, 7, 2, 15), r"k is \[2, 7, 2, 15\] float64: expected \[2, 7, 2, 16\]"),
        ("v", (2, 7, 3, 12), r"v is \[2, 7, 3, 12\] float64: expected a number of heads that is a multiple of the 2"),
        ("v", (2, 6, 2, 12), r"v is \[2, 6, 2, 12\] float64: expected \[2, 7, 2, 12\]"),
        ("log_decay", (2, 7, 2, 12), r"log_decay is .*: expected \[2\] or \[2, 7, 2\] or \[2, 7, 2, 16\]"),
        ("beta", (2, 7), r"beta is \[2, 7\] float64: expected \[2, 7, 2\]"),
        ("initial_state", (2, 2, 12, 16), r"initial_state is .*: expected \[2, 2, 16, 12\]"),
        ("cu_seqlens", (2, 2), r"cu_seqlens is .*: expected integers \[N \+ 1\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(name: str, shape: tuple[int, ...], expected: str) -> None:
    inputs: dict[str, Any] = make_inputs(T=7, decay="head", rule="delta")
    inputs[name] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ShapeError, match=expected):
        attend(inputs)


def test_dtypes_that_do_not_fit_are_named() -> None:
    inputs: dict[str, Any] = make_inputs(T=7, decay="none", rule="hebbian")
    with pytest.raises(ShapeError, match=r"k is \[2, 7, 2, 16\] float32: expected the dtype of q"):
        attend(dict(inputs, k=inputs["k"].float()))
    with pytest.raises(ShapeError, match=r"v is \[2, 7, 2, 12\] int64: expected a floating-point dtype"):
        attend(dict(inputs, v=inputs["v"].long()))


def test_packed_sequences_that_do_not_fit_are_named() -> None:
    inputs: dict[str, Any] = make_inputs(T=7, decay="none", rule="hebbian", state=False)
    with pytest.raises(ShapeError, match="B = 1"):
        attend(inputs, cu_seqlens=torch.tensor([0, 7]))
    one = {name: None if x is None else x[:1] for name, x in inputs.items()}
    with pytest.raises(ShapeError, match="must rise from 0 to the number of tokens, 7"):
        attend(one, cu_seqlens=torch.tensor([0, 5]))


def test_state_that_does_not_fit_a_step_is_named() -> None:
    x = torch.zeros(1, 2, 8)
    with pytest.raises(ShapeError, match=r"state is \[1, 2, 8, 4\] float32: expected \[1, 2, 8, 8\]"):
        linear_attention_step(Tokens(x, x, x), torch.zeros(1, 2, 8, 4))


def test_choice_of_the_implementation(caplog: pytest.LogCaptureFixture) -> None:
    impl_choice._say_once.cache_clear()
    x = torch.zeros(1, 2, 1, 4)
    with caplog.at_level(logging.INFO):
        linear_attention(Tokens(x, x, x))
        linear_attention(Tokens(x, x, x))
    said = [record.message for record in caplog.records if "linear_attention" in record.message]
    assert said == ["linear_attention runs chunkwise: the chunkwise form in PyTorch"]
    with pytest.raises(OptionsError, match="chunkwise"):
        linear_attention(Tokens(x, x, x), impl="chunked")
    with pytest.raises(OptionsError, match="chunk_size = 0"):
        linear_attention(Tokens(x, x, x), chunk_size=0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [64, 70])
def test_tokens_worked_on_in_short_runs(monkeypatch: pytest.MonkeyPatch, T: int, decay: str, rule: str) -> None:
    """A chunk at a time, as long sequences are in pieces that a cache holds; and two, whose last one is short."""
    for cached in (1, 2 * 2 * 2 * 16 * 16):
        monkeypatch.setattr(form, "_CACHED", cached)
        inputs = make_inputs(T=T, decay=decay, rule=rule)
        expected = results(inputs, dtype=torch.float64, impl="reference")
        assert_near(results(inputs, dtype=torch.float32, impl="chunkwise", chunk_size=16), expected, 1e-5)
