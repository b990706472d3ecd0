"""Attention over the means of complete blocks of four, and over the own block token by token: a block mixer that pads
sequences to a multiple of four inside (the compression branch of NSA, arXiv 2502.11089, section 3, with means for its
compressor).

    n = floor(t / 4)
    o_t = softmax(q_t [K'_0 .. K'_{n-1}; k_4n .. k_t]^T / sqrt(D)) [V'_0 .. V'_{n-1}; v_4n .. v_t]
    K'_i = mean(k_4i .. k_4i+3), V'_i likewise

The state holds the open block and the means; every fourth token closes a block: it writes a mean beside its own row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archsearch import MixerOptions, MixerPlugin, ModelShape, StateTensor, hookimpl
from archsearch.attention_cost import projection_flops, projection_params, softmax_flops
from archsearch.mixer import Flops, LayerInfo, Phase, Traffic

if TYPE_CHECKING:
    from .layer import BlockMeans

BLOCK = 4


class Pad4Options(MixerOptions):
    """None."""


class Pad4Plugin(MixerPlugin[Pad4Options]):
    """Softmax attention over means of earlier blocks and the tokens of the own."""

    name = "field-pad4"
    api_version = 2
    family = "sparse"
    summary = "softmax attention over the means of blocks of four, and the tokens of the own block"
    options = Pad4Options

    def params(self, options: Pad4Options, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape)

    def flops(self, options: Pad4Options, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        width = shape.n_kv_heads * shape.head_dim
        token = projection_flops(shape, rope=1.0) + Flops(elementwise=2.0 * width)  # its share of the means
        if phase == "decode":
            return token + softmax_flops(_rows_before(context - 1) + 1, shape)
        blocks, rest = divmod(context, BLOCK)
        means = BLOCK * blocks * (blocks - 1) / 2 + rest * blocks
        own = blocks * BLOCK * (BLOCK + 1) / 2 + rest * (rest + 1) / 2
        return token * context + softmax_flops(means + own, shape)

    def traffic(self, options: Pad4Options, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        """The mean over the tokens of the own block, complete or not yet; the most up to here, which bounds it."""
        row = 2.0 * shape.n_kv_heads * shape.head_dim * shape.dtype_bytes
        block, inside = divmod(context - 1, BLOCK)
        before = _rows_before(BLOCK * block - 1) if block else 0  # what the last token of the block before reads
        most = max(before, block + inside)
        closes = context >= BLOCK
        return Traffic(
            read_bytes=row * min(block + (BLOCK - 1) / 2, most),
            written_bytes=row * (1 + 1 / BLOCK if closes else 1),
            peak_read_bytes=row * most,
            peak_written_bytes=row * (2 if closes else 1),
        )

    def state(self, options: Pad4Options, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        row = (shape.n_kv_heads, shape.head_dim)
        open_rows = tuple(
            StateTensor(name=f"open_{name}", row_shape=row, dtype=shape.dtype, role="kv", stride=1, cap=BLOCK)
            for name in "kv"
        )
        means = tuple(
            StateTensor(name=f"mean_{name}", row_shape=row, dtype=shape.dtype, role="summary", stride=BLOCK)
            for name in "kv"
        )
        return open_rows + means

    def build(self, options: Pad4Options, shape: ModelShape, layer: LayerInfo) -> BlockMeans:
        from .layer import BlockMeans

        return BlockMeans(self, options, shape, layer)


def _rows_before(token: int) -> int:
    """Rows that the token of that index, counted from 0, reads: means of earlier blocks, tokens of its own."""
    return token // BLOCK + token % BLOCK


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-pad4"."""
    register(Pad4Plugin())
