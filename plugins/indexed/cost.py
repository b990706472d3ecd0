"""Costs of attention over what an index chooses."""

from __future__ import annotations

from dataclasses import replace

from archsearch.attention_cost import rotary_dim, visible_pairs
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .attended import (
    attended_params,
    attended_softmax,
    attended_state,
    attended_token,
    attended_traffic,
    scaled_queries,
    score_width,
)
from .options import IndexedOptions


def index_heads(options: IndexedOptions, shape: ModelShape) -> int:
    """Small heads: one for each key head where these choose apart."""
    return shape.n_kv_heads if options.scorer == "group" else options.index_heads


def choosers(options: IndexedOptions, shape: ModelShape) -> int:
    """Choices that a token makes."""
    if options.choose == "together":
        return 1
    return {"attention": shape.n_heads, "group": shape.n_kv_heads}.get(options.scorer, 1)


def indexed_params(options: IndexedOptions, shape: ModelShape) -> int:
    """Projections, and what scores."""
    return attended_params(options, shape) + index_params(options, shape)


def index_params(options: IndexedOptions, shape: ModelShape) -> int:
    """Of small heads with their key, weights and norms, or the weights of a pooling."""
    pool = shape.n_kv_heads * shape.head_dim if options.summary == "softmax" else 0
    places = options.block_size * options.index_dim if options.summary == "gated" else 0
    norms = 2 * options.index_dim * options.indexes
    return _index_weights(options, shape) + norms + asked_scales(options, shape) + pool + places


