"""What is compiled ahead of time: the kernels of attention over latents, as the launch has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from archsearch.kernels import Build, Config
from archsearch.ops.triton.decode import merge_splits
from archsearch.ops.triton.step import QUERY_TILES, query_tiles

from .step import latent_splits
from .table import SHARED, TABLE


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of an architecture in bfloat16: for few and many heads, whole sequences and split
    ones, with a shared key and without."""
    for key in TABLE.rows:
        if key[0] == arch:
            rank, row = key[1], TABLE.row(key)
            for block_g in query_tiles(row["decode"]):
                for merged in (True, False):
                    yield _decode(row["decode"], rank, block_g, merged, SHARED)
            yield _decode(row["decode"], rank, QUERY_TILES[0], True, 0)
            yield _merge(row["merge"], rank, row["decode"].tiles["N"])


def _decode(config: Config, rank: int, block_g: int, merged: bool, shared: int) -> Build:
    parts = "*fp32" if merged else "*bf16"
    types = {"q": "*bf16", "rows": "*bf16", "lengths": "*i64", "o": "*bf16", "partial": parts, "lse": parts}
    constants: dict[str, Any] = {
        "D": rank + shared,
        "DV": rank,
        "BLOCK_D": rank,
        "BLOCK_K": SHARED,
        "BLOCK_G": block_g,
        "BLOCK_N": config.tiles["N"],
        "MERGED": merged,
        "PRECISION": "tf32",
    }
    variant = f"{'split' if merged else 'whole'}-heads-{block_g}" + ("" if shared else "-alone")
    return _build("decode", latent_splits, types, constants, config, rank, variant)


def _merge(config: Config, rank: int, block_n: int) -> Build:
    types = {"partial": "*fp32", "lse": "*fp32", "lengths": "*i64", "o": "*bf16"}
    constants: dict[str, Any] = {"DV": rank, "BLOCK_D": rank, "BLOCK_S": config.tiles["S"], "BLOCK_N": block_n}
    return _build("merge", merge_splits, types, constants, config, rank, "")


def _build(
    name: str, fn: Any, types: dict[str, str], constants: dict[str, Any], config: Config, rank: int, variant: str
) -> Build:
    scalars = {"scale": "fp32"}
    signature = {arg: {**types, **scalars}.get(arg, "i32") for arg in fn.arg_names if arg not in constants}
    return Build(
        op=TABLE.op,
        name=name,
        fn=fn,
        signature=signature,
        constexprs=constants,
        config=config,
        head_dim=rank,
        variant=variant,
    )
