"""EvaluatorConformance: the laws of an evaluator, as a pytest suite that a plugin author inherits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import ArchsearchError
from archsearch.evaluator import Evaluator
from archsearch.measurement import Measurement
from archsearch.recipe import Recipe
from archsearch.registration import check_evaluator
from archsearch.registry import Registry
from archsearch.tasks import builtin, resolve_task
from archsearch.testing.toy import ToyPlugin
from archsearch.training import evaluate

_MODEL = ModelSpec(d_model=16, n_heads=2, channel_mixer="none", short_conv=4)
_RECIPE = Recipe(steps=2, batch_size=4, eval_every=2, device="cpu")
_SPLITS = ("validation", "test")


class EvaluatorConformance:
    """Inherit, set ``evaluator``, and pytest runs the laws that every evaluator keeps::

        class TestMine(EvaluatorConformance):
            evaluator = MyEvaluator()

    Each is asked about a small model that was trained for two steps on each of ``tasks``, written as
    `archsearch evaluate` takes them; ``others`` are plugins that bring tasks of one's own.
    """

    evaluator: ClassVar[Evaluator]
    tasks: ClassVar[tuple[str, ...]] = ("mqar:easy", "copying")
    others: ClassVar[tuple[object, ...]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each task."""
        if "task" in metafunc.fixturenames:
            metafunc.parametrize("task", self.tasks)

    def test_it_can_be_registered(self) -> None:
        try:
            check_evaluator(self.evaluator)
        except ArchsearchError as error:
            raise AssertionError(str(error)) from error

    def test_it_gives_a_finite_number_for_each_of_its_metrics_on_each_split(self, task: str) -> None:
        found = self._measured(task)
        for split in _SPLITS:
            numbers: Mapping[str, float] = getattr(found, split)
            missing = [name for name in self.evaluator.metrics if name not in numbers]
            assert not missing, f"{split} has no {missing}"

    def test_the_same_model_has_the_same_numbers(self, task: str) -> None:
        first, again = self._numbers(self._measured(task)), self._numbers(self._measured(task, again=True))
        assert first == again, f"{first} and then {again}: draw from a seed that follows from what it is given"

    def test_the_numbers_of_the_task_stay_as_they_are(self, task: str) -> None:
        asked, plain = self._measured(task), _measured((), task, self.others, again=False)
        for split in _SPLITS:
            changed = {name for name, value in getattr(plain, split).items() if getattr(asked, split)[name] != value}
            assert not changed, f"{sorted(changed)} on {split} differ from those of a model that nobody asked about"

    def _numbers(self, found: Measurement) -> dict[str, list[float]]:
        return {split: [getattr(found, split)[name] for name in self.evaluator.metrics] for split in _SPLITS}

    def _measured(self, task: str, *, again: bool = False) -> Measurement:
        return _measured((self.evaluator,), task, self.others, again=again)


@cache
def _measured(evaluators: tuple[Evaluator, ...], task: str, others: tuple[object, ...], *, again: bool) -> Measurement:
    """Trained and measured anew for another value of `again`."""
    registry = Registry()
    for plugin in (ToyPlugin(), builtin, *evaluators, *others):
        registry.add(plugin)
    arch = ArchSpec.parse("toy", registry, _MODEL)
    names = [evaluator.name for evaluator in evaluators]
    try:
        return evaluate(arch, resolve_task(task, registry), _RECIPE, 0, registry=registry, evaluators=names)
    except ArchsearchError as error:
        raise AssertionError(str(error)) from error
