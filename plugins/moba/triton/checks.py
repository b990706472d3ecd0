"""What a row of the kernels of mixture of block attention is asked: whole sequences, choices, and one token."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archsearch.ops.block_cache import BlockCache
from archsearch.ops.laid_out import LaidOut
from archsearch.proving import Attempt, Check, Op, Verdict, compare, future_unseen, grid
from archsearch.proving.choices import after_cached, by_sequence, gap, means_of, of_steps, parts_of, scores_of
from archsearch.proving.inputs import by_blocks, cached, complete_means, qkv
from archsearch.proving.judging import near
from archsearch.proving.means import written_means

from ..ops import moba_attention, moba_attention_step
from .launch import sequences as launch
from .table import TABLE

NAMES = ("q", "k", "v")
LENGTHS = (65, 1, 15, 63, 64, 100, 256, 1000)
SIZES = {"block_size": 16, "top_k": 3}


def checks() -> Iterator[Check]:
    """Of every row of the table."""
    yield Check(table=TABLE, name="lengths", run=_lengths, cases=grid(tokens=LENGTHS))
    blocks = grid(block_size__top_k=((7, 4), (16, 1), (64, 2), (1, 5)))
    yield Check(table=TABLE, name="blocks", run=_blocks, cases=blocks, first=blocks[:2])
    steps = grid(block_size__top_k=((8, 3), (8, 1), (70, 2), (1, 3)))
    yield Check(table=TABLE, name="step", run=_step, cases=steps, first=steps[:2])
    wide = partial(_step, wide=True)
    yield Check(table=TABLE, name="step over a cache in float32", run=wide, cases=steps)
    for name, run in {
        "narrower heads": _narrower,
        "more tokens than 16 bits": _long,
        "packed": _packed,
        "after cached tokens": _after_cached,
        "the future": _future,
        "what is chosen": _chosen,
    }.items():
        yield Check(table=TABLE, name=name, run=run)
    yield Check(table=TABLE, name="means of blocks", run=partial(written_means, table=TABLE))


def clear(q: Tensor, k: Tensor, bounds: Tensor | None, *, block_size: int, top_k: int) -> Tensor:
    """`[B, T, Hq]`: the score of the last block that is chosen stands clear of the next one's."""

    def whole(q: Tensor, k: Tensor) -> Tensor:
        means, found = means_of(q, k, block_size), []
        blocks = torch.arange(means.shape[1], device=q.device)
        for part, at in parts_of(q):
            own = (at // block_size)[:, None, None]
            scores, error = scores_of(part, means)
            scores = scores.masked_fill(blocks >= own, -torch.inf)
            found.append(gap(scores, error.amax(-1), top_k - 1, own[..., 0] > top_k - 1))
        return torch.cat(found, 1)

    return by_sequence(q, k, bounds, block_size, whole)


def _drawn(tokens: int, dim: int, block_size: int = 16, **sizes: Any) -> dict[str, Tensor]:
    drawn = qkv(tokens, dim, **{"heads": 4, "key_heads": 2, "seed": 7 * block_size, **sizes})
    return {**drawn, "k": by_blocks(drawn["k"], block_size)}


def _op(impl: str, sizes: dict[str, int], bounds: Tensor | None = None) -> Op:
    def run(x: dict[str, Tensor]) -> tuple[Tensor]:
        laid = LaidOut(x["q"], x["k"], x["v"], cu_seqlens=bounds, lengths=x.get("lengths"))
        return (moba_attention(laid, **sizes, impl=impl),)

    return run  # type: ignore[return-value]


def _whole(
    attempt: Attempt,
    drawn: dict[str, Tensor],
    sizes: dict[str, int] = SIZES,
    *,
    bounds: Tensor | None = None,
    exact: str = "reference",
) -> Verdict:
    inputs = attempt.held(drawn, NAMES)
    decided = clear(inputs["q"], inputs["k"], bounds, **sizes)
    ours, theirs = (_op(impl, sizes, bounds) for impl in ("triton", exact))
    return compare(ours, theirs, inputs, trained=NAMES, decided=decided)


def _lengths(attempt: Attempt, tokens: int) -> Verdict:
    return _whole(attempt, _drawn(tokens, attempt.dim, batch=2))


def _blocks(attempt: Attempt, block_size: int, top_k: int) -> Verdict:
    drawn = _drawn(attempt.many(300, 60), attempt.dim, block_size)
    return _whole(attempt, drawn, {"block_size": block_size, "top_k": top_k})


def _narrower(attempt: Attempt) -> Verdict:
    return _whole(attempt, _drawn(attempt.many(150, 70), attempt.dim - 4, heads=3, key_heads=1))


def _long(attempt: Attempt) -> Verdict:
    block_size = attempt.many(512, 16)
    drawn = _drawn(attempt.long, attempt.dim, block_size, heads=2, key_heads=1)
    return _whole(attempt, drawn, {**SIZES, "block_size": block_size}, exact="chunkwise")


def _packed(attempt: Attempt) -> Verdict:
    return _whole(attempt, _drawn(attempt.crowd[1], attempt.dim), bounds=attempt.uneven())


def _after_cached(attempt: Attempt) -> Verdict:
    tokens, keys = attempt.many(65, 17), attempt.many(300, 70)
    drawn = cached(_drawn(tokens, attempt.dim, keys=keys, batch=4), (tokens, keys, keys // 2, tokens + 1))
    inputs = attempt.held(drawn, NAMES)
    decided = after_cached(clear, inputs["q"], inputs["k"], inputs["lengths"], **SIZES)
    return compare(_op("triton", SIZES), _op("reference", SIZES), inputs, trained=NAMES, decided=decided)


def _future(attempt: Attempt) -> Verdict:
    inputs = attempt.held(_drawn(attempt.many(300, 90), attempt.dim), NAMES)
    return future_unseen(_op("triton", SIZES), inputs, NAMES, attempt.many(177, 61))


def _chosen(attempt: Attempt) -> Verdict:
    """The scores of the chosen blocks are the best, whatever their indices."""
    q, k, v = attempt.held(_drawn(90, attempt.dim, 8, batch=2), NAMES).values()
    with torch.no_grad():
        x, row, blocks = launch._prepare(LaidOut(q, k, v), 8, 1.0)
        chosen = launch._choose(x, blocks, 3, row).view(2, 90, 4, 3).long()
    means = k.double()[:, :88].unflatten(1, (11, 8)).mean(2).to(attempt.dtype).double().repeat_interleave(2, 2)
    own = torch.arange(90, device=q.device) // 8
    scores = torch.einsum("bthd,bnhd->bthn", q.double(), means)
    scores = scores.masked_fill(torch.arange(11, device=q.device) >= own[:, None, None], -torch.inf)
    first = torch.arange(2, device=q.device)[:, None, None, None] * 12
    if not torch.equal((chosen >= 0).sum(-1), own.clamp(max=3)[None, :, None].expand(2, 90, 4)):
        return Verdict(error=0.0, fault="other numbers of blocks are chosen than there are")
    got = scores.gather(-1, (chosen - first).clamp(min=0)).masked_fill(chosen < 0, -torch.inf).sort(-1).values
    best = scores.topk(3, dim=-1).values.sort(-1).values
    return near("the score of a chosen block", got.nan_to_num(neginf=0.0), best.nan_to_num(neginf=0.0), 1e-2)


def _step(attempt: Attempt, block_size: int, top_k: int, *, wide: bool = False) -> Verdict:
    """Over a cache that is `wide`: in float32, as of a model whose parameters are."""
    lengths, sizes = (1, 64, 90), {"block_size": block_size, "top_k": top_k}
    drawn = qkv(90, attempt.dim, heads=4, key_heads=2, batch=3)
    drawn["means"] = complete_means(drawn["k"], lengths, block_size)
    inputs = attempt.held({**cached(drawn, lengths), "q": drawn["q"][:, 0]}, ("q",) if wide else (*NAMES, "means"))

    def stepping(impl: str) -> Op:
        def run(x: dict[str, Tensor]) -> tuple[Tensor]:
            cache = BlockCache(**{name: x[name] for name in ("k", "v", "means", "lengths")})
            return (moba_attention_step(x["q"], cache, **sizes, impl=impl),)

        return run  # type: ignore[return-value]

    return compare(stepping("triton"), stepping("chunkwise"), inputs, decided=of_steps(clear, inputs, **sizes))
