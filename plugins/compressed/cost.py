"""Costs of attention over compressed entries, a window, and an index that chooses entries."""

from __future__ import annotations

from archsearch.attention_cost import rotary_dim, softmax_flops, visible_pairs
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import CompressedOptions


def compressed_params(options: CompressedOptions, shape: ModelShape) -> int:
    """Projections, biases of places in a block, scales of norms, and a sink for each head."""
    parts, width = options.parts, shape.head_dim
    biases = options.series * options.block_size * (width + _index_width(options)) * (parts - 1)
    norms = (2 if options.window else 1) * width * options.norm + options.q_rank + _index_width(options)
    return _weights(options, shape) + biases + norms + (shape.n_heads if options.sink else 0)


def compressed_flops(options: CompressedOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections, norms, the entries that are made, softmax over window, entries and sink, and the index's scores."""
    token = _token_flops(options, shape)
    scores = Flops(matmul=2.0 * (options.index_dim + 1), elementwise=2.0) * options.index_heads
    if phase == "decode":
        seen = min(context, options.window) + seen_entries(options, context)
        return token + softmax_flops(seen, shape) + scores * ranked(options, context)
    pairs = visible_pairs(context, options.window) if options.window else 0.0
    found = token * context + softmax_flops(pairs + entry_pairs(options, context, options.top_k), shape)
    if not options.top_k:
        return found
    every = entry_pairs(options, context, 0)
    if phase == "train":  # every score is learnt, from what each head weighs where nothing is dropped
        dense = every * shape.n_heads
        found += Flops(matmul=2.0 * shape.head_dim, elementwise=5.0, exp=1.0) * dense
        return found + scores * every + Flops(elementwise=6.0, exp=1.0) * every
    free = min(context, (options.top_k + 1) * options.block_size - 1)
    return found + scores * (every - entry_pairs(options, free, 0))


def compressed_state(options: CompressedOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Entries, the window, what the next entry is made of, and the same of the index."""
    size, dtype = options.block_size, shape.dtype
    tensors = [StateTensor(name="entry", row_shape=(shape.head_dim,), dtype=dtype, role="kv", stride=size)]
    if options.window:
        tensors += [
            StateTensor(
                name="window", row_shape=(shape.head_dim,), dtype=dtype, role="kv", stride=1, cap=options.window
            )
        ]
    tensors += _raw_rows(options, "entry", shape.head_dim, shape)
    if options.top_k:
        width = options.index_dim
        tensors += [StateTensor(name="index", row_shape=(width,), dtype=dtype, role="index", stride=size)]
        tensors += _raw_rows(options, "index", width, shape)
    if keeps_place(options, shape):
        tensors += [StateTensor(name="place", row_shape=(1,), dtype="int64", role="recurrent", base=1)]
    return tuple(tensors)


def compressed_traffic(options: CompressedOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Rows of the window and entries that are seen, what the index ranks, and what a token leaves behind.

    Every `block_size` tokens an entry is made of the rows that are kept for it: of that the mean and the peak.
    """
    width, size, unit = shape.head_dim, options.block_size, shape.dtype_bytes
    both = width + _index_width(options)
    read = (min(context, options.window) + seen_entries(options, context)) * width
    read += ranked(options, context) * _index_width(options)
    kept = size > 1, options.overlap
    raw = options.parts * both * sum(kept)  # rows of what is kept of a token
    of_entry = options.parts * both * ((size - 1) * (context >= size) + size * options.overlap * (context >= 2 * size))
    written = width * bool(options.window) + raw
    place = 8 if keeps_place(options, shape) else 0
    return Traffic(
        read_bytes=unit * (read + of_entry / size) + place,
        written_bytes=unit * (written + both / size * (context >= size)) + place / size,
        peak_read_bytes=unit * (read + of_entry) + place,
        peak_written_bytes=unit * (written + both * (context >= size)) + place,
    )


def dense_up_to(options: CompressedOptions) -> int:
    """Tokens of which none is dropped yet: 0 where none ever is."""
    if options.window < options.block_size - 1:
        return options.window  # of an incomplete block some are out of the window
    return max(options.window, (options.top_k + 1) * options.block_size - 1) if options.top_k else 0


def keeps_place(options: CompressedOptions, shape: ModelShape) -> bool:
    """Whether the position of a block's first token outlives the call that saw it: its entry is turned by it."""
    turned = rotary_dim(options.rope, shape.head_dim) + rotary_dim(options.rope, _index_width(options))
    return options.block_size > 1 and turned > 0


def seen_entries(options: CompressedOptions, context: int) -> int:
    """Entries that the last of `context` tokens attends to."""
    there = context // options.block_size
    return min(there, options.top_k) if options.top_k else there


def ranked(options: CompressedOptions, context: int) -> int:
    """Entries that the last token scores: none where it takes them all."""
    there = context // options.block_size
    return there if options.top_k and there > options.top_k else 0


def entry_pairs(options: CompressedOptions, context: int, top_k: int) -> float:
    """Pairs of a token and an entry that is complete for it, at most `top_k` a token (0: all)."""
    size = options.block_size
    most = context // size
    most = min(most, top_k) if top_k else most
    return size * most * (most - 1) / 2 + most * (context - size * most + 1)


def _raw_rows(options: CompressedOptions, of: str, width: int, shape: ModelShape) -> list[StateTensor]:
    """Contents and gates of the tokens that the next entry is made of, beside the token that completes it."""
    row, rows = (options.parts, width), [options.block_size - 1, 2 * options.block_size - 1][: options.series]
    return [
        StateTensor(name=f"{of}_raw{series}", row_shape=row, dtype=shape.dtype, role="recurrent", stride=1, cap=cap)
        for series, cap in enumerate(rows)
        if cap
    ]


def _index_width(options: CompressedOptions) -> int:
    return options.index_dim if options.top_k else 0


def _weights(options: CompressedOptions, shape: ModelShape) -> int:
    heads, width, d_model = shape.n_heads, shape.head_dim, shape.d_model
    asked = heads * width + (options.index_heads * options.index_dim if options.top_k else 0)
    queries = (d_model + asked) * options.q_rank if options.q_rank else d_model * asked
    made = options.series * options.parts * (width + _index_width(options)) + (width if options.window else 0)
    ranked = options.out_groups * options.out_rank
    outputs = heads * width * options.out_rank + ranked * d_model if ranked else heads * width * d_model
    return queries + outputs + d_model * (made + (options.index_heads if options.top_k else 0))


def _token_flops(options: CompressedOptions, shape: ModelShape) -> Flops:
    """Of one token: projections, norms (4 an element), rotation (3 an element), its share of an entry, and the sink."""
    heads, width, index = shape.n_heads, shape.head_dim, _index_width(options)
    both, size = width + index, options.block_size
    rows = heads + bool(options.window) + 1 / size
    normed = rows * width * options.norm + options.q_rank + index / size
    turned = (heads + rows) * rotary_dim(options.rope, width)
    if index:
        turned += (options.index_heads + 1 / size) * rotary_dim(options.rope, index)
    gated = options.series * both * (options.parts - 1)
    sink = heads if options.sink else 0
    return Flops(
        matmul=2.0 * _weights(options, shape),
        elementwise=4.0 * normed + 3.0 * turned + 6.0 * gated + 2.0 * sink,
        exp=float(gated + sink),
    )
