"""The rungs of a ladder as searches of their own: their names, their specs, and the problems that they pose."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archsearch.arch import ArchSpec
from archsearch.composition import refusal
from archsearch.errors import ArchsearchError, OptionsError, SpecError
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.search.ladder.drawn import drawn_values, model_on_rung
from archsearch.search.ladder.stretch import carried, unit_of
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.ladder import RungTable
from archsearch.search.tables.objectives import TaskTable

PROBES = 16
"""Architectures of the space by which a rung is checked, and its cost estimated, before its survivors are known."""


def rung_name(ladder: str, rung: int) -> str:
    """The search of a rung, from 1, of the ladder that begins with the search of that name."""
    return ladder if rung == 1 else f"{ladder}.rung{rung}"


def rung_spec(
    root: SearchSpec,
    rung: int,
    architectures: Sequence[str],
    references: Sequence[str],
    backbones: Sequence[Mapping[str, Any]] = (),
) -> SearchSpec:
    """The spec of rung `rung`, from 2 on: a list of `architectures`, with what the rungs up to it give.

    `backbones` has for each what differs from the backbone of the rung, where that was drawn. Raises `SpecError` naming
    the rung's key.
    """
    tables = root.rung[: rung - 1]
    own, where = tables[-1], f"rung[{rung - 2}]"
    base = root.to_json()
    del base["rung"], base["ladder"]
    context = next((table.context for table in reversed(tables) if table.context), root.objectives.context)
    if _trained(root, tables) == _trained(root, tables[:-1]):
        raise SpecError(
            f"{where} would train what the rung below has trained, and agree with it for that reason: give it another "
            "size (d_model, n_layers), steps, seeds or tasks"
        )
    search = base["search"] | {
        "trials": len(architectures),
        "references": list(references) or False,
        "confirm_seeds": own.confirm_seeds,
        "population": None,
        "startup_trials": None,
        "early_stop": None,  # who is stopped has no place in the order that rungs are compared by
        "second_seeds": 0.0,
    }
    several = {"backbones": [dict(one) for one in backbones]} if any(backbones) else {}
    values = base | {
        "name": rung_name(root.name, rung),
        "model": _model(root, tables),
        "space": {"pattern": "listed", "architectures": list(architectures), **several},
        "tasks": [task.model_dump(mode="json") for task in _tasks(root, tables)],
        "recipe": _recipe(root, tables),
        "objectives": base["objectives"] | {"context": context},
        "budget": dict(own.budget),
        "search": search,
    }
    try:
        return SearchSpec.from_dict(values)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def _model(root: SearchSpec, tables: Sequence[RungTable]) -> dict[str, Any]:
    values = {**root.model.given, "n_layers": root.model.n_layers, "short_conv": root.model.short_conv}
    if "vocab_size" not in root.model.model_fields_set:
        del values["vocab_size"]
    for index, table in enumerate(tables):
        if table.n_layers is not None and table.n_layers < values["n_layers"]:
            raise SpecError(
                f"rung[{index}].n_layers = {table.n_layers}, and the rung below has {values['n_layers']}: a pattern is "
                "carried to more layers, not to fewer"
            )
        _refuse_left_behind(values, table, index)
        values |= table.sizes
    return values


def _refuse_left_behind(values: dict[str, Any], table: RungTable, index: int) -> None:
    """A hidden width that was written out would stay where the model around it grows."""
    width = {"swiglu": "ffn_dim", "moe": "expert_dim"}.get(values["channel_mixer"])
    d_model = table.sizes.get("d_model", values["d_model"])
    if width in values and width not in table.sizes and d_model != values["d_model"]:
        share = round(values[width] * d_model / values["d_model"])
        raise SpecError(
            f"rung[{index}].d_model = {d_model}, and {width} = {values[width]} of the rung below would stay: give "
            f"rung[{index}].{width} too ({share} keeps its share), or leave it out of [model]"
        )


def _tasks(root: SearchSpec, tables: Sequence[RungTable]) -> tuple[TaskTable, ...]:
    return next((table.tasks for table in reversed(tables) if table.tasks), root.tasks)


def _trained(root: SearchSpec, tables: Sequence[RungTable]) -> tuple[object, ...]:
    """What a training on a rung follows from beside its architecture."""
    return _model(root, tables), _recipe(root, tables), _tasks(root, tables)


def _recipe(root: SearchSpec, tables: Sequence[RungTable]) -> dict[str, Any]:
    values = root.recipe.model_dump(mode="json")
    for index, table in enumerate(tables):
        values |= table.trained
        Recipe.read(values, f"rung[{index}]")
    return values


def carried_references(problem: Problem, at: Problem) -> list[tuple[ArchSpec, ArchSpec, int]]:
    """The references of the search as they stand on a rung's backbone: before, after, and the unit that repeats. Those
    that cannot stand there are left out."""
    found = []
    for arch in problem.references:
        unit = unit_of(arch.layers, problem.spec.space)
        there = carried(arch, at.space.model, at.space.n_layers, unit)
        if stands(there, problem.registry):
            found.append((arch, there, unit))
    return found


def probe(problem: Problem, rung: int) -> Problem:
    """The problem of a rung before its survivors are known: with some architectures of the space in their place.

    Raises `SpecError` where the rung cannot be: a size that does not fit, a budget or a task that cannot be read.
    """
    registry = problem.registry
    first = next(_some(problem), None)
    if first is None:
        raise SpecError(f"rung[{rung - 2}]: no architecture of the space was found that can stand: widen [space]")
    n_layers = _model(problem.spec, problem.spec.rung[: rung - 1])["n_layers"]
    unit = unit_of(first.layers, problem.spec.space)
    text = ArchSpec(model=first.model, layers=carried(first, first.model, n_layers, unit).layers).pattern(registry)
    try:
        posed = Problem.of(rung_spec(problem.spec, rung, [text], []), registry)
        for backbone in problem.space.backbones.all if problem.space.backbones.listed else ():
            model_on_rung(backbone.values, problem.space.model, posed.space.model)
    except ArchsearchError as error:
        told = str(error)
        raise SpecError(told if told.startswith("rung[") else f"rung[{rung - 2}]: {told}") from None
    return posed


def probes(problem: Problem, at: Problem) -> list[ArchSpec]:
    """Architectures of the space on a rung's backbone, pure ones first; those that cannot stand there are left out."""
    found: dict[str, ArchSpec] = {}
    for arch in itertools.islice(_some(problem), 2 * PROBES):
        unit = unit_of(arch.layers, problem.spec.space)
        model = model_on_rung(drawn_values(arch, problem.space), problem.space.model, at.space.model)
        there = carried(arch, model, at.space.n_layers, unit)
        if stands(there, problem.registry):
            found.setdefault(there.digest, there)
    return list(found.values())


def _some(problem: Problem) -> Iterator[ArchSpec]:
    """Architectures of the space: the references, each layer repeated, or those that are listed; then random ones."""
    space, rng = problem.space, random.Random(problem.spec.seed)
    if problem.spec.space.pattern == "listed":
        yield from itertools.islice(space.all(), 2 * PROBES)
        return
    pure = [ArchSpec(model=space.model, layers=(entry.reference,) * space.n_layers) for entry in space.entries.values()]
    yield from (arch for arch in (*problem.references, *pure) if stands(arch, problem.registry))
    yield from (arch for arch in (space.random(rng) for _ in range(PROBES)) if stands(arch, problem.registry))


def stands(arch: ArchSpec, registry: Registry) -> bool:
    """Whether the layers can stand where they do."""
    try:
        return refusal(arch, registry) is None
    except OptionsError:
        return False
