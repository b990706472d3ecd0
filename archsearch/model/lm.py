"""HybridLM: pre-norm blocks whose token mixers are chosen layer by layer, tied embeddings, cached decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import check_arrangement, short_conv_of
from archsearch.errors import PluginError, SpecError
from archsearch.layer import Resolver
from archsearch.model.channel import build_channel_mixer
from archsearch.model.context import Context
from archsearch.model.foreign import Place, told
from archsearch.model.meta_tokens import MetaTokens
from archsearch.model.mixer import Mixer, MixerState
from archsearch.model.taken import tell_taken
from archsearch.model.value_residual import with_value_residual
from archsearch.ops.short_conv import ShortConv, next_tail

BlockCall = Callable[[Tensor, Context], Tensor]
"""A block without a state: `[B, T, D]` to `[B, T, D]`."""

_BUILT: WeakSet[nn.Module] = WeakSet()
"""Mixers, and their parts that hold weights, of every model that lives."""


@dataclass(kw_only=True)
class BlockState:
    """What a block keeps for a batch while it decodes: its mixer's state, and the short convolution's tail
    `[B, width - 1, D]` when the backbone has one."""

    mixer: MixerState
    tail: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, as the cost model counts them."""
        tail = 0 if self.tail is None else self.tail.numel() * self.tail.element_size()
        return self.mixer.nbytes + tail

    def clone(self) -> BlockState:
        """A copy that shares no memory."""
        return BlockState(mixer=self.mixer.clone(), tail=None if self.tail is None else self.tail.clone())


