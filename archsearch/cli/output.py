"""What commands print: JSON, tables, and plain lines; colour only on a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.outlet import Outlet, QuietOutlet
from archsearch.errors import ArchsearchError
from archsearch.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="Database URL; else ARCHSEARCH_STORAGE, else the file ARCHSEARCH_STORAGE_FILE, else the spec's, else "
        "sqlite:///archsearch.db.",
    ),
]


def print_json(data: Any, outlet: Outlet | None = None) -> None:
    """Plain data as JSON on stdout, or `outlet`, in ASCII; NaN and infinities become null."""
    text = json.dumps(finite(data), indent=2, allow_nan=False, default=str)
    (outlet or Outlet()).write(
        text.replace("\x7f", r"\u007f") + "\n"
    )  # the one control character that json leaves as it is


def write(text: str) -> None:
    """Text on stdout as it is, without folding, with what steers a terminal escaped."""
    Outlet().write(printable(text))


_formats: list[Callable[[str], str]] = []
"""What makes a remark the line that is told; at most one, and text as it is without."""


def tell(text: str) -> None:
    """A remark on stderr, a line or more, escaped too; one that cannot be written is lost."""
    tell_line(_formats[0](text) if _formats else printable(text))


def tell_line(line: str) -> None:
    """A line on stderr as it is."""
    QuietOutlet(stderr=True).write(line + "\n")


def tell_lines_with(format_line: Callable[[str], str] | None) -> None:
    """From now on this makes each remark a line; None for text as it is."""
    _formats[:] = [] if format_line is None else [format_line]


def lines_are_told_with() -> Callable[[str], str] | None:
    """What makes a remark a line, None for text as it is."""
    return _formats[0] if _formats else None


@contextlib.contextmanager
def prints_told() -> Iterator[None]:
    """While the block runs, what a library prints by itself, as Ray does when a worker dies, is told on stderr; an
    outlet that was made before still writes to stdout."""
    with contextlib.redirect_stdout(_Aside()):
        yield


class _Aside(io.TextIOBase):
    def __init__(self) -> None:
        self._outlet = QuietOutlet(stderr=True)

    def write(self, text: str) -> int:
        if _formats:
            if text.strip():
                tell(text.strip())
            return len(text)
        return self._outlet.write(printable(text))


def finite(data: Any) -> Any:
    """Plain data in which NaN and infinities are None."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def console(*, stderr: bool = False) -> Console:
    """A rich console for an answer: colour on a terminal only, and an error where the answer cannot be written."""
    from archsearch.cli.terminal import Terminal

    return Terminal(Outlet(stderr=stderr))


def quiet_console(*, stderr: bool = False) -> Console:
    """A rich console for remarks beside work that must go on: when it cannot write, the log says so once."""
    from archsearch.cli.terminal import Terminal

    return Terminal(QuietOutlet(stderr=stderr))


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises `ArchsearchError` where what is written within comes to nothing."""
    try:
        yield
    except OSError as error:
        raise ArchsearchError(f"cannot write {path}: {error.strerror or error}: name another file") from None


def check_writable(*paths: str | Path | None) -> None:
    """Raises `ArchsearchError` for a file that cannot be written: before the work whose figures shall go there, not
    after. What is there stays as it is, and nothing is left where nothing was."""
    for path in (Path(one) for one in paths if one is not None):
        if path.is_fifo():  # whose reader would be told that this is all
            continue
        new = not path.exists()
        with writing(path):
            path.open("ab").close()
        if new:
            path.unlink(missing_ok=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table of text cells; columns whose name starts with ``>`` are aligned right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    return made
