"""Evaluators in a search: asked by the spec, keyed, and objectives like the metrics of the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.errors import SpecError
from archsearch.evaluator import Evaluator, Metric
from archsearch.search.ledger import Ledger
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.source import Part
from archsearch.storage import Store
from archsearch.tasks import builtin


class Probe(Evaluator):
    name = "probe"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "flips": Metric(direction="minimize"),
        "reach": Metric(direction="maximize", unit="tokens"),
    }

    def evaluate(self, arch: Any, model: Any, task: Any, trained: Any) -> Mapping[str, float]:
        raise NotImplementedError


class Twin(Probe):
    name = "twin"


REGISTRY = fake_registry()
REGISTRY.add(Probe())
REGISTRY.add(Twin())


def problem(**tables: Any) -> Problem:
    given = {
        "tasks": [{"name": "recall-task"}, {"name": "bits"}],
        "metrics": [{"name": "probe", "tasks": ["recall-task"]}],
        "objectives": {"maximize": ["recall-task.reach"], "minimize": ["recall-task.flips", "state_bytes"]},
        **tables,
    }
    return Problem.of(SearchSpec.from_dict(fake_spec(**given)), REGISTRY)


def test_an_evaluator_is_asked_about_the_tasks_that_the_spec_names_and_offers_its_metrics() -> None:
    found = problem()
    assert found.evaluators == {"recall-task": ("probe",)}
    assert [(one.name, one.direction) for one in found.objectives[:2]] == [
        ("recall-task.reach", "maximize"),
        ("recall-task.flips", "minimize"),
    ]
    everywhere = problem(metrics=[{"name": "probe"}], objectives={"maximize": ["bits.reach"], "minimize": []})
    assert everywhere.evaluators == {"recall-task": ("probe",), "bits": ("probe",)}


def test_it_is_a_part_of_the_search_and_the_stored_spec_asks_for_it_again() -> None:
    found = problem()
    assert "evaluator:probe" in {part.name for part in found.parts()}
    plain = problem(metrics=[], objectives={"maximize": ["recall"], "minimize": []})
    assert "evaluator:probe" not in {part.name for part in plain.parts()}
    assert "metrics" not in plain.spec.to_json()
    assert SearchSpec.from_dict(found.spec.to_json()) == found.spec
    (part,) = REGISTRY.parts_named(["evaluator:probe"])
    assert part == Part(
        name="evaluator:probe", version="(unpackaged) 0 r1", digest=REGISTRY.evaluator_source_of("probe")
    )


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"metrics": [{"name": "prob"}]}, r'metrics\[0\]: unknown evaluator "prob" \(did you mean "probe"\?\)'),
        ({"metrics": [{"name": "probe", "tasks": ["bit"]}]}, r'metrics\[0\]\.tasks names "bit"'),
        ({"metrics": [{"name": "probe"}, {"name": "probe", "tasks": ["bits"]}]}, "asked twice about models of bits"),
        ({"metrics": [{"name": "probe"}, {"name": "twin"}]}, '"flips" of the evaluator "twin" is a metric of'),
        ({"objectives": {"maximize": ["recall-task.flips"], "minimize": []}}, "put it in minimize"),
        ({"objectives": {"maximize": ["bits.reach"], "minimize": []}}, "metrics of bits are bits_per_byte"),
        ({"objectives": {"maximize": ["recall-task.reech"], "minimize": []}}, 'did you mean "reach"'),
        ({"metrics": {"name": "probe"}}, "metrics"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_key(tables: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        problem(**tables)


def test_a_result_without_its_numbers_is_not_taken(tmp_path: Path) -> None:
    """The key of what is asked about differs, and that of the other task stays."""
    keys = {}
    with Store.open(f"sqlite:///{tmp_path / 'keys.db'}") as store:
        for label, metrics in {"asked": [{"name": "probe", "tasks": ["recall-task"]}], "plain": []}.items():
            found = problem(metrics=metrics, objectives={"maximize": ["recall"], "minimize": []})
            ledger = Ledger(found, store, 1)
            arch = found.references[0]
            keys[label] = [ledger._key(arch, name, task, 0) for name, task in found.tasks.items()]
    assert keys["asked"][0] != keys["plain"][0]
    assert keys["asked"][1] == keys["plain"][1]


HOPS = fake_registry()
HOPS.add(builtin, name="built-in")


def test_each_number_of_hops_may_be_an_objective_of_its_own() -> None:
    names = ["facts.accuracy[1 hop]", "facts.accuracy[2 hops]", "multihop.accuracy[1 hop]"]
    given = {"tasks": [{"name": "facts"}, {"name": "multihop"}], "objectives": {"maximize": names, "minimize": []}}
    found = Problem.of(SearchSpec.from_dict(fake_spec(**given)), HOPS)
    assert [objective.name for objective in found.objectives] == names


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("facts.accuracy[3 hops]", r"facts has no such kind.*known are facts\.accuracy\[1 hop\], facts\.accuracy\[2"),
        ("state_tracking.accuracy[quarter 9]@2x", r"known are state_tracking\.accuracy\[quarter 3\]@2x"),
    ],
)
def test_a_kind_of_position_that_no_sequence_has_is_refused(name: str, told: str) -> None:
    task = name.partition(".")[0]
    given = {"tasks": [{"name": task}], "objectives": {"maximize": [name], "minimize": []}}
    with pytest.raises(SpecError, match=told):
        Problem.of(SearchSpec.from_dict(fake_spec(**given)), HOPS)
