"""A whole ladder without workers: what is carried up, what a rung becomes, going on, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ladder_bench import REGISTRY, RUNGS, Bench, Killed, posed
from search_fakes import fake_spec

from archsearch.analysis.ladder_json import ladder_json
from archsearch.analysis.ladder_reading import read_ladder
from archsearch.analysis.power_law import PowerLaw
from archsearch.arch import ArchSpec
from archsearch.errors import NothingFeasibleError, SpecError
from archsearch.search.ladder.cost import LadderCost, ladder_cost
from archsearch.search.ladder.rungs import rung_name, rung_spec
from archsearch.search.ladder.standing import check_standing
from archsearch.search.problem import Problem
from archsearch.search.runner import resume_search
from archsearch.search.spec import SearchSpec
from archsearch.storage import NewProposal, Store

TWO = [{"keep": 2, "n_layers": 4}]
LISTED = {"space": {"pattern": "listed", "architectures": ["dense*3", "window*3", "recurrent*3"]}}
SMALL = {"recipe": {"seeds": 1}, "search": {"trials": 3, "confirm_seeds": 0, "references": False}}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Store.open(f"sqlite:///{tmp_path / 'ladder.db'}") as store:
        yield Bench(store)


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A whole ladder, to be read alone."""
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('ladder')}/ladder.db") as store:
        bench = Bench(store)
        assert bench.climb(posed()).name == "fakes.rung3"
        yield bench


def test_survivors_are_trained_anew_size_by_size(climbed: Bench) -> None:
    assert climbed.driven == ["fakes", "fakes.rung2", "fakes.rung3"]
    second, third = (SearchSpec.from_dict(climbed.store.search(name).spec) for name in climbed.driven[1:])
    assert (second.model.d_model, second.model.n_layers, second.model.n_heads) == (32, 6, 2)
    assert (third.model.d_model, third.model.n_layers, third.model.n_heads) == (64, 7, 4)
    assert third.model.head_dim == 16
    assert (second.recipe.steps, second.recipe.seeds, third.recipe.steps, third.recipe.seeds) == (8, 2, 8, 3)
    assert (second.objectives.context, third.objectives.context) == (2048, 2048)
    assert second.climbed is not None
    assert (second.climbed.below, second.climbed.rung) == ("fakes", 2)
    assert second.space.architectures == tuple(one.pattern for one in second.climbed.kept if one.why != "reference")
    assert 4 <= len(second.space.architectures) <= 6
    assert second.search.references == ("dense*6", "window*6", "recurrent*6")
    assert not second.rung
    assert any("rung 2, fakes.rung2" in line and "carried up" in line for line in climbed.said)
    assert not any("is not known" in line for line in climbed.said)


def test_what_is_told_of_a_ladder(climbed: Bench) -> None:
    found = climbed.ladder()
    assert [rung.number for rung in found.rungs] == [1, 2, 3]
    assert found.planned == 3
    first, last = found.rungs[0], found.rungs[-1]
    assert {one.key for one in last.standings} <= {one.key for one in first.standings}
    assert all(one.scores["recall"] for rung in found.rungs for one in rung.standings)
    (recall,) = [metric for metric in found.metrics if metric.name == "recall"]
    steps = [step for step in found.steps if step.metric == recall]
    assert [(step.below, step.above) for step in steps] == [(1, 2), (2, 3)]
    assert steps[0].agreement.tau > 0.9
    assert all(move.below == move.above or not move.clear for move in steps[0].moves)
    laws = found.laws(recall)
    assert set(laws) == {one.key for one in last.standings}
    assert any(isinstance(law, PowerLaw) for law in laws.values()), laws
    data = json.loads(json.dumps(ladder_json(found)))
    assert [rung["search"] for rung in data["rungs"]] == ["fakes", "fakes.rung2", "fakes.rung3"]
    assert read_ladder(climbed.store, "fakes.rung2").name == "fakes"


