"""A decode step by kernels reads its rows and no others: the rest of the cache may hold NaN or infinity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from archsearch_plugins.full.ops import full_attention_step
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.tokens import Tokens
from archsearch_plugins.moba import ops as moba
from archsearch_plugins.nsa import ops as nsa
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.nsa.step import NsaCache, nsa_attention_step
from archsearch_plugins.sliding.ops import window_attention, window_attention_step
from kernel_checks import ratio
from torch import Tensor

from archsearch.ops.block_cache import BlockCache
from archsearch.ops.laid_out import LaidOut

ROWS = 100
POISON = torch.tensor([torch.nan, torch.inf]).repeat(ROWS)[:, None, None]
"""For caches `[B, rows, H, D]`, of NaN and infinity by turns."""

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Tokens of each sequence so far, the new one included, of a cache of `ROWS`."""

    lengths: tuple[int, ...]
    heads: int = 2
    key_heads: int = 1
    dim: int = 16
    block_size: int = 8
    top_k: int = 3
    window: int = 11
    dtype: torch.dtype = torch.float32

    @property
    def last(self) -> Tensor:
        return torch.tensor(self.lengths) - 1

    def normal(self, *shape: int) -> Tensor:
        draw = torch.Generator().manual_seed(sum(self.lengths) + len(shape) + shape[1])
        return torch.randn(len(self.lengths), *shape, generator=draw).to(self.dtype)

    def query(self) -> Tensor:
        return self.normal(self.heads, self.dim)

    def cache(self) -> dict[str, Tensor]:
        """Rows of keys and values, and the means of their blocks, of incomplete ones too."""
        rows = {name: self.normal(ROWS + n, self.key_heads, self.dim)[:, n:] for n, name in enumerate(("k", "v"))}
        short = -ROWS % self.block_size
        for name in ("k", "v"):
            filled = torch.cat((rows[name], rows[name][:, :short]), dim=1)
            rows[f"{name}_means"] = filled.unflatten(1, (-1, self.block_size)).mean(2)
        return rows

    def past_rows(self) -> Tensor:
        """Those up to the new token's, `[B, rows, Hkv]`."""
        return (torch.arange(ROWS) <= self.last[:, None])[..., None].expand(-1, -1, self.key_heads)

    def rows_of(self, chosen: Tensor) -> Tensor:
        """Those of the blocks `[B, Hkv, K]`, -1 for none, up to the new token's."""
        block = torch.arange(ROWS)[:, None, None] // self.block_size
        return (chosen[:, None] == block).any(-1) & self.past_rows()


Call = Callable[[Sizes, Tensor, dict[str, Tensor], str], Tensor]
Needs = Callable[[Sizes, Tensor, dict[str, Tensor]], dict[str, Tensor]]


def all_past(sizes: Sizes, q: Tensor, cache: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"k": sizes.past_rows(), "v": sizes.past_rows()}


