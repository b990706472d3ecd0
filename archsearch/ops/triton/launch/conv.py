"""The short convolution with its activation by one kernel: whole sequences, their gradients, one decoded token."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import arch_of
from archsearch.ops.triton.conv import conv_backward, conv_forward, conv_step
from archsearch.ops.triton.table import CONV, recalls_outputs


@torch.library.custom_op("archsearch::short_conv", mutates_args=())
def conv(x: Tensor, weight: Tensor, tail: Tensor | None, positions: Tensor | None, activation: str) -> Tensor:
    """`ShortConv.forward` of x `[B, T, C]` and weight `[W, C]`; no gradient reaches `tail`."""
    return _outputs(x, weight, tail, positions, activation)


def _outputs(x: Tensor, weight: Tensor, tail: Tensor | None, positions: Tensor | None, activation: str) -> Tensor:
    batch, tokens, channels = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    x, weight, key = _dense_channels(x), weight.float().contiguous(), _key(x, weight)
    positions = None if positions is None else _dense_channels(positions)
    config = CONV.row(key)["forward"]
    tiles = config.tiles
    conv_forward[(batch * triton.cdiv(tokens, tiles["R"]), triton.cdiv(channels, tiles["C"]))](
        x,
        weight,
        weight if tail is None else tail.contiguous(),
        x if positions is None else positions,
        y,
        tokens,
        channels,
        weight.shape[0],
        x.stride(0),
        x.stride(1),
        0 if positions is None else positions.stride(0),
        ACTIVATION=activation,
        TAIL=tail is not None,
        PACKED=positions is not None,
        ALIGNED=_aligned(x),
        TAPS=key[1],
        BLOCK_T=tiles["R"],
        BLOCK_C=tiles["C"],
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return y


@torch.library.custom_op("archsearch::short_conv_backward", mutates_args=())
def conv_gradients(
    x: Tensor, weight: Tensor, positions: Tensor | None, d_y: Tensor, activation: str
) -> tuple[Tensor, Tensor]:
    """Gradients of x `[B, T, C]` and weight `[W, C]` of `conv` without a tail."""
    batch, tokens, channels = x.shape
    d_x, dtype = torch.empty(x.shape, dtype=x.dtype, device=x.device), weight.dtype
    if d_x.numel() == 0:
        return d_x, torch.zeros_like(weight)
    x, weight, key = _dense_channels(x), weight.float().contiguous(), _key(x, weight)
    positions = None if positions is None else _dense_channels(positions)
    if activation != "none" and recalls_outputs(key[1]):
        before = _outputs(x, weight, None, positions, "none")
        d_y, activation = _before_activation(d_y, before, activation), "none"
    config = CONV.row(key)["backward"]
    tiles = config.tiles
    programs = batch * triton.cdiv(tokens, tiles["R"])
    d_weight = torch.empty((programs, *weight.shape), dtype=torch.float32, device=x.device)
    conv_backward[(programs, triton.cdiv(channels, tiles["C"]))](
        x,
        weight,
        x if positions is None else positions,
        d_y.contiguous(),
        d_x,
        d_weight,
        tokens,
        channels,
        weight.shape[0],
        x.stride(0),
        x.stride(1),
        0 if positions is None else positions.stride(0),
        ACTIVATION=activation,
        PACKED=positions is not None,
        ALIGNED=_aligned(x),
        TAPS=key[1],
        BLOCK_T=tiles["R"],
        BLOCK_C=tiles["C"],
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return d_x, d_weight.sum(0).to(dtype)


@torch.library.custom_op("archsearch::short_conv_step_", mutates_args=("tail",))
def conv_token(x: Tensor, weight: Tensor, tail: Tensor, activation: str) -> Tensor:
    """`conv` of one token x `[B, C]` after tail `[B, W - 1, C]`, dense, which becomes the tail after it."""
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    x, weight, key = _dense_channels(x), weight.float().contiguous(), _key(x, weight)
    config = CONV.row(key)["step"]
    columns = config.tiles["C"]
    conv_step[(x.shape[0], triton.cdiv(x.shape[1], columns))](
        x,
        weight,
        tail,
        tail,
        y,
        x.shape[1],
        weight.shape[0],
        x.stride(0),
        ACTIVATION=activation,
        TAPS=key[1],
        BLOCK_C=columns,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return y


@conv.register_fake
def _conv_fake(x: Tensor, weight: Tensor, tail: Tensor | None, positions: Tensor | None, activation: str) -> Tensor:
    return x.new_empty(x.shape)


@conv_gradients.register_fake
def _conv_gradients_fake(
    x: Tensor, weight: Tensor, positions: Tensor | None, d_y: Tensor, activation: str
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


@conv_token.register_fake
def _conv_token_fake(x: Tensor, weight: Tensor, tail: Tensor, activation: str) -> Tensor:
    return x.new_empty(x.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, tail, positions, ctx.activation = inputs
    assert tail is None, "a tail is read by the kernel only where no gradient is needed"
    ctx.save_for_backward(x, weight, positions)


def _backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, positions = ctx.saved_tensors
    d_x, d_weight = conv_gradients(x, weight, positions, d_y, ctx.activation)
    return d_x, d_weight, None, None, None


conv.register_autograd(_backward, setup_context=_save)


def _before_activation(d_y: Tensor, before: Tensor, activation: str) -> Tensor:
    """The gradient of what an activation was given, which is `before`."""
    if activation == "silu":
        slope: Tensor = torch.ops.aten.silu_backward(d_y.contiguous(), before)
        return slope
    gate = before.sigmoid()
    return d_y * gate * (1 - gate)


def _key(x: Tensor, weight: Tensor) -> tuple[str, int, int]:
    return CONV.key(arch_of(x.device), weight.shape[0])


def _dense_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _aligned(x: Tensor) -> bool:
    """Whether rows of a dense-channelled `[B, T, C]` may be read 8 numbers at a time."""
    return not any(size % 8 for size in (x.shape[-1], *x.stride()[:-1])) and x.data_ptr() % 16 == 0
