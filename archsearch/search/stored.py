"""Stored architectures as the mixers of today read them, which may refuse what earlier versions took."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from archsearch.arch import ArchSpec
from archsearch.errors import ArchsearchError, OptionsError, SpecError
from archsearch.registry import Registry
from archsearch.search.added import parts_beside
from archsearch.search.problem import Problem
from archsearch.source import Part
from archsearch.storage import Store, TrialRecord

_log = logging.getLogger("archsearch.search")


def read_stored(trial: TrialRecord, registry: Registry) -> ArchSpec | None:
    """The architecture of an earlier trial; None, with a warning that says why, where it cannot be read any more."""
    try:
        return ArchSpec.from_json(trial.arch, registry)
    except ArchsearchError as error:
        _log.warning(
            'trial %d, "%s", stays as it is and is not trained any more: %s (`archsearch add` takes what is to be '
            "trained in its place)",
            trial.id,
            trial.pattern,
            error,
        )
        return None


@contextmanager
def as_begun(name: str) -> Iterator[None]:
    """Reads within it what a search of that name was begun with; raises `SpecError` with the remedy where mixers refuse
    an option of it now."""
    try:
        yield
    except OptionsError as error:
        raise SpecError(
            f'"{name}" cannot go on as it was begun: {error}. Its results stay to be read, and a new search of the '
            "mended spec takes them from this database"
        ) from None


def parts_now(problem: Problem, store: Store, search_id: int) -> list[Part]:
    """What computes a search's results now: parts of the spec's mixers, and of those that came with added candidates
    and can be read."""
    parts = list(problem.parts())
    for trial in store.trials(search_id, kinds=["added"]):
        arch = read_stored(trial, problem.registry)
        parts += parts_beside(arch, problem) if arch is not None else []
    return parts
