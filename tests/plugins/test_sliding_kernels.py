"""The kernels of window attention, interpreted, against explicit products in float64."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from archsearch_plugins.sliding.ops import window_attention
from archsearch_plugins.sliding.triton import launch
from archsearch_plugins.sliding.triton.builds import builds as builds_of
from archsearch_plugins.sliding.triton.table import TABLE
from kernel_checks import ratio
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from archsearch.errors import KernelUnavailableError
from archsearch.ops.laid_out import LaidOut


class Case(NamedTuple):
    """Sizes of one call; fewer queries than keys where `queries` is not 0."""

    tokens: int
    window: int
    sinks: int
    heads: int = 1
    kv_heads: int = 1
    dim: int = 32
    queries: int = 0
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        shown = f"T{self.tokens}-W{self.window}-S{self.sinks}-H{self.heads}over{self.kv_heads}-D{self.dim}"
        return shown + f"-Q{self.queries}" * bool(self.queries) + "-fp16" * (self.dtype == torch.float16)


CASES = [
    Case(1, 1, 0),
    Case(1, 7, 5, dim=128),
    Case(15, 1, 5, 2, 1),
    Case(15, 16, 0, 2, 2, 60),
    Case(63, 7, 1, 4, 1, 64),
    Case(64, 64, 5, 1, 1, 60),
    Case(65, 1, 0, 2, 1, 128),
    Case(65, 63, 1, 2, 2),
    Case(64, 7, 0, 4, 2, 64),
    Case(100, 200, 5, 2, 1, 60),
    Case(100, 16, 40, 2, 1),
    Case(100, 3, 200),
    Case(100, 33, 1, 1, 1, 128),
    Case(100, 7, 5, 4, 2, 64, queries=40),
    Case(100, 64, 0, dim=60, queries=1),
    Case(63, 1, 1, queries=62),
    Case(230, 65, 0, 2, 1),
    Case(230, 150, 5, queries=101),
    Case(256, 191, 1),
    Case(100, 16, 5, 2, 1, 64, dtype=torch.float16),
    Case(65, 200, 0, 1, 1, 60, dtype=torch.float16),
]
GRID = [
    Case(tokens, window, sinks, heads, kv_heads, dim, queries)
    for tokens, window, sinks, (heads, kv_heads), dim in itertools.product(
        [1, 15, 63, 64, 65, 100], [1, 7, 64, 150], [0, 1, 5, 70], [(1, 1), (4, 2)], [32, 60]
    )
    for queries in {0, (tokens + 1) // 2}
] + [
    Case(tokens, window, sinks, heads, kv_heads, dim)
    for tokens, window, sinks, (heads, kv_heads), dim in itertools.product(
        [256, 1000], [1, 100, 300, 2000], [0, 5], [(2, 2), (4, 1)], [64, 128]
    )
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written holds NaN."""
    for name in ("empty", "empty_like"):
        genuine = getattr(torch, name)

        def poison(*args: object, genuine: object = genuine, **options: object) -> Tensor:
            made: Tensor = genuine(*args, **options)  # type: ignore[operator]
            return made.fill_(torch.nan) if made.is_floating_point() else made

        monkeypatch.setattr(torch, name, poison)


def make_inputs(case: Case, *, batch: int | None = None) -> list[Tensor]:
    """q, k and v, signed, cut out of one tensor as a layer's are; of an odd number of tokens two sequences."""
    batch = 1 + case.tokens % 2 if batch is None else batch
    draw = torch.Generator().manual_seed(case.tokens + 7 * case.window)
    sizes = [case.heads, case.kv_heads, case.kv_heads]
    whole = torch.randn(batch, case.tokens, sum(sizes), case.dim, generator=draw).to(case.dtype)
    q, k, v = whole.split(sizes, dim=2)
    return [q[:, case.tokens - (case.queries or case.tokens) :], k, v]


def differentiate(
    inputs: list[Tensor], impl: str, *, cu_seqlens: Tensor | None = None, lengths: Tensor | None = None, **options: Any
) -> list[Tensor]:
    """The output, and the gradients of q, k and v from the same one of it."""
    given = [x.detach().requires_grad_() for x in inputs]
    out = window_attention(LaidOut(*given, cu_seqlens=cu_seqlens, lengths=lengths), impl=impl, **options)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).half()  # the same numbers in every dtype
    return [out, *torch.autograd.grad(out, given, grad.to(out.dtype))]


