"""Short causal depthwise convolution and its activation: whole sequences, their gradients, and one decoded token."""
# mypy: ignore-errors

import triton
import triton.language as tl

from archsearch.ops.triton.activations import activate, slope


@triton.jit
def _tap(
    x,
    weight,
    tail,
    row,
    place,
    column,
    shift,
    tokens,
    channels,
    width,
    x_token,
    TAIL: tl.constexpr,
    PACKED: tl.constexpr,
):
    """The weight `[C]` of one shift and the inputs `[T, C]` that many tokens before each row, in float32."""
    used = (column < channels) & (shift < width)
    seen = (row >= shift) & (row < tokens)
    if PACKED:
        seen = seen & (place >= shift)
    found = tl.load(weight + shift * channels + column, mask=used, other=0.0).to(tl.float32)
    earlier = (row - shift).to(tl.int64)
    taken = tl.load(x + earlier[:, None] * x_token + column[None, :], mask=seen[:, None] & used[None, :], other=0.0)
    taken = taken.to(tl.float32)
    if TAIL:
        before = (row < shift) & (row < tokens)
        kept = tail + (earlier + width - 1)[:, None] * channels + column[None, :]
        taken += tl.load(kept, mask=before[:, None] & used[None, :], other=0.0).to(tl.float32)
    return found, taken


