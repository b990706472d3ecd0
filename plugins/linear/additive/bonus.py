"""RWKV's read: the state before a token's own write, and the token's own value by a weight of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.ops.host import without_autocast

from ..core import Call, Core, Tensors
from ..tokens import Tokens


class BonusCore(Core):
    """o_t = scale (S_(t-1)^T q_t + (q_t . (u k_t)) v_t), then S_t = exp(g_t) S_(t-1) + k_t v_t^T (RWKV-6, arXiv
    2404.05892, section 4), with u `[H, K]` trained from 1."""

    def __init__(self, scale: float, heads: int, key_dim: int) -> None:
        super().__init__(scale)
        self.bonus = nn.Parameter(torch.ones(heads, key_dim))

    def forward(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`: every token writes what the one before it had to write, and the state is given the last write."""
        own = self._own(tokens)
        o, before = self.attend(self._one_later(tokens, call.places), call)
        o = o + own
        if call.state is None:
            return o, {}
        if tokens.q.shape[1]:
            before = _written(before, _token(tokens, -1))
        return o, {"recurrent": before[:, None]}

    def step(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """As `Core`."""
        assert call.state is not None
        before = call.state["recurrent"][:, 0]
        with without_autocast(before.device.type):
            read = (tokens.q.to(before.dtype)[..., None, :] @ before)[..., 0, :]
        o = (self.scale * read).to(tokens.v.dtype) + self._own(tokens)
        return o, {"recurrent": _written(before, tokens)[:, None]}

    def _own(self, tokens: Tokens) -> Tensor:
        """What tokens read of their own values, `[..., H, V]`."""
        q, k, v, _, _ = tokens.flat
        dtype = torch.promote_types(v.dtype, torch.float32)
        weight = (q.to(dtype) * self.bonus.to(dtype) * k.to(dtype)).sum(-1, keepdim=True)
        return (self.scale * weight * v.to(dtype)).to(v.dtype)

    def _one_later(self, tokens: Tokens, places: Tensor | None) -> Tokens:
        """The queries as they are, and with each what the token before it writes; with the first nothing."""
        q, k, v, log_decay, _ = tokens.flat

        def later(x: Tensor) -> Tensor:
            moved = F.pad(x, (0, 0) * (x.dim() - 2) + (1, 0))[:, : x.shape[1]]
            return moved if places is None else moved * (places > 0).view(1, -1, *[1] * (x.dim() - 2))

        if log_decay is not None:
            log_decay = later(log_decay.expand(*q.shape[:2], -1) if log_decay.dim() == 1 else log_decay)
        return Tokens(q, later(k), later(v), log_decay=log_decay)


def _token(tokens: Tokens, t: int) -> Tokens:
    """One token of each sequence."""
    q, k, v, log_decay, _ = tokens.flat
    if log_decay is not None and log_decay.dim() > 1:
        log_decay = log_decay[:, t]
    return Tokens(q[:, t], k[:, t], v[:, t], log_decay=log_decay)


def _written(state: Tensor, token: Tokens) -> Tensor:
    """The state `[B, H, K, V]` after a token's decay and write."""
    _, k, v, log_decay, _ = token.flat
    if log_decay is not None:
        decay = log_decay.to(state.dtype).exp()
        state = state * (decay if decay.dim() == 3 else decay[..., None])[..., None]
    return torch.addcmul(state, k.to(state.dtype)[..., None], v.to(state.dtype)[..., None, :])
