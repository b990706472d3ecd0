"""Runs or resumes a search in a process of its own, as ``run SPEC URL`` or ``resume NAME URL``."""

from __future__ import annotations

import sys

from hostile_mixers import Hostile
from rich.console import Console

from archsearch.cli.live import make_view
from archsearch.errors import ArchsearchError
from archsearch.registry import load_registry
from archsearch.search import Problem, SearchSpec, resume_search, run_search
from archsearch.storage import Store


def main(verb: str, what: str, url: str) -> int:
    registry = load_registry()
    registry.add(Hostile())
    view = make_view(Console())
    try:
        with Store.open(url) as store:
            spec = SearchSpec.load(what) if verb == "run" else SearchSpec.from_dict(store.search(what).spec)
            search = run_search if verb == "run" else resume_search
            outcome = search(Problem.of(spec, registry), store=store, view=view)
    except ArchsearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"outcome {outcome.state} after {outcome.seconds:.1f} s: {outcome.progress}")
    return 0 if outcome.state == "complete" else 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
