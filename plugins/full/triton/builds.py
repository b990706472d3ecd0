"""What full attention compiles ahead of time: the kernels of packed sequences and ragged lengths, and the step's."""

from __future__ import annotations

from collections.abc import Iterator

from archsearch.kernels import Build
from archsearch.ops.triton import block_rows, ranges
from archsearch.ops.triton.attention_builds import builders
from archsearch.ops.triton.gradients import ranges as range_gradients
from archsearch.ops.triton.step import step_builds

from .table import TABLE

_HEADS, _GROUP = 16, 4


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of an architecture in bfloat16, for 16 heads; the gradient of keys also for 4
    key heads."""
    types = {"dq": "*bf16", "dk": "*bf16", "dv": "*bf16"}
    for row in builders(TABLE, arch, heads=_HEADS, key_heads=_HEADS):
        yield row.build("forward", ranges.range_forward, SLOTS=0)
        yield row.build("inner", block_rows.inner_products)
        yield row.build("grad_query", range_gradients.range_grad_query, types=types, SLOTS=0, ADD=False)
        yield row.build("grad_keys", range_gradients.range_grad_keys, types=types, EACH=1, ADD=False)
    for row in builders(TABLE, arch, heads=_HEADS, key_heads=_HEADS // _GROUP):
        yield row.build(
            "grad_keys", range_gradients.range_grad_keys, variant="grouped", types=types, EACH=_GROUP, ADD=False
        )
    for key in TABLE.rows:
        if key[0] == arch:
            yield from step_builds(TABLE, key)
