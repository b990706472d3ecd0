"""Scorers: what each keeps of the keys, asks of it, and how well it says that a block fits."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from archsearch.mixer import ModelShape
from archsearch.model.attention import normed
from archsearch.ops.block_sparse import block_scores
from archsearch.ops.cache import write_rows
from archsearch.ops.completed import first_positions, rows_of, touched, write_complete
from archsearch.ops.host import readable
from archsearch.ops.index_scores import relu_scores
from archsearch.ops.rings import in_order, written
from archsearch.ops.rotary import rotary_of

from .choice import best_of_block, bound_scores, group_scores
from .cost import index_heads
from .options import IndexedOptions
from .products import Products
from .query_scale import QueryScale
from .summaries import block_sums, bounds, means, means_after, most_asked, pooled, sum_of, write_blocks


@dataclass(frozen=True)
class Tokens:
    """T new tokens: ``x`` `[B, T, D]`, ``q`` `[B, T, Hq, D]` and ``positions`` `[B, T]`, after ``lengths`` `[B]` others
    at ``order`` `[B, T]` of their sequences; ``low`` `[B, T, R]`: what queries are made from; ``k`` `[B, S, Hkv, D]`:
    the cache of keys with theirs. ``fresh``: they are whole sequences: what is kept of each token needs no cache.
    ``near``: where q and k are not turned by their own places, the queries that are, and such keys `[B, R + T, Hkv, D]`
    of the R tokens before too."""

    x: Tensor
    q: Tensor
    k: Tensor
    _: KW_ONLY
    low: Tensor
    positions: Tensor
    order: Tensor
    lengths: Tensor
    fresh: bool
    near: tuple[Tensor, Tensor] | None = None

    @property
    def turned(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, T, Hq, D]` and keys `[B, n, Hkv, D]` as they meet in the window, and which token of its sequence
        the first of these keys is, `[B]`."""
        if self.near is None:
            return self.q, self.k, torch.zeros_like(self.lengths)
        return *self.near, self.lengths - (self.near[1].shape[1] - self.order.shape[1])


