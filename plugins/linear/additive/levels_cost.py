"""Operations, rows and traffic of a hierarchy of states; arithmetic only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from archsearch.mixer import Flops, ModelShape, StateTensor, Traffic

if TYPE_CHECKING:
    from ..options import LinearOptions


def rows_of(recurrent: StateTensor) -> StateTensor:
    """The state of all tokens as a hierarchy: one row for each bit of their count."""
    return replace(recurrent, base=0, log2=True)


def held(context: int) -> float:
    """Rows that so many tokens fill, in the mean over counts of as many bits."""
    return (context.bit_length() + 1) / 2 if context else 0.0


def step_flops(options: LinearOptions, shape: ModelShape, context: int) -> Flops:
    """One decoded token of one head: every row decays, is (for the delta rule) recalled and corrected, and read."""
    _, key_dim, value_dim = options.state_dims(shape)
    cells, rows = float(key_dim * value_dim), held(context - 1)
    delta = options.update == "delta"
    decays = {"none": 0, "constant": 0, "head": 1, "channel": key_dim}[options.decay]
    elementwise = cells * rows * (1 + (options.decay != "none")) + 2 * value_dim * (rows + 1)
    matmul = 2 * cells * (rows + 2) + 4 * cells * rows * delta
    return Flops(matmul=matmul, elementwise=elementwise, exp=float(decays))


def more_chunk_flops(options: LinearOptions, shape: ModelShape, context: int, *, chunk: int, last: bool) -> Flops:
    """A sequence of one head beyond what one state needs: more states to read and to carry on, and weights; ``last``:
    with the states after it."""
    _, key_dim, value_dim = options.state_dims(shape)
    chunks, rest = -(-context // chunk), (context - 1) % chunk + 1
    carried = _bits_below(chunks) - (chunks - 1)  # states at the starts of chunks, beyond one for each but the first
    tokens = carried * chunk - max(0, (chunks - 1).bit_count() - 1) * (chunk - rest)
    delta = options.update == "delta"
    matmul = 2.0 * key_dim * value_dim * tokens * (3 if delta else 1)
    pairs = context // chunk * chunk * (chunk + 1) / 2 + context % chunk * (context % chunk + 1) / 2
    if delta:  # what is read of values by keys, and of what is recalled; values are written where a chunk follows
        full, short = divmod(context, chunk)
        first = min(context, chunk)
        matmul += (full * chunk**3 + short**3) / 3 + 2.0 * key_dim * (pairs - first * (first + 1) / 2)
        matmul -= 0 if last else value_dim * rest * (rest + 1)
    return Flops(matmul=matmul, elementwise=pairs + 2.0 * value_dim * tokens)


def traffic(options: LinearOptions, rows: StateTensor, context: int) -> Traffic:
    """Rows of one decoded token: those that are held are read, and written where they decay or are corrected."""
    changes = options.decay != "none" or options.update == "delta"
    size = float(rows.row_bytes)
    return Traffic(
        read_bytes=size * held(context - 1),
        written_bytes=size * (held(context) if changes else 1.0),
        peak_read_bytes=size * (context - 1).bit_length(),
        peak_written_bytes=size * (context.bit_length() if changes else 1),
    )


def _bits_below(count: int) -> int:
    """Bits that are set in all numbers below `count`."""
    total = 0
    for bit in range(count.bit_length()):
        period = 2 << bit
        total += count // period * (1 << bit) + max(0, count % period - (1 << bit))
    return total
