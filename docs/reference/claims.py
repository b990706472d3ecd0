"""Claims of the field held against the table of ground truth: how many full layers, what a mixer alone says of its
hybrids, what one task says of another, and who learns first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import permutations
from math import isfinite, nan, sqrt
from statistics import fmean, median, stdev

from archsearch.analysis.speed import REFERENCE as FULL
from archsearch.analysis.speed import SHARES
from archsearch.arch import ArchSpec
from archsearch.search.truth.table import PACKAGED, TruthTable
from reference.registered import registry
from reference.texts import code, table

SHARE = SHARES["tokens_to_95"]
"""The part of full attention's gain above chance that a training must reach."""
ALIKE = 0.01
"""Below the best by no more than this: as good."""
FORMS = ("d", ".2f", ".2f", ".2f")


@cache
def truth() -> TruthTable:
    """The table that comes with the package."""
    return TruthTable.load(PACKAGED, registry())


def full_layers_table() -> str:
    """By how many of the layers are full: the best score, chosen without the seed that it is reported on, and the
    median."""
    held = truth()
    numbers = range(held.problem.space.n_layers + 1)
    groups = {number: [arch for arch in held.archs if kinds(arch).count(FULL) == number] for number in numbers}
    rows = []
    for number, archs in groups.items():
        cells = [f"{number} of {len(numbers) - 1}", str(len(archs))]
        for task in held.tasks:
            cells += [_chosen_best(archs, task), f"{median(_mean(arch, task) for arch in archs):.3f}"]
        rows.append(cells)
    columns = [part for task in held.tasks for part in (f"{task}: best", "median")]
    return table(["full layers", "architectures", *columns], rows)


def alone_table() -> str:
    """Each mixer in all layers beside the best of its hybrids with one full layer, both as chosen without the seed."""
    held = truth()
    rows = []
    for mixer in held.problem.space.entries:
        if mixer == FULL:
            continue
        cells = [code(mixer)]
        for task in held.tasks:
            alone = [arch for arch in held.archs if set(kinds(arch)) == {mixer}]
            mixed = [arch for arch in held.archs if sorted(kinds(arch)) == sorted([FULL, mixer, mixer])]
            cells += [_chosen_best(alone, task), _chosen_best(mixed, task)]
        rows.append(cells)
    columns = [part for task in held.tasks for part in (f"{task}: alone", "with one full layer")]
    return table(["mixer", *columns], rows)


def order_table() -> str:
    """Where the one full layer of three stands: the mean over all that the other two may be."""
    held = truth()
    depth = held.problem.space.n_layers
    rows = []
    for place in range(depth):
        archs = [
            arch for arch in held.archs if [kind == FULL for kind in kinds(arch)] == [i == place for i in range(depth)]
        ]
        rows.append([("first", "second", "third")[place], *(_over(archs, task) for task in held.tasks)])
    return table(["the full layer is the", *held.tasks], rows)


def tasks_table() -> str:
    """Rank correlation between two tasks over all architectures, and over those with a full layer; beside it that of
    one task with itself, from one seed to another."""
    held = truth()
    hybrids = [arch for arch in held.archs if FULL in kinds(arch)]
    rows = []
    for index, task in enumerate(held.tasks):
        rows.append([f"{task}, two seeds", *(_between_seeds(archs, task) for archs in (held.archs, hybrids))])
        for other in held.tasks[index + 1 :]:
            rows.append(
                [f"{task} and {other}", *(_between_tasks(archs, task, other) for archs in (held.archs, hybrids))]
            )
    return table(["Kendall's tau of", "all architectures", "those with a full layer"], rows)


def alike_table() -> str:
    """Those that one task cannot tell from its best one, by all seeds but one, and what another task makes of them on
    that seed: the least and the most of each figure over the seeds."""
    held = truth()
    rows = []
    for task, other in permutations(held.tasks, 2):
        shared = [seed for seed in held.seeds([task]) if seed in held.seeds([other])]
        if len(shared) < 2:
            continue
        values = [(_values(arch, task), _values(arch, other)) for arch in held.archs]
        figures = []
        for seed in shared:
            chosen = [fmean(mine[one] for one in shared if one != seed) for mine, _ in values]
            alike = sorted(
                its[seed] for mean, (_, its) in zip(chosen, values, strict=True) if mean >= max(chosen) - ALIKE
            )
            figures.append((len(alike), alike[0], median(alike), alike[-1]))
        counted, *others = (
            _range(of_seeds, form) for of_seeds, form in zip(zip(*figures, strict=True), FORMS, strict=True)
        )
        rows.append([task, counted, other, *others])
    return table(["by", "as good as the best", "have on", "the worst", "median", "the best"], rows)


