"""Decays within a chunk: sums of log decays over spans of tokens, by additions only, and what they multiply."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def head_gates(log_decay, first, count, stride, head, C: tl.constexpr):
    """Log decays of a head `[C]`, 0 where there is no token; and those of the token after each, 0 for the last."""
    i = tl.arange(0, C)
    cells = log_decay + first * stride + head + i * stride
    gates = tl.load(cells, mask=i < count, other=0.0).to(tl.float32)
    nexts = tl.load(cells + stride, mask=i + 1 < count, other=0.0).to(tl.float32)
    return gates, nexts


@triton.jit
def gates_before(log_decay, first, count, stride, head, C: tl.constexpr):
    """Log decays of a head, of the token before each `[C]`: 0 for the first, and where there is no token."""
    i = tl.arange(0, C)
    cells = log_decay + first * stride + head + (i - 1) * stride
    return tl.load(cells, mask=(i > 0) & (i < count), other=0.0).to(tl.float32)


@triton.jit
def channel_gates(log_decay, first, count, heads, head, c, K: tl.constexpr, C: tl.constexpr):
    """Log decays of a head's channels `c` `[C, BK]`, 0 where there is no token, at least -1e4, of which exp is 0."""
    i = tl.arange(0, C)
    cells = log_decay + (first * heads + head) * K + i[:, None] * (heads * K) + c[None, :]
    gates = tl.load(cells, mask=(i < count)[:, None] & (c < K)[None, :], other=0.0).to(tl.float32)
    return tl.where(gates < -1e4, -1e4, gates)


@triton.jit
def summed(rows, x, PARTS: tl.constexpr):
    """`rows` `[C, C]`, ones and zeros, times `x` `[C, BK]` float32, in products of the dtype of `rows`.

    In 16 bits x is taken in as many parts: of its magnitude one leaves 2^-9 in bfloat16 (2^-12 in float16), which will
    do for a gradient, and two leave 2^-17 (2^-23), which an exponent needs.
    """
    if rows.dtype == tl.float32:
        found = tl.dot(rows, x, input_precision="ieee")
    else:
        high = x.to(rows.dtype)
        found = tl.dot(rows, high)
        if PARTS == 2:
            low = (x - high.to(tl.float32)).to(rows.dtype)
            found = tl.dot(rows, low, found)
    return found


@triton.jit
def sums(chosen, x, like, PARTS: tl.constexpr):
    """`summed` over the rows that are `chosen` `[C, C]`, in products of the dtype of `like`."""
    return summed(chosen.to(like.dtype), x, PARTS)


@triton.jit
def from_start(gates, like, C: tl.constexpr):
    """exp of the sum of the log decays `[C, BK]` up to and with each token's."""
    i = tl.arange(0, C)
    return tl.exp(sums(i[:, None] >= i[None, :], gates, like, 2))


@triton.jit
def from_start_before(gates, like, C: tl.constexpr):
    """exp of the sum of the log decays `[C, BK]` up to each token's, without it: what an early read meets."""
    i = tl.arange(0, C)
    return tl.exp(sums(i[:, None] > i[None, :], gates, like, 2))


@triton.jit
def to_end(gates, like, C: tl.constexpr):
    """exp of the sum of the log decays `[C, BK]` after each token's."""
    i = tl.arange(0, C)
    return tl.exp(sums(i[:, None] < i[None, :], gates, like, 2))


@triton.jit
def within(begin, end, C: tl.constexpr):
    """Which columns `[C, C]` lie from `begin` up to, not including, `end` of each row.

    The levels' masks are such ranges: two vectors a level, where pairs of tokens would be kept through the loop.
    """
    j = tl.arange(0, C)[None, :]
    return (j >= begin[:, None]) & (j < end[:, None])


