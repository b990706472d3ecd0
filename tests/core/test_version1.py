"""A plugin of contract version 1 loads by one adapter: installed, it is costed, trained, measured and digested."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import version1_plugin
from typer.testing import CliRunner

from archsearch import cost, evaluate
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import PluginError
from archsearch.exercise import dense_up_to
from archsearch.layer import LayerInfo
from archsearch.model import HybridLM
from archsearch.registry import Registry, load_registry
from archsearch.version1 import Version1, original

HERE = Path(__file__).parent


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Every plugin that is installed, the old one among them."""
    for name in ("version1_plugin", "version1_layer"):
        shutil.copy(HERE / f"{name}.py", tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
    info = tmp_path / "oldplug-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oldplug\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[archsearch]\noldplug = version1_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return load_registry()


def test_it_loads_and_is_shown(registry: Registry) -> None:
    (report,) = (report for report in registry.reports() if report.name == "oldplug")
    assert (report.status, report.error, report.mixers, report.presets) == ("ok", None, ["old"], ["old-wide"])
    assert registry.version_of("old") == "oldplug 0.3 r1"
    from archsearch.cli import app

    shown = CliRunner().invoke(app, ["plugins"])
    assert shown.exit_code == 0
    assert "old-wide" in shown.stdout


def test_it_is_costed_as_it_says(registry: Registry) -> None:
    arch = ArchSpec.parse("old old-wide full", registry, ModelSpec(d_model=32))
    assert arch.pattern(registry) == "old old-wide full"
    assert [layer.mixer_params for layer in cost(arch, context=64, registry=registry).layers[:2]] == [512, 2048]
    assert [dense_up_to(arch, index, registry) for index in range(3)] == [8, 32, 0]


def test_its_ops_and_kernels_are_those_of_its_methods(registry: Registry) -> None:
    measured = registry.measured("old")
    assert (list(measured.ops()), measured.names) == (["an op"], ("mean",))
    assert list(measured.builds("sm_90")) == ["kernel of sm_90"]


def test_it_is_trained_and_decodes(registry: Registry) -> None:
    found = evaluate("old full", "mqar", {"steps": 2, "batch_size": 4, "learning_rates": [1e-3]}, registry=registry)
    assert found.status == "complete"
    assert found.versions["mixer:old"] == "oldplug 0.3 r1"
    model = HybridLM(ArchSpec.parse("old kda", registry, ModelSpec(dtype="float32", vocab_size=20)), registry).eval()
    tokens = torch.randint(0, 20, (2, 9))
    with torch.no_grad():
        logits, states = model.prefill(tokens[:, :8], model.init_state(2, 9))
        logits, _ = model.step(tokens[:, 8], states)
        torch.testing.assert_close(logits, model(tokens)[:, 8], atol=1e-4, rtol=1e-4)


def test_its_digest_is_of_its_own_source(registry: Registry) -> None:
    assert isinstance(registry.mixer("old"), Version1)
    assert type(original(registry.mixer("old"))).__name__ == "Plugin"
    assert registry.source_of("old") == load_registry().source_of("old")
    assert not registry.source_of("old").startswith("unknown")


def test_who_says_nothing_of_a_version_is_told_of_it() -> None:
    class Forgotten(version1_plugin.Plugin):
        name, presets = "forgotten", {}

        def dense_up_to(self, options, layer):  # type: ignore[no-untyped-def,override]
            return 0

    with pytest.raises(PluginError, match="a plugin of version 1: say api_version = 2 for today's"):
        load_registry([Forgotten()])


def test_what_version_2_says_by_hooks_is_no_method_of_it() -> None:
    class Mixed(version1_plugin.Plugin):
        name, presets, api_version = "mixed", {}, 2

        def dense_up_to(self, options, layer):  # type: ignore[no-untyped-def,override]
            return 0

    with pytest.raises(PluginError, match="bench_ops is said by the hook register_ops since version 2"):
        load_registry([Mixed()])


def test_the_adapter_hands_every_call_on() -> None:
    plugin = version1_plugin.Plugin()
    adapter, options, layer = Version1(plugin), plugin.parse_options({}), LayerInfo()
    shape = ModelSpec(d_model=16).shape
    assert adapter.parse_options({"channels": 3}) == plugin.parse_options({"channels": 3})
    assert adapter.params(options, shape, layer) == adapter.active_params(options, shape, layer) == 256
    assert adapter.state(options, shape, layer) == plugin.state(options, shape, layer)
    assert adapter.traffic(options, shape, layer, context=5) == plugin.traffic(options, shape, layer, context=5)
    assert adapter.flops(options, shape, layer, phase="decode", context=5).matmul == 512
    assert adapter.check(options, shape, layer) is None
    assert adapter.parts(options) == ()
