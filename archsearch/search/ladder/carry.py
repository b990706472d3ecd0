"""What is carried up: the survivors of a rung, as the spec of the search one size up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archsearch.analysis.answer import Answer, read_answer
from archsearch.analysis.survivors import Survivors, survivors
from archsearch.analysis.validity import drawn_backbone, on_backbone
from archsearch.arch import ArchSpec
from archsearch.errors import ArchsearchError, NothingFeasibleError, SpecError
from archsearch.search.added import judge_candidate
from archsearch.search.ladder.drawn import drawn_values, model_on_rung, values_on_rung
from archsearch.search.ladder.rungs import carried_references, probe, rung_name, rung_spec
from archsearch.search.ladder.stretch import carried, unit_of
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.ladder import ClimbedTable, KeptTable
from archsearch.storage import Store

CUT = "noise does not tell it from those that were carried up, and at_most = {most} left no place for it"


@dataclass(kw_only=True)
class _Carrying:
    """The survivors as they are on the rung, by their digests below, and why others could not stand there."""

    kept: dict[str, KeptTable] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def next_rung(problem: Problem, rung: int, store: Store) -> SearchSpec:
    """The spec of rung `rung` of a ladder, from 2 on, whose rung below is measured in `store`.

    A survivor that cannot stand at that size, exceeds the rung's budget, or becomes the same as another one is left,
    with the reason, and the next in order takes its place. Raises `NothingFeasibleError` where none is left.
    """
    table, below = problem.spec.rung[rung - 2], rung_name(problem.spec.name, rung - 1)
    answer, at = read_answer(store, below), probe(problem, rung)
    carrying = _Carrying()
    while True:
        chosen = survivors(
            answer.points, answer.objectives, keep=table.keep, at_most=table.most, without=tuple(carrying.refused)
        )
        fresh = [(digest, why) for digest, why in chosen.kept if digest not in carrying.kept]
        for digest, why in fresh:
            _carry(problem, at, answer, store, digest, why, carrying)
        if all(digest in carrying.kept for digest, _ in chosen.kept):
            break
    return _spec(problem, rung, at, answer, chosen, carrying, store)


def _carry(
    problem: Problem, at: Problem, answer: Answer, store: Store, digest: str, why: str, carrying: _Carrying
) -> None:
    try:
        arch = ArchSpec.from_json(_trial_arch(answer, store, digest), problem.registry)
    except ArchsearchError as error:
        carrying.refused[digest] = str(error)
        return
    before = _carried_before(answer).get(digest)
    unit = unit_of(arch.layers, problem.spec.space) if before is None else before.unit
    drawn = _drawn(arch, problem, answer) if before is None else before.drawn
    try:
        there = carried(arch, model_on_rung(drawn, problem.space.model, at.space.model), at.space.n_layers, unit)
        verdict = judge_candidate(there, at)
    except SpecError as error:
        carrying.refused[digest] = str(error)
        return
    twin = next(
        (on_backbone(one.pattern, one.drawn) for one in carrying.kept.values() if one.digest == there.digest), None
    )
    if twin is not None:
        carrying.refused[digest] = f"at this size it is {twin} too"
    elif not verdict.trainable:
        carrying.refused[digest] = "; ".join(verdict.reasons)
    else:
        pattern = there.pattern(problem.registry)
        carrying.kept[digest] = KeptTable(
            pattern=pattern, digest=there.digest, below=digest, unit=unit, drawn=drawn, why=why
        )


def _trial_arch(answer: Answer, store: Store, digest: str) -> Mapping[str, object]:
    trial = answer.points.loc[answer.points["digest"] == digest, "trial"].iloc[0]
    return store.trial(int(trial)).arch


def _drawn(arch: ArchSpec, problem: Problem, answer: Answer) -> dict[str, Any]:
    """What a candidate that was not carried up drew; one that somebody added to a rung stands on its backbone."""
    return {} if answer.search.spec.get("climbed") is not None else drawn_values(arch, problem.space)


def _named(answer: Answer, store: Store, digest: str) -> str:
    """A candidate of the rung below, as its search's people know it."""
    pattern = answer.points.loc[answer.points["digest"] == digest, "pattern"].iloc[0]
    return on_backbone(str(pattern), drawn_backbone(answer.search.spec, _trial_arch(answer, store, digest)))


def _carried_before(answer: Answer) -> dict[str, KeptTable]:
    """What was carried up to the rung that is answered, by its digest there."""
    climbed = answer.search.spec.get("climbed")
    return {} if climbed is None else {one.digest: one for one in ClimbedTable.model_validate(climbed).kept}


def _spec(
    problem: Problem,
    rung: int,
    at: Problem,
    answer: Answer,
    chosen: Survivors,
    carrying: _Carrying,
    store: Store,
) -> SearchSpec:
    table = problem.spec.rung[rung - 2]
    reasons = carrying.refused | dict.fromkeys(chosen.cut, CUT.format(most=table.most))
    left = {_named(answer, store, digest): reason for digest, reason in reasons.items()}
    kept = [carrying.kept[digest].model_copy(update={"why": why}) for digest, why in chosen.kept]
    if not kept:
        said = "; ".join(f"{pattern}: {reason}" for pattern, reason in left.items()) or answer.why_no_front()
        raise NothingFeasibleError(
            f'no candidate of "{answer.search.name}" can be carried up to rung {rung}: {said}: '
            f"change rung[{rung - 2}] in the spec, and `archsearch run SPEC --resume --grow` goes on"
        )
    references = _references(problem, rung, at, store)
    texts = [one.pattern for one in kept]
    others = [one.pattern for one in references if one.digest not in {mine.digest for mine in kept}]
    backbones = [values_on_rung(one.drawn, problem.space.model, at.space.model) for one in kept]
    spec = rung_spec(problem.spec, rung, texts, others, backbones)
    climbed = ClimbedTable(
        ladder=problem.spec.name,
        rung=rung,
        below=answer.search.name,
        kept=(*kept, *references),
        left=left,
        without_noise=chosen.unknown,
    )
    return spec.model_copy(update={"climbed": climbed})


def _references(problem: Problem, rung: int, at: Problem, store: Store) -> list[KeptTable]:
    """The references of the search as they stand on the rung; their digests below are those that they have there."""
    below = probe(problem, rung - 1) if rung > 2 else problem
    found = []
    before = {arch.digest: there.digest for arch, there, _ in carried_references(problem, below)} if rung > 2 else {}
    for arch, there, unit in carried_references(problem, at):
        found.append(
            KeptTable(
                pattern=there.pattern(problem.registry),
                digest=there.digest,
                below=before.get(arch.digest, arch.digest),
                unit=unit,
                why="reference",
            )
        )
    return found
