"""The page of the mixers: what is registered, what it costs, and what failed."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from archsearch_dashboard.queries.mixers import (
    can_cost,
    failures,
    layer_curves,
    mixers_table,
    names_of,
    options_table,
    presets_table,
    registered,
    state_table,
)
from dashboard_samples import open_page, registry

from archsearch.arch import ModelSpec
from archsearch.registry import Registry

MODEL = ModelSpec(d_model=64, n_heads=2, channel_mixer="none")


@pytest.mark.parametrize("mixer", ["full", "sliding", "linear", "moba", "nsa"])
def test_every_mixer_has_a_page(url: str, mixer: str) -> None:
    app = open_page("mixers", mixer=mixer)
    assert not app.exception
    assert not app.error
    assert app.selectbox(key="mixer").value == mixer
    assert any("Nothing was recorded on a card" in text.value for text in app.markdown)


def test_the_url_names_the_backbone_by_its_key(url: str) -> None:
    size = open_page("mixers", size="7B").selectbox(key="size_option")
    assert size.value == "7B"
    assert "7B (4096 wide, 32 heads of 128, 8 of keys and values)" in size.options
    assert open_page("mixers", size="9T").selectbox(key="size_option").value == "1B"


def test_the_page_needs_no_database(empty_url: str) -> None:
    app = open_page("mixers")
    assert not app.exception
    assert not app.error


def test_a_plugin_that_failed_is_shown_with_its_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Registry()
    broken.add_entry_point(EntryPoint(name="<b>bad</b>", value="no_such_module_here", group="archsearch"))
    monkeypatch.setattr("archsearch_dashboard.pages.mixers.registry", lambda: broken)
    app = open_page("mixers")
    assert not app.exception
    assert "no_such_module_here" in app.code[0].value
    assert "<b>" not in app.error[0].value
    assert failures(broken)["status"].tolist() == ["failed"]


def test_tables_tell_options_presets_and_states() -> None:
    linear = registry().mixer("linear")
    options = options_table(linear).set_index("option")
    assert options.loc["decay", "searched"] == "none, constant, head, channel"
    assert options.loc["decay", "default"] == "none"
    assert "decay=channel" in presets_table(linear, registry()).set_index("preset").loc["kda", "fixes"]
    sliding = state_table(registry().mixer("sliding"), registry(), MODEL)
    assert sliding["rows"].tolist()[0] == "one a token, at most 128"
    assert mixers_table(registry())["mixer"].tolist() == ["full", "linear", "moba", "nsa", "sliding"]
    said = registered(registry())
    assert said.startswith("5 mixers can be searched: full · linear (as linear, retnet, ")
    assert said.endswith(", kda) · moba · nsa · sliding.")


def test_curves_are_of_one_layer() -> None:
    curves = layer_curves(["full", "kda"], registry(), MODEL, [1000, 2000])
    assert curves["kv_bytes"].tolist() == [2 * 64 * 2 * 1000, 2 * 64 * 2 * 2000, 0, 0]
    assert set(names_of(registry()).values()) == {"full", "sliding", "linear", "sparse"}
    assert all(can_cost(name, registry(), MODEL) is None for name in names_of(registry()))
