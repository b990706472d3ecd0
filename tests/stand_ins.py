"""Mixers that stand in for others': a pair side by side, one that shares, one that reads what was shared."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from archsearch.composite import CompositePlugin
from archsearch.mixer import (
    Flops,
    Layer,
    LayerInfo,
    MixerOptions,
    MixerPlugin,
    ModelShape,
    Phase,
    StateTensor,
    Traffic,
    Tunable,
)
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.composite import CompositeMixer


class PairOptions(MixerOptions):
    a: Annotated[Layer, Tunable("kda", "sliding(window=4)")] = "kda"  # type: ignore[assignment]
    b: Layer = "sliding(window=4)"  # type: ignore[assignment]


class ManyOptions(MixerOptions):
    of: tuple[Layer, ...] = ("full",)  # type: ignore[assignment]


class Sum(CompositeMixer):
    """The outputs of all parts, summed."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        state, total, tensors = self.state_for(x, state, ctx), torch.zeros_like(x), dict[str, Tensor]()
        for index in range(len(self.parts)):
            y, new = self.run(index, x, state=state, ctx=ctx)
            total, tensors = total + y, tensors | new
        return total, None if state is None else state.after(tensors, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        total, tensors = torch.zeros_like(x_t), dict[str, Tensor]()
        for index in range(len(self.parts)):
            y, new = self.run_step(index, x_t, state=state, ctx=ctx)
            total, tensors = total + y, tensors | new
        return total, state.after(tensors, 1)


class PairPlugin(CompositePlugin[PairOptions]):
    name, family, summary, options, api_version = "pair", "hybrid", "two side by side", PairOptions, 2
    presets: ClassVar = {"pair-full": {"a": "full", "b": "full(rope=0.0)"}}

    def build(self, options: PairOptions, shape: ModelShape, layer: LayerInfo) -> Sum:
        return Sum(self, options, shape, layer)


class ManyPlugin(CompositePlugin[ManyOptions]):
    name, family, summary, options, api_version = "many", "hybrid", "many side by side", ManyOptions, 2

    def build(self, options: ManyOptions, shape: ModelShape, layer: LayerInfo) -> Sum:
        return Sum(self, options, shape, layer)


class _Free(MixerPlugin[MixerOptions]):
    """Without weights, costs or state."""

    family: ClassVar[Literal["other"]] = "other"
    options, api_version = MixerOptions, 2

    def params(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 0

    def flops(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return Flops()

    def traffic(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return Traffic()

    def state(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return ()


class Giving(_Free):
    name, summary = "giving", "hands its input to later layers"

    def build(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        return _Gives(self, options, shape, layer)


class Taking(_Free):
    """Adds what the nearest layer before it gave; costs a parameter's worth of FLOPs a layer between them."""

    name, summary, reads_pattern = "taking", "adds what an earlier layer gave", True

    def check(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return None if self.giver(layer) is not None else "no layer before it gives anything: put giving before it"

    def flops(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        giver = self.giver(layer)
        assert giver is not None
        return Flops(elementwise=float(layer.index - giver))

    def build(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        return _Takes(self, options, shape, layer)

    @staticmethod
    def giver(layer: LayerInfo) -> int | None:
        """The nearest layer before that gives."""
        found = [index for index, earlier in enumerate(layer.earlier) if earlier.mixer == "giving"]
        return found[-1] if found else None


class _Gives(Mixer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, Any]:
        ctx.share(self.layer, "input", x)
        state = self.state_for(x, state, ctx)
        return x, None if state is None else state.after({}, x.shape[1])


class _Takes(Mixer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, Any]:
        giver = Taking.giver(self.layer)
        assert giver is not None
        state = self.state_for(x, state, ctx)
        return x + 2 * ctx.shared_by(giver, "input"), None if state is None else state.after({}, x.shape[1])
