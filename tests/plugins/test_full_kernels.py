"""The decode kernels of full attention and of the window's ring, interpreted, against explicit products in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from archsearch_plugins.full import FullPlugin, ops
from archsearch_plugins.full.ops import full_attention_step
from archsearch_plugins.full.triton.builds import builds as builds_of
from archsearch_plugins.full.triton.table import TABLE
from archsearch_plugins.sliding.ops import window_attention_step
from kernel_checks import ratio
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from archsearch.errors import KernelUnavailableError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops.softmax import ShapeError
from archsearch.ops.triton import step


class Case(NamedTuple):
    """Rows of the cache, and how many each sequence has filled."""

    rows: int
    lengths: tuple[int, ...]
    heads: int = 2
    kv_heads: int = 2
    dim: int = 32
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        lengths = "+".join(str(length) for length in self.lengths)
        shown = f"S{self.rows}-L{lengths}-H{self.heads}over{self.kv_heads}-D{self.dim}"
        return shown + "-fp16" * (self.dtype == torch.float16)


CASES = [
    Case(1, (1,), 1, 1),
    Case(15, (15, 1), 4, 1, 60),
    Case(63, (63,), dim=128),
    Case(64, (64, 63, 1), 4, 2, 64),
    Case(65, (65, 64), 1, 1, 60),
    Case(100, (3, 100), 20, 1, 16),
    Case(700, (700,), 2, 1, 64),
    Case(700, (1, 699)),
    Case(300, (65, 128, 300, 1), 6, 2),
    Case(200, (200,), 70, 1, 16),
    Case(100, (100, 7), 4, 2, 64, torch.float16),
]
GRID = [
    Case(rows, (rows, max(1, rows // 2), 1), heads, kv_heads, dim)
    for rows, (heads, kv_heads), dim in itertools.product(
        [1, 15, 63, 64, 65, 100, 256, 1000], [(1, 1), (2, 2), (4, 1), (16, 4), (17, 1), (80, 1)], [16, 32, 60, 64, 128]
    )
]
STEPS = {"full": full_attention_step, "sliding": window_attention_step}
Step = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written holds NaN."""
    genuine = torch.empty

    def poison(*args: object, **options: object) -> Tensor:
        made: Tensor = genuine(*args, **options)  # type: ignore[call-overload]
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poison)


