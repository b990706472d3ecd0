"""The zoo's mixers whose figures are wrong: parameters, states, products, bytes moved, and where they are dense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from zoo import ANIMALS, BYTES, FLOPS, PARAMS, PEAK, READS, STEP, Animal, animal
from zoo_mixers import CacheLayer, CachePlugin, LevelsLayer, LevelsPlugin, planted

from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Traffic
from archsearch.model import Context, MixerState
from archsearch.testing.toy import ToyPlugin
from archsearch.testing.toy_layer import RunningMean


def scaled(factor: float) -> Callable[[], dict[str, Any]]:
    def flops(self: Any, options: Any, shape: ModelShape, layer: LayerInfo, **call: Any) -> Flops:
        return CachePlugin.flops(self, options, shape, layer, **call) * factor

    return lambda: {"flops": flops}


for _factor in (1e-6, 0.3, 4.0):
    animal(f"states-{_factor:g}-of-its-products", FLOPS)(scaled(_factor))


@animal("counts-decoding-alone-wrong", FLOPS)
def _decode_alone() -> dict[str, Any]:
    def flops(self: Any, options: Any, shape: ModelShape, layer: LayerInfo, *, phase: Any, context: int) -> Flops:
        said = CachePlugin.flops(self, options, shape, layer, phase=phase, context=context)
        return said * (4 if phase == "decode" else 1)

    return {"flops": flops}


@animal("counts-the-core-ten-times", FLOPS)
def _core_alone() -> dict[str, Any]:
    def flops(self: Any, options: Any, shape: ModelShape, layer: LayerInfo, *, phase: Any, context: int) -> Flops:
        said = CachePlugin.flops(self, options, shape, layer, phase=phase, context=context)
        pairs = context if phase == "decode" else context**2 / 2
        return said + Flops(matmul=9 * 4.0 * shape.d_model * pairs)

    return {"flops": flops}


@animal("is-wider-in-the-first-layer", PARAMS)
class WiderFirst(CacheLayer):
    def __init__(self, plugin: Any, options: Any, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        if layer.index == 0:
            self.out = nn.Linear(shape.d_model, shape.d_model)


@animal("keeps-more-in-the-last-layer", BYTES)
class LongerLast(CacheLayer):
    def init_state(self, batch: int, capacity: int, **kind: Any) -> MixerState:
        state = super().init_state(batch, capacity, **kind)
        if self.layer.index == self.layer.depth - 1:
            state.tensors["v"] = state.tensors["v"].repeat(1, 2, 1)
        return state


@animal("has-an-idle-parameter", PARAMS, "gradients_are_finite_and_reach_every_parameter")
class Idle(CacheLayer):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.idle = nn.Parameter(torch.zeros(3))


@animal("promises-too-few-bytes", BYTES, READS, PEAK, base=ToyPlugin)
class Doubled(RunningMean):
    def init_state(self, batch: int, capacity: int, **kind: Any) -> MixerState:
        state = super().init_state(batch, capacity, **kind)
        return replace(state, tensors={"total": state.tensors["total"].double()})


class Rewrites(CacheLayer):
    """The rows are kept with the sign of the number of sixteens before them, so that every 16th token turns them."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        state = self.state_for(x, state, ctx)
        if state is None:
            return super().forward(x, ctx=ctx)
        y, after = super().forward(x, state=self.turned(state), ctx=ctx)
        return y, self.turned(after)

    def turned(self, state: MixerState | None) -> MixerState:
        """The state with its rows in the other form."""
        assert state is not None
        odd = (state.lengths // 16 % 2)[:, None] == 1
        turned = {}
        for name, rows in state.tensors.items():
            held = torch.arange(rows.shape[1]) < state.lengths[:, None]
            turned[name] = torch.where((odd & held)[..., None], -rows, rows)
        return state.after(turned, 0)


def rewriting(*, peak: bool) -> MixerPlugin[Any]:
    def traffic(self: Any, options: Any, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        row = 2.0 * shape.d_model * shape.dtype_bytes
        most = context * row if peak else None
        return Traffic(
            read_bytes=context * row,
            written_bytes=row + context * row / 16,
            peak_written_bytes=most and max(most, 2 * row),
        )

    return planted(Rewrites, traffic=traffic)


ANIMALS["rewrites-its-cache-every-16th-token"] = Animal(
    plugin=rewriting(peak=False), broken=frozenset({PEAK}), knobs={"traffic_slack": 4.0}
)


@animal("reads-more-than-it-says", READS, PEAK)
def _reads_more() -> dict[str, Any]:
    def traffic(self: Any, options: Any, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return replace(CachePlugin.traffic(self, options, shape, layer, context=context), read_bytes=context)

    return {"traffic": traffic}


@animal("reads-less-than-it-says", READS)
def _reads_less() -> dict[str, Any]:
    def traffic(self: Any, options: Any, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return CachePlugin.traffic(self, options, shape, layer, context=3 * context)

    return {"traffic": traffic}


@animal("has-a-level-too-few", BYTES, STEP, base=LevelsPlugin)
class TooFewLevels(LevelsLayer):
    def init_state(self, batch: int, capacity: int, **kind: Any) -> MixerState:
        state = super().init_state(batch, capacity, **kind)
        return replace(state, tensors={"sums": state.tensors["sums"][:, :7]})


@animal("has-more-active-parameters-than-it-has", "active_params_are_at_most_all")
def _active() -> dict[str, Any]:
    return {"active_params": lambda self, options, shape, layer: 2 * self.params(options, shape, layer)}


@animal("has-flops-that-are-not-finite", FLOPS, "costs_are_finite_and_rise_with_context")
def _not_finite() -> dict[str, Any]:
    return {"flops": lambda self, options, shape, layer, phase, context: Flops(matmul=float("nan"))}


@animal("refuses-where-it-is-tried", "refused_layers_are_not_built")
def _refuses() -> dict[str, Any]:
    return {"check": lambda self, options, shape, layer: "stands nowhere"}


class Nearer(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        if state is None and not ctx.want_state:
            x = torch.cat((x[:, :-10].detach(), x[:, -10:]), 1)
        return super().forward(x, state=state, ctx=ctx)


DENSE = {"dense_up_to": lambda self, options, layer: 20}
ANIMALS["overstates-where-it-is-dense"] = Animal(
    plugin=planted(Nearer, **DENSE), broken=frozenset({"dense_up_to_is_true"})
)
ANIMALS["understates-where-it-is-dense"] = Animal(plugin=planted(**DENSE), broken=frozenset({"dense_up_to_is_true"}))
