"""Native sparse attention: the op against the rules in plain loops, the layer's laws, and its costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from archsearch_plugins.nsa import NsaPlugin
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.sliding.ops import window_attention
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
    "T37-H4-G2-b4-k3-w5": (2, 37, 37, 4, 2, 4, 3, 5),
    "T37-own-block-only": (1, 37, 37, 2, 2, 4, 1, 1),
    "T37-forced-blocks-only": (1, 37, 37, 2, 1, 4, 2, 9),
    "T1": (2, 1, 1, 2, 1, 8, 2, 3),
    "T40-b8-k4-one-key-head": (1, 40, 40, 4, 1, 8, 4, 20),
    "T30-b1-k5": (1, 30, 30, 2, 2, 1, 5, 2),
    "T17-block-longer-than-sequence": (1, 17, 17, 2, 2, 32, 2, 40),
    "T5-of-S41": (2, 5, 41, 4, 2, 7, 3, 9),
    "T1-of-S40": (2, 1, 40, 2, 2, 8, 3, 4),
}
SIZES: dict[str, Any] = {"block_size": 4, "top_k": 3, "window": 6}


@pytest.fixture(params=["reference", "masked", "tiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The `impl` to ask for; "tiled" is the chunkwise form that many keys take, here on few; masks are of 4 queries."""
    monkeypatch.setattr(block_sparse, "STRIP", 4)
    if request.param == "tiled":
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
    return "reference" if request.param == "reference" else "chunkwise"


def inputs(batch: int, queries: int, keys: int, heads: int, groups: int, dim: int = 8) -> list[Tensor]:
    """Signed q, k, v and gates in float64 that want gradients."""
    generator = torch.Generator().manual_seed(queries + 7 * keys)
    sizes = [(batch, queries, heads, dim), (batch, keys, groups, dim), (batch, keys, groups, dim)]
    sizes.append((batch, queries, heads, 3))
    return [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]


def nsa(
    tensors: list[Tensor] | tuple[Tensor, ...],
    *,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    impl: str = "auto",
    **sizes: int,
) -> Tensor:
    """The op on q, k, v and gates."""
    q, k, v, gates = tensors
    laid = LaidOut(q, k, v, cu_seqlens=cu_seqlens)
    return nsa_attention(laid, gates=gates, sizes=NsaSizes(**{**SIZES, **sizes}), scale=scale, impl=impl)