@triton.jit
def _sum(
    x,
    weight,
    tail,
    row,
    place,
    column,
    tokens,
    channels,
    width,
    x_token,
    TAIL: tl.constexpr,
    PACKED: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The convolution `[T, C]` before its activation. Few taps are unrolled, so that their loads overlap."""
    total = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    if TAPS <= 4:
        for shift in tl.static_range(TAPS):
            found, taken = _tap(
                x, weight, tail, row, place, column, shift, tokens, channels, width, x_token, TAIL, PACKED
            )
            total += found[None, :] * taken
    else:
        for shift in range(width):
            found, taken = _tap(
                x, weight, tail, row, place, column, shift, tokens, channels, width, x_token, TAIL, PACKED
            )
            total += found[None, :] * taken
    return total


_SIZES = ["tokens", "channels", "width", "x_batch", "x_token", "position_batch"]


@triton.jit(do_not_specialize=_SIZES)
def conv_forward(
    x,
    weight,
    tail,
    positions,
    y,
    tokens,
    channels,
    width,
    x_batch,
    x_token,
    position_batch,
    ACTIVATION: tl.constexpr,
    TAIL: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: BLOCK_T tokens of one sequence, BLOCK_C channels.

    x `[B, T, C]`, dense in its channels; weight `[W, C]`, W at most TAPS; tail `[B, W - 1, C]` if TAIL; positions
    `[B, T]` if PACKED; y `[B, T, C]`. ALIGNED: channels and distances are multiples of 8.
    """
    if ALIGNED:
        channels, x_token, x_batch = channels // 8 * 8, x_token // 8 * 8, x_batch // 8 * 8
    blocks = tl.cdiv(tokens, BLOCK_T)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    place = row
    if PACKED:
        place = tl.load(positions + batch * position_batch + row, mask=row < tokens, other=0)
    total = _sum(
        x + batch * x_batch,
        weight,
        tail + batch * (width - 1) * channels,
        row,
        place,
        column,
        tokens,
        channels,
        width,
        x_token,
        TAIL,
        PACKED,
        TAPS,
        BLOCK_T,
        BLOCK_C,
    )
    out = y + (batch * tokens + row)[:, None] * channels + column[None, :]
    inside = (row < tokens)[:, None] & (column < channels)[None, :]
    tl.store(out, activate(total, ACTIVATION).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _slopes(
    x,
    weight,
    d_y,
    row,
    place,
    column,
    tokens,
    channels,
    width,
    x_token,
    ACTIVATION: tl.constexpr,
    PACKED: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gradients `[T, C]` before the activation, at any rows; zero outside the sequence."""
    inside = ((row >= 0) & (row < tokens))[:, None] & (column < channels)[None, :]
    grad = tl.load(d_y + row.to(tl.int64)[:, None] * channels + column[None, :], mask=inside, other=0.0)
    grad = grad.to(tl.float32)
    if ACTIVATION != "none":
        total = _sum(
            x, weight, x, row, place, column, tokens, channels, width, x_token, False, PACKED, TAPS, BLOCK_T, BLOCK_C
        )
        grad *= slope(total, ACTIVATION)
    return grad


@triton.jit
def _send_back(
    x,
    weight,
    d_y,
    positions,
    row,
    column,
    ahead,
    tokens,
    channels,
    width,
    x_token,
    ACTIVATION: tl.constexpr,
    PACKED: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """What the outputs `ahead` tokens after each row send back to it, `[T, C]`."""
    later = row + ahead
    place = later
    if PACKED:
        place = tl.load(positions + later, mask=later < tokens, other=0)
    grad = _slopes(
        x,
        weight,
        d_y,
        later,
        place,
        column,
        tokens,
        channels,
        width,
        x_token,
        ACTIVATION,
        PACKED,
        TAPS,
        BLOCK_T,
        BLOCK_C,
    )
    used = (column < channels) & (ahead < width)
    found = tl.load(weight + ahead * channels + column, mask=used, other=0.0).to(tl.float32)
    sent = found[None, :] * grad
    if PACKED:
        sent = tl.where((place >= ahead)[:, None], sent, 0.0)
    return sent


@triton.jit(do_not_specialize=_SIZES)
def conv_backward(
    x,
    weight,
    positions,
    d_y,
    d_x,
    d_weight,
    tokens,
    channels,
    width,
    x_batch,
    x_token,
    position_batch,
    ACTIVATION: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: the gradients of BLOCK_T tokens and BLOCK_C channels, what precedes the activation computed anew.

    d_y and d_x `[B, T, C]` dense; d_weight `[programs, W, C]` float32: what each program's tokens add to it.
    """
    if ALIGNED:
        channels, x_token, x_batch = channels // 8 * 8, x_token // 8 * 8, x_batch // 8 * 8
    blocks = tl.cdiv(tokens, BLOCK_T)
    program = tl.program_id(0).to(tl.int64)
    batch = program // blocks
    row = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    x, d_y, d_x = x + batch * x_batch, d_y + batch * tokens * channels, d_x + batch * tokens * channels
    positions += batch * position_batch

    sent = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
    if TAPS <= 4:
        for ahead in tl.static_range(TAPS):
            sent += _send_back(
                x,
                weight,
                d_y,
                positions,
                row,
                column,
                ahead,
                tokens,
                channels,
                width,
                x_token,
                ACTIVATION,
                PACKED,
                TAPS,
                BLOCK_T,
                BLOCK_C,
            )
    else:
        for ahead in range(width):
            sent += _send_back(
                x,
                weight,
                d_y,
                positions,
                row,
                column,
                ahead,
                tokens,
                channels,
                width,
                x_token,
                ACTIVATION,
                PACKED,
                TAPS,
                BLOCK_T,
                BLOCK_C,
            )
    inside = (row < tokens)[:, None] & (column < channels)[None, :]
    tl.store(d_x + row.to(tl.int64)[:, None] * channels + column[None, :], sent.to(d_x.dtype.element_ty), mask=inside)

    place = row
    if PACKED:
        place = tl.load(positions + row, mask=row < tokens, other=0)
    grad = _slopes(
        x, weight, d_y, row, place, column, tokens, channels, width, x_token, ACTIVATION, PACKED, TAPS, BLOCK_T, BLOCK_C
    )
    for shift in range(width):
        _, taken = _tap(x, weight, x, row, place, column, shift, tokens, channels, width, x_token, False, PACKED)
        part = d_weight + (program * width + shift) * channels + column
        tl.store(part, tl.sum(grad * taken, axis=0), mask=column < channels)


@triton.jit(do_not_specialize=["channels", "width", "x_batch"])
def conv_step(
    x,
    weight,
    tail,
    after,
    y,
    channels,
    width,
    x_batch,
    ACTIVATION: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program: one token of one sequence, BLOCK_C channels.

    x `[B, C]`, y `[B, C]`; tail `[B, W - 1, C]`, oldest first, and the one after the token, which may be `tail` itself.
    """
    batch = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < channels
    slot = tl.arange(0, TAPS)
    rows = batch * (width - 1) * channels
    kept = tl.load(
        tail + rows + slot[:, None] * channels + column[None, :],
        mask=(slot < width - 1)[:, None] & inside[None, :],
        other=0.0,
    )
    weights = tl.load(
        weight + (width - 1 - slot)[:, None] * channels + column[None, :],
        mask=(slot < width - 1)[:, None] & inside[None, :],
        other=0.0,
    )
    new = tl.load(x + batch * x_batch + column, mask=inside, other=0.0)
    own = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(kept.to(tl.float32) * weights.to(tl.float32), axis=0) + own * new.to(tl.float32)
    tl.store(y + batch * channels + column, activate(total, ACTIVATION).to(y.dtype.element_ty), mask=inside)
    tl.debug_barrier()
    moved = (slot >= 1) & (slot < width - 1)
    tl.store(
        after + rows + (slot - 1)[:, None] * channels + column[None, :], kept, mask=moved[:, None] & inside[None, :]
    )
    last = after + rows + (width - 2) * channels + column
    tl.store(last, new.to(after.dtype.element_ty), mask=inside & (width > 1))
