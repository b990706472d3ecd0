"""Mixture of block attention: the op against the rule in plain loops, the layer's laws, and its costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from archsearch_plugins.moba import MobaPlugin
from archsearch_plugins.moba.ops import moba_attention
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from archsearch.errors import KernelUnavailableError, OptionsError, SpecError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.ops import block_sparse
from archsearch.ops.laid_out import LaidOut
from archsearch.testing import MixerConformance

CASES = {
    "T37-H4-G2-b4-k3": (2, 37, 37, 4, 2, 4, 3),
    "T37-own-block-only": (1, 37, 37, 2, 2, 4, 1),
    "T1": (2, 1, 1, 2, 1, 8, 2),
    "T40-b8-k2-one-key-head": (1, 40, 40, 4, 1, 8, 2),
    "T30-b1-k5": (1, 30, 30, 2, 2, 1, 5),
    "T17-block-longer-than-sequence": (1, 17, 17, 2, 2, 32, 2),
    "T5-of-S41": (2, 5, 41, 4, 2, 7, 2),
    "T1-of-S40": (2, 1, 40, 2, 2, 8, 3),
}


@pytest.fixture(params=["reference", "masked", "tiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The `impl` to ask for; "tiled" is the chunkwise form that many keys take, here on few; masks are of 4 queries."""
    monkeypatch.setattr(block_sparse, "STRIP", 4)
    if request.param == "tiled":
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
    return "reference" if request.param == "reference" else "chunkwise"


def inputs(batch: int, queries: int, keys: int, heads: int, groups: int, dim: int = 8) -> list[Tensor]:
    """Signed q, k, v in float64 that want gradients."""
    generator = torch.Generator().manual_seed(queries + 7 * keys)
    sizes = [(batch, queries, heads, dim), (batch, keys, groups, dim), (batch, keys, groups, dim)]
    return [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]


