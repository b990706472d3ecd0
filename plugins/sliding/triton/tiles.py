"""Which keys a query sees through its window, and which blocks of keys a block of queries does."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def filled_keys(lengths, batch, S, RAGGED: tl.constexpr):
    """Keys of a sequence: all S rows, or those that it has filled."""
    if RAGGED:
        S = tl.load(lengths + batch).to(tl.int32)
    return S


@triton.jit
def sight(query, starts, window, sinks, S, PACKED: tl.constexpr):
    """What bounds the keys that queries see, by index: the start of their sequence, the end of its sinks, and the
    first key of their window."""
    own = tl.zeros_like(query)
    if PACKED:
        own = tl.load(starts + query, mask=query < S, other=0)
    return own, own + sinks, tl.maximum(query - window + 1, own)


@triton.jit
def seen(key, newest, own, sinks_end, recent, PACKED: tl.constexpr):
    """Whether a query sees a key: `newest` is the query itself, or a limit below it; the rest is its `sight`."""
    visible = (key <= newest) & ((key >= recent) | (key < sinks_end))
    if PACKED:
        visible = visible & (key >= own)
    return visible


@triton.jit
def key_blocks(first, last, start, last_start, window, sinks, N: tl.constexpr):
    """Blocks of N keys that queries first .. last see: of sinks before the band, and of the band, which begins at key
    `low` and needs no mask from `middle` up to `right`.

    `start` and `last_start` are those of the sequences of the first and of the last query: an earlier sequence ends
    where a later one begins, so that only the first query's has sinks before the band.
    """
    low = tl.maximum(start, first - window + 1) // N * N
    middle = tl.cdiv(tl.maximum(last + 1 - window, last_start), N) * N
    right = (first + 1) // N * N
    sink_blocks = tl.cdiv(tl.maximum(tl.minimum(start + sinks, low) - start, 0), N)
    return low, middle, right, sink_blocks, tl.cdiv(last + 1 - low, N)


@triton.jit
def key_block(i, start, low, sink_blocks, N: tl.constexpr):
    """First key of the i-th of those blocks."""
    return tl.where(i < sink_blocks, start + i * N, low + (i - sink_blocks) * N)


@triton.jit
def mask_scores(
    scores, hidden, at, query, own, own_sinks_end, recent, low, middle, right, N: tl.constexpr, PACKED: tl.constexpr
):
    """Scores of queries `[M]` over the N keys from `at` on, `hidden` where a query does not see a key.

    A block of sinks stops at the band's first key, which a block of the band sees itself.
    """
    if (at < middle) | (at >= right):
        key = at + tl.arange(0, N)
        newest = tl.where(at < low, tl.minimum(query, low - 1), query)
        visible = seen(key[None, :], newest[:, None], own[:, None], own_sinks_end[:, None], recent[:, None], PACKED)
        scores = tl.where(visible, scores, hidden)
    return scores


@triton.jit
def queries_end(key, starts, ends, window, sinks, S, PACKED: tl.constexpr):
    """The query that no longer sees a key, by its index: after its window or, for a sink, after its sequence."""
    if PACKED:
        start, end = tl.load(starts + key, mask=key < S, other=0), tl.load(ends + key, mask=key < S, other=0)
        return tl.minimum(tl.where(key < start + sinks, end, key + window), end)
    return tl.minimum(tl.where(key < sinks, S, key + window), S)
