"""Costs of attention to the nearest keys along a Z-order curve."""

from __future__ import annotations

import math

from archsearch.amounts import SILU
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import ZOrderOptions


def zorder_params(options: ZOrderOptions, shape: ModelShape) -> int:
    """Two networks of two layers, values, outputs, and the width of the kernel."""
    return _weights(options, shape) + 1


def zorder_flops(options: ZOrderOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections, places on the curve, the sorting of keys by them, and weights and values of the seen pairs.

    A weight takes 3 operations a channel and 2 more; sorting n keys n log2 n, by every token that is decoded, and of a
    sequence by every chunk.
    """
    heads, groups = shape.n_heads, shape.n_kv_heads
    coded = (heads + groups) * options.key_dim * (3.0 * options.bits + 4)
    means = 2.0 * groups * (options.key_dim + shape.head_dim)
    token = Flops(matmul=2.0 * _weights(options, shape), elementwise=coded + means)
    token += SILU * (2.0 * options.hidden)
    pair = Flops(matmul=2.0 * shape.head_dim, elementwise=3.0 * options.key_dim + 2) * heads
    if phase == "decode":
        past = _past(options, context)
        return token + pair * (seen_keys(options, context) + 1) + Flops(elementwise=groups * _sorting(past))
    chunks, rest = divmod(context, options.chunk)
    before = chunks * (chunks - 1) / 2 + (chunks if rest else 0)  # chunks that are sorted, each with those before it
    sorting = groups * before * options.chunk * math.log2(context + 1)
    return token * context + pair * (seen_pairs(options, context) + context) + Flops(elementwise=sorting)


def zorder_state(options: ZOrderOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """A small key and a value a token, and the sums of both, of which the mean of the past is made."""
    groups, width, dtype = shape.n_kv_heads, shape.head_dim, shape.dtype
    return (
        StateTensor(name="k", row_shape=(groups, options.key_dim), dtype=dtype, role="index", stride=1),
        StateTensor(name="v", row_shape=(groups, width), dtype=dtype, role="kv", stride=1),
        StateTensor(name="sum", row_shape=(groups, options.key_dim + width), dtype="float32", role="recurrent", base=1),
    )


def zorder_traffic(options: ZOrderOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Every key of complete chunks, which are sorted, the values of what is seen, and the sums.

    The query heads of a key head may all choose apart: it is counted so, up to all tokens that there are.
    """
    past, groups = _past(options, context), shape.n_kv_heads
    key, value = (groups * width * shape.dtype_bytes for width in (options.key_dim, shape.head_dim))
    own = context - past if options.own else 0
    apart = min(past, options.top_k * (shape.n_heads // groups))
    sums = 4.0 * groups * (options.key_dim + shape.head_dim)
    return Traffic(
        read_bytes=float((past + own) * key + (apart + own) * value) + sums, written_bytes=float(key + value) + sums
    )


def seen_keys(options: ZOrderOptions, context: int) -> int:
    """Keys that the last of `context` tokens sees, beside the mean."""
    past = _past(options, context)
    return min(past, options.top_k) + (context - past if options.own else 0)


def seen_pairs(options: ZOrderOptions, context: int) -> float:
    """Pairs of a query and a seen key in a sequence; of the own chunks the half that is causal."""
    size, (chunks, rest) = options.chunk, divmod(context, options.chunk)
    full = min(chunks, -(-options.top_k // size))  # chunks whose tokens see all that is past
    pairs = size * size * full * (full - 1) / 2 + size * (chunks - full) * min(options.top_k, chunks * size)
    pairs += rest * min(options.top_k, chunks * size)
    return pairs + ((chunks * size * (size + 1) + rest * (rest + 1)) / 2 if options.own else 0)


def dense_up_to(options: ZOrderOptions) -> int:
    """Tokens of which none is dropped yet; 0 where own chunks are not seen."""
    return (options.top_k // options.chunk + 1) * options.chunk if options.own else 0


def _past(options: ZOrderOptions, context: int) -> int:
    """Tokens in the chunks before that of the last."""
    return (context - 1) // options.chunk * options.chunk


def _sorting(keys: int) -> float:
    return keys * math.log2(keys + 1)


def _weights(options: ZOrderOptions, shape: ModelShape) -> int:
    heads, groups, width = shape.n_heads, shape.n_kv_heads, shape.head_dim
    networks = 2 * shape.d_model * options.hidden + options.hidden * (heads + groups) * options.key_dim
    return networks + shape.d_model * (groups + heads) * width
