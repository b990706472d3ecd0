"""One rule of counting for all mixers: what an activation costs, and that a token's write to a state is a product."""

from __future__ import annotations

from typing import Any

import pytest
from archsearch_plugins.linear import cost as linear
from archsearch_plugins.memory import cost as memory
from archsearch_plugins.ssm import cost as ssm

from archsearch.amounts import GELU, SIGMOID, SILU, Flops
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import placed
from archsearch.costs import channel_cost
from archsearch.registry import Registry

MODEL = ModelSpec(d_model=32, n_heads=4, n_kv_heads=2, channel_mixer="none", dtype="float32")
WIDTH = 4 * 8
"""Of all heads."""


def decoded(layer: str, registry: Registry) -> Flops:
    first = next(placed(ArchSpec.parse(layer, registry, MODEL), 0, registry))
    return first.figures(registry).flops(phase="decode", context=40)


def less(more: Flops, base: Flops) -> dict[str, float]:
    """What one takes beyond another, but for products."""
    return {"elementwise": more.elementwise - base.elementwise, "exp": more.exp - base.exp}


def beyond(activation: Flops, products: float, count: int) -> dict[str, float]:
    """`count` activations, and as many products with something else."""
    return {"elementwise": count * (activation.elementwise + products), "exp": count * activation.exp}


GATED = {
    "full": ("full(output_gate=true)", "full", SIGMOID, 1, WIDTH),
    "sliding": ("sliding(window=8, output_gate=true)", "sliding(window=8)", SIGMOID, 1, WIDTH),
    "indexed": ("qsa(output_gate=true)", "qsa", SIGMOID, 1, WIDTH),
    "linear": ("linear(output_gate=sigmoid)", "linear(output_gate=none)", SIGMOID, 1, WIDTH),
    "linear-silu": ("linear(output_gate=silu)", "linear(output_gate=none)", SILU, 1, WIDTH),
    "memory": ("memory(output_gate=sigmoid)", "memory(output_gate=none)", SIGMOID, 1, WIDTH),
    "memory-gelu": ("memory(output_gate=gelu)", "memory(output_gate=none)", GELU, 1, WIDTH),
    "memory-qkv": ("memory(activation=silu)", "memory(activation=none)", SILU, 0, 3 * WIDTH),
    "zorder": ("zorder(hidden=24)", "zorder(hidden=4)", SILU, 0, 2 * 20),
}


@pytest.mark.parametrize("case", GATED)
def test_an_activation_costs_the_same_everywhere(case: str, installed: Registry) -> None:
    more, base, activation, products, count = GATED[case]
    found = less(decoded(more, installed), decoded(base, installed))
    assert found == pytest.approx(beyond(activation, products, count), rel=1e-9)


def test_a_join_by_gates_takes_sigmoids_and_products(installed: Registry) -> None:
    """Beside the norms of three outputs, which a mean has too, with two sums and a quotient."""
    parts = "a=full, b=retnet, more=[conv]"
    gate, mean = (decoded(f"parallel({parts}, join={join})", installed) for join in ("gate", "mean"))
    assert less(gate, mean) == {"elementwise": 2 * 32 * (2 + 1) - 2 * 32 - 32, "exp": 2 * 32}


def test_a_gated_channel_mixer_takes_silu_and_a_product() -> None:
    model = MODEL.changed({"channel_mixer": "swiglu", "ffn_dim": 50})
    _, _, cost = channel_cost(model)
    assert (cost.matmul, cost.elementwise, cost.exp) == (6 * 32 * 50, 50 * (3 + 1), 50)


# products of a token with the state's cells: what is added to it, what reads it, what a rule asks of it
STATES = {"linear": 2, "deltanet": 3, "kda": 3, "mamba1": 2, "s4d": 1, "mamba3": 3, "ttt-linear": 3}


@pytest.mark.parametrize("name", STATES)
def test_what_a_decoded_token_adds_to_a_state_is_a_product(name: str, installed: Registry) -> None:
    """Beyond the projections, 2 a cell for each."""
    layer = ArchSpec.parse(name, installed, MODEL).layers[0]
    options: Any = layer.options
    if layer.mixer == "linear":
        heads, key, value = options.dims(MODEL.shape)
        cells = heads * key * value
        projected = 32 * (sum(linear.projected(options, MODEL.shape)) + heads * value)
        projected += heads * (options.form.rank(options.dims(MODEL.shape)) * key)
    elif layer.mixer == "ssm":
        cells, projected = options.inner(MODEL.shape) * options.state_dim, ssm.projected(options, MODEL.shape)
    else:
        cells, projected = 4 * memory.cells(options, MODEL.shape), memory.projected(options, MODEL.shape)
    low_rank = WIDTH * 8 if layer.mixer == "linear" and options.low_rank_gate else 0
    assert decoded(name, installed).matmul == 2 * (projected + low_rank) + 2 * STATES[name] * cells
