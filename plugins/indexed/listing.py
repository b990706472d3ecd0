"""Listing: the blocks that each query sees, one after the other, as the kernels of attention read them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from archsearch.ops.impl import KERNEL_DTYPES, Served, choose_impl
from archsearch.ops.pieces import pieces

from .choice import Choice, found_blocks
from .triton.table import CHOICE

WHY = "scores of a piece of the queries at a time"


def listed_blocks(choice: Choice, positions: Tensor, keys: int, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """Blocks `[B * T, Hc, slots]` int32 that queries at `positions` `[B, T]` see of `keys` tokens, -1 for none, and how
    many of the slots `[B * T, Hc]` there are to read.

    "triton" makes the scores tile by tile and holds those of a strip of queries; of equal scores the earliest blocks
    are taken in each form. Raises `OptionsError`, `KernelUnavailableError`.
    """
    if choice.blocks is not None:
        return _as_listed(choice.blocks)
    rule, served, products = choice.rule, None, None
    if choice.scores is not None and choice.products is not None:
        with torch.no_grad():
            products = choice.products().alike
    if products is not None and products.queries.dtype in KERNEL_DTYPES:
        queries = products.queries
        served = Served(table=CHOICE, device=queries.device, dtype=queries.dtype, head_dim=queries.shape[3])
    elif choice.scores is None:
        served = Served(table=CHOICE, device=positions.device, dtype=torch.float32, head_dim=1)
    with torch.no_grad():
        if choose_impl(CHOICE.op, impl, why=WHY, served=served) == "triton":
            from .triton.choice import choose

            slots = min(rule.local + 1 + rule.first + rule.top_k, -(-keys // rule.block_size))
            return choose(products, positions, rule, slots)
        return _in_pytorch(choice, positions, keys)


def _in_pytorch(choice: Choice, positions: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    tokens = positions.shape[1]
    parts = pieces(tokens, positions.shape[0] * choice.choosers * keys, longest=tokens)
    return _as_listed(torch.cat([found_blocks(choice, part, positions[:, part]) for part in parts], dim=2))


def _as_listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of `[B, Hc, T, slots]` what `listed_blocks` gives."""
    chosen = blocks.transpose(1, 2).flatten(0, 1).to(torch.int32).contiguous()
    return chosen, chosen.new_full(chosen.shape[:2], chosen.shape[2])


def with_blocks(choice: Choice, positions: Tensor, keys: int) -> Choice:
    """The choice of all queries at `positions` `[B, T]`, T of 1 at least, over `keys` tokens, made once: for several
    layers to attend by."""
    blocks, filled = listed_blocks(choice, positions, keys)
    slots = torch.arange(blocks.shape[-1], device=blocks.device)
    made = torch.where(slots < filled[..., None], blocks, -1).to(torch.int64)
    made = made.unflatten(0, positions.shape).transpose(1, 2)
    return replace(choice, scores=None, products=None, blocks=made)
