"""What is compiled ahead of time: the kernels of mixture of block attention, as `launch` launches them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archsearch.kernels import Build
from archsearch.ops.triton import block_rows, blocks, chosen, parts, ranges
from archsearch.ops.triton.attention_builds import builders
from archsearch.ops.triton.gradients import ranges as range_gradients

from .choice import choose_past
from .step import attend_step, rank_step
from .table import SPLITS, TABLE

_HEADS, _SLOTS = 16, 2


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of an architecture, for 16 heads that choose two past blocks each."""
    for row in builders(TABLE, arch, heads=_HEADS, key_heads=_HEADS):
        yield row.build("means", blocks.mean_rows)
        yield row.build("choose", choose_past, SLOTS=_SLOTS, SLOTS_UP=_SLOTS)
        yield row.build("past_forward", chosen.chosen_forward, SLOTS=_SLOTS)
        yield row.build("own_forward", ranges.range_forward, SLOTS=_SLOTS)
        yield row.build("inner", block_rows.inner_products)
        yield row.build("own_grad_keys", range_gradients.range_grad_keys, EACH=1, ADD=False)
        yield row.build("past_grad_keys", chosen.chosen_grad_keys, CHOOSERS=_HEADS, SHARE=1, SLOTS=_SLOTS)
        yield row.build("past_grad_query", chosen.chosen_grad_query, SLOTS=_SLOTS)
        yield row.build("own_grad_query", range_gradients.range_grad_query, SLOTS=_SLOTS, ADD=False)
        for splits in SPLITS:
            step: dict[str, Any] = {"SLOTS": _SLOTS, "SLOTS_UP": _SLOTS, "SPLITS": splits}
            types, variant = {"ranks": "*i64", "parts": "*fp32"}, f"splits-{splits}"
            yield row.build("rank_step", rank_step, variant=variant, types=types, **step)
            yield row.build("attend_step", attend_step, variant=variant, types=types, **step)
        yield row.build("merge_step", parts.merge_parts, types={"parts": "*fp32"})
        yield row.build("mean_step", parts.mean_of_last)
