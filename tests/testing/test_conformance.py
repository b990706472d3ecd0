"""The suite under pytest: the toy passes it, and what a broken one is told. Faults are planted in `zoo`."""

from __future__ import annotations

import textwrap

import pytest
import torch._inductor.test_operators  # noqa: F401 - each run forgets what it imported, and this loads only once

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
from archsearch.testing import MixerConformance
from archsearch.testing.toy import ToyPlugin
from archsearch.testing.toy_layer import RunningMean
"""
_STEPS_DIFFERENTLY = """
class Layer(RunningMean):
    def step(self, x_t, *, state, ctx):
        y, state = super().step(x_t, state=state, ctx=ctx)
        return torch.where((state.lengths > 110)[:, None], y + 1, y), state
"""
_MIXES_PACKED_SEQUENCES = """
class Layer(RunningMean):
    def forward(self, x, *, state=None, ctx):
        return super().forward(x, state=state, ctx=replace(ctx, cu_seqlens=None))
"""


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


def test_a_broken_law_is_told_in_one_line(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = _outcomes(pytester, _STEPS_DIFFERENTLY)
    assert outcomes["failed"] == {"test_forward_equals_repeated_step"}
    assert {"test_options_survive_json", "test_forward_equals_split_prefill_then_steps"} <= outcomes["passed"]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("law ")]
    assert said == [
        'law "step": from token 110 on, repeated step differs from forward by 1 (allowed 0.0001): a cache that is too '
        "short, or a row that is overwritten"
    ]


def test_a_declared_law_is_an_expected_failure_with_its_reason(pytester: pytest.Pytester) -> None:
    declared = 'broken_laws = {"packed": "averages over the whole batch"}'
    outcomes = _outcomes(pytester, _MIXES_PACKED_SEQUENCES, attributes=declared)
    assert outcomes["failed"] == set()
    assert "test_packed_sequences_are_apart" in outcomes["skipped"]
