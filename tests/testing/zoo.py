"""The zoo: mixers with one fault planted in each, and the laws that the fault breaks, no more and no fewer.

Faults are made small where they would break other laws too: a leak of the future of 1e-5 lies between what two forms
may differ by and what a later token may change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from zoo_mixers import CacheLayer, CachePlugin, LevelsLayer, LevelsPlugin, planted

from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Traffic
from archsearch.model import Context, MixerState
from archsearch.testing.toy import ToyPlugin
from archsearch.testing.toy_layer import RunningMean

LEAK = 1e-5

STEP, SPLIT, SECOND = (
    "forward_equals_repeated_step",
    "forward_equals_split_prefill_then_steps",
    "long_second_prefill",
)
RAGGED, MODEL, ONE = "ragged_lengths_decode_as_each_alone", "a_model_decodes_as_it_reads", "one_token"
CAUSAL, PACKED, POSITIONS = (
    "no_token_sees_the_future",
    "packed_sequences_are_apart",
    "order_is_not_read_from_positions",
)
KEPT, FLOPS, READS, PEAK = (
    "state_is_all_that_decoding_keeps",
    "flops_are_those_that_are_counted",
    "decode_reads_what_traffic_says",
    "no_step_moves_more_than_the_peak",
)
PARAMS, BYTES, APART = (
    "params_equal_what_is_built",
    "state_allocates_the_bytes_it_promises",
    "sequences_of_a_batch_are_apart",
)


@dataclass(frozen=True, kw_only=True)
class Animal:
    """``plugin`` breaks the laws ``broken``; ``knobs`` are those of its case."""

    plugin: MixerPlugin[Any]
    broken: frozenset[str]
    knobs: Mapping[str, Any] = field(default_factory=dict)


ANIMALS: dict[str, Animal] = {}


def animal(
    name: str, *broken: str, base: type[MixerPlugin[Any]] = CachePlugin, knobs: Mapping[str, Any] | None = None
) -> Callable[[Any], Any]:
    """Puts a layer, or a mapping of the plugin's members, into the zoo."""

    def put(made: Any) -> Any:
        plugin = planted(made, base) if isinstance(made, type) else planted(base=base, **made())
        ANIMALS[name] = Animal(plugin=plugin, broken=frozenset(broken), knobs=knobs or {})
        return made

    return put


def leaked(x: Tensor) -> Tensor:
    """A little of the next token."""
    return LEAK * x.roll(-1, 1)


class Shifted(CacheLayer):
    """A sound layer that adds a tenth of the token before, which a subclass keeps somewhere."""

    def before(self, x: Tensor, state: MixerState | None, ctx: Context) -> Tensor:
        """The token before each, `[B, T, D]`."""
        last = x.new_zeros(x.shape[0], 1, x.shape[2]) if state is None else self.last(x, state)
        shifted = torch.cat((last, x), 1)[:, : x.shape[1]]
        return torch.where((ctx.order_of(x, None if state is None else state.lengths) == 0)[..., None], 0, shifted)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        state = self.state_for(x, state, ctx)
        before = self.before(x, state, ctx)
        y, after = super().forward(x, state=state, ctx=ctx)
        if after is not None and x.shape[1]:
            self.keep(x[:, -1:], after)
        return y + before / 10, after

    def last(self, x: Tensor, state: MixerState) -> Tensor:
        """What `keep` kept, `[B, 1, D]`."""
        raise NotImplementedError

    def keep(self, last: Tensor, after: MixerState) -> None:
        """Keeps the last token."""
        raise NotImplementedError


@animal("keeps-a-cache-in-an-attribute-of-the-state", KEPT)
class BesideTheTensors(Shifted):
    def last(self, x: Tensor, state: MixerState) -> Tensor:
        return getattr(state, "hidden", torch.zeros_like(x[:, :1]))

    def keep(self, last: Tensor, after: MixerState) -> None:
        after.hidden = last  # type: ignore[attr-defined]


@animal("keeps-a-cache-in-the-layer", KEPT, RAGGED, READS, PEAK)
class InTheLayer(Shifted):
    hidden: Tensor | None = None

    def last(self, x: Tensor, state: MixerState) -> Tensor:
        fits = self.hidden is not None and len(self.hidden) == len(x)
        return self.hidden if fits else torch.zeros_like(x[:, :1])  # type: ignore[return-value]

    def keep(self, last: Tensor, after: MixerState) -> None:
        self.hidden = last


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


@animal("steps-differently-after-110-tokens", STEP)
class LateSteps(CacheLayer):
    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> Any:
        y, after = super().step(x_t, state=state, ctx=ctx)
        return torch.where((state.lengths >= 110)[:, None], 1.1 * y, y), after


@animal("steps-differently", STEP, SPLIT, ONE)
class Steps(CacheLayer):
    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> Any:
        y, after = super().step(x_t, state=state, ctx=ctx)
        return 1.01 * y, after


@animal("forgets-the-state-of-a-second-prefill", SPLIT, SECOND, base=ToyPlugin)
class Forgets(RunningMean):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        if state is not None and x.shape[1] > 1:
            state = state.after({"total": torch.zeros_like(state.tensors["total"])}, 0)
        return super().forward(x, state=state, ctx=ctx)


@animal("takes-all-lengths-for-the-longest", RAGGED, base=ToyPlugin)
class Longest(RunningMean):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        if state is not None:
            state = replace(state, lengths=state.lengths.max().expand_as(state.lengths))
        return super().forward(x, state=state, ctx=ctx)


