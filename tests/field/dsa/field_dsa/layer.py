"""The layer of DeepSeek sparse attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, MixerState
from archsearch.model.attention import AttentionMixer
from archsearch.ops.cache import write_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.masks import earlier_in_sequence
from archsearch.ops.rotary import Rotary
from archsearch.ops.softmax import explicit_attention
from archsearch.ops.weights import mean_weights

if TYPE_CHECKING:
    from . import DsaOptions


class IndexedAttention(AttentionMixer):
    """Scores of the indexer, the tokens that they choose, and attention over these alone, in every form."""

    def __init__(self, plugin: MixerPlugin[Any], options: DsaOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer, rope=options.rope)
        self.top_k, self.index_dim = options.top_k, options.index_dim
        self.index_sizes = list(options.index_channels)
        self.index = nn.Linear(shape.d_model, sum(self.index_sizes), bias=False)
        self.index_norm = nn.LayerNorm(options.index_dim)
        self.index_rotary = Rotary(options.index_dim, fraction=options.rope)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` past the capacity, or for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        lengths = None if state is None else state.lengths
        order, positions = ctx.order_of(x, lengths), ctx.positions_of(x, lengths)
        q, k, v = self.project(x, positions)
        asks, key, weights = self._indexed(x.detach(), positions)
        if state is None:
            o = self._attend(q, k, v, (asks, key, weights), earlier_in_sequence(order), ctx)
            return self.output(o), None
        most = state.check_room(x.shape[1], ctx.held) + x.shape[1]
        new = {"k": k, "v": v, "index": key}
        tensors = {name: write_rows(state.tensors[name], order, values) for name, values in new.items()}
        k, v, key = (tensors[name][:, :most].to(q.dtype) for name in new)
        visible = torch.arange(k.shape[1], device=x.device) <= order[..., None]
        o = self._attend(q, k, v, (asks, key, weights), visible, ctx)
        return self.output(o), state.after(tensors, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`, which reads every index key and the keys and values of the chosen."""
        y, after = self(x_t[:, None], state=state, ctx=ctx)
        return y[:, 0], after

    def _indexed(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The indexer's queries `[B, T, J, I]`, key `[B, T, I]`, and weights `[B, T, J]`."""
        asks, key, weights = torch.split(self.index(x), self.index_sizes, dim=-1)
        key = self.index_norm(key)[:, :, None]
        asks = torch.unflatten(asks, -1, (-1, self.index_dim))
        scale = (self.index_dim * weights.shape[-1]) ** -0.5
        return self.index_rotary(positions, asks), self.index_rotary(positions, key)[:, :, 0], weights * scale

    def attention_weights(self, x: Tensor, *, ctx: Context) -> Tensor:
        """What each token attends to, `[B, T, T]`, for a model that learns it: see `archsearch.model.teacher`."""
        visible, positions = earlier_in_sequence(ctx.order_of(x)), ctx.positions_of(x)
        q, k, _ = self.project(x, positions)
        chosen, seen, _ = self._choice(self._indexed(x, positions), visible)
        return mean_weights(q, k, torch.zeros_like(visible).scatter(-1, chosen, seen))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, indexed: tuple[Tensor, Tensor, Tensor], visible: Tensor, ctx: Context
    ) -> Tensor:
        """q `[B, T, Hq, D]` over the best of the `visible` `[B, T, S]`; in training the indexer's loss is added."""
        if not q.numel():
            return LaidOut(q, k, v).no_outputs()
        chosen, seen, scores = self._choice(indexed, visible)
        if self.training and scores is not None:
            ctx.add_loss("field_dsa_index", divergence(self._target(q, k, visible, ctx), scores, visible))
        return _over(q, k, v, chosen, seen)

    def _choice(self, indexed: tuple[Tensor, Tensor, Tensor], visible: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The chosen rows `[B, T, K]`, which of them are visible, and the scores `[B, T, S]` where they were needed."""
        if not self.training and visible.shape[-1] <= self.top_k:
            return torch.arange(visible.shape[-1], device=visible.device).expand_as(visible), visible, None
        asks, key, weights = (part.float() for part in indexed)
        hits = torch.einsum("btji,bsi->btjs", asks, key).relu()
        scores = torch.einsum("btj,btjs->bts", weights, hits).masked_fill(~visible, -torch.inf)
        # stable, so that all forms choose alike where scores are equal
        chosen = scores.detach().argsort(dim=-1, descending=True, stable=True)[..., : self.top_k]
        return chosen, visible.gather(-1, chosen), scores

    def _target(self, q: Tensor, k: Tensor, visible: Tensor, ctx: Context) -> Tensor:
        """What the indexer learns, `[B, T, S]`: the teacher's attention, or the dense one of its own layer."""
        taught = ctx.teacher.attention(self.layer.index) if ctx.teacher is not None else None
        if taught is not None and taught.shape == visible.shape:
            return taught.float()
        with torch.no_grad():
            return mean_weights(q, k, visible)


def divergence(target: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
    """KL(target || softmax scores) `[B, T, S]` over what is visible, the mean over tokens."""
    learnt = scores.log_softmax(-1).masked_fill(~visible, 0.0)
    return (torch.xlogy(target, target) - target * learnt).sum(-1).mean()


def _over(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, seen: Tensor) -> Tensor:
    """Attention of each of q `[B, T, Hq, D]` over its own rows `chosen` `[B, T, K]` of k and v, where `seen`."""
    row = torch.arange(len(q), device=q.device)[:, None, None]
    keys, values = (x[row, chosen].flatten(0, 1) for x in (k, v))  # [B T, K, Hkv, D]
    o = explicit_attention(q.flatten(0, 1)[:, None], keys, values, seen.flatten(0, 1)[:, None])
    return torch.unflatten(o[:, 0], 0, q.shape[:2])
