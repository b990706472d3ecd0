"""What an index chooses against the indexers of `transformers`, by copied weights; compared by score."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from archsearch_plugins.indexed import IndexedPlugin
from archsearch_plugins.indexed.choice import candidates, seen_blocks
from archsearch_plugins.indexed.scorers import Tokens
from torch import Tensor

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.ops.index_scores import best_mask

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

WIDTH, TOKENS = 32, 75
SHAPE = ModelShape(d_model=WIDTH, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
POSITIONS = torch.arange(TOKENS)[None].expand(2, -1)
CAUSAL = torch.ones(TOKENS, TOKENS).tril().bool()


def halves_from_pairs(weight: Tensor, heads: int, turned: int) -> Tensor:
    """Rows `[heads * I, D]` for a rotation of halves (i, i + R / 2), as one of pairs (2 i, 2 i + 1) takes them."""
    order = torch.arange(turned).view(2, -1).T.flatten()
    by_head = weight.unflatten(0, (heads, -1))
    return torch.cat((by_head[:, order], by_head[:, turned:]), 1).flatten(0, 1)


def scored(values: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> tuple[Any, Tensor]:
    """Our layer with those weights in its scorer, and its scores `[B, Hc, T, n]`."""
    plugin = IndexedPlugin()
    layer = plugin.build(plugin.parse_options(values), SHAPE, LayerInfo()).eval()
    layer.scorer.load_state_dict(weights)
    state = layer.init_state(2, TOKENS)
    q, k, _ = layer.project(x, POSITIONS)
    new = Tokens(x, q, k, low=x, positions=POSITIONS, order=POSITIONS, lengths=state.lengths, fresh=True)
    asked, *more = layer.scorer.ask(new)
    units = layer.scorer.units(layer.scorer.remember(new, state.tensors), TOKENS // layer.rule.block_size)
    return layer, layer.scorer.score(slice(0, TOKENS), asked, units, *more)


def same_choice(layer: Any, scores: Tensor, theirs: Tensor) -> None:
    """`theirs` `[B, Hc, T, S]`: the keys that are seen. As many as ours, and of the same scores."""
    rule = layer.rule
    masked = scores.masked_fill(~candidates(POSITIONS, scores.shape[-1], rule), -torch.inf)
    best = best_mask(masked, rule.top_k)
    seen = seen_blocks(best, POSITIONS, -(-TOKENS // rule.block_size), rule).repeat_interleave(rule.block_size, -1)
    ours = seen[..., :TOKENS] & CAUSAL
    assert ours.sum(-1).equal(theirs.sum(-1))
    each = masked.repeat_interleave(rule.block_size, -1)
    each = torch.nn.functional.pad(each, (0, TOKENS - each.shape[-1]), value=torch.inf)
    of_ours, of_theirs = (each.masked_fill(~kept, -torch.inf).sort(-1).values for kept in (ours, theirs))
    torch.testing.assert_close(of_ours, of_theirs, rtol=1e-5, atol=1e-5)
    assert (~ours & CAUSAL).any()


@torch.no_grad()
def test_deepseek_sparse_attention() -> None:
    pytest.importorskip("transformers", reason="the reference is transformers 5.24")
    from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek

    torch.manual_seed(0)
    config = deepseek.DeepseekV32Config(
        hidden_size=WIDTH,
        num_attention_heads=4,
        q_lora_rank=WIDTH,
        qk_rope_head_dim=8,
        index_n_heads=3,
        index_head_dim=16,
        index_topk=9,
    )
    theirs, x = deepseek.DeepseekV32Indexer(config, layer_idx=0), torch.randn(2, TOKENS, WIDTH)
    torch.nn.init.normal_(theirs.k_norm.bias)
    where = deepseek.DeepseekV32RotaryEmbedding(config)(x, POSITIONS)
    found = theirs(x, x, where, CAUSAL.expand(2, -1, -1), POSITIONS)  # queries are made from the token itself
    kept = torch.zeros(2, TOKENS, TOKENS, dtype=torch.bool).scatter(-1, found.long(), True) & CAUSAL
    weights = {
        "query.weight": halves_from_pairs(theirs.wq_b.weight, 3, 8),
        "key.weight": halves_from_pairs(theirs.wk.weight, 1, 8),
        "weights.weight": theirs.weights_proj.weight,
        "key_norm.weight": halves_from_pairs(theirs.k_norm.weight[:, None], 1, 8)[:, 0],
        "key_norm.bias": halves_from_pairs(theirs.k_norm.bias[:, None], 1, 8)[:, 0],
    }
    values = {"top_k": 9, "index_heads": 3, "index_dim": 16, "rope": 0.5}
    same_choice(*scored(values, weights, x), kept[:, None])


def turns(width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[B, T, width]` of a rotation of halves."""
    angles = POSITIONS[..., None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()


def norms(theirs: Any, query: str, key: str) -> dict[str, Tensor]:
    """Scales of norms that are stored less 1, for keys and queries that are turned whole."""
    found = {"query_norm.weight": getattr(theirs, query).weight, "key_norm.weight": getattr(theirs, key).weight}
    return {name: 1 + halves_from_pairs(weight[:, None], 1, 16)[:, 0] for name, weight in found.items()}


@torch.no_grad()
def test_qwen_sparse_attention() -> None:
    pytest.importorskip("transformers", reason="the reference is transformers 5.24")
    from transformers.models.qwen4_exp import modeling_qwen4_exp as qwen

    torch.manual_seed(0)
    config = SimpleNamespace(
        hidden_size=WIDTH,
        indexer_n_heads=3,
        indexer_kv_heads=1,
        indexer_head_dim=16,
        indexer_budget=24,
        indexer_compress_ratio=8,
        rms_norm_eps=1e-6,
    )
    theirs, x = qwen.Qwen4ExpTextQSAIndexer(config, layer_idx=0), torch.randn(2, TOKENS, WIDTH)
    for norm in (theirs.q_layernorm, theirs.k_layernorm):
        torch.nn.init.normal_(norm.weight, std=0.3)
    kept = theirs(x, turns(16), CAUSAL.expand(2, 1, -1, -1), None)
    query, key = theirs.index_qk_proj.weight.split([48, 16])
    weights = {"query.weight": halves_from_pairs(query, 3, 16), "key.weight": halves_from_pairs(key, 1, 16)}
    weights |= norms(theirs, "q_layernorm", "k_layernorm")
    preset = IndexedPlugin.presets["qsa"]
    same_choice(*scored({**preset, "top_k": 3, "index_heads": 3, "index_dim": 16}, weights, x), kept & CAUSAL)


@torch.no_grad()
def test_minimax_m3() -> None:
    pytest.importorskip("transformers", reason="the reference is transformers 5.24")
    from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as minimax

    torch.manual_seed(0)
    config = SimpleNamespace(
        hidden_size=WIDTH,
        num_attention_heads=2,
        index_n_heads=2,
        index_head_dim=16,
        index_block_size=8,
        index_topk_blocks=4,
        index_local_blocks=2,
        rms_norm_eps=1e-6,
    )
    theirs, x = minimax.MiniMaxM3VLIndexer(config, layer_idx=0), torch.randn(2, TOKENS, WIDTH)
    for norm in (theirs.q_norm, theirs.k_norm):
        torch.nn.init.normal_(norm.weight, std=0.3)
    blocks = theirs(x, turns(16), None, POSITIONS)
    kept = theirs.build_block_mask(blocks, None, TOKENS, torch.float32, x.device, POSITIONS) == 0
    weights = {
        "query.weight": halves_from_pairs(theirs.q_proj.weight, 2, 16),
        "key.weight": halves_from_pairs(theirs.k_proj.weight, 1, 16),
        **norms(theirs, "q_norm", "k_norm"),
    }
    values = {**IndexedPlugin.presets["m3"], "top_k": 2, "local": 1, "index_dim": 16}
    same_choice(*scored(values, weights, x), kept)
