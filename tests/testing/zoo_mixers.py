"""Two sound mixers of the zoo: attention with a cache of one row a token, and a sum kept by powers of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from archsearch.mixer import (
    Flops,
    LayerInfo,
    MixerOptions,
    MixerPlugin,
    ModelShape,
    Phase,
    StateTensor,
    Traffic,
)
from archsearch.model import Context, Mixer, MixerState


class NoOptions(MixerOptions):
    """None."""


class CachePlugin(MixerPlugin[NoOptions]):
    """Softmax attention of one head, as wide as the model."""

    name = "zoo-cache"
    api_version = 2
    family = "full"
    summary = "attention of one head"
    options = NoOptions

    def params(self, options: NoOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 4 * shape.d_model**2

    def flops(self, options: NoOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        tokens, pairs = (1, context) if phase == "decode" else (context, context**2 / 2)
        return Flops(matmul=8.0 * shape.d_model**2 * tokens + 4.0 * shape.d_model * pairs, exp=float(pairs))

    def traffic(self, options: NoOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        row = 2.0 * shape.d_model * shape.dtype_bytes
        return Traffic(read_bytes=context * row, written_bytes=row)

    def state(self, options: NoOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return tuple(
            StateTensor(name=name, row_shape=(shape.d_model,), dtype=shape.dtype, role="kv", stride=1)
            for name in ("k", "v")
        )

    def build(self, options: NoOptions, shape: ModelShape, layer: LayerInfo) -> CacheLayer:
        return CacheLayer(self, options, shape, layer)


class CacheLayer(Mixer):
    """Attention to all rows of the cache."""

    def __init__(self, plugin: MixerPlugin[Any], options: NoOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.qkv = nn.Linear(shape.d_model, 3 * shape.d_model, bias=False)
        self.out = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def order(self, x: Tensor, state: MixerState | None, ctx: Context) -> Tensor:
        """The index of each token in its sequence, `[B, T]`."""
        return ctx.order_of(x, None if state is None else state.lengths)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        state = self.state_for(x, state, ctx)
        q, k, v = self.qkv(x).chunk(3, -1)
        v = self.valued(v, ctx)
        order = self.order(x, state, ctx)
        if state is None:
            return self.attend(q, k, v, self.visible(order, ctx)), None
        held = int(state.lengths.max()) + x.shape[1]
        kept = {"k": self.written(state, "k", order, k), "v": self.written(state, "v", order, v)}
        seen = torch.arange(held) <= order[..., None]
        return self.attend(q, kept["k"][:, :held], kept["v"][:, :held], seen), state.after(kept, x.shape[1])

    def valued(self, v: Tensor, ctx: Context) -> Tensor:
        """Values `[B, T, D]`, of one head, as they are read and kept."""
        return self.mix_values(v[:, :, None], ctx)[:, :, 0]

    def visible(self, order: Tensor, ctx: Context) -> Tensor:
        """`[B, T, T]`: earlier tokens of one's own sequence."""
        first = torch.arange(order.shape[1]) - order  # of each token's own sequence, [B, T]
        return (order[:, None] <= order[..., None]) & (first[:, None] == first[..., None])

    def written(self, state: MixerState, name: str, order: Tensor, rows: Tensor) -> Tensor:
        """The cache with the new rows in it."""
        return state.tensors[name].scatter(1, order[..., None].expand_as(rows), rows)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """The output `[B, T, D]`."""
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
        out: Tensor = self.out(scores.softmax(-1) @ v)
        return out


class LevelsPlugin(MixerPlugin[NoOptions]):
    """The mean of all tokens, kept as sums of 1, 2, 4, ... tokens."""

    name = "zoo-levels"
    api_version = 2
    family = "memory"
    summary = "a sum by powers of two"
    options = NoOptions

    def params(self, options: NoOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 2 * shape.d_model**2

    def flops(self, options: NoOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return Flops(matmul=4.0 * shape.d_model**2 * (1 if phase == "decode" else context))

    def traffic(self, options: NoOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        all_rows = context.bit_length() * shape.d_model * 4.0
        return Traffic(
            read_bytes=all_rows,
            written_bytes=2 * shape.d_model * 4.0,  # a token carries one level on the mean, and writes another
            peak_read_bytes=all_rows,
            peak_written_bytes=max(all_rows, 2 * shape.d_model * 4.0),
        )

    def state(self, options: NoOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="sums", row_shape=(shape.d_model,), dtype="float32", role="summary", log2=True),)

    def build(self, options: NoOptions, shape: ModelShape, layer: LayerInfo) -> LevelsLayer:
        return LevelsLayer(self, options, shape, layer)


class LevelsLayer(Mixer):
    """A binary counter of sums: level l holds 2^l tokens where that bit of the length is set, else zeros."""

    def __init__(self, plugin: MixerPlugin[Any], options: NoOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.down = nn.Linear(shape.d_model, shape.d_model, bias=False)
        self.up = nn.Linear(shape.d_model, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        state = self.state_for(x, state, ctx)
        values, counts = self.down(x).float(), ctx.order_of(x, None if state is None else state.lengths) + 1
        sums = x.new_zeros(len(x), 20, x.shape[2]).float() if state is None else state.tensors["sums"]
        totals = []
        for value, count in zip(values.unbind(1), counts.unbind(1), strict=True):
            sums = torch.where((count == 1)[:, None, None], 0.0, sums)  # the first of a packed sequence
            sums = self.carried(sums, value, count)
            held = 2 ** torch.arange(sums.shape[1]) <= count[:, None]
            totals.append(torch.where(held[..., None], sums, 0.0).sum(1))
        mean = torch.stack(totals, 1) / counts[..., None] if totals else values
        after = None if state is None else state.after({"sums": sums}, x.shape[1])
        return self.up(mean.to(x.dtype)), after

    def carried(self, sums: Tensor, value: Tensor, count: Tensor) -> Tensor:
        """The counter one token later: full levels below the first free one are emptied into it."""
        levels = torch.arange(sums.shape[1])
        free = (count & -count).float().log2().long()[:, None]  # [B, 1]
        below, at = (levels < free)[..., None], (levels == free)[..., None]
        full = torch.where(below, sums, 0.0).sum(1, keepdim=True) + value[:, None]
        return torch.where(below, 0.0, torch.where(at, full, sums))


def planted(
    layer: type[Mixer] | None = None, base: type[MixerPlugin[Any]] = CachePlugin, **members: Any
) -> MixerPlugin[Any]:
    """A mixer of the zoo: `base` with another layer, and with `members` in the place of its own."""

    class Planted(base):  # type: ignore[misc, valid-type]
        presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

        def build(self, options: Any, shape: ModelShape, info: LayerInfo) -> Mixer:
            if layer is None:
                return super().build(options, shape, info)  # type: ignore[no-any-return]
            return layer(self, options, shape, info)

    for name, member in members.items():
        setattr(Planted, name, member)
    return Planted()
