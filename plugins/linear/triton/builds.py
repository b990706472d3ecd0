"""The machine code of the linear plugin's kernels: what a call in bfloat16 launches, recorded without data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from archsearch.kernels import Build, Config, Key

from ..decays import Decay
from .launch.backward import backward
from .launch.forward import operands_of, run_outputs, run_states, within_chunks
from .launch.fused import attend, attend_fused, wants_fused
from .launch.plan import Inputs, Launch, make_plan, recording
from .step import step_kernel
from .table import FUSED, OP, SHORTEST_SEGMENT, STEP_OP, STEP_TABLE, TABLE

_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
_RULES = ("hebbian", "delta")
_DECAYS: tuple[Decay, ...] = ("none", "head", "channel")
_DEEP = 128
"""The head dim whose kernels are also built for packed sequences, for segments, for grouped value heads, and as a
training step launches them."""
_STEP_SIZES = (
    "heads",
    "value_heads",
    "key_dim",
    "value_dim",
    "q_row",
    "k_row",
    "v_row",
    "decay_row",
    "beta_row",
)
_STEP_SIGNATURE = {
    **dict.fromkeys(("q", "k", "v"), "*bf16"),
    **dict.fromkeys(("log_decay", "beta", "state", "after"), "*fp32"),
    "o": "*bf16",
    "scale": "fp32",
    **dict.fromkeys(_STEP_SIZES, "i32"),
}


def builds(arch: str) -> Iterator[Build]:
    """Every rule and decay in every row of `arch`; packed, in segments and with grouped value heads at one head dim,
    where the code is the same but for where chunks lie, and gradients that are summed over a group later; as a training
    step launches them, which is the same but for states that nobody gives or wants; and those of the step."""
    for key in TABLE.rows:
        if key[0] == arch:
            yield from _row(key)
    yield from _step_builds(arch)


def _row(key: Key) -> Iterator[Build]:
    seen: set[str] = set()
    for call, variant in (*_apart(key), *_fused(key), *_trained(key)):
        build = _build(call, key, variant)
        code = repr((build.name, build.signature, build.constexprs))
        if code not in seen:
            seen.add(code)
            yield build


def _apart(key: Key) -> Iterator[tuple[Launch, str]]:
    """What calls launch whose states lie in memory, and their backward passes."""
    for rule, decay in product(_RULES, _DECAYS):
        calls = _calls(key, rule, decay, tokens=key[2])
        if key[1] == _DEEP and (rule, decay) in (("hebbian", "head"), ("delta", "channel")):
            calls += _calls(key, rule, decay, tokens=key[2], packed=True)
            calls += _calls(key, rule, decay, tokens=_cut(key))
        if key[1] == _DEEP and (rule, decay) in (("hebbian", "head"), ("delta", "head"), ("delta", "channel")):
            calls += _calls(key, rule, decay, tokens=key[2], group=2)
        for call in calls:
            yield call, f"{rule}-{decay}"


def _fused(key: Key) -> Iterator[tuple[Launch, str]]:
    """What the forwards launch whose states stay on chip."""
    for rule, decay in FUSED:
        lengths = [{"tokens": key[2]}]
        if key[1] == _DEEP:
            lengths += [{"tokens": key[2], "packed": True}, {"tokens": _cut(key)}]
        for sizes in lengths:
            inputs, bounds, state = blank_call(key, rule, decay, **sizes)  # type: ignore[arg-type]
            with TABLE.forced(key), recording() as record:
                plan = make_plan(inputs, 1, bounds, key[2])
                if wants_fused(inputs, plan):
                    attend_fused(inputs, plan, state, want_final=True)
            for call in record:
                yield call, f"{rule}-{decay}"


def _trained(key: Key) -> Iterator[tuple[Launch, str]]:
    """What a training step launches, of the deep row, whole and in segments: from no initial state, and without the
    final one."""
    if key[1] != _DEEP:
        return
    for rule, decay, tokens in product(_RULES, _DECAYS, (key[2], _cut(key))):
        inputs, _, _ = blank_call(key, rule, decay, tokens=tokens)
        with TABLE.forced(key), recording() as record:
            plan = make_plan(inputs, 1, None, key[2])
            within = attend(inputs, plan, None, want_final=False).within
            backward(inputs, plan, within, None, torch.empty_like(inputs.v), None)
        for call in record:
            yield call, f"{rule}-{decay}"


def _cut(key: Key) -> int:
    """Tokens of a sequence that is cut into segments where it is alone."""
    return key[2] * SHORTEST_SEGMENT * 8


def _calls(key: Key, rule: str, decay: Decay, *, tokens: int, packed: bool = False, group: int = 1) -> list[Launch]:
    """What the forward and the backward of one call launch, with `group` value heads a key head: from an initial
    state, with the final one wanted."""
    inputs, bounds, state = blank_call(key, rule, decay, tokens=tokens, packed=packed, group=group)
    with TABLE.forced(key), recording() as record:
        plan = make_plan(inputs, 1, bounds, key[2])
        within = within_chunks(inputs, plan)
        ready = operands_of(inputs, plan, within)
        memory = run_states(inputs, plan, ready, state, want_final=True)
        run_outputs(inputs, plan, within, ready, memory)
        backward(inputs, plan, within, state, torch.empty_like(inputs.v), state)
    return record


def blank_call(
    key: Key, rule: str, decay: Decay, *, tokens: int, packed: bool = False, group: int = 1
) -> tuple[Inputs, Tensor | None, Tensor]:
    """Inputs, bounds of packed sequences and an initial state, all without data."""
    _, dim, _ = key

    def blank(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    gates = {"none": None, "head": (tokens, group), "channel": (tokens, group, dim)}[decay]
    inputs = Inputs(
        q=blank(tokens, 1, dim),
        k=blank(tokens, 1, dim),
        v=blank(tokens, group, dim),
        log_decay=None if gates is None else blank(*gates, dtype=torch.float32),
        beta=blank(tokens, group, dtype=torch.float32) if rule == "delta" else None,
        decay=decay,
        scale=1.0,
    )
    bounds = blank(2, dtype=torch.int64) if packed else None
    return inputs, bounds, blank(1, group, dim, dim, dtype=torch.float32)


def _build(call: Launch, key: Key, variant: str) -> Build:
    parameters = inspect.signature(call.kernel.fn).parameters
    constant = {name for name, given in parameters.items() if given.annotation is tl.constexpr}
    constexprs = {name: value for name, value in call.arguments.items() if name in constant}
    signature = {name: _kind(value) for name, value in call.arguments.items() if name not in constant}
    flags = [name.lower() for name, value in constexprs.items() if value is True and name != "DELTA"]
    if signature.get("d_q") == "*fp32":
        flags.append("grouped")
    return Build(
        op=OP,
        name=call.kernel.fn.__name__,
        fn=call.kernel,
        signature=signature,
        constexprs=constexprs,
        config=call.config,
        head_dim=key[1],
        chunk=key[2],
        variant=" ".join([variant, *flags]),
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return _POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def _step_builds(arch: str) -> Iterator[Build]:
    """Every rule and decay in every row of `arch`, by one decoded token; and, for value dims that are no multiple of 4,
    the delta rule with a decay by channel."""
    for key in STEP_TABLE.rows:
        if key[0] != arch:
            continue
        key_dim = key[1]
        for name, config in STEP_TABLE.row(key).items():
            for rule, decay in product(("hebbian", "delta"), ("none", "constant", "head", "channel")):
                yield _step_build(name, config, key_dim, rule, decay, aligned=True)
            yield _step_build(name, config, key_dim, "delta", "channel", aligned=False)


def _step_build(name: str, config: Config, key_dim: int, rule: str, decay: str, *, aligned: bool) -> Build:
    constexprs = {
        "DELTA": rule == "delta",
        "DECAY": decay,
        "ALIGNED": aligned,
        "BLOCK_K": key_dim,
        "BLOCK_V": config.tiles["V"],
    }
    variant = f"{rule}-{decay}" + ("" if aligned else "-odd")
    signature = dict(_STEP_SIGNATURE)
    if rule == "hebbian":
        signature["beta"] = "*bf16"  # stands in: the kernel reads none
    if decay == "none":
        signature["log_decay"] = "*bf16"
    return Build(
        op=STEP_OP,
        name=name,
        fn=step_kernel,
        signature=signature,
        constexprs=constexprs,
        config=config,
        head_dim=key_dim,
        variant=variant,
    )
