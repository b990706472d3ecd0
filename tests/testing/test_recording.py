"""What the suite found is kept in the plugin's package, whole runs only, failures as failures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest
import torch._inductor.test_operators
import torch.distributed.tensor  # noqa: F401 - each run forgets the modules that it imported, and this loads only once

from archsearch.errors import SpecError
from archsearch.evidence.conformance import ANY, ConformanceRecord, ConformanceRecords, records_of, tried_source
from archsearch.evidence.digests import source_digest
from archsearch.testing.recording import laws_of_suite
from archsearch.testing.toy import ToyPlugin

pytest_plugins = ["pytester"]

Recorded = Callable[..., dict[str, ConformanceRecord]]

PLUGIN = """
from archsearch.testing.toy import ToyPlugin
class Plugin(ToyPlugin):
    name = "kept"
    presets = {}
    broken_laws = %r
"""
SUITE = """
from archsearch.testing import MixerConformance
from kept_mixer import Plugin
class TestKept(MixerConformance):
    plugin = Plugin()
    impls = ("reference",)
"""
WRONG_PARAMS = "    def params(self, options, shape, layer):\n        return 1\n"
PACKED_ALIKE = """
    def build(self, options, shape, layer):
        from dataclasses import replace
        from archsearch.testing.toy_layer import RunningMean
        class Layer(RunningMean):
            def forward(self, x, *, state=None, ctx):
                return super().forward(x, state=state, ctx=replace(ctx, cu_seqlens=None))
        return Layer(self, options, shape, layer)
"""


@pytest.fixture
def recorded(pytester: pytest.Pytester) -> Recorded:
    """Runs the suite over a package `kept_mixer`, and gives its records by form."""
    pytester.syspathinsert()

    def run(
        extra: str = "", *, suite: str = "", broken: dict[str, str] | None = None, args: tuple[str, ...] = ()
    ) -> dict[str, ConformanceRecord]:
        package = pytester.path / "kept_mixer"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text(textwrap.dedent(PLUGIN) % (broken or {}) + extra)
        pytester.makepyfile(textwrap.dedent(SUITE) + suite)
        options = ("-p", "no:cacheprovider", "-p", "archsearch.testing.recording", "--write-conformance")
        pytester.inline_run(*options, *args)
        source_digest.cache_clear()
        return {record.form: record for record in ConformanceRecords.listed("kept_mixer")}

    return run


def test_every_law_is_recorded_with_its_cases(recorded: Recorded, pytester: pytest.Pytester) -> None:
    found = recorded()
    assert set(found) == {ANY, "reference"}
    assert {law for record in found.values() for law in record.laws} == set(laws_of_suite())
    assert found["reference"].laws["test_one_token"] == {"passed": 1}
    assert found["reference"].laws["test_forward_equals_split_prefill_then_steps"] == {"passed": 1}
    assert found[ANY].laws["test_dense_up_to_is_true"] == {"skipped": 1}
    assert {record.failed for record in found.values()} == {()}
    assert {record.source for record in found.values()} == {tried_source("kept_mixer")}
    (pytester.path / "kept_mixer" / "more.py").write_text("x = 1\n")
    source_digest.cache_clear()
    assert found[ANY].source != tried_source("kept_mixer")


@pytest.mark.door
def test_a_failure_is_recorded_with_its_law(recorded: Recorded) -> None:
    found = recorded(WRONG_PARAMS)
    assert found[ANY].laws["test_params_equal_what_is_built"] == {"failed": 1}
    assert found[ANY].failed == ("TestKept::test_params_equal_what_is_built[default]",)
    assert found["reference"].failed == ()


def test_a_law_that_is_declared_broken_is_no_pass(recorded: Recorded) -> None:
    found = recorded(PACKED_ALIKE, broken={"packed": "averages over the whole batch"})
    assert found["reference"].laws["test_packed_sequences_are_apart"] == {"declared broken": 1}
    assert found["reference"].failed == ()


@pytest.mark.door
def test_a_law_with_another_test_in_its_place_is_untried(recorded: Recorded) -> None:
    found = recorded(suite="    def test_one_token(self):\n        pass\n")
    assert found[ANY].laws["test_one_token"] == {}
    assert "test_one_token" not in found["reference"].laws


@pytest.mark.door
@pytest.mark.parametrize("args", [("-k", "one_token"), ("-x",)], ids=["some-laws", "ended-early"])
def test_a_run_of_a_part_records_nothing(recorded: Recorded, args: tuple[str, ...]) -> None:
    assert recorded(WRONG_PARAMS, args=args) == {}


@pytest.mark.door
def test_other_records_stay_and_a_file_that_holds_none_is_left_alone(
    recorded: Recorded, pytester: pytest.Pytester
) -> None:
    file = pytester.mkpydir("kept_mixer") / ConformanceRecords.FILE
    other = ConformanceRecord(
        mixer="other", form=ANY, version=1, laws={}, failed=(), untried=0, source="", torch="2", triton=None, date=""
    )
    ConformanceRecords(records=(other,)).write(file)
    recorded()
    assert {record.mixer for record in ConformanceRecords.listed("kept_mixer")} == {"kept", "other"}
    file.write_text("{")
    with pytest.raises(SpecError):
        recorded()
    assert file.read_text() == "{"


@pytest.mark.door
def test_with_a_device_the_laws_by_kernels_are_kept_beside_the_others(
    recorded: Recorded, pytester: pytest.Pytester
) -> None:
    every_form = "    impls = ('reference', 'triton')\n"
    before = recorded(suite=every_form, args=("-m", "not slow"))
    assert set(before) == {ANY, "reference"}
    on_device = ("--conformance-device", "cpu")
    elsewhere = pytester.path / "elsewhere"
    assert recorded(suite=every_form, args=(*on_device, "--conformance-folder", str(elsewhere))) == before
    (with_kernels,) = ConformanceRecords.read(elsewhere / "kept_mixer" / ConformanceRecords.FILE).records
    after = recorded(suite=every_form, args=on_device)
    assert after == {**before, "triton interpreted": with_kernels}
    assert with_kernels.untried == 0
    assert with_kernels.laws["test_forward_equals_split_prefill_then_steps"] == {"passed": 1}
    assert set(with_kernels.laws) == set(before["reference"].laws) - {"test_bfloat16_runs"}


def test_single_laws_are_refused(pytester: pytest.Pytester) -> None:
    options = ("-p", "archsearch.testing.recording", "--write-conformance")
    run = pytester.runpytest_inprocess(*options, "test_x.py::TestKept::test_one_token")
    run.stderr.fnmatch_lines("*name whole files or classes*")


def test_without_the_option_nothing_is_written(pytester: pytest.Pytester) -> None:
    package = pytester.mkpydir("kept_mixer")
    (package / "__init__.py").write_text(textwrap.dedent(PLUGIN) % {})
    pytester.syspathinsert()
    pytester.makepyfile(textwrap.dedent(SUITE))
    pytester.inline_run("-p", "no:cacheprovider", "-p", "archsearch.testing.recording", "-k", "one_token")
    assert not (package / ConformanceRecords.FILE).exists()
    assert records_of(ToyPlugin()) == []
