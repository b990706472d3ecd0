"""What a mixer's code raises or hands back wrongly is told with the mixer, the layer and the call."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import ArchsearchError, ForeignCodeError, PluginError
from archsearch.model import Context, HybridLM
from archsearch.model.foreign import OutOfMemoryError, memory_told
from archsearch.registry import Registry, load_registry
from archsearch.testing.toy import ToyPlugin
from archsearch.testing.toy_layer import RunningMean

TOKENS = torch.zeros(2, 9, dtype=torch.int64)


def registry_of(layer: type[RunningMean]) -> Registry:
    """A registry whose "toy" builds `layer`."""

    class Plugin(ToyPlugin):
        def build(self, options: Any, shape: Any, info: Any) -> RunningMean:
            return layer(self, options, shape, info)

    return load_registry([Plugin()], environ={"ARCHSEARCH_LOAD_PLUGINS": "full"})


def model_of(layer: type[RunningMean]) -> HybridLM:
    """A layer of full attention, then one of `layer`."""
    registry = registry_of(layer)
    spec = ModelSpec.read({"d_model": 16, "n_heads": 2, "channel_mixer": "none", "vocab_size": 8})
    return HybridLM(ArchSpec.parse("full toy", registry, spec), registry)


def decode(model: HybridLM) -> None:
    """A prefill and a step."""
    _, states = model.prefill(TOKENS[:, :8], model.init_state(2, 9))
    model.step(TOKENS[:, 8], states)


def forward(model: HybridLM) -> None:
    """The parallel form."""
    model(TOKENS)


class Raises(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        raise KeyError("gone")


class RaisesInStep(RunningMean):
    def step(self, x_t: Any, *, state: Any, ctx: Any) -> Any:
        raise RuntimeError("no\nstep")


class RaisesInState(RunningMean):
    def init_state(self, *args: Any, **options: Any) -> Any:
        raise ZeroDivisionError


class NoTuple(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        return super().forward(x, state=state, ctx=ctx)[0]


class LastTokenOnly(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        y, state = super().forward(x, state=state, ctx=ctx)
        return y[:, -1:], state


class OneChannel(RunningMean):
    def step(self, x_t: Any, *, state: Any, ctx: Any) -> Any:
        y, state = super().step(x_t, state=state, ctx=ctx)
        return y[:, :1], state


class Doubles(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        y, state = super().forward(x, state=state, ctx=ctx)
        return y.double(), state


class ForgetsTheState(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        return super().forward(x, state=state, ctx=ctx)[0], None


class LosesASequence(RunningMean):
    def step(self, x_t: Any, *, state: Any, ctx: Any) -> Any:
        y, state = super().step(x_t, state=state, ctx=ctx)
        return y, replace(state, lengths=state.lengths[:1])


class EmptyState(RunningMean):
    def init_state(self, *args: Any, **options: Any) -> Any:
        return {}


class LossOfManyNumbers(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        ctx.add_loss("balance", x.mean(-1))
        return super().forward(x, state=state, ctx=ctx)


class LossOfPython(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        ctx.add_loss("balance", 0.5)
        return super().forward(x, state=state, ctx=ctx)


PLACE = r'^mixer "toy", layer 1: '
WRONG: list[tuple[type[RunningMean], Callable[[HybridLM], None], type[Exception], str]] = [
    (Raises, forward, ForeignCodeError, r"forward raised KeyError: 'gone' \(.*test_foreign\.py:\d+\)$"),
    (RaisesInStep, decode, ForeignCodeError, r"step raised RuntimeError: no step \(.*test_foreign\.py:\d+\)$"),
    (RaisesInState, decode, ForeignCodeError, r"init_state raised ZeroDivisionError: no message"),
    (NoTuple, forward, PluginError, "forward gave a tensor .*, wanted a tuple of the output and the state"),
    (LastTokenOnly, forward, PluginError, r"forward gave a tensor \[2, 1, 16\] .*wanted a tensor \[2, 9, 16\] of floa"),
    (OneChannel, decode, PluginError, r"step gave a tensor \[2, 1\] of float32 on cpu, wanted a tensor \[2, 16\]"),
    (Doubles, forward, PluginError, r"forward gave a tensor .* of float64 on cpu, wanted .* of float32"),
    (ForgetsTheState, decode, PluginError, "forward gave None for its state, wanted an archsearch.model.MixerState"),
    (LosesASequence, decode, PluginError, r"step gave the lengths a tensor \[1\] of int64 on cpu, wanted .* \[2\]"),
    (EmptyState, decode, PluginError, "init_state gave a dict for its state"),
    (LossOfManyNumbers, forward, ForeignCodeError, r'ValueError: add_loss\("balance"\) .* shape \[2, 9\]: sum it'),
    (LossOfPython, forward, ForeignCodeError, r'TypeError: add_loss\("balance"\) .*, not a float'),
]


@pytest.mark.parametrize(("layer", "run", "kind", "said"), WRONG, ids=[case[0].__name__ for case in WRONG])
def test_a_wrong_mixer_is_told_with_its_layer_and_call(
    layer: type[RunningMean], run: Callable[[HybridLM], None], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=PLACE + ".*" + said) as caught:
        run(model_of(layer))
    assert "\n" not in str(caught.value)


def test_low_precision_of_autocast_is_right() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model_of(RunningMean)(TOKENS).dtype == torch.bfloat16
        with pytest.raises(PluginError, match="float64"):
            model_of(Doubles)(TOKENS)


def test_a_build_that_raises_or_gives_no_mixer() -> None:
    class Nothing(RunningMean):
        def __new__(cls, *_: Any) -> Any:
            return None

    class Refuses(RunningMean):
        def __init__(self, *_: Any) -> None:
            raise TypeError("missing width")

    class NoModule(RunningMean):
        def __new__(cls, *_: Any) -> Any:
            return torch.nn.Linear(2, 2)

    with pytest.raises(PluginError, match=PLACE + "build gave None, wanted an archsearch.model.Mixer"):
        model_of(Nothing)
    with pytest.raises(PluginError, match=PLACE + "build gave a Linear, wanted"):
        model_of(NoModule)
    with pytest.raises(ForeignCodeError, match=PLACE + r"build raised TypeError: missing width \(.*test_foreign"):
        model_of(Refuses)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_memory_that_runs_out_is_no_fault_of_the_plugin(error: Exception) -> None:
    class Full(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            raise error

    with pytest.raises(OutOfMemoryError, match=r'^out of memory in layer 1 \(mixer "toy", forward\): ') as caught:
        forward(model_of(Full))
    assert isinstance(caught.value, ArchsearchError)
    assert isinstance(caught.value, torch.OutOfMemoryError)
    assert not isinstance(caught.value, PluginError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="other") as caught, memory_told("a test"):
        raise RuntimeError("other")
    assert not isinstance(caught.value, ArchsearchError)


def test_a_whole_model_compiles_as_one_graph() -> None:
    class Adds(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            ctx.add_loss("balance", x.square().mean())
            return super().forward(x, state=state, ctx=ctx)

    model, counter, (plain, compiled) = model_of(Adds), CompileCounterWithBackend("eager"), (Context(), Context())
    torch._dynamo.reset()
    run = torch.compile(model, fullgraph=True, backend=counter)
    torch.testing.assert_close(run(TOKENS, ctx=compiled), model(TOKENS, ctx=plain))
    torch.testing.assert_close(compiled.losses, plain.losses)
    assert counter.frame_count == 1


def test_a_packed_batch_and_a_wanted_state_are_right() -> None:
    model = model_of(RunningMean)
    model(TOKENS[:1], ctx=Context(cu_seqlens=torch.tensor([0, 4, 9])))
    model(TOKENS, ctx=Context(want_state=True))
    decode(model)