def by_the_rule(q: Tensor, k: Tensor, v: Tensor, block_size: int, top_k: int, scale: float) -> Tensor:
    """One token and head at a time."""
    batch, queries, heads, _ = q.shape
    keys, share = k.shape[1], heads // k.shape[2]
    out = []
    for b in range(batch):
        for t in range(keys - queries, keys):
            for h in range(heads):
                query, key, value = q[b, t - keys + queries, h], k[b, :, h // share], v[b, :, h // share]
                own = t // block_size
                scores = [
                    float((query @ key[j * block_size : (j + 1) * block_size].mean(0)).detach()) for j in range(own)
                ]
                best = sorted(range(own), key=lambda j: -scores[j])[: top_k - 1]
                seen = [s for s in range(t + 1) if s // block_size in (*best, own)]
                out.append(torch.softmax(scale * key[seen] @ query, 0) @ value[seen])
    return torch.stack(out).view_as(q)


def gradients(out: Tensor, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a fixed signed sum."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return torch.autograd.grad((out * weights).sum(), tensors)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_op_follows_the_rule(form: str, case: tuple[int, ...]) -> None:
    *sizes, block_size, top_k = case
    tensors = inputs(*sizes)
    out = moba_attention(LaidOut(*tensors), block_size=block_size, top_k=top_k, scale=0.7, impl=form)
    expected = by_the_rule(*tensors, block_size, top_k, scale=0.7)
    assert_close(out, expected, rtol=1e-10, atol=1e-10)
    for got, right in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
        assert_close(got, right, rtol=1e-9, atol=1e-9)


def test_default_scale(form: str) -> None:
    tensors = inputs(1, 20, 20, 2, 2, dim=16)
    out = moba_attention(LaidOut(*tensors), block_size=4, top_k=2, impl=form)
    assert_close(out, by_the_rule(*tensors, 4, 2, scale=0.25), rtol=1e-10, atol=1e-10)


def test_of_equal_scores_the_earliest_are_chosen(form: str) -> None:
    q, k, v = inputs(1, 48, 48, 2, 1)
    zeros = torch.zeros_like(q)  # every block scores 0, every seen key weighs the same
    out = moba_attention(LaidOut(zeros, k, v), block_size=4, top_k=3, impl=form)
    for t in (11, 30, 47):
        seen = [*range(8), *range(t // 4 * 4, t + 1)]
        assert_close(out[0, t], v[0, seen].mean(0).expand(2, -1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tokens", [1, 23, 24], ids=["T1", "T23", "T24"])
def test_dense_up_to_top_k_blocks(form: str, tokens: int) -> None:
    q, k, v = inputs(2, tokens, tokens, 4, 2)
    out = moba_attention(LaidOut(q, k, v), block_size=8, top_k=3, impl=form)
    dense = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True
    )
    assert_close(out, dense.transpose(1, 2), rtol=1e-10, atol=1e-10)


def test_packed_sequences_are_apart(form: str) -> None:
    lengths = [13, 0, 1, 40, 0, 9]
    tensors = inputs(1, sum(lengths), sum(lengths), 4, 2)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    packed = moba_attention(LaidOut(*tensors, cu_seqlens=bounds), block_size=4, top_k=2, impl=form)
    parts = zip(*(torch.split(x, lengths, 1) for x in tensors), strict=True)
    apart = torch.cat([moba_attention(LaidOut(*part), block_size=4, top_k=2, impl=form) for part in parts], 1)
    assert_close(packed, apart, rtol=1e-12, atol=1e-12)
    for got, right in zip(gradients(packed, tensors), gradients(apart, tensors), strict=True):
        assert_close(got, right, rtol=1e-10, atol=1e-10)


def test_no_tokens(form: str) -> None:
    assert moba_attention(LaidOut(*inputs(1, 0, 0, 2, 1)), block_size=4, top_k=2, impl=form).shape == (1, 0, 2, 8)


def test_future_changes_nothing_before_it(form: str) -> None:
    with torch.no_grad():
        q, k, v = (x.float().detach() for x in inputs(1, 60, 60, 4, 2))
        before = moba_attention(LaidOut(q, k, v), block_size=8, top_k=3, impl=form)
        for t in (7, 8, 31, 59):
            changed = [torch.cat((x[:, :t], 50 * torch.randn_like(x[:, t:])), 1) for x in (q, k, v)]
            after = moba_attention(LaidOut(*changed), block_size=8, top_k=3, impl=form)
            assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-6)


@pytest.mark.parametrize("block_size", [16, 64])
def test_bfloat16_stays_near_float32(form: str, block_size: int) -> None:
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in inputs(2, 200, 200, 4, 2, dim=32))
    out = moba_attention(LaidOut(q, k, v), block_size=block_size, top_k=2, impl=form)
    wide = moba_attention(LaidOut(q.float(), k.float(), v.float()), block_size=block_size, top_k=2, impl="reference")
    assert out.dtype == torch.bfloat16
    error = (out.float() - wide).square().mean(-1).sqrt() / wide.square().mean(-1).sqrt()
    assert error.median() < 5e-3
    assert (error > 0.1).double().mean() < 0.02  # a near tie between blocks may fall the other way


def test_long_sequences_make_no_square() -> None:
    tokens, largest = 4096, 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                largest = max(largest, tensor.numel() if isinstance(tensor, Tensor) else 0)
            return result

    tensors = [x.detach().float().requires_grad_() for x in inputs(1, tokens, tokens, 1, 1)]
    with Watch():
        moba_attention(LaidOut(*tensors), block_size=64, top_k=3).sum().backward()
    assert largest <= tokens * tokens / 32


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"block_size": 0}, OptionsError, "block_size=0"),
        ({"top_k": 0}, OptionsError, "top_k=0"),
        ({"impl": "triton"}, KernelUnavailableError, "triton"),
        ({"impl": "chunk"}, OptionsError, "chunkwise"),
        ({"cu_seqlens": torch.tensor([0, 9])}, SpecError, "must rise from 0"),
    ],
    ids=["block-size", "top-k", "triton", "unknown-impl", "bounds"],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], words: str) -> None:
    options = {"block_size": 4, "top_k": 2, **change}
    laid = LaidOut(*inputs(1, 8, 8, 2, 1), cu_seqlens=options.pop("cu_seqlens", None))
    with pytest.raises(error, match=words):
        moba_attention(laid, **options)


def test_bad_shapes_are_named() -> None:
    q, k, v = inputs(1, 8, 8, 3, 2)
    with pytest.raises(SpecError, match="multiple of the key heads"):
        moba_attention(LaidOut(q, k, v), block_size=4, top_k=2)


class MobaLaws(MixerConformance):
    plugin = MobaPlugin()
    drops_beyond = False  # what one query head drops, another may choose


@pytest.mark.arena
class TestMobaConformance(MobaLaws):
    cases: ClassVar = {
        "one-token-blocks-nope": {"block_size": 1, "top_k": 4, "rope": 0.0},
        "block-longer-than-sequence": {"block_size": 128, "top_k": 2, "rope": 0.25},
    }
    quick: ClassVar = tuple(cases)


