"""Costs of attention whose cache several layers read: keys, values and their bytes are the writer's alone."""

from __future__ import annotations

from archsearch.attention_cost import (
    kv_traffic,
    projection_flops,
    projection_params,
    rotary_dim,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Flops, ModelShape, Phase, Traffic

from .options import SharedOptions


def writer_params(options: SharedOptions, shape: ModelShape) -> int:
    """All projections, and the norms of queries and keys, and of what keys are made from."""
    return projection_params(shape, qk_norm=options.qk_norm) + (shape.d_model if options.kv_norm else 0)


def reader_params(options: SharedOptions, shape: ModelShape) -> int:
    """Projections of queries and outputs, and the norm of queries."""
    return 2 * shape.d_model * shape.n_heads * shape.head_dim + (shape.head_dim if options.qk_norm else 0)


def writer_token(options: SharedOptions, shape: ModelShape) -> Flops:
    """Of one token outside the softmax; a number that is normed takes 4."""
    normed = shape.d_model * options.kv_norm + shape.n_kv_heads * shape.head_dim * options.v_norm
    return projection_flops(shape, rope=options.rope, qk_norm=options.qk_norm) + Flops(elementwise=4.0 * normed)


def reader_token(options: SharedOptions, shape: ModelShape) -> Flops:
    """Of one token outside the softmax: 3 an element that is rotated, 4 one that is normed."""
    width = shape.n_heads * shape.head_dim
    turned = shape.n_heads * rotary_dim(options.rope, shape.head_dim)
    return Flops(matmul=4.0 * shape.d_model * width, elementwise=3.0 * turned + (4.0 * width if options.qk_norm else 0))


def attention_flops(options: SharedOptions, shape: ModelShape, token: Flops, phase: Phase, context: int) -> Flops:
    """`token` and the softmax over what is seen."""
    if phase == "decode":
        return token + softmax_flops(rows(options, context), shape)
    return token * context + softmax_flops(visible_pairs(context, options.window or None), shape)


def reader_traffic(options: SharedOptions, shape: ModelShape, context: int) -> Traffic:
    """The writer's rows are read, and none is written."""
    return Traffic(read_bytes=kv_traffic(rows(options, context), shape).read_bytes)


def rows(options: SharedOptions, context: int) -> int:
    """Tokens that the last of `context` sees."""
    return min(context, options.window) if options.window else context
