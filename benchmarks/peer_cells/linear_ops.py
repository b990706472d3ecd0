"""Linear attention beside the chunked forms of `transformers` and `fla-core`."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.tokens import Tokens
from torch import Tensor, nn

from .cell import HEADS, WIDTH, Inputs, OpCell, linear_inputs, normal

CHUNK = 64
"""Of every peer that takes a chunk size, and of ours."""


def transformers_cells() -> list[OpCell]:
    """Those whose peer is in `transformers`."""
    peer = "transformers"
    return [
        OpCell(
            name="Gated DeltaNet",
            peer=peer,
            inputs=partial(linear_inputs, gates=(), delta=True),
            ours=_ours,
            theirs=_gated_delta,
        ),
        OpCell(
            name="KDA", peer=peer, inputs=partial(linear_inputs, gates=(WIDTH,), delta=True), ours=_ours, theirs=_kda
        ),
        OpCell(name="Mamba-2", peer=peer, inputs=_mamba_inputs, ours=_our_mamba, theirs=_mamba),
        OpCell(
            name="lightning",
            peer=f"{peer}, MiniMax",
            inputs=_side_by_side,
            ours=_our_lightning,
            theirs=_lightning,
        ),
    ]


def fla_cells() -> list[OpCell]:
    """Those whose peer is in `fla-core`: its forms in PyTorch, since the kernels need a card."""
    inputs = partial(linear_inputs, gates=(), delta=False)
    return [OpCell(name="Mamba-2", peer="fla", inputs=inputs, ours=_ours, theirs=_simple_gla)]


def _ours(inputs: Inputs) -> Tensor:
    return linear_attention(Tokens(**inputs), want_state=False)[0]


def _gated_delta(inputs: Inputs) -> Tensor:
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    q, k, v, g, beta = inputs.values()
    return torch_chunk_gated_delta_rule(q, k, v, g=g, beta=beta, chunk_size=CHUNK)[0]


def _kda(inputs: Inputs) -> Tensor:
    from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention

    q, k, v, g, beta = inputs.values()
    return chunk_kimi_delta_attention(q, k, v, g=g, beta=beta, chunk_size=CHUNK)[0]


def _mamba_inputs(batch: int, tokens: int) -> Inputs:
    inputs = linear_inputs(batch, tokens, gates=None, delta=False)
    return inputs | {"dt": 0.1 * normal(3, batch, tokens, HEADS).sigmoid(), "A": -normal(4, HEADS).exp()}


def _our_mamba(inputs: Inputs) -> Tensor:
    q, k, v, dt, A = inputs.values()
    return linear_attention(Tokens(q, k, v * dt[..., None], log_decay=dt * A), scale=1.0, want_state=False)[0]


def _mamba(inputs: Inputs) -> Tensor:
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    q, k, v, dt, A = inputs.values()
    out: Tensor = mamba2_chunk_scan(v, dt, A, k, q, chunk_size=CHUNK)
    return out


def _simple_gla(inputs: Inputs) -> Tensor:
    from fla.ops.simple_gla.naive import naive_chunk_simple_gla

    q, k, v, g = inputs.values()
    out: Tensor = naive_chunk_simple_gla(q, k, v, g, chunk_size=CHUNK)[0]
    return out


class _Open(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        """What a sigmoid makes 1 of."""
        return torch.tensor(100.0)


@cache
def _minimax() -> Any:
    """MiniMax's layer without what is around its op: projections, activation and norm pass on what they get, and its
    gate is 1."""
    from transformers.models.minimax.configuration_minimax import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    layer = MiniMaxLightningAttention(
        MiniMaxConfig(hidden_size=HEADS * WIDTH, num_attention_heads=HEADS, head_dim=WIDTH, num_hidden_layers=4), 1
    )
    layer.qkv_proj = layer.out_proj = layer.norm = layer.act_fn = nn.Identity()
    layer.output_gate = _Open()
    return layer


def _side_by_side(batch: int, tokens: int) -> Inputs:
    """q, k and v of each head side by side, as a projection makes them: `[B, T, H * 3 D]`."""
    inputs = linear_inputs(batch, tokens, gates=None, delta=False)
    return {"qkv": torch.cat(tuple(inputs.values()), dim=-1).flatten(2)}


def _lightning(inputs: Inputs) -> Tensor:
    out: Tensor = _minimax()(inputs["qkv"], None, None)[0]
    return out.unflatten(-1, (HEADS, WIDTH))


def _our_lightning(inputs: Inputs) -> Tensor:
    """Times the same gate."""
    q, k, v = inputs["qkv"].unflatten(-1, (HEADS, 3 * WIDTH)).split(WIDTH, dim=-1)
    log_decay = -_minimax().slope_rate.flatten()
    return linear_attention(Tokens(q, k, v, log_decay=log_decay), scale=1.0, want_state=False)[0] * torch.tensor(1.0)
