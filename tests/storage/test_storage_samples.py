"""Samples: which candidates are drawn, and that their trials and numbers come whole."""

from __future__ import annotations

from collections.abc import Callable

from archsearch.storage import MetricValue, NewTrial, Store

AddTrial = Callable[..., int]


def test_an_empty_search_gives_an_empty_sample(store: Store, search_id: int) -> None:
    found = store.sample("first", 10)
    assert (found.complete, dict(found.archs), len(found.trials), len(found.metrics)) == (0, {}, 0, 0)
    assert found.whole


def test_the_lowest_digests_are_drawn_with_all_their_trials(store: Store, search_id: int, add_trial: AddTrial) -> None:
    drawn = {name: add_trial(digest=name, state="complete", arch={"layers": [name]}) for name in ("c", "a", "b")}
    confirm = add_trial(digest="a", state="diverged", kind="confirm", parent=drawn["a"])
    add_trial(digest="0", state="infeasible")
    store.add_metrics(drawn["a"], [MetricValue(name="recall", split="test", value=0.5, seed=0)])
    store.add_metrics(drawn["c"], [MetricValue(name="recall", split="test", value=0.9, seed=0)])

    found = store.sample("first", 2)

    assert found.complete == 3
    assert not found.whole
    assert sorted(found.archs) == ["a", "b"]
    assert found.archs["b"] == {"layers": ["b"]}
    assert sorted(found.trials["trial"]) == sorted([drawn["a"], drawn["b"], confirm])
    assert set(found.metrics["trial"]) == {drawn["a"], drawn["b"], confirm}
    assert found.metrics.loc[found.metrics["name"] == "recall", "value"].tolist() == [0.5]
    assert store.sample("first", 3).whole


def test_the_database_says_what_the_lowest_are(store: Store, search_id: int, add_trial: AddTrial) -> None:
    for digest in ("b", "A", "B", "a"):
        add_trial(digest=digest, state="complete")
    assert [len(store.sample("first", count).archs) for count in range(5)] == [0, 1, 2, 3, 4]


def test_choices_are_those_of_a_sampler_not_of_a_reference(store: Store, search_id: int, add_trial: AddTrial) -> None:
    add_trial(digest="a", state="complete", kind="reference", params={})
    add_trial(digest="a", state="complete", params={"layer0.mixer": "full"})
    assert store.sample("first", 5).params == {"a": {"layer0.mixer": "full"}}


def test_other_searches_stay_out(store: Store, search_id: int, add_trial: AddTrial) -> None:
    add_trial(digest="a", state="complete")
    other = store.create_search("other", {}, [])
    store.add_trial(
        other,
        NewTrial(
            kind="search",
            state="complete",
            arch={"layers": []},
            digest="a",
            pattern="p",
            params={},
            seeds=[],
            costs={},
            violations={},
        ),
    )
    assert len(store.sample("first", 5).trials) == 1


def test_architectures_of_some_trials_by_their_ids(store: Store, search_id: int, add_trial: AddTrial) -> None:
    one, other = (add_trial(digest=name, state="complete", arch={"layers": [name]}) for name in ("a", "b"))
    add_trial(digest="c", state="complete", arch={"layers": ["c"]})
    assert store.archs({one, other}) == {one: {"layers": ["a"]}, other: {"layers": ["b"]}}
    assert store.archs([]) == {}
