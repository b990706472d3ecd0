"""The layers that write a cache and that read it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.attention import normed, token_indices
from archsearch.ops.cache import head_major, write_rows
from archsearch.ops.host import readable
from archsearch.ops.masks import earlier_in_sequence
from archsearch.ops.rings import laid_out, written
from archsearch.ops.rotary import Rotary
from archsearch.ops.weights import mean_weights

from .ops import Cache, shared_attention
from .options import SharedOptions

NAME = "cache"
"""Under which a writer shares its cache."""


class _Attention(Mixer):
    """Queries and outputs of both layers; `cache` gives what they attend over."""

    def __init__(self, plugin: MixerPlugin[Any], options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.window, self.width = options.window, shape.head_dim
        self.q = nn.Linear(shape.d_model, shape.n_heads * self.width, bias=False)
        self.out = nn.Linear(shape.n_heads * self.width, shape.d_model, bias=False)
        self.q_norm = nn.RMSNorm(self.width, eps=1e-6) if options.qk_norm else None
        self.rotary = Rotary(self.width, fraction=options.rope, base=options.rope_base)

    def cache(
        self, x: Tensor, positions: Tensor, state: MixerState | None, ctx: Context
    ) -> tuple[Cache, dict[str, Tensor]]:
        """What `x` `[B, T, D]` at `positions` attends over, and the state's tensors with it."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is not None and (x.shape[1] != 1 or readable(x)):
            state.check_room(x.shape[1], ctx.held)
        positions = ctx.positions_of(x, None if state is None else state.lengths)
        cache, tensors = self.cache(x, positions, state, ctx)
        y = self.out(shared_attention(self.turned(x, self.q, self.q_norm, positions), cache).flatten(2))
        return y, None if state is None else state.after(tensors, x.shape[1])

    def turned(self, x: Tensor, project: nn.Linear, norm: nn.RMSNorm | None, positions: Tensor) -> Tensor:
        """Heads `[B, T, H, D]`, normed where there is a norm, each token turned by its position."""
        heads = project(x).unflatten(-1, (-1, self.width))
        turned: Tensor = self.rotary(positions, heads if norm is None else normed(norm, heads))
        return turned


class Writer(_Attention):
    """Keeps keys and values, of a window in a ring, and shares them with the layers after it."""

    def __init__(self, plugin: MixerPlugin[Any], options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.k, self.v = (nn.Linear(shape.d_model, shape.n_kv_heads * self.width, bias=False) for _ in range(2))
        self.k_norm = nn.RMSNorm(self.width, eps=1e-6) if options.qk_norm else None
        self.v_norm = options.v_norm
        self.kv_norm = nn.RMSNorm(shape.d_model, eps=1e-6) if options.kv_norm else None

    def new_rows(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """On a CPU rows of heads lie head by head."""
        if device.type == "cpu" and len(shape) == 4:
            return head_major(*shape, dtype=dtype, device=device)
        return super().new_rows(shape, dtype=dtype, device=device)

    def cache(
        self, x: Tensor, positions: Tensor, state: MixerState | None, ctx: Context
    ) -> tuple[Cache, dict[str, Tensor]]:
        x = self.written_from(x)
        v = self.v(x).unflatten(-1, (-1, self.width))
        v = F.rms_norm(v, v.shape[-1:], eps=1e-6) if self.v_norm else v
        v = self.mix_values(v, ctx)
        new = {"k": self.turned(x, self.k, self.k_norm, positions), "v": v}
        if state is None:
            tensors, cache = {}, Cache(**new, window=self.window, cu_seqlens=ctx.cu_seqlens)
        elif self.window and x.shape[1] != 1:
            held = state.lengths.clamp(max=state.tensors["k"].shape[1])
            laid = {name: laid_out(state.tensors[name], rows, held, state.lengths) for name, rows in new.items()}
            tensors = {name: written(state.tensors[name], rows, state.lengths) for name, rows in new.items()}
            cache = Cache(**laid, window=self.window, lengths=held + x.shape[1])
        else:
            most = state.most + x.shape[1]
            tensors = {name: self._written(state.tensors[name], rows, state) for name, rows in new.items()}
            filled = {name: rows[:, :most] for name, rows in tensors.items()}
            cache = Cache(**filled, window=self.window, lengths=state.lengths + x.shape[1])
        ctx.share(self.layer, NAME, cache)
        return cache, tensors

    def written_from(self, x: Tensor) -> Tensor:
        """What keys and values of the tokens `x` `[B, T, D]` are made from."""
        return x if self.kv_norm is None else normed(self.kv_norm, x)

    def attention_weights(self, x: Tensor, *, ctx: Context) -> Tensor:
        """What each token attends to, `[B, T, T]`, for a model that learns it: see `archsearch.model.recorded`."""
        positions, order = ctx.positions_of(x), ctx.order_of(x)
        q = self.turned(x, self.q, self.q_norm, positions)
        k = self.turned(self.written_from(x), self.k, self.k_norm, positions)
        seen = earlier_in_sequence(order)
        if self.window:
            index = torch.arange(x.shape[1], device=x.device)
            seen = seen & (index > index[:, None] - self.window)
        return mean_weights(q, k, seen)

    def _written(self, cache: Tensor, new: Tensor, state: MixerState) -> Tensor:
        if self.window:
            return written(cache, new, state.lengths)
        return write_rows(cache, token_indices(state, new.shape[1]), new)


class Reader(_Attention):
    """Reads what the layer ``source`` shared in the same pass."""

    def __init__(
        self,
        plugin: MixerPlugin[Any],
        options: SharedOptions,
        shape: ModelShape,
        layer: LayerInfo,
        source: int | None,
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.source = source

    def cache(
        self, x: Tensor, positions: Tensor, state: MixerState | None, ctx: Context
    ) -> tuple[Cache, dict[str, Tensor]]:
        assert self.source is not None, "check() refuses a reader without a writer"
        cache: Cache = ctx.shared_by(self.source, NAME)
        return cache, {}