class TestMobaConformanceTiled(MobaLaws):
    cases: ClassVar = {"blocks-of-8": {"block_size": 8, "top_k": 3}}
    quick: ClassVar = tuple(cases)

    @pytest.fixture(autouse=True)
    def _tiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)


@pytest.mark.arena
class TestMobaConformanceOfOneHead(MixerConformance):
    plugin = MobaPlugin()
    cases: ClassVar = {"blocks-of-8": {"block_size": 8, "top_k": 3}, "own-block-only": {"block_size": 16, "top_k": 1}}
    quick: ClassVar = tuple(cases)
    shape = ModelShape(d_model=16, n_heads=1, n_kv_heads=1, head_dim=8, dtype="float32")


PLUGIN, LAYER = MobaPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8)


@pytest.mark.parametrize(("block_size", "top_k"), [(4, 1), (4, 3), (7, 2), (16, 8)])
@pytest.mark.parametrize("context", [1, 5, 28, 64, 99])
def test_sequence_costs_are_the_sum_over_its_tokens(block_size: int, top_k: int, context: int) -> None:
    options = PLUGIN.parse_options({"block_size": block_size, "top_k": top_k})
    whole = PLUGIN.flops(options, SHAPE, LAYER, phase="prefill", context=context)
    tokens = [PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=t + 1) for t in range(context)]
    for kind in ("matmul", "exp", "elementwise"):
        assert getattr(whole, kind) == pytest.approx(sum(getattr(token, kind) for token in tokens))


def test_cost_is_that_of_full_attention_while_nothing_is_dropped(registry: Any) -> None:
    options, full = PLUGIN.parse_options({"block_size": 16, "top_k": 4}), registry.mixer("full")
    for context in (1, 30, 64):
        ours = PLUGIN.flops(options, SHAPE, LAYER, phase="train", context=context)
        theirs = full.flops(full.parse_options({}), SHAPE, LAYER, phase="train", context=context)
        assert ours.matmul == theirs.matmul
        assert ours.exp == theirs.exp


def test_costs_at_length_are_those_of_the_paper() -> None:
    shape = replace(SHAPE, n_kv_heads=4)
    options, tokens, b, k = PLUGIN.parse_options({"block_size": 512, "top_k": 4}), 2**20, 512, 4
    flops = PLUGIN.flops(options, shape, LAYER, phase="prefill", context=tokens).matmul
    width = shape.n_heads * shape.head_dim
    projections = 8 * tokens * shape.d_model * width
    attention = width * tokens**2 / b + 4 * tokens * width * ((k - 1) * b + b / 2)
    assert flops == pytest.approx(projections + attention, rel=2e-3)
    read = PLUGIN.traffic(options, shape, LAYER, context=tokens).read_bytes
    assert read == pytest.approx(2 * tokens / b * width + 4 * k * b * width, rel=2e-3)


def test_matmul_flops_are_those_of_explicit_products() -> None:
    options, tokens, b, k = PLUGIN.parse_options({"block_size": 96, "top_k": 2}), 500, 96, 2
    x, mixer = torch.randn(1, tokens, SHAPE.d_model), PLUGIN.build(options, SHAPE, LAYER)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        q, key, value = mixer.project(x, torch.arange(tokens)[None])
        for t in range(tokens):
            own = t // b
            if own >= k:
                means = key[0, : own * b].unflatten(0, (own, b)).mean(1)
                _ = means.repeat_interleave(2, 1).transpose(0, 1) @ q[0, t, :, :, None]
            seen = min(own, k - 1) * b + t % b + 1
            keys, values = (y[0, t + 1 - seen : t + 1].repeat_interleave(2, 1).transpose(0, 1) for y in (key, value))
            _ = (keys @ q[0, t, :, :, None]).mT @ values
        mixer.output(q)
    counted = counter.get_total_flops()
    promised = PLUGIN.flops(options, SHAPE, LAYER, phase="prefill", context=tokens).matmul
    assert promised == pytest.approx(counted, rel=1e-9)


def test_state_has_no_means_where_there_is_no_choice() -> None:
    names = [row.name for row in PLUGIN.state(PLUGIN.parse_options({"top_k": 1}), SHAPE, LAYER)]
    assert names == ["k", "v"]


def test_state_bytes_at_length() -> None:
    options = PLUGIN.parse_options({"block_size": 64, "top_k": 4})
    rows = {row.name: row.nbytes(6400) for row in PLUGIN.state(options, SHAPE, LAYER)}
    assert rows == {"k": 6400 * 32, "v": 6400 * 32, "mean": 100 * 32}
    assert PLUGIN.dense_up_to(options, LAYER) == 256
