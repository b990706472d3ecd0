"""``archsearch survey``: what a search would be, before it is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.climbing import print_cost
from archsearch.cli.output import JsonFlag, StorageOption, console, print_json

if TYPE_CHECKING:
    from archsearch.search.estimate import Estimate
    from archsearch.search.survey import Survey
    from archsearch.storage import Store


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("survey")(survey)


def survey(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Spec file of a search (TOML).")],
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Says what a search would be.

    Checks the spec as `archsearch run` does, counts its candidates and those within the budget, and estimates the time
    from trainings that the database holds; with rungs, what each of them costs. Nothing is trained or written.
    """
    from dataclasses import asdict

    from archsearch.registry import load_registry
    from archsearch.search import Problem, SearchSpec
    from archsearch.search.estimate import estimate
    from archsearch.search.ladder.cost import ladder_cost
    from archsearch.search.survey import survey as count

    problem = Problem.of(SearchSpec.load(spec), load_registry())
    name = problem.spec.name
    with _existing_store(storage) as store:
        taken = store is not None and name in [search.name for search in store.searches()]
        time = estimate(problem, store)
        ladder = ladder_cost(problem, store) if problem.spec.rung else None
    found = count(problem)
    said = sentences(name, found, time, taken=taken)
    if json:
        rungs = {} if ladder is None else {"ladder": asdict(ladder)}
        print_json({"name": name, "taken": taken, "space": asdict(found), "time": asdict(time), **rungs, "said": said})
        return
    out = console()
    for line in said:
        out.print(line, soft_wrap=True, markup=False)
    if ladder is not None:
        print_cost(ladder, out)


@contextmanager
def _existing_store(storage: str | None) -> Iterator[Store | None]:
    """The database where there is one that can be read, else None: to be surveyed, a search needs none."""
    from archsearch.errors import StorageError
    from archsearch.storage import Store, storage_url

    try:
        store = Store.open(storage_url(storage), read_only=True)
    except StorageError:
        yield None
        return
    with store:
        yield store


def sentences(name: str, space: Survey, time: Estimate, *, taken: bool) -> list[str]:
    """The survey in words, a line each."""
    said = [f"{space.candidates:,} candidate{'s' if space.candidates != 1 else ''}"]
    judged = "" if space.exhaustive else f", of {space.judged:,} drawn at random"
    said.append(f"{space.trainable / space.judged:.0%} can be trained within the budget{judged}")
    if space.tightest is not None:
        said.append(f"none meets the budget: the tightest, {space.tightest.pattern}, has {space.tightest.text}")
    if space.refused is not None:
        said.append(f"{space.refused.count:,} cannot stand as they do, such as {space.refused.reason}")
    if space.unexercised:
        said.append(f"{space.unexercised:,} are not exercised: their sparsity does not act at the tasks' lengths")
    said.append(f"{time.trainings:,} trainings of candidates and references, before the front is confirmed")
    said.append(time_text(time))
    if taken:
        said.append(f'the database has a search "{name}" already: take another name')
    return said


def time_text(time: Estimate) -> str:
    """How long the trainings take at most, as far as that is known."""
    from archsearch.cli.live import duration

    if time.seconds is None or time.training_seconds is None:
        return f"nothing is known of their time: no training of {', '.join(time.unknown)} on this backbone is stored"
    return (
        f"about {duration(time.seconds)} at most, {duration(time.training_seconds)} a training, as fast "
        f"as {time.known:,} trainings on this backbone that are stored"
    )
