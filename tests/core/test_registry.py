"""The registry finds plugins, isolates the broken one, and settles who owns a name."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archsearch.errors import ConflictError, PluginError, UnknownNameError
from archsearch.registry import PluginReport, Registry, load_registry

MIXER = """
from archsearch import MixerOptions, MixerPlugin, Flops, Traffic, hookimpl

class Plugin(MixerPlugin):
    name, family, summary, options = "{name}", "other", "a stand-in", MixerOptions
    presets = {presets}
    def params(self, options, shape, layer): return 0
    def flops(self, options, shape, layer, *, phase, context): return Flops()
    def traffic(self, options, shape, layer, *, context): return Traffic()
    def state(self, options, shape, layer): return ()
    def build(self, options, shape, layer): raise AssertionError

@hookimpl
def register_mixers(register):
    register(Plugin())
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a distribution of one module with an entry point, for this test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(distribution: str, source: str, *, entry: str | None = None) -> None:
        module = distribution.replace("-", "_") + "_module"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[archsearch]\n{entry or distribution} = {module}\n")
        sys.modules.pop(module, None)

    return install


def load(**environ: str) -> Registry:
    """A registry that sees no variables but these."""
    return load_registry(environ={f"ARCHSEARCH_{key.upper()}_PLUGINS": value for key, value in environ.items()})


def report_of(registry: Registry, name: str) -> PluginReport:
    """The one report of that plugin."""
    (report,) = (report for report in registry.reports() if report.name == name)
    return report


MIXERS = {
    "compressed",
    "conv",
    "evicting",
    "full",
    "indexed",
    "latent",
    "linear",
    "memory",
    "moba",
    "none",
    "nsa",
    "parallel",
    "shared",
    "simplicial",
    "sliding",
    "ssm",
    "static",
    "zorder",
}
"""The built-in plugins of mixers."""


def test_built_ins_come_by_the_same_door() -> None:
    registry = load()
    ours = {report.name: report for report in registry.reports() if report.distribution == "archsearch"}
    assert set(ours) == {*MIXERS, "tasks"}
    assert {report.status for report in ours.values()} == {"ok"}
    assert ours["linear"].version == "0.1.0"
    assert {"kda", "retnet", "gated-deltanet"} <= set(ours["linear"].presets)


def test_a_plugin_of_another_distribution_is_found(install: Callable[..., None]) -> None:
    install("my-mixer", MIXER.format(name="mine", presets={"mine-small": {}}))
    registry = load()
    assert registry.mixer("mine").name == "mine"
    assert registry.resolve("mine-small").plugin.name == "mine"
    assert report_of(registry, "my-mixer").version == "1.2"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param("import no_such_library", "no_such_library", id="import-error"),
        pytest.param("raise ValueError('boom')", "boom", id="raises-at-import"),
        pytest.param("raise SystemExit(3)", "SystemExit", id="exits-at-import"),
        pytest.param("def f(:", "SyntaxError", id="syntax-error"),
        pytest.param(
            "from archsearch import hookimpl\n@hookimpl\ndef register_mixers(wrong): pass", "wrong", id="bad-signature"
        ),
        pytest.param(
            "from archsearch import hookimpl\n@hookimpl\ndef register_mixer(register): pass",
            "register_mixer",
            id="misspelt-hook",
        ),
        pytest.param(
            "from archsearch import hookimpl\n@hookimpl\ndef register_mixers(register): register(3)",
            "3",
            id="not-a-mixer",
        ),
        pytest.param(MIXER.format(name="bad name", presets={}), "bad name", id="bad-name"),
        pytest.param(MIXER.format(name="mine", presets={"p": {"nope": 1}}), "nope", id="bad-preset"),
        pytest.param(
            MIXER.format(name="mine", presets={}).replace("presets = {}", "api_version = 99"),
            "99",
            id="future-contract",
        ),
    ],
)
def test_a_broken_plugin_is_isolated_and_reported(install: Callable[..., None], source: str, said: str) -> None:
    install("broken", source)
    install("sound", MIXER.format(name="sound", presets={}))
    registry = load()
    report = report_of(registry, "broken")
    assert report.status == "failed"
    assert said in (report.error or "")
    assert registry.mixer("sound")
    assert registry.mixer("full")
    with pytest.raises(UnknownNameError, match="broken"):
        registry.mixer("mine")


def test_a_half_registered_plugin_leaves_nothing(install: Callable[..., None]) -> None:
    install("half", MIXER.format(name="half", presets={}) + "    raise RuntimeError('after one')\n")
    with pytest.raises(UnknownNameError):
        load().mixer("half")


@pytest.mark.parametrize("shared", ["kda", "linear", "other"])
def test_a_name_claimed_twice_belongs_to_neither(install: Callable[..., None], shared: str) -> None:
    install("first", MIXER.format(name=shared, presets={}))
    install("second", MIXER.format(name="other", presets={}))
    registry = load()
    with pytest.raises(ConflictError, match=r"first .* and|and first") as raised:
        registry.resolve(shared)
    assert ("linear" if shared != "other" else "second") in str(raised.value)
    assert report_of(registry, "first").status == "conflict"
    assert shared not in [mixer.name for mixer in registry.mixers()]


def test_presets_of_a_mixer_in_conflict_fail_too(install: Callable[..., None]) -> None:
    install("first", MIXER.format(name="linear", presets={}))
    with pytest.raises(ConflictError, match="linear"):
        load().resolve("kda")


def test_block_list_never_imports(install: Callable[..., None]) -> None:
    install("danger", "raise SystemExit('imported')")
    report = report_of(load(block="danger"), "danger")
    assert report.status == "blocked"


def test_allow_list_loads_only_what_it_names() -> None:
    registry = load(load="full, archsearch/sliding")
    assert [mixer.name for mixer in registry.mixers()] == ["full", "sliding"]
    assert report_of(registry, "linear").status == "blocked"


def test_unknown_name_says_the_nearest(registry: Registry) -> None:
    with pytest.raises(UnknownNameError, match='did you mean "kda"'):
        registry.resolve("kdaa")
    with pytest.raises(UnknownNameError, match='did you mean "mqar"'):
        registry.task("mqra")


def test_a_notebook_mixer_is_registered_and_a_bad_one_refused_at_once() -> None:
    registry = load(load="full")
    space: dict[str, Any] = {}
    exec(MIXER.format(name="mine", presets={}), space)
    registry.add(space["Plugin"]())
    assert registry.mixer("mine").name == "mine"
    assert len(registry.sendable()) == 1
    with pytest.raises(PluginError, match="MixerPlugin"):
        registry.add(_Hooks())


class _Hooks:
    from archsearch import hookimpl

    @hookimpl
    def register_mixers(self, register: Callable[[Any], None]) -> None:
        register("not a mixer")
