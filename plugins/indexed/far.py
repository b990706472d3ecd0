"""Attention whose keys before a window are all met at one distance: the layer and its op (InfLLM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.ops.block_cache import needed_rows
from archsearch.ops.block_sparse import additive_mask, few_keys
from archsearch.ops.impl import choose_impl
from archsearch.ops.pieces import pieces
from archsearch.ops.rotary import Rotary
from archsearch.ops.softmax import masked_attention, scale_of

from .choice import Choice, found_blocks
from .layer import IndexedAttention
from .made import Read
from .ops import OP, PIECE_TOKENS, rows_of_blocks, seen_keys
from .options import IndexedOptions, Rule

WHY_FAR = "keys at two distances are met in PyTorch"


class FarAttention(IndexedAttention):
    """The logit of a key of the window, the token's own block and those before it that are always in, is that of
    rotary attention; of any other, q turned by the position ``far`` times k as it is: all lie as far behind.

    "We assign the same positional encoding to all tokens beyond the local window": arXiv 2402.04617, section 3.2, and
    the authors' code. The cache keeps keys that are not turned, and of the window those that are.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: IndexedOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.far, self.turning = options.far, self.rotary
        self.rotary = Rotary(self.head_dim, fraction=0.0)

    def made(
        self, x: Tensor, low: Tensor, positions: Tensor, rotary: Rotary | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries `[B, T, Hq, 2 D]`: as the window meets them, then as all else."""
        q, k, v = self.project(x, positions)
        far = torch.full_like(positions[:1], self.far).expand_as(positions)
        near, q_far = self.turning(positions, torch.cat((q, k), dim=2)), self.turning(far, q)
        q_near, k_near = near.split([self.n_heads, self.n_kv_heads], dim=2)
        return torch.cat((q_near, q_far), dim=-1), {"k": k, "v": v, "near": k_near}

    def asking(self, q: Tensor) -> Tensor:
        return q[..., self.head_dim :]

    def turned(self, q: Tensor, near: Tensor) -> tuple[Tensor, Tensor] | None:
        return q[..., : self.head_dim], near

    def attention(self, read: Read, choice: Choice) -> Tensor:
        assert read.near is not None, "made() gives the keys of the window"
        q_near, q_far = read.q.chunk(2, dim=-1)
        apart = Apart(q_near=q_near, q_far=q_far, k=read.k, near=read.near, v=read.v, positions=read.order)
        return far_attention(apart, choice)


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Queries and keys as they meet in the window and before it.

    Queries ``q_near`` and ``q_far`` `[B, T, Hq, D]` stand at ``positions`` `[B, T]` of their sequences; ``k``, ``v``
    `[B, S, Hkv, D]` hold every token up to there, ``near`` `[B, R + T, Hkv, D]` the T tokens and R before them, of the
    window all.
    """

    q_near: Tensor
    q_far: Tensor
    k: Tensor
    near: Tensor
    v: Tensor
    positions: Tensor

    @property
    def tokens(self) -> Tensor:
        """Which token of its sequence each row of ``near`` is of, `[B, R + T]`; below zero of none."""
        rows = self.near.shape[1]
        return self.positions[:, -1:] - rows + 1 + torch.arange(rows, device=self.near.device)


def far_attention(heads: Apart, choice: Choice, *, impl: str = "auto") -> Tensor:
    """One softmax over `q_near` times the keys of the window and `q_far` times the chosen ones before it, all scaled by
    D^-0.5, `[B, T, Hq, D]`.

    No kernel has this form. Raises `OptionsError`, `KernelUnavailableError`.
    """
    choose_impl(OP, impl, why=WHY_FAR)
    q, k, rule = heads.q_near, heads.k, choice.rule
    if not q.numel():
        return q
    if q.shape[1] == 1:
        return _over_rows(heads, choice)
    if few_keys(k):
        return _piece(heads, slice(0, q.shape[1]), choice)
    held = k.shape[1] + (rule.local + 1) * rule.block_size
    parts = pieces(q.shape[1], len(k) * q.shape[2] * held, longest=PIECE_TOKENS)
    return torch.cat([checkpoint(_piece, heads, part, choice, use_reentrant=False) for part in parts], dim=1)


def _piece(heads: Apart, part: slice, choice: Choice) -> Tensor:
    """Some of the queries, over the keys that the last of them may have before its window, and those of its window."""
    q_near, q_far, k, near, v = heads.q_near, heads.q_far, heads.k, heads.near, heads.v
    at, rule, rows = heads.positions[:, part], choice.rule, near.shape[1] - q_near.shape[1]
    begin, last = _begin(at, rule), k.shape[1] - q_near.shape[1] + part.stop - 1
    past = slice(0, min(k.shape[1], rule.block_size * rule.edge(last)))
    index = torch.arange(past.stop, device=k.device)
    chosen = seen_keys(k, at, part, choice)[..., past] & (index < begin[..., None])[:, None]
    band = slice(max(0, rows + part.start - (rule.local + 1) * rule.block_size + 1), rows + part.stop)
    token = heads.tokens[:, band]
    inside = (token[:, None] >= begin[..., None]) & (token[:, None] <= at[..., None])
    sequence = torch.arange(len(k), device=k.device)[:, None]
    # a query's two parts side by side, and zeros beside a key where the other part is, so that a fused form serves
    q = torch.cat((q_near[:, part], q_far[:, part]), dim=-1) * 2**0.5  # scores are scaled by what they are wide
    width = k.shape[3]
    keys = torch.cat((F.pad(k[:, past], (width, 0)), F.pad(near[:, band], (0, width))), dim=1)
    values = torch.cat((v[:, past], v[sequence, token.clamp(min=0)]), dim=1)
    seen = torch.cat((chosen, inside[:, None].expand(-1, chosen.shape[1], -1, -1)), dim=-1)
    return masked_attention(q, keys, F.pad(values, (0, width)), additive_mask(seen, q.dtype))[..., :width]


def _over_rows(heads: Apart, choice: Choice) -> Tensor:
    """One query a sequence, over the rows that it sees; no other is read."""
    k, near, v, rule, device = heads.k, heads.near, heads.v, choice.rule, heads.k.device
    at, scale = heads.positions, scale_of(heads.q_near, None)
    with torch.no_grad():
        blocks = found_blocks(choice, slice(0, 1), at)[..., rule.local + 1 :]
        far, chosen = needed_rows(*rows_of_blocks(blocks, at, rule.block_size))
    token = _begin(at, rule) + torch.arange((rule.local + 1) * rule.block_size, device=device)
    token, inside = needed_rows(torch.where(token <= at, token, at), token <= at)
    sequence, groups = torch.arange(len(k), device=device)[:, None], k.shape[2]
    choosers = max(far.shape[1], groups)
    head = (torch.arange(choosers, device=device) * groups // choosers)[:, None]
    rows = sequence[..., None], far[:, :, 0].expand(-1, choosers, -1) if far.shape[1] == 1 else far[:, :, 0], head
    asked = torch.unflatten(heads.q_far[:, 0] * scale, 1, (choosers, -1))
    past = torch.einsum("bhgd,bhsd->bhgs", asked, k[rows]).flatten(1, 2)
    own = (token - heads.tokens[:, :1]).clamp(min=0)
    logits = torch.cat(
        (
            past.to(_wide(past)).masked_fill(~_of_heads(chosen, heads.q_far)[:, :, 0], -torch.inf),
            _products(heads.q_near * scale, near[sequence, own])[:, :, 0].masked_fill(~inside[:, None], -torch.inf),
        ),
        dim=-1,
    )
    of_past, of_window = logits.softmax(-1).to(v.dtype).split([past.shape[-1], token.shape[-1]], dim=-1)
    o = torch.einsum("bhgs,bhsd->bhgd", torch.unflatten(of_past, 1, (choosers, -1)), v[rows]).flatten(1, 2)
    inner = torch.einsum("bhgs,bshd->bhgd", torch.unflatten(of_window, 1, (groups, -1)), v[sequence, token])
    return (o + inner.flatten(1, 2))[:, None]


def _begin(positions: Tensor, rule: Rule) -> Tensor:
    """The first token of the window of each query at `positions` `[B, T]`."""
    return (positions // rule.block_size - rule.local).clamp(min=0) * rule.block_size


def _products(q: Tensor, k: Tensor) -> Tensor:
    """q k^T, `[B, Hq, T, S]`, in float32 at least."""
    found = torch.einsum("bthgd,bshd->bhgts", q.unflatten(2, (k.shape[2], -1)), k).flatten(1, 2)
    return found.to(_wide(found))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _of_heads(seen: Tensor, q: Tensor) -> Tensor:
    """`seen` `[B, Hc, ...]` of choosers for query heads of q `[B, T, Hq, D]`; of one as it is."""
    return seen if seen.shape[1] == 1 else seen.repeat_interleave(q.shape[2] // seen.shape[1], 1)
