"""The layer of attention over what an index chooses, and its cache: keys, values, and what is scored."""

from __future__ import annotations

from dataclasses import replace
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
from archsearch.ops.rings import in_order, written
from archsearch.ops.rotary import Rotary, rotary_of

from .choice import Choice
from .cost import choosers
from .distil import divergence
from .listing import with_blocks
from .made import NOTHING, Handed, Lesson, Lessons, Made, Read
from .ops import indexed_attention
from .options import IndexedOptions
from .query_scale import QueryScale
from .scorers import Scorer, Tokens

NAME, TURNS, LESSONS = "index", "turns", "lessons"
"""Under which a layer hands what it made to later ones that take it, what turned its latents, where that is learned,
and what later ones teach its index by."""


class Indexed(Mixer):
    """Scores, the blocks that they choose, and attention over these alone, in every form; a subclass says what is
    attended to, by `low`, `made`, `attended`, `mixed` and `written`.

    With ``learn="distilled"`` no gradient of the output reaches the scorer, and none of the scorer's loss the input;
    while a teacher has the dense stage on, training attends to everything.
    """

    rotary: Rotary

    def choose_by(self, scorer: Scorer | None, options: IndexedOptions) -> None:
        """Takes what scores by the rule of `options`; None where the choice is an earlier layer's."""
        self.rule, self.choosers = options.rule, choosers(options, self.shape)
        self.learn = "none" if scorer is None else options.learn
        self.over_chosen = options.learn_over == "chosen"
        self.scorer = scorer
        self.query_scale = QueryScale(self.shape.n_heads) if options.query_scale else None

    def given(self, ctx: Context, at: int) -> Handed:
        """What an earlier layer made of sequence `at` of this pass."""
        return NOTHING

    def taught(self, ctx: Context) -> Lessons | None:
        """What an earlier layer handed of an index of its own which the layer teaches; None where none is."""
        return None

    def low(self, x: Tensor) -> Tensor:
        """What the queries of the tokens `x` `[B, T, D]` are made from, those of small heads too."""
        return x

    def made(
        self, x: Tensor, low: Tensor, positions: Tensor, rotary: Rotary | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Queries `[B, T, Hq, D]`, and what the cache keeps of the tokens `x` `[B, T, D]` at `positions` `[B, T]`; they
        are turned by `rotary`, of none by the layer's own."""
        raise NotImplementedError

    def turned_by(self, ctx: Context) -> Rotary:
        """What turns the queries, as the keys that they meet were turned."""
        return self.rotary

    def asking(self, q: Tensor) -> Tensor:
        """Of the queries `[B, T, Hq, ...]` what scores are made with, `[B, T, Hq, D]`."""
        return q

    def turned(self, q: Tensor, near: Tensor) -> tuple[Tensor, Tensor] | None:
        """Queries and keys as they meet in the window, where these are kept apart from the others, else None."""
        return None

    def attention(self, read: Read, choice: Choice) -> Tensor:
        """`[B, T, Hq, D]` over what is chosen."""
        return indexed_attention(read.q, read.k, read.v, read.order, choice)

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
        return self._continued(x, state, ctx)

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`. On a card, and inside `torch.compile`, it is the caller who keeps within the
        capacity."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        y, after = self._continued(x_t[:, None], state, ctx)
        return y[:, 0], after

    def _continued(self, x: Tensor, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        read = self._read(self._made(x, state.lengths, ctx), state, self.given(ctx, 0))
        o, handed = self._attend(read)
        self._hand_on([handed], ctx)
        return self.written(o, x), read.after

    def _sequences(self, x: Tensor, ctx: Context) -> Tensor:
        """Outputs `[B, T, Hq, D]` of whole sequences, packed ones each by itself; in training the loss is added."""
        made, tokens = self._made(x, None, ctx), x.shape[1]
        lengths = [tokens] if ctx.cu_seqlens is None else packed_lengths(ctx.cu_seqlens, tokens)
        earlier = self.taught(ctx) if self.training else None
        learning = self.training and (self.learn == "distilled" or earlier is not None)
        dense = learning and ctx.teacher is not None and ctx.teacher.dense
        taught = ctx.teacher.attention(self.layer.index) if learning and ctx.teacher is not None else None
        outputs, losses, handed, end = list[Tensor](), list[Tensor](), list[Handed](), 0
        lessons = list[Lesson]()
        for length in filter(None, lengths):
            span, end = slice(end, end + length), end + length
            read = self._read(made.part(span), None, self.given(ctx, len(handed)))
            o, made_here = self._attend(read, dense=dense)
            outputs.append(o)
            handed.append(made_here)
            if learning:
                own = None if taught is None else taught[:, None, span, span]
                lessons.append(self._lesson(read) if earlier is None else earlier.of[len(lessons)])
                losses.append(self._loss(read, lessons[-1], own, dense=dense))
        self._hand_on(handed, ctx)
        if losses:
            found = torch.stack(losses).sum() / (x.shape[0] * tokens)
            self._teach(Lessons(of=tuple(lessons), loss=found), earlier, ctx)
        if outputs:
            return torch.cat(outputs, dim=1)
        return made.q[..., : self.shape.head_dim]

    def _teach(self, lessons: Lessons, earlier: Lessons | None, ctx: Context) -> None:
        """Adds the loss; where earlier layers teach the same index, what makes theirs the mean with it."""
        if earlier is not None:
            layers = earlier.layers + 1
            mean = (earlier.loss * earlier.layers + lessons.loss) / layers
            lessons = Lessons(of=lessons.of, loss=mean, layers=layers)
        ctx.add_loss("indexed", lessons.loss if earlier is None else lessons.loss - earlier.loss)
        if LESSONS in self.taken:
            ctx.share(self.layer, LESSONS, lessons)

    def _lesson(self, read: Read) -> Lesson:
        asked, *more = read.asked
        assert read.units is not None, "a scorer that learns has index keys"
        return Lesson(score=self._scored, leaves=(asked, read.units, *more))

    def _scored(self, part: slice, *leaves: Tensor) -> Tensor:
        return self._score(part, 0, *leaves)

    def _made(self, x: Tensor, lengths: Tensor | None, ctx: Context) -> Made:
        positions, low = ctx.positions_of(x, lengths), self.low(x)
        q, rows = self.made(x, low, positions, self.turned_by(ctx))
        if "v" in rows:
            rows["v"] = self.mix_values(rows["v"], ctx)
        if self.query_scale is not None:
            q = self.query_scale(positions, q)
        return Made(x=x, low=low, positions=positions, q=q, near=rows.pop("near", None), rows=rows)

    def _read(self, made: Made, state: MixerState | None, given: Handed) -> Read:
        """Tokens after a state or, without one, as whole sequences."""
        x, q, rows = made.x, made.q, made.rows
        fresh, count = state is None, x.shape[1]
        state = self.init_state(len(x), count, dtype=x.dtype, device=x.device) if state is None else state
        order, kept, lengths = token_indices(state, count), state.tensors, state.lengths
        near = made.near if fresh or made.near is None else in_order(kept["near"], made.near, lengths)
        tensors = {name: new if fresh else write_rows(kept[name], order, new) for name, new in rows.items()}
        if made.near is not None:
            tensors["near"] = made.near if fresh else written(kept["near"], made.near, lengths)
        new = Tokens(
            x,
            self.asking(q),
            tensors.get("k", q),
            low=made.low,
            positions=made.positions,
            order=order,
            lengths=lengths,
            fresh=fresh,
            near=None if near is None else self.turned(q, near),
        )
        asked, scored, units = tuple[Tensor, ...](), dict[str, Tensor](), given.units
        if self.scorer is not None:
            with torch.set_grad_enabled(self.learn != "none" and torch.is_grad_enabled()):
                asked = self.scorer.ask(new)
                scored = self.scorer.remember(new, kept) if count else {}
        after = state.after({**kept, **tensors, **scored}, count)
        if self.scorer is not None and units is None:
            units = self.scorer.units(after.tensors, self.rule.edge(after.most - 1)).to(q.dtype)
        found = given.rows or {name: after.tensors[name][:, : after.most] for name in rows}
        q, k, v = self.attended(q, {name: kind.to(q.dtype) for name, kind in found.items()})
        return Read(
            q=q, k=k, v=v, asked=asked, units=units, order=order, after=after, rows=found, given=given, near=near
        )

    def _attend(self, read: Read, *, dense: bool = False) -> tuple[Tensor, Handed]:
        """`[B, T, Hq, D]`, and what later layers may take."""
        choice = read.given.choice or self._choice(read, dense=dense)
        o = self.mixed(self.attention(read, choice), read)
        return o, Handed(choice=choice, rows=read.rows, units=read.units)

    def _hand_on(self, handed: list[Handed], ctx: Context) -> None:
        if NAME in self.taken:
            ctx.share(self.layer, NAME, handed)
        if TURNS in self.taken:
            ctx.share(self.layer, TURNS, self.turned_by(ctx))

    def _choice(self, read: Read, *, dense: bool) -> Choice:
        """Nothing is scored where every candidate is taken as it is, as in the `dense` stage. What later layers take is
        found once."""
        assert self.scorer is not None, "a layer without a scorer is given its choice"
        rule = replace(self.rule, top_k=max(self.rule.top_k, read.after.most)) if dense else self.rule
        there, gated = rule.edge(read.after.most - 1) - rule.first, self.learn == "gates"
        ranked = there > (0 if gated else rule.top_k)
        if not ranked or read.units is None:
            return Choice(rule=rule, scores=None, choosers=1, gated=gated)
        (asked, *more), units = read.asked, read.units
        before = read.after.most - read.q.shape[1]
        choice = Choice(
            rule=rule,
            scores=lambda part: self._score(part, before, asked, units, *more),
            choosers=self.choosers,
            gated=gated,
            products=partial(self.scorer.products, asked, units, *more),
        )
        told = NAME in self.taken and read.q.numel() > 0
        return with_blocks(choice, read.order, read.k.shape[1]) if told else choice

    def _score(self, part: slice, before: int, asked: Tensor, units: Tensor, *more: Tensor) -> Tensor:
        """Scores of a slice of the tokens that come after `before` others at most, of the blocks that those may see."""
        assert self.scorer is not None, "a layer without a scorer scores nothing"
        rows = self.scorer.rows(self.rule.edge(before + part.stop - 1))
        scores: Tensor = self.scorer.score(part, asked, units[:, :rows], *more)
        return scores

    def _loss(self, read: Read, lesson: Lesson, taught: Tensor | None, *, dense: bool) -> Tensor:
        """The divergence of what the index says from what is `taught` `[B, 1, T, T]`, else from what the layer's own
        queries and keys attend to where nothing is dropped; of whole sequences, summed over the tokens."""
        q, k = read.q.detach(), read.k.detach()

        def target(part: slice) -> Tensor:
            if taught is not None:
                return taught[:, :, part, : part.stop].float()
            seen = torch.arange(part.stop, device=q.device) <= read.order[:, None, part, None]
            return dense_weights(q[:, part], k[:, : part.stop], seen, self.choosers)

        over_chosen = self.over_chosen and not dense
        return divergence(lesson.score, lesson.leaves, target, read.order, self.rule, chosen=over_chosen)


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
        self.rotary = rotary_of(self.head_dim, options, learned=options.rope_learned)
        if options.output_gate:
            self.add_gate()

    def made(
        self, x: Tensor, low: Tensor, positions: Tensor, rotary: Rotary | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        q, k, v = self.project(x, positions)
        return q, {"k": k, "v": v}

    def attended(self, q: Tensor, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return q, rows["k"], rows["v"]

    def written(self, o: Tensor, x: Tensor) -> Tensor:
        return self.output(self.gated(o, x))
