"""Tokens: the inputs of the op, as it is given them, in one form, and packed sequences as padded rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from archsearch.ops.laid_out import packed_lengths

from .decays import Decay


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a token takes away of the state before it writes k v^T: S <- S - along (S_in^T read)^T.

    read, along `[B, T, HV, K]`, without T of one token; ``along`` is None for the written key. S_in is the state after
    the token's decay, or before it where the removal is ``early``.
    """

    read: Tensor
    along: Tensor | None = None
    early: bool = False

    def map(self, change: Callable[[Tensor], Tensor]) -> Removal:
        """Both vectors changed alike."""
        along = None if self.along is None else change(self.along)
        return Removal(read=change(self.read), along=along, early=self.early)

    def split(self, size: int) -> list[Removal]:
        """Runs of `size` tokens, the last one perhaps shorter; views."""
        reads = torch.split(self.read, size, dim=1)
        runs = [None] * len(reads) if self.along is None else torch.split(self.along, size, dim=1)
        return [Removal(read=read, along=along, early=self.early) for read, along in zip(reads, runs, strict=True)]


@dataclass(frozen=True)
class Tokens:
    """What linear attention is asked of tokens: of sequences, or of one token of each.

    q, k `[B, T, H, K]`; v `[B, T, HV, V]`, HV a multiple of H, query head h serving the HV / H value heads from
    h HV / H on; log_decay (natural logarithm, at most 0) `[HV]`, `[B, T, HV]` or `[B, T, HV, K]`; beta `[B, T, HV]`,
    which asks for the delta rule: its removal is (beta k, k), and it writes beta v. Any other is given as ``removal``,
    beside which there is no beta. Of one token a sequence the same without T.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    _: KW_ONLY
    log_decay: Tensor | None = None
    beta: Tensor | None = None
    removal: Removal | None = None

    @property
    def flat(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """The tensors side by side: q, k, v, log_decay, beta."""
        return self.q, self.k, self.v, self.log_decay, self.beta

    def only(self, at: int = 0) -> Tokens:
        """The token `at` of each sequence; a constant decay `[HV]` stays as it is."""
        q, k, v, log_decay, beta = self.flat
        varies = log_decay is not None and log_decay.dim() > 1
        return Tokens(
            q[:, at],
            k[:, at],
            v[:, at],
            log_decay=log_decay[:, at] if varies and log_decay is not None else log_decay,
            beta=None if beta is None else beta[:, at],
            removal=None if self.removal is None else self.removal.map(lambda x: x[:, at]),
        )


def named_tokens(given: Mapping[str, Tensor | None], *, early: bool = False) -> Tokens:
    """`Tokens` of tensors by name; ``read`` and ``along`` are those of a removal, which may be ``early``."""
    own = {name: x for name, x in given.items() if name not in ("read", "along")}
    read = given.get("read")
    removal = None if read is None else Removal(read=read, along=given.get("along"), early=early)
    return Tokens(**own, removal=removal)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class CanonicalTokens:
    """q, k `[B, T, H, K]`, v `[B, T, H, V]`, beta `[B, T, H]`, log_decay `[B or 1, T, H, 1 or K]` of the kind
    ``decay``, and the removal, of one dtype: the form that every implementation in PyTorch reads."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    beta: Tensor | None
    decay: Decay
    removal: Removal | None = None

    @property
    def state_shape(self) -> tuple[int, int, int, int]:
        """`[B, H, K, V]`."""
        batch, _, heads, key_dim = self.q.shape
        return batch, heads, key_dim, self.v.shape[-1]

    def no_outputs(self) -> Tensor:
        """Outputs `[B, 0, H, V]`, through which gradients, of no elements, reach q, k and v."""
        given = (self.q, self.k) if self.removal is None else (self.q, self.k, self.removal.read)
        return self.v + 0 * sum(x.sum() for x in given)

    def empty_state(self) -> Tensor:
        """Zeros `[B, H, K, V]`."""
        return self.v.new_zeros(self.state_shape)

    def map(self, change: Callable[[Tensor], Tensor]) -> CanonicalTokens:
        """Every tensor changed alike."""
        log_decay = None if self.log_decay is None else change(self.log_decay)
        beta = None if self.beta is None else change(self.beta)
        q, k, v = change(self.q), change(self.k), change(self.v)
        removal = None if self.removal is None else self.removal.map(change)
        return CanonicalTokens(q=q, k=k, v=v, log_decay=log_decay, beta=beta, decay=self.decay, removal=removal)

    def split(self, size: int) -> list[CanonicalTokens]:
        """Runs of `size` tokens, the last one perhaps shorter; views."""
        if self.q.shape[1] <= size:
            return [self]
        given = (self.q, self.k, self.v, self.log_decay, self.beta)
        runs = (itertools.repeat(None) if x is None else torch.split(x, size, dim=1) for x in given)
        removals = itertools.repeat(None) if self.removal is None else self.removal.split(size)
        return [
            CanonicalTokens(q=q, k=k, v=v, log_decay=log_decay, beta=beta, decay=self.decay, removal=removal)
            for q, k, v, log_decay, beta, removal in zip(*runs, removals, strict=False)
        ]


def canonical(tokens: Tokens, decay: Decay) -> CanonicalTokens:
    """In float32, or float64 where q is, each value head with its own q and k; `decay` is the kind of log_decay."""
    q, k, v, log_decay, beta = tokens.flat
    dtype = torch.promote_types(q.dtype, torch.float32)
    groups = v.shape[2] // q.shape[2]
    if groups > 1:
        q, k = q.repeat_interleave(groups, dim=2), k.repeat_interleave(groups, dim=2)
    if log_decay is not None:
        if decay == "constant":
            log_decay = log_decay.expand(1, q.shape[1], -1)
        log_decay = log_decay if decay == "channel" else log_decay[..., None]
    given = CanonicalTokens(q=q, k=k, v=v, log_decay=log_decay, beta=beta, decay=decay, removal=tokens.removal)
    return given.map(lambda x: x.to(dtype))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where packed tokens stand in padded rows: token t is place ``place[t]`` of row ``row[t]``."""

    row: Tensor
    place: Tensor


def pad_packed(tokens: CanonicalTokens, cu_seqlens: Tensor) -> tuple[CanonicalTokens, Layout]:
    """Packed sequences `[1, T, ...]` as rows `[N, longest, ...]`, padded with tokens that leave the state alone."""
    lengths = torch.tensor(packed_lengths(cu_seqlens, tokens.q.shape[1]), device=tokens.q.device, dtype=torch.int64)
    count = len(lengths)
    longest = int(lengths.max()) if count else 0
    row = torch.repeat_interleave(torch.arange(count, device=lengths.device), lengths)
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(len(row), device=lengths.device) - starts[row]

    def pad(x: Tensor) -> Tensor:
        return x.new_zeros(count, longest, *x.shape[2:]).index_put((row, place), x[0])

    return tokens.map(pad), Layout(row=row, place=place)


def unpad(o: Tensor, layout: Layout) -> Tensor:
    """Outputs `[N, longest, H, V]` of padded rows back as packed `[1, T, H, V]`."""
    return o[layout.row, layout.place][None]
