"""The kernels of full attention over packed sequences and after cached tokens, interpreted, against explicit products
in float64."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.full.ops import full_attention
from archsearch_plugins.full.triton.table import TABLE
from kernel_checks import SequenceCase, differences
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from archsearch.errors import KernelUnavailableError
from archsearch.kernels import Key
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import ShapeError

pytestmark = pytest.mark.usefixtures("poisoned_memory")
NAMES = ("q", "k", "v")


class Case(SequenceCase):
    """A call of full attention."""

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        """q, k, v."""
        return self.leaves(*self.qkv(torch.Generator().manual_seed(self.tokens + 7 * self.dim)), dtype=dtype)

    def run(self, tensors: list[Tensor], impl: str) -> Tensor:
        device = tensors[0].device
        bounds, lengths = (None if x is None else x.to(device) for x in (self.bounds, self.lengths))
        return full_attention(LaidOut(*tensors, cu_seqlens=bounds, lengths=lengths), scale=self.scale, impl=impl)


QUICK = {
    "T1-D32": Case(tokens=1, dim=32),
    "T15-D60-B2": Case(tokens=15, dim=60, batch=2),
    "T65-D64-grouped": Case(tokens=65, dim=64, heads=4, key_heads=2),
    "T100-D128": Case(tokens=100, dim=128, heads=3),
    "T130-D250": Case(tokens=130, dim=250, heads=1),
    "T20-of-S145-B2": Case(tokens=20, keys=145, batch=2),
    "packed-with-empty": Case(tokens=150, packed=(1, 0, 64, 16, 69, 0)),
    "packed-from-empty-grouped-by-3": Case(tokens=90, packed=(0, 80, 10), heads=6, key_heads=2),
    "packed-whole": Case(tokens=70, packed=(70,)),
    "T7-after-ragged": Case(tokens=7, keys=150, filled=(7, 33, 150, 64), batch=4),
    "T1-after-ragged": Case(tokens=1, keys=70, filled=(1, 65), batch=2, heads=4),
    "T70-after-ragged-D60": Case(tokens=70, keys=140, filled=(70, 140, 100), batch=3, dim=60),
    "T9-after-130": Case(tokens=9, keys=130, filled=(130,), heads=4, key_heads=4),
    "V24-of-D16": Case(tokens=40, value_dim=24, packed=(13, 27)),
    "negative-scale": Case(tokens=40, packed=(30, 10), scale=-0.3),
}
SLOW = {
    f"{kind}-T{tokens}-D{dim}-H{heads}-G{key_heads}": Case(
        tokens=tokens, dim=dim, heads=heads, key_heads=key_heads, **more
    )
    for tokens in (1, 15, 63, 64, 65, 100, 256)
    for dim in (32, 60, 64, 128)
    for heads, key_heads in ((2, 2), (4, 1))
    for kind, more in {
        "packed": {"packed": (tokens // 2, 0, tokens - tokens // 2)},
        "after": {"keys": 300, "filled": (tokens, 300, 257), "batch": 3},
    }.items()
}
SLOW["T1000"] = Case(tokens=1000, packed=(1, 0, 333, 666))
SLOW["packed-uneven"] = Case(tokens=300, packed=(0, 100, 1, 15, 0, 17, 64, 63, 40, 0))
CASES = [pytest.param(case, id=name) for name, case in QUICK.items()]
CASES += [pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()]


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients(case: Case) -> None:
    found = differences(case, torch.float32, NAMES)
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize("name", ["T65-D64-grouped", "packed-with-empty", "T7-after-ragged"])
def test_float16(name: str) -> None:
    found = differences(QUICK[name], torch.float16, NAMES)
    assert max(found.values()) < 3e-3, found


@pytest.mark.parametrize("key", list(TABLE.rows), ids=lambda key: f"{key[0]}-D{key[1]}")
def test_every_row_of_the_table(key: Key) -> None:
    case = Case(tokens=150, packed=(70, 80), dim=min(key[1], 32))
    with TABLE.forced(key):
        found = differences(case, torch.float32, NAMES)
    assert max(found.values()) < 1e-5, found


def test_equal_lengths_are_the_last_tokens_of_all_rows() -> None:
    q, k, v = Case(tokens=9, keys=60, batch=2).inputs(torch.float32)
    after = full_attention(LaidOut(q, k, v, lengths=torch.tensor([60, 60])), impl="triton")
    assert torch.equal(after, full_attention(LaidOut(q, k, v), impl="triton"))


def test_a_later_token_changes_nothing_before_it() -> None:
    case = QUICK["packed-with-empty"]
    before = [x.detach() for x in case.inputs(torch.float32)]
    after = [x.clone() for x in before]
    for x in after:
        x[:, 50:] = 2.0
    out, other = case.run(before, "triton"), case.run(after, "triton")
    assert torch.equal(out[:, :50], other[:, :50])
    assert not torch.equal(out[:, 50:], other[:, 50:])


def test_rows_that_no_token_has_filled_have_no_gradient() -> None:
    case = QUICK["T7-after-ragged"]
    tensors = case.inputs(torch.float32)
    for gradient in torch.autograd.grad(case.run(tensors, "triton").sum(), tensors[1:]):
        dead = torch.arange(150) >= torch.tensor(case.filled)[:, None]
        assert not gradient[dead].any()
        assert gradient[~dead].isfinite().all()


def test_a_part_of_a_larger_cache() -> None:
    wide = torch.randn(2, 3, 80, 8, 16, generator=torch.Generator().manual_seed(0))
    q, lengths = torch.randn(3, 9, 4, 16), torch.tensor([9, 50, 33])
    k, v = wide[:, :, 5:65:1, 2:4]
    part, copied = (
        full_attention(LaidOut(q, *xs, lengths=lengths), impl="triton")
        for xs in ((k, v), (k.contiguous(), v.contiguous()))
    )
    assert torch.equal(part, copied)


def test_lengths_of_any_integers() -> None:
    q, k, v = Case(tokens=4, keys=40, batch=2).inputs(torch.float32)
    whole = torch.tensor([[4, 0], [33, 0]])
    expected = full_attention(LaidOut(q, k, v, lengths=torch.tensor([4, 33])), impl="triton")
    for lengths in (whole[:, 0], whole[:, 0].int()):
        assert torch.equal(full_attention(LaidOut(q, k, v, lengths=lengths), impl="triton"), expected)


def test_autocast_decides_the_dtype() -> None:
    case = QUICK["V24-of-D16"]
    with torch.autocast("cpu", dtype=torch.float16):
        assert case.run(case.inputs(torch.float32), "triton").dtype == torch.float16


@pytest.mark.parametrize("name", ["packed-whole", "T7-after-ragged"])
def test_compiles_as_one_graph(name: str) -> None:
    case, counter = QUICK[name], CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda *xs: case.run(list(xs), "triton"), backend=counter, fullgraph=True)
    tensors = case.inputs(torch.float32)
    expected, out = case.run(tensors, "triton"), compiled(*tensors)
    assert counter.frame_count == 1
    assert torch.equal(out, expected)
    gradients = (torch.autograd.grad(x.sum(), tensors) for x in (out, expected))
    for got, right in zip(*gradients, strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize(("dtype", "dim"), [(torch.float64, 16), (torch.float32, 257)], ids=["float64", "D257"])
def test_what_no_kernel_serves_is_refused(dtype: torch.dtype, dim: int) -> None:
    with pytest.raises(KernelUnavailableError, match="full_attention"):
        full_attention(LaidOut(*Case(tokens=8, dim=dim).inputs(dtype)), impl="triton")


def test_wrong_lengths_are_named() -> None:
    q, k, v = Case(tokens=5, keys=9, batch=2).inputs(torch.float32)
    with pytest.raises(ShapeError, match=r"lengths \[1\]: lengths must be \[batch\]"):
        full_attention(LaidOut(q, k, v, lengths=torch.tensor([9])))
    with pytest.raises(ShapeError, match=r"lengths = \[9, 4\]: must lie between the 5 queries and the 9 rows"):
        full_attention(LaidOut(q, k, v, lengths=torch.tensor([9, 4])))
    with pytest.raises(ShapeError, match="give one"):
        full_attention(LaidOut(q[:1], k[:1, :5], v[:1, :5], lengths=torch.tensor([5]), cu_seqlens=torch.tensor([0, 5])))
