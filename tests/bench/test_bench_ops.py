"""The plugins' ops: their least work against the page's formulas and the cost model, and their checks."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.indexed.bench import TOKENS, choice_work, indexed_step_work, indexed_work
from archsearch_plugins.latent.bench import latent_step_work
from archsearch_plugins.latent.cost import latent_flops
from archsearch_plugins.latent.options import LatentOptions
from archsearch_plugins.linear.bench import linear_step_work, linear_work
from archsearch_plugins.moba.bench import chosen_mask, moba_step_work, moba_work
from archsearch_plugins.nsa.bench import USUAL, nsa_step_work, nsa_work
from archsearch_plugins.sliding.bench import window_mask
from bench_samples import CPU, ScriptedClock, sample_bench

from archsearch.bench.kernels import bench_case, ops_of
from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw
from archsearch.bench.results.work import Ceilings, Shape, cache_work, causal_work
from archsearch.registry import load_registry

H200 = Ceilings(copy_bytes_per_second=4.3e12, matmul_flops_per_second=790e12)
OPS = ops_of(load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,latent,indexed,tasks"}))
CASES = [
    pytest.param(op, shape, phase, id=f"{op.name}-{phase}")
    for op in OPS
    for shape in op.grids[TINY]
    for phase in op.phases
]


def sized(batch: int, tokens: int, heads: int, kv_heads: int = 0) -> Shape:
    return Shape(batch=batch, tokens=tokens, heads=heads, kv_heads=kv_heads or heads, head_dim=128)


def test_gated_deltanet_is_bound_by_memory_at_a_third_of_a_millisecond() -> None:
    for shape in (sized(1, 32768, 64, 16), sized(4, 8192, 64, 16)):
        work = linear_work("delta", "head", shape, 2)
        assert H200.bound_seconds(work) == pytest.approx(0.32e-3, rel=0.02)
        assert work.flops / 790e12 == pytest.approx(0.30e-3, rel=0.01)


def test_linear_work_is_the_formula() -> None:
    shape, dim = sized(1, 1000, 4), 128
    token = 4 * (6 * dim**2 + 2 * 16 * (3 * dim + 2 * dim) + 2 / 3 * 16**2)
    assert linear_work("delta", "channel", shape, 2).flops == pytest.approx(1000 * token)
    token = 4 * (4 * dim**2 + 2 * 16 * 2 * dim)
    hebbian = linear_work("hebbian", "none", shape, 2)
    assert hebbian.flops == pytest.approx(1000 * token)
    assert hebbian.moved_bytes == 1000 * 4 * (4 * 4 * dim) / 2
    assert hebbian.done_flops == pytest.approx(1000 * 4 * (4 * dim**2 + 2 * 64 * 2 * dim))


def test_gates_count_four_bytes() -> None:
    shape = sized(1, 1000, 4)
    plain = linear_work("hebbian", "none", shape, 2).read_bytes
    assert linear_work("hebbian", "head", shape, 2).read_bytes - plain == 1000 * 4 * 4
    assert linear_work("hebbian", "channel", shape, 2).read_bytes - plain == 1000 * 4 * 128 * 4
    assert linear_work("hebbian", "constant", shape, 2).read_bytes - plain == 4 * 4
    assert linear_work("delta", "none", shape, 2).read_bytes - plain == 1000 * 4 * 4


def test_a_recurrent_step_reads_and_writes_its_state() -> None:
    work = linear_step_work("delta", "head", sized(256, 1, 64), 2)
    assert work.moved_bytes == pytest.approx(2 * 256 * 64 * 128**2 * 4, rel=0.01)
    assert work.moved_bytes > 1e9


def test_softmax_work() -> None:
    shape = sized(1, 65536, 16)
    assert causal_work(shape, 2).flops == 2 * 16 * 65536 * 65537 * 128
    assert causal_work(shape, 2).moved_bytes == 4 * 65536 * 128 * 32
    assert causal_work(shape, 2, 4096).flops == 4 * 16 * 128 * (65536 * 4096 - 4096 * 4095 / 2)
    step = cache_work(sized(1, 131072, 16), 2)
    assert step.moved_bytes == pytest.approx(4 * 131072 * 16 * 128, rel=1e-3)


def test_sparse_work() -> None:
    shape, block = sized(1, 131072, 16), 512
    formula = 16 * 128 * 131072**2 / block + 4 * 131072 * 16 * 128 * (2 * block + block / 2)
    assert moba_work(block, 3, shape, 2).flops == pytest.approx(formula, rel=0.02)
    shape = sized(1, 65536, 16, 1)
    formula = 4 * 65536 * 16 * 128 * (65536 / 128 + 15.5 * 64 + 512)
    assert nsa_work(USUAL, shape, 2).flops == pytest.approx(formula, rel=0.02)
    rows = 65536 / 64 + 15 * 64 + 512
    assert nsa_step_work(USUAL, shape, 2).moved_bytes == pytest.approx(4 * 128 * rows, rel=0.1)
    most = 2 * (131072 / 512) * 128 + 4 * 3 * 512 * 128
    assert moba_step_work(512, 3, sized(1, 131072, 1), 2).moved_bytes == pytest.approx(most, rel=0.02)


def test_indexed_work() -> None:
    """2048 tokens a query from 2048 on, and the scores of all that are more: 2 I + 2 a head."""
    shape, top = sized(1, 65536, 16, 1), 2048
    pairs = 65536 * top - top * (top - 1) / 2
    scored = (65536**2 - top**2) / 2
    formula = 4 * 16 * 128 * pairs + 32 * (2 * 128 + 2) * scored
    assert indexed_work(TOKENS, shape, 2).flops == pytest.approx(formula, rel=0.01)
    assert choice_work(TOKENS, shape, 2).flops == pytest.approx(32 * 258 * scored, rel=0.01)
    assert choice_work(TOKENS, shape, 2).written_bytes == pytest.approx(4 * 65536 * top, rel=0.01)
    rows = 4 * 128 * top + 2 * 128 * 65536
    assert indexed_step_work(TOKENS, sized(1, 65536, 1), 2).moved_bytes == pytest.approx(rows, rel=0.01)


def test_latent_work_is_that_of_the_cost_model() -> None:
    """Beyond the projections from a model of width 1, and up to the one written row."""
    shape, options = sized(2, 8192, 128, 1), LatentOptions(kv_rank=512, shared_dim=64)
    work = latent_step_work(512, 64, shape, 2)
    whole = latent_flops(options, shape.model(), phase="decode", context=8192).matmul
    assert work.flops == pytest.approx(2 * whole, rel=1e-3)
    absorbed = 2 * 128 * 128 * 512
    assert work.read_bytes == 2 * (2 * 8192 * 576 + absorbed + 2 * 128 * 192)
    assert work.written_bytes == 2 * 2 * 128 * 128


def test_full_grids_hold_the_shapes_of_the_targets() -> None:
    shapes = {(op.name, op.step): op.grids[FULL] for op in OPS if op.grids[FULL]}
    for name in ("kda", "gated-deltanet"):
        assert {shape.total for shape in shapes[name, False]} >= {8192, 32768, 65536}
    assert sized(1, 65536, 16) in shapes["window", False]
    assert {sized(1, 32768, 64, 16), sized(4, 8192, 64, 16), sized(1, 65536, 8, 2)} <= {
        *shapes["gated-deltanet", False]
    }
    assert sized(256, 1, 128) in shapes["kda", True]
    assert sized(1, 131072, 16) in shapes["moba", False]
    assert sized(1, 2**20, 16) in shapes["moba", True]
    assert any(shape.heads == 16 * shape.kv_heads and shape.tokens == 65536 for shape in shapes["nsa", False])
    bulky = {op.name for op in OPS if op.step for shape in op.grids[FULL] if op.work(shape, 2).moved_bytes >= 1e9}
    assert bulky >= {"full", "window", "kda", "gated-deltanet", "mamba2"}
    assert all(len(op.grids[QUICK]) <= 1 for op in OPS)


@pytest.mark.parametrize(("op", "shape", "phase"), CASES)
def test_every_op_is_right_on_the_smallest_grid(op: BenchOp, shape: Shape, phase: str) -> None:
    rows = bench_case(op, shape, phase, sample_bench(ScriptedClock(1.0), peers=True))
    ours, *peers = rows
    assert ours.status == "measured", ours.reason
    assert {row.status for row in peers} <= {"measured", "unavailable"}, peers


@pytest.mark.slow
@pytest.mark.parametrize(("op", "shape", "phase"), CASES)
def test_every_op_is_right_by_its_kernels(op: BenchOp, shape: Shape, phase: str) -> None:
    (row,) = bench_case(op, shape, phase, sample_bench(ScriptedClock(1.0), form=op.forms[0]))
    assert row.status == "measured", row.reason


@pytest.mark.parametrize("window", [1, 100, 128, 200, 1000])
def test_flex_masks_of_the_window_miss_no_tile(window: int) -> None:
    inputs = {"q": torch.zeros(1, 700, 1, 8)}
    query, key = torch.arange(700)[:, None], torch.arange(700)
    seen = (key <= query) & (query - key < window)
    assert_tiles_hold(window_mask(window, inputs), seen[None, None])


def test_flex_masks_of_chosen_blocks_miss_no_tile() -> None:
    draw = Draw.on(CPU, torch.float32)
    inputs = {name: draw.normal(1, 300, heads, 8) for name, heads in (("q", 2), ("k", 1), ("v", 1))}
    mask = chosen_mask(20, 3, inputs)
    b, h, query, key = torch.meshgrid(*(torch.arange(n) for n in (1, 2, 300, 300)), indexing="ij")
    seen = mask.mask_mod(b, h, query, key)
    own = key // 20 == query // 20
    assert torch.equal(seen & own, own & (key <= query))
    assert seen.sum(-1).max() <= 60
    assert_tiles_hold(mask, seen)


def assert_tiles_hold(mask: object, seen: torch.Tensor) -> None:
    """The tiles that a mask looks at are those that hold a seen pair, or lie in between."""
    tokens = seen.shape[-1]
    tiles = -(-tokens // 128)
    padded = torch.nn.functional.pad(seen, (0, tiles * 128 - tokens, 0, tiles * 128 - tokens))
    held = padded.unflatten(-1, (tiles, 128)).unflatten(-3, (tiles, 128)).any(-1).any(-2)
    looked = mask.to_dense().bool()  # type: ignore[attr-defined]
    assert torch.equal(looked.expand_as(held), held)


def test_a_plugin_that_offers_no_op_is_left_out() -> None:
    from archsearch.registry import load_registry
    from archsearch.testing.toy import ToyPlugin

    assert list(load_registry([ToyPlugin()]).measured("toy").ops()) == []
