"""Layers that read another's cache: what they compute, that bytes count once, and where they may stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.shared import ReaderPlugin, WriterPlugin
from torch.testing import assert_close

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, HybridLM
from archsearch.testing import MixerConformance
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products
from archsearch.testing.stack import Stack

SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
MODEL = ModelSpec(d_model=32, n_heads=4, n_kv_heads=2, vocab_size=50, channel_mixer="none")
READER, WRITER = ReaderPlugin(), WriterPlugin()


def pair(installed: Any, **values: Any) -> tuple[Any, Any]:
    """A writer and the reader behind it."""
    arch = ArchSpec.parse("shared-kv shared", installed, MODEL)
    options = READER.parse_options(values)
    layers = tuple(type(layer)(mixer=layer.mixer, options=options) for layer in arch.layers)
    torch.manual_seed(0)
    writer = WRITER.build(options, SHAPE, LayerInfo(index=0, depth=2))
    return writer.eval(), READER.build(options, SHAPE, LayerInfo(index=1, depth=2, pattern=layers)).eval()


@pytest.mark.parametrize("values", [{}, {"window": 7}, {"rope": 0.0, "qk_norm": True}], ids=str)
def test_a_reader_with_the_writers_weights_is_the_writer(values: dict[str, Any], installed: Any) -> None:
    """And the writer is full attention, or sliding (YOCO, arXiv 2405.05254, section 2)."""
    writer, reader = pair(installed, **values)
    reader.load_state_dict({name: writer.state_dict()[name] for name in reader.state_dict()})
    x, ctx = torch.randn(2, 30, 32), Context()
    wrote, read = writer(x, ctx=ctx)[0], reader(x, ctx=ctx)[0]
    assert_close(read, wrote)
    plain = installed.mixer("sliding" if "window" in values else "full")
    theirs = plain.build(plain.parse_options({"rope": 1.0, **values}), SHAPE, LayerInfo())
    qkv = torch.cat([getattr(writer, name).weight for name in "qkv"])
    norms = {name: one for name, one in writer.state_dict().items() if "norm" in name}
    theirs.load_state_dict({"qkv.weight": qkv, "out.weight": writer.out.weight, **norms})
    assert_close(wrote, theirs(x, ctx=Context())[0], rtol=1e-5, atol=1e-6)


def test_a_reader_attends_to_what_the_writer_wrote(installed: Any) -> None:
    """Its own input makes queries alone."""
    writer, reader = pair(installed, rope=0.0)
    x, y, ctx = torch.randn(1, 20, 32), torch.randn(1, 20, 32), Context()
    writer(x, ctx=ctx)
    q = (y @ reader.q.weight.T).unflatten(-1, (4, 8)).transpose(1, 2)
    k, v = ((x @ one.weight.T).unflatten(-1, (2, 8)).transpose(1, 2) for one in (writer.k, writer.v))
    o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    assert_close(reader(y, ctx=ctx)[0], o.transpose(1, 2).flatten(2) @ reader.out.weight.T, rtol=1e-5, atol=1e-6)


def test_norms_are_of_values_and_of_what_keys_and_values_are_made_from(installed: Any) -> None:
    """Gemma-3n's, without weights, and YOCO's (arXiv 2405.05254, section 2)."""
    writer, reader = pair(installed, rope=0.0, v_norm=True, kv_norm=True)
    torch.nn.init.normal_(writer.kv_norm.weight)
    x, y, ctx = torch.randn(1, 20, 32), torch.randn(1, 20, 32), Context()
    wrote, read = writer(x, ctx=ctx)[0], reader(y, ctx=ctx)[0]
    even = writer.kv_norm.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    k, v = ((even @ one.weight.T).unflatten(-1, (2, 8)).transpose(1, 2) for one in (writer.k, writer.v))
    v = v / (v.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    for layer, given, found in ((writer, x, wrote), (reader, y, read)):
        q = (given @ layer.q.weight.T).unflatten(-1, (4, 8)).transpose(1, 2)
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        assert_close(found, o.transpose(1, 2).flatten(2) @ layer.out.weight.T, rtol=1e-5, atol=1e-6)


def test_the_bytes_of_the_cache_count_once(installed: Any) -> None:
    costs = CostModel(installed)

    def state_bytes(pattern: str) -> float:
        return costs.cost(ArchSpec.parse(pattern, installed, MODEL), 1000).state_bytes

    one = state_bytes("yoco-kv")
    assert state_bytes("yoco-kv yoco yoco") == one
    assert state_bytes("yoco-kv yoco yoco-kv") == 2 * one
    assert state_bytes("shared-kv(window=10) shared-kv shared(window=10) shared") == one + one / 100


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("yoco yoco-kv", "put shared-kv(window=0, rope=1.0, rope_base=10000.0, qk_norm=false) in an earlier layer"),
        ("shared-kv shared(window=9)", "put shared-kv(window=9"),
        ("full yoco", "there is none"),
        ("parallel(a=yoco-kv, b=full) yoco", "take it out of the other mixer"),
    ],
)
def test_an_impossible_order_is_refused_with_the_remedy(pattern: str, words: str, installed: Any) -> None:
    arch = ArchSpec.parse(pattern, installed, MODEL)
    assert words in (refusal(arch, installed) or "")
    with pytest.raises(SpecError):
        HybridLM(arch, installed)


def test_the_nearest_writer_is_read_and_a_model_trains(installed: Any) -> None:
    arch = ArchSpec.parse("shared-kv full yoco-kv yoco parallel(a=yoco, b=conv)", installed, MODEL)
    assert refusal(arch, installed) is None
    model = HybridLM(arch, installed).train()
    assert model.blocks[3].mixer.source == 2
    model(torch.randint(50, (2, 12)), ctx=Context()).sum().backward()
    for index in (0, 2):
        assert model.blocks[index].mixer.k.weight.grad.abs().max() > 0


def test_layers_read_the_cache_of_the_last_layer_of_their_own_kind(installed: Any) -> None:
    """Gemma-3n: the last layers, local and global in turn, keep nothing, and what they read is not one another's."""
    arch = ArchSpec.parse("[shared-kv(window=3) shared-kv]*2 [shared(window=3) shared]*2", installed, MODEL)
    torch.manual_seed(0)
    model = HybridLM(arch, installed).eval()
    assert [block.mixer.source for block in model.blocks[4:]] == [2, 3, 2, 3]  # type: ignore[union-attr]
    tokens = torch.randint(50, (2, 8))
    whole, state = model(tokens), model.init_state(2, 8)
    assert [len(layer.mixer.tensors) for layer in state] == [2, 2, 2, 2, 0, 0, 0, 0]
    for t in range(8):
        logits, state = model.step(tokens[:, t], state)
        assert_close(logits, whole[:, t], rtol=1e-4, atol=1e-5)
    readers = [block.mixer for block in model.blocks[4:]]
    inputs, ctx, far = torch.randn(1, 8, 32), Context(), torch.randn(1, 8, 32)
    for block in model.blocks[2:4]:
        block.mixer(inputs, ctx=ctx)
    read = [reader(far, ctx=ctx)[0] for reader in readers]
    changed = inputs.clone()
    changed[:, 0] += 1
    ctx = Context()
    for block in model.blocks[2:4]:
        block.mixer(changed, ctx=ctx)
    for reader, before in zip(readers, read, strict=True):
        same = (reader(far, ctx=ctx)[0] - before).abs().amax((0, 2)) < 1e-6
        assert same.tolist() == [reader.window == 3 and t > 2 for t in range(8)]


