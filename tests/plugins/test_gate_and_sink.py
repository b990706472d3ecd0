"""The gated output of full attention and of the window, and the window's learned sink logit."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.full import FullPlugin
from archsearch_plugins.sliding import SlidingPlugin
from archsearch_plugins.sliding.ops import window_attention, window_attention_step
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import KernelUnavailableError
from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context
from archsearch.model.attention import AttentionMixer
from archsearch.ops import band
from archsearch.ops.laid_out import LaidOut

SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")


def _build(plugin: MixerPlugin, **options: object) -> AttentionMixer:  # type: ignore[type-arg]
    torch.manual_seed(0)
    mixer = plugin.build(plugin.parse_options(options), SHAPE, LayerInfo())
    assert isinstance(mixer, AttentionMixer)
    return mixer


def _qkv(queries: int, keys: int) -> list[Tensor]:
    torch.manual_seed(queries * 1000 + keys)
    sizes = [(queries, 4), (keys, 2), (keys, 2)]
    return [torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True) for size in sizes]


def _token_by_token(q: Tensor, k: Tensor, v: Tensor, sink: Tensor, window: int, sinks: int) -> Tensor:
    """gpt-oss, arXiv 2508.10925: exp(sink) joins the denominator."""
    offset, rows = k.shape[1] - q.shape[1], []
    for t in range(offset, k.shape[1]):
        seen = sorted({*range(max(0, t - window + 1), t + 1), *range(min(sinks, t + 1))})
        keys, values = (x[:, seen].repeat_interleave(2, 2) for x in (k, v))
        weights = ((q[:, t - offset, None] * keys).sum(-1) * 8**-0.5).exp()
        rows.append((weights[..., None] * values).sum(1) / (sink.exp() + weights.sum(1))[..., None])
    return torch.stack(rows, 1)


@pytest.mark.parametrize("plugin", [FullPlugin(), SlidingPlugin()], ids=["full", "sliding"])
def test_the_output_is_gated_by_a_sigmoid_of_the_token(plugin: MixerPlugin) -> None:  # type: ignore[type-arg]
    gated, plain = _build(plugin, output_gate=True), _build(plugin)
    plain.load_state_dict(gated.state_dict(), strict=False)
    assert gated.output_gate is not None
    x = torch.randn(2, 9, 24)
    heads: list[Tensor] = []
    plain.out.register_forward_pre_hook(lambda _, inputs: heads.append(inputs[0]))
    plain(x, ctx=Context())
    wanted = gated.out(heads[0] * torch.sigmoid(x @ gated.output_gate.weight.T))
    assert_close(gated(x, ctx=Context())[0], wanted)


@pytest.mark.parametrize("form", ["auto", "reference", "_dense", "_banded"])
@pytest.mark.parametrize(
    ("window", "sinks", "queries", "keys"),
    [(1, 0, 1, 1), (8, 3, 150, 150), (64, 0, 129, 140), (5, 7, 131, 140), (200, 0, 30, 30), (8, 0, 1, 150)],
)
def test_the_sink_logit_joins_the_sum_of_the_softmax(
    form: str, window: int, sinks: int, queries: int, keys: int
) -> None:
    tensors, sink = _qkv(queries, keys), torch.randn(4, dtype=torch.float64, requires_grad=True)
    expected = _token_by_token(*tensors, sink, window, sinks)
    if form.startswith("_"):
        actual = getattr(band, form)(*tensors, window, sinks, None, sink)
    else:
        actual = window_attention(LaidOut(*tensors), window=window, sinks=sinks, sink_logits=sink, impl=form)
    assert_close(actual, expected)
    weights = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * weights).sum(), [*tensors, sink]),
        torch.autograd.grad((expected * weights).sum(), [*tensors, sink]),
        strict=True,
    ):
        assert_close(found, wanted)


@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_a_decoded_token_has_the_sink_logit_too(impl: str) -> None:
    q, k, v = _qkv(1, 20)
    sink = torch.randn(4, dtype=torch.float64)
    for lengths in ([20, 20], [20, 7]):
        found = window_attention_step(q[:, 0], k, v, torch.tensor(lengths), sink_logits=sink, impl=impl)
        for row, length in enumerate(lengths):
            one = [x[row : row + 1] for x in (q, k[:, :length], v[:, :length])]
            assert_close(found[row : row + 1], _token_by_token(*one, sink, 20, 0)[:, 0])


def test_a_sink_logit_of_minus_infinity_is_the_plain_window() -> None:
    tensors = _qkv(40, 40)
    plain = window_attention(LaidOut(*tensors), window=7, sinks=2)
    sink = torch.full((4,), -torch.inf, dtype=torch.float64)
    assert_close(window_attention(LaidOut(*tensors), window=7, sinks=2, sink_logits=sink), plain)


def test_no_kernel_takes_a_sink_logit() -> None:
    tensors = _qkv(4, 4)
    with pytest.raises(KernelUnavailableError, match="no such form"):
        window_attention(LaidOut(*tensors), window=7, sink_logits=torch.zeros(4), impl="triton")
