"""The page that compares: which architectures stand there, their differences, and patterns that are typed in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from archsearch_dashboard.queries.compare import WITH_UNITS, cost_table, curves_of, differences, gather, noise_of
from archsearch_dashboard.shapes import ArchShape
from dashboard_samples import HTML_NAME, LONG_NAME, MODEL, arch_of, costs_of, every_state, open_page, registry

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.storage import Store


@pytest.mark.parametrize(
    "search",
    ["empty", "one-trial", "all-infeasible", "all-failed", "all-nan", "half", HTML_NAME, LONG_NAME],
    ids=["empty", "one-trial", "all-infeasible", "all-failed", "nan", "half", "html", "long"],
)
def test_every_search_has_a_page_without_an_error(url: str, search: str) -> None:
    app = open_page("compare", search=search)
    assert not app.exception
    assert not app.error
    assert app.title[0].value == "Compare"


def test_the_front_and_a_reference_are_suggested(url: str) -> None:
    app = open_page("compare", search="quick")
    assert len(app.multiselect(key="compared_trials").value) >= 3
    assert app.query_params["trials"]


def test_the_url_names_trials_and_patterns(url: str, trials: dict[str, int]) -> None:
    wanted = [trials["confirm-mixed"], trials["all-full"]]
    app = open_page("compare", search="quick", trials=",".join(map(str, wanted)), pattern=["[kda full]*2", "full*3"])
    assert app.multiselect(key="compared_trials").value == wanted
    assert app.multiselect(key="compared_patterns").value == ["[kda full]*2", "full*3"]
    assert not app.error
    named = next(frame.value for frame in app.dataframe if "architecture" in frame.value)
    assert named["architecture"].tolist() == [
        f"1 · trial {wanted[0]}",
        f"2 · trial {wanted[1]}",
        "3 · typed in",
        "4 · typed in",
    ]


def test_a_pattern_that_cannot_be_read_points_at_the_character(url: str, trials: dict[str, int]) -> None:
    app = open_page("compare", search="quick", trials=str(trials["mixed"]), pattern=["full nope*2"])
    assert not app.exception
    lines = app.code[0].value.splitlines()
    assert lines[-1].index("^") == lines[-2].index("nope")


def test_a_layer_differs_by_the_width_of_its_channel_mixer(url: str) -> None:
    model = ModelSpec(**{**MODEL, "channel_mixer": "swiglu"})
    with Store.open(url) as store:
        compared, refused = gather(store, [], ["full*2", "full full:ffn_dim=8"], model, registry())
    assert not refused
    layers = compared[1].layers
    assert layers["differs"].tolist() == [False, True]
    assert (layers["name"].tolist(), layers["text"].tolist()[1]) == (["full"] * 2, "full:ffn_dim=8")
    assert layers["options"].tolist()[1].endswith(" :ffn_dim=8")
    kept = ArchShape.model_validate(compared[1].arch.to_json() if compared[1].arch else {}).model_dump()
    assert [layer["ffn_dim"] for layer in kept["layers"]] == [None, 8]
    assert ArchSpec.from_json(kept, registry()) == compared[1].arch


def test_costs_alone_where_nothing_was_measured(url: str) -> None:
    app = open_page("compare", search="empty", pattern=["kda*3"])
    assert any("None of these was measured" in info.value for info in app.info)


def test_six_stand_side_by_side_at_most(url: str) -> None:
    app = open_page("compare", search="quick", trials="", pattern=[f"full*{count}" for count in range(1, 9)])
    assert not app.exception
    named = next(frame.value for frame in app.dataframe if "architecture" in frame.value)
    assert len(named) == 6


def test_differences_say_what_tells_their_noise(url: str, trials: dict[str, int]) -> None:
    with Store.open(url, read_only=True) as store:
        wanted = [trials["mixed"], trials["all-full"], trials["nan"]]
        compared, refused = gather(store, wanted, ["full*3"], ModelSpec(), registry())
        noise = noise_of(store.values_frame("quick", ("mqar.accuracy",), ("test",)))
    assert not refused
    assert noise.freedom > 5
    table = differences(compared, {"mqar.accuracy": noise})
    assert table["arch"].tolist() == [item.label for item in compared[:3]]
    assert table["noise"].tolist()[1] == "pooled"
    assert table["difference"][1] == pytest.approx((0.99 + 1.0) / 2 - (0.95 + 0.9) / 2)
    assert table["low"][1] < table["difference"][1] < table["high"][1]
    assert table["difference"].isna()[2]
    assert differences(compared, {})["noise"][1] == "unknown"


def test_a_trial_that_is_not_there_is_refused_and_the_rest_compared(url: str, trials: dict[str, int]) -> None:
    with Store.open(url, read_only=True) as store:
        compared, refused = gather(store, [999999, trials["mixed"]], [], ModelSpec(), registry())
    assert [one.given for one in refused] == ["trial 999999"]
    assert [item.label for item in compared] == [f"1 · trial {trials['mixed']}"]


def test_layers_that_differ_are_marked_and_costs_are_related_to_the_first(url: str) -> None:
    with Store.open(url, read_only=True) as store:
        compared, _ = gather(store, [], ["full kda full", "full full full kda"], ModelSpec(), registry())
    assert compared[1].layers["differs"].tolist() == [False, True, False, True]
    table = cost_table(compared, curves_of(compared, registry()), 32768).set_index("cost")
    assert table.loc["kv_bytes"].tolist() == ["16 MiB", "24 MiB (1.5x)"]


@pytest.mark.parametrize(
    ("page", "default", "other"), [("compare", "kv_bytes", "traffic"), ("mixers", "traffic", "state_bytes")]
)
def test_the_url_names_the_cost_by_its_key(url: str, page: str, default: str, other: str) -> None:
    app = open_page(page, search="quick")
    control = app.button_group(key="cost_option")
    assert control.value == default
    assert "cost" not in app.query_params
    control.set_value(other).run()
    assert app.query_params["cost"] == other
    assert open_page(page, search="quick", cost=other).button_group(key="cost_option").value == other
    app.button_group(key="cost_option").set_value(default).run()
    assert "cost" not in app.query_params
    assert not app.exception


@pytest.mark.parametrize("page", ["compare", "mixers", "architecture"])
def test_an_unknown_cost_or_context_in_the_url_gives_way_to_the_default(url: str, page: str) -> None:
    app = open_page(page, search="quick", cost="KV bytes", context="seven")
    assert not app.exception
    assert not app.error
    assert not app.warning
    assert "cost" not in app.query_params


def test_the_architecture_page_keeps_cost_and_context_by_key(url: str) -> None:
    app = open_page("architecture", search="quick", cost="prefill_flops", context="131072")
    assert app.selectbox(key="cost_option").value == "prefill_flops"
    assert app.selectbox(key="context_option").value == 131072
    app.selectbox(key="context_option").set_value(1024).run()
    assert app.query_params["context"] == "1024"
    assert app.query_params["cost"] == "prefill_flops"


def test_downloaded_curves_name_their_units(url: str) -> None:
    with Store.open(url, read_only=True) as store:
        compared, _ = gather(store, [], ["full*3"], ModelSpec(d_model=64, n_heads=2), registry())
    curves = curves_of(compared, registry()).frame([1024]).rename(columns=WITH_UNITS)
    assert all(name.endswith(("_tokens", "_bytes", "_flops")) for name in curves.columns if name != "arch")


def test_an_empty_pattern_in_the_url_is_none(url: str) -> None:
    app = open_page("compare", search="quick", pattern=["", "  ", "full*3"])
    assert not app.error
    assert app.multiselect(key="compared_patterns").value == ["full*3"]


@pytest.fixture
def small_vocabulary(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The search "quick" with models of 33 words, of which its spec does not tell; its trials by a short name."""
    monkeypatch.setitem(MODEL, "vocab_size", 33)
    for kept in (arch_of, costs_of):
        kept.cache_clear()
    with Store.open(empty_url) as store:
        yield every_state(store)
    for kept in (arch_of, costs_of):
        kept.cache_clear()


@pytest.mark.parametrize("beside", ["confirmed-by-another", "none", "unknown"])
def test_a_typed_architecture_is_costed_on_the_backbone_that_was_measured(
    small_vocabulary: dict[str, int], beside: str
) -> None:
    given = {"confirmed-by-another": str(small_vocabulary["delta"]), "none": "", "unknown": "99999"}[beside]
    app = open_page("compare", search="quick", trials=given, pattern=["[deltanet(key_dim=4)]*3"])
    params = app.dataframe[-1].value.set_index("cost").loc["params"]
    assert params.iloc[-1].startswith("32.2 k")
