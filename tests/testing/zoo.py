"""The zoo: mixers with one fault planted in each, and the laws that the fault breaks, no more and no fewer.

Faults are made small where they would break other laws too: a leak of the future of 1e-5 lies between what two forms
may differ by and what a later token may change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from zoo_mixers import CacheLayer, CachePlugin, planted

from archsearch.mixer import MixerPlugin
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
VALUES = "values_take_a_residual"


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


@animal("keeps-a-cache-in-the-layer", KEPT, RAGGED)
class InTheLayer(Shifted):
    hidden: Tensor | None = None

    def last(self, x: Tensor, state: MixerState) -> Tensor:
        fits = self.hidden is not None and len(self.hidden) == len(x)
        return self.hidden if fits else torch.zeros_like(x[:, :1])  # type: ignore[return-value]

    def keep(self, last: Tensor, after: MixerState) -> None:
        self.hidden = last


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


@animal("shares-a-cache-by-class", MODEL, RAGGED)
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
