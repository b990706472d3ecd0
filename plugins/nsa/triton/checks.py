"""What a row of the kernels of native sparse attention is asked: whole sequences, and one token over a cache."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archsearch.ops.laid_out import LaidOut
from archsearch.proving import Attempt, Check, Op, Verdict, compare, future_unseen, grid
from archsearch.proving.choices import after_cached, by_sequence, gap, means_of, of_steps, parts_of, scores_of
from archsearch.proving.inputs import by_blocks, cached, complete_means, qkv
from archsearch.proving.means import written_means

from ..ops import nsa_attention
from ..sizes import NsaSizes
from ..step import NsaCache, nsa_attention_step
from .table import TABLE

NAMES = ("q", "k", "v", "gates")
CACHE = ("k", "v", "k_means", "v_means", "lengths")
LENGTHS = (33, 1, 15, 63, 64, 65, 100, 256, 1000)
USUAL, SMALL = (NsaSizes(block_size=size, top_k=4, window=size + 4) for size in (16, 4))


def checks() -> Iterator[Check]:
    """Of every row of the table."""
    yield Check(table=TABLE, name="lengths", run=_lengths, cases=grid(tokens=LENGTHS))
    blocks = grid(block_size__top_k__window=((7, 5, 70), (16, 1, 1), (32, 2, 400)))
    yield Check(table=TABLE, name="blocks", run=_blocks, cases=blocks, first=blocks[:2])
    steps = grid(block_size__top_k__window=((8, 4, 20), (8, 1, 100), (70, 3, 64), (5, 2, 3)))
    yield Check(table=TABLE, name="step", run=_step, cases=steps, first=steps[:2])
    wide = partial(_step, wide=True)
    yield Check(table=TABLE, name="step over a cache in float32", run=wide, cases=steps)
    for name, run in {
        "narrower heads in a group of 3": _narrower,
        "a group of 16": _wide_group,
        "more tokens than 16 bits": _long,
        "packed": _packed,
        "after cached tokens": _after_cached,
        "the future": _future,
    }.items():
        yield Check(table=TABLE, name=name, run=run)
    yield Check(table=TABLE, name="means of blocks", run=partial(written_means, table=TABLE))


def clear(q: Tensor, k: Tensor, bounds: Tensor | None, *, block_size: int, top_k: int) -> Tensor:
    """`[B, T, Hq]`: the probability of the last block that is chosen, which the query heads of a key head share, stands
    clear of the next one's."""

    def whole(q: Tensor, k: Tensor) -> Tensor:
        means, found = means_of(q, k, block_size), []
        blocks, scale, groups = torch.arange(means.shape[1], device=q.device), q.shape[-1] ** -0.5, k.shape[2]
        for part, index in parts_of(q):
            at = index[:, None, None]
            scores, error = scores_of(part, means)
            seen = (scale * scores).masked_fill(blocks >= (at + 1) // block_size, -torch.inf)
            weights = seen.softmax(-1).nan_to_num(0.0)
            shared = weights.unflatten(2, (groups, -1)).sum(3)
            rivals = (blocks > 0) & (blocks < at // block_size)
            moved = 2 * scale * (error * weights).unflatten(2, (groups, -1)).sum(3).amax(-1)
            several = at[..., 0] // block_size - 1 > top_k - 2
            stands = gap(shared.masked_fill(~rivals, -torch.inf), moved, top_k - 2, several)
            found.append(stands.repeat_interleave(q.shape[2] // groups, 2))
        return torch.cat(found, 1)

    return by_sequence(q, k, bounds, block_size, whole)


def _sizes(attempt: Attempt) -> NsaSizes:
    """Such that there is something to choose, in a whole attempt and in another."""
    return USUAL if attempt.whole else SMALL


def _drawn(tokens: int, dim: int, block_size: int, **sizes: Any) -> dict[str, Tensor]:
    given = {"heads": 4, "key_heads": 2, "batch": 1, "seed": 7 * block_size, **sizes}
    drawn = qkv(tokens, dim, **given)
    draw = torch.Generator().manual_seed(tokens)
    gates = torch.randn(given["batch"], tokens, given["heads"], 3, generator=draw)
    return {**drawn, "k": by_blocks(drawn["k"], block_size), "gates": gates}


def _op(impl: str, sizes: NsaSizes, bounds: Tensor | None = None) -> Op:
    def run(x: dict[str, Tensor]) -> tuple[Tensor]:
        laid = LaidOut(x["q"], x["k"], x["v"], cu_seqlens=bounds, lengths=x.get("lengths"))
        return (nsa_attention(laid, gates=x["gates"], sizes=sizes, impl=impl),)

    return run  # type: ignore[return-value]


def _whole(
    attempt: Attempt,
    drawn: dict[str, Tensor],
    sizes: NsaSizes,
    *,
    bounds: Tensor | None = None,
    exact: str = "reference",
) -> Verdict:
    inputs = attempt.held(drawn, NAMES)
    decided = clear(inputs["q"], inputs["k"], bounds, block_size=sizes.block_size, top_k=sizes.top_k)
    ours, theirs = (_op(impl, sizes, bounds) for impl in ("triton", exact))
    return compare(ours, theirs, inputs, trained=NAMES, decided=decided)


def _usual(attempt: Attempt, tokens: int, *, narrower: int = 0, bounds: Tensor | None = None, **more: int) -> Verdict:
    sizes = _sizes(attempt)
    return _whole(attempt, _drawn(tokens, attempt.dim - narrower, sizes.block_size, **more), sizes, bounds=bounds)


def _lengths(attempt: Attempt, tokens: int) -> Verdict:
    return _usual(attempt, tokens, batch=attempt.many(2, 1), key_heads=attempt.many(2, 1))


def _blocks(attempt: Attempt, block_size: int, top_k: int, window: int) -> Verdict:
    sizes = NsaSizes(block_size=block_size, top_k=top_k, window=window)
    drawn = _drawn(attempt.many(300, 40), attempt.dim, block_size, key_heads=attempt.many(2, 1))
    return _whole(attempt, drawn, sizes)


def _narrower(attempt: Attempt) -> Verdict:
    return _usual(attempt, attempt.many(150, 24), narrower=4, heads=3, key_heads=1)


def _wide_group(attempt: Attempt) -> Verdict:
    return _usual(attempt, attempt.many(400, 24), heads=16, key_heads=1)


def _long(attempt: Attempt) -> Verdict:
    """By the fast form, which the tests hold to the explicit one."""
    sizes = NsaSizes(block_size=attempt.many(64, 4), top_k=4, window=attempt.many(100, 9))
    drawn = _drawn(attempt.many(attempt.long, 40), attempt.dim, sizes.block_size, key_heads=1)
    return _whole(attempt, drawn, sizes, exact="chunkwise")


def _packed(attempt: Attempt) -> Verdict:
    return _usual(attempt, attempt.crowd[1], bounds=attempt.uneven(), key_heads=attempt.many(2, 1))


def _after_cached(attempt: Attempt) -> Verdict:
    (tokens, keys), sizes = (attempt.many(65, 5), attempt.many(300, 30)), _sizes(attempt)
    drawn = _drawn(tokens, attempt.dim, sizes.block_size, keys=keys, batch=4, key_heads=attempt.many(2, 1))
    inputs = attempt.held(cached(drawn, (tokens, keys, keys // 2, tokens + 1)), NAMES)
    blocks = {"block_size": sizes.block_size, "top_k": sizes.top_k}
    decided = after_cached(clear, inputs["q"], inputs["k"], inputs["lengths"], **blocks)
    return compare(_op("triton", sizes), _op("reference", sizes), inputs, trained=NAMES, decided=decided)


def _future(attempt: Attempt) -> Verdict:
    sizes = _sizes(attempt)
    drawn = _drawn(attempt.many(300, 40), attempt.dim, sizes.block_size, key_heads=attempt.many(2, 1))
    return future_unseen(_op("triton", sizes), attempt.held(drawn, NAMES), NAMES, attempt.many(177, 27))


def _step(attempt: Attempt, block_size: int, top_k: int, window: int, *, wide: bool = False) -> Verdict:
    """Over a cache that is `wide`: in float32, as of a model whose parameters are."""
    lengths, sizes = (1, 7, 64, 90), NsaSizes(block_size=block_size, top_k=top_k, window=window)
    drawn = qkv(90, attempt.dim, heads=4, key_heads=2, batch=4)
    means = {f"{name}_means": complete_means(drawn[name], lengths, block_size) for name in ("k", "v")}
    gates = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(4))
    held = {**cached(drawn, lengths), **means, "q": drawn["q"][:, 0], "gates": gates}
    inputs = attempt.held(held, ("q",) if wide else (*NAMES, *means))

    def stepping(impl: str) -> Op:
        def run(x: dict[str, Tensor]) -> tuple[Tensor]:
            cache = NsaCache(**{name: x[name] for name in CACHE})
            return (nsa_attention_step(x["q"], cache, gates=x["gates"], sizes=sizes, impl=impl),)

        return run  # type: ignore[return-value]

    decided = of_steps(clear, inputs, block_size=block_size, top_k=top_k)
    return compare(stepping("triton"), stepping("chunkwise"), inputs, decided=decided)
