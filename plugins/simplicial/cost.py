"""Costs of 2-simplicial attention: triples of a query and two keys in their windows."""

from __future__ import annotations

from archsearch.attention_cost import kv_heads_of, kv_traffic, projection_flops, projection_params, rotary_dim
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .options import SimplicialOptions


def simplicial_params(options: SimplicialOptions, shape: ModelShape) -> int:
    """Projections of a query, two keys and two values, and back."""
    return projection_params(shape, qk_norm=options.qk_norm) + _second(shape)


def simplicial_flops(options: SimplicialOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """A triple takes 4 D of matrix product a head, 4 elementwise operations and an exponential; a query and a second
    key 3 D elementwise. By determinants of groups of three channels scores take 2 for each channel of a group, and a
    query and a second key 9 a group in the place of D."""
    turned = (shape.n_heads + 2 * kv_heads_of(0, shape)) * rotary_dim(options.rope, 2 * (shape.head_dim // 3))
    token = projection_flops(shape, qk_norm=options.qk_norm)
    token += Flops(matmul=2.0 * _second(shape), elementwise=3.0 * turned)
    if phase == "decode":
        first, second = min(context, options.window), min(context, options.second_window)
        return token + _core(options, shape, float(first * second), float(second))
    triples = sum(
        min(seen, options.window) * min(seen, options.second_window)
        for seen in range(1, min(context, _longest(options)) + 1)
    )
    triples += max(0, context - _longest(options)) * options.window * options.second_window
    low = min(context, options.second_window)
    pairs = low * (low + 1) / 2 + (context - low) * options.second_window
    return token * context + _core(options, shape, float(triples), pairs)


def simplicial_state(options: SimplicialOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Rings of the windows: a first key and value row for each token of one, a second for each of the other."""
    row = (kv_heads_of(0, shape), shape.head_dim)
    windows = {"k": options.window, "v": options.window, "k2": options.second_window, "v2": options.second_window}
    return tuple(
        StateTensor(name=name, row_shape=row, dtype=shape.dtype, role="kv", stride=1, cap=cap)
        for name, cap in windows.items()
    )


def simplicial_traffic(options: SimplicialOptions, shape: ModelShape, *, context: int) -> Traffic:
    """Both windows, and the rows of the new token."""
    first, second = (min(context, window) for window in (options.window, options.second_window))
    return kv_traffic(first, shape) + kv_traffic(second, shape)


def _longest(options: SimplicialOptions) -> int:
    return max(options.window, options.second_window)


def _second(shape: ModelShape) -> int:
    return 2 * shape.d_model * kv_heads_of(0, shape) * shape.head_dim


def _core(options: SimplicialOptions, shape: ModelShape, triples: float, pairs: float) -> Flops:
    width, heads, groups = shape.head_dim, shape.n_heads, shape.head_dim // 3
    scored, paired = (3 * groups, 9 * groups) if options.score == "determinant" else (width, width)
    return Flops(
        matmul=2.0 * (scored + width) * triples * heads,
        elementwise=(4.0 * triples + (paired + 2.0 * width) * pairs) * heads,
        exp=triples * heads,
    )
