"""Six mixers of the field keep the laws of the contract, and compute what their papers write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import field_references as references
import pytest
import torch
from field_dsa import DsaPlugin
from field_h2o import H2oPlugin
from field_mamba1 import Mamba1Plugin
from field_mla import MlaPlugin
from field_sink import SinkPlugin
from field_ttt import TttPlugin
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from archsearch import ArchSpec, ModelSpec, load_registry
from archsearch.errors import SpecError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, HybridLM, Mixer
from archsearch.model.recorded import RecordedTeacher
from archsearch.testing import MixerConformance
from archsearch.testing.reads import step_reads

TOP_K = 6
SHAPE = ModelShape(d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, dtype="float32")


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestMla(MixerConformance):
    plugin = MlaPlugin()
    shape = SHAPE


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestMamba1(MixerConformance):
    plugin = Mamba1Plugin()
    shape = SHAPE


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestTtt(MixerConformance):
    plugin = TttPlugin()
    shape = SHAPE


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestSink(MixerConformance):
    plugin = SinkPlugin()
    shape = SHAPE


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestDsa(MixerConformance):
    plugin = DsaPlugin()
    shape = SHAPE


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestH2o(MixerConformance):
    plugin = H2oPlugin()
    shape = SHAPE


MIXERS = {
    "mla": (MlaPlugin(), {"kv_rank": 6, "rope_dim": 4}, references.mla),
    "mamba1": (Mamba1Plugin(), {"state_dim": 4, "conv": 3}, references.mamba1),
    "ttt": (TttPlugin(), {"mini_batch": 6}, references.ttt),
    "dsa": (DsaPlugin(), {"top_k": 5, "index_heads": 2, "index_dim": 4}, references.dsa),
    "sink": (SinkPlugin(), {"window": 6, "rope": 0.5}, references.sink),
    "h2o": (H2oPlugin(), {"heavy": 4, "recent": 3}, partial(references.h2o, prompt=1000)),
}


def build(name: str) -> Mixer:
    """A layer with no weight at its first value, in training mode."""
    plugin, values, _ = MIXERS[name]
    torch.manual_seed(0)
    mixer = plugin.build(plugin.parse_options(values), SHAPE, LayerInfo(index=1, depth=4))
    with torch.no_grad():
        for weight in mixer.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return mixer


def tokens(count: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, count, SHAPE.d_model, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("positions", [None, [2 * t + 5 - 3 * (t % 3) for t in range(20)]], ids=["in-order", "moved"])
@pytest.mark.parametrize("name", MIXERS)
def test_a_layer_computes_what_the_paper_writes(name: str, positions: list[int] | None) -> None:
    mixer, x = build(name).eval(), tokens(20)
    ctx = Context(positions=None if positions is None else torch.tensor([positions]))
    with torch.no_grad():
        y, _ = mixer(x, ctx=ctx)
    assert_close(
        y[0].double(), MIXERS[name][2](mixer, x[0].double(), positions or list(range(20))), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("prompt", [0, 3, 7, 8, 15])
def test_h2o_keeps_what_the_paper_keeps(prompt: int) -> None:
    mixer, x, ctx = build("h2o").eval(), tokens(40), Context(want_state=True)
    state, outputs = mixer.init_state(1, 40), []
    with torch.no_grad():
        if prompt:
            y, state = mixer(x[:, :prompt], state=state, ctx=ctx)
            outputs.append(y[0])
        for t in range(prompt, 40):
            y, state = mixer.step(x[:, t], state=state, ctx=ctx)
            outputs.append(y)
    expected = references.h2o(mixer, x[0].double(), list(range(40)), prompt)
    assert_close(torch.cat(outputs).double(), expected, rtol=1e-4, atol=1e-5)


def test_h2o_reads_a_second_prompt_as_it_reads_tokens_one_by_one_where_nothing_is_put_out() -> None:
    mixer, x, ctx = build("h2o").eval(), tokens(9, 2), Context(want_state=True)
    with torch.no_grad():
        _, once = mixer(x[:, :5], state=mixer.init_state(2, 9), ctx=ctx)
        _, whole = mixer(x[:, 5:7], state=once.clone(), ctx=ctx)
        _, single = mixer.step(x[:, 5], state=once, ctx=ctx)
        _, single = mixer.step(x[:, 6], state=single, ctx=ctx)
    for name, tensor in whole.tensors.items():
        assert_close(single.tensors[name], tensor)


@pytest.mark.parametrize("count", [9, 10, 30])
def test_h2o_reads_one_token_alike_as_a_prompt_and_as_a_step(count: int) -> None:
    mixer, x, ctx = build("h2o").eval(), tokens(count + 12, 2), Context(want_state=True)
    with torch.no_grad():
        _, state = mixer(x[:, :count], state=mixer.init_state(2, count + 12), ctx=ctx)
        prompts, steps = state.clone(), state
        for t in range(count, count + 12):
            by_prompt, prompts = mixer(x[:, t : t + 1], state=prompts, ctx=ctx)
            by_step, steps = mixer.step(x[:, t], state=steps, ctx=ctx)
            assert_close(by_step, by_prompt[:, 0])


@pytest.mark.parametrize("name", MIXERS)
def test_gradients_of_packed_sequences_are_those_of_each_alone(name: str) -> None:
    mixer, x, lengths = build(name).eval(), tokens(31), [7, 0, 1, 23, 0]
    upstream = torch.randn(1, 31, SHAPE.d_model, generator=torch.Generator().manual_seed(2))
    packed, _ = mixer(x, ctx=Context(cu_seqlens=torch.tensor([0, *lengths]).cumsum(0)))
    trained = [weight for weight in mixer.parameters() if weight.requires_grad]
    together = torch.autograd.grad((packed * upstream).sum(), trained, allow_unused=True)
    alone = [mixer(part, ctx=Context())[0] for part in x.split(lengths, 1) if part.shape[1]]
    apart = torch.autograd.grad((torch.cat(alone, 1) * upstream).sum(), trained, allow_unused=True)
    for one, other in zip(together, apart, strict=True):
        if one is not None or other is not None:
            assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_packed_sequences_with_a_state_are_refused(name: str) -> None:
    mixer, x = build(name), tokens(4)
    with pytest.raises(SpecError, match="packed sequences"):
        mixer(x, state=mixer.init_state(1, 4), ctx=Context(cu_seqlens=torch.tensor([0, 2, 4]), want_state=True))


@pytest.mark.parametrize("name", ["mla", "dsa", "h2o", "sink"])
def test_tokens_past_the_capacity_are_refused(name: str) -> None:
    mixer, x, ctx = build(name).eval(), tokens(9), Context(want_state=True)
    with pytest.raises(SpecError, match="capacity of 8"):
        mixer(x, state=mixer.init_state(1, 8), ctx=ctx)
    _, full = mixer(x[:, :8], state=mixer.init_state(1, 8), ctx=ctx)
    with pytest.raises(SpecError, match="capacity of 8"):
        mixer.step(x[:, 8], state=full, ctx=ctx)


@pytest.mark.parametrize("held", [0, 1, 20])
@pytest.mark.parametrize("name", MIXERS)
def test_no_tokens_leave_a_state_as_it_was(name: str, held: int) -> None:
    mixer, ctx = build(name).eval(), Context(want_state=True)
    with torch.no_grad():
        state = mixer.init_state(2, 21)
        if held:
            _, state = mixer(tokens(held, 2), state=state, ctx=ctx)
        y, after = mixer(tokens(0, 2), state=state.clone(), ctx=ctx)
        going_on = [mixer.step(tokens(1, 2)[:, 0], state=one.clone(), ctx=ctx)[0] for one in (state, after)]
    assert y.shape == (2, 0, SHAPE.d_model)
    assert after.lengths.tolist() == [held, held]
    assert_close(going_on[1], going_on[0])


@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("name", MIXERS)
def test_flops_are_those_that_are_counted(name: str, count: int) -> None:
    plugin, values, _ = MIXERS[name]
    options, mixer, x, ctx = plugin.parse_options(values), build(name), tokens(count), Context(want_state=True)
    with torch.no_grad():
        _, state = mixer.eval()(x[:, 1:], state=mixer.init_state(1, count), ctx=ctx)
        counted = {
            "decode": products(lambda: mixer.step(x[:, 0], state=state, ctx=ctx)),
            "prefill": products(lambda: mixer(x, ctx=Context())),
            "train": products(lambda: mixer.train()(x, ctx=Context())),
        }
    for phase, seen in counted.items():
        said = plugin.flops(options, SHAPE, LayerInfo(index=1, depth=4), phase=phase, context=count).matmul
        assert 0.5 <= seen / said <= 2, f"{phase}: counts {seen}, says {said}"


def products(run: Callable[[], object]) -> int:
    """FLOPs of the matrix products of a call, those that a mask throws away too."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("size", [1, 5, 16])
