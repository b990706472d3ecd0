"""Mixer: the torch layer of a token mixer, and the state that it decodes from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from archsearch.errors import PluginError, SpecError
from archsearch.mixer import Dtype, LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model.context import Context
from archsearch.ops.cache import zero_rows


@dataclass(kw_only=True)
class MixerState:
    """What one layer keeps for a batch of sequences while it decodes.

    ``tensors[name]`` is `[B, rows, *row_shape]` as `MixerPlugin.state` describes it for ``capacity`` tokens;
    ``lengths`` `[B]` int64 counts the tokens that each sequence has seen.
    """

    tensors: dict[str, Tensor]
    lengths: Tensor
    capacity: int
    _longest: tuple[int, Tensor, int] | None = field(default=None, init=False, repr=False, compare=False)
    """The most tokens that a sequence has seen, and the `lengths` and the version of them that this was said of."""

    @classmethod
    def empty(cls, tensors: dict[str, Tensor], lengths: Tensor, capacity: int) -> MixerState:
        """A state of no tokens, whose `lengths` are zeros."""
        state = cls(tensors=tensors, lengths=lengths, capacity=capacity)
        state.longest = 0
        return state

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence. The host knows them of a state from `Mixer.init_state` and of those `after`
        it; of any other, of one that compiled code made, and where `lengths` was written to or replaced, it reads them
        from the device, unless it is told. What a replayed CUDA graph writes goes unseen: take
        `dataclasses.replace(state)` after it, of which nothing is known."""
        known = self._known()
        if known is None:
            known = int(self.lengths.max()) if self.lengths.numel() else 0
            self.longest = known
        return known

    @longest.setter
    def longest(self, known: int) -> None:
        if not (torch.compiler.is_compiling() or self.lengths.is_inference()):
            self._longest = known, self.lengths, self.lengths._version

    @property
    def most(self) -> int:
        """Tokens that no sequence exceeds: those of the longest; inside `torch.compile`, where that would be a constant
        of the graph, the capacity."""
        return self.capacity if torch.compiler.is_compiling() else self.longest

    def after(self, tensors: dict[str, Tensor], count: int) -> MixerState:
        """The state after `count` more tokens of each sequence, which left `tensors`."""
        made: dict[str, Any] = {"tensors": tensors, "lengths": self.lengths + count}
        plain = type(self) is MixerState  # which is made many times a token
        state = MixerState(**made, capacity=self.capacity) if plain else replace(self, **made)
        known = self._known()
        if known is not None:
            state.longest = known + count
        return state

    def check_room(self, count: int, held: int | None = None) -> int:
        """`longest`, or what the caller knows it to be. Raises `SpecError` unless `count` more tokens fit.

        Inside `torch.compile`, where nothing may be read, `most`: there it is the caller who keeps within the capacity.
        """
        if held is None and torch.compiler.is_compiling():
            return self.most
        held = self.longest if held is None else held
        if held + count > self.capacity:
            raise SpecError(
                f"{count} more tokens after {held} exceed the state's capacity of {self.capacity}: "
                "ask init_state for a larger one"
            )
        return held

    def _known(self) -> int | None:
        if torch.compiler.is_compiling() or self._longest is None or self.lengths.is_inference():
            return None
        longest, lengths, version = self._longest
        return longest if lengths is self.lengths and version == lengths._version else None

    def __getstate__(self) -> dict[str, Any]:
        """Without what the host knows: the lengths of a deep or pickled copy count versions of their own."""
        return {**self.__dict__, "_longest": None}

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, as `MixerPlugin.state` promises them for the capacity and batch."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    def clone(self) -> MixerState:
        """A copy that shares no memory."""
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items()}
        return self.after(tensors, 0)


class Mixer(nn.Module):
    """A token mixer's layer. Subclasses write `forward`, and `step` where a cheaper recurrent form exists.

    A state that is passed in may be updated in place: go on with the one that is returned.
    """

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__()
        self.plugin, self.options, self.shape, self.layer = plugin, options, shape, layer
        self.value_residual: nn.Module | None = None
        self.takes: tuple[tuple[int, str], ...] = ()
        """What the layer reads of earlier ones in a pass, by (layer, name), as `Context.shared_by` takes them."""
        self.taken: frozenset[str] = frozenset()
        """Names under which later layers of the model read what this one shares; told once the model is built."""

    def mix_values(self, v: Tensor, ctx: Context) -> Tensor:
        """Values `[B, T, H, V]` of the tokens of a call, T = 1 in a step, with those of an earlier layer mixed in where
        the backbone has a value residual. To be called once in a pass, with heads and width as `MixerPlugin.values`
        says, before anything is made of the values."""
        if self.value_residual is None:
            return v
        mixed: Tensor = self.value_residual(v, ctx)
        return mixed

    def hand_out(self, channels: int) -> None:
        """From now on gives what its last projection reads, `[B, T, channels]` and in a step `[B, channels]`: the map
        `out`, which forward and step call, is taken out. Raises `PluginError` for another than
        `MixerPlugin.hands_out` says."""
        out = getattr(self, "out", None)
        shape = (self.shape.d_model, channels)
        if not isinstance(out, nn.Linear) or len([*out.parameters()]) > 1 or out.weight.shape != shape:
            raise PluginError(
                f'mixer "{self.plugin.name}": hands_out() gave {channels}: its layer must have a torch.nn.Linear `out` '
                f"without a bias, of {channels} channels to {self.shape.d_model}, which it calls last"
            )
        self.register_module("out", nn.Identity())

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """An empty state for `batch` sequences of up to `capacity` tokens, by default in the parameters' dtype."""
        like = next(self.parameters(), torch.empty(0))
        name = cast(Dtype, str(dtype or like.dtype).removeprefix("torch."))
        device = torch.device(device or like.device)
        tensors = {
            row.name: self.new_rows(
                (batch, row.rows(capacity), *row.row_shape), dtype=getattr(torch, row.dtype), device=device
            )
            for row in self.plugin.state(self.options, replace(self.shape, dtype=name), self.layer)
        }
        return MixerState.empty(tensors, torch.zeros(batch, dtype=torch.int64, device=device), capacity)

    def new_rows(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros `[B, rows, *row_shape]` of one tensor of a state; how they lie in memory is the mixer's own."""
        return zero_rows(shape, dtype=dtype, device=device)

    def state_for(self, x: Tensor, state: MixerState | None, ctx: Context) -> MixerState | None:
        """The state to fill: the one given, a new one for `x` `[B, T, D]` when the context wants one, or None.

        Raises `SpecError` for packed sequences with a state, which has a row for each sequence.
        """
        if ctx.cu_seqlens is not None and (state is not None or ctx.want_state):
            raise SpecError("packed sequences (cu_seqlens) cannot share a state: give each sequence a row of the batch")
        if state is None and ctx.want_state:
            return self.init_state(x.shape[0], x.shape[1], dtype=x.dtype, device=x.device)
        return state

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`x` `[B, T, D]` to `[B, T, D]`, going on from `state` when one is given; the state after it, or None."""
        raise NotImplementedError

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token `[B, D]` to `[B, D]`: the recurrent form."""
        y, state_after = self(x_t[:, None], state=state, ctx=ctx)
        return y[:, 0], cast(MixerState, state_after)