def speed_table() -> str:
    """Steps until 95% of what full attention gains above chance, by what stands beside one full layer; of tasks on
    which full attention gains at least half of what the best gains, else its gain is no measure of having learnt."""
    held = truth()
    tasks = [task for task in held.tasks if _learnt_by_full(task)]
    rows = []
    for mixer in held.problem.space.entries:
        archs = [arch for arch in held.archs if sorted(kinds(arch)) == sorted([FULL, mixer, mixer])]
        rows.append([code(mixer), *(_arrivals(archs, task) for task in tasks)])
    return table(["beside one full layer", *(f"{task}: steps, and how many arrive" for task in tasks)], rows)


def _learnt_by_full(task: str) -> bool:
    held = truth()
    chance = held.problem.tasks[task].chance
    means = {arch: _mean(arch, task) for arch in held.archs}
    full = next(mean for arch, mean in means.items() if set(kinds(arch)) == {FULL})
    return full - chance >= (max(means.values()) - chance) / 2


def kinds(arch: ArchSpec) -> list[str]:
    """The entry of the space that each layer is of."""
    names = {layer: name for name, entry in truth().problem.space.entries.items() for layer in entry.layers}
    return [names[layer] for layer in arch.layers]


def _values(arch: ArchSpec, task: str) -> Mapping[int, float]:
    held = truth()
    metric = held.problem.tasks[task].metric
    rows = {seed: held.row(arch.digest, task, seed) for seed in held.seeds([task])}
    return {seed: row.test.get(metric, nan) if row.status == "complete" else nan for seed, row in rows.items()}


def _mean(arch: ArchSpec, task: str) -> float:
    return fmean(_values(arch, task).values())


def _chosen_best(archs: Sequence[ArchSpec], task: str) -> str:
    """The mean with its standard error over seeds, each of the architecture that is best on the other seeds."""
    values = [_values(arch, task) for arch in archs]
    seeds = list(values[0])
    if len(seeds) < 2:
        return "one seed"
    told = []
    for seed in seeds:
        best = max(values, key=lambda one: fmean(one[other] for other in seeds if other != seed))
        told.append(best[seed])
    return _told(told)


def _over(archs: Sequence[ArchSpec], task: str) -> str:
    seeds = truth().seeds([task])
    return _told([fmean(_values(arch, task)[seed] for arch in archs) for seed in seeds])


def _range(values: Sequence[float], form: str) -> str:
    least, most = format(min(values), form), format(max(values), form)
    return least if least == most else f"{least} to {most}"


def _told(values: Sequence[float]) -> str:
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else nan
    return f"{fmean(values):.3f}" + (f" ± {error:.3f}" if isfinite(error) else "")


def _between_seeds(archs: Iterable[ArchSpec], task: str) -> str:
    seeds = truth().seeds([task])
    if len(seeds) < 2:
        return "-"
    found = [_values(arch, task) for arch in archs]
    pairs = [(one, other) for one in seeds for other in seeds if one < other]
    return f"{fmean(_tau([v[one] for v in found], [v[other] for v in found]) for one, other in pairs):.2f}"


def _between_tasks(archs: Iterable[ArchSpec], task: str, other: str) -> str:
    """One seed of each, so that it can be laid beside that of two seeds of one task; the mean over pairs of seeds."""
    found = [(_values(arch, task), _values(arch, other)) for arch in archs]
    pairs = [(one, two) for one in truth().seeds([task]) for two in truth().seeds([other])]
    return f"{fmean(_tau([v[0][one] for v in found], [v[1][two] for v in found]) for one, two in pairs):.2f}"


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def _arrivals(archs: Sequence[ArchSpec], task: str) -> str:
    """The median of steps over architectures and seeds, more than all where half never arrive."""
    held = truth()
    problem = held.problem
    full = next(arch for arch in held.archs if set(kinds(arch)) == {FULL})
    chance, metric = problem.tasks[task].chance, problem.tasks[task].metric
    steps, arrived = [], 0
    for seed in held.seeds([task]):
        goal = chance + SHARE * (held.row(full.digest, task, seed).validation[metric] - chance)
        for arch in archs:
            curve = held.row(arch.digest, task, seed).curve
            at = next((step for step, value in curve if value >= goal), None)
            arrived += at is not None
            steps.append(float("inf") if at is None else float(at))
    middle = median(steps)
    told = f"{middle:.0f}" if isfinite(middle) else f"over {problem.spec.recipe.steps}"
    return f"{told} ({arrived} of {len(steps)})"
