"""The problem that a spec poses once plugins and tasks are known: backbone, tasks, objectives, budget, space, seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from archsearch.analysis.objectives import Direction, Objective
from archsearch.analysis.speed import SHARES
from archsearch.arch import ArchSpec, ResidualKind
from archsearch.composition import mixers_of, reads_pattern, refusal
from archsearch.costs import MEASURES, Budget, CostModel, CostTerm, Violation
from archsearch.errors import OptionsError, SpecError, foreign_code, listing, nearest
from archsearch.exercise import Unexercised, dense_up_to, unexercised_layers
from archsearch.laws import untrainable
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.search.evaluators import evaluators_of, metric_of
from archsearch.search.listed import space_of
from archsearch.search.matching.matched import Matching, cost_term, matched
from archsearch.search.matching.steps import match_steps, with_steps
from archsearch.search.references import baseline_of, reference_archs
from archsearch.search.space import Space
from archsearch.search.spec import MAX_SEED, SearchSpec
from archsearch.search.speed import is_speed, reference_of, speed_objective
from archsearch.source import Part
from archsearch.tasks import Task, resolve_task
from archsearch.training.teacher_arch import teacher_layer
from archsearch.value_residual import without_effect

RECALL = "recall"
"""The composite objective: the smallest primary metric over the recall tasks, seed by seed."""


MOST_JUDGED = 8192
"""Verdicts that a judge remembers."""

_IDEALS = {"accuracy": 1.0, "bits_per_byte": 0.0}
"""The best values of metrics that have one."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known of a candidate before anything is built. ``refusal`` says why its layers cannot stand as they do:
    then it has no costs."""

    costs: Mapping[str, float]
    violations: tuple[Violation, ...]
    slack: Mapping[str, float]
    unexercised: tuple[Unexercised, ...]
    refusal: str | None = None

    @property
    def over_budget(self) -> bool:
        """Whether a limit is exceeded."""
        return bool(self.violations)

    @property
    def trainable(self) -> bool:
        """Whether a worker should see it: its layers can stand so, within budget, and its sparsity acts at the tasks'
        lengths."""
        return self.refusal is None and not self.violations and not self.unexercised

    @property
    def reasons(self) -> list[str]:
        """Why it is not trained: why it cannot stand, what it exceeds, or what would not act."""
        refused = [] if self.refusal is None else [self.refusal]
        return [*refused, *map(str, self.violations), *(f"not exercised: {text}" for text in self.unexercised)]


class Judge:
    """Costs and judges candidates by arithmetic alone. A value residual other than `own`, that of ``[model]``, must
    change something: where it does not, the candidate is another one's by a second name."""

    def __init__(
        self,
        registry: Registry,
        terms: Sequence[CostTerm],
        budget: Budget,
        lengths: Mapping[str, int],
        own: ResidualKind = "none",
    ) -> None:
        self._own = own
        self._registry, self._terms, self._budget, self._lengths = registry, terms, budget, lengths
        self._costs = CostModel(registry)
        self._contexts = sorted({term.context for term in (*terms, *(term for term, _ in budget.limits))})
        self._dense: dict[object, int] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._shortest = min(lengths.values())

    def __call__(self, arch: ArchSpec) -> Verdict:
        """The costs that objectives and budget name, the limits that are exceeded, and what would not act. Options that
        a plugin finds impossible in this arrangement refuse it, as its `check` does. Who was judged before is judged
        once."""
        found = self._verdicts.get(arch.digest)
        if found is None:
            if len(self._verdicts) >= MOST_JUDGED:
                self._verdicts.clear()
            found = self._verdicts[arch.digest] = self._judged(arch)
        return found

    def _judged(self, arch: ArchSpec) -> Verdict:
        try:
            refused = refusal(arch, self._registry)
            if refused is None and arch.model.value_residual != self._own:
                refused = without_effect(arch, self._registry)
            return self._costed(arch) if refused is None else self.refused(refused)
        except OptionsError as error:
            return self.refused(str(error))

    def refused(self, reason: str) -> Verdict:
        """The verdict on a candidate that cannot stand, for `reason`."""
        slack = {str(term): 0.0 for term, _ in self._budget.limits}
        return Verdict(costs={}, violations=(), slack=slack, unexercised=(), refusal=reason)

    def _costed(self, arch: ArchSpec) -> Verdict:
        at = {context: self._costs.cost(arch, context) for context in self._contexts}
        costs = {str(term): at[term.context].measure(term.measure) for term in self._terms}
        slack = {str(term): at[term.context].measure(term.measure) / limit - 1.0 for term, limit in self._budget.limits}
        violations = self._budget.violations(at.__getitem__) if max(slack.values(), default=0.0) > 0 else []
        return Verdict(costs=costs, violations=tuple(violations), slack=slack, unexercised=self._unexercised(arch))

    def _unexercised(self, arch: ArchSpec) -> tuple[Unexercised, ...]:
        if max(self._dense_up_to(arch, index) for index in range(len(arch.layers))) < self._shortest:
            return ()
        return tuple(
            found
            for task, length in self._lengths.items()
            for found in unexercised_layers(arch, task, length, self._registry)
        )

    def _dense_up_to(self, arch: ArchSpec, index: int) -> int:
        layer = arch.layers[index]
        key = (layer, index, len(arch.layers), arch.layers if reads_pattern(layer, self._registry) else None)
        found = self._dense.get(key)
        if found is None:
            found = self._dense[key] = dense_up_to(arch, index, self._registry)
        return found


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A spec with everything that it names found and checked, in the registry where it was found."""

    spec: SearchSpec
    registry: Registry
    tasks: Mapping[str, Task]
    objectives: tuple[Objective, ...]
    budget: Budget
    space: Space
    references: tuple[ArchSpec, ...]
    baseline: ArchSpec | None
    judge: Judge
    timer: ArchSpec | None = None
    """The reference whose training times the others, where an objective asks for that."""
    evaluators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of those that are asked about models of a task, by task."""
    matching: Matching | None = None
    _patterns: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, spec: SearchSpec, registry: Registry) -> Problem:
        """Raises `SpecError`, `OptionsError`, `UnknownNameError` or `ConflictError` naming the key."""
        tasks = _tasks(spec, registry)
        context = spec.objectives.context
        evaluators = evaluators_of(spec.metrics, tasks, registry)
        own = {name: metric_of(found, registry) for name, found in evaluators.items()}
        objectives = (
            *(_objective(name, "maximize", tasks, spec, own) for name in spec.objectives.maximize),
            *(_objective(name, "minimize", tasks, spec, own) for name in spec.objectives.minimize),
        )
        budget = Budget.parse(spec.budget, context=context)
        model = spec.model.backbone(vocab_size=max(task.vocab_size for task in tasks.values()))
        space = space_of(spec.space, model, spec.model.n_layers, registry)
        costs = [objective.metric for objective in objectives if objective.is_cost]
        match = None if spec.compare is None else cost_term(spec.compare.match, context)
        terms = dict.fromkeys(
            [
                *(CostTerm.parse(cost, context=context) for cost in costs),
                *(term for term, _ in budget.limits),
                *([] if match is None else [match]),
            ]
        )
        lengths = {name: task.seq_len for name, task in tasks.items()}
        judge = Judge(registry, tuple(terms), budget, lengths, model.value_residual)
        references = reference_archs(spec.search.references, space, registry)
        baseline = baseline_of(spec.compare.baseline, space, registry) if spec.compare is not None else None
        matching = None
        if baseline is not None:
            _refuse_baseline(baseline, judge(baseline), registry)
            space, matching = matched(spec, space, baseline, tasks, registry)
        _refuse_untrainable(space, references, registry)
        teacher_layer(spec.recipe, registry)
        return cls(
            spec=spec,
            registry=registry,
            tasks=tasks,
            objectives=objectives,
            budget=budget,
            space=space,
            references=references,
            baseline=baseline,
            judge=judge,
            timer=reference_of(objectives, itertools.chain(references, _trained_of_a_list(spec, space, judge))),
            evaluators=evaluators,
            matching=matching,
        )

    def pattern(self, arch: ArchSpec) -> str:
        """A candidate's notation, which is found once: the shortest names of its layers take a look at every preset."""
        found = self._patterns.get(arch.digest)
        if found is None:
            found = self._patterns[arch.digest] = arch.pattern(self.registry)
        return found

    @property
    def ideals(self) -> dict[str, float]:
        """The best value that an objective can have, of those that have one: an accuracy of 1, no bits per byte."""
        found = {name: _IDEALS[metric] for name, metric in self._primary.items() if metric in _IDEALS}
        recall = {task.metric for task in self.tasks.values() if task.recall}
        if any(objective.name == RECALL for objective in self.objectives) and recall <= _IDEALS.keys():
            found[RECALL] = min(_IDEALS[metric] for metric in recall)
        return found

    @property
    def _primary(self) -> dict[str, str]:
        """The objectives that are the metric of one task, whichever its set or part, with that metric."""
        found = {}
        for name in (one.name for one in self.objectives if not one.is_cost and one.name != RECALL):
            task, _, metric = name.rpartition(".")
            if task in self.tasks and metric.partition("@")[0].partition("[")[0] == self.tasks[task].metric:
                found[name] = self.tasks[task].metric
        return found

    def parts(self) -> tuple[Part, ...]:
        """What computes the results: every mixer, task and evaluator that the search may use, the teacher's, and the
        core."""
        layers = list(self.space.layers)
        layers += [layer for arch in self.references for layer in arch.layers]
        tasks = sorted({task.name for task in self.tasks.values()})
        mixers = sorted({*mixers_of(layers, self.registry), *self.teacher_mixers})
        evaluators = sorted({name for names in self.evaluators.values() for name in names})
        return self.registry.parts(mixers, tasks, evaluators)

    def recipe_of(self, arch: ArchSpec, task: str) -> Recipe:
        """The recipe by which an architecture is trained on a task, by the name that metrics carry: that of the spec,
        in a comparison of equal training FLOPs with steps of its own."""
        steps = self.steps_of(arch).get(task)
        recipe = self.spec.training
        return recipe if steps is None else with_steps(recipe, steps, self.tasks[task].seq_len)

    def steps_of(self, arch: ArchSpec) -> dict[str, int]:
        """The optimiser steps of each task, where an architecture has its own."""
        if self.matching is None or self.matching.match != "train_flops" or self.baseline is None:
            return {}
        return match_steps(arch, self.baseline, self.tasks, self.spec.training, CostModel(self.registry))

    @property
    def teacher_mixers(self) -> frozenset[str]:
        """The mixers of the teacher, which every result of the search depends on."""
        layer = teacher_layer(self.spec.recipe, self.registry)
        return frozenset(() if layer is None else mixers_of([layer], self.registry))

    @property
    def search_seeds(self) -> tuple[int, ...]:
        """The seeds that candidates and references are trained with."""
        return tuple(self.spec.seed + index for index in range(self.spec.recipe.seeds))

    @property
    def seeds_with_second(self) -> tuple[int, ...]:
        """Those of a candidate that is trained once more: its own, and the next one."""
        return (*self.search_seeds, self.spec.seed + self.spec.recipe.seeds)

    @property
    def confirm_seeds(self) -> tuple[int, ...]:
        """Fresh seeds for what is on the front, which no search draws on."""
        return tuple(MAX_SEED + self.spec.seed + index for index in range(self.spec.search.confirm_seeds))


