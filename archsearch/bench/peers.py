"""Peers that come with PyTorch: scaled_dot_product_attention by backend, and FlexAttention under a block mask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.bench.op import Inputs, Outputs, Peer
from archsearch.bench.results.work import causal_work
from archsearch.errors import KernelUnavailableError
from archsearch.ops.softmax import masked_attention

SDPA = ("sdpa cudnn", "sdpa flash")
"""Causal attention over all tokens, by each of the two backends that are fast on a card."""

FLEX = "flex_attention"
_TILE = 128


def sdpa_peers(*, same: bool) -> tuple[Peer, ...]:
    """Full causal attention of q, k, v by `scaled_dot_product_attention`; ``same``: the op beside it computes that
    too, else each is compared with full attention."""
    reference, work = (None, None) if same else (full_reference, causal_work)
    return tuple(Peer(name=name, prepare=partial(_prepare_sdpa, name), reference=reference, work=work) for name in SDPA)


def full_reference(inputs: Inputs) -> Outputs:
    """Full causal attention of inputs in float32, `[B, T, Hq, D]`; each query head with its own keys, since the
    backend that needs no square of scores in float32 knows no groups."""
    share = inputs["q"].shape[2] // inputs["k"].shape[2]
    k, v = (inputs[name].repeat_interleave(share, 2) if share > 1 else inputs[name] for name in ("k", "v"))
    return (masked_attention(inputs["q"], k, v),)


def sdpa_step_peer() -> Peer:
    """One query a sequence over a cache whose rows are all filled."""
    return Peer(name="sdpa", prepare=_prepare_sdpa_step)


def _prepare_sdpa(name: str, inputs: Inputs) -> tuple[str, Callable[[Inputs], Outputs]]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if inputs["q"].device.type != "cuda":
        raise KernelUnavailableError(f"{name} is measured on a CUDA device")
    backend = {"sdpa cudnn": SDPBackend.CUDNN_ATTENTION, "sdpa flash": SDPBackend.FLASH_ATTENTION}[name]

    def run(inputs: Inputs) -> Outputs:
        with sdpa_kernel(backend):
            return (masked_attention(inputs["q"], inputs["k"], inputs["v"]),)

    return f"torch {torch.__version__} {backend.name}", run


def _prepare_sdpa_step(inputs: Inputs) -> tuple[str, Callable[[Inputs], Outputs]]:
    def run(inputs: Inputs) -> Outputs:
        q, k, v = inputs["q"][:, :, None], inputs["k"].transpose(1, 2), inputs["v"].transpose(1, 2)
        return (F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])[:, :, 0],)

    return f"torch {torch.__version__} chosen backend", run


def flex_peer(mask: Callable[[Inputs], Any]) -> Peer:
    """FlexAttention under the `BlockMask` that `mask` makes of the inputs, once and outside of the time."""
    return Peer(name=FLEX, prepare=partial(_prepare_flex, mask))


def _prepare_flex(mask: Callable[[Inputs], Any], inputs: Inputs) -> tuple[str, Callable[[Inputs], Outputs]]:
    if inputs["q"].device.type != "cuda":
        raise KernelUnavailableError("FlexAttention is measured on a CUDA device")
    made, attend = mask(inputs), _compiled_flex()
    return f"torch {torch.__version__} compiled", partial(flex_attend, attend, made)


def flex_attend(attend: Callable[..., Tensor], mask: Any, inputs: Inputs) -> Outputs:
    """`attend`, which is FlexAttention or a compiled form of it, on q, k and v `[B, T, H, D]`."""
    q, k, v = (inputs[name].transpose(1, 2) for name in ("q", "k", "v"))
    return (attend(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2),)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled


def block_mask(seen: Tensor, visible: Callable[..., Tensor]) -> Any:
    """The `BlockMask` of `seen` `[B or 1, H or 1, n, n]`: which tiles of 128 queries and 128 keys are looked at;
    `visible(b, h, query, key)` decides inside of each."""
    from torch.nn.attention.flex_attention import BlockMask

    count = seen.sum(-1, dtype=torch.int32)
    order = seen.int().argsort(dim=-1, descending=True, stable=True).int()
    return BlockMask.from_kv_blocks(count.contiguous(), order.contiguous(), BLOCK_SIZE=_TILE, mask_mod=visible)


def tiles_of(tokens: int) -> int:
    """Tiles of 128 that hold so many tokens."""
    return -(-tokens // _TILE)
