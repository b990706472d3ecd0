"""Gates by one elementwise kernel: log decays, step sizes, write strengths."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from archsearch.kernels import Config, arch_of
from archsearch.ops.triton.gates import gate_backward, gate_forward
from archsearch.ops.triton.table import GATES


@torch.library.custom_op("archsearch::gate", mutates_args=())
def gate(
    x: Tensor, bias: Tensor | None, rate: Tensor | None, form: str, temperature: float, want_step: bool
) -> tuple[Tensor, Tensor]:
    """Float32 `[..., C]` of x `[..., C]` by `form`, and the step size beneath it where that is wanted, else empty.

    "rate": -exp(rate) step with step = softplus(x + bias), bias `[C]`, rate `[H]`, C a multiple of H, both bounded as
    `archsearch.ops.bounds` says; "logsigmoid": logsigmoid(x) / temperature; "sigmoid".
    """
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    step = torch.empty(x.shape if want_step else 0, dtype=torch.float32, device=x.device)
    if out.numel() == 0:
        return out, step
    x, group = _rows(x), _group(x, rate)
    config = _config("forward", x)
    gate_forward[_grid(x, config)](
        x,
        _or(x, bias),
        _or(x, rate),
        out,
        step,
        x.shape[0],
        x.shape[1],
        group,
        x.stride(0),
        temperature,
        FORM=form,
        STEP=want_step,
        ALIGNED=_aligned(x),
        **_tiles(config),
    )
    return out, step


@torch.library.custom_op("archsearch::gate_backward", mutates_args=())
def gate_gradients(
    x: Tensor,
    bias: Tensor | None,
    rate: Tensor | None,
    d_out: Tensor,
    d_step: Tensor,
    form: str,
    temperature: float,
    want_step: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, bias and rate; the last two empty where there are none."""
    d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    d_bias, d_rate = (x.new_empty(0) if y is None else torch.zeros_like(y) for y in (bias, rate))
    if d_x.numel() == 0:
        return d_x, d_bias, d_rate
    x, group = _rows(x), _group(x, rate)
    config = _config("backward", x)
    grid = _grid(x, config)
    bias_parts, rate_parts = (
        torch.empty((grid[0] if form == "rate" else 0, x.shape[1]), dtype=torch.float32, device=x.device)
        for _ in range(2)
    )
    gate_backward[grid](
        x,
        _or(x, bias),
        _or(x, rate),
        d_out.contiguous(),
        d_step.contiguous(),
        d_x,
        bias_parts,
        rate_parts,
        x.shape[0],
        x.shape[1],
        group,
        x.stride(0),
        temperature,
        FORM=form,
        STEP=want_step,
        ALIGNED=_aligned(x),
        **_tiles(config),
    )
    if bias is not None and rate is not None:
        d_bias = bias_parts.sum(0).to(bias.dtype)
        d_rate = rate_parts.sum(0).unflatten(0, (-1, group)).sum(1).to(rate.dtype)
    return d_x, d_bias, d_rate


@gate.register_fake
def _gate_fake(
    x: Tensor, bias: Tensor | None, rate: Tensor | None, form: str, temperature: float, want_step: bool
) -> tuple[Tensor, Tensor]:
    out = x.new_empty(x.shape, dtype=torch.float32)
    return out, x.new_empty(x.shape if want_step else 0, dtype=torch.float32)


@gate_gradients.register_fake
def _gate_gradients_fake(
    x: Tensor,
    bias: Tensor | None,
    rate: Tensor | None,
    d_out: Tensor,
    d_step: Tensor,
    form: str,
    temperature: float,
    want_step: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    d_bias, d_rate = (x.new_empty(0) if y is None else y.new_empty(y.shape) for y in (bias, rate))
    return x.new_empty(x.shape), d_bias, d_rate


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, bias, rate, ctx.form, ctx.temperature, ctx.want_step = inputs
    ctx.save_for_backward(x, bias, rate)


def _backward(ctx: Any, d_out: Tensor, d_step: Tensor) -> tuple[Tensor | None, ...]:
    x, bias, rate = ctx.saved_tensors
    d_x, d_bias, d_rate = gate_gradients(x, bias, rate, d_out, d_step, ctx.form, ctx.temperature, ctx.want_step)
    return d_x, None if bias is None else d_bias, None if rate is None else d_rate, None, None, None


gate.register_autograd(_backward, setup_context=_save)


def _rows(x: Tensor) -> Tensor:
    """`[..., C]` as `[N, C]`, each row dense."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def _or(x: Tensor, parameter: Tensor | None) -> Tensor:
    """The parameter; x, unread, where there is none."""
    return x if parameter is None else parameter.contiguous()


def _group(x: Tensor, rate: Tensor | None) -> int:
    """Neighbouring columns that share a rate."""
    return 1 if rate is None else x.shape[-1] // rate.shape[0]


def _aligned(x: Tensor) -> bool:
    """Whether rows `[N, C]` may be read 8 numbers at a time."""
    return not (x.shape[1] % 8 or x.stride(0) % 8 or x.data_ptr() % 16)


def _config(name: str, x: Tensor) -> Config:
    return GATES.pick(arch_of(x.device), 1)[name]


def _grid(x: Tensor, config: Config) -> tuple[int, int]:
    return triton.cdiv(x.shape[0], config.tiles["R"]), triton.cdiv(x.shape[1], config.tiles["C"])


def _tiles(config: Config) -> dict[str, int]:
    return {
        "BLOCK_R": config.tiles["R"],
        "BLOCK_C": config.tiles["C"],
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }
