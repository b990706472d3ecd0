"""Attention over what an index chooses as `archsearch bench kernels` measures it: whole, by one token, and the choice
alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archsearch.attention_cost import softmax_flops
from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs, reference_form
from archsearch.bench.peers import sdpa_peers
from archsearch.bench.results.work import Shape, Work, softmax_io, token_io
from archsearch.ops.index_scores import relu_scores

from .choice import Choice
from .cost import chosen_pairs, indexed_flops, indexed_traffic, seen_keys
from .listing import listed_blocks
from .ops import indexed_attention
from .options import IndexedOptions
from .products import Products
from .triton.table import CHOICE, TABLE

TOKENS = IndexedOptions(block_size=1, top_k=2048, scorer="relu", index_heads=32, index_dim=128)
"""2048 tokens, as DeepSeek-V3.2 chooses them (arXiv 2512.02556, section 2.1)."""

BLOCKS = IndexedOptions(
    block_size=64, top_k=16, own="block", scorer="relu-sum", summary="mean", index_heads=32, index_dim=128
)
"""16 blocks of 64 by the mean of their index keys."""

SMALL = IndexedOptions(block_size=1, top_k=9, scorer="relu", index_heads=2, index_dim=16)

AGREEING = 0.98
"""Share of the rows that agree: of scores that are all but equal, rounding takes another now and then."""


def bench_ops() -> Iterator[BenchOp]:
    """16 query heads a key head, which choose together."""
    full, choices = [_shape(1, 16384), _shape(1, 65536)], [_shape(1, 16384, 32, 1), _shape(1, 65536, 32, 1)]
    steps = [_shape(8, 65536), _shape(1, 65536)]
    tiny = [Shape(batch=2, tokens=40, heads=4, kv_heads=2, head_dim=16)]
    few = [Shape(batch=2, tokens=40, heads=2, kv_heads=1, head_dim=16)]
    for options, whole, token, alone in (
        (TOKENS, _grids(full), _grids(steps), _grids(choices)),
        (BLOCKS, _grids(full[:1], quick=False), None, None),
        (SMALL, _tiny(tiny), _tiny(tiny), _tiny(few)),
    ):
        yield _sequence(options, whole)
        if token is not None:
            yield _step(options, token)
        if alone is not None:
            yield _choice_alone(options, alone)


def _sequence(options: IndexedOptions, grids: Mapping[str, list[Shape]]) -> BenchOp:
    return BenchOp(
        name="indexed",
        sizes=_sizes(options),
        grids=grids,
        inputs=partial(_inputs, options),
        run=partial(_run, options),
        reference=lambda inputs: _run(options, inputs, reference_form(inputs)),
        work=partial(indexed_work, options),
        agreeing=AGREEING,
        stand_ins={"choose_best": stand_in_lists},
        table=TABLE.op,
        others={CHOICE.op: options.index_dim},
        trained=("q", "k", "v"),
        head_axes={"q": 2, "k": 2, "v": 2},
        peers=sdpa_peers(same=False),
    )


def _step(options: IndexedOptions, grids: Mapping[str, list[Shape]]) -> BenchOp:
    return BenchOp(
        name="indexed",
        step=True,
        sizes=_sizes(options),
        grids=grids,
        inputs=partial(_step_inputs, options),
        run=partial(_run_step, options),
        reference=partial(_run_step, options, impl="chunkwise"),
        work=partial(indexed_step_work, options),
        agreeing=AGREEING,
        stand_ins={"choose_best": stand_in_lists},
        table=TABLE.op,
        others={CHOICE.op: options.index_dim},
        head_axes={"q": 1, "k": 2, "v": 2},
    )


def _choice_alone(options: IndexedOptions, grids: Mapping[str, list[Shape]]) -> BenchOp:
    return BenchOp(
        name="indexed choice",
        sizes=_sizes(options),
        grids=grids,
        inputs=lambda shape, draw: _scored(options, shape, draw, shape.tokens),
        run=partial(_lists, options),
        reference=partial(_lists, options, impl="chunkwise"),
        work=partial(choice_work, options),
        agreeing=AGREEING,
        stand_ins={"choose_best": stand_in_lists},
        table=CHOICE.op,
        width=options.index_dim,
        head_axes={},
    )


def indexed_work(options: IndexedOptions, shape: Shape, element_bytes: int) -> Work:
    """Scores of the candidates, and attention over the chosen ones."""
    read, written = softmax_io(shape, element_bytes)
    flops = shape.batch * indexed_flops(options, shape.model(), phase="prefill", context=shape.tokens).matmul
    return Work(flops=flops, read_bytes=read + _scored_bytes(options, shape, element_bytes), written_bytes=written)


def indexed_step_work(options: IndexedOptions, shape: Shape, element_bytes: int) -> Work:
    """Index keys of the candidates, and rows of the chosen ones."""
    token, model = token_io(shape, element_bytes), shape.model(element_bytes)
    rows = indexed_traffic(options, model, context=shape.tokens).read_bytes
    flops = shape.batch * indexed_flops(options, model, phase="decode", context=shape.tokens).matmul
    return Work(flops=flops, read_bytes=shape.batch * rows + token, written_bytes=token)


def choice_work(options: IndexedOptions, shape: Shape, element_bytes: int) -> Work:
    """Scores of the candidates alone, and the lists."""
    model, tokens = shape.model(), shape.tokens
    whole = indexed_flops(options, model, phase="prefill", context=tokens).matmul
    attended = softmax_flops(chosen_pairs(options, tokens), model).matmul
    slots = min(seen_keys(options, tokens) // options.block_size, tokens)
    return Work(
        flops=shape.batch * (whole - attended),
        read_bytes=_scored_bytes(options, shape, element_bytes),
        written_bytes=4.0 * shape.total * slots,
    )


def stand_in_lists(arguments: Mapping[str, Any]) -> list[int]:
    """Fills ``chosen`` `[B T, choosers, slots]` int32 and ``counts`` `[B T, choosers]` with blocks that lie evenly up
    to each token's own: as many as there are, or may be."""
    chosen, counts, positions = (arguments[name] for name in ("chosen", "counts", "positions"))
    if arguments["first_token"] == 0:
        slots = chosen.shape[2]
        blocks = (positions.reshape(-1, 1, 1) // arguments["block_size"] + 1).to(torch.int32)
        seen = blocks.clamp(max=slots)
        slot = torch.arange(slots, dtype=torch.int32)
        chosen.copy_(torch.where(slot < seen, (slot * (blocks / seen)).to(torch.int32), -1))
        counts.copy_(seen[..., 0])
    return [chosen.data_ptr(), counts.data_ptr()]


def _sizes(options: IndexedOptions) -> dict[str, int]:
    return {name: getattr(options, name) for name in ("block_size", "top_k", "index_heads", "index_dim")}


def _grids(shapes: list[Shape], *, quick: bool = True) -> dict[str, list[Shape]]:
    return {FULL: shapes, QUICK: shapes[:1] if quick else [], TINY: []}


def _tiny(shapes: list[Shape]) -> dict[str, list[Shape]]:
    return {FULL: [], QUICK: [], TINY: shapes}


def _shape(batch: int, tokens: int, heads: int = 64, kv_heads: int = 4) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=heads, kv_heads=kv_heads, head_dim=128)


