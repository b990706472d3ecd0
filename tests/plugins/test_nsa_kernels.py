"""The kernels of native sparse attention, interpreted, against the explicit form in float64."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.nsa.step import NsaCache, nsa_attention_step
from archsearch_plugins.nsa.triton.launch import sequences as launch
from archsearch_plugins.nsa.triton.table import TABLE
from kernel_checks import SequenceCase, by_blocks, differences, ratio
from torch import Tensor

from archsearch.errors import KernelUnavailableError
from archsearch.ops.block_cache import write_mean, write_means
from archsearch.ops.laid_out import LaidOut

pytestmark = pytest.mark.usefixtures("poisoned_memory")
NAMES = ("q", "k", "v", "gates")


@dataclass(frozen=True, kw_only=True)
class Case(SequenceCase):
    """A call of the op."""

    block_size: int
    top_k: int
    window: int

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        """q, k, v and gates; of float16 rounding moves no choice."""
        draw = torch.Generator().manual_seed(self.tokens + 7 * self.block_size)
        q, k, v = self.qkv(draw)
        gates = torch.randn(self.batch, self.tokens, self.heads, 3, generator=draw, dtype=torch.float64)
        if dtype == torch.float16:
            k = by_blocks(k, self.block_size, draw)
        return self.leaves(q, k, v, gates, dtype=dtype)

    def run(self, tensors: list[Tensor], impl: str) -> Tensor:
        q, k, v, gates = tensors
        return nsa_attention(
            LaidOut(q, k, v, cu_seqlens=self.bounds, lengths=self.lengths),
            gates=gates,
            sizes=NsaSizes(block_size=self.block_size, top_k=self.top_k, window=self.window),
            scale=self.scale,
            impl=impl,
        )


QUICK = {
    "T1-D32": Case(tokens=1, block_size=8, top_k=3, window=4, dim=32),
    "T15-D60-B2": Case(tokens=15, block_size=4, top_k=3, window=3, dim=60, batch=2),
    "T33-own-block-only": Case(tokens=33, block_size=16, top_k=1, window=1, heads=1),
    "T64-D64-window-past-all": Case(tokens=64, block_size=32, top_k=2, window=100, dim=64),
    "T15-b1-k5": Case(tokens=15, block_size=1, top_k=5, window=2),
    "T22-D128-b-not-a-tile": Case(tokens=22, block_size=12, top_k=2, window=20, dim=128, heads=3),
    "T20-grouped-by-3": Case(tokens=20, block_size=4, top_k=4, window=9, heads=6, key_heads=2),
    "T6-of-S45-B2": Case(tokens=6, keys=45, block_size=8, top_k=4, window=12, batch=2),
    "T1-of-S40": Case(tokens=1, keys=40, block_size=8, top_k=8, window=8),
    "packed-with-empty": Case(tokens=30, block_size=4, top_k=3, window=5, packed=(1, 0, 13, 8, 8)),
    "T5-after-ragged": Case(tokens=5, keys=40, filled=(5, 23, 40), block_size=4, top_k=3, window=7, batch=3),
    "T9-after-ragged-grouped": Case(
        tokens=9, keys=20, filled=(20, 11), block_size=8, top_k=2, window=3, batch=2, heads=4, key_heads=2
    ),
    "V24-of-D16-negative-scale": Case(tokens=10, block_size=4, top_k=2, window=5, value_dim=24, scale=-0.3),
}
SLOW = {
    f"T{tokens}-D{dim}-b{block_size}-k{top_k}-w{window}-H{heads}-G{key_heads}": Case(
        tokens=tokens, dim=dim, block_size=block_size, top_k=top_k, window=window, heads=heads, key_heads=key_heads
    )
    for tokens in (1, 15, 63, 64, 65, 100)
    for dim in (32, 60, 64, 128)
    for block_size, top_k, window, heads, key_heads in ((16, 4, 20, 4, 2), (7, 5, 70, 3, 1))
}
SLOW["T256"] = Case(tokens=256, block_size=16, top_k=6, window=40)
SLOW["T1000"] = Case(tokens=1000, block_size=64, top_k=4, window=100)
SLOW["T65-after-ragged"] = Case(
    tokens=65,
    keys=300,
    filled=(65, 300, 128, 66),
    block_size=16,
    top_k=4,
    window=40,
    dim=64,
    heads=4,
    key_heads=2,
    batch=4,
)
SLOW["packed-uneven"] = Case(
    tokens=300, block_size=16, top_k=4, window=30, packed=(0, 100, 1, 15, 0, 17, 64, 63, 40, 0)
)
CASES = [pytest.param(case, id=name) for name, case in QUICK.items()]
CASES += [pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()]


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case: Case) -> None:
    found = differences(case, torch.float32, NAMES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("name", ["T15-b1-k5", pytest.param("T20-grouped-by-3", marks=pytest.mark.slow)])
def test_float16(name: str) -> None:
    found = differences(QUICK[name], torch.float16, NAMES)
    assert max(found.values()) < 3e-3, found


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(key, id=f"{key[0]}-D{key[1]}", marks=() if key[1] == 128 else pytest.mark.slow)
        for key in TABLE.rows
    ],
)
def test_every_row_of_the_table(key: tuple[str, int, int]) -> None:
    case = Case(tokens=14, block_size=4, top_k=3, window=6, heads=1, dim=min(key[1], 32))
    with TABLE.forced(key):
        found = differences(case, torch.float32, NAMES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize(("heads", "exact"), [(24, True), pytest.param(80, False, marks=pytest.mark.slow)])
def test_more_query_heads_choose_together_than_a_tile_of_queries_has(heads: int, exact: bool) -> None:
    case = Case(tokens=10, block_size=4, top_k=2, window=3, dim=16, heads=heads, key_heads=1)
    with TABLE.forced(("sm_90", 128, 0), exact=exact):
        found = differences(case, torch.float32, NAMES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(torch.float32, id="fp32"), pytest.param(torch.float16, id="fp16", marks=pytest.mark.slow)],
)
def test_what_is_chosen_weighs_most(dtype: torch.dtype) -> None:
    case = Case(tokens=45, block_size=4, top_k=5, window=8, heads=4, key_heads=2)
    with torch.no_grad():
        q, k, v, _ = (torch.randn_like(x) for x in case.inputs(dtype))
        chosen = launch.nsa_forward(q, k, v, None, None, 4, 5, 8, 0.5)[-1].view(1, 45, 2, 4).long()
    means = k.double()[:, :44].unflatten(1, (11, 4)).mean(2).to(dtype).double().repeat_interleave(2, 2)
    own, complete = torch.arange(45)[:, None, None] // 4, (torch.arange(45)[:, None, None] + 1) // 4
    blocks = torch.arange(11)
    scores = (0.5 * torch.einsum("bthd,bnhd->bthn", q.double(), means)).masked_fill(blocks >= complete, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0.0).unflatten(2, (2, 2)).sum(3)
    weights = weights.masked_fill((blocks == 0) | (blocks >= own), -1.0)
    first = torch.arange(1)[:, None, None] * 12
    assert torch.equal(chosen[..., 0], torch.where(own[None, :, :, 0] > 0, first, -1).expand(1, 45, 2))
    rest = chosen[..., 1:]
    got = weights.gather(-1, (rest - first[..., None]).clamp(min=0)).masked_fill(rest < 0, -1.0).sort(-1).values
    torch.testing.assert_close(got, weights.topk(3, dim=-1).values.sort(-1).values, rtol=1e-3, atol=1e-3)


def test_of_equal_probabilities_the_earliest_are_chosen() -> None:
    q, k, v, gates = Case(tokens=24, block_size=2, top_k=4, window=3).inputs(torch.float32)
    only_selection = torch.tensor([0.0, 1.0, 0.0]).expand_as(gates)
    sizes = NsaSizes(block_size=2, top_k=4, window=3)
    out = nsa_attention(LaidOut(torch.zeros_like(q), k, v), gates=only_selection, sizes=sizes, impl="triton")
    for t in (7, 14, 23):
        seen = [*range(6), *range(t // 2 * 2, t + 1)]
        assert ratio(out[0, t], v[0, seen].mean(0).double().expand(2, -1)) < 1e-5


def test_a_later_token_changes_nothing_before_it() -> None:
    case = Case(tokens=20, block_size=4, top_k=3, window=6)
    with torch.no_grad():
        tensors = case.inputs(torch.float32)
        before = case.run(tensors, "triton")
        for t in (3, 4, 15):
            changed = [torch.cat((x[:, :t], 50 * torch.randn_like(x[:, t:])), 1) for x in tensors]
            assert torch.equal(case.run(changed, "triton")[:, :t], before[:, :t])


def test_compiles_as_one_graph() -> None:
    case = Case(tokens=10, block_size=4, top_k=3, window=5)
    compiled = torch.compile(lambda *xs: case.run(list(xs), "triton"), backend="aot_eager", fullgraph=True)
    tensors = case.inputs(torch.float32)
    expected = case.run(tensors, "triton")
    out = compiled(*tensors)
    assert ratio(out, expected.double()) < 1e-6
    for got, right in zip(
        torch.autograd.grad(out.sum(), tensors), torch.autograd.grad(expected.sum(), tensors), strict=True
    ):
        assert ratio(got, right.double()) < 1e-6


def test_autocast_decides_the_dtype() -> None:
    case = Case(tokens=20, block_size=8, top_k=2, window=8)
    with torch.autocast("cpu", dtype=torch.float16):
        out = case.run(case.inputs(torch.float32), "triton")
    assert out.dtype == torch.float16


@pytest.mark.parametrize(("dtype", "dim"), [(torch.float64, 16), (torch.float32, 130)], ids=["float64", "D130"])
def test_what_no_kernel_serves_is_refused(dtype: torch.dtype, dim: int) -> None:
    case = Case(tokens=8, block_size=4, top_k=2, window=4, dim=dim)
    with pytest.raises(KernelUnavailableError, match="nsa_attention"):
        case.run(case.inputs(dtype), "triton")


STEPS = {
    "D32-grouped": (4, 2, 32, 8, 4, 20),
    "D60-own-block-only": (2, 2, 60, 8, 1, 100),
    "b5-k2": (4, 1, 16, 5, 2, 3),
    "k9-grouped-by-3": (6, 2, 16, 4, 9, 70),
    "b70": (2, 1, 16, 70, 3, 64),
    "many-means": (2, 1, 16, 1, 5, 2),
}
LARGE = ("k9-grouped-by-3", "b70")


@pytest.mark.parametrize(
    "size",
    [pytest.param(size, id=name, marks=pytest.mark.slow if name in LARGE else ()) for name, size in STEPS.items()],
)
def test_step(size: tuple[int, ...]) -> None:
    heads, groups, dim, block_size, top_k, window = size
    lengths = torch.tensor([1, 7, 64, 90])
    tensors = filled_cache(lengths, heads, groups, dim, block_size)
    got = step(tensors, lengths, "triton", block_size=block_size, top_k=top_k, window=window)
    wide = [x.double() for x in tensors]
    right = step(wide, lengths, "chunkwise", block_size=block_size, top_k=top_k, window=window)
    assert ratio(got, right) < 1e-5


def filled_cache(lengths: Tensor, heads: int, groups: int, dim: int, block_size: int) -> list[Tensor]:
    """q, k, v, their means and gates, NaN in every row that holds no token or no complete block."""
    draw, rows, batch = torch.Generator().manual_seed(3), 90, len(lengths)
    q, gates = torch.randn(batch, heads, dim, generator=draw), torch.randn(batch, heads, 3, generator=draw)
    kv = [torch.randn(batch, rows, groups, dim, generator=draw) for _ in range(2)]
    means = [torch.full((batch, -(-rows // block_size), groups, dim), float("nan")) for _ in range(2)]
    for row, length in enumerate(lengths.tolist()):
        complete = length // block_size
        for x, mean in zip(kv, means, strict=True):
            mean[row, :complete] = x[row, : complete * block_size].unflatten(0, (complete, block_size)).mean(1)
            x[row, length:] = float("nan")
    return [q, *kv, *means, gates]


def step(tensors: list[Tensor], lengths: Tensor, impl: str, **sizes: int) -> Tensor:
    q, k, v, k_means, v_means, gates = tensors
    cache = NsaCache(k=k, v=v, k_means=k_means, v_means=v_means, lengths=lengths)
    return nsa_attention_step(q, cache, gates=gates, sizes=NsaSizes(**sizes), impl=impl)


def test_step_has_the_gradients_of_the_form_in_pytorch() -> None:
    lengths = torch.tensor([9, 40])
    leaves = [x.nan_to_num().requires_grad_() for x in filled_cache(lengths, 2, 1, 16, 8)]
    got, right = (
        torch.autograd.grad(step(leaves, lengths, impl, block_size=8, top_k=3, window=9).square().sum(), leaves)
        for impl in ("triton", "chunkwise")
    )
    assert max(ratio(one, other.double()) for one, other in zip(got, right, strict=True)) < 1e-5


def test_means_are_written_as_blocks_complete() -> None:
    lengths = torch.tensor([7, 8, 64, 90])
    k = filled_cache(lengths, 1, 2, 60, 8)[1]
    blank = torch.full((4, 12, 2, 60), -1.0)
    got = write_mean(blank.clone(), k, lengths, block_size=8, table=TABLE, impl="triton")
    right = write_means(blank.clone(), k, lengths - 1, 1, 8)
    assert torch.equal(got[..., 0] != -1, right[..., 0] != -1)
    assert ratio(got, right.double()) < 1e-6
