"""Offsets past 2^31 elements: tensors whose tokens or sequences lie that far apart give what dense ones give.

Memory is reserved for them and, but for the rows that are used, never touched.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from archsearch_plugins.full.ops import full_attention, full_attention_step
from archsearch_plugins.linear.ops import linear_attention_step
from archsearch_plugins.linear.tokens import Tokens
from archsearch_plugins.moba.ops import moba_attention, moba_attention_step
from archsearch_plugins.moba.triton.table import TABLE as MOBA
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.nsa.step import NsaCache, nsa_attention_step
from archsearch_plugins.sliding.ops import window_attention
from torch import Tensor
from triton.runtime.interpreter import GridExecutor

from archsearch.ops.block_cache import BlockCache, write_mean
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.triton.launch import conv as launch_conv
from archsearch.ops.triton.launch import gates as launch_gates
from archsearch.ops.triton.launch import norms as launch_norms

FAR = 2**31
"""Elements between the first row and the last."""


@pytest.fixture(autouse=True)
def _in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter works on the memory of the tensors, which it would write back as a whole."""
    monkeypatch.setattr(GridExecutor, "_init_args_hst", lambda self, args, options: (list(args), dict(options)))
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda self, *_: None)


def apart(x: Tensor, axis: int) -> Tensor:
    """A copy of `x` float16 whose rows along an axis, all axes before it being of size 1 or nearer, lie far apart."""
    rows, width = x.shape[axis], x[0].numel() if axis == 0 else x.stride(axis)
    step = -(-FAR // ((rows - 1) * width)) * width
    strides = [*x.contiguous().stride()]
    strides[axis] = step
    if axis == 1:
        strides[0] = step * rows
    far = torch.empty(step * (rows - 1) + width, dtype=x.dtype).as_strided(x.shape, strides)
    assert far[(0,) * axis + (rows - 1,)].storage_offset() >= FAR
    return far.copy_(x)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).half()


MOBA_SIZES = {"block_size": 2, "top_k": 2}
NSA_SIZES = NsaSizes(block_size=2, top_k=3, window=2)
SEQUENCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "full": lambda q, k, v: full_attention(LaidOut(q, k, v), impl="triton"),
    "sliding": lambda q, k, v: window_attention(LaidOut(q, k, v), window=3, sinks=1, impl="triton"),
    "moba": lambda q, k, v: moba_attention(LaidOut(q, k, v), **MOBA_SIZES, impl="triton"),
    "nsa": lambda q, k, v: nsa_attention(
        LaidOut(q, k, v), gates=torch.ones(*q.shape[:3], 3).half(), sizes=NSA_SIZES, impl="triton"
    ),
}


@pytest.mark.parametrize("op", SEQUENCES)
def test_tokens(op: str) -> None:
    dense = [normal(1, 7, heads, 16) for heads in (2, 1, 1)]
    outputs, gradients = [], []
    for tensors in (dense, [apart(x, 1) for x in dense]):
        leaves = [x.requires_grad_() for x in tensors]
        outputs.append(SEQUENCES[op](*leaves))
        gradients.append(torch.autograd.grad(outputs[-1].float().sum(), leaves))
    assert torch.equal(*outputs)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("axis", [0, 1], ids=["sequences", "rows"])
@pytest.mark.parametrize("op", ["full", "moba", "nsa"])
def test_rows_of_caches(op: str, axis: int) -> None:
    batch, lengths = 3 - 2 * axis, torch.tensor([10, 8, 9])[: 3 - 2 * axis]
    q, dense = normal(batch, 2, 16), [normal(batch, rows, 1, 16) for rows in (10, 10, 5)]
    outputs = []
    for k, v, means in (dense, [apart(x, axis) for x in dense]):
        if op == "full":
            outputs.append([full_attention_step(q, k, v, lengths, impl="triton")])
        elif op == "moba":
            means = write_mean(means, k, lengths, block_size=2, table=MOBA, impl="triton")
            cache = BlockCache(k=k, v=v, means=means, lengths=lengths)
            outputs.append([moba_attention_step(q, cache, **MOBA_SIZES, impl="triton"), means.clone()])
        else:
            gates = normal(batch, 2, 3)
            held = NsaCache(k=k, v=v, k_means=means, v_means=means, lengths=lengths)
            outputs.append([nsa_attention_step(q, held, gates=gates, sizes=NSA_SIZES, impl="triton")])
    assert all(torch.equal(*pair) for pair in zip(*outputs, strict=True))


def test_sequences_of_a_linear_step() -> None:
    q, v = normal(3, 1, 16), normal(3, 2, 16)
    gates = {"log_decay": -normal(3, 2, 16).abs(), "beta": normal(3, 2).sigmoid()}
    outputs = [
        linear_attention_step(Tokens(*each, **by), torch.zeros(3, 2, 16, 16), impl="triton")
        for each, by in (
            ((q, q, v), gates),
            ([apart(x, 0) for x in (q, q, v)], {name: apart(x, 0) for name, x in gates.items()}),
        )
    ]
    assert all(torch.equal(*pair) for pair in zip(*outputs, strict=True))


FUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "short_conv": lambda x: launch_conv.conv(x, torch.ones(4, 32), None, None, "silu"),
    "short_conv_step": lambda x: launch_conv.conv_token(x[0], torch.ones(4, 32), torch.ones(5, 3, 32), "silu"),
    "unit_length": lambda x: launch_norms.unit_length(torch.unflatten(x, -1, (2, 16)))[0],
    "gated_norm": lambda x: launch_norms.gated_norm(torch.ones(1, 5, 2, 16), torch.ones(16), x, "silu", 1e-6),
    "gates": lambda x: launch_gates.gate(x, None, None, "sigmoid", 1.0, False)[0],
}


@pytest.mark.parametrize("op", FUSED)
def test_tokens_of_fused_kernels(op: str) -> None:
    x = normal(1, 5, 32)
    assert torch.equal(FUSED[op](x), FUSED[op](apart(x, 1)))
