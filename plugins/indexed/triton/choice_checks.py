"""What a row of the kernels of the choice of an index is asked; choices are compared by score, never by index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from archsearch.proving import Attempt, Check, Verdict, grid
from archsearch.proving.judging import near

from ..choice import best_of_block, candidates, edges, group_scores
from ..options import Rule
from ..products import Products
from .choice import choose
from .table import CHOICE


def choice_checks() -> Iterator[Check]:
    """Of every row of the table."""
    rules = grid(
        scorer__units__block_size__top_k=(
            ("weighted", 1, 1, 3),
            ("apart", 4, 4, 2),
            ("summed", 1, 3, 2),
            ("summed", 1, 1, 17),
            ("apart", 70, 70, 2),
        )
    )
    yield Check(table=CHOICE, name="what is chosen", run=_chosen, cases=rules, first=rules[:3])
    yield Check(table=CHOICE, name="more blocks than are counted a turn", run=_many_blocks)
    yield Check(table=CHOICE, name="equal scores", run=_equal)
    yield Check(table=CHOICE, name="few candidates", run=_few)


def _products(attempt: Attempt, scorer: str, units: int, positions: Tensor, keys: int, narrower: int = 0) -> Products:
    draw, (batch, count) = torch.Generator().manual_seed(keys), positions.shape
    sizes = {"queries": (batch, count, 3, attempt.dim - narrower), "keys": (batch, keys, 1, attempt.dim - narrower)}
    drawn = {name: torch.randn(size, generator=draw) for name, size in sizes.items()}
    drawn["weights"] = torch.randn(batch, count, 3, generator=draw)
    held = attempt.held(drawn, tuple(drawn))
    weights = held["weights"] if scorer == "weighted" else None
    summed = scorer != "apart"
    return Products(queries=held["queries"], keys=held["keys"], weights=weights, summed=summed, units=units, scale=0.25)


def explicit_scores(products: Products) -> Tensor:
    """Scores `[B, Hc, T, n]` in float64."""
    x = replace(products, queries=products.queries.double(), keys=products.keys.double())
    scores = group_scores(x.queries, x.keys[:, :, 0])
    if x.summed:
        weights = torch.ones_like(scores[:, :, :, 0]) if x.weights is None else x.weights.double().transpose(1, 2)
        scores = (weights[..., None] * scores.relu()).sum(1, keepdim=True)
    return best_of_block(scores * x.scale, x.units)


def judged(
    products: Products, scores: Tensor, positions: Tensor, rule: Rule, lists: tuple[Tensor, Tensor], tolerance: float
) -> Verdict:
    """Whether a list has what is always in, no block twice, as many candidates as there are or may be, and the best of
    their `scores` `[B, Hc, T, n]`."""
    (batch, choosers, count, blocks), (chosen, counts) = scores.shape, lists
    chosen = chosen.view(batch, count, choosers, -1).transpose(1, 2).long()
    total = int(positions.max()) // rule.block_size + 1
    seen = torch.zeros(batch, choosers, count, total + 1, dtype=torch.int64, device=chosen.device)
    seen.scatter_add_(-1, torch.where(chosen < 0, total, chosen), torch.ones_like(chosen))
    seen, places = seen[..., :total], torch.arange(total, device=chosen.device)
    edge = edges(positions, rule)[:, None, :, None]
    always = (places < rule.first) | (places >= edge)
    due = always & (places <= (positions // rule.block_size)[:, None, :, None])
    allowed = candidates(positions, blocks, rule)
    room = allowed.sum(-1).clamp(max=rule.top_k)
    found = (seen[..., :blocks] > 0) & allowed
    if bool((seen > 1).any()):
        return Verdict(error=0.0, fault="a block is listed twice")
    if not bool(((seen > 0) & always == due).all()) or not bool((found.sum(-1) == room).all()):
        return Verdict(error=0.0, fault="other blocks are listed than those that are always in and the candidates")
    told = counts.view(batch, count, choosers).transpose(1, 2)
    if not torch.equal(told.long(), (chosen >= 0).sum(-1)) or bool(
        (chosen.diff(dim=-1)[chosen[..., 1:] < 0] > 0).any()
    ):
        return Verdict(error=0.0, fault="a list's count is not that of its blocks")
    best = scores.masked_fill(~allowed, -torch.inf).topk(min(rule.top_k, blocks), dim=-1).values
    got = scores.masked_fill(~found, -torch.inf).topk(min(rule.top_k, blocks), dim=-1).values
    return near("the score of a chosen block", got.nan_to_num(neginf=0.0), best.nan_to_num(neginf=0.0), tolerance)


def _choosing(
    attempt: Attempt, products: Products, positions: Tensor, rule: Rule, tolerance: float | None = None
) -> Verdict:
    slots = min(rule.local + 1 + rule.first + rule.top_k, int(positions.max()) // rule.block_size + 1)
    lists = choose(products, positions, rule, slots)
    exact = tolerance if tolerance is not None else 1e-4 if attempt.dtype == torch.float32 else 2e-2
    return judged(products, explicit_scores(products), positions, rule, lists, exact)


def _chosen(attempt: Attempt, scorer: str, units: int, block_size: int, top_k: int) -> Verdict:
    """Of blocks by their best key, or by the one key that each has."""
    count, batch = attempt.many(300, 14), attempt.many(2, 1)
    rule = Rule(block_size=block_size, top_k=top_k, tail=scorer != "apart", local=1, first=1)
    positions = torch.arange(count, device=attempt.device).expand(batch, -1)
    products = _products(attempt, scorer, units, positions, count // block_size * units, narrower=3)
    return _choosing(attempt, products, positions, rule)


def _many_blocks(attempt: Attempt) -> Verdict:
    """Of the last tokens of long sequences, uneven ones."""
    keys = attempt.many(attempt.long, 1500)
    positions = torch.tensor([[keys - 2, keys - 1], [keys // 2, keys // 2 + 1]], device=attempt.device)
    rule = Rule(block_size=1, top_k=attempt.many(2000, 300), tail=True, local=0, first=2)
    return _choosing(attempt, _products(attempt, "weighted", 1, positions, keys), positions, rule)


def _equal(attempt: Attempt) -> Verdict:
    """Of equal scores the earliest blocks are taken; signed zeros are equal."""
    count, rule = 40, Rule(block_size=1, top_k=5, tail=True, local=0, first=0)
    positions = torch.arange(count - 2, count, device=attempt.device)[None]
    products = _products(attempt, "apart", 1, positions, count)
    marks = torch.tensor([0.0, -1.0, -0.0], device=attempt.device)[torch.arange(count, device=attempt.device) % 3]
    keys = torch.zeros_like(products.keys)
    keys[..., 0] = marks[None, :, None].to(keys.dtype)
    queries = torch.zeros_like(products.queries)
    queries[..., 0] = 1.0
    chosen, _ = choose(replace(products, queries=queries, keys=keys), positions, rule, 6)
    right = torch.tensor([0, 2, 3, 5, 6], device=attempt.device)
    told = "" if bool((chosen[..., :5] == right).all()) else "of equal scores others than the earliest are taken"
    return Verdict(error=0.0, fault=told)


def _few(attempt: Attempt) -> Verdict:
    """Where no more than `top_k` may be chosen all are, and no score is read."""
    count, rule = attempt.many(200, 20), Rule(block_size=4, top_k=60, tail=False, local=1, first=1)
    positions = torch.arange(count, device=attempt.device)[None]
    products = _products(attempt, "apart", 4, positions, count)
    slots = count // 4
    lists = choose(None, positions, rule, slots)
    one = explicit_scores(products)[:, :1]
    return judged(products, one, positions, rule, lists, 1e-2)
