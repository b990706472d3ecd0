"""What is compiled ahead of time: the kernels of the choice and of attention over it, as they are launched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archsearch.kernels import Build
from archsearch.ops.triton import block_rows, index_choice, listed
from archsearch.ops.triton.attention_builds import Builder, builders
from archsearch.ops.triton.gradients.listed import listed_grad_keys

from .attention import MOST_HEADS
from .table import CHOICE, SMALL, TABLE

_HEADS, _KEY_HEADS, _INDEX_HEADS = 64, 4, 32
_TYPES = {
    **dict.fromkeys(("queries", "keys", "weights"), "*bf16"),
    **dict.fromkeys(("norms", "scores"), "*fp32"),
    "positions": "*i64",
    "counts": "*i32",
}


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of an architecture: one choice for all, of 16 query heads a key head and of 64."""
    for row in builders(TABLE, arch, heads=_HEADS, key_heads=_KEY_HEADS):
        yield from _attention(row, "")
        yield from _keys(row)
    for row in builders(TABLE, arch, heads=_HEADS, key_heads=1):
        yield from _attention(row, f"heads-{MOST_HEADS}")
    for row in builders(CHOICE, arch, heads=_INDEX_HEADS, key_heads=1):
        yield from _choice(row)


def _sizes(row: Builder) -> dict[str, Any]:
    share = min(MOST_HEADS, max(SMALL, row.heads // row.key_heads))
    return {"CHOOSERS": 1, "LEADS": row.key_heads, "SHARE": share, "DV": row.head_dim}


def _attention(row: Builder, variant: str) -> Iterator[Build]:
    yield row.build("forward", listed.listed_forward, variant=variant, types=_TYPES, **_sizes(row))
    yield row.build("grad_query", listed.listed_grad_query, variant=variant, types=_TYPES, **_sizes(row))


def _keys(row: Builder) -> Iterator[Build]:
    types = {**_TYPES, "dk": "*bf16", "dv": "*bf16"}
    for name in ("grad_keys", "grad_few"):
        yield row.build(name, listed_grad_keys, types=types, **_sizes(row))
    yield row.build("inner", block_rows.inner_products)
    split = {**_TYPES, "o": "*fp32"}
    yield row.build("forward", listed.listed_forward, variant="split", types=split, **_sizes(row))
    yield row.build("merge", listed.merge_listed, types={"parts": "*fp32"})


def _choice(row: Builder) -> Iterator[Build]:
    """Scores of tokens, or of blocks by one key each, by heads together and apart, and of blocks of 16 by their best
    key."""
    tile = row.row["scores"].tiles["N"]
    for variant, choosers, weighted, lanes in (
        ("weighted", 1, True, tile),
        ("summed", 1, False, tile),
        ("apart", _INDEX_HEADS, False, tile),
        ("apart blocks", _INDEX_HEADS, False, tile // 16),
    ):
        flags = {"SUMMED": choosers == 1, "WEIGHTED": weighted, "LANES": lanes, "CHOOSERS": choosers}
        yield row.build("scores", index_choice.index_scores, variant=variant, types=_TYPES, **flags)
    yield row.build("best", index_choice.choose_best, types=_TYPES, CHOOSERS=1)
