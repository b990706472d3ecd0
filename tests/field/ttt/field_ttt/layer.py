"""The layer of TTT-Linear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context, Mixer, MixerState

if TYPE_CHECKING:
    from . import TttOptions

_EPS = 1e-6


class TestTimeTraining(Mixer):
    """Mini-batches begin with the sequence: tokens are laid out by them, and those that are not there have no rate."""

    __test__ = False  # what pytest must not take for a suite

    def __init__(self, plugin: MixerPlugin[Any], options: TttOptions, shape: ModelShape, layer: LayerInfo) -> None:
        super().__init__(plugin, options, shape, layer)
        self.mini_batch, self.rate = options.mini_batch, options.rate
        self.heads, self.width = shape.n_heads, shape.head_dim
        self.sizes = [*[self.heads * self.width] * 3, self.heads]
        self.proj = nn.Linear(shape.d_model, sum(self.sizes), bias=False)
        self.first = nn.Parameter(torch.randn(self.heads, self.width + 1, self.width) * self.width**-0.5)
        self.norm = nn.Parameter(torch.ones(self.heads, self.width))
        self.shift = nn.Parameter(torch.zeros(self.heads, self.width))
        self.out = nn.Linear(self.heads * self.width, shape.d_model, bias=False)

    def init_state(
        self, batch: int, capacity: int, *, dtype: torch.dtype | None = None, device: Any = None
    ) -> MixerState:
        """Of the trained first weights."""
        state = super().init_state(batch, capacity, dtype=dtype, device=device)
        state.tensors["weights"] = self._first(batch)[:, None].clone()
        return state

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        """`[B, T, D]` to `[B, T, D]`; raises `SpecError` for packed sequences with a state."""
        state = self.state_for(x, state, ctx)
        if state is not None and ctx.cu_seqlens is not None:
            raise SpecError("packed sequences (cu_seqlens) cannot share a state: give each sequence a row of the batch")
        row, column = self._places(x, state, ctx)
        sequences = len(x) if ctx.cu_seqlens is None else len(ctx.cu_seqlens) - 1
        laid = (sequences, int(column.max()) + 1 if column.numel() else 0)
        parts = [part.new_zeros(*laid, *part.shape[2:]).index_put((row, column), part) for part in self._project(x)]
        weights = self._first(sequences) if state is None else state.tensors["weights"][:, 0]
        gradient = torch.zeros_like(weights) if state is None else state.tensors["gradient"][:, 0]
        filled = torch.full((sequences,), laid[1], device=x.device)
        if state is not None:
            filled = state.lengths % self.mini_batch + x.shape[1]
        z, weights, gradient = self._trained(parts, weights, gradient, filled)
        out = self._output(z[row, column], x)
        if state is None:
            return out, None
        return out, state.after({"weights": weights[:, None], "gradient": gradient[:, None]}, x.shape[1])

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        """One token, `[B, D]` to `[B, D]`: the primal form."""
        q, k, v, rate = (part[:, 0] for part in self._project(x_t[:, None]))  # [B, H, ...]
        weights, gradient = state.tensors["weights"][:, 0], state.tensors["gradient"][:, 0]
        wrong = self._wrong(k, v, torch.einsum("bhd,bhde->bhe", _biased(k), weights))
        gradient = gradient + _biased(k)[..., None] * (rate[..., None] * wrong)[:, :, None]
        z = self._read(q, torch.einsum("bhd,bhde->bhe", _biased(q), weights - gradient))
        closes = ((state.lengths + 1) % self.mini_batch == 0)[:, None, None, None]
        after = {
            "weights": torch.where(closes, weights - gradient, weights)[:, None],
            "gradient": gradient.masked_fill(closes, 0.0)[:, None],
        }
        return self._output(z[:, None], x_t[:, None])[:, 0], state.after(after, 1)

    def _first(self, batch: int) -> Tensor:
        return self.first.float().expand(batch, -1, -1, -1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v `[B, T, H, D]` and rates `[B, T, H]`, fp32."""
        *qkv, rate = torch.split(self.proj(x).float(), self.sizes, dim=-1)
        q, k, v = (torch.unflatten(part, -1, (self.heads, self.width)) for part in qkv)
        return q, k, v, rate.sigmoid() * (self.rate / self.width)

    def _places(self, x: Tensor, state: MixerState | None, ctx: Context) -> tuple[Tensor, Tensor]:
        """Sequence and column `[B, T]` of each token, where a mini-batch begins at each multiple of its size."""
        if ctx.cu_seqlens is not None:
            tokens = torch.arange(x.shape[1], device=x.device)
            row = torch.searchsorted(ctx.cu_seqlens[1:].to(x.device), tokens, right=True)[None]
            return row, ctx.order_of(x)
        offset = None if state is None else state.lengths % self.mini_batch
        return torch.arange(len(x), device=x.device)[:, None].expand(-1, x.shape[1]), ctx.order_of(x, offset)

    def _trained(
        self, parts: list[Tensor], weights: Tensor, gradient: Tensor, filled: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z `[N, C, H, D]` of q, k, v, rates laid out `[N, C, H, ...]`, the weights and the gradient after them.

        ``filled`` `[N]`: columns of each sequence, after which its mini-batch may stay open."""
        outputs, end = [], 0
        for q, k, v, rate in zip(*(part.split(self.mini_batch, 1) for part in parts), strict=True):
            keys, queries = _biased(k), _biased(q)
            wrong = rate[..., None] * self._wrong(k, v, torch.einsum("nthd,nhde->nthe", keys, weights))
            within = torch.einsum("nthd,nshd->nhts", queries, keys).tril()
            read = torch.einsum("nthd,nhde->nthe", queries, weights - gradient)
            outputs.append(self._read(q, read - torch.einsum("nhts,nshe->nthe", within, wrong)))
            gradient = gradient + torch.einsum("nthd,nthe->nhde", keys, wrong)
            end += self.mini_batch
            closes = (filled >= end)[:, None, None, None]
            weights = torch.where(closes, weights - gradient, weights)
            gradient = gradient.masked_fill(closes, 0.0)
        return torch.cat(outputs, 1) if outputs else parts[0], weights, gradient

    def _wrong(self, k: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """The gradient of |k + norm(z) - v|^2 / 2 in z `[..., H, D]`, by the backward of LayerNorm."""
        centred = z - z.mean(-1, keepdim=True)
        inverse = (centred.square().mean(-1, keepdim=True) + _EPS).rsqrt()
        normed = centred * inverse
        above = (k + self.norm.float() * normed + self.shift.float() - v) * self.norm.float()
        along = (above * normed).mean(-1, keepdim=True)
        return (above - above.mean(-1, keepdim=True) - normed * along) * inverse

    def _read(self, q: Tensor, z: Tensor) -> Tensor:
        return q + self.norm.float() * F.layer_norm(z, (self.width,), eps=_EPS) + self.shift.float()

    def _output(self, z: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.out(z.flatten(2).to(x.dtype))
        return out


def _biased(x: Tensor) -> Tensor:
    """`[..., D]` to `[..., D + 1]`, with the 1 that meets the bias."""
    return F.pad(x, (0, 1), value=1.0)
