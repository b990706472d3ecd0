"""Three mixers of one's own, in a search: attention over a cache, a recurrence, and the two side by side."""

from __future__ import annotations

from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from archsearch import Flops, LayerInfo, MixerOptions, MixerPlugin, ModelShape, StateTensor, Traffic, Tunable, run
from archsearch.attention_cost import kv_cache, kv_traffic, projection_flops, projection_params, softmax_flops
from archsearch.composite import CompositePlugin
from archsearch.mixer import Layer, Phase
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.attention import AttentionMixer, token_indices
from archsearch.model.composite import CompositeMixer
from archsearch.ops.cache import write_rows
from archsearch.ops.cached import cached_attention
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import causal_mask, masked_attention


class AttentionOptions(MixerOptions):
    """``rope``: share of a head's channels that are rotated by their position."""

    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 1.0


class AttentionPlugin(MixerPlugin[AttentionOptions]):
    name = "my-attention"
    api_version = 2
    family = "full"
    summary = "softmax attention over all tokens so far"
    options = AttentionOptions

    def params(self, options: AttentionOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape)

    def flops(
        self, options: AttentionOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        token = projection_flops(shape, rope=options.rope)
        if phase == "decode":
            return token + softmax_flops(context, shape)
        return token * context + softmax_flops(context * context / 2, shape)  # the half that is causal

    def state(self, options: AttentionOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return kv_cache(shape)  # a key and a value row for each token

    def traffic(self, options: AttentionOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return kv_traffic(context, shape)

    def build(self, options: AttentionOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        return Attention(self, options, shape, layer)


class Attention(AttentionMixer):
    def __init__(
        self, plugin: MixerPlugin[Any], options: AttentionOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        return LaidOut(q, k, v, cu_seqlens=cu_seqlens).each_apart(self.plugin.name, causal)

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        rows = token_indices(state, k.shape[1])
        return {name: write_rows(state.tensors[name], rows, new) for name, new in (("k", k), ("v", v))}

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        tensors, after = self.remember(k, v, state), state.lengths + q.shape[1]
        if q.shape[1] == 1:
            return cached_attention(q[:, 0], tensors["k"], tensors["v"], after)[:, None], tensors
        keys, values = self.filled(tensors, state, q)
        return LaidOut(q, keys, values, lengths=after).each_apart(self.plugin.name, causal), tensors


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    queries, keys = q.shape[1], k.shape[1]
    return masked_attention(q, k, v, None if queries == keys else causal_mask(queries, keys, q.device))


class MeanOptions(MixerOptions):
    """``channels``: numbers that the state holds."""

    channels: Annotated[int, Field(ge=1), Tunable(32, 64)] = 32


class MeanPlugin(MixerPlugin[MeanOptions]):
    name = "my-mean"
    api_version = 2
    family = "linear"
    summary = "a running mean a channel, forgotten as each token says"
    options = MeanOptions

    def params(self, options: MeanOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 4 * shape.d_model * options.channels

    def flops(self, options: MeanOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        channels = float(options.channels)
        token = Flops(matmul=8 * shape.d_model * channels, elementwise=9 * channels, exp=2 * channels)
        return token if phase == "decode" else token * context

    def state(self, options: MeanOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="mean", row_shape=(options.channels,), dtype="float32", role="recurrent", base=1),)

    def traffic(self, options: MeanOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return Traffic(read_bytes=4.0 * options.channels, written_bytes=4.0 * options.channels)

    def build(self, options: MeanOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        return Mean(self, options, shape, layer)


class Mean(Mixer):
    def __init__(self, plugin: MixerPlugin[Any], options: MeanOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.read = nn.Linear(shape.d_model, 3 * options.channels, bias=False)
        self.out = nn.Linear(options.channels, shape.d_model, bias=False)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        state = self.state_for(x, state, ctx)
        values, forget, gate = self.read(x).float().chunk(3, dim=-1)
        decay = (forget + 2).sigmoid()
        added = (1 - decay) * values
        if ctx.cu_seqlens is not None:  # a packed sequence begins with nothing
            decay = decay * (ctx.order_of(x) > 0)[..., None]
        if state is not None and x.shape[1]:
            added = added + F.pad(decay[:, :1] * state.tensors["mean"], (0, 0, 0, x.shape[1] - 1))
        means = scan(decay, added)
        if state is not None:
            state = state.after({"mean": means[:, -1:] if x.shape[1] else state.tensors["mean"]}, x.shape[1])
        y: Tensor = self.out((means * F.silu(gate)).to(x.dtype))
        return y, state


def scan(decay: Tensor, added: Tensor) -> Tensor:
    """s_t = decay_t s_(t-1) + added_t for all t at once, in log2 T passes."""
    tokens, shift = added.shape[1], 1
    while shift < tokens:
        added = added + decay * F.pad(added, (0, 0, shift, 0))[:, :tokens]
        decay = decay * F.pad(decay, (0, 0, shift, 0))[:, :tokens]
        shift *= 2
    return added


class BothOptions(MixerOptions):
    """``a``, ``b``: the two mixers, each with its options."""

    a: Annotated[Layer, Tunable("my-mean", "kda")] = "my-mean"  # type: ignore[assignment]
    b: Layer = "my-attention"  # type: ignore[assignment]


class BothPlugin(CompositePlugin[BothOptions]):
    name = "my-both"
    api_version = 2
    family = "hybrid"
    summary = "two mixers side by side, summed"
    options = BothOptions

    def build(self, options: BothOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        return Both(self, options, shape, layer)


class Both(CompositeMixer):
    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        state = self.state_for(x, state, ctx)
        (a, of_a), (b, of_b) = (self.run(index, x, state=state, ctx=ctx) for index in range(2))
        return a + b, None if state is None else state.after(of_a | of_b, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        (a, of_a), (b, of_b) = (self.run_step(index, x_t, state=state, ctx=ctx) for index in range(2))
        return a + b, state.after(of_a | of_b, 1)


SPEC = {
    "name": "tutorial",
    "model": {"d_model": 32, "n_heads": 2, "n_layers": 2, "channel_mixer": "none"},
    "space": {"mixers": ["my-attention", "my-mean", "my-both", "sliding"], "sliding": {"window": [8]}},
    "tasks": [{"name": "mqar", "setting": "compact"}],
    "objectives": {"maximize": ["mqar.accuracy"], "minimize": ["state_bytes"], "context": 4096},
    "budget": {"state_bytes": "2 MiB"},
    "recipe": {"steps": 8, "batch_size": 16, "learning_rates": [3e-3]},
    "search": {"trials": 3, "references": False, "confirm_seeds": 0},
}

if __name__ == "__main__":
    outcome = run(SPEC, plugins=[AttentionPlugin(), MeanPlugin(), BothPlugin()], storage="sqlite:///tutorial.db")
    print(outcome.state)
