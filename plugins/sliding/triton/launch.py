"""Launch of the window attention kernels, as ops that autograd and `torch.compile` know."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import Config, arch_of

from .backward import keys_backward, queries_backward
from .forward import attention_forward
from .table import TABLE

_LOG2_E = 1.4426950408889634
_FEWEST_ROWS = 1024
"""Queries that a program takes at least, where those of the sinks are divided."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int,
    sinks: int,
    scale: float,
    cu_seqlens: Tensor | None,
    lengths: Tensor | None,
) -> Tensor:
    """`window_attention` by kernels, `[B, T, Hq, Dv]`; nothing waits for the device, so bounds go unchecked."""
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
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
    q, k, v = (_heads_end_to_end(x) for x in (q, k, v))
    config, sizes, widths = _arguments("forward", q, k, v, spans, lengths, window, sinks)
    o = torch.empty(batch, queries, heads, v.shape[3], dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    programs = batch * heads * triton.cdiv(queries, config.tiles["M"])
    starts, _, filled = _bounds(q, spans, lengths)
    attention_forward[(programs,)](q, k, v, o, lse, starts, filled, scale * _LOG2_E, *sizes, **widths)
    return o, lse


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
    batch, queries, heads, _ = q.shape
    q, k, v = (_heads_end_to_end(x) for x in (q, k, v))
    grad = grad.contiguous()
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    delta = torch.empty_like(lse)
    starts, _, filled = _bounds(q, spans, lengths)
    config, sizes, widths = _arguments("queries", q, k, v, spans, lengths, window, sinks)
    programs = batch * heads * triton.cdiv(queries, config.tiles["M"])
    queries_backward[(programs,)](q, k, v, o, lse, starts, filled, grad, delta, dq, scale * _LOG2_E, *sizes, **widths)
    parts = _parts(queries, window, sinks) if spans is None else 1
    read = q, k, v, lse, spans, lengths, grad, delta
    _keys_backward(*read, dk[None], dv[None], window, sinks if parts == 1 else 0, scale)
    if parts > 1:
        dk_parts, dv_parts = (
            torch.empty(parts, batch, sinks, *x.shape[2:], dtype=torch.float32, device=q.device) for x in (k, v)
        )
        _keys_backward(*read, dk_parts, dv_parts, k.shape[1], 0, scale)
        dk[:, :sinks], dv[:, :sinks] = dk_parts.sum(0), dv_parts.sum(0)
    return dq, dk, dv


@_backward.register_fake
def _backward_fake(q: Tensor, k: Tensor, v: Tensor, *_rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _parts(queries: int, window: int, sinks: int) -> int:
    """Among how many programs the queries of a sink are divided, 1 for those of its block of keys alone: every query
    sees it, so that it would take T / window times as long as any other key."""
    return triton.cdiv(queries, max(2 * window, _FEWEST_ROWS)) if sinks else 1


def _keys_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    spans: Tensor | None,
    lengths: Tensor | None,
    grad: Tensor,
    delta: Tensor,
    dk: Tensor,
    dv: Tensor,
    window: int,
    sinks: int,
    scale: float,
) -> None:
    """Writes dk `[parts, B, keys, Hkv, D]` and dv of the first so many keys, each part over a run of the queries."""
    parts, batch, count = dk.shape[:3]
    config, sizes, widths = _arguments("keys", q, k, v, spans, lengths, window, sinks)
    bounds = _bounds(q, spans, lengths)
    rows = triton.cdiv(triton.cdiv(q.shape[1], parts), config.tiles["M"]) * config.tiles["M"]
    programs = parts * batch * k.shape[2] * triton.cdiv(count, config.tiles["N"])
    keys_backward[(programs,)](
        q, k, v, lse, *bounds, grad, delta, dk, dv, scale * _LOG2_E, *sizes, count, parts, rows, **widths
    )


def _bounds(q: Tensor, spans: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Starts and ends of the tokens' sequences, and rows that sequences have filled; q for what no kernel reads."""
    starts, ends = (q, q) if spans is None else spans.unbind()
    return starts, ends, q if lengths is None else lengths


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, spans, lengths, *ctx.band = inputs
    ctx.save_for_backward(q, k, v, *output, spans, lengths)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, o, lse, *held = ctx.saved_tensors
    return *_backward(q, k, v, o, lse, grad, *held, *ctx.band), None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_remember)


def _arguments(
    kernel: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    spans: Tensor | None,
    lengths: Tensor | None,
    window: int,
    sinks: int,
) -> tuple[Config, tuple[int, ...], dict[str, Any]]:
    """The configuration of a kernel, the sizes that it is called with, and its constants."""
    dim, value_dim = q.shape[3], v.shape[3]
    row = TABLE.key(arch_of(q.device), max(dim, value_dim))
    config = TABLE.rows[row][kernel]
    steps = [x.stride(axis) // x.shape[3] for x in (q, k, v) for axis in (0, 1)]
    sizes = (q.shape[1], k.shape[1], q.shape[2], k.shape[2], window, sinks, *steps)
    constants = {
        "D": dim,
        "DV": value_dim,
        "BLOCK_D": row[1],
        **config.tiles,
        "PACKED": spans is not None,
        "RAGGED": lengths is not None,
        "PRECISION": "ieee" if q.dtype == torch.float32 else "tf32",
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }
    return config, sizes, constants


def _heads_end_to_end(x: Tensor) -> Tensor:
    """`x` `[B, T, H, D]`, its heads end to end and its tokens whole heads apart; a copy where they are not."""
    dim = x.shape[-1]
    fits = x.stride(-1) == 1 and x.stride(-2) == dim and not (x.stride(0) % dim or x.stride(1) % dim)
    return x if fits else x.contiguous()
