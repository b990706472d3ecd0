"""Layers that take an earlier layer's choice, or its latents too, against `transformers`, by copied weights."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import copied_weights as copied
import pytest
import torch
from copied_weights import DSA, HEADS, INDEX_DIM, INDEX_HEADS, LATENT, SHAPE, TURNED, WIDTH, Names, same
from torch import Tensor, nn
from torch.testing import assert_close

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.mixer import LayerInfo
from archsearch.model import Context
from archsearch.model.taken import tell_taken
from archsearch.registry import Registry

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOKENS, TOP_K = 75, 9
SIZES = {
    **LATENT,
    "attn_implementation": "eager",
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "index_n_heads": INDEX_HEADS,
    "index_head_dim": INDEX_DIM,
    "index_topk": TOP_K,
    "indexer_types": ["full", "shared"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
"""Of two layers, the second without an index."""

OWNER = f"top_k={TOP_K}, kv_rank=12, shared_dim={TURNED}, index_heads={INDEX_HEADS}, index_dim={INDEX_DIM}"
MODEL = ModelSpec(d_model=WIDTH, n_heads=SHAPE.n_heads, n_kv_heads=SHAPE.n_kv_heads, head_dim=SHAPE.head_dim)
INDEX: Names = {
    "scorer.query.weight": same("indexer.wq_b.weight"),
    "scorer.key.weight": same("indexer.wk.weight"),
    "scorer.weights.weight": same("indexer.weights_proj.weight"),
    "scorer.key_norm.weight": same("indexer.k_norm.weight"),
    "scorer.key_norm.bias": same("indexer.k_norm.bias"),
}
"""Of an index whose channels turn pair by pair, as ours do."""


def transformers_of(name: str) -> ModuleType:
    pytest.importorskip("transformers", reason="the public layers are those of transformers 5.24: make test-peers")
    return import_module(f"transformers.models.{name}.modeling_{name}")


def drawn(layers: list[Any]) -> list[Any]:
    torch.manual_seed(0)
    for layer in layers:
        for weights in layer.eval().parameters():
            nn.init.normal_(weights, std=0.3)
    return layers


def ours(pattern: str, theirs: list[Any], names: list[Names], installed: Registry) -> list[Any]:
    """The layers of a pattern with the weights of theirs."""
    layers = ArchSpec.parse(pattern, installed, MODEL).layers
    built = []
    for index, (one, those, stand) in enumerate(zip(layers, theirs, names, strict=True)):
        place = LayerInfo(index=index, depth=2, resolver=installed, pattern=layers)
        built.append(installed.mixer(one.mixer).build(one.options, SHAPE, place).eval())
        copied.copy_weights(those, built[-1], stand)
    tell_taken(built)
    return built


def same_as(wanted: list[Tensor], layers: list[Any], inputs: list[Tensor]) -> None:
    """Of both layers on their inputs, whole, and as a prefill and steps."""
    ctx = Context()
    for layer, x, y in zip(layers, inputs, wanted, strict=True):
        assert_close(layer(x, ctx=ctx)[0], y, rtol=1e-5, atol=1e-5)
    states = [layer.init_state(2, TOKENS) for layer in layers]
    for start, end in ((0, 33), *((token, token + 1) for token in range(33, TOKENS))):
        ctx = Context(want_state=True)
        for index, layer in enumerate(layers):
            found, states[index] = layer(inputs[index][:, start:end], state=states[index], ctx=ctx)
            assert_close(found, wanted[index][:, start:end], rtol=1e-5, atol=1e-5)


def places(module: ModuleType, kind: str, config: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, and the turns and the mask that belong to them."""
    order = torch.arange(TOKENS)[None].expand(2, -1)
    rotary: Callable[..., Tensor] = getattr(module, kind)(config)
    mask = torch.zeros(TOKENS, TOKENS).masked_fill(torch.ones(TOKENS, TOKENS).triu(1).bool(), -torch.inf)
    return order, rotary(torch.zeros(2, TOKENS, WIDTH), order), mask.expand(2, 1, -1, -1)


@torch.no_grad()
def test_a_choice_that_glm_52_shares(installed: Registry) -> None:
    """IndexCache's two kinds of layers, each on an input of its own."""
    module = transformers_of("glm_moe_dsa")
    config = module.GlmMoeDsaConfig(**SIZES, q_lora_rank=10)
    theirs = drawn([module.GlmMoeDsaAttention(config, layer_idx=index) for index in range(2)])
    order, turns, mask = places(module, "GlmMoeDsaRotaryEmbedding", config)
    inputs = [torch.randn(2, TOKENS, WIDTH) for _ in range(2)]
    first, _, chosen = theirs[0](inputs[0], turns, mask, position_ids=order)
    second, _, _ = theirs[1](inputs[1], turns, mask, position_ids=order, prev_topk_indices=chosen)
    shared: Names = {name: parts for name, parts in DSA.items() if not name.startswith("scorer.")}
    pattern = f"dsa-mla({OWNER}, q_rank=10) indexshare"
    same_as([first, second], ours(pattern, theirs, [{**shared, **INDEX}, shared], installed), inputs)


@torch.no_grad()
def test_a_choice_and_latents_that_mistral_large_4_shares(installed: Registry) -> None:
    """Its scaling of queries by the log of their place and its learned frequencies are as they begin where they change
    nothing; inputs are normed, as its index norms them for its queries."""
    module = transformers_of("mistral_large4")
    config = module.MistralLarge4TextConfig(**SIZES, kv_source_layers=[0, 0], no_rope_layers=[1, 1], rms_norm_eps=1e-6)
    theirs = drawn([module.MistralLarge4TextAttention(config, layer_idx=index) for index in range(2)])
    assert [layer.is_kv_shared_layer for layer in theirs] == [False, True]
    scalings = [layer.softmax_scaling for layer in theirs] + [theirs[0].indexer.softmax_scaling]
    for plain in scalings:
        nn.init.zeros_(plain.scale)
        nn.init.ones_(plain.bias)
    nn.init.ones_(theirs[0].indexer.q_input_norm.weight)
    nn.init.zeros_(theirs[0].indexer.q_input_norm.bias)
    order, turns, mask = places(module, "MistralLarge4TextRotaryEmbedding", config)
    inputs = [nn.functional.layer_norm(torch.randn(2, TOKENS, WIDTH), (WIDTH,)) for _ in range(2)]
    kept: dict[str, Any] = {}
    first, _, chosen = theirs[0](inputs[0], turns, mask, kept, order)
    second, _, _ = theirs[1](inputs[1], turns, mask, kept, order, prev_topk_indices=chosen)
    reading: Names = {
        "q.weight": same("q_proj.weight"),
        "kv_up.weight": same("kv_b_proj.weight"),
        "out.weight": same("o_proj.weight"),
    }
    keeping: Names = {
        **reading,
        "kv_down.weight": same("kv_a_proj_with_mqa.weight"),
        "kv_norm.weight": same("kv_a_layernorm.weight"),
    }
    made = ours(f"dsa-mla({OWNER}) indexshare-latents", theirs, [{**keeping, **INDEX}, reading], installed)
    same_as([first, second], made, inputs)
