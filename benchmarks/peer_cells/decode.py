"""Decoding by models of four layers, d 256, after 32,768 tokens, beside the same models in `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.model import HybridLM
from archsearch.registry import load_registry

from .cell import HEADS, WIDTH, StepCell, Steps, normal

BEHIND, ROOM = 32768, 512
LAYERS, DIM, FFN, VOCAB = 4, HEADS * WIDTH, 704, 512
WINDOW = 1024

COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "intermediate_size": FFN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "head_dim": WIDTH,
    "max_position_embeddings": 2 * BEHIND,
    "tie_word_embeddings": True,
}


def cells() -> list[StepCell]:
    """Full and sliding attention, whose weights are the same on both sides, and two hybrids of the same sizes."""
    return [
        StepCell(name="full", peer="Llama, static cache", make=partial(_llama, static=True)),
        StepCell(name="full", peer="Llama, growing cache", make=partial(_llama, static=False)),
        StepCell(name=f"sliding {WINDOW}", peer="Mistral", make=partial(_mistral, WINDOW)),
        StepCell(name="sliding 128", peer="Mistral", make=partial(_mistral, 128)),
        StepCell(name="Mamba-2", peer="Mamba-2", make=_mamba, tolerance=None),
        StepCell(name="gated-deltanet 3:1 full", peer="Qwen3-Next", make=_qwen, tolerance=None),
    ]


def _model(pattern: str, **sizes: Any) -> HybridLM:
    registry = load_registry()
    spec = ModelSpec.read({"d_model": DIM, "n_heads": HEADS, "ffn_dim": FFN, "vocab_size": VOCAB, **sizes})
    torch.manual_seed(0)
    return HybridLM(ArchSpec.parse(pattern, registry, spec), registry).eval()


def _ours(model: HybridLM, rows: int = 0) -> Callable[[Tensor], Tensor]:
    """Steps after `BEHIND` tokens, whose keys and values are `_rows`, of which a cache keeps the last `rows`."""
    states = model.init_state(1, BEHIND + ROOM)
    for layer, state in enumerate(states):
        for name, cached in state.mixer.tensors.items():
            if name in ("k", "v"):
                kept = _rows(layer, name)[:, -rows:]
                cached[:, : kept.shape[1]] = _by_pairs(kept) if name == "k" else kept
            else:
                cached.copy_(0.1 * normal(layer, *cached.shape))
        state.mixer.lengths.fill_(BEHIND)

    def step(token: Tensor) -> Tensor:
        nonlocal states
        logits, states = model.step(token, states)
        return logits

    return step


def _theirs(model: Any, cache: Any, *, attention: range) -> Callable[[Tensor], Tensor]:
    for layer in attention:
        cache.update(*(_rows(layer, name).transpose(1, 2) for name in "kv"), layer)

    def step(token: Tensor) -> Tensor:
        logits: Tensor = model(token[:, None], cache=cache, use_cache=True).logits[:, -1]
        return logits

    return step


def _rows(layer: int, name: str) -> Tensor:
    """Keys or values `[1, BEHIND, H, D]` of one layer; the channels of a key in the order of `transformers`."""
    return normal(2 * layer + (name == "v"), 1, BEHIND, HEADS, WIDTH)


def _by_pairs(heads: Tensor) -> Tensor:
    """Channels i and i + D/2, which `transformers` rotates together, as 2i and 2i + 1, which we do: `[..., D]`."""
    return heads.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def _copy_weights(theirs: Any, ours: HybridLM) -> None:
    """The weights of a Llama, or a model like it, into ours."""
    inner = theirs.model
    with torch.no_grad():
        ours.embedding.weight.copy_(inner.embed_tokens.weight)
        ours.norm.weight.copy_(inner.norm.weight)
        for layer, block in zip(inner.layers, ours.blocks, strict=True):
            attention, mlp, mixer = layer.self_attn, layer.mlp, block.mixer
            q, k = (
                _by_pairs(x.weight.unflatten(0, (HEADS, WIDTH)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)
                for x in (attention.q_proj, attention.k_proj)
            )
            mixer.qkv.weight.copy_(torch.cat((q, k, attention.v_proj.weight)))
            mixer.out.weight.copy_(attention.o_proj.weight)
            block.channel.gate_up.weight.copy_(torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)))
            block.channel.down.weight.copy_(mlp.down_proj.weight)


def _llama(*, static: bool) -> Steps:
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

    config = LlamaConfig(**COMMON)
    theirs, ours = LlamaForCausalLM(config).eval(), _model(f"full(rope=1.0)*{LAYERS}")
    _copy_weights(theirs, ours)
    cache = StaticCache(config, max_cache_len=BEHIND + ROOM) if static else DynamicCache(config=config)
    return Steps(ours=_ours(ours), theirs=_theirs(theirs, cache, attention=range(LAYERS)))


def _mistral(window: int) -> Steps:
    from transformers import DynamicCache, MistralConfig, MistralForCausalLM

    config = MistralConfig(**COMMON, sliding_window=window)
    theirs, ours = MistralForCausalLM(config).eval(), _model(f"sliding(window={window}, rope=1.0)*{LAYERS}")
    _copy_weights(theirs, ours)
    cache = DynamicCache(config=config)
    return Steps(ours=_ours(ours, window), theirs=_theirs(theirs, cache, attention=range(LAYERS)))


def _mamba() -> Steps:
    """Eight heads of 64 channels with a state of 64 each on both sides, keys and queries of every head its own."""
    from transformers import DynamicCache, Mamba2Config, Mamba2ForCausalLM

    config = Mamba2Config(
        vocab_size=VOCAB,
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_heads=8,
        head_dim=WIDTH,
        state_size=WIDTH,
        n_groups=8,
        expand=2,
        tie_word_embeddings=True,
    )
    theirs, cache = Mamba2ForCausalLM(config).eval(), DynamicCache(config=config)
    with torch.no_grad():
        theirs(torch.zeros(1, 64, dtype=torch.int64), cache=cache, use_cache=True)
    ours = _model(f"mamba2(skip=true)*{LAYERS}", n_heads=8, head_dim=WIDTH, channel_mixer="none")
    return Steps(ours=_ours(ours), theirs=_theirs(theirs, cache, attention=range(0)))


def _qwen() -> Steps:
    """Three layers of the gated delta rule and one of full attention, dense channel mixers."""
    from transformers import DynamicCache, Qwen3NextConfig, Qwen3NextForCausalLM

    config = Qwen3NextConfig(
        **COMMON,
        linear_num_key_heads=HEADS,
        linear_num_value_heads=HEADS,
        linear_key_head_dim=WIDTH,
        linear_value_head_dim=WIDTH,
        mlp_only_layers=list(range(LAYERS)),
    )
    theirs, cache = Qwen3NextForCausalLM(config).eval(), DynamicCache(config=config)
    with torch.no_grad():
        theirs(torch.zeros(1, 64, dtype=torch.int64), cache=cache, use_cache=True)
    ours = _model("[gated-deltanet gated-deltanet gated-deltanet full(rope=0.25, qk_norm=true)]")
    return Steps(ours=_ours(ours), theirs=_theirs(theirs, cache, attention=range(LAYERS - 1, LAYERS)))
