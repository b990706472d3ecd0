"""Ops by kernels read no value back from the device, forwards, backwards and in a decode step."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
import torch
from kernel_calls import CONTINUED, LAID_OUT, SEQUENCES, STEPS, Sizes, run_sequence
from kernel_variants import variants
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, HybridLM, Mixer
from archsearch.registry import Registry

LAYERS = ("full", "sliding", "moba", "nsa", "kda", "gated-deltanet", "mamba2", "gla", "retnet")
DECODING = (*LAYERS, "mla")
"""Of packed sequences `mla` reads the bounds."""
READS = ("item", "tolist", "nonzero", "numpy", "__bool__", "__int__", "__float__", "__index__", "cpu")


@pytest.fixture
def no_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is asked for its value fails the test."""

    def refuse(*_: object) -> NoReturn:
        pytest.fail("a value was read back from the device")

    for name in READS:
        monkeypatch.setattr(Tensor, name, refuse)
    for name in ("nonzero", "masked_select", "unique"):
        monkeypatch.setattr(torch, name, refuse)


class Called(TorchDispatchMode):
    """The names of the ops that have been called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().split(".")[0])
        return func(*args, **(kwargs or {}))


def run_step(op: str) -> None:
    with torch.no_grad():
        assert STEPS[op](Sizes(tokens=20, batch=2)).shape == (2, 2, 16)


@pytest.mark.parametrize(("op", "packed"), LAID_OUT)
def test_forwards_and_backwards(op: str, packed: bool, no_reads: None) -> None:
    run_sequence(op, Sizes(tokens=12, packed=packed))


@pytest.mark.parametrize("op", CONTINUED)
def test_after_cached_tokens(op: str, no_reads: None) -> None:
    run_sequence(op, Sizes(tokens=12, batch=2, continued=True))


@pytest.mark.parametrize("op", STEPS)
def test_decode_step(op: str, no_reads: None) -> None:
    run_step(op)


def layer(registry: Registry, name: str) -> Mixer:
    options = {
        "sliding": {"window": 5, "sinks": 2},
        "moba": {"block_size": 4, "top_k": 2},
        "nsa": {"block_size": 4, "top_k": 3, "window": 5},
    }
    resolved = registry.resolve(name)
    plugin, shape = resolved.plugin, ModelShape(d_model=16, n_heads=2, n_kv_heads=2, head_dim=8, dtype="float32")
    return plugin.build(plugin.parse_options(options.get(name, resolved.preset)), shape, LayerInfo(index=1, depth=4))


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers run their kernels and do what they do for tensors on a card; no kernel is run."""
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda x: True))


@pytest.mark.parametrize("name", DECODING)
def test_layers_in_training(name: str, installed: Registry, as_on_a_card: None, no_reads: None) -> None:
    mixer, x = layer(installed, name), torch.randn(2, 12, 16, requires_grad=True)
    with variants(), torch.autocast("cpu", dtype=torch.bfloat16):
        mixer(x, ctx=Context())[0].sum().backward()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_training_on_packed_sequences(
    name: str, installed: Registry, as_on_a_card: None, no_reads: None
) -> None:
    mixer, x = layer(installed, name), torch.randn(1, 12, 16, requires_grad=True)
    with variants():
        mixer(x, ctx=Context(cu_seqlens=torch.tensor([0, 5, 5, 12])))[0].sum().backward()


@pytest.mark.parametrize("name", DECODING)
def test_layers_in_a_decode_step(name: str, installed: Registry, as_on_a_card: None, no_reads: None) -> None:
    mixer, x = layer(installed, name), torch.randn(2, 16)
    state = mixer.init_state(2, 20)
    with variants(), torch.no_grad():
        for _ in range(5):
            y, state = mixer.step(x, state=state, ctx=Context(want_state=True))
    assert y.shape == x.shape


def test_every_op_by_kernels_is_among_them() -> None:
    with Called() as called, variants():
        for op in SEQUENCES:
            run_sequence(op, Sizes(tokens=12))
        for op in STEPS:
            run_step(op)
    ops = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("archsearch::")}
    assert ops, "no op has been registered"
    assert not ops - called.names


def test_a_value_that_is_read_fails(no_reads: None) -> None:
    with pytest.raises(pytest.fail.Exception, match="read back"):
        torch.ones(1).item()


@pytest.mark.parametrize("name", DECODING)
def test_layers_that_fill_a_cache(name: str, installed: Registry, as_on_a_card: None, no_reads: None) -> None:
    mixer, x, ctx = layer(installed, name), torch.randn(2, 12, 16), Context(want_state=True)
    with variants(), torch.no_grad():
        y, state = mixer(x, state=mixer.init_state(2, 30), ctx=ctx)
        for piece in (x[:, :9], x[:, :1], x[:, :7]):
            y, state = mixer(piece, state=state, ctx=ctx)
        y, state = mixer.step(x[:, 0], state=state, ctx=ctx)
    assert y.shape == (2, 16)


def test_a_model_that_reads_a_prompt_in_parts_and_decodes(
    registry: Registry, as_on_a_card: None, no_reads: None
) -> None:
    values = {"d_model": 16, "n_heads": 2, "n_kv_heads": 2, "head_dim": 8, "vocab_size": 8, "short_conv": 4}
    spec = ModelSpec.read({**values, "channel_mixer": "swiglu", "dtype": "float32"})
    pattern = "full sliding(window=5, sinks=2) moba(block_size=4, top_k=2) nsa(block_size=4, top_k=3, window=5) kda"
    model = HybridLM(ArchSpec.parse(pattern, registry, spec), registry)
    tokens = torch.zeros(2, 20, dtype=torch.int64)
    with variants(), torch.no_grad():
        states = model.init_state(2, 20)
        for part in (tokens[:, :9], tokens[:, :1], tokens[:, :7]):
            _, states = model.prefill(part, states)
        for token in range(3):
            logits, states = model.step(tokens[:, token], states)
    assert logits.shape == (2, 8)
