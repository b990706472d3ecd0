"""MixerConformance: the laws of a token mixer, as a pytest suite that a plugin author inherits."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import ArchsearchError, OptionsError
from archsearch.kernels import interpreting
from archsearch.mixer import Dtype, Law, LayerInfo, MixerOptions, MixerPlugin, ModelShape, Phase
from archsearch.model import Context, Mixer, MixerState
from archsearch.testing.reads import step_reads
from archsearch.testing.recording import device_of

_COST_CONTEXTS = [2**exponent for exponent in range(21)]
_PHASES: tuple[Phase, ...] = ("train", "prefill", "decode")
INTERPRETED_LAWS = (
    "test_long_second_prefill",
    "test_a_wanted_state_is_returned",
    "test_packed_sequences_are_apart",
    "test_gradients_are_finite_and_reach_every_parameter",
    "test_one_token",
)
"""Laws that the default run tries with interpreted kernels."""

_TORCH_FREE = """
import importlib, json, sys
from archsearch.mixer import LayerInfo, ModelShape
module, name, cases, shape = json.loads(sys.stdin.read())
plugin, shape, layer = getattr(importlib.import_module(module), name)(), ModelShape(**shape), LayerInfo()
for values in cases:
    options = plugin.parse_options(values)
    plugin.params(options, shape, layer), plugin.state(options, shape, layer)
    plugin.traffic(options, shape, layer, context=100)
    for phase in ("train", "prefill", "decode"):
        plugin.flops(options, shape, layer, phase=phase, context=100)
