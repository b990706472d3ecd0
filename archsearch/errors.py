"""Errors: what a user can be told in one or two lines, with the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from archsearch.printable import printable

_AROUND = 200
"""Characters of a pattern that are shown on either side of what is wrong in it."""
_OF_RAY = "ray_terminate_msg"
"""An attribute of the `SystemExit` by which Ray ends a worker, whatever runs in it."""
_LONGEST_NAME = 100
_LONGEST_TEXT = 1000
"""Characters of a foreign exception's text that are told."""


class ArchsearchError(Exception):
    """Base of every error that is the caller's to mend; its text names the thing, the value and the remedy.

    ``exit_code`` is the exit status that the command line gives it, and is stable.
    """

    exit_code = 1


class SpecError(ArchsearchError):
    """A search spec, a recipe or an option that cannot be used."""

    exit_code = 2


class NotationError(SpecError):
    """A layer pattern that cannot be read; ``position`` is the offending character, counted from 0."""

    def __init__(self, message: str, *, text: str, position: int) -> None:
        self.text, self.position = text, position
        self.message = message
        start, end = max(0, position - _AROUND), position + _AROUND
        before, after = (printable(part, lines=False) for part in (text[start:position], text[position:end]))
        before = "..." * bool(start) + before
        super().__init__(f"{message}\n  {before}{after}{'...' * (end < len(text))}\n  {' ' * len(before)}^")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by what made it: an error travels from a worker to its driver."""
        return _notation_error, (self.message, self.text, self.position)


class OptionsError(SpecError):
    """An option that a mixer does not have, or a value that it refuses; ``unread`` are the options that are refused
    because they say nothing beside the others."""

    def __init__(self, message: str = "", *, unread: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.unread = frozenset(unread)


class UnknownNameError(SpecError):
    """A mixer, preset, task or setting that nobody registered."""


class ConflictError(SpecError):
    """A name that several plugins claim, so that it belongs to none of them."""


class PluginError(ArchsearchError):
    """A plugin that broke the contract."""


class ForeignCodeError(PluginError):
    """An exception that code of a plugin raised where the core called it; the text names plugin, layer and call."""


class KernelUnavailableError(ArchsearchError):
    """An implementation that was asked for by name and cannot run here."""


class NothingFeasibleError(ArchsearchError):
    """No candidate of the space meets the budget."""

    exit_code = 3


class StorageError(ArchsearchError):
    """A database that cannot be opened, read, written or understood."""

    exit_code = 4


class TakenOverError(StorageError):
    """A search that another driver has taken over, so that this one may write no more of it."""


class ClusterError(ArchsearchError):
    """A Ray cluster that cannot be reached, or whose workers differ from the driver."""

    exit_code = 5


@contextmanager
def foreign_code(what: str, call: str) -> Iterator[None]:
    """Around one call of foreign code: whatever it raises becomes a `ForeignCodeError` that names `what` and `call`.

    `what` is such as ``mixer "kda", layer 2`` or ``task "mqar"``, `call` such as ``forward``. An `ArchsearchError`
    passes as it is: its text says what to mend. `SystemExit` counts too, or ``sys.exit(0)`` in a mixer would end the
    program as if all were well.
    """
    try:
        yield
    except ArchsearchError:
        raise
    except (Exception, SystemExit) as error:  # the plugin boundary: anything may come out of foreign code
        if getattr(error, _OF_RAY, None):
            raise
        raise foreign_error(what, call, error) from error


def foreign_error(what: str, call: str, error: BaseException) -> ForeignCodeError:
    """The error of `foreign_code`, with the exception's kind, its text, and the file and line that raised it."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = "" if where is None else f" ({where.tb_frame.f_code.co_filename}:{where.tb_lineno})"
    return ForeignCodeError(f"{what}: {call} raised {type(error).__name__}: {said(error)}{place}")


def said(error: BaseException) -> str:
    """What an exception says, in one line of bounded length; foreign ones may have nothing to say, or raise."""
    try:
        text = " ".join(str(error).split())
    except Exception as failure:  # the plugin boundary: the text of a foreign exception is made by foreign code
        return f"no message (its text raised {type(failure).__name__})"
    cut = len(text) - _LONGEST_TEXT
    return (text if cut <= 0 else f"{text[:_LONGEST_TEXT]}... ({cut} more characters)") or "no message"


def _notation_error(message: str, text: str, position: int) -> NotationError:
    return NotationError(message, text=text, position=position)


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` when a known name is close to `name`, else the empty string."""
    if len(name) > _LONGEST_NAME:  # nobody's typing error, and comparing it takes long
        return ""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def listing(names: Iterable[str]) -> str:
    """Names for the end of an error message, sorted and separated by commas."""
    return ", ".join(sorted(names)) or "none"
