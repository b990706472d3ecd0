"""The decode kernels of multi-head latent attention, interpreted, against the rule in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from archsearch_plugins.latent import LatentPlugin, ops
from archsearch_plugins.latent.ops import latent_attention_absorbed
from archsearch_plugins.latent.triton.builds import builds as builds_of
from archsearch_plugins.latent.triton.launch import latent_step
from archsearch_plugins.latent.triton.table import SHARED, TABLE
from kernel_checks import after_filled, ratio
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from archsearch.errors import KernelUnavailableError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops.triton.step import rows_a_program

pytestmark = pytest.mark.usefixtures("poisoned_memory")


class Case(NamedTuple):
    """Rows of the cache, and how many each sequence has filled."""

    rows: int
    lengths: tuple[int, ...]
    heads: int = 2
    rank: int = 16
    shared: int = 4
    width: int = 8
    tokens: int = 1
    dtype: torch.dtype = torch.float32


CASES = [
    Case(1, (1,), heads=1),
    Case(65, (64, 65, 1), heads=3, rank=13, shared=7),
    Case(130, (130,), heads=17, shared=0),
    Case(40, (40, 9), rank=64, shared=64),
    Case(50, (50, 7), tokens=5),
    Case(70, (70, 33), heads=65, dtype=torch.float16),
]


def inputs(case: Case, *, unfilled: float = torch.nan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, rows, `unfilled` where they hold no token, the weights that multiply out, and positions."""
    draw = torch.Generator().manual_seed(case.rows)
    batch, row = len(case.lengths), case.rank + case.shared
    q = torch.randn(batch, case.tokens, case.heads, case.width + case.shared, generator=draw)
    rows = after_filled(torch.randn(batch, case.rows, row, generator=draw), case.lengths, unfilled)
    up = torch.randn(case.heads, 2, case.width, case.rank, generator=draw) / 4
    positions = torch.tensor(case.lengths)[:, None] - case.tokens + torch.arange(case.tokens)
    return q.to(case.dtype), rows.to(case.dtype), up.to(case.dtype), positions


def by_the_rule(q: Tensor, rows: Tensor, up: Tensor, positions: Tensor) -> Tensor:
    """Keys and values of each query made apart, in float64."""
    q, rows, up = q.double(), rows.double(), up.double()
    (width, rank), out = up.shape[2:], []
    for b, t in torch.cartesian_prod(*map(torch.arange, q.shape[:2])).tolist():
        seen = rows[b, : int(positions[b, t]) + 1]
        keys, values = (torch.einsum("sc,hdc->shd", seen[:, :rank], part) for part in up.unbind(1))
        scores = torch.einsum("hd,shd->hs", q[b, t, :, :width], keys) + q[b, t, :, width:] @ seen[:, rank:].T
        out.append(torch.einsum("hs,shd->hd", (scores / q.shape[3] ** 0.5).softmax(-1), values))
    return torch.stack(out).view(*q.shape[:3], width)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"S{case.rows}-H{case.heads}-C{case.rank}-R{case.shared}")
