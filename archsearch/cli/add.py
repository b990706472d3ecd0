"""``archsearch add``: candidates of a person's own, or of any program's, join a search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.output import JsonFlag, StorageOption, console, print_json, table
from archsearch.cli.run import resume

if TYPE_CHECKING:
    from archsearch.arch import ArchSpec
    from archsearch.search.problem import Problem
    from archsearch.storage import ProposalRecord, Store

STDIN = "-"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("add")(add)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the search, as `archsearch searches` lists it.")],
    patterns: Annotated[
        list[str],
        typer.Argument(
            metavar="PATTERN...",
            help='Candidates, such as "[kda kda kda full]*2"; one layer alone is repeated. A "-" reads JSON lines from '
            'standard input: a pattern each, or an object with the key "pattern".',
        ),
    ],
    go_on: Annotated[
        bool, typer.Option("--run", help="Go on with a search that has ended, to train them now (`archsearch resume`).")
    ] = False,
    storage: StorageOption = None,
    json: JsonFlag = False,
) -> None:
    """Adds candidates of your own to a search.

    They are judged, trained and confirmed as the others are, beyond the trials that the spec asks for, and marked as
    added. A search that runs takes them up by itself.
    """
    from archsearch.registry import load_registry
    from archsearch.search import Problem, SearchSpec
    from archsearch.search.added import read_candidate
    from archsearch.search.stored import as_begun
    from archsearch.storage import NewProposal, Store, owner_here, storage_url

    texts = list(_texts(patterns))
    with Store.open(storage_url(storage), create=False) as store:
        search = store.search(name)
        with as_begun(name):
            problem = Problem.of(SearchSpec.from_dict(search.spec), load_registry())
        archs = [read_candidate(text, problem) for text in texts]
        new = [
            NewProposal(digest=arch.digest, arch=arch.to_json(), pattern=arch.pattern(problem.registry))
            for arch in archs
        ]
        waiting = {proposal.digest for proposal in store.proposals(search.id)}
        found = store.propose(search.id, new, owner=owner_here())
        rows = [_row(store, problem, arch, proposal, waiting) for arch, proposal in zip(archs, found, strict=True)]
    state = search.state_now()
    trains = go_on and state != "running" and any(row["trial"] is None for row in rows)
    if not (json and trains):
        _show(search.name, state, rows, json=json)
    if trains:
        resume(name, storage=storage, json=json)


def _texts(patterns: Iterable[str]) -> Iterable[str]:
    for pattern in patterns:
        if pattern == STDIN:
            yield from _lines()
        else:
            yield pattern


def _lines() -> Iterable[str]:
    import json
    import sys

    from archsearch.errors import SpecError

    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            data = None
        text = data.get("pattern") if isinstance(data, dict) else data
        if not isinstance(text, str):
            raise SpecError(
                f'line {number} of standard input is no pattern: write "full*4", or {{"pattern": "full*4"}}, as JSON'
            )
        yield text


def _row(store: Store, problem: Problem, arch: ArchSpec, proposal: ProposalRecord, waiting: set[str]) -> dict[str, Any]:
    """What is known of a candidate as soon as it is added."""
    from archsearch.search.added import judge_candidate

    row = {"pattern": proposal.pattern, "digest": proposal.digest, "trial": proposal.trial, "owner": proposal.owner}
    if proposal.trial is not None:
        trial = store.trial(proposal.trial)
        told = f"the search has it: it is {trial.state}" + (f" ({trial.reason})" if trial.reason else "")
        return {**row, "state": trial.state, "remark": told}
    verdict = judge_candidate(arch, problem)
    if not verdict.trainable:
        return {**row, "state": "infeasible", "remark": "; ".join(verdict.reasons)}
    told = "it was added before and waits" if proposal.digest in waiting else ""
    return {**row, "state": "waiting", "remark": told}


def _show(search: str, state: str, rows: list[dict[str, Any]], *, json: bool) -> None:
    import shlex

    if json:
        print_json({"search": search, "state": state, "candidates": rows})
        return
    out = console()
    columns = ("trial", "state", "pattern", "remark")
    cells = [["" if row[column] is None else row[column] for column in columns] for row in rows]
    out.print(table([">trial", *columns[1:]], cells))
    if all(row["trial"] is not None for row in rows):
        return
    name = shlex.quote(search)
    if state == "running":
        out.print(f"{name} is running and takes them up: `archsearch trials {name}` shows them", soft_wrap=True)
    else:
        out.print(f"{name} is {state}: `archsearch resume {name}` trains them (or add --run)", soft_wrap=True)
