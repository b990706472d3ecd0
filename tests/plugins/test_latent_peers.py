"""Whole layers of latent attention against those of `transformers`, by copied weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.latent import LatentPlugin
from torch import Tensor
from torch.testing import assert_close

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=4, head_dim=8, dtype="float32")
SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 6,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
NAMES = {
    "q_up.weight": ("q_b_proj.weight", "q_proj.weight"),
    "q_down.weight": ("q_a_proj.weight",),
    "q_norm.weight": ("q_a_layernorm.weight",),
    "kv_down.weight": ("kv_a_proj_with_mqa.weight",),
    "kv_norm.weight": ("kv_a_layernorm.weight",),
    "kv_up.weight": ("kv_b_proj.weight",),
    "out.weight": ("o_proj.weight",),
}
"""Our parameters, and what they are called there."""


def copied(theirs: torch.nn.Module, ours: torch.nn.Module) -> None:
    """The weights of `theirs` in `ours`, whose latents are multiplied out head by head, key then value, as there."""
    found = theirs.state_dict()
    weights = {name: next(found[other] for other in NAMES[name] if other in found) for name in ours.state_dict()}
    ours.load_state_dict(weights)


def our_layer(theirs: torch.nn.Module, **values: Any) -> torch.nn.Module:
    """Ours with the weights of theirs."""
    torch.manual_seed(0)
    for weights in theirs.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    plugin = LatentPlugin()
    options = plugin.parse_options({"kv_rank": 12, "shared_dim": 6, "rope": 1.0, **values})
    ours = plugin.build(options, SHAPE, LayerInfo()).eval()
    copied(theirs, ours)
    return ours


def decoded(ours: torch.nn.Module, x: Tensor) -> Tensor:
    """A prefill of 7 and steps."""
    out, state = ours(x[:, :7], state=ours.init_state(len(x), x.shape[1]), ctx=Context(want_state=True))
    steps = [out]
    for token in range(7, x.shape[1]):
        y, state = ours.step(x[:, token], state=state, ctx=Context(want_state=True))
        steps.append(y[:, None])
    return torch.cat(steps, 1)


@pytest.mark.parametrize("q_rank", [None, 10])
@torch.no_grad()
def test_deepseek_v3(q_rank: int | None) -> None:
    pytest.importorskip("transformers", reason="the reference is transformers 5.24")
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

    config = deepseek.DeepseekV3Config(**SIZES, q_lora_rank=q_rank, rope_interleave=True, attn_implementation="eager")
    theirs = deepseek.DeepseekV3Attention(config, layer_idx=0).eval()
    ours, x = our_layer(theirs, q_rank=q_rank or 0), torch.randn(2, 20, 32)
    where = deepseek.DeepseekV3RotaryEmbedding(config)(x, torch.arange(20)[None])
    mask = torch.full((20, 20), -torch.inf).triu(1)[None, None]
    wanted = theirs(x, where, mask)[0]
    assert_close(ours(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-5)
    assert_close(decoded(ours, x), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_kimi_linear_without_positions() -> None:
    pytest.importorskip("transformers", reason="the reference is transformers 5.24")
    from transformers.models.kimi_linear import modeling_kimi_linear as kimi

    config = kimi.KimiLinearConfig(**SIZES, q_lora_rank=None, attn_implementation="eager")
    theirs = kimi.KimiLinearAttention(config, layer_idx=0).eval()
    ours, x = our_layer(theirs, rope=0.0), torch.randn(2, 20, 32)
    wanted = theirs(x, torch.full((20, 20), -torch.inf).triu(1)[None, None])[0]
    assert_close(ours(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-5)
    assert_close(decoded(ours, x), wanted, rtol=1e-5, atol=1e-5)
