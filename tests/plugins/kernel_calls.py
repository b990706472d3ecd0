"""Every op that has kernels, called at any length: whole sequences with their gradients, and decode steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from archsearch_plugins.full.ops import full_attention, full_attention_step
from archsearch_plugins.indexed.choice import Choice
from archsearch_plugins.indexed.ops import indexed_attention
from archsearch_plugins.indexed.options import Rule
from archsearch_plugins.indexed.products import Products
from archsearch_plugins.latent.ops import latent_attention_absorbed
from archsearch_plugins.linear.ops import linear_attention, linear_attention_step
from archsearch_plugins.linear.tokens import Removal, Tokens
from archsearch_plugins.moba.ops import moba_attention, moba_attention_step
from archsearch_plugins.moba.triton.table import TABLE as MOBA
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.nsa.step import NsaCache, nsa_attention_step
from archsearch_plugins.nsa.triton.table import TABLE as NSA
from archsearch_plugins.sliding.ops import window_attention, window_attention_step
from torch import Tensor

from archsearch.ops.block_cache import BlockCache, write_mean
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.launch import conv as launch_conv
from archsearch.ops.triton.launch import gates as launch_gates
from archsearch.ops.triton.launch import norms as launch_norms

RULES, DECAYS = ("hebbian", "delta"), ("none", "constant", "head", "channel")
REMOVALS = (("late", "none"), ("late", "channel"), ("early", "head"), ("early", "channel"), ("apart", "channel"))
NSA_SIZES = NsaSizes(block_size=4, top_k=3, window=5)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """`tokens` of each of `batch` sequences, or rows of their caches; packed: 3 sequences end to end, one empty;
    continued: the queries of softmax attention are the later half of what each sequence has filled of its rows."""

    tokens: int
    batch: int = 1
    heads: int = 2
    kv_heads: int = 2
    dim: int = 16
    packed: bool = False
    continued: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def bounds(self) -> Tensor | None:
        return torch.tensor([0, self.tokens // 2, self.tokens // 2, self.tokens]) if self.packed else None

    @property
    def filled(self) -> Tensor | None:
        """Tokens that each sequence has, the queries among them."""
        return self.lengths() if self.continued else None

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        draw = torch.Generator().manual_seed(len(shape))
        return torch.randn(shape, generator=draw).to(dtype or self.dtype).requires_grad_(torch.is_grad_enabled())

    def rows(self, heads: int) -> Tensor:
        """`[B, S, heads, D]`."""
        return self.normal(self.batch, self.tokens, heads, self.dim)

    @property
    def queries(self) -> int:
        return (self.tokens + 1) // 2 if self.continued else self.tokens

    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.rows(self.heads)[:, : self.queries], self.rows(self.kv_heads), self.rows(self.kv_heads)

    def laid(self) -> LaidOut:
        return LaidOut(*self.qkv(), cu_seqlens=self.bounds, lengths=self.filled)

    def query(self) -> Tensor:
        """Of one token a sequence, `[B, Hq, D]`."""
        return self.normal(self.batch, self.heads, self.dim)

    def means(self, block_size: int) -> Tensor:
        """One row a block of the cache."""
        return self.normal(self.batch, -(-self.tokens // block_size), self.kv_heads, self.dim)

    def lengths(self) -> Tensor:
        """Tokens that each sequence has so far."""
        return torch.full((self.batch,), max(self.queries if self.continued else 1, self.tokens - 2))


def _full(sizes: Sizes) -> list[Tensor]:
    return [full_attention(sizes.laid(), impl="triton")]


def _sliding(sizes: Sizes) -> list[Tensor]:
    return [window_attention(sizes.laid(), window=5, sinks=2, impl="triton")]


def _moba_of(sizes: Sizes, top_k: int) -> list[Tensor]:
    return [moba_attention(sizes.laid(), block_size=4, top_k=top_k, impl="triton")]


def _moba(sizes: Sizes) -> list[Tensor]:
    return _moba_of(sizes, 2)


def _moba_own_block(sizes: Sizes) -> list[Tensor]:
    return _moba_of(sizes, 1)


def _nsa(sizes: Sizes) -> list[Tensor]:
    gates = sizes.normal(sizes.batch, sizes.queries, sizes.heads, 3)
    return [nsa_attention(sizes.laid(), gates=gates, sizes=NSA_SIZES, impl="triton")]


def _indexed_of(sizes: Sizes, q: Tensor, places: Tensor, *, block_size: int, summed: bool) -> Tensor:
    """q `[B, t, Hq, D]` over caches of as many rows as there are tokens; by blocks each head chooses for itself."""
    k, units = sizes.rows(sizes.kv_heads), sizes.tokens // block_size * block_size
    asked = {"queries": q, "keys": k[:, :units]}
    if summed:
        one = k[:, :units, :1]
        asked = {"queries": q, "keys": one, "weights": sizes.normal(*q.shape[:3]), "summed": True}
    choice = Choice(
        rule=Rule(block_size=block_size, top_k=2, tail=summed, local=0, first=1),
        scores=lambda part: sizes.normal(0),
        choosers=1 if summed else sizes.heads,
        products=lambda: Products(**asked, units=block_size),
    )
    return indexed_attention(q, k, sizes.rows(sizes.kv_heads), places, choice, impl="triton")


def _indexed(sizes: Sizes) -> list[Tensor]:
    places = torch.arange(sizes.tokens).expand(sizes.batch, -1)
    return [_indexed_of(sizes, sizes.rows(sizes.heads), places, block_size=4, summed=False)]


def _removal(read: Tensor, rule: str) -> Removal:
    """Late or early, along the written key, or early along what it reads by."""
    return Removal(read=read, along=read if rule == "apart" else None, early=rule != "late")


def _linear(rule: str, decay: str) -> Callable[[Sizes], list[Tensor]]:
    def call(sizes: Sizes) -> list[Tensor]:
        shape = (sizes.batch, sizes.tokens, sizes.heads, sizes.dim)
        gates = {"constant": shape[2:3], "head": shape[:3], "channel": shape}.get(decay)
        rows = 3 if sizes.packed else sizes.batch
        tokens = Tokens(
            sizes.rows(sizes.kv_heads),
            sizes.rows(sizes.kv_heads),
            sizes.rows(sizes.heads),
            log_decay=None if gates is None else -sizes.normal(*gates, dtype=torch.float32).abs(),
            beta=sizes.normal(*shape[:3], dtype=torch.float32).sigmoid() if rule == "delta" else None,
            removal=_removal(sizes.normal(*shape), rule) if rule in dict(REMOVALS) else None,
        )
        o, last = linear_attention(
            tokens,
            initial_state=sizes.normal(rows, sizes.heads, sizes.dim, sizes.dim, dtype=torch.float32),
            cu_seqlens=sizes.bounds,
            impl="triton",
        )
        return [o, last]

    return call


def _features(sizes: Sizes) -> Tensor:
    """`[B, T, C]`, a slice of wider rows."""
    channels = sizes.heads * sizes.dim
    return sizes.normal(sizes.batch, sizes.tokens, 2 * channels)[..., :channels]


def _conv(sizes: Sizes) -> list[Tensor]:
    places = None
    if sizes.packed:
        half = sizes.tokens // 2
        places = torch.cat((torch.arange(half), torch.arange(sizes.tokens - half)))[None]
    x = _features(sizes)
    weight = sizes.normal(4, x.shape[2], dtype=torch.float32)
    return [launch_conv.conv(x, weight, None, places, "silu")]


def _unit_length(sizes: Sizes) -> list[Tensor]:
    return [launch_norms.unit_length(torch.unflatten(_features(sizes), -1, (sizes.heads, -1)))[0]]


def _gated_norm(sizes: Sizes) -> list[Tensor]:
    weight = sizes.normal(sizes.dim, dtype=torch.float32)
    return [launch_norms.gated_norm(sizes.rows(sizes.heads), weight, _features(sizes), "silu", 1e-6)]


def _rates(sizes: Sizes) -> list[Tensor]:
    x = _features(sizes)
    bias, rate = (sizes.normal(size, dtype=torch.float32) for size in (x.shape[2], sizes.heads))
    return list(launch_gates.gate(x, bias, rate, "rate", 1.0, True))


def _log_sigmoid(sizes: Sizes) -> list[Tensor]:
    return [launch_gates.gate(_features(sizes), None, None, "logsigmoid", 16.0, False)[0]]


SEQUENCES: dict[str, Callable[[Sizes], list[Tensor]]] = {
    **{f"linear-{rule}-{decay}": _linear(rule, decay) for rule in RULES for decay in DECAYS},
    **{f"removal-{rule}-{decay}": _linear(rule, decay) for rule, decay in REMOVALS},
    "full": _full,
    "sliding": _sliding,
    "moba": _moba,
    "moba-own-block": _moba_own_block,
    "nsa": _nsa,
    "indexed": _indexed,
    "short_conv": _conv,
    "unit_length": _unit_length,
    "gated_norm": _gated_norm,
    "gate-rate": _rates,
    "gate-logsigmoid": _log_sigmoid,
}
"""Outputs of whole sequences, differentiable."""

CONTINUED = ("full", "sliding", "moba", "moba-own-block", "nsa")
"""Those whose queries may come after tokens that a cache holds."""


APART = ("indexed",)
"""Those whose layers call them for each packed sequence by itself."""

LAID_OUT = [(op, packed) for packed in (False, True) for op in SEQUENCES if not (packed and op in APART)]
"""Each of `SEQUENCES`, and whether sequences are packed."""


def run_sequence(op: str, sizes: Sizes) -> None:
    """The forward and the backward of one of `SEQUENCES`."""
    outputs = [out for out in SEQUENCES[op](sizes) if out.requires_grad]
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])


def _full_step(sizes: Sizes) -> Tensor:
    k = sizes.rows(sizes.kv_heads)
    return full_attention_step(sizes.query(), k, k, sizes.lengths(), impl="triton")


def _sliding_step(sizes: Sizes) -> Tensor:
    k = sizes.rows(sizes.kv_heads)
    return window_attention_step(sizes.query(), k, k, sizes.lengths(), impl="triton")


def _moba_step(sizes: Sizes) -> Tensor:
    k, lengths = sizes.rows(sizes.kv_heads), sizes.lengths()
    means = write_mean(sizes.means(4), k, lengths, block_size=4, table=MOBA, impl="triton")
    cache = BlockCache(k=k, v=k, means=means, lengths=lengths)
    return moba_attention_step(sizes.query(), cache, block_size=4, top_k=2, impl="triton")


def _nsa_step(sizes: Sizes) -> Tensor:
    k, lengths, gates = sizes.rows(sizes.kv_heads), sizes.lengths(), sizes.normal(sizes.batch, sizes.heads, 3)
    means = write_mean(sizes.means(4), k, lengths, block_size=4, table=NSA, impl="triton")
    cache = NsaCache(k=k, v=k, k_means=means, v_means=means, lengths=lengths)
    return nsa_attention_step(sizes.query(), cache, gates=gates, sizes=NSA_SIZES, impl="triton")


def _indexed_step(sizes: Sizes) -> Tensor:
    q, last = sizes.query()[:, None], sizes.lengths()[:, None] - 1
    return _indexed_of(sizes, q, last, block_size=1, summed=True)[:, 0]


def _latent_step(sizes: Sizes) -> Tensor:
    """Values as wide as `dim`, of latents as wide; a fourth as many channels of a shared key."""
    shared = -(-sizes.dim // 4)
    q = sizes.normal(sizes.batch, 1, sizes.heads, sizes.dim + shared)
    rows, up = (
        sizes.normal(sizes.batch, sizes.tokens, sizes.dim + shared),
        sizes.normal(sizes.heads, 2, *2 * (sizes.dim,)),
    )
    return latent_attention_absorbed(q, rows, up, sizes.lengths()[:, None] - 1, impl="triton")[:, 0]


def _linear_step(*, in_place: bool, rule: str = "delta") -> Callable[[Sizes], Tensor]:
    def call(sizes: Sizes) -> Tensor:
        wide = {"dtype": torch.float32}
        q, v = sizes.normal(sizes.batch, sizes.kv_heads, sizes.dim), sizes.query()
        state = sizes.normal(sizes.batch, sizes.heads, sizes.dim, sizes.dim, **wide)
        token = Tokens(
            q,
            q,
            v,
            log_decay=-sizes.normal(*v.shape, **wide).abs(),
            beta=sizes.normal(*v.shape[:2], **wide) if rule == "delta" else None,
            removal=None if rule == "delta" else _removal(v, rule),
        )
        return linear_attention_step(token, state, in_place=in_place, impl="triton")[0]

    return call


def _conv_step(sizes: Sizes) -> Tensor:
    x = sizes.query().flatten(1)
    tail = sizes.normal(sizes.batch, 3, x.shape[1]).contiguous()  # it is written in place
    return launch_conv.conv_token(x, sizes.normal(4, x.shape[1], dtype=torch.float32), tail, "silu").view_as(
        sizes.query()
    )


STEPS: dict[str, Callable[[Sizes], Tensor]] = {
    "full": _full_step,
    "sliding": _sliding_step,
    "moba": _moba_step,
    "nsa": _nsa_step,
    "indexed": _indexed_step,
    "latent": _latent_step,
    "linear": _linear_step(in_place=False),
    "linear-in-place": _linear_step(in_place=True),
    "removal-early": _linear_step(in_place=True, rule="early"),
    "removal-apart": _linear_step(in_place=False, rule="apart"),
    "short_conv": _conv_step,
}
"""`[B, Hq, D]` of one token a sequence, where `tokens` are the rows of the caches."""