def by_the_rules(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, block_size: int, top_k: int, window: int, scale: float
) -> Tensor:
    """One token and key head at a time."""
    batch, queries, heads, _ = q.shape
    keys, share = k.shape[1], heads // k.shape[2]
    out = torch.zeros_like(q)
    for b in range(batch):
        for t in range(keys - queries, keys):
            for group in range(k.shape[2]):
                mine = slice(group * share, (group + 1) * share)
                query, gate = q[b, t - keys + queries, mine], gates[b, t - keys + queries, mine]
                key, value = k[b, : t + 1, group], v[b, : t + 1, group]
                own, complete = t // block_size, (t + 1) // block_size
                branches = [torch.zeros_like(query)]
                importance = [0.0] * (own + 1)
                if complete:
                    means = [x[: complete * block_size].reshape(complete, block_size, -1).mean(1) for x in (key, value)]
                    weights = torch.softmax(scale * query @ means[0].T, -1)
                    branches = [weights @ means[1]]
                    importance[:complete] = weights.detach().sum(0).tolist()
                chosen = {own} if top_k == 1 else {own, 0}
                for block in sorted(range(own + 1), key=lambda block: -importance[block]):
                    if len(chosen) < top_k:
                        chosen.add(block)
                assert len(chosen) == min(top_k, own + 1)
                for seen in ([s for s in range(t + 1) if s // block_size in chosen], list(range(t + 1))[-window:]):
                    branches.append(torch.softmax(scale * query @ key[seen].T, -1) @ value[seen])
                out[b, t - keys + queries, mine] = sum(gate[:, i, None] * branch for i, branch in enumerate(branches))
    return out


def gradients(out: Tensor, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a fixed signed sum, zero where there is no path."""
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=out.dtype)
    return torch.autograd.grad((out * weights).sum(), tensors, materialize_grads=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_op_follows_the_rules(form: str, case: tuple[int, ...]) -> None:
    *sizes, block_size, top_k, window = case
    tensors = inputs(*sizes)
    out = nsa(tensors, block_size=block_size, top_k=top_k, window=window, scale=0.7, impl=form)
    expected = by_the_rules(*tensors, block_size, top_k, window, scale=0.7)
    assert_close(out, expected, rtol=1e-10, atol=1e-10)
    for got, right in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
        assert_close(got, right, rtol=1e-9, atol=1e-9)


def test_default_scale(form: str) -> None:
    tensors = inputs(1, 20, 20, 2, 2, dim=16)
    out = nsa(tensors, impl=form)
    assert_close(out, by_the_rules(*tensors, **SIZES, scale=0.25), rtol=1e-10, atol=1e-10)


def test_of_equal_probabilities_the_earliest_are_chosen(form: str) -> None:
    q, k, v, gates = inputs(1, 48, 48, 2, 1)
    only_selection = torch.tensor([0.0, 1.0, 0.0], dtype=q.dtype).expand_as(gates)
    out = nsa((torch.zeros_like(q), k, v, only_selection), top_k=4, impl=form)
    for t in (15, 30, 47):
        seen = [*range(12), *range(t // 4 * 4, t + 1)]
        assert_close(out[0, t], v[0, seen].mean(0).expand(2, -1), rtol=1e-10, atol=1e-10)


def test_a_token_that_ends_its_block_sees_its_mean(form: str) -> None:
    q, k, v, gates = inputs(1, 8, 8, 2, 1)
    only_compression = torch.tensor([1.0, 0.0, 0.0], dtype=q.dtype).expand_as(gates)
    out = nsa((q, k, v, only_compression), impl=form)
    assert not out[0, :3].any()
    assert_close(out[0, 3], v[0, :4].mean(0).expand(2, -1), rtol=1e-10, atol=1e-10)


def test_gates_are_taken_as_they_are(form: str) -> None:
    q, k, v, gates = inputs(1, 20, 20, 2, 1)
    once, thrice = nsa((q, k, v, gates), impl=form), nsa((q, k, v, -3 * gates), impl=form)
    assert_close(thrice, -3 * once, rtol=1e-10, atol=1e-10)


def test_nsa_whose_gates_open_the_window_alone_is_sliding_window_attention(form: str) -> None:
    """arXiv 2502.11089, equation 5, with gates (0, 0, 1); gradients too, none of which reach the other branches."""
    q, k, v, gates = inputs(2, 37, 37, 4, 2)
    only_window = torch.tensor([0.0, 0.0, 1.0], dtype=q.dtype).expand_as(gates)
    found = nsa((q, k, v, only_window), impl=form)
    wanted = window_attention(LaidOut(q, k, v), window=SIZES["window"], sinks=0, impl="reference")
    assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert_close(gradients(found, [q, k, v]), gradients(wanted, [q, k, v]), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, window_attention(LaidOut(q, k, v), window=SIZES["window"] + 1, sinks=0))


def test_packed_sequences_are_apart(form: str) -> None:
    lengths = [13, 0, 1, 40, 0, 9]
    tensors = inputs(1, sum(lengths), sum(lengths), 4, 2)
    packed = nsa(tensors, cu_seqlens=torch.tensor([0, *lengths]).cumsum(0), impl=form)
    apart = torch.cat(
        [nsa(part, impl=form) for part in zip(*(torch.split(x, lengths, 1) for x in tensors), strict=True)], 1
    )
    assert_close(packed, apart, rtol=1e-12, atol=1e-12)
    for got, right in zip(gradients(packed, tensors), gradients(apart, tensors), strict=True):
        assert_close(got, right, rtol=1e-10, atol=1e-10)


def test_no_tokens(form: str) -> None:
    assert nsa(inputs(1, 0, 0, 2, 1), impl=form).shape == (1, 0, 2, 8)
    assert nsa(inputs(1, 0, 0, 2, 1), cu_seqlens=torch.tensor([0, 0]), impl=form).shape == (1, 0, 2, 8)


def test_future_changes_nothing_before_it(form: str) -> None:
    with torch.no_grad():
        tensors = [x.float().detach() for x in inputs(1, 60, 60, 4, 2)]
        before = nsa(tensors, block_size=8, impl=form)
        for t in (7, 8, 31, 59):
            changed = [torch.cat((x[:, :t], 50 * torch.randn_like(x[:, t:])), 1) for x in tensors]
            assert_close(nsa(changed, block_size=8, impl=form)[:, :t], before[:, :t], rtol=0, atol=1e-6)


def test_bfloat16_stays_near_float32(form: str) -> None:
    tensors = [x.detach().bfloat16() for x in inputs(2, 200, 200, 4, 2, dim=32)]
    out = nsa(tensors, block_size=16, window=40, impl=form)
    wide = nsa([x.float() for x in tensors], block_size=16, window=40, impl="reference")
    assert out.dtype == torch.bfloat16
    error = (out.float() - wide).square().mean(-1).sqrt() / wide.square().mean(-1).sqrt()
    assert error.median() < 1e-2
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
        nsa(tensors, block_size=64, window=128).sum().backward()
    assert largest <= tokens * tokens / 16


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"block_size": 0}, OptionsError, "block_size=0"),
        ({"top_k": 0}, OptionsError, "top_k=0"),
        ({"window": 0}, OptionsError, "window=0"),
        ({"impl": "triton"}, KernelUnavailableError, "triton"),
        ({"impl": "chunk"}, OptionsError, "chunkwise"),
        ({"cu_seqlens": torch.tensor([0, 9])}, SpecError, "must rise from 0"),
    ],
    ids=["block-size", "top-k", "window", "triton", "unknown-impl", "bounds"],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        nsa(inputs(1, 8, 8, 2, 1), **change)


def test_bad_gates_are_named() -> None:
    q, k, v, gates = inputs(1, 8, 8, 2, 1)
    with pytest.raises(SpecError, match="gates"):
        nsa((q, k, v, gates[..., :2]))


class NsaLaws(MixerConformance):
    plugin = NsaPlugin()
    drops_beyond = False  # every token is in the mean of a block that is seen
    traffic_contexts = (2, 17, 48)  # where the window holds none of the blocks that are chosen by their keys


@pytest.mark.arena
class TestNsaConformance(NsaLaws):
    cases: ClassVar = {
        "one-token-blocks-nope": {"block_size": 1, "top_k": 4, "window": 1, "rope": 0.0},
        "block-longer-than-sequence": {"block_size": 128, "top_k": 2, "window": 70, "rope": 0.25},
    }
    quick: ClassVar = tuple(cases)


class TestNsaConformanceTiled(NsaLaws):
    cases: ClassVar = {"blocks-of-8": {"block_size": 8, "top_k": 3, "window": 8}}
    quick: ClassVar = tuple(cases)

    @pytest.fixture(autouse=True)
    def _tiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)


@pytest.mark.arena
class TestNsaConformanceOfWideWindow(NsaLaws):
    cases: ClassVar = {"window-20": {"block_size": 8, "top_k": 4, "window": 20}}
    quick: ClassVar = tuple(cases)
    traffic_slack = 1.0  # blocks that were chosen by their keys may lie in the window, and are then read once


PLUGIN, LAYER = NsaPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8)


@pytest.mark.parametrize(("block_size", "top_k", "window"), [(4, 1, 1), (4, 3, 9), (7, 2, 5), (16, 8, 200)])
@pytest.mark.parametrize("context", [1, 5, 28, 64, 99])
def test_sequence_costs_are_the_sum_over_its_tokens(block_size: int, top_k: int, window: int, context: int) -> None:
    options = PLUGIN.parse_options({"block_size": block_size, "top_k": top_k, "window": window})
    whole = PLUGIN.flops(options, SHAPE, LAYER, phase="prefill", context=context)
    tokens = [PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=t + 1) for t in range(context)]
    for kind in ("matmul", "exp", "elementwise"):
        assert getattr(whole, kind) == pytest.approx(sum(getattr(token, kind) for token in tokens))


def test_costs_at_length_are_those_of_the_paper() -> None:
    shape = replace(SHAPE, n_kv_heads=4)
    options = PLUGIN.parse_options({"block_size": 64, "top_k": 16, "window": 512})
    tokens, b, k, window, width = 2**20, 64, 16, 512, shape.n_heads * shape.head_dim
    flops = PLUGIN.flops(options, shape, LAYER, phase="prefill", context=tokens).matmul
    around = tokens * shape.d_model * (8 * width + 6 * shape.n_heads)
    assert flops == pytest.approx(around + 4 * tokens * width * (tokens / (2 * b) + k * b + window), rel=1e-2)
    read = PLUGIN.traffic(options, shape, LAYER, context=tokens).read_bytes
    assert read == pytest.approx(4 * width * (tokens / b + k * b + window), rel=1e-2)


def test_rows_are_counted_once() -> None:
    row = 4 * SHAPE.n_kv_heads * SHAPE.head_dim

    def rows(context: int, **options: int) -> float:
        return PLUGIN.traffic(PLUGIN.parse_options(options), SHAPE, LAYER, context=context).read_bytes / row

    sizes = {"block_size": 8, "window": 20}
    assert rows(64, top_k=1, **sizes) == 8 + 20  # the own block is in the window
    assert rows(64, top_k=2, **sizes) == 8 + 20 + 8
    assert rows(64, top_k=4, **sizes) == 8 + 20 + 24
    assert rows(64, top_k=8, **sizes) == 8 + 64
    assert rows(20, top_k=8, **sizes) == 2 + 20
    assert rows(25, top_k=2, **sizes) == 3 + 20 + 5  # three tokens of block 0 are in the window


def test_matmul_flops_are_those_of_explicit_products() -> None:
    options = PLUGIN.parse_options({"block_size": 96, "top_k": 3, "window": 150})
    tokens, b, k, window = 500, 96, 3, 150
    x, mixer = torch.randn(1, tokens, SHAPE.d_model), PLUGIN.build(options, SHAPE, LAYER)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        q, key, value = mixer.project(x, torch.arange(tokens)[None])
        q = q[..., : SHAPE.head_dim]
        means = [y[0, : tokens // b * b].unflatten(0, (-1, b)).mean(1) for y in (key, value)]
        for t in range(tokens):
            chosen = min(t // b, k - 1) * b + t % b + 1
            for rows, seen in (
                (means, slice(0, (t + 1) // b)),
                ((key[0], value[0]), slice(t + 1 - chosen, t + 1)),
                ((key[0], value[0]), slice(max(0, t + 1 - window), t + 1)),
            ):
                keys, values = (y[seen].repeat_interleave(2, 1).transpose(0, 1) for y in rows)
                _ = (keys @ q[0, t, :, :, None]).mT @ values
        mixer.output(q)
    promised = PLUGIN.flops(options, SHAPE, LAYER, phase="prefill", context=tokens).matmul
    assert promised == pytest.approx(counter.get_total_flops(), rel=0.001)


def test_state_bytes_at_length() -> None:
    options = PLUGIN.parse_options({"block_size": 64, "top_k": 4})
    rows = {row.name: row.nbytes(6400) for row in PLUGIN.state(options, SHAPE, LAYER)}
    assert rows == {"k": 6400 * 32, "v": 6400 * 32, "k_mean": 100 * 32, "v_mean": 100 * 32}
    assert PLUGIN.dense_up_to(options, LAYER) == 256
