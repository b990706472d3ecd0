"""Costs of the linear mixer against what is built and what is multiplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.options import LinearOptions
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

PLUGIN = LinearPlugin()
SHAPE = ModelShape(d_model=48, n_heads=3, n_kv_heads=3, head_dim=16, dtype="float32")
LAYER = LayerInfo(index=1, depth=3)
CASES: dict[str, dict[str, Any]] = {name: dict(values) for name, values in PLUGIN.presets.items()} | {
    "other-sizes": {"update": "delta", "decay": "channel", "key_dim": 8, "value_dim": 20},
    "skip": {"skip": True, "activation": "elu1"},
    "conv-1": {"conv": 1, "decay": "head"},
    "learned": {"update": "delta", "initial_state": "learned"},
    "three-steps": {"update": "delta", "decay": "constant", "steps": 3, "conv": 2},
    "published-xlstm": {**PLUGIN.conformance["cases"]["published-xlstm"]},
    "bounded-full": {**PLUGIN.presets["kda-bounded"], "decay_form": "bounded-full", "low_rank_gate": False},
    "shared-keys": {**PLUGIN.conformance["cases"]["shared-keys"]},
    "published-retnet": {**PLUGIN.conformance["cases"]["published-retnet"]},
    "published-rwkv7": {**PLUGIN.conformance["cases"]["published-rwkv7"]},
    "bare": {"conv": 0, "output_norm": "none", "output_gate": "none", "norm": "none"},
}
FIXED = [name for name, values in CASES.items() if not (values.get("levels") or values.get("memories"))]
"""Of one state."""
PROJECTIONS = ("proj", "out", "gate_up", "decay.up", "shift.down", "write.up", "first_values.down", "first_values.up")


@pytest.mark.parametrize("case", CASES)
def test_params_are_those_built(case: str) -> None:
    options = PLUGIN.parse_options(CASES[case])
    built = sum(parameter.numel() for parameter in PLUGIN.build(options, SHAPE, LAYER).parameters())
    assert PLUGIN.params(options, SHAPE, LAYER) == built


@pytest.mark.parametrize("phase", ["train", "prefill"])
@pytest.mark.parametrize("context", [1, 20, 65, 150])
@pytest.mark.parametrize("case", ["linear", "deltanet", "other-sizes"])
def test_matrix_products_of_a_sequence(case: str, context: int, phase: Any) -> None:
    """Within 2% of the chunkwise form written out row by row, so that only the causal half of every square (the pairs
    of a token with itself or an earlier one) and only the lower triangle of the inverse is multiplied, and counted."""
    assert_products(case, context, phase)


@pytest.mark.arena
@pytest.mark.parametrize(
    ("case", "context"), [("learned", 66), ("three-steps", 30), ("gated-deltaproduct", 34), ("rwkv7", 66)]
)
def test_matrix_products_of_the_delta_rules(case: str, context: int) -> None:
    for phase in ("train", "prefill"):
        assert_products(case, context, phase)


@pytest.mark.arena
@pytest.mark.parametrize("case", [name for name in PLUGIN.presets if name in FIXED])
def test_matrix_products_of_a_sequence_of_every_preset(case: str) -> None:
    """Of one state; hierarchies and memories are counted by tests of their own."""
    assert_products(case, 34, "prefill")


@pytest.mark.parametrize("context", [32, 34])
def test_matrix_products_of_routed_memories(context: int) -> None:
    """Each memory has as many tokens as the others, in a sequence of its own, and the shared one has all."""
    options = PLUGIN.parse_options(CASES["mom"])
    heads, key_dim, value_dim = options.dims(SHAPE)
    routed = context * options.memories_used // options.memories
    with FlopCounterMode(display=False) as counter:
        for tokens in [routed] * options.memories + [context] * options.shared_memory:
            q, k = torch.randn(2, heads, tokens, key_dim)
            explicit_chunks(q, k, torch.randn(heads, tokens, value_dim), options, last=True)
    mixer = PLUGIN.build(options, SHAPE, LAYER)
    projections = [mixer.get_parameter(f"{name}.weight").numel() for name in ("proj", "out", "router.scores")]
    met = mixer.get_parameter("written")[: options.memories_used + options.shared_memory].numel()
    counted = counter.get_total_flops() + context * 2 * (sum(projections) + met)
    said = PLUGIN.flops(options, SHAPE, LAYER, phase="prefill", context=context).matmul
    assert said == pytest.approx(counted, rel=0.05)


def assert_products(case: str, context: int, phase: Any) -> None:
    options = PLUGIN.parse_options(CASES[case])
    heads, key_dim, value_dim = options.state_dims(SHAPE)
    steps = context * options.steps
    q, k = torch.randn(heads, steps, key_dim), torch.randn(heads, steps, key_dim)
    v = torch.randn(heads, steps, value_dim)
    with FlopCounterMode(display=False) as counter:
        explicit_chunks(q, k, v, options, last=phase == "prefill")
    counted = counter.get_total_flops() + context * projection_flops(case)
    assert PLUGIN.flops(options, SHAPE, LAYER, phase=phase, context=context).matmul == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("case", FIXED)
def test_matrix_products_of_a_decoded_token(case: str) -> None:
    """A write is an outer product, a read or a recall a matrix by a vector: 2 K V each."""
    options = PLUGIN.parse_options(CASES[case])
    heads, key_dim, value_dim = options.state_dims(SHAPE)
    state, key, value = (
        torch.randn(heads, key_dim, value_dim),
        torch.randn(heads, key_dim, 1),
        torch.randn(heads, 1, value_dim),
    )
    with FlopCounterMode(display=False) as counter:
        _ = state.mT @ key
        for _ in range(options.steps):
            _ = key @ value
            if options.update == "delta":
                _ = state.mT @ key
            if options.removal == "rate":  # what is removed lies along another key
                _ = key @ value
    counted = counter.get_total_flops() + projection_flops(case)
    for context in (1, 100_000):
        assert PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=context).matmul == counted


def projection_flops(case: str) -> int:
    """Multiplications and additions of one token by the built layer's projections."""
    mixer = PLUGIN.build(PLUGIN.parse_options(CASES[case]), SHAPE, LAYER)
    weights = [mixer.get_submodule(name).weight for name in PROJECTIONS if has(mixer, name)]
    weights += [mixer.shift.up] if mixer.options.token_shift else []
    weights += [] if mixer.features is None else [mixer.features.directions] * 2 * mixer.heads
    return sum(2 * weight.numel() for weight in weights)  # type: ignore[misc, operator]