def check(inputs: list[Tensor], *, outputs: float = 1e-5, gradients: float = 1e-5, **options: Any) -> list[Tensor]:
    """The kernel's output and gradients, which are within those ratios of the reference in float64."""
    found = differentiate(inputs, "triton", **options)
    assert found[0].dtype == inputs[0].dtype
    expected = differentiate([x.double() for x in inputs], "reference", **options)
    for name, one, other in zip(("o", "dq", "dk", "dv"), found, expected, strict=True):
        assert ratio(one, other, least=0.05) < (outputs if name == "o" else gradients), name
    return found


class Held(NamedTuple):
    """Rows that each sequence has filled of those of a cache, the queries after the others among them."""

    case: Case
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.case}-L{'+'.join(str(length) for length in self.lengths)}"

    def inputs(self, dead: float = torch.nan) -> tuple[list[Tensor], Tensor]:
        """q, k and v, `dead` in the rows that nobody has filled; and the lengths."""
        q, *caches = make_inputs(self.case, batch=len(self.lengths))
        lengths = torch.tensor(self.lengths)
        unfilled = (torch.arange(self.case.tokens) >= lengths[:, None])[..., None, None]
        return [q, *(x.masked_fill(unfilled, dead) for x in caches)], lengths


HELD = [
    Held(Case(1, 1, 0, queries=1), (1,)),
    Held(Case(9, 7, 5, 2, 1, 16, 1), (9, 1, 4)),
    Held(Case(70, 3, 2, 2, 2, 60, 2), (2, 70)),
    Held(Case(100, 7, 0, 2, 1, 64, 33), (33, 100)),
    Held(Case(130, 16, 2, 2, 1, 16, 64), (65, 128)),
    Held(Case(130, 200, 5, 1, 1, 64, 65), (130, 66)),
    Held(Case(80, 9, 70, 1, 1, 60, 3), (4, 71, 80)),
    Held(Case(200, 64, 2, 1, 1, 16, 100), (164, 101)),
    Held(Case(200, 33, 1, 1, 1, 32, 40), (41,)),
    Held(Case(200, 1, 0, 1, 1, 60, 129), (192, 129)),
    Held(Case(130, 16, 2, 1, 1, 64, 50, torch.float16), (130, 51)),
]
HELD_GRID = [
    Held(Case(rows, window, sinks, heads, kv_heads, dim, queries), (queries, rows, (queries + rows) // 2)[:batch])
    for rows, window, sinks, (heads, kv_heads, dim, batch) in itertools.product(
        [2, 65, 150], [1, 7, 64, 200], [0, 2, 100], [(1, 1, 64, 1), (4, 2, 16, 2), (2, 1, 60, 3)]
    )
    for queries in {1, (rows + 1) // 2, rows}
]


def check_held(held: Held) -> None:
    """The kernels over filled rows alone: what the others hold changes no bit, and their gradients are zeros."""
    (inputs, lengths), (zeroed, _) = held.inputs(), held.inputs(0.0)
    case, low = held.case, held.case.dtype == torch.float16
    options = {"window": case.window, "sinks": case.sinks, "lengths": lengths}
    found = check(inputs, outputs=5e-3 if low else 1e-5, gradients=8e-3 if low else 1e-5, **options)
    assert all(map(torch.equal, found, differentiate(zeroed, "triton", **options)))
    unfilled = torch.arange(case.tokens) >= lengths[:, None]
    assert not any(gradient[unfilled].count_nonzero() for gradient in found[2:])


def check_case(case: Case) -> None:
    low = case.dtype == torch.float16
    check(
        make_inputs(case),
        window=case.window,
        sinks=case.sinks,
        outputs=5e-3 if low else 1e-5,
        gradients=8e-3 if low else 1e-5,
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_the_reference(case: Case) -> None:
    check_case(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", GRID, ids=str)
def test_kernels_equal_the_reference_everywhere(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize("held", HELD, ids=str)
def test_filled_rows_alone(held: Held) -> None:
    check_held(held)


@pytest.mark.slow
@pytest.mark.parametrize("held", HELD_GRID, ids=str)
def test_filled_rows_alone_everywhere(held: Held) -> None:
    check_held(held)


@pytest.mark.parametrize("key", TABLE.rows, ids=lambda key: f"{key[0]}-D{key[1]}")
def test_every_row_of_the_table(key: tuple[str, int, int]) -> None:
    with TABLE.forced(key):
        check_case(Case(150, 40, 3, 2, 1, 16))
        check(make_inputs(Case(70, 9, 2, dim=12), batch=1), window=9, sinks=2, cu_seqlens=torch.tensor([0, 60, 70]))
        check_held(Held(Case(100, 40, 3, 2, 1, 16, 50), (51,)))


@pytest.mark.parametrize("case", [Case(200, 9, 5, 4, 2), Case(150, 1, 1, queries=101), Case(230, 40, 70)], ids=str)
def test_queries_of_the_sinks_in_parts(monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    monkeypatch.setattr(launch, "FEWEST_ROWS", 32)
    assert launch._parts(case.queries or case.tokens, case.window, case.sinks) > 1
    check_case(case)


@pytest.mark.parametrize(
    "held",
    [Held(Case(130, 9, 5, 2, 1, queries=70), (71, 130)), Held(Case(150, 5, 145, queries=65), (66, 150))],
    ids=str,
)
def test_queries_of_the_sinks_in_parts_over_filled_rows(monkeypatch: pytest.MonkeyPatch, held: Held) -> None:
    monkeypatch.setattr(launch, "FEWEST_ROWS", 32)
    assert launch._parts(held.case.queries, held.case.window, held.case.sinks) > 1
    check_held(held)


def test_filled_rows_of_a_part_of_a_larger_cache() -> None:
    (q, k, v), lengths = Held(Case(100, 9, 2, 4, 2, queries=20), (40, 21)).inputs()
    parts = [q[:, ::2], k[:, :50], v[:, :50]]
    check(parts, window=9, sinks=2, lengths=lengths)
    check([x.transpose(1, 2).contiguous().transpose(1, 2) for x in parts], window=9, sinks=2, lengths=lengths)


@pytest.mark.parametrize("impl", ["reference", "chunkwise", "triton"])
def test_lengths_of_any_integers(impl: str) -> None:
    inputs, lengths = Held(Case(90, 9, 2, 2, 1, queries=20), (40, 21, 90)).inputs()
    expected = window_attention(LaidOut(*inputs, lengths=lengths), window=9, sinks=2, impl=impl)
    for same in (lengths.int(), torch.stack((lengths, -lengths), 1)[:, 0], lengths.short()):
        assert torch.equal(window_attention(LaidOut(*inputs, lengths=same), window=9, sinks=2, impl=impl), expected)


LENGTHS = {
    "one": [90],
    "empty-ones": [4, 0, 1, 100, 0],
    "all-empty": [0, 0],
    "no-sequence": [],
    "short": [1] * 20 + [2] * 20,
    "uneven": [33, 64, 0, 27, 1, 65],
    "long": [100, 156],
}


@pytest.mark.parametrize(("window", "sinks"), [(1, 0), (6, 2), (250, 5), (3, 50)])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed_sequences(lengths: list[int], window: int, sinks: int) -> None:
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    inputs = make_inputs(Case(sum(lengths), window, sinks, 2, 1, 16), batch=1)
    if sum(lengths):
        check(inputs, window=window, sinks=sinks, cu_seqlens=bounds)
    else:
        out = window_attention(LaidOut(*inputs, cu_seqlens=bounds), window=window, impl="triton")
        assert out.shape == (1, 0, 2, 16)


@pytest.mark.parametrize(("window", "sinks"), [(9, 0), (9, 4), (200, 0)])
def test_the_past_does_not_see_the_future(window: int, sinks: int) -> None:
    inputs, place = make_inputs(Case(150, window, sinks, 2, 1)), 77
    before = window_attention(LaidOut(*inputs), window=window, sinks=sinks, impl="triton")
    for x in inputs:
        x[:, place] += 3.0
    after = window_attention(LaidOut(*inputs), window=window, sinks=sinks, impl="triton")
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.equal(before[:, place], after[:, place])


def test_packed_sequences_do_not_see_each_other() -> None:
    inputs, bounds = make_inputs(Case(150, 70, 4), batch=1), torch.tensor([0, 40, 90, 150])
    before = window_attention(LaidOut(*inputs, cu_seqlens=bounds), window=70, sinks=4, impl="triton")
    for x in inputs:
        x[:, 40:90] += 3.0
    after = window_attention(LaidOut(*inputs, cu_seqlens=bounds), window=70, sinks=4, impl="triton")
    assert torch.equal(before[:, :40], after[:, :40])
    assert torch.equal(before[:, 90:], after[:, 90:])


@pytest.mark.parametrize("layout", ["contiguous", "heads-apart", "broadcast"])
def test_layouts_in_memory(layout: str) -> None:
    q, k, v = make_inputs(Case(40, 9, 2, 2, 2))
    arrange = {
        "contiguous": lambda x: x.contiguous(),
        "heads-apart": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        "broadcast": lambda x: x[:1].expand_as(x),
    }[layout]
    check([arrange(x) for x in (q, k, v)], window=9, sinks=2)


@pytest.mark.parametrize("scale", [0.0, -0.3, 1.7])
def test_scale(scale: float) -> None:
    check(make_inputs(Case(70, 9, 2)), window=9, sinks=2, scale=scale)


def test_values_of_another_width() -> None:
    q, k, v = make_inputs(Case(70, 9, 2, 2, 1, 48))
    check([q, k, v[..., :20].contiguous()], window=9, sinks=2)


def test_large_scores_stay_finite() -> None:
    q, k, v = make_inputs(Case(100, 9, 2))
    check([30 * q, 30 * k, v], window=9, sinks=2, outputs=1e-4, gradients=1e-3)


def test_autocast_casts_and_gradients_come_back_in_float32() -> None:
    inputs = [x.detach().requires_grad_() for x in make_inputs(Case(40, 9, 2))]
    with torch.autocast("cpu", torch.float16):
        out = window_attention(LaidOut(*inputs), window=9, sinks=2, impl="triton")
    assert out.dtype == torch.float16
    assert all(grad.dtype == torch.float32 for grad in torch.autograd.grad(out.float().sum(), inputs))


def test_the_ops_are_registered_in_full() -> None:
    inputs = [x.detach().requires_grad_() for x in make_inputs(Case(40, 9, 2), batch=1)]
    spans = torch.tensor([[0] * 30 + [30] * 10, [30] * 30 + [40] * 10], dtype=torch.int32)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(launch._forward, (*inputs, spans, None, 9, 2, 0.3), test_utils=checks)
    continued = [inputs[0][:, -20:].detach().requires_grad_(), *inputs[1:], None, torch.tensor([33])]
    torch.library.opcheck(launch._forward, (*continued, 9, 2, 0.3), test_utils=checks)


def test_nothing_is_read_back_from_the_device() -> None:
    with FakeTensorMode():  # reading a value out of a fake tensor is an error
        q, k, v = (torch.zeros(1, 40, 2, 32, requires_grad=True) for _ in range(3))
        bounds = torch.zeros(4, dtype=torch.int64)
        out = window_attention(LaidOut(q, k, v, cu_seqlens=bounds), window=9, sinks=2, impl="triton")
        out.sum().backward()
        continued = window_attention(
            LaidOut(q[:, :10], k, v, lengths=torch.zeros(1, dtype=torch.int32)), window=9, sinks=2, impl="triton"
        )
        continued.sum().backward()
    assert out.shape == (1, 40, 2, 32)
    assert continued.shape == (1, 10, 2, 32)
    assert q.grad is not None


def test_what_no_kernel_can_do_is_refused() -> None:
    inputs = make_inputs(Case(5, 3, 0))
    with pytest.raises(KernelUnavailableError, match=r'window_attention.*"triton"'):
        window_attention(LaidOut(*(x.double() for x in inputs)), window=3, impl="triton")
    wide = [x.repeat(1, 1, 1, 9) for x in inputs]
    with pytest.raises(KernelUnavailableError, match=r"head_dim = 288.*256 is the largest"):
        window_attention(LaidOut(*wide), window=3, impl="triton")


@pytest.mark.parametrize("arch", ["sm_90", "sm_80"])
def test_builds_name_every_argument_of_every_kernel_of_every_row(arch: str) -> None:
    builds = list(builds_of(arch))
    for build in builds:
        assert sorted([*build.signature, *build.constexprs]) == sorted(build.fn.arg_names), build.label
    rows = {key[1]: set(row) for key, row in TABLE.rows.items() if key[0] == arch}
    assert {dim: {build.name for build in builds if build.head_dim == dim} for dim in rows} == rows
    assert len({build.label for build in builds}) == len(builds)