def indexed_flops(options: IndexedOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Projections, summaries, scores where there is a choice (in training always, where they are learnt), and softmax
    over the chosen keys; in training the divergence, and the dense weights that are its target."""
    token = attended_token(options, shape) + index_token(options, shape)
    found = score_flops(options, shape) * scored_blocks(options, phase, context)
    if phase == "decode":
        return token + found + attended_softmax(options, shape, phase, seen_keys(options, context))
    found += token * context + attended_softmax(options, shape, phase, chosen_pairs(options, context))
    return found + learning_flops(options, shape, phase, context)


def learning_flops(options: IndexedOptions, shape: ModelShape, phase: Phase, context: int) -> Flops:
    """Of the divergence by which an index learns in training, and the dense weights that are its target."""
    if phase != "train" or options.learn != "distilled":
        return Flops()
    scored = scored_blocks(options, phase, context)
    dense = Flops(matmul=2.0 * score_width(options, shape), elementwise=5.0, exp=1.0)
    divergence = Flops(elementwise=6.0, exp=1.0) * (scored * choosers(options, shape))
    return dense * (visible_pairs(context) * shape.n_heads) + divergence


def indexed_state(options: IndexedOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Keys and values, and what is scored."""
    return (*attended_state(options, shape), *near_state(options, shape), *index_state(options, shape))


def near_state(options: IndexedOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Keys of the window as they are turned, where the others are not."""
    if not options.far:
        return ()
    heads, cap = (shape.n_kv_heads, shape.head_dim), options.window - 1
    return (StateTensor(name="near", row_shape=heads, dtype=shape.dtype, role="kv", stride=1, cap=cap),)


def index_state(options: IndexedOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """What is scored: index keys, or summaries of blocks with the sums that they grow from."""
    width, size = options.index_dim, options.block_size
    if options.indexes:
        stride = size if options.summary in ("mean", "gated") else 1
        index = StateTensor(name="index", row_shape=(width,), dtype=shape.dtype, role="index", stride=stride)
        if stride == 1:
            return (index,)
        if options.summary == "gated":
            raw = StateTensor(
                name="raw", row_shape=(2, width), dtype=shape.dtype, role="recurrent", stride=1, cap=size - 1
            )
            return (index, raw)
        sums = StateTensor(name="sum", row_shape=(width,), dtype="float32", role="recurrent", base=1)
        return (index, sums, StateTensor(name="place", row_shape=(1,), dtype="int64", role="recurrent", base=1))
    heads = (shape.n_kv_heads, shape.head_dim)
    row = {"none": None, "minmax": (2, *heads)}.get(options.summary, heads)
    if row is None:
        return ()
    summary = StateTensor(name="summary", row_shape=row, dtype=shape.dtype, role="summary", stride=size)
    if options.summary != "representative":
        return (summary,)
    asked = StateTensor(name="asked", row_shape=heads, dtype="float32", role="recurrent", base=1)
    if options.counted:
        asked = replace(asked, base=0, stride=1, cap=options.counted + size - 2)
    return (summary, asked)


def indexed_traffic(options: IndexedOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Rows that a decoded token sees, what it scores where it has a choice, and what it writes.

    The query heads of a key head may all choose apart: it is counted so, up to all blocks that there are. Of a window
    whose keys are kept apart those are read in place of the others.
    """
    rows = attended_traffic(options, shape, read_keys(options, shape, context))
    rows += Traffic(written_bytes=float(sum(near.row_bytes for near in near_state(options, shape))))
    return rows + index_traffic(options, shape, context=context)


def index_traffic(options: IndexedOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Of what is scored."""
    size, scored = options.block_size, ranked(options, context)
    state = {row.name: row.row_bytes for row in indexed_state(options, shape)}
    completes = context % size == 0
    if "raw" in state:  # keys and gates of the tokens that the next pool is made of
        made = state["raw"] * (size - 1) if completes else 0
        read = scored * state["index"] + made
        written = state["raw"] + (state["index"] if completes else 0)
    elif "index" in state:
        rows = scored if "sum" in state else scored * size
        read = rows * state["index"] + state.get("sum", 0) + state.get("place", 0)
        written = (
            state.get("sum", 0) + state.get("place", 0) + (state["index"] if "sum" not in state or completes else 0)
        )
    elif "summary" in state:
        read = scored * state["summary"] + (0 if options.counted else state.get("asked", 0))
        if options.summary == "representative":
            completes = completes and context >= size + (options.counted or size)
            read += state["asked"] * (options.counted + size - 2) if options.counted and completes else 0
            read += state["k"] * options.representatives if options.far and completes else 0
        elif options.far and completes:  # keys of the window are read turned for all but their summary
            read += state["k"] * (size - 1)
        written = state.get("asked", 0) + (state["summary"] if completes else 0)
    else:  # keys are scored themselves, and those of what is not chosen are read for no more than that
        chosen = _read_blocks(options, shape, context)
        read, written = (max(0, scored - chosen) if scored else 0) * size * state["k"], 0
    return Traffic(read_bytes=float(read), written_bytes=float(written))


def dense_up_to(options: IndexedOptions) -> int:
    """Tokens of which none is dropped yet."""
    rule = options.rule
    return (rule.most + rule.local + 1) * rule.block_size - rule.tail


def seen_keys(options: IndexedOptions, context: int) -> int:
    """Keys that the last of `context` tokens sees."""
    rule = options.rule
    return context - rule.block_size * max(0, rule.edge(context - 1) - rule.most)


def read_keys(options: IndexedOptions, shape: ModelShape, context: int) -> int:
    """Keys that a decoded token reads: those that it sees, of query heads that choose apart each their own."""
    chosen = _read_blocks(options, shape, context)
    return seen_keys(options, context) + options.block_size * (
        chosen - min(_candidates(options, context), options.top_k)
    )


def chosen_pairs(options: IndexedOptions, context: int) -> float:
    """Pairs of query and seen key in a sequence, without what is dropped."""
    rule = options.rule
    return visible_pairs(context) - rule.block_size * _beyond(options, context, rule.most)


def _beyond(options: IndexedOptions, context: int, most: int) -> float:
    """Sum over the tokens of how many blocks before their edge are more than `most`."""
    rule = options.rule
    blocks, rest = divmod(context + rule.tail, rule.block_size)
    over = max(0, blocks - rule.local - most)
    return over * (over - 1) / 2 * rule.block_size + rest * over


def _candidates(options: IndexedOptions, context: int) -> int:
    rule = options.rule
    return max(0, rule.edge(context - 1) - rule.first)


def _read_blocks(options: IndexedOptions, shape: ModelShape, context: int) -> int:
    """Chosen blocks that are read, at most."""
    apart = shape.n_heads // shape.n_kv_heads if options.scorer == "attention" and options.choose == "apart" else 1
    return min(_candidates(options, context), apart * options.top_k)


def ranked(options: IndexedOptions, context: int) -> int:
    """Blocks that the last token scores: none where it takes them all."""
    there = _candidates(options, context)
    return there if there > options.top_k or (options.learn == "gates" and there) else 0


def scored_blocks(options: IndexedOptions, phase: Phase, context: int) -> float:
    """Blocks that are scored, by one token or all of a sequence."""
    if phase == "decode":
        return ranked(options, context)
    rule = options.rule
    if options.learn == "gates" or (phase == "train" and options.trains):
        return _beyond(options, context, rule.first)
    late = max(0, context + rule.tail - rule.block_size * (rule.most + rule.local + 1))
    return _beyond(options, context, rule.most) + rule.top_k * late


def score_flops(options: IndexedOptions, shape: ModelShape) -> Flops:
    """Of the scores of one block by one token."""
    if not options.indexes:
        products = {"none": options.block_size, "minmax": 2}.get(options.summary, 1)
        if options.choose == "together":
            return Flops(matmul=2.0 * products * shape.n_kv_heads * shape.head_dim, elementwise=products)
        return Flops(matmul=2.0 * products * shape.head_dim, elementwise=products) * shape.n_heads
    heads, keys = index_heads(options, shape), options.block_size if options.summary == "none" else 1
    weighted = 1 if options.scorer == "relu" else 0
    return Flops(matmul=2.0 * (options.index_dim + weighted), elementwise=2.0) * (heads * keys)


def asked_weights(options: IndexedOptions, shape: ModelShape) -> int:
    """Of the queries of small heads, and of what weighs these."""
    heads = index_heads(options, shape)
    weights = shape.d_model * heads if options.scorer == "relu" else 0
    return (options.q_rank or shape.d_model) * heads * options.index_dim + weights


def asked_scales(options: IndexedOptions, shape: ModelShape) -> int:
    """Parameters of what norms the input of small heads' queries, of what scales these, and of their frequencies."""
    if not options.indexes:
        return 0
    norm = 2 * (options.q_rank or shape.d_model) if options.index_norm else 0
    turned = rotary_dim(options.rope, options.index_dim) if options.rope_learned else 0
    return norm + turned // 2 + (2 * index_heads(options, shape) if options.query_scale else 0)


def asked_token(options: IndexedOptions, shape: ModelShape) -> Flops:
    """Of one token's queries and weights of small heads: projections, norms (4 an element), rotation (3 an element)."""
    heads, width = index_heads(options, shape), options.index_dim
    turned = 3.0 * heads * rotary_dim(options.rope, width)
    normed = 0.0 if options.scorer == "relu" else 4.0 * heads * width
    normed += 4.0 * (options.q_rank or shape.d_model) * options.index_norm
    asked = Flops(matmul=2.0 * asked_weights(options, shape), elementwise=normed + turned)
    return asked + scaled_queries(options, heads, width)


def _index_weights(options: IndexedOptions, shape: ModelShape) -> int:
    if not options.indexes:
        return 0
    keys = 2 if options.summary == "gated" else 1
    return asked_weights(options, shape) + shape.d_model * keys * options.index_dim


def index_token(options: IndexedOptions, shape: ModelShape) -> Flops:
    """What a token costs the indexer before a score: projections, norms (4 an element), rotation (3 an element), and
    what it adds to the summary of its block."""
    if not options.indexes:
        return _summary_token(options, shape)
    width, keys = options.index_dim, _index_weights(options, shape) - asked_weights(options, shape)
    of_key = Flops(matmul=2.0 * keys, elementwise=4.0 * width + 3.0 * rotary_dim(options.rope, width))
    return asked_token(options, shape) + of_key + _summary_token(options, shape)


def _summary_token(options: IndexedOptions, shape: ModelShape) -> Flops:
    """What a token adds to the summary of its block."""
    if options.indexes:
        width = float(options.index_dim)
        return {"mean": Flops(elementwise=width), "gated": Flops(elementwise=6 * width, exp=width)}.get(
            options.summary, Flops()
        )
    key = float(shape.n_kv_heads * shape.head_dim)
    together = Flops(elementwise=shape.n_heads * shape.head_dim - key) if options.choose == "together" else Flops()
    counted = Flops(elementwise=max(0, options.counted - 1) * key)
    return (
        together
        + counted
        + {
            "none": Flops(),
            "mean": Flops(elementwise=key),
            "minmax": Flops(elementwise=2 * key),
            "softmax": Flops(matmul=4 * key, elementwise=4.0 * shape.n_kv_heads, exp=float(shape.n_kv_heads)),
            "representative": Flops(matmul=2 * key, elementwise=key + shape.n_heads * shape.head_dim),
        }[options.summary]
    )
