"""Inputs of linear attention, what the op makes of them, and how far that is from what is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from archsearch_plugins.linear.ops import linear_attention, linear_attention_step
from archsearch_plugins.linear.tokens import named_tokens
from torch import Tensor

DECAYS = ["none", "constant", "head", "channel"]
RULES = ["hebbian", "delta"]
Inputs = dict[str, Tensor | None]


def make_inputs(
    *,
    T: int,
    decay: str,
    rule: str,
    B: int = 2,
    H: int = 2,
    HV: int = 2,
    K: int = 16,
    V: int = 12,
    low: float = -20.0,
    state: bool = True,
    seed: int = 0,
) -> Inputs:
    """Signed q, k, v, keys of length 1, beta in (0, 1), log decays uniform in [low, 0]; float32 values in float64."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    gates = {"none": None, "constant": (HV,), "head": (B, T, HV), "channel": (B, T, HV, K)}[decay]
    inputs: Inputs = {
        "q": normal(B, T, H, K),
        "k": F.normalize(normal(B, T, H, K), dim=-1),
        "v": normal(B, T, HV, V),
        "log_decay": None if gates is None else low * torch.rand(*gates, generator=draw),
        "beta": torch.rand(B, T, HV, generator=draw) if rule == "delta" else None,
        "initial_state": normal(B, HV, K, V) if state else None,
    }
    return {name: None if x is None else x.double() for name, x in inputs.items()}


def attend(inputs: Mapping[str, Tensor | None], *, early: bool = False, **options: Any) -> tuple[Tensor, Tensor]:
    """`linear_attention` of inputs by name, a first state or bounds among them, and what a removal reads by and takes
    away along."""
    tokens = dict(inputs)
    beside = {name: tokens.pop(name) for name in ("initial_state", "cu_seqlens") if name in tokens}
    return linear_attention(named_tokens(tokens, early=early), **beside, **options)  # type: ignore[arg-type]


def step(inputs: Mapping[str, Tensor | None], *, early: bool = False, **options: Any) -> tuple[Tensor, Tensor]:
    """`linear_attention_step` of inputs by name, the state among them."""
    tokens = dict(inputs)
    state = tokens.pop("state")
    assert state is not None
    return linear_attention_step(named_tokens(tokens, early=early), state, **options)


def results(inputs: Inputs, *, dtype: torch.dtype, **options: Any) -> dict[str, Tensor]:
    """Output, last state, and the gradient of every input under a loss on both."""
    given = {name: None if x is None else x.to(dtype).detach().requires_grad_() for name, x in inputs.items()}
    o, state = attend(given, **options)
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=draw).to(x.dtype) for x in (o, state)]
    torch.autograd.backward([o, state], weights)
    found = {"o": o.detach(), "state": state.detach()}
    return found | {f"d_{name}": x.grad for name, x in given.items() if x is not None}  # type: ignore[misc]


def assert_near(actual: dict[str, Tensor], expected: dict[str, Tensor], limit: float) -> None:
    """RMS(difference) / RMS(expected) of each is finite and at most `limit`."""
    ratios = {}
    for name, wanted in expected.items():
        difference = (actual[name].double() - wanted).square().mean().sqrt()
        ratios[name] = float(difference / wanted.square().mean().sqrt().clamp(min=1e-30))
        assert actual[name].isfinite().all(), name
    assert all(ratio <= limit for ratio in ratios.values()), ratios
