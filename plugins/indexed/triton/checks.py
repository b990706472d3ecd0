"""What a row of the kernels of attention over listed blocks, and of the choice of an index, is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from archsearch.ops.triton.step import rows_a_program
from archsearch.proving import Attempt, Check, Op, Verdict, compare, future_unseen, grid
from archsearch.proving.inputs import after_filled, qkv

from .attention import attend
from .choice_checks import choice_checks
from .table import TABLE

NAMES = ("q", "k", "v")
LENGTHS = (9, 1, 15, 63, 64, 65, 100, 256, 1000)
SCALE = 0.3


def checks() -> Iterator[Check]:
    """Of every row of both tables."""
    yield Check(table=TABLE, name="lengths", run=_lengths, cases=grid(tokens=LENGTHS))
    shapes = grid(block_size__heads__key_heads__choosers=((4, 6, 2, 1), (1, 4, 2, 4), (1, 3, 1, 1), (70, 2, 2, 2)))
    first = [*shapes[:2], shapes[3]]  # the last has blocks that are no few keys
    yield Check(table=TABLE, name="blocks and heads", run=_shapes, cases=shapes, first=first)
    for name, run in {
        "many heads of a key head": _many_heads,
        "narrower heads": _narrower,
        "more tokens than 16 bits": _long,
        "after cached tokens": _after_cached,
        "one token in parts": _step,
        "values within the rows of keys": _within,
        "the future": _future,
    }.items():
        yield Check(table=TABLE, name=name, run=run)
    yield from choice_checks()


def listed(
    positions: Tensor, block_size: int, slots: int, choosers: int, seed: int = 0, keys: int = 0
) -> tuple[Tensor, Tensor]:
    """A list for each query, `[B * T, choosers, slots]`: its own block and others up to it, drawn; some lists have
    a slot less."""
    draw, (batch, count) = torch.Generator().manual_seed(seed), positions.shape
    own = (positions // block_size).cpu()
    blocks = int(own.max()) + 1
    marks = torch.rand(batch, count, choosers, blocks, generator=draw)
    places = torch.arange(blocks)
    marks = marks.masked_fill(places > own[..., None, None], -1.0).masked_fill(places == own[..., None, None], 2.0)
    best = marks.topk(min(slots, blocks), dim=-1)
    chosen = best.indices.masked_fill(best.values < 0, -1)
    chosen = torch.nn.functional.pad(chosen, (0, slots - chosen.shape[-1]), value=-1)
    counts = torch.where(torch.arange(count)[:, None] % 3 == 1, max(1, slots - 1), slots).expand(batch, -1, choosers)
    chosen = torch.where(torch.arange(slots) < counts[..., None], chosen, -1)
    made = chosen.flatten(0, 1).to(torch.int32), counts.flatten(0, 1).to(torch.int32).contiguous()
    return made[0].to(positions.device), made[1].to(positions.device)


def explicit(x: dict[str, Tensor], positions: Tensor, chosen: Tensor, block_size: int) -> Tensor:
    """`attend` by the mask of all pairs."""
    q, k, v = x["q"], x["k"], x["v"]
    keys, blocks, groups = torch.arange(k.shape[1], device=q.device), -(-k.shape[1] // block_size), k.shape[2]
    seen = torch.zeros(*chosen.shape[:2], blocks + 1, dtype=torch.bool, device=q.device)
    seen.scatter_(-1, torch.where(chosen < 0, blocks, chosen).long(), True)
    seen = seen[..., keys // block_size].view(*q.shape[:2], -1, len(keys)).transpose(1, 2)
    seen = seen.repeat_interleave(q.shape[2] // seen.shape[1], 1) & (keys <= positions[:, None, :, None])
    rows = (keys <= positions.amax(1)[:, None])[..., None, None]  # what is not filled may hold NaN
    k, v = (x.masked_fill(~rows, 0).repeat_interleave(q.shape[2] // groups, 2) for x in (k, v))
    weights = (torch.einsum("bthd,bshd->bhts", q, k) * SCALE).masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v)


def _whole(
    attempt: Attempt,
    drawn: dict[str, Tensor],
    *,
    block_size: int = 1,
    choosers: int = 1,
    slots: int = 5,
    positions: Tensor | None = None,
    trained: Sequence[str] = NAMES,
) -> Verdict:
    inputs, (batch, count) = attempt.held(drawn, NAMES), drawn["q"].shape[:2]
    at = torch.arange(count).expand(batch, -1) if positions is None else positions
    at = at.to(attempt.device)
    lists = listed(at, block_size, slots, choosers, seed=count)

    def kernels(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (attend(x["q"], x["k"], x["v"], at, lists, block_size=block_size, scale=SCALE),)

    def by_mask(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (explicit(x, at, lists[0], block_size),)

    ours: Op = kernels  # type: ignore[assignment]
    theirs: Op = by_mask  # type: ignore[assignment]
    return compare(ours, theirs, inputs, trained=trained)


def _lengths(attempt: Attempt, tokens: int) -> Verdict:
    return _whole(attempt, qkv(tokens, attempt.dim, batch=attempt.many(2, 1)))


def _shapes(attempt: Attempt, block_size: int, heads: int, key_heads: int, choosers: int) -> Verdict:
    tokens, batch = attempt.many(300, 9), attempt.many(2, 1)
    drawn = qkv(tokens, attempt.dim, heads=heads, key_heads=key_heads, batch=batch)
    return _whole(attempt, drawn, block_size=block_size, choosers=choosers, slots=3)


def _many_heads(attempt: Attempt) -> Verdict:
    return _whole(attempt, qkv(attempt.many(200, 3), attempt.dim, heads=70), slots=attempt.many(90, 3))


def _narrower(attempt: Attempt) -> Verdict:
    return _whole(attempt, qkv(attempt.many(150, 7), attempt.dim - 4, heads=3))


def _long(attempt: Attempt) -> Verdict:
    """The last of many tokens, over lists that reach back to the first."""
    keys = attempt.long
    positions = torch.arange(keys - 12, keys)[None]
    drawn = qkv(12, attempt.dim, keys=keys)
    return _whole(
        attempt, drawn, positions=positions, slots=attempt.many(200, 70), trained=NAMES if attempt.whole else ()
    )


def _after_cached(attempt: Attempt) -> Verdict:
    """Sequences of uneven lengths, whose rows after them hold NaN."""
    tokens, keys = attempt.many(65, 4), attempt.many(300, 30)
    filled = (tokens, keys, keys // 2)
    drawn = qkv(tokens, attempt.dim, keys=keys, batch=3)
    drawn = {**drawn, **{name: after_filled(drawn[name], filled) for name in ("k", "v")}}
    positions = torch.tensor(filled)[:, None] - tokens + torch.arange(tokens)
    return _whole(attempt, drawn, positions=positions, block_size=7, slots=3)


def _step(attempt: Attempt) -> Verdict:
    """Each part of a list by a program of its own, some of which have nothing."""
    filled = (300, 2, 70)
    drawn = qkv(1, attempt.dim, keys=300, batch=3, heads=3)
    drawn = {**drawn, **{name: after_filled(drawn[name], filled) for name in ("k", "v")}}
    with rows_a_program(64):
        return _whole(attempt, drawn, positions=torch.tensor(filled)[:, None] - 1, slots=200, trained=())


def _within(attempt: Attempt) -> Verdict:
    """Values are the first channels of each key, as of latents that are absorbed."""
    narrow, positions = attempt.dim // 2, torch.tensor([[19], [10]], device=attempt.device)
    drawn = qkv(1, attempt.dim, keys=20, batch=2, heads=4)
    inputs = attempt.held({name: drawn[name] for name in ("q", "k")}, ("q", "k"))
    lists = listed(positions, 1, 9, 1)

    def kernels(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (attend(x["q"], x["k"], x["k"][..., :narrow], positions, lists, block_size=1, scale=SCALE),)

    def by_mask(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (explicit({**x, "v": x["k"][..., :narrow]}, positions, lists[0], 1),)

    ours: Op = kernels  # type: ignore[assignment]
    theirs: Op = by_mask  # type: ignore[assignment]
    return compare(ours, theirs, inputs, trained=("q", "k"))


def _future(attempt: Attempt) -> Verdict:
    """A list may name the query's own block, of which keys come after it."""
    tokens = attempt.many(300, 14)
    positions = torch.arange(tokens, device=attempt.device)[None]
    lists = listed(positions, 8, 2, 1)

    def run(x: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (attend(x["q"], x["k"], x["v"], positions, lists, block_size=8, scale=SCALE),)

    op: Op = run  # type: ignore[assignment]
    return future_unseen(op, attempt.held(qkv(tokens, attempt.dim), NAMES), NAMES, attempt.many(177, 10))
