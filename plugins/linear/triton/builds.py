"""The machine code of the linear plugin's kernels: what a call launches, recorded without data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, TypeAlias

import torch
import triton.language as tl
from torch import Tensor

from archsearch.kernels import Build, Key, Table
from archsearch.kernels.build import COMMON

from ..decays import Decay
from .launch.backward import backward
from .launch.forward import operands_of, run_outputs, run_states, within_chunks
from .launch.fused import attend, attend_fused, wants_fused
from .launch.plan import Inputs, Launch, make_plan, recording
from .step import step_kernel
from .table import FUSED, NARROW, REMOVAL_STEP_TABLE, REMOVAL_TABLE, SHORTEST_SEGMENT, STEP_TABLE, TABLE

_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
Kind: TypeAlias = tuple[str, Decay]
"""A rule and its gates, as the kernels name them."""

_KINDS: Mapping[str, list[Kind]] = {
    TABLE.op: list(product(("hebbian", "delta"), ("none", "head", "channel"))),
    REMOVAL_TABLE.op: [
        ("late", "none"),
        ("late", "head"),
        ("late", "channel"),
        ("early", "head"),
        ("early", "channel"),
    ],
}
"""What each table serves; without decay early is late."""

_LAID: Mapping[str, list[Kind]] = {
    TABLE.op: [("hebbian", "head"), ("delta", "channel")],
    REMOVAL_TABLE.op: [("early", "head"), ("early", "channel")],
}
"""Of those, what is built for packed sequences and for segments too."""

_GROUPED: Mapping[str, list[Kind]] = {
    TABLE.op: [("hebbian", "head"), ("delta", "head"), ("delta", "channel")],
    REMOVAL_TABLE.op: [("early", "head"), ("late", "channel")],
}
"""And for grouped value heads."""

_FLOAT32: Mapping[str, list[Kind]] = {TABLE.op: [("hebbian", "none"), ("hebbian", "head")], REMOVAL_TABLE.op: []}
"""And in float32, which the features of Performer and the gates of mLSTM are; all at `COMMON` head dims."""

_DEEP = 128
"""The head dim whose kernels are also built for packed sequences, for segments, for grouped value heads, and as a
training step launches them."""
_SHALLOW = 16
"""The head dim at which a forward whose states stay on chip takes float32 too."""

_STEP_SIZES = (
    "heads",
    "value_heads",
    "key_dim",
    "value_dim",
    "q_row",
    "k_row",
    "v_row",
    "decay_row",
    "taken_row",
    "along_row",
)
_STEP_SIGNATURE = {
    **dict.fromkeys(("q", "k", "v"), "*bf16"),
    **dict.fromkeys(("log_decay", "taken", "state", "after"), "*fp32"),
    **dict.fromkeys(("along", "o"), "*bf16"),
    "scale": "fp32",
    **dict.fromkeys(_STEP_SIZES, "i32"),
}


def builds(arch: str) -> Iterator[Build]:
    """Every rule and decay in every row of `arch`; packed, in segments, with grouped value heads and with narrow keys
    at one head dim, where the code is the same but for where chunks lie, gradients that are summed over a group later,
    and what a product with a state sums; as a training step launches them, which is the same but for states that nobody
    gives or wants; some in float32, where all others are in bfloat16; and those of the step."""
    for table in (TABLE, REMOVAL_TABLE):
        for key in table.rows:
            if key[0] == arch:
                yield from _row(table, key)
    yield from _step_builds(arch)


def _row(table: Table, key: Key) -> Iterator[Build]:
    """Of removals only kernels that meet them: the others are those of the delta rule."""
    seen: set[str] = set()
    for call, kind in (*_apart(table, key), *_fused(table, key), *_trained(table, key)):
        build = _build(call, table, key, kind)
        code = repr((build.name, build.signature, build.constexprs))
        meets = build.constexprs.get("READ") or build.constexprs.get("EARLY")
        if code not in seen and (table is TABLE or meets):
            seen.add(code)
            yield build


def _apart(table: Table, key: Key) -> Iterator[tuple[Launch, Kind]]:
    """What calls launch whose states lie in memory, and their backward passes."""
    one = {"tokens": key[2]}
    for kind in _KINDS[table.op]:
        for sizes in (one, *_laid(table, key, kind)):
            yield from _calls(key, kind, **sizes)
        if key[1] == _DEEP and kind in _GROUPED[table.op]:
            yield from _calls(key, kind, **one, group=2)
    for kind in _KINDS[table.op] if key[1] in COMMON else _FLOAT32[table.op]:
        for sizes in (one, *_laid(table, key, kind)):
            yield from _calls(key, kind, **sizes, dtype=torch.float32)
    if key[1] == _DEEP:
        for kind, dtype in product(_LAID[table.op], (torch.bfloat16, torch.float32)):
            yield from _calls(key, kind, **one, keys=NARROW, dtype=dtype)


def _laid(table: Table, key: Key, kind: Kind) -> list[dict[str, Any]]:
    """The packed call and the one cut into segments of what is built for them."""
    if key[1] != _DEEP or kind not in _LAID[table.op]:
        return []
    return [{"tokens": key[2], "packed": True}, {"tokens": _cut(key)}]


def _fused(table: Table, key: Key) -> Iterator[tuple[Launch, Kind]]:
    """What the forwards launch whose states stay on chip."""
    for kind in (kind for kind in FUSED if kind in _KINDS[table.op]):
        lengths: list[dict[str, Any]] = [{"tokens": key[2]}]
        if key[1] == _DEEP:
            lengths += [{"tokens": key[2], "packed": True}, {"tokens": _cut(key)}]
            lengths += [{"tokens": key[2], "keys": NARROW}]
        if kind in _FLOAT32[table.op]:
            lengths += [{"tokens": key[2], "dtype": torch.float32}]
        for sizes in lengths:
            inputs, bounds, state = blank_call(key, *kind, **sizes)
            with table.forced(key), recording() as record:
                plan = make_plan(inputs, 1, bounds, key[2])
                if wants_fused(inputs, plan):
                    attend_fused(inputs, plan, state, want_final=True)
            yield from ((call, kind) for call in record)


def _trained(table: Table, key: Key) -> Iterator[tuple[Launch, Kind]]:
    """What a training step launches, of the deep row, whole and in segments: from no initial state, and without the
    final one. In float32 of the shallow row too, since the deep one keeps no states on chip there."""
    kinds = [(kind, torch.float32) for kind in _FLOAT32[table.op]] if key[1] == _SHALLOW else []
    if key[1] == _DEEP:
        kinds += product(_KINDS[table.op], (torch.bfloat16, torch.float32))
    for (kind, dtype), tokens in product(kinds, (key[2], _cut(key))):
        inputs, _, _ = blank_call(key, *kind, tokens=tokens, dtype=dtype)
        with table.forced(key), recording() as record:
            plan = make_plan(inputs, 1, None, key[2])
            within = attend(inputs, plan, None, want_final=False).within
            backward(inputs, plan, within, None, torch.empty_like(inputs.v), None)
        yield from ((call, kind) for call in record)


def _cut(key: Key) -> int:
    """Tokens of a sequence that is cut into segments where it is alone."""
    return key[2] * SHORTEST_SEGMENT * 8


def _calls(key: Key, kind: Kind, **sizes: Any) -> Iterator[tuple[Launch, Kind]]:
    """What the forward and the backward of one `blank_call` launch: from an initial state, with the final one
    wanted."""
    inputs, bounds, state = blank_call(key, *kind, **sizes)
    with inputs.table.forced(key), recording() as record:
        plan = make_plan(inputs, 1, bounds, key[2])
        within = within_chunks(inputs, plan)
        ready = operands_of(inputs, plan, within)
        memory = run_states(inputs, plan, ready, state, want_final=True)
        run_outputs(inputs, plan, within, ready, memory)
        backward(inputs, plan, within, state, torch.empty_like(inputs.v), state)
    yield from ((call, kind) for call in record)


def blank_call(
    key: Key,
    rule: str,
    decay: Decay,
    *,
    tokens: int,
    packed: bool = False,
    group: int = 1,
    keys: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[Inputs, Tensor | None, Tensor]:
    """Inputs of `group` value heads a key head, bounds of packed sequences and an initial state, all without data. Keys
    have the row's channels where `keys` is 0."""
    _, values, _ = key
    dim = keys or values

    def blank(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    gates = {"none": None, "head": (tokens, group), "channel": (tokens, group, dim)}[decay]
    beta = blank(tokens, group, dtype=torch.float32)
    taken = {"hebbian": None, "delta": beta}.get(rule, blank(tokens, group, dim))
    inputs = Inputs(
        q=blank(tokens, 1, dim),
        k=blank(tokens, 1, dim),
        v=blank(tokens, group, values),
        log_decay=None if gates is None else blank(*gates, dtype=torch.float32),
        taken=taken,
        decay=decay,
        scale=1.0,
        early=rule == "early",
    )
    bounds = blank(2, dtype=torch.int64) if packed else None
    return inputs, bounds, blank(1, group, dim, values, dtype=torch.float32)


def _build(call: Launch, table: Table, key: Key, kind: Kind) -> Build:
    parameters = inspect.signature(call.kernel.fn).parameters
    constant = {name for name, given in parameters.items() if given.annotation is tl.constexpr}
    constexprs = {name: value for name, value in call.arguments.items() if name in constant}
    signature = {name: _kind(value) for name, value in call.arguments.items() if name not in constant}
    told = ("DELTA", "READ", "EARLY")
    flags = [] if "*bf16" in signature.values() else ["float32"]
    flags += [name.lower() for name, value in constexprs.items() if value is True and name not in told]
    if signature.get("d_q") == "*fp32" and signature["q"] != "*fp32":
        flags.append("grouped")
    if constexprs.get("K", key[1]) < key[1]:
        flags.append("narrow-keys")
    return Build(
        op=table.op,
        name=call.kernel.fn.__name__,
        fn=call.kernel,
        signature=signature,
        constexprs=constexprs,
        config=call.config,
        head_dim=key[1],
        chunk=key[2],
        variant=" ".join(["-".join(kind), *flags]),
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return _POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


_STEP_DECAYS = ("none", "constant", "head", "channel")


def _step_builds(arch: str) -> Iterator[Build]:
    """Every rule and decay in every row of `arch`, by one decoded token; and, for value dims that are no multiple of 4,
    the delta rule, and a removal along a vector of its own, with a decay by channel."""
    for table in (STEP_TABLE, REMOVAL_STEP_TABLE):
        plain, odd = ["hebbian", "delta"], "delta"
        if table is REMOVAL_STEP_TABLE:
            plain, odd = ["late", "early", "late apart", "early apart"], "early apart"
        for key in table.rows:
            if key[0] != arch:
                continue
            for name in table.row(key):
                for rule, decay in product(plain, _STEP_DECAYS):
                    if decay != "none" or not rule.startswith("early"):  # without decay early is late
                        yield _step_build(table, key, name, rule, decay, aligned=True)
                yield _step_build(table, key, name, odd, "channel", aligned=False)


def _step_build(table: Table, key: Key, name: str, rule: str, decay: str, *, aligned: bool) -> Build:
    config = table.row(key)[name]
    constexprs = {
        "DELTA": rule != "hebbian",
        "READ": table is REMOVAL_STEP_TABLE,
        "EARLY": rule.startswith("early"),
        "APART": rule.endswith("apart"),
        "DECAY": decay,
        "ALIGNED": aligned,
        "BLOCK_K": key[1],
        "BLOCK_V": config.tiles["V"],
    }
    variant = f"{rule.replace(' ', '-')}-{decay}" + ("" if aligned else "-odd")
    signature = dict(_STEP_SIGNATURE)
    if rule != "delta":
        signature["taken"] = "*bf16"  # of the Hebbian rule it stands in: the kernel reads none
    if decay == "none":
        signature["log_decay"] = "*bf16"
    return Build(
        op=table.op,
        name=name,
        fn=step_kernel,
        signature=signature,
        constexprs=constexprs,
        config=config,
        head_dim=key[1],
        variant=variant,
    )
