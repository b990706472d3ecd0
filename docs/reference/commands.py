"""The commands of the command line with their options, and its exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import typer.main

from archsearch import errors
from archsearch.cli import app
from archsearch.cli.run import EXIT_CODES
from archsearch.errors import ArchsearchError
from reference.texts import code, plain, table

PROGRAM = "archsearch"


@cache
def root() -> Any:
    """The whole command line, as typer makes it; groups of commands have ``commands`` by name."""
    return typer.main.get_command(app)


def commands(words: tuple[str, ...] = (PROGRAM,), command: Any = None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `command`, groups among them, by the words that call it."""
    command = command or root()
    for name, below in getattr(command, "commands", {}).items():
        if below.hidden:  # for programs
            continue
        yield (*words, name), below
        yield from commands((*words, name), below)


def commands_reference() -> str:
    """Every command: what it does, how it is called, its arguments and options."""
    return "\n\n".join(_section(words, command) for words, command in commands())


def _section(words: tuple[str, ...], command: Any) -> str:
    called = " ".join(words)
    context = command.context_class(command, info_name=called)
    usage = command.get_usage(context).removeprefix("Usage: ")
    records = (param.get_help_record(context) for param in command.get_params(context) if param.name != "help")
    rows = [[code(left), said] for left, said in filter(None, records)]
    parts = [f"{'#' * len(words)} {called}", plain(command.help or ""), f"```text\n{usage}\n```"]
    return "\n\n".join([*parts, table(["argument or option", "meaning"], rows)] if rows else parts)


def exit_codes() -> dict[int, str]:
    """What each exit code means, as the command line itself says it."""
    said = (part.strip(" .").partition(" ") for part in EXIT_CODES.partition(":")[2].split(";"))
    return {int(number): meaning for number, _, meaning in said}


def errors_by_code() -> dict[int, list[type[ArchsearchError]]]:
    """The errors of the package by the exit code that they give."""
    found: dict[int, list[type[ArchsearchError]]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ArchsearchError):
            found.setdefault(kind.exit_code, []).append(kind)
    return found


def exit_reference() -> str:
    """Exit codes with their meaning, and the errors behind them."""
    kinds = errors_by_code()
    rows = (
        [str(number), meaning, ", ".join(code(kind.__name__) for kind in kinds.get(number, ()))]
        for number, meaning in exit_codes().items()
    )
    return table(["exit code", "means", "errors in Python"], rows)