def test_a_ladder_that_was_stopped_goes_on_where_it_stands(bench: Bench) -> None:
    budget = {"state_bytes": "300 KiB"}
    problem = posed([{**RUNGS[0], "seeds": 1, "budget": budget}, {"keep": 1, "steps": 9}], recipe={"seeds": 1})
    bench.ends = 10  # within the second rung, after the first rung's nine
    assert bench.climb(problem).state == "cancelled"
    assert bench.driven[-1] == "fakes.rung2"
    spec = bench.store.search("fakes.rung2").spec
    assert spec["budget"] == budget
    left = spec["climbed"]["left"]
    assert any("exceeds 300 KiB" in reason for reason in left.values())
    assert any(line.startswith("left behind: ") for line in bench.said)
    assert any("the noise of" in line and "is not known" in line for line in bench.said)
    assert bench.ladder().rungs[0].left == left
    bench.ends, before = 10_000, len(bench.store.trials(bench.store.search("fakes").id))
    bench.driven.clear()
    stored = SearchSpec.from_dict(bench.store.search("fakes").spec)
    assert bench.climb(Problem.of(stored, REGISTRY), resume=True).name == "fakes.rung3"
    assert bench.driven == ["fakes.rung2", "fakes.rung3"]
    assert bench.store.search("fakes.rung2").spec == spec
    assert len(bench.store.trials(bench.store.search("fakes").id)) == before
    refused = bench.store.trials(bench.store.search("fakes.rung2").id, kinds=["search"], states=["infeasible"])
    assert not refused
    bench.driven.clear()
    assert bench.climb(Problem.of(stored, REGISTRY), resume=True).state == "complete"
    assert bench.driven == []


def test_a_changed_spec_is_refused_before_a_rung_is_gone_on_with(climbed: Bench) -> None:
    with pytest.raises(SpecError, match=r"recipe.steps was 4 and is 5"):
        climbed.climb(posed(recipe={"seeds": 2, "steps": 5}), resume=True)
    with pytest.raises(SpecError, match="add --grow"):
        climbed.climb(posed([*RUNGS, {"keep": 1, "seeds": 4}]), resume=True)
    with pytest.raises(SpecError, match=r"rung\[1\] is begun, as fakes.rung3, and was another one then"):
        climbed.climb(posed([RUNGS[0], RUNGS[1] | {"seeds": 2}]), resume=True)


def test_a_rung_that_is_not_begun_may_be_another_one(bench: Bench) -> None:
    with pytest.raises(NothingFeasibleError, match=r"change rung\[0\] in the spec, and .* --resume --grow"):
        bench.climb(posed([{"steps": 8, "budget": {"state_bytes": 10}}], **SMALL))
    first = partial(resume_search, allowed=("rung",))
    assert bench.climb(posed([{"keep": 1, "steps": 8}], **SMALL), first=first).name == "fakes.rung2"


