"""The choice of an index on Triton kernels: scores of a strip of queries, then the best blocks of each."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.kernels import Key, arch_of
from archsearch.ops.triton.index_choice import choose_best, index_scores
from archsearch.ops.triton.launch.attention import options
from archsearch.ops.triton.operands import precision_of, rows_of, rows_of_cache

from ..options import Rule
from ..products import Products
from .table import CHOICE, LEAST_STRIP, STRIP, STRIP_ELEMENTS

_ALL = 2**31 - 1
"""Blocks that may be chosen where all are."""


def choose(x: Products | None, positions: Tensor, rule: Rule, slots: int) -> tuple[Tensor, Tensor]:
    """Blocks `[B * T, Hc, slots]` int32 that queries at `positions` `[B, T]` see, and how many `[B * T, Hc]`.

    -1 fills what is left of the slots, which must hold ``rule.first + rule.top_k + rule.local + 1`` or every block.
    Queries and keys have one dtype (`Products.alike`). Without `x` all candidates of at most ``rule.top_k`` are taken,
    by one chooser. Nothing waits for the device.
    """
    numbers = [rule.block_size, int(rule.tail), rule.local, rule.first, rule.top_k]
    if x is None:
        made = indexed_choose(None, None, None, positions, False, 1, 1.0, numbers, slots)
    else:
        made = indexed_choose(x.queries, x.keys, x.weights, positions, x.summed, x.units, x.scale, numbers, slots)
    return made[0], made[1]


@torch.library.custom_op("archsearch::indexed_choose", mutates_args=())
def indexed_choose(
    queries: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    positions: Tensor,
    summed: bool,
    units: int,
    scale: float,
    rule: list[int],
    slots: int,
) -> tuple[Tensor, Tensor]:
    """`choose`, with the numbers of its rule in a row: block size, tail, local, first, top_k."""
    (batch, count), device = positions.shape, positions.device
    choosers = 1 if queries is None or summed else queries.shape[2]
    chosen = torch.empty(batch * count, choosers, slots, dtype=torch.int32, device=device)
    counts = torch.empty(batch * count, choosers, dtype=torch.int32, device=device)
    if not chosen.numel():
        return chosen, counts
    blocks = 0 if keys is None else keys.shape[1] // units
    strip = min(count, max(LEAST_STRIP, min(STRIP, STRIP_ELEMENTS // max(1, batch * choosers * blocks))))
    lines = torch.empty(batch, strip, choosers, blocks, dtype=torch.float32, device=device)
    key = CHOICE.key(arch_of(device), 1 if queries is None else queries.shape[3])
    config, positions = CHOICE.row(key), positions.contiguous()
    for start in range(0, count, strip):
        if queries is not None and keys is not None and blocks:
            asked = Products(queries=queries, keys=keys, weights=weights, summed=summed, units=units, scale=scale)
            _score(asked, positions, lines, start, rule, key)
        choose_best[(batch * strip * choosers,)](
            lines,
            positions,
            chosen,
            counts,
            count,
            start,
            strip,
            blocks if queries is not None else _ALL,
            slots,
            *rule,
            CHOOSERS=choosers,
            **options(config["best"]),
        )
    return chosen, counts


@indexed_choose.register_fake
def _(
    queries: Tensor | None,
    keys: Tensor | None,
    weights: Tensor | None,
    positions: Tensor,
    summed: bool,
    units: int,
    scale: float,
    rule: list[int],
    slots: int,
) -> tuple[Tensor, Tensor]:
    choosers = 1 if queries is None or summed else queries.shape[2]
    rows = positions.numel(), choosers
    return tuple(positions.new_empty(size, dtype=torch.int32) for size in ((*rows, slots), rows))  # type: ignore[return-value]


def _score(asked: Products, positions: Tensor, lines: Tensor, start: int, rule: list[int], key: Key) -> None:
    """Writes the scores of a strip of queries, `lines` `[B, strip, Hc, blocks]`."""
    (queries, distance), (keys, *places) = rows_of(asked.queries), rows_of_cache(asked.keys)
    (batch, count, heads, width), (_, strip, choosers, blocks) = queries.shape, lines.shape
    config = CHOICE.row(key, queries.dtype)["scores"]
    lanes = config.tiles["N"] // min(config.tiles["N"], 1 << (asked.units - 1).bit_length())
    programs = -(-blocks // lanes) * -(-strip // config.tiles["M"]) * choosers * batch
    index_scores[(programs,)](
        queries,
        keys,
        queries if asked.weights is None else asked.weights.contiguous(),
        positions,
        lines,
        asked.scale,
        count,
        start,
        strip,
        blocks,
        asked.units,
        *rule[:3],
        distance,
        *places,
        HEADS=heads,
        KV_HEADS=keys.shape[2],
        CHOOSERS=choosers,
        SUMMED=asked.summed,
        WEIGHTED=asked.weights is not None,
        LANES=lanes,
        D=width,
        WIDTH=key[1],
        PRECISION=precision_of(queries),
        **options(config),
    )
