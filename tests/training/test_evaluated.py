"""Evaluators: what they find stands beside the task's own numbers, and what is wrong with it is told."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from archsearch import hookimpl
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import ArchsearchError, PluginError
from archsearch.evaluator import Evaluator, Metric, Trained
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.tasks import resolve_task
from archsearch.tasks.copying import Copying
from archsearch.testing import EvaluatorConformance
from archsearch.testing.toy import ToyPlugin
from archsearch.training import Evaluation, measurement_key

RECIPE = Recipe(steps=2, batch_size=4, eval_every=2, device="cpu")


class Norm(Evaluator):
    """How large the weights are, how the model does on the first rows, and a number by chance."""

    name = "norm"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "weight_norm": Metric(direction="minimize"),
        "surprise": Metric(direction="minimize", unit="nats"),
        "drawn": Metric(direction="maximize"),
    }

    def evaluate(self, arch: Any, model: Any, task: Any, trained: Trained) -> Mapping[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        batch = task.evaluation(trained.split)[""].take(slice(0, 8))
        nll, _ = trained.scores(batch)
        weights = torch.cat([weight.flatten() for weight in model.parameters()])
        found = float(weights.norm())
        for weight in model.parameters():
            weight.zero_()  # undone before anybody else looks
        return {
            "weight_norm": found,
            "surprise": float(nll[batch.scored].mean()),
            "drawn": float(torch.rand(())),
        }


class Given(Evaluator):
    """Whatever it was made with."""

    name = "given"
    metrics: ClassVar[Mapping[str, Metric]] = {"mine": Metric(direction="maximize")}

    def __init__(self, found: Any) -> None:
        self.found = found

    def evaluate(self, arch: Any, model: Any, task: Any, trained: Trained) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class Small(Copying):
    """Few rows, so that a training takes no time."""

    name = "small"
    evaluation_rows: ClassVar = {"validation": 16, "test": 16}


class Tasks:
    @hookimpl
    def register_tasks(self, register: Any) -> None:
        register(Small)


def registry_of(*evaluators: Evaluator) -> Registry:
    registry = Registry()
    for plugin in (ToyPlugin(), *evaluators):
        registry.add(plugin)
    registry.add(Tasks(), name="small")
    return registry


def measured(registry: Registry, *names: str) -> Any:
    model = ModelSpec(d_model=16, n_heads=2, channel_mixer="none", short_conv=4)
    task = resolve_task("small", registry)
    evaluation = Evaluation(
        ArchSpec.parse("toy", registry, model), task, RECIPE, 0, registry=registry, evaluators=names
    )
    while not evaluation.done:
        evaluation.advance(5.0)
    return evaluation.measurement()


def test_their_numbers_stand_beside_those_of_the_task_on_both_splits() -> None:
    registry = registry_of(Norm())
    plain, asked = measured(registry), measured(registry, "norm")
    for split in ("validation", "test"):
        own = {name: value for name, value in getattr(asked, split).items() if name not in Norm.metrics}
        assert own == getattr(plain, split)
        assert set(getattr(asked, split)) - set(own) == set(Norm.metrics)
    assert asked.validation["weight_norm"] == asked.test["weight_norm"] > 0
    assert asked.validation["surprise"] != asked.test["surprise"]
    assert asked.test["drawn"] == measured(registry, "norm").test["drawn"]


def test_their_version_and_source_are_in_the_key() -> None:
    registry = registry_of(Norm(), Given({"mine": 1.0}))
    plain, asked = measured(registry), measured(registry, "norm")
    assert asked.key != plain.key
    assert {"evaluator:norm", "source:evaluator:norm"} == set(asked.versions) - set(plain.versions)
    assert asked.versions["evaluator:norm"].endswith("r1")
    arch, task = ArchSpec.from_json(asked.arch, registry), resolve_task("small", registry)
    given = {"device": "cpu", "form": "auto"}
    keys = {
        names: measurement_key(arch, task, RECIPE, 0, registry, evaluators=names, **given)
        for names in ((), ("norm",), ("given",), ("norm", "given"))
    }
    assert len(set(keys.values())) == 4
    other = registry_of(Given({"mine": 2.0}))
    assert measurement_key(arch, task, RECIPE, 0, other, evaluators=("given",), **given) != keys["given",]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"mine": float("nan")}, r'evaluator "given": evaluate gave mine = nan, wanted a finite number'),
        ({"mine": True}, "evaluate gave mine = True"),
        ({"mine": "0.5"}, "evaluate gave mine = '0.5'"),
        ({"mine": float("-inf")}, "evaluate gave mine = -inf"),
        ({"mine": 10**400}, r"evaluate gave mine = 1000+\.\.\., wanted a finite number of at most 1e\+100"),
        ({"mine": 10**5000}, "evaluate gave mine = a int, wanted"),
        ({"mine": -1e200}, r"evaluate gave mine = -1e\+200, wanted"),
        ({"mine": 1.0, "mime": 2.0}, r'gave "mime" \(did you mean "mine"\?\), which metrics does not declare'),
        ({}, "gave no mine: give a number"),
        (None, "gave a NoneType, wanted a mapping"),
        (KeyError("x"), r'evaluator "given" \(mine\) on small:.*: evaluate raised KeyError'),
        (SystemExit(0), "evaluate raised SystemExit"),
    ],
)
def test_what_is_wrong_names_the_evaluator_and_the_metric(found: Any, told: str) -> None:
    given = Given(found) if not isinstance(found, SystemExit) else _Leaves(found)
    with pytest.raises(ArchsearchError, match=told):
        measured(registry_of(given), "given")


class Careless(Given):
    """Leaves the model, and the process, as nobody wants to find them."""

    metrics: ClassVar[Mapping[str, Metric]] = {"mine": Metric(direction="minimize")}

    def evaluate(self, arch: Any, model: Any, task: Any, trained: Trained) -> Any:
        before = float(torch.cat([weight.flatten() for weight in model.parameters()]).norm())
        model.half().train()
        model.register_forward_hook(lambda *_: None)
        del next(iter(model.children())).weight
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(7)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        return {"mine": -before}


def test_what_an_evaluator_does_to_the_model_and_the_process_is_seen_by_no_other() -> None:
    registry = registry_of(Careless(None), Norm())
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    found = measured(registry, "given", "norm")
    after = random.random(), float(np.random.random()), float(torch.rand(()))
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    assert after == (random.random(), float(np.random.random()), float(torch.rand(())))
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (torch.float32, threads)
    assert found.validation["mine"] == found.test["mine"] < 0
    alone = measured(registry, "norm")
    for name in Norm.metrics:
        assert (found.validation[name], found.test[name]) == (alone.validation[name], alone.test[name])


class _Leaves(Given):
    def evaluate(self, arch: Any, model: Any, task: Any, trained: Trained) -> Any:
        raise SystemExit(0)


def test_a_metric_that_the_model_has_already_is_refused() -> None:
    class Taken(Given):
        metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": Metric(direction="maximize")}

    with pytest.raises(PluginError, match='"accuracy" is a metric of the task or of another evaluator'):
        measured(registry_of(Taken({"accuracy": 1.0})), "given")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "no name"}, "cannot be an evaluator name"),
        ({"version": -1}, "version = -1"),
        ({"metrics": {}}, "name at least one"),
        ({"metrics": {"mine": "maximize"}}, r"write Metric\(direction"),
        ({"metrics": {"mine": Metric(direction="up")}}, "one of maximize, minimize"),  # type: ignore[arg-type]
        ({"metrics": {"a.b": Metric(direction="maximize")}}, "cannot be a metric name"),
        ({"evaluate": lambda self, model: {}}, r"cannot be called as evaluate\(arch, model, task, trained\)"),
    ],
)
def test_an_evaluator_that_breaks_the_contract_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    broken = type("Broken", (Given,), change)({"mine": 1.0})
    with pytest.raises(PluginError, match=told):
        registry_of(broken)


def test_a_class_and_something_else_are_refused_and_two_of_one_name_belong_to_nobody() -> None:
    registry = Registry()
    for given, told in ((Norm, r"register Norm\(\)"), (3, "must be an instance")):
        with pytest.raises(PluginError, match=told):
            registry.add(_hooks(given))
    registry.add(Norm(), name="one")
    registry.add(Norm(), name="other")
    assert registry.evaluators() == []
    with pytest.raises(ArchsearchError, match='"norm" is claimed by one'):
        registry.evaluator("norm")


def _hooks(given: Any) -> Any:
    class Plugin:
        @hookimpl
        def register_metrics(self, register: Any) -> None:
            register(given)

    return Plugin()


class TestNorm(EvaluatorConformance):
    evaluator = Norm()
    tasks = ("small",)
    others = (Tasks(),)


def test_the_suite_finds_numbers_that_are_not_repeated() -> None:
    class Random(Given):
        def evaluate(self, arch: Any, model: Any, task: Any, trained: Trained) -> Any:
            return {"mine": float(np.random.default_rng().random())}

    class Suite(EvaluatorConformance):
        evaluator = Random(None)
        others = (Tasks(),)

    suite = Suite()
    suite.test_it_gives_a_finite_number_for_each_of_its_metrics_on_each_split("small")
    with pytest.raises(AssertionError, match="draw from a seed"):
        suite.test_the_same_model_has_the_same_numbers("small")
