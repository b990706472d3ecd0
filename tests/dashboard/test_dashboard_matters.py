"""The page that says what matters: evidence, its size, and silence where nothing can be said."""

from __future__ import annotations

import random

import pandas as pd
import pytest
from archsearch_dashboard.queries.matters import (
    changes_table,
    dimensions,
    evidence,
    families,
    importance_table,
    share_of,
    signed,
    verdict,
)
from dashboard_samples import HTML_NAME, LONG_NAME, add_trial, new_search, open_page, registry

from archsearch.analysis.effects import Effect
from archsearch.analysis.objectives import Objective, objectives_of
from archsearch.storage import Store

KINDS = ("full(rope=0.0)", "linear(key_dim=4)", "deltanet(key_dim=4)", "gated-deltanet(key_dim=4)", "sliding(window=8)")


@pytest.mark.parametrize(
    "search",
    ["empty", "one-trial", "all-infeasible", "all-failed", "all-nan", "half", "quick", HTML_NAME, LONG_NAME],
    ids=["empty", "one-trial", "all-infeasible", "all-failed", "nan", "half", "quick", "html", "long"],
)
def test_every_search_has_a_page_without_an_error(url: str, search: str) -> None:
    app = open_page("matters", search=search, lines="true")
    assert not app.exception
    assert not app.error
    assert app.title[0].value == "What matters"


@pytest.mark.parametrize("search", ["empty", "all-infeasible", "all-failed"])
def test_without_a_measurement_it_says_why(url: str, search: str) -> None:
    assert "without a measurement" in open_page("matters", search=search).info[0].value


def test_the_objective_is_in_the_url(url: str) -> None:
    app = open_page("matters", search="quick", objective="state_bytes")
    assert app.segmented_control(key="objective_option").value == "state_bytes"


def test_what_was_not_exercised_is_left_out_and_counted(url: str) -> None:
    with Store.open(url, read_only=True) as store:
        found = evidence(store, store.search("quick"))
    assert "linear(key_dim=4) sliding(window=64) linear(key_dim=4)" not in set(found.table["pattern"])
    assert found.left_out == 1
    assert "less 1 whose sparsity never acted" in found.sentence


@pytest.fixture
def many(empty_url: str) -> Store:
    """A search of forty candidates in which every full layer adds 0.2."""
    rng = random.Random(0)
    with Store.open(empty_url) as store:
        search = new_search(store, "many")
        drawn: set[str] = set()
        while len(drawn) < 40:
            layers = [rng.choice(KINDS) for _ in range(3)]
            if " ".join(layers) not in drawn:
                drawn.add(" ".join(layers))
                score = 0.1 + 0.2 * layers.count(KINDS[0]) + rng.gauss(0, 0.01)
                add_trial(store, search, " ".join(layers), (score,))
    return Store.open(empty_url, read_only=True)


def test_a_built_in_effect_is_found_and_told(many: Store) -> None:
    search = many.search("many")
    found = evidence(many, search)
    recall = objectives_of(search)[0]
    kinds = families(found, registry())
    table = changes_table(share_of(found, recall, kinds, "full"), recall, "one more")
    assert table["so"].tolist()[0] == "better"
    assert float(table["mean change of recall"][0]) == pytest.approx(0.2, abs=0.02)
    assert set(importance_table(found, recall)["choice"]) == {f"layer{index}.mixer" for index in range(3)}
    axes = dimensions(found, objectives_of(search), kinds)
    assert [axis.label for axis in axes][-3:] == ["recall", "state_bytes", "decode_flops"]
    assert all(len(axis.values) == 40 for axis in axes)
    many.close()


@pytest.mark.parametrize(("count", "said"), [(1, "1 pair of candidates that"), (2, "2 pairs of candidates that")])
def test_one_pair_is_no_pairs(count: int, said: str) -> None:
    change = {"before": "a", "after": "b", "mean": 0.1, "error": float("nan"), "clear": False, "count": count}
    effect = Effect(levels=pd.DataFrame(), changes=pd.DataFrame([{**change, "method": "pairs"}]))
    told = changes_table(effect, Objective(name="recall", direction="maximize"), "one more")
    assert told["from"][0].startswith(said)


def test_a_sample_is_stated(many: Store) -> None:
    found = evidence(many, many.search("many"), most=25)
    assert found.sentence == "From 25 candidates: a sample of 25 of 40."
    many.close()


def test_the_page_of_many_shows_importances(many: Store) -> None:
    many.close()
    app = open_page("matters", search="many")
    assert not app.exception
    assert any("PED" in caption.value for caption in app.caption)


def test_candidates_are_drawn_as_lines_where_the_url_asks(many: Store) -> None:
    many.close()
    drawn = [len(open_page("matters", search="many", **query).get("plotly_chart")) for query in ({}, {"lines": "true"})]
    assert drawn[1] == drawn[0] + 1
    app = open_page("matters", search="many")
    app.toggle(key="lines").set_value(True).run()
    assert len(app.get("plotly_chart")) == drawn[1]


def test_changes_in_words(many: Store) -> None:
    recall, state, _ = objectives_of(many.search("many"))
    many.close()
    assert signed(-0.25, recall) == "−0.250"
    assert signed(2.0**20, state) == "+1 MiB"
    assert [verdict(1.0, 0.1, True, one) for one in (recall, state)] == ["better", "worse"]
    assert verdict(1.0, float("nan"), False, recall) == "one pair tells nothing"
    assert verdict(1.0, 2.0, False, recall) == "not told from zero"


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ("all-failed", r"resume all\-failed\` goes on with it\. Nothing can be said"),
        ("one-trial", r"1 candidate was drawn by the sampler"),
        ("one-trial", r"From 1 candidate\: every complete candidate"),
    ],
    ids=["none", "one-drawn", "from-one"],
)
def test_what_is_said_of_few_candidates_is_a_sentence(url: str, search: str, words: str) -> None:
    app = open_page("matters", search=search)
    assert any(words in str(said.value) for said in [*app.info, *app.caption])