def make_inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, both caches and the lengths; rows that are not filled hold large numbers."""
    draw = torch.Generator().manual_seed(case.rows)
    batch = len(case.lengths)
    lengths = torch.tensor(case.lengths)
    q = torch.randn(batch, case.heads, case.dim, generator=draw)
    k, v = torch.randn(2, batch, case.rows, case.kv_heads, case.dim, generator=draw)
    unfilled = torch.arange(case.rows) >= lengths[:, None]
    k, v = (x.masked_fill(unfilled[..., None, None], 1e4).to(case.dtype) for x in (k, v))
    return q.to(case.dtype), k, v, lengths


def check(
    step: Step, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, limit: float = 1e-5, scale: float | None = None
) -> None:
    expected = step(q.double(), k.double(), v.double(), lengths, scale=scale, impl="reference")
    actual = step(q, k, v, lengths, scale=scale, impl="triton")
    assert actual.dtype == q.dtype
    assert ratio(actual, expected, least=0.05) < limit


def check_case(step: Step, case: Case) -> None:
    check(step, *make_inputs(case), limit=5e-3 if case.dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("plugin", STEPS)
def test_kernels_equal_the_reference(plugin: str, case: Case) -> None:
    check_case(STEPS[plugin], case)


@pytest.mark.slow
@pytest.mark.parametrize("case", GRID, ids=str)
def test_kernels_equal_the_reference_everywhere(case: Case) -> None:
    check_case(full_attention_step, case)


@pytest.mark.parametrize("key", TABLE.rows, ids=lambda key: f"{key[0]}-D{key[1]}")
def test_every_row_of_the_table(key: tuple[str, int, int]) -> None:
    with TABLE.forced(key):
        check_case(full_attention_step, Case(300, (300, 77), 4, 2, 16))


@pytest.mark.parametrize(("processors", "most"), [(1, 2048), (8, 2048), (200, 2048), (1, 64), (1, 128)])
@pytest.mark.parametrize("lengths", [(300,), (1, 300), (64, 65, 129)], ids=str)
def test_any_number_of_splits(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...], processors: int, most: int
) -> None:
    monkeypatch.setattr(step, "_processors", lambda device: processors)
    monkeypatch.setattr(step, "MOST_ROWS", most)
    check_case(full_attention_step, Case(300, lengths, 4, 2))


def test_lengths_past_the_ring_see_every_row() -> None:
    q, k, v, _ = make_inputs(Case(70, (70, 70)))
    lengths = torch.tensor([70, 1000])
    check(window_attention_step, q, k, v, lengths)


def test_a_cache_of_another_dtype() -> None:
    q, k, v, lengths = make_inputs(Case(100, (100, 7), 4, 2, 64))
    check(full_attention_step, q, k.half(), v.half(), lengths)
    check(full_attention_step, q.half(), k, v, lengths, limit=5e-3)


def test_a_part_of_a_larger_cache() -> None:
    q, k, v, lengths = make_inputs(Case(100, (40, 7), 4, 2))
    check(full_attention_step, q, k[:, :50], v[:, :50], lengths)
    apart = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    check(full_attention_step, q, *apart, lengths)


@pytest.mark.parametrize("scale", [0.0, -0.3, 1.7])
def test_scale(scale: float) -> None:
    check(full_attention_step, *make_inputs(Case(100, (100, 33))), scale=scale)


def test_values_of_another_width() -> None:
    q, k, v, lengths = make_inputs(Case(200, (200, 33), 4, 2, 48))
    check(full_attention_step, q, k, v[..., :20].contiguous(), lengths)


def test_a_sequence_without_rows_gives_zeros() -> None:
    q, k, v, lengths = make_inputs(Case(300, (300, 5)))
    out = full_attention_step(q, k, v, lengths * torch.tensor([1, 0]), impl="triton")
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert torch.equal(out[0], full_attention_step(q, k, v, lengths, impl="triton")[0])


def test_gradients() -> None:
    *inputs, lengths = make_inputs(Case(100, (100, 33), 4, 2))
    exact, given = ([x.to(dtype).requires_grad_() for x in inputs] for dtype in (torch.float64, torch.float32))
    expected = full_attention_step(*exact, lengths, impl="reference")  # type: ignore[arg-type]
    actual = full_attention_step(*given, lengths, impl="triton")  # type: ignore[arg-type]
    grad = torch.randn(actual.shape)
    found = torch.autograd.grad(actual, given, grad)
    for one, other in zip(found, torch.autograd.grad(expected, exact, grad.double()), strict=True):
        assert ratio(one, other, least=0.05) < 1e-5


def test_autocast_casts() -> None:
    q, k, v, lengths = make_inputs(Case(100, (100, 33)))
    with torch.autocast("cpu", torch.float16):
        assert full_attention_step(q, k, v, lengths, impl="triton").dtype == torch.float16


def test_the_op_is_registered_in_full() -> None:
    *inputs, lengths = make_inputs(Case(100, (100, 33)))
    given = [x.requires_grad_() for x in inputs]
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(step._attention_step, (*given, lengths, TABLE.op, 0.3), test_utils=checks)


@pytest.mark.parametrize("plugin", STEPS)
def test_nothing_is_read_back_from_the_device(plugin: str) -> None:
    with FakeTensorMode():  # reading a value out of a fake tensor is an error
        q, cache, lengths = torch.zeros(2, 4, 32), torch.zeros(2, 100, 2, 32), torch.zeros(2, dtype=torch.int64)
        assert STEPS[plugin](q, cache, cache, lengths, impl="triton").shape == (2, 4, 32)


def test_a_layer_decodes_by_the_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    shape = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
    plugin = FullPlugin()
    torch.manual_seed(0)
    mixer, x = plugin.build(plugin.parse_options({}), shape, LayerInfo()), torch.randn(2, 9, 24)
    with torch.no_grad():
        whole, _ = mixer(x, ctx=Context())
        _, state = mixer(x[:, :8], state=mixer.init_state(2, 100), ctx=Context())
        monkeypatch.setattr(ops, "masked_attention", None)
        last, _ = mixer.step(x[:, 8], state=state, ctx=Context())
    assert torch.allclose(last, whole[:, 8], atol=1e-5)


def test_wrong_arguments_are_named() -> None:
    q, k, v, lengths = make_inputs(Case(20, (20, 3), 4, 2))
    with pytest.raises(ShapeError, match=r"full_attention_step: q \[2, 1, 4, 32\].*\[batch, heads, head_dim\]"):
        full_attention_step(q[:, None], k, v, lengths)
    with pytest.raises(ShapeError, match="head_dim must agree"):
        full_attention_step(q[..., :16], k, v, lengths)
    with pytest.raises(ShapeError, match="multiple of the key heads"):
        full_attention_step(q[:, :3], k, v, lengths)
    with pytest.raises(ShapeError, match=r"lengths must be \[batch\]"):
        window_attention_step(q, k, v, lengths[:1])
    with pytest.raises(KernelUnavailableError, match=r'full_attention.*"triton"'):
        full_attention_step(q.double(), k.double(), v.double(), lengths, impl="triton")


@pytest.mark.parametrize("arch", ["sm_90", "sm_80"])
def test_builds_name_every_argument_of_every_kernel_of_every_row(arch: str) -> None:
    builds = list(builds_of(arch))
    for build in builds:
        assert sorted([*build.signature, *build.constexprs]) == sorted(build.fn.arg_names), build.label
    rows = {key[1]: set(row) for key, row in TABLE.rows.items() if key[0] == arch}
    assert {dim: {build.name for build in builds if build.head_dim == dim} for dim in rows} == rows
    assert len({build.label for build in builds}) == len(builds)
