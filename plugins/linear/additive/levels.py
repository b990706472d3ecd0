"""Log-linear attention: the core whose state is a hierarchy, and its step."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.ops.host import without_autocast
from archsearch.ops.impl import choose_impl
from archsearch.ops.padded import PaddedRows

from ..checks import check_sequence
from ..core import Call, Core, Tensors
from ..tokens import CanonicalTokens, Tokens, canonical
from .hierarchy import Rows, hierarchy

OP = "log_linear_attention"


class LevelsCore(Core):
    """o_t = scale sum_l w_t^l (S_t^l)^T q_t, with S^l the state of the tokens of level l, each decayed and corrected as
    that of all would be (log-linear attention, arXiv 2506.04761, section 3).

    The weights are softplus(x + b) of ``more`` `[B, T, H L]`; b starts so that they are 1, and the layer is its base.
    By a ``factor`` c they are softplus(c x), c 1 at the start, as in the paper's code.
    """

    def __init__(self, scale: float, heads: int, levels: int, *, factor: bool = False) -> None:
        super().__init__(scale)
        self.heads, self.levels = heads, levels
        self.bias = None if factor else nn.Parameter(torch.full((heads, levels), math.log(math.e - 1)))
        self.factor = nn.Parameter(torch.ones(heads, levels)) if factor else None

    def forward(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`."""
        with without_autocast(tokens.q.device.type):
            given, weights = self._canonical(tokens), self._weights(call)
            packed = None
            if call.cu_seqlens is not None:
                packed = PaddedRows.of(call.cu_seqlens, given.q.shape[1])
                given, weights = given.map(packed.pad), packed.pad(weights)
            before = None if call.state is None else call.state["recurrent"]
            o, after = self._sequences(given, weights, before, call)
            o = o if packed is None else packed.unpad(o)
        return o.to(tokens.v.dtype), {} if after is None else {"recurrent": after}

    def step(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`: every row decays, and those that the token completes become one."""
        assert call.state is not None
        assert call.lengths is not None
        rows = call.state["recurrent"]
        with without_autocast(rows.device.type):
            q, k, v, log_decay, beta = (None if x is None else x[:, None] for x in tokens.flat)
            assert q is not None
            assert k is not None
            assert v is not None
            if tokens.log_decay is not None and tokens.log_decay.dim() == 1:
                log_decay = tokens.log_decay
            given = self._canonical(Tokens(q, k, v, log_decay=log_decay, beta=beta))
            token = given.map(lambda x: x[:, 0])
            o, rows = hierarchy_step(token, self._weights(call), rows, call.lengths, self.scale)
        return o.to(tokens.v.dtype), {"recurrent": rows}

    def _canonical(self, tokens: Tokens) -> CanonicalTokens:
        """With a constant decay as a gate a head."""
        q, k, v, log_decay, beta = tokens.flat
        if log_decay is not None and log_decay.dim() == 1:
            log_decay = log_decay.expand(*q.shape[:2], -1)
        tokens = Tokens(q, k, v, log_decay=log_decay, beta=beta)
        return canonical(tokens, check_sequence(tokens, None, None))

    def _weights(self, call: Call) -> Tensor:
        """`[..., H, L]`, float32 at least."""
        assert call.more is not None
        x = call.more.to(torch.promote_types(call.more.dtype, torch.float32))
        x = x.unflatten(-1, (self.heads, self.levels))
        x = x if self.bias is None else x + self.bias.to(x.dtype)
        x = x if self.factor is None else x * self.factor.to(x.dtype)
        return F.softplus(x)

    def _sequences(
        self, tokens: CanonicalTokens, weights: Tensor, before: Tensor | None, call: Call
    ) -> tuple[Tensor, Tensor | None]:
        """Sequences that have seen as many tokens at once, others each apart."""
        if tokens.q.numel() == 0:
            return tokens.no_outputs() + 0 * weights.sum(), before
        chosen = choose_impl(OP, "auto", why="chunks in PyTorch, as there are no kernels of a hierarchy")
        if chosen == "reference":
            return self._one_by_one(tokens, weights, before, call)
        if before is None:
            return hierarchy(tokens, weights, {}, 0, self.scale, want_rows=False)[0], None
        assert call.lengths is not None
        seen = [0] if call.fresh else call.lengths.tolist()
        if min(seen) == max(seen):
            return self._after(tokens, weights, before, seen[0])
        each = [
            self._after(tokens.map(lambda x, b=b: x[b : b + 1]), weights[b : b + 1], before[b : b + 1], length)  # type: ignore[misc]
            for b, length in enumerate(seen)
        ]
        outputs, rows = zip(*each, strict=True)
        return torch.cat(outputs), torch.cat(rows)

    def _after(self, tokens: CanonicalTokens, weights: Tensor, before: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """Sequences that have all seen so many tokens."""
        count, rows = before.shape[1], Rows()
        for bit in range(count):
            if seen >> bit & 1:
                rows[bit] = before[:, bit].to(tokens.q.dtype)
        o, rows = hierarchy(tokens, weights, rows, seen, self.scale)
        empty = torch.zeros_like(before[:, 0])
        return o, torch.stack([rows.get(bit, empty) for bit in range(count)], dim=1)

    def _one_by_one(
        self, tokens: CanonicalTokens, weights: Tensor, before: Tensor | None, call: Call
    ) -> tuple[Tensor, Tensor | None]:
        """Token by token: the reference."""
        batch, length = tokens.q.shape[:2]
        rows, outputs = before, []
        seen = torch.zeros(batch, dtype=torch.int64, device=weights.device)
        if rows is None:
            rows = tokens.v.new_zeros(batch, length.bit_length(), *tokens.state_shape[1:])
        elif call.lengths is not None:
            seen = call.lengths
        for t in range(length):
            token = tokens.map(lambda x, t=t: x[:, t])  # type: ignore[misc]
            o, rows = hierarchy_step(token, weights[:, t], rows, seen + t, self.scale)
            outputs.append(o)
        return torch.stack(outputs, 1), None if before is None else rows


def hierarchy_step(
    token: CanonicalTokens, weights: Tensor, rows: Tensor, lengths: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """One token `[B, H, ...]` after ``lengths`` `[B]` others, whose rows are `[B, R, H, K, V]`: what it reads
    `[B, H, V]` by its ``weights`` `[B, H, L]`, and the rows after it. Rows that hold nothing are not touched."""
    count, most = rows.shape[1], weights.shape[-1] - 1
    bits = torch.arange(count, device=rows.device)
    held = (lengths[:, None] >> bits & 1).bool()
    states = torch.where(_of_rows(held), rows, 0.0).to(token.q.dtype)
    if token.log_decay is not None:
        states = states * token.log_decay.exp()[:, None, ..., None]
    value = token.v
    if token.beta is not None:
        value = token.beta[..., None] * value
        recalled = (token.k[:, None, ..., None, :] @ states)[..., 0, :]
        states = states - (token.beta[..., None] * token.k)[:, None, ..., None] * recalled[..., None, :]
    own = token.k[..., None] * value[..., None, :]
    all_states = torch.cat((own[:, None], states), dim=1)
    by_level = weights[..., (bits + 1).clamp(max=most)]
    level_weights = torch.cat((weights[..., :1], by_level), dim=-1).movedim(-1, 1)
    read = (token.q[:, None, ..., None, :] @ all_states)[..., 0, :]
    o = scale * (level_weights[..., None] * read).sum(1)
    ended = held.long().cumprod(1).bool()  # the rows that the token completes
    merged = own + torch.where(_of_rows(ended), states, 0.0).sum(1)
    goes_on = _of_rows(held & ~ended)
    lands = _of_rows(bits == ended.sum(1, keepdim=True))
    after = torch.where(lands, merged[:, None], torch.where(goes_on, states, rows.to(states.dtype)))
    return o, after.to(rows.dtype)


def _of_rows(mask: Tensor) -> Tensor:
    """`[B, R]` as it meets rows `[B, R, H, K, V]`."""
    return mask[:, :, None, None, None]
