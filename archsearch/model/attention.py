"""AttentionMixer: what softmax mixers share around their cores: projections, norms, rotation, the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from archsearch.attention_cost import kv_heads_of
from archsearch.mixer import LayerInfo, MixerOptions, MixerPlugin, ModelShape
from archsearch.model.context import Context
from archsearch.model.mixer import Mixer, MixerState
from archsearch.ops.cache import head_major
from archsearch.ops.host import readable
from archsearch.ops.rotary import Rotary


class AttentionMixer(Mixer):
    """Projections of grouped heads around a softmax core, which a subclass writes as three methods:

    - `attend(q, k, v, cu_seqlens)`: whole sequences from their first token on, in parallel;
    - `remember(k, v, state)`: writes the keys and values of new tokens into the state, which stays at its lengths;
    - `extend(q, k, v, state)`: T more tokens after a state that holds some, of ragged lengths perhaps: `remember`
      them and attend over what is cached. T = 1 is the decode step, and must read no more than `traffic` says.

    `forward` projects (q and k normed and rotated, so that keys are cached rotated), mixes in what the backbone's value
    residual brings (of a plugin that says `MixerPlugin.values`), calls `attend` and `remember`
    on an empty state, else `extend`, advances the lengths and applies the output projection.

    Masks go by the order of tokens; ``ctx.positions`` only moves the rotation. ``rope`` is the rotated fraction of a
    head, 0 for none; ``n_kv_heads`` is the model's for 0; ``qk_norm`` norms each head of q and k (as in arXiv
    2302.05442, section 2, with RMSNorm). A subclass that calls `add_gate` has its output gated.
    """

    def __init__(
        self,
        plugin: MixerPlugin[Any],
        options: MixerOptions,
        shape: ModelShape,
        layer: LayerInfo,
        *,
        rope: float = 1.0,
        rope_base: float = 10000.0,
        qk_norm: bool = False,
        n_kv_heads: int = 0,
    ) -> None:
        super().__init__(plugin, options, shape, layer)
        self.n_heads, self.head_dim = shape.n_heads, shape.head_dim
        self.n_kv_heads = kv_heads_of(n_kv_heads, shape)
        self.qkv = nn.Linear(shape.d_model, (self.n_heads + 2 * self.n_kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(self.n_heads * self.head_dim, shape.d_model, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=1e-6) if qk_norm else None
        self.k_norm = nn.RMSNorm(self.head_dim, eps=1e-6) if qk_norm else None
        self.rotary = Rotary(self.head_dim, fraction=rope, base=rope_base)
        self.output_gate: nn.Linear | None = None

    def new_rows(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """On a CPU rows of heads lie head by head; kernels take them token by token."""
        if device.type == "cpu" and len(shape) == 4:
            return head_major(*shape, dtype=dtype, device=device)
        return super().new_rows(shape, dtype=dtype, device=device)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """q `[B, T, Hq, D]`, k and v `[B, T, Hkv, D]` to `[B, T, Hq, D]`, each token seeing none after it."""
        raise NotImplementedError

    def remember(self, k: Tensor, v: Tensor, state: MixerState) -> dict[str, Tensor]:
        """The state's tensors with `[B, T, Hkv, D]` more keys and values after ``state.lengths``."""
        raise NotImplementedError

    def extend(self, q: Tensor, k: Tensor, v: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs `[B, T, Hq, D]` of T more tokens, and the state's tensors with them."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        empty = state is None
        state = self.state_for(x, state, ctx)
        if state is None:
            q, k, v = self.project(x, ctx.positions_of(x))
            v = self.mix_values(v, ctx)
            return self.output(self.gated(self.attend(q, k, v, ctx.cu_seqlens), x)), None
        held = (
            0 if empty else state.check_room(x.shape[1], ctx.held)
        )  # compiled code could not tell that a new state is empty
        q, k, v = self.project(x, ctx.positions_of(x, state.lengths))
        v = self.mix_values(v, ctx)
        if held == 0:
            o, tensors = self.attend(q, k, v, None), self.remember(k, v, state)
        else:
            o, tensors = self.extend(q, k, v, state)
        return self.output(self.gated(o, x)), state.after(tensors, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`. On CUDA, and inside `torch.compile`, the host reads nothing back, so that a
        step can be captured in a graph: there it is the caller who keeps within the capacity, as `HybridLM.step`
        does."""
        if readable(x_t):
            state.check_room(1, ctx.held)
        x = x_t[:, None]
        q, k, v = self.project(x, ctx.positions_of(x, state.lengths))
        o, tensors = self.extend(q, k, self.mix_values(v, ctx), state)
        return self.output(self.gated(o, x))[:, 0], state.after(tensors, 1)

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q `[B, T, Hq, D]`, k and v `[B, T, Hkv, D]` of `x` `[B, T, D]` at `positions` `[B, T]`."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        turned, v = torch.split_with_sizes(heads, [self.n_heads + self.n_kv_heads, self.n_kv_heads], dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = turned.split([self.n_heads, self.n_kv_heads], dim=2)
            turned = torch.cat((normed(self.q_norm, q), normed(self.k_norm, k)), dim=2)
        q, k = torch.split_with_sizes(self.rotary(positions, turned), [self.n_heads, self.n_kv_heads], dim=2)
        return q, k, v

    def filled(self, tensors: dict[str, Tensor], state: MixerState, q: Tensor) -> tuple[Tensor, Tensor]:
        """The caches "k" and "v" of `tensors` in the dtype of q `[B, T, Hq, D]`, whose tokens follow those of `state`:
        the rows that some sequence has filled. Of several sequences in that dtype the caches as they are, since kernels
        would copy a part of them, which is no dense tensor."""
        most = state.most + q.shape[1]
        k, v = (
            cache if cache.dtype == q.dtype and len(cache) > 1 else cache[:, :most].to(q.dtype)
            for cache in (tensors["k"], tensors["v"])
        )
        return k, v

    def add_gate(self) -> None:
        """Gates the output: a weight of each channel of each head, made from the token (arXiv 2505.06708)."""
        self.output_gate = nn.Linear(self.shape.d_model, self.n_heads * self.head_dim, bias=False)

    def gated(self, o: Tensor, x: Tensor) -> Tensor:
        """Heads `[B, T, Hq, D]` times the sigmoid of the gate of their tokens `[B, T, D]`; as they are without one."""
        return o if self.output_gate is None else o * torch.sigmoid(self.output_gate(x)).view_as(o)

    def output(self, o: Tensor) -> Tensor:
        """Heads `[B, T, Hq, D]` to the model `[B, T, D]`."""
        out: Tensor = self.out(o.flatten(2))
        return out


def token_indices(state: MixerState, count: int) -> Tensor:
    """Index in its sequence of each of `count` tokens after the state, `[B, count]`."""
    if count == 1:
        return state.lengths[:, None]
    return state.lengths[:, None] + torch.arange(count, device=state.lengths.device)


def normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """x `[..., D]` normed, in its own dtype, which under autocast is not the weight's."""
    return nn.functional.rms_norm(x, (x.shape[-1],), norm.weight.to(x.dtype), norm.eps)