def _trained_of_a_list(spec: SearchSpec, space: Space, judge: Judge) -> Iterator[ArchSpec]:
    """What a list names and its trials suffice for; a space that is drawn from promises nothing."""
    if spec.space.pattern == "listed":
        trainable = (arch for arch in space.all() if judge(arch).trainable)
        yield from itertools.islice(trainable, spec.search.trials)


def _refuse_untrainable(space: Space, references: Sequence[ArchSpec], registry: Registry) -> None:
    by_mixers = {mixers_of((layer,), registry): layer for layer in reversed(space.layers)}
    pure = (ArchSpec(model=space.model, layers=(layer,)) for layer in by_mixers.values())
    for arch in (*pure, *references):
        why = untrainable(arch, registry)
        if why is not None:
            raise SpecError(f"{arch.pattern(registry)} cannot be searched over: {why}")


def _refuse_baseline(baseline: ArchSpec, verdict: Verdict, registry: Registry) -> None:
    """All that is trained would be held against nothing."""
    if not verdict.trainable:
        raise SpecError(
            f"compare.baseline: {baseline.pattern(registry)} would not be trained: {'; '.join(verdict.reasons)}: "
            "name another one, or change what keeps it out"
        )


def _tasks(spec: SearchSpec, registry: Registry) -> dict[str, Task]:
    """Tasks by the name that metrics carry: the task's own, or its label where the search has two settings of it."""
    resolved = []
    for index, table in enumerate(spec.tasks):
        try:
            resolved.append(resolve_task(table.name, registry, setting=table.setting, options=table.options))
        except SpecError as error:
            raise SpecError(f"tasks[{index}]: {error}") from None
    names = [task.name for task in resolved]
    tasks: dict[str, Task] = {}
    for task in resolved:
        key = task.name if names.count(task.name) == 1 else task.label
        if key in tasks:
            raise SpecError(f'tasks: "{key}" is given twice: drop one')
        tasks[key] = task
    return tasks


