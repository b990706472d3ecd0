"""Full attention: the op against a loop over tokens, the rotary embedding, the cache, and the costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from archsearch_plugins.full import FullPlugin
from archsearch_plugins.full.ops import full_attention, full_attention_step
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from archsearch.errors import KernelUnavailableError, OptionsError, SpecError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer
from archsearch.ops.cache import head_major, zero_rows
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import ShapeError

PLUGIN = FullPlugin()
SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")


def _qkv(queries: int, keys: int, *, heads: int = 4, kv_heads: int = 2, batch: int = 2, dim: int = 8) -> list[Tensor]:
    torch.manual_seed(queries * 1000 + keys)
    sizes = [(queries, heads), (keys, kv_heads), (keys, kv_heads)]
    return [torch.randn(batch, *size, dim, dtype=torch.float64, requires_grad=True) for size in sizes]


def _token_by_token(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    group, offset = q.shape[2] // k.shape[2], k.shape[1] - q.shape[1]
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    rows = []
    for t in range(q.shape[1]):
        seen = slice(0, offset + t + 1)
        keys, values = (x[:, seen].repeat_interleave(group, 2) for x in (k, v))
        weights = ((q[:, t, None] * keys).sum(-1) * scale).softmax(1)
        rows.append((weights[..., None] * values).sum(1))
    return torch.stack(rows, 1)


def _build(shape: ModelShape = SHAPE, **options: object) -> Mixer:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(options), shape, LayerInfo())


@pytest.mark.parametrize("impl", ["auto", "chunkwise", "reference"])
@pytest.mark.parametrize(
    ("queries", "keys", "heads", "kv_heads", "scale"),
    [(1, 1, 4, 2, None), (17, 17, 4, 4, None), (17, 17, 4, 1, 0.5), (5, 17, 4, 2, None), (1, 17, 4, 2, None)],
    ids=["T1", "ungrouped", "one-key-head-scaled", "last-5-of-17", "last-of-17"],
)
def test_op_equals_token_by_token(
    impl: str, queries: int, keys: int, heads: int, kv_heads: int, scale: float | None
) -> None:
    tensors = _qkv(queries, keys, heads=heads, kv_heads=kv_heads)
    expected = _token_by_token(*tensors, scale)
    actual = full_attention(LaidOut(*tensors), scale=scale, impl=impl)
    weights = torch.randn_like(expected)
    assert_close(actual, expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * weights).sum(), tensors),
        torch.autograd.grad((expected * weights).sum(), tensors),
        strict=True,
    ):
        assert_close(found, wanted)


@pytest.mark.parametrize("impl", ["chunkwise", "reference"])
@pytest.mark.parametrize("lengths", [[4, 0, 1, 7], [0, 0], []], ids=["uneven", "all-empty", "none"])
def test_packed_sequences(impl: str, lengths: list[int]) -> None:
    q, k, v = _qkv(sum(lengths), sum(lengths), batch=1)
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    packed = full_attention(LaidOut(q, k, v, cu_seqlens=bounds), impl=impl)
    pieces = [x.split(lengths, 1) for x in (q, k, v)] if lengths else []
    apart = [_token_by_token(*piece) for piece in zip(*pieces, strict=True) if piece[0].shape[1]]
    assert_close(packed, torch.cat(apart, 1) if apart else q)


@pytest.mark.parametrize("impl", ["auto", "chunkwise", "reference"])
@pytest.mark.parametrize("filled", [[5, 17, 9], [11, 11, 11]], ids=["ragged", "alike"])
def test_tokens_after_cached_ones(impl: str, filled: list[int]) -> None:
    tensors = _qkv(5, 17, batch=3)
    dead = torch.arange(17) >= torch.tensor(filled)[:, None]
    q, k, v = tensors[0], *(x.masked_fill(dead[..., None, None], torch.nan) for x in tensors[1:])
    actual = full_attention(LaidOut(q, k, v, lengths=torch.tensor(filled)), impl=impl)
    rows = [(tensors[0][i, None], *(x[i, None, :length] for x in tensors[1:])) for i, length in enumerate(filled)]
    expected = torch.cat([_token_by_token(*row) for row in rows])
    weights = torch.randn_like(expected)
    assert_close(actual, expected)
    gradients = (torch.autograd.grad((x * weights).sum(), tensors) for x in (actual, expected))
    for got, right in zip(*gradients, strict=True):
        assert_close(got, right)


def test_tokens_after_ragged_caches_copy_none_of_them() -> None:
    q, k, v = (x.detach() for x in _qkv(2, 4000, batch=2, kv_heads=4))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        full_attention(LaidOut(q, k, v, lengths=torch.tensor([4000, 3000])), impl="chunkwise")
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert 0 < largest < k.numel() * k.element_size() // 8


def test_bfloat16_reference_rounds_only_its_output() -> None:
    q, k, v = (x.detach().bfloat16() for x in _qkv(33, 33))
    exact = full_attention(LaidOut(q.double(), k.double(), v.double()), impl="reference")
    assert_close(full_attention(LaidOut(q, k, v), impl="reference"), exact.bfloat16(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 5, 8), (1, 5, 2, 8), (1, 5, 2, 8)), "batch, tokens, heads, head_dim"),
        (((1, 5, 4, 8), (1, 5, 3, 8), (1, 5, 3, 8)), "multiple of the key heads"),
        (((1, 5, 4, 8), (1, 5, 2, 8), (1, 6, 2, 8)), "must agree"),
        (((1, 6, 4, 8), (1, 5, 2, 8), (1, 5, 2, 8)), "more queries than keys"),
    ],
    ids=["rank", "groups", "values", "queries"],
)
def test_shapes_that_do_not_fit_are_named(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        full_attention(LaidOut(*(torch.zeros(shape) for shape in shapes)))
    assert str(list(shapes[0])) in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "bounds", "message"),
    [(2, [0, 5], "batch of 1"), (1, [0, 4], "rise from 0"), (1, [1, 5], "rise from 0"), (1, [0, 4, 3, 5], "rise from")],
    ids=["batch", "short", "late", "falling"],
)
def test_bounds_that_do_not_fit_are_named(batch: int, bounds: list[int], message: str) -> None:
    q, k, v = _qkv(5, 5, batch=batch)
    with pytest.raises(ShapeError, match=message):
        full_attention(LaidOut(q, k, v, cu_seqlens=torch.tensor(bounds)))


def test_kernels_for_float64_are_refused() -> None:
    q, k, v = _qkv(3, 3)
    with pytest.raises(KernelUnavailableError, match=r'full_attention.*"triton".*cannot run here.*"chunkwise"'):
        full_attention(LaidOut(q, k, v), impl="triton")
    with pytest.raises(OptionsError, match="did you mean"):
        full_attention(LaidOut(q, k, v), impl="chunkwize")


def test_asking_the_environment_for_kernels_leaves_float64_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = _qkv(3, 3)
    expected = full_attention(LaidOut(q, k, v), impl="chunkwise")
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    assert torch.equal(full_attention(LaidOut(q, k, v)), expected)


@pytest.mark.parametrize(("rope", "moves"), [(0.0, False), (0.25, True), (1.0, True)])
def test_order_of_earlier_tokens_shows_only_through_the_rotation(rope: float, moves: bool) -> None:
    mixer, x = _build(rope=rope), torch.randn(1, 6, 24)
    last, swapped = (mixer(x[:, order], ctx=Context())[0][:, -1] for order in ([0, 1, 2, 3, 4, 5], [3, 1, 0, 2, 4, 5]))
    assert torch.allclose(last, swapped, atol=1e-6) is not moves


@pytest.mark.parametrize("rope", [0.25, 1.0])
def test_rotation_is_relative_even_a_million_tokens_on(rope: float) -> None:
    mixer, x = _build(rope=rope), torch.randn(1, 9, 24)
    near, far = (mixer(x, ctx=Context(positions=torch.arange(9)[None] + start))[0] for start in (0, 1_000_003))
    assert_close(far, near, rtol=1e-5, atol=1e-5)


def test_rotation_turns_pairs_by_position_over_frequency() -> None:
    from archsearch.ops.rotary import Rotary

    x = torch.randn(1, 3, 1, 12, dtype=torch.float64)
    turned = Rotary(12, fraction=0.5, base=100.0)(torch.tensor([[0, 5, 2]]), x)
    assert torch.equal(turned[:, 0], x[:, 0])
    assert torch.equal(turned[..., 6:], x[..., 6:])
    pairs = torch.complex(x[0, :, 0, 0:6:2], x[0, :, 0, 1:6:2])
    angles = torch.tensor([0.0, 5.0, 2.0], dtype=torch.float64)[:, None] * 100.0 ** -(
        torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64) / 6
    )
    expected = pairs * torch.polar(torch.ones_like(angles), angles)
    assert_close(torch.complex(turned[0, :, 0, 0:6:2], turned[0, :, 0, 1:6:2]), expected)


@pytest.mark.parametrize("head_dim", [7, 10])
@pytest.mark.parametrize("rope", [0.25, 1.0])
def test_head_dims_that_are_odd_or_no_power_of_two(head_dim: int, rope: float) -> None:
    mixer = _build(replace(SHAPE, head_dim=head_dim), rope=rope)
    assert mixer(torch.randn(2, 5, 24), ctx=Context())[0].shape == (2, 5, 24)


def test_key_heads_are_the_models_unless_given() -> None:
    assert PLUGIN.state(PLUGIN.parse_options({}), SHAPE, LayerInfo())[0].row_shape == (2, 8)
    assert PLUGIN.state(PLUGIN.parse_options({"n_kv_heads": 4}), SHAPE, LayerInfo())[0].row_shape == (4, 8)
    with pytest.raises(OptionsError, match="n_kv_heads = 3 does not divide n_heads = 4"):
        PLUGIN.params(PLUGIN.parse_options({"n_kv_heads": 3}), SHAPE, LayerInfo())


def test_a_state_that_is_full_and_a_packed_batch_with_a_state_are_refused() -> None:
    mixer, x = _build(), torch.randn(1, 6, 24)
    with pytest.raises(SpecError, match="6 more tokens after 0 exceed the state's capacity of 5"):
        mixer(x, state=mixer.init_state(1, 5), ctx=Context())
    with pytest.raises(SpecError, match="cannot share a state"):
        mixer(x, state=mixer.init_state(1, 9), ctx=Context(cu_seqlens=torch.tensor([0, 2, 6])))


@pytest.mark.filterwarnings("error")
def test_autocast_runs_with_normed_heads() -> None:
    mixer, x = _build(qk_norm=True), torch.randn(2, 9, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mixer(x, ctx=Context())[0]
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), mixer(x, ctx=Context())[0], rtol=0.05, atol=0.02)


def test_gradients_flow_through_a_state() -> None:
    mixer, x = _build(), torch.randn(1, 8, 24)
    whole, (first, second) = x.clone().requires_grad_(), (x[:, :5].clone().requires_grad_(), x[:, 5:])
    mixer(whole, ctx=Context())[0][:, 5:].square().sum().backward()
    _, state = mixer(first, state=mixer.init_state(1, 8), ctx=Context())
    mixer(second, state=state, ctx=Context())[0].square().sum().backward()
    assert_close(first.grad, whole.grad[:, :5])


@pytest.mark.parametrize(
    "options", [{}, {"n_kv_heads": 1, "qk_norm": True}, {"rope": 0.0}], ids=["default", "one-key-head", "nope"]
)
@pytest.mark.parametrize("context", [2, 64, 100])
def test_matmul_flops_are_what_is_computed(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], context: int
) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    mixer, parsed = _build(**options), PLUGIN.parse_options(options)
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(1, context, 24), ctx=Context())
    masked = 4 * SHAPE.n_heads * context * (context - 1) / 2 * SHAPE.head_dim  # which the reference computes too
    flops = PLUGIN.flops(parsed, SHAPE, LayerInfo(), phase="prefill", context=context)
    assert flops.matmul == pytest.approx(counter.get_total_flops() - masked, rel=1e-9)


def test_one_decoded_token_costs_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = _build()
    with torch.no_grad():
        _, state = mixer(torch.randn(1, 63, 24), state=mixer.init_state(1, 64), ctx=Context())
        monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
        with FlopCounterMode(display=False) as counter:
            mixer.step(torch.randn(1, 24), state=state, ctx=Context())
    flops = PLUGIN.flops(PLUGIN.parse_options({}), SHAPE, LayerInfo(), phase="decode", context=64)
    assert flops.matmul == counter.get_total_flops()
    assert flops.matmul == 4 * 64 * 4 * 8 + 2 * 24 * 8 * (4 + 2 + 2 + 4)


def test_costs_of_a_known_model() -> None:
    shape = ModelShape(d_model=2048, n_heads=16, n_kv_heads=4, head_dim=128, dtype="bfloat16")
    options, layer, context = PLUGIN.parse_options({}), LayerInfo(), 32768
    assert PLUGIN.params(options, shape, layer) == 2 * 2048 * 2048 + 2 * 2048 * 512
    assert sum(row.nbytes(context) for row in PLUGIN.state(options, shape, layer)) == 2 * context * 4 * 128 * 2
    traffic = PLUGIN.traffic(options, shape, layer, context=context)
    assert (traffic.read_bytes, traffic.written_bytes) == (4 * context * 128 * 4, 4 * 128 * 4)
    prefill = PLUGIN.flops(options, shape, layer, phase="prefill", context=context)
    assert prefill.matmul == 2 * 16 * context * (context + 1) * 128 + 2 * context * PLUGIN.params(options, shape, layer)
    halved = PLUGIN.state(options, replace(shape, dtype="float8_e4m3fn"), layer)
    assert sum(row.nbytes(context) for row in halved) == context * 4 * 128 * 2


@pytest.mark.parametrize("lengths", ["alike", "ragged"])
def test_a_step_over_a_cache_of_any_layout(lengths: str) -> None:
    rows = 10
    q, k, v = torch.randn(2, 4, 8), torch.randn(2, rows, 2, 8), torch.randn(2, rows, 2, 8)
    seen = torch.tensor([rows - 1, rows - 1 if lengths == "alike" else 5])
    expected = full_attention_step(*(x.double() for x in (q, k, v)), seen, impl="reference")
    by_head = head_major(2, rows, 2, 8, torch.float32, torch.device("cpu"))
    for keys in (k, by_head.clone().copy_(k)):
        assert_close(full_attention_step(q, keys, v, seen).double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_cache_is_of_zeros_in_its_own_memory(dtype: torch.dtype) -> None:
    """Which comes from numpy, in large pages."""
    shape = (2, (4 << 20) // 256, 2, 64)
    cache, other = (zero_rows(shape, dtype=dtype, device=torch.device("cpu")) for _ in range(2))
    assert (cache.shape, cache.dtype) == (shape, dtype)
    assert cache.is_contiguous()
    cache[:, 1:].fill_(1)
    assert int(cache.count_nonzero()) == cache[:, 1:].numel()
    assert not other.any()


def test_rows_of_a_head_lie_together_in_the_cache() -> None:
    """Which a decode step on a CPU reads in a third of the time."""
    state = _build().init_state(2, 9)
    assert state.tensors["k"].shape == (2, 9, 2, 8)
    assert state.clone().tensors["k"].transpose(1, 2).is_contiguous()
