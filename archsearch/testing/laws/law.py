"""Law: one promise of the contract, how it is tried, and how it came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal

from archsearch.errors import ArchsearchError, foreign_error
from archsearch.mixer import Law as Declared
from archsearch.testing.case import Case

Status = Literal["passed", "failed", "declared broken", "skipped"]


class LawBroken(Exception):  # noqa: N818 - says what happened, and is no error of the program
    """A law that does not hold: in one line which, where and by how much, and what usually causes it."""


class NothingToTry(Exception):  # noqa: N818 - no error at all
    """A law that asks nothing of a case, or cannot be tried here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """``name``: that of the suite's test, without "test_". ``says``: the promise in a sentence. ``cause``: what usually
    breaks it. ``declared``: by which word of `archsearch.mixer.Law` a plugin may declare it broken, None where it may
    not. ``runs_layer``: it runs the layer in the case's implementation, so that each implementation is tried.
    ``once``: it asks the plugin whatever the options are, so that one case is enough. ``check`` raises `LawBroken` or
    `NothingToTry`."""

    name: str
    says: str
    cause: str
    check: Callable[[Case], None]
    declared: Declared | None = None
    runs_layer: bool = True
    once: bool = False

    @property
    def label(self) -> str:
        """How texts name it: by the word that declares it broken, or in words."""
        return self.declared or self.name.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a law came out on a case; ``text`` is one line, "" where it passed."""

    law: Law
    status: Status
    text: str


def law(
    says: str, *, cause: str, declared: Declared | None = None, runs_layer: bool = True, once: bool = False
) -> Callable[[Callable[[Case], None]], Law]:
    """Makes a `Law` of the function that checks it, whose `LawBroken` says where and by how much alone."""

    def made(check: Callable[[Case], None]) -> Law:
        label = declared or check.__name__.replace("_", " ")

        @wraps(check)
        def told(case: Case) -> None:
            try:
                check(case)
            except LawBroken as broken:
                raise LawBroken(f'law "{label}": {broken}: {cause}') from None

        return Law(
            name=check.__name__,
            says=says,
            cause=cause,
            check=told,
            declared=declared,
            runs_layer=runs_layer,
            once=once,
        )

    return made


def tried(law: Law, case: Case) -> Outcome:
    """How `law` comes out on `case`: whatever the plugin does wrong is an outcome, and nothing is raised."""
    try:
        with case.using(case.impl if law.runs_layer else "auto"):
            law.check(case)
    except NothingToTry as why:
        return Outcome(law=law, status="skipped", text=_line(str(why)))
    except (LawBroken, ArchsearchError) as broken:
        reason = case.plugin.broken_laws.get(law.declared) if law.declared else None
        if reason is not None:
            return Outcome(
                law=law, status="declared broken", text=f'law "{law.label}" is declared broken: {_line(reason)}'
            )
        text = str(broken) if isinstance(broken, LawBroken) else f'law "{law.label}": {broken}'
        return Outcome(law=law, status="failed", text=_line(text))
    except (Exception, SystemExit) as error:  # the plugin boundary: anything may come out of foreign code
        told = foreign_error(f'law "{law.label}"', f'mixer "{case.plugin.name}"', error)
        return Outcome(law=law, status="failed", text=_line(str(told)))
    return Outcome(law=law, status="passed", text="")


def _line(text: str) -> str:
    return " ".join(text.split())
