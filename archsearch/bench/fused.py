"""The core's small ops around a mixer as `archsearch bench kernels` measures them: each one pass over memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs
from archsearch.bench.results.work import Shape, Work
from archsearch.ops.bounds import UNIT_EPS

TAPS = (4, 16)
_LARGE = Shape(batch=1, tokens=32768, heads=16, kv_heads=1, head_dim=128)
_SMALL = Shape(batch=2, tokens=40, heads=3, kv_heads=1, head_dim=16)
_GRIDS = {FULL: [_LARGE], QUICK: [], TINY: [_SMALL]}
"""One group of heads, so that the comparison is over all of them."""


def fused_ops() -> Iterator[BenchOp]:
    """Short convolution with its activation, vectors to unit length, gated RMSNorm, the gate of a decay."""
    for taps in TAPS:
        inputs = partial(_conv_inputs, taps)
        conv = _op("short conv", inputs, _conv, _conv_kernel, table="short_conv", width=taps, reads=1)
        yield replace(conv, sizes={"taps": taps})
    yield _op("unit length", _vectors, _unit, _unit_kernel, table="unit_length", reads=1)
    yield _op("gated norm", _gated_inputs, _gated, _gated_kernel, table="gated_norm", reads=2)
    yield _op("decay gate", _decay_inputs, _decay, _decay_kernel, table="gates", width=1, reads=1, writes=2)


def _op(
    name: str,
    inputs: Callable[[Shape, Draw], dict[str, Tensor]],
    plain: Callable[[Inputs], Outputs],
    kernel: Callable[[Inputs], Outputs],
    *,
    table: str,
    reads: int,
    writes: int = 1,
    width: int | None = None,
) -> BenchOp:
    """Tensors of `[B, T, H D]` in the model's dtype that are read, and that are written (two for one in float32);
    weights count for nothing."""

    def work(shape: Shape, element_bytes: int) -> Work:
        size = float(shape.total * shape.heads * shape.head_dim * element_bytes)
        return Work(flops=0.0, read_bytes=reads * size, written_bytes=writes * size)

    return BenchOp(
        name=name,
        grids=_GRIDS,
        inputs=inputs,
        reference=plain,
        work=work,
        table=table,
        width=width,
        head_axes={},
        run=lambda given, impl: (kernel if impl == "triton" else plain)(given),
        trained=("x",),
    )


def _vectors(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    return {"x": draw.normal(shape.batch, shape.tokens, shape.heads, shape.head_dim)}


def _conv_inputs(taps: int, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    channels = shape.heads * shape.head_dim
    return {"x": draw.normal(shape.batch, shape.tokens, channels), "weight": draw.uniform(taps, channels, low=-1.0)}


def _gated_inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    gate = draw.normal(shape.batch, shape.tokens, shape.heads * shape.head_dim)
    return {**_vectors(shape, draw), "weight": draw.uniform(shape.head_dim, low=0.5), "gate": gate}


def _decay_inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    channels = shape.heads * shape.head_dim
    x = draw.normal(shape.batch, shape.tokens, channels)
    return {"x": x, "bias": draw.uniform(channels, low=-1.0), "rate": draw.uniform(shape.heads)}


def _conv(inputs: Inputs) -> Outputs:
    x, weight = inputs["x"], inputs["weight"]
    out = x * weight[0]
    for shift in range(1, len(weight)):
        out = out + F.pad(x[:, :-shift] * weight[shift], (0, 0, shift, 0))
    return (F.silu(out),)


def _conv_kernel(inputs: Inputs) -> Outputs:
    from archsearch.ops.triton.launch.conv import conv

    return (conv(inputs["x"], inputs["weight"], None, None, "silu"),)


def _unit(inputs: Inputs) -> Outputs:
    x = inputs["x"]
    return (x * (x.float().square().sum(-1, keepdim=True) + UNIT_EPS).rsqrt().to(x.dtype),)


def _unit_kernel(inputs: Inputs) -> Outputs:
    from archsearch.ops.triton.launch.norms import unit_length

    return (unit_length(inputs["x"])[0],)


def _gated(inputs: Inputs) -> Outputs:
    x, weight = inputs["x"], inputs["weight"]
    return (F.rms_norm(x, weight.shape, weight.to(x.dtype), 1e-6).flatten(-2) * F.silu(inputs["gate"]),)


def _gated_kernel(inputs: Inputs) -> Outputs:
    from archsearch.ops.triton.launch.norms import gated_norm

    return (gated_norm(inputs["x"], inputs["weight"], inputs["gate"], "silu", 1e-6),)


def _decay(inputs: Inputs) -> Outputs:
    step = F.softplus(inputs["x"].float() + inputs["bias"])
    rates = inputs["rate"].exp().repeat_interleave(step.shape[-1] // inputs["rate"].shape[0])
    return (-rates * step,)


def _decay_kernel(inputs: Inputs) -> Outputs:
    from archsearch.ops.triton.launch.gates import gate

    return (gate(inputs["x"], inputs["bias"], inputs["rate"], "rate", 1.0, False)[0],)
