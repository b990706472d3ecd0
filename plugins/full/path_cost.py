"""Costs of PaTH attention beside those of softmax: reflections, and keys that are moved."""

from __future__ import annotations

from archsearch.attention_cost import kv_heads_of
from archsearch.mixer import Flops, ModelShape, StateTensor, Traffic

from .options import FullOptions

BLOCK = 64
"""Tokens whose reflections are taken together, as in the op."""


def reflection_params(options: FullOptions, shape: ModelShape) -> int:
    """Projections to reflections, through a few numbers perhaps, the convolution, and strengths with a bias."""
    key_heads = kv_heads_of(options.n_kv_heads, shape)
    conv = options.reflection_conv * key_heads * shape.head_dim if options.reflection_conv > 1 else 0
    return _projected(options, shape) + conv + key_heads


def path_token_flops(options: FullOptions, shape: ModelShape) -> Flops:
    """One token's reflections: projections, convolution, unit length (4 a channel), strengths."""
    key_heads = float(kv_heads_of(options.n_kv_heads, shape))
    width = key_heads * shape.head_dim
    conv = 2.0 * options.reflection_conv if options.reflection_conv > 1 else 0.0
    return Flops(matmul=2.0 * _projected(options, shape), elementwise=(conv + 4) * width + 3 * key_heads, exp=key_heads)


def path_flops(options: FullOptions, shape: ModelShape, *, decoding: bool, context: int) -> Flops:
    """Blocks of C tokens by themselves, and earlier keys moved by each: by two factors of C D, or one matrix of D^2.

    The half of a square is counted where it is triangular, a third of a cube.
    """
    heads, key_heads, width = float(shape.n_heads), float(kv_heads_of(options.n_kv_heads, shape)), shape.head_dim
    if decoding:
        return Flops(matmul=_block(heads, key_heads, 1, width) + _moving(key_heads, context - 1, 1, width))
    size = min(BLOCK, context)
    blocks, rest = divmod(context, size)
    done = blocks * _block(heads, key_heads, size, width)
    done += sum(_moving(key_heads, size * index, size, width) for index in range(1, blocks))
    if rest:
        done += _block(heads, key_heads, rest, width) + _moving(key_heads, blocks * size, size, width)
    return Flops(matmul=done)


def path_state(options: FullOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """What the convolution looks back on."""
    if options.reflection_conv == 1:
        return ()
    channels = kv_heads_of(options.n_kv_heads, shape) * shape.head_dim
    rows = options.reflection_conv - 1
    return (StateTensor(name="conv", row_shape=(channels,), dtype=shape.dtype, role="conv", base=rows),)


def path_traffic(options: FullOptions, shape: ModelShape, context: int) -> Traffic:
    """Earlier keys are written again, as the new token has moved them; the tail of the convolution is, too."""
    row = float(kv_heads_of(options.n_kv_heads, shape) * shape.head_dim * shape.dtype_bytes)
    tail = (options.reflection_conv - 1) * row
    return Traffic(read_bytes=tail, written_bytes=(context - 1) * row + tail)


def _projected(options: FullOptions, shape: ModelShape) -> int:
    key_heads = kv_heads_of(options.n_kv_heads, shape)
    width, rank = key_heads * shape.head_dim, options.reflection_rank
    reflected = rank * (shape.d_model + width) if rank else shape.d_model * width
    return reflected + shape.d_model * key_heads


def _block(heads: float, key_heads: float, size: int, width: int) -> float:
    """Products of one block: q and k with w, w with w, the triangular system, what moves queries and keys."""
    square, cube = float(size * size * width), size**3 / 3
    queries = heads * (2 * square + cube)
    keys = key_heads * (4 * square + 2 * cube)
    return queries + keys


def _moving(key_heads: float, rows: float, size: int, width: int) -> float:
    """Earlier keys past a block: by its two factors, or by their product."""
    return key_heads * (4.0 * size * width * rows if 2 * size <= width else 2.0 * width * width * (rows + size))