class Scorer(nn.Module):
    """By the products of a query head with the keys themselves, of which a block counts with its best: exact top-k."""

    def __init__(self, options: IndexedOptions, shape: ModelShape) -> None:
        super().__init__()
        self.block_size, self.together = options.block_size, options.choose == "together"

    def ask(self, new: Tokens) -> tuple[Tensor, ...]:
        """What `score` needs of the queries, each `[B, T, ...]`; of them the first has its heads in axis 2."""
        if not self.together:
            return (new.q,)
        return (new.q.unflatten(2, (new.k.shape[2], -1)).sum(3).flatten(2)[:, :, None],)

    def remember(self, new: Tokens, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scorer's tensors of the state, `kept`, with the new tokens; T is 1 at least."""
        return {}

    def units(self, tensors: dict[str, Tensor], blocks: int) -> Tensor:
        """What is scored of the first `blocks` blocks, `[B, rows(blocks), ...]` of the state's tensors."""
        return self.joined(tensors["k"][:, : self.rows(blocks)])

    def joined(self, units: Tensor) -> Tensor:
        """`units` `[B, n, Hkv, D]` as one head where query heads choose together: the products of all add up to that of
        the sums over the groups with the keys of all key heads side by side."""
        return units.flatten(2)[:, :, None] if self.together else units

    def rows(self, blocks: int) -> int:
        """Rows of `units` of so many blocks."""
        return blocks * self.block_size

    def score(self, part: slice, q: Tensor, units: Tensor, *more: Tensor) -> Tensor:
        """Scores `[B, Hc, t, n]` of blocks for a slice of what `ask` gave, q and `more`."""
        return best_of_block(block_scores(q[:, part], units), self.block_size)

    def products(self, q: Tensor, units: Tensor, *more: Tensor) -> Products:
        """What `score` makes the scores of, for kernels."""
        return Products(queries=q, keys=units, units=self.block_size)


class SummaryScorer(Scorer):
    """By the products of a query head with one summary of each block, or with its bounds (Quest)."""

    def __init__(self, options: IndexedOptions, shape: ModelShape) -> None:
        super().__init__(options, shape)
        self.summary, heads = options.summary, (shape.n_kv_heads, shape.head_dim)
        self.pool = nn.Parameter(torch.zeros(heads)) if self.summary == "softmax" else None

    def remember(self, new: Tokens, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        written = write_blocks(kept["summary"], new.k, new.lengths, new.order.shape[1], self.block_size, self._of)
        return {"summary": written}

    def _of(self, keys: Tensor) -> Tensor:
        if self.pool is not None:
            return pooled(keys, self.pool)
        return bounds(keys) if self.summary == "minmax" else means(keys)

    def units(self, tensors: dict[str, Tensor], blocks: int) -> Tensor:
        return self.joined(tensors["summary"][:, :blocks])

    def rows(self, blocks: int) -> int:
        return blocks

    def score(self, part: slice, q: Tensor, units: Tensor, *more: Tensor) -> Tensor:
        return bound_scores(q[:, part], units) if self.summary == "minmax" else block_scores(q[:, part], units)

    def products(self, q: Tensor, units: Tensor, *more: Tensor) -> Products:
        if self.summary != "minmax":
            return Products(queries=q, keys=units)
        queries = torch.cat((q.clamp(max=0), q.clamp(min=0)), dim=-1)
        return Products(queries=queries, keys=units.transpose(2, 3).flatten(3))


class RepresentativeScorer(SummaryScorer):
    """By the keys of a block that the tokens behind it asked most for (InfLLM): their sum, in the row of the block that
    completes what is counted. Of all queries of the next block the sum says how much; or of each key the mean of the
    ``counted`` queries after it, the last of which are kept."""

    def __init__(self, options: IndexedOptions, shape: ModelShape) -> None:
        super().__init__(options, shape)
        self.count, self.counted = options.representatives, options.counted
        self.before = max(1, options.counted // options.block_size)

    def remember(self, new: Tokens, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        q, k, first = new.turned
        asked = q.unflatten(2, (k.shape[2], -1)).sum(3)
        ring, size = kept["asked"], self.block_size
        blocks, complete = touched(new.lengths, new.order.shape[1], size)
        complete = complete & (blocks >= self.before)
        none = readable(complete) and not bool(complete.any())
        if not self.counted:
            sums, last = block_sums(ring, asked, new.lengths, size)
        elif none:
            last = written(ring, asked, new.lengths)
        else:
            rows = means_after(in_order(ring, asked.to(ring.dtype), new.lengths), self.counted)
            sums = rows_of(rows, blocks - self.before, size, new.lengths - ring.shape[1] - 1)
            last = written(ring, asked, new.lengths)
        if none:
            return {"summary": kept["summary"], "asked": last}
        keys = rows_of(k, blocks - self.before, size, first)
        places = most_asked(keys, sums[:, : keys.shape[1]], self.count)
        if new.near is not None:
            keys = rows_of(new.k, blocks - self.before, size)
        return {"summary": write_complete(kept["summary"], blocks, complete, sum_of(keys, places)), "asked": last}

    def units(self, tensors: dict[str, Tensor], blocks: int) -> Tensor:
        return self.joined(tensors["summary"][:, self.before : blocks + self.before])


class Asker(Scorer):
    """Small heads that ask index keys which another layer keeps: of DSA ("relu": heads are weighted), "relu-sum" and
    MiniMax-M3 ("group": a head for each key head), where queries have an RMSNorm."""

    def __init__(self, options: IndexedOptions, shape: ModelShape) -> None:
        super().__init__(options, shape)
        width, self.heads, self.grouped = options.index_dim, index_heads(options, shape), options.scorer == "group"
        self.unit = 1 if options.summary in ("mean", "gated") else options.block_size
        self.detached, weighted = options.learn == "distilled", options.scorer == "relu"
        asked = options.q_rank or shape.d_model
        self.input_norm = nn.LayerNorm(asked, eps=1e-6) if options.index_norm else None
        self.query = nn.Linear(asked, self.heads * width, bias=False)
        self.add_key(options, shape)
        self.weights = nn.Linear(shape.d_model, self.heads, bias=False) if weighted else None
        self.query_norm = None if weighted else nn.RMSNorm(width, eps=1e-6)
        self.query_scale = QueryScale(self.heads) if options.query_scale else None
        self.rotary = rotary_of(width, options, learned=options.rope_learned)

    def add_key(self, options: IndexedOptions, shape: ModelShape) -> None:
        """Builds what makes the key, where the scorer keeps one."""

    def ask(self, new: Tokens) -> tuple[Tensor, ...]:
        x, low = self._seen(new.x), self._seen(new.low)
        low = low if self.input_norm is None else self.input_norm(low).to(low.dtype)
        queries = torch.unflatten(self.query(low), -1, (self.heads, -1))
        if self.query_norm is not None:
            queries = normed(self.query_norm, queries)
        if self.query_scale is not None:
            queries = self.query_scale(new.positions, queries)
        queries = self.rotary(new.positions, queries)
        return (queries,) if self.weights is None else (queries, self.weights(x) * self.heads**-0.5)

    def units(self, tensors: dict[str, Tensor], blocks: int) -> Tensor:
        return tensors["index"][:, : self.rows(blocks)]

    def rows(self, blocks: int) -> int:
        return blocks * self.unit

    def score(self, part: slice, q: Tensor, units: Tensor, *more: Tensor) -> Tensor:
        return best_of_block(self._products(part, q, units, *more), self.unit)

    def products(self, q: Tensor, units: Tensor, *more: Tensor) -> Products:
        return Products(
            queries=q,
            keys=units[:, :, None],
            weights=more[0] if more else None,
            summed=not self.grouped,
            units=self.unit,
            scale=float(units.shape[-1] ** -0.5),
        )

    def _seen(self, x: Tensor) -> Tensor:
        return x.detach() if self.detached else x

    def _products(self, part: slice, q: Tensor, units: Tensor, *more: Tensor) -> Tensor:
        scale = float(units.shape[-1] ** -0.5)
        if self.grouped:
            return group_scores(q[:, part], units) * scale
        return relu_scores(q[:, part], units, *(weights[:, part] for weights in more)) * scale


class Indexer(Asker):
    """The same with one key a token that they share, under a LayerNorm ("relu") or an RMSNorm."""

    def add_key(self, options: IndexedOptions, shape: ModelShape) -> None:
        width, weighted = options.index_dim, options.scorer == "relu"
        self.key = nn.Linear(shape.d_model, width, bias=False)
        self.key_norm = nn.LayerNorm(width, eps=1e-6) if weighted else nn.RMSNorm(width, eps=1e-6)

    def remember(self, new: Tokens, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        keys = self.finished(self.key(self._seen(new.x)), new.positions)
        return {"index": keys if new.fresh else write_rows(kept["index"], new.order, keys)}

    def finished(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys `[B, n, I]`, normed and turned by `positions` `[B, n]`."""
        norm = self.key_norm
        even = normed(norm, keys) if isinstance(norm, nn.RMSNorm) else norm(keys).to(keys.dtype)
        turned: Tensor = self.rotary(positions, even[:, :, None])[:, :, 0]
        return turned


class BlockIndexer(Indexer):
    """The same over the mean key of a block, normed after and turned by the position of the block's first token (QSA).

    No index key of a token is kept, but the sum of those of the incomplete block, and its first position.
    """

    def remember(self, new: Tokens, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        keys, count, size = self.key(self._seen(new.x)), new.order.shape[1], self.block_size
        sums, last = block_sums(kept["sum"], keys, new.lengths, size)
        places = first_positions(kept["place"][:, :, 0], new.positions, new.lengths, size)
        of_last = ((new.lengths % size + count - 1) // size)[:, None]
        where = touched(new.lengths, count, size)
        found = where[0].shape[1]
        index = self.finished((sums[:, :found] / size).to(keys.dtype), places[:, :found])
        return {
            "index": write_complete(kept["index"], *where, index),
            "sum": last,
            "place": places.gather(1, of_last)[..., None],
        }


class PooledIndexer(Indexer):
    """The same over one pool of the keys of a complete block: a mean that is weighted, each channel by itself, by the
    softmax over the block of W_g x and a learned bias for each place (GLM-5.3-Flash).

    Beside the pools the keys and gates of the incomplete block are kept.
    """

    def __init__(self, options: IndexedOptions, shape: ModelShape) -> None:
        super().__init__(options, shape)
        self.gate = nn.Linear(shape.d_model, options.index_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(options.block_size, options.index_dim))

    def remember(self, new: Tokens, kept: dict[str, Tensor]) -> dict[str, Tensor]:
        x, ring, size = self._seen(new.x), kept["raw"], self.block_size
        raw = torch.stack((self.finished(self.key(x), new.positions), self.gate(x)), dim=2)
        blocks, complete = touched(new.lengths, new.order.shape[1], size)
        rows = in_order(ring, raw, new.lengths)
        place = blocks[..., None] * size + torch.arange(size, device=x.device)
        place = (place - new.lengths[:, None, None] + ring.shape[1]).clamp(0, rows.shape[1] - 1)
        keys, gates = rows[torch.arange(len(x), device=x.device)[:, None, None], place].unbind(3)
        wide = torch.promote_types(gates.dtype, torch.float32)
        weights = (gates.to(wide) + self.bias.to(wide)).softmax(2).to(keys.dtype)
        pools = write_complete(kept["index"], blocks, complete, (weights * keys).sum(2))
        return {"index": pools, "raw": written(ring, raw, new.lengths)}


def scorer_of(options: IndexedOptions, shape: ModelShape) -> Scorer:
    """The scorer that the options ask for."""
    if options.scorer != "attention":
        kinds = {"mean": BlockIndexer, "gated": PooledIndexer}
        return kinds.get(options.summary, Indexer)(options, shape)
    if options.summary == "representative":
        return RepresentativeScorer(options, shape)
    return (Scorer if options.summary == "none" else SummaryScorer)(options, shape)