class Block(nn.Module):
    """``x + mixer(conv(norm(x)))``, then ``x + channel(norm(x))``; `model`, the backbone as the layer has it, may have
    no channel mixer, and no convolution, of ``short_conv`` tokens, stands before a mixer that wants none. Errors name
    the mixer's `place`; inside `torch.compile` nothing is checked, so that a block is one graph."""

    def __init__(self, mixer: Mixer, model: ModelSpec, place: Place, short_conv: int) -> None:
        super().__init__()
        self.place = place
        self.mixer_norm = nn.RMSNorm(model.d_model, eps=1e-6)
        self.conv = ShortConv(model.d_model, short_conv) if short_conv else None
        self.mixer = mixer
        self.channel = build_channel_mixer(model)
        self.channel_norm = nn.RMSNorm(model.d_model, eps=1e-6) if self.channel is not None else None

    def init_state(self, batch: int, capacity: int, *, dtype: torch.dtype | None = None) -> BlockState:
        """An empty state for `batch` sequences of up to `capacity` tokens."""
        weight = self.mixer_norm.weight
        tail = None
        if self.conv is not None:
            rows, width = self.conv.tail_rows, weight.shape[0]
            tail = torch.zeros(batch, rows, width, dtype=dtype or weight.dtype, device=weight.device)
        with self.place.calling("init_state"):
            state = self.mixer.init_state(batch, capacity, dtype=dtype or weight.dtype, device=weight.device)
            self.place.checked_state("init_state", state, batch)
        return BlockState(mixer=state, tail=tail)

    def forward(self, x: Tensor, *, state: BlockState | None = None, ctx: Context) -> tuple[Tensor, BlockState | None]:
        """`[B, T, D]` to `[B, T, D]`, and the state after it."""
        normed = self.mixer_norm(x)
        tail = state.tail if state is not None else None
        after_tail = None if tail is None else next_tail(tail, normed)
        if self.conv is not None:
            packed = ctx.order_of(x) if ctx.cu_seqlens is not None else None
            normed = self.conv(normed, tail=tail, positions=packed)
        mixed, after = self._mix_tokens(normed, state.mixer if state is not None else None, ctx)
        x = self._mix_channels(x + mixed, ctx)
        return x, None if state is None or after is None else BlockState(mixer=after, tail=after_tail)

    def step(self, x_t: Tensor, *, state: BlockState, ctx: Context) -> tuple[Tensor, BlockState]:
        """One token, `[B, D]` to `[B, D]`."""
        normed = self.mixer_norm(x_t)
        after_tail = state.tail
        if self.conv is not None and state.tail is not None:
            after_tail = next_tail(state.tail, normed[:, None])
            normed = self.conv.step(normed, state.tail)
        mixed, after = self._step_tokens(normed, state.mixer, ctx)
        return self._mix_channels(x_t + mixed, ctx), BlockState(mixer=after, tail=after_tail)

    def _mix_tokens(self, x: Tensor, state: MixerState | None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        if torch.compiler.is_compiling():
            return self.mixer(x, state=state, ctx=ctx)  # type: ignore[no-any-return]
        with self.place.calling("forward"):
            result: Any = self.mixer(x, state=state, ctx=ctx)
            return self.place.checked("forward", x, result, stateful=state is not None or ctx.want_state)

    def _step_tokens(self, x_t: Tensor, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        if torch.compiler.is_compiling():
            return self.mixer.step(x_t, state=state, ctx=ctx)
        with self.place.calling("step"):
            result: Any = self.mixer.step(x_t, state=state, ctx=ctx)
            return self.place.checked("step", x_t, result, stateful=True)

    def _mix_channels(self, x: Tensor, ctx: Context) -> Tensor:
        if self.channel is None or self.channel_norm is None:
            return x
        out: Tensor = x + self.channel(self.channel_norm(x), ctx)
        return out


class HybridLM(nn.Module):
    """A causal language model of an `ArchSpec`. ``vocab_size`` overrides the backbone's, as tasks do."""

    def __init__(self, arch: ArchSpec, resolver: Resolver, *, vocab_size: int | None = None) -> None:
        super().__init__()
        check_arrangement(arch, resolver)
        self.arch = arch
        model = arch.model
        self.vocab_size = vocab_size or model.vocab_size
        self.embedding = nn.Embedding(self.vocab_size, model.d_model)
        nn.init.normal_(self.embedding.weight, std=model.d_model**-0.5)
        self.meta = MetaTokens(model.meta_tokens, model.d_model) if model.meta_tokens else None
        self.blocks = nn.ModuleList(
            Block(
                build_mixer(arch, index, resolver),
                model.of_layer(layer),
                place_of(arch, index),
                short_conv_of(layer, model, resolver),
            )
            for index, layer in enumerate(arch.layers)
        )
        tell_taken([block.mixer for block in self.blocks])  # type: ignore[misc]
        self.norm = nn.RMSNorm(model.d_model, eps=1e-6)
        self.training_calls: Sequence[BlockCall] | None = None
        """How each block is run where gradients are taken and nothing is kept; plainly where None."""

    def forward(self, tokens: Tensor, *, ctx: Context | None = None) -> Tensor:
        """Logits `[B, T, V]` of tokens `[B, T]`; with ``ctx.cu_seqlens``, B = 1 and sequences lie end to end."""
        hidden, _ = self._hidden(tokens, None, ctx or Context())
        return self._logits(hidden)

    def logits_at(self, tokens: Tensor, scored: Tensor, *, ctx: Context | None = None) -> Tensor:
        """Logits `[n, V]` of the n positions where `scored` `[B, T]` is true: the head's work is spent only there."""
        hidden, _ = self._hidden(tokens, None, ctx or Context())
        return self._logits(hidden[scored])

    def init_state(self, batch: int, capacity: int, *, dtype: torch.dtype | None = None) -> list[BlockState]:
        """States of all layers for `batch` sequences of up to `capacity` tokens: empty, or after the meta tokens."""
        meta = 0 if self.meta is None else self.meta.count
        states = [block.init_state(batch, capacity + meta, dtype=dtype) for block in self.blocks]  # type: ignore[operator]
        if self.meta is None:
            return states
        _, after = self._through(self.meta.rows(batch), states, Context(want_state=True, held=0))
        return _counted(after, meta)

    def prefill(
        self, tokens: Tensor, states: list[BlockState], *, ctx: Context | None = None
    ) -> tuple[Tensor, list[BlockState]]:
        """Reads `[B, T]` more tokens into the states; logits `[B, V]` of the last one. May be called again."""
        held = states[0].mixer.check_room(tokens.shape[1])
        hidden, after = self._hidden(tokens, states, replace(ctx or Context(want_state=True), held=held))
        return self._logits(hidden[:, -1]), _counted(after, held + tokens.shape[1])

    def step(
        self, token: Tensor, states: list[BlockState], *, ctx: Context | None = None
    ) -> tuple[Tensor, list[BlockState]]:
        """One token `[B]` a sequence: logits `[B, V]` and the states after it, by the recurrent form."""
        held = states[0].mixer.check_room(1)
        logits, after = self.advance(token, states, ctx=ctx)
        return logits, _counted(after, held + 1)

    def advance(
        self, token: Tensor, states: list[BlockState], *, ctx: Context | None = None
    ) -> tuple[Tensor, list[BlockState]]:
        """`step` by a caller who knows that the states have room: nothing is asked of the device, as a CUDA graph
        needs it."""
        x, after = self.embedding(token), []
        ctx = _one_pass(ctx or Context(want_state=True), x[:, None], states)
        for block, state in zip(self.blocks, states, strict=True):
            x, state = block.step(x, state=state, ctx=ctx)  # type: ignore[operator]
            after.append(state)
        return self._logits(x), after

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`count` tokens `[B, count]` after the prompt `[B, T]`: the likeliest, or sampled at a temperature."""
        if tokens.shape[1] < 1:
            raise SpecError("generate needs a prompt of at least one token")
        states = self.init_state(tokens.shape[0], tokens.shape[1] + count)
        logits, states = self.prefill(tokens, states)
        chosen = []
        for index in range(count):
            chosen.append(_choose(logits, temperature, generator))
            if index < count - 1:
                logits, states = self.step(chosen[-1], states)
        return torch.stack(chosen, dim=1) if chosen else tokens[:, :0]

    def _hidden(self, tokens: Tensor, states: list[BlockState] | None, ctx: Context) -> tuple[Tensor, list[BlockState]]:
        x = self.embedding(tokens)
        if self.meta is None or states is not None:
            return self._through(x, states, ctx)
        x, ctx, rows = self.meta.before(x, ctx)
        x, after = self._through(x, None, ctx)
        return x[:, rows], after

    def _through(self, x: Tensor, states: list[BlockState] | None, ctx: Context) -> tuple[Tensor, list[BlockState]]:
        """`x` `[B, T, D]` through all blocks in one pass, in which layers may share."""
        after: list[BlockState] = []
        if self.training_calls is not None and self.training and torch.is_grad_enabled() and states is None:
            ctx = replace(ctx, shared={})
            for call in self.training_calls:
                x = call(x, ctx)
            return x, []
        ctx = _one_pass(ctx, x, states)
        for index, block in enumerate(self.blocks):
            x, state = block(x, state=states[index] if states is not None else None, ctx=ctx)
            after.append(state)
        return x, after

    def _logits(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(self.norm(hidden), self.embedding.weight)


def place_of(arch: ArchSpec, index: int) -> Place:
    """How errors name the token mixer of one layer."""
    return Place(mixer=arch.layers[index].mixer, layer=index)


def build_mixer(arch: ArchSpec, index: int, resolver: Resolver) -> Mixer:
    """The token mixer of one layer; whatever its plugin raises ends as an `ArchsearchError` that names the plugin.

    Raises `PluginError` for a plugin that builds anything but a `Mixer`.
    """
    layer, place = arch.layers[index], place_of(arch, index)
    plugin = resolver.resolve(layer.mixer).plugin
    with place.calling("build"):
        built: Any = plugin.build(
            layer.options, arch.model.shape, arch.layer_info(index, resolver).told_to(plugin, layer.options)
        )
    if not isinstance(built, Mixer):
        raise PluginError(f"{place}: build gave {told(built)}, wanted an archsearch.model.Mixer")
    _check_fresh(built, place)
    return with_value_residual(built, arch, index, resolver)


def _check_fresh(built: Mixer, place: Place) -> None:
    """Raises `PluginError` for weights of an earlier layer or model: what was trained there would be known here."""
    weighty = [part for part in built.modules() if part._parameters]
    if built in _BUILT or any(part in _BUILT for part in weighty):
        raise PluginError(f"{place}: build gave weights that it gave before: make new ones in each call")
    _BUILT.update([built, *weighty])
    for name, weights in built.named_parameters():
        if is_lazy(weights):
            raise PluginError(f"{place}: build gave the parameter {name} without a shape: give its layer all sizes")
        if weights.requires_grad and not weights.is_floating_point():
            raise PluginError(f"{place}: build gave the parameter {name}, {told(weights)}, wanted floating point")


def _one_pass(ctx: Context, x: Tensor, states: list[BlockState] | None) -> Context:
    """For the layers that `x` `[B, T, D]` passes: nothing is shared yet, and positions are one tensor for all of them,
    so that what follows from it is computed once."""
    lengths = states[0].mixer.lengths if states else None
    return replace(ctx, shared={}, positions=ctx.positions_of(x, lengths))


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature <= 0:
        return logits.argmax(-1)
    probabilities = (logits.float() / temperature).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _counted(states: list[BlockState], longest: int) -> list[BlockState]:
    """The states, told what blocks that are compiled do not tell them."""
    for state in states:
        state.mixer.longest = longest
    return states
