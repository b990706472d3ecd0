"""The layer of attention over what an index chooses, and its cache: keys, values, and what is scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.ops.cache import write_rows
from archsearch.ops.divergence import dense_weights
from archsearch.ops.host import readable
from archsearch.ops.laid_out import packed_lengths

from .choice import Choice
from .cost import choosers
from .distil import divergence
from .ops import indexed_attention
from .options import IndexedOptions
from .scorers import Tokens, scorer_of


@dataclass(frozen=True, kw_only=True)
class Made:
    """What is made of the tokens ``x`` `[B, T, D]` at ``positions`` `[B, T]` apart from each other: ``low``, what their
    queries come from, ``q`` `[B, T, Hq, D]`, and the ``rows`` `[B, T, ...]` that the cache keeps of them."""

    x: Tensor
    low: Tensor
    positions: Tensor
    q: Tensor
    rows: dict[str, Tensor]

    def part(self, span: slice) -> Made:
        """Of some of the tokens."""
        x, low, positions, q = (one[:, span] for one in (self.x, self.low, self.positions, self.q))
        rows = {name: one[:, span] for name, one in self.rows.items()}
        return Made(x=x, low=low, positions=positions, q=q, rows=rows)


@dataclass(frozen=True, kw_only=True)
class Read:
    """T tokens at ``order`` `[B, T]` of their sequences: what they ask, and the cache with them.

    ``q`` `[B, T, Hq, D]`; ``k``, ``v`` `[B, S, Hkv, D]` of the rows that are filled; ``asked`` of the scorer, and
    ``units``, what it scores, of the blocks that may be chosen; ``after``: the state after them.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    asked: tuple[Tensor, ...]
    units: Tensor
    order: Tensor
    after: MixerState