def has(mixer: torch.nn.Module, name: str) -> bool:
    try:
        return isinstance(mixer.get_submodule(name), torch.nn.Linear)
    except AttributeError:
        return False


def explicit_chunks(q: Tensor, k: Tensor, v: Tensor, options: LinearOptions, *, last: bool, size: int = 64) -> None:
    """The products of `[H, T, ...]` in chunks of `size`, each row by no more than it needs; results are not kept."""
    chunks = list(zip(q.split(size, 1), k.split(size, 1), v.split(size, 1), strict=True))
    state, learned = q.new_zeros(q.shape[0], q.shape[2], v.shape[2]), options.initial_state == "learned"
    for n, (q_n, k_n, v_n) in enumerate(chunks):
        apart, u_n = options.removal == "rate", v_n
        asked = [i for i in range(q_n.shape[1]) if (n * size + i) % options.steps == options.steps - 1]
        if options.update == "delta":
            inverse = explicit_inverse(k_n)
            u_n = by_rows(inverse, v_n)
            if apart:
                met = [k_n[:, i : i + 1] @ k_n[:, :i].mT @ v_n[:, :i] for i in range(1, k_n.shape[1])]
                assert len(met) == k_n.shape[1] - 1
            if n or learned:
                u_n = u_n - by_rows(inverse, k_n) @ state
        for values in [u_n, v_n] if apart else [u_n]:
            for i in asked:
                _ = q_n[:, i : i + 1] @ k_n[:, : i + 1].mT @ values[:, : i + 1]
            if last or n < len(chunks) - 1:
                state = state + k_n.mT @ values
        if n or learned:
            _ = q_n[:, asked] @ state


def by_rows(lower: Tensor, x: Tensor) -> Tensor:
    """A lower triangle `[H, C, C]` by `[H, C, V]`."""
    return torch.cat([lower[:, i : i + 1, : i + 1] @ x[:, : i + 1] for i in range(x.shape[1])], dim=1)


def explicit_inverse(k: Tensor) -> Tensor:
    """(I + k k^T below the diagonal)^-1 by substitution, no zero multiplied but for the unit diagonal's."""
    size = k.shape[1]
    inverse = torch.eye(size).repeat(k.shape[0], 1, 1)
    for i in range(1, size):
        row = k[:, i : i + 1] @ k[:, :i].mT
        for j in range(i):
            inverse[:, i, j] = -(row[:, :, j:] @ inverse[:, j:i, j : j + 1])[:, 0, 0]
    return inverse


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("case", FIXED)
def test_state_is_what_init_state_allocates_and_what_a_token_moves(case: str, dtype: Any) -> None:
    options = PLUGIN.parse_options(CASES[case])
    shape = ModelShape(d_model=48, n_heads=3, n_kv_heads=3, head_dim=16, dtype=dtype)
    mixer = PLUGIN.build(options, shape, LAYER)
    promised = sum(tensor.nbytes(1000) for tensor in PLUGIN.state(options, shape, LAYER))
    assert mixer.init_state(2, 1000, dtype=getattr(torch, dtype)).nbytes == 2 * promised
    traffic = PLUGIN.traffic(options, shape, LAYER, context=1000)
    assert (traffic.read_bytes, traffic.written_bytes) == (promised, promised)
    assert not any(tensor.grows for tensor in PLUGIN.state(options, shape, LAYER))


@pytest.mark.parametrize("case", CASES)
def test_state_keeps_its_dtypes_in_a_model_of_bfloat16(case: str) -> None:
    mixer = PLUGIN.build(PLUGIN.parse_options(CASES[case]), SHAPE, LAYER).bfloat16()
    before = mixer.init_state(1, 8)
    with torch.no_grad():
        _, after = mixer(torch.randn(1, 3, 48, dtype=torch.bfloat16), state=before, ctx=Context())
        _, after = mixer.step(torch.randn(1, 48, dtype=torch.bfloat16), state=after, ctx=Context())
    kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in before.tensors.items()}
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in after.tensors.items()} == kinds
    assert before.tensors["recurrent"].dtype == torch.float32