assert "torch" not in sys.modules, "importing and costing the plugin imported torch"
"""


class MixerConformance:
    """Inherit, set ``plugin``, and pytest runs the laws that every mixer keeps::

        class TestMyMixer(MixerConformance):
            plugin = MyPlugin()
            cases = {"small": {"window": 8}, "with-sinks": {"window": 8, "sinks": 2}}

    ``cases`` are options by readable id; every preset is a case too. Choose options whose sparsity acts within
    ``tokens``, the length of the sequences tried. A law in the plugin's ``broken_laws`` that indeed fails is reported
    as an expected failure, with the plugin's reason.

    ``traffic_slack`` is the share by which ``traffic`` may exceed what a step is seen to read and write, for a mixer
    whose choice may come out smaller; it may never fall short. ``drops_beyond``: one token past ``dense_up_to``, some
    token no longer reaches the last output, by any way at all.
    ``idle_parameters`` names parameters that may have no gradient. ``impls`` are the implementations that the laws
    are tried with, one after the other, by `using_impl`. Among them may be "triton": without a card Triton's
    interpreter runs the kernels (TRITON_INTERPRET=1 before triton is imported), which is slow. So they are tried on
    ``interpreted_tokens``; and all but the laws `INTERPRETED_LAWS` on ``interpreted_cases`` carry the marker "slow".
    ``pytest -p archsearch.testing.recording --conformance-device cuda`` tries them all, and nothing else, on a card.
    """

    plugin: ClassVar[MixerPlugin[Any]]
    cases: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    shape: ClassVar[ModelShape] = ModelShape(d_model=16, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
    layer: ClassVar[LayerInfo] = LayerInfo(index=1, depth=4)
    tokens: int = 100
    interpreted_tokens: ClassVar[int] = 40
    interpreted_cases: ClassVar[tuple[str, ...]] = ()
    traffic_contexts: ClassVar[tuple[int, ...]] = (2, 17, 50)
    tolerance: ClassVar[float] = 1e-4
    causal_tolerance: ClassVar[float] = 1e-6
    traffic_slack: ClassVar[float] = 0.0
    drops_beyond: ClassVar[bool] = True
    idle_parameters: ClassVar[frozenset[str]] = frozenset()
    impls: ClassVar[tuple[str, ...]] = ("auto",)
    device: torch.device = torch.device("cpu")
    _disturbed_every: int = 1

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case, and for each implementation where the layer runs."""
        cases = {**self.cases, **self.plugin.presets}
        if "impl" in metafunc.fixturenames:
            law = metafunc.function.__name__
            device = device_of(metafunc.config)
            tried = [(name, impl) for impl in self.impls for name in cases if self._can_run(law, impl, device)]
            metafunc.parametrize(
                ("values", "impl"),
                [pytest.param(cases[name], impl, marks=self._marks(law, name, impl)) for name, impl in tried],
                ids=[f"{name}-{impl}" for name, impl in tried],
            )
        elif "values" in metafunc.fixturenames:
            metafunc.parametrize("values", list(cases.values()), ids=list(cases))

    def _can_run(self, law: str, impl: str, device: str) -> bool:
        """Kernels need a card or Triton's interpreter, which multiplies matrices of bfloat16 wrongly."""
        return impl != "triton" or device != "cpu" or (interpreting() and law != "test_bfloat16_runs")

    def _marks(self, law: str, name: str, impl: str) -> tuple[pytest.MarkDecorator, ...]:
        quick = impl != "triton" or (law in INTERPRETED_LAWS and name in self.interpreted_cases)
        return () if quick or not interpreting() else (pytest.mark.slow,)

    @pytest.fixture(autouse=True)
    def _on_device(self, request: pytest.FixtureRequest) -> None:
        self.device = torch.device(device_of(request.config))

    @pytest.fixture
    def options(self, values: Mapping[str, Any]) -> MixerOptions:
        """The case's options."""
        return cast(MixerOptions, self.plugin.parse_options(values))

    @pytest.fixture
    def mixer(self, options: MixerOptions, impl: str) -> Iterator[Mixer]:
        """The case's layer, while the implementation is in use."""
        if impl == "triton" and interpreting():
            self.tokens, self._disturbed_every = self.interpreted_tokens, 7
        with self.using_impl(impl):
            yield self.build(options)

    @contextmanager
    def using_impl(self, impl: str) -> Iterator[None]:
        """Makes the layer's ops run `impl`; by default through ``ARCHSEARCH_IMPL``, which `choose_impl` heeds."""
        with pytest.MonkeyPatch.context() as patch:
            if impl != "auto":
                patch.setenv("ARCHSEARCH_IMPL", impl)
            yield

    def build(self, options: MixerOptions, shape: ModelShape | None = None) -> Mixer:
        """The layer, from a fixed seed."""
        torch.manual_seed(0)
        return self.plugin.build(options, shape or self.shape, self.layer).eval().to(self.device)

    def inputs(self, batch: int, tokens: int | None = None) -> Tensor:
        """`[B, T, D]`, the same for the same sizes."""
        generator = torch.Generator().manual_seed(1)
        shape = (batch, self.tokens if tokens is None else tokens, self.shape.d_model)
        return torch.randn(shape, generator=generator).to(self.device)

    # options and costs

    def test_options_survive_json(self, options: MixerOptions) -> None:
        data = json.loads(json.dumps(options.model_dump(mode="json")))
        assert self.plugin.parse_options(data) == options
        assert hash(self.plugin.parse_options(data)) == hash(options)

    def test_unknown_option_is_refused(self) -> None:
        with pytest.raises(OptionsError, match="no_such_option"):
            self.plugin.parse_options({"no_such_option": 1})

    def test_every_tunable_choice_is_valid_in_some_combination(self) -> None:
        combinations = list(self.plugin.choices())
        for name, choices in self.plugin.options.tunables().items():
            reached = [getattr(options, name) for options in combinations]
            assert all(choice in reached for choice in choices), f"{name}: only {set(reached)} of {choices} are valid"

    def test_import_and_costs_need_no_torch(self) -> None:
        owner = type(self.plugin)
        cases = [dict(values) for values in {**self.cases, **self.plugin.presets}.values()]
        request = json.dumps([owner.__module__, owner.__qualname__, cases, asdict(self.shape)])
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", _TORCH_FREE], input=request, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def test_params_equal_what_is_built(self, options: MixerOptions) -> None:
        built = sum(parameter.numel() for parameter in self.build(options).parameters())
        assert self.plugin.params(options, self.shape, self.layer) == built

    def test_costs_are_finite_and_rise_with_context(self, options: MixerOptions) -> None:
        costs: dict[str, list[float]] = {}
        for context in _COST_CONTEXTS:
            for phase in _PHASES:
                flops = self.plugin.flops(options, self.shape, self.layer, phase=phase, context=context)
                for kind, value in asdict(flops).items():
                    costs.setdefault(f"{phase} {kind} flops", []).append(value)
            traffic = self.plugin.traffic(options, self.shape, self.layer, context=context)
            for kind in ("read_bytes", "written_bytes", "most_read", "most_written"):
                costs.setdefault(kind, []).append(getattr(traffic, kind))
        for name, series in costs.items():
            assert all(math.isfinite(value) and value >= 0 for value in series), f"{name}: {series}"
            assert series == sorted(series), f"{name} at contexts {_COST_CONTEXTS} falls: {series}"
        assert costs["decode matmul flops"][0] > 0

    # state

    @pytest.mark.parametrize("capacity", [1, 7, 130])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_state_allocates_the_bytes_it_promises(self, options: MixerOptions, dtype: Dtype, capacity: int) -> None:
        promised = self.plugin.state(options, replace(self.shape, dtype=dtype), self.layer)
        state = self.build(options).init_state(3, capacity, dtype=getattr(torch, dtype))
        assert state.nbytes == 3 * sum(row.nbytes(capacity) for row in promised)
        assert state.lengths.tolist() == [0, 0, 0]
        assert state.capacity == capacity
        assert {name: (list(tensor.shape), tensor.dtype) for name, tensor in state.tensors.items()} == {
            row.name: ([3, row.rows(capacity), *row.row_shape], getattr(torch, row.dtype)) for row in promised
        }

    def test_state_keeps_its_sizes_while_decoding(self, mixer: Mixer) -> None:
        x = self.inputs(2, 20)
        state = mixer.init_state(2, 20)
        before = {name: (tensor.shape, tensor.dtype) for name, tensor in state.tensors.items()}
        _, state = self.continued(mixer, x, [11, 1, 1, 6, 1], state)
        assert {name: (tensor.shape, tensor.dtype) for name, tensor in state.tensors.items()} == before
        assert state.lengths.tolist() == [20, 20]
        assert state.capacity == 20

    # laws

    def test_forward_equals_repeated_step(self, mixer: Mixer) -> None:
        x = self.inputs(2)
        with torch.no_grad(), self.law("step"):
            stepped, _ = self.continued(mixer, x, [1] * self.tokens, mixer.init_state(2, self.tokens))
            assert_close(stepped, self.whole(mixer, x), rtol=self.tolerance, atol=self.tolerance)

    @pytest.mark.parametrize("first", [1, 5, 64, 80])
    def test_forward_equals_split_prefill_then_steps(self, mixer: Mixer, first: int) -> None:
        x = self.inputs(2)
        first = min(first, self.tokens - 4)
        second = min(13, self.tokens - first - 3)
        pieces = [first, second] + [1] * (self.tokens - first - second)
        with torch.no_grad(), self.law("split"):
            joined, _ = self.continued(mixer, x, pieces, mixer.init_state(2, self.tokens))
            assert_close(joined, self.whole(mixer, x), rtol=self.tolerance, atol=self.tolerance)

    def test_long_second_prefill(self, mixer: Mixer) -> None:
        x = self.inputs(2)
        with torch.no_grad(), self.law("split"):
            joined, _ = self.continued(mixer, x, [3, self.tokens - 3], mixer.init_state(2, self.tokens))
            assert_close(joined, self.whole(mixer, x), rtol=self.tolerance, atol=self.tolerance)

    def test_spare_capacity_changes_nothing(self, mixer: Mixer) -> None:
        x = self.inputs(2, 40)
        with torch.no_grad():
            exact, _ = self.continued(mixer, x, [30, *[1] * 10], mixer.init_state(2, 40))
            spare, _ = self.continued(mixer, x, [30, *[1] * 10], mixer.init_state(2, 171))
        assert_close(spare, exact, rtol=self.tolerance, atol=self.tolerance)

    def test_no_token_sees_the_future(self, mixer: Mixer) -> None:
        each = torch.arange(0, self.tokens, self._disturbed_every, device=self.device)
        x = self.inputs(1).repeat(len(each), 1, 1)
        disturbed = x.clone()
        by = 3 * torch.randn(len(each), x.shape[2], generator=torch.Generator().manual_seed(2))
        disturbed[torch.arange(len(each), device=self.device), each] += by.to(self.device)
        with torch.no_grad(), self.law("causal"):
            difference = (self.whole(mixer, disturbed) - self.whole(mixer, x)).abs().amax(-1)  # [disturbed, seen by]
            earlier = torch.arange(self.tokens, device=self.device) < each[:, None]
            worst = difference.where(earlier, 0.0).max().item()
            assert worst <= self.causal_tolerance, f"a later token changed an earlier output by {worst}"

    def test_packed_sequences_are_apart(self, mixer: Mixer) -> None:
        lengths = [5, 0, 1, self.tokens, 0, 17]
        sequences = [x[None] for x in torch.split(self.inputs(1, sum(lengths))[0], lengths)]
        bounds = torch.tensor([0, *lengths], device=self.device).cumsum(0)
        with torch.no_grad(), self.law("packed"):
            packed, _ = mixer(torch.cat(sequences, 1), ctx=Context(cu_seqlens=bounds))
            apart = torch.cat([self.whole(mixer, x) for x in sequences if x.shape[1]], 1)
            assert_close(packed, apart, rtol=self.tolerance, atol=self.tolerance)

    def test_empty_packed_batch(self, mixer: Mixer) -> None:
        with torch.no_grad(), self.law("packed"):
            bounds = torch.tensor([0, 0, 0], device=self.device)
            out, _ = mixer(self.inputs(1, 0), ctx=Context(cu_seqlens=bounds))
            assert out.shape == (1, 0, self.shape.d_model)

    def test_ragged_lengths_decode_as_each_alone(self, mixer: Mixer) -> None:
        lengths, rest = [1, self.tokens - 10, 30], 10
        prompts = [self.inputs(3)[index : index + 1, :length] for index, length in enumerate(lengths)]
        later = self.inputs(3, rest + 1)[:, 1:]
        with torch.no_grad(), self.law("split"):
            states = [self.continued(mixer, x, [x.shape[1]], mixer.init_state(1, self.tokens))[1] for x in prompts]
            pieces = [1, 1, 4, *[1] * (rest - 6)]
            together, state = self.continued(mixer, later, pieces, _stacked(states))
            alone = [
                self.continued(mixer, later[index : index + 1], pieces, state.clone())[0]
                for index, state in enumerate(states)
            ]
            assert_close(together, torch.cat(alone), rtol=self.tolerance, atol=self.tolerance)
            assert state.lengths.tolist() == [length + rest for length in lengths]

    def test_one_token(self, mixer: Mixer) -> None:
        x = self.inputs(2, 1)
        with torch.no_grad():
            whole = self.whole(mixer, x)
            stepped, _ = mixer.step(x[:, 0], state=mixer.init_state(2, 1), ctx=Context(want_state=True))
        assert torch.isfinite(whole).all()
        assert_close(stepped, whole[:, 0], rtol=self.tolerance, atol=self.tolerance)

    def test_a_wanted_state_is_returned(self, mixer: Mixer) -> None:
        x = self.inputs(2, 9)
        with torch.no_grad():
            out, state = mixer(x, ctx=Context(want_state=True))
            _, none = mixer(x, ctx=Context())
        assert none is None
        assert state.lengths.tolist() == [9, 9]
        assert_close(out, self.whole(mixer, x), rtol=self.tolerance, atol=self.tolerance)

    def test_gradients_are_finite_and_reach_every_parameter(self, mixer: Mixer) -> None:
        x, ctx = self.inputs(2).requires_grad_(), Context()
        out, _ = mixer.train()(x, ctx=ctx)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(self.device)
        ((out * weights).sum() + sum(ctx.losses.values())).backward()
        gradients = {"x": x.grad, **{name: parameter.grad for name, parameter in mixer.named_parameters()}}
        for name, gradient in gradients.items():
            if name in self.idle_parameters:
                continue
            assert gradient is not None, f"{name} has no gradient"
            assert torch.isfinite(gradient).all(), f"the gradient of {name} is not finite"
            assert gradient.abs().max() > 0, f"the gradient of {name} is zero"

    def test_bfloat16_runs(self, mixer: Mixer) -> None:
        mixer, x = mixer.to(torch.bfloat16), self.inputs(2, 33).to(torch.bfloat16)
        with torch.no_grad():
            whole = self.whole(mixer, x)
            stepped, _ = self.continued(mixer, x, [30, 1, 1, 1], mixer.init_state(2, 33))
        assert whole.dtype == stepped.dtype == torch.bfloat16
        assert torch.isfinite(whole).all()
        assert torch.isfinite(stepped).all()

    # what is read, and what is dropped

    @pytest.mark.parametrize("grouped", [True, False], ids=["grouped-heads", "ungrouped-heads"])
    def test_decode_reads_what_traffic_says(self, options: MixerOptions, grouped: bool) -> None:
        shape = self.shape if grouped else replace(self.shape, n_kv_heads=self.shape.n_heads)
        mixer = self.build(options, shape)
        for context in self.traffic_contexts:
            said = self.plugin.traffic(options, shape, self.layer, context=context)
            seen = step_reads(mixer, self.inputs(1, context))
            assert seen.read_bytes <= said.read_bytes, f"at {context} tokens: reads {seen}, says {said}"
            assert seen.written_bytes <= said.written_bytes, f"at {context} tokens: writes {seen}, says {said}"
            if grouped:
                continue  # query heads of one group may read the same rows, or rows of their own
            slack = 1 + self.traffic_slack
            most = (seen.read_bytes + seen.written_bytes) * slack  # a row written by the step may be read back
            assert said.read_bytes <= most, f"at {context} tokens: reads only {seen}, says {said}"
            assert said.written_bytes <= seen.written_bytes * slack, f"at {context} tokens: writes only {seen}, {said}"

    def test_dense_up_to_is_true(self, options: MixerOptions) -> None:
        longest = self.plugin.dense_up_to(options, self.layer)
        if not 0 < longest <= 300:
            pytest.skip(f"dense_up_to = {longest}: nothing to try")
        mixer = self.build(options, replace(self.shape, n_heads=1, n_kv_heads=1))  # heads may drop different tokens
        assert all(self.reach(mixer, longest)), f"on {longest} tokens some token is dropped already"
        if self.drops_beyond:
            assert not all(self.reach(mixer, longest + 1)), f"on {longest + 1} tokens nothing is dropped yet"

    # helpers

    def whole(self, mixer: Mixer, x: Tensor) -> Tensor:
        """The parallel form."""
        out: Tensor = mixer(x, ctx=Context())[0]
        return out

    def continued(self, mixer: Mixer, x: Tensor, pieces: list[int], state: MixerState) -> tuple[Tensor, MixerState]:
        """`x` `[B, T, D]` piece by piece after `state`: a step for a piece of one token, else a prefill."""
        outputs = []
        for piece in torch.split(x, pieces, dim=1):
            ctx = Context(want_state=True)  # a pass of its own, in which a layer may share
            if piece.shape[1] == 1:
                stepped, state = mixer.step(piece[:, 0], state=state, ctx=ctx)
                outputs.append(stepped[:, None])
            else:
                out, after = mixer(piece, state=state, ctx=ctx)
                outputs, state = [*outputs, out], cast(MixerState, after)
        return torch.cat(outputs, dim=1), state

    def reach(self, mixer: Mixer, tokens: int) -> list[bool]:
        """Whether each token has an influence on the last token's output, by its gradient."""
        x = self.inputs(1, tokens).requires_grad_()
        (gradient,) = torch.autograd.grad(self.whole(mixer, x)[0, -1].square().sum(), x)
        return cast(list[bool], (gradient[0].abs().amax(-1) > 0).tolist())

    @contextmanager
    def law(self, name: Law) -> Iterator[None]:
        """Turns the failure of a law that the plugin declares broken into an expected one, with its reason."""
        try:
            yield
        except (AssertionError, ArchsearchError):
            if name not in self.plugin.broken_laws:
                raise
            pytest.xfail(f'law "{name}" is declared broken: {self.plugin.broken_laws[name]}')


def _stacked(states: list[MixerState]) -> MixerState:
    tensors = {name: torch.cat([state.tensors[name] for state in states]) for name in states[0].tensors}
    lengths = torch.cat([state.lengths for state in states])
    return MixerState(tensors=tensors, lengths=lengths, capacity=states[0].capacity)