class Indexed(Mixer):
    """Scores, the blocks that they choose, and attention over these alone, in every form; a subclass says what is
    attended to, by `low`, `made`, `attended`, `mixed` and `written`.

    With ``learn="distilled"`` no gradient of the output reaches the scorer, and none of the scorer's loss the input;
    while a teacher has the dense stage on, training attends to everything.
    """

    def choose_by(self, options: IndexedOptions, shape: ModelShape) -> None:
        """Builds what scores."""
        self.rule, self.choosers, self.learn = options.rule, choosers(options, shape), options.learn
        self.scorer = scorer_of(options, shape)

    def low(self, x: Tensor) -> Tensor:
        """What the queries of the tokens `x` `[B, T, D]` are made from, those of small heads too."""
        return x

    def made(self, x: Tensor, low: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries `[B, T, Hq, D]`, and what the cache keeps of the tokens `x` `[B, T, D]` at `positions` `[B, T]`."""
        raise NotImplementedError

    def attended(self, q: Tensor, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of the filled `rows` `[B, S, ...]` of the cache, in the dtype of q."""
        raise NotImplementedError

    def mixed(self, o: Tensor, read: Read) -> Tensor:
        """Values `[B, T, Hq, D]` of what attention mixed, `[B, T, Hq, Dv]`."""
        return o

    def written(self, o: Tensor, x: Tensor) -> Tensor:
        """Heads `[B, T, Hq, Dv]` of the tokens `x` `[B, T, D]` to the model `[B, T, D]`."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        empty = state is None
        state = self.state_for(x, state, ctx)
        if state is None:
            return self.written(self._sequences(x, ctx), x), None
        if not empty:
            state.check_room(x.shape[1], ctx.held)
        read = self._read(self._made(x, state.lengths, ctx), state)
        return self.written(self._attend(read), x), read.after

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`. On a card, and inside `torch.compile`, it is the caller who keeps within the
        capacity."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        x = x_t[:, None]
        read = self._read(self._made(x, state.lengths, ctx), state)
        return self.written(self._attend(read), x)[:, 0], read.after

    def _sequences(self, x: Tensor, ctx: Context) -> Tensor:
        """Outputs `[B, T, Hq, D]` of whole sequences, packed ones each by itself; in training the loss is added."""
        made, tokens = self._made(x, None, ctx), x.shape[1]
        lengths = [tokens] if ctx.cu_seqlens is None else packed_lengths(ctx.cu_seqlens, tokens)
        learning = self.training and self.learn == "distilled"
        dense = learning and ctx.teacher is not None and ctx.teacher.dense
        taught = ctx.teacher.attention(self.layer.index) if learning and ctx.teacher is not None else None
        outputs, losses, end = list[Tensor](), list[Tensor](), 0
        for length in filter(None, lengths):
            span, end = slice(end, end + length), end + length
            read = self._read(made.part(span), None)
            outputs.append(self._attend(read, dense=dense))
            if learning:
                losses.append(self._loss(read, None if taught is None else taught[:, None, span, span]))
        if losses:
            ctx.add_loss("indexed", torch.stack(losses).sum() / (x.shape[0] * tokens))
        if outputs:
            return torch.cat(outputs, dim=1)
        return made.q[..., : self.shape.head_dim]

    def _made(self, x: Tensor, lengths: Tensor | None, ctx: Context) -> Made:
        positions, low = ctx.positions_of(x, lengths), self.low(x)
        q, rows = self.made(x, low, positions)
        if "v" in rows:
            rows["v"] = self.mix_values(rows["v"], ctx)
        return Made(x=x, low=low, positions=positions, q=q, rows=rows)

    def _read(self, made: Made, state: MixerState | None) -> Read:
        """Tokens after a state or, without one, as whole sequences."""
        x, q, rows = made.x, made.q, made.rows
        fresh, count = state is None, x.shape[1]
        state = self.init_state(len(x), count, dtype=x.dtype, device=x.device) if state is None else state
        order, kept = token_indices(state, count), state.tensors
        tensors = {name: new if fresh else write_rows(kept[name], order, new) for name, new in rows.items()}
        k, lengths = tensors.get("k", q), state.lengths
        new = Tokens(x, q, k, low=made.low, positions=made.positions, order=order, lengths=lengths, fresh=fresh)
        with torch.set_grad_enabled(self.learn != "none" and torch.is_grad_enabled()):
            asked = self.scorer.ask(new)
            scored = self.scorer.remember(new, kept) if count else {}
        after = state.after({**kept, **tensors, **scored}, count)
        q, k, v = self.attended(q, {name: after.tensors[name][:, : after.most].to(q.dtype) for name in rows})
        units = self.scorer.units(after.tensors, self.rule.edge(after.most - 1)).to(q.dtype)
        return Read(q=q, k=k, v=v, asked=asked, units=units, order=order, after=after)

    def _attend(self, read: Read, *, dense: bool = False) -> Tensor:
        """`[B, T, Hq, D]`; nothing is scored where every candidate is taken as it is, as in the `dense` stage."""
        rule = replace(self.rule, top_k=max(self.rule.top_k, read.after.most)) if dense else self.rule
        there, gated = rule.edge(read.after.most - 1) - rule.first, self.learn == "gates"
        ranked = there > (0 if gated else rule.top_k)
        asked, *more = read.asked
        before = read.after.most - read.q.shape[1]
        scores = (lambda part: self._score(part, before, asked, read.units, *more)) if ranked else None
        choice = Choice(
            rule=rule,
            scores=scores,
            choosers=self.choosers if ranked else 1,
            gated=gated,
            products=partial(self.scorer.products, asked, read.units, *more) if ranked else None,
        )
        return self.mixed(indexed_attention(read.q, read.k, read.v, read.order, choice), read)

    def _score(self, part: slice, before: int, asked: Tensor, units: Tensor, *more: Tensor) -> Tensor:
        """Scores of a slice of the tokens that come after `before` others at most, of the blocks that those may see."""
        rows = self.scorer.rows(self.rule.edge(before + part.stop - 1))
        scores: Tensor = self.scorer.score(part, asked, units[:, :rows], *more)
        return scores

    def _loss(self, read: Read, taught: Tensor | None) -> Tensor:
        """The divergence of what the scorer says from what is `taught` `[B, 1, T, T]`, else from what the layer's own
        queries and keys attend to where nothing is dropped; of whole sequences, summed over the tokens."""
        q, k = read.q.detach(), read.k.detach()

        def target(part: slice) -> Tensor:
            if taught is not None:
                return taught[:, :, part, : part.stop].float()
            seen = torch.arange(part.stop, device=q.device) <= read.order[:, None, part, None]
            return dense_weights(q[:, part], k[:, : part.stop], seen, self.choosers)

        def score(part: slice, *leaves: Tensor) -> Tensor:
            return self._score(part, 0, *leaves)

        asked, *more = read.asked
        return divergence(score, (asked, read.units, *more), target, read.order, self.rule)


class IndexedAttention(Indexed, AttentionMixer):
    """Over keys and values of heads."""

    def __init__(self, plugin: MixerPlugin[Any], options: IndexedOptions, shape: ModelShape, layer: LayerInfo) -> None:
        AttentionMixer.__init__(
            self,
            plugin,
            options,
            shape,
            layer,
            rope=options.rope,
            rope_base=options.rope_base,
            qk_norm=options.qk_norm,
        )
        if options.output_gate:
            self.add_gate()
        self.choose_by(options, shape)

    def made(self, x: Tensor, low: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        q, k, v = self.project(x, positions)
        return q, {"k": k, "v": v}

    def attended(self, q: Tensor, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return q, rows["k"], rows["v"]

    def written(self, o: Tensor, x: Tensor) -> Tensor:
        return self.output(self.gated(o, x))
