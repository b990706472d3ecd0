"""Attention over latents as `archsearch bench kernels` measures it: one token over a cache, absorbed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs
from archsearch.bench.results.work import Shape, Work

from .ops import latent_attention_absorbed

RANK, SHARED = 512, 64
"""Of DeepSeek-V2 and V3 (arXiv 2405.04434, section 3.1.2)."""


def bench_ops() -> Iterator[BenchOp]:
    """Latents of 512 beside a shared key of 64, on the smallest grid of 16 beside 4."""
    full = [_shape(1, 131072), _shape(64, 8192), _shape(1, 8192)]
    for rank, shared, grids in (
        (RANK, SHARED, {FULL: full, QUICK: full[:1], TINY: []}),
        (16, 4, {FULL: [], QUICK: [], TINY: [Shape(batch=2, tokens=40, heads=4, kv_heads=1, head_dim=8)]}),
    ):
        yield BenchOp(
            name="latent",
            step=True,
            sizes={"kv_rank": rank, "shared_dim": shared},
            grids=grids,
            inputs=partial(_inputs, rank, shared),
            run=_run,
            table="latent_attention_absorbed",
            width=rank,
            reference=partial(_run, impl="reference"),
            work=partial(latent_step_work, rank, shared),
            head_axes={"q": 1, "up": 0},
        )


def latent_step_work(rank: int, shared: int, shape: Shape, element_bytes: int) -> Work:
    """Each row once for all heads; the weights that queries and outputs absorb, once for the batch."""
    absorbed = shape.heads * shape.head_dim * rank
    scores = shape.batch * shape.tokens * shape.heads
    asked, given = (shape.batch * shape.heads * width for width in (shape.head_dim + shared, shape.head_dim))
    return Work(
        flops=2.0 * scores * (2 * rank + shared) + 4.0 * shape.batch * absorbed,
        read_bytes=float(element_bytes * (shape.total * (rank + shared) + 2 * absorbed + asked)),
        written_bytes=float(element_bytes * given),
    )


def _shape(batch: int, tokens: int) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=128, kv_heads=1, head_dim=128)


def _inputs(rank: int, shared: int, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    return {
        "q": draw.normal(shape.batch, shape.heads, shape.head_dim + shared),
        "rows": draw.normal(shape.batch, shape.tokens, rank + shared),
        "up": draw.normal(shape.heads, 2, shape.head_dim, rank) * rank**-0.5,
        "positions": torch.full((shape.batch, 1), shape.tokens - 1, device=draw.device),
    }


def _run(inputs: Inputs, impl: str) -> Outputs:
    q, rows, up, positions = (inputs[name] for name in ("q", "rows", "up", "positions"))
    return (latent_attention_absorbed(q[:, None], rows, up, positions, impl=impl)[:, 0],)