def test_ttt_writes_on_the_mean_what_it_says(size: int) -> None:
    plugin = TttPlugin()
    options, layer = plugin.parse_options({"mini_batch": size}), LayerInfo()
    mixer = plugin.build(options, SHAPE, layer).eval()
    seen = [step_reads(mixer, tokens(count)).written_bytes for count in range(17, 17 + size)]
    said = plugin.traffic(options, SHAPE, layer, context=32)
    assert sum(seen) / size == pytest.approx(said.written_bytes)
    assert max(seen) == said.most_written


def test_ttt_trains_its_first_weights_through_a_state() -> None:
    mixer = build("ttt")
    y, _ = mixer(tokens(9), ctx=Context(want_state=True))
    y.square().sum().backward()
    assert mixer.first.grad.abs().min() > 0


def _overlap(student: HybridLM, teacher: RecordedTeacher, batch: torch.Tensor) -> float:
    """The share of the teacher's best tokens that the student attends to, over the tokens that must choose."""
    recorded, shares = RecordedTeacher(student, batch), []
    for layer in range(2):
        best = teacher.attention(layer)[:, TOP_K:].topk(TOP_K).indices
        shares.append((recorded.attention(layer)[:, TOP_K:] > 0).gather(-1, best).float().mean())
    return float(sum(shares) / 2)


