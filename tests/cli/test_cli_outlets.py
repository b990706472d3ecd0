"""What becomes of text where a terminal lacks characters, a reader leaves, a disk is full, or a stream is closed."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from archsearch.cli import main
from archsearch.cli.outlet import OutputError
from archsearch.cli.output import console, print_json, quiet_console, table, tell, write
from archsearch.storage import current, head

MAIN = f"{shlex.quote(sys.executable)} -c 'from archsearch.cli import main; main()'"
EVIL = "a\x1b[31mred\x1b]0;title\x07\u202egnp\x9b2J"
SHOWN = r"a\x1b[31mred\x1b]0;title\x07\u202egnp\x9b2J"
ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
WITHOUT_UTF8 = {"C": ASCII, "latin-1": {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}}
COMMANDS = ["pareto quick", "searches", "trials quick --json", "--help"]
"""By the console in one piece and in many, by `print_json`, and by typer itself."""


def shell(line: str, url: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Runs ``archsearch`` in the middle of a line of bash, whose exit status is that of archsearch."""
    environment = {**os.environ, "ARCHSEARCH_STORAGE": url, "OMP_NUM_THREADS": "1", **variables}
    text = line.replace("archsearch", MAIN)
    return subprocess.run(
        ["bash", "-c", text + "; exit ${PIPESTATUS[0]}"], env=environment, capture_output=True, timeout=240, check=False
    )


@pytest.mark.parametrize(("command", "encoding"), [("pareto quick", "C"), ("show {mixed}", "latin-1")])
def test_without_utf8_there_are_boxes_and_charts_in_ascii(
    command: str, encoding: str, url: str, trials: dict[str, int]
) -> None:
    done = shell(f"archsearch {command.format(**trials)}", url, **WITHOUT_UTF8[encoding])
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("ascii")
    assert "+------" in text
    assert "\\x" not in text
    assert "?" not in text
    assert "." in text if command.startswith("pareto") else "*" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_leaves_is_no_error(command: str, url: str, trials: dict[str, int]) -> None:
    done = shell(f"archsearch {command.format(**trials)} | exec 0<&-", url)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(closed: str, url: str, trials: dict[str, int]) -> None:
    done = shell(f"archsearch searches {closed}", url)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_number_of_a_closed_stream_is_not_given_to_the_database(tmp_path: Path) -> None:
    done = shell("archsearch db upgrade >&-", f"sqlite:///{tmp_path}/new.db")
    assert (done.returncode, done.stderr) == (0, b"")
    assert current(f"sqlite:///{tmp_path}/new.db") == head()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_answer_that_is_lost_is_told(command: str, url: str, trials: dict[str, int]) -> None:
    done = shell(f"archsearch {command.format(**trials)} > /dev/full", url)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr
    assert b"defect" not in done.stderr


def test_an_error_that_cannot_be_told_keeps_its_exit_code(url: str, trials: dict[str, int]) -> None:
    assert shell("archsearch show none 2> /dev/full", url).returncode == 2


def terminal(line: str, url: str) -> str:
    """What a terminal is sent."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "ARCHSEARCH_STORAGE": url, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    command = line.replace("archsearch", MAIN)
    with subprocess.Popen(["bash", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as run:
        os.close(theirs)
        sent = b""
        with contextlib.suppress(OSError):  # the other side is closed
            while part := os.read(ours, 4096):
                sent += part
        run.wait(timeout=240)
    os.close(ours)
    return sent.decode()


def test_a_terminal_keeps_rich_colours(url: str, trials: dict[str, int]) -> None:
    assert "\x1b[1m" in terminal("archsearch searches", url)


@pytest.mark.parametrize("words", [f"'{EVIL}'", f"pareto '{EVIL}'"])
def test_what_steers_a_terminal_is_shown_in_errors(words: str, url: str, trials: dict[str, int]) -> None:
    check_shown(terminal(f"archsearch {words}", url))


@pytest.mark.parametrize("words", [("cost", EVIL), ("show", EVIL), ("evaluate", "full", "--task", EVIL)], ids=" ".join)
def test_what_is_shown_in_errors_is_escaped_by_every_command(
    words: tuple[str, ...],
    url: str,
    trials: dict[str, int],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARCHSEARCH_STORAGE", url)
    monkeypatch.setattr("sys.argv", ["archsearch", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    check_shown("".join(capfd.readouterr()))


def check_shown(sent: str) -> None:
    """What steers a terminal is escaped in `sent`."""
    for sign in ("\x1b]", "\x07", "\u202e", "\x9b", "\x1b[31m"):
        assert sign not in sent
    assert r"\x1b" in sent


def test_every_way_out_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.text import Text

    console().print(EVIL, soft_wrap=True)
    console().print(Text(EVIL.replace("\x07", "")), soft_wrap=True)
    console().print(table([EVIL], [[EVIL]], title=EVIL))
    console().print("[bold]:smile:[/bold]")
    write(EVIL)
    tell(EVIL)
    shown = capsys.readouterr()
    assert shown.err == SHOWN + "\n"
    assert shown.out.count(SHOWN) == 5
    assert SHOWN.replace(r"\x07", "") in shown.out
    assert "[bold]:smile:[/bold]" in shown.out
    assert (shown.out + shown.err).replace("\n", "").isprintable()


def test_a_cell_is_as_wide_as_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(table(["name", "next"], [[EVIL, "x"], ["a" * len(SHOWN), "x"]]))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith("x")]
    assert len({line.rstrip().rindex("x") for line in lines}) == 1


def test_json_is_ascii_without_controls(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({EVIL: [EVIL, "\x7f", "\x85", "\ud800"]})
    text = capsys.readouterr().out
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == {EVIL: [EVIL, "\x7f", "\x85", "\ud800"]}


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        """Takes nothing."""
        raise OSError(28, "No space left on device")


def test_a_quiet_console_says_once_that_it_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    quiet = quiet_console()
    with caplog.at_level(logging.WARNING, logger="archsearch.cli"):
        quiet.print("one")
        quiet.print(table(["a"], [["b"]]))
    (record,) = caplog.records
    assert record.name == "archsearch.cli"
    assert "standard output (No space left on device); the work goes on" in record.getMessage()
    with pytest.raises(OutputError, match="the output is lost"):
        console().print("one")


def test_warnings_and_logs_of_libraries_leave_stdout_to_the_answer(tmp_path: Path, url: str) -> None:
    code = (
        "import logging, sys, warnings; from archsearch.cli import app, main\n"
        "@app.command('noisy')\n"
        "def noisy():\n"
        "    from archsearch.cli.output import print_json\n"
        "    warnings.warn('old \\x1b[31m'); logging.getLogger('somebody').warning('odd \\x1b[31m')\n"
        "    print_json({'answer': 1})\n"
        "sys.argv = ['archsearch', 'noisy']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"answer": 1}
    assert r"UserWarning: old \x1b[31m" in done.stderr
    assert r"odd \x1b[31m" in done.stderr
    assert "\x1b" not in done.stderr
