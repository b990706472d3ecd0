"""Layers that take an earlier layer's choice, or its latents too, against `transformers`, by copied weights."""

from __future__ import annotations

from collections.abc import Sequence
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
LEARNED = "query_scale=true, rope_learned=true, rope_factor=32, rope_trained=24, index_norm=true"
"""What Mistral-Large-4 has beside that."""
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
        place = LayerInfo(index=index, depth=len(layers), resolver=installed, pattern=layers)
        built.append(installed.mixer(one.mixer).build(one.options, SHAPE, place).eval())
        copied.copy_weights(those, built[-1], stand)
    tell_taken(built)
    return built


def same_as(wanted: list[Tensor], layers: list[Any], inputs: list[Tensor], near: float = 1e-5) -> None:
    """Of the layers on their inputs, whole, and as a prefill and steps."""
    ctx = Context()
    for layer, x, y in zip(layers, inputs, wanted, strict=True):
        assert_close(layer(x, ctx=ctx)[0], y, rtol=near, atol=near)
    states = [layer.init_state(2, TOKENS) for layer in layers]
    for start, end in ((0, 33), *((token, token + 1) for token in range(33, TOKENS))):
        ctx = Context(want_state=True)
        for index, layer in enumerate(layers):
            found, states[index] = layer(inputs[index][:, start:end], state=states[index], ctx=ctx)
            assert_close(found, wanted[index][:, start:end], rtol=near, atol=near)


def places(
    module: ModuleType, kind: str, config: Any, learn: Sequence[nn.Module] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, and the turns and the mask that belong to them; layers that `learn` how fast they turn get the module
    that does as ``frequencies``."""
    order = torch.arange(TOKENS)[None].expand(2, -1)
    rotary = getattr(module, kind)(config)
    if learn:
        nn.init.normal_(rotary.alpha, std=0.3)
    for layer in learn:
        layer.frequencies = rotary
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


SCALES: Names = {f"query_scale.{name}": same(f"softmax_scaling.{name}") for name in ("scale", "bias")}
NORMED: Names = {
    **INDEX,
    "scorer.rotary.alpha": same("frequencies.alpha"),
    **{f"scorer.input_norm.{name}": same(f"indexer.q_input_norm.{name}") for name in ("weight", "bias")},
    **{f"scorer.query_scale.{name}": same(f"indexer.softmax_scaling.{name}") for name in ("scale", "bias")},
}
READING: Names = {
    **SCALES,
    "q.weight": same("q_proj.weight"),
    "kv_up.weight": same("kv_b_proj.weight"),
    "out.weight": same("o_proj.weight"),
}
KEEPING: Names = {
    **READING,
    "rotary.alpha": same("frequencies.alpha"),
    "kv_down.weight": same("kv_a_proj_with_mqa.weight"),
    "kv_norm.weight": same("kv_a_layernorm.weight"),
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("indices", "sources", "pattern", "names"),
    [
        ("full shared", [0, 0], "indexshare-latents", [{**KEEPING, **NORMED}, READING]),
        ("full shared", [0, 1], "indexshare", [{**KEEPING, **NORMED}, KEEPING]),
        (
            "full full shared",
            [0, 0, 0],
            "reindex(index_keys=own) indexshare-latents",
            [{**KEEPING, **NORMED}, {**READING, **NORMED}, READING],
        ),
    ],
    ids=["choice-and-latents", "choice", "latents"],
)
def test_what_layers_of_mistral_large_4_share(
    indices: str, sources: list[int], pattern: str, names: list[Names], installed: Registry
) -> None:
    """Its four kinds of layers, whose queries grow with the logarithm of their place; the frequencies that it learns
    are one set for all layers, stretched by YaRN."""
    module, depth = transformers_of("mistral_large4"), len(sources)
    stretched = {"rope_type": "yarn", "rope_theta": 10000.0, "attention_factor": 1.0, "factor": 32.0}
    stretched["original_max_position_embeddings"] = 24
    sizes = {
        **SIZES,
        "rope_parameters": stretched,
        "num_hidden_layers": depth,
        "indexer_types": indices.split(),
        "no_rope_layers": [1] * depth,
    }
    config = module.MistralLarge4TextConfig(**sizes, kv_source_layers=sources, rms_norm_eps=1e-6)
    theirs = drawn([module.MistralLarge4TextAttention(config, layer_idx=index) for index in range(depth)])
    assert [layer.is_kv_shared_layer for layer in theirs] == [at != index for index, at in enumerate(sources)]
    order, turns, mask = places(module, "MistralLarge4TextRotaryEmbedding", config, theirs)
    torch.manual_seed(1)  # of which no two scores at the edge of a choice are 0
    inputs = [torch.randn(2, TOKENS, WIDTH) for _ in sources]
    kept: dict[str, Any] = {}
    wanted, chosen = list[Tensor](), None
    for layer, x in zip(theirs, inputs, strict=True):
        y, _, chosen = layer(x, turns, mask, kept, order, prev_topk_indices=chosen)
        wanted.append(y)
    owner = f"dsa-mla({OWNER}, {LEARNED})"
    angles = 2e-5  # theirs are of float32
    same_as(wanted, ours(f"{owner} {pattern}", theirs, names, installed), inputs, angles)