def _scored_bytes(options: IndexedOptions, shape: Shape, element_bytes: int) -> float:
    """Of index queries, keys and weights."""
    weights = options.index_heads if options.scorer == "relu" else 0
    row = options.index_heads * options.index_dim + weights + options.index_dim / options.block_size
    return float(element_bytes * shape.total * row)


def _scored(options: IndexedOptions, shape: Shape, draw: Draw, queries: int) -> dict[str, Tensor]:
    """What the last so many tokens are scored by."""
    heads, width, batch = options.index_heads, options.index_dim, shape.batch
    inputs = {
        "queries": draw.normal(batch, queries, heads, width),
        "keys": draw.normal(batch, shape.tokens // options.block_size, width),
    }
    if options.scorer == "relu":
        inputs["weights"] = draw.normal(batch, queries, heads)
    return inputs


def _inputs(options: IndexedOptions, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    counts = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    drawn = {name: draw.normal(shape.batch, shape.tokens, count, shape.head_dim) for name, count in counts.items()}
    return drawn | _scored(options, shape, draw, shape.tokens)


def _step_inputs(options: IndexedOptions, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    q = draw.normal(shape.batch, shape.heads, shape.head_dim)
    rows = {name: draw.normal(shape.batch, shape.tokens, shape.kv_heads, shape.head_dim) for name in ("k", "v")}
    return {"q": q, **rows} | _scored(options, shape, draw, 1)


def _choice(options: IndexedOptions, x: Inputs) -> Choice:
    scale = float(options.index_dim**-0.5)

    def scores(part: slice) -> Tensor:
        weights = x["weights"][:, part] if "weights" in x else None
        return relu_scores(x["queries"][:, part], x["keys"], weights) * scale

    def products() -> Products:
        keys = x["keys"][:, :, None]
        return Products(queries=x["queries"], keys=keys, weights=x.get("weights"), summed=True, scale=scale)

    return Choice(rule=options.rule, scores=scores, choosers=1, products=products)


def _run(options: IndexedOptions, x: Inputs, impl: str) -> Outputs:
    return (indexed_attention(x["q"], x["k"], x["v"], _places(x["q"]), _choice(options, x), impl=impl),)


def _run_step(options: IndexedOptions, x: Inputs, impl: str) -> Outputs:
    q, batch, keys = x["q"][:, None], x["k"].shape[0], x["k"].shape[1]
    last = torch.full((batch, 1), keys - 1, device=q.device)
    return (indexed_attention(q, x["k"], x["v"], last, _choice(options, x), impl=impl)[:, 0],)


def _lists(options: IndexedOptions, x: Inputs, impl: str) -> Outputs:
    """Lists in ascending order, -1 at their ends, as numbers `[B, T, 1, slots]`: the kernel makes them so."""
    queries, tokens = x["queries"], x["queries"].shape[1]
    chosen, _ = listed_blocks(_choice(options, x), _places(queries), tokens, impl=impl)
    if impl != "triton":
        chosen = torch.where(chosen < 0, tokens, chosen).sort(-1).values
        chosen = torch.where(chosen < tokens, chosen, -1)[..., :tokens]
    return (chosen.unflatten(0, (-1, tokens)).float(),)


def _places(x: Tensor) -> Tensor:
    return torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
