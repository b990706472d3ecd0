"""The command line: one file a command; heavy imports wait until a command runs."""

from __future__ import annotations

import os
import sys

import typer

from archsearch.cli import (
    bench,
    cost,
    dashboard,
    database,
    doctor,
    evaluate,
    jobs,
    kernels,
    pareto,
    plugins,
    report,
    run,
    show,
)
from archsearch.errors import ArchsearchError

INTERRUPTED = 130
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
for module in (run, pareto, show, cost, evaluate, plugins, kernels, bench, report, database, dashboard, doctor, jobs):
    module.register(app)


def main() -> None:
    """Entry point of ``archsearch``: errors in one or two lines on stderr, with their stable exit codes."""
    try:
        app()
    except ArchsearchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        sys.stderr.write(
            f"error: unexpected {type(error).__name__}: {error}\n"
            f"This is a defect of archsearch or of a plugin: {DEBUG_VARIABLE}=1 shows where.\n"
        )
        sys.exit(1)
