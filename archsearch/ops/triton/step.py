"""Attention of one new token a sequence over its cached rows: the launch of the split decode kernels.

`attention_step` is what a plugin's op calls; its configurations are "decode" and "merge" of each row of the plugin's
table, and `step_builds` lists what it launches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import Build, Config, Key, Table, arch_of
from archsearch.kernels.config import tables
from archsearch.ops.triton.decode import decode_splits, merge_splits
from archsearch.ops.triton.operands import heads_end_to_end

MOST_ROWS = 2048
"""Rows that one program reads at most, so that a long sequence among short ones still spreads over the card."""

_PROGRAMS = 2
"""Programs that a multiprocessor holds at a time."""

_INTERPRETED_PROCESSORS = 2
_LOG2_E = 1.4426950408889634


@contextmanager
def rows_a_program(most: int) -> Iterator[None]:
    """While the block runs, a program reads so many rows at most, so that short sequences too are split."""
    global MOST_ROWS
    before, MOST_ROWS = MOST_ROWS, most
    try:
        yield
    finally:
        MOST_ROWS = before


def shares_of_rows(programs: int, rows: int, block_n: int, device: torch.device) -> tuple[int, int, int]:
    """What `rows_of_a_split` needs of the host, for a cache of so many rows read `block_n` a turn: into how many parts
    a sequence is cut to fill the card beside `programs` others, the most rows of a part, and how many parts there may
    be."""
    fill = max(1, _PROGRAMS * _processors(device) // max(1, programs))
    splits = max(1, min(max(fill, triton.cdiv(rows, MOST_ROWS)), triton.cdiv(rows, block_n)))
    return fill, MOST_ROWS, splits


def attention_step(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, op: str, scale: float) -> Tensor:
    """softmax(scale q k^T) v over the first ``lengths`` rows of each sequence, `[B, Hq, Dv]`, in the dtype of q.

    q `[B, Hq, D]`; k `[B, S, Hkv, D]`, v `[B, S, Hkv, Dv]` of any floating dtype; lengths `[B]` integers on the same
    device, cut at S (a sequence without rows gives zeros). ``op`` names the table whose "decode" and "merge" run.
    Nothing waits for the device: how many programs share a sequence follows from the shapes and the card, which rows
    each of them reads from ``lengths`` (split key-value decoding as in Flash-Decoding, Dao et al. 2023).
    Differentiable in q, k and v. Under autocast q is cast, as for `scaled_dot_product_attention`.
    """
    if torch.is_autocast_enabled(q.device.type):
        q = q.to(torch.get_autocast_dtype(q.device.type))
    out: Tensor = _attention_step(q, k, v, lengths, op, scale)
    return out


@torch.library.custom_op("archsearch::attention_step", mutates_args=())
def _attention_step(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, op: str, scale: float) -> Tensor:
    batch, heads, dim = q.shape
    rows, kv_heads, value_dim = v.shape[1:]
    row = tables[op].key(arch_of(q.device), max(dim, value_dim))
    config = tables[op].row(row, q.dtype)
    decode, merge = config["decode"], config["merge"]
    o = torch.empty(batch, heads, value_dim, dtype=q.dtype, device=q.device)
    if not o.numel():
        return o
    block_g, block_n = query_tile(heads // kv_heads, decode), decode.tiles["N"]
    programs = batch * kv_heads * triton.cdiv(heads // kv_heads, block_g)
    fill, most, splits = shares_of_rows(programs, rows, block_n, q.device)
    merged = splits > 1
    partial, lse = (
        torch.empty(batch, heads, splits, *width, dtype=torch.float32, device=q.device) if merged else o
        for width in ((value_dim,), ())
    )
    q, k, v, lengths = q.contiguous(), heads_end_to_end(k), heads_end_to_end(v), lengths.contiguous()
    decode_splits[(programs * splits,)](
        q,
        k,
        v,
        lengths,
        o,
        partial,
        lse,
        scale * _LOG2_E,
        rows,
        heads,
        kv_heads,
        k.stride(0) // dim,
        k.stride(1) // dim,
        v.stride(0) // value_dim,
        v.stride(1) // value_dim,
        fill,
        most,
        splits,
        D=dim,
        DV=value_dim,
        BLOCK_D=row[1],
        BLOCK_G=block_g,
        BLOCK_N=block_n,
        MERGED=merged,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        num_warps=decode.num_warps,
        num_stages=decode.num_stages,
    )
    if merged:
        merge_splits[(batch * heads,)](
            partial,
            lse,
            lengths,
            o,
            rows,
            heads,
            fill,
            most,
            splits,
            DV=value_dim,
            BLOCK_D=row[1],
            BLOCK_S=merge.tiles["S"],
            BLOCK_N=block_n,
            num_warps=merge.num_warps,
            num_stages=merge.num_stages,
        )
    return o


@_attention_step.register_fake
def _fake(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, op: str, scale: float) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[1], v.shape[3])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, lengths, _, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, lengths)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """By explicit products: one query a sequence is no case for a kernel."""
    q, k, v, lengths = ctx.saved_tensors
    grouped = (k.shape[2], -1)
    queries, grads = (x.float().unflatten(1, grouped) for x in (q, grad))
    keys, values = k.float(), v.float()
    held = torch.arange(k.shape[1], device=k.device) < lengths[:, None, None, None]
    scores = torch.einsum("bhgd,bshd->bhgs", queries, keys) * ctx.scale
    weights = torch.where(held, scores, -torch.inf).softmax(-1).nan_to_num(0.0)
    d_weights = torch.einsum("bhgd,bshd->bhgs", grads, values)
    d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True)) * ctx.scale
    dq = torch.einsum("bhgs,bshd->bhgd", d_scores, keys).flatten(1, 2)
    dk = torch.einsum("bhgs,bhgd->bshd", d_scores, queries)
    dv = torch.einsum("bhgs,bhgd->bshd", weights, grads)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None


_attention_step.register_autograd(_backward, setup_context=_remember)


def step_builds(table: Table, key: Key) -> Iterator[Build]:
    """What `attention_step` launches for a row of a table in bfloat16: few and many query heads a key head, whole
    sequences and split ones."""
    width, config = key[1], table.row(key)
    decode, merge = config["decode"], config["merge"]
    sizes = dict.fromkeys(("S", "heads", "kv_heads", "k_batch", "k_step", "v_batch", "v_step"), "i32")
    shares = dict.fromkeys(("fill", "most", "splits"), "i32")
    wide = {"D": width, "DV": width, "BLOCK_D": width}
    for block_g in query_tiles(decode):
        for merged in (True, False):
            parts = "*fp32" if merged else "*bf16"
            yield Build(
                op=table.op,
                name="decode",
                fn=decode_splits,
                head_dim=width,
                config=decode,
                variant=f"{'split' if merged else 'whole'}-group-{block_g}",
                signature={
                    "q": "*bf16",
                    "k": "*bf16",
                    "v": "*bf16",
                    "lengths": "*i64",
                    "o": "*bf16",
                    "partial": parts,
                    "lse": parts,
                    "scale": "fp32",
                    **sizes,
                    **shares,
                },
                constexprs={
                    **wide,
                    "BLOCK_G": block_g,
                    "BLOCK_N": decode.tiles["N"],
                    "MERGED": merged,
                    "PRECISION": "tf32",
                },
            )
    yield Build(
        op=table.op,
        name="merge",
        fn=merge_splits,
        head_dim=width,
        config=merge,
        signature={
            "partial": "*fp32",
            "lse": "*fp32",
            "lengths": "*i64",
            "o": "*bf16",
            "S": "i32",
            "heads": "i32",
            **shares,
        },
        constexprs={"DV": width, "BLOCK_D": width, "BLOCK_S": merge.tiles["S"], "BLOCK_N": decode.tiles["N"]},
    )


QUERY_TILES = (16, 64)
"""Query heads of one key head that a program reads the rows for; more take several programs."""


def query_tile(group: int, decode: Config) -> int:
    """How many query heads of a key head, of which there are `group`, a program works on, by the configuration."""
    tiles = query_tiles(decode)
    return next((tile for tile in tiles if group <= tile), tiles[-1])


def query_tiles(decode: Config) -> list[int]:
    """`QUERY_TILES` that a configuration has registers for: of its tile G at most, where it has one."""
    return [tile for tile in QUERY_TILES if tile <= decode.tiles.get("G", QUERY_TILES[-1])]


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
