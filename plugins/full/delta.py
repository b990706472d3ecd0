"""DeltaFormer: values from which what earlier keys answer is taken away, then softmax attention over them."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.model import MixerState
from archsearch.ops.impl import choose_impl
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import scale_of

from .ops import full_attention, full_attention_step
from .rows import RowsAttention, order_in, written

OP = "delta_values"
WHY = "blocks of tokens, a triangular system each, in PyTorch"
BLOCK = 64
"""Tokens of one triangular system."""


def delta_values(k: Tensor, v: Tensor, order: Tensor, before: Tensor, *, impl: str = "auto") -> Tensor:
    """u_t = v_t - sum over i < t of softmax_i(k_t . k_i D^-0.5) u_i for T new tokens, `[B, T, G, D]`.

    k `[B, S, G, D]` holds the keys of all tokens, the new ones at ``order`` `[B, T]`; v `[B, T, G, D]`; ``before``
    `[B, S - T, G, D]`: u of earlier tokens, in the first rows. The first token keeps its value. DeltaFormer (arXiv
    2505.19488), with keys for what asks. ``impl`` "reference" takes blocks of one token. Raises
    `OptionsError`, `KernelUnavailableError`.
    """
    size = 1 if choose_impl(OP, impl, why=WHY) == "reference" else BLOCK
    wide = torch.promote_types(v.dtype, torch.float32)
    index = order[..., None, None].expand(-1, -1, *k.shape[2:])
    new = k.gather(1, index).to(wide).transpose(1, 2)
    past, done = before.shape[1], before.to(wide).transpose(1, 2)
    earlier, values = k[:, :past].to(wide).transpose(1, 2), v.to(wide).transpose(1, 2)
    filled = (torch.arange(past, device=k.device) < order[:, :1])[:, None, None]
    for start in range(0, v.shape[1], size):
        asked = new[:, :, start : start + size]
        keys = torch.cat((earlier, new[:, :, : start + asked.shape[2]]), dim=2)
        scores = (asked * scale_of(k, None)) @ keys.mT
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=k.device).tril(past + start - 1)
        seen = seen[None, None] & torch.cat((filled, filled.new_ones(len(k), 1, 1, keys.shape[2] - past)), dim=3)
        # finite, so that the row of a first token, which sees nothing, has a gradient
        weights = scores.masked_fill(~seen, torch.finfo(wide).min / 2).softmax(-1).masked_fill(~seen, 0.0)
        whole, own = weights.split([past + start, asked.shape[2]], dim=-1)
        wanted = values[:, :, start : start + size] - whole @ done
        done = torch.cat((done, torch.linalg.solve_triangular(own, wanted, upper=False, unitriangular=True)), dim=2)
    return done[:, :, past:].transpose(1, 2).to(v.dtype)


class DeltaAttention(RowsAttention):
    """The cache of values has u instead: a token writes its value less what its key would read there."""

    def read(self, q: Tensor, new: dict[str, Tensor], state: MixerState | None) -> tuple[Tensor, dict[str, Tensor]]:
        k, v, order = new["k"], new["v"], order_in(q, state)
        with torch.autocast(q.device.type, enabled=False):
            if state is None:
                u = delta_values(k.to(q.dtype), v, order, v[:, :0])
                return full_attention(LaidOut(q, k.to(q.dtype), u.to(q.dtype))), {}
            if not q.numel():
                return LaidOut(q, k, v).no_outputs(), {}
            held, after = state.most, state.lengths + q.shape[1]
            before = state.tensors["v"][:, :held]
            keys = written({"k": k}, state)["k"]
            u = delta_values(keys[:, : held + q.shape[1]].to(q.dtype), v, order, before)
            tensors = {"k": keys, **written({"v": u}, state)}
            if q.shape[1] == 1:
                return full_attention_step(q[:, 0], tensors["k"], tensors["v"], after)[:, None], tensors
            rows = (tensor[:, : held + q.shape[1]].to(q.dtype) for tensor in tensors.values())
            return full_attention(LaidOut(q, *rows, lengths=after)), tensors
