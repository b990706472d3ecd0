"""A new length compiles nothing new: the variants of every kernel, by Triton's own key, over lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from archsearch_plugins.full.triton.table import TABLE as FULL
from archsearch_plugins.indexed.triton.table import TABLE as INDEXED
from archsearch_plugins.latent.triton.table import TABLE as LATENT
from archsearch_plugins.linear.triton.table import REMOVAL_STEP_TABLE as REMOVAL_STEP
from archsearch_plugins.linear.triton.table import REMOVAL_TABLE as REMOVAL
from archsearch_plugins.linear.triton.table import STEP_TABLE as LINEAR_STEP
from archsearch_plugins.linear.triton.table import TABLE as LINEAR
from archsearch_plugins.moba.triton.table import TABLE as MOBA
from archsearch_plugins.nsa.triton.table import TABLE as NSA
from archsearch_plugins.sliding.triton.table import TABLE as SLIDING
from kernel_calls import CONTINUED, LAID_OUT, SEQUENCES, STEPS, Sizes, run_sequence
from kernel_variants import Variant, variants

from archsearch.kernels import Key, Table
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer
from archsearch.ops.triton.table import CONV, GATED, GATES, UNIT
from archsearch.registry import Registry

LENGTHS = (1, 2, 3, 7, 15, 17, 31, 48, 64, 65, 100, 255, 256, 1000, 1001, 4096, 4098, 5001, 8191, 12345)
ENDS = (512, 16384)
STEP_ENDS = (16, 16384)
"""The two regimes of an op: on many tokens linear attention cuts a sequence into segments, the window divides the
queries of a sink, and a decode step divides a cache. They and their tiles are multiples of 16, which Triton compiles
apart where it may: a length that is none shows."""


def ends_of(op: str) -> tuple[int, int]:
    """Removals along a vector of their own are two steps a token: fewer tokens are cut."""
    return (ENDS[0] // 2, ENDS[1]) if op.startswith("removal-apart") else ENDS


SEQUENCE_TABLES = {
    "full": FULL,
    "linear": LINEAR,
    "removal": REMOVAL,
    "sliding": SLIDING,
    "moba": MOBA,
    "nsa": NSA,
    "indexed": INDEXED,
    "short_conv": CONV,
    "unit_length": UNIT,
    "gated_norm": GATED,
    "gate": GATES,
}
STEP_TABLES = {
    "full": FULL,
    "sliding": SLIDING,
    "moba": MOBA,
    "nsa": NSA,
    "indexed": INDEXED,
    "latent": LATENT,
    "linear": LINEAR_STEP,
    "removal": REMOVAL_STEP,
    "short_conv": CONV,
}
FEW_LENGTHS = (1, 17, 100, 4098, 12345)

SHAPES = {
    "H2-D16": Sizes(tokens=0, dtype=torch.bfloat16),
    "H3-over1-D20": Sizes(tokens=0, heads=3, kv_heads=1, dim=20, dtype=torch.bfloat16),
    "H1-D9": Sizes(tokens=0, heads=1, kv_heads=1, dim=9, dtype=torch.bfloat16),
}


def of_sequences(op: str, sizes: Sizes) -> set[Variant]:
    """Of the forward and the backward of one call."""
    with variants() as found:
        run_sequence(op, sizes)
    return set(found)


def of_step(op: str, sizes: Sizes) -> set[Variant]:
    with variants() as found, torch.no_grad():
        STEPS[op](sizes)
    return set(found)


def new_variants(
    call: Callable[[Sizes], set[Variant]], shape: Sizes, ends: tuple[int, ...], lengths: tuple[int, ...] = LENGTHS
) -> dict[int, Any]:
    """What the lengths compile that the `ends` did not."""
    known = set().union(*(call(replace(shape, tokens=tokens)) for tokens in ends))
    assert known
    found = {tokens: call(replace(shape, tokens=tokens)) - known for tokens in lengths}
    return {tokens: new for tokens, new in found.items() if new}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("op", "packed"), LAID_OUT)
def test_forwards_and_backwards(op: str, shape: str, packed: bool) -> None:
    assert not new_variants(partial(of_sequences, op), replace(SHAPES[shape], packed=packed), ends_of(op))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", CONTINUED)
def test_after_cached_tokens(op: str, shape: str) -> None:
    sizes = replace(SHAPES[shape], continued=True, batch=2)
    assert not new_variants(partial(of_sequences, op), sizes, ENDS, FEW_LENGTHS)


@pytest.mark.parametrize("batch", [1, 3], ids="B{}".format)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", STEPS)
def test_decode_steps(op: str, shape: str, batch: int) -> None:
    assert not new_variants(partial(of_step, op), replace(SHAPES[shape], batch=batch), STEP_ENDS)


def rows(tables: dict[str, Table], ops: Iterable[str]) -> list[Any]:
    """Each op with every row of its table."""
    return [
        pytest.param(op, key, id=f"{op}-{'-'.join(map(str, key))}")
        for op in ops
        for key in tables[op.split("-")[0]].rows
    ]


@pytest.mark.parametrize(("op", "key"), rows(SEQUENCE_TABLES, SEQUENCES))
def test_forwards_and_backwards_of_every_row(op: str, key: Key) -> None:
    with SEQUENCE_TABLES[op.split("-")[0]].forced(key):
        assert not new_variants(partial(of_sequences, op), SHAPES["H1-D9"], ends_of(op), FEW_LENGTHS)


@pytest.mark.parametrize(("op", "key"), rows(STEP_TABLES, STEPS))
def test_decode_steps_of_every_row(op: str, key: Key) -> None:
    with STEP_TABLES[op.split("-")[0]].forced(key):
        assert not new_variants(partial(of_step, op), SHAPES["H1-D9"], STEP_ENDS, FEW_LENGTHS)


LAYERS = {
    "kda": {},
    "gated-deltanet": {},
    "mamba2": {},
    "gla": {},
    "retnet": {},
    "comba": {},
    "rwkv7": {},
    "gated-deltanet-2": {},
    "full": {},
    "sliding": {"window": 8, "sinks": 2},
    "moba": {"block_size": 8, "top_k": 3},
    "nsa": {"block_size": 8, "top_k": 3, "window": 9},
    "mla": {},
}
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=9, dtype="float32")


def of_layer(mixer: Mixer, sizes: Sizes) -> set[Variant]:
    """Of a training step, a prefill in two parts, and a decode step after it, under bfloat16 autocast."""
    x = torch.randn(1, sizes.tokens, SHAPE.d_model)
    part, ctx = sizes.tokens // 3, Context(want_state=True)
    with variants() as found, torch.autocast("cpu", dtype=torch.bfloat16):
        mixer(x.requires_grad_(), ctx=Context())[0].sum().backward()
        with torch.no_grad():
            state = mixer.init_state(1, sizes.tokens + 1)
            for piece in torch.split(x.detach(), [part, sizes.tokens - part], dim=1):
                _, state = mixer(piece, state=state, ctx=ctx)
            mixer.step(x[:, 0].detach(), state=state, ctx=ctx)
    return set(found)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, installed: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    plugin, values = installed.resolve(name).plugin, LAYERS[name] or installed.resolve(name).preset
    mixer = plugin.build(plugin.parse_options(values), SHAPE, LayerInfo(index=1, depth=4))
    lengths = (3, 16, 31, 48, 65, 200, 513, 1001)
    assert not new_variants(partial(of_layer, mixer), Sizes(tokens=0), (16, 512, 8192), lengths)
