"""The tasks that come with the package, as a plugin."""

from __future__ import annotations

from collections.abc import Callable

from archsearch.hookspecs import hookimpl
from archsearch.tasks.base import Task
from archsearch.tasks.copying import Copying
from archsearch.tasks.facts import Facts
from archsearch.tasks.mqar import Mqar
from archsearch.tasks.multihop import Multihop
from archsearch.tasks.ngram import Ngram
from archsearch.tasks.niah import Niah
from archsearch.tasks.state_tracking import StateTracking
from archsearch.tasks.text import Text


@hookimpl
def register_tasks(register: Callable[[type[Task]], None]) -> None:
    """Register every built-in task."""
    for task in (Mqar, Niah, Multihop, Facts, Copying, Ngram, StateTracking, Text):
        register(task)
