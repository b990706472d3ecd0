"""What a row of the core's own fused kernels is asked: short convolution, unit length, gated norm, gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archsearch.proving.check import Attempt, Check, grid
from archsearch.proving.compare import Verdict, worst
from archsearch.proving.judging import Op, compare, near

EPS = 1e-6
CHANNELS = (70, 72)
"""Of short convolutions and gates: rows that are read number by number, and 8 numbers at a time, by other builds."""


def core_checks() -> Iterator[Check]:
    """Of the rows of their tables."""
    from archsearch.ops.triton.table import CONV, GATED, GATES, UNIT

    convs = grid(tokens=(33, 1, 31, 65, 1000, 0), activation=("silu", "none"), channels=CHANNELS)
    yield Check(table=CONV, name="lengths", run=_conv, cases=convs, first=convs[:4])
    packed = grid(channels=CHANNELS)
    yield Check(table=CONV, name="packed, and one token", run=_packed_conv, cases=packed, first=packed)
    tails = grid(channels=CHANNELS[::-1], activation=("silu", "none"), tokens=(33, 1, 1000))
    first = [case for case in tails if case["tokens"] == 33]
    yield Check(table=CONV, name="after a tail", run=_after_tail, cases=tails, first=first)
    yield Check(table=UNIT, name="lengths", run=_unit, cases=grid(tokens=(19, 1, 0)))
    gated = grid(tokens=(19, 1, 0), activation=("silu", "none", "sigmoid"))
    yield Check(table=GATED, name="lengths", run=_gated, cases=gated, first=gated[:3])
    low = grid(tokens=(19,), activation=("silu", "sigmoid"), gate_dtype=("bfloat16",))
    yield Check(table=GATED, name="a gate in bfloat16", run=_gated, cases=low, first=low)
    rates = grid(shape=((2, 33, 21), (2, 33, 24), (1, 1, 1), (1, 0, 96)), want_step=(True, False))
    yield Check(table=GATES, name="rates", run=_rates, cases=rates, first=rates[:4])
    plain = grid(form=("sigmoid", "logsigmoid"), channels=CHANNELS)
    yield Check(table=GATES, name="plain gates", run=_plain_gates, cases=plain, first=plain)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def _tuples(function: Callable[..., Any], *names: str) -> Op:
    """A function of tensors as one of named tensors that gives a tuple."""

    def run(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        out = function(*(inputs[name] for name in names))
        return out if isinstance(out, tuple) else (out,)

    return run  # type: ignore[return-value]


def _conv(attempt: Attempt, tokens: int, activation: str, channels: int) -> Verdict:
    """Of 0 tokens: of more than 16 bits count."""
    from archsearch.ops.triton.launch.conv import conv

    tokens, found = tokens or attempt.long, []
    for width in _widths(attempt):
        drawn = {"x": _normal(1 if tokens > 1000 else 2, tokens, channels), "weight": _normal(width, channels)}
        ours = _tuples(lambda x, weight: conv(x, weight, None, None, activation), "x", "weight")
        theirs = _tuples(lambda x, weight: _shifted(x, weight, activation), "x", "weight")
        found.append(compare(ours, theirs, attempt.held(drawn, ["x"]), trained=["x", "weight"]))
    return worst(found)


def _widths(attempt: Attempt) -> list[int]:
    return sorted({attempt.dim, attempt.dim // 2 + 1})


def _after_tail(attempt: Attempt, channels: int, activation: str, tokens: int) -> Verdict:
    """Tokens that go on from earlier inputs, of which the kernel gives no gradient."""
    from archsearch.ops.triton.launch.conv import conv

    found = []
    for width in _widths(attempt):
        sizes = {"x": (2, tokens, channels), "weight": (width, channels), "tail": (2, width - 1, channels)}
        inputs = attempt.held({name: _normal(*size) for name, size in sizes.items()}, ["x", "tail"])
        ours = _tuples(lambda x, weight, tail: conv(x, weight, tail, None, activation), "x", "weight", "tail")
        theirs = _tuples(lambda x, weight, tail: _joined(x, weight, tail, activation), "x", "weight", "tail")
        found.append(compare(ours, theirs, inputs))
    return worst(found)


def _joined(x: Tensor, weight: Tensor, tail: Tensor, activation: str) -> Tensor:
    return _shifted(torch.cat([tail, x], dim=1), weight, activation)[:, tail.shape[1] :]


def _shifted(x: Tensor, weight: Tensor, activation: str, positions: Tensor | None = None) -> Tensor:
    """The convolution by its definition, without a module."""
    out = x * weight[0]
    for shift in range(1, min(weight.shape[0], x.shape[1])):
        moved = x[:, :-shift] * weight[shift]
        if positions is not None:
            moved = torch.where((positions[:, shift:] >= shift)[..., None], moved, 0.0)
        out = out + F.pad(moved, (0, 0, shift, 0))
    return F.silu(out) if activation == "silu" else out


def _packed_conv(attempt: Attempt, channels: int) -> Verdict:
    from archsearch.ops.triton.launch.conv import conv, conv_token

    inputs = attempt.held({"x": _normal(1, 103, channels), "weight": _normal(attempt.dim, channels)}, ["x"])
    lengths = (2, 1, 40, 0, 60)
    positions = torch.cat([torch.arange(length, device=attempt.device) for length in lengths])[None]
    ours = _tuples(lambda x, weight: conv(x, weight, None, positions, "silu"), "x", "weight")
    theirs = _tuples(lambda x, weight: _shifted(x, weight, "silu", positions), "x", "weight")
    packed = compare(ours, theirs, inputs, trained=["x", "weight"])
    x, weight, taps = inputs["x"], inputs["weight"], attempt.dim
    whole = _shifted(x[:, :taps].double(), weight.double(), "none")[:, -1]
    found = [packed]
    for dtype in dict.fromkeys((x.dtype, torch.float32)):  # of a tail as wide as the parameters
        tail = x[:, : taps - 1].to(dtype, copy=True)
        stepped = conv_token(x[:, taps - 1], weight, tail, "none")
        found.append(near("the step of one token", stepped, whole, 1e-2))
        found.append(near("the tail after it", tail, x[:, 1:taps], 0.0))
    return worst(found)


def _unit(attempt: Attempt, tokens: int) -> Verdict:
    from archsearch.ops.triton.launch.norms import unit_length

    found = []
    for dim in (attempt.dim, attempt.dim - 4):
        inputs = attempt.held({"x": _normal(1, tokens or attempt.long, 3, dim)}, ["x"])
        ours, theirs = _tuples(lambda x: unit_length(x)[0], "x"), _tuples(_explicit_unit, "x")
        found.append(compare(ours, theirs, inputs, trained=["x"]))
    return worst(found)


def _explicit_unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + EPS).sqrt()


def _gated(attempt: Attempt, tokens: int, activation: str, gate_dtype: str = "") -> Verdict:
    from archsearch.ops.triton.launch.norms import gated_norm

    def kernel(x: Tensor, weight: Tensor, gate: Tensor | None = None) -> Tensor:
        out: Tensor = gated_norm(x, weight, gate, activation, EPS)
        return out

    def plain(x: Tensor, weight: Tensor, gate: Tensor | None = None) -> Tensor:
        out = (x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight).flatten(-2)
        if gate is None:
            return out
        return out * (gate.sigmoid() if activation == "sigmoid" else F.silu(gate))

    names, found = ("x", "weight", "gate")[: 2 if activation == "none" else 3], []
    for dim in (attempt.dim, attempt.dim - 4):
        count = tokens or attempt.long
        sizes = {"x": (1, count, 3, dim), "weight": (dim,), "gate": (1, count, 3 * dim)}
        inputs = attempt.held({name: _normal(*sizes[name]) for name in names}, ["x", "gate"])
        if gate_dtype:  # beside what a mixer leaves in float32 under autocast
            inputs["gate"] = inputs["gate"].to(getattr(torch, gate_dtype))
        found.append(compare(_tuples(kernel, *names), _tuples(plain, *names), inputs, trained=names))
    return worst(found)


def _rates(attempt: Attempt, shape: tuple[int, int, int], want_step: bool) -> Verdict:
    from archsearch.ops.triton.launch.gates import gate

    batch, tokens, channels = shape
    heads, names = max(1, channels // 3), ("x", "bias", "rate")

    def kernel(x: Tensor, bias: Tensor, rate: Tensor) -> Any:
        out, step = gate(x, bias, rate, "rate", 1.0, want_step)
        return (out, step) if want_step else out

    def plain(x: Tensor, bias: Tensor, rate: Tensor) -> Any:
        step = F.softplus(x + bias, threshold=60)
        out = (step.unflatten(-1, (heads, -1)) * -rate.exp()[:, None]).flatten(-2)
        return (out, step) if want_step else out

    x = 3 * _normal(batch, tokens or attempt.long, channels)
    inputs = attempt.held({"x": x, "bias": _normal(channels), "rate": _normal(heads)}, ["x"])
    return compare(_tuples(kernel, *names), _tuples(plain, *names), inputs, trained=names)


def _plain_gates(attempt: Attempt, form: str, channels: int) -> Verdict:
    from archsearch.ops.triton.launch.gates import gate

    plain = {"logsigmoid": lambda x: F.logsigmoid(x) / 16, "sigmoid": torch.sigmoid}[form]
    ours = _tuples(lambda x: gate(x, None, None, form, 16.0, False)[0], "x")
    inputs = attempt.held({"x": 3 * _normal(2, 333, channels)}, ["x"])
    return compare(ours, _tuples(plain, "x"), inputs, trained=["x"])