@animal("leaks-the-future", CAUSAL)
class Leaks(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + leaked(x), after


@animal("leaks-token-128", CAUSAL)
class LeaksLate(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        later = torch.arange(x.shape[1])[:, None] == 127
        return y + torch.where(later, leaked(x), 0), after


@animal("leaks-in-training", CAUSAL)
class LeaksInTraining(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + (leaked(x) if self.training else 0), after


@animal("leaks-where-a-state-is-wanted", CAUSAL)
class LeaksWithState(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + (leaked(x) if state is None and ctx.want_state else 0), after


@animal("leaks-in-a-packed-batch", CAUSAL)
class LeaksPacked(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + (leaked(x) if ctx.cu_seqlens is not None else 0), after


@animal("leaks-in-a-second-prefill", CAUSAL)
class LeaksSecond(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        second = state is not None and int(state.lengths.max()) > 0
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + (leaked(x) if second else 0), after


@animal("mixes-packed-sequences", PACKED)
class Mixes(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        return super().forward(x, state=state, ctx=replace(ctx, cu_seqlens=None))


@animal("declares-broken-what-holds", "declared_laws_are_broken")
def _declares() -> dict[str, Any]:
    return {"broken_laws": {"packed": "averages over the whole batch"}}


ANIMALS["declares-two-laws-broken-of-which-one-holds"] = Animal(
    plugin=planted(Mixes, broken_laws={"packed": "averages", "causal": "does not"}),
    broken=frozenset({"declared_laws_are_broken"}),
)


@animal("shares-a-cache-by-class", MODEL, RAGGED, READS, PEAK)
class SharedByClass(Shifted):
    """Right as long as one layer alone runs: the row of each number of tokens is of the last layer that had so many."""

    kept: ClassVar[dict[tuple[int, ...], Tensor]] = {}

    def last(self, x: Tensor, state: MixerState) -> Tensor:
        return self.kept.get((*state.lengths.tolist(), state.capacity), torch.zeros_like(x[:, :1]))

    def keep(self, last: Tensor, after: MixerState) -> None:
        self.kept[*after.lengths.tolist(), after.capacity] = last


@animal("shares-a-key-without-its-index", MODEL)
class SharedKey(Shifted):
    """In decoding a layer takes for its own what an earlier one shared."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = CacheLayer.forward(self, x, state=state, ctx=ctx)
        gate = torch.tanh(x)
        return y + (gate if state is None else ctx.shared.setdefault((0, "gate"), gate)) / 10, after


@animal("forgets-the-meta-tokens", MODEL)
class ForgetsMeta(CacheLayer):
    """A first prompt is taken to be one without a state, if it comes after four tokens."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        if state is not None and x.shape[1] > 1 and state.lengths.tolist() == [4] * len(x):
            y = super().forward(x, ctx=Context())[0]
        return y, after


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


@animal("masks-by-positions", POSITIONS)
class MasksByPositions(CacheLayer):
    def visible(self, order: Tensor, ctx: Context) -> Tensor:
        seen = super().visible(order, ctx)
        return seen if ctx.positions is None else seen & (ctx.positions[:, None] <= ctx.positions[..., None])


@animal("writes-rows-by-positions", POSITIONS)
class RowsByPositions(CacheLayer):
    def order(self, x: Tensor, state: MixerState | None, ctx: Context) -> Tensor:
        return ctx.order_of(x) if state is None else ctx.positions_of(x, state.lengths)


@animal("has-a-window-by-positions", POSITIONS)
class WindowByPositions(CacheLayer):
    def visible(self, order: Tensor, ctx: Context) -> Tensor:
        positions = order if ctx.positions is None else ctx.positions
        near = positions[:, None] > positions[..., None] - 150
        return super().visible(order, ctx) & (near | (order.shape[1] > 150))


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


@animal("draws-noise", "evaluation_repeats_itself")
class Noise(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + 1e-6 * torch.randn_like(y[:1, :1]), after


@animal("writes-into-its-input", "inputs_stay_as_they_are")
class Writes(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        if not x.requires_grad:
            x.mul_(2)
        return y, after


@animal("mixes-the-states-of-a-batch", APART, base=ToyPlugin)
class MixesStates(RunningMean):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        if after is not None:
            total = after.tensors["total"]
            after = after.after({"total": total + LEAK * total.mean(0, keepdim=True)}, 0)
        return y, after


@animal("mixes-the-sequences-of-a-batch", APART, CAUSAL)
class MixesBatch(CacheLayer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + LEAK * x.mean(0, keepdim=True), after


@animal("overstates-where-it-is-dense", "dense_up_to_is_true")
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

SOUND = {
    "attention": planted(),
    "levels": planted(base=LevelsPlugin),
    "a-mean": planted(base=ToyPlugin),
    "a-cache-that-is-rewritten-with-its-peak-stated": rewriting(peak=True),
    "packing-that-is-declared-broken": planted(Mixes, broken_laws={"packed": "averages"}),
}
"""Mixers that keep every law."""


class Gives(CacheLayer):
    """Shares a gate with later layers."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        ctx.share(self.layer, "gate", torch.tanh(x))
        return super().forward(x, state=state, ctx=ctx)


class Reads(CacheLayer):
    """Adds the gate of the last layer that gives one."""

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> Any:
        giver = max(index for index, layer in enumerate(self.layer.earlier) if layer.mixer == "zoo-giver")
        y, after = super().forward(x, state=state, ctx=ctx)
        return y + ctx.shared_by(giver, "gate"), after


def _behind_a_giver(self: Any, options: Any, shape: ModelShape, layer: LayerInfo) -> str | None:
    given = any(earlier.mixer == "zoo-giver" for earlier in layer.earlier)
    return None if given else "there is no giver before it"


READER_SAYS = {"name": "zoo-reader", "reads_pattern": True, "check": _behind_a_giver}
GIVER, READER = planted(Gives, name="zoo-giver"), planted(Reads, **READER_SAYS)
