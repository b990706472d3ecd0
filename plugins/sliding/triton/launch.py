"""Launch of the window attention kernels, as ops that autograd and `torch.compile` know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import Config, arch_of
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.operands import heads_end_to_end, precision_of

from .backward import keys_backward, queries_backward
from .forward import attention_forward
from .table import TABLE

_LOG2_E = 1.4426950408889634
FEWEST_ROWS = 1024
"""Queries that a program takes at least, where those of the sinks are divided."""


def run(laid: LaidOut, *, window: int, sinks: int, scale: float) -> Tensor:
    """`ops.window_attention` by kernels, `[B, T, Hq, Dv]`; nothing waits for the device, so bounds go unchecked."""
    q, k, v, cu_seqlens, lengths = laid.flat
    kind = q.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else q.dtype
    q, k, v = (x.to(dtype) for x in (q, k, v))
    if scale < 0:
        q, scale = -q, -scale
    spans = None if cu_seqlens is None else _spans(cu_seqlens, q.shape[1])
    if lengths is not None:
        lengths = lengths.to(q.device, torch.int64, non_blocking=True).contiguous()
    keys = k.shape[1]
    out: Tensor
    out, _ = _forward(q, k, v, spans, lengths, min(window, keys), min(sinks, keys), scale)
    return out


def _spans(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """First token of the sequence of each token, and the one after its last, `[2, T]` int32.

    Filled up to a multiple of 4: rows whose address is aligned at one T and not at another compile a kernel twice.
    """
    owner = torch.searchsorted(cu_seqlens[1:], torch.arange(tokens, device=cu_seqlens.device), right=True)
    spans = torch.stack((cu_seqlens[owner], cu_seqlens[owner + 1])).int()
    return torch.nn.functional.pad(spans, (0, -tokens % 4))


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call: q, k and v with their heads end to end; where packed tokens' sequences begin and end, `[2, T]`, and the
    rows that each sequence has filled, None where that is all; what a query sees; the scale of scores."""

    q: Tensor
    k: Tensor
    v: Tensor
    spans: Tensor | None
    lengths: Tensor | None
    window: int
    sinks: int
    scale: float

    @property
    def bounds(self) -> tuple[Tensor, Tensor, Tensor]:
        """Starts and ends of the tokens' sequences, and rows that sequences have filled; q for what no kernel reads."""
        starts, ends = (self.q, self.q) if self.spans is None else self.spans.unbind()
        return starts, ends, self.q if self.lengths is None else self.lengths

    @property
    def scale_log2(self) -> float:
        """The scale of scores to base 2."""
        return self.scale * _LOG2_E

    def arguments(self, kernel: str) -> tuple[Config, tuple[int, ...], dict[str, Any]]:
        """The configuration of a kernel, the sizes that it is called with, and its constants."""
        dim, value_dim = self.q.shape[3], self.v.shape[3]
        row = TABLE.key(arch_of(self.q.device), max(dim, value_dim))
        config = TABLE.row(row, self.q.dtype)[kernel]
        steps = [x.stride(axis) // x.shape[3] for x in (self.q, self.k, self.v) for axis in (0, 1)]
        lengths, heads = (self.q.shape[1], self.k.shape[1]), (self.q.shape[2], self.k.shape[2])
        constants = {
            "D": dim,
            "DV": value_dim,
            "BLOCK_D": row[1],
            **config.tiles,
            "PACKED": self.spans is not None,
            "RAGGED": self.lengths is not None,
            "PRECISION": precision_of(self.q),
            "num_warps": config.num_warps,
            "num_stages": config.num_stages,
        }
        return config, (*lengths, *heads, self.window, self.sinks, *steps), constants

    def programs(self, config: Config) -> int:
        """Programs that take a tile of the queries of one head each."""
        batch, queries, heads, _ = self.q.shape
        return batch * heads * -(-queries // config.tiles["M"])


@torch.library.custom_op("archsearch::window_attention_forward", mutates_args=())
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Tensor | None,
    lengths: Tensor | None,
    window: int,
    sinks: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """o `[B, T, Hq, Dv]` and the log-sum-exps of the scores, base 2, `[B, Hq, T]` float32."""
    batch, queries, heads, _ = q.shape
    call = _call(q, k, v, spans, lengths, window, sinks, scale)
    config, sizes, constants = call.arguments("forward")
    o = torch.empty(batch, queries, heads, v.shape[3], dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    starts, _, filled = call.bounds
    attention_forward[(call.programs(config),)](
        call.q, call.k, call.v, o, lse, starts, filled, call.scale_log2, *sizes, **constants
    )
    return o, lse


def _call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Tensor | None,
    lengths: Tensor | None,
    window: int,
    sinks: int,
    scale: float,
) -> _Call:
    q, k, v = (heads_end_to_end(x) for x in (q, k, v))
    return _Call(q=q, k=k, v=v, spans=spans, lengths=lengths, window=window, sinks=sinks, scale=scale)


@_forward.register_fake
def _forward_fake(q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor]:
    batch, queries, heads, _ = q.shape
    return q.new_empty(batch, queries, heads, v.shape[3]), q.new_empty(batch, heads, queries, dtype=torch.float32)


@torch.library.custom_op("archsearch::window_attention_backward", mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    grad: Tensor,
    spans: Tensor | None,
    lengths: Tensor | None,
    window: int,
    sinks: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, from that of o."""
    call = _call(q, k, v, spans, lengths, window, sinks, scale)
    given = _Gradient(lse=lse, grad=grad.contiguous(), delta=torch.empty_like(lse))
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (call.q, call.k, call.v))
    _queries_backward(call, given, o, dq)
    parts = _parts(q.shape[1], window, sinks) if spans is None else 1
    _keys_backward(call if parts == 1 else replace(call, sinks=0), given, dk[None], dv[None])
    if parts > 1:
        every = replace(call, window=k.shape[1], sinks=0)
        dk_parts, dv_parts = (
            torch.empty(parts, len(q), sinks, *x.shape[2:], dtype=torch.float32, device=q.device) for x in (k, v)
        )
        _keys_backward(every, given, dk_parts, dv_parts)
        dk[:, :sinks], dv[:, :sinks] = dk_parts.sum(0), dv_parts.sum(0)
    return dq, dk, dv


@dataclass(frozen=True, kw_only=True)
class _Gradient:
    """What both backward kernels read: the log-sum-exps of the forward pass, the gradient of its outputs, and their
    product ``delta`` `[B, Hq, T]`, which that of the queries writes."""

    lse: Tensor
    grad: Tensor
    delta: Tensor


@_backward.register_fake
def _backward_fake(q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _parts(queries: int, window: int, sinks: int) -> int:
    """Among how many programs the queries of a sink are divided, 1 for those of its block of keys alone: every query
    sees it, so that it would take T / window times as long as any other key."""
    return triton.cdiv(queries, max(2 * window, FEWEST_ROWS)) if sinks else 1


def _queries_backward(call: _Call, given: _Gradient, o: Tensor, dq: Tensor) -> None:
    """Writes dq and ``given.delta``."""
    config, sizes, constants = call.arguments("queries")
    starts, _, filled = call.bounds
    read = call.q, call.k, call.v, o, given.lse, starts, filled, given.grad
    queries_backward[(call.programs(config),)](*read, given.delta, dq, call.scale_log2, *sizes, **constants)


def _keys_backward(call: _Call, given: _Gradient, dk: Tensor, dv: Tensor) -> None:
    """Writes dk `[parts, B, keys, Hkv, D]` and dv of the first so many keys, each part over a run of the queries."""
    parts, batch, count = dk.shape[:3]
    config, sizes, constants = call.arguments("keys")
    rows = triton.cdiv(triton.cdiv(call.q.shape[1], parts), config.tiles["M"]) * config.tiles["M"]
    programs = parts * batch * call.k.shape[2] * triton.cdiv(count, config.tiles["N"])
    read = call.q, call.k, call.v, given.lse, *call.bounds, given.grad, given.delta
    keys_backward[(programs,)](*read, dk, dv, call.scale_log2, *sizes, count, parts, rows, **constants)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, spans, lengths, *ctx.band = inputs
    ctx.save_for_backward(q, k, v, *output, spans, lengths)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, o, lse, *held = ctx.saved_tensors
    return *_backward(q, k, v, o, lse, grad, *held, *ctx.band), None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_remember)
