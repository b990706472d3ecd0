"""What is compiled ahead of time: the kernels of native sparse attention, as the launches have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archsearch.kernels import Build
from archsearch.ops.triton import block_rows, blocks, chosen, parts, ranges
from archsearch.ops.triton.attention_builds import Builder, builders
from archsearch.ops.triton.gradients import ranges as range_gradients

from .choice import choose_important
from .selection import selection_forward, selection_grad_query
from .step import attend_step, choose_step, means_step, merge_step
from .table import SPLITS, TABLE

_HEADS, _KEY_HEADS, _SLOTS = 64, 4, 15


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of an architecture, for 16 query heads a key head and 16 blocks."""
    for row in builders(TABLE, arch, heads=_HEADS, key_heads=_KEY_HEADS):
        yield from _forward(row)
        yield from _backward(row)
        yield from _step(row)


def _forward(row: Builder) -> Iterator[Build]:
    yield row.build("means", blocks.mean_rows)
    yield row.build("means_forward", ranges.range_forward, SLOTS=0)
    yield row.build("choose", choose_important, SLOTS=_SLOTS, SLOTS_UP=16)
    yield row.build("selection_forward", selection_forward, SLOTS=_SLOTS, SHARE=16)
    yield row.build("window_forward", ranges.range_forward, SLOTS=0)


def _backward(row: Builder) -> Iterator[Build]:
    group = _HEADS // _KEY_HEADS
    wide = {"dq": "*fp32", "parts": "*fp32"}
    yield row.build("inner", block_rows.inner_products)
    yield row.build("window_grad_query", range_gradients.range_grad_query, types=wide, SLOTS=0, ADD=False)
    yield row.build("means_grad_query", range_gradients.range_grad_query, types=wide, SLOTS=0, ADD=True)
    yield row.build("selection_grad_query", selection_grad_query, types=wide, SLOTS=_SLOTS, SHARE=16)
    yield row.build("window_grad_keys", range_gradients.range_grad_keys, EACH=group, ADD=False)
    yield row.build("own_grad_keys", range_gradients.range_grad_keys, EACH=group, ADD=True)
    yield row.build("means_grad_keys", range_gradients.range_grad_keys, EACH=1, ADD=False)
    yield row.build("past_grad_keys", chosen.chosen_grad_keys, CHOOSERS=_KEY_HEADS, SHARE=16, SLOTS=_SLOTS)


def _step(row: Builder) -> Iterator[Build]:
    types = {"parts": "*fp32", "scores": "*fp32", "mean_parts": "*fp32", "mean_norms": "*fp32", "ranks": "*i64"}
    types |= {"gates": "*bf16"}
    yield row.build("means_step", means_step, types=types, SHARE=16)
    for splits in SPLITS:
        choice: dict[str, Any] = {"BEST": _SLOTS - 1, "BEST_UP": 16, "SPLITS": splits, "SHARE": 16}
        variant = f"splits-{splits}"
        yield row.build("choose_step", choose_step, variant=variant, types=types, **choice)
        yield row.build("attend_step", attend_step, variant=variant, types=types, TOP=_SLOTS + 1, **choice)
        yield row.build("merge_step", merge_step, variant=variant, types=types, SPLITS=splits)
    yield row.build("mean_step", parts.mean_of_last)
