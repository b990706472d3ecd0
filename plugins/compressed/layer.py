"""The layer of attention over compressed entries, and its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.attention import normed, token_indices
from archsearch.ops.host import readable
from archsearch.ops.laid_out import packed_lengths
from archsearch.ops.rings import in_order, written
from archsearch.ops.rotary import rotary_of

from .compressor import Compressor, block_positions, kept_rows, last_place
from .grouped import GroupedLinear
from .index import Asked, Index
from .ops import Seen, compressed_attention
from .options import CompressedOptions


@dataclass(frozen=True, kw_only=True)
class _Read:
    """T tokens: queries ``q`` `[B, T, H, D]` at ``positions`` `[B, T]`, what they may see, what they ask of the index,
    and the state's tensors after them (empty for whole sequences)."""

    q: Tensor
    positions: Tensor
    seen: Seen
    asked: Asked | None
    tensors: dict[str, Tensor]


class CompressedAttention(Mixer):
    """No gradient of the output reaches the index, and none of the index's loss the input."""

    def __init__(
        self, plugin: MixerPlugin[Any], options: CompressedOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.heads, self.width, self.given = shape.n_heads, shape.head_dim, options
        ranked = options.q_rank
        self.q_down = nn.Linear(shape.d_model, ranked, bias=False) if ranked else None
        self.q_norm = nn.RMSNorm(ranked, eps=1e-6) if ranked else None
        self.q_up = nn.Linear(ranked or shape.d_model, self.heads * self.width, bias=False)
        self.row = nn.Linear(shape.d_model, self.width, bias=False) if options.window else None
        self.row_norm = nn.RMSNorm(self.width, eps=1e-6) if options.window and options.norm else None
        self.compressor = Compressor(shape.d_model, self.width, options, norm=options.norm)
        self.index = Index(options, shape) if options.top_k else None
        self.sink = nn.Parameter(torch.zeros(self.heads)) if options.sink else None
        groups, wide = options.out_groups, self.heads * self.width
        self.out_down = GroupedLinear(groups, wide, groups * options.out_rank) if groups else None
        self.out = nn.Linear(groups * options.out_rank if groups else wide, shape.d_model, bias=False)
        self.rotary = rotary_of(self.width, options)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is None:
            return self._sequences(x, ctx), None
        state.check_room(x.shape[1], ctx.held)
        read = self._extended(x, ctx.positions_of(x, state.lengths), state)
        return self._attended(read), state.after(read.tensors, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`. On a card, and inside `torch.compile`, it is the caller who keeps within the
        capacity."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        x = x_t[:, None]
        read = self._extended(x, ctx.positions_of(x, state.lengths), state)
        return self._attended(read)[:, 0], state.after(read.tensors, 1)

    def _sequences(self, x: Tensor, ctx: Context) -> Tensor:
        """Whole sequences, packed ones each by itself; in training the loss of the index is added."""
        positions, tokens = ctx.positions_of(x), x.shape[1]
        lengths = [tokens] if ctx.cu_seqlens is None else packed_lengths(ctx.cu_seqlens, tokens)
        learning = self.training and self.index is not None
        taught = ctx.teacher.attention(self.layer.index) if learning and ctx.teacher is not None else None
        outputs, losses, end = list[Tensor](), list[Tensor](), 0
        for length in filter(None, lengths):
            span, end = slice(end, end + length), end + length
            read = self._whole(x[:, span], positions[:, span])
            outputs.append(self._attended(read))
            if learning and self.index is not None and read.asked is not None:
                own = None if taught is None else taught[:, None, span, span]
                losses.append(self.index.loss(read.asked, read.q, read.seen, own))
        if losses:
            ctx.add_loss("compressed", torch.stack(losses).sum() / (x.shape[0] * tokens))
        return torch.cat(outputs, dim=1) if outputs else 0 * x

    def _whole(self, x: Tensor, positions: Tensor) -> _Read:
        order = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        q, low = self._queries(x, positions)
        entries = self.compressor.whole(self.compressor.raw(x), positions)
        asked = None
        if self.index is not None:
            unseen = x.detach()
            units = self.index.compressor.whole(self.index.compressor.raw(unseen), positions)
            asked = self.index.ask(unseen, low.detach(), positions, units)
        return self._read(q, positions, self._rows(x, positions), entries, order, asked, {})

    def _extended(self, x: Tensor, positions: Tensor, state: MixerState) -> _Read:
        """After a state, whose tensors are those with the new tokens."""
        kept, lengths, count, size = state.tensors, state.lengths, x.shape[1], self.given.block_size
        q, low = self._queries(x, positions)
        rows, tensors = self._rows(x, positions), dict(kept)
        places = block_positions(kept.get("place"), positions, lengths, size) if count else positions
        if count:
            tensors |= self._remembered(self.compressor, "entry", x, state, places)
        if self.index is not None and count:
            tensors |= self._remembered(self.index.compressor, "index", x.detach(), state, places)
        if "window" in kept and count:
            ring, new = kept["window"], rows
            rows = in_order(ring, new, lengths)
            tensors["window"] = written(ring, new, lengths)
        if "place" in kept and count:
            tensors["place"] = last_place(places, lengths, count, size)
        there = (state.most + count) // size
        asked = None
        if self.index is not None:
            units = tensors["index"][:, :there].to(x.dtype)
            asked = self.index.ask(x.detach(), low.detach(), positions, units)
        entries = tensors["entry"][:, :there].to(x.dtype)
        return self._read(q, positions, rows, entries, token_indices(state, count), asked, tensors)

    def _remembered(
        self, compressor: Compressor, name: str, x: Tensor, state: MixerState, places: Tensor
    ) -> dict[str, Tensor]:
        """The tensors of one compressor with the tokens `x` `[B, T, D]`."""
        raw, names = compressor.raw(x), [f"{name}_raw{series}" for series in range(compressor.series)]
        none = x.new_zeros(len(x), 0, compressor.parts, compressor.width)
        rings = tuple(state.tensors.get(key, none) for key in names)
        entries = compressor.extend(state.tensors[name], raw, rings, state.lengths, places)
        after = zip(names, kept_rows(rings, raw, state.lengths), strict=True)
        return {name: entries, **{key: ring for key, ring in after if key in state.tensors}}

    def _read(
        self,
        q: Tensor,
        positions: Tensor,
        rows: Tensor,
        entries: Tensor,
        order: Tensor,
        asked: Asked | None,
        tensors: dict[str, Tensor],
    ) -> _Read:
        given, chooses = self.given, asked is not None and entries.shape[1] > self.given.top_k
        seen = Seen(
            rows=rows,
            entries=entries,
            order=order,
            window=given.window,
            block_size=given.block_size,
            top_k=given.top_k,
            scores=asked.scores if asked is not None and chooses else None,
        )
        return _Read(q=q, positions=positions, seen=seen, asked=asked, tensors=tensors)

    def _queries(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q `[B, T, H, D]`, and what it is made from."""
        low = x if self.q_down is None or self.q_norm is None else normed(self.q_norm, self.q_down(x))
        q = self.q_up(low).unflatten(-1, (self.heads, self.width))
        q = F.rms_norm(q, (self.width,), None, 1e-6) if self.given.norm else q
        return self.rotary(positions, q), low

    def _rows(self, x: Tensor, positions: Tensor) -> Tensor:
        """The window's rows `[B, T, D]` of new tokens; without a window none is made."""
        if self.row is None:
            return x.new_zeros(len(x), x.shape[1], self.width)
        rows = self.row(x)
        rows = rows if self.row_norm is None else normed(self.row_norm, rows)
        turned: Tensor = self.rotary(positions, rows[:, :, None])[:, :, 0]
        return turned

    def _attended(self, read: _Read) -> Tensor:
        """`[B, T, d_model]`: values are turned as keys are, and outputs turned back by their query's position."""
        o = compressed_attention(read.q, read.seen, self.sink)
        heads = self.rotary(read.positions, o, back=True).flatten(2)
        out: Tensor = self.out(heads if self.out_down is None else self.out_down(heads))
        return out