@pytest.mark.parametrize("window", [0, 16])
def test_matmul_flops_are_those_of_the_products(window: int, installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = pair(installed, window=window)
    stack, x = Stack([writer, reader]), torch.randn(1, 64, 32)
    _, state = stack(x[:, :-1], state=stack.init_state(1, 64), ctx=Context(want_state=True))
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    counted = products(lambda: stack.step(x[:, -1], state=state, ctx=Context(want_state=True)))
    place: Any = {"phase": "decode", "context": 64}
    said = sum(plugin.flops(writer.options, SHAPE, LayerInfo(), **place).matmul for plugin in (WRITER, READER))
    assert said == pytest.approx(counted, rel=0.01)


QUICK = (
    "forward_equals_split_prefill_then_steps",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "empty_packed_batch",
    "no_token_sees_the_future",
    "gradients_are_finite_and_reach_every_parameter",
    "decode_reads_what_traffic_says",
)
"""Laws of the default run; all are tried with every preset by `make test-arena`."""


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in QUICK], ids=lambda law: law.name)
def test_a_reader_of_a_window_keeps_the_laws(law: Law) -> None:
    outcome = tried(law, Case.of(READER, {"window": 8}, tokens=45))
    assert outcome.status in ("passed", "skipped"), outcome.text


@pytest.mark.arena
class TestWriterConformance(MixerConformance):
    plugin = WRITER
    impls = ("chunkwise", "reference")


@pytest.mark.arena
class TestReaderConformance(MixerConformance):
    plugin = READER
    impls = ("chunkwise", "reference")
