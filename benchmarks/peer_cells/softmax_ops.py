"""Sparse softmax attention beside `scaled_dot_product_attention` under the mask of the same keys, given for nothing."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from archsearch_plugins.moba.ops import choose_blocks as moba_choice
from archsearch_plugins.moba.ops import moba_attention
from archsearch_plugins.nsa.ops import choose_blocks as nsa_choice
from archsearch_plugins.nsa.ops import mean_weights, nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.sliding.ops import window_attention, window_mask
from torch import Tensor

from archsearch.ops.block_sparse import block_means, visible_keys
from archsearch.ops.laid_out import LaidOut

from .cell import HEADS, LONG, WIDTH, Inputs, OpCell, normal

SIZES = ((1, 1024), LONG)
WINDOW = 128
MOBA = {"block_size": 128, "top_k": 4}
NSA = NsaSizes(block_size=64, top_k=8, window=128)
PEER = "SDPA with masks"


def cells() -> list[OpCell]:
    """Window, MoBA and NSA."""
    return [
        OpCell(
            name=f"window {WINDOW}",
            peer=PEER,
            sizes=SIZES,
            inputs=_window_inputs,
            ours=lambda x: window_attention(LaidOut(x["q"], x["k"], x["v"]), window=WINDOW),
            theirs=partial(_masked, mask="near"),
        ),
        OpCell(
            name="MoBA 128x4",
            peer=PEER,
            sizes=SIZES,
            inputs=_moba_inputs,
            ours=lambda x: moba_attention(LaidOut(x["q"], x["k"], x["v"]), **MOBA),
            theirs=partial(_masked, mask="chosen"),
        ),
        OpCell(
            name="NSA 64x8, window 128",
            peer=f"three {PEER}",
            sizes=SIZES,
            inputs=_nsa_inputs,
            ours=lambda x: nsa_attention(LaidOut(x["q"], x["k"], x["v"]), gates=x["gates"], sizes=NSA),
            theirs=_three_masked,
        ),
    ]


def _qkv(batch: int, tokens: int) -> dict[str, Tensor]:
    return {name: normal(seed, batch, tokens, HEADS, WIDTH) for seed, name in enumerate("qkv")}


def _window_inputs(batch: int, tokens: int) -> Inputs:
    index = torch.arange(tokens)
    return _qkv(batch, tokens) | {"near": window_mask(index, index, window=WINDOW, sinks=0)}


def _moba_inputs(batch: int, tokens: int) -> Inputs:
    inputs, size = _qkv(batch, tokens), MOBA["block_size"]
    positions = torch.arange(tokens).expand(batch, tokens)
    chosen = moba_choice(inputs["q"], block_means(inputs["k"], size), positions // size, MOBA["top_k"])
    return inputs | {"chosen": visible_keys(chosen, positions, tokens, size)}


def _nsa_inputs(batch: int, tokens: int) -> Inputs:
    inputs, size = _qkv(batch, tokens), NSA.block_size
    positions = torch.arange(tokens).expand(batch, tokens)
    weights = mean_weights(inputs["q"], block_means(inputs["k"], size), positions, size, WIDTH**-0.5)
    chosen = nsa_choice(weights, positions // size, HEADS, NSA.top_k)
    complete = torch.arange(1, tokens // size + 1) * size <= torch.arange(1, tokens + 1)[:, None]
    index = torch.arange(tokens)
    return inputs | {
        "gates": normal(3, batch, tokens, HEADS, 3).sigmoid(),
        "complete": complete,
        "chosen": visible_keys(chosen, positions, tokens, size),
        "near": window_mask(index, index, window=NSA.window, sinks=0),
    }


def _attend(inputs: Inputs, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    heads = (x.transpose(1, 2) for x in (inputs["q"], k, v))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def _masked(inputs: Inputs, mask: str) -> Tensor:
    return _attend(inputs, inputs["k"], inputs["v"], inputs[mask])


def _three_masked(inputs: Inputs) -> Tensor:
    k, v, size = inputs["k"], inputs["v"], NSA.block_size
    means = (x.unflatten(1, (-1, size)).mean(2) for x in (k, v))
    branches = (
        _attend(inputs, *means, inputs["complete"]),
        _attend(inputs, k, v, inputs["chosen"]),
        _attend(inputs, k, v, inputs["near"]),
    )
    first, second, third = inputs["gates"].split(1, dim=-1)
    return first * branches[0] + second * branches[1] + third * branches[2]