@triton.jit
def level_masks(masks, C: tl.constexpr, EARLY: tl.constexpr):
    """Writes which log decays `meeting` sums, and which pairs meet: masks `[2, LEVELS, C, C]` of ones and zeros, 1
    where token j is summed for token i, and where query i meets key j; EARLY: `[3, LEVELS, C, C]`, the last where it
    is summed for the read of token i, from the anchor up to the token before.

    One program a level. What these tiles hold is the same in every chunk: in memory a program reads them, where it
    would find 4096 truth values anew for each level and block of channels.
    """
    level, levels = tl.program_id(0), tl.num_programs(0)
    i, j = tl.arange(0, C), tl.arange(0, C)
    right, half = (i >> level) & 1 == 1, i >> level
    begin, end = tl.where(right, half << level, i + 1), tl.where(right, i + 1, (half + 1) << level)
    tile = i[:, None] * C + j[None, :]
    tl.store(masks + level * C * C + tile, within(begin, end, C).to(masks.dtype.element_ty))
    tl.store(masks + (levels + level) * C * C + tile, meets(level, C, 0).to(masks.dtype.element_ty))
    if EARLY:
        early = within(begin, tl.where(right, i, begin), C)
        tl.store(masks + (2 * levels + level) * C * C + tile, early.to(masks.dtype.element_ty))


@triton.jit
def _mask(masks, level, C: tl.constexpr, AXIS: tl.constexpr):
    """The tile of one level: `[i, j]`, or `[j, i]` for AXIS = 1."""
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    tile = i * C + j if AXIS == 0 else j * C + i
    return tl.load(masks + level * C * C + tile)


@triton.jit
def meeting(gates, masks, level, C: tl.constexpr):
    """Decays `[C, BK]` from and to the anchors of one level, all at most 1; `masks` are `level_masks`'.

    Tokens stand in blocks of 2^(level + 1). The anchor is the last token of the left half: a token of the right half
    decays from the anchor to itself, one of the left half from itself to the anchor.
    """
    return tl.exp(summed(_mask(masks, level, C, 0), gates, 2))


@triton.jit
def meeting_across(gates, masks, level, C: tl.constexpr):
    """`meeting` with tokens along the second axis, `[BK, C]`, so that no rounded accumulator need be transposed."""
    chosen = _mask(masks, level, C, 1)
    if chosen.dtype == tl.float32:
        found = tl.dot(gates, chosen, input_precision="ieee")
    else:
        high = gates.to(chosen.dtype)
        found = tl.dot(high, chosen)
        found = tl.dot((gates - high.to(tl.float32)).to(chosen.dtype), chosen, found)
    return tl.exp(found)


@triton.jit
def meeting_gradient(d_sums, masks, level, C: tl.constexpr):
    """Gradient of the log decays `[C, BK]` from that of the sums of `meeting`, by its transpose."""
    return summed(_mask(masks, level, C, 1), d_sums, 1)


@triton.jit
def spans(gates, C: tl.constexpr, AXIS: tl.constexpr):
    """exp of the sum of the log decays after token j up to token i, 0 for j > i: `[i, j]`, or `[j, i]` for AXIS = 1."""
    i = tl.arange(0, C)
    if AXIS == 0:
        later = i[:, None] > i[None, :]
        sums = tl.cumsum(tl.where(later, gates[:, None], 0.0), 0)
        kept = i[:, None] >= i[None, :]
    else:
        later = i[None, :] > i[:, None]
        sums = tl.cumsum(tl.where(later, gates[None, :], 0.0), 1)
        kept = i[None, :] >= i[:, None]
    return tl.where(kept, tl.exp(sums), 0.0)


@triton.jit
def spans_before(befores, C: tl.constexpr):
    """exp of the sum of the log decays after token j and before token i, 0 for j >= i: `[i, j]`, of `gates_before`."""
    i = tl.arange(0, C)
    between = i[:, None] > i[None, :] + 1
    sums = tl.cumsum(tl.where(between, befores[:, None], 0.0), 0)
    return tl.where(i[:, None] > i[None, :], tl.exp(sums), 0.0)


@triton.jit
def meets(level, C: tl.constexpr, AXIS: tl.constexpr):
    """Which pairs of tokens meet at a level: `[i, j]`, i of a right and j of a left half of one block; `[j, i]` for
    AXIS = 1."""
    i = tl.arange(0, C)
    right, half = (i >> level) & 1 == 1, i >> level
    if AXIS == 0:
        begin, end = (half - 1) << level, tl.where(right, half << level, 0)
    else:
        begin, end = (half + 1) << level, tl.where(right, 0, (half + 2) << level)
    return within(begin, end, C)
