"""Sliding-window attention: the op against a loop over tokens, its cost in blocks, the ring, and the costs."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.sliding import SlidingPlugin, ops
from archsearch_plugins.sliding.ops import window_attention
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from archsearch.errors import KernelUnavailableError, OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer
from archsearch.ops import band
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import ShapeError

PLUGIN = SlidingPlugin()
SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")


def _qkv(queries: int, keys: int, *, batch: int = 2) -> list[Tensor]:
    torch.manual_seed(queries * 1000 + keys)
    sizes = [(queries, 4), (keys, 2), (keys, 2)]
    return [torch.randn(batch, *size, 8, dtype=torch.float64, requires_grad=True) for size in sizes]


def _token_by_token(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int) -> Tensor:
    offset, rows = k.shape[1] - q.shape[1], []
    for t in range(offset, k.shape[1]):
        seen = sorted({*range(max(0, t - window + 1), t + 1), *range(min(sinks, t + 1))})
        keys, values = (x[:, seen].repeat_interleave(2, 2) for x in (k, v))
        weights = ((q[:, t - offset, None] * keys).sum(-1) * 8**-0.5).softmax(1)
        rows.append((weights[..., None] * values).sum(1))
    return torch.stack(rows, 1)


def _build(**options: int) -> Mixer:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(options), SHAPE, LayerInfo())


@pytest.mark.parametrize("form", ["auto", "reference", "_dense", "_banded"])
@pytest.mark.parametrize(
    ("window", "sinks", "queries", "keys"),
    [
        (1, 0, 1, 1),
        (1, 0, 9, 9),
        (4, 2, 5, 5),
        (4, 9, 30, 30),
        (8, 3, 150, 150),
        (70, 4, 150, 150),
        (64, 0, 129, 129),
        (8, 3, 1, 150),
        (8, 3, 40, 150),
        (5, 7, 131, 140),
        (200, 3, 150, 150),
        (3, 160, 150, 150),
    ],
    ids=lambda value: str(value),
)
def test_op_equals_token_by_token(form: str, window: int, sinks: int, queries: int, keys: int) -> None:
    tensors = _qkv(queries, keys)
    expected = _token_by_token(*tensors, window, sinks)
    if form.startswith("_"):
        actual = getattr(band, form)(*tensors, window, sinks, None)
    else:
        actual = window_attention(LaidOut(*tensors), window=window, sinks=sinks, impl=form)
    weights = torch.randn_like(expected)
    assert_close(actual, expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * weights).sum(), tensors),
        torch.autograd.grad((expected * weights).sum(), tensors),
        strict=True,
    ):
        assert_close(found, wanted)


@pytest.mark.parametrize("form", ["auto", "reference"])
@pytest.mark.parametrize(
    ("window", "sinks", "queries", "lengths"),
    [
        (1, 0, 1, [1, 9]),
        (4, 2, 2, [2, 30]),
        (4, 9, 3, [5, 30]),
        (8, 3, 40, [41, 150]),
        (200, 3, 40, [40, 150]),
        (3, 160, 20, [21, 150]),
        (8, 3, 129, [129, 130, 150]),
        (5, 140, 131, [150, 139]),
        (70, 4, 145, [146, 150]),
        (8, 3, 131, [140, 140]),
        (8, 3, 30, [77]),
    ],
    ids=lambda value: str(value),
)
def test_queries_after_lengths_equal_token_by_token(
    form: str, window: int, sinks: int, queries: int, lengths: list[int]
) -> None:
    q, k, v = _qkv(queries, 150, batch=len(lengths))
    filled = torch.tensor(lengths)
    unfilled = torch.arange(150) >= filled[:, None]
    k, v = (x.detach().masked_fill(unfilled[..., None, None], torch.nan).requires_grad_() for x in (k, v))
    actual = window_attention(LaidOut(q, k, v, lengths=filled), window=window, sinks=sinks, impl=form)
    rows = [(q[i : i + 1], k[i : i + 1, :n], v[i : i + 1, :n]) for i, n in enumerate(lengths)]
    expected = torch.cat([_token_by_token(*row, window, sinks) for row in rows])
    assert_close(actual, expected)
    weights = torch.randn_like(expected)
    found, wanted = (torch.autograd.grad((out * weights).sum(), (q, k, v)) for out in (actual, expected))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other)
    assert not any(gradient[unfilled].count_nonzero() for gradient in found[1:])


@pytest.mark.parametrize("impl", ["chunkwise", "reference"])
@pytest.mark.parametrize("lengths", [[4, 0, 1, 150], [0, 0]], ids=["uneven", "all-empty"])
def test_packed_sequences(impl: str, lengths: list[int]) -> None:
    q, k, v = _qkv(sum(lengths), sum(lengths), batch=1)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    packed = window_attention(LaidOut(q, k, v, cu_seqlens=bounds), window=6, sinks=2, impl=impl)
    pieces = zip(*(x.split(lengths, 1) for x in (q, k, v)), strict=True)
    apart = [_token_by_token(*piece, 6, 2) for piece in pieces if piece[0].shape[1]]
    assert_close(packed, torch.cat(apart, 1) if apart else q)


@pytest.mark.parametrize(("window", "sinks"), [(8, 0), (128, 4)])
@pytest.mark.parametrize("lengths", [None, [4096, 4000]], ids=["whole", "ragged"])
def test_work_grows_with_tokens_times_window(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int] | None, window: int, sinks: int
) -> None:
    scores: list[int] = []
    genuine = torch.nn.functional.scaled_dot_product_attention

    def counting(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        scores.append(q.shape[0] * q.shape[-2] * k.shape[-2])
        return genuine(q, k, v, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    tokens = 4096
    q, k, v = (torch.zeros(len(lengths or [0]), tokens, 1, 4) for _ in range(3))
    if lengths is None:
        window_attention(LaidOut(q, k, v), window=window, sinks=sinks)
    else:
        window_attention(LaidOut(q[:, :3990], k, v, lengths=torch.tensor(lengths)), window=window, sinks=sinks)
    assert 0 < sum(scores) <= len(q) * tokens * (2 * max(window, 64) + sinks)


def test_wrong_arguments_are_named() -> None:
    q, k, v = _qkv(5, 5)
    with pytest.raises(OptionsError, match="window = 0, sinks = 0"):
        window_attention(LaidOut(q, k, v), window=0)
    with pytest.raises(OptionsError, match="sinks = -1"):
        window_attention(LaidOut(q, k, v), window=3, sinks=-1)
    with pytest.raises(ShapeError, match="multiple of the key heads"):
        window_attention(LaidOut(q[:, :, :3], k, v), window=3)
    for wrong in ([5, 4], [6, 5]):
        with pytest.raises(ShapeError, match=r"window_attention: lengths = .*between the 5 queries and the 5 rows"):
            window_attention(LaidOut(q, k, v, lengths=torch.tensor(wrong)), window=3)
    with pytest.raises(ShapeError, match=r"lengths must be \[batch\]"):
        window_attention(LaidOut(q, k, v, lengths=torch.tensor([5])), window=3)
    with pytest.raises(ShapeError, match="cu_seqlens and lengths"):
        window_attention(LaidOut(q, k, v, lengths=torch.tensor([5, 5]), cu_seqlens=torch.tensor([0, 5])), window=3)
    with pytest.raises(KernelUnavailableError, match=r'window_attention.*"triton"'):
        window_attention(LaidOut(q, k, v), window=3, impl="triton")
    with pytest.raises(OptionsError, match="greater than or equal to 1"):
        PLUGIN.parse_options({"window": 0})


@pytest.mark.parametrize(("window", "sinks"), [(8, 0), (8, 3), (3, 10), (1, 0)])
def test_dense_as_long_as_nothing_is_dropped(window: int, sinks: int) -> None:
    longest = PLUGIN.dense_up_to(PLUGIN.parse_options({"window": window, "sinks": sinks}), LayerInfo())
    q, k, v = _qkv(longest + 1, longest + 1)
    full = window_attention(LaidOut(q, k, v), window=longest + 1)
    short = window_attention(LaidOut(q, k, v), window=window, sinks=sinks)
    assert_close(short[:, :longest], full[:, :longest])
    assert not torch.allclose(short[:, longest], full[:, longest])


def test_cache_holds_sinks_and_a_ring_of_the_window() -> None:
    mixer, x = _build(window=4, sinks=2), torch.randn(1, 23, 24)
    with torch.no_grad():
        _, state = mixer(x[:, :9], state=mixer.init_state(1, 1000), ctx=Context())
        for t in range(9, 23):
            _, state = mixer.step(x[:, t], state=state, ctx=Context())
        _, keys, _ = mixer.project(x, torch.arange(23)[None])
    assert state.tensors["k"].shape == (1, 6, 2, 8)
    held = [0, 1, 22, 19, 20, 21]  # token t at 2 + (t - 2) % 4
    assert_close(state.tensors["k"][0], keys[0, held])


@pytest.mark.parametrize("pieces", [[90, 1, 9], [3, 97], [1] * 10 + [90], [50, 50]], ids=str)
def test_a_long_piece_after_a_short_state(pieces: list[int]) -> None:
    mixer, x = _build(window=5, sinks=7), torch.randn(2, 100, 24)
    state, outputs = mixer.init_state(2, 100), []
    with torch.no_grad():
        for piece in x.split(pieces, 1):
            out, state = mixer(piece, state=state, ctx=Context())
            outputs.append(out)
        assert_close(torch.cat(outputs, 1), mixer(x, ctx=Context())[0], rtol=1e-5, atol=1e-5)


def test_gradients_flow_through_a_state() -> None:
    mixer, x = _build(window=4, sinks=1), torch.randn(1, 12, 24)
    whole, (first, second) = x.clone().requires_grad_(), (x[:, :7].clone().requires_grad_(), x[:, 7:])
    mixer(whole, ctx=Context())[0][:, 7:].square().sum().backward()
    _, state = mixer(first, state=mixer.init_state(1, 12), ctx=Context())
    mixer(second, state=state, ctx=Context())[0].square().sum().backward()
    assert_close(first.grad, whole.grad[:, :7])


@pytest.mark.parametrize(("window", "sinks", "context"), [(64, 0, 512), (64, 4, 512), (16, 40, 512), (256, 0, 128)])
def test_matmul_flops_are_what_the_band_needs(
    monkeypatch: pytest.MonkeyPatch, window: int, sinks: int, context: int
) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    with FlopCounterMode(display=False) as counter:
        _build(window=window, sinks=sinks)(torch.randn(1, context, 24), ctx=Context())
    index = torch.arange(context)
    seen = ops.window_mask(index, index, window=window, sinks=sinks).sum().item()
    unseen = 4 * SHAPE.n_heads * (context**2 - seen) * SHAPE.head_dim  # which the reference computes and then masks
    options = PLUGIN.parse_options({"window": window, "sinks": sinks})
    flops = PLUGIN.flops(options, SHAPE, LayerInfo(), phase="prefill", context=context)
    assert flops.matmul == pytest.approx(counter.get_total_flops() - unseen, rel=1e-9)


@pytest.mark.parametrize(("context", "rows"), [(1, 1), (67, 67), (68, 68), (69, 68), (100_000, 68)])
def test_decode_costs_stop_at_the_window(context: int, rows: int) -> None:
    options, layer = PLUGIN.parse_options({"window": 64, "sinks": 4}), LayerInfo()
    projections = 2 * PLUGIN.params(options, SHAPE, layer)
    assert PLUGIN.flops(options, SHAPE, layer, phase="decode", context=context).matmul == projections + 4 * rows * 4 * 8
    assert sum(row.nbytes(context) for row in PLUGIN.state(options, SHAPE, layer)) == rows * 2 * 2 * 8 * 4
    assert PLUGIN.traffic(options, SHAPE, layer, context=context).read_bytes == rows * 2 * 2 * 8 * 4