def moba_needs(sizes: Sizes, q: Tensor, cache: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each key head: what one of its query heads chose; the means of the past blocks, where there is a choice."""
    own = sizes.last // sizes.block_size
    means = cache["k_means"]
    chosen = moba.choose_blocks(q[:, None], means, own[:, None], sizes.top_k)[:, :, 0]
    rows = sizes.rows_of(chosen.unflatten(1, (sizes.key_heads, -1)).flatten(2))
    ranked = (torch.arange(means.shape[1]) < own[:, None]) & (own >= sizes.top_k)[:, None]
    return {"k": rows, "v": rows, "k_means": ranked[..., None].expand(-1, -1, sizes.key_heads)}


def nsa_needs(sizes: Sizes, q: Tensor, cache: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a key head chose and the window's; the means of complete blocks."""
    complete = (torch.arange(cache["k_means"].shape[1]) < (sizes.last + 1)[:, None] // sizes.block_size)[..., None]
    positions = sizes.last[:, None]
    weights = nsa.mean_weights(q[:, None], cache["k_means"], positions, sizes.block_size, sizes.dim**-0.5)
    chosen = nsa.choose_blocks(weights, positions // sizes.block_size, sizes.key_heads, sizes.top_k)[:, :, 0]
    near = (torch.arange(ROWS) > sizes.last[:, None] - sizes.window)[..., None] & sizes.past_rows()
    rows, means = sizes.rows_of(chosen) | near, complete.expand(-1, -1, sizes.key_heads)
    return {"k": rows, "v": rows, "k_means": means, "v_means": means}


def full(sizes: Sizes, q: Tensor, cache: dict[str, Tensor], impl: str) -> Tensor:
    return full_attention_step(q, cache["k"], cache["v"], sizes.last + 1, impl=impl)


def sliding(sizes: Sizes, q: Tensor, cache: dict[str, Tensor], impl: str) -> Tensor:
    return window_attention_step(q, cache["k"], cache["v"], sizes.last + 1, impl=impl)


def moba_step(sizes: Sizes, q: Tensor, cache: dict[str, Tensor], impl: str) -> Tensor:
    options = {"block_size": sizes.block_size, "top_k": sizes.top_k}
    held = BlockCache(k=cache["k"], v=cache["v"], means=cache["k_means"], lengths=sizes.last + 1)
    return moba.moba_attention_step(q, held, impl=impl, **options)


def nsa_step(sizes: Sizes, q: Tensor, cache: dict[str, Tensor], impl: str) -> Tensor:
    seen = NsaSizes(block_size=sizes.block_size, top_k=sizes.top_k, window=sizes.window)
    gates = sizes.normal(sizes.heads, 3)
    return nsa_attention_step(q, NsaCache(**cache, lengths=sizes.last + 1), gates=gates, sizes=seen, impl=impl)


STEPS: dict[str, tuple[Call, Needs]] = {
    "full": (full, all_past),
    "sliding": (sliding, all_past),
    "moba": (moba_step, moba_needs),
    "nsa": (nsa_step, nsa_needs),
}
CASES = {
    "grouped": Sizes(lengths=(97, 1, 40), heads=4, key_heads=2),
    "D60-fp16": Sizes(lengths=(71, 64), dim=60, dtype=torch.float16),
    "many-blocks-of-1": Sizes(lengths=(66, 40), block_size=1, top_k=5, window=3),
    "own-block-alone": Sizes(lengths=(33, 32), heads=3, top_k=1, window=2),
    "all-blocks": Sizes(lengths=(31, 9), top_k=4),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("op", STEPS)
def test_other_rows_may_hold_anything(op: str, case: str) -> None:
    call, needs = STEPS[op]
    sizes = CASES[case]
    q, cache = sizes.query(), sizes.cache()
    clean = call(sizes, q, cache, "triton")
    exact = call(sizes, q.double(), {name: x.double() for name, x in cache.items()}, "chunkwise")
    assert ratio(clean, exact) < (1e-5 if sizes.dtype == torch.float32 else 5e-3)
    needed = needs(sizes, q, cache)
    none = torch.zeros(1, 1, 1, dtype=torch.bool)
    spoilt = {
        name: torch.where(needed.get(name, none)[..., None], x, POISON[: x.shape[1]].to(x.dtype))
        for name, x in cache.items()
    }
    assert torch.equal(call(sizes, q, spoilt, "triton"), clean)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize("op", STEPS)
def test_every_row_that_is_needed_is_read(op: str) -> None:
    """Each by itself makes the output NaN: no kernel hides one that it read."""
    call, needs = STEPS[op]
    sizes = Sizes(lengths=(97,), heads=2, key_heads=1)
    q, cache = sizes.query(), sizes.cache()
    for name, needed in needs(sizes, q, cache).items():
        if name == "k_means" and op == "moba":
            continue  # a mean decides what is read, and is no part of the output
        rows = needed[0, :, 0].nonzero().flatten().tolist()
        for row in {rows[0], rows[len(rows) // 2], rows[-1]}:
            spoilt = {**cache, name: cache[name].index_fill(1, torch.tensor([row]), torch.nan)}
            assert call(sizes, q, spoilt, "triton").isnan().any(), f"row {row} of {name}"


SEQUENCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linear": lambda q, k, v: linear_attention(Tokens(q, k, v), impl="triton")[0],
    "sliding": lambda q, k, v: window_attention(LaidOut(q, k, v), window=40, sinks=1, impl="triton"),
    "moba": lambda q, k, v: moba.moba_attention(LaidOut(q, k, v), block_size=4, top_k=6, impl="triton"),
    "nsa": lambda q, k, v: nsa.nsa_attention(
        LaidOut(q, k, v),
        gates=torch.ones(*q.shape[:3], 3),
        sizes=NsaSizes(block_size=4, top_k=6, window=3),
        impl="triton",
    ),
}


@pytest.mark.filterwarnings("ignore:All-NaN slice", "ignore:invalid value encountered")
@pytest.mark.parametrize("op", SEQUENCES)
@pytest.mark.parametrize("name", ["k", "v"])
def test_a_token_that_is_not_a_number_shows_from_there_on(op: str, name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 22, heads, 16, generator=draw) for heads in (2, 1, 1))
    v = v.expand(-1, -1, 2, -1) if op == "linear" else v
    spoilt = {"k": k, "v": v.contiguous()}
    spoilt[name] = spoilt[name].index_fill(1, torch.tensor([5]), torch.nan)
    out = SEQUENCES[op](q[:, :, :1] if op == "linear" else q, spoilt["k"], spoilt["v"])
    assert out[:, 5:].isnan().any(-1).all()