def ladder_of(store: Store) -> dict[str, Any]:
    return {
        record.name: (record.spec, [(one.digest, one.state) for one in store.trials(record.id)], record.state)
        for record in store.searches()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small ladder that was climbed at once."""
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('whole')}/ladder.db") as store:
        assert Bench(store).climb(posed(TWO, **SMALL, **LISTED)).state == "complete"
        return ladder_of(store)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [1, None, 4], ids=["first-rung", "between", "second-rung"])
def test_a_ladder_whose_driver_is_killed_anywhere_ends_as_one_that_was_not(
    bench: Bench, whole: dict[str, Any], ends: int | None
) -> None:
    problem = posed(TWO, **SMALL, **LISTED)
    bench.ends, bench.killed, bench.killed_between = 10_000 if ends is None else ends, True, ends is None
    with pytest.raises(Killed):
        bench.climb(problem)
    bench.ends, bench.killed_between = 10_000, False
    assert bench.climb(problem, resume=True).state == "complete"
    assert ladder_of(bench.store) == whole


def test_what_stands_in_the_place_of_a_rung_is_no_part_of_the_ladder(bench: Bench) -> None:
    spec = posed([{"keep": 2, "steps": 8}, {"keep": 1, "steps": 9}], **SMALL).spec

    def begin(number: int, *, rung: int) -> None:
        name = rung_name("fakes", number)
        climbed = {"ladder": "fakes", "rung": rung, "below": "x", "kept": []}
        tables = {"rung": spec.to_json()["rung"]} if number == 1 else {"climbed": climbed}
        at = bench.store.create_search(name, fake_spec(name=name, **SMALL, **tables), [])
        bench.store.set_search_state(at, "complete")

    for number in (1, 2, 3):
        begin(number, rung=number)
    check_standing(spec, bench.store, new=False)
    bench.store.remove_searches(["fakes.rung2"])
    with pytest.raises(SpecError, match=r'"fakes.rung3" is there already, and was not begun after the rung below it'):
        bench.climb(posed([{"keep": 2, "steps": 8}, {"keep": 1, "steps": 9}], **SMALL), resume=True)
    begin(2, rung=2)
    with pytest.raises(SpecError, match=r'"fakes.rung3" is there already'):  # it was begun before
        check_standing(spec, bench.store, new=False)
    bench.store.remove_searches(["fakes"])
    with pytest.raises(SpecError, match=r'"fakes.rung2" is there already.*archsearch rm fakes.rung2'):
        bench.climb(posed([{"keep": 2, "steps": 8}, {"keep": 1, "steps": 9}], **SMALL))
    with pytest.raises(SpecError, match='is a rung of "fakes", which the database has no more'):
        read_ladder(bench.store, "fakes.rung3")
    assert bench.driven == []


def test_candidates_that_are_added_to_a_complete_rung_are_trained(bench: Bench) -> None:
    problem = posed([{"keep": 1, "n_layers": 4}], **SMALL)
    assert bench.climb(problem).state == "complete"
    for name, depth in (("fakes", 3), ("fakes.rung2", 4)):
        arch = ArchSpec.parse(f"window*{depth}", REGISTRY, problem.space.model)
        new = NewProposal(digest=arch.digest, arch=arch.to_json(), pattern="window")
        bench.store.propose(bench.store.search(name).id, [new], owner="me")
    bench.driven.clear()
    assert bench.climb(problem, resume=True).state == "complete"
    assert bench.driven == ["fakes", "fakes.rung2"]
    for name in bench.driven:
        assert not bench.store.proposals(bench.store.search(name).id, waiting=True)


def test_survivors_are_trained_to_the_end_where_the_search_stops_the_hopeless() -> None:
    problem = posed(search={"trials": 3, "early_stop": True})
    assert problem.spec.search.early_stop is not None
    assert rung_spec(problem.spec, 2, ["dense*6"], []).search.early_stop is None


def test_a_rung_that_is_refused_leaves_no_search(bench: Bench) -> None:
    with pytest.raises(NothingFeasibleError, match='no candidate of "fakes" can be carried up to rung 2'):
        bench.climb(posed([{**RUNGS[0], "budget": {"state_bytes": 10}}], search={"trials": 2, "confirm_seeds": 0}))
    assert [record.name for record in bench.store.searches()] == ["fakes"]


def test_the_cost_of_all_rungs_is_known_before(bench: Bench) -> None:
    problem = posed()
    cost = ladder_cost(problem, bench.store)
    assert [rung.name for rung in cost.rungs] == ["fakes", "fakes.rung2", "fakes.rung3"]
    assert [rung.trained for rung in cost.rungs] == [(9, 9), (7, 9), (5, 6)]
    assert [rung.seeds for rung in cost.rungs] == [2, 2, 3]
    assert 0 < cost.rungs[1].flops[0] < cost.rungs[1].flops[1]
    assert cost.hours is None
    assert cost.beyond(None, None) == []
    assert "above ladder.max_flops" in cost.beyond(cost.flops[1] / 2, None)[0]
    assert cost.beyond(cost.flops[1] * 2, 1.0) == ["an unknown time, with ladder.max_hours = 1"]


def test_what_may_confirm_a_front_and_what_teaches_counts_too(bench: Bench) -> None:
    def cost(**tables: Any) -> LadderCost:
        return ladder_cost(posed(**tables), bench.store)

    plain, confirmed = cost(), cost(search={"trials": 6, "confirm_seeds": 2})
    assert confirmed.rungs[0].flops == (plain.rungs[0].flops[0], 2 * plain.rungs[0].flops[1]), "two seeds, and two more"
    assert confirmed.rungs[0].trainings[1] == 2 * plain.rungs[0].trainings[1]
    assert confirmed.rungs[1] == plain.rungs[1], "a rung has confirm_seeds of its own"
    taught = cost(recipe={"seeds": 2, "teacher": "dense"})
    for one, before in zip(taught.rungs, plain.rungs, strict=True):
        assert one.trained == before.trained
        for end, first in zip(one.flops, before.flops, strict=True):
            assert end > first
    assert cost(recipe={"seeds": 2, "teacher": "self"}) == plain


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "fewer layers": ([{"n_layers": 2}], r"rung\[0\].n_layers = 2, and the rung below has 3"),
    "a size that does not fit": ([{"n_heads": 3}], r"rung\[0\]: .*n_heads = 3 does not divide d_model = 16"),
    "a budget of nothing": ([{"steps": 8, "budget": {"state_byte": 3}}], r"rung\[0\]: .*state_byte"),
    "nothing else than below": ([{"keep": 2, "d_model": 16, "context": 64}], r"rung\[0\] would train what the rung"),
    "another task": ([{"tasks": [{"name": "bits"}]}], r"rung\[0\]: "),
    "a learning rate": ([{"learning_rates": [0.0]}], r"rung\[0\].*learning_rates"),
}


@pytest.mark.parametrize(("rungs", "why"), WRONG.values(), ids=WRONG)
def test_a_rung_that_cannot_be_is_refused_before_anything_is_trained(
    rungs: list[dict[str, Any]], why: str, bench: Bench
) -> None:
    with pytest.raises(SpecError, match=why):
        ladder_cost(posed(rungs), bench.store)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "steps and tokens": ({"rung": [{"steps": 3, "tokens": 100}]}, "steps and tokens"),
    "a cap below": ({"rung": [{"keep": 3, "at_most": 2}]}, "raise at_most"),
    "more than there are": ({"rung": [{"keep": 2}, {"keep": 9}]}, r"rung\[1\].keep = 9"),
    "limits alone": ({"ladder": {"max_flops": 1.0}}, r"\[ladder\] goes with \[\[rung\]\]"),
    "a name too long": ({"name": "n" * 95, "rung": [{}]}, "at most 90 letters"),
    "backbones that are drawn": (
        {"space": {"mixers": ["dense"], "backbones": [{"n_heads": 1}]}},
        'space.backbones goes with pattern = "listed"',
    ),
    "a backbone too few": (
        {"space": {"pattern": "listed", "architectures": ["dense", "window"], "backbones": [{"n_heads": 1}]}},
        "space.backbones has 1 tables, and space.architectures 2 patterns",
    ),
    "an unknown size": (
        {"space": {"pattern": "listed", "architectures": ["dense"], "backbones": [{"d_model": 1}]}},
        r'unknown key "space.backbones\[0\].d_model"',
    ),
    "backbones that are compared": (
        {"space": {"pattern": "listed", "architectures": ["dense"], "backbones": [{"n_heads": 1}]}, "compare": {}},
        r"not \[compare\], which is of one backbone",
    ),
}


@pytest.mark.parametrize(("tables", "why"), REFUSED.values(), ids=REFUSED)
def test_tables_that_do_not_go_together_are_refused(tables: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        SearchSpec.from_dict(fake_spec(**tables))


def test_a_width_that_was_written_out_is_asked_for(bench: Bench) -> None:
    model = {"channel_mixer": "swiglu", "ffn_dim": 48}
    with pytest.raises(SpecError, match=r"give rung\[0\].ffn_dim too \(96 keeps its share\)"):
        ladder_cost(posed(model=model), bench.store)
    left_out = posed(model={"channel_mixer": "swiglu"})
    stored = SearchSpec.from_dict(json.loads(json.dumps(left_out.spec.to_json())))
    assert stored == left_out.spec
    assert ladder_cost(Problem.of(stored, REGISTRY), None) == ladder_cost(left_out, None)
