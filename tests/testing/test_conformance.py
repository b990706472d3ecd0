"""The conformance suite: the toy passes it, and each broken toy fails the law that it breaks."""

from __future__ import annotations

import textwrap

import pytest

from archsearch.registry import load_registry
from archsearch.testing import MixerConformance
from archsearch.testing.toy import ToyPlugin

pytest_plugins = ["pytester"]


class TestToy(MixerConformance):
    plugin = ToyPlugin()


def test_the_toy_can_be_registered() -> None:
    registry = load_registry([ToyPlugin()], environ={"ARCHSEARCH_LOAD_PLUGINS": "none"})
    assert registry.resolve("toy-wide").preset == {"channels": 32}


_HEAD = """
from dataclasses import replace
import torch
from archsearch.mixer import Flops, StateTensor, Traffic
from archsearch.model import MixerState
from archsearch.testing import MixerConformance
from archsearch.testing.toy import ToyPlugin
from archsearch.testing.toy_layer import RunningMean
"""

_BROKEN = {
    "leaks-the-future": (
        """
        class Layer(RunningMean):
            def forward(self, x, *, state=None, ctx):
                y, state = super().forward(x, state=state, ctx=ctx)
                return y + 1e-4 * x.roll(-1, 1), state
        """,
        {"test_no_token_sees_the_future"},
    ),
    "promises-too-few-bytes": (
        """
        class Layer(RunningMean):
            def init_state(self, batch, capacity, *, dtype=None, device=None):
                state = super().init_state(batch, capacity, dtype=dtype, device=device)
                return replace(state, tensors={"total": state.tensors["total"].double()})
        """,
        {"test_state_allocates_the_bytes_it_promises"},
    ),
    "steps-differently": (
        """
        class Layer(RunningMean):
            def step(self, x_t, *, state, ctx):
                y, state = super().step(x_t, state=state, ctx=ctx)
                return y * 1.01, state
        """,
        {"test_forward_equals_repeated_step", "test_forward_equals_split_prefill_then_steps", "test_one_token"},
    ),
    "forgets-the-state-of-a-second-prefill": (
        """
        class Layer(RunningMean):
            def forward(self, x, *, state=None, ctx):
                if state is not None and x.shape[1] > 1:
                    state = MixerState(tensors={"total": torch.zeros_like(state.tensors["total"])},
                                       lengths=state.lengths, capacity=state.capacity)
                return super().forward(x, state=state, ctx=ctx)
        """,
        {"test_forward_equals_split_prefill_then_steps", "test_long_second_prefill"},
    ),
    "takes-all-lengths-for-the-longest": (
        """
        class Layer(RunningMean):
            def forward(self, x, *, state=None, ctx):
                if state is not None:
                    state = replace(state, lengths=state.lengths.max().expand_as(state.lengths))
                return super().forward(x, state=state, ctx=ctx)
        """,
        {"test_ragged_lengths_decode_as_each_alone"},
    ),
    "mixes-packed-sequences": (
        """
        class Layer(RunningMean):
            def forward(self, x, *, state=None, ctx):
                return super().forward(x, state=state, ctx=replace(ctx, cu_seqlens=None))
        """,
        {"test_packed_sequences_are_apart"},
    ),
    "has-an-idle-parameter": (
        """
        class Layer(RunningMean):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.idle = torch.nn.Parameter(torch.zeros(3))
        """,
        {"test_params_equal_what_is_built", "test_gradients_are_finite_and_reach_every_parameter"},
    ),
    "counts-too-few-params": (
        """
        class Layer(RunningMean): ...
        class Plugin(ToyPlugin):
            def params(self, options, shape, layer):
                return super().params(options, shape, layer) - 1
        """,
        {"test_params_equal_what_is_built"},
    ),
    "reads-more-than-it-says": (
        """
        class Layer(RunningMean): ...
        class Plugin(ToyPlugin):
            def traffic(self, options, shape, layer, *, context):
                return Traffic(read_bytes=options.channels * 2, written_bytes=options.channels * 4)
        """,
        {"test_decode_reads_what_traffic_says"},
    ),
    "reads-less-than-it-says": (
        """
        class Layer(RunningMean): ...
        class Plugin(ToyPlugin):
            def traffic(self, options, shape, layer, *, context):
                return Traffic(read_bytes=options.channels * 12, written_bytes=options.channels * 4)
        """,
        {"test_decode_reads_what_traffic_says"},
    ),
    "has-flops-that-are-not-finite": (
        """
        class Layer(RunningMean): ...
        class Plugin(ToyPlugin):
            def flops(self, options, shape, layer, *, phase, context):
                return Flops(matmul=float("nan"))
        """,
        {"test_costs_are_finite_and_rise_with_context"},
    ),
    "overstates-where-it-is-dense": (
        """
        class Layer(RunningMean):
            def forward(self, x, *, state=None, ctx):
                if state is None and not ctx.want_state:
                    x = torch.cat((x[:, :-10].detach(), x[:, -10:]), 1)
                return super().forward(x, state=state, ctx=ctx)
        class Plugin(ToyPlugin):
            def dense_up_to(self, options, layer):
                return 20
        """,
        {"test_dense_up_to_is_true"},
    ),
    "understates-where-it-is-dense": (
        """
        class Layer(RunningMean): ...
        class Plugin(ToyPlugin):
            def dense_up_to(self, options, layer):
                return 20
        """,
        {"test_dense_up_to_is_true"},
    ),
}


def _outcomes(
    pytester: pytest.Pytester, body: str, *, attributes: str = "", select: str = "not need_no_torch"
) -> dict[str, set[str]]:
    """Names of the suite's tests by outcome, run over a toy whose class `Layer` (and perhaps `Plugin`) is `body`."""
    text = _HEAD + textwrap.dedent(body)
    if "class Plugin" not in text:
        text += "\nclass Plugin(ToyPlugin): ...\n"
    text += f"\nclass Broken(Plugin):\n    presets = {{}}\n    {attributes}\n"
    text += "\n    def build(self, options, shape, layer):\n        return Layer(self, options, shape, layer)\n"
    text += "\nclass TestBroken(MixerConformance):\n    plugin = Broken()\n"
    pytester.makepyfile(text)
    run = pytester.inline_run("-p", "no:cacheprovider", "-k", select)
    found = zip(("passed", "skipped", "failed"), run.listoutcomes(), strict=True)
    return {outcome: {report.nodeid.split("::")[-1].split("[")[0] for report in reports} for outcome, reports in found}


@pytest.mark.parametrize(("body", "broken"), _BROKEN.values(), ids=_BROKEN)
def test_a_broken_toy_fails(pytester: pytest.Pytester, body: str, broken: set[str]) -> None:
    outcomes = _outcomes(pytester, body)
    assert broken <= outcomes["failed"]
    assert "test_options_survive_json" in outcomes["passed"]


def test_a_plugin_that_imports_torch_fails(pytester: pytest.Pytester) -> None:
    outcomes = _outcomes(pytester, "class Layer(RunningMean): ...", select="need_no_torch or params_equal")
    assert outcomes["failed"] == {"test_import_and_costs_need_no_torch"}
    assert outcomes["passed"] == {"test_params_equal_what_is_built"}


def test_a_declared_law_is_an_expected_failure_with_its_reason(pytester: pytest.Pytester) -> None:
    declared = 'broken_laws = {"packed": "averages over the whole batch"}'
    outcomes = _outcomes(pytester, _BROKEN["mixes-packed-sequences"][0], attributes=declared)
    assert outcomes["failed"] == set()
    assert "test_packed_sequences_are_apart" in outcomes["skipped"]
