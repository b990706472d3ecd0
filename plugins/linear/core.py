"""Cores: what stands between the tokens of a layer and what they read, each with its share of the state."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .ops import linear_attention, linear_attention_step
from .tokens import Tokens

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Call:
    """Beside tokens: ``more`` `[B, T, features]`, numbers that the layer's projection makes for the core, or None; the
    tensors of the ``state`` to go on from, or None, and the tokens that it has seen, ``lengths`` `[B]`, none of them
    where it is ``fresh``; the ``first`` state `[H, K, V]` of sequences without one, or None for zeros; bounds of packed
    sequences, and the ``places`` `[1, T]` of their tokens, or None; and the tokens of a chunk, at most."""

    more: Tensor | None = None
    state: Tensors | None = None
    lengths: Tensor | None = None
    fresh: bool = True
    cu_seqlens: Tensor | None = None
    places: Tensor | None = None
    chunk_size: int = 64
    first: Tensor | None = None

    def before(self, tokens: Tokens) -> Tensor | None:
        """The states `[N, H, K, V]` that sequences of ``tokens`` go on from, None for zeros."""
        if self.state is not None:
            return self.state["recurrent"][:, 0]
        sequences = len(tokens.q) if self.cu_seqlens is None else len(self.cu_seqlens) - 1
        return None if self.first is None else self.first.expand(sequences, -1, -1, -1)


class Core(nn.Module):
    """One state a head, read as `linear_attention` says."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """Of whole sequences: outputs `[B, T, H, V]`, and the tensors of the state after them, where one is given."""
        o, last = self.attend(tokens, call)
        return o, {} if call.state is None else {"recurrent": last[:, None]}

    def step(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensors]:
        """Of one token `[B, H, ...]` of each sequence the same; tensors of the state may be overwritten."""
        assert call.state is not None
        o, last = self.attend_step(tokens, call.state["recurrent"][:, 0])
        return o, {"recurrent": last[:, None]}

    def attend(self, tokens: Tokens, call: Call) -> tuple[Tensor, Tensor]:
        """`linear_attention` from the state, if there is one, and its last state, which means nothing without."""
        return linear_attention(
            tokens,
            scale=self.scale,
            initial_state=call.before(tokens),
            cu_seqlens=call.cu_seqlens,
            chunk_size=call.chunk_size,
            want_state=call.state is not None,
        )

    def attend_step(self, token: Tokens, before: Tensor) -> tuple[Tensor, Tensor]:
        """`linear_attention_step` from `before` `[B, H, K, V]`, which may be overwritten."""
        return linear_attention_step(token, before, scale=self.scale, in_place=True)
