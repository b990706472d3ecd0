"""Logs: what a process says on stderr beside its answer, as plain lines or, for a collector of logs, as JSON lines."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from archsearch.cli import output
from archsearch.errors import SpecError

VARIABLE = "ARCHSEARCH_LOG_FORMAT"
FIELDS = "archsearch_fields"
"""The attribute of a record that holds what belongs into the JSON line beside the message."""

log = logging.getLogger("archsearch.search")


class LogFormat(StrEnum):
    """How remarks, warnings and a search's events leave."""

    text = "text"
    json = "json"


LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option(
        "--log-format",
        help=f"json: events of the search, warnings and errors as one JSON object a line on stderr; else {VARIABLE}, "
        "else text.",
        show_default=False,
    ),
]


def choose_format(given: LogFormat | None) -> LogFormat:
    """The format of the option, else of the environment; from now on all that is told on stderr has it.

    Raises `SpecError` for another word in the environment.
    """
    named = os.environ.get(VARIABLE, "")
    if given is None and named not in ("", *LogFormat):
        raise SpecError(f'{VARIABLE} is "{named}": write text or json')
    chosen = given or LogFormat(named or LogFormat.text)
    output.tell_lines_with(_json_line if chosen is LogFormat.json else None)
    if chosen is LogFormat.json:
        log.setLevel(logging.INFO)
    return chosen


class JsonFormatter(logging.Formatter):
    """A record as a line of JSON: time (UTC), level, logger, message, and the fields that it carries."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, in ASCII."""
        fields = getattr(record, FIELDS, {})
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname.lower(), "logger": record.name}
        said = {**line, "message": record.getMessage(), **fields}
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info).splitlines()[-1]
        return json.dumps(output.finite(said), default=str)


class Remarks(logging.Handler):
    """Log records of libraries and of searches, on stderr: stdout is the answer's alone."""

    def emit(self, record: logging.LogRecord) -> None:
        """A line or more, in the format that was chosen; as plain text only warnings and what is worse."""
        if output.lines_are_told_with() is not None:
            output.tell_line(JsonFormatter().format(record))
        elif record.levelno >= logging.WARNING:
            output.tell(self.format(record))


def _json_line(text: str) -> str:
    """A remark that no record carries, such as the error that a command ends with."""
    level = logging.ERROR if text.startswith("error: ") else logging.INFO
    record = logging.LogRecord("archsearch.cli", level, "", 0, text.removeprefix("error: "), None, None)
    return JsonFormatter().format(record)
