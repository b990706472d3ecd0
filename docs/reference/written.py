"""Tables that are written into pages as text, so that they are read where nothing is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from reference import claims
from reference.pages import DOCS
from reference.peers import peers_table
from reference.results import fair_table
from reference.samplers import GP, SECOND_SEEDS, samplers_table
from reference.scaling import scaling_table
from reference.steps import steps_table
from reference.stopping import stopping_table
from reference.systems import systems_counted, systems_table

PAGES = (
    DOCS.parent / "README.md",
    *(DOCS / name for name in ("results.md", "ground_truth.md", "scaling.md", "benchmarks.md", "spec.md")),
)
MADE: Mapping[str, Callable[[], str]] = {
    "systems": lambda: f"{systems_counted()}\n\n{systems_table('plugins/{folder}/README.md')}",
    "the fair table": fair_table,
    "the samplers": samplers_table,
    "full layers": claims.full_layers_table,
    "mixers alone": claims.alone_table,
    "places": claims.order_table,
    "tasks": claims.tasks_table,
    "as good": claims.alike_table,
    "speed": claims.speed_table,
    "trials an hour": scaling_table,
    "beside public forms": peers_table,
    "training steps": steps_table,
    "early stopping": stopping_table,
    "the second seeds": lambda: samplers_table(SECOND_SEEDS),
    "a process of Optuna": lambda: samplers_table(GP),
}
"""What stands between the comments ``<!-- NAME, written by make tables -->`` and ``<!-- end of NAME -->``."""

_PLACE = re.compile(r"(<!-- ([\w ]+), written by make tables -->\n).*?(\n<!-- end of \2 -->)", re.DOTALL)


def with_tables(markdown: str) -> str:
    """A page whose tables are today's; raises `ValueError` for one without a place, or with an unknown name."""

    def made(place: re.Match[str]) -> str:
        if place[2] not in MADE:
            raise ValueError(f'nothing is written as "{place[2]}": known are {", ".join(MADE)}')
        return f"{place[1]}{MADE[place[2]]()}\n{place[3]}"

    found, count = _PLACE.subn(made, markdown)
    if not count:
        raise ValueError("no place for a table: keep the two comments that enclose it")
    return found
