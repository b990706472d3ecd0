"""Costs of native sparse attention."""

from __future__ import annotations

from archsearch.amounts import SIGMOID
from archsearch.attention_cost import (
    chosen_pairs,
    chosen_rows,
    kv_cache,
    kv_traffic,
    projection_flops,
    projection_params,
    rotary_dim,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import NsaOptions
from .sizes import NsaSizes


def nsa_params(options: NsaOptions, shape: ModelShape) -> int:
    """Projections, those of two more branches and the networks that compress, and three gates a query head."""
    networks = 2 * (_network(options, shape) + options.sizes.of * shape.head_dim) if options.compress == "mlp" else 0
    return projection_params(shape) + _more_kv(options, shape) + networks + 3 * shape.d_model * shape.n_heads


def nsa_flops(options: NsaOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections, gates, what blocks are compressed to, and the three branches: 4 D of matrix product a pair and query
    head in each. A network is counted with the token that completes its block."""
    b, k, window, sizes = options.block_size, options.top_k, options.window, options.sizes
    if phase == "decode":
        tokens, means, made = 1, sizes.complete(context), sizes.complete(context) - sizes.complete(context - 1)
        pairs = float(means + chosen_rows(context, b, k) + min(context, window))
    else:
        tokens, means, made = context, _complete_pairs(context, sizes), sizes.complete(context)
        pairs = means + chosen_pairs(context, b, k) + visible_pairs(context, window)
    token = projection_flops(shape, rope=options.rope) + _token_flops(options, shape)
    compared = shape.n_heads + shape.n_kv_heads * (sizes.of // sizes.every)
    ranking = Flops(elementwise=float(means * compared)) if k > 1 + sizes.local else Flops()
    return token * tokens + softmax_flops(pairs, shape) + ranking + _network_flops(options, shape) * float(made)


def nsa_traffic(options: NsaOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Rows that a decoded token reads: what complete blocks are compressed to, the chosen blocks and the window, no row
    twice; of branches with keys of their own those of each, and those of the block that is compressed.

    Blocks whose choice depends on the data are counted as outside of the window as far as there are such.
    """
    sizes, row = options.sizes, kv_traffic(0, shape).written_bytes
    read = sizes.complete(context)
    written = read - sizes.complete(context - 1)
    if options.branch_kv:
        read += chosen_rows(context, options.block_size, options.top_k) + min(context, options.window)
        read += (sizes.of - 1) * written  # the last token of a block is at hand
        return Traffic(read_bytes=read * row, written_bytes=(written + 3) * row)
    kv = kv_traffic(_distinct_rows(context, sizes), shape)
    return kv + Traffic(read_bytes=read * row, written_bytes=written * row)


def nsa_state(options: NsaOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Keys and values, and what those of each block are compressed to; of branches with keys of their own the window's
    last ones, and those that are not compressed yet, too."""
    row, sizes = (shape.n_kv_heads, shape.head_dim), options.sizes
    name = "mean" if options.plain else "block"
    key, value = (
        StateTensor(name=f"{kind}_{name}", row_shape=row, dtype=shape.dtype, role="summary", stride=sizes.every)
        for kind in ("k", "v")
    )
    rings = {"near": options.window, "raw": _raw_rows(sizes)} if options.branch_kv else {}
    more = (
        StateTensor(name=f"{kind}_{name}", row_shape=row, dtype=shape.dtype, role="kv", stride=1, cap=cap)
        for name, cap in rings.items()
        for kind in ("k", "v")
    )
    return (*kv_cache(shape), key, value, *more)


def _token_flops(options: NsaOptions, shape: ModelShape) -> Flops:
    """Projections of two more branches, gates, sums of the means, and the gated sum of the branches."""
    gates, sizes = 3 * shape.n_heads, options.sizes
    summed = sizes.of // sizes.every if options.compress == "mean" else 0  # blocks that hold a token
    sums = (2.0 * shape.n_kv_heads * summed + 5.0 * shape.n_heads) * shape.head_dim
    turned = 2 * shape.n_kv_heads * rotary_dim(options.rope, shape.head_dim) if options.branch_kv else 0
    matmul = 2.0 * (shape.d_model * gates + _more_kv(options, shape))
    return Flops(matmul=matmul, elementwise=sums + 3.0 * turned) + SIGMOID * float(gates)


def _more_kv(options: NsaOptions, shape: ModelShape) -> int:
    """Weights of the keys and values of two more branches."""
    return 4 * shape.d_model * shape.n_kv_heads * shape.head_dim if options.branch_kv else 0


def _network(options: NsaOptions, shape: ModelShape) -> int:
    """Weights of a network that compresses a block of one head."""
    return (options.sizes.of + 1) * shape.head_dim**2


def _network_flops(options: NsaOptions, shape: ModelShape) -> Flops:
    """Of the networks for one block: products, what is added to each row for its place, and silu of the inner one."""
    if options.compress == "mean":
        return Flops()
    rows, width = 2.0 * shape.n_kv_heads, shape.head_dim
    inner = (SIGMOID + Flops(elementwise=1)) * width
    return (Flops(matmul=2.0 * _network(options, shape), elementwise=float(options.sizes.of * width)) + inner) * rows


def _raw_rows(sizes: NsaSizes) -> int:
    """Rows that are kept of a branch of its own until they are compressed."""
    return max(1, sizes.of - 1)


def _complete_pairs(context: int, sizes: NsaSizes) -> int:
    """Pairs of a token and a compressed block that is complete for it, over a sequence: T^2 / (2 stride) at length."""
    late = max(0, context - sizes.of + 1)  # tokens that something is complete for
    strides, rest = divmod(late, sizes.every)
    return late + sizes.every * (strides * (strides - 1) // 2) + strides * rest


def _distinct_rows(context: int, sizes: NsaSizes) -> int:
    """Rows of the window, the last blocks, block 0, and of the other chosen blocks what can be outside of the
    window."""
    size, top_k, local = sizes.block_size, sizes.top_k, sizes.local
    past, inside = divmod(context - 1, size)
    last = inside + 1 + min(past, local - 1) * size
    beyond = max(0, context - max(sizes.window, last))  # rows before the window and the last blocks
    first = min(size, beyond) if top_k > 1 and past else 0
    others = min(max(0, min(top_k, past + 1) - 1 - local) * size, beyond - first)
    return context - beyond + first + others