def _objective(
    name: str,
    direction: Direction,
    tasks: Mapping[str, Task],
    spec: SearchSpec,
    own: Mapping[str, Mapping[str, Direction]],
) -> Objective:
    if name == RECALL:
        if not any(task.recall for task in tasks.values()):
            raise SpecError(f'objectives: "recall" needs a recall task, and {listing(tasks)} measure none')
        _check_direction(name, direction, "maximize")
        return Objective(name=name, direction=direction)
    if name.partition("@")[0] in MEASURES:
        term = CostTerm.parse(name, context=spec.objectives.context)
        return Objective(name=name, direction=direction, unit=term.unit, metric=str(term))
    task, _, metric = name.rpartition(".")
    if task not in tasks:
        known = [
            RECALL,
            *MEASURES,
            *(f"{key}.{metric}" for key in tasks for metric in (tasks[key].metric, *own.get(key, ()), *SHARES)),
        ]
        raise SpecError(f'unknown objective "{name}"{nearest(name, known)}: known are {listing(known)}')
    if is_speed(metric):
        _check_direction(name, direction, "minimize")
        return speed_objective(name, spec.training, tasks[task].seq_len)
    if metric in own.get(task, {}):
        _check_direction(name, direction, own[task][metric])
        return Objective(name=name, direction=direction)
    base = metric.partition("@")[0].partition("[")[0]
    if base != tasks[task].metric:
        known = [tasks[task].metric, *own.get(task, ()), *SHARES]
        raise SpecError(f'objective "{name}": metrics of {task} are {listing(known)}{nearest(metric, known)}')
    label = metric.partition("[")[0].partition("@")[2]
    if label not in tasks[task].evaluation_labels:
        known = [f"{task}.{base}@{known}" for known in tasks[task].evaluation_labels if known]
        raise SpecError(f'objective "{name}": {task} is not evaluated at "{label}": known are {listing(known)}')
    _check_direction(name, direction, tasks[task].direction)
    if "[" in metric:
        _check_kind(name, metric, task, tasks[task])
    return Objective(name=name, direction=direction)


def _check_kind(name: str, metric: str, key: str, task: Task) -> None:
    """Refuses a kind of position, "accuracy[2 hops]", that the task's validation has none of."""
    label = metric.partition("[")[0].partition("@")[2] or metric.partition("]")[2].removeprefix("@")
    batch = task.evaluation("validation")[label]
    with foreign_code(f'task "{task.label}"', "metrics"):
        found = task.metrics(label, batch, nll=np.zeros(batch.targets.shape), predictions=batch.targets)
    known = [f"{key}.{one}" for one in found if "[" in one]
    if metric not in found:
        raise SpecError(
            f'objective "{name}": {key} has no such kind{nearest(name, known)}: '
            + (f"known are {listing(known)}" if known else "it tells none apart")
        )


def _check_direction(name: str, direction: str, better: str) -> None:
    if direction != better:
        raise SpecError(f'objectives.{direction} names "{name}", which is better the other way: put it in {better}')
