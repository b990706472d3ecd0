"""Linear attention as `archsearch bench kernels` measures it, by preset: over sequences, and one token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs, reference_form
from archsearch.bench.results.work import Shape, Work
from archsearch.mixer import LayerInfo

from .decays import RETNET_DECAY
from .gates import fixed_log_decay
from .ops import linear_attention, linear_attention_step
from .peers import SEQUENCES, STEPS, sequence_peer, step_peer
from .tokens import Tokens, named_tokens
from .triton.table import OP, REMOVAL_OP, REMOVAL_STEP_OP, STEP_OP

BOUND_CHUNK, CHUNK = 16, 64
"""The chunk that the bound is taken at, and the one that the kernels are called with."""

KINDS: Mapping[str, tuple[str, str]] = {
    "kda": ("delta", "channel"),
    "gated-deltanet": ("delta", "head"),
    "retnet": ("hebbian", "constant"),
    "mamba2": ("hebbian", "head"),
    "gla": ("hebbian", "channel"),
    "deltanet": ("delta", "none"),
    "linear": ("hebbian", "none"),
    "comba": ("early", "head"),
    "gated-deltanet-2": ("late", "channel"),
    "rwkv7": ("early apart", "channel"),
}
"""Update rule and decay of the presets that differ in their op, those with targets first; a removal of its own reads
late or early, and some take away apart from the written key."""

TAKEN: Mapping[str, tuple[str, ...]] = {
    "delta": ("beta",),
    **dict.fromkeys(("late", "early"), ("read",)),
    "early apart": ("read", "along"),
}
"""By rule what says what is taken away of the state."""

_HEAD_AXES = dict.fromkeys(("q", "k", "v", "beta", "read", "along"), 2)
_LONG_DECAYS = (1e-3, 0.1)


def bench_ops() -> Iterator[BenchOp]:
    """Every kind over sequences, then the steps."""
    for name, (rule, decay) in KINDS.items():
        trained = ("q", "k", "v", *(("log_decay",) if decay in ("head", "channel") else ()), *TAKEN.get(rule, ()))
        yield BenchOp(
            name=name,
            inputs=partial(_inputs, rule, decay),
            run=partial(_run, rule),
            reference=partial(_reference, rule),
            work=partial(linear_work, rule, decay),
            table=OP if rule in ("hebbian", "delta") else REMOVAL_OP,
            trained=trained,
            grids=_grids(name),
            head_axes={**_HEAD_AXES, "log_decay": 0 if decay == "constant" else 2},
            peers=(sequence_peer(name),) if name in SEQUENCES else (),
        )
    for name in ("kda", "gated-deltanet", "mamba2", "rwkv7"):
        rule, decay = KINDS[name]
        yield BenchOp(
            name=name,
            step=True,
            inputs=partial(_step_inputs, rule, decay),
            run=partial(_step, rule),
            table=STEP_OP if rule in ("hebbian", "delta") else REMOVAL_STEP_OP,
            reference=partial(_step_reference, rule),
            work=partial(linear_step_work, rule, decay),
            head_axes={**dict.fromkeys(_HEAD_AXES, 1), "state": 1, "log_decay": 1},
            peers=(step_peer(name),) if name in STEPS else (),
            grids=_step_grids(name),
        )


def linear_work(rule: str, decay: str, shape: Shape, element_bytes: int) -> Work:
    """Of the chunkwise form in chunks of 16, the least over chunks; ``done_flops`` in those of the kernels.

    A token and value head: 4 K V + 2 C V (Hebbian) or 6 K V + 2 C (K + 2 V) + 2/3 C^2 (delta rule), and 2 K V +
    2 C (K + V) more where what is taken away lies apart, which the kernels do as two steps of the delta rule; a token
    and key head: q k^T, for the delta rule k k^T too, 2 C K each.
    """
    done = 2 * _flops("delta", shape, CHUNK) if rule == "early apart" else _flops(rule, shape, CHUNK)
    inputs = shape.total * shape.head_dim * element_bytes * (2 * shape.kv_heads + shape.heads)
    output = shape.total * shape.head_dim * element_bytes * shape.heads
    return Work(
        flops=_flops(rule, shape, BOUND_CHUNK),
        done_flops=done,
        read_bytes=float(inputs + taken_bytes(rule, shape, shape.total, element_bytes))
        + gate_bytes(rule, decay, shape, shape.total),
        written_bytes=float(output),
    )


def linear_step_work(rule: str, decay: str, shape: Shape, element_bytes: int) -> Work:
    """One token of each sequence: the float32 state is read and written."""
    state = 4 * shape.batch * shape.heads * shape.head_dim**2
    vectors = shape.batch * shape.head_dim * element_bytes
    read = state + vectors * (2 * shape.kv_heads + shape.heads) + gate_bytes(rule, decay, shape, shape.batch)
    read += taken_bytes(rule, shape, shape.batch, element_bytes)
    products = {"hebbian": 4, "early apart": 8}.get(rule, 6)
    flops = products * shape.batch * shape.heads * shape.head_dim**2
    return Work(flops=float(flops), read_bytes=float(read), written_bytes=float(state + vectors * shape.heads))


def taken_bytes(rule: str, shape: Shape, tokens: int, element_bytes: int) -> int:
    """The vectors of a removal of its own, of so many tokens."""
    vectors = 0 if rule == "delta" else len(TAKEN.get(rule, ()))
    return vectors * tokens * shape.heads * shape.head_dim * element_bytes


def gate_bytes(rule: str, decay: str, shape: Shape, tokens: int) -> int:
    """Float32 decays and beta of so many tokens; a constant decay is one number a head."""
    numbers = {"none": 0, "constant": 0, "head": tokens, "channel": tokens * shape.head_dim}[decay]
    numbers += tokens if rule == "delta" else 0
    return 4 * shape.heads * numbers + (4 * shape.heads if decay == "constant" else 0)


def _flops(rule: str, shape: Shape, chunk: int) -> float:
    dim = shape.head_dim
    if rule != "hebbian":
        value_heads = shape.heads * (6 * dim * dim + 2 * chunk * 3 * dim + 2 / 3 * chunk**2)
        if rule == "early apart":
            value_heads += shape.heads * (2 * dim * dim + 4 * chunk * dim)
        return shape.total * (value_heads + shape.kv_heads * 4 * chunk * dim)
    value_heads = shape.heads * (4 * dim * dim + 2 * chunk * dim)
    return float(shape.total * (value_heads + shape.kv_heads * 2 * chunk * dim))


def _grids(name: str) -> dict[str, list[Shape]]:
    grouped, four, part = (
        Shape(batch=batch, tokens=tokens, heads=4 * kv_heads, kv_heads=kv_heads, head_dim=128)
        for batch, tokens, kv_heads in ((1, 32768, 16), (4, 8192, 16), (1, 65536, 2))
    )
    many = {
        "kda": [_shape(1, 8192, 64), _shape(2, 16384, 64), _shape(1, 65536, 8)],
        "gated-deltanet": [_shape(1, 8192, 64), grouped, _shape(1, 65536, 8), four, part],
    }
    usual = _shape(1, 32768, 16)
    full = many.get(name, [_shape(4, 8192, 16), usual] if name in ("retnet", "mamba2", "gla") else [usual])
    return {FULL: full, QUICK: full[1:2] or full, TINY: [_tiny(40)]}


def _step_grids(name: str) -> dict[str, list[Shape]]:
    full = [_shape(256, 1, 64), _shape(1, 1, 64)]
    return {FULL: full + [_shape(256, 1, 128)] * (name == "kda"), QUICK: full[:1], TINY: [_tiny(1)]}


def _shape(batch: int, tokens: int, heads: int) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=heads, kv_heads=heads, head_dim=128)


def _tiny(tokens: int) -> Shape:
    return Shape(batch=2, tokens=tokens, heads=4, kv_heads=2, head_dim=16)


def _inputs(rule: str, decay: str, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    """q and k of length 1; decays as the layers start with: dt from 0.001 to 0.1 times a rate from 1 to 16."""
    lead, dim = (shape.batch, shape.tokens), shape.head_dim
    q, k = (F.normalize(draw.normal(*lead, shape.kv_heads, dim), dim=-1) for _ in range(2))
    inputs = {"q": q, "k": k, "v": draw.normal(*lead, shape.heads, dim)}
    if decay == "constant":
        inputs["log_decay"] = fixed_log_decay(RETNET_DECAY, shape.heads, LayerInfo(index=0, depth=1)).to(draw.device)
    elif decay != "none":
        inputs["log_decay"] = _decays(draw, (*lead, shape.heads), dim if decay == "channel" else 0)
    if rule == "delta":
        inputs["beta"] = draw.uniform(*lead, shape.heads)
    elif rule != "hebbian":
        inputs |= _removal(rule, k, shape, draw)
    return inputs


def _removal(rule: str, k: Tensor, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    """Read by a share of each channel of the key, or by a unit vector of its own that loses such shares."""
    lead = (shape.batch, shape.tokens, shape.heads, shape.head_dim)
    shares = draw.uniform(*lead).to(draw.dtype)
    if rule != "early apart":
        return {"read": shares * k.repeat_interleave(shape.heads // shape.kv_heads, dim=2)}
    read = F.normalize(draw.normal(*lead), dim=-1)
    return {"read": read, "along": shares * read}


def _decays(draw: Draw, lead: tuple[int, ...], channels: int) -> Tensor:
    rates = draw.uniform(lead[-1], low=1.0, high=16.0)
    low, high = _LONG_DECAYS
    steps = low * (high / low) ** draw.uniform(*lead, *((channels,) if channels else ()))
    return -steps * (rates[:, None] if channels else rates)


def _step_inputs(rule: str, decay: str, shape: Shape, draw: Draw) -> dict[str, Tensor]:
    one = Shape(batch=shape.batch, tokens=1, heads=shape.heads, kv_heads=shape.kv_heads, head_dim=shape.head_dim)
    inputs = {name: x[:, 0] for name, x in _inputs(rule, decay, one, draw).items()}
    inputs["state"] = draw.uniform(shape.batch, shape.heads, shape.head_dim, shape.head_dim, low=-1.0)
    return inputs


def _run(rule: str, inputs: Inputs, impl: str) -> Outputs:
    o, _ = linear_attention(_tokens(rule, inputs), chunk_size=CHUNK, impl=impl, want_state=False)
    return (o,)


def _reference(rule: str, inputs: Inputs) -> Outputs:
    return _run(rule, inputs, reference_form(inputs))


def _step(rule: str, inputs: Inputs, impl: str) -> Outputs:
    """The state is overwritten where the form can: each call goes on from the last one's."""
    return linear_attention_step(_tokens(rule, inputs), inputs["state"], impl=impl, in_place=True)


def _step_reference(rule: str, inputs: Inputs) -> Outputs:
    return linear_attention_step(_tokens(rule, inputs), inputs["state"], impl="reference")


def _tokens(rule: str, inputs: Inputs) -> Tokens:
    given = {name: x for name, x in inputs.items() if name != "state"}
    return named_tokens(given, early=rule.startswith("early"))