def test_kernels_follow_the_rule(case: Case) -> None:
    given = inputs(case)
    out = latent_attention_absorbed(*given, impl="triton")
    assert out.dtype == case.dtype
    assert ratio(out, by_the_rule(*given)) < (1e-5 if case.dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize("most", [64, 128])
def test_any_number_of_parts(most: int) -> None:
    given = inputs(Case(200, (200, 65, 3)))
    with rows_a_program(most):
        assert ratio(latent_attention_absorbed(*given, impl="triton"), by_the_rule(*given)) < 1e-5


@pytest.mark.parametrize(
    "key", [key for key in TABLE.rows if key[1] in (16, 512)], ids=lambda key: f"{key[0]}-C{key[1]}"
)
def test_rows_of_the_table(key: tuple[str, int, int]) -> None:
    given = inputs(Case(70, (70, 20)))
    with TABLE.forced(key):
        assert ratio(latent_attention_absorbed(*given, impl="triton"), by_the_rule(*given)) < 1e-5


def test_a_part_of_a_larger_cache_of_another_dtype() -> None:
    q, rows, up, positions = inputs(Case(60, (40, 7)))
    whole = by_the_rule(q, rows, up, positions)
    assert ratio(latent_attention_absorbed(q, rows[:, :45], up, positions, impl="triton"), whole) < 1e-5
    apart = rows.transpose(1, 2).contiguous().transpose(1, 2)
    assert ratio(latent_attention_absorbed(q, apart, up, positions, impl="triton"), whole) < 1e-5
    low = latent_attention_absorbed(q.half(), rows, up.half(), positions, impl="triton")
    assert low.dtype == torch.float16
    assert ratio(low, whole) < 5e-3


def test_gradients() -> None:
    *given, positions = inputs(Case(50, (50, 20), tokens=2), unfilled=0.0)
    exact, ours = ([x.to(dtype).requires_grad_() for x in given] for dtype in (torch.float64, torch.float32))
    out = latent_attention_absorbed(*ours, positions, impl="triton")
    grad = torch.randn(out.shape)
    right = torch.autograd.grad(by_the_rule(*exact, positions), exact, grad.double())
    for one, other in zip(torch.autograd.grad(out, ours, grad), right, strict=True):
        assert ratio(one, other) < 1e-5


def test_the_op_is_registered_in_full() -> None:
    q, rows, _, positions = inputs(Case(20, (20, 3), width=16))
    given = (q.requires_grad_(), rows.requires_grad_(), positions, 16, 0.3)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(latent_step, given, test_utils=checks)


def test_nothing_is_read_back_from_the_device() -> None:
    with FakeTensorMode():  # reading a value out of a fake tensor is an error
        q, rows, up = torch.zeros(2, 1, 3, 12), torch.zeros(2, 100, 20), torch.zeros(3, 2, 8, 16)
        positions = torch.zeros(2, 1, dtype=torch.int64)
        assert latent_attention_absorbed(q, rows, up, positions, impl="triton").shape == (2, 1, 3, 8)


def test_a_layer_decodes_by_the_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    shape, plugin = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32"), LatentPlugin()
    torch.manual_seed(0)
    options = plugin.parse_options({"kv_rank": 16, "shared_dim": 4, "rope": 1.0})
    mixer, x = plugin.build(options, shape, LayerInfo()), torch.randn(2, 9, 24)
    with torch.no_grad():
        whole, _ = mixer(x, ctx=Context())
        _, state = mixer(x[:, :8], state=mixer.init_state(2, 100), ctx=Context())
        monkeypatch.setattr(ops, "attend_rows", None)
        last, _ = mixer.step(x[:, 8], state=state, ctx=Context())
    assert torch.allclose(last, whole[:, 8], atol=1e-5)


def test_what_is_not_served_says_why() -> None:
    q, rows, up, positions = inputs(Case(4, (4,), shared=SHARED + 1))
    with pytest.raises(KernelUnavailableError, match=r"latent_attention_absorbed.*no such form"):
        latent_attention_absorbed(q, rows, up, positions, impl="triton")
    q, rows, up, positions = inputs(Case(4, (4,), rank=513))
    with pytest.raises(KernelUnavailableError, match="512 is the largest"):
        latent_attention_absorbed(q, rows, up, positions, impl="triton")


@pytest.mark.parametrize("arch", ["sm_90", "sm_80"])
def test_builds_name_every_argument_of_every_kernel_of_every_row(arch: str) -> None:
    builds = list(builds_of(arch))
    for build in builds:
        assert sorted([*build.signature, *build.constexprs]) == sorted(build.fn.arg_names), build.label
    rows = {key[1]: set(row) for key, row in TABLE.rows.items() if key[0] == arch}
    assert {dim: {build.name for build in builds if build.head_dim == dim} for dim in rows} == rows
    assert len({build.label for build in builds}) == len(builds)
