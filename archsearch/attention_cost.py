"""Costs that softmax mixers share: projections, rotary embedding, the softmax core, the cache of keys and values."""

from __future__ import annotations

import math

from archsearch.amounts import SIGMOID
from archsearch.errors import OptionsError
from archsearch.mixer import Flops, ModelShape, StateTensor, Traffic


def kv_heads_of(n_kv_heads: int, shape: ModelShape) -> int:
    """Key heads of a mixer whose option is `n_kv_heads`: the model's for 0. Raises `OptionsError`."""
    heads = n_kv_heads or shape.n_kv_heads
    if shape.n_heads % heads:
        raise OptionsError(f"n_kv_heads = {heads} does not divide n_heads = {shape.n_heads}: choose a divisor")
    return heads


def rotary_dim(fraction: float, head_dim: int) -> int:
    """Leading channels of a head that a rotary embedding of that fraction turns, an even number."""
    return 2 * int(fraction * head_dim / 2)


def heads_refusal(shape: ModelShape, *, rope: float = 0.0, n_kv_heads: int = 0) -> str | None:
    """Why heads of those options do not fit a backbone, for `MixerPlugin.check`; None where they do."""
    if n_kv_heads and shape.n_heads % n_kv_heads:
        return (
            f"n_kv_heads = {n_kv_heads} does not divide n_heads = {shape.n_heads}: choose a divisor, or 0 for the "
            "backbone's"
        )
    return rotation_refusal(rope, "head_dim", shape.head_dim)


def rotation_refusal(rope: float, name: str, channels: int) -> str | None:
    """Why a share of so many channels is no rotation, None where a pair of them is turned, or none is asked for."""
    if not rope or rotary_dim(rope, channels):
        return None
    least = f"rope = {math.ceil(200 / channels) / 100:g} at least, or 0" if channels > 1 else "rope = 0"
    return f"rope = {rope:g} of {name} = {channels} turns no pair of channels: choose {least} for no position at all"


def projection_params(
    shape: ModelShape, *, n_kv_heads: int = 0, qk_norm: bool = False, output_gate: bool = False
) -> int:
    """Parameters of the query, key, value and output projections, of the norms of query and key, and of the gate."""
    heads = shape.n_heads + kv_heads_of(n_kv_heads, shape)
    gate = shape.d_model * shape.n_heads * shape.head_dim if output_gate else 0
    return 2 * shape.d_model * heads * shape.head_dim + (2 * shape.head_dim if qk_norm else 0) + gate


def projection_flops(
    shape: ModelShape, *, n_kv_heads: int = 0, rope: float = 0.0, qk_norm: bool = False, output_gate: bool = False
) -> Flops:
    """Operations of one token outside the softmax core: projections, norms (4 an element), rotation (3 an element), and
    of a gated channel a sigmoid (2, and an exponential) and its product."""
    kv_heads = kv_heads_of(n_kv_heads, shape)
    turned = (shape.n_heads + kv_heads) * rotary_dim(rope, shape.head_dim)
    normed = (shape.n_heads + kv_heads) * shape.head_dim if qk_norm else 0
    gated = shape.n_heads * shape.head_dim if output_gate else 0
    around = Flops(
        matmul=4.0 * shape.d_model * (shape.n_heads + kv_heads) * shape.head_dim + 2.0 * shape.d_model * gated,
        elementwise=3.0 * turned + 4.0 * normed,
    )
    return around + (SIGMOID + Flops(elementwise=1)) * float(gated)


def visible_pairs(context: int, window: int | None = None) -> float:
    """Pairs of query and visible key in a causal sequence, a token and itself among them: half the square and half the
    diagonal, or a band of `window` keys a query."""
    if window is None or context <= window:
        return context * (context + 1) / 2
    return context * window - window * (window - 1) / 2


def softmax_flops(pairs: float, shape: ModelShape) -> Flops:
    """Softmax attention over `pairs` of query and key, for all query heads.

    4 D of matrix product a pair and head (scores, values), an exponential, and 4 elementwise operations (scale,
    maximum, difference, sum).
    """
    scores = pairs * shape.n_heads
    return Flops(matmul=4.0 * scores * shape.head_dim, elementwise=4.0 * scores, exp=scores)


def kv_cache(shape: ModelShape, *, n_kv_heads: int = 0, cap: int | None = None) -> tuple[StateTensor, StateTensor]:
    """A key and a value row for each token, at most `cap` of them: tensors ``k`` and ``v``, rows `[Hkv, D]`."""
    row = (kv_heads_of(n_kv_heads, shape), shape.head_dim)
    key, value = (
        StateTensor(name=name, row_shape=row, dtype=shape.dtype, role="kv", stride=1, cap=cap) for name in ("k", "v")
    )
    return key, value


def kv_traffic(rows: float, shape: ModelShape, *, n_kv_heads: int = 0) -> Traffic:
    """Reading `rows` keys and values of every key head, and writing those of the new token."""
    row_bytes = 2.0 * kv_heads_of(n_kv_heads, shape) * shape.head_dim * shape.dtype_bytes
    return Traffic(read_bytes=rows * row_bytes, written_bytes=row_bytes)


def chosen_pairs(context: int, block_size: int, top_k: int) -> float:
    """Pairs of query and visible key in a causal sequence whose tokens see the own block and top_k - 1 past ones.

    All past ones where there are fewer. Of the own blocks the half that is causal counts: b (b + 1) / 2 a block.
    """
    blocks, rest = divmod(context, block_size)
    most = min(blocks, top_k - 1)
    past = (most * (most - 1) // 2 + (blocks - most) * most) * block_size + rest * most
    return past * block_size + (blocks * block_size * (block_size + 1) + rest * (rest + 1)) / 2


def chosen_rows(context: int, block_size: int, top_k: int) -> int:
    """Keys that the last of `context` tokens sees of them."""
    past, inside = divmod(context - 1, block_size)
    return min(past, top_k - 1) * block_size + inside + 1
