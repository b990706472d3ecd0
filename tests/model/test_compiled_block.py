"""A block whose mixer runs its interpreted kernels compiles as one graph, forwards and backwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.model import Context, HybridLM
from archsearch.model.lm import Block
from archsearch.registry import Registry

MIXERS = {
    "kda": "kda",
    "mamba2": "mamba2",
    "gla": "gla",
    "retnet": "retnet",
    "full": "full",
    "sliding": "sliding(window=8, sinks=2)",
    "moba": "moba(block_size=8, top_k=2)",
    "nsa": "nsa(block_size=8, top_k=2, window=8)",
}
KERNELS = {
    "kda": {"short_conv", "unit_length", "gate", "gated_norm"},
    "mamba2": {"short_conv", "gate", "gated_norm"},
    "gla": {"gate", "gated_norm"},
    "retnet": {"gated_norm"},
}
QUICK = ["kda", "full"]


CASES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MIXERS]
FEW = [pytest.param(name, marks=[] if name == "full" else pytest.mark.slow) for name in MIXERS]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every op with a kernel runs it; nothing compiled is left over from another test."""
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def build_model(registry: Registry, mixer: str) -> HybridLM:
    torch.manual_seed(0)
    values = {"d_model": 32, "n_heads": 2, "n_kv_heads": 2, "head_dim": 16, "vocab_size": 8, "short_conv": 4}
    spec = ModelSpec.read({**values, "channel_mixer": "swiglu", "dtype": "float32"})
    return HybridLM(ArchSpec.parse(MIXERS[mixer], registry, spec), registry)


def build(registry: Registry, mixer: str) -> Block:
    block = build_model(registry, mixer).blocks[0]
    assert isinstance(block, Block)
    return block


def inputs(tokens: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, tokens, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()


def trained(block: Block, run: object, x: Tensor, *, half: bool, ctx: Context) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of the input and of every parameter."""
    with torch.autocast("cpu", dtype=torch.float16, enabled=half):
        y, _ = run(x, ctx=ctx)  # type: ignore[operator]
    return y.detach(), list(torch.autograd.grad(y.float().square().sum(), [x, *block.parameters()]))


def kernels_in(counter: CompileCounterWithBackend) -> set[str]:
    """Our ops in the graphs that were captured."""
    targets = [str(node.target) for graph in counter.graphs for node in graph.graph.nodes]
    return {target.split(".")[1] for target in targets if target.startswith("archsearch.")}


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "autocast-fp16"])
@pytest.mark.parametrize("mixer", CASES)
def test_training_is_one_graph(mixer: str, half: bool, registry: Registry) -> None:
    block, x = build(registry, mixer), inputs(20)
    expected, gradients = trained(block, block, x, half=half, ctx=Context())
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(block, fullgraph=True, backend=counter)
    y, found = trained(block, compiled, x, half=half, ctx=Context())
    assert counter.frame_count == 1
    assert kernels_in(counter) >= KERNELS.get(mixer, set())
    torch.testing.assert_close(y, expected)
    for actual, wanted in zip(found, gradients, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize(
    "mixer",
    ["mamba2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "sliding", "kda", "moba", "nsa"))],
)
def test_packed_sequences_are_one_graph(mixer: str, registry: Registry) -> None:
    block, x = build(registry, mixer), inputs(20)
    bounds = torch.tensor([0, 3, 3, 20])
    expected, gradients = trained(block, block, x, half=False, ctx=Context(cu_seqlens=bounds))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(block, fullgraph=True, backend=counter)
    y, found = trained(block, compiled, x, half=False, ctx=Context(cu_seqlens=bounds))
    assert counter.frame_count == 1
    torch.testing.assert_close(y, expected)
    for actual, wanted in zip(found, gradients, strict=True):
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("mixer", CASES)
def test_a_new_length_compiles_nothing_new(mixer: str, registry: Registry) -> None:
    check_lengths(mixer, registry, packed=False)


@pytest.mark.parametrize("mixer", FEW)
def test_a_new_length_of_packed_sequences_compiles_nothing_new(mixer: str, registry: Registry) -> None:
    check_lengths(mixer, registry, packed=True)


def check_lengths(mixer: str, registry: Registry, *, packed: bool) -> None:
    block, counter, graphs = build(registry, mixer), CompileCounterWithBackend("aot_eager"), []
    compiled = torch.compile(block, fullgraph=True, backend=counter)
    for tokens in (9, 12, 17, 21):
        x, ctx = inputs(tokens), Context(cu_seqlens=torch.tensor([0, 5, tokens]) if packed else None)
        torch.testing.assert_close(compiled(x, ctx=ctx)[0], block(x, ctx=ctx)[0], rtol=1e-4, atol=1e-5)
        graphs.append(counter.frame_count)
    assert graphs == [1, 2, 2, 2]  # the second length makes the length a variable


@pytest.mark.parametrize("mixer", [*CASES[:-1], "nsa"])
def test_a_decode_step_is_one_graph(mixer: str, registry: Registry) -> None:
    block, x = build(registry, mixer), inputs(12, batch=2)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(block.step, fullgraph=True, backend=counter)
    ctx = Context(want_state=True)
    with torch.no_grad():
        _, state = block(x[:, :9], state=block.init_state(2, 12), ctx=ctx)
        assert state is not None
        plain = state.clone()
        for token in (9, 10, 11):
            expected, plain = block.step(x[:, token], state=plain, ctx=ctx)
            y, state = compiled(x[:, token], state=state, ctx=ctx)
            torch.testing.assert_close(y, expected)
    assert counter.frame_count == 1
    for name, tensor in plain.mixer.tensors.items():
        torch.testing.assert_close(state.mixer.tensors[name], tensor)


@pytest.mark.parametrize("mixer", CASES)
def test_a_prompt_in_parts_is_one_graph(mixer: str, registry: Registry) -> None:
    """One for the first part, and one for all that go on."""
    model, counter = build_model(registry, mixer), CompileCounterWithBackend("eager")
    tokens, at, graphs = torch.randint(8, (2, 40), generator=torch.Generator().manual_seed(2)), 0, []
    with torch.no_grad():
        expected = model(tokens)
        model.blocks[0].compile(fullgraph=True, backend=counter)
        states = model.init_state(2, 40)
        for count in (9, 7, 8, 6):
            logits, states = model.prefill(tokens[:, at : at + count], states)
            at += count
            torch.testing.assert_close(logits, expected[:, at - 1], rtol=1e-4, atol=1e-5)
            graphs.append(counter.frame_count)
            _, states = model.step(tokens[:, at], states)
            at += 1
    assert graphs == [1, 2, 2, 2]
