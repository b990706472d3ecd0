"""Six more mixers of the field keep the laws of the contract, and compute what their papers write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import field_mom
import field_pad4
import field_parallel
import field_prefix
import field_references_b as references
import field_shift
import field_yoco
import pytest
import torch
from field_mom import MomPlugin
from field_pad4 import Pad4Plugin
from field_prefix import PrefixPlugin
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from archsearch import ArchSpec, LayerInfo, ModelShape, ModelSpec, load_registry
from archsearch.composition import figures_of
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.model import Context, HybridLM, Mixer, MixerState
from archsearch.testing import MixerConformance
from archsearch.testing.reads import step_reads

PACKAGES = (field_mom, field_pad4, field_parallel, field_prefix, field_shift, field_yoco)
REGISTRY = load_registry(PACKAGES)
SHAPE = ModelShape(d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, dtype="float32")
MODEL = ModelSpec(d_model=16, n_heads=2, n_kv_heads=1, vocab_size=30, channel_mixer="none", dtype="float32")
SIDE_BY_SIDE = "field-parallel(a=kda(conv=3), b=sliding(window=8))"


@pytest.mark.field
class TestPrefix(MixerConformance):
    plugin = PrefixPlugin()
    shape = SHAPE
    cases: ClassVar = {"four": {"prefix": 4}, "one": {"prefix": 1}}

    def test_a_state_begins_with_the_prefix(self) -> None:
        case = self.case({})
        mixer, options = case.build(), case.options
        state = mixer.init_state(3, 7)
        for name, prefix in (("k", mixer.prefix_k), ("v", mixer.prefix_v)):
            assert_close(state.tensors[name][:, : options.prefix], prefix.expand(3, -1, -1, -1))
            assert not state.tensors[name][:, options.prefix :].any()


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestMom(MixerConformance):
    plugin = MomPlugin()
    shape = SHAPE
    cases: ClassVar = {
        "two-of-four": {},
        "one-of-two": {"memories": 2, "top_k": 1},
        "unshared": {"memories": 3, "top_k": 2, "shared": False},
        "one": {"memories": 1, "top_k": 1, "shared": False},
    }


@pytest.mark.field
class TestPad4(MixerConformance):
    plugin = Pad4Plugin()
    shape = SHAPE

    @pytest.mark.parametrize("n_kv_heads", [SHAPE.n_kv_heads, SHAPE.n_heads], ids=["grouped-heads", "ungrouped-heads"])
    def test_traffic_is_told_token_by_token(self, n_kv_heads: int) -> None:
        """The mean over each block, and the most of all tokens so far."""
        case, seen = self.case({}), []
        shape = replace(self.shape, n_kv_heads=n_kv_heads)
        mixer = case.build(shape)
        figures = case.figures(shape)
        for context in range(1, 25):
            seen.append(step_reads(mixer, case.inputs(1, context)))
        for way in ("read_bytes", "written_bytes"):
            moved = [getattr(step, way) for step in seen]
            said = [figures.traffic(context=context) for context in range(1, 25)]
            assert [getattr(one, f"peak_{way}") for one in said] == [max(moved[:count]) for count in range(1, 25)]
            for first in range(4, 24, 4):
                mean = sum(moved[first : first + 4]) / 4
                assert [getattr(one, way) for one in said[first : first + 4]] == [mean] * 4


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestParallel(MixerConformance):
    plugin, registry, shape = REGISTRY.mixer("field-parallel"), REGISTRY, SHAPE
    cases: ClassVar = {
        "default": {},
        "side-by-side": REGISTRY.layer(SIDE_BY_SIDE).options.model_dump(mode="json"),
    }


@pytest.mark.field
class TestShift(MixerConformance):
    plugin, registry, shape = REGISTRY.mixer("field-shift"), REGISTRY, SHAPE


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestYocoProducer(MixerConformance):
    plugin, registry, shape = REGISTRY.mixer("field-yoco-kv"), REGISTRY, SHAPE


@pytest.mark.slow  # its built-in twin keeps the same laws in the default tests
class TestYocoReader(MixerConformance):
    plugin, registry, shape = REGISTRY.mixer("field-yoco"), REGISTRY, SHAPE


MIXERS = {
    "prefix": ("field-prefix(prefix=3)", references.prefix),
    "pad4": ("field-pad4", references.pad4),
    "mom": ("field-mom", references.mom),
    "mom-one": ("field-mom(memories=2, top_k=1, shared=false)", references.mom),
    "mom-base": ("field-mom(memories=1, top_k=1, shared=false)", references.mom),
}
PATTERNS = {
    "parallel": f"{SIDE_BY_SIDE} full",
    "parallel-of-field": "field-yoco-kv field-parallel(a=field-mom, b=field-yoco) "
    "field-parallel(a=field-prefix, b=field-pad4)",
    "shift": "field-shift full field-shift field-shift",
    "yoco": "field-yoco-kv sliding(window=5) field-yoco field-yoco-kv field-yoco",
}
LAYERS = {
    **{name: text for name, (text, _) in MIXERS.items()},
    "shift": "field-shift",
    "yoco": "field-yoco-kv",
    "parallel": SIDE_BY_SIDE,
}
IN_ORDER = list(range(20))
MOVED = [2 * t + 5 - 3 * (t % 3) for t in range(20)]


def moved_weights(module: Any) -> Any:
    """The module with no weight at its first value."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    return module


def build(text: str, index: int = 0, pattern: str | None = None) -> Mixer:
    """A layer of its own, or layer `index` of a pattern."""
    torch.manual_seed(0)
    layers = ArchSpec.parse(pattern or text, REGISTRY, MODEL).layers
    plugin = REGISTRY.mixer(layers[index].mixer)
    info = LayerInfo(index=index, depth=len(layers), resolver=REGISTRY, pattern=layers)
    return moved_weights(plugin.build(layers[index].options, SHAPE, info))


def model_of(pattern: str, **backbone: Any) -> HybridLM:
    torch.manual_seed(0)
    spec = ModelSpec.read({**MODEL.model_dump(mode="json"), **backbone})
    return moved_weights(HybridLM(ArchSpec.parse(pattern, REGISTRY, spec), REGISTRY)).eval()


def inputs(count: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, count, SHAPE.d_model, generator=torch.Generator().manual_seed(1))


def tokens_of(batch: int, count: int) -> Tensor:
    return torch.randint(0, 30, (batch, count), generator=torch.Generator().manual_seed(1))


def context_at(positions: list[int]) -> Context:
    return Context(positions=None if positions == IN_ORDER else torch.tensor([positions]))


# equations


@pytest.mark.parametrize("positions", [IN_ORDER, MOVED], ids=["in-order", "moved"])
@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_a_layer_computes_what_the_paper_writes(name: str, positions: list[int]) -> None:
    text, reference = MIXERS[name]
    mixer, x = build(text).eval(), inputs(20)
    y, _ = mixer(x, ctx=context_at(positions))
    assert_close(y[0].double(), reference(mixer, x[0].double(), positions), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", [IN_ORDER, MOVED], ids=["in-order", "moved"])
@torch.no_grad()
def test_a_later_shift_mixes_in_the_value_of_the_first(positions: list[int]) -> None:
    pattern, x, ctx = "full field-shift field-shift field-shift", inputs(20), context_at(positions)
    first, middle, last = (build("", index, pattern).eval() for index in (1, 2, 3))
    outputs = [mixer(part, ctx=ctx)[0][0].double() for mixer, part in ((first, x), (middle, x.flip(2)), (last, -x))]
    one, values = references.shift(first, x[0].double(), positions)
    two, _ = references.shift(middle, x[0].flip(1).double(), positions, values)
    three, _ = references.shift(last, -x[0].double(), positions, values)
    for found, expected in zip(outputs, (one, two, three), strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", [IN_ORDER, MOVED], ids=["in-order", "moved"])
@torch.no_grad()
def test_a_reader_attends_over_the_nearest_producer(positions: list[int]) -> None:
    pattern, x, ctx = "field-yoco-kv field-yoco-kv field-yoco field-yoco", inputs(20), context_at(positions)
    layers = [build("", index, pattern).eval() for index in range(4)]
    written, read = x.flip(2), x + 1
    outputs = [mixer(part, ctx=ctx)[0][0] for mixer, part in zip(layers, (x, written, read, -read), strict=True)]
    for index, part in ((1, written), (2, read), (3, -read)):
        expected = references.yoco(layers[1], layers[index], written[0].double(), part[0].double(), positions)
        assert_close(outputs[index].double(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_side_by_side_is_the_mean_of_both_normed() -> None:
    mixer, x = build(SIDE_BY_SIDE).eval(), inputs(20)
    y, _ = mixer(x, ctx=Context())
    parts = [part(x, ctx=Context())[0].double() for part in mixer.parts]
    expected = sum(scale.double() * references.normed(part) for scale, part in zip(mixer.scales, parts, strict=True))
    assert_close(y.double(), expected / 2, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_one_memory_is_plain_linear_attention() -> None:
    plain = "norm=none, activation=none, value_activation=none, conv=0, output_norm=rms, output_gate=none"
    base = f"linear(decay=none, update=hebbian, {plain})"
    linear, mom, x = build(base).eval(), build("field-mom(memories=1, top_k=1, shared=false)").eval(), inputs(40, 2)
    w = dict(mom.named_parameters())
    queries = w["q.weight"] * SHAPE.head_dim**0.5  # which linear attention scales
    projected = torch.cat((queries, w["kv"][0].T))
    linear.load_state_dict({"proj.weight": projected, "norm.weight": w["norm"], "out.weight": w["out.weight"]})
    assert_close(mom(x, ctx=Context())[0], linear(x, ctx=Context())[0], rtol=1e-4, atol=1e-5)


# laws of layers among others


@pytest.mark.parametrize("meta", [0, 3], ids=["plain", "meta3"])
@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_forward_is_prefill_and_steps(name: str, meta: int) -> None:
    model, tokens = model_of(PATTERNS[name], meta_tokens=meta), tokens_of(2, 21)
    whole, states = model(tokens), model.init_state(2, 21)
    pieces = [*tokens[:, :11].split([6, 5], 1), *tokens[:, 11:].split(1, 1)]
    at = -1
    for piece in pieces:
        at += piece.shape[1]
        one = piece.shape[1] == 1
        logits, states = model.step(piece[:, 0], states) if one else model.prefill(piece, states)
        assert_close(logits, whole[:, at], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_packed_sequences_are_each_apart(name: str) -> None:
    model, lengths = model_of(PATTERNS[name]), [5, 0, 1, 19, 0, 8]
    tokens = tokens_of(1, sum(lengths))
    packed = model(tokens, ctx=Context(cu_seqlens=torch.tensor([0, *lengths]).cumsum(0)))
    apart = torch.cat([model(part) for part in tokens.split(lengths, 1) if part.shape[1]], 1)
    assert_close(packed, apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_ragged_sequences_go_on_as_each_alone(name: str) -> None:
    model, tokens, lengths = model_of(PATTERNS[name]), tokens_of(3, 24), [1, 7, 14]
    alone = [model.prefill(tokens[i : i + 1, :n], model.init_state(1, 24))[1] for i, n in enumerate(lengths)]
    together, outputs = [stacked([states[layer].mixer for states in alone]) for layer in range(len(model.blocks))], []
    for t in range(10):
        ctx, x = (
            Context(want_state=True),
            model.embedding(torch.stack([tokens[i, n + t] for i, n in enumerate(lengths)])),
        )
        for layer, block in enumerate(model.blocks):
            mixed, together[layer] = block.mixer.step(block.mixer_norm(x), state=together[layer], ctx=ctx)
            x = x + mixed
        outputs.append(torch.nn.functional.linear(model.norm(x), model.embedding.weight))
    for i, n in enumerate(lengths):
        assert_close(torch.stack(outputs)[:, i], model(tokens[i : i + 1])[0, n : n + 10], rtol=1e-4, atol=1e-4)


def stacked(states: list[MixerState]) -> MixerState:
    """The states of single sequences as one of them all, rebuilt from its tensors."""
    tensors = {name: torch.cat([state.tensors[name] for state in states]) for name in states[0].tensors}
    lengths = torch.cat([state.lengths for state in states])
    return MixerState(tensors=tensors, lengths=lengths, capacity=states[0].capacity)


@pytest.mark.parametrize("name", PATTERNS)
def test_no_token_sees_the_future_and_gradients_reach_everything(name: str) -> None:
    model, tokens = model_of(PATTERNS[name]).train(), tokens_of(2, 30)
    later = tokens.clone()
    later[:, 17] = (later[:, 17] + 1) % 30
    with torch.no_grad():
        assert_close(model(later)[:, :17], model(tokens)[:, :17], rtol=0, atol=1e-6)
    ctx = Context()
    (model(tokens, ctx=ctx).square().sum() + sum(ctx.losses.values())).backward()
    for weight, parameter in model.named_parameters():
        assert parameter.grad is not None, weight
        assert parameter.grad.isfinite().all(), weight
        assert parameter.grad.any(), f"no gradient reaches {weight}"


@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_a_model_of_half_the_bits_runs(name: str) -> None:
    model, tokens = model_of(PATTERNS[name]).to(torch.bfloat16), tokens_of(2, 12)
    logits, states = model.prefill(tokens[:, :9], model.init_state(2, 12))
    for t in range(9, 12):
        logits, states = model.step(tokens[:, t], states)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", PATTERNS)
def test_costs_are_those_of_the_model(name: str) -> None:
    model = model_of(PATTERNS[name])
    cost = CostModel(REGISTRY).cost(model.arch, 50)
    assert cost.params == sum(parameter.numel() for parameter in model.parameters())
    assert cost.state_bytes == sum(state.nbytes for state in model.init_state(1, 50))


@pytest.mark.parametrize("index", [1, 2, 4])
@torch.no_grad()
def test_a_reader_reads_the_rows_of_its_producer(index: int) -> None:
    """The rows of which a step reads any, in the cache of each layer: disturbing one moves the reader's output."""
    model, tokens = model_of("field-yoco-kv field-yoco field-yoco field-yoco-kv field-yoco"), tokens_of(1, 9)
    _, states = model.prefill(tokens[:, :8], model.init_state(1, 12))
    reads = {}
    for layer in (0, 3):
        reads[layer] = [
            row
            for row in range(12)
            if not torch.equal(mixed(model, states, tokens, index), mixed(model, states, tokens, index, (layer, row)))
        ]
    producer = 0 if index < 3 else 3
    assert reads == {layer: list(range(8)) if layer == producer else [] for layer in (0, 3)}
    layer = REGISTRY.layer("field-yoco")
    said = figures_of(layer, model.arch, index, REGISTRY).traffic(context=9)
    assert said.read_bytes == 9 * 2 * SHAPE.n_kv_heads * SHAPE.head_dim * 4
    assert said.written_bytes == 0


def mixed(model: HybridLM, states: Any, tokens: Tensor, index: int, by: tuple[int, int] | None = None) -> Tensor:
    """What mixer `index` gives in a step, its input left as it is where row (layer, row) of a cache is disturbed."""
    ctx = Context(want_state=True)
    for layer in range(index + 1):
        state = states[layer].mixer.clone()
        if by is not None and layer == by[0]:
            state.tensors["k"][:, by[1]] += 1
        y, _ = model.blocks[layer].mixer.step(inputs(layer + 1)[:, layer], state=state, ctx=ctx)
    return y


# single laws


@pytest.mark.parametrize("name", ["prefix", "pad4", "mom", "shift", "yoco", "parallel"])
def test_packed_sequences_with_a_state_are_refused(name: str) -> None:
    mixer, x = build(LAYERS[name]), inputs(4)
    with pytest.raises(SpecError, match="packed sequences"):
        mixer(x, state=mixer.init_state(1, 4), ctx=Context(cu_seqlens=torch.tensor([0, 2, 4]), want_state=True))


@pytest.mark.parametrize("name", ["prefix", "pad4", "mom", "shift", "yoco", "parallel"])
@torch.no_grad()
def test_tokens_past_the_capacity_are_refused(name: str) -> None:
    mixer, x = build(LAYERS[name]).eval(), inputs(9)
    with pytest.raises(SpecError, match="capacity of 8"):
        mixer(x, state=mixer.init_state(1, 8), ctx=Context(want_state=True))
    _, full = mixer(x[:, :8], state=mixer.init_state(1, 8), ctx=Context(want_state=True))
    with pytest.raises(SpecError, match="capacity of 8"):
        mixer.step(x[:, 8], state=full, ctx=Context(want_state=True))


@pytest.mark.parametrize("held", [0, 1, 18])
@pytest.mark.parametrize("name", ["prefix", "pad4", "mom", "shift", "yoco", "parallel"])
@torch.no_grad()
def test_no_tokens_leave_a_state_as_it_was(name: str, held: int) -> None:
    mixer = build(LAYERS[name]).eval()
    state = mixer.init_state(2, 19)
    if held:
        _, state = mixer(inputs(held, 2), state=state, ctx=Context(want_state=True))
    y, after = mixer(inputs(0, 2), state=state.clone(), ctx=Context(want_state=True))
    assert y.shape == (2, 0, SHAPE.d_model)
    assert after.lengths.tolist() == [held, held]
    for tensor, before in state.tensors.items():
        assert_close(after.tensors[tensor], before)


@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("name", ["prefix", "pad4", "mom", "mom-one", "mom-base", "shift", "yoco", "parallel"])
def test_flops_are_those_that_are_counted(name: str, count: int) -> None:
    wide = LAYERS[name].replace("window=8", "window=64")  # of a narrow window most products are masked
    mixer, x = build(wide), inputs(count)
    with torch.no_grad():
        _, state = mixer.eval()(x[:, 1:], state=mixer.init_state(1, count), ctx=Context(want_state=True))
        counted = {
            "decode": products(lambda: mixer.step(x[:, 0], state=state, ctx=Context(want_state=True))),
            "prefill": products(lambda: mixer(x, ctx=Context())),
            "train": products(lambda: mixer.train()(x, ctx=Context())),
        }
    for phase, seen in counted.items():
        said = mixer.plugin.flops(mixer.options, SHAPE, mixer.layer, phase=phase, context=count).matmul
        assert 0.5 <= seen / said <= 2, f"{phase}: counts {seen}, says {said}"


def products(run: Callable[[], object]) -> int:
    """FLOPs of the matrix products of a call, those that a mask throws away too."""
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # the fused one of a CPU is not counted
        run()
    return counter.get_total_flops()


def test_a_token_meets_the_memories_that_it_is_routed_to() -> None:
    mixer, x = build("field-mom").train(), inputs(1)
    met = [name for name in range(5) if touched(mixer, x, name)]
    assert len(met) == 3
    assert met[-1] == 4
    kept = mixer.kv[0].numel() * 2
    assert (
        MomPlugin().active_params(mixer.options, SHAPE, mixer.layer)
        == sum(p.numel() for p in mixer.parameters()) - kept
    )


def touched(mixer: Mixer, x: Tensor, memory: int) -> bool:
    """Whether the keys and values of a memory take part."""
    y, _ = mixer(x, ctx=Context())
    (gradient,) = torch.autograd.grad(y.square().sum(), mixer.kv)
    return bool(gradient[memory].any())


def test_memories_are_balanced_in_training_alone() -> None:
    mixer, ctx = build("field-mom").eval(), Context()
    mixer(inputs(9), ctx=ctx)
    mixer.train()(inputs(0), ctx=ctx)
    assert not ctx.losses
    mixer(inputs(9), ctx=ctx)
    even = mixer.balance_weight
    assert ctx.losses["mom_balance"] > even
    (gradient,) = torch.autograd.grad(ctx.losses["mom_balance"], mixer.router.weight)
    assert gradient.any()


def test_a_prefix_learns_through_a_state() -> None:
    mixer = build("field-prefix")
    _, state = mixer(inputs(5), state=mixer.init_state(1, 9), ctx=Context(want_state=True))
    y, _ = mixer(inputs(4), state=state, ctx=Context(want_state=True))
    y.square().sum().backward()
    assert mixer.prefix_k.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("field-yoco full", 'mixer "field-yoco", layer 0: it reads the cache of a "field-yoco-kv" before it'),
        ("full field-parallel(a=field-yoco, b=full) field-yoco-kv", 'mixer "field-yoco", layer 1: it reads the cache'),
        ("field-parallel(a=field-yoco-kv, b=full)", "it shares its cache by its layer"),
        ("field-shift field-parallel(a=field-shift, b=full)", "it shares its value by its layer"),
    ],
)
def test_a_layer_that_cannot_stand_there_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        model_of(pattern)
