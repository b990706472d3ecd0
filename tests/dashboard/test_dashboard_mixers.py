"""The page of the mixers: what is registered, what it costs, and what failed."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from archsearch_dashboard.address import COMPARED
from archsearch_dashboard.colours import FAMILIES, style_of
from archsearch_dashboard.figures.costs import cost_curves
from archsearch_dashboard.queries.mixers import (
    can_cost,
    counted,
    failures,
    layer_curves,
    mixers_table,
    names_of,
    narrowed,
    options_table,
    presets_table,
    state_table,
)
from dashboard_samples import open_page, registry

from archsearch.arch import ModelSpec
from archsearch.registry import Registry, load_registry

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
    options = options_table(linear, registry()).set_index("option")
    assert options.loc["decay", "meaning"].startswith("what forgets: nothing, a constant")
    assert options.loc["decay", "searched"] == "none, constant, head, channel"
    assert options.loc["decay", "default"] == "none"
    assert "decay=channel" in presets_table(linear, registry()).set_index("preset").loc["kda", "fixes"]
    sliding = state_table(registry().mixer("sliding"), registry(), MODEL)
    assert sliding["rows"].tolist()[0] == "one a token, at most 128"


def test_names_are_found_by_their_words_and_families() -> None:
    listed = mixers_table(registry())
    assert listed["mixer"].unique().tolist() == ["full", "linear", "sliding", "moba", "nsa"]
    assert listed.set_index("name").loc["kda", "published"] == "arXiv 2510.26692"
    assert narrowed(listed, "2412.06464", [])["name"].tolist() == ["gated-deltanet"]
    assert {*narrowed(listed, "Diag S", [])["name"]} >= {"gla", "kda"}
    assert narrowed(listed, "", ["sliding", "full"])["mixer"].unique().tolist() == ["full", "sliding"]
    assert narrowed(listed, "kda", ["full"]).empty
    assert narrowed(listed, ".*", []).empty
    assert counted(narrowed(listed, "", ["sparse"])) == "2 names of 2 mixers"
    assert counted(listed[:1]) == "1 name of 1 mixer"


def test_the_page_narrows_what_it_lists(url: str) -> None:
    app = open_page("mixers", find="2406.06484")
    assert not app.exception
    assert app.dataframe[0].value["name"].tolist() == ["deltanet"]
    app.text_input(key="find").set_value("no such words").run()
    assert any("Nothing is called so" in text.value for text in app.info)


def test_curves_are_of_one_layer() -> None:
    curves = layer_curves(["full", "kda"], registry(), MODEL, [1000, 2000])
    assert curves["kv_bytes"].tolist() == [2 * 64 * 2 * 1000, 2 * 64 * 2 * 2000, 0, 0]
    assert set(names_of(registry()).values()) == {"full", "sliding", "linear", "sparse"}
    assert all(can_cost(name, registry(), MODEL) is None for name in names_of(registry()))


def test_curves_of_a_family_have_its_colour_and_dashes_of_their_own() -> None:
    names = ["full", "kda", "gla"]
    curves = layer_curves(names, registry(), MODEL, [1000, 2000])
    figure = cost_curves(curves, "state_bytes", title="", unit="bytes", families=names_of(registry()))
    lines = {trace.name: (trace.line.color, trace.line.dash) for trace in figure.data}
    assert lines["full"] == (style_of("full").colour, "solid")
    assert lines["kda"] == (style_of("linear").colour, "solid")
    assert lines["gla"] == (style_of("linear").colour, "dash")


def test_the_whole_field_is_found_by_family_and_word_and_its_colours_stay_apart() -> None:
    """More than 60 presets: families carry the colours, and those of one family that are compared have dashes."""
    field = load_registry()
    listed = mixers_table(field)
    systems = {system for mixer in field.mixers() for system in mixer.systems}
    assert len(systems) > 60
    assert systems <= {*listed["name"]}
    assert not listed["name"].duplicated().any()
    turns = listed["family"].ne(listed["family"].shift()).sum()
    assert turns == listed["family"].nunique()  # each family stands together
    assert sum(len(narrowed(listed, "", [family])) for family in listed["family"].unique()) == len(listed)
    for name in ("kda", "mamba3", "indexshare-latents", "yoco"):
        assert name in {*narrowed(listed, name, [])["name"]}
    families = names_of(field)
    colours = {style_of(family).colour for family in families.values()}
    assert {*families.values()} <= {*FAMILIES}
    assert len(colours) == len({*families.values()})
    linear = [name for name, family in families.items() if family == "linear"][:COMPARED]
    curves = layer_curves(linear, field, MODEL, [1000, 2000])
    figure = cost_curves(curves, "state_bytes", title="", unit="bytes", families=families)
    assert {trace.line.color for trace in figure.data} == {style_of("linear").colour}
    assert len({trace.line.dash for trace in figure.data}) == COMPARED
