"""Norms by one kernel each: vectors scaled to length 1, and the gated RMSNorm."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import Config, Key, arch_of
from archsearch.ops.bounds import UNIT_EPS
from archsearch.ops.triton.norms import gated_backward, gated_forward, unit_backward, unit_forward
from archsearch.ops.triton.table import GATED, UNIT


@torch.library.custom_op("archsearch::unit_length", mutates_args=())
def unit_length(x: Tensor) -> tuple[Tensor, Tensor]:
    """x `[..., H, K]` over sqrt(sum of squares + 1e-6), and one over those lengths `[N H]` float32."""
    unit = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x = _token_rows(x)
    rows, heads, dim = x.shape[0] * x.shape[1], x.shape[1], x.shape[2]
    inverse = torch.empty(rows, dtype=torch.float32, device=x.device)
    if unit.numel() == 0:
        return unit, inverse
    key = UNIT.key(arch_of(x.device), dim)
    config = UNIT.row(key)["forward"]
    unit_forward[(triton.cdiv(rows, config.tiles["R"]),)](
        x,
        unit,
        inverse,
        rows,
        heads,
        dim,
        x.stride(0),
        UNIT_EPS,
        ALIGNED=_aligned(x),
        **_tiles(config, key),
    )
    return unit, inverse


@torch.library.custom_op("archsearch::unit_length_backward", mutates_args=())
def unit_length_gradient(unit: Tensor, inverse: Tensor, d_unit: Tensor) -> Tensor:
    """Gradient of x `[..., H, K]`."""
    d_x = torch.empty(unit.shape, dtype=unit.dtype, device=unit.device)
    if d_x.numel() == 0:
        return d_x
    key = UNIT.key(arch_of(unit.device), unit.shape[-1])
    config = UNIT.row(key)["backward"]
    unit_backward[(triton.cdiv(inverse.shape[0], config.tiles["R"]),)](
        unit,
        inverse,
        d_unit.contiguous(),
        d_x,
        inverse.shape[0],
        unit.shape[-1],
        ALIGNED=unit.shape[-1] % 8 == 0,
        **_tiles(config, key),
    )
    return d_x


@unit_length.register_fake
def _unit_length_fake(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(math.prod(x.shape[:-1]), dtype=torch.float32)


@unit_length_gradient.register_fake
def _unit_length_gradient_fake(unit: Tensor, inverse: Tensor, d_unit: Tensor) -> Tensor:
    return unit.new_empty(unit.shape)


def _save_unit(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output)
    ctx.mark_non_differentiable(output[1])


def _unit_backward(ctx: Any, d_unit: Tensor, _: Tensor) -> Tensor:
    unit, inverse = ctx.saved_tensors
    d_x: Tensor = unit_length_gradient(unit, inverse, d_unit)
    return d_x


unit_length.register_autograd(_unit_backward, setup_context=_save_unit)


@torch.library.custom_op("archsearch::gated_norm", mutates_args=())
def gated_norm(x: Tensor, weight: Tensor, gate: Tensor | None, activation: str, eps: float) -> Tensor:
    """`gated_norm` of x `[..., H, V]`, weight `[V]` and gate `[..., H V]`: `[..., H V]` in the dtype of x."""
    out = torch.empty((*x.shape[:-2], x.shape[-2] * x.shape[-1]), dtype=x.dtype, device=x.device)
    if out.numel() == 0:
        return out
    x, gates = x.contiguous(), _gates(x, gate)
    key = GATED.key(arch_of(x.device), x.shape[-1])
    config = GATED.row(key)["forward"]
    rows = out.numel() // x.shape[-1]
    gated_forward[(triton.cdiv(rows, config.tiles["R"]),)](
        x,
        weight.float().contiguous(),
        gates,
        out,
        rows,
        x.shape[-2],
        x.shape[-1],
        gates.stride(0),
        eps,
        ACTIVATION=activation,
        ALIGNED=x.shape[-1] % 8 == 0,
        ODD_GATE=gate is not None and not _aligned(gates, x),
        **_tiles(config, key),
    )
    return out


@torch.library.custom_op("archsearch::gated_norm_backward", mutates_args=())
def gated_norm_gradients(
    x: Tensor, weight: Tensor, gate: Tensor | None, d_out: Tensor, activation: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and gate; the last empty where there is no gate."""
    d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    d_gate = d_x.new_empty(0) if gate is None else torch.empty(gate.shape, dtype=gate.dtype, device=x.device)
    if d_x.numel() == 0:
        return d_x, torch.zeros_like(weight), d_gate
    x, gates = x.contiguous(), _gates(x, gate)
    key = GATED.key(arch_of(x.device), x.shape[-1])
    config = GATED.row(key)["backward"]
    rows = x.numel() // x.shape[-1]
    programs = triton.cdiv(rows, config.tiles["R"])
    d_weight = torch.empty((programs, x.shape[-1]), dtype=torch.float32, device=x.device)
    gated_backward[(programs,)](
        x,
        weight.float().contiguous(),
        gates,
        d_out.contiguous(),
        d_x,
        d_gate,
        d_weight,
        rows,
        x.shape[-2],
        x.shape[-1],
        gates.stride(0),
        eps,
        ACTIVATION=activation,
        ALIGNED=x.shape[-1] % 8 == 0,
        ODD_GATE=gate is not None and not _aligned(gates, x),
        **_tiles(config, key),
    )
    return d_x, d_weight.sum(0).to(weight.dtype), d_gate


@gated_norm.register_fake
def _gated_norm_fake(x: Tensor, weight: Tensor, gate: Tensor | None, activation: str, eps: float) -> Tensor:
    return x.new_empty((*x.shape[:-2], x.shape[-2] * x.shape[-1]))


@gated_norm_gradients.register_fake
def _gated_norm_gradients_fake(
    x: Tensor, weight: Tensor, gate: Tensor | None, d_out: Tensor, activation: str, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    d_gate = x.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), d_gate


def _save_gated(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, gate, ctx.activation, ctx.eps = inputs
    ctx.save_for_backward(x, weight, gate)


def _gated_backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, gate = ctx.saved_tensors
    d_x, d_weight, d_gate = gated_norm_gradients(x, weight, gate, d_out, ctx.activation, ctx.eps)
    return d_x, d_weight, None if gate is None else d_gate, None, None


gated_norm.register_autograd(_gated_backward, setup_context=_save_gated)


def _token_rows(x: Tensor) -> Tensor:
    """`[..., H, K]` as `[N, H, K]`, each token's numbers dense, at whatever distance from the next one's."""
    x = x.reshape(-1, *x.shape[-2:])
    return x if x[:1].is_contiguous() else x.contiguous()


def _gates(x: Tensor, gate: Tensor | None) -> Tensor:
    """The gate `[..., H V]` as rows `[N, H V]` with dense numbers; x, unread, where there is none."""
    if gate is None:
        return x
    gate = gate.reshape(-1, gate.shape[-1])
    return gate if gate.stride(-1) == 1 else gate.contiguous()


def _aligned(rows: Tensor, like: Tensor | None = None) -> bool:
    """Whether rows at `rows.stride(0)`, of heads as long as those of `like`, may be read 8 numbers at a time."""
    dim = (rows if like is None else like).shape[-1]
    return not (dim % 8 or rows.stride(0) % 8 or rows.data_ptr() % 16)


def _tiles(config: Config, key: Key) -> dict[str, int]:
    return {
        "BLOCK_R": config.tiles["R"],
        "BLOCK_D": key[1],
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }
