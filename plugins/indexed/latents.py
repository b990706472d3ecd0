"""The layer whose chosen tokens or blocks are latents: multi-head latent attention under an index."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model.attention import normed
from archsearch.ops.rotary import Rotary, rotary_of

from .layer import Indexed
from .made import Read
from .options import IndexedOptions


class IndexedLatents(Indexed):
    """MLA (DeepSeek-V2, arXiv 2405.04434, section 2.1) over chosen tokens, as DeepSeek-V3.2 and GLM-5.3-Flash have it.

    A token keeps a latent c and a key r that heads share; head h has the key [K_h c, r] and the value V_h c. Sequences
    multiply these out; few tokens after a cache absorb K_h and V_h, and meet the latents themselves.
    """

    def __init__(
        self,
        plugin: MixerPlugin[Any],
        options: IndexedOptions,
        shape: ModelShape,
        layer: LayerInfo,
        *,
        keeps: bool = True,
    ) -> None:
        """``keeps``: the latents are its own, not an earlier layer's."""
        super().__init__(plugin, options, shape, layer)
        self.heads, self.width = shape.n_heads, shape.head_dim
        self.rank, self.shared = options.kv_rank, options.shared_dim
        ranked, asked = options.q_rank, self.heads * (self.width + self.shared)
        self.q_down = nn.Linear(shape.d_model, ranked, bias=False) if ranked else None
        self.q_norm = nn.RMSNorm(ranked, eps=1e-6) if ranked else None
        self.q = nn.Linear(ranked or shape.d_model, asked, bias=False)
        self.kv_down = nn.Linear(shape.d_model, self.rank + self.shared, bias=False) if keeps else None
        self.kv_norm = nn.RMSNorm(self.rank, eps=1e-6) if keeps else None
        self.kv_up = nn.Linear(self.rank, 2 * self.heads * self.width, bias=False)
        self.out = nn.Linear(self.heads * self.width, shape.d_model, bias=False)
        self.rotary = rotary_of(
            self.shared, options, fraction=options.shared_rope, learned=keeps and options.rope_learned
        )

    def low(self, x: Tensor) -> Tensor:
        return x if self.q_down is None or self.q_norm is None else normed(self.q_norm, self.q_down(x))

    def made(
        self, x: Tensor, low: Tensor, positions: Tensor, rotary: Rotary | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rotary = rotary or self.rotary
        q = self.q(low).unflatten(-1, (self.heads, -1))
        if self.kv_down is None or self.kv_norm is None:
            plain, asked = q.tensor_split([self.width], dim=-1)
            return torch.cat((plain, rotary(positions, asked)), dim=-1), {}
        latent, shared = self.kv_down(x).tensor_split([self.rank], dim=-1)
        plain, asked = q.tensor_split([self.width], dim=-1)
        turned = rotary(positions, torch.cat((asked, shared[:, :, None]), dim=2))
        rows = torch.cat((normed(self.kv_norm, latent), turned[:, :, -1]), dim=-1)
        return torch.cat((plain, turned[:, :, :-1]), dim=-1), {"latent": rows}

    def attended(self, q: Tensor, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Multiplied out, or absorbed where that costs less; then keys and values are one head, as wide as a row."""
        latents, count = rows["latent"], q.shape[1]
        to_key, to_value = self._up(q)
        latent, shared = latents.tensor_split([self.rank], dim=-1)
        if self._absorbs(count, latents.shape[1]):
            plain, asked = q.tensor_split([self.width], dim=-1)
            wide = torch.cat((torch.einsum("bthd,hdc->bthc", plain, to_key), asked), dim=-1)
            kept = (self.rank + self.shared) / (self.width + self.shared)  # scores are scaled by what they are wide
            values = latent if count == 1 else latents
            return wide * kept**0.5, latents[:, :, None], values[:, :, None]
        k, v = (torch.einsum("bsc,hdc->bshd", latent, up) for up in (to_key, to_value))
        k = torch.cat((k, shared[:, :, None].expand(-1, -1, self.heads, -1)), dim=-1)
        return q, k, F.pad(v, (0, self.shared))  # as wide as keys: fused forms take no other values

    def mixed(self, o: Tensor, read: Read) -> Tensor:
        """Values of heads: of mixed latents they are made now."""
        if self._absorbs(read.q.shape[1], read.k.shape[1]):
            return torch.einsum("bthc,hdc->bthd", o[..., : self.rank], self._up(o)[1])
        return o[..., : self.width]

    def written(self, o: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.out(o.flatten(2))
        return out

    def _absorbs(self, count: int, rows: int) -> bool:
        """Whether `count` queries over `rows` meet the latents as they are."""
        return count < rows and count * (self.rank - self.width) < self.rank * self.width

    def _up(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The weights `[H, D, C]` of keys and of values."""
        up = self.kv_up.weight.to(like.dtype).view(self.heads, 2, self.width, self.rank)
        return up[:, 0], up[:, 1]
