"""The command line: one file a command; heavy imports wait until a command runs."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from typing import Protocol, TextIO, runtime_checkable

import typer

from archsearch.cli import (
    add,
    bench,
    bench_search,
    bench_stopping,
    bench_truth,
    check,
    compare,
    cost,
    dashboard,
    database,
    doctor,
    edit,
    evaluate,
    jobs,
    kernels,
    ladder,
    mixers,
    new_plugin,
    pareto,
    plugins,
    remove,
    report,
    run,
    show,
    survey,
    sweep,
)
from archsearch.cli.logs import Remarks
from archsearch.cli.outlet import ReaderLeftError, prepare_streams
from archsearch.cli.output import tell
from archsearch.errors import ArchsearchError

INTERRUPTED = 130
LONGEST_ERROR = 2000
_NO_MEMORY = re.compile(r"can't allocate memory|CUDA out of memory")
DEBUG_VARIABLE = "ARCHSEARCH_DEBUG"

app = typer.Typer(
    name="archsearch",
    help="Search for hybrid attention architectures: which mix of full, sliding, linear and sparse attention, "
    "layer by layer, is best at each cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    run,
    add,
    survey,
    pareto,
    compare,
    ladder,
    sweep,
    show,
    cost,
    evaluate,
    mixers,
    plugins,
    check,
    kernels,
    new_plugin,
    bench,
    bench_stopping,
    bench_truth,
    bench_search,
    report,
    database,
    edit,
    remove,
    dashboard,
    doctor,
    jobs,
):
    module.register(app)


@runtime_checkable
class _UsageError(Protocol):
    """What typer raises for words that are no command, in any of its versions."""

    exit_code: int

    def show(self, file: TextIO) -> None:
        """Writes the usage and what is wrong."""


def main() -> None:
    """Entry point of ``archsearch``: errors in one or two lines on stderr, with their stable exit codes."""
    prepare_streams()
    logging.basicConfig(format="%(message)s", handlers=[Remarks()])
    logging.captureWarnings(True)
    try:
        code = app(prog_name="archsearch", standalone_mode=False) or 0
    except KeyboardInterrupt:
        tell("interrupted")
        code = INTERRUPTED
    except ReaderLeftError:
        code = 0
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        code = 0  # typer's help, whose reader has left
    except Exception as error:  # whatever a command raises ends here
        if os.environ.get(DEBUG_VARIABLE):
            raise
        code = _explain(error)
    sys.exit(code)


def _explain(error: Exception) -> int:
    """Tells an error; its exit code."""
    if isinstance(error, _UsageError):
        shown = io.StringIO()
        error.show(shown)
        tell(shown.getvalue().rstrip())
        return error.exit_code
    if isinstance(error, ArchsearchError):
        tell(f"error: {_brief(str(error))}")
        return error.exit_code
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        tell("error: there is not enough memory for it: take a smaller model, or fewer or shorter sequences a step")
        return 1
    if isinstance(error, OSError):
        tell(f"error: {_brief(_refusal(error))}")
        return 1
    tell(
        f"error: unexpected {type(error).__name__}: {_brief(str(error))}\n"
        f"This is a defect of archsearch or of a plugin: {DEBUG_VARIABLE}=1 shows where."
    )
    return 1


def _brief(text: str) -> str:
    """`text`, or its two ends where somebody gave a word as long as a book."""
    if len(text) <= LONGEST_ERROR:
        return text
    half = LONGEST_ERROR // 2
    return f"{text[:half]} [... {len(text) - 2 * half:,} characters ...] {text[-half:]}"


def _refusal(error: OSError) -> str:
    """What the machine refuses, with the file where there is one; `archsearch doctor` looks at what it should allow."""
    if error.strerror is None:
        return f"the machine refuses: {error}: `archsearch doctor` says what a search needs"
    place = "" if error.filename is None else f' at "{os.fsdecode(error.filename)}"'
    return f"the machine refuses{place}: {error.strerror}: `archsearch doctor` says what a search needs"