@pytest.mark.parametrize("taught", [True, False], ids=["by-a-teacher", "by-itself"])
def test_the_indexer_learns_what_attention_finds(taught: bool) -> None:
    registry = load_registry([DsaPlugin()])
    model = ModelSpec(d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, vocab_size=40, channel_mixer="none")
    torch.manual_seed(0)
    full = HybridLM(ArchSpec.parse("full full", registry, model), registry)
    student = HybridLM(ArchSpec.parse(2 * f"field-dsa(top_k={TOP_K}, rope=0.0) ", registry, model), registry)
    with torch.no_grad():
        for block in full.blocks:
            block.mixer.qkv.weight[:24] *= 4  # queries and keys of an attention that has made up its mind
    student.load_state_dict(full.state_dict(), strict=False)
    batch, held_out = torch.randint(40, (2, 8, 32), generator=torch.Generator().manual_seed(1))
    before = _overlap(student, RecordedTeacher(full, held_out), held_out)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(60):
        ctx = Context(teacher=RecordedTeacher(full, batch) if taught else None)
        student.train()(batch, ctx=ctx)
        optimizer.zero_grad()
        ctx.losses["field_dsa_index"].backward()
        optimizer.step()
    assert _overlap(student, RecordedTeacher(full, held_out), held_out) > before + 0.15


def test_the_indexer_adds_its_loss_in_training_alone() -> None:
    mixer, ctx = build("dsa"), Context()
    mixer.eval()(tokens(20), ctx=ctx)
    assert not ctx.losses
    mixer.train()(tokens(20), ctx=ctx)
    assert set(ctx.losses) == {"field_dsa_index"}


def test_a_teacher_of_another_layer_is_not_asked() -> None:
    class Teacher:
        asked: ClassVar[list[int]] = []

        def attention(self, layer: int) -> torch.Tensor | None:
            self.asked.append(layer)
            return torch.full((1, 20, 20), 1.0).tril() / torch.arange(1, 21)[:, None]

        def output(self, layer: int) -> torch.Tensor | None:
            raise AssertionError

    mixer, by_itself, taught = build("dsa"), Context(), Context(teacher=Teacher())
    mixer(tokens(20), ctx=by_itself)
    mixer(tokens(20), ctx=taught)
    assert Teacher.asked == [1]
    assert taught.losses["field_dsa_index"] != by_itself.losses["field_dsa_index"]
