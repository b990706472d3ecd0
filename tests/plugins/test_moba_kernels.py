"""The kernels of mixture of block attention, interpreted, against the explicit form in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from archsearch_plugins.moba import MobaPlugin
from archsearch_plugins.moba.ops import moba_attention, moba_attention_step
from archsearch_plugins.moba.triton.launch import sequences as launch
from archsearch_plugins.moba.triton.table import TABLE
from kernel_checks import SequenceCase, by_blocks, differences, ratio
from torch import Tensor

from archsearch.errors import KernelUnavailableError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops.block_cache import BlockCache, write_mean, write_means
from archsearch.ops.laid_out import LaidOut

pytestmark = pytest.mark.usefixtures("poisoned_memory")
NAMES = ("q", "k", "v")


@dataclass(frozen=True, kw_only=True)
class Case(SequenceCase):
    """A call of the op."""

    block_size: int
    top_k: int

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        """q, k, v; of float16 rounding moves no choice."""
        draw = torch.Generator().manual_seed(self.tokens + 7 * self.block_size)
        q, k, v = self.qkv(draw)
        if dtype == torch.float16:
            k = by_blocks(k, self.block_size, draw)
        return self.leaves(q, k, v, dtype=dtype)

    def run(self, tensors: list[Tensor], impl: str) -> Tensor:
        q, k, v = tensors
        return moba_attention(
            LaidOut(q, k, v, cu_seqlens=self.bounds, lengths=self.lengths),
            block_size=self.block_size,
            top_k=self.top_k,
            scale=self.scale,
            impl=impl,
        )


QUICK = {
    "T1-D32": Case(tokens=1, block_size=8, top_k=3, dim=32),
    "T15-D60-B2": Case(tokens=15, block_size=4, top_k=3, dim=60, batch=2),
    "T63-own-block-only": Case(tokens=63, block_size=16, top_k=1, dim=16, heads=1),
    "T64-D64-grouped": Case(tokens=64, block_size=16, top_k=3, dim=64, heads=4, key_heads=2),
    "T65-b1-k5": Case(tokens=65, block_size=1, top_k=5, dim=16),
    "T100-D128-b-not-a-tile": Case(tokens=100, block_size=24, top_k=2, dim=128, heads=3, key_heads=1),
    "T37-fewer-blocks-than-chosen": Case(tokens=37, block_size=16, top_k=8),
    "T20-of-S45-B2": Case(tokens=20, keys=45, block_size=8, top_k=3, batch=2),
    "T1-of-S40": Case(tokens=1, keys=40, block_size=8, top_k=2),
    "packed-with-empty": Case(tokens=80, block_size=8, top_k=3, packed=(1, 0, 39, 16, 24)),
    "T7-after-ragged": Case(tokens=7, keys=50, filled=(7, 33, 50), block_size=8, top_k=3, batch=3),
    "T20-after-ragged-own-block-only": Case(tokens=20, keys=45, filled=(45, 23), block_size=16, top_k=1, batch=2),
    "V24-of-D16": Case(tokens=40, block_size=8, top_k=2, value_dim=24),
    "negative-scale": Case(tokens=40, block_size=8, top_k=2, scale=-0.3),
}
SLOW = {
    f"T{tokens}-D{dim}-b{block_size}-k{top_k}-H{heads}-G{key_heads}": Case(
        tokens=tokens, dim=dim, block_size=block_size, top_k=top_k, heads=heads, key_heads=key_heads
    )
    for tokens in (1, 15, 63, 64, 65, 100, 256)
    for dim in (32, 60, 64, 128)
    for block_size, top_k, heads, key_heads in ((16, 3, 4, 2), (64, 2, 2, 2), (7, 4, 3, 1))
}
SLOW["T1000"] = Case(tokens=1000, block_size=64, top_k=3)
SLOW["T65-after-ragged"] = Case(
    tokens=65, keys=300, filled=(65, 300, 128, 66), block_size=16, top_k=4, dim=64, heads=4, key_heads=2, batch=4
)
SLOW["packed-uneven"] = Case(tokens=300, block_size=16, top_k=3, packed=(0, 100, 1, 15, 0, 17, 64, 63, 40, 0))
CASES = [pytest.param(case, id=name) for name, case in QUICK.items()]
CASES += [pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()]


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case: Case) -> None:
    found = differences(case, torch.float32, NAMES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("name", ["T64-D64-grouped", "T37-fewer-blocks-than-chosen", "packed-with-empty"])
def test_float16(name: str) -> None:
    found = differences(QUICK[name], torch.float16, NAMES)
    assert max(found.values()) < 3e-3, found


@pytest.mark.parametrize("key", list(TABLE.rows), ids=lambda key: f"{key[0]}-D{key[1]}")
def test_every_row_of_the_table(key: tuple[str, int, int]) -> None:
    case = Case(tokens=70, block_size=16, top_k=3, dim=min(key[1], 32))
    with TABLE.forced(key):
        found = differences(case, torch.float32, NAMES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
def test_what_is_chosen_scores_best(dtype: torch.dtype) -> None:
    case = Case(tokens=90, block_size=8, top_k=4, heads=4, key_heads=2, batch=2)
    with torch.no_grad():
        q, k, v = (torch.randn_like(x) for x in case.inputs(dtype))
        x, row, blocks = launch._prepare(LaidOut(q, k, v), 8, 1.0)
        chosen = launch._choose(x, blocks, 3, row).view(2, 90, 4, 3).long()
    means = k.double()[:, :88].unflatten(1, (11, 8)).mean(2).to(dtype).double().repeat_interleave(2, 2)
    scores = torch.einsum("bthd,bnhd->bthn", q.double(), means)
    own = torch.arange(90) // 8
    scores = scores.masked_fill(torch.arange(11) >= own[:, None, None], -torch.inf)
    first = torch.arange(2)[:, None, None, None] * 12
    assert torch.equal((chosen >= 0).sum(-1), own.clamp(max=3)[None, :, None].expand(2, 90, 4))
    got = scores.gather(-1, (chosen - first).clamp(min=0)).masked_fill(chosen < 0, -torch.inf).sort(-1).values
    best = scores.topk(3, dim=-1).values.sort(-1).values
    torch.testing.assert_close(got, best, rtol=1e-3 if dtype == torch.float16 else 1e-6, atol=1e-3)


def test_of_equal_scores_the_earliest_are_chosen() -> None:
    _, k, v = Case(tokens=48, block_size=4, top_k=3).inputs(torch.float32)
    signs = torch.tensor([0.0, -0.0]).repeat(24)[None, :, None, None]  # every block scores 0 or -0
    out = moba_attention(LaidOut(signs.expand(1, 48, 2, 16), k, v), block_size=4, top_k=3, impl="triton")
    for t in (11, 30, 47):
        seen = [*range(8), *range(t // 4 * 4, t + 1)]
        assert ratio(out[0, t], v[0, seen].mean(0).double().expand(2, -1)) < 1e-5


def test_a_later_token_changes_nothing_before_it() -> None:
    case = Case(tokens=60, block_size=8, top_k=3, heads=2, key_heads=2)
    with torch.no_grad():
        tensors = case.inputs(torch.float32)
        before = case.run(tensors, "triton")
        for t in (7, 8, 31, 59):
            changed = [torch.cat((x[:, :t], 50 * torch.randn_like(x[:, t:])), 1) for x in tensors]
            assert torch.equal(case.run(changed, "triton")[:, :t], before[:, :t])


def test_slices_of_one_tensor_are_read_where_they_are() -> None:
    wide = torch.randn(2, 40, 8, 16, generator=torch.Generator().manual_seed(0))
    parts = torch.split(wide, [4, 2, 2], dim=2)
    sliced, apart = (
        moba_attention(LaidOut(*xs), block_size=8, top_k=2, impl="triton") for xs in (parts, [x.clone() for x in parts])
    )
    assert torch.equal(sliced, apart)


def test_autocast_decides_the_dtype() -> None:
    tensors = Case(tokens=20, block_size=8, top_k=2).inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.float16):
        out = moba_attention(LaidOut(*tensors), block_size=8, top_k=2, impl="triton")
    assert out.dtype == torch.float16


def test_compiles_as_one_graph() -> None:
    case = Case(tokens=33, block_size=8, top_k=3)
    compiled = torch.compile(lambda *xs: case.run(list(xs), "triton"), backend="aot_eager", fullgraph=True)
    tensors = case.inputs(torch.float32)
    expected = case.run(tensors, "triton")
    out = compiled(*tensors)
    assert torch.equal(out, expected)
    for got, right in zip(
        torch.autograd.grad(out.sum(), tensors), torch.autograd.grad(expected.sum(), tensors), strict=True
    ):
        assert torch.equal(got, right)


@pytest.mark.parametrize(("dtype", "dim"), [(torch.float64, 16), (torch.float32, 130)], ids=["float64", "D130"])
def test_what_no_kernel_serves_is_refused(dtype: torch.dtype, dim: int) -> None:
    tensors = Case(tokens=8, block_size=4, top_k=2, dim=dim).inputs(dtype)
    with pytest.raises(KernelUnavailableError, match="moba_attention"):
        moba_attention(LaidOut(*tensors), block_size=4, top_k=2, impl="triton")


STEPS = {
    "D32-grouped": (4, 2, 32, 8, 3),
    "D60-own-block-only": (2, 2, 60, 8, 1),
    "b5-k4": (4, 1, 16, 5, 4),
    "b70": (1, 1, 16, 70, 2),
    "many-means": (2, 1, 16, 1, 3),
}


@pytest.mark.parametrize("size", STEPS.values(), ids=STEPS.keys())
def test_step(size: tuple[int, ...]) -> None:
    heads, groups, dim, block_size, top_k = size
    lengths = torch.tensor([1, 64, 90])
    q, k, v, means = filled_cache(lengths, heads, groups, dim, block_size)
    got, right = (
        step(list(xs), lengths, block_size=block_size, top_k=top_k, impl=impl)
        for xs, impl in (((q, k, v, means), "triton"), ([x.double() for x in (q, k, v, means)], "chunkwise"))
    )
    assert ratio(got, right) < 1e-5


def step(tensors: list[Tensor], lengths: Tensor, **call: Any) -> Tensor:
    q, k, v, means = tensors
    return moba_attention_step(q, BlockCache(k=k, v=v, means=means, lengths=lengths), **call)


def filled_cache(lengths: Tensor, heads: int, groups: int, dim: int, block_size: int) -> list[Tensor]:
    """q, k, v and means, NaN in every row that holds no token or no complete block."""
    draw, rows = torch.Generator().manual_seed(3), 90
    q = torch.randn(len(lengths), heads, dim, generator=draw)
    k, v = (torch.randn(len(lengths), rows, groups, dim, generator=draw) for _ in range(2))
    means = torch.full((len(lengths), -(-rows // block_size), groups, dim), float("nan"))
    for row, length in enumerate(lengths.tolist()):
        complete = length // block_size
        means[row, :complete] = k[row, : complete * block_size].unflatten(0, (complete, block_size)).mean(1)
        k[row, length:] = v[row, length:] = float("nan")
    return [q, k, v, means]


def test_step_reads_no_mean_where_it_takes_every_block() -> None:
    lengths = torch.tensor([17, 24])
    q, k, v, means = filled_cache(lengths, 2, 1, 16, 8)
    nothing = torch.full_like(means, float("nan"))
    kept, without = (step([q, k, v, x], lengths, block_size=8, top_k=3, impl="triton") for x in (means, nothing))
    assert torch.equal(kept, without)


def test_step_has_the_gradients_of_the_form_in_pytorch() -> None:
    lengths = torch.tensor([9, 40])
    *leaves, means = filled_cache(lengths, 2, 1, 16, 8)
    leaves = [x.nan_to_num().requires_grad_() for x in leaves]
    got, right = (
        torch.autograd.grad(step([*leaves, means], lengths, block_size=8, top_k=2, impl=impl).square().sum(), leaves)
        for impl in ("triton", "chunkwise")
    )
    assert max(ratio(one, other.double()) for one, other in zip(got, right, strict=True)) < 1e-5


def test_means_are_written_as_blocks_complete() -> None:
    lengths = torch.tensor([7, 8, 64, 90])
    _, k, _, means = filled_cache(lengths, 1, 2, 60, 8)
    blank = torch.full_like(means, -1.0)
    got = write_mean(blank.clone(), k, lengths, block_size=8, table=TABLE, impl="triton")
    assert torch.equal(got[:, :, :, 0] != -1, write_means(blank.clone(), k, lengths - 1, 1, 8)[:, :, :, 0] != -1)
    assert ratio(got, write_means(blank.clone(), k, lengths - 1, 1, 8).double()) < 1e-6


@pytest.mark.parametrize("heads_first", [False, True], ids=["part-of-a-cache", "heads-first"])
def test_means_that_are_no_dense_tensor_are_written_in_their_place(heads_first: bool) -> None:
    lengths = torch.tensor([8, 64, 90])
    _, k, _, means = filled_cache(lengths, 1, 2, 16, 8)
    whole = torch.full((3, 2, 20, 16) if heads_first else (3, 20, 2, 16), -1.0)
    part = (whole.transpose(1, 2) if heads_first else whole)[:, : means.shape[1]]
    got = write_mean(part, k, lengths, block_size=8, table=TABLE, impl="triton")
    assert got is part
    right = write_means(torch.full_like(means, -1.0), k, lengths - 1, 1, 8)
    torch.testing.assert_close(part, right)


def test_gradients_flow_through_steps_that_complete_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    plugin, shape = MobaPlugin(), ModelShape(d_model=24, n_heads=2, n_kv_heads=1, head_dim=16, dtype="float32")
    torch.manual_seed(0)
    mixer = plugin.build(plugin.parse_options({"block_size": 2, "top_k": 2}), shape, LayerInfo())
    x, ctx = torch.randn(2, 9, 24), Context()
    whole, _ = mixer(x, ctx=ctx)
    first, state = mixer(x[:, :3], state=mixer.init_state(2, 9), ctx=ctx)
    outputs = [first]
    for t in range(3, 9):
        out, state = mixer.step(x[:, t], state=state, ctx=ctx)
        outputs.append(out[:, None])
    weights = torch.randn(whole.shape)
    gradients = (
        torch.autograd.grad((y * weights).sum(), list(mixer.parameters())) for y in (torch.cat(outputs, 1), whole)
    )
    for got, right in zip(*gradients, strict=True):
        assert ratio(got, right.double()) < 1e-5
